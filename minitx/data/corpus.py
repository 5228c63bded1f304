"""Texts become windows of tokens: vocabularies, windows and built-in corpora.

Legend: N windows of T = ``length`` positions, V words in the vocabulary.
"""

import difflib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import MOST_ENTRIES, described, existing_file, function, integers, table_size, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.data.readers import TEXT_FILE, Progress, read_documents, together
from minitx.data.stories import LEXICON, stories
from minitx.data.tokenizers import UNKNOWN, Tokenizer, encoded
from minitx.data.word_table import WordTable, split_words

OMIT = "omit"
BUILTIN = ("stories", "python-docs")


class NoWindow(ValueError):
    """No window of ``length + 1`` tokens fits into a text.

    ``sentence(no_window, length_is, unknown_is)`` says so around words that name the settings: ``no_window`` begins it,
    ``length_is(T)`` and ``unknown_is`` name settings that would give windows.
    """

    def __init__(self, length: int, sentence: Callable[..., str]):
        self.length, self.sentence = length, sentence
        super().__init__(sentence(f"no window of {length} + 1 tokens", "length={}".format, f"unknown={UNKNOWN!r}"))

    def as_typed(self, next_word: int) -> str:
        """The sentence in words of a command line, whose --length counts the ``next_word`` (1) too, or does not (0)."""
        tokens = "so many tokens" + " and the next" * (1 - next_word)
        return self.sentence(f"--length is {self.length + next_word}, but no window of {tokens}",
                             lambda length: f"--length {length + next_word}", f"--unknown {UNKNOWN}")


@dataclass(frozen=True, eq=False)
class Corpus(Shown):
    """Windows of tokens over a vocabulary, and counts of what was read.

    A row of ``tokens`` is a window: T inputs and, shifted by one, their T targets. A document gives no window if it is
    too short, or if it holds a word to omit. Make one with :func:`load_corpus`, :func:`builtin_corpus`,
    :meth:`from_documents` or :meth:`from_tokens`, which say what tokens and vocabulary cannot be.
    """

    MADE_BY: ClassVar[str] = ("minitx.load_corpus(path, n_vocab=..., length=...), minitx.builtin_corpus(name) or "
                              "minitx.Corpus.from_documents(documents, n_vocab=..., length=...)")

    name: str  # file name, or name of the built-in corpus
    vocabulary: tuple[str, ...]  # (V,): vocabulary[i] is the word of id i
    tokens: NDArray[np.int32]  # (N, T + 1), row = window
    n_documents: int  # documents that were read
    n_left_out: int  # documents that give no window
    n_words: int  # word tokens that were read
    n_distinct: int  # distinct ones among them
    n_covered: int  # word tokens that are in the vocabulary
    unknown: str  # what words outside the vocabulary became: a token such as <unk>, or "omit"; "" if there are none

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise TypeError(f"name is {described(self.name)}; it must be a string, the name that is shown")
        tokens, vocabulary = _tokens_and_words(self.tokens, self.vocabulary)
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "vocabulary", vocabulary)

    @classmethod
    def from_documents(cls, documents: Iterable[str] | Iterable[Sequence[str]], *, n_vocab: int, length: int,
                       unknown: str = UNKNOWN, n_windows: int | None = None, name: str = "documents") -> "Corpus":
        """Documents of your own become a corpus.

        Parameters
        ----------
        documents : iterable of str, or of lists of str
            A string is cut into words as :func:`load_corpus` does; a list holds the tokens of a document, which are
            taken as they are. Documents without a token are left out.
        n_vocab, length, unknown, n_windows
            See :func:`load_corpus`. A token ``<unk>`` in a list counts as a word outside the vocabulary.
        name : str
            What the corpus is called where it is shown.

        Raises
        ------
        TypeError, ValueError
            Documents that are neither strings nor lists of strings, settings out of range, settings that leave no
            window.
        """
        settings = _checked(n_vocab, length, unknown, n_windows)
        if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
            raise TypeError(f"documents is {described(documents)}; it must be a list of strings, or of lists of tokens"
                            f"{' (a file is read by minitx.load_corpus)' * isinstance(documents, str)}")
        found = [words for number, document in enumerate(documents) if (words := _document_words(number, document))]
        if not found:
            raise ValueError("documents hold no token; give at least one document with text in it")
        return _corpus(name, *_number(found), **settings)

    @classmethod
    def from_tokens(cls, tokens: ArrayLike, vocabulary: Sequence[str], *, name: str = "tokens") -> "Corpus":
        """Windows of token ids of your own, with the words that they stand for, become a corpus.

        Parameters
        ----------
        tokens : (N, T + 1) integers
            Row = window: T inputs and, shifted by one, their T targets. Ids are 0 to V - 1.
        vocabulary : V different strings
            ``vocabulary[i]`` is the word of id i. The word ``<unk>``, if there is one, stands for unknown words.
        name : str
            What the corpus is called where it is shown.

        Raises
        ------
        TypeError, ValueError
            Tokens that are not such an array, ids outside the vocabulary, a vocabulary of fewer than two different
            strings.
        """
        ids, words = _tokens_and_words(tokens, vocabulary)
        n_unknown = int(np.count_nonzero(ids == words.index(UNKNOWN))) if UNKNOWN in words else 0
        return cls(name, words, ids, n_documents=len(ids), n_left_out=0, n_words=ids.size,
                   n_distinct=len(np.unique(ids)), n_covered=ids.size - n_unknown,
                   unknown=UNKNOWN if UNKNOWN in words else "")

    @property
    def length(self) -> int:
        """T, the number of positions of a window."""
        return self.tokens.shape[1] - 1

    def batch(self) -> Batch:
        """Next-token prediction over all windows and positions."""
        return Batch(self.tokens[:, :-1], self.tokens[:, 1:])

    def id(self, word: str) -> int:
        """The id of a word. ValueError, with words of similar spelling, if it is not in the vocabulary."""
        if word not in self.vocabulary:
            close = difflib.get_close_matches(str(word).lower(), self.vocabulary)
            hint = f"close to it: {', '.join(close)}" if close else "no word is written alike"
            raise ValueError(f"{word!r} is not among the {len(self.vocabulary):,} words of {self.name}; {hint}")
        return self.vocabulary.index(word)

    def summary(self) -> str:
        """Six lines to print: name, documents, tokens, vocabulary, what became of other words, windows."""
        others = {OMIT: "their documents are left out", "": "there are none"}
        return "\n".join([
            f"corpus      {self.name}",
            f"documents   {self.n_documents:,} read, {self.n_left_out:,} of them without a window",
            f"tokens      {self.n_words:,} read, {self.n_distinct:,} distinct",
            f"vocabulary  {len(self.vocabulary):,} words, covering {self.n_covered / self.n_words:.2%} of the tokens",
            f"other words {others.get(self.unknown, f'read as {self.unknown}')}",
            f"windows     {len(self.tokens):,} of {self.length} + 1 tokens",
        ])


