"""The loss split at the SCCs: a convex loss inside them, and the excess, which only hard retrieval brings to zero.

For any W and any embeddings, with the mass N_ij exp(S[j, k_i]) of token j, z_i = log(mass outside the label's SCC / mass inside),

    L(W) = L_cyc(W) + sum_i share_i log(1 + exp(z_i)),        L_cyc(W) = L_cyc(Proj_fin W).

L_cyc is the log-loss of the samples reduced to the label's SCC (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, Section 3); the
second term, the excess, is kept as a logarithm, so that no weights are too large for it. The split goes beyond the paper.

Legend: n samples, K tokens in the vocabulary, d width, M distinct tokens of all sequences together.

The cyclic subspace S_fin: the weights that set scores apart inside SCCs (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024).

    S_fin = span{(e_i - e_j) e_k' : i and j in one SCC of G(k)}

Its dimension is 0 exactly if no graph has a cycle (or embeddings hide all of them). Trained weights stay finite in S_fin and grow
without bound outside it.

Legend: K tokens, d width, dim the dimension of S_fin, r that of a block.

The soft component W_fin: what attention learns inside SCCs (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, Section 3).

W_fin is the least point of the cyclic loss on the cyclic subspace S_fin. It is finite and unique for any embeddings: weights of
S_fin other than 0 set two scores of some SCC apart, so that the label of some sample has the lower score, and going on that way the
loss grows without bound.

Legend: m scores of a block (the tokens of its SCCs), r the dimension of the block.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minitx.base.numbers import minimise
from minitx.base.parallel import matmul, one_blas_thread
from minitx.model.parameters import read_only
from minitx.next_token import kernels
from minitx.next_token.losses import from_scores, to_scores
from minitx.next_token.rank_one import Coordinates, Span, differences, embeddings, row_blocks
from minitx.next_token.samples import Samples


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
    samples : minitx.next_token.samples.Samples
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

@dataclass(frozen=True, eq=False)
class CyclicBlock:
    """A part of S_fin that is orthogonal to the others: that of some SCCs, whose scores no other SCC shares."""

    sccs: tuple  # of (k, number): last token, and number of the SCC in its graph
    coordinates: Coordinates
    rows: np.ndarray  # (r, a b) float64: orthonormal rows in these coordinates

    @property
    def dim(self):
        """Its dimension r."""
        return len(self.rows)

    def of(self, W):
        """(r,) coordinates of ``W`` (d, d) in the basis."""
        return matmul(self.rows, self.coordinates.vector(W)[:, None])[:, 0]

    def matrix(self, x):
        """(d, d) matrix whose coordinates are ``x`` (r,); the matrices, where x is (R, r)."""
        return self.coordinates.matrix(matmul(x.reshape(-1, self.dim), self.rows).reshape(*x.shape[:-1], -1))


@dataclass(frozen=True, eq=False)
class CyclicSubspace:
    """S_fin (paper, Section 3) as blocks orthogonal to each other; ``cyclic_subspace`` makes it."""

    width: int  # d
    blocks: tuple  # of CyclicBlock

    @property
    def dim(self):
        """Its dimension; 0 if nothing is cyclic."""
        return sum(block.dim for block in self.blocks)

    @one_blas_thread()
    def project(self, W):
        """(d, d) the part of ``W`` (d, d) in S_fin."""
        W = np.asarray(W)
        found = np.zeros((self.width, self.width), np.result_type(W.dtype, np.float32))
        for block in self.blocks:
            found[block.coordinates.support] += block.coordinates.inner_matrix(block.of(W) @ block.rows)
        return found

    def rest(self, W):
        """(d, d) the part of ``W`` (d, d) orthogonal to S_fin."""
        return W - self.project(W)

    @cached_property
    def basis(self):
        """(dim, d, d) float64: orthonormal matrices that span S_fin, block by block."""
        return np.concatenate([np.zeros((0, self.width, self.width)), *(block.matrix(np.eye(block.dim)) for block in self.blocks)])


@one_blas_thread()
def cyclic_subspace(graphs, E):
    """S_fin of the graphs of some samples.

    Parameters
    ----------
    graphs : dict
        {k: PriorityGraph}, of ``priority_graphs``.
    E : array_like, shape (K, d)
        Embeddings, row = token.

    Returns
    -------
    CyclicSubspace

    Raises
    ------
    ValueError
        If ``E`` has no row for some token, or values that are not finite.

    Notes
    -----
    Pivoted QR of the star rows (smallest token of an SCC against each other member), each at length 1; a row within 1e-10 of the
    span of the others adds no dimension. Two tokens with the same embedding add none, and a last token with embedding 0 has none.
    """
    E = embeddings(E, 1 + max((max(k, int(graph.tokens.max(initial=-1))) for k, graph in graphs.items()), default=-1))
    sccs = [(k, number) for k, graph in graphs.items() for number, members in enumerate(graph.components) if len(members) > 1]
    stars = [[(k, members[0], j) for j in members[1:]] for k, members in ((k, graphs[k].components[number]) for k, number in sccs)]
    rows = np.array([row for star in stars for row in star], np.int64).reshape(-1, 3)
    group = np.repeat(np.arange(len(sccs)), [len(star) for star in stars])
    seen = differences(E, rows).any(axis=1) & E[rows[:, 0]].any(axis=1)
    rows, group = rows[seen], group[seen]
    return CyclicSubspace(E.shape[1], tuple(
        _block(E, rows[block], [sccs[number] for number in np.unique(group[block])]) for block in row_blocks(E, rows, group)))


def _block(E, rows, sccs):
    coordinates = Coordinates.of(E, rows)
    return CyclicBlock(tuple(sccs), coordinates, Span.of(coordinates.flatten(E, rows)).basis)

@dataclass(frozen=True, eq=False)
class SoftComponent:
    """W_fin, and how well it was found."""

    W: np.ndarray  # (d, d): row = dimension of the attended token, column = of the last token
    loss: float  # L_cyc(W_fin): the least log-loss that hard retrieval and this mix inside SCCs leave
    gradient_norm: float  # of L_cyc at W
    dim: int  # dimension of S_fin; 0: no cycles, W = 0
    iterations: int  # most Newton steps that a block took


@one_blas_thread()
def soft_component(split):
    """W_fin by damped Newton steps, one block of S_fin after the other.

    Parameters
    ----------
    split : minitx.next_token.split.Split

    Returns
    -------
    SoftComponent
        Without cycles: W = 0, dim 0, loss 0.
    """
    subspace = split.subspace
    W, squares, most = np.zeros((subspace.width, subspace.width)), 0.0, 0
    for block, terms in zip(subspace.blocks, _terms(split), strict=True):
        x, gradient, steps = _least(terms, _coordinates(split, block))
        W += block.matrix(x)
        squares, most = squares + gradient @ gradient, max(most, steps)
    return SoftComponent(W, split.cyclic_loss(W), float(np.sqrt(squares)), subspace.dim, most)


def _members(split, block):
    return [split.graphs[k].components[number] for k, number in block.sccs]


def _coordinates(split, block):
    """(m, r): score of each token of the block's SCCs, against the smallest one of its SCC, by coordinate of W."""
    rows = [(k, j, members[0]) for (k, _), members in zip(block.sccs, _members(split, block), strict=True) for j in members]
    return block.coordinates.flatten(split.embeddings, np.array(rows)) @ block.rows.T


