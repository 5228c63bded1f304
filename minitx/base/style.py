"""What all figures share: colours, markers, dashes, labels, and how a figure is written."""

import functools
import math
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import atomic

# Okabe and Ito's colours, which can be told apart with any colour vision; each is used with its own marker or dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Dash patterns of trained quantities; dotted and dash-dotted lines stand for limits and closed forms.
DASHES = ("-", (0, (7, 2)), (0, (4, 1.5, 1, 1.5)), (0, (2, 1)), (0, (9, 2, 1, 2, 1, 2)))


DPI = 150  # pixels in an inch of a PNG

# Fonts with Chinese, Japanese and Korean letters, which matplotlib's own font lacks; the first one installed is used.
MORE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC",
              "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "Arial Unicode MS")


@functools.cache
def fonts() -> tuple[str, ...]:
    """The names of the fonts of figures: matplotlib's own, and one with more letters if there is one."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *[name for name in MORE_FONTS if name in installed][:1])


@functools.cache
def _letters():
    """The code points that can be drawn."""
    found: set[int] = set()
    for name in fonts():
        found |= set(font_manager.get_font(font_manager.findfont(name)).get_charmap())
    return frozenset(found)


def literal(text: str) -> str:
    r"""``text`` in the form in which matplotlib draws it as it is, without reading dollar signs as mathematics.

    A letter that no installed font has is written in its escaped form, such as \u4e2d, and is never drawn as a box.
    """
    drawn = (letter if ord(letter) in _letters() else letter.encode("ascii", "backslashreplace").decode()
             for letter in text)
    return "".join(drawn).replace("$", r"\$")


def tick_label(word: str, *, named: bool = False) -> str:
    """A word as a tick label; a word without letters stands between angle quotes, so that it is seen.

    A sign that is ``named`` has its name beside it: ‹.› full stop.
    """
    if any(map(str.isalpha, word)):
        return literal(word)
    name = f" {unicodedata.name(word, '').lower()}" if named and len(word) == 1 else ""
    return literal(f"‹{word}›{name}")


def log_ticks(axis: Any) -> None:
    """Ticks at 1, 2 and 5 times powers of ten on a short logarithmic axis, and at powers of ten alone on a long one.

    Matplotlib labels every minor tick of an axis of about one decade, one label over the other, and draws eight minor
    ticks for each decade of a long one. Its labels of powers are formulas, which take as long as all else in a figure.
    """
    low, high = axis.get_view_interval()
    short = 0 < low < high <= 300 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
    axis.set_minor_formatter(NullFormatter())
    if not short:
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: power_of_ten(value))
        setattr(axis.axes, f"fmt_{axis.axis_name}data", "{:.4g}".format)  # values under the pointer are no powers


def power_of_ten(value: float) -> str:
    """A power of ten as text: 10⁻³."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def lay_out(figure: Any) -> None:
    """Place the panels of ``figure`` for good: its layout takes longer than its drawing, and it is drawn twice."""
    if (engine := figure.get_layout_engine()) is not None:
        figure.set_dpi(DPI)  # so that texts are measured once, here and where the PNG is drawn
        engine.execute(figure)
        figure.set_layout_engine(None)


def save(figure: Any, path: str | Path) -> None:
    """Write ``figure`` to ``path`` (.png), completely or not at all."""
    lay_out(figure)
    with atomic(path, "wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # boxes stand for letters that the font lacks
        # the smallest file would be a tenth smaller and take twice as long
        figure.savefig(file, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})


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
