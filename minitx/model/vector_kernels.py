"""Parts of kernels in vector instructions: sums of rows, and tiles of products.

A tile is a few rows of a product and a few vectors of its columns, whose sums stay in registers until they are
complete. Where the tiles below each other read the same few columns of many rows, these are copied into a strip, which
stays in the fastest cache: elsewhere the rows of a table compete for the same places there. The sum of a row runs in
several vectors at once, in an order that is the same wherever it is compiled.

The compiler does not find such code by itself, so it is written here in the instructions of numba's compiler, LLVM. A
plain function of the same name says what each part computes, and stands for it where numba is switched off.
"""

import functools
import math

from llvmlite import ir  # numba brings it along
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from minitx.base.compiling import compiled

# Bytes of a vector, except in wide tiles; it is a constant, because the number of its places decides in which order
# rows and the products of `dots` are summed.
VECTOR = 32
MIXED_ROWS, MIXED_VECTORS = 6, 2  # a tile of `mix`: 12 sums, 2 vectors and a factor take 15 of 16 registers
# Where registers have 64 bytes (AVX-512) a wide tile of `mix` takes 0.75 to 0.95 of the time. Each of its sums stays in
# one place of a vector, so both tiles give the same bits.
WIDE_ROWS, WIDE_VECTORS, WIDE_VECTOR = 4, 3, 64
FEATURES = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
HAS_WIDE = "+avx512f" in FEATURES.split(",")
DOT_ROWS, DOT_COLUMNS = 4, 3  # a tile of `dots`: 12 sums, 3 vectors and one more take all 16
ROW_VECTORS = 4  # sums of a row that run at once, because the next addition to a sum waits some cycles for the last


# --------------------------------------------------------------------------------------- rows and tiles, in plain words


def largest(row):
    """The largest number of a row; it is some number of the row, or -inf, if one is nan."""
    return row.max()


def sum_of(row):
    """The sum of the numbers of a row."""
    return row.sum()


def sum_of_squares(row):
    """The sum of the squares of the numbers of a row."""
    return (row * row).sum()


def mixed_tile(factors, columns, first, last, strip, t, c, out):
    """out[t + i, c:c + w] = sum over first <= k < last of factors[t + i, columns[k]] strip[k, :].

    For the i < MIXED_ROWS, and as many columns w as MIXED_VECTORS vectors have.
    """
    _mixed(MIXED_ROWS, factors, columns, first, last, strip, t, c, out)


def mixed_row(factors, columns, first, last, strip, t, c, out):
    """:func:`mixed_tile` for i = 0 alone."""
    _mixed(1, factors, columns, first, last, strip, t, c, out)


def wide_tile(factors, columns, first, last, strip, t, c, out):
    """:func:`mixed_tile` for i < WIDE_ROWS, and as many columns as WIDE_VECTORS wide vectors have."""
    _mixed(WIDE_ROWS, factors, columns, first, last, strip, t, c, out)


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


# ------------------------------------------------------------------------------------- rows and tiles, in instructions


class _Code:
    """Writes the instructions of a tile: addresses in bytes, vectors of the tables' floats, and one loop.

    ``vector`` is the number of bytes of a vector.
    """

    def __init__(self, context, builder, array, vector=VECTOR):
        self.context, self.builder = context, builder
        self.float = context.get_data_type(array.dtype)
        self.size = context.get_abi_sizeof(self.float)
        self.lanes = vector // self.size
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

    def repeated(self, first, last, step, starts, once):
        """Values that are ``starts`` at first, and after every i = first, first + step, ... < last once(i, values)."""
        builder = self.builder
        before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", first, last), body, after)
        builder.position_at_end(body)
        i, values = builder.phi(self.integer), [builder.phi(start.type) for start in starts]
        ends, following = once(i, values), builder.add(i, self.constant(step))
        for phi, start, end in zip([i, *values], [first, *starts], [following, *ends], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, body)
        builder.cbranch(builder.icmp_signed("<", following, last), body, after)
        builder.position_at_end(after)
        found = [builder.phi(start.type) for start in starts]
        for phi, start, end in zip(found, starts, ends, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, body)
        return found

    def sums(self, first, last, step, n_sums, terms):
        """``n_sums`` vectors: sums over i = first, first + step, ... < last of a b, for the pairs a, b of terms(i)."""
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        return self.repeated(first, last, step, [zero] * n_sums, lambda i, sums: [
            self.multiplied_and_added(a, b, one) for (a, b), one in zip(terms(i), sums, strict=True)])

    def multiplied_and_added(self, a, b, c):
        """a b + c, of vectors or numbers."""
        name = f"f{8 * self.size}" if a.type == self.float else f"v{self.lanes}f{8 * self.size}"
        add = self.builder.module.declare_intrinsic(f"llvm.fmuladd.{name}", fnty=ir.FunctionType(a.type, [a.type] * 3))
        return self.builder.call(add, [a, b, c])

    def halved(self, vector, combine):
        """One number of those of a vector: its halves are combined, then theirs, and so on."""
        n, builder = self.lanes, self.builder
        while n > 1:
            n //= 2
            places = ir.VectorType(ir.IntType(32), n)
            vector = combine(*(builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined),
                                                      ir.Constant(places, list(range(start, start + n))))
                               for start in (0, n)))
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _row_instructions(start, combined, added):
    """The instructions that reduce a row to a number: value = added(code, value, new), from ``start`` on.

    ``combined(code, one, other)`` is that of two values.
    """
    @intrinsic
    def instructions(typing, row):
        if row.layout != "C":
            return None

        def write(context, builder, signature, values):
            code = _Code(context, builder, row)
            array = code.array(row, values[0])
            (size,) = cgutils.unpack_tuple(builder, array.shape)

            def over(first, unit, n, starts):
                """The values after all whole groups of n times a ``unit`` from ``first`` on; and where they end."""
                width = n * (code.lanes if unit is code.vector else 1)
                last = builder.sub(size, builder.srem(builder.sub(size, first), code.constant(width)))
                return last, code.repeated(first, last, width, starts, lambda i, found: [
                    added(code, one, code.load(code.moved(array.data, (i, code.size), (v, VECTOR)), unit))
                    for v, one in enumerate(found)])

            last, found = over(code.constant(0), code.vector, ROW_VECTORS,
                               [ir.Constant(code.vector, [start] * code.lanes)] * ROW_VECTORS)
            last, found = over(last, code.vector, 1, [functools.reduce(functools.partial(combined, code), found)])
            return over(last, code.float, 1, [code.halved(found[0], functools.partial(combined, code))])[1][0]

        return row.dtype(row), write

    return instructions


