"""For those who write a parametrisation: examples to test it on, and its gradient against the complex-step derivative.

The derivative along one entry is Im L(w + i h) / h with h = 1e-100: no nearby numbers are subtracted, so no digits are
lost. The loss used here is a second, plain NumPy implementation of the circuits, which accepts complex numbers.
Examples are drawn by hypothesis, which minitx itself does not need. A parametrisation is tested in five lines:

>>> from hypothesis import given
>>> from minitx import OneHotWeights
>>> from minitx.testing import check_gradient, weights
>>> @given(weights(OneHotWeights, causal=True))
... def test_gradient(problem):
...     check_gradient(*problem)
>>> test_gradient()

Legend: N sequences, T positions, V vocabulary.
"""

import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minitx.base.checks import described, function, generator, instance, positive, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.data.batch import HEADS, Batch
from minitx.model.circuits import Circuits, loss_and_gradient
from minitx.model.layers import LayeredWeights
from minitx.model.parameters import Parameters, Seed

STEP = 1e-100  # of the complex step; its square is 0, so that the derivative has no error of second order
SCALES = (0.0, 1e-3, 1.0, 30.0, 1e3)  # standard deviations of the tables that are drawn


def batches(*, causal: bool | None = None, head: str | None = None, padded: bool = True, uniform: bool = False,
            masses: bool = True) -> Any:
    """Strategy of (Batch, V): N is 1 to 4, T 1 to 7, V 2 to 6; tokens repeat, and some of the vocabulary never occur.

    ``causal`` and ``head`` are drawn when None. ``padded`` and ``masses``: sequences may differ in length, and keys may
    have masses (0 among them). ``uniform``: every position has the same weight, and there are neither lengths nor
    masses. All strategies raise ImportError when hypothesis is not installed.
    """
    st = _hypothesis()

    @st.composite
    def drawn(draw):
        n, length, n_vocab = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(2, 6))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        seen = draw(st.integers(1, n_vocab))
        tokens, targets = rng.integers(0, seen, (n, length)), rng.integers(0, n_vocab, (n, length))
        settings = {"causal": draw(st.booleans()) if causal is None else causal,
                    "head": draw(st.sampled_from(HEADS)) if head is None else head}
        if uniform:
            return Batch(tokens, targets, **settings), n_vocab
        lengths = rng.integers(1, length + 1, n) if padded and draw(st.booleans()) else np.full(n, length)
        weight = rng.random((n, length)) * (rng.random((n, length)) < draw(st.sampled_from((0.2, 0.7, 1.0))))
        weight *= np.arange(length) < lengths[:, None]
        if not weight.any():
            weight[0, 0] = 1.0
        mass = None
        if masses and draw(st.booleans()):  # the first key, which every position may attend to, keeps some mass
            mass = rng.exponential(size=(n, length)) * (rng.random((n, length)) < draw(st.sampled_from((0.5, 1.0))))
            mass[:, 0] += 0.1
        return Batch(tokens, targets, weight, lengths=lengths, mass=mass, **settings), n_vocab

    return drawn()


def circuits(**settings: Any) -> Any:
    """Strategy of (Circuits, Batch): tables of every scale up to 1e3, some of them absent.

    Under the head ``log`` the outputs are positive. ``settings`` are those of :func:`batches`.
    """
    st, sequences = _hypothesis(), batches(**settings)

    @st.composite
    def drawn(draw):
        batch, V = draw(sequences)
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        shapes = {"direct": (V, V), "ov": (V, V), "qk": (V, V), "bias": (V,),
                  "position": (batch.tokens.shape[1] + draw(st.integers(0, 2)),)}
        tables = {}
        for name, shape in shapes.items():
            scale = draw(st.sampled_from(SCALES))
            tables[name] = scale * rng.standard_normal(shape)
            if batch.head == "log" and name in ("direct", "ov", "bias"):
                tables[name] = rng.random(shape) + 0.05
            if name != "ov" and draw(st.integers(0, 3)) == 0 or name == "position" and not batch.causal:
                tables[name] = None
        return Circuits(**tables), batch

    return drawn()


