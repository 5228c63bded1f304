"""Leading terms of the most frequent tokens are blocks of those of the whole vocabulary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.associations import statistics
from minitx.data.corpus import Corpus
from minitx.language_model.text import leading_terms

NAMES = ("bigram", "interchangeability", "value", "attention")


def corpus_of(seed, n_vocab, shape):
    """Windows in which the last third of the vocabulary never occurs."""
    tokens = np.random.default_rng(seed).integers(0, max(5, 2 * n_vocab // 3), shape)
    return Corpus.from_tokens(tokens, [f"w{i}" for i in range(n_vocab)])


@settings(max_examples=10)
@given(st.integers(0, 999), st.integers(6, 20), st.integers(1, 8), st.integers(3, 9), st.integers(4, 30))
def test_they_are_blocks_of_the_statistics_of_all_tokens(seed, n_vocab, n, length, n_tokens):
    corpus = corpus_of(seed, n_vocab, (n + 5, length))
    found, whole = leading_terms(corpus, n_tokens), statistics(corpus.batch(), n_vocab)
    at = np.ix_(found.tokens, found.tokens)
    for name in NAMES:
        expected = getattr(whole, name)
        np.testing.assert_allclose(getattr(found, name), expected[at], rtol=0, atol=1e-13 * np.abs(expected).max())
    expected = whole.value @ whole.bigram
    np.testing.assert_allclose(found.value_output, expected[at], rtol=0, atol=1e-13 * np.abs(expected).max())
    assert found.left_out == 0 and len(found.tokens) == min(n_tokens, found.n_summed)
    frequency = np.bincount(corpus.tokens.ravel(), minlength=n_vocab)
    assert (np.diff(frequency[found.tokens]) <= 0).all() and (frequency[found.tokens] > 0).all()


def test_rarer_tokens_are_left_out_of_sums_and_it_is_said():
    """With rare tokens the sums change little; counts between the tokens that remain do not change."""
    draw = np.random.default_rng(0)
    tokens = np.minimum(draw.geometric(0.1, (300, 21)), 60) - 1
    corpus = Corpus.from_tokens(tokens, [f"w{i}" for i in range(60)])
    found, whole = leading_terms(corpus, 10, n_summed=40), leading_terms(corpus, 10)
    assert found.n_summed == 40 and 0 < found.left_out < 0.03 and whole.left_out == 0
    np.testing.assert_array_equal(found.bigram, whole.bigram)
    for name in ("interchangeability", "value", "value_output", "attention"):
        expected = getattr(whole, name)
        assert 0 < np.abs(getattr(found, name) - expected).max() < 0.02 * np.abs(expected).max(), name


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="holds 2 different tokens"):
        leading_terms(Corpus.from_tokens([[0, 1], [1, 0]], list("abcdef")), 10)
    with pytest.raises(TypeError, match="must be of the type Corpus"):
        leading_terms("text", 10)
