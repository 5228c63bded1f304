"""A command leaves all its files and its exit status, whatever ended it, and whether or not anybody reads on."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from numba.core.event import Event, EventStatus, broadcast

from minitx.base import compiling, parallel
from minitx.base.command import STATUS, Outcome, run_command
from minitx.base.console import Forecast, announce
from minitx.base.options import Options
from minitx.model.descent import Stopped


def outcome(stopped=None):
    figure = Figure()
    figure.subplots()
    figures, arrays = {"one.png": (figure, "a caption")}, {"w.npz": {"a": np.arange(3)}}
    return Outcome("A title", {"answer": 42}, figures, arrays, found="The answer is 42.", stopped=stopped)


def run(folder, stopped=None):
    def work(options, say):
        say("a line")
        return outcome(stopped)

    return run_command(Options(out=str(folder), seed=3), {"seed": 3}, work, ("one.png", "two.png", "weights-2.npz"))


@pytest.mark.drawn
def test_everything_is_written_and_figures_of_an_earlier_run_are_not_left(tmp_path, capsys):
    for name in ("two.png", "weights.npz", "weights-2.npz"):
        (tmp_path / name).write_text("of an earlier run")
    assert run(tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "w.npz", "results.json", "index.html"}
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert np.load(tmp_path / "w.npz")["a"].tolist() == [0, 1, 2]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["answer"], results["asked"], results["configuration"]["seed"]) == (42, {"seed": 3}, 3)
    page = (tmp_path / "index.html").read_text()
    assert all(text in page for text in ("A title", "<svg", "a caption"))
    assert "a line" not in page  # it is no copy of what was printed
    *_, files, found = capsys.readouterr().out.splitlines()
    assert files.endswith("/: one.png, index.html, w.npz, results.json")
    assert found == f"The answer is 42. Open {tmp_path / 'index.html'} in a browser."


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
from pathlib import Path
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
    """The clock starts after step 0; after 6 seconds, two of 100 steps are done."""
    clock, lines = iter([100.0, 103.0, 106.0, 109.0]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    forecast = Forecast("training", 100, lines.append)
    for step in range(4):
        forecast(step)
    assert lines == ["training will take about 5 minutes more, judged by its first 2 steps; "
                     "Ctrl-C ends it and keeps what is done"]
    announce("it", 100.0, "nothing", lines.append)
    assert len(lines) == 1


def test_steps_that_compile_kernels_make_no_job_long(monkeypatch):
    """Steps that compile kernels do not count: they would make half a minute of training look like three minutes."""
    clock, lines = iter([100.0, 103.0, 103.5, 106.0]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    forecast = Forecast("training", 100, lines.append)
    for step in range(5):
        forecast(step)
    assert lines == []


def test_a_first_step_that_compiles_kernels_makes_no_job_long(monkeypatch):
    """A stranger's first command once said "about 28 minutes more", judged by a step that was spent on compiling."""
    seconds, lines = [100.0], []
    monkeypatch.setattr("time.perf_counter", lambda: seconds[0])
    with compiling.told():
        forecast = Forecast("training", 100, lines.append)
        forecast(0)
        for kind, later in ((EventStatus.START, 1.0), (EventStatus.START, 5.0), (EventStatus.END, 10.0),
                            (EventStatus.END, 0.2)):  # a kernel that calls one
            broadcast(Event("numba:compile", kind, data={"dispatcher": SimpleNamespace(py_func=outcome)}))
            seconds[0] += later
        forecast(1)  # .2 seconds of work, after 16 of compiling
        assert lines == []
        seconds[0] += 7.0
        forecast(2)
        assert lines == []  # it is judged by its shortest step


