"""``minitx automaton``: the automaton that one attention layer learns (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024).

Priority graphs of the last tokens, their SCCs, the limit that they predict (W_svm and W_fin), and attention trained beside it.

Legend: n samples, K tokens, d width, k the last token of a sequence.
"""

import dataclasses
import time
import typing
from dataclasses import dataclass, field, replace

import numpy as np

from minitx.base import parallel, report, style
from minitx.base.checks import atomic, output_folder, positive, whole_number
from minitx.base.console import Forecast, Printer, announce, lower, progress_bar, status
from minitx.base.numbers import norm, total_variation
from minitx.model.weights import LastTokenWeights
from minitx.next_token import command_data, command_figures, command_tables, training
from minitx.next_token import figures as plots
from minitx.next_token.automaton import Automaton
from minitx.next_token.graphs import constraints, priority_graphs
from minitx.next_token.losses import LOSSES, context_attention
from minitx.next_token.sample_files import holds_samples
from minitx.next_token.split import cyclic_subspace
from minitx.next_token.svm import InfeasibleError, solve

DEFAULTS = {  # of options that not every source of data has
    "generated": {"vocabulary": 8, "samples": 120, "length": 6, "classes": 3},
    "samples": {"samples": None, "absent": "omit"},
    "text": {"vocabulary": 100, "length": 24, "windows": 300, "absent": "omit"},
}
METAVARS = {int: "N", float: "X", str: "DIR"}
SOURCES = {"generated": "generated samples", "samples": "a file of samples", "text": "a text"}
QUICK = {"steps": 400, "contexts": 100, "windows": 40, "vocabulary": 40, "samples": 400}
EMBEDDINGS = ("one-hot", "random")
MODES = {"descent": "plain descent", "normalised": "normalised descent", "accelerated": "accelerated (told the SCCs)"}
HELP = {
    "text": "a text (.txt, .jsonl, .json, or .gz of each), or a .jsonl file of samples, {\"tokens\": [...], \"label\": ...} a "
            "line; without it, samples are generated",
    "vocabulary": "number of tokens (K) of generated samples (default: 8), or of words of a text, the most frequent ones (100)",
    "samples": "number of generated samples (default: 120); use at most so many of a file",
    "length": "tokens of a generated sample (default: 6); of a window of a text, each of whose prefixes is a sample (24)",
    "classes": "classes of tokens that each last token ranks, in generated samples (default: 3)",
    "windows": "use at most the first so many windows of a text (default: 300)",
    "absent": "what becomes of samples whose label does not occur in them: omit (default) or refuse",
    "embedding": "embeddings of the tokens: one-hot, or random ones of length 1, whose Graph-SVM is one large problem",
    "width": "dimensions of random embeddings (default: as many as tokens)",
    "loss": "loss that descent trains on; the accelerated mode, and W_fin, are about log",
    "steps": "steps of each training mode, of the accelerated one at most 1,000",
    "learning_rate": "length of a step of normalised descent",
    "plain_rate": "learning rate of plain descent",
    "contexts": "held-out contexts",
    "seed": "seed of generated samples, embeddings and contexts",
    "threads": "threads to use; all cores when not given. Results do not depend on it",
    "out": "folder for figures, results.json, report.html and weights.npz",
    "quick": "the same job in seconds: fewer steps, contexts and words",
}
ACCELERATED_STEPS = 1000  # at most: farther out, where |W| is 10,000 and more, rounding grows
BYTES, MOST_BYTES = 40, 6e9  # of memory, for each number of the rows of a Graph-SVM; what needs more is refused
SVM_TRIAL = 1000  # rows of the Graph-SVM that an estimate of its time is taken from, where a block has several times as many


