"""The parametrisations: the papers' models, their gradients, and files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx import Batch, Circuits, EmbeddedWeights, OneHotWeights, attention_and_output, descend, loss_and_gradient
from minitx.associations.terms import gradient_terms
from minitx.model import block_kernels, kernels, product_kernels
from minitx.model.testing import batches, check_gradient
from minitx.model.testing import weights as weights_of
from minitx.model.weights import LastTokenWeights

import naive


@given(batches(causal=True, head="cross_entropy", uniform=True), st.sampled_from((0.0, 1e-3, 1.0)),
       st.integers(0, 2**32 - 1))
def test_loss_and_gradient_are_those_of_definition_3_1(problem, scale, seed):
    batch, n_vocab = problem
    weights = OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=scale, rng=seed)
    loss, gradient = loss_and_gradient(weights, batch)
    model = (weights.W_O, weights.V, weights.W, weights.P, batch.tokens, batch.targets)
    assert loss == pytest.approx(naive.one_hot_loss(*model), rel=1e-13)
    assert isinstance(gradient, OneHotWeights)
    for name, expected in naive.one_hot_gradient(*model).items():
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=0,
                                   atol=1e-12 * np.abs(expected).max() + 1e-15)


@given(weights_of(OneHotWeights, causal=True))
def test_gradient_equals_the_complex_step_for_every_head_and_weight(problem):
    check_gradient(*problem)


def test_seed_decides_the_gaussian_start():
    one, same, other = (OneHotWeights.gaussian(4, 3, scale=0.1, rng=seed) for seed in (1, 1, 2))
    for name, array in one.parameters().items():
        np.testing.assert_array_equal(array, getattr(same, name))
        assert not np.array_equal(array, getattr(other, name))
    assert OneHotWeights.gaussian(50, 3, scale=0.1, rng=0).W.std() == pytest.approx(0.1, rel=0.05)


def test_save_and_load(tmp_path):
    weights = OneHotWeights.gaussian(4, 3, scale=0.1, rng=0, dtype=np.float32)
    weights.save(tmp_path / "weights.npz")
    for name, array in OneHotWeights.load(tmp_path / "weights.npz").parameters().items():
        np.testing.assert_array_equal(array, getattr(weights, name))
        assert array.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    with pytest.raises(ValueError, match="does not hold the arrays W_O, V, W, P"):
        OneHotWeights.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError, match="is not a file of weights"):
        OneHotWeights.load(tmp_path / "text.npz")


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"V": np.zeros((2, 3))}, ValueError, r"V has shape \(2, 3\); it must be \(V, V\) with V = 3"),
    ({"P": np.zeros((2, 2))}, ValueError, "P has shape"),
    ({"V": None}, TypeError, "V must be an array of float64"),
    ({"P": np.zeros(4, np.float32)}, TypeError, "all weights must be float64, or all float32; got .* P float32"),
    ({"W": np.zeros((3, 3), int)}, TypeError, "W must be an array of float64 or float32, got dtype int64"),
])
def test_weights_refuse(change, error, says):
    with pytest.raises(error, match=says):
        OneHotWeights(**{**OneHotWeights.zeros(3, 4).parameters(), **change})


@pytest.mark.parametrize("call", [lambda: OneHotWeights.zeros(1, 4), lambda: OneHotWeights.zeros(3, 0),
                                  lambda: OneHotWeights.gaussian(3, 4, scale=-1.0),
                                  lambda: OneHotWeights.gaussian(3, 4, scale=np.nan)])
def test_starts_refuse(call):
    with pytest.raises(ValueError, match="must be"):
        call()


# ------------------------------------------------------------------------------------------------- embedded weights


@st.composite
def embedded(draw, n_vocab):
    """EmbeddedWeights of any parts, in which the log head's outputs are positive."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from((0.0, 1e-3, 1.0, 5.0)))
    present = {name: draw(st.booleans()) for name in ("W_E", "W_V", "W_QK", "W_U", "b")}
    if not present["W_E"]:
        present["W_V"] = True
    sizes = {"width": draw(st.integers(1, 5)) if present["W_E"] else None, "attention_width": draw(st.integers(1, 4))}
    scales = {name: scale for name, here in present.items() if here}
    return EmbeddedWeights.gaussian(n_vocab, **scales, **sizes, rng=rng)


