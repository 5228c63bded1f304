"""Samples as counts, and losses of the last token: against plain loops, circuits, the complex step and 320 digits."""

import decimal
from dataclasses import replace

import naive_next_token as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.model.testing import check_gradient
from minitx.model.weights import LastTokenWeights
from minitx.next_token.losses import HEADED, LOSSES, attention, loss_and_gradient
from minitx.next_token.samples import Samples


@st.composite
def data(draw):
    """(sequences, labels, K): ragged, with repeated tokens and samples; the label is somewhere in its sequence."""
    n_vocab = draw(st.integers(1, 5))
    sequences = draw(st.lists(st.lists(st.integers(0, n_vocab - 1), min_size=1, max_size=6), min_size=1, max_size=7))
    labels = [sequence[draw(st.integers(0, len(sequence) - 1))] for sequence in sequences]
    return sequences, labels, n_vocab + draw(st.integers(0, 2))


@st.composite
def problems(draw, scales=(0.0, 0.1, 1.0, 3.0)):
    """(weights, sequences, labels, samples), one-hot or embedded in any number of dimensions."""
    sequences, labels, n_vocab = draw(data())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    E = None if draw(st.booleans()) else rng.standard_normal((n_vocab, draw(st.integers(1, 6))))
    width = n_vocab if E is None else E.shape[1]
    weights = LastTokenWeights(draw(st.sampled_from(scales)) * rng.standard_normal((width, width)), E)
    return weights, sequences, labels, Samples.of(sequences, labels, n_vocab)


def embeddings(weights):
    return np.eye(weights.n_vocab) if weights.E is None else weights.E


def outputs(weights, loss):
    """Row = attended token, column = output token."""
    if loss in HEADED and weights.C is None:
        return np.eye(weights.n_vocab)
    return embeddings(weights) @ (weights.C if loss in HEADED else embeddings(weights)).T


def with_head(weights, loss, headed, rng):
    """The weights, with a random head C if the loss has one and ``headed``."""
    if not (headed and loss in HEADED):
        return weights
    return LastTokenWeights(weights.W, weights.E, rng.standard_normal(embeddings(weights).shape))


# -------------------------------------------------------------------------------------------------------------- samples


@given(data())
def test_samples_are_the_counts(drawn):
    sequences, labels, n_vocab = drawn
    samples = Samples.of(sequences, labels, n_vocab)
    bags = [(sequence[-1], label, sorted((j, sequence.count(j)) for j in set(sequence)))
            for sequence, label in zip(sequences, labels, strict=True)]
    found = []
    for i in range(len(samples)):
        part = slice(samples.starts[i], samples.starts[i + 1])
        bag = list(zip(samples.tokens[part].tolist(), samples.counts[part].tolist(), strict=True))
        found.append((samples.last[i], samples.labels[i], bag))
        assert samples.share[i] == bags.count(found[-1]) / len(bags)
        assert samples.tokens[samples.label_at[i]] == samples.labels[i]
        assert samples.sequences[i].tolist() in sequences
        assert sorted((j, samples.sequences[i].tolist().count(j)) for j, _ in bag) == bag
    assert sorted(found) == [bag for i, bag in enumerate(sorted(bags)) if bag not in sorted(bags)[:i]]
    assert (samples.n_given, samples.n_vocab) == (len(sequences), n_vocab)
    assert (np.diff(samples.last) >= 0).all()
    starts = samples.starts.tolist()
    assert samples.owner().tolist() == [i for i in range(len(samples)) for _ in range(starts[i], starts[i + 1])]


@given(problems(), st.sampled_from(LOSSES), st.integers(0, 2**32 - 1))
def test_samples_given_twice_or_in_another_order_change_no_bit(problem, loss, seed):
    weights, sequences, labels, samples = problem
    order = np.random.default_rng(seed).permutation(2 * len(labels))
    other = Samples.of([(sequences * 2)[i] for i in order], [(labels * 2)[i] for i in order], samples.n_vocab)
    value, gradient = loss_and_gradient(weights, samples, loss)
    again, same = loss_and_gradient(weights, other, loss)
    assert value == again
    np.testing.assert_array_equal(gradient.W, same.W)
    for name in ("last", "labels", "starts", "tokens", "counts", "label_at", "share"):
        np.testing.assert_array_equal(getattr(samples, name), getattr(other, name))
    np.testing.assert_array_equal(samples.batch().tokens, other.batch().tokens)


