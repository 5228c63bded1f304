"""``minitx topics``: what embeddings, value matrix and attention learn of topics (Li, Li, Risteski, ICML 2023).

Without a text, on documents drawn from known topics, beside the closed forms; with one, on topics fitted to it.
"""

import argparse
import dataclasses
import typing

from minitx.base import parallel
from minitx.base.checks import output_folder
from minitx.base.console import Printer, status
from minitx.topics import command_law as topics_synthetic
from minitx.topics import command_law_figures, command_text_figures
from minitx.topics import command_text as topics_text

CHOICES = {"loss": ("pooled", "per_document"), "head": topics_synthetic.HEADS}
METAVARS = {int: "N", float: "X", str: "STR"}


def add_arguments(parser):
    """Declare the options of both modes on an argparse parser; what is not given is left unset, for each has its own defaults."""
    parser.add_argument("text", nargs="?", metavar="TEXT", default=argparse.SUPPRESS,
                        help="text to read: .txt, .jsonl, .json, or .gz of each; without it, documents of known topics")
    groups = {"synthetic": parser.add_argument_group("options without a TEXT"),
              "text": parser.add_argument_group("options with a TEXT"), "both": parser.add_argument_group("options of both")}
    synthetic, text = ({option.name: option for option in dataclasses.fields(mode.Options) if option.init}
                       for mode in (topics_synthetic, topics_text))
    for name, option in (text | synthetic).items():
        if name != "text":
            where = "both" if name in synthetic and name in text else "synthetic" if name in synthetic else "text"
            _add(groups[where], name, option, *_described(name, synthetic.get(name), text.get(name)))


def _described(name, synthetic, text):
    """(help, default) of an option; where the modes differ, of both."""
    helps = [mode.HELP[name] for mode, option in ((topics_synthetic, synthetic), (topics_text, text)) if option]
    defaults = [str(option.default) for option in (synthetic, text) if option]
    return tuple(parts[0] if len(set(parts)) == 1 else f"{parts[0]}; with a TEXT: {parts[1]}" for parts in (helps, defaults))


def _add(group, name, option, text, default):
    flag, settings = "--" + name.replace("_", "-"), {"default": argparse.SUPPRESS}
    if option.type is bool:
        settings["action"] = argparse.BooleanOptionalAction if option.default else "store_true"
    else:
        settings["type"] = next(iter(typing.get_args(option.type)), option.type)  # int of int | None
        settings.update({"choices": CHOICES[name]} if name in CHOICES else {"metavar": METAVARS[settings["type"]]})
    if option.type is not bool and option.default not in (None, ""):
        text += f" (default: {default})"
    group.add_argument(flag, help=text.replace("%", "%%"), **settings)


def _typed(option, value):
    """``value`` as the mode has it: --length is a number with a TEXT, and may be a range without."""
    if option.type is int and isinstance(value, str):
        if not value.isdecimal():
            raise ValueError(f"--{option.name} is {value!r}; with a TEXT it must be a whole number")
        return int(value)
    return value


def main(arguments):
    """Run the command from parsed arguments.

    Returns the exit status: 0; 1 when training diverged, 130 when it was interrupted (what was done is written all the same).
    """
    given = {name: value for name, value in vars(arguments).items() if name != "command"}
    mode = topics_text if "text" in given else topics_synthetic
    known = [option.name for option in dataclasses.fields(mode.Options) if option.init]
    if stray := ["--" + name.replace("_", "-") for name in given if name not in known]:
        raise ValueError(f"{', '.join(stray)} {'is' if len(stray) == 1 else 'are'} not for "
                         f"{'a TEXT' if mode is topics_text else 'documents of known topics'}; leave out, or "
                         f"{'give no TEXT' if mode is topics_text else 'give a TEXT'}")
    options = mode.Options(**{option.name: _typed(option, given[option.name])
                              for option in dataclasses.fields(mode.Options) if option.name in given})
    parallel.set_threads(options.threads)
    folder = output_folder(options.out)
    say = Printer()
    result = mode.run(options, say)
    for name in (*command_law_figures.NAMES, *command_text_figures.NAMES):  # of an earlier run
        (folder / name).unlink(missing_ok=True)
    files = mode.write(result, folder, say.lines)
    say(f"\nwritten to {folder}/: {', '.join(files)}")
    return status(result.stopped)
