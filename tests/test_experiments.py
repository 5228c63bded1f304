"""Every script in experiments/ runs, with --quick."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*.py"))
OUTPUT = {"associations": ("--out", "", "associations.json"), "benchmark": ("--out", "benchmark.json", "benchmark.json")}


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda script: script.stem)
def test_quick(script, tmp_path):
    option, argument, written = OUTPUT[script.stem]
    done = subprocess.run([sys.executable, str(script), "--quick", option, str(tmp_path / argument)], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / written).read_text())["environment"]
