"""Attention between some tokens, kept over training for the slider of the page.

The context of a last token k holds once every token that is shown and that k ranks (those of its priority graph).

Legend: K tokens in the vocabulary, n tokens that are shown. Row = last token, column = attended token.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.report import rounded
from minitx.model.recording import Run
from minitx.next_token.automaton import Automaton
from minitx.next_token.losses import context_attention

MOST_TOKENS = 16  # that are shown: the last tokens of most samples


def shown_tokens(automaton: Automaton) -> NDArray[np.int64]:
    """The tokens (n,) in which most samples end, ascending."""
    samples = automaton.split.samples
    share = np.bincount(samples.last, samples.share, samples.n_vocab)
    return np.sort(np.argsort(-share, kind="stable")[:min(MOST_TOKENS, len(automaton.split.graphs))])


def contexts_of(automaton: Automaton) -> list[NDArray[np.int64]]:
    """The context of each token that is shown; the token itself comes last."""
    shown, graphs = shown_tokens(automaton), automaton.split.graphs
    return [np.append([token for token in np.intersect1d(shown, graphs[k].tokens) if token != k], k).astype(np.int64)
            for k in shown.tolist()]


def watch(automaton: Automaton) -> Callable[[Any], NDArray[np.float64]]:
    """What gives the attention (n, n) of weights in the contexts of the tokens that are shown."""
    shown, contexts = shown_tokens(automaton), contexts_of(automaton)
    return lambda weights: context_attention(weights, contexts)[:, shown]


def written(automaton: Automaton, runs: dict[str, Run], vocabulary: Sequence[str] | None) -> dict[str, Any] | None:
    """What results.json holds of the maps, with four digits: the ``words`` (n), the recorded ``steps`` (R), attention
    as ``trained``, {mode: (R, n, n)} for the modes that record these steps, and its ``limit`` (n, n), whose last tokens
    for which it is not determined are ``open``. None if nothing was recorded.
    """
    steps = [record.step for record in next(iter(runs.values())).records]
    if not steps:
        return None
    shown = shown_tokens(automaton)
    words = [str(token) if vocabulary is None else vocabulary[token] for token in shown.tolist()]
    limits = [automaton.predict(context) for context in contexts_of(automaton)]
    return {"words": words, "steps": steps,
            "trained": {mode: [rounded(one) for one in run.watched] for mode, run in runs.items()
                        if [record.step for record in run.records] == steps},
            "limit": rounded([limit.p[shown] for limit in limits]),
            "open": [word for word, limit in zip(words, limits, strict=True) if limit.status != "determined"]}
