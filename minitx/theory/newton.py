"""Damped Newton steps for smooth, strictly convex functions of moderate dimension."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from minitx.compare import norm
from minitx.parallel import one_blas_thread

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
