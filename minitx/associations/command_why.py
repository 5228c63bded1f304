"""``minitx why WORD OTHER [TEXT]``: where the association of two words comes from, and which windows taught it."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitx.associations import figures, page_why, tables, words
from minitx.associations.attribution import Attribution, attribution, logit_parts
from minitx.associations.attribution_over_training import AttributionOverTraining, record_attribution
from minitx.associations.basis import Statistics, statistics
from minitx.associations.command_corpus import TextOptions, counted, read, require_batch_size, require_one_text
from minitx.associations.taught import Taught
from minitx.base import style
from minitx.base.command import Outcome, run_command
from minitx.base.console import Forecast, progress_bar
from minitx.base.options import Settings, add_options, option, read_options, require_memory
from minitx.data.batch import Batch
from minitx.data.corpus import UNKNOWN, Corpus
from minitx.model.weights import OneHotWeights

EXAMPLES = (
    ("minitx why red truck", "Ask about the embedded stories."),
    ("minitx why red truck stories.txt --steps 0", "Ask about a text of your own, without training."))
N_WINDOWS = 10  # that are shown
BEFORE, AFTER = 6, 3  # words of a window that are shown before and after one of the two words
FIGURES = ("why.png",)
OUT = "minitx-why-WORD-OTHER"
# {basis function: its symbol}, in the order in which they are shown
FUNCTIONS = {"bigram": "B", "interchangeability": "Sigma_B", "context": "Phi"}
CAPTION = (
    "Left: the windows that taught the pair, first those that add most to the function in which it is closest; each "
    "bar is the part of a window among all parts of a sign, in each function and in the trained W_O. Look for rows in "
    "which all bars are long: that window taught the pair in every way. Right: the trained entry of W_O over training, "
    "the sums of its positive and of its negative parts, and its leading term. Look for the step at which the entry "
    "leaves the leading term.")


@dataclass(frozen=True, kw_only=True)
class Pair(Settings):
    """The two words; this class stands before the options so that they are typed first."""

    word: str | None = option(None, "the word that the association starts from", positional=True, metavar="WORD")
    other: str | None = option(None, "the word that it leads to", positional=True, metavar="OTHER")


@dataclass(frozen=True, kw_only=True)
class Options(TextOptions, Pair):
    """The configuration of a run; ``results.json`` keeps it."""

    command = "why"
    vocabulary: int = option(600, "number of tokens in the vocabulary, the most frequent ones", least=2, metavar="V")
    length: int = option(64, "tokens in a window", least=1, most=1_000_000, metavar="T")
    windows: int | None = option(512, "use at most the first N windows", least=1)
    learning_rate: float = option(1.0, "learning rate of gradient descent", above_zero=True, below=1e60, metavar="ETA")
    steps: int = option(20, "steps of training; attribution adds a forward pass to each, and with 0 only statistics "
                        "are computed", least=0, quick=5, metavar="S")
    batch_size: int | None = option(None, "windows a step; the full batch when not given", least=1, metavar="B")
    out: str = option(OUT, "folder for the figure, results.json, index.html, weights.npz; each pair has one of its own",
                      metavar="DIR")

    def __post_init__(self):
        super().__post_init__()
        if self.out == OUT and self.word and self.other:
            pair = (word.strip() if self.tokenizer else word.strip().lower() for word in (self.word, self.other))
            object.__setattr__(self, "out", "-".join(["minitx-why", *map(as_file_name, pair)]))


def as_file_name(word: str) -> str:
    """A word as a part of the name of a folder: signs that are no letters or digits become underscores."""
    return "".join(sign if sign.isalnum() else "_" for sign in word)[:40]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx why`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status of :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    for name, example in (("word", "minitx why red truck"), ("other", f"minitx why {typed.get('word')} truck")):
        if not typed.get(name, "").strip():
            raise ValueError(f"no {name.upper()} was typed; minitx why needs two words, such as {example}")
    require_one_text(typed)
    if typed.get("steps") == 0:
        for name in ("batch_size", "learning_rate"):
            if name in typed:
                raise ValueError(f"--{name.replace('_', '-')} is {typed[name]:g}, but --steps 0 trains nothing; leave "
                                 "one of them out")
    return run_command(read_options(Options, typed), typed, run, FIGURES)


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`):

    - ``corpus``: its name and counts. ``word``, ``other``: the pair, with the ids of both as ``ids``. ``notes``: what
      is said of words that are no words, and of functions in which the pair never meets.
    - ``functions``: {basis function: its ``entry``, the sums of its ``positive`` and ``negative`` parts, and in how
      many windows they are, at how many positions the pair ``meets``, the ``rank`` of the other word among the
      associates of the word (null if they never meet), and the strongest ``windows``, as
      :class:`minitx.associations.taught.Taught`}.
    - ``listed``: the windows that are printed, each with the number of the ``window``, how many are ``like it``, the
      ``function`` that it is listed for, its ``part`` of it and of the ``trained`` W_O (null with --steps 0), and its
      ``text``. ``side``: 1 if they taught the pair, -1 if they taught the contrary.
    - ``logit``: ``leading``, what the leading terms after the last step make of W_O[word, other] + (V W_O)[word,
      other]: {bigram, context, interchangeability, both of these: number}; and the ``trained`` W_O and V W_O. Null
      with --steps 0.
    - ``training``: the ``loss`` after 0, 1, 2, ... steps, the entry W_O[word, other] after as many (``course``), the
      sums of the ``positive`` and ``negative`` parts of each step, and the strongest ``windows``; null with --steps 0.
    """
    corpus = read(options)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    require_batch_size(options.batch_size, len(batch))
    require_memory(8 * 14.0 * n_vocab**2 + 100.0 * len(batch) * options.length, ("vocabulary", n_vocab),
                   ("length", options.length))
    pair = Words.of(options, corpus)
    say(corpus.summary())
    for line in pair.notes():
        say(line)
    basis = statistics(batch, n_vocab)
    found = {name: attribution(basis, batch, name, *pair.entry(name)) for name in FUNCTIONS}
    scores = words.similarity(basis, [pair.ids[0]])
    ranks = {name: pair.rank(scores[name][0]) if pair.meets(name) else None for name in FUNCTIONS}
    say(f"\n{pair.arrow}: its entry in each basis function, and the parts of positions that sum to it\n"
        f"(rank: that of {pair.other!r} among the words that go with {pair.word!r}; meets: positions where they meet)\n"
        + _functions_table(found, ranks, n_vocab, pair))
    never_meets = pair.never_meets(found)
    for line in never_meets:
        say(line)
    training = train(options, batch, n_vocab, pair, say) if options.steps else None
    logit = _logit(options, pair, basis, training) if training else None
    if training and logit:
        say(f"\nlogit of {pair.other!r} where {pair.word!r} is the current word and has all attention, after "
            f"{training.trajectory.steps} steps, eta = {options.learning_rate:g}\n" + _logit_table(logit))
    strongest = {name: one.strongest(N_WINDOWS, corpus=corpus) for name, one in found.items()}
    side, listed = teaching(found, ranks, strongest)
    rows = [_row(pair, name, window, training) for name, window in listed]
    _say_windows(pair, side, rows, say)
    results = {
        "corpus": counted(corpus), "word": pair.word, "other": pair.other, "ids": pair.ids,
        "notes": [*pair.notes(), *never_meets], "listed": rows, "side": side,
        "functions": {name: {"entry": one.entry, "positive": one.positive, "negative": one.negative,
                             "positive windows": _windows_of(one, 1), "negative windows": _windows_of(one, -1),
                             "meets": pair.meets(name), "rank": ranks[name], "windows": strongest[name]}
                      for name, one in found.items()},
        "logit": logit, "training": _training_results(training, corpus)}
    drawn = {}
    if listed:
        drawn["why.png"] = (_figure(options, pair, found, side, listed, training, basis), CAPTION)
    return Outcome(f"minitx why: {pair.arrow} in {corpus.name}", results, drawn,
                   {"weights.npz": training.trajectory.weights.arrays()} if training else {},
                   training.trajectory.stopped if training else None, inside=page_why.inside,
                   found=verdict(pair, found, ranks))


