"""Figures of the topics theory (Li, Li, Risteski 2023): block structure of embeddings, value matrix and attention.

T topics, v words each, n = T v words, V = n + 1 tokens with [MASK]. Blocks of a matrix over tokens are: same word (the
diagonal), same topic (different words of one topic), different topic, mask column.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from minitx.base.style import COLOURS, DASHES, MARKERS, literal, log_ticks, spread

# The colour and marker of each block are the same in every figure.
BLOCKS = {"same word": (COLOURS[0], "o"), "same topic": (COLOURS[1], "s"), "different topic": (COLOURS[2], "^"),
          "mask column": (COLOURS[3], "D")}
LIMITS = ((0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 3)))  # dashes of values in a limit
DARK, PALE = "0.25", "0.85"
SQUEEZED = 4  # An axis leaves out 0 where curves are farther from it than so many times their span.
ROOM = 1.2  # the colour scale ends so many times the 99 % quantile; a larger value clips fewer entries
LABEL_OF_SPREAD = "attention × length: mean of the class\n± s.d. of its pairs of words"
RING: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "white", "markeredgewidth": 2,
                        "linestyle": "none"}


def _finite(values):
    """The finite ones of ``values`` (any shape), as (R,) float."""
    values = np.asarray(values, np.float64).ravel()
    return values[np.isfinite(values)]


def _signed(value, digits="3g"):
    """``value`` with a minus sign in place of a hyphen."""
    return f"{value:.{digits}}".replace("-", "−")


def _darker(colour):
    return tuple(0.55 * part for part in matplotlib.colors.to_rgb(colour))


def _every(count, most=24):
    """Marker on every so many points that there are no more than ``most``."""
    return max(1, -(-count // most))


def _look(index):
    """Colour, dashes and marker of the ``index``-th line."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)],
            "marker": MARKERS[index % len(MARKERS)]}


