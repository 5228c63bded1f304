"""Threads: the setting, and products whose bits do not depend on it. Processes: what they give is what one gives."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  its BLAS is found only when it is loaded
from threadpoolctl import threadpool_info, threadpool_limits

from minitx import Batch, Circuits, OneHotWeights, attention_and_output, descend, gradient_terms
from minitx.associations.expansion import expand
from minitx.base import numbers, parallel
from minitx.base.checks import atomic


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_matmul_is_the_product_with_the_same_bits_for_any_number_of_threads(dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((600, 600)).astype(dtype) for _ in range(2))
    results = []
    for threads in (1, 2, 4):
        parallel.set_threads(threads)
        results.append(parallel.matmul(a.T, b))
    np.testing.assert_allclose(results[0], a.T @ b, rtol=0, atol=1e-3 if dtype == np.float32 else 1e-11)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_blas_gets_its_threads_back():
    """BLAS has one thread inside, however deep, and as many as before outside: that of NumPy and that of SciPy."""
    with threadpool_limits(2, user_api="blas"):
        before = _blas_threads()
        assert before
        with parallel.workers(4) as run, parallel.one_blas_thread():
            assert run(lambda _: _blas_threads(), range(4)) == [[1] * len(before)] * 4
        assert _blas_threads() == before
        with pytest.raises(ZeroDivisionError), parallel.one_blas_thread():
            1 / 0  # noqa: B018
        assert _blas_threads() == before


def _blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_set_threads_refuses(threads):
    with pytest.raises(ValueError, match="whole number, at least 1"):
        parallel.set_threads(threads)


def test_an_error_in_a_thread_reaches_the_caller():
    parallel.set_threads(2)
    with pytest.raises(ZeroDivisionError), parallel.workers(4) as run:
        run(lambda item: 1 / item, [1, 1, 0, 1])


@pytest.mark.parametrize("n_lines", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_are_used_in_turn(threads, n_lines):
    """Pieces that take different times are used in the order of each line, one at a time, by several threads."""
    parallel.set_threads(threads)
    used, inside = [], [[] for _ in range(n_lines)]

    def compute(item):
        time.sleep(0.002 * (item % 3))
        return item, threading.get_ident()

    def use(found):
        others = inside[found[0] % n_lines]
        others.append(None)
        assert len(others) == 1
        used.append(found)
        others.pop()

    with parallel.workers(20) as run:
        run.in_turn(compute, use, range(20), n_lines)
    for line in range(n_lines):
        assert [item for item, _ in used if item % n_lines == line] == list(range(20))[line::n_lines]
    assert len({thread for _, thread in used}) <= threads


def test_lines_do_not_wait_for_each_other():
    """With two lines, the second item is used although the first one is not computed yet."""
    parallel.set_threads(2)
    second_is_used = threading.Event()

    def compute(item):
        assert item != 0 or second_is_used.wait(60)
        return item

    with parallel.workers(2) as run:
        run.in_turn(compute, lambda item: item == 1 and second_is_used.set(), range(2), 2)


@pytest.mark.parametrize("failing", [0, 3, 11])
def test_an_error_in_a_turn_reaches_the_caller_and_ends_the_rest(failing):
    parallel.set_threads(3)
    used = []
    for _ in range(20):
        with pytest.raises(ZeroDivisionError), parallel.workers(12) as run:
            run.in_turn(lambda item: 1 / (item - failing), used.append, range(12))
        with pytest.raises(ZeroDivisionError), parallel.workers(12) as run:
            run.in_turn(lambda item: item, lambda item: 1 / (item - failing), range(12))
    assert len(used) <= 20 * 11


def test_the_error_of_the_first_piece_that_fails_is_raised():
    """Whichever piece fails first in time: pieces before it are always computed."""
    parallel.set_threads(3)

    def compute(item):
        if item == 2:
            time.sleep(0.004)
            raise IndexError
        if item in (3, 5):
            raise KeyError

    for _ in range(20):
        with pytest.raises(IndexError), parallel.workers(12) as run:
            run(compute, range(12))


def test_an_interrupt_while_threads_are_started_ends_their_work(monkeypatch):
    """Ctrl-C comes after the first task is given to the pool: no piece is computed after the error is raised."""
    parallel.set_threads(3)
    pool, begun = parallel._pool_of(3), []
    submit = pool.submit

    def interrupted(*task):
        if begun:
            raise KeyboardInterrupt
        future = submit(*task)
        while not begun:
            time.sleep(0.001)
        return future

    def compute(item):
        begun.append(item)
        time.sleep(0.01)

    monkeypatch.setattr(pool, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt), parallel.workers(100) as run:
        run.in_turn(compute, lambda _: None, range(100))
    before = len(begun)
    time.sleep(0.1)
    assert len(begun) == before


@pytest.fixture
def interruptible():
    """Python answers to SIGINT also where a shell has started the tests in its background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("n_lines", [1, 2])
