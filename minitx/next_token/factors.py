"""Two factors in the place of W: W = W_K W_Q', their training, the bias that it has, and their regularisation path.

    S[j, k] = (W_K' e_j)' (W_Q' e_k) = e_j' W e_k                          W_K: keys, W_Q: queries, (d, a) each
    dL/dW_K = (dL/dW) W_Q,   dL/dW_Q = (dL/dW)' W_K                        FactoredWeights.chain
    |W|_* = min of (|W_K|^2 + |W_Q|^2) / 2 over W_K W_Q' = W               for a >= the rank of W
    W_nuc = argmin of |W|_* subject to the constraints of W_svm            nuclear_svm
    argmin of L(W_K W_Q') + lam (|W_K|^2 + |W_Q|^2) / 2                    factor_path

|W|_* is the nuclear norm, the sum of singular values. Decay of two factors is therefore not decay of W: it prefers few
directions, and its path leads along W_nuc rather than along W_svm (for one query: Tarzanagh, Li, Thrampoulidis, Oymak
2023). Li, Huang, Ildiz, Rawat, Oymak (2024) train W itself. Both problems are solved in the factors, with a = d, where
every minimum is a global one (Burer and Monteiro 2003); they are for small d, because there are 2 d^2 unknowns.

Legend: K tokens in the vocabulary, d width, a width of attention, R rows (k, i, j) of constraints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import generator, instance, positives, whole_number
from minitx.base.parallel import matmul, one_blas_thread
from minitx.base.shown import Shown
from minitx.model.circuits import Circuits
from minitx.model.parameters import Array, Parameters, Seed
from minitx.model.weights import LastTokenWeights, gaussian_array
from minitx.next_token.graphs import PriorityGraph, constraints
from minitx.next_token.losses import loss_and_gradient
from minitx.next_token.rank_one import differences, embeddings
from minitx.next_token.samples import Samples
from minitx.next_token.svm import graph_svm

_LEAST = 1e-2  # least singular value of the weights that a search in the factors starts from, over the largest one


@dataclass(frozen=True, eq=False)
class FactoredWeights(Parameters):
    """One layer in which the last token asks, with keys and queries apart: score of token j is e_j' W_K W_Q' e_k.

    Parameters
    ----------
    W_K : (d, a) floats
        Key. Row = dimension of the attended token, column = dimension of attention.
    W_Q : (d, a) floats
        Query. Row = dimension of the last token, column = dimension of attention.
    E : (K, d) floats, optional
        Embeddings. Row = token, column = dimension. Absent: one-hot, d = K.
    """

    MADE_BY: ClassVar[str] = "FactoredWeights.gaussian(n_vocab, scale=...), or FactoredWeights.of(weights)"
    SHAPES: ClassVar[dict[str, str]] = {"W_K": "da", "W_Q": "da", "E": "Kd"}

    W_K: Array
    W_Q: Array
    E: Array | None = None

    def __post_init__(self) -> None:
        self.require_floats("W_K", "W_Q", *self.parameters())
        self.require_shapes({} if self.E is not None else {"d": "K"})

    @classmethod
    def gaussian(cls, n_vocab: int | None = None, *, scale: float, E: Array | None = None,
                 attention_width: int | None = None, rng: Seed = None) -> FactoredWeights:
        """Independent N(0, scale^2) entries, float32 if E is; ``attention_width`` is a (default: d).

        Tokens are ``n_vocab`` one-hot ones or have embeddings E (K, d): give one of the two. At 0 the gradient of both
        factors is 0, so that zero is no start.
        """
        like = LastTokenWeights.zeros(n_vocab, E=E)  # it checks n_vocab and E
        d = len(like.W)
        shape = d, d if attention_width is None else whole_number("attention_width", attention_width, 1)
        streams = generator(rng).spawn(2)
        W_K, W_Q = (gaussian_array("scale", scale, shape, one, like.W.dtype) for one in streams)
        return cls(W_K, W_Q, like.E)

    @classmethod
    @one_blas_thread()
    def of(cls, weights: LastTokenWeights) -> FactoredWeights:
        """Balanced factors of a W, W_K' W_K = W_Q' W_Q: U s^(1/2) and V s^(1/2) of its singular values s. a = d."""
        instance("weights", weights, LastTokenWeights)
        if weights.not_finite():
            raise ValueError("W: an entry is inf or nan, so that it has no singular values; give finite weights")
        U, s, Vt = np.linalg.svd(weights.W)
        return cls(np.ascontiguousarray(U * np.sqrt(s)), np.ascontiguousarray(Vt.T * np.sqrt(s)), weights.E)

    @property
    def n_vocab(self) -> int:
        """K."""
        return len(self.W_K if self.E is None else self.E)

    def product(self) -> LastTokenWeights:
        """W = W_K W_Q', with the same embeddings."""
        return LastTokenWeights(matmul(self.W_K, self.W_Q.T), self.E)

    def chain(self, dW: Array) -> FactoredWeights:
        """dL/dW_K = dW W_Q and dL/dW_Q = dW' W_K from dW = dL/dW (d, d), oriented as W. ValueError for another shape.
        """
        d = len(self.W_K)
        if np.shape(dW) != (d, d):
            raise ValueError(f"dW has shape {np.shape(dW)}; it must be ({d}, {d}), the slopes of the product W_K W_Q'")
        return FactoredWeights(matmul(dW, self.W_Q), matmul(dW.T, self.W_K))

    def circuits(self) -> Circuits:
        """Those of the product."""
        return self.product().circuits()

    def pullback(self, gradient: Circuits) -> FactoredWeights:
        """dL/dweights from dL/dcircuits: through those of the product."""
        of_product = self.product().pullback(gradient)
        found = self.chain(of_product.W)
        return FactoredWeights(found.W_K, found.W_Q, of_product.E)


