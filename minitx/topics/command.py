"""``minitx topics``: what embeddings, value matrix and attention learn of topics (Li, Li, Risteski, ICML 2023).

Without a TEXT it trains on documents drawn from known topics, beside the closed forms; with one, on topics fitted to
the text.
"""

import argparse
import dataclasses

from minitx.base.command import run_command
from minitx.base.options import add_options, read_options, shown, typed_name
from minitx.topics import command_documents, command_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of both modes."""
    add_options(parser, {"options without a TEXT": command_documents.Options,
                         "options with a TEXT": command_text.Options})


def main(arguments: argparse.Namespace) -> int:
    """Run the command from parsed arguments; the exit status is that of :func:`minitx.base.command.run_command`.

    ValueError says which option is not for the mode, or has a value that it does not accept.
    """
    typed = {name: value for name, value in vars(arguments).items() if name != "command"}
    mode, about, remedy = ((command_text, "a TEXT", "give no TEXT") if "text" in typed else
                           (command_documents, "documents of known topics", "give a TEXT"))
    known = {field.name for field in dataclasses.fields(mode.Options)}
    if stray := [typed_name(name, value) for name, value in typed.items() if name not in known]:
        are, them = ("is", "it") if len(stray) == 1 else ("are", "them")
        raise ValueError(f"{', '.join(stray)} {are} not for {about}; leave {them} out, or {remedy}")
    if mode is command_text and "length" in typed:
        if not typed["length"].isdecimal():  # it is parsed as a word: without a TEXT it may be a range
            raise ValueError(f"--length is {shown(typed['length'])}; with a TEXT it must be a whole number")
        typed["length"] = int(typed["length"][:30])
    file_names = (*command_documents.FIGURES, *command_documents.WEIGHTS, *command_text.FIGURES)
    return run_command(read_options(mode.Options, typed), typed, mode.run, file_names)
