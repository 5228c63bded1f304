"""The products of small matrices, tile by tile, against plain sums."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.model import path_kernels, product_kernels, vector_kernels


@st.composite
def products(draw):
    """Factors (n, U), the rows of a table (v, width) that are multiplied, in an order of columns, and where they begin
    and end; all dtypes and sizes around those of a tile, wide or not.
    """
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    n, U, v, width = (draw(st.integers(1, most)) for most in (15, 9, 12, 100))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ends = np.sort(rng.integers(0, U + 1, (2, n)), axis=1)
    factors, table = rng.standard_normal((n, U)), rng.standard_normal((v, width))
    return (factors.astype(dtype), rng.permutation(U).astype(np.int32), rng.integers(0, v, U).astype(np.int32),
            np.minimum(*ends), np.maximum(*ends), table.astype(dtype))


def held(factors, columns, first, last):
    """The factors, with zeros before ``first`` and from ``last`` on, as the kernels need them."""
    found = np.zeros_like(factors)
    for t in range(len(factors)):
        for k in range(first[t], last[t]):
            found[t, columns[k]] = factors[t, columns[k]]
    return found


def close(found, expected, dtype):
    np.testing.assert_allclose(found, expected, rtol=0, atol=200 * np.finfo(dtype).eps)


@given(products(), st.booleans())
def test_mixed_rows_are_plain_sums(product, transposed):
    factors, columns, rows, first, last, table = product
    factors = held(factors, columns, first, last)
    expected = np.zeros((len(factors), table.shape[1]))
    for t in range(len(factors)):
        for k in range(first[t], last[t]):
            for c in range(table.shape[1]):
                expected[t, c] += float(factors[t, columns[k]]) * float(table[rows[k], c])
    out = np.full(expected.shape, np.nan, table.dtype)
    given_factors = np.ascontiguousarray(factors.T).T if transposed else factors
    product_kernels.mix(given_factors, columns, rows, first, last, table, out)
    close(out, expected, table.dtype)
    again = np.empty_like(out)
    product_kernels.mix(factors, columns, rows, first, last, table, again)
    np.testing.assert_array_equal(again, out)


MIX_FOR_SHORT_REGISTERS = """
import sys
import numpy as np
from minitx.model import product_kernels, vector_kernels
assert not vector_kernels.HAS_WIDE
given = np.load(sys.argv[1])
out = np.empty_like(given["out"])
product_kernels.mix(*(given[name] for name in ("factors", "columns", "rows", "first", "last", "table")), out)
np.testing.assert_array_equal(out, given["out"])
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the tiles are compiled code")
@pytest.mark.skipif(not vector_kernels.HAS_WIDE, reason="this processor has no registers of 64 bytes")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bits_do_not_depend_on_the_length_of_registers(dtype, tmp_path):
    rng, n, width = np.random.default_rng(0), 13, 333
    given = {"factors": rng.standard_normal((n, n)).astype(dtype), "columns": rng.permutation(n),
             "rows": rng.integers(0, 20, n), "first": np.sort(rng.integers(0, 4, n)),
             "last": np.sort(rng.integers(4, n + 1, n)), "table": rng.standard_normal((20, width)).astype(dtype)}
    given["factors"] = held(*list(given.values())[:2], given["first"], given["last"])
    out = np.empty((n, width), dtype)
    product_kernels.mix(*given.values(), out)
    np.savez(tmp_path / "given.npz", **given, out=out)
    done = subprocess.run([sys.executable, "-c", MIX_FOR_SHORT_REGISTERS, tmp_path / "given.npz"], capture_output=True,
                          text=True, env=os.environ | {"NUMBA_CPU_FEATURES": "+avx2,+fma,-avx512f"})
    assert done.returncode == 0, done.stderr


@given(products())
def test_dot_products_are_plain_sums(product):
    _, columns, rows, _, last, table = product
    n = len(last)
    left = np.random.default_rng(0).standard_normal((n, table.shape[1])).astype(table.dtype)
    out = np.full((n, len(columns)), np.nan, table.dtype)
    product_kernels.dots(left, columns, rows, last, table, out)
    for t in range(n):
        for k in range(last[t]):
            expected = 0.0
            for c in range(table.shape[1]):
                expected += float(left[t, c]) * float(table[rows[k], c])
            close(out[t, columns[k]], expected, table.dtype)


@given(st.sampled_from([np.float64, np.float32]), st.integers(1, 3), st.integers(1, 8), st.integers(1, 7),
       st.integers(1, 20), st.randoms(use_true_random=False))
