"""The text half of ``minitx topics``: planted topics, real stories, what is written, and mistakes that are said at the door."""

import json
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from minitx.model.weights import EmbeddedWeights
from minitx.topics import command_text, command_text_figures, training
from minitx.topics.averages import attention_table
from minitx.topics.command_text import HELP, Options

WORDS = (("bread flour oven butter sugar yeast kitchen cake dough recipe".split(),
          "river boat anchor sail harbour wave captain island fish storm".split(),
          "planet star telescope comet galaxy orbit moon rocket astronomer gravity".split()))
SMALL = {"vocabulary": 60, "length": 20, "topics": 3, "permutations": 199, "width": 12, "attention_width": 12, "steps": 30,
         "attention_steps": 30, "batch_size": 60, "maskings": 2}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A text of 150 documents of 40 words, each of one topic, or of two; with stop words between."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(150):
        topics = rng.choice(3, 1 + (rng.random() < 0.3), replace=False)
        words = [rng.choice(["the", "and"]) if rng.random() < 0.2 else rng.choice(WORDS[rng.choice(topics)]) for _ in range(40)]
        lines.append(" ".join(words))
    path = tmp_path_factory.mktemp("planted") / "planted.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def done(planted, tmp_path_factory):
    """(result, folder, names of files, printed lines)."""
    folder, printed = tmp_path_factory.mktemp("out"), []
    result = command_text.run(Options(str(planted), **SMALL), printed.append)
    return result, folder, command_text.write(result, folder, printed), printed


def test_planted_topics_are_found_and_learned(done):
    result, *_ = done
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
    result, folder, files, printed = done
    assert sorted(files) == sorted([*command_text_figures.NAMES, "report.html", "weights.npz", "results.json"])
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    saved = json.loads((folder / "results.json").read_text())
    assert saved["configuration"]["maskings"] == SMALL["maskings"]
    assert {"environment", "corpus", "vocabulary", "words left out", "held_out_loss", "stopped", "loss"} <= set(saved)
    assert [topic["words"] for topic in saved["topics"]] == result.topics.words
    assert [one["step"] for one in saved["records"]["attention"]] == sorted({1, *(round(30 * k / 12) for k in range(1, 13))})
    assert saved["tests"]["attention by pair"]["p_value"] == result.tests["attention by pair"].p_value
    assert len(saved["tests"]["embedding cosines"]["null"]) == SMALL["permutations"]
    weights = EmbeddedWeights.load(folder / "weights.npz")
    assert set(weights.parameters()) == {"W_E", "W_Q", "W_K", "b"}
    text = "\n".join(printed)
    assert "left out: 1 no words, or rare (<unk>), 2 stop words" in text
    assert "attention by pair" in (folder / "report.html").read_text()


def test_by_pair_is_the_mean_of_each_pair_that_meets(done):
    result, *_ = done
    found, pairs = attention_table(result.weights, result.held_out), result.tables["attention by pair"]
    assert (pairs.count == (found.count > 0)).all()
    np.testing.assert_allclose(pairs.total * found.count, found.total, rtol=1e-12)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(planted):
    short = Options(str(planted), **SMALL | {"steps": 3, "attention_steps": 2, "permutations": 5})
    first, again, other = (command_text.run(options, lambda line: None) for options in (short, short, replace(short, seed=1)))
    for name, array in first.weights.parameters().items():
        assert (array == getattr(again.weights, name)).all()
    assert (first.tests["attention"].null == again.tests["attention"].null).all()
    assert (first.weights.W_E != other.weights.W_E).any()


def test_without_attention_when_the_first_stage_diverges(planted, tmp_path):
    result = command_text.run(Options(str(planted), **SMALL | {"learning_rate": 1e25}), lambda line: None)
    assert result.stopped.kind == "diverged"
    assert "attention" not in result.tables
    assert not {"attention.png", "attention_training.png"} & set(command_text.write(result, tmp_path, []))


def test_ctrl_c_keeps_what_was_recorded(planted, tmp_path, monkeypatch):
    train = training.train

    def interrupted(*arguments, progress, **settings):
        def stop(step):
            if step == 20:
                raise KeyboardInterrupt
        return train(*arguments, progress=stop, **settings)

    monkeypatch.setattr(training, "train", interrupted)
    result = command_text.run(Options(str(planted), **SMALL), lambda line: None)
    assert (result.stopped.kind, result.stopped.step) == ("interrupted", 20)
    assert [one.step for one in result.stages["embeddings"].records] == [1, 2, 5, 8, 10, 12, 15, 18, 20]
    assert "results.json" in command_text.write(result, tmp_path, [])


def test_every_option_has_a_help_text():
    assert list(HELP) == [field.name for field in fields(Options) if field.init]


@pytest.mark.parametrize(("settings", "message"), [
    ({"topics": 1}, "--topics is 1"), ({"p_c": 0.6, "p_r": 0.6}, "at most 1"), ({"threshold": 0.0}, "above 0"),
    ({"learning_rate": -1.0}, "--learning-rate"), ({"dtype": "int8"}, "--dtype"), ({"text": ""}, "empty"),
    ({"windows": 0}, "--windows"), ({"topic_seed": -1}, "--topic-seed")])
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Options(**{"text": "a.txt"} | settings)


def test_quick_is_small():
    options = Options("a.txt", quick=True, steps=7)
    assert (options.steps, options.windows, options.topics) == (7, 300, 5)
    assert "steps" not in options.asked
    assert {name: options.asked[name] for name in ("windows", "topics", "vocabulary")} == {
        "windows": None, "topics": 10, "vocabulary": 800}
    assert Options("a.txt").asked == {}


def test_a_text_that_is_too_short(planted):
    with pytest.raises(ValueError, match="9 windows of 20 tokens.*smaller --length"):
        command_text.run(Options(str(planted), **SMALL | {"windows": 9}), lambda line: None)


def test_no_two_topics_with_words(planted):
    with pytest.raises(ValueError, match="lower --threshold, or change --topics"):
        command_text.run(Options(str(planted), **SMALL | {"min_words": 40}), lambda line: None)


def test_words_that_never_meet_in_held_out_documents(planted):
    with pytest.raises(ValueError, match="held-out documents words of one topic meet"):
        command_text.run(Options(str(planted), **SMALL | {"windows": 10, "length": 2, "topics": 2}), lambda line: None)


def test_scikit_learn_missing_is_said_before_the_text_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"pip install 'minitx\[topics\]'"):
        command_text.run(Options("no such file.txt"), lambda line: None)


@pytest.mark.slow
def test_real_stories(tinystories):
    """Shorter documents, fewer steps: words of one topic have embeddings alike, and attend to each other, more than by chance."""
    pytest.importorskip("sklearn")
    result = command_text.run(Options(str(tinystories), length=64, steps=300, attention_steps=40), lambda line: None)
    losses = list(result.held_out_loss.values())
    assert losses[0] > losses[1] + 0.03
    assert losses[1] > losses[2] + 0.03
    for name, test in result.tests.items():
        assert test.difference > 0, name
    for name in ("embedding products", "embedding cosines", "attention by pair"):
        assert result.tests[name].p_value <= 0.01, name
