"""The cyclic subspace S_fin: the weights that set scores apart inside SCCs (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024).

    S_fin = span{(e_i - e_j) e_k' : i and j in one SCC of G(k)}

Its dimension is 0 exactly if no graph has a cycle (or embeddings hide all of them). Trained weights stay finite in S_fin and grow
without bound outside it.

Legend: K tokens, d width, dim the dimension of S_fin, r that of a block.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minitx.parallel import matmul, one_blas_thread
from minitx.theory.rank_one import Coordinates, Span, differences, embeddings, row_blocks


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
