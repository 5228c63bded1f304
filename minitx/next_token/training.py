"""Training the last token's attention, and what the theory has to say about it, recorded on the way.

Legend: n samples, K tokens in the vocabulary, d width, R recorded steps; S_fin the cyclic subspace.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from minitx.base.checks import positive, whole_number
from minitx.base.numbers import cosine, norm
from minitx.base.parallel import one_blas_thread
from minitx.model.descent import Run, Stopped, Trajectory, descend
from minitx.model.weights import LastTokenWeights
from minitx.next_token.losses import attention, loss_and_gradient
from minitx.next_token.path import split_path

FAITHFUL = {"descent": 1.0, "normalised": 0.01}  # modes of the paper, and their usual learning rates
TOLD = {"split": 1.0, "accelerated": 1.0, "path": None}  # modes that are told the SCCs of the data
MODES = (*FAITHFUL, *TOLD)
LONGEST_PATH = 100  # steps of ``path``: rounding ends it long before, but where there is nothing to retrieve


@dataclass(frozen=True)
class Record:
    """What the weights look like after ``step`` steps.

    Attributes
    ----------
    step : int
    loss : float
    norm : float
        |W|, Frobenius.
    correlation : float
        Cosine of W and W_svm; nan where one of them is 0.
    correlation_rest : float
        The same of the part of W that is orthogonal to S_fin, as W_svm is.
    cyclic_distance : float
        |Proj_fin W - W_fin|.
    label_mass : float
        Attention on the SCC of the label, mean over the samples.
    """

    step: int
    loss: float
    norm: float
    correlation: float
    correlation_rest: float
    cyclic_distance: float
    label_mass: float


def record(step, loss, weights, automaton):
    """Measure ``weights`` against ``automaton`` (:class:`minitx.next_token.automaton.Automaton`): a Record."""
    split, W, W_svm = automaton.split, weights.W, automaton.svm.W
    samples, cyclic = split.samples, split.subspace.project(W)
    mass = np.sum((samples.share[samples.owner()] * attention(weights, samples))[split.inside])
    return Record(step, float(loss), norm(W), cosine(W, W_svm), cosine(W - cyclic, W_svm), norm(cyclic - automaton.soft.W),
                  float(mass))


@one_blas_thread()
def train(start, automaton, *, mode, steps, learning_rate=None, loss="log", at=None, progress=None):
    """Train W on the samples of ``automaton``, and record.

    Parameters
    ----------
    start : LastTokenWeights
        Without C, with the embeddings of the automaton. The modes that are told the SCCs compute in float64 whatever it has.
    automaton : minitx.next_token.automaton.Automaton
        Fitted to the samples to train on.
    mode : {"descent", "normalised", "split", "accelerated", "path"}
        How; the first two are the paper's, and use nothing of the automaton but for the records:

        - ``descent``: gradient descent, W - learning_rate G.
        - ``normalised``: W - learning_rate G / |G|.

        The others are told the SCCs of the data, and are beyond the paper: they hold the part in S_fin at W_fin, begin with what
        ``start`` has outside (``path``: nothing), and lower the logarithm of the excess there (:mod:`minitx.next_token.split`).

        - ``split``: by normalised steps of length ``learning_rate``.
        - ``accelerated``: by dual acceleration (Ji, Srebro, Telgarsky 2021), in steps of ``learning_rate`` / smoothness.
        - ``path``: step s is the least point of |V|^2 / 2 + 2^s / l^4 log excess (:mod:`minitx.next_token.path`), by Newton's
          method; l is the norm of the longest embedding.
    steps : int
        About 21 are enough for ``path``, where each doubles the norm; it ends by itself where only rounding is left, near 37.
    learning_rate : float, optional
        Default: 1, but 0.01 for ``normalised``. Not for ``path``.
    loss : {"log", "square", "tied"}
        As for :func:`minitx.next_token.losses.loss_and_gradient`; the modes that are told the SCCs are for "log".
    at : iterable of int, optional
        Steps to record. Default: 0 and some forty, evenly spaced in the logarithm; all for ``path``.
    progress : callable, optional
        ``progress(step)`` after every step.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        An unknown mode or loss, settings that cannot be, other embeddings than the automaton's.
    """
    learning_rate, steps = _settings(mode, loss, learning_rate), whole_number("steps", steps, 0)
    if mode == "path" and steps > LONGEST_PATH:
        raise ValueError(f"steps is {steps}, but each step of mode 'path' doubles the norm; 21 are enough, {LONGEST_PATH} the most")
    _require_start(start, automaton)
    at = set((range(steps + 1) if mode == "path" else spaced(steps)) if at is None else at)
    found = []

    def callback(step, loss, weights, gradient=None):
        if step in at:
            found.append(record(step, loss, weights, automaton))
        if progress is not None:
            progress(step)

    if mode in TOLD:
        start = start.astype(np.float64)
    if mode == "path":
        return Run(found, _follow(start, automaton, steps, callback))
    samples, objective = automaton.split.samples, partial(loss_and_gradient, loss=loss)
    if mode in TOLD:
        start = replace(start, W=automaton.split.subspace.rest(start.W) + automaton.soft.W)
        objective = _Accelerated(automaton) if mode == "accelerated" else _Excess(automaton)
    if mode == "accelerated":
        learning_rate /= smoothness(automaton.split)
    run = descend(start, samples, learning_rate=learning_rate, steps=steps, normalised=mode in ("normalised", "split"),
                  frozen=tuple(name for name in start.parameters() if name != "W"), callback=callback, loss_and_gradient=objective)
    return Run(found, run)


def _settings(mode, loss, learning_rate):
    """The learning rate; None for ``path``."""
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; it must be one of {', '.join(MODES)}")
    if mode in TOLD and loss != "log":
        raise ValueError(f"mode {mode!r} descends the log-loss by its split at the SCCs, but loss is {loss!r}; "
                         "use mode 'normalised', or loss 'log'")
    if mode == "path" and learning_rate is not None:
        raise ValueError(f"learning_rate is {learning_rate!r}, but mode 'path' has none: its step s is at 2^s / l^4; leave it out")
    if learning_rate is None:
        return {**FAITHFUL, **TOLD}[mode]
    return positive("learning_rate", learning_rate)


def _require_start(start, automaton):
    if start.C is not None:
        raise ValueError("the start has a head C, but these losses have the identity head, or E; leave C out")
    if broken := start.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
    E = automaton.split.embeddings
    own = np.eye(start.n_vocab) if start.E is None else start.E
    if not np.array_equal(own, E):
        raise ValueError(f"the start has other embeddings, {own.shape}, than the automaton, {E.shape}; fit it with E=start.E")


def spaced(steps, most=40):
    """0 and up to ``most`` steps, evenly spaced in the logarithm to the last. Ascending list."""
    return [0, *np.unique(np.round(np.geomspace(1, steps, most)).astype(int)).tolist()] if steps else [0]


# --------------------------------------------------------------------------------------- modes that are told the SCCs


class _Excess:
    """Objective: the log-loss with W_fin in S_fin, and the gradient of log(excess) with respect to W outside S_fin."""

    def __init__(self, automaton):
        self.automaton = automaton

    def __call__(self, weights, samples):
        excess = self.automaton.split.excess(weights.W)
        slope = self.direction(self.automaton.split.subspace.rest(excess.gradient))
        return self.automaton.soft.loss + excess.value, LastTokenWeights(slope)

    def direction(self, G):
        """What is returned as the gradient, where that is G (d, d)."""
        return G


class _Accelerated(_Excess):
    """The same with momentum: step t (from 1) returns g + G, and g becomes t / (t + 1) (g + G)."""

    def __init__(self, automaton):
        super().__init__(automaton)
        self.g, self.t = 0.0, 1

    def direction(self, G):
        ahead = self.g + G
        self.g, self.t = self.t / (self.t + 1) * ahead, self.t + 1
        return self.g + G


@one_blas_thread()
def smoothness(split):
    """Largest squared norm of the rows ``(token outside - token inside) e_k'`` projected off S_fin: bounds the excess's curvature.

    1 where no sample has tokens outside its label's SCC: there is nothing to descend.
    """
    samples, owner, E = split.samples, split.samples.owner(), split.embeddings
    root = split.at_entries({k: graph.root for k, graph in split.graphs.items()})
    rows = np.unique(np.stack([samples.last[owner], root, root[samples.label_at][owner]], axis=1)[~split.inside], axis=0)
    k, i, j = rows.T
    squares = np.square(E[i] - E[j]).sum(axis=1) * np.square(E[k]).sum(axis=1)
    for block in split.subspace.blocks:
        squares -= np.square(block.coordinates.flatten(E, rows) @ block.rows.T).sum(axis=1)
    return float(squares.max(initial=0.0)) or 1.0


def _follow(start, automaton, steps, callback):
    """Trajectory of mode ``path``; its learning rate is nan, for it has none."""
    losses, weights, stopped = [], start, None
    longest = norm(automaton.split.embeddings, axis=1).max() or 1.0
    try:
        for step, W in enumerate(split_path(automaton.split, automaton.soft.W, 2.0 ** np.arange(steps + 1) / longest**4)):
            weights = replace(start, W=W)
            losses.append(automaton.soft.loss + automaton.split.excess(W).value)
            callback(step, losses[-1], weights)
    except KeyboardInterrupt:
        if not losses:
            raise
        stopped = Stopped.interrupted(len(losses) - 1)
    except FloatingPointError as error:
        stopped = Stopped("rounding", len(losses), f"step {len(losses)}: {error}")
    return Trajectory(np.array(losses), weights, {}, float("nan"), stopped)
