"""How much leading terms matter to a trained model: its loss when they are removed from the weights, or kept alone.

The projection of a trained weight on its leading term is the multiple of that term nearest to the weight. Removing it
from one weight, the others being as they were trained, is the intervention of Im et al. (2026, Table 3). Its control is
the removal of a random direction of the same norm: where that raises the loss as much, the leading term is no better
than a random direction.

Legend: L layers, V vocabulary.
"""

import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minitx.associations.leading import for_layers
from minitx.base import parallel
from minitx.base.checks import generator, instance, whole_number
from minitx.base.numbers import norm, projection
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import loss
from minitx.model.layers import LayeredWeights
from minitx.model.parameters import Seed
from minitx.model.weights import OneHotWeights


@dataclass(frozen=True)
class Intervention(Shown):
    """The losses after one weight, or all weights of a kind, are changed; the others are as they were trained."""

    changed: str  # name of the weight, such as "V 2", or of the kind, such as "every V"
    removed: float  # without the projection on the leading term
    kept: float  # with nothing but that projection
    random: float  # without a random direction of the norm of the projection: mean of the draws
    random_sd: float  # standard deviation of the draws


def interventions(weights: OneHotWeights | LayeredWeights, batch: Batch, leading: OneHotWeights, *,
                  n_random: int = 20, rng: Seed = 0) -> tuple[float, list[Intervention]]:
    """The loss of ``weights`` on ``batch``, and what it becomes when each weight is changed.

    Parameters
    ----------
    weights : OneHotWeights or LayeredWeights
        Trained weights. Of several layers, each V, W and P is changed by itself, and then all of a kind at once.
    batch : Batch
        The losses are computed on it.
    leading : OneHotWeights
        The leading terms of the weights, the same for every layer; their scale does not matter.
    n_random : int
        Random directions drawn for each control, at least 2. They are Gaussian, scaled to the norm of the projection.
    rng : int or numpy.random.Generator, optional
        Seed of the random directions.

    Raises
    ------
    TypeError, ValueError
        Weights of another kind; leading terms of another vocabulary or length; too few draws; others are those of
        :func:`minitx.loss_and_gradient`.
    """
    instance("weights", weights, OneHotWeights, LayeredWeights)
    instance("leading", leading, OneHotWeights)
    n_random, draw = whole_number("n_random", n_random, 2), generator(rng)
    trained, theory = weights.matrices(), for_layers(leading, weights).matrices()
    if any(theory[name].shape != array.shape for name, array in trained.items()) or leading.not_finite():
        raise ValueError("leading must be finite and of the same vocabulary and length as the weights, as the leading "
                         "terms from minitx.associations.leading_weights are")
    along = {name: projection(array, theory[name]).astype(array.dtype) for name, array in trained.items()}

    instance("batch", batch, Batch)
    circuits = weights.circuits_for(batch.tokens) if isinstance(weights, OneHotWeights) else None

    def loss_with(changed: dict[str, Any]) -> float:
        finite = all(np.isfinite(array).all() for array in changed.values())
        if circuits is not None and changed.keys() <= {"W", "P"} and finite:  # the product V W_O stays as it is
            qk, position = changed.get("W", circuits.qk), changed.get("P", circuits.position)
            return loss(replace(circuits, qk=qk, position=position), batch)
        return loss(weights.with_matrices(changed), batch)

    drawing = threading.Lock()

    def one(called: str, names: list[str]) -> Intervention:
        sizes = {name: norm(along[name]) for name in names}

        def control() -> float:
            with drawing:  # the directions are the same for any number of threads
                directions = {name: draw.standard_normal(trained[name].shape) for name in names}
            return loss_with({name: _without(trained[name], directions[name], sizes[name]) for name in names})

        removed, kept, *controls = parallel.together(
            partial(loss_with, {name: trained[name] - along[name] for name in names}),
            partial(loss_with, {name: along[name] for name in names}), *[control] * n_random)
        controls.sort()  # their sum then has the same bits, whichever thread was the first to draw
        return Intervention(called, removed, kept, float(np.mean(controls)), float(np.std(controls, ddof=1)))

    found = [one(name, [name]) for name in trained]
    if isinstance(weights, LayeredWeights) and weights.n_layers > 1:
        found += [one(f"every {kind}", [name for name in trained if name.startswith(f"{kind} ")]) for kind in "VWP"]
    return loss(weights, batch), found


def _without(array, direction, size):
    """``array`` minus the ``direction``, which becomes one of norm ``size``."""
    direction *= size / norm(direction)
    return array - direction.astype(array.dtype, copy=False)
