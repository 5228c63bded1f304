"""Documents that are mixtures of topics, and their words masked: the data of Li, Li and Risteski (2023).

A document has a few topics; each of its slots takes one of them and then a word of that topic. Token 0 is [MASK], which no
document holds: ``mask_tokens`` puts it in the place of words that are to be predicted.

Legend: D documents, N slots of the longest, T topics, v words a topic, n words in all, V = n + 1 tokens.
"""

import itertools
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np

from minitx.base.checks import integers, positive, probability, whole_number
from minitx.data.batch import HEADS, Batch

LOSSES = ("pooled", "per_document")

_MASK = 0
_AT_ONCE = 1 << 17  # numbers drawn together: bounds the memory; the documents do not depend on it
_LARGEST_ALPHA = 1e100  # the sum of T of them is finite
_PURPOSES = ("length", "mixture", "topic", "word", "choice", "replacement")


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents as token ids.

    Parameters
    ----------
    tokens : (D, N) integers
        Row = document, column = slot. Ids are from 1 to ``n_vocab - 1`` (0 is [MASK]); what lies beyond a document's length is
        not read and becomes 0. Kept as int32.
    lengths : (D,) integers
        Number of slots of each document, at least 2 and at most N. Kept as int32.
    n_vocab : int
        V, the number of tokens with [MASK], at least 2.

    Raises
    ------
    ValueError, TypeError
        No document, shapes that do not agree, documents shorter than 2, ids that are not integers or out of range.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    n_vocab: int

    def __post_init__(self):
        n_vocab = whole_number("n_vocab", self.n_vocab, 2)
        tokens, lengths = integers("tokens", self.tokens, 2), integers("lengths", self.lengths, 1)
        if not len(tokens):
            raise ValueError("there are no documents; give at least one row of tokens")
        if len(lengths) != len(tokens):
            raise ValueError(f"tokens hold {len(tokens)} documents but lengths {len(lengths)} numbers; give one length a document")
        if lengths.min() < 2:
            raise ValueError(f"documents shorter than 2 slots hold nothing to predict a word from, found {np.sum(lengths < 2)} of "
                             f"{len(lengths)}; leave them out, or join them with others")
        if lengths.max() > tokens.shape[1]:
            raise ValueError(f"a document has length {lengths.max()} but tokens have {tokens.shape[1]} columns; lengths count the "
                             "slots of each document, padding left out")
        inside = np.arange(tokens.shape[1]) < lengths[:, None]
        within = np.where(inside, tokens, 1)  # 1 is an id of every vocabulary
        lowest, highest = within.min(), within.max()
        if lowest < 1 or highest >= n_vocab:
            raise ValueError(f"tokens within the documents must be ids from 1 to n_vocab - 1 = {n_vocab - 1} (0 is [MASK]), found "
                             f"{lowest if lowest < 1 else highest}; shift the ids by one, or raise n_vocab")
        object.__setattr__(self, "tokens", np.where(inside, tokens, 0).astype(np.int32, copy=False))
        object.__setattr__(self, "lengths", lengths.astype(np.int32))
        object.__setattr__(self, "n_vocab", n_vocab)

    def __len__(self):
        """Number of documents."""
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class TopicModel:
    """A law of documents: which topics a document has, how long it is, which words a topic has.

    Exactly one of ``tau`` and ``alpha`` is given, and exactly one of ``words_per_topic`` and ``topic_word``.

    Parameters
    ----------
    n_topics : int
        T, at least 1.
    words_per_topic : int, optional
        v: disjoint topics of v equally probable words; word k of topic t (both from 0) is token ``1 + t v + k``.
    tau : int, optional
        Each document draws tau of the T topics, all sets alike; each of its slots has one of the tau, equally probable.
    alpha : float, or (T,) floats, optional
        Each document draws the shares of its topics from the Dirichlet law with these parameters (a number: T times the same);
        each of its slots draws its topic from the shares. This is latent Dirichlet allocation (LDA).
    length : int, or two ints (low, high)
        N, the slots of every document, at least 2; or each document draws it from low, ..., high, equally probable.
    topic_word : (T, n) floats, optional
        Topics that may overlap: row = topic, column = word, entry = its probability in the topic. Word i is token ``i + 1``.

    Raises
    ------
    ValueError
        A setting out of range, none or both of two that exclude each other, rows that are not probabilities.

    Notes
    -----
    Li, Li and Risteski (ICML 2023, arXiv 2303.04245): their theory has the law with ``tau``, their code samples
    ``TopicModel(10, 10, alpha=0.1, length=(100, 150))``. Two slots of a document share a topic with probability
    (T - 1 + h) / (T h), where h = tau (T - 1) / (T - tau), or T alpha + 1 for a number alpha.
    """

    n_topics: int
    words_per_topic: int | None = None
    _: KW_ONLY
    tau: int | None = None
    alpha: float | np.ndarray | None = None
    length: int | tuple[int, int] = 128
    topic_word: np.ndarray | None = None

    def __post_init__(self):
        whole_number("n_topics", self.n_topics, 1)
        if (self.tau is None) == (self.alpha is None):
            raise ValueError(f"tau is {self.tau} and alpha is {self.alpha}; give one of them: tau topics a document, equally "
                             "probable, or shares drawn from the Dirichlet law of parameter alpha")
        if (self.words_per_topic is None) == (self.topic_word is None):
            found = "neither" if self.topic_word is None else "both"
            raise ValueError(f"{found} of words_per_topic and topic_word given; give one of them: the number of words of disjoint "
                             "topics, or the probabilities (n_topics, n_words) of the words of any topics")
        if self.tau is not None and whole_number("tau", self.tau, 1) > self.n_topics:
            raise ValueError(f"tau is {self.tau} but there are {self.n_topics} topics; a document's topics are distinct")
        if self.alpha is not None:
            object.__setattr__(self, "alpha", _dirichlet_parameter(self.alpha, self.n_topics))
        if self.words_per_topic is not None:
            whole_number("words_per_topic", self.words_per_topic, 1)
        else:
            object.__setattr__(self, "topic_word", _probability_rows(self.topic_word, self.n_topics))
        object.__setattr__(self, "length", _length(self.length))

    @property
    def n_words(self):
        """n, the number of words of all topics."""
        return self.n_topics * self.words_per_topic if self.topic_word is None else self.topic_word.shape[1]

    @property
    def n_vocab(self):
        """V = n + 1, the number of tokens: the words and [MASK]."""
        return self.n_words + 1

    @property
    def topic_of_token(self):
        """Topic in which each token is most probable (of equals, the first), (V,) ints; -1: [MASK], and words of no topic."""
        if self.topic_word is None:
            return np.append(-1, np.repeat(np.arange(self.n_topics), self.words_per_topic))
        return np.append(-1, np.where(self.topic_word.any(axis=0), self.topic_word.argmax(axis=0), -1))

    def documents(self, n_documents, *, rng=0):
        """Draw documents.

        Parameters
        ----------
        n_documents : int
            D, at least 1.
        rng : int, numpy.random.Generator or None
            Seed. The same seed gives the same documents; asking for more keeps the beginning.

        Returns
        -------
        Documents
            Tokens (D, N), N being the largest length the law allows.

        Raises
        ------
        ValueError
            If ``n_documents`` is not a whole number, at least 1.
        """
        whole_number("n_documents", n_documents, 1)
        draw = _generators(rng)
        low, high = self._lengths
        tokens = np.empty((n_documents, high), np.int32)
        for part in _parts(n_documents, max(high, self.n_topics)):
            tokens[part] = self._words(self._topics(len(tokens[part]), draw), draw)
        return Documents(tokens, draw["length"].integers(low, high + 1, size=n_documents), self.n_vocab)

    def stream(self, n_documents, *, rng=0):
        """Iterate, without end, over fresh :class:`Documents` of ``n_documents`` each: more data than memory holds.

        Parameters
        ----------
        n_documents : int
            Documents of each item, at least 1.
        rng : int, numpy.random.Generator or None
            Seed. The same seed gives the same items; a generator is drawn from once, now.

        Returns
        -------
        iterator of Documents

        Raises
        ------
        ValueError
            If ``n_documents`` is not a whole number, at least 1.
        """
        whole_number("n_documents", n_documents, 1)
        seeds = np.random.default_rng(_entropy(rng))
        return (self.documents(n_documents, rng=seeds) for _ in itertools.count())

    @property
    def _lengths(self):
        return self.length if isinstance(self.length, tuple) else (self.length, self.length)

    def _topics(self, n_documents, draw):
        """Topic of each slot, (n_documents, N)."""
        shape = (n_documents, self._lengths[1])
        if self.tau is None:
            shares = draw["mixture"].dirichlet(np.broadcast_to(self.alpha, self.n_topics), size=n_documents)
            return _inverse_cdf(_stack_cdfs(shares), np.arange(n_documents)[:, None], draw["topic"].random(shape))
        ranked = draw["mixture"].random((n_documents, self.n_topics)).argpartition(self.tau - 1, axis=1)
        chosen = np.sort(ranked[:, : self.tau], axis=1)  # argpartition's own order differs from processor to processor
        return np.take_along_axis(chosen, draw["topic"].integers(self.tau, size=shape), axis=1)

    def _words(self, topics, draw):
        """Token of each slot, given its topic."""
        if self.topic_word is None:
            return 1 + topics * self.words_per_topic + draw["word"].integers(self.words_per_topic, size=topics.shape)
        return 1 + _inverse_cdf(self._word_cdfs, topics, draw["word"].random(topics.shape))

    @cached_property
    def _word_cdfs(self):
        return _stack_cdfs(self.topic_word)


