"""The split of the loss, W_fin and the residual, against plain loops, first-order descent and reference instances."""

import naive_next_token as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_token_strategies import EMBEDDINGS, basis_of, data, embedding

from minitx.model.weights import LastTokenWeights
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.losses import loss_and_gradient
from minitx.next_token.path import residual
from minitx.next_token.samples import Samples
from minitx.next_token.split import Split, soft_component
from minitx.next_token.svm import InfeasibleError, graph_svm


def split_of(sequences, labels, n_vocab, E):
    samples = Samples.of(sequences, labels, n_vocab)
    return Split(samples, priority_graphs(samples), E)


def of_reference(instance):
    return split_of(instance["ids"], instance["labels"], instance["K"], np.array(instance["E"]))


def scores(W, E):
    return W if E is None else E @ W @ E.T


# ---------------------------------------------------------------------------------------------------------------------
# The split
# ---------------------------------------------------------------------------------------------------------------------


@given(data(), st.sampled_from([0.0, 0.3, 3.0]))
def test_split_is_the_loss_and_both_terms_are_those_of_plain_loops(drawn, scale):
    n_vocab, sequences, labels, E, rng = drawn
    split = split_of(sequences, labels, n_vocab, E)
    W = scale * rng.standard_normal((split.embeddings.shape[1],) * 2)
    cyclic, excess = split.cyclic_loss(W), split.excess(W)
    expected = naive.split_losses(n_vocab, sequences, labels, scores(W, E), np.exp, np.log)
    assert (cyclic, excess.value) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert excess.value == (0.0 if excess.log_value == -np.inf else pytest.approx(np.exp(excess.log_value), rel=1e-15))
    loss, _ = loss_and_gradient(LastTokenWeights(W, E), split.samples)
    assert cyclic + excess.value == pytest.approx(loss, rel=1e-14, abs=1e-14)
    inside = split.subspace.project(W)
    assert split.cyclic_loss(inside) == pytest.approx(cyclic, rel=1e-12, abs=1e-13)


@given(data(), st.sampled_from([0.3, 2.0]))
def test_gradient_of_the_log_excess_is_the_complex_step(drawn, scale):
    n_vocab, sequences, labels, E, rng = drawn
    split = split_of(sequences, labels, n_vocab, E)
    shape = (split.embeddings.shape[1],) * 2
    W, direction = scale * rng.standard_normal(shape), rng.standard_normal(shape)
    found = split.excess(W)
    if found.log_value == -np.inf:
        assert not found.gradient.any()
        return
    step = scores(W + 1e-100j * direction, E)
    _, excess = naive.split_losses(n_vocab, sequences, labels, step, np.exp, np.log)
    expected = excess.imag / 1e-100 / excess.real
    if excess.real > 1e-3:  # log(1 + x) of the plain loops loses digits below
        rounding = 1e-11 * np.abs(found.gradient).sum()
        assert np.vdot(found.gradient, direction) == pytest.approx(expected, rel=1e-11, abs=rounding)


@pytest.mark.parametrize("margin", [1, 30, 300, 3000])
def test_excess_keeps_its_digits_at_any_margin(margin):
    """Two tokens outside, of different counts: log e = log(2 e^-m + e^-m'), though e itself underflows."""
    split = split_of([[0, 1, 1, 2]], [0], 3, None)
    W = np.zeros((3, 3))
    W[0, 2], W[2, 2] = margin, 0.25
    found = split.excess(W)
    z = np.log(2 + np.exp(0.25)) - margin
    assert found.log_value == pytest.approx(z if margin > 40 else np.log(np.log1p(np.exp(z))), rel=1e-14)
    share = np.exp(0.25) / (2 + np.exp(0.25))
    slope = 1.0 if margin > 40 else np.exp(z) / (1 + np.exp(z)) / np.log1p(np.exp(z))
    assert found.gradient[:, 2] == pytest.approx(slope * np.array([-1, 1 - share, share]), rel=1e-13)
    assert not found.gradient[:, :2].any()
    against = split.excess(-W)
    assert against.value == pytest.approx(np.log1p(np.exp(margin) * (2 + np.exp(-0.25))) if margin <= 300 else
                                          margin + np.log(2 + np.exp(-0.25)), rel=1e-14)


