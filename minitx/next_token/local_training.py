"""Local convergence: training that settles on tokens other than the label's SCC, and the Graph-SVM of what it settled on.

With a loss that is not convex, attention may end on a token that is not the label; its direction is then that of a local Graph-SVM,
in whose graphs the tokens attended to take the label's place (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024).

Legend: n samples, d width, M distinct tokens of all sequences together.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from minitx.base.checks import positive, whole_number
from minitx.base.numbers import cosine, norm
from minitx.base.parallel import one_blas_thread
from minitx.model.descent import Trajectory, descend
from minitx.model.parameters import read_only
from minitx.next_token import kernels
from minitx.next_token.graphs import PriorityGraph
from minitx.next_token.losses import attention, from_scores, loss_and_gradient, to_scores
from minitx.next_token.split import cyclic_subspace
from minitx.next_token.svm import GraphSVM, graph_svm

SELECTED = 1e-2  # attention above which a token is selected, and
LEFT_OUT = 9e-3  # above which it is left out of the graphs, being neither (the paper's published code)


@dataclass(frozen=True, eq=False)
class Selection:
    """What attention has settled on.

    Attributes
    ----------
    selected : (M,) bool
        Which of ``samples.tokens`` hold more than 1e-2 of their sample's attention.
    left_out : (M,) bool
        Which hold more than 9e-3, but are not selected: they do not enter the graphs.
    graphs : dict {k: PriorityGraph}
        With an edge from each selected token of a sample to each other token of it.
    """

    samples: object
    selected: np.ndarray
    left_out: np.ndarray
    graphs: dict

    @classmethod
    def of(cls, weights, samples):
        """That of ``weights`` (LastTokenWeights) on ``samples``."""
        P, owner = attention(weights, samples), samples.owner()
        selected, left_out = P > SELECTED, (P > LEFT_OUT) & (P <= SELECTED)
        graphs = {}
        for k in np.unique(samples.last).tolist():
            parts = [slice(*samples.starts[i:i + 2]) for i in np.flatnonzero(samples.last == k)]
            edges = [(c, j) for part in parts for c in samples.tokens[part][selected[part]]
                     for j in samples.tokens[part][~left_out[part]]]
            tokens = samples.tokens[(samples.last[owner] == k) & ~left_out]
            graphs[k] = PriorityGraph.of(k, tokens, edges)
        return cls(samples, selected, left_out, graphs)

    def tokens(self):
        """The selected tokens of each sample: list of n ascending arrays."""
        return [self.samples.tokens[a:b][self.selected[a:b]]
                for a, b in zip(self.samples.starts[:-1], self.samples.starts[1:], strict=True)]


@dataclass(frozen=True, eq=False)
class LocalRun:
    """Training, what it settled on, and the Graph-SVM of that."""

    trajectory: Trajectory
    selection: Selection
    svm: GraphSVM
    correlation: float  # cosine of the trained W and the W_svm of the selection; nan where one of them is 0

    @property
    def weights(self):
        """The trained weights."""
        return self.trajectory.weights


@one_blas_thread()
def train_local(start, samples, *, learning_rate=0.1, steps=2000, loss="tied"):
    """Normalised descent, then the local Graph-SVM: the procedure of the paper's published code.

    Parameters
    ----------
    start : LastTokenWeights
        Without C.
    samples : Samples
    learning_rate, steps, loss
        As for :func:`minitx.next_token.training.train`.

    Returns
    -------
    LocalRun

    Raises
    ------
    ValueError
        Settings that cannot be; InfeasibleError when no weights retrieve what was selected.
    """
    return _report(samples, _normalised_descent(start, samples, learning_rate, steps, loss))


@one_blas_thread()
def train_local_split(start, samples, *, learning_rate=0.1, steps=2000, loss="tied", until=300):
    """The same to much smaller errors at the same number of gradients; beyond the paper.

    Normalised descent for ``until`` steps, where the selection is made. From there on, steps of length 1 outside S_fin of its
    graphs lower the logarithm of the leakage, sum_i share_i log(1 + mass not selected / mass selected), whose gradient does not
    vanish with it; inside S_fin, steps of ``learning_rate`` times the gradient of the loss.

    Where the descent stops before that, it is all there is. Parameters, returns and raises: as :func:`train_local`.
    """
    until = min(whole_number("until", until, 1), whole_number("steps", steps, 1))
    first = _normalised_descent(start, samples, learning_rate, until, loss)
    if first.stopped:
        return _report(samples, first)
    selection, E = Selection.of(first.weights, samples), start.E
    subspace = cyclic_subspace(selection.graphs, np.eye(start.n_vocab) if E is None else E)
    leaking = _Leakage.of(selection)

    def step(weights, _):
        value, gradient = loss_and_gradient(weights, samples, loss)
        outside = subspace.rest(leaking.gradient(weights))
        size = norm(outside)
        change = learning_rate * subspace.project(gradient.W) + (outside / size if size else outside)
        return value, replace(gradient, W=change.astype(weights.W.dtype, copy=False))

    second = descend(first.weights, samples, learning_rate=1.0, steps=steps - until, frozen=_fixed(start), loss_and_gradient=step)
    stopped = second.stopped and replace(second.stopped, step=until + second.stopped.step,
                                         message=f"{second.stopped} (counted from step {until}, where the selection was made)")
    both = replace(second, loss=np.append(first.loss[:-1], second.loss), learning_rate=learning_rate, stopped=stopped)
    return _report(samples, both)


def _normalised_descent(start, samples, learning_rate, steps, loss):
    return descend(start, samples, learning_rate=positive("learning_rate", learning_rate), steps=steps, normalised=True,
                   frozen=_fixed(start), loss_and_gradient=partial(loss_and_gradient, loss=loss))


def _fixed(start):
    return tuple(name for name in start.parameters() if name != "W")


def _report(samples, trajectory):
    weights = trajectory.weights
    selection = Selection.of(weights, samples)
    svm = graph_svm(selection.graphs, np.eye(weights.n_vocab) if weights.E is None else weights.E)
    return LocalRun(trajectory, selection, svm, cosine(weights.W, svm.W))


@dataclass(frozen=True, eq=False)
class _Leakage:
    """The samples without what is left out, and those of which nothing is selected, for kernels.excess: inside is selected."""

    selection: Selection
    starts: np.ndarray
    kept: np.ndarray  # (M,) bool

    @classmethod
    def of(cls, selection):
        samples = selection.samples
        some = np.add.reduceat(selection.selected, samples.starts[:-1], dtype=int) > 0
        kept = ~selection.left_out & some[samples.owner()]
        return cls(selection, np.append(0, np.cumsum(kept))[samples.starts], kept)

    def gradient(self, weights):
        """Of the logarithm of the leakage, in W. (d, d)"""
        samples, kept, E = self.selection.samples, self.kept, weights.E
        scores = read_only(np.ascontiguousarray(to_scores(weights.W, E), np.float64))
        d_scores = np.zeros_like(scores)
        kernels.excess(self.starts, samples.tokens[kept], samples.counts[kept], self.selection.selected[kept], samples.last,
                       samples.share, scores, d_scores)
        return from_scores(d_scores, E)
