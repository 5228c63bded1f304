"""Graph-SVM and the cyclic subspace: recorded solutions of another solver, proofs of optimality, invariances."""

import naive_next_token as naive
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from next_token_strategies import basis_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog, minimize

from minitx.next_token import svm as module
from minitx.next_token.graphs import Constraints, constraints, priority_graphs
from minitx.next_token.samples import Samples
from minitx.next_token.split import cyclic_subspace
from minitx.next_token.svm import InfeasibleError, graph_svm, solve


def graphs_of(instance):
    return priority_graphs(Samples.of(instance["ids"], instance["labels"], instance["K"]))


def table_of(kind, n_vocab, rng):
    """(K, d) embeddings of one of four kinds."""
    if kind == "dependent":  # small whole numbers: exact relations, equal rows and zero rows among them
        return rng.integers(-2, 3, (n_vocab, int(rng.integers(2, 5)))).astype(float)
    if kind == "random":
        return rng.standard_normal((n_vocab, int(rng.integers(3, n_vocab + 3)))) * rng.choice([0.1, 1.0, 20.0])
    Q = np.linalg.qr(rng.standard_normal((n_vocab + 1, n_vocab + 1)))[0]
    return Q[:-1] if kind == "orthonormal" else np.sqrt(0.4) * Q[:-1] + np.sqrt(0.6) * Q[-1]


KINDS = ("orthonormal", "equicorrelated", "random", "dependent")


def problem_of(seed, kind):
    """(sequences, labels, E): few last tokens and many edges, so that cycles, chains and contradictions are common."""
    rng = np.random.default_rng(seed)
    n_vocab, n, length, n_last = (int(rng.integers(least, most)) for least, most in ((3, 8), (1, 12), (1, 7), (1, 4)))
    first = rng.permutation(n_vocab)  # labels mostly follow an order
    last = rng.integers(0, n_vocab, n_last)
    sequences = [[*rng.integers(0, n_vocab, length - 1).tolist(), int(rng.choice(last))] for _ in range(n)]
    labels = [min(sequence, key=lambda token: first[token] + 4 * rng.random()) for sequence in sequences]
    return sequences, labels, table_of(kind, n_vocab, rng)


def problems(kinds=KINDS):
    """What ``problem_of`` makes of any seed and one of ``kinds``."""
    return st.builds(problem_of, st.integers(0, 10**6), st.sampled_from(kinds))


def matrices(E, rows):
    """(R, d d): (e_i - e_j) e_k' of each row."""
    return np.array([np.outer(E[i] - E[j], E[k]).ravel() for k, i, j in rows]).reshape(len(rows), E.shape[1] ** 2)


# ------------------------------------------------------------------------------------------- against recorded solutions


def test_recorded_instances(next_token_reference):
    for instance in next_token_reference["instances"]:
        graphs, E = graphs_of(instance), np.array(instance["E"])
        found = {str(k): [members.tolist() for members in graph.components]
                 for k, graph in graphs.items() if len(graph.edges)}
        assert {k: sorted(components) for k, components in found.items()} == instance["scc"]
        svm = graph_svm(graphs, E)
        expected = np.array(instance["W_svm_cvxpy"])
        assert np.linalg.norm(svm.W - expected) <= 1e-7 * np.linalg.norm(expected)
        assert np.linalg.norm(svm.W) == pytest.approx(instance["W_svm_norm"], rel=1e-12)
        assert svm.kkt.worst <= 1e-12 and svm.note == ""
        S_fin = cyclic_subspace(graphs, E)
        assert S_fin.dim == instance["n_equality_dim"]
        assert np.linalg.norm(S_fin.project(svm.W)) <= 1e-13
        assert np.linalg.norm(S_fin.rest(np.array(instance["W_fin"]))) <= 1e-13


def test_recorded_contradiction(next_token_reference):
    for instance in next_token_reference["infeasible"]:
        with pytest.raises(InfeasibleError, match="no weights W meet the priorities: ") as caught:
            graph_svm(graphs_of(instance), instance["E"])
        assert [list(row) for row, _ in caught.value.certificate] == [row[:3] for row in instance["certificate"]]
        weights = [weight for _, weight in caught.value.certificate]
        assert_allclose(weights, [row[3] for row in instance["certificate"]], atol=1e-12)
        assert caught.value.residual <= 1e-15


# ---------------------------------------------------------------------------------------------- optimality, proved anew


