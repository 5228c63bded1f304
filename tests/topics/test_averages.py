"""Averages over pairs of words against plain loops; the permutation test against every permutation and chance."""

import math

import naive_averages as naive
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx import EmbeddedWeights, set_threads
from minitx.topics.averages import PairTable, attention_table, cosine_matrix, gram, pair_averages, permutation_test
from minitx.topics.documents import Documents


@st.composite
def tables(draw):
    """(total, count, topics): pairs that never occur, words without a topic and topics of a single word are likely."""
    n = draw(st.integers(2, 9))
    topics = np.array(draw(st.lists(st.sampled_from((-1, 0, 1, 2, 7)), min_size=n, max_size=n)))
    if len(set(topics[topics >= 0])) < 2:
        topics[:2] = 3, 0
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = rng.poisson(draw(st.sampled_from((0.1, 1.0, 20.0))), (n, n))
    total = draw(st.sampled_from((1e-200, 1.0, 1e200))) * rng.standard_normal((n, n)) * count
    return total, count, topics


def _values(averages):
    return [averages.same_word, averages.same_topic, averages.different_topic, averages.same_topic_including,
            averages.n_same_word, averages.n_same_topic, averages.n_different_topic]


def _close(found, expected, scale):
    for one, other in zip(found, expected, strict=True):
        assert math.isnan(one) if other is None else one == pytest.approx(other, rel=1e-12, abs=1e-13 * scale)


@given(tables())
def test_averages_are_those_of_plain_loops(table):
    total, count, topics = table
    for pairs, times in ((PairTable(total, count), count), (total, np.ones(total.shape))):
        expected = naive.pair_averages(total, times, topics)
        _close(_values(pair_averages(pairs, topics)), expected, np.abs(total).sum())


@given(tables(), st.integers(0, 2**32 - 1))
def test_neither_the_order_of_the_words_nor_the_names_of_the_topics_matter(table, seed):
    total, count, topics = table
    order = np.random.default_rng(seed).permutation(len(topics))
    renamed = np.where(topics < 0, -1, 9 - topics)
    moved = pair_averages(PairTable(total[np.ix_(order, order)], count[np.ix_(order, order)]), renamed[order])
    expected = [None if math.isnan(x) else x for x in _values(pair_averages(PairTable(total, count), topics))]
    _close(_values(moved), expected, np.abs(total).sum())


def test_block_values_are_read_off_a_block_matrix():
    topics = np.repeat([4, 2, -1], [3, 2, 2])
    matrix = np.where(topics[:, None] == topics, 2.0, -1.0) + 5 * np.eye(7)
    matrix[5:] = matrix[:, 5:] = 1e9  # words without a topic
    averages = pair_averages(matrix, topics)
    assert _values(averages) == [7, 2, -1, (5 * 7 + 8 * 2) / 13, 5, 8, 12]
    assert averages.difference == 3


def test_a_large_diagonal_takes_no_digits_from_the_others():
    matrix = np.full((6, 6), 0.1) + 1e18 * np.eye(6)
    averages = pair_averages(matrix, [0, 0, 0, 1, 1, 1])
    assert averages.same_topic == pytest.approx(0.1, rel=1e-15)
    assert averages.different_topic == pytest.approx(0.1, rel=1e-15)


def test_topics_of_one_word_have_no_pairs_of_different_words():
    averages = pair_averages(np.eye(3), [0, 1, 2])
    assert math.isnan(averages.same_topic)
    assert math.isnan(averages.difference)
    assert (averages.same_word, averages.different_topic, averages.same_topic_including) == (1, 0, 1)
    message = "0 pairs are of different words of one topic, 6 of different topics; give topics with"
    with pytest.raises(ValueError, match=message):
        permutation_test(np.eye(3), [0, 1, 2])


def test_arguments_are_not_modified():
    matrix, topics = np.arange(16.0).reshape(4, 4), np.array([0, 0, 1, 1])
    pair_averages(matrix, topics), permutation_test(matrix, topics, n_permutations=3)
    cosine_matrix(matrix), gram(matrix)
    assert (matrix.ravel() == np.arange(16)).all()
    assert (topics == [0, 0, 1, 1]).all()


