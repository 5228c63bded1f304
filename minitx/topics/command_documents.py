"""``minitx topics`` without a TEXT: the stages of the paper, trained on documents of known topics beside their closed
forms.

Every stage is one function: its closed form, the rate and number of its steps, the training of every seed.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minitx.base import options as base_options
from minitx.base.checkpoint import Checkpoint
from minitx.base.command import Outcome
from minitx.base.console import progress, rise
from minitx.base.options import check_option, option, require_memory, shown
from minitx.base.tables import number
from minitx.data.batch import Batch
from minitx.model.descent import descend
from minitx.model.recording import Recording
from minitx.model.weights import EmbeddedWeights
from minitx.topics import attention, page, snapshots, training
from minitx.topics import values as closed_forms
from minitx.topics.averages import gram
from minitx.topics.backtracking import Backtracking
from minitx.topics.command_documents_figures import figures
from minitx.topics.command_stages import InfiniteStage, Result, Stage
from minitx.topics.cross_entropy import cross_entropy_optimum
from minitx.topics.documents import LOSSES, Documents
from minitx.topics.finite_attention import best_attention
from minitx.topics.law import TopicModel
from minitx.topics.sectors import moments
from minitx.topics.training import BLOCK_FIELDS, CLASSES, TopicRun

STAGES = ("value", "embedding", "attention", "copying", "joint")
FIGURES = (*(f"{stage}_{kind}.png" for stage in STAGES for kind in ("matrix", "training")), "attention_loss.png",
           "attention_ratio.png", "two_limits.png", "two_stages.png")
WEIGHTS = tuple(f"weights-{stage}.npz" for stage in STAGES)
MOST_PAIRS = 3_000_000  # Pairs of query and key in all infinite documents together; above it that stage is left out.
LONGEST = 1_000_000  # words of a document
MOST_WORDS = 200  # of documents for which the best attention is sought, in a second or two
REMEDY = "fewer --topics, --words or --documents, shorter --length, or --quick, are quicker"
HELD_OUT = 500  # Clean documents on which attention is measured.
# {what a stage is about: the map (V, V) of its weights that the page shows}
MAPS: dict[str, Callable[[Any], Any]] = {
    "value": lambda weights: weights.circuits().ov.T, "embedding": lambda weights: gram(weights.W_E),
    "attention": snapshots.attention_over_uniform}


@dataclass(frozen=True, kw_only=True)
class Options(base_options.Resumable):
    """The configuration of a run; ``results.json`` keeps it."""

    quick_note = "a tenth of the steps of every stage"
    command = "topics"
    topics: int = option(10, "number of topics (T)", least=2)
    words: int = option(10, "words of each topic (v)", least=1)
    tau: int | None = option(None, "number of topics of each document; it is 2 when neither --tau nor --alpha is "
                            "given", least=1)
    alpha: float | None = option(None, "parameter of Dirichlet topic shares, in place of --tau", above_zero=True)
    length: str = option("128", "words of a document: a number, or a range such as 100-150", metavar="N|LOW-HIGH")
    documents: int = option(10_000, "documents to train on", least=1, quick=1000)
    p_m: float = option(0.15, "probability that a word is chosen to be predicted", is_probability=True)
    p_c: float = option(0.1, "probability that a chosen word is shown all the same", is_probability=True)
    p_r: float = option(0.1, "probability that a random word is shown in the place of a chosen one; else it is [MASK]",
                        is_probability=True)
    loss: str = option("pooled", "the mean over all chosen words, or over each document's mean", choices=LOSSES)
    head: str = option("squared", "loss of the single stages; the joint training is always by cross-entropy",
                       choices=("squared", "cross_entropy"))
    seeds: int = option(3, "number of seeds; --seed is the first", least=1, quick=1, most=1000)
    check: float | None = check_option()
    out: str = option("minitx-topics", "folder for figures, results.json, index.html and weights", metavar="DIR")
    quick: bool = option(False, "do the same job in seconds, with one seed, 1,000 documents and a tenth of the "
                         "steps")

    def __post_init__(self):
        super().__post_init__()
        if self.tau is None and self.alpha is None:
            object.__setattr__(self, "tau", min(2, self.topics - 1))
        if self.tau is not None and self.alpha is not None:
            raise ValueError(f"--tau is {self.tau} and --alpha is {self.alpha:g}; give one of them: how many topics a "
                             "document has, or the parameter of Dirichlet topic shares")
        if self.tau is not None and self.tau > self.topics:
            raise ValueError(f"--tau is {self.tau} but --topics {self.topics}; a document cannot have more topics than "
                             "there are: lower --tau, or raise --topics")
        if self.p_m == 0:
            raise ValueError("--p-m is 0, so that no word is ever chosen; it must be a probability above 0")
        if self.p_c + self.p_r > 1 + 1e-12:
            raise ValueError(f"--p-c is {self.p_c:g} and --p-r {self.p_r:g}; together they must be at most 1")
        require_memory(80.0 * self.topics**2 * self.words**2, ("topics", self.topics), ("words", self.words))
        require_memory(24.0 * self.documents * max(self.law.lengths), ("documents", self.documents),
                       ("length", self.length))
        found = moments(self.law)  # this refuses what cannot be, before any work
        if found.C_t == 0 or found.M_w == 0:
            raise ValueError(f"with --topics {self.topics}, --tau {self.tau}, --p-m {self.p_m:g} and --p-c "
                             f"{self.p_c:g} the words shown say nothing about those hidden; lower --p-m or --tau, or "
                             "raise --p-c")

    @cached_property
    def law(self) -> TopicModel:
        """The law that documents are drawn from, and that the closed forms are functions of."""
        ends = self.length.split("-")
        if not 1 <= len(ends) <= 2 or not all(end.isdecimal() for end in ends):
            raise ValueError(f"--length is {shown(self.length)}; it must be a number of words, such as 128, or a "
                             "range, such as 100-150")
        if max(map(len, ends)) > len(str(LONGEST)) or max(map(int, ends)) > LONGEST:
            raise ValueError(f"--length is {shown(self.length)}; documents have at most {LONGEST:,} words")
        length = int(ends[0]) if len(ends) == 1 else (int(ends[0]), int(ends[1]))
        if min(map(int, ends)) < 2 or int(ends[0]) > int(ends[-1]):
            raise ValueError(f"--length is {shown(self.length)}; it must be a number of words, at least 2, or a range "
                             "that ascends, such as 100-150")
        return TopicModel(self.topics, self.words, length, tau=self.tau, alpha=self.alpha, p_m=self.p_m, p_c=self.p_c,
                          p_r=self.p_r, loss=self.loss)

    def held_out(self, seed: int) -> Documents:
        """Clean documents that are not trained on."""
        return self.law.documents(HELD_OUT, rng=seed + 1_000_000)

    def steps(self, full: float) -> int:
        """The number of steps of a stage: ``full``, or with ``--quick`` a tenth of it, and at least 12."""
        return max(12, round(full * (0.1 if self.quick else 1.0)))


class Sample:
    """The documents and masks of one seed, the same in every stage, and the training on them."""

    def __init__(self, options: Options, seed: int, say: Callable[[str], object] = print,
                 checkpoint: Checkpoint | None = None):
        self.law, self.seed, self.say, self.checkpoint = options.law, seed, say, checkpoint
        self.documents = self.law.documents(options.documents, rng=seed)
        self.held_out = options.held_out(seed)
        self.batches: dict[str, Batch] = {}

    def batch(self, head: str) -> Batch:
        """The masked documents; the masks are the same for every head."""
        if head not in self.batches:
            self.batches[head] = self.law.mask(self.documents, head=head, rng=self.seed)
        return self.batches[head]

    def start(self, **scales: Any) -> EmbeddedWeights:
        """Gaussian weights of these standard deviations."""
        return EmbeddedWeights.gaussian(self.law.V, rng=self.seed, **scales)

    def train(self, name: str, start: EmbeddedWeights, head: str, eta: float, steps: int, size: int | None = None,
              **settings: Any) -> TopicRun:
        """A recorded run with mini-batches of ``size`` documents, or the full batch."""
        batch = self.batch(head)
        size = None if size is None else min(size, len(batch.with_loss()))
        title = f"{name}, seed {self.seed}"
        part = "attention" if start.W_Q is not None else "value" if start.W_E is None else "embedding"
        watch = snapshots.watch(MAPS[part], shown_tokens(self.law))
        with progress(f"training of {title},", steps, self.say, REMEDY, title=title) as show:
            return training.train(start, batch, topics=self.law.topic_of_token, documents=self.held_out,
                                  learning_rate=eta, steps=steps, batch_size=size, rng=self.seed, backtracking=True,
                                  progress=show, checkpoint=self.checkpoint and self.checkpoint.part(title),
                                  watch=watch, **settings)


def run(options: Options, say: Callable[[str], None], checkpoint: Checkpoint | None = None) -> Outcome:
    """Do the job, from the ``checkpoint`` on; ``say(line)`` receives what is to be printed, as it becomes known."""
    result = train_stages(options, say, checkpoint)
    weights = {f"weights-{name}.npz": stage.runs[0].weights.arrays() for name, stage in result.stages.items()}
    return Outcome("minitx topics", numbers(result), figures(result), weights, result.stopped,
                   comparisons(result), page.inside, verdict(result))


def verdict(result: Result) -> str:
    """The sentence that sets the trained attention ratio, or else the value matrix, beside its closed form."""
    infinite, value = result.infinite, result.stages.get("value")
    if infinite and infinite.predicted and infinite.path:
        return f"Attention to the same topic ends at {number(infinite.path[-1]['rho'])} times that to another; " \
               f"theory predicts {number(infinite.predicted.rho)}."
    end = value.at_end() if value else {}
    return f"The trained value matrix has {number(end['same topic'].mean())} between words of a topic, and " \
           f"{number(end['different topic'].mean())} between words of two." if end else "Nothing was recorded."


def comparisons(result: Result) -> dict[str, tuple[float, float]]:
    """{what: (trained, predicted)} of what has a closed form: W_V after the steps of its stage, and the ratio rho."""
    found = {}
    value, infinite = result.stages.get("value"), result.infinite
    if value and value.trajectory:
        trained = value.at_end()
        found = {f"value matrix, {name}": (float(trained[name].mean()), float(values[-1]))
                 for name, (_, values) in value.trajectory.items()}
    if infinite and infinite.predicted:
        end, best = infinite.path[-1], infinite.predicted
        found |= {"rho": (end["rho"], best.rho), "loss on infinite documents": (end["loss"], best.loss)}
    return found


def train_stages(options: Options, say: Callable[[str], None], checkpoint: Checkpoint | None = None) -> Result:
    """Train one stage after the other, until one is stopped early."""
    law, seeds = options.law, range(options.seed, options.seed + options.seeds)
    shares = f"{law.tau} topics each" if law.tau else f"Dirichlet({law.alpha:g}) shares of topics"
    say(f"{law.T} topics of {law.v} words; {options.documents:,} documents of {options.length} words, {shares}; "
        f"chosen words {law.p_m:g}, of which shown {law.p_c:g}, random {law.p_r:g}; seeds {seeds[0]} to {seeds[-1]}")
    samples = [Sample(options, seed, say, checkpoint) for seed in seeds]
    stages: dict[str, Any] = {}
    said = {""}
    stopped = None
    for train in (_value, _embedding, _infinite, _attention, _copying, _joint):
        stage = train(options, samples, stages)
        if stage is None:
            continue
        stages[stage.name], stopped = stage, stage.stopped
        say("\n" + stage.printed())
        if stage.name != "infinite" and (found := stage.compared()) not in said:
            said.add(found)
            say(found)
        if stage.name == "joint" and (found := stage.assumptions()):
            say(found)
        for losses in stage.losses:
            if found := rise(losses, mini_batches=stage.name != "infinite"):
                say(found)
        if stopped:
            say(f"\nstopped early: {stopped}")
            break
    infinite = stages.pop("infinite", None)
    return Result(options, stages, infinite if infinite and infinite.path else None, stopped)


# the stages ---------------------------------------------------------------------------------------


def _value(options, samples, stages):
    """Stage 1a: W_V from zero."""
    law, title = options.law, "stage 1a: value matrix W_V, one-hot embeddings, uniform attention"
    if options.head == "cross_entropy":
        runs, how = _cross_entropy(options, samples, "W_V", 2.0 * law.n, 4000, 500, W_V=0.0)
        return Stage("value", f"{title}; {how}", "value", runs, _differences(law, same_word=True))
    found = moments(law)
    eta = float(f"{0.12 / found.M_largest:.2g}")
    steps = options.steps(min(20_000, 3 / (2 * eta * found.M_w)))
    runs = _each(samples, lambda one: one.train("W_V", one.start(W_V=0.0), "squared", eta, steps, at=_spread(steps)))
    recorded = _spread(steps, 60)
    path = [closed_forms.value_after(law, step, eta) for step in recorded]
    end = _columns(closed_forms.optimal_value(law))
    closed = {f"closed form, after {steps:,} steps": _columns(path[-1]), "closed form, end of descent": end,
              "limit N -> inf, then ridge -> 0 (paper)": _columns(closed_forms.paper_value(law)),
              "limit ridge -> 0, then N -> inf": _columns(closed_forms.other_limit_value(law))}
    trajectory = {label: (recorded, [getattr(value, name) for value in path]) for label, name in CLASSES.items()}
    title = f"{title}; squared loss, {steps:,} full-batch steps, eta = {_rates(eta, _last_rates(runs))}"
    return Stage("value", title, "value", runs, closed, end, trajectory)


def _embedding(options, samples, stages):
    """Stage 1b: E from small entries, without a value matrix, the output tied."""
    law, title = options.law, "stage 1b: embeddings, E^T E; no value matrix, output tied, uniform attention"
    if options.head == "cross_entropy":
        runs, how = _cross_entropy(options, samples, "E", law.n / 100, 3000, 500, W_E=0.01)
        return Stage("embedding", f"{title}; {how}", "embedding", runs, _differences(law, same_word=False))
    found = moments(law)
    eta = float(f"{0.012 / found.M_largest:.2g}")
    steps = options.steps(min(20_000, 12 / (2 * eta * found.C_t)))
    runs = _each(samples, lambda one: one.train("E", one.start(W_E=0.01), "squared", eta, steps))
    closed = {"closed form, plateau": _columns(closed_forms.gram_plateau(law))} if law.h < math.inf else {}
    closed["closed form, end of descent"] = _columns(closed_forms.optimal_gram(law))
    title = f"{title}; squared loss, {steps:,} full-batch steps, eta = {_rates(eta, _last_rates(runs))}"
    return Stage("embedding", title, "embedding", runs, closed, next(iter(closed.values())))


def _infinite(options, samples, stages):
    """Stage 2 on all infinite documents, W_V frozen at the paper's limit. None where there is no closed form."""
    law = _infinitely_long(options.law)
    if not _has_ratio(options):
        return None
    if math.comb(law.T, law.tau) * law.V**2 > MOST_PAIRS:
        return InfiniteStage("stage 2 on infinite documents is left out: there would be too many of them, or too many "
                             "words")
    batch, steps, eta = attention.infinite_documents(law), options.steps(1500), 30.0 * law.n
    start = replace(EmbeddedWeights.gaussian(law.V, W_V=0.0, W_QK=0.05, rng=options.seed),
                    W_V=closed_forms.paper_value(law).matrix(law))
    objective, checkpoint = Backtracking(eta, frozen=("W_V",)), samples[0].checkpoint

    def record(step, loss, weights):
        found = {"step": step, "loss": loss, "learning_rate": objective.rate}
        return training.attention_ratios(weights, law) | found

    name = "infinite documents"
    with progress(f"training on {name}", steps, samples[0].say, REMEDY, title=name) as show:
        recording = Recording(record, {0, *_spread(steps, 40)}, progress=show)
        trained = descend(start, batch, learning_rate=eta, steps=steps, frozen=("W_V",), callback=recording,
                          loss_and_gradient=objective, checkpoint=checkpoint and checkpoint.part(name))
    title = ("stage 2 on infinite documents, W_V frozen at the paper's limit; squared loss, "
             f"{steps:,} steps, eta = {_rates(eta, [objective.rate])}")
    best = attention.optimal_ratio(law, free_mask=True)
    return InfiniteStage(title, recording.records, trained.loss, best, trained.stopped)


