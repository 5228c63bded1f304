"""``minitx topics TEXT``: planted topics, real stories, what is written, and mistakes that are said at the door."""

import json
import sys
from dataclasses import replace

import numpy as np
import pages
import pytest

import minitx
from minitx.base.command import run_command
from minitx.base.options import read_options
from minitx.topics import command_text, training
from minitx.topics.averages import attention_table
from minitx.topics.command_text import Options

WORDS = (("bread flour oven butter sugar yeast kitchen cake dough recipe".split(),
          "river boat anchor sail harbour wave captain island fish storm".split(),
          "planet star telescope comet galaxy orbit moon rocket astronomer gravity".split()))
SMALL = {"vocabulary": 60, "length": 20, "topics": 3, "permutations": 199, "width": 12, "attention_width": 12,
         "steps": 30, "attention_steps": 30, "batch_size": 60}


def study(text, **settings):
    """The result on ``text``, SMALL but for these settings."""
    return command_text.study(Options(text=str(text), **SMALL | settings), lambda line: None)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A text of 150 documents of 40 words, each of one topic, or of two; with stop words between."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(150):
        topics = rng.choice(3, 1 + (rng.random() < 0.3), replace=False)
        words = [rng.choice(["the", "and"]) if rng.random() < 0.2 else rng.choice(WORDS[rng.choice(topics)])
                 for _ in range(40)]
        lines.append(" ".join(words))
    path = tmp_path_factory.mktemp("planted") / "planted.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def done(planted, tmp_path_factory):
    """(result, folder): what a run found, and where it was written."""
    folder, found = tmp_path_factory.mktemp("out"), []
    study = command_text.study

    def keeping(*arguments):
        found.append(study(*arguments))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_text, "study", keeping)
        typed = {"text": str(planted), "out": str(folder), **SMALL}
        assert run_command(read_options(Options, typed), typed, command_text.run, command_text.FIGURES) == 0
    return found[0], folder


def test_planted_topics_are_found_and_learned(done):
    result, _ = done
    assert sorted(map(sorted, result.topics.words)) == sorted(map(sorted, WORDS))
    for name, test in result.tests.items():
        assert test.difference > 0, name
        assert test.p_value == 1 / 200, name
    losses = list(result.held_out_loss.values())
    assert losses[0] > losses[1] + 0.1
    for including, different_words, recorded in command_text.exceeded(result).values():
        assert including == recorded == 13
        assert different_words >= 11


