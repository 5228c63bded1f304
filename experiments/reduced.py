"""Where each theory ends: leading terms and reduced dynamics beside exact training, long after the loss has fallen.

    python experiments/reduced.py [TINYSTORIES.txt] [--quick] [--out DIR]

One attention layer is trained exactly, full batch, in float32, on 1,500 windows of 64 tokens of TinyStories (V = 800,
eta = 0.5, 600 steps). Without a text the built-in `stories` are read. The theories run beside training and see
nothing of it. ``reduced.png`` shows the cosine of every weight with each of them, and the loss; ``corrections.png``
shows which term of the exact gradient ends the leading terms, and when. Ctrl-C ends training and writes what is done.

What was tried on the way to this closure (TinyStories, V = 800, 1,500 windows of 64, eta = 0.5; four numbers are the
relative errors of W_O, V, W and P):

- Contexts act on the output through almost one number: the eigenvalues of M Jbar M^T fall as 1, 1e-4, 4e-5, ..., and M
  itself has rank 32 to 3e-6. One softmax a token is too coarse for frequent tokens, and that is nearly all of the
  error.
- One cell a token (K = V), second order, from zero: the worst errors up to step 300 are 0.012, 0.020, 0.163, 0.173.
- K = V + 400 cells, fixed at the leading terms: at first order the errors up to step 300 are 0.006, 0.017, 0.092, 0.29;
  at second order, with the shift of the mean, they are 0.002, 0.004, 0.030, 0.068.
- A slope for each cell and its curvature, K = 1.5 V: the errors from step 150 to 300 are 0.001, 0.002, 0.005, 0.041,
  but it costs what K = 2.5 V does. A slope by regression is no better than the common one; to cut cells by weight x
  spread^4 is no better than by weight x spread^2.
- Cells of the present weights instead of the leading terms: the errors of one gradient at step 450 fall from 5.1, 8.7,
  3.9, 27% to 2.7, 6.0, 1.7, 15% (K = 1.5 V). With K = 2.5 V the worst from step 150 to 300 are 0.001, 0.002, 0.009,
  0.038.
- What was kept is K = 3 V, cells of the present weights, second order, 32 directions of M and 4 of the response: the
  errors to step 600 are 0.002, 0.005, 0.009, 0.026.
- On `stories` (V = 300, T = 32, loss 5.70 to 3.10 in 400 steps) the same has an error of 0.040 up to step 300 and of
  0.062 (W) at step 400: the further the softmax sharpens, the more cells are needed. With K = V they are 0.164 and
  0.255.
- In all of these, cells are intervals of one number. They have since become boxes of four, at the same cost
  (``minitx.associations.reduced`` says what that gains).
- Third moments by random projection, and a few sampled contexts a token, were not tried.
"""

import numpy as np
from running import block, command_line, paragraphs, write_down

from minitx import OneHotWeights, associations, builtin_corpus, descend, gradient_terms, load_corpus
from minitx.associations import figures as plots
from minitx.associations import reduced
from minitx.associations.terms import by_term, exceeds_table, first_exceeds, term_norms
from minitx.base import numbers, style
from minitx.base.console import progress_bar
from minitx.base.tables import number
from minitx.model.descent import descent

