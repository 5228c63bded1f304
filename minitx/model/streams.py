"""A model of several layers in its dense form: the residual stream of every position, products with V x V weights.

It is cheaper than the sum over paths where layers are many, sequences few, or the vocabulary small beside 2^L times the
distinct tokens of a sequence (:func:`minitx.model.layers.operations`). Layer 1 is looked up, because its stream is
one-hot.

Legend: L layers, T positions, V vocabulary; S sequences of a chunk.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minitx.base.parallel import matmul, workers
from minitx.data.batch import Batch
from minitx.model import kernels, layer_kernels
from minitx.model.parameters import Array

if TYPE_CHECKING:
    from minitx.model.layers import LayeredWeights

CHUNK_BYTES = 32 << 20  # Memory of one stream (S, T, V) of a chunk; larger chunks make larger, faster products.


@dataclass(frozen=True, eq=False)
class Streams:
    """What :func:`forward` leaves for :func:`backward`; each list runs over the layers."""

    A: list  # (S, T, T) row = query, column = key
    h: list  # (S, T, V) h_0 to h_L; h_0, which is one-hot, is None
    hV: list  # (S, T, V) h_(l-1) V_l
    Q: list  # (S, T, V) h_(l-1) W_l; None for layer 1


def chunks(batch: Batch, n_vocab: int, itemsize: int) -> list[Array]:
    """The rows of ``batch`` that have a loss position, as many at a time as CHUNK_BYTES hold."""
    rows = np.flatnonzero(batch.weight.any(axis=1))
    size = max(1, CHUNK_BYTES // (batch.tokens.shape[1] * n_vocab * itemsize))
    return [rows[start:start + size] for start in range(0, len(rows), size)]


def forward(weights: "LayeredWeights", tokens: Array) -> tuple[Streams, Array]:
    """The streams of ``tokens`` (S, T), and the outputs F (S, T, V)."""
    n, length = tokens.shape
    V, dtype = len(weights.W_O), weights.W_O.dtype
    streams, h = Streams([], [None], [], [None]), np.empty(0, dtype)
    for l in range(len(weights.V)):
        # S_l = h_(l-1) W_l h_(l-1)^T + P_l[t - j];  layer 1: W_1[x_t, x_j]
        A = np.empty((n, length, length), dtype)
        if l == 0:
            hV = weights.V[l][tokens]
        else:
            hV = matmul(h.reshape(-1, V), weights.V[l]).reshape(h.shape)
            streams.Q.append(matmul(h.reshape(-1, V), weights.W[l]).reshape(h.shape))
            _products(streams.Q[-1], h.transpose(0, 2, 1), A)
        for s in range(n):
            if l == 0:
                layer_kernels.lookup_scores(tokens[s], weights.W[l], A[s])
            layer_kernels.softmax_forward(A[s], weights.P[l])
        # h_l = h_(l-1) + A_l (h_(l-1) V_l)
        after = _products(A, hV, np.empty((n, length, V), dtype))
        if l == 0:
            after[np.arange(n)[:, None], np.arange(length), tokens] += 1
        else:
            after += h
        h = after
        for name, array in (("A", A), ("h", h), ("hV", hV)):
            getattr(streams, name).append(array)
    return streams, matmul(h.reshape(-1, V), weights.W_O).reshape(h.shape)


def backward(weights: "LayeredWeights", tokens: Array, streams: Streams, R: Array, found: dict[str, Array]) -> None:
    """Add dL/dweights of a chunk to ``found``, for R = dL/dF (S, T, V); the lines follow Im et al. 2026, Lemma D.8."""
    n, V = len(tokens), len(weights.W_O)

    def flat(stream):
        return stream.reshape(-1, V)

    # F = h_L W_O:  dW_O = h_L^T R,  g_L = R W_O^T
    found["W_O"] += matmul(flat(streams.h[-1]).T, flat(R))
    g = matmul(flat(R), weights.W_O.T).reshape(R.shape)
    for l in range(len(weights.V) - 1, -1, -1):
        A, h, hV, Q = streams.A[l], streams.h[l], streams.hV[l], streams.Q[l]
        # h_l = h_(l-1) + A_l hV:  dA = g_l hV^T,  dhV = A_l^T g_l
        dS = _products(g, hV.transpose(0, 2, 1), np.empty_like(A))
        dhV = _products(A.transpose(0, 2, 1), g, np.empty_like(g))
        # A_l = softmax(S_l),  S_l[t, j] += P_l[t - j]
        for s in range(n):
            dP = np.zeros(A.shape[1])
            layer_kernels.softmax_backward(A[s], dS[s], dP)
            found["P"][l, :A.shape[1]] += dP
        if l == 0:  # lookups: hV = V_1[x_j],  S_1 = W_1[x_t, x_j]
            for s in range(n):
                layer_kernels.scatter_rows(found["V"][:1], tokens[s], dhV[s:s + 1])
                layer_kernels.scatter_scores(found["W"][0], tokens[s], dS[s])
            return
        # hV = h V_l:  dV_l = h^T dhV;   S_l = Q h^T, Q = h W_l:  dQ = dS h,  dW_l = h^T dQ
        found["V"][l] += matmul(flat(h).T, flat(dhV))
        dQ = _products(dS, h, np.empty_like(g))
        found["W"][l] += matmul(flat(h).T, flat(dQ))
        # g_(l-1) = g_l + A_l^T g_l V_l^T + dS h W_l^T + dS^T h W_l
        flat(g)[:] += matmul(flat(dhV), weights.V[l].T)
        flat(g)[:] += matmul(flat(dQ), weights.W[l].T)
        g += _products(dS.transpose(0, 2, 1), Q, np.empty_like(g))


def stream_gradient(weights: "LayeredWeights", batch: Batch) -> tuple[float, dict[str, Array]]:
    """Loss, and {parameter: dL/dparameter}, by the dense form; ``weights`` and ``batch`` must fit each other."""
    found = {name: np.zeros_like(array) for name, array in weights.parameters().items()}
    losses = []
    for rows in chunks(batch, len(weights.W_O), weights.W_O.itemsize):
        tokens = batch.tokens[rows]
        streams, F = forward(weights, tokens)
        at = np.nonzero(batch.weight[rows])
        out, targets, weight = F[at], batch.targets[rows][at], batch.weight[rows][at]
        losses.append(kernels.residuals(out, targets, weight))
        F[:] = 0
        F[at] = out
        backward(weights, tokens, streams, F, found)
    return float(np.sum(losses)), found


def _products(a, b, out):
    """out[s] = a[s] b[s] for every sequence of a chunk, on all threads."""
    with workers(len(out)) as run:
        run(lambda s: np.matmul(a[s], b[s], out=out[s]), range(len(out)))
    return out
