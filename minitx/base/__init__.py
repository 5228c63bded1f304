"""What every room of minitx may use; nothing here imports another room.

- ``checks``: settings and arrays are checked at the door of public functions; files are written whole or not at all.
- ``shown``: results show themselves on a line, their arrays by shape, dtype and norm.
- ``parallel``: threads, the same bits for any number of them, and the flags of all numba kernels.
- ``numbers``: norm, cosine, relative error, agreement of weights, total variation, and Newton's method.
- ``options``: a dataclass becomes a command line. ``tables``: results become lines of text. ``console``: what a run
  shows on a terminal. ``style``: what figures share. ``report``: results become JSON.
- ``page``: one self-contained HTML page, with ``page.css`` and ``page.js``; ``svg``: the figures inside it.
- ``checkpoint``: what a run has done so far is kept in a file, and read again to the same bits.
- ``folder``: whose results a folder holds, and whether another run may write there.
- ``compiling``: a reader is told when kernels are compiled, which only a new installation does.
- ``manual``: help reads like a manual page.
- ``config``: options of a file, or of the run that goes on.
- ``command``: how every command runs, from its options to its files and its exit status.
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
