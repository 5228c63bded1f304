"""The README is kept true: two commands, which CI runs as they stand; its Python runs; its options and names exist."""

import argparse
import re
import subprocess
from pathlib import Path

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


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)


def test_options_that_the_readme_names_exist():
    known = set()
    for command in cli.COMMANDS:
        parser = argparse.ArgumentParser()
        cli.module_of(command).add_arguments(parser)
        known |= {option for action in parser._actions for option in action.option_strings}
    named = set(re.findall(r"`(--[a-z-]+)", README))
    assert named
    assert named <= known


def test_public_names_are_in_the_readme_or_documented():
    for name in minitx.__all__:
        assert hasattr(minitx, name)
        assert getattr(minitx, name).__doc__, name


def test_what_the_readme_shows_is_there():
    shown = _blocks("text")
    assert len(shown) == 4
    assert all(len(block.splitlines()) > 10 for block in shown)
