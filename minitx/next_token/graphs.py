"""Token-priority graphs: which token is chosen over which, for each last token (Li et al., AISTATS 2024, Section 2).

Samples that end in token k make the graph G(k): an edge from the label y to every other token x of the sequence says
that y was chosen while x was there. Tokens that reach each other form a strongly connected component (SCC); between
SCCs the order is strict.

Legend: k a last token, m tokens of the samples that end in it, R edges, c SCCs.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from minitx.base.checks import described, instance, integers, rectangular, whole_number
from minitx.base.shown import Shown
from minitx.next_token.samples import Samples


@dataclass(frozen=True, eq=False)
class PriorityGraph(Shown):
    """G(k) of one last token (paper, Section 2), its SCCs and their order.

    Components are numbered in topological order: an edge between two goes from the lower number to the higher one.
    Where the order is free, the component with the smallest token comes first.
    """

    MADE_BY: ClassVar[str] = "minitx.next_token.priority_graphs(samples), or PriorityGraph.of(last, tokens, edges)"

    last: int  # k
    tokens: NDArray[np.int64]  # (m,): every token of a sample that ends in k, ascending
    edges: NDArray[np.int64]  # (R, 2): y -> x as token ids, distinct, sorted
    component: NDArray[np.int64]  # (m,): number of the SCC of each of ``tokens``
    components: tuple[NDArray[np.int64], ...]  # tokens of each SCC, ascending
    reach: NDArray[np.bool_]  # (c, c): [a, b] says that b is strictly below a: a path leads from a to b, and a != b
    reduction: NDArray[np.int64]  # (r, 2): transitive reduction of the condensation: component numbers (above, below)
    layer: NDArray[np.int64]  # (c,): number of edges of the longest path from the top to each SCC

    @classmethod
    def of(cls, last: int, tokens: ArrayLike, edges: ArrayLike) -> PriorityGraph:
        """The graph of last token ``last`` on ``tokens`` with ``edges`` (y, x), in any order and repeated or not.

        An edge from a token to itself says nothing, and is dropped.

        Raises
        ------
        ValueError
            If an edge has an end that is not among ``tokens``.
        """
        last, tokens, ends = whole_number("last", last, 0), np.unique(_ids("tokens", tokens)), _ids("edges", edges)
        if ends.size and (ends.ndim != 2 or ends.shape[1] != 2):
            raise ValueError(f"edges have shape {ends.shape}; they must be (R, 2), a pair (y, x) of tokens each")
        edges = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
        outside = edges[~np.isin(edges, tokens).all(axis=1)]
        if len(outside):
            raise ValueError(f"edge {outside[0, 0]} -> {outside[0, 1]} has an end that is not among the tokens; "
                             "list every token")
        ends = np.searchsorted(tokens, edges)
        component = _component_numbers(len(tokens), ends)
        n_components = int(component.max(initial=-1)) + 1
        above, below = component[ends].T
        between = np.unique(np.stack([above, below], axis=1)[above != below], axis=0)
        children = [between[between[:, 0] == a, 1] for a in range(n_components)]
        reach, layer = _descend(children)
        components = tuple(tokens[component == a] for a in range(n_components))
        reduction = _transitive_reduction(children, reach)
        return cls(int(last), tokens, edges, component, components, reach, reduction, layer)

    @property
    def root(self) -> NDArray[np.int64]:
        """(m,) the smallest token of the SCC of each of ``tokens``."""
        return np.array([members[0] for members in self.components])[self.component]

    def component_of(self, token: int) -> int:
        """Number of the SCC that holds ``token``; -1 if no sample that ends in ``last`` has it."""
        at = np.searchsorted(self.tokens, token)
        return int(self.component[at]) if at < len(self.tokens) and self.tokens[at] == token else -1


def _ids(name, given):
    """``given`` as int64, of any shape; an empty list will do."""
    array = rectangular(name, given)
    return integers(name, array, array.ndim) if array.size else np.empty((0, 2), np.int64)


def require_graphs(graphs: Any) -> None:
    """Raise TypeError unless ``graphs`` is {last token: PriorityGraph}."""
    if not isinstance(graphs, dict):
        raise TypeError(f"graphs is {described(graphs)}; it must be a dict {{last token: PriorityGraph}}, which "
                        "priority_graphs(samples) makes")
    for k, graph in graphs.items():
        instance(f"graphs[{k!r}]", graph, PriorityGraph)


def _component_numbers(n_tokens, ends):
    """(m,) SCC numbers of a graph on 0..m-1 with edges ``ends`` (R, 2): topological, ties by smallest member."""
    above, below = ends.T
    adjacency = csr_array((np.ones(len(ends), np.int8), (above, below)), shape=(n_tokens, n_tokens))
    n_components, found = connected_components(adjacency, directed=True, connection="strong")
    smallest = np.full(n_components, n_tokens)
    np.minimum.at(smallest, found, np.arange(n_tokens))
    found = smallest[found]  # each SCC by its smallest member
    between = np.unique(found[ends], axis=0)
    between = between[between[:, 0] != between[:, 1]]
    n_above, children = np.bincount(between[:, 1], minlength=n_tokens), {}
    for a, b in between.tolist():
        children.setdefault(a, []).append(b)
    free, number = [a for a in np.unique(found).tolist() if n_above[a] == 0], np.empty(n_tokens, np.int64)
    for following in range(n_components):
        a = heapq.heappop(free)
        number[a] = following
        for b in children.get(a, ()):
            n_above[b] -= 1
            if n_above[b] == 0:
                heapq.heappush(free, b)
    return number[found]


def _descend(children):
    """``reach`` and ``layer`` of a condensation whose edges go from a to the higher numbers ``children[a]``."""
    n_components = len(children)
    reach, layer = np.zeros((n_components, n_components), bool), np.zeros(n_components, np.int64)
    for a in reversed(range(n_components)):
        reach[a] = reach[children[a]].any(axis=0)
        reach[a, children[a]] = True
    for a in range(n_components):
        layer[children[a]] = np.maximum(layer[children[a]], layer[a] + 1)
    return reach, layer


def _transitive_reduction(children, reach):
    """(r, 2) edges (a, b) of the condensation that no longer path from a to b replaces."""
    kept = [(a, b) for a, below in enumerate(children)
            for b in below[~reach[np.ix_(below, below)].any(axis=0)].tolist()]
    return np.array(kept, np.int64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Constraints(Shown):
    """Rows (k, i, j) of a Graph-SVM: ``(e_i - e_j)' W e_k`` equals 0, or is at least 1."""

    equalities: NDArray[np.int64]  # (R, 3)
    inequalities: NDArray[np.int64]  # (R, 3)


