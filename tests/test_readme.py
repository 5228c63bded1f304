"""The README is kept true: two commands, which CI runs as they stand; its Python runs; its options and names exist."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minitx
from minitx import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_there_are_exactly_two_commands_and_ci_runs_them():
    commands = [line for block in _blocks("sh") for line in block.splitlines()]
    assert len(commands) == 2
    assert commands[0].endswith("minitx associate")
    assert commands[1].endswith("pytest")
    done = subprocess.run(["bash", str(ROOT / ".ci" / "commands")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == commands
    assert ".ci/commands > commands" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("example", _blocks("python"), ids=lambda example: example.splitlines()[1])
def test_every_python_example_runs_on_its_own(example, tmp_path):
    """Each in a process of its own: no example uses what another has imported or computed."""
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
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
    assert named <= known


def test_public_names_are_in_the_readme_and_documented():
    """The README has each name in its code, which is what stands between backticks or in a Python example."""
    code = "\n".join([*re.findall(r"`([^`\n]+)`", README), *_blocks("python")])
    absent = [name for name in minitx.__all__ if not re.search(rf"\b{name}\b", code)]
    assert not absent
    assert not [name for name in minitx.__all__ if not getattr(minitx, name).__doc__]


def test_what_the_readme_shows_is_there():
    shown = _blocks("text")
    assert len(shown) == 4
    assert all(len(block.splitlines()) > 10 for block in shown)
