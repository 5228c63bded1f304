"""The law of documents of topics, and of how their words are masked (Li, Li, Risteski, ICML 2023, arXiv 2303.04245).

Legend: D documents, N slots of a document, T topics, v words a topic, n = T v words, V = n + 1 tokens. Token 0 is
[MASK]; word k of topic t (both from 0) is token 1 + t v + k.
"""

import math
import numbers
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import described, positive, reals, rectangular, table_size, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.topics.documents import Documents, mask_tokens, valid_masking
from minitx.topics.randomness import Seed, generators, inverse_cdf, parts, stack_cdfs

MOST_LENGTHS = 10**6
_CLOSED_FORMS = "closed forms are known of disjoint topics, equally frequent and of equally probable words, only"
_LARGEST_ALPHA = 1e100  # the sum of T of them is finite


@dataclass(frozen=True, eq=False)
class TopicModel(Shown):
    """A law of documents, of masking, and of how the loss averages over the chosen slots.

    Every closed form of the theory is a function of it. Exactly one of ``tau`` and ``alpha`` is given, and exactly one
    of ``words_per_topic`` and ``topic_word``. ValueError says what is missing, out of range or given twice.

    Parameters
    ----------
    n_topics : int
        T, at least 1.
    words_per_topic : int, optional
        v: topics are disjoint, of v equally probable words each.
    length : int, (int, int) or math.inf
        N, the slots of every document, at least 2; or (low, high): each document draws it from low, ..., high, equally
        probable; or infinitely many slots, for the closed forms alone.
    tau : int, optional
        Each document draws tau of the T topics, all sets alike; each of its slots has one of the tau, equally probable.
        The paper's theory has this law.
    alpha : float, or (T,) floats, optional
        Each document draws the shares of its topics from the Dirichlet law with these parameters (a number: T times the
        same); each of its slots draws its topic from the shares. This is latent Dirichlet allocation (LDA); the code of
        the paper samples ``TopicModel(10, 10, (100, 150), alpha=0.1)``.
    topic_word : (T, n) floats, optional
        Topics that may overlap: row = topic, column = word (word i is token i + 1), entry = the probability of the word
        in the topic. Documents can be drawn; there are no closed forms.
    p_m, p_c, p_r : float
        A slot is chosen with probability p_m. A chosen slot shows its own word with probability p_c, a uniform one of
        the n words with probability p_r, and [MASK] otherwise. The defaults are the paper's.
    loss : {"pooled", "per_document"}
        The loss is the mean over all chosen slots of all documents; or it is the mean, over the documents that have a
        chosen slot, of the mean over their chosen slots.
    """

    MADE_BY: ClassVar[str] = "minitx.topics.TopicModel(n_topics, words_per_topic, length, tau=...)"

    n_topics: int
    words_per_topic: int | None = None
    length: int | tuple[int, int] | float = 128
    _: KW_ONLY
    tau: int | None = None
    alpha: float | NDArray[np.float64] | None = None
    topic_word: NDArray[np.float64] | None = None
    p_m: float = 0.15
    p_c: float = 0.1
    p_r: float = 0.1
    loss: str = "pooled"

    def __post_init__(self) -> None:
        T = whole_number("n_topics", self.n_topics, 1)
        if (self.tau is None) == (self.alpha is None):
            raise ValueError(f"tau is {self.tau} and alpha is {self.alpha}; give exactly one: tau, a whole number of "
                             "topics a document, or alpha, of Dirichlet topic shares")
        if (self.words_per_topic is None) == (self.topic_word is None):
            found = "neither" if self.topic_word is None else "both"
            raise ValueError(f"{found} of words_per_topic and topic_word given; give one of them: the number of words "
                             "of disjoint topics, or the probabilities (n_topics, n_words) of the words of any topics")
        checked: dict[str, Any] = {"n_topics": T, "length": _length(self.length)}
        if self.tau is not None:
            if whole_number("tau", self.tau, 1) > T:
                raise ValueError(f"tau is {self.tau} but there are {T} topics; a document cannot have more topics than "
                                 "there are: lower tau or raise n_topics")
            checked["tau"] = int(self.tau)
        else:
            checked["alpha"] = _dirichlet_parameter(self.alpha, T)
        if self.words_per_topic is not None:
            checked["words_per_topic"] = whole_number("words_per_topic", self.words_per_topic, 1)
        else:
            checked["topic_word"] = _probability_rows(self.topic_word, T)
        checked |= valid_masking(self.p_m, self.p_c, self.p_r, self.loss)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def T(self) -> int:
        """The number of topics."""
        return self.n_topics

    @property
    def v(self) -> int:
        """The number of words of a topic. Raises ValueError where topics may overlap."""
        if self.words_per_topic is None:
            raise ValueError(f"{_CLOSED_FORMS}; give words_per_topic, not topic_word")
        return self.words_per_topic

    @property
    def n(self) -> int:
        """The number of words of all topics."""
        return self.T * self.v if self.topic_word is None else self.topic_word.shape[1]

    @property
    def V(self) -> int:
        """The number of tokens, n + 1: the words and [MASK]."""
        return self.n + 1

    @property
    def lengths(self) -> tuple[int, int]:
        """The least and the greatest length. Raises ValueError if it is infinite."""
        if isinstance(self.length, tuple):
            return self.length
        if self.length == math.inf:
            raise ValueError("length is inf; give a whole number of slots, or a pair (low, high)")
        return int(self.length), int(self.length)

    @property
    def topic_of_token(self) -> NDArray[np.integer]:
        """(V,): topic in which each token is most probable (the first of equals); -1: [MASK], words of no topic."""
        if self.topic_word is None:
            return np.append(-1, np.repeat(np.arange(self.T), self.v))
        return np.append(-1, np.where(self.topic_word.any(axis=0), self.topic_word.argmax(axis=0), -1))

    @property
    def q0(self) -> float:
        """Probability that a chosen slot shows [MASK]."""
        return max(0.0, 1 - (self.p_c + self.p_r))

    @property
    def a(self) -> float:
        """Probability that a slot shows its own word, other than by the random draw."""
        return 1 - self.p_m * (1 - self.p_c)

    @property
    def r(self) -> float:
        """Probability that a slot shows a random word."""
        return self.p_m * self.p_r

    @property
    def m(self) -> float:
        """Probability that a slot shows [MASK]."""
        return self.p_m * self.q0

    @property
    def h(self) -> float:
        """tau (T-1) / (T-tau), inf at tau = T; or T alpha + 1. Second moments depend on tau and alpha through it alone.

        It is (T-1) / (T sigma - 1), where sigma is the probability that two slots share their topic; it is at least 1.
        """
        if self.tau is not None:
            return math.inf if self.tau == self.T else self.tau * (self.T - 1) / (self.T - self.tau)
        if self.alpha is None or isinstance(self.alpha, np.ndarray):
            raise ValueError(f"{_CLOSED_FORMS}; give alpha as one number")
        return self.T * self.alpha + 1

    @property
    def G(self) -> float:
        """1 / (T v h): the covariance of two slots on topic contrasts."""
        return 1 / (self.T * self.v * self.h)

    @property
    def s(self) -> float:
        """Share of the shown tokens that a topic of the document has, a / tau + r / T. Of tau only."""
        return self.a / self.require_tau("s") + self.w

    @property
    def w(self) -> float:
        """Share of the shown tokens that a topic outside the document has, r / T."""
        return self.r / self.T

    def require_tau(self, what: str) -> int:
        """Return tau. Raises ValueError, which names ``what`` needs it, if the topic shares are Dirichlet."""
        if self.tau is None:
            raise ValueError(f"{what} is known of documents of tau topics only, not of Dirichlet shares (alpha is "
                             f"{self.alpha}); give tau, not alpha")
        return self.tau

    def require_visible(self, what: str) -> None:
        """Raise ValueError, which names ``what``, if no shown word tells anything about its document's topics."""
        if self.a == 0:
            raise ValueError(f"{what} does not exist at p_m = 1, p_c = 0: no slot shows its own word; lower p_m or "
                             "raise p_c")

    def documents(self, n_documents: int, *, rng: Seed = 0) -> Documents:
        """Draw D = ``n_documents`` documents: tokens (D, N), N being the largest length that the law allows.

        The same seed gives the same documents; asking for more keeps the beginning. Raises ValueError if
        ``n_documents`` is not a whole number, at least 1, or if the length is infinite.
        """
        whole_number("n_documents", n_documents, 1)
        draw = generators(rng)
        low, high = self.lengths
        table_size("the documents", n_documents, high)
        table_size("the shares of topics", n_documents, self.T)
        tokens = np.empty((n_documents, high), np.int32)
        for part in parts(n_documents, max(high, self.T)):
            tokens[part] = self._words(self._topics(len(tokens[part]), draw), draw)
        lengths = draw["length"].integers(low, high + 1, size=n_documents)
        return Documents(tokens, lengths.astype(np.int32), self.V)

    def mask(self, documents: Documents, *, head: str = "cross_entropy", rng: Seed = 0) -> Batch:
        """:func:`minitx.topics.mask_tokens` with the probabilities and the loss of this law."""
        return mask_tokens(documents, p_m=self.p_m, p_c=self.p_c, p_r=self.p_r, loss=self.loss, head=head, rng=rng)

    def _topics(self, n_documents, draw):
        """Topic of each slot, (n_documents, N)."""
        shape = (n_documents, self.lengths[1])
        if self.tau is None:
            shares = draw["mixture"].dirichlet(np.broadcast_to(self.alpha, self.T), size=n_documents)
            return inverse_cdf(stack_cdfs(shares), np.arange(n_documents)[:, None], draw["topic"].random(shape))
        ranked = draw["mixture"].random((n_documents, self.T)).argpartition(self.tau - 1, axis=1)
        chosen = np.sort(ranked[:, : self.tau], axis=1)  # argpartition's own order differs from processor to processor
        return np.take_along_axis(chosen, draw["topic"].integers(self.tau, size=shape), axis=1)

    def _words(self, topics, draw):
        """Token of each slot, given its topic."""
        if self.topic_word is None:
            return 1 + topics * self.v + draw["word"].integers(self.v, size=topics.shape)
        return 1 + inverse_cdf(self._word_cdfs, topics, draw["word"].random(topics.shape))

    @cached_property
    def _word_cdfs(self):
        return stack_cdfs(self.topic_word)


