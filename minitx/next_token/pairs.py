"""The excess of the log loss as a function of the margins between pairs of SCCs, and its Newton steps.

With its part in S_fin at W_fin, the log loss exceeds its minimum by e (:mod:`minitx.next_token.split`), which depends
on the part V of W outside S_fin by the score differences of pairs of SCCs alone. A row stands for a pair:

    row = (e_j - e_y) e_k',  j in an SCC outside the label's, y in the label's, projected off S_fin
    z_i = log sum_m exp(log_mass_m + <row_m, V>),  m over the tokens of sample i outside the label's SCC
    e   = sum_i share_i log(1 + exp(z_i))

Rows fall into blocks that are orthogonal to each other, and all tokens of a sample are in one block, so that the blocks
meet in the logarithm of e alone: their Hessian is block by block, less one matrix of rank one. With one-hot embeddings
there is a block for each last token, with others there may be one block in all. This goes beyond Li, Huang, Ildiz,
Rawat, Oymak (AISTATS 2024).

Legend: n samples with tokens outside the label's SCC, m such tokens; R pairs of SCCs, r the dimension of their rows, d
width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from minitx.base.numbers import norm, positive_solver
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.next_token.graphs import constraints
from minitx.next_token.rank_one import Coordinates, Span, row_blocks
from minitx.next_token.samples import Samples
from minitx.next_token.split import Split

_NOTHING = 1e-16  # a multiplier this small, times tau, changes no digit of a Hessian whose least eigenvalue is about 1


@dataclass(frozen=True, eq=False)
class PairBlock(Shown):
    """Some of the R pairs, whose rows are orthogonal to those of all others."""

    own: NDArray[np.int64]  # (R_b,): numbers of these pairs, ascending
    tokens: NDArray[np.int64]  # (m_b,): numbers of the tokens of these pairs, n_b whole samples one after the other
    starts: NDArray[np.int64]  # (n_b + 1,): where each of these samples begins among them
    row: NDArray[np.int64]  # (m_b,): the row of each of these tokens
    at: slice  # the coordinates of this block among all r
    rows: NDArray[np.float64]  # (R_b, r_b)
    coordinates: Coordinates  # of the matrices of this block
    basis: NDArray[np.float64]  # (r_b, a b): orthonormal, in these coordinates


@dataclass(frozen=True, eq=False)
class Pairs(Shown):
    """The excess as a function of V, orthogonal to S_fin, in coordinates x (r,) of the span of the pairs' rows."""

    names: NDArray[np.int64]  # (R, 3): (k, j, y), each SCC by its smallest token
    width: int  # d
    power: int  # the coordinates are for embeddings / 2^power, of norms about 1 or less: 4^power times those of V
    blocks: tuple[PairBlock, ...]
    starts: NDArray[np.int64]  # (n + 1,): where the tokens of each sample begin
    row: NDArray[np.int64]  # (m,): the pair of each token
    log_mass: NDArray[np.float64]  # (m,): log(mass of the token at W_fin / mass inside the label's SCC)
    log_share: NDArray[np.float64]  # (n,)

    @classmethod
    def of(cls, split: Split, W_fin: NDArray) -> Pairs:
        """Those of ``split``, at ``W_fin`` (d, d)."""
        samples, owner, outside = split.samples, split.samples.owner(), np.flatnonzero(~split.inside)
        # log_mass = log(N exp(S)) - log(sum of N exp(S) inside), at W_fin
        score = split.scores(W_fin)[samples.tokens, samples.last[owner]] + np.log(samples.counts)
        log_inside = np.full(len(samples), -np.inf)
        np.logaddexp.at(log_inside, owner[split.inside], score[split.inside])
        return cls._from(split.pairs[outside], owner[outside], score[outside] - log_inside[owner[outside]],
                         samples.share, split.embeddings, constraints(split.graphs).equalities)

    @classmethod
    def of_tokens(cls, samples: Samples, E: NDArray) -> Pairs:
        """Those of single tokens: every token but the label is outside, S_fin is {0}, and e is the log loss itself."""
        owner = samples.owner()
        outside = np.flatnonzero(np.arange(len(owner)) != samples.label_at[owner])
        own = owner[outside]
        tokens = np.stack([samples.last[own], samples.tokens[outside], samples.labels[own]], axis=1)
        log_mass = np.log(samples.counts[outside] / samples.counts[samples.label_at[own]])
        return cls._from(tokens, own, log_mass, samples.share, E, np.zeros((0, 3), np.int64))

    @classmethod
    @one_blas_thread()
    def _from(cls, pairs, owner, log_mass, share, E, inside):
        """From the pair (m, 3) and the sample (m,) of each token outside; rows ``inside`` (., 3) span S_fin."""
        names, row = np.unique(pairs, axis=0, return_inverse=True)
        sample, starts = np.unique(owner, return_index=True)
        starts, row = np.append(starts, len(owner)), row.ravel()
        power = int(np.rint(np.log2(norm(E, axis=1).max() or 1.0)))
        blocks = _blocks(np.ldexp(E, -power), names, inside, row, starts)
        return cls(names, E.shape[1], power, blocks, starts, row, log_mass, np.log(share[sample]))

    @property
    def dim(self) -> int:
        """r."""
        return self.blocks[-1].at.stop if self.blocks else 0

    @one_blas_thread()
    def vector(self, W: NDArray) -> NDArray:
        """(r,) coordinates of the part of ``W`` (d, d) that has some."""
        W = np.ldexp(W, 2 * self.power)
        return np.concatenate([np.zeros(0), *(block.basis @ block.coordinates.vector(W) for block in self.blocks)])

    @one_blas_thread()
    def matrix(self, x: NDArray) -> NDArray:
        """(d, d) matrix whose coordinates are ``x`` (r,)."""
        W = np.zeros((self.width, self.width))
        for block in self.blocks:
            W[block.coordinates.support] += block.coordinates.inner_matrix(x[block.at] @ block.basis)
        return np.ldexp(W, -2 * self.power)

    @one_blas_thread()
    def margins(self, x: NDArray) -> NDArray:
        """(R,) <row, V> of each pair, at the coordinates ``x`` (r,) of V."""
        found = np.empty(len(self.names))
        for block in self.blocks:
            found[block.own] = block.rows @ x[block.at]
        return found

    @one_blas_thread()
    def combination(self, weight: NDArray) -> NDArray:
        """(r,) sum of ``weight`` (R,) times the rows."""
        return np.concatenate([np.zeros(0), *(weight[block.own] @ block.rows for block in self.blocks)])

    def _outside(self, margins):
        """z_i (n,), and P (m,): d z_i / d margin of token m, its share in the mass outside."""
        begin, sizes = self.starts[:-1], np.diff(self.starts)
        value = self.log_mass + margins[self.row]
        top = np.maximum.reduceat(value, begin)
        mass = np.exp(value - np.repeat(top, sizes))
        total = np.add.reduceat(mass, begin)
        return top + np.log(total), mass / np.repeat(total, sizes)

    @one_blas_thread()
    def objective(self, y: NDArray, tau: float) -> tuple[float, NDArray, Callable]:
        """``|y|^2 / 2 + log e(tau y) / tau``, its gradient, and its Newton steps, in y (r,).

        The third is a function: ``solve(b)`` is Hessian^-1 b for b (r,). Only its first call forms the Hessian, which
        takes nearly all of the time. Where that is not positive definite, which takes an excess that is not yet small,
        its only negative part is left out.
        """
        sizes = np.diff(self.starts)
        z, P = self._outside(tau * self.margins(y))
        # 1. e = sum_i share_i s(z_i) with s(z) = log(1 + exp(z)), and weight_i = share_i s(z_i) / e
        log_s = np.where(z < -36, z, np.log(np.logaddexp(0, np.maximum(z, -36))))  # s(z) is exp(z) below, to rounding
        term = self.log_share + log_s
        weight = np.exp(term - term.max())
        log_excess, weight = term.max() + np.log(weight.sum()), weight / weight.sum()
        # 2. The derivatives s'(z) / s(z) and s''(z) / s(z); the second is at most the square of the first
        first = np.exp(-np.logaddexp(0, -z) - log_s)
        second = first * np.exp(-np.logaddexp(0, z))
        # 3. d log e / d margin of each pair
        slope = np.bincount(self.row, P * np.repeat(weight * first, sizes), len(self.names))
        mean = self.combination(slope)

        @cache
        def newton():  # (A - tau mean mean')^-1 (Sherman and Morrison)
            for curvature in (second, first**2):  # a covariance if second is first^2
                bent = P * np.repeat(np.sqrt(weight * (first - curvature)), sizes)
                alone = self._newton(tau, slope, bent)
                of_mean = alone(mean)
                left = 1 - tau * (mean @ of_mean)
                if left > 0:
                    return lambda b: (found := alone(b)) + of_mean * (tau * (mean @ found) / left)
            raise np.linalg.LinAlgError("rounding hides that the Hessian is positive definite")

        return y @ y / 2 + log_excess / tau, y + mean, lambda b: newton()(b)

    @one_blas_thread()
    def ridge(self, x: NDArray, strength: float) -> tuple[float, NDArray, Callable]:
        """``strength |x|^2 / 2 + e(x)``, its gradient, and its Newton steps, in x (r,), as for :meth:`objective`."""
        sizes, (z, P) = np.diff(self.starts), self._outside(self.margins(x))
        share, attention = np.exp(self.log_share), np.exp(-np.logaddexp(0, -z))  # to the tokens outside: s'(z)
        slope = np.bincount(self.row, P * np.repeat(share * attention, sizes), len(self.names))

        @cache
        def newton():  # s' - s'' = (s')^2
            return self._newton(1 / strength, slope, P * np.repeat(np.sqrt(share) * attention, sizes))

        value = strength * (x @ x) / 2 + np.sum(share * np.logaddexp(0, z))
        return value, strength * x + self.combination(slope), lambda b: newton()(b) / strength

    def _newton(self, tau, slope, bent):
        """b -> A^-1 b, block by block: A = 1 + tau (rows' diag(slope) rows - other' other).

        A sample's row of ``other`` is the sum of the rows of its tokens, each times its ``bent`` (m,).
        """
        solvers = []
        for block in self.blocks:
            weight, minus = tau * slope[block.own], np.sqrt(tau) * bent[block.tokens]
            kept = weight > _NOTHING
            one = block.rows[kept] * np.sqrt(weight[kept])[:, None]
            A = one.T @ one
            if minus.max() > _NOTHING:
                other = csr_array((minus, block.row, block.starts), (len(block.starts) - 1, len(weight))) @ block.rows
                A -= other.T @ other
            A[np.diag_indices_from(A)] += 1.0
            solvers.append(positive_solver(A))
        return lambda b: np.concatenate([solve(b[block.at]) for solve, block in zip(solvers, self.blocks, strict=True)])


