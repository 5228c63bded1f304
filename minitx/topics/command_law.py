"""``minitx topics`` without a text: documents of known topics, closed forms beside what is trained (Li, Li, Risteski 2023)."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from minitx.base import report, style
from minitx.base.checks import positive, whole_number
from minitx.base.console import lower, progress_bar
from minitx.data.batch import Batch
from minitx.model.descent import Stopped, descend
from minitx.model.weights import EmbeddedWeights
from minitx.topics import attention, command_law_figures, cross_entropy, training
from minitx.topics import sectors as topic_law
from minitx.topics import values as block_values
from minitx.topics.law import TopicModel
from minitx.topics.training import BLOCK_FIELDS, CLASSES

HEADS = ("squared", "cross_entropy")
MOST_PAIRS = 3_000_000  # of queries and keys, in all infinite documents, which are trained on together
QUICK = {"seeds": 1, "documents": 1000, "effort": 0.1}
HELD_OUT = 500  # clean documents for attention


@dataclass(frozen=True)
class Options:
    """The effective configuration of a run; saved in ``results.json``."""

    topics: int = 10
    words: int = 10
    tau: int | None = None
    alpha: float | None = None
    length: str = "128"
    documents: int = 10_000
    p_m: float = 0.15
    p_c: float = 0.1
    p_r: float = 0.1
    loss: str = "pooled"
    head: str = "squared"
    effort: float = 1.0
    seeds: int = 3
    seed: int = 0
    threads: int | None = None
    out: str = "minitx-topics"
    quick: bool = False
    asked: dict = field(init=False, compare=False, default_factory=dict)  # what --quick lowered: {option: value asked for}

    def __post_init__(self):
        if self.tau is None and self.alpha is None:
            object.__setattr__(self, "tau", max(1, min(2, whole_number("--topics", self.topics, 2) - 1)))
        if self.head not in HEADS:
            raise ValueError(f"--head is {self.head!r}; it must be one of {', '.join(HEADS)}")
        for name, least in (("topics", 2), ("seeds", 1), ("seed", 0), ("documents", 1)):
            whole_number(f"--{name}", getattr(self, name), least)
        positive("--effort", self.effort)
        if not self.out:
            raise ValueError("--out is empty; it must name a folder")
        if self.quick:
            lower(self, QUICK)
        _require_something_to_learn(self.setting)  # both refuse what cannot be, before any work

    @property
    def setting(self):
        """The theory's view of the documents."""
        return TopicModel(self.topics, self.words, self._length(), tau=self.tau, alpha=self.alpha, p_m=self.p_m, p_c=self.p_c,
                              p_r=self.p_r, loss=self.loss)
    def _length(self):
        ends = self.length.split("-")
        if not 1 <= len(ends) <= 2 or not all(end.isdecimal() for end in ends):
            raise ValueError(f"--length is {self.length!r}; it must be a number of words, such as 128, or a range, such as 100-150")
        return int(ends[0]) if len(ends) == 1 else (int(ends[0]), int(ends[1]))

    def steps(self, number):
        """``number`` of steps, times the effort asked for."""
        return max(12, round(number * self.effort))


def _require_something_to_learn(setting):
    """ValueError where what is shown says nothing about the words that are hidden."""
    found = topic_law.moments(setting)
    if found.C_t == 0 or found.M_w == 0:
        raise ValueError(f"with {setting.T} topics, tau {setting.tau}, p_m {setting.p_m:g} and p_c {setting.p_c:g} the words "
                         "shown say nothing about those hidden; lower --p-m or --tau, or raise --p-c")


