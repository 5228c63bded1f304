"""What a theory records of a descent at some of its steps."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minitx.base.shown import Shown
from minitx.model.descent import Trajectory


@dataclass(frozen=True, eq=False)
class Run(Shown):
    """Records of a training run, as each theory makes them, and its :class:`Trajectory`."""

    records: list
    trajectory: Trajectory

    @property
    def weights(self) -> Any:
        """The trained weights."""
        return self.trajectory.weights


class Recording:
    """A callback of :func:`descend` that keeps what ``record(step, loss, weights)`` returns, at the steps ``at``.

    It goes on from a checkpoint; ``kinds`` are the dataclasses that records consist of. ``progress(step)``, if given,
    is called after every step.
    """

    def __init__(self, record: Callable[[int, float, Any], Any], at: Iterable[int], *, kinds: tuple[type, ...] = (),
                 progress: Callable[[int], object] | None = None):
        self.record, self.at, self.KINDS, self.progress = record, set(at), kinds, progress
        self.records: list[Any] = []

    def __call__(self, step: int, loss: float, weights: Any, gradient: Any = None) -> None:
        """Record ``step`` if it is one of ``at``."""
        if step in self.at:
            self.records.append(self.record(step, loss, weights))
        if self.progress is not None:
            self.progress(step)

    def state(self) -> list[Any]:
        """What a checkpoint keeps."""
        return list(self.records)

    def restore(self, state: list[Any]) -> None:
        """Go on with what :meth:`state` returned."""
        self.records = list(state)
