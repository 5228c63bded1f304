"""The theory on a real text: documents, topics of words, the weights that training starts from, and what is measured.

Topics are fitted by latent Dirichlet allocation to the content words; a word belongs to a topic that is probable enough
given the word. Fitting, and the list of English stop words, need scikit-learn (``pip install 'minitx[topics]'``).

Legend: D documents of at most L tokens, T topics, V words in the vocabulary. Word i of the vocabulary is token i + 1 of
:class:`Documents`, in which token 0 is [MASK].
"""

import importlib
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import integers, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.data.batch import Batch
from minitx.data.corpus import Corpus
from minitx.model.weights import EmbeddedWeights
from minitx.topics.averages import PairTable, attention_table, cosine_matrix, gram, pair_averages
from minitx.topics.documents import Documents, mask_tokens

HELD_OUT = 10  # one document in so many, the last ones, is held out
# What the word tokenizer of corpus.py leaves of "it's", "don't", "we'll", ...: runs of letters around an apostrophe.
FRAGMENTS = frozenset("s t d m ll re ve don didn doesn isn wasn weren aren couldn wouldn shouldn hasn haven hadn ain "
                      "mustn needn mightn shan won".split())
_BRACKETS = ("<>", "[]")  # special tokens: <unk>, [MASK]


# ----------------------------------------------------------------------------------------------------------- documents


def text_documents(corpus: Corpus) -> tuple[Documents, Documents]:
    """The windows of a text as documents: those to train on, and the last tenth, held out. ValueError if too few."""
    n_windows, length = corpus.tokens.shape
    if n_windows < HELD_OUT:
        raise ValueError(f"{corpus.name} gives {n_windows} windows of {length} tokens, too few to hold some out; at "
                         f"least {HELD_OUT} are needed: give more text, or a smaller --length")
    n_train = n_windows - n_windows // HELD_OUT
    training, held_out = (Documents(tokens + 1, np.full(len(tokens), length), len(corpus.vocabulary) + 1)
                          for tokens in (corpus.tokens[:n_train], corpus.tokens[n_train:]))
    return training, held_out


def masked_copies(documents: Documents, n_copies: int, *, p_m: float, p_c: float, p_r: float,
                  rng: int | np.random.Generator | None) -> Batch:
    """``n_copies`` of the documents, each masked anew (:func:`minitx.topics.mask_tokens`)."""
    tokens, lengths = (np.concatenate([part] * n_copies) for part in (documents.tokens, documents.lengths))
    return mask_tokens(Documents(tokens, lengths, documents.n_vocab), p_m=p_m, p_c=p_c, p_r=p_r, rng=rng)


# -------------------------------------------------------------------------------------------------------------- topics


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

    topic_word: NDArray[np.float64]
    share: NDArray[np.float64]