@settings(max_examples=200)
@example(problem_of(560, "random"))  # |W| = 64, with embeddings of norm 2.8
@given(problems())
def test_solution_or_contradiction_is_proved(problem):
    """On all edges of the data, W is feasible and made of rows as it must be, or rows contradict each other."""
    sequences, labels, E = problem
    equal, above = (sorted(rows) for rows in naive.priorities(sequences, labels))
    A_equal, A_above = matrices(E, equal), matrices(E, above)
    possible = linprog(np.zeros(E.shape[1] ** 2), -A_above if above else None, -np.ones(len(above)) if above else None,
                       A_equal if equal else None, np.zeros(len(equal)) if equal else None, bounds=(None, None)).status
    try:
        svm = graph_svm(priority_graphs(Samples.of(sequences, labels, len(E))), E)
    except InfeasibleError as error:
        assert possible == 2
        assert all(row in above and weight > 0 for row, weight in error.certificate)
        weights = np.array([weight for _, weight in error.certificate])
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        total = weights @ matrices(E, [row for row, _ in error.certificate])
        inside = A_equal.T @ np.linalg.lstsq(A_equal.T, total, rcond=None)[0] if equal else 0
        scale = np.square(E).sum(axis=1).max()
        assert np.linalg.norm(total - inside) <= 1e-13 * scale and error.residual <= 1e-13 * scale
        return
    assert possible == 0
    size, rows = np.linalg.norm(svm.W), svm.constraints
    assert {tuple(row) for row in rows.equalities.tolist()} <= set(equal)
    assert {tuple(row) for row in rows.inequalities.tolist()} <= set(above)
    # A score difference (e_i - e_j)' W e_k is a sum of numbers of size |E|^2 |W|, so its rounding is a multiple of
    # that; with embeddings c times as long it stays the same, because W is then 1 / c^2 times as large.
    tolerance = 1e-13 * (1 + size * np.square(E).sum(axis=1).max())
    assert all(abs(naive.score_difference(E, svm.W, row)) <= tolerance for row in equal)
    assert all(naive.score_difference(E, svm.W, row) >= 1 - tolerance for row in above)
    assert (svm.multipliers >= 0).all()
    combined = svm.multipliers @ matrices(E, rows.inequalities)
    combined += svm.equality_multipliers @ matrices(E, rows.equalities)
    assert_allclose(svm.W.ravel(), combined, atol=1e-12 * size)
    # The multipliers sum to |W|^2 (kkt.gap).
    for multiplier, row in zip(svm.multipliers, rows.inequalities, strict=True):
        assert multiplier * abs(naive.score_difference(E, svm.W, row) - 1) <= tolerance * size**2
    assert svm.kkt.worst <= 10 * tolerance


@settings(max_examples=25)
@given(problems(kinds=["orthonormal"]))
def test_orthonormal_embeddings_leave_a_problem_of_scores(problem):
    """W = E' S E, and S is the least matrix of scores that obeys the graphs, found by another solver."""
    sequences, labels, E = problem
    svm = graph_svm(priority_graphs(Samples.of(sequences, labels, len(E))), E)
    equal, above = (sorted(rows) for rows in naive.priorities(sequences, labels))
    eye = np.eye(len(E))
    A_equal, A_above = matrices(eye, equal), matrices(eye, above)
    if equal:  # SLSQP wants independent rows
        A_equal = np.linalg.svd(A_equal)[2][: np.linalg.matrix_rank(A_equal)]
    limits = [{"type": "ineq", "fun": lambda s: A_above @ s - 1, "jac": lambda s: A_above}] if above else []
    limits += [{"type": "eq", "fun": lambda s: A_equal @ s, "jac": lambda s: A_equal}] if equal else []
    found = minimize(lambda s: s @ s / 2, np.zeros(eye.size), jac=lambda s: s, method="SLSQP", constraints=limits,
                     options={"ftol": 1e-16, "maxiter": 500})
    assert_allclose(E @ svm.W @ E.T, found.x.reshape(eye.shape), atol=1e-12 * max(1, np.linalg.norm(svm.W)))


# ---------------------------------------------------------------------------------------------------------- invariances


def feasible(problem):
    sequences, labels, E = problem
    samples = Samples.of(sequences, labels, len(E))
    try:
        return samples, E, graph_svm(priority_graphs(samples), E)
    except InfeasibleError:
        return None


@settings(max_examples=30)
@given(problems())
def test_copies_and_order_of_samples_change_no_bit(problem):
    if feasible(problem) is None:
        return
    sequences, labels, E = problem
    _, _, svm = feasible(problem)
    again = graph_svm(priority_graphs(Samples.of(sequences[::-1] * 2, labels[::-1] * 2, len(E))), E)
    assert_array_equal(svm.W, again.W)
    assert_array_equal(svm.multipliers, again.multipliers)


