"""How results show themselves on a line: numbers and names as they are, arrays by shape, dtype and norm."""

from collections.abc import Collection
from dataclasses import fields
from typing import Any

import numpy as np

FEW = 6  # a collection with more entries is shown by its length
LONG = 160  # characters; a longer field is shown by its kind


class Shown:
    """Base of dataclasses whose ``repr`` is one line, however large their arrays are; in a notebook, a table of fields.

    A dataclass writes a ``repr`` of its own, with every entry of every array, unless the class has one already. So
    every subclass is given this one when it is defined.
    """

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = _line  # type: ignore[method-assign]

    def _repr_html_(self) -> str:
        """The fields as a table, which notebooks show."""
        from minitx.base.page import element

        rows = (element("tr", element("th", field.name, style="text-align: left"),
                        element("td", brief(getattr(self, field.name)), style="text-align: left"))
                for field in fields(self) if field.repr)  # type: ignore[arg-type]
        return element("table", element("caption", type(self).__name__), *rows)


def _line(self):
    parts = (f"{field.name}={brief(getattr(self, field.name))}" for field in fields(self) if field.repr)
    return f"{type(self).__name__}({', '.join(parts)})"


def brief(value: Any) -> str:
    """One value of a result: an array by shape, dtype and norm, what is long by its kind and length."""
    if isinstance(value, np.ndarray):
        return f"<{' x '.join(map(str, value.shape))} {value.dtype}{_size(value)}>"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    many = isinstance(value, Collection) and not isinstance(value, str)
    if many and len(value) > FEW:
        text = None
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key!r}: {brief(item)}" for key, item in value.items()) + "}"
    elif type(value) in (list, tuple):
        text = f"{type(value).__name__}({', '.join(map(brief, value))})"
    else:
        text = repr(value)
    if text is not None and len(text) <= LONG:
        return text
    return f"<{type(value).__name__} of {len(value):,}>" if many else f"<{type(value).__name__}>"


def _size(array):
    if array.dtype.kind != "f" or not array.size:
        return ""
    with np.errstate(over="ignore", invalid="ignore"):
        return f", norm {np.sqrt(np.sum(np.square(array, dtype=np.float64))):.4g}"
