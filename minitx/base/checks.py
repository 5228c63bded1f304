"""Settings and arrays are checked at the door of public functions; files are written whole or not at all."""

import math
import numbers
import os
import tempfile
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Seed = int | np.random.Generator | None
MOST_ENTRIES = 2**31  # of one array: 16 GiB of float64; a larger one is a slip of the keyboard


def described(value: Any) -> str:
    """What a user gave, as errors say it: its kind and size, never all that it holds."""
    if value is None or isinstance(value, (bool, numbers.Number)):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} digits)"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"a string of {len(value):,} letters that begins {value[:40]!r}"
    if isinstance(value, os.PathLike):
        return f"the path {os.fspath(value)!r}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    if type(value) in (list, tuple, dict, set) and len(value) <= 6 and len(text := repr(value)) <= 40:
        return text
    kind = type(value).__name__
    article = "an" if kind[0] in "AEIOUaeiou" and not kind.startswith("One") else "a"  # a OneHotWeights
    return f"{article} {kind} of length {len(value)}" if isinstance(value, Collection) else f"{article} {kind}"


def instance(name: str, value: Any, *kinds: type) -> None:
    """Raise TypeError, whose message says how to make one, unless ``value`` is one of ``kinds``.

    A class says how its objects are made in its attribute ``MADE_BY``.
    """
    if not isinstance(value, kinds):
        ways = [f"; make one with {made_by}" for kind in kinds if (made_by := getattr(kind, "MADE_BY", ""))]
        raise TypeError(f"{name} is {described(value)}; it must be of the type "
                        f"{' or '.join(kind.__name__ for kind in kinds)}{''.join(ways[:1])}")


def function(name: str, value: Any, call: str) -> None:
    """Raise TypeError unless ``value`` can be called; ``call`` shows how, such as "loss(weights, batch)"."""
    if not callable(value):
        raise TypeError(f"{name} is {described(value)}; it must be a function that is called as {call}")


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ValueError, whose message lists the ``choices``, unless ``value`` is one of them."""
    if not isinstance(value, Hashable) or value not in choices:
        raise ValueError(f"{name} is {described(value)}; it must be one of {', '.join(map(str, choices))}")


def truth(name: str, value: Any) -> bool:
    """Return ``value`` as a bool. Raises TypeError unless it is True or False: the string "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {described(value)}; it must be True or False")
    return bool(value)


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int. Raises ValueError unless it is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ValueError(f"{name} is {described(value)}; it must be a whole number, at least {least}")
    if most is not None and int(value) > most:
        raise ValueError(f"{name} is {described(value)}; it must be a whole number, at most {most:,}")
    return int(value)


def table_size(what: str, *shape: int) -> None:
    """Raise ValueError if an array of this ``shape`` has more than MOST_ENTRIES entries.

    The message calls the array ``what``, which also says what its sizes follow from.
    """
    if math.prod(shape) > MOST_ENTRIES:
        gigabytes = math.prod(shape) * 8 / 2**30
        raise ValueError(f"{what}: a table of {' x '.join(f'{size:,}' for size in shape)} numbers would take "
                         f"{f'{gigabytes:,.0f}' if gigabytes < 1e9 else f'{gigabytes:.3g}'} GiB; at most "
                         f"{MOST_ENTRIES:,} numbers are possible: give smaller sizes")


def steps_within(name: str, value: Any, first: int, last: int) -> set[int]:
    """Return ``value``, an iterable of steps, as a set of ints.

    Raises TypeError or ValueError unless all steps are whole numbers from ``first`` to ``last``.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {described(value)}; it must be steps from {first} to {last}, such as "
                        f"{name}=range({first}, {last + 1}) or {name}=[{last}]")
    found = set()
    for step in value:
        if isinstance(step, bool) or not isinstance(step, numbers.Integral) or not first <= int(step) <= last:
            raise ValueError(f"{name} holds {described(step)}; its entries must be steps, whole numbers from {first} "
                             f"to {last}")
        found.add(int(step))
    return found


def positive(name: str, value: Any, below: float = math.inf) -> float:
    """Return ``value`` as a float. Raises ValueError unless it is a number above 0 and below ``below``."""
    if not _is_real(value) or not 0 < value < below:
        limit = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} is {described(value)}; it must be a number above 0, {limit}")
    return float(value)


def positives(name: str, values: Any) -> Iterator[float]:
    """Each of ``values`` as a float, when it is asked for; ``name`` is that of one. Raises as :func:`positive`.

    TypeError unless ``values`` is an iterable of numbers.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}s is {described(values)}; it must be numbers above 0, such as {name}s=[1.0, 0.1]")
    return (positive(f"a {name}", value) for value in values)


