"""``minitx associate``: train on a text, split the exact gradient, and set both beside theory.

The theories are the leading terms (Im et al., ICLR 2026), reference dynamics and, for one layer, reduced dynamics.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from minitx.associations import figures, page, reduced, reference_dynamics, tables, terms, words
from minitx.associations.basis import Statistics, statistics
from minitx.associations.command_corpus import TextOptions, counted, read, require_batch_size, require_one_text
from minitx.associations.counts import Counts
from minitx.associations.interventions import interventions
from minitx.associations.leading import Beside, beside, bounds, leading_weights
from minitx.associations.recording import TermRecorder
from minitx.base import style
from minitx.base.checkpoint import Checkpoint
from minitx.base.command import Outcome, run_command
from minitx.base.console import progress, rise
from minitx.base.numbers import Agreement, agreement, cosine, norm
from minitx.base.options import (
    HANDLING,
    PLACES,
    Resumable,
    add_options,
    check_option,
    option,
    read_options,
    require_memory,
)
from minitx.base.parallel import matmul
from minitx.base.tables import number
from minitx.data.batch import Batch
from minitx.data.corpus import BUILTIN
from minitx.model.circuits import loss_and_gradient
from minitx.model.descent import DescentEnded, Trajectory, descend, descent
from minitx.model.layers import LayeredWeights
from minitx.model.weights import OneHotWeights

N_RECORDS = 12  # rows of the tables, beside the first three steps
HEAT_MAP_WORDS = 40
SNAPSHOT_WORDS = 24  # of the trained weights, entries between so many words are kept at each recorded step
PAGE_WORDS = 1000  # the page lists the associates of so many words, the most frequent ones
N_ASSOCIATES = 8
INTERVENED = 64  # windows on which a model of one layer is intervened with; of L layers, 1/L of them
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
FIGURES = ("cosines.png", "gradient_terms.png", "corrections.png", "interventions.png",
           *(f"{name}.png" for name in BASIS_FUNCTIONS))
EXAMPLES = (
    ("minitx associate", "Train on the embedded stories, with the settings of the README."),
    ("minitx associate stories.txt --steps 500 --out my-run", "Train longer, on a text of your own."),
    ("minitx associate --resume --out my-run", "Go on with that run after it was ended."),
    ("minitx associate --config my-run/results.json --check 0.01", "Repeat that run, and fail where reduced dynamics "
     "miss training by more than 1%."))
LEADING, REFERENCE, REDUCED = "leading terms", "reference dynamics", "reduced dynamics"


@dataclass(frozen=True, kw_only=True)
class Options(Resumable, TextOptions):
    """The configuration of a run; ``results.json`` keeps it."""

    command = "associate"
    counts: str | None = option(None, "counts that minitx count wrote, instead of a text: what needs no training",
                                metavar="FILE")
    learning_rate: float = option(1.0, "learning rate of gradient descent", above_zero=True, below=1e60, metavar="ETA")
    steps: int = option(100, "number of steps", least=1, quick=12, metavar="S")
    layers: int = option(1, "number of layers", least=1, most=4, metavar="L")
    batch_size: int | None = option(None, "windows a step; the full batch when not given", least=1, metavar="B")
    init: str = option("zero", "initial weights", choices=("zero", "gaussian"))
    init_scale: float = option(1e-6, "standard deviation of Gaussian initial weights", above_zero=True, metavar="SD")
    dtype: str = option("float64", "precision of training; statistics and the split are always float64",
                        choices=("float64", "float32"))
    words: str | None = option(None, "comma-separated words whose associates are listed; when not given, five frequent "
                               "content words of the text", metavar="WORDS")
    check: float | None = check_option()
    out: str = option("minitx-associate", "folder for figures, results.json, index.html, weights.npz", metavar="DIR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx associate`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status of :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    require_one_text(typed)
    if "init_scale" in typed and typed.get("init") != "gaussian":
        raise ValueError(f"--init-scale is {typed['init_scale']:g}, but initial weights are zero; leave it out, or add "
                         "--init gaussian")
    if "counts" in typed:
        allowed = {"counts", "words"} | PLACES | HANDLING - {"check", "checkpoint_every", "resume"}
        if others := sorted(typed.keys() - allowed):
            other = "TEXT" if others[0] == "text" else f"--{others[0].replace('_', '-')}"
            raise ValueError(f"--counts leaves no use for {other}; leave it out (unlike --words and --out)")
        return run_command(read_options(Options, typed), typed, run_counts, FIGURES)
    return run_command(read_options(Options, typed), typed, run, FIGURES, resumable=True)


def run(options: Options, say: Callable[[str], None], checkpoint: Checkpoint | None = None) -> Outcome:
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known, and training goes on from the
    ``checkpoint``.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`); R steps are
    recorded, parameters are W_O, V, W and P:

    - ``corpus``: its name and counts. ``vocabulary``: its words, by id.
    - ``records`` (R): the weights beside their leading terms, as :class:`minitx.associations.Beside`: ``step``,
      ``loss``, and by parameter ``cosine``, ``relative_error``, ``over_bound``; ``outside`` the theorem's conditions.
    - ``reference`` and, of one layer, ``reduced`` (R): ``cosine`` and ``relative_error`` beside reference dynamics and
      reduced dynamics; null where that has ended.
    - ``loss``, ``predicted_loss``: the loss of training, and that of reduced dynamics (of several layers: reference
      dynamics), after 0, 1, 2, ... steps.
    - ``norms_of_terms`` (R): {parameter: {term: norm}} of the split gradient.
    - ``first_exceeds``: {parameter: {correction: {share: step, or null}}}.
    - ``split``: after the last step, by parameter, the norms of all ``terms``, of the ``gradient``, of what the sum of
      the terms misses (``miss``), and the ``digits`` to which they agree.
    - ``interventions``: on the first ``windows`` windows, the ``loss`` of the trained weights and, as ``changes``,
      :class:`minitx.associations.interventions.Intervention` of each weight; null if training diverged.
    - ``associates``: {word: {basis function: [(word, score), ...]}}. ``nearest``: the same of the ``words`` that are
      most frequent, as :func:`minitx.associations.words.nearest` has it, {basis function: ...} in ``functions``.
    - ``snapshots``: between the most frequent ``words``, the ``trained`` weights {parameter: (R, n, n)} and the
      ``statistics`` {name: (n, n)} that they are predicted to be multiples of, with four digits.
    - ``heads``: ``cosines``, that of each virtual head, such as V 1 W_O, and what the leading terms make of it; and
      again ``heads``, {word: {head: [(word, score), ...]}}, those of Phi^T B^T B among them.
    """
    corpus = read(options)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    require_batch_size(options.batch_size, len(batch))
    n_tables = 25.0 if options.layers == 1 else 19.0 * 2**options.layers
    require_memory(8 * n_tables * n_vocab**2 + 24.0 * len(batch) * options.length, ("vocabulary", n_vocab),
                   ("length", options.length))
    say(corpus.summary())
    asked = _asked_words(options, corpus, say)
    basis = statistics(batch, n_vocab)
    similarity = words.similarity(basis)
    associates = {word: {function: words.associates(scores, corpus, word, k=N_ASSOCIATES)
                         for function, scores in similarity.items()} for word in asked}
    if asked:
        say(f"\n{tables.first_words(asked[0], associates[asked[0]])}")
    recorder, trajectory = train(options, batch, basis, say, checkpoint)
    leading = leading_weights(basis, steps=trajectory.steps, learning_rate=options.learning_rate)
    split = split_gradient(trajectory.weights, batch, leading)
    crossings = recorder.terms.crossings
    changes, heads = None, None
    if not (trajectory.stopped and trajectory.stopped.kind == "diverged"):
        changes = intervene(options, trajectory.weights, batch, leading)
        heads = virtual_heads(trajectory.weights, basis, leading, corpus, asked)
    _say_results(options, recorder, split, crossings, changes, say)
    if associates:
        say(f"\nstrongest associates{MEASURES}\n{tables.words_table(associates)}")
    if associates and heads:
        say("\nwhat attended words write to the output (entries over the norm of their column), beside the leading "
            f"term;\ncosine: of the table of all words with that of its leading terms\n{tables.heads_table(**heads)}")

    setting = f"V = {n_vocab}, T = {options.length}" + (f", L = {options.layers}" if options.layers > 1 else "")
    title = style.literal(f"{corpus.name}: {setting}, ") + rf"$\eta$ = {options.learning_rate:g}"
    results = {
        "corpus": counted(corpus),
        "vocabulary": corpus.vocabulary, "records": recorder.leading,
        "loss": trajectory.loss, **recorder.predicted, "predicted_loss": recorder.predicted_loss,
        "norms_of_terms": recorder.terms.records, "split": split, "interventions": changes,
        "associates": associates, "heads": heads, "nearest": nearest(basis, similarity, corpus.vocabulary),
        "snapshots": recorder.snapshots.written(corpus.vocabulary),
        "first_exceeds": {parameter: {correction: {str(share): step for share, step in steps.items()}
                                      for correction, steps in found.items()}
                          for parameter, found in crossings.items()}}
    drawn = training_figures(recorder, trajectory.loss, crossings, title) | basis_figures(basis, corpus.vocabulary)
    if changes:
        drawn["interventions.png"] = (
            figures.interventions(changes["loss"], changes["changes"], title=title),
            "Change of the loss when a trained weight loses its projection on the leading term, loses a random "
            "direction of the same norm (mean and standard deviation), or is nothing but the projection. Look for the "
            "weights whose projection is worth more than a random direction: there the theory says what was learned.")
    return Outcome(f"minitx associate: {corpus.name}, {setting}", results, drawn,
                   {"weights.npz": trajectory.weights.arrays()}, trajectory.stopped, recorder.comparisons(),
                   page.inside, verdict(recorder))


