"""Explicit gradient descent: steps, and what is kept of them."""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from minitx.base.checks import positive, whole_number
from minitx.data.batch import Batch
from minitx.model.circuits import loss_and_gradient

DEFAULT = loss_and_gradient
KINDS = ("interrupted", "diverged", "no direction", "no more batches", "rounding")


@dataclass(frozen=True)
class Stopped:
    """Why a descent ended before its last step. ``str()`` of it is the message.

    Attributes
    ----------
    kind : {"interrupted", "diverged", "no direction", "no more batches", "rounding"}
        Ctrl-C; a loss or weight is not finite; a gradient of 0 should be normalised; the iterator of batches ended; only rounding
        is left to compute. The first two cut a run short, after the others there was nothing left to do.
    step : int
        The step that the message names: the one that could not be taken, or, when interrupted, the last one that was.
    message : str
        The reason, for readers; nothing is decided by its words.

    Raises
    ------
    ValueError
        An unknown kind.
    """

    kind: str
    step: int
    message: str

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")

    def __str__(self):
        return self.message

    @classmethod
    def interrupted(cls, step):
        """By Ctrl-C, after ``step`` steps."""
        return cls("interrupted", step, f"interrupted after step {step}")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a run of gradient descent left.

    Attributes
    ----------
    loss : (steps taken + 1,) float64
        ``loss[s]`` is the loss at the weights after s steps (with mini-batches: on the mini-batch of step s).
    weights : same type as the start
        After the last step whose loss is finite.
    kept : dict {step: weights}
        The weights at the steps asked for, those that were reached.
    learning_rate : float
    stopped : Stopped or None
        Why the run ended before its last step; None when it did not.
    """

    loss: np.ndarray
    weights: object
    kept: dict
    learning_rate: float
    stopped: Stopped | None

    @property
    def steps(self):
        """Steps taken."""
        return len(self.loss) - 1


@dataclass(frozen=True, eq=False)
class Run:
    """Records of a training run, as the theory at hand makes them, and its :class:`Trajectory`."""

    records: list
    trajectory: Trajectory

    @property
    def weights(self):
        """The trained weights."""
        return self.trajectory.weights


def descend(weights, batch, *, learning_rate, steps, batch_size=None, rng=None, keep=(), frozen=(), normalised=False,
            callback=None, loss_and_gradient=loss_and_gradient):
    """Gradient descent with a constant learning rate: weights - learning_rate dL/dweights, ``steps`` times.

    Parameters
    ----------
    weights : OneHotWeights, EmbeddedWeights, Circuits or any parametrisation
        The start; not modified.
    batch : Batch, or iterator of Batch
        An iterator (data larger than memory, fresh masks) gives the batch of every step from 0 to ``steps``.
    learning_rate : float
        eta.
    steps : int
    batch_size : int, optional
        Sequences a step, drawn without replacement until fewer than ``batch_size`` are left, then anew. Default: the full batch.
    rng : int, Generator or None
        Order of the mini-batches. Same seed, same bits.
    keep : iterable of int
        Steps whose weights are kept (0: the start).
    frozen : iterable of str
        Names of weights that stay as they are.
    normalised : bool
        Divide the gradient by its norm (Frobenius, over all parts that are not frozen): every step has length ``learning_rate``.
    callback : callable, optional
        ``callback(step, loss, weights, gradient)`` for step 0 .. ``steps``, with the weights after that many steps.
    loss_and_gradient : callable
        Another objective ``(weights, batch) -> (loss, gradient)``, of anything in the place of ``batch``:
        :func:`minitx.topics.uniform_attention.loss_and_gradient`, :func:`minitx.associations.reduced.loss_and_gradient`.

    Returns
    -------
    Trajectory
        A loss or weight that is not finite, a gradient of 0 that should be normalised, an iterator that ends, or Ctrl-C ends the
        run early: the trajectory so far is returned, ``stopped`` says why.

    Raises
    ------
    ValueError
        Settings or a start that cannot be; FloatingPointError when the loss is not finite at the start already.
    """
    steps, keep, kept, losses, stopped = whole_number("steps", steps, 0), set(keep), {}, [], None
    last = weights
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
    """A descent can take no further step; ``stopped`` (:class:`Stopped`) says which, and why."""

    def __init__(self, stopped):
        super().__init__(stopped)
        self.stopped = stopped


def descent(weights, batch, *, learning_rate, batch_size=None, rng=None, frozen=(), normalised=False,
            loss_and_gradient=loss_and_gradient):
    """The endless iterator under :func:`descend`: ``next`` takes a step. For a theory's descent beside that of training.

    Parameters
    ----------
    weights, batch, learning_rate, batch_size, rng, frozen, normalised, loss_and_gradient
        As for :func:`descend`.

    Yields
    ------
    loss, weights, gradient
        After 0, 1, 2, ... steps.

    Raises
    ------
    ValueError, TypeError
        As :func:`descend`, before the first step.
    DescentEnded
        By ``next``: a loss or weight is not finite, a gradient of 0 has no direction, or the iterator of batches ended. At the
        start: FloatingPointError, ValueError.
    """
    learning_rate = positive("learning_rate", learning_rate)
    if isinstance(frozen, str):
        raise TypeError(f"frozen is the string {frozen!r}; give a tuple of names, such as ({frozen!r},)")
    frozen = frozenset(frozen)
    if unknown := frozen - set(weights.parameters()):
        raise ValueError(f"frozen names {', '.join(sorted(unknown))}, but the weights are {', '.join(weights.parameters())}")
    if not (isinstance(batch, Batch) or hasattr(batch, "__next__") or loss_and_gradient is not DEFAULT):
        raise TypeError(f"batch is a {type(batch).__name__}; give a Batch, or an iterator of Batches such as iter([...])")
    draw = _batches(batch, batch_size, np.random.default_rng(rng))
    return _descent(weights, draw, learning_rate, frozen, normalised, loss_and_gradient)


def _descent(weights, draw, learning_rate, frozen, normalised, loss_and_gradient):
    gradient = None
    for step in itertools.count():
        if step > 0:
            slopes = _slopes(weights, gradient, frozen)
            if normalised and (slopes := _normalised(slopes)) is None:
                raise _ended("no direction", step, "the gradient is exactly 0, so that it has no direction; the weights stay as "
                                                   "they are")
            weights = _step(weights, slopes, learning_rate)
            if broken := weights.not_finite():
                raise _ended("diverged", step, f"{', '.join(broken)} not finite; use a smaller learning rate than {learning_rate}")
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
    """``slopes`` over their common Frobenius norm; None when they are 0. Squares of small numbers do not underflow."""
    largest = max((np.abs(slope).max() for slope in slopes.values()), default=0.0)
    if largest == 0:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # found, and said, by the caller
        slopes = {name: slope / largest for name, slope in slopes.items()}
        norm = np.sqrt(sum(np.square(slope).sum() for slope in slopes.values()))
        return {name: slope / norm for name, slope in slopes.items()}


def _step(weights, slopes, learning_rate):
    def moved(weight, slope):
        change = learning_rate * slope
        return np.subtract(weight, change, out=change)

    with np.errstate(over="ignore", invalid="ignore"):  # found, and said, by the caller
        return replace(weights, **{name: moved(getattr(weights, name), slope) for name, slope in slopes.items()})


def _batches(batch, batch_size, rng):
    """Iterator of the batches of the steps; endless, unless ``batch`` is an iterator that ends."""
    if isinstance(batch, Batch):
        batch = batch.with_loss()
    elif batch_size is not None:
        raise ValueError(f"batch_size is {batch_size}, but only a Batch is cut into mini-batches; leave it out")
    elif hasattr(batch, "__next__"):
        return batch
    if batch_size is not None and whole_number("batch_size", batch_size, 1) > len(batch):
        raise ValueError(f"batch_size is {batch_size}, but the batch has {len(batch)} sequences with a loss position")
    return _endless(batch, batch_size, rng)


def _endless(batch, batch_size, rng):
    """The batch itself when ``batch_size`` is None."""
    if batch_size is None:
        while True:
            yield batch
    while True:
        order = rng.permutation(len(batch))
        for start in range(0, len(batch) - batch_size + 1, batch_size):
            yield batch.take(order[start:start + batch_size])
