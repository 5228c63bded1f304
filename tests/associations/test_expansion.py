"""The expansion in the learning rate against training itself and against the leading terms."""

from functools import cache
from math import comb

import numpy as np
import pytest

from minitx import Batch, OneHotWeights, associations, builtin_corpus, descend
from minitx.associations.expansion import expand
from minitx.base.numbers import relative_error

ORDER, LENGTH, VOCABULARY = 6, 9, 30


@cache
def corpus():
    return builtin_corpus("stories", n_vocab=VOCABULARY, length=LENGTH, n_windows=24, n_documents=100).batch()


@cache
def expansion():
    return expand(corpus(), VOCABULARY, order=ORDER)


def trained(steps, learning_rate, batch=None):
    return descend(OneHotWeights.zeros(VOCABULARY, LENGTH), corpus() if batch is None else batch,
                   learning_rate=learning_rate, steps=steps)


@pytest.mark.parametrize("steps", [3, 4, 7, 50, 1000])
def test_first_coefficients_are_the_leading_terms(steps):
    known = associations.statistics(corpus(), VOCABULARY)
    attention = 3 * comb(steps, 4) + 2 * comb(steps, 3)
    pairs = [(1, "W_O", steps * known.bigram), (2, "V", comb(steps, 2) * known.value),
             (4, "W", attention * known.attention), (4, "P", attention * known.position)]
    for m, name, expected in pairs:
        assert relative_error(getattr(expansion().coefficient(m, steps=steps), name), expected) < 1e-12
        for lower in range(1, m):
            assert not getattr(expansion().coefficient(lower, steps=steps), name).any()


def test_second_order_of_the_output_is_the_closed_form():
    known = associations.statistics(corpus(), VOCABULARY)
    found = expansion().weights(steps=9, learning_rate=0.1, order=2).W_O
    assert relative_error(found, associations.second_order_output(known, steps=9, learning_rate=0.1)) < 1e-12


@pytest.mark.parametrize("order", range(1, ORDER + 1))
def test_partial_sums_approach_training_at_the_rate_of_the_first_omitted_order(order):
    """Halving eta divides |trained - partial sum| by 2^(order + 1), or by more where the next order is 0."""
    steps, errors = 8, []
    for learning_rate in (0.08, 0.04):
        found = expansion().weights(steps=steps, learning_rate=learning_rate, order=order)
        run = trained(steps, learning_rate)
        errors.append([np.abs(array - getattr(found, name)).max() for name, array in run.weights.parameters().items()])
    for name, before, after in zip(("W_O", "V", "W", "P"), *errors, strict=True):
        if after > 1e-17:  # else it is rounding
            assert before / after > 2 ** (order + 1) * 0.9, name


def test_beyond_the_steps_that_were_computed():
    """The partial sum of all orders, at far more steps than ORDER, is training up to the first omitted order."""
    run, found = trained(40, 0.1), expansion().weights(steps=40, learning_rate=0.1)
    limits = {"W_O": 1e-5, "V": 1e-3, "W": 1e-2, "P": 3e-2}
    for name, limit in limits.items():
        assert relative_error(getattr(found, name), getattr(run.weights, name)) < limit


def test_weights_of_the_batch_and_lengths_are_respected():
    """Some positions count more, others not at all, and sequences end early."""
    rng = np.random.default_rng(3)
    tokens, targets = rng.integers(0, 7, (2, 5, 6))
    lengths = np.array([6, 4, 5, 1, 6])
    weight = rng.random((5, 6)) * (np.arange(6) < lengths[:, None])
    weight[4] = 0
    batch = Batch(tokens, targets, weight / weight.sum(), lengths)
    run = descend(OneHotWeights.zeros(7, 6), batch, learning_rate=0.01, steps=6)
    found = expand(batch, 7, order=6).weights(steps=6, learning_rate=0.01)
    for name, array in run.weights.parameters().items():
        assert relative_error(getattr(found, name), array) < 1e-5


def test_a_token_alone_and_one_position():
    """T = 1: attention cannot move; the series is then that of W_O and V alone."""
    batch = Batch(np.zeros((2, 1), int), np.ones((2, 1), int))
    found = expand(batch, 2, order=5)
    assert not found.weights(steps=9, learning_rate=0.5).W.any()
    run = descend(OneHotWeights.zeros(2, 1), batch, learning_rate=0.01, steps=5)
    assert relative_error(found.weights(steps=5, learning_rate=0.01).W_O, run.weights.W_O) < 1e-8


def test_flow_sizes_and_radius():
    """The radius is where the last order is the share of the first; W has one order only when M is 4."""
    whole, hundredth = expansion().radius(1.0), expansion().radius()
    assert all(0 < hundredth[name] < whole[name] for name in whole)
    flow = expansion().flow_sizes()
    assert flow["W_O"][0] == pytest.approx(np.linalg.norm(associations.statistics(corpus(), VOCABULARY).bigram))
    assert flow["W"][3] > 0 == flow["W"][:3].max()
    assert flow["V"][-1] * whole["V"] ** ORDER == pytest.approx(flow["V"][1] * whole["V"] ** 2)
    assert expansion().radius().undefined == {}


def test_the_radius_says_why_it_is_undefined():
    found = expand(corpus(), VOCABULARY, order=4).radius()
    assert np.isnan(found["W"]) and np.isfinite(found["V"])
    assert found.undefined.keys() == {"W", "P"}
    assert found.undefined["W"] == ("W begins at order 4, and the expansion ends at order 4; two orders are compared: "
                                    "expand to order 5 or more")
    assert repr(found).splitlines()[2] == "W    undefined: " + found.undefined["W"]
    alone = expand(Batch([[0], [1]], [[1], [0]]), 2, order=6).radius()  # one position attends to itself alone
    assert alone.undefined["W"] == "W is 0 at all orders up to 6: this batch does not train it"


def test_the_same_bits_for_any_number_of_threads():
    from minitx import set_threads

    set_threads(1)
    one = expand(corpus(), VOCABULARY, order=4).weights(steps=5, learning_rate=1.0)
    set_threads(3)
    three = expand(corpus(), VOCABULARY, order=4).weights(steps=5, learning_rate=1.0)
    for name, array in one.parameters().items():
        assert np.array_equal(array, getattr(three, name))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="order is 0"):
        expand(corpus(), VOCABULARY, order=0)
    with pytest.raises(TypeError, match="Batch"):
        expand(corpus().tokens, VOCABULARY, order=2)
    with pytest.raises(ValueError, match="vocabulary"):
        expand(corpus(), 5, order=2)
    with pytest.raises(ValueError, match="order is 7, but the expansion has orders 1 to 6"):
        expansion().weights(steps=3, learning_rate=0.1, order=7)
    with pytest.raises(ValueError, match="order is 7, but the expansion has orders 1 to 6"):
        expansion().coefficient(7, steps=3)
    with pytest.raises(ValueError, match="learning_rate"):
        expansion().weights(steps=3, learning_rate=0)
