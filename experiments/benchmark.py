"""How fast minitx is, as ratios of things measured in the same run.

    python experiments/benchmark.py [--quick] [--out DIR]

The baseline is the same mathematics in dense one-hot form: NumPy, batched matrix products, BLAS throughout. Where N is large it is
timed on a few sequences and on twice as many; the difference is its cost per sequence, and the line through both is read off at N.
Joint training on topics is timed by whole steps of ``descend``, which takes its steps with either. Graph-SVM has as baseline the
textbook method for least-distance problems, on every edge and with all d x d unknowns.
"""

import argparse
import multiprocessing
import re
import resource
import sys
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from scipy.linalg import orth
from scipy.optimize import nnls

from minitx import Batch, EmbeddedWeights, OneHotWeights, builtin_corpus, descend, get_threads, loss_and_gradient, set_threads
from minitx.associations import reduced
from minitx.associations.basis import statistics
from minitx.associations.leading import leading_weights
from minitx.base.checks import output_folder
from minitx.base.parallel import one_blas_thread
from minitx.base.report import environment, write_json
from minitx.model.blocks import blocks
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.samples import Samples
from minitx.next_token.svm import graph_svm
from minitx.topics.documents import mask_tokens
from minitx.topics.law import TopicModel

# ----------------------------------------------------------------------------------------------- the dense formulation


def one_hot(tokens, n_vocab, dtype):
    """(N, T) tokens -> (N, T, V)."""
    X = np.zeros((*tokens.shape, n_vocab), dtype)
    np.put_along_axis(X, tokens[:, :, None], 1, axis=2)
    return X


def flat(array):
    """(N, T, V) -> (N T, V)."""
    return array.reshape(-1, array.shape[-1])


def dense_statistics(batch, n_vocab):
    """B, Sigma_B, Phi, Q and Delta from one-hot matrices (float64)."""
    n, length = batch.tokens.shape
    X, Y = (one_hot(tokens, n_vocab, np.float64) for tokens in (batch.tokens, batch.targets))
    A0 = np.tril(np.ones((length, length))) / np.arange(1, length + 1)[:, None]
    residual = Y - 1 / n_vocab
    B = flat(X).T @ flat(residual) / (n * length)
    Phi = flat(residual).T @ flat(A0 @ X) / (n * length)
    Sigma_B = B.T @ B
    g = (flat(residual) @ (Sigma_B @ Phi)).reshape(X.shape) @ X.transpose(0, 2, 1)
    q = A0 * (g - (A0 * g).sum(axis=2, keepdims=True)) / (n * length)
    Q = flat(X).T @ flat(q @ X)
    q_sum = q.sum(axis=0)
    Delta = np.array([np.trace(q_sum, offset=-r) for r in range(length)])
    return B, Sigma_B, Phi, Q, Delta


def dense_step(weights, batch):
    """Loss and gradient of the paper's Definition 3.1 from one-hot matrices, in the dtype of the weights."""
    W_O, V, W, P = weights.parameters().values()
    n, length = batch.tokens.shape
    X = one_hot(batch.tokens, len(W), W.dtype)
    distance = np.arange(length)[:, None] - np.arange(length)
    position = np.where(distance >= 0, P[np.maximum(distance, 0)], -np.inf).astype(W.dtype)
    scores = (flat(X) @ W).reshape(X.shape) @ X.transpose(0, 2, 1) + position
    A = np.exp(scores - scores.max(axis=2, keepdims=True))
    A /= A.sum(axis=2, keepdims=True)
    XV = (flat(X) @ V).reshape(X.shape)
    h = X + A @ XV
    F = flat(h) @ W_O
    F -= F.max(axis=1, keepdims=True)
    rows, targets = np.arange(len(F)), batch.targets.ravel()
    target_logit = F[rows, targets]
    dF = np.exp(F, out=F)
    total = dF.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - target_logit))
    dF /= total
    dF[rows, targets] -= 1
    dF /= n * length
    dW_O = flat(h).T @ dF
    dh = (dF @ W_O.T).reshape(X.shape)
    dA = dh @ XV.transpose(0, 2, 1)
    dV = flat(X).T @ flat(A.transpose(0, 2, 1) @ dh)
    dscore = A * (dA - (A * dA).sum(axis=2, keepdims=True))
    dW = flat(X).T @ flat(dscore @ X)
    dscore_sum = dscore.sum(axis=0)
    dP = np.array([np.trace(dscore_sum, offset=-r) for r in range(length)], W.dtype)
    return loss, OneHotWeights(dW_O, dV, dW, dP)


