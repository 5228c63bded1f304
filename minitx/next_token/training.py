"""Training of the last token's attention W, and what the theory says about W, recorded on the way.

The paper trains by plain and by normalised gradient descent. Three more modes are given the SCCs of the samples: they
hold the part of W in the cyclic subspace S_fin at W_fin and minimise log(loss - minimal loss) outside it. Plain and
normalised descent also train two factors in the place of W (:mod:`minitx.next_token.factors`); what is recorded is
then their product.

Legend: n samples, K tokens in the vocabulary, d width, R recorded steps; G the gradient that a mode follows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minitx.base.checks import described, function, instance, positive, steps_within, whole_number
from minitx.base.numbers import cosine, norm
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.model.descent import Stopped, Trajectory, descend
from minitx.model.recording import Recording, Run
from minitx.model.weights import LastTokenWeights
from minitx.next_token.automaton import Automaton
from minitx.next_token.factors import FactoredWeights
from minitx.next_token.losses import HEADED, attention, loss_and_gradient
from minitx.next_token.path import split_path
from minitx.next_token.samples import Samples
from minitx.next_token.split import Split

FAITHFUL = {"descent": 1.0, "normalised": 0.01}  # the modes of the paper, with their default learning rates
TOLD = {"split": 1.0, "accelerated": 1.0, "path": None}  # the modes that are given the SCCs of the samples
MODES = (*FAITHFUL, *TOLD)
LONGEST_PATH = 100  # largest number of steps of ``path``; rounding ends it near 37 unless there is nothing to retrieve


@dataclass(frozen=True)
class Record(Shown):
    """What the weights are like after ``step`` steps; norms are Frobenius norms."""

    step: int
    loss: float
    norm: float  # |W|
    correlation: float  # cosine of W and W_svm; nan where one of them is 0
    correlation_rest: float  # the same of the part of W that is orthogonal to S_fin, as W_svm is
    cyclic_distance: float  # |Proj_fin W - W_fin|
    label_mass: float  # attention on the SCC of the label, mean over the samples


def record(step: int, loss: float, weights: LastTokenWeights | FactoredWeights, automaton: Automaton) -> Record:
    """Compare ``weights`` after ``step`` steps with the limit that ``automaton`` predicts."""
    instance("automaton", automaton, Automaton)
    alone = _without_head(weights)
    split, W, W_svm = automaton.split, alone.W, automaton.svm.W
    samples, cyclic = split.samples, split.subspace.project(W)
    mass = np.sum((samples.share[samples.owner()] * attention(alone, samples))[split.inside])
    return Record(step, float(loss), norm(W), cosine(W, W_svm), cosine(W - cyclic, W_svm),
                  norm(cyclic - automaton.soft.W), float(mass))


@one_blas_thread()
def train(start: LastTokenWeights | FactoredWeights, automaton: Automaton, *, mode: str, steps: int,
          learning_rate: float | None = None, loss: str = "log", at: Iterable[int] | None = None,
          progress: Callable[[int], object] | None = None, checkpoint: Any = None,
          watch: Callable[[Any], Any] | None = None) -> Run:
    """Train W on the samples of ``automaton`` and record it.

    Raises ValueError for an unknown mode or loss, settings that contradict each other, and embeddings that differ from
    the automaton's.

    Parameters
    ----------
    start : LastTokenWeights or FactoredWeights
        With the embeddings of the automaton, and a head C, which stays fixed, only if ``loss`` has one. FactoredWeights
        are for the first two modes; one norm |G| is of both factors together. Modes that are given the SCCs compute in
        float64.
    automaton : minitx.next_token.Automaton
        Fitted to the samples to train on.
    mode : {"descent", "normalised", "split", "accelerated", "path"}
        The first two are the paper's and use the automaton for the records only:

        - ``descent``: W <- W - learning_rate G.
        - ``normalised``: W <- W - learning_rate G / |G|.

        The others go beyond the paper. They start from W_fin inside S_fin and from the part of ``start`` outside S_fin
        (``path``: from 0) and minimise log(excess), see :mod:`minitx.next_token.split`.

        - ``split``: normalised steps of length ``learning_rate``.
        - ``accelerated``: dual acceleration (Ji, Srebro, Telgarsky 2021), steps of ``learning_rate`` / smoothness.
        - ``path``: step s minimises |V|^2 / 2 + 2^s / l^4 log(excess) (:mod:`minitx.next_token.path`) by Newton's
          method; l is the norm of the longest embedding.
    steps : int
        Each step of ``path`` doubles the norm: about 21 are enough, and near 37 it ends because only rounding is left.
    learning_rate : float, optional
        Default: 1, but 0.01 for ``normalised``. ``path`` has none.
    loss : {"log", "square", "tied", "cross_entropy", "squared_error"}
        As for :func:`minitx.next_token.losses.loss_and_gradient`; modes that are given the SCCs need "log".
    at : iterable of int, optional
        Steps to record. Default: 0 and about forty, evenly spaced in the logarithm; all of them for ``path``.
    progress : callable, optional
        ``progress(step)`` is called after every step.
    checkpoint : str, Path, Checkpoint or Part, optional
        As for :func:`minitx.descend`; ``path``, whose steps are few, has none.
    watch : callable, optional
        What ``watch(weights)`` returns at each recorded step is kept in the run's list ``watched``.
    """
    learning_rate, steps = _settings(mode, loss, learning_rate, steps)
    _require_start(start, automaton, mode, loss)
    recorded = set(range(steps + 1) if mode == "path" else spaced(steps)) if at is None else steps_within(
        "at", at, 0, steps)
    if progress is not None:
        function("progress", progress, "progress(step)")
    if watch is not None:
        function("watch", watch, "watch(weights)")
    if mode == "path" and checkpoint is not None:
        raise ValueError("mode 'path' takes no checkpoint, because its steps are few; leave it out")
    recording = Recording(partial(record, automaton=automaton), recorded, kinds=(Record,), progress=progress,
                          watch=watch)
    if mode in TOLD and isinstance(start, LastTokenWeights):  # factors were refused
        start = replace(start.astype(np.float64), W=automaton.split.subspace.rest(start.W) + automaton.soft.W)
    if mode == "path":
        path = _follow_path(start, automaton, steps, recording)
        return Run(recording.records, path, watched=recording.watched)
    objective: Callable
    if isinstance(start, FactoredWeights):
        objective = partial(_loss_of_product, loss=loss)
    else:
        objective = partial(loss_and_gradient, loss=loss) if mode in FAITHFUL else _excess_objective(automaton)
    if mode == "accelerated":
        objective, learning_rate = Accelerated(objective), learning_rate / smoothness(automaton.split)
    run = descend_W(start, automaton.split.samples, objective, learning_rate=learning_rate, steps=steps,
                    normalised=mode in ("normalised", "split"), callback=recording, checkpoint=checkpoint)
    return Run(recording.records, run, watched=recording.watched)


def descend_W(start: LastTokenWeights | FactoredWeights, samples: Samples, objective: Callable, **settings: Any
              ) -> Trajectory:
    """Gradient descent on W, or on its factors: ``objective(weights, samples)`` returns a loss and its gradient.

    The gradient is of the kind of ``start``, whose embeddings and head stay as they are. ``settings`` are those of
    :func:`minitx.model.descent.descend`.
    """
    function("objective", objective, "objective(weights, samples)")
    fixed = tuple(name for name in start.parameters() if name in ("E", "C"))
    return descend(start, samples, frozen=fixed, loss_and_gradient=objective, **settings)


def _settings(mode, loss, learning_rate, steps):
    """(learning rate, which is None for ``path``; steps), checked."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"unknown mode {described(mode)}; it must be one of {', '.join(MODES)}")
    if mode in TOLD and loss != "log":
        raise ValueError(f"mode {mode!r} splits the log loss at the SCCs, but loss is {loss!r}; use mode 'normalised', "
                         "or loss 'log'")
    if mode == "path" and learning_rate is not None:
        raise ValueError(f"learning_rate is {learning_rate!r}, but mode 'path' has none; leave it out")
    steps = whole_number("steps", steps, 0)
    if mode == "path" and steps > LONGEST_PATH:
        raise ValueError(f"steps is {steps}, but each step of mode 'path' doubles the norm; use 21, or at most "
                         f"{LONGEST_PATH}")
    usual = {**FAITHFUL, **TOLD}[mode]
    return usual if learning_rate is None else positive("learning_rate", learning_rate), steps


