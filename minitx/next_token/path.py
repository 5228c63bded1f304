"""The regularisation path W(tau) outside S_fin, and the residual rho that it keeps beside W_svm and W_fin.

With its part in S_fin at W_fin, where it stays, the log loss falls by its excess e alone
(:mod:`minitx.next_token.split`):

    W(tau) = W_fin + argmin of |V|^2 / 2 + tau log e(W_fin + V) over V orthogonal to S_fin                 split_path
           = g W_svm + W_fin + rho + o(1),  g growing without bound,                                       residual

so the path goes where gradient descent goes, along W_svm, without its steps: 1 - correlation with W_svm falls like 1 /
tau^2. The SCCs of the data are given to it; it discovers nothing. e depends on V by the margins of pairs of SCCs alone
(:mod:`minitx.next_token.pairs`).

Up to a multiple of W_svm, which is counted in g, rho is the least point of sum_c kappa_c exp(<x_c, rho>) + <W_svm, rho>
in the span of the support rows x_c, which are those of margin 1 in W_svm. kappa_c is the mass below over the mass above
at W_fin, summed over samples by share; the kappa_c exp(<x_c, rho>) are then multipliers of the Graph-SVM. Where the
x_c are linearly independent these are unique, and rho follows from them; elsewhere Newton's method finds it. rho
decides how SCCs that W_svm leaves tied share the attention. All this is beyond Li, Huang, Ildiz, Rawat, Oymak (AISTATS
2024).

Legend: R support rows of a block of pairs, r its dimension, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from minitx.base.checks import instance, positives, square
from minitx.base.numbers import minimise, norm
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.next_token.pairs import Pairs
from minitx.next_token.rank_one import Span
from minitx.next_token.split import Split

_LOST = 1e-4  # of |y|: where rounding hides the least point, the gradient leaps from 1e-8 to 1e-2 and more
_SUPPORT = 1e-7  # a row whose margin is above 1 by more than this is no support row
_VANISHED = 1e-7  # a multiplier this small beside the largest one counts as zero
_STOP = 35.0  # the search for rho ends when the logarithms of multipliers are this far apart: one of them goes to zero


# ----------------------------------------------------------------------------------------- the regularisation path


def split_path(split: Split, W_fin: NDArray, strengths: Iterable[float]) -> Iterator[NDArray[np.float64]]:
    """W(tau) for each tau of ``strengths``; the search for each begins where the last ones lead to.

    ``W_fin`` and W(tau) are (d, d): row = dimension of the attended token, column = of the last token. The strengths
    tau > 0 ascend; factors of 2 are easy steps. W(tau) is W_fin itself where no SCC is above another one. Raises
    FloatingPointError if tau is so large, about 2^37, that rounding hides the least point.
    """
    instance("split", split, Split)
    W_fin = square("W_fin", W_fin, split.embeddings.shape[1])
    pairs = Pairs.of(split, W_fin)
    y = change = np.zeros(pairs.dim)  # y = V / tau in the units of the pairs; its size stays the same for large tau
    inverse = before = np.inf  # 1 / tau of y, and of the point before it; change = that of y between them
    for tau in positives("strength", strengths):
        strength = np.ldexp(tau, 4 * pairs.power)
        if y.size:  # V = g W_svm + rho for large tau, so that y is linear in 1 / tau
            ahead = change * ((1 / tau - inverse) / (inverse - before)) if inverse < before < np.inf else 0.0
            found = _path_point(pairs, tau, strength, y, y + ahead)
            change, y, before, inverse = found - y, found, inverse, 1 / tau
        yield W_fin + strength * pairs.matrix(y)


@one_blas_thread()
def _path_point(pairs, tau, strength, *starts):
    """The objective's least point at ``tau``, ``strength`` in the units of the pairs; the best start begins."""
    def at(y):
        return pairs.objective(y, strength)

    try:
        y, gradient, _ = minimise(at, min(starts, key=lambda y: norm(at(y)[1])))
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
    if not pairs.blocks:
        return Residual(np.zeros_like(W_svm), frozenset())
    w = pairs.vector(W_svm)
    log_kappa = np.full(len(pairs.names), -np.inf)
    np.logaddexp.at(log_kappa, pairs.row, np.repeat(pairs.log_share, np.diff(pairs.starts)) + pairs.log_mass)
    support = pairs.margins(w) >= -1 - _SUPPORT  # the rows point from above to below, so that margins are negative
    rho, diverging = np.zeros(len(w)), list[int]()
    for block in pairs.blocks:
        chosen = support[block.own] & block.rows.any(axis=1)
        rho[block.at], at_infinity = _least_residual(block.rows[chosen], log_kappa[block.own[chosen]], w[block.at])
        diverging += pairs.names[block.own[chosen], 0].tolist() if at_infinity else []
    return Residual(pairs.matrix(rho - rho @ w / (w @ w) * w), frozenset(diverging))


def _least_residual(x, log_kappa, w):
    """Least point in the span of x (R, r) of sum_c kappa_c exp(x_c . v) + w . v: (v, whether it is at infinity)."""
    span = Span.of(x)
    if len(span.kept) == len(x):  # independent: w = -sum of multiplier_c x_c, and exp(x_c . v) = multiplier_c / kappa_c
        multiplier = span.weights(-w)
        if multiplier.min() > 10 * _VANISHED * multiplier.max():
            goal = (np.log(multiplier) - log_kappa)[span.kept]
            return solve_triangular(span.triangle, goal, trans="T", check_finite=False) @ span.basis, False
    x, w = x @ span.basis.T, span.basis @ w
    log_kappa, w = log_kappa - np.log(w @ w), w / (w @ w)  # the multipliers, which sum to w . w, now sum to 1

    def at(v):
        with np.errstate(over="ignore", invalid="ignore"):  # a step that goes too far, which is then shortened
            weight = np.exp(log_kappa + x @ v)
            return weight.sum() + w @ v, w + x.T @ weight, (x.T * weight) @ x

    def spread(v):  # of the logarithms of the multipliers
        return np.ptp(log_kappa + x @ v)

    v, _, _ = minimise(at, np.zeros(len(w)), stop=lambda v: spread(v) > _STOP)
    return v @ span.basis, bool(spread(v) > -np.log(_VANISHED))