def verdict(recorder: "Recorder") -> str:
    """The sentence that says how well theory predicted the weights after the last recorded step."""
    if not recorder.leading:
        return "Training ended before its first step."
    last = recorder.leading[-1]
    found = f"After {last.step:,} steps the lowest cosine of a trained weight with its leading term is " \
            f"{number(np.nanmin(list(last.cosine.values())))}"
    further = recorder.predicted[recorder.key][-1]
    return found + (f", and with {recorder.walked} {number(np.nanmin(list(further.cosine.values())))}."
                    if further else ".")


def _say_results(options, recorder, split, crossings, changes, say):
    """Print the tables of errors, bounds, terms of the gradient and interventions."""
    n_layers, steps = options.layers, [record.step for record in recorder.leading]
    errors = tables.errors_table(n_layers, recorder.leading, recorder.walked, recorder.predicted[recorder.key])
    say(f"\nrelative error, |trained - predicted| / |predicted| (Frobenius)\n{errors}")
    if n_layers == 1 and not options.batch_size:
        say("\nreference dynamics (uniform output and attention, the actual weights) beside the trained weights\n"
            + tables.agreement_table(steps, recorder.predicted["reference"]))
    say("\nmeasured |weight - leading term| / its proved bound (Frobenius)\n"
        + tables.bounds_table(n_layers, recorder.leading))
    say(f"\nexact split of the gradient after {recorder.last} steps (Frobenius norms)\n"
        + tables.by_layer(n_layers, split, tables.split_table))
    if crossings:
        shares = ", ".join(f"{share:.0%}" for share in terms.SHARES)
        say(f"\nstep at which a correction first exceeds {shares} of the leading term (*: before all others; "
            f"{number(None)}: never)\n{tables.by_layer(n_layers, crossings, terms.exceeds_table)}")
    if changes:
        say(f"\nchange of the loss of the first {changes['windows']} windows, {number(changes['loss'])}, when trained "
            "weights lose their projection on the leading term,\na random direction of the same norm (20 draws), or "
            f"all but their projection\n{tables.interventions_table(changes['loss'], changes['changes'])}")


