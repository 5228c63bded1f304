"""What ``minitx automaton`` works on: generated samples, a file of samples, or a text; and contexts that are held out.

Legend: n samples, K tokens, k the last token of a sequence.
"""

from dataclasses import dataclass

import numpy as np

from minitx.base.console import progress_bar
from minitx.data.corpus import UNKNOWN, load_corpus
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.law import PriorityLaw, unseen_contexts
from minitx.next_token.sample_files import read_samples
from minitx.next_token.samples import Samples

HELD_OUT = 10  # of the windows of a text one in so many, the last ones
_TRIES = 20  # draws of a context, of each that is wanted


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and held-out contexts.

    Attributes
    ----------
    name, about : str
        What it is, in a few words and in a few lines.
    vocabulary : tuple of str, K, or None
        Words of the tokens; None: they have no names but their ids.
    samples : Samples
    contexts : list of (length,) int64 arrays
        None of them has the last token and the counts of a sample; empty where nearly all have.
    origin : str
        Where the contexts are from.
    without : str
        Why there are none, where there are none although some were asked for.
    law : PriorityLaw or None
        What generated samples are drawn from.
    """

    name: str
    about: str
    vocabulary: tuple | None
    samples: Samples
    contexts: list
    origin: str
    law: PriorityLaw | None = None
    without: str = "nearly all that are like the samples were seen"


def load(options):
    """The Data that :class:`minitx.next_token.command.Options` ask for."""
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
    except ValueError:  # nearly all were seen
        contexts = ()
    classes = f"{options.classes} class{'es' * (options.classes > 1)}"
    return Data(f"generated, n = {len(drawn)}, T = {T}, K = {K}",
                f"{len(drawn):,} samples of {T} tokens out of {K}; each last token ranks them in {classes}, seed {options.seed}",
                None, Samples.of(drawn.sequences, drawn.labels, K), list(contexts), f"drawn at random, {T} tokens each", law)


def _file(options, rng):
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:
        read = read_samples(options.text, absent=options.absent, n_samples=options.samples, progress=_progress(bar))
    samples = Samples.of(read.sequences, read.labels, len(read.vocabulary))
    shortest, longest = min(map(len, read.sequences)), max(map(len, read.sequences))
    length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    about = (f"{_file_name(options)}: {len(read.labels):,} samples of {length} tokens, {len(read.vocabulary):,} "
             f"distinct{_left_out(read.n_left_out)}")
    contexts = _recombined(samples, options.contexts, rng)
    return Data(_file_name(options), about, read.vocabulary, samples, contexts,
                "last token and length of a sample, the other tokens drawn from those that occur with that last token")


def _text(options, rng):
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:
        corpus = load_corpus(options.text, n_vocab=options.vocabulary, length=options.length, n_windows=options.windows,
                             progress=_progress(bar))
    n_train = len(corpus.tokens) - len(corpus.tokens) // HELD_OUT
    K = len(corpus.vocabulary)
    unknown = corpus.id(UNKNOWN)
    samples = Samples.prefixes(corpus.tokens[:n_train], K, absent=options.absent, unknown=unknown)
    contexts = []
    if n_train < len(corpus.tokens):
        seen = _keys(samples.sequences)
        held_out = [row[:t] for row in corpus.tokens[n_train:] for t in range(1, len(row))
                    if row[t] != unknown and row[t] in row[:t]]
        held_out = [context for context, key in zip(held_out, _keys(held_out, list), strict=True) if key not in seen]
        order = np.sort(rng.permutation(len(held_out))[:options.contexts])
        contexts = [held_out[i].astype(np.int64) for i in order]
    about = (f"{corpus.summary()}\n"
             f"limited to  {options.vocabulary:,} words, the first {options.windows:,} windows, prefixes of up to {options.length} "
             "tokens (--vocabulary, --windows, --length)\n"
             f"samples     {samples.n_given:,} prefixes of the first {n_train:,} windows{_left_out(samples.n_left_out, UNKNOWN)}; "
             f"{len(samples):,} of them differ")
    n_last = len(corpus.tokens) - n_train
    return Data(corpus.name, about, corpus.vocabulary, samples, contexts,
                f"prefixes of the last {n_last:,} windows, followed by a token of theirs",
                without=f"nothing new in the prefixes of the last {n_last:,} windows" if n_last else
                f"of each {HELD_OUT} windows one is held out, and here there are only {n_train:,} (--length, --windows)")


def _file_name(options):
    return options.text.replace("\\", "/").rpartition("/")[2].encode("utf-8", "replace").decode()


def _left_out(number, unknown=None):
    return f"; {number:,} left out, whose label does not occur in them{f' or is {unknown}' if unknown else ''}" if number else ""


def _progress(bar):
    def progress(done, total):
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _keys(sequences, kind=set):
    """What attention of the last token sees of each sequence: that token, and how often each occurs."""
    return kind((int(row[-1]), *np.sort(row).tolist()) for row in sequences)


def _recombined(samples, n_contexts, rng):
    """Up to ``n_contexts`` contexts like the samples, all of other counts; fewer where nearly all that can be were seen."""
    seen, found = _keys(samples.sequences), []
    tokens = {k: graph.tokens for k, graph in priority_graphs(samples).items()}
    for i in rng.integers(len(samples), size=_TRIES * n_contexts):
        like = samples.sequences[i]
        context = np.append(rng.choice(tokens[int(like[-1])], size=len(like) - 1), like[-1])
        if not _keys([context]) & seen:
            found.append(context)
            seen |= _keys([context])
        if len(found) == n_contexts:
            break
    return found
