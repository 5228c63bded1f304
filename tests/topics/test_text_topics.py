"""Topics of a text: planted ones are recovered; labels by Bayes' rule; what happens without scikit-learn."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import load_corpus
from minitx.topics.averages import pair_averages
from minitx.topics.text import content_words, dominant_topics, fit_topics, top_words

N_TOPICS, N_WORDS, N_SHARED = 4, 12, 5  # shared words come first and say nothing about the topic


def _planted(seed, n_documents=200, length=60):
    """Documents of two of four disjoint topics each, a quarter of the tokens being shared words; and the words' topics."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(N_TOPICS, 2, replace=False) for _ in range(n_documents)])
    topic = np.take_along_axis(pairs, rng.integers(0, 2, (n_documents, length)), axis=1)
    tokens = N_SHARED + topic * N_WORDS + rng.integers(0, N_WORDS, (n_documents, length))
    shared = rng.random((n_documents, length)) < 0.25
    tokens[shared] = rng.integers(0, N_SHARED, shared.sum())
    return tokens, np.concatenate([np.full(N_SHARED, -1), np.repeat(np.arange(N_TOPICS), N_WORDS)])


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_topics_are_recovered(seed):
    pytest.importorskip("sklearn")
    tokens, truth = _planted(seed)
    found = fit_topics(tokens, truth >= 0, n_topics=N_TOPICS, n_starts=3, rng=seed)  # a single start may merge two topics
    labels = dominant_topics(found.topic_word, topic_share=found.share, threshold=0.7)
    name = {label: truth[word] for word, label in enumerate(labels) if truth[word] >= 0}
    assert sorted(name.values()) == list(range(N_TOPICS))
    assert [name.get(label, -1) for label in labels] == truth.tolist()
    np.testing.assert_allclose(found.topic_word.sum(axis=1), 1, rtol=1e-12)
    assert found.share.sum() == pytest.approx(1, rel=1e-12)
    together = (tokens[:, :, None] == np.arange(len(truth))).any(axis=1).astype(float)
    averages = pair_averages(together.T @ together, labels)
    assert averages.difference > 0.1 * len(tokens)


def test_words_left_out_and_what_lies_beyond_the_lengths_play_no_part():
    pytest.importorskip("sklearn")
    tokens, truth = _planted(0, n_documents=40)
    content = truth >= 0
    found = fit_topics(tokens, content, n_topics=3, n_iterations=3)
    assert not found.topic_word[:, ~content].any()
    assert (found.topic_word[:, content] > 0).all()
    padded = np.hstack([tokens, np.full((40, 7), -5)])
    padded = np.vstack([padded, padded[:1]])  # an empty document
    again = fit_topics(padded, content, n_topics=3, n_iterations=3, lengths=[60] * 40 + [0])
    assert (again.topic_word == found.topic_word).all()
    assert (again.share == found.share).all()


def test_a_seed_gives_the_same_topics():
    pytest.importorskip("sklearn")
    tokens, truth = _planted(0, n_documents=40)
    one, same, other = (fit_topics(tokens, truth >= 0, n_topics=3, n_iterations=3, rng=rng).topic_word
                        for rng in (7, np.random.default_rng(7), 8))
    assert (one == same).all()
    assert (one != other).any()
    two = [fit_topics(tokens, truth >= 0, n_topics=3, n_iterations=3, n_starts=2, rng=rng).topic_word for rng in (7, 7)]
    assert (two[0] == two[1]).all()


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"documents": np.ones((2, 3))}, TypeError, "documents must be integers, got dtype float64"),
    ({"documents": np.ones(3, int)}, ValueError, "documents must be a 2-dimensional array"),
    ({"documents": np.full((2, 3), 4)}, ValueError, "ids 4 to 4 but the vocabulary has 4 words .* give the vocabulary"),
    ({"documents": np.full((2, 3), -1)}, ValueError, "ids -1 to -1"),
    ({"content": np.ones(4)}, TypeError, "content has dtype float64; give True or False"),
    ({"content": np.ones((2, 2), bool)}, ValueError, r"content has shape \(2, 2\)"),
    ({"lengths": [3]}, ValueError, "lengths must be 2 numbers from 0 to 3"),
    ({"lengths": [3, 4]}, ValueError, "lengths must be 2 numbers from 0 to 3"),
    ({"lengths": [3, -1]}, ValueError, "lengths must be 2 numbers from 0 to 3"),
    ({"n_topics": 1}, ValueError, "n_topics is 1; it must be a whole number, at least 2"),
    ({"n_iterations": 0}, ValueError, "n_iterations is 0"),
    ({"n_starts": 0}, ValueError, "n_starts is 0"),
    ({"n_topics": 4}, ValueError, "hold 3 different content words, too few for 4 topics; give fewer topics, or more text"),
    ({"content": np.zeros(4, bool)}, ValueError, "hold 0 different content words"),
    ({"documents": np.zeros((0, 3), int)}, ValueError, "hold 0 different content words"),
])
def test_refusals_of_fit_topics(change, error, message):
    arguments = {"documents": np.array([[0, 1, 2], [2, 2, 1]]), "content": np.ones(4, bool), "n_topics": 2} | change
    with pytest.raises(error, match=message):
        fit_topics(arguments.pop("documents"), arguments.pop("content"), **arguments)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"topics of a text need scikit-learn .*: pip install 'minitx\[topics\]'"):
        fit_topics(np.array([[0, 1], [1, 2]]), np.ones(3, bool), n_topics=2)
    with pytest.raises(ValueError, match=r"pip install 'minitx\[topics\]'"):
        content_words(["a", "dog"])
    assert content_words(["a", "dog"], stop_words=False).tolist() == [True, True]


