"""The log loss split at the SCCs: a convex loss inside them, whose least point is W_fin, and the excess outside them.

    S_fin = span{(e_i - e_j) e_k' : i and j in one SCC of G(k)}             the cyclic subspace      cyclic_subspace
    L(W)  = L_cyc(W) + sum_i share_i log(1 + exp(z_i)),                     for any W and E          Split
            L_cyc(W) = L_cyc(Proj_fin W)                                    the cyclic loss          Split.cyclic_loss
            z_i = log(mass outside the label's SCC / mass inside)           the excess               Split.excess
    W_fin = argmin of L_cyc over S_fin                                      the soft component       soft_component

The mass of token j in sample i is N_ij exp(S[j, k_i]). L_cyc is the log loss of the samples reduced to the label's SCC.
W_fin is what attention learns inside SCCs. It is finite and unique for any embeddings: weights of S_fin other than 0
set two scores of some SCC apart, so that the label of some sample has the lower score, and larger multiples of them
have a loss without bound. Only hard retrieval, weights that grow without bound outside S_fin, brings the excess to
zero; its logarithm is computed, so that no weights are too large. S_fin and W_fin: Li, Huang, Ildiz, Rawat, Oymak
(AISTATS 2024), Section 3. The split goes beyond the paper.

Legend: n samples, K tokens in the vocabulary, d width, M distinct tokens of all sequences together; for one block of
S_fin, r is its dimension, a and b are those of its Coordinates, and m is the number of tokens of its SCCs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import instance, square
from minitx.base.numbers import minimise
from minitx.base.parallel import matmul, one_blas_thread
from minitx.base.shown import Shown, brief
from minitx.model.parameters import read_only
from minitx.next_token import kernels
from minitx.next_token.graphs import PriorityGraph, constraints, require_graphs
from minitx.next_token.losses import from_scores, log_losses, mean_gradient, to_scores
from minitx.next_token.rank_one import Coordinates, Span, differences, embeddings, row_blocks
from minitx.next_token.samples import Bags, Samples

# ---------------------------------------------------------------------------------------- the cyclic subspace S_fin


@dataclass(frozen=True, eq=False)
class CyclicBlock(Shown):
    """A part of S_fin that is orthogonal to the others: that of some SCCs, whose scores depend on no other part."""

    sccs: tuple[tuple[int, int], ...]  # (k, number): last token, and number of the SCC in its graph
    coordinates: Coordinates
    rows: NDArray[np.float64]  # (r, a b): orthonormal rows in these coordinates

    def of(self, W: NDArray) -> NDArray:
        """(r,) coordinates of ``W`` (d, d) in the basis."""
        return matmul(self.rows, self.coordinates.vector(W)[:, None])[:, 0]

    def matrix(self, x: NDArray) -> NDArray:
        """(d, d) matrix whose coordinates are ``x`` (r,)."""
        return self.coordinates.matrix(matmul(x[None, :], self.rows))


@dataclass(frozen=True, eq=False)
class CyclicSubspace(Shown):
    """S_fin as blocks orthogonal to each other; ``cyclic_subspace`` makes it."""

    width: int  # d
    blocks: tuple[CyclicBlock, ...]

    @property
    def dim(self) -> int:
        """Its dimension. It is 0 if no graph has a cycle, or the embeddings hide all cycles."""
        return sum(len(block.rows) for block in self.blocks)

    @one_blas_thread()
    def project(self, W: ArrayLike) -> NDArray:
        """(d, d) the part of ``W`` (d, d) in S_fin."""
        W = square("W", W, self.width, finite=False).astype(np.result_type(np.asarray(W).dtype, np.float32), copy=False)
        found = np.zeros((self.width, self.width), np.result_type(W.dtype, np.float32))
        for block in self.blocks:
            found[block.coordinates.support] += block.coordinates.inner_matrix(block.of(W) @ block.rows)
        return found

    def rest(self, W: NDArray) -> NDArray:
        """(d, d) the part of ``W`` (d, d) orthogonal to S_fin."""
        return W - self.project(W)


@one_blas_thread()
def cyclic_subspace(graphs: dict[int, PriorityGraph], E: ArrayLike) -> CyclicSubspace:
    """S_fin of the ``graphs`` {k: G(k)} of some samples, with embeddings ``E`` (K, d), row = token.

    The span comes from a pivoted QR of one row for each member of an SCC but its smallest token, against that token.
    Rows count at length 1, and one within 1e-10 of the span of the others adds no dimension. Two tokens of one SCC with
    the same embedding therefore add none, and a last token whose embedding is 0 has none. Raises ValueError if ``E``
    has no row for some token, or values that are not finite.
    """
    require_graphs(graphs)
    E = embeddings(E, 1 + max((max(k, graph.tokens.max(initial=-1)) for k, graph in graphs.items()), default=-1))
    rows = constraints(graphs).equalities
    rows = rows[differences(E, rows).any(axis=1) & E[rows[:, 0]].any(axis=1)]
    scc = np.unique(rows[:, :2], axis=0, return_inverse=True)[1].ravel()  # of row (k, smallest token, other)
    blocks = []
    for block in row_blocks(E, rows, scc):
        own, coordinates = rows[block], Coordinates.of(E, rows[block])
        sccs = dict.fromkeys((k, graphs[k].component_of(smallest)) for k, smallest, _ in own.tolist())
        blocks.append(CyclicBlock(tuple(sccs), coordinates, Span.of(coordinates.flatten(E, own)).basis))
    return CyclicSubspace(E.shape[1], tuple(blocks))


# ------------------------------------------------------------------------------------------- the split of the loss


class Excess(NamedTuple):
    """The excess at some weights, its logarithm, and the gradient of the logarithm."""

    log_value: float  # -inf where no sample has tokens outside its label's SCC
    value: float
    gradient: NDArray[np.float64]  # (d, d): row = attended token's dimension, column = last token's


@dataclass(frozen=True, eq=False)
class Split(Shown):
    """The two terms of the log loss of ``samples``.

    Raises TypeError or ValueError if E is not real, of shape (K, d) and finite.
    """

    MADE_BY: ClassVar[str] = "minitx.next_token.Split(samples, priority_graphs(samples))"

    samples: Samples
    graphs: dict[int, PriorityGraph]  # {k: G(k)} of these samples
    E: NDArray | None = None  # (K, d) embeddings, row = token; of any length. None: one-hot

    def __post_init__(self) -> None:
        instance("samples", self.samples, Samples)
        require_graphs(self.graphs)
        if list(self.graphs) != np.unique(self.samples.last).tolist():
            raise ValueError(f"the graphs are of last tokens {brief(list(self.graphs))}, but the samples end in "
                             f"{brief(np.unique(self.samples.last).tolist())}; give priority_graphs(samples)")
        if self.E is None:
            return
        E = embeddings(self.E, self.samples.n_vocab)
        if len(E) > self.samples.n_vocab:
            raise ValueError(f"E has shape {E.shape}; it must be (K, d), one row for each of the "
                             f"{self.samples.n_vocab} tokens; give the samples n_vocab if there are more")
        object.__setattr__(self, "E", E)

    @cached_property
    def subspace(self) -> CyclicSubspace:
        """S_fin, on which L_cyc depends."""
        return cyclic_subspace(self.graphs, self.embeddings)

    @cached_property
    def embeddings(self) -> NDArray[np.float64]:
        """E, which is the identity for one-hot embeddings. (K, d)"""
        return np.eye(self.samples.n_vocab) if self.E is None else self.E

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        """(M, 3): (k, SCC of the token, SCC of its sample's label) of each entry of ``samples.tokens``.

        Each SCC of G(k) is named by its smallest token.
        """
        samples, owner = self.samples, self.samples.owner()
        last = samples.last[owner]  # ascending, as the graphs are
        parts = np.split(samples.tokens, np.searchsorted(last, list(self.graphs))[1:])
        root = np.concatenate([graph.root[np.searchsorted(graph.tokens, part)]
                               for graph, part in zip(self.graphs.values(), parts, strict=True)])
        return np.stack([last, root, root[samples.label_at][owner]], axis=1)

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """Which entries of ``samples.tokens`` are in the SCC of their sample's label. (M,)"""
        return self.pairs[:, 1] == self.pairs[:, 2]

    @cached_property
    def reduced(self) -> Bags:
        """The samples reduced to the SCC of their label."""
        samples, before = self.samples, np.append(0, np.cumsum(self.inside))
        return Bags(samples.last, before[samples.starts], samples.tokens[self.inside], samples.counts[self.inside],
                    before[samples.label_at], samples.share)

    def scores(self, W: NDArray) -> NDArray[np.float64]:
        """S of ``W`` (d, d): row = attended token, column = last token. (K, K)"""
        W = square("W", W, self.embeddings.shape[1], finite=False)
        return read_only(np.ascontiguousarray(to_scores(W, self.E), np.float64))

    def cyclic_loss(self, W: NDArray) -> float:
        """Return L_cyc at ``W`` (d, d), of which only the part in S_fin matters.

        Raises FloatingPointError if L_cyc is not finite.
        """
        loss = float(np.sum(self.reduced.share * log_losses(self.scores(W), self.reduced)[0]))
        if not math.isfinite(loss):
            raise FloatingPointError("the cyclic loss is not finite: the weights are too large")
        return loss

    def excess(self, W: NDArray) -> Excess:
        """The excess at ``W`` (d, d), and the gradient of its logarithm with respect to all of W.

        The gradient is a mean of the rows ``(token outside - token inside) e_k'`` with weights whose sum is at most 1,
        and tends to 1 as retrieval becomes hard: it stays of order 1 however small the excess. Raises
        FloatingPointError if W is not finite.
        """
        samples, scores = self.samples, self.scores(W)
        if not np.isfinite(scores).all():
            raise FloatingPointError("the excess is not a number: the weights are not finite")
        d_scores = np.zeros(scores.shape)
        log_value = kernels.excess(samples.starts, samples.tokens, samples.counts, self.inside, samples.last,
                                   samples.share, scores, d_scores)
        return Excess(log_value, float(np.exp(log_value)), from_scores(d_scores, self.E))


# ---------------------------------------------------------------------------------------- the soft component W_fin


@dataclass(frozen=True, eq=False)
class SoftComponent(Shown):
    """W_fin, and how well it was found."""

    W: NDArray[np.float64]  # (d, d): row = dimension of the attended token, column = of the last token
    loss: float  # L_cyc(W_fin): the least log loss, which hard retrieval and this mix inside SCCs leave
    gradient_norm: float  # of L_cyc at W
    dim: int  # dimension of S_fin; 0: no cycles, W = 0


@one_blas_thread()
def soft_component(split: Split) -> SoftComponent:
    """W_fin by damped Newton steps, one block of S_fin after the other. Without cycles W, dim and loss are 0."""
    instance("split", split, Split)
    subspace = split.subspace
    W, squares = np.zeros((subspace.width, subspace.width)), 0.0
    for block in subspace.blocks:
        x, gradient = _least(*_cyclic_loss_of(split, block))
        W += block.matrix(x)
        squares += gradient @ gradient
    return SoftComponent(W, split.cyclic_loss(W), float(np.sqrt(squares)), subspace.dim)


def _cyclic_loss_of(split, block):
    """The part of L_cyc that one block decides: Bags whose tokens are numbers of scores, and C (m, r) for scores C x.

    Number s is a token of an SCC of the block; its score is taken relative to that of the smallest token of its SCC.
    """
    samples, rows, entries, numbers = split.samples, [], [], []
    for k, scc in block.sccs:
        members = split.graphs[k].components[scc]
        begin, end = samples.starts[np.searchsorted(samples.last, [k, k + 1])]
        inside = begin + np.flatnonzero((split.pairs[begin:end, 1:] == members[0]).all(axis=1))
        entries.append(inside)  # of the samples whose label is in this SCC, the tokens that are too
        numbers.append(len(rows) + np.searchsorted(members, samples.tokens[inside]))
        rows += [(k, j, members[0]) for j in members]
    entries, numbers = np.concatenate(entries), np.concatenate(numbers)
    order = np.argsort(entries)
    entries, numbers = entries[order], numbers[order]
    own, starts = np.unique(samples.owner()[entries], return_index=True)
    bags = Bags(np.zeros(len(own), np.int64), np.append(starts, len(entries)), numbers, samples.counts[entries],
                np.searchsorted(entries, samples.label_at[own]), samples.share[own])
    return bags, block.coordinates.flatten(split.embeddings, np.array(rows)) @ block.rows.T


def _least(bags, C):
    """Least point x (r,) of the mean -log P_y of ``bags`` at the scores C x: (x, gradient at x)."""
    total, power = bags.share.sum(), int(np.frexp(np.abs(C).max())[1])
    C = np.ldexp(C, -power)  # of order 1, whatever the length of the embeddings

    def at(x):
        scores = (C @ x)[:, None]  # of one last token
        losses, dscore, P = log_losses(scores, bags)
        gradient, hessian = mean_gradient(dscore, bags, scores.shape)[:, 0], np.zeros((len(C), len(C)))
        kernels.add_curvature(bags.starts, bags.tokens, bags.share, P, hessian)
        return np.sum(bags.share * losses) / total, C.T @ gradient / total, C.T @ hessian @ C / total

    x, gradient, _ = minimise(at, np.zeros(C.shape[1]))
    return np.ldexp(x, -power), np.ldexp(gradient * total, power)
