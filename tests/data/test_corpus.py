"""Files of every kind and fault, vocabularies and windows: against plain loops and known facts."""

import gzip
import json
import os
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import DATA
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minitx import associations
from minitx.data.batch import Batch
from minitx.data.corpus import BUILTIN, Corpus, builtin_corpus, load_corpus
from minitx.data.readers import read_documents
from minitx.data.stories import LEXICON, stories

STORIES = DATA / "tinystories-1000.txt"
needs_stories = pytest.mark.skipif(not STORIES.exists(), reason=f"{STORIES} is absent; set MINITX_DATA to its folder")
in_tmp = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)

LETTERS = "aBé漢🦊 .,'\"<|\u2028\x0b-9_"
lines = st.lists(st.text(LETTERS, min_size=1, max_size=12).map(str.strip).filter(bool), min_size=1, max_size=8)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.strip).filter(bool)


def write(path, data):
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def naive_tokens(text):
    words = []
    for char in text.lower():
        if char.isspace():
            words.append("")
        elif not char.isalpha():
            words += [char, ""]
        elif words and words[-1] and words[-1][-1].isalpha():
            words[-1] += char
        else:
            words.append(char)
    return [word for word in words if word]


def naive_windows(documents, n_vocab, length, unknown):
    """Vocabulary and windows, by plain loops."""
    documents = [naive_tokens(document) for document in documents]
    special = ["<unk>"] if unknown == "<unk>" else []
    counts = Counter(word for document in documents for word in document)  # most_common keeps first appearance in ties
    vocabulary = special + [word for word, _ in counts.most_common(n_vocab - len(special))]
    windows = []
    for words in documents:
        if unknown == "omit" and not set(words) <= set(vocabulary):
            continue
        ids = [vocabulary.index(word) if word in vocabulary else 0 for word in words]
        windows += [ids[i : i + length + 1] for i in range(0, len(ids) - length, length)]
    return tuple(vocabulary), windows


def window_text(corpus, row):
    """Window number ``row`` as words with spaces between them."""
    return " ".join(corpus.vocabulary[i] for i in corpus.tokens[row])


# ---- Readers --------------------------------------------------------------------------------------------------------


@in_tmp
@given(documents=lines, newline=st.sampled_from(["\n", "\r\n"]), bom=st.booleans(), gz=st.sampled_from(["", ".gz"]))
def test_one_document_a_line(tmp_path, documents, newline, bom, gz):
    path = write(tmp_path / f"a.txt{gz}", "\ufeff" * bom + newline.join(documents) + newline)
    assert list(read_documents(path)) == list(read_documents(path, layout="lines")) == documents


@in_tmp
@given(parts=st.lists(lines, min_size=2, max_size=6), gap=st.sampled_from(["\n\n", "\n \t\n", "\r\n\r\n", "\n\n\n\n"]))
def test_paragraphs(tmp_path, parts, gap):
    documents = ["\n".join(part) for part in parts]
    path = write(tmp_path / "a.txt", gap.join(documents))
    assert list(read_documents(path)) == list(read_documents(path, layout="paragraphs")) == documents


@in_tmp
@given(documents=st.lists(lines, min_size=1, max_size=6), mark=st.sampled_from(["<|endoftext|>", "\n<|endoftext|>\n"]))
def test_endoftext(tmp_path, documents, mark):
    path = write(tmp_path / "a.txt", mark.join(["\n\n".join(d) for d in documents] + [""]))
    assert list(read_documents(path)) == ["\n\n".join(d) for d in documents]


@in_tmp
@given(documents=st.lists(any_text, min_size=1, max_size=6), ascii=st.booleans(), gz=st.sampled_from(["", ".gz"]))
def test_json_and_json_lines(tmp_path, documents, ascii, gz):
    rows = [{"id": i, "text": text} for i, text in enumerate(documents)]
    path = write(tmp_path / f"a.jsonl{gz}", "\n".join(json.dumps(r, ensure_ascii=ascii) + "\n" for r in rows))
    assert list(read_documents(path)) == documents
    for items in (rows, documents):
        path = write(tmp_path / f"a.json{gz}", json.dumps(items, ensure_ascii=ascii, indent=1))
        assert list(read_documents(path)) == documents


