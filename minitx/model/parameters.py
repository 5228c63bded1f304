"""What weights, circuits and their gradients share: named arrays, some of which may be absent."""

import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minitx.base.checks import atomic, described, existing_file, rectangular, require_shapes
from minitx.base.shown import Shown

if TYPE_CHECKING:
    from minitx.data.batch import Batch
    from minitx.model.circuits import Circuits

Array = NDArray[Any]
Seed = int | np.random.Generator | None
Kind = TypeVar("Kind", bound="Parameters")
KIND = "kind of weights"  # the entry of a file that names the class of its weights


def read_only(array: Array) -> Array:
    """A view of ``array`` that cannot be written to. It is no copy, so a change of ``array`` itself shows in it."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def or_empty(table: Array | None, ndim: int, dtype: DTypeLike) -> Array:
    """A table for a kernel, to which an absent one is an empty array of as many dimensions.

    The array is read-only, as the tables of Circuits are: numba compiles a kernel once for read-only arrays, and once
    more for others.
    """
    return read_only(np.empty((0,) * ndim, dtype)) if table is None else table


def float_dtype(dtype: Any) -> np.dtype:
    """``dtype`` as a dtype. Raises TypeError unless it is float64, float32, or complex128, which complex steps need."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        found = np.dtype(object)
    if found.char not in "dfD":
        raise TypeError(f"dtype is {described(dtype)}; it must be float64 or float32")
    return found


class Parameters(Shown):
    """Base of frozen dataclasses whose fields are arrays, or None where a part is absent.

    A parametrisation adds two methods: ``circuits()`` builds the tables, ``pullback(gradient)`` carries their gradient
    back. The arrays are read-only views of those given, without a copy: ``weights.W[0] = 1`` raises ValueError. If you
    change your own array later, the weights made from it change too; give a copy where that is not wanted.
    """

    MADE_BY: ClassVar[str] = ("OneHotWeights.zeros(n_vocab, length), EmbeddedWeights.gaussian(n_vocab, W_E=...), "
                              "LastTokenWeights.zeros(n_vocab), Circuits(...), or a parametrisation of your own")
    SHAPES: ClassVar[dict[str, str]] = {}  # {part: one letter for each dimension}; a letter has one size throughout

    def circuits(self) -> "Circuits":
        """The tables that these weights make."""
        raise NotImplementedError

    def pullback(self: Kind, gradient: "Circuits") -> Kind:
        """dL/dweights from dL/dcircuits."""
        raise NotImplementedError

    def own_loss_and_gradient(self: Kind, batch: "Batch") -> "tuple[float, Kind] | None":
        """Loss and gradient of weights that circuits do not describe; None: the circuits give them."""
        return None

    def own_loss(self, batch: "Batch") -> float | None:
        """Loss of weights that circuits do not describe; None: the circuits give it."""
        return None

    def require_floats(self, *names: str) -> None:
        """Make these parts read-only arrays. Raises TypeError unless all are float64, or all float32 (or complex)."""
        for name in names:
            array = rectangular(name, getattr(self, name))
            if array.dtype.char not in "dfD":
                raise TypeError(f"{name} must be an array of float64 or float32, got dtype {array.dtype}")
            object.__setattr__(self, name, read_only(array))
        dtypes = {name: array.dtype for name, array in self.parameters().items() if array.dtype.char in "df"}
        if len(set(dtypes.values())) > 1:
            raise TypeError("all weights must be float64, or all float32; got "
                            + ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items()))

    def require_shapes(self, equal: Mapping[str, str] = MappingProxyType({})) -> None:
        """Raise ValueError unless the parts have the SHAPES; ``equal`` {letter: other} names sizes that are equal."""
        require_shapes(self.parameters(), {name: [equal.get(letter, letter) for letter in letters]
                                           for name, letters in self.SHAPES.items()})

    @classmethod
    @functools.cache
    def _names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # subclasses are dataclasses

    def parameters(self) -> dict[str, Array]:
        """{name: array} of the parts that are present."""
        return {name: array for name in self._names() if (array := getattr(self, name)) is not None}

    def matrices(self) -> dict[str, Array]:
        """{name: array} of what a theory predicts one by one: the parts, or, of several layers, those of each layer."""
        return self.parameters()

    def with_matrices(self: Kind, changed: Mapping[str, Array]) -> Kind:
        """The same weights, in which some of the :meth:`matrices` are others."""
        return replace(self, **changed)  # type: ignore[type-var]

    def map(self: Kind, function: Callable[..., Array], *others: "Parameters") -> Kind:
        """The same kind of object, made of ``function(array, *arrays of others)``; what is absent stays absent."""
        parts = {name: function(array, *(getattr(other, name) for other in others))
                 for name, array in self.parameters().items()}
        return type(self)(**{name: parts.get(name) for name in self._names()})

    def astype(self: Kind, dtype: DTypeLike) -> Kind:
        """The same values in another precision (float64 or float32)."""
        dtype = float_dtype(dtype)
        return self.map(lambda array: array.astype(dtype))

    def circuits_for(self, tokens: Array) -> "Circuits":
        """The circuits when only the ov rows of ``tokens`` will be read; a parametrisation may save work here."""
        return self.circuits()

    def not_finite(self) -> list[str]:
        """Names of the parts that hold an inf or a nan."""
        return [name for name, array in self.parameters().items()
                if not (np.isfinite(array.min()) and np.isfinite(array.max()))]

    def arrays(self) -> dict[str, Array]:
        """What a file of these weights holds: every part, and the name of their kind."""
        return {KIND: np.array(type(self).__name__), **self.parameters()}

    def save(self, path: str | Path) -> None:
        """Write :meth:`arrays` to ``path`` (.npz), completely or not at all; :func:`minitx.load` reads it."""
        with atomic(path, "wb") as file:
            np.savez(file, **self.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """Read what :meth:`save` wrote. Raises ValueError when the file does not hold these parts."""
        found = read_arrays(path)
        kind, names = str(found.pop(KIND, cls.__name__)), cls._names()
        if kind != cls.__name__:
            raise ValueError(f"{path} holds {kind}, not {cls.__name__}; minitx.load finds the kind by itself")
        try:
            return cls(**(dict.fromkeys(names) | found))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold the arrays {', '.join(names)} of {cls.__name__}: it holds "
                             f"{', '.join(found) or 'none'}") from error


def read_arrays(path: str | Path) -> dict[str, Array]:
    """{name: array} of a file of weights. Raises TypeError, FileNotFoundError or ValueError if it is none."""
    path = existing_file(path, "a file of weights (.npz)")
    try:
        with np.load(path) as file:
            return dict(file)
    except (TypeError, ValueError, AttributeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a file of weights: it is not a whole .npz file of arrays") from error
