"""Help that reads like a manual page: what a command is for, each option, examples, files and exit status."""

import argparse
import shutil
import textwrap
from collections.abc import Collection, Sequence

WIDTH = 100  # columns of help on a wide terminal
FILES = {
    "results.json": "It holds every number, the options and the versions. --config reads it to repeat the run.",
    "index.html": "One self-contained page for a browser, with figures, tables and sliders.",
    "weights*.npz": "The trained weights; minitx.load reads them.",
    "checkpoint.npz": "The state of a run that has not ended; --resume reads it."}


class Manual(argparse.RawDescriptionHelpFormatter):
    """Each option on a line of its own, and what it means below it."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=6, width=min(WIDTH, shutil.get_terminal_size().columns) - 2)


def sections(examples: Sequence[tuple[str, str]], options: Collection[str], lacks: Collection[str] = ()) -> str:
    """What follows the options: ``examples`` [(command line, what it does)], files and exit status.

    What they say depends on the ``options`` that the command has, such as "--resume". Files and exit status that it
    ``lacks`` are left out.
    """
    files = {name: text for name, text in FILES.items() if name != "checkpoint.npz" or "--resume" in options}
    parts = {"examples": dict(examples), "files in the folder": files if "--config" in options else {},
             "exit status": _exit_status(options)}
    parts = {title: {name: text for name, text in part.items() if name not in lacks} for title, part in parts.items()}
    return "\n\n".join(f"{title}:\n" + "\n".join(f"  {name}\n{textwrap.indent(textwrap.fill(text, WIDTH - 8), ' ' * 6)}"
                                                for name, text in part.items())
                       for title, part in parts.items() if part)


def _exit_status(options):
    found = {"0": "The work is done."}
    if "--config" in options:
        outside = ", or a comparison is outside --check" if "--check" in options else ""
        found["1"] = f"Training diverged{outside}. Files are written."
    found["2"] = "An option or a file is not valid. One line says why; nothing is written."
    if "--config" in options:
        then = ", and --resume goes on with it" if "--resume" in options else ""
        found["130"] = f"Ctrl-C or SIGTERM ended the run. The results so far are written{then}."
    return found
