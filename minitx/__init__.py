"""minitx: one attention layer trained by explicit gradient descent, and three theories that predict its weights."""

from importlib import import_module

TYPE_CHECKING = False  # True for type checkers; importing it from typing would take most of the time of this import
if TYPE_CHECKING:  # for editors and type checkers; Python itself finds the names by __getattr__
    from minitx import associations, base, data, language_model, model, next_token, testing, topics
    from minitx.associations.terms import gradient_terms
    from minitx.base.numbers import agreement, cosine, relative_error
    from minitx.base.parallel import get_threads, set_threads
    from minitx.data.batch import Batch
    from minitx.data.corpus import Corpus, builtin_corpus, load_corpus
    from minitx.model.circuits import Circuits, attention_and_output, loss_and_gradient
    from minitx.model.descent import Trajectory, descend
    from minitx.model.files import load
    from minitx.model.layers import LayeredWeights
    from minitx.model.optimisers import Adam, AdamW, GradientDescent, Momentum
    from minitx.model.weights import EmbeddedWeights, LastTokenWeights, OneHotWeights
    from minitx.next_token.samples import Samples

__version__ = "0.1.0"
__all__ = [
    "Adam", "AdamW", "Batch", "Circuits", "Corpus", "EmbeddedWeights", "GradientDescent", "LastTokenWeights",
    "LayeredWeights", "Momentum", "OneHotWeights", "Samples", "Trajectory", "agreement", "associations",
    "attention_and_output", "base", "builtin_corpus", "cosine", "data", "descend", "get_threads", "gradient_terms",
    "language_model", "load", "load_corpus", "loss_and_gradient", "model", "next_token", "relative_error",
    "set_threads", "testing", "topics",
]

# {public name: the module that defines it}; the other public names are modules.
_DEFINED_IN = {name: module for module, names in {
    "associations.terms": "gradient_terms", "next_token.samples": "Samples",
    "base.numbers": "agreement cosine relative_error", "base.parallel": "get_threads set_threads",
    "data.batch": "Batch", "data.corpus": "Corpus builtin_corpus load_corpus",
    "model.circuits": "Circuits attention_and_output loss_and_gradient", "model.descent": "Trajectory descend",
    "model.files": "load", "model.layers": "LayeredWeights",
    "model.optimisers": "Adam AdamW GradientDescent Momentum",
    "model.weights": "EmbeddedWeights LastTokenWeights OneHotWeights",
}.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import minitx`` does not wait for numba (PEP 562)."""
    if name in _DEFINED_IN:
        return getattr(import_module(f"minitx.{_DEFINED_IN[name]}"), name)
    if name in __all__:
        return import_module(f"minitx.{name}")
    raise AttributeError(f"module 'minitx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
