"""Two factors in the place of W: their gradients, the bias that they have, and their regularisation path."""

import naive_next_token as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_token_strategies import data, embedding

import minitx
from minitx.base.numbers import cosine
from minitx.model.weights import LastTokenWeights
from minitx.next_token.automaton import Automaton
from minitx.next_token.factors import FactoredWeights, factor_path, nuclear_svm
from minitx.next_token.losses import LOSSES, loss_and_gradient
from minitx.next_token.samples import Samples
from minitx.next_token.training import train


def small(seed=2, n_vocab=5, width=6):
    """(samples, E): random embeddings; two tokens in a cycle, some last tokens without a choice."""
    E = np.random.default_rng(seed).standard_normal((n_vocab, width))
    return Samples.of([[0, 1, 2, 4], [1, 0, 0, 4], [2, 3, 0, 4], [3, 3, 1, 0], [2, 2]], [0, 1, 0, 1, 2], n_vocab), E


# ------------------------------------------------------------------------------------------------- gradients, training


@settings(max_examples=20)
@given(data(), st.integers(1, 4), st.sampled_from(["log", "tied"]))
def test_gradients_of_both_factors_equal_the_complex_step(drawn, width, loss):
    n_vocab, sequences, labels, E, rng = drawn
    samples, table = Samples.of(sequences, labels, n_vocab), np.eye(n_vocab) if E is None else E
    start = FactoredWeights.gaussian(None if E is not None else n_vocab, scale=0.7, E=E, attention_width=width, rng=rng)
    found = start.chain(loss_and_gradient(start.product(), samples, loss)[1].W)
    for name in ("W_K", "W_Q"):
        expected = np.empty(getattr(start, name).shape)
        for place in np.ndindex(*expected.shape):
            parts = {part: getattr(start, part).astype(complex) for part in ("W_K", "W_Q")}
            parts[name][place] += 1e-100j
            scores = (table @ parts["W_K"]) @ (table @ parts["W_Q"]).T
            off = naive.last_token_loss(scores.tolist(), sequences, labels, loss, (table @ table.T).tolist(), np.exp,
                                        np.log)
            expected[place] = off.imag / 1e-100
        size = np.linalg.norm(table, 2) ** (4 if loss == "tied" else 2) * (1 + np.linalg.norm(start.product().W))
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0,
                                   atol=1e-12 * np.abs(expected).max() + 1e-15 * size)


def test_the_circuits_give_the_same_gradients():
    samples, E = small()
    start = FactoredWeights.gaussian(scale=0.5, E=E, attention_width=3, rng=0)
    value, gradient = minitx.loss_and_gradient(start, samples.batch())
    expected, of_product = loss_and_gradient(start.product(), samples)
    assert value == pytest.approx(expected, rel=1e-13)
    for name in ("W_K", "W_Q"):
        np.testing.assert_allclose(getattr(gradient, name), getattr(start.chain(of_product.W), name), atol=1e-13)


def test_factors_of_weights_are_balanced_and_oriented():
    """Row = dimension of the attended token in W_K, of the last token in W_Q: W = W_K W_Q' is not symmetric."""
    rng = np.random.default_rng(0)
    W, E = rng.standard_normal((4, 4)), rng.standard_normal((3, 4))
    factors = FactoredWeights.of(LastTokenWeights(W, E))
    np.testing.assert_allclose(factors.product().W, W, atol=1e-14)
    np.testing.assert_allclose(factors.W_K.T @ factors.W_K, factors.W_Q.T @ factors.W_Q, atol=1e-14)
    assert (factors.n_vocab, factors.product().E is factors.E or np.array_equal(factors.product().E, E)) == (3, True)
    score = np.outer(E[1] @ factors.W_K, E[2] @ factors.W_Q).trace()
    assert score == pytest.approx(E[1] @ W @ E[2])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", ["descent", "normalised"])
def test_training_moves_both_factors(mode, loss):
    samples, E = small()
    start, automaton = FactoredWeights.gaussian(scale=0.3, E=E, rng=1), Automaton.fit(samples, E)
    run = train(start, automaton, mode=mode, steps=3, learning_rate=0.2, loss=loss)
    W_K, W_Q = start.W_K, start.W_Q
    for _ in range(3):
        dW = loss_and_gradient(LastTokenWeights(W_K @ W_Q.T, E), samples, loss)[1].W
        dK, dQ = dW @ W_Q, dW.T @ W_K
        size = np.sqrt((dK**2).sum() + (dQ**2).sum()) if mode == "normalised" else 1.0
        W_K, W_Q = W_K - 0.2 * dK / size, W_Q - 0.2 * dQ / size
    np.testing.assert_allclose(run.weights.W_K, W_K, rtol=0, atol=1e-14)
    np.testing.assert_allclose(run.weights.W_Q, W_Q, rtol=0, atol=1e-14)
    assert run.records[-1].norm == pytest.approx(np.linalg.norm(W_K @ W_Q.T))


