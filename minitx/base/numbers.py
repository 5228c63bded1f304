"""Numbers that more than one theory needs: norm, cosine, relative error, total variation, and the least point of a convex function."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from minitx.base.parallel import one_blas_thread


@dataclass(frozen=True)
class Agreement:
    """How near weights are to those predicted; both dicts are {parameter: number}, nan where it is undefined.

    Attributes
    ----------
    cosine, relative_error : dict
        Of the weight and its prediction; |weight - prediction| / |prediction|.
    """

    cosine: dict
    relative_error: dict


def agreement(weights, predicted):
    """Set ``weights`` beside ``predicted`` ones, of the same parametrisation. Returns :class:`Agreement`."""
    pairs = {name: (array, getattr(predicted, name)) for name, array in weights.parameters().items()}
    return Agreement({name: cosine(*pair) for name, pair in pairs.items()},
                     {name: relative_error(*pair) for name, pair in pairs.items()})


def norm(a, axis=None, *, keepdims=False):
    """Euclidean (Frobenius) norm in float64, of all of ``a`` or along ``axis``; no square underflows or overflows.

    Entries are scaled by a power of 2, which is exact, and summed by NumPy, because the bits of a sum by BLAS depend on
    its threads. Returns a float, or an array as ``np.linalg.norm`` does.
    """
    a = np.asarray(a, np.float64)
    largest = np.abs(a).max(axis=axis, keepdims=True, initial=0.0)
    scale = np.ldexp(1.0, np.frexp(largest)[1] - 1)  # 1/2 for 0, and for inf and nan, which are then their own norm
    size = scale * np.sqrt(np.sum(np.square(a / scale), axis=axis, keepdims=True))
    if axis is None:
        return float(size.item())
    return size if keepdims else np.squeeze(size, axis=axis)


def cosine(a, b):
    """<a, b> / (|a| |b|) of two arrays of the same shape (Frobenius, float64).

    Scale-free: nothing is added to a norm, and entries of any size are welcome.

    Returns
    -------
    float
        nan where it is undefined: ``a`` or ``b`` is all zero.

    Raises
    ------
    ValueError
        Shapes that differ, or entries that are not finite.
    """
    a, b = _pair(a, b)
    size_a, size_b = np.abs(a).max(initial=0), np.abs(b).max(initial=0)
    if size_a == 0 or size_b == 0:
        return float("nan")
    a, b = a / size_a, b / size_b
    # sums, not BLAS, whose bits depend on its threads
    return float(np.clip(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)), -1.0, 1.0))


def relative_error(a, reference):
    """|a - reference| / |reference| (Frobenius); nan where it is undefined: ``reference`` is all zero. Raises as :func:`cosine`."""
    a, reference = _pair(a, reference)
    return norm(a - reference) / norm(reference) if reference.any() else float("nan")


def _pair(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"cannot compare arrays of shapes {a.shape} and {b.shape}; they must have the same shape")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("cannot compare arrays that hold inf or nan")
    return a, b

_STEPS = 500  # a handful is usual; many where the least point is far away
_QUADRATIC = 1e-8  # below this decrement values no longer tell steps apart, and the gradient does
_SHORTEST = 2.0**-10  # step by which the gradient must become smaller, or nothing but rounding is left of it


@one_blas_thread()
def minimise(function, x, stop=None):
    """The least point of a convex function, as far as its gradient can tell.

    Parameters
    ----------
    function : callable
        ``function(x) -> (value, gradient (r,), Hessian (r, r))``; the value of order 1.
    x : (r,) float64
        Where to begin.
    stop : callable, optional
        ``stop(x)``: true where nothing more is to be found.

    Returns
    -------
    x : (r,) float64
    gradient : (r,) float64
        At x.
    steps : int
    """
    value, gradient, hessian = function(x)
    steps = 0
    while steps < _STEPS and not (stop is not None and stop(x)):
        step = -_solve(hessian, gradient)
        decrement = -gradient @ step
        length, found = 1.0, function(x + step)
        while decrement > _QUADRATIC and not found[0] <= value - 0.1 * length * decrement:
            length /= 2
            found = function(x + length * step)
        if decrement <= _QUADRATIC:
            size = norm(gradient)
            while length > _SHORTEST and not norm(found[1]) < (1 - length / 2) * size:
                length /= 4
                found = function(x + length * step)
            if not norm(found[1]) < (1 - length / 2) * size:
                break
        x = x + length * step
        value, gradient, hessian = found
        steps += 1
    return x, gradient, steps


def _solve(A, b):
    """A^-1 b, A positive definite but for rounding; every coordinate in its own scale."""
    scale = np.sqrt(np.maximum(np.diagonal(A), np.finfo(float).tiny))
    scaled = A / scale[:, None] / scale
    scaled[np.diag_indices_from(scaled)] += 4 * len(A) * np.finfo(float).eps
    return cho_solve(cho_factor(scaled), b / scale) / scale

def total_variation(p, q):
    """Total variation of distributions, half the sum of |p - q| of each row. (n, K), (n, K) -> (n,)"""
    return np.abs(np.asarray(p) - np.asarray(q)).sum(axis=-1) / 2
