"""The one-layer version of Table 1 and Figures 4 and 5 of Im, Oh, Fang, Li (ICLR 2026), beside the paper's numbers.

    python experiments/associations.py [TINYSTORIES.txt] [--quick] [--out DIR]

The paper trains three layers on 65,536 stories for 3,200 steps; here one layer is trained on as many windows as fit in five
minutes on two cores, at the paper's vocabulary, window length and training time s eta, with mini-batches, in float32. Without a
text it runs on the `stories` corpus, whose true associations are known.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

from minitx import OneHotWeights, associations, builtin_corpus, descend, load_corpus
from minitx.associations import figures as plots
from minitx.associations import leading as leading_terms
from minitx.associations import words
from minitx.base import style
from minitx.base.checks import output_folder
from minitx.base.report import environment, write_json
from minitx.data.stories import STORY_CLASSES, STORY_COMPANIONS

# s eta at the end of the paper's runs (3,200 steps at 0.005 and at 0.05) and after 30 of the 100 epochs
SMALL, LARGE, EARLY = 16.0, 160.0, 48.0
PAPER_TABLE_1 = {"W": 0.999496, "V": 0.999169, "W_O": 0.998486}
NAMES = {"W": "attention", "V": "value", "W_O": "output", "P": "position"}
WORDS = ("red", "fish", "happy")


def train(batch, statistics, *, time, steps, batch_size):
    """Train to s eta = ``time``; records of how the weights stand beside their leading terms, and the loss of every step."""
    eta = time / steps
    at = {round(steps * tenth / 10) for tenth in range(1, 11)} | {round(steps * EARLY / LARGE)}
    records = []

    def record(step, loss, weights, gradient):
        if step in at and step > 0:
            leading = associations.leading_weights(statistics, steps=step, learning_rate=eta)
            bounds = associations.bounds(steps=step, learning_rate=eta, length=batch.tokens.shape[1], n_vocab=statistics.n_vocab)
            records.append(leading_terms.beside(weights, leading, bounds, step=step, loss=loss))

    start = OneHotWeights.zeros(statistics.n_vocab, batch.tokens.shape[1], dtype=np.float32)
    run = descend(start, batch, learning_rate=eta, steps=steps, batch_size=batch_size, rng=0, callback=record)
    if run.stopped:
        raise SystemExit(f"training ended early: {run.stopped}")
    return records, run


def print_runs(small, large, steps):
    """Table 1 and the claims of Figure 4, the paper's numbers beside ours."""
    print(f"\nTable 1: lowest cosine with the leading term over training, s eta up to {SMALL:g}")
    print(f"{'':12}{'paper, 3 layers':>18}{'here, 1 layer':>18}")
    for name, label in NAMES.items():
        paper = f"{PAPER_TABLE_1[name]:.6f}" if name in PAPER_TABLE_1 else "-"
        print(f"{label:12}{paper:>18}{np.nanmin([record.cosine[name] for record in small[0]]):18.6f}")
    early = next(record for record in large[0] if record.step == round(steps * EARLY / LARGE))
    print(f"\nFigure 4: ten times the learning rate, s eta up to {LARGE:g}")
    print(f"{'cosine at':12}{f's eta = {EARLY:g}':>18}{f's eta = {LARGE:g}':>18}")
    print(f"{'paper, all':12}{'>= 0.9':>18}{'> 0.7':>18}")
    for name, label in NAMES.items():
        print(f"{label:12}{early.cosine[name]:18.4f}{large[0][-1].cosine[name]:18.4f}")
    print(f"{'loss':12}{early.loss:18.3f}{large[0][-1].loss:18.3f}   from {large[1].loss[0]:.3f} (paper, 3 layers: 8.00 to 5.35)")


def print_words(corpus, similarity):
    """Figure 5: the strongest associates; on `stories`, how many of them are true."""
    print("\nFigure 5: strongest associates (paper: red -> truck, ball; fish -> pond, lake; happy -> sad, excited)")
    listed = {word: {function: words.associates(scores, corpus, word, k=10) for function, scores in similarity.items()}
              for word in WORDS if word in corpus.vocabulary}
    for word, functions in listed.items():
        for function, strongest in functions.items():
            print(f"{word:>8}  {function:18}  " + " ".join(other for other, _ in strongest))
    return listed


