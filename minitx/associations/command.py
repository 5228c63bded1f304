"""``minitx associate``: train on a text, split the exact gradient, and set both beside theory: leading terms (Im et al., ICLR 2026)
and reduced dynamics."""

import dataclasses
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from minitx.associations import basis, reduced, words
from minitx.associations import figures as plots
from minitx.associations import leading as leading_terms
from minitx.associations.terms import SHARES, first_exceeds, gradient_terms
from minitx.base import numbers, parallel, report, style
from minitx.base.checks import output_folder, positive, whole_number
from minitx.base.console import Printer, lower, progress_bar, status
from minitx.data.corpus import BUILTIN, LAYOUTS, OMIT, UNKNOWN, Corpus, builtin_corpus, load_corpus
from minitx.model.circuits import loss_and_gradient
from minitx.model.descent import DescentEnded, Trajectory, descend, descent
from minitx.model.weights import OneHotWeights

N_RECORDS = 12  # rows of the table
HEAT_MAP_WORDS = 40
FIGURES = ("cosines.png", "gradient_terms.png", "corrections.png", *(f"{name}.png" for name in leading_terms.BASIS_FUNCTIONS))
QUICK = {"vocabulary": 300, "length": 24, "windows": 64, "steps": 12}
DEFAULT_WORDS = "fish,bird,happy,red,mom"


@dataclass(frozen=True)
class Options:
    """The effective configuration of a run; saved in ``results.json``."""

    text: str | None = None
    builtin: str | None = None
    vocabulary: int = 600
    length: int = 64
    windows: int | None = 512
    unknown: str = "<unk>"
    layout: str | None = None
    learning_rate: float = 1.0
    steps: int = 100
    batch_size: int | None = None
    init: str = "zero"
    init_scale: float = 1e-6
    dtype: str = "float64"
    seed: int = 0
    threads: int | None = None
    words: str = DEFAULT_WORDS
    out: str = "minitx-associate"
    quick: bool = False
    asked: dict = field(init=False, compare=False, default_factory=dict)  # what --quick lowered: {option: value asked for}

    def __post_init__(self):
        if self.init not in ("zero", "gaussian"):
            raise ValueError(f"--init is {self.init!r}; it must be zero or gaussian")
        if self.dtype not in ("float64", "float32"):
            raise ValueError(f"--dtype is {self.dtype!r}; it must be float64 or float32")
        for name, value, least in (("--vocabulary", self.vocabulary, 2), ("--length", self.length, 1), ("--steps", self.steps, 1),
                                   ("--windows", self.windows, 1), ("--batch-size", self.batch_size, 1)):
            if value is not None:
                whole_number(name, value, least)
        positive("--init-scale", self.init_scale)
        if self.text is not None and self.builtin is not None:
            raise ValueError(f"give a TEXT ({self.text}) or --builtin {self.builtin}, not both")
        if self.text is None and self.builtin is None:
            object.__setattr__(self, "builtin", BUILTIN[0])
        if not self.out:
            raise ValueError("--out is empty; it must name a folder")
        whole_number("--seed", self.seed, 0)
        positive("--learning-rate", self.learning_rate, below=1e60)
        if self.quick:  # the same job, small
            lower(self, QUICK)


@dataclass(frozen=True)
class Result:
    """What a run found. ``records``: one :class:`minitx.associations.leading.Beside` a recorded step; the two lists after it go with it."""

    options: Options
    corpus: Corpus
    statistics: basis.Statistics
    records: list
    reduced: list  # minitx.base.numbers.Agreement with reduced dynamics, or None
    norms: list  # {parameter: {term: Frobenius norm}}
    exceeds: dict  # {parameter: {correction: {share of the leading term: step}}}
    predicted_loss: list  # of reduced dynamics, from step 0 on
    split: dict  # at the last recorded step: {parameter: {"terms": {term: norm}, "gradient": norm, "digits": float}}
    trajectory: Trajectory
    associates: dict  # {word: {function: [(word, score)]}}


