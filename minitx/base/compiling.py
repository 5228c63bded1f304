"""The decorators of all kernels: their flags, and their cache on disk.

Kernels are compiled when they are first used, once for an installation; a command says so while a reader waits.
"""

import functools
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import overload
from tqdm import tqdm

EVERY = 10.0  # seconds between two lines


class _Cache(FunctionCache):
    """Numba's cache of a kernel on disk, which lasts as long as no file of kernels changes.

    Numba's own lasts as long as the file of the kernel itself does not change, and misses a change of a kernel that it
    calls from another file.
    """

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp(), _sources()
        self._cache_file = IndexDataCacheFile(self.cache_path, self._impl.filename_base, stamp)


@functools.cache
def _sources():
    """A digest of this file and of all files of kernels; an editor's lock of a file may be a link to nothing."""
    files = [Path(__file__), *sorted(Path(__file__).parents[1].rglob("*kernels.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files if path.exists())).digest()


def _compiled_by(fastmath, inline="never"):
    """A decorator that makes a kernel with these flags."""
    def decorate(function):
        made = numba.njit(function, fastmath=fastmath, nogil=True, error_model="numpy", inline=inline)
        if made is not function:  # numba is not switched off
            made._cache = _Cache(function)
        return made
    return decorate


# The flag sets of all kernels. In `kernel` sums may be reassociated, so that they vectorise; nnan and ninf stay out, so
# that an inf or nan is seen. `ordered_kernel` computes as written: for differences whose digits depend on the order of
# operations. It says so to numba, which otherwise compiles a kernel with the flags of the kernel that calls it first.
# A `part_of_kernel` is an ordered kernel that is copied into the ordered kernels which call it: numba compiles a kernel
# by itself and once more within its caller, so that a step of many small ones took 21 s to compile instead of 17.
# `compiled` replaces a plain function of numbers, within kernels, by one that it chooses for their type; products and
# sums may be contracted there, nothing else.
kernel = _compiled_by({"reassoc", "contract", "arcp", "nsz"})
ordered_kernel = _compiled_by(False)
part_of_kernel = _compiled_by(False, inline="always")
compiled = functools.partial(overload, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})


_spent = 0.0  # seconds in which kernels were compiled, within `told`


def clock() -> float:
    """The seconds of ``time.perf_counter`` without those in which kernels were compiled within :func:`told`."""
    return time.perf_counter() - _spent


class _Listener(event.Listener):
    """Prints a line on stderr when the first kernel is compiled, and then at most one in ``EVERY`` seconds.

    It also adds up the time of compiling, for :func:`clock`. Numba compiles one kernel at a time, and within it those
    that it calls.
    """

    def __init__(self) -> None:
        self.number, self.shown = 0, 0.0
        self.depth, self.began = 0, 0.0

    def on_start(self, event: Any) -> None:
        """A kernel is about to be compiled, which it is not where numba's cache has it; parts of numba do not count."""
        if self.depth == 0:
            self.began = time.perf_counter()
        self.depth += 1
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
        """Nothing is said at the end; the time since the start is added up."""
        global _spent
        self.depth -= 1
        if self.depth == 0:
            _spent += time.perf_counter() - self.began


@contextmanager
def told() -> Iterator[None]:
    """Within this context stderr is told of every kernel that is compiled, so that no wait is a silent one."""
    with event.install_listener("numba:compile", _Listener()):
        yield
