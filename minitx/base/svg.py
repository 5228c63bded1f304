"""Figures of matplotlib inside a page: SVG that follows the page's colours and width, and the values of its curves."""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.transforms import Bbox

from minitx.base import style
from minitx.base.page import Markup, element, embedded
from minitx.base.parallel import in_processes

POINTS = 72  # points, which are the units of an SVG of matplotlib, in an inch
PIXELS = 96 / 72  # of a screen, in a point
LEAST = 0.85  # pixels a point may shrink to; a figure that would become smaller is moved sideways
MOST_POINTS = 400  # of a curve that show their values
# Colours of the page stand in for black, white and two greys, so that figures are legible on a dark page.
INKS = {"#000000": "currentColor", "#ffffff": "var(--paper)", "#404040": "var(--dark)", "#d9d9d9": "var(--pale)"}


def curves(figure: Any) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """(axes, line, the places of its points that have a value) of every line of a figure that has a label."""
    for axes in figure.axes:
        for line in axes.lines:
            if not str(line.get_label()).startswith("_") and line.get_visible():
                x, y = (np.asarray(values, np.float64) for values in line.get_data(orig=False))
                with np.errstate(invalid="ignore"):
                    kept = np.isfinite(x) & np.isfinite(y)
                    kept &= (x > 0) | (axes.get_xscale() != "log")
                    kept &= (y > 0) | (axes.get_yscale() != "log")
                places = np.flatnonzero(kept)
                yield axes, line, places[::max(1, -(-len(places) // MOST_POINTS))]


def figures(made: Mapping[str, tuple[Any, str]], prefix: str = "figure", *,
            folder: Path | None = None) -> Callable[..., Markup]:
    """``draw(name, *source)``: the figure ``name`` of those that were ``made``, {name: (figure, caption)}.

    All are drawn at once, on all cores; with a ``folder``, each is also written there, as the PNG ``name``. The caption
    is followed by its ``source``, the equation and the function. A name that was not made gives nothing, because a run
    that ended early has fewer figures. The ``prefix`` tells the figures of several parts apart.
    """
    places = {name: f"{prefix}-{number}" for number, name in enumerate(made)}

    def one(name):
        figure, _ = made[name]
        if folder is not None:
            style.save(figure, folder / name)
        return drawn(figure, places[name])

    drawings = dict(zip(made, in_processes(one, list(made)), strict=True))

    def draw(name: str, *source: Any) -> Markup:
        if name not in made:
            return Markup("")
        return element("figure", drawings[name], element("figcaption", made[name][1], *(
            [element("span", *source, class_="source")] if source else [])), id=places[name])

    return draw


def values(made: Mapping[str, tuple[Any, str]]) -> dict[str, list[dict[str, Any]]]:
    """What the curves of figures show under the pointer, for results.json: {name: [{label, x, y}]}, as words."""
    return {name: [{"label": str(line.get_label()), **_words(axes, line, places)}
                   for axes, line, places in curves(figure)] for name, (figure, _) in made.items()}


def _words(axes, line, places):
    """The coordinates of points as words: as the ``fmt_xdata`` and ``fmt_ydata`` of the axes say, or with four digits.
    """
    x, y = (np.asarray(values, np.float64)[places] for values in line.get_data())
    return {name: [(form or "{:.4g}".format)(value) for value in values.tolist()]
            for name, values, form in (("x", x, axes.fmt_xdata), ("y", y, axes.fmt_ydata))}


def drawn(figure: Any, name: str) -> Markup:
    """The figure as SVG, its panels one by one for a narrow screen, and the places and values of its curves.

    ``name`` tells the figures of a page apart.
    """
    style.lay_out(figure)
    written = io.StringIO()
    with rc_context({"svg.hashsalt": "minitx", "svg.fonttype": "path"}):
        figure.set_dpi(POINTS)
        figure.savefig(written, format="svg", dpi=POINTS, metadata={"Date": None, "Creator": None})
    width, height = figure.get_size_inches() * POINTS
    inside, root = _inline(written.getvalue(), name)
    crops = [element("div", element("svg", Markup(f'<use href="#{root}"/>'), viewBox=" ".join(
        f"{edge:.1f}" for edge in box), **_sizes(box[2])), class_="crop") for box in _panels(figure, height)]
    whole = element("svg", inside, viewBox=f"0 0 {width:g} {height:g}", role="img", **_sizes(width))
    return element("div", element("div", whole, class_="whole" if crops else "whole only"),
                   *([element("div", *crops, class_="crops")] if crops else []),
                   embedded(_places(figure, height)), class_="drawing")


def _sizes(width):
    return {"style": f"max-width: {width * PIXELS:.0f}px; min-width: {min(width * LEAST, 900):.0f}px"}


def _inline(svg, name):
    """What is inside of the <svg>, with ids that no other figure has, and the id of the whole drawing."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg,
                 flags=re.DOTALL)
    svg = re.sub(r"^\s*<svg[^>]*>|</svg>\s*$", "", svg).replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) | {"figure_1"}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    for colour, ink in INKS.items():
        svg = svg.replace(colour, ink)
    return Markup(re.sub(r"\n\s*", "\n", svg)), f"{name}-figure_1"


def _panels(figure, height):
    """(left, top, width, height) of every panel with its colour bar, and of every legend; none of a single panel."""
    bars = [axes for axes in figure.axes if hasattr(axes, "_colorbar")]
    panels = [axes for axes in figure.axes if axes not in bars and (axes.has_data() or axes.texts or axes.patches)]
    if len(panels) < 2:
        return []
    boxes = {axes: axes.get_tightbbox() for axes in panels}
    for bar in bars:
        panel = getattr(bar._colorbar.mappable, "axes", None)
        if panel in boxes and bar.get_position().height < 1.3 * panel.get_position().height:  # a bar of one panel
            boxes[panel] = Bbox.union([boxes[panel], bar.get_tightbbox()])
        else:
            boxes[bar] = bar.get_tightbbox()
    found = [*boxes.values(), *(legend.get_tightbbox() for legend in figure.legends)]
    return [(box.x0 - 3, height - box.y1 - 3, box.width + 6, box.height + 6) for box in found]


def _places(figure, height):
    """Of every curve its label, the values of its points as words, and where they are in the SVG."""
    found = []
    for axes, line, places in curves(figure):
        points = np.column_stack([np.asarray(values, np.float64)[places] for values in line.get_data()])
        at = axes.transData.transform(points)
        says, inside = _words(axes, line, places), axes.bbox.padded(1)
        shown = [(round(float(px), 1), round(float(height - py), 1), x, y)
                 for (px, py), x, y in zip(at, says["x"], says["y"], strict=True) if inside.contains(px, py)]
        box = [round(float(v), 1) for v in (axes.bbox.x0, height - axes.bbox.y1, axes.bbox.x1, height - axes.bbox.y0)]
        if shown:
            found.append({"label": line.get_label(), "panel": box, "points": shown})
    return found