def add_arguments(parser):
    """Declare the options of ``minitx associate`` on an argparse parser."""
    default = {option.name: option.default for option in dataclasses.fields(Options)}

    def add(*names, help, **settings):
        name = names[0].lstrip("-").replace("-", "_")
        shown = "" if default[name] is None or settings.get("action") else f" (default: {default[name]})"
        parser.add_argument(*names, default=default[name], help=(help + shown).replace("%", "%%"), **settings)

    add("text", nargs="?", metavar="TEXT", help="text to read: .txt, .jsonl, .json, or .gz of each; without it, an embedded corpus")
    add("--builtin", choices=BUILTIN, help=f"the embedded corpus to use when no TEXT is given (default: {BUILTIN[0]})")
    add("--vocabulary", type=int, metavar="V", help="number of tokens in the vocabulary, the most frequent ones")
    add("--length", type=int, metavar="T", help="tokens in a window")
    add("--windows", type=int, metavar="N", help="use at most the first N windows")
    add("--unknown", choices=(UNKNOWN, OMIT), help="what becomes of rarer words: mapped to <unk>, or their document omitted")
    add("--layout", choices=LAYOUTS, help="how documents are separated in a .txt file; detected when not given")
    add("--learning-rate", type=float, metavar="ETA", help="learning rate of gradient descent")
    add("--steps", type=int, metavar="S", help="number of steps")
    add("--batch-size", type=int, metavar="B", help="windows a step; the full batch when not given")
    add("--init", choices=("zero", "gaussian"), help="initial weights")
    add("--init-scale", type=float, metavar="SD", help="standard deviation of Gaussian initial weights")
    add("--dtype", choices=("float64", "float32"), help="precision of training; statistics and the split are always float64")
    add("--seed", type=int, help="seed of the embedded corpus, the initial weights and the mini-batches")
    add("--threads", type=int, help="threads to use; all cores when not given. Results do not depend on it")
    add("--words", help="comma-separated words whose associates are listed; absent ones are skipped with a note")
    add("--out", metavar="DIR", help="folder for figures, results.json, report.html and weights.npz")
    add("--quick", action="store_true", help="the same job in seconds: at most V = 300, T = 24, 64 windows, 12 steps")


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
    return status(result.trajectory.stopped)


