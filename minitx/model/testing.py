"""Gradient checks for users: hand-written gradients against the complex-step derivative.

The derivative along one entry is Im L(w + i h) / h with h = 1e-100: no difference of nearby numbers, hence no lost digits. The loss
used here is a second, plain NumPy implementation of the circuits, which complex numbers can pass through.

Legend: T positions, V vocabulary.
"""

from dataclasses import replace

import numpy as np

from minitx.base.parallel import one_blas_thread
from minitx.model.circuits import loss_and_gradient

STEP = 1e-100


def check_gradient(weights, batch, *, loss_and_gradient=loss_and_gradient, rtol=1e-12, max_entries=50, rng=0):
    """Hold the gradient of ``weights`` to the complex-step derivative.

    Parameters
    ----------
    weights : any parametrisation, float64
        Its ``circuits()`` must accept complex arrays (products and sums do).
    batch : Batch
    loss_and_gradient : callable
        What is being tested: ``(weights, batch) -> (loss, gradient)``.
    rtol : float
        Largest error allowed, relative to the largest derivative found for the parameter; rounding of the sums that make up a
        derivative (1e-15 of what is summed) is allowed on top, for derivatives that are 0.
    max_entries : int
        Entries checked per parameter, drawn with ``rng`` (all, if there are no more).

    Returns
    -------
    dict {parameter: float}
        The largest relative error of each.

    Raises
    ------
    ValueError
        Weights that are not float64.
    AssertionError
        An error above ``rtol``, or a loss that disagrees; the message shows both numbers and the place.
    """
    wrong = {name: array.dtype for name, array in weights.parameters().items() if array.dtype != np.float64}
    if wrong:
        raise ValueError(f"the complex step checks float64 weights, got {wrong}; use weights.astype(np.float64)")
    rng = np.random.default_rng(rng)
    loss, gradient = loss_and_gradient(weights, batch)
    plain = plain_loss(weights.circuits(), batch)
    if not abs(loss - plain) <= max(rtol, 1e-13) * max(1.0, abs(plain)):
        raise AssertionError(f"loss is {loss!r}; plain NumPy gives {plain!r}")
    bound = rounding(weights.circuits(), batch)
    # the pullback carries the tables' rounding to the weights; sizes only, so that nothing cancels
    carried = weights.map(np.abs).pullback(weights.circuits().map(lambda table: np.full(table.shape, bound)))
    errors = {}
    for name, array in weights.parameters().items():
        entries = rng.permutation(array.size)[:max_entries]
        expected = np.array([_complex_step(weights, batch, name, entry) for entry in entries])
        found = getattr(gradient, name).ravel()[entries]
        scale = np.abs(expected).max()
        error = np.abs(found - expected)
        allowed = rtol * scale + np.maximum(bound, np.abs(getattr(carried, name)).ravel()[entries])
        worst = (error / allowed).argmax()
        if not error[worst] <= allowed[worst]:
            place = tuple(int(i) for i in np.unravel_index(entries[worst], array.shape))
            raise AssertionError(f"dL/d{name}{list(place)} is {found[worst]!r}; the complex step gives {expected[worst]!r} "
                                 f"(error {error[worst]:.3g}, allowed {allowed[worst]:.3g}: {rtol:g} of {scale:.3g}, and rounding)")
        errors[name] = float(error.max() / scale) if scale else float(error.max())
    return errors


def rounding(circuits, batch):
    """What rounding alone may cost a derivative: 1e-15 of the products of residual and table that are summed, and may cancel."""
    table = max(1.0, *(np.abs(table).max() for table in circuits.parameters().values()))
    residual = max(_residual_size(circuits, batch, s, t) for s, t in np.argwhere(batch.weight != 0))
    return 1e-15 * np.abs(batch.weight).sum() * table * residual


def _residual_size(circuits, batch, s, t):
    """Largest |d head / d out| at a position, at least 1."""
    if batch.head == "cross_entropy":
        return 1.0
    out = plain_output(circuits, batch, s, t)
    return max(1.0, 2 * np.abs(out).max() + 2 if batch.head == "squared" else 1 / np.abs(out[batch.targets[s, t]]))


def _complex_step(weights, batch, name, entry):
    array = getattr(weights, name).astype(np.complex128)
    array.ravel()[entry] += 1j * STEP
    return plain_loss(replace(weights, **{name: array}).circuits(), batch).imag / STEP


def plain_loss(circuits, batch):
    """The loss of ``circuits`` on ``batch``, position by position in plain NumPy; complex tables are welcome."""
    return sum(batch.weight[s, t] * _head(plain_output(circuits, batch, s, t), batch.targets[s, t], batch.head)
               for s, t in np.argwhere(batch.weight != 0))


@one_blas_thread()
def plain_output(circuits, batch, s, t):
    """Output of position t of sequence s, (V,)."""
    tokens = batch.tokens[s]
    keys = np.arange(t + 1 if batch.causal else batch.lengths[s])
    scores = np.zeros(len(keys), circuits.ov.dtype)
    if circuits.qk is not None:
        scores = scores + circuits.qk[tokens[t], tokens[keys]]
    if circuits.position is not None:
        scores = scores + circuits.position[t - keys]
    mass = np.ones(len(keys)) if batch.mass is None else batch.mass[s, keys]
    out = _softmax(scores, mass) @ circuits.ov[tokens[keys]]
    if circuits.direct is not None:
        out = out + circuits.direct[tokens[t]]
    return out if circuits.bias is None else out + circuits.bias


def _softmax(scores, mass):
    exponentials = mass * np.exp(np.where(mass > 0, scores - scores.real[mass > 0].max(), 0))
    return exponentials / exponentials.sum()


def _head(out, target, head):
    if head == "cross_entropy":
        top = out.real.max()
        return np.log(np.exp(out - top).sum()) + top - out[target]
    if head == "squared":
        residual = out.copy()
        residual[target] -= 1
        return (residual * residual).sum()
    return -np.log(out[target])