def test_split_of_reference_instances(next_token_reference):
    for instance in next_token_reference["instances"]:
        split, W = of_reference(instance), np.array(instance["W0"])
        assert split.cyclic_loss(W) + split.excess(W).value == pytest.approx(instance["loss_at_W0"], rel=1e-14)


def test_weights_that_are_not_finite_are_refused():
    split = split_of([[0, 1, 2], [1, 0, 2]], [0, 1], 3, None)
    W = np.zeros((3, 3))
    W[1, 2] = np.nan
    with pytest.raises(FloatingPointError, match="the excess is not a number: the weights are not finite"):
        split.excess(W)
    with pytest.raises(FloatingPointError, match="the cyclic loss is not finite"):
        split.cyclic_loss(W)


# ---------------------------------------------------------------------------------------------------------------------
# W_fin
# ---------------------------------------------------------------------------------------------------------------------


def test_soft_component_of_reference_instances(next_token_reference):
    for instance in next_token_reference["instances"]:
        found = soft_component(of_reference(instance))
        assert np.abs(found.W - instance["W_fin"]).max() <= 1e-12
        assert found.loss == pytest.approx(instance["cyclic_loss_min"], rel=1e-12)
        assert found.gradient_norm <= 1e-13
        assert found.dim == instance["n_equality_dim"]


@given(data())
def test_soft_component_is_where_the_gradient_of_the_cyclic_loss_is_0(drawn):
    """W_fin lies in S_fin for any embeddings, and no direction of S_fin lowers the loss."""
    n_vocab, sequences, labels, E, rng = drawn
    split = split_of(sequences, labels, n_vocab, E)
    found = soft_component(split)
    size = 1 + np.linalg.norm(found.W)
    assert found.gradient_norm <= 1e-13 * max(1, np.linalg.norm(split.embeddings, 2) ** 2)
    assert np.linalg.norm(split.subspace.rest(found.W)) <= 1e-13 * size
    assert found.loss == split.cyclic_loss(found.W)
    slope = 0.0
    for direction in basis_of(split.subspace):
        step = scores(found.W + 1e-100j * direction, E)
        cyclic, _ = naive.split_losses(n_vocab, sequences, labels, step, np.exp, np.log)
        slope = max(slope, abs(cyclic.imag / 1e-100))
    assert slope <= 1e-12 * max(1, np.linalg.norm(split.embeddings, 2) ** 2)
    other = split.subspace.project(rng.standard_normal(found.W.shape))
    assert split.cyclic_loss(found.W + other) >= found.loss - 1e-14
    if found.dim == 0:
        assert not found.W.any()


@settings(max_examples=8)
@given(data())
def test_first_order_descent_on_the_reduced_samples_ends_at_the_soft_component(drawn):
    """From W = 0 it never leaves S_fin, and it ends as near as its gradient and the least curvature say."""
    n_vocab, sequences, labels, E, _ = drawn
    split = split_of(sequences, labels, n_vocab, E)
    found = soft_component(split)
    W, slope = naive.reduced_descent(n_vocab, sequences, labels, split.embeddings, 1e-7, steps=4000)
    assert np.linalg.norm(split.subspace.rest(W)) <= 1e-12 * (1 + np.linalg.norm(W))
    assert split.cyclic_loss(W) >= found.loss - 1e-14
    if found.dim and slope < 1e-6:
        curvature = np.linalg.eigvalsh(_curvature(split, found.W))[0]
        assert np.linalg.norm(W - found.W) <= 1.5 * slope / curvature + 1e-12
        assert split.cyclic_loss(W) - found.loss <= slope**2 / curvature + 1e-14


