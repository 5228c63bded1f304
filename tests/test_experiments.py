"""The experiments run, each prints what its JSON file gives, and RESULTS.md is what the recorded runs give."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
# A teaching file, which test_one_layer.py runs; a notebook, which runs below; parts of three others; and three tools.
NO_RUNS = {"one_layer", "three_theories", "several_layers", "dense", "optimisers", "running", "timing", "write_results"}
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
    if script.stem == "byte_pairs":
        pytest.importorskip("tokenizers")
    if script.stem in ("language_model", "large_model"):
        for package in ("safetensors", "tokenizers", *["glassllm"] * (script.stem == "language_model")):
            pytest.importorskip(package)
    command = [sys.executable, str(script), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / f"{script.stem}.json").read_text())
    assert results["environment"]
    assert results["quick"]
    section = experiments(script.stem).section(results)
    assert section.startswith("## ")
    assert section in done.stdout


def test_the_cells_of_the_notebook_are_whole():
    """Each cell compiles by itself; those of words are comments, and none shows a figure."""
    source = (FOLDER / "three_theories.py").read_text(encoding="utf-8")
    cells = source.split("\n# %%")[1:]
    assert len(cells) > 12
    for cell in cells:
        kind, _, body = cell.partition("\n")
        assert compile(body, "cell", "exec")
        assert (kind == " [markdown]") == all(line.startswith("#") for line in body.strip().splitlines())
    assert ".show()" not in source and "pyplot" not in source


@pytest.mark.slow
def test_the_notebook_runs():
    """Its cells hold trained weights to what each theory predicts."""
    done = subprocess.run([sys.executable, str(FOLDER / "three_theories.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "closed form" in done.stdout and "trained and predicted" in done.stdout


@pytest.mark.slow
def test_quick_with_other_optimisers(tmp_path):
    """Every optimiser is trained at every rate, for a few steps."""
    command = [sys.executable, str(FOLDER / "topics.py"), "--optimisers", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "topics.json").read_text())["optimisers"]
    assert len({(row["rule"], row["decay"], row["rate"]) for row in rows}) == len(rows) == 18


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


def test_a_quick_run_is_not_recorded(experiments, tmp_path, capsys):
    (tmp_path / "associations").mkdir()
    (tmp_path / "associations" / "associations.json").write_text('{"quick": true}')
    with pytest.raises(SystemExit, match="2"):
        experiments("write_results").record(tmp_path / "associations")
    assert "RESULTS.md shows full runs only" in capsys.readouterr().err


def test_a_quick_benchmark_shows_no_goal_of_the_full_size(experiments, monkeypatch):
    """Sentences about goals, and remarks in brackets, are left out; what was measured stays."""
    benchmark = experiments("benchmark")
    for name in ("_leading_terms", "_training_step", "_steps_of_sizes", "_reduced_step", "_topic_step", "_growth"):
        monkeypatch.setattr(benchmark, name, lambda part: [
            "Step, 2 s (timed). The goals are 1.5 times the time of BLAS, and 8 times at second. It takes 3 MB.",
            "The peak is 40 MB (the goal is 1,000), of which 8 MB before."])
    parts = dict.fromkeys(("leading terms", "training step", "steps of other sizes", "reduced step", "topic step",
                           "growth"))
    results = parts | {"GFLOP/s": {"float32": 1.0, "float64": 2.0}, "quick": False}
    assert "1,000" in benchmark.section(results)
    quick = benchmark.section(results | {"quick": True})
    assert "goal" not in quick
    assert "Step, 2 s (timed). It takes 3 MB." in quick
    assert "The peak is 40 MB, of which 8 MB before." in quick


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


@pytest.mark.parametrize("script", ["expansion", "one_layer", *(pytest.param(name, marks=pytest.mark.slow) for name in (
    "associations", "reduced", "topics_text", "write_results"))])
def test_a_missing_file_is_told_in_one_line(script, tmp_path):
    """No folder is made."""
    done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py"), "missing.txt"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "missing.txt" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda script: script.stem)
def test_no_path_outside_the_project_is_mentioned(script):
    source = script.read_text(encoding="utf-8")
    assert "../shared" not in source
    assert "parents[2]" not in source
