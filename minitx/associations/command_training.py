"""``minitx associate``: its options, its training beside the theories, and what is measured when training has ended."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minitx.associations import reduced, reference_dynamics, tables, terms, words
from minitx.associations.basis import Statistics
from minitx.associations.command_corpus import TextOptions
from minitx.associations.interventions import interventions
from minitx.associations.leading import Beside, beside, bounds, leading_weights
from minitx.associations.recording import TermRecorder
from minitx.base.checkpoint import Checkpoint
from minitx.base.console import progress, rise
from minitx.base.numbers import Agreement, agreement, cosine, norm
from minitx.base.options import Resumable, check_option, option
from minitx.base.parallel import matmul
from minitx.base.report import rounded
from minitx.base.tables import number
from minitx.data.batch import Batch
from minitx.model.circuits import loss_and_gradient
from minitx.model.descent import DescentEnded, Trajectory, descend, descent
from minitx.model.layers import LayeredWeights
from minitx.model.weights import OneHotWeights

N_RECORDS = 12  # rows of the tables, beside the first three steps
SNAPSHOT_WORDS = 24  # of the trained weights, entries between so many words are kept at each recorded step
INTERVENED = 64  # windows on which a model of one layer is intervened with; of L layers, 1/L of them
N_ASSOCIATES = 8
Split = dict[str, dict[str, Any]]  # {parameter: {"terms": {term: norm}, ...}}, of split_gradient
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
        if step < options.steps:  # the gradient of the last step is split when training has ended
            self.terms.add(step, weights, leading)  # after the row: the first of them compiles kernels
        self.snapshots.add(weights)

    def complete(self, split: Split) -> None:
        """Keep the norms of the terms after the last step, if it is recorded, from the ``split`` of its gradient.

        A checkpoint of an earlier version holds them already.
        """
        recorded = self.leading and self.leading[-1].step == self.last == self.options.steps
        if recorded and self.last not in self.terms.steps:
            self.terms.keep(self.last, {parameter: found["terms"] for parameter, found in split.items()})


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
        return rounded(matrix[np.ix_(self.tokens, self.tokens)])

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
                   leading: OneHotWeights) -> Split:
    """{parameter: {"terms": {term: norm}, "gradient": norm, "miss": |sum - gradient|, "digits": of the sum}}."""
    found = terms.gradient_terms(weights, batch, leading=leading)
    norms, split = terms.term_norms(found), {}
    _, gradient = loss_and_gradient(weights.astype(np.float64), batch)
    for parameter, exact in gradient.matrices().items():
        size, miss = norm(exact), norm(sum(found[parameter].values()) - exact)
        split[parameter] = {"terms": norms[parameter], "gradient": size, "miss": miss,
                            "digits": max(0.0, -np.log10(miss / size)) if miss > 0 and size > 0 else float("inf")}
    return split
