"""minitx: one attention layer, trained by explicit gradient descent, its exact gradient beside the theories that predict it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; Python itself finds the names by __getattr__
    from minitx import compare, testing, theory
    from minitx.circuits import Batch, Circuits, attention_and_output, loss_and_gradient
    from minitx.corpus import Corpus, builtin_corpus, load_corpus
    from minitx.descent import Trajectory, descend
    from minitx.last_token import Samples
    from minitx.parallel import get_threads, set_threads
    from minitx.terms import gradient_terms
    from minitx.weights import EmbeddedWeights, LastTokenWeights, OneHotWeights

__version__ = "0.1.0"
__all__ = [
    "Batch", "Circuits", "Corpus", "EmbeddedWeights", "LastTokenWeights", "OneHotWeights", "Samples", "Trajectory",
    "attention_and_output", "builtin_corpus", "compare", "descend", "get_threads", "gradient_terms", "load_corpus",
    "loss_and_gradient", "set_threads", "testing", "theory",
]

_MODULES = ("compare", "testing", "theory")  # the public names that are modules; every other one is defined in a module:
_DEFINED_IN = {
    "Batch": "circuits", "Circuits": "circuits", "attention_and_output": "circuits", "loss_and_gradient": "circuits",
    "Corpus": "corpus", "builtin_corpus": "corpus", "load_corpus": "corpus",
    "Trajectory": "descent", "descend": "descent",
    "Samples": "last_token",
    "get_threads": "parallel", "set_threads": "parallel",
    "gradient_terms": "terms",
    "EmbeddedWeights": "weights", "LastTokenWeights": "weights", "OneHotWeights": "weights",
}


def __getattr__(name):
    """Import a public name when it is first asked for, so that ``import minitx`` does not wait for numba (PEP 562)."""
    if name in _MODULES:
        return import_module(f"minitx.{name}")
    if name in _DEFINED_IN:
        return getattr(import_module(f"minitx.{_DEFINED_IN[name]}"), name)
    raise AttributeError(f"module 'minitx' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
