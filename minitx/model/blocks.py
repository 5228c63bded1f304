"""A batch cut into blocks of sequences, computed in threads, and added to tables in a fixed order.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K loss positions, U distinct tokens.
"""

from dataclasses import dataclass, replace

import numpy as np

from minitx.base import parallel
from minitx.model import kernels

BLOCK_BYTES = 4 << 20  # working set of a block: about one core's cache. Fixed, so that the bits are
WAVE = 8  # blocks computed before what they add is added to the tables
SLAB = 512  # columns of a table that one thread adds to at a time
JOINED = 8  # sequences without order are joined when the vocabulary is at most so many times their distinct tokens
PARTS = 2  # least number of blocks of joined sequences


@dataclass(frozen=True, eq=False)
class Block:
    """S sequences and their loss positions: keys, queries that attend to them, answers that are expected of the queries.

    Causal: keys are the positions 0..T-1, every loss position is a query with one answer. Otherwise the order of a sequence says
    nothing, nor who of several equal tokens asks: keys are the distinct tokens with the mass of all their copies, queries the
    distinct tokens at loss positions, each with the answers of all its copies. Padding: up to the largest U, M and K of the block.
    Where the vocabulary is small, such sequences are joined to one long sequence (S = 1), whose keys are all V tokens and whose
    queries are those of all; ``bags`` says which keys are whose. Its products are large and without padding.
    Sequences under the head ``log``, which has no products, are not joined.
    """

    rows: np.ndarray  # (S,) index of each sequence in the batch
    keys: np.ndarray  # (S, T or U) tokens
    n_keys: np.ndarray  # (S,)
    mass: np.ndarray  # (S, T or U) floats, or empty: all 1
    causal: bool
    head: str
    queries: np.ndarray  # (S, M) index of the query among the keys
    current: np.ndarray  # (S, M) the query's token
    n_queries: np.ndarray  # (S,)
    asked: np.ndarray  # (S, K) number of the query that an answer is expected of, in increasing order
    positions: np.ndarray  # (S, K) where in the sequence
    targets: np.ndarray  # (S, K) y
    weight: np.ndarray  # (S, K) 0: padding
    n_answers: np.ndarray  # (S,)
    bags: tuple | None = None  # of joined sequences: owner (Q,) of each query, and their keys (S', U), n_keys (S',), mass (S', U)


