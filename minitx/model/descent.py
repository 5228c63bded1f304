"""Explicit gradient descent: steps, and what is kept of them."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minitx.base.checks import positive, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import loss_and_gradient
from minitx.model.parameters import Array, Parameters, Seed

DEFAULT = loss_and_gradient
KINDS = ("interrupted", "diverged", "no direction", "no more batches", "rounding")


@dataclass(frozen=True)
class Stopped:
    """Why a descent ended before its last step. ``str()`` of it is the message.

    The kinds mean: the user typed Ctrl-C; a loss or weight is not finite; a gradient of 0 should be normalised; the
    iterator of batches ended; only rounding is left to compute. The first two cut a run short; after the others nothing
    was left to do.
    """

    kind: str  # one of KINDS
    step: int  # that could not be taken or, when interrupted, the last one that was
    message: str  # the reason, for readers; nothing is decided by its words

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")

    def __str__(self) -> str:
        return self.message

    @classmethod
    def interrupted(cls, step: int) -> "Stopped":
        """The user typed Ctrl-C after ``step`` steps."""
        return cls("interrupted", step, f"interrupted after step {step}")


@dataclass(frozen=True, eq=False)
class Trajectory(Shown):
    """The result of a run of gradient descent.

    ``loss``, (steps taken + 1,) float64, holds the loss at the weights after 0, 1, 2, ... steps; with mini-batches each
    is the loss on the mini-batch of its step. ``weights`` are those after the last step whose loss is finite, ``kept``
    {step: weights} those at the steps asked for that were reached, and ``stopped`` says why the run ended early.
    """

    loss: Array
    weights: Any
    kept: dict[int, Any]
    learning_rate: float
    stopped: Stopped | None

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return len(self.loss) - 1


@dataclass(frozen=True, eq=False)
class Run(Shown):
    """Records of a training run, as each theory makes them, and its :class:`Trajectory`."""

    records: list
    trajectory: Trajectory

    @property
    def weights(self) -> Any:
        """The trained weights."""
        return self.trajectory.weights


def descend(weights: Parameters, batch: Any, *, learning_rate: float, steps: int, batch_size: int | None = None,
            rng: Seed = None, keep: Iterable[int] = (), frozen: Iterable[str] = (), normalised: bool = False,
            callback: Callable | None = None, loss_and_gradient: Callable = loss_and_gradient) -> Trajectory:
    """Gradient descent with a constant learning rate: weights - learning_rate dL/dweights, ``steps`` times.

    Parameters
    ----------
    weights : OneHotWeights, EmbeddedWeights, Circuits or any parametrisation
        The start.
    batch : Batch, or iterator of Batch
        An iterator gives the batch of every step from 0 to ``steps``: for data larger than memory, or fresh masks.
    batch_size : int, optional
        Number of sequences of a step, drawn without replacement until fewer than that are left, then from all again.
        Default: the full batch.
    rng
        Seed of the order of the mini-batches.
    keep, frozen
        Steps whose weights are kept (0: the start), and names of weights that stay as they are.
    normalised : bool
        Divide the gradient by its norm (Frobenius, over all parts that are not frozen), so that every step has length
        ``learning_rate``.
    callback
        ``callback(step, loss, weights, gradient)`` for step 0 .. ``steps``, with the weights after that many steps.
    loss_and_gradient
        Another objective ``(weights, batch) -> (loss, gradient)``; it may take anything in the place of ``batch``, as
        :func:`minitx.associations.reduced.loss_and_gradient` does.

    Returns
    -------
    Trajectory
        What was reached; ``stopped`` says why, if the run ended early (see :class:`Stopped`).

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        Settings or a start that are not valid, or a loss that is not finite at the start already.
    """
    steps, keep, last = whole_number("steps", steps, 0), set(keep), weights
    kept: dict[int, Any] = {}
    losses: list[float] = []
    stopped = None
    walk = descent(weights, batch, learning_rate=learning_rate, batch_size=batch_size, rng=rng, frozen=frozen,
                   normalised=normalised, loss_and_gradient=loss_and_gradient)
    try:
        for step in range(steps + 1):
            try:
                loss, weights, gradient = next(walk)
            except DescentEnded as ended:
                stopped = ended.stopped
                break
            losses.append(loss)
            last = weights
            if step in keep:
                kept[step] = weights
            if callback is not None:
                callback(step, loss, weights, gradient)
    except KeyboardInterrupt:
        if not losses:
            raise
        stopped = Stopped.interrupted(len(losses) - 1)
    return Trajectory(np.array(losses), last, kept, float(learning_rate), stopped)


class DescentEnded(ArithmeticError):
    """A descent can take no further step; ``stopped`` says which step, and why."""

    def __init__(self, stopped: Stopped):
        super().__init__(stopped)
        self.stopped = stopped


def descent(weights: Parameters, batch: Any, *, learning_rate: float, batch_size: int | None = None, rng: Seed = None,
            frozen: Iterable[str] = (), normalised: bool = False,
            loss_and_gradient: Callable = loss_and_gradient) -> Iterator:
    """The endless iterator under :func:`descend`: each ``next`` takes a step, so a theory can walk beside training.

    The parameters are those of :func:`descend`. Yields loss, weights and gradient after 0, 1, 2, ... steps. Raises as
    :func:`descend`; ``next`` raises DescentEnded when no further step can be taken.
    """
    learning_rate = positive("learning_rate", learning_rate)
    if isinstance(frozen, str):
        raise TypeError(f"frozen is the string {frozen!r}; give a tuple of names, such as ({frozen!r},)")
    frozen = frozenset(frozen)
    if unknown := frozen - set(weights.parameters()):
        raise ValueError(f"frozen names {', '.join(sorted(unknown))}, but the weights are "
                         f"{', '.join(weights.parameters())}")
    if not (isinstance(batch, Batch) or hasattr(batch, "__next__") or loss_and_gradient is not DEFAULT):
        raise TypeError(f"batch is a {type(batch).__name__}; give a Batch, or an iterator of Batches like iter([...])")
    draw = _batches(batch, batch_size, np.random.default_rng(rng))
    return _descent(weights, draw, learning_rate, frozen, normalised, loss_and_gradient)


def _descent(weights, draw, learning_rate, frozen, normalised, loss_and_gradient):
    gradient = None
    for step in itertools.count():
        if step > 0:
            slopes = _slopes(weights, gradient, frozen)
            if normalised and (slopes := _normalised(slopes)) is None:
                raise _ended("no direction", step, "the gradient is exactly 0 and has no direction; "
                                                   "the weights stay as they are")
            weights = _step(weights, slopes, learning_rate)
            if broken := weights.not_finite():
                raise _ended("diverged", step, f"{', '.join(broken)} not finite; use a smaller learning rate than "
                                               f"{learning_rate}")
        if (part := next(draw, None)) is None:
            if step == 0:
                raise ValueError("the iterator of batches is empty; it must give one for every step from 0 on")
            raise _ended("no more batches", step, "the iterator gives no more batches")
        try:
            loss, gradient = loss_and_gradient(weights, part)
        except FloatingPointError as error:
            if step == 0:
                raise
            raise _ended("diverged", step, f"{error}; the learning rate is {learning_rate}") from error
        yield loss, weights, gradient


def _ended(kind, step, reason):
    return DescentEnded(Stopped(kind, step, f"step {step}: {reason}"))


def _slopes(weights, gradient, frozen):
    """{name: gradient} of the parts that move."""
    slopes = {name: getattr(gradient, name) for name in weights.parameters() if name not in frozen}
    if missing := [name for name, slope in slopes.items() if slope is None]:
        raise ValueError(f"the objective gives no gradient of {', '.join(missing)}; freeze what it does not train: "
                         f"frozen={tuple(sorted(frozen | set(missing)))}")
    return slopes


def _normalised(slopes):
    """``slopes`` over their common Frobenius norm; None when all are 0. Squares of small numbers do not underflow."""
    largest = max((np.abs(slope).max() for slope in slopes.values()), default=0.0)
    if largest == 0:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # the caller finds and reports what is not finite
        slopes = {name: slope / largest for name, slope in slopes.items()}
        norm = np.sqrt(sum(np.square(slope).sum() for slope in slopes.values()))
        return {name: slope / norm for name, slope in slopes.items()}


def _step(weights, slopes, learning_rate):
    with np.errstate(over="ignore", invalid="ignore"):  # the caller finds and reports what is not finite
        changes = {name: learning_rate * slope for name, slope in slopes.items()}
        return replace(weights, **{name: np.subtract(getattr(weights, name), change, out=change)
                                   for name, change in changes.items()})


def _batches(batch, batch_size, rng):
    """Iterator of the batches of the steps; endless, unless ``batch`` is an iterator that ends."""
    if isinstance(batch, Batch):
        batch = batch.with_loss()
    elif batch_size is not None:
        raise ValueError(f"batch_size is {batch_size}, but only a Batch is cut into mini-batches; leave it out")
    elif hasattr(batch, "__next__"):
        return batch
    if batch_size is None:
        return itertools.repeat(batch)
    if whole_number("batch_size", batch_size, 1) > len(batch):
        raise ValueError(f"batch_size is {batch_size}, but the batch has {len(batch)} sequences with a loss position")
    return _mini_batches(batch, batch_size, rng)


def _mini_batches(batch, batch_size, rng):
    while True:
        order = rng.permutation(len(batch))
        for start in range(0, len(batch) - batch_size + 1, batch_size):
            yield batch.take(order[start:start + batch_size])
