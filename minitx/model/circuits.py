"""One attention layer as a lookup in four tables: its loss and its exact gradient, written by hand.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K loss positions, U distinct tokens.

    score_tj = qk[x_t, x_j] + position[t - j]                    (over the allowed j)
    A_tj     = mass_j exp(score_tj) / sum_k mass_k exp(score_tk)
    out_t    = direct[x_t, :] + sum_j A_tj ov[x_j, :] + bias
    loss     = sum_t weight_t head(out_t, y_t)

Nothing here belongs to a paper: each theory is a parametrisation of these tables (``weights.py``).
"""

from dataclasses import dataclass

import numpy as np

from minitx.base.parallel import one_blas_thread
from minitx.data.batch import Batch
from minitx.model import kernels
from minitx.model.blocks import Pieces, Sums, blocks, present, run_blocks
from minitx.model.parameters import Parameters, read_only


@dataclass(frozen=True, eq=False)
class Circuits(Parameters):
    """The four tables (and a bias) that a one-layer attention-only transformer is. ``None``: absent (zero, and not trained).

    Parameters
    ----------
    direct : (V, V) floats or None
        Row = current token, column = output (next) token.
    ov : (V, V) floats
        Row = attended token, column = output token.
    qk : (V, V) floats or None
        Row = query (current) token, column = key (attended) token.
    position : (at least T,) floats or None
        ``position[r]`` is added to the score of the token r places back. Causal attention only.
    bias : (V,) floats or None
        Added to every output.

    All of one dtype, float64 or float32. A gradient is the same thing: ``None`` where the table is absent.
    """

    direct: np.ndarray | None
    ov: np.ndarray
    qk: np.ndarray | None
    position: np.ndarray | None
    bias: np.ndarray | None

    def __post_init__(self):
        for name, table in self.parameters().items():
            object.__setattr__(self, name, read_only(np.asarray(table)))

    def circuits(self):
        """Itself: tables are the simplest weights."""
        return self

    def pullback(self, gradient):
        """Itself: the gradient of the tables."""
        return gradient

    @property
    def n_vocab(self):
        """V."""
        return self.ov.shape[0]

    def require_valid(self, batch):
        """Raise ValueError unless shapes and dtypes agree and ``batch`` fits."""
        if self.ov is None or self.ov.ndim != 2:
            raise ValueError(f"ov must be a (V, V) table, got {'None' if self.ov is None else f'shape {self.ov.shape}'}")
        n_vocab = self.n_vocab
        shapes = {"direct": (n_vocab, n_vocab), "ov": (n_vocab, n_vocab), "qk": (n_vocab, n_vocab), "bias": (n_vocab,)}
        for name, table in self.parameters().items():
            if name in shapes and table.shape != shapes[name]:
                raise ValueError(f"{name} has shape {table.shape}; with a vocabulary of {n_vocab} it must be {shapes[name]}")
            if table.dtype not in (np.float32, np.float64):
                raise ValueError(f"{name} is {table.dtype}; tables must be float64 or float32")
            if table.dtype != self.ov.dtype:
                raise ValueError(f"{name} is {table.dtype} and ov {self.ov.dtype}; all tables must be float64, or all float32")
        if self.position is not None:
            length = batch.tokens.shape[1]
            if not batch.causal:
                raise ValueError("position scores need causal attention: they are indexed by t - j >= 0; set position to None")
            if self.position.ndim != 1 or len(self.position) < length:
                raise ValueError(f"position has shape {self.position.shape}, but the sequences have {length} positions; "
                                 f"build the weights with length={length} or more")
        batch.require_vocabulary(n_vocab)


