"""Explicit gradient descent: steps, and what is kept of them."""

import itertools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from minitx.base.checkpoint import Checkpoint, Part, digest
from minitx.base.checks import (
    described,
    function,
    generator,
    instance,
    positive,
    reals,
    steps_within,
    truth,
    whole_number,
)
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import loss_and_gradient
from minitx.model.optimisers import GradientDescent, Optimiser
from minitx.model.parameters import Array, Parameters, Seed, read_only

DEFAULT = loss_and_gradient
KINDS = ("interrupted", "diverged", "no direction", "no more batches", "rounding", "inaccurate")


@dataclass(frozen=True)
class Stopped:
    """Why a descent ended before its last step. ``str()`` of it is the message.

    The kinds mean: the user typed Ctrl-C; a loss or weight is not finite; a gradient of 0 should be normalised; the
    iterator of batches ended; only rounding is left to compute; a prediction is estimated to be off by more than its
    tolerance. The first two and the last cut a run short; after the others nothing was left to do.
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

    ``loss``, (steps taken + 1,) float64, holds the loss at the weights after ``start_step`` steps, one more, and so on;
    with mini-batches each is the loss on the mini-batch of its step. ``weights`` are those after the last step whose
    loss is finite, ``kept`` {step: weights} those at the steps asked for that were reached, and ``stopped`` says why
    the run ended early. ``learning_rate`` is the number that was given or, of a schedule, (steps taken,) float64, the
    learning rate of each step.

    A run goes on, bit for bit as if it had not stopped, by ``descend(run.weights, batch, start_step=run.next_step,
    rng=run.rng, optimiser=run.optimiser, ...)`` with the other settings as before. ``rng`` is the state of the random
    generator before the first mini-batch of step 0, which JSON can hold; ``optimiser`` holds what the rule remembers.
    """

    loss: Array
    weights: Any
    kept: dict[int, Any]
    learning_rate: float | Array
    stopped: Stopped | None
    start_step: int = 0
    rng: dict[str, Any] | None = None
    optimiser: Optimiser = GradientDescent()  # noqa: RUF009  it is frozen

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return len(self.loss) - 1

    @property
    def next_step(self) -> int:
        """The number of steps that led to ``weights``, which is the ``start_step`` of a run that goes on."""
        return self.start_step + self.steps


LearningRate = float | Sequence[float] | Callable[[int], float]


