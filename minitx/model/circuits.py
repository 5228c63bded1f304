"""One attention layer as a lookup in four tables: its loss and its exact gradient, written by hand.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K answers, U distinct tokens.

:func:`loss_and_gradient` cuts the batch into blocks; each takes the numbered steps of the room's account
(``help(minitx.model)``), and takes them in reverse, in ``block_kernels.py``; the pieces of all blocks are added to the
tables.
Nothing here belongs to a paper: each theory is a parametrisation of these tables (``weights.py``).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from minitx.base.checks import instance, rectangular
from minitx.base.parallel import one_blas_thread, workers
from minitx.data.batch import Batch
from minitx.model import block_kernels, kernels, product_kernels
from minitx.model.blocks import Attention, Block, Positions, blocks
from minitx.model.parameters import Array, Kind, Parameters, or_empty, read_only
from minitx.model.pieces import Pieces, Workspace, sum_all


@dataclass(frozen=True, eq=False)
class Circuits(Parameters):
    """The four tables and the bias that make up a one-layer attention-only transformer; all float64, or all float32.

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

    MADE_BY: ClassVar[str] = "Circuits(direct, ov, qk, position, bias), or the circuits() of weights"
    SHAPES: ClassVar[dict[str, str]] = {"direct": "VV", "ov": "VV", "qk": "VV", "position": "T", "bias": "V"}

    direct: Array | None
    ov: Array
    qk: Array | None
    position: Array | None
    bias: Array | None

    def __post_init__(self) -> None:
        for name, table in self.parameters().items():
            object.__setattr__(self, name, read_only(rectangular(name, table)))

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
    instance("weights", weights, Parameters)
    instance("batch", batch, Batch)
    if broken := weights.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
    circuits = weights.circuits_for(batch.tokens)
    instance("what circuits() returns", circuits, Circuits)
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


@one_blas_thread()  # one guard serves the whole step: each takes 30 us, and products and blocks would enter four
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
        Shapes, dtypes, tokens or values that are not valid (see :class:`Batch`, :class:`Circuits`).
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
    instance("weights", weights, Parameters)
    if (own := weights.own_loss_and_gradient(batch)) is not None:  # several layers are more than circuits
        return own
    circuits = valid_circuits(weights, batch)
    cut, workspace = blocks_and_workspace(batch, circuits.n_vocab, circuits.ov.dtype)

    def loss_and_pieces(block):
        loss, pieces = forward_and_backward(circuits, block, workspace)
        return loss, block, pieces

    loss, tables = sum_all(loss_and_pieces, cut, circuits.parameters())
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: the outputs overflow, or a probability is 0; "
                                 "use smaller weights or steps")
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = weights.pullback(replace(circuits, **tables))
    instance("what pullback(gradient) returns", gradient, Parameters)
    if batch.head == "log":
        if broken := [name for name, array in gradient.parameters().items() if np.isnan(array).any()]:
            raise FloatingPointError(f"the derivative in {', '.join(broken)} overflows: it holds 1 / output, and the "
                                     "output is nearly 0; use smaller weights or steps")
    return loss, gradient


def loss(weights: Parameters, batch: Batch) -> float:
    """Loss of ``batch``, for a third of what :func:`loss_and_gradient` costs. Raises as that function."""
    instance("weights", weights, Parameters)
    value = weights.own_loss(batch)
    if value is None:
        circuits = valid_circuits(weights, batch)
        cut, workspace = blocks_and_workspace(batch, circuits.n_vocab, circuits.ov.dtype)
        losses: list[float] = []
        with workers(len(cut)) as run:
            run.in_turn(lambda block: forward_and_backward(circuits, block, workspace, slopes=False)[0], losses.append,
                        cut)
        value = float(np.sum(losses))
    if not np.isfinite(value):
        raise FloatingPointError(f"the loss is {value}: the outputs overflow, or a probability is 0; use smaller "
                                 "weights")
    return value


@lru_cache(maxsize=1)
def blocks_and_workspace(batch: Batch, n_vocab: int, dtype: np.dtype) -> tuple[list[Block], Workspace]:
    """The blocks and their workspace; both are kept, because most steps of a descent are on the batch of the last."""
    return blocks(batch, n_vocab, dtype), Workspace()


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
        out[row, t] = output(circuits, block, attention, Workspace())[s, k]
    return A, out


# ------------------------------------------------------------------------------------------------ forward, backward


def forward_and_backward(circuits: Circuits, block: Block, workspace: Workspace, *,
                         slopes: bool = True) -> tuple[float, Pieces]:
    """Loss of a block and, unless only the loss is asked for, its pieces of dL/d tables: steps 1 to 4, and in reverse.

    The pieces are in the memory of ``workspace``.
    """
    if block.head == "log":
        return _log_of_scores(circuits, block)
    losses, pieces = np.zeros(block.queries.shape), _pieces(circuits, block, workspace, slopes)
    block_kernels.forward_and_backward(block.head == "squared", block.sequences, block.distinct, tables_of(circuits),
                                       block.answers, (losses, pieces.G, pieces.D, pieces.dscore))
    return losses.sum(), pieces


def backward(circuits: Circuits, block: Block, attention: Attention, R: Array, scale: Array,
             workspace: Workspace) -> Pieces:
    """Pieces of dL/d tables for any dL/dout_t = scale_t R_t, (S, M, V) and (S, M). Overwrites ``attention.C``."""
    pieces = _pieces(circuits, block, workspace)
    block_kernels.backward(attention.A, attention.C, *block.distinct, block.queries, block.n_queries, block.causal,
                           circuits.ov, R, scale, pieces.G, pieces.D, pieces.dscore)
    return pieces


def output(circuits: Circuits, block: Block, attention: Attention, workspace: Workspace) -> Array:
    """Step 3: the output at the queries, (S, M, V)."""
    direct, ov, _, _, bias = tables_of(circuits)
    out = workspace.array("out", (*block.queries.shape, circuits.n_vocab), ov.dtype)
    product_kernels.outputs(attention.C, attention.words, attention.seen, ov, direct, block.current, bias, out)
    return out


def tables_of(circuits: Circuits) -> tuple[Array, ...]:
    """The tables (direct, ov, qk, position, bias) as kernels take them: an absent one is empty."""
    return tuple(or_empty(getattr(circuits, name), len(shape), circuits.ov.dtype)
                 for name, shape in Circuits.SHAPES.items())


def _pieces(circuits, block, workspace, slopes=True):
    """Memory for the pieces of a block, which is empty for what is not asked for."""
    dtype, (n, n_words), V = circuits.ov.dtype, block.words.shape, circuits.n_vocab
    G, D = (workspace.array(name, (n, n_words if slopes else 0, V), dtype) for name in ("G", "D"))
    scored = slopes and (circuits.qk is not None or circuits.position is not None)
    return Pieces(G, D, np.empty((*block.queries.shape, block.keys.shape[1] if scored else 0), dtype))


def _log_of_scores(circuits, block):
    """Steps 3 and 4 under the head ``log``, and their derivatives; the output is not stored."""
    attention, (direct, ov, qk, position, bias) = block.attend(circuits.qk, circuits.position), tables_of(circuits)
    answers = block.asked, block.targets, block.weight, block.n_answers
    losses, G, D, dscore = kernels.log_head(block.keys, block.n_keys, block.mass, block.queries, block.causal,
                                            (direct, qk, position, bias), attention.slots, attention.C,
                                            ov[attention.words], answers)
    return losses.sum(), Pieces(G, D, dscore)
