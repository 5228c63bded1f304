"""The one formatter of the tables that commands and experiments print."""

import math
from collections.abc import Iterable, Sequence

UNDEFINED = "undefined"  # what a cell shows where two things cannot be compared


class Table:
    """A table whose rows are printed one by one, while the work goes on.

    Parameters
    ----------
    heads : sequence of str
        The head of each column. A column whose head ends in a space is aligned to the left, others to the right.
    widths : sequence of int
        The number of characters of each column, or of its head if that is longer. Columns are two spaces apart.
    """

    def __init__(self, heads: Sequence[str], widths: Sequence[int]):
        self.heads = heads
        self.widths = [max(width, len(head)) for head, width in zip(heads, widths, strict=True)]

    def header(self) -> str:
        """The line of heads."""
        return self.row(self.heads)

    def row(self, cells: Iterable[str]) -> str:
        """The line of these cells, one for each column."""
        placed = [cell.ljust(width) if head.endswith(" ") else cell.rjust(width)
                  for cell, head, width in zip(cells, self.heads, self.widths, strict=True)]
        return "  ".join(placed).rstrip()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a whole table, whose columns are as wide as their widest cells; ``heads`` as for :class:`Table`."""
    rows = [list(map(str, row)) for row in rows]
    found = Table(heads, [max(map(len, column)) for column in zip(heads, *rows, strict=True)])
    return "\n".join([found.header(), *map(found.row, rows)])


def number(value: float | None, digits: int = 4) -> str:
    """A number with ``digits`` digits behind the point, or with three digits and a power of ten from 10,000 on.

    ``None`` becomes a dash, and nan the word "undefined".
    """
    if value is None:
        return "-"
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.2e}"
