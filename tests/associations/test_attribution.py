"""Attribution: the parts of every entry equal slow loops, and sum to the entry, also over training."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx import (
    Adam,
    Batch,
    Circuits,
    Corpus,
    OneHotWeights,
    associations,
    descend,
    gradient_terms,
    loss_and_gradient,
    set_threads,
)
from minitx.associations import attribution, logit_parts, record_attribution
from minitx.testing import batches, circuits

import naive
import naive_attribution

NEXT_TOKEN = {"causal": True, "head": "cross_entropy", "masses": False}
STATISTICS = ("bigram", "interchangeability", "context", "value", "attention", "position")
SCALES = st.sampled_from((0.0, 1e-3, 1.0, 5.0))
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=8)  # of tests whose oracle visits every entry


def entries(shape):
    """(row, column) of every entry; of a vector (row, None)."""
    return [(*index, None)[:2] for index in np.ndindex(*shape)]


def some_entries(rng, shape):
    """[(row, column, index)] of three entries of a table."""
    found = entries(shape)
    chosen = (found[i] for i in rng.integers(0, len(found), 3))
    return [(row, column, row if column is None else (row, column)) for row, column in chosen]


def close(found, expected, size):
    """Equal to 1e-13 of ``size``, which is what is summed."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * size)


@few
@given(batches(**NEXT_TOKEN), SEEDS)
def test_parts_of_statistics_equal_the_loops_and_sum_to_the_entry(problem, seed):
    (batch, n_vocab), rng = problem, np.random.default_rng(seed)
    found = associations.statistics(batch, n_vocab)
    expected = naive_attribution.statistics(batch.tokens, batch.targets, batch.weight, batch.lengths, n_vocab)
    total = batch.weight.sum()
    for name in STATISTICS:
        table = getattr(found, name)
        size = {"interchangeability": total**2, "value": total**2}.get(name, max(total, total**4))
        for row, column, at in some_entries(rng, table.shape):
            one = attribution(found, batch, name, row, column)
            close(one.parts, expected[name][at], size)
            assert one.entry == table[at]
            close(one.parts.sum(), one.entry, max(np.abs(one.parts).sum(), 1e-2 * size))
            close(one.positive + one.negative, one.windows.sum(), np.abs(one.parts).sum())


@few
@given(batches(**NEXT_TOKEN), SCALES, SEEDS, st.booleans())
def test_parts_of_the_gradient_and_of_its_terms_sum_to_them(problem, scale, seed, given_leading):
    (batch, n_vocab), rng = problem, np.random.default_rng(seed)
    weights = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    leading = weights.map(lambda array: 0.5 * array + scale) if given_leading else None
    _, gradient = loss_and_gradient(weights, batch)
    split = gradient_terms(weights, batch, leading=leading)
    for name, terms in split.items():
        exact = getattr(gradient, name)
        size = batch.weight.sum() * max(1.0, scale**2)
        for row, column, at in some_entries(rng, exact.shape):
            one = attribution(weights, batch, name, row, column, leading=leading)
            assert set(one.terms) == set(terms)
            for term, parts in one.terms.items():
                close(parts.sum(), terms[term][at], max(size, np.abs(terms[term]).max()))
            close(one.parts, sum(one.terms.values()), size)
            close(one.entry, exact[at], max(size, np.abs(one.parts).sum()))


@settings(max_examples=5)
@given(batches(**NEXT_TOKEN), st.sampled_from((1e-3, 1.0)), SEEDS)
def test_parts_of_the_gradient_equal_the_loops(problem, scale, seed):
    (batch, n_vocab), rng = problem, np.random.default_rng(seed)
    weights = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    expected = naive_attribution.gradient(weights.W_O, weights.V, weights.W, weights.P, batch.tokens, batch.targets,
                                          batch.weight, batch.lengths)
    for name, parts in expected.items():
        for row, column, at in some_entries(rng, parts.shape[:-2]):
            close(attribution(weights, batch, name, row, column).parts, parts[at], max(1.0, batch.weight.sum()))


@few
@given(circuits(**NEXT_TOKEN), SEEDS)
def test_parts_of_the_tables_of_circuits_sum_to_their_terms(problem, seed):
    (tables, batch), rng = problem, np.random.default_rng(seed)
    tables = tables.map(lambda table: table / max(1.0, np.abs(table).max()))
    _, gradient = loss_and_gradient(tables, batch)
    for name, terms in gradient_terms(tables, batch).items():
        exact, size = getattr(gradient, name), max(1.0, batch.weight.sum())
        for row, column, at in some_entries(rng, exact.shape):
            one = attribution(tables, batch, name, row, column)
            assert set(one.terms) == set(terms)
            close(one.entry, exact[at], size)
            for term, parts in one.terms.items():
                close(parts.sum(), terms[term][at], size)


