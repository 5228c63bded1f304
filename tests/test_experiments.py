"""Every script in experiments/ that records results runs with --quick; two of them are slow tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = ("next_token", "topics")
EXPERIMENTS = [pytest.param(script, marks=pytest.mark.slow if script.stem in SLOW else ())
               for script in sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*.py"))
               if script.stem != "one_layer"]  # a teaching file without options or results: test_one_layer.py runs it


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda script: script.stem)
def test_quick(script, tmp_path):
    command = [sys.executable, str(script), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / f"{script.stem}.json").read_text())["environment"]
