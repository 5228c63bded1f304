"""``minitx topics``: what embeddings, value matrix and attention learn of topics (Li, Li, Risteski, ICML 2023).

Without a TEXT it trains on documents drawn from known topics, beside the closed forms; with one, on topics fitted to
the text.
"""

import argparse
import dataclasses
from typing import Any

from minitx.base.command import run_command
from minitx.base.options import Options, add_options, read_options, shown, typed_name
from minitx.topics import command_documents, command_text

EXAMPLES = (
    ("minitx topics", "Train on documents drawn from ten known topics, beside the closed forms."),
    ("minitx topics --quick --check 0.1", "The same in seconds; fail where training misses a closed form by more than "
     "10%."),
    ("minitx topics stories.txt --topics 8 --out my-topics", "Fit eight topics to a text, and train on it."),
    ("minitx topics stories.txt --embeddings pythia-70m", "Look for these topics in a pre-trained model."))
FILES = (*command_documents.FIGURES, *command_documents.WEIGHTS, *command_text.FIGURES)  # of all modes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of both modes."""
    add_options(parser, {"options without a TEXT": command_documents.Options,
                         "options with a TEXT": command_text.Options})


def main(arguments: argparse.Namespace) -> int:
    """Run the command from parsed arguments; the exit status is that of :func:`minitx.base.command.run_command`.

    ValueError says which option is not for the mode, or has a value that it does not accept. With ``--embeddings``
    :mod:`minitx.language_model.topics_command` does the work instead.
    """
    typed = {name: value for name, value in vars(arguments).items() if name != "command"}
    mode, about, remedy = ((command_text, "a TEXT", "give no TEXT") if "text" in typed else
                           (command_documents, "documents of known topics", "give a TEXT"))
    typed = fitting(typed, mode.Options, about, remedy)
    return run_command(read_options(mode.Options, typed), typed, mode.run, FILES, resumable=True)


def fitting(typed: dict[str, Any], kind: type[Options], about: str, remedy: str) -> dict[str, Any]:
    """The options that were typed, for a mode with options of this ``kind``. ValueError if it lacks one of them."""
    known = {field.name for field in dataclasses.fields(kind)}
    if stray := [typed_name(name, value) for name, value in typed.items() if name not in known]:
        are, them = ("is", "it") if len(stray) == 1 else ("are", "them")
        raise ValueError(f"{', '.join(stray)} {are} not for {about}; leave {them} out, or {remedy}")
    if "text" in typed and "length" in typed:
        if not typed["length"].isdecimal():  # it is parsed as a word: without a TEXT it may be a range
            raise ValueError(f"--length is {shown(typed['length'])}; with a TEXT it must be a whole number")
        return typed | {"length": int(typed["length"][:30])}
    return typed
