"""Figures of ``minitx topics`` with a text, each from its result (:class:`minitx.topics.command_text.Result`)."""

from typing import Any

import numpy as np

from minitx.base import style
from minitx.topics import figures as plots
from minitx.topics import training
from minitx.topics.snapshots import attention_over_uniform

NAMES = ("cosines.png", "attention.png", "permutations.png", "cosines_training.png", "attention_training.png")
MOST_WORDS = 80  # words of a heat map, at most


def figures(result: Any) -> dict[str, tuple[Any, str]]:
    """{file name: (figure, caption)}; those of attention only if it was trained."""
    title = style.literal(result.corpus.name)
    found = {"cosines.png": _cosines(result, title)}
    if "attention" in result.stages:
        found["attention.png"] = _attention(result, title)
    tests = {name: (test.null, test.difference, test.p_value) for name, test in result.tests.items()
             if name != "embedding products"}  # a row of three: products look like cosines
    found["permutations.png"] = (
        plots.permutation_histogram(tests, title=f"{title}: words of one topic against words of different topics",
                                    xlabel="same topic minus different topic"),
        "Same topic minus different topic, observed and with the topics of the words shuffled. The table has the inner "
        "products as well.")
    for name, stage, part, label in (("cosines", "embeddings", "cosine", "cosine of embeddings"),
                                     ("attention", "attention", "attention", "attention × length (1: uniform)")):
        if stage in result.stages and result.stages[stage].records:
            found[f"{name}_training.png"] = _training(result.stages[stage], part, label, title)
    return found


def _heat_map(result, matrix, **labels):
    """Entries of ``matrix`` (V, V) between the most probable words of each topic, which is named by its first two."""
    groups = {topic: words for topic, words in enumerate(result.topics.words) if words}
    token = {word: index + 1 for index, word in enumerate(result.corpus.vocabulary)}
    most = max(2, MOST_WORDS // len(groups))
    tokens = np.array([token[word] for words in groups.values() for word in words[:most]])
    return plots.topic_heat_maps({"the most probable words of each topic": matrix[np.ix_(tokens, tokens)]},
                                 result.topics.of_token[tokens], **labels,
                                 names={topic: ", ".join(words[:2]) for topic, words in groups.items()})


def _cosines(result, title):
    figure = _heat_map(result, result.tables["embedding cosines"].total, row_label="word", column_label="word",
                       value_label="cosine", title=f"{title}: cosines of the trained embeddings")
    return figure, ("Cosines of the trained embeddings, words grouped by topic; a topic is named by its two most "
                    "probable words.")


def _attention(result, title):
    """In a document that holds every word as often as the text does, so that every pair of words has a value."""
    frequency = np.bincount(result.corpus.tokens.ravel() + 1, minlength=len(result.topics.of_token))
    figure = _heat_map(result, attention_over_uniform(result.last.weights, frequency), row_label="attending word",
                       column_label="attended word", title=f"{title}: trained attention",
                       value_label="log2 of attention over uniform attention, 0: uniform")
    return figure, ("Trained attention in a document that has the word frequencies of the whole text, words grouped by "
                    "topic; +1: twice, −1: half of uniform attention.")


def _training(run, part, label, title):
    steps, measured = training.over_seeds([run], part)
    shown = {pairs: values for pairs, values in measured.items() if not (values[0] == 1).all()}
    figure = plots.block_values(steps, shown, ylabel=label, title=f"{title}: averages over pairs of words")
    return figure, f"Average over training, by class of word pair: {label}."
