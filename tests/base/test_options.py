"""A dataclass of options is a command line: typed names, defaults, bounds, and what --quick makes of it."""

import argparse
from dataclasses import dataclass

import pytest

from minitx.base.options import Options, add_options, option, read_options
from minitx.base.tables import Table, number, table


@dataclass(frozen=True, kw_only=True)
class Small(Options):
    text: str | None = option(None, "a text", positional=True, metavar="TEXT")
    steps: int = option(100, "steps of training", least=1, quick=5)
    windows: int | None = option(None, "at most so many windows", least=1, quick=64)
    learning_rate: float = option(0.5, "learning rate", above_zero=True, below=1e60)
    head: str = option("log", "the loss", choices=("log", "squared"))
    share: float = option(0.1, "a share of 100% of the words", is_probability=True)
    stop_words: bool = option(True, "leave out stop words")


@dataclass(frozen=True, kw_only=True)
class Other(Options):
    steps: int = option(800, "steps of training", least=1)
    width: int = option(3, "dimensions", least=1)


def typed(*words, kinds=None):
    parser = argparse.ArgumentParser(prog="x")
    add_options(parser, kinds or {"options": Small})
    return vars(parser.parse_args(words))


def test_what_is_not_typed_has_its_default_and_what_is_typed_its_type():
    assert typed() == {}
    assert read_options(Small, typed()) == Small()
    words = "a.txt --steps 7 --learning-rate 2 --no-stop-words --threads 2".split()
    found = read_options(Small, typed(*words))
    assert (found.text, found.steps, found.learning_rate) == ("a.txt", 7, 2.0)
    assert (found.stop_words, found.threads) == (False, 2)


def test_quick_lowers_what_was_not_typed_and_nothing_else():
    found = read_options(Small, typed("--quick"))
    assert (found.steps, found.windows, found.learning_rate) == (5, 64, 0.5)
    found = read_options(Small, typed("--quick", "--steps", "50"))
    assert (found.steps, found.windows) == (50, 64)


@pytest.mark.parametrize(("name", "value", "says"), [
    ("steps", 0, "--steps is 0; it must be a whole number, at least 1"),
    ("learning_rate", -1.0, "--learning-rate is -1.0; it must be a number above 0"),
    ("learning_rate", 1e60, "--learning-rate is 1e[+]60; .*below 1e[+]60"),
    ("head", "tied", "--head is 'tied'; it must be one of log, squared"),
    ("share", 1.5, "--share is 1.5; it must be a probability"),
    ("threads", 0, "--threads is 0; it must be a whole number, at least 1"),
    ("out", "", "--out is empty"),
])
def test_values_that_cannot_be(name, value, says):
    with pytest.raises(ValueError, match=says):
        Small(**{name: value})


def test_help_shows_defaults_and_what_two_modes_share():
    parser = argparse.ArgumentParser(prog="x")
    add_options(parser, {"options without a TEXT": Small, "options with a TEXT": Other})
    text = " ".join(parser.format_help().split())
    assert ("steps of training (default: 100, with --quick 5); with a TEXT: steps of training (default: 800). A whole "
            "number, at least 1. Example: --steps 200" in text)
    assert "a share of 100% of the words" in text
    assert text.count("--threads N") == 2  # once in the usage, once explained
    assert text.index("options of every mode") < text.index("--steps", text.index("options of every mode"))


def test_tables_align_and_numbers_are_read_at_a_glance():
    found = table(["name ", "value"], [["a", "1"], ["long name", "10.5"]])
    assert found.split("\n") == ["name       value", "a              1", "long name   10.5"]
    rows = Table(["step", "loss"], [5, 8])
    assert rows.header() == " step      loss"
    assert rows.row(["1", number(2.5)]) == "    1    2.5000"
    assert [number(None), number(float("nan")), number(12345.6)] == ["-", "undefined", "1.23e+04"]
    assert number(0.5, 2) == "0.50"
