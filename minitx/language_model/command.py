"""``minitx language-model``: token covariances of pre-trained models beside the leading terms of a text."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from minitx.base import options as base_options
from minitx.base import style
from minitx.base.checkpoint import Checkpoint
from minitx.base.command import Outcome, run_command
from minitx.base.console import progress_bar
from minitx.base.options import MANY, add_options, option, read_options, require_memory
from minitx.base.tables import number, table
from minitx.data.readers import LAYOUTS
from minitx.data.tokenizers import FileTokenizer
from minitx.language_model import figures, page
from minitx.language_model.comparison import Features, Similarity
from minitx.language_model.forward import Transformer
from minitx.language_model.layers import QUERY_KEY, STATES, Record, compare_layers, leading_value
from minitx.language_model.reading import read_model, read_tokenizer, training_step
from minitx.language_model.text import COUNTED, LEAST, LeadingTerms, leading_terms

FIGURES = ("states.png", "maps.png", "heads.png")
OVER_STEPS = {f"heads-{statistic}.png": statistic for statistic in ("published", "centred", "entries")}  # of several
ABOVE = 5.0  # standard deviations from which a statistic counts as above chance
EXAMPLES = (
    ("minitx language-model pythia-70m --text stories.txt", "Compare the layers of a model with what a text predicts."),
    ("minitx language-model steps/* --text stories.txt --tokens 500", "Compare checkpoints of one training."))
LACKS = ("weights*.npz", "1")  # nothing is trained
N_WORDS, N_NEIGHBOURS = 6, 7
KINDS = (Features, Record, Similarity)  # what a checkpoint keeps of a model


@dataclass(frozen=True, kw_only=True)
class Options(base_options.Resumable):
    """The configuration of a run; ``results.json`` keeps it."""

    trains = False
    command = "language-model"
    models: MANY = option((), "folders of a model or of checkpoints of one training, each with config.json and "
                          "model.safetensors; GPT-NeoX (Pythia), GPT-2 or Llama", positional=True, metavar="MODEL")
    text: str = option("", "text whose statistics are compared: a file, a folder or a pattern", metavar="FILE")
    tokenizer: str | None = option(None, "tokenizer of the models; when it is not given, the tokenizer.json of the "
                                   "first model is used", metavar="FILE")
    tokens: int = option(2000, "number of tokens that are compared, the most frequent of the text", least=LEAST,
                         most=20_000, quick=200, metavar="N")
    length: int = option(64, "tokens in a window of the text", least=1, most=1_000_000, metavar="T")
    layout: str | None = option(None, "how documents are separated in a .txt file; this is detected when it is not "
                                "given", choices=tuple(LAYOUTS))
    words: str | None = option(None, "comma-separated tokens whose neighbours are listed, written as in "
                               "tokenizer.json; frequent ones are listed when it is not given", metavar="WORDS")
    out: str = option("minitx-language-model", "folder for figures, results.json and index.html", metavar="DIR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx language-model`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status of :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    options = read_options(Options, typed)
    if not options.models:
        raise ValueError("no MODEL was typed; minitx language-model needs at least one folder with config.json and "
                         "model.safetensors")
    if not options.text:
        raise ValueError("--text was not typed; it must name the text whose statistics are compared")
    return run_command(options, typed, run, (*FIGURES, *OVER_STEPS), resumable=True)


def run(options: Options, say: Callable[[str], None], checkpoint: Checkpoint | None = None) -> Outcome:
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known. Models of which the ``checkpoint``
    has the records are not compared again.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`):

    - ``text``: the number of ``tokens`` compared, and the ``coverage`` of the tokens that were counted one by one.
    - ``tokens``: the tokens compared, most frequent first.
    - ``models``: for each its ``name``, ``step`` (null if its name has none) and ``records``, as
      :class:`minitx.language_model.layers.Record`.
    - ``neighbours``: {token: {"text": [...], "model": [...]}}, nearest first.
    """
    require_memory(200.0 * options.tokens**2, ("tokens", options.tokens))
    models = [read_model(folder) for folder in options.models]
    tokenizer = FileTokenizer.read(options.tokenizer) if options.tokenizer else read_tokenizer(options.models[0])
    for model in models:
        if model.architecture.n_vocab < len(tokenizer.vocabulary):
            raise ValueError(f"{model.name} has embeddings of {model.architecture.n_vocab:,} tokens, but the tokenizer "
                             f"has {len(tokenizer.vocabulary):,}; give the tokenizer of the model as --tokenizer")
        size, first = model.architecture, models[0].architecture
        if (size.n_layers, size.n_heads) != (first.n_layers, first.n_heads):
            raise ValueError(f"{models[0].name} has {first.n_layers} layers with {first.n_heads} heads, but "
                             f"{model.name} has {size.n_layers} with {size.n_heads}; name checkpoints of one training, "
                             "or one model")
    steps = [training_step(model.name) for model in models]
    if None not in steps:  # checkpoints, in the order of training
        order = sorted(range(len(steps)), key=lambda i: steps[i] or 0)
        models, steps = [models[i] for i in order], [steps[i] for i in order]
    terms = _read_text(options, tokenizer, say)
    records: dict[str, list[Record]] = {}
    for model in models:
        name = model.name if model.name not in records else f"{model.name} ({len(records)})"
        compare = partial(_compare, options, model, terms, say)
        records[name], nearest = checkpoint.once(name, compare, *KINDS) if checkpoint else compare()
    neighbours = _neighbours(options, terms, nearest)
    say(f"\nnearest tokens, by cosines of rows centred over tokens: of Φᵀ Bᵀ, and of {models[-1].name} after the layer "
        f"with the largest z\n{neighbours_table(neighbours)}")
    return Outcome(f"minitx language-model: {', '.join(records)}", {
        "text": {"tokens": len(terms.tokens), "coverage": terms.coverage}, "tokens": terms.words,
        "models": [{"name": name, "step": step, "records": found}
                   for (name, found), step in zip(records.items(), steps, strict=True)],
        "neighbours": neighbours}, _figures(records, steps), inside=page.inside,
        found=verdict(list(records.values())[-1])[0] + ".")


