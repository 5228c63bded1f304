"""What minitx.testing ships to those who write a parametrisation: its example runs, and it says what is missing."""

import doctest
import sys
from dataclasses import replace

import numpy as np
import pytest

import minitx.testing
from minitx.model import testing


def test_the_example_of_the_docstring_runs():
    """It tests a parametrisation in five lines."""
    done = doctest.testmod(testing)
    assert done.attempted >= 5
    assert done.failed == 0


@pytest.mark.parametrize("strategy", [minitx.testing.batches, minitx.testing.circuits,
                                      lambda: minitx.testing.weights(minitx.OneHotWeights)])
def test_without_hypothesis_the_error_says_what_to_type(strategy, monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        strategy()


def test_gradients_are_checked_without_hypothesis(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    weights = minitx.OneHotWeights.gaussian(3, 2, scale=1.0, rng=0)
    assert max(minitx.testing.check_gradient(weights, minitx.Batch([[0, 1]], [[1, 2]])).values()) < 1e-12


@pytest.fixture
def problem():
    return minitx.OneHotWeights.gaussian(4, 3, scale=1.0, rng=0), minitx.Batch([[0, 1, 2]], [[1, 2, 3]])


class Wrong(minitx.OneHotWeights):
    """A gradient that refuses nothing."""

    def __post_init__(self):
        pass


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda g: {"W": g.W.ravel()}, r"dL/dW has shape \(16,\) and dtype float64; W has shape \(4, 4\)"),
    (lambda g: {"P": np.append(g.P, 0.0)}, r"dL/dP has shape \(4,\)"),
    (lambda g: {"W": g.W[None]}, r"dL/dW has shape \(1, 4, 4\)"),
    (lambda g: {"V": g.V.astype(np.float32)}, "dL/dV has shape .* and dtype float32"),
    (lambda g: {"V": g.V.astype(complex)}, "dtype complex128"),
    (lambda g: {"W_O": None}, "the gradient has no W_O"),
    (lambda g: {"W": 2 * g.W}, r"dL/dW\[.*the complex step gives"),
])
def test_a_gradient_of_another_shape_dtype_or_with_missing_parts_fails(problem, spoil, says):
    def spoilt(weights, batch):
        loss, gradient = minitx.loss_and_gradient(weights, batch)
        return loss, Wrong(**{**{name: getattr(gradient, name) for name in ("W_O", "V", "W", "P")}, **spoil(gradient)})

    with pytest.raises(AssertionError, match=says):
        minitx.testing.check_gradient(*problem, loss_and_gradient=spoilt)


def test_a_gradient_with_parts_that_the_weights_have_not_fails(problem):
    weights = minitx.EmbeddedWeights(W_E=np.eye(4))
    batch = minitx.Batch([[0, 1, 2]], [[1, 2, 3]], causal=False)

    def more(weights, batch):
        loss, gradient = minitx.loss_and_gradient(weights, batch)
        return loss, minitx.EmbeddedWeights(W_E=gradient.W_E, b=np.zeros(4))

    with pytest.raises(AssertionError, match="the gradient has b, which the weights have not"):
        minitx.testing.check_gradient(weights, batch, loss_and_gradient=more)


@pytest.mark.parametrize(("settings", "says"), [
    ({"max_entries": 0}, "max_entries is 0; it must be a whole number, at least 1"),
    ({"max_entries": -1}, "max_entries is -1"), ({"max_entries": 1.5}, "max_entries is 1.5"),
    ({"rtol": 0}, "rtol is 0; it must be a number above 0"), ({"rng": "a"}, "rng is 'a'"),
    ({"loss_and_gradient": 3}, "loss_and_gradient is 3; it must be a function"),
    ({"loss_and_gradient": lambda weights, batch: 1.0}, r"returned 1.0; it must return \(loss, gradient\)"),
    ({"loss_and_gradient": lambda weights, batch: (1.0, None)}, "returned None as the gradient"),
    ({"loss_and_gradient": lambda weights, batch: (None, weights)}, "returned None as the loss"),
    ({"loss": 3}, "loss is 3; it must be a function"), ({"loss": lambda weights, batch: None}, "loss returned None"),
])
def test_settings_that_check_nothing_are_refused(problem, settings, says):
    with pytest.raises((TypeError, ValueError), match=says):
        minitx.testing.check_gradient(*problem, **settings)


def test_a_loss_that_drops_the_imaginary_part_is_refused(problem):
    def loss(weights, batch):
        return float(np.abs(minitx.testing.plain_loss(weights.circuits(), batch)))

    with pytest.raises(TypeError, match="a real number, for complex weights"):
        minitx.testing.check_gradient(*problem, loss=loss)


def test_an_objective_of_the_callers_own_is_held_to_the_callers_loss(problem):
    """Without ``loss`` the derivative is that of the batch alone, and weight decay fails; a wrong decay fails too."""
    weights, batch = problem

    def loss(weights, batch, decay=0.1):
        squares = sum((array * array).sum() for array in weights.parameters().values())
        return minitx.testing.plain_loss(weights.circuits(), batch) + decay / 2 * squares

    def decayed(decay):
        def objective(weights, batch):
            _, gradient = minitx.loss_and_gradient(weights, batch)
            return loss(weights, batch), gradient.map(lambda slope, array: slope + decay * array, weights)

        return objective

    check = minitx.testing.check_gradient
    assert max(check(weights, batch, loss_and_gradient=decayed(0.1), loss=loss, max_entries=16).values()) < 1e-12
    with pytest.raises(AssertionError, match="dL/dW_O"):
        check(weights, batch, loss_and_gradient=decayed(0.1 + 1e-9), loss=loss)
    with pytest.raises(AssertionError, match="loss is .* plain NumPy gives"):
        check(weights, batch, loss_and_gradient=decayed(0.1))


def test_data_of_the_callers_own_need_a_loss():
    """The squares of the differences from a target: no batch, and no circuits."""
    weights, target = minitx.OneHotWeights.gaussian(3, 2, scale=1.0, rng=0), minitx.OneHotWeights.zeros(3, 2)

    def loss(weights, target):
        return sum(((a - b) ** 2).sum() for a, b in
                   zip(weights.parameters().values(), target.parameters().values(), strict=True))

    def objective(weights, target):
        return loss(weights, target), weights.map(lambda a, b: 2 * (a - b), target)

    assert minitx.testing.check_gradient(weights, target, loss_and_gradient=objective, loss=loss)
    alone = minitx.testing.check_gradient(weights, target, loss=lambda weights, _: (weights.W ** 2).sum(),
                                          loss_and_gradient=lambda weights, _: ((weights.W ** 2).sum(), replace(
                                              weights.map(np.zeros_like), W=2 * weights.W)))
    assert alone["P"] == 0
    with pytest.raises(TypeError, match="batch is a OneHotWeights; it must be of the type Batch"):
        minitx.testing.check_gradient(weights, target, loss_and_gradient=objective)
