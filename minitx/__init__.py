"""minitx: one attention layer trained by explicit gradient descent, and three theories that predict its weights."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; Python itself finds the names by __getattr__
    from minitx import associations, base, data, model, next_token, testing, topics
    from minitx.associations.terms import gradient_terms
    from minitx.base.numbers import agreement, cosine, relative_error
    from minitx.base.parallel import get_threads, set_threads
    from minitx.data.batch import Batch
    from minitx.data.corpus import Corpus, builtin_corpus, load_corpus
    from minitx.model.circuits import Circuits, attention_and_output, loss_and_gradient
    from minitx.model.descent import Trajectory, descend
    from minitx.model.weights import EmbeddedWeights, LastTokenWeights, OneHotWeights
    from minitx.next_token.samples import Samples

__version__ = "0.1.0"
__all__ = [
    "Batch", "Circuits", "Corpus", "EmbeddedWeights", "LastTokenWeights", "OneHotWeights", "Samples", "Trajectory",
    "agreement", "associations", "attention_and_output", "base", "builtin_corpus", "cosine", "data", "descend",
    "get_threads", "gradient_terms", "load_corpus", "loss_and_gradient", "model", "next_token", "relative_error",
    "set_threads", "testing", "topics",
]

# Public names that are modules, and the modules that define the other public names.
_MODULES = ("associations", "base", "data", "model", "next_token", "testing", "topics")
_DEFINED_IN = {
    "gradient_terms": "associations.terms",
    "agreement": "base.numbers", "cosine": "base.numbers", "relative_error": "base.numbers",
    "get_threads": "base.parallel", "set_threads": "base.parallel",
    "Batch": "data.batch", "Corpus": "data.corpus", "builtin_corpus": "data.corpus", "load_corpus": "data.corpus",
    "Circuits": "model.circuits", "attention_and_output": "model.circuits", "loss_and_gradient": "model.circuits",
    "Trajectory": "model.descent", "descend": "model.descent",
    "EmbeddedWeights": "model.weights", "LastTokenWeights": "model.weights", "OneHotWeights": "model.weights",
    "Samples": "next_token.samples",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import minitx`` does not wait for numba (PEP 562)."""
    if name in _MODULES:
        return import_module(f"minitx.{name}")
    if name in _DEFINED_IN:
        return getattr(import_module(f"minitx.{_DEFINED_IN[name]}"), name)
    raise AttributeError(f"module 'minitx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
