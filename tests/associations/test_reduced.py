"""Reduced dynamics: its equations against slow ones, its limits against the exact gradient and the leading terms."""

import re
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import (
    Adam,
    Batch,
    Circuits,
    Momentum,
    OneHotWeights,
    associations,
    builtin_corpus,
    descend,
    loss_and_gradient,
    set_threads,
)
from minitx.associations import closure, kernels, reduced
from minitx.base.numbers import cosine, relative_error

V, T = 40, 10


@cache
def corpus():
    return builtin_corpus("stories", n_vocab=V, length=T, n_windows=60, n_documents=100).batch()


@cache
def reduction(order=2, n_cells=None):
    return reduced.reduce(corpus(), V, order=order, n_cells=n_cells)


def reduce_wholly(batch, n_vocab, **settings):
    """A reduction that keeps all directions of M, and responds in all of them at second order."""
    data = reduced.reduce(batch, n_vocab, **settings)
    return replace(data, basis=np.eye(n_vocab), response_rank=n_vocab if data.response_rank else 0)


def reduce_descent(data, *, steps, learning_rate, **options):
    return descend(OneHotWeights.zeros(V, T), data, learning_rate=learning_rate, steps=steps,
                   loss_and_gradient=reduced.loss_and_gradient, **options)


@cache
def late_weights():
    """Weights where outputs and attention are far from uniform, and M is of low rank, as in training."""
    return descend(OneHotWeights.zeros(V, T), corpus(), learning_rate=2.0, steps=60).weights


def cells_by_loops(z, tokens, weight, n_cells):
    """The members of each cell by equation 3: boxes of ``z``, cut one after another until there are ``n_cells``."""
    cells = [np.flatnonzero(tokens == a) for a in np.unique(tokens)]

    def spread(members):
        away = z[members] - np.average(z[members], axis=0, weights=weight[members])
        return weight[members] @ away**2

    while len(cells) < n_cells:
        next_cut = max(range(len(cells)), key=lambda k: spread(cells[k]).sum())
        members = cells[next_cut]
        column = z[members, np.argmax(spread(members))]
        middle = np.average(column, weights=weight[members])
        for _ in range(4):
            middle = np.mean([np.average(column[side], weights=weight[members[side]])
                              for side in (column > middle, column <= middle)])
        cells[next_cut] = members[column <= middle]
        cells.append(members[column > middle])
    return cells


def directions_by_loops(weights, frequency):
    """Eigenvectors of M J M^T as columns, the leading ones first, and their eigenvalues."""
    M = weights.V @ weights.W_O
    found, U = np.linalg.eigh(M @ (np.diag(frequency) - np.outer(frequency, frequency)) @ M.T)
    return np.ascontiguousarray(U[:, ::-1]), np.maximum(found[::-1], 0)


def closure_by_loops(weights, batch, order, n_cells):
    """Compute the equations of the notes position by position, with all directions of M, and cells by four numbers."""
    n_vocab = len(weights.W_O)
    D, M = weights.W_O, weights.V @ weights.W_O
    N, length = batch.tokens.shape
    contexts, A = np.zeros((N, length, n_vocab)), np.zeros((N, length, length))
    for i in range(N):
        for t in range(length):
            x = batch.tokens[i]
            scores = np.array([weights.W[x[t], x[j]] + weights.P[t - j] for j in range(t + 1)])
            A[i, t, :t + 1] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            np.add.at(contexts[i, t], x, A[i, t])
    tokens, weight, c = batch.tokens.ravel(), batch.weight.ravel(), contexts.reshape(-1, n_vocab)
    U, found = directions_by_loops(weights, np.bincount(batch.targets.ravel(), weight, n_vocab))
    z = (c @ U * np.sqrt(found))[:, :4]
    cells = cells_by_loops(z, tokens, weight, n_cells - n_vocab + len(np.unique(tokens)))
    cell = np.zeros(N * length, int)
    for k, members in enumerate(cells):
        cell[members] = k
    alpha = np.bincount(cell, weight)
    mean = np.array([np.average(c[members], axis=0, weights=weight[members]) for members in cells])
    p = np.exp(D[[tokens[members[0]] for members in cells]] + mean @ M)
    Z = p.sum(axis=1, keepdims=True)
    p /= Z
    J = (np.diag(alpha @ p) - p.T @ np.diag(alpha) @ p) if order == 2 else np.zeros((n_vocab, n_vocab))
    direct, ov, qk = np.zeros((3, n_vocab, n_vocab))
    position = np.zeros(length)
    loss = 0.0
    for i in range(N):
        for t in range(length):
            x, y, w, k = batch.tokens[i], batch.targets[i, t], batch.weight[i, t], cell[i * length + t]
            away = contexts[i, t] - mean[k]
            rho = -p[k] - away @ M @ J
            rho[y] += 1
            loss += w * (np.log(Z[k, 0]) - D[x[t], y] - contexts[i, t] @ M[:, y] + 0.5 * away @ M @ J @ M.T @ away)
            direct[x[t]] += w * rho
            ov += w * np.outer(contexts[i, t], rho)
            delta = M[x] @ rho
            sigma = A[i, t] * (delta - A[i, t] @ delta)
            for j in range(t + 1):
                qk[x[t], x[j]] += w * sigma[j]
                position[t - j] += w * sigma[j]
    return loss, weights.pullback(Circuits(-direct, -ov, -qk, -position, None))


