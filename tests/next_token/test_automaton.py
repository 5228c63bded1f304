"""Predictions of the limit: reference entries, statuses by brute force, ties, continuations, refusals."""

import naive_next_token as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_token_strategies import EMBEDDINGS, data, embedding

from minitx.model.weights import LastTokenWeights
from minitx.next_token.automaton import STATUSES, Automaton
from minitx.next_token.law import PriorityLaw, random_samples, unseen_contexts
from minitx.next_token.path import split_path
from minitx.next_token.samples import Samples
from minitx.next_token.svm import InfeasibleError
from minitx.next_token.training import train


def scores(W, E):
    return W if E is None else E @ W @ E.T


def fitted(sequences, labels, n_vocab=None, E=None):
    return Automaton.fit(Samples.of(sequences, labels, n_vocab), E)


@st.composite
def fits(draw):
    """(K, sequences, labels, automaton, contexts); d >= K, so that weights exist."""
    n_vocab, sequences, labels, E, _ = draw(data(kinds=EMBEDDINGS[:4]))
    context = st.lists(st.integers(0, n_vocab - 1), min_size=1, max_size=6)
    seen = st.builds(lambda before, k: [*before, k], context, st.sampled_from([sequence[-1] for sequence in sequences]))
    return n_vocab, sequences, labels, fitted(sequences, labels, n_vocab, E), [draw(context | seen) for _ in range(4)]


# ---------------------------------------------------------------------------------------------------------------------
# The limit and its status
# ---------------------------------------------------------------------------------------------------------------------


def test_reference_predictions(next_token_reference):
    for instance in next_token_reference["instances"]:
        automaton = fitted(instance["ids"], instance["labels"], instance["K"], np.array(instance["E"]))
        for expected in instance["automaton"]:
            found = automaton.predict(expected["context"])
            assert (found.status, found.retrieved.tolist()) == (expected["status"], expected["retrieved"])
            assert np.abs(found.p - expected["p"]).max() <= 1e-10
            assert found.gap == (None if expected["gap"] is None else pytest.approx(expected["gap"], abs=1e-10))


@given(fits())
def test_status_and_mix_are_those_of_brute_force(drawn):
    n_vocab, sequences, labels, automaton, contexts = drawn
    svm, soft = (scores(W, automaton.split.E) for W in (automaton.svm.W, automaton.soft.W))
    for context in contexts:
        found = automaton.predict(context)
        status, retrieved = naive.retrieval(n_vocab, sequences, labels, context, svm, 1e-8 * max(1, np.abs(svm).max()))
        assert (found.status, set(found.retrieved.tolist())) == (status, retrieved)
        mix = naive.mix(context, retrieved, soft)
        assert found.p == pytest.approx(np.array([mix.get(j, 0.0) for j in range(n_vocab)]), abs=1e-13)
        graph = automaton.split.graphs.get(context[-1])
        assert found.component.tolist() == [-1 if graph is None else graph.component_of(j) for j in found.retrieved]
        rest = [svm[j, context[-1]] for j in set(context) - retrieved]
        if not rest:
            assert found.gap is None
        else:
            assert found.gap == pytest.approx(min(svm[j, context[-1]] for j in retrieved) - max(rest), abs=1e-12)
            assert found.gap >= (1 - 1e-10 if status == "determined" else 0)


@settings(max_examples=30)
@given(fits())
def test_every_sample_is_determined_and_retrieves_its_label(drawn):
    _, sequences, labels, automaton, _ = drawn
    for sequence, label in zip(sequences, labels, strict=True):
        found = automaton.predict(sequence, strict=True)
        assert found.status == "determined" and found.p[label] > 0


@settings(max_examples=30)
@given(fits(), st.randoms(use_true_random=False))
def test_only_counts_matter(drawn, random):
    """The order of the context before its last token, and all samples twice, change no bit."""
    n_vocab, sequences, labels, automaton, contexts = drawn
    twice = fitted(sequences[::-1] * 2, labels[::-1] * 2, n_vocab, automaton.split.E)
    for context in contexts:
        before = context[:-1]
        random.shuffle(before)
        expected, found = automaton.predict(context), twice.predict([*before, context[-1]])
        assert np.array_equal(found.p, expected.p) and (found.status, found.gap) == (expected.status, expected.gap)


