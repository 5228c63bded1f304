"""The theory of several layers is tested: next orders, reference dynamics, bounds and terms of the gradient."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx import Batch, LayeredWeights, OneHotWeights, cosine, descend, gradient_terms, relative_error, set_threads
from minitx import loss_and_gradient as minitx_gradient
from minitx.associations import bounds, leading_weights, statistics
from minitx.associations.next_order import next_order
from minitx.associations.reference_dynamics import OneLayer, closed_form, contexts, loss_and_gradient, reference
from minitx.base.numbers import norm
from minitx.model.testing import batches

import naive_layers

NEXT_TOKEN = {"causal": True, "head": "cross_entropy", "masses": False}
N_VOCAB, STEPS = 12, 6


@pytest.fixture(scope="module")
def corpus():
    """Tokens of a random law with structure: every token prefers two successors."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((30, 11), int)
    for row in tokens:
        row[0] = rng.integers(N_VOCAB)
        for t in range(10):
            row[t + 1] = (row[t] * 5 + rng.integers(2)) % N_VOCAB if rng.random() < 0.7 else rng.integers(N_VOCAB)
    return Batch(tokens[:, :-1], tokens[:, 1:])


def _trained(batch, learning_rate, n_layers, steps=STEPS):
    start = LayeredWeights.zeros(N_VOCAB, batch.tokens.shape[1], n_layers)
    return descend(start, batch, learning_rate=learning_rate, steps=steps).weights


def _slope(error, eta=0.02):
    """Exponent of ``error(eta)``, from halving eta."""
    return np.log2(error(eta) / error(eta / 2))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_next_orders_leave_errors_of_order_four(corpus, n_layers):
    def error(name):
        def of(eta):
            theory = next_order(corpus, N_VOCAB, steps=STEPS, learning_rate=eta, n_layers=n_layers).weights
            return norm(getattr(_trained(corpus, eta, n_layers), name) - getattr(theory, name))
        return of

    assert _slope(error("W_O")) == pytest.approx(4, abs=0.15)
    assert _slope(error("V")) == pytest.approx(4, abs=0.15)
    for name in ("W", "P"):
        assert _slope(error(name), 0.04) == pytest.approx(5, abs=0.2)


def test_layers_part_at_order_four_and_by_the_closed_form(corpus):
    def error(eta):
        weights = _trained(corpus, eta, 3)
        parting = next_order(corpus, N_VOCAB, steps=STEPS, learning_rate=eta, n_layers=3).parting
        return max(norm(weights.V[l] - weights.V[m] - (m - l) * parting) for l, m in ((0, 1), (1, 2), (0, 2)))

    def difference(name):
        return lambda eta: norm(np.subtract(*getattr(_trained(corpus, eta, 2), name)))

    assert _slope(difference("V"), 0.1) == pytest.approx(4, abs=0.2)
    assert _slope(error, 0.1) == pytest.approx(5, abs=0.3)
    assert _slope(difference("W"), 0.2) == pytest.approx(6, abs=0.3)
    assert _slope(difference("P"), 0.2) == pytest.approx(6, abs=0.3)


def test_leading_terms_are_the_same_for_every_layer(corpus):
    leading = leading_weights(statistics(corpus, N_VOCAB), steps=STEPS, learning_rate=1e-3)
    weights = _trained(corpus, 1e-3, 3)
    for l in (1, 2, 3):
        for name, array in weights.layer(l).parameters().items():
            assert relative_error(array, getattr(leading, name)) < 0.02, (name, l)


def test_weights_wake_one_after_another(corpus):
    one, two, three = (_trained(corpus, 0.5, 3, steps) for steps in (1, 2, 3))
    assert one.W_O.any() and not one.V.any()
    np.testing.assert_allclose(two.V[0], two.V[2], rtol=0, atol=1e-15 * np.abs(two.V).max())
    assert two.V.any() and not two.W.any() and not two.P.any()
    assert three.W.any() and three.P.any() and not np.array_equal(three.W[0], three.W[1])