def print_precision(corpus, statistics, similarity):
    """Share of true associates among the ten strongest, for the reading of words.py and for the raw rows."""
    classes = {word: set(members) for members in STORY_CLASSES.values() for word in members}
    print("\nprecision at 10 on the known truth of `stories` (words scored)")
    precision = {}
    for function, truth, meaning in (("interchangeability", classes, "same class"), ("context", STORY_COMPANIONS, "companions")):
        for reading, scores in (("scale-free", similarity[function]), ("raw row", getattr(statistics, function))):
            value, n_words = words.precision(scores, corpus, truth)
            precision[f"{function}, {reading}"] = value
            print(f"  {function:18} {meaning:11} {reading:10} {value:6.3f} ({n_words})")
    return precision


def draw_associates(listed, *, title):
    """Bars of the strongest associates: a row of panels a word, a column a basis function.

    Parameters
    ----------
    listed : dict {word: {function: [(associate, score)]}}
        As from :func:`minitx.associations.words.associates`.
    """
    functions = list(next(iter(listed.values())))
    figure = Figure(figsize=(3.4 * len(functions), 2.6 * len(listed) + 0.6), layout="constrained")
    panels = figure.subplots(len(listed), len(functions), squeeze=False)
    for row, (word, by_function) in zip(panels, listed.items(), strict=True):
        for axes, (function, strongest), colour in zip(row, by_function.items(), style.COLOURS, strict=False):
            names, scores = [name for name, _ in strongest], [score for _, score in strongest]
            axes.barh(range(len(names)), scores, color=colour)
            axes.set_yticks(range(len(names)), map(style.tick_label, names), fontsize=9)
            axes.invert_yaxis()
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 2))
            axes.set_title(style.literal(f"{word}: {function}"), fontsize=10)
    for axes, function in zip(panels[-1], functions, strict=True):
        axes.set_xlabel("entry of B" if function == "bigram" else "cosine")
    figure.suptitle(title)
    return figure


def main():
    """Run, print, write figures and ``associations.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="TinyStories, one story a line; without it the `stories` corpus")
    parser.add_argument("--quick", action="store_true", help="small sizes, in seconds")
    parser.add_argument("--out", default="results/associations", metavar="DIR")
    arguments = parser.parse_args()
    folder = output_folder(arguments.out)
    n_vocab, length, n_windows = (300, 32, 64) if arguments.quick else (3000, 200, 1024)
    size = {"n_vocab": n_vocab, "length": length, "n_windows": n_windows}
    steps, batch_size = (20, 32) if arguments.quick else (50, 256)
    corpus = load_corpus(arguments.text, **size) if arguments.text else builtin_corpus("stories", n_documents=2048, **size)
    print(corpus.summary())
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    statistics = associations.statistics(batch, n_vocab)
    runs = {time: train(batch, statistics, time=time, steps=steps, batch_size=batch_size) for time in (SMALL, LARGE)}
    print_runs(runs[SMALL], runs[LARGE], steps)
    similarity = words.similarity(statistics)
    listed = print_words(corpus, similarity)
    precision = {} if arguments.text else print_precision(corpus, statistics, similarity)
    for time, (records, run) in runs.items():
        cosine = {name: [record.cosine[name] for record in records] for name in plots.PARAMETERS}
        figure = plots.theories([record.step for record in records], {"leading terms": cosine}, run.loss, {},
                                title=f"{corpus.name}, one layer: $\\eta$ = {run.learning_rate:.3g}, $s\\,\\eta$ up to {time:g}")
        style.save(figure, folder / f"figure4-{time:g}.png")
    if listed:
        style.save(draw_associates(listed, title=f"strongest associates in {corpus.name}"), folder / "figure5.png")
    write_json(folder / "associations.json", {"environment": environment(), "corpus": corpus.summary().splitlines(), "steps": steps,
               "batch_size": batch_size, "records": {time: records for time, (records, _) in runs.items()},
               "associates": listed, "precision": precision})
    print(f"\nwritten to {folder}/")


if __name__ == "__main__":
    main()
