"""What every position adds to one entry of the exact gradient, and to each of its terms.

The gradient is a sum over positions (:mod:`minitx.associations.terms` has its steps 1 to 6). With the residual r =
w (softmax(out) - onehot(y)) of a position t of weight w, current token x and next token y, it adds

    to dL/dW_O[c, b]    1(x = c) r . e_b  +  (sum_j A_tj V[x_j, c]) (r . e_b)
    to dL/dV[a, c]      (sum_j A_tj 1(x_j = a)) (r . W_O[c, :])
    to dL/dW[a, c]      1(x = a) sum over the j with x_j = c of dscore_tj
    to dL/dP[d]         dscore_tj of the j = t - d

and likewise to the tables of Circuits. Its terms are found as those of the whole gradient are: r = r0 + (r - r0), A =
A0 + (A - A0), and each weight is its leading term and the rest. A position that adds nothing, such as one of another
current token for an entry of W, is left out of the forward pass.

Legend: N sequences, T positions, V vocabulary; of a block of S sequences: M loss positions, U distinct tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minitx.base.parallel import workers
from minitx.data.batch import Batch
from minitx.model.blocks import Block, blocks
from minitx.model.circuits import Circuits, output
from minitx.model.kernels import attention_backward, probabilities
from minitx.model.pieces import Workspace

Array = NDArray[np.float64]
Held = tuple[bool, bool, bool]  # whether a term holds saturation, attention drift, weight drift


@dataclass(frozen=True, eq=False)
class Factors:
    """A part of an entry that is a product: (r . of_output) times (sum_j A_tj of_attended[x_j]), or times 1(x = c)."""

    of_output: Array  # (V,)
    of_attended: Array | None = None  # (V,); None: no attention, the direct path of ``current``
    current: int | None = None  # the token c of the direct path; None: every token, as the bias has it
    drift: bool = False  # whether it holds a weight drift


@dataclass(frozen=True, eq=False)
class Scores:
    """An entry that is a sum of dscore_tj: by the key's token, or by the distance t - j."""

    ov_parts: Sequence[Array]  # the leading term of ov, and the rest if it is told apart: (V, V) each
    key: int | None = None
    distance: int | None = None


def positions_of_token(batch: Batch, token: int) -> NDArray[np.bool_]:
    """Where ``token`` is the current token. (N, T)"""
    return batch.tokens == token


def positions_after_token(batch: Batch, token: int) -> NDArray[np.bool_]:
    """Where ``token`` is the current one, or one before it in the sequence. (N, T)"""
    return np.logical_or.accumulate(batch.tokens == token, axis=1)


def positions_from(batch: Batch, distance: int) -> NDArray[np.bool_]:
    """Where there is a token ``distance`` places back. (N, T)"""
    return np.broadcast_to(np.arange(batch.tokens.shape[1]) >= distance, batch.tokens.shape)


class PositionSums:
    """The blocks of those positions of a batch that add to an entry; they serve any weights.

    ``chosen``, (N, T) bool, is true where a position may add something.
    """

    def __init__(self, batch: Batch, n_vocab: int, chosen: NDArray[np.bool_]):
        self.shape = batch.tokens.shape
        weight = np.where(chosen, batch.weight, 0.0)
        self.blocks: list[Block] = []
        if weight.any():
            self.blocks = blocks(Batch(batch.tokens, batch.targets, weight, lengths=batch.lengths), n_vocab, np.float64)
        self.workspace = Workspace()

    def terms(self, circuits: Circuits, entry: Sequence[Factors] | Scores) -> dict[Held, Array]:
        """{factors held: (N, T), what each position adds to that term of the entry}."""
        found = {held: np.zeros(self.shape) for held in _held_by(entry)}

        def put(computed):
            block, terms = computed
            s, k = np.nonzero(block.weight)
            for held, parts in terms.items():
                found[held][block.rows[s], block.positions[s, k]] = parts[s, k]

        with workers(len(self.blocks)) as run:
            run.in_turn(lambda block: (block, self._of_block(circuits, block, entry)), put, self.blocks)
        return found

    def _of_block(self, circuits, block, entry):
        """{factors held: (S, M)}; the lines are those of :mod:`minitx.associations.term_kernels`."""
        # 1, 2  A, A0 and the probabilities
        exact, uniform = block.attend(circuits.qk, circuits.position), block.attend(None)
        p = output(circuits, block, exact, self.workspace)
        probabilities(p.reshape(-1, circuits.n_vocab))
        if isinstance(entry, Scores):
            return _of_scores(block, exact, uniform, p, entry)
        found = dict.fromkeys(_held_by(entry), 0.0)
        for part in entry:
            # r . z = r0 . z + (r - r0) . z
            z, mean = part.of_output, part.of_output.mean()
            residual = {False: block.weight * (mean - z[block.targets]), True: block.weight * (p @ z - mean)}
            if part.of_attended is None:
                passed = {False: np.ones(block.weight.shape) if part.current is None else block.current == part.current}
            else:
                v = part.of_attended[exact.words][:, :, None]
                at_uniform = (uniform.C @ v)[:, :, 0]
                passed = {False: at_uniform, True: (exact.C @ v)[:, :, 0] - at_uniform}
            for saturation, r_z in residual.items():
                for attention_drift, share in passed.items():
                    found[saturation, attention_drift, part.drift] += r_z * share
        return found


def _held_by(entry):
    """The terms that an entry has."""
    if isinstance(entry, Scores):
        parts = [(True, rest) for rest in range(len(entry.ov_parts))]
    else:
        parts = [(part.of_attended is not None, part.drift) for part in entry]
    return [(saturation, attention_drift, bool(drift)) for attends, drift in parts for saturation in (False, True)
            for attention_drift in ((False, True) if attends else (False,))]


def _of_scores(block, exact, uniform, p, entry):
    """{factors held: (S, M)} of an entry that is a sum of dscore; ``p`` becomes r - r0."""
    p -= 1 / p.shape[2]
    p *= block.weight[:, :, None]
    words, ones, found = exact.words, np.ones(block.weight.shape), {}
    for rest, part in enumerate(entry.ov_parts):
        mean = part.mean(axis=1)
        of_r0 = mean[words][:, None, :] - part[words[:, None, :], block.targets[:, :, None]]
        for saturation, by_word in ((False, block.weight[:, :, None] * of_r0),
                                    (True, exact.row_slopes(p, part))):
            at_uniform, at_exact = (
                _chosen_scores(block, attention_backward(attention.A, by_word, ones, attention.slots, block.queries,
                                                         True), entry) for attention in (uniform, exact))
            found[saturation, False, bool(rest)] = at_uniform
            found[saturation, True, bool(rest)] = at_exact - at_uniform
    return found


def _chosen_scores(block, dscore, entry):
    """The sum of dscore over the keys that hold the token, or its value at the distance. (S, M, T) -> (S, M)"""
    if entry.distance is None:
        return np.where(block.keys[:, None, :] == entry.key, dscore, 0.0).sum(axis=2)
    at = np.maximum(block.queries - entry.distance, 0)  # a query that is padding may be nearer to the beginning
    return np.take_along_axis(dscore, at[:, :, None].astype(np.intp), axis=2)[:, :, 0]