@given(batches(**NEXT_TOKEN), st.integers(1, 4), st.sampled_from((0.0, 0.1, 1.0)), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_reference_gradient_equals_the_dense_form(problem, n_layers, scale, seed):
    batch, n_vocab = problem
    weights = LayeredWeights.gaussian(n_vocab, batch.tokens.shape[1] + 1, n_layers, scale=scale, rng=seed)
    _, gradient = loss_and_gradient(weights, reference(batch, n_vocab, n_layers))
    expected = naive_layers.reference_gradient(**weights.parameters(), tokens=batch.tokens, targets=batch.targets,
                                               weight=batch.weight)
    largest = max(np.abs(array).max() for array in expected.values())
    for name, array in expected.items():
        np.testing.assert_allclose(getattr(gradient, name), array, rtol=0, atol=1e-13 * largest + 1e-17, err_msg=name)


@given(batches(**NEXT_TOKEN))
def test_contexts_begin_with_the_basis_functions(problem):
    batch, n_vocab = problem
    found = statistics(batch, n_vocab)
    Phi = contexts(batch, n_vocab, 2)
    np.testing.assert_allclose(Phi[0], found.bigram.T, rtol=0, atol=1e-14 * np.abs(batch.weight).sum())
    np.testing.assert_allclose(Phi[1], found.context, rtol=0, atol=1e-14 * np.abs(batch.weight).sum())
    np.testing.assert_allclose(Phi.sum(axis=1), 0, atol=1e-13 * np.abs(batch.weight).sum())


def _reference_weights(batch, eta, n_layers, steps):
    start = LayeredWeights.zeros(N_VOCAB, batch.tokens.shape[1], n_layers)
    return descend(start, reference(batch, N_VOCAB, n_layers), learning_rate=eta, steps=steps,
                   loss_and_gradient=loss_and_gradient)


@pytest.mark.parametrize("eta", [1e-6, 0.3, 3.0])
def test_the_closed_form_is_reference_dynamics_of_one_layer(corpus, eta):
    weights = _reference_weights(corpus, eta, 1, 15).weights
    W_O, V = closed_form(statistics(corpus, N_VOCAB), steps=15, learning_rate=eta)
    assert relative_error(W_O, weights.W_O) < 1e-13 and relative_error(V, weights.V[0]) < 1e-13
    whole = OneLayer(corpus, statistics(corpus, N_VOCAB), learning_rate=eta).weights(15)
    for name, array in weights.layer(1).parameters().items():
        assert relative_error(getattr(whole, name), array) < 1e-12, name


def test_the_closed_form_that_overflows_is_not_finite(corpus):
    assert OneLayer(corpus, statistics(corpus, N_VOCAB), learning_rate=1e30).weights(40).not_finite()


def test_depth_acts_as_the_root_of_the_number_of_layers(corpus):
    """With paths through at most one layer, L layers of Phi are one layer of sqrt(L) Phi: measured by its formula."""
    found, s, eta, n_layers = statistics(corpus, N_VOCAB), 9, 0.7, 3
    W_O, V = np.zeros((N_VOCAB, N_VOCAB)), np.zeros((N_VOCAB, N_VOCAB))
    for _ in range(s):
        W_O, V = (W_O + eta * (found.bigram + n_layers * V.T @ found.context.T),
                  V + eta * found.context.T @ W_O.T)
    theory = closed_form(found, steps=s, learning_rate=eta, n_layers=n_layers)
    assert relative_error(theory[0], W_O) < 1e-13 and relative_error(theory[1], V) < 1e-13


@pytest.mark.parametrize("n_layers", [2, 3])
def test_reference_dynamics_is_closer_than_the_leading_terms(n_layers):
    """Contexts are strong and the vocabulary is not small here: each sequence holds 8 of 80 tokens."""
    rng, eta, steps, n_vocab = np.random.default_rng(0), 2.0, 10, 80
    tokens = 8 * rng.integers(0, 10, (60, 1)) + rng.integers(0, 8, (60, 11))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    start = LayeredWeights.zeros(n_vocab, 10, n_layers)
    weights = descend(start, batch, learning_rate=eta, steps=steps).weights
    theory = descend(start, reference(batch, n_vocab, n_layers), learning_rate=eta, steps=steps,
                     loss_and_gradient=loss_and_gradient).weights
    leading = leading_weights(statistics(batch, n_vocab), steps=steps, learning_rate=eta)
    for name in ("V", "W"):
        for l in range(n_layers):
            array, simple = getattr(weights, name)[l], getattr(leading, name)
            assert relative_error(array, getattr(theory, name)[l]) < 0.3 * relative_error(array, simple), (name, l)


def test_same_bits_for_any_number_of_threads(corpus):
    weights, results = LayeredWeights.gaussian(N_VOCAB, 10, 3, scale=0.2, rng=0), []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(loss_and_gradient(weights, reference(corpus, N_VOCAB, 3)))
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        for name, array in gradient.parameters().items():
            np.testing.assert_array_equal(array, getattr(results[0][1], name))


def test_refusals(corpus):
    with pytest.raises(ValueError, match="the reference has 2 layers"):
        loss_and_gradient(LayeredWeights.zeros(N_VOCAB, 10, 3), reference(corpus, N_VOCAB, 2))
    with pytest.raises(ValueError, match="n_layers is 0"):
        next_order(corpus, N_VOCAB, steps=2, learning_rate=0.1, n_layers=0)
    with pytest.raises(ValueError, match="steps is -1"):
        closed_form(statistics(corpus, N_VOCAB), steps=-1, learning_rate=0.1)


# -------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(("run", "source", "expected"), [
    ({"steps": 2, "learning_rate": 0.9}, "Lemma D.5", (0.9**2 / 600**0.5, 2 * 0.9**3 / 600**0.5, 0, 0)),
    ({"steps": 3, "learning_rate": 0.1}, "Lemma D.6", (3e-2, 2e-3, 2e-5 * 64, 2e-5 * 64)),
    ({"steps": 4, "learning_rate": 0.01}, "Theorem D.7", (3 * 0.04**2, 4 * 0.04**3, 6 * 0.04**5 * 64, None)),
    ({"steps": 3, "learning_rate": 0.005, "n_layers": 2}, "Theorem D.10",
     (3 * 0.015**2, 12 * 0.015**3, 13 * 0.015**5 * 64, None)),
    ({"steps": 1, "learning_rate": 0.02, "n_layers": 2, "init_scale": 1e-11}, "Theorem D.13",
     (3 * 0.02**2, 12 * 0.02**3, 13 * 0.02**5 * 64, None)),
])
def test_bounds_are_the_sharpest_that_hold(run, source, expected):
    found = bounds(**run, length=64, n_vocab=600)
    assert found.source == source and found.outside == ()
    for name, bound in zip(("W_O", "V", "W", "P"), expected, strict=True):
        assert bound is None or getattr(found, name) == pytest.approx(bound, rel=1e-12)
    assert found.probability == 1.0


