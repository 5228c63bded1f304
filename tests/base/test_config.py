"""Options from a file repeat a run to the same bits; programs read results, and comparisons decide the exit status."""

import json

import numpy as np
import pytest

from minitx import cli
from minitx.base import console
from minitx.base.command import Outcome, run_command
from minitx.base.console import Log, progress, progress_bar
from minitx.base.options import Options

pytestmark = pytest.mark.undrawn

TOML = """
command = "associate"  # which may be left out
vocabulary = 9
length = 4
windows = 6
steps = 3
learning-rate = 0.5
init = "gaussian"
quick = false
"""
TYPED = ["--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "3", "--learning-rate", "0.5", "--init",
         "gaussian"]


def results_of(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("without_figures")
def test_a_toml_file_and_the_results_of_a_run_repeat_it_to_the_same_bits(tmp_path, capsys):
    """Options that are typed take precedence over those of the file, which are kept as the options asked for."""
    text, file = tmp_path / "a text.txt", tmp_path / "options.toml"
    text.write_text("a fish saw a bird and a cat " * 20)
    file.write_text(TOML + f"text = {json.dumps(str(text))}\n")
    assert cli.main(["associate", str(text), *TYPED, "--out", str(tmp_path / "typed")]) == 0
    whole = results_of(tmp_path / "typed")
    for name, config in (("toml", file), ("json", tmp_path / "toml" / "results.json")):
        folder = tmp_path / name
        assert cli.main(["associate", "--config", str(config), "--out", str(folder)]) == 0
        found = results_of(folder)
        for key in whole.keys() - {"asked", "configuration"}:
            assert found[key] == whole[key], key
        assert found["asked"] == whole["asked"] | {"out": str(folder)}
        for array, other in zip(*(np.load(one / "weights.npz").values() for one in (folder, tmp_path / "typed")),
                                strict=True):
            assert array.tobytes() == other.tobytes()
    capsys.readouterr()
    assert cli.main(["associate", "--config", str(file), "--steps", "2", "--out", str(tmp_path / "toml")]) == 2
    assert "its steps is 3, and now it is 2" in capsys.readouterr().err
    text.write_text("another text " * 20)
    assert cli.main(["associate", "--config", str(tmp_path / "typed" / "results.json")]) == 2
    assert "is not what that run has read; type the TEXT that is to be read" in capsys.readouterr().err


@pytest.mark.slow
def test_json_is_all_that_stdout_has_and_check_decides_the_exit_status(tmp_path, capsys):
    words = ["associate", *TYPED, "--out", str(tmp_path / "run")]
    assert cli.main([*words, "--json", "--check", "1e-5"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == results_of(tmp_path / "run")
    assert "vocabulary  9 words" in said.err
    assert "--check 1e-05: 5 of 5 comparisons are within it\n" in said.err
    assert cli.main([*words, "--check", "1e-12"]) == 1
    assert "outside: loss after 3 steps: trained 1.9" in capsys.readouterr().out


@pytest.mark.parametrize(("comparisons", "status"), [
    ({"a": (1.0, 1.01)}, 0), ({"a": (1.0, 1.1)}, 1), ({"a": (1.0, 1.0), "b": (float("nan"), 1.0)}, 1),
    ({"a": (1.0, float("nan"))}, 1), ({"a": (0.0, 0.0)}, 1), ({}, 1)])
def test_what_cannot_be_compared_is_not_within_check(comparisons, status, tmp_path):
    """A relative error of a prediction of 0, or of a theory that has ended, is none that a check could confirm."""
    class Checked(Options):
        check = 0.02

    def run(options, say):
        return Outcome("A title", {}, comparisons=comparisons)

    assert run_command(Checked(out=str(tmp_path)), {}, run, ()) == status
    assert set(results_of(tmp_path)["comparisons"]) == set(comparisons)


def test_json_is_what_results_json_holds(tmp_path, capsys):
    def run(options, say):
        say("a line")
        return Outcome("A title", {"answer": 42})

    assert run_command(Options(out=str(tmp_path), json=True), {}, run, ()) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == results_of(tmp_path)
    assert said.err.startswith("a line\n\nwritten to ")


@pytest.mark.slow
def test_topics_and_automaton_have_comparisons(tmp_path):
    small = ["--topics", "3", "--words", "2", "--documents", "40", "--length", "8"]
    assert cli.main(["topics", "--quick", *small, "--out", str(tmp_path / "t"), "--check", "1e-9"]) == 1
    assert {"rho", "value matrix, same word"} <= results_of(tmp_path / "t")["comparisons"].keys()
    assert cli.main(["automaton", "--steps", "30", "--contexts", "20", "--out", str(tmp_path / "a"), "--check",
                     "1"]) == 0
    assert len(results_of(tmp_path / "a")["comparisons"]) == 3


def test_progress_in_a_log_is_a_line_a_minute_with_the_time_left(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(console.compiling, "clock", lambda: clock[0])
    with progress("training", 100, print, title="stage 1") as show:
        for step in range(40, 100):  # a run that goes on
            show(step)
            clock[0] += 25
    lines = capsys.readouterr().err.split("\n")
    assert lines[:2] == ["minitx: stage 1: 43% done, about 24 minutes left",
                         "minitx: stage 1: 46% done, about 22 minutes left"]
    assert len(lines) == 20


def test_a_bar_without_a_total_says_nothing(capsys):
    bar = Log(None, None)
    with bar:
        for _ in range(3):
            bar.update()
    assert capsys.readouterr().err == ""


def test_a_log_gives_the_items_that_it_counts():
    """What takes the place of a bar, where there is no terminal, can be iterated over as the bar can."""
    bar = progress_bar(iterable=["a", "b"], unit="law")
    assert list(bar) == ["a", "b"] and (bar.n, bar.total) == (2, 2)
    assert list(progress_bar(iterable=iter("abc"), total=3)) == ["a", "b", "c"]
