"""What blocks add to the gradient's tables, added in one order whatever the number of threads.

Legend: V vocabulary; of a block of S sequences: M queries, T keys, U distinct tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minitx.model import kernels
from minitx.model.blocks import Block
from minitx.model.parameters import Array

SLAB = 512  # Number of a table's columns that one thread adds to at a time; smaller slabs give work to more threads.


@dataclass(frozen=True, eq=False)
class Pieces:
    """A block's derivatives before they are scattered into the tables. What is None adds nothing.

    d_direct[x_t] += scale_t R_t, d_bias += scale_t R_t, d_ov[word u] += D_u, d_qk[x_t, x_j] += dscore_tj and
    d_position[t - j] += dscore_tj.
    """

    R: Array | None = None  # (S, M, V)
    scale: Array | None = None  # (S, M)
    D: Array | None = None  # (S, U, V)
    words: Array | None = None  # (S, U)
    n_words: Array | None = None  # (S,)
    dscore: Array | None = None  # (S, M, T)


def add_pieces(run: Callable, added: list[tuple[Block, Pieces, dict[str, Array]]]) -> None:
    """Add the pieces of each block to its tables {name of the circuit: writeable array}; a table may be absent.

    ``run`` is that of :func:`minitx.base.parallel.workers`. One thread adds the scores, and each of the others a slab
    of the columns of the V x V tables: no two threads write to the same place, and each adds in the order of ``added``.
    """
    n_vocab = max(table.shape[-1] for _, _, tables in added for name, table in tables.items() if name != "position")
    slabs = [(first, min(first + SLAB, n_vocab)) for first in range(0, n_vocab, SLAB)]
    run(lambda slab: _add_scores(added) if slab is None else _add_columns(added, *slab), [None, *slabs])


def _add_scores(added):
    for block, pieces, tables in added:
        if pieces.dscore is not None and ("qk" in tables or "position" in tables):
            qk = tables.get("qk", np.empty((0, 0), pieces.dscore.dtype))
            position = tables.get("position", np.empty(0, pieces.dscore.dtype))
            kernels.add_scores(block.keys, block.queries, pieces.dscore, qk, position)


def _add_columns(added, first, last):
    for block, pieces, tables in added:
        if "direct" in tables:
            kernels.scatter_rows(tables["direct"], block.current, block.n_queries, pieces.scale, pieces.R, first, last)
        if "bias" in tables:
            row = tables["bias"][None], np.zeros_like(block.current)
            kernels.scatter_rows(*row, block.n_queries, pieces.scale, pieces.R, first, last)
        if "ov" in tables:
            ones = np.ones(pieces.words.shape, pieces.D.dtype)
            kernels.scatter_rows(tables["ov"], pieces.words, pieces.n_words, ones, pieces.D, first, last)
