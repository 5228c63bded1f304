"""The loss split at the SCCs: a convex loss inside them, and the excess, which only hard retrieval brings to zero.

For any W and any embeddings, with the mass N_ij exp(S[j, k_i]) of token j, z_i = log(mass outside the label's SCC / mass inside),

    L(W) = L_cyc(W) + sum_i share_i log(1 + exp(z_i)),        L_cyc(W) = L_cyc(Proj_fin W).

L_cyc is the log-loss of the samples reduced to the label's SCC (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, Section 3); the
second term, the excess, is kept as a logarithm, so that no weights are too large for it. The split goes beyond the paper.

Legend: n samples, K tokens in the vocabulary, d width, M distinct tokens of all sequences together.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minitx import kernels
from minitx.last_token import Samples, from_scores, to_scores
from minitx.parallel import one_blas_thread
from minitx.parameters import read_only
from minitx.theory.cyclic_subspace import cyclic_subspace
from minitx.theory.rank_one import embeddings


class Excess(NamedTuple):
    """The excess at some weights."""

    log_value: float  # -inf where no sample has tokens outside its label's SCC
    value: float
    gradient: np.ndarray  # (d, d), of log_value: row = dimension of the attended token, column = of the last token


@dataclass(frozen=True, eq=False)
class Split:
    """The two terms of the log-loss of ``samples``.

    Parameters
    ----------
    samples : minitx.last_token.Samples
    graphs : dict
        {k: PriorityGraph} of these samples.
    E : (K, d) floats, optional
        Embeddings, row = token; of any length. Absent: one-hot.

    Raises
    ------
    TypeError, ValueError
        Embeddings that are not real, not (K, d), or not finite.
    """

    samples: Samples
    graphs: dict
    E: np.ndarray | None = None

    def __post_init__(self):
        if self.E is None:
            return
        E = embeddings(self.E, self.samples.n_vocab)
        if len(E) > self.samples.n_vocab:
            raise ValueError(f"E has shape {E.shape}; it must be (K, d), one row for each of the {self.samples.n_vocab} tokens; "
                             "give the samples n_vocab if there are more")
        object.__setattr__(self, "E", E)

    @cached_property
    def subspace(self):
        """The cyclic subspace: what L_cyc depends on. CyclicSubspace"""
        return cyclic_subspace(self.graphs, self.embeddings)

    @cached_property
    def embeddings(self):
        """E, which is the identity for one-hot embeddings. (K, d) float64"""
        return np.eye(self.samples.n_vocab) if self.E is None else self.E

    @cached_property
    def component(self):
        """Number of the SCC, in the graph of its last token, of each entry of ``samples.tokens``. (M,) int64"""
        return self.at_entries({k: graph.component for k, graph in self.graphs.items()})

    def at_entries(self, values):
        """For each entry of ``samples.tokens`` its own of ``values`` = {k: (m,), one for each token of the graph of k}. (M,)"""
        last = self.samples.last[self.samples.owner()]
        order = np.argsort(last, kind="stable")
        begin = np.append(np.searchsorted(last[order], list(self.graphs)), len(order))
        found = np.empty(len(order), np.int64)
        for (k, graph), a, b in zip(self.graphs.items(), begin[:-1], begin[1:], strict=True):
            entries = order[a:b]
            found[entries] = values[k][np.searchsorted(graph.tokens, self.samples.tokens[entries])]
        return found

    @cached_property
    def inside(self):
        """Which entries of ``samples.tokens`` are in the SCC of their sample's label. (M,) bool"""
        return self.component == self.component[self.samples.label_at][self.samples.owner()]

    def scores(self, W):
        """S of ``W`` (d, d): row = attended token, column = last token. (K, K) float64"""
        return read_only(np.ascontiguousarray(to_scores(W, self.E)))

    @one_blas_thread()
    def cyclic_loss(self, W):
        """L_cyc at ``W`` (d, d), of which only the part in the cyclic subspace matters. FloatingPointError if it is not finite."""
        samples, losses = self.samples, np.empty(len(self.samples))
        kernels.cyclic_losses(samples.starts, samples.tokens, samples.counts, self.inside, samples.last, samples.label_at,
                              self.scores(W), losses)
        loss = float(samples.share @ losses)
        if not math.isfinite(loss):
            raise FloatingPointError("the cyclic loss is not finite: the weights are too large")
        return loss

    def excess(self, W):
        """The excess at ``W`` (d, d), and the gradient of its logarithm with respect to all of W: an Excess.

        The gradient is a mean, of weights that sum to at most 1 (to 1 once retrieval is nearly hard), of the rows
        ``(token outside - token inside) e_k'``: it stays of order 1 however small the excess. FloatingPointError if W is not
        finite.
        """
        samples, scores = self.samples, self.scores(W)
        d_scores = np.zeros(scores.shape)
        log_value = kernels.excess(samples.starts, samples.tokens, samples.counts, self.inside, samples.last, samples.share, scores,
                                   d_scores)
        if math.isnan(log_value):
            raise FloatingPointError("the excess is not a number: the weights are not finite")
        return Excess(log_value, float(np.exp(log_value)), from_scores(d_scores, self.E))
