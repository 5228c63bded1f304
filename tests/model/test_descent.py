"""Gradient descent: steps, seeds, threads, and every way a run can end early."""

import doctest
import json
from dataclasses import dataclass

import numpy as np
import pytest

from minitx import Batch, Circuits, OneHotWeights, descend, loss_and_gradient
from minitx.base import parallel
from minitx.model import blocks as blocks_room
from minitx.model import descent as descent_module
from minitx.model.descent import DescentEnded, Stopped, descent
from minitx.model.parameters import Parameters


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return Batch(rng.integers(0, 5, (12, 6)), rng.integers(0, 5, (12, 6)))


def test_steps_are_weights_minus_eta_times_gradient(batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    copies = {name: array.copy() for name, array in start.parameters().items()}
    run = descend(start, batch, learning_rate=0.7, steps=3, keep=(0, 2))
    weights = start
    for step in range(4):
        loss, gradient = loss_and_gradient(weights, batch)
        assert run.loss[step] == loss
        if step in (0, 2):
            for name, array in weights.parameters().items():
                np.testing.assert_array_equal(getattr(run.kept[step], name), array)
        if step < 3:
            weights = weights.map(lambda weight, slope: slope * -0.7 + weight, gradient)
    for name, array in weights.parameters().items():
        np.testing.assert_array_equal(getattr(run.weights, name), array)
        np.testing.assert_array_equal(getattr(start, name), copies[name])
    assert run.stopped is None
    assert run.steps == 3
    assert set(run.kept) == {0, 2}


def test_circuits_are_weights_too(batch):
    start = Circuits(np.zeros((5, 5)), np.zeros((5, 5)), None, None, None)
    run = descend(start, batch, learning_rate=1.0, steps=20)
    assert run.loss[-1] < run.loss[0]
    assert run.weights.qk is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_same_seed_same_bits_for_any_number_of_threads(batch, dtype, batch_size, monkeypatch):
    monkeypatch.setattr(blocks_room, "BLOCK_BYTES", 2000)
    runs = []
    for threads in (1, 2, 3):
        parallel.set_threads(threads)
        start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0, dtype=dtype)
        runs.append(descend(start, batch, learning_rate=0.7, steps=8, batch_size=batch_size, rng=3))
    for run in runs[1:]:
        np.testing.assert_array_equal(run.loss, runs[0].loss)
        for name, array in run.weights.parameters().items():
            assert array.dtype == dtype
            np.testing.assert_array_equal(array, getattr(runs[0].weights, name))


def test_same_bits_at_sizes_where_blas_would_thread():
    """OpenBLAS rounds these products (V = 700, T = 40, float32) differently on one and on two threads of its own."""
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 700, (12, 40)), rng.integers(0, 700, (12, 40)))
    runs = []
    for threads in (1, 2):
        parallel.set_threads(threads)
        start = OneHotWeights.gaussian(700, 40, scale=0.05, rng=0, dtype=np.float32)
        runs.append(descend(start, batch, learning_rate=1.0, steps=2))
    for name, array in runs[1].weights.parameters().items():
        np.testing.assert_array_equal(array, getattr(runs[0].weights, name))


def test_mini_batches_use_every_sequence_once_an_epoch(batch):
    losses = [loss_and_gradient(OneHotWeights.zeros(5, 6), batch.take([row]))[0] for row in range(12)]
    run = descend(OneHotWeights.zeros(5, 6), batch, learning_rate=1e-300, steps=11, batch_size=1, rng=0)
    np.testing.assert_allclose(sorted(run.loss), sorted(losses))
    start, settings = OneHotWeights.gaussian(5, 6, scale=1.0, rng=0), {"learning_rate": 1e-300, "steps": 11}
    other, same = (descend(start, batch, **settings, batch_size=1, rng=1) for _ in range(2))
    np.testing.assert_array_equal(other.loss, same.loss)


def test_a_learning_rate_that_diverges_stops_and_keeps_what_was(batch):
    start = OneHotWeights.gaussian(5, 6, scale=1.0, rng=0)
    run = descend(start, batch, learning_rate=1e200, steps=10, keep=range(11))
    assert (run.stopped.kind, run.stopped.step) == ("diverged", len(run.loss))
    assert str(run.stopped).startswith(f"step {len(run.loss)}: ") and "1e+200" in run.stopped.message
    assert 1 <= len(run.loss) < 11
    assert np.isfinite(run.loss).all()
    assert not run.weights.not_finite()
    assert set(run.kept) == set(range(run.steps + 1))


