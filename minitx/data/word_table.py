"""A table of words: a kernel splits texts into words and numbers them.

A regular expression is the definition of a word, :func:`split_words`; the kernel follows its kinds of characters. The
table is a hash table with open addresses: a word is looked for from the place that its code names, until it or a free
place is found.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from minitx.data.kernels import LETTER, SPACE, number_words, place_words

_LETTERS, _SPACES = r"[^\W\d_]+", r"\s+"
_WORD = re.compile(rf"{_LETTERS}|\S")
_FREE = -1  # what a place of the table holds while it has no word
_ROOM = 1000  # the least number of words that a table has room for
_LONG = 8  # letters of each of them


def split_words(text: str) -> list[str]:
    """The words of a text: maximal runs of letters, and other single characters except spaces. Capitals become small.
    """
    return _WORD.findall(text.lower())


class WordTable:
    """Words and their numbers: ``words[i]`` has the number i.

    ``WordTable(words)`` holds words to look up; of equal ones, the first counts.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._n = len(words)
        self._make_room(_codes("".join(words)), np.cumsum([0, *map(len, words)], dtype=np.int64), 0)

    def _make_room(self, letters, begin, n_letters):
        """Hold these words, with room for as many more and for ``n_letters`` of their letters."""
        room = 1 << max(_ROOM, 2 * begin.size).bit_length()
        self._letters = np.zeros(max(_LONG * room, letters.size) + n_letters, np.uint32)
        self._letters[:letters.size] = letters
        self._begin = np.zeros(room, np.int64)
        self._begin[:begin.size] = begin
        self._places = np.full(2 * room, _FREE, np.int32)
        place_words(self._letters, self._begin, self._n, self._places)

    @property
    def words(self) -> tuple[str, ...]:
        """All words, by number."""
        text, ends = _text(self._letters[:self._begin[self._n]]), self._begin[:self._n + 1].tolist()
        return tuple(map(text.__getitem__, map(slice, ends, ends[1:])))

    def number(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The numbers of the words of ``texts``, one text after the other, and how many words each text has.

        Words that are new get the next numbers.
        """
        codes, kinds, ends = _read(texts)
        ids, done = np.empty(len(codes), np.int32), np.array([0, 0, 0, self._n])
        while not number_words(codes, kinds, ends, self._letters, self._begin, self._places, True, 0, ids, done):
            self._n = int(done[3])
            self._make_room(self._letters[:self._begin[self._n]], self._begin[:self._n + 1], len(codes))
        self._n = int(done[3])
        return ids[:done[2]].copy(), np.diff(ends, prepend=0)

    def look_up(self, texts: Sequence[str], outside: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """As :meth:`number`, but words that the table lacks have the number ``outside``.

        The table stays as it is, so that several threads may ask it at once.
        """
        codes, kinds, ends = _read(texts)
        ids, done = np.empty(len(codes), np.int32), np.array([0, 0, 0, self._n])
        number_words(codes, kinds, ends, self._letters, self._begin, self._places, False, outside, ids, done)
        return ids[:done[2]].copy(), np.diff(ends, prepend=0)


def _read(texts):
    """The code points of texts in small letters, the kinds of code points, and where each text ends."""
    small = [text.lower() for text in texts]
    text = "".join(small)
    return _codes(text), _kinds(128 if text.isascii() else 0x110000), np.cumsum(list(map(len, small)), dtype=np.int64)


def _codes(text):
    """The code points of a text, (n,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _text(codes):
    """The text of code points."""
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


@cache
def _kinds(n):
    """(n,) uint8: the kinds of the first n code points."""
    kinds, characters = np.zeros(n, np.uint8), _text(np.arange(n, dtype=np.uint32))
    for kind, pattern in ((LETTER, _LETTERS), (SPACE, _SPACES)):
        for run in re.finditer(pattern, characters):
            kinds[run.start():run.end()] = kind
    return kinds
