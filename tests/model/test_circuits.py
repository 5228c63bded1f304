"""Loss and gradient of the circuits agree with loops and the complex step, also at the edges; bad input is refused."""

import decimal
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from minitx import Batch, Circuits, OneHotWeights, attention_and_output, gradient_terms, loss_and_gradient
from minitx.base import parallel
from minitx.model import blocks as blocks_room
from minitx.model.testing import STEP, check_gradient, rounding
from minitx.model.testing import circuits as problems
from minitx.model.weights import LastTokenWeights
from minitx.next_token.losses import loss_and_gradient as by_counts
from minitx.next_token.samples import Samples

import naive

ANY = problems()


def arguments(circuits, batch):
    """Positional and keyword arguments of the oracles in naive.py."""
    return ((circuits.direct, circuits.ov, circuits.qk, circuits.position, circuits.bias,
             batch.tokens, batch.targets, batch.weight),
            {"lengths": batch.lengths, "causal": batch.causal, "head": batch.head, "mass": batch.mass})


@given(ANY)
def test_loss_and_gradient_equal_the_loops(problem):
    circuits, batch = problem
    loss, gradient = loss_and_gradient(circuits, batch)
    positional, named = arguments(circuits, batch)
    expected = naive.loss(*positional, **named)
    assert loss == pytest.approx(expected, rel=1e-13, abs=rounding(circuits, batch))
    for name, table in naive.gradient(*positional, **named).items():
        found = getattr(gradient, name)
        assert found.shape == getattr(circuits, name).shape
        np.testing.assert_allclose(found, table, rtol=0, atol=1e-12 * np.abs(table).max() + rounding(circuits, batch))


@given(ANY)
def test_gradient_equals_the_complex_step(problem):
    circuits, batch = problem
    _, gradient = loss_and_gradient(circuits, batch)
    for name, table in circuits.parameters().items():
        expected = np.empty(table.size)
        for entry in range(table.size):
            shifted = table.astype(complex)
            shifted.ravel()[entry] += 1j * STEP
            positional, named = arguments(Circuits(**{**vars(circuits), name: shifted}), batch)
            expected[entry] = naive.loss(*positional, **named).imag / STEP
        np.testing.assert_allclose(getattr(gradient, name).ravel(), expected, rtol=0,
                                   atol=1e-12 * np.abs(expected).max() + rounding(circuits, batch))


@given(ANY)
def test_check_gradient_passes_what_is_right_and_fails_what_is_wrong(problem):
    circuits, batch = problem
    check_gradient(circuits, batch)
    _, right = loss_and_gradient(circuits, batch)
    if 1e-12 * np.abs(right.ov).max() > rounding(circuits, batch):

        def wrong(circuits, batch):
            loss, gradient = loss_and_gradient(circuits, batch)
            return loss, gradient.map(lambda table: table * (1 + 1e-10))

        with pytest.raises(AssertionError, match="the complex step gives"):
            check_gradient(circuits, batch, loss_and_gradient=wrong)


@given(ANY)
def test_attention_and_output_equal_the_loops(problem):
    circuits, batch = problem
    A, out = attention_and_output(circuits, batch)
    for i, t in np.ndindex(*batch.tokens.shape):
        if batch.weight[i, t] == 0:
            assert not A[i, t].any()
            assert not out[i, t].any()
            continue
        settings = (t, batch.causal, batch.lengths[i], None if batch.mass is None else batch.mass[i])
        expected = naive.attention(batch.tokens[i], circuits.qk, circuits.position, *settings)
        np.testing.assert_allclose(A[i, t], expected, rtol=1e-11, atol=1e-15)
        assert A[i, t].sum() == pytest.approx(1, abs=1e-14)
        expected = naive.output(*arguments(circuits, batch)[0][:5], batch.tokens[i], *settings)
        np.testing.assert_allclose(out[i, t], expected, rtol=1e-11, atol=1e-11 * max(1, np.abs(expected).max()))


@given(ANY)
def test_sequences_and_positions_without_weight_change_nothing(problem):
    circuits, batch = problem
    loss, gradient = loss_and_gradient(circuits, batch)
    more = Batch(np.vstack([batch.tokens, batch.tokens]), np.vstack([batch.targets, 0 * batch.targets - 100]),
                 np.vstack([batch.weight, 0 * batch.weight]),
                 lengths=np.tile(batch.lengths, 2), causal=batch.causal, head=batch.head,
                 mass=None if batch.mass is None else np.tile(batch.mass, (2, 1)))
    loss_more, gradient_more = loss_and_gradient(circuits, more)
    assert loss_more == pytest.approx(loss, rel=1e-14)
    for name, table in gradient.parameters().items():
        np.testing.assert_array_equal(getattr(gradient_more, name), table)


