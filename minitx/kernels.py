"""The numba kernels: gathers, scatters and softmax, in the order in which a training step uses them.

Legend: S sequences of a block, T keys (positions, or distinct tokens), V vocabulary; M queries, K answers expected of them (loss
positions) and U distinct tokens of a sequence. A block is padded to its largest T, M, K and U: padding has weight 0, attention 0.

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


# ------------------------------------------------------------------------------------------------- averages over pairs


@kernel
def sums_within_topics(matrix, topics, sums):
    """sums[s] = sum over b < a with topics[s, a] == topics[s, b] of matrix[a, b]. matrix (n, n), topics (S, n), sums (S,)"""
    for s in range(topics.shape[0]):
        topic = topics[s]
        total = 0.0
        for a in range(matrix.shape[0]):
            row, own = matrix[a], topic[a]
            for b in range(a):
                total += row[b] if topic[b] == own else 0.0
        sums[s] = total


# ------------------------------------------------------------------------- the last token's attention, by counts of tokens
#
# n samples; the distinct tokens of sample i are tokens[starts[i]:starts[i + 1]], M in all. 1 - P_y is never a difference: it is the
# sum of the others, so that no digit is lost however small it is.


@ordered_kernel
def last_attention(last, starts, tokens, counts, scores, P):
    """P[m] = attention to the m-th token = counts[m] exp(scores[tokens[m], k]), normalised within its sample of last token k. (M,)

    scores (K, K): row = attended token, column = last token.
    """
    for i in range(len(last)):
        top = -np.inf
        for m in range(starts[i], starts[i + 1]):
            top = max(top, scores[tokens[m], last[i]])
        total = 0.0
        for m in range(starts[i], starts[i + 1]):
            P[m] = counts[m] * math.exp(scores[tokens[m], last[i]] - top)
            total += P[m]
        for m in range(starts[i], starts[i + 1]):
            P[m] /= total


@ordered_kernel
def last_log(last, starts, tokens, counts, label_at, scores, P, dscore, losses):
    """losses[i] = -log P_y; dscore[m] = d losses[i] / d score of the m-th token: P_j, and -(1 - P_y) at the label. (M,)"""
    for i in range(len(last)):
        y, lead, others = label_at[i], starts[i], 0.0
        for m in range(starts[i], starts[i + 1]):
            dscore[m] = P[m]
            others += P[m] if m != y else 0.0
            lead = m if P[m] > P[lead] else lead
        dscore[y] = -others
        if lead == y:
            losses[i] = math.log1p(others / P[y])
        else:  # P_y may be 0 in floating point, its logarithm is not
            gap = scores[tokens[lead], last[i]] - scores[tokens[y], last[i]]
            losses[i] = gap + math.log(counts[lead] / counts[y]) - math.log(P[lead])


@ordered_kernel
def last_square(starts, label_at, P, dscore, losses):
    """losses[i] = (1 - P_y)^2; dscore[m] = 2 (1 - P_y) P_y P_j, and -2 (1 - P_y)^2 P_y at the label. (M,)"""
    for i in range(len(losses)):
        y, others = label_at[i], 0.0
        for m in range(starts[i], starts[i + 1]):
            others += P[m] if m != y else 0.0
        losses[i] = others * others
        for m in range(starts[i], starts[i + 1]):
            dscore[m] = 2.0 * others * P[y] * (P[m] if m != y else -others)


@ordered_kernel
def last_tied(starts, tokens, label_at, gram, P, dscore, losses):
    """losses[i] = (1 - h_y)^2, h = softmax(sum_m P[m] gram[tokens[m]]); dscore[m] = its derivative. gram (K, K), dscore (M,)"""
    n_vocab = len(gram)
    out, dP = np.empty(n_vocab), np.empty(n_vocab)
    for i in range(len(losses)):
        first, end, y = starts[i], starts[i + 1], tokens[label_at[i]]
        out[:] = 0.0
        lead = first
        for m in range(first, end):
            lead = m if P[m] > P[lead] else lead
            for l in range(n_vocab):
                out[l] += P[m] * gram[tokens[m], l]
        top, total, others = out.max(), 0.0, 0.0
        for l in range(n_vocab):
            out[l] = math.exp(out[l] - top)
            total += out[l]
            others += out[l] if l != y else 0.0
        others, label = others / total, out[y] / total
        losses[i] = others * others
        for l in range(n_vocab):  # d out
            out[l] = 2.0 * others * label * (out[l] / total if l != y else -others)
        mean = 0.0
        for m in range(first, end):  # relative to the leading token, whose own dP would drown the others'
            dP[m - first] = 0.0
            for l in range(n_vocab):
                dP[m - first] += (gram[tokens[m], l] - gram[tokens[lead], l]) * out[l]
            mean += P[m] * dP[m - first]
        for m in range(first, end):
            dscore[m] = P[m] * (dP[m - first] - mean)


@ordered_kernel
def add_last_scores(last, starts, tokens, share, dscore, d_scores):
    """d_scores[tokens[m], last[i]] += share[i] dscore[m]. (K, K): row = attended token, column = last token."""
    for i in range(len(last)):
        for m in range(starts[i], starts[i + 1]):
            d_scores[tokens[m], last[i]] += share[i] * dscore[m]


# ---------------------------------------------------------------------- attention of the last token, split at the SCCs


@ordered_kernel
def excess(starts, tokens, counts, inside, last, share, scores, d_scores):
    """Log of e = sum_i share_i log(1 + exp(z_i)), z_i = log(mass outside) - log(mass inside); mass_j = counts_j exp(score_j).

    scores[j, k]: of token j when the last token is k. d_scores, of zeros before, becomes d log(e) / d scores, never over- or
    underflowing as e does. -inf where no sample has tokens outside; nan where a score is not finite.
    """
    n = last.size
    mass = np.empty(tokens.size)
    sum_in, sum_out, z, log_term = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    top = -np.inf
    for i in range(n):
        k = last[i]
        top_in = top_out = -np.inf
        for at in range(starts[i], starts[i + 1]):
            if not math.isfinite(scores[tokens[at], k]):
                return np.nan
            if inside[at]:
                top_in = max(top_in, scores[tokens[at], k])
            else:
                top_out = max(top_out, scores[tokens[at], k])
        log_term[i] = -np.inf
        if top_out == -np.inf:
            continue
        sum_in[i] = sum_out[i] = 0.0
        for at in range(starts[i], starts[i + 1]):
            mass[at] = counts[at] * math.exp(scores[tokens[at], k] - (top_in if inside[at] else top_out))
            if inside[at]:
                sum_in[i] += mass[at]
            else:
                sum_out[i] += mass[at]
        z[i] = top_out - top_in + math.log(sum_out[i] / sum_in[i])
        log_term[i] = math.log(share[i]) + log_softplus(z[i])
        top = max(top, log_term[i])
    if top == -np.inf:
        return top
    total = 0.0
    for i in range(n):
        total += math.exp(log_term[i] - top)
    log_excess = top + math.log(total)
    for i in range(n):
        if log_term[i] == -np.inf:
            continue
        log_sigmoid = z[i] - math.log1p(math.exp(z[i])) if z[i] < 0.0 else -math.log1p(math.exp(-z[i]))
        weight = math.exp(math.log(share[i]) + log_sigmoid - log_excess)
        for at in range(starts[i], starts[i + 1]):
            d_scores[tokens[at], last[i]] += -weight * mass[at] / sum_in[i] if inside[at] else weight * mass[at] / sum_out[i]
    return log_excess


@ordered_kernel
def log_softplus(z):
    """log(log(1 + exp(z))), of full relative accuracy of the inner logarithm at any z."""
    if z > 0.0:
        return math.log(z + math.log1p(math.exp(-z)))
    x = math.exp(z)
    return z if x < 1e-300 else z + math.log(math.log1p(x) / x)


@ordered_kernel
def cyclic_losses(starts, tokens, counts, inside, last, label_at, scores, losses):
    """losses[i] = -log(mass of the label / mass inside), both of sample i; exact where the label has nearly all of it."""
    for i in range(last.size):
        k, label = last[i], label_at[i]
        own = scores[tokens[label], k]
        top = 0.0
        for at in range(starts[i], starts[i + 1]):
            if inside[at]:
                top = max(top, scores[tokens[at], k] - own)
        others = 0.0
        for at in range(starts[i], starts[i + 1]):
            if inside[at] and at != label:
                others += counts[at] * math.exp(scores[tokens[at], k] - own - top)
        if top == 0.0:
            losses[i] = math.log1p(others / counts[label])
        else:
            losses[i] = top + math.log(others / counts[label] + math.exp(-top))


@ordered_kernel
def cyclic_terms(starts, slots, counts, label_at, share, scores, gradient, hessian):
    """Sum of share_i (-log P_label), P over the slots of sample i; adds its gradient and Hessian in ``scores``, one a slot."""
    value = 0.0
    for i in range(share.size):
        begin, end, label = starts[i], starts[i + 1], label_at[i]
        own = scores[slots[label]]
        top = 0.0
        for at in range(begin, end):
            top = max(top, scores[slots[at]] - own)
        P = np.empty(end - begin)
        others = 0.0
        for at in range(begin, end):
            P[at - begin] = counts[at] / counts[label] * math.exp(scores[slots[at]] - own - top)
            if at != label:
                others += P[at - begin]
        total = others + P[label - begin]
        value += share[i] * (math.log1p(others) if top == 0.0 else top + math.log(total))
        P /= total
        for at in range(begin, end):
            p = P[at - begin]
            gradient[slots[at]] += share[i] * (p if at != label else -others / total)
            for other in range(begin, end):
                hessian[slots[at], slots[other]] -= share[i] * p * P[other - begin]
            hessian[slots[at], slots[at]] += share[i] * p
    return value


# --------------------------------------------------------------------------- reduced dynamics: sums over loss positions
#
# A loss position i is (sequence[i], at[i]); a kernel visits order[first..last-1], one piece of the work. A piece adds to arrays, or
# to rows of a table, that no other adds to. factor = exp(qk - its row's maximum), decay = exp(position - its maximum), last offset
# first: attention is a product of looked up numbers, without an exp. scale[i] = 1 / the sum of these products, from the first visit
# on; it stays 0 where they all underflow. Tokens are unsigned: no index can be negative, and the lookups vectorise.
#
# positions = (tokens, sequence, at, scale), attention = (qk, position, factor, decay), piece = (first, last).


@kernel
def _attend(keys, t, qk_row, position, factor_row, decay, scale, i, row):
    """row[j] = attention of position t, the i-th loss position, to j <= t."""
    near = decay[decay.size - 1 - t:]  # near[j] belongs to the offset t - j
    known = scale[i]
    if known > 0.0:
        for j in range(t + 1):
            row[j] = factor_row[keys[j]] * near[j] * known
        return
    one = row.dtype.type(1)
    total = one - one
    for j in range(t + 1):
        row[j] = factor_row[keys[j]] * near[j]
        total += row[j]
    if total > 1e-25:
        scale[i] = one / total
    else:  # all that is seen lies far below the maximum of its row of the table
        top = qk_row[keys[0]] + position[t]
        for j in range(1, t + 1):
            top = max(top, qk_row[keys[j]] + position[t - j])
        total = one - one
        for j in range(t + 1):
            row[j] = math.exp(qk_row[keys[j]] + position[t - j] - top)
            total += row[j]
    inverse = one / total
    for j in range(t + 1):
        row[j] *= inverse


@ordered_kernel  # sums that may be reassociated become vectors filled by gathers, at half the speed
def context_images(positions, order, attention, basis, piece, images):
    """images[i, :] = sum_j A_tj basis[x_j, :], of four columns."""
    tokens, sequence, at, scale = positions
    qk, position, factor, decay = attention
    row = np.empty(tokens.shape[1], factor.dtype)
    for n in range(piece[0], piece[1]):
        i = order[n]
        keys, t = tokens[sequence[i]], at[i]
        _attend(keys, t, qk[keys[t]], position, factor[keys[t]], decay, scale, i, row)
        for r in range(0, basis.shape[1], 4):
            a = b = c = d = basis.dtype.type(0)
            for j in range(t + 1):
                a += row[j] * basis[keys[j], r]
                b += row[j] * basis[keys[j], r + 1]
                c += row[j] * basis[keys[j], r + 2]
                d += row[j] * basis[keys[j], r + 3]
            images[i, r], images[i, r + 1], images[i, r + 2], images[i, r + 3] = a, b, c, d


@kernel
def sort_within(feature, begin, end, order):
    """order[begin_a..end_a-1] = the same indices sorted by feature, for every a."""
    for a in range(begin.size):
        order[begin[a]:end[a]] = begin[a] + np.argsort(feature[begin[a]:end[a]], kind="mergesort")


@kernel
def context_sums(positions, weight, rows, order, attention, images, piece, table, products):
    """table[rows[i], x_j] += w_i A_tj, and products[x_j, :] += w_i A_tj images[i, :]."""
    tokens, sequence, at, scale = positions
    qk, position, factor, decay = attention
    row = np.empty(tokens.shape[1], factor.dtype)
    for n in range(piece[0], piece[1]):
        i = order[n]
        keys, t, w = tokens[sequence[i]], at[i], weight[i]
        _attend(keys, t, qk[keys[t]], position, factor[keys[t]], decay, scale, i, row)
        to = table[rows[i]]
        for j in range(t + 1):
            to[keys[j]] += w * row[j]
        for r in range(0, images.shape[1], 4):
            a, b, c, d = w * images[i, r], w * images[i, r + 1], w * images[i, r + 2], w * images[i, r + 3]
            for j in range(t + 1):
                key, share = keys[j], row[j]
                products[key, r] += share * a
                products[key, r + 1] += share * b
                products[key, r + 2] += share * c
                products[key, r + 3] += share * d


@kernel
def reduced_scores(positions, weight, targets, cell, order, attention, images, tables, piece, d_qk, d_position):
    """d_qk[x_t, x_j] and d_position[T - 1 - t + j] += w A_tj (delta_tj - sum_k A_tk delta_tk), with

    delta_tj = by_target[y_t, x_j] - by_cell[cell, x_j] - (images[i, :] - centre[cell, :]) . response[x_j, :];
    tables = (by_target, by_cell, centre, response).
    """
    tokens, sequence, at, scale = positions
    qk, position, factor, decay = attention
    by_target, by_cell, centre, response = tables
    row, delta = np.empty((2, tokens.shape[1]), factor.dtype)
    for n in range(piece[0], piece[1]):
        i = order[n]
        keys, t, w, k = tokens[sequence[i]], at[i], weight[i], cell[i]
        _attend(keys, t, qk[keys[t]], position, factor[keys[t]], decay, scale, i, row)
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
        to, near = d_qk[keys[t]], d_position[d_position.size - 1 - t:]
        for j in range(t + 1):
            row[j] *= w * (delta[j] - mean)
            near[j] += row[j]
        for j in range(t + 1):
            to[keys[j]] += row[j]
