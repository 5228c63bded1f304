"""What all figures share: colours, markers, dashes, labels, and how a figure is written."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import atomic

# Okabe and Ito's colours, which can be told apart with any colour vision; each is used with its own marker or dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Dash patterns of trained quantities; dotted and dash-dotted lines stand for limits and closed forms.
DASHES = ("-", (0, (7, 2)), (0, (4, 1.5, 1, 1.5)), (0, (2, 1)), (0, (9, 2, 1, 2, 1, 2)))


def literal(text: str) -> str:
    """``text`` in the form in which matplotlib draws it as it is, without reading dollar signs as mathematics."""
    return text.replace("$", r"\$")


def tick_label(word: str) -> str:
    """A word as a tick label; a word without letters stands between angle quotes, so that it is seen."""
    return literal(word if any(map(str.isalpha, word)) else f"‹{word}›")


def save(figure: Any, path: str | Path) -> None:
    """Write ``figure`` to ``path`` (.png), completely or not at all."""
    with atomic(path, "wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # boxes stand for letters that the font lacks
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)  # otherwise savefig would lay out and draw the figure a second time
        figure.savefig(file, format="png", dpi=150)


def spread(positions: ArrayLike, gap: float, low: float, high: float) -> NDArray[np.float64]:
    """The places of labels that are nearest to ``positions`` in least squares, at least ``gap`` apart, in [low, high].

    Both the positions, (R,), and the places, (R,), ascend. Labels that do not fit are spaced evenly from ``low`` to
    ``high``, closer than ``gap``.
    """
    from scipy.optimize import isotonic_regression  # few figures need it, and importing it takes long

    positions = np.asarray(positions, np.float64)
    if len(positions) < 2:
        return np.clip(positions, low, high)
    gap = min(gap, (high - low) / (len(positions) - 1))
    steps = gap * np.arange(len(positions))
    return np.clip(isotonic_regression(positions - steps).x, low, high - steps[-1]) + steps
