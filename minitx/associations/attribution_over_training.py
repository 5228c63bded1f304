"""Attribution over training: what every position has added to an entry of a trained weight.

    Theta(s) - Theta(0) = - sum over steps k of eta_k times the part of dL_k/dTheta(k) of each position

L_k is the loss of the batch, or of the mini-batch of step k. The parts of a gradient are those of
:mod:`minitx.associations.attribution`.

Legend: N sequences (windows), T positions; S steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations.attribution import Attribution, checked_entry, gradient_entry
from minitx.associations.gradient_parts import PositionSums
from minitx.base.checks import function, instance, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import Circuits, loss_and_gradient, valid_circuits
from minitx.model.descent import LearningRate, Trajectory, descend, schedule
from minitx.model.weights import OneHotWeights

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AttributionOverTraining(Shown):
    """What every position has added to one entry of a trained weight, and the run that trained it.

    ``positive`` and ``negative``, (S,) each, are the sums of the parts of either sign that each of the S steps added.
    """

    attribution: Attribution
    positive: Array
    negative: Array
    trajectory: Trajectory

    @property
    def course(self) -> Array:
        """The entry at the start and after each step. (S + 1,)"""
        return self.attribution.start + np.concatenate([[0.0], np.cumsum(self.positive + self.negative)])


class _Traced(Batch):
    """A batch that knows which sequences of the whole batch its rows are, also after rows are taken from it."""

    origin: NDArray[np.intp]

    @classmethod
    def of(cls, batch: Batch) -> "_Traced":
        found = cls(batch.tokens, batch.targets, batch.weight, batch.lengths)
        object.__setattr__(found, "origin", np.arange(len(batch)))
        return found

    def _rows(self, rows, scale):
        part = super()._rows(rows, scale)
        object.__setattr__(part, "origin", self.origin[rows])
        return part


@dataclass(eq=False)
class _Recorder:
    """Follows a descent and adds up what each position adds to an entry by each step that is taken."""

    parameter: str
    row: int
    column: int | None
    rate: Callable[[int], float]
    parts: Array
    callback: Callable | None
    positive: list[float] = field(default_factory=list)
    negative: list[float] = field(default_factory=list)
    part: _Traced | None = None  # the batch of the step
    waiting: tuple[int, OneHotWeights, _Traced] | None = None  # what the next step goes from
    sums: tuple[_Traced, PositionSums] | None = None  # of the last batch; the full batch stays the same

    def objective(self, weights, part):
        """The loss and gradient; the batch is kept."""
        self.part = part
        return loss_and_gradient(weights, part)

    def __call__(self, step, loss, weights, gradient):
        """A step has been taken: add what it added."""
        self.settle()
        self.waiting = (step, weights, self.part)
        if self.callback is not None:
            self.callback(step, loss, weights, gradient)

    def settle(self):
        """Add the parts of the step from the weights that wait."""
        if self.waiting is None:
            return
        step, weights, part = self.waiting
        weights = weights.astype(np.float64)
        circuits = valid_circuits(weights, part)
        chosen, entry = gradient_entry(weights, circuits, part, self.parameter, self.row, self.column)
        if self.sums is None or self.sums[0] is not part:
            self.sums = part, PositionSums(part, circuits.n_vocab, chosen)
        added = -self.rate(step) * np.sum(list(self.sums[1].terms(circuits, entry).values()), axis=0)
        self.parts[part.origin] += added
        self.positive.append(float(added[added > 0].sum()))
        self.negative.append(float(added[added < 0].sum()))
        self.waiting = None


def record_attribution(weights: OneHotWeights, batch: Batch, parameter: str, row: int, column: int | None = None, *,
                       learning_rate: LearningRate, callback: Callable | None = None,
                       **settings: Any) -> AttributionOverTraining:
    """Train from ``weights``, and attribute one entry of the trained weight to positions.

    The entry is its start, and the sum over steps k of minus the learning rate of the step times the part of each
    position of dL_k/dTheta(k)[row, column]; L_k is the loss of the batch, or of the mini-batch of step k.

    Parameters
    ----------
    weights : OneHotWeights or Circuits
    batch : Batch
        Next-token training: causal attention, cross-entropy.
    parameter, row, column
        As for :func:`attribution`.
    learning_rate, callback, settings
        As for :func:`minitx.descend`, whose steps, with the same bits, these are. Of its settings, ``steps``,
        ``batch_size``, ``rng``, ``start_step`` and ``keep`` are those that go with parts: a part is the learning rate
        times a part of the gradient, and other rules of descent are no such sums.

    Returns
    -------
    AttributionOverTraining

    Raises
    ------
    ValueError, TypeError
        As :func:`attribution` and :func:`minitx.descend`.

    Notes
    -----
    A step costs a forward pass more than without the record, of the positions that can add something to the entry.
    """
    instance("weights", weights, OneHotWeights, Circuits)
    instance("batch", batch, Batch)
    batch.require_next_token()
    whole_number("steps", settings.get("steps"), 1)
    if others := settings.keys() - {"steps", "batch_size", "rng", "start_step", "keep"}:
        raise TypeError(f"{', '.join(sorted(others))} cannot be set: parts are those of plain gradient descent; leave "
                        "it out")
    if callback is not None:
        function("callback", callback, "callback(step, loss, weights, gradient)")
    row, column = checked_entry(weights.parameters(), parameter, row, column)
    recorder = _Recorder(parameter, row, column, schedule(learning_rate), np.zeros(batch.tokens.shape), callback)
    run = descend(weights, _Traced.of(batch), learning_rate=learning_rate, callback=recorder,
                  loss_and_gradient=recorder.objective, **settings)
    if recorder.waiting is not None and recorder.waiting[0] < run.next_step:  # the callback was interrupted
        recorder.settle()
    start, end = (float(getattr(one, parameter)[row if column is None else (row, column)])
                  for one in (weights, run.weights))
    found = Attribution(parameter, row, column, end, recorder.parts, {}, batch, start)
    return AttributionOverTraining(found, np.array(recorder.positive), np.array(recorder.negative), run)
