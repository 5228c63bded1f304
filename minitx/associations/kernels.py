"""The numba kernels of the associations theory: sums at the reference point, and sums of reduced dynamics.

Legend: N sequences, T positions, V vocabulary; U distinct tokens of a sequence.
"""

import heapq
import math

import numpy as np

from minitx.base.compiling import kernel, ordered_kernel, part_of_kernel
from minitx.model.kernels import exponentials
from minitx.model.vector_kernels import largest, sum_of

# ---------------------------------------- the reference point: output uniform, causal attention uniform over the prefix
#
# words[s, u] is the u-th distinct token of sequence s and slots[s, j] the number u of its token x_j, in order of
# appearance. Threads share a table by rows: row a belongs to owner a mod n_owners, so that each entry is added to in
# the same order.


@kernel
def reference_context(lengths, targets, weight, words, slots, owner, n_owners, context):
    """context[y_t, a] += w_t (count of a among x_0 .. x_t) / (t + 1), for the rows y of one owner."""
    count = np.zeros(words.shape[1])
    for s in range(words.shape[0]):
        count[:] = 0.0
        seen = 0
        for t in range(lengths[s]):
            count[slots[s, t]] += 1.0
            seen = max(seen, slots[s, t] + 1)
            y = targets[s, t]
            if weight[s, t] != 0.0 and y % n_owners == owner:
                share = weight[s, t] / (t + 1)
                row = context[y]
                for u in range(seen):
                    row[words[s, u]] += share * count[u]


@kernel
def reference_attention(tokens, lengths, targets, weight, words, slots, g, owner, n_owners, qk):
    """qk[x_t, a] += w_t sum_{j <= t, x_j = a} (g[y_t, a] - mean_{k <= t} g[y_t, x_k]) / (t + 1), rows of one owner."""
    count = np.zeros(words.shape[1])
    centred = np.empty(words.shape[1])
    for s in range(words.shape[0]):
        count[:] = 0.0
        seen = 0
        for t in range(lengths[s]):
            count[slots[s, t]] += 1.0
            seen = max(seen, slots[s, t] + 1)
            if weight[s, t] == 0.0 or tokens[s, t] % n_owners != owner:
                continue
            mean = 0.0
            for u in range(seen):
                centred[u] = g[targets[s, t], words[s, u]]
                mean += count[u] * centred[u]
            mean /= t + 1
            row, share = qk[tokens[s, t]], weight[s, t] / (t + 1)
            for u in range(seen):
                row[words[s, u]] += share * count[u] * (centred[u] - mean)


@kernel
def reference_position(tokens, lengths, targets, weight, g, position):
    """position[t - j] += w_t (g[y_t, x_j] - mean_{k <= t} g[y_t, x_k]) / (t + 1)."""
    scores = np.empty(tokens.shape[1])
    for s in range(tokens.shape[0]):
        for t in range(lengths[s]):
            if weight[s, t] == 0.0:
                continue
            mean = 0.0
            for j in range(t + 1):
                scores[j] = g[targets[s, t], tokens[s, j]]
                mean += scores[j]
            mean /= t + 1
            share = weight[s, t] / (t + 1)
            for j in range(t + 1):
                position[t - j] += share * (scores[j] - mean)


# ---------------------------------------------------------- counts that merge: the same sums, exactly, in whole numbers
#
# An entry is whole + part / 2^bits, both int64, so that no sum is ever rounded and every order of additions gives the
# same bits. What is added to an entry of a row is at most ``grown`` units of 2^bits since its parts were last carried
# over. Words and slots are unsigned: an index that cannot be negative lets the lookups be vectorised.


@ordered_kernel
def carry(whole, part, bits):
    """Move what ``part`` has above 2^bits to ``whole``; then 0 <= part < 2^bits."""
    for i in range(part.shape[0]):
        for a in range(part.shape[1]):
            over = part[i, a] >> bits
            if over != 0:  # memory of entries that stay 0 is never touched
                whole[i, a] += over
                part[i, a] -= over << bits


@ordered_kernel
def make_room(whole, part, grown, row, bits):
    """Carry one row over, so that its parts have room for more."""
    carry(whole[row:row + 1], part[row:row + 1], bits)
    grown[row] = 1.0


@ordered_kernel
def count_contexts(targets, slots, words, shares, bits, whole, part, grown):
    """Add (count of a among x_0 .. x_t) shares[t] to the entry (y_t, a); shares[t] is 2^bits / (t + 1), rounded."""
    count, room = np.zeros(words.shape[1], np.int64), 2.0 ** (62 - bits)
    bound = 1.001 / np.arange(1, targets.shape[1] + 1)
    for s in range(targets.shape[0]):
        count[:] = 0
        seen = most = 0  # most: the largest count
        for t in range(targets.shape[1]):
            y, slot, share = targets[s, t], slots[s, t], shares[t]
            count[slot] += 1
            seen, most = max(seen, slot + 1), max(most, count[slot])
            amount = most * bound[t]
            if grown[y] + amount > room:
                make_room(whole, part, grown, y, bits)
            grown[y] += amount
            row = part[y]
            for u in range(seen):
                row[words[s, u]] += share * count[u]


