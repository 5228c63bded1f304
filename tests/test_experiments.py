"""The experiments run, each prints what its JSON file gives, and RESULTS.md is what the recorded runs give."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
NO_RUNS = {"one_layer", "running", "write_results"}  # a teaching file, which test_one_layer.py runs, and two tools
SCRIPTS = [script for script in sorted(FOLDER.glob("*.py")) if script.stem not in NO_RUNS]
QUICK = "expansion"  # The others are slow: a stranger runs one, `.ci/run` runs all.
RESULTS = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")


@pytest.fixture
def experiments(monkeypatch):
    """Imports a script of experiments/ by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize("script", [pytest.param(script, marks=() if script.stem == QUICK else pytest.mark.slow)
                                    for script in SCRIPTS], ids=lambda script: script.stem)
def test_quick(script, tmp_path, experiments):
    """A quick run leaves a JSON file and prints the Markdown section that follows from this file alone."""
    if script.stem == "topics_text":
        pytest.importorskip("sklearn")
    command = [sys.executable, str(script), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / f"{script.stem}.json").read_text())
    assert results["environment"]
    assert results["quick"]
    section = experiments(script.stem).section(results)
    assert section.startswith("## ")
    assert section in done.stdout


def test_results_are_what_the_recorded_runs_give(experiments):
    tool = experiments("write_results")
    assert tool.document() == RESULTS
    assert not [line for line in RESULTS.split("```")[::2] if any(len(row) > 120 for row in line.splitlines())]


def test_every_script_has_a_section_and_every_recorded_run_is_a_full_one(experiments):
    tool = experiments("write_results")
    assert {tool.script_of(name).__name__ for name in tool.RUNS} == {script.stem for script in SCRIPTS}
    for path in tool.RECORDED.iterdir():
        results = json.loads(path.read_text(encoding="utf-8"))
        assert path.stem in tool.RUNS
        assert results["experiment"] == tool.script_of(path.stem).__name__
        assert not results["quick"]
        assert path.stat().st_size < 100_000


def test_a_quick_run_is_not_recorded(experiments, tmp_path):
    (tmp_path / "associations").mkdir()
    (tmp_path / "associations" / "associations.json").write_text('{"quick": true}')
    with pytest.raises(SystemExit, match="RESULTS.md shows full runs only"):
        experiments("write_results").record(tmp_path / "associations")


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda script: script.stem)
def test_experiments_import_no_command_and_nothing_private(script):
    imported = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = {part for name in imported if name.startswith("minitx") for part in name.split(".")}
    assert not [part for part in parts if part.startswith(("command", "_")) or part == "cli"]
