"""Texts of any size: files are cut into parts, parts are read by any executor, and memory never holds a whole text.

:class:`Texts` says what to read and how. Its parts are small values, so that a task for another process or machine is a
function and a part; :func:`over_parts` runs such tasks and gives their results in the order of the parts.

Legend: T = ``length`` positions of a window, V vocabulary, K <= V tokens that are told apart.
"""

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import described, existing_file, one_of, truth, whole_number
from minitx.base.shown import Shown
from minitx.data.corpus import OMIT, window_starts
from minitx.data.readers import LAYOUTS, TEXT_FILE, Progress, cut, read_part, together
from minitx.data.tokenizers import UNKNOWN, Tokenizer, WordTokenizer, encoded
from minitx.data.word_table import WordTable

PART = 2**25  # Bytes of a part. Larger parts cost fewer additions of tables; less is lost when a run is killed.


@dataclass(frozen=True)
class Part:
    """The bytes ``begin`` to ``end`` of a file (None: its end), which hold whole documents."""

    path: Path
    begin: int
    end: int | None
    layout: str | None  # of a plain text

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return (self.path.stat().st_size if self.end is None else self.end) - self.begin


@dataclass(frozen=True, eq=False)
class Texts(Shown):
    """What is read, and how it becomes windows of tokens. Make one with :meth:`of`, then :meth:`with_vocabulary`."""

    MADE_BY: ClassVar[str] = "minitx.data.Texts.of(names, n_vocab=..., length=...)"

    parts: tuple[Part, ...]
    n_vocab: int  # V; of words, it becomes smaller when the texts have fewer
    length: int  # T
    n_tokens: int | None  # K, or None for all
    unknown: str  # "<unk>" or "omit", for words
    tokenizer: Tokenizer | None  # None until the vocabulary of words is known
    ranks: NDArray[np.int32] | None  # (V,): the place of each id by frequency; None where all are told apart
    skip_bad: bool

    @classmethod
    def of(cls, names: str | Path | Iterable[str | Path], *, length: int, n_vocab: int | None = None,
           tokenizer: Tokenizer | None = None, n_tokens: int | None = None, unknown: str = UNKNOWN,
           layout: str | None = None, skip_bad: bool = False, part_size: int = PART) -> "Texts":
        """Texts of files.

        Parameters
        ----------
        names : path, or list of paths
            Files, folders (all files in them that are not hidden) and patterns such as ``"*.jsonl"``.
        length, n_vocab, tokenizer, unknown
            As in :func:`minitx.load_corpus`.
        n_tokens : int, optional
            Tell only the K most frequent tokens of the vocabulary apart.
        layout : {"lines", "paragraphs", "endoftext"}, optional
            As in :func:`minitx.data.read_documents`, for plain texts.
        skip_bad : bool
            Count lines of JSON that hold no text, and leave them out, instead of refusing them.
        part_size : int
            Bytes of a part.

        Raises
        ------
        FileNotFoundError, TypeError, ValueError
            Nothing has such a name, a folder holds no file, a file is named twice, settings out of range.
        """
        if (tokenizer is None) == (n_vocab is None):
            raise ValueError("give either n_vocab, the size of a vocabulary of words, or a tokenizer")
        one_of("layout", layout, (*LAYOUTS, None))
        one_of("unknown", unknown, (UNKNOWN, OMIT))
        part_size = whole_number("part_size", part_size, 1)
        size = len(tokenizer.vocabulary) if tokenizer else whole_number("n_vocab", n_vocab, 2)
        if n_tokens is not None:
            n_tokens = whole_number("n_tokens", n_tokens, 2, most=size)
        parts = [Part(path, *edges) for path in text_files(names) for edges in cut(path, part_size, layout)]
        return cls(tuple(parts), size, whole_number("length", length, 1), n_tokens, unknown, tokenizer, None,
                   truth("skip_bad", skip_bad))

    @property
    def needs_vocabulary(self) -> bool:
        """Whether tokens must be counted before windows can be."""
        return self.tokenizer is None or self.n_tokens is not None and self.ranks is None

    def with_vocabulary(self, *, executor: Executor | None = None, ahead: int | None = None,
                        progress: Progress | None = None) -> "Texts":
        """These texts with their vocabulary: the first pass, which counts words or the tokens of a tokenizer.

        Words are ordered by frequency; of equally frequent ones the first in the texts comes first. Parameters are
        those of :func:`over_parts`. ValueError if the texts hold fewer than two different words.
        """
        if not self.needs_vocabulary:
            return self
        counted: Counter = Counter()
        for found in over_parts(partial(_count_tokens, self), self.parts, executor=executor, ahead=ahead,
                                progress=progress):
            counted.update(found)
        if self.tokenizer is not None:
            return self.ranked(sorted(range(self.n_vocab), key=lambda i: -counted[i]))
        special = (UNKNOWN,) * (self.unknown == UNKNOWN)
        words = (*special, *(word for word, _ in counted.most_common(self.n_vocab - len(special))))
        if len(words) < 2 or not counted:
            raise ValueError(f"{self.shown}: found {len(counted)} different words; at least two are needed")
        known = replace(self, tokenizer=WordTokenizer(words), n_vocab=len(words))
        if self.n_tokens is None:
            return known
        return replace(known, n_tokens=min(self.n_tokens, len(words)), ranks=np.arange(len(words), dtype=np.int32))

    def ranked(self, order: Sequence[int]) -> "Texts":
        """These texts, when ``order`` (V,) are the ids by frequency."""
        ranks = np.empty(self.n_vocab, np.int32)
        ranks[np.asarray(order)] = np.arange(self.n_vocab)
        return replace(self, ranks=ranks)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The K tokens that are told apart, by the id that they have in windows. ValueError if they are not known."""
        words = self._known().vocabulary
        return words if self.ranks is None else tuple(words[i] for i in np.argsort(self.ranks)[:self.n_tokens])

    def _known(self) -> Tokenizer:
        if self.tokenizer is None or self.needs_vocabulary:
            raise ValueError("these texts have no vocabulary yet; use texts.with_vocabulary()")
        return self.tokenizer

    @property
    def shown(self) -> str:
        """The texts as messages name them."""
        paths = list(dict.fromkeys(part.path for part in self.parts))
        return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3:,} more files" if len(paths) > 3 else "")

    def windows(self, part: Part, totals: Counter) -> Iterator[NDArray[np.int32]]:
        """The windows of a part, (n, T + 1) some at a time; adds to ``totals`` what was read.

        ValueError if the vocabulary is not known.
        """
        tokenizer = self._known()
        for documents in together(_documents(self, part, totals)):
            yield self._windows(*encoded(tokenizer, documents), totals)

    def _windows(self, tokens, sizes, totals):
        outside = np.flatnonzero(tokens < 0)
        usable = sizes.copy()
        usable[np.searchsorted(np.cumsum(sizes), outside, side="right")] = 0
        begin = window_starts(sizes, usable, self.length)
        unknown = self.tokenizer.unknown
        n_unknown = np.count_nonzero(tokens == self.tokenizer.vocabulary.index(unknown)) if unknown else len(outside)
        totals["documents without a window"] += int(np.count_nonzero(usable <= self.length))
        totals["tokens"] += len(tokens)
        totals["tokens in the vocabulary"] += len(tokens) - int(n_unknown)
        if self.ranks is not None:
            tokens = np.where(tokens < 0, tokens, self.ranks[tokens])
        if len(tokens) <= self.length:
            return np.empty((0, self.length + 1), np.int32)
        return np.lib.stride_tricks.sliding_window_view(tokens, self.length + 1)[begin]


def _documents(texts, part, totals):
    """The documents of a part; counts them, and the lines that are skipped."""
    skipped = (lambda message: totals.update({"lines skipped": 1})) if texts.skip_bad else None
    for document in read_part(part.path, part.begin, part.end, layout=part.layout, bad=skipped):
        totals["documents"] += 1
        yield document


def _count_tokens(texts, part):
    """How often each word, or each id of a tokenizer, occurs in a part; in order of first appearance."""
    table, frequency = WordTable(), np.zeros(0, np.int64)
    encode = table.number if texts.tokenizer is None else partial(encoded, texts.tokenizer)
    for documents in together(_documents(texts, part, Counter())):
        found = np.bincount(encode(documents)[0], minlength=len(frequency))
        found[:len(frequency)] += frequency
        frequency = found
    names = table.words if texts.tokenizer is None else range(len(frequency))
    return dict(zip(names, frequency.tolist(), strict=True))


def text_files(names: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files of these names: files, all files in folders, and what patterns such as ``*.txt`` match; each sorted.

    Hidden files in folders are left out. FileNotFoundError if nothing has a name; ValueError if a folder holds no file,
    or a file is named twice.
    """
    found: list[Path] = []
    named = [names] if isinstance(names, (str, os.PathLike)) or not isinstance(names, Iterable) else names
    for name in named:
        if isinstance(name, str) and not os.path.exists(name) and (matches := sorted(glob.glob(name, recursive=True))):
            found += (path for match in matches if (path := Path(match)).is_file())
        elif isinstance(name, (str, os.PathLike)) and Path(name).is_dir():
            inside = sorted(path for path in Path(name).rglob("*") if path.is_file()
                            and not any(part.startswith(".") for part in path.relative_to(name).parts))
            if not inside:
                raise ValueError(f"the folder {name} holds no file; name one with texts in it")
            found += inside
        else:
            found.append(existing_file(name, TEXT_FILE))
    if not found:
        raise ValueError(f"{described(names)} names no file; give at least one text")
    times = Counter(path.resolve() for path in found)
    if twice := [path for path in found if times[path.resolve()] > 1]:
        raise ValueError(f"{twice[0]} is named twice; its text would count twice")
    return found


