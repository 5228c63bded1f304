"""Numbers that more than one theory needs: norm, cosine, relative error, agreement, total variation, Newton's method.

Sums are NumPy's and not those of BLAS, whose bits depend on its number of threads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from minitx.base.checks import described, reals
from minitx.base.parallel import matmul, one_blas_thread, together
from minitx.base.shown import Shown

PIECE = 2**15  # numbers that are worked on at once: new memory for a large array takes longer than all passes over it


def norm(a: ArrayLike, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """Euclidean (Frobenius) norm in float64, of all of ``a`` or along ``axis``; no square underflows or overflows.

    Entries are divided by a power of 2 before they are squared, which loses no digit. Returns a float, or an array as
    ``np.linalg.norm`` does.
    """
    array = reals("the array", a, finite=False)
    scale = np.ldexp(1.0, np.frexp(_largest(array, axis))[1] - 1)  # 1/2 for 0, inf and nan, which are their own norm
    if axis is None:
        flat, scale = array.ravel(order="K"), scale.item()
        return scale * math.sqrt(sum(np.sum(np.square(flat[first:first + PIECE] / scale))
                                     for first in range(0, flat.size, PIECE)))
    size = scale * np.sqrt(np.sum(np.square(array / scale), axis=axis, keepdims=True))
    return size if keepdims else np.squeeze(size, axis=axis)


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """<a, b> / (|a| |b|) of two arrays of the same shape (Frobenius, float64); nan if one of them is all zero.

    Nothing is added to a norm, so the cosine does not depend on the scale of either array.

    Raises
    ------
    ValueError
        Shapes that differ, or entries that are not finite.
    """
    x, y = _pair(a, b)
    if not (x.any() and y.any()):
        return float("nan")
    x, y, sums = x.ravel(), y.ravel(), np.zeros(3)
    largest_x, largest_y = _largest(x), _largest(y)
    for first in range(0, x.size, PIECE):
        part, other = x[first:first + PIECE] / largest_x, y[first:first + PIECE] / largest_y
        sums += np.sum(part * other), np.sum(part * part), np.sum(other * other)
    return float(np.clip(sums[0] / np.sqrt(sums[1] * sums[2]), -1.0, 1.0))


def _largest(array, axis=None):
    """The largest absolute value, of all of ``array`` or along ``axis``, which stays, of length 1; 0 if it is empty."""
    return np.maximum(array.max(axis=axis, keepdims=True, initial=0.0),
                      -array.min(axis=axis, keepdims=True, initial=0.0))


def cosine_of_products(one: Sequence[ArrayLike], other: Sequence[ArrayLike], *, rows: int = 512) -> float:
    """The :func:`cosine` of two products of matrices, without forming them: by blocks of ``rows`` rows.

    Each is a pair of factors, (n, m) and (m, p); the cosine of ``(Phi.T, B.T)`` and another pair is that of two value
    matrices. It is nan if a product is all zero; ValueError if shapes do not fit.
    """
    (a, b), (c, d) = ([np.atleast_2d(reals("a factor", factor)) for factor in pair] for pair in (one, other))
    if a.shape[1] != b.shape[0] or c.shape[1] != d.shape[0] or (len(a), b.shape[1]) != (len(c), d.shape[1]):
        raise ValueError(f"factors have shapes {a.shape} x {b.shape} and {c.shape} x {d.shape}; their products must "
                         "exist and have the same shape")
    a, b, c, d = (factor / (np.abs(factor).max() or 1.0) for factor in (a, b, c, d))
    sums = np.zeros(3)
    for first in range(0, len(a), rows):
        x, y = matmul(a[first:first + rows], b), matmul(c[first:first + rows], d)
        sums += np.sum(x * y), np.sum(x * x), np.sum(y * y)
    return float(np.clip(sums[0] / np.sqrt(sums[1] * sums[2]), -1.0, 1.0)) if sums[1] and sums[2] else float("nan")


def relative_error(a: ArrayLike, reference: ArrayLike) -> float:
    """|a - reference| / |reference| (Frobenius); nan if ``reference`` is all zero. Raises as :func:`cosine`."""
    x, y = _pair(a, reference)
    return norm(x - y) / norm(y) if y.any() else float("nan")


def projection(a: NDArray[Any], direction: NDArray[Any]) -> NDArray[Any]:
    """The multiple of ``direction`` nearest to ``a``, an array of the same shape; 0 where ``direction`` is all zero."""
    square = np.sum(direction * direction)
    return direction * (np.sum(a * direction) / square if square else 0.0)


def _pair(a, b):
    a, b = (reals(name, given, finite=False) for name, given in (("the first array", a), ("the second array", b)))
    if a.shape != b.shape:
        raise ValueError(f"cannot compare arrays of shapes {a.shape} and {b.shape}; they must have the same shape")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("cannot compare arrays that hold inf or nan")
    return a, b


@dataclass(frozen=True)
class Agreement(Shown):
    """The cosine and the relative error of each weight and its prediction, {parameter: number}; nan where undefined."""

    cosine: dict[str, float]
    relative_error: dict[str, float]


def agreement(weights: Any, predicted: Any) -> Agreement:
    """Compare ``weights`` with ``predicted`` ones of the same parametrisation; else a TypeError or ValueError.

    Several layers are compared layer by layer: the parameters are then ``W_O``, ``V 1``, ``W 1``, ``P 1``, ``V 2``, ...
    """
    for name, given in (("weights", weights), ("predicted", predicted)):
        if isinstance(given, type) or not hasattr(given, "matrices"):
            raise TypeError(f"{name} is {described(given)}; it must be weights, such as OneHotWeights")
    trained, theory = weights.matrices(), predicted.matrices()
    if absent := trained.keys() - theory.keys():
        raise TypeError(f"predicted is {described(predicted)} without {', '.join(sorted(absent))}; it must have all "
                        f"parts of the weights, which are {described(weights)}")
    pairs = [(array, theory[name]) for name, array in trained.items()]
    found = together(*(partial(function, *pair) for function in (cosine, relative_error) for pair in pairs))
    return Agreement(dict(zip(trained, found, strict=False)), dict(zip(trained, found[len(trained):], strict=True)))


def total_variation(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Total variation of distributions, half the sum of |p - q| of each row. (n, K), (n, K) -> (n,)"""
    return np.abs(np.asarray(p) - np.asarray(q)).sum(axis=-1) / 2


