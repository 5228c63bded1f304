"""Settings and arrays are checked at the door of public functions; files are written whole or not at all."""

import math
import numbers
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def whole_number(name: str, value: Any, least: int) -> int:
    """``value`` as an int. ValueError unless it is a whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def positive(name: str, value: Any, below: float = math.inf) -> float:
    """``value`` as a float. ValueError unless it is a number above 0 and below ``below``."""
    if not _is_real(value) or not 0 < value < below:
        limit = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} is {value!r}; it must be a number above 0, {limit}")
    return float(value)


def probability(name: str, value: Any) -> float:
    """``value`` as a float. ValueError unless it is a number from 0 to 1."""
    if not _is_real(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; it must be a probability, a number from 0 to 1")
    return float(value)


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def integers(name: str, array: ArrayLike, ndim: int) -> NDArray[np.int64]:
    """``array`` as int64. TypeError unless it holds integers, ValueError unless it has ``ndim`` dimensions."""
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must be a {ndim}-dimensional array, got shape {array.shape}")
    return array.astype(np.int64)


@contextmanager
def atomic(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a new file for writing. It replaces ``path`` when all is written, and is deleted after any error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def output_folder(path: str | os.PathLike) -> Path:
    """The folder ``path``, created if it is absent. ValueError, with the reason, if it cannot be written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {path}: {error.strerror}; "
                         "choose another with --out") from error
    return path
