"""Cosine and relative error: their values, their edges, and where they are undefined."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.base.numbers import cosine, cosine_of_products, norm, relative_error


@given(st.integers(0, 2**32 - 1), st.sampled_from((1e-200, 1e-10, 1.0, 1e10, 1e200)))
def test_cosine_does_not_depend_on_scale(seed, scale):
    a, b = np.random.default_rng(seed).standard_normal((2, 3, 4))
    expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert cosine(a, b) == pytest.approx(expected, abs=1e-14)
    assert cosine(scale * a, b) == pytest.approx(expected, abs=1e-14)
    assert cosine(a, -scale * a) == pytest.approx(-1, abs=1e-14)
    assert relative_error(a, b) == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-13)
    assert relative_error(scale * a, scale * b) == pytest.approx(relative_error(a, b), rel=1e-13)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from((1e-200, 1.0, 1e200)))
def test_the_cosine_of_products_is_that_of_the_products(seed, rows, scale):
    a, b, c, d = np.random.default_rng(seed).standard_normal((4, 5, 5))
    found = cosine_of_products((scale * a, b), (c[:, :3], d[:3]), rows=rows)
    assert found == pytest.approx(cosine(a @ b, c[:, :3] @ d[:3]), abs=1e-13)
    assert cosine_of_products((a, b), (a, b), rows=rows) == pytest.approx(1, abs=1e-14)
    assert math.isnan(cosine_of_products((a, 0 * b), (c, d)))
    with pytest.raises(ValueError, match=r"factors have shapes \(5, 5\) x \(3, 5\)"):
        cosine_of_products((a, b[:3]), (c, d))


def test_undefined_where_a_matrix_is_zero():
    zero, one = np.zeros((2, 2)), np.ones((2, 2))
    assert math.isnan(cosine(zero, one))
    assert math.isnan(cosine(one, zero))
    assert math.isnan(relative_error(one, zero))
    assert relative_error(zero, one) == 1


def test_refusals():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        cosine(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="inf or nan"):
        relative_error(np.ones(2), np.array([1.0, np.nan]))


@pytest.mark.parametrize("scale", [1.0, 2.0**-1000, 2.0**1000])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norm_of_entries_of_any_size(scale, axis, keepdims):
    """Squares would under- or overflow; scaling by a power of 2 costs no digit."""
    a = np.random.default_rng(0).standard_normal((5, 4))
    a[:, 1] = 0
    found, expected = norm(scale * a, axis, keepdims=keepdims), np.linalg.norm(a, axis=axis, keepdims=keepdims)
    if axis is None:
        assert isinstance(found, float)
    else:
        assert found.shape == expected.shape
    np.testing.assert_allclose(found / scale, expected, rtol=1e-15)


@pytest.mark.parametrize(("a", "expected"), [([], 0), ([0.0, 0.0], 0), ([3.0, 4.0], 5), ([np.inf, 1.0], np.inf),
                                             ([np.nan, 1.0], np.nan)])
def test_norm_at_its_edges(a, expected):
    np.testing.assert_equal(norm(a), expected)
