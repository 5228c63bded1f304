"""The numba kernels: gathers, scatters and softmax, in the order in which a training step uses them.

Legend: S sequences of a block, T keys (positions, or distinct tokens), V vocabulary; of each sequence: M queries, K
answers, U distinct tokens. A block is padded to its largest T, M, K and U; padding has weight 0 and attention 0.

Every kernel takes C-contiguous arrays, of which an absent table is empty, checks nothing (the public functions do) and
adds in one fixed order.
"""

import math

import numpy as np

from minitx.base.parallel import kernel, ordered_kernel


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
    for j in range(end):  # a key without mass must not set the shift: all others could underflow
        row[j] = row[j] if mass[j] > 0.0 else -np.inf


@kernel
def attention_forward(keys, n_keys, mass, queries, n_queries, causal, qk, position):
    """A[s, m, j] = mass_j exp(score_j) / sum_k mass_k exp(score_k) over the allowed j; 0 elsewhere. (S, M, T)

    score_j = qk[x_t, x_j] + position[t - j], with t = queries[s, m].
    """
    A = np.zeros((queries.shape[0], queries.shape[1], keys.shape[1]), mass.dtype)
    for s in range(A.shape[0]):
        for m in range(n_queries[s]):
            row, t = A[s, m], queries[s, m]
            end = t + 1 if causal else n_keys[s]
            _scores(keys[s], mass[s], t, end, qk, position, row)
            top = row[0]
            for j in range(1, end):
                top = max(top, row[j])
            total = 0.0
            for j in range(end):
                row[j] = math.exp(row[j] - top) * mass[s, j]
                total += row[j]
            for j in range(end):
                row[j] /= total
    return A


@kernel
def join(bag_A, keys, n_keys, n_queries, n_vocab):
    """A[0, q, a] = attention of the q-th query of all bags to token a, from that to its bag's keys, bag_A (S, M, U)."""
    A = np.zeros((1, n_queries.sum(), n_vocab), bag_A.dtype)
    q = 0
    for s in range(bag_A.shape[0]):
        for m in range(n_queries[s]):
            for j in range(n_keys[s]):
                A[0, q, keys[s, j]] = bag_A[s, m, j]
            q += 1
    return A


@ordered_kernel
def attention_backward(A, dA, slots):
    """dscore[s, m, j] = A_j (dA_j - sum_k A_k dA_k); dA[s, m, u] is given for each distinct token. (S, M, T)

    dA of the key with most attention is subtracted first, so that no digits are lost where attention is nearly one-hot.
    """
    dscore = np.empty_like(A)
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
    return dscore


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


@kernel
def distinct(tokens, lengths, n_vocab):
    """Number the distinct tokens of each sequence in order of first appearance.

    Returns slots (S, T), the number of token x_j; words (S, T), the u-th distinct token; and how many there are, (S,).
    """
    slot_of = np.full(n_vocab, -1, np.int32)
    slots, words, counts = np.zeros_like(tokens), np.zeros_like(tokens), np.zeros_like(lengths)
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
    return slots, words, counts


@kernel
def fold(A, slots, n_words):
    """C[s, m, u] = attention on the u-th distinct token: the sum of A[s, m, j] over its positions j. (S, M, U)"""
    C = np.zeros((A.shape[0], A.shape[1], n_words), A.dtype)
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            for j in range(A.shape[2]):
                C[s, m, slots[s, j]] += A[s, m, j]
    return C


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


# Each of the four heads turns outputs of its queries, in place, into R and a scale, with dL/dout_t = scale_t R_t, and
# gives their losses. They call no other kernel: a sum in a kernel that is called may be rounded differently when it is
# compiled and when it comes from numba's cache.

NO_ANSWER, ONE_TOKEN, SEVERAL_TOKENS = range(3)


@kernel
def group_answers(asked, targets, weight, n_answers, n_queries):
    """Answers begin[s, m] to begin[s, m + 1] are those of query m, total[s, m] the sum of their weights.

    kind[s, m] says whether they are none, all the same token, or several tokens. Returns (begin, total, kind).
    """
    begin = np.zeros((len(asked), n_queries + 1), np.int32)
    total, kind = np.zeros((len(asked), n_queries)), np.full((len(asked), n_queries), NO_ANSWER)
    for s in range(kind.shape[0]):
        k = 0
        for m in range(kind.shape[1]):
            begin[s, m] = k
            while k < n_answers[s] and asked[s, k] == m:
                total[s, m] += weight[s, k]
                if targets[s, k] != targets[s, begin[s, m]]:
                    kind[s, m] = SEVERAL_TOKENS
                elif kind[s, m] == NO_ANSWER:
                    kind[s, m] = ONE_TOKEN
                k += 1
        begin[s, kind.shape[1]] = k
    return begin, total, kind


@kernel
def cross_entropy_of_one(E, shifted, targets, begin, total, kind, scale, losses):
    """loss = weight (log Z - shifted),  R = E - Z onehot(y),  scale = weight / Z,  with E = exp(out - maximum).

    R_y is minus the sum of the others, never E_y - Z, so that 1 - p_y keeps its digits when p_y is nearly 1.
    """
    for s in range(E.shape[0]):
        for m in range(E.shape[1]):
            if kind[s, m] != ONE_TOKEN:
                continue
            row, y, lag = E[s, m], targets[s, begin[s, m]], shifted[s, begin[s, m]]
            own = row[y]
            row[y] = 0.0
            others = 0.0
            for b in range(row.size):
                others += row[b]
            row[y] = -others
            losses[s, m] = total[s, m] * (math.log1p(others) if lag == 0.0 else math.log(others + own) - lag)
            scale[s, m] = total[s, m] / (others + own)


