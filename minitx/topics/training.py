"""Training on documents of topics, and what is recorded on the way: averages over pairs of words, for every part.

Legend: V vocabulary, R recorded steps.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import function, instance, integers, positive, steps_within, truth, whole_number
from minitx.data.batch import Batch
from minitx.model.circuits import loss_and_gradient
from minitx.model.descent import descend
from minitx.model.optimisers import Optimiser
from minitx.model.recording import Recording, Run
from minitx.model.weights import EmbeddedWeights
from minitx.topics import uniform_attention
from minitx.topics.averages import Averages, Spread, attention_table, cosine_matrix, gram, pair_averages, pair_spread
from minitx.topics.backtracking import Backtracking
from minitx.topics.documents import Documents
from minitx.topics.law import TopicModel
from minitx.topics.randomness import Seed
from minitx.topics.sectors import Blocks
from minitx.topics.two_stages import Movement, MovementRecorder

CLASSES = {"same word": "same_word", "same topic": "same_topic", "different topic": "different_topic"}
BLOCK_FIELDS = CLASSES | {"mask column": "mask_column"}


@dataclass(frozen=True)
class Record:
    """What the weights look like after ``step`` steps, averaged by class of word pair.

    Attributes
    ----------
    loss : float
        The loss of the batch or mini-batch of this step.
    learning_rate : float
        The rate of the next step: what was given, or what :class:`minitx.topics.backtracking.Backtracking` left of it.
    embedding, cosine : Averages or None
        Inner products and cosines of the embeddings; None for one-hot embeddings.
    value : Averages
        The matrix that carries attended words to the output, W_U W_V W_E: W_V for one-hot embeddings, E^T E for tied
        ones without W_V. Row = output word, column = attended word; ``mask_column`` averages its column of [MASK].
    attention : Averages or None
        Attention on clean documents, times their length: 1 is uniform. None where it is uniform by construction.
    attention_spread : Spread or None
        The standard deviations of the same table within each class, and the share of variance between classes.
    """

    step: int
    loss: float
    learning_rate: float
    embedding: Averages | None
    cosine: Averages | None
    value: Averages
    mask_column: float
    attention: Averages | None
    attention_spread: Spread | None


@dataclass(frozen=True, eq=False)
class TopicRun(Run):
    """Records (:class:`Record`) of a training run, its :class:`~minitx.model.descent.Trajectory`, and its movement.

    ``movement`` (:class:`minitx.topics.two_stages.Movement`) has every step, not only those of the records.
    """

    movement: Movement


class _Recording(Recording):
    """Records at some steps, and the movement of the weights at every step."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.mover = MovementRecorder()

    def __call__(self, step, loss, weights, gradient=None):
        self.mover(step, loss, weights)
        super().__call__(step, loss, weights, gradient)

    def state(self):
        return [super().state(), self.mover.state()]

    def restore(self, state):
        records, moved = state
        super().restore(records)
        self.mover.restore(moved)


def _record(step, loss, learning_rate, weights, topics, documents):
    """Measure ``weights``."""
    value, E = weights.circuits().ov.T, weights.W_E
    embedding, cosine = (None if E is None else pair_averages(of(E), topics) for of in (gram, cosine_matrix))
    table = None if weights.W_Q is None else attention_table(weights, documents)
    attention, spread = (None, None) if table is None else (pair_averages(table, topics), pair_spread(table, topics))
    return Record(step, float(loss), learning_rate, embedding, cosine, pair_averages(value, topics),
                  float(value[1:, 0].mean()), attention, spread)


def train(start: EmbeddedWeights, batch: Batch, *, topics: NDArray[np.integer], documents: Documents,
          learning_rate: float, steps: int, batch_size: int | None = None, frozen: Sequence[str] = (),
          at: Iterable[int] | None = None, rng: Seed = None, progress: Callable[[int], object] | None = None,
          backtracking: bool = False, optimiser: Optimiser | None = None, checkpoint: Any = None,
          watch: Callable[[EmbeddedWeights], Any] | None = None) -> TopicRun:
    """Train by gradient descent or another ``optimiser``, and record.

    Parameters
    ----------
    start : EmbeddedWeights
        The parts that are present are trained, except those named in ``frozen``.
    batch : Batch
        Masked documents (:func:`minitx.topics.mask_tokens`).
    topics : (V,) integers
        Topic of each token; -1: none.
    documents : Documents
        Clean documents, not those trained on, for the averages of attention.
    learning_rate, steps, batch_size, frozen, rng, checkpoint
        As for :func:`minitx.descend`. A full batch of squared loss at uniform attention is trained through its second
        moments (:mod:`minitx.topics.uniform_attention`): the mathematics is the same, and a step costs two products of
        V x V matrices.
    at : iterable of int, optional
        Steps to record. Default: twelve, evenly spaced to the last.
    progress : callable, optional
        ``progress(step)`` after every step.
    backtracking : bool
        Whether the rate is halved where a step would not lower the loss enough
        (:class:`minitx.topics.backtracking.Backtracking`); for gradient descent only.
    optimiser : Optimiser, optional
        As for :func:`minitx.descend`. The closed forms along training (``value_after``, ``gram_plateau``) are those of
        gradient descent; where training ends, without weight decay, does not depend on the optimiser.
    watch : callable, optional
        What ``watch(weights)`` returns at each recorded step is kept in the run's list ``watched``.

    Raises
    ------
    TypeError, ValueError
        As :func:`minitx.descend`; other weights, documents or topics than these, or steps to record beyond the last.
    """
    instance("start", start, EmbeddedWeights)
    instance("batch", batch, Batch)
    instance("documents", documents, Documents)
    if (topics := integers("topics", topics, 1)).shape != (start.n_vocab,):
        raise ValueError(f"topics has shape {topics.shape}; it must hold one number for each of the {start.n_vocab} "
                         "tokens, -1 for none")
    steps, learning_rate = whole_number("steps", steps, 0), positive("learning_rate", learning_rate)
    at = set(log_steps(steps)) if at is None else steps_within("at", at, 0, steps)
    if progress is not None:
        function("progress", progress, "progress(step)")
    if watch is not None:
        function("watch", watch, "watch(weights)")
    quadratic = batch_size is None and batch.head == "squared" and set(start.circuits().parameters()) == {"ov"}
    data = uniform_attention.moments(batch, start.n_vocab) if quadratic else batch
    objective: Any = uniform_attention.loss_and_gradient if quadratic else loss_and_gradient
    if truth("backtracking", backtracking) and optimiser is not None:
        raise ValueError(f"backtracking is for gradient descent, whose step goes along the gradient; leave it out "
                         f"beside {optimiser}")
    if backtracking:
        objective = Backtracking(learning_rate, frozen=frozen, mini_batches=batch_size is not None, objective=objective)

    def record(step, loss, weights):
        return _record(step, loss, objective.rate if backtracking else learning_rate, weights, topics, documents)

    recording = _Recording(record, at, kinds=(Record, Averages, Spread), progress=progress, watch=watch)
    run = descend(start, data, learning_rate=learning_rate, steps=steps, batch_size=batch_size, frozen=frozen, rng=rng,
                  callback=recording, optimiser=optimiser, loss_and_gradient=objective, checkpoint=checkpoint)
    return TopicRun(recording.records, run, recording.mover.movement, watched=recording.watched)


