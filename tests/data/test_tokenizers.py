"""Tokenizers: ids and text and back, without invented tokens; byte pairs as a corpus and on the command line."""

import json
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import cli
from minitx.data.corpus import load_corpus
from minitx.data.tokenizers import FileTokenizer, WordTokenizer

TEXTS = ["The cat sat on the mat.", "The dog sat on the cat!", "A cat, a dog; a mat."] * 4
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def trained():
    pytest.importorskip("tokenizers", reason="tokenizers of files need the extra: pip install 'minitx[bpe]'")
    return FileTokenizer.train(iter(TEXTS), n_vocab=270)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.mark.parametrize(("vocabulary", "ids"), [(("<unk>", "the", "cat"), [1, 2, 0, 1, 0]),
                                                 (("the", "cat"), [0, 1, -1, 0, -1])])
def test_words(vocabulary, ids):
    tokenizer = WordTokenizer(vocabulary)
    found = tokenizer.encode("The CAT saw the dog")
    assert found.dtype == np.int32 and found.tolist() == ids
    assert tokenizer.unknown == ("<unk>" if len(vocabulary) == 3 else "")
    assert tokenizer.decode([i for i in ids if i >= 0]).split()[:2] == ["the", "cat"]
    assert pickle.loads(pickle.dumps(tokenizer)).encode("the").tolist() == ids[:1]


@given(any_text)
def test_bytes_decode_to_the_text_itself_without_a_token_at_its_ends(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text and len(ids) <= len(text.encode())
    both = trained.encode("cat" + "\n" + text)  # a line end is a token of its own, unless more white space follows
    if text[:1].strip():
        np.testing.assert_array_equal(both, [*trained.encode("cat\n"), *ids])


def test_a_trained_file_is_read_again(trained, tmp_path):
    assert len(trained.vocabulary) == len(set(trained.vocabulary)) == 270
    assert "Ġcat" in trained.vocabulary and trained.unknown == ""
    trained.save(tmp_path / "tok.json")
    again = FileTokenizer.train(TEXTS, n_vocab=270)
    for other in (FileTokenizer.read(tmp_path / "tok.json"), pickle.loads(pickle.dumps(trained)), again):
        assert other.vocabulary == trained.vocabulary
        np.testing.assert_array_equal(other.encode(TEXTS[0]), trained.encode(TEXTS[0]))


def test_what_a_file_says_about_padding_truncation_and_special_tokens_is_left_out(trained, tmp_path):
    from tokenizers import processors

    trained.save(tmp_path / "tok.json")
    changed = FileTokenizer.read(tmp_path / "tok.json").inner
    changed.add_special_tokens(["<s>"])
    changed.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 270)])
    changed.enable_padding(length=50)
    changed.enable_truncation(3)
    changed.save(str(tmp_path / "tok.json"))
    read = FileTokenizer.read(tmp_path / "tok.json")
    np.testing.assert_array_equal(read.encode(TEXTS[0]), trained.encode(TEXTS[0]))
    assert read.vocabulary == (*trained.vocabulary, "<s>")


def test_a_token_for_unknown_words_is_counted_as_such(text):
    package = pytest.importorskip("tokenizers")
    inner = package.Tokenizer(package.models.WordLevel({"[UNK]": 0, "cat": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = package.pre_tokenizers.Whitespace()
    tokenizer = FileTokenizer(inner)
    assert tokenizer.vocabulary == ("[UNK]", "<id 1>", "<id 2>", "cat") and tokenizer.unknown == "[UNK]"
    text.write_text("cat dog\ncat cat", encoding="utf-8")
    corpus = load_corpus(text, tokenizer=tokenizer, length=1, layout="lines")
    assert corpus.tokens.tolist() == [[3, 0], [3, 3]] and corpus.n_covered == 3
    assert "read as [UNK]" in corpus.summary()


def test_a_corpus_of_byte_pairs(trained, text):
    corpus = load_corpus(text, tokenizer=trained, length=4, layout="lines")
    ids = [trained.encode(line).tolist() for line in TEXTS]
    expected = [row[i : i + 5] for row in ids for i in range(0, len(row) - 4, 4)]
    assert corpus.tokens.tolist() == expected and corpus.vocabulary == trained.vocabulary
    assert (corpus.n_words, corpus.n_covered) == (sum(map(len, ids)),) * 2
    assert "other words there are none" in corpus.summary()
    with pytest.raises(ValueError, match="give either n_vocab, .* or a tokenizer"):
        load_corpus(text, tokenizer=trained, n_vocab=9, length=4)
    with pytest.raises(ValueError, match="no window of 99"):
        load_corpus(text, tokenizer=trained, length=99)


def test_the_command_trains_and_associate_reads(trained, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tokenizer", str(text), "--vocabulary", "270", "--out", "tok.json"]) == 0
    assert "written tok.json: 270 tokens;" in capsys.readouterr().out
    assert FileTokenizer.read("tok.json").vocabulary == trained.vocabulary
    small = ["--length", "4", "--steps", "2", "--words", "Ġcat,Ġzebra"]
    assert cli.main(["associate", str(text), "--tokenizer", "tok.json", "--out", "a", *small]) == 0
    assert "so their associates are not listed: Ġzebra" in capsys.readouterr().out
    results = json.loads((tmp_path / "a" / "results.json").read_text(encoding="utf-8"))
    assert results["vocabulary"] == list(trained.vocabulary) and list(results["associates"]) == ["Ġcat"]
    trained_before = (tmp_path / "tok.json").read_bytes()
    again = ["tokenizer", str(text), "--vocabulary", "9999", "--out", "tok.json"]
    assert cli.main(again) == 2 and (tmp_path / "tok.json").read_bytes() == trained_before
    assert capsys.readouterr().err == ("minitx: error: --out is tok.json, a file that is there already; choose another "
                                       "one, or overwrite it with --force\n")
    assert cli.main([*again, "--force"]) == 0
    assert "tokens (fewer than 9,999, because no pair is left)" in capsys.readouterr().out


def test_mistakes(trained, text, tmp_path):
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match="no.json holds no tokenizer .*; give a tokenizer.json"):
        FileTokenizer.read(tmp_path / "no.json")
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.json"):
        FileTokenizer.read(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="n_vocab is 256; it must be a whole number, at least 257"):
        FileTokenizer.train(TEXTS, n_vocab=256)


@pytest.mark.parametrize("arguments", [["tokenizer", "{text}"], ["associate", "{text}", "--tokenizer", "{text}"]])
def test_without_the_package_one_line_says_how_to_install_it(text, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.format(text=text) for word in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("minitx: error: tokenizers of files need the package tokenizers (")
    assert said.endswith("): pip install 'minitx[bpe]'\n")
