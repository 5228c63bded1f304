"""A batch is cut into blocks of sequences; a block says who attends to what, and which answers are expected.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K answers, U distinct tokens.

A block is one of three kinds, which differ in what a key is and in how attention is computed (``attend``):

===============  ===================================================  ================================================
Positions        keys are positions                                   the order of the tokens matters
Bags             keys are distinct tokens, with the mass of copies    it does not matter: equal tokens act alike
JoinedBags       all bags of the block in one sequence of V keys      as Bags, where the vocabulary is small
===============  ===================================================  ================================================
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minitx.base.parallel import one_blas_thread
from minitx.data.batch import Batch
from minitx.model import kernels, product_kernels
from minitx.model.parameters import Array, or_empty

BLOCK_BYTES = 2 << 20  # Working set of a block, about one core's cache. A constant, so that all machines cut alike.
JOINED_BYTES = 4 << 20  # The same for joined bags, whose products are larger.
JOINED = 8  # Bags are joined when V <= JOINED * (their distinct tokens); larger values join more often.
PARTS = 2  # Least number of blocks of joined bags, so that two threads have work.


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of a block's queries, to its keys and to its distinct tokens: several keys may hold the same token."""

    A: Array  # (S, M, T or U) row = query, column = key; rows sum to 1, or are 0 where they are padding
    slots: Array  # (S, T or U) number of the key's token among the distinct ones
    C: Array  # (S, M, U) row = query, column = distinct token; the sum of A over the keys that hold it
    words: Array  # (S, U) the distinct tokens
    n_words: Array  # (S,)
    seen: Array | None  # (S, M) how many words a query attends to; None: the words are all tokens, in their order
    since: Array | None  # (S, U) the first query that attends to the word; M if none does

    @one_blas_thread()
    def outputs(self, ov: Array, direct: Array, current: Array, bias: Array, out: Array) -> None:
        """``out`` becomes sum over u of C[s, m, u] ov[words[s, u], :], + direct[current[s, m], :] + bias. (S, M, V)

        An array of size 0 stands for an absent ``direct`` or ``bias``.
        """
        if self.seen is None:
            np.matmul(self.C, ov, out=out)
            product_kernels.add_rows(direct, current, bias, out)
        else:
            product_kernels.outputs(self.C, self.words, self.seen, ov, direct, current, bias, out)

    @one_blas_thread()
    def row_slopes(self, R: Array, table: Array) -> Array:
        """dC[s, m, u] = R[s, m, :] . table[words[s, u], :], (S, M, U); any number where a query does not attend."""
        if self.seen is None:
            return np.matmul(R, table.T)
        dC = np.zeros_like(self.C)  # what no query attends to is multiplied by 0, so it must be a number
        product_kernels.row_slopes(R, self.words, self.seen, table, dC)
        return dC

    @one_blas_thread()
    def word_slopes(self, C: Array, R: Array, D: Array) -> None:
        """``D`` becomes the sum over m of C[s, m, u] R[s, m, :], (S, U, V), for a C that is 0 where this one is."""
        if self.since is None:
            np.matmul(C.transpose(0, 2, 1), R, out=D)
        else:
            product_kernels.word_slopes(C, self.since, R, D)


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
    queries: Array  # (S, M) index of the query among the keys
    current: Array  # (S, M) the query's token
    n_queries: Array  # (S,)
    asked: Array  # (S, K) number of the query that should give the answer, in increasing order
    positions: Array  # (S, K) position of the answer in its sequence
    targets: Array  # (S, K) the answer y
    weight: Array  # (S, K) float64; 0 marks padding
    n_answers: Array  # (S,)

    @cached_property
    def answers(self) -> tuple[Array, Array, Array]:
        """Which answers each query has: see :func:`minitx.model.kernels.group_answers`."""
        return kernels.group_answers(self.asked, self.targets, self.weight, self.n_answers, self.queries.shape[1])

    def attend(self, qk: Array | None, position: Array | None = None) -> Attention:
        """Attention under these tables (None: scores of 0)."""
        raise NotImplementedError

    def softmax(self, qk: Array | None, position: Array | None) -> Array:
        """A_tj = mass_j exp(score_tj) / sum_k mass_k exp(score_tk), with score = qk[x_t, x_j] + position[t - j]."""
        dtype = self.mass.dtype
        return kernels.attention_forward(self.keys, self.n_keys, self.mass, self.queries, self.n_queries, self.causal,
                                         or_empty(qk, 2, dtype), or_empty(position, 1, dtype))

    def cut(self, n_vocab: int, size: int | None = None) -> list:
        """Blocks of ``size`` sequences, by default as many as BLOCK_BYTES hold, without needless padding."""
        if size is None:
            n_queries, n_keys = int(self.n_queries.max()), int(self.n_keys.max())
            size = max(1, BLOCK_BYTES // (self.mass.itemsize * (n_queries + n_keys) * (n_vocab + n_keys)))
        return [self._part(slice(start, start + size)) for start in range(0, len(self.rows), size)]

    WIDTHS: ClassVar[dict[str, tuple]] = {"n_keys": ("keys", "mass"), "n_queries": ("queries", "current"),
                                          "n_answers": ("asked", "positions", "targets", "weight")}

    def _part(self, rows):
        counts = {name: getattr(self, name)[rows] for name in self.WIDTHS}
        trimmed = {name: np.ascontiguousarray(getattr(self, name)[rows, :counts[count].max()])
                   for count, names in self.WIDTHS.items() for name in names}
        return replace(self, rows=self.rows[rows], **counts, **trimmed)


@dataclass(frozen=True, eq=False)
class Positions(Block):
    """Keys are positions, and every loss position is a query with one answer."""

    slots: Array  # (S, T) number of the key's token among the distinct ones
    words: Array  # (S, U) the distinct tokens in the order in which they appear
    n_words: Array  # (S,)

    WIDTHS: ClassVar[dict[str, tuple]] = {**Block.WIDTHS, "n_keys": ("keys", "mass", "slots"), "n_words": ("words",)}

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

    def attend(self, qk: Array | None, position: Array | None = None) -> Attention:
        """Attention to positions, then summed over the positions of each distinct token."""
        A = self.softmax(qk, position)
        C = kernels.fold(A, self.slots, self.words.shape[1])
        return Attention(A, self.slots, C, self.words, self.n_words, *self.seen_and_since)

    @cached_property
    def seen_and_since(self) -> tuple[Array, Array]:
        """How many words a query can attend to, (S, M), and the first query that can attend to a word, (S, U).

        Words are numbered in the order in which they appear.
        """
        last = np.maximum.accumulate(self.slots, axis=1) if self.causal else self.n_words[:, None] - 1
        seen = _take(np.broadcast_to(last, self.keys.shape), self.queries) + 1
        seen[np.arange(seen.shape[1]) >= self.n_queries[:, None]] = 0  # padding
        seen = np.maximum.accumulate(seen, axis=1)
        return seen, _since(seen, self.words.shape[1])


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
        return cls(batch.head, False, rows, keys=keys, n_keys=n_keys,
                   mass=kernels.fold(mass[:, None], slots, slots.shape[1])[:, 0].astype(dtype), queries=queries,
                   current=_take(keys, queries), n_queries=n_queries, asked=_take(query, order), positions=positions,
                   targets=_take(batch.targets[rows], positions), weight=_take(weight, positions), n_answers=count)

    def attend(self, qk: Array | None, position: Array | None = None) -> Attention:
        """Attention to distinct tokens, which are the keys."""
        A = self.softmax(qk, position)
        return Attention(A, _numbers(self.keys), A, self.keys, self.n_keys, *self.seen_and_since)

    @cached_property
    def seen_and_since(self) -> tuple[Array, Array]:
        """How many words a query can attend to, (S, M), and the first query that can attend to a word, (S, U)."""
        seen = np.repeat(self.n_keys[:, None], self.queries.shape[1], axis=1)
        return seen, _since(seen, self.keys.shape[1])


@dataclass(frozen=True, eq=False)
class JoinedBags(Bags):
    """Bags in one sequence (S = 1) whose keys are all V tokens: its products are large and need no padding."""

    bags: Bags  # those that are joined

    @classmethod
    def join(cls, bags: Bags, n_vocab: int) -> "JoinedBags":
        """Join all of ``bags``."""
        is_query = np.arange(bags.queries.shape[1]) < bags.n_queries[:, None]
        is_answer = np.arange(bags.asked.shape[1]) < bags.n_answers[:, None]
        asked = bags.asked + (np.cumsum(bags.n_queries) - bags.n_queries)[:, None]
        tokens = bags.current[is_query][None]
        return cls(bags.head, False, bags.rows, keys=np.arange(n_vocab, dtype=np.int32)[None],
                   n_keys=np.array([n_vocab], np.int32), mass=np.ones((1, n_vocab), bags.mass.dtype),
                   queries=tokens, current=tokens, n_queries=np.array([tokens.size], np.int32),
                   asked=asked[is_answer].astype(np.int32)[None], positions=bags.positions[is_answer][None],
                   targets=bags.targets[is_answer][None], weight=bags.weight[is_answer][None],
                   n_answers=np.array([is_answer.sum()], np.int32), bags=bags)

    def attend(self, qk: Array | None, position: Array | None = None) -> Attention:
        """Attention of each query to the tokens of its own bag."""
        bags, n_vocab = self.bags, self.keys.size
        A = kernels.join(bags.softmax(qk, None), bags.keys, bags.n_keys, bags.n_queries, n_vocab)
        return Attention(A, _numbers(self.keys), A, self.keys, self.n_keys, None, None)


def blocks(batch: Batch, n_vocab: int, dtype: DTypeLike) -> list[Block]:
    """Cut ``batch`` for tables of V = ``n_vocab`` and ``dtype``; the cut depends on shapes and tokens only.

    Sequences without a loss position are left out. Bags under the head ``log``, which has no products, are not joined.
    """
    if batch.causal:
        return Positions.of(batch, dtype).cut(n_vocab)
    bags = Bags.of(batch, dtype, n_vocab)
    if batch.head == "log" or n_vocab > JOINED * bags.n_keys.max():
        return bags.cut(n_vocab)
    fitting = JOINED_BYTES // int(2 * bags.mass.itemsize * n_vocab * bags.n_queries.mean())
    size = max(1, min(fitting, -(-len(bags.rows) // PARTS)))
    return [JoinedBags.join(part, n_vocab) for part in bags.cut(n_vocab, size)]


def _since(seen, n_words):
    """The first query that can attend to a word; the number of queries if none can. (S, U)"""
    return (seen[:, :, None] <= np.arange(n_words)).sum(axis=1)


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
