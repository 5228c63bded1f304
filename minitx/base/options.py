"""A dataclass becomes a command line: a field says its help, the values it accepts, and what --quick makes of it."""

import argparse
import dataclasses
import math
import numbers
import os
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

MOST = 10**9  # largest whole number that an option accepts, unless it has a limit of its own
MANY = tuple[str, ...]  # the type of a positional option that may be typed several times
SHOWN = 60  # characters of a value that a message shows
# What library functions call the settings that an option of another name gives.
ELSEWHERE = {"n_vocab": "vocabulary", "n_windows": "windows", "n_topics": "topics", "n_samples": "samples",
             "n_classes": "classes", "n_tokens": "tokens", "n_documents": "documents"}


# Options on which no result depends: those that results.json keeps all the same, and those that it does not keep.
PLACES = frozenset({"threads", "out"})
HANDLING = frozenset({"config", "force", "resume", "checkpoint_every", "json", "check"})
# What the help of an option shows as an example, where its kind and its default do not make one.
EXAMPLES = {"out": "my-run", "text": "stories.txt", "texts": "stories.txt", "config": "my-run/results.json",
            "tokenizer": "tokenizer.json", "counts": "counts.npz", "scores": "counts.npz", "part": "2/8",
            "words": "fish,bird", "exclude": "tom,lily", "embeddings": "pythia-70m", "models": "pythia-70m",
            "length": "100-150", "seed": "7", "threads": "1", "check": "0.01", "alpha": "0.1", "windows": "200",
            "samples": "200", "workers": "2", "batch_size": "16", "width": "32", "tau": "3", "tokens": "1000",
            "checkpoint_every": "100", "word": "red", "other": "truck",
            "vocabulary_to": "words.json", "vocabulary_from": "words.json"}
INPUTS = ("text", "tokenizer", "counts", "embeddings", "models")  # options that name files to read


class NotAccepted(Exception):
    """An option does not accept the word that was typed. It is no ValueError, which argparse would tell in its words.
    """


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), least: int | None = None,
           above_zero: bool = False, below: float = math.inf, is_probability: bool = False, quick: Any = None,
           metavar: str | None = None, positional: bool = False, most: int | None = None) -> Any:
    """A field of a dataclass of options, with its default and one line of help.

    Its value may be restricted: it is one of ``choices``, it is a whole number that is at least ``least`` and at most
    ``most`` (default: ``MOST``, which no table or training that fits into a computer reaches), it is a number
    ``above_zero`` and ``below`` a limit, or it ``is_probability``. With ``--quick``, the value of an option that was
    not typed is at most ``quick``. Help calls the value ``metavar`` (by default a letter for its type). An option that
    is ``positional`` is typed without its name; of the type ``tuple[str, ...]``, it may be typed several times.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "choices": choices, "least": least, "above_zero": above_zero, "below": below,
        "is_probability": is_probability, "quick": quick, "metavar": metavar, "positional": positional,
        "most": MOST if most is None and least is not None else most})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A command's own dataclass of options extends it; an instance is a checked configuration.

    Raises
    ------
    ValueError
        A value that the option does not accept; the message names the option as it is typed.
    """

    next_word: ClassVar[int] = 0  # 1 if --length counts the word after a window, which a corpus does not count
    quick_note: ClassVar[str] = ""  # what --quick makes smaller besides options
    trains: ClassVar[bool] = True  # whether --quick cuts a training short

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, value, says = typed_name(field.name), getattr(self, field.name), field.metadata
            if not says or value is None and field.default is None:
                continue
            if reason := _refusal(says, value):
                raise ValueError(f"{name} is {shown(value)}; it must be {reason}")


def check_option() -> Any:
    """The option ``--check`` of a command that compares training with predictions (``Outcome.comparisons``)."""
    return option(None, "end with exit status 1 unless every number of training is within this relative error of what "
                  "theory predicts for it", above_zero=True, metavar="X")


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """The options that every command has which trains. Raises ValueError as :class:`Settings`."""

    command: ClassVar[str] = ""  # the command whose options these are, as results.json names it
    seed: int = option(0, "seed of all random draws", least=0, most=2**63 - 1)
    threads: int | None = option(None, "number of threads; all cores are used when it is not given. Results do not "
                                 "depend on it", least=1)
    out: str = option("minitx-out", "folder for figures, results.json, index.html and weights", metavar="DIR")
    quick: bool = option(False, "do the same job in seconds, with small sizes and few steps")
    config: str | None = option(None, "read options from a .toml file, or from the results.json of an earlier run, "
                                "which is then repeated; options that are typed take precedence", metavar="FILE")
    force: bool = option(False, "overwrite the results, or the checkpoint, of another run in the folder")
    json: bool = option(False, "print results.json alone to stdout, and what is otherwise printed to stderr")

    def __post_init__(self):
        super().__post_init__()
        if not self.out:
            raise ValueError("--out is empty; it must name a folder")