# ---- Words ----------------------------------------------------------------------------------------------------------


VOCABULARY = ["[MASK]", "<unk>", ".", "!", "7", "42", "the", "s", "don", "Dog", "dog", "été", "lily", "["]


def test_content_words():
    assert [w for w, kept in zip(VOCABULARY, content_words(VOCABULARY, stop_words=False, extra=["Lily"]), strict=True) if kept] == [
        "the", "s", "don", "Dog", "dog", "été"]
    assert content_words([], stop_words=False).shape == (0,)
    with pytest.raises(TypeError, match="extra is the string 'lily'; give a list of words"):
        content_words(VOCABULARY, stop_words=False, extra="lily")


def test_content_words_without_stop_words():
    pytest.importorskip("sklearn")
    assert [w for w, kept in zip(VOCABULARY, content_words(VOCABULARY), strict=True) if kept] == ["Dog", "dog", "été", "lily"]


def test_labels_follow_bayes_rule():
    topic_word = np.array([[0.5, 0.2, 0.3, 0.0], [0.1, 0.2, 0.7, 0.0]])
    label = {"min_words": 1}
    assert dominant_topics(topic_word, **label).tolist() == [0, 0, 1, -1]  # of equals the first
    assert dominant_topics(topic_word, threshold=0.6, **label).tolist() == [0, -1, 1, -1]
    assert dominant_topics(topic_word, threshold=0.8, **label).tolist() == [0, -1, -1, -1]
    assert dominant_topics(topic_word, threshold=1, **label).tolist() == [-1, -1, -1, -1]
    assert dominant_topics(topic_word, topic_share=[0.1, 0.9], **label).tolist() == [1, 1, 1, -1]  # .05 against .09
    assert dominant_topics(topic_word, topic_share=[0, 1], threshold=1, **label).tolist() == [1, 1, 1, -1]
    assert dominant_topics(topic_word, min_words=2).tolist() == [0, 0, -1, -1]
    assert dominant_topics(np.eye(3), threshold=1.0, min_words=1).tolist() == [0, 1, 2]


@given(st.integers(1, 4), st.integers(1, 8), st.floats(0.05, 1), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_labels_are_those_of_plain_loops(n_topics, n_words, threshold, min_words, seed):
    rng = np.random.default_rng(seed)
    topic_word = rng.random((n_topics, n_words)) * (rng.random((n_topics, n_words)) < 0.7)
    share = rng.random(n_topics) + 0.01
    expected = []
    for word in range(n_words):
        joint = [share[t] * topic_word[t, word] for t in range(n_topics)]
        best = joint.index(max(joint))
        expected.append(best if sum(joint) > 0 and joint[best] >= threshold * sum(joint) else -1)
    expected = [label if expected.count(label) >= min_words else -1 for label in expected]
    assert dominant_topics(topic_word, topic_share=share, threshold=threshold, min_words=min_words).tolist() == expected


@pytest.mark.parametrize(("arguments", "message"), [
    ({"threshold": 0}, "threshold is 0; it must be a number above 0, at most 1"),
    ({"threshold": 1.01}, "threshold is 1.01"),
    ({"threshold": float("nan")}, "threshold is nan"),
    ({"threshold": True}, "threshold is True"),
    ({"min_words": 0}, "min_words is 0"),
    ({"topic_share": [1.0]}, r"topic_share has shape \(1,\) but there are 2 topics"),
    ({"topic_share": [-1.0, 1]}, "topic_share holds entries that are negative, inf or nan; give probabilities"),
    ({"topic_word": -np.ones((2, 3))}, "topic_word holds entries that are negative"),
    ({"topic_word": np.ones(3)}, r"topic_word has shape \(3,\)"),
])
def test_refusals_of_dominant_topics(arguments, message):
    with pytest.raises(ValueError, match=message):
        dominant_topics(**{"topic_word": np.ones((2, 3))} | arguments)


def test_top_words():
    topic_word, labels = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]), [1, 0, 0]
    assert top_words(topic_word, ["a", "b", "c"], labels) == [["b", "c"], ["a"]]
    assert top_words(topic_word, ["a", "b", "c"], labels, k=1) == [["b"], ["a"]]
    assert top_words(topic_word, ["a", "b", "c"], [-1, -1, 1]) == [[], ["c"]]
    with pytest.raises(ValueError, match="topic_word has 3 words, the vocabulary 2 and labels 3"):
        top_words(topic_word, ["a", "b"], labels)


def test_topics_of_real_stories(tinystories):
    pytest.importorskip("sklearn")
    corpus = load_corpus(tinystories, n_vocab=800, length=127)
    content = content_words(corpus.vocabulary)
    found = fit_topics(corpus.tokens, content, n_topics=10, n_iterations=5)
    labels = dominant_topics(found.topic_word, topic_share=found.share)
    assert not (labels[~content] >= 0).any()
    assert np.bincount(labels[labels >= 0], minlength=10).min() >= 2
    assert (labels >= 0).sum() > 100
    assert all(len(words) >= 2 for words in top_words(found.topic_word, corpus.vocabulary, labels))
