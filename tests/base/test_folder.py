"""A folder that holds the results of another run is not written to, unless --force says so."""

import json
from dataclasses import dataclass

import pytest

from minitx.base.command import Outcome, run_command
from minitx.base.options import Options, option


@dataclass(frozen=True, kw_only=True)
class Small(Options):
    command = "small"
    steps: int = option(100, "steps", least=1)
    text: str | None = option(None, "a text")


class Other(Small):
    command = "other"


@pytest.fixture
def run(tmp_path):
    """``run(kind, option=...)``: the exit status of a run in the folder ``run``, which does nothing."""
    def run(kind=Small, **typed):
        typed = {"out": str(tmp_path / "run")} | typed
        return run_command(kind(**typed), typed, lambda options, say: Outcome("A title", {"answer": 42}), ())

    return run


def results_in(folder):
    return json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))


def test_the_same_run_may_be_repeated_in_its_folder(run, tmp_path):
    """Threads and the folder itself decide no result; how a run is handled is no part of its results."""
    for settings in ({}, {"threads": 1, "force": True}, {"threads": 1}):
        assert run(**settings) == 0
        found = results_in(tmp_path)
        assert (found["command"], found["inputs"], found["answer"]) == ("small", {}, 42)
        assert not {"force", "config", "json"} & (found["asked"] | found["configuration"]).keys()


@pytest.mark.parametrize(("kind", "typed", "says"), [
    (Small, {"steps": 7}, "its steps is 100, and now it is 7"),
    (Small, {"text": "a.txt"}, "its text is not given, and now it is 'a.txt'"),
    (Other, {}, "it is of minitx small"),
])
def test_another_run_is_refused_and_changes_nothing_unless_forced(kind, typed, says, run, tmp_path):
    run()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError) as refused:
        run(kind, **typed)
    assert str(refused.value) == (
        f"--out is {tmp_path / 'run'}, which holds the results of another run ({says}); choose another folder, or "
        "overwrite these results with --force")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert run(kind, **typed, force=True) == 0
    assert results_in(tmp_path)["command"] == kind.command


@pytest.mark.parametrize("name", ["text.txt", "folder", "folder/*.txt"])
def test_a_text_whose_content_has_changed_makes_another_run(name, run, tmp_path):
    """A text is a file, a folder of files, or a pattern."""
    (tmp_path / "folder").mkdir()
    files = [tmp_path / "text.txt", tmp_path / "folder" / "one.txt", tmp_path / "folder" / "two.txt"]
    for file in files:
        file.write_text("a fish")
    text = str(tmp_path / name)
    assert run(text=text) == run(text=text) == 0
    for file in files:
        file.write_text("a bird")
    with pytest.raises(ValueError, match="another run .the content of .* has changed since"):
        run(text=text)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "\x00", '{"configuration": 3}'])
def test_results_that_minitx_did_not_write_are_not_overwritten(content, run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(content)
    with pytest.raises(ValueError, match="its results.json is not one that this minitx can read"):
        run()
    assert (tmp_path / "run" / "results.json").read_text() == content