def _require_start(start, automaton, mode, loss):
    if isinstance(start, FactoredWeights):
        if mode in TOLD:
            raise ValueError(f"mode {mode!r} moves W, but the start is FactoredWeights; give start.product(), or use "
                             "mode 'descent' or 'normalised'")
    else:
        instance("start", start, LastTokenWeights)
    instance("automaton", automaton, Automaton)
    E = automaton.split.embeddings
    own = np.eye(start.n_vocab) if start.E is None else start.E
    if not np.array_equal(own, E):
        raise ValueError(f"the start has other embeddings, {own.shape}, than the automaton, {E.shape}; fit it with "
                         "E=start.E")
    weights = _without_head(start) if loss in HEADED or isinstance(start, FactoredWeights) else start
    attention(weights, automaton.split.samples)  # ValueError for a head C, and for weights that are not finite


def _without_head(weights: Any) -> LastTokenWeights:
    """W with its embeddings: the product of factors; attention does not depend on a head."""
    if isinstance(weights, FactoredWeights):
        return weights.product()
    instance("weights", weights, LastTokenWeights)
    return weights if weights.C is None else replace(weights, C=None)


def _loss_of_product(weights, samples, loss):
    """Loss of W_K W_Q', and its gradient in both factors."""
    value, gradient = loss_and_gradient(weights.product(), samples, loss)
    return value, weights.chain(gradient.W)


