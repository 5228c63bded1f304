"""Products of the small matrices of a sequence, whose factors are rows of large tables: they are read where they stand.

BLAS would need the rows of a sequence's words copied next to each other, and multiplies by the zeros of attention to
words that come later. The kernels here do neither. They work in tiles: a tile is a few rows of a result and a few
vectors of its columns, whose sums stay in registers until they are complete. Where the tiles below each other read the
same few columns of many rows, these are copied into a strip, which stays in the fastest cache: elsewhere the rows of a
table compete for the same places there. The compiler does not find such code by itself, so tiles are written in its own
instructions (LLVM); a plain function of the same name says what each computes, and stands for it where numba is
switched off.

Measured on one core (AVX2) with 64 x 44 x 600 in float32, where queries see half of the words on average: the products
of a step run at 42 (outputs), 76 (slopes of attention) and 54 GFLOP/s (slopes of words), of which BLAS, at 65 to 75,
spends half on zeros. With 200 x 110 x 3000 they run at 66, 57 and 55.

Legend: S sequences of a block, V vocabulary; of each sequence: M queries, U words (distinct tokens).
"""

import numpy as np
from llvmlite import ir  # numba brings it along
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minitx.base.compiling import compiled, ordered_kernel

VECTOR = 32  # bytes of a vector register
MIXED_ROWS, MIXED_VECTORS = 6, 2  # a tile of `mix`: 12 sums, 2 vectors and a factor take 15 of 16 registers
DOT_ROWS, DOT_COLUMNS = 4, 3  # a tile of `dots`: 12 sums, 3 vectors and one more take all 16
SPREAD = "the numbers of a row do not lie next to each other"
GROUP_BYTES = 1 << 18  # rows of a table that `dots` reads again and again, half of a core's second cache


# ------------------------------------------------------------------------------------------------ tiles, in plain words


def mixed_tile(factors, columns, first, last, strip, t, c, out):
    """out[t + i, c:c + w] = sum over first <= k < last of factors[t + i, columns[k]] strip[k, :].

    For the i < MIXED_ROWS, and as many columns w as MIXED_VECTORS vectors have.
    """
    _mixed(MIXED_ROWS, factors, columns, first, last, strip, t, c, out)


def mixed_row(factors, columns, first, last, strip, t, c, out):
    """:func:`mixed_tile` for i = 0 alone."""
    _mixed(1, factors, columns, first, last, strip, t, c, out)


def cut_strip(rows, first, last, table, c, strip):
    """strip[k, :] = table[rows[k], c:c + w] for first <= k < last."""
    strip[first:last] = table[rows[first:last], c:c + strip.shape[1]]


def dot_tile(left, columns, rows, table, t, k, end, out):
    """out[t + i, columns[k + j]] = sum over c < end of left[t + i, c] table[rows[k + j], c], end whole vectors.

    For the i < DOT_ROWS and j < DOT_COLUMNS.
    """
    _dots(DOT_ROWS, DOT_COLUMNS, left, columns, rows, table, t, k, end, out)


def dot_single(left, columns, rows, table, t, k, end, out):
    """:func:`dot_tile` for i = j = 0 alone."""
    _dots(1, 1, left, columns, rows, table, t, k, end, out)


def _mixed(n, factors, columns, first, last, strip, t, c, out):
    out[t:t + n, c:c + strip.shape[1]] = factors[t:t + n, columns[first:last]] @ strip[first:last]


def _dots(n, m, left, columns, rows, table, t, k, end, out):
    out[t:t + n, columns[k:k + m]] = left[t:t + n, :end] @ table[rows[k:k + m], :end].T


# --------------------------------------------------------------------------------------------- tiles, in instructions


