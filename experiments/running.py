"""What all experiments share: their command line, the JSON file that they leave, and the Markdown written from it.

An experiment has a function ``section(results)``: what its JSON file holds in, Markdown out. The script prints this
section when it has run, and ``write_results.py`` writes it into RESULTS.md, so that both show the same tables.
"""

import argparse
import json
import sys
from pathlib import Path
from textwrap import fill

from minitx.base.checks import output_folder
from minitx.base.report import environment, write_json
from minitx.base.tables import table


def command_line(name, doc, *, quick, text=None, layers=None, models=None, optimisers=None):
    """Read the command line of the experiment ``name``.

    Parameters
    ----------
    name : str
        The results go to the folder results/``name`` unless ``--out`` says otherwise.
    doc : str
        The docstring of the script; help shows its first line.
    quick : str
        What ``--quick`` does.
    text : str, optional
        What the argument TEXT is, for an experiment that reads a text.
    layers : int, optional
        The most layers, for an experiment that trains one layer or several.
    models : str, optional
        What the arguments MODEL after it are, for an experiment that reads models.
    optimisers : str, optional
        What ``--optimisers`` does, for an experiment that has it.

    Returns
    -------
    argparse.Namespace
        ``quick``, ``out`` (a Path; the folder exists) and, where they are given, ``text`` (None if not typed),
        ``layers``, ``models`` (a list) and ``optimisers``.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    if text:
        parser.add_argument("text", nargs="?", help=text)
    if layers:
        parser.add_argument("--layers", type=int, default=1, choices=range(1, layers + 1), metavar="L",
                            help=f"number of layers, 1 to {layers} (default: 1)")
    if models:
        parser.add_argument("models", nargs="*", metavar="MODEL", help=models)
    if optimisers:
        parser.add_argument("--optimisers", action="store_true", help=optimisers)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", default=f"results/{name}", metavar="DIR", help="folder for JSON file and figures")
    arguments = parser.parse_args()
    if text and arguments.text is not None:
        arguments.text = existing(arguments.text)
    try:
        arguments.out = output_folder(arguments.out)
    except ValueError as error:
        refuse(error)
    return arguments


def existing(path):
    """``path``, if it is a file that exists; else the script ends with one line and status 2."""
    if not Path(path).is_file():
        refuse(f"there is no file {path} (looked from {Path.cwd()}); check the name")
    return path


def refuse(reason):
    """End the script with one line, the ``reason``, and status 2."""
    print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
    sys.exit(2)


def write_down(name, arguments, results, section):
    """Write the ``results`` to ``name``.json, then print the ``section`` that follows from what this file holds."""
    path = arguments.out / f"{name}.json"
    write_json(path, {"experiment": name, "quick": arguments.quick, "environment": environment(), **results})
    print(section(read(path)))
    print(f"\nwritten to {arguments.out}/")


def read(path):
    """What the JSON file at ``path`` holds; the script ends with one line where there is none."""
    return json.loads(Path(existing(path)).read_text(encoding="utf-8"))


def block(heads, rows):
    """A table as a Markdown block of fixed-width text; ``heads`` as :func:`minitx.base.tables.table` takes them."""
    return f"```text\n{table(heads, rows)}\n```"


def paragraphs(*parts):
    """Markdown parts with an empty line between them. Prose is wrapped; parts that are empty are left out."""
    wrapped = (part if "\n" in part or part[0] == "#" else fill(part, 120, break_on_hyphens=False)
               for part in parts if part)
    return "\n\n".join(wrapped)


def holds(records, allowed):
    """The last recorded step up to which the ``errors`` of all weights are at most ``allowed``, or 0."""
    step = 0
    for one in records:
        if not max(one["errors"].values()) <= allowed:
            break
        step = one["step"]
    return step
