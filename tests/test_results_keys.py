"""The keys of results.json are documented where they are written: those at the top, for every command."""

import inspect
import json
import re

import pytest

from minitx import cli
from minitx.associations import command as associations
from minitx.associations import command_why
from minitx.base import report
from minitx.next_token import command as next_token
from minitx.topics import command_documents as topics

JOBS = {
    "associate": (["--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "2"], (associations.run,)),
    "why": (["a", "long", "--vocabulary", "9", "--length", "4", "--windows", "6", "--steps", "2"], (command_why.run,)),
    "automaton": (["--quick", "--steps", "3", "--contexts", "5"], (next_token.run, next_token._numbers)),
    "topics": (["--quick", "--topics", "3", "--words", "2", "--documents", "40", "--length", "8"], (topics.numbers,)),
}


@pytest.mark.parametrize("command", JOBS)
def test_every_key_is_documented(command, tmp_path):
    arguments, makers = JOBS[command]
    assert cli.main([command, *arguments, "--out", str(tmp_path)]) == 0
    accounts = " ".join(inspect.getdoc(maker) for maker in (*makers, report.write_json))
    named = set(re.findall(r"``([^`]+)``", re.sub(r"\s+", " ", accounts)))
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert not written.keys() - named