def test_huge_ids_are_refused_because_scores_are_a_table():
    """Of K x K scores: 46,340 tokens are the most that can be."""
    samples = Samples.of([[46339, 5], [5, 46339], [7, 5, 7]], [5, 5, 7])
    assert samples.tokens.tolist() == [5, 46339, 5, 7, 5, 46339]
    assert (samples.counts.tolist(), samples.n_vocab) == ([1, 1, 1, 2, 1, 1], 46340)
    for huge in (46340, 10**12, 2**62):
        with pytest.raises(ValueError, match=f"a vocabulary of {huge + 1:,} tokens .*: a table"):
            Samples.of([[huge, 5]], [5])


def test_merged_samples_are_shown_by_the_smallest_sequence():
    for sequences in ([[2, 0, 1, 1], [0, 2, 1, 1], [1, 0, 2, 1]], [[1, 0, 2, 1], [2, 0, 1, 1], [0, 2, 1, 1]]):
        samples = Samples.of(sequences, [0, 0, 0])
        assert [sequence.tolist() for sequence in samples.sequences] == [[0, 2, 1, 1]]
        assert (len(samples), samples.n_given, samples.share.tolist()) == (1, 3, [1.0])


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=4))
def test_prefixes_are_those_whose_label_occurs(texts):
    sequences, labels, n_left_out = naive.prefixes(texts)
    if not sequences:
        with pytest.raises(ValueError, match=f"^no samples: of the {n_left_out} prefixes"):
            Samples.prefixes(texts)
        return
    found, expected = Samples.prefixes(texts, 4), Samples.of(sequences, labels, 4)
    for name in ("last", "labels", "starts", "tokens", "counts", "label_at", "share", "n_given"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.n_left_out == n_left_out


def test_an_unknown_token_is_never_a_label():
    texts = [[0, 1, 0, 1], [2, 0, 2, 0]]
    samples = Samples.prefixes(texts, unknown=0)
    assert [sequence.tolist() for sequence in samples.sequences] == [[0, 1, 0], [2, 0]]
    assert samples.labels.tolist() == [1, 2]
    assert (samples.n_given, samples.n_left_out) == (2, 4)


def test_prefixes_of_a_corpus():
    corpus = minitx.builtin_corpus("stories", n_vocab=30, length=8, n_windows=20)
    samples = Samples.prefixes(corpus.tokens, len(corpus.vocabulary))
    assert samples.n_given + samples.n_left_out == corpus.tokens.shape[0] * (corpus.tokens.shape[1] - 1)


@pytest.mark.parametrize(("sequences", "labels", "n_vocab", "says"), [
    ([], [], None, "no samples"),
    ([[0], []], [0, 0], None, "sequence 1 must be a non-empty 1-D array of token ids"),
    ([[[0, 1]]], [0], None, "sequence 0 must be a non-empty 1-D array of token ids"),
    ([3], [3], None, "sequence 0 must be a non-empty 1-D array of token ids"),
    ([[1, [2, 3]]], [1], None, "sequence 0 must be a non-empty 1-D array of token ids"),
    ([[0], [1.0]], [0, 1], None, "sequence 1: token ids must be integers, got dtype float64"),
    ([["a"]], [0], None, "sequence 0: token ids must be integers, got dtype <U1"),
    ([[0, 5]], [0], 5, r"token ids must lie in \[0, 5\), but sequence 0 holds 5"),
    ([[0], [0, -1]], [0, 0], None, r"token ids must lie in \[0, 1\), but sequence 1 holds -1"),
    ([[0]], [0.0], None, "labels must be integers, got dtype float64"),
    ([[0]], [0, 0], None, r"1 sequences but labels of shape \(2,\)"),
    ([[0]], 0, None, r"1 sequences but labels of shape \(\)"),
    ([[0], [1]], [[0], [0, 1]], None, "labels must be integers, one for each sequence"),
    ([[0], [0, 2]], [0, 1], None, "sample 1: label 1 does not occur in its sequence"),
    ([[0]], [0], 0, "n_vocab is 0"),
])
def test_samples_refuse(sequences, labels, n_vocab, says):
    with pytest.raises(ValueError, match="^" + says):
        Samples.of(sequences, labels, n_vocab)


@pytest.mark.parametrize(("texts", "options", "says"), [
    ([], {}, "no samples"), ([[0, 0], []], {}, "text 1 must be a non-empty 1-D array of token ids"),
    ([[0, 7]], {"n_vocab": 7}, r"token ids must lie in \[0, 7\), but text 0 holds 7"),
])
def test_prefixes_refuse(texts, options, says):
    with pytest.raises(ValueError, match="^" + says):
        Samples.prefixes(texts, **options)


# ---------------------------------------------------------------------------------------------------- losses, gradients


@given(problems(scales=(0.0, 1.0, 3.0)))
def test_log_loss_by_counts_is_that_of_the_circuits(problem):
    weights, _, _, samples = problem
    value, gradient = loss_and_gradient(weights, samples)
    expected, by_circuits = minitx.loss_and_gradient(weights, samples.batch())
    assert value == pytest.approx(expected, rel=1e-13, abs=1e-13)
    size = np.linalg.norm(embeddings(weights), 2) ** 2  # rounding of dS, carried to dW
    np.testing.assert_allclose(gradient.W, by_circuits.W, rtol=0, atol=1e-13 * max(1.0, size))
    assert gradient.E is None
    A, _ = minitx.attention_and_output(weights, samples.batch())
    P = attention(weights, samples)
    for i, sequence in enumerate(samples.sequences):
        for m in range(samples.starts[i], samples.starts[i + 1]):
            copies = A[i, len(sequence) - 1, :len(sequence)][sequence == samples.tokens[m]]
            assert P[m] == pytest.approx(copies.sum(), abs=1e-13)


@given(problems(), st.sampled_from(HEADED), st.booleans())
def test_losses_through_a_head_are_those_of_the_circuits(problem, loss, headed):
    weights, _, _, samples = problem
    weights = with_head(weights, loss, headed, np.random.default_rng(len(samples)))
    batch = replace(samples.batch(), head="squared" if loss == "squared_error" else loss)
    value, gradient = loss_and_gradient(weights, samples, loss)
    expected, by_circuits = minitx.loss_and_gradient(weights, batch)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-13)
    size = np.linalg.norm(embeddings(weights), 2) ** 2 * (1 + np.linalg.norm(outputs(weights, loss), 2)) ** 2
    np.testing.assert_allclose(gradient.W, by_circuits.W, rtol=0, atol=1e-13 * max(1.0, size))


