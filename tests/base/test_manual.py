"""Help is a manual page: every option has an example that works, as every command has, and says its default."""

import argparse
import re
import shlex

import pytest

from minitx import cli
from minitx.base.manual import Manual, sections


def manual(command):
    """(the parser, its help with all blanks made one)."""
    module = cli.module_of(command)
    parser = cli.Parser(prog=f"minitx {command}", formatter_class=Manual)
    module.add_arguments(parser)
    parser.epilog = sections(module.EXAMPLES, parser._option_string_actions, getattr(module, "LACKS", ()))
    return parser, " ".join(parser.format_help().split())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_has_an_example_that_is_accepted(command):
    parser, _ = manual(command)
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        [typed] = re.findall(r"Example: (.*)", action.help)
        found = vars(cli.parse_options(parser, shlex.split(typed)))
        assert action.dest in found or not action.option_strings, typed


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_examples_of_a_command_are_accepted_and_the_page_says_how_it_ends(command):
    parser, text = manual(command)
    for line, sentence in cli.module_of(command).EXAMPLES:
        program, named, *words = shlex.split(line)
        assert program == "minitx"
        assert sentence.endswith(".") and sentence in text
        cli.parse_options(parser if named == command else manual(named)[0], words)
    assert "exit status: 0 The work is done." in text
    assert ("130 Ctrl-C" in text) == ("--config" in text) == (command not in ("count", "tokenizer"))
    assert ("checkpoint.npz" in text) == ("--resume goes on with it" in text) == ("--resume" in text)


def test_the_page_of_a_command_is_what_help_prints(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        cli.main(["associate", "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "\n  --steps S\n      number of steps (default: 100, with --quick 12). A whole number, at least 1." in text
    assert "Example: --steps 200" in " ".join(text.split())
    assert "minitx associate --resume --out my-run\n      Continue that run after it was interrupted.\n" in text
    assert max(map(len, text.split("\n"))) <= 100


@pytest.mark.parametrize(("typed", "meant"), [("asociate", "associate"), ("topic", "topics"), ("automata", "automaton"),
                                              ("language_model", "language-model")])
def test_a_near_miss_of_a_command_is_suggested(typed, meant, capsys):
    assert cli.main([typed, "--steps", "3"]) == 2
    assert capsys.readouterr().err.endswith(f"; similar to it: {meant}\n")
