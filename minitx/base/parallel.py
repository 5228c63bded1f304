"""Threads: independent pieces of work on all cores, with the same bits for any number of them.

Work that is done in Python itself, which lets one thread run at a time, has processes instead: :func:`in_processes`.

Results are bit-identical for any number of threads because (1) neither the pieces of the work nor the order in which
their results are added depends on it, and (2) BLAS itself runs on one thread inside :func:`workers` and
:func:`one_blas_thread`: OpenBLAS rounds products differently on one and on two threads (measured), so minitx
starts threads of its own, each of which computes whole products.
"""

import ctypes
import functools
import itertools
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from minitx.base.checks import whole_number

PANEL = 256  # Most rows of one piece of a large product. A constant, so that results are bit-identical for any threads.
SMALL = 2**16  # Most multiplications of a product that OpenBLAS runs on one thread anyway; a guard takes 30 us.
SMALL_VECTOR = 2**13  # The same for a product with a vector, which OpenBLAS gives to several threads earlier.
FEWEST, MOST = 4, 256  # Fewer pieces of work are not worth the fork of a process; a byte cannot number more.

_threads: int | None = None  # None means every core that this process may use
_blas_lock, _blas_users = threading.Lock(), 0
_blas_before: list[int] = []


def set_threads(n_threads: int | None) -> None:
    """Use ``n_threads`` threads from now on (``None``: one per core that this process may use)."""
    global _threads
    _threads = None if n_threads is None else whole_number("threads", n_threads, 1)


def get_threads() -> int:
    """Number of threads that will be used."""
    if _threads is not None:
        return _threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Threads that compute pieces of work. Within a piece there is one thread: work is cut once, at the top.

    Called as ``workers(function, items)`` they give the list of ``function(item)``.
    """

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool

    def __call__(self, function: Callable, items: Iterable) -> list:
        return self._compute(function, list(items))

    def _compute(self, function, items, give_up=lambda: None):
        """The list of ``function(item)``. After an error, ``give_up`` is called before the other threads are awaited.
        """
        if self._pool is None:
            return [_quietly(function, item) for item in items]
        found: list[Any] = [None] * len(items)
        failed: dict[int, BaseException] = {}
        left = iter(range(len(items)))  # of which Python gives each number to one thread alone

        def end():
            for _ in left:  # nothing more is started
                pass
            give_up()

        def take_pieces():
            for number in left:
                try:
                    found[number] = function(items[number])
                except BaseException as error:
                    failed[number] = error
                    end()

        # A task for each thread, and not for each piece: the end of a task wakes the thread that waits here, which
        # takes a core from the others (with 32 pieces in 75 ms they lost 5 ms).
        futures = []
        try:
            for core in itertools.islice(_cores(), min(get_threads(), len(items)) - 1):
                futures.append(self._pool.submit(_as_worker, take_pieces, core))
            _as_worker(take_pieces)  # this thread as well: waking another one takes some tenths of a millisecond
            wait(futures)
        except BaseException:  # Ctrl-C may come anywhere, also where this thread has taken a piece or is a worker still
            _thread.is_worker = False
            end()
            wait(futures)
            raise
        if failed:
            raise failed[min(failed)]
        return found

    def in_turn(self, compute: Callable, use: Callable, items: Iterable, n_lines: int = 1) -> None:
        """Call ``use(compute(item))`` for all items: compute in parallel, use one at a time, in the order of the items.

        The thread that has computed a result also uses it, while it is in the thread's cache. A sum that is added up in
        this way has the same bits for any number of threads, and is kept in one copy. A piece waits for the pieces
        before it; all of these are running, because pieces are started in order, and none is left out once it is taken.
        Where items stand in several lines, item i in line i % ``n_lines``, that holds for each line by itself: threads
        wait for each other less, and each line needs a copy of the sum.
        """
        items, given_up = list(items), threading.Event()
        turns = [threading.Lock() for _ in items]  # an item's lock is released when it is its turn
        for turn in turns[n_lines:]:
            turn.acquire()

        def piece(number):
            result = compute(items[number])
            turns[number].acquire()
            if not given_up.is_set():
                use(result)
            _release(turns[number + n_lines:number + n_lines + 1])

        def give_up():  # pieces that wait for one that is lost go on, and are not used
            given_up.set()
            _release(turns)

        self._compute(piece, range(len(items)), give_up)


def _release(locks):
    """Release those of the ``locks`` that are not released yet."""
    for lock in locks:
        with suppress(RuntimeError):
            lock.release()


@contextmanager
def workers(n_pieces: int) -> Iterator[Workers]:
    """Yield :class:`Workers`, up to :func:`get_threads` of them, with BLAS on one thread each.

    ``n_pieces`` is the largest number of items that will be computed at once: for a single one, and within a piece of
    other workers, no thread is used.
    """
    alone = n_pieces <= 1 or get_threads() == 1 or getattr(_thread, "is_worker", False)
    with one_blas_thread():
        yield Workers(None if alone else _pool_of(get_threads()))


@functools.cache
def _pool_of(n_threads):
    """The pool of so many threads; it is kept for the next time, because starting threads takes 0.1 ms."""
    return ThreadPoolExecutor(n_threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool_of.cache_clear)  # threads do not survive a fork
_thread = threading.local()


def _cores():
    """A core for each thread that is woken, if threads use all cores of a Linux system, and else None for each.

    The calling thread computes as well, and stays on its own core.
    """
    known = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(known) != get_threads():
        return itertools.repeat(None)
    return sorted(known - {_core_finder()()})


@functools.cache
def _core_finder():
    """The C library's function that gives the core which a thread is on; if it has none, a function that gives None."""
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError):
        return lambda: None


