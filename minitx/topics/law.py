"""Topics: the setting, its symmetric matrices and its exact moments (Li, Li, Risteski, ICML 2023, arXiv 2303.04245).

Legend: T topics, v words each, n = T v words, V = n + 1 tokens, N slots a document; token 0 is [MASK], word k of topic t (both from
0) is token 1 + t v + k. u (V,): share of each shown token in a document; y: the word of a chosen slot. A matrix that commutes with
permuting topics, and words inside a topic, is lam_w P_w + lam_t P_t + (mean of the words and [MASK]): P_w projects on contrasts
within a topic, P_t on contrasts between topics.
"""

import math
import numbers
from dataclasses import KW_ONLY, dataclass

import numpy as np

from minitx.base.checks import positive, probability, whole_number
from minitx.base.parallel import one_blas_thread

LOSSES = ("pooled", "per_document")
MOST_LENGTHS = 10**6


@dataclass(frozen=True)
class Setting:
    """A law of documents, of masking, and how chosen slots are averaged.

    Parameters
    ----------
    n_topics, words_per_topic : int
        T and v.
    length : int, (int, int) or math.inf
        N, at least 2: the same in all documents; or (low, high): uniform on low..high, both included; or infinitely many slots.
    tau : int, optional
        Topics a document: tau distinct ones, uniform; a slot's topic is uniform among them. This or ``alpha``.
    alpha : float, optional
        A document's topic shares are Dirichlet(alpha, ..., alpha).
    p_m, p_c, p_r : float
        A slot is chosen with probability p_m; a chosen slot shows its own word with probability p_c, a uniform one of the n words
        with probability p_r, otherwise [MASK]. Default: the paper's.
    loss : {"pooled", "per_document"}
        Mean over all chosen slots of all documents; or over the documents with a chosen slot, of the mean over their chosen slots.

    Raises
    ------
    ValueError
        Anything that cannot be, and what to change.

    Notes
    -----
    The constants a, r, m, q0 are properties; h holds everything about topics that a moment needs.
    """

    n_topics: int
    words_per_topic: int
    length: object
    _: KW_ONLY
    tau: int | None = None
    alpha: float | None = None
    p_m: float = 0.15
    p_c: float = 0.1
    p_r: float = 0.1
    loss: str = "pooled"

    def __post_init__(self):
        checked = {"n_topics": whole_number("n_topics", self.n_topics, 1),
                   "words_per_topic": whole_number("words_per_topic", self.words_per_topic, 1), "length": _length(self.length)}
        if (self.tau is None) == (self.alpha is None):
            raise ValueError(f"tau is {self.tau!r} and alpha is {self.alpha!r}; give exactly one: tau, a whole number of topics a "
                             "document, or alpha, of Dirichlet topic shares")
        if self.tau is not None:
            checked["tau"] = whole_number("tau", self.tau, 1)
            if checked["tau"] > checked["n_topics"]:
                raise ValueError(f"tau is {self.tau} but there are {self.n_topics} topics; a document cannot have more topics than "
                                 "there are: lower tau or raise n_topics")
        else:
            checked["alpha"] = positive("alpha", self.alpha)
        checked |= {name: probability(name, getattr(self, name)) for name in ("p_m", "p_c", "p_r")}
        if checked["p_m"] == 0:
            raise ValueError("p_m is 0: no slot is ever chosen and there is nothing to predict; take a p_m above 0, however small")
        if checked["p_c"] + checked["p_r"] > 1 + 1e-12:
            raise ValueError(f"p_c + p_r is {self.p_c} + {self.p_r}, above 1; a chosen slot shows its word, a random one or "
                             "[MASK]: lower one of them")
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; it must be one of {', '.join(LOSSES)}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def T(self):
        """Number of topics."""
        return self.n_topics

    @property
    def v(self):
        """Words a topic."""
        return self.words_per_topic

    @property
    def n(self):
        """Number of words, T v."""
        return self.T * self.v

    @property
    def V(self):
        """Number of tokens, n + 1."""
        return self.n + 1

    @property
    def q0(self):
        """Probability that a chosen slot shows [MASK]."""
        return max(0.0, 1 - (self.p_c + self.p_r))

    @property
    def a(self):
        """Probability that a slot shows its own word, other than by the random draw."""
        return 1 - self.p_m * (1 - self.p_c)

    @property
    def r(self):
        """Probability that a slot shows a random word."""
        return self.p_m * self.p_r

    @property
    def m(self):
        """Probability that a slot shows [MASK]."""
        return self.p_m * self.q0

    @property
    def h(self):
        """(T-1) / (T sigma - 1), at least 1, where sigma is the probability that two slots share their topic. inf at tau = T."""
        if self.alpha is not None:
            return self.T * self.alpha + 1
        return math.inf if self.tau == self.T else self.tau * (self.T - 1) / (self.T - self.tau)

    @property
    def G(self):
        """1 / (n h): the covariance of two slots on topic contrasts."""
        return 1 / (self.n * self.h)

    @property
    def s(self):
        """Share of the shown tokens that a topic of the document has, a / tau + r / T. Of tau only."""
        return self.a / self.require_tau("s") + self.w

    @property
    def w(self):
        """Share of the shown tokens that a topic outside the document has, r / T."""
        return self.r / self.T

    def require_tau(self, what):
        """tau. ValueError if the topic shares are Dirichlet."""
        if self.tau is None:
            raise ValueError(f"{what} is known of documents of tau topics only, not of Dirichlet shares (alpha is {self.alpha:g}); "
                             "give Setting tau, not alpha")
        return self.tau

    def require_visible(self, what):
        """ValueError if no shown word tells anything about its document's topics."""
        if self.a == 0:
            raise ValueError(f"{what} does not exist at p_m = 1, p_c = 0: no slot shows its own word; lower p_m or raise p_c")


