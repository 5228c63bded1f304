"""Language models: do the weights of pre-trained transformers hold the associations of a text?"""

from minitx.language_model import forward, reading
from minitx.language_model.forward import Transformer
from minitx.language_model.reading import read_model, read_tokenizer, training_step

__all__ = ["Transformer", "forward", "read_model", "read_tokenizer", "reading", "training_step"]


def __dir__() -> list[str]:
    return __all__
