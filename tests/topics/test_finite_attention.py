"""Stage 2 in documents of any length and law is held to enumeration, to known limits, and to drawn documents."""

import math
from dataclasses import replace
from fractions import Fraction

import naive_topics as naive
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minitx import Circuits, topics
from minitx.model import circuits
from minitx.topics import TopicModel, best_attention, expected_attention_loss
from minitx.topics.quadrature import beta_quadrature
from minitx.topics.sectors import Blocks

CORRUPTION = {"p_m": 0.4, "p_c": 0.2, "p_r": 0.3}
ATTENTION = st.tuples(st.floats(0.01, 30), st.floats(0, 30))


@st.composite
def laws(draw, T=(1, 4), v=(1, 4), length=None):
    """A pooled TopicModel of any corruption; the length is a number, a range or infinite."""
    n_topics, low = draw(st.integers(*T)), draw(st.integers(2, 30))
    share = {"tau": draw(st.integers(1, n_topics))} if draw(st.booleans()) else {"alpha": draw(st.floats(0.01, 20))}
    if length is None:
        length = draw(st.sampled_from([low, (low, low + 3), math.inf]))
    edges = st.sampled_from([0.0, 1.0]) | st.floats(0.01, 1)
    p_c = draw(edges)
    return TopicModel(n_topics, draw(st.integers(*v)), length, **share, p_m=draw(st.floats(0.05, 0.9)), p_c=p_c,
                      p_r=(1 - p_c) * draw(edges))


@st.composite
def values(draw):
    """Any value matrix that is constant on blocks."""
    return Blocks(*(draw(st.floats(-2, 2)) for _ in range(6)))


def enumerated(setting, value, alpha, beta):
    """The loss by enumeration of every document."""
    low, high = setting.lengths
    slots = naive.chosen_slots(setting.T, setting.v, range(low, high + 1), setting.p_m, setting.p_c, setting.p_r,
                               tau=setting.tau, alpha=setting.alpha)
    return naive.finite_attention_loss(value.matrix(setting), slots, setting.v, alpha, beta)


@pytest.mark.parametrize(("T", "v", "length", "law"), [
    (3, 2, 3, {"tau": 2}), (3, 1, 3, {"alpha": 0.3}), (2, 2, (2, 3), {"alpha": 1.5}), (1, 3, 3, {"tau": 1})])
def test_the_loss_is_that_of_all_documents_enumerated(T, v, length, law):
    setting = TopicModel(T, v, length, **law, **CORRUPTION)
    for value in (topics.optimal_value(setting), Blocks(0.3, -0.2, 0.1, 0.9, 0.4, -0.5)):
        found = expected_attention_loss(setting, 3.7, 1.9, value)
        assert found == pytest.approx(enumerated(setting, value, 3.7, 1.9), rel=1e-11)


@settings(max_examples=15)
@given(laws(T=(1, 2), v=(1, 2), length=3), values(), ATTENTION)
@example(TopicModel(2, 1, 3, tau=1, p_m=0.5, p_c=1.0, p_r=0.0), Blocks(0, 0, 0, 1, math.nan, 0.5), (2.0, 0.0))
def test_any_law_and_value_matrix(setting, value, attention):
    found = expected_attention_loss(setting, *attention, value)
    assert found == pytest.approx(enumerated(setting, value, *attention), rel=1e-10)


@settings(max_examples=25)
@given(laws(length=math.inf), values(), ATTENTION)
def test_infinitely_long_documents_of_tau_topics_have_the_closed_form(setting, value, attention):
    if setting.tau is None:
        setting = replace(setting, alpha=None, tau=1)
    expected = topics.attention_loss(setting, *attention, value)
    assert expected_attention_loss(setting, *attention, value) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25)
@given(laws(), values())
def test_uniform_attention_has_the_loss_of_the_second_moments(setting, value):
    C, M = topics.moments(setting).matrices()
    W = value.matrix(setting)
    expected = 1 - 2 * np.sum(W * C) + np.sum((W @ M) * W)
    assert expected_attention_loss(setting, 1.0, 1.0, value) == pytest.approx(expected, rel=1e-10)


def test_long_documents_approach_infinite_ones():
    for law in ({"tau": 2}, {"alpha": 0.2}):
        gaps = [abs(expected_attention_loss(TopicModel(4, 3, N, **law), 5.0, 2.0)
                    - expected_attention_loss(TopicModel(4, 3, math.inf, **law), 5.0, 2.0)) for N in (50, 100, 200)]
        assert gaps[0] > 1.9 * gaps[1] > 1.9**2 * gaps[2]


def test_arrays_are_broadcast():
    setting = TopicModel(3, 2, 6, tau=2)
    found = expected_attention_loss(setting, [[1.0], [2.0]], [1.0, 3.0, 0.0])
    assert found.shape == (2, 3)
    assert found[1, 2] == expected_attention_loss(setting, 2.0, 0.0)


@pytest.mark.parametrize("tau", [2, 4])
def test_the_best_attention_of_infinite_documents_is_the_closed_one(tau):
    setting = TopicModel(10, 10, math.inf, tau=tau)
    ratio, best = topics.optimal_ratio(setting), best_attention(setting)
    assert (best.alpha, best.beta) == pytest.approx((ratio.rho, ratio.rho), rel=1e-9)
    assert (best.loss, best.loss_uniform) == pytest.approx((ratio.loss, ratio.loss_uniform), rel=1e-12)
    copying, value = best_attention(setting, topics.other_limit_value(setting)), topics.other_limit_value(setting)
    closed = topics.optimal_attention(setting, value)
    assert (copying.alpha, copying.beta, copying.loss) == pytest.approx((closed.alpha, 0.0, closed.loss), rel=1e-9)


