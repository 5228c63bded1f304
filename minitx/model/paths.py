"""A model of several layers as a sum over paths: every path is a lookup in tables of V x V, summed over the words.

Legend: L layers, T positions, V vocabulary; of a sequence: U words (its distinct tokens), M loss positions.

A path is a set S = {s1 < ... < sk} of the layers 1 to L through whose attention it leads (a virtual attention head).
C_S = A_sk ... A_s1 X (row = position, column = word) says how much of each word it brings to a position, and M_S = V_s1
... V_sk (row = token, column = direction) what a word has become on its way. The steps, with the equations of
``help(minitx.model)``:

    tables   M_S W_O,  M_S W_l and M_S V_l of every path through the layers below
    1  C_{}[t, u] = 1(word u stands at t)
    2  h_(l-1) = X + sum over S != {} of C_S M_S,  Q_l = h_(l-1) W_l = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l)
    3  S_l = Q_l h_(l-1)^T + P_l[t - j],  A_l = softmax over j <= t of S_l;  for layer 1, S_1 = W_1[x_t, x_j] + P_1[t - j]
    4  C_(S+l) = A_l C_S
    5  F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)
    6  loss = sum_t weight_t (-log softmax(F_t)[y_t])

:func:`forward` takes steps 1 to 6, :func:`backward` takes them in reverse, and the tables are pulled back to the weights
last. The paths of a family through layers 1 to n are numbered in binary: layer b is the bit of value 2^(n-b), so that
the paths through layers 1 to l of all G = 2^L are every 2^(L-l)-th, and those that lead through layer l every second of
these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minitx.base import parallel
from minitx.base.parallel import matmul, one_blas_thread, workers
from minitx.data.batch import Batch
from minitx.model import kernels, layer_kernels
from minitx.model.parameters import Array

if TYPE_CHECKING:
    from minitx.model.layers import LayeredWeights

WAVE = 4  # Sequences computed before their pieces are added to the tables; more take more memory, and leave the cache.
STAIRS = 2  # Parts into which the rows of a product are cut, so that words that have not come yet are left out.


# ---------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, eq=False)
class Family:
    """The tables M_S ``top`` of all paths S through the layers 1 to n, or their gradients.

    ``top`` is (V, V), the table of S = {}; ``rest`` is (V, 2^n - 1, V): [a, i, :] is row a of the table of path i + 1.
    """

    top: Array
    rest: Array
    n: int


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
    """The tables of ``weights``, whose lowest layer is computed only in the rows of the tokens ``used``."""
    n_layers = len(weights.V)
    return Tables(_build(weights.W_O, weights.V, n_layers, used),
                  {l: _build(weights.W[l - 1], weights.V, l - 1, used) for l in range(2, n_layers + 1)},
                  {l: _build(weights.V[l - 1], weights.V, l - 1, used) for l in range(1, n_layers)})


def _build(top, V, n, used):
    """M_(S+b) top = V_b (M_S top), from the layer b = n down to 1; the new layer is the lowest of the path."""
    n_vocab = len(top)
    family = Family(top, np.empty((n_vocab, 2**n - 1, n_vocab), top.dtype), n)
    table = family.rest.reshape(n_vocab, -1)
    for b in range(n, 0, -1):
        above = (2**(n - b) - 1) * n_vocab  # columns of the paths through the layers above b
        rows = _rows(used, n_vocab) if b == 1 else slice(None)
        table[rows, above:above + n_vocab] = matmul(V[b - 1][rows], top)
        table[rows, above + n_vocab:2 * above + n_vocab] = matmul(V[b - 1][rows], table[:, :above])
    return family


def pull_back(weights: "LayeredWeights", tables: Tables, gradient: Tables, dV: Array, used: Array) -> None:
    """Carry the gradient of the tables to the weights, in place: to ``dV``, and to the ``top`` of every family."""
    for family, slopes in zip(tables.families(), gradient.families(), strict=True):
        n_vocab, n = len(family.top), family.n
        table, dtable = family.rest.reshape(n_vocab, -1), slopes.rest.reshape(n_vocab, -1)
        for b in range(1, n + 1):  # M_(S+b) top = V_b (M_S top):  dV_b += d(S+b) (M_S top)^T,  dS += V_b^T d(S+b)
            above = (2**(n - b) - 1) * n_vocab
            rows = _rows(used, n_vocab) if b == 1 else slice(None)
            of_top, of_rest = dtable[rows, above:above + n_vocab], dtable[rows, above + n_vocab:2 * above + n_vocab]
            dV[b - 1][rows] += matmul(of_top, family.top.T)
            slopes.top[:] += matmul(weights.V[b - 1][rows].T, of_top)
            if above:
                dV[b - 1][rows] += matmul(of_rest, table[:, :above].T)
                dtable[:, :above] += matmul(weights.V[b - 1][rows].T, of_rest)


def _rows(used, n_vocab):
    return slice(None) if len(used) == n_vocab else used


# -------------------------------------------------------------------------------------------------------------- sequence


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence, cut after its last loss position."""

    row: int  # its index in the batch
    tokens: Array  # (T,)
    slots: Array  # (T,) number of the position's word
    words: Array  # (U,) the distinct tokens, in order of first appearance
    at: Array  # (M,) the loss positions
    targets: Array  # (M,)
    weight: Array  # (M,) float64
    steps: list[tuple[int, int, int]]  # (first, last, words): positions first .. last - 1 see the first words only
    answers: list[tuple[int, int, int]]  # the same for the loss positions


