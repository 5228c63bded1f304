"""Tokenizers: texts become token ids, and ids become text again.

Two kinds follow one protocol, :class:`Tokenizer`: words, and the files ``tokenizer.json`` of Hugging Face's package
``tokenizers`` (extra ``bpe``). Neither invents a token for the start or end of a text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import atomic, existing_file, extra_package, whole_number
from minitx.base.shown import Shown
from minitx.data.word_table import WordTable

UNKNOWN = "<unk>"  # no text holds this word, because the word tokenizer makes three tokens of it
BYTES = 256  # tokens that a byte-level vocabulary holds before any two are merged


class Tokenizer(Protocol):
    """What minitx asks of a tokenizer."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """(V,): ``vocabulary[i]`` is the token of id i, as it is shown."""

    @property
    def unknown(self) -> str:
        """The token that stands for what the vocabulary lacks; "" if nothing is lacking."""

    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids of the tokens of ``text``, in order."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids."""


@dataclass(frozen=True, eq=False)
class WordTokenizer(Shown):
    """The words of :func:`minitx.data.word_table.split_words`.

    A word outside the ``vocabulary`` has the id of ``<unk>``, or -1 without one.
    """

    MADE_BY: ClassVar[str] = "WordTokenizer(corpus.vocabulary)"

    vocabulary: tuple[str, ...]

    @property
    def unknown(self) -> str:
        """``<unk>``, or "" where the vocabulary lacks it."""
        return UNKNOWN if UNKNOWN in self.vocabulary else ""

    @cached_property
    def _table(self):
        """The words by number, and the id of what is outside."""
        return WordTable(self.vocabulary), self.vocabulary.index(UNKNOWN) if UNKNOWN in self.vocabulary else -1

    def __reduce__(self):
        return WordTokenizer, (self.vocabulary,)

    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids of the words of ``text``, in order."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of the words of several texts, one text after the other, and how many words each text has."""
        table, outside = self._table
        return table.look_up(texts, outside)

    def decode(self, ids: Sequence[int]) -> str:
        """The words of these ids with spaces between them; spaces and capitals of the text are lost."""
        return " ".join(self.vocabulary[i] for i in ids)


@dataclass(frozen=True, eq=False)
class FileTokenizer(Shown):
    """A tokenizer of the package ``tokenizers``, such as byte-level byte pairs; make one with ``read`` or ``train``."""

    MADE_BY: ClassVar[str] = "FileTokenizer.read('tokenizer.json') or FileTokenizer.train(documents, n_vocab=...)"

    inner: Any = field(repr=False)  # the tokenizers.Tokenizer

    @classmethod
    def read(cls, path: str | Path) -> "FileTokenizer":
        """Read a file ``tokenizer.json``; its padding and truncation are switched off.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no such file, it holds no tokenizer, or the package ``tokenizers`` is not installed.
        """
        path = existing_file(path, "a tokenizer.json")
        package = _package()
        try:
            inner = package.Tokenizer.from_file(str(path))
        except Exception as error:  # the package has no narrower class
            raise ValueError(f"{path} holds no tokenizer ({error}); give a tokenizer.json of the package tokenizers, "
                             "or make one with `minitx tokenizer TEXT`") from error
        inner.no_padding()
        inner.no_truncation()
        return cls(inner)

    @classmethod
    def train(cls, documents: Iterable[str], *, n_vocab: int) -> "FileTokenizer":
        """Train byte-level byte pairs: from the 256 bytes, merge the most frequent pair until there are V tokens.

        ``n_vocab`` is V, at least 257; the vocabulary is smaller when no pair is left. Raises ValueError if there is no
        document, or the package ``tokenizers`` is not installed.
        """
        n_vocab, package = whole_number("n_vocab", n_vocab, BYTES + 1), _package()
        byte_level = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner = package.Tokenizer(package.models.BPE())
        inner.pre_tokenizer, inner.decoder = byte_level, package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(vocab_size=n_vocab, initial_alphabet=byte_level.alphabet(),
                                              show_progress=False)
        inner.train_from_iterator(documents, trainer)
        return cls(inner)

    def save(self, path: str | Path) -> None:
        """Write the file ``tokenizer.json``, whole or not at all."""
        with atomic(path) as file:
            file.write(self.inner.to_str(pretty=True))

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """(V,): a token as the file names it; byte-level ones write a space as Ġ. An id without a token is <id i>."""
        named = {i: token for token, i in self.inner.get_vocab(with_added_tokens=True).items()}
        return tuple(named.get(i, f"<id {i}>") for i in range(max(named, default=-1) + 1))

    @cached_property
    def unknown(self) -> str:
        """The model's token for what it lacks; "" for byte-level ones, which lack nothing."""
        return getattr(self.inner.model, "unk_token", None) or ""

    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids of the tokens of ``text``, in order, without special tokens."""
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; of byte-level ones, exactly the text that was encoded."""
        return self.inner.decode([int(i) for i in ids], skip_special_tokens=False)


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The ids of several texts, one text after the other, and how many ids each text has."""
    if isinstance(tokenizer, WordTokenizer):
        return tokenizer.encode_all(texts)
    ids = [tokenizer.encode(text) for text in texts]
    return np.concatenate(ids), np.array([len(row) for row in ids])


def _package():
    return extra_package("tokenizers", "tokenizers of files", "the package tokenizers", "bpe")
