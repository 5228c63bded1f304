"""Where an entry comes from: what every position of every window adds to it.

A statistic, a gradient and a trained weight are sums over positions, so that attribution is exact: nothing is
estimated, and the parts sum to the entry. A position of weight w has the current token x and the next token y, and the
token a has the share s(a) of its prefix.

    entry                   what a position adds                                                    function
    ----------------------  ----------------------------------------------------------------------  ------------------
    B[a, b]                 w 1(x = a) (1(y = b) - 1/V)                                             attribution
    Phi[b, a]               w (1(y = b) - 1/V) s(a)                                                 attribution
    Sigma_B[b, c]           w/2 ((1(y = b) - 1/V) B[x, c] + (1(y = c) - 1/V) B[x, b])               attribution
    (Phi^T B^T)[a, c]       w/2 (s(a) B[c, y] + 1(x = c) Phi[y, a])                                 attribution
    Q[a, c]                 w 1(x = a) sum of q_tj over the keys j with x_j = c                     attribution
    Delta[d]                w q_tj of the key j = t - d                                             attribution
    dL/dweight, its terms   see minitx.associations.gradient_parts                                  attribution
    Theta(s) - Theta(0)     - sum over steps k of eta_k times its part of dL_k/dTheta(k)            record_attribution
    s eta B + kappa Phi^T   bigram:  s eta times its part of B[a, b]                                logit_parts
        Sigma_B, at [a, b]  context, interchangeability:  kappa w s(a) Sigma_B[y, b],  y = b or not
        kappa = C(s,2) s eta^3

Sigma_B and Phi^T B^T are sums over pairs of positions. Half of what a pair adds is given to each of its two positions,
and the halves are summed over the other position. Q and Delta are the gradient of the scores: q_tj = (g_j - mean_k g_k)
/ (t + 1), g_j = (Sigma_B Phi)[y, x_j], where the table Sigma_B Phi is held as it is.

The logit of b at a position whose current token is a, and whose attention is all on a, is W_O[a, b] + (V W_O)[a, b];
its leading terms are the last row. Phi^T Sigma_B is a sum over the next tokens y of the positions after an a: where y
is b itself the two keep company (context), and any other y is interchangeable with b, or the contrary.

Legend: N sequences (windows), T positions, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import Statistics, bigram_counts, next_token_vocabulary
from minitx.associations.gradient_parts import (
    Factors,
    PositionSums,
    Scores,
    positions_after_token,
    positions_from,
    positions_of_token,
)
from minitx.associations.taught import Taught, strongest_windows, words_of
from minitx.associations.term_names import term_name
from minitx.associations.terms import reference_point
from minitx.base.checks import described, instance, one_of, positive, truth, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.data.corpus import Corpus
from minitx.model.circuits import Circuits, valid_circuits
from minitx.model.parameters import read_only
from minitx.model.weights import OneHotWeights

Array = NDArray[np.float64]
CHUNK = 2**17  # keys whose scores are computed at a time; more take more memory


@dataclass(frozen=True, eq=False)
class Attribution(Shown):
    """What every position adds to one entry of a statistic, a gradient or a trained weight.

    ``entry`` is start + the sum of ``parts``; ``start`` is 0 but for a trained weight. ``print`` shows the entry and
    the strongest windows.
    """

    parameter: str
    row: int
    column: int | None  # None: the parameter is a vector
    entry: float
    parts: Array  # (N, T) row = window, column = position
    terms: dict[str, Array]  # {term of the gradient: (N, T)}, which sum to ``parts``; empty for a statistic
    batch: Batch
    start: float = 0.0

    @property
    def windows(self) -> Array:
        """What each window adds. (N,)"""
        return self.parts.sum(axis=1)

    @property
    def positive(self) -> float:
        """The sum of the parts above 0."""
        return float(self.parts[self.parts > 0].sum())

    @property
    def negative(self) -> float:
        """The sum of the parts below 0."""
        return float(self.parts[self.parts < 0].sum())

    def strongest(self, k: int = 10, *, corpus: Corpus | None = None, against: bool = False) -> list[Taught]:
        """The ``k`` windows that add most to the side on which the entry is, or ``against`` it; the strongest first.

        With the ``corpus`` of the batch each has its text. TypeError or ValueError if it is another corpus.
        """
        k = whole_number("k", k, 1)
        words = None if corpus is None else words_of(corpus, self.batch)
        side = -1.0 if (self.parts.sum() < 0) != truth("against", against) else 1.0
        return strongest_windows(side * self.parts, self.batch, k, sign=side, pair=(self.row, self.column), words=words)

    def __str__(self) -> str:
        at = f"{self.row}, {self.column}" if self.column is not None else f"{self.row}"
        lines = [f"{self.parameter}[{at}] = {self.entry:.6g}: positive parts {self.positive:+.4g}, negative parts "
                 f"{self.negative:+.4g}, start {self.start:.4g}"]
        lines += [f"window {one.windows[0]}{f' and {len(one.windows) - 1} like it' * (len(one.windows) > 1)}, "
                  f"position {one.position}: {one.value:+.4g}" for one in self.strongest()]
        return "\n".join(lines)


def attribution(of: Statistics | OneHotWeights | Circuits, batch: Batch, parameter: str, row: int,
                column: int | None = None, *, leading: OneHotWeights | Circuits | None = None) -> Attribution:
    """What every position of ``batch`` adds to one entry of a statistic, or of a gradient and its terms.

    Parameters
    ----------
    of : Statistics, OneHotWeights or Circuits
        The statistics of ``batch``, or weights, whose gradient on ``batch`` is attributed.
    batch : Batch
        Next-token training: causal attention, cross-entropy.
    parameter : str
        A matrix of the statistics (``bigram``, ``interchangeability``, ``context``, ``value``, ``attention``,
        ``position``) or a part of the weights (``W_O``, ``V``, ``W``, ``P``; of Circuits its tables).
    row, column : int
        The entry, in the orientation of the parameter; ``corpus.id(word)`` is the number of a word. Vectors
        (``position``, ``P``, ``bias``) have no column.
    leading : OneHotWeights or Circuits, optional
        As for :func:`gradient_terms`; of statistics, nothing.

    Returns
    -------
    Attribution
        The parts of a gradient are those of dL/dweights, not of the step against it. Their ``terms`` are those of
        :func:`gradient_terms`.

    Raises
    ------
    TypeError, ValueError
        Statistics of another batch, weights that do not fit it, an entry that is not there.

    Notes
    -----
    Statistics cost lookups; a gradient costs its forward pass, of the positions that can add something. Memory is
    a few N x T arrays, beside what the statistics or weights hold.
    """
    instance("of", of, Statistics, OneHotWeights, Circuits)
    instance("batch", batch, Batch)
    if isinstance(of, Statistics):
        if leading is not None:
            raise TypeError(f"leading is {described(leading)}, but statistics have no leading terms; leave it out")
        return _of_statistics(of, batch, parameter, row, column)
    batch.require_next_token()
    weights = of.astype(np.float64)
    row, column = checked_entry(weights.parameters(), parameter, row, column)
    circuits, told_apart = valid_circuits(weights, batch), parameter in ("V", "W", "P", "qk", "position")
    at = reference_point(weights, batch, leading)[2] if told_apart or leading is not None else None
    chosen, entry = gradient_entry(weights, circuits, batch, parameter, row, column, at)
    found = PositionSums(batch, circuits.n_vocab, chosen).terms(circuits, entry)
    terms = {term_name(*held): parts for held, parts in found.items()}
    total = np.sum(list(terms.values()), axis=0)
    return Attribution(parameter, row, column, float(total.sum()), total, terms, batch)


def checked_entry(arrays: Mapping[str, NDArray[Any]], parameter: str, row: int,
                  column: int | None) -> tuple[int, int | None]:
    """``row`` and ``column`` as whole numbers. ValueError unless ``arrays`` has the ``parameter``, and this entry."""
    one_of("parameter", parameter, list(arrays))
    shape = arrays[parameter].shape
    row = whole_number("row", row, 0, shape[0] - 1)
    if len(shape) == 2:
        return row, whole_number("column", column, 0, shape[1] - 1)
    if column is not None:
        raise ValueError(f"column is {described(column)}, but {parameter} is a vector of {shape[0]} entries; leave it "
                         "out")
    return row, None


# --------------------------------------------------------------------------------------------------------- statistics


def _of_statistics(statistics, batch, parameter, row, column):
    """The attribution of an entry of ``statistics``."""
    require_same_text(statistics, batch)
    matrices = {name: array for name in PARTS if (array := getattr(statistics, name)) is not None}
    one_of("parameter", parameter, list(PARTS))
    if parameter not in matrices:
        raise ValueError(f"parameter is {parameter!r}, but these statistics have no scores; make them with "
                         f"{Statistics.MADE_BY}")
    row, column = checked_entry(matrices, parameter, row, column)
    at = row if column is None else (row, column)
    parts = PARTS[parameter](statistics, batch, row, column)
    return Attribution(parameter, row, column, float(matrices[parameter][at]), parts, {}, batch)


def require_same_text(statistics: Statistics, batch: Batch) -> None:
    """ValueError unless ``statistics`` are those of ``batch``, for all of its vocabulary."""
    n_vocab = len(statistics.frequency)
    if n_vocab != statistics.n_vocab:
        raise ValueError(f"the statistics are of {n_vocab:,} tokens of a vocabulary of {statistics.n_vocab:,}; "
                         f"attribution needs all of them: make them with {Statistics.MADE_BY}")
    next_token_vocabulary(batch, n_vocab)
    frequency = np.bincount(batch.tokens.ravel(), batch.weight.ravel(), n_vocab)
    if np.abs(frequency - statistics.frequency).max() > 1e-9 * np.abs(batch.weight).sum():
        raise ValueError(f"the statistics are not those of this batch; make them with {Statistics.MADE_BY}")


def _residual(batch, n_vocab, token):
    """w (1(y = token) - 1/V). (N, T)"""
    return batch.weight * ((batch.targets == token) - 1 / n_vocab)


def _share(batch, token):
    """The share of ``token`` in the prefix of each position. (N, T)"""
    return np.cumsum(batch.tokens == token, axis=1) / np.arange(1, batch.tokens.shape[1] + 1)


def _bigram_parts(statistics, batch, a, b):
    return (batch.tokens == a) * _residual(batch, statistics.n_vocab, b)


def _context_parts(statistics, batch, b, a):
    return _residual(batch, statistics.n_vocab, b) * _share(batch, a)


def _interchangeability_parts(statistics, batch, b, c):
    """Half of w_p w_q (1(y_p = b) - 1/V) (1(y_q = c) - 1/V) of every pair with one current token, to p and to q."""
    B, n_vocab = statistics.bigram, statistics.n_vocab
    return (_residual(batch, n_vocab, b) * B[batch.tokens, c] + _residual(batch, n_vocab, c) * B[batch.tokens, b]) / 2


def _value_parts(statistics, batch, a, c):
    """Half by the positions of Phi, half by those of B; rows of B and columns of Phi sum to 0."""
    of_context = _share(batch, a) * statistics.bigram[c, batch.targets]
    return batch.weight * (of_context + (batch.tokens == c) * statistics.context[batch.targets, a]) / 2


def _attention_parts(statistics, batch, a, c):
    return _score_parts(statistics, batch, positions_of_token(batch, a),
                        lambda keys, q, t: np.where(keys == c, q, 0.0).sum(axis=1))


def _position_parts(statistics, batch, distance, _):
    return _score_parts(statistics, batch, positions_from(batch, distance),
                        lambda keys, q, t: q[np.arange(len(t)), t - distance])


@one_blas_thread()
def _score_parts(statistics, batch, chosen, sum_of):
    """w sum_of(x_j, q_tj, t) of the ``chosen`` positions, with q_tj = (g_j - mean_{k <= t} g_k) / (t + 1), else 0.

    g_j = (Sigma_B Phi)[y_t, x_j], of which only the rows y_t of chosen positions are computed; its columns sum to 0.
    """
    parts, T = np.zeros(batch.tokens.shape), batch.tokens.shape[1]
    rows, at = np.nonzero(chosen & (batch.weight != 0))
    next_tokens, number = np.unique(batch.targets[rows, at], return_inverse=True)
    pairs, alpha = bigram_counts(batch, statistics.n_vocab)
    B_Phi = statistics.value.T
    G = pairs.T.tocsr()[next_tokens] @ B_Phi - alpha @ B_Phi / statistics.n_vocab  # B = pairs - alpha 1^T / V
    size = max(1, CHUNK // T)
    for first in range(0, len(rows), size):
        i, t, of = (array[first:first + size] for array in (rows, at, number))
        keys, prefix = batch.tokens[i], np.arange(T) <= t[:, None]
        g = np.where(prefix, G[of[:, None], keys], 0.0)
        q = np.where(prefix, g - g.sum(axis=1, keepdims=True) / (t + 1)[:, None], 0.0) / (t + 1)[:, None]
        parts[i, t] = batch.weight[i, t] * sum_of(keys, q, t)
    return parts


PARTS: dict[str, Callable[..., Array]] = {
    "bigram": _bigram_parts, "interchangeability": _interchangeability_parts, "context": _context_parts,
    "value": _value_parts, "attention": _attention_parts, "position": _position_parts}


def logit_parts(statistics: Statistics, batch: Batch, word: int, other: int, *, steps: int,
                learning_rate: float) -> dict[str, Array]:
    """What every position adds to the leading terms of the logit W_O[word, other] + (V W_O)[word, other].

    Returns {"bigram", "context", "interchangeability": (N, T)}, the parts of s eta B and kappa Phi^T Sigma_B after
    ``steps`` steps, as the account of the module says. TypeError or ValueError as :func:`attribution`, and for steps
    or a learning rate that cannot be.
    """
    instance("statistics", statistics, Statistics)
    instance("batch", batch, Batch)
    require_same_text(statistics, batch)
    most = statistics.n_vocab - 1
    word, other = whole_number("word", word, 0, most), whole_number("other", other, 0, most)
    steps, learning_rate = whole_number("steps", steps, 0, 10**12), positive("learning_rate", learning_rate, 1e60)
    kappa = comb(steps, 2) * learning_rate**2 * steps * learning_rate
    through = kappa * batch.weight * _share(batch, word) * statistics.interchangeability[batch.targets, other]
    own = batch.targets == other
    return {"bigram": steps * learning_rate * _bigram_parts(statistics, batch, word, other),
            "context": np.where(own, through, 0.0), "interchangeability": np.where(own, 0.0, through)}


# ------------------------------------------------------------------------------------------------ gradient and training


def gradient_entry(weights: Any, circuits: Circuits, batch: Batch, parameter: str, row: int, column: int | None,
                   leading: Any = None) -> tuple[NDArray[np.bool_], list[Factors] | Scores]:
    """Which positions can add to an entry of the gradient, (N, T) bool, and its factors.

    ``leading`` are the leading terms of the weights that the entry is split by; None: the weights are not told apart.
    """
    unit = np.eye(1, circuits.n_vocab, column if column is not None else row)[0]
    everywhere = np.ones(batch.tokens.shape, bool)
    if parameter == "W_O":
        return everywhere, [Factors(unit, current=row), Factors(unit, weights.V[:, row].copy(), drift=True)]
    if parameter == "direct":
        return positions_of_token(batch, row), [Factors(unit, current=row)]
    if parameter == "bias":
        return everywhere, [Factors(unit)]
    attended = np.eye(1, circuits.n_vocab, row)[0]
    if parameter == "ov":
        return positions_after_token(batch, row), [Factors(unit, attended)]
    if parameter == "V":
        own = weights.W_O[column]
        first = own if leading is None else leading.W_O[column]
        rest = [] if leading is None else [Factors(own - first, attended, drift=True)]
        return positions_after_token(batch, row), [Factors(first, attended), *rest]
    ov_parts = [circuits.ov]
    if leading is not None:
        at = leading.ov if isinstance(leading, Circuits) else leading.circuits_for(batch.tokens).ov
        ov_parts = [read_only(np.ascontiguousarray(part)) for part in (at, circuits.ov - at)]
    if parameter in ("W", "qk"):
        return positions_of_token(batch, row), Scores(ov_parts, key=column)
    return positions_from(batch, row), Scores(ov_parts, distance=row)