def sequences(batch: Batch) -> list[Sequence]:
    """The sequences of ``batch`` that have a loss position."""
    rows = np.flatnonzero(batch.weight.any(axis=1))
    lengths = np.array([np.flatnonzero(batch.weight[row])[-1] + 1 for row in rows], np.int32)
    tokens = batch.tokens[rows]
    slots, words, n_words = kernels.distinct(tokens, lengths, int(tokens.max()) + 1)
    return [_sequence(batch, row, length, slot[:length], word[:n])
            for row, length, slot, word, n in zip(rows, lengths, slots, words, n_words, strict=True)]


def _sequence(batch, row, length, slots, words):
    at = np.flatnonzero(batch.weight[row])
    seen = np.maximum.accumulate(slots) + 1
    return Sequence(row, batch.tokens[row, :length].copy(), slots.copy(), words.copy(), at, batch.targets[row, at],
                    batch.weight[row, at], _stairs(seen), _stairs(seen[at]))


def _stairs(seen):
    edges = [len(seen) * part // STAIRS for part in range(STAIRS + 1)]
    return [(first, last, int(seen[last - 1])) for first, last in zip(edges, edges[1:], strict=False) if last > first]


class Space:
    """Memory of one sequence of a wave, taken by name and used again by the next sequence."""

    def __init__(self, dtype):
        self.dtype, self._memory = dtype, {}

    def take(self, name, *shape):
        """An array of this shape, with any entries."""
        size = int(np.prod(shape))
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, self.dtype)
        return self._memory[name][:size].reshape(shape)

    def packed(self, name, array):
        """A contiguous copy of ``array`` (T, U, k) as (T, U k)."""
        copy = self.take(name, *array.shape)
        copy[:] = array
        return copy.reshape(len(array), -1)


@dataclass(frozen=True, eq=False)
class Cache:
    """What :func:`follow` leaves for :func:`backward`; lists run over the layers, and layer 1 has no h, Q and rows.

    Backward overwrites the gathered rows by their gradients.
    """

    C: Array  # (T, U, 2^L)
    A: list  # (T, T)
    h: list  # (T, V) h_(l-1), row = position, column = direction
    Q: list  # (T, V) h_(l-1) W_l
    queries: list  # (U (2^(l-1) - 1), V) rows of the words of M_S W_l, S != {}
    keys: list  # (U 2^(l-2), V) rows of the words of M_S V_(l-1)
    output: Array  # (U (2^L - 1), V) rows of the words of M_S W_O, S != {}


