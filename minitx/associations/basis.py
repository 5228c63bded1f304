"""The basis functions of a corpus: the gradient at the reference point, found by lookups alone.

At the reference point the output is uniform (1/V) and attention is uniform over the prefix. The leading terms of Im et
al. (2026) are made of the gradient there. Every result here is a descent direction (minus the gradient), float64.

Legend: N sequences, T positions, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from minitx.associations import kernels
from minitx.base import parallel
from minitx.base.checks import instance, reals, require_shapes, square, table_size, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model import kernels as model_kernels

ROWS = 512  # Rows of a sparse product that are computed at a time.
CHUNKS = 16  # Partial sums of the position gradient. A constant, so that the number of threads changes no result.


@dataclass(frozen=True, eq=False)
class Statistics(Shown):
    """The basis functions of a corpus and their compositions, float64; positions count with their weights in the batch.

    bigram              (V, V)  B = P(a then b) - alpha_a / V. Row = current token, column = next token. Rows sum to 0.
    interchangeability  (V, V)  Sigma_B = B^T B, symmetric: [b, c] is large when b and c follow the same tokens.
    context             (V, V)  Phi. Row = next token, column = token of its prefix. Columns sum to 0.
    value               (V, V)  Phi^T B^T. Row = attended token, column = current token whose bigram row it resembles.
    attention           (V, V)  Q. Row = query (current) token, column = key (attended) token.
    position            (T,)    Delta, by distance t - j. It and Q are None where counts were finished without scores.
    frequency           (V,)    alpha: relative frequency as current token.
    share               (V,)    V mu: mean share of a token in the prefix.

    Statistics of the K most frequent tokens of a larger vocabulary have K rows and columns; ``n_vocab`` is V all the
    same (default: K), and sums over tokens within products are over the K. See :class:`minitx.associations.Counts`.

    TypeError or ValueError says which array is not of these shapes, or no real numbers.
    """

    MADE_BY: ClassVar[str] = "minitx.associations.statistics(batch, n_vocab)"
    SHAPES: ClassVar[dict[str, str]] = {"bigram": "VV", "interchangeability": "VV", "context": "VV", "value": "VV",
                                        "attention": "VV", "position": "T", "frequency": "V", "share": "V"}

    bigram: NDArray[np.float64]
    interchangeability: NDArray[np.float64]
    context: NDArray[np.float64]
    value: NDArray[np.float64]
    attention: NDArray[np.float64]
    position: NDArray[np.float64]
    frequency: NDArray[np.float64]
    share: NDArray[np.float64]
    n_vocab: int = 0

    def __post_init__(self):
        given = {name: array for name in self.SHAPES if (array := getattr(self, name)) is not None
                 or name not in ("attention", "position")}
        arrays = {name: reals(name, array, finite=False) for name, array in given.items()}
        require_shapes(arrays, self.SHAPES)
        n_vocab = whole_number("n_vocab", self.n_vocab or len(self.frequency), len(self.frequency))
        for name, value in {**arrays, "n_vocab": n_vocab}.items():
            object.__setattr__(self, name, value)


@one_blas_thread()
def statistics(batch: Batch, n_vocab: int) -> Statistics:
    """Basis functions of ``batch`` (Im et al. 2026, Sec. 4 and Thm. D.7), by lookups.

    ``batch`` is one of next-token training (causal attention, cross-entropy) and ``n_vocab`` is V; else a TypeError or
    ValueError is raised.
    """
    n_vocab = next_token_vocabulary(batch, n_vocab)
    pairs, alpha = bigram_counts(batch, n_vocab)
    Phi, share = context(batch, n_vocab)
    B_Phi, Sigma_B_Phi = compositions(pairs, alpha, Phi, n_vocab)
    Q, Delta = scores(batch, Sigma_B_Phi.T)
    return Statistics(bigram(pairs, alpha, n_vocab), interchangeability(pairs, alpha, n_vocab), Phi, B_Phi.T, Q, Delta,
                      alpha, share, n_vocab)


# B = pairs - alpha 1^T / V, so its products are those of the few pairs that occur, and rank-one corrections.


def bigram(pairs: sparse.csr_array, frequency: NDArray[np.float64], n_vocab: int) -> NDArray[np.float64]:
    """B = pairs - frequency 1^T / V, from :func:`bigram_counts`: the descent direction of the ``direct`` table. (V, V)

    Row = current token, column = next token; rows sum to 0 (Im et al. 2026, bigram function).
    """
    return pairs.toarray() - frequency[:, None] / n_vocab


@one_blas_thread()
def interchangeability(pairs: sparse.csr_array, frequency: NDArray[np.float64], n_vocab: int) -> NDArray[np.float64]:
    """Sigma_B = B^T B, (V, V), by blocks of rows, because a sparse product takes twice the memory of a dense one."""
    following, mean_next = pairs.T.tocsr(), pairs.T @ frequency / n_vocab
    product = np.empty(pairs.shape)
    for first in range(0, len(product), ROWS):
        rows = slice(first, first + ROWS)
        product[rows] = (following[rows] @ pairs).toarray()
    product -= mean_next[:, None]
    product += frequency @ frequency / n_vocab**2 - mean_next
    return product


@one_blas_thread()
def compositions(pairs: sparse.csr_array, frequency: NDArray[np.float64], Phi: NDArray[np.float64],
                 n_vocab: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """B Phi and Sigma_B Phi = B^T B Phi, (V, V) both; column = token of the prefix.

    The column sums of Phi are 0, unless it is a block of a larger one.
    """
    B_Phi = pairs @ Phi - np.outer(frequency, Phi.sum(axis=0)) / n_vocab
    return B_Phi, pairs.T @ B_Phi - frequency @ B_Phi / n_vocab


def next_token_vocabulary(batch: Batch, n_vocab: int) -> int:
    """Return V as an int.

    Raises TypeError or ValueError unless ``batch`` is a Batch of next-token training with tokens below V.
    """
    n_vocab = whole_number("n_vocab", n_vocab, 2)
    instance("batch", batch, Batch)
    table_size(f"a vocabulary of {n_vocab:,}", n_vocab, n_vocab)
    batch.require_next_token()
    batch.require_vocabulary(n_vocab)
    return n_vocab


def bigram_counts(batch: Batch, n_vocab: int) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Weighted counts of (current token, next token), and the frequency alpha of current tokens, (V,) float64.

    The counts are a sparse (V, V) float64 array: row = current token, column = next token; an entry is the sum of the
    weights of the positions that hold the pair, and alpha_a that of the positions whose current token is a.
    """
    used = batch.weight != 0
    current, following, weight = batch.tokens[used], batch.targets[used], batch.weight[used]
    pairs = sparse.coo_array((weight, (current, following)), shape=(n_vocab, n_vocab)).tocsr()
    frequency = np.bincount(current, weight, n_vocab)
    return pairs, frequency  # type: ignore[return-value]  # with weights, bincount returns float64


