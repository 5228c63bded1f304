"""The steps of a model of several layers (paths.py) for one sequence: a kernel takes all steps of a layer.

A call from Python costs about as much as one of these steps, and needs Python's lock, which the threads share.

Legend: T positions, V vocabulary; of a sequence: U words (distinct tokens). Of a layer l: g = 2^(l-1) paths below it.
In an array of paths, path S has the columns S K to (S + 1) K, where K = ``n_columns`` is U rounded up (paths.PADDED):
the first U of these belong to the words, and the others hold zeros. ``sequence`` is (tokens, words, seen): the tokens
of the positions, the words in the order in which they appear, and how many of them have appeared by each position.
"""

import numpy as np

from minitx.base.compiling import ordered_kernel
from minitx.model.layer_kernels import (
    add_columns,
    add_gathered_rows,
    fold,
    fold_backward,
    gather_columns,
    lookup_scores,
    one_hot,
    scatter_paths,
    scatter_rows,
    scatter_scores,
    softmax_backward,
    softmax_forward,
    uniform_attention,
)
from minitx.model.product_kernels import dots, mix


@ordered_kernel
def first_layer(tokens, slots, n_columns, W, P, uniform, C, A):
    """Steps 1, 3 and 4 of layer 1, whose queries and keys are one-hot, so that its scores are W[x_t, x_j] + P[t - j].

    ``uniform``: attention is uniform instead, here and in :func:`next_layer`.
    """
    one_hot(slots, n_columns, C)
    lookup_scores(tokens, W, A)
    if uniform:
        uniform_attention(A)
    else:
        softmax_forward(A, P)
    fold(A, slots, n_columns, C)


@ordered_kernel
def next_layer(sequence, n_columns, W, P, queries, keys, uniform, C, A, B, Q):
    """Steps 2 to 4 of a layer l > 1, with the tables ``queries``, M_S W_l, and ``keys``, M_S, of the paths below it."""
    tokens, words, seen = sequence
    below, positions = len(keys) * n_columns, np.arange(len(tokens))
    # 2  B_l = Q_l M^T,  Q_l = h_(l-1) W_l = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l);  M_{} is the identity
    path_rows(C, n_columns, words, seen, queries, Q)
    add_gathered_rows(W, tokens, Q)
    path_slopes(Q, n_columns, words, seen, keys, B)
    gather_columns(Q, words, B)
    # 3  S_l[t, j] = sum over S of B_l C_S^T;  A_l = softmax over j <= t of S_l + P_l[t - j]
    dots(B, positions, positions, positions + 1, C[:, :below], A)
    if uniform:
        uniform_attention(A)
    else:
        softmax_forward(A, P)
    # 4  C_(S+l) = A_l C_S
    mix(A, positions, positions, 0 * positions, positions + 1, C[:, :below], C[:, below:2 * below])


@ordered_kernel
def output(sequence, n_columns, W_O, tables, C, F):
    """Step 5 at the positions that ``sequence`` holds: F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)."""
    tokens, words, seen = sequence
    path_rows(C, n_columns, words, seen, tables, F)
    add_gathered_rows(W_O, tokens, F)


@ordered_kernel
def output_slopes(sequence, n_columns, tables, C, R, dO, dC):
    """Step 5 in reverse, for O_S = M_S W_O:  dO_S = C_S^T R,  dC_S = R O_S^T."""
    _, words, seen = sequence
    path_word_slopes(C, n_columns, words, seen, R, dO)
    path_slopes(R, n_columns, words, seen, tables, dC)


@ordered_kernel
def next_layer_slopes(sequence, n_columns, queries, keys, fixed, forward, dC, dP, dS, dB, dQ, d_queries, d_keys):
    """Steps 4 to 2 of a layer l > 1 in reverse; ``forward`` is (C, A, B, Q).

    ``fixed``: attention is held fixed, so that no slope flows through the scores to the paths below.
    """
    (_, words, seen), (C, A, B, Q) = sequence, forward
    below, positions = len(keys) * n_columns, np.arange(len(A))
    of_below, of_new, every = dC[:, n_columns:below], dC[:, below:2 * below], np.full(len(A), len(A))
    # 4  C_(S+l) = A_l C_S:  dA_l = sum over S of dC_(S+l) C_S^T
    dots(of_new, positions, positions, positions + 1, C[:, :below], dS)
    # 3  A_l = softmax(S_l)
    softmax_backward(A, dS, dP)
    # 4  dC_S += A_l^T dC_(S+l), for S != {}: C_{} is one-hot, so its slope is not needed
    to_add = dB[:, n_columns:]  # what is added to dC lies in the memory of dB, before dB_l and after it
    mix(A.T, positions, positions, positions, every, of_new[:, n_columns:], to_add)
    _add(to_add, of_below)
    if not fixed:  # 3  S_l = sum over S of B_l C_S^T:  dC_S += dS^T B_l
        mix(dS.T, positions, positions, positions, every, B[:, n_columns:], to_add)
        _add(to_add, of_below)
    # 3  dB_l = dS C
    mix(dS, positions, positions, 0 * positions, positions + 1, C[:, :below], dB)
    # 2  B_l = Q_l M^T:  dQ_l = dB_l M,  dM = dB_l^T Q_l
    path_rows(dB, n_columns, words, seen, keys, dQ)
    add_columns(dB, words, dQ)
    # 2  Q_l = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l):  d(M_S W_l) = C_S^T dQ_l,  dC_S += dQ_l (M_S W_l)^T
    path_word_slopes(C, n_columns, words, seen, dQ, d_queries)
    if not fixed:
        path_word_slopes(dB, n_columns, words, seen, Q, d_keys)
        path_slopes(dQ, n_columns, words, seen, queries, dB)
        _add(to_add, of_below)


