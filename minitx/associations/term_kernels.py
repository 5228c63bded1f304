"""The kernel of the split gradient: a block's sequences pass through steps 1 to 5 of ``terms.py`` one at a time.

What the steps of a sequence hand to each other then stays in a core's second cache, as in a step of training.

Legend: S sequences of a block, T keys, V vocabulary; of each sequence: M loss positions, U distinct tokens.
"""

import numpy as np

from minitx.base.compiling import ordered_kernel, part_of_kernel
from minitx.model.kernels import attention_forward, fold, probabilities, sum_by_word
from minitx.model.product_kernels import outputs, row_slopes, word_slopes

N_SCORED = 8  # The slopes of the scores have so many terms.


@ordered_kernel
def terms_of_block(sequences, distinct, tables, answers, ov_parts, found):
    """The sums of a block's terms, float64; ``sequences``, ``distinct`` and ``tables`` are those of a training step.

    answers = (targets, weight), one of each query; ov_parts = (parts, means), (2, V, V) and (2, V), the leading term of
    ov and the rest, and the means of their rows. found = (C_rest, G, D, D_rest, dscore):

    C_rest, (S, M, U), is C - C0. G_u, (S, U, V), sums r_t - r0_t over the queries of word u; D_u and D_rest_u, (S, U,
    V), sum it over all queries, times C0_tu and times C_rest_tu. dscore, (S, M, T, 8), are the slopes of the scores to
    the keys that a query attends to, where the number of a term is the sum of 4 if it holds A - A0 instead of A0, of 2
    if it holds r - r0 instead of r0, and of 1 if it holds the rest of ov instead of its leading term.
    """
    keys, n_keys, mass, queries, n_queries, causal, current = sequences
    slots, words, seen, since = distinct
    direct, ov, qk, position, bias = tables
    targets, weight = answers
    parts, means = ov_parts
    C_rest, G, D, D_rest, dscore = found
    R, ones = np.empty((1, queries.shape[1], ov.shape[1])), np.ones((1, queries.shape[1]))
    dC = np.empty((4, queries.shape[1], words.shape[1]))
    for s in range(len(keys)):
        one = slice(s, s + 1)
        # 1  A, A0; C and C0 are the attention to a distinct token, the sum over its copies
        A = attention_forward(keys[one], n_keys[one], mass[one], queries[one], n_queries[one], causal, qk, position)
        A0 = _uniform_attention(queries[one], n_queries[one], keys.shape[1])
        C, C_rest[one] = fold(A, slots[one], words.shape[1]), fold(A0, slots[one], words.shape[1])
        for m in range(C.shape[1]):
            for u in range(C.shape[2]):
                C_rest[s, m, u] = C[0, m, u] - C_rest[s, m, u]
        # 2  r - r0
        outputs(C, words[one], seen[one], ov, direct, current[one], bias, R)
        probabilities(R[0])
        for m in range(R.shape[1]):
            for b in range(R.shape[2]):
                R[0, m, b] = weight[s, m] * (R[0, m, b] - 1.0 / R.shape[2])
        # 3  d_direct[x_t, :] += r_t,  d_ov[u, :] += C_tu r_t
        sum_by_word(R, ones, n_queries[one], slots[one], queries[one], G[one])
        _sum_over_prefixes(R[0], n_queries[s], slots[s], queries[s], D[s])
        word_slopes(C_rest[one], since[one], R, D_rest[one])
        # 4, 5  dC_tu = r_t . ov[u, :], and dscore at A0 and what A - A0 adds to it
        for part in range(2):
            _slopes_of_r0(words[s], seen[s], targets[s], weight[s], parts[part], means[part], dC[part])
            dC[2 + part] = row_slopes(R, words[one], seen[one], parts[part])[0]
        _slopes_of_scores(A[0], dC, slots[s], queries[s], n_queries[s], dscore[s])


@part_of_kernel
def _uniform_attention(queries, n_queries, n_keys):
    """A0 (S, M, T), uniform over the prefix of each query, and 0 elsewhere."""
    A0 = np.zeros((queries.shape[0], queries.shape[1], n_keys))
    for s in range(A0.shape[0]):
        for m in range(n_queries[s]):
            A0[s, m, :queries[s, m] + 1] = 1.0 / (queries[s, m] + 1)
    return A0


