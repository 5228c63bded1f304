"""Topics: what one attention layer learns of topics under masked language modelling (Li, Li, Risteski, ICML 2023, arXiv 2303.04245).

**What is trained.** Documents mix topics of words; some of their words are hidden ([MASK]), and one attention layer predicts them:
f = W_U W_V W_E X A + b, where A is the softmax of the scores of W_Q and W_K. Stage 1 keeps attention uniform and trains the value matrix
W_V (1a), or the embeddings E with tied output and W_V = I (1b); stage 2 freezes W_V and trains W_Q and W_K.

**What is predicted.** All matrices take the block structure of topics. They are eigenvalues lam_w on contrasts between words of a topic,
lam_t on contrasts between topics, and a part on the mean and [MASK]. With u the shares of the shown tokens in a document, y the hidden
word, C = E[e_y u^T] and M = E[u u^T], and with T, v, n, N, tau, a, r, m, h, G, s, w as :class:`TopicModel` defines them:

=====================================================================  ==========================================  ================
equation                                                               function                                    in the paper
=====================================================================  ==========================================  ================
the law of documents and masks; h = tau (T-1)/(T-tau), or T alpha + 1  :class:`TopicModel`                         sections 2, 3
C_w, C_t, M_w, M_t; mean and variance of [MASK]'s share, exact         :func:`moments`                             beyond it
1a: W_V = C M^+: lam_w = C_w/M_w, lam_t = C_t/M_t                      :func:`optimal_value`                       beyond it
1a: N -> inf first, then ridge -> 0: gap 1/(a v), lam_w = 0            :func:`paper_value`, :func:`separated_value`      stage 1, W_V
1a: ridge -> 0 first, then N -> inf: lam_w = p_c/(1-m), lam_t = 1/a    :func:`other_limit_value`                   beyond it
1a: loss + ridge |W|^2: lam = C/(M + ridge)                            :func:`ridge_value`                         its regulariser
1a: after k steps: lam = (C/M)(1 - (1 - 2 eta M)^k)                    :func:`value_after`                         beyond it
1b: E^T E: the plateau (topics alone), and the end of descent          :func:`gram_plateau`, :func:`optimal_gram`        stage 1, E
1a, 1b: word - topic and topic - other of least cross-entropy          :func:`cross_entropy_optimum`               beyond it
2: the loss as a function of attention alpha : beta : 1                :func:`attention_loss`                      stage 2
2: the best ratio rho : 1 of same topic to different topic             :func:`optimal_ratio`                       stage 2, bound
2: the best alpha and beta with any W_V                                :func:`optimal_attention`                   beyond it
2: average attention times N, given alpha and beta                     :func:`attention_profile`                   beyond it
2: all infinite documents, to train on                                 :func:`infinite_documents`                  N = inf
=====================================================================  ==========================================  ================

The two limits of stage 1a do not commute, and at any fixed N a word stands out of its own topic. Any matrix is averaged over kinds of word
pairs by :class:`Blocks` (known topics) or :func:`pair_averages` (a text), attention by :func:`attention_table`. Squared loss at uniform
attention is trained through its moments (``uniform_attention``); ``training`` records a run, and ``minitx topics`` shows all this.
"""

from minitx.topics.attention import (
    AttentionProfile,
    InfiniteDocuments,
    OptimalAttention,
    OptimalRatio,
    attention_loss,
    attention_profile,
    infinite_documents,
    optimal_attention,
    optimal_ratio,
)
from minitx.topics.averages import attention_table, cosine_matrix, gram, pair_averages, permutation_test
from minitx.topics.cross_entropy import CrossEntropyOptimum, cross_entropy_optimum
from minitx.topics.documents import Documents, mask_tokens
from minitx.topics.law import TopicModel
from minitx.topics.sectors import Blocks, Sectors, moments
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
    "AttentionProfile", "Blocks", "CrossEntropyOptimum", "Documents", "InfiniteDocuments", "OptimalAttention", "OptimalRatio",
    "Sectors", "TopicModel", "attention_loss", "attention_profile", "attention_table", "cosine_matrix", "cross_entropy_optimum",
    "gram", "gram_plateau", "infinite_documents", "mask_tokens", "moments", "optimal_attention", "optimal_gram", "optimal_ratio",
    "optimal_value", "other_limit_value", "pair_averages", "paper_value", "permutation_test", "ridge_value", "separated_value",
    "value_after",
]