def naive_steps(start, batch, steps, rate, rows_of_step):
    """{parameter: parts of every entry}, from slow gradients on the rows of every step."""
    weights = {name: array.copy() for name, array in start.parameters().items()}
    total = {name: np.zeros((*array.shape, *batch.tokens.shape)) for name, array in weights.items()}
    for step in range(steps):
        rows = rows_of_step[step]
        scaled = batch.weight[rows] * len(batch) / len(rows)
        found = naive_attribution.gradient(**weights, tokens=batch.tokens[rows], targets=batch.targets[rows],
                                           weight=scaled, lengths=batch.lengths[rows])
        for name, parts in found.items():
            total[name][..., rows, :] -= rate(step) * parts
            weights[name] = weights[name] - rate(step) * parts.sum(axis=(-1, -2))
    return total


@pytest.mark.parametrize("batch_size", [None, 2])
def test_parts_over_training_equal_the_loops(batch_size):
    """Each step's part is that of its own windows, full batch or mini-batch, with the learning rate of the step."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 4, (5, 5))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    start = OneHotWeights.gaussian(4, 4, scale=0.5, rng=1)
    drawn, order = [], np.random.default_rng(7)
    while len(drawn) < 5:
        permutation = order.permutation(5)
        drawn += [permutation[:2], permutation[2:4]]

    def rate(step):
        return 0.5 / (1 + step)

    rows = [np.arange(5)] * 5 if batch_size is None else drawn
    expected = naive_steps(start, batch, 5, rate, rows)
    for name, row, column in (("W_O", 1, 2), ("V", 1, 2), ("W", 1, 2), ("P", 1, None)):
        found = record_attribution(start, batch, name, row, column, steps=5, learning_rate=rate,
                                   batch_size=batch_size, rng=7)
        parts = expected[name][row if column is None else (row, column)]
        np.testing.assert_allclose(found.attribution.parts, parts, rtol=1e-11, atol=1e-13)


@few
@given(batches(**NEXT_TOKEN), st.sampled_from((0.0, 0.5)), SEEDS, st.integers(1, 4), st.sampled_from((0.1, 1.0)),
       st.booleans(), st.data())
def test_parts_over_training_sum_to_the_trained_weight(problem, scale, seed, steps, rate, mini, data):
    batch, n_vocab = problem
    start = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    size = data.draw(st.integers(1, int(batch.weight.any(axis=1).sum()))) if mini else None
    run = descend(start, batch, steps=steps, learning_rate=rate, batch_size=size, rng=seed)
    for name, trained in run.weights.parameters().items():
        row, column = data.draw(st.sampled_from(entries(trained.shape)))
        at = row if column is None else (row, column)
        found = record_attribution(start, batch, name, row, column, steps=steps, learning_rate=rate, batch_size=size,
                                   rng=seed)
        one = found.attribution
        assert one.entry == trained[at]
        assert (found.trajectory.loss == run.loss).all()
        summed = max(np.abs(found.positive).sum() + np.abs(found.negative).sum(), batch.weight.sum() * rate * steps)
        close(one.start + one.parts.sum(), trained[at], summed)
        assert len(found.course) == steps + 1
        close([found.course[0], found.course[-1]], [one.start, one.entry], summed)


@few
@given(batches(**NEXT_TOKEN), st.data())
def test_parts_of_the_logit_sum_to_its_leading_terms(problem, data):
    batch, n_vocab = problem
    found = associations.statistics(batch, n_vocab)
    a, b = data.draw(st.integers(0, n_vocab - 1)), data.draw(st.integers(0, n_vocab - 1))
    parts = logit_parts(found, batch, a, b, steps=5, learning_rate=0.3)
    leading = associations.leading_weights(found, steps=5, learning_rate=0.3)
    size = max(batch.weight.sum(), batch.weight.sum() ** 3)
    close(parts["bigram"].sum(), leading.W_O[a, b], size)
    through = naive.product(leading.V, leading.W_O)[a, b]
    close(parts["context"].sum() + parts["interchangeability"].sum(), through, 10 * size)
    assert not parts["context"][batch.targets != b].any()
    assert not parts["interchangeability"][batch.targets == b].any()


# ------------------------------------------------------------------------------------------------------- what it is for


@pytest.fixture(scope="module")
def corpus():
    documents = ["a red truck saw a blue ball", "a blue ball saw a red truck", "a red truck saw a blue ball",
                 "the dog saw the red ball . "]
    return Corpus.from_documents(documents, n_vocab=12, length=6)


def test_a_window_that_is_repeated_is_told_once(corpus):
    batch = corpus.batch()
    found = attribution(associations.statistics(batch, 12), batch, "bigram", corpus.id("red"), corpus.id("truck"))
    first, second = found.strongest(corpus=corpus)
    assert first.windows == (0, 2)
    assert second.windows == (1,)
    assert first.value == pytest.approx(2 * second.value)
    assert first.text == "a [red] [truck] saw a blue ball"
    against, = found.strongest(corpus=corpus, against=True)
    assert against.text == "the dog saw the [red] ball ."
    assert against.value < 0
    assert found.parts[against.windows[0], against.position] == against.value


def test_a_pair_that_never_meets_is_a_sum_of_negative_parts(corpus):
    batch = corpus.batch()
    found = attribution(associations.statistics(batch, 12), batch, "bigram", corpus.id("red"), corpus.id("dog"))
    assert found.positive == 0
    assert found.entry < 0
    assert np.count_nonzero(found.parts) == 4  # every position at which red is the current word
    assert [one.value < 0 for one in found.strongest(2)] == [True, True]


def test_a_word_that_never_occurs_adds_nothing():
    batch = Batch([[0, 1, 2]], [[1, 2, 0]])
    statistics = associations.statistics(batch, 4)
    for name in STATISTICS[:-1]:
        assert not attribution(statistics, batch, name, 3, 3).parts.any() or name == "interchangeability"
    assert not attribution(statistics, batch, "bigram", 3, 0).parts.any()
    weights = OneHotWeights.gaussian(4, 5, scale=1.0, rng=0)
    assert not attribution(weights, batch, "W", 3, 0).parts.any()
    assert not attribution(weights, batch, "P", 4).parts.any()  # no position has a token four places back
    assert attribution(weights, batch, "V", 3, 0).strongest() == []


def test_no_bit_depends_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 300, (24, 65))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    weights = OneHotWeights.gaussian(300, 64, scale=0.3, rng=1)
    statistics = associations.statistics(batch, 300)
    found = []
    for threads in (1, 2):
        set_threads(threads)
        found.append([attribution(weights, batch, "W_O", 3, 5).parts, attribution(weights, batch, "W", 3, 5).parts,
                      attribution(statistics, batch, "attention", 3, 5).parts])
    for one, two in zip(*found, strict=True):
        assert (one == two).all()


def test_memory_holds_no_array_of_windows_by_positions_by_tokens():
    """200 windows of 64 positions and 500 words: N T V floats would be 51 MB."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 500, (200, 65))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    statistics = associations.statistics(batch, 500)
    attribution(statistics, batch, "position", 1)
    tracemalloc.start()
    for name in STATISTICS:
        attribution(statistics, batch, name, 1, None if name == "position" else 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6


def test_it_shows_the_entry_and_the_strongest_windows(corpus):
    batch = corpus.batch()
    found = attribution(associations.statistics(batch, 12), batch, "bigram", corpus.id("red"), corpus.id("truck"))
    lines = str(found).splitlines()
    assert lines[0].startswith(f"bigram[{corpus.id('red')}, {corpus.id('truck')}] = ")
    assert lines[1].startswith("window 0 and 1 like it, position 1: +")


def test_what_was_interrupted_keeps_its_steps(corpus):
    batch, start = corpus.batch(), OneHotWeights.zeros(12, 6)

    def interrupt(step, loss, weights, gradient):
        if step == 3:
            raise KeyboardInterrupt

    found = record_attribution(start, batch, "W_O", 1, 2, steps=9, learning_rate=1.0, callback=interrupt)
    assert found.trajectory.stopped.kind == "interrupted"
    assert len(found.positive) == found.trajectory.steps == 3
    close(found.attribution.parts.sum(), found.trajectory.weights.W_O[1, 2], 1.0)


def test_float32_weights_and_absent_tables():
    batch = Batch([[0, 1, 2, 1]], [[1, 2, 1, 0]])
    weights = OneHotWeights.gaussian(3, 4, scale=0.5, rng=0, dtype=np.float32)
    _, gradient = loss_and_gradient(weights.astype(np.float64), batch)
    assert attribution(weights, batch, "V", 1, 2).entry == pytest.approx(gradient.V[1, 2], rel=1e-12)
    only = Circuits(None, weights.circuits().ov, None, None, None)
    with pytest.raises(ValueError, match="parameter is 'direct'; it must be one of ov"):
        attribution(only, batch, "direct", 0, 0)
    found = record_attribution(weights, batch, "W_O", 1, 2, steps=2, learning_rate=0.5)
    assert found.attribution.start + found.attribution.parts.sum() == pytest.approx(found.attribution.entry, abs=1e-6)


def test_another_rule_of_descent_is_refused():
    """Its steps are not the learning rate times a sum over positions."""
    batch = Batch([[0, 1]], [[1, 0]])
    for other in ({"optimiser": Adam()}, {"normalised": True}):
        with pytest.raises(TypeError, match=f"{[*other][0]} cannot be set"):
            record_attribution(OneHotWeights.zeros(2, 2), batch, "W_O", 0, 1, steps=2, learning_rate=0.1, **other)
    with pytest.raises(ValueError, match="steps"):
        record_attribution(OneHotWeights.zeros(2, 2), batch, "W_O", 0, 1, learning_rate=0.1)