@one_blas_thread()
def follow(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space, uniform: bool = False) -> Cache:
    """Steps 1 to 4: attention and paths of one sequence; ``uniform``: attention is uniform over the prefix instead."""
    n_layers, T, U, n_vocab = len(weights.V), len(seq.tokens), len(seq.words), len(weights.W_O)
    # 1  C_{}[t, u] = 1(word u stands at t)
    C = space.take("C", T, U, 2**n_layers)
    C[:, :, 0] = 0
    C[np.arange(T), seq.slots, 0] = 1
    cache = Cache(C, [], [None], [None], [None], [None], _gathered(tables.output, seq, space, "output rows"))
    for l in range(1, n_layers + 1):
        step = 2**(n_layers - l + 1)  # every step-th path leads through the layers below l only
        A = space.take(f"A {l}", T, T)
        if l > 1:
            # 2  h_(l-1) = X + sum over S != {} of C_S M_S,  Q_l = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l)
            cache.keys.append(_gathered(tables.keys[l - 1], seq, space, f"key rows {l}", with_top=True))
            cache.queries.append(_gathered(tables.queries[l], seq, space, f"query rows {l}"))
            h, Q = space.take(f"h {l}", T, n_vocab), space.take(f"Q {l}", T, n_vocab)
            _times_rows(space.packed("C new", C[:, :, step::2 * step]), cache.keys[-1], U, seq.steps, h)
            if l == 2:
                h[np.arange(T), seq.tokens] += 1
            else:
                h += cache.h[-1]
            _times_rows(space.packed("C rest", C[:, :, step::step]), cache.queries[-1], U, seq.steps, Q)
            layer_kernels.add_gathered_rows(weights.W[l - 1], seq.tokens, Q)
            cache.h.append(h)
            cache.Q.append(Q)
        # 3  S_l = Q_l h_(l-1)^T + P_l[t - j],  A_l = softmax over j <= t of S_l
        if uniform:
            layer_kernels.uniform_attention(A)
        else:
            if l > 1:
                for first, last, _ in seq.steps:
                    np.matmul(Q[first:last], h[:last].T, out=A[first:last, :last])
            else:
                layer_kernels.lookup_scores(seq.tokens, weights.W[0], A)
            layer_kernels.softmax_forward(A, weights.P[l - 1])
        cache.A.append(A)
        # 4  C_(S+l) = A_l C_S
        below = space.packed("C below", C[:, :, ::step])
        C[:, :, step // 2::step] = np.matmul(A, below, out=space.take("C next", *below.shape)).reshape(T, U, -1)
    return cache


@one_blas_thread()
def forward(weights: "LayeredWeights", seq: Sequence, cache: Cache, space: Space) -> tuple[float, Array]:
    """Steps 5 and 6: the loss of one sequence, and R = dL/dF at its loss positions, (M, V)."""
    F = output(weights, seq, cache, space)
    # 6  loss = sum_t weight_t (-log softmax(F_t)[y_t]); in place, F becomes R
    F -= F.max(axis=1, keepdims=True)
    shifted = F[np.arange(len(F)), seq.targets]
    np.exp(F, out=F)  # NumPy's exp is vectorised; numba's, without Intel's library, is not
    return layer_kernels.cross_entropy(F, shifted, seq.targets, seq.weight), F


@one_blas_thread()
def output(weights: "LayeredWeights", seq: Sequence, cache: Cache, space: Space) -> Array:
    """Step 5: the output at the loss positions, (M, V)."""
    # 5  F_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)
    F = space.take("F", len(seq.at), len(weights.W_O))
    C = space.packed("C output", cache.C[seq.at, :, 1:])
    _times_rows(C, cache.output, len(seq.words), seq.answers, F)
    layer_kernels.add_gathered_rows(weights.W_O, seq.tokens[seq.at], F)
    return F


@dataclass(frozen=True, eq=False)
class Pieces:
    """Derivatives of one sequence, before they are added to the tables; lists as in :class:`Cache`."""

    R: Array  # (M, V)
    output: Array
    dQ: list
    queries: list
    keys: list
    dS: Array  # (T, T) of layer 1
    dP: Array  # (L, T)


@one_blas_thread()
def backward(weights: "LayeredWeights", seq: Sequence, cache: Cache, R: Array, space: Space) -> Pieces:
    """The steps in reverse, for R = dL/dF at the loss positions; overwrites the gathered rows of ``cache``."""
    C, n_layers, T, U = cache.C, len(weights.V), len(seq.tokens), len(seq.words)
    dP = np.zeros((n_layers, T))
    # 5  F_t = W_O[x_t, :] + sum over S != {} of C_S O_S:  dC_S = R O_S^T,  dO_S = C_S^T R,  and dW_O[x_t, :] takes R_t
    dC = space.take("dC", *C.shape)
    if len(seq.at) < T:
        dC[:] = 0
    dC[seq.at, :, 1:] = _times_columns(R, cache.output, U, seq.answers, space).reshape(len(R), U, -1)
    _gradient_of_rows(space.packed("C output", C[seq.at, :, 1:]), R, U, seq.answers, cache.output)
    dh, dQs = None, [None] * n_layers
    for l in range(n_layers, 0, -1):
        step = 2**(n_layers - l + 1)
        new = dC[:, :, step // 2::step]
        if l < n_layers:  # 2  h_l = h_(l-1) + sum over S of C_(S+l) (M_S V_l), which the layers above l read
            keys = cache.keys[l]
            new += _times_columns(dh, keys, U, seq.steps, space).reshape(T, U, -1)
            _gradient_of_rows(space.packed("C new", C[:, :, step // 2::step]), dh, U, seq.steps, keys)
        # 4  C_(S+l) = A_l C_S:  dA_l = sum over S of dC_(S+l) C_S^T,  dC_S += A_l^T dC_(S+l)
        A, dnew = cache.A[l - 1], space.packed("dC new", new)
        dS = space.take(f"dS {l}", T, T)
        np.matmul(dnew, space.packed("C below", C[:, :, ::step]).T, out=dS)
        if l > 1:
            dC[:, :, ::step] += np.matmul(A.T, dnew, out=space.take("C next", *dnew.shape)).reshape(T, U, -1)
        # 3  A_l = softmax(S_l)
        layer_kernels.softmax_backward(A, dS, dP[l - 1])
        if l > 1:  # 3, 2  S_l = Q_l h_(l-1)^T,  Q_l = W_l[x_t, :] + sum over S != {} of C_S (M_S W_l)
            dh = _add_key_slopes(dS, cache.Q[l - 1], dh, seq.steps, space)
            dQ = space.take(f"dQ {l}", *dh.shape)
            for first, last, _ in seq.steps:
                np.matmul(dS[first:last, :last], cache.h[l - 1][:last], out=dQ[first:last])
            queries = cache.queries[l - 1]
            dC[:, :, step::step] += _times_columns(dQ, queries, U, seq.steps, space).reshape(T, U, -1)
            _gradient_of_rows(space.packed("C rest", C[:, :, step::step]), dQ, U, seq.steps, queries)
            dQs[l - 1] = dQ
    return Pieces(R, cache.output, dQs, cache.queries, cache.keys, dS, dP)


def _gathered(family, seq, space, name, with_top=False):
    """(U k, V): the rows of the words in the tables of the k paths S != {}, or of all with ``with_top``."""
    n_vocab, U, k = len(family.top), len(seq.words), 2**family.n - 1 + with_top
    rows = space.take(name, U, k * n_vocab)
    if with_top:
        layer_kernels.gather_rows(family.top, seq.words, 0, rows)
    layer_kernels.gather_rows(family.rest.reshape(n_vocab, -1), seq.words, with_top * n_vocab, rows)
    return rows.reshape(U * k, n_vocab)


def _times_rows(C, rows, U, steps, out):
    """out = C rows, where a position sees only the words that have come; C is (T, U k), rows (U k, V)."""
    k = len(rows) // U
    for first, last, seen in steps:
        np.matmul(C[first:last, :seen * k], rows[:seen * k], out=out[first:last])


def _times_columns(R, rows, U, steps, space):
    """R rows^T, (T, U k), the slope of C in C rows; 0 at words that have not come."""
    k, out = len(rows) // U, space.take("dC piece", len(R), len(rows))
    for first, last, seen in steps:
        np.matmul(R[first:last], rows[:seen * k].T, out=out[first:last, :seen * k])
        out[first:last, seen * k:] = 0
    return out


def _gradient_of_rows(C, R, U, steps, out):
    """out = C^T R, (U k, V), the slope of the rows in C rows."""
    k, before = len(out) // U, 0
    for first, _, seen in steps:
        np.matmul(C[first:, before * k:seen * k].T, R[first:], out=out[before * k:seen * k])
        before = seen


def _add_key_slopes(dS, Q, dh, steps, space):
    """dh + dS^T Q, the slope of h as keys; ``dh`` is None above the last layer."""
    total = space.take("dh", *Q.shape)
    out = total if dh is None else space.take("dh piece", *Q.shape)
    for first, last, _ in steps:
        np.matmul(dS[first:, first:last].T, Q[first:], out=out[first:last])
    if dh is not None:
        total += out
    return total


# -------------------------------------------------------------------------------------------------------------- the batch


def path_gradient(weights: "LayeredWeights", batch: Batch, slopes: Callable | None = None) -> tuple[float, dict]:
    """Loss, and {parameter: dL/dparameter}, by the sum over paths; ``weights`` and ``batch`` must fit each other.

    ``slopes(weights, tables, sequence, space) -> (loss, Cache, R)`` says in which attention and for which R = dL/dF the
    gradient is taken. Default: those of the model, which makes the gradient exact.
    """
    seqs = sequences(batch)
    used = np.unique(np.concatenate([seq.words for seq in seqs]))
    tables = build_tables(weights, used)
    found = {name: np.zeros_like(array) for name, array in weights.parameters().items()}
    gradient = _gradient_tables(found, tables)
    spaces = [Space(weights.W_O.dtype) for _ in range(min(WAVE, len(seqs)))]
    losses = []

    def loss_and_pieces(item):
        seq, space = item
        loss, cache, R = (slopes or exact_slopes)(weights, tables, seq, space)
        return loss, backward(weights, seq, cache, R, space)

    n_owners = parallel.get_threads()
    with workers(len(spaces)) as run:
        for start in range(0, len(seqs), WAVE):
            wave = seqs[start:start + WAVE]
            results = run(loss_and_pieces, list(zip(wave, spaces, strict=False)))
            losses += [loss for loss, _ in results]
            pieces = [(seq, piece) for seq, (_, piece) in zip(wave, results, strict=True)]
            run(lambda owner, pieces=pieces: _add(pieces, gradient, found, owner, n_owners), range(n_owners))
    with np.errstate(over="ignore", invalid="ignore"):
        pull_back(weights, tables, gradient, found["V"], used)
    return float(np.sum(losses)), found


def exact_slopes(weights: "LayeredWeights", tables: Tables, seq: Sequence, space: Space) -> tuple[float, Cache, Array]:
    """Loss, paths and R = dL/dF of the model as it is."""
    cache = follow(weights, tables, seq, space)
    loss, R = forward(weights, seq, cache, space)
    return loss, cache, R


def _gradient_tables(found, tables):
    """Tables of zeros for the gradient, whose tops are the gradients of W_O, W and V themselves."""
    def zeros(top, family):
        return Family(top, np.zeros_like(family.rest), family.n)
    return Tables(zeros(found["W_O"], tables.output),
                  {l: zeros(found["W"][l - 1], family) for l, family in tables.queries.items()},
                  {l: zeros(found["V"][l - 1], family) for l, family in tables.keys.items()})


def _add(pieces, gradient, found, owner, n_owners):
    """Add what the pieces bring to the rows of one owner, in the order of the sequences; owner 0 also adds dP."""
    n_vocab = len(found["W_O"])

    def scatter(table, words, rows, first=0):
        layer_kernels.scatter_rows(table, words, rows.reshape(len(words), -1), first, owner, n_owners)

    for seq, piece in pieces:
        scatter(gradient.output.top, seq.tokens[seq.at], piece.R)
        scatter(gradient.output.rest.reshape(n_vocab, -1), seq.words, piece.output)
        layer_kernels.scatter_scores(found["W"][0], seq.tokens, piece.dS, owner, n_owners)
        for l, family in gradient.queries.items():
            scatter(family.top, seq.tokens, piece.dQ[l - 1])
            scatter(family.rest.reshape(n_vocab, -1), seq.words, piece.queries[l - 1])
        for l, family in gradient.keys.items():
            scatter(family.top, seq.words, piece.keys[l])
            scatter(family.rest.reshape(n_vocab, -1), seq.words, piece.keys[l], n_vocab)
        if owner == 0:
            found["P"][:, :len(seq.tokens)] += piece.dP