@given(problems())
def test_every_part_passes_the_complex_step_through_the_circuits(problem):
    weights, _, _, samples = problem
    check_gradient(weights, samples.batch(), rtol=1e-12)


@given(problems(), st.sampled_from(LOSSES), st.booleans())
def test_gradient_equals_the_complex_step(problem, loss, headed):
    weights, sequences, labels, samples = problem
    weights = with_head(weights, loss, headed, np.random.default_rng(len(samples)))
    E, table, value = embeddings(weights), outputs(weights, loss), loss_and_gradient(weights, samples, loss)
    expected = np.empty(weights.W.shape)
    for place in np.ndindex(*weights.W.shape):
        W = weights.W.astype(complex)
        W[place] += 1e-100j
        off = naive.last_token_loss((E @ W @ E.T).tolist(), sequences, labels, loss, table.tolist(), np.exp, np.log)
        expected[place] = off.imag / 1e-100
    assert value[0] == pytest.approx(off.real, rel=1e-12, abs=1e-15)
    of_head = {"log": 1, "square": 1, "squared_error": (1 + np.linalg.norm(table, 2)) ** 2}
    size = np.linalg.norm(E, 2) ** 2 * of_head.get(loss, np.linalg.norm(table, 2))
    np.testing.assert_allclose(value[1].W, expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-15 * size)


def by_digits(weights, sequences, labels, loss):
    """(loss, gradient (d, d)) in 320 digits: central differences of steps of 1e-20."""
    with decimal.localcontext(prec=320, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX):
        exact = np.vectorize(decimal.Decimal, otypes=[object])
        E, h, table = exact(embeddings(weights)), decimal.Decimal("1e-20"), exact(outputs(weights, loss))

        def value(W):
            return naive.last_token_loss(E.dot(W).dot(E.T), sequences, labels, loss, table, decimal.Decimal.exp,
                                         decimal.Decimal.ln)

        W, slopes = exact(weights.W), np.zeros(weights.W.shape)
        for place in np.ndindex(*W.shape):
            ahead, behind = W.copy(), W.copy()
            ahead[place] += h
            behind[place] -= h
            slopes[place] = float((value(ahead) - value(behind)) / (2 * h))
        return float(value(W)), slopes


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("margin", [10, 50, 300])
def test_saturated_gradients_keep_their_digits(loss, margin):
    """Where the label leads by e^-300, 1 - p is 0 in floating point; with the other sign, p is. Every entry counts."""
    sequences, labels = [[0, 1, 1, 2], [2, 2, 0, 1]], [0, 1]
    W = np.array([[0.0, 0.25, 1.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.125]])
    for sign in (1, -1):
        weights = LastTokenWeights(sign * margin * W)
        value, gradient = loss_and_gradient(weights, Samples.of(sequences, labels), loss)
        expected, slopes = by_digits(weights, sequences, labels, loss)
        assert value == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(gradient.W, slopes, rtol=1e-12, atol=0)
        assert np.count_nonzero(slopes) == 6


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("margin", [30, 300])
def test_saturated_gradients_keep_their_digits_in_embeddings(loss, margin):
    rng = np.random.default_rng(3)
    sequences, labels = [[0, 1, 3, 2], [3, 1, 2, 0], [0, 0, 3]], [1, 1, 0]
    E = rng.standard_normal((4, 4))
    scores = np.zeros((4, 4))
    scores[[1, 0], [2, 3]], scores[1, 0] = 1.0, 1.25
    weights = LastTokenWeights(margin * np.linalg.solve(E, np.linalg.solve(E, scores.T).T), E)
    value, gradient = loss_and_gradient(weights, Samples.of(sequences, labels), loss)
    expected, slopes = by_digits(weights, sequences, labels, loss)
    # the scores are rounded, to 1e-16 of the numbers that cancel in them, and the attention is as wrong as they are
    rounding = 1e-15 * (np.abs(E) @ np.abs(weights.W) @ np.abs(E.T)).max()
    assert value == pytest.approx(expected, rel=max(1e-12, rounding))
    np.testing.assert_allclose(gradient.W, slopes, rtol=0, atol=max(1e-12, rounding) * np.abs(slopes).max())


