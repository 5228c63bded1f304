"""Does a closure know how far it is from training, and what does it save? Its estimate of its error, and its time.

    python experiments/tolerance.py [TINYSTORIES.txt] [--quick] [--out DIR]

``reduced.descend(tolerance=0.05)`` corrects reduced dynamics on sampled windows and estimates the relative error of
every weight. Here it runs beside exact training, in float32. On four texts, two cuts of TinyStories (without a text, of
`stories`) and two built-in corpora, the closure is used although an exact step costs less. An estimate below the
measured error is a false promise; one far above it ends a prediction that still holds. On four larger texts the closure
is the cheaper one, and time counts. Ctrl-C ends it, and nothing is written.
"""

import time

import numpy as np
from running import block, command_line, paragraphs, write_down

from minitx import OneHotWeights, agreement, builtin_corpus, descend, load_corpus
from minitx.associations import reduced
from minitx.base.console import progress_bar
from minitx.base.tables import number

TOLERANCE, EARLY, EVERY = 0.05, (3, 6, 12), 25  # and the steps that are recorded
NAMES = ("W_O", "V", "W", "P")
# (text or None for that of the command line, size, learning rate, steps)
RUNS = ((None, {"n_vocab": 400, "length": 32, "n_windows": 1000}, 2.0, 1000),
        (None, {"n_vocab": 200, "length": 16, "n_windows": 2000}, 1.0, 400),
        ("stories", {"n_vocab": 200, "length": 32, "n_windows": 1000}, 1.0, 300),
        ("python-docs", {"n_vocab": 200, "length": 32, "n_windows": 1000}, 1.0, 300))
LARGE = ((None, {"n_vocab": 400, "length": 64, "n_windows": 2500}, 2.0, 300),
         (None, {"n_vocab": 600, "length": 64, "n_windows": 2000}, 1.0, 300),
         ("stories", {"n_vocab": 400, "length": 64, "n_windows": 2000}, 1.0, 300),
         ("python-docs", {"n_vocab": 400, "length": 64, "n_windows": 1800}, 1.0, 300))
SMALL = {"n_vocab": 200, "length": 32, "n_windows": 200}


def measured(corpus, learning_rate, steps, n_cells):
    """What is written down of one text: estimate and error of every weight at the recorded steps."""
    start = OneHotWeights.zeros(len(corpus.vocabulary), corpus.length, dtype=np.float32)
    settings = {"learning_rate": learning_rate, "steps": steps, "keep": [*EARLY, *range(EVERY, steps + 1, EVERY)]}
    times = [time.process_time()]
    run = reduced.descend(start, corpus.batch(), tolerance=TOLERANCE, n_cells=n_cells, **settings)
    times.append(time.process_time())
    exact = descend(start, corpus.batch(), **settings)
    times.append(time.process_time())
    records = []
    for step, predicted in run.kept.items():
        if step in exact.kept:
            error = agreement(predicted, exact.kept[step]).relative_error
            records.append({"step": step, "error": error, "estimate": {name: run.error[name][step] for name in NAMES}})
    predicted_s, exact_s = np.diff(times)
    return {"corpus": corpus.name, "size": {"V": len(corpus.vocabulary), "T": corpus.length, "N": len(corpus.batch())},
            "learning_rate": learning_rate, "steps": steps, "taken": run.steps, "stopped": run.stopped,
            "loss": [float(exact.loss[0]), float(exact.loss[-1])], "seconds": [predicted_s, exact_s],
            "operations": float(run.cost.mean()), "records": records}


def _row(result):
    estimate, error = (np.array([[float(one[kind][name]) for name in NAMES] for one in result["records"]])
                       for kind in ("estimate", "error"))
    size = result["size"]
    below = (estimate < error).any(axis=1)
    return (f"{result['corpus']}, V = {size['V']}, T = {size['T']}, N = {size['N']}", f"{result['learning_rate']:g}",
            f"{result['taken']} of {result['steps']}", f"{error.max():.2%}", f"{below.sum()} of {len(below)}",
            *(number(value, 2) for value in (estimate / error).mean(axis=0)), number((estimate / error).mean(), 2),
            number(result["operations"], 2), number(result["seconds"][0] / result["seconds"][1], 2))


def section(results):
    """Markdown of what tolerance.json holds."""
    head = ("text ", "eta", "steps", "error", "below", *NAMES, "all", "cost", "time")
    return paragraphs(
        "## Reduced dynamics with an estimate of their error",
        f"`reduced.descend(tolerance={TOLERANCE:g})` is compared with exact training in float32, at steps "
        f"{', '.join(map(str, EARLY))} and every {EVERY} steps. The column `error` is the largest relative error of a "
        "weight at a recorded step. The column `below` counts the recorded steps at which an estimate is below the "
        "error of its weight; the goal is at most one in twenty. The next five columns are the mean ratio of estimate "
        "to error, whose goal is at most 5 over all weights. The column `cost` is the number of operations of a step "
        "divided by that of an exact one, and `time` is the processor time of the prediction divided by that of exact "
        "training. Where `cost` is not below 1, as on these four texts, `reduced.descend` takes exact steps; here the "
        "closure was asked for, by its number of cells, for the sake of its estimates.",
        block(head, map(_row, results["texts"])),
        "On four larger texts the closure is the cheaper one; the goal of `time` is less than 1. The goals of the "
        "estimates were not set for windows of this length.",
        block(head, map(_row, results["large"])))


def main():
    """Predict and train on every text, and write and print the results."""
    arguments = command_line("tolerance", __doc__, quick="small sizes, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    found = {"texts": [], "large": []}
    runs = [("texts", *run) for run in RUNS] + [("large", *run) for run in LARGE]
    for kind, text, size, learning_rate, steps in progress_bar(iterable=runs, unit="text"):
        if arguments.quick:
            size, steps = SMALL, 30
        corpus = load_corpus(arguments.text, **size) if text is None and arguments.text else \
            builtin_corpus(text or "stories", **size)
        n_cells = 3 * len(corpus.vocabulary) if kind == "texts" or arguments.quick else None
        found[kind].append(measured(corpus, learning_rate, steps, n_cells))
    write_down("tolerance", arguments, found, section)


if __name__ == "__main__":
    main()