def test_a_head_stays_fixed_while_W_trains():
    samples, E = small()
    start = LastTokenWeights(np.zeros((6, 6)), E, np.random.default_rng(0).standard_normal((5, 6)))
    run = train(start, Automaton.fit(samples, E), mode="descent", steps=2, learning_rate=0.1, loss="cross_entropy")
    np.testing.assert_array_equal(run.weights.C, start.C)
    assert run.trajectory.loss[-1] < run.trajectory.loss[0]


@pytest.mark.parametrize(("mode", "says"), [("split", "mode 'split' moves W, but the start is FactoredWeights"),
                                            ("path", "mode 'path' moves W, but the start is FactoredWeights")])
def test_modes_that_are_given_the_sccs_refuse_factors(mode, says):
    samples, E = small()
    with pytest.raises(ValueError, match=says):
        train(FactoredWeights.gaussian(scale=0.1, E=E, rng=0), Automaton.fit(samples, E), mode=mode, steps=1)


# ------------------------------------------------------------------------------------------------- the nuclear norm


@settings(max_examples=10)
@given(data(kinds=("one-hot", "orthonormal", "equicorrelated", "random")))
def test_W_nuc_meets_the_constraints_and_no_weights_that_do_have_a_smaller_nuclear_norm(drawn):
    n_vocab, sequences, labels, E, _ = drawn
    automaton = Automaton.fit(Samples.of(sequences, labels, n_vocab), E)
    table = automaton.split.embeddings
    found = nuclear_svm(automaton.split.graphs, table)
    equal, above = naive.priorities(sequences, labels)
    size = 1 + np.linalg.norm(found.W) * np.linalg.norm(table, 2) ** 2
    for row in equal:
        assert abs(naive.score_difference(table, found.W, row)) <= 1e-7 * size
    for row in above:
        assert naive.score_difference(table, found.W, row) >= 1 - 1e-7 * size
    assert found.norm == pytest.approx(np.linalg.norm(found.W, "nuc"), abs=1e-12)
    assert found.norm <= np.linalg.norm(automaton.svm.W, "nuc") * (1 + 1e-6)
    assert found.gap <= 1e-4


def test_factors_that_start_small_grow_along_W_nuc(next_token_reference):
    """On the first instance of the notebooks the cosine is .98 with W_nuc and .84 with W_svm, where W itself ends."""
    instance = next_token_reference["instances"][0]
    E = np.array(instance["E"])
    automaton = Automaton.fit(Samples.of(instance["ids"], instance["labels"], instance["K"]), E)
    W_nuc = nuclear_svm(automaton.split.graphs, E).W
    run = train(FactoredWeights.gaussian(scale=0.01, E=E, rng=0), automaton, mode="normalised", steps=1500, at=())
    W = run.weights.product().W
    assert cosine(W, W_nuc) > 0.97 > 0.9 > cosine(W, automaton.svm.W)
    alone = train(LastTokenWeights.zeros(E=E), automaton, mode="normalised", steps=1500, at=()).weights.W
    assert cosine(alone, automaton.svm.W) > 0.97 > 0.9 > cosine(alone, W_nuc)


# ------------------------------------------------------------------------------------------------- the path


@pytest.mark.parametrize("kind", ["one-hot", "random"])
def test_factor_path_is_the_least_point_of_the_nuclear_norm(kind):
    """L + lam |W|_* is least where -dL/dW / lam is a subgradient: of norm 1 at most, and <., W> = |W|_*."""
    samples, _ = small()
    E = embedding(kind, 5, np.random.default_rng(3))
    lams = [0.1, 0.01, 1e-3]
    for lam, W in zip(lams, factor_path(samples, lams, E), strict=True):
        G = -loss_and_gradient(LastTokenWeights(W, E), samples)[1].W / lam
        assert np.linalg.norm(G, 2) <= 1 + 5e-5
        assert np.vdot(G, W) == pytest.approx(np.linalg.norm(W, "nuc"), rel=5e-5)


def test_factor_path_stays_at_zero_where_decay_is_strong_and_goes_along_W_nuc_where_it_is_weak(next_token_reference):
    instance = next_token_reference["instances"][0]
    E, samples = np.array(instance["E"]), Samples.of(instance["ids"], instance["labels"], instance["K"])
    slope = np.linalg.norm(loss_and_gradient(LastTokenWeights.zeros(E=E), samples)[1].W, 2)
    first, *_, last = factor_path(samples, [1.01 * slope, 1e-2, 1e-4, 1e-6], E)
    assert np.linalg.norm(first) < 1e-6
    automaton = Automaton.fit(samples, E)
    assert cosine(last, nuclear_svm(automaton.split.graphs, E).W) > 0.99 > 0.87 > cosine(last, automaton.svm.W)
