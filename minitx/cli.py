"""``minitx <command>`` reads the command line; each theory's ``command.py`` does the work.

This file imports the standard library only; the rest is imported within ``main``, which tells an interruption in one
line.
"""

import argparse
import ctypes
import difflib
import gc
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import minitx

# {command: (module, summary)}; a module is imported only when its command is asked for.
COMMANDS = {
    "associate": (
        "associations.command", "train on a text and compare the exact gradient with the terms that predict it"),
    "topics": (
        "topics.command",
        "train on documents of topics and compare embeddings, values and attention with closed forms"),
    "automaton": (
        "next_token.command", "train attention on samples or a text and compare it with the automaton it becomes"),
    "count": ("associations.command_count", "count texts of any size, whole or in parts whose counts are added"),
    "tokenizer": ("data.command", "train a byte-pair tokenizer, which associate --tokenizer reads"),
    "language-model": (
        "language_model.command", "compare pre-trained models with the leading terms of a text"),
    "why": (
        "associations.command_why", "say where an association of two words comes from, and which windows taught it"),
    "report": ("report.command", "train for all three theories at laptop scale and show the results on one page"),
}
# {(command, option): module}; where the option is typed, this module does the work.
INSTEAD = {("topics", "embeddings"): "language_model.topics_command"}


def module_of(command: str) -> ModuleType:
    """The module of a command; its ``add_arguments(parser)`` declares options, its ``main(parsed)`` does the work."""
    return import_module(f"minitx.{COMMANDS[command][0]}")


def _worker_of(parsed: argparse.Namespace) -> ModuleType:
    """The module whose ``main(parsed)`` does the work."""
    for (command, option), module in INSTEAD.items():
        if parsed.command == command and hasattr(parsed, option):
            return import_module(f"minitx.{module}")
    return module_of(parsed.command)


class Parser(argparse.ArgumentParser):
    """A parser that raises ValueError, so that a mistake is told in one line, as every other mistake is told."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found. Hardly anything is left for it to find after :func:`in_full`."""
        raise ValueError(f"{message}; see {self.prog} --help")


def in_full(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """The typed ``words`` with the name of every option in full and joined to its value: --len 5 becomes --length=5.

    Options come first, so that argparse takes all other words together, wherever they were typed.

    ValueError says which word is no option, or may be several, or lacks a value, or has one that it does not take.
    """
    from minitx.base.options import shown

    actions = parser._option_string_actions  # argparse has no public name for them
    found: list[str] = []
    others: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":  # what follows it are no options
            return [*found, word, *others, *left]
        if len(word) < 2 or word[0] != "-":
            others.append(word)
            continue
        typed, equals, value = word.partition("=")
        names = [typed] if typed in actions else [name for name in actions if name.startswith(typed) and len(typed) > 2]
        if not names:
            raise ValueError(_unknown(parser, typed))
        if len(names) > 1:
            raise ValueError(f"{typed} may be any of {', '.join(names)}; type one of them in full")
        name, = names
        if actions[name].nargs == 0:
            if equals:
                raise ValueError(f"{name} is {shown(value)}; it takes no value, leave it out")
            found.append(name)
        elif equals or left and not left[0].startswith("--"):
            found.append(f"{name}={value if equals else left.pop(0)}")
        else:
            raise ValueError(f"{name} has no value; type one after it, as {parser.prog} --help shows")
    return [*found, *others]


def _unknown(parser, word):
    """The sentence that the command has no such option."""
    from minitx.base.options import shown

    names = {name.lstrip("-"): name for name in parser._option_string_actions}
    close = difflib.get_close_matches(word.lstrip("-"), names, 3)
    hint = f"similar to it: {', '.join(names[name] for name in close)}" if close else f"{parser.prog} --help names all"
    return f"{parser.prog} has no option {shown(word)[1:-1]}; {hint}"


def _parse(arguments: list[str]) -> argparse.Namespace:
    """The options that were typed. ValueError says what cannot be understood; SystemExit follows --help, --version."""
    from minitx.base.manual import Manual, sections
    from minitx.base.options import shown

    # no option of minitx takes a value
    at = next((place for place, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    asked = arguments[at] if at < len(arguments) else None
    parser = Parser(prog="minitx", description=minitx.__doc__)
    parser.add_argument("--version", action="version", version=f"minitx {minitx.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    parsers = {name: commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.",
                                         formatter_class=Manual)
               for name, (_, summary) in COMMANDS.items()}
    names = ", ".join(COMMANDS)
    if asked is not None and asked not in COMMANDS:
        close = difflib.get_close_matches(asked, COMMANDS, 1)
        raise ValueError(f"there is no command {shown(asked)}; it must be one of {names}"
                         + "".join(f"; similar to it: {name}" for name in close))
    words = in_full(parser, arguments[:at])
    if asked is None:
        parser.parse_args(words)  # --help and --version
        raise ValueError(f"no command was typed; it must be one of {names}")
    own = parsers[asked]
    module_of(asked).add_arguments(own)
    own.epilog = sections(getattr(module_of(asked), "EXAMPLES", ()), own._option_string_actions,
                          getattr(module_of(asked), "LACKS", ()))

    def parse(typed):
        return parse_options(own, typed)

    parsed = parse(arguments[at + 1:])
    parsed.command = asked
    if getattr(parsed, "config", None) or getattr(parsed, "resume", False):
        from minitx.base.config import with_earlier

        return with_earlier(parsed, own, parse)
    return parsed


def parse_options(parser: argparse.ArgumentParser, typed: list[str]) -> argparse.Namespace:
    """The options and names among the ``typed`` words. ValueError says what cannot be understood."""
    from minitx.base.options import NotAccepted, shown

    try:
        parsed, unknown = parser.parse_known_args(in_full(parser, typed))
    except NotAccepted as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"found {shown(unknown[0])} after the options and names that {parser.prog} takes; leave it "
                         "out")
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
    if arguments is None:  # the process is this command's own
        _keep_memory()
    with _signals_interrupt() as came, _garbage_collected_less_often():
        try:
            parsed = _parse(sys.argv[1:] if arguments is None else arguments)
            return _worker_of(parsed).main(parsed)
        except KeyboardInterrupt:
            return _interrupted()
        except Exception as error:
            return _interrupted() if came else _failed(error)


@contextmanager
def _garbage_collected_less_often() -> Iterator[None]:
    """Imports and figures make many objects that stay, and each search for garbage visits them: 0.3 s of a command."""
    before = gc.get_threshold()
    gc.set_threshold(100_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _keep_memory():
    """Memory of arrays up to 32 MB stays with the process for the next arrays; on Linux with the C library of GNU.

    Otherwise the system takes it back, and hands it out again page by page, each filled with zeros, which took 0.6 s of
    the processor in `associate`.
    """
    if sys.platform == "linux":
        unused, largest = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        with suppress(AttributeError, OSError):  # other C libraries have no such function
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(largest, 32 << 20)
            mallopt(unused, 1 << 30)


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