def priority_graphs(samples: Samples) -> dict[int, PriorityGraph]:
    """The graph of each last token (paper, Section 2): {k: graph} for every last token k of ``samples``, ascending.

    A sequence made only of its label has no edge; its token is a component of its own.
    """
    instance("samples", samples, Samples)
    owner = samples.owner()
    last, edges = samples.last[owner], np.stack([samples.labels[owner], samples.tokens], axis=1)
    found, begin = np.unique(last, return_index=True)  # samples ascend by last token
    return {k: PriorityGraph.of(k, edges[a:b, 1], edges[a:b])
            for k, a, b in zip(found.tolist(), begin, [*begin[1:], len(last)], strict=True)}


def constraints(graphs: dict[int, PriorityGraph]) -> Constraints:
    """The rows of the Graph-SVM of ``graphs`` (paper, Section 3), reduced to few that imply all; they ascend by k.

    Equal scores inside an SCC need one row for each member but the smallest token, the root: root against member.
    Margins between SCCs need one row, root against root, for each edge of the transitive reduction, because a path of m
    edges already implies a margin of m. The reduction goes beyond the paper.
    """
    require_graphs(graphs)
    equalities, inequalities = [], []
    for k, graph in graphs.items():
        roots = [int(members[0]) for members in graph.components]
        equalities += [(k, int(members[0]), int(j)) for members in graph.components for j in members[1:]]
        inequalities += [(k, roots[a], roots[b]) for a, b in graph.reduction.tolist()]
    return Constraints(*(np.array(rows, np.int64).reshape(-1, 3) for rows in (equalities, inequalities)))
