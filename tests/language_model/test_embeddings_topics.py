"""``minitx topics TEXT --embeddings MODEL``: planted topics are found in planted embeddings, and attention by loops."""

import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from minitx import cli
from minitx.base import report
from minitx.data.tokenizers import FileTokenizer
from minitx.language_model import read_model, topics_command
from minitx.language_model.topics_command import attention_tables, embedding_tables, whole_token

for name in ("safetensors", "tokenizers", "sklearn"):
    pytest.importorskip(name, reason="topics in language models need: pip install 'minitx[llm,topics]'")
import tokenizers  # noqa: E402

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
WORDS = ("bread flour oven butter sugar yeast".split(), "river boat anchor sail harbour wave".split(),
         "planet star telescope comet galaxy orbit".split())


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with a text whose documents are of one topic or two, and a model that knows all words but "orbit"."""
    folder, draw = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    lines = [" ".join(draw.choice(WORDS[k % 3] + WORDS[k * k % 3] * (k % 5 == 0), 20)) for k in range(90)]
    (folder / "text.txt").write_text("\n".join(lines))
    shutil.copytree(CHECKPOINTS / "llama", folder / "model")
    ids = {word: i for i, word in enumerate(["<unk>", *sum(WORDS, [])[:-1]])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "model" / "tokenizer.json"))
    return folder


def test_the_command_prints_and_writes_everything(planted, tmp_path, capsys, monkeypatch):
    """The embeddings of a topic are given a common part, which the table then shows."""
    centres, read = np.random.default_rng(1).normal(size=(3, 32)), read_model

    def with_topics(folder):
        model = read(folder)
        inner = model.embedding
        object.__setattr__(model, "embedding", lambda ids: inner(ids) * 0.5 + centres[(np.asarray(ids) - 1) // 6 % 3])
        return model

    monkeypatch.setattr(topics_command, "read_model", with_topics)
    status = cli.main(["topics", str(planted / "text.txt"), "--embeddings", str(planted / "model"), "--topics", "3",
                       "--length", "20", "--permutations", "99", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert status == 0 and "17 of these 18 words are whole tokens" in out and "attention, layer 1" in out
    assert {path.name for path in tmp_path.iterdir()} == {"permutations.png", "index.html", "results.json"}
    results = json.loads((tmp_path / "results.json").read_text())
    assert sorted(map(len, results["words"].values())) == [5, 6, 6]
    assert results["tests"]["cosines, mean token removed"]["p_value"] == 0.01
    assert results["averages"]["embedding cosines"]["same_word"] == pytest.approx(1)
    accounts = " ".join(inspect.getdoc(maker) for maker in (topics_command.run, report.write_json))
    assert not results.keys() - set(re.findall(r"``([^`]+)``", accounts))


def test_attention_between_words_is_that_of_loops(planted):
    model, ids = read_model(planted / "model"), [3, 5, 9]
    windows = np.random.default_rng(0).choice([3, 5, 9, 20], (4, 7))
    tables = attention_tables(model, ids, windows, lambda: None)
    for state, found in zip(model.states(windows), tables.values(), strict=True):
        total, count = np.zeros((3, 3)), np.zeros((3, 3))
        for row, heads in zip(windows, state.pattern, strict=True):
            for t, query in enumerate(row):
                for j, key in enumerate(row[:t + 1]):
                    if query in ids and key in ids:
                        total[ids.index(query), ids.index(key)] += (t + 1) * np.mean([head[t, j] for head in heads])
                        count[ids.index(query), ids.index(key)] += 1
        np.testing.assert_allclose(found.total, total, rtol=1e-6)
        np.testing.assert_array_equal(found.count, count)


def test_a_common_vector_is_taken_from_the_cosines(planted):
    model = read_model(planted / "model")
    inner = model.embedding
    object.__setattr__(model, "embedding", lambda ids: inner(ids) + 100)
    found = embedding_tables(model, [1, 2, 3, 4])
    assert found["embedding cosines"].total.min() > 0.99 and found["cosines, mean token removed"].total.min() < 0


def test_whole_tokens_are_words_with_their_space():
    vocab = {"<unk>": 0, "▁fish": 1, "bird": 2, "▁": 3}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    inner.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    inner.decoder = tokenizers.decoders.Replace("▁", " ")
    tokenizer = FileTokenizer(inner)
    assert [whole_token(tokenizer, word) for word in ("fish", "bird", "cat")] == [1, 2, None]
