"""Topics: what one attention layer learns from masked words (Li, Li, Risteski, ICML 2023, arXiv 2303.04245).

**What is trained.** Documents mix topics of words; some words are hidden behind [MASK], and one attention layer
predicts them: f = W_U W_V W_E X A + b, where X are the shown tokens and A is the softmax of the scores of W_Q and W_K.
Stage 1 keeps attention uniform and trains the value matrix W_V (1a), or the embeddings E with tied output (1b). Stage 2
freezes W_V and trains W_Q and W_K.

**What is predicted.** Every learned matrix has the block structure of topics: it has the eigenvalue lam_w on contrasts
between the words of a topic, the eigenvalue lam_t on contrasts between topics, and a part on the mean of the words and
[MASK]. Let u hold the shares of the tokens that a document shows, and let y be a hidden word. Everything at uniform
attention and squared loss follows from C = E[e_y u^T] and M = E[u u^T]. N is the length of documents; other letters are
as in :class:`TopicModel`.

===============================================================================  ================================
equation                                                                         function
===============================================================================  ================================
the law of documents and of masks, and its constants a, r, m, h, G, s, w         `TopicModel`
C_w, M_w, C_t, M_t, and mean and variance of the share of [MASK]                 `moments`
1a: W_V = C M^+, so that lam_w = C_w / M_w and lam_t = C_t / M_t                 `optimal_value`
1a: the paper's W_inf (N -> inf, then ridge -> 0): lam_w = 0, gap 1/(a v)        `paper_value`, `separated_value`
1a: the other order (ridge -> 0, then N -> inf): lam_w = p_c/(1-m), lam_t = 1/a  `other_limit_value`
1a: with the regulariser ridge |W_V|^2: C (M + ridge)^-1                         `ridge_value`
1a: after k steps: lam = (C/M) (1 - (1 - 2 eta M)^k)                             `value_after`
1b: E^T E where descent first rests (lam_w = 0), and where it ends               `gram_plateau`, `optimal_gram`
1: least cross-entropy: word - topic and topic - other of W_V                    `cross_entropy_optimum`
2: loss as a function of attention alpha (word) : beta (topic) : 1 (other)       `attention_loss`
2: with W_inf the loss depends on one ratio rho; its best value, and a bound     `optimal_ratio`
2: the best alpha and beta with any W_V                                          `optimal_attention`
2: average attention times N, given alpha and beta                               `attention_profile`
2: all infinitely long documents, as a batch to train on                         `infinite_documents`
2: the same loss at any length N, and with Dirichlet shares of topics            `expected_attention_loss`
2: its best alpha and beta, by an exact expectation                              `best_attention`
===============================================================================  ================================

The two orders of the limits in 1a do not commute, and in documents of any finite length a word stands out of its own
topic. Trained matrices are averaged by :class:`Blocks` (known topics) or :func:`pair_averages` (topics of a text), and
attention by :func:`attention_table`; :func:`pair_spread` is what such averages leave out, and ``two_stages`` measures
when W_V, W_Q and W_K move. What holds along training (``value_after``, ``gram_plateau``) holds for gradient descent
alone; where training of W_V ends is the same for every optimiser, and weight decay lambda in its gradient is the ridge
lambda/2. ``uniform_attention`` trains through C and M, ``training`` records a run,
``snapshots`` are the maps between some words that the page moves through training, and ``minitx topics`` sets the
stages beside all of this.
"""

from minitx.topics import text, training, two_stages, uniform_attention
from minitx.topics.attention import (
    attention_loss,
    attention_profile,
    infinite_documents,
    optimal_attention,
    optimal_ratio,
)
from minitx.topics.averages import attention_table, cosine_matrix, gram, pair_averages, pair_spread, permutation_test
from minitx.topics.cross_entropy import cross_entropy_optimum
from minitx.topics.documents import Documents, mask_tokens
from minitx.topics.finite_attention import best_attention, expected_attention_loss
from minitx.topics.law import TopicModel
from minitx.topics.sectors import Blocks, moments
from minitx.topics.values import (
    gram_plateau,
    optimal_gram,
    optimal_value,
    other_limit_value,
    paper_value,
    ridge_value,
    separated_value,
    value_after,
)

__all__ = [
    "Blocks", "Documents", "TopicModel", "attention_loss", "attention_profile", "attention_table", "best_attention",
    "cosine_matrix", "cross_entropy_optimum", "expected_attention_loss", "gram", "gram_plateau", "infinite_documents",
    "mask_tokens", "moments", "optimal_attention", "optimal_gram", "optimal_ratio", "optimal_value",
    "other_limit_value", "pair_averages", "pair_spread", "paper_value", "permutation_test", "ridge_value",
    "separated_value", "text", "training", "two_stages", "uniform_attention", "value_after",
]


def __dir__() -> list[str]:
    return __all__