def real_number(name: str, value: Any) -> float:
    """Return ``value`` as a float, which may be inf or nan. Raises TypeError unless it is a real number."""
    if not _is_real(value):
        raise TypeError(f"{name} is {described(value)}; it must be a real number")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """Return ``value`` as a float. Raises ValueError unless it is a finite number, at least 0."""
    if not _is_real(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is {described(value)}; it must be a finite number, at least 0")
    return float(value)


def probability(name: str, value: Any) -> float:
    """Return ``value`` as a float. Raises ValueError unless it is a number from 0 to 1."""
    if not _is_real(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {described(value)}; it must be a probability, a number from 0 to 1")
    return float(value)


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def generator(rng: Any) -> np.random.Generator:
    """Return the random generator of the seed ``rng``.

    Raises TypeError or ValueError unless ``rng`` is a seed, a Generator or None.
    """
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(seed(rng))


def seed(rng: Any) -> int | None:
    """Return ``rng`` as a seed; of a Generator, a number that is drawn from it. Raises as :func:`generator`."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if rng is not None and (isinstance(rng, bool) or not isinstance(rng, numbers.Integral)):
        raise TypeError(f"rng is {described(rng)}; it must be a whole number (the seed), a numpy.random.Generator, or "
                        "None for a seed of the moment")
    return None if rng is None else whole_number("rng", rng, 0)


def integers(name: str, array: ArrayLike, ndim: int) -> NDArray[np.int64]:
    """Return ``array`` as int64. Raises TypeError unless it holds integers, ValueError unless it is ``ndim``-D."""
    found = rectangular(name, array)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {_held(array, found)}")
    if found.ndim != ndim:
        raise ValueError(f"{name} must be a {ndim}-dimensional array, got shape {found.shape}")
    if found.dtype == np.uint64 and found.size and found.max() >= 2**63:
        raise ValueError(f"{name} hold {found.max()}; ids must be below 2^63")
    return found.astype(np.int64)


def reals(name: str, array: ArrayLike, *, finite: bool = True) -> NDArray[np.float64]:
    """Return ``array`` as float64.

    Raises TypeError unless it holds real numbers, and ValueError if its rows differ in length or, with ``finite``, if
    it holds inf or nan.
    """
    found = rectangular(name, array)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, got {_held(array, found)}")
    found = found.astype(np.float64, copy=False)
    if finite and not np.isfinite(found).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(found))} values of {name} are not finite; give numbers "
                         "without inf and nan")
    return found


def square(name: str, array: ArrayLike, size: int | None = None, *, finite: bool = True) -> NDArray[np.float64]:
    """``array`` as a float64 matrix, (size, size). Raises as :func:`reals`, and ValueError for other shapes."""
    found = reals(name, array, finite=finite)
    if found.ndim != 2 or found.shape[0] != (found.shape[1] if size is None else size) or len(set(found.shape)) > 1:
        wanted = "as many rows as columns" if size is None else f"{size} rows and {size} columns"
        raise ValueError(f"{name} has shape {found.shape}; it must be a matrix of {wanted}")
    return found


def require_shapes(arrays: Mapping[str, NDArray[Any]], letters: Mapping[str, Sequence[str]], *,
                   empty: bool = False) -> None:
    """Raise ValueError unless each of the ``arrays`` has a dimension for each of its ``letters``.

    A letter has one size throughout: {"M": "VV", "w": "V"} are a square matrix and a vector of as many entries. Two
    letters that differ by "+1" ("n", "n+1") differ by 1. Arrays hold something, unless they may be ``empty``.
    """
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        of = letters[name]
        for letter, size in zip(of, array.shape, strict=False):
            more = letter.endswith("+1")
            sizes.setdefault(letter.removesuffix("+1"), size - more)
        wanted = tuple(sizes.get(letter.removesuffix("+1"), -1) + letter.endswith("+1") for letter in of)
        if array.shape != wanted or not (empty or array.size):
            own = dict.fromkeys(letter.removesuffix("+1") for letter in of)
            known = ", ".join(f"{letter} = {sizes[letter]}" for letter in own if letter in sizes)
            raise ValueError(f"{name} has shape {array.shape}; it must be ({', '.join(of)}) with {known}"
                             + ", and not empty" * (not empty))


def rectangular(name: str, array: ArrayLike) -> NDArray[Any]:
    """``array`` as an array. ValueError, in words of its ``name``, if its rows have different lengths."""
    try:
        return np.asarray(array)
    except ValueError:
        raise ValueError(f"{name} is {described(array)} whose rows have different lengths; give an array, or rows of "
                         "one length") from None


def _held(given, found):
    """What an array is made of, which it should not be."""
    return f"dtype {found.dtype}" if found.ndim or isinstance(given, np.ndarray) else described(given)


def extra_package(module: str, what: str, package: str, extra: str) -> ModuleType:
    """Import and return the ``module`` of an optional ``package``.

    Raises ValueError, whose message has the line that installs the package, if it is not installed.
    """
    try:
        import_module(module.partition(".")[0])
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} need {package} ({error}): pip install 'minitx[{extra}]'") from error


def existing_file(path: Any, needed: str = "a file") -> Path:
    """Return ``path`` as a Path.

    Raises TypeError, FileNotFoundError or ValueError unless it names a file; messages call that file ``needed``.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {described(path)}; it must be the name of {needed}, a string or a Path")
    path = Path(path)
    if "\0" in str(path):
        raise ValueError(f"the name {str(path)!r} holds a NUL character, which no file name does; give {needed}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give {needed}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} (looked from {Path.cwd()}); check the name")
    return path


@contextmanager
def atomic(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a new file for writing. It replaces ``path`` when all is written, and is deleted after any error.

    An OSError, such as that of a full disk, names ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def writable_file(path: str) -> None:
    """ValueError, before any work is done, if ``--out`` is no file name in a folder that can be written to."""
    if not path or Path(path).is_dir() or not os.access(Path(path).parent, os.W_OK):
        raise ValueError(f"--out is {path!r}; it must name a file, in a folder that is there and can be written to")


def output_folder(path: str | os.PathLike) -> Path:
    """Return the folder ``path``, created if it is absent. Raises ValueError, with the reason, if it is read-only."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {path}: {error.strerror}; "
                         "choose another with --out") from error
    return path
