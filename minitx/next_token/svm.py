"""Graph-SVM: the direction in which trained attention grows (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, Section 3).

    W_svm = argmin |W|_F   subject to   (e_i - e_j)' W e_k  =  0   for i, j in one SCC of G(k)
                                        (e_i - e_j)' W e_k >= 1   where i is above j in G(k)

The method is our own. Rows are reduced (``graphs.constraints``) and fall into blocks that are orthogonal to each other
(``rank_one``); equalities are projected out, which leaves the least-distance problem ``min |x|, C x >= 1`` in each
block. Block principal pivoting on C C' (Judice and Pires 1994) finds its active rows, or non-negative least squares
(Lawson and Hanson 1974, Chapter 23) where that fails. The solution is then computed from its active rows by QR, and a
report of its optimality conditions comes with it. Where there is no solution, a combination of rows proves it.

Legend: R rows, c coordinates of a block, K tokens, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import nnls

from minitx.base.checks import instance
from minitx.base.numbers import norm
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.next_token.graphs import Constraints, PriorityGraph, constraints
from minitx.next_token.rank_one import Coordinates, Span, differences, embeddings, row_blocks

LEAST_GAP = 1e-9  # weights above 1 / this, with embeddings of norm 1, are too large: constraints count as infeasible
NOTHING = 1e-14  # a share of a certificate below this is rounding
_PIVOTS = 100  # changes of sides before block principal pivoting gives up
TRUSTED = 1e-8  # largest violation of an optimality condition in a solution to rely on


class InfeasibleError(ValueError):
    """No weights meet the constraints.

    ``certificate`` lists ((k, i, j), weight): token i must be above j where k is last. The weights are above 0 and sum
    to 1, and the sum of the rows ``(e_i - e_j) e_k'`` with these weights lies in the span of the equality constraints,
    so that all priorities cannot hold. ``residual`` is the norm of the part of that sum outside the span, which is
    rounding: weights that met the constraints would have a norm of 1 / residual or more.
    """

    def __init__(self, certificate: list[tuple[tuple[int, int, int], float]], residual: float) -> None:
        self.certificate, self.residual = certificate, residual
        rows = ", ".join(f"{weight:.3g} x (k={k}: {i} above {j})" for (k, i, j), weight in certificate[:4])
        more = f" and {len(certificate) - 4} more" if len(certificate) > 4 else ""
        super().__init__(f"no weights W meet the priorities: {rows}{more} contradict each other with these embeddings "
                         f"(they add up to {residual:.3g}); give linearly independent embeddings (d >= K), or leave "
                         "those samples out")


@dataclass(frozen=True)
class KKT(Shown):
    """By how much a solution misses each optimality condition; all are 0 at the exact solution."""

    primal_equality: float  # largest |score difference| within SCCs
    primal_inequality: float  # largest amount by which a margin falls short of 1
    stationarity: float  # |W - sum of multiplier * row| / |W|
    complementarity: float  # largest |multiplier * (margin - 1)| / |W|^2
    dual: float  # largest amount by which a multiplier of an inequality is below 0, / |W|^2
    gap: float  # |sum of the multipliers of inequalities - |W|^2| / |W|^2

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(vars(self).values())


@dataclass(frozen=True, eq=False)
class GraphSVM(Shown):
    """The solution of a Graph-SVM and the report of its optimality.

    ``W = sum of multiplier * (e_i - e_j) e_k'`` over both kinds of rows of ``constraints``.
    """

    W: NDArray[np.float64]  # (d, d): the score of token j when the last token is k is e_j' W e_k
    constraints: Constraints
    equality_multipliers: NDArray[np.float64]  # (R,), of any sign
    multipliers: NDArray[np.float64]  # (R,), not negative
    kkt: KKT

    @property
    def note(self) -> str:
        """What to know before relying on W; empty if every condition holds to 1e-8, unlike where W must be huge."""
        if self.kkt.worst <= TRUSTED:
            return ""
        return (f"W_svm has norm {norm(self.W):.3g} and meets its conditions only to {self.kkt.worst:.1g} (margins: "
                f"{self.kkt.primal_inequality:.1g}): with these embeddings the priorities nearly contradict each other")


def graph_svm(graphs: dict[int, PriorityGraph], E: ArrayLike) -> GraphSVM:
    """W_svm of the ``graphs`` {k: G(k)} of some samples; 0 if no token is above another. Raises as :func:`solve`."""
    return solve(constraints(graphs), E)


@one_blas_thread()
def solve(rows: Constraints, E: ArrayLike) -> GraphSVM:
    """The least W with ``(e_i - e_j)' W e_k`` equal to 0, or at least 1, for given rows (k, i, j).

    ``E`` (K, d) are embeddings of any length, row = token. Raises ValueError if it has no row for some token, or values
    that are not finite, and InfeasibleError if no W meets the constraints: never if token differences and last tokens
    are linearly independent.
    """
    instance("rows", rows, Constraints)
    both, n_equalities = np.concatenate([rows.equalities, rows.inequalities]), len(rows.equalities)
    E = embeddings(E, 1 + int(both.max(initial=-1)))
    power = int(np.frexp(norm(E, axis=1).max(initial=0))[1])
    unit = np.ldexp(E, -power)  # norms up to 1, and the same digits
    x, weight = np.zeros((E.shape[1], E.shape[1])), np.zeros(len(both))
    for block in row_blocks(unit, both):
        equal, above = block[block < n_equalities], block[block >= n_equalities]
        if len(above) == 0:
            continue
        coordinates = Coordinates.of(unit, both[block])
        C, span = coordinates.flatten(unit, both[above]), Span.of(coordinates.flatten(unit, both[equal]))
        try:
            part, weight[above] = least_distance(span.off(C))
        except _Contradiction as found:
            shares = zip(both[above].tolist(), found.share.tolist(), strict=True)
            certificate = [((k, i, j), share) for (k, i, j), share in shares if abs(share) > NOTHING]
            raise InfeasibleError(certificate, float(np.ldexp(found.residual, 2 * power))) from None
        weight[equal] = span.weights(part - weight[above] @ C)
        x += coordinates.matrix(part)
    W, weight = np.ldexp(x, -2 * power), np.ldexp(weight, -4 * power)
    return GraphSVM(W, rows, weight[:n_equalities], weight[n_equalities:], _report(W, E, both, weight, n_equalities))


def _report(W, E, rows, weight, n_equalities):
    """KKT of ``W`` and the multipliers ``weight`` of ``rows``, the first ``n_equalities`` of them equalities."""
    u, v = differences(E, rows), E[rows[:, 0]]
    value, size = ((u @ W) * v).sum(axis=1), norm(W) or 1.0
    short, multiplier = 1 - value[n_equalities:], weight[n_equalities:]
    return KKT(
        primal_equality=float(np.abs(value[:n_equalities]).max(initial=0)),
        primal_inequality=float(short.max(initial=0)),
        stationarity=float(norm(W - (u * weight[:, None]).T @ v) / size),
        complementarity=float(np.abs(multiplier * short).max(initial=0) / size**2),
        dual=float((-multiplier).max(initial=0) / size**2),
        gap=float(abs(multiplier.sum() - norm(W) ** 2) / size**2),
    )


# ----------------------------------------------------------------------------- the least-distance problem of a block


class _Contradiction(Exception):
    """No x has C x >= 1: ``share`` (R,) >= 0 sums to 1, and ``residual`` = ``|share @ C|`` is 0 but for rounding."""

    def __init__(self, share, residual):
        self.share, self.residual = share, residual


@dataclass(frozen=True, eq=False)
class _Candidate:
    x: NDArray  # (c,)
    weight: NDArray  # (R,) >= 0
    error: float  # how far from optimal, beyond what rounding explains: at most 1 is optimal

    @classmethod
    @one_blas_thread()
    def of(cls, C: NDArray, x: NDArray, weight: NDArray) -> _Candidate:
        weight = np.maximum(weight, 0)
        size = norm(x)
        if not 0 < size < np.inf:  # rows that contradict each other
            return cls(x, weight, np.inf)
        missed = max((1 - C @ x).max(), norm(x - weight @ C) / size, abs(weight.sum() / size**2 - 1))
        return cls(x, weight, missed / (2e-13 * (1 + size)))


@one_blas_thread()
def least_distance(C: NDArray) -> tuple[NDArray, NDArray]:
    """The shortest x (c,) with ``C x >= 1`` for rows C (R, c), and weights (R,) >= 0 with ``x = weight @ C``."""
    length = norm(C, axis=1)
    if length.min() <= LEAST_GAP:
        raise _Contradiction((np.arange(len(C)) == length.argmin()).astype(float), length.min())
    candidates = []
    pivoted = pivoting(C @ C.T)
    for weight in chain([] if pivoted is None else [pivoted], _by_nnls(C)):
        candidates += [polish(C, weight), _Candidate.of(C, weight @ C, weight)]
        best = min(candidates, key=lambda candidate: candidate.error)
        if best.error <= 1:
            break
    if norm(best.x) * LEAST_GAP >= 1:
        raise _contradiction(C, best.weight / best.weight.sum())
    return best.x, best.weight


@one_blas_thread()
def pivoting(G: NDArray) -> NDArray | None:
    """(R,) weights >= 0 that minimise ``weight' (G + tiny) weight / 2 - sum(weight)``; None if the search does not end.

    Block principal pivoting (Judice and Pires 1994): rows change sides all at once while that helps, and one by one
    otherwise. G (R, R) is often singular, because two paths from one token to another make dependent rows; 1e-10 of its
    diagonal leaves one solution.
    """
    n_rows = len(G)
    G = G + 1e-10 * np.diag(G).max() * np.eye(n_rows)
    active, weight, slope = np.zeros(n_rows, bool), np.zeros(n_rows), -np.ones(n_rows)
    fewest, patience = n_rows + 1, 3
    for _ in range(_PIVOTS):
        wrong = np.where(active, weight < 0, slope < -1e-12)
        n_wrong = int(wrong.sum())
        if n_wrong == 0:
            return weight
        if n_wrong < fewest:
            fewest, patience = n_wrong, 3
        elif patience > 0:
            patience -= 1
        else:
            wrong = np.arange(n_rows) == np.flatnonzero(wrong)[-1]
        active = active ^ wrong
        weight = np.zeros(n_rows)
        try:
            weight[active] = cho_solve(cho_factor(G[np.ix_(active, active)], check_finite=False), np.ones(active.sum()))
        except np.linalg.LinAlgError:
            return None
        slope = G @ weight - 1
    return None


@one_blas_thread()
def polish(C: NDArray, weight: NDArray) -> _Candidate:
    """The candidate near ``weight`` (R,) that gives its rows margins of exactly 1: least norm by QR, refined."""
    weight, rows = weight.copy(), np.flatnonzero(weight)
    span, x = Span.of(C[rows]), np.zeros(C.shape[1])
    for _ in range(3):
        x += solve_triangular(span.triangle, 1 - C[rows[span.kept]] @ x, trans="T", check_finite=False) @ span.basis
    for _ in range(2):
        weight[rows] += span.weights(x - weight @ C)
    return _Candidate.of(C, x, weight)


def _by_nnls(C):
    """Weights from non-negative least squares, ``min |C'u|^2 + (s sum(u) - 1)^2``, for s that falls towards 1 / |x|.

    Raises _Contradiction if some u shows that there is no solution, RuntimeError if least squares end for no s.
    """
    none = True
    for s in (1.0, 1e-2, 1e-4, 1e-6, 1e-8):
        try:
            share, _ = nnls(np.vstack([C.T, np.full(len(C), s)]), np.append(np.zeros(C.shape[1]), 1.0),
                            maxiter=30 * len(C))
        except RuntimeError:  # too many iterations: another s may do
            continue
        if not share.sum() > 0:
            continue
        share = share / share.sum()
        least = norm(share @ C)  # 1 / |x| at the solution
        if least <= LEAST_GAP:
            raise _contradiction(C, share)
        none = False
        yield share / least**2
        if least > 0.1 * s:
            return
    if none:
        raise RuntimeError("non-negative least squares ended for no scale; W_svm is not known")


def _contradiction(C, share):
    """The _Contradiction of ``share`` (R,), computed anew from its rows where that is more accurate."""
    rows = np.flatnonzero(share)
    null = np.linalg.svd(C[rows].T)[2][-1]
    null = null / null.sum()
    if (null > 0).all() and norm(null @ C[rows]) <= norm(share @ C):
        share = np.zeros(len(C))
        share[rows] = null
    return _Contradiction(share, norm(share @ C))