def test_everything_is_written(done):
    result, folder = done
    files = [*command_text.FIGURES, "index.html", "weights.npz", "results.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    saved = json.loads((folder / "results.json").read_text())
    assert saved["configuration"]["width"] == SMALL["width"]
    keys = {"environment", "asked", "corpus", "vocabulary", "words left out", "held_out_loss", "stopped", "loss"}
    assert keys <= set(saved)
    assert [topic["words"] for topic in saved["topics"]] == result.topics.words
    steps = sorted({1, *(round(30 * k / 12) for k in range(1, 13))})
    assert [one["step"] for one in saved["records"]["attention"]] == steps
    assert saved["tests"]["attention by pair"]["p_value"] == result.tests["attention by pair"].p_value
    assert len(saved["tests"]["embedding cosines"]["null"]) == SMALL["permutations"]
    weights = minitx.load(folder / "weights.npz")
    assert np.load(folder / "weights.npz")["kind of weights"] == "EmbeddedWeights"
    assert set(weights.parameters()) == {"W_E", "W_Q", "W_K", "b"}
    pages.check(folder)
    page = (folder / "index.html").read_text()
    assert "attention by pair" in page


def test_by_pair_is_the_mean_of_each_pair_that_meets(done):
    result, _ = done
    found, pairs = attention_table(result.last.weights, result.held_out), result.tables["attention by pair"]
    assert (pairs.count == (found.count > 0)).all()
    np.testing.assert_allclose(pairs.total * found.count, found.total, rtol=1e-12)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(planted):
    short = Options(text=str(planted), **SMALL | {"steps": 3, "attention_steps": 2, "permutations": 5})
    first, again, other = (command_text.study(options, lambda line: None)
                           for options in (short, short, replace(short, seed=1)))
    for name, array in first.last.weights.parameters().items():
        assert (array == getattr(again.last.weights, name)).all()
    assert (first.tests["attention"].null == again.tests["attention"].null).all()
    assert (first.last.weights.W_E != other.last.weights.W_E).any()


def test_without_attention_when_the_first_stage_diverges(planted):
    outcome = command_text.run(Options(text=str(planted), **SMALL | {"learning_rate": 1e25}), lambda line: None)
    assert outcome.stopped.kind == "diverged"
    assert "attention" not in outcome.results["averages"]
    assert not {"attention.png", "attention_training.png"} & set(outcome.figures)


def test_ctrl_c_keeps_what_was_recorded(planted, monkeypatch):
    train = training.train

    def interrupted(*arguments, progress, **settings):
        def stop(step):
            if step == 20:
                raise KeyboardInterrupt
        return train(*arguments, progress=stop, **settings)

    monkeypatch.setattr(training, "train", interrupted)
    outcome = command_text.run(Options(text=str(planted), **SMALL), lambda line: None)
    assert (outcome.stopped.kind, outcome.stopped.step) == ("interrupted", 20)
    assert [one.step for one in outcome.results["records"]["embeddings"]] == [1, 2, 5, 8, 10, 12, 15, 18, 20]


@pytest.mark.parametrize(("settings", "message"), [
    ({"topics": 1}, "--topics is 1"), ({"p_c": 0.6, "p_r": 0.6}, "--p-c is 0.6 and --p-r 0.6; together"),
    ({"threshold": 0.0}, "above 0"),
    ({"p_m": 0.0}, "--p-m is 0"), ({"threshold": 1.5}, "--threshold is 1.5"),
    ({"learning_rate": -1.0}, "--learning-rate"), ({"dtype": "int8"}, "--dtype"), ({"text": ""}, "empty"),
    ({"windows": 0}, "--windows"), ({"seed": -1}, "--seed")])
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Options(**{"text": "a.txt"} | settings)


def test_quick_is_small():
    options = read_options(Options, {"text": "a.txt", "quick": True, "steps": 90})
    assert (options.steps, options.windows, options.topics, options.vocabulary) == (90, 300, 5, 300)
    options = read_options(Options, {"text": "a.txt"})
    assert (options.steps, options.windows, options.topics, options.vocabulary) == (800, None, 10, 800)


def test_a_text_that_is_too_short(planted):
    with pytest.raises(ValueError, match="9 windows of 20 tokens.*smaller --length"):
        study(planted, windows=9)


def test_no_two_topics_with_words(planted):
    with pytest.raises(ValueError, match="lower --threshold, or change --topics"):
        study(planted, threshold=1.0)


def test_words_that_never_meet_in_held_out_documents(planted):
    with pytest.raises(ValueError, match="held-out documents words of one topic meet"):
        study(planted, windows=10, length=2, topics=2)


def test_scikit_learn_missing_is_said_before_the_text_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"pip install 'minitx\[topics\]'"):
        study("no such file.txt")


@pytest.mark.slow
def test_real_stories(tinystories):
    """After few steps words of one topic have similar embeddings and attend to each other, more than by chance."""
    pytest.importorskip("sklearn")
    options = Options(text=str(tinystories), length=64, steps=300, attention_steps=40)
    result = command_text.study(options, lambda line: None)
    losses = list(result.held_out_loss.values())
    assert losses[0] > losses[1] + 0.03
    assert losses[1] > losses[2] + 0.03
    for name, test in result.tests.items():
        assert test.difference > 0, name
    for name in ("embedding products", "embedding cosines", "attention by pair"):
        assert result.tests[name].p_value <= 0.01, name
