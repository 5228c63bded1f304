"""Expectations over the share of a topic in a document, which has a Beta law where topic shares are Dirichlet."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from minitx.base.parallel import one_blas_thread


@one_blas_thread()
def beta_quadrature(ours: float, others: float, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes (Q,) in (0, 1) and weights (Q,), which sum to 1: E f(x) = weights @ f(nodes) for x ~ Beta(ours, others).

    Exact, to rounding, for polynomials f of degree 2 Q - 1 at most, Q = ``nodes``.

    Notes
    -----
    Golub and Welsch (1969): the nodes are the eigenvalues of the tridiagonal matrix of the recurrence of the Jacobi
    polynomials, and the weights are the squares of the first entries of its eigenvectors. ``scipy.special`` finds the
    same rule through gamma functions, with errors up to 4e-8 at parameters near 0, and not at all at large ones.
    """
    A, B = others - 1, ours - 1  # the weight is (1 - t)^A (1 + t)^B on (-1, 1), x = (1 + t) / 2
    k = np.arange(1.0, nodes)
    s = 2 * k + A + B
    diagonal = np.append((B - A) / (A + B + 2), (B - A) * (A + B) / (s * (s + 2)))
    square = 4 * (A + 1) * (B + 1) / ((A + B + 2)**2 * (A + B + 3)) * np.ones_like(k)
    k, s = k[1:], s[1:]
    square[1:] = 4 * k * (k + A) * (k + B) * (k + A + B) / (s**2 * (s + 1) * (s - 1))
    t, vectors = eigh_tridiagonal(diagonal, np.sqrt(square))
    weight = vectors[0]**2
    return (1 + t) / 2, weight / weight.sum()
