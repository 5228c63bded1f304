"""The regularisation path W(tau) outside S_fin, and the residual rho that it keeps beside W_svm and W_fin.

With its part in S_fin at W_fin, where it stays, the log loss falls by its excess e alone
(:mod:`minitx.next_token.split`):

    W(tau) = W_fin + argmin of |V|^2 / 2 + tau log e(W_fin + V) over V orthogonal to S_fin                 split_path
           = g W_svm + W_fin + rho + o(1),  g growing without bound,                                       residual

so the path goes where gradient descent goes, along W_svm, without its steps: 1 - correlation with W_svm falls like 1 /
tau^2. The SCCs of the data are given to it; it discovers nothing. e depends on V by the margins of pairs of SCCs alone
(Pairs):

    z_i = log sum_m exp(log_mass_m + <row_m, V>),  m over tokens outside the label's SCC,  row = (e_j - e_y) e_k'

Up to a multiple of W_svm, which is counted in g, rho is the least point of sum_c kappa_c exp(<x_c, rho>) + <W_svm, rho>
in the span of the support rows x_c, which are those of margin 1 in W_svm. kappa_c is the mass below over the mass above
at W_fin, summed over samples by share; the kappa_c exp(<x_c, rho>) are then multipliers of the Graph-SVM. rho decides
how SCCs that W_svm leaves tied share the attention. All this is beyond Li, Huang, Ildiz, Rawat, Oymak (AISTATS 2024).

Legend: n samples with tokens outside the label's SCC, m such tokens; R pairs of SCCs, r the dimension of their rows, d
width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from minitx.base.checks import instance, positive, square
from minitx.base.numbers import minimise, norm
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.next_token.graphs import constraints
from minitx.next_token.rank_one import Coordinates, Span, row_blocks
from minitx.next_token.split import Split

_LOST = 1e-4  # of |y|: where rounding hides the least point, the gradient leaps from 1e-8 to 1e-2 and more
_SUPPORT = 1e-7  # a row whose margin is above 1 by more than this is no support row
_VANISHED = 1e-7  # a multiplier this small beside the largest one counts as zero
_STOP = 35.0  # the search for rho ends when the logarithms of multipliers are this far apart: one of them goes to zero


@dataclass(frozen=True, eq=False)
class Pairs(Shown):
    """The excess as a function of V, orthogonal to S_fin, in coordinates x (r,) of the span of the pairs' rows."""

    names: NDArray[np.int64]  # (R, 3): (k, j, y), each SCC by its smallest token
    power: int  # the coordinates are for embeddings / 2^power, of norms about 1 or less: 4^power times those of V
    rows: NDArray[np.float64]  # (R, r): (e_j - e_y) e_k', j in the SCC outside and y in the label's, off S_fin
    parts: tuple[tuple[Coordinates, NDArray], ...]  # block by block: the matrices' Coordinates, and a basis in them
    starts: NDArray[np.int64]  # (n + 1,): where the tokens of each sample begin
    row: NDArray[np.int64]  # (m,): the row of each token
    log_mass: NDArray[np.float64]  # (m,): log(mass of the token at W_fin / mass inside the label's SCC)
    log_share: NDArray[np.float64]  # (n,)

    @classmethod
    @one_blas_thread()
    def of(cls, split: Split, W_fin: NDArray) -> Pairs:
        """Those of ``split``, at ``W_fin`` (d, d)."""
        samples, owner, outside = split.samples, split.samples.owner(), np.flatnonzero(~split.inside)
        # 1. The pair of each token outside
        names, row = np.unique(split.pairs[outside], axis=0, return_inverse=True)
        # 2. log_mass = log(N exp(S)) - log(sum of N exp(S) inside), at W_fin
        score = split.scores(W_fin)[samples.tokens, samples.last[owner]] + np.log(samples.counts)
        log_inside = np.full(len(samples), -np.inf)
        np.logaddexp.at(log_inside, owner[split.inside], score[split.inside])
        log_mass = score[outside] - log_inside[owner[outside]]
        sample, starts = np.unique(owner[outside], return_index=True)
        # 3. The rows of the pairs, in coordinates orthogonal to S_fin
        power = int(np.rint(np.log2(norm(split.embeddings, axis=1).max() or 1.0)))
        rows, parts = _coordinates(np.ldexp(split.embeddings, -power), names, constraints(split.graphs).equalities)
        return cls(names, power, rows, parts, np.append(starts, len(outside)), row.ravel(), log_mass,
                   np.log(samples.share[sample]))

    def columns(self) -> list[slice]:
        """The columns of ``rows`` that belong to each of ``parts``."""
        edges = np.cumsum([0, *(len(basis) for _, basis in self.parts)])
        return [slice(a, b) for a, b in pairwise(edges)]

    @one_blas_thread()
    def vector(self, W: NDArray) -> NDArray:
        """(r,) coordinates of the part of ``W`` (d, d) that has some."""
        W = np.ldexp(W, 2 * self.power)
        return np.concatenate([np.zeros(0), *(basis @ coordinates.vector(W) for coordinates, basis in self.parts)])

    @one_blas_thread()
    def matrix(self, x: NDArray) -> NDArray:
        """(d, d) matrix whose coordinates are ``x`` (r,)."""
        W = sum((coordinates.matrix(x[own] @ basis)
                 for (coordinates, basis), own in zip(self.parts, self.columns(), strict=True)), 0.0)
        return np.ldexp(W, -2 * self.power)

    @one_blas_thread()
    def objective(self, y: NDArray, tau: float) -> tuple[float, NDArray, NDArray]:
        """``|y|^2 / 2 + log e(tau y) / tau``, its gradient and its Hessian, in y (r,).

        Where the Hessian is not positive definite, which takes an excess that is not yet small, its only negative part
        is left out.
        """
        n, begin, sizes = len(self.log_share), self.starts[:-1], np.diff(self.starts)
        # 1. z_i, and P[i, c] = d z_i / d margin_c, the share of pair c in the mass outside
        value = self.log_mass + (tau * (self.rows @ y))[self.row]
        top = np.maximum.reduceat(value, begin)
        mass = np.exp(value - np.repeat(top, sizes))
        total = np.add.reduceat(mass, begin)
        z = top + np.log(total)
        P = csr_array((mass / np.repeat(total, sizes), self.row, self.starts), shape=(n, len(self.rows)))
        # 2. e = sum_i share_i s(z_i) with s(z) = log(1 + exp(z)), and weight_i = share_i s(z_i) / e
        log_s = np.where(z < -36, z, np.log(np.logaddexp(0, np.maximum(z, -36))))  # s(z) is exp(z) below, to rounding
        term = self.log_share + log_s
        weight = np.exp(term - term.max())
        log_excess, weight = term.max() + np.log(weight.sum()), weight / weight.sum()
        # 3. The derivatives s'(z) / s(z) and s''(z) / s(z); the second is at most the square of the first
        first = np.exp(-np.logaddexp(0, -z) - log_s)
        second = first * np.exp(-np.logaddexp(0, z))
        # 4. d log e / d margin = P' (weight first), and the Hessian
        #    diag(slope) + P' diag(weight (second - first)) P - slope slope', a covariance if second is first^2
        slope = P.T @ (weight * first)
        for curvature in (second, first**2):
            between = ((P.T * (weight * (curvature - first))) @ P).toarray() + np.diag(slope) - np.outer(slope, slope)
            hessian = tau * (self.rows.T @ between @ self.rows)
            hessian[np.diag_indices_from(hessian)] += 1.0
            if _positive(hessian):
                break
        return y @ y / 2 + log_excess / tau, y + slope @ self.rows, hessian


