"""The numba kernels: gathers, scatters and softmax, in the order in which a training step uses them.

Legend: S sequences of a block, T keys (positions, or distinct tokens), V vocabulary; M queries, K answers expected of them (loss
positions) and U distinct tokens of a sequence. A block is padded to its largest T, M, K and U: padding has weight 0, attention 0.

Every kernel releases the GIL, is called with C-contiguous arrays, checks nothing (the public functions do) and adds in one fixed
order. An absent table is an empty array.
"""

import math

import numpy as np

from minitx.base.parallel import kernel, ordered_kernel

# ---------------------------------------------------------------------------------------------------------- attention


@kernel
def _scores(keys, mass, t, end, qk, position, row):
    """row[j] = qk[x_t, x_j] + position[t - j], the score of key j < end of one sequence; -inf if it has no mass."""
    row[:end] = 0.0
    if qk.size > 0:
        for j in range(end):
            row[j] = qk[keys[t], keys[j]]
    if position.size > 0:
        for j in range(end):
            row[j] += position[t - j]
    if mass.size > 0:
        for j in range(end):  # a key without mass must not set the shift: all others could underflow
            row[j] = row[j] if mass[j] > 0.0 else -np.inf


@kernel
def attention_forward(keys, n_keys, mass, queries, n_queries, causal, qk, position, A):
    """A[s, m, j] = mass_j exp(score_j) / sum_k mass_k exp(score_k) over the allowed j, t = queries[s, m]; 0 elsewhere. (S, M, T)

    score_j = qk[x_t, x_j] + position[t - j].
    """
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            row = A[s, m]
            row[:] = 0.0
            if m >= n_queries[s]:
                continue
            t = queries[s, m]
            end = t + 1 if causal else n_keys[s]
            _scores(keys[s], mass[s], t, end, qk, position, row)
            top = row[0]
            for j in range(1, end):
                top = max(top, row[j])
            total = 0.0
            for j in range(end):
                row[j] = math.exp(row[j] - top)
                if mass.size > 0:
                    row[j] *= mass[s, j]
                total += row[j]
            for j in range(end):
                row[j] /= total


@kernel
def bag_attention(owner, keys, n_keys, mass, current, qk, A):
    """A[q, a] = attention of query q, of token current[q], to all copies of token a in its sequence owner[q]. (Q, V)"""
    scores = np.empty(keys.shape[1], A.dtype)
    for q in range(A.shape[0]):
        s = owner[q]
        A[q] = 0.0
        top = -np.inf
        for j in range(n_keys[s]):
            scores[j] = qk[current[q], keys[s, j]] if qk.size > 0 else 0.0
            if mass[s, j] > 0.0:  # a key without mass must not set the shift: all others could underflow
                top = max(top, scores[j])
        total = 0.0
        for j in range(n_keys[s]):
            if mass[s, j] > 0.0:
                scores[j] = mass[s, j] * math.exp(scores[j] - top)
                total += scores[j]
                A[q, keys[s, j]] = scores[j]
        for j in range(n_keys[s]):
            A[q, keys[s, j]] /= total


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
def add_scores(keys, queries, dscore, d_qk, d_position):
    """d_qk[x_t, x_j] += dscore_tj and d_position[t - j] += dscore_tj."""
    for s in range(dscore.shape[0]):
        for m in range(dscore.shape[1]):
            t = queries[s, m]
            if d_qk.size > 0:
                for j in range(dscore.shape[2]):
                    d_qk[keys[s, t], keys[s, j]] += dscore[s, m, j]
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
def bags(slots, lengths, mass, weight, bag_mass, queries, n_queries, asked, positions, n_answers):
    """Sequences without order: mass of each distinct token, distinct tokens at loss positions, and the answers of each of these.

    slots[s, j] = number of token x_j among the distinct ones; an empty ``mass`` is 1 everywhere. The outputs, of zeros before, are
    those of a Block (blocks.py); answers are in the order of their queries, then of positions.
    """
    query_of = np.full(slots.shape[1], -1, np.int32)
    begin = np.zeros(slots.shape[1] + 1, np.int32)
    for s in range(slots.shape[0]):
        for j in range(lengths[s]):
            slot = slots[s, j]
            bag_mass[s, slot] += mass[s, j] if mass.size > 0 else 1.0
            if weight[s, j] != 0.0:
                if query_of[slot] < 0:
                    query_of[slot] = n_queries[s]
                    queries[s, n_queries[s]] = slot
                    n_queries[s] += 1
                begin[query_of[slot] + 1] += 1
                n_answers[s] += 1
        for m in range(n_queries[s]):
            begin[m + 1] += begin[m]
        for j in range(lengths[s]):
            if weight[s, j] != 0.0:
                m = query_of[slots[s, j]]
                asked[s, begin[m]] = m
                positions[s, begin[m]] = j
                begin[m] += 1
        for m in range(n_queries[s]):
            query_of[queries[s, m]] = -1
        begin[:n_queries[s] + 1] = 0


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