def test_a_start_that_is_too_large_is_outside_theorem_d_13():
    found = bounds(steps=1, learning_rate=0.02, length=64, n_vocab=600, init_scale=1e-3)
    assert found.source == "Theorem D.13" and "above eta^2 / (T^2 V)" in found.outside[0]
    assert "eta = 0.01 is below 1/T" in bounds(steps=1, learning_rate=0.01, length=64, n_vocab=600,
                                               init_scale=1e-12).outside[0]
    assert bounds(steps=2, learning_rate=1.5, length=64, n_vocab=600).source == "Theorem D.7"


@pytest.mark.parametrize(("n_layers", "eta", "steps"), [(1, 0.5, 2), (1, 0.1, 3), (2, 0.01, 4)])
def test_trained_layers_are_within_the_bounds(n_layers, eta, steps):
    rng, n_vocab, length = np.random.default_rng(1), 500, 64
    tokens = rng.integers(0, 60, (8, length + 1))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    start = LayeredWeights.zeros(n_vocab, length, n_layers)
    weights = descend(start, batch, learning_rate=eta, steps=steps).weights
    leading = leading_weights(statistics(batch, n_vocab), steps=steps, learning_rate=eta)
    found = bounds(steps=steps, learning_rate=eta, length=length, n_vocab=n_vocab, n_layers=n_layers)
    assert found.outside == ()
    for l in range(1, n_layers + 1):
        for name, array in weights.layer(l).parameters().items():
            expected = 0 if steps == 2 and name in "WP" else getattr(leading, name)
            assert norm(array - expected) <= getattr(found, name), (name, l)