def test_what_no_sample_ends_in_is_unseen():
    """One-hot embeddings: nothing is known, so attention is equal at all places. Others: W_svm extrapolates."""
    sequences, labels = [[0, 1, 2], [1, 0, 2]], [0, 0]
    found = fitted(sequences, labels, 4).predict([0, 1, 1, 3])
    assert found.status == "unseen" and found.gap is None
    assert found.p == pytest.approx(np.array([1, 2, 0, 1]) / 4)
    assert found.component.tolist() == [-1, -1, -1]
    E = embedding("equicorrelated", 4, np.random.default_rng(0))
    found = fitted(sequences, labels, 4, E).predict([0, 1, 1, 3])
    assert found.status == "unseen" and found.retrieved.tolist() == [0] and 0 < found.gap < 1


def test_a_token_that_the_graph_does_not_have_is_not_below_others():
    """Token 3 was never beside last token 2: W_svm puts it between 0 and 1 (one-hot embeddings: score 0)."""
    automaton = fitted([[0, 1, 2]], [0], 4)
    assert automaton.predict([0, 1, 2]).status == "determined"
    found = automaton.predict([0, 1, 3, 2])
    assert found.status == "extrapolated" and found.retrieved.tolist() == [0]
    assert found.gap == pytest.approx(2 / 3)
    found = automaton.predict([3, 2])
    assert found.status == "extrapolated" and found.retrieved.tolist() == [3] and found.component.tolist() == [-1]


# ---------------------------------------------------------------------------------------------------------------------
# Ties
# ---------------------------------------------------------------------------------------------------------------------


def test_ties_share_by_counts_or_along_the_path_by_the_residual():
    """0 above 2 was seen three times, 1 above 2 once, 0 and 1 never together.

    Multipliers are equal, so that the path has log-odds log 3; W_svm + W_fin say nothing.
    """
    automaton = fitted([[0, 2]] * 3 + [[1, 2]], [0, 0, 0, 1])
    found = automaton.predict([1, 0, 0, 2])
    assert found.status == "tied" and found.retrieved.tolist() == [0, 1] and found.gap == pytest.approx(1)
    assert found.p == pytest.approx(np.array([2, 1, 0]) / 3)
    found = automaton.predict([1, 0, 0, 2], path=True)
    assert found.status == "tied"
    assert found.p == pytest.approx(np.array([6, 1, 0]) / 7, rel=1e-12)
    assert automaton.predict([0, 2], path=True).p.tolist() == [1, 0, 0]


def test_ties_of_equal_samples_go_by_counts_alone():
    automaton = fitted([[0, 2], [1, 2]], [0, 1])
    for path in (False, True):
        assert automaton.predict([0, 1, 1, 1, 2], path=path).p == pytest.approx(np.array([1, 3, 0]) / 4, rel=1e-12)