@dataclass(frozen=True, kw_only=True)
class Resumable(Options):
    """The options of a command whose run can be continued. Raises ValueError as :class:`Settings`."""

    checkpoint_every: int | None = option(None, "save the state of the run every K steps; it is saved every 60 "
                                          "seconds when this is not given", least=1, metavar="K")
    resume: bool = option(False, "continue the interrupted run in the folder, with the options that were typed for it")

    def __post_init__(self):
        super().__post_init__()
        if self.force and self.resume:
            raise ValueError("--resume goes on with a run and --force begins it anew; leave one of them out")


Some = TypeVar("Some", bound=Settings)


@typing.runtime_checkable
class Typed(typing.Protocol):
    """An error that tells itself in words of a command line."""

    def as_typed(self, next_word: int) -> str:
        """The sentence; ``next_word`` is that of :class:`Options`."""


def typed_name(name: str, value: Any = None) -> str:
    """An option as it is typed: ``--learning-rate`` for the field ``learning_rate``; ``--no-...`` for the value False.
    """
    return ("--no-" if value is False else "--") + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser, kinds: dict[str, type[Settings]]) -> None:
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
        return "options of every mode"
    return " and ".join([headings[0], *(heading.removeprefix("options ") for heading in headings[1:])])


def _described(having):
    """The help of an option: what it is, its default, and where dataclasses differ, those of each; and an example."""
    texts = {heading.removeprefix("options "): field.metadata["help"] + _default(field)
             for heading, field in having.items()}
    first, *others = texts.items()
    field = next(iter(having.values()))
    parts = ["; ".join([first[1], *(f"{heading}: {text}" for heading, text in others if text != first[1])])]
    if field.metadata["least"] is not None or field.metadata["above_zero"] or field.metadata["is_probability"]:
        accepted = _wanted(field.metadata, value_type(field))
        parts.append(accepted[0].upper() + accepted[1:])
    return ". ".join([*parts, f"Example: {example(field)}"]).replace("%", "%%")


def _default(field):
    """The default of an option as help shows it, and what --quick makes of it."""
    shown = [] if field.default in (None, "", False, True, ()) else [f"default: {field.default}"]
    if field.metadata["quick"] is not None:
        shown.append(f"with --quick {field.metadata['quick']:,}")
    return f" ({', '.join(shown)})" if shown else ""


def example(field: dataclasses.Field) -> str:
    """An option as it may be typed, with a value other than its default."""
    kind, says, default = value_type(field), field.metadata, field.default
    if kind is bool:
        return typed_name(field.name, not default)
    if says["choices"]:
        value = next(choice for choice in says["choices"] if choice != default)
    elif isinstance(default, float):
        value = f"{default / 2:g}"
    elif isinstance(default, int) and default:
        value = str(min(default * 2, says["most"]))
    else:
        usual = {int: str(max(says["least"] or 0, 1)), float: "0.5"}.get(kind, f"my-{field.name.replace('_', '-')}")
        value = EXAMPLES.get(field.name, usual)
        if isinstance(default, str) and "." in default:  # a file to write
            value = f"my-{default}"
    return value if says["positional"] else f"{typed_name(field.name)} {value}"


def _add(group, field, text):
    says, settings = field.metadata, {"default": argparse.SUPPRESS, "help": text}
    kind = value_type(field)
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
    elif kind != MANY:
        among = "{" + ",".join(says["choices"]) + "}" if says["choices"] else None
        settings |= {"type": _reader(field, kind),
                     "metavar": says["metavar"] or among or {int: "N", float: "X", str: "STR"}[kind]}
    if says["positional"]:
        many = {"nargs": "*", "metavar": says["metavar"]} if kind == MANY else {"nargs": "?"}
        group.add_argument(field.name, **many, **settings)
    else:
        group.add_argument(typed_name(field.name), **settings)


def _reader(field, kind):
    """What turns a typed word into a value of ``kind``; NotAccepted says what would."""
    says = field.metadata

    def read(word):
        try:
            value = kind(word)
        except ValueError:
            value = word
        if isinstance(value, str) and kind is not str or (reason := _refusal(says, value)):
            reason = _wanted(says, kind) if isinstance(value, str) and kind is not str else reason
            found = shown(word) if isinstance(value, str) else word.strip()[:SHOWN]
            raise NotAccepted(f"{typed_name(field.name)} is {found}; it must be {reason}")
        return value

    return read