def load_corpus(path: str | Path, *, n_vocab: int | None = None, length: int, unknown: str = UNKNOWN,
                n_windows: int | None = None, tokenizer: Tokenizer | None = None, layout: str | None = None,
                progress: Progress | None = None) -> Corpus:
    """Read a text file, choose its vocabulary and cut it into windows.

    A window of ``length + 1`` tokens begins at every ``length``-th token of a document, so that no token is an input
    twice. The end of a document that does not fill a window is dropped.

    Parameters
    ----------
    path : str or Path
        See :func:`read_documents`, also for ``layout`` and ``progress``.
    n_vocab : int
        Size V of the vocabulary, at least 2. It holds the most frequent words in order of frequency; of equally
        frequent words the first in the text comes first. It is smaller when the text has fewer distinct words.
        It is left out when there is a ``tokenizer``.
    length : int
        Positions T of a window, at least 1.
    unknown : {"<unk>", "omit"}
        Words outside the vocabulary become ``<unk>``, which is id 0 and one of the V; or documents that hold such words
        are left out.
    n_windows : int, optional
        Keep at most the first ``n_windows`` windows.
    tokenizer : Tokenizer, optional
        Its tokens instead of words; its vocabulary, whole and in its order, is that of the corpus.

    Raises
    ------
    FileNotFoundError, ValueError
        Files that cannot be read as text, settings out of range, settings that leave no window.
    """
    if (tokenizer is None) == (n_vocab is None):
        raise ValueError("give either n_vocab, the size of a vocabulary of words, or a tokenizer, which has its own")
    settings = _checked(2 if n_vocab is None else n_vocab, length, unknown, n_windows)
    if progress is not None:
        function("progress", progress, "progress(bytes_done, bytes_in_file)")
    file = existing_file(path, TEXT_FILE)
    name = file.name.encode("utf-8", "replace").decode()  # what is not UTF-8 can be neither drawn nor printed
    documents = read_documents(path, layout=layout, progress=progress)
    if tokenizer is not None:
        return _tokenized(name, tokenizer, documents, length, n_windows)
    return _corpus(name, *_number_words(documents), **settings)