def _length(length):
    """``length`` as an int, a pair of ints or inf."""
    kinds = "a whole number of at least 2 slots, a pair (low, high) of such, or math.inf"
    if isinstance(length, (tuple, list)):
        if len(length) != 2 or any(isinstance(end, (tuple, list)) or end == math.inf for end in length):
            raise ValueError(f"length is {length!r}; it must be {kinds}")
        low, high = (_length(end) for end in length)
        if low > high:
            raise ValueError(f"length is {length!r}: low is above high; write ({high}, {low})")
        if high - low >= MOST_LENGTHS:
            raise ValueError(f"length is {length!r}, more than {MOST_LENGTHS} lengths; bring low and high nearer, or take math.inf")
        return low, high
    if isinstance(length, numbers.Real) and length == math.inf:
        return math.inf
    if isinstance(length, bool) or not isinstance(length, numbers.Integral):
        raise ValueError(f"length is {length!r}; it must be {kinds}")
    if length < 2:
        raise ValueError(f"length is {length}: a document needs at least 2 slots, one to predict and one to predict it from; raise "
                         "length")
    return int(length)


def sizes(setting, words_per_topic=None):
    """(T, v) of a Setting, or of two numbers."""
    if isinstance(setting, Setting):
        return setting.T, setting.v
    return whole_number("n_topics", setting, 1), whole_number("words_per_topic", words_per_topic, 1)


