"""A run that was ended goes on: what it has done so far is kept in one file, and read again to the same bits.

The file is a .npz of arrays and of one text in JSON, which says where the arrays belong. It holds no code: reading it
makes plain values, arrays, and objects of the dataclasses that the reader expects.
"""

import dataclasses
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import atomic, described, whole_number
from minitx.base.console import Printer

SECONDS = 60.0  # between two writings, unless a number of steps is given
ABOUT = "about"  # the entry of the file that holds the text


class Checkpoint:
    """The file that keeps what a run has done: its parts, such as trainings, those that are finished and the last one.

    Parameters
    ----------
    path : str or Path
        The file (.npz). If it exists, the run goes on from it; it is written completely or not at all.
    every : int, optional
        A state is written when its number of steps is a multiple of ``every``. Default: after ``SECONDS`` seconds.
    about : dict, optional
        What decides the results of the run, as JSON can hold it. The file keeps it in ``self.about``.
    say : Printer, optional
        What prints the lines of the run and keeps them in ``say.lines``. Those of a part are kept with it, and are said
        again where the run goes on.

    Raises
    ------
    ValueError
        The file is damaged, or no checkpoint.
    """

    def __init__(self, path: str | os.PathLike, *, every: int | None = None, about: Mapping[str, Any] | None = None,
                 say: Printer | None = None):
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise TypeError(f"checkpoint is {described(path)}; it must be the name of a file, a string or a Path")
        self.path = Path(path)
        self.every = None if every is None else whole_number("every", every, 1)
        self.about, self.say = dict(about or {}), say
        self.parts: dict[str, tuple[Any, dict[str, NDArray]]] = {}  # {part: (tree, its arrays)}
        if self.path.exists():
            self.about, self.parts = _read(self.path)
        self.written = time.monotonic()

    def part(self, name: str) -> "Part":
        """The part ``name``; parts are told apart by their names."""
        return Part(self, name, len(self.say.lines) if self.say else 0)

    def write(self) -> None:
        """Write the file; after any error, or a kill, the one before it is there still."""
        trees = {name: tree for name, (tree, _) in self.parts.items()}
        text = json.dumps({"minitx": "checkpoint", "about": self.about, "parts": trees}).encode()
        arrays = {name: array for _, own in self.parts.values() for name, array in own.items()}
        with atomic(self.path, "wb") as file:
            np.savez(file, **{ABOUT: np.frombuffer(text, np.uint8)}, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        self.written = time.monotonic()

    def once(self, name: str, work: Callable[[], Any], *kinds: type) -> Any:
        """Return ``work()``, or what it returned when the run called it before it was ended.

        That may consist of plain values, arrays and the dataclasses ``kinds``.
        """
        part = self.part(name)
        found = part.read(*kinds)
        if found is None:
            found = (work(),)
            part.write(found)
        return found[0]


class Part:
    """A part of a run, whose state a :class:`Checkpoint` keeps."""

    def __init__(self, checkpoint: Checkpoint, name: str, first_line: int):
        self.checkpoint, self.name, self.first_line = checkpoint, name, first_line

    @property
    def exists(self) -> bool:
        """Whether a state was kept."""
        return self.name in self.checkpoint.parts

    def require(self, about: Mapping[str, str]) -> None:
        """Raise ValueError, which names the first difference, if the state was kept with another ``about``."""
        own = self.checkpoint.parts[self.name][0].get("about", {}) if self.exists else {}
        if other := [name for name in (*about, *own) if name in own and own[name] != about.get(name, own[name])]:
            raise ValueError(f"{self.checkpoint.path} holds another run: its setting {other[0]} differs; give the "
                             "settings of that run, or another file")

    def read(self, *kinds: type) -> Any:
        """The state that was kept; None if none was. Objects in it are of these dataclasses, the ``kinds``.

        The lines that the part had printed are said again. Raises ValueError if the state holds anything else.
        """
        if not self.exists:
            return None
        tree, arrays = self.checkpoint.parts[self.name]
        try:
            found = _decode(tree["state"], arrays, {kind.__name__: kind for kind in kinds})
            lines = [str(line) for line in tree["lines"]]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"{self.checkpoint.path}: its part {self.name!r} is not what this version of minitx "
                             f"writes ({error}); delete the file to begin anew") from error
        if self.checkpoint.say:
            for line in lines:
                self.checkpoint.say(line)
        return found

    def due(self, step: int) -> bool:
        """Whether the state after ``step`` steps is to be written."""
        if self.checkpoint.every is not None:
            return step % self.checkpoint.every == 0
        return time.monotonic() - self.checkpoint.written >= SECONDS

    def write(self, state: Any, about: Mapping[str, str] | None = None) -> None:
        """Keep ``state``: None, bools, numbers, strings, arrays, lists, tuples, dicts and dataclasses of these.

        ``about`` {setting: its fingerprint} is what :meth:`require` compares.
        """
        arrays: dict[str, NDArray] = {}
        lines = self.checkpoint.say.lines[self.first_line:] if self.checkpoint.say else []
        tree = {"state": _encode(state, arrays, self.name), "lines": lines, "about": dict(about or {})}
        self.checkpoint.parts[self.name] = tree, arrays
        self.checkpoint.write()