def run(options, say):
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known."""
    corpus = _read(options)
    batch = corpus.batch()
    n_vocab = len(corpus.vocabulary)
    say(corpus.summary())
    asked = [word for word in map(str.strip, options.words.lower().split(",")) if word]
    if missing := [word for word in asked if word not in corpus.vocabulary]:
        say(f"not in the vocabulary, so their associates are not listed: {', '.join(missing)}")
    statistics = basis.statistics(batch, n_vocab)
    start_rng, batch_rng = np.random.default_rng(options.seed).spawn(2)
    start = _start(options, n_vocab, start_rng)
    if options.batch_size:
        say("reduced dynamics predicts full-batch training: left out, as training is by mini-batches")
    recorder = _Recorder(options, batch, statistics, None if options.batch_size else _Reduced(options, batch, start), say)
    trajectory = _train(options, batch, start, batch_rng, recorder)
    records, agreements, norms = ([found[k] for found in recorder.found] for k in range(3))
    if trajectory.stopped:
        say(f"\nstopped early: {trajectory.stopped}")
    elif trajectory.loss[-1] > trajectory.loss[0]:
        say(f"\nthe loss rose from {trajectory.loss[0]:.4g} to {trajectory.loss[-1]:.4g}: the learning rate is too large")
    say(f"\nrelative error, |trained - predicted| / |predicted| (Frobenius)\n{errors_table(records, agreements)}")
    say(f"\nmeasured |weight - leading term| / its proved bound (Frobenius)\n{bounds_table(records)}")
    split = split_gradient(trajectory.weights, batch, recorder.leading(trajectory.steps))
    say(f"\nexact split of the gradient after {trajectory.steps} steps (Frobenius norms)\n{split_table(split)}")
    exceeds = first_exceeds([record.step for record in records], by_term(norms))
    if records:
        say(f"\nstep at which a correction first exceeds {', '.join(f'{share:.0%}' for share in SHARES)} of the leading term "
            f"(* the first to do so; - none)\n{exceeds_table(exceeds)}")
    similarity = words.similarity(statistics)
    associates = {word: {function: words.associates(scores, corpus, word, k=8) for function, scores in similarity.items()}
                  for word in asked if word not in missing}
    if associates:
        say(f"\nstrongest associates (bigram: entries of B; interchangeability, context: cosines)\n{words_table(associates)}")
    predicted_loss = recorder.reduced.loss if recorder.reduced else []
    return Result(options, corpus, statistics, records, agreements, norms, exceeds, predicted_loss, split, trajectory, associates)


def _read(options):
    settings = {"n_vocab": options.vocabulary, "length": options.length, "unknown": options.unknown, "n_windows": options.windows}
    if options.text is None:
        return builtin_corpus(options.builtin, rng=options.seed, **settings)
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        return load_corpus(options.text, layout=options.layout, progress=progress, **settings)


def _start(options, n_vocab, rng):
    if options.init == "zero":
        return OneHotWeights.zeros(n_vocab, options.length, dtype=options.dtype)
    return OneHotWeights.gaussian(n_vocab, options.length, scale=options.init_scale, rng=rng, dtype=options.dtype)


def _train(options, batch, start, rng, recorder):
    with progress_bar(total=options.steps, unit="step") as bar:

        def callback(step, loss, weights, gradient):
            recorder(step, loss, weights, gradient)
            bar.update(step > 0)

        return descend(start, batch, learning_rate=options.learning_rate, steps=options.steps, batch_size=options.batch_size,
                       rng=rng, callback=callback)


class _Reduced:
    """Reduced dynamics from the same start, taken to the steps of training as they are asked for, in float32."""

    def __init__(self, options, batch, start):
        self.loss, self.weights, self.ended = [], None, False
        self.walk = descent(start.astype(np.float32), reduced.reduce(batch, len(start.W_O)), learning_rate=options.learning_rate,
                            loss_and_gradient=reduced.loss_and_gradient)

    def beside(self, step, weights):
        """Agreement of the trained ``weights`` after ``step`` steps with those predicted; None where the prediction has ended."""
        try:
            while len(self.loss) <= step and not self.ended:
                loss, self.weights, _ = next(self.walk)
                self.loss.append(loss)
        except (DescentEnded, FloatingPointError):  # it diverges, as training does or is about to
            self.ended = True
        return None if self.ended else numbers.agreement(weights, self.weights)


class _Recorder:
    """Callback of the descent: at the recorded steps, sets weights beside both theories and splits the gradient."""

    def __init__(self, options, batch, statistics, reduced, say):
        self.options, self.batch, self.statistics, self.reduced, self.say = options, batch, statistics, reduced, say
        self.at = recorded_steps(options.steps)
        self.found = []  # (record, agreement with reduced dynamics, norms of the terms)

    def leading(self, step):
        return leading_terms.leading_weights(self.statistics, steps=step, learning_rate=self.options.learning_rate)

    def __call__(self, step, loss, weights, gradient):
        if step not in self.at:
            return
        options, leading = self.options, self.leading(step)
        bounds = leading_terms.bounds(steps=step, learning_rate=options.learning_rate, length=options.length,
                                     n_vocab=self.statistics.n_vocab,
                                     init_scale=options.init_scale if options.init == "gaussian" else 0.0,
                                     full_batch=options.batch_size is None)
        record = leading_terms.beside(weights, leading, bounds, step=step, loss=loss)
        agreement = self.reduced and self.reduced.beside(step, weights)
        terms = gradient_terms(weights, self.batch, leading=leading)
        norms = {parameter: {name: numbers.norm(term) for name, term in split.items()} for parameter, split in terms.items()}
        if not self.found:
            losses = "losses of the mini-batches" if options.batch_size else "losses of the full batch"
            self.say(f"\ncosine of the trained weights with those predicted, eta = {options.learning_rate:g}, {losses}\n"
                     + theories_header(f"{'loss':>9}{'reduced':>10}"))
        self.found.append((record, agreement, norms))
        predicted = _number(self.reduced.loss[step], 10) if agreement else f"{'-':>10}"
        self.say(theories_row(record, agreement, "cosine", _number(loss, 9) + predicted))


def recorded_steps(steps, most=N_RECORDS):
    """The first three steps (each brings a weight to life) and up to ``most`` more, evenly spaced to the last."""
    return {step for step in (1, 2, 3) if step <= steps} | {max(1, round(steps * k / most)) for k in range(1, most + 1)}


def by_term(norms):
    """[{parameter: {term: norm}}], one a record -> {parameter: {term: [norm, ...]}}."""
    if not norms:
        return {}
    return {parameter: {term: [at[parameter][term] for at in norms] for term in terms} for parameter, terms in norms[0].items()}


def split_gradient(weights, batch, leading):
    """{parameter: {"terms": {term: norm}, "gradient": norm, "miss": |sum of terms - gradient|, "digits": -log10(miss / norm)}}."""
    weights = weights.astype(np.float64)
    terms = gradient_terms(weights, batch, leading=leading)
    _, gradient = loss_and_gradient(weights, batch)
    split = {}
    for parameter, exact in gradient.parameters().items():
        norm = numbers.norm(exact)
        miss = numbers.norm(sum(terms[parameter].values()) - exact)
        split[parameter] = {"terms": {name: numbers.norm(term) for name, term in terms[parameter].items()},
                            "gradient": norm, "miss": miss,
                            "digits": max(0.0, -np.log10(miss / norm)) if miss > 0 and norm > 0 else float("inf")}
    return split


# ------------------------------------------------------------------------------------------------------------- printing


def _number(value, width):
    if np.isnan(value):
        return f"{'undefined':>{width}}"
    return f"{value:{width}.4f}" if abs(value) < 1e4 else f"{value:{width}.2e}"


def theories_header(columns):
    """Two lines above the rows of :func:`theories_row`, with other ``columns`` between the step and the two theories."""
    names = "".join(f"{name:>10}" for name in plots.PARAMETERS)
    return f"{'':{5 + len(columns)}}  {'leading terms':-^40}  {'reduced dynamics':-^40}\n{'step':>5}{columns}  {names}  {names}"


def theories_row(record, agreement, measure, columns):
    """One row: the ``measure`` of each weight beside its leading term and beside reduced dynamics (None: a dash)."""
    leading = "".join(_number(getattr(record, measure)[name], 10) for name in plots.PARAMETERS)
    reduced = "".join(_number(getattr(agreement, measure)[name], 10) if agreement else f"{'-':>10}" for name in plots.PARAMETERS)
    return f"{record.step:5d}{columns}  {leading}  {reduced}"


def errors_table(records, agreements):
    """Relative error of both theories at each recorded step."""
    rows = (theories_row(record, agreement, "relative_error", "") for record, agreement in zip(records, agreements, strict=True))
    return "\n".join([theories_header(""), *rows])


def exceeds_table(exceeds):
    """For each correction and parameter the steps of :func:`minitx.associations.terms.first_exceeds`, side by side."""
    names = sorted({name for found in exceeds.values() for name in found}, key=plots.term_order)
    width = max(map(len, names))
    lines = [f"{'correction':{width}}" + "".join(f"{parameter:>18}" for parameter in exceeds)]
    for name in names:
        line = f"{name:{width}}"
        for found in exceeds.values():
            for share, step in found.get(name, {}).items():
                first = step and step == min(at[share] for at in found.values() if at[share])
                line += f"{ceil(step):5d}{'*' if first else ' '}" if step else f"{'-':>5} "
            line += "" if name in found else f"{'':18}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def bounds_table(records):
    """Measured error over proved bound at each recorded step, and whether the theorem covers that step."""
    lines = [f"{'step':>5}  " + "".join(f"{name:>10}" for name in plots.PARAMETERS) + "  theorem"]
    for record in records:
        ratios = "".join(f"{record.over_bound[name]:10.2e}" for name in plots.PARAMETERS)
        lines.append(f"{record.step:5d}  {ratios}  " + ("inside its conditions" if not record.outside
                                                        else "outside: " + "; ".join(record.outside)))
    return "\n".join(lines)


def split_table(split):
    """Norm of each term of each parameter's gradient, and to how many digits they sum to it."""
    names = list(dict.fromkeys(name for parts in split.values() for name in parts["terms"]))
    names.sort(key=plots.term_order)
    width = max(map(len, names))
    lines = [f"{'term':{width}}" + "".join(f"{parameter:>12}" for parameter in split)]
    for name in names:
        cells = (f"{parts['terms'][name]:12.3e}" if name in parts["terms"] else f"{'-':>12}" for parts in split.values())
        lines.append(f"{name:{width}}" + "".join(cells))
    lines.append(f"{'exact gradient':{width}}" + "".join(f"{parts['gradient']:12.3e}" for parts in split.values()))
    digits = (f"{parts['digits']:12.1f}" if np.isfinite(parts["digits"]) else f"{'all':>12}" for parts in split.values())
    lines.append(f"{'terms sum to it, digits':{width}}" + "".join(digits))
    return "\n".join(lines)