HELP = {
    "topics": "number of topics (T)", "words": "words a topic (v)", "tau": "topics of a document (default: 2, without --alpha)",
    "alpha": "parameter of Dirichlet shares of topics, instead of --tau", "length": "words of a document: N, or a range LOW-HIGH",
    "documents": "documents to train on", "p_m": "probability that a word is chosen to be predicted",
    "p_c": "probability that a chosen word is shown", "p_r": "probability that a chosen word is replaced by a random one",
    "loss": "mean over all chosen words (pooled), or of each document's mean (per_document)",
    "head": "loss of the single stages, squared or cross_entropy; the joint training is by cross-entropy",
    "effort": "training steps, as a multiple of the default", "seeds": "number of seeds", "seed": "the first seed",
    "threads": "threads to use; all cores when not given. Results do not depend on it",
    "out": "folder for figures, results.json, report.html and weights", "quick": "one seed, 1,000 documents, a tenth of the steps",
}


@dataclass(frozen=True, eq=False)
class Stage:
    """What was trained in a stage: one :class:`minitx.model.descent.Run` a seed, beside its closed forms.

    ``part``: which averages of its records it is about. ``closed``: {label: {class of pairs: value}}. ``trajectory``: {class:
    (steps, values)} of the closed trajectory, where there is one.
    """

    name: str
    title: str
    part: str
    runs: list
    closed: dict = field(default_factory=dict)
    trajectory: dict = field(default_factory=dict)

    @property
    def recorded(self):
        """The runs that were recorded at least once: one that is stopped at once is not."""
        return [run for run in self.runs if run.records]

    @property
    def stopped(self):
        """Why a run of the stage ended early, or None."""
        return next((run.trajectory.stopped for run in self.runs if run.trajectory.stopped), None)


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found. ``infinite``: {"path", "predicted"} of the attention ratio on infinite documents, or None."""

    options: Options
    stages: dict
    infinite: dict | None
    stopped: Stopped | None

    @property
    def held_out(self):
        """The clean documents of the first seed."""
        return _held_out(self.options, self.options.seed)


def run(options, say):
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known."""
    setting = options.setting
    law = f"{setting.tau} topics each" if setting.tau else f"Dirichlet({setting.alpha:g}) shares of topics"
    say(f"{setting.T} topics of {setting.v} words; {options.documents:,} documents of {options.length} words, {law}; chosen words "
        f"{setting.p_m:g}, of which shown {setting.p_c:g}, random {setting.p_r:g}; seeds {options.seed} to "
        f"{options.seed + options.seeds - 1}")
    data = [_Data(options, seed) for seed in range(options.seed, options.seed + options.seeds)]
    stages, infinite, stopped = {}, None, None
    for make in (_value, _embedding, _infinite, _attention, _copying, _joint):
        if make is _infinite:
            infinite = _infinite(options, say)
            stopped = infinite and infinite["stopped"]
        else:
            stage = make(options, data, stages)
            _say_stage(stage, say)
            stages[stage.name], stopped = stage, stage.stopped
        if stopped:
            say(f"\nstopped early: {stopped}")
            break
    return Result(options, stages, infinite, stopped)


def _held_out(options, seed):
    """Clean documents that are not trained on."""
    return options.setting.documents(HELD_OUT, rng=seed + 1_000_000)


class _Data:
    """Documents and masks of one seed, the same in every stage."""

    def __init__(self, options, seed):
        self.options, self.seed = options, seed
        model = options.setting
        self.topics, self.held_out = model.topic_of_token, _held_out(options, seed)
        self.documents = model.documents(options.documents, rng=seed)
        self.batches = {}

    def batch(self, head):
        """The masked documents; the same masks for every head."""
        if head not in self.batches:
            o = self.options
            self.batches[head] = o.setting.mask(self.documents, head=head, rng=self.seed)
        return self.batches[head]

    def start(self, **scales):
        """Gaussian start of these standard deviations."""
        return EmbeddedWeights.gaussian(self.options.setting.V, rng=self.seed, **scales)

    def train(self, name, start, head, eta, steps, size=None, **settings):
        """A recorded run; mini-batches of ``size`` documents, or all of them."""
        batch = self.batch(head)
        size = None if size is None else min(size, len(batch.with_loss()))
        with progress_bar(total=steps, unit="step", desc=f"{name}, seed {self.seed}") as bar:
            return training.train(start, batch, topics=self.topics, documents=self.held_out, learning_rate=eta, steps=steps,
                                        batch_size=size, rng=self.seed, progress=lambda step: bar.update(step > 0), **settings)


