"""``minitx automaton``: the automaton that one attention layer learns (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024).

The command finds the priority graphs of the last tokens and their SCCs, computes the limit that they predict (W_svm and
W_fin), and trains attention beside it. Legend: n samples, K tokens, d width, k the last token of a sequence.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from minitx.base import style
from minitx.base.checkpoint import Checkpoint
from minitx.base.command import STATUS, Outcome, run_command
from minitx.base.console import announce, progress, rise
from minitx.base.numbers import norm
from minitx.base.options import Resumable, add_options, check_option, option, read_options, require_memory, typed_name
from minitx.model.recording import Run
from minitx.model.weights import LastTokenWeights
from minitx.next_token import command_tables, figures, page, snapshots, training
from minitx.next_token.automaton import STATUSES, Automaton
from minitx.next_token.command_data import Data, HeldOut, load
from minitx.next_token.command_tables import MODES, RECORDS, printable
from minitx.next_token.graphs import PriorityGraph, constraints, priority_graphs
from minitx.next_token.losses import LOSSES, context_attention
from minitx.next_token.rank_one import equicorrelated
from minitx.next_token.samples import holds_samples
from minitx.next_token.split import cyclic_subspace
from minitx.next_token.svm import InfeasibleError, solve

FIGURES = ("priority_graphs.png", "training.png", "predictions.png")
EXAMPLES = (
    ("minitx automaton", "Draw samples from known priorities, and train on them."),
    ("minitx automaton samples.jsonl --embedding random --out mine", "Train on samples of your own."),
    ("minitx automaton stories.txt --vocabulary 60", "Take the samples from a text."))
PLAIN_RATE = 1.0  # learning rate of plain descent
ACCELERATED_STEPS = 1000  # most steps of the accelerated mode; after more, |W| exceeds 10,000 and rounding errors grow
MOST_BYTES = 6e9  # a Graph-SVM that needs more memory than this is refused
BYTES = 40  # bytes that a Graph-SVM needs for each number of its rows, measured
SVM_TRIAL = 1000  # rows that the time of a Graph-SVM of three times as many, or more, is estimated from
LONGEST = 14  # letters of a word in a figure


@dataclass(frozen=True, kw_only=True)
class AutomatonOptions(Resumable):
    """The options that do not depend on where the samples come from."""

    command = "automaton"
    text: str | None = option(None, "a text (.txt, .jsonl, .json, or .gz of each), or a .jsonl file of samples, one "
                              "{\"tokens\": [...], \"label\": ...} a line; without it, samples are generated",
                              positional=True, metavar="FILE")
    embedding: str = option("one-hot", "embeddings of the tokens: one-hot, or vectors of length 1, which are random "
                            "or have the same cosine for each two of them; for these the Graph-SVM is one large "
                            "problem",
                            choices=("one-hot", "random", "equicorrelated"))
    correlation: float | None = option(None, "the cosine of any two equicorrelated embeddings; it is 0.3 when it is "
                                       "not given",
                                       above_zero=True, below=1.0)
    width: int | None = option(None, "dimensions of random embeddings; as many as tokens when not given", least=1,
                              most=10_000)
    loss: str = option("log", "loss of plain and normalised descent; W_fin and the accelerated mode are for log",
                       choices=LOSSES)
    steps: int = option(4000, f"steps of each mode; the accelerated one takes at most {ACCELERATED_STEPS:,}",
                        least=1, quick=400)
    learning_rate: float = option(0.01, "length of a step of normalised descent", above_zero=True, below=1e30)
    contexts: int = option(500, "number of held-out contexts", least=0, quick=100)
    check: float | None = check_option()
    out: str = option("minitx-automaton", "folder for figures, results.json, index.html and weights.npz",
                      metavar="DIR")

    def __post_init__(self):
        super().__post_init__()
        if self.width is not None and self.embedding != "random":
            raise ValueError(f"--width is {self.width}, but {self.embedding} embeddings have as many dimensions as "
                             "there are tokens; leave it out, or use --embedding random")
        if self.correlation is not None and self.embedding != "equicorrelated":
            raise ValueError(f"--correlation is {self.correlation:g}, but {self.embedding} embeddings have no common "
                             "cosine to choose; leave it out, or use --embedding equicorrelated")


@dataclass(frozen=True, kw_only=True)
class GeneratedOptions(AutomatonOptions):
    """Samples are drawn from a law of priorities."""

    vocabulary: int = option(8, "number of tokens (K)", least=2)
    samples: int = option(120, "number of samples", least=1)
    length: int = option(6, "tokens of a sample", least=1)
    classes: int | None = option(None, "number of classes in which each last token ranks the tokens; 3 when not given",
                                 least=1)
    acyclic: bool = option(False, "each last token ranks all tokens one below the other: no SCC has several tokens, "
                           "nothing is composed, and W grows along W_svm alone")
    source: str = dataclasses.field(init=False, default="generated")

    def __post_init__(self):
        super().__post_init__()
        if self.acyclic and self.classes is not None:
            raise ValueError(f"--classes is {self.classes}, but --acyclic makes as many classes as there are tokens; "
                             "leave one of the two out")
        if self.classes is None:
            object.__setattr__(self, "classes", self.vocabulary if self.acyclic else 3)
        if self.classes > self.vocabulary:
            raise ValueError(f"--classes is {self.classes} but --vocabulary {self.vocabulary}; no class may be empty")
        require_memory(200.0 * self.vocabulary**2, ("vocabulary", self.vocabulary))
        require_memory(80.0 * (self.samples + self.contexts) * self.length, ("samples", self.samples),
                       ("contexts", self.contexts), ("length", self.length))


@dataclass(frozen=True, kw_only=True)
class SampleFileOptions(AutomatonOptions):
    """Samples are read from a file; those whose label is not among their tokens are left out."""

    samples: int | None = option(None, "use at most this many samples", least=1, quick=400)
    source: str = dataclasses.field(init=False, default="samples")


@dataclass(frozen=True, kw_only=True)
class TextOptions(AutomatonOptions):
    """Samples are the prefixes of windows of a text; those that do not hold the word that follows are left out."""

    vocabulary: int = option(100, "number of words, the most frequent ones", least=2, quick=40)
    length: int = option(24, "tokens of a window, each of whose prefixes is a sample", least=1)
    windows: int = option(300, "use at most this many windows, the first ones", least=1, quick=40)
    source: str = dataclasses.field(init=False, default="text")


KINDS = {"generated samples": GeneratedOptions, "a file of samples": SampleFileOptions, "a text": TextOptions}


def options_of(typed: dict[str, Any]) -> AutomatonOptions:
    """The configuration of a run from the options that were typed, ``{name: value}``. Raises ValueError."""
    text = typed.get("text")
    if text == "":
        raise ValueError("FILE is empty; it must name a file, or be left out")
    source = "generated samples" if text is None else "a file of samples" if holds_samples(text) else "a text"
    for name in typed:
        if name not in {field.name for field in dataclasses.fields(KINDS[source])}:
            raise ValueError(f"{typed_name(name, typed[name])} is not for {source}; leave it out")
    return cast(AutomatonOptions, read_options(KINDS[source], typed))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx automaton`` on ``parser``."""
    add_options(parser, {f"options for {source}": kind for source, kind in KINDS.items()})