def mask_tokens(documents, *, p_m=0.15, p_c=0.1, p_r=0.1, loss="pooled", head="cross_entropy", rng=0):
    """Choose slots at random, corrupt what they show, and ask for their words: masked language modelling.

    Each slot is chosen with probability ``p_m``, independently. A chosen slot shows its own word with probability ``p_c``, a
    word drawn from all n = V - 1, equally probable, with probability ``p_r``, and else [MASK], token 0. Every slot is attended to.

    Parameters
    ----------
    documents : Documents
        D documents of at most N slots.
    p_m, p_c, p_r : float
        From 0 to 1; ``p_m`` above 0 and ``p_c + p_r`` at most 1.
    loss : {"pooled", "per_document"}
        Weight of a chosen slot: 1 / (chosen slots of all documents), or 1 / (documents that have a chosen slot) / (chosen slots of
        this document). Both are 0 elsewhere and sum to 1.
    head : {"cross_entropy", "squared", "log"}
        See :class:`~minitx.data.batch.Batch`.
    rng : int, numpy.random.Generator or None
        Seed. The same seed gives the same choice; it is independent of the documents, even of those drawn with the same seed.

    Returns
    -------
    Batch
        ``tokens`` (D, N): what the slots show; ``targets`` (D, N): the words of chosen slots; bidirectional attention.

    Raises
    ------
    ValueError
        Probabilities out of range, an unknown loss or head, no slot chosen.
    TypeError
        ``documents`` are not :class:`Documents`.

    Notes
    -----
    Li, Li and Risteski (ICML 2023, arXiv 2303.04245); the default probabilities are theirs. What is learned differs between the two
    losses by O(1 / N).
    """
    if not isinstance(documents, Documents):
        raise TypeError(f"documents are a {type(documents).__name__}; make them with Documents(tokens, lengths, n_vocab) or by a "
                        "TopicModel")
    shares = _shares(p_m, p_c, p_r)
    for name, value, known in (("loss", loss, LOSSES), ("head", head, HEADS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    shown, chosen = _corrupt(documents, shares, _generators(rng))
    n_chosen = chosen.sum(axis=1)
    if not n_chosen.any():
        raise ValueError(f"of the {documents.lengths.sum()} slots of {len(documents)} documents none was chosen with p_m={p_m}; "
                         "raise p_m, give more documents, or take another seed")
    if loss == "pooled":
        weight = chosen / n_chosen.sum()
    else:
        weight = chosen / (np.count_nonzero(n_chosen) * np.maximum(n_chosen, 1))[:, None]
    return Batch(shown, documents.tokens, weight, lengths=documents.lengths, causal=False, head=head)


def _shares(p_m, p_c, p_r):
    """Of all slots, cumulated: those chosen that show their own word; also a random word; all that are chosen."""
    for name, value in (("p_m", p_m), ("p_c", p_c), ("p_r", p_r)):
        probability(name, value)
    if p_m == 0:
        raise ValueError("p_m is 0: no slot would be chosen and there would be nothing to predict; the paper has p_m=0.15")
    if p_c + p_r > 1:
        raise ValueError(f"p_c + p_r is {p_c + p_r:g}; what a chosen slot shows is its word, a random word or [MASK]: "
                         "lower one of them so that their sum is at most 1")
    return p_m * p_c, p_m * (p_c + p_r), p_m


def _corrupt(documents, shares, draw):
    """What each slot shows, (D, N) int32, and whether it is chosen, (D, N) bool."""
    own, own_or_random, any_choice = shares
    shown = documents.tokens.copy()
    chosen = np.empty(shown.shape, bool)
    columns = np.arange(shown.shape[1])
    for part in _parts(*shown.shape):
        u = draw["choice"].random(shown[part].shape)  # one number decides both whether a slot is chosen and what it shows
        chosen[part] = (u < any_choice) & (columns < documents.lengths[part, None])
        replaced = chosen[part] & (u >= own)
        random_word = replaced & (u < own_or_random)
        shown[part][replaced] = _MASK
        shown[part][random_word] = draw["replacement"].integers(1, documents.n_vocab, size=np.count_nonzero(random_word))
    return shown, chosen


def _entropy(rng):
    return rng.integers(2**63) if isinstance(rng, np.random.Generator) else rng


def _generators(rng):
    """One generator a purpose: row by row each goes on where it was, so that more rows, or other parts, change none."""
    seeds = np.random.SeedSequence(_entropy(rng)).spawn(len(_PURPOSES))
    return dict(zip(_PURPOSES, map(np.random.default_rng, seeds), strict=True))


def _parts(n_rows, width):
    """Slices of consecutive rows, about ``_AT_ONCE`` entries each."""
    step = max(1, _AT_ONCE // width)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _stack_cdfs(probabilities):
    """Cumulated rows of (R, K), row r moved up by r: one ascending table for all rows."""
    cdf = np.cumsum(probabilities, axis=1)
    cdf /= cdf[:, -1:]  # exactly 1 from the last possible outcome on, whatever the rounding
    return cdf + np.arange(len(cdf))[:, None]


def _inverse_cdf(stacked, row, u):
    """Outcome that the uniform number ``u`` in [0, 1) draws from row ``row`` of the stacked table; 0-probability ones never."""
    below_next = np.minimum(row + u, np.nextafter(row + 1.0, 0))  # row + u may round up to row + 1, which is the next row
    return np.searchsorted(stacked.ravel(), below_next, side="right") - row * stacked.shape[1]


def _dirichlet_parameter(alpha, n_topics):
    """``alpha`` as a float or as (T,) float64."""
    if np.ndim(alpha) == 0:
        return positive("alpha", alpha, below=_LARGEST_ALPHA)
    alpha = np.array(alpha, np.float64)
    if alpha.shape != (n_topics,):
        raise ValueError(f"alpha has shape {alpha.shape}; it must be one number or {n_topics}, one a topic")
    for value in alpha:
        positive("an entry of alpha", value, below=_LARGEST_ALPHA)
    return alpha


def _length(length):
    """``length`` as an int, or as a tuple (low, high)."""
    if np.ndim(length) == 0:
        return whole_number("length", length, 2)
    if np.shape(length) != (2,):
        raise ValueError(f"length is {length!r}; it must be a whole number, or two: the least and the greatest length")
    low, high = (whole_number("an end of length", end, 2) for end in length)
    if low > high:
        raise ValueError(f"length is {length!r}; the least length comes first: ({high}, {low})")
    return low, high


def _probability_rows(topic_word, n_topics):
    """``topic_word`` as (T, n) float64, its own copy."""
    rows = np.array(topic_word, np.float64)
    if rows.ndim != 2 or len(rows) != n_topics or not rows.size:
        raise ValueError(f"topic_word has shape {rows.shape}; it must be (n_topics, n_words) with n_topics = {n_topics}")
    if not (rows >= 0).all():  # also not a number
        raise ValueError("topic_word holds entries that are negative or not numbers; row = topic, column = word, entry = its "
                         "probability in the topic")
    sums = rows.sum(axis=1)
    worst = np.abs(sums - 1).argmax()
    if abs(sums[worst] - 1) > 1e-6:
        raise ValueError(f"row {worst} of topic_word sums to {sums[worst]:.6g}; each topic's probabilities must sum to 1: divide "
                         "by topic_word.sum(axis=1, keepdims=True)")
    return rows
