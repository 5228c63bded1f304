"""A command leaves all its files and its exit status, whatever ended it, and whether or not anybody reads on."""

import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from minitx.base.command import STATUS, Outcome, run_command
from minitx.base.console import Forecast, announce
from minitx.base.options import Options
from minitx.model.descent import Stopped


def outcome(stopped=None):
    figure = Figure()
    figure.subplots()
    figures, arrays = {"one.png": (figure, "a caption")}, {"w.npz": {"a": np.arange(3)}}
    return Outcome("A title", {"answer": 42}, figures, arrays, stopped)


def run(folder, stopped=None):
    def work(options, say):
        say("a line")
        return outcome(stopped)

    return run_command(Options(out=str(folder), seed=3), {"seed": 3}, work, ("one.png", "two.png"))


@pytest.mark.drawn
def test_everything_is_written_and_figures_of_an_earlier_run_are_not_left(tmp_path, capsys):
    (tmp_path / "two.png").write_text("of an earlier run")
    assert run(tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "w.npz", "results.json", "report.html"}
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert np.load(tmp_path / "w.npz")["a"].tolist() == [0, 1, 2]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["answer"], results["asked"], results["configuration"]["seed"]) == (42, {"seed": 3}, 3)
    page = (tmp_path / "report.html").read_text()
    assert all(text in page for text in ("A title", "a line", 'src="one.png"', "a caption"))
    assert capsys.readouterr().out.splitlines()[-1].endswith("/: one.png, report.html, w.npz, results.json")


@pytest.mark.parametrize(("kind", "status"), [("diverged", 1), ("interrupted", 130), ("no more batches", 0),
                                              ("no direction", 0), ("rounding", 0)])
def test_exit_status_is_decided_by_the_kind_and_not_by_the_words(tmp_path, kind, status):
    """A run that had nothing left to do is no failure; the files are there in every case."""
    assert run(tmp_path, Stopped(kind, 4, " ".join(STATUS))) == status
    assert json.loads((tmp_path / "results.json").read_text())["stopped"]["kind"] == kind


def test_a_reader_that_stops_reading_stops_nothing_else():
    """The lines are more than a pipe holds, and the reader takes one of them."""
    script = """
import sys
from minitx.base.console import Printer
say = Printer()
for line in range(20_000):
    say(f"line {line}")
print(len(say.lines), file=sys.stderr)
"""
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "line 0\n"
    writer.stdout.close()
    assert writer.stderr.read() == "20000\n"
    assert writer.wait() == 0
    writer.stderr.close()


def test_a_long_job_is_announced_once(monkeypatch):
    """The clock starts after step 0; after 6 seconds, two of 1,000 steps are done."""
    clock, lines = iter([100.0, 103.0, 106.0, 109.0]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    forecast = Forecast("training", 1000, lines.append)
    for step in range(4):
        forecast(step)
    assert lines == ["training will take about 50 minutes more, judged by its first 2 steps; "
                     "Ctrl-C ends it and keeps what is done"]
    announce("it", 100.0, "nothing", lines.append)
    assert len(lines) == 1