def descend(weights: Parameters, batch: Any, *, learning_rate: LearningRate, steps: int, batch_size: int | None = None,
            rng: Seed | dict[str, Any] = None, start_step: int = 0, keep: Iterable[int] = (),
            frozen: Iterable[str] = (), normalised: bool = False, optimiser: Optimiser | None = None,
            callback: Callable | None = None, loss_and_gradient: Callable = loss_and_gradient,
            checkpoint: str | os.PathLike | Checkpoint | Part | None = None) -> Trajectory:
    """Subtract learning_rate dL/dweights from the weights, ``steps`` times, or follow the rule of an ``optimiser``.

    Parameters
    ----------
    weights : OneHotWeights, EmbeddedWeights, Circuits or any parametrisation
        The start. It is copied, so that nothing which happens later changes it.
    batch : Batch, or iterator of Batch
        An iterator gives the batch of every step from ``start_step`` on: for data larger than memory, or fresh masks.
    learning_rate : float, sequence of floats, or function of the step
        ``learning_rate[k]`` or ``learning_rate(k)``, k = 0, 1, ..., multiplies the gradient after k steps.
    batch_size : int, optional
        Number of sequences of a step, drawn without replacement until fewer than that are left, then from all again.
        Default: the full batch.
    rng : int, numpy.random.Generator, state or None
        Seed of the order of the mini-batches, or the ``rng`` of an earlier Trajectory.
    start_step : int
        Number of steps that were taken before and led to ``weights``. Steps are counted from there, and mini-batches go
        on where ``start_step`` steps with this ``rng`` have left them.
    keep, frozen
        Steps whose weights are kept (``start_step``: the start), and names of weights that stay as they are.
    normalised : bool
        Divide the gradient by its norm (Frobenius, over all parts that are not frozen), so that every step has length
        ``learning_rate``; for gradient descent only.
    optimiser : Optimiser, optional
        The rule by which a gradient changes the weights, such as ``minitx.Adam()``; see :mod:`minitx.model.optimisers`.
        Default: gradient descent, for which alone the closed forms of the theories hold.
    callback
        ``callback(step, loss, weights, gradient)`` for ``start_step`` .. ``start_step + steps``, with the weights after
        that many steps; their arrays are read-only.
    loss_and_gradient
        Another objective ``(weights, batch) -> (loss, gradient)``; it may take anything in the place of ``batch``, as
        :func:`minitx.associations.reduced.loss_and_gradient` does.
    checkpoint : str, Path, Checkpoint or Part, optional
        A file (.npz) that keeps the run, written every 60 seconds, or as often as a
        :class:`minitx.base.checkpoint.Checkpoint` says, and at the end. If it is there already, the run goes on from
        it, to the same bits as a run that was never ended. A callback, or an objective, that remembers more than it is
        given has methods ``state()``, which returns plain values and arrays, and ``restore(state)``; dataclasses that
        its state holds are named in its attribute ``KINDS``. A callback without them is called for later steps only.

    Returns
    -------
    Trajectory
        The weights and losses that were reached; ``stopped`` says why a run ended early (see :class:`Stopped`).

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        Settings or a start that are not valid, or a loss that is not finite at the start already; a checkpoint that is
        damaged, or is that of another run.

    Examples
    --------
    Ten steps and ten more are the same as twenty:

    >>> from minitx import OneHotWeights, builtin_corpus, descend
    >>> corpus = builtin_corpus("stories", n_vocab=20, length=4, n_windows=8)
    >>> batch, start = corpus.batch(), OneHotWeights.zeros(20, 4)
    >>> settings = {"learning_rate": lambda step: 1 / (1 + step), "batch_size": 3}
    >>> first = descend(start, batch, steps=10, rng=0, **settings)
    >>> second = descend(first.weights, batch, steps=10, start_step=first.next_step, rng=first.rng, **settings)
    >>> whole = descend(start, batch, steps=20, rng=0, **settings)
    >>> bool((second.weights.W_O == whole.weights.W_O).all()), bool((second.loss == whole.loss[10:]).all())
    (True, True)
    """
    steps, start_step = whole_number("steps", steps, 0), whole_number("start_step", start_step, 0)
    asked = steps_within("keep", keep, start_step, start_step + steps)
    if callback is not None:
        function("callback", callback, "callback(step, loss, weights, gradient)")
    instance("weights", weights, Parameters)
    rate, state = schedule(learning_rate, start_step + steps), dict(_generator(rng).bit_generator.state)
    optimiser = GradientDescent() if optimiser is None else optimiser
    course = _Course(weights, optimiser, learning_rate, rate, start_step, state, callback, loss_and_gradient)
    settings: dict[str, Any] = {
        "batch_size": batch_size, "normalised": normalised, "loss_and_gradient": loss_and_gradient,
        "frozen": tuple(frozen) if isinstance(frozen, Iterable) and not isinstance(frozen, str) else frozen}
    if checkpoint is not None:
        same = settings | {"weights": weights, "batch": batch, "optimiser": optimiser}
        if batch_size is not None and rng is not None:
            same["rng"] = state
        course.go_on(checkpoint, {name: digest(value) for name, value in same.items()}, steps)
        if course.is_over(steps):
            return course.trajectory()
        if hasattr(batch, "__next__"):  # the batches of the steps that are behind
            batch = itertools.islice(batch, course.steps, None)
    first = start_step + course.steps
    walk = descent(course.weights, batch, learning_rate=learning_rate, rng=course.rng, start_step=first,
                   optimiser=course.optimiser, **settings)
    try:
        for step in range(first, start_step + steps + 1):
            if not course.follow(walk, step, asked):
                break
    except KeyboardInterrupt:
        if not course.losses:
            raise
        course.stopped = Stopped.interrupted(start_step + course.steps)
    course.write()
    return course.trajectory()


class Step(NamedTuple):
    """What is known after a number of steps."""

    loss: float
    weights: Any
    gradient: Any
    optimiser: Optimiser  # with what it remembers of the steps so far