@given(st.data())
def test_embedded_gradient_equals_the_complex_step_for_every_part(data):
    batch, n_vocab = data.draw(batches())
    weights = data.draw(embedded(n_vocab))
    if batch.head == "log":
        weights = weights.map(lambda array: np.abs(array) + 0.05)
    check_gradient(weights, batch)


@given(st.data())
def test_embedded_circuits_are_the_paper_s_products(data):
    """f = W_U W_V W_E A + b, A = column softmax of (W_K Z)^T (W_Q Z) / sqrt(d_a): column j answers slot j."""
    batch, n_vocab = data.draw(batches(causal=False, masses=False, padded=False))
    weights = data.draw(embedded(n_vocab))
    A, out = attention_and_output(weights, batch)
    E = np.eye(n_vocab) if weights.W_E is None else weights.W_E
    W_V = np.eye(len(E)) if weights.W_V is None else weights.W_V
    W_U = E.T if weights.W_U is None else weights.W_U
    for i, t in np.argwhere(batch.weight != 0):
        Z = E[:, batch.tokens[i]]  # (d, N), a column a slot
        scores = np.zeros((Z.shape[1],) * 2)
        if weights.W_Q is not None:
            scores = (weights.W_K @ Z).T @ (weights.W_Q @ Z) / np.sqrt(len(weights.W_Q))
        shares = np.exp(scores - scores.max(axis=0))
        shares /= shares.sum(axis=0)
        f = W_U @ W_V @ Z @ shares + (0 if weights.b is None else weights.b[:, None])
        np.testing.assert_allclose(A[i, t], shares[:, t], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(out[i, t], f[:, t], rtol=1e-10, atol=1e-11 * max(1, np.abs(f).max()))


def test_zero_scores_attend_uniformly():
    weights = EmbeddedWeights.gaussian(7, W_V=1.0, W_QK=0.0, rng=0)
    batch = Batch(np.array([[1, 2, 2, 3, 0], [4, 4, 4, 5, 6]]), np.ones((2, 5), int), lengths=[4, 5], causal=False)
    A, _ = attention_and_output(weights, batch)
    np.testing.assert_allclose(A[0, :4, :4], 1 / 4, rtol=1e-15)
    np.testing.assert_allclose(A[1], 1 / 5, rtol=1e-15)
    np.testing.assert_allclose(A.sum(axis=2)[batch.weight > 0], 1, rtol=1e-12)


def test_parts_do_not_depend_on_which_others_there_are(tmp_path):
    both = EmbeddedWeights.gaussian(5, W_E=0.1, W_QK=0.2, width=3, attention_width=2, rng=3)
    alone = EmbeddedWeights.gaussian(5, W_E=0.1, width=3, rng=3)
    np.testing.assert_array_equal(both.W_E, alone.W_E)
    assert not np.array_equal(both.W_Q, both.W_K)
    both.save(tmp_path / "weights.npz")
    loaded = EmbeddedWeights.load(tmp_path / "weights.npz")
    assert loaded.W_V is None
    np.testing.assert_array_equal(loaded.W_K, both.W_K)


@pytest.mark.parametrize(("parts", "error", "says"), [
    ({}, ValueError, "both W_E and W_V are absent"),
    ({"W_V": np.zeros((3, 3)), "W_Q": np.zeros((2, 3))}, ValueError, "one of W_Q and W_K is absent"),
    ({"W_V": np.zeros((3, 2))}, ValueError, r"W_V has shape \(3, 2\)"),
    ({"W_E": np.zeros((2, 5)), "W_V": np.zeros((5, 5))}, ValueError, "W_V has shape"),
    ({"W_E": np.zeros(5)}, ValueError, "W_E has shape"),
    ({"W_E": np.zeros((2, 5)), "W_U": np.zeros((2, 5))}, ValueError, r"it must be \(V, d\) with V = 5, d = 2"),
    ({"W_V": np.zeros((3, 3)), "b": np.zeros(2)}, ValueError, "b has shape"),
    ({"W_V": np.zeros((3, 3)), "W_Q": np.zeros((2, 3)), "W_K": np.zeros((1, 3))}, ValueError, "W_K has shape"),
    ({"W_V": np.zeros((3, 3), int)}, TypeError, "float64 or float32"),
    ({"W_V": np.zeros((3, 3)), "b": np.zeros(3, np.float32)}, TypeError, "all float32"),
])
def test_embedded_weights_refuse(parts, error, says):
    with pytest.raises(error, match=says):
        EmbeddedWeights(**parts)


@pytest.mark.parametrize(("settings", "says"), [
    ({"W_V": -1.0}, "W_V is -1.0"), ({"W_V": 0.0, "width": 3}, "one-hot embeddings have width"),
    ({"W_E": 0.1, "width": 0}, "width is 0"), ({"W_V": 0.0, "attention_width": 0}, "attention_width is 0"),
    ({}, "both W_E and W_V"),
])
def test_gaussian_embedded_weights_refuse(settings, says):
    with pytest.raises(ValueError, match=says):
        EmbeddedWeights.gaussian(5, **settings)


def test_float32_embedded_weights_train():
    """NumPy 2: a float64 scalar would promote the table."""
    weights = EmbeddedWeights.gaussian(3, W_V=1.0, W_QK=1.0, rng=0, dtype=np.float32)
    _, gradient = loss_and_gradient(weights, Batch(np.array([[0, 1]]), np.array([[0, 1]]), causal=False))
    assert all(array.dtype == np.float32 for array in gradient.parameters().values())


def test_check_gradient_allows_the_rounding_of_the_chain_rule():
    """A derivative that is exactly 0, of products that cancel."""
    weights = EmbeddedWeights(W_E=np.array([[7.21845477, -4.47972988]]), W_Q=np.array([[4.71049502]]),
                              W_K=np.array([[-5.1857078]]))
    check_gradient(weights, Batch(np.array([[0, 0, 0]]), np.array([[1, 0, 0]]), np.array([[1.0, 0, 0]]), causal=False))


@given(st.integers(1, 5), st.integers(1, 6), st.booleans(), st.booleans(), st.sampled_from((0.0, 1.0)),
       st.integers(0, 2**32 - 1))
def test_last_token_weights_make_the_paper_s_output(n_vocab, width, has_E, has_C, scale, seed):
    """out = C E^T P with scores e_j^T W e_k of each position against the last one; positive, for the logarithm."""
    rng = np.random.default_rng(seed)
    width = width if has_E else n_vocab
    E, C = (rng.random((n_vocab, width)) + 0.1 if has else None for has in (has_E, has_C))
    weights = LastTokenWeights.gaussian(None if has_E else n_vocab, scale=scale, E=E, C=C, rng=rng)
    sequence = rng.integers(0, n_vocab, 5)
    weight = np.zeros((1, 5))
    weight[0, 4] = 1.0
    batch = Batch(sequence[None], np.full((1, 5), sequence[1]), weight, head="log")
    X = (np.eye(n_vocab) if E is None else E)[sequence]
    attention = np.exp(X @ weights.W @ X[-1])
    attention /= attention.sum()
    expected = np.bincount(sequence, attention, n_vocab) if C is None else C @ X.T @ attention
    _, out = attention_and_output(weights, batch)
    np.testing.assert_allclose(out[0, 4], expected, rtol=1e-12, atol=1e-15)
    check_gradient(weights, batch, rtol=1e-12)
    _, gradient = loss_and_gradient(weights, batch)
    assert gradient.parameters().keys() == weights.parameters().keys()


def test_last_token_weights_in_files(tmp_path):
    weights = LastTokenWeights.gaussian(scale=1.0, E=np.ones((4, 2)), rng=0)
    weights.save(tmp_path / "weights.npz")
    loaded = LastTokenWeights.load(tmp_path / "weights.npz")
    np.testing.assert_array_equal(loaded.W, weights.W)
    assert loaded.C is None
    assert (loaded.n_vocab, LastTokenWeights.zeros(3).n_vocab) == (4, 3)
    assert not LastTokenWeights.zeros(E=np.ones((4, 2))).W.any()
    E = np.ones((4, 2), np.float32)
    assert LastTokenWeights.zeros(E=E).W.dtype == LastTokenWeights.gaussian(scale=1.0, E=E).W.dtype == np.float32


@pytest.mark.parametrize(("make", "error", "says"), [
    (lambda: LastTokenWeights(np.zeros((2, 3))), ValueError, r"W has shape \(2, 3\); it must be \(K, K\)"),
    (lambda: LastTokenWeights(np.zeros((2, 2)), np.zeros((4, 3))), ValueError,
     r"E has shape \(4, 3\); it must be \(K, d\) with K = 4, d = 2"),
    (lambda: LastTokenWeights(np.zeros((2, 2)), np.zeros((4, 2)), np.zeros((3, 2))), ValueError,
     r"C has .* it must be \(K, d\) with K = 4, d = 2"),
    (lambda: LastTokenWeights(np.zeros((2, 2), int)), TypeError, "W must be an array of float64 or float32"),
    (lambda: LastTokenWeights.zeros(), ValueError, "give n_vocab for one-hot tokens, or the embeddings"),
    (lambda: LastTokenWeights.zeros(3, E=np.eye(3)), ValueError, "give n_vocab for one-hot tokens, or the embeddings"),
    (lambda: LastTokenWeights.zeros(0), ValueError, "n_vocab is 0"),
    (lambda: LastTokenWeights.zeros(E=np.zeros(3)), ValueError, r"E has shape \(3,\); it must be \(K, d\)"),
    (lambda: LastTokenWeights.gaussian(3, scale=-1.0), ValueError, "scale is -1.0"),
])
def test_last_token_weights_refuse(make, error, says):
    with pytest.raises(error, match=says):
        make()


# ---------------------------------------------------------------------------------------------------------- read-only


@pytest.mark.parametrize("kind", [OneHotWeights, EmbeddedWeights, LastTokenWeights, Circuits])
def test_weights_and_batches_cannot_be_written_to(kind):
    """Gradients and the weights of descent are read-only too; the arrays that were given stay writable."""
    rng = np.random.default_rng(0)
    names = {OneHotWeights: ("W_O", "V", "W"), EmbeddedWeights: ("W_E", "W_Q", "W_K"), LastTokenWeights: ("W", "E"),
             Circuits: ("direct", "ov", "qk")}[kind]
    given = {name: rng.standard_normal((5, 5)) for name in names}
    if kind in (OneHotWeights, Circuits):
        given["P" if kind is OneHotWeights else "position"] = rng.standard_normal(4)
    before = {name: array.copy() for name, array in given.items()}
    weights = kind(**given | ({"bias": None} if kind is Circuits else {}))
    tokens, weight = rng.integers(0, 5, (3, 4)), np.ones((3, 4))
    batch = Batch(tokens, tokens, weight, mass=weight, causal=kind in (OneHotWeights, Circuits))
    run = descend(weights, batch, learning_rate=0.1, steps=2)
    _, gradient = loss_and_gradient(weights, batch)
    for found in (weights, run.weights, gradient, weights.astype(np.float32), weights.circuits(),
                  weights.map(lambda array: 2 * array)):
        for array in found.parameters().values():
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1.0
    for part in (batch, batch.take([0, 1]), batch.with_loss()):
        for name in ("tokens", "targets", "weight", "lengths", "mass"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(part, name)[0] = 1
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])
        assert np.shares_memory(array, getattr(weights, name))  # a view: no table is held twice
        array[0] = 7.0
    tokens[:], weight[:] = 0, 0.0
    assert batch.tokens.any() and batch.weight.all() and batch.mass.all()  # copies