@ordered_kernel
def first_layer_slopes(slots, n_columns, A, dC, dP, dS):
    """Steps 4 and 3 of layer 1 in reverse."""
    fold_backward(dC, slots, n_columns, dS)
    softmax_backward(A, dS, dP)


@ordered_kernel
def add_first_layer(outputs, all_tokens, R, dO, dS, tables, dW):
    """dW_O[x_t, :] += R_t and d(M_S W_O)[words[u], :] += dO_S[u, :], in ``tables``, and dW_1[x_t, x_j] += dS_tj."""
    tokens, words, _ = outputs
    scatter_rows(tables[:1], tokens, np.expand_dims(R, 0))
    scatter_paths(tables, words, dO)
    scatter_scores(dW, all_tokens, dS)


@ordered_kernel
def add_next_layer(sequence, dQ, d_queries, d_keys, fixed, queries, keys):
    """dW_l[x_t, :] += dQ_t,  d(M_S W_l)[words[u], :] += d_queries_S[u, :],  and so with dM_S unless ``fixed``."""
    tokens, words, _ = sequence
    scatter_rows(queries[:1], tokens, np.expand_dims(dQ, 0))
    scatter_paths(queries, words, d_queries)
    if not fixed:
        scatter_paths(keys, words, d_keys)


@ordered_kernel
def _add(rows, to):
    """to += rows."""
    for t in range(len(rows)):
        row, sums = rows[t], to[t]
        for k in range(row.size):
            sums[k] += row[k]


# ------------------------------------------------------------------------------ products with the rows of paths' tables


@ordered_kernel
def _of_paths(words, n_columns, n_paths, n_vocab):
    """Columns S K + u of C, and rows S V + words[u] of all tables seen as one, for the paths S != {}; u is slow."""
    columns = np.empty(words.size * (n_paths - 1), np.int64)
    rows = np.empty_like(columns)
    k = 0
    for u in range(words.size):
        for S in range(1, n_paths):
            columns[k], rows[k] = S * n_columns + u, S * n_vocab + words[u]
            k += 1
    return columns, rows


@ordered_kernel
def path_rows(C, n_columns, words, seen, tables, out):
    """out[t, :] = sum over the paths S != {} and over u < seen[t] of C[t, S K + u] tables[S, words[u], :]."""
    n_paths, n_vocab, _ = tables.shape
    columns, rows = _of_paths(words, n_columns, n_paths, n_vocab)
    last = seen * (n_paths - 1)
    mix(C, columns, rows, 0 * last, last, tables.reshape(n_paths * n_vocab, -1), out)


@ordered_kernel
def path_slopes(R, n_columns, words, seen, tables, dC):
    """dC[t, S K + u] = R[t, :] . tables[S, words[u], :] for the paths S != {} and u < seen[t].

    It is some finite number for other u < U, and 0 in the other columns of the tables' paths.
    """
    n_paths, n_vocab, _ = tables.shape
    columns, rows = _of_paths(words, n_columns, n_paths, n_vocab)
    dC[:, :n_paths * n_columns] = 0.0
    dots(R, columns, rows, seen * (n_paths - 1), tables.reshape(n_paths * n_vocab, -1), dC)


@ordered_kernel
def path_word_slopes(C, n_columns, words, seen, R, D):
    """D[u, S - 1, :] = sum over t of C[t, S K + u] R[t, :] for the paths S != {}; C is 0 where u >= seen[t]."""
    n_words, n_paths, n_vocab = D.shape[0], D.shape[1] + 1, D.shape[2]
    columns, _ = _of_paths(words, n_columns, n_paths, 0)
    factors, since = np.empty((columns.size, seen.size), C.dtype), np.empty(columns.size, np.int64)
    first = 0
    for k in range(columns.size):
        for t in range(seen.size):
            factors[k, t] = C[t, columns[k]]
        while first < seen.size and seen[first] <= k // (n_paths - 1):
            first += 1
        since[k] = first
    positions, every = np.arange(seen.size), np.full(columns.size, seen.size)
    mix(factors, positions, positions, since, every, R, D.reshape(n_words * (n_paths - 1), n_vocab))