@pytest.mark.parametrize("where", ["compute", "wait", "use"])
def test_an_interrupt_in_the_middle_of_a_piece_leaves_no_thread_waiting_for_it(interruptible, where, n_lines):
    """The calling thread, which Python interrupts, computes pieces too: others would wait for a piece that is lost."""
    parallel.set_threads(2)
    main, used, both = threading.get_ident(), [], threading.Barrier(2)

    def in_main(at):
        if threading.get_ident() == main and at == where:
            signal.raise_signal(signal.SIGINT)

    def compute(item):
        if item < 2:
            both.wait(60)
        in_main("compute")
        if threading.get_ident() != main and where == "wait":  # when the calling thread waits for the turn of its piece
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        return item

    def use(item):
        in_main("use")
        used.append(item)

    with pytest.raises(KeyboardInterrupt), parallel.workers(40) as run:
        run.in_turn(compute, use, range(40), n_lines)
    assert len(used) < 40
    with parallel.workers(40) as run:  # no thread of the pool still waits
        used.clear()
        run.in_turn(lambda item: item, used.append, range(40), n_lines)
    assert [item for item in used if item % n_lines == 0] == list(range(0, 40, n_lines))


def test_an_interrupt_before_any_line_leaves_no_thread_waiting(monkeypatch):
    """The calling thread is interrupted before its first line of these functions, then before its second, and so on;
    after each time both threads of the pool are free, and the next work is shared again. Signals at random times would
    also come where Python forgets them: it prints the error of a callback of its garbage collector, and goes on.
    """
    parallel.set_threads(2)
    main, pool = threading.get_ident(), parallel._pool_of(2)
    functions = {"in_turn", "_compute", "_as_worker", "take_pieces", "piece"}
    interrupted, lines_left, began = set(), 0, []

    def trace(frame, event, _):
        nonlocal lines_left
        code = frame.f_code
        if code.co_filename != parallel.__file__ or code.co_name not in functions:
            return None
        if event == "line":
            lines_left -= 1
            if lines_left == 0:
                interrupted.add(code.co_name)
                began[0].set()
                raise KeyboardInterrupt
        return trace

    def compute(_):
        """Both threads take a piece before either computes its first, unless this one is interrupted before it."""
        this, other = began if threading.get_ident() == main else began[::-1]
        this.set()
        assert other.wait(60)

    monkeypatch.setattr(parallel, "wait", lambda futures: wait(futures, 60))
    for number in range(1, 200):
        lines_left, began, before = number, [threading.Event(), threading.Event()], sys.gettrace()
        sys.settrace(trace)
        try:
            with parallel.workers(12) as run:
                run.in_turn(compute, lambda _: None, range(12), 2)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        both = threading.Barrier(2)
        for future in [pool.submit(both.wait, 60) for _ in range(2)]:
            future.result()
    assert lines_left > 0
    assert interrupted == functions


def test_workers_within_workers_use_no_further_thread():
    """A pool whose threads wait for each other would stand still."""
    parallel.set_threads(2)
    with parallel.workers(4) as run:
        found = run(lambda _: parallel.matmul(np.ones((700, 400)), np.ones((400, 3))).sum(), range(8))
    assert found == [700 * 400 * 3] * 8


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux places threads on cores")
def test_threads_start_on_cores_of_their_own_and_may_leave_them(monkeypatch):
    cores, asked = os.sched_getaffinity(0), []
    moved = parallel._move_to
    monkeypatch.setattr(parallel, "_move_to", lambda core: (asked.append(core), moved(core)))
    with parallel.workers(len(cores)) as run:
        allowed = run(lambda _: os.sched_getaffinity(0), range(100))
    assert len(asked) == len(set(asked)) == len(cores) - 1 and set(asked) <= cores
    assert all(found == cores for found in allowed) and os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("system", [object(), OSError()])