def dense_topic_step(weights, batch):
    """Loss and gradient of W_V, W_Q, W_K from one-hot matrices; outputs and softmax at every slot, as the published code does."""
    W_V, W_Q, W_K = weights.W_V, weights.W_Q, weights.W_K
    X = one_hot(batch.tokens, len(W_V), W_V.dtype)
    shape, root = (*batch.tokens.shape, len(W_Q)), np.sqrt(len(W_Q))
    query, key = (flat(X) @ W_Q.T).reshape(shape), (flat(X) @ W_K.T).reshape(shape)
    A = query @ key.transpose(0, 2, 1)  # row = query slot
    A /= root
    A -= A.max(axis=2, keepdims=True)
    np.exp(A, out=A)
    A /= A.sum(axis=2, keepdims=True)
    AX = flat(A @ X)
    F = AX @ W_V.T
    F -= F.max(axis=1, keepdims=True)
    rows, targets, weight = np.arange(len(F)), batch.targets.ravel(), batch.weight.ravel()
    target_logit = F[rows, targets]
    dF = np.exp(F, out=F)
    total = dF.sum(axis=1, keepdims=True)
    loss = float(weight @ (np.log(total[:, 0]) - target_logit))
    dF /= total
    dF[rows, targets] -= 1
    dF *= weight[:, None]
    dscore = (dF @ W_V).reshape(X.shape) @ X.transpose(0, 2, 1)
    dscore -= (A * dscore).sum(axis=2, keepdims=True)
    dscore *= A
    dscore /= root
    dquery, dkey = dscore @ key, dscore.transpose(0, 2, 1) @ query
    return loss, EmbeddedWeights(W_V=dF.T @ AX, W_Q=flat(dquery).T @ flat(X), W_K=flat(dkey).T @ flat(X))


def plain_graph_svm(graphs, E):
    """W of Graph-SVM: a row of d x d numbers for each edge, equalities projected out, non-negative least squares."""

    def rows(edges):
        k, i, j = np.array(edges).reshape(-1, 3).T
        return ((E[i] - E[j])[:, :, None] * E[k][:, None, :]).reshape(len(k), -1)

    equal, above = [], []
    for k, graph in graphs.items():
        for i, j in graph.edges.tolist():
            (equal if graph.component_of(i) == graph.component_of(j) else above).append((k, i, j))
    C = rows(above)
    if equal:
        span = orth(rows(equal).T)
        C -= C @ span @ span.T
    share = nnls(np.vstack([C.T, np.ones(len(C))]), np.append(np.zeros(C.shape[1]), 1.0))[0]
    direction = share @ C
    return (direction * share.sum() / (direction @ direction)).reshape(E.shape[1], E.shape[1])


# --------------------------------------------------------------------------------------------------------- measuring


