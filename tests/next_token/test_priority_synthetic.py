"""Laws of next tokens with known priorities: shapes, seeds, frequencies; large samples show the true SCCs in order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.next_token.graphs import priority_graphs
from minitx.next_token.law import PriorityLaw, random_samples, unseen_contexts
from minitx.next_token.samples import Samples


def naive_distribution(law, context):
    """The probabilities are those that the docstring describes, computed by plain loops."""
    k = context[-1]
    highest = min(law.rank[k][token] for token in context)
    mass = [0.0] * law.n_vocab
    for token in context:
        if law.rank[k][token] == highest:
            mass[token] += law.odds[k][token]
    return np.array(mass) / sum(mass)


def true_components(law, last):
    """SCCs of the graph of ``last`` in a large sample, highest first: classes down to its own, then single tokens."""
    ranks, own = law.rank[last].tolist(), law.rank[last][last]
    classes = [[token for token, rank in enumerate(ranks) if rank == number] for number in range(own + 1)]
    return classes + [[token] for token, rank in enumerate(ranks) if rank > own]


@pytest.mark.slow
@settings(max_examples=8)
@given(st.integers(2, 5), st.data())
def test_a_large_sample_shows_the_true_components_in_the_true_order(n_vocab, data):
    law = PriorityLaw.random(n_vocab, data.draw(st.integers(1, n_vocab)), rng=data.draw(st.integers(0, 99)))
    drawn = law.samples(6000, 4, rng=data.draw(st.integers(0, 99)))
    graphs = priority_graphs(Samples.of(drawn.sequences, drawn.labels, n_vocab))
    assert sorted(graphs) == list(range(n_vocab))
    for k, graph in graphs.items():
        true = true_components(law, k)
        assert [part.tolist() for part in graph.components] == true
        above = np.triu(np.ones((len(true),) * 2, bool), 1)  # a total order
        np.testing.assert_array_equal(graph.reach, above)


def test_components_below_the_last_tokens_own_class_are_single_tokens():
    """Last token 0 is in the middle class: {1, 2} above {0} above 3, 4, which never are labels."""
    rank = np.zeros((5, 5), int)
    rank[0] = [1, 0, 0, 2, 2]
    law = PriorityLaw(rank)
    assert true_components(law, 0) == [[1, 2], [0], [3], [4]]
    drawn = law.samples(4000, 3)
    graph = priority_graphs(Samples.of(drawn.sequences, drawn.labels))[0]
    assert [part.tolist() for part in graph.components] == [[1, 2], [0], [3], [4]]
    assert graph.layer.tolist() == [0, 1, 2, 2]


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_the_distribution_is_that_of_the_docstring(n_vocab, length, seed):
    rng = np.random.default_rng(seed)
    law = PriorityLaw.random(n_vocab, int(rng.integers(1, n_vocab + 1)), rng=seed)
    contexts = rng.integers(n_vocab, size=(7, length))
    expected = [naive_distribution(law, context) for context in contexts]
    np.testing.assert_allclose(law.distribution(contexts), expected, atol=1e-15)


def test_labels_are_drawn_from_the_distribution():
    law = PriorityLaw.random(4, 2, rng=1)
    drawn = law.samples(40_000, 3, rng=2)
    expected = law.distribution(drawn.sequences)
    assert (expected[np.arange(len(drawn)), drawn.labels] > 0).all()
    observed = np.zeros_like(expected)
    observed[np.arange(len(drawn)), drawn.labels] = 1
    deviation = (observed - expected).sum(axis=0) / np.sqrt((expected * (1 - expected)).sum(axis=0))
    assert np.abs(deviation).max() < 4


def test_the_seed_decides_and_asking_for_more_keeps_the_beginning():
    law = PriorityLaw.random(5, rng=3)
    np.testing.assert_array_equal(law.rank, PriorityLaw.random(5, rng=3).rank)
    for draw in (lambda n, seed: law.samples(n, 4, rng=seed), lambda n, seed: random_samples(n, 4, 6, rng=seed)):
        few, many, other = draw(10, 7), draw(30, 7), draw(10, 8)
        np.testing.assert_array_equal(few.sequences, many.sequences[:10])
        np.testing.assert_array_equal(few.labels, many.labels[:10])
        assert (few.sequences != other.sequences).any()


def test_every_class_has_members_and_the_last_token_is_in_the_lowest():
    law = PriorityLaw.random(6, 4, rng=0)
    assert all(set(row) == set(range(4)) for row in law.rank.tolist())
    assert (np.diagonal(law.rank) == 3).all()
    assert len(np.unique(law.rank, axis=0)) > 1


def test_random_samples_are_those_of_the_notebooks():
    drawn = random_samples(500, 4, 6, rng=0)
    assert drawn.sequences.shape == (500, 4)
    assert len(drawn) == 500
    assert all(len(set(row)) == 4 for row in drawn.sequences.tolist())
    at = (drawn.sequences == drawn.labels[:, None]).sum(axis=0)
    assert at.sum() == 500
    assert (at > 90).all()
    assert set(drawn.sequences.ravel().tolist()) == set(range(6))


def test_unseen_contexts_are_not_among_the_sequences():
    drawn = random_samples(60, 3, 4, rng=1)
    seen = {(row[-1], *sorted(row)) for row in drawn.sequences.tolist()}
    found = unseen_contexts(drawn.sequences, 200, 3, 4, rng=2)
    assert found.shape == (200, 3)
    assert not seen & {(row[-1], *sorted(row)) for row in found.tolist()}
    np.testing.assert_array_equal(found, unseen_contexts([list(row) for row in drawn.sequences], 200, 3, 4, rng=2))
    assert (unseen_contexts(drawn.sequences, 200, 5, 4, rng=2) >= 0).all()


@pytest.mark.parametrize(("call", "says"), [
    (lambda: PriorityLaw([[0, 1]]), "rank has shape"), (lambda: PriorityLaw([[0]]), "K at least 2"),
    (lambda: PriorityLaw([[0, 2], [0, 0]]), "row 0 of rank holds the classes"),
    (lambda: PriorityLaw([[0, 1], [0, -1]]), "row 1"),
    (lambda: PriorityLaw(np.zeros((2, 2), int), np.ones(2)), "odds have shape"),
    (lambda: PriorityLaw(np.zeros((2, 2), int), [[1, 0], [1, 1]]), "odds must be above 0"),
    (lambda: PriorityLaw.random(3, 4), "n_classes is 4 but there are 3 tokens"),
    (lambda: PriorityLaw.random(1), "n_vocab is 1"),
    (lambda: PriorityLaw.random(3).samples(0, 3), "n_samples is 0"),
    (lambda: PriorityLaw.random(3).samples(2, 0), "length is 0"),
    (lambda: PriorityLaw.random(3).distribution([[0, 3]]), "token ids must lie in"),
    (lambda: PriorityLaw.random(3).distribution(np.zeros((2, 0), int)), "at least its last token"),
    (lambda: random_samples(2, 5, 4), "length is 5 but there are 4"), (lambda: random_samples(2, 0, 4), "length is 0"),
    (lambda: unseen_contexts([[0], [1]], 3, 1, 2), "nearly all were seen"),
])
def test_mistakes_are_said(call, says):
    with pytest.raises(ValueError, match="^[^\n]*" + says):
        call()


def test_ranks_that_are_no_integers():
    with pytest.raises(TypeError, match="rank must be integers"):
        PriorityLaw(np.zeros((3, 3)))