# ------------------------------------------------------------------------------------------- the bias of two factors


@dataclass(frozen=True, eq=False)
class NuclearSVM(Shown):
    """W_nuc, and by how much its nuclear norm may exceed the least one."""

    W: NDArray[np.float64]  # (d, d): row = dimension of the attended token, column = of the last token
    norm: float  # |W|_*
    gap: float  # (|W|_* - a lower bound from multipliers) / |W|_*
    missed: float  # largest amount by which a constraint is missed


@one_blas_thread()
def nuclear_svm(graphs: dict[int, PriorityGraph], E: ArrayLike) -> NuclearSVM:
    """The W of least nuclear norm that meets the constraints of the Graph-SVM of ``graphs``: the bias of two factors.

    ``E`` (K, d) are embeddings, row = token. The gap is a proof: if multipliers of inequalities are not negative and
    sum to m, and the sum of multiplier * (e_i - e_j) e_k' over all rows has the largest singular value s, then no W
    that meets the constraints has a nuclear norm below m / s. Raises as :func:`minitx.next_token.graph_svm`.
    """
    start, rows = graph_svm(graphs, E), constraints(graphs)
    both, n_equal = np.concatenate([rows.equalities, rows.inequalities]), len(rows.equalities)
    E = np.asarray(E, np.float64)
    if len(both) == n_equal:
        return NuclearSVM(start.W, 0.0, 0.0, 0.0)
    u, v, goal = differences(E, both), E[both[:, 0]], (np.arange(len(both)) >= n_equal).astype(float)

    def short(x):  # (R,) by how much each constraint is exceeded
        W_K, W_Q = _parts(x)
        return ((u @ W_K) * (v @ W_Q)).sum(axis=1) - goal

    def slopes(x):  # (R, 2 d d)
        W_K, W_Q = _parts(x)
        return np.concatenate([(u[:, :, None] * (v @ W_Q)[:, None]).reshape(len(u), -1),
                               (v[:, :, None] * (u @ W_K)[:, None]).reshape(len(u), -1)], axis=1)

    kinds = [("eq", slice(0, n_equal)), ("ineq", slice(n_equal, None))]
    conditions = [{"type": kind, "fun": lambda x, at=at: short(x)[at], "jac": lambda x, at=at: slopes(x)[at]}
                  for kind, at in kinds if len(both[at])]
    found = scipy.optimize.minimize(lambda x: (x @ x / 2, x), _full_rank(start.W), jac=True, method="SLSQP",
                                    constraints=conditions, options={"maxiter": 500, "ftol": 1e-14})
    W, size = _product(found.x), float(np.linalg.norm(_product(found.x), "nuc"))
    weight = scipy.optimize.lsq_linear(
        slopes(found.x).T, found.x, (np.where(goal > 0, 0.0, -np.inf), np.inf), tol=1e-14).x
    bound = weight @ goal / np.linalg.norm((u * weight[:, None]).T @ v, 2)
    missed = np.where(goal > 0, np.maximum(-short(found.x), 0.0), np.abs(short(found.x))).max()
    return NuclearSVM(W, size, float((size - bound) / size), float(missed))


@one_blas_thread()
def factor_path(samples: Samples, strengths: Iterable[float], E: ArrayLike | None = None
                ) -> Iterator[NDArray[np.float64]]:
    """W = W_K W_Q' (d, d) at the least L(W_K W_Q') + lam (|W_K|^2 + |W_Q|^2) / 2, a = d, for each lam of ``strengths``.

    It is also the least point of L + lam |W|_*. Orientation, ``strengths`` and ``E`` are those of
    :func:`minitx.next_token.ridge.ridge_path`. W is 0 where lam is at least the largest singular value of the gradient
    of L at W = 0. The search is SciPy's L-BFGS-B; the optimality conditions hold to about 1e-5.
    """
    instance("samples", samples, Samples)
    E = None if E is None else embeddings(E, samples.n_vocab)
    W = np.eye(samples.n_vocab if E is None else E.shape[1])
    for strength in positives("strength", strengths):
        W = _factor_point(samples, E, strength, W)
        yield W


@one_blas_thread()
def _factor_point(samples, E, strength, W):
    """The point of the path for one strength; the search begins near ``W`` (d, d)."""
    def at(x):  # over the strength, so that it is of order 1 where attention has settled
        loss, gradient = loss_and_gradient(LastTokenWeights(_product(x), E), samples)
        W_K, W_Q = _parts(x)
        return loss / strength + x @ x / 2, x + np.concatenate([(gradient.W @ W_Q).ravel(),
                                                                (gradient.W.T @ W_K).ravel()]) / strength

    found = scipy.optimize.minimize(at, _full_rank(W), jac=True, method="L-BFGS-B",
                                    options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-9})
    return _product(found.x)


def _full_rank(W):
    """Balanced factors of ``W`` (d, d), one after the other (2 d d,), without a singular value that is 0.

    Factors that are 0 in some direction stay so, because both gradients are.
    """
    U, s, Vt = np.linalg.svd(W)
    root = np.sqrt(np.maximum(s, _LEAST * (s[0] or 1.0)))
    return np.concatenate([(U * root).ravel(), (Vt.T * root).ravel()])


def _parts(x):
    """W_K and W_Q, (d, d) each."""
    return x.reshape(2, *2 * [math.isqrt(len(x) // 2)])


def _product(x):
    W_K, W_Q = _parts(x)
    return W_K @ W_Q.T
