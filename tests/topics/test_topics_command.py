"""``minitx topics`` on documents of known topics: what it prints and writes, its options and mistakes."""

import json
from dataclasses import replace

import numpy as np
import pages
import pytest

import minitx
from minitx import cli, topics
from minitx.base import console, parallel, report
from minitx.base.options import read_options
from minitx.model.descent import Stopped
from minitx.topics import command_documents, command_documents_figures
from minitx.topics import training as topic_training

SMALL = ["--topics", "3", "--words", "2", "--length", "12", "--documents", "60", "--quick"]
STAGES = ("value", "embedding", "attention", "copying", "joint")
FILES = {*command_documents.FIGURES, "index.html", "results.json", *(f"weights-{stage}.npz" for stage in STAGES)}


STEPS_OF_A_USER = command_documents.Options.steps


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """A hundredth of a user's steps; tests that are about the steps take ``STEPS_OF_A_USER`` back."""
    monkeypatch.setattr(command_documents.Options, "steps", lambda options, full: max(12, round(full / 100)))


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments, out="out"):
        status = cli.main(["topics", *map(str, arguments), "--out", str(tmp_path / out)])
        captured = capsys.readouterr()
        path = tmp_path / out / "results.json"
        return status, captured.out, captured.err, json.loads(path.read_text()) if path.exists() else None

    return run


def test_a_run_prints_and_writes_everything(run, tmp_path):
    status, out, _, results = run(*SMALL, "--seeds", "3")
    assert status == 0
    for heading in ("stage 1a", "stage 1b", "stage 2 on infinite documents", "stage 2 after stage 1a",
                    "W_V, W_Q, W_K together",
                    "closed form, end of descent", "paper", "plateau", "recorded steps"):
        assert heading in out, heading
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert results["configuration"]["tau"] == 2
    assert results["environment"]["packages"]["numpy"] == np.__version__
    assert set(results["stages"]) == set(STAGES)
    assert len(results["stages"]["value"]["records"]) == 3
    best = topics.optimal_value(topics.TopicModel(3, 2, 12, tau=2))
    assert results["stages"]["value"]["closed"]["closed form, end of descent"]["same word"] == best.same_word
    assert f"{best.same_word:.5f}" in out
    pages.check(tmp_path / "out")
    pages.check_keys(results, command_documents.numbers)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<figcaption") == sum(name.endswith(".png") for name in FILES) + len(STAGES)  # and heat maps
    assert minitx.load(tmp_path / "out" / "weights-joint.npz").W_Q.shape == (7, 7)
    for name in STAGES:
        assert np.load(tmp_path / "out" / f"weights-{name}.npz")["kind of weights"] == "EmbeddedWeights"