@given(problems(causal=False), st.integers(1, 3))
def test_mass_is_a_number_of_copies(problem, copies):
    """A token that occurs two or three times gives the same loss and gradient as one token of that mass."""
    circuits, batch = problem
    mass = np.ones(batch.tokens.shape) if batch.mass is None else batch.mass
    inside = np.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    heavier = replace(batch, mass=copies * mass)

    def repeated(array):
        return np.concatenate([np.where(inside, array, 0)] * copies, axis=1)

    as_copies = Batch(repeated(batch.tokens), repeated(batch.targets), repeated(batch.weight) / copies, causal=False,
                      head=batch.head, mass=repeated(mass))
    loss, gradient = loss_and_gradient(circuits, heavier)
    loss_copies, gradient_copies = loss_and_gradient(circuits, as_copies)
    assert loss_copies == pytest.approx(loss, rel=1e-13, abs=rounding(circuits, batch))
    for name, table in gradient.parameters().items():
        np.testing.assert_allclose(getattr(gradient_copies, name), table, rtol=0,
                                   atol=1e-12 * np.abs(table).max() + 4 * rounding(circuits, batch))


def test_a_hidden_key_cannot_set_the_scale():
    """Mass 0 at a key of score 1000: the others' attention must not underflow."""
    qk = np.array([[0.0, 0.0, 1e3], [0.0, 0.0, 1e3], [0.0, 0.0, 0.0]])
    circuits = Circuits(None, np.eye(3), qk, None, None)
    for causal in (False, True):
        batch = Batch([[0, 1, 2]], [[1, 1, 1]], [[0.0, 1.0, 1.0]], causal=causal, mass=[[1.0, 3.0, 0.0]])
        A, _ = attention_and_output(circuits, batch)
        np.testing.assert_allclose(A[0, 1:], [[0.25, 0.75, 0.0]] * 2, rtol=1e-15)