@settings(max_examples=50)
@given(problems(kinds=["orthonormal", "equicorrelated"]), st.integers(0, 10**6))
def test_rotated_embeddings_rotate_the_solution(problem, seed):
    samples, E, svm = feasible(problem)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((E.shape[1], E.shape[1])))[0]
    turned = graph_svm(priority_graphs(samples), E @ Q)
    assert_allclose(turned.W, Q.T @ svm.W @ Q, atol=1e-14 * max(1, np.linalg.norm(svm.W)))


@settings(max_examples=30)
@given(problems(), st.integers(-150, 150))
def test_long_and_short_embeddings(problem, power):
    """Embeddings 2^p times as long give W times 4^-p, to the bit; no small number counts as a contradiction."""
    found = feasible(problem)
    if found is not None:
        samples, E, svm = found
        scaled = graph_svm(priority_graphs(samples), np.ldexp(E, power))
        assert_array_equal(scaled.W, np.ldexp(svm.W, -2 * power))
        assert_allclose(scaled.kkt.worst, svm.kkt.worst, atol=1e-14)


@settings(max_examples=60)
@given(problems())
def test_cyclic_subspace_is_the_span_of_its_definition(problem):
    sequences, labels, E = problem
    graphs = priority_graphs(Samples.of(sequences, labels, len(E)))
    rows = matrices(E, sorted(naive.priorities(sequences, labels)[0]))
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    S_fin = cyclic_subspace(graphs, E)
    assert S_fin.dim == (np.linalg.matrix_rank(rows, tol=1e-9) if len(rows) else 0)
    basis = basis_of(S_fin).reshape(S_fin.dim, E.shape[1] ** 2)
    assert_allclose(basis @ basis.T, np.eye(S_fin.dim), atol=1e-14)
    assert_allclose(rows @ basis.T @ basis, rows, atol=1e-13)
    W = np.random.default_rng(0).standard_normal((E.shape[1], E.shape[1]))
    assert_allclose(S_fin.project(W).ravel(), basis.T @ (basis @ W.ravel()), atol=1e-13)
    assert_allclose(S_fin.project(S_fin.rest(W)), 0, atol=1e-14)
    for block in S_fin.blocks:
        assert_allclose(block.matrix(block.of(W)), S_fin.project(block.matrix(block.of(W))), atol=1e-13)
        assert all(len(graphs[k].components[number]) > 1 for k, number in block.sccs)
    if feasible(problem) is not None:
        svm = feasible(problem)[2]
        assert np.linalg.norm(S_fin.project(svm.W)) <= 1e-13 * (1 + np.linalg.norm(svm.W))


# ------------------------------------------------------------------------------------------------------------ the edges


def test_nothing_above_anything_is_zero():
    """A two-cycle, or a sequence of its label alone, gives no inequality, so that there is no direction to grow in."""
    svm = graph_svm(priority_graphs(Samples.of([[0, 1], [0, 1], [2]], [0, 1, 2])), np.eye(3))
    assert_array_equal(svm.W, np.zeros((3, 3)))
    assert (len(svm.equality_multipliers), len(svm.multipliers), np.linalg.norm(svm.W), svm.kkt.worst) == (1, 0, 0, 0)
    assert not graph_svm({}, np.eye(3)).W.any()


@pytest.mark.parametrize("E", [[[1.0, 0], [1, 0], [0, 1]], [[1.0, 0], [0, 1], [0, 0]]], ids=["e_i = e_j", "e_k = 0"])
def test_contradiction_of_one_edge(E):
    with pytest.raises(InfeasibleError, match=r"no weights W meet the priorities: 1 x \(k=2: 0 above 1\)") as caught:
        graph_svm(priority_graphs(Samples.of([[0, 1, 2]], [0])), E)
    assert caught.value.certificate == [((2, 0, 1), 1.0)] and caught.value.residual == 0
    assert isinstance(caught.value, ValueError)


def test_edge_inside_the_span_of_equalities():
    """Tokens 0 and 1 tie, and 2 - 3 is 0 - 1: the priority of 2 over 3 contradicts the tie, whatever its weight."""
    E = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]])
    with pytest.raises(InfeasibleError) as caught:
        graph_svm(priority_graphs(Samples.of([[0, 1, 4], [0, 1, 4], [2, 3, 4]], [0, 1, 2])), E)
    assert [row for row, _ in caught.value.certificate] == [(4, 2, 3)] and caught.value.residual <= 1e-15