def _move_to(core):
    """Move this thread to ``core``, from where the system may move it again.

    Left to itself, Linux wakes two threads on one of two cores, because it does not look for a free core where both
    were busy just before, and takes up to some milliseconds to part them: steps of 12 ms took 14 on average.
    """
    with suppress(OSError):  # a system that does not allow it finds the cores itself
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        os.sched_setaffinity(0, before)


def _as_worker(function, core=None):
    _thread.is_worker = True
    if core is not None:
        _move_to(core)
    try:
        _quietly(function)
    finally:
        _thread.is_worker = False


def _quietly(function, *arguments):
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss tells when training diverges
        return function(*arguments)


def in_processes(function: Callable, items: Sequence) -> list:
    """The list of ``function(item)``: on Linux, each thread that may be used is a process of its own, made by a fork.

    It is for work that is done in Python, such as drawing, where threads would wait for each other. A process inherits
    ``function`` and ``items``, which need not be picklable, and sends back what ``function`` gives, which must be.
    What a process does not send, because of an error or because it was killed, is computed here, where the error is
    raised. Fewer than ``FEWEST`` items, more than ``MOST``, and all items on other systems are computed here one after
    another.
    """
    n_processes = min(get_threads(), len(items)) if sys.platform == "linux" and FEWEST <= len(items) <= MOST else 1
    found: dict[int, Any] = {}
    # The numbers of the items that are left stand in a pipe, from which a process takes the next one when it is ready:
    # items differ in how long they take.
    numbers = _pipe() if n_processes > 1 else None
    if numbers is None:
        return [function(item) for item in items]
    read, write = numbers
    os.write(write, bytes(range(len(items))))
    os.close(write)

    def compute():
        return {number: function(items[number]) for (number,) in iter(lambda: os.read(read, 1), b"")}

    children: list[tuple[int, IO[bytes]]] = []
    try:
        for _ in range(1, n_processes):
            with suppress(OSError):  # where the system has no process or memory for it, fewer do the work
                children.append(_forked(compute))
        found |= compute()
        while children:
            child, sent = children[0]
            with sent:
                share = sent.read()
            if os.waitpid(children.pop(0)[0], 0)[1] == 0:
                found |= pickle.loads(share)
    finally:  # after Ctrl-C or an error, the others end as after Ctrl-C, and delete what they have not written whole
        os.read(read, MOST)  # nothing is left to take, for a process that misses the signal while it begins
        os.close(read)
        for child, sent in children:
            sent.close()
            os.kill(child, signal.SIGINT)
            os.waitpid(child, 0)
    return [found[number] if number in found else function(item) for number, item in enumerate(items)]