class _Code:
    """Writes the instructions of a tile: addresses in bytes, vectors of the tables' floats, and one loop."""

    def __init__(self, context, builder, array):
        self.context, self.builder = context, builder
        self.float = context.get_data_type(array.dtype)
        self.size = context.get_abi_sizeof(self.float)
        self.lanes = VECTOR // self.size
        self.vector, self.integer = ir.VectorType(self.float, self.lanes), ir.IntType(64)

    def array(self, kind, value):
        return self.context.make_array(kind)(self.context, self.builder, value)

    def whole(self, kind, value):
        return self.context.cast(self.builder, value, kind, types.intp)

    def constant(self, number):
        return ir.Constant(self.integer, number)

    def moved(self, pointer, *steps):
        """The address after steps (number, bytes of each)."""
        pointer = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        for number, size in steps:
            pointer = self.builder.gep(pointer, [self.builder.mul(*(
                self.constant(one) if isinstance(one, int) else one for one in (number, size)))])
        return pointer

    def strides(self, array):
        return cgutils.unpack_tuple(self.builder, array.strides)

    def entry(self, array, index):
        """array[index], of whole numbers."""
        value = self.builder.load(self.moved_to(array.data, index))
        return self.builder.sext(value, self.integer) if value.type.width < 64 else value

    def moved_to(self, pointer, index):
        return self.builder.gep(pointer, [index])

    def load(self, pointer, kind=None):
        found = self.builder.load(self.builder.bitcast(pointer, (kind or self.vector).as_pointer()))
        found.align = self.size
        return found

    def store(self, value, pointer):
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer())).align = self.size

    def spread(self, number):
        """A vector that holds ``number`` in all places."""
        nothing, places = ir.Constant(self.vector, ir.Undefined), ir.VectorType(ir.IntType(32), self.lanes)
        one = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(places, [0] * self.lanes))

    def prefetch(self, pointer):
        """Ask for the memory there, which is needed soon."""
        number = ir.IntType(32)
        prefetch = self.builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], ir.FunctionType(
            ir.VoidType(), [pointer.type, number, number, number]))
        self.builder.call(prefetch, [pointer, *(ir.Constant(number, setting) for setting in (0, 3, 1))])

    def sums(self, first, last, step, n_sums, terms):
        """``n_sums`` vectors: sums over i = first, first + step, ... < last of a b, for the pairs a, b of terms(i)."""
        builder, zero = self.builder, ir.Constant(self.vector, [0.0] * self.lanes)
        before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", first, last), body, after)
        builder.position_at_end(body)
        i, sums = builder.phi(self.integer), [builder.phi(self.vector) for _ in range(n_sums)]
        add = builder.module.declare_intrinsic(f"llvm.fmuladd.v{self.lanes}f{8 * self.size}",
                                               fnty=ir.FunctionType(self.vector, [self.vector] * 3))
        added = [builder.call(add, [a, b, one]) for (a, b), one in zip(terms(i), sums, strict=True)]
        following = builder.add(i, self.constant(step))
        for phi, start, end in zip([i, *sums], [first, *[zero] * n_sums], [following, *added], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, body)
        builder.cbranch(builder.icmp_signed("<", following, last), body, after)
        builder.position_at_end(after)
        found = [builder.phi(self.vector) for _ in range(n_sums)]
        for phi, end in zip(found, added, strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(end, body)
        return found

    def total(self, vector):
        """The sum of the numbers of a vector: of its halves, their halves, and so on."""
        n, builder = self.lanes, self.builder
        while n > 1:
            n //= 2
            places = ir.VectorType(ir.IntType(32), n)
            halves = [builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined),
                                             ir.Constant(places, list(range(start, start + n)))) for start in (0, n)]
            vector = builder.fadd(*halves)
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _mixed_instructions(n_rows):
    """The instructions of `mixed_tile`, with ``n_rows`` in the place of MIXED_ROWS."""
    @intrinsic
    def instructions(typing, factors, columns, first, last, strip, t, c, out):
        kinds = factors, columns, first, last, strip, t, c, out
        if out.layout == "F":
            return None  # vectors lie along rows

        def write(context, builder, signature, values):
            code = _Code(context, builder, out)
            left, column, right, to = (code.array(kinds[i], values[i]) for i in (0, 1, 4, 7))
            begin, end, at, across = (code.whole(kinds[i], values[i]) for i in (2, 3, 5, 6))
            by_row, by_column = code.strides(left)
            lines = [code.moved(left.data, (at, by_row), (i, by_row)) for i in range(n_rows)]
            places = range(MIXED_VECTORS)

            def terms(k):
                row_k = code.moved(right.data, (k, MIXED_VECTORS * VECTOR))
                vectors = [code.load(code.moved(row_k, (v, VECTOR))) for v in places]
                column_k = code.entry(column, k)
                factor = (code.spread(code.load(code.moved(line, (column_k, by_column)), code.float)) for line in lines)
                return [(one, vector) for one in factor for vector in vectors]

            found = iter(code.sums(begin, end, 1, n_rows * MIXED_VECTORS, terms))
            for i in range(n_rows):
                line = code.moved(to.data, (across, code.size), (at, code.strides(to)[0]), (i, code.strides(to)[0]))
                for v in places:
                    code.store(next(found), code.moved(line, (v, VECTOR)))
            return context.get_dummy_value()

        return types.void(*kinds), write

    return instructions


@intrinsic
def _cut_strip(typing, rows, first, last, table, c, strip):
    """The instructions of `cut_strip`."""
    kinds = rows, first, last, table, c, strip
    if table.layout == "F":
        return None

    def write(context, builder, signature, values):
        code = _Code(context, builder, strip)
        row, whole, to = (code.array(kinds[i], values[i]) for i in (0, 3, 5))
        begin, end, across = (code.whole(kinds[i], values[i]) for i in (1, 2, 4))
        from_column = code.moved(whole.data, (across, code.size))
        with cgutils.for_range_slice(builder, begin, end, code.constant(1), code.integer) as (k, _):
            row_k = code.moved(from_column, (code.entry(row, k), code.strides(whole)[0]))
            code.prefetch(code.moved(row_k, (MIXED_VECTORS, VECTOR)))  # the next strip of this row
            for v in range(MIXED_VECTORS):
                code.store(code.load(code.moved(row_k, (v, VECTOR))),
                           code.moved(to.data, (k, MIXED_VECTORS * VECTOR), (v, VECTOR)))
        return context.get_dummy_value()

    return types.void(*kinds), write