MIDPOINT = ([[2, 0, 3], [2, 1, 3]], [2, 2])


def near_midpoint(distance):
    return np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, distance], [0, 0, 1, 0]])


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
def test_huge_weights_are_found_and_reported(distance):
    """Token 2 lies ``distance`` off the midpoint of the two tokens it must be above: |W| = 1 / distance."""
    svm = graph_svm(priority_graphs(Samples.of(*MIDPOINT)), near_midpoint(distance))
    assert np.linalg.norm(svm.W) == pytest.approx(1 / distance, rel=1e-7)
    assert svm.kkt.worst <= 1e-15 / distance


def test_weights_too_huge_to_rely_on_say_so(monkeypatch):
    svm = graph_svm(priority_graphs(Samples.of(*MIDPOINT)), near_midpoint(1e-5))
    monkeypatch.setattr(module, "TRUSTED", -1.0)
    assert svm.note.startswith("W_svm has norm 1e+05 and meets its conditions only to")


def test_weights_beyond_any_use_are_a_contradiction():
    with pytest.raises(InfeasibleError) as caught:
        graph_svm(priority_graphs(Samples.of(*MIDPOINT)), near_midpoint(1e-10))
    assert caught.value.residual == pytest.approx(1e-10, rel=1e-5)
    assert_allclose([weight for _, weight in caught.value.certificate], [0.5, 0.5], atol=1e-12)


@settings(max_examples=60)
@given(problems())
def test_least_squares_alone_gives_the_same(problem):
    found = feasible(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "pivoting", lambda G: None)
        again = feasible(problem)
    assert (found is None) == (again is None)
    if found is not None:
        assert_allclose(again[2].W, found[2].W, atol=1e-11 * (1 + np.linalg.norm(found[2].W)))
        assert again[2].kkt.worst <= 1e-11 * (1 + np.linalg.norm(found[2].W))


def test_least_squares_that_does_not_end(monkeypatch):
    """Where SciPy raises RuntimeError after too many iterations, other scales are tried, and a failure is reported."""
    graphs, nnls, scales = priority_graphs(Samples.of(*MIDPOINT)), module.nnls, []

    def fails_at_first(A, b, **options):
        scales.append(A[-1, 0])
        if len(scales) < 3:
            raise RuntimeError("too many iterations")
        return nnls(A, b, **options)

    monkeypatch.setattr(module, "pivoting", lambda G: None)
    expected = graph_svm(graphs, near_midpoint(0.5)).W
    monkeypatch.setattr(module, "nnls", fails_at_first)
    assert_allclose(graph_svm(graphs, near_midpoint(0.5)).W, expected, atol=1e-12)
    assert scales == [1, 1e-2, 1e-4]

    def never_ends(A, b, **options):
        raise RuntimeError("too many iterations")

    monkeypatch.setattr(module, "nnls", never_ends)
    with pytest.raises(RuntimeError, match="non-negative least squares ended for no scale"):
        graph_svm(graphs, near_midpoint(0.5))


def test_given_rows():
    """Rows may be given directly, such as those of a local graph, repeated or not."""
    rows = constraints(priority_graphs(Samples.of(*MIDPOINT)))
    svm = solve(Constraints(rows.equalities, np.repeat(rows.inequalities, 2, axis=0)), np.eye(4))
    assert_allclose(svm.W, graph_svm(priority_graphs(Samples.of(*MIDPOINT)), np.eye(4)).W, atol=1e-14)
    assert svm.kkt.worst <= 1e-12


@pytest.mark.parametrize("call", [graph_svm, cyclic_subspace])
@pytest.mark.parametrize(("E", "error", "text"), [
    (np.eye(3), ValueError, r"E has shape \(3, 3\); it must be \(K, d\), one row for each of the 4 tokens"),
    (np.zeros(4), ValueError, r"E has shape \(4,\)"),
    (np.zeros((4, 0)), ValueError, r"E has shape \(4, 0\)"),
    (np.full((4, 2), np.nan), ValueError, "E holds values that are not finite"),
    (1e-160 * np.eye(4), ValueError, "the largest entry of E is 1e-160, too far from 1"),
    (1e160 * np.eye(4), ValueError, r"the largest entry of E is 1e\+160, too far from 1"),
    (np.full((4, 2), "a"), TypeError, "E must be real numbers"),
], ids=["rows", "ndim", "width", "nan", "tiny", "huge", "dtype"])
def test_bad_embeddings(call, E, error, text):
    with pytest.raises(error, match=text):
        call(priority_graphs(Samples.of(*MIDPOINT)), E)
