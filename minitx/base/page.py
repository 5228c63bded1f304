"""One self-contained HTML page: text that is escaped, numbers that name their place in results.json, drawn figures.

A page is a heading and one or several parts, a theory each. Its style and its behaviour are those
of ``page.css`` and ``page.js``, files of this folder. Nothing is loaded from anywhere: figures are inline SVG, and what
is interactive has its data beside it as JSON.

- ``element``: an HTML element. ``Markup``: text that is HTML already; all other text is escaped.
- ``Found``: a part of what results.json holds; ``shown`` writes its number with its JSON pointer (RFC 6901).
- ``part``, ``text``, ``table``, ``folded``; ``headline``: the number that matters, and what it says.
- ``source``: the equation and the function of a figure; :mod:`minitx.base.svg` puts figures of matplotlib on the page.
- ``moved`` (a slider), ``heat_maps``, ``search``: what page.js moves.
- ``write``: the whole page.
"""

import html
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from minitx.base.checks import atomic

VOID = ("br", "hr", "img", "input", "meta")  # elements without an end tag
FILE = "index.html"
LONG = 24  # letters; words of a table that are longer may be broken into lines
# What a browser may load for the page: its own style and script, and pictures inside it.
NOTHING_EXTERNAL = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
SAYS = {"NaN": "undefined", "Infinity": "∞", "-Infinity": "−∞"}  # as results.json writes what is no number of JSON


class Markup(str):
    """Text that is HTML already."""


def element(name: str, /, *inside: Any, **attributes: Any) -> Markup:
    """The HTML element ``name``; what is ``inside`` is escaped unless it is :class:`Markup`.

    An attribute is written as HTML has it: ``class_`` becomes ``class``, ``data_key`` becomes ``data-key``. One that is
    None is left out, and one that is True has no value.
    """
    written = ""
    for key, value in attributes.items():
        if value is not None:
            attribute = key.rstrip("_").replace("_", "-")
            written += f" {attribute}" + ("" if value is True else f'="{html.escape(str(value))}"')
    end = "" if name in VOID else f"{joined(inside)}</{name}>"
    return Markup(f"<{name}{written}>{end}")


def joined(parts: Iterable[Any], between: str = "") -> Markup:
    """The ``parts`` one after the other, each escaped unless it is :class:`Markup`."""
    return Markup(between.join(part if isinstance(part, Markup) else html.escape(str(part)) for part in parts))


