"""``--resume`` goes on with a run that was killed, to the results of a run without a stop, and says where it cannot."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minitx import cli
from minitx.base import checkpoint as base_checkpoint
from minitx.base.checkpoint import Checkpoint, Part
from minitx.model.descent import Trajectory

pytestmark = pytest.mark.undrawn

JOBS = {
    "associate": ["associate", "--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "7"],
    "associate, 2 layers": ["associate", "--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "5",
                            "--layers", "2", "--init", "gaussian"],
    "associate, mini-batches": ["associate", "--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "5",
                                "--batch-size", "2"],
    "topics": ["topics", "--quick", "--topics", "3", "--words", "2", "--documents", "40", "--length", "8"],
    "automaton": ["automaton", "--steps", "12", "--contexts", "5"],
    "automaton, a text": ["automaton", "TEXT", "--vocabulary", "12", "--length", "6", "--steps", "12"],
    "topics, a text": ["topics", "TEXT", "--vocabulary", "40", "--length", "16", "--steps", "6", "--attention-steps",
                       "4", "--topics", "2", "--permutations", "9"],
}
FARM = "the hungry farmer fed a cow and a horse on the green farm . the cow and the horse ate grass of the farm ."
SEA = "the brave sailor took a ship and a boat on the blue sea . the ship and the boat crossed waves of the sea ."


class Killed(BaseException):
    """Ends a run as a kill does: no handler of minitx knows it."""


def minitx(capsys, *words):
    """(status, the last line of stderr, the lines of stdout)."""
    status = cli.main(list(map(str, words)))
    said = capsys.readouterr()
    return status, said.err.strip().split("\n")[-1], said.out.split("\n")


def results_of(folder):
    """What results.json and weights hold of a run, without the folder."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del found["asked"]["out"], found["configuration"]["out"]
    arrays = {path.name: dict(np.load(path)) for path in sorted(folder.glob("weights*.npz"))}
    return found, {(name, key): array.tolist() for name, held in arrays.items() for key, array in held.items()}


def _typed(job, folder):
    return [str(folder / "text.txt") if word == "TEXT" else word for word in JOBS[job]]


@pytest.fixture
def killed_after(monkeypatch):
    """``killed_after(n)``: the run ends after the n-th writing of its checkpoint from now on."""
    write = Part.write

    def arrange(n):
        def writing(self, *arguments):
            nonlocal n
            write(self, *arguments)
            n -= 1
            if n == 0:
                raise Killed

        monkeypatch.setattr(Part, "write", writing)

    return arrange


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_run_that_is_killed_goes_on_to_the_same_results(job, killed_after, tmp_path, capsys):
    """Wherever the run is killed, the printed lines, and so the page, are those of a run without a stop."""
    if job == "topics, a text":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    (tmp_path / "text.txt").write_text(f"{FARM}\n{SEA}\n{FARM} {SEA}\n" * 40)
    words, rng = _typed(job, tmp_path), np.random.default_rng(len(job))
    status, _, lines = minitx(capsys, *words, "--out", tmp_path / "whole")
    assert status == 0
    folder = tmp_path / "killed"
    for n, resume in ((1, []), (int(rng.integers(2, 5)), ["--resume"])):
        killed_after(n)
        with pytest.raises(Killed):
            minitx(capsys, *([words[0]] if resume else words), "--checkpoint-every", 1, *resume, "--out", folder)
        assert {path.name for path in folder.iterdir()} == {"checkpoint.npz"}
    killed_after(0)
    capsys.readouterr()
    status, _, found = minitx(capsys, words[0], "--resume", "--out", folder)
    assert status == 0
    assert results_of(folder) == results_of(tmp_path / "whole")
    assert [line.replace(str(tmp_path / "killed"), str(tmp_path / "whole")) for line in found] == lines
    assert not (folder / "checkpoint.npz").exists()


@pytest.mark.slow  # test_config.py has the same of minitx associate
@pytest.mark.parametrize("job", ["topics", "automaton", "automaton, a text", "topics, a text"])
def test_results_json_repeats_a_run_to_the_same_bits(job, tmp_path, capsys):
    if job == "topics, a text":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    (tmp_path / "text.txt").write_text(f"{FARM}\n{SEA}\n{FARM} {SEA}\n" * 40)
    words = _typed(job, tmp_path)
    assert minitx(capsys, *words, "--out", tmp_path / "one")[0] == 0
    assert minitx(capsys, words[0], "--config", tmp_path / "one" / "results.json", "--out", tmp_path / "two")[0] == 0
    assert results_of(tmp_path / "one") == results_of(tmp_path / "two")