@part_of_kernel
def _sum_over_prefixes(R, n_queries, slots, queries, D):
    """D_u = sum_t C0_tu R_t, (U, V): each key of word u adds the sum of R_t / (t + 1) over the queries t from it on."""
    D[:] = 0.0
    total = np.zeros(R.shape[1])
    for m in range(n_queries - 1, -1, -1):
        share, row = 1.0 / (queries[m] + 1), R[m]
        for b in range(row.size):
            total[b] += share * row[b]
        for j in range(queries[m - 1] + 1 if m > 0 else 0, queries[m] + 1):
            to = D[slots[j]]
            for b in range(row.size):
                to[b] += total[b]


@part_of_kernel
def _slopes_of_r0(words, seen, targets, weight, part, mean, dC):
    """dC[m, u] = r0_t . part[u, :], with r0_t = w_t (1/V - onehot(y_t)), for the words u that query t sees."""
    for m in range(dC.shape[0]):
        for u in range(seen[m]):
            dC[m, u] = weight[m] * (mean[words[u]] - part[words[u], targets[m]])


@part_of_kernel
def _slopes_of_scores(A, dC, slots, queries, n_queries, dscore):
    """The dscore of :func:`terms_of_block` for one sequence, (M, T, 8), of its A, (M, T), and four dC, (4, M, U).

    dscore_tj = A_tj (dA_tj - sum_k A_tk dA_tk), where dA_tj is dC_tu of the word u of key j. That of the key with most
    attention is subtracted first, as in :func:`minitx.model.kernels.slopes_of_scores`; in A0 it is the first key.
    """
    for m in range(n_queries):
        row, end, leader = A[m], queries[m] + 1, 0
        share = 1.0 / end  # A0_tj
        for j in range(end):
            if row[j] > row[leader]:
                leader = j
        for i in range(4):
            dA, mean, mean_at_uniform = dC[i, m], 0.0, 0.0
            base, base_at_uniform = dA[slots[leader]], dA[slots[0]]
            for j in range(end):
                mean += row[j] * (dA[slots[j]] - base)
                mean_at_uniform += share * (dA[slots[j]] - base_at_uniform)
            for j in range(end):
                at_uniform = share * (dA[slots[j]] - base_at_uniform - mean_at_uniform)
                dscore[m, j, i] = at_uniform
                dscore[m, j, 4 + i] = row[j] * (dA[slots[j]] - base - mean) - at_uniform


@ordered_kernel
def add_slopes_of_scores(dscore, current, n_queries, keys, queries, qk, position):
    """Add dscore[s, m, j, :] to qk[x_t, x_j, :] and position[t - j, :], for each key j <= t = queries[s, m].

    In qk, (V, V, 8), and position, (T, 8), the terms of an entry lie next to each other. The entries of a sentence lie
    far apart, so that in a table for each term they would take eight times as many lines of the cache.
    """
    for s in range(len(keys)):
        for m in range(n_queries[s]):
            t, x = queries[s, m], current[s, m]
            for j in range(t + 1):
                key = keys[s, j]
                for i in range(N_SCORED):
                    slope = dscore[s, m, j, i]
                    qk[x, key, i] += slope
                    position[t - j, i] += slope


@ordered_kernel
def take_apart(table, found):
    """found[i][...] = table[..., i]; a row of ``table`` stays in the cache while it is taken apart."""
    for a in range(len(table)):
        for i in range(N_SCORED):
            found[i][a] = table[a, ..., i]


@ordered_kernel
def add_uniform_residual(C, n_queries, words, seen, targets, weight, level, d_ov):
    """Add sum_t C_tu r0_t to the row u of (V, V) ``d_ov``, with r0_t = w_t (1/V - onehot(y_t)), for each word u.

    The part 1/V is the same for all columns, and is added to ``level`` (V,) instead.
    """
    for s in range(len(C)):
        for m in range(n_queries[s]):
            for u in range(seen[s, m]):
                share = weight[s, m] * C[s, m, u]
                level[words[s, u]] += share / d_ov.shape[1]
                d_ov[words[s, u], targets[s, m]] -= share
