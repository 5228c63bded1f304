"""Counts that merge: the statistics of the loops, the same bits for any split and order, blocks of the frequent tokens.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import associations
from minitx.associations.counts import Counts, Scores

import naive

NAMES = ("bigram", "interchangeability", "context", "value", "attention", "position", "frequency", "share")


@st.composite
def drawn_windows(draw):
    """(windows (N, T + 1), V)."""
    n_vocab, length, n = draw(st.integers(2, 7)), draw(st.integers(1, 9)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(0, n_vocab, (n, length + 1)), n_vocab


def bits(counted):
    """All arrays of counts or scores, as bytes."""
    sums = [counted.contexts] if isinstance(counted, Counts) else [counted.attention, counted.position]
    more = [counted.pairs.toarray()] if isinstance(counted, Counts) else []
    return [array.tobytes() for array in (*more, *(a for s in sums for a in (s.whole, s.part)))]


@given(drawn_windows())
def test_finished_counts_are_the_statistics_of_the_loops(problem):
    windows, n_vocab = problem
    counts = Counts.of(windows, n_vocab)
    found = counts.finish(Scores.of(windows, counts.score_table()))
    expected = naive.statistics(windows[:, :-1], windows[:, 1:], n_vocab)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-13, atol=1e-15)
    assert (found.n_vocab, counts.coverage) == (n_vocab, 1)


@given(drawn_windows(), st.data())
def test_any_split_merged_in_any_order_gives_the_same_bits(problem, data):
    windows, n_vocab = problem
    edges = sorted(data.draw(st.lists(st.integers(0, len(windows)), max_size=4)))
    parts = data.draw(st.permutations(np.split(windows, edges)))
    whole = Counts.of(windows, n_vocab)
    counts, *others = [Counts.of(part, n_vocab) for part in parts]
    for other in others:
        counts = counts + other
    assert bits(counts) == bits(whole) and counts.n_windows == len(windows)
    g = whole.score_table()
    np.testing.assert_array_equal(g, counts.score_table())
    scores, *others = [Scores.of(part, g) for part in parts]
    for other in others:
        scores = scores + other
    assert bits(scores) == bits(Scores.of(iter([windows]), g))
    for name in NAMES:
        one, two = whole.finish(Scores.of(windows, g)), counts.finish(scores)
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@given(drawn_windows(), st.data())
def test_blocks_of_the_most_frequent_tokens(problem, data):
    """B and Phi are blocks of the full ones; products, Q and Delta are those where B and Phi are 0 outside of them."""
    windows, n_vocab = problem
    k = data.draw(st.integers(2, n_vocab))
    counts = Counts.of(windows, n_vocab, n_tokens=k)
    found = counts.finish(Scores.of(windows, counts.score_table(), n_vocab))
    tokens, targets = windows[:, :-1], windows[:, 1:]
    full = naive.statistics(tokens, targets, n_vocab)
    block = {name: np.where(np.add.outer(np.arange(n_vocab) >= k, np.arange(n_vocab) >= k), 0, full[name])
             for name in ("bigram", "context")}
    B, Phi = block["bigram"], block["context"]
    ov = Phi.T @ B.T @ B
    weight = np.full(tokens.shape, 1 / tokens.size)
    lengths = np.full(len(tokens), tokens.shape[1])
    point = naive.reference_gradient(tokens, targets, weight, n_vocab, ov, lengths=lengths)
    share = np.mean([naive.prefix_share(row, t, n_vocab) for row in tokens for t in range(len(row))], axis=0)
    expected = {"bigram": B, "context": Phi, "interchangeability": B.T @ B, "value": Phi.T @ B.T,
                "attention": point["qk"]}
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value[:k, :k], rtol=1e-13, atol=1e-15)
    for name, value in (("frequency", full["frequency"][:k]), ("share", share[:k]),
                        ("position", point["position"])):
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-13, atol=1e-15)
    assert counts.coverage == pytest.approx(np.mean((tokens < k) & (targets < k)))


def test_sums_are_exact_where_float64_rounds():
    """The sum of many shares, held to fractions; enough of them for hundreds of carries."""
    windows = np.zeros((1500, 65), np.int32)
    windows[:, ::3] = 1
    found = Counts.of(windows, 2).contexts.values()
    expected = np.zeros((2, 2), object)
    for t in range(64):
        for a in range(2):
            expected[windows[0, t + 1], a] += Fraction(int(np.count_nonzero(windows[0, :t + 1] == a)), t + 1)
    np.testing.assert_allclose(found, (expected * len(windows)).astype(float), rtol=1e-15, atol=0)


def test_scores_with_many_carries_are_those_of_the_batch():
    rng = np.random.default_rng(0)
    windows = np.minimum(rng.geometric(0.3, (3000, 33)), 9).astype(np.int32)
    batch = associations.basis.Batch(windows[:, :-1], windows[:, 1:])
    g = rng.normal(size=(10, 10))
    Q, Delta = associations.basis.scores(batch, g.T)
    found = Scores.of(windows, g - g.mean(axis=0)).finish(10)
    assert np.linalg.norm(found[0] - Q) < 1e-12 * np.linalg.norm(Q)
    np.testing.assert_allclose(found[1], Delta, rtol=0, atol=1e-12 * np.abs(Delta).max())


@pytest.mark.parametrize(("chunk", "pairs"), [(7, 1), (20, 30)])
def test_pieces_of_any_size_give_the_same_bits(monkeypatch, chunk, pairs):
    windows = np.random.default_rng(0).integers(0, 5, (9, 8))
    expected = bits(Counts.of(windows, 5))
    monkeypatch.setattr(associations.counts, "CHUNK", chunk)
    monkeypatch.setattr(associations.counts, "PAIRS", pairs)
    assert bits(Counts.of(windows, 5)) == expected


def test_files_keep_every_bit(tmp_path):
    windows = np.random.default_rng(1).integers(0, 5, (9, 8))
    counts = Counts.of(windows, 5, n_tokens=3, vocabulary=("a", "b", "c"))
    counts.save(tmp_path / "counts.npz")
    read = Counts.load(tmp_path / "counts.npz")
    assert bits(read) == bits(counts) and read.vocabulary == ("a", "b", "c")
    scores = Scores.of(windows, counts.score_table(), 5)
    scores.save(tmp_path / "scores.npz")
    again = Scores.load(tmp_path / "scores.npz")
    assert bits(again) == bits(scores)
    np.testing.assert_array_equal(read.finish(again).attention, counts.finish(scores).attention)
    with pytest.raises(ValueError, match="counts.npz holds counts, but scores are needed"):
        Scores.load(tmp_path / "counts.npz")
    (tmp_path / "counts.npz").write_bytes((tmp_path / "scores.npz").read_bytes()[:-40])
    with pytest.raises(ValueError, match="counts.npz holds no counts; give a file that minitx count wrote"):
        Counts.load(tmp_path / "counts.npz")


WINDOWS = np.array([[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Counts.of(WINDOWS, 2), "windows hold ids from 0 to 2, but the vocabulary has ids 0 to 1"),
    (lambda: Counts.of(-WINDOWS, 3), "windows hold ids from -2 to 0"),
    (lambda: Counts.of(WINDOWS[:, :1], 3), r"windows have shape \(2, 1\)"),
    (lambda: Counts.of(iter([WINDOWS, WINDOWS[:, :2]]), 3), r"windows have shape \(2, 2\); rows of one length"),
    (lambda: Counts.of(WINDOWS, 3, n_tokens=4), "n_tokens is 4; it must be a whole number, at most 3"),
    (lambda: Counts.of(WINDOWS, 10**6), "counts of 1,000,000 tokens: a table of"),
    (lambda: Counts.of(WINDOWS[:0], 3).finish(), "no window was counted"),
    (lambda: Counts.of(WINDOWS, 3) + Counts.of(WINDOWS[:, :2], 3), "windows of 2 and of 1 positions cannot be added"),
    (lambda: Counts.of(WINDOWS, 3) + Counts.of(WINDOWS, 4), "counts of 3 of 3 tokens cannot be added to those of 4 of"),
    (lambda: Scores.of(WINDOWS, np.eye(3)) + Scores.of(WINDOWS, np.ones((3, 3))), "summed for different counts"),
    (lambda: Counts.of(WINDOWS, 3).finish(Scores.of(WINDOWS, np.eye(3))), "the scores, of 2 windows, are not those of"),
    (lambda: Counts.of(WINDOWS, 3).finish(Scores.of(WINDOWS[:1], Counts.of(WINDOWS, 3).score_table())), "of 1 windows"),
    (lambda: associations.leading_weights(Counts.of(WINDOWS, 3).finish(), steps=1, learning_rate=1.0),
     "statistics have no scores"),
])
def test_what_cannot_be_counted_or_added_is_said(make, says):
    with pytest.raises(ValueError, match=says):
        make()
