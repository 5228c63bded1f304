"""Closed forms of the topics theory (Li, Li, Risteski 2023). A number that ends a test's name is that of the notes."""

import math
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import product

import naive_topics as naive
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from minitx import Circuits, loss_and_gradient, topics
from minitx.topics.law import TopicModel
from minitx.topics.sectors import Blocks

PAPER = {"n_topics": 10, "words_per_topic": 10}
WORDS = ("same_word", "same_topic", "different_topic")


def paper(length=math.inf, **law):
    return TopicModel(**PAPER, length=length, **law)


def table(blocks):
    words = {name: getattr(blocks, name) for name in WORDS}
    return {"mask_col": blocks.mask_column, "mask_row": blocks.mask_row, **words}


def close(blocks, expected, tolerance):
    for name, value in table(blocks).items():
        assert value == pytest.approx(expected[name], abs=tolerance), name


@st.composite
def laws(draw, *, T=(2, 9), v=(1, 7), least=1e-3, least_tau=1, N=(2, 200), length=None):
    """A TopicModel of tau < T in the ranges of the notes; p_c, p_r and the rest each at least ``least`` (relative)."""
    n_topics = draw(st.integers(*T))
    parts = [draw(st.floats(least, 1)) for _ in range(3)]
    p_c, p_r = (part / sum(parts) for part in parts[:2])
    return TopicModel(n_topics, draw(st.integers(*v)), draw(st.integers(*N)) if length is None else length,
                      tau=draw(st.integers(least_tau, n_topics - 1)), p_m=draw(st.floats(0.05, 0.9)), p_c=p_c, p_r=p_r)


@st.composite
def any_laws(draw):
    """Any TopicModel, with tau = T, T = 1, probabilities 0 and 1; but a is 0 or at least .01: 1e-16/a^2 is rounding."""
    n_topics, low = draw(st.integers(1, 6)), draw(st.integers(2, 40))
    length = draw(st.sampled_from([low, (low, low + draw(st.integers(0, 9))), math.inf]))
    share = {"tau": draw(st.integers(1, n_topics))} if draw(st.booleans()) else {"alpha": draw(st.floats(0.01, 20))}
    edges = st.sampled_from([0.0, 1.0]) | st.floats(0.01, 1)
    p_c = draw(edges)
    return TopicModel(n_topics, draw(st.integers(1, 5)), length, **share, p_c=p_c,
                      p_m=draw(st.just(1.0) | st.floats(0.05, 0.9)), p_r=(1 - p_c) * draw(edges),
                      loss=draw(st.sampled_from(["pooled", "per_document"])))


# ---------------------------------------------------------------------------------------------------------------------
# Moments and value matrix
# ---------------------------------------------------------------------------------------------------------------------

P = {"p_m": Fraction(3, 20), "p_c": Fraction(1, 10), "p_r": Fraction(1, 10)}


def test_exact_enumeration_normal_equations_hold_1():
    """[1] In fractions, W M = C in every entry; a wrong lam_w violates entries; the floats are these fractions."""
    C, M = naive.moments(3, 2, [3], **P, tau=2)
    h = naive.inverse_share(3, tau=2)
    lam_w, lam_t = naive.optimal_sectors(h, 3, **P)
    W = naive.matrix_of_sectors(3, 2, lam_w, lam_t, Fraction(1), Fraction(1))
    assert naive.violations(W, M, C) == 0
    wrong = naive.matrix_of_sectors(3, 2, lam_w + Fraction(1, 10**9), lam_t, Fraction(1), Fraction(1))
    assert naive.violations(wrong, M, C) > 0
    setting = TopicModel(3, 2, 3, tau=2)
    np.testing.assert_allclose(topics.optimal_value(setting).matrix(setting), np.array(W, float), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("T", "v", "length", "law"), [
    (3, 2, 3, {"tau": 2}), (3, 2, 2, {"tau": 1}), (2, 1, 4, {"tau": 1}), (2, 2, 3, {"tau": 2}), (1, 2, 3, {"tau": 1}),
    (2, 2, 3, {"alpha": Fraction(1, 2)}), (3, 1, 3, {"alpha": Fraction(1, 10)}), (2, 1, (2, 4), {"tau": 1}),
    (2, 2, 3, {"tau": 1, "loss": "per_document"}), (2, 1, 4, {"alpha": Fraction(3), "loss": "per_document"}),
    (2, 1, (2, 4), {"alpha": Fraction(1, 3), "loss": "per_document"})])
@pytest.mark.parametrize("corruption", [P, {"p_m": Fraction(3, 4), "p_c": Fraction(1, 5), "p_r": Fraction(1, 2)},
                                        {"p_m": Fraction(1), "p_c": Fraction(1, 3), "p_r": Fraction(0)}])
def test_dense_moments_equal_enumeration_2(T, v, length, law, corruption):
    law = dict(law)
    loss = law.pop("loss", "pooled")
    lengths = range(length[0], length[1] + 1) if isinstance(length, tuple) else [length]
    C, M = naive.moments(T, v, lengths, **corruption, **law, per_document=loss == "per_document")
    law = {name: float(value) if name == "alpha" else value for name, value in law.items()}
    corruption = {name: float(p) for name, p in corruption.items()}
    found = topics.moments(TopicModel(T, v, length, **law, **corruption, loss=loss)).matrices()
    np.testing.assert_allclose(found[0], np.array(C, float), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found[1], np.array(M, float), rtol=0, atol=1e-14)


@given(any_laws())
def test_value_solves_the_normal_equations_3(setting):
    C, M = topics.moments(setting).matrices()
    W = topics.optimal_value(setting).matrix(setting)
    np.testing.assert_allclose(W @ M, C, rtol=0, atol=1e-13)
    if topics.moments(setting).M_t > 1e-9 or setting.length == math.inf:  # of minimum norm: nothing where M is nothing
        np.testing.assert_allclose(W, C @ np.linalg.pinv(M, rcond=1e-13, hermitian=True), rtol=0, atol=1e-6)


@given(laws())
def test_columns_sum_to_1_and_row_0_is_0_4(setting):
    W = topics.optimal_value(setting).matrix(setting)
    np.testing.assert_allclose(W.sum(axis=0), 1, rtol=0, atol=1e-12)
    assert not W[0].any()