class _Course:
    """What a descent has reached so far, which a checkpoint can keep. Its attributes are those of a Trajectory."""

    def __init__(self, weights, optimiser, learning_rate, rate, start_step, rng, callback, objective):
        self.weights, self.optimiser, self.start_step = weights, optimiser, start_step
        self.learning_rate, self.rate = learning_rate, rate
        self.rng, self.callback, self.objective = rng, callback, objective
        self.losses, self.kept, self.about = [], {}, {}
        self.stopped = self.part = None
        self.before = None  # the state of the objective before it gave the last loss
        self.whole = True  # whether callback and losses have seen the same steps

    @property
    def steps(self):
        return max(len(self.losses) - 1, 0)

    def follow(self, walk, step, asked):
        """Take a ``step`` of ``walk``; False where it can take none."""
        before = _state(self.objective)
        try:
            loss, weights, gradient, optimiser = next(walk)
        except DescentEnded as ended:
            self.stopped = ended.stopped
            return False
        if step < self.start_step + len(self.losses):  # the last step of the checkpoint, which the callback has seen
            self._require_same(step, loss)
            return True
        self.whole, self.before, self.weights, self.optimiser = False, before, weights, optimiser
        self.losses.append(loss)
        if step in asked:
            self.kept[step] = weights
        if self.callback is not None:
            self.callback(step, loss, weights, gradient)
        self.whole = True
        if self.part is not None and self.part.due(step):
            self.write()
        return True

    def trajectory(self):
        """The trajectory so far."""
        used = self.learning_rate if isinstance(self.learning_rate, numbers.Real) else np.array(
            [self.rate(self.start_step + k) for k in range(self.steps)])
        return Trajectory(np.array(self.losses), self.weights, self.kept, used, self.stopped, self.start_step, self.rng,
                          self.optimiser)

    def go_on(self, checkpoint, about, steps):
        """Keep the run in ``checkpoint``, and go on from what it holds. Raises ValueError if that is another run.

        ``about`` {setting: fingerprint} decides the run.
        """
        if not isinstance(checkpoint, (Checkpoint, Part)):
            checkpoint = Checkpoint(checkpoint)
        self.part = checkpoint.part("descent") if isinstance(checkpoint, Checkpoint) else checkpoint
        if hasattr(self.callback, "restore"):
            about["callback"] = type(self.callback).__qualname__
        self.about, path = {"callback": ""} | about, self.part.checkpoint.path
        self.part.require(self.about)
        kinds = (Trajectory, Stopped, type(self.weights), type(self.optimiser), *getattr(self.callback, "KINDS", ()))
        if (found := self.part.read(*kinds)) is None:
            return
        run = found["trajectory"]
        if run.start_step != self.start_step or run.steps > steps:
            raise ValueError(f"{path} holds the steps {run.start_step} to {run.next_step} of a run, and "
                             f"{self.start_step} to {self.start_step + steps} are asked for; give another file")
        rates = [self.rate(run.start_step + k) for k in range(run.steps)]
        if not np.array_equal(np.broadcast_to(run.learning_rate, run.steps), rates):
            raise ValueError(f"{path} holds another run: its setting learning_rate differs; give the settings of that "
                             "run, or another file")
        self.losses, self.weights, self.optimiser = run.loss.tolist(), run.weights, run.optimiser
        self.kept, self.rng = run.kept, run.rng
        self.stopped = None if run.stopped and run.stopped.kind == "interrupted" else run.stopped
        self.before = found["before"]
        objective = found["objective"] if self.is_over(steps) else self.before  # else the last loss is computed again
        for stateful, state in ((self.objective, objective), (self.callback, found["callback"])):
            if hasattr(stateful, "restore"):
                stateful.restore(state)

    def is_over(self, steps):
        """Whether no step is left to take."""
        return bool(self.losses) and (self.stopped is not None or self.steps >= steps)

    def _require_same(self, step, loss):
        if loss != self.losses[-1]:
            raise ValueError(f"{self.part.checkpoint.path}: its loss after {step:,} steps is {self.losses[-1]!r}, and "
                             f"computed again {loss!r}; its batch or objective is another, or it was made by another "
                             "version or machine: delete it to begin anew")

    def write(self):
        """Write the checkpoint, if there is one and no callback was cut short; else the one before it stays."""
        if self.part is not None and self.whole and self.losses:
            self.part.write({"trajectory": self.trajectory(), "before": self.before,
                             "objective": _state(self.objective), "callback": _state(self.callback)}, self.about)


def _state(stateful):
    """What a callback or an objective remembers; None if it does not say."""
    return stateful.state() if hasattr(stateful, "state") else None


