"""Threads: independent pieces of work on all cores, and the same bits for any number of them.

Bits survive a change of thread count because (1) what a piece of work is, and the order in which results are added, never
depends on the number of threads, and (2) BLAS itself runs on one thread inside :func:`workers`: OpenBLAS rounds float32 products
differently on one and on two threads (measured), so the threads are ours, one product each.
"""

import ctypes
import functools
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from scipy.linalg import cython_blas

from minitx.checks import whole_number

PANEL = 512  # most rows of one piece of a large product; fixed, so that the bits are
SMALL = 2**16  # multiplications of a product that OpenBLAS runs on one thread anyway: nothing to arrange (measured: 5 us, not 90)

_threads = None  # None: every core this process may use
_blas_lock, _blas_users, _blas_before = threading.Lock(), 0, ()


def set_threads(n_threads):
    """Use ``n_threads`` threads from now on (``None``: one per core this process may use). Results do not depend on it."""
    global _threads
    _threads = None if n_threads is None else whole_number("threads", n_threads, 1)


def get_threads():
    """Number of threads that will be used."""
    if _threads is not None:
        return _threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(n_pieces=2):
    """Yield ``map(function, items) -> list``, run by up to :func:`get_threads` threads, with BLAS on one thread each.

    ``n_pieces`` is the largest number of items that will be mapped at once: for a single one no thread is started.
    """
    n_threads = max(1, min(get_threads(), n_pieces))
    with one_blas_thread():
        if n_threads == 1:
            yield lambda function, items: [_quietly(function, item) for item in items]
            return
        pool = ThreadPoolExecutor(n_threads)
        try:
            yield lambda function, items: list(pool.map(functools.partial(_quietly, function), items))
        finally:  # after Ctrl-C, do not start what is still queued
            pool.shutdown(wait=True, cancel_futures=True)


def _quietly(function, item):
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # training that diverges is found, and said, by its loss
        return function(item)


def matmul(a, b):
    """``a @ b``, by fixed panels of rows if it is large: all threads, the same bits for any number of them."""
    if a.size * b.shape[1] <= SMALL:
        return _quietly(lambda right: a @ right, b)
    out = np.empty((a.shape[0], b.shape[1]), np.result_type(a, b))
    n_panels = 1
    while n_panels * PANEL < a.shape[0]:
        n_panels *= 2  # equal panels, as many for each of 2, 4, 8 threads
    edges = [a.shape[0] * panel // n_panels for panel in range(n_panels + 1)]
    panels = [slice(*pair) for pair in itertools.pairwise(edges)]
    with workers(len(panels)) as run:
        run(lambda rows: np.matmul(a[rows], b, out=out[rows]), panels)
    return out


@contextmanager
def one_blas_thread():
    """BLAS on one thread within this context, or within a function that it decorates, whoever else is in one at the same time.

    Both that of NumPy and that of SciPy, which are two libraries in their wheels. Another BLAS than OpenBLAS is left alone.
    """
    global _blas_users, _blas_before
    controls = _openblas()
    with _blas_lock:
        if _blas_users == 0:
            _blas_before = [get() for get, _ in controls]
            for _, set_ in controls:
                set_(1)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                for (_, set_), before in zip(controls, _blas_before, strict=True):
                    set_(before)


@functools.cache
def _openblas():
    """(get, set) of each OpenBLAS that NumPy and SciPy are linked with."""
    found = []
    for extension in (np.linalg._umath_linalg, cython_blas):
        library = ctypes.CDLL(extension.__file__)  # symbols of its dependencies are found through it
        for prefix, suffix in itertools.product(("scipy_openblas", "openblas"), ("64_", "")):
            names = [f"{prefix}_{do}_num_threads{suffix}" for do in ("get", "set")]
            if all(hasattr(library, name) for name in names):
                found.append(tuple(getattr(library, name) for name in names))
                break
    return tuple(found)