def _dot_instructions(n_rows, n_columns):
    """The instructions of `dot_tile`, with these numbers in the place of DOT_ROWS and DOT_COLUMNS."""
    @intrinsic
    def instructions(typing, left, columns, rows, table, t, k, end, out):
        kinds = left, columns, rows, table, t, k, end, out
        if "F" in (left.layout, table.layout):
            return None

        def write(context, builder, signature, values):
            code = _Code(context, builder, out)
            one, column, row, other, to = (code.array(kinds[i], values[i]) for i in (0, 1, 2, 3, 7))
            at, first, width = (code.whole(kinds[i], values[i]) for i in (4, 5, 6))
            numbers = [builder.add(first, code.constant(j)) for j in range(n_columns)]
            lines = [code.moved(one.data, (at, code.strides(one)[0]), (i, code.strides(one)[0])) for i in range(n_rows)]
            others = [code.moved(other.data, (code.entry(row, j), code.strides(other)[0])) for j in numbers]

            def terms(c):
                vectors = [code.load(code.moved(line, (c, code.size))) for line in others]
                of_lines = (code.load(code.moved(line, (c, code.size))) for line in lines)
                return [(a, b) for a in of_lines for b in vectors]

            found = iter(code.sums(code.constant(0), width, code.lanes, n_rows * n_columns, terms))
            by_row, by_column = code.strides(to)
            places = [code.moved(to.data, (code.entry(column, j), by_column), (at, by_row)) for j in numbers]
            for i in range(n_rows):
                for place in places:
                    code.store(code.total(next(found)), code.moved(place, (i, by_row)))
            return context.get_dummy_value()

        return types.void(*kinds), write

    return instructions


_mixed_tile, _mixed_row = _mixed_instructions(MIXED_ROWS), _mixed_instructions(1)
_dot_tile, _dot_single = _dot_instructions(DOT_ROWS, DOT_COLUMNS), _dot_instructions(1, 1)


@compiled(mixed_tile)
def _(factors, columns, first, last, strip, t, c, out):
    def tile(factors, columns, first, last, strip, t, c, out):
        _mixed_tile(factors, columns, first, last, strip, t, c, out)
    return tile


@compiled(mixed_row)
def _(factors, columns, first, last, strip, t, c, out):
    def tile(factors, columns, first, last, strip, t, c, out):
        _mixed_row(factors, columns, first, last, strip, t, c, out)
    return tile


@compiled(cut_strip)
def _(rows, first, last, table, c, strip):
    def tile(rows, first, last, table, c, strip):
        _cut_strip(rows, first, last, table, c, strip)
    return tile


@compiled(dot_tile)
def _(left, columns, rows, table, t, k, end, out):
    def tile(left, columns, rows, table, t, k, end, out):
        _dot_tile(left, columns, rows, table, t, k, end, out)
    return tile


@compiled(dot_single)
def _(left, columns, rows, table, t, k, end, out):
    def tile(left, columns, rows, table, t, k, end, out):
        _dot_single(left, columns, rows, table, t, k, end, out)
    return tile


# ------------------------------------------------------------------------------------------------------------- products


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
    strip = np.empty((rows.size, width), out.dtype)
    for column in range(0, n_columns, width):
        c = min(column, n_columns - width)  # the last tile overlaps the one before it, and finds the same again
        cut_strip(rows, first[0], last[n - 1], table, c, strip)
        if n < MIXED_ROWS:
            for t in range(n):
                mixed_row(factors, columns, first[t], last[t], strip, t, c, out)
        else:
            for row in range(0, n, MIXED_ROWS):
                t = min(row, n - MIXED_ROWS)
                mixed_tile(factors, columns, first[t], last[t + MIXED_ROWS - 1], strip, t, c, out)


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


@ordered_kernel
def outputs(C, words, seen, ov, direct, current, bias, out):
    """out[s, m, :] = sum over u < seen[s, m] of C[s, m, u] ov[words[s, u], :], + direct[current[s, m], :] + bias."""
    numbers, none = np.arange(C.shape[2]), np.zeros(C.shape[1], np.int64)
    for s in range(len(C)):
        mix(C[s], numbers, words[s], none, seen[s], ov, out[s])
        _add_rows(direct, current[s], bias, out[s])


@ordered_kernel
def add_rows(direct, current, bias, out):
    """out[s, m, :] += direct[current[s, m], :] + bias, of which each may be absent (empty)."""
    for s in range(len(out)):
        _add_rows(direct, current[s], bias, out[s])


@ordered_kernel
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


@ordered_kernel
def row_slopes(R, words, seen, table, dC):
    """dC[s, m, u] = R[s, m, :] . table[words[s, u], :] for u < seen[s, m]."""
    numbers = np.arange(words.shape[1])
    for s in range(len(R)):
        dots(R[s], numbers, words[s], seen[s], table, dC[s])


@ordered_kernel
def word_slopes(C, since, R, D):
    """D[s, u, :] = sum over m >= since[s, u] of C[s, m, u] R[s, m, :]."""
    numbers, every = np.arange(C.shape[1]), np.full(C.shape[2], C.shape[1])
    for s in range(len(C)):
        mix(C[s].T, numbers, numbers, since[s], every, R[s], D[s])