@pytest.mark.parametrize("function", [pair_averages, permutation_test])
@pytest.mark.parametrize(("matrix", "topics", "error", "message"), [
    (np.ones((3, 4)), [0, 1, 1], ValueError, r"total has shape \(3, 4\).*give two square matrices"),
    (np.ones(3), [0, 1, 1], ValueError, r"total has shape \(3,\)"),
    (np.ones((3, 3)), [0, 1], ValueError, r"topics has shape \(2,\) but there are 3 words; give one topic for each"),
    (np.ones((3, 3)), [[0, 1, 1]], ValueError, "1-dimensional"),
    (np.ones((3, 3)), [0.0, 1.0, 1.0], TypeError, "topics must be integers, got dtype float64"),
    (np.ones((3, 3)), [True, False, True], TypeError, "got dtype bool"),
    (np.ones((3, 3)), [0, -2, 1], ValueError, "topics hold -2; give numbers from 0 on, and -1"),
    (np.ones((3, 3)), [-1, 1, 1], ValueError,
     "2 of 3 words have a topic, and they have 1 different ones; give topics to words of"),
    (np.ones((3, 3)), [-1, -1, -1], ValueError, "0 of 3 words have a topic"),
    (np.full((3, 3), np.nan), [0, 1, 1], ValueError, "inf or nan"),
])
def test_refusals(function, matrix, topics, error, message):
    with pytest.raises(error, match=message):
        function(matrix, topics)


def test_refusals_of_tables():
    for total, count in ((np.ones((2, 2)), -np.ones((2, 2))), (np.ones((2, 2)), np.eye(2))):
        with pytest.raises(ValueError, match="negative count, or a total without any occurrence; give"):
            PairTable(total, count)
    with pytest.raises(ValueError, match=r"total has shape \(2, 2\) and count \(3, 3\)"):
        PairTable(np.ones((2, 2)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="n_permutations is 0; it must be a whole number, at least 1"):
        permutation_test(np.eye(4), [0, 0, 1, 1], n_permutations=0)


# ---- Embeddings -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from((1e-320, 1e-200, 1.0, 1e200)))
def test_cosines_do_not_depend_on_scale(seed, scale):
    E = np.random.default_rng(seed).standard_normal((3, 5))
    expected = [[a @ b / math.sqrt((a @ a) * (b @ b)) for b in E.T] for a in E.T]
    scaled = E * [scale, 1, -1, 1, 2]
    signs = np.array([1, 1, -1, 1, 1])
    atol = 1e-2 if scale == 1e-320 else 1e-14
    np.testing.assert_allclose(cosine_matrix(scaled), expected * np.outer(signs, signs), atol=atol)
    np.testing.assert_allclose(gram(E), [[a @ b for b in E.T] for a in E.T], atol=1e-14)


def test_the_zero_vector_goes_with_none():
    cosines = cosine_matrix([[0.0, 3, -1], [0, 4, 0]])
    np.testing.assert_allclose(cosines, [[0, 0, 0], [0, 1, -0.6], [0, -0.6, 1]], atol=1e-15)
    assert np.diagonal(cosines).tolist() == [0, 1, 1]
    assert not cosine_matrix(np.zeros((2, 3))).any()
    assert cosine_matrix(np.zeros((0, 3))).shape == (3, 3)


def test_gram_is_symmetric_whatever_the_threads():
    E = np.random.default_rng(0).standard_normal((100, 700))
    for function in (gram, cosine_matrix):
        found = []
        for threads in (1, 2):
            set_threads(threads)
            found.append(function(np.asfortranarray(E) if threads == 2 else E))
        assert (found[0] == found[0].T).all()
        assert (found[0] == found[1]).all()
    for bad, message in ((np.ones(3), r"shape \(3,\); give a matrix"), (np.full((2, 2), np.inf), "inf or nan")):
        for function in (gram, cosine_matrix):
            with pytest.raises(ValueError, match=message):
                function(bad)


# ---- Chance ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(tables(), st.integers(0, 2**32 - 1))
def test_differences_under_the_null_are_those_of_some_permutation(table, seed):
    total, count, topics = table
    if np.count_nonzero(topics >= 0) > 6:
        topics[6:] = -1
    if len(set(topics[topics >= 0])) < 2 or np.isnan(pair_averages(PairTable(total, count), topics).difference):
        return
    test = permutation_test(PairTable(total, count), topics, n_permutations=20, rng=seed)
    every = naive.all_differences(total, count, topics.tolist())
    scale = np.abs(total).sum()
    assert test.difference == pytest.approx(every[0], rel=1e-12, abs=1e-13 * scale)
    defined = np.array([x for x in every if x is not None])
    for difference in test.null:
        if math.isnan(difference):
            assert None in every
        else:
            assert np.abs(defined - difference).min() <= 1e-12 * scale


@pytest.mark.parametrize("symmetric", [True, False])
def test_p_is_that_of_every_permutation(symmetric):
    """Two topics of 3: 720 shuffles, of which 72 give the observed classes again and tie with it up to rounding."""
    rng = np.random.default_rng(3)
    topics = np.array([1, -1, 0, 1, 0, 0, 1])
    matrix = rng.standard_normal((7, 7)) + 0.6 * (topics[:, None] == topics)
    matrix = matrix + matrix.T if symmetric else matrix
    every = np.array(naive.all_differences(matrix, np.ones((7, 7)), topics.tolist()))
    exact = np.mean(every >= every[0] - 1e-12)
    assert exact >= 72 / 720
    n = 20_000
    test = permutation_test(matrix, topics, n_permutations=n, rng=0)
    assert test.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / n) + 1 / n)
    assert test.null.mean() == pytest.approx(every.mean(), abs=4 * every.std() / math.sqrt(n))
    assert test.z == pytest.approx((every[0] - every.mean()) / every.std(), abs=0.05)