def test_a_block_has_the_products_of_its_sequences(dtype, S, M, U, V, random):
    rng = np.random.default_rng(random.getrandbits(32))
    words, table = rng.integers(0, V, (S, U)).astype(np.int32), rng.standard_normal((V, V)).astype(dtype)
    seen = np.sort(rng.integers(0, U + 1, (S, M)).astype(np.int32), axis=1)
    since = (seen[:, :, None] <= np.arange(U)).sum(axis=1)
    attended = np.arange(U) < seen[:, :, None]
    C = np.where(attended, rng.standard_normal((S, M, U)), 0.0).astype(dtype)
    R = rng.standard_normal((S, M, V)).astype(dtype)
    out, D = np.empty_like(R), np.empty((S, U, V), dtype)
    direct, bias = rng.standard_normal((V, V)).astype(dtype), table[0].copy()
    current = rng.integers(0, V, (S, M)).astype(np.int32)
    for array in (table, direct, bias):  # as the parts of weights are; kernels are not compiled for this test alone
        array.flags.writeable = False
    product_kernels.outputs(C, words, seen, table, direct, current, bias, out)
    dC = product_kernels.row_slopes(R, words, seen, table)
    product_kernels.word_slopes(C, since, R, D)
    close(out, np.einsum("smu,suv->smv", C, table[words], dtype=float) + direct[current] + bias, dtype)
    close(np.where(attended, dC, 0.0), np.where(attended, np.einsum("smv,suv->smu", R, table[words], dtype=float), 0),
          dtype)
    close(D, np.einsum("smu,smv->suv", C, R, dtype=float), dtype)


@given(st.sampled_from([np.float64, np.float32]), st.integers(1, 9), st.integers(1, 8), st.integers(2, 20),
       st.sampled_from([1, 2, 4]), st.randoms(use_true_random=False))
def test_paths_have_the_products_of_their_tables(dtype, U, T, V, n_paths, random):
    """An array of paths has columns of zeros after those of the words."""
    rng = np.random.default_rng(random.getrandbits(32))
    words, tables = rng.integers(0, V, U).astype(np.int32), rng.standard_normal((n_paths, V, V)).astype(dtype)
    seen = np.sort(rng.integers(0, U + 1, T)).astype(np.int32)
    attended = np.arange(U) < seen[:, None, None]  # (T, 1, U)
    n_columns = U + int(rng.integers(0, 3))
    C = np.zeros((T, n_paths + 1, n_columns), dtype)  # one path more than the tables
    C[:, :, :U] = np.where(attended, rng.standard_normal((T, n_paths + 1, U)), 0.0)
    R, out = rng.standard_normal((2, T, V)).astype(dtype)
    dC, D = np.full_like(C, np.nan), np.empty((U, n_paths - 1, V), dtype)
    path_kernels.path_rows(C.reshape(T, -1), n_columns, words, seen, tables, out)
    path_kernels.path_slopes(R, n_columns, words, seen, tables, dC.reshape(T, -1))
    path_kernels.path_word_slopes(C.reshape(T, -1), n_columns, words, seen, R, D)
    through = C[:, 1:n_paths, :U]
    close(out, np.einsum("tsu,suv->tv", through, tables[1:, words], dtype=float), dtype)
    close(D, np.einsum("tsu,tv->usv", through, R, dtype=float), dtype)
    assert np.isfinite(dC[:, :n_paths]).all() and np.isnan(dC[:, n_paths]).all()  # other paths are not touched
    assert not dC[:, 0].any() and not dC[:, :n_paths, U:].any()
    close(np.where(attended, dC[:, 1:n_paths, :U], 0.0),
          np.where(attended, np.einsum("tv,suv->tsu", R, tables[1:, words], dtype=float), 0.0), dtype)


@pytest.mark.skipif(isinstance(product_kernels.mix, type(lambda: 0)), reason="numba is switched off")
def test_vectors_lie_along_rows():
    """A table in another order of memory is refused when the kernel is compiled, never read in a wrong order."""
    from numba.core.errors import TypingError
    columns, ends = np.arange(3, dtype=np.int32), np.full(8, 3)
    with pytest.raises(TypingError):
        product_kernels.mix(np.ones((8, 3)), columns, columns, ends * 0, ends, np.ones((20, 20)).T, np.ones((8, 20)))


def test_the_numbers_of_a_row_lie_next_to_each_other():
    columns, ends, spread = np.arange(3), np.full(8, 3), np.ones((20, 40))[:, ::2]
    with pytest.raises(ValueError, match="next to each other"):
        product_kernels.mix(np.ones((8, 3)), columns, columns, ends * 0, ends, spread, np.ones((8, 20)))
    with pytest.raises(ValueError, match="next to each other"):
        product_kernels.dots(np.ones((8, 20)), columns, columns, ends, spread, np.ones((8, 3)))