def words_table(associates):
    """The strongest associates of each word under each basis function."""
    lines = []
    for word, functions in associates.items():
        for function, strongest in functions.items():
            lines.append(f"{word:>10}  {function:18}  " + " ".join(other for other, _ in strongest))
            word = ""
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- writing


def write(result, folder, printed):
    """Write weights.npz, results.json, the figures and report.html to ``folder``; returns the names of the files."""
    for name in FIGURES:  # of an earlier run
        (folder / name).unlink(missing_ok=True)
    result.trajectory.weights.save(folder / "weights.npz")
    report.write_json(folder / "results.json", {
        "configuration": result.options, "environment": report.environment(), "corpus": _corpus_numbers(result.corpus),
        "vocabulary": result.corpus.vocabulary, "records": result.records, "loss": result.trajectory.loss,
        "stopped": result.trajectory.stopped, "reduced": result.reduced, "predicted_loss": result.predicted_loss,
        "norms_of_terms": result.norms, "first_exceeds": _exceeds_numbers(result.exceeds), "split": result.split,
        "associates": result.associates})
    setting = f"V = {len(result.corpus.vocabulary)}, T = {result.options.length}"
    captions = {}
    title = style.literal(f"{result.corpus.name}: {setting}, ") + rf"$\eta$ = {result.options.learning_rate:g}"
    for name, (figure, caption) in _figures(result, title).items():
        style.save(figure, folder / name)
        captions[name] = caption
    report.write_page(folder / "report.html", f"minitx associate: {result.corpus.name}, {setting}", "\n".join(printed), captions)
    return [*captions, "report.html", "weights.npz", "results.json"]


