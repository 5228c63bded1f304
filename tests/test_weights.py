"""The one-hot parametrisation: the paper's model, its gradient, and files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import OneHotWeights, loss_and_gradient
from minitx.testing import check_gradient

import naive
from strategies import batches


@given(batches(causal=True, head="cross_entropy", uniform=True), st.sampled_from((0.0, 1e-3, 1.0)), st.integers(0, 2**32 - 1))
def test_loss_and_gradient_are_those_of_definition_3_1(problem, scale, seed):
    batch, n_vocab = problem
    weights = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    loss, gradient = loss_and_gradient(weights, batch)
    model = (weights.W_O, weights.V, weights.W, weights.P, batch.tokens, batch.targets)
    assert loss == pytest.approx(naive.one_hot_loss(*model), rel=1e-13)
    assert isinstance(gradient, OneHotWeights)
    for name, expected in naive.one_hot_gradient(*model).items():
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-15)


@given(batches(causal=True), st.sampled_from((0.0, 1e-3, 1.0, 30.0)), st.integers(0, 2**32 - 1))
def test_gradient_equals_the_complex_step_for_every_head_and_weight(problem, scale, seed):
    batch, n_vocab = problem
    weights = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    if batch.head == "log":  # outputs must be positive
        weights = weights.map(lambda array: np.abs(array) / (scale or 1.0) + 0.05)
    check_gradient(weights, batch)


def test_seed_decides_the_gaussian_start():
    one, same, other = (OneHotWeights.gaussian(4, 3, scale=0.1, rng=seed) for seed in (1, 1, 2))
    for name, array in one.parameters().items():
        np.testing.assert_array_equal(array, getattr(same, name))
        assert not np.array_equal(array, getattr(other, name))
    assert OneHotWeights.gaussian(50, 3, scale=0.1, rng=0).W.std() == pytest.approx(0.1, rel=0.05)


def test_save_and_load(tmp_path):
    weights = OneHotWeights.gaussian(4, 3, scale=0.1, rng=0, dtype=np.float32)
    weights.save(tmp_path / "weights.npz")
    for name, array in OneHotWeights.load(tmp_path / "weights.npz").parameters().items():
        np.testing.assert_array_equal(array, getattr(weights, name))
        assert array.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    with pytest.raises(ValueError, match="does not hold the arrays W_O, V, W, P"):
        OneHotWeights.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError, match="does not hold the arrays"):
        OneHotWeights.load(tmp_path / "text.npz")


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"V": np.zeros((2, 3))}, ValueError, r"V has shape \(2, 3\) and W_O \(3, 3\)"),
    ({"P": np.zeros((2, 2))}, ValueError, "P has shape"),
    ({"V": None}, TypeError, "V must be an array of float64"),
    ({"P": np.zeros(4, np.float32)}, TypeError, "all weights must be float64, or all float32; got .* P float32"),
    ({"W": np.zeros((3, 3), int)}, TypeError, "W must be an array of float64 or float32, got dtype int64"),
])
def test_weights_refuse(change, error, says):
    with pytest.raises(error, match=says):
        OneHotWeights(**{**OneHotWeights.zeros(3, 4).parameters(), **change})


@pytest.mark.parametrize("call", [lambda: OneHotWeights.zeros(1, 4), lambda: OneHotWeights.zeros(3, 0),
                                  lambda: OneHotWeights.gaussian(3, 4, scale=-1.0),
                                  lambda: OneHotWeights.gaussian(3, 4, scale=np.nan)])
def test_starts_refuse(call):
    with pytest.raises(ValueError, match="must be"):
        call()