def _attention(options, samples, stages):
    """Stage 2: W_Q and W_K, W_V frozen at the paper's limit."""
    law, closed = options.law, {}
    runs, how = _stage_2(options, samples, "attention", [closed_forms.separated_value(law).matrix(law)] * len(samples))
    if _has_ratio(options):
        rho = attention.optimal_ratio(_infinitely_long(law)).rho
        closed = {f"attention {rho:.4f} : 1, the best at N = inf": _columns(attention.attention_profile(law, rho, rho))}
    closed |= _best_attention(options, closed_forms.separated_value(law), tied=True)
    title = f"stage 2: attention times N, W_V frozen at the paper's limit; {how}"
    return Stage("attention", title, "attention", runs, closed, next(iter(closed.values()), {}))


def _copying(options, samples, stages):
    """Stage 2 after stage 1a: the trained W_V tells a word from its topic, and attention copies."""
    runs, how = _stage_2(options, samples, "copying", [before.weights.W_V for before in stages["value"].runs])
    title = f"stage 2 after stage 1a: attention times N, W_V frozen as trained; {how}"
    return Stage("copying", title, "attention", runs, _best_attention(options, closed_forms.optimal_value(options.law)))


def _best_attention(options, value, *, tied=False):
    """The best attention in documents of this length with W_V = ``value``; nothing where it is not known."""
    law = options.law
    if options.head != "squared" or law.loss != "pooled" or law.lengths[1] > MOST_WORDS:
        return {}
    try:
        best = best_attention(law, value, tied=tied)
    except ValueError:  # it has no minimum
        return {}
    values = f"{best.rho:.4f} : 1" if tied else f"{best.alpha:.4g} : {best.beta:.4g} : 1"
    return {f"attention {values}, the best at this length": _columns(
        attention.attention_profile(law, best.alpha, best.beta))}