def _larger(code, one, other):
    return code.builder.select(code.builder.fcmp_ordered(">", one, other), one, other)


def _sum(code, one, other):
    return code.builder.fadd(one, other)


def _square_added(code, one, new):
    return code.multiplied_and_added(new, new, one)


def _mixed_instructions(n_rows, n_vectors=MIXED_VECTORS, vector=VECTOR):
    """The instructions of `mixed_tile`, with these numbers in the place of MIXED_ROWS, MIXED_VECTORS and VECTOR."""
    @intrinsic
    def instructions(typing, factors, columns, first, last, strip, t, c, out):
        kinds = factors, columns, first, last, strip, t, c, out
        if out.layout == "F":
            return None  # vectors lie along rows

        def write(context, builder, signature, values):
            code = _Code(context, builder, out, vector)
            left, column, right, to = (code.array(kinds[i], values[i]) for i in (0, 1, 4, 7))
            begin, end, at, across = (code.whole(kinds[i], values[i]) for i in (2, 3, 5, 6))
            by_row, by_column = code.strides(left)
            lines = [code.moved(left.data, (at, by_row), (i, by_row)) for i in range(n_rows)]
            places = range(n_vectors)

            def terms(k):
                row_k = code.moved(right.data, (k, n_vectors * vector))
                vectors = [code.load(code.moved(row_k, (v, vector))) for v in places]
                column_k = code.entry(column, k)
                factor = (code.spread(code.load(code.moved(line, (column_k, by_column)), code.float)) for line in lines)
                return [(one, vector) for one in factor for vector in vectors]

            found = iter(code.sums(begin, end, 1, n_rows * n_vectors, terms))
            for i in range(n_rows):
                line = code.moved(to.data, (across, code.size), (at, code.strides(to)[0]), (i, code.strides(to)[0]))
                for v in places:
                    code.store(next(found), code.moved(line, (v, vector)))
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
            to_k = code.moved(to.data, (k, code.strides(to)[0]))
            code.prefetch(code.moved(row_k, (1, code.strides(to)[0])))  # the next strip of this row
            with cgutils.for_range_slice(builder, code.constant(0), code.strides(to)[0], code.constant(VECTOR),
                                         code.integer) as (v, _):
                code.store(code.load(code.moved(row_k, (1, v))), code.moved(to_k, (1, v)))
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
                    code.store(code.halved(next(found), builder.fadd), code.moved(place, (i, by_row)))
            return context.get_dummy_value()

        return types.void(*kinds), write

    return instructions


_largest = _row_instructions(-math.inf, _larger, lambda code, one, new: _larger(code, new, one))
_sum_of, _sum_of_squares = _row_instructions(0.0, _sum, _sum), _row_instructions(0.0, _sum, _square_added)
_mixed_tile, _mixed_row = _mixed_instructions(MIXED_ROWS), _mixed_instructions(1)
_wide_tile = _mixed_instructions(WIDE_ROWS, WIDE_VECTORS, WIDE_VECTOR)
_dot_tile, _dot_single = _dot_instructions(DOT_ROWS, DOT_COLUMNS), _dot_instructions(1, 1)


@compiled(largest)
def _(row):
    def largest(row):
        return _largest(row)
    return largest


@compiled(sum_of)
def _(row):
    def sum_of(row):
        return _sum_of(row)
    return sum_of


@compiled(sum_of_squares)
def _(row):
    def sum_of_squares(row):
        return _sum_of_squares(row)
    return sum_of_squares


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


@compiled(wide_tile)
def _(factors, columns, first, last, strip, t, c, out):
    def tile(factors, columns, first, last, strip, t, c, out):
        _wide_tile(factors, columns, first, last, strip, t, c, out)
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
