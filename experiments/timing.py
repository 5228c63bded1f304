"""What the benchmarks share: how a function is timed, and how two formulations are held to each other."""

import re
import time
from contextlib import contextmanager, nullcontext

import numpy as np
from running import paragraphs

from minitx import set_threads
from minitx.base.parallel import one_blas_thread

ENOUGH = 60  # seconds
# A goal is one of the full size. The sentences about goals are left out of a quick run.
GOALS = re.compile(r" The goals? (is|are) .*?\.(?=\s|$)| \(the goal is [^)]*\)", re.DOTALL)


def seconds(function, repeats=3, clock=time.perf_counter):
    """Shortest of ``repeats`` runs, after one that is not counted (compilation, page faults).

    There are fewer repeats, but at least one, of what takes so long that they would last more than ENOUGH.
    """
    function()
    times = []
    while len(times) < repeats and sum(times) + max(times, default=0) <= ENOUGH:
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def on_threads(n_threads, function, *, dense=False):
    """Time ``function`` on one thread or on all; the dense baseline uses BLAS's own threads."""
    with threads(n_threads, dense=dense):
        return seconds(function, 2 if dense and n_threads == 1 else 5)


@contextmanager
def threads(n_threads, *, dense):
    """One thread or all: minitx's own, or for the ``dense`` baseline those of BLAS."""
    set_threads(n_threads)
    try:
        with one_blas_thread() if dense and n_threads == 1 else nullcontext():
            yield
    finally:
        set_threads(None)


def agree(found, expected, tolerance):
    """Raise unless the two formulations give the same arrays: a ratio of speeds means nothing otherwise."""
    for a, b in zip(found, expected, strict=True):
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error < tolerance:
            raise RuntimeError(f"minitx and the dense baseline disagree by {error:.3g}")


def written(results, parts):
    """The Markdown ``parts`` of a benchmark; a quick run says nothing about goals."""
    return paragraphs(*(GOALS.sub("", part) if results["quick"] else part for part in parts))
