"""A dataclass becomes a command line: a field says its help, the values it accepts, and what --quick makes of it."""

import argparse
import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from minitx.base.checks import positive, probability, whole_number


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), least: int | None = None,
           above_zero: bool = False, below: float = math.inf, is_probability: bool = False, quick: Any = None,
           metavar: str | None = None, positional: bool = False) -> Any:
    """A field of a dataclass of options, with its default and one line of help.

    Its value may be restricted: it is one of ``choices``, it is a whole number that is at least ``least``, it is a
    number ``above_zero`` and ``below`` a limit, or it ``is_probability``. With ``--quick``, the value of an option that
    was not typed is at most ``quick``. Help calls the value ``metavar`` (by default a letter for its type). An option
    that is ``positional`` is typed without its name.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "choices": choices, "least": least, "above_zero": above_zero, "below": below,
        "is_probability": is_probability, "quick": quick, "metavar": metavar, "positional": positional})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that every command has. A command's own dataclass extends it; an instance is a checked configuration.

    Raises
    ------
    ValueError
        A value that the option does not accept; the message names the option as it is typed.
    """

    seed: int = option(0, "seed of everything that is drawn", least=0)
    threads: int | None = option(None, "threads to use; all cores when not given. Results do not depend on it", least=1)
    out: str = option("minitx-out", "folder for figures, results.json, report.html and weights", metavar="DIR")
    quick: bool = option(False, "the same job in seconds: small sizes and few steps")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, value, says = typed_name(field.name), getattr(self, field.name), field.metadata
            if not says or value is None and field.default is None:
                continue
            if says["choices"] and value not in says["choices"]:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(says['choices'])}")
            if says["least"] is not None:
                whole_number(name, value, says["least"])
            if says["above_zero"]:
                positive(name, value, below=says["below"])
            if says["is_probability"]:
                probability(name, value)
        if not self.out:
            raise ValueError("--out is empty; it must name a folder")


Some = TypeVar("Some", bound=Options)


def typed_name(name: str) -> str:
    """An option as it is typed: ``--learning-rate`` for the field ``learning_rate``."""
    return "--" + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser, kinds: dict[str, type[Options]]) -> None:
    """Declare on ``parser`` the options of one or several dataclasses, {heading: dataclass}.

    An option of several dataclasses is declared once. Options that are not typed stay unset, so that
    :func:`read_options` can tell them from those that were typed.
    """
    owners: dict[str, dict[str, dataclasses.Field]] = {}  # {name of the option: {heading: field}}
    for heading, kind in kinds.items():
        for field in dataclasses.fields(kind):
            if field.init:
                owners.setdefault(field.name, {})[heading] = field
    groups: dict[tuple[str, ...], Any] = {}
    for having in owners.values():
        headings, field = tuple(having), next(iter(having.values()))
        ungrouped = field.metadata["positional"] or len(kinds) == 1
        if not ungrouped and headings not in groups:
            groups[headings] = parser.add_argument_group(_title(headings, len(kinds)))
        _add(parser if ungrouped else groups[headings], field, _described(having))


def _title(headings, n_kinds):
    """The heading of options that these dataclasses have, of ``n_kinds``."""
    if len(headings) == n_kinds:
        return "options of both" if n_kinds == 2 else "options of all"
    return " and ".join([headings[0], *(heading.removeprefix("options ") for heading in headings[1:])])


def _described(having):
    """The help of an option with its default, and where dataclasses differ, that of each."""
    texts = {}
    for heading, field in having.items():
        shown = "" if field.default in (None, "", False, True) else f" (default: {field.default})"
        texts[heading.removeprefix("options ")] = (field.metadata["help"] + shown).replace("%", "%%")
    first, *others = texts.items()
    return "; ".join([first[1], *(f"{heading}: {text}" for heading, text in others if text != first[1])])


def _add(group, field, text):
    says, settings = field.metadata, {"default": argparse.SUPPRESS, "help": text}
    kind = value_type(field)
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
    elif says["choices"]:
        settings |= {"type": kind, "choices": says["choices"]}
    else:
        settings |= {"type": kind, "metavar": says["metavar"] or {int: "N", float: "X", str: "STR"}[kind]}
    if says["positional"]:
        group.add_argument(field.name, nargs="?", **settings)
    else:
        group.add_argument(typed_name(field.name), **settings)


def value_type(field: dataclasses.Field) -> Any:
    """The type of an option's values: ``int`` of ``int | None``."""
    if isinstance(field.type, types.UnionType):
        return next(part for part in typing.get_args(field.type) if part is not type(None))
    return field.type


def read_options(kind: type[Some], typed: dict[str, Any]) -> Some:
    """The configuration of a run: what was typed, {name: value}, and the defaults of other options.

    With ``--quick`` an option that was not typed has at most the value ``quick`` of its field.
    """
    lowered = {}
    if typed.get("quick"):
        for field in dataclasses.fields(kind):
            most = field.metadata.get("quick")
            if most is not None and field.name not in typed:
                lowered[field.name] = most if field.default is None else min(field.default, most)
    return kind(**(lowered | typed))
