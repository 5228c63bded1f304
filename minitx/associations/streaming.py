"""Statistics of texts of any size: their parts are counted by any executor, and the counts are added.

    texts = Texts.of(["news/", "*.jsonl.gz"], n_vocab=3000, length=64)
    statistics = text_statistics(texts)                                 # or, on a cluster:

    from dask.distributed import Client                                 # the extra dask
    with Client(scheduler_file="scheduler.json").get_executor() as executor:
        statistics = text_statistics(texts, executor=executor, ahead=200)

Each pass reads every part once: for the vocabulary, for the counts, for the scores. ``minitx count`` does the same in
jobs of a batch queue; :mod:`minitx.associations.command_count` gives the five lines.
"""

import hashlib
import json
import time
from collections import Counter
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import Statistics
from minitx.associations.counts import Counts, Scores, digest, read_npz
from minitx.base.checks import instance
from minitx.data.readers import Progress
from minitx.data.streams import Part, Texts, over_parts

SAVED_EVERY = 10.0  # seconds of work after which what is done is saved, or more where saving takes long


def text_statistics(texts: Texts, *, executor: Executor | None = None, ahead: int | None = None,
                    progress: Progress | None = None) -> Statistics:
    """The statistics of all windows of ``texts``, in three passes; the same bits for every executor.

    Parameters are those of :func:`minitx.data.streams.over_parts`.

    Raises
    ------
    ValueError
        A text cannot be read, which is said with its path; or the texts give no window.
    """
    settings: dict[str, Any] = {"executor": executor, "ahead": ahead, "progress": progress}
    instance("texts", texts, Texts)
    texts = texts.with_vocabulary(**settings)
    counts = count_texts(texts, **settings)
    return counts.finish(score_texts(texts, counts, **settings))


def count_texts(texts: Texts, *, keep: str | Path | None = None, **settings: Any) -> Counts:
    """The counts of the windows of all parts of ``texts``, which have their vocabulary.

    Parameters
    ----------
    keep : path, optional
        A file for what is done, written every ten seconds, after Ctrl-C and after an error; a call with the same texts
        goes on from it. It is deleted at the end.
    settings
        Those of :func:`minitx.data.streams.over_parts`.
    """
    return _summed(Counts, count_part, identity(texts), texts, keep, settings)


def score_texts(texts: Texts, counts: Counts, *, keep: str | Path | None = None, **settings: Any) -> Scores:
    """The scores of the windows of all parts of ``texts``, for the finished ``counts``; as :func:`count_texts`."""
    g = counts.score_table()
    of = identity(texts) + digest(g)
    return _summed(Scores, partial(score_part, g=g), of, texts, keep, settings)


def count_part(texts: Texts, part: Part) -> Counts:
    """The counts of the windows of one part."""
    totals: Counter = Counter()
    counts = Counts.of(texts.windows(part, totals), texts.n_vocab, n_tokens=texts.n_tokens,
                       vocabulary=texts.vocabulary)
    return replace(counts, totals=dict(totals))


def score_part(texts: Texts, part: Part, g: NDArray[np.float64]) -> Scores:
    """The scores of the windows of one part."""
    return Scores.of(texts.windows(part, Counter()), g, texts.n_vocab)


def identity(texts: Texts) -> str:
    """SHA-256 of what the counts of ``texts`` follow from: files with their sizes and times, parts, and settings."""
    instance("texts", texts, Texts)
    files = [(str(part.path), part.begin, part.end, part.layout, part.path.stat().st_size, part.path.stat().st_mtime_ns)
             for part in texts.parts]
    settings = [texts.n_vocab, texts.length, texts.n_tokens, texts.unknown, texts.skip_bad]
    vocabulary = texts.tokenizer.vocabulary if texts.tokenizer else None
    return hashlib.sha256(json.dumps([files, settings, vocabulary]).encode()).hexdigest()


def _summed(kind, function, of, texts, keep, settings):
    """The sum of ``function(texts, part)`` over all parts, from where the file ``keep`` says it was left.

    ``of`` says what the sum follows from. A sum and how many parts are in it are replaced together, so that Ctrl-C at
    any moment leaves a pair that belongs together.
    """
    state = _kept(kind, of, keep)
    saved, began, pause = state[1], time.monotonic(), SAVED_EVERY
    try:
        for found in over_parts(partial(function, texts), texts.parts[saved:], **settings):
            state = (found if state[0] is None else state[0] + found, state[1] + 1)
            del found  # it may be as large as the sum
            if keep is not None and time.monotonic() - began > pause:
                began = time.monotonic()
                state[0].save(keep, done=state[1], of=of)
                pause, saved = max(SAVED_EVERY, 20 * (time.monotonic() - began)), state[1]
    except BaseException:
        if keep is not None and state[1] > saved:
            state[0].save(keep, done=state[1], of=of)
        raise
    if keep is not None:
        Path(keep).unlink(missing_ok=True)
    return state[0]


def _kept(kind, of, keep):
    """The sum that ``keep`` holds and how many parts are in it; (None, 0) if it is not there or of other texts."""
    if keep is not None and Path(keep).exists():
        about, _ = read_npz(keep)
        if (about["kind"], about.get("of")) == (kind.__name__.lower(), of):
            return kind.load(keep), about["done"]
    return None, 0
