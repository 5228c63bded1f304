"""The exact gradient of several layers, split into the same named terms as that of one layer.

Every factor is its value at the reference point and the rest: R = R0 + (R - R0), A_l = A0 + (A_l - A0), weight = its
leading term + the rest. Let

    full(s, a)     be the gradient of the L layers with the actual weights, R0 (s = 0) or R - R0 (s = 1), and with A0,
                   held fixed (a = 0), or the actual attention (a = 1);
    leading(s, a)  be what is left of it at the leading weights: a direct path, each layer's own value, and scores of
                   the product of its value and the output,

        dW_O = X^T R,   dV_l = (A_l X)^T R W_O^T,   dS_l = A_l * (dA - rowsum(A_l * dA)),  dA_tj = R_t . (V_l W_O)[x_j]

Both are linear in R, and the terms are their differences:

    without weight drift       leading(s, 0)                     with attention drift  leading(s, 1) - leading(s, 0)
    with weight drift          full(s, 0) - leading(s, 0)        with attention drift  the same differences of full

They sum to full(0, 1) + full(1, 1), the gradient. full(0, 0) is that of reference dynamics. For L = 1 they are the
terms of :func:`minitx.associations.gradient_terms` for one layer.

Legend: L layers, V vocabulary; of a sequence: T positions, U distinct tokens, M loss positions.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import bigram, bigram_counts, context
from minitx.associations.term_names import term_name
from minitx.base.checks import instance
from minitx.base.numbers import projection
from minitx.base.parallel import matmul, one_blas_thread, workers
from minitx.data.batch import Batch
from minitx.model import layer_kernels
from minitx.model.layers import LayeredWeights, require_fit
from minitx.model.parameters import Parameters
from minitx.model.paths import (
    Cache,
    Sequence,
    Space,
    Tables,
    build_tables,
    follow,
    forward,
    path_gradient,
    sequences,
)
from minitx.model.weights import OneHotWeights

SIDES = tuple(itertools.product((False, True), repeat=2))  # (s, a): R - R0 rather than R0, A rather than A0


def layered_gradient_terms(weights: LayeredWeights, batch: Batch, *, leading: Parameters | None = None
                           ) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Split dL/dweights of several layers: :func:`minitx.associations.gradient_terms` says into what.

    {matrix: {term: array}}, the matrices being those of :meth:`LayeredWeights.matrices`: ``W_O``, and ``V l``, ``W l``,
    ``P l`` of each layer l.
    ``leading`` is the same for all layers; by default W_O and each V_l have their own nearest multiples. Time: about
    seven exact gradients.
    """
    require_fit(weights, batch)
    batch.require_next_token()
    weights = weights.astype(np.float64).map(np.ascontiguousarray)
    W_O, V = _leading_weights(weights, batch, leading)
    full = {side: path_gradient(weights, batch, _Slopes(*side), fixed=not side[1])[1] for side in SIDES}
    first = _leading_gradients(weights, batch, W_O, V)
    stacked: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in weights.parameters()}
    for name, found in stacked.items():
        for s in (False, True):
            without, rest = first[s, False][name], first[s, True][name] - first[s, False][name]
            found[term_name(s, False, False)] = without
            found[term_name(s, False, True)] = full[s, False][name] - without
            if name != "W_O":  # the direct path has no attention
                found[term_name(s, True, False)] = rest
            found[term_name(s, True, True)] = full[s, True][name] - full[s, False][name] - rest
    terms = {"W_O": stacked["W_O"]}
    for l in range(weights.n_layers):
        for name in "VWP":
            terms[f"{name} {l + 1}"] = {term: array[l] for term, array in stacked[name].items()}
    return terms


def _leading_weights(weights, batch, leading):
    """Leading terms of W_O, (V, V), and of the V_l, (L, V, V)."""
    if leading is not None:
        instance("leading", leading, OneHotWeights)
        if leading.W_O.shape != weights.W_O.shape or leading.not_finite():
            raise ValueError("leading must be finite OneHotWeights of the same vocabulary as the weights, as from "
                             "minitx.associations.leading_weights")
        return leading.W_O, np.repeat(leading.V[None], weights.n_layers, axis=0)
    pairs, alpha = bigram_counts(batch, weights.n_vocab)
    value = (pairs @ context(batch, weights.n_vocab)[0]).T
    return (projection(weights.W_O, bigram(pairs, alpha, weights.n_vocab)),
            np.stack([projection(V, value) for V in weights.V]))


