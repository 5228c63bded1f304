"""When parts of the weights move, and how far pairs of a class differ: loops, and movements that are known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import Adam, EmbeddedWeights, topics
from minitx.topics import TopicModel, pair_averages, pair_spread, training
from minitx.topics.averages import PairTable
from minitx.topics.two_stages import MovementRecorder


@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.integers(1, 3))
def test_the_spread_is_that_of_loops_over_pairs(seed, n_topics, n_words):
    rng = np.random.default_rng(seed)
    topic = rng.permutation(np.append(-1, np.repeat(np.arange(n_topics), n_words)))
    count = rng.integers(0, 4, (len(topic),) * 2).astype(float)
    total = count * rng.standard_normal(count.shape)
    classes = {"same_word": [], "same_topic": [], "different_topic": []}
    for i in range(len(topic)):
        for j in range(len(topic)):
            if count[i, j] and topic[i] >= 0 and topic[j] >= 0:
                name = "same_word" if i == j else "same_topic" if topic[i] == topic[j] else "different_topic"
                classes[name] += [total[i, j] / count[i, j]] * int(count[i, j])
    found = pair_spread(PairTable(total, count), topic)
    for name, values in classes.items():
        assert getattr(found, name) == pytest.approx(np.std(values) if values else math.nan, abs=1e-12, nan_ok=True)
    everything = np.concatenate(list(classes.values()))
    if len(everything) > 1 and np.ptp(everything) > 1e-6:
        within = sum(np.var(values) * len(values) for values in classes.values() if values)
        assert found.between == pytest.approx(1 - within / (np.var(everything) * len(everything)), abs=1e-9)


def test_the_class_says_everything_about_a_block_matrix_and_nothing_about_a_constant():
    topic = np.repeat([0, 1, 2], 3)
    blocks = np.where(topic[:, None] == topic, 2.0, 0.5) + 4 * np.eye(9)
    spread = pair_spread(blocks, topic)
    assert (spread.same_word, spread.same_topic, spread.different_topic, spread.between) == pytest.approx((0, 0, 0, 1))
    assert math.isnan(pair_spread(np.full((9, 9), 0.7), topic).between)


def movement(value, query, key):
    """The movement of W_V = value(s), W_Q = query(s), W_K = key(s) at steps 0 to 100, all multiples of one matrix."""
    recorder, shape = MovementRecorder(), np.ones((3, 3))
    for step in range(101):
        s = step / 100
        recorder(step, 0.0, EmbeddedWeights(W_V=value(s) * shape, W_Q=5 + query(s) * shape, W_K=key(s) * shape - 2))
    return recorder.movement


def test_movements_that_are_known():
    alike = movement(*[lambda s: s] * 3)
    assert alike.lead == pytest.approx(0.1, abs=0.011)  # rounding decides whether step 10 or 11 is the first
    assert {round(alike.begins()[name]["50%"], -1) for name in ("W_V", "W_Q", "W_K")} == {50}
    np.testing.assert_allclose(alike.distance["W_Q"], 3 * np.linspace(0, 1, 101), atol=1e-12)
    np.testing.assert_allclose(alike.norm["W_Q"], 3 * (5 + np.linspace(0, 1, 101)))
    stages = movement(lambda s: min(1, 2 * s), *[lambda s: max(0, 2 * s - 1)] * 2)
    assert stages.lead == 1
    assert stages.begins()["W_K"] in ({"1%": 51, "10%": at, "50%": 75} for at in (55, 56))
    still = movement(lambda s: s, *[lambda s: 0.0] * 2)
    assert math.isnan(still.lead)
    assert still.begins()["W_Q"] == {"1%": None, "10%": None, "50%": None}


def trained(**settings):
    law = TopicModel(4, 3, 24, tau=2)
    start = EmbeddedWeights.gaussian(law.V, W_V=0.0, W_QK=0.05, rng=0)
    return training.train(start, law.mask(law.documents(300)), topics=law.topic_of_token,
                          documents=law.documents(60, rng=1), batch_size=100, rng=0, **settings)


def test_training_measures_both_on_held_out_documents():
    run = trained(learning_rate=4.0, steps=60)
    assert run.movement.steps.tolist() == list(range(61))
    assert run.movement.lead > 0.3  # gradient descent moves W_V first
    for record in run.records:
        assert 0 <= record.attention_spread.between <= 1
    step, last = run.movement.begins()["W_V"]["50%"], run.movement.distance["W_V"]
    assert last[step] >= last[-1] / 2 > last[step - 1]
    table = topics.attention_table(run.weights, TopicModel(4, 3, 24, tau=2).documents(60, rng=1))
    topic = TopicModel(4, 3, 24, tau=2).topic_of_token
    assert run.records[-1].attention_spread == pair_spread(table, topic)
    assert run.records[-1].attention == pair_averages(table, topic)


def test_adam_moves_all_parts_at_once():
    """Its steps have the same size whatever the gradient is, so that the two stages are those of gradient descent."""
    run = trained(learning_rate=0.01, steps=60, optimiser=Adam())
    assert run.trajectory.optimiser.steps == 60
    assert run.movement.lead < 0.3
    with pytest.raises(ValueError, match="backtracking is for gradient descent"):
        trained(learning_rate=0.01, steps=2, optimiser=Adam(), backtracking=True)


def test_the_movement_of_a_run_that_goes_on_is_that_of_the_whole(tmp_path):
    def movement(run):
        return [run.movement.steps.tolist(), *(list(map(list, part.values()))
                                               for part in (run.movement.distance, run.movement.norm))]

    whole = trained(learning_rate=4.0, steps=6, at=(2, 6))
    trained(learning_rate=4.0, steps=3, at=(2,), checkpoint=tmp_path / "run.npz")
    going_on = trained(learning_rate=4.0, steps=6, at=(2, 6), checkpoint=tmp_path / "run.npz")
    assert movement(going_on) == movement(whole)
    assert going_on.records == whole.records
