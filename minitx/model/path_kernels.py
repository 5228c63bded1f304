"""Products of the small matrices of one sequence with the tables of paths (paths.py), in the tiles of product_kernels.

Legend: T positions, V vocabulary, S paths; of a sequence: U words (distinct tokens).
"""

import numpy as np

from minitx.base.compiling import ordered_kernel
from minitx.model.product_kernels import dots, mix


@ordered_kernel
def _of_paths(words, n_paths, n_vocab):
    """Columns S U + u of C, and rows S V + words[u] of all tables seen as one, for the paths S != {}; u is slow."""
    columns = np.empty(words.size * (n_paths - 1), np.int64)
    rows = np.empty_like(columns)
    k = 0
    for u in range(words.size):
        for S in range(1, n_paths):
            columns[k], rows[k] = S * words.size + u, S * n_vocab + words[u]
            k += 1
    return columns, rows


@ordered_kernel
def path_rows(C, words, seen, tables, out):
    """out[t, :] = sum over the paths S != {} and over u < seen[t] of C[t, S U + u] tables[S, words[u], :]."""
    n_paths, n_vocab, _ = tables.shape
    columns, rows = _of_paths(words, n_paths, n_vocab)
    last = seen * (n_paths - 1)
    mix(C, columns, rows, np.zeros_like(last), last, tables.reshape(n_paths * n_vocab, -1), out)


@ordered_kernel
def path_slopes(R, words, seen, tables, dC):
    """dC[t, S U + u] = R[t, :] . tables[S, words[u], :] for the paths S != {} and u < seen[t].

    It is some finite number for other u.
    """
    n_paths, n_vocab, _ = tables.shape
    columns, rows = _of_paths(words, n_paths, n_vocab)
    dC[:, words.size:n_paths * words.size] = 0.0
    dots(R, columns, rows, seen * (n_paths - 1), tables.reshape(n_paths * n_vocab, -1), dC)


@ordered_kernel
def path_word_slopes(C, words, seen, R, D):
    """D[u, S - 1, :] = sum over t of C[t, S U + u] R[t, :] for the paths S != {}; C is 0 where u >= seen[t]."""
    n_words, n_paths, n_columns = D.shape[0], D.shape[1] + 1, D.shape[2]
    columns, _ = _of_paths(words, n_paths, 0)
    factors, since = np.empty((columns.size, seen.size), C.dtype), np.empty(columns.size, np.int64)
    first = 0
    for k in range(columns.size):
        for t in range(seen.size):
            factors[k, t] = C[t, columns[k]]
        while first < seen.size and seen[first] <= k // (n_paths - 1):
            first += 1
        since[k] = first
    positions, every = np.arange(seen.size), np.full(columns.size, seen.size)
    mix(factors, positions, positions, since, every, R, D.reshape(n_words * (n_paths - 1), n_columns))
