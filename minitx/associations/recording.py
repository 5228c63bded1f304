"""The terms of the gradient over training: their norms at some steps, and when each correction exceeds the leading one.

``minitx associate`` records its own training with :class:`TermRecorder`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minitx.associations import terms
from minitx.base.checks import function, instance, steps_within, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import Circuits
from minitx.model.descent import Trajectory, descend
from minitx.model.layers import LayeredWeights
from minitx.model.optimisers import GradientDescent, Optimiser
from minitx.model.weights import OneHotWeights

Weights = OneHotWeights | LayeredWeights | Circuits
Leading = Callable[[int], OneHotWeights | Circuits]


class TermRecorder:
    """A callback for :func:`minitx.descend` that splits the gradient at some steps and keeps the norms of the terms.

    Parameters
    ----------
    batch : Batch
        The gradient is split on it. Give the whole batch, also where training takes mini-batches of it.
    at : iterable of int, optional
        The steps to record, from 1 on. Default: every step.
    leading : callable, optional
        ``leading(step)`` gives the leading terms of the weights at a step, as for :func:`gradient_terms`.
    """

    def __init__(self, batch: Batch, *, at: Iterable[int] | None = None, leading: Leading | None = None):
        instance("batch", batch, Batch)
        batch.require_next_token()
        if leading is not None:
            function("leading", leading, "leading(step)")
        self.batch, self.leading = batch, leading
        self.at = None if at is None else steps_within("at", at, 1, 10**12)
        self.steps: list[int] = []
        self.records: list[terms.Norms] = []  # the norms at each of ``steps``

    def __call__(self, step: int, loss: float, weights: Any, gradient: Any = None) -> None:
        """Record ``step`` if it is one of those asked for."""
        if step >= 1 and (self.at is None or step in self.at):
            self.add(step, weights, None if self.leading is None else self.leading(step))

    def add(self, step: int, weights: Weights, leading: OneHotWeights | Circuits | None) -> None:
        """Record ``step``, with the ``leading`` terms of its weights (None: as :func:`gradient_terms` finds them)."""
        self.keep(step, terms.term_norms(terms.gradient_terms(weights, self.batch, leading=leading)))

    def keep(self, step: int, norms: terms.Norms) -> None:
        """Record ``step``, whose ``norms`` are known already."""
        self.steps.append(step)
        self.records.append(norms)

    def state(self) -> dict[str, list]:
        """What a checkpoint keeps, from which :meth:`restore` goes on."""
        return {"steps": list(self.steps), "records": list(self.records)}

    def restore(self, state: dict[str, list]) -> None:
        """Go on with what :meth:`state` returned."""
        self.steps, self.records = list(state["steps"]), list(state["records"])

    @property
    def norms(self) -> dict[str, dict[str, list[float]]]:
        """{parameter: {term: its norm at each of ``steps``}}."""
        return terms.by_term(self.records)

    @property
    def crossings(self) -> terms.Crossings:
        """When each correction first exceeds shares of the leading term (:func:`minitx.associations.first_exceeds`)."""
        return terms.first_exceeds(self.steps, self.norms)


@dataclass(frozen=True, eq=False)
class TermsOverTraining(Shown):
    """The terms of the gradient at R steps of a training run. ``print`` shows when corrections grow."""

    steps: list[int]  # R, ascending
    norms: dict[str, dict[str, list[float]]]  # {parameter: {term: R Frobenius norms}}
    crossings: terms.Crossings  # {parameter: {correction: {share of the leading term: step, or None}}}
    trajectory: Trajectory

    def __str__(self) -> str:
        return ("step at which a correction first exceeds a share of the leading term (*: before all others; -: never)"
                f"\n{terms.exceeds_table(self.crossings)}")


def record_terms(weights: Weights, batch: Batch, *, steps: int, at: Iterable[int] | None = None,
                 leading: Leading | None = None, **settings: Any) -> TermsOverTraining:
    """Train from ``weights`` and record the terms of the gradient on the way.

    Parameters
    ----------
    weights, batch, steps
        As for :func:`minitx.descend`; the batch is one of next-token training. ``settings`` (learning_rate, batch_size,
        rng, frozen, ...) are those of that function too, but for the callback.
    at : iterable of int, optional
        Steps to record, from 1 to ``steps``. Default: all. A record costs about as much as three steps.
    leading : callable, optional
        ``leading(step)`` gives the leading terms of the weights. Those of the paper are ``lambda step:
        leading_weights(statistics, steps=step, learning_rate=...)``. Default: as for :func:`gradient_terms`. They are
        those of gradient descent: with another ``optimiser`` among the settings, leave them out.

    Returns
    -------
    TermsOverTraining

    Raises
    ------
    ValueError, TypeError
        As :func:`gradient_terms` and :func:`minitx.descend`; steps that are not between 1 and ``steps``; ``leading``
        beside another optimiser than gradient descent.
    """
    instance("weights", weights, OneHotWeights, LayeredWeights, Circuits)
    whole_number("steps", steps, 1)
    if at is not None:
        at = steps_within("at", at, 1, steps)
    if "callback" in settings:
        raise TypeError("record_terms has a callback of its own; give yours to minitx.descend, with a TermRecorder "
                        "called from it")
    optimiser = settings.get("optimiser") or GradientDescent()
    instance("optimiser", optimiser, Optimiser)
    if leading is not None and (not isinstance(optimiser, GradientDescent) or optimiser.decay):
        raise ValueError(f"leading terms are those of gradient descent without decay; leave out leading beside "
                         f"{optimiser}")
    recorder = TermRecorder(batch, at=at, leading=leading)
    run = descend(weights, batch, steps=steps, callback=recorder, **settings)
    return TermsOverTraining(recorder.steps, recorder.norms, recorder.crossings, run)