def test_a_label_that_underflows_has_a_finite_loss():
    samples = Samples.of([[0, 1, 1]], [0])
    value, gradient = loss_and_gradient(LastTokenWeights(np.array([[0.0, 0.0], [0.0, 2000.0]])), samples)
    assert value == pytest.approx(2000 + np.log(2), rel=1e-15)
    np.testing.assert_array_equal(gradient.W, [[0.0, -1.0], [0.0, 1.0]])


def test_a_sequence_of_its_label_alone_counts_and_costs_nothing():
    both = Samples.of([[1, 1], [0, 1]], [1, 0])
    value, gradient = loss_and_gradient(LastTokenWeights.zeros(2), both)
    alone, slope = loss_and_gradient(LastTokenWeights.zeros(2), Samples.of([[0, 1]], [0]))
    assert value == alone / 2
    np.testing.assert_array_equal(gradient.W, slope.W / 2)


def test_losses_of_the_reference_instances(next_token_reference):
    for kind, loss in (("instances", "log"), ("local_instances", "tied")):
        for instance in next_token_reference[kind]:
            samples = Samples.of(instance["ids"], instance["labels"], instance["K"])
            weights = LastTokenWeights(np.array(instance["W0"]), np.array(instance["E"]))
            assert loss_and_gradient(weights, samples, loss)[0] == pytest.approx(instance["loss_at_W0"], rel=1e-14)


def test_float32_stays_float32():
    weights = LastTokenWeights.gaussian(3, scale=1.0, rng=0).astype(np.float32)
    value, gradient = loss_and_gradient(weights, Samples.of([[0, 1, 2]], [1]))
    assert gradient.W.dtype == np.float32
    expected, _ = loss_and_gradient(weights.astype(np.float64), Samples.of([[0, 1, 2]], [1]))
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("weights", "loss", "error", "says"), [
    (LastTokenWeights.zeros(3), "hinge", ValueError,
     "unknown loss 'hinge'; it must be one of log, square, tied, cross_entropy, squared_error"),
    (LastTokenWeights.zeros(4), "log", ValueError, "the weights are for 4 tokens, the samples for 3"),
    (LastTokenWeights.zeros(E=np.eye(3), C=np.eye(3)), "log", ValueError, "the weights have a head C"),
    (LastTokenWeights(np.full((3, 3), np.nan)), "log", ValueError, "W: an entry is inf or nan"),
    (LastTokenWeights.zeros(E=np.full((3, 2), np.inf)), "log", ValueError, "E: an entry is inf or nan"),
    (LastTokenWeights(np.zeros((3, 3), complex)), "log", TypeError, "the weights are complex"),
    (LastTokenWeights(np.full((1, 1), 1e300), np.full((3, 1), 1e10)), "log", FloatingPointError,
     "the scores E W E^T overflow"),
])
def test_losses_refuse(weights, loss, error, says):
    with pytest.raises(error, match=says.replace("^", r"\^")):
        loss_and_gradient(weights, Samples.of([[0, 1, 2]], [1]), loss)


@settings(max_examples=10)
@given(problems())
def test_small_scores_give_attention_by_counts(problem):
    weights, sequences, _, samples = problem
    P, scores = attention(weights, samples), (embeddings(weights) @ weights.W @ embeddings(weights).T).tolist()
    for i, sequence in enumerate(samples.sequences):
        expected = naive.last_token_attention(scores, sequence.tolist(), np.exp)
        part = slice(samples.starts[i], samples.starts[i + 1])
        np.testing.assert_allclose(P[part], [expected[j] for j in samples.tokens[part].tolist()], rtol=1e-12)
