"""Leading terms of the most frequent tokens are blocks of those of the whole vocabulary."""

import numpy as np
import pytest

from minitx import cosine
from minitx.associations import statistics
from minitx.data.corpus import load_corpus
from minitx.data.tokenizers import WordTokenizer
from minitx.language_model.text import leading_terms


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text in which a word is the rarer the later it is in the alphabet, and a tokenizer that knows words beside."""
    ids = np.minimum(np.random.default_rng(0).geometric(0.15, (60, 31)), 26) - 1
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(" ".join(chr(97 + i) * 2 for i in row) for row in ids))
    return path, WordTokenizer((*(chr(122 - i) * 2 for i in range(26)), "never", "nowhere"))


def test_they_are_blocks_of_the_statistics_of_all_tokens(text):
    path, tokenizer = text
    corpus = load_corpus(path, tokenizer=tokenizer, length=10)
    whole, found = statistics(corpus.batch(), 28), leading_terms(path, tokenizer, n_tokens=12, length=10)
    at = np.ix_(found.tokens, found.tokens)
    assert found.words[:2] == ("aa", "bb") and found.tokens[:2].tolist() == [25, 24]
    assert found.coverage == pytest.approx(1, abs=1e-12)
    for name, expected in {"bigram": whole.bigram, "interchangeability": whole.interchangeability,
                           "value": whole.value, "value_output": whole.value @ whole.bigram,
                           "attention": whole.attention}.items():
        np.testing.assert_allclose(getattr(found, name), expected[at], rtol=0, atol=1e-13 * np.abs(expected).max())
    all_that_occur = leading_terms(path, tokenizer, n_tokens=500, length=10)
    assert set(all_that_occur.words) == {corpus.vocabulary[i] for i in np.unique(corpus.tokens[:, :-1])}


def test_tokens_that_are_not_counted_one_by_one_change_little(text):
    path, tokenizer = text
    found, whole = (leading_terms(path, tokenizer, n_tokens=8, length=10, n_counted=K) for K in (20, 28))
    assert 0.95 < found.coverage < 0.999 and whole.coverage == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.bigram, whole.bigram, atol=1e-16)
    for name in ("interchangeability", "value", "value_output", "attention"):
        assert 0.98 < cosine(getattr(found, name), getattr(whole, name)) < 1, name


def test_too_few_tokens_are_refused(tmp_path):
    (tmp_path / "t.txt").write_text("a b a b a b")
    with pytest.raises(ValueError, match="hold 2 different tokens"):
        leading_terms(tmp_path / "t.txt", WordTokenizer(("a", "b", "c", "d", "e")), n_tokens=10, length=2)
