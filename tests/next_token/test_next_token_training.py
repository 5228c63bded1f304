"""Training of the last token's attention: all modes, the recorded reference instances, and local convergence."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_token_strategies import basis_of

from minitx.base import parallel
from minitx.base.numbers import cosine
from minitx.model.descent import Stopped
from minitx.model.weights import LastTokenWeights
from minitx.next_token.automaton import Automaton
from minitx.next_token.local_training import Selection, train_local
from minitx.next_token.losses import LOSSES, loss_and_gradient
from minitx.next_token.pairs import Pairs
from minitx.next_token.path import split_path
from minitx.next_token.samples import Samples
from minitx.next_token.training import MODES, TOLD, record, smoothness, spaced, train


def each(count):
    """One test for each of ``count`` reference instances; all but the first are slow."""
    return pytest.mark.parametrize("number", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, count))])


def samples_of(instance):
    return Samples.of(instance["ids"], instance["labels"], instance["K"])


def start_of(instance):
    return LastTokenWeights(np.array(instance["W0"]), np.array(instance["E"]))


@pytest.fixture(scope="module")
def small():
    """(Automaton, start): random embeddings, two tokens in a cycle, some last tokens without a choice."""
    rng = np.random.default_rng(2)
    E = rng.standard_normal((5, 6))
    samples = Samples.of([[0, 1, 2, 4], [1, 0, 0, 4], [2, 3, 0, 4], [3, 3, 1, 0], [2, 2]], [0, 1, 0, 1, 2], 5)
    return Automaton.fit(samples, E), LastTokenWeights.gaussian(scale=0.3, E=E, rng=5)


# ----------------------------------------------------------------------------------------- the reference instances


@each(6)
def test_normalised_descent_reaches_what_the_notebooks_report(number, next_token_reference):
    instance = next_token_reference["instances"][number]
    automaton, figures = Automaton.fit(samples_of(instance), np.array(instance["E"])), instance["gd"]
    last = train(start_of(instance), automaton, mode="normalised", steps=4000, at=[4000]).records[0]
    assert last.correlation == pytest.approx(figures["official_ngd_lr0p01_4000"], abs=2e-5)
    assert last.correlation == pytest.approx(instance["notebook"]["corr"], abs=2e-5)
    assert last.cyclic_distance == pytest.approx(figures["proj_fin_diff_4000"], abs=2e-4)  # it swings by half a step


@each(6)
def test_training_that_is_given_the_sccs_is_faster(number, next_token_reference):
    instance = next_token_reference["instances"][number]
    automaton, figures = Automaton.fit(samples_of(instance), np.array(instance["E"])), instance["gd"]
    steps = 4000 if number == 0 else 1000
    run = train(start_of(instance), automaton, mode="accelerated", steps=steps, at={100, 250, 1000, steps})
    for found in run.records:
        assert 1 - found.correlation == pytest.approx(figures[f"one_minus_corr_accel_{found.step}"], rel=1e-3)
        assert found.cyclic_distance < 2e-9
    assert run.records[1].correlation > 0.9999


def test_split_and_path_reach_what_was_recorded(next_token_reference):
    for instance in next_token_reference["instances"][:1]:
        automaton, figures = Automaton.fit(samples_of(instance), np.array(instance["E"])), instance["gd"]
        last = train(start_of(instance), automaton, mode="split", steps=4000, at=[4000]).records[0]
        assert 1 - last.correlation == pytest.approx(figures["one_minus_corr_split_ngd_step1_4000"], rel=1e-3)
        assert last.cyclic_distance < 2e-9
        records = train(start_of(instance), automaton, mode="path", steps=21).records
        assert 1 - records[-1].correlation < 3e-11
        # 1 - correlation ~ 1 / tau^2: six doublings, 4096
        assert (1 - records[-7].correlation_rest) / (1 - records[-1].correlation_rest) == pytest.approx(4096, rel=0.1)
        assert records[-1].cyclic_distance < 5e-9


@each(4)
def test_local_convergence_as_in_the_notebooks(number, next_token_reference):
    instance = next_token_reference["local_instances"][number]
    samples, start = samples_of(instance), start_of(instance)
    expected = {tuple(ids): tokens for ids, tokens in zip(instance["ids"], instance["selected"], strict=True)}
    expected = [expected[tuple(sequence.tolist())] for sequence in samples.sequences]
    run = train_local(start, samples)
    assert [tokens.tolist() for tokens in run.selection.tokens()] == expected
    assert not run.selection.left_out.any()
    assert run.correlation >= instance["notebook_corr_local"] - 2e-3
    assert np.linalg.norm(run.svm.W) == pytest.approx(instance["W_svm_local_norm"], rel=1e-12)
    if instance["name"] == "official_local_1":  # all others end in the rounding noise of the published code
        assert run.correlation == pytest.approx(instance["corr_local"], abs=1e-5)
        W_svm = Automaton.fit(samples, start.E).svm.W
        assert cosine(run.weights.W, W_svm) == pytest.approx(instance["corr_global"], abs=1e-5)
    better = train_local(start, samples, until=300)
    assert 1 - better.correlation < 1e-5
    assert [tokens.tolist() for tokens in better.selection.tokens()] == expected
    assert better.trajectory.steps == run.trajectory.steps == 2000


# ------------------------------------------------------------------------------------------------------- records, modes


@pytest.mark.parametrize("mode", MODES)
def test_records_say_what_the_weights_are(small, mode):
    automaton, start = small
    seen = []
    run = train(start, automaton, mode=mode, steps=6, at=(0, 2, 6), progress=seen.append)
    assert seen == list(range(7))
    assert [found.step for found in run.records] == [0, 2, 6]
    assert [found.loss for found in run.records] == pytest.approx(run.trajectory.loss[[0, 2, 6]].tolist(), rel=1e-15)
    np.testing.assert_array_equal(run.weights.E, start.E)
    last, W, W_svm, samples = run.records[-1], run.weights.W, automaton.svm.W, automaton.split.samples
    assert last.loss == pytest.approx(loss_and_gradient(run.weights, samples)[0], rel=1e-12)
    assert last.norm == pytest.approx(np.linalg.norm(W))
    assert last.correlation == pytest.approx((W * W_svm).sum() / np.linalg.norm(W) / np.linalg.norm(W_svm))
    basis = basis_of(automaton.split.subspace).reshape(-1, W.size)
    cyclic = basis.T @ (basis @ W.ravel())
    rest = W.ravel() - cyclic
    assert last.correlation_rest == pytest.approx(rest @ W_svm.ravel() / np.linalg.norm(rest) / np.linalg.norm(W_svm))
    assert last.cyclic_distance == pytest.approx(np.linalg.norm(cyclic - automaton.soft.W.ravel()), abs=1e-14)
    mass = 0.0
    for sequence, label, share in zip(samples.sequences, samples.labels, samples.share, strict=True):
        weight = np.exp((start.E @ W @ start.E.T)[sequence, sequence[-1]])
        graph = automaton.split.graphs[int(sequence[-1])]
        mass += share * weight[np.isin(sequence, graph.components[graph.component_of(label)])].sum() / weight.sum()
    assert last.label_mass == pytest.approx(mass, rel=1e-12)
    if mode in TOLD:
        assert max(found.cyclic_distance for found in run.records) < 1e-13


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", ["descent", "normalised"])
def test_the_faithful_modes_are_gradient_descent(small, mode, loss):
    automaton, start = small
    run = train(start, automaton, mode=mode, steps=3, learning_rate=0.2, loss=loss)
    W = start.W
    for _ in range(3):
        _, gradient = loss_and_gradient(LastTokenWeights(W, start.E), automaton.split.samples, loss)
        W = W - 0.2 * gradient.W / (np.linalg.norm(gradient.W) if mode == "normalised" else 1.0)
    np.testing.assert_allclose(run.weights.W, W, rtol=0, atol=1e-15)


def test_learning_rates_by_default(small):
    automaton, start = small
    rates = {mode: train(start, automaton, mode=mode, steps=0).trajectory.learning_rate for mode in MODES}
    assert (rates["descent"], rates["normalised"], rates["split"]) == (1.0, 0.01, 1.0)
    assert rates["accelerated"] == 1 / smoothness(automaton.split)
    assert np.isnan(rates["path"])


def test_smoothness_is_the_longest_projected_row(small):
    automaton, _ = small
    split, samples = automaton.split, automaton.split.samples
    rest = []
    for i, owner in enumerate(samples.owner()):
        if not split.inside[i]:
            E, k = split.embeddings, samples.last[owner]
            row = np.outer(E[samples.tokens[i]] - E[samples.labels[owner]], E[k])
            rest.append(np.linalg.norm(split.subspace.rest(row)) ** 2)
    assert smoothness(split) == pytest.approx(max(rest), rel=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 30.0]), st.booleans())
def test_path_objective_is_the_excess(seed, scale, one_hot):
    rng = np.random.default_rng(seed)
    sequences = rng.integers(0, 5, (6, 4))
    samples = Samples.of(sequences, sequences[np.arange(6), rng.integers(0, 4, 6)], 5)
    automaton = Automaton.fit(samples, None if one_hot else rng.standard_normal((5, 6)))
    pairs = Pairs.of(automaton.split, automaton.soft.W)
    if not pairs.dim:
        return
    x, tau = scale * rng.standard_normal(pairs.dim), 2.0
    V, unit = pairs.matrix(x), 4.0**pairs.power  # the coordinates are those of unit V
    excess = automaton.split.excess(automaton.soft.W + V)
    value, gradient, solve = pairs.objective(x / tau, tau)
    hessian = np.linalg.inv(np.array([solve(b) for b in np.eye(len(x))]))
    np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=1e-10 * np.abs(hessian).max())
    assert value == pytest.approx(np.sum(V * V) * (unit / tau) ** 2 / 2 + excess.log_value / tau, rel=1e-12, abs=1e-12)
    expected = V * unit / tau + automaton.split.subspace.rest(excess.gradient) / unit
    atol = 1e-12 * (1 + np.abs(expected).max())
    np.testing.assert_allclose(unit * pairs.matrix(gradient), expected, rtol=0, atol=atol)
    ahead = pairs.objective(x / tau + 1e-6, tau)[1] - pairs.objective(x / tau - 1e-6, tau)[1]
    difference = hessian.sum(axis=1) - ahead / 2e-6
    if np.linalg.eigvalsh(hessian).min() > 1 - 1e-9:  # made positive: larger than the exact one
        assert difference @ np.ones(len(x)) > -1e-6 * (1 + np.abs(hessian).max())
    else:
        np.testing.assert_allclose(difference, 0, atol=1e-6 * (1 + np.abs(hessian).max()))


@pytest.mark.parametrize("others", [[], [[2, 1, 3], [1, 2, 1, 3]]])
def test_tokens_of_a_sample_whose_rows_are_orthogonal_stay_together(others):
    """With e_0 = 0 the rows (e_1 - e_0) e_3' and (e_2 - e_0) e_3' are orthogonal, but meet in a sample's excess."""
    E = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    samples = Samples.of([[0, 1, 2, 3], [0, 1, 1, 2, 2, 2, 3], *others], [0, 0, *(2 for _ in others)], 4)
    automaton = Automaton.fit(samples, E)
    pairs, rng = Pairs.of(automaton.split, automaton.soft.W), np.random.default_rng(0)
    y, b, step = rng.standard_normal(pairs.dim), rng.standard_normal(pairs.dim), 1e-5
    solved = pairs.objective(y, 3.0)[2](b)
    ahead, behind = (pairs.objective(y + sign * step * solved, 3.0)[1] for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / (2 * step), b, rtol=1e-7, atol=1e-9)


