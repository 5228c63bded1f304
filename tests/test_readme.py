"""The README is kept true: CI runs its two commands, and its Python, options, names and numbers are checked."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minitx
from minitx import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
LINES, COLUMNS = 200, 120
# Numbers in the README's prose that no output and no recorded run shows.
BY_HAND = {
    "3.10": "version of Python", "120": "lines of one_layer.py; its test holds them",
    "0.01": "a relative error as --check takes it",
    "2601.19208": "arXiv", "2303.04245": "arXiv", "2403.08081": "arXiv", "2026": "year", "2023": "year", "2024": "year",
    "91": "seconds of the first command, measured before a release", "169": "the same of the tests",
    "5122": "tests that passed, counted before a release", "45": "tests that were skipped", "175": "slow ones",
}


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def _numbers(text):
    """All numbers in ``text``, without thousands separators; words such as W_O or float64 hold none."""
    found = re.findall(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w-])", text)
    return {number.replace(",", "") for number in found}


def test_it_is_short():
    lines = README.splitlines()
    assert len(lines) <= LINES
    assert not [line for line in lines if len(line) > COLUMNS and not line.startswith("|")]


def test_there_are_exactly_two_commands_and_ci_runs_them():
    commands = [line for block in _blocks("sh") for line in block.splitlines()]
    assert len(commands) == 2
    assert commands[0].endswith("minitx associate")
    assert commands[1].endswith("pytest -n 2")
    done = subprocess.run(["bash", str(ROOT / ".ci" / "commands")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == commands
    assert ".ci/commands > commands" in RUN


def test_ci_holds_every_output_to_what_its_command_prints():
    named = re.findall(r"^<!-- output of minitx (\w+);.*-->\n```text$", README, re.MULTILINE)
    assert named == ["associate", "topics", "automaton"]
    assert len(_blocks("text")) == len(named)
    for number, printed in enumerate(("first", "topics", "automaton"), start=1):
        assert f".ci/shown printed.{printed} {number}\n" in RUN


def test_every_number_is_shown_by_an_output_or_by_a_recorded_run():
    """Numbers of the prose stand in an output that CI checks, or in RESULTS.md, which a test holds to recorded runs."""
    prose = re.sub(r"^```.*?^```$|^\|.*?$|<!--.*?-->", "", README, flags=re.MULTILINE | re.DOTALL)
    shown = _numbers("\n".join(_blocks("text")) + (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8"))
    assert not _numbers(prose) - shown - BY_HAND.keys()
    assert BY_HAND.keys() <= _numbers(prose)


def test_pictures_and_files_that_it_names_are_there():
    named = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r"`(experiments/[^` ]+)`", README)
    assert "experiments/RESULTS.md" in named
    assert all((ROOT / path).exists() for path in named)


@pytest.mark.parametrize("example", _blocks("python"), ids=lambda example: example.splitlines()[1])
def test_every_python_example_runs_on_its_own(example, tmp_path):
    """Each example runs in a process of its own, so that none uses what another has imported or computed."""
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_options_that_the_readme_names_exist():
    known = set()
    for command in cli.COMMANDS:
        parser = argparse.ArgumentParser()
        cli.module_of(command).add_arguments(parser)
        known |= {option for action in parser._actions for option in action.option_strings}
    named = set(re.findall(r"`(--[a-z-]+)", README))
    assert named
    assert named <= known | {"--help"}


def test_public_names_are_in_the_readme_and_documented():
    """The README has each name in its code, which is what stands between backticks or in a Python example."""
    code = "\n".join([*re.findall(r"`([^`\n]+)`", README), *_blocks("python")])
    absent = [name for name in minitx.__all__ if not re.search(rf"\b{name}\b", code)]
    assert not absent
    assert not [name for name in minitx.__all__ if not getattr(minitx, name).__doc__]