def _each(data, train):
    """``train(one)`` of every seed's data, until a run ends early."""
    runs = []
    for one in data:
        runs.append(train(one))
        if runs[-1].trajectory.stopped:
            break
    return runs


# ----------------------------------------------------------------------------------------------------------- the stages


def _steps(options, steps, size, eta):
    return f"{steps:,} steps of {min(size, options.documents)} documents, eta = {eta:g}"


def _value(options, data, stages):
    """Stage 1a: W_V."""
    setting, name = options.setting, "stage 1a: value matrix W_V, one-hot embeddings, uniform attention"
    if options.head == "cross_entropy":
        eta, steps = 2.0 * setting.n, options.steps(4000)
        runs = _each(data, lambda one: one.train("W_V", one.start(W_V=0.0), "cross_entropy", eta, steps, 500))
        return Stage("value", f"{name}; cross-entropy, {_steps(options, steps, 500, eta)}", "value", runs,
                     _cross_entropy_forms(setting, same_word=True))
    found = topic_law.moments(setting)
    eta = float(f"{0.12 / max(found.M_w, found.M_t, *np.linalg.eigvalsh(found.M_pair)):.2g}")
    steps = options.steps(min(20_000, 3 / (2 * eta * found.M_w)))
    runs = _each(data, lambda one: one.train("W_V", one.start(W_V=0.0), "squared", eta, steps, at=_spread(steps)))
    fine = _spread(steps, 60)
    path = [block_values.value_after(setting, step, eta) for step in fine]
    trajectory = {label: (fine, [getattr(value, name) for value in path]) for label, name in BLOCK_FIELDS.items()}
    closed = {f"closed form, after {steps:,} steps": _blocks(path[-1]),
              "closed form, end of descent": _blocks(block_values.optimal_value(setting)),
              "limit N -> inf, then ridge -> 0 (paper)": _blocks(block_values.paper_value(setting)),
              "limit ridge -> 0, then N -> inf": _blocks(block_values.other_limit_value(setting))}
    return Stage("value", f"{name}; squared loss, {steps:,} full-batch steps, eta = {eta:g}", "value", runs, closed, trajectory)


def _embedding(options, data, stages):
    """Stage 1b: E."""
    setting, name = options.setting, "stage 1b: embeddings, E^T E; no value matrix, output tied, uniform attention"
    if options.head == "cross_entropy":
        eta, steps = setting.n / 100, options.steps(3000)
        runs = _each(data, lambda one: one.train("E", one.start(W_E=0.01), "cross_entropy", eta, steps, 500))
        return Stage("embedding", f"{name}; cross-entropy, {_steps(options, steps, 500, eta)}", "embedding", runs,
                     _cross_entropy_forms(setting, same_word=False))
    found = topic_law.moments(setting)
    eta = float(f"{0.012 / max(found.M_w, found.M_t, *np.linalg.eigvalsh(found.M_pair)):.2g}")
    steps = options.steps(min(20_000, 12 / (2 * eta * found.C_t)))
    runs = _each(data, lambda one: one.train("E", one.start(W_E=0.01), "squared", eta, steps))
    closed = {"closed form, plateau": _blocks(block_values.gram_plateau(setting))} if setting.h < math.inf else {}
    closed["closed form, end of descent"] = _blocks(block_values.optimal_gram(setting))
    return Stage("embedding", f"{name}; squared loss, {steps:,} full-batch steps, eta = {eta:g}", "embedding", runs, closed)


