"""Learning rates that cannot be too large: a step that gains too little makes this and all later steps half as long.

The loss of attention is of fourth order in W_Q and W_K. Its curvature grows with their norm, and how large they become
depends on every setting, so that no rate chosen beforehand is both stable and quick.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from minitx.model.circuits import loss_and_gradient

SHARE = 0.25  # of what the slope promises that a step must gain: then rate * curvature <= 2 (1 - SHARE) along the step
SHARE_OF_MINI_BATCH = 0.0  # its curvature is that of few documents, larger than that of all
EVERY = 10  # with mini-batches one step in so many is tried, because a trial costs as much as a step
ROUNDING = 8 * np.finfo(np.float64).eps  # of a loss, relative
SMALLEST = 2.0**-60  # least factor of the rate: where even this does not help, the loss is not differentiable


class Backtracking:
    """An objective for :func:`minitx.descend`, which makes its steps shorter where they would not lower the loss.

    Armijo's rule: a step along the gradient g with the rate eta is accepted if

        L(w - eta g) <= L(w) - share * eta * |g|^2,

    with share = ``SHARE`` (``SHARE_OF_MINI_BATCH`` on mini-batches), and else eta is halved for good, which is repeated
    until the step is accepted. On a full batch every step is tried, and the loss never rises by more than rounding. On
    mini-batches each of the first ``EVERY`` steps is tried, and then one in ``EVERY``, on its own mini-batch. The rule
    draws nothing, so that the same seed gives the same bits.

    Parameters
    ----------
    rate : float
        The learning rate that :func:`minitx.descend` is given too. ``self.rate`` is what has become of it: the gradient
        that :func:`minitx.descend` receives is multiplied by ``self.rate / rate``, a power of 2.
    frozen : iterable of str
        The weights that do not move, as for :func:`minitx.descend`.
    mini_batches : bool
        Whether the data change from step to step.
    objective : callable
        ``(weights, data) -> (loss, gradient)``.
    """

    def __init__(self, rate: float, *, frozen: Iterable[str] = (), mini_batches: bool = False,
                 objective: Callable = loss_and_gradient):
        self.first = self.rate = rate
        self.frozen, self.mini_batches, self.objective = frozenset(frozen), mini_batches, objective
        self.share = SHARE_OF_MINI_BATCH if mini_batches else SHARE
        self.step = 0
        self._tried: tuple | None = None  # (weights, loss, gradient) of the trial that was accepted

    def __call__(self, weights: Any, data: Any) -> tuple[float, Any]:
        """The loss, and the gradient times ``self.rate / rate``."""
        loss, gradient = self._known(weights) or self.objective(weights, data)
        if not self.mini_batches or self.step < EVERY or self.step % EVERY == 0:
            self._shorten(weights, data, loss, gradient)
        self.step += 1
        factor = self.rate / self.first
        return loss, gradient if factor == 1 else gradient.map(lambda array: array * array.dtype.type(factor))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, from which :meth:`restore` goes on."""
        return {"rate": self.rate, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what :meth:`state` returned."""
        self.rate, self.step, self._tried = state["rate"], state["step"], None

    def _known(self, weights):
        """Loss and gradient of ``weights``, if they are those of the trial that was accepted."""
        if self.mini_batches or self._tried is None:
            return None
        tried, loss, gradient = self._tried
        parts = tried.parameters()
        same = all(np.array_equal(array, parts[name]) for name, array in weights.parameters().items())
        return (loss, gradient) if same else None

    def _shorten(self, weights, data, loss, gradient):
        """Halve the rate until the step from ``weights`` gains enough."""
        slopes = {name: array for name, array in gradient.parameters().items() if name not in self.frozen}
        square = sum(float(np.square(slope, dtype=np.float64).sum()) for slope in slopes.values())
        while True:
            moved = replace(weights, **{name: getattr(weights, name) - slope.dtype.type(self.rate) * slope
                                        for name, slope in slopes.items()})
            reached, at_end = self._at(moved, data)
            if reached <= loss - self.share * self.rate * square + ROUNDING * abs(loss):
                self._tried = moved, reached, at_end
                return
            if self.rate <= SMALLEST * self.first:
                return
            self.rate /= 2

    def _at(self, weights, data):
        """(loss, gradient); an infinite loss where it cannot be computed."""
        try:
            return self.objective(weights, data) if not weights.not_finite() else (np.inf, None)
        except FloatingPointError:
            return np.inf, None