def _curvature(split, W, step=1e-4):
    """Hessian of the cyclic loss in the basis of S_fin, by differences."""
    basis = basis_of(split.subspace)

    def slope(a, W):
        return (split.cyclic_loss(W + step * a) - split.cyclic_loss(W - step * a)) / (2 * step)

    rows = [[(slope(a, W + step * b) - slope(a, W - step * b)) / (2 * step) for a in basis] for b in basis]
    return (np.array(rows) + np.array(rows).T) / 2


@pytest.mark.parametrize("kind", EMBEDDINGS)
@pytest.mark.parametrize(("n_first", "n_second"), [(1, 1), (3, 1), (2, 7), (1, 1000)])
def test_two_tokens_in_equal_windows_have_the_log_odds_of_their_labels(kind, n_first, n_second):
    E = embedding(kind, 4, np.random.default_rng(3))
    split = split_of([[0, 1, 2]] * (n_first + n_second), [0] * n_first + [1] * n_second, 4, E)
    found = scores(soft_component(split).W, E)
    assert found[0, 2] - found[1, 2] == pytest.approx(np.log(n_first / n_second), abs=1e-13)


def test_embeddings_that_hide_a_cycle():
    """W_fin is 0 for two tokens of one SCC with one embedding, and for a last token whose embedding is 0."""
    E = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = soft_component(split_of([[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 2, 3]], [0, 1, 0, 2], 4, E))
    assert found.dim == 0 and not found.W.any() and found.gradient_norm == 0
    assert found.loss == pytest.approx(np.log(2), rel=1e-15)


@given(data())
def test_invariances(drawn):
    """Samples given twice change no bit, embeddings E Q give Q' W Q, and W_fin and W_svm are orthogonal."""
    n_vocab, sequences, labels, E, rng = drawn
    found = soft_component(split_of(sequences, labels, n_vocab, E))
    twice = soft_component(split_of(sequences[::-1] * 2, labels[::-1] * 2, n_vocab, E))
    assert np.array_equal(found.W, twice.W) and found.loss == twice.loss
    E = np.eye(n_vocab) if E is None else E
    Q = np.linalg.qr(rng.standard_normal((E.shape[1],) * 2))[0]
    rotated = soft_component(split_of(sequences, labels, n_vocab, E @ Q))
    assert np.abs(rotated.W - Q.T @ found.W @ Q).max() <= 1e-11 * (1 + np.abs(found.W).max())
    assert rotated.loss == pytest.approx(found.loss, rel=1e-13, abs=1e-14)


@given(data(kinds=EMBEDDINGS[:4]))
def test_soft_component_is_orthogonal_to_the_svm(drawn):
    n_vocab, sequences, labels, E, _ = drawn
    split = split_of(sequences, labels, n_vocab, E)
    svm, soft = graph_svm(split.graphs, split.embeddings).W, soft_component(split).W
    assert abs(np.vdot(svm, soft)) <= 1e-13 * (1 + np.linalg.norm(svm) * np.linalg.norm(soft))


# ---------------------------------------------------------------------------------------------------------------------
# The residual
# ---------------------------------------------------------------------------------------------------------------------


def residual_of(split):
    svm, soft = graph_svm(split.graphs, split.embeddings), soft_component(split)
    return svm.W, soft.W, residual(split, svm.W, soft.W)


def test_residual_of_reference_instances(next_token_reference):
    for instance in next_token_reference["instances"]:
        split = of_reference(instance)
        W_svm, W_fin, found = residual_of(split)
        assert not found.diverging
        assert np.linalg.norm(found.W) == pytest.approx(instance["residual_rho_norm"], rel=1e-9)
        assert abs(np.vdot(found.W, W_svm)) <= 1e-12 * np.linalg.norm(W_svm) * np.linalg.norm(found.W)
        assert np.linalg.norm(split.subspace.project(found.W)) <= 1e-12


