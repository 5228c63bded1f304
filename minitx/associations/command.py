"""``minitx associate``: train on a text, split the exact gradient, and set both beside theory.

The theories are the leading terms (Im et al., ICLR 2026) and reduced dynamics.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from minitx.associations import figures, reduced, terms, words
from minitx.associations.basis import Statistics, statistics
from minitx.associations.counts import Counts
from minitx.associations.leading import Beside, beside, bounds, leading_weights
from minitx.associations.recording import TermRecorder
from minitx.base import options as base_options
from minitx.base import style
from minitx.base.command import Outcome, run_command
from minitx.base.console import Forecast, progress_bar, read_with_bar, rise
from minitx.base.numbers import Agreement, agreement, norm
from minitx.base.options import add_options, option, read_options, require_memory
from minitx.base.tables import Table, number, table
from minitx.data.batch import Batch
from minitx.data.corpus import BUILTIN, OMIT, UNKNOWN, builtin_corpus, load_corpus
from minitx.data.readers import LAYOUTS, file_kind
from minitx.data.tokenizers import FileTokenizer
from minitx.model.circuits import loss_and_gradient
from minitx.model.descent import DescentEnded, Trajectory, descend, descent
from minitx.model.weights import OneHotWeights

N_RECORDS = 12  # rows of the tables, beside the first three steps
HEAT_MAP_WORDS = 40
N_ASSOCIATES = 8
MEASURES = " (bigram: by the entries of B; interchangeability and context: by cosines)"
N_WORDS, LONG_WORD = 5, 4  # of counts, the associates of the most frequent words of so many letters are listed
STORY_WORDS = ("fish", "bird", "happy", "red", "mom")  # whose associates in the stories are known
# {basis function: (what a row is, what a column is, what to look for)}
BASIS_FUNCTIONS = {
    "bigram": (
        "current token", "next token",
        "Red: the word of the column follows the word of the row more often than 1 in V; blue: less often. Look for "
        "the few red entries of a row, the usual successors of its word."),
    "interchangeability": (
        "token", "token",
        "Red: the two words follow the same words. Look for groups of words that are red with each other: they can "
        "take each other's place."),
    "context": (
        "next token", "token of its context",
        "Red: the word of the column occurs more often before the word of the row than before the average word. Look "
        "for words of one subject."),
    "attention": (
        "query (current) token", "key (attended) token",
        "Red: training first makes the word of the row attend more to the word of the column; blue: less. Look for the "
        "columns that are red in most rows: to attend to these words lowers the loss first.")}
FIGURES = ("cosines.png", "gradient_terms.png", "corrections.png", *(f"{name}.png" for name in BASIS_FUNCTIONS))
PARAMETERS = tuple(figures.PARAMETERS)
THEORIES = ("leading terms", "reduced dynamics")


@dataclass(frozen=True, kw_only=True)
class Options(base_options.Options):
    """The configuration of a run; ``results.json`` keeps it."""

    text: str | None = option(None, "text to read: .txt, .jsonl, .json, or .gz, .zst of each; else an embedded corpus",
                              positional=True, metavar="TEXT")
    builtin: str = option(BUILTIN[0], "the embedded corpus to use when no TEXT is given", choices=BUILTIN)
    vocabulary: int = option(600, "number of tokens in the vocabulary, the most frequent ones", least=2, quick=300,
                             metavar="V")
    length: int = option(64, "tokens in a window", least=1, most=1_000_000, quick=24, metavar="T")
    windows: int | None = option(512, "use at most the first N windows", least=1, quick=64)
    unknown: str = option(UNKNOWN, "what becomes of rarer words: mapped to <unk>, or their document omitted",
                          choices=(UNKNOWN, OMIT))
    tokenizer: str | None = option(None, "a tokenizer.json, as minitx tokenizer writes; its tokens instead of words",
                                   metavar="FILE")
    layout: str | None = option(None, "how documents are separated in a .txt file; detected when not given",
                                choices=tuple(LAYOUTS))
    counts: str | None = option(None, "counts that minitx count wrote, instead of a text: what needs no training",
                                metavar="FILE")
    learning_rate: float = option(1.0, "learning rate of gradient descent", above_zero=True, below=1e60, metavar="ETA")
    steps: int = option(100, "number of steps", least=1, quick=12, metavar="S")
    batch_size: int | None = option(None, "windows a step; the full batch when not given", least=1, metavar="B")
    init: str = option("zero", "initial weights", choices=("zero", "gaussian"))
    init_scale: float = option(1e-6, "standard deviation of Gaussian initial weights", above_zero=True, metavar="SD")
    dtype: str = option("float64", "precision of training; statistics and the split are always float64",
                        choices=("float64", "float32"))
    words: str | None = option(None, "comma-separated words whose associates are listed; when not given, five frequent "
                               "content words of the text", metavar="WORDS")
    out: str = option("minitx-associate", "folder for figures, results.json, report.html, weights.npz", metavar="DIR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx associate`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status of :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    if typed.get("text") == "":
        raise ValueError("TEXT is empty; it must name a file, or be left out")
    if {"text", "builtin"} <= typed.keys():
        raise ValueError(f"give a TEXT ({typed['text']}) or --builtin {typed['builtin']}, not both")
    if "init_scale" in typed and typed.get("init") != "gaussian":
        raise ValueError(f"--init-scale is {typed['init_scale']:g}, but initial weights are zero; leave it out, or add "
                         "--init gaussian")
    if "layout" in typed and ("text" not in typed or file_kind(typed["text"]) in (".json", ".jsonl")):
        about = typed.get("text", "the embedded corpus")
        raise ValueError(f"--layout is {typed['layout']}, but {about} has its documents apart already; leave it out "
                         "(it is for a .txt file)")
    if "tokenizer" in typed:
        _require_no_words(typed)
    if "counts" in typed:
        if others := sorted(typed.keys() - {"counts", "words", "out", "threads"}):
            other = "TEXT" if others[0] == "text" else f"--{others[0].replace('_', '-')}"
            raise ValueError(f"--counts leaves no use for {other}; leave it out (unlike --words and --out)")
        return run_command(read_options(Options, typed), typed, run_counts, FIGURES)
    return run_command(read_options(Options, typed), typed, run, FIGURES)


def _require_no_words(typed):
    """ValueError if options were typed that a tokenizer of a file leaves no use for."""
    if "text" not in typed:
        raise ValueError(f"--tokenizer is {typed['tokenizer']}, but no TEXT was typed; the embedded corpora are words")
    for name in ("vocabulary", "unknown"):
        if name in typed:
            raise ValueError(f"--{name} is {typed[name]}, but --tokenizer {typed['tokenizer']} has a vocabulary of its "
                             f"own; leave --{name} out")


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`); R steps are
    recorded, parameters are W_O, V, W and P:

    - ``corpus``: its name and counts. ``vocabulary``: its words, by id.
    - ``records`` (R): the weights beside their leading terms, as :class:`minitx.associations.Beside`: ``step``,
      ``loss``, and by parameter ``cosine``, ``relative_error``, ``over_bound``; ``outside`` the theorem's conditions.
    - ``reduced`` (R): ``cosine`` and ``relative_error`` beside reduced dynamics; null where that has ended.
    - ``loss``, ``predicted_loss``: the loss of training, and that of reduced dynamics, after 0, 1, 2, ... steps.
    - ``norms_of_terms`` (R): {parameter: {term: norm}} of the split gradient.
    - ``first_exceeds``: {parameter: {correction: {share: step, or null}}}.
    - ``split``: after the last step, by parameter, the norms of all ``terms``, of the ``gradient``, of what the sum of
      the terms misses (``miss``), and the ``digits`` to which they agree.
    - ``associates``: {word: {basis function: [(word, score), ...]}}.
    """
    corpus = _read(options)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    if options.batch_size is not None and options.batch_size > len(batch):
        raise ValueError(f"--batch-size is {options.batch_size}, but there are {len(batch)} windows; lower it, or "
                         "leave it out for full batches")
    require_memory(200.0 * n_vocab**2 + 24.0 * len(batch) * options.length, ("vocabulary", n_vocab),
                   ("length", options.length))
    say(corpus.summary())
    asked = _asked_words(options, corpus, say)
    basis = statistics(batch, n_vocab)
    similarity = words.similarity(basis)
    associates = {word: {function: words.associates(scores, corpus, word, k=N_ASSOCIATES)
                         for function, scores in similarity.items()} for word in asked}
    recorder, trajectory = train(options, batch, basis, say)
    leading = leading_weights(basis, steps=trajectory.steps, learning_rate=options.learning_rate)
    split = split_gradient(trajectory.weights, batch, leading)
    crossings = recorder.terms.crossings

    say(f"\nrelative error, |trained - predicted| / |predicted| (Frobenius)\n{errors_table(recorder)}")
    say(f"\nmeasured |weight - leading term| / its proved bound (Frobenius)\n{bounds_table(recorder.leading)}")
    say(f"\nexact split of the gradient after {trajectory.steps} steps (Frobenius norms)\n{split_table(split)}")
    if crossings:
        shares = ", ".join(f"{share:.0%}" for share in terms.SHARES)
        say(f"\nstep at which a correction first exceeds {shares} of the leading term (*: before all others; "
            f"{number(None)}: never)\n{terms.exceeds_table(crossings)}")
    if associates:
        say(f"\nstrongest associates{MEASURES}\n{words_table(associates)}")

    setting = f"V = {n_vocab}, T = {options.length}"
    title = style.literal(f"{corpus.name}: {setting}, ") + rf"$\eta$ = {options.learning_rate:g}"
    results = {
        "corpus": {"name": corpus.name, "documents": corpus.n_documents,
                   "documents without a window": corpus.n_left_out, "tokens": corpus.n_words,
                   "distinct": corpus.n_distinct, "covered": corpus.n_covered, "unknown": corpus.unknown,
                   "vocabulary": n_vocab, "windows": len(batch), "length": corpus.length},
        "vocabulary": corpus.vocabulary, "records": recorder.leading,
        "loss": trajectory.loss, "reduced": recorder.reduced, "predicted_loss": recorder.predicted_loss,
        "norms_of_terms": recorder.terms.records, "split": split, "associates": associates,
        "first_exceeds": {parameter: {correction: {str(share): step for share, step in steps.items()}
                                      for correction, steps in found.items()}
                          for parameter, found in crossings.items()}}
    drawn = training_figures(recorder, trajectory.loss, crossings, title) | basis_figures(basis, corpus.vocabulary)
    return Outcome(f"minitx associate: {corpus.name}, {setting}", results, drawn,
                   {"weights.npz": trajectory.weights.arrays()}, trajectory.stopped)