def test_kernels_are_compiled_once_for_what_is_read_only_and_what_is_not():
    """This holds for any memory order of the weights, and for batches of one sequence and of several."""
    batch = Batch([[0, 1, 2], [2, 1, 0]], [[1, 2, 3], [1, 0, 3]])
    weights = OneHotWeights.gaussian(4, 3, scale=0.1, rng=0)
    loss_and_gradient(weights, batch)
    heads = (block_kernels.forward_and_backward, kernels.add_pieces, kernels.distinct, kernels.attention_forward,
             kernels.attention_backward, product_kernels.outputs, product_kernels.row_slopes,
             product_kernels.word_slopes)
    if not hasattr(heads[0], "signatures"):
        pytest.skip("numba is switched off")
    sparse = Circuits(None, weights.W_O, None, None, None)
    for other in (weights, weights.map(np.asfortranarray), weights.circuits(), sparse):
        for part in (batch, batch.take([0])):
            loss_and_gradient(other, part)
    gradient_terms(weights, batch)
    for kernel in heads:
        kinds = {tuple(str(kind).removeprefix("readonly ") for kind in signature) for signature in kernel.signatures}
        assert len(kinds) == len(kernel.signatures), kernel.__name__


# --------------------------------------------------------------------------------------------------------------- load


@pytest.mark.parametrize("weights", [
    OneHotWeights.gaussian(4, 3, scale=1.0, rng=0), EmbeddedWeights.gaussian(4, W_V=1.0, rng=0),
    EmbeddedWeights.gaussian(4, W_E=1.0, W_QK=1.0, b=0.0, width=2, rng=0),
    LastTokenWeights.gaussian(4, scale=1.0, rng=0),
    LastTokenWeights.gaussian(scale=1.0, E=np.eye(4), C=np.eye(4), rng=0),
    Circuits(None, np.ones((4, 4)), None, np.ones(3), None),
], ids=repr)
@pytest.mark.parametrize("older", [False, True])
def test_load_finds_the_kind_by_itself(weights, older, tmp_path):
    """Older files, without the name of the kind, are recognised by the names of their arrays."""
    path = tmp_path / "weights.npz"
    if older:
        np.savez(path, **weights.parameters())
    else:
        weights.save(path)
    for found in (minitx.load(path), minitx.load(str(path)), type(weights).load(path)):
        assert type(found) is type(weights)
        assert found.parameters().keys() == weights.parameters().keys()
        for name, array in weights.parameters().items():
            np.testing.assert_array_equal(getattr(found, name), array)


