"""The exact split of the gradient: its terms sum to it, equal slow loops, and lead with that of the reference point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import (
    Adam,
    Batch,
    Circuits,
    EmbeddedWeights,
    OneHotWeights,
    associations,
    descend,
    gradient_terms,
    loss_and_gradient,
)
from minitx.associations.terms import by_term, exceeds_table, first_exceeds, term_norms
from minitx.testing import batches

import naive

NEXT_TOKEN = {"causal": True, "head": "cross_entropy", "masses": False}


@given(batches(**NEXT_TOKEN), st.sampled_from((0.0, 1e-3, 1.0, 5.0)), st.integers(0, 2**32 - 1), st.booleans())
def test_terms_sum_to_the_gradient(problem, scale, seed, given_leading):
    batch, n_vocab = problem
    length = batch.tokens.shape[1]
    weights = OneHotWeights.gaussian(n_vocab, length, scale=scale, rng=seed)
    leading = OneHotWeights.gaussian(n_vocab, length, scale=scale, rng=seed + 1) if given_leading else None
    _, gradient = loss_and_gradient(weights, batch)
    summed = batch.weight.sum() * max(1e-300, np.abs(weights.circuits().ov).max())  # what cancels where a gradient is 0
    for name, terms in gradient_terms(weights, batch, leading=leading).items():
        exact = getattr(gradient, name)
        largest = max(np.abs(term).max() for term in terms.values())
        assert np.abs(sum(terms.values()) - exact).max() <= 1e-13 * max(np.abs(exact).max(), largest) + 1e-15 * summed


@given(batches(**NEXT_TOKEN, uniform=True), st.sampled_from((0.0, 1e-2, 1.0)), st.integers(0, 2**32 - 1))
def test_every_term_equals_the_loops(problem, scale, seed):
    batch, n_vocab = problem
    length = batch.tokens.shape[1]
    weights, leading = (OneHotWeights.gaussian(n_vocab, length, scale=scale, rng=seed + k) for k in (0, 1))
    found = gradient_terms(weights, batch, leading=leading)
    expected = naive.gradient_terms(weights.W_O, weights.V, weights.W, weights.P, batch.tokens, batch.targets,
                                    leading.W_O, leading.V)
    for name, terms in expected.items():
        assert set(found[name]) == set(terms)
        for term, array in terms.items():
            np.testing.assert_allclose(found[name][term], array, rtol=1e-12, atol=1e-14 * max(1, scale**2))


@given(batches(**NEXT_TOKEN), st.integers(0, 2**32 - 1))
def test_leading_terms_are_the_gradient_at_the_reference_point(problem, seed):
    """An independent loop gives the same at uniform output and attention and leading weights, to 1e-14 absolute."""
    batch, n_vocab = problem
    length = batch.tokens.shape[1]
    weights, leading = (OneHotWeights.gaussian(n_vocab, length, scale=0.5, rng=seed + k) for k in (0, 1))
    point = naive.reference_gradient(batch.tokens, batch.targets, batch.weight, n_vocab, leading.V @ leading.W_O,
                                     lengths=batch.lengths)
    expected = {"W_O": point["direct"], "V": point["ov"] @ leading.W_O.T, "W": point["qk"], "P": point["position"]}
    for name, terms in gradient_terms(weights, batch, leading=leading).items():
        np.testing.assert_allclose(terms["leading"], -expected[name], rtol=0, atol=1e-14 * max(1, batch.weight.sum()))


@given(batches(**NEXT_TOKEN))
def test_at_zero_weights_only_the_leading_term_of_the_output_lives(problem):
    batch, n_vocab = problem
    terms = gradient_terms(OneHotWeights.zeros(n_vocab, batch.tokens.shape[1]), batch)
    for name, split in terms.items():
        for term, array in split.items():
            if (name, term) != ("W_O", "leading"):
                assert not array.any(), (name, term)


def test_default_leading_is_found_without_a_step_count():
    """At W_O = 7 B and V = 3 Phi^T B^T there is no weight drift in V, W and P."""
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 5, (4, 6)), rng.integers(0, 5, (4, 6)))
    found = associations.statistics(batch, 5)
    weights = OneHotWeights(7 * found.bigram, 3 * found.value, np.zeros((5, 5)), np.zeros(6))
    terms = gradient_terms(weights, batch)
    for name in ("V", "W", "P"):
        size = np.abs(terms[name]["leading"]).max()
        assert size > 0
        assert all(np.abs(array).max() < 1e-14 * size for term, array in terms[name].items() if "weight drift" in term)


def test_float32_weights_are_split_in_float64():
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 5, (4, 6)), rng.integers(0, 5, (4, 6)))
    weights = OneHotWeights.gaussian(5, 6, scale=1.0, rng=0, dtype=np.float32)
    _, gradient = loss_and_gradient(weights.astype(np.float64), batch)
    for name, terms in gradient_terms(weights, batch).items():
        np.testing.assert_allclose(sum(terms.values()), getattr(gradient, name), rtol=1e-12, atol=1e-15)


def test_refuses_what_the_theory_is_not_about():
    batch = Batch([[0, 1]], [[1, 0]])
    with pytest.raises(TypeError, match="weights is an EmbeddedWeights; it must be of the type OneHot"):
        gradient_terms(EmbeddedWeights(W_E=np.eye(2)), batch)
    with pytest.raises(TypeError, match="leading is a Circuits; it must be of the type OneHotWeights"):
        gradient_terms(OneHotWeights.zeros(2, 2), batch, leading=OneHotWeights.zeros(2, 2).circuits())
    for leading in (OneHotWeights.zeros(3, 2), OneHotWeights.zeros(2, 2).map(lambda array: array + np.nan)):
        with pytest.raises(ValueError, match="leading must be finite and of the same vocabulary"):
            gradient_terms(OneHotWeights.zeros(2, 2), batch, leading=leading)
    for other in (Batch([[0, 1]], [[1, 0]], causal=False), Batch([[0, 1]], [[1, 0]], head="squared")):
        with pytest.raises(ValueError, match="causal attention and the head 'cross_entropy'"):
            gradient_terms(OneHotWeights.zeros(2, 2), other)


def test_first_exceeds_reads_powers_exactly():
    """A correction that grows as a power of the step crosses where that power says, whichever steps are recorded."""
    steps = np.array([1, 2, 3, 8, 20, 50])
    leading = 2.0 * steps
    norms = {"W_O": {"leading": leading, "weight drift": leading * 1e-3 * steps**1.5, "saturation": leading * 1e-3}}
    found = first_exceeds(steps, norms)
    assert found["W_O"]["weight drift"] == {0.01: pytest.approx(10 ** (2 / 3)), 0.1: pytest.approx(100 ** (2 / 3)),
                                            0.5: None}
    assert found["W_O"]["saturation"] == dict.fromkeys((0.01, 0.1, 0.5))
    assert set(found) == {"W_O"} and set(found["W_O"]) == {"weight drift", "saturation"}


def test_first_exceeds_where_nothing_was_before():
    """From zero there is no power to read: the step of the record; a leading term of zero is exceeded by anything."""
    found = first_exceeds([1, 3, 9], {"W": {"leading": [0, 1, 1], "a": [0, 0.2, 1], "b": [1e-9, 0, 0],
                                            "c": [0, 0, 0.2]}})
    assert found["W"] == {"a": {0.01: 3.0, 0.1: 3.0, 0.5: pytest.approx(3 * 3 ** (np.log(2.5) / np.log(5)))},
                          "b": {0.01: 1.0, 0.1: 1.0, 0.5: 1.0}, "c": {0.01: 9.0, 0.1: 9.0, 0.5: None}}
    assert first_exceeds([], {"W": {"leading": [], "a": []}}) == {"W": {"a": dict.fromkeys((0.01, 0.1, 0.5))}}


def test_first_exceeds_lies_between_the_steps_around_it():
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = np.unique(rng.integers(1, 100, 9))
        leading, correction = np.exp(rng.standard_normal((2, len(steps))))
        for share, step in first_exceeds(steps, {"V": {"leading": leading, "a": correction}})["V"]["a"].items():
            above = np.flatnonzero(correction > share * leading)
            assert (step is None) == (len(above) == 0)
            if step is not None:
                assert steps[max(above[0] - 1, 0)] <= step <= steps[above[0]]


def test_first_exceeds_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="ascend"):
        first_exceeds([3, 2], {"V": {"leading": [1, 1]}})
    with pytest.raises(ValueError, match="V: give one norm of every term for each of the 2 steps"):
        first_exceeds([1, 2], {"V": {"leading": [1, 1], "a": [1]}})


@given(batches(**NEXT_TOKEN), st.sampled_from((0.0, 1e-3, 1.0, 5.0)), st.integers(0, 2**32 - 1), st.booleans(),
       st.sets(st.sampled_from(("direct", "qk", "position", "bias"))))
def test_terms_of_the_tables_sum_to_their_gradient(problem, scale, seed, given_leading, absent):
    """Circuits with any tables absent are split too; the terms of dL/dov hold no weight, because none is in it."""
    batch, n_vocab = problem
    rng, length = np.random.default_rng(seed), batch.tokens.shape[1]
    shapes = {"direct": (n_vocab,) * 2, "ov": (n_vocab,) * 2, "qk": (n_vocab,) * 2, "position": (length + 1,),
              "bias": (n_vocab,)}
    tables, leading = (Circuits(**{name: None if name in absent else scale * rng.standard_normal(shape)
                                   for name, shape in shapes.items()}) for _ in range(2))
    _, gradient = loss_and_gradient(tables, batch)
    found = gradient_terms(tables, batch, leading=leading if given_leading else None)
    assert set(found) == set(shapes) - absent
    assert set(found["ov"]) == {"leading", "saturation", "attention drift", "saturation x attention drift"}
    summed = batch.weight.sum() * max(1e-300, np.abs(tables.ov).max())
    for name, terms in found.items():
        exact, largest = getattr(gradient, name), max(np.abs(term).max() for term in terms.values())
        assert np.abs(sum(terms.values()) - exact).max() <= 1e-13 * max(np.abs(exact).max(), largest) + 1e-15 * summed


def test_terms_of_one_hot_weights_are_those_of_their_tables():
    """dL/dW = dL/dqk and dL/dP = dL/dposition, term by term, where ov is split alike."""
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 5, (4, 6)), rng.integers(0, 5, (4, 6)))
    weights, leading = (OneHotWeights.gaussian(5, 6, scale=0.7, rng=seed) for seed in (0, 1))
    of_weights = gradient_terms(weights, batch, leading=leading)
    of_tables = gradient_terms(weights.circuits(), batch, leading=leading.circuits())
    for weight, part in (("W", "qk"), ("P", "position")):
        for term, array in of_weights[weight].items():
            np.testing.assert_allclose(of_tables[part][term], array, rtol=1e-13, atol=1e-17)


def test_terms_show_themselves_as_the_table_of_their_norms():
    batch = Batch([[0, 1, 2]], [[1, 2, 0]])
    lines = repr(gradient_terms(OneHotWeights.zeros(3, 3), batch)).splitlines()
    assert lines[0].split() == ["term", "W_O", "V", "W", "P"]
    assert lines[1].split() == ["leading", f"{np.sqrt(2 / 9):.3e}", "0.000e+00", "0.000e+00", "0.000e+00"]
    assert len(lines) == 1 + 8


def test_terms_over_training_are_those_at_each_step_and_their_crossings():
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 5, (8, 6)), rng.integers(0, 5, (8, 6)))
    basis = associations.statistics(batch, 5)

    def leading(step):
        return associations.leading_weights(basis, steps=step, learning_rate=2.0)

    start = OneHotWeights.zeros(5, 6)
    found = associations.record_terms(start, batch, learning_rate=2.0, steps=12, at=range(2, 13, 2), leading=leading)
    assert found.steps == [2, 4, 6, 8, 10, 12]
    run = descend(start, batch, learning_rate=2.0, steps=12, keep=found.steps)
    np.testing.assert_array_equal(found.trajectory.loss, run.loss)
    records = [term_norms(gradient_terms(run.kept[step], batch, leading=leading(step))) for step in found.steps]
    assert found.norms == by_term(records)
    assert found.crossings == first_exceeds(found.steps, found.norms)
    assert exceeds_table(found.crossings) in str(found)
    recorder = associations.TermRecorder(batch)
    descend(start, batch, learning_rate=2.0, steps=3, callback=recorder)
    assert recorder.steps == [1, 2, 3]
    tables = associations.record_terms(start.circuits(), batch, learning_rate=2.0, steps=2)
    assert set(tables.norms) == {"direct", "ov", "qk", "position"}


def test_refusals_of_the_recorder():
    batch, start = Batch([[0, 1]], [[1, 0]]), OneHotWeights.zeros(2, 2)
    for at, says in (("all", "at is 'all'; it must be steps from 1 to 3"), ([0], "at holds 0"), ([4], "at holds 4")):
        with pytest.raises((TypeError, ValueError), match=says):
            associations.record_terms(start, batch, learning_rate=1.0, steps=3, at=at)
    with pytest.raises(TypeError, match="leading is 3; it must be a function that is called as leading"):
        associations.TermRecorder(batch, leading=3)
    with pytest.raises(TypeError, match="record_terms has a callback of its own"):
        associations.record_terms(start, batch, learning_rate=1.0, steps=3, callback=print)
    with pytest.raises(ValueError, match="leading terms are those of gradient descent"):
        associations.record_terms(start, batch, learning_rate=1.0, steps=3, optimiser=Adam(),
                                  leading=lambda step: start)
    found = associations.record_terms(start, batch, learning_rate=0.1, steps=3, optimiser=Adam())
    assert found.trajectory.optimiser.steps == 3
