"""A batch is cut into blocks of sequences; a block says who attends to what, and which answers are expected.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K answers, U distinct tokens.

A block is one of two kinds, which differ in what a key is:

===============  ===================================================  ================================================
Positions        keys are positions                                   the order of the tokens matters
Bags             keys are distinct tokens, with the mass of copies    it does not matter: equal tokens act alike
===============  ===================================================  ================================================
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minitx.data.batch import Batch
from minitx.model import kernels, product_kernels
from minitx.model.parameters import Array, or_empty

BLOCK_BYTES = 2 << 20  # What a block hands to the tables, within the last cache. A constant: all machines cut alike.


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of a block's queries, to its keys and to its distinct tokens: several keys may hold the same token."""

    A: Array  # (S, M, T or U) row = query, column = key; rows sum to 1, or are 0 where they are padding
    slots: Array  # (S, T or U) number of the key's token among the distinct ones
    C: Array  # (S, M, U) row = query, column = distinct token; the sum of A over the keys that hold it
    words: Array  # (S, U) the distinct tokens
    seen: Array  # (S, M) how many words a query can attend to

    def row_slopes(self, R: Array, table: Array) -> Array:
        """dC[s, m, u] = R[s, m, :] . table[words[s, u], :], (S, M, U); some number where a query cannot attend."""
        return product_kernels.row_slopes(R, self.words, self.seen, table)