def test_a_path_of_large_factors_meets_one_of_small_factors(small):
    """The search starts where the last points of the path lead to; where it ends must not depend on that."""
    automaton, _ = small
    fine = list(split_path(automaton.split, automaton.soft.W, 2.0 ** np.arange(21)))
    for W, V in zip(fine[::5], split_path(automaton.split, automaton.soft.W, 32.0 ** np.arange(5)), strict=True):
        np.testing.assert_allclose(V, W, rtol=0, atol=1e-11 * np.abs(W).max())


@pytest.mark.parametrize("size", [1e-30, *(pytest.param(size, marks=pytest.mark.slow) for size in (0.01, 15.0, 1e30))])
def test_path_of_long_and_short_embeddings(small, size):
    """Embeddings c times as long with strengths 1 / c^4 as large give W / c^2; the mode chooses such strengths."""
    automaton, start = small
    scaled = Automaton.fit(automaton.split.samples, size * start.E)
    paths = [split_path(fit.split, fit.soft.W, 2.0 ** np.arange(12) / c**4)
             for fit, c in ((automaton, 1.0), (scaled, size))]
    for W, V in zip(*paths, strict=True):
        np.testing.assert_allclose(V * size**2, W, rtol=0, atol=1e-10 * np.abs(W).max())
    run = train(LastTokenWeights.zeros(E=size * start.E), scaled, mode="path", steps=21)
    assert run.records[-1].correlation > 1 - 1e-8