def log_steps(steps: int) -> list[int]:
    """Up to twelve steps, evenly spaced to the last."""
    return sorted({max(1, round(steps * k / 12)) for k in range(1, 13)}) if steps else [0]


def over_seeds(runs: Sequence[Run], part: str) -> tuple[NDArray[np.integer], dict[str, tuple]]:
    """Averages of ``part`` ("embedding", "cosine", "value" or "attention") over training, over runs of several seeds.

    Returns the recorded steps (R,), and {class of pairs: (mean (R,), s.d. (R,))}. The s.d. (ddof 1) of one run is nan.
    """
    steps = [record.step for record in min((run.records for run in runs), key=len)]
    measured = {}
    for name, field in CLASSES.items():
        values = np.array([[getattr(getattr(record, part), field) for record in run.records[:len(steps)]]
                           for run in runs])
        spread = values.std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(steps), np.nan)
        measured[name] = values.mean(axis=0), spread
    return np.array(steps), measured


def same_exceeds_different(runs: Sequence[Run], part: str) -> tuple[int, int, int]:
    """How often, over all runs and recorded steps, the average of same topic exceeds that of different topic.

    Returns the number of steps at which it does when pairs of the same word are included, the number at which it does
    for different words alone, and the number of recorded steps at which the two can be compared.
    """
    averages = [getattr(record, part) for run in runs for record in run.records]
    return (sum(one.same_topic_including > one.different_topic for one in averages),
            sum(one.same_topic > one.different_topic for one in averages),
            sum(math.isfinite(one.same_topic_including - one.different_topic) for one in averages))


def recorded_steps(runs: Sequence[Run], n: int) -> str:
    """The ``n`` recorded steps of ``runs`` in words, which say so if a run was stopped before its last step."""
    stopped = next((run.trajectory.stopped for run in runs if run.trajectory.stopped), None)
    steps = "recorded step" + "s" * (n != 1)
    return f"{n} {steps} (training ended early: {stopped})" if stopped else f"{n} {steps}"


def comparison(runs: Sequence[Run], part: str) -> str:
    """The sentence about :func:`same_exceeds_different`; it says why where nothing can be compared."""
    including, different, n = same_exceeds_different(runs, part)
    if not n:
        return "same and different topic cannot be compared: no two words of different topics meet in a document"
    averages = [getattr(record, part) for run in runs for record in run.records]
    own = (f"{different} for different words only" if any(np.isfinite(one.same_topic) for one in averages) else
           "no topic has two different words")
    return f"same topic is above different topic at {including} of {recorded_steps(runs, n)} ({own})"


def attention_ratios(weights: EmbeddedWeights, setting: TopicModel) -> dict[str, float]:
    """Attention over that to a word of another topic: alpha (same word), beta (same topic), rho_0 ([MASK]), and rho.

    They are averages over query words; rho = (alpha + (v - 1) beta) / v is all that the loss depends on at W_inf.
    Raises ValueError if the weights have no W_Q and W_K.
    """
    qk = weights.circuits().qk
    if qk is None:
        raise ValueError("the weights have no W_Q and W_K, so that attention is uniform; give both")
    scores = np.exp(qk[1:])  # row = query word, column = key token
    topic = setting.topic_of_token[1:]
    other = np.array([row[1:][topic != own].mean() for row, own in zip(scores, topic, strict=True)])
    blocks = Blocks.of(np.vstack([np.ones(setting.V), scores / other[:, None]]), setting)
    alpha, beta = blocks.same_word, blocks.same_word if setting.v == 1 else blocks.same_topic
    return {"alpha": alpha, "beta": beta, "rho": (alpha + (setting.v - 1) * beta) / setting.v,
            "rho_0": blocks.mask_column}
