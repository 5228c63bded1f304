"""What a theory records of a descent at some of its steps."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from minitx.base.shown import Shown
from minitx.model.descent import Trajectory


@dataclass(frozen=True, eq=False)
class Run(Shown):
    """Records of a training run, as each theory makes them, and its :class:`Trajectory`.

    ``watched`` has what the ``watch`` of the :class:`Recording` returned, at the steps of the records.
    """

    records: list
    trajectory: Trajectory
    watched: list = field(default_factory=list, kw_only=True)

    @property
    def weights(self) -> Any:
        """The trained weights."""
        return self.trajectory.weights


class Recording:
    """A callback of :func:`descend` that keeps what ``record(step, loss, weights)`` returns, at the steps ``at``.

    It goes on from a checkpoint; ``kinds`` are the dataclasses that records consist of. ``progress(step)``, if given,
    is called after every step. What ``watch(weights)``, if given, returns at the steps ``at`` is kept in ``watched``: a
    part of the weights, say, that is too large to be a record.
    """

    def __init__(self, record: Callable[[int, float, Any], Any], at: Iterable[int], *, kinds: tuple[type, ...] = (),
                 progress: Callable[[int], object] | None = None, watch: Callable[[Any], Any] | None = None):
        self.record, self.at, self.KINDS, self.progress, self.watch = record, set(at), kinds, progress, watch
        self.records: list[Any] = []
        self.watched: list[Any] = []

    def __call__(self, step: int, loss: float, weights: Any, gradient: Any = None) -> None:
        """Record ``step`` if it is one of ``at``."""
        if step in self.at:
            self.records.append(self.record(step, loss, weights))
            if self.watch is not None:
                self.watched.append(self.watch(weights))
        if self.progress is not None:
            self.progress(step)

    def state(self) -> list[Any]:
        """What a checkpoint keeps."""
        return [list(self.records), list(self.watched)]

    def restore(self, state: list[Any]) -> None:
        """Go on with what :meth:`state` returned."""
        self.records, self.watched = map(list, state)