class _Slopes:
    """In which attention, and for which R, a full gradient is taken: as ``slopes`` of path_gradient."""

    def __init__(self, saturation, drift):
        self.saturation, self.drift = saturation, drift

    def __call__(self, weights: LayeredWeights, tables: Tables, seq: Sequence,
                 space: Space) -> tuple[float, Cache, NDArray[np.float64]]:
        loss, R = 0.0, uniform_residual(weights, seq)
        cache = follow(weights, tables, seq, space, uniform=not (self.saturation or self.drift))
        if self.saturation:
            loss, out = forward(weights, tables, seq, cache, space)
            R = out - R
            if not self.drift:
                cache = follow(weights, tables, seq, space, uniform=True)
        return loss, cache, R


def uniform_residual(weights: LayeredWeights, seq: Sequence) -> NDArray[np.float64]:
    """R0 = weight (1/V - onehot(y)) at the loss positions, (M, V)."""
    R = np.empty((len(seq.targets), weights.n_vocab))
    layer_kernels.uniform_residual(R, seq.targets, seq.weight)
    return R


def _leading_gradients(weights, batch, W_O, V):
    """{(s, a): {parameter: leading(s, a)}}, from one walk over the sequences."""
    seqs = sequences(batch)
    tables = build_tables(weights, np.unique(np.concatenate([seq.words for seq in seqs])))
    ov = np.stack([matmul(value, W_O) for value in V])
    sums = {side: {name: np.zeros_like(array) for name, array in weights.parameters().items()} for side in SIDES}
    space = Space(np.dtype(np.float64))

    def add(computed):
        seq, pieces = computed
        for side, piece in pieces.items():
            _add(sums[side], seq, *piece)

    with workers(len(seqs)) as run:
        run.in_turn(lambda seq: (seq, _leading_pieces(weights, tables, ov, seq, space)), add, seqs)
    for found in sums.values():
        for l, d_ov in enumerate(found["V"]):
            found["V"][l] = matmul(d_ov, W_O.T)
    return sums


@one_blas_thread()
def _leading_pieces(weights, tables, ov, seq, space):
    """{(s, a): (R, [(A_l X)^T R of every layer], [dS_l], dP)} of one sequence."""
    cache = follow(weights, tables, seq, space)
    R0 = uniform_residual(weights, seq)
    residuals = {False: R0, True: forward(weights, tables, seq, cache, space)[1] - R0}
    A0 = np.empty_like(cache.A[0])
    layer_kernels.uniform_attention(A0)
    found = {}
    for (s, a), R in ((side, residuals[side[0]]) for side in SIDES):
        rows, scores, dP = [], [], np.zeros_like(weights.P)
        for l, table in enumerate(ov):
            A = np.ascontiguousarray(cache.A[l] if a else A0)
            rows.append(A[seq.at].T @ R)  # a row for each position, which its token takes
            dS = np.zeros_like(A)
            dS[seq.at] = (R @ table[seq.words].T)[:, seq.slots]
            layer_kernels.softmax_backward(A, dS, dP[l])
            scores.append(dS)
        found[s, a] = R, rows, scores, dP
    return found


def _add(tables, seq, R, rows, scores, dP):
    """Add the pieces of a sequence to its tables; those of V hold (A_l X)^T R until all are added."""
    layer_kernels.scatter_rows(tables["W_O"][None], seq.tokens[seq.at], np.ascontiguousarray(R)[None])
    for l, dS in enumerate(scores):
        layer_kernels.scatter_rows(tables["V"][l:l + 1], seq.tokens, rows[l][None])
        layer_kernels.scatter_scores(tables["W"][l], seq.tokens, dS)
    tables["P"] += dP
