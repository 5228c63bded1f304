"""Two stages: does W_V really move before W_Q and W_K, and is attention really made of three values?

The analysis of Li, Li, Risteski (ICML 2023) trains W_V first, with uniform attention, and then W_Q and W_K with three
attention values: that of the same word, of the same topic, of a different topic. Joint training need do neither.
:class:`MovementRecorder` measures how far each part has moved at every step, which gives the number ``lead`` for the
first assumption, and :func:`minitx.topics.pair_spread` gives the number ``between`` for the second.

Legend: W(s) the weights after s steps, R steps recorded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import instance
from minitx.base.numbers import norm
from minitx.base.shown import Shown
from minitx.model.parameters import Parameters

SHARES = {"1%": 0.01, "10%": 0.1, "50%": 0.5}  # of its whole way: a part begins to move, moves, is half there
ATTENTION = ("W_Q", "W_K")


@dataclass(frozen=True, eq=False)
class Movement(Shown):
    """How far each part of the weights has moved from its start, and its size, at R steps of training.

    Attributes
    ----------
    steps : (R,) integers
    distance, norm : {name: (R,) floats}
        |W(s) - W(first step)| and |W(s)|, Frobenius. W_Q and W_K begin at random, so that their norms say little about
        whether they have moved.
    """

    steps: NDArray[np.integer]
    distance: dict[str, NDArray[np.float64]]
    norm: dict[str, NDArray[np.float64]]

    def begins(self) -> dict[str, dict[str, int | None]]:
        """{name: {share: first recorded step at which the distance is at least this share of the last distance}}.

        The shares are "1%", "10%" and "50%"; None for a part that has not moved.
        """
        return {name: {label: _first(self.steps, way, share) for label, share in SHARES.items()}
                for name, way in self.distance.items()}

    @property
    def lead(self) -> float:
        """The share of its way that W_V has gone when W_Q and W_K together have gone a tenth of theirs.

        It is 1 where training has the two stages of the paper, and 0.1 where all parts move alike. nan if one of the
        parts is missing or has not moved.
        """
        if not {"W_V", *ATTENTION} <= self.distance.keys():
            return float("nan")
        together = np.sqrt(sum(self.distance[name]**2 for name in ATTENTION))
        value, step = self.distance["W_V"], _first(self.steps, together, 0.1)
        if step is None or not value[-1] > 0:
            return float("nan")
        return float(value[np.searchsorted(self.steps, step)] / value[-1])


def _first(steps, way, share):
    return int(steps[np.argmax(way >= share * way[-1])]) if len(way) and way[-1] > 0 else None


class MovementRecorder:
    """A callback for :func:`minitx.descend` that measures how far each part has moved, at every step it is called.

    It goes on from a checkpoint.
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.steps: list[int] = []
        self.moved: dict[str, list[tuple[float, float]]] = {}  # {name: (distance, norm) at each of ``steps``}

    def __call__(self, step: int, loss: float, weights: Any, gradient: Any = None) -> None:
        """Record the weights after ``step`` steps; the first call gives the start."""
        instance("weights", weights, Parameters)
        parts = weights.parameters()
        self.start = self.start or parts
        self.steps.append(step)
        for name, part in parts.items():
            self.moved.setdefault(name, []).append((norm(part - self.start[name]), norm(part)))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        moved = {name: np.array(pairs) for name, pairs in self.moved.items()}
        return {"start": dict(self.start), "steps": np.array(self.steps, int), "moved": moved}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what :meth:`state` returned."""
        self.start, self.steps = dict(state["start"]), state["steps"].tolist()
        self.moved = {name: [tuple(pair) for pair in pairs.tolist()] for name, pairs in state["moved"].items()}

    @property
    def movement(self) -> Movement:
        """What has been recorded so far."""
        distance, size = ({name: np.array([pair[which] for pair in pairs]) for name, pairs in self.moved.items()}
                          for which in (0, 1))
        return Movement(np.array(self.steps, int), distance, size)
