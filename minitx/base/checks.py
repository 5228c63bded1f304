"""Checks of settings at the door of public functions."""

import numbers
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def whole_number(name, value, least):
    """``value`` as an int. ValueError unless it is a whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def positive(name, value, below=float("inf")):
    """``value`` as a float. ValueError unless it is a number above 0 and below ``below``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < below:
        limit = "finite" if below == float("inf") else f"below {below:g}"
        raise ValueError(f"{name} is {value!r}; it must be a number above 0, {limit}")
    return float(value)


def probability(name, value):
    """``value`` as a float. ValueError unless it is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; it must be a probability, a number from 0 to 1")
    return float(value)


def integers(name, array, ndim):
    """``array`` as an int64 array of ``ndim`` dimensions. TypeError unless it holds integers, ValueError on another shape."""
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must be a {ndim}-dimensional array, got shape {array.shape}")
    return array.astype(np.int64)

@contextmanager
def atomic(path, mode="w"):
    """Open a file beside ``path`` for writing; it takes ``path``'s place when all is written, and vanishes on any error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def output_folder(path):
    """Create the folder ``path`` if needed and check that it can be written to. Raises ValueError saying what stands in the way."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {path}: {error.strerror}; choose another with --out") from error
    return path
