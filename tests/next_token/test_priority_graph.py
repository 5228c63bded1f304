"""Priority graphs: SCCs, reach, transitive reduction, layers and reduced constraints, against plain loops."""

import naive_next_token as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.next_token.graphs import PriorityGraph, constraints, priority_graphs
from minitx.next_token.samples import Samples


@st.composite
def graphs(draw, most=8):
    """(tokens, edges): ids with gaps, edges among them in any order, self-loops and repeats too."""
    tokens = draw(st.lists(st.integers(0, 30), min_size=1, max_size=most, unique=True))
    ends = st.sampled_from(tokens)
    return tokens, draw(st.lists(st.tuples(ends, ends), max_size=2 * len(tokens)))


@settings(max_examples=300)
@given(graphs())
def test_graph_is_the_one_of_plain_loops(drawn):
    tokens, edges = drawn
    graph = PriorityGraph.of(9, tokens, edges)
    at = {token: number for number, token in enumerate(sorted(tokens))}
    numbered = {(at[a], at[b]) for a, b in edges if a != b}
    assert graph.last == 9 and graph.tokens.tolist() == sorted(tokens)
    assert graph.edges.tolist() == sorted([a, b] for a, b in set(edges) if a != b)
    components = naive.strong_components(len(tokens), numbered)
    assert sorted((set(members.tolist()) for members in graph.components), key=min) == [
        {sorted(tokens)[a] for a in nodes} for nodes in components]
    for number, members in enumerate(graph.components):
        assert members.tolist() == sorted(members) and all(graph.component_of(token) == number for token in members)
    assert graph.component_of(31) == graph.component_of(-1) == -1

    n = len(graph.components)
    between = {(graph.component_of(a), graph.component_of(b)) for a, b in edges} - {(a, a) for a in range(n)}
    assert all(a < b for a, b in between)
    assert graph.reach.tolist() == naive.reaches(n, between)
    assert {tuple(edge) for edge in graph.reduction.tolist()} == naive.transitive_reduction(n, between)
    assert graph.layer.tolist() == [naive.longest_path(n, between, a) for a in range(n)]


@settings(max_examples=100)
@given(graphs())
def test_ties_go_to_the_smallest_token(drawn):
    """Every component comes as early as the smallest-token-first rule lets it."""
    graph = PriorityGraph.of(0, *drawn)
    done = set()
    for number in range(len(graph.components)):
        free = [a for a in range(len(graph.components))
                if a not in done and not set(np.flatnonzero(graph.reach[:, a])) - done]
        assert number == min(free, key=lambda a: graph.components[a][0])
        done.add(number)


def test_an_edge_to_a_token_that_is_not_there():
    with pytest.raises(ValueError, match=r"edge 1 -> 4 has an end that is not among the tokens"):
        PriorityGraph.of(0, [1, 2], [(1, 2), (1, 4)])


@settings(max_examples=100)
@given(graphs())
def test_reduced_constraints_say_the_same_as_all_edges(drawn):
    """Scores equal within SCCs and 1 apart along the reduction are at least 1 apart along every edge between SCCs."""
    graph = PriorityGraph.of(5, *drawn)
    rows = constraints({5: graph})
    assert all(graph.component_of(i) == graph.component_of(j) for _, i, j in rows.equalities)
    assert len(rows.equalities) == len(graph.tokens) - len(graph.components)
    assert len(rows.inequalities) == len(graph.reduction)
    depth = graph.layer.max(initial=0) - graph.layer[graph.component]  # scores that every row allows
    score = dict(zip(graph.tokens.tolist(), depth.tolist(), strict=True))
    assert all(score[i] == score[j] for _, i, j in rows.equalities)
    assert all(score[i] >= score[j] + 1 for _, i, j in rows.inequalities)
    assert all(score[i] == score[j] if graph.component_of(i) == graph.component_of(j) else score[i] >= score[j] + 1
               for i, j in graph.edges)


def test_no_graphs_no_rows():
    rows = constraints({})
    assert rows.equalities.shape == rows.inequalities.shape == (0, 3)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 2)), min_size=1, max_size=8),
       st.randoms())
def test_graphs_of_samples(drawn, random):
    sequences = [[*body, k] for body, k in drawn]
    labels = [random.choice(sequence) for sequence in sequences]
    graphs = priority_graphs(Samples.of(sequences, labels, 6))
    assert list(graphs) == sorted({sequence[-1] for sequence in sequences})
    for k, graph in graphs.items():
        assert graph.last == k
        own = [sequence for sequence in sequences if sequence[-1] == k]
        assert graph.tokens.tolist() == sorted({token for sequence in own for token in sequence})
        assert {tuple(edge) for edge in graph.edges.tolist()} == naive.edges_of(sequences, labels, k)


def test_a_sequence_of_its_label_alone():
    graph = priority_graphs(Samples.of([[3, 3]], [3]))[3]
    assert graph.tokens.tolist() == [3] and graph.edges.shape == (0, 2) and graph.reduction.shape == (0, 2)
    assert [members.tolist() for members in graph.components] == [[3]] and graph.layer.tolist() == [0]
