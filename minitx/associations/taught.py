"""Which windows taught an entry, the strongest first, and their words as text.

Legend: N sequences (windows), T positions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import instance
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.data.corpus import Corpus

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Taught(Shown):
    """What one window adds to an entry. Windows with the same tokens are one, and ``value`` is what all of them add."""

    windows: tuple[int, ...]  # their numbers, ascending
    value: float
    position: int  # the position that adds most to the side of ``value``, of the first of them
    text: str | None  # its words, those of the row and of the column in brackets; None where no corpus was given


def strongest_windows(gain: Array, batch: Batch, k: int, *, sign: float = 1.0, pair: tuple[int, int | None],
                      words: tuple[NDArray[np.int32], tuple[str, ...]] | None = None) -> list[Taught]:
    """The ``k`` windows with the largest sums of ``gain``, (N, T), above 0; windows with the same tokens are one.

    ``value`` of each is ``sign`` times its sum. ``words`` are the tokens (N, T + 1) and the vocabulary of a corpus,
    and ``pair`` the two tokens that its texts mark.
    """
    of_window = gain.sum(axis=1)
    copies: dict[bytes, list[int]] = {}
    for window in np.flatnonzero(of_window > 0):
        key = batch.tokens[window].tobytes() + batch.targets[window].tobytes() + batch.lengths[window].tobytes()
        copies.setdefault(key, []).append(int(window))
    sums = sorted(((float(of_window[group].sum()), group) for group in copies.values()),
                  key=lambda pair: (-pair[0], pair[1]))
    return [Taught(tuple(group), sign * value, int(gain[group[0]].argmax()),
                   None if words is None else marked(words[0][group[0]], words[1], pair))
            for value, group in sums[:k]]


def words_of(corpus: Corpus, batch: Batch) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The tokens, (N, T + 1), and the vocabulary of the corpus of ``batch``. TypeError or ValueError if it is not."""
    instance("corpus", corpus, Corpus)
    tokens = np.concatenate([batch.tokens, batch.targets[:, -1:]], axis=1)
    if not np.array_equal(tokens, corpus.tokens):
        raise ValueError(f"corpus is {corpus.name}, whose windows are not the sequences of the batch; give the corpus "
                         "whose batch() it is")
    return corpus.tokens, corpus.vocabulary


def marked(tokens: NDArray[np.int32], vocabulary: tuple[str, ...], pair: tuple[int, int | None]) -> str:
    """The words of ``tokens``, with those of ``pair`` in brackets: "a [red] and a blue [truck]"."""
    return " ".join(f"[{vocabulary[token]}]" if token in pair else vocabulary[token] for token in tokens)
