"""How fast minitx is, as ratios of times that are measured in the same run.

    python experiments/benchmark.py [--quick] [--out DIR]

The baselines stand in dense.py: the same mathematics in one-hot form, by batched matrix products. Where N is large, the
baseline is timed on a few sequences and on twice as many; the difference is its cost per sequence, and its time at N is
read off the line through both. Joint training on topics is timed by whole steps of ``descend``, which takes its steps
with either.
"""

import multiprocessing
import re
import resource
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from dense import dense_layers, dense_statistics, dense_step, dense_topic_step
from running import block, command_line, write_down
from timing import agree, on_threads, seconds, threads, written

from minitx import (
    Batch,
    EmbeddedWeights,
    LayeredWeights,
    OneHotWeights,
    builtin_corpus,
    descend,
    get_threads,
    loss_and_gradient,
)
from minitx.associations import reduced
from minitx.associations.basis import statistics
from minitx.associations.leading import leading_weights
from minitx.base.console import progress_bar
from minitx.model.blocks import blocks
from minitx.model.layers import operations
from minitx.topics.documents import mask_tokens
from minitx.topics.law import TopicModel

TURNS, LONG_ENOUGH = 5, 10.0  # turns, and seconds, in which steps on one thread and on all are timed at least

# ------------------------------------------------------------------------------------------------- measuring


def seconds_a_step(train, n_steps):
    """Shortest time between the ends of two steps of ``train(steps=, callback=)``; the first few do not count."""
    ends = []
    train(steps=n_steps + 3, callback=lambda *_: ends.append(time.perf_counter()))
    return float(np.diff(ends)[3:].min())


def dense_at(batch, n_threads, function, n_few):
    """Time of a dense ``function(batch)``, read off the line through its times on ``n_few`` and on twice as many."""
    few, more = (on_threads(n_threads, lambda n=n: function(first(batch, n)), dense=True) for n in (n_few, 2 * n_few))
    return few + (len(batch) - n_few) * (more - few) / n_few


def first(batch, n):
    """The first ``n`` sequences, equally weighted."""
    return Batch(batch.tokens[:n], batch.targets[:n])


def product_rate(dtype, n=3000):
    """Matrix-product rate in GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n, n)).astype(dtype)
    out = np.empty((n, n), dtype)
    return 2 * n**3 / seconds(lambda: np.matmul(a, b, out=out)) / 1e9


def blas_alone(batch, n_vocab, dtype):
    """A function that runs just the products: three T x T x V a sequence and three V x V x V a step."""
    n, length = batch.tokens.shape
    rng = np.random.default_rng(0)
    A, out = rng.random((length, length)).astype(dtype), rng.random((length, n_vocab)).astype(dtype)
    rows, square = rng.random((length, n_vocab)).astype(dtype), rng.random((n_vocab, n_vocab)).astype(dtype)
    small, large = np.empty_like(A), np.empty_like(square)

    def run():
        for _ in range(n):
            np.matmul(A, rows, out=out)
            np.matmul(A.T, rows, out=out)
            np.matmul(out, rows.T, out=small)
        for _ in range(3):
            np.matmul(square, square, out=large)

    return run


def products_alone(n_rows, n_vocab, dtype):
    """A function that runs just the products of a step in dense form: three Q x V x V, Q = ``n_rows`` queries."""
    rng = np.random.default_rng(0)
    C, R = rng.random((2, n_rows, n_vocab)).astype(dtype)
    ov, out = rng.random((n_vocab, n_vocab)).astype(dtype), np.empty((n_rows, n_vocab), dtype)
    dov = np.empty_like(ov)

    def run():
        np.matmul(C, ov, out=out)
        np.matmul(R, ov.T, out=out)
        np.matmul(C.T, R, out=dov)

    return run


def peak_memory():
    """Largest resident size of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # On Linux the figure of getrusage survives exec, and starts at the size of the parent.
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _statistics_memory(connection, size):
    batch = stories(**size).batch()
    before = peak_memory()
    leading_weights(statistics(batch, size["n_vocab"]), steps=10, learning_rate=0.1)
    connection.send((before, peak_memory()))


def stories(*, n_vocab, length, n):
    """``n`` windows of the ``stories`` corpus; made from enough stories for all ``n_vocab`` words to occur."""
    corpus = builtin_corpus("stories", n_vocab=n_vocab, length=length, n_documents=max(n, 2048), n_windows=n)
    if len(corpus.vocabulary) != n_vocab:
        raise RuntimeError(f"the vocabulary has {len(corpus.vocabulary)} words, not {n_vocab}")
    return corpus


