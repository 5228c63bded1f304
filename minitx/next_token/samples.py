"""Samples of the next-token theory: sequences and labels as counts of tokens, which is all that attention sees here.

Samples come from sequences and labels, from the prefixes of texts, or from a file: JSON lines of {"tokens": [...],
"label": ...}, whose tokens are strings or whole numbers.

Legend: n samples, K tokens in the vocabulary, M distinct tokens of all sequences together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import described, function, integers, reals, require_shapes, table_size, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.data.readers import file_kind, read_json_lines


@dataclass(frozen=True, eq=False)
class Bags(Shown):
    """Bags of tokens, one a sample, each with its last token and its label: what the losses are computed from.

    TypeError or ValueError says which array has another shape, or does not hold integers where it must.
    """

    last: NDArray[np.int64]  # (n,): k, the last token of each sequence
    starts: NDArray[np.int64]  # (n + 1,): the distinct tokens of sample i are tokens[starts[i]:starts[i + 1]]
    tokens: NDArray[np.int64]  # (M,): the distinct tokens, sample by sample
    counts: NDArray[np.float64]  # (M,): N_ij, how often each occurs in its sequence
    label_at: NDArray[np.int64]  # (n,): tokens[label_at[i]] is the label of sample i
    share: NDArray[np.float64]  # (n,): weight of each sample in the mean loss

    def __post_init__(self):
        for name in ("last", "starts", "tokens", "label_at"):
            object.__setattr__(self, name, integers(name, getattr(self, name), 1))
        for name in ("counts", "share"):
            object.__setattr__(self, name, reals(name, getattr(self, name)))
        letters = {"last": ["n"], "starts": ["n+1"], "tokens": ["M"], "counts": ["M"], "label_at": ["n"],
                   "share": ["n"]}
        require_shapes({name: getattr(self, name) for name in letters}, letters, empty=True)

    def __len__(self) -> int:
        """n."""
        return len(self.last)

    def owner(self) -> NDArray[np.int64]:
        """Number of the sample that each entry of ``tokens`` belongs to. (M,)"""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


@dataclass(frozen=True, eq=False)
class Samples(Bags):
    """Sequences and their labels (paper, Section 2). Build them with ``of`` or ``prefixes``.

    Samples of the same last token, counts and label are merged and stand in a canonical order, so that no bit of any
    result changes when all samples are given twice, or in another order. ``last`` is ascending; so are the tokens of
    each sample.
    """

    MADE_BY: ClassVar[str] = "Samples.of(sequences, labels) or Samples.prefixes(texts), such as corpus.tokens"

    n_vocab: int  # K
    labels: NDArray[np.int64]  # (n,): y, which occurs in its sequence
    sequences: tuple[NDArray[np.int64], ...]  # one each, in its own order (the smallest of those that were merged)
    n_given: int  # number of samples before merging; ``share`` is relative to it, and sums to 1
    n_left_out: int = 0  # number of prefixes left out because their label does not occur in them, or is unknown

    @classmethod
    def of(cls, sequences: Sequence, labels: ArrayLike, n_vocab: int | None = None) -> Samples:
        """Samples from sequences and their labels.

        Parameters
        ----------
        sequences : list of sequences of integers, or (n, T) integers
            Token ids; the last one of each is the query.
        labels : (n,) integers
            Each must occur in its sequence.
        n_vocab : int, optional
            K. Default: 1 + the largest id.

        Raises TypeError if ``sequences`` are none; ValueError if there are no samples, or so large a K that a table of
        K x K scores cannot be; for sequences that are empty or not one-dimensional, ids that are not
        integers in [0, K), and labels that are not n integers or do not occur.
        """
        sequences, n_vocab = _checked(sequences, n_vocab, "sequence")
        try:
            labels = np.asarray(labels)
        except ValueError:  # ragged
            raise ValueError("labels must be integers, one for each sequence, but some are sequences") from None
        if labels.shape != (len(sequences),):
            raise ValueError(f"{len(sequences)} sequences but labels of shape {labels.shape}; give one label for each "
                             "sequence")
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers, got dtype {labels.dtype}; give ids of tokens")
        labels = labels.astype(np.int64)
        for i, (sequence, label) in enumerate(zip(sequences, labels, strict=True)):
            if label not in sequence:
                raise ValueError(f"sample {i}: label {label} does not occur in its sequence {shown(sequence)}; "
                                 "attention can only retrieve what is there: leave it out, or correct the label")
        return _merged(sequences, labels, n_vocab)

    @classmethod
    def prefixes(cls, texts: Sequence, n_vocab: int | None = None, *, unknown: int | None = None) -> Samples:
        """Samples from texts: every prefix is a sequence, and its label is the token that follows.

        A prefix in which the next token does not occur is left out, and counted in ``n_left_out``.

        Parameters
        ----------
        texts : list of sequences of integers, or (N, T + 1) integers
            Token ids, such as ``Corpus.tokens``.
        n_vocab : int, optional
            K. Default: 1 + the largest id.
        unknown : int, optional
            A token that stands for many, such as a Corpus's <unk> (id 0). It is never a label, because the word that
            follows a prefix need not be the one that <unk> stands for within it: such prefixes are left out, and
            counted.

        Raises as :meth:`of`; ValueError also if no prefix is left.
        """
        texts, n_vocab = _checked(texts, n_vocab, "text")
        if unknown is not None:
            whole_number("unknown", unknown, 0)
        sequences, labels, n_left_out = [], [], 0
        for text in texts:
            _, first, which = np.unique(text, return_index=True, return_inverse=True)
            occurs = first[which] < np.arange(len(text))
            used = np.flatnonzero(occurs if unknown is None else occurs & (text != unknown))
            n_left_out += len(text) - 1 - len(used)
            sequences += [text[:t] for t in used]
            labels.append(text[used])
        if not sequences:
            raise ValueError(f"no samples: of the {n_left_out} prefixes none holds the token that follows it; give "
                             "longer texts")
        return _merged(sequences, np.concatenate(labels), n_vocab, n_left_out)

    def batch(self) -> Batch:
        """The same samples for the circuits: causal, with the loss -log(out[y]) of the last position, by ``share``."""
        lengths = np.array([len(sequence) for sequence in self.sequences])
        tokens = np.zeros((len(self), lengths.max()), np.int64)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(self.sequences)
        targets, weight = np.zeros_like(tokens), np.zeros(tokens.shape)
        at_last = np.arange(len(self)), lengths - 1
        targets[at_last], weight[at_last] = self.labels, self.share
        return Batch(tokens, targets, weight, lengths=lengths, causal=True, head="log")


def _checked(given, n_vocab, what):
    """(``given`` as a list of non-empty (length,) int64 arrays, K)."""
    if isinstance(given, (str, bytes, Samples)) or not isinstance(given, Iterable):
        raise TypeError(f"the {what}s are {described(given)}; they must be lists of token ids, or rows of an array")
    sequences = [token_ids(f"{what} {i}", sequence) for i, sequence in enumerate(given)]
    if not sequences:
        raise ValueError("no samples: give at least one sequence")
    largest = max(int(sequence.max()) for sequence in sequences)
    n_vocab = max(largest, 0) + 1 if n_vocab is None else whole_number("n_vocab", n_vocab, 1)
    table_size(f"a vocabulary of {n_vocab:,} tokens (number them 0, 1, 2, ... without gaps)", n_vocab, n_vocab)
    for i, sequence in enumerate(sequences):
        require_known(f"{what} {i} holds", sequence, n_vocab, "; correct it, or give a larger n_vocab")
    return sequences, n_vocab


def require_known(who_holds: str, ids: NDArray, n_vocab: int, advice: str = "") -> None:
    """Raise ValueError unless all ``ids`` lie in [0, n_vocab)."""
    bad = ids[(ids < 0) | (ids >= n_vocab)]
    if len(bad):
        raise ValueError(f"token ids must lie in [0, {n_vocab}), but {who_holds} {bad[0]}{advice}")


def token_ids(name: str, sequence: ArrayLike) -> NDArray[np.int64]:
    """``sequence`` as a (length,) int64 array. Raises ValueError unless it is non-empty, 1-D and holds integers."""
    try:
        array = np.asarray(sequence)
    except ValueError:  # ragged
        array = np.empty(0)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty 1-D array of token ids, got {shown(sequence)}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: token ids must be integers, got dtype {array.dtype}")
    return integers(name, array, 1)


def shown(sequence: ArrayLike) -> str:
    """A sequence as errors show it: only its beginning if it is long."""
    text = str(sequence.tolist() if isinstance(sequence, np.ndarray) else sequence)
    return text if len(text) <= 60 else text[:57] + "..."


def visible(sequence: ArrayLike) -> tuple[int, ...]:
    """All that attention sees of a sequence: its last token, then its tokens in ascending order."""
    ids = np.asarray(sequence)
    return int(ids[-1]), *np.sort(ids).tolist()


def _merged(sequences, labels, n_vocab, n_left_out=0):
    """Samples of checked sequences: equal ones merged, ordered by (last token, label, size, tokens, counts)."""
    # 1. What attention sees of each sample; how many samples look the same, and the smallest of their sequences
    times, smallest = Counter(), {}
    for sequence, label in zip(sequences, labels.tolist(), strict=True):
        ids = sequence.tolist()
        tokens, counts = zip(*sorted(Counter(ids).items()), strict=True)
        seen = ids[-1], label, len(tokens), tokens, counts
        times[seen] += 1
        smallest[seen] = min(ids, smallest.get(seen, ids))
    # 2. The canonical order, column by column
    order = sorted(times)
    last, labels, sizes, tokens, counts = zip(*order, strict=True)
    tokens = np.array(list(chain(*tokens)), np.int64)
    return Samples(last=np.array(last, np.int64), labels=np.array(labels, np.int64), tokens=tokens,
                   starts=np.append(0, np.cumsum(sizes)), counts=np.array(list(chain(*counts)), np.float64),
                   label_at=np.flatnonzero(tokens == np.repeat(labels, sizes)),
                   share=np.array([times[seen] for seen in order]) / len(sequences), n_vocab=n_vocab,
                   sequences=tuple(np.array(smallest[seen], np.int64) for seen in order), n_given=len(sequences),
                   n_left_out=n_left_out)


# ---------------------------------------------------------------------------------------------------- files of samples


@dataclass(frozen=True, eq=False)
class SampleFile(Shown):
    """What a file of n samples holds."""

    vocabulary: tuple[str, ...]  # entry i is the token of id i: numbers ascending, strings by first appearance
    sequences: list[list[int]]  # n
    labels: list[int]  # n
    n_left_out: int  # number of samples left out because their label does not occur in their tokens


def holds_samples(path: str | Path) -> bool:
    """Whether a file is one of samples: named .jsonl (or .jsonl.gz), its first line an object with "tokens".

    An object with a "label" and no "text" counts too: then "tokens" is misspelt, and :func:`read_samples` says so.
    """
    if file_kind(path) != ".jsonl":
        return False
    _, first = next(iter(read_json_lines(path)), (None, None))
    return isinstance(first, dict) and ("tokens" in first or ("label" in first and "text" not in first))


def read_samples(path: str | Path, *, n_samples: int | None = None,
                 progress: Callable[[int, int], object] | None = None) -> SampleFile:
    """Read a file of samples. One whose label does not occur in its tokens is left out, and counted.

    Parameters
    ----------
    path : str or Path
        ``.jsonl``, or ``.jsonl.gz``; UTF-8.
    n_samples : int, optional
        The most samples to read.
    progress : callable, optional
        ``progress(bytes_done, bytes_in_file)`` is called while reading.

    Raises FileNotFoundError if there is no such file, and ValueError for a line that is not such an object and if no
    sample can be used.
    """
    if n_samples is not None:
        whole_number("n_samples", n_samples, 1)
    if progress is not None:
        function("progress", progress, "progress(bytes_done, bytes_in_file)")
    sequences: list[list] = []
    labels: list = []
    n_left_out = 0
    for place, item in read_json_lines(path, progress=progress):
        tokens, label = _sample(place, item, kind=type(labels[0]) if labels else None)
        if label in tokens:
            sequences.append(tokens)
            labels.append(label)
        else:
            n_left_out += 1
        if len(labels) == n_samples:
            break
    if not labels:
        raise ValueError(f"no samples: {path} holds {n_left_out or 'no'} samples, and none whose label occurs among "
                         "its tokens")
    distinct = dict.fromkeys(token for tokens in sequences for token in tokens)
    words = sorted(distinct) if isinstance(labels[0], int) else list(distinct)
    number = {word: i for i, word in enumerate(words)}
    return SampleFile(tuple(map(str, words)), [[number[token] for token in tokens] for tokens in sequences],
                      [number[label] for label in labels], n_left_out)


def _sample(place, item, kind):
    """(tokens, label) of one line; all must be of type ``kind``, where that is known."""
    if not isinstance(item, dict) or not {"tokens", "label"} <= set(item):
        found = f"the fields {', '.join(item) or '(none)'}" if isinstance(item, dict) else f"a {type(item).__name__}"
        raise ValueError(f'{place}: found {found}; an object with the fields "tokens" and "label" is needed')
    tokens, label = item["tokens"], item["label"]
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f'{place}: "tokens" must be a non-empty list of strings or whole numbers')
    kind, kinds = kind or (int if type(label) is int else str), {int: "whole numbers", str: "strings"}
    for value in (*tokens, label):
        if type(value) is not kind:  # True is no number here
            raise ValueError(f"{place}: {value!r} is of type {type(value).__name__}; tokens and labels must be "
                             f"strings, or all of them whole numbers: here {kinds[kind]}")
    try:
        "".join(map(str, (*tokens, label))).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: a token holds half a character (a lone \\ud800 to \\udfff), not valid in "
                         "UTF-8") from error
    return tokens, label