def run_counts(options: Options, say: Callable[[str], None]) -> Outcome:
    """Show what counts say without training; the keys of results.json are ``corpus``, ``vocabulary``, ``associates``.
    """
    path = Path(options.counts or "")
    counts, name = Counts.load(path), path.name
    vocabulary = counts.vocabulary
    require_memory(80.0 * len(vocabulary) ** 2, ("counts", name))
    say(f"counts of {counts.n_windows:,} windows of {counts.length} + 1 tokens, {len(vocabulary):,} of "
        f"{counts.n_vocab:,} tokens; {counts.coverage:.2%} of the pairs of neighbours are of these")
    basis = counts.finish()
    if options.words is None:
        by_frequency = (vocabulary[token] for token in np.argsort(-basis.frequency, kind="stable"))
        asked = list(islice((word for word in by_frequency if sum(map(str.isalpha, word)) >= LONG_WORD), N_WORDS))
    else:
        asked = [word for word in map(str.strip, options.words.split(",")) if word in vocabulary]
        if absent := [word for word in map(str.strip, options.words.split(",")) if word and word not in vocabulary]:
            say(f"not in the vocabulary, so their associates are not listed: {', '.join(absent)}")
    scores = words.similarity(basis, [vocabulary.index(word) for word in asked])
    associates = {word: {function: words.strongest(rows[i], vocabulary, word, N_ASSOCIATES)
                         for function, rows in scores.items()} for i, word in enumerate(asked)}
    say(f"\nstrongest associates{MEASURES}\n{words_table(associates)}")
    corpus = {**counts.totals, "windows": counts.n_windows, "length": counts.length, "vocabulary": counts.n_vocab}
    return Outcome(f"minitx associate: {name}", {"corpus": corpus, "vocabulary": vocabulary, "associates": associates},
                   basis_figures(basis, vocabulary))


