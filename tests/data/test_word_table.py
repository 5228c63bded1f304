"""The table of words: the kernel finds the words of the regular expression, and numbers them as a dict would."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from minitx.data import word_table
from minitx.data.word_table import WordTable, split_words

characters = st.one_of(st.sampled_from("abAB .,_1\n\u0307\u0130\u03a3\u03c3\u2028\u0661"), st.characters())
texts = st.lists(st.text(characters, max_size=20), max_size=6)


@given(texts)
@example(["a" * 5000, "a" * 4999, ""])
def test_words_are_those_of_the_regular_expression(texts):
    found = [re.findall(r"[^\W\d_]+|\S", text.lower()) for text in texts]
    assert [split_words(text) for text in texts] == found
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(word, len(numbers)) for words in found for word in words]
    table = WordTable()
    got, sizes = table.number(texts)
    assert (got.dtype, got.tolist(), sizes.tolist()) == (np.int32, ids, list(map(len, found)))
    assert table.words == tuple(numbers)
    known = table.words[::2]
    looked_up, sizes = WordTable(known).look_up(texts, -7)
    expected = [known.index(word) if word in known else -7 for words in found for word in words]
    assert (looked_up.tolist(), sizes.tolist()) == (expected, list(map(len, found)))


def test_a_table_grows_within_a_text_and_between_texts(monkeypatch):
    monkeypatch.setattr(word_table, "_ROOM", 1)
    monkeypatch.setattr(word_table, "_LONG", 1)
    words = [f"{chr(97 + i % 26) * (1 + i % 7)}{chr(97 + i // 26)}" for i in range(600)]
    first = list(dict.fromkeys(words))
    table = WordTable()
    for part in (words[:300], words[250:], words):
        ids, sizes = table.number([" ".join(part[:100]), " ".join(part[100:])])
        assert ids.tolist() == [first.index(word) for word in part] and sizes.tolist() == [100, len(part) - 100]
    assert table.words == tuple(first)


def test_threads_may_look_up_words_at_once():
    words = [chr(97 + i) + chr(97 + j) for i in range(26) for j in range(26)]
    table = WordTable(words[:400])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: table.look_up([" ".join(words)] * 20, -1)[0], range(8)))
    assert all(ids.tolist() == ([*range(400)] + [-1] * 276) * 20 for ids in found)
    assert table.words == tuple(words[:400])
