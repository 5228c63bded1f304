"""What weights, circuits and their gradients share: named arrays, some of which may be absent."""

import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from minitx.base.checks import atomic


def read_only(array):
    """A view of ``array`` that cannot be written through; no copy. Who changes the array itself changes what the view shows."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


class Parameters:
    """Base of frozen dataclasses whose fields are arrays, or None where a part is absent.

    The arrays are read-only views of those given, without a copy: ``weights.W[0] = 1`` raises ValueError, and nothing in minitx
    writes to an array that it was given. If you change your own array
    later, the weights made from it change too; give a copy where that is not wanted.
    """

    def parameters(self):
        """{name: array} of the parts that are present."""
        return {name: array for name in self.__dataclass_fields__ if (array := getattr(self, name)) is not None}

    def map(self, function, *others):
        """The same kind of object of ``function(array, *arrays of others)``, part by part; what is absent stays absent."""
        parts = {name: function(array, *(getattr(other, name) for other in others))
                 for name, array in self.parameters().items()}
        return type(self)(**{field.name: parts.get(field.name) for field in fields(self)})

    def astype(self, dtype):
        """The same values in another precision (float64 or float32)."""
        return self.map(lambda array: array.astype(dtype))

    def circuits_for(self, tokens):
        """The circuits, of which only the ov rows of ``tokens`` will be read: a parametrisation may save work here."""
        return self.circuits()

    def not_finite(self):
        """Names of the parts that hold an inf or a nan."""
        return [name for name, array in self.parameters().items()
                if not (np.isfinite(array.min()) and np.isfinite(array.max()))]

    def save(self, path):
        """Write every part to ``path`` (.npz), completely or not at all."""
        with atomic(path, "wb") as file:
            np.savez(file, **self.parameters())

    @classmethod
    def load(cls, path):
        """Read what :meth:`save` wrote. Raises ValueError when the file does not hold these parts."""
        names = [field.name for field in fields(cls)]
        try:
            with np.load(Path(path)) as file:
                if not file.files or not set(file.files) <= set(names):
                    raise ValueError(f"it holds {', '.join(file.files) or 'nothing'}")
                return cls(**{name: file[name] if name in file.files else None for name in names})
        except (TypeError, ValueError, zipfile.BadZipFile, AttributeError) as error:
            raise ValueError(f"{path} does not hold the arrays {', '.join(names)} of {cls.__name__}: {error}") from error