def _asked_words(options, corpus, say):
    """The words whose associates are listed; says which of those that were typed cannot be."""
    if options.words is None:
        if options.text is None and options.builtin == BUILTIN[0]:
            return [word for word in STORY_WORDS if word in corpus.vocabulary]
        return words.content_words(corpus, len(STORY_WORDS))
    typed = options.words if options.tokenizer else options.words.lower()
    asked = [word for word in map(str.strip, typed.split(",")) if word]
    used = {corpus.vocabulary[token] for token in np.unique(corpus.tokens)}
    if absent := [word for word in asked if word not in corpus.vocabulary]:
        say(f"not in the vocabulary, so their associates are not listed: {', '.join(absent)}")
    if unused := [word for word in asked if word in corpus.vocabulary and word not in used]:
        say(f"in the vocabulary but not in the windows used, so their associates are not listed: {', '.join(unused)}")
    return [word for word in asked if word in used]


def _read(options):
    settings = {"n_vocab": options.vocabulary, "length": options.length, "unknown": options.unknown,
                "n_windows": options.windows}
    if options.text is None:
        require_memory(8.0 * (options.windows or 1) * options.length, ("length", options.length))
        return builtin_corpus(options.builtin, rng=options.seed, **settings)
    if options.tokenizer is not None:
        settings |= {"n_vocab": None, "unknown": UNKNOWN, "tokenizer": FileTokenizer.read(options.tokenizer)}
    return read_with_bar(load_corpus, options.text, layout=options.layout, **settings)


