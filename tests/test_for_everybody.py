"""Everybody runs the same tests: a stranger draws what CI draws, and recorded numbers are in tests/data."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
RUN = (TESTS.parent / ".ci" / "run").read_text(encoding="utf-8")
PROFILES = """
import conftest
from hypothesis import settings
drawn = {name: settings.get_profile(name) for name in ("everybody", "explore")}
assert settings.default == drawn["everybody"]
print([drawn[name].derandomize for name in drawn], *drawn.values(), sep="\\n")
"""


def without_ci(**variables):
    """The variables of this process but those that CI services set, and ``variables``."""
    return {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS")} | variables


def test_the_variable_ci_changes_no_profile_of_hypothesis():
    printed = set()
    for ci in ({}, {"CI": "true", "GITHUB_ACTIONS": "true"}):
        command = [sys.executable, "-c", PROFILES]
        done = subprocess.run(command, cwd=TESTS, env=without_ci(**ci), capture_output=True, text=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1
    assert printed.pop().startswith("[True, False]\n")


def test_ci_runs_the_commands_as_a_stranger_does():
    """The variables that tests or hypothesis read are taken away before the README's commands run."""
    assert not re.search(r"\bCI=|export [^\n]*\b(CI|MINITX_DATA)\b", RUN)
    assert "\nunset CI MINITX_DATA" in RUN
    assert RUN.index("\nunset CI MINITX_DATA") < RUN.index('bash -c "${commands[0]}"')


def test_ci_also_runs_what_the_plain_command_leaves_out():
    """The slow tests, and the tests of commands with their figures drawn."""
    assert "\ntests -m slow --draw\n" in RUN
    for file in ("associations/test_cli.py", "next_token/test_automaton_command.py", "topics/test_topics_command.py",
                 "topics/test_topics_text_command.py"):
        assert f"tests/{file}" in RUN[RUN.index("\ntests --draw "):]


def test_ci_names_files_that_are_there():
    named = re.findall(r"\btests/[\w/]+(?:\.py)?", RUN)
    assert len(named) > 10
    for file in named:
        assert (TESTS.parent / file).exists(), file


def test_recorded_numbers_come_with_the_tests():
    names = ["topics_reference.json", "next_token_reference.json"]
    reading = "import sys, json, conftest; print(json.dumps([conftest.recorded(name) for name in sys.argv[1:]]))"
    done = subprocess.run([sys.executable, "-c", reading, *names], cwd=TESTS, env=without_ci(MINITX_DATA=os.devnull),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts = [(TESTS / "data" / name).read_text(encoding="utf-8") for name in names]
    assert json.loads(done.stdout) == [json.loads(text) for text in texts]