@ordered_kernel
def count_scores(tokens, targets, slots, words, g, spread, bits, qk, position):
    """Add the terms of reference_attention and reference_position, rounded to multiples of 2^-bits, to both tables.

    ``qk`` and ``position`` are (whole, part, grown). No two entries of g[y, :] differ by more than spread[y], which is
    at most 1.
    """
    count, room = np.zeros(words.shape[1], np.int64), 2.0 ** (62 - bits)
    centred = np.empty(words.shape[1])
    term = np.empty(words.shape[1], np.int64)
    bound, units = 1.001 / np.arange(1, tokens.shape[1] + 1), 2.0 ** bits / np.arange(1, tokens.shape[1] + 1)
    for s in range(tokens.shape[0]):
        count[:] = 0
        seen = most = 0  # most: the largest count
        for t in range(tokens.shape[1]):
            x, y, slot = tokens[s, t], targets[s, t], slots[s, t]
            count[slot] += 1
            seen, most = max(seen, slot + 1), max(most, count[slot])
            to_next, mean = g[y], 0.0
            for u in range(seen):
                centred[u] = to_next[words[s, u]]
                mean += count[u] * centred[u]
            mean /= t + 1
            amount, unit = spread[y] * bound[t], units[t]
            if qk[2][x] + most * amount > room:
                make_room(qk[0], qk[1], qk[2], x, bits)
            if position[2][0] + amount > room:
                make_room(position[0], position[1], position[2], 0, bits)
            qk[2][x] += most * amount
            position[2][0] += amount
            row, near = qk[1][x], position[1][0]
            for u in range(seen):
                term[u] = np.int64(np.rint(unit * (centred[u] - mean)))
                row[words[s, u]] += count[u] * term[u]
            for j in range(t + 1):
                near[t - j] += term[slots[s, j]]


# ------------------------------------------------------------------------ reduced dynamics: sums over loss positions
#
# A loss position i is (sequence[i], at[i]). A kernel visits one piece of the work, the positions first .. last - 1, or
# order[first .. last - 1]. The arrays, or rows of a table, that one piece adds to are touched by no other piece.
#
# Attention is a product of looked up numbers, so that most positions need no exp: factor = exp(qk - the maximum of its
# row) and decay = exp(position - its maximum), the last offset first. scale[i] = 1 / the sum of these products; the
# first visit finds it, and leaves it 0 where all products underflow. Tokens are unsigned integers: an index that cannot
# be negative lets the lookups be vectorised.
#
# The arguments come in groups:  positions = (tokens, sequence, at, scale),  attention = (qk, position, factor, decay),
# piece = (first, last). Each kernel unpacks them once: to pass the groups on would take half as much time again.


@part_of_kernel
def _attend(keys, t, qk, position, factor, decay, scale, i, row):
    """row[j] = attention of position t, the i-th loss position, to j <= t."""
    if scale[i] > 0.0:
        _look_up(keys, t, factor[keys[t]], decay[decay.size - 1 - t:], scale[i], row)
    else:
        _find_scale(keys, t, qk, position, factor, decay, scale, i, row)


@ordered_kernel  # a kernel of its own, because the compiler then looks up several numbers at once
def _look_up(keys, t, factor_row, near, known, row):
    """row[j] = what is looked up for the key j, times ``known``; ``near[j]`` is the decay of the offset t - j."""
    for j in range(t + 1):
        row[j] = factor_row[keys[j]] * near[j] * known


@ordered_kernel
def _find_scale(keys, t, qk, position, factor, decay, scale, i, row):
    """The first visit of a position computes row[j] as :func:`_attend` says, and stores scale[i]."""
    x, one = keys[t], row.dtype.type(1)
    _look_up(keys, t, factor[x], decay[decay.size - 1 - t:], one, row)
    total = sum_of(row[:t + 1])
    if total > 1e-25:
        scale[i] = one / total
    else:  # all scores lie far below the maximum of their row of the table: compute them relative to their own maximum
        top = qk[x, keys[0]] + position[t]
        for j in range(1, t + 1):
            top = max(top, qk[x, keys[j]] + position[t - j])
        for j in range(t + 1):
            row[j] = math.exp(qk[x, keys[j]] + position[t - j] - top)
        total = sum_of(row[:t + 1])
    inverse = one / total
    for j in range(t + 1):
        row[j] *= inverse