# ------------------------------------------------------------------------------------------- training and measurements


def train(options: Options, batch: Batch, basis: Statistics,
          say: Callable[[str], None]) -> tuple["Recorder", Trajectory]:
    """Train, with a row printed at each recorded step. Returns what was recorded, and the trajectory."""
    n_vocab, length = basis.n_vocab, options.length
    start_rng, batch_rng = np.random.default_rng(options.seed).spawn(2)
    start = OneHotWeights.zeros(n_vocab, length, dtype=options.dtype)
    if options.init == "gaussian":
        start = OneHotWeights.gaussian(n_vocab, length, scale=options.init_scale, rng=start_rng, dtype=options.dtype)
    if options.batch_size:
        say("reduced dynamics predicts full-batch training; it is left out, because training is by mini-batches")
    recorder = Recorder(options, batch, basis, start, say)
    forecast = Forecast("training", options.steps, say, "a smaller --steps, --windows or --vocabulary is quicker")
    with progress_bar(total=options.steps, unit="step") as bar:

        def callback(step, loss, weights, gradient):
            recorder(step, loss, weights)
            bar.update(step > 0)
            forecast(step)

        trajectory = descend(start, batch, learning_rate=options.learning_rate, steps=options.steps,
                             batch_size=options.batch_size, rng=batch_rng, callback=callback)
    if trajectory.stopped:
        say(f"\nstopped early: {trajectory.stopped}")
    elif found := rise(trajectory.loss, mini_batches=options.batch_size is not None):
        say(f"\n{found}: lower --learning-rate")
    return recorder, trajectory