def seconds(function, repeats=3):
    """Shortest of ``repeats`` runs, after one that is not counted (compilation, page faults)."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
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


def seconds_a_step(train, n_steps):
    """Shortest time from the end of a step to the end of the next, of ``train(steps=, callback=)``; the first few do not count."""
    ends = []
    train(steps=n_steps + 3, callback=lambda *_: ends.append(time.perf_counter()))
    return float(np.diff(ends)[3:].min())


def dense_at(batch, n_threads, function, n_few):
    """Time of ``function(batch)``, dense, read off the line through its times on ``n_few`` and on twice as many sequences."""
    few, more = (on_threads(n_threads, lambda n=n: function(first(batch, n)), dense=True) for n in (n_few, 2 * n_few))
    return few + (len(batch) - n_few) * (more - few) / n_few


def first(batch, n):
    """The first ``n`` sequences, equally weighted."""
    return Batch(batch.tokens[:n], batch.targets[:n])


def product_rate(dtype, n=3000):
    """Matrix-product rate in GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b, out = rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((n, n)).astype(dtype), np.empty((n, n), dtype)
    return 2 * n**3 / seconds(lambda: np.matmul(a, b, out=out)) / 1e9


def blas_alone(batch, n_vocab, dtype):
    """A function that runs just the products: three T x T x V a sequence, three V x V x V a step, on BLAS's own threads."""
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
    """A function that runs just the three Q x V x V products of a step on joined documents, Q = ``n_rows`` distinct queries."""
    rng = np.random.default_rng(0)
    C, R = rng.random((2, n_rows, n_vocab)).astype(dtype)
    ov, out = rng.random((n_vocab, n_vocab)).astype(dtype), np.empty((n_rows, n_vocab), dtype)
    dov = np.empty_like(ov)

    def run():
        np.matmul(C, ov, out=out)
        np.matmul(R, ov.T, out=out)
        np.matmul(C.T, R, out=dov)

    return run


def agree(found, expected, tolerance):
    """Raise unless the two formulations give the same arrays: a ratio of speeds means nothing otherwise."""
    for a, b in zip(found, expected, strict=True):
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error < tolerance:
            raise RuntimeError(f"minitx and the dense baseline disagree by {error:.3g}")


def peak_memory():
    """Largest resident size of this process so far, MB."""
    status = Path("/proc/self/status")  # not getrusage: on Linux its figure survives exec, and begins at the parent's size
    if status.exists():
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


# ---------------------------------------------------------------------------------------------------------- the claims


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
        print(f"  {n_threads} thread(s): minitx {ours:8.3f} s   dense {dense:9.1f} s   "
              f"{dense / ours:6.0f} times faster (asked: 200)")
    receive, send = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_statistics_memory, args=(send, size))
    process.start()
    send.close()  # so that a child that dies ends the wait
    before, after = receive.recv()
    process.join()
    result["memory_MB"] = {"process": after, "of it before": before}
    print(f"  peak memory of the whole process {after:.0f} MB, of which {before:.0f} MB before the statistics begin (asked: 1000)")
    return result