@dataclass(frozen=True)
class Options:
    """The effective configuration of a run, saved in ``results.json``; ``HELP`` says what each is."""

    text: str | None = None
    vocabulary: int | None = None
    samples: int | None = None
    length: int | None = None
    classes: int | None = None
    windows: int | None = None
    absent: str | None = None
    embedding: str = "one-hot"
    width: int | None = None
    loss: str = "log"
    steps: int = 4000
    learning_rate: float = 0.01
    plain_rate: float = 1.0
    contexts: int = 500
    seed: int = 0
    threads: int | None = None
    out: str = "minitx-automaton"
    quick: bool = False
    asked: dict = field(init=False, compare=False, default_factory=dict)  # what --quick lowered: {option: value asked for}
    source: str = field(init=False, default="generated")

    def __post_init__(self):
        for name, known in (("embedding", EMBEDDINGS), ("loss", LOSSES), ("absent", (None, "omit", "refuse"))):
            if getattr(self, name) not in known:
                raise ValueError(f"--{name} is {getattr(self, name)!r}; it must be one of {', '.join(filter(None, known))}")
        for name, least in (("vocabulary", 2), ("samples", 1), ("length", 1), ("classes", 1), ("windows", 1), ("width", 1),
                            ("steps", 1), ("contexts", 0), ("seed", 0), ("threads", 1)):
            if getattr(self, name) is not None:
                whole_number(f"--{name}", getattr(self, name), least)
        positive("--learning-rate", self.learning_rate, below=1e30)
        positive("--plain-rate", self.plain_rate, below=1e30)
        if not self.out or self.text == "":
            raise ValueError("the text and --out must each name something; one of them is empty")
        if self.width is not None and self.embedding == "one-hot":
            raise ValueError(f"--width is {self.width}, but one-hot embeddings have as many dimensions as there are tokens; leave "
                             "it out, or ask for --embedding random")
        self._resolve()

    def _resolve(self):
        """The source of data, and what it makes of options that were not given."""
        source = "generated" if self.text is None else "samples" if holds_samples(self.text) else "text"
        own = DEFAULTS[source]
        for name in {name for options in DEFAULTS.values() for name in options} - set(own):
            if getattr(self, name) is not None:
                raise ValueError(f"--{name} is not for {SOURCES[source]}; leave it out")
        values = {name: value if getattr(self, name) is None else getattr(self, name) for name, value in own.items()}
        for name, value in (values | {"source": source}).items():
            object.__setattr__(self, name, value)
        if self.quick:
            lower(self, {name: most for name, most in QUICK.items() if name in own or name in ("steps", "contexts")})
        if source == "generated" and self.classes > self.vocabulary:
            raise ValueError(f"--classes is {self.classes} but --vocabulary {self.vocabulary}; no class may be empty")


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found.

    Attributes
    ----------
    automaton : Automaton or None
        None where no weights retrieve what the samples ask for: ``infeasible`` says why, and nothing was trained.
    runs : dict {mode: minitx.model.descent.Run}
        Those that were begun.
    predictions : list of Prediction, one a context
    trained : dict {mode: (n contexts, K)}
        Attention of the trained weights.
    """

    options: Options
    data: command_data.Data
    graphs: dict
    dim: int  # of S_fin
    automaton: Automaton | None
    infeasible: InfeasibleError | None
    runs: dict
    predictions: list
    trained: dict

    @property
    def stopped(self):
        """Why training ended early; None when it did not."""
        return next((early for run in self.runs.values() if (early := _early(run))), None)

    @property
    def mode_names(self):
        """{mode: its name for readers}."""
        return MODES

    @property
    def status(self):
        """(n contexts,) statuses."""
        return np.array([prediction.status for prediction in self.predictions], dtype=str)

    @property
    def limit(self):
        """(n contexts, K) predicted distributions."""
        return np.array([prediction.p for prediction in self.predictions]).reshape(-1, self.data.samples.n_vocab)


def add_arguments(parser):
    """Declare the options of ``minitx automaton`` on an argparse parser."""
    choices = {"embedding": EMBEDDINGS, "loss": LOSSES, "absent": ("omit", "refuse")}
    for option in dataclasses.fields(Options):
        if not option.init:
            continue
        text = HELP[option.name] + (f" (default: {option.default})" if option.default not in (None, False) else "")
        settings = {"default": option.default, "help": text.replace("%", "%%")}
        if option.name == "text":
            parser.add_argument("text", nargs="?", metavar="FILE", **settings)
        elif option.type is bool:
            parser.add_argument(f"--{option.name}", action="store_true", **settings)
        else:
            kind = next(iter(typing.get_args(option.type)), option.type)  # int of int | None
            settings |= {"choices": choices[option.name]} if option.name in choices else {"metavar": METAVARS[kind]}
            parser.add_argument("--" + option.name.replace("_", "-"), type=kind, **settings)


def main(arguments):
    """Run the command from parsed arguments.

    Returns the exit status: 0; 1 when training diverged, 130 when it was interrupted (what was done is written all the same).
    """
    options = Options(**{option.name: getattr(arguments, option.name) for option in dataclasses.fields(Options) if option.init})
    parallel.set_threads(options.threads)
    folder = output_folder(options.out)
    say = Printer()
    result = run(options, say)
    files = write(result, folder, say.lines)
    say(f"\nwritten to {folder}/: {', '.join(files)}")
    return status(result.stopped)


def run(options, say):
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known.

    Raises
    ------
    ValueError, FileNotFoundError
        A file that cannot be read; a Graph-SVM that needs more memory than ``MOST_BYTES`` (before it is begun).
    """
    data = command_data.load(options)
    say(data.about)
    E = _embeddings(options, data.samples.n_vocab)
    graphs = priority_graphs(data.samples)
    _require_memory(options, data.samples, graphs)
    say("\n" + command_tables.graphs_table(graphs, data.vocabulary))
    dim = cyclic_subspace(graphs, np.eye(data.samples.n_vocab) if E is None else E).dim
    _announce_graph_svm(options, graphs, np.eye(data.samples.n_vocab) if E is None else E, say)
    try:
        automaton = Automaton.fit(data.samples, E)
    except InfeasibleError as error:
        width = data.samples.n_vocab if E is None else E.shape[1]
        say("\n" + command_tables.infeasible_words(error, data.vocabulary, dim, width))
        return Result(options, data, graphs, dim, None, error, {}, [], {})
    say("\n" + command_tables.limit_words(automaton, options.loss))
    runs = _train(options, automaton, say)
    predictions = [automaton.predict(context) for context in data.contexts]
    trained = {mode: context_attention(run.weights, data.contexts) for mode, run in runs.items()}
    result = Result(options, data, graphs, dim, automaton, None, runs, predictions, trained)
    if predictions:
        say("\n" + command_tables.contexts_table(result))
        say("\n" + command_tables.distances_table(result))
    else:
        say("\nno held-out contexts: " + (data.without if options.contexts else "none was asked for"))
    if result.stopped:
        say(f"\nstopped early: {result.stopped}")
    return result