@given(any_laws(), st.floats(-7, 1))
def test_ridge_solves_its_equations_5(setting, power):
    C, M = topics.moments(setting).matrices()
    W = topics.ridge_value(setting, 10**power).matrix(setting)
    np.testing.assert_allclose(W @ (M + 10**power * np.eye(setting.V)), C, rtol=0, atol=1e-13)


@given(laws())
def test_paper_value_is_the_pseudoinverse_and_reproduces_topics_6_7(setting):
    W = topics.paper_value(setting).matrix(setting)
    other = topics.other_limit_value(setting).matrix(setting)
    documents = naive.shares(setting.T, setting.v, setting.tau, setting.p_m, setting.p_c, setting.p_r)
    Q, Y = np.array([q for _, q, _ in documents]).T, np.array([y for _, _, y in documents]).T
    np.testing.assert_allclose(W, Y @ np.linalg.pinv(Q, rcond=1e-10), rtol=0, atol=1e-8)
    np.testing.assert_allclose(W @ Q, Y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(other @ Q, Y, rtol=0, atol=1e-12)


@given(laws())
def test_gap_of_the_paper_8(setting):
    expected = 1 / setting.v / (1 - setting.p_m * (1 - setting.p_c))
    assert topics.paper_value(setting).gap == pytest.approx(expected, rel=0, abs=1e-12)
    assert topics.paper_value(replace(setting, tau=setting.T)).gap == 0
    assert topics.separated_value(replace(setting, tau=setting.T)).gap == pytest.approx(1 / (setting.a * setting.v))
    close(topics.separated_value(setting), table(topics.paper_value(setting)), 1e-14)


@pytest.mark.parametrize("n_cases", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_order_of_the_blocks_9(n_cases):
    """Same word > same topic > different topic in every case, and in all of the 20,000 cases of the notes."""
    rng = np.random.default_rng(0)
    violations = 0
    for _ in range(n_cases):
        T = int(rng.integers(2, 10))
        p_c, p_r, _ = rng.dirichlet(np.ones(3))
        v, N, tau = (int(rng.integers(*ends)) for ends in ((1, 8), (2, 201), (1, T)))
        found = topics.optimal_value(TopicModel(T, v, N, tau=tau, p_m=rng.uniform(0.05, 0.9), p_c=p_c, p_r=p_r))
        violations += not found.same_word > found.same_topic > found.different_topic
    assert violations == 0


@given(laws())
def test_gram_reproduces_topics_and_is_psd_10(setting):
    forever = replace(setting, length=math.inf)
    K = topics.optimal_gram(forever).matrix(setting)
    for _, q, y in naive.shares(setting.T, setting.v, setting.tau, setting.p_m, setting.p_c, setting.p_r):
        np.testing.assert_allclose(K @ q, y, rtol=0, atol=1e-12)
    for each in (K, topics.optimal_gram(setting).matrix(setting), topics.gram_plateau(setting).matrix(setting)):
        assert np.linalg.eigvalsh(each).min() >= -1e-12
    assert topics.optimal_gram(forever) == topics.gram_plateau(forever)


@given(laws(T=(2, 5), v=(1, 4)))
def test_gram_of_finite_documents_is_the_best_psd_one(setting):
    """K has the best (x, gamma) of the notes' B3, found by a search, and no small psd step lowers the squared loss."""
    C, M = topics.moments(setting).matrices()
    K = topics.optimal_gram(setting).matrix(setting)
    G = K @ M - C
    G = G + G.T  # gradient on symmetric K: optimal over psd matrices iff G is psd where K is 0, and G K = 0
    np.testing.assert_allclose(G @ K, 0, atol=1e-10)
    assert np.linalg.eigvalsh(G).min() >= -1e-10


@given(laws())
def test_least_loss_of_long_documents_11(setting):
    forever = replace(setting, length=math.inf)
    (C, M), W = topics.moments(forever).matrices(), topics.paper_value(setting).matrix(setting)
    assert 1 - 2 * np.sum(W * C) + np.sum(W @ M * W) == pytest.approx(1 - 1 / (setting.tau * setting.v), abs=1e-12)


def least_loss(setting):
    """[11] 1 - [T (v-1) C_w^2/M_w + (T-1) C_t^2/M_t + 1/n]; a sector that holds nothing adds nothing."""
    found, T, v = topics.moments(setting), setting.T, setting.v
    words, among_topics = (C**2 / M if M > 0 else 0 for C, M in ((found.C_w, found.M_w), (found.C_t, found.M_t)))
    return 1 - (T * (v - 1) * words + (T - 1) * among_topics + 1 / setting.n)


def finite_length_correction(setting):
    """[17] c of a lam_t = 1 + c/N + O(1/N^2); per document, other slots are less often chosen."""
    a, h, p_c = setting.a, setting.h, setting.p_c
    pooled = 2 + p_c * h / a - (1 - setting.m) * h / a**2 - 2 * p_c / a
    return pooled if setting.loss == "pooled" else pooled - (1 - setting.p_m) * (1 - p_c) / a


def test_ridge_at_long_documents_is_the_papers_15():
    for tau in (1, 2, 4):
        setting = paper(10**9, tau=tau)
        close(topics.ridge_value(setting, 1e-7), table(topics.paper_value(setting)), 1e-4)


@given(laws(length=10**13))
def test_ridge_within_its_window_is_the_papers_15(setting):
    """The window is (1-m)/(N n) << ridge << a^2 G; N = 1e9 and ridge 1e-7 are outside it for other laws."""
    close(topics.ridge_value(setting, 1e-5 * setting.a**2 * setting.G), table(topics.paper_value(setting)), 1e-4)


# One word a topic and hardly a [MASK]: the variance of its share is lost when the square of its mean is added.
FEW_MASKS = TopicModel(2, 1, 10**13, tau=1, p_m=0.05, p_c=0.9985, p_r=0.001)


@example(FEW_MASKS, -18)
@example(FEW_MASKS, -20)
@given(laws(length=10**13), st.floats(-25, 1))
def test_ridge_reaches_one_limit_or_the_other(setting, power):
    """Each part of W turns from its other limit to the paper's at a ridge of its own; its distance from both is
    bounded.

    Let x = ridge / that ridge. The distance from the other limit is at most x times the distance between the limits,
    and the distance from the paper's limit is at most 1/x times it. That ridge is (1-m)/(N n) for words, where lam_w
    turns from p_c/(1-m) to 0, and m(1-m)/(N den) for al and be, which turn from 1 to n m/den and (1-m)/den, den = n m^2
    + (1-m)^2. Topics have one limit, lam_t = 1/a. A ridge also shrinks what it does not turn: lam_t by at most the
    share ridge/(a^2 G), al and be by at most the share n ridge/den. What is left of a finite N is at most (1-m) h/(a^2
    N), below 1e-9 here, since h <= 64 and a >= 0.1.
    """
    ridge, N, n, m, a = 10.0**power, setting.length, setting.n, setting.m, setting.a
    den = n * m**2 + (1 - m)**2
    found = topics.ridge_value(setting, ridge)
    lam_w, lam_t, be = found.sectors(setting)
    assert abs(a * lam_t - 1) <= ridge / (a**2 * setting.G) + 1e-9
    x, shrunk = ridge * N * den / (m * (1 - m)), n * ridge / den
    for value, papers in ((n * found.mask_column, n * m / den), (be, (1 - m) / den)):
        assert abs(value - 1) <= x * (abs(papers - 1) + shrunk) + 1e-9
        assert abs(value - papers) <= abs(papers - 1) / x + shrunk * papers + 1e-9
    if setting.v > 1:
        x, other = ridge * N * n / (1 - m), setting.p_c / (1 - m)
        assert abs(lam_w - other) <= other * x + 1e-9
        assert abs(lam_w) <= other / x + 1e-9


def test_long_documents_without_ridge_are_the_other_limit_16():
    for law in ({"tau": 1}, {"tau": 2}, {"tau": 4}, {"alpha": 0.1}):
        close(topics.optimal_value(paper(10**9, **law)), table(topics.other_limit_value(paper(**law))), 1e-8)


@given(laws())
def test_long_enough_documents_are_the_other_limit_16(setting):
    """The distance is c/N, and c goes into the thousands."""
    enough = int(1e10 * (1 + abs(finite_length_correction(setting))))
    close(topics.optimal_value(replace(setting, length=enough)), table(topics.other_limit_value(setting)), 1e-8)


def test_correction_of_finite_length_17():
    for law, expected in (({"tau": 2}, -0.62), ({"tau": 4}, -4.59), ({"alpha": 0.1}, -0.35)):
        for loss in ("pooled", "per_document"):
            setting = paper(10**5, **law, loss=loss)
            lam_t = topics.optimal_value(setting).sectors(setting)[1]
            c = finite_length_correction(setting)
            assert 10**5 * (setting.a * lam_t - 1) == pytest.approx(c, abs=1e-2)
            if loss == "pooled":
                assert c == pytest.approx(expected, abs=5e-3)


@given(laws(), st.sampled_from(["pooled", "per_document"]))
def test_correction_of_long_enough_documents_17(setting, loss):
    """What is left is about c^2/N."""
    setting = replace(setting, loss=loss)
    c = finite_length_correction(setting)
    N = int(max(1e5, 3000 * (1 + c * c)))
    found = topics.moments(replace(setting, length=N))
    assert N * (setting.a * found.C_t / found.M_t - 1) == pytest.approx(c, abs=1e-2)


@given(laws())
def test_without_topics_to_tell_apart_sectors_agree_18(setting):
    everywhere = replace(setting, tau=setting.T)
    lam_w, lam_t, _ = topics.optimal_value(everywhere).sectors(setting)
    if setting.v > 1:
        assert lam_t == pytest.approx(lam_w, abs=1e-10)
    assert topics.optimal_value(everywhere).gap == pytest.approx(0, abs=1e-12)


@given(any_laws(), st.integers(0, 60), st.floats(0.01, 0.99))
def test_gradient_descent_follows_the_closed_trajectory_20(setting, steps, fraction):
    C, M = topics.moments(setting).matrices()
    learning_rate = fraction / np.linalg.eigvalsh(M)[-1]
    W = np.zeros_like(C)
    for _ in range(steps):
        W = W - learning_rate * 2 * (W @ M - C)
    found = topics.value_after(setting, steps, learning_rate).matrix(setting)
    np.testing.assert_allclose(found, W, rtol=0, atol=1e-12)


@given(any_laws())
def test_learning_rates_are_refused_from_where_descent_diverges(setting):
    """An error along the steepest direction is multiplied by 1 - 2 eta M each step: it grows only above eta = 1/M."""
    _, M = topics.moments(setting).matrices()
    scales, directions = np.linalg.eigh(M)
    limit = 1 / scales[-1]
    for learning_rate, grows in ((0.999 * limit, False), (1.001 * limit, True)):
        error = directions[:, -1:].T
        for _ in range(10):
            error = error - learning_rate * 2 * (error @ M)
        assert (np.linalg.norm(error) > 1) == grows
    topics.value_after(setting, 10, 0.999 * limit)
    with pytest.raises(ValueError, match="diverges above") as refusal:
        topics.value_after(setting, 10, 1.001 * limit)
    assert f"diverges above {limit:.6g} for" in str(refusal.value)


def test_trajectory_learns_topics_first_and_ends_at_the_optimum():
    setting = paper(128, tau=2)
    found = topics.moments(setting)
    assert found.M_t / found.M_w == pytest.approx(49, abs=0.5)
    early = topics.value_after(setting, 100, 5.0)
    assert early.same_topic - early.different_topic > 0.9 * topics.optimal_value(setting).gap
    assert early.same_word - early.same_topic < 0.1 * (0.11433)
    close(topics.value_after(setting, 10**9, 5.0), table(topics.optimal_value(setting)), 1e-12)
    with pytest.raises(ValueError, match="diverges above"):
        topics.value_after(setting, 10, 1e3)


@given(laws(), st.integers(1, 9))
def test_a_minute_learning_rate_loses_no_digits(setting, steps):
    """W = 2 eta steps C to first order in eta: nothing cancels, however small eta is."""
    C, _ = topics.moments(setting).matrices()
    found = topics.value_after(setting, steps, 1e-12).matrix(setting)
    np.testing.assert_allclose(found, 2e-12 * steps * C, rtol=0, atol=1e-21)


@given(laws(), st.floats(0.01, 5))
def test_first_step_21(setting, learning_rate):
    found = topics.moments(setting)
    learning_rate = min(learning_rate, 0.5 / np.linalg.eigvalsh(found.M_pair)[-1], 0.5 / found.M_t)
    gap = topics.value_after(setting, 1, learning_rate).gap
    assert gap == pytest.approx(2 * learning_rate * (found.C_t - found.C_w) / setting.v, abs=1e-14)
    assert gap > 0


@given(st.integers(2, 9), st.data())
def test_h_is_that_of_the_subsets_22(T, data):
    tau = data.draw(st.integers(1, T - 1))
    assert TopicModel(T, 1, 5, tau=tau).h == pytest.approx(float(naive.inverse_share(T, tau=tau)), abs=1e-12)
    alpha = data.draw(st.fractions(Fraction(1, 50), 5, max_denominator=50))
    expected = float(naive.inverse_share(T, alpha=alpha))
    assert TopicModel(T, 1, 5, alpha=float(alpha)).h == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_any_gram_minimiser_has_the_block_gap_24(seed):
    """Descent on E from large entries: within a topic K is whatever it is, the block averages are not."""
    T, v, tau = 3, 2, 2
    setting = TopicModel(T, v, math.inf, tau=tau)
    documents = naive.shares(T, v, tau, setting.p_m, setting.p_c, setting.p_r)
    Q, Y = np.array([q for _, q, _ in documents]).T, np.array([y for _, _, y in documents]).T
    E = np.random.default_rng(seed).normal(0, 0.6, (8, T * v + 1))
    for _ in range(6000):
        G = (E.T @ (E @ Q) - Y) @ Q.T
        E = E - 0.2 * E @ (G + G.T)
    K = E.T @ E
    assert np.abs(K @ Q - Y).max() < 1e-12
    blocks = K[1:, 1:].reshape(T, v, T, v).mean(axis=(1, 3))
    gap = np.trace(blocks) / T - (blocks.sum() - np.trace(blocks)) / (T * (T - 1))
    assert gap == pytest.approx(1 / (setting.a * v), abs=1e-10)
    assert abs(Blocks.of(K, setting).gap - 1 / (setting.a * v)) > 1e-3  # the different words alone are free


@given(laws(), st.randoms(use_true_random=False))
def test_permuting_topics_and_words_26(setting, random):
    T, v = setting.T, setting.v
    order = [0]
    for t in random.sample(range(T), T):
        order += [1 + t * v + k for k in random.sample(range(v), v)]
    W = topics.optimal_value(setting).matrix(setting)
    C, M = topics.moments(setting).matrices()
    np.testing.assert_allclose(W[np.ix_(order, order)], W, rtol=0, atol=1e-12)
    np.testing.assert_allclose(M[np.ix_(order, order)], M, rtol=0, atol=1e-12)
    np.testing.assert_allclose(C[np.ix_(order, order)], C, rtol=0, atol=1e-12)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_blocks_of_a_matrix(T, v, seed):
    matrix, law = np.random.default_rng(seed).normal(size=(T * v + 1, T * v + 1)), TopicModel(T, v, tau=1)
    found = asdict(Blocks.of(matrix, law))
    expected = naive.block_averages(matrix, T, v)
    for name, value in found.items():
        assert math.isnan(value) and name not in expected or value == pytest.approx(expected[name], abs=1e-13)
    again = asdict(Blocks.of(Blocks(**found).matrix(law), law))
    for name, value in again.items():
        assert value == pytest.approx(found[name], abs=1e-13, nan_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# Stage 2
# ---------------------------------------------------------------------------------------------------------------------

numbers = st.floats(-1, 1)


@st.composite
def values(draw, setting):
    """Blocks of W_V: those of the theory, or any."""
    finite = replace(setting, length=draw(st.integers(2, 200)))
    named = {"paper": topics.paper_value, "limit": topics.other_limit_value, "finite": topics.optimal_value}
    kind = draw(st.sampled_from([*named, "any"]))
    return named[kind](finite) if kind != "any" else Blocks(*(draw(numbers) for _ in range(6)))


@given(laws(T=(2, 5), v=(1, 4), length=math.inf, least=1e-9), st.data())
def test_attention_loss_is_the_loop_over_all_keys_12(setting, data):
    if data.draw(st.booleans()):
        setting = replace(setting, tau=setting.T)
    value = data.draw(values(setting))
    alpha, beta = data.draw(st.floats(0.01, 100)), data.draw(st.floats(0.01, 100))
    found = topics.attention_loss(setting, [alpha, 1.0], [beta, 1.0], value)
    law = (setting.T, setting.v, setting.tau, setting.p_m, setting.p_c, setting.p_r)
    for loss, weights in zip(found, [(alpha, beta), (1, 1)], strict=True):
        assert loss == pytest.approx(naive.attention_loss(value.matrix(setting), *law, *weights), rel=0, abs=1e-12)


def test_attention_loss_draws_a_surface():
    setting = paper(tau=2)
    surface = topics.attention_loss(setting, np.array([[1.0], [6.0]]), [1.0, 3.0, 6.0])
    assert surface.shape == (2, 3)
    assert surface[1, 2] == topics.attention_loss(setting, 6, 6.0)
    assert isinstance(topics.attention_loss(setting, 6, 6), float)
    # W_inf: flat along alpha + (v-1) beta
    assert topics.attention_loss(setting, 10, 0) == pytest.approx(topics.attention_loss(setting, 1, 1), abs=1e-15)


@given(laws(least_tau=2, T=(3, 9), length=math.inf))
def test_best_ratio_is_above_1_and_below_its_bound_13(setting):
    found = topics.optimal_ratio(setting)
    assert 0 < found.theta_AB < 1
    assert 1 < found.rho <= found.rho_AB
    grid = found.rho * np.exp(np.linspace(-3, 3, 61))
    assert found.loss <= topics.attention_loss(setting, grid, grid).min() + 1e-15
    assert found.loss < found.loss_uniform == pytest.approx(1 - 1 / (setting.tau * setting.v), abs=1e-12)


def at_theta(setting, theta):
    """Loss with W_inf at theta = (rho-1) s / Z."""
    rho = 1 + theta / (setting.s * (1 - theta))
    return topics.attention_loss(setting, rho, rho)


@given(laws(length=math.inf))
def test_slope_at_uniform_attention_14(setting):
    expected = -2 * setting.p_c * (setting.tau - 1) / (setting.a * setting.tau * setting.v)
    assert (at_theta(setting, 1e-4) - at_theta(setting, -1e-4)) / 2e-4 == pytest.approx(expected, abs=1e-6)


@given(laws(least_tau=2, T=(3, 9), length=math.inf))
def test_best_ratio_is_where_the_slope_is_0(setting):
    """The slope by differences is 0 to its own error at the optimum, relative to the slope at uniform attention."""
    found = topics.optimal_ratio(setting)
    theta = (found.rho - 1) * setting.s / (1 + (found.rho - 1) * setting.s)
    step = 1e-5 * min(theta, 1 - theta)
    up, down = at_theta(setting, theta + step), at_theta(setting, theta - step)
    curvature = (up - 2 * found.loss + down) / step**2
    assert curvature > -1e-15 / step**2
    expected = 2 * setting.p_c * (setting.tau - 1) / (setting.a * setting.tau * setting.v)
    assert abs(up - down) / (2 * step) <= 1e-6 * expected + 1e-15 / step


@given(laws(length=math.inf))
def test_all_topics_in_every_document_23(setting):
    found = topics.optimal_ratio(replace(setting, tau=setting.T))
    assert found.rho == pytest.approx(found.rho_AB, rel=1e-4)


@given(laws(length=math.inf))
def test_one_topic_or_no_shown_word_leaves_attention_uniform_28(setting):
    for law in (replace(setting, tau=1), replace(setting, p_c=0.0)):
        assert topics.optimal_ratio(law).rho == pytest.approx(1, abs=1e-4)
        rho = np.exp(np.linspace(-3, 3, 31))
        assert topics.attention_loss(law, rho, rho).min() >= topics.attention_loss(law, 1, 1) - 1e-15


@given(laws(T=(2, 4), v=(1, 3), length=math.inf, least=0.05))
def test_freed_mask_is_a_lower_minimum(setting):
    found, tied = topics.optimal_ratio(setting, free_mask=True), topics.optimal_ratio(setting)
    assert found.loss <= tied.loss + 1e-15
    W = topics.separated_value(setting).matrix(setting)
    law = (setting.T, setting.v, setting.tau, setting.p_m, setting.p_c, setting.p_r)
    assert naive.attention_loss(W, *law, found.rho, found.rho, found.rho_0) == pytest.approx(found.loss, abs=1e-12)
    for away, away_0 in product((0.9, 1, 1.1), repeat=2):
        near = (found.rho * away, found.rho * away, found.rho_0 * away_0)
        assert naive.attention_loss(W, *law, *near) >= found.loss - 1e-14


def test_freed_mask_of_the_paper():
    for tau, expected in ((2, (5.8568, 1.3444)), (4, (8.1145, 1.5018))):
        found = topics.optimal_ratio(paper(tau=tau), free_mask=True)
        assert (found.rho, found.rho_0) == pytest.approx(expected, abs=5e-5)


def test_best_attention_with_other_values_is_copying():
    setting = paper(tau=2)
    found = topics.optimal_attention(setting, topics.other_limit_value(setting))
    assert (found.alpha, found.beta, found.rho) == pytest.approx((627, 0, 62.7), abs=0.5)
    tied = topics.optimal_attention(setting, topics.paper_value(setting))
    assert (tied.alpha, tied.beta) == pytest.approx([topics.optimal_ratio(setting).rho] * 2, rel=1e-9)


@given(laws(T=(2, 6), v=(1, 5), least=0.05), st.integers(0, 10**6))
def test_no_other_attention_is_better(setting, seed):
    value = topics.optimal_value(setting)
    try:
        found = topics.optimal_attention(setting, value)
    except ValueError as error:
        assert "no minimum" in str(error)
        return
    assert found.rho == pytest.approx((found.alpha + (setting.v - 1) * found.beta) / setting.v, rel=1e-9)
    assert topics.attention_loss(setting, found.alpha, found.beta, value) == pytest.approx(found.loss, abs=1e-14)
    alpha, beta = np.exp(np.random.default_rng(seed).normal(0, 4, (2, 2000)))
    assert topics.attention_loss(setting, alpha, beta, value).min() >= found.loss - 1e-14
    near = found.alpha * np.linspace(0.99, 1.01, 21)[:, None], found.beta * np.linspace(0.99, 1.01, 21) + 1e-3
    assert topics.attention_loss(setting, *near, value).min() >= found.loss - 1e-14


CORRUPTIONS = [(0.15, 0.1, 0.1), (0.5, 0.2, 0.0), (0.6, 0.0, 0.4), (1.0, 0.3, 0.7), (0.3, 1.0, 0.0), (1.0, 0.0, 0.0),
               (0.3, 0.0, 0.0)]


@pytest.mark.parametrize(("p_m", "p_c", "p_r"), CORRUPTIONS)
@pytest.mark.parametrize(("T", "v", "tau"), [(3, 2, 2), (2, 3, 1), (2, 2, 2), (1, 2, 1)])
def test_infinite_documents_are_the_population(T, v, tau, p_m, p_c, p_r):
    setting = TopicModel(T, v, math.inf, tau=tau, p_m=p_m, p_c=p_c, p_r=p_r)
    found = topics.infinite_documents(setting)
    documents = naive.shares(T, v, tau, p_m, p_c, p_r)
    assert found.tokens.dtype == found.targets.dtype == np.int32
    assert found.weight.sum() == pytest.approx(1, abs=1e-14)
    assert (found.tokens[:, 0] == 0).all() == (setting.q0 > 0)
    for row, (_, q, y) in enumerate(documents):
        targets = np.bincount(found.targets[row], found.weight[row], len(q)) * len(documents)
        np.testing.assert_allclose(np.bincount(found.tokens[row], found.mass[row], len(q)), q, rtol=0, atol=1e-15)
        np.testing.assert_allclose(targets, y, rtol=0, atol=1e-15)
    value, alpha, beta = Blocks(0.1, 0.3, -0.2, 0.5, 0.2, -0.1), 3.0, 0.7
    scores = np.log(Blocks(1, 1, 1, alpha, beta, 1).matrix(setting))
    loss = naive.population_loss(value.matrix(setting), scores, found.tokens, found.targets, found.weight, found.mass)
    assert loss == pytest.approx(topics.attention_loss(setting, alpha, beta, value), rel=0, abs=1e-12)


@pytest.mark.parametrize(("p_m", "p_c", "p_r"), CORRUPTIONS)
def test_model_on_the_infinite_population_has_the_closed_loss(p_m, p_c, p_r):
    setting = TopicModel(4, 3, math.inf, tau=2, p_m=p_m, p_c=p_c, p_r=p_r)
    found = topics.infinite_documents(setting)
    some = Blocks(0.1, 0.3, -0.2, 0.5, 0.2, -0.1)
    for value, alpha, beta in ((some, 3.0, 0.7), (topics.optimal_value(setting), 5.7, 5.7)):
        scores = np.log(Blocks(1, 1, 1, alpha, beta, 1).matrix(setting))
        circuits = Circuits(direct=None, ov=value.matrix(setting).T.copy(), qk=scores, position=None, bias=None)
        loss, _ = loss_and_gradient(circuits, found)
        assert loss == pytest.approx(topics.attention_loss(setting, alpha, beta, value), rel=0, abs=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (5.5, 5.5), (20.0, 0.3)])
def test_profile_is_the_average_over_all_documents(alpha, beta):
    sums, counts = naive.profile(3, 2, 3, 2, alpha, beta)
    found = topics.attention_profile(TopicModel(3, 2, 3, tau=2), alpha, beta)
    assert [getattr(found, name) for name in WORDS] == pytest.approx(list(sums / counts), abs=1e-13)
    shorter = naive.profile(3, 2, 2, 2, alpha, beta)
    found = topics.attention_profile(TopicModel(3, 2, (2, 3), tau=2), alpha, beta)
    expected = list((sums + shorter[0]) / (counts + shorter[1]))
    assert [getattr(found, name) for name in WORDS] == pytest.approx(expected, abs=1e-13)


def test_profile_predicts_the_notes_and_has_its_limit():
    found = topics.attention_profile(paper(128, tau=2), 5.52, 5.52)
    assert (found.same_topic, found.different_topic) == pytest.approx((1.682, 0.308), abs=1.5e-3)
    found = topics.attention_profile(paper((100, 150), alpha=0.1), 6.62, 6.62)
    # the notes' numbers, 1.467 and .402, are one sample of 500 documents, of standard deviation .020 and .003
    assert found.same_topic == pytest.approx(1.467, abs=0.04)
    assert found.different_topic == pytest.approx(0.402, abs=0.006)
    for law in ({"tau": 2}, {"alpha": 0.1}):
        long, forever = (topics.attention_profile(paper(length, **law), 8.0, 3.0) for length in (1000, math.inf))
        for name in WORDS:
            assert getattr(long, name) == pytest.approx(getattr(forever, name), rel=2e-2)


# ---------------------------------------------------------------------------------------------------------------------
# Cross-entropy
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("law", [{"tau": 2}, {"alpha": 0.5, "loss": "per_document"}])
def test_sampled_cross_entropy_is_that_of_the_enumeration(law):
    T, v, lengths, p = 3, 2, (2, 3), {"p_m": 0.5, "p_c": 0.3, "p_r": 0.2}
    exact = {"alpha": Fraction(1, 2), "per_document": True} if "alpha" in law else law
    slots = {key: float(weight) for key, weight in naive.gathered_slots(T, v, lengths, **p, **exact).items()}
    u = np.array([[tokens.count(word) / len(tokens) for word in range(1, T * v + 1)] for _, tokens in slots])
    U = np.repeat(u.reshape(-1, T, v).sum(axis=2), v, axis=1)
    y, weight = np.array([target - 1 for target, _ in slots]), np.array(list(slots.values()))

    def loss(x):
        logits = x[0] * u + x[1] * U
        return weight @ (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]) / weight.sum()

    best = minimize(loss, [1, 1], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-13})
    setting = TopicModel(T, v, lengths, **p, **law)
    found = topics.cross_entropy_optimum(setting, n_documents=100_000)  # so many tell pooled from per document
    assert 0 < found.se_A < 0.03 and 0 < found.se_B < 0.03 and 0 < found.se_loss < 0.01 and found.n_documents == 100_000
    assert abs(found.A - best.x[0]) < 4 * found.se_A
    assert abs(found.B - best.x[1]) < 4 * found.se_B
    assert abs(found.loss - best.fun) < 4 * found.se_loss
    alone = minimize(lambda x: loss([0, x[0]]), [1], method="Nelder-Mead")
    found = topics.cross_entropy_optimum(setting, same_word=False, n_documents=20_000)
    assert found.A == 0 == found.se_A and abs(found.B - alone.x[0]) < 4 * found.se_B


