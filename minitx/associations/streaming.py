"""Statistics of texts of any size: their parts are counted by any executor, and the counts are added.

    texts = Texts.of(["news/", "*.jsonl.gz"], n_vocab=3000, length=64)
    statistics = text_statistics(texts)                                 # or, on a cluster:

    from dask.distributed import Client                                 # the extra dask
    with Client(scheduler_file="scheduler.json").get_executor() as executor:
        statistics = text_statistics(texts, executor=executor, ahead=200)

Each pass reads every part once: for the vocabulary, for the counts, for the scores.
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
from minitx.associations.counts import Counts, Scores, read_npz
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
    return _summed(Counts, count_part, texts, keep, settings)


def score_texts(texts: Texts, counts: Counts, *, keep: str | Path | None = None, **settings: Any) -> Scores:
    """The scores of the windows of all parts of ``texts``, for the finished ``counts``; as :func:`count_texts`."""
    return _summed(Scores, partial(score_part, g=counts.score_table()), texts, keep, settings)


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
    files = [(str(part.path), part.begin, part.end, part.layout, part.path.stat().st_size, part.path.stat().st_mtime_ns)
             for part in texts.parts]
    settings = [texts.n_vocab, texts.length, texts.n_tokens, texts.unknown, texts.skip_bad]
    vocabulary = texts.tokenizer.vocabulary if texts.tokenizer else None
    return hashlib.sha256(json.dumps([files, settings, vocabulary]).encode()).hexdigest()


def _summed(kind, function, texts, keep, settings):
    """The sum of ``function(texts, part)`` over all parts, from where the file ``keep`` says it was left."""
    total, done, of = None, 0, identity(texts)
    if keep is not None and Path(keep).exists():
        about, _ = read_npz(keep)
        if about["kind"] == kind.__name__.lower() and about.get("of") == of:
            total, done = kind.load(keep), about["done"]
    began = time.monotonic()
    pause, saved = SAVED_EVERY, done
    try:
        for found in over_parts(partial(function, texts), texts.parts[done:], **settings):
            total = found if total is None else total + found
            del found  # it may be as large as the total
            done += 1
            if keep is not None and time.monotonic() - began > pause:
                began = time.monotonic()
                total.save(keep, done=done, of=of)
                pause, saved = max(SAVED_EVERY, 20 * (time.monotonic() - began)), done
    except BaseException:
        if keep is not None and done > saved:
            total.save(keep, done=done, of=of)
        raise
    if keep is not None:
        Path(keep).unlink(missing_ok=True)
    return total