def test_a_residual_that_diverges_decides_no_tie():
    """The samples are those of the test of the residual, in which token 4 is like token 0 in all respects."""
    E = np.array([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    automaton = fitted([[0, 1, 3], [1, 2, 3], [4, 1, 3]], [0, 1, 4], 5, E)
    assert automaton.residual.diverging
    assert automaton.predict([0, 4, 3]).p == pytest.approx(np.array([1, 0, 0, 0, 1]) / 2)
    with pytest.raises(ValueError, match=r"context \[0, 4, 3\] is tied, and rho diverges for last token 3"):
        automaton.predict([0, 4, 3], path=True)


def test_a_residual_that_diverges_for_another_last_token():
    """One-hot: 2 above 3 follows from 1 above 3 and 2 above 0 (scores +-1/2), multiplier 0. Token 2 keeps its ties."""
    automaton = fitted([[1, 3], [2, 0, 3], *[[0, 2]] * 3, [1, 2]], [1, 2, 0, 0, 0, 1])
    assert automaton.residual.diverging == {3}
    assert automaton.predict([1, 0, 2], path=True).p == pytest.approx(np.array([3, 1, 0, 0]) / 4, rel=1e-12)
    with pytest.raises(ValueError, match=r"context \[1, 2, 3\] is tied, and rho diverges for last token 3"):
        automaton.predict([1, 2, 3], path=True)


# ---------------------------------------------------------------------------------------------------------------------
# Trained attention
# ---------------------------------------------------------------------------------------------------------------------


def data_set(number):
    """(LabelledSequences, automaton, 40 unseen contexts) of a random law, or of random labels; E is of four kinds."""
    rng = np.random.default_rng(number)
    n_vocab, length, n_samples = rng.integers(5, 10), rng.integers(3, 6), rng.integers(5, 25)
    drawn = (random_samples(n_samples, length, n_vocab, rng=number) if number % 3 == 0 else
             PriorityLaw.random(n_vocab, 3, rng=number).samples(n_samples, length, rng=number))
    E = embedding(EMBEDDINGS[number % 4], n_vocab, rng)
    automaton = Automaton.fit(Samples.of(drawn.sequences, drawn.labels, n_vocab), E)
    return drawn, automaton, unseen_contexts(drawn.sequences, 40, length, n_vocab, rng=number).tolist()


def distance(automaton, W, context, **options):
    """Total variation between attention at ``W`` and the prediction."""
    score = scores(W, automaton.split.E)
    present = set(context)
    top = max(score[j, context[-1]] for j in present)
    trained = naive.mix(context, present, score - top)
    p = automaton.predict(context, **options).p
    return sum(abs(p[j] - trained[j]) for j in present) / 2


@pytest.mark.parametrize("n_data_sets", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_trained_attention_is_the_limit_wherever_that_is_determined(n_data_sets):
    """On 40 unseen contexts of each random data set, total variation is at most 1e-10 after 250 accelerated steps."""
    seen, worst = dict.fromkeys(STATUSES, 0), 0.0
    for number in range(n_data_sets):
        drawn, automaton, contexts = data_set(number)
        E = automaton.split.E
        start = LastTokenWeights.zeros(drawn.n_vocab) if E is None else LastTokenWeights.zeros(E=E)
        W = train(start, automaton, mode="accelerated", steps=250, at=()).weights.W
        svm = scores(automaton.svm.W, automaton.split.E)
        for context in contexts:
            found = automaton.predict(context)
            expected = naive.retrieval(drawn.n_vocab, drawn.sequences.tolist(), drawn.labels.tolist(), context, svm,
                                       1e-8)
            assert (found.status, set(found.retrieved.tolist())) == expected
            seen[found.status] += 1
            if found.status == "determined":
                worst = max(worst, distance(automaton, W, context))
    assert min(seen.values()) >= 100 * n_data_sets / 30 and sum(seen.values()) == 40 * n_data_sets
    assert worst <= 1e-10


@pytest.mark.parametrize("n_data_sets", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_ties_along_the_path_are_those_of_the_residual(n_data_sets):
    """Where rho does not diverge, the path keeps it (to 1e-3 at strength 2^20), and ties are shared as it says."""
    tied, worst, without = 0, 0.0, 0.0
    for number in range(n_data_sets):
        _, automaton, contexts = data_set(number)
        *_, W = split_path(automaton.split, automaton.soft.W, 2.0 ** np.arange(21))
        rho, rest, svm = automaton.residual, W - automaton.soft.W, automaton.svm.W
        rest -= np.vdot(rest, svm) / np.vdot(svm, svm) * svm
        if not rho.diverging:
            assert np.linalg.norm(rest - rho.W) <= 5e-3 * np.linalg.norm(rho.W)
        for context in contexts:
            if automaton.predict(context).status == "tied" and context[-1] not in rho.diverging:
                tied += 1
                worst = max(worst, distance(automaton, W, context, path=True))
                without = max(without, distance(automaton, W, context))
    assert tied >= 30 * n_data_sets / 8 and worst <= 1e-3 and without > 0.1


# ---------------------------------------------------------------------------------------------------------------------
# Continuations
# ---------------------------------------------------------------------------------------------------------------------


def test_generated_tokens_follow_the_predictions():
    """The first token is drawn with the shares of W_fin, 1 to 3. No sample ends in the token that is then last."""
    automaton = fitted([[0, 1, 2]] * 4, [0, 1, 1, 1])
    rng = np.random.default_rng(5)
    drawn = np.array([automaton.generate([0, 1, 2], 1, rng=rng)[0] for _ in range(2000)])
    assert np.bincount(drawn, minlength=3) / 2000 == pytest.approx([0.25, 0.75, 0], abs=0.03)
    says = r"context \[0, 1, 2, [01]\] is unseen: no sample ends in token [01]; strict=False"
    with pytest.raises(ValueError, match=says):
        automaton.generate([0, 1, 2], 2, rng=1, strict=True)
    assert set(automaton.generate([0, 1, 2], 50, rng=1).tolist()) <= {0, 1, 2}


def test_generation_that_is_determined_at_every_step():
    """Token 1 follows 0, and 0 follows 1: the graphs know of each pair which is above."""
    automaton = fitted([[0, 1, 0], [0, 1, 1]], [1, 0])
    found = automaton.generate([0, 1], 6, strict=True)
    assert found.dtype == np.int64 and found.tolist() == [0, 1, 0, 1, 0, 1]


def test_generation_is_the_same_for_the_same_seed():
    automaton = fitted([[0, 1, 2], [0, 1, 2]], [0, 1])
    first, again = (automaton.generate([0, 1, 2], 30, rng=7) for _ in range(2))
    assert np.array_equal(first, again) and len(automaton.generate([0], 0)) == 0
    assert not np.array_equal(first, automaton.generate([0, 1, 2], 30, rng=8))


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------


def test_strict_refuses_what_the_data_do_not_determine():
    automaton = fitted([[0, 2], [1, 2], [0, 3, 4]], [0, 1, 0], 5)
    assert automaton.predict([0, 2], strict=True).status == "determined"
    for context, text in [
            ([3, 2, 0], r"context \[3, 2, 0\] is unseen: no sample ends in token 0; strict=False returns"),
            ([0, 1, 2], r"context \[0, 1, 2\] is tied: SCCs tie: W_svm \+ W_fin do not determine how"),
            ([0, 1, 4], r"context \[0, 1, 4\] is extrapolated: no SCC is above all others present, and only the least "
                        r"norm of W_svm tells them apart \(gap 0\.667\)")]:
        with pytest.raises(ValueError, match=text):
            automaton.predict(context, strict=True)


@pytest.mark.parametrize(("context", "text"), [
    ([], "context must be a non-empty 1-D array of token ids"),
    ([[0, 1]], "context must be a non-empty 1-D array of token ids"),
    ([0.0, 1.0], "context: token ids must be integers, got dtype float64"),
    ([0, 3], r"token ids must lie in \[0, 3\), but the context holds 3"),
    ([-1, 0], r"token ids must lie in \[0, 3\), but the context holds -1"),
])
def test_contexts_that_cannot_be(context, text):
    automaton = fitted([[0, 1, 2]], [0])
    with pytest.raises(ValueError, match=text):
        automaton.predict(context)
    with pytest.raises(ValueError, match=text):
        automaton.generate(context, 1)


@pytest.mark.parametrize(("E", "text"), [
    (np.ones((2, 4)), r"E has shape \(2, 4\); it must be \(K, d\), one row for each of the 3 tokens"),
    (np.ones((4, 4)), r"E has shape \(4, 4\); it must be \(K, d\), one row for each of the 3 tokens"),
    (np.ones(3), r"E has shape \(3,\); it must be \(K, d\)"),
    (np.full((3, 3), np.nan), "E holds values that are not finite"),
])
def test_embeddings_that_cannot_be(E, text):
    with pytest.raises(ValueError, match=text):
        fitted([[0, 1, 2]], [0], 3, E)


def test_length_that_cannot_be():
    with pytest.raises(ValueError, match="length is 1.5; it must be a whole number"):
        fitted([[0, 1, 2]], [0]).generate([0], 1.5)


def test_priorities_that_no_weights_meet():
    """2 half-way between 0 and 1 cannot be above both."""
    E = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0]])
    with pytest.raises(InfeasibleError):
        fitted([[2, 0, 3], [2, 1, 3]], [2, 2], 4, E)