@kernel
def cross_entropy_of_several(E, shifted, targets, weight, begin, total, kind, scale, losses):
    """loss = sum_k weight_k (log Z - shifted_k),  R = total E / Z - sum_k weight_k onehot(y_k),  scale = 1."""
    for s in range(E.shape[0]):
        for m in range(E.shape[1]):
            if kind[s, m] != SEVERAL_TOKENS:
                continue
            row = E[s, m]
            Z = 0.0
            for b in range(row.size):
                Z += row[b]
            for b in range(row.size):
                row[b] *= total[s, m] / Z
            for k in range(begin[s, m], begin[s, m + 1]):
                losses[s, m] += weight[s, k] * (math.log(Z) - shifted[s, k])
                row[targets[s, k]] -= weight[s, k]
            scale[s, m] = 1.0


@kernel
def square_to_one(out, targets, begin, total, kind, scale, losses):
    """loss = weight |out - onehot(y)|^2,  R = 2 (out - onehot(y)),  scale = weight. A small loss keeps its digits."""
    for s in range(out.shape[0]):
        for m in range(out.shape[1]):
            if kind[s, m] != ONE_TOKEN:
                continue
            row = out[s, m]
            row[targets[s, begin[s, m]]] -= 1.0
            square = 0.0
            for b in range(row.size):
                square += row[b] * row[b]
            for b in range(row.size):
                row[b] *= 2.0
            losses[s, m] = total[s, m] * square
            scale[s, m] = total[s, m]


@kernel
def square_to_several(out, targets, weight, begin, total, kind, scale, losses):
    """loss = sum_k weight_k |out - onehot(y_k)|^2,  R = 2 sum_k weight_k (out - onehot(y_k)),  scale = 1."""
    for s in range(out.shape[0]):
        for m in range(out.shape[1]):
            if kind[s, m] != SEVERAL_TOKENS:
                continue
            row = out[s, m]
            square = 0.0
            for b in range(row.size):
                square += row[b] * row[b]
            for k in range(begin[s, m], begin[s, m + 1]):
                losses[s, m] += weight[s, k] * (square - 2.0 * row[targets[s, k]] + 1.0)
            for b in range(row.size):
                row[b] *= 2.0 * total[s, m]
            for k in range(begin[s, m], begin[s, m + 1]):
                row[targets[s, k]] -= 2.0 * weight[s, k]
            scale[s, m] = 1.0


@ordered_kernel
def log_head(keys, n_keys, mass, queries, causal, tables, slots, C, ov, answers):
    """-log(out_y), summed over the answers y of each query, (S, M), and its derivatives R, D and dscore.

    With v_j = ov[x_j, y] + direct[x_t, y] + bias[y] and A_j = mass_j exp(score_j) / Z, out_y = sum_j A_j v_j = own / Z:

        -log(out_y) = log(Z / own) = log(1 + others / own),   others = sum_j mass_j exp(score_j) (1 - v_j)
        R[y] = -1 / out_y,   D[u, y] = -A_u / out_y,   dscore_j = A_j (out_y - v_j) / out_y, which is A_j where v_j = 0

    The output is not stored, because it may underflow although neither its logarithm nor the derivative of that does.
    Z and others are computed relative to the largest score, own relative to the largest score whose v_j is not 0;
    ``gap`` is the difference of these two scores. Each answer counts with its weight. answers = (asked, targets,
    weight, n_answers), tables = (direct, qk, position, bias); slots[s, j] = number u of token x_j, C (S, M, U) =
    attention to each distinct token, ov (S, U, V) = its row of ov.
    """
    direct, qk, position, bias = tables
    asked, targets, weight, n_answers = answers
    n, n_queries, n_words = C.shape
    losses, R = np.zeros((n, n_queries)), np.zeros((n, n_queries, ov.shape[2]), ov.dtype)
    D, dscore = np.zeros_like(ov), np.zeros((n, n_queries, keys.shape[1]), ov.dtype)
    score, share = np.empty((2, keys.shape[1]))
    for s in range(n):
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
                v = ov[s, slots[s, j], y] + fixed
                share[j] = mass[s, j] * np.exp(score[j] - top)
                Z += share[j]
                others += share[j] * (1.0 - v)
                if v != 0.0:
                    own += mass[s, j] * np.exp(score[j] - top_own) * v
            ratio = others / own * np.exp(gap)
            losses[s, m] += w * (np.log1p(ratio) if abs(ratio) < 0.5 else gap + np.log(Z / own))
            R[s, m, y] -= w * np.exp(gap) * (Z / own)
            # out_y - v_j = (v_lead - v_j) + drift keeps its digits where nearly all attention is on the token `lead`
            lead = 0
            for u in range(n_words):
                lead = u if C[s, m, u] > C[s, m, lead] else lead
            drift = 0.0
            for u in range(n_words):
                drift += C[s, m, u] * (ov[s, u, y] - ov[s, lead, y])
            for j in range(end):
                u = slots[s, j]
                over_out = mass[s, j] * np.exp(score[j] - top_own) / own  # A_j / out_y
                D[s, u, y] -= w * over_out
                if ov[s, u, y] + fixed == 0.0:
                    dscore[s, m, j] += w * share[j] / Z
                else:
                    dscore[s, m, j] += w * over_out * (ov[s, lead, y] - ov[s, u, y] + drift)
    return losses, R, D, dscore


@kernel
def scatter_rows(table, rows, counts, scale, R, first, last):
    """table[rows[s, i], first:last] += scale[s, i] * R[s, i, first:last] for i < counts[s]."""
    for s in range(R.shape[0]):
        for i in range(counts[s]):
            to, factor, row = table[rows[s, i]], scale[s, i], R[s, i]
            for b in range(first, last):
                to[b] += factor * row[b]
