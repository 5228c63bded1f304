"""Threads: the setting, and products whose bits do not depend on it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minitx import parallel


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
    """Those of NumPy and of SciPy."""
    controls = parallel._openblas()
    if not controls:
        pytest.skip("NumPy and SciPy are not linked with OpenBLAS here")

    def threads():
        return [get() for get, _ in controls]

    before = threads()
    with parallel.workers(4) as run:
        assert run(lambda _: threads(), range(4)) == [[1] * len(controls)] * 4
    assert threads() == before


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_set_threads_refuses(threads):
    with pytest.raises(ValueError, match="whole number, at least 1"):
        parallel.set_threads(threads)


def test_an_error_in_a_thread_reaches_the_caller():
    parallel.set_threads(2)
    with pytest.raises(ZeroDivisionError), parallel.workers(4) as run:
        run(lambda item: 1 / item, [1, 1, 0, 1])


BITS = """
import hashlib, sys
import numpy as np
import minitx
from minitx import compare
from minitx.theory import associations

minitx.set_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
batch = minitx.Batch(rng.integers(0, 700, (8, 64)), rng.integers(0, 700, (8, 64)))
found = associations.statistics(batch, 700)
digest = hashlib.sha256(b"".join(array.tobytes() for array in vars(found).values()))
for dtype in (np.float32, np.float64):
    weights = minitx.OneHotWeights.gaussian(700, 64, scale=0.05, rng=0, dtype=dtype)
    run = minitx.descend(weights, batch, learning_rate=1.0, steps=1)
    digest.update(run.loss.tobytes() + b"".join(array.tobytes() for array in run.weights.parameters().values()))
terms = minitx.gradient_terms(run.weights, batch)
digest.update(b"".join(term.tobytes() for split in terms.values() for term in split.values()))
digest.update(repr([compare.norm(found.context), compare.cosine(found.bigram, found.context)]).encode())
print(digest.hexdigest())
"""

MASKED_BITS = """
import hashlib, sys
import numpy as np
import minitx
from minitx.blocks import blocks
from minitx.synthetic.topics import TopicModel, mask_tokens

minitx.set_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for model, n_documents, joined in ((TopicModel(10, 10, tau=4, length=128), 400, True),
                                   (TopicModel(20, 35, tau=2, length=(64, 128)), 60, False)):
    batch = mask_tokens(model.documents(n_documents, rng=0), rng=0)
    for dtype in (np.float32, np.float64):
        start = minitx.EmbeddedWeights.gaussian(model.n_vocab, W_V=0.05, W_QK=0.05, b=0.1, rng=0, dtype=dtype)
        cut = blocks(batch, start.circuits())
        assert len(cut) > 1 and all((block.bags is not None) == joined for block in cut), (len(cut), joined)
        run = minitx.descend(start, batch, learning_rate=1.0, steps=2)
        digest.update(run.loss.tobytes() + b"".join(array.tobytes() for array in run.weights.parameters().values()))
print(digest.hexdigest())
"""

GRAPH_BITS = """
import hashlib, sys
import numpy as np
import minitx
from minitx.last_token import Samples
from minitx.theory.cyclic_subspace import cyclic_subspace
from minitx.theory.graph_svm import graph_svm
from minitx.theory.priority_graph import priority_graphs

minitx.set_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
sequences = rng.integers(0, 40, (200, 8))
graphs = priority_graphs(Samples.of(sequences, sequences[:, 2]))
E = rng.standard_normal((40, 50))
S_fin, svm = cyclic_subspace(graphs, E), graph_svm(graphs, E)
found = [S_fin.basis, S_fin.rest(E.T @ E), svm.W, svm.multipliers, svm.equality_multipliers]
print(hashlib.sha256(b"".join(array.tobytes() for array in found) + repr(svm.kkt).encode()).hexdigest())
"""


@pytest.mark.parametrize("script", [BITS, MASKED_BITS, GRAPH_BITS],
                         ids=["causal", "masked documents, joined and separate", "graphs"])
def test_same_bits_whatever_the_threads_of_blas_and_ours(script):
    """OpenBLAS rounds float32 products of these sizes differently on one and on two threads of its own."""
    digests = set()
    for blas, ours in (("1", "1"), ("2", "1"), ("2", "2")):
        done = subprocess.run([sys.executable, "-c", script, ours], capture_output=True, text=True, timeout=300, check=True,
                              env=os.environ | {"OPENBLAS_NUM_THREADS": blas})
        digests.add(done.stdout)
    assert len(digests) == 1
