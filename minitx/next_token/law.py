"""Sequences and labels of next-token prediction drawn from known laws, so that graphs and predictions can be scored.

The law of Li, Huang, Ildiz, Rawat and Oymak's automaton (AISTATS 2024, arXiv 2403.08081): hard retrieval of the highest class of
tokens that is present, soft composition inside it. And the random sequences of the paper's notebooks.

Legend: K tokens, n sequences of T tokens; k the last token of a sequence.
"""

from dataclasses import dataclass

import numpy as np

from minitx.base.checks import integers, whole_number

_TRIES = 100  # draws of a context that was not seen, before giving up


@dataclass(frozen=True, eq=False)
class LabelledSequences:
    """Sequences of one length and their labels: ``Samples.of(data.sequences, data.labels, data.n_vocab)``.

    Attributes
    ----------
    sequences : (n, T) int64
        Row = sequence; its last token is the query.
    labels : (n,) int64
        The token that follows; one of the sequence.
    n_vocab : int
        K.
    """

    sequences: np.ndarray
    labels: np.ndarray
    n_vocab: int

    def __len__(self):
        """Number of sequences."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class PriorityLaw:
    """For each last token, classes of tokens in order of priority: the label is drawn from the highest class that is present.

    Inside the class, token j is drawn with probability proportional to (times that j occurs) * ``odds[k, j]``.

    Parameters
    ----------
    rank : (K, K) integers
        Row = last token, column = token, entry = its class: 0 is the highest; classes of a row are numbered without gaps.
    odds : (K, K) float, optional
        Row = last token, column = token; above 0. Default: all equal.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not agree, fewer than two tokens, classes that are not 0, 1, 2, ..., odds that are not above 0 and finite.
    """

    rank: np.ndarray
    odds: np.ndarray | None = None

    def __post_init__(self):
        rank = integers("rank", self.rank, 2)
        K = len(rank)
        if K < 2 or rank.shape != (K, K):
            raise ValueError(f"rank has shape {rank.shape}; it must be (K, K), row = last token, column = token, with K at least 2")
        for k, row in enumerate(rank):
            if not np.array_equal(np.unique(row), np.arange(row.max() + 1)):
                raise ValueError(f"row {k} of rank holds the classes {np.unique(row).tolist()}; they must be 0 (the highest), 1, "
                                 "2, ... without gaps")
        odds = np.ones((K, K)) if self.odds is None else np.array(self.odds, np.float64)
        if odds.shape != (K, K):
            raise ValueError(f"odds have shape {odds.shape} but rank {rank.shape}; give a number for each last token and token")
        if not (np.isfinite(odds) & (odds > 0)).all():
            raise ValueError("odds must be above 0 and finite; a token that is never to be drawn belongs to a class of its own, "
                             "the lowest")
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "odds", odds)

    @classmethod
    def random(cls, n_vocab, n_classes=3, *, rng=0):
        """Draw a law: each last token has ``n_classes`` classes, none of them empty, of random members; it is in the lowest itself.

        Were it higher, the classes below would never be drawn from, for the last token is always present. The odds are
        log-uniform, from 1/3 to 3.

        Parameters
        ----------
        n_vocab, n_classes : int
            K, at least 2, and the number of classes, from 1 to K.
        rng : int, numpy.random.Generator or None

        Raises
        ------
        ValueError
            Settings out of range.
        """
        K, n_classes = whole_number("n_vocab", n_vocab, 2), whole_number("n_classes", n_classes, 1)
        if n_classes > K:
            raise ValueError(f"n_classes is {n_classes} but there are {K} tokens; no class may be empty: at most {K}")
        rng = np.random.default_rng(rng)
        rank = np.empty((K, K), np.int64)
        for k in range(K):
            tokens = rng.permutation(np.delete(np.arange(K), k))
            rank[k, k] = n_classes - 1
            rank[k, tokens] = np.append(np.arange(n_classes - 1), rng.integers(n_classes, size=K - n_classes))
        return cls(rank, 3.0 ** rng.uniform(-1, 1, size=(K, K)))

    @property
    def n_vocab(self):
        """K, the number of tokens."""
        return len(self.rank)

    def components(self, last):
        """SCCs that the graph of last token ``last`` has in a large sample, highest first: a tuple of ascending (m,) int64 arrays.

        These are the classes down to that of the last token itself. It is always present, so no label comes from a lower class:
        there each token is an SCC of its own, below all others.
        """
        ranks = self.rank[last]
        classes = tuple(np.flatnonzero(ranks == rank) for rank in range(ranks[last] + 1))
        return classes + tuple(np.array([token]) for token in np.flatnonzero(ranks > ranks[last]))

    def distribution(self, contexts):
        """Probability of each label after each context.

        Parameters
        ----------
        contexts : (n, T) integers
            Row = context; its last token is the query.

        Returns
        -------
        (n, K) float64
            Row = context, column = token; rows sum to 1.

        Raises
        ------
        ValueError, TypeError
            Contexts that are not such an array.
        """
        contexts = _contexts(contexts, self.n_vocab)
        last, n = contexts[:, -1], len(contexts)
        counts = np.zeros((n, self.n_vocab))
        np.add.at(counts, (np.arange(n)[:, None], contexts), 1.0)
        rank = np.where(counts > 0, self.rank[last], self.n_vocab)
        mass = counts * self.odds[last] * (rank == rank.min(axis=1, keepdims=True))
        return mass / mass.sum(axis=1, keepdims=True)

    def samples(self, n_samples, length, *, rng=0):
        """Draw sequences, every token equally probable at every place, and their labels.

        Parameters
        ----------
        n_samples, length : int
            n, at least 1, and T, at least 1. From T = 3 on a large sample shows all SCCs (:meth:`components`).
        rng : int, numpy.random.Generator or None
            Seed. The same seed gives the same samples; asking for more keeps the beginning.

        Returns
        -------
        LabelledSequences

        Raises
        ------
        ValueError
            Settings out of range.
        """
        n, T = whole_number("n_samples", n_samples, 1), whole_number("length", length, 1)
        token_rng, label_rng = np.random.default_rng(rng).spawn(2)
        sequences = token_rng.integers(self.n_vocab, size=(n, T))
        cdf = np.cumsum(self.distribution(sequences), axis=1)
        drawn = label_rng.random((n, 1)) * cdf[:, -1:]
        labels = np.minimum((cdf <= drawn).sum(axis=1), (cdf < cdf[:, -1:]).sum(axis=1))  # the second: the last one possible
        return LabelledSequences(sequences, labels, self.n_vocab)


def random_samples(n_samples, length, n_vocab, *, rng=0):
    """Sequences of distinct tokens, the label one of them, all equally probable: the data of the paper's notebooks (6, 4, 6).

    Parameters
    ----------
    n_samples, length, n_vocab : int
        n, at least 1; T, from 1 to K; K.
    rng : int, numpy.random.Generator or None
        Seed. The same seed gives the same samples; asking for more keeps the beginning.

    Returns
    -------
    LabelledSequences

    Raises
    ------
    ValueError
        Settings out of range.
    """
    n, T, K = (whole_number(name, value, 1) for name, value in
               (("n_samples", n_samples), ("length", length), ("n_vocab", n_vocab)))
    if T > K:
        raise ValueError(f"length is {T} but there are {K} tokens; the tokens of a sequence are distinct: at most {K}")
    token_rng, label_rng = np.random.default_rng(rng).spawn(2)
    sequences = np.argsort(token_rng.random((n, K)), axis=1)[:, :T]
    return LabelledSequences(sequences, sequences[np.arange(n), label_rng.integers(T, size=n)], K)


def unseen_contexts(sequences, n_contexts, length, n_vocab, *, rng=0):
    """Contexts that are not among ``sequences``, in whatever order: their last token with these others, so often each, is new.

    Parameters
    ----------
    sequences : ragged lists, or (n, T) integers
        What was trained on.
    n_contexts, length : int
        How many to draw, and how long they are; every token equally probable at every place.
    n_vocab : int
        K.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    (n_contexts, length) int64
        Row = context. Two may be the same.

    Raises
    ------
    ValueError
        Settings out of range; nearly every context of this length was seen.
    """
    n = whole_number("n_contexts", n_contexts, 0)
    T, K = whole_number("length", length, 1), whole_number("n_vocab", n_vocab, 1)
    seen = {_key(sequence) for sequence in sequences if len(sequence) == T}
    rng = np.random.default_rng(rng)
    found = rng.integers(K, size=(n, T))
    for _ in range(_TRIES):
        again = [row for row, context in enumerate(found) if _key(context) in seen]
        if not again:
            return found
        found[again] = rng.integers(K, size=(len(again), T))
    raise ValueError(f"of the contexts of {T} tokens out of {K} nearly all were seen; ask for longer ones, or train on fewer")


def _key(sequence):
    """What attention of the last token sees of a sequence: that token, and how often each occurs."""
    return int(sequence[-1]), *sorted(map(int, sequence))


def _contexts(contexts, n_vocab):
    contexts = integers("contexts", contexts, 2)
    if not contexts.shape[1]:
        raise ValueError(f"contexts have shape {contexts.shape}; each must hold at least its last token")
    if contexts.size and (contexts.min() < 0 or contexts.max() >= n_vocab):
        raise ValueError(f"token ids must lie in [0, {n_vocab}), found {contexts.min() if contexts.min() < 0 else contexts.max()}")
    return contexts