@pytest.mark.usefixtures("without_figures")
def test_the_slider_moves_the_maps_of_the_weights(run, tmp_path):
    """The last map is that of the weights that are written; a word is its topic and its number in it."""
    *_, results = run(*SMALL, "--seeds", "1")
    words = [f"{topic}.{word}" for topic in (1, 2, 3) for word in (1, 2)]
    for name, stage in results["stages"].items():
        found, weights = stage["snapshots"], minitx.load(tmp_path / "out" / f"weights-{name}.npz")
        assert found["words"] == words
        assert len(found["trained"]) == len(stage["records"][0])
        if name == "embedding":
            last = (weights.W_E.T @ weights.W_E)[1:, 1:]
        elif name == "value":
            last = weights.circuits().ov.T[1:, 1:]
        else:  # attention in a document of all six words, beside 1/6
            mass = np.exp(weights.circuits().qk[1:, 1:])
            last = np.log2(6 * mass / mass.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(found["trained"][-1], last, rtol=1e-3, atol=1e-12)
    best = topics.optimal_value(topics.TopicModel(3, 2, 12, tau=2))
    assert results["stages"]["value"]["snapshots"]["predicted"][0][:3] == pytest.approx(
        [best.same_word, best.same_topic, best.different_topic], rel=1e-3)


def in_memory(**settings):
    """Options, numbers of the result, and what is printed, without writing."""
    small = {"topics": 3, "words": 2, "length": "12", "documents": 60, "quick": True, "seeds": 2}
    lines = []
    result = command_documents.train_stages(command_documents.Options(**{**small, **settings}), lines.append)
    return result, report.plain(command_documents.numbers(result)), "\n".join(lines)


@pytest.mark.parametrize("settings", [
    {"topics": 2, "words": 1, "tau": 1, "length": "2"},
    *(pytest.param(settings, marks=pytest.mark.slow) for settings in (
        {"alpha": 0.2, "length": "10-14"}, {"head": "cross_entropy", "tau": 1, "p_r": 0.0}, {"tau": 1},
        {"tau": 3}, {"head": "cross_entropy"}, {"loss": "per_document"},
        {"p_m": 0.3, "p_c": 0.5, "p_r": 0.2}, {"words": 1}, {"p_r": 0.0, "p_c": 0.0}, {"topics": 2, "p_c": 0.0},
        {"p_c": 1.0, "p_r": 0.0}, {"head": "cross_entropy", "words": 1})),
], ids=str)
def test_settings(settings):
    result, numbers, out = in_memory(**settings)
    assert result.stopped is None
    assert set(numbers["stages"]) == set(STAGES)
    assert ("infinite documents" in out) == (result.infinite is not None)
    assert command_documents_figures.figures(result)


def test_quick_lowers_what_was_not_typed(monkeypatch):
    monkeypatch.setattr(command_documents.Options, "steps", STEPS_OF_A_USER)
    options = read_options(command_documents.Options, {"quick": True, "documents": 500})
    assert (options.seeds, options.documents) == (1, 500)
    assert (options.steps(4000), options.steps(30)) == (400, 12)
    assert replace(options, quick=False).steps(4000) == 4000


@pytest.mark.usefixtures("without_figures")
def test_options_reach_the_run(run):
    status, _, _, results = run(*SMALL, "--seeds", "1", "--seed", "4", "--threads", "1", "--p-m", "0.3")
    assert status == 0
    assert [results["configuration"][name] for name in ("seeds", "seed", "threads", "p_m")] == [1, 4, 1, 0.3]
    assert results["asked"]["seed"] == 4 and "words" in results["asked"] and "tau" not in results["asked"]
    assert len(results["stages"]["value"]["records"]) == 1


def test_the_same_seed_gives_the_same_results_on_any_number_of_threads():
    found = []
    for n_threads in (1, 2):
        parallel.set_threads(n_threads)
        found.append(in_memory()[1])
    assert found[0]["stages"] == found[1]["stages"]
    assert found[0]["infinite"] == found[1]["infinite"]


def test_training_follows_the_closed_forms(monkeypatch):
    """With enough steps the value matrix is at its trajectory, and embeddings are at their plateau."""
    monkeypatch.setattr(command_documents.Options, "steps", lambda options, full: round(0.6 * full))
    options = command_documents.Options(topics=4, words=3, length="24", documents=2000)
    samples = [command_documents.Sample(options, seed) for seed in range(2)]
    value = command_documents._value(options, samples, {})
    embedding = command_documents._embedding(options, samples, {})
    for stage, label in ((value, next(iter(value.closed))), (embedding, "closed form, plateau")):
        found = stage.at_end()
        assert (found["same topic"] > found["different topic"]).all()
        for kind in ("same topic", "different topic"):
            assert np.mean(found[kind]) == pytest.approx(stage.closed[label][kind], abs=0.03)


@pytest.mark.parametrize(("arguments", "says"), [
    (["--tau", "11"], "--tau is 11"), (["--tau", "2", "--alpha", "0.1"], "--tau is 2 and --alpha is 0.1"),
    (["--topics", "0"], "topics is 0"), (["--topics", "1"], "--topics is 1"), (["--p-m", "1", "--p-c", "0"], "--p-m"),
    (["--topics", "3", "--tau", "3", "--p-c", "0"], "lower --p-m or --tau"),
    (["--words", "0"], "--words is 0"), (["--p-m", "1.5"], "--p-m is 1.5"), (["--p-m", "0"], "--p-m is 0"),
    (["--p-c", "0.7", "--p-r", "0.7"], "--p-c is 0.7"), (["--length", "1"], "--length is '1'"),
    (["--length", "many"], "--length is 'many'"), (["--length", "20-10"], "length"),
    (["--documents", "0"], "--documents is 0"),
    (["--seeds", "0"], "--seeds is 0"),
    (["--threshold", "0.5"], "--threshold is not for documents of known topics"),
    (["--documents", "1", "--length", "2", "--p-m", "0.001"], "none was chosen"),
])
def test_mistakes_are_said_in_one_line(run, arguments, says):
    status, out, err, _ = run(*arguments)
    assert status == 2
    assert err.startswith("minitx: error: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("name", ["W_V", *(pytest.param(name, marks=pytest.mark.slow) for name in ("E", "joint"))])
def test_a_stage_that_is_stopped_before_its_first_record(name, run, monkeypatch):
    def train(*arguments, at=None, **settings):
        return whole(*arguments, at=() if stopping else at, **settings)

    def one(self, stage, *arguments, **settings):
        nonlocal stopping
        stopping = stage == name and self.seed == 1
        found = original(self, stage, *arguments, **settings)
        if stopping:
            object.__setattr__(found.trajectory, "stopped", Stopped("diverged", 1, "step 1: the loss is nan"))
        return found

    stopping, whole, original = False, topic_training.train, command_documents.Sample.train
    monkeypatch.setattr(topic_training, "train", train)
    monkeypatch.setattr(command_documents.Sample, "train", one)
    status, out, _, results = run(*SMALL, "--seeds", "2")
    assert status == 1
    assert "stopped early: step 1" in out
    assert results["stopped"] == {"kind": "diverged", "step": 1, "message": "step 1: the loss is nan"}


@pytest.mark.usefixtures("without_figures")
def test_ctrl_c_writes_what_was_recorded(run, monkeypatch):
    def interrupted(self, name, *arguments, **settings):
        found = train(self, name, *arguments, **settings)
        if name == "attention":
            object.__setattr__(found.trajectory, "stopped", Stopped.interrupted(3))
        return found

    train = command_documents.Sample.train
    monkeypatch.setattr(command_documents.Sample, "train", interrupted)
    status, out, _, results = run(*SMALL)
    assert status == 130
    assert "stopped early: interrupted after step 3" in out
    assert set(results["stages"]) == {"value", "embedding", "attention"}
    assert len(results["stages"]["attention"]["records"]) == 1


def test_every_long_stage_says_how_long_it_takes(monkeypatch):
    """The stage on infinite documents too; here a stage is long when it takes any time."""
    monkeypatch.setattr(console, "LONG", -1.0)
    monkeypatch.setattr(console, "VERY_LONG", -1.0)
    _, _, printed = in_memory(documents=20, seeds=1)
    assert "training on infinite documents will take about" in printed
    assert printed.count("are quicker") >= 5