def embedded(data: Any) -> Markup:
    """``data`` as JSON inside the page; no text of it can end the element that holds it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, code)
    return Markup(f'<script type="application/json">{text}</script>')


@dataclass(frozen=True)
class Found:
    """A part of what results.json holds, ``value``, and the keys that lead to it."""

    value: Any
    path: tuple[str | int, ...] = ()

    def __getitem__(self, key: str | int) -> "Found":
        """The part under ``key``, as JSON has it: a name, or a place in a list (from the end if it is negative)."""
        if isinstance(key, int) and key < 0:
            key += len(self.value)
        return Found(self.value[key], (*self.path, key))

    def __iter__(self) -> Iterator["Found"]:
        """The parts of a list."""
        return (self[place] for place in range(len(self.value)))

    def __len__(self) -> int:
        return len(self.value)

    def __contains__(self, key: object) -> bool:
        return key in self.value

    def __bool__(self) -> bool:
        return bool(self.value)

    def items(self) -> Iterator[tuple[str, "Found"]]:
        """The parts of an object by name."""
        return ((name, self[name]) for name in self.value)

    @property
    def pointer(self) -> str:
        """The JSON pointer of this part in results.json."""
        return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in self.path)

    @property
    def number(self) -> float:
        """The number, which may be nan or infinite; nan for null."""
        return math.nan if self.value is None else float(self.value)

    def shown(self, form: str | Callable[[float], str] = ".4f") -> Markup:
        """The number in this form, in an element that holds its exact value and its JSON pointer."""
        value = self.value
        if value is None or isinstance(value, str):
            text = SAYS[value] if value else "–"
        else:
            text = form(value) if callable(form) else format(value, form)
        return element("data", text.replace("-", "−"), value="" if value is None else value, data_key=self.pointer,
                       title=f"results.json: {self.pointer}")


# -------------------------------------------------------------------------------------------------- parts of a page


def part(heading: str, *inside: Any, id_: str) -> Markup:
    """A part of the page, with its ``heading``."""
    return element("section", element("h2", heading), *inside, id=id_, class_="part")


def source(equation: str, *functions: str) -> Markup:
    """The equation of a caption, and the public functions that compute it."""
    names = joined([element("code", name, class_="function") for name in functions], ", ")
    return joined([f"{equation}: ", names, "."])


def text(*inside: Any) -> Markup:
    """A paragraph."""
    return element("p", *inside)


def headline(number: Markup, *says: Any) -> Markup:
    """The number that matters, large, and what it says."""
    return element("p", element("strong", number), element("span", *says), class_="headline")


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: Any = None,
          steps: Sequence[int] | None = None) -> Markup:
    """A table; with ``steps``, row r is that of the step ``steps[r]``, which the slider around it (``moved``) marks.

    Columns of words, without a number among them, begin at the left; lines of long ones may be broken.
    """
    rows = list(rows)
    kinds = [None if any(isinstance(cell, Markup) for cell in column) else
             "long words" if max(map(len, column)) > LONG else "words" for column in zip(*rows, strict=True)]
    body = [element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)),
                    data_step=steps[place] if steps else None) for place, row in enumerate(rows)]
    return element("div", *([element("p", caption, class_="caption")] if caption else []), element("div", element(
        "table", element("thead", element("tr", *(element("th", head, scope="col", class_=kind) for head, kind in
                                                  zip(heads, kinds or [None] * len(heads), strict=True)))),
        element("tbody", *body)), class_="scroll", tabindex="0"), class_="table")


def moved(steps: Sequence[int], *inside: Any, start: int | None = None) -> Markup:
    """A slider over the recorded ``steps``, and the heat maps and tables ``inside`` that it moves.

    It starts at the place ``start`` in ``steps``; by default at the last.
    """
    last, what = len(steps) - 1, "step of training"
    place = last if start is None else start
    slider = element("div", element("label", f"{what} ", element("output", f"{steps[place]:,}")),
                     element("input", type="range", min=0, max=last, value=place, step=1, aria_label=what),
                     embedded([int(step) for step in steps]), class_="slider")
    return element("div", slider, *inside, class_="moved")


def heat_maps(maps: Mapping[str, Sequence[tuple[str, Found]]], words: Found, axes: Mapping[str, tuple[str, str]],
              caption: Any, *, steady: bool = False) -> Markup:
    """Heat maps between ``words``, of which one group is shown at a time; page.js draws them.

    ``maps`` is {group: [(title, found)]}, in which ``found`` is a matrix, or a list of one for each place of the slider
    around it (``moved``); ``axes`` is {group: (what a row is, what a column is)}. Colours are logarithmic, and each
    matrix has a scale of its own; where they are ``steady``, colours are linear, with one scale for a whole group.
    """
    data = {"words": words.value, "steady": steady, "groups": [
        {"name": name, "row": axes[name][0], "column": axes[name][1],
         "maps": [{"title": title, "key": found.pointer, "values": found.value} for title, found in group]}
        for name, group in maps.items()]}
    return element("figure", element("div", class_="maps"), embedded(data), element("figcaption", caption),
                   class_="heat")


def search(words: Found, nearest: Found, explained: Mapping[str, str], first: str) -> Markup:
    """A search box over ``words``; of the word that is chosen, its ``nearest`` ones under each function, with bars.

    ``nearest`` is {function: {"tokens": a list of places in ``words`` for each word, "scores": their scores}}, and
    ``explained`` {function: what its bars say}; ``first`` is the word that is shown first.
    """
    data = {"words": words.value, "first": first, "explained": dict(explained),
            "nearest": {name: {"key": found.pointer, **found.value} for name, found in nearest.items()}}
    box = element("input", type="search", placeholder="type a word", aria_label="a word of the vocabulary",
                  autocomplete="off", spellcheck="false")
    return element("div", element("label", "word ", box), element("div", class_="matches", role="group",
                   aria_label="words that begin so"), element("p", class_="says", aria_live="polite"),
                   element("div", class_="associates"), embedded(data), class_="search")


def folded(summary: str, *inside: Any) -> Markup:
    """What is ``inside`` is shown when the ``summary`` is clicked."""
    return element("details", element("summary", summary), *inside)


def write(path: str | Path, title: str, inside: Iterable[Any]) -> None:
    """Write the page, completely or not at all; what it looks like and does is in page.css and page.js."""
    files = resources.files("minitx.base")
    style, behaviour = ((files / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    head = joined([element("meta", charset="utf-8"),
                   element("meta", http_equiv="Content-Security-Policy", content=NOTHING_EXTERNAL),
                   element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                   element("title", title), Markup(f"<style>\n{style}</style>")], "\n")
    body = element("body", element("main", element("h1", title), *inside), Markup(f"\n<script>\n{behaviour}</script>"))
    with atomic(path) as file:
        file.write(f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n{body}\n</html>\n')


Builder = Callable[[Found, Callable[..., Markup]], Iterable[Any]]  # (results, minitx.base.svg.figures): what is inside