@dataclass(frozen=True)
class Blocks:
    """A (V, V) matrix that is constant on the six kinds of token pairs. Row = output token, column = attended token (f = W u).

    Attributes
    ----------
    mask_mask : float
        Entry [0, 0].
    mask_column : float
        Entries [i, 0], i >= 1: from [MASK] to a word.
    mask_row : float
        Entries [0, j], j >= 1.
    same_word, same_topic, diff_topic : float
        Entries [i, i]; [i, j] of different words of one topic; [i, j] of two topics. nan where there is no such pair.
    """

    mask_mask: float
    mask_column: float
    mask_row: float
    same_word: float
    same_topic: float
    diff_topic: float

    @classmethod
    def of(cls, matrix, setting, words_per_topic=None):
        """Averages of the (V, V) ``matrix`` over each kind of pair; ``setting``: a Setting, or T and v.

        Raises
        ------
        ValueError
            Another shape.
        """
        T, v = sizes(setting, words_per_topic)
        n, matrix = T * v, np.asarray(matrix, np.float64)
        if matrix.shape != (n + 1, n + 1):
            raise ValueError(f"the matrix has shape {matrix.shape}; {T} topics of {v} words and [MASK] need {(n + 1, n + 1)}")
        words = matrix[1:, 1:]
        topics = words.reshape(T, v, T, v).sum(axis=(1, 3))
        same_word, same_topic = np.trace(words), np.trace(topics)

        def mean(total, count):
            return float(total / count) if count else math.nan

        return cls(float(matrix[0, 0]), float(matrix[1:, 0].mean()), float(matrix[0, 1:].mean()), mean(same_word, n),
                   mean(same_topic - same_word, n * (v - 1)), mean(topics.sum() - same_topic, n * (n - v)))

    @classmethod
    def from_sectors(cls, T, v, lam_w, lam_t, mean, *, mask_mask=0.0, mask_column=0.0, mask_row=0.0):
        """lam_w P_w + lam_t P_t + mean (projection on the all-ones word direction), and the entries of [MASK]."""
        lam_t = lam_t if T > 1 else 0.0  # no contrasts between topics
        diff_topic = (mean - lam_t) / (T * v)
        same_topic = diff_topic + (lam_t - lam_w) / v
        return cls(*map(float, (mask_mask, mask_column, mask_row, same_topic + lam_w, same_topic, diff_topic)))

    def sectors(self, setting, words_per_topic=None):
        """(lam_w, lam_t, mean): the eigenvalues on the words. What stands for a kind of pair that does not exist is not read."""
        T, v = sizes(setting, words_per_topic)
        same_topic = self.same_word if v == 1 else self.same_topic
        diff_topic = same_topic if T == 1 else self.diff_topic
        lam_w = self.same_word - same_topic
        lam_t = lam_w + v * (same_topic - diff_topic)
        return lam_w, lam_t, lam_t + T * v * diff_topic

    def matrix(self, setting, words_per_topic=None):
        """The (V, V) matrix; ``setting``: a Setting, or T and v."""
        T, v = sizes(setting, words_per_topic)
        topic = np.arange(T * v) // v
        matrix = np.full((T * v + 1, T * v + 1), self.mask_row, np.float64)
        matrix[1:, 0] = self.mask_column
        matrix[0, 0] = self.mask_mask
        matrix[1:, 1:] = np.where(topic[:, None] == topic, self.same_topic, self.diff_topic)
        matrix[range(1, T * v + 1), range(1, T * v + 1)] = self.same_word
        return matrix

    @property
    def gap(self):
        """same_topic - diff_topic."""
        return self.same_topic - self.diff_topic


@dataclass(frozen=True)
class Sectors:
    """Moments of a chosen slot: C = E[e_y u^T] (row = target, column = attended token) and M = E[u u^T], by sector.

    Attributes
    ----------
    n_topics, words_per_topic : int
    C_w, M_w : float
        On contrasts within a topic (T (v-1) dimensions).
    C_t, M_t : float
        On contrasts between topics (T-1 dimensions).
    mask_share, mask_variance : float
        Mean mu and variance s2 of u_0; the words' share is 1 - u_0.
    """

    n_topics: int
    words_per_topic: int
    C_w: float
    C_t: float
    M_w: float
    M_t: float
    mask_share: float
    mask_variance: float

    @property
    def C_pair(self):
        """(2, 2): C on ([MASK], unit all-ones word direction); the row of [MASK] is 0."""
        n = self.n_topics * self.words_per_topic
        return np.array([[0, 0], [self.mask_share / math.sqrt(n), (1 - self.mask_share) / n]])

    @property
    def M_pair(self):
        """(2, 2): M on ([MASK], unit all-ones word direction)."""
        n, mu, s2 = self.n_topics * self.words_per_topic, self.mask_share, self.mask_variance
        cross = (mu * (1 - mu) - s2) / math.sqrt(n)
        return np.array([[mu**2 + s2, cross], [cross, ((1 - mu)**2 + s2) / n]])

    def blocks(self):
        """(C, M) as Blocks."""
        return tuple(blocks_of_pair(self, lam_w, lam_t, pair)
                     for lam_w, lam_t, pair in ((self.C_w, self.C_t, self.C_pair), (self.M_w, self.M_t, self.M_pair)))

    def matrices(self):
        """(C, M), dense, each (V, V)."""
        return tuple(blocks.matrix(self.n_topics, self.words_per_topic) for blocks in self.blocks())


