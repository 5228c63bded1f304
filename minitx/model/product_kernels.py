"""Products of the small matrices of a sequence, whose factors are rows of large tables: they are read where they stand.

BLAS would need the rows of a sequence's words copied next to each other, and multiplies by the zeros of attention to
words that come later. The kernels here do neither; they are put together from the tiles of ``vector_kernels.py``.

Measured on one core (AVX2) with 64 x 44 x 600 in float32, where queries see half of the words on average: the products
of a step run at 42 (outputs), 76 (slopes of attention) and 54 GFLOP/s (slopes of words), of which BLAS, at 65 to 75,
spends half on zeros. With 200 x 110 x 3000 they run at 66, 57 and 55. On a core with AVX-512, where `mix` has wide
tiles, the products of 64 x 44 x 600 run at 80, 86 and 77 GFLOP/s, and BLAS at 105.

Legend: S sequences of a block, V vocabulary; of each sequence: M queries, U words (distinct tokens).
"""

import numpy as np

from minitx.base.compiling import ordered_kernel, part_of_kernel
from minitx.model.vector_kernels import (
    DOT_COLUMNS,
    DOT_ROWS,
    HAS_WIDE,
    MIXED_ROWS,
    MIXED_VECTORS,
    VECTOR,
    WIDE_ROWS,
    WIDE_VECTOR,
    WIDE_VECTORS,
    cut_strip,
    dot_single,
    dot_tile,
    mixed_row,
    mixed_tile,
    wide_tile,
)

SPREAD = "the numbers of a row do not lie next to each other"
GROUP_BYTES = 1 << 18  # rows of a table that `dots` reads again and again, half of a core's second cache


@ordered_kernel
def mix(factors, columns, rows, first, last, table, out):
    """out[t, :] = sum over first[t] <= k < last[t] of factors[t, columns[k]] table[rows[k], :].

    ``first`` and ``last`` ascend. What lies beyond them is multiplied too where a tile needs it, so it must be 0 there.
    Raises ValueError unless the numbers of each row of ``table`` and ``out`` lie next to each other.
    """
    n, n_columns = out.shape
    width = MIXED_VECTORS * VECTOR // out.itemsize
    if table.strides[1] != table.itemsize or out.strides[1] != out.itemsize:
        raise ValueError(SPREAD)
    if n == 0 or n_columns < width:
        for t in range(n):
            out[t, :] = 0.0
            for k in range(first[t], last[t]):
                factor, row = factors[t, columns[k]], table[rows[k]]
                for c in range(n_columns):
                    out[t, c] += factor * row[c]
        return
    begin = 0
    if HAS_WIDE:
        begin = _mix_wide(factors, columns, rows, first, last, table, out)
    if begin == n_columns:
        return
    strip = np.empty((rows.size, width), out.dtype)
    for column in range(begin, n_columns, width):
        c = min(column, n_columns - width)  # the last tile overlaps the one before it, and finds the same again
        cut_strip(rows, first[0], last[n - 1], table, c, strip)
        if n < MIXED_ROWS:
            for t in range(n):
                mixed_row(factors, columns, first[t], last[t], strip, t, c, out)
        else:
            for row in range(0, n, MIXED_ROWS):
                t = min(row, n - MIXED_ROWS)
                mixed_tile(factors, columns, first[t], last[t + MIXED_ROWS - 1], strip, t, c, out)


@part_of_kernel
def _mix_wide(factors, columns, rows, first, last, table, out):
    """Do the work of :func:`mix` for the first columns, as many as whole wide strips cover, and return their number.

    It is 0 if there are fewer than WIDE_ROWS rows.
    """
    n, width, begin = len(out), WIDE_VECTORS * WIDE_VECTOR // out.itemsize, 0
    if n < WIDE_ROWS:
        return 0
    strip = np.empty((rows.size, width), out.dtype)
    while begin + width <= out.shape[1]:
        cut_strip(rows, first[0], last[n - 1], table, begin, strip)
        for row in range(0, n, WIDE_ROWS):
            t = min(row, n - WIDE_ROWS)
            wide_tile(factors, columns, first[t], last[t + WIDE_ROWS - 1], strip, t, begin, out)
        begin += width
    return begin


@ordered_kernel
def dots(left, columns, rows, last, table, out):
    """out[t, columns[k]] = left[t, :] . table[rows[k], :] for k < last[t]; further ones may be found too.

    ``last`` ascends. Raises ValueError unless the numbers of each row of ``left`` and ``table`` lie next to each other.
    """
    n, width = left.shape
    if left.strides[1] != left.itemsize or table.strides[1] != table.itemsize:
        raise ValueError(SPREAD)
    end = width - width % (VECTOR // left.itemsize)
    if n < DOT_ROWS or rows.size < DOT_COLUMNS:
        for t in range(n):
            for k in range(last[t]):
                dot_single(left, columns, rows, table, t, k, end, out)
    else:
        group = DOT_COLUMNS * max(1, GROUP_BYTES // (DOT_COLUMNS * width * out.itemsize))
        for start in range(0, last[n - 1], group):
            for row in range(0, n, DOT_ROWS):
                t = min(row, n - DOT_ROWS)
                for number in range(start, min(start + group, last[t + DOT_ROWS - 1]), DOT_COLUMNS):
                    dot_tile(left, columns, rows, table, t, min(number, rows.size - DOT_COLUMNS), end, out)
    if end < width:
        for t in range(n):
            for k in range(last[t]):
                row = table[rows[k]]
                for c in range(end, width):
                    out[t, columns[k]] += left[t, c] * row[c]


# --------------------------------------------------------------------------------------- the three products of a block


@part_of_kernel
def outputs(C, words, seen, ov, direct, current, bias, out):
    """out[s, m, :] = sum over u < seen[s, m] of C[s, m, u] ov[words[s, u], :], + direct[current[s, m], :] + bias.

    ``direct`` and ``bias`` may be absent (empty).
    """
    numbers, none = np.arange(C.shape[2]), np.zeros(C.shape[1], np.int64)
    for s in range(len(C)):
        mix(C[s], numbers, words[s], none, seen[s], ov, out[s])
        _add_rows(direct, current[s], bias, out[s])


@part_of_kernel
def _add_rows(direct, current, bias, out):
    for m in range(len(out)):
        row = out[m]
        if direct.size > 0:
            to_add = direct[current[m]]
            for b in range(row.size):
                row[b] += to_add[b]
        if bias.size > 0:
            for b in range(row.size):
                row[b] += bias[b]


@part_of_kernel
def row_slopes(R, words, seen, table):
    """dC[s, m, u] = R[s, m, :] . table[words[s, u], :] for u < seen[s, m]; some finite number for others. (S, M, U)"""
    numbers = np.arange(words.shape[1])
    dC = np.zeros((R.shape[0], R.shape[1], words.shape[1]), R.dtype)  # others are multiplied by 0
    for s in range(len(R)):
        dots(R[s], numbers, words[s], seen[s], table, dC[s])
    return dC


@part_of_kernel
def word_slopes(C, since, R, D):
    """D[s, u, :] = sum over m >= since[s, u] of C[s, m, u] R[s, m, :]."""
    numbers, every = np.arange(C.shape[1]), np.full(C.shape[2], C.shape[1])
    for s in range(len(C)):
        mix(C[s].T, numbers, numbers, since[s], every, R[s], D[s])