@ordered_kernel  # with sums that may be reassociated, the compiler gathers into vectors, which takes twice the time
def context_images(positions, attention, basis, piece, images):
    """images[i, :] = sum_j A_tj basis[x_j, :], four columns at a time: their number is a multiple of four."""
    tokens, sequence, at, scale = positions
    qk, position, factor, decay = attention
    row = np.empty(tokens.shape[1], factor.dtype)
    for i in range(piece[0], piece[1]):
        keys, t = tokens[sequence[i]], at[i]
        _attend(keys, t, qk, position, factor, decay, scale, i, row)
        for r in range(0, basis.shape[1], 4):
            a = b = c = d = basis.dtype.type(0)
            for j in range(t + 1):
                a += row[j] * basis[keys[j], r]
                b += row[j] * basis[keys[j], r + 1]
                c += row[j] * basis[keys[j], r + 2]
                d += row[j] * basis[keys[j], r + 3]
            images[i, r], images[i, r + 1], images[i, r + 2], images[i, r + 3] = a, b, c, d


CUT_ROUNDS = 4  # Rounds of 2-means that decide where a cell is cut.


@ordered_kernel
def cut_cells(z, weight, begin, n_cells, order):
    """Cut cells until there are ``n_cells``; the first index of each in ``order``, not ascending.

    ``order`` are the positions, token by token as ``begin`` says, and is sorted so that those of a cell follow each
    other, in the order that they came in. The cell that is cut next is the one with the largest spread, the sum of
    weight |z - mean|^2, across the column of ``z`` that it is largest in. It is cut in two as 2-means of this column
    would; none is cut whose spread is what rounding makes of equal contexts. The number of columns is a multiple of
    four.
    """
    starts, n = np.empty(max(n_cells, begin.size), np.int64), begin.size
    starts[:n] = begin
    heap = [(0.0, 0, 0, 0, 0.0)]
    heap.pop()
    for a in range(begin.size):
        _push_cell(heap, z, weight, order, begin[a], begin[a + 1] if a + 1 < begin.size else order.size)
    total = 0.0
    for cell in heap:
        total -= cell[0]
    negligible, above = 1e-10 * total / begin.size, np.empty_like(order)
    column, mass = np.empty(order.size, z.dtype), np.empty(order.size)
    while len(heap) > 0 and n < n_cells and -heap[0][0] > negligible:
        _, first, last, across, middle = heapq.heappop(heap)
        for k in range(first, last):
            column[k], mass[k] = z[order[k], across], weight[order[k]]
        for _ in range(CUT_ROUNDS):  # 2-means in one dimension, from the mean
            middle = _middle_of_means(column[first:last], mass[first:last], middle)
        cut, n_above = first, 0
        for k in range(first, last):  # without a branch, which would be mispredicted half of the time
            above[n_above] = order[cut] = order[k]
            is_above = column[k] > middle
            n_above += is_above
            cut += not is_above
        order[cut:last] = above[:n_above]
        if first < cut < last:  # else the numbers differ by less than their mean is rounded
            starts[n] = cut
            n += 1
            _push_cell(heap, z, weight, order, first, cut)
            _push_cell(heap, z, weight, order, cut, last)
    return starts[:n]


@ordered_kernel
def _push_cell(heap, z, weight, order, first, last):
    """Put the cell order[first .. last - 1] on the heap: (-its spread, first, last, where it is largest, mean there).
    """
    mass, mean, spread = 0.0, np.empty(z.shape[1]), np.empty(z.shape[1])
    for i in order[first:last]:
        mass += weight[i]
    for r in range(0, z.shape[1], 4):  # sums of four columns stay in registers
        a = b = c = d = 0.0
        for i in order[first:last]:
            w = weight[i]
            a, b, c, d = a + w * z[i, r], b + w * z[i, r + 1], c + w * z[i, r + 2], d + w * z[i, r + 3]
        mean[r], mean[r + 1], mean[r + 2], mean[r + 3] = a / mass, b / mass, c / mass, d / mass
        a = b = c = d = 0.0
        for i in order[first:last]:
            w = weight[i]
            a += w * (z[i, r] - mean[r]) ** 2
            b += w * (z[i, r + 1] - mean[r + 1]) ** 2
            c += w * (z[i, r + 2] - mean[r + 2]) ** 2
            d += w * (z[i, r + 3] - mean[r + 3]) ** 2
        spread[r], spread[r + 1], spread[r + 2], spread[r + 3] = a, b, c, d
    across = np.argmax(spread)
    heapq.heappush(heap, (-spread.sum(), first, last, across, mean[across]))


