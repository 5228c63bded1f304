"""The automaton that one attention layer learns: hard retrieval of an SCC, soft composition inside it.

After training, attention of the last token k retrieves from the context the SCC of G(k) that is above all others
present, and mixes its tokens as W_fin says (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, Section 3). The limit where
no SCC is above all others, and how far the data determine it, goes beyond the paper.

Legend: K tokens in the vocabulary, d width, R tokens retrieved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import generator, instance, truth, whole_number
from minitx.base.shown import Shown
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.losses import attention_by_counts
from minitx.next_token.path import Residual, residual
from minitx.next_token.samples import Samples, require_known, shown, token_ids
from minitx.next_token.split import SoftComponent, Split, soft_component
from minitx.next_token.svm import GraphSVM, graph_svm

STATUSES = ("determined", "extrapolated", "tied", "unseen")
_TIE = 1e-8  # scores this close, beside 1 or the largest of them, tie

_REFUSED = {
    "extrapolated": "no SCC is above all others present, and only the least norm of W_svm tells them apart "
                    "(gap {gap:.3g})",
    "tied": "SCCs tie: W_svm + W_fin do not determine how they share the attention",
    "unseen": "no sample ends in token {last}",
}


@dataclass(frozen=True, eq=False)
class Prediction(Shown):
    """The limit of trained attention on one context.

    The status is "determined" where one SCC is above all others present; "extrapolated" where none is, but one has the
    largest score of W_svm; "tied" where several have the largest score; "unseen" where no sample ends in this last
    token, so that W_svm extrapolates, or says nothing. The gap is the score of W_svm by which what is retrieved leads
    over the rest: at least 1 (but for rounding) where determined, of any size elsewhere.
    """

    p: NDArray[np.float64]  # (K,): probability of each token to follow
    status: str  # one of ``STATUSES``
    gap: float | None  # None where everything is retrieved
    retrieved: NDArray[np.int64]  # (R,): tokens of the context that are retrieved, ascending
    component: NDArray[np.int64]  # (R,): number of the SCC of each in the graph of the last token; -1 if it has none


@dataclass(frozen=True, eq=False)
class Automaton(Shown):
    """What attention trained on some samples becomes; ``Automaton.fit`` makes it."""

    MADE_BY: ClassVar[str] = "Automaton.fit(samples)"

    split: Split  # of the samples
    svm: GraphSVM  # W_svm
    soft: SoftComponent  # W_fin

    @classmethod
    def fit(cls, samples: Samples, E: NDArray | None = None) -> Automaton:
        """The automaton of ``samples``; ``E`` (K, d) are embeddings of any length, row = token (default: one-hot).

        Raises InfeasibleError if no weights retrieve what the samples ask for, and TypeError or ValueError if
        embeddings are not real, not (K, d), or not finite.
        """
        instance("samples", samples, Samples)
        split = Split(samples, priority_graphs(samples), E)
        return cls(split, graph_svm(split.graphs, split.embeddings), soft_component(split))

    @cached_property
    def residual(self) -> Residual:
        """rho, which decides ties along the regularisation path."""
        return residual(self.split, self.svm.W, self.soft.W)

    @cached_property
    def _scores(self):
        """Scores of W_svm, and of W_fin: row = attended token, column = last token. Two (K, K)"""
        return self.split.scores(self.svm.W), self.split.scores(self.soft.W)

    @cached_property
    def _path_scores(self):
        """Scores of W_fin + rho."""
        return self._scores[1] + self.split.scores(self.residual.W)

    def predict(self, context: ArrayLike, *, strict: bool = False, path: bool = False) -> Prediction:
        """The limit of trained attention on a context.

        Parameters
        ----------
        context : (length,) integers
            Token ids; the last one is the query.
        strict : bool
            Raise unless the status is "determined".
        path : bool
            Let SCCs that tie share the attention as W_fin + rho says, which is the limit of the regularisation path.
            The shares of gradient descent may differ, because they depend on where it began. Default: as W_fin alone
            says.

        Raises ValueError if the context is empty or not one-dimensional, or has ids that are not integers in [0, K);
        with ``strict``, if the data do not determine the limit; with ``path``, if rho diverges at a tie.
        """
        truth("strict", strict)
        truth("path", path)
        ids, n_vocab = token_ids("context", context), self.split.samples.n_vocab
        require_known("the context holds", ids, n_vocab)
        k, (tokens, counts) = int(ids[-1]), np.unique(ids, return_counts=True)
        graph, scores = self.split.graphs.get(k), self._scores[0][tokens, k]
        component = np.array([-1 if graph is None else graph.component_of(token) for token in tokens.tolist()])
        status, chosen = _retrieve(graph, component, scores)
        gap = None if chosen.all() else float(scores[chosen].min() - scores[~chosen].max())
        named = shown(np.asarray(context))
        if strict and status != "determined":
            raise ValueError(f"context {named} is {status}: {_REFUSED[status].format(gap=gap, last=k)}; strict=False "
                             "returns the limit all the same")
        if path and status == "tied" and k in self.residual.diverging:
            raise ValueError(f"context {named} is tied, and rho diverges for last token {k} (the Graph-SVM has a "
                             "multiplier of 0): leave path out")
        mix = (self._path_scores if path and status == "tied" else self._scores[1])[tokens[chosen], k]
        p = np.zeros(n_vocab)
        p[tokens[chosen]] = attention_by_counts(counts[chosen], mix)
        return Prediction(p, status, gap, tokens[chosen], component[chosen])

    def generate(self, context: ArrayLike, length: int, *, rng: int | np.random.Generator | None = None,
                 strict: bool = False) -> NDArray[np.int64]:
        """Draw tokens that follow a context, each from the prediction for all that is before it. (length,)

        A token that was drawn may be one that no sample ends in. The next token is then "unseen": W_svm extrapolates,
        and with one-hot embeddings each token before is drawn in proportion to how often it occurs. ``strict`` refuses
        this: it raises at the first prediction that is not determined. Raises as :meth:`predict`; ValueError also if
        the length is not a whole number.
        """
        length, rng = whole_number("length", length, 0), generator(rng)
        truth("strict", strict)
        text = list(token_ids("context", context))
        for _ in range(length):
            p = self.predict(text, strict=strict).p
            text.append(int(rng.choice(len(p), p=p)))
        return np.array(text[len(text) - length:], np.int64)


def _retrieve(graph, component, scores):
    """(status, which tokens are retrieved) of the distinct tokens of a context, their SCCs and their scores."""
    tied = scores >= scores.max() - _TIE * max(1.0, np.abs(scores).max())
    if graph is None:
        return "unseen", tied
    if component.min() >= 0:
        top = component.min()  # the numbers are topological: no other one can be above all others
        if graph.reach[top, np.unique(component[component != top])].all():
            return "determined", component == top
    chosen = tied | np.isin(component, component[tied & (component >= 0)])
    n_sccs = len(np.unique(component[chosen & (component >= 0)])) + (chosen & (component < 0)).sum()
    return ("extrapolated" if n_sccs == 1 else "tied"), chosen
