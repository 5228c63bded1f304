"""Topics of a real text: latent Dirichlet allocation on its content words, and the words that belong to one topic.

Fitting, and the list of English stop words, need scikit-learn (``pip install 'minitx[topics]'``); nothing else here does.

Legend: D documents of at most L tokens, T topics, V words in the vocabulary.
"""

import importlib
import numbers
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from minitx.base.checks import integers, whole_number
from minitx.base.parallel import one_blas_thread

# what the word tokenizer of corpus.py leaves of "it's", "don't", "we'll", ...: runs of letters around an apostrophe
FRAGMENTS = frozenset("s t d m ll re ve don didn doesn isn wasn weren aren couldn wouldn shouldn hasn haven hadn ain mustn needn "
                      "mightn shan won".split())
_BRACKETS = ("<>", "[]")  # special tokens: <unk>, [MASK]


@dataclass(frozen=True, eq=False)
class TextTopics:
    """Topics of a text.

    Attributes
    ----------
    topic_word : (T, V) float64
        Row = topic, column = word: the probability of the word in the topic; rows sum to 1, words left out have 0.
    share : (T,) float64
        Share of the text that each topic has; sums to 1.
    """

    topic_word: np.ndarray
    share: np.ndarray


def content_words(vocabulary, *, stop_words=True, extra=()):
    """Tell which words say what a text is about.

    Left out: special tokens (in angle or square brackets), tokens without a letter, and stop words.

    Parameters
    ----------
    vocabulary : sequence of str, V
    stop_words : bool
        Leave out English stop words (scikit-learn's list) and what is left of "don't" and the like (``FRAGMENTS``).
    extra : iterable of str
        More words to leave out, for example names of people. Case does not matter.

    Returns
    -------
    (V,) bool

    Raises
    ------
    TypeError
        ``extra`` is one string.
    ValueError
        Stop words are asked for and scikit-learn is not installed.
    """
    if isinstance(extra, str):
        raise TypeError(f"extra is the string {extra!r}; give a list of words")
    omitted = {word.lower() for word in extra}
    if stop_words:
        omitted |= FRAGMENTS | _scikit_learn("feature_extraction.text").ENGLISH_STOP_WORDS
    return np.array([_is_word(word) and word.lower() not in omitted for word in vocabulary], bool)


def _is_word(token):
    special = any(token.startswith(begin) and token.endswith(end) for begin, end in _BRACKETS)
    return not special and any(character.isalpha() for character in token)


def fit_topics(documents, content, *, n_topics=10, lengths=None, n_iterations=30, n_starts=1, rng=0):
    """Fit latent Dirichlet allocation to the counts of content words in documents (batch variational Bayes, scikit-learn).

    Parameters
    ----------
    documents : (D, L) integers
        Row = document: its token ids, for example ``corpus.tokens``.
    content : (V,) bool
        Which words of the vocabulary count, for example :func:`content_words`.
    n_topics : int
        T, at least 2.
    lengths : (D,) integers, optional
        Number of tokens of each document; what lies beyond is not read. Default: L.
    n_iterations : int
        Passes over all documents, at least 1.
    n_starts : int
        Number of random starts, at least 1, of which the one that ends with the lowest perplexity is kept: the fit finds a local
        optimum, which may have merged two topics and split another. The time grows with it.
    rng : int, numpy.random.Generator or None
        Seed. The same seed gives the same bits.

    Returns
    -------
    TextTopics

    Raises
    ------
    TypeError
        Documents or lengths that are not integers, ``content`` that is not bool.
    ValueError
        scikit-learn is not installed; settings out of range; ids that are not in the vocabulary; fewer content words in the
        documents than topics.
    """
    n_topics = whole_number("n_topics", n_topics, 2)
    n_iterations, n_starts = whole_number("n_iterations", n_iterations, 1), whole_number("n_starts", n_starts, 1)
    content = _mask(content)
    counts = _counts(documents, lengths, len(content))[:, content]
    n_seen = np.count_nonzero(counts.sum(axis=0))
    if n_seen < n_topics:
        raise ValueError(f"the documents hold {n_seen} different content words, too few for {n_topics} topics; give fewer topics, "
                         "or more text")
    counts, seeds = counts[np.diff(counts.indptr) > 0], np.random.default_rng(rng).integers(2**31, size=n_starts)
    fits = (_fit(counts, n_topics, n_iterations, int(seed)) for seed in seeds)
    components = min(fits, key=lambda fit: fit.bound_).components_  # (T, content words): expected counts + prior
    mass = components.sum(axis=1)
    topic_word = np.zeros((n_topics, len(content)))
    topic_word[:, content] = components / mass[:, None]
    return TextTopics(topic_word, mass / mass.sum())


