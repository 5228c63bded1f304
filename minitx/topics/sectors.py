"""The exact second moments of the law of topics, and the matrices that share its symmetry.

Legend: T topics, v words each, n = T v words, V = n + 1 tokens, N slots of a document; token 0 is [MASK], word k of
topic t (both from 0) is token 1 + t v + k. u (V,): share of each shown token in a document; y: the word of a chosen
slot. A matrix that commutes with permuting topics, and words inside a topic, is lam_w P_w + lam_t P_t + (a part on the
mean of the words and [MASK]): P_w projects on contrasts within a topic, P_t on contrasts between topics.
"""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import instance, real_number, reals, table_size
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.topics.law import TopicModel

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks(Shown):
    """A (V, V) matrix W that is constant on six kinds of token pairs. Row = output, column = attended token (f = W u).

    Attributes
    ----------
    mask_mask, mask_column, mask_row : float
        Entry [0, 0]; entries [i, 0] of words i, from [MASK] to a word; entries [0, j] of words j.
    same_word, same_topic, different_topic : float
        Entries [i, i]; [i, j] of different words of one topic; [i, j] of two topics. nan where there is no such pair.

    Raises
    ------
    TypeError
        An entry is no real number.
    """

    MADE_BY: ClassVar[str] = "minitx.topics.optimal_value(setting), another closed form, or Blocks.of(matrix, setting)"

    mask_mask: float
    mask_column: float
    mask_row: float
    same_word: float
    same_topic: float
    different_topic: float

    def __post_init__(self):
        for entry in fields(self):
            object.__setattr__(self, entry.name, real_number(entry.name, getattr(self, entry.name)))

    @classmethod
    def of(cls, matrix: ArrayLike, setting: TopicModel) -> "Blocks":
        """Averages of the (V, V) ``matrix`` over each kind of pair. Raises ValueError if it has another shape."""
        instance("setting", setting, TopicModel)
        T, v, n, matrix = setting.T, setting.v, setting.n, reals("the matrix", matrix, finite=False)
        if matrix.shape != (n + 1, n + 1):
            raise ValueError(f"the matrix has shape {matrix.shape}; {T} topics of {v} words and [MASK] need "
                             f"{(n + 1, n + 1)}")
        words = matrix[1:, 1:]
        topics = words.reshape(T, v, T, v).sum(axis=(1, 3))
        same_word, same_topic = np.trace(words), np.trace(topics)

        def mean(total, count):
            return float(total / count) if count else math.nan

        return cls(float(matrix[0, 0]), float(matrix[1:, 0].mean()), float(matrix[0, 1:].mean()), mean(same_word, n),
                   mean(same_topic - same_word, n * (v - 1)), mean(topics.sum() - same_topic, n * (n - v)))

    @classmethod
    def from_sectors(cls, setting: TopicModel, lam_w: float, lam_t: float, mean: float, *, mask_mask: float = 0.0,
                     mask_column: float = 0.0, mask_row: float = 0.0) -> "Blocks":
        """lam_w P_w + lam_t P_t + mean (projection on the all-ones word direction), and the entries of [MASK]."""
        instance("setting", setting, TopicModel)
        lam_t = lam_t if setting.T > 1 else 0.0  # no contrasts between topics
        different_topic = (mean - lam_t) / setting.n
        same_topic = different_topic + (lam_t - lam_w) / setting.v
        return cls(*map(float, (mask_mask, mask_column, mask_row, same_topic + lam_w, same_topic, different_topic)))

    def sectors(self, setting: TopicModel) -> tuple[float, float, float]:
        """(lam_w, lam_t, mean): the eigenvalues on the words. Entries of pairs that do not exist are not read."""
        instance("setting", setting, TopicModel)
        same_topic = self.same_word if setting.v == 1 else self.same_topic
        different_topic = same_topic if setting.T == 1 else self.different_topic
        lam_w = self.same_word - same_topic
        lam_t = lam_w + setting.v * (same_topic - different_topic)
        return lam_w, lam_t, lam_t + setting.n * different_topic

    def matrix(self, setting: TopicModel) -> Matrix:
        """The (V, V) matrix."""
        instance("setting", setting, TopicModel)
        table_size(f"a matrix of {setting.V:,} tokens", setting.V, setting.V)
        matrix = np.full((setting.V, setting.V), self.mask_row, np.float64)
        matrix[1:, 0] = self.mask_column
        matrix[0, 0] = self.mask_mask
        topic = setting.topic_of_token[1:]
        matrix[1:, 1:] = np.where(topic[:, None] == topic, self.same_topic, self.different_topic)
        matrix[range(1, setting.V), range(1, setting.V)] = self.same_word
        return matrix

    @property
    def gap(self) -> float:
        """How far words of one topic are above words of different ones: same_topic - different_topic."""
        return self.same_topic - self.different_topic


