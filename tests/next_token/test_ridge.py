"""The regularisation path of the log loss in the whole space of W, and where the loss is convex."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_token_strategies import EMBEDDINGS, data

from minitx.base.numbers import cosine
from minitx.model.weights import LastTokenWeights
from minitx.next_token.automaton import Automaton
from minitx.next_token.factors import FactoredWeights
from minitx.next_token.losses import loss_and_gradient
from minitx.next_token.path import split_path
from minitx.next_token.ridge import ridge_path
from minitx.next_token.samples import Samples


@settings(max_examples=20)
@given(data())
def test_ridge_path_is_stationary(drawn):
    """lam W = -dL/dW, with the gradient by counts. The objective is strictly convex, so there is one such W."""
    n_vocab, sequences, labels, E, _ = drawn
    samples, lams = Samples.of(sequences, labels, n_vocab), (1.0, 0.1, 1e-3)
    for lam, W in zip(lams, ridge_path(samples, lams, E), strict=True):
        slope = loss_and_gradient(LastTokenWeights(W, E), samples)[1].W
        np.testing.assert_allclose(lam * W, -slope, rtol=0, atol=1e-13 * (1 + np.abs(0.0 if E is None else E).max()**2))


def test_ridge_path_of_two_tokens_by_hand():
    """W = a (e_0 - e_1) e_1' has the score difference 2 a, and a least point where lam a = sigmoid(-2 a)."""
    W = next(iter(ridge_path(Samples.of([[0, 1]], [0], 2), [0.25])))
    a = W[0, 1]
    np.testing.assert_allclose(W, [[0, a], [0, -a]], atol=1e-15)
    assert 0.25 * a == pytest.approx(1 / (1 + np.exp(2 * a)), rel=1e-12)


def test_ridge_path_meets_the_path_that_is_given_the_sccs(next_token_reference):
    """At tau = e / lam the two differ by a multiple of lam; 1 - correlation with W_svm falls as |W| grows."""
    instance = next_token_reference["instances"][0]
    samples, E = Samples.of(instance["ids"], instance["labels"], instance["K"]), np.array(instance["E"])
    automaton, lams = Automaton.fit(samples, E), 10.0 ** -np.arange(1, 9)
    path, fin, gaps = list(ridge_path(samples, lams, E)), [], []
    for lam, W in zip(lams, path, strict=True):
        V = next(iter(split_path(automaton.split, automaton.soft.W, [automaton.split.excess(W).value / lam])))
        gaps.append(np.linalg.norm(W - V))
        fin.append(np.linalg.norm(automaton.split.subspace.project(W) - automaton.soft.W))
    assert gaps[5] < 0.02 * gaps[3] and fin[5] < 0.02 * fin[3]
    far = [1 - cosine(W, automaton.svm.W) for W in path]
    assert (np.diff(far) < 0).all() and far[-1] < 0.01


def test_ridge_path_where_there_is_nothing_to_learn_is_zero():
    np.testing.assert_array_equal(next(iter(ridge_path(Samples.of([[0, 0], [1]], [0, 1]), [0.1]))), np.zeros((2, 2)))


# ------------------------------------------------------------------------------------------------- convexity


@given(data(kinds=EMBEDDINGS), st.sampled_from([0.0, 0.1, 1.0, 10.0]), st.sampled_from([0.1, 1.0, 10.0]),
       st.floats(0.0, 1.0))
def test_log_loss_is_convex_in_W(drawn, scale, apart, t):
    """-log P_y = log sum_j N_j exp(S_j - S_y) - log N_y, with S linear in W: convex for any E, W, samples and counts.

    The head is the identity (c_y' e_j is 1 for j = y and 0 otherwise), as in the paper, and W is one matrix. Held are
    the tangent, which lies below, and the chord, which lies above; and gradients are monotone.
    """
    n_vocab, sequences, labels, E, rng = drawn
    samples, width = Samples.of(sequences, labels, n_vocab), n_vocab if E is None else E.shape[1]
    one = scale * rng.standard_normal((width, width))
    other = one + apart * rng.standard_normal((width, width))
    (low, low_slope), (high, high_slope), (between, _) = (
        loss_and_gradient(LastTokenWeights(W, E), samples) for W in (one, other, (1 - t) * one + t * other))
    size = np.linalg.norm(np.eye(n_vocab) if E is None else E, 2) ** 2
    rounding = 1e-13 * (1 + low + high + size * (np.linalg.norm(one) + np.linalg.norm(other)))
    assert between <= (1 - t) * low + t * high + rounding
    assert high >= low + np.vdot(low_slope.W, other - one) - rounding
    assert np.vdot(high_slope.W - low_slope.W, other - one) >= -rounding


@pytest.mark.parametrize("loss", ["square", "tied", "squared_error"])
def test_losses_that_are_bounded_are_not_convex(loss):
    """A bounded function that is convex is constant; here it falls along a line, and stays between two bounds."""
    samples = Samples.of([[0, 1, 1]], [0])
    values = [loss_and_gradient(LastTokenWeights(np.array([[0.0, s], [0.0, 0.0]])), samples, loss)[0]
              for s in (-20.0, -10.0, 0.0)]
    assert values[1] > (values[0] + values[2]) / 2 + 1e-3


def test_log_loss_is_not_convex_in_two_factors():
    """(W_K, W_Q) and (-W_K, -W_Q) have the same product and the same loss; halfway between them is 0, and more loss."""
    W_K, W_Q = np.array([[2.0], [0.0]]), np.array([[0.0], [1.0]])
    losses = [loss_and_gradient(FactoredWeights(s * W_K, s * W_Q).product(), Samples.of([[0, 1]], [0]))[0]
              for s in (-1.0, 0.0, 1.0)]
    assert losses[0] == losses[2] < losses[1] - 0.1
