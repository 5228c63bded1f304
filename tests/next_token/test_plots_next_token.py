"""The figures of next tokens show what they are given, and can be drawn for the smallest and strangest input."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from minitx.base import numbers
from minitx.next_token import figures
from minitx.next_token import figures as plots
from minitx.next_token.graphs import PriorityGraph, priority_graphs
from minitx.next_token.samples import Samples
from minitx.next_token.training import Record


def draw(figure):
    """Lay out and draw; the tests turn any warning of matplotlib or NumPy into an error."""
    figure.set_dpi(30)
    figure.canvas.draw()
    return figure


def words_of(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def small_graph():
    """{3 4} above {2 5} above 1, and 0 and 6 beside 1."""
    return PriorityGraph.of(1, range(7), [(3, 4), (4, 3), (3, 2), (2, 5), (5, 2), (5, 1), (2, 0), (2, 6), (4, 6)])


def boxes(axes, tokens):
    """Outlines of SCCs (large) and of tokens, by what is drawn on ``axes``."""
    found = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    small = [patch for patch in found if patch.get_height() == pytest.approx(figures.HEIGHT)]
    assert len(small) == tokens
    return [patch for patch in found if patch not in small], small


def test_a_priority_graph_shows_sccs_in_layers():
    figure = draw(plots.priority_graphs({1: small_graph()}, title="title"))
    axes, = figure.axes
    large, small = boxes(axes, 7)
    assert len(large) == 2
    assert len({to_hex(box.get_edgecolor()) for box in large}) == 2
    assert len({str(box.get_linestyle()) for box in large}) == 2  # not told apart by colour alone
    height = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert height["3"] == height["4"] > height["2"] == height["5"] > height["1"] == height["0"] == height["6"]
    thick = [box for box in small if box.get_linewidth() > 2]
    assert len(thick) == 1
    own = next(text for text in axes.texts if text.get_text() == "1").get_position()
    assert thick[0].get_x() < own[0] < thick[0].get_x() + thick[0].get_width()
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 4 + 4  # arcs 3 -> 4 -> 3 and 2 -> 5 -> 2; {3 4} -> {2 5} -> 0, 1, 6
    assert "last token 1" in words_of(figure)


def test_an_edge_that_passes_a_layer_keeps_clear_of_what_is_there():
    graph = PriorityGraph.of(0, range(5), [(0, 1), (1, 2), (3, 2), (0, 4), (4, 2)])
    panel = figures._Panel.of(graph, None)
    long, = (route for route in panel.routes if len(route) > 2)
    between = long[1]
    assert between.tokens == ()
    for block in panel.blocks:
        if block is not between and block.layer == between.layer:
            assert abs(block.x - between.x) >= (block.width + between.width) / 2


@settings(max_examples=25)
@given(st.integers(1, 12), st.data())
def test_nothing_overlaps_and_nothing_sticks_out(n_tokens, data):
    pairs = list(itertools.permutations(range(n_tokens), 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    names = [data.draw(st.text("ab$_", min_size=1, max_size=9)) for _ in range(n_tokens)]
    panel = figures._Panel.of(PriorityGraph.of(0, range(n_tokens), edges), names)
    width, height = panel.size
    places = [(block.x - block.width / 2, block.x + block.width / 2,
               block.y - block.height / 2, block.y + block.height / 2)
              for block in panel.blocks]
    for left, right, low, high in places:
        assert -width / 2 <= left < right <= width / 2
        assert -1e-9 <= low <= high <= height
    for one, other in itertools.combinations(places, 2):
        apart = min(one[1], other[1]) <= max(one[0], other[0]) + 1e-9
        assert apart or min(one[3], other[3]) <= max(one[2], other[2]) + 1e-9
    assert sorted(token for block in panel.blocks for token in block.tokens) == list(range(n_tokens))


def test_what_is_left_out_is_said(monkeypatch):
    monkeypatch.setattr(figures, "PANELS", 2)
    monkeypatch.setattr(figures, "TOKENS", 6)
    chain = PriorityGraph.of(0, range(40), [(i, i + 1) for i in range(39)])
    figure = draw(plots.priority_graphs(dict.fromkeys(range(5), chain), title="title"))
    assert len(figure.axes) == 2
    text = "\n".join(words_of(figure))
    assert "not shown: 34 more tokens, 34 SCCs" in text
    assert "3 of 5 last tokens are not shown" in text
    boxes(figure.axes[0], 6)


def test_a_large_scc_is_drawn_without_its_edges_and_says_so():
    everything = PriorityGraph.of(0, range(30), [(i, (i + 1) % 30) for i in range(30)])
    figure = draw(plots.priority_graphs({0: everything}, [f"a long word {i}" for i in range(30)], title="title"))
    assert not [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert any("30 edges inside the SCC of 30" in text for text in words_of(figure))
    boxes(figure.axes[0], 30)


def test_single_tokens_without_an_order_are_framed_together():
    star = PriorityGraph.of(9, range(10), [(0, i) for i in range(1, 10)])
    axes, = draw(plots.priority_graphs({9: star}, title="title")).axes
    frames, _ = boxes(axes, 10)
    assert len(frames) == 1
    assert frames[0].get_facecolor()[3] == 0
    assert len([patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]) == 1


@pytest.mark.parametrize("name", ["$", "‹", "<unk>", "a_b", "日本", "%"])
def test_any_word_can_be_a_label(name):
    names = {0: name if name != "日本" else "jp"}
    draw(plots.priority_graphs({0: PriorityGraph.of(0, [0], [])}, names, title="title"))


def run(n, **changed):
    """n records; ``changed`` replaces one of their quantities by a number."""
    gaps = [np.nan, *(0.3 / np.arange(1, n))]
    records = (Record(step, 1.0, float(step), 1 - gaps[step], 0.0, 1 / (1 + step), 1 - 0.5 / (1 + step))
               for step in range(n))
    return [replace(record, **changed) for record in records]


NOTHING = run(5, correlation=np.nan, cyclic_distance=0.0, norm=0.0, label_mass=1.0)


@pytest.mark.parametrize("runs", [
    {"plain": run(30), "normalised": run(30), "accelerated": run(9)}, {"one": run(2)}, {"nothing to draw": NOTHING},
    {f"mode {i}": run(6) for i in range(8)}], ids=["three", "one step", "nothing", "many"])
def test_training(runs):
    figure = draw(plots.next_token_training(runs, title="title"))
    assert [axes.get_yscale() for axes in figure.axes] == ["linear" if "nothing to draw" in runs else "log"] * 4
    assert {label for label in words_of(figure) if label in runs} == set(runs)


def test_training_draws_what_it_is_given():
    figure = plots.next_token_training({"one": run(5)}, title="title")
    direction, cyclic, norm, mass = (axes.lines[0] for axes in figure.axes)
    np.testing.assert_allclose(direction.get_ydata(), 0.3 / np.arange(1, 5))
    np.testing.assert_allclose(cyclic.get_ydata(), 1 / np.arange(2, 6))
    np.testing.assert_allclose(norm.get_ydata(), np.arange(1, 5))
    np.testing.assert_allclose(mass.get_ydata(), 0.5 / np.arange(2, 6))


def test_training_without_cycles_says_so():
    figure = draw(plots.next_token_training({"one": run(5, cyclic_distance=0.0)}, title="title", has_cycles=False))
    assert any("no SCC has several tokens" in text for text in words_of(figure))


@pytest.mark.parametrize("n", [1, 40])
def test_predictions(n):
    rng = np.random.default_rng(0)
    predicted = rng.dirichlet(np.ones(5), n)
    trained = {"exact": predicted, "near": 0.9 * predicted + 0.1 * rng.dirichlet(np.ones(5), n)}
    status = np.resize(["tied", "determined", "unseen"], n)
    distances = {mode: numbers.total_variation(predicted, p) for mode, p in trained.items()}
    figure = draw(plots.next_token_predictions(predicted, trained, distances, status, title="title"))
    present = [name for name in plots.STATUSES if name in status]
    assert len(figure.axes) == 2 * len(present)
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == present
    count = int((status == present[0]).sum())
    assert f"({count} context{'s' if count > 1 else ''})" in figure.axes[0].get_title()


def test_total_variation():
    np.testing.assert_allclose(numbers.total_variation([[1, 0], [0.5, 0.5]], [[0, 1], [0.5, 0.5]]), [1, 0])


def test_an_arrow_from_a_short_block_crosses_no_tall_frame_beside_it():
    """It goes straight down to the floor of its layer first."""
    # 0 is above 1 to 13 and the last token 14; 9 alone is above 10 to 14, and stands beside the frame of 1 to 8
    samples = Samples.of([[*range(10), 14], [9, 10, 11, 12, 13, 14]], [0, 9], 15)
    panel = plots._Panel.of(priority_graphs(samples)[14], ["a long word"] * 15)
    axes = Figure().add_axes((0, 0, 1, 1))
    assert len(panel.routes) == 3
    for route in panel.routes:
        plots._draw_route(axes, route)
        drawn = axes.patches[-1]._path_original.interpolated(200).vertices
        for block in panel.blocks:
            inside = ((abs(drawn[:, 0] - block.x) < block.width / 2 - 1e-9)
                      & (abs(drawn[:, 1] - block.y) < block.height / 2 - 1e-9))
            assert not inside.any() or block in route