def builtin_corpus(name: str, *, n_vocab: int = 800, length: int = 64, unknown: str = UNKNOWN,
                   n_windows: int | None = None, n_documents: int | None = None,
                   rng: int | np.random.Generator | None = 0) -> Corpus:
    """Make a corpus without a file.

    "stories" are drawn by :func:`minitx.data.stories.stories`; each is one window of ``length + 1`` tokens.
    "python-docs" are the help topics that come with Python, about 80 documents; versions of Python differ a little.

    Parameters
    ----------
    n_vocab, length, unknown, n_windows
        See :func:`load_corpus`.
    n_documents : int, optional
        Number of stories (default: 2048), or the largest number of help topics (default: all).
    rng : int, numpy.random.Generator or None
        Seed of the stories.

    Raises
    ------
    ValueError
        An unknown name, settings out of range, settings that leave no window.
    """
    settings = _checked(n_vocab, length, unknown, n_windows)
    if n_documents is not None:
        whole_number("n_documents", n_documents, 1)
    if not isinstance(name, str) or name not in BUILTIN:
        raise ValueError(f"no built-in corpus is named {described(name)}; the names are {', '.join(BUILTIN)} (files: "
                         "load_corpus)")
    if name == "stories":
        table_size("the corpus of stories", n_documents or 2048, length + 1)
        made = stories(n_documents or 2048, n_words=length + 1, rng=rng)
        return _corpus(name, LEXICON, made.ravel(), np.full(len(made), length + 1), **settings)
    from pydoc_data.topics import topics  # half a megabyte, which is read only when it is asked for

    return _corpus(name, *_number_words(itertools.islice(topics.values(), n_documents)), **settings)


def _tokens_and_words(tokens, vocabulary):
    """The windows and the vocabulary of a corpus. TypeError or ValueError says what they cannot be."""
    ids = tokens if isinstance(tokens, np.ndarray) and tokens.dtype == np.int32 and tokens.ndim == 2 else integers(
        "tokens", tokens, 2)
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
        raise TypeError(f"vocabulary is {described(vocabulary)}; it must be a list of strings, the words of ids 0, "
                        "1, ...")
    words = tuple(vocabulary)
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise TypeError(f"vocabulary holds {described(wrong[0])}; its entries must be strings, the words of ids 0, "
                        "1, ...")
    if len(words) < 2 or len(set(words)) < len(words):
        raise ValueError(f"vocabulary holds {len(words)} words, {len(set(words))} of them different; at least two "
                         "are needed, and each may stand there once")
    if len(ids) == 0 or ids.shape[1] < 2:
        raise ValueError(f"tokens have shape {ids.shape}; at least one window (row) of two tokens is needed, an "
                         "input and its target")
    if ids.min() < 0 or ids.max() >= len(words):
        raise ValueError(f"tokens hold ids from {ids.min()} to {ids.max()}, but the vocabulary has ids 0 to "
                         f"{len(words) - 1}; give a word for every id")
    return ids.astype(np.int32, copy=False), words


def _checked(n_vocab, length, unknown, n_windows):
    """The settings of a corpus as a dict. ValueError unless each is in its range."""
    whole_number("n_vocab", n_vocab, 2)
    whole_number("length", length, 1, most=MOST_ENTRIES)
    if n_windows is not None:
        whole_number("n_windows", n_windows, 1)
    if not isinstance(unknown, str) or unknown not in (UNKNOWN, OMIT):
        raise ValueError(f"unknown is {described(unknown)}; it must be {UNKNOWN!r} or 'omit'")
    return {"n_vocab": n_vocab, "length": length, "unknown": unknown, "n_windows": n_windows}


def _document_words(number, document):
    """The tokens of a document that a user gave. TypeError unless it is a string or a list of strings."""
    if isinstance(document, str):
        return split_words(document)
    if isinstance(document, bytes) or not isinstance(document, Iterable):
        raise TypeError(f"document {number} is {described(document)}; it must be a string, or a list of tokens")
    words = list(document)
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise TypeError(f"document {number} holds {described(wrong[0])}; its tokens must be strings (for ids, use "
                        "Corpus.from_tokens(array, vocabulary))")
    return words


def _number(documents):
    """Words in order of first appearance, the ids of all documents one after the other, and the documents' sizes."""
    index = defaultdict()
    index.default_factory = index.__len__  # a word that is new gets the next number, at the speed of a look-up
    ids = [np.fromiter(map(index.__getitem__, words), np.int32, len(words)) for words in documents]
    return tuple(index), np.concatenate(ids), np.array([len(row) for row in ids])