def assert_alike(found, expected, tolerance):
    for name, array in expected.parameters().items():
        assert np.abs(getattr(found, name) - array).max() <= tolerance * np.abs(array).max(), name


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("n_cells", [V, V + 12])
def test_it_is_the_closure_of_the_notes(order, n_cells):
    few = corpus().take(slice(0, 8))
    expected = closure_by_loops(late_weights(), few, order, n_cells)
    data = reduce_wholly(few, V, order=order, n_cells=n_cells)
    data = replace(data, basis=directions_by_loops(late_weights(), data.frequency)[0])
    loss, gradient = reduced.loss_and_gradient(late_weights(), data)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert_alike(gradient, expected[1], 1e-10)


def closure_loss(parameters, batch, J=None):
    """Loss of the notes, a cell a token and all of M, of complex weights too. Returns (loss, J of these weights).

    J is the mean Jacobian of the softmax: a constant, or None at first order, or "of the weights" for their own.
    """
    D, M = parameters["W_O"], parameters["V"] @ parameters["W_O"]
    n_vocab, length = len(D), batch.tokens.shape[1]
    contexts = np.zeros((*batch.tokens.shape, n_vocab), D.dtype)
    for i, x in enumerate(batch.tokens):
        for t in range(length):
            A = np.exp([parameters["W"][x[t], x[j]] + parameters["P"][t - j] for j in range(t + 1)])
            np.add.at(contexts[i, t], x[:t + 1], A / A.sum())
    x, y, w, c = batch.tokens.ravel(), batch.targets.ravel(), batch.weight.ravel(), contexts.reshape(-1, n_vocab)
    alpha = np.bincount(x, w, n_vocab)
    mean = np.array([w[x == a] @ c[x == a] / (alpha[a] or 1) for a in range(n_vocab)])
    p = np.exp(D + mean @ M)
    Z = p.sum(axis=1, keepdims=True)
    p = p / Z
    own = np.diag(alpha @ p) - p.T @ (alpha[:, None] * p)
    loss = w @ (np.log(Z[x, 0]) - D[x, y] - np.sum(c * M[:, y].T, axis=1))
    if J is not None:
        away = (c - mean[x]) @ M
        loss = loss + 0.5 * w @ np.sum(away @ (own if isinstance(J, str) else J) * away, axis=1)
    return loss, own


def complex_step(parameters, name, direction, batch, J):
    """Derivative of :func:`closure_loss` along ``direction`` of one weight, to rounding."""
    moved = {key: array.astype(complex) for key, array in parameters.items()}
    moved[name] += 1e-30j * direction
    return closure_loss(moved, batch, J)[0].imag / 1e-30


def test_what_keeps_the_gradient_from_being_the_derivative_of_the_loss_is_the_mean_jacobian():
    """At first order it is the derivative; at second order, only when Jbar is held constant."""
    few, rng = corpus().take(slice(0, 8)), np.random.default_rng(0)
    parameters = late_weights().parameters()
    _, J = closure_loss(parameters, few)
    for order, constant in ((1, None), (2, J)):
        data = reduce_wholly(few, V, order=order, n_cells=V)
        loss, gradient = reduced.loss_and_gradient(late_weights(), data)
        assert loss == pytest.approx(closure_loss(parameters, few, constant)[0], rel=1e-12)
        for name, array in gradient.parameters().items():
            direction = rng.standard_normal(array.shape)
            scale = np.linalg.norm(array) * np.linalg.norm(direction)
            found = np.sum(array * direction)
            assert abs(found - complex_step(parameters, name, direction, few, constant)) < 1e-12 * scale, (order, name)
            if order == 2:
                whole = complex_step(parameters, name, direction, few, "of the weights")
                assert abs(found - whole) > 1e-4 * scale, name


