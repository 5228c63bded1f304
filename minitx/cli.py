"""``minitx <command>`` reads the command line; each theory's ``command.py`` does the work.

This file imports the standard library only; the rest is imported within ``main``, which tells an interruption in one
line.
"""

import argparse
import difflib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import minitx

# {command: (theory, summary)}; a theory is imported only when its command is asked for.
COMMANDS = {
    "associate": ("associations", "train on a text and compare the exact gradient with the terms that predict it"),
    "topics": ("topics", "train on documents of topics and compare embeddings, values and attention with closed forms"),
    "automaton": ("next_token", "train attention on samples or a text and compare it with the automaton it becomes"),
}


def module_of(command: str) -> ModuleType:
    """The module of a command; its ``add_arguments(parser)`` declares options, its ``main(parsed)`` does the work."""
    return import_module(f"minitx.{COMMANDS[command][0]}.command")


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, as every other mistake is told."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with what argparse found, in our words."""
        if found := re.fullmatch("argument [^:]*: (.*; it must be .*)", message, re.DOTALL):
            raise ValueError(found[1])
        if found := re.fullmatch("argument ([^:]*): expected one argument", message):
            raise ValueError(f"{found[1]} has no value; type one after it, as {self.prog} --help shows")
        if found := re.fullmatch("argument ([^:]*): ignored explicit argument '?(.*?)'?", message, re.DOTALL):
            raise ValueError(f"{found[1]} is {found[2]!r}; it takes no value, leave it out")
        if found := re.fullmatch("ambiguous option: (.*) could match (.*)", message):
            raise ValueError(f"{found[1]} may be any of {found[2]}; type one of them in full")
        raise ValueError(f"{message}; see {self.prog} --help")


def _unknown(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """The sentence that the command has no option, or no place, for the first of these words."""
    from minitx.base.options import shown

    word = words[0].split("=")[0]
    if not word.startswith("-"):
        return f"found {shown(word)} after the options and names that {parser.prog} takes; leave it out"
    close = difflib.get_close_matches(word, parser._option_string_actions, 3)  # argparse has no public name for them
    hint = f"similar to it: {', '.join(close)}" if close else f"{parser.prog} --help names all"
    return f"{parser.prog} has no option {shown(word)[1:-1]}; {hint}"


def _parse(arguments: list[str]) -> argparse.Namespace:
    """The options that were typed. ValueError says what cannot be understood; SystemExit follows --help, --version."""
    from minitx.base.options import shown

    asked = next((word for word in arguments if not word.startswith("-")), None)  # no option of minitx takes a value
    parser = Parser(prog="minitx", description=minitx.__doc__)
    parser.add_argument("--version", action="version", version=f"minitx {minitx.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    parsers: dict[str | None, argparse.ArgumentParser] = {}
    for name, (_, summary) in COMMANDS.items():
        parsers[name] = commands.add_parser(name, help=summary, description=summary)
        if name == asked:
            module_of(name).add_arguments(parsers[name])
    names = ", ".join(COMMANDS)
    if asked is not None and asked not in COMMANDS:
        raise ValueError(f"there is no command {shown(asked)}; it must be one of {names}")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise ValueError(_unknown(parsers.get(asked, parser), unknown))
    if parsed.command is None:
        raise ValueError(f"no command was typed; it must be one of {names}")
    return parsed


@contextmanager
def _signals_interrupt() -> Iterator[list[int]]:
    """SIGTERM, which a cluster sends at its time limit, ends training as Ctrl-C does: what was recorded is written.

    The list that is yielded holds the signals that came: a package may turn the KeyboardInterrupt of a signal that
    comes while it is imported into an ImportError.
    """
    came: list[int] = []

    def interrupt(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():  # signals belong to the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # not what a caller set
                before[number] = signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns its exit status.

    It is 2 after a user's mistake, which is told in one line; 130 after Ctrl-C or SIGTERM; and 1 after training that
    diverged, or a defect of minitx, which keeps its traceback.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every letter
    with _signals_interrupt() as came:
        try:
            parsed = _parse(sys.argv[1:] if arguments is None else arguments)
            return module_of(parsed.command).main(parsed)
        except KeyboardInterrupt:
            return _interrupted()
        except Exception as error:
            return _interrupted() if came else _failed(error)


def _interrupted():
    print("minitx: interrupted", file=sys.stderr)
    return 130


def _failed(error):
    """Tell a mistake of the user in one line, and a defect of minitx with its traceback."""
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return _refused(str(error))
    if isinstance(error, MemoryError):
        return _refused("there is not enough memory; use fewer words, or shorter or fewer documents")
    traceback.print_exception(error)  # no input should lead here
    print(f"minitx {minitx.__version__}: this is a defect of minitx; please report the lines above and what was typed",
          file=sys.stderr)
    return 1


def _refused(reason):
    line = " ".join(reason.split())
    print(f"minitx: error: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    return 2