# ------------------------------------------------------------------------------------------------- the claims


def leading_terms(size, n_dense):
    """Statistics and leading weights against the dense formulation."""
    corpus = stories(**size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    few = first(batch, n_dense)
    found = statistics(few, n_vocab)
    agree((found.bigram, found.interchangeability, found.context, found.attention, found.position),
          dense_statistics(few, n_vocab), 1e-9)
    result = {"size": size, "distinct tokens a window": float(np.mean([len(np.unique(row)) for row in batch.tokens]))}
    for n_threads in dict.fromkeys((1, get_threads())):
        ours = on_threads(n_threads, lambda: leading_weights(statistics(batch, n_vocab), steps=10, learning_rate=0.1))
        dense = dense_at(batch, n_threads, lambda few: dense_statistics(few, n_vocab), n_dense)
        result[f"{n_threads} threads"] = {"minitx_s": ours, "dense_s": dense, "ratio": dense / ours}
    receive, send = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_statistics_memory, args=(send, size))
    process.start()
    send.close()  # so that a child that dies ends the wait
    before, after = receive.recv()
    process.join()
    result["memory_MB"] = {"process": after, "of it before": before}
    return result


def training_step(size, n_dense):
    """One exact step in float32 against the dense forward + backward, and against BLAS alone."""
    corpus = stories(**size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    weights = OneHotWeights.gaussian(n_vocab, size["length"], scale=0.01, rng=0, dtype=np.float32)
    few = first(batch, n_dense)
    ours, dense = (step(weights, few)[1].parameters().values() for step in (loss_and_gradient, dense_step))
    agree(ours, dense, 1e-2)
    result = {"size": size}
    for n_threads in dict.fromkeys((1, get_threads())):
        ours = on_threads(n_threads, lambda: loss_and_gradient(weights, batch))
        dense = dense_at(batch, n_threads, lambda few: dense_step(weights, few), n_dense)
        blas = on_threads(n_threads, blas_alone(batch, n_vocab, np.float32), dense=True)
        result[f"{n_threads} threads"] = {"minitx_s": ours, "dense_s": dense, "blas_s": blas, "ratio": dense / ours,
                                          "over_blas": ours / blas}
    return result


def step_of_a_size(size, dtype):
    """One exact step on one thread and on all, and its matrix products at the rate of large products on one thread.

    A sequence of T positions and U distinct tokens takes three products of T x U x V numbers, and a step three of
    V x V x V.
    """
    corpus = stories(**size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    weights = OneHotWeights.gaussian(n_vocab, size["length"], scale=0.01, rng=0, dtype=dtype)
    n_distinct = sum(len(np.unique(row)) for row in batch.tokens)
    operations = 6 * size["length"] * n_distinct * n_vocab + 6 * n_vocab**3
    with threads(1, dense=True):
        result = {"size": size, "dtype": np.dtype(dtype).name, "distinct tokens a window": n_distinct / size["n"],
                  "products_s": operations / (1e9 * product_rate(dtype, 2000))}
    times, begin = {n_threads: [] for n_threads in (1, get_threads())}, time.perf_counter()
    # by turns, because a machine that others use is faster in one minute than in the next
    while len(times[1]) < TURNS or time.perf_counter() - begin < LONG_ENOUGH:
        for n_threads, found in times.items():
            with threads(n_threads, dense=False):
                found.append(seconds(lambda: loss_and_gradient(weights, batch)))
    return result | {f"{n_threads} threads": min(found) for n_threads, found in times.items()}


def layered_step(size, n_dense, n_piece, n_layers):
    """One exact step of several layers in float32, one thread, against the dense forward + backward.

    The dense step takes all sequences at once, or ``n_piece`` at a time, which memory favours.
    """
    corpus = stories(**size)
    batch = corpus.batch()
    weights = LayeredWeights.gaussian(len(corpus.vocabulary), size["length"], n_layers, scale=0.02, rng=0,
                                      dtype=np.float32)
    few = first(batch, n_piece)
    agree(*(step(weights, few)[1].parameters().values() for step in (loss_and_gradient, dense_layers)), 1e-2)
    counted = operations(weights, batch)
    ours = on_threads(1, lambda: loss_and_gradient(weights, batch))
    memory = peak_memory()
    dense = dense_at(batch, 1, lambda few: dense_layers(weights, few), n_dense)
    pieces = on_threads(1, lambda: dense_layers(weights, few), dense=True) * len(batch) / n_piece
    counts = {"paths": counted.paths, "stream": counted.stream}
    with threads(1, dense=True):
        products = 2e-9 * counts[counted.fewer] / product_rate(np.float32, 2000)
    return {"size": size, "layers": n_layers, "form": counted.fewer, "minitx_s": ours, "dense_s": dense,
            "ratio": dense / ours, "n_piece": n_piece, "pieces_s": pieces, "multiplications": counts,
            "products_s": products, "memory_MB": memory}


def reduced_step(size, n_few):
    """A step of the reduced dynamics on one thread, against the exact step, which is timed on a part and scaled."""
    corpus = stories(**size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    weights = OneHotWeights.gaussian(n_vocab, size["length"], scale=0.01, rng=0, dtype=np.float32)
    few, more = (on_threads(1, lambda n=n: loss_and_gradient(weights, first(batch, n)), dense=True)
                 for n in (n_few, 3 * n_few))
    exact = few + (len(batch) - n_few) * (more - few) / (2 * n_few)
    result = {"size": size, "exact_s": exact, "exact_few_s": few, "exact_more_s": more}
    for order, cells in ((1, 1), (2, 1), (2, 3)):
        data = reduced.reduce(batch, n_vocab, order=order, n_cells=cells * n_vocab)
        ours = on_threads(1, lambda data=data: reduced.loss_and_gradient(weights, data), dense=True)
        result[f"order {order}, {cells} V cells"] = {"minitx_s": ours, "ratio": exact / ours}
    return result | {"memory_MB": peak_memory()}


def topic_step(size, learning_rate=20.0):
    """Joint training of W_V, W_Q, W_K on masked documents, whole steps, against the dense formulation of all slots."""
    model = TopicModel(size["n_topics"], size["words_per_topic"], tau=size["tau"], length=size["length"])
    batch = mask_tokens(model.documents(size["n"], rng=0), rng=0)
    V, batch_size = model.V, size["batch_size"]
    start = EmbeddedWeights.gaussian(V, W_V=0.1, W_QK=0.05, rng=0)
    some = batch.take(range(batch_size))
    ours, dense = (step(start, some) for step in (loss_and_gradient, dense_topic_step))
    agree(*([np.array(loss), *gradient.parameters().values()] for loss, gradient in (ours, dense)), 1e-10)
    n_queries = int(sum(block.n_queries.sum() for block in blocks(some, start.n_vocab, start.circuits().ov.dtype)))

    def step_time(n_threads, function, n_steps, dense):
        train = partial(descend, start, batch, learning_rate=learning_rate, batch_size=batch_size, rng=0,
                        loss_and_gradient=function)
        with threads(n_threads, dense=dense):
            return seconds_a_step(train, n_steps)

    result, fastest = {"size": size, "distinct queries a step": n_queries}, np.inf
    for n_threads in dict.fromkeys((1, get_threads())):
        ours = step_time(n_threads, loss_and_gradient, 200, dense=False)
        dense = step_time(n_threads, dense_topic_step, 9, dense=True)
        fastest = min(fastest, dense)  # On a busy machine several threads of BLAS can be slower than one.
        blas = on_threads(n_threads, products_alone(n_queries, V, np.float64), dense=True)
        result[f"{n_threads} threads"] = {"minitx_s": ours, "dense_s": fastest, "blas_s": blas, "ratio": fastest / ours,
                                          "over_blas": ours / blas}
    return result


def growth(base):
    """Time of a step and of the statistics as N, T and V double."""
    rows = []
    for name in (None, "n", "length", "n_vocab"):
        size = dict(base, **({name: 2 * base[name]} if name else {}))
        corpus = stories(**size)
        batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
        weights = OneHotWeights.gaussian(n_vocab, size["length"], scale=0.01, rng=0, dtype=np.float32)
        step = seconds(lambda b=batch, w=weights: loss_and_gradient(w, b))
        lookups = seconds(lambda b=batch, v=n_vocab: statistics(b, v))
        rows.append({**size, "step_s": step, "statistics_s": lookups})
    return rows


# ------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what benchmark.json holds; goals are those that the design of minitx sets."""
    rates = results["GFLOP/s"]
    return written(results, (
        "## Speed",
        f"Matrix products on this machine, all threads: {rates['float32']:.0f} GFLOP/s in float32, "
        f"{rates['float64']:.0f} GFLOP/s in float64. `dense` is the same mathematics in one-hot form.",
        *_leading_terms(results["leading terms"]),
        *_training_step(results["training step"]),
        *_steps_of_sizes(results["steps of other sizes"]),
        *(_layered_steps(results["layered steps"]) if "layered steps" in results else ()),
        *_reduced_step(results["reduced step"]),
        *_topic_step(results["topic step"]),
        *_growth(results["growth"])))


def _by_threads(result):
    return [(name.split()[0], times) for name, times in result.items() if name.endswith(" threads")]


def _sizes(size):
    return f"V = {size['n_vocab']:,}, T = {size['length']:,}, N = {size['n']:,}"


def _leading_terms(result):
    memory = result["memory_MB"]
    yield (f"The table is about the leading terms with {_sizes(result['size'])}, in float64. The goal is 200 times "
           "faster than dense.")
    yield block(("threads", "minitx, s", "dense, s", "times faster"),
                [(threads, f"{one['minitx_s']:.3f}", f"{one['dense_s']:.1f}", f"{one['ratio']:.0f}")
                 for threads, one in _by_threads(result)])
    yield (f"The whole process takes {memory['process']:.0f} MB at its peak (the goal is 1,000), of which "
           f"{memory['of it before']:.0f} MB before the statistics are computed. A window of "
           f"{result['size']['length']} tokens has {result['distinct tokens a window']:.0f} different ones on average.")


def _training_step(result):
    yield (f"The table is about an exact training step with {_sizes(result['size'])}, in float32. The goals are 20 "
           "times faster than dense, and 1.5 times the time of the matrix products alone (BLAS).")
    yield block(("threads", "minitx, s", "dense, s", "times faster", "BLAS alone, s", "minitx / BLAS"),
                [(threads, f"{one['minitx_s']:.2f}", f"{one['dense_s']:.1f}", f"{one['ratio']:.1f}",
                  f"{one['blas_s']:.2f}", f"{one['over_blas']:.2f}") for threads, one in _by_threads(result)])


def _steps_of_sizes(results):
    yield ("The table is about an exact training step at other sizes. `products` is the time that its matrix products "
           "would take on one thread at the rate of large products. The times of one thread and of all are the "
           "shortest of at least 15, which are measured by turns. The goals are a step on one thread of 1.8 times its "
           "products (2.5 times for V = 300), and all threads 1.75 times faster than one.")
    yield block(("V", "T", "N", "dtype", "products, ms", "one thread, ms", "/ products", "all threads, ms",
                 "times faster"),
                [(one["size"]["n_vocab"], one["size"]["length"], one["size"]["n"], one["dtype"],
                  f"{1e3 * one['products_s']:.1f}", f"{1e3 * one['1 threads']:.1f}",
                  f"{one['1 threads'] / one['products_s']:.2f}", f"{1e3 * _all_threads(one):.1f}",
                  f"{one['1 threads'] / _all_threads(one):.2f}") for one in results])


def _layered_steps(results):
    yield ("The table sets an exact training step of several layers, in float32 on one thread, beside batched dense "
           "NumPy. Dense takes the whole batch at once (V = 3,000: the time is read off a line through those of few "
           "sequences); the last columns are about dense steps of a few sequences each, which need less memory. "
           "`products` is the time that the multiplications counted by `minitx.model.layers.operations` would take at "
           "the rate of large products. The goals are 10 times faster than dense for two layers and 6 times for three "
           "at V = 800, and 15 and 8 times at V = 3,000. The process takes "
           f"{max(one['memory_MB'] for one in results):,.0f} MB at its peak (the goal is 4,000).")
    yield block(("V", "T", "N", "layers", "form ", "minitx, s", "products, s", "/ them", "dense, s", "times faster",
                 "dense by few, s", "times faster"),
                [(one["size"]["n_vocab"], one["size"]["length"], one["size"]["n"], one["layers"], one["form"],
                  f"{one['minitx_s']:.2f}", f"{one['products_s']:.2f}", f"{one['minitx_s'] / one['products_s']:.2f}",
                  f"{one['dense_s']:.1f}", f"{one['ratio']:.1f}", f"{one['n_piece']}: {one['pieces_s']:.1f}",
                  f"{one['pieces_s'] / one['minitx_s']:.1f}") for one in results])


def _all_threads(result):
    return _by_threads(result)[-1][1]


def _reduced_step(result):
    yield (f"The table sets a step of the reduced dynamics with {_sizes(result['size'])}, in float32 on one thread, "
           f"beside the exact step, which takes {result['exact_s']:.0f} s (timed on a part, and scaled). The goals are "
           f"15 times cheaper at first order and 8 times at second. The process takes {result['memory_MB']:,.0f} MB at "
           "its peak.")
    yield block(("reduced dynamics ", "s", "times cheaper"),
                [(name, f"{one['minitx_s']:.2f}", f"{one['ratio']:.1f}")
                 for name, one in result.items() if name.startswith("order")])


def _topic_step(result):
    size = result["size"]
    yield (f"The table is about joint training of W_V, W_Q and W_K on topics: {size['n']:,} documents of "
           f"{size['length']} tokens, {size['batch_size']} a step, {size['tau']} topics of {size['n_topics']}, "
           "cross-entropy, float64. The goal is 5 times faster than dense, which computes every slot.")
    yield block(("threads", "minitx, ms a step", "dense, ms a step", "times faster", "BLAS alone, ms"),
                [(threads, *(f"{1e3 * one[name]:.2f}" for name in ("minitx_s", "dense_s")), f"{one['ratio']:.1f}",
                  f"{1e3 * one['blas_s']:.2f}") for threads, one in _by_threads(result)])


def _growth(rows):
    yield "The table shows how the float32 step and the float64 statistics grow, on all threads."
    yield block(("N", "T", "V", "step, s", "ratio", "statistics, s", "ratio"),
                [(one["n"], one["length"], one["n_vocab"], f"{one['step_s']:.3f}",
                  f"{one['step_s'] / rows[0]['step_s']:.2f}", f"{one['statistics_s']:.3f}",
                  f"{one['statistics_s'] / rows[0]['statistics_s']:.2f}") for one in rows])


def main():
    """Measure, and write and print the results."""
    arguments = command_line("benchmark", __doc__, quick="small sizes, which say nothing about speed")
    quick = arguments.quick
    layer = {"n_vocab": 200, "length": 24, "n": 32} if quick else {"n_vocab": 3000, "length": 200, "n": 2048}
    other = [(300, 32, 256, "float64"), (600, 64, 512, "float64"), (600, 64, 512, "float32"),
             (1000, 128, 512, "float32")]
    sizes = [({"n_vocab": V, "length": T, "n": N}, dtype)
             for V, T, N, dtype in ([(100, 12, 16, "float64")] if quick else other)]
    deep = [({"n_vocab": V, "length": T, "n": N}, *dense) for V, T, N, *dense in (
        [(60, 12, 16, 8, 4)] if quick else [(800, 64, 512, 256, 64), (3000, 200, 512, 8, 8)])]
    many = {"n_vocab": 100, "length": 12, "n": 200} if quick else {"n_vocab": 3000, "length": 200, "n": 16_384}
    documents = {"n_topics": 10, "words_per_topic": 10, "tau": 2, "length": 128, "n": 10_000, "batch_size": 200}
    if quick:
        documents |= {"n_topics": 3, "words_per_topic": 4, "length": 12, "n": 40, "batch_size": 10}
    doubled = {"n_vocab": 100, "length": 12, "n": 16} if quick else {"n_vocab": 1500, "length": 100, "n": 256}
    parts = {
        "GFLOP/s": lambda: {np.dtype(dtype).name: product_rate(dtype, 300 if quick else 3000)
                            for dtype in (np.float32, np.float64)},
        "leading terms": lambda: leading_terms(layer, 8),
        "training step": lambda: training_step(layer | {"n": 16 if quick else 256}, 8),
        "steps of other sizes": lambda: [step_of_a_size(*one) for one in sizes],
        "layered steps": lambda: [layered_step(*one, n_layers) for one in deep for n_layers in (2, 3)],
        "reduced step": lambda: reduced_step(many, 4 if quick else 192),
        "topic step": lambda: topic_step(documents),
        "growth": lambda: growth(doubled),
    }
    results = {name: measure() for name, measure in progress_bar(iterable=parts.items(), unit="part")}
    write_down("benchmark", arguments, results, section)


if __name__ == "__main__":
    main()
