"""Local convergence: training that settles on other tokens than the label's SCC, and the Graph-SVM of these tokens.

The losses are not convex in general, so attention may end on a token that is not the label. The direction of W is then
that of a local Graph-SVM, in whose graphs the tokens attended to take the label's place (Li et al., AISTATS 2024).

Legend: n samples, d width, M distinct tokens of all sequences together.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import instance, positive, whole_number
from minitx.base.numbers import cosine, norm
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.model.descent import Trajectory
from minitx.model.parameters import read_only
from minitx.model.weights import LastTokenWeights
from minitx.next_token import kernels
from minitx.next_token.graphs import PriorityGraph
from minitx.next_token.losses import attention, from_scores, loss_and_gradient, to_scores
from minitx.next_token.samples import Samples
from minitx.next_token.split import cyclic_subspace
from minitx.next_token.svm import GraphSVM, graph_svm
from minitx.next_token.training import descend_W

SELECTED = 1e-2  # a token with more attention than this is selected (the paper's published code)
LEFT_OUT = 9e-3  # a token with more than this, but not selected, is left out of the graphs


@dataclass(frozen=True, eq=False)
class Selection(Shown):
    """The tokens that attention has settled on."""

    samples: Samples
    selected: NDArray[np.bool_]  # (M,) which of samples.tokens hold more than SELECTED of their sample's attention
    left_out: NDArray[np.bool_]  # (M,) which hold more than LEFT_OUT but are not selected; the graphs do not have them
    graphs: dict[int, PriorityGraph]  # of each last token: edges from selected tokens of a sample to its other tokens

    @classmethod
    def of(cls, weights: LastTokenWeights, samples: Samples) -> "Selection":
        """The selection of ``weights`` on ``samples``."""
        P, owner = attention(weights, samples), samples.owner()
        selected, left_out = P > SELECTED, (P > LEFT_OUT) & (P <= SELECTED)
        graphs = {}
        for k in np.unique(samples.last).tolist():
            parts = [slice(*samples.starts[i:i + 2]) for i in np.flatnonzero(samples.last == k)]
            edges = [(c, j) for part in parts for c in samples.tokens[part][selected[part]]
                     for j in samples.tokens[part][~left_out[part]]]
            graphs[k] = PriorityGraph.of(k, samples.tokens[(samples.last[owner] == k) & ~left_out], edges)
        return cls(samples, selected, left_out, graphs)

    def tokens(self) -> list[NDArray[np.int64]]:
        """The selected tokens of each sample: n ascending arrays."""
        return [self.samples.tokens[a:b][self.selected[a:b]]
                for a, b in zip(self.samples.starts[:-1], self.samples.starts[1:], strict=True)]

    @cached_property
    def _leaking(self):
        """(starts of the samples, which tokens count); none count in a sample of which nothing is selected."""
        some = np.add.reduceat(self.selected, self.samples.starts[:-1], dtype=int) > 0
        counted = ~self.left_out & some[self.samples.owner()]
        return np.append(0, np.cumsum(counted))[self.samples.starts], counted

    def leakage_gradient(self, weights: LastTokenWeights) -> NDArray[np.float64]:
        """Gradient in W of log(leakage), leakage = sum_i share_i log(1 + mass not selected / mass selected). (d, d)"""
        samples, (starts, counted) = self.samples, self._leaking
        scores = read_only(np.ascontiguousarray(to_scores(weights.W, weights.E), np.float64))
        d_scores = np.zeros_like(scores)
        kernels.excess(starts, samples.tokens[counted], samples.counts[counted], self.selected[counted], samples.last,
                       samples.share, scores, d_scores)
        return from_scores(d_scores, weights.E)


@dataclass(frozen=True, eq=False)
class LocalRun(Shown):
    """A training run, the tokens it settled on, and the Graph-SVM of these."""

    trajectory: Trajectory
    weights: LastTokenWeights  # the trained ones
    selection: Selection
    svm: GraphSVM
    correlation: float  # cosine of the trained W and the W_svm of the selection; nan where one of them is 0


@one_blas_thread()
def train_local(start: LastTokenWeights, samples: Samples, *, learning_rate: float = 0.1, steps: int = 2000,
                loss: str = "tied", until: int | None = None) -> LocalRun:
    """Normalised descent, then the local Graph-SVM: the procedure of the paper's published code.

    With ``until`` the errors are far smaller after the same number of gradients; this goes beyond the paper:

    1. Normalised descent takes ``until`` steps; the selection is made there. If it stops before, so does the training.
    2. Outside S_fin of the selection's graphs, steps of length 1 lower log(leakage) (``Selection.leakage_gradient``),
       whose gradient does not vanish with the leakage. Inside S_fin, steps of ``learning_rate`` times the gradient
       lower the loss.

    ``until`` is a step such as 300; the other settings are those of :func:`minitx.next_token.training.train`. Raises
    ValueError for settings out of range, and InfeasibleError when no weights retrieve what was selected.
    """
    instance("start", start, LastTokenWeights)
    instance("samples", samples, Samples)
    steps = whole_number("steps", steps, 0 if until is None else 1)
    first_steps = steps if until is None else min(whole_number("until", until, 1), steps)
    E = np.eye(start.n_vocab) if start.E is None else start.E
    run = descend_W(start, samples, partial(loss_and_gradient, loss=loss), steps=first_steps, normalised=True,
                    learning_rate=positive("learning_rate", learning_rate))
    if until is not None and not run.stopped:
        objective = _split_objective(Selection.of(run.weights, samples), E, learning_rate, loss)
        second = descend_W(run.weights, samples, objective, learning_rate=1.0, steps=steps - first_steps)
        stopped = second.stopped
        if stopped:
            message = f"{stopped} (counted from step {first_steps}, where the selection was made)"
            stopped = replace(stopped, step=first_steps + stopped.step, message=message)
        losses = np.append(run.loss[:-1], second.loss)
        run = replace(second, loss=losses, learning_rate=learning_rate, stopped=stopped)
    selection = Selection.of(run.weights, samples)
    svm = graph_svm(selection.graphs, E)
    return LocalRun(run, run.weights, selection, svm, cosine(run.weights.W, svm.W))


def _split_objective(selection, E, learning_rate, loss):
    """The objective of stage 2; its gradient is the whole change of W."""
    subspace = cyclic_subspace(selection.graphs, E)

    def objective(weights, samples):
        value, gradient = loss_and_gradient(weights, samples, loss)
        outside = subspace.rest(selection.leakage_gradient(weights))
        size = norm(outside)
        change = learning_rate * subspace.project(gradient.W) + (outside / size if size else outside)
        return value, replace(gradient, W=change.astype(weights.W.dtype, copy=False))

    return objective