def blocks_of_pair(sectors, lam_w, lam_t, pair):
    """Blocks with ``pair`` (2, 2) on ([MASK], unit all-ones word direction)."""
    T, v = sectors.n_topics, sectors.words_per_topic
    root = math.sqrt(T * v)
    return Blocks.from_sectors(T, v, lam_w, lam_t, pair[1, 1], mask_mask=pair[0, 0], mask_column=pair[1, 0] / root,
                               mask_row=pair[0, 1] / root)


@one_blas_thread()
def moments(setting):
    """The exact second moments of a chosen slot, under uniform attention with one-hot embeddings.

    Parameters
    ----------
    setting : Setting
        Any: the lengths of the pooled loss are size-biased (a slot is drawn, not a document); the other chosen slots of the loss
        per document are fewer than p_m says.

    Returns
    -------
    Sectors

    Notes
    -----
    With D = (p_c + p_r) + (N-1)(1-m):  C_w = p_c/(N n),  M_w = D/(N^2 n),  C_t = C_w + (N-1) a G / N,
    M_t = M_w + [2 (N-1) p_c a + (N-1)(N-2) a^2] G / N^2,  u_0 of mean (q0 + (N-1) m)/N and variance
    (q0 (1-q0) + (N-1) m (1-m))/N^2. Per document, p_m of the other slots becomes p_1 = E[K-1]/(N-1), K the number of chosen slots,
    and (N-1)(N-2)(p_2 - p_1^2) (1-p_c)^2 G / N^2 adds to M_t, p_2 = E[(K-1)(K-2)]/((N-1)(N-2)).
    """
    T, v, n, G, p_c, q0 = setting.T, setting.v, setting.n, setting.G, setting.p_c, setting.q0
    if setting.length == math.inf:
        return Sectors(T, v, 0.0, setting.a * G, 0.0, setting.a**2 * G, setting.m, 0.0)
    N, weight = _lengths(setting)
    p_1, excess = _other_slots(setting, N)
    a, m = 1 - p_1 * (1 - p_c), p_1 * q0
    words = 1 - q0 + (N - 1) * (1 - m)
    topics = 2 * (N - 1) * p_c * a + (N - 1) * (N - 2) * a**2 + excess * (1 - p_c)**2
    share = m + (q0 - m) / N
    mean_share = weight @ share
    variance = (q0 * (1 - q0) + (N - 1) * m * (1 - m) + excess * q0**2) / N**2 + (share - mean_share)**2
    C_w, M_w = weight @ (p_c / (N * n)), weight @ (words / (N**2 * n))
    C_t, M_t = C_w + weight @ ((N - 1) * a * G / N), M_w + weight @ (topics * G / N**2)
    always_mask = setting.m == 1
    return Sectors(T, v, *map(float, (C_w, C_t, M_w, M_t, mean_share, 0.0 if always_mask else weight @ variance)))


def _lengths(setting):
    """The possible lengths N, float64, and how often a slot of the loss is in a document of each."""
    low, high = setting.length if isinstance(setting.length, tuple) else (setting.length, setting.length)
    N = np.arange(low, high + 1, dtype=np.float64)
    weight = N if setting.loss == "pooled" else _some_chosen(setting, N)
    return N, weight / weight.sum()


def _some_chosen(setting, N):
    """P(K >= 1)."""
    return -np.expm1(N * np.log1p(-setting.p_m)) if setting.p_m < 1 else np.ones_like(N)


def _other_slots(setting, N):
    """p_1 and (N-1)(N-2)(p_2 - p_1^2) of the other slots of a chosen one's document."""
    p = np.full_like(N, setting.p_m)
    if setting.loss == "pooled":
        return p, np.zeros_like(N)
    some = _some_chosen(setting, N)
    mean, square = N * p / some, N * p * (1 - p + N * p) / some
    p_1 = (mean - 1) / (N - 1)
    return p_1, square - 3 * mean + 2 - (N - 1) * (N - 2) * p_1**2