def test_a_system_that_does_not_say_where_a_thread_is_computes_all_the_same(monkeypatch, system):
    def library(_):
        if isinstance(system, OSError):
            raise system
        return system

    parallel.blas_libraries()  # which are found by the same function, once
    monkeypatch.setattr(parallel.ctypes, "CDLL", library)
    parallel._core_finder.cache_clear()
    try:
        assert parallel.together(*[lambda: 1] * 8) == [1] * 8
    finally:
        parallel._core_finder.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_threads_are_started_again_after_a_fork():
    parallel.set_threads(2)
    a = np.ones((1200, 300))
    parallel.matmul(a, a.T)
    child = os.fork()
    if child == 0:
        os._exit(0 if parallel.matmul(a, a.T)[0, 0] == 300 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def two_processes():
    if sys.platform != "linux":
        pytest.skip("processes are made by a fork on Linux alone")
    parallel.set_threads(2)


def wait_for(n_processes, folder):
    """Tell the others in ``folder`` that this process works, and wait until ``n_processes`` of them have done so."""
    (folder / str(os.getpid())).touch()
    wait_for_files(n_processes, folder)


def wait_for_files(count, folder):
    last = time.monotonic() + 30
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < last, "no other process works"
        time.sleep(0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("count", "n_processes"), [(0, 0), (3, 1), (4, 2), (7, 2), (256, 2), (257, 1)])
def test_processes_give_what_one_gives_in_its_order(two_processes, tmp_path, count, n_processes):
    """The items cannot be pickled; a thread of a pool waits meanwhile, of which Python would warn."""
    parallel.matmul(np.ones((1200, 300)), np.ones((300, 300)))

    def called(item):
        wait_for(n_processes, tmp_path)
        return item(), os.getpid()

    found = parallel.in_processes(called, [lambda k=k: k * k for k in range(count)])
    assert [square for square, _ in found] == [k * k for k in range(count)]
    assert len({process for _, process in found}) == n_processes


def test_a_process_that_is_ready_takes_the_next_item(two_processes, tmp_path):
    """The first item lasts until all others are done, which the other process does meanwhile."""
    def called(k):
        if k == 0:
            wait_for_files(9, tmp_path)
        (tmp_path / str(k)).touch()
        return os.getpid()

    first, *others = parallel.in_processes(called, range(10))
    assert first not in others


@pytest.mark.parametrize("forks", [True, False])
def test_a_process_leaves_no_file_open(two_processes, monkeypatch, forks):
    """Nor does one that the system does not start."""
    def fork():
        raise BlockingIOError

    if not forks:
        monkeypatch.setattr(os, "fork", fork)
    before = os.listdir("/proc/self/fd")
    assert parallel.in_processes(lambda k: k, range(4)) == [0, 1, 2, 3]
    assert os.listdir("/proc/self/fd") == before


def test_one_thread_has_no_further_process(two_processes):
    parallel.set_threads(1)
    assert parallel.in_processes(lambda _: os.getpid(), range(8)) == [os.getpid()] * 8


@pytest.mark.parametrize("fails_here", [True, False])
def test_an_error_in_a_process_is_raised_as_it_is(two_processes, tmp_path, fails_here):
    """The other process begins; then one of the two fails, and what the other one does not send fails here."""
    class CannotBePickledError(Exception):
        pass

    here = os.getpid()

    def fail(k):
        wait_for(2, tmp_path)
        if fails_here or os.getpid() != here or (tmp_path / "failed").exists():
            if os.getpid() != here:
                (tmp_path / "failed").touch()
            raise CannotBePickledError(f"item {k}")

    with pytest.raises(CannotBePickledError, match="item"):
        parallel.in_processes(fail, range(6))
    with pytest.raises(ChildProcessError):
        os.wait()  # none is left


def test_after_an_error_no_process_takes_what_is_left(two_processes, tmp_path, monkeypatch):
    """Also a process that misses the signal, as it does while it begins."""
    here = os.getpid()
    monkeypatch.setattr(os, "kill", lambda *_: (tmp_path / "signalled").touch())

    def fail(k):
        if os.getpid() == here:
            raise LookupError
        wait_for_files(1, tmp_path)
        (tmp_path / str(k)).touch()

    with pytest.raises(LookupError):
        parallel.in_processes(fail, range(40))
    assert len(list(tmp_path.iterdir())) <= 2


def test_where_no_file_can_be_opened_all_is_computed_here(two_processes, monkeypatch):
    def pipe():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", pipe)
    assert parallel.in_processes(lambda k: os.getpid(), range(6)) == [os.getpid()] * 6


def test_what_a_killed_process_does_not_send_is_computed_here(two_processes, tmp_path):
    here = os.getpid()

    def square(k):
        wait_for(2, tmp_path)
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return k * k

    assert parallel.in_processes(square, range(6)) == [0, 1, 4, 9, 16, 25]


def test_an_interrupt_of_a_process_that_has_just_begun_does_not_leave_it_running_this_program(
        two_processes, monkeypatch, tmp_path):
    fork, here = os.fork, os.getpid()

    def interrupted():
        child = fork()
        if os.getpid() != here:
            raise KeyboardInterrupt
        return child

    monkeypatch.setattr(os, "fork", interrupted)
    try:
        assert parallel.in_processes(lambda k: k * k, range(4)) == [0, 1, 4, 9]
    finally:
        if os.getpid() != here:  # it came back here
            (tmp_path / "second").touch()
            os._exit(1)
    assert not list(tmp_path.iterdir())


def test_processes_end_where_this_one_ignores_interrupts(two_processes, tmp_path):
    """A shell starts what runs in its background so that Ctrl-C is ignored; an error ends the others all the same."""
    here, before = os.getpid(), signal.signal(signal.SIGINT, signal.SIG_IGN)

    def work(_):
        if os.getpid() == here:
            while not (tmp_path / "begun").exists():
                time.sleep(0.01)
            raise LookupError
        (tmp_path / "begun").touch()
        time.sleep(3)
        (tmp_path / "went on").touch()

    try:
        with pytest.raises(LookupError):
            parallel.in_processes(work, range(4))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "went on").exists()


