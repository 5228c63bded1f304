"""minitx: one attention layer, trained by explicit gradient descent, its exact gradient beside the theories that predict it."""

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