def _embeddings(options, n_vocab):
    """(K, d), rows of length 1; None: one-hot."""
    if options.embedding == "one-hot":
        return None
    rng = np.random.default_rng(options.seed).spawn(4)[3]  # the first three are those of the data
    E = rng.standard_normal((n_vocab, options.width or n_vocab))
    return E / norm(E, axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------------------------------- cost


def _require_memory(options, samples, graphs):
    """ValueError where the rows of the Graph-SVM would take more than ``MOST_BYTES``."""
    if options.embedding == "one-hot":  # a block for each last token
        return
    width = samples.n_vocab if options.width is None else options.width
    n_rows = sum(len(graph.reduction) for graph in graphs.values())
    needed = BYTES * n_rows * width * min(width, len(graphs))
    if needed > MOST_BYTES:
        raise ValueError(f"the Graph-SVM would need about {needed / 1e9:.2g} GB for {n_rows:,} inequalities in one block; random "
                         "embeddings do not split them by last token: use --embedding one-hot, or fewer samples, windows or words")


def _announce_graph_svm(options, graphs, E, say):
    """Say how long the Graph-SVM will take, if that is long: the time of a block grows with the cube of its rows."""
    sizes = {k: len(graph.reduction) for k, graph in graphs.items()}
    blocks = list(sizes.values()) if options.embedding == "one-hot" else [sum(sizes.values())]
    if max(blocks, default=0) < 3 * SVM_TRIAL:
        return
    rows = constraints({max(sizes, key=sizes.get): graphs[max(sizes, key=sizes.get)]} if options.embedding == "one-hot" else graphs)
    some = replace(rows, inequalities=rows.inequalities[:SVM_TRIAL])
    start = time.perf_counter()
    try:
        solve(some, E)
    except InfeasibleError:  # as the whole, which says so
        return
    seconds = (time.perf_counter() - start) * sum((n_rows / SVM_TRIAL) ** 3 for n_rows in blocks)
    announce("the Graph-SVM", seconds, f"the first {SVM_TRIAL:,} of its {sum(blocks):,} inequalities", say)


def _steps(options, mode):
    return min(options.steps, ACCELERATED_STEPS) if mode == "accelerated" else options.steps


# --------------------------------------------------------------------------------------------------------------- training


def _train(options, automaton, say):
    """{mode: Run}; a mode that ends early is the last one."""
    start = LastTokenWeights.zeros(automaton.samples.n_vocab) if automaton.E is None else LastTokenWeights.zeros(E=automaton.E)
    how = {"descent": (options.plain_rate, options.loss), "normalised": (options.learning_rate, options.loss),
           "accelerated": (None, "log")}
    runs = {}
    say(f"\ntraining from W = 0\n{command_tables.record_header()}")
    for mode, (rate, loss) in how.items():
        steps = _steps(options, mode)
        forecast = Forecast(MODES[mode], steps, say)
        with progress_bar(total=steps, unit="step", desc=MODES[mode]) as bar:

            def progress(step, bar=bar, forecast=forecast):
                bar.update(step > 0)
                forecast(step)

            run = training.train(start, automaton, mode=mode, learning_rate=rate, steps=steps, loss=loss,
                                            progress=progress)
        runs[mode] = run
        say(command_tables.mode_rows(mode, rate, loss, run))
        if _early(run):
            break
    return runs


def _early(run):
    """Why a run was cut short; None when it was not, or when there was nothing left to descend."""
    return run.trajectory.stopped if status(run.trajectory.stopped) else None


# ---------------------------------------------------------------------------------------------------------------- writing


def write(result, folder, printed):
    """Write figures, report.html, weights.npz and results.json to ``folder``; returns the names of the files."""
    for name in command_figures.NAMES:  # of an earlier run
        (folder / name).unlink(missing_ok=True)
    captions = {}
    for name, (figure, caption) in command_figures.figures(result).items():
        style.save(figure, folder / name)
        captions[name] = caption
    report.write_json(folder / "results.json", numbers(result))
    report.write_page(folder / "report.html", f"minitx automaton: {result.data.name}", "\n".join(printed), captions)
    arrays = {f"W_{mode}": run.weights.W for mode, run in result.runs.items()}
    if result.automaton is not None:
        arrays |= {"W_svm": result.automaton.svm.W, "W_fin": result.automaton.soft.W}
        arrays |= {} if result.automaton.E is None else {"E": result.automaton.E}
        with atomic(folder / "weights.npz", "wb") as file:
            np.savez(file, **arrays)
    return [*captions, "report.html", *["weights.npz"] * bool(arrays), "results.json"]


def numbers(result):
    """What ``results.json`` holds of a result."""
    data, automaton = result.data, result.automaton
    found = {"configuration": result.options, "environment": report.environment(), "data": data.about,
             "vocabulary": data.vocabulary, "n_vocab": data.samples.n_vocab, "samples": len(data.samples),
             "samples given": data.samples.n_given, "left out": data.samples.n_left_out,
             "graphs": {k: {"tokens": graph.tokens, "edges": graph.edges, "components": graph.components,
                            "reduction": graph.reduction, "layer": graph.layer} for k, graph in result.graphs.items()},
             "S_fin dimension": result.dim, "stopped": result.stopped}
    if automaton is None:
        return found | {"infeasible": {"certificate": result.infeasible.certificate, "residual": result.infeasible.residual}}
    return found | {
        "W_svm": {"norm": automaton.svm.norm, "kkt": automaton.svm.kkt, "inequalities": automaton.svm.n_inequalities,
                  "equalities": automaton.svm.n_equalities},
        "W_fin": {"norm": norm(automaton.soft.W), "loss": automaton.soft.loss,
                  "gradient norm": automaton.soft.gradient_norm, "dimension": automaton.soft.dim},
        "records": {mode: run.records for mode, run in result.runs.items()},
        "contexts": [{"context": context, "status": prediction.status, "gap": prediction.gap, "retrieved": prediction.retrieved,
                      "limit": prediction.p[np.unique(context)], "tokens": np.unique(context),
                      "trained": {mode: p[i, np.unique(context)] for mode, p in result.trained.items()}}
                     for i, (context, prediction) in enumerate(zip(data.contexts, result.predictions, strict=True))],
        "total variation": {mode: {name: total_variation(result.limit[result.status == name], p[result.status == name])
                                   for name in plots.STATUSES} for mode, p in result.trained.items()}}