@one_blas_thread()
def _fit(counts, n_topics, n_iterations, seed):
    """One random start; its ``bound_`` is the perplexity of the documents."""
    model = _scikit_learn("decomposition").LatentDirichletAllocation
    return model(n_topics, learning_method="batch", max_iter=n_iterations, random_state=seed).fit(counts)


def _mask(content):
    content = np.asarray(content)
    if content.dtype != bool:
        raise TypeError(f"content has dtype {content.dtype}; give True or False for each word of the vocabulary")
    if content.ndim != 1:
        raise ValueError(f"content has shape {content.shape}; give one row, True or False for each word of the vocabulary")
    return content


def _counts(documents, lengths, n_vocab):
    """How often each document holds each word, (D, V), sparse."""
    documents = integers("documents", documents, 2)
    n, length = documents.shape
    lengths = np.full(n, length) if lengths is None else integers("lengths", lengths, 1)
    if lengths.shape != (n,) or (lengths < 0).any() or (lengths > length).any():
        raise ValueError(f"lengths must be {n} numbers from 0 to {length}, one a document")
    document, place = np.nonzero(np.arange(length) < lengths[:, None])
    words = documents[document, place]
    if len(words) and not 0 <= words.min() <= words.max() < n_vocab:
        raise ValueError(f"documents hold ids {words.min()} to {words.max()} but the vocabulary has {n_vocab} words (ids 0 to "
                         f"{n_vocab - 1}); give the vocabulary that the documents were made with, and lengths if they are padded")
    return scipy.sparse.coo_matrix((np.ones(len(words)), (document, words)), (n, n_vocab)).tocsr()


def _scikit_learn(module):
    try:
        importlib.import_module("sklearn")
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ValueError(f"topics of a text need scikit-learn ({error}): pip install 'minitx[topics]'") from error


def dominant_topics(topic_word, *, topic_share=None, threshold=0.5, min_words=2):
    """Label the words that belong to one topic.

    By Bayes' rule P(t | word) is proportional to ``topic_share[t] * topic_word[t, word]``. A word's label is its most probable
    topic (the first of equals), if that has at least the probability ``threshold``.

    Parameters
    ----------
    topic_word : (T, V)
        Row = topic, column = word: the probability of the word in the topic.
    topic_share : (T,), optional
        Share of the text that each topic has, for example ``TextTopics.share``. Default: equal shares.
    threshold : float
        Above 0, at most 1.
    min_words : int
        A topic that is left with fewer words than this labels none: averages over different words of a topic need two.

    Returns
    -------
    (V,) int64
        Topic of each word; -1: ambiguous, left out, or of a topic with too few words.

    Raises
    ------
    ValueError
        A threshold out of range, shapes that do not agree, negative entries.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, numbers.Real) or not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; it must be a number above 0, at most 1")
    min_words = whole_number("min_words", min_words, 1)
    topic_word = _probabilities("topic_word", topic_word, 2)
    share = np.ones(len(topic_word)) if topic_share is None else _probabilities("topic_share", topic_share, 1)
    if share.shape != topic_word.shape[:1]:
        raise ValueError(f"topic_share has shape {share.shape} but there are {len(topic_word)} topics; give one share for each")
    joint = share[:, None] * topic_word
    mass = joint.sum(axis=0)
    labels = np.where((mass > 0) & (joint.max(axis=0) >= threshold * mass), joint.argmax(axis=0), -1)
    n_words = np.bincount(labels[labels >= 0], minlength=len(joint))
    return np.where(n_words[labels] >= min_words, labels, -1)


def _probabilities(name, array, ndim):
    array = np.asarray(array, np.float64)
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} dimensions and not be empty")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"{name} holds entries that are negative, inf or nan; give probabilities")
    return array


def top_words(topic_word, vocabulary, labels, k=10):
    """Return for each topic its ``k`` most probable words among those with its label, most probable first.

    Parameters
    ----------
    topic_word : (T, V)
        Row = topic, column = word.
    vocabulary : sequence of str, V
    labels : (V,) integers
        From :func:`dominant_topics`.
    k : int
        At most so many words a topic, at least 1.

    Returns
    -------
    list of T lists of str

    Raises
    ------
    TypeError, ValueError
        Labels that are not integers, shapes that do not agree.
    """
    topic_word, labels = _probabilities("topic_word", topic_word, 2), integers("labels", labels, 1)
    k = whole_number("k", k, 1)
    if not topic_word.shape[1] == len(vocabulary) == len(labels):
        raise ValueError(f"topic_word has {topic_word.shape[1]} words, the vocabulary {len(vocabulary)} and labels {len(labels)}; "
                         "give the three of one text")
    return [[vocabulary[word] for word in np.argsort(-row, kind="stable") if labels[word] == topic][:k]
            for topic, row in enumerate(topic_word)]