def _blocks(E, names, inside, row, starts):
    """The PairBlocks of rows ``names`` projected off the rows ``inside`` SCCs; ``row`` and ``starts`` as in Pairs.

    Pairs of the same last token and label's SCC, as all pairs of a sample are, stay together.
    """
    group = np.unique(names[:, [0, 2]], axis=0, return_inverse=True)[1].ravel()
    group = np.append(group, len(names) + np.arange(len(inside)))
    together, blocks, begin = np.concatenate([names, inside]), [], 0
    for block in row_blocks(E, together, group):
        own, equal = block[block < len(names)], together[block[block >= len(names)]]
        if len(own) == 0:
            continue
        # 1. The rows
        coordinates = Coordinates.of(E, together[block])
        flat = Span.of(coordinates.flatten(E, equal)).off(coordinates.flatten(E, names[own]))
        basis = Span.of(flat).basis
        at = slice(begin, begin := begin + len(basis))
        # 2. The tokens, sample by sample
        tokens = np.flatnonzero(np.isin(row, own))
        begins = np.append(np.flatnonzero(np.isin(tokens, starts)), len(tokens))
        blocks.append(PairBlock(own, tokens, begins, np.searchsorted(own, row[tokens]), at, flat @ basis.T,
                                coordinates, basis))
    return tuple(blocks)
