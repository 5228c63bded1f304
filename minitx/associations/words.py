"""Which words go together, read off the basis functions, and how often that is right where the truth is known.

The entries of a basis function grow with the frequency of both words, so that the strongest ones of a row are mostly
frequent words. Each function is therefore given the scale-free reading that its meaning asks for:

- bigram: the row of B as it is. The scale of a row is one number, alpha_a, which does not change the order within the
  row.
- interchangeability: Sigma_B[b, c] / sqrt(Sigma_B[b, b] Sigma_B[c, c]), the cosine of the columns b and c of B.
- context: two words go together when they occur more often than expected in the same contexts, and the same words occur
  more often than expected in theirs. The score is the cosine of the two words' profiles; a profile is the word's row
  and column of max(sqrt(O) - sqrt(E), 0), where O[b, a] = Phi[b, a] + mu_a is the mass of a in the prefixes of b and E
  its value if b and a were independent. The square roots make rare and frequent words comparable.

Legend: V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import Statistics
from minitx.base.checks import described, instance, square, whole_number
from minitx.base.numbers import norm
from minitx.base.parallel import matmul
from minitx.data.corpus import UNKNOWN, Corpus


def similarity(statistics: Statistics, tokens: Sequence[int] | None = None) -> dict[str, NDArray[np.float64]]:
    """{function: (V, V) scores}. Row = word, column = the word it may go together with; a larger score is stronger.

    With ``tokens``, only their rows are computed: (n, V).
    """
    instance("statistics", statistics, Statistics)
    rows = np.arange(len(statistics.frequency)) if tokens is None else np.asarray(tokens, np.intp)
    Sigma = statistics.interchangeability
    total = statistics.frequency.sum()
    # words that are the next token somewhere; the others are interchangeable with none
    follows = statistics.bigram.sum(axis=0) + total / statistics.n_vocab > 1e-12 * total
    size = np.where(follows, np.sqrt(np.maximum(np.diagonal(Sigma), 0)), 0)
    scaled = _divide(Sigma[rows], size).T
    return {"bigram": statistics.bigram[rows], "interchangeability": _divide(scaled, size[rows]).T,
            "context": _context_similarity(statistics, rows)}


def _context_similarity(statistics, rows):
    n_vocab = statistics.n_vocab
    O = np.maximum(statistics.context + statistics.share / n_vocab, 0)
    following = O.sum(axis=1, keepdims=True)  # how often b is the next token
    total = statistics.share.sum()
    surplus = np.maximum(np.sqrt(O) - np.sqrt(following * (statistics.share / total)), 0)
    size = np.hypot(norm(surplus, axis=1), norm(surplus, axis=0))  # of each word's profile, its row and its column
    product = matmul(surplus[rows], surplus.T) + matmul(surplus.T[rows], surplus)
    return _divide(_divide(product, size).T, size[rows]).T


def _divide(matrix, scale):
    """Columns of ``matrix`` over ``scale``; 0 where the scale is 0, so that a word that never occurs goes with none."""
    return np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)


def associates(scores: NDArray[np.float64], corpus: Corpus, word: str, *, k: int = 10) -> list[tuple[str, float]]:
    """The ``k`` words with the highest positive scores in the row of ``word``, strongest first; not itself, not <unk>.

    ``scores`` (V, V) is one of :func:`similarity`, whose rows and columns are the vocabulary of ``corpus``. ValueError
    if ``word`` is not in it.
    """
    instance("corpus", corpus, Corpus)
    scores, k = square("scores", scores, len(corpus.vocabulary)), whole_number("k", k, 1)
    return strongest(scores[corpus.id(word)], corpus.vocabulary, word, k)


def strongest(row: NDArray[np.float64], vocabulary: Sequence[str], word: str, k: int) -> list[tuple[str, float]]:
    """As :func:`associates`, from the row (V,) of ``word``."""
    row = row.copy()
    row[[token for token, other in enumerate(vocabulary) if other in (word, UNKNOWN)]] = -np.inf
    return [(vocabulary[token], float(row[token])) for token in np.argsort(-row, kind="stable")[:k] if row[token] > 0]


def nearest(scores: Mapping[str, NDArray[np.float64]], tokens: NDArray[np.integer], vocabulary: Sequence[str],
            k: int) -> dict[str, dict[str, list[list[Any]]]]:
    """The strongest associates of each of n ``tokens`` among them: {function: {"tokens": [...], "scores": [...]}}.

    ``scores`` {function: (n, V)} are rows of :func:`similarity`. Both lists have an entry for each token: the places in
    ``tokens`` of up to ``k`` others whose score is positive, strongest first, and their scores.
    """
    found: dict[str, dict[str, list[list[Any]]]] = {}
    unknown = [place for place, token in enumerate(tokens) if vocabulary[token] == UNKNOWN]
    for function, rows in scores.items():
        among = rows[:, tokens].copy()
        np.fill_diagonal(among, -np.inf)
        among[:, unknown] = -np.inf
        order = np.argsort(-among, axis=1, kind="stable")[:, :k]
        kept = [[place for place in places if row[place] > 0] for row, places in zip(among, order, strict=True)]
        found[function] = {"tokens": [[int(place) for place in places] for places in kept],
                           "scores": [[float(f"{row[place]:.5g}") for place in places]
                                      for row, places in zip(among, kept, strict=True)]}
    return found


def content_words(corpus: Corpus, k: int) -> list[str]:
    """The ``k`` words that are frequent in some windows and absent from others: content words, in any language.

    A word with letters is ranked by its frequency times log(windows / windows that hold it), which is small for words
    of grammar, because most windows hold them.
    """
    n_windows, n_vocab = len(corpus.tokens), len(corpus.vocabulary)
    frequency = np.bincount(corpus.tokens.ravel(), minlength=n_vocab)
    holding = np.zeros(n_vocab)
    for window in corpus.tokens:
        holding[np.unique(window)] += 1
    score = frequency * np.log(n_windows / np.maximum(holding, 1))
    ranked = np.lexsort((-frequency, -score))
    spoken = [corpus.vocabulary[token] for token in ranked if frequency[token] > 0]
    return [word for word in spoken if word != UNKNOWN and any(map(str.isalpha, word))][:k]


def precision(scores: NDArray[np.float64], corpus: Corpus, truth: dict[str, set[str]], *,
              k: int = 10) -> tuple[float, int]:
    """Mean share of true associates among the ``k`` strongest, over the words that can be scored, and their number.

    A word can be scored when it and at least ``k`` of its true associates are in the vocabulary; ``truth`` is {word:
    its associates}. The mean is nan when there is no such word.
    """
    instance("corpus", corpus, Corpus)
    if not isinstance(truth, Mapping):
        raise TypeError(f"truth is {described(truth)}; it must be a dict {{word: its associates}}")
    k, vocabulary = whole_number("k", k, 1), set(corpus.vocabulary)
    shares = [sum(other in true for other, _ in associates(scores, corpus, word, k=k)) / k
              for word, true in truth.items() if word in vocabulary and len(vocabulary & set(true) - {word}) >= k]
    return (float(np.mean(shares)) if shares else float("nan")), len(shares)
