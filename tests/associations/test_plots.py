"""Figures of both papers draw, also from the least and the worst it can be given; labels keep their distance."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minitx.associations import figures as associations_figures
from minitx.associations.terms import first_exceeds
from minitx.base import style
from minitx.base.style import spread
from minitx.topics import figures as topics_figures
from minitx.topics.figures import _colour_limit

BLOCKS = ("same word", "same topic", "different topic", "mask column")


def draw(figure):
    """Lay out and draw; the tests turn any warning of matplotlib or NumPy into an error."""
    assert isinstance(figure, Figure)
    figure.set_dpi(40)
    figure.canvas.draw()
    return figure


def blocky(topics, word=0.22, same=0.1, different=-0.002):
    matrix = np.where(topics[:, None] == topics, same, different)
    np.fill_diagonal(matrix, word)
    return matrix


def words_of(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.drawn
def test_save_writes_a_png(tmp_path):
    topics = np.repeat(range(3), 2)
    style.save(topics_figures.topic_heat_maps({"one": blocky(topics)}, topics, title="title"), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("topics", [
    np.repeat(np.arange(-1, 10), [1] + 10 * [10]), np.arange(6), np.zeros(5, int), np.array([0]),
    np.array([2, 0, 1, -1, 0, -1]),
    np.repeat(range(60), 2), np.repeat(range(5), [40, 9, 1, 1, 1]), np.array([-1, -1])],
    ids=["paper", "a word a topic", "one topic", "one word", "specials", "many topics", "unequal", "only specials"])
@pytest.mark.parametrize("positive", [False, True])
def test_heat_maps(topics, positive):
    matrix = np.abs(blocky(topics)) if positive else blocky(topics)
    draw(topics_figures.topic_heat_maps({"trained": matrix, "closed": 2 * matrix}, topics, title="title",
                                        positive=positive))


def test_heat_maps_with_what_is_constant_or_unknown():
    topics = np.repeat(range(3), 2)
    unknown = np.where(np.eye(6), np.nan, 0.1)
    panels = {"zero": np.zeros((6, 6)), "constant": np.ones((6, 6)), "some": unknown, "none": np.full((6, 6), np.nan)}
    draw(topics_figures.topic_heat_maps(panels, topics, title="title", row_label="query", column_label="key"))
    draw(topics_figures.topic_heat_maps({"none": panels["none"]}, topics, title="title"))
    draw(topics_figures.topic_heat_maps({"zero": panels["zero"]}, topics, title="title", positive=True))


def test_heat_maps_sort_words_by_topic_specials_first():
    topics = np.random.default_rng(0).permutation(np.repeat(range(-1, 4), [1, 3, 2, 4, 5]))
    figure = draw(topics_figures.topic_heat_maps({"one": blocky(topics)}, topics, title="title",
                                                 names=dict(enumerate(["a$", "b", "c", "d"]))))
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, blocky(np.sort(topics)))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["[MASK]", r"a\$", "b", "c", "d"]


def test_colours_end_above_the_topics_and_say_so():
    topics = np.repeat(range(10), 10)
    limit, lowest, highest = _colour_limit([blocky(topics)], topics, False)
    assert (limit, lowest, highest) == (pytest.approx(0.12), -0.002, 0.22)
    figure = draw(topics_figures.topic_heat_maps({"one": blocky(topics)}, topics, title="title"))
    assert "colours end at ±0.12; largest 0.22" in words_of(figure)
    figure = draw(topics_figures.topic_heat_maps({"one": blocky(topics, word=0.11)}, topics, title="title"))
    assert "colours end" not in words_of(figure)


@pytest.mark.parametrize("with_trajectory", [True, False])
def test_block_values(with_trajectory):
    steps, unknown = np.array([1, 10, 100]), np.full(3, np.nan)
    rising = steps / 100
    measured = {"same word": (rising, rising / 9), "same topic": (rising, unknown),
                "different topic": (unknown, unknown)}
    closed = {"same word": (np.arange(1, 100), np.linspace(0, 1, 99))} if with_trajectory else {}
    figure = draw(topics_figures.block_values(steps, measured, title="title", ylabel="mean entry", closed=closed,
                                              final={"same word": 1.0, "mask column": 0.5}))
    for text in (*measured, "mask column", "± 1 s.d.", "final value"):
        assert text in words_of(figure), text
    assert ("trajectory" in words_of(figure)) == with_trajectory
    assert figure.axes[0].get_xscale() == ("log" if with_trajectory else "linear")


@pytest.mark.parametrize(("values", "with_zero"), [([0.999, 1.0005, 1.001], False), ([0.9, 0.4, 0.6], True),
                                                   ([-0.001, 0.0, 0.002], True), ([1.0, 1.0, 1.0], True)])
def test_an_axis_holds_zero_unless_the_curves_would_become_one_line(values, with_zero):
    measured = {"same word": (np.array(values), np.full(3, np.nan))}
    figure = draw(topics_figures.block_values(np.array([1, 2, 3]), measured, title="title", ylabel="mean entry"))
    low, high = figure.axes[0].get_ylim()
    assert (low <= 0 <= high) == with_zero
    assert high - low < 0.1 or with_zero


def test_block_values_of_one_step_and_one_seed():
    for steps in ([0], [7]):
        measured = {"same word": (np.array([0.2]), np.array([0.0]))}
        figure = draw(topics_figures.block_values(steps, measured, title="title", ylabel="mean entry"))
        assert "s.d." not in words_of(figure)


def test_ridge_path():
    ridges = np.logspace(-8, -1, 30)
    # one of them is constant
    blocks = {name: np.linspace(0.2, 0, 30) * (index - 1) for index, name in enumerate(BLOCKS)}
    limits = {"W_inf (N first)": dict.fromkeys(BLOCKS, -0.1), "W_lim (lambda first)": dict.fromkeys(BLOCKS, -0.1)}
    draw(topics_figures.ridge_path(ridges, {128: blocks}, limits, {}, title="title"))
    lengths = {length: blocks for length in (128, 1024, 10**6)}
    figure = draw(topics_figures.ridge_path(ridges, lengths, limits, {length: (1 / length, 0.01) for length in lengths},
                                            title="title"))
    for text in ("1,024", "1,000,000", "W_inf −0.1000", "W_lim −0.1000", "W_inf (N first)"):
        assert text in words_of(figure), text


def test_ridge_path_of_one_ridge_and_of_nothing_known():
    draw(topics_figures.ridge_path([1e-3], {9: {"same word": [0.1]}}, {"W_inf": {"same word": np.nan}}, {},
                                   title="title"))
    unknown = {name: [np.nan, np.nan] for name in BLOCKS[:3]}
    draw(topics_figures.ridge_path([1e-3, 1e-2], {9: unknown}, {}, {9: (1e-3, 1e-2)}, title="title"))


def test_loss_surface():
    alpha, beta = np.logspace(-1, 2, 20), np.logspace(-1, 1, 15)
    loss = (np.log(alpha[:, None] + 9 * beta) - 4) ** 2
    line = (54 - 9 * beta, beta)
    for path in (([1, 5, 6], [1, 4, 6]), ([2.0], [3.0]), ([1, np.nan], [1, np.nan])):
        figure = draw(topics_figures.loss_surface(alpha, beta, loss, path=path, optimum_line=line, title="title"))
        assert "loss above its lowest value" in figure.axes[1].get_ylabel()
    figure = draw(topics_figures.loss_surface(alpha, beta, 0 * loss, path=path, optimum_line=line, title="title"))
    assert "the same everywhere" in words_of(figure)


def test_loss_over_ratio():
    rho = np.logspace(-1, 2, 49)  # 1 is among them
    for loss, best in (((np.log(rho) - 1) ** 2, (np.e, 3.0)), (np.ones(49), (1.0, 1.0))):
        figure = draw(topics_figures.loss_over_ratio(rho, loss, best=best, trained=(2.7, 0.0), label="tau = 1",
                                                     title="title"))
        assert f"tau = 1: loss {1.0:.4f}" in words_of(figure)
        assert f"= {best[0]:.3g}" in words_of(figure)


@pytest.mark.parametrize("observed", [0.0, 0.5, 3.0, -40.0, 1e5, np.nan])
def test_permutation_histogram_shows_the_null_and_what_was_observed(observed):
    null = np.random.default_rng(0).uniform(-1, 1, 199)
    nulls = {"null": null, "off zero": null + 30, "constant": np.full(9, 0.5), "one": [0.25], "zero": np.zeros(5),
             "holes": np.where(null > 0, null, np.nan)}
    shown = {name: (values, observed, 0.005) for name, values in nulls.items()}
    figure = draw(topics_figures.permutation_histogram(shown, title="title",
                                              xlabel="difference"))
    for axes, values in zip(figure.axes, nulls.values(), strict=True):
        low, high = axes.get_xlim()
        assert low <= np.nanmin(values) and np.nanmax(values) <= high
        assert np.isnan(observed) or low <= observed <= high
        assert "p = 0.005" in axes.get_title()
        assert ("undefined" in words_of(axes)) == np.isnan(observed)
    draw(topics_figures.permutation_histogram({"no shuffles": ([], observed, 1.0)}, title="title", xlabel="difference"))


def test_spread_keeps_labels_apart_inside_and_near():
    np.testing.assert_allclose(spread([0, 5, 9], 2, 0, 10), [0, 5, 9])
    np.testing.assert_allclose(spread([4, 4, 9], 2, 0, 10), [3, 5, 9])
    np.testing.assert_allclose(spread([9, 9.5, 10], 2, 0, 10), [6, 8, 10])
    np.testing.assert_allclose(spread([1, 1, 1], 50, 0, 10), [0, 5, 10])  # no room: evenly
    np.testing.assert_allclose(spread([12], 2, 0, 10), [10])
    assert spread([], 2, 0, 10).shape == (0,)


STEPS, WEIGHTS = [1, 2, 5, 9], ("W_O", "V", "W", "P")


def test_theories_on_a_scale_of_nines():
    rising = {name: np.array([np.nan, 1.0, 0.9, -0.99]) for name in WEIGHTS}
    nearer = {name: 1 - 1e-9 * np.arange(4) for name in WEIGHTS}
    loss = np.linspace(7, 5, 10)
    figure = draw(associations_figures.theories(STEPS, {"leading": rising, "of one weight": {"W_O": rising["W_O"]},
                                                        "reduced": nearer}, loss,
                                 {"reduced": loss[:4]}, title="title"))
    for text in ("leading", "of one weight", "reduced", "trained", "0.99", "≥ 0.999999"):
        assert text in words_of(figure), text
    undefined = {"leading": {name: [np.nan] for name in WEIGHTS}}
    draw(associations_figures.theories([1], undefined, [7.0, 6.9], {}, title="title"))


def test_corrections_ring_where_a_share_is_first_exceeded():
    norms = {name: {"leading": [1.0, 1.0, 1.0, 1.0], "saturation": [0, 0.005, 0.05, 0.2], "weight drift": [0, 0, 0, 0]}
             for name in WEIGHTS}
    figure = draw(associations_figures.corrections(STEPS, norms, first_exceeds(STEPS, norms), title="title"))
    assert "saturation" in words_of(figure)
    rings = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in rings] == [2, 0]
    np.testing.assert_array_equal(rings[0].get_ydata(), [0.01, 0.1])
    rounding = {name: {"leading": [1.0] * 4, "saturation": [1e-16, 0.005, 0.05, 0.2]} for name in WEIGHTS}
    figure = draw(associations_figures.corrections(STEPS, rounding, first_exceeds(STEPS, rounding), title="title"))
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[0])  # else a vertical line would lead to the second step
    nothing = {name: {"leading": [0.0], "saturation": [0.0], "weight drift": [0.0]} for name in WEIGHTS}
    draw(associations_figures.corrections([1], nothing, first_exceeds([1], nothing), title="title"))