@pytest.mark.parametrize(("T", "v", "law", "corruption"), [
    (3, 2, {"tau": 2}, {}), (3, 1, {"tau": 1}, {"p_m": 0.5, "p_r": 0.4}), (2, 3, {"tau": 1}, {"p_c": 0.05, "p_r": 0.6}),
    (3, 2, {"alpha": 0.05}, {"p_r": 0.5}), (2, 2, {"alpha": 8.0}, {"p_c": 0.0}),
    (4, 2, {"tau": 3}, {"p_c": 0.0, "p_r": 0.0})])
@pytest.mark.parametrize("tied", [False, True])
def test_nothing_near_the_best_is_better(T, v, law, corruption, tied):
    setting = TopicModel(T, v, 6, **law, **corruption)
    for value in (topics.separated_value(setting), topics.optimal_value(setting)):
        best = best_attention(setting, value, tied=tied)
        factors = np.array([0.7, 0.95, 1.05, 1.4])
        alpha, beta = best.alpha * factors[:, None], best.beta * factors
        near = expected_attention_loss(setting, alpha, alpha if tied else beta, value)
        assert best.loss <= min(near.min(), best.loss_uniform) + 1e-14


@pytest.mark.parametrize(("tau", "trained", "sd"), [
    (2, (5.52, 0.15, 6.53, 66.8), (.05, .02, .07, .6)),
    pytest.param(4, (7.50, 1.25, 8.73, 124.6), (.02, .12, .03, .6), marks=pytest.mark.slow)])
def test_it_is_what_training_had_found(tau, trained, sd):
    """The means and standard deviations are those of an independent search by gradient descent on drawn documents."""
    setting = TopicModel(10, 10, 128, tau=tau)
    free = best_attention(setting)
    found = (best_attention(setting, tied=True).rho, free.alpha, free.beta,
             best_attention(setting, topics.optimal_value(setting)).alpha)
    np.testing.assert_array_less(np.abs(np.subtract(found, trained)) / sd, 2.1)


@pytest.mark.parametrize("law", [{"tau": 2}, {"alpha": 0.3}], ids=str)
def test_documents_that_are_drawn_anew_have_the_expected_loss(law):
    """On documents drawn anew the layer itself has the expected loss, which is lowest at the best attention."""
    setting = TopicModel(4, 3, (10, 14), **law, **CORRUPTION)
    value = topics.optimal_value(setting)
    best = best_attention(setting, value)
    losses = {}
    for alpha, beta in ((best.alpha, best.beta), (best.alpha, 3 * best.beta + 1), (1.0, 1.0)):
        topic = setting.topic_of_token
        weight = np.where((topic[:, None] == topic) & (topic >= 0), max(beta, 1e-30), 1.0)
        weight[range(1, setting.V), range(1, setting.V)] = alpha
        tables = Circuits(None, value.matrix(setting).T.copy(), np.log(weight), None, None)
        drawn = [circuits.loss(tables, setting.mask(setting.documents(1000, rng=seed), head="squared", rng=seed))
                 for seed in range(8)]
        expected, error = expected_attention_loss(setting, alpha, beta, value), np.std(drawn, ddof=1) / math.sqrt(8)
        assert abs(np.mean(drawn) - expected) < 4 * error
        losses[alpha, beta] = np.mean(drawn)
    assert min(losses, key=losses.get) == (best.alpha, best.beta)


@given(st.integers(1, 60), st.floats(0.001, 1e5), st.floats(0.001, 1e5), st.data())
def test_quadrature_is_exact_for_polynomials(nodes, ours, others, data):
    x, weight = beta_quadrature(ours, others, nodes)
    power, exact = data.draw(st.integers(0, min(2 * nodes - 1, 12))), Fraction(1)
    for i in range(power):
        exact *= (Fraction(ours) + i) / (Fraction(ours) + Fraction(others) + i)
    assert weight @ x**power == pytest.approx(float(exact), rel=1e-11)


def test_refusals():
    setting = TopicModel(3, 2, 6, tau=2)
    with pytest.raises(ValueError, match="the loss is per document"):
        expected_attention_loss(replace(setting, loss="per_document"), 1.0, 1.0)
    with pytest.raises(ValueError, match="alpha is 0"):
        expected_attention_loss(setting, 0.0, 1.0)
    with pytest.raises(ValueError, match="alpha goes down to -1"):
        expected_attention_loss(setting, -1.0, 1.0)
    with pytest.raises(TypeError, match="value"):
        best_attention(setting, np.eye(7))
    with pytest.raises(ValueError, match="pairs of counts"):
        best_attention(TopicModel(3, 2, 10**6, tau=2))
    with pytest.raises(ValueError, match="no minimum"):
        best_attention(TopicModel(2, 1, 6, alpha=1.0, p_c=1.0, p_r=0.0))
    with pytest.raises(ValueError, match="topics"):
        best_attention(TopicModel(2, None, 6, alpha=1.0, topic_word=[[0.5, 0.5, 0], [0, 0.5, 0.5]]))