@dataclass(frozen=True, eq=False)
class Sectors(Shown):
    """Moments of a chosen slot: C = E[e_y u^T] (row = target, column = attended token) and M = E[u u^T], by sector.

    Attributes
    ----------
    C_w, M_w, C_t, M_t : float
        On contrasts within a topic (T (v-1) dimensions), and on contrasts between topics (T-1 dimensions).
    mask_share, mask_variance : float
        Mean mu and variance s2 of u_0; the words' share is 1 - u_0.
    """

    setting: TopicModel
    C_w: float
    C_t: float
    M_w: float
    M_t: float
    mask_share: float
    mask_variance: float

    @property
    def C_pair(self) -> Matrix:
        """(2, 2): C on ([MASK], unit all-ones word direction); the row of [MASK] is 0."""
        n = self.setting.n
        return np.array([[0, 0], [self.mask_share / math.sqrt(n), (1 - self.mask_share) / n]])

    @property
    def M_pair(self) -> Matrix:
        """(2, 2): M on ([MASK], unit all-ones word direction)."""
        n, mu, s2 = self.setting.n, self.mask_share, self.mask_variance
        cross = (mu * (1 - mu) - s2) / math.sqrt(n)
        return np.array([[mu**2 + s2, cross], [cross, ((1 - mu)**2 + s2) / n]])

    @property
    def M_largest(self) -> float:
        """The largest eigenvalue of M. Descent on the squared loss diverges at learning rates above its inverse."""
        with one_blas_thread():
            return float(max(self.M_w, self.M_t, *np.linalg.eigvalsh(self.M_pair)))

    def matrices(self) -> tuple[Matrix, Matrix]:
        """(C, M), dense, each (V, V)."""
        C = blocks_of_pair(self.setting, self.C_w, self.C_t, self.C_pair)
        M = blocks_of_pair(self.setting, self.M_w, self.M_t, self.M_pair)
        return C.matrix(self.setting), M.matrix(self.setting)


def blocks_of_pair(setting: TopicModel, lam_w: float, lam_t: float, pair: Matrix) -> Blocks:
    """Blocks of lam_w P_w + lam_t P_t and of ``pair`` (2, 2) on ([MASK], unit all-ones word direction)."""
    root = math.sqrt(setting.n)
    return Blocks.from_sectors(setting, lam_w, lam_t, pair[1, 1], mask_mask=pair[0, 0], mask_column=pair[1, 0] / root,
                               mask_row=pair[0, 1] / root)


@one_blas_thread()
def moments(setting: TopicModel) -> Sectors:
    """The exact second moments of a chosen slot, under uniform attention with one-hot embeddings.

    Topics are disjoint and equally frequent. The lengths of the pooled loss are size-biased (a slot is drawn, not a
    document); with the loss per document, the other slots of a chosen one's document are chosen less often than p_m
    says.

    Notes
    -----
    With D = (p_c + p_r) + (N-1)(1-m):  C_w = p_c/(N n),  M_w = D/(N^2 n),  C_t = C_w + (N-1) a G / N,
    M_t = M_w + [2 (N-1) p_c a + (N-1)(N-2) a^2] G / N^2,  u_0 of mean (q0 + (N-1) m)/N and variance
    (q0 (1-q0) + (N-1) m (1-m))/N^2. Per document, p_m of the other slots becomes p_1 = E[K-1]/(N-1), K the number of
    chosen slots, and (N-1)(N-2)(p_2 - p_1^2) (1-p_c)^2 G / N^2 adds to M_t, p_2 = E[(K-1)(K-2)]/((N-1)(N-2)).
    """
    instance("setting", setting, TopicModel)
    n, G, p_c, q0 = setting.n, setting.G, setting.p_c, setting.q0
    if setting.length == math.inf:
        return Sectors(setting, 0.0, setting.a * G, 0.0, setting.a**2 * G, setting.m, 0.0)
    N, weight, p_1, excess = _lengths(setting)
    a, m = 1 - p_1 * (1 - p_c), p_1 * q0
    words = 1 - q0 + (N - 1) * (1 - m)
    topics = 2 * (N - 1) * p_c * a + (N - 1) * (N - 2) * a**2 + excess * (1 - p_c)**2
    share = m + (q0 - m) / N
    mean_share = weight @ share
    variance = (q0 * (1 - q0) + (N - 1) * m * (1 - m) + excess * q0**2) / N**2 + (share - mean_share)**2
    C_w, M_w = weight @ (p_c / (N * n)), weight @ (words / (N**2 * n))
    C_t, M_t = C_w + weight @ ((N - 1) * a * G / N), M_w + weight @ (topics * G / N**2)
    always_mask = setting.m == 1
    return Sectors(setting, *map(float, (C_w, C_t, M_w, M_t, mean_share, 0.0 if always_mask else weight @ variance)))


def _lengths(setting):
    """The possible lengths N, how often a slot of the loss is in a document of each, p_1, (N-1)(N-2)(p_2 - p_1^2)."""
    low, high = setting.lengths
    N = np.arange(low, high + 1, dtype=np.float64)
    p = np.full_like(N, setting.p_m)
    if setting.loss == "pooled":
        return N, N / N.sum(), p, np.zeros_like(N)
    some = -np.expm1(N * np.log1p(-p)) if setting.p_m < 1 else np.ones_like(N)  # P(K >= 1)
    mean, square = N * p / some, N * p * (1 - p + N * p) / some
    p_1 = (mean - 1) / (N - 1)
    return N, some / some.sum(), p_1, square - 3 * mean + 2 - (N - 1) * (N - 2) * p_1**2