def _attention(options, data, stages):
    """Stage 2: W_Q and W_K, the value matrix frozen at the paper's limit."""
    setting = options.setting
    W_V = block_values.separated_value(setting).matrix(setting)
    runs, how = _stage_2(options, data, "attention", [W_V] * len(data))
    closed = {}
    if _has_ratio(setting, options.head):
        best = attention.optimal_ratio(replace(setting, length=math.inf, loss="pooled"))
        profile = attention.attention_profile(setting, best.rho, best.rho)
        closed = {f"attention {best.rho:.4f} : 1, the best at N = inf": _blocks(profile)}
    return Stage("attention", f"stage 2: attention times N, W_V frozen at the paper's limit; {how}", "attention", runs, closed)


def _stage_2(options, data, name, values):
    """Train W_Q and W_K, W_V frozen at the matrix of ``values`` for each seed. Returns the runs, and how they were made."""
    eta, steps = (20.0 if options.head == "squared" else 0.2) * options.setting.n, options.steps(1000)

    def train(one):
        start = replace(one.start(W_V=0.0, W_QK=0.05), W_V=values[one.seed - options.seed])
        return one.train(name, start, options.head, eta, steps, 200, frozen=("W_V",))

    loss = options.head.replace("_", "-")
    return _each(data, train), f"{loss}{' loss' if loss == 'squared' else ''}, {_steps(options, steps, 200, eta)}"


def _copying(options, data, stages):
    """Stage 2 after stage 1a: the trained value matrix knows the same word, and attention copies."""
    runs, how = _stage_2(options, data, "copying", [before.weights.W_V for before in stages["value"].runs])
    return Stage("copying", f"stage 2 after stage 1a: attention times N, W_V frozen as trained; {how}", "attention", runs)


def _joint(options, data, stages):
    """W_V, W_Q and W_K together, cross-entropy."""
    setting, steps = options.setting, options.steps(1500)
    eta = 0.2 * setting.n
    runs = _each(data, lambda one: one.train("joint", one.start(W_V=0.0, W_QK=0.05), "cross_entropy", eta, steps, 200))
    return Stage("joint", "W_V, W_Q, W_K together: attention times N; cross-entropy, "
                 f"{_steps(options, steps, 200, eta)}", "attention", runs)


def _has_ratio(setting, head):
    """Whether the best attention ratio has a closed form."""
    return head == "squared" and setting.tau is not None and setting.tau < setting.T and setting.p_c < 1


def _infinite(options, say):
    """Stage 2 on all infinite documents: the trained ratio beside the predicted one; None where there is no closed form."""
    setting = replace(options.setting, length=math.inf, loss="pooled")
    if not _has_ratio(setting, options.head):
        return None
    if math.comb(setting.T, setting.tau) * setting.V**2 > MOST_PAIRS:
        say("\nstage 2 on infinite documents is left out: there would be too many of them, or too many words")
        return None
    documents, steps, eta = attention.infinite_documents(setting), options.steps(1500), 30.0 * setting.n
    batch = Batch(documents.tokens, documents.targets, documents.weight, mass=documents.mass, causal=False, head="squared")
    start = replace(EmbeddedWeights.gaussian(setting.V, W_V=0.0, W_QK=0.05, rng=options.seed),
                    W_V=block_values.paper_value(setting).matrix(setting))
    path, at = [], set(_spread(steps, 40)) | {0}
    with progress_bar(total=steps, unit="step", desc="infinite documents") as bar:

        def callback(step, loss, weights, gradient):
            bar.update(step > 0)
            if step in at:
                path.append(training.attention_ratios(weights, setting) | {"step": step, "loss": loss})

        trained = descend(start, batch, learning_rate=eta, steps=steps, frozen=("W_V",), callback=callback)
    predicted, end = attention.optimal_ratio(setting, free_mask=True), path[-1]
    say(f"\nstage 2 on infinite documents, W_V frozen at the paper's limit; squared loss, {steps:,} steps, eta = {eta:g}\n"
        f"{'':30}{'rho':>10}{'alpha':>10}{'beta':>10}{'[MASK]':>10}{'loss':>12}\n"
        f"{'closed form':30}{predicted.rho:10.4f}{'flat':>10}{'flat':>10}{predicted.rho_0:10.4f}{predicted.loss:12.6f}\n"
        f"{'trained':30}{end['rho']:10.4f}{end['alpha']:10.4f}{end['beta']:10.4f}{end['rho_0']:10.4f}{end['loss']:12.6f}")
    return {"path": path, "predicted": predicted, "stopped": trained.stopped}