def test_sampling_is_seeded():
    setting = TopicModel(3, 2, 20, tau=2)
    one, two, three = (topics.cross_entropy_optimum(setting, n_documents=500, rng=rng)
                       for rng in (1, np.random.default_rng(1), 2))
    assert one == two != three


@pytest.mark.parametrize(("length", "law", "same_word", "expected"), [
    (32, {"tau": 2}, True, (2.26, 8.24, 3.273)), (128, {"tau": 2}, True, (2.30, 10.59, 3.117)),
    (128, {"tau": 4}, True, (4.69, 13.07, 3.864)), ((100, 150), {"alpha": 0.1}, True, (2.11, 6.28, 3.35)),
    (128, {"tau": 2}, False, (0, 10.83, None)), (128, {"tau": 4}, False, (0, 13.56, None)),
    ((100, 150), {"alpha": 0.1}, False, (0, 6.48, None)), (math.inf, {"alpha": 0.1}, True, (0, 6.51, 3.35))])
def test_cross_entropy_of_the_notes(length, law, same_word, expected):
    """The optimum is within 4 standard errors, which include those of the notes' own sample of 40,000 documents."""
    found = topics.cross_entropy_optimum(paper(length, **law), same_word=same_word, n_documents=3000)
    errors = (found.se_A, found.se_B, found.se_loss)
    for value, error, number in zip((found.A, found.B, found.loss), errors, expected, strict=True):
        assert number is None or abs(value - number) <= 4 * error * math.sqrt(1 + 3000 / 40_000) + 5e-3
    assert errors[1] < 0.1


