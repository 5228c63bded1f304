"""``minitx <command>``: reads the command line; the work is in ``minitx/commands/``."""

import argparse
import sys

import minitx
from minitx.commands import associate, automaton, topics

COMMANDS = {"associate": (associate, "train on a text and set the exact gradient beside the leading terms that predict it"),
            "topics": (topics, "train on documents of topics; embeddings, value matrix and attention beside closed forms"),
            "automaton": (automaton, "priority graphs of samples or a text, and the automaton that attention becomes, by training")}


def main(arguments=None):
    """Entry point. Returns the exit status: the command's; 2 for a mistake of the user's, said in one line; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="minitx", description=minitx.__doc__)
    parser.add_argument("--version", action="version", version=f"minitx {minitx.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
    parsed = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a word that the terminal cannot show is no reason to stop
    try:
        return COMMANDS[parsed.command][0].main(parsed)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"minitx: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"minitx: error: not enough memory ({error}); use fewer words, or shorter or fewer documents", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minitx: interrupted", file=sys.stderr)
        return 130
