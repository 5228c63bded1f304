"""Uniform attention and squared loss through second moments: the loss and gradient of the whole batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import Batch, EmbeddedWeights, descend
from minitx import loss_and_gradient as of_batch
from minitx.testing import batches
from minitx.topics import uniform_attention


@given(batches(causal=False, head="squared"), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_moments_hold_loss_and_gradient_of_the_batch(problem, embedded, value, seed):
    batch, n_vocab = problem
    weights = EmbeddedWeights.gaussian(n_vocab, W_E=1.0 if embedded else None,
                                       W_V=1.0 if value or not embedded else None, rng=seed)
    known = uniform_attention.moments(batch, n_vocab)
    loss, gradient = uniform_attention.loss_and_gradient(weights, known)
    expected, exact = of_batch(weights, batch)
    size = np.abs(weights.circuits().ov).max() ** 2 + 1
    assert loss == pytest.approx(expected, abs=1e-13 * size * known.weight * n_vocab)
    for name, array in exact.parameters().items():
        scale = max(1.0, np.abs(array).max())
        np.testing.assert_allclose(getattr(gradient, name), array, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(known.M, known.M.T, atol=1e-16)
    assert known.M.sum() == pytest.approx(known.weight, rel=1e-14)
    assert known.C.sum() == pytest.approx(known.weight, rel=1e-14)


def test_descent_on_moments_is_descent_on_the_batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 6, (20, 9))
    batch = Batch(tokens, tokens, causal=False, head="squared")
    start = EmbeddedWeights.gaussian(6, W_E=0.3, rng=1)
    one = descend(start, batch, learning_rate=0.5, steps=30)
    two = descend(start, uniform_attention.moments(batch, 6), learning_rate=0.5, steps=30,
                  loss_and_gradient=uniform_attention.loss_and_gradient)
    np.testing.assert_allclose(two.loss, one.loss, rtol=1e-12)
    np.testing.assert_allclose(two.weights.W_E, one.weights.W_E, rtol=0, atol=1e-12)


def test_moments_refuse():
    tokens = np.array([[0, 1]])
    with pytest.raises(ValueError, match="causal"):
        uniform_attention.moments(Batch(tokens, tokens), 2)
    with pytest.raises(ValueError, match="larger n_vocab"):
        uniform_attention.moments(Batch(tokens, tokens, causal=False), 1)
    known = uniform_attention.moments(Batch(tokens, tokens, causal=False), 2)
    with pytest.raises(ValueError, match="the circuits have bias, qk"):
        uniform_attention.loss_and_gradient(EmbeddedWeights.gaussian(2, W_V=1.0, W_QK=1.0, b=1.0), known)
    with pytest.raises(ValueError, match="same vocabulary"):
        uniform_attention.loss_and_gradient(EmbeddedWeights.gaussian(3, W_V=1.0), known)
    with pytest.raises(FloatingPointError, match="overflow"):
        uniform_attention.loss_and_gradient(EmbeddedWeights(W_V=np.full((2, 2), 1e200)), known)