@pytest.mark.slow
def test_the_longest_path_ends():
    """Where the weights are 1e12 and more, logarithms lose the digits by which the shares of samples sum to 1."""
    rng = np.random.default_rng(0)
    sequences = rng.integers(0, 7, (12, 5))
    samples = Samples.of(sequences, sequences[np.arange(12), rng.integers(0, 5, 12)], 7)
    for scale in (1.0, 5.0):
        E = scale * rng.standard_normal((7, 9))
        run = train(LastTokenWeights.zeros(E=E), Automaton.fit(samples, E), mode="path", steps=40)
        assert run.records[-1].correlation > 1 - 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_float32_trains_in_every_mode(small, mode):
    automaton, start = small
    E = (start.E / 4).astype(np.float32)
    run = train(LastTokenWeights.zeros(E=E), Automaton.fit(automaton.split.samples, E), mode=mode, steps=5)
    assert run.weights.W.dtype == (np.float64 if mode in TOLD else np.float32)
    assert run.records[-1].loss < run.records[0].loss


def test_weights_whose_squares_overflow_are_measured():
    automaton = Automaton.fit(Samples.of([[0, 1, 2]], [0]))
    for size in (1e-200, 1e200):
        found = record(0, 0.0, LastTokenWeights(size * automaton.svm.W), automaton)
        limit = size * np.linalg.norm(automaton.svm.W)
        assert (found.norm, found.correlation) == (pytest.approx(limit), pytest.approx(1))


