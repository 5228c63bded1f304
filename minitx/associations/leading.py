"""Weights predicted by the leading terms of the gradient, the proved bounds, and trained weights beside both.

Legend: T positions, V vocabulary, s steps, eta learning rate; alpha_a frequency of token a.
"""

from dataclasses import dataclass
from math import comb, sqrt
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import Statistics
from minitx.base.checks import instance, not_negative, positive, truth, whole_number
from minitx.base.numbers import Agreement, agreement, norm
from minitx.base.shown import Shown
from minitx.model.weights import OneHotWeights


def leading_weights(statistics: Statistics, *, steps: int, learning_rate: float) -> OneHotWeights:
    """Leading terms of the weights after ``steps`` steps of full-batch gradient descent from zero, in float64.

    Im et al. (2026), Theorems D.7 and D.10:
    W_O ~ s eta B,  V ~ C(s,2) eta^2 Phi^T B^T,  W ~ (3 C(s,4) + 2 C(s,3)) eta^4 Q,  P ~ (the same) eta^4 Delta.

    Raises
    ------
    ValueError
        ``steps`` is not a whole number from 0 to 10^12, or ``learning_rate`` is not a number above 0; the statistics
        are of counts without scores.
    """
    instance("statistics", statistics, Statistics)
    _require_run(steps, learning_rate)
    if statistics.attention is None:
        raise ValueError("statistics have no scores, so W and P cannot be predicted; finish counts with their scores: "
                         "counts.finish(Scores.of(windows, counts.score_table()))")
    attention = (3 * comb(steps, 4) + 2 * comb(steps, 3)) * learning_rate**4
    return OneHotWeights(W_O=steps * learning_rate * statistics.bigram,
                         V=comb(steps, 2) * learning_rate**2 * statistics.value,
                         W=attention * statistics.attention, P=attention * statistics.position)


def second_order_output(statistics: Statistics, *, steps: int, learning_rate: float) -> NDArray[np.float64]:
    """W_O to second order, s eta B - C(s,2) (eta^2 / V) diag(alpha) B; its error is O(eta^3). (V, V), as W_O."""
    instance("statistics", statistics, Statistics)
    _require_run(steps, learning_rate)
    shrink = comb(steps, 2) * learning_rate**2 / statistics.n_vocab * statistics.frequency
    return (steps * learning_rate - shrink[:, None]) * statistics.bigram


@dataclass(frozen=True)
class Bounds(Shown):
    """Bounds on |weight - leading term| (Frobenius), by weight. They are proved when ``outside`` is empty.

    ``outside`` says in words which conditions of the theorem the run does not meet.
    """

    MADE_BY: ClassVar[str] = "minitx.associations.bounds(steps=..., learning_rate=..., length=..., n_vocab=...)"

    W_O: float
    V: float
    W: float
    P: float
    outside: tuple[str, ...]


def bounds(*, steps: int, learning_rate: float, length: int, n_vocab: int, n_layers: int = 1, init_scale: float = 0.0,
           full_batch: bool = True) -> Bounds:
    """Bounds of Theorem D.7 (one layer) or D.10 (more) of Im et al. 2026 for training from zero.

    ``length``, ``n_vocab`` and ``n_layers`` are T, V and L. Steps that do not use the full batch, and a start that is
    Gaussian with standard deviation ``init_scale``, are outside these two theorems; the bounds of Theorem D.13, for
    starts of at most eta^2 / (T^2 V), are not computed here.

    Raises
    ------
    ValueError
        A size that is not a whole number, at least 1; a negative ``init_scale``; steps and learning rate as for
        :func:`leading_weights`. TypeError if ``full_batch`` is neither True nor False.
    """
    _require_run(steps, learning_rate)
    for name, value in (("length", length), ("n_vocab", n_vocab), ("n_layers", n_layers)):
        whole_number(name, value, 1)
    init_scale, full_batch = not_negative("init_scale", init_scale), truth("full_batch", full_batch)
    time, T = steps * learning_rate, length
    one_layer = n_layers == 1
    limit = 3 / (8 * T**0.375) if one_layer else min(1 / (12 * n_layers), 5 / (8 * sqrt(T)))
    conditions = [(time <= limit, f"s eta = {time:.4g} is above {limit:.4g}"),
                  (T >= (3 if one_layer else 60), f"T = {T} is below {3 if one_layer else 60}"),
                  (n_vocab >= 500, f"V = {n_vocab} is below 500"),
                  (one_layer or n_layers <= sqrt(T) / 4, f"L = {n_layers} is above sqrt(T)/4 = {sqrt(T) / 4:.3g}"),
                  (full_batch, "mini-batches, not the full batch"),
                  (init_scale == 0, f"the start is Gaussian (s.d. {init_scale:.3g}), not zero")]
    value, attention = (4, 6) if one_layer else (12, 13)
    return Bounds(W_O=3 * time**2, V=value * time**3, W=attention * time**5 * T, P=attention * time**5 * T,
                  outside=tuple(words for met, words in conditions if not met))


def _require_run(steps, learning_rate):
    """ValueError unless steps and learning rate can be, and their fourth powers cannot overflow."""
    if whole_number("steps", steps, 0) > 10**12:
        raise ValueError(f"steps is {steps}; give at most 10^12, because more are not training")
    positive("learning_rate", learning_rate, below=1e60)


@dataclass(frozen=True)
class Beside(Agreement):
    """Trained weights beside their leading terms after ``step`` steps; every dict is {parameter: number}.

    Besides the cosine and the relative error it holds ``over_bound``, which is |weight - leading term| / its proved
    bound (nan where the bound underflows to 0), and ``outside``, as :class:`Bounds` has it.
    """

    step: int
    loss: float
    over_bound: dict[str, float]
    outside: tuple[str, ...]


def beside(weights: OneHotWeights, leading: OneHotWeights, bounds: Bounds, *, step: int, loss: float) -> Beside:
    """Set ``weights`` beside their ``leading`` terms and the ``bounds`` of the theorem."""
    instance("bounds", bounds, Bounds)
    whole_number("step", step, 0)
    found, over_bound = agreement(weights, leading), {}
    for name, array in weights.parameters().items():
        error, bound = norm(np.subtract(array, getattr(leading, name), dtype=np.float64)), getattr(bounds, name)
        over_bound[name] = error / bound if bound > 0 else float("nan")
    return Beside(found.cosine, found.relative_error, step, loss, over_bound, bounds.outside)