def _terms(split):
    """For each block the samples whose label it holds, reduced to the label's SCC: the first arguments of kernels.cyclic_terms."""
    samples, blocks = split.samples, split.subspace.blocks
    first = dict(zip(split.graphs, np.cumsum([0] + [len(graph.components) for graph in split.graphs.values()]), strict=False))
    n_components = sum(len(graph.components) for graph in split.graphs.values())
    block_of, slot_of = np.full(n_components, -1), np.zeros(n_components, np.int64)
    for number, block in enumerate(blocks):
        sccs = [first[k] + component for k, component in block.sccs]
        block_of[sccs] = number
        slot_of[sccs] = np.cumsum([0] + [len(members) for members in _members(split, block)])[:-1]
    rank = split.at_entries({k: _rank(graph) for k, graph in split.graphs.items()})
    scc = np.array([first[k] for k in samples.last.tolist()]) + split.component[samples.label_at]  # of each sample

    owner = samples.owner()
    entries = np.flatnonzero(split.inside & (block_of[scc] >= 0)[owner])
    entries = entries[np.argsort(block_of[scc[owner[entries]]], kind="stable")]
    ends = np.searchsorted(block_of[scc[owner[entries]]], np.arange(len(blocks) + 1))
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        chosen = entries[a:b]
        own, begin = np.unique(owner[chosen], return_index=True)
        yield (np.append(begin, len(chosen)), slot_of[scc[owner[chosen]]] + rank[chosen], samples.counts[chosen],
               np.searchsorted(chosen, samples.label_at[own]), samples.share[own])


def _rank(graph):
    """(m,) place of each token of the graph among the members of its SCC."""
    rank = np.empty(len(graph.tokens), np.int64)
    for members in graph.components:
        rank[np.searchsorted(graph.tokens, members)] = np.arange(len(members))
    return rank


def _least(terms, C):
    """Least point x (r,) of the loss of ``terms`` at the scores C x, C (m, r): (x, gradient at x, steps)."""
    *terms, share = terms
    total, power = share.sum(), int(np.frexp(np.abs(C).max())[1])
    C = np.ldexp(C, -power)  # of order 1, whatever the size of the embeddings

    def at(x):
        gradient, hessian = np.zeros(len(C)), np.zeros((len(C), len(C)))
        value = kernels.cyclic_terms(*terms, share / total, C @ x, gradient, hessian)
        return value, C.T @ gradient, C.T @ hessian @ C

    x, gradient, steps = minimise(at, np.zeros(C.shape[1]))
    return np.ldexp(x, -power), np.ldexp(gradient * total, power), steps
