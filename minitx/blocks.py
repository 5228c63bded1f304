"""A batch cut into blocks of sequences, computed in threads, and added to tables in a fixed order.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M loss positions, U distinct tokens.
"""

from dataclasses import dataclass

import numpy as np

from minitx import kernels, parallel

BLOCK_BYTES = 4 << 20  # working set of a block: about one core's cache. Fixed, so that the bits are
WAVE = 8  # blocks computed before what they add is added to the tables
SLAB = 512  # columns of a table that one thread adds to at a time


@dataclass(frozen=True)
class Block:
    """S sequences and their loss positions, padded to the largest number M of these (weight 0)."""

    rows: np.ndarray  # (S,) index of each sequence in the batch
    tokens: np.ndarray  # (S, T)
    lengths: np.ndarray  # (S,)
    causal: bool
    head: str
    queries: np.ndarray  # (S, M) position t of each loss position
    current: np.ndarray  # (S, M) x_t
    targets: np.ndarray  # (S, M) y_t
    weight: np.ndarray  # (S, M)
    counts: np.ndarray  # (S,) number of loss positions


def blocks(batch, circuits):
    """Cut ``batch`` into Blocks, whose sizes depend on shapes only. Sequences without a loss position are left out."""
    n_queries = np.count_nonzero(batch.weight, axis=1)
    rows = np.flatnonzero(n_queries)
    length = batch.tokens.shape[1]
    sequence_bytes = 2 * circuits.ov.itemsize * n_queries.max() * (circuits.n_vocab + length)
    size = max(1, BLOCK_BYTES // sequence_bytes)
    return [_block(batch, rows[start:start + size], n_queries) for start in range(0, len(rows), size)]


def _block(batch, rows, n_queries):
    counts = n_queries[rows].astype(np.int32)
    weight = batch.weight[rows]
    # loss positions first, in order; the zero-weight ones behind them are the padding
    queries = np.argsort(weight == 0, axis=1, kind="stable")[:, :counts.max()]

    def gather(array):
        return np.ascontiguousarray(np.take_along_axis(array, queries, axis=1))

    tokens = batch.tokens[rows]
    return Block(rows, tokens, batch.lengths[rows], batch.causal, batch.head, queries.astype(np.int32), gather(tokens),
                 gather(batch.targets[rows]), gather(weight), counts)


def run_blocks(circuits, batch, compute, tables):
    """``compute(block) -> (loss, [Pieces, ...])`` for every block, in threads; add the k-th Pieces to ``tables[k]``, a Circuits.

    Blocks are computed in waves; after each, their rows are added by slabs of columns, every slab in the order of the blocks: the
    sums do not depend on the threads. Returns the losses, one a block.
    """
    todo = blocks(batch, circuits)
    n_vocab = circuits.n_vocab
    slabs = [(first, min(first + SLAB, n_vocab)) for first in range(0, n_vocab, SLAB)]
    losses = []
    with parallel.workers(len(todo)) as run:
        for start in range(0, len(todo), WAVE):
            wave = todo[start:start + WAVE]
            results = run(compute, wave)
            losses += [loss for loss, _ in results]
            done = [(block, piece, table) for block, (_, pieces) in zip(wave, results, strict=True)
                    for piece, table in zip(pieces, tables, strict=True)]
            run(lambda slab, done=done: _add(slab, done), [None, *slabs])
    return losses


@dataclass(frozen=True)
class Pieces:
    """What a block adds to the tables: dL/d table before the scatter. None: nothing.

    direct[x_t] += scale_t R_t;  ov[word u] += D_u;  qk[x_t, x_j] += dscore_tj;  position[t - j] += dscore_tj.
    """

    R: np.ndarray | None = None  # (S, M, V)
    scale: np.ndarray | None = None  # (S, M)
    D: np.ndarray | None = None  # (S, U, V)
    words: np.ndarray | None = None  # (S, U)
    n_words: np.ndarray | None = None  # (S,)
    dscore: np.ndarray | None = None  # (S, M, T)


def _add(slab, done):
    """Add the rows' columns ``slab`` of all pieces, in order; the scores when ``slab`` is None."""
    for block, piece, table in done:
        if slab is None:
            if piece.dscore is not None and not (table.qk is None and table.position is None):
                kernels.add_scores(block.tokens, block.queries, piece.dscore, *present(table, "qk", "position"))
            continue
        if piece.R is not None and table.direct is not None:
            kernels.scatter_rows(table.direct, block.current, block.counts, piece.scale, piece.R, *slab)
        if piece.R is not None and table.bias is not None:
            kernels.scatter_rows(table.bias[None], np.zeros_like(block.current), block.counts, piece.scale, piece.R, *slab)
        if piece.D is not None:
            ones = np.ones(piece.words.shape, piece.D.dtype)
            kernels.scatter_rows(table.ov, piece.words, piece.n_words, ones, piece.D, *slab)


def present(circuits, *names):
    """Tables for a kernel: an absent one is an empty array of the same number of dimensions."""
    found = []
    for name in names:
        table = getattr(circuits, name)
        if table is None:
            table = np.empty((0,) * (1 if name in ("position", "bias") else 2), circuits.ov.dtype)
        found.append(table)
    return found
