"""The numba kernels: gathers, scatters and softmax, in the order in which a training step uses them.

Legend: S sequences of a block, T positions, V vocabulary; M loss positions (queries) and U distinct tokens of a sequence.
A block is padded to its largest M and U: a padded query has weight 0, a padded distinct token attention 0.

Every kernel releases the GIL, is called with C-contiguous arrays, checks nothing (the public functions do) and adds in one fixed
order. An absent table is an empty array.
"""

import math

import numba
import numpy as np

# The flag sets of all kernels. In `kernel` sums may be reassociated, so that they vectorise; nnan and ninf stay out, so that an inf
# or nan is seen. `ordered_kernel` computes as written: for differences whose digits depend on the order of operations.
_FLAGS = {"nogil": True, "cache": True, "error_model": "numpy"}
kernel = numba.njit(fastmath={"reassoc", "contract", "arcp", "nsz"}, **_FLAGS)
ordered_kernel = numba.njit(**_FLAGS)


# ---------------------------------------------------------------------------------------------------------- attention


@kernel
def attention_forward(tokens, lengths, queries, weight, causal, qk, position, A):
    """A[s, m, j] = softmax over the allowed j of qk[x_t, x_j] + position[t - j], t = queries[s, m]; 0 elsewhere. (S, M, T)"""
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            row = A[s, m]
            row[:] = 0.0
            if weight[s, m] == 0.0:
                continue
            t = queries[s, m]
            end = t + 1 if causal else lengths[s]
            if qk.size > 0:
                for j in range(end):
                    row[j] = qk[tokens[s, t], tokens[s, j]]
            if position.size > 0:
                for j in range(end):
                    row[j] += position[t - j]
            top = row[0]
            for j in range(1, end):
                top = max(top, row[j])
            total = 0.0
            for j in range(end):
                row[j] = math.exp(row[j] - top)
                total += row[j]
            for j in range(end):
                row[j] /= total


@ordered_kernel
def attention_backward(A, dA, slots, dscore):
    """dscore[s, m, j] = A_j (dA_j - sum_k A_k dA_k), with dA[s, m, u] given per distinct token. (S, M, T)

    dA of the leading token is subtracted first, so that nothing is lost where attention is nearly one-hot.
    """
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            row = A[s, m]
            leader = 0
            for j in range(row.size):
                if row[j] > row[leader]:
                    leader = j
            base = dA[s, m, slots[s, leader]]
            mean = 0.0
            for j in range(row.size):
                mean += row[j] * (dA[s, m, slots[s, j]] - base)
            for j in range(row.size):
                dscore[s, m, j] = row[j] * (dA[s, m, slots[s, j]] - base - mean)


@kernel
def add_scores(tokens, queries, dscore, d_qk, d_position):
    """d_qk[x_t, x_j] += dscore_tj and d_position[t - j] += dscore_tj."""
    for s in range(dscore.shape[0]):
        for m in range(dscore.shape[1]):
            t = queries[s, m]
            if d_qk.size > 0:
                for j in range(dscore.shape[2]):
                    d_qk[tokens[s, t], tokens[s, j]] += dscore[s, m, j]
            if d_position.size > 0:
                for j in range(t + 1):
                    d_position[t - j] += dscore[s, m, j]


# ------------------------------------------------------------------------------------------------- distinct tokens


@kernel
def distinct(tokens, lengths, n_vocab, slots, words):
    """Number the distinct tokens of each sequence in order of first appearance.

    slots[s, j] = number of token x_j, words[s, u] = the u-th distinct token (0 beyond the last). Returns how many, (S,).
    """
    slot_of = np.full(n_vocab, -1, np.int32)
    counts = np.zeros(tokens.shape[0], np.int32)
    slots[:] = 0
    words[:] = 0
    for s in range(tokens.shape[0]):
        for j in range(lengths[s]):
            token = tokens[s, j]
            if slot_of[token] < 0:
                slot_of[token] = counts[s]
                words[s, counts[s]] = token
                counts[s] += 1
            slots[s, j] = slot_of[token]
        for u in range(counts[s]):
            slot_of[words[s, u]] = -1
    return counts


@kernel
def fold(A, slots, C):
    """C[s, m, u] = attention on the u-th distinct token: the sum of A[s, m, j] over its positions j. (S, M, U)"""
    C[:] = 0.0
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            for j in range(A.shape[2]):
                C[s, m, slots[s, j]] += A[s, m, j]


# ------------------------------------------------------------------------------------------------ output and heads


@kernel
def add_rows(out, table, rows, bias):
    """out[i, :] += table[rows[i], :] + bias."""
    for i in range(out.shape[0]):
        row = out[i]
        if table.size > 0:
            to_add = table[rows[i]]
            for b in range(row.size):
                row[b] += to_add[b]
        if bias.size > 0:
            for b in range(row.size):
                row[b] += bias[b]