_STEPS = 500  # most Newton steps; a handful is usual, and many are needed where the minimum is far away
_QUADRATIC = 1e-8  # decrement below which rounding hides the change of the value, and the gradient decides on a step
_FAST = 0.1  # a full step that leaves less of the gradient than this is followed by one with the same Hessian
_ROUNDING, _SLOW = 1e-20, 0.4  # a full step of a smaller decrement that leaves more of the gradient is the last one
_SHORTEST = 2.0**-10  # shortest part of a step that is tried before what is left of the gradient counts as rounding


@one_blas_thread()
def minimise(function: Callable, x: NDArray[np.float64], stop: Callable[[NDArray], bool] | None = None
             ) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """The minimum of a convex function, as exactly as its gradient tells, by Newton's method.

    Parameters
    ----------
    function : callable
        ``function(x) -> (value, gradient (r,), Hessian (r, r))``; the value is of order 1. In the place of the Hessian
        there may be a function ``solve(b) = Hessian^-1 b``, which does its work when it is called first: not every x
        that is tried needs it.
    x : (r,) float64
        The start.
    stop : callable, optional
        ``stop(x)`` is true where the search may end early.

    Returns
    -------
    tuple
        The minimum, (r,) float64; the gradient there, (r,) float64; the number of steps.
    """
    value, gradient, hessian = function(x)
    solve, own, steps = _solver(hessian), True, 0  # own: whether ``solve`` is that of x
    while steps < _STEPS and not (stop is not None and stop(x)):
        step = -solve(gradient)
        decrement, size = -gradient @ step, norm(gradient)  # twice what the quadratic model gains
        length, found, last = 1.0, function(x + step), False
        if decrement > _QUADRATIC:  # shorten the step until the value falls by a tenth of what its slope promises
            while not found[0] <= value - 0.1 * length * decrement:
                length /= 2
                found = function(x + length * step)
        else:  # shorten the step until the gradient becomes smaller
            while own and length > _SHORTEST and not norm(found[1]) < (1 - length / 2) * size:
                length /= 4
                found = function(x + length * step)
            if not norm(found[1]) < (1 - length / 2) * size:
                if own:
                    break
                solve, own = _solver(hessian), True
                continue
            last = own and length == 1 and decrement < _ROUNDING and norm(found[1]) > _SLOW * size
        x = x + length * step
        value, gradient, hessian = found
        steps += 1
        if last:
            break
        own = not (length == 1 and norm(gradient) < _FAST * size)
        solve = _solver(hessian) if own else solve
    return x, gradient, steps


def _solver(hessian):
    """b -> Hessian^-1 b, from the Hessian or from such a function itself."""
    return hessian if callable(hessian) else positive_solver(hessian)


@one_blas_thread()
def positive_solver(A: NDArray[np.float64]) -> Callable[[NDArray], NDArray]:
    """The function b -> A^-1 b, b (r,), for a matrix A (r, r) that is positive definite up to rounding.

    Every coordinate is brought to scale 1 first. Raises LinAlgError if A is not positive definite.
    """
    scale = np.sqrt(np.maximum(np.diagonal(A), np.finfo(float).tiny))
    scaled = A / scale[:, None] / scale
    scaled[np.diag_indices_from(scaled)] += 4 * len(A) * np.finfo(float).eps
    factor = cho_factor(scaled)
    return one_blas_thread()(lambda b: cho_solve(factor, b / scale) / scale)