def loss_and_gradient(weights, batch):
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
    The head ``log`` never takes the logarithm of a stored probability. The output is out_y = sum_j A_tj v_j with
    v_j = ov[x_j, y] + direct[x_t, y] + bias[y], and -log(out_y) is computed from the scores and v_j. If all v_j lie in
    [0, 1] (ov is the identity, or its rows are probabilities), the loss is as accurate as the scores are, however near
    out_y is to 0 or 1; so is dL/d score_j where v_j is 0 or 1, else up to rounding of the largest v_k - v_j. If some v_j
    are negative, digits that cancel in sum_j A_tj v_j are lost. The derivatives in ov, direct and bias are multiples of
    1 / out_y; an entry that exceeds the range of floats is inf.
    """
    circuits = valid_circuits(weights, batch)
    gradient = Sums(**{name: np.zeros(table.shape, table.dtype) for name, table in circuits.parameters().items()})
    losses = run_blocks(circuits, batch, lambda block: _loss_and_pieces(circuits, block), [gradient])
    loss = float(np.sum(losses))
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: the outputs overflow, or a probability is 0; use smaller weights or steps")
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = weights.pullback(Circuits(**vars(gradient)))
    if batch.head == "log":
        if broken := [name for name, array in gradient.parameters().items() if np.isnan(array).any()]:
            raise FloatingPointError(f"the derivative in {', '.join(broken)} overflows: it holds 1 / output, and the "
                                     "output is nearly 0; use smaller weights or steps")
    return loss, gradient


def valid_circuits(weights, batch):
    """The circuits of ``weights``, checked: what every function that computes on a batch begins with."""
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch (tokens, targets, weight), got {type(batch).__name__}")
    if broken := weights.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
    circuits = weights.circuits_for(batch.tokens)
    circuits.require_valid(batch)
    if broken := circuits.not_finite():
        raise FloatingPointError(f"{', '.join(broken)} overflows {circuits.ov.dtype}, though the weights are finite")
    return circuits.map(np.ascontiguousarray)


def _loss_and_pieces(circuits, block):
    """What :func:`minitx.model.blocks.run_blocks` asks of a block: its loss, and what it adds to the gradient."""
    if block.head == "log":
        return _log_of_scores(circuits, block)
    loss, cache = forward(circuits, block)
    return loss, [backward(circuits, block, cache)]


@one_blas_thread()
def attention_and_output(weights, batch):
    """Attention and output at the loss positions of ``batch``; memory N T (T + V), so meant for small batches.

    Returns
    -------
    A : (N, T, T) floats
        Row = query position t, column = key position j; rows sum to 1, or are 0 where the position has no weight.
    out : (N, T, V) floats
        Output (logits, for the cross-entropy head) at position t; 0 where the position has no weight.
    """
    circuits = valid_circuits(weights, batch)
    n, length = batch.tokens.shape
    dtype = circuits.ov.dtype
    A, out = np.zeros((n, length, length), dtype), np.zeros((n, length, circuits.n_vocab), dtype)
    for block in blocks(batch, circuits, joined=False):
        cache = attend(circuits, block)
        output(circuits, block, cache)
        s, k = np.nonzero(block.weight)
        row, t, m = block.rows[s], block.positions[s, k], block.asked[s, k]
        to_keys = cache.A if block.causal else _spread(batch, block, cache, circuits.n_vocab)
        A[row, t, :to_keys.shape[2]] = to_keys[s, m]
        out[row, t] = cache.R[s, m]
    return A, out


def _spread(batch, block, cache, n_vocab):
    """Attention to each position from attention to distinct tokens, which copies share by mass. (S, M, T)"""
    tokens, lengths = batch.tokens[block.rows], batch.lengths[block.rows]
    slots = np.empty_like(tokens)
    kernels.distinct(tokens, lengths, n_vocab, slots, np.empty_like(tokens))
    mass = np.arange(tokens.shape[1]) < lengths[:, None] if batch.mass is None else batch.mass[block.rows]
    whole = np.take_along_axis(block.mass, slots, axis=1)
    share = np.divide(mass, whole, out=np.zeros(tokens.shape), where=whole > 0)
    to_words = np.broadcast_to(slots[:, None], (*cache.A.shape[:2], tokens.shape[1]))
    return np.take_along_axis(cache.A, to_words, axis=2) * share[:, None]


# ------------------------------------------------------------------------------------------------ forward, backward


class Cache:
    """What the forward pass of a block leaves for the backward pass, filled in by its steps in turn."""

    A: np.ndarray  # (S, M, T or U) attention to the block's keys
    slots: np.ndarray  # (S, T or U) number of each key's token among the distinct tokens of its sequence
    words: np.ndarray  # (S, U) the distinct tokens
    n_words: np.ndarray  # (S,)
    C: np.ndarray  # (S, M, U) attention per distinct token
    ov: np.ndarray  # (S, U, V) ov rows of the distinct tokens
    R: np.ndarray  # (S, M, V) output, then residual: dL/dout = scale R
    scale: np.ndarray  # (S, M)


def forward(circuits, block):
    """Loss of a block, and the Cache for :func:`backward`."""
    cache = attend(circuits, block)  # 1 attention, 2 distinct tokens
    output(circuits, block, cache)  # 3
    loss = _head(block, cache)  # 4
    return loss, cache


def attend(circuits, block):
    """Steps 1 and 2: attention, and attention per distinct token (a token's copies share their row of ov)."""
    cache = Cache()
    dtype = circuits.ov.dtype
    # 1  A_tj = softmax_j(qk[x_t, x_j] + position[t - j]), by mass
    cache.A = np.empty((*block.queries.shape, block.keys.shape[1]), dtype)
    if block.bags is None:
        kernels.attention_forward(block.keys, block.n_keys, block.mass, block.queries, block.n_queries, block.causal,
                                  *present(circuits, "qk", "position"), cache.A)
    else:
        kernels.bag_attention(*block.bags, block.current[0], *present(circuits, "qk"), cache.A[0])
    # 2  C_tu = sum of A_tj over the positions j of word u
    if block.causal:
        cache.slots, words = np.empty_like(block.keys), np.empty_like(block.keys)
        cache.n_words = kernels.distinct(block.keys, block.n_keys, circuits.n_vocab, cache.slots, words)
        cache.words = np.ascontiguousarray(words[:, :cache.n_words.max()])
        cache.C = np.empty((*block.queries.shape, cache.words.shape[1]), dtype)
        kernels.fold(cache.A, cache.slots, cache.C)
    else:  # the keys are distinct already
        cache.slots = np.broadcast_to(np.arange(block.keys.shape[1], dtype=np.int32), block.keys.shape).copy()
        cache.words, cache.n_words, cache.C = block.keys, block.n_keys, cache.A
    return cache


@one_blas_thread()
def output(circuits, block, cache):
    """Step 3: the output at the queries, into ``cache.R``."""
    # out_t = sum_u C_tu ov[u, :] + direct[x_t, :] + bias
    cache.ov = circuits.ov[cache.words]
    cache.R = np.matmul(cache.C, cache.ov)
    kernels.add_rows(flat(cache.R), present(circuits, "direct")[0], block.current.ravel(), present(circuits, "bias")[0])


def _head(block, cache):
    """Step 4: the loss; ``cache.R`` and ``cache.scale`` become dL/dout."""
    # R, scale and the losses, from out in place: dL/dout_t = scale_t R_t
    answers = (block.asked, block.targets, block.weight, block.n_answers)
    cache.scale = np.empty(block.queries.shape, cache.R.dtype)
    losses = np.empty(block.queries.shape)
    if block.head == "cross_entropy":
        kernels.cross_entropy_head(cache.R, exp_shifted(block, cache), *answers, cache.scale, losses)
    else:
        kernels.squared_head(cache.R, *answers, cache.scale, losses)
    return losses.sum()


def exp_shifted(block, cache):
    """``cache.R`` -> exp(out - its maximum), in place. Returns out_y - maximum of every answer, (S, K)."""
    cache.R -= cache.R.max(axis=2, keepdims=True)
    shifted = cache.R[np.arange(len(cache.R))[:, None], block.asked, block.targets]
    np.exp(cache.R, out=cache.R)  # NumPy's exp is vectorised; numba's, without Intel's library, is not
    return shifted


@one_blas_thread()
def backward(circuits, block, cache):
    """Pieces of dL/d tables: the steps of :func:`forward` in reverse. Uses the cache up: D takes the memory of its ov rows."""
    dout_scale = cache.scale[:, :, None]
    # 3  dC_tu = dout_t . ov[u, :],  D_u = sum_t C_tu dout_t; direct and bias take dout_t as it is
    dC = None
    if circuits.qk is not None or circuits.position is not None:
        dC = np.matmul(cache.R, cache.ov.transpose(0, 2, 1))
        dC *= dout_scale
    D = np.matmul((cache.C * dout_scale).transpose(0, 2, 1), cache.R, out=cache.ov)
    # 1, 2  through the softmax; dA_tj = dC_tu for word u = x_j
    dscore = None
    if dC is not None:
        dscore = np.empty_like(cache.A)
        kernels.attention_backward(cache.A, dC, cache.slots, dscore)
    return Pieces(cache.R, cache.scale, D, cache.words, cache.n_words, dscore)


def _log_of_scores(circuits, block):
    """Loss and pieces of a block under the head ``log``: one step, because the output in the middle may underflow."""
    cache = attend(circuits, block)
    ov = circuits.ov[cache.words]
    R = np.zeros((*block.queries.shape, circuits.n_vocab), ov.dtype)
    D, dscore = np.zeros_like(ov), np.zeros_like(cache.A)
    losses = np.zeros(block.queries.shape)
    kernels.log_head(block.keys, block.n_keys, block.mass, block.queries, block.causal,
                     tuple(present(circuits, "direct", "qk", "position", "bias")), cache.slots, cache.C, ov,
                     (block.asked, block.targets, block.weight, block.n_answers), R, D, dscore, losses)
    pieces = Pieces(R, np.ones(block.queries.shape, ov.dtype), D, cache.words, cache.n_words, dscore)
    return losses.sum(), [pieces]


def flat(array):
    """(S, M, V) -> (S M, V), the same memory."""
    return array.reshape(-1, array.shape[-1])