def spaced(steps: int, most: int = 40) -> list[int]:
    """0 and up to ``most`` steps, ascending, evenly spaced in the logarithm to the last one."""
    return [0, *np.unique(np.round(np.geomspace(1, steps, most)).astype(int)).tolist()] if steps else [0]


# ------------------------------------------------------------------------------- modes that are given the SCCs


def _excess_objective(automaton):
    """The objective with the loss minimal loss + excess, and with the gradient of log(excess) outside S_fin."""
    def objective(weights, samples):
        excess = automaton.split.excess(weights.W)
        return automaton.soft.loss + excess.value, LastTokenWeights(automaton.split.subspace.rest(excess.gradient))

    return objective


class Accelerated:
    """``objective`` with momentum: step t = 1, 2, ... moves along g_t + G_t, g_t = t / (t + 1) (g_{t-1} + G_t)."""

    def __init__(self, objective: Callable):
        self.objective, self.g, self.t = objective, 0.0, 0

    def __call__(self, weights: LastTokenWeights, samples: Samples) -> tuple[float, LastTokenWeights]:
        """The loss, and the change of W."""
        loss, gradient = self.objective(weights, samples)
        self.t += 1
        self.g = self.t / (self.t + 1) * (self.g + gradient.W)
        return loss, LastTokenWeights(self.g + gradient.W)

    def state(self) -> tuple[Any, int]:
        """What a checkpoint keeps, from which :meth:`restore` goes on."""
        return self.g, self.t

    def restore(self, state: tuple[Any, int]) -> None:
        """Go on with what :meth:`state` returned."""
        self.g, self.t = state


@one_blas_thread()
def smoothness(split: Split) -> float:
    """A bound of the curvature of log(excess): the largest squared norm of its rows.

    The rows are ``(token outside the label's SCC - token inside) e_k'``, projected off S_fin. The bound is 1 where no
    sample has tokens outside its label's SCC, because then there is nothing to minimise.
    """
    instance("split", split, Split)
    rows, E = np.unique(split.pairs[~split.inside], axis=0), split.embeddings
    k, i, j = rows.T
    squares = np.square(E[i] - E[j]).sum(axis=1) * np.square(E[k]).sum(axis=1)
    for block in split.subspace.blocks:
        squares -= np.square(block.coordinates.flatten(E, rows) @ block.rows.T).sum(axis=1)
    return float(squares.max(initial=0.0)) or 1.0


def _follow_path(start, automaton, steps, callback):
    """The trajectory of mode ``path``; its learning rate is nan, because it has none."""
    losses, weights, stopped = [], start, None
    strengths = 2.0 ** np.arange(steps + 1) / (norm(automaton.split.embeddings, axis=1).max() or 1.0) ** 4
    try:
        for step, W in enumerate(split_path(automaton.split, automaton.soft.W, strengths)):
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
