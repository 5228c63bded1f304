"""The numba kernels: gathers, scatters and softmax, in the order in which a training step uses them.

Legend: S sequences of a block, T keys (positions, or distinct tokens), V vocabulary; of each sequence: M queries, K
answers, U distinct tokens. A block is padded to its largest T, M, K and U; padding has weight 0 and attention 0.

Every kernel takes C-contiguous arrays, of which an absent table is empty, checks nothing (the public functions do) and
adds in one fixed order.
"""

import math

import numpy as np

from minitx.base.compiling import compiled, kernel, ordered_kernel, part_of_kernel
from minitx.model.vector_kernels import largest, sum_of, sum_of_squares

LOG2_E = 1.4426950408889634
# log 2 in two parts; the first has so few digits that its product with any exponent of two is exact
LOG_2, LOG_2_REST = 0.693147180369123816490, 1.90821492927058770002e-10
LOG_2_32, LOG_2_REST_32 = np.float32(0.693359375), np.float32(-2.12194440e-4)


def exp(x):
    """e^x for x <= 0, to one unit in the last place.

    NumPy's exp in float64, and numba's in any precision, take one number at a time on most processors. Kernels use the
    two below, which the compiler turns into vector instructions: 1.4 ns instead of 5.5 a number in float64, 0.5 instead
    of 1.4 in float32. x = k log 2 + r with |r| <= log(2)/2; e^r is its Taylor series, and 2^k is the
    product of two powers that are made of their bits, so that it may be smaller than all normal numbers.
    """
    return math.exp(x)


@compiled(exp)
def _exp_of(x):
    return _exp_of_float32 if x.bitwidth == 32 else _exp_of_float64


def _exp_of_float64(x):
    k = np.floor(x * LOG2_E + 0.5)
    r = (x - k * LOG_2) - k * LOG_2_REST
    series = 1.0 / 6227020800.0
    series = series * r + 1.0 / 479001600.0
    series = series * r + 1.0 / 39916800.0
    series = series * r + 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    series = (series * r) * r + r
    exponent = np.int64(np.int32(k))
    half = exponent >> np.int64(1)
    power = np.int64((half + np.int64(1023)) << np.int64(52)).view(np.float64)
    rest = np.int64((exponent - half + np.int64(1023)) << np.int64(52)).view(np.float64)
    return 0.0 if x < -746.0 else (series + 1.0) * power * rest