def test_a_very_long_job_is_announced_after_its_first_step(monkeypatch):
    """The line names the option that makes the job shorter."""
    clock, lines = iter([100.0, 100.01]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    forecast = Forecast("training", 2_000_000, lines.append, "a smaller --steps is quicker")
    for step in range(3):
        forecast(step)
    assert lines == ["training will take about 6 hours more, judged by its first step; Ctrl-C ends it and keeps what "
                     "is done; a smaller --steps is quicker"]


def test_more_threads_than_cores_are_not_used_and_that_is_said(tmp_path, capsys):
    cores = parallel.get_threads()
    seen = []

    def work(options, say):
        seen.append(parallel.get_threads())
        return outcome()

    try:
        run_command(Options(out=str(tmp_path), threads=10_000), {}, work, ())
    finally:
        parallel.set_threads(None)
    assert seen == [cores]
    assert f"--threads 10,000: {cores} threads are used" in capsys.readouterr().out


def test_a_run_that_is_refused_leaves_no_folder(tmp_path):
    def work(options, say):
        raise ValueError("n_vocab is 3, and unknown='omit' with batch_size=2 does not help")

    with pytest.raises(ValueError, match="n_vocab"):
        run_command(Options(out=str(tmp_path / "new" / "folder")), {}, work, ())
    assert list(tmp_path.iterdir()) == []
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(ValueError, match="n_vocab"):
        run_command(Options(out=str(kept)), {}, work, ())
    assert kept.exists()


def test_what_a_killed_run_left_is_deleted_and_its_page_does_not_stay(tmp_path):
    """Files in the folder that are not ours stay."""
    for name in (".one.png.12345", ".results.json.77", ".w.npz.3", ".index.html.4", "mine.png", ".mine.5"):
        (tmp_path / name).write_text("left")
    run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "w.npz", "results.json", "index.html", "mine.png",
                                                          ".mine.5"}


def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """A full disk fails in the middle of a file."""
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"cannot write .*w[.]npz: No space left on device"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM on Windows")
def test_a_run_that_is_terminated_writes_what_was_recorded(tmp_path):
    script = """
import os, signal, sys
from minitx import cli
from minitx.associations import command
from minitx.base import page, style, svg
style.save = lambda figure, path: path.write_bytes(b"")  # this test is not about figures
svg.drawn = lambda figure, name: page.element("svg", id=name)
whole = command.Recorder.__call__
def recorder(self, step, loss, weights, gradient):
    whole(self, step, loss, weights, gradient)
    if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
command.Recorder.__call__ = recorder
sys.exit(cli.main(["associate", "--quick", "--vocabulary", "20", "--windows", "4", "--out", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 130
    assert "interrupted" in done.stdout
    assert json.loads((tmp_path / "results.json").read_text())["stopped"]["kind"] == "interrupted"


# A site that sends a signal when a module is about to be imported, for the first time; with "swallowed", the import
# ends with an ImportError instead, as the imports of compiled packages do.
SITE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores SIGINT
name, number, swallowed = os.environ["INTERRUPTED"].split()
class Finder:
    def find_spec(self, found, path=None, target=None):
        if found == name:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), int(number))
            except KeyboardInterrupt:
                if swallowed == "swallowed":
                    raise ImportError("import failed")
                raise
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("swallowed", ["raised", "swallowed"])
@pytest.mark.parametrize("module", ["numpy", *(pytest.param(name, marks=pytest.mark.slow) for name in (
    "minitx.base.options", "minitx.associations.command", "numba", "matplotlib.figure"))])
def test_a_run_that_is_interrupted_while_it_imports_ends_in_one_line(module, swallowed, number, tmp_path):
    assert_told_in_one_line(module, swallowed, number, tmp_path)


def test_ctrl_c_before_the_command_line_is_read_is_told_in_one_line(tmp_path):
    """The first module of the standard library that minitx.cli imports."""
    assert_told_in_one_line("argparse", "raised", signal.SIGINT, tmp_path)


def assert_told_in_one_line(module, swallowed, number, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]),
                                "INTERRUPTED": f"{module} {int(number)} {swallowed}"}
    done = subprocess.run([sys.executable, "-m", "minitx", "associate", "--quick", "--out", tmp_path / "out"],
                          capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (130, "minitx: interrupted\n")
    assert not (tmp_path / "out").exists()


KEPT = """
import resource
import sys
import numpy as np
from minitx import cli

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones((600, 600)) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

sys.argv = ["minitx", "nothing"]
cli.main()  # any command does it, even a wrong one
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the C library of GNU is told to keep memory")
def test_memory_of_arrays_stays_with_a_command():
    """16 arrays of 2.9 MB have 11,250 pages, which the system need not hand out twice."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500
