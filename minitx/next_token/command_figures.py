"""The figures of ``minitx automaton``: priority graphs, training by mode, trained against predicted probabilities."""

import numpy as np

from minitx.base import style
from minitx.next_token import figures as plots

NAMES = ("priority_graphs.png", "training.png", "predictions.png")
LONGEST = 14  # letters of a word in a graph


def figures(result):
    """{file name: (figure, caption)} of a :class:`minitx.next_token.command.Result`."""
    title = style.literal(result.data.name)
    found = {"priority_graphs.png": (_graphs(result, title), "Priority graphs: which tokens win against others, for each last "
                                     "token; the highest SCC that is present is retrieved.")}
    if any(len(run.records) > 1 for run in result.runs.values()):
        found["training.png"] = (_training(result, title), "Correlation with W_svm, distance of the cyclic part to W_fin, norm, "
                                 "and attention to the label's SCC, over training.")
    if result.predictions and result.trained:
        found["predictions.png"] = (_predictions(result, title), "Held-out contexts: trained attention against its limit, by what "
                                    "the samples say of them, and the total variation between the two.")
    return found


def _graphs(result, title):
    """Of the last tokens that most samples end in, in the order of their numbers."""
    share = np.bincount(result.data.samples.last, result.data.samples.share, result.data.samples.n_vocab)
    chosen = sorted(sorted(result.graphs, key=lambda k: (-share[k], k))[:plots.PANELS])
    graphs = {k: result.graphs[k] for k in (*chosen, *(k for k in result.graphs if k not in chosen))}
    names = result.data.vocabulary
    if names is not None:
        names = [name if name.isprintable() else repr(name)[1:-1] for name in names]  # signs that would break a line are escaped
        names = [name if len(name) <= LONGEST else name[:LONGEST - 1] + "…" for name in names]
    return plots.priority_graphs(graphs, names, title=f"Priority graphs: {title}")


def _training(result, title):
    runs = {}
    for mode, run in result.runs.items():
        runs[result.mode_names[mode]] = {name: [getattr(record, name) for record in run.records]
                                         for name in ("step", "norm", "cyclic_distance", "label_mass")}
        runs[result.mode_names[mode]]["correlation_gap"] = [1 - record.correlation for record in run.records]
    return plots.next_token_training(runs, title=f"Training: {title}", has_cycles=result.dim > 0)


def _predictions(result, title):
    trained = {result.mode_names[mode]: p for mode, p in result.trained.items()}
    return plots.next_token_predictions(result.limit, trained, result.status, title=f"Held-out contexts: {title}")