def _pipe():
    """Both ends of a pipe; None where no more files can be opened."""
    try:
        return os.pipe()
    except OSError:
        return None


def _forked(compute):
    """The id of a new process that sends ``compute()``, and the file to read it from; its exit status is 0 then.

    Python warns of a fork beside other threads, because the new process has their locks, but not the threads that would
    release them. Here the threads of the pool are idle and wait for their queue, which a new process leaves alone (it
    would start a pool of its own), and tqdm's thread, which redraws bars, may hold the lock of bars, and drawing shows
    none. The locks of imports, logging and allocation are renewed by Python and the C library, and OpenBLAS ends its
    threads before a fork and starts them again when it needs them. The new process leaves by ``os._exit``, so that what
    this one has begun is neither written nor cleaned up twice.
    """
    parent, status = os.getpid(), 1
    read, write = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            child = os.fork()
        if child == 0:
            # A program that a shell starts in its background ignores SIGINT, by which `in_processes` ends this process.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            share = pickle.dumps(compute())
            with open(write, "wb") as file:
                file.write(share)
            status = 0
    except OSError:
        os.close(read)
        os.close(write)
        raise
    finally:
        if os.getpid() != parent:  # Ctrl-C may have come before the branch above
            os._exit(status)
    os.close(write)
    return child, open(read, "rb")


def matmul(a: NDArray, b: NDArray) -> NDArray:
    """``a @ b`` on all threads, with the same bits for any number of them: a large ``a`` is cut into panels of rows."""
    if a.size * b.shape[1] <= (SMALL if min(a.shape[0], b.shape[1]) > 1 else SMALL_VECTOR):
        return _quietly(lambda right: a @ right, b)
    return products((a, b))[0]


def products(*pairs: tuple[NDArray, NDArray]) -> list[NDArray]:
    """``a @ b`` of each pair (a, b), all at the same time: threads wait for each other once."""
    found = [np.empty((a.shape[0], b.shape[1]), np.result_type(a, b)) for a, b in pairs]
    cut = [(a[rows], b, out[rows]) for (a, b), out in zip(pairs, found, strict=True) for rows in panels(a.shape[0])]
    with workers(len(cut)) as run:
        run(lambda piece: np.matmul(piece[0], piece[1], out=piece[2]), cut)
    return found


def together(*functions: Callable[[], Any]) -> list:
    """What the functions give, which are called at the same time, on all threads."""
    with workers(len(functions)) as run:
        return run(lambda function: function(), functions)


def panels(n_rows: int) -> list[slice]:
    """Slices of at most PANEL rows, of equal size; each of 2, 4 or 8 threads gets as many, if there are enough."""
    n_panels = 1
    while n_panels * PANEL < n_rows:
        n_panels *= 2
    return [slice(*pair) for pair in itertools.pairwise(n_rows * i // n_panels for i in range(n_panels + 1))]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS runs on one thread within this context, or within a function that it decorates.

    Contexts may be nested, and entered by several threads at once: the first one in stores how many threads each BLAS
    has, the last one out gives them back. NumPy and SciPy bring a BLAS each; both are found by threadpoolctl, which
    knows OpenBLAS, MKL, BLIS and FlexiBLAS. Another BLAS, such as Apple's Accelerate, keeps its threads.
    """
    global _blas_users, _blas_before
    with _blas_lock:
        if _blas_users == 0:
            _blas_before = [library.num_threads for library in blas_libraries()]
            for library in blas_libraries():
                library.set_num_threads(1)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                for library, before in zip(blas_libraries(), _blas_before, strict=True):
                    library.set_num_threads(before)


@functools.cache
def blas_libraries() -> list:
    """threadpoolctl's controllers of the BLAS of NumPy and of SciPy; cached, because the search takes 10 ms."""
    import scipy.linalg  # noqa: F401  a BLAS that is not loaded yet would not be found

    return ThreadpoolController().select(user_api="blas").lib_controllers