# ------------------------------------------------------------------------------------------------ terms of the gradient


def _assert_sum(terms, gradient):
    largest = max(np.abs(array).max() for array in gradient.parameters().values())
    for name, array in gradient.matrices().items():
        scale = max(largest, *(np.abs(term).max() for term in terms[name].values()))
        np.testing.assert_allclose(sum(terms[name].values()), array, rtol=0, atol=1e-13 * scale + 1e-17, err_msg=name)


@given(batches(**NEXT_TOKEN), st.integers(1, 3), st.sampled_from((0.0, 1e-2, 1.0)), st.integers(0, 2**32 - 1),
       st.booleans())
@settings(max_examples=40)
def test_terms_of_layers_sum_to_the_gradient(problem, n_layers, scale, seed, given_leading):
    batch, n_vocab = problem
    weights = LayeredWeights.gaussian(n_vocab, batch.tokens.shape[1], n_layers, scale=scale, rng=seed)
    leading = leading_weights(statistics(batch, n_vocab), steps=5, learning_rate=0.3) if given_leading else None
    terms = gradient_terms(weights, batch, leading=leading)
    _assert_sum(terms, minitx_gradient(weights, batch)[1])


@given(batches(**NEXT_TOKEN), st.sampled_from((0.0, 1e-2, 1.0)), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_terms_of_one_layer_are_those_of_one_layer(problem, scale, seed):
    batch, n_vocab = problem
    one = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    expected, found = gradient_terms(one, batch), gradient_terms(LayeredWeights.of_layers([one]), batch)
    largest = max(np.abs(term).max() for terms in expected.values() for term in terms.values())
    for name, terms in expected.items():
        name = name if name == "W_O" else f"{name} 1"
        assert set(found[name]) == set(terms)
        scale = max(1e-2 * largest, *(np.abs(term).max() for term in terms.values()))
        for term, array in terms.items():
            np.testing.assert_allclose(found[name][term].reshape(array.shape), array, rtol=0,
                                       atol=1e-13 * scale + 1e-17, err_msg=f"{name} {term}")


def test_leading_and_weight_drift_are_reference_dynamics(corpus):
    weights = _trained(corpus, 0.5, 3, 10)
    terms, (_, expected) = gradient_terms(weights, corpus), loss_and_gradient(weights, reference(corpus, N_VOCAB, 3))
    for name, array in expected.matrices().items():
        assert relative_error(terms[name]["leading"] + terms[name]["weight drift"], array) < 1e-13, name
    found = statistics(corpus, N_VOCAB)
    assert relative_error(-terms["W_O"]["leading"], found.bigram) < 1e-13
    for l in (1, 2, 3):
        assert cosine(-terms[f"V {l}"]["leading"], found.value) > 1 - 1e-13
        assert cosine(-terms[f"W {l}"]["leading"], found.attention) > 1 - 1e-13