@pytest.mark.parametrize(("matrix", "topics"), [
    (np.full((30, 30), 0.1), np.arange(30) % 3),  # all pairs alike
    (np.full((30, 30), -0.1) + 7.7 * np.eye(30), np.arange(30) % 3),
    # The same word may be left alone again.
    (np.add.outer(*2 * [np.random.default_rng(0).random(30)]), np.arange(30) // 29),
])
def test_ties_up_to_rounding_count(matrix, topics):
    test = permutation_test(matrix, topics, n_permutations=300)
    ties = np.abs(test.null - test.difference) < 1e-13
    assert ties.any()
    assert test.p_value == (1 + np.count_nonzero(ties | (test.null > test.difference))) / 301


def test_shuffles_that_leave_no_pair_count_against_the_finding():
    """Only the pair (0, 1) and a pair between topics occur, so that many shuffles leave no pair within a topic."""
    count = np.zeros((6, 6))
    count[0, 1] = count[2, 4] = 1
    test = permutation_test(PairTable(3 * count, count), [0, 0, 0, 1, 1, 1], n_permutations=200)
    assert np.isnan(test.null).any()
    assert test.p_value == 1  # where it is defined, all shuffles tie
    assert math.isnan(test.z) or abs(test.z) < 1e-6


def test_p_is_uniform_when_topics_say_nothing():
    rng = np.random.default_rng(0)
    topics = np.repeat([0, 1, 2, -1], [3, 4, 5, 2])
    p = [permutation_test(rng.standard_normal((14, 14)), topics, n_permutations=99, rng=rng).p_value
         for _ in range(600)]
    hundredths = np.rint(np.array(p) * 100)
    assert set(hundredths) <= set(range(1, 101))
    assert scipy.stats.chisquare(np.bincount((hundredths.astype(int) - 1) // 10, minlength=10)).pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_a_planted_difference_is_found():
    rng = np.random.default_rng(1)
    topics = np.repeat(np.arange(5), 8)
    test = permutation_test(rng.standard_normal((40, 40)) + 0.5 * (topics[:, None] == topics), topics)
    assert test.p_value == 1 / 1000
    assert test.z > 5
    assert test.difference == pytest.approx(0.5, abs=0.2)
    below = permutation_test(rng.standard_normal((40, 40)) - 0.5 * (topics[:, None] == topics), topics)
    assert below.p_value == 1
    assert below.z < -5


def test_a_seed_gives_the_same_test_and_more_permutations_keep_the_first():
    rng = np.random.default_rng(0)
    matrix, topics = rng.random((50, 50)), rng.integers(-1, 4, 50)
    one, more = (permutation_test(matrix, topics, n_permutations=n, rng=5) for n in (20, 40))
    assert (one.null == more.null[:20]).all()
    assert (one.null == permutation_test(matrix, topics, n_permutations=20, rng=np.random.default_rng(5)).null).all()
    assert (one.null != permutation_test(matrix, topics, n_permutations=20, rng=6).null).any()


@given(st.integers(0, 2**32 - 1), st.sampled_from((0.0, 1.0, 30.0)))
def test_attention_table_equals_the_loops(seed, scale):
    """Every ordered pair of slots of a document, attention times length, i = j included."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 6, 3)
    documents = Documents(rng.integers(1, 5, (3, 5)), lengths, 5)
    weights = EmbeddedWeights.gaussian(5, W_V=0.0, W_QK=scale, attention_width=2, rng=rng)
    qk = weights.circuits().qk
    total, count = np.zeros((2, 5, 5))
    for tokens, length in zip(documents.tokens, lengths, strict=True):
        for query in tokens[:length]:
            shares = np.exp(qk[query, tokens[:length]] - qk[query, tokens[:length]].max())
            for key, share in zip(tokens[:length], shares / shares.sum(), strict=True):
                total[query, key] += length * share
                count[query, key] += 1
    table = attention_table(weights, documents)
    np.testing.assert_allclose(table.total, total, rtol=0, atol=1e-12 * total.max())
    np.testing.assert_array_equal(table.count, count)