@pytest.mark.parametrize("ridge", [1e-1, 1e-3, 1e-6])
def test_ridge_path_is_the_minimum_over_all_matrices(ridge):
    setting = TopicModel(3, 2, math.inf, tau=2)
    documents = naive.shares(3, 2, 2, setting.p_m, setting.p_c, setting.p_r)
    Q, Y = np.array([q for _, q, _ in documents]).T, np.array([y for _, _, y in documents]).T

    def objective(flat):
        W = flat.reshape(7, 7)
        logits = W @ Q
        top = np.exp(logits - logits.max(axis=0))
        total = np.log(top.sum(axis=0)) + logits.max(axis=0) - (Y * logits).sum(axis=0)
        gradient = (top / top.sum(axis=0) - Y) @ Q.T / len(documents) + 2 * ridge * W
        return total.mean() + ridge * (W**2).sum(), gradient.ravel()

    best = minimize(objective, np.zeros(49), jac=True, method="L-BFGS-B",
                    options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9})
    found = topics.cross_entropy_optimum(setting, ridge=ridge)
    W = found.value.matrix(setting)
    assert objective(W.ravel())[0] == pytest.approx(best.fun, rel=1e-10)
    assert np.abs(objective(W.ravel())[1]).max() < 1e-10  # the minimum itself: the problem is convex
    np.testing.assert_allclose(W, best.x.reshape(7, 7), rtol=0, atol=1e-3 * np.abs(W).max())
    assert found.loss == pytest.approx(objective(W.ravel())[0] - ridge * (W**2).sum(), rel=1e-12)
    assert found.A == 0 and found.B == pytest.approx(found.value.gap)