def test_a_stray_blank_line_does_not_make_paragraphs(tmp_path):
    documents = [f"story number {i}" for i in range(60)]
    path = write(tmp_path / "a.txt", "\n".join(documents[:30]) + "\n\n" + "\n".join(documents[30:]))
    assert list(read_documents(path)) == documents
    assert len(list(read_documents(path, layout="paragraphs"))) == 2


@pytest.mark.parametrize("block", [1, 2, 3, 7])
@pytest.mark.parametrize("layout", ["lines", "paragraphs", "endoftext"])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, block, layout):
    between = {"lines": "\r\n", "paragraphs": "\r\n \r\n", "endoftext": "<|endoftext|>"}[layout]
    monkeypatch.setattr("minitx.data.readers._BLOCK", block)
    documents = ["né 漢", "🦊", "the end"]
    for name in ("a.txt", "a.txt.gz"):
        path = write(tmp_path / name, "\ufeff" * (block >= 3) + between.join(documents))
        assert list(read_documents(path, layout=layout)) == documents


def test_other_suffixes_are_plain_text_and_capitals_do_not_matter(tmp_path):
    assert list(read_documents(write(tmp_path / "a.md", "one\ntwo"))) == ["one", "two"]
    assert list(read_documents(write(tmp_path / "a.JSONL", '{"text": "one"}'))) == ["one"]
    (tmp_path / "b.TXT.GZ").write_bytes(gzip.compress(b"one"))
    assert list(read_documents(str(tmp_path / "b.TXT.GZ"))) == ["one"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.json", "a.jsonl"])
def test_progress_ends_at_the_size_of_the_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr("minitx.data.readers._BLOCK", 100)
    text = "".join(random.Random(0).choices("abcdefgh ", k=4000))
    text = json.dumps([text] if name == "a.json" else text)
    path, calls = write(tmp_path / name, text), []
    list(read_documents(path, progress=lambda done, total: calls.append((done, total))))
    assert calls == sorted(calls) and calls[-1] == (path.stat().st_size,) * 2 and len(calls) >= 10


def test_documents_are_streamed(tmp_path):
    path = write(tmp_path / "a.txt", "good line\n" * 300_000 + "\0")
    documents = read_documents(path)
    assert next(documents) == "good line"
    with pytest.raises(ValueError, match="offset 3000000;"):
        list(documents)


FAULTS = {
    "latin1": ("a.txt", b"caf\xe9 au lait", "not UTF-8: bad byte 0xe9 at offset 3;.*iconv"),
    "latin1, compressed": ("a.txt.gz", b"one\r\ntwo \xff", "not UTF-8: bad byte 0xff at offset 9;"),
    "cut character": ("a.txt", "ab漢".encode()[:-1], "not UTF-8: bad byte 0xe6 at offset 2;"),
    "after a byte order mark": ("a.txt", b"\xef\xbb\xbfab\xff", "at offset 5;"),
    "in json lines": ("a.jsonl", b'{"text": "\xff"}', "at offset 10;"),
    "binary": ("a.txt", b"\x89PNG\0\0", "binary file: NUL byte at offset 4;"),
    "utf-16": ("a.txt", "one".encode("utf-16"), "binary file: NUL byte at offset 3"),
    "empty": ("a.txt", b"", "no document"),
    "blank": ("a.txt", b" \n\r\n\t\n", "no document"),
    "only a byte order mark": ("a.txt", b"\xef\xbb\xbf", "no document"),
    "only marks": ("a.txt", b"<|endoftext|>\n<|endoftext|>", "no document"),
    "empty, compressed": ("a.txt.gz", b"", "no document"),
    "empty json": ("a.json", b"", "no document"),
    "empty array": ("a.json", b"[]", "no document"),
    "empty json lines": ("a.jsonl", b"\n\n", "no document"),
    "blank text": ("a.jsonl", b'{"text": "  "}', "no document"),
    "bad json": ("a.json", b'[{"text": "a"},\n{"text" "b"}]', "a.json: not valid JSON .*line 2"),
    "bad json line": ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"', "line 3: not valid JSON"),
    "deep json": ("a.json", b"[" * 100_000, "not valid JSON"),
    "one object": ("a.json", b'{"text": "a"}', "holds one JSON dict; an array is needed .*jsonl"),
    "missing field": ("a.jsonl", b'{"text": "a"}\n{"story": 1, "id": 1}', "line 2: found the fields story, id"),
    "missing field, array": ("a.json", b'["a", {}]', r"item 2: found the fields \(none\)"),
    "text is no string": ("a.jsonl", b'{"text": 3}', "line 1: found the fields text; an object with a string"),
    "a number": ("a.jsonl", b"3", "line 1: found a int"),
    "half a character": ("a.jsonl", rb'{"text": "\ud83d"}', "line 1: the text holds half a character"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files(tmp_path, fault):
    name, data, message = FAULTS[fault]
    path = write(tmp_path / name, data)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_documents(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda data: data[:20], lambda data: b"plain text",
                                    lambda data: data[:15] + bytes(len(data) - 23) + data[-8:]])
def test_damaged_gzip(tmp_path, damage):
    (tmp_path / "a.txt.gz").write_bytes(damage(gzip.compress(b"one two three\n" * 50)))
    with pytest.raises(ValueError, match="not a whole gzip file"):
        list(read_documents(tmp_path / "a.txt.gz"))


@pytest.mark.parametrize("block", [1, 2, 5])
def test_offset_of_a_bad_byte_in_a_later_piece(tmp_path, monkeypatch, block):
    monkeypatch.setattr("minitx.data.readers._BLOCK", block)
    for tail, offset in ((b"\xffz", 7), ("漢".encode()[:2] + b"z", 7), ("漢".encode()[:2], 7)):
        with pytest.raises(ValueError, match=f"at offset {offset};"):
            list(read_documents(write(tmp_path / "a.txt", "ab漢\r\n".encode() + tail)))


def test_faults_seen_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nothing.txt"):
        read_documents(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match="is a folder"):
        read_documents(tmp_path)
    with pytest.raises(ValueError, match="layout is 'poems'; it must be one of lines, paragraphs, endoftext"):
        read_documents(write(tmp_path / "a.txt", "a"), layout="poems")


# ---- Corpus ---------------------------------------------------------------------------------------------------------


def test_tokenizer(tmp_path):
    words = ["tom", "'", "s", "2", "cats", "_", "ate", ".", ".", "ünë漢", "1", "2", "!"]
    corpus = load_corpus(write(tmp_path / "a.txt", "Tom's 2 CATS_ate.. Ünë漢12!"), n_vocab=50, length=12)
    assert window_text(corpus, 0).split() == words == naive_tokens("Tom's 2 CATS_ate.. Ünë漢12!")


@in_tmp
@given(lines, st.integers(2, 12), st.integers(1, 5), st.sampled_from(["<unk>", "omit"]))
def test_windows_and_vocabulary_agree_with_plain_loops(tmp_path, documents, n_vocab, length, unknown):
    path = write(tmp_path / "a.txt", "\n".join(documents))
    vocabulary, windows = naive_windows(documents, n_vocab, length, unknown)
    assume(len(vocabulary) > 1)
    if not windows:
        with pytest.raises(ValueError, match="no window"):
            load_corpus(path, n_vocab=n_vocab, length=length, unknown=unknown)
        return
    corpus = load_corpus(path, n_vocab=n_vocab, length=length, unknown=unknown)
    assert corpus.vocabulary == vocabulary
    assert corpus.tokens.dtype == np.int32 and corpus.tokens.tolist() == windows


def small(tmp_path, **options):
    path = write(tmp_path / "small.txt", "the cat saw the dog .\nthe dog ran .\na bird\n")
    return load_corpus(path, **(dict(n_vocab=5, length=2) | options))


def test_counts_of_a_small_corpus(tmp_path):
    corpus = small(tmp_path)
    assert corpus.vocabulary == ("<unk>", "the", "dog", ".", "cat")  # ties by first appearance
    windows = [window_text(corpus, i) for i in range(len(corpus.tokens))]
    assert windows == ["the cat <unk>", "<unk> the dog", "the dog <unk>"]
    assert (corpus.name, corpus.length, corpus.unknown) == ("small.txt", 2, "<unk>")
    assert (corpus.n_documents, corpus.n_left_out) == (3, 1)
    assert (corpus.n_words, corpus.n_distinct, corpus.n_covered) == (12, 8, 8)
    corpus = small(tmp_path, n_vocab=6, unknown="omit")
    assert corpus.vocabulary == ("the", "dog", ".", "cat", "saw", "ran")
    assert corpus.tokens.tolist() == [[0, 3, 4], [4, 0, 1], [0, 1, 5]] and corpus.n_left_out == 1


def test_fewer_words_than_asked_for(tmp_path):
    assert len(small(tmp_path, n_vocab=100).vocabulary) == 9
    assert len(small(tmp_path, n_vocab=100, unknown="omit").vocabulary) == 8


def test_first_windows(tmp_path):
    assert np.array_equal(small(tmp_path, n_windows=2).tokens, small(tmp_path).tokens[:2])
    assert len(small(tmp_path, n_windows=99).tokens) == 3


def test_batch_shifts_by_one(tmp_path):
    corpus = small(tmp_path)
    batch = corpus.batch()
    assert isinstance(batch, Batch)
    assert np.array_equal(batch.tokens, corpus.tokens[:, :-1]) and np.array_equal(batch.targets, corpus.tokens[:, 1:])


def test_summary(tmp_path):
    lines = small(tmp_path).summary().splitlines()
    assert [line.split()[0] for line in lines] == ["corpus", "documents", "tokens", "vocabulary", "other", "windows"]
    assert "66.67% of the tokens" in lines[3] and "read as <unk>" in lines[4] and "3 of 2 + 1 tokens" in lines[5]
    assert "documents are left out" in small(tmp_path, n_vocab=6, unknown="omit").summary()


def test_id(tmp_path):
    corpus = small(tmp_path)
    assert [corpus.id(word) for word in corpus.vocabulary] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="'dogs' is not among the 5 words of small.txt; close to it: dog"):
        corpus.id("dogs")
    with pytest.raises(ValueError, match="'xyzzy' .*; no word is written alike"):
        corpus.id("xyzzy")


@pytest.mark.parametrize("bad, message", [
    (dict(n_vocab=1), "n_vocab is 1; it must be a whole number, at least 2"),
    (dict(n_vocab=2.5), "n_vocab is 2.5; it must be a whole number, at least 2"),
    (dict(length=0), "length is 0; it must be"),
    (dict(n_windows=0), "n_windows is 0; it must be"),
    (dict(unknown="drop"), "unknown is 'drop'; it must be '<unk>' or 'omit'"),
])
def test_bad_settings(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **bad)


def test_no_window_tells_what_would_give_some(tmp_path):
    with pytest.raises(ValueError, match=r"no window of 6 \+ 1 .* has 6 tokens; with length=5 .* number 1$"):
        small(tmp_path, length=6)
    with pytest.raises(ValueError, match=r"has 6 tokens; with length=5 .* 1; with unknown='<unk>' they .* number 0$"):
        small(tmp_path, length=7, n_vocab=6, unknown="omit")
    with pytest.raises(ValueError, match="each holds an unknown word; with unknown='<unk>' they would number 3$"):
        small(tmp_path, n_vocab=2, unknown="omit")


# ---- Known facts ----------------------------------------------------------------------------------------------------


@needs_stories
def test_facts_of_tinystories():
    corpus = load_corpus(STORIES, n_vocab=800, length=64)
    assert (corpus.n_documents, corpus.n_words, corpus.n_distinct) == (1000, 223_264, 4_593)
    assert len(corpus.vocabulary) == 800 and len(corpus.tokens) >= 1500
    words = [naive_tokens(story) for story in read_documents(STORIES)]
    assert len(corpus.tokens) == sum((len(story) - 1) // 64 for story in words)
    counts = Counter(word for story in words for word in story)
    assert corpus.vocabulary == ("<unk>", *(word for word, _ in counts.most_common(799)))


@needs_stories
def test_tinystories_with_3000_words():
    """95 stories of at least 201 tokens hold no other word; 130 hold none in their first 201 tokens."""
    corpus = load_corpus(STORIES, n_vocab=3000, length=200, unknown="omit")
    assert corpus.n_documents - corpus.n_left_out == 95
    known = set(corpus.vocabulary)
    cut = [re.findall(r"[^\W\d_]+|\S", story.lower())[:201] for story in read_documents(STORIES)]
    assert sum(len(words) == 201 and known.issuperset(words) for words in cut) == 130


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_corpora(name):
    corpus = builtin_corpus(name)
    assert corpus.name == name and len(corpus.vocabulary) == 800 and corpus.vocabulary[0] == "<unk>"
    assert corpus.length == 64 and len(corpus.tokens) > 1000
    assert 0 <= corpus.tokens.min() and corpus.tokens.max() < 800
    few = builtin_corpus(name, n_documents=5, n_vocab=50, length=20, n_windows=3)
    assert few.n_documents == 5 and few.tokens.shape == (3, 21)


def test_stories_follow_the_seed():
    one, same, other = (builtin_corpus("stories", n_documents=20, rng=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.tokens, same.tokens) and one.vocabulary == same.vocabulary
    assert one.vocabulary != other.vocabulary


def test_stories_equal_their_text_read_from_a_file(tmp_path):
    told = [" ".join(LEXICON[i] for i in story) for story in stories(40, n_words=65)]
    path = write(tmp_path / "a.txt", "\n".join(told))
    read, built = load_corpus(path, n_vocab=300, length=64), builtin_corpus("stories", n_documents=40, n_vocab=300)
    assert read.vocabulary == built.vocabulary and np.array_equal(read.tokens, built.tokens)


def test_bad_builtin():
    with pytest.raises(ValueError, match="no built-in corpus is named 'poems'; the names are stories, python-docs"):
        builtin_corpus("poems")
    with pytest.raises(ValueError, match="n_documents is 0"):
        builtin_corpus("stories", n_documents=0)


def test_a_single_distinct_word_is_refused(tmp_path):
    path = write(tmp_path / "one.txt", "a " * 100)
    with pytest.raises(ValueError, match="one distinct word only"):
        load_corpus(path, n_vocab=100, length=8, unknown="omit")


def test_a_pipe_can_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        pool.submit((tmp_path / "pipe").write_text, "the dog ran . the cat ran .")
        corpus = load_corpus(tmp_path / "pipe", n_vocab=9, length=2, progress=lambda done, total: None)
    assert len(corpus.tokens) == 3


# ----------------------------------------------------------------------------------------------- documents of one's own


def test_documents_in_python_are_those_of_a_file(tmp_path):
    texts = ["A cat sat. A dog ran!", "The cat ran.", "", "One more: the dog sat down on a mat."]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    settings = {"n_vocab": 8, "length": 3}
    read = load_corpus(path, layout="lines", **settings)
    for documents in (texts, iter(texts), [re.findall(r"[^\W\d_]+|\S", text.lower()) for text in texts]):
        made = Corpus.from_documents(documents, **settings, name="texts.txt")
        assert made.vocabulary == read.vocabulary
        np.testing.assert_array_equal(made.tokens, read.tokens)
        assert made.summary() == read.summary()


def test_tokens_of_a_list_are_taken_as_they_are():
    made = Corpus.from_documents([["New York", "is", "<unk>", "New York"], ["is", "It", "x", "y"]], n_vocab=4, length=2)
    assert made.vocabulary == ("<unk>", "New York", "is", "It")
    np.testing.assert_array_equal(made.tokens, [[1, 2, 0], [2, 3, 0]])
    assert (made.n_words, made.n_covered, made.n_documents) == (8, 5, 2)
    kept = Corpus.from_documents([["a", "b"] * 3, ["a", "c"] * 3], n_vocab=2, length=2, unknown="omit")
    assert (kept.vocabulary, kept.n_left_out) == (("a", "b"), 1)


def test_windows_of_ids_with_their_words():
    ids = np.array([[0, 1, 2], [2, 1, 0]])
    made = Corpus.from_tokens(ids, ["a", "b", "c"])
    np.testing.assert_array_equal(made.tokens, ids)
    assert (made.length, made.id("c"), made.batch().tokens.shape) == (2, 2, (2, 2))
    assert "other words there are none" in made.summary() and "covering 100.00%" in made.summary()
    assert "read as <unk>" in Corpus.from_tokens(ids, ["<unk>", "b", "c"]).summary()
    basis = associations.statistics(made.batch(), 3)
    scores = associations.words.similarity(basis)["bigram"]
    assert [word for word, _ in associations.words.associates(scores, made, "a")] == ["b"]


@pytest.mark.parametrize(("make", "error", "says"), [
    (lambda: Corpus.from_documents("a text", n_vocab=5, length=2), TypeError, "documents is 'a text'; it must be a l"),
    (lambda: Corpus.from_documents(None, n_vocab=5, length=2), TypeError, "documents is None"),
    (lambda: Corpus.from_documents([["a", 1]], n_vocab=5, length=2), TypeError, "document 0 holds 1; its tokens must"),
    (lambda: Corpus.from_documents(["a b", 3], n_vocab=5, length=2), TypeError, "document 1 is 3; it must be a string"),
    (lambda: Corpus.from_documents([], n_vocab=5, length=2), ValueError, "documents hold no token"),
    (lambda: Corpus.from_documents(["  ", []], n_vocab=5, length=2), ValueError, "documents hold no token"),
    (lambda: Corpus.from_documents(["a b"], n_vocab=5, length=9), ValueError, r"no window of 9 \+ 1 tokens"),
    (lambda: Corpus.from_documents(["a b"], n_vocab=1, length=1), ValueError, "n_vocab is 1"),
    (lambda: Corpus.from_tokens([[0, 1]], "ab"), TypeError, "vocabulary is 'ab'; it must be a list of strings"),
    (lambda: Corpus.from_tokens([[0, 1]], ["a", 1]), TypeError, "vocabulary holds 1; its entries must be strings"),
    (lambda: Corpus.from_tokens([[0, 1]], ["a", "a"]), ValueError, "2 words, 1 of them different"),
    (lambda: Corpus.from_tokens([[0, 2]], ["a", "b"]), ValueError, "ids from 0 to 2, but the vocabulary has ids 0"),
    (lambda: Corpus.from_tokens([[0, -1]], ["a", "b"]), ValueError, "ids from -1 to 0"),
    (lambda: Corpus.from_tokens([0, 1], ["a", "b"]), ValueError, "tokens must be a 2-dimensional array"),
    (lambda: Corpus.from_tokens([[0]], ["a", "b"]), ValueError, r"tokens have shape \(1, 1\); at least one window"),
    (lambda: Corpus.from_tokens([["a", "b"]], ["a", "b"]), TypeError, "tokens must be integers"),
])
def test_documents_of_ones_own_are_refused_in_words(make, error, says):
    with pytest.raises(error, match=says):
        make()