def _read(path):
    """Return ({...}, {part: (tree, arrays)}) of a file.

    Raises ValueError, with the path and the reason, if the file is no checkpoint.
    """
    try:
        with np.load(path) as file:
            found = dict(file)
        text = json.loads(found.pop(ABOUT).tobytes())
        if text["minitx"] != "checkpoint":
            raise KeyError("minitx")
        about, trees = dict(text["about"]), dict(text["parts"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of minitx; give another file, or delete it to begin anew") from error
    except (ValueError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged, it is not a whole .npz file ({error}); delete it to begin "
                         "anew") from error
    return about, {name: (tree, {key: array for key, array in found.items() if key.startswith(f"{name}/")})
                   for name, tree in trees.items()}


def _encode(value, arrays, name):
    """``value`` as JSON holds it; arrays are added to ``arrays`` under names that begin with ``name``."""
    into = partial(_encode, arrays=arrays, name=name)
    if isinstance(value, np.ndarray):
        key = f"{name}/{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {field.name: into(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return {"object": type(value).__name__, "fields": own}
    if isinstance(value, Mapping):
        return {"dict": [[into(key), into(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [into(item) for item in value]}
    if isinstance(value, list):
        return [into(item) for item in value]
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot keep {described(value)}; give None, numbers, strings, arrays, lists, tuples, "
                    "dicts and dataclasses of these")


def _decode(tree, arrays, kinds):
    """What :func:`_encode` was given; objects are of these ``kinds``, {name: dataclass}."""
    into = partial(_decode, arrays=arrays, kinds=kinds)
    if isinstance(tree, list):
        return [into(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    (kind, held), *fields = tree.items()
    if kind == "array":
        return arrays[held]
    if kind == "object":
        return kinds[held](**{name: into(item) for name, item in fields[0][1].items()})
    if kind == "dict":
        return {into(key): into(item) for key, item in held}
    if kind == "tuple":
        return tuple(map(into, held))
    raise ValueError(f"it holds a {kind!r}")


def digest(value: Any) -> str:
    """A fingerprint of arrays, numbers, strings, dataclasses and collections of such; of functions, their names.

    An object of another type is known by its type alone.
    """
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype.str}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            add(type(value).__name__)
            add({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        elif isinstance(value, Mapping):
            add([part for pair in value.items() for part in pair])
        elif isinstance(value, partial):
            add([value.func, value.args, value.keywords])
        elif isinstance(value, (str, bytes, bool, int, float)) or value is None:
            found.update(f"{type(value).__name__} {value!r};".encode())
        elif isinstance(value, (set, frozenset)):
            add(sorted(map(repr, value)))
        elif isinstance(value, Collection):
            found.update(f"{len(value)}[".encode())
            for item in value:
                add(item)
        else:
            named = value if callable(value) and hasattr(value, "__qualname__") else type(value)
            add(f"{named.__module__}.{named.__qualname__}")

    add(value)
    return found.hexdigest()
