"""Results are written as one JSON file; :mod:`minitx.base.page` writes the page that shows them."""

import dataclasses
import json
import math
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from minitx.base import parallel
from minitx.base.checks import atomic

PACKAGES = ("minitx", "numpy", "scipy", "numba", "matplotlib")


def environment() -> dict[str, Any]:
    """Versions, machine and threads, which a reader needs to repeat a result."""
    versions = {package: import_module(package).__version__ for package in PACKAGES}
    return {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
            "threads": parallel.get_threads(), "packages": versions}


def plain(value: Any, where: str = "results") -> Any:
    """``value`` as JSON can hold it: dataclasses become objects; lists, tuples and arrays become lists.

    JSON has no number that is infinite or undefined. These become the strings "Infinity", "-Infinity" and "NaN", which
    ``float`` reads back; null stands for None alone. Error messages call the value ``where``.

    Raises
    ------
    TypeError
        A value of another type, such as a set; a key that is neither a string nor a whole number.
    ValueError
        Keys that would be written alike, such as 1 and "1".
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), f"{where}.{field.name}")
                for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, (str, int, np.integer)):
                raise TypeError(f"{where} has the key {key!r}, a {type(key).__name__}; "
                                "it must be a string or a whole number")
            name = str(key)
            if name in found:
                raise ValueError(f"two keys of {where} would both be written as {name!r}; give them different names")
            found[name] = plain(item, f"{where}[{key!r}]")
        return found
    if isinstance(value, (np.ndarray, np.bool_, np.integer, np.str_)):
        return plain(value.tolist(), where)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold; "
                    "give a dict, a list, an array, a string or a number")


def rounded(matrix: Any) -> list[list[float]]:
    """The rows of a matrix with four significant digits, which is enough for a picture of it."""
    return [[float(f"{value:.4g}") for value in row] for row in matrix]


def write_json(path: str | Path, results: Any) -> None:
    """Write ``results`` in the form that :func:`plain` gives them, completely or not at all.

    Every command writes ``command`` (its name), ``asked`` (the options that were typed), ``configuration`` (all
    options), ``inputs`` ({option: SHA-256 of the files it names}), ``environment`` (see :func:`environment`),
    ``comparisons`` ({what: its number ``trained``, that ``predicted`` by theory, and their ``relative error``}, which
    ``--check`` judges), ``curves`` (what the figures show under the pointer) and ``stopped`` (why training ended
    early, or null) besides its own keys. These are documented
    where they are made: ``run`` of minitx.associations.command and of minitx.associations.command_why, ``numbers`` of
    minitx.topics.command_documents, ``_numbers`` of minitx.topics.command_text, ``run`` and ``_numbers`` of
    minitx.next_token.command.
    """
    text = json.dumps(plain(results), indent=1, allow_nan=False)
    with atomic(path) as file:
        file.write(text + "\n")