def test_path_is_stationary(small):
    automaton, _ = small
    W_fin = automaton.soft.W
    for tau, W in zip((0.5, 8.0, 1000.0), split_path(automaton.split, W_fin, (0.5, 8.0, 1000.0)), strict=True):
        slope = automaton.split.subspace.rest(automaton.split.excess(W).gradient)
        rounding = 1e-13 * (1 + np.abs(W).max())  # of the scores, by which the slope is wrong
        np.testing.assert_allclose(W - W_fin, -tau * slope, rtol=0, atol=rounding * tau)


# ----------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_retrieve(mode):
    """The graphs are cycles, so W_svm = 0, and no mode moves W outside S_fin."""
    samples = Samples.of([[0, 1], [1, 1, 0, 1]], [0, 1])
    automaton = Automaton.fit(samples)
    run = train(LastTokenWeights.zeros(2), automaton, mode=mode, steps=40)
    assert np.isnan(run.records[0].correlation)
    assert run.records[-1].label_mass == 1
    if mode in TOLD:
        np.testing.assert_array_equal(run.weights.W, automaton.soft.W)
    if mode == "split":
        assert (run.trajectory.stopped.kind, run.trajectory.stopped.step) == ("no direction", 1)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_learn(mode):
    """Sequences that hold nothing but their label give graphs without edges and a loss of 0."""
    automaton = Automaton.fit(Samples.of([[0, 0], [1]], [0, 1]))
    run = train(LastTokenWeights.gaussian(2, scale=1.0, rng=0), automaton, mode=mode, steps=3)
    assert run.records[0].loss == 0
    assert (run.trajectory.stopped is not None) == (mode in ("normalised", "split"))


