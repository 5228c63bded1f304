"""Topics of a text: planted ones are recovered; labels by Bayes' rule; what happens without scikit-learn."""

import sys
from itertools import compress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import load_corpus
from minitx.topics import text
from minitx.topics.averages import pair_averages
from minitx.topics.documents import Documents
from minitx.topics.text import content_words, dominant_topics, fit_topics, word_topics

N_TOPICS, N_WORDS, N_SHARED = 4, 12, 5  # shared words come first and say nothing about the topic


@pytest.fixture
def few_iterations(monkeypatch):
    monkeypatch.setattr(text, "ITERATIONS", 3)


def _planted(seed, n_documents=200, length=60):
    """Words of documents of two of four disjoint topics each, a quarter of them shared words; and the words' topics."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(N_TOPICS, 2, replace=False) for _ in range(n_documents)])
    topic = np.take_along_axis(pairs, rng.integers(0, 2, (n_documents, length)), axis=1)
    tokens = N_SHARED + topic * N_WORDS + rng.integers(0, N_WORDS, (n_documents, length))
    shared = rng.random((n_documents, length)) < 0.25
    tokens[shared] = rng.integers(0, N_SHARED, shared.sum())
    return tokens, np.concatenate([np.full(N_SHARED, -1), np.repeat(np.arange(N_TOPICS), N_WORDS)])


def _documents(words, n_words, lengths=None):
    """Documents of these ids of words, of full length if no other is given."""
    words = np.array(words)
    return Documents(words + 1, np.full(len(words), words.shape[1]) if lengths is None else lengths, n_words + 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_topics_are_recovered(seed):
    pytest.importorskip("sklearn")
    tokens, truth = _planted(seed)
    topic_word, share = fit_topics(_documents(tokens, len(truth)), truth >= 0, N_TOPICS, seed)
    labels = dominant_topics(topic_word, share, 0.7)
    name = {label: truth[word] for word, label in enumerate(labels) if truth[word] >= 0}
    assert sorted(name.values()) == list(range(N_TOPICS))
    assert [name.get(label, -1) for label in labels] == truth.tolist()
    np.testing.assert_allclose(topic_word.sum(axis=1), 1, rtol=1e-12)
    assert share.sum() == pytest.approx(1, rel=1e-12)
    together = (tokens[:, :, None] == np.arange(len(truth))).any(axis=1).astype(float)
    averages = pair_averages(together.T @ together, labels)
    assert averages.difference > 0.1 * len(tokens)


def test_words_left_out_and_what_lies_beyond_the_lengths_play_no_part(few_iterations):
    pytest.importorskip("sklearn")
    tokens, truth = _planted(0, n_documents=40)
    content = truth >= 0
    topic_word, share = fit_topics(_documents(tokens, len(truth)), content, 3, 0)
    assert not topic_word[:, ~content].any()
    assert (topic_word[:, content] > 0).all()
    padded = np.hstack([tokens, np.full((40, 7), -5)])
    padded = np.vstack([padded, np.zeros((1, 67), int)])  # a document without content words
    again, its_share = fit_topics(_documents(padded, len(truth), [60] * 40 + [2]), content, 3, 0)
    assert (again == topic_word).all()
    assert (its_share == share).all()


def test_a_seed_gives_the_same_topics(few_iterations):
    pytest.importorskip("sklearn")
    tokens, truth = _planted(0, n_documents=40)
    one, same, other = (fit_topics(_documents(tokens, len(truth)), truth >= 0, 3, rng)[0]
                        for rng in (7, np.random.default_rng(7), 8))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize(("n_topics", "content", "message"), [
    (4, [True] * 4, "n_topics is 4, but the documents hold 3 different content words; give fewer topics, or more text"),
    (2, [False] * 4, "hold 0 different content words")])
def test_refusals_of_fit_topics(n_topics, content, message):
    with pytest.raises(ValueError, match=message):
        fit_topics(_documents([[0, 1, 2], [2, 2, 1]], 4), np.array(content), n_topics, 0)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"topics of a text need scikit-learn .*: pip install 'minitx\[topics\]'"):
        fit_topics(_documents([[0, 1], [1, 2]], 3), np.ones(3, bool), 2, 0)
    with pytest.raises(ValueError, match=r"pip install 'minitx\[topics\]'"):
        content_words(["a", "dog"])
    assert content_words(["a", "dog"], stop_words=False).tolist() == [True, True]


# ---- Words ----------------------------------------------------------------------------------------------------------


VOCABULARY = ["[MASK]", "<unk>", ".", "!", "7", "42", "the", "s", "don", "Dog", "dog", "été", "lily", "["]


def test_content_words():
    found = content_words(VOCABULARY, stop_words=False, extra=["Lily"])
    assert list(compress(VOCABULARY, found)) == ["the", "s", "don", "Dog", "dog", "été"]
    assert content_words([], stop_words=False).shape == (0,)


def test_content_words_without_stop_words():
    pytest.importorskip("sklearn")
    assert list(compress(VOCABULARY, content_words(VOCABULARY))) == ["Dog", "dog", "été", "lily"]


def test_labels_follow_bayes_rule():
    topic_word = np.array([[0.5, 0.2, 0.3, 0.0], [0.1, 0.2, 0.7, 0.0]])

    def labels(threshold, share=(0.5, 0.5)):
        """Labels of the four words, each of which is there twice, so that no topic has a single word."""
        found = dominant_topics(np.tile(topic_word, 2) / 2, np.array(share), threshold)
        assert (found[:4] == found[4:]).all()
        return found[:4].tolist()

    assert labels(0.5) == [0, 0, 1, -1]  # of equals the first
    assert labels(0.6) == [0, -1, 1, -1]
    assert labels(0.8) == [0, -1, -1, -1]
    assert labels(1) == [-1, -1, -1, -1]
    assert labels(0.5, (0.1, 0.9)) == [1, 1, 1, -1]  # .05 against .09
    assert labels(1, (0, 1)) == [1, 1, 1, -1]
    assert dominant_topics(topic_word, np.full(2, 0.5), 0.5).tolist() == [0, 0, -1, -1]  # topic 1 has one word


@given(st.integers(1, 4), st.integers(1, 8), st.floats(0.05, 1), st.integers(0, 2**32 - 1))
def test_labels_are_those_of_plain_loops(n_topics, n_words, threshold, seed):
    rng = np.random.default_rng(seed)
    topic_word = rng.random((n_topics, n_words)) * (rng.random((n_topics, n_words)) < 0.7)
    share = rng.random(n_topics) + 0.01
    expected = []
    for word in range(n_words):
        joint = [share[t] * topic_word[t, word] for t in range(n_topics)]
        best = joint.index(max(joint))
        expected.append(best if sum(joint) > 0 and joint[best] >= threshold * sum(joint) else -1)
    expected = [label if expected.count(label) >= 2 else -1 for label in expected]
    assert dominant_topics(topic_word, share, threshold).tolist() == expected


@pytest.mark.slow
def test_topics_of_real_stories(tinystories, monkeypatch):
    """At least two words, none of them a stop word, belong to each topic; they are sorted by probability."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr(text, "ITERATIONS", 5)
    corpus = load_corpus(tinystories, n_vocab=800, length=127)
    documents, content = _documents(corpus.tokens, 800), content_words(corpus.vocabulary)
    found = word_topics(documents, corpus.vocabulary, n_topics=10, threshold=0.5, stop_words=True, exclude=[], rng=0)
    assert not (found.of_token[1:][~content] >= 0).any()
    assert np.bincount(found.of_token[found.of_token >= 0], minlength=10).min() >= 2
    assert (found.of_token >= 0).sum() > 100
    topic_word, share = fit_topics(documents, content, 10, 0)
    assert (found.share == share).all()
    index = {word: i for i, word in enumerate(corpus.vocabulary)}
    for topic, words in enumerate(found.words):
        own = [index[word] for word in words]
        assert sorted(own) == np.flatnonzero(found.of_token[1:] == topic).tolist()
        assert (np.diff(topic_word[topic, own]) <= 0).all()
