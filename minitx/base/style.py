"""What all figures share: colours, markers, dashes, labels, and how a figure is written."""

import warnings

import numpy as np

from minitx.base.checks import atomic

# Okabe and Ito's colours, distinguishable with any colour vision; each comes with a marker or a dash pattern of its own as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Dash patterns of lines told apart by more than colour; dotted and dash-dotted lines are kept for limits and closed forms.
DASHES = ("-", (0, (7, 2)), (0, (4, 1.5, 1, 1.5)), (0, (2, 1)), (0, (9, 2, 1, 2, 1, 2)))


def literal(text):
    """``text`` as matplotlib must be given it to draw it as it is: a dollar sign is not mathematics."""
    return text.replace("$", r"\$")


def tick_label(word):
    """A word as a tick label; a lone sign stands between angle quotes, so that it is seen."""
    return literal(word if any(map(str.isalpha, word)) else f"‹{word}›")


def save(figure, path):
    """Write ``figure`` to ``path`` (.png), completely or not at all."""
    with atomic(path, "wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a word in a script that the font lacks is drawn as boxes
        figure.savefig(file, format="png", dpi=150)


def spread(positions, gap, low, high):
    """Places for labels near ``positions``, at least ``gap`` apart and inside [low, high]: the nearest such in least squares.

    Parameters
    ----------
    positions : (R,) float
        In ascending order.
    gap, low, high : float
        If R labels do not fit, they are spaced evenly from ``low`` to ``high``, closer than ``gap``.

    Returns
    -------
    (R,) float, ascending
    """
    positions = np.asarray(positions, np.float64)
    if len(positions) < 2:
        return np.clip(positions, low, high)
    gap = min(gap, (high - low) / (len(positions) - 1))
    steps = gap * np.arange(len(positions))
    pools = []  # [mean, size]: labels that touch each other, pooled until the means ascend
    for free in positions - steps:
        pools.append([free, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, size), (before, size_before) = pools.pop(), pools.pop()
            pools.append([(mean * size + before * size_before) / (size + size_before), size + size_before])
    means, sizes = zip(*pools, strict=True)
    return np.clip(np.repeat(means, sizes), low, high - steps[-1]) + steps
