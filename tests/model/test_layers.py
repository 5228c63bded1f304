"""A model of several layers: its loss and gradient, in both forms, at every edge."""

import numpy as np
import pytest
from conftest import recorded
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx import Batch, LayeredWeights, OneHotWeights, descend, set_threads
from minitx.model import layers, paths
from minitx.model.testing import batches, check_gradient
from minitx.model.testing import weights as weights_of

import naive_layers

FORMS = tuple(layers.FORMS)
DRAWN = {"causal": True, "head": "cross_entropy", "masses": False}
INSTANCES = recorded("depth_reference.json")["instances"]


def assert_close(found, expected, rtol=1e-12):
    """Every part to ``rtol`` of its largest entry, or of 1e-3 of the largest of all parts."""
    largest = max(np.abs(array).max() for array in expected.values())
    for name, array in expected.items():
        scale = max(np.abs(array).max(), 1e-3 * largest)
        np.testing.assert_allclose(getattr(found, name), array, rtol=0, atol=rtol * scale, err_msg=name)


def small(n_layers, *, n=3, length=6, n_vocab=5, scale=0.7, seed=0, extra=0):
    """Weights and a batch of random tokens."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, n_vocab - 1, (n, length)), rng.integers(0, n_vocab, (n, length))
    return (LayeredWeights.gaussian(n_vocab, length + extra, n_layers, scale=scale, rng=rng), Batch(tokens, targets))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("instance", INSTANCES, ids=lambda instance: instance["name"])
def test_recorded_instances(instance, form):
    weights = LayeredWeights(**{name: np.array(array) for name, array in instance["weights"].items()})
    weight = None if instance["weight"] is None else np.array(instance["weight"])
    batch = Batch(np.array(instance["tokens"]), np.array(instance["targets"]), weight)
    loss, gradient = layers.loss_and_gradient(weights, batch, form=form)
    assert loss == pytest.approx(instance["loss"], rel=1e-12)
    assert_close(gradient, {name: np.array(array) for name, array in instance["gradient"].items()})
    A, out = layers.attention_and_output(weights, batch)
    np.testing.assert_allclose(A[:, 0, -1], instance["A_last_row"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out[0, -1], instance["F_last"], rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=100)
@given(weights_of(LayeredWeights, **DRAWN))
def test_gradient_equals_the_complex_step(form, problem):
    check_gradient(*problem, loss_and_gradient=lambda weights, batch: layers.loss_and_gradient(weights, batch,
                                                                                              form=form))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=8)
@given(n_layers=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), weighted=st.booleans())
def test_loss_and_gradient_equal_the_loops(form, n_layers, seed, weighted):
    weights, batch = small(n_layers, n=2, length=3, n_vocab=3, seed=seed)
    if weighted:
        batch = Batch(batch.tokens, batch.targets, [[0, 1.5, 0], [0.5, 0, -1]])
    loss, gradient = layers.loss_and_gradient(weights, batch, form=form)
    arguments = {**weights.parameters(), "tokens": batch.tokens, "targets": batch.targets, "weight": batch.weight}
    assert loss == pytest.approx(naive_layers.loss(**arguments), rel=1e-12, abs=1e-13)
    assert_close(gradient, naive_layers.gradient(**arguments))


@pytest.mark.parametrize("form", FORMS)
@given(weights_of(OneHotWeights, **DRAWN))
def test_one_layer_is_the_circuits(form, problem):
    weights, batch = problem
    loss, gradient = minitx.loss_and_gradient(weights, batch)
    found = layers.loss_and_gradient(LayeredWeights.of_layers([weights]), batch, form=form)
    assert found[0] == pytest.approx(loss, rel=1e-13)
    assert_close(found[1].layer(1), gradient.parameters(), 1e-13)


@pytest.mark.parametrize("n_layers", [2, 3, 4])
@pytest.mark.parametrize("n_vocab", [9, 40])  # fewer and more columns than a tile, and numbers of words around it
def test_paths_where_words_come_one_after_another(n_layers, n_vocab):
    """Words appear late, or once, or only at positions without loss; the products must not read what came later."""
    weights, batch = small(n_layers, n=3, length=9, n_vocab=n_vocab, extra=2)
    weight = np.random.default_rng(1).standard_normal(batch.tokens.shape)
    weight[0, ::2], weight[1, :7], weight[1, 8] = 0, 0, 0
    batch = Batch(batch.tokens, batch.targets, weight)
    check_gradient(weights, batch, loss_and_gradient=lambda *problem: layers.loss_and_gradient(*problem, form="paths"))


@pytest.mark.parametrize("n_layers", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 10])
def test_what_memory_held_before_does_not_matter(monkeypatch, n_layers, length):
    weights, batch = small(n_layers, n=1, length=length, n_vocab=9)
    weight = np.where(np.arange(length) % 3, 1.0, 0.0) if length > 1 else None

    def result():
        return layers.loss_and_gradient(weights, Batch(batch.tokens, batch.targets, weight), form="paths")

    def nans(*asked, take=paths.Space.take):
        array = take(*asked)
        array[:] = np.nan
        return array

    loss, gradient = result()
    monkeypatch.setattr(paths.Space, "take", nans)
    again = result()
    assert again[0] == loss
    for name, array in gradient.parameters().items():
        np.testing.assert_array_equal(getattr(again[1], name), array)


def test_slopes_may_take_a_loss_of_the_same_batch():
    weights, batch = small(3)

    def slopes(weights, tables, sequence, space):
        found = paths.exact_slopes(weights, tables, sequence, space)
        paths.path_loss(weights.map(lambda array: 2 * array), batch)
        return found

    loss, found = paths.path_gradient(weights, batch, slopes)
    expected = paths.path_gradient(weights, batch)
    assert loss == expected[0]
    for name, array in expected[1].items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_edges(form):
    weights, batch = small(3, extra=2)

    def gradient(weights, batch):
        return layers.loss_and_gradient(weights, batch, form=form)[1]

    assert not gradient(weights, batch).P[:, 6:].any()  # P longer than T
    first = gradient(weights, Batch(batch.tokens[:, :1], batch.targets[:, :1]))
    assert not first.W.any() and not first.P.any()  # T = 1
    equal = gradient(weights, Batch(np.full((2, 5), 3), batch.targets[:2, :5]))
    assert np.abs(equal.W).max() < 1e-14 and np.abs(equal.P).max() < 1e-14  # all tokens equal
    silent = LayeredWeights(weights.W_O, weights.V * np.array([1.0, 0, 1])[:, None, None], weights.W, weights.P)
    slopes = gradient(silent, batch)  # V_2 = 0
    assert not slopes.W[1].any() and not slopes.P[1].any() and slopes.V[1].any()
    assert gradient(weights, batch).W_O[4].any()  # token 4 is a target only: values write there


@pytest.mark.parametrize("form", FORMS)
@given(weights_of(LayeredWeights, **DRAWN), st.integers(0, 2**32 - 1))
def test_positions_after_the_last_of_the_loss_change_nothing(form, problem, seed):
    weights, batch = problem
    rng = np.random.default_rng(seed)
    last = np.array([np.flatnonzero(row)[-1] if row.any() else -1 for row in batch.weight])
    later = np.arange(batch.tokens.shape[1]) > last[:, None]
    tokens = np.where(later, rng.integers(0, weights.n_vocab, batch.tokens.shape), batch.tokens)
    one, other = (layers.loss_and_gradient(weights, Batch(array, batch.targets, batch.weight), form=form)
                  for array in (np.where(later, 0, batch.tokens), tokens))
    assert one[0] == pytest.approx(other[0], rel=1e-13)
    assert_close(one[1], other[1].parameters(), 1e-13)


def test_sharp_attention_keeps_its_digits():
    """Attention to the leading key is 1 - 1e-13, and dA is 1e8: what is left of the difference has all its digits."""
    tokens, targets = np.array([[0, 1]]), np.array([[0, 2]])
    V, W, W_O = np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), np.eye(3)
    V[0, 0, 2], V[1, 0, 2], V[1, 1, 0] = 1e8 + 1, 1.0, -1e8
    W[0, 1, 0], W[1, 1, 1] = 30.0, 30.0
    weights = LayeredWeights(W_O, V, W, np.zeros((2, 2)))
    batch = Batch(tokens, targets, [[0, 1.0]])
    assert_close(layers.loss_and_gradient(weights, batch, form="paths")[1],
                 layers.loss_and_gradient(weights, batch, form="stream")[1].parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_same_bits_for_any_number_of_threads(form, dtype):
    weights, batch = small(3, n=11, length=9, n_vocab=40, scale=0.1)
    results = []
    for threads in (1, 2, 5):
        set_threads(threads)
        results.append(layers.loss_and_gradient(weights.astype(dtype), batch, form=form))
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        for name, array in gradient.parameters().items():
            np.testing.assert_array_equal(array, getattr(results[0][1], name))
            assert array.dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_float32_is_float64_to_its_precision(form):
    weights, batch = small(3, n=4, length=20, n_vocab=30, scale=0.1)
    single = weights.astype(np.float32)
    loss, gradient = layers.loss_and_gradient(single, batch, form=form)
    exact = layers.loss_and_gradient(single.astype(np.float64), batch, form=form)
    assert loss == pytest.approx(exact[0], rel=1e-6)
    for name, array in gradient.parameters().items():
        assert minitx.relative_error(array, getattr(exact[1], name)) < 5e-6


def test_the_cheaper_form_is_taken():
    """The count decides for the stream (few long sequences, few words) or the paths; the results are the same."""
    weights, batch = small(4, n=1, length=8, n_vocab=6)
    assert layers.operations(weights, batch).fewer == "stream"
    weights, batch = small(2, n=40, length=8, n_vocab=60, scale=0.1)
    assert layers.operations(weights, batch).fewer == "paths"
    assert layers.loss_and_gradient(weights, batch)[0] == layers.loss_and_gradient(weights, batch, form="paths")[0]


def test_operations_are_those_of_the_notes():
    """The notes count 3 (2^L - 1) T U V for the output, and 3 V^3 for each of 4 (L = 2) and 12 (L = 3) tables."""
    tokens = np.tile(np.arange(4), (1, 1))
    batch = Batch(tokens, tokens)  # T = U = M = 4
    for n_layers, n_tables in ((1, 1), (2, 4), (3, 12)):
        weights = LayeredWeights.zeros(4, 4, n_layers)  # V = 4, so that every token occurs
        products = {1: 0, 2: 2 * 64 + 64, 3: 2 * 64 + 64 + 5 * 64 + 64}[n_layers]
        paths_ = (2**n_layers - 1) * 64 + n_tables * 64 + products + (2**n_layers - 1) * 64
        assert layers.operations(weights, batch).paths == 3 * paths_


def test_the_same_interface_everywhere(tmp_path):
    weights, batch = small(2)
    loss, gradient = minitx.loss_and_gradient(weights, batch)
    assert isinstance(gradient, LayeredWeights) and loss == layers.loss_and_gradient(weights, batch)[0]
    run = descend(weights, batch, learning_rate=0.1, steps=3, frozen=("V",), keep=(2,))
    assert run.steps == 3 and run.loss[3] < run.loss[0] and 2 in run.kept
    np.testing.assert_array_equal(run.weights.V, weights.V)
    assert not np.array_equal(run.weights.W, weights.W)
    weights.save(tmp_path / "weights.npz")
    for name, array in LayeredWeights.load(tmp_path / "weights.npz").parameters().items():
        np.testing.assert_array_equal(array, getattr(weights, name))


def test_overflow_is_divergence():
    weights, batch = small(4, scale=1e60)
    with pytest.raises(FloatingPointError, match="products of the 4 values V overflow"):
        layers.loss_and_gradient(weights.map(lambda array: array * 1e30), batch)
    run = descend(small(3)[0], batch, learning_rate=1e40, steps=5)
    assert run.stopped is not None and run.stopped.kind == "diverged" and np.isfinite(run.loss).all()


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"V": np.zeros((3, 5, 5))}, ValueError, r"W has shape \(2, 5, 5\); it must be \(L, V, V\) with L = 3, V = 5"),
    ({"P": np.zeros(6)}, ValueError, "P has shape"),
    ({"W": None}, TypeError, "W must be an array of float64"),
    ({"W_O": np.zeros((5, 5), np.float32)}, TypeError, "all weights must be float64, or all float32"),
])
def test_weights_refuse(change, error, says):
    with pytest.raises(error, match=says):
        LayeredWeights(**{**small(2)[0].parameters(), **change})


@pytest.mark.parametrize(("settings", "says"), [
    ({"causal": False}, "needs causal attention and the head 'cross_entropy', without mass"),
    ({"head": "squared"}, "head='squared'"), ({"mass": 1.0}, "mass"),
])
def test_batches_that_the_model_does_not_take(settings, says):
    weights, batch = small(2)
    with pytest.raises(ValueError, match=says):
        layers.loss_and_gradient(weights, Batch(batch.tokens, batch.targets, **settings))


def test_refusals():
    weights, batch = small(2)
    with pytest.raises(TypeError, match="it must be of the type Batch"):
        layers.loss_and_gradient(weights, batch.tokens)
    with pytest.raises(ValueError, match="the sequences have 7 positions"):
        layers.loss_and_gradient(weights, Batch(np.zeros((1, 7), int), np.zeros((1, 7), int)))
    with pytest.raises(ValueError, match="the vocabulary has 5 tokens"):
        layers.loss_and_gradient(weights, Batch([[5]], [[0]]))
    with pytest.raises(ValueError, match="an entry is inf or nan"):
        layers.loss_and_gradient(weights.map(lambda array: array * np.nan), batch)
    with pytest.raises(ValueError, match="form is 'dense'; it must be one of paths, stream"):
        layers.loss_and_gradient(weights, batch, form="dense")
    with pytest.raises(ValueError, match="these weights have 2 layers"):
        weights.circuits()


def test_seed_decides_the_gaussian_start():
    one, same, other = (LayeredWeights.gaussian(4, 3, 2, scale=0.1, rng=seed) for seed in (1, 1, 2))
    for name, array in one.parameters().items():
        np.testing.assert_array_equal(array, getattr(same, name))
        assert not np.array_equal(array, getattr(other, name))
    assert one.V.shape == (2, 4, 4) and one.P.shape == (2, 3)
    with pytest.raises(ValueError, match="must be"):
        LayeredWeights.gaussian(4, 3, 2, scale=-1.0)


@given(batches(**DRAWN), st.integers(1, 4))
def test_at_zero_weights_the_loss_is_that_of_a_uniform_output(problem, n_layers):
    batch, n_vocab = problem
    loss, gradient = layers.loss_and_gradient(LayeredWeights.zeros(n_vocab, batch.tokens.shape[1], n_layers), batch)
    assert loss == pytest.approx(batch.weight.sum() * np.log(n_vocab), rel=1e-13)
    assert not gradient.V.any() and not gradient.W.any() and not gradient.P.any()