def test_the_file_of_the_automaton_is_a_dict_of_its_weights(tmp_path):
    path, W = tmp_path / "weights.npz", {name: np.full((3, 3), k) for k, name in enumerate(("descent", "svm", "fin"))}
    np.savez(path, **{f"W_{name}": array.astype(float) for name, array in W.items()}, E=np.eye(3))
    found = minitx.load(path)
    assert found.keys() == W.keys()
    for name, weights in found.items():
        np.testing.assert_array_equal(weights.W, W[name])
        np.testing.assert_array_equal(weights.E, np.eye(3))


def test_load_says_what_a_file_is_not(tmp_path):
    path = tmp_path / "file.npz"
    with pytest.raises(FileNotFoundError, match="there is no file .*file.npz"):
        minitx.load(path)
    with pytest.raises(TypeError, match="path is 3; it must be the name of a file of weights"):
        minitx.load(3)
    with pytest.raises(ValueError, match="is a folder; give a file of weights"):
        minitx.load(tmp_path)
    for content in (b"", b"text", b"PK\x03\x04 and not more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of weights"):
            minitx.load(path)
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match="holds the arrays a, which are no weights of OneHotWeights, LayeredWeights"):
        minitx.load(path)
    np.savez(path, **{"kind of weights": np.array("Mine"), "a": np.ones(3)})
    with pytest.raises(ValueError, match="holds Mine, a parametrisation that is not one of minitx"):
        minitx.load(path)
    EmbeddedWeights.gaussian(4, W_E=1.0, rng=0).save(path)
    with pytest.raises(ValueError, match="holds EmbeddedWeights, not OneHotWeights; minitx.load finds"):
        OneHotWeights.load(path)
