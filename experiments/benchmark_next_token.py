"""How fast the Graph-SVM, the regularisation path and rho of the next token are, beside textbook methods.

    python experiments/benchmark_next_token.py [--quick] [--out DIR]

The baselines stand in dense.py. All times are processor times of one thread, which other programs hardly disturb.
"""

import time
from functools import partial

import numpy as np
from dense import plain_graph_svm, plain_path
from running import block, command_line, write_down
from timing import agree, seconds, threads, written

from minitx.next_token.automaton import Automaton
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.path import residual, split_path
from minitx.next_token.samples import Samples
from minitx.next_token.svm import graph_svm


def one_thread(function, repeats):
    """Shortest processor time of ``repeats`` runs on one thread, in seconds."""
    with threads(1, dense=True):
        return seconds(function, repeats, time.process_time)


def once(function):
    """What ``function`` returns, and its processor time on one thread."""
    with threads(1, dense=True):
        start = time.process_time()
        return function(), time.process_time() - start


def graph_svms(size):
    """Graph-SVM from samples to W, for three kinds of embeddings, against the textbook method on all edges."""
    K, d, rng = size["n_vocab"], size["width"], np.random.default_rng(0)
    samples = _uniform_samples(size, rng)
    orthonormal = np.linalg.qr(rng.standard_normal((d, K)))[0].T
    kinds = {"orthonormal": orthonormal, "equicorrelated": np.hstack([orthonormal, np.ones((K, 1))]) / 2**0.5,
             "random": rng.standard_normal((K, d)) / d**0.5}
    result = {"size": size}
    for kind, E in kinds.items():
        def ours(E=E):
            return graph_svm(priority_graphs(samples), E)

        svm = ours()
        W, plain_s = once(lambda E=E: plain_graph_svm(priority_graphs(samples), E))
        agree([svm.W], [W], 1e-6)
        ours_s = one_thread(ours, 5)
        result[kind] = {"minitx_s": ours_s, "plain_s": plain_s, "ratio": plain_s / ours_s,
                        "norm": np.linalg.norm(svm.W), "rows": len(svm.equality_multipliers) + len(svm.multipliers),
                        "worst_condition": svm.kkt.worst}
    return result


def regularisation_paths(size, large, doublings):
    """The path that is given the SCCs, for two kinds of embeddings, against one dense Hessian at every point; and rho.

    The ratio is that of the first ``doublings`` strengths; the time of ours is that of 22.
    """
    rng, result = np.random.default_rng(0), {"size": size, "large": large, "doublings": doublings}
    E = rng.standard_normal((size["n_vocab"], size["width"])) / size["width"] ** 0.5
    for kind, table in (("one-hot", None), ("random", E)):
        automaton = Automaton.fit(_uniform_samples(size, rng), table)
        split, W_fin = automaton.split, automaton.soft.W

        def path(n_strengths, method=split_path, split=split, W_fin=W_fin):
            return list(method(split, W_fin, 2.0 ** np.arange(n_strengths)))

        whole_s, ours_s = (one_thread(partial(path, n_strengths), 2) for n_strengths in (22, doublings))
        plain, plain_s = once(lambda path=path: path(doublings, plain_path))
        agree(path(doublings), plain, 1e-6)
        result[kind] = {"whole_s": whole_s, "minitx_s": ours_s, "plain_s": plain_s, "ratio": plain_s / ours_s}
    automaton = Automaton.fit(_uniform_samples(large, rng))
    result["rho_s"] = one_thread(lambda: residual(automaton.split, automaton.svm.W, automaton.soft.W), 2)
    return result


def _uniform_samples(size, rng):
    """Samples of sequences and labels that are equally probable."""
    K, n, length = (size[key] for key in ("n_vocab", "n", "length"))
    sequences = rng.integers(0, K, (n, length))
    return Samples.of(sequences, sequences[np.arange(n), rng.integers(0, length, n)], K)


# ------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what benchmark_next_token.json holds; goals are those that the design of minitx sets."""
    return written(results, ("## Speed: next token", *_graph_svms(results["graph svm"]),
                             *_regularisation_paths(results["regularisation paths"])))


def _graph_svms(result):
    size = result["size"]
    yield (f"Graph-SVM of {size['n']} samples of {size['length']} tokens out of {size['n_vocab']}, width "
           f"{size['width']}, one thread, against non-negative least squares (Lawson and Hanson) on all edges. The "
           "goals are 0.5 s for orthonormal embeddings and 5 s for others.")
    yield block(("embeddings ", "minitx, s", "all edges, s", "times faster", "largest violation of a condition"),
                [(kind, f"{one['minitx_s']:.3f}", f"{one['plain_s']:.2f}", f"{one['ratio']:.1f}",
                  f"{one['worst_condition']:.0e}") for kind, one in result.items() if kind != "size"])


def _regularisation_paths(result):
    size, large = result["size"], result["large"]
    yield (f"Regularisation path of the next token, {size['n']} samples of {size['length']} tokens out of "
           f"{size['n_vocab']}, one thread, against Newton's method with one dense Hessian of all unknowns at every "
           f"point, on the first {result['doublings']} doublings of tau. The whole path has 22. The goal is 10 s. rho "
           f"of {large['n']:,} samples of {large['length']} out of {large['n_vocab']} one-hot tokens takes "
           f"{result['rho_s']:.1f} s (the goal is 10).")
    yield block(("embeddings ", "whole path, s", "first part, s", "dense, s", "times faster"),
                [(kind, *(f"{result[kind][name]:.2f}" for name in ("whole_s", "minitx_s", "plain_s")),
                  f"{result[kind]['ratio']:.1f}") for kind in ("one-hot", "random")])


def main():
    """Measure, and write and print the results."""
    arguments = command_line("benchmark_next_token", __doc__, quick="small sizes, which say nothing about speed")
    quick = arguments.quick
    samples = {"n_vocab": 50, "width": 64, "n": 200, "length": 8}
    if quick:
        samples = {"n_vocab": 8, "width": 10, "n": 12, "length": 4}
    many_samples = {"n_vocab": 500, "n": 4000, "length": 6}
    if quick:
        many_samples = {"n_vocab": 9, "n": 20, "length": 4}
    results = {"graph svm": graph_svms(samples),
               "regularisation paths": regularisation_paths(samples, many_samples, 4 if quick else 8)}
    write_down("benchmark_next_token", arguments, results, section)


if __name__ == "__main__":
    main()