def test_an_interrupt_ends_all_processes_at_once(two_processes, tmp_path):
    """Ctrl-C comes while the other process writes a file, which it deletes."""
    here = os.getpid()

    def work(k):
        if os.getpid() == here:
            while not list(tmp_path.iterdir()):
                time.sleep(0.01)
            raise KeyboardInterrupt
        with atomic(tmp_path / "file"):
            time.sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        parallel.in_processes(work, range(4))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ChildProcessError):
        os.wait()


BITS = """
import hashlib, sys
import numpy as np
import minitx
from minitx.base import numbers
from minitx import associations

minitx.set_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
batch = minitx.Batch(rng.integers(0, 700, (8, 64)), rng.integers(0, 700, (8, 64)))
found = associations.statistics(batch, 700)
digest = hashlib.sha256(b"".join(getattr(found, name).tobytes() for name in found.SHAPES))
for dtype in (np.float32, np.float64):
    weights = minitx.OneHotWeights.gaussian(700, 64, scale=0.05, rng=0, dtype=dtype)
    run = minitx.descend(weights, batch, learning_rate=1.0, steps=1)
    digest.update(run.loss.tobytes() + b"".join(array.tobytes() for array in run.weights.parameters().values()))
terms = minitx.gradient_terms(run.weights, batch)
digest.update(b"".join(term.tobytes() for split in terms.values() for term in split.values()))
digest.update(repr([numbers.norm(found.context), numbers.cosine(found.bigram, found.context)]).encode())
print(digest.hexdigest())
"""