def _stage_2(options, samples, name, values):
    """Train W_Q and W_K, W_V frozen at each seed's matrix of ``values``. Returns the runs, and how they were made."""
    squared = options.head == "squared"
    eta, steps = (20.0 if squared else 0.2) * options.law.n, options.steps(1000)

    def train(one):
        start = replace(one.start(W_V=0.0, W_QK=0.05), W_V=values[one.seed - options.seed])
        return one.train(name, start, options.head, eta, steps, 200, frozen=("W_V",))

    loss = "squared loss" if squared else "cross-entropy"
    runs = _each(samples, train)
    return runs, f"{loss}, {_batches(options, steps, 200, eta, runs)}"


def _joint(options, samples, stages):
    """W_V, W_Q and W_K together, by cross-entropy."""
    runs, how = _cross_entropy(options, samples, "joint", 0.2 * options.law.n, 1500, 200, W_V=0.0, W_QK=0.05)
    title = f"W_V, W_Q, W_K together: attention times N; {how}"
    return Stage("joint", title, "attention", runs, first_seed=options.seed)


# what stages have in common -----------------------------------------------------------------------


def _each(samples: Iterable[Sample], train: Callable[[Sample], TopicRun]) -> list[TopicRun]:
    """``train(sample)`` of every seed, until a run ends early."""
    runs: list[TopicRun] = []
    for sample in samples:
        runs.append(train(sample))
        if runs[-1].trajectory.stopped:
            break
    return runs