def _number_words(documents):
    """The same of texts, whose words are numbered."""
    table = WordTable()
    ids, sizes = _joined(map(table.number, together(documents)))
    return table.words, ids, sizes


def _joined(encoded_documents):
    """The ids and the sizes of all documents, from pairs of both of some of them."""
    return tuple(map(np.concatenate, zip(*encoded_documents, strict=True)))


def _corpus(name, words, ids, sizes, *, n_vocab, length, unknown, n_windows):
    """Corpus of the documents that lie one after the other in ``ids``; ``words[i]`` is the word of id i."""
    frequency = np.bincount(ids, minlength=len(words))
    first = np.full(len(words), len(ids))
    first[ids[::-1]] = np.arange(len(ids))[::-1]  # of a repeated index the last assignment holds: the first appearance
    order = np.lexsort((first, -frequency))[: np.count_nonzero(frequency)]
    special = (UNKNOWN,) if unknown == UNKNOWN else ()
    if special and UNKNOWN in words:  # among tokens of the user's own
        order = order[order != words.index(UNKNOWN)]
    kept = order[: n_vocab - len(special)]
    vocabulary = (*special, *(words[i] for i in kept))
    if len(vocabulary) < 2:
        raise ValueError(f"{name} holds one distinct word only; nothing can be predicted from it")
    rank = np.full(len(words), 0 if special else -1, np.int32)
    rank[kept] = np.arange(len(special), len(vocabulary))
    tokens = rank[ids]
    lowest = np.minimum.reduceat(tokens, np.cumsum(sizes) - sizes)  # of each document; no document is empty
    usable = np.where(lowest < 0, 0, sizes)
    return Corpus(name, vocabulary, _windows(name, tokens, sizes, usable, length, unknown, n_windows),
                  n_documents=len(sizes), n_words=len(ids), n_distinct=len(order),
                  n_left_out=int(np.count_nonzero(usable <= length)), n_covered=int(frequency[kept].sum()),
                  unknown=unknown)


def _tokenized(name, tokenizer, documents, length, n_windows):
    """Corpus of the documents in the tokens of a tokenizer."""
    tokens, sizes = _joined(encoded(tokenizer, some) for some in together(documents))
    vocabulary, unknown = tokenizer.vocabulary, tokenizer.unknown
    frequency = np.bincount(tokens, minlength=len(vocabulary))
    n_unknown = int(frequency[vocabulary.index(unknown)]) if unknown else 0
    return Corpus(name, vocabulary, _windows(name, tokens, sizes, sizes, length, unknown, n_windows),
                  n_documents=len(sizes), n_words=len(tokens), n_distinct=int(np.count_nonzero(frequency)),
                  n_left_out=int(np.count_nonzero(sizes <= length)), n_covered=len(tokens) - n_unknown,
                  unknown=unknown)


def _windows(name, tokens, sizes, usable, length, unknown, n_windows):
    """(N, T + 1): the first windows of all documents. ValueError if there is none."""
    begin = window_starts(sizes, usable, length)
    if not len(begin):
        raise _no_window(name, sizes, usable, length, unknown)
    return np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[begin[:n_windows]]


def window_starts(sizes: NDArray, usable: NDArray, length: int) -> NDArray:
    """Where each window begins in the row of all documents; ``usable`` are their sizes, 0 for a document left out."""
    count = np.maximum(usable - 1, 0) // length
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # of the window in its document
    return np.repeat(np.cumsum(sizes) - sizes, count) + number * length


def _no_window(name, sizes, usable, length, unknown):
    """The error that says which other settings would give windows."""
    longest = int(usable.max())
    left = f"is left of the {len(sizes):,} documents of {name}"
    longest_one = f"the longest usable one has {longest} tokens" if longest else "each holds an unknown word"
    shorter = len(window_starts(sizes, usable, longest - 1)) if longest > 1 else 0
    kept = len(window_starts(sizes, sizes, length)) if unknown == OMIT else None

    def sentence(no_window, length_is, unknown_is):
        parts = [f"{no_window} {left}", longest_one]
        if longest > 1:
            parts.append(f"with {length_is(longest - 1)} windows would number {shorter:,}")
        if kept is not None:
            parts.append(f"with {unknown_is} they would number {kept:,}")
        return "; ".join(parts)

    return NoWindow(length, sentence)