def test_ridge_path_ends_at_the_floor_in_the_max_margin_direction():
    """Delta and Dm: logits of a word of the document above one outside, and of the mean word above [MASK]."""
    setting = paper(tau=2)
    found = topics.cross_entropy_optimum(setting, ridge=1e-80)
    assert found.loss == pytest.approx(math.log(20), abs=1e-12)
    _, q, y = naive.shares(setting.T, setting.v, setting.tau, setting.p_m, setting.p_c, setting.p_r)[0]
    logits = found.value.matrix(setting) @ q
    inside = np.array(y)[1:] > 0
    Delta = logits[1:][inside].mean() - logits[1:][~inside].mean()
    assert Delta == pytest.approx(found.B * setting.a / 2)
    assert (logits[1:].mean() - logits[0]) / Delta == pytest.approx(0.2, abs=0.05)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers of the notes and of the reference file
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "expected", "tolerance"), [
    (lambda: topics.paper_value(paper(tau=2)), (0.054191, 0.108020, 0.108020, -0.007587), 6e-7),
    (lambda: topics.other_limit_value(paper(tau=4)), (0.01, 0.216319, 0.102683, -0.001561), 6e-7),
    (lambda: topics.optimal_value(paper(128, tau=2)), (0.01, 0.21644, 0.10211, -0.001505), 6e-6),
    (lambda: topics.optimal_value(paper(128, tau=4)), (0.01, 0.21335, 0.09902, -0.001162), 6e-6),
    (lambda: topics.optimal_value(paper((100, 150), alpha=0.1)), (0.01, 0.21667, 0.10232, -0.001528), 6e-6),
    (lambda: topics.optimal_value(paper(16, tau=4, loss="per_document")), (0.01, 0.19239, 0.07749, 0.00122), 6e-6),
    (lambda: topics.optimal_value(paper(16, tau=4)), (0.01, 0.19887, 0.07947, 0.00095), 6e-6),
    (lambda: topics.optimal_gram(paper(tau=2)), (0, 0.115410, 0.115410, -0.000197), 6e-7),
    (lambda: topics.gram_plateau(paper(128, tau=2)), (0.00119, 0.114797, 0.114797, -0.000254), 6e-7),
    (lambda: topics.optimal_gram(paper(128, tau=2)), (0.00119, 0.217691, 0.103364, -0.000254), 6e-7),
    (lambda: topics.gram_plateau(paper(128, tau=4)), (0.00119, 0.111706, 0.111706, 0.0000897), 6e-7)])