def weights(kind: Any, **settings: Any) -> Any:
    """Strategy of (weights, Batch) that fit each other; ``settings`` are those of :func:`batches`.

    The weights, for V tokens and T positions, are those of ``kind.gaussian(V, T, scale=..., rng=...)``, which for
    LayeredWeights has 1 to 4 layers. Under the head ``log`` their absolute values, raised by 0.05, are taken, so that
    sums of products are positive.
    """
    if not hasattr(kind, "gaussian"):
        raise TypeError(f"kind is {described(kind)}; it must be a parametrisation with a classmethod "
                        "gaussian(n_vocab, length, scale=..., rng=...), such as OneHotWeights")
    st, sequences = _hypothesis(), batches(**settings)

    @st.composite
    def drawn(draw):
        batch, n_vocab = draw(sequences)
        scale, seed = draw(st.sampled_from(SCALES[:-1])), draw(st.integers(0, 2**32 - 1))
        sizes = [n_vocab, batch.tokens.shape[1], *([draw(st.integers(1, 4))] if kind is LayeredWeights else [])]
        found = kind.gaussian(*sizes, scale=scale, rng=seed)
        if batch.head == "log":
            found = found.map(lambda array: np.abs(array) / (scale or 1.0) + 0.05)
        return found, batch

    return drawn()


def _hypothesis():
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ImportError("minitx.testing draws its examples with hypothesis, which is not installed; type: "
                          "pip install hypothesis") from error
    return strategies


def check_gradient(weights: Parameters, batch: Any, *, loss_and_gradient: Callable = loss_and_gradient,
                   loss: Callable | None = None, rtol: float = 1e-12, max_entries: int = 50,
                   rng: Seed = 0) -> dict[str, float]:
    """Hold the gradient of ``weights`` to the complex-step derivative. Returns {parameter: largest relative error}.

    Parameters
    ----------
    weights : any parametrisation, float64
        Its ``circuits()`` must accept complex arrays (products and sums do).
    batch : Batch, or whatever ``loss`` takes in its place
    loss_and_gradient
        What is being tested: ``(weights, batch) -> (loss, gradient)``.
    loss : callable, optional
        The loss that the derivative is taken of, ``loss(weights, batch)``, where the objective is another one than the
        loss of the batch. It is called with complex weights and returns a complex number: products, sums and analytic
        functions do, but neither ``abs`` nor ``np.linalg.norm``. Default: :func:`plain_loss` of the circuits.
    rtol : float
        Largest error allowed, relative to the largest derivative found for the parameter; on top, a derivative that is
        0 is allowed the rounding of the sums that make it up (1e-15 of what is summed).
    max_entries : int
        Number of entries checked of each parameter, at least 1, drawn with ``rng`` (all, if there are no more).

    Raises
    ------
    TypeError, ValueError
        Weights that are not float64, settings that are not valid, functions that do not return what they must.
    AssertionError
        A gradient with other parts, shapes or dtypes than the weights, an error above ``rtol``, or a loss that
        disagrees (both are shown).

    Examples
    --------
    Weight decay, whose loss is that of the batch and half the decay times the squares of the weights:

    >>> from minitx import Batch, OneHotWeights, loss_and_gradient
    >>> from minitx.testing import check_gradient, plain_loss
    >>> def loss(weights, batch, decay=0.1):
    ...     squares = sum((array * array).sum() for array in weights.parameters().values())
    ...     return plain_loss(weights.circuits(), batch) + decay / 2 * squares
    >>> def decayed(weights, batch, decay=0.1):
    ...     _, gradient = loss_and_gradient(weights, batch)
    ...     return loss(weights, batch), gradient.map(lambda slope, array: slope + decay * array, weights)
    >>> weights = OneHotWeights.gaussian(5, 3, scale=1.0, rng=0)
    >>> errors = check_gradient(weights, Batch([[0, 1, 2]], [[1, 2, 4]]), loss_and_gradient=decayed, loss=loss)
    >>> max(errors.values()) < 1e-12
    True
    """
    # 1. What is tested can be: names, shapes and dtypes come before numbers
    max_entries, rtol, draw = whole_number("max_entries", max_entries, 1), positive("rtol", rtol), generator(rng)
    instance("weights", weights, Parameters)
    function("loss_and_gradient", loss_and_gradient, "loss_and_gradient(weights, batch)")
    wrong = {name: str(array.dtype) for name, array in weights.parameters().items() if array.dtype != np.float64}
    if wrong:
        raise ValueError(f"the complex step checks float64 weights, got {wrong}; use weights.astype(np.float64)")
    if loss is None:
        instance("batch", batch, Batch)
    expected_loss = _plain if loss is None else _called(loss, weights, batch)
    value, gradient = _tested(loss_and_gradient(weights, batch), weights)
    # 2. The loss
    plain = expected_loss(weights, batch)
    if not abs(value - plain) <= max(rtol, 1e-13) * max(1.0, abs(plain)):
        other = "plain NumPy" if loss is None else "the loss given"
        raise AssertionError(f"loss is {value!r}; {other} gives {plain!r}")
    # 3. The derivatives
    slack, errors = _slack(weights, batch, gradient), {}
    for name, array in weights.parameters().items():
        entries = draw.permutation(array.size)[:max_entries]
        expected = np.array([_complex_step(expected_loss, weights, batch, name, entry) for entry in entries])
        found = getattr(gradient, name).ravel()[entries]
        scale = np.abs(expected).max()
        error = np.abs(found - expected)
        allowed = rtol * scale + slack[name].ravel()[entries]
        worst = (error / allowed).argmax()
        if not error[worst] <= allowed[worst]:
            place = tuple(int(i) for i in np.unravel_index(entries[worst], array.shape))
            raise AssertionError(f"dL/d{name}{list(place)} is {found[worst]!r}; the complex step gives "
                                 f"{expected[worst]!r} (error {error[worst]:.3g}, allowed {allowed[worst]:.3g}: "
                                 f"{rtol:g} of {scale:.3g}, and rounding)")
        errors[name] = float(error.max() / scale) if scale else float(error.max())
    return errors


