"""What holds for every page and every results.json that a command writes; tests of commands call these functions."""

import inspect
import json
import math
import re
from decimal import Decimal
from html.parser import HTMLParser
from importlib import import_module

from minitx.base import report

VOID = {"br", "hr", "img", "input", "meta"}
REFERENCES = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
UNSEEN = {"script", "style", "svg", "pre", "data", "code", "title"}  # elements whose text is not prose


class Page(HTMLParser):
    """The elements of a page: each start tag has its end tag, every id is given once."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.references, self.prose, self.tags = [], [], [], [], []
        self.numbers, self.functions, self.data = [], [], []  # (attributes, text), names, {class of the parent: JSON}
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} have no end tag"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.references += [found[name] for name in REFERENCES if name in found]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for value in found.values()))
        if tag not in VOID:
            self.open.append((tag, found))
        self.text = ""

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        started, found = self.open.pop()
        assert started == tag, f"<{started}> is ended by </{tag}>"
        if tag == "data":
            self.numbers.append((found, self.text))
        if found.get("class") == "function":
            self.functions.append(self.text)
        if found.get("type") == "application/json":
            self.data.append((self.open[-1][1]["class"], json.loads(self.text)))

    def handle_data(self, text):
        self.text += text
        if not UNSEEN & {tag for tag, _ in self.open}:
            self.prose.append(text)


def check(folder):
    """The page parses, loads nothing, and shows numbers of results.json only, each with its place there."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    page, results = Page(text), json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith(("#", "data:image/")) for reference in page.references), page.references
    assert "default-src" in text and "@import" not in text
    strings = " ".join(_leaves(results, str))
    for number in re.findall(r"\d+\.\d{2,}", " ".join(page.prose)):  # what is not in an element of its own
        assert number in strings, number
    assert page.numbers
    for attributes, shown in page.numbers:
        _check_number(at(results, attributes["data-key"]), attributes["value"], shown)
    for kind, data in page.data:
        _check_data(results, kind, data)
    for name in page.functions:
        assert callable(function(name)), name
    return page


def check_keys(results, *makers):
    """Every key at the top of results.json is documented by a function that makes it, or by the one that writes all."""
    accounts = " ".join(inspect.getdoc(maker) for maker in (*makers, report.write_json))
    assert not results.keys() - set(re.findall(r"``([^`]+)``", re.sub(r"\s+", " ", accounts)))


def at(results, pointer):
    """What a JSON pointer leads to."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        results = results[int(key) if isinstance(results, list) else key]
    return results


def function(name):
    """The public object with this name."""
    module = name.split(".")
    found = import_module(module[0])
    for part in module[1:]:
        found = getattr(found, part)
    return found


def _leaves(value, kind):
    if isinstance(value, dict):
        return [leaf for item in value.items() for part in item for leaf in _leaves(part, kind)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item, kind)]
    return [value] if isinstance(value, kind) and not isinstance(value, bool) else []


def _check_number(value, given, shown):
    """The element holds the value of results.json, and shows it rounded."""
    assert given == ("" if value is None else str(value))
    if isinstance(value, str) or value is None:
        assert shown in ("undefined", "∞", "−∞", "–")
    elif shown.startswith("<"):
        assert value < float(shown[1:].replace("−", "-"))
    else:
        written = shown.replace("−", "-").replace(",", "")
        number = Decimal(written.rstrip("%")).scaleb(-2 if written.endswith("%") else 0)
        unit = Decimal(1).scaleb(number.as_tuple().exponent)
        assert abs(number - Decimal(value)) <= unit * Decimal("0.500001"), (value, shown)


def _check_data(results, kind, data):
    if kind == "slider":
        assert set(data) <= set(_leaves(results, int))
    elif kind == "heat":
        for one in (one for group in data["groups"] for one in group["maps"]):
            assert at(results, one["key"]) == one["values"]
            assert all(math.isfinite(value) for value in _leaves(one["values"], float))
    elif kind == "search":
        for one in data["nearest"].values():
            assert at(results, one["key"]) == {"tokens": one["tokens"], "scores": one["scores"]}
    else:
        assert kind == "drawing"
        kept = {(one["label"], x, y) for figures in _curves(results) for curves in figures.values() for one in curves
                for x, y in zip(one["x"], one["y"], strict=True)}
        assert {(one["label"], x, y) for one in data for _, _, x, y in one["points"]} <= kept


def _curves(results):
    """What the curves of the page's parts show: of a command, or of each theory of ``minitx report``."""
    return [part["curves"] for part in (results, *results.values()) if isinstance(part, dict) and "curves" in part]
