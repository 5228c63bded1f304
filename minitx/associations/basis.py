"""The gradient at the reference point: output uniform (1/V), attention uniform over the allowed keys. Lookups only.

Everything Im et al. (2026) predict is this gradient. All results are descent directions (minus the gradient), float64.

Legend: N sequences, T positions, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from minitx.associations import kernels
from minitx.base import parallel
from minitx.base.checks import whole_number
from minitx.base.parallel import one_blas_thread
from minitx.model import kernels as model_kernels

CHUNKS = 16  # partial sums of the position gradient; fixed, so that the bits are


def bigram_counts(batch, n_vocab):
    """Weighted counts of (current token, next token).

    Returns
    -------
    pairs : sparse (V, V) float64
        Row = current token, column = next token; the sum of the weights of the positions that hold the pair.
    frequency : (V,) float64
        alpha_a: the sum of the weights of the positions whose current token is a.
    """
    used = batch.weight != 0
    current, following, weight = batch.tokens[used], batch.targets[used], batch.weight[used]
    pairs = sparse.coo_array((weight, (current, following)), shape=(n_vocab, n_vocab)).tocsr()
    return pairs, np.bincount(current, weight, n_vocab)


def bigram(pairs, frequency):
    """B = pairs - frequency 1^T / V, from :func:`bigram_counts`: the descent direction of the ``direct`` table. (V, V)

    Row = current token, column = next token; rows sum to 0 (Im et al. 2026, bigram function).
    """
    return pairs.toarray() - frequency[:, None] / len(frequency)


def context(batch, n_vocab):
    """Context function and context shares, by O(N T U) additions, U the distinct tokens of a sequence.

    Returns
    -------
    Phi : (V, V) float64
        Phi[b, a] = sum_t w_t (1(y_t = b) - 1/V) (share of a among the allowed keys of t). Row = next token, column = token of its
        context; columns sum to 0. Phi^T is the descent direction of the ``ov`` table (Im et al. 2026, context function).
    share : (V,) float64
        sum_t w_t (share of a among the allowed keys of t) = V mu_a.
    """
    slots, words = _distinct(batch, n_vocab)
    table = np.zeros((n_vocab, n_vocab))
    n_owners = parallel.get_threads()
    with parallel.workers(n_owners) as run:
        run(lambda owner: kernels.reference_context(batch.tokens, batch.lengths, batch.targets, batch.weight, batch.causal, words,
                                                    slots, owner, n_owners, table), range(n_owners))
    share = table.sum(axis=0)
    table -= share / n_vocab
    return table, share


def scores(batch, ov):
    """Descent directions of ``qk`` and ``position`` for a given ``ov`` table.

    Parameters
    ----------
    ov : (V, V) float64
        Row = attended token, column = output token.

    Returns
    -------
    qk : (V, V) float64
        Row = query (current) token, column = key (attended) token.
    position : (T,) float64 or None
        By distance t - j; None when attention is not causal.
    """
    n_vocab = len(ov)
    slots, words = _distinct(batch, n_vocab)
    g = ov.T - ov.mean(axis=1)  # g[y, a] = rho0 . ov[a, :]: row = next token, column = key
    g = np.ascontiguousarray(g)
    qk = np.zeros((n_vocab, n_vocab))
    n_owners = parallel.get_threads()
    chunks = [rows for rows in np.array_split(np.arange(len(batch)), CHUNKS) if len(rows)] if batch.causal else []
    parts = np.zeros((len(chunks), batch.tokens.shape[1]))

    def add_qk(owner):
        kernels.reference_attention(batch.tokens, batch.lengths, batch.targets, batch.weight, batch.causal, words, slots, g,
                                    owner, n_owners, qk)

    def add_position(chunk):
        rows = slice(chunks[chunk][0], chunks[chunk][-1] + 1)
        kernels.reference_position(batch.tokens[rows], batch.lengths[rows], batch.targets[rows], batch.weight[rows], g,
                                   parts[chunk])

    with parallel.workers(max(n_owners, len(chunks))) as run:
        run(add_qk, range(n_owners))
        run(add_position, range(len(chunks)))
    return qk, parts.sum(axis=0) if batch.causal else None


def _distinct(batch, n_vocab):
    batch.require_vocabulary(n_vocab)
    if batch.mass is not None:
        raise ValueError("the statistics of the reference point count every token once; this batch has mass")
    slots, words = np.empty_like(batch.tokens), np.empty_like(batch.tokens)
    tokens, lengths = batch.tokens.copy(), batch.lengths.copy()  # the kernel is compiled for arrays that are not read-only
    n_words = model_kernels.distinct(tokens, lengths, n_vocab, slots, words)
    return slots, np.ascontiguousarray(words[:, :n_words.max()])

@dataclass(frozen=True, eq=False)
class Statistics:
    """The basis functions of a corpus and their compositions, all float64, all with weights 1/(N T) (or the batch's own).

    Attributes
    ----------
    bigram : (V, V)
        B. Row = current token, column = next token; P(a then b) - alpha_a / V. Rows sum to 0.
    interchangeability : (V, V)
        Sigma_B = B^T B, symmetric: [b, c] is large when b and c follow the same tokens.
    context : (V, V)
        Phi. Row = next token, column = token of its prefix. Columns sum to 0.
    value : (V, V)
        Phi^T B^T. Row = attended token, column = current token whose bigram row it resembles.
    attention : (V, V)
        Q. Row = query (current) token, column = key (attended) token.
    position : (T,)
        Delta, by distance t - j.
    frequency : (V,)
        alpha: relative frequency as current token.
    share : (V,)
        V mu: mean share of a token in the prefix.
    """

    bigram: np.ndarray
    interchangeability: np.ndarray
    context: np.ndarray
    value: np.ndarray
    attention: np.ndarray
    position: np.ndarray
    frequency: np.ndarray
    share: np.ndarray

    @property
    def n_vocab(self):
        """V."""
        return len(self.frequency)


@one_blas_thread()
def statistics(batch, n_vocab):
    """Basis functions of ``batch`` (Im et al. 2026, Sec. 4 and Thm. D.7), by lookups.

    Parameters
    ----------
    batch : Batch
        Causal, cross-entropy: next-token training.
    n_vocab : int
        V.

    Raises
    ------
    ValueError
        Tokens outside the vocabulary; attention that is not causal, or another head.
    """
    n_vocab = whole_number("n_vocab", n_vocab, 2)
    batch.require_next_token()
    batch.require_vocabulary(n_vocab)
    pairs, alpha = bigram_counts(batch, n_vocab)
    B = bigram(pairs, alpha)
    # products with B = pairs - alpha 1^T / V are products with the few pairs that occur, and a rank-one correction
    mean_next = pairs.T @ alpha / n_vocab
    Sigma_B = (pairs.T @ pairs).toarray() - mean_next[:, None] - mean_next + alpha @ alpha / n_vocab**2
    Phi, share = context(batch, n_vocab)
    B_Phi = pairs @ Phi  # Phi's columns sum to 0: no correction
    Sigma_B_Phi = pairs.T @ B_Phi - alpha @ B_Phi / n_vocab
    Q, Delta = scores(batch, Sigma_B_Phi.T)
    return Statistics(B, Sigma_B, Phi, B_Phi.T, Q, Delta, alpha, share)