def _called(loss, weights, batch):
    """``loss``, which returned one number for ``weights``, and a complex one for complex weights; else a TypeError."""
    function("loss", loss, "loss(weights, batch)")
    for kind, given in (("number", weights), ("complex number", weights.astype(np.complex128))):
        try:
            value = loss(given, batch)
        except (TypeError, ValueError) as error:
            if given is weights:
                raise
            raise TypeError(f"loss cannot take complex weights ({error}); make it of products, sums and analytic "
                            "functions, such as minitx.testing.plain_loss(weights.circuits(), batch)") from error
        if not isinstance(value, (numbers.Number, np.ndarray)) or np.ndim(value) != 0:
            raise TypeError(f"loss returned {described(value)}; it must return one {kind}")
    if not np.iscomplexobj(value):
        raise TypeError(f"loss returned {value!r}, a real number, for complex weights; it must be made of products, "
                        "sums and analytic functions, without abs, float, np.real or a norm")
    return loss


def _tested(returned, weights):
    """Return (loss, gradient).

    Raises TypeError unless ``returned`` is such a pair, and AssertionError unless the gradient is like the weights.
    """
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise TypeError(f"loss_and_gradient returned {described(returned)}; it must return (loss, gradient)")
    value, gradient = returned
    if not isinstance(value, (numbers.Real, np.ndarray)) or np.ndim(value) != 0:
        raise TypeError(f"loss_and_gradient returned {described(value)} as the loss; it must be a number")
    if not isinstance(gradient, Parameters):
        raise TypeError(f"loss_and_gradient returned {described(gradient)} as the gradient; it must be a "
                        f"{type(weights).__name__}, as the weights are")
    found, wanted = gradient.parameters(), weights.parameters()
    if missing := [name for name in wanted if name not in found]:
        raise AssertionError(f"the gradient has no {', '.join(missing)}, which the weights have")
    if extra := [name for name in found if name not in wanted]:
        raise AssertionError(f"the gradient has {', '.join(extra)}, which the weights have not")
    for name, array in wanted.items():
        shape, dtype = np.shape(found[name]), np.asarray(found[name]).dtype
        if shape != array.shape or dtype != array.dtype:
            raise AssertionError(f"dL/d{name} has shape {shape} and dtype {dtype}; {name} has shape {array.shape} and "
                                 f"dtype {array.dtype}, and both must be the same")
    return float(value), gradient


def _slack(weights, batch, gradient):
    """{parameter: how much rounding alone may change its derivative}; next to nothing where there is no Batch."""
    if not isinstance(batch, Batch):
        return {name: np.full(array.shape, 1e-300) for name, array in weights.parameters().items()}
    if isinstance(weights, LayeredWeights):
        return _rounding_of_layers(weights, batch, gradient)
    circuits = weights.circuits()
    bound = rounding(circuits, batch)
    # the pullback carries the tables' rounding to the weights, through absolute values, so that nothing cancels
    carried = weights.map(np.abs).pullback(circuits.map(lambda table: np.full(table.shape, bound)))
    return {name: np.maximum(bound, np.abs(array)) for name, array in carried.parameters().items()}


