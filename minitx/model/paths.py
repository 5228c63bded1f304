"""A model of several layers as a sum over paths: every path is a lookup in tables of V x V, summed over the words.

Legend: L layers, T positions, V vocabulary; of a sequence: U words (its distinct tokens), M loss positions. Of a layer
l: g = 2^(l-1) paths through the layers below it.

A path is a set S of layers through whose attention it leads (a virtual attention head). For S = {s1 < ... < sk},
C_S = A_sk ... A_s1 X (T, U) says how much of each word it brings to a position, and M_S = V_s1 ... V_sk (V, V) what a
word has become on its way. The stream is h_l = sum over the paths S through layers 1 to l of C_S M_S, with M_S in the
rows of the words. The steps, of which :func:`follow` takes 1 to 4, :func:`forward` 5 and 6, and :func:`backward` all in
reverse:

    0  tables M_S W_O, M_S W_l and M_S V_l of the paths through all layers, and through those below l
    1  C_{}[t, u] = 1(word u stands at t)
    2  B_l = h_(l-1) W_l M^T (T, g U), where M holds M_S[u, :] for all paths S below l and all words u
    3  A_l = softmax over j <= t of S_l,  S_l[t, j] = sum over S of B_l C_S^T + P_l[t - j];  S_1 = W_1[x_t, x_j] + ...
    4  C_(S+l) = A_l C_S
    5  F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)
    6  loss = sum_t weight_t (-log softmax(F_t)[y_t])

Paths are numbered in binary, layer l being the bit of value 2^(l-1). An array (T, 2^L U) of all paths holds C_S in the
columns S U to (S + 1) U, so that the paths below a layer are the first g U columns, and those through it the next g U.

Words are numbered in the order in which they appear, and attention is causal, so C_S[t, u] is 0 and B_l[t, u] is not
needed for the words u that appear after position t. The products with rows of tables (product_kernels) skip these, 43%
of the multiplications on stories. The list of C_{}, whose rows are one-hot, is never multiplied by a table.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from minitx.base.parallel import matmul, one_blas_thread, workers
from minitx.data.batch import Batch
from minitx.model import kernels, layer_kernels, path_kernels
from minitx.model.parameters import Array

if TYPE_CHECKING:
    from minitx.model.layers import LayeredWeights


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


@lru_cache(maxsize=1)
def sequences(batch: Batch) -> list[Sequence]:
    """The sequences of ``batch`` that have a loss position; most steps of a descent are on the batch of the last."""
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
                    batch.weight[row, at])


class Space(threading.local):
    """Memory of a sequence, taken by name; the next one takes the same memory again. Every thread has its own."""

    def __init__(self, dtype):
        self.dtype, self._memory = dtype, {}

    def take(self, name, *shape):
        """An array of this shape, with any entries."""
        size = prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, self.dtype)
        return self._memory[name][:size].reshape(shape)


@dataclass(frozen=True, eq=False)
class Cache:
    """What :func:`follow` leaves for :func:`backward`. Lists run over the layers; layer 1 has no B and Q."""

    C: Array  # (T, 2^L U)
    A: list  # (T, T)
    B: list  # (T, g U), with any numbers at words that have not appeared
    Q: list  # (T, V) h_(l-1) W_l


@one_blas_thread()
def follow(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space, uniform: bool = False) -> Cache:
    """Steps 1 to 4: attention and paths of one sequence; ``uniform``: attention is uniform over the prefix instead."""
    n_layers, T, U = len(weights.V), len(seq.tokens), len(seq.words)
    # 1  C_{}[t, u] = 1(word u stands at t)
    C = space.take("C", T, 2**n_layers * U)
    layer_kernels.one_hot(seq.slots, U, C)
    cache = Cache(C, [], [None], [None])
    for l in range(1, n_layers + 1):
        paths = 2**(l - 1) * U
        A, below = space.take(f"A {l}", T, T), C[:, :paths]
        if l == 1:
            layer_kernels.lookup_scores(seq.tokens, weights.W[0], A)
        else:
            # 2  B_l = Q_l M^T,  Q_l = h_(l-1) W_l = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l)
            Q, B = space.take(f"Q {l}", T, len(weights.W_O)), space.take(f"B {l}", T, paths)
            path_kernels.path_rows(C, seq.words, seq.seen, tables.queries[l], Q)
            layer_kernels.add_gathered_rows(weights.W[l - 1], seq.tokens, Q)
            path_kernels.path_slopes(Q, seq.words, seq.seen, tables.keys[:2**(l - 1)], B)
            layer_kernels.gather_columns(Q, seq.words, B)
            cache.B.append(B)
            cache.Q.append(Q)
            # 3  S_l[t, j] = sum over S of B_l C_S^T
            np.matmul(B, below.T, out=A)
        # 3  A_l = softmax over j <= t of S_l + P_l[t - j]
        if uniform:
            layer_kernels.uniform_attention(A)
        else:
            layer_kernels.softmax_forward(A, weights.P[l - 1])
        cache.A.append(A)
        # 4  C_(S+l) = A_l C_S, where C_{} is one-hot
        if l == 1:
            layer_kernels.fold(A, seq.slots, U, C)
        else:
            np.matmul(A, below, out=C[:, paths:2 * paths])
    return cache


def output(weights: "LayeredWeights", tables: Tables, seq: Sequence, cache: Cache, space: Space) -> Array:
    """Step 5: F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O), at the loss positions, (M, V)."""
    F = space.take("F", len(seq.targets), len(weights.W_O))
    path_kernels.path_rows(cache.C[seq.at], seq.words, seq.seen[seq.at], tables.output, F)
    layer_kernels.add_gathered_rows(weights.W_O, seq.tokens[seq.at], F)
    return F


def forward(weights: "LayeredWeights", tables: Tables, seq: Sequence, cache: Cache, space: Space
            ) -> tuple[float, Array]:
    """Steps 5 and 6: the loss of one sequence, and R = dL/dF at its loss positions, (M, V)."""
    F = output(weights, tables, seq, cache, space)
    # 6  loss = sum_t weight_t (-log softmax(F_t)[y_t]); in place, F becomes R
    return kernels.residuals(F, seq.targets, seq.weight), F


@dataclass(frozen=True, eq=False)
class Pieces:
    """Derivatives of one sequence, before they are added to the tables."""

    R: Array  # (M, V) of W_O[x_t, :]
    output: Array  # (U, 2^L - 1, V) of M_S W_O, in the rows of the words, for S != {}
    dQ: dict  # {l: (T, V)} of W_l[x_t, :]
    queries: dict  # {l: (U, g - 1, V)} of M_S W_l
    keys: dict  # {l: (U, g - 1, V)} of M_S, by the scores of layer l
    dS: Array  # (T, T) of layer 1
    dP: Array  # (L, T)


@one_blas_thread()
def backward(weights: "LayeredWeights", tables: Tables, seq: Sequence, cache: Cache, R: Array, space: Space,
             fixed: bool = False) -> Pieces:
    """The steps in reverse, for R = dL/dF at the loss positions.

    ``fixed``: attention is held fixed, so that no slope flows through the scores to the paths below.
    """
    C, n_layers, T, U = cache.C, len(weights.V), len(seq.tokens), len(seq.words)
    # 5  F_t = W_O[x_t, :] + sum over S != {} of C_S O_S:  dC_S = R O_S^T,  dO_S = C_S^T R,  and dW_O[x_t, :] takes R_t
    dO, dC, seen = space.take("dO", U, 2**n_layers - 1, len(weights.W_O)), space.take("dC", *C.shape), seq.seen[seq.at]
    path_kernels.path_word_slopes(C[seq.at], seq.words, seen, R, dO)
    if len(R) == T:
        path_kernels.path_slopes(R, seq.words, seen, tables.output, dC)
    else:
        dC[:] = 0
        some = space.take("dC at some", len(R), dC.shape[1])
        path_kernels.path_slopes(R, seq.words, seen, tables.output, some)
        dC[seq.at, U:] = some[:, U:]
    pieces = Pieces(R, dO, {}, {}, {}, space.take("dS 1", T, T), np.zeros((n_layers, T)))
    for l in range(n_layers, 0, -1):
        A, paths = cache.A[l - 1], 2**(l - 1) * U
        below, dnew = C[:, :paths], dC[:, paths:2 * paths]
        # 4  C_(S+l) = A_l C_S:  dA_l = sum over S of dC_(S+l) C_S^T,  dC_S += A_l^T dC_(S+l)
        dS = space.take(f"dS {l}", T, T)
        if l == 1:
            layer_kernels.fold_backward(dC, seq.slots, U, dS)
        else:
            np.matmul(dnew, below.T, out=dS)
        # 3  A_l = softmax(S_l)
        layer_kernels.softmax_backward(A, dS, pieces.dP[l - 1])
        if l > 1:  # C_{} is one-hot, so its slope is not needed
            dbelow = space.take("dbelow", T, paths - U)
            dC[:, U:paths] += np.matmul(A.T, dnew[:, U:], out=dbelow)
            if not fixed:  # 3  S_l = sum over S of B_l C_S^T:  dC_S += dS^T B_l
                dC[:, U:paths] += np.matmul(dS.T, cache.B[l - 1][:, U:], out=dbelow)
            # 3  dB_l = dS C
            dB = np.matmul(dS, below, out=space.take("dB", T, paths))
            _backward_queries(tables, seq, cache, dB, dC, pieces, space, l, fixed)
    return pieces


def _backward_queries(tables, seq, cache, dB, dC, pieces, space, l, fixed):
    """Step 2 in reverse: the slope of B_l is carried to the tables and, unless attention is held fixed, to C_S."""
    words, seen, Q = seq.words, seq.seen, cache.Q[l - 1]
    keys, queries, U, n_vocab = tables.keys[:2**(l - 1)], tables.queries[l], len(words), Q.shape[1]
    # B = Q M^T:  dQ = dB M, where M_{} is the identity,  dM = dB^T Q
    dQ = space.take(f"dQ {l}", *Q.shape)
    path_kernels.path_rows(dB, words, seen, keys, dQ)
    layer_kernels.add_columns(dB, words, dQ)
    # Q_t = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l):  d(M_S W_l) = C_S^T dQ,  dC_S = dQ (M_S W_l)^T
    slopes = space.take(f"dqueries {l}", U, len(queries) - 1, n_vocab)
    path_kernels.path_word_slopes(cache.C, words, seen, dQ, slopes)
    pieces.dQ[l], pieces.queries[l] = dQ, slopes
    if not fixed:
        pieces.keys[l] = space.take(f"dkeys {l}", *slopes.shape)
        path_kernels.path_word_slopes(dB, words, seen, Q, pieces.keys[l])
        dbelow = space.take("dbelow", *dB.shape)
        path_kernels.path_slopes(dQ, words, seen, queries, dbelow)
        dC[:, U:dB.shape[1]] += dbelow[:, U:]


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
    space, losses = Space(weights.W_O.dtype), []

    def loss_and_pieces(seq):
        loss, cache, R = (slopes or exact_slopes)(weights, tables, seq, space)
        return loss, seq, backward(weights, tables, seq, cache, R, space, fixed)

    def add(computed):
        loss, seq, pieces = computed
        losses.append(loss)
        _add(seq, pieces, gradient, found)

    with workers(len(seqs)) as run:
        run.in_turn(loss_and_pieces, add, seqs)
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
    space = Space(weights.W_O.dtype)
    with workers(len(seqs)) as run:
        return float(np.sum(run(lambda seq: exact_slopes(weights, tables, seq, space)[0], seqs)))


def exact_slopes(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space) -> tuple[float, Cache, Array]:
    """Loss, paths and R = dL/dF of the model as it is."""
    cache = follow(weights, tables, seq, space)
    loss, R = forward(weights, tables, seq, cache, space)
    return loss, cache, R


def _add(seq, pieces, gradient, found):
    """Add what a sequence brings to the gradient's tables."""
    tokens, words = seq.tokens, seq.words
    layer_kernels.scatter_rows(gradient.output[:1], tokens[seq.at], pieces.R[None])
    layer_kernels.scatter_paths(gradient.output, words, pieces.output)
    layer_kernels.scatter_scores(found["W"][0], tokens, pieces.dS)
    for l, family in gradient.queries.items():
        layer_kernels.scatter_rows(family[:1], tokens, pieces.dQ[l][None])
        layer_kernels.scatter_paths(family, words, pieces.queries[l])
    for rows in pieces.keys.values():
        layer_kernels.scatter_paths(gradient.keys, words, rows)
    found["P"][:, :len(tokens)] += pieces.dP
