"""Texts of any size: parts hold all documents once, windows are those of a text in memory, and files are found by name.
"""

import gzip
import json
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minitx.data.corpus import load_corpus
from minitx.data.readers import cut, read_documents, read_part
from minitx.data.streams import Part, Texts, over_parts, text_files
from minitx.data.tokenizers import WordTokenizer

in_tmp = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
line = st.text("aBé漢🦊 .\u3000<|", min_size=1, max_size=9).map(str.strip).filter(bool)
lines = st.lists(line, min_size=1, max_size=9)
BETWEEN = {"lines": ["\n", "\r\n", "\n\n"], "paragraphs": ["\n\n", "\n \t\n", "\r\n\r\n", "\n\n\n\n"],
           "endoftext": ["<|endoftext|>", "\n<|endoftext|>\n"]}
TEXT = [f"the {a} saw a {b} near the {c}." for a in ("cat", "dog") for b in ("bird", "fish", "cow")
        for c in ("pond", "t")]


def write(path, text):
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pytest.importorskip("zstandard").ZstdCompressor().compress(data)
    path.write_bytes(data)
    return path


def all_windows(texts):
    """The windows of all parts, and the totals."""
    totals = Counter()
    found = [chunk for part in texts.parts for chunk in texts.windows(part, totals)]
    return np.concatenate(found), totals