def gaps_to_the_derivative(weights, data, monkeypatch):
    """{weight: |gradient - central difference of the loss| / |gradient|}, within the cells that these weights have.

    The norm of the difference is estimated from 32 orthogonal directions; of P, which has fewer entries, it is exact.
    """
    set_threads(1)  # small products
    step, assign, kept = 1e-5, closure._assign_cells, []
    monkeypatch.setattr(closure, "_assign_cells",
                        lambda *given: kept[0] if kept else kept.append(assign(*given)) or kept[0])
    _, gradient = reduced.loss_and_gradient(weights, data)
    gaps = {}
    for name, array in gradient.parameters().items():
        drawn = np.random.default_rng(0).standard_normal((array.size, min(array.size, 32)))
        directions = np.linalg.qr(drawn)[0] * np.sqrt(array.size)
        missed = []
        for direction in directions.T.reshape(-1, *array.shape):
            moved = [replace(weights, **{name: getattr(weights, name) + away * direction}) for away in (step, -step)]
            ahead, behind = (reduced.loss_and_gradient(one, data)[0] for one in moved)
            missed.append(np.sum(array * direction) - (ahead - behind) / (2 * step))
        gaps[name] = np.sqrt(np.mean(np.square(missed))) / np.linalg.norm(array)
    return gaps


def test_at_first_order_the_gradient_is_the_derivative_of_the_loss(monkeypatch):
    """They agree up to the directions of M that the default rank (32 of 40) leaves out, and up to rounding."""
    assert max(gaps_to_the_derivative(late_weights(), reduction(1), monkeypatch).values()) < 3e-6


def test_at_second_order_the_gradient_misses_the_derivative_of_the_loss_by_as_much_as_the_module_says(monkeypatch):
    """Each number of the docstring, found from all entries, is neither too small nor too large by a quarter."""
    docstring = " ".join(closure.__doc__.split())
    [sentence] = re.findall(r"the relative difference is (.*?) in P\.", docstring)
    said = dict(zip(("W_O", "V", "W", "P"), map(float, re.findall(r"([\d.]+)%", sentence)), strict=True))
    for name, gap in gaps_to_the_derivative(late_weights(), reduction(2, 2 * V), monkeypatch).items():
        assert 0.75 < 100 * gap / said[name] < 1.25, name


def test_the_kept_directions_are_the_leading_ones_of_these_weights():
    """Where few directions are kept, the gradient is within 1% of that at leading eigenvectors found densely."""
    weights, data = late_weights(), reduction(1, V)
    data = replace(data, basis=np.ascontiguousarray(data.basis[:, :8]))
    M, f = weights.V @ weights.W_O, data.frequency
    eigenvectors = np.linalg.eigh(M @ (np.diag(f) - np.outer(f, f)) @ M.T)[1][:, :-9:-1]
    _, gradient = reduced.loss_and_gradient(weights, data)
    _, expected = reduced.loss_and_gradient(weights, replace(data, basis=np.ascontiguousarray(eigenvectors)))
    assert_alike(gradient, expected, 0.01)


@pytest.mark.parametrize("order", [1, 2])
def test_a_cell_for_every_position_is_the_exact_gradient(order):
    data = replace(reduced.reduce(corpus(), V, order=order, n_cells=V + T * len(corpus())), basis=np.eye(V))
    exact_loss, exact = loss_and_gradient(late_weights(), corpus())
    loss, gradient = reduced.loss_and_gradient(late_weights(), data)
    assert loss == pytest.approx(exact_loss, rel=1e-5)
    assert_alike(gradient, exact, 1e-3)


def test_more_cells_and_the_second_order_come_closer_to_the_exact_gradient():
    exact_loss, exact = loss_and_gradient(late_weights(), corpus())
    errors = {}
    for key in ((1, V), (2, V), (1, 3 * V), (2, 3 * V)):
        loss, gradient = reduced.loss_and_gradient(late_weights(), reduction(*key))
        errors[key] = [abs(loss - exact_loss)] + [relative_error(array, getattr(exact, name))
                                                  for name, array in gradient.parameters().items()]
    assert np.all(np.array(errors[1, 3 * V]) < errors[1, V])
    assert np.all(np.array(errors[2, 3 * V]) < errors[2, V])
    assert np.all(np.array(errors[2, 3 * V]) < errors[1, 3 * V])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("n_cells", [V, 3 * V])