def _exp_of_float32(x):
    k = np.floor(x * np.float32(LOG2_E) + np.float32(0.5))
    r = (x - k * LOG_2_32) - k * LOG_2_REST_32
    series = np.float32(1.0 / 5040.0)
    series = series * r + np.float32(1.0 / 720.0)
    series = series * r + np.float32(1.0 / 120.0)
    series = series * r + np.float32(1.0 / 24.0)
    series = series * r + np.float32(1.0 / 6.0)
    series = series * r + np.float32(0.5)
    series = (series * r) * r + r
    exponent = np.int32(k)
    half = np.int32(exponent >> np.int32(1))
    power = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
    rest = np.int32((exponent - half + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(0.0) if x < np.float32(-104.0) else (series + np.float32(1.0)) * power * rest


@part_of_kernel
def _scores(keys, mass, t, end, qk, position, row):
    """row[j] = qk[x_t, x_j] + position[t - j], the score of key j < end of one sequence; -inf if it has no mass."""
    row[:end] = 0.0
    if qk.size > 0:
        of_query = qk[keys[t]]
        for j in range(end):
            row[j] = of_query[keys[j]]
    if position.size > 0:
        for j in range(end):
            row[j] += position[t - j]
    for j in range(end):  # a key without mass must not set the shift: all others could underflow
        row[j] = row[j] if mass[j] > 0.0 else -np.inf


@part_of_kernel
def attention_forward(keys, n_keys, mass, queries, n_queries, causal, qk, position):
    """A[s, m, j] = mass_j exp(score_j) / sum_k mass_k exp(score_k) over the allowed j; 0 elsewhere. (S, M, T)

    score_j = qk[x_t, x_j] + position[t - j], with t = queries[s, m].
    """
    A = np.zeros((queries.shape[0], queries.shape[1], keys.shape[1]), mass.dtype)
    for s in range(A.shape[0]):
        for m in range(n_queries[s]):
            t, copies = queries[s, m], mass[s]
            end = t + 1 if causal else n_keys[s]
            row = A[s, m, :end]
            _scores(keys[s], copies, t, end, qk, position, row)
            top = largest(row)
            for j in range(end):
                row[j] = exp(row[j] - top) * copies[j]
            share = A.dtype.type(1) / sum_of(row)
            for j in range(end):
                row[j] *= share
    return A


@ordered_kernel
def attention_backward(A, dA, scale, slots, queries, causal):
    """The dscore of :func:`slopes_of_scores`, in memory of its own."""
    dscore = np.empty_like(A)
    slopes_of_scores(A, dA, scale, slots, queries, causal, dscore)
    return dscore


@part_of_kernel
def slopes_of_scores(A, dA, scale, slots, queries, causal, dscore):
    """dscore[s, m, j] = A_j (dA_j - sum_k A_k dA_k), dA_j = scale[s, m] dA[s, m, u] for the token u of key j. (S, M, T)

    dA of the key with most attention is subtracted first, so that no digits are lost where attention is nearly one-hot.
    """
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            row, slot, derivative = A[s, m], slots[s], dscore[s, m]
            end = queries[s, m] + 1 if causal else row.size
            leader = 0
            for j in range(end):
                if row[j] > row[leader]:
                    leader = j
            base = dA[s, m, slot[leader]]
            mean = 0.0
            for j in range(end):
                derivative[j] = dA[s, m, slot[j]] - base
                mean += row[j] * derivative[j]
            for j in range(end):
                derivative[j] = scale[s, m] * row[j] * (derivative[j] - mean)
            for j in range(end, row.size):
                derivative[j] = 0.0


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


@part_of_kernel
def fold(A, slots, n_words):
    """C[s, m, u] = attention on the u-th distinct token: the sum of A[s, m, j] over its positions j. (S, M, U)"""
    C = np.zeros((A.shape[0], A.shape[1], n_words), A.dtype)
    for s in range(A.shape[0]):
        for m in range(A.shape[1]):
            for j in range(A.shape[2]):
                C[s, m, slots[s, j]] += A[s, m, j]
    return C


# Each of the heads turns outputs of its queries, in place, into R and a scale, with dL/dout_t = scale_t R_t, and gives
# their losses.

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


@ordered_kernel
def exponentials(row, top):
    """In place, row becomes e = exp(row - top). Returns the sum of e."""
    for b in range(row.size):
        row[b] = exp(row[b] - top)
    return sum_of(row)


@part_of_kernel
def _one_answer(row, y):
    """In place, row becomes R = e - Z onehot(y), with e = exp(row - its maximum), Z = sum of e. Returns -log p_y and Z.

    R_y is minus the sum of the others, never e_y - Z, so that 1 - p_y keeps its digits when p_y is nearly 1.
    """
    top = largest(row)
    lag = float(row[y] - top)
    row[y] = -np.inf
    others = exponentials(row, top)
    row[y] = -others
    Z = others + math.exp(lag)
    return (math.log1p(others) if lag == 0.0 else math.log(Z) - lag), Z


@part_of_kernel
def cross_entropy(out, targets, weight, begin, total, kind, scale, losses):
    """Cross-entropy of the answers y_k of each query, with e = exp(out - its maximum) and Z = sum of e.

    One token:  loss = weight (log Z - lag),  R = e - Z onehot(y),  scale = weight / Z,  with lag = out_y - maximum.
    Several:  loss = sum_k weight_k (log Z - lag_k),  R = total e / Z - sum_k weight_k onehot(y_k),  scale = 1.
    """
    for s in range(out.shape[0]):
        for m in range(out.shape[1]):
            row, first = out[s, m], begin[s, m]
            if kind[s, m] == ONE_TOKEN:
                loss, Z = _one_answer(row, targets[s, first])
                losses[s, m] = total[s, m] * loss
                scale[s, m] = total[s, m] / Z
            elif kind[s, m] == SEVERAL_TOKENS:
                top, lag = largest(row), 0.0
                for k in range(first, begin[s, m + 1]):
                    lag += weight[s, k] * (row[targets[s, k]] - top)
                Z = exponentials(row, top)
                losses[s, m] = total[s, m] * math.log(Z) - lag
                share = out.dtype.type(total[s, m] / Z)
                for b in range(row.size):
                    row[b] *= share
                for k in range(first, begin[s, m + 1]):
                    row[targets[s, k]] -= weight[s, k]
                scale[s, m] = 1.0


@ordered_kernel
def residuals(out, targets, weight):
    """In place, outputs (M, V) with one answer y each become R = dL/dout under cross-entropy. Returns the loss.

    As :func:`cross_entropy` with one token, for a sequence by itself:  R = weight / Z (e - Z onehot(y)).
    """
    loss = 0.0
    for m in range(out.shape[0]):
        row = out[m]
        own, Z = _one_answer(row, targets[m])
        loss += weight[m] * own
        share = out.dtype.type(weight[m] / Z)
        for b in range(row.size):
            row[b] *= share
    return loss


@ordered_kernel
def probabilities(out):
    """Each row of ``out`` becomes exp(out) / sum of exp(out), in place."""
    for i in range(out.shape[0]):
        row = out[i]
        share = out.dtype.type(1) / exponentials(row, largest(row))
        for b in range(row.size):
            row[b] *= share


@part_of_kernel
def squared(out, targets, weight, begin, total, kind, scale, losses):
    """Squared loss of the answers y_k of each query.

    One token:  loss = weight |out - onehot(y)|^2,  R = 2 (out - onehot(y)),  scale = weight. A small one keeps digits.
    Several:  loss = sum_k weight_k |out - onehot(y_k)|^2,  R = 2 sum_k weight_k (out - onehot(y_k)),  scale = 1.
    """
    for s in range(out.shape[0]):
        for m in range(out.shape[1]):
            row, first, factor = out[s, m], begin[s, m], out.dtype.type(2)
            if kind[s, m] == ONE_TOKEN:
                row[targets[s, first]] -= 1.0
                losses[s, m] = total[s, m] * sum_of_squares(row)
                scale[s, m] = total[s, m]
            elif kind[s, m] == SEVERAL_TOKENS:
                square = sum_of_squares(row)
                for k in range(first, begin[s, m + 1]):
                    losses[s, m] += weight[s, k] * (square - 2.0 * row[targets[s, k]] + 1.0)
                factor = out.dtype.type(2.0 * total[s, m])
                scale[s, m] = 1.0
            for b in range(row.size):
                row[b] *= factor
            if kind[s, m] == SEVERAL_TOKENS:
                for k in range(first, begin[s, m + 1]):
                    row[targets[s, k]] -= 2.0 * weight[s, k]


@ordered_kernel
def log_head(keys, n_keys, mass, queries, causal, tables, slots, C, ov, answers):
    """-log(out_y), summed over the answers y of each query, (S, M), and its derivatives G, D and dscore.

    With v_j = ov[x_j, y] + direct[x_t, y] + bias[y] and A_j = mass_j exp(score_j) / Z, out_y = sum_j A_j v_j = own / Z:

        -log(out_y) = log(Z / own) = log(1 + others / own),   others = sum_j mass_j exp(score_j) (1 - v_j)
        dout_y = -1 / out_y,  D[u, y] = -A_u / out_y,  dscore_j = A_j (out_y - v_j) / out_y, which is A_j where v_j = 0

    The output is not stored, because it may underflow although neither its logarithm nor the derivative of that does.
    Z and others are computed relative to the largest score, own relative to the largest score whose v_j is not 0;
    ``gap`` is the difference of these two scores. Each answer counts with its weight. answers = (asked, targets,
    weight, n_answers), tables = (direct, qk, position, bias); slots[s, j] = number u of token x_j, C (S, M, U) =
    attention to each distinct token, ov (S, U, V) = its row of ov.
    """
    direct, qk, position, bias = tables
    asked, targets, weight, n_answers = answers
    n, n_queries, n_words = C.shape
    losses, dscore = np.zeros((n, n_queries)), np.zeros((n, n_queries, keys.shape[1]), ov.dtype)
    G, D = np.zeros_like(ov), np.zeros_like(ov)
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
            G[s, slots[s, t], y] -= w * np.exp(gap) * (Z / own)
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
    return losses, G, D, dscore


@part_of_kernel
def sum_by_word(R, scale, n_queries, slots, queries, G):
    """G[s, u, :] = sum of scale_t R_t over the queries that hold word u: what direct and bias take of dL/dout_t."""
    G[:] = 0.0
    for s in range(len(R)):
        for m in range(n_queries[s]):
            to, factor, row = G[s, slots[s, queries[s, m]]], scale[s, m], R[s, m]
            for b in range(row.size):
                to[b] += factor * row[b]


@kernel
def add_pieces(words, n_words, G, d_direct, d_bias, D, d_ov, current, n_queries, keys, queries, causal, dscore, d_qk,
               d_position):
    """Add a block's derivatives to the tables; a table that is empty is absent. With t = queries[s, m]:

    d_direct[words[s, u], :] += G[s, u, :],   d_bias += G[s, u, :],   d_ov[words[s, u], :] += D[s, u, :],
    d_qk[x_t, x_j] += dscore_tj,   d_position[t - j] += dscore_tj
    """
    for s in range(len(keys)):
        for u in range(n_words[s]):
            if d_direct.size > 0:
                to, row = d_direct[words[s, u]], G[s, u]
                for b in range(row.size):
                    to[b] += row[b]
            if d_bias.size > 0:
                row = G[s, u]
                for b in range(row.size):
                    d_bias[b] += row[b]
            if d_ov.size > 0:
                to, row = d_ov[words[s, u]], D[s, u]
                for b in range(row.size):
                    to[b] += row[b]
        for m in range(n_queries[s]):
            t = queries[s, m]
            if d_qk.size > 0:
                to, row = d_qk[current[s, m]], dscore[s, m]
                for j in range(t + 1 if causal else row.size):
                    to[keys[s, j]] += row[j]
            if d_position.size > 0:
                row = dscore[s, m]
                for j in range(t + 1):
                    d_position[t - j] += row[j]
