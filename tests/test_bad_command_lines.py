"""Whatever is typed by mistake is told in one line, which names what was typed and what works; nothing is left behind.

The table is data/bad_command_lines.txt, and it grows: a mistake that was answered badly becomes a row of it.
"""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from bad_inputs import write_files

from minitx import cli

TABLE = Path(__file__).with_name("data") / "bad_command_lines.txt"
ROWS = [tuple(line.split(" => ")) for line in TABLE.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
# What no user should read: names of Python, messages of NumPy and of argparse, tracebacks.
FORBIDDEN = re.compile(r"Traceback|Error\b|numpy|allocate|(?<!--)dtype|argument|usage:|invalid|NoneType|shape|"
                       r"object at|"
                       r"(?<!-)\bn_[a-z]+|[a-z]+='|(?<![-a-z.])(batch_size|learning_rate|init_scale|p_[mcr])\b")
# These mistakes are not about the value of an option.
NO_OPTION = re.compile("no command|no option|is a folder|is empty|binary|UTF-8|gzip|JSON|there is no file|holds? |"
                       r"found|line 1|not for|no samples|is damaged|\.(toml|json): ")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


def test_the_table_is_large_and_has_no_row_twice():
    commands = [command for command, _ in ROWS]
    assert len(ROWS) >= 500
    assert len(set(commands)) == len(ROWS)
    for name in cli.COMMANDS:  # those that train have most options
        least = 85 if name in ("associate", "topics", "automaton") else 8
        assert sum(command.startswith(name) for command in commands) >= least


@pytest.mark.parametrize(("command", "says"), ROWS, ids=[command or "nothing" for command, _ in ROWS])
def test_a_mistake_is_told_in_one_line(command, says, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    words = shlex.split(command)
    if words and words[0] in cli.COMMANDS and "--out" not in words:
        words[1:1] = ["--out", "made/below"]
    assert cli.main(words) == 2
    said = re.sub("minitx: compiling kernel .*\n", "", capsys.readouterr().err)  # on a new installation
    assert said.count("\n") == 1
    if "scikit-learn" in said and not find_spec("sklearn"):
        pytest.skip("topics of a text need scikit-learn: pip install 'minitx[topics]'")
    assert said.startswith("minitx: error: " + says)
    assert not FORBIDDEN.search(said.replace(command, ""))
    typed = [word.split("=")[0] for word in shlex.split(command) if word.startswith("--") and len(word) > 3]
    assert not typed or any(word in said for word in typed) or NO_OPTION.search(said)
    assert sorted(files.rglob("*")) == before