SIZE = {"n_vocab": 800, "length": 64, "n_windows": 1500}
LEARNING_RATE, SHOWN = 0.5, (60, 150, 200, 300, 450, 600)  # the steps that tables show; the last ends training
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
        reductions = {FIRST: reduced.reduce(batch, n_vocab, order=1, n_cells=n_vocab),
                      SECOND: reduced.reduce(batch, n_vocab)}
        self.descents = {name: descent(start, reduction, learning_rate=learning_rate,
                                       loss_and_gradient=reduced.loss_and_gradient)
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
                loss, self.weights[name], *_ = next(walk)
                self.loss[name].append(loss)
        output = associations.second_order_output(self.statistics, steps=step, learning_rate=self.learning_rate)
        return ({LEADING: self.leading(step).parameters(), OUTPUT: {"W_O": output}}
                | {name: weights.parameters() for name, weights in self.weights.items()})


class Recorder:
    """Callback of training: at the steps ``at`` it sets the weights beside every theory, and splits the gradient."""

    def __init__(self, theories, batch, at):
        self.theories, self.batch, self.at = theories, batch, at
        self.records, self.norms = [], []

    def __call__(self, step, loss, weights, gradient):
        """Record ``step`` if it is one of those."""
        if step not in self.at:
            return
        trained = weights.parameters()
        found = {theory: {measure: {name: function(array, trained[name]) for name, array in predicted.items()}
                          for measure, function in MEASURES.items()}
                 for theory, predicted in self.theories.at(step).items()}
        terms = gradient_terms(weights, self.batch, leading=self.theories.leading(step))
        self.norms.append(term_norms(terms))
        predicted = {name: losses[step] for name, losses in self.theories.loss.items()}
        self.records.append({"step": step, "loss": loss, "predicted loss": predicted, "theories": found})


def worst(records):
    """Lowest cosine and largest relative error of each theory over all recorded steps (those that are defined)."""
    extreme = {"cosine": np.nanmin, "relative_error": np.nanmax}
    found = [record["theories"] for record in records]
    return {theory: {measure: {name: extreme[measure]([one[theory][measure][name] for one in found]) for name in values}
                     for measure, values in measures.items()} for theory, measures in found[-1].items()}


def draw(recorder, exceeds, loss, title, folder):
    """The two figures."""
    steps, records = [record["step"] for record in recorder.records], recorder.records
    cosine = {theory: {name: [record["theories"][theory]["cosine"][name] for record in records]
                       for name in found["cosine"]} for theory, found in records[-1]["theories"].items()}
    style.save(plots.theories(steps, cosine, loss, recorder.theories.loss, title=title), folder / "reduced.png")
    figure = plots.corrections(steps, by_term(recorder.norms), exceeds, title=title)
    style.save(figure, folder / "corrections.png")


# ------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what reduced.json holds."""
    records = results["records"]
    exceeds = {parameter: {name: {float(share): step for share, step in at.items()} for name, at in found.items()}
               for parameter, found in results["first_exceeds"].items()}
    return paragraphs(
        f"## Where each theory ends: {results['corpus'][0].split()[-1]}",
        "```text\n" + "\n".join(results["corpus"]) + "\n```",
        f"One layer is trained exactly on the full batch with eta = {results['learning_rate']:g}, from zero weights. "
        "The theories are computed from the corpus alone. The column `predicted` is the loss that a theory predicts. "
        "The last four columns are the cosines of the predicted weights with the trained ones.",
        _theories_block(records, results["shown"], "cosine"),
        "The last four columns of the next table are the relative errors, |trained - predicted| / |trained|.",
        _theories_block(records, results["shown"], "relative_error"),
        f"The next table gives the lowest cosine and the largest relative error over {len(records)} recorded steps.",
        block(("theory ", "measure ", *plots.PARAMETERS),
              [(theory, measure.replace("_", " "), *_cells(found[measure])) for measure in MEASURES
               for theory, found in results["worst"].items()]),
        "The last table gives the step at which each correction of the gradient first exceeds 1%, 10% and 50% of the "
        "leading term. A star marks the correction that is the first to do so, and a dash one that never does.",
        f"```text\n{exceeds_table(exceeds)}\n```")


def _theories_block(records, shown, measure):
    rows = []
    for record in records:
        if record["step"] in shown:
            start = (str(record["step"]), number(record["loss"]))
            for theory, found in record["theories"].items():
                predicted = number(record["predicted loss"].get(theory))
                rows.append((*start, theory, predicted, *_cells(found[measure])))
                start = ("", "")
    return block(("step", "loss", "theory ", "predicted", *plots.PARAMETERS), rows)


def _cells(values):
    return [number(None if name not in values else float(values[name])) for name in plots.PARAMETERS]


def main():
    """Train, draw the figures, and write and print the results."""
    arguments = command_line("reduced", __doc__, quick="small sizes, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    small = SMALL_SIZE, SMALL_LEARNING_RATE, SMALL_SHOWN
    size, eta, shown = small if arguments.quick else (SIZE, LEARNING_RATE, SHOWN)
    text = arguments.text
    corpus = load_corpus(text, **size) if text else builtin_corpus("stories", n_documents=2048, **size)
    batch, n_vocab, steps = corpus.batch(), len(corpus.vocabulary), shown[-1]
    at = {3, 6, 12, *shown, *(round(steps * k / 24) for k in range(1, 25))}
    recorder = Recorder(Theories(batch, n_vocab, eta), batch, at)
    with progress_bar(total=steps, unit="step") as bar:

        def callback(step, loss, weights, gradient):
            recorder(step, loss, weights, gradient)
            bar.update(step > 0)

        start = OneHotWeights.zeros(n_vocab, corpus.length, dtype=np.float32)
        run = descend(start, batch, learning_rate=eta, steps=steps, callback=callback)
    if run.stopped:
        print(f"training stopped early: {run.stopped}\n")
    if not recorder.records:
        raise SystemExit(f"Training stopped before step {min(at)}, the first that is recorded; nothing is written.")
    exceeds = first_exceeds([record["step"] for record in recorder.records], by_term(recorder.norms))
    title = style.literal(f"{corpus.name}: V = {n_vocab}, T = {corpus.length}, ") + rf"$\eta$ = {eta:g}"
    draw(recorder, exceeds, run.loss, title, arguments.out)
    write_down("reduced", arguments, {
        "corpus": corpus.summary().splitlines(), "learning_rate": eta, "shown": shown, "stopped": run.stopped,
        "records": recorder.records, "worst": worst(recorder.records), "first_exceeds": {
            parameter: {name: {str(share): step for share, step in at.items()} for name, at in found.items()}
            for parameter, found in exceeds.items()},
        "series": {"loss": run.loss, "predicted_loss": recorder.theories.loss, "norms_of_terms": recorder.norms},
        }, section)


if __name__ == "__main__":
    main()
