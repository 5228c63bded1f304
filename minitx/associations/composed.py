"""The model that is composed of leading terms alone, beside the trained model, on the text itself.

Its weights are known without any training: :func:`minitx.associations.leading_weights` gives them for any s eta. How
much of the decrease of the loss in training does this closed form explain, and does it predict the same next tokens?
"""

from dataclasses import dataclass
from math import log

import numpy as np

from minitx.base.parallel import workers
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.blocks import Positions
from minitx.model.circuits import loss_and_gradient, output, valid_circuits
from minitx.model.kernels import probabilities
from minitx.model.parameters import Parameters
from minitx.model.pieces import Workspace


@dataclass(frozen=True)
class Explained(Shown):
    """How near the predictions of one model are to those of another; means over loss positions, by their weights."""

    loss: float  # of the trained weights
    predicted_loss: float  # of the predicted weights
    share: float  # of the decrease of the loss: (log V - predicted_loss) / (log V - loss)
    same_token: float  # share of positions at which both models have the same most probable next token
    total_variation: float  # between the two models' probabilities of the next token: 0 if they are equal, at most 1


def explained(weights: Parameters, predicted: Parameters, batch: Batch) -> Explained:
    """Set the predictions of ``predicted`` weights beside those of trained ``weights``, at every position of ``batch``.

    Parameters
    ----------
    weights, predicted : OneHotWeights or any parametrisation
        They have one vocabulary. ``predicted`` may be the leading terms of :func:`minitx.associations.leading_weights`.
    batch : Batch
        Next-token training: causal attention, cross-entropy.

    Returns
    -------
    Explained
        ``share`` is nan if the loss of ``weights`` is log V up to rounding, which is the loss of zero weights; it is
        negative if the predicted weights do worse than zero weights.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As :func:`minitx.loss_and_gradient`, for both; a batch or vocabulary that does not fit.
    """
    circuits = valid_circuits(weights, batch), valid_circuits(predicted, batch)
    batch.require_next_token()
    V = circuits[0].n_vocab
    if circuits[1].n_vocab != V:
        raise ValueError(f"the weights have {V} tokens and the predicted ones {circuits[1].n_vocab}; give two models "
                         "of the same vocabulary")
    loss, predicted_loss = loss_and_gradient(weights, batch)[0], loss_and_gradient(predicted, batch)[0]
    cut, memory = Positions.of(batch, np.float64).cut(V), (Workspace(), Workspace())

    def sums(block):
        """Sums over a block: the weights, where the most probable tokens are the same, and total variation."""
        p, q = (_probabilities(tables.astype(np.float64), block, space)
                for tables, space in zip(circuits, memory, strict=True))
        same = p.argmax(axis=2) == q.argmax(axis=2)
        p -= q
        distance = np.abs(p, out=p).sum(axis=2) / 2
        return [block.weight.sum(), (block.weight * same).sum(), (block.weight * distance).sum()]

    with workers(len(cut)) as run:
        total, same, distance = np.sum(run(sums, cut), axis=0)
    won = log(V) - loss
    share = (log(V) - predicted_loss) / won if abs(won) > 1e-12 * log(V) else float("nan")
    return Explained(loss, predicted_loss, share, float(same / total), float(distance / total))


def _probabilities(circuits, block, workspace):
    """Softmax of the output at each query of a block. (S, M, V)"""
    out = output(circuits, block, block.attend(circuits.qk, circuits.position), workspace)
    probabilities(out.reshape(-1, circuits.n_vocab))
    return out