def content_words(vocabulary: Sequence[str], *, stop_words: bool = True,
                  extra: Iterable[str] = ()) -> NDArray[np.bool_]:
    """Tell which words of the vocabulary say what a text is about, (V,).

    Special tokens (in angle or square brackets), tokens without a letter and stop words do not.

    Parameters
    ----------
    vocabulary : sequence of str, V
    stop_words : bool
        Whether to leave out English stop words (scikit-learn's list) and what is left of "don't" and the like
        (``FRAGMENTS``).
    extra : iterable of str
        More words to leave out, for example names of people. Case does not matter.

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


def fit_topics(documents: ArrayLike, content: ArrayLike, *, n_topics: int = 10, lengths: ArrayLike | None = None,
               n_iterations: int = 30, n_starts: int = 1, rng: int | np.random.Generator | None = 0) -> TextTopics:
    """Fit latent Dirichlet allocation to counts of content words in documents (batch variational Bayes, scikit-learn).

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
        Number of passes over all documents, at least 1.
    n_starts : int
        Number of random starts, at least 1, of which the one that ends with the lowest perplexity is kept: the fit
        finds a local optimum, which may have merged two topics and split another. The time grows with it.
    rng : int, numpy.random.Generator or None
        Seed. The same seed gives the same bits.

    Raises
    ------
    TypeError
        Documents or lengths are not integers, or ``content`` is not bool.
    ValueError
        scikit-learn is not installed; settings are out of range; ids are not in the vocabulary; the documents hold
        fewer content words than topics.
    """
    n_topics = whole_number("n_topics", n_topics, 2)
    n_iterations, n_starts = whole_number("n_iterations", n_iterations, 1), whole_number("n_starts", n_starts, 1)
    counted = _mask(content)
    counts = _counts(documents, lengths, len(counted))[:, counted]
    n_seen = np.count_nonzero(counts.sum(axis=0))
    if n_seen < n_topics:
        raise ValueError(f"the documents hold {n_seen} different content words, too few for {n_topics} topics; give "
                         "fewer topics, or more text")
    counts, seeds = counts[np.diff(counts.indptr) > 0], np.random.default_rng(rng).integers(2**31, size=n_starts)
    fits = (_fit(counts, n_topics, n_iterations, int(seed)) for seed in seeds)
    components = min(fits, key=lambda fit: fit.bound_).components_  # (T, content words): expected counts + prior
    mass = components.sum(axis=1)
    topic_word = np.zeros((n_topics, len(counted)))
    topic_word[:, counted] = components / mass[:, None]
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
        raise ValueError(f"content has shape {content.shape}; give one row, True or False for each word")
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
        raise ValueError(f"documents hold ids {words.min()} to {words.max()} but the vocabulary has {n_vocab} words "
                         f"(ids 0 to {n_vocab - 1}); give the vocabulary that the documents were made with, and lengths "
                         "if they are padded")
    return scipy.sparse.coo_matrix((np.ones(len(words)), (document, words)), (n, n_vocab)).tocsr()


def _scikit_learn(module):
    try:
        importlib.import_module("sklearn")
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ValueError(f"topics of a text need scikit-learn ({error}): pip install 'minitx[topics]'") from error


def dominant_topics(topic_word: ArrayLike, *, topic_share: ArrayLike | None = None, threshold: float = 0.5,
                    min_words: int = 2) -> NDArray[np.int64]:
    """Label the words that belong to one topic: (V,), the topic of each word, or -1.

    By Bayes' rule P(t | word) is proportional to ``topic_share[t] * topic_word[t, word]``. A word's label is its most
    probable topic (the first of equals), if that has at least the probability ``threshold``. Other words are ambiguous.

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

    Raises
    ------
    ValueError
        The threshold is out of range, shapes do not agree, or entries are negative.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, numbers.Real) or not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; it must be a number above 0, at most 1")
    min_words = whole_number("min_words", min_words, 1)
    topic_word = _probabilities("topic_word", topic_word, 2)
    share = np.ones(len(topic_word)) if topic_share is None else _probabilities("topic_share", topic_share, 1)
    if share.shape != topic_word.shape[:1]:
        raise ValueError(f"topic_share has shape {share.shape} but there are {len(topic_word)} topics; give one each")
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