def context(batch: Batch, n_vocab: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Context function Phi (V, V) and context shares V mu (V,), by O(N T U) additions, U distinct tokens of a sequence.

    Phi[b, a] = sum_t w_t (1(y_t = b) - 1/V) (share of a in the prefix of t). Row = next token, column = token of its
    prefix; columns sum to 0. Phi^T is the descent direction of the ``ov`` table. The context share of a is sum_t w_t
    (share of a in the prefix of t).
    """
    slots, words = _distinct(batch, n_vocab)
    table = np.zeros((n_vocab, n_vocab))
    n_owners = parallel.get_threads()
    with parallel.workers(n_owners) as run:
        run(lambda owner: kernels.reference_context(batch.lengths, batch.targets, batch.weight, words, slots, owner,
                                                    n_owners, table), range(n_owners))
    share = table.sum(axis=0)
    table -= share / n_vocab
    return table, share


def scores(batch: Batch, ov: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Descent directions of ``qk`` and ``position`` for a given ``ov`` table (Im et al. 2026: Q and Delta).

    ``ov`` is (V, V): row = attended token, column = output token. Returns ``qk`` (V, V), row = query (current) token,
    column = key (attended) token, and ``position`` (T,), by distance t - j.
    """
    instance("batch", batch, Batch)
    ov = square("ov", ov)
    n_vocab = len(ov)
    batch.require_vocabulary(n_vocab)
    slots, words = _distinct(batch, n_vocab)
    g = np.ascontiguousarray(ov.T - ov.mean(axis=1))  # g[y, a] = rho0 . ov[a, :]: row = next token, column = key
    qk = np.zeros((n_vocab, n_vocab))
    n_owners = parallel.get_threads()
    chunks = [rows for rows in np.array_split(np.arange(len(batch)), CHUNKS) if len(rows)]
    parts = np.zeros((len(chunks), batch.tokens.shape[1]))

    def add_qk(owner):
        kernels.reference_attention(batch.tokens, batch.lengths, batch.targets, batch.weight, words, slots, g, owner,
                                    n_owners, qk)

    def add_position(chunk):
        rows = slice(chunks[chunk][0], chunks[chunk][-1] + 1)
        kernels.reference_position(batch.tokens[rows], batch.lengths[rows], batch.targets[rows], batch.weight[rows], g,
                                   parts[chunk])

    with parallel.workers(max(n_owners, len(chunks))) as run:
        run(add_qk, range(n_owners))
        run(add_position, range(len(chunks)))
    return qk, parts.sum(axis=0)


def _distinct(batch, n_vocab):
    """(N, T): number of each position's token among the distinct ones of its sequence; (N, U): these tokens."""
    tokens, lengths = batch.tokens.copy(), batch.lengths.copy()  # the kernel is compiled for arrays that are writeable
    slots, words, n_words = model_kernels.distinct(tokens, lengths, n_vocab)
    return slots, np.ascontiguousarray(words[:, :n_words.max()])
