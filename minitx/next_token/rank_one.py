"""Rows ``(e_i - e_j) e_k'`` of the next-token theory as vectors: which are orthogonal, and short coordinates for them.

A row (k, i, j) stands for the d x d matrix ``u v'``, u = e_i - e_j, v = e_k; its inner product with W is the score
difference ``(e_i - e_j)' W e_k``. Rows fall into blocks that are orthogonal to each other, and each block lies in
span(u) x span(v). With orthonormal embeddings the blocks are small, one for each last token and connected piece of its
graph; no special case makes them so (our own method, beyond the paper).

Legend: R rows (k, i, j), K tokens, d width, a and b the dimensions of span(u) and span(v) of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr, solve_triangular
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from minitx.base.checks import positive, reals, table_size, whole_number
from minitx.base.numbers import norm
from minitx.base.parallel import matmul, one_blas_thread
from minitx.base.shown import Shown

SAME = 1e-13  # cosines below this are rounding: orthogonal
RANK = 1e-10  # a unit row this close to the span of others lies in it


def embeddings(E: ArrayLike, n_vocab: int) -> NDArray[np.float64]:
    """Return ``E`` as (K, d) float64. Raises ValueError unless it is finite and has at least ``n_vocab`` rows.

    Its largest entry must be 0 or between 1e-70 and 1e70: the fourth powers of lengths enter the theory.
    """
    E = reals("E", E, finite=False)
    if E.ndim != 2 or len(E) < n_vocab or E.shape[1] == 0:
        raise ValueError(f"E has shape {E.shape}; it must be (K, d), one row for each of the {n_vocab} tokens")
    if not np.isfinite(E).all():
        raise ValueError("E holds values that are not finite; every embedding must be finite")
    largest = np.abs(E).max(initial=0.0)
    if largest and not 1e-70 <= largest <= 1e70:
        raise ValueError(f"the largest entry of E is {largest:.3g}, too far from 1 to compute with; scale E, and W "
                         "goes as 1 / E^2")
    return E


def equicorrelated(n_vocab: int, cosine: float) -> NDArray[np.float64]:
    """(K, K) embeddings of length 1, row = token, each two of which have the same ``cosine``, between 0 and 1.

    They are linearly independent, so that every Graph-SVM has a solution. Raises ValueError for another cosine.
    """
    n_vocab, cosine = whole_number("n_vocab", n_vocab, 1), positive("cosine", cosine)
    if cosine >= 1:
        raise ValueError(f"cosine is {cosine:g}; it must be below 1, where all embeddings would be the same")
    table_size("the embeddings", n_vocab, n_vocab)
    E = np.eye(n_vocab) + (np.sqrt(1 + n_vocab * cosine / (1 - cosine)) - 1) / n_vocab
    return E / norm(E, axis=1, keepdims=True)


def differences(E: NDArray, rows: NDArray) -> NDArray:
    """(R, d) u = e_i - e_j of each row (k, i, j)."""
    return E[rows[:, 1]] - E[rows[:, 2]]


@one_blas_thread()
def row_blocks(E: NDArray, rows: NDArray, group: NDArray | None = None) -> list[NDArray]:
    """Blocks of ``rows`` (R, 3) that are orthogonal to each other: arrays of row numbers, ordered by their first.

    Rows of the same ``group`` (R,), where it is given, stay in one block.
    """
    # 1. |cos(v, v')| of the last tokens; only rows whose last tokens these connect must be compared with each other
    last, at = np.unique(rows[:, 0], return_inverse=True)
    v = _unit(E[last])
    cos_v = np.abs(v @ v.T)
    part = connected_components(cos_v > SAME, directed=False)[1][at]
    u, found = _unit(differences(E, rows)), []
    for number in range(part.max(initial=-1) + 1):
        inside = np.flatnonzero(part == number)
        # 2. |cos(row, row')| = |cos(u, u')| |cos(v, v')|, because <u v', w x'> = <u, w> <v, x>
        cosine = np.abs(u[inside] @ u[inside].T)
        cosine *= cos_v[np.ix_(at[inside], at[inside])]
        one, other = np.nonzero(cosine > SAME)
        # 3. Each row goes with the first row of its group
        if group is not None:
            _, first, which = np.unique(group[inside], return_index=True, return_inverse=True)
            one, other = np.append(one, np.arange(len(inside))), np.append(other, first[which])
        # 4. The blocks are what is connected
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(inside), len(inside)))
        label = connected_components(graph, directed=False)[1]
        found += [inside[label == block] for block in np.unique(label)]
    return sorted(found, key=lambda block: block[0])


def _unit(x):
    """Rows of ``x`` at length 1; zero rows stay zero."""
    length = norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


@dataclass(frozen=True, eq=False)
class Coordinates(Shown):
    """span(u) x span(v) of a block: vectors of a * b numbers stand for d x d matrices, lengths and angles kept."""

    left: NDArray[np.float64]  # (d, a): orthonormal columns that span the u
    right: NDArray[np.float64]  # (d, b): orthonormal columns that span the v

    @classmethod
    @one_blas_thread()
    def of(cls, E: NDArray, rows: NDArray) -> Coordinates:
        """Those of the block ``rows`` (R, 3)."""
        return cls(*(_range(x) for x in (differences(E, rows), E[np.unique(rows[:, 0])])))

    @one_blas_thread()
    def flatten(self, E: NDArray, rows: NDArray) -> NDArray:
        """(R, a b): each row (k, i, j) as a vector."""
        u, v = differences(E, rows) @ self.left, E[rows[:, 0]] @ self.right
        return (u[:, :, None] * v[:, None, :]).reshape(len(rows), u.shape[1] * v.shape[1])

    @cached_property
    def support(self) -> tuple[NDArray, ...]:
        """Rows and columns (as np.ix_) of a matrix here that need not be 0: few, where embeddings are one-hot."""
        return np.ix_(self.left.any(axis=1), self.right.any(axis=1))

    @cached_property
    def _inner(self):
        """``left`` and ``right`` without their rows of zeros."""
        rows, columns = self.support
        return np.ascontiguousarray(self.left[rows.ravel()]), np.ascontiguousarray(self.right[columns.ravel()])

    def vector(self, W: NDArray) -> NDArray:
        """(a b,): the part of ``W`` (d, d) that lies here."""
        left, right = self._inner
        return matmul(matmul(left.T, W[self.support]), right).ravel()

    def inner_matrix(self, x: NDArray) -> NDArray:
        """The rows and columns ``support`` of the matrix that the vector ``x`` (a b,) stands for; the others are 0."""
        left, right = self._inner
        return matmul(matmul(left, x.reshape(left.shape[1], right.shape[1])), right.T)

    def matrix(self, x: NDArray) -> NDArray:
        """(d, d): the matrix that the vector ``x`` (a b,) stands for."""
        half = matmul(x.reshape(self.left.shape[1], self.right.shape[1]), self.right.T)
        return matmul(np.ascontiguousarray(half.T), self.left.T).T


def _range(x):
    """(d, r) orthonormal columns that span the rows of ``x`` (R, d) to rounding."""
    Q, R, _ = qr(x.T, mode="economic", pivoting=True, check_finite=False)
    size = np.abs(np.diagonal(R))
    return Q[:, size > np.finfo(float).eps * max(x.shape) * size[0]]


@dataclass(frozen=True, eq=False)
class Span(Shown):
    """The span of rows (R, c), by pivoted QR."""

    basis: NDArray[np.float64]  # (r, c): orthonormal rows
    kept: NDArray[np.int64]  # (r,): independent rows, in the order of the pivots
    triangle: NDArray[np.float64]  # (r, r): rows[kept] = triangle' basis
    n_rows: int

    @classmethod
    @one_blas_thread()
    def of(cls, rows: NDArray) -> Span:
        """That of ``rows``; each counts at length 1, and one within ``RANK`` of the span of the others adds nothing."""
        if rows.size == 0:  # older SciPy refuses it
            return cls(np.zeros((0, rows.shape[1])), np.zeros(0, np.int64), np.zeros((0, 0)), len(rows))
        length = norm(rows, axis=1)
        Q, R, pivots = qr(_unit(rows).T, mode="economic", pivoting=True, check_finite=False)
        r = int((np.abs(np.diagonal(R)) > RANK).sum())
        kept = pivots[:r].astype(np.int64)
        return cls(np.ascontiguousarray(Q[:, :r].T), kept, R[:r, :r] * length[kept], len(rows))

    @one_blas_thread()
    def off(self, x: NDArray) -> NDArray:
        """``x`` (..., c) without its part in the span; the second round takes off what rounding leaves of it."""
        for _ in range(2):
            x = x - x @ self.basis.T @ self.basis
        return x

    @one_blas_thread()
    def weights(self, x: NDArray) -> NDArray:
        """(n_rows,) weights of the rows whose sum comes closest to ``x`` (c,), zero for rows that were not kept."""
        found = np.zeros(self.n_rows)
        if len(self.kept):
            found[self.kept] = solve_triangular(self.triangle, self.basis @ x, check_finite=False)
        return found
