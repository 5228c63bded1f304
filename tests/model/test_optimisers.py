"""Optimisers: their papers' equations, numbers of another implementation, and runs that go on."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import recorded
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx import Adam, AdamW, Batch, GradientDescent, Momentum, OneHotWeights, descend
from minitx.model.parameters import Parameters

REFERENCE = recorded("optimisers_reference.json")
RULES = (GradientDescent(decay=0.1), Momentum(beta=0.7), Momentum(decay=0.2), Adam(), Adam(decay=0.1), AdamW())


@dataclass(frozen=True, eq=False)
class Theta(Parameters):
    """One vector; the objectives here need no circuits."""

    theta: np.ndarray


def objective(weights, problem):
    """theta^T H theta / 2 - b^T theta + 0.3 sum cos(theta), and its gradient."""
    theta, H, b = weights.theta, np.array(problem["H"]), np.array(problem["b"])
    loss = theta @ H @ theta / 2 - b @ theta + 0.3 * np.cos(theta).sum()
    return float(loss), Theta(H @ theta - b - 0.3 * np.sin(theta))


def of_scalars(rule, theta, slopes, rates):
    """theta after each step, by loops over the entries: the equations of the papers, with numbers only."""
    name, path = type(rule).__name__, []
    memory = [{"m": 0.0, "v": 0.0} for _ in theta]
    for t, (g_of_step, eta) in enumerate(zip(slopes, rates, strict=True), start=1):
        theta = list(theta)
        for i, g in enumerate(g_of_step):
            kept = memory[i]
            if name != "AdamW":
                g = g + rule.decay * theta[i]
            if name == "GradientDescent":
                theta[i] -= eta * g
            elif name == "Momentum":
                kept["m"] = rule.beta * kept["m"] + g
                theta[i] -= eta * kept["m"]
            else:
                kept["m"] = rule.beta_1 * kept["m"] + (1 - rule.beta_1) * g
                kept["v"] = rule.beta_2 * kept["v"] + (1 - rule.beta_2) * g * g
                m, v = kept["m"] / (1 - rule.beta_1**t), kept["v"] / (1 - rule.beta_2**t)
                decay = rule.decay * theta[i] if name == "AdamW" else 0.0
                theta[i] -= eta * (m / (v**0.5 + rule.epsilon) + decay)
        path.append(theta)
    return np.array(path)


def assert_same(one, two):
    for name, array in one.parameters().items():
        np.testing.assert_array_equal(array, getattr(two, name))


@pytest.mark.parametrize("run", REFERENCE["runs"], ids=lambda run: f"{run['rule']} {run['settings']}")
def test_steps_are_those_of_another_implementation(run):
    rule = getattr(minitx, run["rule"])(**run["settings"])
    found = descend(Theta(np.array(REFERENCE["start"])), REFERENCE, learning_rate=REFERENCE["learning_rate"], steps=12,
                    keep=range(1, 13), optimiser=rule, loss_and_gradient=objective)
    np.testing.assert_allclose([found.kept[step].theta for step in range(1, 13)], run["theta"], rtol=1e-12, atol=1e-13)


@given(rule=st.sampled_from(RULES), n_steps=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_steps_are_the_equations_of_the_papers(rule, n_steps, seed):
    rng = np.random.default_rng(seed)
    start, rates = rng.standard_normal(3), rng.uniform(0.01, 0.5, n_steps)
    slopes = rng.standard_normal((n_steps, 3)) * 10.0 ** rng.integers(-6, 4, (n_steps, 3))
    given_slopes = iter([*slopes, np.zeros(3)])
    run = descend(Theta(start), "no data", learning_rate=rates, steps=n_steps, keep=range(1, n_steps + 1),
                  optimiser=rule, loss_and_gradient=lambda weights, batch: (0.0, Theta(next(given_slopes))))
    expected = of_scalars(rule, start, slopes, rates)
    np.testing.assert_allclose([run.kept[step].theta for step in range(1, n_steps + 1)], expected, rtol=1e-13,
                               atol=1e-13 * np.abs(expected).max())


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return Batch(rng.integers(0, 5, (12, 6)), rng.integers(0, 5, (12, 6)))


@pytest.mark.parametrize("rule", [None, *RULES], ids=repr)
def test_a_run_goes_on_bit_for_bit_and_its_memory_stays(rule, batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    settings = {"learning_rate": 0.1, "batch_size": 5, "frozen": ("P",)}
    whole = descend(start, batch, steps=7, rng=3, optimiser=rule, **settings)
    first = descend(start, batch, steps=4, rng=3, optimiser=rule, **settings)
    going_on = dict(steps=3, rng=first.rng, start_step=first.next_step, optimiser=first.optimiser, **settings)
    for _ in range(2):  # the second time from the same memory, which the first has not changed
        assert_same(descend(first.weights, batch, **going_on).weights, whole.weights)
    assert (first.optimiser.steps, whole.optimiser.steps) == (4, 7)


def test_gradient_descent_is_the_default_bit_for_bit(batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    one, two = (descend(start, batch, learning_rate=0.7, steps=5, **settings)
                for settings in ({}, {"optimiser": GradientDescent()}))
    assert_same(one.weights, two.weights)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_float32_stays_float32_and_no_bit_depends_on_threads(rule, batch):
    start, runs = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0, dtype=np.float32), []
    for threads in (1, 2):
        minitx.set_threads(threads)
        runs.append(descend(start, batch, learning_rate=0.1, steps=4, optimiser=rule).weights)
    assert {array.dtype for array in runs[0].parameters().values()} == {np.dtype(np.float32)}
    assert_same(*runs)


def test_adam_leaves_weights_without_gradient_where_they_are(batch):
    """With epsilon = 0 the quotient is 0 / 0, which moves nothing."""
    start = OneHotWeights.zeros(5, 6)
    run = descend(start, batch, learning_rate=0.1, steps=1, optimiser=Adam(epsilon=0.0))
    assert run.stopped is None
    assert not run.weights.W.any()
    assert run.weights.W_O.any()


def test_what_cannot_be_is_refused(batch):
    start = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
    for make, says in ((lambda: Adam(beta_1=1.0), "beta_1 is 1; it must be below 1"),
                       (lambda: Momentum(beta=-1), "beta"), (lambda: AdamW(decay=float("nan")), "decay"),
                       (lambda: Adam(epsilon="small"), "epsilon")):
        with pytest.raises((ValueError, TypeError), match=says):
            make()
    with pytest.raises(TypeError, match="optimiser"):
        descend(start, batch, learning_rate=1.0, steps=1, optimiser="adam")
    with pytest.raises(ValueError, match="normalised is for gradient descent"):
        descend(start, batch, learning_rate=1.0, steps=1, optimiser=Adam(), normalised=True)
    run = descend(start, batch, learning_rate=0.1, steps=2, optimiser=Adam())
    with pytest.raises(ValueError, match="remembers a run that trained W_O, V, W, P, and this one trains W_O, V, W;"):
        descend(run.weights, batch, learning_rate=0.1, steps=2, optimiser=run.optimiser, frozen=("P",))
    wrong = replace(run.optimiser, memory={name: (np.zeros(2), np.zeros(2)) for name in run.optimiser.memory})
    with pytest.raises(ValueError, match="another shape"):
        descend(run.weights, batch, learning_rate=0.1, steps=2, optimiser=wrong)