def _read_text(options, tokenizer, say):
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        terms = leading_terms(options.text, tokenizer, n_tokens=options.tokens, length=options.length,
                              layout=options.layout, progress=progress)
    counted = max(COUNTED, options.tokens)
    say(f"text        {options.text}, windows of {options.length} + 1 tokens")
    say(f"tokens      {len(terms.tokens):,} compared, the most frequent; the {counted:,} most frequent cover "
        f"{terms.coverage:.2%} of the text")
    return terms


def _compare(options: Options, model: Transformer, terms: LeadingTerms,
             say: Callable[[str], None]) -> tuple[list[Record], Features]:
    """The records of a model, printed; and its states after the layer that resembles the text most, centred."""
    size = model.architecture
    say(f"\nmodel       {model.name}: {size.family}, {size.n_layers} layers of width {size.width} with {size.n_heads} "
        "heads")
    found: list[Record] = []
    best, nearest = -np.inf, leading_value(terms).plain  # the first layer replaces both
    with progress_bar(total=size.n_layers, unit="layer", desc=model.name) as bar:
        for state, records in compare_layers(model, terms, rng=options.seed):
            found += records
            bar.update()
            after = next(one for one in records if one.part == "after")
            if not after.centred.z <= best:
                best, nearest = after.centred.z, Features.of(state.after[:, 0])
    say("states of tokens, and mean query-key maps (permuted: mean over all permutations of the tokens; z: standard "
        f"deviations above it)\n{layers_table(found, STATES)}\n{layers_table(found, QUERY_KEY)}")
    say("heads: largest z of the cosine of entries, centred over rows and columns\n" + heads_table(found))
    for line in verdict(found):
        say(line)
    return found, nearest


def layers_table(records: Sequence[Record], parts: Sequence[str]) -> str:
    """The statistics of states, or of mean maps, by layer; a state before a layer is the one after the previous layer.
    """
    heads = ("layer", "part ", "beside ", "published", "permuted", "all-ones", "centred", "permuted", "z", "rows",
             "permuted", "z")
    rows = [(str(one.layer), one.part, one.theory, number(one.published.value, 3), number(one.published.mean, 3),
             number(one.ones_model, 3), *_cells(one.centred), *_cells(one.rows)) for one in records
            if one.part in parts and one.head is None and not (one.part == "before" and one.layer)]
    return table(heads, rows)


def _cells(found: Similarity | None) -> tuple[str, str, str]:
    return (number(found.value, 3), number(found.mean, 3), number(found.z, 1)) if found else ("-", "-", "-")