@pytest.mark.parametrize(("dtype", "learning_rate"), [(np.float32, 1e30), (np.float32, 1e39), (np.float64, 1e308)])
def test_divergence_warns_of_nothing(batch, dtype, learning_rate):
    """What overflows is said in ``stopped``; warnings are errors in these tests."""
    start = OneHotWeights.gaussian(5, 6, scale=1.0, rng=0, dtype=dtype)
    assert descend(start, batch, learning_rate=learning_rate, steps=10).stopped.kind == "diverged"


@dataclass(frozen=True)
class Tied(Parameters):
    """One array under two names: V = W_O^T, of which the gradient holds one array twice."""

    a: np.ndarray
    b: np.ndarray

    def circuits(self):
        return Circuits(direct=self.a + self.b, ov=np.zeros_like(self.a), qk=None, position=None, bias=None)

    def pullback(self, gradient):
        return Tied(gradient.direct, gradient.direct)


def test_a_gradient_may_hold_an_array_twice(batch):
    start = Tied(np.zeros((5, 5)), np.zeros((5, 5)))
    _, gradient = loss_and_gradient(start, batch)
    run = descend(start, batch, learning_rate=0.5, steps=1)
    for array in (run.weights.a, run.weights.b):
        np.testing.assert_array_equal(array, -0.5 * gradient.a)


def test_mini_batches_leave_out_sequences_without_a_loss_position(batch):
    weight = np.where(np.arange(12)[:, None] % 3 == 0, 1.0, 0.0) * np.ones((12, 6))
    some = Batch(batch.tokens, batch.targets, weight)
    start = OneHotWeights.gaussian(5, 6, scale=1.0, rng=0)
    run = descend(start, some, learning_rate=1e-300, steps=3, batch_size=1, rng=0)
    assert np.mean(run.loss) == pytest.approx(loss_and_gradient(start, some)[0])
    with pytest.raises(ValueError, match="4 sequences with a loss position"):
        descend(OneHotWeights.zeros(5, 6), some, learning_rate=0.1, steps=1, batch_size=5)
    for rows in ([], np.zeros(12, bool), slice(0, 0), 3):
        with pytest.raises(ValueError, match="at least one row"):
            batch.take(rows)
    with pytest.raises(ValueError, match="rows of the batch are 0 to 11"):
        batch.take([99])


def test_ctrl_c_keeps_what_was_recorded(batch):
    def interrupt(step, loss, weights, gradient):
        if step == 4:
            raise KeyboardInterrupt

    run = descend(OneHotWeights.zeros(5, 6), batch, learning_rate=0.5, steps=10, keep=range(11), callback=interrupt)
    assert run.stopped == Stopped("interrupted", 4, "interrupted after step 4")
    assert run.steps == 4
    whole = descend(OneHotWeights.zeros(5, 6), batch, learning_rate=0.5, steps=4)
    np.testing.assert_array_equal(run.weights.W_O, whole.weights.W_O)