def blocks(batch, circuits, *, joined=True):
    """Cut ``batch`` into Blocks, whose sizes depend on shapes and tokens only. Sequences without a loss position are left out."""
    rows, n_vocab, itemsize = np.flatnonzero(batch.weight.any(axis=1)), circuits.n_vocab, circuits.ov.itemsize
    whole = _positions(batch, rows) if batch.causal else _bags(batch, rows, n_vocab)
    n_queries, n_keys = whole["n_queries"].max(), whole["n_keys"].max()
    size = max(1, BLOCK_BYTES // int(itemsize * (n_queries + n_keys) * (n_vocab + n_keys)))
    joined = joined and not batch.causal and batch.head != "log" and n_vocab <= JOINED * n_keys
    if joined:
        size = max(1, min(BLOCK_BYTES // int(2 * itemsize * n_vocab * whole["n_queries"].mean()), -(-len(rows) // PARTS)))
    found = [_block(batch, rows[start:start + size], {name: array[start:start + size] for name, array in whole.items()},
                    circuits.ov.dtype) for start in range(0, len(rows), size)]
    return [_joined(block, n_vocab) for block in found] if joined else found


def _block(batch, rows, parts, dtype):
    """The Block of ``rows``, from its rows of :func:`_positions` or :func:`_bags`, without needless padding."""
    width = {"keys": "n_keys", "mass": "n_keys", "queries": "n_queries", "asked": "n_answers", "positions": "n_answers"}
    parts = {name: np.ascontiguousarray(array[:, :parts[width[name]].max()]) if name in width else array
             for name, array in parts.items()}
    parts["mass"] = parts["mass"].astype(dtype, copy=False)
    own = np.arange(parts["asked"].shape[1]) < parts["n_answers"][:, None]

    def gather(array, at):
        return np.ascontiguousarray(np.take_along_axis(array, at, axis=1))

    return Block(rows=rows, causal=batch.causal, head=batch.head, current=gather(parts["keys"], parts["queries"]),
                 targets=gather(batch.targets[rows], parts["positions"]),
                 weight=np.where(own, gather(batch.weight[rows], parts["positions"]), 0.0), **parts)


def _joined(block, n_vocab):
    """The sequences of a Block without order as one, see :class:`Block`."""
    own = [np.arange(array.shape[1]) < count[:, None] for array, count in ((block.queries, block.n_queries),
                                                                          (block.asked, block.n_answers))]
    owner = np.nonzero(own[0])[0]
    asked = block.asked + (np.cumsum(block.n_queries) - block.n_queries)[:, None]
    queries = block.current[own[0]][None]
    return replace(block, keys=np.arange(n_vocab, dtype=np.int32)[None], n_keys=np.array([n_vocab], np.int32), queries=queries,
                   current=queries, n_queries=np.array([len(owner)], np.int32), asked=asked[own[1]].astype(np.int32)[None],
                   positions=block.positions[own[1]][None], targets=block.targets[own[1]][None],
                   weight=block.weight[own[1]][None], n_answers=np.array([own[1].sum()], np.int32),
                   bags=(owner.astype(np.int32), block.keys, block.n_keys, block.mass))


def _positions(batch, rows):
    """Keys, queries and answers of causal sequences: positions, in order."""
    weight = batch.weight[rows]
    count = np.count_nonzero(weight, axis=1).astype(np.int32)
    # loss positions first, in order; the zero-weight ones behind them are the padding
    positions = np.argsort(weight == 0, axis=1, kind="stable").astype(np.int32)
    mass = np.empty((len(rows), 0)) if batch.mass is None else batch.mass[rows]
    numbers = np.tile(np.arange(weight.shape[1], dtype=np.int32), (len(rows), 1))
    return {"keys": batch.tokens[rows], "n_keys": batch.lengths[rows], "mass": mass, "queries": positions, "n_queries": count,
            "asked": numbers, "positions": positions, "n_answers": count}


def _bags(batch, rows, n_vocab):
    """Keys, queries and answers of sequences without order: distinct tokens."""
    tokens, lengths = batch.tokens[rows], batch.lengths[rows]
    slots, keys, queries, asked, positions = np.zeros((5, *tokens.shape), np.int32)
    n_queries, n_answers = np.zeros((2, len(rows)), np.int32)
    mass = np.zeros(tokens.shape)
    n_keys = kernels.distinct(tokens, lengths, n_vocab, slots, keys)
    kernels.bags(slots, lengths, np.empty((0, 0)) if batch.mass is None else batch.mass[rows], batch.weight[rows],
                 mass, queries, n_queries, asked, positions, n_answers)
    return {"keys": keys, "n_keys": n_keys, "mass": mass, "queries": queries, "n_queries": n_queries,
            "asked": asked, "positions": positions, "n_answers": n_answers}


def run_blocks(circuits, batch, compute, tables):
    """``compute(block) -> (loss, [Pieces, ...])`` for every block, in threads; add the k-th Pieces to ``tables[k]``, Sums.

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


@dataclass
class Sums:
    """Tables that :func:`run_blocks` adds to, C-contiguous: those of a Circuits, which cannot be written to. None: absent."""

    direct: np.ndarray | None = None
    ov: np.ndarray | None = None
    qk: np.ndarray | None = None
    position: np.ndarray | None = None
    bias: np.ndarray | None = None


def _add(slab, done):
    """Add the rows' columns ``slab`` of all pieces, in order; the scores when ``slab`` is None."""
    for block, piece, table in done:
        if slab is None:
            if piece.dscore is not None and not (table.qk is None and table.position is None):
                kernels.add_scores(block.keys, block.queries, piece.dscore, *present(table, "qk", "position"))
            continue
        if piece.R is not None and table.direct is not None:
            kernels.scatter_rows(table.direct, block.current, block.n_queries, piece.scale, piece.R, *slab)
        if piece.R is not None and table.bias is not None:
            kernels.scatter_rows(table.bias[None], np.zeros_like(block.current), block.n_queries, piece.scale, piece.R, *slab)
        if piece.D is not None:
            ones = np.ones(piece.words.shape, piece.D.dtype)
            kernels.scatter_rows(table.ov, piece.words, piece.n_words, ones, piece.D, *slab)


def present(tables, *names):
    """Tables of Circuits or Sums for a kernel: an absent one is an empty array of the same number of dimensions.

    It is read-only if the others are, because numba compiles a kernel once for read-only arrays and once more for others.
    """
    found = []
    for name in names:
        table = getattr(tables, name)
        if table is None:
            table = np.empty((0,) * (1 if name in ("position", "bias") else 2), tables.ov.dtype)
            table.flags.writeable = tables.ov.flags.writeable
        found.append(table)
    return found