def test_path_ends_where_rounding_hides_it(small):
    automaton, start = small
    run = train(start, automaton, mode="path", steps=100)
    assert (run.trajectory.stopped.kind, run.trajectory.stopped.step) == ("rounding", len(run.records))
    assert "so large that rounding hides the least point" in str(run.trajectory.stopped)
    assert run.records[-1].step > 30
    assert run.records[-1].correlation_rest > 1 - 1e-10


def test_interrupted_path_keeps_what_was_recorded(small):
    automaton, start = small

    def interrupt(step):
        if step == 3:
            raise KeyboardInterrupt

    run = train(start, automaton, mode="path", steps=9, progress=interrupt)
    assert run.trajectory.stopped == Stopped("interrupted", 3, "interrupted after step 3")
    assert [found.step for found in run.records] == [0, 1, 2, 3]


def test_spaced():
    assert spaced(0) == [0]
    assert spaced(5) == [0, 1, 2, 3, 4, 5]
    assert spaced(4000)[0] == 0
    assert spaced(4000)[-1] == 4000
    assert len(spaced(4000)) <= 41


def test_record_of_zero_weights_has_no_correlation(small):
    automaton, _ = small
    found = record(0, 1.0, LastTokenWeights.zeros(E=automaton.split.E), automaton)
    assert np.isnan([found.correlation, found.correlation_rest]).all()


@pytest.mark.parametrize(("settings", "says"), [
    ({"mode": "adam"}, "unknown mode 'adam'; it must be one of descent, normalised, split, accelerated, path"),
    ({"mode": "split", "loss": "tied"}, "mode 'split' splits the log loss at the SCCs, but loss is 'tied'"),
    ({"mode": "path", "steps": 101}, "steps is 101, but each step of mode 'path' doubles the norm"),
    ({"mode": "path", "learning_rate": 1.0}, "learning_rate is 1.0, but mode 'path' has none"),
    ({"mode": "descent", "learning_rate": 0.0}, "learning_rate is 0.0"),
    ({"mode": "descent", "loss": "hinge"}, "unknown loss 'hinge'"),
    ({"mode": "descent", "steps": -1}, "steps is -1"),
])
def test_refusals(small, settings, says):
    automaton, start = small
    with pytest.raises(ValueError, match=says):
        train(start, automaton, **{"steps": 1, **settings})


def test_other_embeddings_are_refused(small):
    automaton, start = small
    for other in (LastTokenWeights.zeros(5), LastTokenWeights(start.W, start.E + 1)):
        with pytest.raises(ValueError, match=r"the start has other embeddings, .* fit it with E=start.E"):
            train(other, automaton, mode="descent", steps=1)


# ------------------------------------------------------------------------------------------------ local selections


