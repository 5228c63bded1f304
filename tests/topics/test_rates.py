"""The rates of ``minitx topics``: no setting that its options allow makes training unstable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx import cli
from minitx.base.console import rise
from minitx.model.descent import descend
from minitx.model.weights import EmbeddedWeights
from minitx.topics import attention, command_documents, command_documents_figures, training
from minitx.topics.backtracking import Backtracking
from minitx.topics.law import TopicModel
from minitx.topics.values import paper_value

FEW = {"length": "12", "documents": 60, "seeds": 1}


@st.composite
def documents(draw):
    """Options of ``minitx topics`` for small documents of known topics, with a closed form of attention."""
    topics = draw(st.integers(2, 7))
    p_c = draw(st.floats(0.01, 0.6))
    return command_documents.Options(
        topics=topics, words=draw(st.integers(1, 4)), tau=draw(st.integers(1, topics - 1)),
        p_m=draw(st.floats(0.05, 0.9)), p_c=p_c, p_r=draw(st.floats(0, 1 - p_c)), seed=draw(st.integers(0, 3)), **FEW)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(documents())
def test_loss_of_attention_on_infinite_documents_never_rises(options):
    """Rounding of the loss is all that is allowed."""
    options.__dict__["steps"] = lambda full: 150
    stage = command_documents._infinite(options, [command_documents.Sample(options, 0)], {})
    rises = np.diff(stage.loss) / stage.loss[:-1]
    assert len(stage.loss) == 151
    assert rises.max() < 1e-13
    end = stage.path[-1]
    assert np.isfinite(list(end.values())).all()
    assert end["loss"] >= stage.predicted.loss - 1e-12


@pytest.mark.parametrize(("words", "topics"), [(2, 10), *(
    pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 10), (2, 12)))])
def test_few_words_a_topic_end_near_the_closed_form(words, topics, monkeypatch):
    """A rate of 30 times the number of words would end with a rho of 250 digits for two words a topic."""
    monkeypatch.setattr(command_documents.Options, "steps", lambda self, full: round(full / 5))
    monkeypatch.setattr(command_documents, "MOST_PAIRS", 10**6)
    options = command_documents.Options(words=words, topics=topics, tau=2, **FEW)
    stage = command_documents._infinite(options, [command_documents.Sample(options, 0)], {})
    assert np.diff(stage.loss).max() < 1e-13
    assert 1 < stage.path[-1]["rho"] < 1.2 * stage.predicted.rho


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(documents())
def test_every_stage_ends_lower_than_it_began(options):
    """This holds for mini-batches as well, up to their noise."""
    options.__dict__["steps"] = lambda full: 100
    samples = [command_documents.Sample(options, options.seed)]
    stages = {}
    for train in (command_documents._value, command_documents._embedding, command_documents._attention,
                  command_documents._copying, command_documents._joint):
        stage = train(options, samples, stages)
        stages[stage.name] = stage
        assert rise(stage.runs[0].trajectory.loss, mini_batches=True) is None, stage.title
        assert stage.stopped is None


def test_a_rate_is_halved_only_as_often_as_needed():
    """The rate that is kept would have been enough from the start; a small one is left as it is, bit for bit."""
    law = command_documents.Options(topics=3, words=2, **FEW).law
    law = command_documents._infinitely_long(law)
    batch = attention.infinite_documents(law)
    start = EmbeddedWeights.gaussian(law.V, W_V=0.0, W_QK=0.05, rng=0)
    start = type(start)(**{**start.parameters(), "W_V": paper_value(law).matrix(law)})
    large, small = Backtracking(1e4, frozen=("W_V",)), Backtracking(1.0, frozen=("W_V",))
    run = descend(start, batch, learning_rate=1e4, steps=40, frozen=("W_V",), loss_and_gradient=large)
    assert large.rate < 1e4
    assert np.log2(1e4 / large.rate) % 1 == 0
    assert np.diff(run.loss).max() <= 1e-13
    plain = descend(start, batch, learning_rate=1.0, steps=40, frozen=("W_V",))
    same = descend(start, batch, learning_rate=1.0, steps=40, frozen=("W_V",), loss_and_gradient=small)
    assert small.rate == 1.0
    assert np.array_equal(plain.loss, same.loss)
    assert np.array_equal(plain.weights.W_Q, same.weights.W_Q)


def test_a_rise_is_told_from_noise():
    noise = np.random.default_rng(0).normal(size=400)
    assert rise(noise, mini_batches=True) is None
    assert rise([2.0, 1.0]) is None
    assert "rose from 1 to 2" in rise([1.0, 3.0, 2.0])
    assert rise(np.linspace(1, 2, 100), mini_batches=True) == (
        "the loss rose from 1.045 to 1.955: the learning rate is too large")
    assert rise(np.array([1.0])) is None
    assert "not finite" in rise(np.array([1.0, np.nan]))


def test_the_command_says_that_a_loss_rose(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command_documents.Options, "steps", lambda self, full: 12)
    monkeypatch.setattr(command_documents, "rise", lambda losses, mini_batches: "the loss rose, as this test wants")
    arguments = ["topics", "--topics", "3", "--words", "2", "--length", "12", "--documents", "60", "--seeds", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("the loss rose, as this test wants") == 6


@pytest.mark.drawn
def test_a_figure_holds_all_of_the_path_and_the_cross():
    """A path that went far beyond the best ratio is inside the frame too."""
    law = command_documents._infinitely_long(command_documents.Options(topics=3, words=2, **FEW).law)
    path = [{"alpha": 1.0, "beta": 1.0, "rho": 1.0}, {"alpha": 1e-3, "beta": 5e3, "rho": 2.5e3}]
    drawn = command_documents_figures._attention_loss(path, law)
    surface = drawn["attention_loss.png"][0].axes[0]
    assert surface.get_xlim()[0] < 1e-3
    assert surface.get_ylim()[1] > 5e3
    assert drawn["attention_ratio.png"][0].axes[0].get_xlim()[1] > 2.5e3


def test_what_cannot_be_compared_is_said_and_not_counted():
    """With two topics a document has one, and its words never meet those of the other."""
    options = command_documents.Options(topics=2, words=2, length="12", documents=60, seeds=1)
    options.__dict__["steps"] = lambda full: 12
    stage = command_documents._attention(options, [command_documents.Sample(options, 0)], {})
    said = f"{stage.printed()}\n{stage.compared()}"
    assert "cannot be compared: no two words of different topics meet" in said
    assert "0 of" not in said
    assert "nan" not in said
    options = command_documents.Options(topics=3, words=1, length="12", documents=60, seeds=1)
    options.__dict__["steps"] = lambda full: 12
    said = command_documents._value(options, [command_documents.Sample(options, 0)], {}).compared()
    assert "no topic has two different words" in said


def test_why_nothing_can_be_compared_is_said_once_in_a_run():
    """Three stages of two topics have no pairs of different topics."""
    options = command_documents.Options(topics=2, words=2, length="12", documents=60, seeds=1)
    options.__dict__["steps"] = lambda full: 12
    said = []
    command_documents.train_stages(options, said.append)
    assert "\n".join(said).count("cannot be compared") == 1
    assert "\n".join(said).count("undefined") >= 3


def test_a_count_of_recorded_steps_says_that_training_ended_early():
    """After Ctrl-C nothing says "0 of 1 recorded steps", which would read as if the theory had failed."""
    law = TopicModel(3, 2, 12, tau=2)
    documents = law.documents(20, rng=0)

    def stop(step):
        if step == 2:
            raise KeyboardInterrupt

    run = training.train(EmbeddedWeights.gaussian(law.V, W_V=0.1, W_QK=0.1, rng=0),
                         law.mask(documents, head="squared", rng=0), topics=law.topic_of_token, documents=documents,
                         learning_rate=0.1, steps=20, at=[1], progress=stop)
    said = training.comparison([run], "attention")
    assert "of 1 recorded step (training ended early: interrupted after step 2)" in said