def test_residual_turns_the_gradient_of_the_excess_to_the_svm(next_token_reference):
    """This defines rho: at g W_svm + W_fin + rho, for large g, the log-excess falls along W_svm alone.

    Here g is so large that only margins of 1 count: the least margin above 1 is 1.005.
    """
    for instance in next_token_reference["instances"]:
        split = of_reference(instance)
        W_svm, W_fin, rho = residual_of(split)
        slope = -split.subspace.rest(split.excess(1e4 * W_svm + W_fin + rho.W).gradient)
        cosine = np.vdot(slope, W_svm) / np.linalg.norm(slope) / np.linalg.norm(W_svm)
        assert 1 - cosine <= 1e-12
        assert np.linalg.norm(slope) == pytest.approx(1 / np.linalg.norm(W_svm), rel=1e-9)
        without = -split.subspace.rest(split.excess(1e4 * W_svm + W_fin).gradient)
        assert np.vdot(without, W_svm) / np.linalg.norm(without) / np.linalg.norm(W_svm) < 1 - 1e-3


@settings(max_examples=20)
@given(data())
def test_residual_is_stationary(drawn):
    """The weights kappa_c exp(<x_c, rho>) of the support rows sum to a multiple of W_svm, whatever the method."""
    n_vocab, sequences, labels, E, _ = drawn
    split = split_of(sequences, labels, n_vocab, E)
    try:
        W_svm, W_fin, rho = residual_of(split)
    except InfeasibleError:
        return
    if rho.diverging or not W_svm.any() or np.abs(W_svm).max() > 100:
        return
    total, E = np.zeros_like(W_svm), split.embeddings
    at_fin, at_rho, at_svm = (scores(W, split.E) for W in (W_fin, rho.W, W_svm))
    for sequence, label in zip(sequences, labels, strict=True):
        k, inside = sequence[-1], naive.component_of(n_vocab, sequences, labels, sequence[-1], label)
        mass = sum(np.exp(at_fin[j, k]) for j in sequence if j in inside)
        for j in sequence:
            if j not in inside and at_svm[label, k] - at_svm[j, k] < 1 + 1e-7:
                weight = np.exp(at_fin[j, k] + at_rho[j, k] - at_rho[label, k]) / mass
                total += weight * np.outer(E[label] - E[j], E[k])
    total = split.subspace.rest(total)
    cosine = np.vdot(total, W_svm) / np.linalg.norm(total) / np.linalg.norm(W_svm)
    assert 1 - cosine < 1e-9


def test_residual_that_diverges_is_flagged():
    """W_svm e_3 = (1, 0) gives 1 above 3 margin 1 as well, but by the other rows alone: that row's multiplier is 0."""
    samples = [[0, 1, 3], [1, 2, 3]], [0, 1], 4
    E = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    W_svm, _, found = residual_of(split_of(*samples, E))
    assert W_svm == pytest.approx(np.array([[0, 1], [0, 0]]), abs=1e-15)
    assert found.diverging
    assert not residual_of(split_of(*samples, None))[2].diverging


@pytest.mark.parametrize("size", [1e-50, 1e-3, 30.0, 1e50])
def test_long_and_short_embeddings(next_token_reference, size):
    """Embeddings c times as long give W_fin and the residual times 1 / c^2, because all scores stay the same."""
    for instance in next_token_reference["instances"][:3]:
        E = np.array(instance["E"])
        _, W_fin, rho = residual_of(of_reference(instance))
        _, scaled_fin, scaled = residual_of(of_reference({**instance, "E": size * E}))
        np.testing.assert_allclose(scaled_fin * size * size, W_fin, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scaled.W * size * size, rho.W, rtol=0, atol=1e-10)
        assert not scaled.diverging


def test_residual_where_nothing_is_above_anything():
    _, _, found = residual_of(split_of([[0, 1], [0, 1]], [0, 1], 2, None))
    assert not found.W.any() and not found.diverging
