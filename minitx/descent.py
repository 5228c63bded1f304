"""Explicit gradient descent: steps, and what is kept of them."""

from dataclasses import dataclass

import numpy as np

from minitx.circuits import loss_and_gradient


@dataclass(frozen=True)
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
    stopped : str or None
        Why the run ended before its last step; None when it did not.
    """

    loss: np.ndarray
    weights: object
    kept: dict
    learning_rate: float
    stopped: str | None

    @property
    def steps(self):
        """Steps taken."""
        return len(self.loss) - 1


def descend(weights, batch, *, learning_rate, steps, batch_size=None, rng=None, keep=(), callback=None):
    """Gradient descent with a constant learning rate: weights - learning_rate dL/dweights, ``steps`` times.

    Parameters
    ----------
    weights : OneHotWeights, Circuits or any parametrisation
        The start; not modified.
    batch : Batch
    learning_rate : float
        eta.
    steps : int
    batch_size : int, optional
        Sequences a step, drawn without replacement until all have been used, then anew. Default: the full batch.
    rng : int, Generator or None
        Order of the mini-batches. Same seed, same bits.
    keep : iterable of int
        Steps whose weights are kept (0: the start).
    callback : callable, optional
        ``callback(step, loss, weights, gradient)`` for step 0 .. ``steps``, with the weights after that many steps. The gradient's
        arrays are reused afterwards: copy what is to be kept.

    Returns
    -------
    Trajectory
        A loss or weight that is not finite, or Ctrl-C, ends the run early: the trajectory so far is returned, ``stopped`` says why.

    Raises
    ------
    ValueError
        Settings or a start that cannot be; FloatingPointError when the loss is not finite at the start already.
    """
    _require_settings(learning_rate, steps, batch_size, len(batch))
    draw = _mini_batches(batch, batch_size, np.random.default_rng(rng))
    keep, kept, losses, stopped = set(keep), {}, [], None
    last, gradient = weights, None
    try:
        for step in range(steps + 1):
            if step > 0:
                weights = gradient.map(lambda slope, weight: _moved(slope, weight, learning_rate), weights)
                if broken := weights.not_finite():
                    stopped = f"step {step}: {', '.join(broken)} not finite; use a smaller learning rate than {learning_rate}"
                    break
            try:
                loss, gradient = loss_and_gradient(weights, next(draw))
            except FloatingPointError as error:
                if step == 0:
                    raise
                stopped = f"step {step}: {error}; the learning rate is {learning_rate}"
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
        stopped = f"interrupted after step {len(losses) - 1}"
    return Trajectory(np.array(losses), last, kept, learning_rate, stopped)


def _moved(slope, weight, learning_rate):
    """weight - learning_rate slope, in the slope's memory."""
    slope *= -learning_rate
    slope += weight
    return slope


def _mini_batches(batch, batch_size, rng):
    """Endless mini-batches; the batch itself when ``batch_size`` is None."""
    if batch_size is None:
        while True:
            yield batch
    while True:
        order = rng.permutation(len(batch))
        for start in range(0, len(batch) - batch_size + 1, batch_size):
            yield batch.take(order[start:start + batch_size])


def _require_settings(learning_rate, steps, batch_size, n):
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate is {learning_rate!r}; it must be a finite number above 0")
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f"steps is {steps!r}; it must be a whole number, 0 or more")
    if batch_size is not None and not (isinstance(batch_size, (int, np.integer)) and 1 <= batch_size <= n):
        raise ValueError(f"batch_size is {batch_size!r}; it must be a whole number from 1 to the {n} sequences of the batch")
