"""What is compared in each layer of a model: states with Phi^T B^T, and the maps of heads with Q, B, Sigma_B.

Legend: n tokens, each given to the model alone; d width, H heads of width e.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import Seed, instance
from minitx.base.shown import Shown
from minitx.language_model.comparison import (
    Features,
    Similarity,
    centred,
    map_cosine,
    published,
    row_correlation,
    scaled,
)
from minitx.language_model.forward import States, Transformer, heads
from minitx.language_model.text import LeadingTerms

STATES = ("before", "attended", "after")
QUERY_KEY = ("query-key", "query-key without norm")


@dataclass(frozen=True)
class Record(Shown):
    """How a part of a layer agrees with a leading term. What was not computed is None."""

    layer: int
    head: int | None  # None: the whole state, or the mean map of all heads
    part: str  # one of STATES or QUERY_KEY, or "output-value"
    theory: str
    published: Similarity  # the cosine of row-centred covariances, as Im et al. (2026)
    ones_model: float  # cosine of the model's row-centred covariance with the all-ones matrix
    ones_theory: float
    centred: Similarity  # the cosine centred over tokens, linear CKA
    centred_rows: Similarity  # the same after rows were centred
    rows: Similarity | None = None  # mean Spearman correlation of corresponding rows
    entries: Similarity | None = None  # of a map: the cosine of its entries with those of the leading term


class Theory:
    """A leading term with rows scaled to norm 1, so that every token counts alike; (n, n)."""

    def __init__(self, name: str, matrix: NDArray[np.float64]) -> None:
        self.name, self.matrix = name, scaled(matrix)

    @cached_property
    def plain(self) -> Features:
        """Its rows as features."""
        return Features.of(self.matrix)

    @cached_property
    def rows(self) -> Features:
        """The same after each row lost its mean."""
        return Features.of(self.matrix, centre_rows=True)


def leading_value(terms: LeadingTerms) -> Theory:
    """Phi^T B^T, which states are compared with."""
    return Theory("Φᵀ Bᵀ", terms.value)


def compare_layers(model: Transformer, terms: LeadingTerms, *,
                   rng: Seed = 0) -> Iterator[tuple[States, list[Record]]]:
    """Compare a model with the leading terms of a text; yields the states of each layer and what was found there.

    Every token is given to the model alone, at position 0. Query-key maps are W_Q^h W_K^h^T between normalised states
    with their biases, as the model computes them, and between states without norm and biases, as published; the mean
    over heads beside Q and Q^T, each head beside Q. Output-value maps are W_E W_V^h W_O^h W_U of each head, row =
    attended token, column = output token, beside B, Sigma_B and Phi^T B^T B. ``rng`` is the seed of permutations for
    the rank correlations.

    Raises
    ------
    TypeError, ValueError
        No Transformer or no LeadingTerms; ids that the model lacks.
    """
    instance("model", model, Transformer)
    instance("terms", terms, LeadingTerms)
    value, Q, Q_T = leading_value(terms), Theory("Q", terms.attention), Theory("Qᵀ", terms.attention.T)
    outputs = [Theory("B", terms.bigram), Theory("Σ_B", terms.interchangeability), Theory("Φᵀ Σ_B", terms.value_output)]
    W_E, W_U = model.embedding(terms.tokens), model.unembedding(terms.tokens)
    for state in model.states(terms.tokens[:, None]):
        found = []
        for name in STATES:
            X = getattr(state, name)[:, 0]
            plain, rows = Features.of(X), Features.of(X, centre_rows=True)
            found.append(_record(state.number, None, name, value, plain, rows,
                                 correlation=row_correlation(plain, value.plain, rng=rng)))
        for name, (q, k) in query_key(model, state).items():
            mean = q.reshape(len(q), -1) / q.shape[1], k.reshape(len(k), -1)
            correlation = row_correlation(Features.of_map(*mean), Q.plain, rng=rng)
            found += [_map_record(state.number, None, name, Q, *mean, correlation=correlation),
                      _map_record(state.number, None, name, Q_T, *mean)]
            found += [_map_record(state.number, head, name, Q, q[:, head], k[:, head]) for head in range(q.shape[1])]
        for head, (left, right) in enumerate(output_value(model, state, W_E, W_U)):
            found += [_map_record(state.number, head, "output-value", theory, left, right) for theory in outputs]
        yield state, found


def _record(layer, head, part, theory, plain, rows, *, correlation=None, entries=None):
    return Record(layer, head, part, theory.name, published(rows, theory.rows), rows.ones, theory.rows.ones,
                  centred(plain, theory.plain), centred(rows, theory.rows), correlation, entries)


def _map_record(layer, head, part, theory, left, right, *, correlation=None):
    plain, rows = (Features.of_map(left, right, centre_rows=centre) for centre in (False, True))
    return _record(layer, head, part, theory, plain, rows, correlation=correlation,
                   entries=map_cosine(left, right, theory.matrix))


def query_key(model: Transformer, state: States) -> dict[str, tuple[NDArray, NDArray]]:
    """Queries and keys of every head, (n, H, e) each, with the layer's norm and biases, and without."""
    shared = model.architecture.n_heads // model.architecture.n_groups
    layer, x = state.layer, state.before[:, 0]
    normed = layer.norm_attention(x)
    found = ((heads(normed, layer.W_Q, layer.b_Q), heads(normed, layer.W_K, layer.b_K)),
             (heads(x, layer.W_Q, 0 * layer.b_Q), heads(x, layer.W_K, 0 * layer.b_K)))
    return {name: (q, np.repeat(k, shared, axis=1)) for name, (q, k) in zip(QUERY_KEY, found, strict=True)}


def output_value(model: Transformer, state: States, W_E: NDArray, W_U: NDArray) -> Iterator[tuple[NDArray, NDArray]]:
    """For each head the factors, (n, e) each, of W_E W_V^h W_O^h W_U; ``W_E`` and ``W_U`` are (n, d), row = token."""
    layer, shared = state.layer, model.architecture.n_heads // model.architecture.n_groups
    values = heads(W_E, layer.W_V, 0 * layer.b_V)  # (n, G, e)
    written = heads(W_U, layer.W_O.transpose(2, 0, 1), np.zeros(layer.W_O.shape[:2], np.float32))  # (n, H, e)
    for head in range(model.architecture.n_heads):
        yield values[:, head // shared], written[:, head]
