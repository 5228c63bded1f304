"""``minitx associate``: train on a text, split the exact gradient, and set both beside theory.

The theories are the leading terms (Im et al., ICLR 2026), reference dynamics and, for one layer, reduced dynamics.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations import figures, page, tables, terms, words
from minitx.associations.basis import Statistics, statistics
from minitx.associations.command_corpus import counted, read, require_batch_size, require_one_text
from minitx.associations.command_figures import BASIS_FUNCTIONS, basis_figures, training_figures
from minitx.associations.command_training import (
    N_ASSOCIATES,
    Options,
    Recorder,
    intervene,
    split_gradient,
    train,
    virtual_heads,
)
from minitx.associations.counts import Counts
from minitx.associations.leading import leading_weights
from minitx.base import style
from minitx.base.checkpoint import Checkpoint
from minitx.base.command import Outcome, run_command
from minitx.base.options import HANDLING, PLACES, add_options, read_options, require_memory
from minitx.base.tables import number
from minitx.data.corpus import BUILTIN

PAGE_WORDS = 1000  # the page lists the associates of so many words, the most frequent ones
MEASURES = " (bigram: by the entries of B; interchangeability and context: by cosines)"
N_WORDS, LONG_WORD = 5, 4  # of counts, the associates of the most frequent words of so many letters are listed
STORY_WORDS = ("fish", "bird", "happy", "red", "mom")  # whose associates in the stories are known
FIGURES = ("cosines.png", "gradient_terms.png", "corrections.png", "interventions.png",
           *(f"{name}.png" for name in BASIS_FUNCTIONS))
EXAMPLES = (
    ("minitx associate", "Train on the embedded stories, with the settings of the README."),
    ("minitx associate stories.txt --steps 500 --out my-run", "Train longer, on a text of your own."),
    ("minitx associate --resume --out my-run", "Continue that run after it was interrupted."),
    ("minitx associate --config my-run/results.json --check 0.01", "Repeat that run, and fail where reduced dynamics "
     "miss training by more than 1%."))


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
    recorder.complete(split)
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
            "direction of the same norm (mean and standard deviation), or is replaced by the projection. Look for the "
            "weights whose projection raises the loss more than a random direction does: the leading term describes "
            "what they learned.")
    return Outcome(f"minitx associate: {corpus.name}, {setting}", results, drawn,
                   {"weights.npz": trajectory.weights.arrays()}, trajectory.stopped, recorder.comparisons(),
                   page.inside, verdict(recorder))


def verdict(recorder: Recorder) -> str:
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