def _wanted(says, kind):
    """The values that an option accepts, in words."""
    if says["choices"]:
        return "one of " + ", ".join(says["choices"])
    if says["least"] is not None:
        limit = f", at most {says['most']:,}" if says["most"] < MOST else ""
        return f"a whole number, at least {says['least']}{limit}"
    if says["is_probability"]:
        return "a probability above 0, at most 1" if says["above_zero"] else "a probability, a number from 0 to 1"
    if says["above_zero"]:
        return "a number above 0, " + ("finite" if says["below"] == math.inf else f"below {says['below']:g}")
    return {int: "a whole number", float: "a number"}[kind]


def _refusal(says, value):
    """The values that an option accepts, in words, if ``value`` is none of them; else None."""
    if says["choices"]:
        fits = value in says["choices"]
    elif says["least"] is not None:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if whole and value > says["most"]:
            return f"a whole number, at most {says['most']:,}"
        fits = whole and value >= says["least"]
    elif says["above_zero"] or says["is_probability"]:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        fits = real and (not says["above_zero"] or 0 < value < says["below"])
        fits = fits and (not says["is_probability"] or 0 <= value <= 1)
    else:
        return None
    return None if fits else _wanted(says, type(value))


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, and not longer than a line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def value_type(field: dataclasses.Field) -> Any:
    """The type of an option's values: ``int`` of ``int | None``."""
    if isinstance(field.type, types.UnionType):
        return next(part for part in typing.get_args(field.type) if part is not type(None))
    return field.type


def read_options(kind: type[Some], typed: dict[str, Any]) -> Some:
    """The configuration of a run: what was typed, {name: value}, and the defaults of other options.

    With ``--quick`` an option that was not typed has at most the value ``quick`` of its field.
    """
    try:
        return kind(**(lowered(kind, typed) | typed))
    except ValueError as error:  # of a library function, which does not know the options
        raise ValueError(as_typed(error, kind)) from error


def lowered(kind: type[Settings], typed: dict[str, Any]) -> dict[str, Any]:
    """What ``--quick`` makes of the options that were not typed, {name: value}; nothing without ``--quick``."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind) if typed.get("quick") else ():
        most = field.metadata.get("quick")
        if most is not None and field.name not in typed and (field.default is None or most < field.default):
            found[field.name] = most
    return found


def quick_line(options: Options, typed: dict[str, Any]) -> str | None:
    """The line that says what ``--quick`` made smaller; None without ``--quick``."""
    if not options.quick:
        return None
    changes = [f"{typed_name(name)} {value:,}" for name, value in lowered(type(options), typed).items()]
    if options.quick_note:
        changes.append(options.quick_note)
    short = "training is cut short; " if options.trains else ""
    return f"--quick: {short}this run has " + ", ".join(changes or ["every size as it was typed"])


def require_memory(needed: float, *settings: tuple[str, Any]) -> None:
    """Raise ValueError where ``needed`` bytes are more memory than this machine has.

    The message names the ``settings``, pairs (option, value), from which the need follows.
    """
    if hasattr(os, "sysconf") and needed > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        asked = " and ".join(f"{typed_name(name)} {f'{value:,}' if isinstance(value, int) else value}"
                             for name, value in settings)
        raise ValueError(f"{asked} would need about {needed / 1e9:,.0f} GB of memory, and this machine has "
                         f"{memory / 1e9:,.0f} GB; use smaller values")


def as_typed(error: BaseException, kind: type[Settings]) -> str:
    """What a library function found wrong, in one line, in which settings have the names of the options that give them.

    An error may tell it itself: its method ``as_typed(next_word)`` gives the sentence. In other messages ``n_vocab``
    becomes ``--vocabulary``, and ``batch_size=3`` becomes ``--batch-size 3``.
    """
    if isinstance(error, Typed):
        return error.as_typed(kind.next_word)
    message = str(error)
    fields = [field.name for field in dataclasses.fields(kind) if field.metadata]
    names = {name: name for name in fields} | {name: own for name, own in ELSEWHERE.items() if own in fields}
    for name, own in names.items():
        message = re.sub(rf"(?<![-\w]){name}=('?)([^\s,;)']+)\1", rf"{typed_name(own)} \2", message)
        if name in fields:
            message = re.sub(rf"^{name} is ", f"{typed_name(own)} is ", message)
        if "_" in name:
            message = re.sub(rf"(?<![-\w.]){name}\b", typed_name(own), message)
    return " ".join(message.split())