def _panels(count, columns, width, height, extra, **settings):
    """(figure, its ``count`` panels, those of the first column), in rows of at most ``columns``.

    A panel takes (``width``, ``height``) inches, and the figure ``extra`` inches more.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * width + extra[0], rows * height + extra[1]), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **settings)
    for axes in panels.flat[count:]:
        axes.remove()
    return figure, list(panels.flat[:count]), panels[:, 0]


def _key(label, **look):
    """An entry of a legend."""
    return Line2D([], [], label=label, **look)


def _legend(figure, handles, place="lower center", ncols=2):
    figure.legend(handles=handles, loc=f"outside {place}", fontsize=9, handlelength=3.2, ncols=ncols)


# ----------------------------------------------------------------------------------------------------- heat maps


def topic_heat_maps(matrices: Mapping[str, ArrayLike], topics: ArrayLike, *, title: str,
                    names: Mapping[int, str] | None = None, positive: bool = False,
                    row_label: str = "output word", column_label: str = "attended word",
                    value_label: str = "entry") -> Figure:
    """Matrices over tokens side by side, tokens sorted by topic, on one colour scale.

    The scale ends a fifth above the 99 % quantile of the sizes of entries between different words of one topic (or of
    different topics, if larger): the diagonal (same word) can be many times larger, and is then drawn in the colour of
    the arrow.

    Parameters
    ----------
    matrices : dict {panel title: (V, V) float}
        nan is drawn grey: the two words never meet.
    topics : (V,) int
        Topic of each token; -1: [MASK], which comes first.
    names : dict {topic: str}, optional
        Names of the topics in place of their numbers.
    positive : bool
        The scale begins at 0, for entries that cannot be negative; otherwise it is blue below 0, white at 0, red above.
    row_label, column_label : str
        What a row and a column of the matrices is; ", by topic" is added.
    value_label : str
        What an entry is, for the colour bar.
    """
    topics = np.asarray(topics)
    order = np.argsort(topics, kind="stable")
    shown = {panel: np.asarray(matrix, np.float64)[np.ix_(order, order)] for panel, matrix in matrices.items()}
    limit, lowest, highest = _colour_limit(shown.values(), topics[order], positive)
    least = 0 if positive else -limit
    cmap = matplotlib.colormaps["Blues" if positive else "RdBu_r"]
    cmap = cmap.with_extremes(bad="0.7", over="#E69F00", under="#000000")
    side = 5.4 if len(matrices) == 1 else 4.4  # inches, of a panel
    figure, panels, _ = _panels(len(matrices), 2, side + 0.8, side + 1.0, (1.0, 0.5 + 0.3 * title.count("\n")))
    for axes, (panel, matrix) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(matrix, cmap=cmap, vmin=least, vmax=limit, interpolation="nearest")
        _topic_axes(axes, topics[order], names, side)
        axes.set_title(panel, fontsize=11)
        axes.set_ylabel(f"{row_label}, by topic")
        axes.set_xlabel(f"{column_label}, by topic")
    if any(np.isnan(matrix).any() for matrix in shown.values()):
        value_label += "; grey: the two never meet"
    above, below = bool(highest > limit), bool(lowest < least)
    beyond = [f"largest {_signed(highest)}"] * above + [f"smallest {_signed(lowest)}"] * below
    if beyond:
        value_label += f"\n(colours end at {'' if positive else '±'}{limit:.3g}; {', '.join(beyond)})"
    extend = ("neither", "min", "max", "both")[2 * above + below]
    figure.colorbar(image, ax=panels, shrink=0.85, fraction=0.05, aspect=30, pad=0.02, label=value_label, extend=extend)
    figure.suptitle(title)
    return figure


def _colour_limit(matrices, topics, positive):
    """(end of the colour scale, smallest entry, largest entry) for matrices sorted as ``topics``, (V,) int, are."""
    word = topics >= 0
    different = word[:, None] & word & ~np.eye(len(topics), dtype=bool)
    same = different & (topics[:, None] == topics)
    limit, lowest, highest = 0.0, 0.0, 0.0
    for matrix in matrices:
        size = matrix if positive else np.abs(matrix)
        groups = [_finite(size[same]), _finite(size[different & ~same])] if same.any() else [_finite(size)]
        limit = max([limit] + [ROOM * np.quantile(group, 0.99) for group in groups if len(group)])
        entries = _finite(matrix)
        lowest, highest = min(lowest, entries.min(initial=0.0)), max(highest, entries.max(initial=0.0))
    largest = highest if positive else max(-lowest, highest)
    if not limit > 0 or largest <= limit:  # nothing to clip
        limit = largest
    return limit if limit > 0 else 1.0, lowest, highest


def _topic_axes(axes, topics, names, side):
    """Thin lines between topics; the number or name of each stands at its middle, or aside where topics are small."""
    starts = np.flatnonzero(np.diff(topics, prepend=topics[0] - 1))
    ends = np.append(starts[1:], len(topics))
    width = min(0.5, 3.0 * side / len(starts))  # points
    for border in starts[1:] - 0.5:
        axes.axhline(border, color=DARK, linewidth=width)
        axes.axvline(border, color=DARK, linewidth=width)
    labels = ["[MASK]" if topic < 0 else literal(names[topic]) if names else str(topic) for topic in topics[starts]]
    gap = 0.15 * len(topics) / side  # lines of text, in cells
    thinned = slice(None, None, max(1, int(np.ceil(len(labels) * gap / len(topics)))))
    centres, labels = ((starts + ends - 1) / 2)[thinned], labels[thinned]
    places = spread(centres, gap, -0.5, len(topics) - 0.5)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(places, labels, fontsize=8)
    reach = 0.018 if np.allclose(places, centres) else 0.04  # of the leaders, as a part of the panel
    axes.tick_params(length=0, pad=reach * side * 72 + 2)
    for label, text in zip(axes.get_xticklabels(), labels, strict=True):
        label.set_rotation(90 if len(text) > 2 else 0)
    for centre, place in zip(centres, places, strict=True):
        leader = {"color": DARK, "linewidth": 0.6, "clip_on": False}
        along, outwards = [centre, centre, place], [0, -0.3 * reach, -reach]
        axes.add_artist(Line2D(along, outwards, transform=axes.get_xaxis_transform(), **leader))
        axes.add_artist(Line2D(outwards, along, transform=axes.get_yaxis_transform(), **leader))


# -------------------------------------------------------------------------------------------------- block values


def block_values(steps: NDArray[np.integer], measured: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], *,
                 title: str, ylabel: str, closed: Mapping[str, tuple[ArrayLike, ArrayLike]] = MappingProxyType({}),
                 final: Mapping[str, float] = MappingProxyType({})) -> Figure:
    """Mean of each block of a trained matrix over training, beside its closed forms.

    Names of blocks are those of ``BLOCKS``; the closed forms have a darker shade of the colour of their block. The
    axis of steps is logarithmic where there is a closed trajectory.

    Parameters
    ----------
    steps : (R,) int
        Above 0 where there is a closed trajectory.
    measured : dict {block name: (mean (R,), sd (R,))}
        Mean and standard deviation over seeds; a band of one standard deviation is drawn where it is known.
    closed : dict {block name: ((S,) int steps, (S,) float values)}
        Closed trajectory (dashed).
    final : dict {block name: float}
        Closed final value (dotted).
    """
    figure = Figure(figsize=(7.5, 5.4), layout="constrained")
    axes = figure.subplots()
    for name, value in final.items():
        axes.axhline(value, color=_darker(BLOCKS[name][0]), linestyle=LIMITS[0], linewidth=1.4)
    for name, (fine, values) in closed.items():
        axes.plot(fine, values, color=_darker(BLOCKS[name][0]), linestyle=DASHES[1], linewidth=1.4, zorder=4,
                  label=f"{name}, closed form")
    banded = [_measured(axes, steps, mean, sd, name) for name, (mean, sd) in measured.items()]
    if closed:
        axes.set_xscale("log")
        log_ticks(axes.xaxis)
    _with_zero(axes, [*(mean for mean, _ in measured.values()), *(values for _, values in closed.values()),
                      list(final.values())])
    axes.set(xlabel="gradient descent steps", ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    text = "measured, mean ± 1 s.d. over seeds" if any(banded) else "measured"
    kinds = [_key(text, color="0.6", linewidth=2.5)]
    kinds += [_key("closed form of the trajectory", color=DARK, linestyle=DASHES[1])] * bool(closed)
    kinds += [_key("closed form of the final value", color=DARK, linestyle=LIMITS[0])] * bool(final)
    undefined = {name for name, (mean, _) in measured.items() if not len(_finite(mean))}
    blocks = [_key(name + " (undefined)" * (name in undefined), color=colour, marker=marker)
              for name, (colour, marker) in BLOCKS.items() if name in {*measured, *closed, *final}]
    _legend(figure, blocks, "lower left", 1)
    _legend(figure, kinds, "lower right", 1)
    return figure


def two_stages(steps: NDArray[np.integer], ways: Mapping[str, ArrayLike], recorded: Sequence[int],
               attention: Mapping[str, tuple[ArrayLike, ArrayLike]], *, title: str) -> Figure:
    """Above, how much of its way each part of the weights has gone; below, attention by class with its spread.

    Parameters
    ----------
    steps : (R,) int
        Above 0; drawn on a logarithmic scale.
    ways : dict {name of the part, which may be mathematics: (R,) float}
        Its distance from the start, as a share of that at the end; dotted lines mark 1%, 10% and 50%.
    recorded : (Q,) int
        Steps at which attention was measured.
    attention : dict {block name: (mean (Q,), sd (Q,))}
        Mean of the pairs of the class, times the length, and their standard deviation within the class, as a band.
    """
    figure = Figure(figsize=(7.5, 7.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for index, (name, way) in enumerate(ways.items()):
        upper.plot(steps, way, markevery=_every(len(steps), 12), label=name, **_look(index) | {"markersize": 5})
    for share in (0.01, 0.1, 0.5):
        upper.axhline(share, color=DARK, linestyle=LIMITS[0], linewidth=0.9)
    upper.set(xscale="log", yscale="log", ylim=(2e-3, 1.6), ylabel="distance from the start, share of the last")
    upper.set_yticks([0.01, 0.1, 0.5, 1], ["1%", "10%", "50%", "100%"])
    upper.minorticks_off()
    for name, (mean, sd) in attention.items():
        _measured(lower, np.asarray(recorded), np.asarray(mean), np.asarray(sd), name)
    lower.set(xlabel="gradient descent steps", ylabel=LABEL_OF_SPREAD)
    log_ticks(lower.xaxis)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    parts = [_key(name, **_look(index) | {"markersize": 5}) for index, name in enumerate(ways)]
    classes = [_key(name, color=BLOCKS[name][0], marker=BLOCKS[name][1]) for name in attention]
    _legend(figure, parts, "lower left", 1)
    _legend(figure, classes, "lower right", 1)
    return figure


def _with_zero(axes, drawn):
    """A line at 0, unless it would squeeze curves that are far from 0, compared with their span, into one line."""
    values = np.concatenate([np.zeros(0), *map(_finite, drawn)])
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if not len(values) or max(0, low, -high) < SQUEEZED * (high - low) or low == high:
        axes.axhline(0, color=PALE, linewidth=1, zorder=0)
    axes.ticklabel_format(axis="y", useOffset=False)


def _measured(axes, steps, mean, sd, name):
    """Line with markers, and a band unless ``sd`` is zero or unknown; returns whether there is a band."""
    colour, marker = BLOCKS[name]
    axes.plot(steps, mean, color=colour, linewidth=2.5, alpha=0.6, label=name)
    axes.plot(steps, mean, color=colour, linestyle="none", marker=marker, markersize=6, markevery=_every(len(steps)),
              markeredgecolor="white", markeredgewidth=0.5, zorder=3)
    banded = bool((_finite(sd) > 0).any())
    if banded:
        axes.fill_between(steps, mean - sd, mean + sd, color=colour, alpha=0.25, linewidth=0)
    return banded


# --------------------------------------------------------------------------------------------------------- ridge


def ridge_path(ridges: ArrayLike, blocks: Mapping[int, Mapping[str, ArrayLike]],
               limits: Mapping[str, Mapping[str, float]], windows: Mapping[int, tuple[float, float]], *,
               title: str) -> Figure:
    """Block values of the least-squares value matrix against the ridge, a panel a block: the two limits do not commute.

    At fixed document length N, each line ends on the left (ridge to 0) near the limit "ridge to 0 first"; the longer
    the documents, the longer it stays at the limit "N to infinity first" before.

    Parameters
    ----------
    ridges : (R,) float
        The lambda of loss + lambda |W|_F^2, above 0.
    blocks : dict {N: {block name: (R,) float}}
    limits : dict {limit name: {block name: float}}
        Drawn as horizontal lines; the part of the name before " (" stands at the line, the whole in the legend.
    windows : dict {N: (low, high)}
        Ridges at which the paper's form can appear, drawn as a bar at the top for each length.
    """
    ridges = np.asarray(ridges, np.float64)
    names = list(next(iter(blocks.values())))
    looks = {length: _look(index) | {"linewidth": 1.2 + 1.2 * index / max(1, len(blocks) - 1), "markersize": 4}
             for index, length in enumerate(blocks)}  # lines are wider for longer documents
    figure, panels, left = _panels(len(names), 2, 5.2, 3.1, (0.4, 1.2), sharex=True)
    for axes, name in zip(panels, names, strict=True):
        for length, values in blocks.items():
            axes.plot(ridges, values[name], markevery=_every(len(ridges), 9), **looks[length])
        axes.set_xscale("log")
        for index, (length, (low, high)) in enumerate(windows.items()):
            axes.plot([low, high], [0.965 - 0.03 * index] * 2, color=looks[length]["color"], linewidth=3.5,
                      solid_capstyle="butt", transform=axes.get_xaxis_transform())
        axes.set_xlim(ridges.min() / 1.2, ridges.max() * 1.2)
        axes.set_title(name, fontsize=11)
        axes.grid(alpha=0.3)
        _limits(axes, {limit: values[name] for limit, values in limits.items()}, 0.035 * len(windows))
    for axes in panels[-2:]:
        axes.set_xlabel(r"ridge $\lambda$ in loss + $\lambda\,\Vert W\Vert_F^2$")
        axes.tick_params(labelbottom=True)
    for axes in left:
        axes.set_ylabel("mean entry of the block")
    figure.suptitle(title)
    handles = [_key(f"minimiser, documents of $N$ = {length:,} words", **look) for length, look in looks.items()]
    handles += [_key(limit, color="black", linestyle=dashes, linewidth=1.2)
                for limit, dashes in zip(limits, LIMITS, strict=False)]
    handles.append(_key(r"bars: $\lambda$ at which the paper's form can appear", color=DARK, linewidth=3.5))
    _legend(figure, handles)
    return figure


def _limits(axes, limits, room):
    """Horizontal lines at the ``limits``, named at the right, and ``room`` at the top, as a part of the panel."""
    for dashes, value in zip(LIMITS, limits.values(), strict=False):
        axes.axhline(value, color="black", linestyle=dashes, linewidth=1.2)
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    high += room * (high - low)
    axes.set_ylim(low, high)
    shown = sorted(((value, limit) for limit, value in limits.items() if np.isfinite(value)), key=lambda pair: pair[0])
    places = spread([value for value, _ in shown], 0.09 * (high - low), low, high)
    beside = axes.get_yaxis_transform()
    for place, (value, limit) in zip(places, shown, strict=True):
        axes.annotate(f"{limit.split(' (')[0]} {_signed(value, '4f')}", (1, value), (1.02, place), xycoords=beside,
                      textcoords=beside, va="center", fontsize=8, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0})


# ------------------------------------------------------------------------------------------------------- stage 2


def loss_surface(alpha: ArrayLike, beta: ArrayLike, loss: ArrayLike, *,
                 path: tuple[Sequence[float], Sequence[float]],
                 optimum_line: tuple[ArrayLike, ArrayLike], title: str) -> Figure:
    """Loss of the second stage over the two attention values, and the way of training through it.

    Parameters
    ----------
    alpha : (A,) float
        Attention values of the same word, where words of other topics have 1; above 0, ascending, two or more.
    beta : (B,) float
        Those of other words of the same topic; above 0, ascending, two or more.
    loss : (A, B) float
        ``loss[i, j]`` at ``alpha[i]``, ``beta[j]``; drawn as its distance from its lowest, in logarithmic colours.
    path : (alpha (R,), beta (R,))
        Training on infinite documents, with a ring at the start and a filled marker at the end.
    optimum_line : (alpha (L,), beta (L,))
        Where alpha + (v - 1) beta has its best value.
    """
    alpha, beta, loss = (np.asarray(values, np.float64) for values in (alpha, beta, loss))
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", title=title, ylabel=r"attention to another word of the same topic, $\beta$",
             xlabel=r"attention to the same word, $\alpha$ (a word of another topic: 1)")
    _surface(figure, axes, alpha, beta, loss)
    line: dict[str, Any] = {"color": "black", "linestyle": DASHES[1], "linewidth": 2}
    axes.plot(*optimum_line, **line)
    centre: dict[str, Any] = {"marker": "+", "markersize": 13, "markeredgewidth": 2, "color": "black",
                              "linestyle": "none"}
    axes.plot(*path, color="white", linewidth=4)
    trained: dict[str, Any] = {"color": COLOURS[1], "linewidth": 2}
    axes.plot(*path, **trained, label="trained")
    along, across = path
    axes.plot(along[0], across[0], color=COLOURS[1], **RING)
    axes.plot(along[-1], across[-1], color=COLOURS[1], marker="o", markersize=10, markeredgecolor="white")
    axes.plot(1, 1, **centre)
    handles = [_key(r"best ratio $\rho^*$: $\alpha + (v-1)\,\beta = v\,\rho^*$", **line),
               _key("uniform attention (1, 1)", **centre),
               _key("trained on infinite documents", marker="o", **trained),
               _key("start of training", color=DARK, **RING)]
    axes.set_xlim(alpha.min(), alpha.max())
    axes.set_ylim(beta.min(), beta.max())
    _legend(figure, handles)
    return figure


def _surface(figure, axes, alpha, beta, loss):
    """Filled contours of the loss above its lowest value, at logarithmic levels; words if it is constant."""
    lowest, span = loss.min(), np.ptp(loss)
    if not span > 1e-14 * np.abs(loss).max():
        axes.text(0.5, 0.94, "the loss is the same everywhere", ha="center", va="top", transform=axes.transAxes)
        return
    levels, excess = span * np.logspace(-3, 0, 13), loss.T - lowest
    filled = axes.contourf(alpha, beta, np.clip(excess, 0, levels[-1]), levels=[0, *levels], cmap="cividis_r",
                           norm=matplotlib.colors.SymLogNorm(levels[0], vmin=0, vmax=levels[-1]))
    axes.contour(alpha, beta, excess, levels=levels[:-1], colors=DARK, linewidths=0.4)
    bar = figure.colorbar(filled, ax=axes, ticks=[0, *levels[::4]], shrink=0.9,
                          label=f"loss above its lowest value here, {lowest:.5g}")
    bar.ax.set_yticklabels(["0", *(f"{level:.2g}" for level in levels[::4])])


def loss_over_ratio(rho: ArrayLike, loss: ArrayLike, *, best: tuple[float, float], trained: tuple[float, float],
                    label: str, title: str) -> Figure:
    """Loss of the second stage against the attention of the same topic over that of a different topic.

    Parameters
    ----------
    rho : (R,) float
        Ratios, ascending, above 0 and with 1 (uniform attention) among or between them.
    loss : (R,) float
        Drawn less the loss of uniform attention.
    best : (ratio, bound)
        The best ratio is a ring on the curve, its upper bound a thin vertical line.
    trained : (ratio, loss)
        Where training ended, drawn as a cross.
    label : str
        What the documents are, for the legend.
    """
    rho, loss = np.asarray(rho, np.float64), np.asarray(loss, np.float64)
    uniform, lowest = np.interp([0, np.log(best[0])], np.log(rho), loss)
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=PALE, zorder=0)
    axes.axvline(1, color=PALE, zorder=0)
    curve: dict[str, Any] = {"color": COLOURS[0]}
    bound: dict[str, Any] = {"color": COLOURS[0], "linestyle": LIMITS[0], "linewidth": 1.2}
    end: dict[str, Any] = {"color": _darker(COLOURS[0]), "marker": "x", "markersize": 9, "markeredgewidth": 2,
                           "linestyle": "none"}
    axes.plot(rho, loss - uniform, label=f"loss, {label}", **curve)
    axes.axvline(best[1], **bound)
    axes.plot(best[0], lowest - uniform, color=COLOURS[0], zorder=3, **RING)
    axes.plot(trained[0], trained[1] - uniform, zorder=4, **end)
    axes.set(xscale="log", xlim=(rho[0], rho[-1]), ylabel="loss minus the loss of uniform attention", title=title,
             xlabel=r"attention ratio $\rho$, same topic : different topic (1 = uniform)")
    axes.grid(alpha=0.3)
    _legend(figure, [_key(f"{label}: loss {uniform:.4f} at $\\rho$ = 1, $\\rho^*$ = {best[0]:.3g}", **curve)],
            "lower left", 1)
    _legend(figure, [_key(r"best ratio $\rho^*$", color=COLOURS[0], **RING),
                     _key(r"its upper bound $\rho_{AB}$", **bound), _key("end of training", **end)], "lower right", 1)
    return figure


# ---------------------------------------------------------------------------------------------- permutation tests


def permutation_histogram(tests: Mapping[str, tuple[ArrayLike, float, float]], *, title: str, xlabel: str) -> Figure:
    """Histograms of statistics under shuffled topic labels, a panel a statistic, and what was observed.

    Parameters
    ----------
    tests : dict {name: (null (S,) float, observed float, p float)}
        Values under S shuffles (those that are not finite are left out), the observed value, and its p-value.
    """
    figure, panels, left = _panels(len(tests), 3, 4, 3.3, (0.5, 0.9))
    for axes, (name, (null, observed, p)) in zip(panels, tests.items(), strict=True):
        null = _finite(null)
        _histogram(axes, null, observed)
        axes.set_xlabel(xlabel)
        axes.set_title(f"{name}\nobserved {_signed(observed)}, p = {p:.2g} ({len(null):,} shuffles)", fontsize=10)
        axes.grid(alpha=0.3)
    for axes in left:
        axes.set_ylabel("number of shuffles")
    figure.suptitle(title)
    _legend(figure, [Patch(color=COLOURS[4], label="under shuffled topic labels"),
                     _key("observed", color=COLOURS[1], linewidth=2.5)])
    return figure


def _histogram(axes, null, observed):
    bins, centre = min(40, max(5, round(len(null) ** 0.5))), null.mean() if len(null) else 0.0
    reach = np.abs(_finite([*null, observed])).max(initial=0.0)
    if not len(null) or np.ptp(null) <= 1e-12 * reach:  # constant up to rounding: a bar that is wide enough to be seen
        half = reach / 20 or 0.5
        null, bins = np.full(len(null), centre), [centre - half, centre + half]
    axes.hist(null, bins=bins, color=COLOURS[4], histtype="stepfilled")
    if np.isfinite(observed):
        axes.axvline(observed, color=COLOURS[1], linewidth=2.5)
    else:
        axes.text(0.5, 0.9, "observed: undefined", ha="center", transform=axes.transAxes)
    axes.xaxis.set_major_locator(MaxNLocator(4))