class Recorder:
    """Follows every step of training; at some steps, sets the weights beside both theories and splits the gradient.

    ``leading``, ``reduced`` (None where reduced dynamics has ended) and ``terms`` (the norms of the terms of the
    gradient) have an entry for each recorded step; ``predicted_loss``, that of reduced dynamics, has one for every step
    from 0 on.
    """

    def __init__(self, options: Options, batch: Batch, basis: Statistics, start: OneHotWeights,
                 say: Callable[[str], None]):
        self.options, self.batch, self.basis, self.say = options, batch, basis, say
        # the first three steps, each of which moves another weight, and N_RECORDS more, evenly spaced to the last
        self.at = {*range(1, min(options.steps, 3) + 1),
                   *(max(1, round(options.steps * k / N_RECORDS)) for k in range(1, N_RECORDS + 1))}
        self.walk: Iterator[Any] = iter(())  # of reduced dynamics, in float32, until it diverges
        if not options.batch_size:
            self.walk = descent(start.astype(np.float32), reduced.reduce(batch, basis.n_vocab),
                                learning_rate=options.learning_rate, loss_and_gradient=reduced.loss_and_gradient)
        self.leading: list[Beside] = []
        self.reduced: list[Agreement | None] = []
        self.terms = TermRecorder(batch)
        self.predicted_loss: list[float] = []

    def __call__(self, step: int, loss: float, weights: OneHotWeights) -> None:
        """Take one step of reduced dynamics as well; record ``step`` if it is one of ``at``."""
        predicted_loss, predicted = None, None
        with suppress(DescentEnded, FloatingPointError, StopIteration):
            predicted_loss, predicted, _ = next(self.walk)
            self.predicted_loss.append(predicted_loss)
        if step not in self.at:
            return
        options = self.options
        leading = leading_weights(self.basis, steps=step, learning_rate=options.learning_rate)
        proved = bounds(steps=step, learning_rate=options.learning_rate, length=options.length,
                        n_vocab=self.basis.n_vocab, full_batch=options.batch_size is None,
                        init_scale=options.init_scale if options.init == "gaussian" else 0.0)
        self.leading.append(beside(weights, leading, proved, step=step, loss=loss))
        self.reduced.append(agreement(weights, predicted) if predicted else None)
        self.terms.add(step, weights, leading)
        rows, header = theories_table("loss", "reduced")
        if len(self.leading) == 1:
            losses = "losses of the mini-batches" if options.batch_size else "losses of the full batch"
            self.say("\ncosine of the trained weights with those predicted, "
                     f"eta = {options.learning_rate:g}, {losses}\n{header}")
        self.say(rows.row([str(step), number(loss), number(predicted_loss),
                           *theories_cells(self.leading[-1], self.reduced[-1], "cosine")]))


def split_gradient(weights: OneHotWeights, batch: Batch, leading: OneHotWeights) -> dict[str, dict[str, Any]]:
    """{parameter: {"terms": {term: norm}, "gradient": norm, "miss": |sum - gradient|, "digits": of the sum}}."""
    found = terms.gradient_terms(weights, batch, leading=leading)
    norms, split = terms.term_norms(found), {}
    _, gradient = loss_and_gradient(weights.astype(np.float64), batch)
    for parameter, exact in gradient.parameters().items():
        size, miss = norm(exact), norm(sum(found[parameter].values()) - exact)
        split[parameter] = {"terms": norms[parameter], "gradient": size, "miss": miss,
                            "digits": max(0.0, -np.log10(miss / size)) if miss > 0 and size > 0 else float("inf")}
    return split


# ------------------------------------------------------------------------------------------------------------- tables


def theories_table(*columns: str) -> tuple[Table, str]:
    """Rows that set the four weights beside both theories, with other ``columns`` after the step; and their heads."""
    rows = Table(["step", *columns, *PARAMETERS, *PARAMETERS], [5, *[8] * len(columns), *[9] * 2 * len(PARAMETERS)])
    weights = rows.widths[-len(PARAMETERS):]
    before = [" " * width for width in rows.widths[:-2 * len(weights)]]
    theories = [f"{theory:-^{sum(weights) + 2 * (len(weights) - 1)}}" for theory in THEORIES]
    return rows, "  ".join([*before, *theories]) + "\n" + rows.header()


def theories_cells(record: Beside, prediction: Agreement | None, measure: str) -> list[str]:
    """The ``measure`` of each weight beside its leading term, then beside reduced dynamics (None: dashes)."""
    return [*(number(getattr(record, measure)[name]) for name in PARAMETERS),
            *(number(getattr(prediction, measure)[name] if prediction else None) for name in PARAMETERS)]