@in_tmp
@given(lines, st.sampled_from([*BETWEEN, "jsonl"]), st.integers(1, 60), st.data())
def test_parts_hold_every_document_once_and_in_order(tmp_path, documents, layout, size, data):
    if layout == "jsonl":
        path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in documents))
    else:
        path = write(tmp_path / "a.txt", data.draw(st.sampled_from(BETWEEN[layout])).join(documents))
    given_layout = None if layout == "jsonl" else layout
    found = cut(path, size, given_layout)
    assert [document for begin, end, how in found for document in read_part(path, begin, end, layout=how)] == documents
    assert found[0][0] == 0 and all(one[1] == two[0] for one, two in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("block", [1, 2, 5])
def test_separators_may_lie_in_two_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("minitx.data.readers._BLOCK", block)
    for layout, between in (("lines", "\n"), ("paragraphs", "\n \n"), ("endoftext", "<|endoftext|>")):
        path = write(tmp_path / "a.txt", between.join(TEXT[:4]))
        found = cut(path, 12, layout)
        assert len(found) == 4
        assert [text for begin, end, _ in found for text in read_part(path, begin, end, layout=layout)] == TEXT[:4]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst", "a.jsonl.zst", "a.json"])
def test_compressed_files_have_one_part(tmp_path, name):
    whole = {".json": json.dumps(TEXT), ".jsonl": "\n".join(map(json.dumps, TEXT))}
    text = next((text for kind, text in whole.items() if kind in name.split(".")[1:] or f"{kind}." in name
                 or name.endswith(kind)), "\n".join(TEXT))
    path = write(tmp_path / name, text)
    assert len(cut(path, 5, None)) == 1
    assert list(read_documents(path)) == list(read_part(path, 0, None)) == TEXT


def test_a_zst_file_that_ends_too_early_is_refused(tmp_path):
    path = write(tmp_path / "a.txt.zst", "\n".join(TEXT) + "\n")
    path.write_bytes(path.read_bytes() * 2)  # frames one after the other are read on
    assert list(read_documents(path, layout="lines")) == TEXT * 2
    for data in (path.read_bytes()[:-9], b"plain text"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="a.txt.zst is not a whole zst file"):
            list(read_documents(path))


@pytest.mark.parametrize(("unknown", "n_vocab"), [("<unk>", 8), ("omit", 10), ("<unk>", 99)])
def test_vocabulary_and_windows_are_those_of_a_text_in_memory(tmp_path, unknown, n_vocab):
    path = write(tmp_path / "a.txt", "\n".join(TEXT + ["short"]))
    corpus = load_corpus(path, n_vocab=n_vocab, length=4, unknown=unknown, layout="lines")
    for executor in (None, ThreadPoolExecutor(2)):
        texts = Texts.of(path, n_vocab=n_vocab, length=4, unknown=unknown, layout="lines", part_size=40)
        assert len(texts.parts) > 5
        texts = texts.with_vocabulary(executor=executor, ahead=3)
        windows, totals = all_windows(texts)
        assert texts.vocabulary == corpus.vocabulary and texts.n_vocab == len(corpus.vocabulary)
        np.testing.assert_array_equal(windows, corpus.tokens)
        assert totals == {"documents": 13, "documents without a window": corpus.n_left_out, "tokens": corpus.n_words,
                          "tokens in the vocabulary": corpus.n_covered}


def test_the_most_frequent_tokens_of_a_tokenizer_come_first(tmp_path):
    path = write(tmp_path / "a.txt", "b c c d d d\nd d c")
    tokenizer = WordTokenizer(("a", "b", "c", "d"))
    texts = Texts.of(path, tokenizer=tokenizer, n_tokens=2, length=2, layout="lines").with_vocabulary()
    assert texts.vocabulary == ("d", "c")
    assert all_windows(texts)[0].tolist() == [[2, 1, 1], [1, 0, 0], [0, 0, 1]]
    assert Texts.of(path, tokenizer=tokenizer, length=2).needs_vocabulary is False


def test_files_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.jsonl", "deep/er/d.txt", "deep/.hidden", "x[1].txt"):
        (tmp_path / name).write_text("a b")
    assert [str(path) for path in text_files(["x[1].txt", "deep", "[ab].txt"])] == [
        "x[1].txt", "deep/c.jsonl", "deep/er/d.txt", "a.txt", "b.txt"]
    for names, error, says in (("no*.txt", FileNotFoundError, r"no file no\*.txt"),
                               ("c.txt", FileNotFoundError, "no file c.txt"), ([], ValueError, "names no file"),
                               ("empty", ValueError, "the folder empty holds no file"), (3, TypeError, "path is 3"),
                               (["a.txt", "*.txt"], ValueError, "a.txt is named twice")):
        with pytest.raises(error, match=says):
            text_files(names)


def test_bad_lines_are_refused_with_their_numbers_or_counted(tmp_path):
    rows = [json.dumps({"text": text}) for text in TEXT]
    rows[7], rows[9] = '{"text": ', '{"story": 3}'
    path = write(tmp_path / "a.jsonl", "\n".join(rows))
    with pytest.raises(ValueError, match="a.jsonl, line 8: not valid JSON"):
        Texts.of(path, n_vocab=9, length=3, part_size=100).with_vocabulary()
    texts = Texts.of(path, n_vocab=9, length=3, part_size=100, skip_bad=True).with_vocabulary()
    _, totals = all_windows(texts)
    assert (totals["lines skipped"], totals["documents"]) == (2, 10)


@pytest.mark.parametrize(("bad", "says"), [
    ({"n_vocab": 1}, "n_vocab is 1"), ({"length": 0}, "length is 0"), ({"n_tokens": 1}, "n_tokens is 1"),
    ({"n_tokens": 99}, "n_tokens is 99; it must be a whole number, at most 9"), ({"layout": "x"}, "layout is 'x'"),
    ({"tokenizer": WordTokenizer(("a",))}, "give either n_vocab"), ({"part_size": 0}, "part_size is 0"),
    ({"unknown": "drop"}, "unknown is 'drop'")])
def test_settings_out_of_range(tmp_path, bad, says):
    with pytest.raises(ValueError, match=says):
        Texts.of(write(tmp_path / "a.txt", "a b"), **({"n_vocab": 9, "length": 3} | bad))


def test_texts_without_two_words_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="a.txt: found 1 different words; at least two are needed"):
        Texts.of(write(tmp_path / "a.txt", "a a"), n_vocab=9, length=1, unknown="omit").with_vocabulary()
    with pytest.raises(ValueError, match="a.txt: found 0 different words"):
        Texts.of(write(tmp_path / "a.txt", " \n"), n_vocab=9, length=1).with_vocabulary()


def begin_of(part):
    return part.begin


def end_of_worker(part):
    os._exit(1)


def test_results_come_in_the_order_of_the_parts(tmp_path):
    path = write(tmp_path / "a.txt", "a" * 100)
    parts = [Part(path, begin, begin + 10, None) for begin in range(0, 100, 10)]
    for executor in (None, ThreadPoolExecutor(3)):
        calls: list = []

        def progress(*call, calls=calls):
            calls.append(call)

        found = over_parts(begin_of, parts, executor=executor, ahead=2, progress=progress)
        assert list(found) == list(range(0, 100, 10)) and calls[-1] == (100, 100) and len(calls) == 10


def test_a_worker_that_ends_is_said_with_the_part(tmp_path):
    parts = [Part(write(tmp_path / "a.txt", "a b"), 0, None, None)]
    with ProcessPoolExecutor(1) as pool, pytest.raises(ChildProcessError, match="a.txt from byte 0 on; run again"):
        list(over_parts(end_of_worker, parts, executor=pool))