def _figures(result, title):
    """{file name: (figure, caption)}."""
    figures, records = {}, result.records
    if records:
        steps = [record.step for record in records]
        loss, predicted = {}, result.predicted_loss
        cosine = {"leading terms": {name: [record.cosine[name] for record in records] for name in plots.PARAMETERS}}
        if predicted:
            cosine["reduced dynamics"] = {name: [at.cosine[name] if at else np.nan for at in result.reduced]
                                          for name in plots.PARAMETERS}
            loss["reduced dynamics"] = predicted
        figures["cosines.png"] = (plots.theories(steps, cosine, result.trajectory.loss, loss, title=title),
                                  "Cosine of each trained weight with what both theories predict, and the loss, over training.")
        norms = by_term(result.norms)
        figures["gradient_terms.png"] = (plots.gradient_terms(steps, norms, title=title),
                                         "Norm of every term of the exact gradient over training.")
        figures["corrections.png"] = (plots.corrections(steps, norms, result.exceeds, title=title),
                                      "Every correction as a share of the leading term of the gradient; rings: 1%, 10%, 50%.")
    frequent = np.argsort(-result.statistics.frequency, kind="stable")[:HEAT_MAP_WORDS]
    labels = [style.tick_label(result.corpus.vocabulary[token]) for token in frequent]
    for name, (row_label, column_label) in leading_terms.BASIS_FUNCTIONS.items():
        matrix = getattr(result.statistics, name)[np.ix_(frequent, frequent)]
        figure = plots.heat_map(matrix, labels, labels, title=f"{name} function, {len(frequent)} most frequent tokens",
                                row_label=row_label, column_label=column_label)
        figures[f"{name}.png"] = (figure, f"{name.capitalize()} function over the most frequent tokens.")
    return figures


def _exceeds_numbers(exceeds):
    """``exceeds`` with the shares as strings, which keys of JSON must be."""
    return {parameter: {correction: {str(share): step for share, step in steps.items()} for correction, steps in found.items()}
            for parameter, found in exceeds.items()}


def _corpus_numbers(corpus):
    return {"name": corpus.name, "documents": corpus.n_documents, "documents without a window": corpus.n_left_out,
            "tokens": corpus.n_words, "distinct": corpus.n_distinct, "covered": corpus.n_covered, "unknown": corpus.unknown,
            "vocabulary": len(corpus.vocabulary), "windows": len(corpus.tokens), "length": corpus.length}