def test_leading_terms_to_first_order(order, n_cells):
    """At fixed steps the relative difference from the leading terms halves when eta halves."""
    known, steps, errors = associations.statistics(corpus(), V), 8, []
    for learning_rate in (0.02, 0.01):
        run = reduce_descent(reduction(order, n_cells), steps=steps, learning_rate=learning_rate)
        leading = associations.leading_weights(known, steps=steps, learning_rate=learning_rate)
        errors.append([relative_error(array, getattr(leading, name))
                       for name, array in run.weights.parameters().items()])
    assert np.max(errors[1]) < 0.01
    assert np.array(errors[0]) / errors[1] == pytest.approx(2, rel=0.1)


def test_first_steps_move_nothing_that_training_does_not():
    """Step 1 moves W_O only; step 2 moves V; step 3 moves W and P."""
    run = reduce_descent(reduction(), steps=3, learning_rate=0.1, keep=(1, 2, 3))
    moved = {step: [name for name, array in kept.parameters().items() if array.any()]
             for step, kept in run.kept.items()}
    assert moved == {1: ["W_O"], 2: ["W_O", "V"], 3: ["W_O", "V", "W", "P"]}


def test_stays_with_training_after_the_leading_terms_have_left():
    exact = descend(OneHotWeights.zeros(V, T), corpus(), learning_rate=2.0, steps=60)
    run = reduce_descent(reduction(), steps=60, learning_rate=2.0)
    leading = associations.leading_weights(associations.statistics(corpus(), V), steps=60, learning_rate=2.0)
    assert np.abs(run.loss - exact.loss).max() < 0.01 * (exact.loss[0] - exact.loss[-1])
    for name, array in exact.weights.parameters().items():
        assert cosine(getattr(run.weights, name), array) > 0.998
        assert relative_error(getattr(run.weights, name), array) < 0.05 < relative_error(getattr(leading, name), array)


@pytest.mark.parametrize(("rule", "rate", "bound"), [(Momentum(), 0.2, 0.01), (Adam(), 0.01, 0.02)])
def test_stays_with_training_by_other_optimisers(rule, rate, bound):
    """What is predicted is the gradient, which every optimiser needs; leading terms are of gradient descent alone."""
    start, settings = OneHotWeights.zeros(V, T), {"learning_rate": rate, "steps": 60, "optimiser": rule}
    exact, run = descend(start, corpus(), **settings), reduced.descend(start, corpus(), **settings)
    assert exact.loss[-1] < exact.loss[0] - 0.5
    for name, array in exact.weights.parameters().items():
        assert relative_error(getattr(run.weights, name), array) < bound


def test_weights_of_positions_and_lengths_are_respected():
    rng = np.random.default_rng(1)
    tokens, targets = rng.integers(0, 7, (2, 8, 6))
    lengths = np.array([6, 4, 5, 1, 6, 2, 6, 3])
    weight = rng.random((8, 6)) * (np.arange(6) < lengths[:, None])
    weight[4, :3] = 0
    batch = Batch(tokens, targets, weight, lengths)
    weights = OneHotWeights.gaussian(7, 9, scale=0.3, rng=2)  # P longer than the sequences
    exact_loss, exact = loss_and_gradient(weights, batch)
    # a position a cell
    loss, gradient = reduced.loss_and_gradient(weights, reduced.reduce(batch, 7, order=1, n_cells=60))
    assert loss == pytest.approx(exact_loss, rel=1e-12)
    assert_alike(gradient, exact, 1e-10)


def test_attention_far_below_its_row_of_the_table():
    """The largest score of a row belongs to a token that is not seen: the others must not be lost."""
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-10)):
        batch = Batch([[0, 1, 1], [1, 0, 1]], [[1, 1, 0], [0, 1, 0]])
        weights = OneHotWeights.gaussian(3, 3, scale=0.5, rng=0, dtype=dtype)
        W = weights.W.copy()
        W[:, 2] += 900
        W[1, 0] += 4
        weights = replace(weights, W=W)
        loss, gradient = reduced.loss_and_gradient(weights, reduced.reduce(batch, 3, order=1, n_cells=9))
        exact_loss, exact = loss_and_gradient(weights, batch)
        assert loss == pytest.approx(exact_loss, rel=tolerance)
        assert_alike(gradient, exact, tolerance)


