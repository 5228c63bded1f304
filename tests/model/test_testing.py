"""What minitx.testing ships to those who write a parametrisation: its example runs, and it says what is missing."""

import doctest
import sys

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
