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
from minitx.model import kernels, layer_kernels
from minitx.model.parameters import Array

if TYPE_CHECKING:
    from minitx.model.layers import LayeredWeights


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, eq=False)
class Family:
    """The tables M_S ``top`` of all paths S through the layers 1 to n, or their gradients.

    ``top`` is (V, V), the table of S = {}; ``rest`` is (2^n - 1, V, V), those of the paths 1 to 2^n - 1.
    """

    top: Array
    rest: Array


@dataclass(frozen=True, eq=False)
class Tables:
    """The families of W_O through all layers, of W_l through the layers below l, and of V_l the same."""

    output: Family
    queries: dict[int, Family]  # {l: family of W_l}, for l = 2 to L
    keys: dict[int, Family]  # {l: family of V_l}, for l = 1 to L - 1

    def families(self) -> list[Family]:
        """All of them."""
        return [self.output, *self.queries.values(), *self.keys.values()]


def build_tables(weights: "LayeredWeights", used: Array) -> Tables:
    """Step 0. Tables whose lowest layer is 1 are computed in the rows of the tokens ``used`` only."""
    n_layers = len(weights.V)
    return Tables(_build(weights.W_O, weights.V, n_layers, used),
                  {l: _build(weights.W[l - 1], weights.V, l - 1, used) for l in range(2, n_layers + 1)},
                  {l: _build(weights.V[l - 1], weights.V, l - 1, used) for l in range(1, n_layers)})


def _build(top, V, n, used):
    """M_(b+S) top = V_b (M_S top), for the layers b = n down to 1 and the paths S through the layers above b."""
    rest = np.empty((2**n - 1, *top.shape), top.dtype)
    for b, path, above in _extensions(n):
        rows = _rows(used, b, len(top))
        rest[path - 1][rows] = matmul(V[b - 1][rows], rest[above - 1] if above else top)
    return Family(top, rest)


def _extensions(n):
    """(b, path, above): each path through the layers 1 to n, its lowest layer b, and what is above; highest b first."""
    return [(b, above + 2**(b - 1), above) for b in range(n, 0, -1) for above in range(0, 2**n, 2**b)]


def _rows(used, b, n_vocab):
    return used if b == 1 and len(used) < n_vocab else slice(None)


def pull_back(weights: "LayeredWeights", tables: Tables, gradient: Tables, dV: Array, used: Array,
              fixed: bool = False) -> None:
    """Step 0 in reverse: carry the gradient of the tables to ``dV`` and to the ``top`` of every family, in place.

    ``fixed``: attention is held fixed, so that the scores, which read all families but the first, do not move V.
    """
    for family, slopes in zip(tables.families(), gradient.families(), strict=True):
        n = len(family.rest).bit_length()
        for b, path, above in reversed(_extensions(n)):
            # M_(b+S) top = V_b (M_S top):  dV_b += d(b+S) (M_S top)^T,  d(S) += V_b^T d(b+S)
            rows = _rows(used, b, len(family.top))
            slope, before = slopes.rest[path - 1][rows], (slopes.rest[above - 1] if above else slopes.top)
            if not fixed or family is tables.output:
                dV[b - 1][rows] += matmul(slope, (family.rest[above - 1] if above else family.top).T)
            before += matmul(weights.V[b - 1][rows].T, slope)


