"""Does a closure know how far it is from training? Its estimate of its own error beside the error measured.

    python experiments/tolerance.py [TINYSTORIES.txt] [--quick] [--out DIR]

``reduced.descend(tolerance=0.05)`` corrects reduced dynamics on sampled windows and estimates the relative error of
every weight. Here it runs on four texts beside exact training, in float32: two cuts of TinyStories (without a text, of
`stories`), and two built-in corpora. An estimate below the measured error is a false promise; one far above it ends a
prediction that still holds. Ctrl-C ends it, and nothing is written.
"""

import time

import numpy as np
from running import block, command_line, paragraphs, write_down

from minitx import OneHotWeights, agreement, builtin_corpus, descend, load_corpus
from minitx.associations import reduced
from minitx.base.console import progress_bar
from minitx.base.tables import number

TOLERANCE, EVERY = 0.05, 25
NAMES = ("W_O", "V", "W", "P")
# (text or None for that of the command line, size, learning rate, steps)
RUNS = ((None, {"n_vocab": 400, "length": 32, "n_windows": 1000}, 2.0, 1000),
        (None, {"n_vocab": 200, "length": 16, "n_windows": 1000}, 1.0, 400),
        ("stories", {"n_vocab": 200, "length": 32, "n_windows": 1000}, 1.0, 300),
        ("python-docs", {"n_vocab": 200, "length": 32, "n_windows": 1000}, 1.0, 300))
SMALL = {"n_vocab": 60, "length": 12, "n_windows": 100}


def measured(corpus, learning_rate, steps):
    """What is written down of one text: estimate and error of every weight at the recorded steps."""
    start = OneHotWeights.zeros(len(corpus.vocabulary), corpus.length, dtype=np.float32)
    settings = {"learning_rate": learning_rate, "steps": steps, "keep": range(EVERY, steps + 1, EVERY)}
    times = [time.process_time()]
    run = reduced.descend(start, corpus.batch(), tolerance=TOLERANCE, **settings)
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
            "records": records}


def _row(result):
    estimate, error = (np.array([[float(one[kind][name]) for name in NAMES] for one in result["records"]])
                       for kind in ("estimate", "error"))
    size = result["size"]
    below = (estimate < error).any(axis=1)
    return (f"{result['corpus']}, V = {size['V']}, T = {size['T']}", f"{result['learning_rate']:g}",
            f"{result['taken']} of {result['steps']}", f"{error.max():.2%}", f"{below.sum()} of {len(below)}",
            *(number(value, 2) for value in (estimate / error).mean(axis=0)), number((estimate / error).mean(), 2),
            number(result["seconds"][0] / result["seconds"][1], 2))


def section(results):
    """Markdown of what tolerance.json holds."""
    return paragraphs(
        "## A closure that says how good it is",
        f"`reduced.descend(tolerance={TOLERANCE:g})` beside exact training, 1,000 windows in a full run, float32, "
        f"every {EVERY} steps. `error` is the largest relative error of a weight at a recorded step; `below` the "
        "recorded steps at which an estimate is below the error of its weight (asked: at most one in twenty); then the "
        "estimate over the error, on average over the recorded steps (asked: at most 5 over all weights); `cost` the "
        "processor time of the prediction over that of exact training.",
        block(("text ", "eta", "steps", "error", "below", *NAMES, "all", "cost"), map(_row, results["texts"])))


def main():
    """Predict and train on every text, and write and print the results."""
    arguments = command_line("tolerance", __doc__, quick="small sizes, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    found = []
    for text, size, learning_rate, steps in progress_bar(iterable=RUNS, unit="text"):
        if arguments.quick:
            size, steps = SMALL, 50
        corpus = load_corpus(arguments.text, **size) if text is None and arguments.text else \
            builtin_corpus(text or "stories", **size)
        found.append(measured(corpus, learning_rate, steps))
    write_down("tolerance", arguments, {"texts": found}, section)


if __name__ == "__main__":
    main()
