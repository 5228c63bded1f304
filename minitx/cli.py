"""``minitx <command>`` reads the command line; each theory's ``command.py`` does the work."""

import argparse
import sys
from importlib import import_module
from types import ModuleType

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


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns its exit status; 2 after a user's mistake, told in one line; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in arguments if not word.startswith("-")), None)  # no option of minitx takes a value
    parser = argparse.ArgumentParser(prog="minitx", description=minitx.__doc__)
    parser.add_argument("--version", action="version", version=f"minitx {minitx.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == asked:
            module_of(name).add_arguments(command)
    parsed = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every letter
    try:
        return module_of(parsed.command).main(parsed)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"minitx: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"minitx: error: not enough memory ({error}); use fewer words, or shorter or fewer documents",
              file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minitx: interrupted", file=sys.stderr)
        return 130
