"""Which words go together, read off the basis functions, and how often that is right where the truth is known.

The entries of a basis function grow with the frequency of both words, so the strongest ones of a row are mostly frequent words.
Each function is therefore given the scale-free reading that its meaning asks for:

- bigram: the row of B as it is; the scale of a row is one number, alpha_a, and does not change its order;
- interchangeability: Sigma_B[b, c] / sqrt(Sigma_B[b, b] Sigma_B[c, c]), the cosine of the columns b and c of B;
- context: two words go together when they are surplus in the same contexts and have the same words surplus in theirs: the cosine of
  the words' rows and columns of max(sqrt(O) - sqrt(E), 0), where O[b, a] = Phi[b, a] + mu_a is the mass of a in the prefixes of b
  and E its value if b and a had nothing to do with each other. A square root makes surpluses of rare and frequent words comparable.

Legend: V vocabulary.
"""

import numpy as np

from minitx.base.numbers import norm
from minitx.base.parallel import matmul
from minitx.data.corpus import UNKNOWN


def similarity(statistics):
    """{function: (V, V) scores}: row = word, column = the word it may go together with; larger is stronger.

    ``statistics`` as from :func:`minitx.associations.basis.statistics`.
    """
    Sigma = statistics.interchangeability
    total = statistics.frequency.sum()
    follows = statistics.bigram.sum(axis=0) + total / statistics.n_vocab > 1e-12 * total  # words that are the next token somewhere
    size = np.where(follows, np.sqrt(np.maximum(np.diagonal(Sigma), 0)), 0)
    return {"bigram": statistics.bigram, "interchangeability": _divide(_divide(Sigma, size).T, size),
            "context": _context_similarity(statistics)}


def _context_similarity(statistics):
    n_vocab = statistics.n_vocab
    O = np.maximum(statistics.context + statistics.share / n_vocab, 0)
    following = O.sum(axis=1, keepdims=True)  # how often b is the next token
    total = statistics.share.sum()
    surplus = np.maximum(np.sqrt(O) - np.sqrt(following * (statistics.share / total)), 0)
    profile = np.hstack([surplus, surplus.T])
    profile = _divide(profile.T, norm(profile, axis=1)).T
    return matmul(profile, profile.T)


def _divide(matrix, scale):
    """Columns of ``matrix`` over ``scale``; 0 where the scale is 0 (a word that never occurs goes with none)."""
    return np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)


def associates(scores, corpus, word, *, k=10):
    """The ``k`` words that score highest, and above 0, in the row of ``word``, strongest first; not itself, not ``<unk>``.

    Parameters
    ----------
    scores : (V, V)
        One of :func:`similarity`.
    corpus : Corpus
        Whose vocabulary the rows and columns are.
    word : str

    Returns
    -------
    list of (str, float)

    Raises
    ------
    ValueError
        ``word`` is not in the vocabulary.
    """
    row = scores[corpus.id(word)].copy()
    row[[token for token, other in enumerate(corpus.vocabulary) if other in (word, UNKNOWN)]] = -np.inf
    strongest = np.argsort(-row, kind="stable")[:k]
    return [(corpus.vocabulary[token], float(row[token])) for token in strongest if row[token] > 0]


def precision(scores, corpus, truth, *, k=10):
    """Mean share of true associates among the ``k`` strongest, over the words of ``truth`` that are in the vocabulary.

    Parameters
    ----------
    truth : dict {word: set of words}
        A word is scored when at least ``k`` of its true associates are in the vocabulary.

    Returns
    -------
    precision : float
        nan when no word can be scored.
    n_words : int
        Number of words scored.
    """
    vocabulary = set(corpus.vocabulary)
    shares = [sum(other in true for other, _ in associates(scores, corpus, word, k=k)) / k for word, true in truth.items()
              if word in vocabulary and len(vocabulary & set(true) - {word}) >= k]
    return (float(np.mean(shares)) if shares else float("nan")), len(shares)
