"""The numba kernels of the theory of several layers: attention that is uniform over the prefix, applied several times.

Legend: T positions, V vocabulary; U distinct tokens of a sequence. A0[t, j] = 1 / (t + 1) for j <= t.

Threads share a table by rows: row a belongs to owner a mod n_owners, so that each entry is added to in the same order.
"""

import numpy as np

from minitx.base.compiling import kernel


@kernel
def add_shares(lengths, rows, weight, words, slots, power, owner, n_owners, table):
    """table[rows_t, a] += w_t (A0^power X)[t, a] for every token a of the sequence, in the rows of one owner."""
    length, width = slots.shape[1], words.shape[1]
    share, total = np.zeros((length, width)), np.zeros(width)
    for s in range(words.shape[0]):
        share[:] = 0.0
        for t in range(lengths[s]):
            share[t, slots[s, t]] = 1.0
        for _ in range(power):
            total[:] = 0.0
            for t in range(lengths[s]):
                for u in range(width):
                    total[u] += share[t, u]
                    share[t, u] = total[u] / (t + 1)
        for t in range(lengths[s]):
            row = rows[s, t]
            if weight[s, t] != 0.0 and row % n_owners == owner:
                to = table[row]
                for u in range(slots[s, :t + 1].max() + 1):
                    to[words[s, u]] += weight[s, t] * share[t, u]


@kernel
def reference_scores(tokens, targets, weight, E, dA, inner):
    """dA[t, j] = sum over k, m of [(A0^m)^T D_km (A0^k)^T]_tj, D_km[t, j] = w_t E[k, m, y_t, x_j]; one sequence.

    ``inner`` (T, T) is overwritten. Both sums are taken by Horner's rule, so that A0 is applied as a prefix mean.
    """
    n = tokens.size
    dA[:, :] = 0.0
    for m in range(E.shape[1] - 1, -1, -1):
        for j in range(n):  # dA <- A0^T dA
            total = 0.0
            for t in range(n - 1, -1, -1):
                total += dA[t, j] / (t + 1)
                dA[t, j] = total
        inner[:, :] = 0.0
        for k in range(E.shape[0] - 1, -1, -1):
            for t in range(n):
                if weight[t] == 0.0:
                    continue
                row, total = E[k, m, targets[t]], 0.0
                for j in range(n):  # inner <- inner A0^T + D_km
                    total += inner[t, j]
                    inner[t, j] = total / (j + 1) + weight[t] * row[tokens[j]]
        for t in range(n):
            for j in range(n):
                dA[t, j] += inner[t, j]


@kernel
def uniform_softmax_backward(dA, dP):
    """In place, dA becomes dS[t, j] = A0_tj (dA_tj - mean over k <= t of dA_tk), and dP[t - j] += dS[t, j]."""
    for t in range(dA.shape[0]):
        mean = 0.0
        for j in range(t + 1):
            mean += dA[t, j]
        mean /= t + 1
        for j in range(t + 1):
            dA[t, j] = (dA[t, j] - mean) / (t + 1)
            dP[t - j] += dA[t, j]
        dA[t, t + 1:] = 0.0


@kernel
def attend_both_sides(dS, out):
    """out[k, m] = (A0^k)^T dS A0^m, (K, K, T, T)."""
    n = dS.shape[0]
    for k in range(out.shape[0]):
        if k == 0:
            out[0, 0] = dS
        else:
            for j in range(n):
                total = 0.0
                for t in range(n - 1, -1, -1):
                    total += out[k - 1, 0, t, j] / (t + 1)
                    out[k, 0, t, j] = total
        for m in range(1, out.shape[1]):
            for t in range(n):
                total = 0.0
                for j in range(n - 1, -1, -1):
                    total += out[k, m - 1, t, j] / (j + 1)
                    out[k, m, t, j] = total


@kernel
def add_pairs(tokens, scores, owner, n_owners, tables):
    """tables[k, m, x_t, x_j] += scores[k, m, t, j], in the rows of one owner."""
    for k in range(scores.shape[0]):
        for m in range(scores.shape[1]):
            for t in range(tokens.size):
                if tokens[t] % n_owners == owner:
                    row = tables[k, m, tokens[t]]
                    for j in range(tokens.size):
                        row[tokens[j]] += scores[k, m, t, j]