def test_selection_and_its_graphs():
    """A token with attention 0.0095 is neither selected nor in the graphs; one with 0.005 is in the graphs."""
    scores = np.zeros((4, 4))
    scores[:3, 3] = np.log([0.6, 0.3905, 0.0095])
    scores[3, 3], scores[:2, 2] = -50, np.log([0.995, 0.005])
    scores[2, 2] = -50
    samples = Samples.of([[0, 1, 2], [0, 1, 2, 3]], [2, 3])
    found = Selection.of(LastTokenWeights(scores), samples)
    assert [tokens.tolist() for tokens in found.tokens()] == [[0], [0, 1]]
    assert samples.tokens[found.left_out].tolist() == [2]
    assert found.graphs[2].edges.tolist() == [[0, 1], [0, 2]]
    assert found.graphs[3].edges.tolist() == [[0, 1], [0, 3], [1, 0], [1, 3]]
    assert found.graphs[3].tokens.tolist() == [0, 1, 3]


@pytest.mark.parametrize("mode", MODES)
def test_starts_that_cannot_be(small, mode):
    automaton, start = small
    for other, says in ((replace(start, W=start.W * np.nan), "W: an entry is inf or nan; start from finite weights"),
                        (replace(start, C=start.E), "the weights have a head C")):
        with pytest.raises(ValueError, match="^" + says):
            train(other, automaton, mode=mode, steps=1)


def test_samples_of_which_nothing_is_selected():
    """The first two samples attend to each token with 1/150, below both thresholds, and with 1/104, between them."""
    samples = Samples.of([range(150), [*range(103), 150], [0, 1, 2]], [3, 4, 0], 151)
    found = Selection.of(LastTokenWeights.zeros(151), samples)
    assert [len(tokens) for tokens in found.tokens()] == [3, 0, 0]
    assert found.graphs[150].tokens.tolist() == []
    assert found.graphs[149].edges.tolist() == []
    for training in (train_local, partial(train_local, until=1)):
        run = training(LastTokenWeights.zeros(151), samples, steps=3, learning_rate=1e-6)
        assert np.isfinite(run.weights.W).all()
        assert run.trajectory.steps == 3


def test_local_training_in_float32(small):
    _, start = small
    run = train_local(start.astype(np.float32), Samples.of([[0, 1, 2, 4], [1, 0, 0, 4]], [0, 1], 5), steps=5, until=2)
    assert run.weights.W.dtype == np.float32
    assert run.trajectory.steps == 5


def test_local_training_that_stops_early_stops():
    """Where the first stage has nothing to learn, there is no second stage."""
    run = train_local(LastTokenWeights.zeros(2), Samples.of([[0, 0]], [0], 2), steps=50, until=10)
    assert (run.trajectory.stopped.kind, run.trajectory.stopped.step) == ("no direction", 1)
    assert run.trajectory.steps == 0


def test_local_training_counts_the_step_at_which_its_second_stage_stops(small, monkeypatch):
    """Steps are counted from the start of the first stage, as the losses are."""
    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    calls, whole = [], Selection.leakage_gradient
    monkeypatch.setattr(Selection, "leakage_gradient", interrupted)
    _, start = small
    run = train_local(start, Samples.of([[0, 1, 2, 4], [1, 0, 0, 4]], [0, 1], 5), steps=20, until=5)
    assert (run.trajectory.stopped.kind, run.trajectory.stopped.step) == ("interrupted", 7)
    assert run.trajectory.steps == 7


def test_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    sequences = rng.integers(0, 30, (60, 6))
    samples = Samples.of(sequences, sequences[np.arange(60), rng.integers(0, 6, 60)], 30)
    E = rng.standard_normal((30, 80)) / 9
    for mode, steps in (("normalised", 5), ("accelerated", 5), ("path", 1)):
        found = []
        for threads in (1, 2):
            parallel.set_threads(threads)
            run = train(LastTokenWeights.zeros(E=E), Automaton.fit(samples, E), mode=mode, steps=steps)
            found.append(run.weights.W)
        np.testing.assert_array_equal(*found)