def _rounding_of_layers(weights, batch, gradient):
    """The same for layers: 1e-15 of the largest derivative, times the largest score, and of what the outputs change.

    Probabilities are known to 1e-16, so that a derivative is known to that part of the derivative of the outputs; that
    is found along a random direction of each parameter, by the complex step.
    """
    size = max(_plain_layers(weights, batch, s)[1] for s in range(len(batch)))
    largest = max(np.abs(array).max() for array in gradient.parameters().values())
    rng, found = np.random.default_rng(0), {}
    for name, array in weights.parameters().items():
        moved = replace(weights, **{name: array + 1j * STEP * rng.choice((-1.0, 1.0), array.shape)})
        slope = max(np.abs(_plain_layers(moved, batch, s)[0].imag).max() for s in range(len(batch))) / STEP
        change = largest + np.abs(batch.weight).sum() * slope
        found[name] = np.full(array.shape, max(1e-300, 1e-15 * max(1.0, size) * change))
    return found


def rounding(circuits: Circuits, batch: Batch) -> float:
    """How much rounding alone may change a derivative: 1e-15 of the products of residual and table that it sums."""
    table = max(1.0, *(np.abs(table).max() for table in circuits.parameters().values()))
    residual = max(_residual_size(circuits, batch, s, t) for s, t in np.argwhere(batch.weight != 0))
    return 1e-15 * np.abs(batch.weight).sum() * table * residual


def _residual_size(circuits, batch, s, t):
    """Largest |d head / d out| at a position, at least 1."""
    if batch.head == "cross_entropy":
        return 1.0
    out = _plain_output(circuits, batch, s, t)
    return max(1.0, 2 * np.abs(out).max() + 2 if batch.head == "squared" else 1 / np.abs(out[batch.targets[s, t]]))


@one_blas_thread()  # once, and not for every position
def _complex_step(loss, weights, batch, name, entry):
    array = getattr(weights, name).astype(np.complex128)
    array.ravel()[entry] += 1j * STEP
    return np.imag(loss(replace(weights, **{name: array}), batch)) / STEP


def _plain(weights, batch):
    """The loss in plain NumPy; weights may be complex."""
    if not isinstance(weights, LayeredWeights):
        return plain_loss(weights.circuits(), batch)
    outputs = [_plain_layers(weights, batch, s)[0] for s in range(len(batch))]
    return sum(batch.weight[s, t] * _head(outputs[s][t], batch.targets[s, t], batch.head)
               for s, t in np.argwhere(batch.weight != 0))


@one_blas_thread()
def _plain_layers(weights, batch, s):
    """Outputs of sequence s (T, V), and the size of its largest score."""
    length = int(batch.lengths[s])
    h, size, at = np.eye(weights.n_vocab)[batch.tokens[s, :length]], 0.0, np.arange(length)
    distance = at[:, None] - at
    for V, W, P in zip(weights.V, weights.W, weights.P, strict=True):
        scores = h @ W @ h.T + P[np.abs(distance)]
        size = max(size, np.abs(scores[distance >= 0]).max())
        scores = np.where(distance >= 0, scores, -np.inf)
        top = scores.real.max(axis=1, keepdims=True)
        A = np.exp(scores - top)
        h = h + (A / A.sum(axis=1, keepdims=True)) @ h @ V
    return h @ weights.W_O, size


def plain_loss(circuits: Circuits, batch: Batch) -> Any:
    """The loss of ``circuits`` on ``batch``, position by position in plain NumPy; tables may be complex."""
    return sum(batch.weight[s, t] * _head(_plain_output(circuits, batch, s, t), batch.targets[s, t], batch.head)
               for s, t in np.argwhere(batch.weight != 0))


@one_blas_thread()
def _plain_output(circuits, batch, s, t):
    """Output of position t of sequence s, (V,)."""
    tokens = batch.tokens[s]
    keys = np.arange(t + 1 if batch.causal else batch.lengths[s])
    scores = np.zeros(len(keys), circuits.ov.dtype)
    if circuits.qk is not None:
        scores = scores + circuits.qk[tokens[t], tokens[keys]]
    if circuits.position is not None:
        scores = scores + circuits.position[t - keys]
    mass = np.ones(len(keys)) if batch.mass is None else batch.mass[s, keys]
    shares = mass * np.exp(np.where(mass > 0, scores - scores.real[mass > 0].max(), 0))
    out = shares / shares.sum() @ circuits.ov[tokens[keys]]
    if circuits.direct is not None:
        out = out + circuits.direct[tokens[t]]
    return out if circuits.bias is None else out + circuits.bias


def _head(out, target, head):
    if head == "cross_entropy":
        top = out.real.max()
        return np.log(np.exp(out - top).sum()) + top - out[target]
    if head == "squared":
        residual = out - np.eye(len(out))[target]
        return (residual * residual).sum()
    return -np.log(out[target])
