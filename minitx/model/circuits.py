"""One attention layer as a lookup in four tables: its loss and its exact gradient, written by hand.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K answers, U distinct tokens.

:func:`loss_and_gradient` cuts the batch into blocks, :func:`loss_and_pieces` goes through the numbered steps of the
room's account (``help(minitx.model)``), and the pieces of all blocks are added to the tables. Nothing here belongs to a
paper: each theory is a parametrisation of these tables (``weights.py``).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from minitx.base.parallel import one_blas_thread, workers
from minitx.data.batch import Batch
from minitx.model import kernels
from minitx.model.blocks import Attention, Block, Positions, blocks, waves
from minitx.model.parameters import Array, Kind, Parameters, or_empty, read_only
from minitx.model.pieces import Pieces, add_pieces


@dataclass(frozen=True, eq=False)
class Circuits(Parameters):
    """The four tables, and a bias, that a one-layer attention-only transformer is; all are float64, or all float32.

    A table that is None is absent: it counts as zero and is not trained. A gradient is a Circuits too.

    Parameters
    ----------
    direct : (V, V) floats or None
        Row = current token, column = output (next) token.
    ov : (V, V) floats
        Row = attended token, column = output token.
    qk : (V, V) floats or None
        Row = query (current) token, column = key (attended) token.
    position : (at least T,) floats or None
        ``position[r]`` is added to the score of the token r places back; for causal attention only.
    bias : (V,) floats or None
        Added to every output.
    """

    SHAPES: ClassVar[dict[str, str]] = {"direct": "VV", "ov": "VV", "qk": "VV", "position": "T", "bias": "V"}

    direct: Array | None
    ov: Array
    qk: Array | None
    position: Array | None
    bias: Array | None

    def __post_init__(self) -> None:
        for name, table in self.parameters().items():
            object.__setattr__(self, name, read_only(np.asarray(table)))

    def circuits(self) -> "Circuits":
        """The tables themselves, which are the simplest weights."""
        return self

    def pullback(self, gradient: "Circuits") -> "Circuits":
        """The gradient of the tables itself."""
        return gradient

    @property
    def n_vocab(self) -> int:
        """V."""
        return self.ov.shape[0]


def valid_circuits(weights: Parameters, batch: Batch) -> Circuits:
    """The circuits of ``weights``, C-contiguous. Raises as :func:`loss_and_gradient` unless they and ``batch`` fit."""
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch (tokens, targets, weight), got {type(batch).__name__}")
    if broken := weights.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
    circuits = weights.circuits_for(batch.tokens)
    ov, position, length = circuits.ov, circuits.position, batch.tokens.shape[1]
    if ov is None:
        raise ValueError("ov is None; it must be a (V, V) table")
    circuits.require_shapes()
    for name, table in circuits.parameters().items():
        if table.dtype not in (np.float32, np.float64) or table.dtype != ov.dtype:
            raise ValueError(f"{name} is {table.dtype} and ov {ov.dtype}; all tables must be float64, or all float32")
    if position is not None and not batch.causal:
        raise ValueError("position scores need causal attention, where t - j >= 0; set position to None")
    if position is not None and len(position) < length:
        raise ValueError(f"position has shape {position.shape}, but the sequences have {length} positions; "
                         f"build the weights with length={length} or more")
    batch.require_vocabulary(circuits.n_vocab)
    if broken := circuits.not_finite():
        raise FloatingPointError(f"{', '.join(broken)} overflows {ov.dtype}, though the weights are finite")
    return circuits.map(np.ascontiguousarray)


def loss_and_gradient(weights: Kind, batch: Batch) -> tuple[float, Kind]:
    """Loss of ``batch`` and its exact gradient.

    Parameters
    ----------
    weights : Circuits, OneHotWeights, or any parametrisation
        Any :class:`minitx.model.parameters.Parameters` with ``circuits()`` and ``pullback(gradient)``.
    batch : Batch

    Returns
    -------
    loss : float
    gradient : same type as ``weights``
        dL/dweights, each array in the orientation of its weight.

    Raises
    ------
    ValueError
        Shapes, dtypes, tokens or values that cannot be (see :class:`Batch`, :class:`Circuits`).
    FloatingPointError
        The loss, or a table, is not finite although the weights are; or a derivative is nan, because derivatives of the
        circuits that overflow are added, or multiplied by 0.

    Notes
    -----
    The head ``log`` never takes the logarithm of a stored probability. The output is out_y = sum_j A_tj v_j with v_j =
    ov[x_j, y] + direct[x_t, y] + bias[y], and -log(out_y) is computed from the scores and v_j. If all v_j lie in [0, 1]
    (ov is the identity, or its rows are probabilities), the loss is as accurate as the scores are, however near out_y
    is to 0 or 1; so is dL/d score_j where v_j is 0 or 1, else up to rounding of the largest v_k - v_j. If some v_j are
    negative, digits that cancel in sum_j A_tj v_j are lost. The derivatives in ov, direct and bias are multiples of 1 /
    out_y; an entry that exceeds the range of floats is inf.
    """
    circuits = valid_circuits(weights, batch)
    tables = {name: np.zeros_like(table) for name, table in circuits.parameters().items()}
    cut, losses = blocks(batch, circuits.n_vocab, circuits.ov.dtype), []
    with workers(len(cut)) as run:
        for wave in waves(cut):
            results = run(lambda block: loss_and_pieces(circuits, block), wave)
            losses += [loss for loss, _ in results]
            add_pieces(run, [(block, pieces, tables) for block, (_, pieces) in zip(wave, results, strict=True)])
    loss = float(np.sum(losses))
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: the outputs overflow, or a probability is 0; "
                                 "use smaller weights or steps")
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = weights.pullback(replace(circuits, **tables))
    if batch.head == "log":
        if broken := [name for name, array in gradient.parameters().items() if np.isnan(array).any()]:
            raise FloatingPointError(f"the derivative in {', '.join(broken)} overflows: it holds 1 / output, and the "
                                     "output is nearly 0; use smaller weights or steps")
    return loss, gradient


def attention_and_output(weights: Parameters, batch: Batch) -> tuple[Array, Array]:
    """Attention and output at the loss positions of ``batch``; memory N T (T + V), so meant for small batches.

    Returns
    -------
    A : (N, T, T) floats
        Row = query position t, column = key position j; rows sum to 1, or are 0 where the position has no weight.
    out : (N, T, V) floats
        Output (logits, for the cross-entropy head) at position t; 0 where the position has no weight.

    Raises as :func:`loss_and_gradient`.
    """
    circuits = valid_circuits(weights, batch)
    n, length = batch.tokens.shape
    dtype = circuits.ov.dtype
    A, out = np.zeros((n, length, length), dtype), np.zeros((n, length, circuits.n_vocab), dtype)
    for block in Positions.of(batch, dtype).cut(circuits.n_vocab):
        attention = block.attend(circuits.qk, circuits.position)
        s, k = np.nonzero(block.weight)
        row, t = block.rows[s], block.positions[s, k]
        A[row, t, :attention.A.shape[2]] = attention.A[s, k]
        out[row, t] = output(circuits, block, attention, circuits.ov[attention.words])[s, k]
    return A, out


@one_blas_thread()
def loss_and_pieces(circuits: Circuits, block: Block) -> tuple[float, Pieces]:
    """Loss of a block, and its part of dL/d tables: steps 1 to 4, then the same steps in reverse."""
    # 1, 2  A_tj = softmax_j(qk[x_t, x_j] + position[t - j]),  C_tu = sum of A_tj over the keys j of token u
    attention = block.attend(circuits.qk, circuits.position)
    ov = circuits.ov[attention.words]
    if block.head == "log":  # the output, which may underflow, is not stored
        return _log_of_scores(circuits, block, attention, ov)
    # 3  out_t = sum_u C_tu ov[u, :] + direct[x_t, :] + bias
    out = output(circuits, block, attention, ov)
    # 4  loss = sum_t weight_t head(out_t, y_t);  4'  in place, out becomes R, with dout_t = dL/dout_t = scale_t R_t
    answers = block.asked, block.targets, block.weight, block.n_answers
    losses, scale = (kernels.square(out, *answers) if block.head == "squared" else
                     kernels.cross_entropy(out, exp_shifted(block, out), *answers))
    R, by_row, dscore = out, scale[:, :, None], None
    # 3', 2', 1'  dC_tu = dout_t . ov[u, :],  dscore_tj = A_tj (dC_tj - sum_k A_tk dC_tk)
    if circuits.qk is not None or circuits.position is not None:
        dC = np.matmul(R, ov.transpose(0, 2, 1))
        dC *= by_row
        dscore = kernels.attention_backward(attention.A, dC, attention.slots)
    # 3'  D_u = sum_t C_tu dout_t, in the place of the rows of ov
    D = np.matmul((attention.C * by_row).transpose(0, 2, 1), R, out=ov)
    return losses.sum(), Pieces(R, scale, D, attention.words, attention.n_words, dscore)


@one_blas_thread()
def output(circuits: Circuits, block: Block, attention: Attention, ov: Array) -> Array:
    """Step 3: the output at the queries, (S, M, V), from the rows ``ov`` (S, U, V) of the distinct tokens."""
    out = np.matmul(attention.C, ov)
    kernels.add_rows(out.reshape(-1, out.shape[2]), or_empty(circuits.direct, 2, out.dtype), block.current.ravel(),
                     or_empty(circuits.bias, 1, out.dtype))
    return out


def exp_shifted(block: Block, out: Array) -> Array:
    """``out`` becomes exp(out - its maximum), in place. Returns out_y - maximum of every answer, (S, K)."""
    out -= out.max(axis=2, keepdims=True)
    shifted = out[np.arange(len(out))[:, None], block.asked, block.targets]
    np.exp(out, out=out)  # NumPy's exp is vectorised; numba's, without Intel's library, is not
    return shifted


def _log_of_scores(circuits, block, attention, ov):
    """Steps 3, 4 and 4' to 1' under the head ``log``."""
    dtype = ov.dtype
    tables = (or_empty(circuits.direct, 2, dtype), or_empty(circuits.qk, 2, dtype),
              or_empty(circuits.position, 1, dtype), or_empty(circuits.bias, 1, dtype))
    answers = block.asked, block.targets, block.weight, block.n_answers
    losses, R, D, dscore = kernels.log_head(block.keys, block.n_keys, block.mass, block.queries, block.causal, tables,
                                            attention.slots, attention.C, ov, answers)
    scale = np.ones(losses.shape, dtype)
    return losses.sum(), Pieces(R, scale, D, attention.words, attention.n_words, dscore)