def top_words(topic_word: ArrayLike, vocabulary: Sequence[str], labels: ArrayLike, k: int = 10) -> list[list[str]]:
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

    Raises
    ------
    TypeError, ValueError
        Labels are not integers, or shapes do not agree.
    """
    rows, topic_of = _probabilities("topic_word", topic_word, 2), integers("labels", labels, 1)
    k = whole_number("k", k, 1)
    if not rows.shape[1] == len(vocabulary) == len(topic_of):
        raise ValueError(f"topic_word has {rows.shape[1]} words, the vocabulary {len(vocabulary)} and labels "
                         f"{len(topic_of)}; give the three of one text")
    return [[vocabulary[word] for word in np.argsort(-row, kind="stable") if topic_of[word] == topic][:k]
            for topic, row in enumerate(rows)]


@dataclass(frozen=True, eq=False)
class WordTopics:
    """Topics of a text and of its words.

    Attributes
    ----------
    fitted : TextTopics
    of_token : (V + 1,) int64
        Topic of each token of the documents; -1: none.
    words : list of T lists of str
        All words that belong to each topic, most probable first.
    left_out : dict {reason: number of words}
    """

    fitted: TextTopics
    of_token: NDArray[np.int64]
    words: list[list[str]]
    left_out: dict[str, int]


def word_topics(documents: Documents, vocabulary: Sequence[str], *, n_topics: int = 10, threshold: float = 0.5,
                stop_words: bool = True, exclude: Iterable[str] = (),
                rng: int | np.random.Generator | None = 0) -> WordTopics:
    """Fit topics to ``documents`` and tell which words belong to one; ValueError if fewer than two topics have words.

    See :func:`content_words` for ``stop_words`` and ``exclude`` (its ``extra``), :func:`fit_topics` and
    :func:`dominant_topics`.
    """
    word = content_words(vocabulary, stop_words=False)
    not_common = content_words(vocabulary, stop_words=stop_words)
    content = content_words(vocabulary, stop_words=stop_words, extra=exclude)
    fitted = fit_topics(documents.tokens - 1, content, n_topics=n_topics, lengths=documents.lengths, rng=rng)
    labels = dominant_topics(fitted.topic_word, topic_share=fitted.share, threshold=threshold)
    n_found = len(np.unique(labels[labels >= 0]))
    if n_found < 2:
        raise ValueError(f"{n_found} of {n_topics} topics have words of their own: of {content.sum()} content words "
                         f"{(labels >= 0).sum()} belong to one topic with probability {threshold:g} or more; two "
                         "topics are needed: lower --threshold, or change --topics")
    left_out = {"no words, or rare (<unk>)": ~word, "stop words": word & ~not_common,
                "excluded": not_common & ~content, "of no single topic": content & (labels < 0)}
    return WordTopics(fitted, np.append(-1, labels),
                      top_words(fitted.topic_word, vocabulary, labels, k=len(vocabulary)),
                      {reason: int(out.sum()) for reason, out in left_out.items()})


def require_pairs(of_token: ArrayLike, documents: Documents) -> None:
    """ValueError unless ``documents`` hold pairs of different words of one topic, and of words of different topics."""
    uniform = EmbeddedWeights(W_E=np.zeros((1, documents.n_vocab)))
    found = pair_averages(attention_table(uniform, documents), of_token)
    if not (found.n_same_topic and found.n_different_topic):
        raise ValueError(f"in the {len(documents)} held-out documents words of one topic meet {found.n_same_topic:g} "
                         f"times, words of different topics {found.n_different_topic:g} times, so attention between "
                         "them cannot be compared; give more text, lower --threshold, or change --topics")


# -------------------------------------------------------------------------------------------------- before and after


def start_at_frequencies(documents: Documents, *, width: int, scale: float, dtype: str,
                         rng: int | np.random.Generator | None) -> EmbeddedWeights:
    """Small Gaussian embeddings at uniform attention, and as bias the logarithm of the words' frequencies.

    Gradient descent on the bias alone would end there: embeddings do not have to learn the frequencies first.
    """
    weights = EmbeddedWeights.gaussian(documents.n_vocab, W_E=scale, b=0.0, width=width, rng=rng, dtype=dtype)
    counts = 1 + np.bincount(documents.tokens.ravel(), minlength=documents.n_vocab)
    return replace(weights, b=np.log(counts / counts.sum()).astype(dtype))


def with_attention(weights: EmbeddedWeights, *, width: int, scale: float,
                   rng: int | np.random.Generator | None) -> EmbeddedWeights:
    """``weights`` that have embeddings, with Gaussian queries and keys of standard deviation ``scale``."""
    E = _embeddings(weights)
    drawn = EmbeddedWeights.gaussian(weights.n_vocab, W_E=0, W_QK=scale, rng=rng, width=len(E), attention_width=width,
                                     dtype=E.dtype)
    return replace(weights, W_Q=drawn.W_Q, W_K=drawn.W_K)


def quantities(weights: EmbeddedWeights, documents: Documents) -> dict[str, PairTable]:
    """What is measured of pairs of words: products and cosines of embeddings and, if there is any, attention.

    In "attention" every occurrence of a pair counts, as in the paper; in a real text a few very frequent words decide
    it. In "attention by pair" each pair of words that meets counts once.
    """
    E = _embeddings(weights)
    tables = {"embedding products": PairTable.of_matrix(gram(E)),
              "embedding cosines": PairTable.of_matrix(cosine_matrix(E))}
    if weights.W_Q is not None:
        found = tables["attention"] = attention_table(weights, documents)
        tables["attention by pair"] = PairTable(found.mean(0.0), np.where(found.count > 0, 1.0, 0.0))
    return tables


def _embeddings(weights):
    if weights.W_E is None:
        raise ValueError("the weights have no embeddings W_E; start from start_at_frequencies")
    return weights.W_E