@ordered_kernel
def _middle_of_means(z, weight, middle):
    """The number half way between the mean of those ``z`` that are above ``middle`` and that of the others."""
    mass_above = sum_above = mass_below = sum_below = 0.0
    for i in range(z.size):
        above = weight[i] if z[i] > middle else 0.0  # chosen without a branch
        below = weight[i] if z[i] <= middle else 0.0
        mass_above += above
        sum_above += above * z[i]
        mass_below += below
        sum_below += below * z[i]
    if mass_above == 0.0 or mass_below == 0.0:
        return middle
    return 0.5 * (sum_above / mass_above + sum_below / mass_below)


@ordered_kernel
def context_sums(positions, weight, rows, order, attention, images, piece, table, products):
    """table[rows[i], x_j] += w_i A_tj  and  products[x_j, :] += w_i A_tj images[i, :].

    In ``order`` the positions of a row follow each other. The sums of a row are float64 until it ends: they are of
    thousands of positive numbers, and the gradient is a small difference of them.
    """
    tokens, sequence, at, scale = positions
    qk, position, factor, decay = attention
    row, to = np.empty(tokens.shape[1], factor.dtype), np.zeros(table.shape[1])
    for n in range(piece[0], piece[1]):
        i = order[n]
        keys, t, w = tokens[sequence[i]], at[i], weight[i]
        _attend(keys, t, qk, position, factor, decay, scale, i, row)
        for j in range(t + 1):
            to[keys[j]] += w * row[j]
        if n + 1 == piece[1] or rows[order[n + 1]] != rows[i]:
            table[rows[i]] = to
            to[:] = 0.0
        for r in range(0, images.shape[1], 4):
            a, b, c, d = w * images[i, r], w * images[i, r + 1], w * images[i, r + 2], w * images[i, r + 3]
            for j in range(t + 1):
                key, share = keys[j], row[j]
                products[key, r] += share * a
                products[key, r + 1] += share * b
                products[key, r + 2] += share * c
                products[key, r + 3] += share * d


@ordered_kernel
def cell_predictions(direct, token, mass, outputs, log_Z, expected):
    """In place, outputs[k, :] becomes p_k = softmax(direct[token[k], :] + outputs[k, :]); log_Z[k] is found with it.

    It also adds mass[k] p_k to expected[token[k], :], so calls that run at once may have no token in common.
    """
    for k in range(len(outputs)):
        row, to_add, to = outputs[k], direct[token[k]], expected[token[k]]
        for b in range(row.size):
            row[b] += to_add[b]
        top = largest(row)
        Z = exponentials(row, top)
        log_Z[k] = math.log(Z) + top
        share = row.dtype.type(1) / Z
        for b in range(row.size):
            row[b] *= share
            to[b] += mass[k] * row[b]


@ordered_kernel
def reduced_scores(positions, weight, targets, cell, order, attention, images, tables, piece, d_qk, d_position):
    """d_qk[x_t, x_j] and d_position[T - 1 - t + j] -= w A_tj (delta_tj - sum_k A_tk delta_tk), with

    delta_tj = by_target[y_t, x_j] - by_cell[cell, x_j] - (images[i, :] - centre[cell, :]) . response[x_j, :];
    tables = (by_target, by_cell, centre, response). In ``order`` the positions of a token follow each other; the sums
    of its row of d_qk are float64 until it ends, as d_position is.
    """
    tokens, sequence, at, scale = positions
    qk, position, factor, decay = attention
    by_target, by_cell, centre, response = tables
    row, delta = np.empty(tokens.shape[1], factor.dtype), np.empty(tokens.shape[1], factor.dtype)
    to = np.zeros(d_qk.shape[1])
    for n in range(piece[0], piece[1]):
        i = order[n]
        keys, t, w, k = tokens[sequence[i]], at[i], weight[i], cell[i]
        _attend(keys, t, qk, position, factor, decay, scale, i, row)
        wanted, expected = by_target[targets[i]], by_cell[k]
        for j in range(t + 1):
            delta[j] = wanted[keys[j]] - expected[keys[j]]
        for r in range(0, images.shape[1], 4):
            a, b = images[i, r] - centre[k, r], images[i, r + 1] - centre[k, r + 1]
            c, d = images[i, r + 2] - centre[k, r + 2], images[i, r + 3] - centre[k, r + 3]
            for j in range(t + 1):
                key = keys[j]
                delta[j] -= (a * response[key, r] + b * response[key, r + 1]
                             + c * response[key, r + 2] + d * response[key, r + 3])
        mean = row.dtype.type(0)
        for j in range(t + 1):
            mean += row[j] * delta[j]
        near = d_position[d_position.size - 1 - t:]
        for j in range(t + 1):
            row[j] *= w * (mean - delta[j])
            near[j] += row[j]
        for j in range(t + 1):
            to[keys[j]] += row[j]
        if n + 1 == piece[1] or tokens[sequence[order[n + 1]], at[order[n + 1]]] != keys[t]:
            d_qk[keys[t]] = to
            to[:] = 0.0