def test_float32():
    loss, gradient = reduced.loss_and_gradient(late_weights().astype(np.float32), reduction(2, V))
    expected, exact = reduced.loss_and_gradient(late_weights(), reduction(2, V))
    assert gradient.W.dtype == gradient.W_O.dtype == gradient.V.dtype == gradient.P.dtype == np.float32
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_alike(gradient, exact, 1e-3)


def test_sums_over_many_positions_are_as_precise_as_single_ones_in_float32():
    """32,000 positions of 40 tokens: sums of thousands of float32 numbers in turn would be 1e-4 off in V."""
    batch = builtin_corpus("stories", n_vocab=V, length=32, n_windows=1000).batch()
    data, weights = reduced.reduce(batch, V, n_cells=V), OneHotWeights.gaussian(V, 32, scale=0.1, rng=0)
    _, gradient = reduced.loss_and_gradient(weights.astype(np.float32), data)
    _, expected = reduced.loss_and_gradient(weights, data)
    assert_alike(gradient, expected, 3e-6)


def test_the_same_bits_for_any_number_of_threads():
    found = []
    for n_threads in (1, 2, 5):
        set_threads(n_threads)
        found.append(reduced.loss_and_gradient(late_weights(), reduced.reduce(corpus(), V)))
    for loss, gradient in found[1:]:
        assert loss == found[0][0]
        assert all(np.array_equal(array, getattr(found[0][1], name)) for name, array in gradient.parameters().items())


def cut(z, weight, begin, n_cells):
    """The members of each cell that the kernel finds, in its order."""
    order = np.arange(len(z), dtype=np.int32)
    return np.split(order, np.sort(kernels.cut_cells(closure.fours(z), weight, np.asarray(begin), n_cells, order))[1:])


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 4),
       st.integers(0, 20))
def test_cells_are_those_of_the_slow_cuts(seed, sizes, n_numbers, more):
    rng, n = np.random.default_rng(seed), sum(sizes)
    z, weight, tokens = rng.standard_normal((n, n_numbers)), 0.1 + rng.random(n), np.repeat(range(len(sizes)), sizes)
    n_cells = min(len(sizes) + more, n)
    found = cut(z, weight, np.flatnonzero(np.diff(tokens, prepend=-1)), n_cells)
    expected = cells_by_loops(z, tokens, weight, n_cells)
    assert sorted(map(list, found)) == sorted(map(list, expected))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 4),
       st.integers(0, 60))