# The heads turn the output, in place, into R and a scale a row, so that dL/dout_t = scale_t R_t; they return the losses. A softmax
# is never normalised as a matrix: 1/Z sits in the scale.


@kernel
def cross_entropy_head(E, shifted_target, targets, weight, scale, losses):
    """Softmax cross-entropy. E = exp(out - max) -> R = E - Z onehot(y); scale = weight / Z.

    R_y = -(sum of the others), never E_y - Z, so that 1 - p_y keeps its digits when p_y is nearly 1.
    """
    for i in range(E.shape[0]):
        row = E[i]
        y = targets[i]
        own = row[y]
        row[y] = 0.0
        others = 0.0
        for b in range(row.size):
            others += row[b]
        row[y] = -others
        scale[i] = weight[i] / (others + own)
        if shifted_target[i] == 0.0:
            losses[i] = weight[i] * math.log1p(others)
        else:
            losses[i] = weight[i] * (math.log(others + own) - shifted_target[i])


@kernel
def squared_head(out, targets, weight, scale, losses):
    """|out - onehot(y)|^2, summed over the V outputs. R = 2 (out - onehot(y)); scale = weight."""
    for i in range(out.shape[0]):
        row = out[i]
        row[targets[i]] -= 1.0
        total = 0.0
        for b in range(row.size):
            total += row[b] * row[b]
            row[b] *= 2.0
        scale[i] = weight[i]
        losses[i] = weight[i] * total


@kernel
def log_head(out, targets, weight, scale, losses):
    """-log(out_y), the output being probabilities already. R = -onehot(y) / out_y; scale = weight."""
    for i in range(out.shape[0]):
        p = out[i, targets[i]]
        out[i, :] = 0.0
        if weight[i] != 0.0:
            out[i, targets[i]] = -1.0 / p
            losses[i] = -weight[i] * np.log(p)
        else:
            losses[i] = 0.0
        scale[i] = weight[i]


@kernel
def scatter_rows(table, rows, counts, scale, R, first, last):
    """table[rows[s, i], first:last] += scale[s, i] * R[s, i, first:last] for i < counts[s]."""
    for s in range(R.shape[0]):
        for i in range(counts[s]):
            to, factor, row = table[rows[s, i]], scale[s, i], R[s, i]
            for b in range(first, last):
                to[b] += factor * row[b]


# ------------------------------------------------------- the reference point: output uniform, attention uniform


@kernel
def _count(slots, n_seen, positions, count):
    """Count the distinct tokens at ``positions``; return how many have been seen so far (they are numbered by appearance)."""
    for j in positions:
        count[slots[j]] += 1.0
        n_seen = max(n_seen, slots[j] + 1)
    return n_seen


@kernel
def reference_context(tokens, lengths, targets, weight, causal, words, slots, owner, n_owners, context):
    """context[y_t, a] += w_t (count of a among the allowed x_j) / (their number), for the rows y of one owner.

    Threads share the table by rows (row y belongs to owner y mod n_owners), so each entry is added to in the same order.
    """
    count = np.zeros(words.shape[1])
    for s in range(tokens.shape[0]):
        count[:] = 0.0
        seen = 0 if causal else _count(slots[s], 0, range(lengths[s]), count)
        for t in range(lengths[s]):
            if causal:
                seen = _count(slots[s], seen, range(t, t + 1), count)
            y = targets[s, t]
            if weight[s, t] != 0.0 and y % n_owners == owner:
                share = weight[s, t] / (t + 1 if causal else lengths[s])
                row = context[y]
                for u in range(seen):
                    row[words[s, u]] += share * count[u]


@kernel
def reference_attention(tokens, lengths, targets, weight, causal, words, slots, g, owner, n_owners, qk):
    """qk[x_t, a] += w_t sum_{j: x_j = a} (g[y_t, a] - mean_k g[y_t, x_k]) / n_keys, for the rows x_t of one owner."""
    count = np.zeros(words.shape[1])
    centred = np.empty(words.shape[1])
    for s in range(tokens.shape[0]):
        count[:] = 0.0
        seen = 0 if causal else _count(slots[s], 0, range(lengths[s]), count)
        for t in range(lengths[s]):
            if causal:
                seen = _count(slots[s], seen, range(t, t + 1), count)
            if weight[s, t] == 0.0 or tokens[s, t] % n_owners != owner:
                continue
            n_keys = t + 1 if causal else lengths[s]
            mean = 0.0
            for u in range(seen):
                centred[u] = g[targets[s, t], words[s, u]]
                mean += count[u] * centred[u]
            mean /= n_keys
            row, share = qk[tokens[s, t]], weight[s, t] / n_keys
            for u in range(seen):
                row[words[s, u]] += share * count[u] * (centred[u] - mean)


@kernel
def reference_position(tokens, lengths, targets, weight, g, position):
    """position[t - j] += w_t (g[y_t, x_j] - mean_{k <= t} g[y_t, x_k]) / (t + 1), causal attention."""
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
