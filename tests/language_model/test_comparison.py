"""Statistics of token covariances: each equals its definition on formed matrices, over all permutations."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.language_model.comparison import Features, centred, map_cosine, published, row_correlation, scaled

seeds = st.integers(0, 10_000)


def cosine(a, b):
    return np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))


def over_tokens(matrix):
    return matrix - matrix.mean(axis=0)


def require(found, statistic, n):
    """The value is ``statistic`` of the identity; mean and deviation are those of all n! permutations."""
    values = [statistic(list(order)) for order in permutations(range(n))]
    assert found.value == pytest.approx(values[0], rel=1e-10, abs=1e-12)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-10, abs=1e-12)
    assert found.deviation == pytest.approx(np.std(values), rel=1e-7, abs=1e-9)


@settings(max_examples=20)
@given(seeds, st.sampled_from([4, 5]), st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_moments_are_those_of_all_permutations(seed, n, r, m, rows):
    draw = np.random.default_rng(seed)
    X, Y = draw.normal(1, 1, (n, r)), draw.exponential(1, (n, m))
    one, two = Features.of(X, centre_rows=rows), Features.of(Y, centre_rows=rows)
    if rows:
        X, Y = X - X.mean(axis=1, keepdims=True), Y - Y.mean(axis=1, keepdims=True)
    if np.allclose(X, 0) or np.allclose(Y, 0):
        return
    require(published(one, two), lambda order: cosine(X @ X.T, Y[order] @ Y[order].T), n)
    Xc, Yc = over_tokens(X), over_tokens(Y)
    require(centred(one, two), lambda order: cosine(Xc @ Xc.T, Yc[order] @ Yc[order].T), n)
    assert one.ones == pytest.approx(cosine(X @ X.T, np.ones((n, n))), abs=1e-12)


@settings(max_examples=10)
@given(seeds, st.integers(1, 4), st.booleans())
def test_a_map_is_compared_without_being_formed(seed, r, rows):
    draw = np.random.default_rng(seed)
    n, m = 5, 6
    left, right, theory = draw.normal(1, 1, (n, r)), draw.normal(1, 1, (m, r)), draw.normal(0, 1, (n, m))
    A = left @ right.T
    found, dense = Features.of_map(left, right, centre_rows=rows), Features.of(A, centre_rows=rows)
    other = Features.of(theory)
    for statistic in (published, centred):
        one, two = statistic(found, other), statistic(dense, other)
        np.testing.assert_allclose([one.value, one.mean, one.deviation], [two.value, two.mean, two.deviation], 1e-6)

    def both(matrix):
        return over_tokens(over_tokens(matrix).T).T

    require(map_cosine(left, right, theory), lambda order: cosine(both(A), both(theory)[order]), n)


def test_a_common_vector_fools_the_published_cosine_and_not_the_centred_one():
    """Random features, and the same with one vector added to all tokens: theory/language_models.md."""
    draw = np.random.default_rng(0)
    X, Y = draw.normal(size=(200, 32)), draw.normal(size=(200, 200))
    shifted = Features.of(X + 10 * draw.normal(size=32), centre_rows=True)
    other = Features.of(Y + 10 * draw.normal(size=200))
    found = published(shifted, other)
    assert found.value > 0.97 and abs(found.value - found.mean) < 0.01 and min(shifted.ones, other.ones) > 0.97
    assert published(Features.of(X, centre_rows=True), Features.of(Y)).value < 0.5
    assert abs(centred(shifted, other).z) < 4
    related = Features.of(X @ draw.normal(size=(32, 50)) + 3)
    assert centred(shifted, related).z > 20


def test_rows_that_agree_correlate_and_permuted_ones_do_not():
    draw = np.random.default_rng(1)
    X = draw.normal(size=(60, 8))
    same = row_correlation(Features.of(X), Features.of(5 - 2 * X), rng=0)
    assert same.value == pytest.approx(1, abs=1e-6) and abs(same.mean) < 0.05 and same.z > 20
    covariance = [over_tokens(Z) @ over_tokens(Z).T for Z in (X, np.abs(X))]
    ranks = [np.argsort(np.argsort(matrix, axis=1), axis=1) for matrix in covariance]
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)])
    assert row_correlation(Features.of(X), Features.of(np.abs(X))).value == pytest.approx(expected, abs=1e-5)


def test_scaled_rows_have_norm_1_and_rows_of_zeros_stay():
    X = np.array([[3.0, 4], [0, 0], [1, 0], [0, 2]])
    np.testing.assert_allclose(scaled(X), [[0.6, 0.8], [0, 0], [1, 0], [0, 1]])


def test_what_cannot_be_compared_is_undefined_or_refused():
    zero, some = Features.of(np.zeros((5, 2))), Features.of(np.eye(5))
    for statistic in (published, centred):
        assert np.isnan(statistic(zero, some).value) and np.isnan(statistic(zero, some).z)
        with pytest.raises(ValueError, match="features of 5 and of 4 tokens"):
            statistic(some, Features.of(np.eye(4)))
    with pytest.raises(ValueError, match="at least 4"):
        Features.of(np.eye(3))
    with pytest.raises(ValueError, match="are needed"):
        map_cosine(np.eye(4), np.eye(4), np.eye(5))