def _cross_entropy(options, samples, name, eta, full_steps, size, **scales):
    """Train all parts from Gaussian weights of ``scales``. Returns the runs, and how they were made."""
    steps = options.steps(full_steps)
    runs = _each(samples, lambda one: one.train(name, one.start(**scales), "cross_entropy", eta, steps, size))
    return runs, f"cross-entropy, {_batches(options, steps, size, eta, runs)}"


def _batches(options, steps, size, eta, runs):
    return f"{steps:,} steps of {min(size, options.documents)} documents, eta = {_rates(eta, _last_rates(runs))}"


def _last_rates(runs):
    """The learning rates at the ends of ``runs``, without those that stopped before their first record."""
    return [run.records[-1].learning_rate for run in runs if run.records]


def _rates(first, last):
    """The learning rate as a title says it: the first, and the least of the ``last`` if it was halved on the way."""
    least = min(last, default=first)
    return f"{first:g}" if least == first else f"{first:g}, halved to {least:g}"


def _infinitely_long(law):
    return replace(law, length=math.inf, loss="pooled")


def _has_ratio(options):
    """Whether the best attention ratio has a closed form."""
    law = options.law
    return options.head == "squared" and law.tau is not None and law.tau < law.T and law.p_c < 1


def _columns(value):
    """{class of word pairs: value} of Blocks, or of an attention profile."""
    return {label: getattr(value, name) for label, name in BLOCK_FIELDS.items() if hasattr(value, name)}


