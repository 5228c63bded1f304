"""Where each theory ends: leading terms and reduced dynamics beside exact training that goes on long after the loss has fallen.

    python experiments/reduced.py [TINYSTORIES.txt] [--quick] [--out DIR]

One attention layer is trained exactly, full batch, in float32, on 1,500 windows of 64 tokens of TinyStories (V = 800, eta = 0.5,
600 steps). The text is the argument, or ../shared/data/tinystories-1000.txt where it lies there; else the built-in `stories` are
read. The theories run beside training, and see nothing of it. ``reduced.png`` shows the cosine of every weight with each of them,
and the loss; ``corrections.png`` which term of the exact gradient ends the leading terms, and when. Ctrl-C writes what is done.

What was tried on the way to this closure (TinyStories, V = 800, 1,500 windows of 64, eta = 0.5; relative errors of W_O, V, W, P):

- Contexts act on the output through almost one number: the eigenvalues of M Jbar M^T fall as 1, 1e-4, 4e-5, ...; M itself has
  rank 32 to 3e-6. One softmax a token is too coarse for frequent tokens, and that is nearly all of the error.
- One cell a token (K = V), second order, from zero: worst errors 0.012, 0.020, 0.163, 0.173 up to step 300.
- K = V + 400 cells, fixed at the leading terms: first order 0.006, 0.017, 0.092, 0.29 up to step 300; second order with the shift
  of the mean 0.002, 0.004, 0.030, 0.068.
- A slope for each cell and its curvature, K = 1.5 V: 0.001, 0.002, 0.005, 0.041 from step 150 to 300; costs what K = 2.5 V does.
  A slope by regression is no better than the common one; cutting by weight x spread^4 no better than by weight x spread^2.
- Cells of the weights of the moment, not of the leading terms: errors of one gradient at step 450 fall from 5.1, 8.7, 3.9, 27%
  to 2.7, 6.0, 1.7, 15% (K = 1.5 V). K = 2.5 V: worst 0.001, 0.002, 0.009, 0.038 from step 150 to 300.
- Kept: K = 3 V, cells of the moment, second order, 32 directions of M, 4 of the response: 0.002, 0.005, 0.009, 0.026 to step 600.
- On `stories` (V = 300, T = 32, loss 5.70 -> 3.10 in 400 steps) the same has 0.040 up to step 300, 0.062 (W) at step 400: the
  further the softmax sharpens, the more cells are needed. K = V: 0.164 and 0.255.
- Not tried: third moments by random projection, a few sampled contexts a token.
"""

import argparse
from pathlib import Path

import numpy as np

from minitx import OneHotWeights, associations, builtin_corpus, descend, gradient_terms, load_corpus
from minitx.associations import figures as plots
from minitx.associations import reduced
from minitx.associations.terms import by_term, exceeds_table, first_exceeds
from minitx.base import numbers, style
from minitx.base.checks import output_folder
from minitx.base.console import Printer, progress_bar
from minitx.base.report import environment, write_json
from minitx.model.descent import descent

TINYSTORIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinystories-1000.txt"
SIZE = {"n_vocab": 800, "length": 64, "n_windows": 1500}
LEARNING_RATE, SHOWN = 0.5, (60, 150, 200, 300, 450, 600)  # steps whose rows are printed; the last ends training
SMALL_SIZE = {"n_vocab": 100, "length": 16, "n_windows": 100}
SMALL_LEARNING_RATE, SMALL_SHOWN = 2.0, (6, 15, 20, 30, 45, 60)
LEADING, OUTPUT = "leading terms", "leading terms, output to second order"
FIRST, SECOND = "reduced, first order, a cell a token", "reduced, second order"
MEASURES = {"cosine": numbers.cosine, "relative_error": numbers.relative_error}


class Theories:
    """Predicted weights, at ever later steps of training from zero."""

    def __init__(self, batch, n_vocab, learning_rate):
        self.statistics, self.learning_rate = associations.statistics(batch, n_vocab), learning_rate
        start = OneHotWeights.zeros(n_vocab, batch.tokens.shape[1], dtype=np.float32)
        reductions = {FIRST: reduced.reduce(batch, n_vocab, order=1, n_cells=n_vocab), SECOND: reduced.reduce(batch, n_vocab)}
        self.descents = {name: descent(start, reduction, learning_rate=learning_rate, loss_and_gradient=reduced.loss_and_gradient)
                         for name, reduction in reductions.items()}
        self.loss = {name: [] for name in self.descents}
        self.weights = {}

    def leading(self, step):
        """Leading terms of all weights."""
        return associations.leading_weights(self.statistics, steps=step, learning_rate=self.learning_rate)

    def at(self, step):
        """{theory: {parameter: predicted array}} after ``step`` steps."""
        for name, walk in self.descents.items():
            while len(self.loss[name]) <= step:
                loss, self.weights[name], _ = next(walk)
                self.loss[name].append(loss)
        output = associations.second_order_output(self.statistics, steps=step, learning_rate=self.learning_rate)
        return ({LEADING: self.leading(step).parameters(), OUTPUT: {"W_O": output}}
                | {name: weights.parameters() for name, weights in self.weights.items()})