# These two heads turn the output of a query, in place, into R and a scale, so that dL/dout_t = scale_t R_t; they return
# its loss. A softmax is never normalised as a matrix: 1/Z sits in the scale, unless a query has answers that differ.


@kernel
def _one_answer(asked, targets, weight, s, m, begin, end):
    """(end of the answers of query m that begin at ``begin``, whether they are all the same token, their weight)."""
    k = begin
    total = 0.0
    same = True
    while k < end and asked[s, k] == m:
        total += weight[s, k]
        same = same and targets[s, k] == targets[s, begin]
        k += 1
    return k, same, total


@kernel
def cross_entropy_head(E, shifted, asked, targets, weight, n_answers, scale, losses):
    """Softmax cross-entropy. E = exp(out - max), shifted = out_y - max. One answer y: R = E - Z onehot(y), scale = weight / Z.

    R_y = -(sum of the others), never E_y - Z, so that 1 - p_y keeps its digits when p_y is nearly 1. Answers that differ:
    R = (sum of weights) E / Z - sum_k weight_k onehot(y_k), scale = 1.
    """
    scale[:] = 0.0
    losses[:] = 0.0
    for s in range(E.shape[0]):
        k = 0
        for m in range(E.shape[1]):
            first = k
            k, same, total = _one_answer(asked, targets, weight, s, m, first, n_answers[s])
            if k == first:
                continue
            row = E[s, m]
            y = targets[s, first]
            own = row[y]
            row[y] = 0.0
            others = 0.0
            for b in range(row.size):
                others += row[b]
            for i in range(first, k):
                if same and shifted[s, i] == 0.0:
                    losses[s, m] += weight[s, i] * math.log1p(others)
                else:
                    losses[s, m] += weight[s, i] * (math.log(others + own) - shifted[s, i])
            if same:
                row[y] = -others
                scale[s, m] = total / (others + own)
                continue
            row[y] = own
            for b in range(row.size):
                row[b] *= total / (others + own)
            for i in range(first, k):
                row[targets[s, i]] -= weight[s, i]
            scale[s, m] = 1.0


@kernel
def squared_head(out, asked, targets, weight, n_answers, scale, losses):
    """|out - onehot(y)|^2, summed over the V outputs. One answer y: R = 2 (out - onehot(y)), scale = weight.

    Answers that differ: R = 2 sum_k weight_k (out - onehot(y_k)), scale = 1.
    """
    scale[:] = 0.0
    losses[:] = 0.0
    for s in range(out.shape[0]):
        k = 0
        for m in range(out.shape[1]):
            first = k
            k, same, total = _one_answer(asked, targets, weight, s, m, first, n_answers[s])
            if k == first:
                continue
            row = out[s, m]
            if same:
                row[targets[s, first]] -= 1.0
            square = 0.0
            for b in range(row.size):
                square += row[b] * row[b]
            if same:
                losses[s, m] = total * square
                scale[s, m] = total
                for b in range(row.size):
                    row[b] *= 2.0
                continue
            for i in range(first, k):
                losses[s, m] += weight[s, i] * (square - 2.0 * row[targets[s, i]] + 1.0)
            for b in range(row.size):
                row[b] *= 2.0 * total
            for i in range(first, k):
                row[targets[s, i]] -= 2.0 * weight[s, i]
            scale[s, m] = 1.0