def verdict(pair: "Words", found: Mapping[str, Attribution], ranks: Mapping[str, int | None]) -> str:
    """The sentence that says in which function the pair is closest."""
    known = {name: rank for name, rank in ranks.items() if rank is not None and found[name].entry > 0}
    if not known:
        return f"Nothing in the text brings {pair.other!r} and {pair.word!r} together."
    name = min(known, key=lambda name: known[name])
    return f"{pair.other!r} goes with {pair.word!r} by {name} above all: it is number {known[name]:,} there."


def _logit(options, pair, basis, training):
    """The parts of the logit W_O[word, other] + (V W_O)[word, other] by the leading terms, and the trained ones."""
    weights, (a, b) = training.trajectory.weights, pair.ids
    parts = logit_parts(basis, pair.batch, a, b, steps=training.trajectory.steps, learning_rate=options.learning_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        through = float(np.sum(weights.V[a] * weights.W_O[:, b]))
    leading = {name: float(array.sum()) for name, array in parts.items()}
    return {"leading": leading | {"both": leading["context"] + leading["interchangeability"]},
            "trained": {"W_O": float(weights.W_O[a, b]), "V W_O": through}}


@dataclass(frozen=True)
class Words:
    """The two words, as tokens of a corpus, and how often they meet."""

    word: str
    other: str
    ids: tuple[int, int]
    corpus: Corpus
    batch: Batch

    @classmethod
    def of(cls, options: Options, corpus: Corpus) -> "Words":
        """ValueError, with words of similar spelling, unless both are in the vocabulary and in the windows."""
        word, other = (typed.strip() if options.tokenizer else typed.strip().lower()
                       for typed in (options.word or "", options.other or ""))
        try:
            ids = corpus.id(word), corpus.id(other)
        except ValueError as error:
            more = "" if options.tokenizer else "; a larger --vocabulary holds more words"
            raise ValueError(f"{error}{more}") from error
        for name, token in zip((word, other), ids, strict=True):
            if not (corpus.tokens == token).any():
                raise ValueError(f"{name!r} is among the {len(corpus.vocabulary):,} words of {corpus.name}, but in "
                                 f"none of the {len(corpus.tokens):,} windows that are used; raise --windows, or name "
                                 "another word")
        return cls(word, other, ids, corpus, corpus.batch())

    @property
    def arrow(self) -> str:
        """The pair as it is printed."""
        return f"{self.word} -> {self.other}"

    def entry(self, function: str) -> tuple[int, int]:
        """Row and column of the pair: Phi has the next word as its row."""
        return (self.ids[1], self.ids[0]) if function == "context" else self.ids

    def rank(self, scores: np.ndarray) -> int:
        """The place of the other word in a row of scores, among the words that are neither the first one nor <unk>."""
        others = [token for token, word in enumerate(self.corpus.vocabulary)
                  if token != self.ids[1] and token != self.ids[0] and word != UNKNOWN]
        return 1 + int(np.count_nonzero(scores[others] > scores[self.ids[1]]))

    def notes(self) -> list[str]:
        """What a reader must know of words that are no words."""
        if UNKNOWN not in (self.word, self.other):
            return []
        share = np.mean(self.corpus.tokens == self.corpus.id(UNKNOWN))
        return [f"note: {UNKNOWN} stands for every word outside the vocabulary, {share:.2%} of the tokens of the "
                "windows; what is said of it is said of all of them together"]

    def meets(self, function: str) -> int:
        """Positions at which the pair meets: B: next to each other; Phi: the word anywhere before the other, which is
        next; Sigma_B: positions before either, whose word stands before both somewhere."""
        (a, b), batch = self.ids, self.batch
        if function == "bigram":
            return int(np.count_nonzero((batch.tokens == a) & (batch.targets == b)))
        if function == "context":
            return int(np.count_nonzero(np.logical_or.accumulate(batch.tokens == a, axis=1) & (batch.targets == b)))
        before = [np.isin(batch.tokens, batch.tokens[batch.targets == token]) for token in self.ids]
        return int(np.count_nonzero(before[0] & before[1] & np.isin(batch.targets, self.ids)))

    def never_meets(self, found: Mapping[str, Attribution]) -> list[str]:
        """A sentence for each function in which the pair never meets: which parts its entry is the sum of."""
        (word, other), says = (self.word, self.other), []
        count = {name: int(np.count_nonzero(one.parts < 0)) for name, one in found.items()}
        if not self.meets("bigram"):
            says.append(f"{other!r} never follows {word!r}: the entry of B is the sum of {count['bigram']:,} negative "
                        f"parts, 1/V of the weight of each position at {word!r}")
        if not self.meets("interchangeability"):
            says.append(f"no word stands before both {word!r} and {other!r}: to Sigma_B, the positions of words that "
                        f"stand before one of them add {count['interchangeability']:,} negative parts, and all others "
                        "small positive ones")
        if not self.meets("context"):
            says.append(f"{word!r} never stands before {other!r} in a window: the entry of Phi is the sum of "
                        f"{count['context']:,} negative parts, 1/V of the share of {word!r} at each position after it")
        return says


def teaching(found: Mapping[str, Attribution], ranks: Mapping[str, int | None],
             strongest: Mapping[str, Sequence[Taught]]) -> tuple[int, list[tuple[str, Taught]]]:
    """The side, 1 or -1, and the windows that taught the pair, each with the function that it is listed for.

    The functions in which the pair meets and has a positive entry are taken by the rank of the pair, and of each the
    strongest windows that are not listed yet. If there is none, the windows are those that add most to the side of B.
    """
    known = {name: rank for name, rank in ranks.items() if rank is not None and found[name].entry > 0}
    listed: dict[int, tuple[str, Taught]] = {}
    for name in sorted(known, key=lambda name: known[name]) or ["bigram"]:
        for window in strongest[name]:
            listed.setdefault(window.windows[0], (name, window))
    return (1 if known or found["bigram"].entry > 0 else -1), list(listed.values())[:N_WINDOWS]


def train(options: Options, batch: Batch, n_vocab: int, pair: Words,
          say: Callable[[str], None]) -> AttributionOverTraining:
    """A short training from zero weights, with the attribution of W_O[word, other]; says what it cost."""
    forecast = Forecast("training", options.steps, say, "a smaller --steps, --windows or --vocabulary is quicker")
    began = time.perf_counter()
    with progress_bar(total=options.steps, unit="step") as bar:

        def callback(step, loss, weights, gradient):
            bar.update(step > 0)
            forecast(step)

        found = record_attribution(OneHotWeights.zeros(n_vocab, options.length), batch, "W_O", *pair.ids,
                                   steps=options.steps, learning_rate=options.learning_rate, rng=options.seed,
                                   batch_size=options.batch_size, callback=callback)
    run = found.trajectory
    say(f"\ntraining: {run.steps} steps from zero weights, in which the loss went from {run.loss[0]:.4f} to "
        f"{run.loss[-1]:.4f}; they and their attribution took {time.perf_counter() - began:.1f} s"
        + (f"\nstopped early: {run.stopped}" if run.stopped else ""))
    return found


# -------------------------------------------------------------------------------------------- tables and the figure


def _functions_table(found: Mapping[str, Attribution], ranks: Mapping[str, int | None], n_vocab: int,
                     pair: Words) -> str:
    rows = []
    for name, symbol in FUNCTIONS.items():
        rank = "never meet" if ranks[name] is None else f"{ranks[name]:,} of {n_vocab:,}"
        rows.append([f"{name}, {symbol}", f"{found[name].entry:+.3e}", rank, f"{pair.meets(name):,}",
                     *(_sum_of(found[name], sign) for sign in (1, -1))])
    return tables.table(["function ", "entry", "rank", "meets", "positive parts (windows)", "negative parts (windows)"],
                        rows)


def _sum_of(one, sign):
    """The sum of the parts of a sign, and the number of windows that have some."""
    return f"{one.positive if sign > 0 else one.negative:+.3e} ({_windows_of(one, sign):,})"


def _windows_of(one, sign):
    """The number of windows that have parts of a sign."""
    return int(np.count_nonzero((sign * one.parts > 0).any(axis=1)))


def _row(pair, name, window, training):
    """What results.json holds of a window that is listed for the function ``name``."""
    trained = float(training.attribution.windows[list(window.windows)].sum()) if training else None
    return {"function": name, "window": window.windows[0], "like it": len(window.windows) - 1, "part": window.value,
            "trained": trained, "text": snippet(pair, window)}


def _logit_table(logit: Mapping[str, Any]) -> str:
    leading, trained = logit["leading"], logit["trained"]
    through = leading["both"]
    rows = [["W_O: bigram", leading["bigram"], trained["W_O"]], ["V W_O", through, trained["V W_O"]],
            ["  of it by context: the next word is OTHER itself", leading["context"], None],
            ["  of it by interchangeability: it is another word", leading["interchangeability"], None],
            ["both", leading["bigram"] + through, trained["W_O"] + trained["V W_O"]]]
    return tables.table(["part of the logit ", "leading terms", "trained"],
                        [[name, *("-" if value is None else f"{value:+.3e}" for value in values)]
                         for name, *values in rows])


def _say_windows(pair: Words, side: int, listed: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
    """Print the windows that taught the pair, as text."""
    if not listed:
        say(f"\nno window adds anything to the entry of B: {pair.word!r} is the current word of no position")
        return
    trained = listed[0]["trained"] is not None
    heads, rows = ["window ", "function ", "its part", *(["trained W_O"] if trained else []), "text "], []
    for one in listed:
        others = f" (and {one['like it']} like it)" if one["like it"] else ""
        rows.append([f"{one['window']}{others}", FUNCTIONS[one["function"]], f"{one['part']:+.2e}",
                     *([f"{one['trained']:+.2e}"] if trained else []), one["text"]])
    say(f"\nthe windows that taught {'it' if side > 0 else 'the contrary'}, by their part of the function in which the "
        "pair is closest, then of the others;\ntheir text is that around the strongest position\n"
        + tables.table(heads, rows))


def snippet(pair: Words, window: Taught) -> str:
    """The words of a window around the next word of its strongest position, and around the last WORD before it.

    Both words of the pair are in brackets wherever they are shown.
    """
    tokens, position = pair.corpus.tokens[window.windows[0]], window.position
    near = {*range(position + 1 - BEFORE, position + 1 + AFTER)}
    if len(before := np.flatnonzero(tokens[:position + 1] == pair.ids[0])):
        near |= {*range(before[-1] - 1, before[-1] + AFTER)}
    shown, last = [], -1
    for place in sorted(place for place in near if 0 <= place < len(tokens)):
        word = pair.corpus.vocabulary[tokens[place]]
        shown += ["..."] * (place > last + 1) + [f"[{word}]" if tokens[place] in pair.ids else word]
        last = place
    return " ".join(shown + ["..."] * (last < len(tokens) - 1))


def _training_results(training: AttributionOverTraining | None, corpus: Corpus) -> dict[str, Any] | None:
    if training is None:
        return None
    return {"loss": training.trajectory.loss, "course": training.course, "positive": training.positive,
            "negative": training.negative, "windows": training.attribution.strongest(N_WINDOWS, corpus=corpus)}


def _figure(options: Options, pair: Words, found: Mapping[str, Attribution], side: int,
            listed: Sequence[tuple[str, Taught]], training: AttributionOverTraining | None, basis: Statistics) -> Any:
    """The picture: parts of the listed windows, and the course of training beside the leading term."""
    drawn_as = {"bigram": "$B$", "interchangeability": r"$\Sigma_B$", "context": r"$\Phi$"}
    attributed = {f"{name} {symbol}": found[name] for name, symbol in drawn_as.items()}
    if training:
        attributed["trained $W_O$"] = training.attribution
    shares = {}
    for name, one in attributed.items():
        whole = one.positive if side > 0 else one.negative
        shares[name] = [float(one.windows[list(window.windows)].sum()) / whole if whole else 0.0
                        for _, window in listed]
    labels = [snippet(pair, window) for _, window in listed]
    course: dict[str, Any] = {}
    if training:
        course = {"trained": training.course,
                  "sum of positive parts": np.concatenate([[0.0], np.cumsum(training.positive)]),
                  "sum of negative parts": np.concatenate([[0.0], np.cumsum(training.negative)]),
                  "leading term": options.learning_rate * np.arange(len(training.course)) * basis.bigram[pair.ids]}
    corpus = pair.corpus
    title = style.literal(f"{pair.arrow} in {corpus.name}: V = {len(corpus.vocabulary)}, {len(corpus.tokens)} windows")
    heading = f"windows that taught {'the pair' if side > 0 else 'the contrary'}"
    return figures.why(labels, shares, course, heading, "positive" if side > 0 else "negative", title=title)