def test_cells_are_disjoint_boxes_of_one_token_and_equal_contexts_share_one(seed, sizes, n_numbers, more):
    """On a coarse grid, where many contexts are equal. The members of a cell keep their order."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    z, tokens = rng.integers(-1, 2, (n, n_numbers)) / 3, np.repeat(range(len(sizes)), sizes)
    cells = cut(z, 0.1 + rng.random(n), np.flatnonzero(np.diff(tokens, prepend=-1)), len(sizes) + more)
    assert np.sort(np.concatenate(cells)).tolist() == list(range(n))
    assert all(np.all(np.diff(members) > 0) and len(set(tokens[members])) == 1 for members in cells)
    distinct = len({(token, *row) for token, row in zip(tokens, z.tolist(), strict=True)})
    assert len(cells) == min(len(sizes) + more, distinct)
    for one, other in combinations(cells, 2):
        assert tokens[one[0]] != tokens[other[0]] or np.any(
            (z[one].max(axis=0) < z[other].min(axis=0)) | (z[other].max(axis=0) < z[one].min(axis=0)))


def test_the_cell_with_the_largest_spread_is_cut_next_and_equal_contexts_never():
    z = np.array([0.0, 0.1, 5.0, 5.1, 1.0, 1.0, 1.0, 2.0])[:, None]  # two tokens of four positions
    assert [cell[0] for cell in cut(z, np.ones(8), [0, 4], 3)] == [0, 2, 4]
    assert [cell[0] for cell in cut(z, np.ones(8), [0, 4], 100)] == [0, 1, 2, 3, 4, 7]


def test_a_cell_is_cut_half_way_between_the_means_of_its_parts():
    """What 2-means ends at; its first round, which cuts at the mean of all, is far from it when contexts are skewed."""
    z = 1.5 ** np.arange(12)
    below, above = cut(z[:, None], np.ones(12), [0], 2)
    assert z[below].max() < (z[below].mean() + z[above].mean()) / 2 <= z[above].min()
    assert len(below) > np.searchsorted(z, z.mean())


def test_boxes_of_four_numbers_come_closer_than_intervals_of_one(monkeypatch):
    _, exact = loss_and_gradient(late_weights(), corpus())
    _, boxes = reduced.loss_and_gradient(late_weights(), reduction(2, 2 * V))
    monkeypatch.setattr(closure, "NUMBERS", 1)
    _, intervals = reduced.loss_and_gradient(late_weights(), reduction(2, 2 * V))
    for name, array in exact.parameters().items():
        assert relative_error(getattr(boxes, name), array) < 0.3 * relative_error(getattr(intervals, name), array)


def test_small_and_degenerate_batches():
    for batch in (Batch([[0]], [[1]]), Batch([[1, 1, 1, 1]], [[1, 1, 1, 1]]), Batch([[0, 1]], [[1, 0]], [[0.0, 1.0]])):
        data = reduced.reduce(batch, 2)
        zero = OneHotWeights.zeros(2, batch.tokens.shape[1])
        exact_loss, exact = loss_and_gradient(zero, batch)
        loss, gradient = reduced.loss_and_gradient(zero, data)
        assert loss == pytest.approx(exact_loss)
        assert_alike(gradient, exact, 1e-12)
        assert descend(zero, data, learning_rate=0.5, steps=20,
                       loss_and_gradient=reduced.loss_and_gradient).loss[-1] < exact_loss


def test_where_contexts_act_through_one_number_or_none():
    """M of rank 1, and M = 0: cells by one number, and one a token, are the exact gradient with enough cells."""
    random, rng = OneHotWeights.gaussian(V, T, scale=0.5, rng=0), np.random.default_rng(1)
    for matrix in (np.outer(rng.standard_normal(V), rng.standard_normal(V)), np.zeros((V, V))):
        weights = replace(random, V=matrix)
        exact_loss, exact = loss_and_gradient(weights, corpus())
        loss, gradient = reduced.loss_and_gradient(weights, reduced.reduce(corpus(), V, order=1, n_cells=20 * V))
        assert loss == pytest.approx(exact_loss, rel=1e-12)
        assert_alike(gradient, exact, 1e-10)


def test_what_cannot_be_is_refused():
    zero = OneHotWeights.zeros(V, T)
    with pytest.raises(ValueError, match="order is 3"):
        reduced.reduce(corpus(), V, order=3)
    with pytest.raises(ValueError, match="n_cells is 5"):
        reduced.reduce(corpus(), V, n_cells=5)
    with pytest.raises(TypeError, match="Batch"):
        reduced.reduce(corpus().tokens, V)
    with pytest.raises(ValueError, match="vocabulary"):
        reduced.reduce(corpus(), 5)
    with pytest.raises(ValueError, match="one sign"):
        reduced.reduce(Batch([[0, 1]], [[1, 1]], [[1.0, -0.5]]), 2)
    with pytest.raises(ValueError, match="W_O: an entry is inf"):
        reduced.loss_and_gradient(replace(zero, W_O=np.full((V, V), np.nan)), reduction())
    with pytest.raises(TypeError, match="reduce"):
        reduced.loss_and_gradient(zero, corpus())
    with pytest.raises(TypeError, match="OneHotWeights"):
        reduced.loss_and_gradient(zero.circuits(), reduction())
    with pytest.raises(ValueError, match="zeros"):
        reduced.loss_and_gradient(OneHotWeights.zeros(V, T - 1), reduction())
    with pytest.raises(FloatingPointError, match="overflow"):
        reduced.loss_and_gradient(replace(zero, W_O=np.full((V, V), 1e308) * np.eye(V), V=np.full((V, V), 1e308)),
                                  reduction())


def test_descend_is_training_on_the_reduction():
    start, settings = OneHotWeights.zeros(V, T), {"learning_rate": 2.0, "steps": 4, "keep": (2,)}
    for options in ({}, {"order": 1, "n_cells": V}):
        run = reduced.descend(start, corpus(), **options, **settings)
        same = reduce_descent(reduced.reduce(corpus(), V, **options), **settings)
        np.testing.assert_array_equal(run.loss, same.loss)
        np.testing.assert_array_equal(run.kept[2].W, same.kept[2].W)
    with pytest.raises(TypeError, match="it must be of the type Batch"):
        reduced.descend(start, corpus().tokens, **settings)