def test_numbers_of_the_notes(blocks, expected, tolerance):
    found = blocks()
    entries = (found.mask_column, found.same_word, found.same_topic, found.different_topic)
    assert entries == pytest.approx(expected, abs=tolerance)


def test_ratios_of_the_notes():
    for tau, rho, bound, losses in ((2, 5.7629, 5.7715, (0.95, 0.946103)), (4, 7.7160, 7.7236, (0.975, 0.969849)),
                                    (10, 9.2230, 9.2230, (0.99, 0.985632))):
        found = topics.optimal_ratio(paper(tau=tau))
        assert (found.rho, found.rho_AB) == pytest.approx((rho, bound), abs=6e-5)
        assert (found.loss_uniform, found.loss) == pytest.approx(losses, abs=6e-7)
    assert topics.optimal_ratio(paper(tau=2, p_m=1e-9)).rho == pytest.approx(11, abs=1e-6)  # 1 + T p_c / p_r


def test_reference_value_matrices(topics_reference):
    stage = topics_reference["stage1a"]
    close(topics.paper_value(paper(tau=2)), stage["W_inf"], 1e-15)
    close(topics.other_limit_value(paper(tau=2)), stage["W_lim"], 1e-15)
    assert topics.paper_value(paper(alpha=0.1)).gap == pytest.approx(stage["gap_inf"], abs=1e-15)
    for name, expected in stage["finite"].items():
        tau, N = (int(part.lstrip("tauN")) for part in name.split("_"))
        found = topics.optimal_value(paper(N, tau=tau))
        close(found, expected, 1e-15)
        assert found.sectors(paper(tau=2))[:2] == pytest.approx((expected["lam_w"], expected["lam_t"]), abs=1e-14)
    close(topics.optimal_value(paper((100, 150), alpha=0.1)), stage["finite_dirichlet_N100_150"], 1e-15)
    for ridge, expected in stage["ridge_tau2_N128"].items():
        close(topics.ridge_value(paper(128, tau=2), float(ridge)), expected, 1e-15)


