"""Associations: how weights arise from corpus statistics (Im, Oh, Fang, Li, ICLR 2026, arXiv 2601.19208).

**What is trained.** The one-hot model of Definition 3.1 with one layer, h = X + A X V, out = h W_O, A = softmax over
the prefix of W[x_t, x_j] + P[t - j] (:class:`minitx.model.weights.OneHotWeights`), by full-batch gradient descent on
the mean cross-entropy of the next token, from zero weights, for s steps with the learning rate eta.

**What is predicted.** At zero weights the output is uniform and attention is uniform over the prefix. The gradient
there is made of three basis functions of the corpus, and the weights of the early steps are multiples of their
compositions. Later, as the loss falls, three kinds of corrections grow. The exact gradient is split into the leading
term and these corrections, which shows when and why the leading terms end. Two further theories go on from there:
reduced dynamics and the expansion in eta.

    equation                                                                function                      paper
    ----------------------------------------------------------------------  ----------------------------  -------------
    B[a, b] = P(a then b) - alpha_a / V,  Sigma_B = B^T B                   statistics                    Sec. 4
    Phi[b, a] = P(b is next, and a in the prefix) - mu_a                    statistics                    Sec. 4
    Q, Delta = gradient of the scores where ov = Phi^T Sigma_B              statistics                    Thm. D.7
    W_O ~ s eta B,  V ~ C(s,2) eta^2 Phi^T B^T,                             leading_weights               Thm. D.7, D.10
        (W, P) ~ (3 C(s,4) + 2 C(s,3)) eta^4 (Q, Delta)
    W_O ~ s eta B - C(s,2) (eta^2 / V) diag(alpha) B                        second_order_output           (minitx)
    errors <= 3 (s eta)^2, 4 (s eta)^3, 6 (s eta)^5 T of W_O, V, (W, P)     bounds, beside                Thm. D.7, D.10
    gradient = leading term + saturation + attention drift + weight drift   gradient_terms                proof of D.7
        + products of these corrections
    the step at which a correction exceeds a share of the leading term      first_exceeds                 (minitx)
    all of this over training, in one call, or as a callback of descend     record_terms, TermRecorder    (minitx)
    the same statistics by sums that merge, exact for any split             Counts, Scores         (minitx)
    statistics of texts of any size, on any executor                        text_statistics        (minitx)
    words that go together under B, Sigma_B, Phi                            words.similarity, .associates Fig. 5
    training with one prediction for each cell of contexts                  reduced.descend               (minitx)
    Theta(s) = sum_m eta^m sum_d C(s, d) Theta_{m,d}                        expand                        (minitx)

Modules: ``basis`` (statistics), ``counts`` and ``streaming`` (the same by parts of a text), ``leading`` (leading terms
and bounds), ``terms`` (the split gradient), ``recording`` (its terms over training), ``words``, ``reduced``,
``expansion``; ``figures`` and ``command`` are those of ``minitx associate``.
"""

from minitx.associations import basis, counts, expansion, leading, recording, reduced, streaming, terms, words
from minitx.associations.basis import Statistics, statistics
from minitx.associations.counts import Counts, Scores
from minitx.associations.expansion import Expansion, expand
from minitx.associations.leading import Beside, Bounds, beside, bounds, leading_weights, second_order_output
from minitx.associations.recording import TermRecorder, TermsOverTraining, record_terms
from minitx.associations.streaming import text_statistics
from minitx.associations.terms import first_exceeds, gradient_terms

__all__ = [
    "Beside", "Bounds", "Counts", "Expansion", "Scores", "Statistics", "TermRecorder", "TermsOverTraining", "basis",
    "beside", "bounds", "counts", "expand", "expansion", "first_exceeds", "gradient_terms", "leading",
    "leading_weights", "record_terms", "recording", "reduced", "second_order_output", "statistics", "streaming",
    "terms", "text_statistics", "words",
]


def __dir__() -> list[str]:
    return __all__