MASKED_BITS = """
import hashlib, sys
import numpy as np
import minitx
from minitx.model.blocks import blocks
from minitx.topics.documents import mask_tokens
from minitx.topics.law import TopicModel

minitx.set_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for model, n_documents in ((TopicModel(10, 10, tau=4, length=128), 400),
                           (TopicModel(20, 35, tau=2, length=(64, 128)), 60)):
    batch = mask_tokens(model.documents(n_documents, rng=0), rng=0)
    for dtype in (np.float32, np.float64):
        start = minitx.EmbeddedWeights.gaussian(model.V, W_V=0.05, W_QK=0.05, b=0.1, rng=0, dtype=dtype)
        assert len(blocks(batch, model.V, dtype)) > 1
        run = minitx.descend(start, batch, learning_rate=1.0, steps=2)
        digest.update(run.loss.tobytes() + b"".join(array.tobytes() for array in run.weights.parameters().values()))
print(digest.hexdigest())
"""

GRAPH_BITS = """
import hashlib, sys
import numpy as np
import minitx
from minitx.next_token import Samples
from minitx.next_token.split import cyclic_subspace
from minitx.next_token.svm import graph_svm
from minitx.next_token.graphs import priority_graphs

minitx.set_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
sequences = rng.integers(0, 40, (200, 8))
graphs = priority_graphs(Samples.of(sequences, sequences[:, 2]))
E = rng.standard_normal((40, 50))
S_fin, svm = cyclic_subspace(graphs, E), graph_svm(graphs, E)
found = [*(block.rows for block in S_fin.blocks), S_fin.rest(E.T @ E), svm.W, svm.multipliers, svm.equality_multipliers]
print(hashlib.sha256(b"".join(array.tobytes() for array in found) + repr(svm.kkt).encode()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [
    pytest.param(BITS, id="causal"), pytest.param(MASKED_BITS, id="masked documents"),
    pytest.param(GRAPH_BITS, id="graphs")])
def test_same_bits_whatever_the_threads_of_blas_and_ours(script):
    """The sizes are such that OpenBLAS rounds float32 products differently on one and on two threads of its own."""
    digests = set()
    for blas, ours in (("1", "1"), ("2", "1"), ("2", "2")):
        done = subprocess.run([sys.executable, "-c", script, ours], env=os.environ | {"OPENBLAS_NUM_THREADS": blas},
                              capture_output=True, text=True, timeout=300, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


def _descent(rng):
    """What OpenBLAS rounds differently on one and on two threads: products of 700 tokens in float32."""
    batch = Batch(rng.integers(0, 700, (8, 64)), rng.integers(0, 700, (8, 64)))
    found = []
    for dtype in (np.float32, np.float64):
        start = OneHotWeights.gaussian(700, 64, scale=0.05, rng=0, dtype=dtype)
        run = descend(start, batch, learning_rate=1.0, steps=1)
        found += [run.loss, *run.weights.parameters().values()]
    terms = gradient_terms(run.weights, batch)
    return [*found, *(term for split in terms.values() for term in split.values())]


def _expansion(rng):
    batch = Batch(rng.integers(0, 300, (4, 8)), rng.integers(0, 300, (4, 8)))
    found = expand(batch, 300, order=5)
    return [*found.weights(steps=5, learning_rate=1.0).parameters().values(), *found.flow_sizes().values()]


def _attention_and_output(rng):
    circuits = Circuits(None, *rng.standard_normal((2, 400, 400)).astype(np.float32), None, None)
    return attention_and_output(circuits, Batch(rng.integers(0, 400, (2, 300)), rng.integers(0, 400, (2, 300))))


def _norm(rng):
    return [numbers.norm(rng.standard_normal(60_000))]


def _product_of_vectors(rng):
    return [parallel.matmul(rng.standard_normal((1, 60_000)), rng.standard_normal((60_000, 1)))]


@pytest.mark.parametrize("compute", [pytest.param(_descent, marks=pytest.mark.slow), _expansion, _attention_and_output,
                                     _norm, _product_of_vectors])
def test_same_bits_whoever_has_set_the_threads_of_blas(compute):
    """The threads of BLAS are set by the caller here, through threadpoolctl; those of minitx by set_threads."""
    digests = set()
    for ours, blas in itertools.product((1, 2), (1, 2)):
        parallel.set_threads(ours)
        with threadpool_limits(blas, user_api="blas"):
            digests.add(b"".join(np.asarray(array).tobytes() for array in compute(np.random.default_rng(0))))
    assert len(digests) == 1
