"""This room holds what every other room may use; nothing here imports another room.

- ``checks``: settings and arrays are checked at the door of public functions; files are written whole or not at all.
- ``shown``: results show themselves on a line, their arrays by shape, dtype and norm.
- ``parallel``: threads share the work, with the same bits for any number of them; all numba kernels take their flags
  from here.
- ``numbers``: norms, cosines, relative errors, agreement of weights and total variation are computed; Newton's method
  minimises.
- ``options``: a dataclass becomes a command line. ``tables``: results become lines of text. ``console``: lines and
  progress appear on a terminal. ``style``: all figures share one style. ``report``: results become JSON.
- ``page``: results become one self-contained HTML page, with ``page.css`` and ``page.js``. ``svg``: figures are drawn
  inside it.
- ``checkpoint``: the state of a run is kept in a file, and read again to the same bits.
- ``folder``: a run learns whose results a folder holds, and whether it may write there.
- ``compiling``: a reader is told when kernels are compiled, which only a new installation does.
- ``manual``: help is laid out like a manual page.
- ``config``: options are read from a file, or from the run that is continued.
- ``command``: every command runs in the same way, from its options to its files and its exit status.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitx.base import (
        checkpoint,
        checks,
        command,
        compiling,
        config,
        console,
        folder,
        manual,
        numbers,
        options,
        page,
        parallel,
        report,
        shown,
        style,
        svg,
        tables,
    )

__all__ = [
    "checkpoint", "checks", "command", "compiling", "config", "console", "folder", "manual", "numbers", "options",
    "page", "parallel", "report", "shown", "style", "svg", "tables",
]


def __getattr__(name: str) -> Any:
    """Import a module when it is first used: some of them import packages that most work does not need."""
    if name in __all__:
        return import_module(f"minitx.base.{name}")
    raise AttributeError(f"module 'minitx.base' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
