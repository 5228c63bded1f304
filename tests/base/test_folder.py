"""A folder that holds the results of another run is not written to, unless --force says so."""

import json

import pytest

from minitx import cli

TINY = ["associate", "--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "2"]


@pytest.fixture
def minitx(tmp_path, capsys):
    """``minitx(word, ...) -> (status, last line of stderr, results.json)``, with the folder ``run``."""
    def run(*words, out="run"):
        status = cli.main([*map(str, words), "--out", str(tmp_path / out)])
        results = tmp_path / out / "results.json"
        return (status, capsys.readouterr().err.strip().split("\n")[-1],
                json.loads(results.read_text()) if results.exists() else None)

    return run


def test_the_same_run_may_be_repeated_in_its_folder(minitx):
    """Threads and the folder itself decide no result."""
    first, again = minitx(*TINY), minitx(*TINY, "--threads", 1, "--force")
    assert first[0] == again[0] == minitx(*TINY, "--threads", 1)[0] == 0
    assert first[2]["loss"] == again[2]["loss"]
    assert (again[2]["command"], again[2]["inputs"]) == ("associate", {})
    assert "force" not in again[2]["asked"] | again[2]["configuration"]


@pytest.mark.parametrize(("other", "says"), [
    ([*TINY, "--learning-rate", "0.5"], "its --learning-rate is 1.0, and now it is 0.5"),
    (["automaton", "--quick"], "it is of minitx associate"),
])
def test_another_run_is_refused_before_any_work_and_changes_nothing(other, says, minitx, tmp_path, monkeypatch):
    minitx(*TINY)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    status, said, _ = minitx(*other)
    assert status == 2
    assert said == (f"minitx: error: --out is {tmp_path / 'run'}, which holds the results of another run ({says}); "
                    "choose another folder, or overwrite these results with --force")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_force_overwrites_the_results_of_another_run(minitx):
    minitx(*TINY)
    status, _, results = minitx(*TINY, "--learning-rate", 0.5, "--force")
    assert (status, results["configuration"]["learning_rate"]) == (0, 0.5)


def test_a_text_whose_content_has_changed_makes_another_run(minitx, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a fish saw a bird and a cat " * 20)
    command = ["associate", text, *TINY[1:]]
    assert minitx(*command)[0] == minitx(*command)[0] == 0
    text.write_text("a bird saw a fish and a cat " * 20)
    status, said, _ = minitx(*command)
    assert status == 2 and f"the content of {text} has changed since" in said


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "\x00", '{"configuration": 3}'])
def test_results_that_minitx_did_not_write_are_not_overwritten(content, minitx, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(content)
    status = cli.main([*TINY, "--out", str(tmp_path / "run")])
    assert status == 2
    assert (tmp_path / "run" / "results.json").read_text() == content