# ------------------------------------------------------------------------------------------------------------- sequence


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence, cut after its last loss position."""

    row: int  # its index in the batch
    tokens: Array  # (T,)
    slots: Array  # (T,) number of the position's word
    words: Array  # (U,) the distinct tokens
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
    return Sequence(row, tokens, slots, words, slice(None, len(at)) if len(at) == len(tokens) else at,
                    batch.targets[row, at], batch.weight[row, at])


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
    """What :func:`follow` leaves for :func:`backward`. Lists run over the layers; layer 1 has no B, K, Q and queries.

    Backward overwrites ``output`` and the ``queries`` by their gradients.
    """

    C: Array  # (T, 2^L U)
    A: list  # (T, T)
    B: list  # (T, g U)
    K: list  # (g U, g U), or None where Q was computed
    Q: list  # (T, V) h_(l-1) W_l, or None where K was
    queries: list  # (g U, V) rows of the words in M_S W_l, for all paths S below l
    keys: Array  # ((2^(L-1) - 1) U, V) rows of the words in M_S, for the paths S != {} below L
    output: Array  # ((2^L - 1) U, V) rows of the words in M_S W_O, for S != {}


@one_blas_thread()
def follow(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space, uniform: bool = False) -> Cache:
    """Steps 1 to 4: attention and paths of one sequence; ``uniform``: attention is uniform over the prefix instead."""
    n_layers, T, U = len(weights.V), len(seq.tokens), len(seq.words)
    # 1  C_{}[t, u] = 1(word u stands at t)
    C = space.take("C", T, 2**n_layers * U)
    layer_kernels.one_hot(seq.slots, U, C)
    cache = Cache(C, [], [None], [None], [None], [None], _keys(tables, seq, space),
                  _gathered(tables.output, seq.words, space.take("output", 2**n_layers - 1, U, len(weights.W_O))))
    for l in range(1, n_layers + 1):
        paths = 2**(l - 1) * U
        A, below = space.take(f"A {l}", T, T), C[:, :paths]
        if l == 1:
            layer_kernels.lookup_scores(seq.tokens, weights.W[0], A)
        else:  # 2, 3  B_l = h_(l-1) W_l M^T,  S_l[t, j] = sum over S of B_l C_S^T
            _follow_queries(weights, tables, seq, space, cache, l)
            np.matmul(cache.B[-1], below.T, out=A)
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


def _follow_queries(weights, tables, seq, space, cache, l):
    """Step 2: B_l = h_(l-1) W_l M^T, by K = (M_S W_l) M^T at the words, or by h_(l-1) W_l at the positions."""
    T, U, n_vocab = len(seq.tokens), len(seq.words), len(weights.W_O)
    paths = 2**(l - 1) * U
    rows = space.take(f"queries {l}", 2**(l - 1), U, n_vocab)
    layer_kernels.gather_rows(tables.queries[l].top[None], seq.words, rows[:1])
    queries = _gathered(tables.queries[l], seq.words, rows[1:], rows)
    keys, below, B = cache.keys[:paths - U], cache.C[:, :paths], space.take(f"B {l}", T, paths)
    K = Q = None
    if by_words(T, U, l):  # B = sum over S of C_S K,  K = (M_S W_l) M^T, where M_{} is the identity
        K = space.take(f"K {l}", paths, paths)
        layer_kernels.gather_columns(queries, seq.words, K)
        np.matmul(queries, keys.T, out=K[:, U:])
        np.matmul(below, K, out=B)
    else:  # B = Q M^T,  Q = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l)
        Q = np.matmul(below[:, U:], queries[U:], out=space.take(f"Q {l}", T, n_vocab))
        layer_kernels.add_gathered_rows(weights.W[l - 1], seq.tokens, Q)
        layer_kernels.gather_columns(Q, seq.words, B)
        np.matmul(Q, keys.T, out=B[:, U:])
    for found, array in ((cache.B, B), (cache.K, K), (cache.Q, Q), (cache.queries, queries)):
        found.append(array)


def by_words(T: int, U: int, l: int) -> bool:
    """Whether K, g (g - 1) U^2 V multiplications, is cheaper than Q and its product, 2 (g - 1) T U V."""
    return 2**(l - 1) * U <= 2 * T


@one_blas_thread()
def forward(weights: "LayeredWeights", seq: Sequence, cache: Cache, space: Space) -> tuple[float, Array]:
    """Steps 5 and 6: the loss of one sequence, and R = dL/dF at its loss positions, (M, V)."""
    # 5  F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)
    F = space.take("F", len(seq.targets), len(weights.W_O))
    np.matmul(cache.C[seq.at, len(seq.words):], cache.output, out=F)
    layer_kernels.add_gathered_rows(weights.W_O, seq.tokens[seq.at], F)
    # 6  loss = sum_t weight_t (-log softmax(F_t)[y_t]); in place, F becomes R
    return kernels.residuals(F, seq.targets, seq.weight), F


@dataclass(frozen=True, eq=False)
class Pieces:
    """Derivatives of one sequence, before they are added to the tables; shapes and lists as in :class:`Cache`."""

    R: Array  # (M, V)
    output: Array
    dQ: list  # where Q was computed
    queries: list
    keys: Array
    dS: Array  # (T, T) of layer 1
    dP: Array  # (L, T)


@one_blas_thread()
def backward(weights: "LayeredWeights", seq: Sequence, cache: Cache, R: Array, space: Space,
             fixed: bool = False) -> Pieces:
    """The steps in reverse, for R = dL/dF at the loss positions; overwrites rows of ``cache`` by their gradients.

    ``fixed``: attention is held fixed, so that no slope flows through the scores to the paths below.
    """
    C, n_layers, T, U = cache.C, len(weights.V), len(seq.tokens), len(seq.words)
    pieces = Pieces(R, cache.output, [None] * n_layers, cache.queries, space.take("dkeys", *cache.keys.shape),
                    space.take("dS 1", T, T), np.zeros((n_layers, T)))
    # 5  F_t = W_O[x_t, :] + sum over S != {} of C_S O_S:  dC_S = R O_S^T,  dO_S = C_S^T R,  and dW_O[x_t, :] takes R_t
    dC = space.take("dC", *C.shape)
    if len(R) == T:
        np.matmul(R, cache.output.T, out=dC[:, U:])
    else:
        dC[:] = 0
        dC[seq.at, U:] = np.matmul(R, cache.output.T)
    np.matmul(C[seq.at, U:].T, R, out=cache.output)
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
            dC[:, U:paths] += np.matmul(A.T, dnew[:, U:], out=space.take("dbelow", T, paths - U))
            # 3  S_l = sum over S of B_l C_S^T:  dB_l = dS C,  dC_S += dS^T B_l
            dB = np.matmul(dS, below, out=space.take("dB", T, paths))
            to = np.zeros_like(dC) if fixed else dC
            to[:, U:paths] += np.matmul(dS.T, cache.B[l - 1][:, U:], out=space.take("dbelow", T, paths - U))
            _backward_queries(seq, cache, dB, to, pieces, space, l)
    if fixed:
        pieces.keys[:] = 0
    return pieces


def _backward_queries(seq, cache, dB, dC, pieces, space, l):
    """Step 2 in reverse, on either way to B_l; the gradient of the keys is added to that of the layers above."""
    T, U, paths = len(dB), len(seq.words), dB.shape[1]
    queries, keys, below = cache.queries[l - 1], cache.keys[:paths - U], cache.C[:, :paths]
    dbelow = space.take("dbelow", T, paths - U)
    if (K := cache.K[l - 1]) is not None:
        # B = sum over S of C_S K:  dK = C^T dB,  dC += dB K^T;   K = queries M^T:  dM = dK^T queries,  dqueries = dK M
        left = np.matmul(below.T, dB, out=space.take("dK", paths, paths))
        right = queries
        dC[:, U:paths] += np.matmul(dB, K[U:].T, out=dbelow)
    else:  # B = Q M^T:  dM = dB^T Q,  dQ = dB M
        left, right = dB, cache.Q[l - 1]
    dkeys = pieces.keys[:paths - U]
    if l == len(cache.A):
        np.matmul(left[:, U:].T, right, out=dkeys)
    else:
        dkeys += np.matmul(left[:, U:].T, right, out=space.take("dkeys of a layer", *dkeys.shape))
    slopes = np.matmul(left[:, U:], keys, out=space.take(f"slopes {l}", *right.shape))
    layer_kernels.add_columns(left, seq.words, slopes)
    if K is not None:
        pieces.queries[l - 1] = slopes
    else:  # Q = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l)
        dC[:, U:paths] += np.matmul(slopes, queries[U:].T, out=dbelow)
        np.matmul(below[:, U:].T, slopes, out=queries[U:])
        pieces.dQ[l - 1] = slopes


def _gathered(family, words, rows, whole=None):
    """The rows of the words in the tables of the paths S != {}, written to ``rows`` (k, U, V), as (k U, V)."""
    layer_kernels.gather_rows(family.rest, words, rows)
    whole = rows if whole is None else whole
    return whole.reshape(-1, whole.shape[2])


def _keys(tables, seq, space):
    """The rows of the words in M_S for all paths S != {} below the last layer: those of V_1, then of V_2, ..."""
    n, n_vocab = len(tables.keys), len(tables.output.top)
    rows = space.take("keys", 2**n - 1, len(seq.words), n_vocab)
    for l, family in tables.keys.items():
        first = 2**(l - 1) - 1
        layer_kernels.gather_rows(family.top[None], seq.words, rows[first:first + 1])
        layer_kernels.gather_rows(family.rest, seq.words, rows[first + 1:2 * first + 1])
    return rows.reshape(-1, n_vocab)


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
    found = {name: np.zeros_like(array) for name, array in weights.parameters().items()}
    gradient = _gradient_tables(found, tables)
    space, losses = Space(weights.W_O.dtype), []

    def loss_and_pieces(seq):
        loss, cache, R = (slopes or exact_slopes)(weights, tables, seq, space)
        return loss, seq, backward(weights, seq, cache, R, space, fixed)

    def add(computed):
        loss, seq, pieces = computed
        losses.append(loss)
        _add(seq, pieces, gradient, found)

    with workers(len(seqs)) as run:
        run.in_turn(loss_and_pieces, add, seqs)
    with np.errstate(over="ignore", invalid="ignore"):
        pull_back(weights, tables, gradient, found["V"], used, fixed)
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
    loss, R = forward(weights, seq, cache, space)
    return loss, cache, R


def _gradient_tables(found, tables):
    """Tables of zeros for the gradient, whose tops are the gradients of W_O, W and V themselves."""
    def zeros(top, family):
        return Family(top, np.zeros_like(family.rest))
    return Tables(zeros(found["W_O"], tables.output),
                  {l: zeros(found["W"][l - 1], family) for l, family in tables.queries.items()},
                  {l: zeros(found["V"][l - 1], family) for l, family in tables.keys.items()})


def _add(seq, pieces, gradient, found):
    """Add what a sequence brings to the gradient's tables."""
    def scatter(tables, words, rows):
        layer_kernels.scatter_rows(tables, words, rows.reshape(len(tables), len(words), rows.shape[-1]))

    U = len(seq.words)
    scatter(gradient.output.top[None], seq.tokens[seq.at], pieces.R)
    scatter(gradient.output.rest, seq.words, pieces.output)
    layer_kernels.scatter_scores(found["W"][0], seq.tokens, pieces.dS)
    for l, family in gradient.queries.items():
        dQ, rows = pieces.dQ[l - 1], pieces.queries[l - 1]
        scatter(family.top[None], *((seq.words, rows[:U]) if dQ is None else (seq.tokens, dQ)))
        scatter(family.rest, seq.words, rows[U:])
    for l, family in gradient.keys.items():
        rows = pieces.keys[(2**(l - 1) - 1) * U:(2**l - 1) * U]
        scatter(family.top[None], seq.words, rows[:U])
        scatter(family.rest, seq.words, rows[U:])
    found["P"][:, :len(seq.tokens)] += pieces.dP
