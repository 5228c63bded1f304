"""What ``minitx automaton`` works on: generated samples, a file of samples, or a text; and contexts that are held out.

Legend: n samples, C held-out contexts, K tokens, k the last token of a sequence.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.console import read_with_bar
from minitx.base.numbers import total_variation
from minitx.data.corpus import UNKNOWN, load_corpus
from minitx.next_token.automaton import Prediction
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.law import PriorityLaw, unseen_contexts
from minitx.next_token.samples import Samples, read_samples, visible

HELD_OUT = 10  # one of so many windows of a text is held out; these are the last windows
_TRIES = 20  # draws for each context that is asked for, before fewer are accepted


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and held-out contexts."""

    name: str
    about: str  # what the data are, in a few lines
    vocabulary: tuple[str, ...] | None  # words of the tokens; None if these have no names but their ids
    samples: Samples
    contexts: list[NDArray[np.int64]]  # C token sequences; none has the last token and the counts of a sample
    origin: str  # where the contexts come from
    law: PriorityLaw | None = None  # the law that generated samples are drawn from
    without: str = "nearly all contexts like the samples are samples"  # why there are none although some were wanted


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out contexts of ``data`` with their C predictions, and the attention of each trained model on them."""

    data: Data
    predictions: list[Prediction]
    trained: dict[str, NDArray[np.float64]]  # {mode: (C, K)}, row = context, column = attended token

    @property
    def status(self) -> NDArray[np.str_]:
        """(C,) statuses of the predictions."""
        return np.array([prediction.status for prediction in self.predictions], dtype=str)

    @property
    def limit(self) -> NDArray[np.float64]:
        """(C, K) predicted attention."""
        return np.array([prediction.p for prediction in self.predictions]).reshape(-1, self.data.samples.n_vocab)

    @cached_property
    def distances(self) -> dict[str, NDArray[np.float64]]:
        """{mode: (C,)} total variation between trained and predicted attention."""
        return {mode: total_variation(self.limit, p) for mode, p in self.trained.items()}


def load(options: Any) -> Data:
    """The data that the options of :mod:`minitx.next_token.command` ask for."""
    data_rng, law_rng, context_rng = np.random.default_rng(options.seed).spawn(3)
    if options.source == "generated":
        return _generated(options, law_rng, data_rng, context_rng)
    return (_file if options.source == "samples" else _text)(options, context_rng)


def _generated(options, law_rng, data_rng, context_rng):
    K, T = options.vocabulary, options.length
    law = PriorityLaw.random(K, options.classes, rng=law_rng)
    drawn = law.samples(options.samples, T, rng=data_rng)
    try:
        contexts = unseen_contexts(drawn.sequences, options.contexts, T, K, rng=context_rng)
    except ValueError:  # nearly all contexts occur in the samples
        contexts = ()
    classes = f"{options.classes} class{'es' * (options.classes > 1)}"
    about = (f"{len(drawn):,} samples of {T} tokens are drawn from a vocabulary of {K}; each last token ranks the "
             f"vocabulary in {classes} (seed {options.seed})")
    samples = Samples.of(drawn.sequences, drawn.labels, K)
    return Data(f"generated, n = {len(drawn)}, T = {T}, K = {K}", about, None, samples, list(contexts),
                f"{T} tokens each, drawn at random", law)


def _file(options, rng):
    read = read_with_bar(read_samples, options.text, n_samples=options.samples)
    samples = Samples.of(read.sequences, read.labels, len(read.vocabulary))
    name = Path(options.text).name.encode("utf-8", "replace").decode()
    shortest, longest = min(map(len, read.sequences)), max(map(len, read.sequences))
    length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    about = f"{name}: {len(read.labels):,} samples of {length} tokens, {len(read.vocabulary):,} distinct tokens"
    if read.n_left_out:
        about += f"; left out, because the label is not among the tokens: {read.n_left_out:,}"
    return Data(name, about, read.vocabulary, samples, _recombined(samples, options.contexts, rng),
                "last token and length from a sample, other tokens drawn from those that occur with that last token")


def _text(options, rng):
    corpus = read_with_bar(load_corpus, options.text, n_vocab=options.vocabulary, length=options.length,
                   n_windows=options.windows)
    n_held_out = len(corpus.tokens) // HELD_OUT
    n_train = len(corpus.tokens) - n_held_out
    unknown = corpus.id(UNKNOWN)
    samples = Samples.prefixes(corpus.tokens[:n_train], len(corpus.vocabulary), unknown=unknown)
    seen = set(map(visible, samples.sequences))
    contexts = [row[:t] for row in corpus.tokens[n_train:] for t in range(1, len(row))
                if row[t] != unknown and row[t] in row[:t] and visible(row[:t]) not in seen]
    chosen = np.sort(rng.permutation(len(contexts))[:options.contexts])
    about = (f"{corpus.summary()}\n"
             f"limited to  {options.vocabulary:,} words, the first {options.windows:,} windows, prefixes of up to "
             f"{options.length} tokens (--vocabulary, --windows, --length)\n"
             f"samples     {samples.n_given:,} prefixes of the first {n_train:,} windows, {len(samples):,} distinct\n"
             f"left out    {samples.n_left_out:,} prefixes, whose next word is {UNKNOWN} or not among their words")
    without = (f"every prefix of the last {n_held_out:,} windows occurs in the samples" if n_held_out else
               f"one of {HELD_OUT} windows is held out, but there are only {n_train:,} windows (--length, --windows)")
    return Data(corpus.name, about, corpus.vocabulary, samples, [contexts[i].astype(np.int64) for i in chosen],
                f"prefixes of the last {n_held_out:,} windows, followed by one of their tokens", without=without)


def _recombined(samples, n_contexts, rng):
    """Up to ``n_contexts`` contexts like the samples with other counts; fewer where nearly all are samples."""
    seen, found = set(map(visible, samples.sequences)), []
    tokens = {k: graph.tokens for k, graph in priority_graphs(samples).items()}
    for i in rng.integers(len(samples), size=_TRIES * n_contexts):
        like = samples.sequences[i]
        context = np.append(rng.choice(tokens[int(like[-1])], size=len(like) - 1), like[-1])
        if visible(context) not in seen:
            found.append(context)
            seen.add(visible(context))
        if len(found) == n_contexts:
            break
    return found