def training_step(size, n_dense):
    """One exact step in float32 against the dense forward + backward, and against BLAS alone."""
    corpus = stories(**size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    weights = OneHotWeights.gaussian(n_vocab, size["length"], scale=0.01, rng=0, dtype=np.float32)
    few = first(batch, n_dense)
    agree(loss_and_gradient(weights, few)[1].parameters().values(), dense_step(weights, few)[1].parameters().values(), 1e-2)
    result = {"size": size}
    for n_threads in dict.fromkeys((1, get_threads())):
        ours = on_threads(n_threads, lambda: loss_and_gradient(weights, batch))
        dense = dense_at(batch, n_threads, lambda few: dense_step(weights, few), n_dense)
        blas = on_threads(n_threads, blas_alone(batch, n_vocab, np.float32), dense=True)
        result[f"{n_threads} threads"] = {"minitx_s": ours, "dense_s": dense, "blas_s": blas, "ratio": dense / ours,
                                          "over_blas": ours / blas}
        print(f"  {n_threads} thread(s): minitx {ours:6.2f} s   dense {dense:6.1f} s: {dense / ours:4.1f} times faster (asked: 20)"
              f"   BLAS alone {blas:5.2f} s: minitx takes {ours / blas:4.2f} of it (asked: 1.5)")
    return result


def reduced_step(size, n_few):
    """A step of the reduced dynamics in float32 on one thread, against the exact step; this is timed on a part, and scaled."""
    corpus = stories(**size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    weights = OneHotWeights.gaussian(n_vocab, size["length"], scale=0.01, rng=0, dtype=np.float32)
    few, more = (on_threads(1, lambda n=n: loss_and_gradient(weights, first(batch, n)), dense=True) for n in (n_few, 3 * n_few))
    exact = few + (len(batch) - n_few) * (more - few) / (2 * n_few)
    result = {"size": size, "exact_s": exact, "exact_few_s": few, "exact_more_s": more}
    for order, cells, asked in ((1, 1, 15), (2, 1, 8), (2, 3, 8)):
        data = reduced.reduce(batch, n_vocab, order=order, n_cells=cells * n_vocab)
        ours = on_threads(1, lambda data=data: reduced.loss_and_gradient(weights, data), dense=True)
        result[f"order {order}, {cells} V cells"] = {"minitx_s": ours, "ratio": exact / ours}
        print(f"  order {order}, {cells} V cells: {ours:6.2f} s   exact {exact:6.1f} s: {exact / ours:4.1f} times cheaper "
              f"(asked: {asked})")
    print(f"  peak memory of the whole process so far {peak_memory():.0f} MB")
    return result


def topic_step(size, learning_rate=20.0):
    """Joint training of W_V, W_Q, W_K on masked documents, whole steps in float64, against the dense formulation of all slots."""
    model = TopicModel(size["n_topics"], size["words_per_topic"], tau=size["tau"], length=size["length"])
    batch = mask_tokens(model.documents(size["n"], rng=0), rng=0)
    V, batch_size = model.V, size["batch_size"]
    start = EmbeddedWeights.gaussian(V, W_V=0.1, W_QK=0.05, rng=0)
    some = batch.take(range(batch_size))
    (loss, gradient), (dense_loss, dense_gradient) = (step(start, some) for step in (loss_and_gradient, dense_topic_step))
    agree([np.array(loss), *gradient.parameters().values()], [np.array(dense_loss), *dense_gradient.parameters().values()], 1e-10)
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
        fastest = min(fastest, dense)  # on a busy machine BLAS's own threads slow many small products down: they do not count then
        blas = on_threads(n_threads, products_alone(n_queries, V, np.float64), dense=True)
        result[f"{n_threads} threads"] = {"minitx_s": ours, "dense_s": dense, "blas_s": blas, "ratio": fastest / ours,
                                          "over_blas": ours / blas}
        print(f"  {n_threads} thread(s): minitx {1 / ours:6.1f} steps a second   dense {1 / fastest:5.2f}: "
              f"{fastest / ours:4.1f} times faster (asked: 5)   a step {1e3 * ours:5.2f} ms, BLAS alone {1e3 * blas:5.2f} ms")
    return result


def graph_svms(size):
    """Graph-SVM on one thread, from samples to W, for three kinds of embeddings, against the textbook method on all edges."""
    K, d, n, length = (size[key] for key in ("n_vocab", "width", "n", "length"))
    rng = np.random.default_rng(0)
    sequences = rng.integers(0, K, (n, length))
    samples = Samples.of(sequences, sequences[np.arange(n), rng.integers(0, length, n)], K)
    orthonormal = np.linalg.qr(rng.standard_normal((d, K)))[0].T
    kinds = {"orthonormal": (orthonormal, 0.5), "equicorrelated": (np.hstack([orthonormal, np.ones((K, 1))]) / 2**0.5, 5),
             "random": (rng.standard_normal((K, d)) / d**0.5, 5)}
    result = {"size": size}
    for kind, (E, asked) in kinds.items():
        def ours(E=E):
            return graph_svm(priority_graphs(samples), E)

        with one_blas_thread():
            svm = ours()
            start = time.perf_counter()
            W = plain_graph_svm(priority_graphs(samples), E)
            plain_s = time.perf_counter() - start
        agree([svm.W], [W], 1e-6)
        ours_s = on_threads(1, ours, dense=True)
        result[kind] = {"minitx_s": ours_s, "plain_s": plain_s, "ratio": plain_s / ours_s, "norm": svm.norm,
                        "rows": svm.n_equalities + svm.n_inequalities, "worst_condition": svm.kkt.worst}
        print(f"  {kind:14s} minitx {ours_s:6.3f} s (asked: {asked})   all edges {plain_s:6.2f} s: {plain_s / ours_s:5.1f} times "
              f"faster   conditions met to {svm.kkt.worst:.0e}")
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
        print(f"  N = {size['n']:5d}  T = {size['length']:4d}  V = {size['n_vocab']:5d}   "
              f"step {step:6.3f} s ({step / rows[0]['step_s']:4.2f} x)   "
              f"statistics {lookups:6.3f} s ({lookups / rows[0]['statistics_s']:4.2f} x)")
    return rows


def main():
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, proves nothing about speed")
    parser.add_argument("--out", default="results/benchmark", metavar="DIR", help="folder for benchmark.json: every number")
    arguments = parser.parse_args()
    folder = output_folder(arguments.out)
    quick = arguments.quick
    results = {"environment": environment()}
    rates = {np.dtype(dtype).name: product_rate(dtype, 300 if quick else 3000) for dtype in (np.float32, np.float64)}
    results["GFLOP/s"] = rates
    print(f"matrix products, all threads: {rates['float32']:.0f} GFLOP/s float32, {rates['float64']:.0f} GFLOP/s float64; "
          f"{get_threads()} threads")
    size = {"n_vocab": 200, "length": 24, "n": 32} if quick else {"n_vocab": 3000, "length": 200, "n": 2048}
    print(f"\nleading terms, V = {size['n_vocab']}, T = {size['length']}, N = {size['n']}, float64, against the dense formulation")
    results["leading terms"] = leading_terms(size, 8)
    size = dict(size, n=16 if quick else 256)
    print(f"\ntraining step, V = {size['n_vocab']}, T = {size['length']}, N = {size['n']}, float32, against the dense formulation")
    results["training step"] = training_step(size, 8)
    size = {"n_vocab": 100, "length": 12, "n": 200} if quick else {"n_vocab": 3000, "length": 200, "n": 16_384}
    print(f"\nreduced dynamics, V = {size['n_vocab']}, T = {size['length']}, N = {size['n']:,}, float32, 1 thread, against the "
          "exact step")
    results["reduced step"] = reduced_step(size, 4 if quick else 48)
    size = {"n_topics": 10, "words_per_topic": 10, "tau": 2, "length": 128, "n": 10_000, "batch_size": 200}
    if quick:
        size |= {"n_topics": 3, "words_per_topic": 4, "length": 12, "n": 40, "batch_size": 10}
    print("\njoint training of W_V, W_Q, W_K on topics, "
          + ", ".join(f"{name} = {size[key]}" for name, key in (("T", "n_topics"), ("v", "words_per_topic"), ("tau", "tau")))
          + f", {size['n']} documents of {size['length']} tokens,\n{size['batch_size']} a step, cross-entropy, float64, "
          "against the dense formulation at all slots")
    results["topic step"] = topic_step(size)
    size = {"n_vocab": 8, "width": 10, "n": 12, "length": 4} if quick else {"n_vocab": 50, "width": 64, "n": 200, "length": 8}
    print(f"\nGraph-SVM, K = {size['n_vocab']}, d = {size['width']}, {size['n']} samples of {size['length']} tokens, 1 thread, "
          "against non-negative least squares (Lawson and Hanson) on all edges")
    results["graph svm"] = graph_svms(size)
    print("\ngrowth, float32 step and float64 statistics, all threads")
    results["growth"] = growth({"n_vocab": 100, "length": 12, "n": 16} if quick else {"n_vocab": 1500, "length": 100, "n": 256})
    write_json(folder / "benchmark.json", results)
    print(f"\nwritten to {folder}/")


if __name__ == "__main__":
    main()
