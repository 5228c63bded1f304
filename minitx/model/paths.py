"""A model of several layers as a sum over paths: every path is a lookup in tables of V x V, summed over the words.

Legend: L layers, T positions, V vocabulary; of a sequence: U words (its distinct tokens), M loss positions. Of a layer
l: g = 2^(l-1) paths through the layers below it.

A path is a set S of layers through whose attention it leads (a virtual attention head). For S = {s1 < ... < sk},
C_S = A_sk ... A_s1 X (T, U) says how much of each word it brings to a position, and M_S = V_s1 ... V_sk (V, V) what a
word has become on its way. The stream is h_l = sum over the paths S through layers 1 to l of C_S M_S, with M_S in the
rows of the words. :func:`build_tables` takes step 0, :func:`follow` 1 to 4, :func:`forward` 5 and 6; :func:`backward`
takes 5 to 2 in reverse, and :func:`pull_back` 0:

    0  tables M_S W_O, M_S W_l and M_S V_l of the paths through all layers, and through those below l
    1  C_{}[t, u] = 1(word u stands at t)
    2  B_l = h_(l-1) W_l M^T (T, g U), where M holds M_S[u, :] for all paths S below l and all words u
    3  A_l = softmax over j <= t of S_l,  S_l[t, j] = sum over S of B_l C_S^T + P_l[t - j];  S_1 = W_1[x_t, x_j] + ...
    4  C_(S+l) = A_l C_S
    5  F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)
    6  loss = sum_t weight_t (-log softmax(F_t)[y_t])

Paths are numbered in binary, layer l being the bit of value 2^(l-1). An array (T, 2^L U) of all paths holds C_S in the
columns S U to (S + 1) U, so that the paths below a layer are the first g U columns, and those through it the next g U.
In these arrays U is the number of words rounded up to a multiple of PADDED, so that every C_S is a whole number of
vector registers wide; a column that belongs to no word holds zeros.

Words are numbered in the order in which they appear, and attention is causal, so C_S[t, u] is 0 and B_l[t, u] is not
needed for the words u that appear after position t. The products with rows of tables (path_kernels) skip these, 43% of
the multiplications on stories; the products with a (T, T) array skip the keys that come after a query. C_{}, whose
rows are one-hot, is never multiplied by a table.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from minitx.base.parallel import matmul, workers
from minitx.data.batch import Batch
from minitx.model import kernels, path_kernels
from minitx.model.parameters import Array

if TYPE_CHECKING:
    from minitx.model.layers import LayeredWeights

PADDED = 8  # Words of a sequence are padded to a multiple of this, the float32 numbers of a vector register.


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables M_S W_O, M_S W_l and M_S, or their gradients; the table of path S is the S-th of an array.

    The table M_{} of ``keys``, the identity, is neither read nor written.
    """

    output: Array  # (2^L, V, V) M_S W_O
    queries: dict[int, Array]  # {l: (2^(l-1), V, V) M_S W_l}, for l = 2 to L
    keys: Array  # (2^(L-1), V, V) M_S

    @classmethod
    def empty(cls, weights: "LayeredWeights") -> "Tables":
        """Tables for ``weights``, with any entries."""
        n_layers, n_vocab = len(weights.V), len(weights.W_O)

        def tables(n):
            return np.empty((2**n, n_vocab, n_vocab), weights.W_O.dtype)
        return cls(tables(n_layers), {l: tables(l - 1) for l in range(2, n_layers + 1)}, tables(n_layers - 1))

    def families(self) -> list[Array]:
        """The tables M_S W_O, M_S W_l and M_S V_l, the last being the keys of the paths S + l; table 0 is that of {}.
        """
        return [self.output, *self.queries.values(), *(self.keys[n // 2:n] for n in map(len, self.queries.values()))]


def build_tables(weights: "LayeredWeights", used: Array) -> Tables:
    """Step 0. Tables whose lowest layer is 1 are computed in the rows of the tokens ``used`` only."""
    tables = Tables.empty(weights)
    for family, top in zip(tables.families(), [weights.W_O, *weights.W[1:], *weights.V[:-1]], strict=True):
        family[0] = top
        for b in range(_n_layers(family), 0, -1):
            # M_(b+S) top = V_b (M_S top), for the paths S through layers above b
            rows = _rows(used, b, len(top))
            for above, path in zip(family[::2**b], family[2**(b - 1)::2**b], strict=True):
                path[rows] = matmul(weights.V[b - 1][rows], above)
    return tables


def pull_back(weights: "LayeredWeights", tables: Tables, gradient: Tables, dV: Array, used: Array,
              fixed: bool = False) -> None:
    """Step 0 in reverse: carry the gradient of the tables to table 0 of every family, and that of V is added to ``dV``.

    ``fixed``: attention is held fixed, so that the scores, which read all families but the first, do not move V.
    """
    for family, slopes in zip(tables.families(), gradient.families(), strict=True):
        for b in range(1, _n_layers(family) + 1):
            # M_(b+S) top = V_b (M_S top):  dV_b += d(b+S) (M_S top)^T,  d(S) += V_b^T d(b+S)
            rows = _rows(used, b, len(dV[0]))
            for above, before, slope in zip(family[::2**b], slopes[::2**b], slopes[2**(b - 1)::2**b], strict=True):
                if not fixed or family is tables.output:
                    dV[b - 1][rows] += matmul(slope[rows], above.T)
                before += matmul(weights.V[b - 1][rows].T, slope[rows])
    for l in range(1, len(dV)):
        dV[l - 1] += gradient.keys[2**(l - 1)]


def _n_layers(family):
    """The number of layers through which the paths of these tables lead."""
    return len(family).bit_length() - 1


def _rows(used, b, n_vocab):
    """The rows that are computed where the lowest layer is b: all, unless a tenth of them is not read."""
    return used if b == 1 and 10 * len(used) < 9 * n_vocab else slice(None)


# ------------------------------------------------------------------------------------------------------------- sequence


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence, cut after its last loss position."""

    row: int  # its index in the batch
    tokens: Array  # (T,)
    slots: Array  # (T,) number of the position's word
    words: Array  # (U,) the distinct tokens in the order in which they appear
    seen: Array  # (T,) how many words have appeared by the position
    at: Array | slice  # (M,) the loss positions
    targets: Array  # (M,)
    weight: Array  # (M,) float64
    n_columns: int  # U, rounded up to a multiple of PADDED

    @property
    def inputs(self) -> tuple[Array, Array, Array]:
        """The tokens, the words and how many of them have appeared, of all positions."""
        return self.tokens, self.words, self.seen

    @cached_property
    def outputs(self) -> tuple[Array, Array, Array]:
        """The same of the loss positions."""
        return self.tokens[self.at], self.words, self.seen[self.at]


@lru_cache(maxsize=1)
def sequences(batch: Batch) -> list[Sequence]:
    """The sequences of ``batch`` that have a loss position, kept because most descents take all steps on one batch."""
    rows = np.flatnonzero(batch.weight.any(axis=1))
    lengths = np.array([np.flatnonzero(batch.weight[row])[-1] + 1 for row in rows], np.int32)
    tokens = batch.tokens[rows]
    slots, words, n_words = kernels.distinct(tokens, lengths, int(tokens.max()) + 1)
    return [_sequence(batch, row, tokens[i, :lengths[i]], slots[i, :lengths[i]], words[i, :n_words[i]])
            for i, row in enumerate(rows)]


def _sequence(batch, row, tokens, slots, words):
    at = np.flatnonzero(batch.weight[row])
    return Sequence(row, tokens, slots, words, np.maximum.accumulate(slots) + 1,
                    slice(None, len(at)) if len(at) == len(tokens) else at, batch.targets[row, at],
                    batch.weight[row, at], -(-len(words) // PADDED) * PADDED)


class Space(threading.local):
    """Memory for the arrays of one sequence, by name; the next sequence gets it again. Every thread has its own."""

    def __init__(self, dtype):
        self.dtype, self._memory, self._kept = dtype, {}, {}

    def take(self, name, *shape):
        """An array of this shape, with any entries."""
        size = prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, self.dtype)
            self._kept.clear()  # arrays that are kept may lie in the memory that was replaced
        return self._memory[name][:size].reshape(shape)

    def kept(self, arrays, *sizes):
        """``arrays(self, *sizes)``, kept for the next sequence of the same sizes."""
        if (arrays, sizes) not in self._kept:
            self._kept[arrays, sizes] = arrays(self, *sizes)
        return self._kept[arrays, sizes]


@dataclass(frozen=True, eq=False)
class Cache:
    """What :func:`follow` leaves for :func:`backward`. Lists run over the layers; layer 1 has no B and Q."""

    C: Array  # (T, 2^L U), U being padded
    A: list  # (T, T)
    B: list  # (T, g U), with any numbers at words that have not appeared
    Q: list  # (T, V) h_(l-1) W_l

    def of_layer(self, l):
        """C, A_l, B_l and Q_l."""
        return self.C, self.A[l - 1], self.B[l - 1], self.Q[l - 1]


def _cache(space, n_layers, n_vocab, T, K):
    """The arrays of a Cache, with any entries."""
    later = range(2, n_layers + 1)
    return Cache(space.take("C", T, 2**n_layers * K), [space.take(f"A {l}", T, T) for l in (1, *later)],
                 [None, *(space.take(f"B {l}", T, 2**(l - 1) * K) for l in later)],
                 [None, *(space.take(f"Q {l}", T, n_vocab) for l in later)])


def follow(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space, uniform: bool = False) -> Cache:
    """Steps 1 to 4: attention and paths of one sequence; ``uniform``: attention is uniform over the prefix instead."""
    K, cache = seq.n_columns, space.kept(_cache, *weights.V.shape[:2], len(seq.tokens), seq.n_columns)
    path_kernels.first_layer(seq.tokens, seq.slots, K, weights.W[0], weights.P[0], uniform, cache.C, cache.A[0])
    for l, queries in tables.queries.items():
        path_kernels.next_layer(seq.inputs, K, weights.W[l - 1], weights.P[l - 1], queries,
                                tables.keys[:len(queries)], uniform, *cache.of_layer(l))
    return cache


def output(weights: "LayeredWeights", tables: Tables, seq: Sequence, cache: Cache, space: Space) -> Array:
    """Step 5: F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O), at the loss positions, (M, V)."""
    F = space.take("F", len(seq.targets), len(weights.W_O))
    path_kernels.output(seq.outputs, seq.n_columns, weights.W_O, tables.output, cache.C[seq.at], F)
    return F


def forward(weights: "LayeredWeights", tables: Tables, seq: Sequence, cache: Cache, space: Space
            ) -> tuple[float, Array]:
    """Steps 5 and 6: the loss of one sequence, and R = dL/dF at its loss positions, (M, V)."""
    F = output(weights, tables, seq, cache, space)
    # 6  loss = sum_t weight_t (-log softmax(F_t)[y_t]); in place, F becomes R
    return kernels.residuals(F, seq.targets, seq.weight), F


@dataclass(frozen=True, eq=False)
class Slopes:
    """Derivatives of the arrays of a sequence. Those of C and B are needed by :func:`backward` only."""

    output: Array  # (U, 2^L - 1, V) of M_S W_O, in the rows of the words, for S != {}
    dC: Array  # (T, 2^L U)
    at_outputs: Array  # (M, 2^L U) what the outputs bring to dC at the loss positions
    dS: Array  # (T, T) of the scores of one layer after another, layer 1 being the last
    dB: dict  # {l: (T, g U)}
    dQ: dict  # {l: (T, V)} of W_l[x_t, :]
    queries: dict  # {l: (U, g - 1, V)} of M_S W_l
    keys: dict  # {l: (U, g - 1, V)} what the scores of layer l bring to the slope of M_S


def _slopes(space, n_layers, n_vocab, T, M, U, K):
    """The arrays of Slopes, with any entries."""
    def of_layers(name, shape):
        return {l: space.take(f"{name} {l}", *shape(2**(l - 1))) for l in range(2, n_layers + 1)}

    dC = space.take("dC", T, 2**n_layers * K)
    return Slopes(space.take("dO", U, 2**n_layers - 1, n_vocab), dC,
                  dC if M == T else space.take("dC at outputs", M, 2**n_layers * K), space.take("dS", T, T),
                  of_layers("dB", lambda g: (T, g * K)), of_layers("dQ", lambda g: (T, n_vocab)),
                  *(of_layers(name, lambda g: (U, g - 1, n_vocab)) for name in ("dqueries", "dkeys")))


def backward(tables: Tables, seq: Sequence, cache: Cache, R: Array, space: Space,
             fixed: bool = False) -> tuple[Slopes, Array]:
    """The steps in reverse, for R = dL/dF at the loss positions. Returns the slopes, and those of P, (L, T).

    ``fixed``: attention is held fixed, so that no slope flows through the scores to the paths below; then the slopes of
    the keys are not computed.
    """
    K, n_layers, n_positions = seq.n_columns, len(cache.A), len(seq.tokens)
    slopes = space.kept(_slopes, n_layers, R.shape[1], n_positions, len(R), len(seq.words), K)
    dC, dP = slopes.dC, np.zeros((n_layers, n_positions))
    path_kernels.output_slopes(seq.outputs, K, tables.output, cache.C[seq.at], R, slopes.output, slopes.at_outputs)
    if slopes.at_outputs is not dC:
        dC[:] = 0
        dC[seq.at] = slopes.at_outputs
    for l in range(n_layers, 1, -1):
        queries = tables.queries[l]
        path_kernels.next_layer_slopes(seq.inputs, K, queries, tables.keys[:len(queries)], fixed, cache.of_layer(l), dC,
                                       dP[l - 1], slopes.dS, slopes.dB[l], slopes.dQ[l], slopes.queries[l],
                                       slopes.keys[l])
    path_kernels.first_layer_slopes(seq.slots, K, cache.A[0], dC, dP[0], slopes.dS)
    return slopes, dP


# ------------------------------------------------------------------------------------------------------------ the batch


def path_gradient(weights: "LayeredWeights", batch: Batch, slopes: Callable | None = None,
                  fixed: bool = False) -> tuple[float, dict]:
    """Loss, and {parameter: dL/dparameter}, by the sum over paths; ``weights`` and ``batch`` must fit each other.

    ``slopes(weights, tables, sequence, space) -> (loss, Cache, R)`` says in which attention and for which R = dL/dF the
    gradient is taken; with ``fixed`` attention is held fixed. Default: those of the model, for the exact gradient.
    """
    seqs = sequences(batch)
    used = np.unique(np.concatenate([seq.words for seq in seqs]))
    tables = build_tables(weights, used)
    gradient = Tables.empty(weights)
    for array in (gradient.output, *gradient.queries.values(), gradient.keys):
        array.fill(0)  # np.zeros would take smaller pages of memory, which cost time at V = 3000
    found = {name: np.zeros_like(array) for name, array in weights.parameters().items()}
    # ``slopes`` may compute another loss of this batch, which uses the memory that is kept for the batch
    space = Space(weights.W_O.dtype) if slopes else _space(batch, weights.W_O.dtype)
    losses = []

    def loss_and_slopes(seq):
        loss, cache, R = (slopes or exact_slopes)(weights, tables, seq, space)
        return loss, seq, R, *backward(tables, seq, cache, R, space, fixed)

    def add(computed):
        loss, *of_sequence = computed
        losses.append(loss)
        _add(*of_sequence, gradient, found, fixed)

    with workers(len(seqs)) as run:
        run.in_turn(loss_and_slopes, add, seqs)
    with np.errstate(over="ignore", invalid="ignore"):
        pull_back(weights, tables, gradient, found["V"], used, fixed)
    found["W_O"][:] = gradient.output[0]
    for l, family in gradient.queries.items():
        found["W"][l - 1] = family[0]
    return float(np.sum(losses)), found


def path_loss(weights: "LayeredWeights", batch: Batch) -> float:
    """Loss by the sum over paths; ``weights`` and ``batch`` must fit each other."""
    seqs = sequences(batch)
    tables = build_tables(weights, np.unique(np.concatenate([seq.words for seq in seqs])))
    space = _space(batch, weights.W_O.dtype)
    with workers(len(seqs)) as run:
        return float(np.sum(run(lambda seq: exact_slopes(weights, tables, seq, space)[0], seqs)))


@lru_cache(maxsize=1)
def _space(batch, dtype):
    """Memory for the sequences of ``batch``, kept because most descents take all steps on one batch."""
    return Space(dtype)


def exact_slopes(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space) -> tuple[float, Cache, Array]:
    """Loss, paths and R = dL/dF of the model as it is."""
    cache = follow(weights, tables, seq, space)
    loss, R = forward(weights, tables, seq, cache, space)
    return loss, cache, R


def _add(seq, R, slopes, dP, gradient, found, fixed):
    """Add what a sequence brings to the gradient's tables."""
    path_kernels.add_first_layer(seq.outputs, seq.tokens, R, slopes.output, slopes.dS, gradient.output, found["W"][0])
    for l, family in gradient.queries.items():
        path_kernels.add_next_layer(seq.inputs, slopes.dQ[l], slopes.queries[l], slopes.keys[l], fixed, family,
                                    gradient.keys)
    found["P"][:, :dP.shape[1]] += dP