def main(arguments: argparse.Namespace) -> int:
    """Run the command from parsed arguments. Returns the exit status, see :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(arguments).items() if name != "command"}
    return run_command(options_of(typed), typed, run, FIGURES, resumable=True)


def run(options: AutomatonOptions, say: Callable[[str], object], checkpoint: Checkpoint | None = None) -> Outcome:
    """Do the job, from the ``checkpoint`` on; ``say(line)`` receives what is to be printed, as it becomes known.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`) and of
    ``_numbers``: ``data`` in words, ``vocabulary`` (null: tokens are numbers), ``n_vocab``, ``samples`` (distinct
    ones), ``samples given``, ``left out``, ``S_fin dimension``, ``graphs`` {last token: parts of its graph}, and
    ``snapshots``, attention between some tokens over training (:mod:`minitx.next_token.snapshots`). Where
    priorities contradict each other, ``infeasible`` stands there instead, with a ``certificate`` and its ``residual``.

    Raises ValueError or FileNotFoundError for a file that cannot be read, and ValueError for a Graph-SVM that needs
    more memory than ``MOST_BYTES``.
    """
    data = load(options)
    say(data.about)
    samples, E = data.samples, _embeddings(options, data.samples.n_vocab)
    graphs = priority_graphs(samples)
    _require_memory(options, samples, graphs)
    say("\n" + command_tables.graphs_table(graphs, data.vocabulary))
    rows = np.eye(samples.n_vocab) if E is None else E
    dim = cyclic_subspace(graphs, rows).dim
    _announce_graph_svm(options, graphs, rows, say)
    title = f"minitx automaton: {data.name}"
    results: dict[str, Any] = {
        "data": data.about, "vocabulary": data.vocabulary, "n_vocab": samples.n_vocab, "samples": len(samples),
        "samples given": samples.n_given, "left out": samples.n_left_out, "S_fin dimension": dim,
        "graphs": {k: {"tokens": graph.tokens, "edges": graph.edges, "components": graph.components,
                       "reduction": graph.reduction, "layer": graph.layer} for k, graph in graphs.items()}}
    try:
        automaton = Automaton.fit(samples, E)
    except InfeasibleError as error:
        say("\n" + command_tables.infeasible_words(error, data.vocabulary, dim, rows.shape[1]))
        found = {"infeasible": {"certificate": error.certificate, "residual": error.residual}}
        return Outcome(title, results | found, draw(data, graphs), inside=page.inside,
                       found="No weights satisfy all priorities of the samples with these embeddings.")
    say("\n" + command_tables.limit_words(automaton, options.loss))
    runs, stopped = _train(options, automaton, say, checkpoint)
    held_out = HeldOut(data, [automaton.predict(context) for context in data.contexts],
                       {mode: context_attention(run.weights, data.contexts) for mode, run in runs.items()})
    if data.contexts:
        say(f"\n{command_tables.contexts_table(held_out)}\n\n{command_tables.distances_table(held_out)}")
    else:
        say(f"\nThere are no held-out contexts: {data.without if options.contexts else '--contexts is 0'}.")
    if stopped:
        say(f"\nTraining stopped early: {stopped}.")
    arrays = {f"W_{mode}": run.weights.W for mode, run in runs.items()}
    arrays |= {"W_svm": automaton.svm.W, "W_fin": automaton.soft.W} | ({} if E is None else {"E": E})
    results["snapshots"] = snapshots.written(automaton, runs, data.vocabulary)
    return Outcome(title, results | _numbers(automaton, runs, held_out), draw(data, graphs, runs, held_out, dim),
                   {"weights.npz": arrays}, stopped, comparisons(held_out),
                   page.inside, verdict(held_out))


def verdict(held_out: HeldOut) -> str:
    """The sentence that says how near trained attention is to the predicted limit."""
    found = {MODES[mode]: at["determined"] for mode, at in _medians(held_out).items() if "determined" in at}
    if not found:
        return "No held-out context has a limit that is determined."
    parts = ", ".join(f"{command_tables.tiny(median)} ({mode})" for mode, median in found.items())
    return f"The median total variation between attention and the automaton on held-out contexts is {parts}."


def _medians(held_out):
    """{mode: {status: median total variation}} of the statuses that occur."""
    return {mode: {name: float(np.median(distance[held_out.status == name])) for name in STATUSES
                   if (held_out.status == name).any()} for mode, distance in held_out.distances.items()}


def comparisons(held_out: HeldOut) -> dict[str, tuple[float, float]]:
    """{what: (trained, predicted)}: the attention that training shares with the limit, 1 - total variation.

    It is the median over held-out contexts whose limit is determined; there is none where no context is.
    """
    determined = held_out.status == "determined"
    return {f"attention shared with the limit, {MODES[mode]}": (1 - float(np.median(distance[determined])), 1.0)
            for mode, distance in held_out.distances.items()} if determined.any() else {}


def _embeddings(options, n_vocab):
    """(K, d), rows of length 1; None if they are one-hot."""
    if options.embedding == "one-hot":
        return None
    if options.embedding == "equicorrelated":
        return equicorrelated(n_vocab, 0.3 if options.correlation is None else options.correlation)
    rng = np.random.default_rng(options.seed).spawn(4)[3]  # the data use the first three
    E = rng.standard_normal((n_vocab, options.width or n_vocab))
    return E / norm(E, axis=1, keepdims=True)


def _require_memory(options, samples, graphs):
    """ValueError where a Graph-SVM that the embeddings do not split would need more than ``MOST_BYTES``."""
    width = options.width or samples.n_vocab
    n_rows = sum(len(graph.reduction) for graph in graphs.values())
    needed = BYTES * n_rows * width * min(width, len(graphs))
    if options.embedding != "one-hot" and needed > MOST_BYTES:
        raise ValueError(f"the Graph-SVM would need about {needed / 1e9:.2g} GB for {n_rows:,} inequalities, which "
                         f"{options.embedding} embeddings do not split by last token: use --embedding one-hot, or "
                         "fewer samples")


def _announce_graph_svm(options, graphs, E, say):
    """Say how long the Graph-SVM will take, if that is long: the time of a block grows with the cube of its rows."""
    blocks = [len(graph.reduction) for graph in graphs.values()]
    if options.embedding == "one-hot":  # each last token has a block; the largest one is tried
        largest = list(graphs)[int(np.argmax(blocks))]
        graphs = {largest: graphs[largest]}
    else:
        blocks = [sum(blocks)]
    if max(blocks) < 3 * SVM_TRIAL:
        return
    rows, start = constraints(graphs), time.perf_counter()
    try:
        solve(replace(rows, inequalities=rows.inequalities[:SVM_TRIAL]), E)
    except InfeasibleError:  # then the whole problem is infeasible too, and says so
        return
    seconds = (time.perf_counter() - start) * sum((n_rows / SVM_TRIAL) ** 3 for n_rows in blocks)
    announce("the Graph-SVM", seconds, f"the first {SVM_TRIAL:,} of its {sum(blocks):,} inequalities", say)


def _train(options, automaton, say, checkpoint):
    """({mode: Run}, why the last one was cut short or None); one with nothing left to minimise was not cut short."""
    E = automaton.split.E
    start = LastTokenWeights.zeros(automaton.split.samples.n_vocab) if E is None else LastTokenWeights.zeros(E=E)
    modes = {"descent": {"loss": options.loss, "steps": options.steps, "learning_rate": PLAIN_RATE},
             "normalised": {"loss": options.loss, "steps": options.steps, "learning_rate": options.learning_rate},
             "accelerated": {"steps": min(options.steps, ACCELERATED_STEPS)}}
    say("\ntraining from W = 0 (corr: cosine with W_svm, where W - P W is the part of W off S_fin; P: projection "
        "onto S_fin)")
    say(RECORDS.header())
    runs = {}
    for mode, settings in modes.items():
        remedy = "a smaller --steps is quicker"
        with progress(MODES[mode], settings["steps"], say, remedy, title=MODES[mode]) as show:
            runs[mode] = training.train(start, automaton, mode=mode, progress=show,
                                        checkpoint=checkpoint and checkpoint.part(mode),
                                        watch=snapshots.watch(automaton), **settings)
        say(command_tables.mode_rows(mode, settings, runs[mode]))
        if found := rise(runs[mode].trajectory.loss):
            say(f"{MODES[mode]}: {found}")
        stopped = runs[mode].trajectory.stopped
        if stopped and stopped.kind in STATUS:
            return runs, stopped
    return runs, None


def _numbers(automaton, runs, held_out):
    """What ``results.json`` holds of the limit, of training and of the held-out contexts, besides what ``run`` adds.

    - ``W_svm``: its ``norm``, its ``kkt`` conditions, and the numbers of ``inequalities`` and ``equalities``.
    - ``W_fin``: its ``norm``, the least ``loss``, the ``gradient norm`` there, and the ``dimension`` of S_fin.
    - ``records``: {mode: :class:`minitx.next_token.training.Record` of each recorded step}.
    - ``contexts``: of each held-out ``context`` the ``status`` and ``gap`` of its prediction, its distinct ``tokens``,
      those ``retrieved``, and attention to its tokens in the ``limit`` and ``trained`` by mode.
    - ``total variation``: {mode: {status: distances between trained attention and the limit}}; and their ``median total
      variation``, of the statuses that occur.
    """
    svm, soft, contexts = automaton.svm, automaton.soft, []
    for i, (context, prediction) in enumerate(zip(held_out.data.contexts, held_out.predictions, strict=True)):
        tokens = np.unique(context)
        contexts.append({"context": context, "status": prediction.status, "gap": prediction.gap, "tokens": tokens,
                         "retrieved": prediction.retrieved, "limit": prediction.p[tokens],
                         "trained": {mode: p[i, tokens] for mode, p in held_out.trained.items()}})
    return {"W_svm": {"norm": norm(svm.W), "kkt": svm.kkt, "inequalities": len(svm.multipliers),
                      "equalities": len(svm.equality_multipliers)},
            "W_fin": {"norm": norm(soft.W), "loss": soft.loss, "gradient norm": soft.gradient_norm,
                      "dimension": soft.dim},
            "records": {mode: run.records for mode, run in runs.items()}, "contexts": contexts,
            "total variation": {mode: {name: distance[held_out.status == name] for name in STATUSES}
                                for mode, distance in held_out.distances.items()},
            "median total variation": _medians(held_out)}


def draw(data: Data, graphs: dict[int, PriorityGraph], runs: dict[str, Run] | None = None,
         held_out: HeldOut | None = None, dim: int = 0) -> dict[str, tuple[Any, str]]:
    """{file name: (figure, caption)}; without ``runs`` the priority graphs alone. ``dim`` is the dimension of S_fin."""
    name, words = style.literal(data.name), data.vocabulary
    share = np.bincount(data.samples.last, data.samples.share, data.samples.n_vocab)
    frequent = sorted(graphs, key=lambda k: (-share[k], k))  # the last tokens of most samples are drawn
    order = (*sorted(frequent[:figures.PANELS]), *frequent[figures.PANELS:])
    drawn = {"priority_graphs.png": (
        figures.priority_graphs({k: graphs[k] for k in order}, words and [printable(word, LONGEST) for word in words],
                                title=f"Priority graphs: {name}"),
        "A graph for each last token: a token has priority over those below it. Attention is predicted to retrieve the "
        "highest box that is present in a context. Look for coloured boxes of several tokens: attention mixes these.")}
    if runs and any(len(run.records) > 1 for run in runs.values()):
        records = {MODES[mode]: run.records for mode, run in runs.items()}
        drawn["training.png"] = (
            figures.next_token_training(records, title=f"Training: {name}", has_cycles=dim > 0),
            f"1 - correlation of W with W_svm, {'distance of the part of W in S_fin from W_fin' if dim else 'loss'}, "
            "norm of W, and attention outside the label's SCC. Look for lines that fall: W turns towards W_svm while "
            "its norm grows for ever.")
    if held_out and held_out.predictions and held_out.trained:
        trained, distances = ({MODES[mode]: of[mode] for mode in of} for of in (held_out.trained, held_out.distances))
        drawn["predictions.png"] = (
            figures.next_token_predictions(held_out.limit, trained, distances, held_out.status,
                                           title=f"Held-out contexts: {name}"),
            "Above, trained attention against the predicted limit, by status of the context; look for points on the "
            "diagonal. Below, the total variation between the two; look for lines that rise far to the left.")
    return drawn
