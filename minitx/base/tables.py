"""Tables of text: one formatter for all that commands and experiments print."""

import math
from collections.abc import Iterable, Sequence

UNDEFINED = "undefined"
NOTHING = "-"


class Table:
    """Rows of a table that are printed one by one, while the work goes on: the widths of the columns are known before.

    Parameters
    ----------
    heads : sequence of str
        One for each column. The first column is aligned to the left if its head ends in a space, all others to the right.
    widths : sequence of int
        Characters of each column; two spaces stand between columns.
    """

    def __init__(self, heads: Sequence[str], widths: Sequence[int]):
        self.heads = heads
        self.widths = [max(width, len(head)) for head, width in zip(heads, widths, strict=True)]

    def header(self) -> str:
        """The line of heads."""
        return self.row(self.heads)

    def row(self, cells: Iterable[str]) -> str:
        """A line of cells; one for each column."""
        placed = [cell.ljust(width) if head.endswith(" ") else cell.rjust(width)
                  for cell, head, width in zip(cells, self.heads, self.widths, strict=True)]
        return "  ".join(placed).rstrip()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A whole table: every column as wide as its widest cell. ``heads`` as for :class:`Table`."""
    rows = [list(map(str, row)) for row in rows]
    found = Table(heads, [max(map(len, column)) for column in zip(heads, *rows, strict=True)])
    return "\n".join([found.header(), *map(found.row, rows)])


def number(value: float | None, digits: int = 4) -> str:
    """A number as tables show it: ``digits`` behind the point, or three digits and a power of ten from 10,000 on.

    ``None`` (nothing to show) is a dash; nan (nothing to compare) is the word "undefined".
    """
    if value is None:
        return NOTHING
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.2e}"