def _length(length):
    """``length`` as an int, a pair of ints or inf."""
    length = length.tolist() if isinstance(length, np.ndarray) else length
    kinds = "a whole number of at least 2 slots, a pair (low, high) of such, or math.inf"
    if isinstance(length, (tuple, list)) and len(length) == 2:
        if any(isinstance(end, (tuple, list)) or end == math.inf for end in length):
            raise ValueError(f"length is {described(length)}; it must be {kinds}")
        low, high = (_length(end) for end in length)
        if low > high:
            raise ValueError(f"length is {length!r}: low is above high; write ({high}, {low})")
        if high - low >= MOST_LENGTHS:
            raise ValueError(f"length is {length!r}, more than {MOST_LENGTHS} lengths; bring low and high nearer, or "
                             "take math.inf")
        return low, high
    if isinstance(length, numbers.Real) and length == math.inf:
        return math.inf
    if isinstance(length, bool) or not isinstance(length, numbers.Integral):
        raise ValueError(f"length is {described(length)}; it must be {kinds}")
    if length < 2:
        raise ValueError(f"length is {length}: a document needs at least 2 slots, one to predict and one to predict it "
                         "from; raise length")
    return int(length)


def _dirichlet_parameter(alpha, n_topics):
    """``alpha`` as a float or as (T,) float64."""
    if np.ndim(rectangular("alpha", alpha)) == 0:
        return positive("alpha", alpha, below=_LARGEST_ALPHA)
    alpha = reals("alpha", alpha)
    if alpha.shape != (n_topics,):
        raise ValueError(f"alpha has shape {alpha.shape}; it must be one number or {n_topics}, one a topic")
    return np.array([positive("an entry of alpha", value, below=_LARGEST_ALPHA) for value in alpha])


def _probability_rows(topic_word, n_topics):
    """``topic_word`` as (T, n) float64, its own copy."""
    rows = reals("topic_word", topic_word, finite=False).copy()
    if rows.ndim != 2 or len(rows) != n_topics or not rows.size:
        raise ValueError(f"topic_word has shape {rows.shape}; it must be (n_topics, n_words) with n_topics = "
                         f"{n_topics}")
    if not (rows >= 0).all():  # also not a number
        raise ValueError("topic_word holds entries that are negative or not numbers; row = topic, column = word, "
                         "entry = its probability in the topic")
    sums = rows.sum(axis=1)
    worst = np.abs(sums - 1).argmax()
    if abs(sums[worst] - 1) > 1e-6:
        raise ValueError(f"row {worst} of topic_word sums to {sums[worst]:.6g}; each topic's probabilities must sum to "
                         "1: divide by topic_word.sum(axis=1, keepdims=True)")
    return rows