def test_without_order_equal_tokens_ask_and_are_asked_once():
    """Keys and queries of a bag are distinct tokens: here 8 positions hold 3 tokens, 2 of them at loss positions."""
    tokens = np.array([[1, 0, 1, 2, 2, 0, 1, 1]])
    batch = Batch(tokens, tokens, [[1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]], causal=False)
    block, = blocks_room.Bags.of(batch, np.float64, 3).cut(3)
    np.testing.assert_array_equal(block.keys, [[1, 0, 2]])
    np.testing.assert_array_equal(block.mass, [[4.0, 2.0, 2.0]])
    np.testing.assert_array_equal(block.current, [[1, 0]])
    np.testing.assert_array_equal(block.asked, [[0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(block.positions, [[0, 2, 7, 1, 5]])


def test_positions_without_weight_cost_no_row():
    """A block holds the loss positions only, so its products have one row a loss position."""
    rng = np.random.default_rng(0)
    weight = np.zeros((9, 20))
    weight[:4, 7], weight[:2, 19] = 1.0, 0.5
    batch = Batch(rng.integers(0, 5, (9, 20)), rng.integers(0, 5, (9, 20)), weight)
    held = blocks_room.blocks(batch, 5, np.float64)
    assert sum(block.queries.shape[0] for block in held) == 4
    assert all(block.queries.shape[1] == 2 for block in held)
    np.testing.assert_array_equal(held[0].queries[0], [7, 19])


@given(ANY)
def test_float32_is_float64_to_its_precision(problem):
    circuits, batch = problem
    assume(max(np.abs(table).max() for table in circuits.parameters().values()) < 40)
    single = circuits.astype(np.float32)
    loss, gradient = loss_and_gradient(single.astype(np.float64), batch)
    loss_single, gradient_single = loss_and_gradient(single, batch)
    scale = rounding(circuits, batch) * 1e15  # of what is summed
    assert loss_single == pytest.approx(loss, abs=1e-5 * scale)
    for name, table in gradient.parameters().items():
        found = getattr(gradient_single, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, table, rtol=0, atol=1e-5 * scale)


def test_gradients_keep_their_digits_when_the_softmax_is_saturated():
    """1 - p of the target, at margins where 1 - p computed from p is all rounding (or 0)."""
    for margin in (10.0, 40.0, 300.0):
        circuits = Circuits(np.array([[margin, 0.0], [0.0, 0.0]]), np.zeros((2, 2)), None, None, None)
        loss, gradient = loss_and_gradient(circuits, Batch([[0]], [[0]]))
        rest = np.exp(-margin) / (1 + np.exp(-margin))
        assert loss == pytest.approx(np.log1p(np.exp(-margin)), rel=1e-14)
        np.testing.assert_allclose(gradient.direct[0], [-rest, rest], rtol=1e-14)


def test_attention_gradient_keeps_its_digits_when_attention_is_saturated():
    """-log P_y with the label ahead by a margin: dL/dscore is (1 - P_y) on the others, -(1 - P_y) on the label."""
    for margin in (10.0, 40.0, 300.0):
        circuits = Circuits(None, np.eye(3), np.array([[0.0] * 3, [0.0] * 3, [margin, 0.0, 0.0]]), None, None)
        batch = Batch([[0, 1, 2]], [[0, 0, 0]], [[0.0, 0.0, 1.0]], head="log")
        _, gradient = loss_and_gradient(circuits, batch)
        one = np.exp(-margin) / (1 + 2 * np.exp(-margin))
        np.testing.assert_allclose(gradient.qk[2], [-2 * one, one, one], rtol=1e-14)


@functools.cache
def _root_of_e():
    """The eighth root of e, to the digits of the decimal context."""
    return decimal.Decimal("0.125").exp()


def _exact_log_loss(circuits, tokens, t, y, mass):
    """-log(out_y) of position t, which attends to all tokens, and its derivative in every score, by 1,200 digits.

    Scores are multiples of 1/8, so that their exponentials are powers of one number.
    """
    D = decimal.Decimal

    def eighths(j):
        score = circuits.qk[tokens[t], tokens[j]] + (0 if circuits.position is None else circuits.position[t - j])
        assert (8 * score).is_integer()
        return int(8 * score)

    with decimal.localcontext() as context:
        context.prec = 1200
        root = _root_of_e()
        A = [D(m) * root ** eighths(j) for j, m in enumerate(mass)]
        A = [a / sum(A) for a in A]
        v = [D(circuits.ov[x, y]) + D(circuits.direct[tokens[t], y]) + D(circuits.bias[y]) for x in tokens]
        out = sum(a * value for a, value in zip(A, v, strict=True))
        return float(-out.ln()), [float(a * (out - value) / out) for a, value in zip(A, v, strict=True)]


@pytest.mark.parametrize("ov", ["identity", "stochastic"])
@settings(max_examples=30)
@given(gap=st.sampled_from((10, 40, 300, 1000)), causal=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_log_head_has_all_digits_at_any_gap(ov, gap, causal, seed):
    """The loss and dL/d scores agree with 1,200 digits where the output is a probability, however near 0 or 1 that is.

    Scores are multiples of 1/8, so that their sums are exact. With the identity every single derivative is exact; with
    other rows of probabilities the error is relative to the largest derivative.
    """
    rng = np.random.default_rng(seed)
    tokens, t, y = rng.integers(0, 4, 5), 4, int(rng.integers(0, 4))
    tokens[rng.integers(0, 4)] = y
    mass = rng.integers(1, 4, 5) * 0.5
    qk, position = (np.round(rng.uniform(-gap, gap, shape) * 8) / 8 for shape in ((4, 4), 5))
    rows, direct, bias = np.eye(4), np.zeros(4), np.zeros(4)
    if ov == "stochastic":
        rows = rng.dirichlet(np.ones(4), 4) * (rng.random((4, 4)) < 0.4) / 2
        rows[y, y] = 0.25
        direct, bias = rng.integers(0, 2, (2, 1)) * rng.dirichlet(np.ones(4), 2) / 4
    circuits = Circuits(np.tile(direct, (4, 1)), rows, qk, position if causal else None, bias)
    batch = Batch([tokens], [[y] * 5], [[0, 0, 0, 0, 1.0]], causal=causal, head="log", mass=[mass])
    loss, gradient = loss_and_gradient(circuits, batch)
    expected, slopes = _exact_log_loss(circuits, tokens, t, y, mass)
    assert loss == pytest.approx(expected, rel=1e-13, abs=1e-300)
    by_key = np.bincount(tokens, slopes, 4)
    digits = {"rtol": 1e-13, "atol": 1e-300} if ov == "identity" else {"rtol": 0, "atol": 1e-13 * np.abs(slopes).max()}
    np.testing.assert_allclose(gradient.qk[tokens[t]], by_key, **digits)
    if causal:
        np.testing.assert_allclose(gradient.position, slopes[::-1], **digits)


@pytest.mark.parametrize("gap", [10.0, 40.0, 300.0, 700.0, 745.0, 800.0, 1000.0])
@pytest.mark.parametrize("ahead", [0, 1])
def test_log_head_agrees_with_the_last_token_by_counts(gap, ahead):
    """The circuits agree with the losses by counts where the label is behind or ahead by a gap."""
    W = np.zeros((3, 3))
    W[ahead, 2] = gap
    samples = Samples.of([[0, 1, 2], [1, 1, 2], [0, 0, 1, 2]], [0, 1, 0])
    loss, gradient = loss_and_gradient(LastTokenWeights(W), samples.batch())
    expected, slope = by_counts(LastTokenWeights(W), samples)
    assert loss == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient.W, slope.W, rtol=1e-13)


def test_log_head_says_which_derivative_is_too_large():
    """An entry of dL/d ov that no float holds is inf, and never nan; a derivative that is nan is refused by name."""
    qk = np.array([[0.0, 0.0], [800.0, 0.0]])
    batch = Batch([[0, 1]], [[1, 1]], [[0.0, 1.0]], head="log")
    loss, gradient = loss_and_gradient(Circuits(None, np.eye(2), qk, None, None), batch)
    assert loss == 800
    np.testing.assert_array_equal(gradient.ov, [[0.0, -np.inf], [0.0, -1.0]])
    np.testing.assert_array_equal(gradient.qk, [[0.0, 0.0], [1.0, -1.0]])
    with pytest.raises(FloatingPointError, match="the derivative in .*C overflows"):
        loss_and_gradient(LastTokenWeights(qk.T, E=np.eye(2), C=np.eye(2)), batch)


@pytest.mark.parametrize("head", ["cross_entropy", "squared", "log"])
@pytest.mark.parametrize("causal", [True, False])
def test_many_blocks_add_up(monkeypatch, head, causal):
    """Blocks of one sequence, on three threads, give what one block of everything gives."""
    rng = np.random.default_rng(0)
    n_vocab, n, length = 530, 7, 5
    tokens, targets = rng.integers(0, n_vocab, (2, n, length))
    batch = Batch(tokens, targets, causal=causal, head=head)
    circuits = Circuits(*(rng.random((n_vocab, n_vocab)) for _ in range(3)), rng.random(length) if causal else None,
                        rng.random(n_vocab))
    loss, gradient = loss_and_gradient(circuits, batch)
    monkeypatch.setattr(blocks_room, "BLOCK_BYTES", 1)
    parallel.set_threads(3)
    loss_cut, gradient_cut = loss_and_gradient(circuits, batch)
    assert loss_cut == pytest.approx(loss, rel=1e-14)
    for name, table in gradient.parameters().items():
        np.testing.assert_allclose(getattr(gradient_cut, name), table, rtol=1e-12, atol=1e-15)


def test_queries_that_reach_few_words():
    """Later queries may see fewer tokens, and tokens may come after the last loss position."""
    rng = np.random.default_rng(0)
    n_vocab, length = 40, 30
    tokens, targets = rng.integers(0, n_vocab, (2, 3, length))
    tokens[2] = np.repeat(rng.integers(0, n_vocab, 5), 6)  # few distinct tokens
    weight = np.zeros((3, length))
    weight[0, :4], weight[1, 3:25:4], weight[2, 2:] = 0.1, 0.2, 0.3
    batch = Batch(tokens, targets, weight)
    circuits = Circuits(*(rng.standard_normal((n_vocab, n_vocab)) for _ in range(3)), rng.standard_normal(length), None)
    loss, gradient = loss_and_gradient(circuits, batch)
    positional, named = arguments(circuits, batch)
    expected = naive.gradient(*positional, **named)
    assert loss == pytest.approx(naive.loss(*positional, **named), rel=1e-13)
    for name, table in gradient.parameters().items():
        np.testing.assert_allclose(table, expected[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("causal", [True, False])
def test_memory_that_was_not_written_is_not_read(monkeypatch, causal):
    """Sequences of a block have different numbers of words and of loss positions, and memory may hold anything."""
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 90, (2, 4, 8))
    tokens[1] = tokens[1, 0]
    weight = rng.random((4, 8)) * (rng.random((4, 8)) < 0.5)
    weight[2, 5:] = weight[3, 3:] = 0.0
    weight[:, 0] = 0.1
    circuits = Circuits(*(rng.standard_normal((90, 90)) for _ in range(3)), None, None)

    def gradient():
        batch = Batch(tokens, targets, weight, lengths=[8, 8, 5, 3], causal=causal)
        return loss_and_gradient(circuits, batch)[1].parameters()

    expected, empty_like, empty = gradient(), np.empty_like, np.empty
    for name, allocate in (("empty_like", empty_like), ("empty", empty)):
        def filled(*given, allocate=allocate, **named):
            found = allocate(*given, **named)
            if found.dtype.kind == "f":
                found[...] = np.nan
            return found
        monkeypatch.setattr(np, name, filled)
    for name, table in gradient().items():
        np.testing.assert_array_equal(table, expected[name])


def test_weights_broadcast():
    tokens = np.zeros((2, 3), int)
    for weight in (0.5, [0.0, 0.5, 1.0], [[1.0], [2.0]]):
        np.testing.assert_array_equal(Batch(tokens, tokens, weight).weight, np.broadcast_to(weight, (2, 3)))


def test_take_estimates_the_batch():
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 3, (6, 4)), rng.integers(0, 3, (6, 4)))
    circuits = Circuits(*(rng.standard_normal((3, 3)) for _ in range(3)), None, None)
    parts = [loss_and_gradient(circuits, batch.take(rows))[0] for rows in (np.arange(3), np.arange(3, 6))]
    assert np.mean(parts) == pytest.approx(loss_and_gradient(circuits, batch)[0], rel=1e-14)


def _tables(n_vocab=3, **changed):
    tables = {"direct": np.zeros((n_vocab, n_vocab)), "ov": np.zeros((n_vocab, n_vocab))}
    return Circuits(**{"qk": None, "position": None, "bias": None, **tables, **changed})


@pytest.mark.parametrize(("tokens", "targets", "settings", "error", "says"), [
    ([0, 1], [0, 1], {}, ValueError, "2-dimensional"),
    ([[0.0, 1.0]], [[0, 1]], {}, TypeError, "must be integers"),
    ([[0, 1]], [[0, 1, 2]], {}, ValueError, "one target for each position"),
    (np.zeros((0, 3), int), np.zeros((0, 3), int), {}, ValueError, "empty"),
    ([[0, -1]], [[0, 1]], {}, ValueError, "must not be negative"),
    ([[0, 1]], [[0, -1]], {}, ValueError, "must not be negative"),
    ([[0, 2**32 + 1]], [[0, 1]], {}, ValueError, "tokens must be below 2\\^31"),
    ([[0, 1]], [[0, 1]], {"weight": [[1.0, 1.0, 1.0]]}, ValueError, "one weight for each position"),
    ([[0, 1]], [[0, 1]], {"weight": [[1.0, np.nan]]}, ValueError, "1 values of weight are not finite"),
    ([[0, 1]], [[0, 1]], {"weight": [[0.0, 0.0]]}, ValueError, "nothing to predict"),
    ([[0, 1]], [[0, 1]], {"lengths": [3]}, ValueError, "from 1 to 2"),
    ([[0, 1]], [[0, 1]], {"lengths": [1], "weight": [[1.0, 1.0]]}, ValueError, "beyond their sequence's length"),
    ([[0, 1]], [[0, 1]], {"causal": "no"}, TypeError, "must be True or False"),
    ([[0, 1]], [[0, 1]], {"head": "hinge"}, ValueError, "one of cross_entropy, squared, log"),
    ([[0, 1]], [[0, 1]], {"mass": [[1.0, 1.0, 1.0]]}, ValueError, "one mass for each position"),
    ([[0, 1]], [[0, 1]], {"mass": [[1.0, np.inf]]}, ValueError, "1 values of mass are not finite"),
    ([[0, 1]], [[0, 1]], {"mass": [[1.0, -1.0]]}, ValueError, "mass must not be negative"),
    ([[0, 1]], [[0, 1]], {"mass": [[0.0, 1.0]]}, ValueError, "1 loss positions have nothing to attend to"),
    ([[0, 1]], [[0, 1]], {"mass": 0.0, "causal": False}, ValueError, "2 loss positions have nothing to attend to"),
])
def test_batch_refuses(tokens, targets, settings, error, says):
    with pytest.raises(error, match=says):
        Batch(tokens, targets, **settings)


@pytest.mark.parametrize(("circuits", "settings", "says"), [
    (_tables(2), {}, r"id 2 but the vocabulary has 2 tokens"),
    (_tables(ov=None), {}, r"ov is None; it must be a \(V, V\) table"),
    (_tables(ov=np.zeros(3)), {}, r"ov has shape \(3,\); it must be \(V, V\) with V = 3"),
    (_tables(direct=np.zeros((3, 3), int)), {}, "direct is int64 and ov float64; all tables must be float64"),
    (_tables(direct=np.zeros((2, 3))), {}, r"direct has shape \(2, 3\)"),
    (_tables(qk=np.zeros((3, 3), np.float32)), {}, "all tables must be float64, or all float32"),
    (_tables(direct=np.zeros((3, 3), complex)), {}, "must be float64"),
    (_tables(ov=np.full((3, 3), np.inf)), {}, "ov: an entry is inf or nan"),
    (_tables(position=np.zeros(1)), {}, "position has shape .* the sequences have 2 positions"),
    (_tables(position=np.zeros(2)), {"causal": False}, "position scores need causal attention"),
])
def test_loss_refuses(circuits, settings, says):
    with pytest.raises(ValueError, match=says):
        loss_and_gradient(circuits, Batch([[0, 2]], [[1, 1]], **settings))


def test_a_loss_that_is_not_finite_is_said():
    with pytest.raises(FloatingPointError, match="the loss is inf"), np.errstate(all="ignore"):
        loss_and_gradient(_tables(), Batch([[0]], [[1]], head="log"))


@given(ANY)
def test_layout_in_memory_does_not_matter(problem):
    circuits, batch = problem
    loss, gradient = loss_and_gradient(circuits, batch)
    other = circuits.map(lambda table: np.repeat(np.asfortranarray(table), 2, axis=0)[::2])
    loss_other, gradient_other = loss_and_gradient(other, batch)
    assert loss_other == loss
    for name, table in gradient.parameters().items():
        np.testing.assert_array_equal(getattr(gradient_other, name), table)


def test_calls_at_the_same_time_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 40, (30, 20)), rng.integers(0, 40, (30, 20)))
    circuits = Circuits(*(rng.standard_normal((40, 40)) for _ in range(3)), None, None)
    expected = loss_and_gradient(circuits, batch)[0]
    before = threadpool_info()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: loss_and_gradient(circuits, batch)[0], range(40))) == {expected}
    assert threadpool_info() == before


