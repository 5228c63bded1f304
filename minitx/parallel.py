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

from minitx.checks import whole_number

PANEL = 512  # most rows of one piece of a large product; fixed, so that the bits are

_threads = None  # None: every core this process may use
_blas_lock, _blas_users, _blas_before = threading.Lock(), 0, None


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
    """``a @ b`` for large matrices, by fixed panels of rows: all threads, the same bits for any number of them."""
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

    With NumPy linked with another BLAS than OpenBLAS nothing changes.
    """
    global _blas_users, _blas_before
    control = _openblas()
    if control is None:
        yield
        return
    get, set_ = control
    with _blas_lock:
        if _blas_users == 0:
            _blas_before = get()
            set_(1)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                set_(_blas_before)


@functools.cache
def _openblas():
    """(get, set) of the OpenBLAS that NumPy is linked with, or None with another BLAS."""
    library = ctypes.CDLL(np.linalg._umath_linalg.__file__)  # symbols of its dependencies are found through it
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", ""):
            try:
                return (getattr(library, f"{prefix}_get_num_threads{suffix}"),
                        getattr(library, f"{prefix}_set_num_threads{suffix}"))
            except AttributeError:
                continue
    return None