SCRIPT = """
import os, sys
from minitx import cli
from minitx.associations import command
from minitx.base import checkpoint, page, style, svg
style.save = lambda figure, path: path.write_bytes(b"")  # this test is not about figures
svg.drawn = lambda figure, name: page.element("svg", id=name)
log, arguments = open(sys.argv[1], "a"), sys.argv[3:]
whole, fsync, left = command.Recorder.__call__, os.fsync, [int(sys.argv[2])]
def recorder(self, step, loss, weights, gradient):
    whole(self, step, loss, weights, gradient)
    print(step, file=log, flush=True)
def half_written(file):
    left[0] -= 1
    if left[0] == 0:
        os.ftruncate(file, os.fstat(file).st_size // 2)  # as much as reached the disk
        os.kill(os.getpid(), 9)
    fsync(file)
command.Recorder.__call__, os.fsync = recorder, half_written
sys.exit(cli.main(arguments))
"""


def process(log, dies_at, *words):
    """A process that runs a command, logs every step, and kills itself in its writing number ``dies_at``."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(log), str(dies_at), *map(str, words)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def steps_in(path):
    """The steps that a checkpoint holds; 0 if training has not begun."""
    found = Checkpoint(path)
    if "training" not in found.parts:
        return 0
    tree, arrays = found.parts["training"]
    [[_, trajectory], *_] = tree["state"]["dict"]
    assert trajectory["object"] == Trajectory.__name__
    return len(arrays[trajectory["fields"]["loss"]["array"]]) - 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_kill_9_in_the_midst_of_writing_leaves_the_state_before_it(tmp_path, capsys):
    """The run that goes on prints the lines, and leaves the results, of a run without a stop."""
    words = JOBS["associate"]
    status, _, lines = minitx(capsys, *words, "--out", tmp_path / "whole")
    assert status == 0
    folder = tmp_path / "killed"
    killed = process(tmp_path / "log", 5, *words, "--checkpoint-every", 1, "--out", folder)
    assert killed.wait() == -signal.SIGKILL, killed.stderr.read()
    killed.stderr.close()
    assert len(list(folder.glob(".checkpoint.npz.*"))) == 1
    last = int((tmp_path / "log").read_text().split()[-1])
    assert last - steps_in(folder / "checkpoint.npz") == 1
    status, _, found = minitx(capsys, "associate", "--resume", "--out", folder)
    assert status == 0
    assert results_of(folder) == results_of(tmp_path / "whole")
    assert [line.replace("killed", "whole") for line in found] == lines
    assert minitx(capsys, "associate", "--resume", "--out", folder)[2][0] == (
        f"{folder}/ is finished; {folder / 'results.json'} has its results, and nothing is left to do")
    assert not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_kill_9_at_ten_random_moments_loses_an_interval_at_most(tmp_path, capsys):
    """Moments are drawn from all of its time, imports and writings included; one that is quicker begins anew."""
    words = ["associate", "--vocabulary", "60", "--length", "12", "--windows", "48", "--steps", "200"]
    every, rng, folder, log = 7, np.random.default_rng(0), tmp_path / "killed", tmp_path / "log"
    began = time.monotonic()
    with process(log, 0, *words, "--out", tmp_path / "whole") as run:
        assert run.wait() == 0
    whole = time.monotonic() - began
    log.unlink()
    kills, reached = 0, []
    while kills < 10:
        begun = (folder / "checkpoint.npz").exists()
        run = process(log, 0, *(["associate", "--resume"] if begun else [*words, "--force"]),
                      "--checkpoint-every", every, "--out", folder)
        try:
            run.wait(rng.uniform(0, whole))
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
        else:
            assert run.returncode == 0, run.stderr.read()
        run.stderr.close()
        if (folder / "checkpoint.npz").exists() and log.exists() and log.read_text():
            reached.append(steps_in(folder / "checkpoint.npz"))
            assert int(log.read_text().split()[-1]) - reached[-1] <= every
    assert max(reached) > 0
    status, said, _ = minitx(capsys, *(["associate", "--resume"] if (folder / "checkpoint.npz").exists() else
                                       [*words, "--force"]), "--out", folder)
    assert status == 0, said
    assert results_of(folder) == results_of(tmp_path / "whole")


# ------------------------------------------------------------------------------------------ where it cannot go on


@pytest.fixture
def ended(killed_after, tmp_path, capsys):
    """The folder of a run that was killed, and ``resume(word, ...)``, which gives the line that refuses it."""
    folder, words = tmp_path / "run", JOBS["associate"]
    killed_after(3)
    with pytest.raises(Killed):
        minitx(capsys, *words, "--checkpoint-every", 1, "--out", folder)
    killed_after(0)

    def refused(*words):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        status, said, _ = minitx(capsys, *words, "--out", folder)
        assert status == 2
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        return said.removeprefix("minitx: error: ").replace(str(folder), "run")

    return folder, refused


def test_a_checkpoint_of_another_run_or_without_resume_is_refused(ended):
    _, refused = ended
    assert refused("associate", "--resume", "--steps", 9) == (
        "run/checkpoint.npz is of another run (its steps is 7, and now it is 9); --resume needs no options but --out")
    assert refused("automaton", "--resume") == (
        "--resume finds a run of minitx associate in run; type minitx associate --resume --out run")
    assert refused(*JOBS["associate"]) == (
        "--out is run, which holds the checkpoint of this run, which was ended; go on with it by --resume, or begin "
        "anew with --force")
    assert refused("automaton").startswith("--out is run, which holds the checkpoint of another run (it is of minitx "
                                           "associate); choose another folder, or begin anew with --force")
    assert refused("associate", "--resume", "--force").startswith("--resume goes on with a run and --force begins it")


def test_a_damaged_checkpoint_is_refused_and_force_begins_anew(ended, killed_after, capsys):
    folder, refused = ended
    path = folder / "checkpoint.npz"
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        for words in (["associate", "--resume"], JOBS["associate"]):
            assert refused(*words).startswith("run/checkpoint.npz is damaged")
    with pytest.raises(ValueError, match="is damaged"):
        Checkpoint(path)
    killed_after(2)
    with pytest.raises(Killed):
        minitx(capsys, *JOBS["associate"], "--checkpoint-every", 1, "--force", "--out", folder)
    assert steps_in(path) == 1


def test_a_text_that_has_changed_is_another_run(killed_after, tmp_path, capsys):
    text, folder = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("a fish saw a bird and a cat " * 20)
    killed_after(1)
    with pytest.raises(Killed):
        minitx(capsys, "associate", text, *JOBS["associate"][1:], "--out", folder)
    killed_after(0)
    text.write_text("a bird saw a fish and a cat " * 20)
    status, said, _ = minitx(capsys, "associate", "--resume", "--out", folder)
    assert status == 2
    assert f"checkpoint.npz is of another run (the content of {text} has changed since)" in said


def test_where_there_is_nothing_to_go_on_with_that_is_said(tmp_path, capsys):
    folder = tmp_path / "run"
    assert minitx(capsys, "associate", "--resume", "--out", folder)[:2] == (
        2, f"minitx: error: --resume finds no checkpoint and no results in {folder} (--out); leave it out to begin")
    assert not folder.exists()


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from minitx.associations import command

    whole, folder, words = command.Recorder.__call__, tmp_path / "run", JOBS["associate"]
    assert minitx(capsys, *words, "--out", tmp_path / "whole")[0] == 0

    def interrupted(self, step, *arguments):
        if step == 4:
            raise KeyboardInterrupt
        whole(self, step, *arguments)

    monkeypatch.setattr(command.Recorder, "__call__", interrupted)
    status, _, lines = minitx(capsys, *words, "--checkpoint-every", 2, "--out", folder)
    assert status == 130
    assert f"minitx associate --resume --out {folder} goes on with this run" in lines
    assert json.loads((folder / "results.json").read_text())["stopped"]["kind"] == "interrupted"
    assert steps_in(folder / "checkpoint.npz") == 2
    monkeypatch.setattr(command.Recorder, "__call__", whole)
    assert minitx(capsys, "associate", "--resume", "--out", folder)[0] == 0
    assert results_of(folder) == results_of(tmp_path / "whole")


def test_a_minute_is_the_interval_when_none_is_typed():
    assert base_checkpoint.SECONDS == 60
