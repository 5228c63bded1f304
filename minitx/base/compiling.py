"""Kernels are compiled when they are first used, once for an installation; a command says so while a reader waits."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event
from tqdm import tqdm

EVERY = 10.0  # seconds between two lines


class _Listener(event.Listener):
    """Prints a line on stderr when the first kernel is compiled, and then at most one in ``EVERY`` seconds."""

    def __init__(self) -> None:
        self.number, self.shown = 0, 0.0

    def on_start(self, event: Any) -> None:
        """A kernel is about to be compiled, which it is not where numba's cache has it; parts of numba do not count."""
        function = event.data["dispatcher"].py_func
        if function.__module__.startswith("numba."):
            return
        self.number += 1
        now = time.monotonic()
        if self.number == 1 or now - self.shown >= EVERY:
            self.shown = now
            first = " (a new installation does so once, which takes about a minute in all)" if self.number == 1 else ""
            tqdm.write(f"minitx: compiling kernel {self.number}, {function.__name__}{first}", file=sys.stderr)
            sys.stderr.flush()

    def on_end(self, event: Any) -> None:
        """Nothing is said at the end."""


@contextmanager
def told() -> Iterator[None]:
    """Within this context stderr is told of every kernel that is compiled, so that no wait is a silent one."""
    with event.install_listener("numba:compile", _Listener()):
        yield
