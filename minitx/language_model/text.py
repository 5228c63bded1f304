"""The text's side: its leading terms for the most frequent tokens, of as large a vocabulary as a language model has.

Legend: V tokens in the vocabulary, n of them compared, K of them summed over, N windows of T positions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import bigram_counts, context, scores
from minitx.base.checks import instance, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.data.corpus import Corpus

SUMMED = 8_000  # K: tables have K^2 numbers; in sums over the vocabulary, products of rarer tokens' counts count as 0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeadingTerms(Shown):
    """The leading terms of a text between its n most frequent tokens, (n, n) each (Im et al. 2026, Section 4).

    Sums within a product, such as that of B^T B, run over the whole vocabulary.
    """

    tokens: NDArray[np.int64]  # (n,): ids, most frequent first
    bigram: Array  # B: row = current token, column = next token
    interchangeability: Array  # Sigma_B = B^T B
    value: Array  # Phi^T B^T: row = attended token, column = current token
    value_output: Array  # Phi^T Sigma_B = Phi^T B^T B: row = attended token, column = output token
    attention: Array  # Q: row = query (current) token, column = key (attended) token
    n_summed: int  # K
    left_out: float  # share of the text's tokens that are not among the K


@one_blas_thread()
def leading_terms(corpus: Corpus, n_tokens: int, *, n_summed: int = SUMMED) -> LeadingTerms:
    """Leading terms of the windows of ``corpus`` between its ``n_tokens`` most frequent tokens.

    All are computed from counts of the K = ``n_summed`` most frequent tokens, or of all that occur, if these are fewer.
    Tokens that are not among the K stay in windows, as one token that is in no sum over the vocabulary.

    Raises
    ------
    TypeError, ValueError
        No Corpus; numbers out of range; fewer than 4 tokens occur.
    """
    instance("corpus", corpus, Corpus)
    n_tokens, n_summed = whole_number("n_tokens", n_tokens, 4), whole_number("n_summed", n_summed, 4)
    V, frequency = len(corpus.vocabulary), np.bincount(corpus.tokens.ravel(), minlength=len(corpus.vocabulary))
    ranked = np.argsort(-frequency, kind="stable")[:np.count_nonzero(frequency)]
    K = min(len(ranked), max(n_summed, n_tokens))
    n = min(n_tokens, K)
    if n < 4:
        raise ValueError(f"{corpus.name} holds {n} different tokens; at least 4 are needed to compare them")
    number = np.full(V, K, np.int32)  # K stands for all rarer tokens
    number[ranked[:K]] = np.arange(K)
    rows = number[corpus.tokens]
    batch = Batch(rows[:, :-1], rows[:, 1:])
    # with M = K + 2 tokens: the rarer ones, and one that never occurs, which takes the rest of a sum over all V outputs
    pairs, alpha = bigram_counts(batch, K + 2)
    Phi, share = context(batch, K + 2)
    Phi += share / (K + 2)  # counts, as `pairs` are: row = next token, column = token of its prefix
    P, O, alpha, share = pairs[:K, :K], Phi[:K, :K], alpha[:K], share[:K]
    # B = P - alpha 1^T / V and Phi = O - 1 share^T / V over all V tokens, whose columns and rows sum to 0
    B_Phi = P @ O - np.outer(alpha, share) / V
    output = P.T @ B_Phi - alpha @ B_Phi / V  # Sigma_B Phi: row = output token, column = attended token
    ov = np.zeros((K + 2, K + 2))
    ov[:K, :K] = output.T
    ov[:K, K] = -(alpha @ B_Phi) / V
    ov[:K, K + 1] = -ov[:K].sum(axis=1)
    Q, _ = scores(batch, ov)
    following = P[:, :n]
    mean = following.T @ alpha / V
    Sigma = (following.T @ following).toarray() - mean[:, None] - mean + alpha @ alpha / V**2
    return LeadingTerms(ranked[:n], P[:n, :n].toarray() - alpha[:n, None] / V, Sigma, B_Phi[:n, :n].T, output[:n, :n].T,
                        Q[:n, :n], K, 1 - frequency[ranked[:K]].sum() / corpus.tokens.size)
