"""Threads: the setting, and products whose bits do not depend on it."""

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
    control = parallel._openblas()
    if control is None:
        pytest.skip("NumPy is not linked with OpenBLAS here")
    before = control[0]()
    with parallel.workers(4) as run:
        assert run(lambda _: control[0](), range(4)) == [1] * 4
    assert control[0]() == before


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_set_threads_refuses(threads):
    with pytest.raises(ValueError, match="whole number, at least 1"):
        parallel.set_threads(threads)


def test_an_error_in_a_thread_reaches_the_caller():
    parallel.set_threads(2)
    with pytest.raises(ZeroDivisionError), parallel.workers(4) as run:
        run(lambda item: 1 / item, [1, 1, 0, 1])
