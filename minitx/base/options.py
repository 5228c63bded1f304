"""A command line made from a dataclass: every field says its help, the values that it accepts, and what ``--quick`` makes of it."""

import argparse
import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

from minitx.base.checks import positive, probability, whole_number

METAVARS = {int: "N", float: "X", str: "STR"}


def option(default: Any, help: str, *, choices: tuple = (), least: int | None = None, above_zero: bool = False,
           below: float = math.inf, is_probability: bool = False, quick: Any = None, metavar: str | None = None,
           positional: bool = False) -> Any:
    """A field of a dataclass of options.

    Parameters
    ----------
    default, help
        The value where the option is not typed, and one line that says what it is.
    choices : tuple of str
        The only values accepted. Empty: any.
    least : int, optional
        The option is a whole number, at least this.
    above_zero, below : bool, float
        The option is a number above 0 and below this limit.
    is_probability : bool
        The option is a number from 0 to 1.
    quick
        The largest value with ``--quick``, for an option that was not typed.
    metavar : str, optional
        What help calls the value. Default: by type.
    positional : bool
        The option is typed without its name.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "choices": choices, "least": least, "above_zero": above_zero, "below": below,
        "is_probability": is_probability, "quick": quick, "metavar": metavar, "positional": positional})


def typed_name(name: str) -> str:
    """How an option is typed: ``learning_rate`` is ``--learning-rate``."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that every command has. A command's own dataclass extends it; each instance is a checked configuration.

    Raises
    ------
    ValueError
        A value that the option does not accept, named as it is typed.
    """

    seed: int = option(0, "seed of everything that is drawn", least=0)
    threads: int | None = option(None, "threads to use; all cores when not given. Results do not depend on it", least=1)
    out: str = option("minitx-out", "folder for figures, results.json, report.html and weights", metavar="DIR")
    quick: bool = option(False, "the same job in seconds: small sizes and few steps")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and "help" in field.metadata:
                _check(typed_name(field.name), value, field.metadata)
        if not self.out:
            raise ValueError("--out is empty; it must name a folder")


def _check(name, value, says):
    """ValueError unless ``value`` is what the field's metadata ``says``."""
    if says["choices"] and value not in says["choices"]:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(says['choices'])}")
    if says["least"] is not None:
        whole_number(name, value, says["least"])
    if says["above_zero"]:
        positive(name, value, below=says["below"])
    if says["is_probability"]:
        probability(name, value)


def add_options(parser: argparse.ArgumentParser, kinds: dict[str, type[Options]]) -> None:
    """Declare on ``parser`` the options of one or several dataclasses, ``{heading: dataclass}``; shared ones are declared once.

    Options that are not typed stay unset, so that :func:`read_options` can tell them from those that were.
    """
    fields = {heading: {field.name: field for field in dataclasses.fields(kind) if field.init} for heading, kind in kinds.items()}
    groups: dict[tuple, Any] = {}
    for name in dict.fromkeys(name for own in fields.values() for name in own):
        having = tuple(heading for heading, own in fields.items() if name in own)
        first = fields[having[0]][name]
        group: Any = parser
        if not first.metadata["positional"] and len(kinds) > 1:
            title = having[0] if len(having) == 1 else "options of both"
            group = groups.setdefault(having, None) or parser.add_argument_group(title)
            groups[having] = group
        _add(group, first, _described([(heading, fields[heading][name]) for heading in having]))


def _described(fields):
    """Help of an option with its default; where dataclasses differ, of each."""
    texts = []
    for _, field in fields:
        shown = "" if field.default in (None, "", False, True) else f" (default: {field.default})"
        texts.append((field.metadata["help"] + shown).replace("%", "%%"))
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join([texts[0], *(f"{heading.removeprefix('options ')}: {text}"
                                  for (heading, _), text in zip(fields[1:], texts[1:], strict=True))])


def _add(group, field, text):
    says, settings = field.metadata, {"default": argparse.SUPPRESS, "help": text}
    kind = value_type(field)
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
    else:
        settings["type"] = kind
        settings |= {"choices": says["choices"]} if says["choices"] else {"metavar": says["metavar"] or METAVARS[kind]}
    if says["positional"]:
        group.add_argument(field.name, nargs="?", **settings)
    else:
        group.add_argument(typed_name(field.name), **settings)


def value_type(field: dataclasses.Field) -> Any:
    """The type of an option's values: ``int`` of ``int | None``."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def read_options(kind: type[Options], typed: dict[str, Any]) -> Options:
    """The configuration of a run: what was typed, and the defaults of the rest, reduced where ``--quick`` was typed.

    Parameters
    ----------
    kind : type
        The dataclass.
    typed : dict {name: value}
        The options that were typed.
    """
    reduced = {}
    if typed.get("quick"):
        for field in dataclasses.fields(kind):
            most = field.metadata.get("quick")
            if most is not None and field.name not in typed:
                reduced[field.name] = most if field.default is None else min(field.default, most)
    return kind(**(reduced | typed))