def over_parts(function: Callable[[Part], Any], parts: Sequence[Part], *, executor: Executor | None = None,
               ahead: int | None = None, progress: Progress | None = None) -> Iterator[Any]:
    """Iterate over ``function(part)`` in the order of the parts.

    Parameters
    ----------
    function : callable
        It must be picklable for processes and other machines, which must find the files under the same paths.
    executor : concurrent.futures.Executor, optional
        Where tasks run: threads, processes, ``dask.distributed.Client(...).get_executor()``. Default: here.
    ahead : int, optional
        Most tasks that are started before the first of them is done; twice the number of workers keeps all at work.
        Default: twice the number of cores.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_of_all_parts)`` after each part.

    Raises
    ------
    ChildProcessError
        A worker ended before its task did, such as one that was killed; the message names the part.
    """
    total, done = sum(part.size for part in parts), 0
    ahead = 2 * (os.cpu_count() or 1) if ahead is None else whole_number("ahead", ahead, 1)
    rest, started = deque(parts), deque()  # type: ignore[var-annotated]
    try:
        while rest or started:
            while executor is not None and rest and len(started) < ahead:
                started.append((rest[0], executor.submit(function, rest.popleft())))
            part, future = started.popleft() if executor else (rest.popleft(), None)
            result = future.result() if future else function(part)
            done += part.size
            if progress is not None:
                progress(done, total)
            yield result
            del result, future  # a result may be large
    except BrokenExecutor as error:
        raise ChildProcessError(f"a worker ended before it had read {part.path} from byte {part.begin:,} on; run "
                                "again, with fewer workers if memory was short") from error
    finally:
        for _, future in started:
            future.cancel()
