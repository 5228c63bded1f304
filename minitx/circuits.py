"""One attention layer as a lookup in four tables: its loss and its exact gradient, written by hand.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M queries, K loss positions, U distinct tokens.

    score_tj = qk[x_t, x_j] + position[t - j]                    (over the allowed j)
    A_tj     = mass_j exp(score_tj) / sum_k mass_k exp(score_tk)
    out_t    = direct[x_t, :] + sum_j A_tj ov[x_j, :] + bias
    loss     = sum_t weight_t head(out_t, y_t)

Nothing here belongs to a paper: each theory is a parametrisation of these tables (``weights.py``).
"""

import copy
from dataclasses import dataclass

import numpy as np

from minitx import kernels
from minitx.blocks import Pieces, Sums, blocks, present, run_blocks
from minitx.checks import integers
from minitx.parallel import one_blas_thread
from minitx.parameters import Parameters, read_only

HEADS = ("cross_entropy", "squared", "log")


@dataclass(frozen=True, eq=False)
class Batch:
    """What is to be predicted, from what, and how it is scored: ``loss = sum_it weight[i, t] head(out[i, t], targets[i, t])``.

    Parameters
    ----------
    tokens : (N, T) integers
        Row = sequence, column = position.
    targets : (N, T) integers
        The token to predict at each position. Not read where the weight is 0.
    weight : (N, T) floats, or what broadcasts to it, optional
        Weight of each position in the loss; positions of weight 0 cost nothing. Default: 1 / (N T) everywhere, or
        1 / (sum of lengths) within the sequences' lengths.
    lengths : (N,) integers, optional
        Number of tokens of each sequence, for padded batches; what lies beyond is neither read nor attended to. Default: T.
    causal : bool
        Whether position t attends to positions 0..t only (default), or to the whole sequence.
    head : {"cross_entropy", "squared", "log"}
        -log softmax(out)[y];  |out - onehot(y)|^2, summed over the V outputs;  -log(out[y]), for outputs that are probabilities.
        The last is computed from the scores, see :func:`loss_and_gradient`.
    mass : (N, T) floats, or what broadcasts to it, optional
        How many keys each token stands for: 0 hides it from attention, shares make a document of any length. Default: 1.

    The arrays are kept as read-only copies, so that a batch stays what was checked.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not agree, tokens that are not integers or are negative, weights that are not finite, no weight at all,
        masses that are negative or leave a loss position nothing to attend to.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weight: np.ndarray | None = None
    lengths: np.ndarray | None = None
    causal: bool = True
    head: str = "cross_entropy"
    mass: np.ndarray | None = None

    def __post_init__(self):
        tokens = _tokens("tokens", self.tokens, 2)
        targets = _tokens("targets", self.targets, 2)
        n, length = tokens.shape
        if targets.shape != tokens.shape:
            raise ValueError(f"tokens have shape {tokens.shape} but targets {targets.shape}; give one target for each position")
        if tokens.size == 0:
            raise ValueError(f"the batch is empty: tokens have shape {tokens.shape}; give at least one sequence of one token")
        lengths = np.full(n, length, np.int32) if self.lengths is None else _tokens("lengths", self.lengths, 1)
        if lengths.shape != (n,) or lengths.min() < 1 or lengths.max() > length:
            raise ValueError(f"lengths must be {n} numbers from 1 to {length}, one a sequence")
        inside = np.arange(length) < lengths[:, None]
        weight = inside / inside.sum() if self.weight is None else _broadcast(self.weight, "weight", tokens.shape)
        if not weight.any():
            raise ValueError("every loss position has weight 0: there is nothing to predict; give some position a weight")
        if weight[~inside].any():
            raise ValueError("positions beyond their sequence's length have a weight; set it to 0")
        if not isinstance(self.causal, (bool, np.bool_)):
            raise TypeError(f"causal is {self.causal!r}; it must be True or False")
        if self.head not in HEADS:
            raise ValueError(f"head is {self.head!r}; it must be one of {', '.join(HEADS)}")
        if self.mass is not None:
            object.__setattr__(self, "mass", self._masses(inside, weight))
        tokens, targets = np.where(inside, tokens, 0), np.where(weight != 0, targets, 0)
        for name, array in (("tokens", tokens), ("targets", targets)):
            if array.min() < 0:
                raise ValueError(f"{name} must not be negative, found {array.min()}")
            object.__setattr__(self, name, np.ascontiguousarray(array, np.int32))
        object.__setattr__(self, "weight", np.ascontiguousarray(weight))
        object.__setattr__(self, "lengths", np.ascontiguousarray(lengths, np.int32))
        self._protect()

    def _protect(self):
        """Make the arrays, which are the batch's own, read-only."""
        for array in (self.tokens, self.targets, self.weight, self.lengths, self.mass):
            if array is not None:
                array.flags.writeable = False

    def _masses(self, inside, weight):
        """``mass`` checked, 0 beyond the lengths."""
        mass = np.where(inside, _broadcast(self.mass, "mass", weight.shape), 0.0)
        if mass.min() < 0:
            raise ValueError(f"mass must not be negative, found {mass.min()}")
        reached = np.cumsum(mass, axis=1) if self.causal else mass.sum(axis=1, keepdims=True)
        if alone := np.count_nonzero((weight != 0) & (reached == 0)):
            raise ValueError(f"{alone} loss positions have nothing to attend to: all their keys have mass 0; give one of them mass")
        return mass

    def __len__(self):
        """Number of sequences."""
        return len(self.tokens)

    def take(self, rows):
        """Batch of the sequences ``rows`` (indices), weights scaled by N / len(rows): its loss estimates this batch's loss."""
        try:
            rows = np.arange(len(self))[rows]
        except IndexError as error:
            raise ValueError(f"rows of the batch are 0 to {len(self) - 1}: {error}") from error
        if rows.ndim != 1 or rows.size == 0:
            raise ValueError(f"take needs at least one row, in a list, slice or mask; got shape {rows.shape}")
        return self._rows(rows, len(self) / len(rows))

    def with_loss(self):
        """Batch of the sequences that have a loss position: the same loss."""
        return self._rows(np.flatnonzero(self.weight.any(axis=1)), 1.0)

    def _rows(self, rows, scale):
        part = copy.copy(self)  # rows of what was checked are not checked again
        for name in ("tokens", "targets", "lengths", "mass"):
            array = getattr(self, name)
            object.__setattr__(part, name, None if array is None else array[rows])
        object.__setattr__(part, "weight", self.weight[rows] * scale)
        part._protect()
        if not part.weight.any():
            raise ValueError(f"the {len(part)} sequences taken have no loss position; take some that have, or use with_loss()")
        return part

    def require_vocabulary(self, n_vocab):
        """Raise ValueError unless every token and target is below ``n_vocab``."""
        for name in ("tokens", "targets"):
            largest = getattr(self, name).max()
            if largest >= n_vocab:
                raise ValueError(f"{name} hold id {largest} but the vocabulary has {n_vocab} tokens (ids 0 to {n_vocab - 1}); "
                                 "build the weights with a larger n_vocab, or map rare tokens to <unk>")

    def require_next_token(self):
        """Raise ValueError unless this is next-token training as Im et al. (2026) have it: causal attention, cross-entropy."""
        if not self.causal or self.head != "cross_entropy" or self.mass is not None:
            raise ValueError("the theory of associations is about causal attention and the head 'cross_entropy', without mass; "
                             f"this batch has causal={self.causal} and head={self.head!r}"
                             + ("" if self.mass is None else " and mass"))


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
        Any :class:`minitx.parameters.Parameters` with ``circuits()`` and ``pullback(gradient)``.
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
    """What :func:`minitx.blocks.run_blocks` asks of a block: its loss, and what it adds to the gradient."""
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


def _broadcast(array, name, shape):
    """A float64 copy of ``array`` in the shape of the tokens. ValueError unless it fits and is finite."""
    array = np.asarray(array, np.float64)
    try:
        array = np.broadcast_to(array, shape).copy()
    except ValueError:
        raise ValueError(f"tokens have shape {shape} but {name} {array.shape}; give one {name} for each position, "
                         "or what broadcasts to that") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(array))} values of {name} are not finite")
    return array


def _tokens(name, array, ndim):
    """``array`` as integers that fit int32."""
    array = integers(name, array, ndim)
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"{name} must be below 2^31, found {array.min()} to {array.max()}")
    return array
