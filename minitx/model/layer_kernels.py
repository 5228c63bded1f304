"""The numba kernels of a model of several layers: gathers, softmax and scatters of one sequence at a time.

Legend: T positions, V vocabulary; of a sequence: U distinct tokens, M loss positions. In an array of paths each path
has ``n_columns`` columns, of which the first U belong to the words (path_kernels).

Every kernel takes C-contiguous arrays, checks nothing (the public functions do) and adds in one fixed order.
"""

from minitx.base.compiling import kernel, ordered_kernel
from minitx.model.kernels import exp


@kernel
def one_hot(slots, n_columns, C):
    """The first ``n_columns`` columns of C: C[t, u] = 1(word u stands at t)."""
    C[:, :n_columns] = 0.0
    for t in range(slots.size):
        C[t, slots[t]] = 1.0


@kernel
def lookup_scores(tokens, W, S):
    """S[t, j] = W[x_t, x_j] for j <= t: the scores of layer 1, whose queries and keys are one-hot."""
    for t in range(S.shape[0]):
        row = W[tokens[t]]
        for j in range(t + 1):
            S[t, j] = row[tokens[j]]


@ordered_kernel
def softmax_forward(S, P):
    """In place, A[t, j] = softmax over j <= t of S[t, j] + P[t - j]; 0 where j > t."""
    for t in range(S.shape[0]):
        row, total = S[t, :t + 1], 0.0
        for j in range(t + 1):
            row[j] += P[t - j]
        top = row[0]
        for j in range(1, t + 1):
            top = max(top, row[j])
        for j in range(t + 1):  # vectorised, because the sum, whose order is fixed, has a loop of its own
            row[j] = exp(row[j] - top)
        for j in range(t + 1):
            total += row[j]
        for j in range(t + 1):
            row[j] /= total
        S[t, t + 1:] = 0.0


@ordered_kernel
def softmax_backward(A, dA, dP):
    """In place, dA becomes dS[t, j] = A_tj (dA_tj - sum_k A_tk dA_tk), and dP[t - j] += dS[t, j].

    dA of the key with most attention is subtracted first, so that no digits are lost where attention is nearly one-hot.
    """
    for t in range(A.shape[0]):
        row, slope = A[t], dA[t]
        leader = 0
        for j in range(1, t + 1):
            if row[j] > row[leader]:
                leader = j
        base = slope[leader]
        mean = 0.0
        for j in range(t + 1):
            slope[j] -= base
            mean += row[j] * slope[j]
        for j in range(t + 1):
            slope[j] = row[j] * (slope[j] - mean)
            dP[t - j] += slope[j]
        slope[t + 1:] = 0.0


@kernel
def fold(A, slots, n_columns, C):
    """C[t, n_columns + u] = the sum of A[t, j] over the j where word u stands: attention of layer 1 to the words."""
    for t in range(A.shape[0]):
        row, attended = C[t, n_columns:2 * n_columns], A[t]
        row[:] = 0.0
        for j in range(t + 1):
            row[slots[j]] += attended[j]


@kernel
def fold_backward(dC, slots, n_columns, dA):
    """dA[t, j] = dC[t, n_columns + u] for j <= t, with u the word at j: :func:`fold` in reverse."""
    for t in range(dA.shape[0]):
        row, slope = dC[t, n_columns:2 * n_columns], dA[t]
        for j in range(t + 1):
            slope[j] = row[slots[j]]


@kernel
def gather_columns(table, words, out):
    """The first columns of out: out[i, u] = table[i, words[u]]."""
    for i in range(table.shape[0]):
        row, to = table[i], out[i]
        for u in range(words.size):
            to[u] = row[words[u]]


@kernel
def add_columns(columns, words, table):
    """table[i, words[u]] += columns[i, u], of which only the first columns are read."""
    for i in range(table.shape[0]):
        row, to = columns[i], table[i]
        for u in range(words.size):
            to[words[u]] += row[u]


@kernel
def add_gathered_rows(table, tokens, out):
    """out[t, :] += table[tokens[t], :]."""
    for t in range(tokens.size):
        row, to = table[tokens[t]], out[t]
        for c in range(row.size):
            to[c] += row[c]


@kernel
def scatter_rows(tables, words, rows):
    """tables[k, words[u], :] += rows[k, u, :]."""
    for k in range(tables.shape[0]):
        for u in range(words.size):
            row, to = rows[k, u], tables[k, words[u]]
            for c in range(to.size):
                to[c] += row[c]


@kernel
def scatter_paths(tables, words, rows):
    """tables[S, words[u], :] += rows[u, S - 1, :] for the paths S != {}."""
    for u in range(words.size):
        for i in range(rows.shape[1]):
            row, to = rows[u, i], tables[i + 1, words[u]]
            for c in range(to.size):
                to[c] += row[c]


@kernel
def scatter_scores(table, tokens, dS):
    """table[x_t, x_j] += dS[t, j] for j <= t."""
    for t in range(tokens.size):
        row = table[tokens[t]]
        for j in range(t + 1):
            row[tokens[j]] += dS[t, j]


@kernel
def uniform_residual(R, targets, weight):
    """R = dL/dout where the output is uniform, weight (1/V - onehot(y))."""
    for t in range(R.shape[0]):
        R[t, :] = weight[t] / R.shape[1]
        R[t, targets[t]] -= weight[t]


@kernel
def uniform_attention(A):
    """A[t, j] = 1 / (t + 1) for j <= t: attention where all scores are equal."""
    A[:, :] = 0.0
    for t in range(A.shape[0]):
        for j in range(t + 1):
            A[t, j] = 1.0 / (t + 1)
