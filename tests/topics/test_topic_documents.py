"""Documents of topics and their masks: frequencies are within 4 standard errors of the law, for fixed seeds."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.topics import randomness
from minitx.topics.documents import LOSSES, Documents, mask_tokens
from minitx.topics.law import TopicModel

PAPER = dict(p_m=0.15, p_c=0.1, p_r=0.1)
OVERLAPPING = np.array([[0.5, 0.3, 0.2, 0.0, 0.0], [0.0, 0.1, 0.2, 0.7, 0.0], [0.25, 0.25, 0.25, 0.25, 0.0]])


def within_4_se(found, expected, se):
    """Every |found - expected| at most 4 s.e., and s.e. small enough to mean something."""
    found, expected, se = np.broadcast_arrays(found, expected, se)
    assert (np.abs(found - expected) <= 4 * se).all(), f"found {found}, expected {expected}, s.e. {se}"


def frequency_within_4_se(count, total, expected):
    expected = np.asarray(expected)
    within_4_se(np.asarray(count) / total, expected, np.sqrt(expected * (1 - expected) / total))


def naive_per_document(tokens, lengths, chosen):
    """1 / (documents with a chosen slot) / (chosen slots of the document), in loops."""
    counts = [sum(bool(chosen[d, i]) for i in range(lengths[d])) for d in range(len(tokens))]
    having = sum(count > 0 for count in counts)
    return [[1 / having / counts[d] if chosen[d, i] else 0.0 for i in range(tokens.shape[1])]
            for d in range(len(tokens))]


# ---- the law of the documents ---------------------------------------------------------------------------------------


def sharing(documents, model):
    """Of each document, the share of its ordered pairs of slots that have the same topic."""
    topic = model.topic_of_token[documents.tokens]
    counts = np.stack([(topic == t).sum(axis=1) for t in range(model.n_topics)], axis=1)
    return (counts * (counts - 1)).sum(axis=1) / (documents.lengths * (documents.lengths - 1))


@pytest.mark.parametrize("n_topics, law, h", [
    (10, dict(tau=2), 2.25),
    (10, dict(tau=4), 6.0),
    (5, dict(tau=1), 1.0),
    (4, dict(tau=4), np.inf),
    (10, dict(alpha=0.1), 2.0),
    (3, dict(alpha=2.0), 7.0),
    (7, dict(alpha=1e-4), 1.0007),
])
@pytest.mark.parametrize("length", [2, (5, 30)])
def test_two_slots_share_a_topic_as_often_as_h_says(n_topics, law, h, length):
    if "tau" in law and law["tau"] < n_topics:
        assert h == pytest.approx(law["tau"] * (n_topics - 1) / (n_topics - law["tau"]))
    model = TopicModel(n_topics, 3, **law, length=length)
    shared = sharing(model.documents(20_000, rng=1), model)
    expected = (1 + (n_topics - 1) / h) / n_topics
    within_4_se(shared.mean(), expected, shared.std() / np.sqrt(len(shared)) + 1e-15)


def test_dirichlet_parameters_may_differ():
    alpha = np.array([0.3, 1.0, 2.7])
    model = TopicModel(3, 2, alpha=alpha, length=10)
    documents = model.documents(20_000)
    shared = sharing(documents, model)
    within_4_se(shared.mean(), (alpha * (alpha + 1)).sum() / (4 * 5), shared.std() / np.sqrt(len(shared)))
    first = model.topic_of_token[documents.tokens[:, 0]]
    frequency_within_4_se(np.bincount(first, minlength=3), len(first), alpha / 4)


def test_documents_have_tau_topics_at_most_and_all_sets_alike():
    model = TopicModel(5, 2, tau=2, length=200)
    topic = model.topic_of_token[model.documents(10_000).tokens]
    sets = [tuple(np.flatnonzero(row)) for row in np.stack([(topic == t).any(axis=1) for t in range(5)], axis=1)]
    pairs = list(itertools.combinations(range(5), 2))
    assert set(sets) == set(pairs)  # 200 slots: both topics are seen
    frequency_within_4_se([sets.count(pair) for pair in pairs], len(sets), np.full(10, 0.1))


def test_words_of_a_topic_are_alike_and_independent_of_the_slot():
    model = TopicModel(4, 5, tau=2, length=40)
    tokens = model.documents(5_000).tokens
    word = (tokens - 1) % 5
    frequency_within_4_se(np.bincount(word.ravel()), word.size, np.full(5, 0.2))
    equal = word[:, 0] == word[:, 1]
    frequency_within_4_se(equal.sum(), equal.size, 0.2)


def test_lengths_are_uniform_on_the_pair():
    lengths = TopicModel(2, 2, tau=1, length=(3, 7)).documents(20_000).lengths
    frequency_within_4_se(np.bincount(lengths, minlength=8)[3:], len(lengths), np.full(5, 0.2))


def test_overlapping_topics():
    """Words follow theta @ topic_word, pairs of slots follow E[theta theta^T]; words of probability 0 never appear."""
    alpha = np.array([0.5, 1.0, 1.5])
    model = TopicModel(3, alpha=alpha, length=2, topic_word=OVERLAPPING)
    tokens = model.documents(60_000).tokens
    theta = alpha / 3
    frequency_within_4_se(np.bincount(tokens[:, 0], minlength=6), len(tokens), np.append(0, theta @ OVERLAPPING))
    second_moment = (np.outer(alpha, alpha) + np.diag(alpha)) / (3 * 4)
    pairs = np.bincount(tokens[:, 0] * 6 + tokens[:, 1], minlength=36).reshape(6, 6)[1:, 1:]
    frequency_within_4_se(pairs, len(tokens), OVERLAPPING.T @ second_moment @ OVERLAPPING)


def test_overlapping_topics_of_the_tau_law():
    tokens = TopicModel(3, tau=2, length=30, topic_word=OVERLAPPING).documents(20_000).tokens
    share = np.stack([(tokens == i).mean(axis=1) for i in range(6)], axis=1)  # slots of a document depend on each other
    within_4_se(share.mean(axis=0), np.append(0, OVERLAPPING.mean(axis=0)), share.std(axis=0) / np.sqrt(len(tokens)))


def test_disjoint_topics_are_a_case_of_topic_word():
    table = np.kron(np.eye(4), np.full((1, 3), 1 / 3))
    general, disjoint = TopicModel(4, tau=2, topic_word=table), TopicModel(4, 3, tau=2)
    assert general.n == disjoint.n == 12 and general.V == disjoint.V == 13
    assert np.array_equal(general.topic_of_token, disjoint.topic_of_token)
    drawn = [model.topic_of_token[model.documents(300).tokens] for model in (general, disjoint)]
    assert np.array_equal(*drawn)  # words are drawn by a generator of their own


def test_topic_of_token():
    assert TopicModel(2, 3, tau=1).topic_of_token.tolist() == [-1, 0, 0, 0, 1, 1, 1]
    assert TopicModel(3, tau=1, topic_word=OVERLAPPING).topic_of_token.tolist() == [-1, 0, 0, 2, 1, -1]


def test_uniform_number_that_rounds_to_the_next_row_stays_in_its_own():
    stacked = randomness.stack_cdfs(np.full((5000, 3), [0.5, 0.5, 0.0]))
    rows = np.arange(5000)
    assert (randomness.inverse_cdf(stacked, rows, np.full(5000, 1 - 2.0**-53)) == 1).all()
    assert (randomness.inverse_cdf(stacked, rows, np.zeros(5000)) == 0).all()
    leading_zero = randomness.stack_cdfs(np.full((5000, 2), [0.0, 1.0]))
    assert (randomness.inverse_cdf(leading_zero, rows, np.zeros(5000)) == 1).all()


@pytest.mark.parametrize("excess", [-5e-7, 5e-7])
def test_rows_whose_sum_is_rounded_are_probabilities_all_the_same(excess):
    stacked = randomness.stack_cdfs(TopicModel(2, tau=1, topic_word=[[0.5, 0.5 + excess], [1 + excess, 0]]).topic_word)
    assert stacked.tolist() == [[pytest.approx(0.5, abs=1e-6), 1], [2, 2]]
    assert randomness.inverse_cdf(stacked, np.array([0, 1]), np.array([1 - 1e-9, 1 - 1e-9])).tolist() == [1, 0]


# ---- what least squares learns from them ----------------------------------------------------------------------------


def closed_form(n_topics, v, h, length, p_m, p_c, p_r):
    """A2 of the notes: the least-squares W_V at the same word, the same topic, different topics."""
    n, a, m = n_topics * v, 1 - p_m * (1 - p_c), p_m * (1 - p_c - p_r)
    big_d = p_c + p_r + (length - 1) * (1 - m)
    lam_w = length * p_c / big_d
    lam_t = length * (p_c * h + (length - 1) * a) / (
        h * big_d + 2 * (length - 1) * p_c * a + (length - 1) * (length - 2) * a**2)
    different = (1 - lam_t) / n
    same = different + (lam_t - lam_w) / v
    return np.array([same + lam_w, same, different])


def least_squares_blocks(batch, n_topics, v):
    """Block values of C M^-1 over chosen slots: C = E[e_y u^T], M = E[u u^T], u = shares of the shown tokens."""
    n_vocab = n_topics * v + 1
    document, slot = np.nonzero(batch.weight)
    u = np.stack([(batch.tokens == i).mean(axis=1) for i in range(n_vocab)], axis=1)[document]
    weight = batch.weight[document, slot]
    c = np.zeros((n_vocab, n_vocab))
    np.add.at(c, batch.targets[document, slot], weight[:, None] * u)
    w = np.linalg.solve((u.T * weight) @ u, c.T).T
    topic = np.repeat(np.arange(n_topics), v)
    words, same = w[1:, 1:], topic[:, None] == topic
    other = same & ~np.eye(n_vocab - 1, dtype=bool)
    assert not w[0].any()
    np.testing.assert_allclose(w.sum(axis=0), 1, atol=1e-10)  # as u and e_y do
    assert w[1:, 0].mean() == pytest.approx(1 / (n_vocab - 1), abs=1e-10)
    return [words.diagonal().mean(), words[other].mean(), words[~same].mean()]


@pytest.mark.parametrize("n_topics, v, law, h, length, masks", [
    (3, 2, dict(tau=2), 4.0, 6, dict(p_m=0.3, p_c=0.2, p_r=0.3)),
    (4, 3, dict(tau=1), 1.0, 12, PAPER),
    (3, 2, dict(alpha=0.4), 2.2, 8, dict(p_m=0.5, p_c=0.4, p_r=0.1)),
])
def test_least_squares_has_the_closed_form(n_topics, v, law, h, length, masks):
    model = TopicModel(n_topics, v, **law, length=length)
    batches = (mask_tokens(model.documents(12_000, rng=seed), **masks, rng=seed) for seed in range(8))
    found = np.array([least_squares_blocks(batch, n_topics, v) for batch in batches])
    expected = closed_form(n_topics, v, h, length, **masks)
    within_4_se(found.mean(axis=0), expected, found.std(axis=0, ddof=1) / np.sqrt(8))


# ---- seeds ----------------------------------------------------------------------------------------------------------

MODELS = {
    "tau": TopicModel(6, 4, tau=3, length=20),
    "alpha": TopicModel(6, 4, alpha=0.1, length=(5, 20)),
    "overlapping": TopicModel(3, tau=2, length=(2, 9), topic_word=OVERLAPPING),
    "overlapping, alpha": TopicModel(3, alpha=[0.2, 1, 3], length=9, topic_word=OVERLAPPING),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def same(one, other):
    return np.array_equal(one.tokens, other.tokens) and np.array_equal(one.lengths, other.lengths)


@each_model
def test_same_seed_same_documents(model):
    assert same(model.documents(50, rng=4), model.documents(50, rng=4))
    assert not same(model.documents(50, rng=4), model.documents(50, rng=5))
    assert not same(model.documents(50, rng=None), model.documents(50, rng=None))


@each_model
def test_generator_is_used_and_advanced(model):
    rng = np.random.default_rng(3)
    first, second = model.documents(50, rng=rng), model.documents(50, rng=rng)
    assert same(first, model.documents(50, rng=np.random.default_rng(3))) and not same(first, second)


@each_model
def test_fewer_documents_are_the_beginning_of_more(model):
    more = model.documents(15_001)  # several parts
    for n in (1, 2, 333, 15_000):
        fewer = model.documents(n)
        assert len(fewer) == n
        assert np.array_equal(fewer.tokens, more.tokens[:n]) and np.array_equal(fewer.lengths, more.lengths[:n])


@each_model
def test_documents_and_masks_do_not_depend_on_how_much_is_drawn_together(model, monkeypatch):
    documents = model.documents(200)
    batch = mask_tokens(documents)
    monkeypatch.setattr(randomness, "AT_ONCE", 37)
    assert same(documents, model.documents(200))
    assert np.array_equal(batch.tokens, mask_tokens(documents).tokens)
    assert np.array_equal(batch.weight, mask_tokens(documents).weight)


def test_same_seed_same_masks():
    documents = MODELS["tau"].documents(100)
    rng = np.random.default_rng(1)
    one, same_seed, other = (mask_tokens(documents, rng=seed) for seed in (5, 5, 6))
    used, advanced, again = (mask_tokens(documents, rng=r) for r in (rng, rng, np.random.default_rng(1)))
    assert np.array_equal(one.tokens, same_seed.tokens) and np.array_equal(one.weight, same_seed.weight)
    assert not np.array_equal(one.weight, other.weight)
    assert np.array_equal(used.weight, again.weight) and not np.array_equal(used.weight, advanced.weight)
    assert not np.array_equal(mask_tokens(documents, rng=None).weight, mask_tokens(documents, rng=None).weight)


@each_model
def test_masks_are_independent_of_documents_of_the_same_seed(model):
    documents = model.documents(20_000, rng=0)
    inside = documents.tokens > 0
    chosen = (mask_tokens(documents, p_m=0.5, rng=0).weight > 0)[inside]
    for token in np.unique(documents.tokens[inside]):
        of_token = chosen[documents.tokens[inside] == token]
        frequency_within_4_se(of_token.sum(), of_token.size, 0.5)


# ---- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p_m, p_c, p_r", [(0.15, 0.1, 0.1), (0.6, 0.3, 0.5), (0.05, 0.0, 0.9)])
def test_corruption_frequencies(p_m, p_c, p_r):
    documents = TopicModel(3, 2, tau=1, length=(40, 60)).documents(6_000)
    batch = mask_tokens(documents, p_m=p_m, p_c=p_c, p_r=p_r)
    chosen, inside = batch.weight > 0, np.arange(60) < documents.lengths[:, None]
    frequency_within_4_se(chosen.sum(), inside.sum(), p_m)
    shown, truth, n_chosen = batch.tokens[chosen], documents.tokens[chosen], chosen.sum()
    frequency_within_4_se((shown == 0).sum(), n_chosen, 1 - p_c - p_r)
    frequency_within_4_se((shown == truth).sum(), n_chosen, p_c + p_r / 6)  # a random word is the true one at times
    # Shown minus true word, around the vocabulary, is uniform over all n whatever the true word is, kept words aside.
    turned = (shown - truth)[shown > 0] % 6
    frequency_within_4_se(np.bincount(turned, minlength=6)[1:], n_chosen, np.full(5, p_r / 6))
    random = shown[(shown > 0) & (truth == 1)]
    frequency_within_4_se(np.bincount(random, minlength=7)[2:], (truth == 1).sum(), np.full(5, p_r / 6))


def test_neighbouring_slots_are_chosen_independently():
    chosen = mask_tokens(TopicModel(3, 2, tau=1, length=50).documents(4_000), p_m=0.3).weight > 0
    for both in (chosen[:, :-1:2] & chosen[:, 1::2], chosen[:-1:2] & chosen[1::2]):
        frequency_within_4_se(both.sum(), both.size, 0.09)


@pytest.mark.parametrize("p_c, p_r", [(0, 0), (1, 0), (0, 1), (0.7, 0.3)])
def test_certain_corruptions(p_c, p_r):
    documents = TopicModel(3, 2, tau=1, length=50).documents(50)
    batch = mask_tokens(documents, p_m=1, p_c=p_c, p_r=p_r)
    assert (batch.weight > 0).all()
    assert (batch.tokens == 0).all() if p_c + p_r == 0 else (batch.tokens > 0).all()
    assert np.array_equal(batch.tokens, documents.tokens) == (p_c == 1)


def test_weights():
    documents = TopicModel(3, 2, tau=1, length=(2, 9)).documents(300)
    pooled, each = (mask_tokens(documents, loss=loss, rng=2) for loss in ("pooled", "per_document"))
    chosen = pooled.weight > 0
    assert np.array_equal(pooled.tokens, each.tokens) and np.array_equal(chosen, each.weight > 0)
    assert not chosen.any(axis=1).all()  # some documents have no chosen slot
    assert (pooled.weight[chosen] == 1 / chosen.sum()).all()
    np.testing.assert_allclose(each.weight, naive_per_document(documents.tokens, documents.lengths, chosen), rtol=1e-15)
    assert pooled.weight.sum() == pytest.approx(1, abs=1e-12) and each.weight.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("head", ["cross_entropy", "squared", "log"])
def test_batch_is_bidirectional_and_has_the_head_and_the_lengths(head):
    documents = TopicModel(3, 2, tau=1, length=(2, 9)).documents(30)
    batch = mask_tokens(documents, head=head)
    assert not batch.causal and batch.head == head and np.array_equal(batch.lengths, documents.lengths)
    batch.require_vocabulary(documents.n_vocab)


@st.composite
def models(draw):
    n_topics = draw(st.integers(1, 5))
    low = draw(st.integers(2, 9))
    tau, alpha = draw(st.integers(1, n_topics)), draw(st.sampled_from((1e-300, 0.1, 1.0, 1e9)))
    law = draw(st.sampled_from(({"tau": tau}, {"alpha": alpha})))
    length = draw(st.sampled_from((low, (low, low), (low, low + 5))))
    if draw(st.booleans()):
        return TopicModel(n_topics, draw(st.integers(1, 4)), **law, length=length)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    table = rng.random((n_topics, draw(st.integers(1, 6)))) ** 8
    return TopicModel(n_topics, **law, length=length, topic_word=table / table.sum(axis=1, keepdims=True))


@given(models(), st.integers(1, 40), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1), st.sampled_from(LOSSES))
def test_invariants(model, n_documents, seed, p_c, split, loss):
    documents = model.documents(n_documents, rng=seed)
    low, high = np.broadcast_to(model.length, 2)
    assert documents.tokens.shape == (n_documents, high)
    assert documents.tokens.dtype == documents.lengths.dtype == np.int32
    assert documents.n_vocab == model.V == len(model.topic_of_token)
    assert low <= documents.lengths.min() and documents.lengths.max() <= high
    inside = np.arange(high) < documents.lengths[:, None]
    assert (documents.tokens[inside] >= 1).all() and (documents.tokens < model.V).all()
    assert not documents.tokens[~inside].any()
    if model.tau is not None and model.topic_word is None:
        topics = model.topic_of_token[documents.tokens]  # that of padding is -1
        assert all(len(np.unique(row)) <= model.tau + 1 for row in topics)
    before = documents.tokens.copy()
    batch = mask_tokens(documents, p_m=0.9, p_c=p_c, p_r=(1 - p_c) * split, loss=loss, rng=seed)
    assert np.array_equal(before, documents.tokens)
    chosen = batch.weight > 0
    assert not chosen[~inside].any() and batch.weight.sum() == pytest.approx(1)
    assert np.array_equal(batch.tokens[~chosen], documents.tokens[~chosen])
    assert np.array_equal(batch.targets[chosen], documents.tokens[chosen])
    assert 0 <= batch.tokens.min() and batch.tokens.max() < documents.n_vocab


@pytest.mark.parametrize("model", [
    TopicModel(1, 1, tau=1, length=2),
    TopicModel(1, 1, alpha=0.1, length=(2, 2)),
    TopicModel(1, 4, tau=1, length=3),
    TopicModel(3, 1, tau=3, length=2),
    TopicModel(1, tau=1, topic_word=[[1]], length=2),
    TopicModel(np.int64(2), np.int64(2), tau=np.int64(1), length=np.array([3, 3])),
    TopicModel(300_000, 1, tau=3, length=2),  # more topics than are drawn together
])
def test_edges(model):
    documents = model.documents(5)
    assert len(documents) == 5 and np.isin(documents.tokens[documents.tokens > 0], np.arange(1, model.V)).all()
    assert mask_tokens(documents, p_m=1).weight.sum() == pytest.approx(1)


# ---- documents made of a text ---------------------------------------------------------------------------------------


def test_documents_of_ones_own():
    given = np.array([[3, 1, 9], [1, 2, 3]], np.uint8)
    documents = Documents(given, [2, 3], 400)
    assert documents.tokens.tolist() == [[3, 1, 0], [1, 2, 3]] and given[0, 2] == 9
    assert documents.tokens.dtype == documents.lengths.dtype == np.int32 and len(documents) == 2
    assert mask_tokens(documents, p_m=1, p_c=1, p_r=0).tokens.tolist() == documents.tokens.tolist()


def test_documents_do_not_share_memory_with_what_they_were_made_of():
    tokens, lengths = np.ones((2, 3), np.int32), np.full(2, 3, np.int32)
    documents = Documents(tokens, lengths, 2)
    tokens[:], lengths[:] = 0, 0
    assert documents.tokens.all() and documents.lengths.all()


@pytest.mark.parametrize("change, error, message", [
    (dict(tokens=[[1.0, 2.0]]), TypeError, "tokens must be integers, got dtype float64"),
    (dict(lengths=[2.0]), TypeError, "lengths must be integers"),
    (dict(tokens=[1, 2]), ValueError, r"tokens must be a 2-dimensional array, got shape \(2,\)"),
    (dict(lengths=2), ValueError, "lengths must be a 1-dimensional"),
    (dict(tokens=np.zeros((0, 2), int), lengths=np.zeros(0, int)), ValueError, "no documents; give at least one"),
    (dict(lengths=[2, 2]), ValueError, "tokens hold 1 documents but lengths 2 numbers; give one length a document"),
    (dict(lengths=[1]), ValueError, "documents shorter than 2 slots .* found 1 of 1; leave them out, or join them"),
    (dict(lengths=[-3]), ValueError, "documents shorter than 2"),
    (dict(lengths=[4]), ValueError, "a document has length 4 but tokens have 3 columns"),
    (dict(tokens=[[1, 0, 2]]), ValueError, "ids from 1 to n_vocab - 1 = 4 .* found 0; shift the ids"),
    (dict(tokens=[[-1, 1, 2]]), ValueError, "found -1"),
    (dict(tokens=[[1, 5, 2]]), ValueError, "found 5; shift the ids by one, or raise n_vocab"),
    (dict(tokens=np.array([[1, 5, 2]], np.uint8), n_vocab=3), ValueError, "found 5"),
    (dict(n_vocab=1), ValueError, "n_vocab is 1; it must be a whole number, at least 2"),
    (dict(n_vocab=5.0), ValueError, "n_vocab is 5.0"),
])
def test_bad_documents(change, error, message):
    with pytest.raises(error, match=message):
        Documents(**(dict(tokens=[[1, 4, 2]], lengths=[3], n_vocab=5) | change))


# ---- bad settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, message", [
    (dict(n_topics=0), "n_topics is 0; it must be a whole number, at least 1"),
    (dict(words_per_topic=0), "words_per_topic is 0; it must be a whole number, at least 1"),
    (dict(words_per_topic=2.5), "words_per_topic is 2.5"),
    (dict(words_per_topic=None), "neither of words_per_topic and topic_word given; give one"),
    (dict(topic_word=OVERLAPPING), "both of words_per_topic and topic_word given; give one"),
    (dict(tau=None), "tau is None and alpha is None; give exactly one"),
    (dict(alpha=0.1), "tau is 2 and alpha is 0.1; give exactly one"),
    (dict(tau=0), "tau is 0; it must be a whole number, at least 1"),
    (dict(tau=4), "tau is 4 but there are 3 topics; .* lower tau or raise n_topics"),
    (dict(tau=None, alpha=0), "alpha is 0; it must be a number above 0"),
    (dict(tau=None, alpha=np.nan), "alpha is nan"),
    (dict(tau=None, alpha=np.inf), "alpha is inf; it must be a number above 0, below 1e[+]100"),
    (dict(tau=None, alpha=[1, 2]), r"alpha has shape \(2,\); it must be one number or 3, one a topic"),
    (dict(tau=None, alpha=[1, 2, -3]), "an entry of alpha is .*-3.0.*; it must be a number above 0"),
    (dict(length=1), "length is 1: a document needs at least 2 slots"),
    (dict(length="long"), "length is 'long'; it must be a whole number of at least 2 slots"),
    (dict(length=128.0), "length is 128.0; it must be a whole"),
    (dict(length=True), "length is True"),
    (dict(length=np.nan), "length is nan"),
    (dict(length=(3, np.inf)), r"it must be .* a pair \(low, high\)"),
    (dict(length=(2, 10**9)), "bring low and high nearer"),
    (dict(p_m=0), "p_m is 0: no slot is ever chosen"),
    (dict(p_m=1.5), "p_m is 1.5; it must be a probability"),
    (dict(p_c=-0.1), "p_c is -0.1"),
    (dict(p_r=True), "p_r is True"),
    (dict(p_r=np.nan), "p_r is nan"),
    (dict(p_c=0.6, p_r=0.6), "above 1; .* lower one"),
    (dict(loss="mean"), "loss is 'mean'; it must be one of pooled, per_document"),
    (dict(length=(1, 4)), "length is 1: a document needs at least 2 slots"),
    (dict(length=(2, 3, 4)), r"length is \(2, 3, 4\); it must be a whole number .*, a pair"),
    (dict(length=(5, 4)), r"length is \(5, 4\): low is above high; write \(4, 5\)"),
    (dict(words_per_topic=None, topic_word=OVERLAPPING[:2]), r"topic_word has shape \(2, 5\); .* n_topics = 3"),
    (dict(words_per_topic=None, topic_word=OVERLAPPING[0]), r"topic_word has shape \(5,\)"),
    (dict(words_per_topic=None, topic_word=np.zeros((3, 0))), r"topic_word has shape \(3, 0\)"),
    (dict(words_per_topic=None, topic_word=-OVERLAPPING), "entries that are negative or not numbers"),
    (dict(words_per_topic=None, topic_word=OVERLAPPING * np.nan), "entries that are negative or not numbers"),
    (dict(words_per_topic=None, topic_word=OVERLAPPING * [[1], [2], [1]]), "row 1 of topic_word sums to 2; .* divide"),
])
def test_bad_models(change, message):
    with pytest.raises(ValueError, match=message):
        TopicModel(**(dict(n_topics=3, words_per_topic=2, tau=2) | change))


@pytest.mark.parametrize("bad", [0, 2.5, "many", True])
def test_bad_numbers_of_documents(bad):
    message = f"n_documents is {re.escape(repr(bad))}; it must be a whole number, at least 1"
    with pytest.raises(ValueError, match=message):
        MODELS["tau"].documents(bad)


@pytest.mark.parametrize("change, message", [
    (dict(p_m=0), "p_m is 0: no slot is ever chosen"),
    (dict(p_m=-0.1), "p_m is -0.1; it must be a probability, a number from 0 to 1"),
    (dict(p_m=1.1), "p_m is 1.1; it must be a probability"),
    (dict(p_m=True), "p_m is True; it must be a probability"),
    (dict(p_c=np.nan), "p_c is nan; it must be a probability"),
    (dict(p_r="all"), "p_r is 'all'; it must be a probability"),
    (dict(p_c=0.6, p_r=0.5), r"p_c \+ p_r is 1.1, above 1; .* lower one of them"),
    (dict(loss="mean"), "loss is 'mean'; it must be one of pooled, per_document"),
    (dict(head="hinge"), "head is 'hinge'; it must be one of cross_entropy, squared, log"),
    (dict(p_m=1e-12), "of the 400 slots of 20 documents none was chosen with p_m=1e-12; raise p_m, give more doc"),
])
def test_bad_masks(change, message):
    with pytest.raises(ValueError, match=message):
        mask_tokens(MODELS["tau"].documents(20), **change)


def test_masks_are_for_documents():
    with pytest.raises(TypeError, match=r"it must be of the type Documents; make one with Documents\(tokens"):
        mask_tokens(np.ones((2, 3), int))