def heads_table(records: Sequence[Record]) -> str:
    """Of every kind of map, the head whose entries agree best with each leading term, and how many are above chance."""
    by_head = sorted((one for one in records if one.head is not None), key=lambda one: (one.part, one.theory))
    rows = []
    for (part, theory), group in groupby(by_head, key=lambda one: (one.part, one.theory)):
        kind = [(one, one.entries) for one in group if one.entries is not None]
        best, entries = max(kind, key=lambda pair: pair[1].z)
        above = sum(found.z > ABOVE for _, found in kind)
        rows.append((part, theory, f"{best.layer}.{best.head}", number(entries.value, 3), number(entries.z, 1),
                     f"{above} of {len(kind)}", number(best.centred.value, 3), number(best.centred.z, 1)))
    return table(("map ", "beside ", "layer.head", "entries", "z", f"heads with z > {ABOVE:g}", "centred", "z"), rows)


def verdict(records: Sequence[Record]) -> list[str]:
    """Sentences that say of states and mean maps how far each statistic stands above chance."""
    lines = []
    for name, parts in (("states", STATES), ("mean query-key maps", QUERY_KEY)):
        kept = [one for one in records if one.part in parts and one.head is None and one.rows is not None]
        above = sum(one.centred.z > ABOVE for one in kept)
        gap = max(abs(one.published.value - one.published.mean) for one in kept)
        lines.append(f"{name}: permuting the tokens changes the published cosine by at most {gap:.3f}; centred over "
                     f"tokens, {above} of {len(kept)} stand more than {ABOVE:g} standard deviations above chance, at "
                     f"cosines up to {max(one.centred.value for one in kept):.3f}")
    return lines


def _neighbours(options, terms, nearest):
    """{token: {"text": [...], "model": [...]}} of the words that were asked for, or of frequent words."""
    if options.words is not None:
        asked = [word for word in map(str.strip, options.words.split(",")) if word]
        if absent := [word for word in asked if word not in terms.words]:
            raise ValueError(f"--words names {', '.join(absent)}, not among the {len(terms.words):,} tokens compared, "
                             f"which are written as in the tokenizer: {', '.join(terms.words[:8])}, ...")
    else:
        long = [word for word in terms.words if sum(map(str.isalpha, word)) > 3]  # the shortest are words of grammar
        asked = long[::max(1, len(long) // (4 * N_WORDS))][:N_WORDS]
    covariances = {"text": leading_value(terms).plain, "model": nearest}
    return {word: {side: [terms.words[i] for i in _nearest(found, terms.words.index(word))]
                   for side, found in covariances.items()} for word in asked}


def _nearest(features: Features, token: int) -> list[int]:
    """The tokens with the largest cosines to ``token``, nearest first; not itself."""
    size = np.sqrt(np.maximum(features.sizes, np.finfo(float).tiny))
    cosines = np.sum(features.centred * features.centred[token], axis=1) / size
    return [int(i) for i in np.argsort(-cosines, kind="stable") if i != token][:N_NEIGHBOURS]


def neighbours_table(neighbours: dict[str, dict[str, list[str]]]) -> str:
    """The neighbours of words in the text and in the model, one below the other."""
    return table(("token ", "in the ", "nearest tokens "), [(word if side == "text" else "", side, " ".join(found))
                 for word, sides in neighbours.items() for side, found in sides.items()])


def _figures(records: dict[str, list[Record]], steps: list[int | None]) -> dict[str, tuple[Any, str]]:
    names, known = list(records), [step for step in steps if step is not None]
    title = style.literal(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}")
    if len(names) == 1:
        x, xlabel = None, "layer"
    elif len(known) == len(names):
        x, xlabel = known, "step of training"
    else:
        x, xlabel = list(range(1, len(names) + 1)), "model, in the order typed"
    over_steps = {} if x is None else {name: (figures.heads_over_steps(records, x, statistic, title=title,
                                                                       xlabel=xlabel),
                                              "Maps of every head beside leading terms. A head stands above chance "
                                              "where its curve leaves the band of its colour.")
                                       for name, statistic in OVER_STEPS.items()}
    return {
        "states.png": (figures.states(records, x, title=title, xlabel=xlabel), "States of tokens beside Φᵀ Bᵀ. Where "
                       "the band lies on the curve, the statistic does not tell tokens apart: any other order of the "
                       "tokens gives it."),
        "maps.png": (figures.maps(records, x, title=title, xlabel=xlabel), "Mean query-key maps beside Q, in the same "
                     "way."),
        "heads.png": (figures.heads(records[names[-1]], title=style.literal(names[-1])), "Maps of every head beside "
                      "leading terms, in standard deviations above (red) or below (blue) permuted tokens. Look for "
                      "heads that stand out."), **over_steps}