def _coordinates(E, names, inside):
    """Rows ``names`` projected off the rows ``inside`` SCCs: coordinates (R, r), and the ``parts`` of Pairs."""
    together, columns, parts = np.concatenate([names, inside]), [], []
    for block in row_blocks(E, together):
        own, equal = block[block < len(names)], together[block[block >= len(names)]]
        if len(own) == 0:
            continue
        coordinates = Coordinates.of(E, together[block])
        flat = Span.of(coordinates.flatten(E, equal)).off(coordinates.flatten(E, names[own]))
        basis = Span.of(flat).basis
        column = np.zeros((len(names), len(basis)))
        column[own] = flat @ basis.T
        columns.append(column)
        parts.append((coordinates, basis))
    return np.concatenate([np.zeros((len(names), 0)), *columns], axis=1), tuple(parts)


def _positive(matrix):
    """Whether ``matrix`` is positive definite."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


# ----------------------------------------------------------------------------------------- the regularisation path


def split_path(split: Split, W_fin: NDArray, strengths: Iterable[float]) -> Iterator[NDArray[np.float64]]:
    """W(tau) for each tau of ``strengths``; the search for each begins where the last one ended.

    ``W_fin`` and W(tau) are (d, d): row = dimension of the attended token, column = of the last token. The strengths
    tau > 0 ascend; factors of 2 are easy steps. W(tau) is W_fin itself where no SCC is above another one. Raises
    FloatingPointError if tau is so large, about 2^37, that rounding hides the least point.
    """
    instance("split", split, Split)
    W_fin = square("W_fin", W_fin, split.embeddings.shape[1])
    pairs = Pairs.of(split, W_fin)
    y = np.zeros(pairs.rows.shape[1])  # V / tau in the units of the pairs; its size stays the same for large tau
    for tau in strengths:
        positive("a strength", tau)
        strength = np.ldexp(tau, 4 * pairs.power)
        if y.size:
            y = _path_point(pairs, tau, strength, y)
        yield W_fin + strength * pairs.matrix(y)


@one_blas_thread()
def _path_point(pairs, tau, strength, y):
    """The objective's least point at ``tau``, ``strength`` in the units of the pairs; the search begins at ``y``."""
    try:
        y, gradient, _ = minimise(lambda y: pairs.objective(y, strength), y)
        found = norm(gradient) <= _LOST * norm(y)
    except np.linalg.LinAlgError:
        found = False
    if not found:
        raise FloatingPointError(f"tau = {tau:.3g} is so large that rounding hides the least point; end at a smaller "
                                 "one")
    return y


