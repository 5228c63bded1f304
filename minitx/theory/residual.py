"""The residual: what trained weights keep beside W_svm and W_fin, where they grow along the regularisation path.

    W(R) = g W_svm + W_fin + rho + o(1),        g = O(R)

Up to a multiple of W_svm, which is g's, rho is the least point of ``sum_c kappa_c exp(<x_c, rho>) + <W_svm, rho>`` in the span of
the support rows x_c: those of pairs of SCCs whose margin in W_svm is 1, lower SCC minus upper one, projected off S_fin. kappa_c is
the mass below over the mass above at W_fin, summed over samples by share; the kappa_c exp(<x_c, rho>) are then multipliers of the
Graph-SVM. rho decides how SCCs that W_svm leaves tied share the attention. Beyond the paper; W_svm and W_fin: Li, Huang, Ildiz,
Rawat, Oymak (AISTATS 2024).

Legend: R support rows, d width, r the dimension of their span.
"""

from dataclasses import dataclass

import numpy as np

from minitx.parallel import one_blas_thread
from minitx.theory.newton import minimise
from minitx.theory.rank_one import Span
from minitx.theory.split_path import Pairs

_SUPPORT = 1e-7  # a margin above 1 by more than this is no support row
_VANISHED = 1e-7  # a multiplier this small beside the largest one is zero
_STOP = 35.0  # the search ends at multipliers exp(35) times each other: they go on for ever


@dataclass(frozen=True, eq=False)
class Residual:
    """rho, orthogonal to W_svm and to W_fin."""

    W: np.ndarray  # (d, d): row = dimension of the attended token, column = of the last token
    diverging: frozenset  # last tokens of a block with a multiplier of 0: rho diverges, and W is only where the search stopped

    @property
    def degenerate(self):
        """Whether rho diverges for some last token."""
        return bool(self.diverging)


@one_blas_thread()
def residual(split, W_svm, W_fin):
    """rho of the samples of ``split``.

    Parameters
    ----------
    split : minitx.theory.exact_split.Split
    W_svm, W_fin : (d, d) float64
        Of the same samples. Row = dimension of the attended token, column = of the last token.

    Returns
    -------
    Residual
        W is 0 where no SCC is above another one.
    """
    pairs = Pairs.of(split, W_fin)
    if len(pairs.rows) == 0:
        return Residual(np.zeros_like(W_svm), frozenset())
    w = pairs.vector(W_svm)
    log_kappa = np.full(len(pairs.rows), -np.inf)
    np.logaddexp.at(log_kappa, pairs.row, np.repeat(pairs.log_share, np.diff(pairs.starts)) + pairs.log_mass)
    support = pairs.rows @ w >= -1 - _SUPPORT
    v, diverging = np.zeros(len(w)), []
    for own in pairs.columns():
        chosen = support & pairs.rows[:, own].any(axis=1)
        span = Span.of(pairs.rows[chosen, own])
        part, at_infinity = _least(pairs.rows[chosen, own] @ span.basis.T, log_kappa[chosen], span.basis @ w[own])
        v[own] = part @ span.basis
        diverging += [k for k in pairs.names[chosen, 0].tolist() if at_infinity]
    return Residual(pairs.matrix(v - v @ w / (w @ w) * w), frozenset(diverging))


def _least(x, log_kappa, w):
    """Least point of sum_c kappa_c exp(x_c . v) + w . v, x (R, r): (v, whether it is at infinity: a multiplier is 0)."""
    log_kappa, w = log_kappa - np.log(w @ w), w / (w @ w)  # for multipliers, which sum to w . w, to sum to 1

    def at(v):
        with np.errstate(over="ignore", invalid="ignore"):  # a step that goes too far, which is then shortened
            weight = np.exp(log_kappa + x @ v)
            return weight.sum() + w @ v, w + x.T @ weight, (x.T * weight) @ x

    def spread(v):  # of the logarithms of the multipliers
        return np.ptp(log_kappa + x @ v)

    v, _, _ = minimise(at, np.zeros(len(w)), stop=lambda v: spread(v) > _STOP)
    return v, bool(spread(v) > -np.log(_VANISHED))
