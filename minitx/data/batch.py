"""A batch: which tokens attention reads, which tokens are to be predicted, and how predictions are scored.

Legend: N sequences, T positions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import described, integers, one_of, reals, truth, whole_number
from minitx.base.shown import Shown

HEADS = ("cross_entropy", "squared", "log")


@dataclass(frozen=True, eq=False)
class Batch(Shown):
    """Sequences, targets and weights: ``loss = sum_it weight[i, t] head(out[i, t], targets[i, t])``.

    A batch keeps read-only copies of its arrays, so that it stays what was checked.

    Parameters
    ----------
    tokens : (N, T) integers
        Row = sequence, column = position.
    targets : (N, T) integers
        The token to predict at each position. It is not read where the weight is 0.
    weight : (N, T) floats, or what broadcasts to it, optional
        Weight of each position in the loss; positions of weight 0 cost nothing. Default: 1 / (N T) everywhere, or
        1 / (sum of lengths) within the sequences' lengths.
    lengths : (N,) integers, optional
        Number of tokens of each sequence, for padded batches; what lies beyond is neither read nor attended to.
        Default: T.
    causal : bool
        Whether position t attends to positions 0..t only (default), or to the whole sequence.
    head : {"cross_entropy", "squared", "log"}
        -log softmax(out)[y];  |out - onehot(y)|^2, summed over the V outputs;  -log(out[y]), for outputs that are
        probabilities. The last is computed from the scores, see :func:`minitx.loss_and_gradient`.
    mass : (N, T) floats, or what broadcasts to it, optional
        The number of keys that each token stands for: a mass of 0 hides the token from attention, and masses that are
        shares describe a document of any length. Default: 1.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not agree, tokens that are not integers or are negative, weights that are not finite, no weight
        at all, masses that are negative or leave a loss position nothing to attend to.
    """

    MADE_BY: ClassVar[str] = "Batch(tokens, targets), or the batch() of a Corpus"

    tokens: np.ndarray
    targets: np.ndarray
    weight: np.ndarray = None  # type: ignore[assignment]  # a checked batch has weights and lengths
    lengths: np.ndarray = None  # type: ignore[assignment]
    causal: bool = True
    head: str = "cross_entropy"
    mass: np.ndarray | None = None

    def __post_init__(self):
        tokens, targets = _tokens("tokens", self.tokens, 2), _tokens("targets", self.targets, 2)
        n, length = tokens.shape
        if targets.shape != tokens.shape:
            raise ValueError(f"tokens have shape {tokens.shape} but targets {targets.shape}; "
                             "give one target for each position")
        if tokens.size == 0:
            raise ValueError(f"the batch is empty: tokens have shape {tokens.shape}; give at least one token")
        lengths = np.full(n, length) if self.lengths is None else _tokens("lengths", self.lengths, 1)
        if lengths.shape != (n,) or lengths.min() < 1 or lengths.max() > length:
            raise ValueError(f"lengths must be {n} numbers from 1 to {length}, one for each sequence")
        inside = np.arange(length) < lengths[:, None]
        weight = inside / inside.sum() if self.weight is None else _broadcast(self.weight, "weight", tokens.shape)
        if not weight.any():
            raise ValueError("every position has weight 0: there is nothing to predict; give some position a weight")
        if weight[~inside].any():
            raise ValueError("positions beyond their sequence's length have a weight; set it to 0")
        truth("causal", self.causal)
        one_of("head", self.head, HEADS)
        mass = None if self.mass is None else self._masses(inside, weight)
        read = {"tokens": np.where(inside, tokens, 0), "targets": np.where(weight != 0, targets, 0)}
        for name, array in read.items():
            if array.min() < 0:
                raise ValueError(f"{name} must not be negative, found {array.min()}")
        self._keep(**{name: np.ascontiguousarray(array, np.int32) for name, array in read.items()},
                   lengths=lengths.astype(np.int32), weight=weight, mass=mass)

    def _keep(self, **arrays):
        """Make these arrays the batch's own, and read-only."""
        for name, array in arrays.items():
            object.__setattr__(self, name, array)
            if array is not None:
                array.flags.writeable = False

    def _masses(self, inside, weight):
        """``mass`` checked, and 0 beyond the lengths."""
        mass = np.where(inside, _broadcast(self.mass, "mass", weight.shape), 0.0)
        if mass.min() < 0:
            raise ValueError(f"mass must not be negative, found {mass.min()}")
        reached = np.cumsum(mass, axis=1) if self.causal else mass.sum(axis=1, keepdims=True)
        if alone := np.count_nonzero((weight != 0) & (reached == 0)):
            raise ValueError(f"{alone} loss positions have nothing to attend to: all their keys have mass 0; give one "
                             "of them mass")
        return mass

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.tokens)

    def take(self, rows: Sequence[int] | NDArray | slice) -> "Batch":
        """The sequences ``rows``, with weights scaled by N / len(rows): their loss estimates the loss of this batch."""
        try:
            rows = np.arange(len(self))[rows]
        except (IndexError, TypeError, ValueError):
            raise ValueError(f"rows of the batch are 0 to {len(self) - 1}, got {described(rows)}; give some of them in "
                             "a list, slice or mask") from None
        if rows.ndim != 1 or rows.size == 0:
            raise ValueError(f"take needs at least one row, in a list, slice or mask; got shape {rows.shape}")
        return self._rows(rows, len(self) / len(rows))

    def with_loss(self) -> "Batch":
        """The sequences that have a loss position: their loss is the loss of this batch."""
        return self._rows(np.flatnonzero(self.weight.any(axis=1)), 1.0)

    def _rows(self, rows, scale):
        part = copy.copy(self)  # rows of what was checked are not checked again
        part._keep(tokens=self.tokens[rows], targets=self.targets[rows], lengths=self.lengths[rows],
                   weight=self.weight[rows] * scale, mass=None if self.mass is None else self.mass[rows])
        if not part.weight.any():
            raise ValueError(f"the {len(part)} sequences taken have no loss position; with_loss() takes those with one")
        return part

    def require_vocabulary(self, n_vocab: int) -> None:
        """Raise ValueError unless every token and target is below ``n_vocab``."""
        whole_number("n_vocab", n_vocab, 1)
        for name, array in (("tokens", self.tokens), ("targets", self.targets)):
            if array.max() >= n_vocab:
                raise ValueError(f"{name} hold id {array.max()} but the vocabulary has {n_vocab} tokens (ids 0 to "
                                 f"{n_vocab - 1}); build weights with a larger n_vocab, or map rare tokens to <unk>")

    def require_next_token(self) -> None:
        """Raise ValueError unless the batch is as Im et al. (2026) assume: causal attention, cross-entropy, no mass."""
        if not self.causal or self.head != "cross_entropy" or self.mass is not None:
            raise ValueError("the theory of associations needs causal attention and the head 'cross_entropy', "
                             f"without mass; this batch has causal={self.causal}, head={self.head!r} and "
                             f"{'no ' if self.mass is None else ''}mass")


def _broadcast(array, name, shape):
    """A float64 copy of ``array`` in the shape of the tokens. Raises ValueError unless it fits and is finite."""
    found = reals(name, array)
    try:
        return np.broadcast_to(found, shape).copy()
    except ValueError:
        raise ValueError(f"tokens have shape {shape} but {name} {found.shape}; give one {name} for each position, "
                         "or what broadcasts to that") from None


def _tokens(name, array, ndim):
    """``array`` as integers that fit int32."""
    array = integers(name, array, ndim)
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"{name} must be below 2^31, found {array.min()} to {array.max()}")
    return array