def test_reference_constants(topics_reference):
    setting, expected = paper(128, tau=2), topics_reference["setting"]
    for name in ("T", "v", "p_m", "p_c", "p_r", "a", "r", "m", "q0"):
        assert getattr(setting, name) == pytest.approx(expected[name], abs=1e-15)
    h = [paper(**law).h for law in ({"tau": 2}, {"tau": 4}, {"alpha": 0.1})]
    assert h == pytest.approx(list(expected["h"].values()), abs=1e-15)
    found, sectors = topics.moments(setting), topics_reference["stage1a"]["sectors_tau2_N128"]
    values = {"Cw": found.C_w, "Mw": found.M_w, "Ct": found.C_t, "Mt": found.M_t, "mu": found.mask_share,
              "s2": found.mask_variance, "G": setting.G}
    for name, value in values.items():
        assert value == pytest.approx(sectors[name], rel=1e-14)


def test_reference_gram_matrices(topics_reference):
    stage = topics_reference["stage1b"]
    close(topics.optimal_gram(paper(tau=2)), stage["gram_inf"], 1e-15)
    for name, setting in (("tau2_N128", paper(128, tau=2)), ("tau4_N128", paper(128, tau=4)),
                          ("dir0.1_N100-150", paper((100, 150), alpha=0.1))):
        expected = stage["finite"][name]
        for found, numbers, tolerance in ((topics.gram_plateau(setting), expected["plateau_pred"], 1e-9),
                                          (topics.optimal_gram(setting), expected["final_pred"], 1e-9),
                                          (topics.optimal_gram(setting), expected["psd_population_solver"], 3e-9)):
            got = [found.mask_column, found.same_word, found.same_topic, found.different_topic, found.mask_mask]
            assert got == pytest.approx(numbers, abs=tolerance)


