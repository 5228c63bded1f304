"""Statistics, leading terms and bounds of the associations theory (Im et al. 2026)."""

import doctest

import numpy as np
import pytest
from hypothesis import given

from minitx import Batch, OneHotWeights, associations, descend
from minitx.base import parallel
from minitx.base.numbers import norm, relative_error
from minitx.testing import batches

import naive

NEXT_TOKEN = {"causal": True, "head": "cross_entropy", "masses": False}


@given(batches(**NEXT_TOKEN, uniform=True))
def test_statistics_equal_the_loops(problem):
    batch, n_vocab = problem
    found = associations.statistics(batch, n_vocab)
    for name, expected in naive.statistics(batch.tokens, batch.targets, n_vocab).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.value, found.context.T @ found.bigram.T, rtol=0, atol=1e-15)


@given(batches(**NEXT_TOKEN))
def test_statistics_are_the_gradient_at_the_reference_point_for_any_weights_and_lengths(problem):
    batch, n_vocab = problem
    found = associations.statistics(batch, n_vocab)
    ov = found.context.T @ found.interchangeability
    point = naive.reference_gradient(batch.tokens, batch.targets, batch.weight, n_vocab, ov, lengths=batch.lengths)
    scale = max(1.0, batch.weight.sum()) ** 4
    for name, expected in (("bigram", point["direct"]), ("context", point["ov"].T), ("attention", point["qk"]),
                           ("position", point["position"])):
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-14 * scale)


@given(batches(**NEXT_TOKEN))
def test_identities(problem):
    batch, n_vocab = problem
    found = associations.statistics(batch, n_vocab)
    scale = max(1.0, batch.weight.sum()) ** 4
    np.testing.assert_allclose(found.bigram.sum(axis=1), 0, atol=1e-14 * scale)
    np.testing.assert_allclose(found.context.sum(axis=0), 0, atol=1e-14 * scale)
    np.testing.assert_allclose(found.attention.sum(axis=1), 0, atol=1e-14 * scale)  # a softmax's gradient sums to 0
    assert found.position.sum() == pytest.approx(0, abs=1e-14 * scale)
    np.testing.assert_allclose(found.interchangeability, found.interchangeability.T, atol=1e-15 * scale)
    np.testing.assert_allclose(found.interchangeability, found.bigram.T @ found.bigram, atol=1e-15 * scale)
    assert np.linalg.eigvalsh(found.interchangeability).min() > -1e-14 * scale
    assert found.share.sum() == pytest.approx(batch.weight.sum(), rel=1e-13)
    assert found.frequency.sum() == pytest.approx(batch.weight.sum(), rel=1e-14)


@given(batches(**NEXT_TOKEN, uniform=True))
def test_zero_weights_wake_one_after_another(problem):
    """Step 1 moves W_O only, step 2 moves V too; W and P are exactly zero before step 3."""
    batch, n_vocab = problem
    start = OneHotWeights.zeros(n_vocab, batch.tokens.shape[1])
    run = descend(start, batch, learning_rate=0.3, steps=2, keep=(1, 2))
    for name in ("V", "W", "P"):
        assert not getattr(run.kept[1], name).any()
    for name in ("W", "P"):
        assert not getattr(run.kept[2], name).any()
    found = associations.statistics(batch, n_vocab)
    np.testing.assert_allclose(run.kept[1].W_O, 0.3 * found.bigram, rtol=0, atol=1e-15)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(3)
    n_vocab = 8
    tokens = np.empty((40, 11), int)
    tokens[:, 0] = rng.integers(0, n_vocab, 40)
    for t in range(10):  # a token is often followed by its successor, and echoes the first one
        tokens[:, t + 1] = np.where(rng.random(40) < 0.5, (tokens[:, t] + 1) % n_vocab,
                                    np.where(rng.random(40) < 0.5, tokens[:, 0], rng.integers(0, n_vocab, 40)))
    return Batch(tokens[:, :-1], tokens[:, 1:]), n_vocab


def _trained(corpus, learning_rate, steps):
    batch, n_vocab = corpus
    return descend(OneHotWeights.zeros(n_vocab, batch.tokens.shape[1]), batch, learning_rate=learning_rate,
                   steps=steps).weights


