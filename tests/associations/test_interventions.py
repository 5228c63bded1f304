"""Interventions: losses after projections on the leading terms are removed from trained weights, or kept alone."""

import time

import numpy as np
import pytest

from minitx import Batch, LayeredWeights, OneHotWeights, builtin_corpus, descend, loss_and_gradient, set_threads
from minitx.associations import leading_weights, statistics
from minitx.associations.interventions import _without, interventions
from minitx.base import parallel
from minitx.model import circuits


@pytest.fixture(scope="module")
def batch():
    return builtin_corpus("stories", n_vocab=30, length=8, n_windows=12, rng=0).batch()


def _trained(batch, n_layers):
    start = OneHotWeights.zeros(30, 8) if n_layers == 1 else LayeredWeights.zeros(30, 8, n_layers)
    return descend(start, batch, steps=12, learning_rate=1.0).weights


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_losses_are_those_of_weights_changed_by_hand(batch, n_layers):
    """Oracle: each weight is a copy in which one matrix is replaced, with the projection by a plain inner product."""
    weights, leading = _trained(batch, n_layers), leading_weights(statistics(batch, 30), steps=12, learning_rate=1.0)
    base, found = interventions(weights, batch, leading, n_random=2)
    assert base == pytest.approx(loss_and_gradient(weights, batch)[0], rel=1e-14)
    names = [f"{name} {l}" for l in range(1, n_layers + 1) for name in "VWP"] if n_layers > 1 else ["V", "W", "P"]
    assert [one.changed for one in found] == ["W_O", *names, *(["every V", "every W", "every P"] * (n_layers > 1))]
    for one in found:
        kind, _, layer = one.changed.removeprefix("every ").partition(" ")
        removed, kept = ({name: array.copy() for name, array in weights.parameters().items()} for _ in range(2))
        theory = getattr(leading, kind)
        stack = [array[kind] if array[kind].ndim > theory.ndim else array[kind][None] for array in (removed, kept)]
        for l in range(len(stack[0])):
            if not layer or l == int(layer) - 1:
                along = theory * (np.vdot(theory, stack[0][l]) / np.vdot(theory, theory))
                stack[0][l] -= along
                stack[1][l] = along
        for changed, value in ((removed, one.removed), (kept, one.kept)):
            assert loss_and_gradient(type(weights)(**changed), batch)[0] == pytest.approx(value, rel=1e-13), one


def test_random_directions_have_the_norm_of_the_projection_and_their_losses_a_mean_and_a_spread(batch):
    """Removing random directions of W_O raises the loss by less than its own does; draws differ with the seed."""
    array, direction = np.arange(6.0).reshape(2, 3), np.array([[1.0, 0.0, 2.0], [0.0, 2.0, 0.0]])
    assert array - _without(array, direction.copy(), 7.0) == pytest.approx(direction * 7 / 3)
    weights, leading = _trained(batch, 2), leading_weights(statistics(batch, 30), steps=12, learning_rate=1.0)
    base, found = interventions(weights, batch, leading, n_random=5, rng=3)
    output = found[0]
    assert output.random_sd > 0 and output.random < output.removed > base
    assert interventions(weights, batch, leading, n_random=5, rng=3)[1] == found
    others = interventions(weights, batch, leading, n_random=5, rng=4)[1]
    assert others[0].random != output.random and others[0].removed == output.removed


class Slow(np.random.Generator):
    """A generator that gives other threads the time to draw as well, if nothing holds them back."""

    def standard_normal(self, *arguments):
        found = super().standard_normal(*arguments)
        time.sleep(0.01)
        return found


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(batch, threads, monkeypatch):
    """Directions of several weights are drawn in one order, and it does not matter which thread gets which of them."""
    weights, leading = _trained(batch, 2), leading_weights(statistics(batch, 30), steps=12, learning_rate=1.0)
    set_threads(1)
    expected = interventions(weights, batch, leading, n_random=9, rng=3)
    set_threads(threads)
    assert interventions(weights, batch, leading, n_random=9, rng=Slow(np.random.PCG64(3))) == expected
    together = parallel.together
    monkeypatch.setattr(parallel, "together", lambda *functions: together(*functions[::-1])[::-1])
    assert interventions(weights, batch, leading, n_random=9, rng=3) == expected


@pytest.mark.parametrize("n_layers", [1, 2])
def test_random_directions_are_drawn_one_after_the_other(batch, n_layers):
    """Oracle: the draws of a loop over the weights that are changed, and over the directions."""
    weights, leading = _trained(batch, n_layers), leading_weights(statistics(batch, 30), steps=12, learning_rate=1.0)
    found = interventions(weights, batch, leading, n_random=4, rng=5)
    draw, trained = np.random.default_rng(5), weights.matrices()
    for one in found[1]:
        kind = one.changed.removeprefix("every ")
        names = [kind] if kind in trained else [name for name in trained if name.startswith(f"{kind} ")]
        losses = []
        for _ in range(4):
            changed = {}
            for name in names:
                theory = getattr(leading, name.partition(" ")[0])
                along = theory * (np.vdot(theory, trained[name]) / np.vdot(theory, theory))
                direction = draw.standard_normal(trained[name].shape)
                changed[name] = trained[name] - direction * np.linalg.norm(along) / np.linalg.norm(direction)
            losses.append(loss_and_gradient(weights.with_matrices(changed), batch)[0])
        assert one.random == pytest.approx(np.mean(losses), rel=1e-13)
        assert one.random_sd == pytest.approx(np.std(losses, ddof=1), rel=1e-6)


def test_weights_of_zero_change_nothing(batch):
    leading = leading_weights(statistics(batch, 30), steps=12, learning_rate=1.0)
    base, found = interventions(OneHotWeights.zeros(30, 8), batch, leading, n_random=2)
    assert all((one.removed, one.kept, one.random, one.random_sd) == (base, base, base, 0.0) for one in found)


def test_loss_is_that_of_the_gradient(batch):
    for weights in (_trained(batch, 1), _trained(batch, 3), OneHotWeights.zeros(30, 8).circuits()):
        assert circuits.loss(weights, batch) == pytest.approx(loss_and_gradient(weights, batch)[0], rel=1e-14)
    with pytest.raises(TypeError, match="weights is None"):
        circuits.loss(None, batch)
    with pytest.raises(FloatingPointError, match="the loss is"), np.errstate(all="ignore"):
        circuits.loss(LayeredWeights.zeros(30, 8, 2).map(lambda array: array + 1e200), batch)


def test_refusals(batch):
    weights, leading = OneHotWeights.zeros(30, 8), leading_weights(statistics(batch, 30), steps=2, learning_rate=1.0)
    with pytest.raises(ValueError, match="n_random is 1; it must be a whole number, at least 2"):
        interventions(weights, batch, leading, n_random=1)
    with pytest.raises(ValueError, match="leading must be finite and of the same vocabulary and length"):
        interventions(OneHotWeights.zeros(31, 8), batch, leading)
    with pytest.raises(TypeError, match="leading is None"):
        interventions(weights, batch, None)
    with pytest.raises(TypeError, match="batch is"):
        interventions(weights, Batch, leading)