class Recorder:
    """Callback of training: sets its weights beside every theory and splits its gradient, at the steps ``at``."""

    def __init__(self, theories, batch, at, shown, say):
        self.theories, self.batch, self.at, self.shown, self.say = theories, batch, at, shown, say
        self.records, self.norms = [], []

    def __call__(self, step, loss, weights, gradient):
        """Record ``step``, and print it if it is to be shown."""
        if step not in self.at:
            return
        trained = weights.parameters()
        found = {theory: {measure: {name: function(array, trained[name]) for name, array in predicted.items()}
                          for measure, function in MEASURES.items()} for theory, predicted in self.theories.at(step).items()}
        terms = gradient_terms(weights, self.batch, leading=self.theories.leading(step))
        self.norms.append({name: {term: numbers.norm(array) for term, array in split.items()} for name, split in terms.items()})
        self.records.append({"step": step, "loss": loss, "theories": found})
        if step in self.shown:
            self.say(self._rows(step, loss, found))

    def _rows(self, step, loss, found):
        lines, label = [], f"{step:5d} {loss:8.4f}"
        for theory, measures in found.items():
            losses = self.theories.loss.get(theory)
            predicted = f"{losses[step]:10.4f}" if losses else f"{'-':>10}"
            lines.append(f"{label:14}  {theory:38}{predicted}  " + "  ".join(map(_numbers, measures.values())))
            label = ""
        return "\n".join(lines)


def _numbers(values):
    shown = ("-" if name not in values else f"{values[name]:.4f}" if abs(values[name]) < 100 else f"{values[name]:.1e}"
             for name in plots.PARAMETERS)
    return "".join(f"{value:>9}" for value in shown)


def header():
    """Two lines above the rows of a recorder."""
    names = "".join(f"{name:>9}" for name in plots.PARAMETERS)
    return (f"{'':64}  {'cosine':-^36}  {'relative error':-^36}\n"
            f"{'step':>5} {'loss':>8}  {'theory':38}{'predicted':>10}  {names}  {names}")


def worst(records):
    """Lowest cosine and largest relative error of each theory, over all recorded steps (those that are defined)."""
    extreme = {"cosine": np.nanmin, "relative_error": np.nanmax}
    return {theory: {measure: {name: float(extreme[measure]([record["theories"][theory][measure][name] for record in records]))
                               for name in values} for measure, values in measures.items()}
            for theory, measures in records[-1]["theories"].items()}


def show(recorder, loss, title, say, folder):
    """Print what all steps together say, draw the figures; what of it goes into ``reduced.json``."""
    steps, norms = [record["step"] for record in recorder.records], by_term(recorder.norms)
    extremes, exceeds = worst(recorder.records), first_exceeds(steps, norms)
    say(f"\nworst of the {len(steps)} recorded steps")
    for theory, measures in extremes.items():
        say(f"{'':16}{theory:38}{'':10}  " + "  ".join(map(_numbers, measures.values())))
    say("\nstep at which a correction first exceeds 1%, 10%, 50% of the leading term (* the first to do so; - none)")
    say(exceeds_table(exceeds))
    cosine = {theory: {name: [record["theories"][theory]["cosine"][name] for record in recorder.records]
                       for name in measures["cosine"]} for theory, measures in extremes.items()}
    style.save(plots.theories(steps, cosine, loss, recorder.theories.loss, title=title), folder / "reduced.png")
    style.save(plots.corrections(steps, norms, exceeds, title=title), folder / "corrections.png")
    return {"worst": extremes, "first_exceeds": exceeds}


def main():
    """Train, print, write figures and ``reduced.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="TinyStories, one story a line; without it ../shared/data, or the `stories` corpus")
    parser.add_argument("--quick", action="store_true", help="small sizes, in seconds")
    parser.add_argument("--out", default="results/reduced", metavar="DIR")
    arguments = parser.parse_args()
    folder, say = output_folder(arguments.out), Printer()
    size, eta, shown = (SMALL_SIZE, SMALL_LEARNING_RATE, SMALL_SHOWN) if arguments.quick else (SIZE, LEARNING_RATE, SHOWN)
    text = arguments.text or (TINYSTORIES if TINYSTORIES.exists() else None)
    corpus = load_corpus(text, **size) if text else builtin_corpus("stories", n_documents=2048, **size)
    batch, n_vocab, steps = corpus.batch(), len(corpus.vocabulary), shown[-1]
    say(f"{corpus.summary()}\n\n{header()}")
    at = {3, 6, 12, *shown, *(round(steps * k / 24) for k in range(1, 25))}
    recorder = Recorder(Theories(batch, n_vocab, eta), batch, at, shown, say)
    with progress_bar(total=steps, unit="step") as bar:

        def callback(step, loss, weights, gradient):
            recorder(step, loss, weights, gradient)
            bar.update(step > 0)

        start = OneHotWeights.zeros(n_vocab, corpus.length, dtype=np.float32)
        run = descend(start, batch, learning_rate=eta, steps=steps, callback=callback)
    if run.stopped:
        say(f"\nstopped early: {run.stopped}")
    title = style.literal(f"{corpus.name}: V = {n_vocab}, T = {corpus.length}, ") + rf"$\eta$ = {eta:g}"
    found = show(recorder, run.loss, title, say, folder) if recorder.records else {}
    write_json(folder / "reduced.json", {
        "environment": environment(), "corpus": corpus.summary().splitlines(), "learning_rate": eta, "stopped": run.stopped,
        "loss": run.loss, "predicted_loss": recorder.theories.loss, "records": recorder.records,
        "norms_of_terms": recorder.norms, **found})
    say(f"\nwritten to {folder}/")


if __name__ == "__main__":
    main()