# ---------------------------------------------------------------------------------------------------- the residual


@dataclass(frozen=True, eq=False)
class Residual(Shown):
    """rho, orthogonal to W_svm and to W_fin."""

    W: NDArray[np.float64]  # (d, d): row = dimension of the attended token, column = of the last token
    diverging: frozenset[int]  # last tokens of blocks with a multiplier of 0, where W is not a limit


@one_blas_thread()
def residual(split: Split, W_svm: NDArray, W_fin: NDArray) -> Residual:
    """rho of the samples of ``split``, from their ``W_svm`` and ``W_fin`` (d, d). It is 0 if no SCC is above another.

    Row = dimension of the attended token, column = of the last token.
    """
    instance("split", split, Split)
    W_svm, W_fin = (square(name, W, split.embeddings.shape[1]) for name, W in (("W_svm", W_svm), ("W_fin", W_fin)))
    pairs = Pairs.of(split, W_fin)
    if len(pairs.rows) == 0:
        return Residual(np.zeros_like(W_svm), frozenset())
    w = pairs.vector(W_svm)
    log_kappa = np.full(len(pairs.rows), -np.inf)
    np.logaddexp.at(log_kappa, pairs.row, np.repeat(pairs.log_share, np.diff(pairs.starts)) + pairs.log_mass)
    support = pairs.rows @ w >= -1 - _SUPPORT  # the rows point from above to below, so that their margins are negative
    rho, diverging = np.zeros(len(w)), list[int]()
    for own in pairs.columns():
        chosen = support & pairs.rows[:, own].any(axis=1)
        span = Span.of(pairs.rows[chosen, own])
        x = pairs.rows[chosen, own] @ span.basis.T
        part, at_infinity = _least_residual(x, log_kappa[chosen], span.basis @ w[own])
        rho[own] = part @ span.basis
        diverging += pairs.names[chosen, 0].tolist() if at_infinity else []
    return Residual(pairs.matrix(rho - rho @ w / (w @ w) * w), frozenset(diverging))


def _least_residual(x, log_kappa, w):
    """Least point of sum_c kappa_c exp(x_c . v) + w . v, x (R, r): (v, whether it is at infinity)."""
    log_kappa, w = log_kappa - np.log(w @ w), w / (w @ w)  # the multipliers, which sum to w . w, now sum to 1

    def at(v):
        with np.errstate(over="ignore", invalid="ignore"):  # a step that goes too far, which is then shortened
            weight = np.exp(log_kappa + x @ v)
            return weight.sum() + w @ v, w + x.T @ weight, (x.T * weight) @ x

    def spread(v):  # of the logarithms of the multipliers
        return np.ptp(log_kappa + x @ v)

    v, _, _ = minimise(at, np.zeros(len(w)), stop=lambda v: spread(v) > _STOP)
    return v, bool(spread(v) > -np.log(_VANISHED))