class DescentEnded(ArithmeticError):
    """A descent can take no further step; ``stopped`` says which step, and why."""

    def __init__(self, stopped: Stopped):
        super().__init__(stopped)
        self.stopped = stopped


def descent(weights: Parameters, batch: Any, *, learning_rate: LearningRate, batch_size: int | None = None,
            rng: Seed | dict[str, Any] = None, start_step: int = 0, frozen: Iterable[str] = (),
            normalised: bool = False, optimiser: Optimiser | None = None,
            loss_and_gradient: Callable = loss_and_gradient) -> Iterator[Step]:
    """The endless iterator under :func:`descend`: each ``next`` takes a step, so a theory can walk beside training.

    The parameters are those of :func:`descend`. Yields a Step after 0, 1, 2, ... steps. Raises as
    :func:`descend`; ``next`` raises DescentEnded when no further step can be taken.
    """
    instance("weights", weights, Parameters)
    function("loss_and_gradient", loss_and_gradient, "loss_and_gradient(weights, batch)")
    rate, normalised = schedule(learning_rate), truth("normalised", normalised)
    start_step = whole_number("start_step", start_step, 0)
    if isinstance(frozen, str) or not isinstance(frozen, Iterable):
        raise TypeError(f"frozen is {'the string ' * isinstance(frozen, str)}{described(frozen)}; give a tuple of "
                        f"names, such as {(frozen if isinstance(frozen, str) else next(iter(weights.parameters())),)}")
    frozen = frozenset(frozen)
    if unknown := frozen - set(weights.parameters()):
        raise ValueError(f"frozen names {', '.join(sorted(map(str, unknown)))}, but the weights are "
                         f"{', '.join(weights.parameters())}")
    if not (isinstance(batch, Batch) or hasattr(batch, "__next__") or loss_and_gradient is not DEFAULT):
        raise TypeError(f"batch is {described(batch)}; give a Batch, or an iterator of Batches like iter([...])")
    optimiser = GradientDescent() if optimiser is None else optimiser
    instance("optimiser", optimiser, Optimiser)
    if normalised and (not isinstance(optimiser, GradientDescent) or optimiser.decay):
        raise ValueError(f"normalised is for gradient descent without decay; leave it out beside {optimiser}")
    draw = _batches(batch, batch_size, _generator(rng), start_step)
    start = weights.map(lambda array: read_only(np.array(array)))
    return _descent(start, draw, rate, start_step, frozen, normalised, optimiser, loss_and_gradient)


def schedule(learning_rate: LearningRate, steps: int = 0) -> Callable[[int], float]:
    """``rate(k)``, the learning rate that multiplies the gradient after k steps; a sequence must last for ``steps``.

    Raises TypeError or ValueError if it is no number above 0, or holds or gives one that is not.
    """
    if callable(learning_rate):
        return lambda step: positive(f"learning_rate({step})", learning_rate(step))
    if not isinstance(learning_rate, (Sequence, np.ndarray)) or isinstance(learning_rate, str):
        constant = positive("learning_rate", learning_rate)
        return lambda step: constant
    rates = reals("learning_rate", learning_rate)

    def of_step(step):
        if rates.ndim != 1 or len(rates) <= step:
            raise ValueError(f"learning_rate is {described(learning_rate)}; it must hold one number for each of the "
                             f"{step + 1} steps, counted from step 0")
        return positive(f"learning_rate[{step}]", float(rates[step]))

    for step in reversed(range(steps)):
        of_step(step)
    return of_step


def _generator(rng):
    """The random generator of a seed, or of a state that a Trajectory has kept."""
    if not isinstance(rng, dict):
        return generator(rng)
    kind = getattr(np.random, str(rng.get("bit_generator")), None)
    try:
        if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):
            raise TypeError("it names no bit generator of NumPy")
        bits = kind()
        bits.state = rng
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"rng is {described(rng)} that is not the state of a random generator; give a seed, or the "
                         "rng of a Trajectory") from error
    return np.random.Generator(bits)


