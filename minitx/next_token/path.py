"""The path of retrieval: the weights outside S_fin that trade the excess against their norm, by Newton's method.

With the part in S_fin at W_fin, where it stays, only the excess is left of the log-loss (``exact_split``), and the point

    W(tau) = W_fin + argmin over V orthogonal to S_fin of  |V|^2 / 2 + tau log(excess(W_fin + V))

goes to infinity along W_svm as tau does: it is where gradient descent goes, reached without its steps. 1 - correlation with W_svm
falls like 1 / tau^2. Told the SCCs of the data, so it discovers nothing; beyond Li, Huang, Ildiz, Rawat, Oymak (AISTATS 2024).

Legend: n samples with tokens outside the label's SCC, R pairs of SCCs, m entries (sample, pair), r the dimension of the span of the
pairs' rows, d width.

The residual: what trained weights keep beside W_svm and W_fin, where they grow along the regularisation path.

    W(R) = g W_svm + W_fin + rho + o(1),        g = O(R)

Up to a multiple of W_svm, which is g's, rho is the least point of ``sum_c kappa_c exp(<x_c, rho>) + <W_svm, rho>`` in the span of
the support rows x_c: those of pairs of SCCs whose margin in W_svm is 1, lower SCC minus upper one, projected off S_fin. kappa_c is
the mass below over the mass above at W_fin, summed over samples by share; the kappa_c exp(<x_c, rho>) are then multipliers of the
Graph-SVM. rho decides how SCCs that W_svm leaves tied share the attention. Beyond the paper; W_svm and W_fin: Li, Huang, Ildiz,
Rawat, Oymak (AISTATS 2024).

Legend: R support rows, d width, r the dimension of their span.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from minitx.base.numbers import minimise, norm
from minitx.base.parallel import one_blas_thread
from minitx.next_token.rank_one import Coordinates, Span, row_blocks

_LOST = 1e-4  # of |y|: where rounding hides the least point, the gradient leaps from 1e-8 to 1e-2 and more


def split_path(split, W_fin, strengths):
    """W(tau) for each tau of ``strengths``, in turn: each is where the search for the next begins.

    Parameters
    ----------
    split : minitx.next_token.split.Split
    W_fin : (d, d) float64
        Of the same samples. Row = dimension of the attended token, column = of the last token.
    strengths : iterable of float
        tau > 0, ascending; factors of 2 are easy steps. Rounding ends them near 2^37.

    Yields
    ------
    (d, d) float64
        W(tau); W_fin itself where no SCC is above another one.

    Raises
    ------
    FloatingPointError
        A tau so large that rounding hides the least point.
    """
    with one_blas_thread():
        pairs = Pairs.of(split, W_fin)
    y = np.zeros(pairs.rows.shape[1])  # V / tau in the units of the pairs, of which the size stays
    for tau in strengths:
        strength = np.ldexp(tau, 4 * pairs.power)
        if y.size:
            with one_blas_thread():
                y = _least(pairs, tau, strength, y)
        yield W_fin + strength * pairs.matrix(y)


def _least(pairs, tau, strength, y):
    """The least point of the objective at ``tau``, which is ``strength`` in the units of the pairs, from ``y`` (r,)."""
    try:
        y, gradient, _ = minimise(lambda y: pairs.objective(y, strength), y)
        found = norm(gradient) <= _LOST * norm(y)
    except np.linalg.LinAlgError:
        found = False
    if not found:
        raise FloatingPointError(f"tau = {tau:.3g} is so large that rounding hides the least point; end at a smaller one")
    return y


@dataclass(frozen=True, eq=False)
class Pairs:
    """The excess in coordinates x orthogonal to S_fin: z_i = log sum of exp(log_mass + rows[row] x), over entries of sample i."""

    names: np.ndarray  # (R, 3) int64: (k, j, y), each SCC by its smallest token
    power: int  # the coordinates are for embeddings / 2^power, of norms about 1 or less, and 4^power times those of W
    rows: np.ndarray  # (R, r): (e_j - e_y) e_k', j of the SCC outside and y of the label's, projected off S_fin
    parts: tuple  # of (Coordinates, basis (r', c)): which matrices the coordinates stand for, block by block
    starts: np.ndarray  # (n + 1,) int64: entries of each sample
    row: np.ndarray  # (m,) int64: row of each entry
    log_mass: np.ndarray  # (m,): log of the mass of its SCC over that of the label's, at W_fin
    log_share: np.ndarray  # (n,)

    @classmethod
    @one_blas_thread()
    def of(cls, split, W_fin):
        """Those of ``split``, at ``W_fin`` (d, d)."""
        samples, owner = split.samples, split.samples.owner()
        root = split.at_entries({k: graph.root for k, graph in split.graphs.items()})
        last = samples.last[owner]
        score = split.scores(W_fin)[samples.tokens, last] + np.log(samples.counts)
        inside = np.full(len(samples), -np.inf)
        np.logaddexp.at(inside, owner[split.inside], score[split.inside])
        out = np.flatnonzero(~split.inside)
        triples = np.stack([last, root, root[samples.label_at][owner]], axis=1)[out]
        rows, row = np.unique(triples, axis=0, return_inverse=True)
        sample, starts = np.unique(owner[out], return_index=True)
        power = int(np.rint(np.log2(norm(split.embeddings, axis=1).max() or 1.0)))
        matrix, parts = _coordinates(split.graphs, np.ldexp(split.embeddings, -power), rows)
        return cls(rows, power, matrix, parts, np.append(starts, len(out)), row.ravel(), score[out] - inside[owner[out]],
                   np.log(samples.share[sample]))

    def columns(self):
        """The columns of ``rows`` that belong to each of ``parts``. List of slices"""
        edges = np.cumsum([0, *(len(basis) for _, basis in self.parts)])
        return [slice(a, b) for a, b in pairwise(edges)]

    @one_blas_thread()
    def vector(self, W):
        """(r,) coordinates of ``W`` (d, d), or of its part that has some."""
        W = np.ldexp(W, 2 * self.power)
        return np.concatenate([np.zeros(0), *(basis @ coordinates.vector(W) for coordinates, basis in self.parts)])

    @one_blas_thread()
    def matrix(self, x):
        """(d, d) matrix whose coordinates are ``x`` (r,)."""
        W = sum((coordinates.matrix(x[own] @ basis)
                 for (coordinates, basis), own in zip(self.parts, self.columns(), strict=True)), 0.0)
        return np.ldexp(W, -2 * self.power)

    @one_blas_thread()
    def objective(self, y, tau):
        """``|y|^2 / 2 + log(excess(tau y)) / tau``, its gradient and its Hessian, in y (r,).

        Where the Hessian is not positive definite, which takes an excess that is not yet small, its only negative part is left out.
        """
        excess = self._excess(tau * (self.rows @ y))
        for curvature in (excess.curvature, excess.steep**2):
            hessian = tau * (self.rows.T @ excess.hessian(curvature) @ self.rows)
            hessian[np.diag_indices_from(hessian)] += 1.0
            if _positive(hessian):
                break
        return y @ y / 2 + excess.log_value / tau, y + excess.slope @ self.rows, hessian

    def _excess(self, margin):
        """The excess at ``margin`` (R,), which is added to the log masses."""
        n, starts, sizes = len(self.log_share), self.starts[:-1], np.diff(self.starts)
        value = self.log_mass + margin[self.row]
        top = np.maximum.reduceat(value, starts)
        mass = np.exp(value - np.repeat(top, sizes))
        total = np.add.reduceat(mass, starts)
        z = top + np.log(total)
        log_softplus = np.where(z < -36, z, np.log(np.logaddexp(0, np.maximum(z, -36))))  # it is z there, to rounding
        term = self.log_share + log_softplus
        weight = np.exp(term - term.max())  # over its sum, for that to be 1 whatever the logarithms have lost
        steep = np.exp(-np.logaddexp(0, -z) - log_softplus)
        P = csr_array((mass / np.repeat(total, sizes), self.row, self.starts), shape=(n, len(self.rows)))
        return _Excess(term.max() + np.log(weight.sum()), P, weight / weight.sum(), steep, steep * np.exp(-np.logaddexp(0, z)))


@dataclass(frozen=True, eq=False)
class _Excess:
    """log(sum of share_i s(z_i)), s = softplus, as a function of the margins (R,)."""

    log_value: float
    P: csr_array  # (n, R): dz_i / d margin, the share of each pair in the mass outside
    weight: np.ndarray  # (n,): share of each sample in the excess
    steep: np.ndarray  # (n,): s'(z) / s(z)
    curvature: np.ndarray  # (n,): s''(z) / s(z), at most steep^2

    @property
    @one_blas_thread()
    def slope(self):
        """Gradient (R,)."""
        return self.P.T @ (self.weight * self.steep)

    @one_blas_thread()
    def hessian(self, curvature):
        """(R, R); a covariance, with ``curvature`` = steep^2."""
        slope = self.slope
        second = (self.P.T * (self.weight * (curvature - self.steep))) @ self.P
        return second.toarray() + np.diag(slope) - np.outer(slope, slope)


def _positive(matrix):
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _coordinates(graphs, E, rows):
    """Rows (k, i, j) projected off S_fin, in coordinates of their span (R, r); and what the coordinates of each block stand for."""
    stars = np.array([(k, members[0], j) for k, graph in graphs.items() for members in graph.components
                      for j in members[1:]], np.int64).reshape(-1, 3)
    together, columns, parts = np.concatenate([rows, stars]), [], []
    for block in row_blocks(E, together, np.arange(len(together))):
        own, inside = block[block < len(rows)], together[block[block >= len(rows)]]
        if len(own) == 0:
            continue
        coordinates = Coordinates.of(E, together[block])
        flat = Span.of(coordinates.flatten(E, inside)).off(coordinates.flatten(E, rows[own]))
        basis = Span.of(flat).basis
        column = np.zeros((len(rows), len(basis)))
        column[own] = flat @ basis.T
        columns.append(column)
        parts.append((coordinates, basis))
    return np.concatenate([np.zeros((len(rows), 0)), *columns], axis=1), tuple(parts)

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
    split : minitx.next_token.split.Split
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
        part, at_infinity = _least_residual(pairs.rows[chosen, own] @ span.basis.T, log_kappa[chosen], span.basis @ w[own])
        v[own] = part @ span.basis
        diverging += [k for k in pairs.names[chosen, 0].tolist() if at_infinity]
    return Residual(pairs.matrix(v - v @ w / (w @ w) * w), frozenset(diverging))


def _least_residual(x, log_kappa, w):
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