def test_nan_is_found_wherever_it_is():
    """This holds in the row of a token that is never attended to as well."""
    V = np.zeros((4, 4))
    V[3, 1] = np.nan
    weights = replace(OneHotWeights.zeros(4, 3), V=V)
    batch = Batch([[0, 1, 2]], [[1, 2, 0]])
    for function in (loss_and_gradient, gradient_terms):
        with pytest.raises(ValueError, match="V: an entry is inf or nan"):
            function(weights, batch)


def test_circuits_are_saved_and_loaded_with_what_is_absent(tmp_path):
    circuits = Circuits(None, np.eye(3), None, None, np.ones(3))
    circuits.save(tmp_path / "circuits.npz")
    loaded = Circuits.load(tmp_path / "circuits.npz")
    assert set(loaded.parameters()) == {"ov", "bias"}
    np.testing.assert_array_equal(loaded.ov, circuits.ov)


def test_arguments_are_not_modified():
    rng = np.random.default_rng(0)
    tokens, targets, weight = rng.integers(0, 3, (2, 4)), rng.integers(0, 3, (2, 4)), rng.random((2, 4))
    circuits = _tables(ov=rng.random((3, 3)), qk=rng.random((3, 3)))
    copies = [array.copy() for array in (tokens, targets, weight, circuits.ov, circuits.qk)]
    loss_and_gradient(circuits, Batch(tokens, targets, weight))
    for array, copy in zip((tokens, targets, weight, circuits.ov, circuits.qk), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