def _descent(weights, draw, rate, start_step, frozen, normalised, optimiser, loss_and_gradient):
    gradient = None
    for step in itertools.count(start_step):
        if step > start_step:
            slopes, learning_rate = _slopes(weights, gradient, frozen), rate(step - 1)
            if normalised and (slopes := _normalised(slopes)) is None:
                raise _ended("no direction", step, "the gradient is exactly 0 and has no direction; "
                                                   "the weights stay as they are")
            weights, optimiser = _step(weights, slopes, learning_rate, optimiser)
            if broken := weights.not_finite():
                raise _ended("diverged", step, f"{', '.join(broken)} not finite; use a smaller learning rate than "
                                               f"{learning_rate}")
        if (part := next(draw, None)) is None:
            if step == start_step:
                raise ValueError("the iterator of batches is empty; it must give one for every step from 0 on")
            raise _ended("no more batches", step, "the iterator gives no more batches")
        try:
            loss, gradient = _evaluate(loss_and_gradient, weights, part)
        except FloatingPointError as error:
            if step == start_step:
                raise
            raise _ended("diverged", step, f"{error}; the learning rate is {learning_rate}") from error
        yield Step(loss, weights, gradient, optimiser)


def _ended(kind, step, reason):
    return DescentEnded(Stopped(kind, step, f"step {step}: {reason}"))


def _evaluate(loss_and_gradient, weights, part):
    """Loss and gradient of an objective; nobody can write to the gradient's arrays.

    Raises TypeError unless it returns a loss and a gradient, FloatingPointError if the loss is not finite.
    """
    found = loss_and_gradient(weights, part)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Parameters)
            and isinstance(found[0], (numbers.Real, np.ndarray)) and np.ndim(found[0]) == 0):
        kinds = f" of {' and '.join(map(described, found))}" if isinstance(found, tuple) else ""
        raise TypeError(f"loss_and_gradient returned {described(found)}{kinds}; it must return (loss, gradient): a "
                        "number and a gradient of the type of the weights")
    loss, gradient = float(found[0]), found[1]
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}")
    if any(array.flags.writeable for array in gradient.parameters().values()):
        gradient = gradient.map(read_only)
    return loss, gradient


def _slopes(weights, gradient, frozen):
    """{name: gradient} of the parts that move."""
    slopes = {name: getattr(gradient, name, None) for name in weights.parameters() if name not in frozen}
    if missing := [name for name, slope in slopes.items() if slope is None]:
        raise ValueError(f"the objective gives no gradient of {', '.join(missing)}; freeze what it does not train: "
                         f"frozen={tuple(sorted(frozen | set(missing)))}")
    for name, slope in slopes.items():
        if slope.shape != (shape := getattr(weights, name).shape):
            raise ValueError(f"the objective gives a gradient of shape {slope.shape} for {name}, which has shape "
                             f"{shape}; the two must be the same")
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


def _step(weights, slopes, learning_rate, optimiser):
    """The weights after a step, and the optimiser with what it remembers."""
    with np.errstate(over="ignore", invalid="ignore"):  # the caller finds and reports what is not finite
        changes, optimiser = optimiser.step(weights.parameters(), slopes, learning_rate)
        moved = {name: read_only(np.subtract(getattr(weights, name), change, out=change))
                 for name, change in changes.items()}
    return replace(weights, **moved), optimiser


def _batches(batch, batch_size, rng, start_step):
    """Iterator of the batches of the steps from ``start_step`` on; endless, unless ``batch`` is one that ends."""
    if isinstance(batch, Batch):
        batch = batch.with_loss()
    elif batch_size is not None:
        raise ValueError(f"batch_size is {described(batch_size)}, but only a Batch is cut into mini-batches; leave it "
                         "out")
    elif hasattr(batch, "__next__"):
        return batch
    if batch_size is None:
        return itertools.repeat(batch)
    if whole_number("batch_size", batch_size, 1) > len(batch):
        raise ValueError(f"batch_size is {batch_size}, but the batch has {len(batch)} sequences with a loss position")
    return _mini_batches(batch, batch_size, rng, start_step)


def _mini_batches(batch, batch_size, rng, start_step):
    """The mini-batches from that of ``start_step`` on: passes before it are drawn, but not taken."""
    starts = range(0, len(batch) - batch_size + 1, batch_size)
    passes, first = divmod(start_step, len(starts))
    for _ in range(passes):
        rng.permutation(len(batch))
    while True:
        order = rng.permutation(len(batch))
        for start in starts[first:]:
            yield batch.take(order[start:start + batch_size])
        first = 0