# ------------------------------------------------------------------------------------------------------------- printing


def _blocks(value):
    """{class of pairs: value} of closed forms."""
    return {label: getattr(value, name) for label, name in BLOCK_FIELDS.items() if hasattr(value, name)}


def _cross_entropy_forms(setting, *, same_word):
    """The two differences that the cross-entropy determines."""
    try:
        best = cross_entropy.cross_entropy_optimum(setting, same_word=same_word)
    except ValueError:  # no minimum, or one that words alone do not determine
        return {}
    return {"two-parameter optimum" if same_word else "optimum with word - topic = 0": {"A": best.A, "B": best.B}}


def _spread(steps, most=24):
    """Up to ``most`` steps from 1 to ``steps``, evenly spaced on a logarithmic scale."""
    return sorted({int(step) for step in np.rint(np.geomspace(1, steps, most))})


def at_end(stage):
    """{class of pairs: (R seeds,)} of the last records, with the differences A and B."""
    last = [run.records[-1] for run in stage.recorded]
    if not last:
        return {}
    found = {name: np.array([getattr(getattr(record, stage.part), attribute) for record in last])
             for name, attribute in CLASSES.items()}
    if stage.part == "value":
        found["mask column"] = np.array([record.mask_column for record in last])
    return found | {"A": found["same word"] - found["same topic"], "B": found["same topic"] - found["different topic"]}


def _say_stage(stage, say):
    if not stage.recorded:
        return
    trained = at_end(stage)
    columns = [name for name in trained if name not in ("A", "B") or any(name in closed for closed in stage.closed.values())]
    heads = {"A": "word - topic", "B": "topic - other"}
    lines = [stage.title, f"{'':42}" + "".join(f"{heads.get(name, name):>16}" for name in columns)]
    n_seeds = len(stage.recorded)
    label = "trained" if n_seeds == 1 else f"trained, mean of {n_seeds} seeds"
    rows = {label: {name: values.mean() for name, values in trained.items()}}
    if n_seeds > 1:
        rows["         s.d."] = {name: values.std(ddof=1) for name, values in trained.items()}
    for label, values in (*rows.items(), *stage.closed.items()):
        lines.append(f"{label:42}" + "".join(_cell(values, name) for name in columns))
    including, different, n = training.same_exceeds_different(stage.runs, stage.part)
    lines.append(f"same topic above different topic at {including} of {n} recorded steps (different words only: {different})")
    say("\n" + "\n".join(lines))


def _cell(values, name):
    return f"{values[name]:16.5f}" if name in values else f"{'-':>16}"


# -------------------------------------------------------------------------------------------------------------- writing


def write(result, folder, printed):
    """Write weights, results.json, the figures and report.html to ``folder``; returns the names of the files."""
    files = []
    for name, stage in result.stages.items():
        if stage.runs:
            files.append(f"weights-{name}.npz")
            stage.runs[0].weights.save(folder / files[-1])
    report.write_json(folder / "results.json", numbers(result))
    captions = {}
    for name, (figure, caption) in command_law_figures.figures(result).items():
        style.save(figure, folder / name)
        captions[name] = caption
    report.write_page(folder / "report.html", "minitx topics", "\n".join(printed), captions)
    return [*captions, "report.html", *files, "results.json"]


def numbers(result):
    """What ``results.json`` holds of a result."""
    stages = {}
    for name, stage in result.stages.items():
        stages[name] = {"title": stage.title, "closed": stage.closed, "records": [run.records for run in stage.runs],
                        "loss": [run.trajectory.loss for run in stage.runs], "at end": at_end(stage)}
    return {"configuration": result.options, "environment": report.environment(), "stages": stages, "infinite": result.infinite,
            "stopped": result.stopped}