@dataclass(frozen=True, eq=False)
class Block:
    """S sequences: keys, queries that attend to the keys, and answers that are expected of the queries.

    Rows are padded. A query may have several answers: a bag's query stands for all loss positions that hold its token.
    """

    head: str
    causal: bool  # a query attends to its own key and those before it, or to all
    rows: Array  # (S,) index of each sequence in the batch
    keys: Array  # (S, T or U) the key's token
    n_keys: Array  # (S,)
    mass: Array  # (S, T or U) floats of the tables' dtype
    slots: Array  # (S, T or U) number of the key's token among the distinct ones
    words: Array  # (S, U) the distinct tokens, in the order in which they appear
    n_words: Array  # (S,)
    queries: Array  # (S, M) index of the query among the keys
    current: Array  # (S, M) the query's token
    n_queries: Array  # (S,)
    asked: Array  # (S, K) number of the query that should give the answer, in increasing order
    positions: Array  # (S, K) position of the answer in its sequence
    targets: Array  # (S, K) the answer y
    weight: Array  # (S, K) float64; 0 marks padding
    n_answers: Array  # (S,)

    @property
    def sequences(self) -> tuple:
        """What attention is computed from, and the token of each query."""
        return self.keys, self.n_keys, self.mass, self.queries, self.n_queries, self.causal, self.current

    @property
    def distinct(self) -> tuple[Array, Array, Array, Array]:
        """Which distinct token a key holds, what these are, and which of them a query can attend to."""
        return self.slots, self.words, *self.seen_and_since

    @cached_property
    def answers(self) -> tuple[Array, Array, Array, Array, Array]:
        """The answers, and which of them each query has: see :func:`minitx.model.kernels.group_answers`."""
        of_query = kernels.group_answers(self.asked, self.targets, self.weight, self.n_answers, self.queries.shape[1])
        return self.targets, self.weight, *of_query

    @cached_property
    def seen_and_since(self) -> tuple[Array, Array]:
        """How many words a query can attend to, (S, M), and the first query that can attend to a word, (S, U)."""
        last = np.maximum.accumulate(self.slots, axis=1) if self.causal else self.n_words[:, None] - 1
        seen = _take(np.broadcast_to(last, self.keys.shape), self.queries) + 1
        seen[np.arange(seen.shape[1]) >= self.n_queries[:, None]] = 0  # padding
        seen = np.maximum.accumulate(seen, axis=1)
        return seen, (seen[:, :, None] <= np.arange(self.words.shape[1])).sum(axis=1)

    def attend(self, qk: Array | None, position: Array | None = None) -> Attention:
        """Attention under these tables (None: scores of 0), to keys and to distinct tokens."""
        dtype = self.mass.dtype
        A = kernels.attention_forward(self.keys, self.n_keys, self.mass, self.queries, self.n_queries, self.causal,
                                      or_empty(qk, 2, dtype), or_empty(position, 1, dtype))
        C = kernels.fold(A, self.slots, self.words.shape[1])
        return Attention(A, self.slots, C, self.words, self.seen_and_since[0])

    def cut(self, n_vocab: int) -> list:
        """Blocks of as many sequences as BLOCK_BYTES hold, without needless padding.

        If there are several, their sizes differ by at most one sequence, and their number is a multiple of 4 where
        there are enough sequences, so that each of 2 or 4 threads gets as many.
        """
        n_words, n_scores = int(self.n_words.max()), int(self.n_queries.max()) * int(self.n_keys.max())
        most = max(1, BLOCK_BYTES // (self.mass.itemsize * (2 * n_words * n_vocab + n_scores)))
        n = len(self.rows)
        n_blocks = -(-n // most)
        if n_blocks > 1:
            n_blocks = min(n, n_blocks + -n_blocks % 4)
        return [self._part(slice(n * i // n_blocks, n * (i + 1) // n_blocks)) for i in range(n_blocks)]

    WIDTHS: ClassVar[dict[str, tuple]] = {"n_keys": ("keys", "mass", "slots"), "n_words": ("words",),
                                          "n_queries": ("queries", "current"),
                                          "n_answers": ("asked", "positions", "targets", "weight")}

    def _part(self, rows):
        counts = {name: getattr(self, name)[rows] for name in self.WIDTHS}
        trimmed = {name: np.ascontiguousarray(getattr(self, name)[rows, :counts[count].max()])
                   for count, names in self.WIDTHS.items() for name in names}
        return replace(self, rows=self.rows[rows], **counts, **trimmed)


class Positions(Block):
    """Keys are positions, and every loss position is a query with one answer."""

    @classmethod
    def of(cls, batch: Batch, dtype: DTypeLike) -> "Positions":
        """All sequences of ``batch`` with a loss position, in order of their number of distinct tokens.

        Sequences of a block then need little padding.
        """
        rows, tokens, weight, mass, at, count = _loss_positions(batch)
        slots, words, n_words = kernels.distinct(tokens, batch.lengths[rows], int(tokens.max(initial=0)) + 1)
        found = cls(batch.head, bool(batch.causal), rows, keys=tokens, n_keys=batch.lengths[rows],
                    mass=mass.astype(dtype), queries=at, current=_take(tokens, at), n_queries=count, asked=_numbers(at),
                    positions=at, targets=_take(batch.targets[rows], at), weight=_take(weight, at), n_answers=count,
                    slots=slots, words=words, n_words=n_words)
        return found._part(np.argsort(n_words, kind="stable"))


class Bags(Block):
    """Keys are distinct tokens; a query is a distinct token at loss positions, with the answers of all of them."""

    @classmethod
    def of(cls, batch: Batch, dtype: DTypeLike, n_vocab: int) -> "Bags":
        """All sequences of ``batch`` that have a loss position; attention must not be causal."""
        rows, tokens, weight, mass, at, count = _loss_positions(batch)
        slots, keys, n_keys = kernels.distinct(tokens, batch.lengths[rows], n_vocab)
        query, queries, n_queries = kernels.distinct(_take(slots, at), count, slots.shape[1])
        # answers in the order of their queries, then of positions; padding comes last
        order = np.argsort(np.where(_numbers(at) < count[:, None], query, query.shape[1]), axis=1, kind="stable")
        positions = _take(at, order)
        found = cls(batch.head, False, rows, keys=keys, n_keys=n_keys,
                    mass=kernels.fold(mass[:, None], slots, slots.shape[1])[:, 0].astype(dtype), slots=_numbers(keys),
                    words=keys, n_words=n_keys, queries=queries,
                    current=_take(keys, queries), n_queries=n_queries, asked=_take(query, order), positions=positions,
                    targets=_take(batch.targets[rows], positions), weight=_take(weight, positions), n_answers=count)
        return found._part(np.argsort(n_keys, kind="stable"))


def blocks(batch: Batch, n_vocab: int, dtype: DTypeLike) -> list[Block]:
    """Cut ``batch`` for tables of V = ``n_vocab`` and ``dtype``; the cut depends on shapes and tokens only.

    Sequences without a loss position are left out.
    """
    whole = Positions.of(batch, dtype) if batch.causal else Bags.of(batch, dtype, n_vocab)
    return whole.cut(n_vocab)


def _loss_positions(batch):
    """Rows with a loss position, their tokens, weight and mass; their loss positions, padded by others; how many."""
    rows = np.flatnonzero(batch.weight.any(axis=1))
    tokens, weight = batch.tokens[rows], batch.weight[rows]
    inside = np.arange(tokens.shape[1]) < batch.lengths[rows, None]
    mass = inside.astype(np.float64) if batch.mass is None else batch.mass[rows]
    count = np.count_nonzero(weight, axis=1).astype(np.int32)
    at = np.argsort(weight == 0, axis=1, kind="stable")[:, :count.max()].astype(np.int32)
    return rows, tokens, weight, mass, at, count


def _numbers(rows):
    """0, 1, 2, ... in each row."""
    return np.tile(np.arange(rows.shape[1], dtype=np.int32), (len(rows), 1))


def _take(array, at):
    return np.take_along_axis(array, at, axis=1)