@pytest.mark.parametrize("steps", [3, 4, 7])
def test_halving_eta_halves_the_relative_error_of_every_leading_term(corpus, steps):
    found = associations.statistics(*corpus)
    errors = {}
    for eta in (1e-3, 5e-4):
        leading = associations.leading_weights(found, steps=steps, learning_rate=eta)
        trained = _trained(corpus, eta, steps)
        errors[eta] = {name: relative_error(array, getattr(leading, name))
                       for name, array in trained.parameters().items()}
    for name, error in errors[1e-3].items():
        assert error < 0.05
        assert error / errors[5e-4][name] == pytest.approx(2, rel=0.02), name


def test_second_order_output_leaves_an_error_that_falls_fourfold(corpus):
    found = associations.statistics(*corpus)
    errors = [relative_error(_trained(corpus, eta, 5).W_O,
                             associations.second_order_output(found, steps=5, learning_rate=eta))
              for eta in (1e-2, 5e-3)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_the_bounds_hold_and_say_when_they_are_not_proved():
    inside = associations.bounds(steps=4, learning_rate=1e-3, length=64, n_vocab=500)
    assert not inside.outside
    time = 4e-3
    assert (inside.W_O, inside.V, inside.W) == pytest.approx((3 * time**2, 4 * time**3, 6 * time**5 * 64), rel=1e-12)
    outside = associations.bounds(steps=1000, learning_rate=1.0, length=2, n_vocab=10, init_scale=0.1, full_batch=False)
    assert len(outside.outside) == 6
    deep = associations.bounds(steps=2, learning_rate=1e-3, length=64, n_vocab=500, n_layers=2)
    assert not deep.outside
    assert (deep.W_O, deep.V, deep.P) == pytest.approx((3 * 0.002**2, 12 * 0.002**3, 13 * 0.002**5 * 64), rel=1e-12)
    assert associations.bounds(steps=2, learning_rate=1e-3, length=64, n_vocab=500, n_layers=3).outside == (
        "L = 3 is above sqrt(T)/4 = 2",)


def test_the_bounds_hold_where_they_are_proved():
    """In full-batch training from zero (V = 500, T = 3, s eta in the theorem's range) errors are below the bounds."""
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 500, (30, 3)), rng.integers(0, 500, (30, 3)))
    found = associations.statistics(batch, 500)
    run = descend(OneHotWeights.zeros(500, 3), batch, learning_rate=0.04, steps=6, keep=range(1, 7))
    for step, weights in run.kept.items():
        bounds = associations.bounds(steps=step, learning_rate=0.04, length=3, n_vocab=500)
        assert not bounds.outside
        leading = associations.leading_weights(found, steps=step, learning_rate=0.04)
        for name, array in weights.parameters().items():
            assert norm(array - getattr(leading, name)) <= getattr(bounds, name)
            assert step < 3 or norm(array - getattr(leading, name)) > 0


@pytest.mark.parametrize("settings", [{"length": 0}, {"length": -4}, {"n_layers": 0}, {"n_vocab": 0},
                                      {"steps": 10**90}])
def test_bounds_refuse(settings):
    with pytest.raises(ValueError, match="it must be a whole number|it must be at most"):
        associations.bounds(**{"steps": 3, "learning_rate": 0.1, "length": 8, "n_vocab": 500, **settings})


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_statistics_have_the_same_bits_for_any_number_of_threads(corpus, threads):
    expected = associations.statistics(*corpus)
    parallel.set_threads(threads)
    found = associations.statistics(*corpus)
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), array)


def test_refusals(corpus):
    batch, n_vocab = corpus
    with pytest.raises(ValueError, match="tokens hold id 7 but the vocabulary has 3"):
        associations.statistics(batch, 3)
    with pytest.raises(ValueError, match="causal=False"):
        associations.statistics(Batch([[0, 1]], [[0, 1]], causal=False), 2)
    found = associations.statistics(batch, n_vocab)
    for settings in ({"steps": -1, "learning_rate": 0.1}, {"steps": 1.5, "learning_rate": 0.1},
                     {"steps": 1, "learning_rate": 0.0}):
        with pytest.raises(ValueError, match="it must be"):
            associations.leading_weights(found, **settings)


def test_the_example_of_the_account_is_what_it_prints():
    done = doctest.testmod(associations)
    assert done.attempted == 16
    assert done.failed == 0
