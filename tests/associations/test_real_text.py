"""The trained weights on 1,000 real stories (exact, full batch) against numbers measured independently by autodiff."""

import numpy as np
import pytest

from minitx import OneHotWeights, associations, descend, gradient_terms, load_corpus
from minitx.base.numbers import cosine, norm

pytestmark = pytest.mark.slow  # the same holds on the built-in stories, which other tests train on
ETA, CHECKED = 0.5, (60, 150, 200)


@pytest.fixture(scope="module")
def trained(tinystories):
    """{step: (cosines in the order W_O, V, W, P; digits to which the terms sum to the gradient)}, and the losses."""
    corpus = load_corpus(tinystories, n_vocab=800, length=64, unknown="<unk>", n_windows=1500)
    batch = corpus.batch()
    statistics = associations.statistics(batch, 800)
    found = {}

    def look(step, loss, weights, gradient):
        if step in CHECKED:
            leading = associations.leading_weights(statistics, steps=step, learning_rate=ETA)
            terms = gradient_terms(weights, batch, leading=leading)
            found[step] = ([cosine(array, getattr(leading, name)) for name, array in weights.parameters().items()],
                           [norm(sum(terms[name].values()) - array) / norm(array)
                            for name, array in gradient.parameters().items()])

    run = descend(OneHotWeights.zeros(800, 64), batch, learning_rate=ETA, steps=max(CHECKED), callback=look)
    return found, run.loss


def test_leading_terms_hold_in_the_early_phase(trained):
    output, value, attention, position = trained[0][60][0]
    assert output >= 0.999
    assert value >= 0.9999
    assert attention >= 0.9999
    assert position >= 0.9995


@pytest.mark.parametrize(("step", "expected"), [(150, [0.969, 1.000, 1.000, 0.993]),
                                                (200, [0.931, 0.999, 0.987, -0.394])])
def test_cosines_are_those_measured(trained, step, expected):
    assert [round(value, 3) for value in trained[0][step][0]] == expected


def test_losses_are_those_measured(trained):
    """The table's losses at 150 and 200 are those of the 150th and 200th gradient, at the weights one step before."""
    assert trained[1][149] == pytest.approx(6.3054, abs=5e-5)
    assert trained[1][199] == pytest.approx(5.8344, abs=5e-5)
    assert trained[1][0] == pytest.approx(6.685, abs=5e-4)


def test_terms_sum_to_the_gradient(trained):
    for _, misses in trained[0].values():
        assert max(misses) < 1e-13


def test_parts_sum_to_the_entries_of_a_large_vocabulary(tinystories):
    """This holds for every statistic, of frequent and of rare words, at V = 3,000 and N = 2,048."""
    corpus = load_corpus(tinystories, n_vocab=3000, length=64, n_windows=2048)
    batch = corpus.batch()
    statistics = associations.statistics(batch, 3000)
    pairs = [("red", "truck"), ("the", "."), ("<unk>", "dog"), ("happy", "sad")]
    for word, other in pairs:
        for name in ("bigram", "interchangeability", "context", "value", "attention"):
            found = associations.attribution(statistics, batch, name, corpus.id(word), corpus.id(other))
            assert abs(found.parts.sum() - found.entry) <= 1e-13 * np.abs(found.parts).sum()
    found = associations.attribution(statistics, batch, "position", 3)
    assert abs(found.parts.sum() - found.entry) <= 1e-13 * np.abs(found.parts).sum()
