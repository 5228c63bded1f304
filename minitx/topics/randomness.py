"""Random numbers for documents that do not depend on how many of them are drawn together.

Every purpose (lengths, topics, words, masks, ...) has a generator of its own, which is read row by row. The beginning
of a larger draw is therefore the smaller draw, and a change of one purpose leaves the others alone.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import Seed, seed

AT_ONCE = 1 << 17  # Numbers drawn together. It bounds the memory; the documents do not depend on it.
PURPOSES = ("length", "mixture", "topic", "word", "choice", "replacement")

def generators(rng: Seed) -> dict[str, np.random.Generator]:
    """One independent generator for each of ``PURPOSES``; their seed is ``rng``, or a number drawn from it."""
    seeds = np.random.SeedSequence(seed(rng)).spawn(len(PURPOSES))
    return dict(zip(PURPOSES, map(np.random.default_rng, seeds), strict=True))


def parts(n_rows: int, width: int) -> Iterator[slice]:
    """Slices of consecutive rows; a slice holds about ``AT_ONCE`` numbers, ``width`` of them in each row."""
    step = max(1, AT_ONCE // width)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def stack_cdfs(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulated rows of ``probabilities`` (R, K), row r moved up by r: one ascending table for all rows."""
    cdf = np.cumsum(probabilities, axis=1)
    cdf /= cdf[:, -1:]  # exactly 1 from the last possible outcome on, whatever the rounding
    return cdf + np.arange(len(cdf))[:, None]


def inverse_cdf(stacked: NDArray[np.float64], row: NDArray[np.integer], u: NDArray[np.float64]) -> NDArray[np.integer]:
    """The outcome that the uniform number ``u`` in [0, 1) draws from row ``row`` of :func:`stack_cdfs`' table.

    An outcome of probability 0 is never drawn.
    """
    below_next = np.minimum(row + u, np.nextafter(row + 1.0, 0))  # row + u may round up to the next row, row + 1
    return np.searchsorted(stacked.ravel(), below_next, side="right") - row * stacked.shape[1]
