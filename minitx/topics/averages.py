"""What the words of one topic have in common: averages over pairs of words, and how surely they differ between topics.

A pair (a, b) is ordered: a is the query or left word (row), b the key or right word (column). Every pair falls in one
class: the same word (a = b), the same topic (different words of one topic), or different topics. Words without a topic
are left out.

Legend: n words, d dimensions of an embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import generator, instance, integers, reals, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.blocks import Bags
from minitx.model.circuits import valid_circuits
from minitx.model.parameters import Parameters
from minitx.model.pieces import Pieces, add_pieces
from minitx.topics.documents import Documents
from minitx.topics.kernels import sums_within_topics
from minitx.topics.randomness import Seed

_ROUNDING = 1e-12  # differences of averages closer than this, relative to what was summed, are the same number


@dataclass(frozen=True, eq=False)
class PairTable(Shown):
    """A quantity of pairs of words: its ``total`` over all occurrences of the pair, and their ``count``, each (n, n).

    Row = query (left) word, column = key (right) word. Raises ValueError if shapes differ or are not square, entries
    are not finite, a count is negative, or a pair without occurrences has a total other than 0.
    """

    total: NDArray[np.float64]
    count: NDArray[np.float64]

    def __post_init__(self):
        total, count = reals("total", self.total, finite=False), reals("count", self.count, finite=False)
        if total.ndim != 2 or total.shape[0] != total.shape[1] or count.shape != total.shape:
            raise ValueError(f"total has shape {total.shape} and count {count.shape}; give two square matrices of the "
                             "same shape, row = left word, column = right word")
        if not (np.isfinite(total).all() and np.isfinite(count).all()):
            raise ValueError("the pairs hold inf or nan, of which there is no average; give finite numbers")
        if (count < 0).any() or total[count == 0].any():
            raise ValueError("a pair has a negative count, or a total without any occurrence; give total 0 where count "
                             "is 0")
        object.__setattr__(self, "total", total)
        object.__setattr__(self, "count", count)

    @classmethod
    def of_matrix(cls, matrix: ArrayLike) -> "PairTable":
        """Table of a quantity known once for each pair: ``matrix`` (n, n), row = left word, column = right word."""
        found = reals("the matrix of pairs", matrix, finite=False)
        return cls(found, np.ones(found.shape))

    def mean(self, nowhere: float) -> NDArray[np.float64]:
        """The average of each pair over its occurrences, (n, n); ``nowhere`` for pairs that do not occur."""
        found = np.full(self.total.shape, nowhere)
        return np.divide(self.total, self.count, out=found, where=self.count > 0)


@dataclass(frozen=True)
class Averages(Shown):
    """Averages over the occurrences of the pairs of each class (pooled sums / pooled counts); nan if a class has none.

    ``same_topic_including`` is of all pairs within a topic, the same word included; ``n_...`` are the pooled counts.
    """

    same_word: float
    same_topic: float
    different_topic: float
    same_topic_including: float
    n_same_word: float
    n_same_topic: float
    n_different_topic: float

    @property
    def difference(self) -> float:
        """How far words of one topic are above words of different ones: ``same_topic - different_topic``."""
        return self.same_topic - self.different_topic


def pair_averages(pairs: PairTable | ArrayLike, topics: ArrayLike) -> Averages:
    """Average over pairs of the same word, of different words of one topic, and of words of different topics.

    Parameters
    ----------
    pairs : PairTable or (n, n) array
        Row = query (left) word, column = key (right) word. In a matrix every pair counts once.
    topics : (n,) integers
        Topic of each word. A word with -1 has none (special token, stop word, ambiguous word) and is left out.

    Raises
    ------
    TypeError, ValueError
        Topics are not integers or below -1, there are fewer than two, shapes do not agree, or as :class:`PairTable`.
    """
    table, words, starts = _labelled(pairs, topics)
    return pooled_averages(_sums(table.total, words, starts), _sums(table.count, words, starts))


@dataclass(frozen=True)
class Spread(Shown):
    """How far pairs of one class differ from each other: the standard deviation in each class, nan if it has no pair.

    ``between`` is the share of the variance of all pairs that lies between the means of the three classes: 1 if the
    class says everything about a pair, 0 if it says nothing, nan if all pairs are equal.
    """

    same_word: float
    same_topic: float
    different_topic: float
    between: float


def pair_spread(pairs: PairTable | ArrayLike, topics: ArrayLike) -> Spread:
    """The spread of pairs about the averages of :func:`pair_averages`, whose arguments and errors it shares.

    A pair is its mean over its occurrences, and counts as often as it occurs. What differs between the occurrences of
    one pair is no part of the spread, but in tables of few documents some of it is left in the means.
    """
    table, words, starts = _labelled(pairs, topics)
    found = pair_averages(table, topics)
    means = np.nan_to_num([found.same_word, found.same_topic, found.different_topic])
    counts = np.array([found.n_same_word, found.n_same_topic, found.n_different_topic])
    topic = np.asarray(topics)
    mean_of_class = np.where(topic[:, None] == topic, means[1], means[2])
    np.fill_diagonal(mean_of_class, means[0])
    within = np.array(_sums(table.count * (table.mean(0.0) - mean_of_class)**2, words, starts))
    overall = (counts * means).sum() / counts.sum()
    between = float((counts * (means - overall)**2).sum())
    total = between + float(within.sum())
    share = between / total if total > counts.sum() * (_ROUNDING * np.abs(means).max())**2 else math.nan
    same_word, same_topic, other = np.sqrt(np.divide(within, counts, out=np.full(3, math.nan), where=counts > 0))
    return Spread(float(same_word), float(same_topic), float(other), share)


def pooled_averages(total: Sequence[float], count: Sequence[float]) -> Averages:
    """Averages from the sums over, and numbers of, pairs of the same word, of one topic, and of different topics."""
    sums = [(total[0] + total[1], count[0] + count[1])]
    return Averages(*(t / n if n > 0 else math.nan for t, n in [*zip(total, count, strict=True), *sums]), *count)


def _labelled(pairs, topics):
    """The checked table, the words that have a topic, sorted by it, and where in them each topic starts."""
    if not isinstance(pairs, PairTable):
        pairs = PairTable.of_matrix(pairs)
    topics = integers("topics", topics, 1)
    n = len(pairs.total)
    if topics.shape != (n,):
        raise ValueError(f"topics has shape {topics.shape} but there are {n} words; give one topic for each, -1 for "
                         "none")
    if topics.min(initial=-1) < -1:
        raise ValueError(f"topics hold {topics.min()}; give numbers from 0 on, and -1 for words without a topic")
    words = np.argsort(topics, kind="stable")[np.count_nonzero(topics < 0):]
    found, starts = np.unique(topics[words], return_index=True)
    if len(found) < 2:
        raise ValueError(f"{len(words)} of {n} words have a topic, and they have {len(found)} different ones; give "
                         "topics to words of at least two topics")
    return pairs, words, starts


def _sums(matrix, words, starts):
    """Sums over the pairs of the same word, of different words of one topic, of different topics."""
    matrix = matrix[np.ix_(words, words)]
    same_word = matrix.trace()
    np.fill_diagonal(matrix, 0)
    by_topic = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)  # row = left topic
    same_topic = by_topic.trace()
    np.fill_diagonal(by_topic, 0)
    return float(same_word), float(same_topic), float(by_topic.sum())


@one_blas_thread()
def gram(E: ArrayLike) -> NDArray[np.float64]:
    """Inner products of embeddings ``E`` (d, n), row = dimension, column = word: ``E^T E`` (n, n), exactly symmetric.

    Raises ValueError if ``E`` is not a matrix, or holds inf or nan.
    """
    columns = _embeddings(E)
    return columns.T @ columns


def cosine_matrix(E: ArrayLike) -> NDArray[np.float64]:
    """Cosines of embeddings ``E`` (d, n) of any size: (n, n), symmetric, within [-1, 1]. Raises as :func:`gram`.

    The zero vector has cosine 0 with every vector, itself included. Other diagonal entries are 1.
    """
    columns = _embeddings(E)
    columns = _columns_over(columns, np.abs(columns).max(axis=0, initial=0))  # no square underflows or overflows
    columns = _columns_over(columns, np.sqrt(np.sum(columns * columns, axis=0)))
    cosines = np.clip(gram(columns), -1.0, 1.0)
    np.fill_diagonal(cosines, columns.any(axis=0))
    return cosines


def _embeddings(E):
    E = reals("E", E, finite=False)
    if E.ndim != 2:
        raise ValueError(f"E has shape {E.shape}; give a matrix, row = dimension, column = word")
    if not np.isfinite(E).all():
        raise ValueError("E holds inf or nan; give finite embeddings")
    return np.ascontiguousarray(E)


def _columns_over(E, size):
    return np.divide(E, size, out=np.zeros_like(E), where=size > 0)


def attention_table(weights: Any, documents: Documents) -> PairTable:
    """Attention from every slot of clean documents to every slot, times the document's length: 1 is uniform attention.

    ``weights`` is any parametrisation of ``documents.n_vocab`` tokens. Row = word of the query slot, column = word of
    the key slot; a slot attends to itself too (Li, Li, Risteski 2023). Raises as :func:`minitx.loss_and_gradient`.
    """
    instance("weights", weights, Parameters)
    instance("documents", documents, Documents)
    batch = Batch(documents.tokens, documents.tokens, lengths=documents.lengths, causal=False)
    circuits = valid_circuits(weights, batch)
    shape = (circuits.n_vocab, circuits.n_vocab)
    total, count = np.zeros(shape), np.zeros(shape)
    for block in Bags.of(batch, circuits.ov.dtype, circuits.n_vocab).cut(circuits.n_vocab):
        copies = np.take_along_axis(block.mass, block.queries, axis=1)  # slots that hold the query's word
        copies = np.where(np.arange(copies.shape[1]) < block.n_queries[:, None], copies, 0.0)[:, :, None]
        lengths = documents.lengths[block.rows][:, None, None]
        shares = copies * lengths * block.attend(circuits.qk).A
        add_pieces(block, Pieces(dscore=shares), {"qk": total})
        add_pieces(block, Pieces(dscore=copies * block.mass[:, None]), {"qk": count})
    return PairTable(total, count)


@dataclass(frozen=True, eq=False)
class PermutationTest(Shown):
    """How often topics given to words at random would differ as much.

    Attributes
    ----------
    difference : float
        The observed :attr:`Averages.difference`.
    null : (n_permutations,) float64
        The same with the topics shuffled; nan where a shuffle leaves a class without a pair.
    p_value : float
        One-sided: (1 + number of ``null`` >= ``difference``) / (1 + n_permutations); nan and ties up to rounding count.
    z : float
        (difference - mean of ``null``) / its s.d. (ddof 1); nan where that is undefined.
    """

    difference: float
    null: NDArray[np.float64]
    p_value: float
    z: float


def permutation_test(pairs: PairTable | ArrayLike, topics: ArrayLike, *, n_permutations: int = 999,
                     rng: Seed = 0) -> PermutationTest:
    """Test whether words of one topic have more in common than words of different topics.

    The topics are shuffled among the words that have one, so their sizes stay; pairs of the same word play no part.
    If topics say nothing about the pairs, P(p_value <= p) <= p for every p.

    ``pairs`` and ``topics`` are as for :func:`pair_averages`. Asking for more permutations with the same seed ``rng``
    keeps the first ones. Raises as :func:`pair_averages`, and ValueError if one of the two classes has no pair.
    """
    n_permutations = whole_number("n_permutations", n_permutations, 1)
    table, words, starts = _labelled(pairs, topics)
    averages = pair_averages(table, topics)
    difference, n_same, n_different = averages.difference, averages.n_same_topic, averages.n_different_topic
    if np.isnan(difference):
        raise ValueError(f"{n_same:g} pairs are of different words of one topic, {n_different:g} of different topics; "
                         "give topics with at least two words, and pairs that occur")
    null = _null(table, words, starts, n_permutations, generator(rng))
    summed = np.abs(table.total[np.ix_(words, words)]).sum() / min(n_same, n_different)
    reached = ~(null < difference - _ROUNDING * summed)
    p_value = float((1 + reached.sum()) / (1 + n_permutations))
    return PermutationTest(difference, null, p_value, _z(difference, null[np.isfinite(null)]))


def _null(pairs, words, starts, n_permutations, rng):
    """Difference of the averages for each shuffle, (n_permutations,)."""
    topics = np.repeat(np.arange(len(starts), dtype=np.int32), np.diff([*starts, len(words)]))
    shuffled = np.array([rng.permutation(topics) for _ in range(n_permutations)])

    def sums(matrix):
        """Sums of ``matrix`` over the pairs of one topic, and of different topics, in each shuffle."""
        both, same = matrix[np.ix_(words, words)], np.empty(n_permutations)
        both = both + both.T
        np.fill_diagonal(both, 0)
        sums_within_topics(both, shuffled, same)
        return same, both.sum() / 2 - same

    (same, other), (n_same, n_other) = sums(pairs.total), sums(pairs.count)
    defined = (n_same > 0) & (n_other > _ROUNDING * n_same)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined, same / n_same - other / n_other, np.nan)


def _z(difference, null):
    size = np.abs(null).max(initial=0)  # no square underflows or overflows
    spread = (null / size).std(ddof=1) if len(null) > 1 and size > 0 else 0.0
    return float((difference / size - (null / size).mean()) / spread) if spread > 0 else float("nan")
