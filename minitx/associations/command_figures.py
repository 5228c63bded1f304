"""The figures of ``minitx associate``: agreement and terms over training, and the basis functions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from minitx.associations import figures, tables, terms
from minitx.associations.basis import Statistics
from minitx.associations.command_training import LEADING, REDUCED, REFERENCE, Recorder
from minitx.base import style

HEAT_MAP_WORDS = 40
# {basis function: (what a row is, what a column is, what to look for)}
BASIS_FUNCTIONS = {
    "bigram": (
        "current token", "next token",
        "Red: the word of the column follows the word of the row more often than 1 in V; blue: less often. Look for "
        "the few red entries of a row, the usual successors of its word."),
    "interchangeability": (
        "token", "token",
        "Red: the two words follow the same words. Look for groups of words that are red with each other: they can "
        "take each other's place."),
    "context": (
        "next token", "token of its context",
        "Red: the word of the column occurs more often before the word of the row than before the average word. Look "
        "for words of one subject."),
    "attention": (
        "query (current) token", "key (attended) token",
        "Red: training first makes the word of the row attend more to the word of the column; blue: less. Look for the "
        "columns that are red in most rows: to attend to these words lowers the loss first.")}


def training_figures(recorder: Recorder, loss: NDArray[np.float64], crossings: terms.Crossings,
                     title: str) -> dict[str, tuple[Figure, str]]:
    """{file name: (figure, caption)} of what was recorded over training."""
    if not recorder.leading:
        return {}
    steps, norms = recorder.terms.steps, recorder.terms.norms
    cosines = {LEADING: _lowest(recorder.leading)}
    predicted = {}
    if recorder.predicted_loss:
        cosines |= {name: _lowest(recorder.predicted[key]) for name, key in ((REDUCED, "reduced"),
                                                                          (REFERENCE, "reference"))
                    if key in recorder.predicted}
        predicted[recorder.walked] = recorder.predicted_loss
    return {
        "cosines.png": (
            figures.theories(steps, cosines, loss, predicted, title=title),
            "How well each theory predicts the trained weights (of several layers: the lowest cosine), and the loss, "
            "over training. Look for the step at which a line leaves the top of its panel (cosine 1): up to there the "
            "theory predicts that weight."),
        "gradient_terms.png": (
            figures.gradient_terms(steps, norms, title=title),
            "Size of every term of the exact gradient over training. Look for the step at which a correction crosses "
            "the leading term: from there on the leading term alone does not describe training."),
        "corrections.png": (
            figures.corrections(steps, norms, crossings, title=title),
            "Every correction as a share of the leading term. Rings mark where it first exceeds 1%, 10% and 50%. Look "
            "for the line with the leftmost rings: that correction ends the leading terms.")}


def _lowest(records):
    """{parameter: the cosine at each step, of several layers the lowest}; nan where there is none."""
    names = [layer for record in records if record for layer in record.cosine]
    kinds = {kind: {name for name in names if name.split()[0] == kind} for kind in tables.PARAMETERS}
    return {kind: [np.min([record.cosine[name] for name in of_kind]) if record else np.nan for record in records]
            for kind, of_kind in kinds.items() if of_kind}


def basis_figures(basis: Statistics, vocabulary: Sequence[str]) -> dict[str, tuple[Figure, str]]:
    """{file name: (heat map, caption)} of the basis functions over the most frequent tokens."""
    frequent = np.argsort(-basis.frequency, kind="stable")[:HEAT_MAP_WORDS]
    labels = [style.tick_label(vocabulary[token], named=True) for token in frequent]
    return {f"{name}.png": (figures.heat_map(getattr(basis, name)[np.ix_(frequent, frequent)], labels, row, column,
                                             title=f"{name} function, {len(frequent)} most frequent tokens"), caption)
            for name, (row, column, caption) in BASIS_FUNCTIONS.items() if getattr(basis, name) is not None}