def test_frozen_weights_stay(batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    run = descend(start, batch, learning_rate=0.5, steps=3, frozen=("V", "P"))
    _, gradient = loss_and_gradient(start, batch)
    one = descend(start, batch, learning_rate=0.5, steps=1, frozen=("V", "P")).weights
    np.testing.assert_array_equal(one.W, start.W - 0.5 * gradient.W)
    for name, array in run.weights.parameters().items():
        assert np.array_equal(array, getattr(start, name)) == (name in ("V", "P"))
    given = descend(start, batch, learning_rate=0.5, steps=3, frozen=(name for name in ("V", "P"))).weights
    np.testing.assert_array_equal(given.V, start.V)
    with pytest.raises(TypeError, match="frozen is the string 'V'"):
        descend(start, batch, learning_rate=0.5, steps=3, frozen="V")
    with pytest.raises(ValueError, match="frozen names Q, but the weights are W_O, V, W, P"):
        descend(start, batch, learning_rate=0.5, steps=3, frozen=("Q",))


def test_an_iterator_gives_the_batch_of_each_step(batch):
    start = OneHotWeights.zeros(5, 6)
    parts = [batch.take([step, step + 1]) for step in range(4)]
    run = descend(start, iter(parts), learning_rate=0.5, steps=3)
    weights = start
    for step, part in enumerate(parts[:3]):
        loss, gradient = loss_and_gradient(weights, part)
        assert run.loss[step] == loss
        weights = weights.map(lambda weight, slope: weight - 0.5 * slope, gradient)
    np.testing.assert_array_equal(run.weights.W_O, weights.W_O)
    ended = descend(start, iter(parts), learning_rate=0.5, steps=9)
    assert ended.steps == 3
    assert ended.stopped == Stopped("no more batches", 4, "step 4: the iterator gives no more batches")
    with pytest.raises(ValueError, match="the iterator of batches is empty"):
        descend(start, iter([]), learning_rate=0.5, steps=3)
    for wrong in (None, parts):
        with pytest.raises(TypeError, match="give a Batch, or an iterator of Batches"):
            descend(start, wrong, learning_rate=0.5, steps=3)
    with pytest.raises(ValueError, match="only a Batch is cut into mini-batches"):
        descend(start, iter(parts), learning_rate=0.5, steps=1, batch_size=2)


@pytest.mark.parametrize(("settings", "says"), [
    ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ({"learning_rate": np.nan}, "learning_rate is nan"),
    ({"learning_rate": "0.1"}, "learning_rate is '0.1'; it must be a number"),
    ({"steps": -1}, "steps is -1"),
    ({"steps": 2.5}, "steps is 2.5"),
    ({"batch_size": 0}, "batch_size is 0; it must be a whole number"),
    ({"batch_size": 13}, "batch_size is 13, but the batch has 12"),
])
def test_refusals(batch, settings, says):
    with pytest.raises(ValueError, match=says):
        descend(OneHotWeights.zeros(5, 6), batch, **{"learning_rate": 0.1, "steps": 1, **settings})


def test_a_start_that_is_not_finite_is_the_users_mistake(batch):
    start = OneHotWeights.zeros(5, 6).map(lambda array: array + np.nan)
    with pytest.raises(ValueError, match="inf or nan"):
        descend(start, batch, learning_rate=0.1, steps=1)


def test_normalised_steps_have_the_length_of_the_learning_rate(batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    run = descend(start, batch, learning_rate=0.3, steps=4, keep=range(5), frozen=("P",), normalised=True)
    for step in range(4):
        _, gradient = loss_and_gradient(run.kept[step], batch)
        norm = np.sqrt(sum((getattr(gradient, name) ** 2).sum() for name in ("W_O", "V", "W")))
        for name in ("W_O", "V", "W"):
            expected = getattr(run.kept[step], name) - 0.3 * getattr(gradient, name) / norm
            np.testing.assert_allclose(getattr(run.kept[step + 1], name), expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(run.weights.P, start.P)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200])
def test_normalised_steps_see_no_underflow(size):
    """The squares of such a gradient are 0 or inf in floating point; its direction is (3, 4) / 5 all the same."""
    start = Tied(np.zeros((1, 2)), np.zeros((1, 2)))
    run = descend(start, "no data", learning_rate=5.0, steps=1, normalised=True, frozen=("b",),
                  loss_and_gradient=lambda weights, _: (0.0, Tied(size * np.array([[3.0, 4.0]]), None)))
    np.testing.assert_allclose(run.weights.a, [[-3.0, -4.0]], rtol=1e-14)


def test_a_gradient_of_0_has_no_direction():
    start = Tied(np.ones((1, 2)), np.ones((1, 2)))
    run = descend(start, "no data", learning_rate=0.1, steps=5, normalised=True,
                  loss_and_gradient=lambda weights, _: (0.0, Tied(np.zeros((1, 2)), np.zeros((1, 2)))))
    assert (run.stopped.kind, run.stopped.step) == ("no direction", 1)
    assert str(run.stopped).startswith("step 1: the gradient is exactly 0")
    assert run.steps == 0
    np.testing.assert_array_equal(run.weights.a, start.a)


def test_parts_without_a_gradient_are_to_be_frozen():
    start = Tied(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"gives no gradient of b; freeze what it does not train: frozen=\('b',\)"):
        descend(start, "no data", learning_rate=0.1, steps=1,
                loss_and_gradient=lambda weights, _: (0.0, Tied(np.ones((1, 2)), None)))


def test_a_descent_can_be_taken_step_by_step(batch):
    """A theory can take single steps beside training: the bits are those of one call, and it says why it ends."""
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    settings = {"learning_rate": 0.7, "batch_size": 5, "rng": 3, "frozen": ("P",)}
    run = descend(start, batch, steps=4, **settings)
    walk = descent(start, batch, **settings)
    for loss in run.loss:
        found, weights, gradient, _ = next(walk)
        assert found == loss
    for name, array in run.weights.parameters().items():
        np.testing.assert_array_equal(getattr(weights, name), array)
    with pytest.raises(DescentEnded, match="step 1: the iterator gives no more batches") as caught:
        list(descent(start, iter([batch]), learning_rate=1.0))
    assert caught.value.stopped.kind == "no more batches"
    with pytest.raises(ValueError, match="kind is 'bored'; it must be one of interrupted, diverged"):
        Stopped("bored", 1, "")
    with pytest.raises(ValueError, match="learning_rate is -1"):
        descent(start, batch, learning_rate=-1)


@pytest.mark.parametrize("batch_size", [None, 5, 12])
@pytest.mark.parametrize("cut", [1, 2, 10])
def test_a_run_goes_on_bit_for_bit(batch, batch_size, cut):
    """10 + 10 steps are the 20 steps: mini-batches, schedule, losses, steps that are kept, and the last weights."""
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    settings = {"learning_rate": lambda step: 0.7 / (1 + step), "batch_size": batch_size}
    whole = descend(start, batch, steps=20, rng=np.random.default_rng(3), keep=range(21), **settings)
    first = descend(start, batch, steps=cut, rng=np.random.default_rng(3), **settings)
    state = json.loads(json.dumps(first.rng))
    steps = []
    second = descend(first.weights, batch, steps=20 - cut, rng=state, start_step=first.next_step, keep=(15, 20),
                     callback=lambda step, *_: steps.append(step), **settings)
    assert (first.next_step, second.start_step, second.next_step) == (cut, cut, 20)
    assert steps == list(range(cut, 21))
    np.testing.assert_array_equal(np.append(first.loss[:-1], second.loss), whole.loss)
    np.testing.assert_array_equal(np.append(first.learning_rate, second.learning_rate), whole.learning_rate)
    assert set(second.kept) == {15, 20}
    for step in (15, 20):
        for name, array in whole.kept[step].parameters().items():
            np.testing.assert_array_equal(getattr(second.kept[step], name), array)
    assert second.rng == first.rng == whole.rng
    moment = descend(start, batch, steps=3, **settings)  # a seed of the moment is kept as well
    again = descend(start, batch, steps=3, rng=moment.rng, **settings)
    np.testing.assert_array_equal(again.loss, moment.loss)
    third = descend(second.weights, batch, steps=1, rng=second.rng, start_step=second.next_step, **settings)
    np.testing.assert_array_equal(third.loss[0], whole.loss[-1])


def test_a_learning_rate_may_be_a_number_a_sequence_or_a_function(batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    rates = [0.5, 0.25, 0.125]
    runs = [descend(start, batch, learning_rate=rate, steps=3)
            for rate in (rates, np.array(rates), tuple(rates), lambda step: 0.5 / 2**step)]
    weights = start
    for rate in rates:
        _, gradient = loss_and_gradient(weights, batch)
        weights = weights.map(lambda array, slope, rate=rate: array - rate * slope, gradient)
    for run in runs:
        np.testing.assert_array_equal(run.weights.W_O, weights.W_O)
        np.testing.assert_array_equal(run.learning_rate, rates)
    assert descend(start, batch, learning_rate=0.5, steps=3).learning_rate == 0.5
    with pytest.raises(ValueError, match="one number for each of the 2 steps"):
        list(descent(start, batch, learning_rate=[0.5]))


@pytest.mark.parametrize(("settings", "says"), [
    ({"learning_rate": [0.1, 0.1]}, r"learning_rate is \[0.1, 0.1\]; it must hold one number for each of the 3"),
    ({"learning_rate": [0.1, -0.1, 0.1]}, r"learning_rate\[1\] is -0.1; it must be a number above 0"),
    ({"learning_rate": lambda step: 1 - step}, r"learning_rate\(1\) is 0; it must be a number above 0"),
    ({"learning_rate": lambda step: None}, r"learning_rate\(0\) is None; it must be a number above 0"),
    ({"keep": "all"}, "keep is 'all'; it must be steps from 0 to 3, such as keep=range"),
    ({"keep": 3}, "keep is 3; it must be steps"),
    ({"keep": [-1]}, "keep holds -1; its entries must be steps, whole numbers from 0 to 3"),
    ({"keep": [1.5]}, "keep holds 1.5"), ({"keep": [99]}, "keep holds 99"), ({"keep": [True]}, "keep holds True"),
    ({"start_step": 5, "keep": [1]}, "keep holds 1; its entries must be steps, whole numbers from 5 to 8"),
    ({"normalised": "no"}, "normalised is 'no'; it must be True or False"),
    ({"normalised": 1}, "normalised is 1; it must be True or False"),
    ({"callback": "print"}, "callback is 'print'; it must be a function that is called as callback"),
    ({"rng": "zero"}, "rng is 'zero'; it must be a whole number"), ({"rng": -1}, "rng is -1"),
    ({"rng": {"state": 3}}, "rng is {'state': 3} that is not the state of a random generator"),
    ({"rng": {"bit_generator": "seed"}}, "not the state of a random generator"),
    ({"start_step": -1}, "start_step is -1"), ({"frozen": 3}, "frozen is 3; give a tuple of names"),
    ({"loss_and_gradient": None}, "loss_and_gradient is None; it must be a function"),
    ({"loss_and_gradient": lambda weights, batch: None}, "returned None; it must return"),
    ({"loss_and_gradient": lambda weights, batch: weights}, "returned a OneHotWeights; it must return"),
    ({"loss_and_gradient": lambda weights, batch: (weights, 1.0)}, "of a OneHotWeights and 1.0; it must return"),
    ({"loss_and_gradient": lambda weights, batch: (1.0, OneHotWeights.zeros(4, 6))},
     r"a gradient of shape \(4, 4\) for W_O, which has shape \(5, 5\)"),
    ({"loss_and_gradient": lambda weights, batch: (1.0, Tied(np.ones(2), np.ones(2)))}, "gives no gradient of W_O"),
])
def test_settings_that_would_be_misread_are_refused(batch, settings, says):
    with pytest.raises((TypeError, ValueError), match=says):
        descend(OneHotWeights.zeros(5, 6), batch, **{"learning_rate": 0.1, "steps": 3, **settings})


def test_an_objective_whose_loss_is_not_finite_ends_the_run(batch):
    losses = iter([1.0, 2.0, np.nan])

    def objective(weights, batch):
        return next(losses), weights

    run = descend(OneHotWeights.zeros(5, 6), batch, learning_rate=0.1, steps=5, loss_and_gradient=objective)
    assert (run.stopped.kind, run.stopped.step, run.steps) == ("diverged", 2, 1)
    assert "the loss is nan" in str(run.stopped)


def test_nothing_that_a_callback_does_changes_the_start_or_the_run(batch):
    """Weights of a class that keeps the arrays as they are given: the callback sees read-only ones all the same."""
    start = Tied(np.ones((5, 5)), np.ones((5, 5)))
    whole = descend(start, batch, learning_rate=0.5, steps=3)
    refused = []

    def callback(step, loss, weights, gradient):
        for array in (weights.a, gradient.a, gradient.b):
            try:
                array[0, 0] = 99.0
            except ValueError:
                refused.append(step)
        weights.a.flags.writeable = step == 0  # whoever insists changes a copy
        if step == 0:
            weights.a[0, 0] = 1.0

    run = descend(start, batch, learning_rate=0.5, steps=3, callback=callback)
    assert refused == [step for step in range(4) for _ in range(3)]
    np.testing.assert_array_equal(run.weights.a, whole.weights.a)
    np.testing.assert_array_equal(start.a, np.ones((5, 5)))


def test_the_example_of_descend_runs():
    done = doctest.testmod(descent_module)
    assert done.attempted >= 8
    assert done.failed == 0