def _differences(law, *, same_word):
    """The two differences that the cross-entropy determines; nothing where it has no minimum."""
    try:
        best = cross_entropy_optimum(law, same_word=same_word)
    except ValueError:  # no minimum, or one that words alone do not determine
        return {}
    return {"two-parameter optimum" if same_word else "optimum with word - topic = 0": {"A": best.A, "B": best.B}}


def _spread(steps, most=24):
    """Up to ``most`` steps from 1 to ``steps``, evenly spaced on a logarithmic scale."""
    return sorted({int(step) for step in np.rint(np.geomspace(1, steps, most))})


def numbers(result: Result) -> dict[str, Any]:
    """What ``results.json`` holds of a result, besides the keys of every command.

    - ``stages``: {name: stage}, and of each stage its ``title``, the ``closed`` forms, the ``records`` of each seed
      (:class:`minitx.topics.training.Record`), the ``loss`` of each seed after 0, 1, 2, ... steps, and the table of
      weights ``at end``. ``movement`` tells of each seed the step at which each part of the weights ``begins`` to
      move, {part: {share of its whole way: step}} for the shares 1%, 10% and 50%, its ``norm`` and its ``distance``
      from the start at the end, and ``lead``, the share of its way that W_V has gone when W_Q and W_K have gone a tenth
      of theirs (joint training only; else null). ``attention_spread`` of a record holds the standard deviations of
      attention within each class of word pairs, and the share ``between`` of its variance that lies between classes.
      ``snapshots`` (:mod:`minitx.topics.snapshots`): maps of the first seed between ``words``, of which 2.1 is the
      first word of topic 2: as ``trained``, one for each record, and as ``predicted`` for the end, or null.
    - ``infinite``: the stage on infinite documents: its ``title``, ``path`` (the recorded steps, with their ``loss``
      and attention ``alpha``, ``beta``, ``rho``, ``rho_0``), what is ``predicted``
      (:class:`minitx.topics.attention.OptimalAttention`) and ``stopped``; null if it was not trained.
    """
    stages = {name: {"title": stage.title, "closed": stage.closed, "records": [run.records for run in stage.runs],
                     "loss": [run.trajectory.loss for run in stage.runs], "at end": stage.at_end(),
                     "movement": [_moved(run.movement) for run in stage.runs],
                     "snapshots": _snapshots(stage, result.options.law)}
              for name, stage in result.stages.items()}
    return {"stages": stages, "infinite": result.infinite}


def shown_tokens(law: TopicModel) -> np.ndarray:
    """The tokens (n,) that the maps of the page show."""
    return snapshots.words_of([np.flatnonzero(law.topic_of_token == topic) for topic in range(law.T)])


def _snapshots(stage, law):
    """The maps of the first seed, beside the values where training should end; attention has other units there."""
    tokens = shown_tokens(law)
    topic, first = law.topic_of_token[tokens], np.searchsorted(law.topic_of_token, range(law.T))
    words = [f"{own + 1}.{token - first[own] + 1}" for own, token in zip(topic, tokens, strict=True)]
    predicted = None
    if stage.final and stage.part != "attention":
        same_word, same_topic, other = (stage.final[name] for name in CLASSES)
        predicted = np.where(topic[:, None] == topic, same_topic, other)
        np.fill_diagonal(predicted, same_word)
    return snapshots.written(words, stage.runs[0].watched, predicted)


def _moved(movement):
    """What results.json tells of a movement: every step would be too much."""
    last = {name: {part: way[-1] for part, way in getattr(movement, name).items()} for name in ("norm", "distance")}
    return {"begins": movement.begins(), "lead": movement.lead, **last}
