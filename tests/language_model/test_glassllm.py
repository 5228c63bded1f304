"""Trained models, of the package glassllm: as checkpoints of a Llama they compute what that package computes."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from minitx.language_model import read_model, read_tokenizer

for name in ("glassllm", "safetensors", "tokenizers"):
    pytest.importorskip(name, reason="trained models need: pip install 'minitx[llm]' glassllm")

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TEXTS = {"en": "Alice was beginning to get very tired of sitting by her sister on the bank,\nand of having no book.",
         "pt": "Capitu olhou para mim, e eu não disse nada. Era uma tarde de novembro,\nnunca me esqueceu."}


@pytest.mark.parametrize("language", TEXTS)
def test_tokens_logits_and_loss_are_those_of_the_package(language, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    theirs, words = importlib.import_module("language_model").checkpoint(language, tmp_path)
    ours, text = read_model(tmp_path), TEXTS[language]
    ids = read_tokenizer(tmp_path).encode(text)
    assert ids.tolist() == words.encode(text) and len(ids) > 20
    *_, last = ours.states(ids[None, :-1])
    expected = theirs.forward(ids[None, :-1]).data
    np.testing.assert_allclose(ours.logits(last.after), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert ours.loss(ids[None]) == pytest.approx(float(theirs.loss(ids[None, :-1], ids[None, 1:]).data), abs=1e-5)
    assert ours.loss(ids[None]) < 5 < np.log(1024)  # it knows the language
