"""Reduced dynamics: gradient descent on a closure, and a prediction that says how good it is.

The closure, equations 1 to 9, is that of :mod:`minitx.associations.closure`, and its rest, equation 10, that of
:mod:`minitx.associations.rest`.

**A prediction that says how good it is.** ``descend(tolerance=0.05)`` corrects the closure, and estimates what is still
missing. The windows are cut into 32 parts, of which a step samples 2, in turn; a pass has visited all of them.

    10  the rest: what the closure leaves out of the gradient, exact on sampled windows
        (:mod:`minitx.associations.rest`)
    11  gradient = that of the closure, with all of M in equation 8,
        + (number of parts / number sampled) x rest on the sampled parts
    12  S_v = what the corrections of a pass have added to a weight after v of its m steps,
        error of the weight = 2 max |S_v - (v/m) S_m| / |weight|, the largest of the quarters of all passes so far

The sampled rests of a pass sum to about the whole rest, so what is uncertain is the path between: how far it leaves a
straight line. Of the present pass the largest difference of a correction and the mean of the last pass counts, and of
the first pass all that it has moved. No estimate is below the rounding of exact training, which is all of the error of
the first steps: eps N times 0.015, 0.015, 0.045 and 0.06 for W_O, V, W and P, because the gradients of N windows are
added one by one.

**A step takes fewer operations than an exact one**, or it is one: on batches so small that the closure is not cheaper.
When the estimate comes near the tolerance, steps sample twice as many parts if they are still cheaper than exact ones;
the descent ends where an estimate exceeds it. An exact step is counted as 6 V operations for each pair of a position
and one that it attends to. A corrected one is counted as 1,400 for each of these pairs, 2 (K + 2 V) V^2, and 2.5 times
its share of the windows of an exact one (:func:`cost`): lookups run at a lower rate than products of matrices, and this
rate is part of the numbers. They were set by the processor time of 17 sizes (V of 200 to 800, T of 16 to 128, 300 to
3,700 windows), so that a step which is counted as cheaper takes less time: on these sizes it took .67 to .96 of the
time of an exact one. Sizes that are counted as dearer took up to 2.3 of it, but a few took .8. With 400 words and T =
64 the closure is used from about 500 windows on, with 200 words never.

More cells, or more directions of the response, do not help more than more windows: on `python-docs` (V = 200, T = 32,
1,000 windows, eta = 1) the estimates of W_O, V, W and P at step 300 are 0.0026, 0.0022, 0.0026 and 0.0028 with 3 V
cells. With 6 V cells, which add 0.08 of an exact step, they are 0.0017, 0.0013, 0.0016 and 0.0019; with twice the
windows, which add 0.16, 0.0013, 0.0011, 0.0013 and 0.0015; with eight directions, for which the closure takes 7% more
time, 0.0022, 0.0020, 0.0024 and 0.0027. Fewer cells cost little less and are far worse: on TinyStories with V = 200, T
= 16 and 1,000 windows and V cells, P was off by 1.3% at step 25, and the prediction ended at step 26. The first passes
are the exception: the estimate of P reaches 0.3% at step 28 with 3 V cells, at 33 with twice the windows, and nowhere
with 6 V cells. But it rises so fast that cells which are added where it comes near the tolerance come too late: it
passes the last quarter of a tolerance of 0.003 in one step, and with tolerances of 0.006 and 0.01 the prediction
reached step 300 with and without 3 V more cells.

``experiments/tolerance.py`` measures estimate and error on four texts, in float32 with tolerance 0.05, where the
closure is used although it is dearer. On TinyStories with V = 400, T = 32, 1,000 windows and eta = 2, where the closure
alone holds every weight within 5% up to step 375, no error was above 0.5% up to step 1,000. On `python-docs` (V = 200,
T = 32, eta = 1, 300 steps), which was held out when the factor 2 was chosen, the estimate is 3.9 times the error on
average and never below it, from step 3 on. On four texts with T = 64 and about 2,000 windows, where the closure is
cheaper, the estimate is 5 to 6.3 times the error on average, and below it at one recorded step of thirty. There are
texts on which it is less reliable: on `python-docs` with V = 400, T = 64 and 1,000 windows it is below the error at 4
of 15 recorded steps, once as little as 0.6 of it.

The estimate is not safe at the edge of stability, where eta times the largest eigenvalue of the Hessian exceeds 2.
Exact training may stay on such a ridge until rounding has grown, and any other path leaves it at once. On TinyStories
with V = 150, T = 16, 400 windows and eta = 2 this happens at step 150. Up to step 180 no estimate is below the error;
from step 200 to 280 most are, and W is off by up to 1.3%, where the estimate is 0.3%.

What else was tried, on the first of these texts with cells of one number (errors of W_O, V, W, P). The closure alone
with 3 V cells: 0.014, 0.046, 0.063, 0.092 at step 200, and 0.094, 0.244, 0.348, 0.229 at 400. With 1 of 32 parts
sampled: 0.003, 0.005, 0.005, 0.008, and 0.005, 0.008, 0.017, 0.006. Sampling without a closure, the gradients of the
other windows as they were last: W and P miss all of the weight at step 200. A closure of first order, a cell a token
and 4 parts sampled: 0.012, 0.023, 0.068, 0.030. The rests of all parts as they were last, which need a gradient of
memory for each part: no better than unbiased ones. As an estimate, the distance of two corrected walks is 0.1 of their
common error at the edge of stability, and costs a second walk; what the corrections of half a pass add is 3 to 12 times
the error, because most of it is a trend that is right.

What cells are cut by, without a correction. On the same text every weight of the closure is within 5% up to step 210
with cells of one number, 345 with two, 375 with three or four, and with two principal axes of the four, which need a
covariance more, up to 360. On TinyStories with V = 800, T = 32, 300 windows and eta = 2 it is within 5% up to step 225
with one number, and beyond 300 with two or four. On `stories` (V = 200, T = 32, 1,000 windows, eta = 1) the errors at
step 300 are 0.011, 0.035, 0.037, 0.043 with one number, 0.007, 0.021, 0.019, 0.021 with two, and 0.002, 0.007, 0.006,
0.010 with four. Four is what is used, because the response needs c_t in four directions anyway: finding the cells takes
as long as with one number. Where cells are cut at their mean, without rounds of 2-means, the errors of V are a fifth
larger at steps 75 and 150. With eight numbers and eight directions every weight is within 5% up to step 345 instead of
375 on the first text, and up to 255 instead of 210 on `python-docs`. ``experiments/closures.py`` measures closures in
which a Jacobian for each of the 32 most frequent tokens is added, or numbers are those of the exact outputs.

Legend: N windows, T positions, V vocabulary; n loss positions.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import next_token_vocabulary
from minitx.associations.closure import Reduction, close, loss_and_gradient, reduce, require_fit
from minitx.associations.rest import cut_windows, sampled_rest
from minitx.base import parallel
from minitx.base.checks import instance, positive, whole_number
from minitx.data.batch import Batch
from minitx.model import circuits, descent
from minitx.model.pieces import Workspace
from minitx.model.weights import OneHotWeights

__all__ = ["Estimated", "Reduction", "cost", "descend", "loss_and_gradient", "reduce"]

PARTS, FIRST_PARTS = 32, 2  # Parts that the windows are cut into; how many of them a step samples at first.
GROW = 0.75  # Share of the tolerance from which on a pass samples twice as many windows, if that is affordable.
SAFETY = 2  # The factor of equation 12.
EXACT, LOOKUPS = 6, 1400  # Operations for each pair of positions: V times as many of an exact step, and of a closure.
SAMPLED = 2.5  # A sampled window takes as many operations as so many windows of an exact step.
# Exact training is off by so many units of rounding for each window: with 300 to 4,000 windows of six texts by .013,
# .013, .039 and .051 at most in the first steps. Fewer windows than FEW were not measured, and count as so many.
ROUNDING = {"W_O": 0.015, "V": 0.015, "W": 0.045, "P": 0.06}
FEW = 300


def descend(weights: OneHotWeights, batch: Batch, *, order: int = 2, n_cells: int | None = None,
            tolerance: float | None = None, **settings: Any) -> descent.Trajectory:
    """Gradient descent by reduced dynamics: :func:`minitx.descend` on ``reduce(batch, order=order, n_cells=n_cells)``.

    The dtype of ``weights``, the start, is the precision of the work. ``settings`` are those of :func:`minitx.descend`
    (learning_rate, steps, keep, frozen, normalised, callback). The trajectory holds the predicted weights and loss.
    Raises as these two functions and :func:`loss_and_gradient`.

    With a ``tolerance`` the closure is corrected on sampled windows (equations 10 to 12), and the trajectory is an
    :class:`Estimated` one, which says how far the prediction is from exact training. It ends before its last step, with
    ``stopped.kind`` "inaccurate", where the relative error of a weight is estimated to exceed the tolerance. A step
    takes fewer operations (:func:`cost`) than an exact one; on a batch so small that the closure is not cheaper, every
    step is an exact one, unless ``n_cells`` is given.
    """
    instance("weights", weights, OneHotWeights)
    n_vocab = len(weights.W_O)
    if tolerance is None:
        data = reduce(batch, n_vocab, order=order, n_cells=n_cells)
        return descent.descend(weights, data, loss_and_gradient=loss_and_gradient, **settings)
    if settings.get("optimiser") is not None:
        raise ValueError("tolerance is for gradient descent; leave optimiser out")
    tolerance, first = positive("tolerance", tolerance), whole_number("start_step", settings.get("start_step", 0), 0)
    next_token_vocabulary(batch, n_vocab)
    data = reduce(batch, n_vocab, order=order, n_cells=n_cells)
    require_fit(weights, data)
    parts = cut_windows(batch, n_vocab, PARTS, data.sequence, data.at, weights.W_O.dtype)
    cheap = n_cells is not None or cost(batch, n_vocab, data.n_cells, FIRST_PARTS / PARTS) < 1
    taken = min(FIRST_PARTS, len(parts)) if cheap else len(parts)
    corrected = _Corrected(batch, data, parts, taken, tolerance)
    run = descent.descend(weights, itertools.count(first), loss_and_gradient=corrected, **settings)
    known = len(run.loss)
    share = np.array(corrected.share[:known])
    return Estimated(**vars(run), share=share, cost=np.where(share < 1, corrected.own + SAMPLED * share, 1.0), error={
        name: np.array([found[name] for found in corrected.error[:known]]) for name in weights.parameters()})


def cost(batch: Batch, n_vocab: int, n_cells: int, share: float) -> float:
    """The operations of a step that samples a ``share`` of the windows of ``batch``, over those of an exact step.

    They are counted, because a choice by time would not be repeated by the next run.
    """
    pairs = float(np.sum(np.nonzero(batch.weight)[1] + 1.0))
    exact = EXACT * pairs * n_vocab
    return (2.0 * (n_cells + 2 * n_vocab) * n_vocab**2 + LOOKUPS * pairs) / exact + SAMPLED * share


@dataclass(frozen=True, eq=False)
class Estimated(descent.Trajectory):
    """A prediction that knows how far it is from exact training.

    ``error`` is {weight: (steps taken + 1,) float64}, the estimated relative error after each number of steps, nan as
    long as the weight is 0. ``share``, (steps taken + 1,) float64, is the share of the windows that each step samples,
    and ``cost``, of the same shape, its operations over those of an exact step. The ``loss`` is estimated from the
    sampled windows, too.
    """

    error: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    share: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    cost: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class _Corrected:
    """The objective of equations 10 to 12: it keeps account of how far its corrections have moved the weights."""

    def __init__(self, batch, reduction, parts, taken, tolerance):
        self.batch, self.reduction, self.parts, self.tolerance = batch, reduction, parts, tolerance
        self.own = cost(batch, len(reduction.frequency), reduction.n_cells, 0.0)  # of the closure alone
        self.taken, self.next = taken, 0  # parts that a step samples; the first of them
        self.error, self.share = [], []  # of each step
        self.workspace = Workspace()
        self.before = None  # weights, gradient and rest of the last step
        self.mean, self.off = {}, {}  # by weight: mean correction of the last pass; the most that any pass was off
        self._start_pass()

    def __call__(self, weights, step):
        """Loss and gradient after ``step`` steps; DescentEnded where the error is estimated to exceed the tolerance."""
        if self.before is not None:
            self._account(weights)
        self._estimate(weights, step)
        if self.taken == len(self.parts):  # the closure and all of its rest would be the exact gradient
            return circuits.loss_and_gradient(weights, self.batch)
        tables, n_parts = weights.circuits(), len(self.parts)
        chosen = [self.parts[(self.next + i) % n_parts] for i in range(self.taken)]
        self.next += self.taken
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"), parallel.one_blas_thread():
            loss, gradient, closure = close(weights, self.reduction, tables.ov)
            rest_of_loss, rest = sampled_rest(tables, closure, chosen, n_parts / self.taken, self.workspace)
            loss, rest = loss + rest_of_loss, weights.pullback(rest)
            gradient = weights.pullback(gradient).map(np.add, rest)
        self.before = weights, gradient, rest
        return loss, gradient

    def _start_pass(self):
        self.steps, self.visits = 0, 0  # of this pass: steps, and parts that were sampled
        self.moved, self.marks = {}, []  # sums of corrections; [(steps, these sums)] at the quarters
        self.jump = {}  # the largest differences of a correction and the mean of the last pass

    def _account(self, weights):
        """Add what the correction has moved in the last step, at the learning rate that its length shows."""
        before, gradient, rest = self.before
        for name, array in weights.parameters().items():
            size = _norm(getattr(gradient, name))
            rate = _norm(array - getattr(before, name)) / size if size else 0.0
            correction = rate * getattr(rest, name)
            self.moved[name] = self.moved.get(name, 0) + correction
            self.jump[name] = max(self.jump.get(name, 0.0), _norm(correction - self.mean.get(name, 0)))
        quarter, self.visits = 4 * self.visits // len(self.parts), self.visits + self.taken
        self.steps += 1
        if quarter < 4 * self.visits // len(self.parts) < 4:
            self.marks.append((self.steps, dict(self.moved)))

    def _end_pass(self):
        """Find how far the corrections of this pass were from a straight line; the next pass begins."""
        self.mean = {name: moved / self.steps for name, moved in self.moved.items()}
        for name, mean in self.mean.items():
            self.off[name] = max([self.off.get(name, 0.0),
                                  *(_norm(moved[name] - steps * mean) for steps, moved in self.marks)])
        self._start_pass()

    def _estimate(self, weights, step):
        """Equation 12; more windows are sampled, or the descent ends, where the error comes near the tolerance."""
        n_parts = len(self.parts)
        if self.visits >= n_parts:
            self._end_pass()
        unit = max(len(self.reduction.tokens), FEW) * np.finfo(weights.W_O.dtype).eps
        error = {}
        for name, array in weights.parameters().items():
            if self.mean:
                off = max(self.off[name], self.jump.get(name, 0.0))
            else:  # what the first pass has moved
                off = _norm(self.moved.get(name, 0))
            size = _norm(array)
            error[name] = max(SAFETY * off / size, ROUNDING[name] * unit) if size else np.nan
        self.error.append(error)
        self.share.append(self.taken / n_parts)
        if self.mean and self.visits == 0 and np.nanmax(list(error.values())) > GROW * self.tolerance \
                and self._affordable():
            self.taken *= 2
        elif exceeding := [f"{name} by {size:.1%}" for name, size in error.items() if size > self.tolerance]:
            raise descent.DescentEnded(descent.Stopped("inaccurate", step, (
                f"step {step}: from here on the prediction is estimated to be off by more than the tolerance, "
                f"{self.tolerance:.1%}: {', '.join(exceeding)}")))

    def _affordable(self):
        """Whether a step that samples twice as many parts takes fewer operations than an exact one."""
        return self.own + SAMPLED * 2 * self.taken / len(self.parts) < 1


@parallel.one_blas_thread()
def _norm(array):
    """The norm in float64, for less than a tenth of a step; :func:`minitx.base.numbers.norm` takes three times as long.
    """
    flat = np.ravel(array)
    return float(np.sqrt(np.einsum("i,i->", flat, flat, dtype=np.float64)))
