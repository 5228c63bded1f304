"""Sequences and labels of next-token prediction drawn from known laws, so that graphs and predictions can be scored.

PriorityLaw is the law of the paper's automaton: hard retrieval of the highest class of tokens that is present, soft
composition inside it. The random sequences are those of the paper's notebooks (Li et al., AISTATS 2024).

Legend: K tokens, n sequences of T tokens; k the last token of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import described, generator, integers, reals, table_size, whole_number
from minitx.base.shown import Shown
from minitx.next_token.samples import require_known, token_ids, visible

_TRIES = 100  # draws of a context that was not seen, before giving up


@dataclass(frozen=True, eq=False)
class LabelledSequences(Shown):
    """Sequences of one length and their labels: ``Samples.of(data.sequences, data.labels, data.n_vocab)``."""

    sequences: NDArray[np.int64]  # (n, T): row = sequence; its last token is the query
    labels: NDArray[np.int64]  # (n,): the token that follows, one of the sequence
    n_vocab: int  # K

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class PriorityLaw(Shown):
    """Classes of tokens in order of priority, for each last token: labels are drawn from the highest class present.

    Inside the class, token j is drawn with probability proportional to (times that j occurs) * ``odds[k, j]``. Raises
    ValueError or TypeError if shapes do not agree, classes are not 0, 1, 2, ..., or odds are not above 0 and finite.
    """

    MADE_BY: ClassVar[str] = "minitx.next_token.PriorityLaw.random(n_vocab, n_classes), or PriorityLaw(rank, odds)"

    rank: NDArray[np.int64]  # (K, K), K >= 2: row = last token, column = token, entry = its class; 0 is the highest
    odds: NDArray[np.float64] | None = None  # (K, K): row = last token, column = token; above 0. Default: all equal

    def __post_init__(self) -> None:
        rank = integers("rank", self.rank, 2)
        K = len(rank)
        if K < 2 or rank.shape != (K, K):
            raise ValueError(f"rank has shape {rank.shape}; it must be (K, K), row = last token, column = token, with "
                             "K at least 2")
        for k, row in enumerate(rank):
            if not np.array_equal(np.unique(row), np.arange(row.max() + 1)):
                raise ValueError(f"row {k} of rank holds the classes {np.unique(row).tolist()}; they must be 0 (the "
                                 "highest), 1, 2, ... without gaps")
        odds = np.ones((K, K)) if self.odds is None else reals("odds", self.odds, finite=False).copy()
        if odds.shape != (K, K):
            raise ValueError(f"odds have shape {odds.shape} but rank {rank.shape}; give a number for each last token "
                             "and token")
        if not (np.isfinite(odds) & (odds > 0)).all():
            raise ValueError("odds must be above 0 and finite; a token that is never to be drawn belongs to a class of "
                             "its own, the lowest")
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "odds", odds)

    @classmethod
    def random(cls, n_vocab: int, n_classes: int = 3, *, rng: int | np.random.Generator | None = 0) -> PriorityLaw:
        """Draw a law: each last token has ``n_classes`` classes of random members, none of them empty.

        The last token itself is in the lowest class: it is always present, so no label would come from a class below
        its own. The odds are log-uniform, from 1/3 to 3. ``n_vocab`` is K, at least 2, ``rng`` a seed or a Generator.
        """
        K, n_classes = whole_number("n_vocab", n_vocab, 2), whole_number("n_classes", n_classes, 1)
        table_size(f"a law of {K:,} tokens", K, K)
        if n_classes > K:
            raise ValueError(f"n_classes is {n_classes} but there are {K} tokens; no class may be empty: at most {K}")
        rng = generator(rng)
        rank = np.empty((K, K), np.int64)
        for k in range(K):
            tokens = rng.permutation(np.delete(np.arange(K), k))
            rank[k, k] = n_classes - 1
            rank[k, tokens] = np.append(np.arange(n_classes - 1), rng.integers(n_classes, size=K - n_classes))
        return cls(rank, 3.0 ** rng.uniform(-1, 1, size=(K, K)))

    @property
    def n_vocab(self) -> int:
        """K, the number of tokens."""
        return len(self.rank)

    def distribution(self, contexts: ArrayLike) -> NDArray[np.float64]:
        """(n, K) probability of each label after each of ``contexts`` (n, T), whose last tokens are the queries."""
        ids = integers("contexts", contexts, 2)
        if not ids.shape[1]:
            raise ValueError(f"contexts have shape {ids.shape}; each must hold at least its last token")
        require_known("a context holds", ids, self.n_vocab)
        last, counts = ids[:, -1], np.zeros((len(ids), self.n_vocab))
        np.add.at(counts, (np.arange(len(ids))[:, None], ids), 1.0)
        rank = np.where(counts > 0, self.rank[last], self.n_vocab)
        mass = counts * np.asarray(self.odds)[last] * (rank == rank.min(axis=1, keepdims=True))
        return mass / mass.sum(axis=1, keepdims=True)

    def samples(self, n_samples: int, length: int, *, rng: int | np.random.Generator | None = 0) -> LabelledSequences:
        """Draw ``n_samples`` sequences of ``length`` tokens, all equally probable at every place, and their labels.

        From length 3 on, the SCCs of a large sample are the classes down to that of the last token itself. It is always
        present, so no label comes from a lower class: each token there is an SCC of its own. The same seed gives the
        same samples; a larger n keeps the first ones.
        """
        n, T = whole_number("n_samples", n_samples, 1), whole_number("length", length, 1)
        table_size("the samples", n, max(T, self.n_vocab))
        token_rng, label_rng = generator(rng).spawn(2)
        sequences = token_rng.integers(self.n_vocab, size=(n, T))
        cdf = np.cumsum(self.distribution(sequences), axis=1)
        drawn = label_rng.random((n, 1)) * cdf[:, -1:]
        last_possible = (cdf < cdf[:, -1:]).sum(axis=1)  # rounding must not lead beyond it
        labels = np.minimum((cdf <= drawn).sum(axis=1), last_possible)
        return LabelledSequences(sequences, labels, self.n_vocab)


def random_samples(n_samples: int, length: int, n_vocab: int, *,
                   rng: int | np.random.Generator | None = 0) -> LabelledSequences:
    """Draw sequences of distinct tokens and a label from each, all equally probable.

    The paper's notebooks have 6 samples of length 4 out of 6 tokens. The same seed gives the same samples; a larger
    ``n_samples`` keeps the first ones.
    """
    n, T, K = (whole_number(name, value, 1) for name, value in
               (("n_samples", n_samples), ("length", length), ("n_vocab", n_vocab)))
    table_size("the samples", n, K)
    if T > K:
        raise ValueError(f"length is {T} but there are {K} tokens; the tokens of a sequence are distinct: at most {K}")
    token_rng, label_rng = generator(rng).spawn(2)
    sequences = np.argsort(token_rng.random((n, K)), axis=1)[:, :T]
    return LabelledSequences(sequences, sequences[np.arange(n), label_rng.integers(T, size=n)], K)


def unseen_contexts(sequences: Sequence, n_contexts: int, length: int, n_vocab: int, *,
                    rng: int | np.random.Generator | None = 0) -> NDArray[np.int64]:
    """Draw contexts (n_contexts, length), all equally probable, of which attention has seen none in ``sequences``.

    A context was seen if a sequence with the same last token holds the same tokens as often, in whatever order. Two of
    the contexts may be equal. ``sequences`` are lists or rows of ids. Raises ValueError if nearly all such contexts
    were seen.
    """
    n = whole_number("n_contexts", n_contexts, 0)
    T, K = whole_number("length", length, 1), whole_number("n_vocab", n_vocab, 1)
    table_size("the contexts", n, T)
    if isinstance(sequences, str) or not isinstance(sequences, Iterable):
        raise TypeError(f"sequences are {described(sequences)}; they must be lists or rows of token ids")
    sequences = [token_ids(f"sequence {i}", sequence) for i, sequence in enumerate(sequences)]
    seen = {visible(sequence) for sequence in sequences if len(sequence) == T}
    rng = generator(rng)
    found = rng.integers(K, size=(n, T))
    for _ in range(_TRIES):
        again = [row for row, context in enumerate(found) if visible(context) in seen]
        if not again:
            return found
        found[again] = rng.integers(K, size=(len(again), T))
    raise ValueError(f"of the contexts of {T} tokens out of {K} nearly all were seen; ask for longer ones, or train on "
                     "fewer")
