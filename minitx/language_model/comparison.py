"""Do two descriptions of the same tokens agree, token by token?

X describes n tokens by features of a model, Y by statistics of a text; row = token. Their covariances X X^T and Y Y^T
are never formed: <X X^T, Y Y^T> = |X^T Y|^2, with Frobenius norms.

- The **published** statistic is the cosine of the covariances after the mean of each row is taken from it (Im et al.
  2026, Section 5.2). What all tokens share is still in them: both are then close to the all-ones matrix, and their
  cosine is near 1 whichever token is which.
- **Centred over tokens** (the mean token is taken from every row) the cosine is linear CKA (Kornblith et al. 2019),
  which can be small.
- Either stands beside its mean and standard deviation over all n! **permutations** of the tokens of one side, in closed
  form (the moments of Kazi-Aoual et al. 1995, and their terms of the mean token); z is the distance from this mean.

Legend: n tokens; r, m features.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import Seed, generator, reals
from minitx.base.numbers import norm
from minitx.base.parallel import matmul, one_blas_thread
from minitx.base.shown import Shown

LEAST = 4  # tokens that the variance over permutations needs
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity(Shown):
    """A statistic, and its mean and standard deviation over all permutations of the tokens."""

    value: float
    mean: float
    deviation: float
    z: float = field(init=False)  # deviations from the mean to the value; nan where permutations change nothing

    def __post_init__(self):
        z = (self.value - self.mean) / self.deviation if self.deviation > 0 else float("nan")
        object.__setattr__(self, "z", z)


UNDEFINED = Similarity(*[float("nan")] * 3)


@dataclass(frozen=True, eq=False)
class Features(Shown):
    """Features of tokens, (n, r): row = token; split into the mean token and what each differs from it."""

    centred: Array  # (n, r), columns sum to 0
    mean: Array  # (r,)

    @classmethod
    def of(cls, features: ArrayLike, *, centre_rows: bool = False) -> "Features":
        """Features (n, r), of at least 4 tokens; with ``centre_rows`` the mean of each row is taken from it first.

        Raises ValueError unless they are a matrix of finite numbers with at least four rows.
        """
        found: Array = reals("features", features)
        if found.ndim != 2 or len(found) < LEAST:
            raise ValueError(f"features have shape {found.shape}; a matrix with a row for each of at least {LEAST} "
                             "tokens is needed")
        if centre_rows:
            found = found - found.mean(axis=1, keepdims=True)
        mean = found.mean(axis=0)
        return cls(found - mean, mean)

    @classmethod
    def of_map(cls, left: ArrayLike, right: ArrayLike, *, centre_rows: bool = False) -> "Features":
        """Those of the rows of the map ``left right^T``, (n, r) and (m, r), up to a rotation, which changes no product.

        The map is never formed: left R^T, where right = Q R, has the same products of rows.
        """
        L, R = reals("left", left), reals("right", right)
        if centre_rows:
            R = R - R.mean(axis=0)
        with one_blas_thread():
            folded: Array = np.asarray(np.linalg.qr(R, mode="r"))
        return cls.of(matmul(L, folded.T))

    @cached_property
    def sizes(self) -> Array:
        """The diagonal of the covariance centred over tokens, (n,)."""
        return np.sum(self.centred**2, axis=1)

    @cached_property
    def square(self) -> float:
        """The squared norm of the covariance centred over tokens."""
        wide = self.centred.shape[0] < self.centred.shape[1]
        return norm(matmul(self.centred, self.centred.T) if wide else matmul(self.centred.T, self.centred)) ** 2

    @cached_property
    def along(self) -> Array:
        """Product of each centred token with the mean token, (n,); sums to 0."""
        return matmul(self.centred, self.mean[:, None])[:, 0]

    @cached_property
    def common(self) -> float:
        """The squared norm of the mean token."""
        return float(np.sum(self.mean**2))

    @cached_property
    def size(self) -> float:
        """The norm of the covariance that is not centred over tokens."""
        n = len(self.centred)
        return float(np.sqrt(self.square + 2 * n * np.sum(self.along**2) + (n * self.common) ** 2))

    @property
    def ones(self) -> float:
        """Cosine of the covariance that is not centred over tokens with the all-ones matrix."""
        return len(self.centred) * self.common / self.size if self.size else float("nan")


def scaled(matrix: ArrayLike) -> Array:
    """``matrix`` with rows of norm 1; rows of zeros stay."""
    found = reals("matrix", matrix)
    size = norm(found, axis=1, keepdims=True)
    return np.divide(found, size, out=np.zeros_like(found), where=size > 0)


def published(X: Features, Y: Features) -> Similarity:
    """The cosine of the covariances, not centred over tokens; that of Im et al. (2026) if rows are centred."""
    n = _tokens(X, Y)
    scale = X.size * Y.size
    if scale == 0:
        return UNDEFINED
    value = _product(X, Y) + 2 * n * float(np.sum(X.along * Y.along)) + n**2 * X.common * Y.common
    mean, variance = _moments(X, Y)
    # the parts of the mean token vary by 2 n <a, P b>, a = X.along, b = Y.along, and together with the centred part
    variance += 4 * n**2 * float(np.sum(X.along**2) * np.sum(Y.along**2)) / (n - 1)
    together = float(np.sum(X.sizes * X.along) * np.sum(Y.sizes * Y.along))
    variance += 4 * n * together * (1 / n + 3 / (n * (n - 1)) + 4 / (n * (n - 1) * (n - 2)))
    mean += n**2 * X.common * Y.common
    return Similarity(value / scale, mean / scale, np.sqrt(max(variance, 0.0)) / scale)


def centred(X: Features, Y: Features) -> Similarity:
    """The cosine of the covariances centred over tokens: linear CKA (Kornblith et al. 2019, Eq. 3)."""
    _tokens(X, Y)
    scale = np.sqrt(X.square * Y.square)
    if scale == 0:
        return UNDEFINED
    mean, variance = _moments(X, Y)
    return Similarity(_product(X, Y) / scale, mean / scale, np.sqrt(max(variance, 0.0)) / scale)


def _tokens(X, Y):
    """Return n. Raises ValueError unless both are features of n tokens."""
    if len(X.centred) != len(Y.centred):
        raise ValueError(f"features of {len(X.centred)} and of {len(Y.centred)} tokens cannot be compared")
    return len(X.centred)


def _product(X, Y):
    """<X X^T, Y Y^T> of the centred features."""
    return norm(matmul(X.centred.T, Y.centred)) ** 2


def _moments(X, Y):
    """Mean and variance of <K, P L P^T> over all permutations P; K and L are the covariances centred over tokens.

    Kazi-Aoual et al. 1995: from the traces t of K and of L, their squared norms q, and the sums s of squared diagonals.
    """
    n = len(X.centred)
    (t1, q1, s1), (t2, q2, s2) = ((part.sizes.sum(), part.square, np.sum(part.sizes**2)) for part in (X, Y))
    spread = 2 * ((n - 1) * q1 - t1**2) * ((n - 1) * q2 - t2**2) / ((n - 1) ** 2 * (n + 1) * (n - 2))
    first, second = (n * (n + 1) * s - (n - 1) * (t**2 + 2 * q) for t, q, s in ((t1, q1, s1), (t2, q2, s2)))
    diagonal = first * second / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    return float(t1 * t2 / (n - 1)), float(spread + diagonal)


def map_cosine(left: ArrayLike, right: ArrayLike, theory: ArrayLike) -> Similarity:
    """The cosine of the map ``left right^T`` with ``theory``, both without the means of their rows and columns.

    Parameters
    ----------
    left, right : (n, r), (m, r)
        Row = row of the map, and column of the map.
    theory : (n, m)

    Returns
    -------
    Similarity
        Over permutations of the rows of ``theory`` (Hoeffding 1951); their mean is 0.
    """
    L, R, Y = reals("left", left), reals("right", right), reals("theory", theory)
    if Y.shape != (len(L), len(R)) or L.shape[1] != R.shape[1]:
        raise ValueError(f"left, right and theory have shapes {L.shape}, {R.shape} and {Y.shape}; (n, r), (m, r) and "
                         "(n, m) are needed")
    L, R, Y = L - L.mean(axis=0), R - R.mean(axis=0), Y - Y.mean(axis=0)
    Y -= Y.mean(axis=1, keepdims=True)
    inner, folded = matmul(L.T, L), matmul(Y, R)
    scale = np.sqrt(max(float(np.sum(inner * matmul(R.T, R))), 0.0)) * norm(Y)
    if scale == 0:
        return UNDEFINED
    variance = float(np.sum(inner * matmul(folded.T, folded))) / (len(L) - 1)
    return Similarity(float(np.sum(L * folded)) / scale, 0.0, np.sqrt(max(variance, 0.0)) / scale)


def row_correlation(X: Features, Y: Features, *, permutations: int = 50, rng: Seed = 0) -> Similarity:
    """Mean over tokens of the Spearman correlation of their rows in the two covariances, centred over tokens.

    Here the two (n, n) covariances are formed. Mean and deviation are over random ``permutations`` of the tokens.
    """
    n, draw = _tokens(X, Y), generator(rng)
    first, second = (_ranks(matmul(part.centred, part.centred.T)) for part in (X, Y))

    def mean_of_rows(order):
        return float(np.sum(first * second[np.ix_(order, order)], dtype=np.float64)) / n

    shuffled = [mean_of_rows(draw.permutation(n)) for _ in range(permutations)]
    return Similarity(mean_of_rows(np.arange(n)), float(np.mean(shuffled)), float(np.std(shuffled, ddof=1)))


def _ranks(matrix):
    """Ranks of the entries within each row, centred and of norm 1, (n, n) float32."""
    ranks = matrix.argsort(axis=1).argsort(axis=1).astype(np.float32)
    ranks -= np.float32((len(ranks) - 1) / 2)
    return ranks / np.sqrt(np.sum(ranks[:1] ** 2))
