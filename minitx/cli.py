"""``minitx <command>``: reads the command line; the work is in each theory's ``command.py``."""

import argparse
import sys
from importlib import import_module

import minitx

# {command: (module, summary)}; the module is imported only when the command is asked for.
COMMANDS = {
    "associate": ("associations", "train on a text and set the exact gradient beside the leading terms that predict it"),
    "topics": ("topics", "train on documents of topics; embeddings, value matrix and attention beside closed forms"),
    "automaton": ("next_token",
                  "priority graphs of samples or a text, and the automaton that attention becomes, by training"),
}


def module_of(command):
    """The module of a command: ``add_arguments(parser)`` declares its options, ``main(parsed)`` runs it."""
    return import_module(f"minitx.{COMMANDS[command][0]}.command")


def main(arguments=None):
    """Entry point. Returns the exit status: the command's; 2 for a mistake of the user's, said in one line; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in arguments if not word.startswith("-")), None)  # the options before it take no value
    parser = argparse.ArgumentParser(prog="minitx", description=minitx.__doc__)
    parser.add_argument("--version", action="version", version=f"minitx {minitx.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == asked:
            module_of(name).add_arguments(command)
    parsed = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a word that the terminal cannot show is no reason to stop
    try:
        return module_of(parsed.command).main(parsed)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"minitx: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"minitx: error: not enough memory ({error}); use fewer words, or shorter or fewer documents", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minitx: interrupted", file=sys.stderr)
        return 130
