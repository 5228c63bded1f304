"""The soft component W_fin: what attention learns inside SCCs (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, Section 3).

W_fin is the least point of the cyclic loss on the cyclic subspace S_fin. It is finite and unique for any embeddings: weights of
S_fin other than 0 set two scores of some SCC apart, so that the label of some sample has the lower score, and going on that way the
loss grows without bound.

Legend: m scores of a block (the tokens of its SCCs), r the dimension of the block.
"""

from dataclasses import dataclass

import numpy as np

from minitx import kernels
from minitx.parallel import one_blas_thread
from minitx.theory.newton import minimise


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
    split : minitx.theory.exact_split.Split

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