def run_counts(options: Options, say: Callable[[str], None]) -> Outcome:
    """Show what counts say without training; the keys of results.json are ``corpus``, ``vocabulary``, ``associates``
    and ``nearest``, as of :func:`run`.
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
    say(f"\nstrongest associates{MEASURES}\n{tables.words_table(associates)}")
    corpus = {**counts.totals, "windows": counts.n_windows, "length": counts.length, "vocabulary": counts.n_vocab}
    return Outcome(f"minitx associate: {name}", {"corpus": corpus, "vocabulary": vocabulary, "associates": associates,
                                                "nearest": nearest(basis, None, vocabulary)},
                   basis_figures(basis, vocabulary), inside=page.inside,
                   found=f"Nothing was trained: {name} alone says which words go together.")


def nearest(basis: Statistics, similarity: dict[str, NDArray[np.float64]] | None,
            vocabulary: Sequence[str]) -> dict[str, Any]:
    """``words``, the most frequent ones, and the associates of each (``functions``), for the search on the page.

    Without ``similarity``, that of all words, it is computed of the rows that are needed.
    """
    frequent = np.argsort(-basis.frequency, kind="stable")[:PAGE_WORDS]
    rows = words.similarity(basis, frequent.tolist()) if similarity is None else \
        {function: scores[frequent] for function, scores in similarity.items()}
    return {"words": [vocabulary[token] for token in frequent],
            "functions": words.nearest(rows, frequent, vocabulary, N_ASSOCIATES)}


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


# ------------------------------------------------------------------------------------------- training and measurements


def train(options: Options, batch: Batch, basis: Statistics, say: Callable[[str], None],
          checkpoint: Checkpoint | None = None) -> tuple["Recorder", Trajectory]:
    """Train, with a row printed at each recorded step. Returns what was recorded, and the trajectory."""
    n_vocab, length = basis.n_vocab, options.length
    start_rng, batch_rng = np.random.default_rng(options.seed).spawn(2)
    settings: dict[str, Any] = {"scale": 0.0 if options.init == "zero" else options.init_scale, "rng": start_rng,
                                "dtype": options.dtype}
    start = OneHotWeights.gaussian(n_vocab, length, **settings) if options.layers == 1 else \
        LayeredWeights.gaussian(n_vocab, length, options.layers, **settings)
    if options.batch_size:
        say(f"{REDUCED if options.layers == 1 else REFERENCE} predicts full-batch training; it is left out, because "
            "training is by mini-batches")
    remedy = "a smaller --steps, --windows or --vocabulary is quicker"
    with progress("training", options.steps, say, remedy) as show:
        recorder = Recorder(options, batch, basis, start, say, show)
        trajectory = descend(start, batch, learning_rate=options.learning_rate, steps=options.steps, rng=batch_rng,
                             batch_size=options.batch_size, callback=recorder,
                             checkpoint=checkpoint and checkpoint.part("training"))
    if trajectory.stopped:
        say(f"\nstopped early: {trajectory.stopped}")
    elif found := rise(trajectory.loss, mini_batches=options.batch_size is not None):
        say(f"\n{found}: lower --learning-rate")
    return recorder, trajectory


class Recorder:
    """Follows every step of training; at some steps, sets the weights beside the theories and splits the gradient.

    ``leading``, ``terms`` (the norms of the terms of the gradient) and each list of ``predicted`` (None where a theory
    has ended) have an entry for each recorded step. A theory that needs all steps, reduced dynamics for one layer and
    reference dynamics for several, is walked beside training: ``predicted_loss`` has its loss at every step from 0 on.
    ``show(step)`` is called after every step.
    """

    KINDS = (Agreement, Beside, LayeredWeights, OneHotWeights)

    def __init__(self, options: Options, batch: Batch, basis: Statistics, start: OneHotWeights | LayeredWeights,
                 say: Callable[[str], None], show: Callable[[int], object]):
        self.options, self.batch, self.basis, self.say, self.show = options, batch, basis, say, show
        n_records = -(-N_RECORDS // options.layers)  # the terms of L layers cost more than L times those of one
        # the first three steps, each of which moves another weight, and n_records more, evenly spaced to the last
        self.at = {*range(1, min(options.steps, 3) + 1),
                   *(max(1, round(options.steps * k / n_records)) for k in range(1, n_records + 1))}
        self.walked, self.key = (REDUCED, "reduced") if options.layers == 1 else (REFERENCE, "reference")
        self.walk: Iterator[Any] = iter(())
        self.walked_to: OneHotWeights | LayeredWeights | None = None  # None where the theory has ended, or has no walk
        self.closed_form: reference_dynamics.OneLayer | None = None
        if not options.batch_size:
            self._start_theories(start)
        self.last = 0  # the last step
        self.leading: list[Beside] = []
        self.predicted: dict[str, list[Agreement | None]] = {name: [] for name in ("reference", self.key)}
        self.terms = TermRecorder(batch)
        self.snapshots = Snapshots(basis)
        self.predicted_loss: list[float] = []

    def _start_theories(self, start: OneHotWeights | LayeredWeights) -> None:
        """Reduced dynamics in float32, until it diverges, and a closed form; or reference dynamics of several layers.
        """
        options, n_vocab = self.options, self.basis.n_vocab
        data: Any
        if isinstance(start, LayeredWeights):
            data = reference_dynamics.reference(self.batch, n_vocab, options.layers)
            objective: Callable[..., Any] = reference_dynamics.loss_and_gradient
        else:
            start, data = start.astype(np.float32), reduced.reduce(self.batch, n_vocab)
            objective = reduced.loss_and_gradient
            self.closed_form = reference_dynamics.OneLayer(self.batch, self.basis, learning_rate=options.learning_rate)
        self.walk_from = partial(descent, batch=data, learning_rate=options.learning_rate, loss_and_gradient=objective)
        self.walk = self.walk_from(start)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, from which :meth:`restore` goes on."""
        predicted = {name: list(found) for name, found in self.predicted.items()}
        return {"last": self.last, "leading": list(self.leading), "predicted": predicted, "terms": self.terms.state(),
                "predicted_loss": list(self.predicted_loss), "walked_to": self.walked_to,
                "snapshots": {name: list(frames) for name, frames in self.snapshots.trained.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what :meth:`state` returned."""
        self.last, self.leading, self.predicted = state["last"], state["leading"], state["predicted"]
        self.predicted_loss, self.walked_to = state["predicted_loss"], state["walked_to"]
        self.terms.restore(state["terms"])
        self.snapshots.trained = state["snapshots"]
        self.walk = iter(())
        if self.walked_to is not None:
            self.walk = self.walk_from(self.walked_to, start_step=self.last)
            next(self.walk)  # the step that the theory has taken already

    def __call__(self, step: int, loss: float, weights: OneHotWeights | LayeredWeights, gradient: Any = None) -> None:
        """Take one step of the theory that is walked as well; record ``step`` if it is one of ``at``."""
        self.last, self.walked_to, predicted_loss = step, None, None
        with suppress(DescentEnded, FloatingPointError, StopIteration):
            predicted_loss, self.walked_to, *_ = next(self.walk)
            self.predicted_loss.append(predicted_loss)
        if step in self.at:
            self._record(step, loss, weights, predicted_loss, self.walked_to)
        self.show(step)

    def comparisons(self) -> dict[str, tuple[float, float]]:
        """{what: (trained, predicted)} at the last recorded step, of the theory that is walked; nan where it has ended.

        They are the loss, and the cosine of each weight with its prediction, which theory says is 1.
        """
        if self.options.batch_size or not self.leading:
            return {}
        record, found = self.leading[-1], self.predicted[self.key][-1]
        losses = dict(enumerate(self.predicted_loss))
        compared = {f"loss after {record.step} steps": (record.loss, losses.get(record.step, float("nan")))}
        for name in record.cosine:
            value = found.cosine[name] if found else float("nan")
            compared[f"cosine of {name} with {self.walked}"] = (value, 1.0)
        return compared

    def _record(self, step, loss, weights, predicted_loss, predicted):
        """Set the weights beside the theories, split the gradient, and print a row."""
        options = self.options
        leading = leading_weights(self.basis, steps=step, learning_rate=options.learning_rate)
        proved = bounds(steps=step, learning_rate=options.learning_rate, length=options.length,
                        n_vocab=self.basis.n_vocab, n_layers=options.layers, full_batch=options.batch_size is None,
                        init_scale=options.init_scale if options.init == "gaussian" else 0.0)
        self.leading.append(beside(weights, leading, proved, step=step, loss=loss))
        self.predicted[self.key].append(agreement(weights, predicted) if predicted else None)
        if options.layers == 1:
            exact = self.closed_form.weights(step) if self.closed_form else None
            self.predicted["reference"].append(
                agreement(weights, exact) if exact and not exact.not_finite() else None)
        rows, header = tables.theories_table(tables.columns_of(options.layers, "loss", self.key),
                                             (LEADING, self.walked))
        if len(self.leading) == 1:
            losses = "losses of the mini-batches" if options.batch_size else "losses of the full batch"
            self.say("\ncosine of the trained weights with those predicted, "
                     f"eta = {options.learning_rate:g}, {losses}\n{header}")
        found = self.predicted[self.key][-1]
        self.say(tables.rows_of_step(rows, options.layers, [str(step), number(loss), number(predicted_loss)],
                                     [self.leading[-1].cosine, tables.measure(found, "cosine")]))
        self.terms.add(step, weights, leading)  # after the row: the first of them compiles kernels
        self.snapshots.add(weights)


class Snapshots:
    """The entries of the trained weights between the most frequent words, at each recorded step."""

    def __init__(self, basis: Statistics):
        self.basis, self.tokens = basis, np.argsort(-basis.frequency, kind="stable")[:SNAPSHOT_WORDS]
        self.trained: dict[str, list[Any]] = {}

    def add(self, weights: OneHotWeights | LayeredWeights) -> None:
        """Keep what the weights are now."""
        for name, array in weights.matrices().items():
            if array.ndim == 2:
                self.trained.setdefault(name, []).append(self._entries(array))

    def _entries(self, matrix):
        """Entries between the words, with four digits, as lists."""
        return [[float(f"{value:.4g}") for value in row] for row in matrix[np.ix_(self.tokens, self.tokens)]]

    def written(self, vocabulary: Sequence[str]) -> dict[str, Any] | None:
        """What results.json holds of them; None if no step was recorded."""
        if not self.trained:
            return None
        return {"words": [vocabulary[token] for token in self.tokens], "trained": self.trained,
                "statistics": {name: self._entries(getattr(self.basis, name))
                               for name in ("bigram", "value", "attention")}}


def intervene(options: Options, weights: OneHotWeights | LayeredWeights, batch: Batch,
              leading: OneHotWeights) -> dict[str, Any]:
    """The ``loss`` of the first ``windows`` windows, and the ``changes`` of it by interventions."""
    n = min(len(batch), -(-INTERVENED // options.layers))
    loss, changes = interventions(weights, Batch(batch.tokens[:n], batch.targets[:n]), leading, rng=options.seed)
    return {"windows": n, "loss": loss, "changes": changes}


def virtual_heads(weights: OneHotWeights | LayeredWeights, basis: Statistics, leading: OneHotWeights, corpus: Any,
                  asked: Sequence[str]) -> dict[str, Any]:
    """What an attended word writes to the output, V_l W_O, and through two layers, V_1 V_2 W_O, beside Phi^T B^T B.

    ``cosines`` {head: cosine of its table (row = attended word, column = next word) with that of the leading terms},
    and ``heads`` {word: {head: its strongest associates}}, those of Phi^T B^T B first. Each column is divided by its
    norm, so that a frequent next word does not lead in every row.
    """
    matrices = weights.astype(np.float64).matrices()
    values = {name: array for name, array in matrices.items() if name.startswith("V")}
    found = {f"{name} W_O": matmul(V, matrices["W_O"]) for name, V in values.items()}
    one = matmul(leading.V, leading.W_O)
    theory = dict.fromkeys(found, one)
    if len(values) > 1:
        found["V 1 V 2 W_O"] = matmul(values["V 1"], found["V 2 W_O"])
        theory["V 1 V 2 W_O"] = matmul(leading.V, one)
    scores = {head: table / np.maximum(norm(table, axis=0), 1e-300)
              for head, table in {"Phi^T B^T B": matmul(basis.value, basis.bigram), **found}.items()}
    return {"cosines": {"Phi^T B^T B": 1.0} | {head: cosine(table, theory[head]) for head, table in found.items()},
            "heads": {word: {head: words.associates(table, corpus, word, k=N_ASSOCIATES)
                             for head, table in scores.items()} for word in asked}}


def split_gradient(weights: OneHotWeights | LayeredWeights, batch: Batch,
                   leading: OneHotWeights) -> dict[str, dict[str, Any]]:
    """{parameter: {"terms": {term: norm}, "gradient": norm, "miss": |sum - gradient|, "digits": of the sum}}."""
    found = terms.gradient_terms(weights, batch, leading=leading)
    norms, split = terms.term_norms(found), {}
    _, gradient = loss_and_gradient(weights.astype(np.float64), batch)
    for parameter, exact in gradient.matrices().items():
        size, miss = norm(exact), norm(sum(found[parameter].values()) - exact)
        split[parameter] = {"terms": norms[parameter], "gradient": size, "miss": miss,
                            "digits": max(0.0, -np.log10(miss / size)) if miss > 0 and size > 0 else float("inf")}
    return split


# ------------------------------------------------------------------------------------------------------------ figures


def training_figures(recorder: Recorder, loss: NDArray[np.float64], crossings: terms.Crossings,
                     title: str) -> dict[str, tuple[Figure, str]]:
    """{file name: (figure, caption)} of what was recorded over training."""
    if not recorder.leading:
        return {}
    steps, norms = recorder.terms.steps, recorder.terms.norms
    cosines = {LEADING: _lowest(recorder.leading)}
    predicted = {}
    if recorder.predicted_loss:
        cosines |= {name: _lowest(recorder.predicted[key]) for name, key in ((REDUCED, "reduced"),
                                                                          (REFERENCE, "reference"))
                    if key in recorder.predicted}
        predicted[recorder.walked] = recorder.predicted_loss
    return {
        "cosines.png": (
            figures.theories(steps, cosines, loss, predicted, title=title),
            "How well each theory predicts the trained weights (of several layers: the lowest cosine), and the loss, "
            "over training. Look for the step at which a line leaves the top of its panel (cosine 1): up to there the "
            "theory predicts that weight."),
        "gradient_terms.png": (
            figures.gradient_terms(steps, norms, title=title),
            "Size of every term of the exact gradient over training. Look for the step at which a correction crosses "
            "the leading term: from there on the leading term alone does not describe training."),
        "corrections.png": (
            figures.corrections(steps, norms, crossings, title=title),
            "Every correction as a share of the leading term. Rings mark where it first exceeds 1%, 10% and 50%. Look "
            "for the line with the leftmost rings: that correction ends the leading terms.")}


def _lowest(records):
    """{parameter: the cosine at each step, of several layers the lowest}; nan where there is none."""
    names = [layer for record in records if record for layer in record.cosine]
    kinds = {kind: {name for name in names if name.split()[0] == kind} for kind in tables.PARAMETERS}
    return {kind: [np.min([record.cosine[name] for name in of_kind]) if record else np.nan for record in records]
            for kind, of_kind in kinds.items() if of_kind}


def basis_figures(basis: Statistics, vocabulary: Sequence[str]) -> dict[str, tuple[Figure, str]]:
    """{file name: (heat map, caption)} of the basis functions over the most frequent tokens."""
    frequent = np.argsort(-basis.frequency, kind="stable")[:HEAT_MAP_WORDS]
    labels = [style.tick_label(vocabulary[token], named=True) for token in frequent]
    return {f"{name}.png": (figures.heat_map(getattr(basis, name)[np.ix_(frequent, frequent)], labels, row, column,
                                             title=f"{name} function, {len(frequent)} most frequent tokens"), caption)
            for name, (row, column, caption) in BASIS_FUNCTIONS.items() if getattr(basis, name) is not None}