def errors_table(recorder: Recorder) -> str:
    """Relative error of both theories at each recorded step."""
    rows, header = theories_table()
    lines = (rows.row([str(record.step), *theories_cells(record, prediction, "relative_error")])
             for record, prediction in zip(recorder.leading, recorder.reduced, strict=True))
    return "\n".join([header, *lines])


def bounds_table(records: list[Beside]) -> str:
    """Measured error over proved bound at each recorded step, and whether the theorem covers that step."""
    return table([" step", *PARAMETERS, "theorem "],
                 [[str(record.step), *(f"{record.over_bound[name]:.2e}" for name in PARAMETERS),
                   f"outside: {'; '.join(record.outside)}" if record.outside else "inside its conditions"]
                  for record in records])


def split_table(split: dict[str, dict[str, Any]]) -> str:
    """Norm of each term of each parameter's gradient, and to how many digits they sum to it."""
    names = sorted({name for parts in split.values() for name in parts["terms"]}, key=terms.term_order)
    rows = [[name, *(f"{parts['terms'][name]:.3e}" if name in parts["terms"] else number(None)
                     for parts in split.values())] for name in names]
    digits = [f"{parts['digits']:.1f}" if np.isfinite(parts["digits"]) else "all" for parts in split.values()]
    rows.append(["exact gradient", *(f"{parts['gradient']:.3e}" for parts in split.values())])
    return table(["term ", *split], [*rows, ["terms sum to it, digits", *digits]])


def words_table(associates: dict[str, dict[str, list[tuple[str, float]]]]) -> str:
    """The strongest associates of each word under each basis function, strongest first."""
    return table(["word ", "function ", "associates "],
                 [[word if function == "bigram" else "", function, " ".join(other for other, _ in strongest)]
                  for word, functions in associates.items() for function, strongest in functions.items()])


# ------------------------------------------------------------------------------------------------------------ figures


def training_figures(recorder: Recorder, loss: NDArray[np.float64], crossings: terms.Crossings,
                     title: str) -> dict[str, tuple[Figure, str]]:
    """{file name: (figure, caption)} of what was recorded over training."""
    if not recorder.leading:
        return {}
    steps, norms = recorder.terms.steps, recorder.terms.norms
    cosine = {THEORIES[0]: {name: [record.cosine[name] for record in recorder.leading] for name in PARAMETERS}}
    predicted = {}
    if recorder.predicted_loss:
        cosine[THEORIES[1]] = {name: [found.cosine[name] if found else np.nan for found in recorder.reduced]
                               for name in PARAMETERS}
        predicted[THEORIES[1]] = recorder.predicted_loss
    return {
        "cosines.png": (
            figures.theories(steps, cosine, loss, predicted, title=title),
            "How well each theory predicts the trained weights, and the loss, over training. Look for the step at "
            "which a line leaves the top of its panel (cosine 1): up to there the theory predicts that weight."),
        "gradient_terms.png": (
            figures.gradient_terms(steps, norms, title=title),
            "Size of every term of the exact gradient over training. Look for the step at which a correction crosses "
            "the leading term: from there on the leading term alone does not describe training."),
        "corrections.png": (
            figures.corrections(steps, norms, crossings, title=title),
            "Every correction as a share of the leading term. Rings mark where it first exceeds 1%, 10% and 50%. Look "
            "for the line with the leftmost rings: that correction ends the leading terms.")}


def basis_figures(basis: Statistics, vocabulary: Sequence[str]) -> dict[str, tuple[Figure, str]]:
    """{file name: (heat map, caption)} of the basis functions over the most frequent tokens."""
    frequent = np.argsort(-basis.frequency, kind="stable")[:HEAT_MAP_WORDS]
    labels = [style.tick_label(vocabulary[token], named=True) for token in frequent]
    return {f"{name}.png": (figures.heat_map(getattr(basis, name)[np.ix_(frequent, frequent)], labels, row, column,
                                             title=f"{name} function, {len(frequent)} most frequent tokens"), caption)
            for name, (row, column, caption) in BASIS_FUNCTIONS.items() if getattr(basis, name) is not None}