# The log head goes from the scores to the loss and to all derivatives without storing the output, because the output
# may underflow although neither its logarithm nor the derivative of that logarithm does.


@ordered_kernel
def log_head(keys, n_keys, mass, queries, causal, tables, slots, C, ov, answers, R, D, dscore, losses):
    """-log(out_y) for every answer y of every query, and what its derivatives add to R, D and dscore, all zeros before.

    With v_j = ov[x_j, y] + direct[x_t, y] + bias[y] and A_j = mass_j exp(score_j) / Z, out_y = sum_j A_j v_j = own / Z:

        -log(out_y) = log(Z / own) = log(1 + others / own),   others = sum_j mass_j exp(score_j) (1 - v_j)
        R[y] = -1 / out_y,   D[u, y] = -A_u / out_y,   dscore_j = A_j (out_y - v_j) / out_y, which is A_j where v_j = 0

    Z and others are computed relative to the largest score, own relative to the largest score whose v_j is not 0;
    ``gap`` is the difference of these two scores. Each answer counts with its weight. answers = (asked, targets,
    weight, n_answers), tables = (direct, qk, position, bias); slots[s, j] = number u of token x_j, C (S, M, U) =
    attention to each distinct token, ov (S, U, V) = its row of ov.
    """
    direct, qk, position, bias = tables
    asked, targets, weight, n_answers = answers
    score, share = np.empty((2, keys.shape[1]))
    for s in range(keys.shape[0]):
        for k in range(n_answers[s]):
            m, y, w = asked[s, k], targets[s, k], weight[s, k]
            t = queries[s, m]
            end = t + 1 if causal else n_keys[s]
            _scores(keys[s], mass[s], t, end, qk, position, score)
            fixed = 0.0
            if direct.size > 0:
                fixed += direct[keys[s, t], y]
            if bias.size > 0:
                fixed += bias[y]
            top = top_own = -np.inf
            for j in range(end):
                top = max(top, score[j])
                if ov[s, slots[s, j], y] + fixed != 0.0:
                    top_own = max(top_own, score[j])
            if top_own == -np.inf:  # out_y is 0, not small
                losses[s, m] += w * np.inf
                continue
            gap = top - top_own
            Z = own = others = 0.0
            for j in range(end):
                copies = mass[s, j] if mass.size > 0 else 1.0
                v = ov[s, slots[s, j], y] + fixed
                share[j] = copies * np.exp(score[j] - top)
                Z += share[j]
                others += share[j] * (1.0 - v)
                if v != 0.0:
                    own += copies * np.exp(score[j] - top_own) * v
            ratio = others / own * np.exp(gap)
            losses[s, m] += w * (np.log1p(ratio) if abs(ratio) < 0.5 else gap + np.log(Z / own))
            R[s, m, y] -= w * np.exp(gap) * (Z / own)
            # out_y - v_j = (v_lead - v_j) + drift keeps its digits where nearly all attention is on the token `lead`
            lead = 0
            for u in range(C.shape[2]):
                lead = u if C[s, m, u] > C[s, m, lead] else lead
            drift = 0.0
            for u in range(C.shape[2]):
                drift += C[s, m, u] * (ov[s, u, y] - ov[s, lead, y])
            for j in range(end):
                copies = mass[s, j] if mass.size > 0 else 1.0
                u = slots[s, j]
                over_out = copies * np.exp(score[j] - top_own) / own  # A_j / out_y
                D[s, u, y] -= w * over_out
                if ov[s, u, y] + fixed == 0.0:
                    dscore[s, m, j] += w * share[j] / Z
                else:
                    dscore[s, m, j] += w * over_out * (ov[s, lead, y] - ov[s, u, y] + drift)


@kernel
def scatter_rows(table, rows, counts, scale, R, first, last):
    """table[rows[s, i], first:last] += scale[s, i] * R[s, i, first:last] for i < counts[s]."""
    for s in range(R.shape[0]):
        for i in range(counts[s]):
            to, factor, row = table[rows[s, i]], scale[s, i], R[s, i]
            for b in range(first, last):
                to[b] += factor * row[b]