def test_reference_attention(topics_reference):
    """The reference's own minimiser stopped within 1e-5 of its optima; its losses are exact."""
    for expected in topics_reference["stage2"]["Ninf"]["paper_setting"]:
        setting = paper(tau=expected["tau"])
        found, freed = topics.optimal_ratio(setting), topics.optimal_ratio(setting, free_mask=True)
        assert (found.theta_AB, found.rho_AB) == pytest.approx((expected["theta_AB"], expected["rho_AB"]), abs=1e-12)
        losses = (expected["loss_uniform"], expected["loss_opt"])
        assert (found.loss_uniform, found.loss) == pytest.approx(losses, abs=1e-14)
        assert (found.rho, freed.rho, freed.rho_0) == pytest.approx(
            (expected["rho_star"], expected["free_mask_rho"], expected["free_mask_rho0"]), abs=1e-5)
        assert freed.loss == pytest.approx(expected["free_mask_loss"], abs=1e-14)
        copying = topics.optimal_attention(setting, topics.other_limit_value(paper(tau=2)))
        assert copying.beta == 0 and copying.alpha == pytest.approx(expected["W_lim_alpha"], rel=1e-6)
        assert copying.loss == pytest.approx(expected["W_lim_loss"], abs=1e-14)
    for p_m, *ratios in topics_reference["stage2"]["Ninf"]["pm_to_0"]:
        assert [topics.optimal_ratio(paper(tau=tau, p_m=p_m)).rho for tau in (2, 4)] == pytest.approx(ratios, abs=1e-5)


def test_reference_cross_entropy(topics_reference):
    for tau in (2, 4):
        expected = topics_reference["cross_entropy"]["two_param"][f"tau{tau}_N128"]
        setting = paper(128, tau=tau)
        found = topics.cross_entropy_optimum(setting, n_documents=4000)
        assert abs(found.A - expected["A"]) < 4 * math.hypot(found.se_A, expected["seA"])
        assert abs(found.B - expected["B"]) < 4 * math.hypot(found.se_B, expected["seB"])
        # errors of the sample: as the reference's, whose sample is 10 times larger
        assert found.se_A == pytest.approx(expected["seA"] * math.sqrt(10), rel=0.1)
        assert found.se_B == pytest.approx(expected["seB"] * math.sqrt(10), rel=0.1)


# ---------------------------------------------------------------------------------------------------------------------
# At the door
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "words"), [
    (lambda: topics.ridge_value(paper(tau=2), 0), "ridge is 0"),
    (lambda: topics.value_after(paper(tau=2), -1, 1.0), "steps is -1"),
    (lambda: topics.value_after(paper(tau=2), 5, "a"), "learning_rate is 'a'"),
    (lambda: topics.optimal_gram(paper(tau=2, p_m=1, p_c=0, p_r=0)), r"only \[MASK\] is ever shown"),
    (lambda: topics.separated_value(paper(tau=2, p_m=1, p_c=0)), "lower p_m or raise p_c"),
    (lambda: Blocks.of(np.eye(3), paper(tau=2)), r"shape \(3, 3\); 10 topics of 10 words .* need \(101, 101\)"),
    (lambda: topics.attention_loss(paper(alpha=1), 1, 1), "give tau, not alpha"),
    (lambda: topics.attention_loss(paper(tau=2), -1, 1), "alpha goes down to -1"),
    (lambda: topics.attention_loss(paper(tau=2), [1, 0], 0), "not all 0"),
    (lambda: topics.attention_profile(paper(tau=2), math.inf, 1), "finite alpha and beta"),
    (lambda: topics.optimal_ratio(paper(alpha=1)), "give tau, not alpha"),
    (lambda: topics.optimal_ratio(paper(tau=2), free_mask=1), "free_mask is 1"),
    (lambda: topics.optimal_attention(paper(tau=10), topics.other_limit_value(paper(tau=10))), "no minimum"),
    (lambda: topics.infinite_documents(TopicModel(30, 10, math.inf, tau=15)), "take fewer topics"),
    (lambda: topics.infinite_documents(paper(alpha=1)), "give tau, not alpha"),
    (lambda: topics.cross_entropy_optimum(paper(tau=2)), "give ridge"),
    (lambda: topics.cross_entropy_optimum(paper(128, tau=2), ridge=1), "leave it None"),
    (lambda: topics.cross_entropy_optimum(paper(128, tau=1, p_r=0)), "raise tau or p_r"),
    (lambda: topics.cross_entropy_optimum(TopicModel(3, 2, 400, tau=1, p_r=0.001), n_documents=20),
     "cross-entropy has no minimum"),
    (lambda: topics.cross_entropy_optimum(paper(128, tau=2), n_documents=10**8), "lower n_documents"),
    (lambda: topics.cross_entropy_optimum(paper(128, tau=2), same_word=0), "same_word is 0"),
    (lambda: topics.cross_entropy_optimum(paper(2, tau=2, p_m=1e-12), n_documents=5),
     "no slot of the sampled documents is chosen")])
def test_calls_that_cannot_be(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_what_has_no_minimum_is_refused():
    with pytest.raises(ValueError, match="p_c is 1"):
        topics.optimal_ratio(topics.TopicModel(4, 3, math.inf, tau=2, p_m=0.5, p_c=1.0, p_r=0.0))
    with pytest.raises(ValueError, match="there is no plateau"):
        topics.gram_plateau(topics.TopicModel(4, 4, 16, tau=4, p_c=0.3))
