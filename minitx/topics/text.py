"""The theory on a real text: documents, topics of words, the weights that training starts from, and what is measured.

Topics are fitted by latent Dirichlet allocation to the content words; a word belongs to a topic that is probable enough
given the word. Fitting, and the list of English stop words, need scikit-learn (``pip install 'minitx[topics]'``).

Legend: D documents of at most L tokens, T topics, V words in the vocabulary. Word i of the vocabulary is token i + 1 of
:class:`Documents`, in which token 0 is [MASK].
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from minitx.base.checks import extra_package, generator, instance, positive, probability, reals, truth, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.data.corpus import Corpus
from minitx.model.weights import EmbeddedWeights
from minitx.topics.averages import PairTable, attention_table, cosine_matrix, gram, pair_averages
from minitx.topics.documents import Documents, mask_tokens
from minitx.topics.randomness import Seed

HELD_OUT = 10  # one document in so many, the last ones, is held out
ITERATIONS = 30  # passes over all documents when topics are fitted
# What the word tokenizer of corpus.py leaves of "it's", "don't", "we'll", ...: runs of letters around an apostrophe.
FRAGMENTS = frozenset("s t d m ll re ve don didn doesn isn wasn weren aren couldn wouldn shouldn hasn haven hadn ain "
                      "mustn needn mightn shan won".split())


# ----------------------------------------------------------------------------------------------------------- documents


def text_documents(corpus: Corpus) -> tuple[Documents, Documents]:
    """Return the windows of a text as documents: those to train on, and the last tenth, which is held out.

    Raises ValueError if there are too few windows to hold some out.
    """
    instance("corpus", corpus, Corpus)
    n_windows, length = corpus.tokens.shape
    if n_windows < HELD_OUT:
        raise ValueError(f"{corpus.name} gives {n_windows} windows of {length} tokens, too few to hold some out; at "
                         f"least {HELD_OUT} are needed: give more text, or a smaller --length")
    n_train = n_windows - n_windows // HELD_OUT
    training, held_out = (Documents(tokens + 1, np.full(len(tokens), length), len(corpus.vocabulary) + 1)
                          for tokens in (corpus.tokens[:n_train], corpus.tokens[n_train:]))
    return training, held_out


def masked_copies(documents: Documents, n_copies: int, *, p_m: float, p_c: float, p_r: float,
                  rng: Seed) -> Batch:
    """``n_copies`` of the documents, each masked anew (:func:`minitx.topics.mask_tokens`)."""
    instance("documents", documents, Documents)
    whole_number("n_copies", n_copies, 1)
    tokens, lengths = (np.concatenate([part] * n_copies) for part in (documents.tokens, documents.lengths))
    return mask_tokens(Documents(tokens, lengths, documents.n_vocab), p_m=p_m, p_c=p_c, p_r=p_r, rng=rng)


# -------------------------------------------------------------------------------------------------------------- topics


def content_words(vocabulary: Sequence[str], *, stop_words: bool = True,
                  extra: Iterable[str] = ()) -> NDArray[np.bool_]:
    """Tell which words of the vocabulary say what a text is about, (V,).

    Special tokens (in angle or square brackets) and tokens without a letter do not. With ``stop_words``, neither do
    English stop words (scikit-learn's list) and ``FRAGMENTS``; nor do the words ``extra``, for example names of people,
    in any case. Raises ValueError if stop words are asked for and scikit-learn is not installed.
    """
    if isinstance(vocabulary, str) or isinstance(extra, str):
        raise TypeError("vocabulary and extra are lists of words; one of them is a single string")
    truth("stop_words", stop_words)
    omitted = {word.lower() for word in extra}
    if stop_words:
        omitted |= FRAGMENTS | _scikit_learn("feature_extraction.text").ENGLISH_STOP_WORDS
    return np.array([_is_word(word) and word.lower() not in omitted for word in vocabulary], bool)


def _is_word(token):
    special = token[:1] + token[-1:] in ("<>", "[]")  # <unk>, [MASK]
    return not special and any(map(str.isalpha, token))


@one_blas_thread()
def fit_topics(documents: Documents, content: NDArray[np.bool_], n_topics: int,
               rng: Seed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit latent Dirichlet allocation to counts of content words in documents (batch variational Bayes, scikit-learn).

    Parameters
    ----------
    documents : Documents
        D documents.
    content : (V,) bool
        Which words of the vocabulary count (:func:`content_words`).
    n_topics : int
        T, at least 2.
    rng : int, numpy.random.Generator or None
        Seed of the random start. The same seed gives the same bits.

    Returns
    -------
    topic_word : (T, V) float64
        Row = topic, column = word: the probability of the word in the topic; rows sum to 1, words left out have 0.
    share : (T,) float64
        Share of the text that each topic has; sums to 1.

    Raises
    ------
    ValueError
        scikit-learn is not installed; or the documents hold fewer different content words than topics.
    """
    instance("documents", documents, Documents)
    n_topics, content = whole_number("n_topics", n_topics, 2), np.asarray(content, bool)
    if content.shape != (documents.n_vocab - 1,):
        raise ValueError(f"content has shape {content.shape}; it must tell of each of the {documents.n_vocab - 1} "
                         "words of the vocabulary whether it counts, as content_words does")
    document, place = np.nonzero(documents.tokens)  # token 0 stands beyond a document's end
    words = documents.tokens[document, place] - 1
    shape = len(documents), len(content)
    counts = scipy.sparse.coo_matrix((np.ones(len(words)), (document, words)), shape).tocsr()[:, content]
    n_seen = np.count_nonzero(counts.sum(axis=0))
    if n_seen < n_topics:
        raise ValueError(f"n_topics is {n_topics}, but the documents hold {n_seen} different content words; give fewer "
                         "topics, or more text")
    counts, seed = counts[np.diff(counts.indptr) > 0], int(generator(rng).integers(2**31))
    model = _scikit_learn("decomposition").LatentDirichletAllocation(
        n_topics, learning_method="batch", max_iter=ITERATIONS, random_state=seed)
    components = model.fit(counts).components_  # (T, content words): expected counts + prior
    mass = components.sum(axis=1)
    topic_word = np.zeros((n_topics, len(content)))
    topic_word[:, content] = components / mass[:, None]
    return topic_word, mass / mass.sum()


def _scikit_learn(module):
    return extra_package(f"sklearn.{module}", "topics of a text", "scikit-learn", "topics")


def dominant_topics(topic_word: NDArray[np.float64], share: NDArray[np.float64],
                    threshold: float) -> NDArray[np.int64]:
    """Label the words that belong to one topic: (V,), the topic of each word, or -1.

    ``topic_word`` (T, V) and ``share`` (T,) are those of :func:`fit_topics`. By Bayes' rule P(t | word) is proportional
    to ``share[t] * topic_word[t, word]``. A word's label is its most probable topic (the first of equals), if that has
    at least the probability ``threshold``, which is above 0 and at most 1; other words are ambiguous. A topic that is
    left with a single word labels none: averages over different words of a topic need two.
    """
    topic_word, share = reals("topic_word", topic_word), reals("share", share)
    if topic_word.ndim != 2 or share.shape != topic_word.shape[:1]:
        raise ValueError(f"topic_word has shape {topic_word.shape} and share {share.shape}; they must be (T, V) and "
                         "(T,), as fit_topics returns them")
    positive("threshold", probability("threshold", threshold))
    joint = share[:, None] * topic_word
    mass = joint.sum(axis=0)
    labels = np.where((mass > 0) & (joint.max(axis=0) >= threshold * mass), joint.argmax(axis=0), -1)
    n_words = np.bincount(labels[labels >= 0], minlength=len(joint))
    return np.where(n_words[labels] >= 2, labels, -1)


@dataclass(frozen=True, eq=False)
class WordTopics(Shown):
    """Topics of a text and of its words.

    Attributes
    ----------
    share : (T,) float64
        Share of the text that each topic has.
    of_token : (V + 1,) int64
        Topic of each token of the documents; -1: none.
    words : list of T lists of str
        All words that belong to each topic, most probable first.
    left_out : dict {reason: number of words}
    """

    share: NDArray[np.float64]
    of_token: NDArray[np.int64]
    words: list[list[str]]
    left_out: dict[str, int]


def word_topics(documents: Documents, vocabulary: Sequence[str], *, n_topics: int, threshold: float, stop_words: bool,
                exclude: Iterable[str], rng: Seed) -> WordTopics:
    """Fit topics to ``documents`` and tell which words belong to one.

    See :func:`content_words` for ``stop_words`` and ``exclude`` (its ``extra``), :func:`fit_topics` and
    :func:`dominant_topics`. Raises ValueError if fewer than two topics have words.
    """
    word = content_words(vocabulary, stop_words=False)
    not_common = content_words(vocabulary, stop_words=stop_words)
    content = content_words(vocabulary, stop_words=stop_words, extra=exclude)
    topic_word, share = fit_topics(documents, content, n_topics, rng)
    labels = dominant_topics(topic_word, share, threshold)
    n_found = len(np.unique(labels[labels >= 0]))
    if n_found < 2:
        raise ValueError(f"{n_found} of {n_topics} topics have words of their own: of {content.sum()} content words "
                         f"{(labels >= 0).sum()} belong to one topic with probability {threshold:g} or more; two "
                         "topics are needed: lower --threshold, or change --topics")
    words = [[vocabulary[one] for one in np.argsort(-row, kind="stable") if labels[one] == topic]
             for topic, row in enumerate(topic_word)]
    left_out = {"no words, or rare (<unk>)": ~word, "stop words": word & ~not_common,
                "excluded": not_common & ~content, "of no single topic": content & (labels < 0)}
    return WordTopics(share, np.append(-1, labels), words,
                      {reason: int(out.sum()) for reason, out in left_out.items()})


def require_pairs(of_token: NDArray[np.int64], documents: Documents) -> None:
    """Raise ValueError unless ``documents`` hold pairs of different words of one topic, and of words of two topics."""
    uniform = EmbeddedWeights(W_E=np.zeros((1, documents.n_vocab)))
    found = pair_averages(attention_table(uniform, documents), of_token)
    if not (found.n_same_topic and found.n_different_topic):
        raise ValueError(f"in the {len(documents)} held-out documents words of one topic meet {found.n_same_topic:g} "
                         f"times, words of different topics {found.n_different_topic:g} times, so attention between "
                         "them cannot be compared; give more text, lower --threshold, or change --topics")


# -------------------------------------------------------------------------------------------------- before and after


def start_at_frequencies(documents: Documents, *, width: int, scale: float, dtype: str,
                         rng: Seed) -> EmbeddedWeights:
    """Small Gaussian embeddings at uniform attention, and as bias the logarithm of the words' frequencies.

    Gradient descent on the bias alone would end there: embeddings do not have to learn the frequencies first.
    """
    instance("documents", documents, Documents)
    weights = EmbeddedWeights.gaussian(documents.n_vocab, W_E=scale, b=0.0, width=width, rng=rng, dtype=dtype)
    counts = 1 + np.bincount(documents.tokens.ravel(), minlength=documents.n_vocab)
    return replace(weights, b=np.log(counts / counts.sum()).astype(dtype))


def _embeddings(weights):
    instance("weights", weights, EmbeddedWeights)
    if weights.W_E is None:
        raise ValueError("the weights have no embeddings W_E; give them, as start_at_frequencies does")
    return weights.W_E


def with_attention(weights: EmbeddedWeights, *, width: int, scale: float, rng: Seed) -> EmbeddedWeights:
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
