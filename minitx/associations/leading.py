"""Weights predicted by the leading terms of the gradient, the proved bounds, and trained weights beside both.

Legend: T positions, V vocabulary, s steps, eta learning rate; alpha_a frequency of token a.
"""

from dataclasses import dataclass, replace
from functools import partial
from math import comb, exp, log, sqrt
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import Statistics
from minitx.base.checks import instance, not_negative, positive, truth, whole_number
from minitx.base.numbers import Agreement, agreement, norm
from minitx.base.parallel import together
from minitx.base.shown import Shown
from minitx.model.layers import LayeredWeights
from minitx.model.parameters import Parameters
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

    ``outside`` says in words which conditions of the theorem the run does not meet, ``source`` which theorem or lemma
    of Im et al. (2026) it is, and ``probability`` is the least one with which its bounds hold (1: always).
    """

    MADE_BY: ClassVar[str] = "minitx.associations.bounds(steps=..., learning_rate=..., length=..., n_vocab=...)"

    W_O: float
    V: float
    W: float
    P: float
    outside: tuple[str, ...]
    source: str = "Theorem D.7"
    probability: float = 1.0


def bounds(*, steps: int, learning_rate: float, length: int, n_vocab: int, n_layers: int = 1, init_scale: float = 0.0,
           full_batch: bool = True) -> Bounds:
    """The sharpest bounds of Im et al. 2026 that hold for this run; ``length``, ``n_vocab``, ``n_layers``: T, V, L.

    They are those of Lemma D.5 or D.6 (one layer, two or three steps), Theorem D.7 (one layer), D.10 (more layers) or,
    where the start is Gaussian with the standard deviation ``init_scale``, D.13. If none holds they are those of the
    theorem, and ``outside`` says why. Theorem D.13 is about entries N(0, v^2 / V^(2 + 2 xi)) with v <= eta^2 / T^2 and
    xi >= 0; the largest xi that ``init_scale`` allows gives the probability.

    Raises
    ------
    ValueError
        A size that is not a whole number, at least 1; a negative ``init_scale``; steps and learning rate as for
        :func:`leading_weights`. Raises TypeError if ``full_batch`` is neither True nor False.
    """
    _require_run(steps, learning_rate)
    for name, value in (("length", length), ("n_vocab", n_vocab), ("n_layers", n_layers)):
        whole_number(name, value, 1)
    init_scale, full_batch = not_negative("init_scale", init_scale), truth("full_batch", full_batch)
    run = {"steps": steps, "eta": learning_rate, "T": length, "V": n_vocab}
    if init_scale > 0:
        found = _gaussian_start(**run, L=n_layers, scale=init_scale)
    elif n_layers > 1:
        found = _several_layers(**run, L=n_layers)
    else:
        few = _few_steps(**run)
        found = few if few is not None and not few.outside else _one_layer(**run)
    return found if full_batch else replace(found, outside=(*found.outside, "mini-batches, not the full batch"))


def _few_steps(steps, eta, T, V):
    """Lemmas D.5 and D.6, one layer after two and three steps; None after any other number of steps."""
    if steps == 2:
        return Bounds(W_O=eta**2 / sqrt(V), V=2 * eta**3 / sqrt(V), W=0.0, P=0.0, source="Lemma D.5",
                      outside=_unmet((eta <= 1, f"eta = {eta:.4g} is above 1"), (V >= 8, f"V = {V} is below 8")))
    if steps == 3:
        return Bounds(W_O=3 * eta**2, V=2 * eta**3, W=2 * eta**5 * T, P=2 * eta**5 * T, source="Lemma D.6",
                      outside=_unmet((eta <= 1 / 8, f"eta = {eta:.4g} is above 1/8"), _vocabulary(V)))
    return None


def _one_layer(steps, eta, T, V):
    """Theorem D.7."""
    time, limit = steps * eta, 3 / (8 * T**0.375)
    return Bounds(W_O=3 * time**2, V=4 * time**3, W=6 * time**5 * T, P=6 * time**5 * T, source="Theorem D.7",
                  outside=_unmet((time <= limit, f"s eta = {time:.4g} is above {limit:.4g}"),
                                 (T >= 3, f"T = {T} is below 3"), _vocabulary(V)))


def _several_layers(steps, eta, T, V, L):
    """Theorem D.10; one layer is allowed too."""
    time, limit = steps * eta, min(1 / (12 * L), 5 / (8 * sqrt(T)))
    return Bounds(W_O=3 * time**2, V=12 * time**3, W=13 * time**5 * T, P=13 * time**5 * T, source="Theorem D.10",
                  outside=_unmet((time <= limit, f"s eta = {time:.4g} is above {limit:.4g}"),
                                 (T >= 60, f"T = {T} is below 60"), _vocabulary(V),
                                 (L <= sqrt(T) / 4, f"L = {L} is above sqrt(T)/4 = {sqrt(T) / 4:.3g}")))


def _gaussian_start(steps, eta, T, V, L, scale):
    """Theorem D.13: the bounds of D.10 with a probability, for a start of standard deviation v / V^(1 + xi)."""
    largest = eta**2 / (T**2 * V)
    xi = max(0.0, log(largest / scale) / log(V)) if V > 1 else 0.0
    share = exp(-V**(1 + 2 * xi) / 4) + exp(-V**(2 + 2 * xi) / 4) if V**(1 + 2 * xi) < 3000 else 0.0
    found = _several_layers(steps, eta, T, V, L)
    return replace(found, source="Theorem D.13", probability=max(0.0, 1 - (3 * L + 1) * share),
                   outside=found.outside + _unmet(
                       (scale <= largest, f"the start is Gaussian (s.d. {scale:.3g}), above eta^2 / (T^2 V) = "
                                          f"{largest:.3g}"),
                       (T <= V, f"T = {T} is above V = {V}"),
                       (eta >= 1 / T, f"eta = {eta:.4g} is below 1/T = {1 / T:.4g}")))


def _vocabulary(V):
    return V >= 500, f"V = {V} is below 500"


def _unmet(*conditions):
    return tuple(words for met, words in conditions if not met)


def _require_run(steps, learning_rate):
    """Raise ValueError unless steps and learning rate can be, and their fourth powers cannot overflow."""
    if whole_number("steps", steps, 0) > 10**12:
        raise ValueError(f"steps is {steps}; it must be at most 10^12")
    positive("learning_rate", learning_rate, below=1e60)


def for_layers(leading: OneHotWeights, weights: Parameters) -> OneHotWeights | LayeredWeights:
    """The ``leading`` terms in the form of the ``weights``: several layers have the same ones."""
    if isinstance(weights, LayeredWeights) and isinstance(leading, OneHotWeights):
        return LayeredWeights.repeated(leading, weights.n_layers)
    return leading


@dataclass(frozen=True)
class Beside(Agreement):
    """Trained weights beside their leading terms after ``step`` steps; every dict is {parameter: number}.

    Besides the cosine and the relative error it holds ``over_bound``, which is |weight - leading term| / its proved
    bound (nan where the bound is 0), and ``outside`` and ``source``, as :class:`Bounds` has them.
    """

    step: int
    loss: float
    over_bound: dict[str, float]
    outside: tuple[str, ...]
    source: str = "Theorem D.7"


def beside(weights: OneHotWeights | LayeredWeights, leading: OneHotWeights, bounds: Bounds, *, step: int,
           loss: float) -> Beside:
    """Set ``weights`` beside their ``leading`` terms, those of every layer, and the ``bounds`` of the theorem."""
    instance("bounds", bounds, Bounds)
    whole_number("step", step, 0)
    theory = for_layers(leading, weights)
    found, over_bound = agreement(weights, theory), {}
    trained = weights.matrices()
    errors = together(*(partial(_distance, array, theory.matrices()[name]) for name, array in trained.items()))
    for name, error in zip(trained, errors, strict=True):
        bound = getattr(bounds, name.split()[0])  # the same for all layers
        over_bound[name] = error / bound if bound > 0 else float("nan")
    return Beside(found.cosine, found.relative_error, step, loss, over_bound, bounds.outside, bounds.source)


def _distance(a, b):
    return norm(np.subtract(a, b, dtype=np.float64))
