"""What reduced dynamics leaves out of the gradient, computed exactly on sampled windows.

The closure of :mod:`minitx.associations.closure` predicts q_t in the place of softmax(out_t),

    q_t = p_k + (c_t - cbar_k) M' Jbar,    k = the cell of t.

The exact gradient is that of the closure and a rest. The targets are not in the rest, which is

    10  d_t = w_t (softmax(out_t) - q_t)
        d_direct[x_t, :] += d_t,    d_ov[x_j, :] += A_tj d_t
        dscore_tj = A_tj (d_t . M[x_j, :] - sum_k A_tk d_t . M[x_k, :]), which dL/dqk and dL/dposition take
        loss += w_t (KL(p_k, softmax(out_t)) - (c_t - cbar_k) M' Jbar M'^T (c_t - cbar_k)^T / 2)

The windows are cut into parts once, at random. The rests of all parts sum to the whole rest. That of some parts, times
the number of parts over theirs, is an unbiased estimate of it.

Legend: N sequences, T positions, V vocabulary, K cells, n loss positions, r' directions of the response; of a block of
S sequences: M queries.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minitx.base.parallel import one_blas_thread
from minitx.data.batch import Batch
from minitx.model.blocks import Block, Positions
from minitx.model.circuits import Circuits, backward, output
from minitx.model.kernels import probabilities
from minitx.model.parameters import Array
from minitx.model.pieces import Workspace, sum_all


class Closure(NamedTuple):
    """The predictions of a closure at some weights, by the letters of its equations."""

    cell: NDArray[np.int32]  # (n,) the cell of each loss position
    p: Array  # (K, V) row = cell, column = output token
    c_U: Array  # (n, at least r') c_t in the directions of the response; further columns are not read
    cbar_U: Array  # (K, r') the same of the mean contexts
    R_Jbar: Array  # (r', V) M' Jbar is U[:, :r'] times this
    R: Array  # (r', V) M' is U[:, :r'] times this


class Part(NamedTuple):
    """Some of the windows as blocks, with two arrays (S, M) for each block."""

    blocks: list[Block]
    at: list[NDArray[np.int64]]  # the number of each query among the loss positions of the closure
    weight: list[Array]  # of each query; 0 marks padding


def cut_windows(batch: Batch, n_vocab: int, most: int, sequence: Array, at: Array, dtype: Any) -> list[Part]:
    """Cut the windows with a loss position into at most ``most`` parts, at random, always in the same way.

    The i-th loss position of the closure is position ``at[i]`` of window ``sequence[i]``; ``dtype`` is that of weights.
    """
    number = np.zeros(batch.tokens.shape, np.int64)
    number[sequence, at] = np.arange(len(sequence))
    rows = np.random.default_rng(0).permutation(np.unique(sequence))
    parts = []
    for chosen in np.array_split(rows, min(most, len(rows))):
        blocks = Positions.of(batch.take(chosen), dtype).cut(n_vocab)
        numbers = [number[chosen[block.rows][:, None], block.queries] for block in blocks]
        weights = [block.weight * (len(chosen) / len(batch)) for block in blocks]  # ``take`` has scaled them up
        parts.append(Part(blocks, numbers, weights))
    return parts


@one_blas_thread()
def sampled_rest(circuits: Circuits, closure: Closure, parts: list[Part], scale: float,
                 workspace: Workspace) -> tuple[float, Circuits]:
    """``scale`` times the rest of the loss and of dL/dcircuits on ``parts``."""
    visits = [visit for part in parts for visit in zip(*part, strict=True)]
    p = closure.p
    p_log_p = np.einsum("kb,kb->k", p, np.log(np.maximum(p, np.finfo(p.dtype).tiny)))  # (K,) the sums of p log p

    def loss_and_pieces(visit):
        block, at, weight = visit
        loss, pieces = _rest_of_block(circuits, closure, p_log_p, block, at, scale * weight, workspace)
        return loss, block, pieces

    loss, tables = sum_all(loss_and_pieces, visits, circuits.parameters())
    return loss, replace(circuits, **tables)


@one_blas_thread()
def _rest_of_block(circuits, closure, p_log_p, block, at, weight, workspace):
    """Equation 10: the rest of the loss, and the pieces of its gradient."""
    attention = block.attend(circuits.qk, circuits.position)
    out = output(circuits, block, attention, workspace)
    flat, i = out.reshape(-1, circuits.n_vocab), at.ravel()
    k = closure.cell[i]
    away = closure.c_U[i, :len(closure.R)] - closure.cbar_U[k]
    p, response = (workspace.array(name, flat.shape, flat.dtype) for name in ("p", "response"))
    np.take(closure.p, k, axis=0, out=p, mode="clip")
    np.matmul(away, closure.R_Jbar, out=response)
    # KL(p_k, softmax(out_t)) = p_k . (log p_k - out_t) + log Z_t,  log Z_t = largest out_t - log of its probability
    KL = p_log_p[k] - np.einsum("ib,ib->i", p, flat) + flat.max(axis=1)
    probabilities(flat)
    KL -= np.log(flat.max(axis=1))
    second = 0.5 * np.einsum("ir,ir->i", response @ closure.R.T, away)
    loss = float(np.sum(weight.ravel() * (KL - second), dtype=np.float64))
    flat -= p
    flat -= response
    return loss, backward(circuits, block, attention, out, weight.astype(out.dtype), workspace)
