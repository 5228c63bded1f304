"""Maps between some words of every topic, kept over training for the slider of the page.

Legend: V tokens, n words that are shown. Row = output, left or attending word; column = attended or right word.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.report import rounded
from minitx.model.weights import EmbeddedWeights

MOST_WORDS = 24  # words of a map, as near as topics of equal numbers of words come to it


def words_of(topics: Sequence[Any]) -> NDArray[np.int64]:
    """The tokens that are shown: the first ones of each topic, as many of each; of many topics, the first ones."""
    topics = [topic for topic in topics if len(topic)][:MOST_WORDS]
    each = max(1, MOST_WORDS // max(1, len(topics)))
    return np.array([token for topic in topics for token in topic[:each]], np.int64)


def attention_over_uniform(weights: EmbeddedWeights, frequency: NDArray[np.float64] | None = None
                           ) -> NDArray[np.float64]:
    """log2 of attention over uniform attention, (V, V), in a document that holds every token as often as ``frequency``.

    0 is uniform attention, 1 twice as much. By default the document holds every word once, and no [MASK], token 0.
    """
    scores = np.array(weights.circuits().qk, np.float64)
    frequency = np.r_[0.0, np.ones(len(scores) - 1)] if frequency is None else frequency
    scores -= scores.max(axis=1, keepdims=True)
    uniform = np.log(np.sum(np.exp(scores) * (frequency / frequency.sum()), axis=1, keepdims=True))
    return (scores - uniform) / np.log(2)


def watch(of: Callable[[EmbeddedWeights], Any], tokens: NDArray[np.int64]
          ) -> Callable[[EmbeddedWeights], NDArray[np.float64]]:
    """The entries (n, n) between the n ``tokens`` that are shown, of the map (V, V) that ``of(weights)`` gives."""
    return lambda weights: np.asarray(of(weights))[np.ix_(tokens, tokens)]


def written(words: Sequence[str], watched: Sequence[NDArray],
            predicted: NDArray | None = None) -> dict[str, Any] | None:
    """What results.json holds of the maps, with four digits: ``words`` (n), ``trained`` (R, n, n) at each recorded
    step, and what is ``predicted`` (n, n) by theory, or null. None if nothing was recorded.
    """
    if not watched:
        return None
    return {"words": list(words), "trained": [rounded(one) for one in watched],
            "predicted": None if predicted is None else rounded(predicted)}
