"""Figures of the topics paper (Li, Li, Risteski, ICML 2023): block structure of embeddings, value matrix and attention.

T topics, v words each, n = T v words, V = n + 1 tokens with [MASK]. Blocks of a matrix over tokens: same word (the diagonal), same
topic (different words of one topic), different topic, mask column.
"""

from itertools import islice

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from minitx.base.style import COLOURS, DASHES, MARKERS, literal, spread

# One colour and marker a block, the same in every figure; what has another name takes the colours that are left.
BLOCKS = {"same word": (COLOURS[0], "o"), "same topic": (COLOURS[1], "s"), "different topic": (COLOURS[2], "^"),
          "mask column": (COLOURS[3], "D")}
LIMITS = ((0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 3)))  # dashes of values in a limit
DARK, PALE = "0.25", "0.85"
ROOM = 1.2  # the colour scale ends so much above the 99 % quantile
FAR = 6.0  # an observed value so many null ranges away makes the axis logarithmic there


def _look(names):
    """{name: (colour, marker)}, the block's own where the name is that of a block."""
    free = iter([pair for pair in zip(COLOURS, MARKERS, strict=True) if pair not in BLOCKS.values()] * (len(names) // 4 + 1))
    return {name: BLOCKS[name] if name in BLOCKS else next(free) for name in names}


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


# -------------------------------------------------------------------------------------------------------- heat maps


def topic_heat_maps(matrices, topics, *, title, names=None, positive=False, row_label="output word", column_label="attended word",
                    value_label="entry"):
    """Matrices over tokens side by side, tokens sorted by topic, on one colour scale.

    The scale ends a fifth above the 99 % quantile of the sizes of entries between different words of one topic (or of different
    topics, if larger): the diagonal (same word) can be many times larger, and is then drawn in the colour of the arrow.

    Parameters
    ----------
    matrices : dict {panel title: (V, V) float}
        nan is drawn grey.
    topics : (V,) int
        Topic of each token; below 0: [MASK] and other special tokens, which come first.
    names : sequence or dict {topic: str}, optional
        Names of the topics in place of their numbers.
    positive : bool
        A scale from 0, for entries that cannot be negative; otherwise blue below 0, white at 0, red above.
    row_label, column_label : str or dict {panel title: str}
        What a row and a column of the matrix is; ", by topic" is added.
    value_label : str
        What an entry is, for the colour bar.
    """
    topics = np.asarray(topics)
    order = np.argsort(topics, kind="stable")
    matrices = {panel: np.asarray(matrix, np.float64)[np.ix_(order, order)] for panel, matrix in matrices.items()}
    topics = topics[order]
    limit, lowest, highest = _colour_limit(matrices.values(), topics, positive)
    cmap = matplotlib.colormaps["Blues" if positive else "RdBu_r"].with_extremes(bad="0.7", over="#E69F00", under="#000000")
    columns = len(matrices) if len(matrices) <= 3 else -(-len(matrices) // 2)
    side = {1: 5.4, 2: 4.4}.get(columns, 3.8)  # inches, of a panel
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(columns * (side + 0.8) + 1.0, rows * (side + 1.0) + 0.5 + 0.3 * title.count("\n")),
                    layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(matrices):]:
        axes.remove()
    panels = panels.flat[:len(matrices)]
    for axes, (panel, matrix) in zip(panels, matrices.items(), strict=True):
        image = axes.imshow(matrix, cmap=cmap, vmin=0 if positive else -limit, vmax=limit, interpolation="nearest")
        _topic_axes(axes, topics, names, side)
        axes.set_title(panel, fontsize=11)
        axes.set_ylabel((row_label if isinstance(row_label, str) else row_label[panel]) + ", by topic")
        axes.set_xlabel((column_label if isinstance(column_label, str) else column_label[panel]) + ", by topic")
    above, below = bool(highest > limit), bool(lowest < (0 if positive else -limit))
    beyond = [f"largest {_signed(highest)}"] * above + [f"smallest {_signed(lowest)}"] * below
    label = f"{value_label}\n(colours end at {'' if positive else '±'}{limit:.3g}; {', '.join(beyond)})" if beyond else value_label
    figure.colorbar(image, ax=list(panels), shrink=0.85, fraction=0.05, aspect=30, pad=0.02, label=label,
                    extend={(True, True): "both", (True, False): "max", (False, True): "min"}.get((above, below), "neither"))
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
        if len(entries):
            lowest, highest = min(lowest, entries.min()), max(highest, entries.max())
    largest = highest if positive else max(-lowest, highest)
    if not limit > 0 or largest <= limit:  # nothing to clip
        limit = largest
    return limit if limit > 0 else 1.0, lowest, highest


def _topic_axes(axes, topics, names, side):
    """Thin lines between topics; the topic's number or name at the middle of each, moved aside where topics are small."""
    starts = np.flatnonzero(np.diff(topics, prepend=topics[0] - 1))
    if (special := int((topics < 0).sum())) > 1:
        starts = np.concatenate(([0], starts[starts >= special]))
    ends = np.append(starts[1:], len(topics))
    width = min(0.5, 3.0 * side / len(starts))  # points
    for border in starts[1:] - 0.5:
        axes.axhline(border, color=DARK, linewidth=width)
        axes.axvline(border, color=DARK, linewidth=width)
    labels = [_topic_name(topic, special, names) for topic in topics[starts]]
    gap = 0.15 * len(topics) / side  # lines of text, in cells
    thinned = slice(None, None, max(1, int(np.ceil(len(labels) * gap / len(topics)))))
    centres, labels = ((starts + ends - 1) / 2)[thinned], labels[thinned]
    places = spread(centres, gap, -0.5, len(topics) - 0.5)
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_yticks(places, labels, fontsize=8)
    reach = 0.018 if np.allclose(places, centres) else 0.04  # of the leaders, as a part of the panel
    axes.tick_params(length=0, pad=reach * side * 72 + 2)
    for label, text in zip(axes.get_xticklabels(), labels, strict=True):
        label.set_rotation(90 if len(text) > 2 else 0)
    for centre, place in zip(centres, places, strict=True):
        leader = {"color": DARK, "linewidth": 0.6, "clip_on": False}
        along, outwards = [centre, centre, place], [0, -0.3 * reach, -reach]
        axes.add_artist(Line2D(along, outwards, transform=axes.get_xaxis_transform(), **leader))
        axes.add_artist(Line2D(outwards, along, transform=axes.get_yaxis_transform(), **leader))


def _topic_name(topic, special, names):
    if topic < 0:
        return "[MASK]" if special == 1 else "special"
    return str(topic) if names is None else literal(str(names[topic]))


# ------------------------------------------------------------------------------------------------------ block values


def block_values(steps, measured, closed, *, title, ylabel, log_steps=True, final=None):
    """Mean of each block of a trained matrix over training, beside its closed forms.

    Parameters
    ----------
    steps : (R,) int
        On a logarithmic axis step 0 is left out.
    measured : dict {name: (mean (R,), sd (R,) or None)}
        Mean and standard deviation over seeds; a band of one standard deviation where there is one.
    closed : dict {name: ((S,) int steps, (S,) float values) or float}
        Closed trajectory (dashed) or final value (dotted), in a darker shade of the colour of what is measured under that name.
    final : dict {name: float}, optional
        Final values (dotted) of names that have a closed trajectory as well.
    """
    steps = np.asarray(steps, np.float64)
    final = {name: value for name, value in closed.items() if not isinstance(value, tuple)} | (final or {})
    closed = {name: value for name, value in closed.items() if isinstance(value, tuple)}
    log_steps = log_steps and bool((steps > 0).any())
    looks = _look(list(dict.fromkeys([*measured, *closed, *final])))
    figure = Figure(figsize=(7.5, 5.4), layout="constrained")
    axes = figure.subplots()
    for name, value in final.items():
        axes.axhline(value, color=_darker(looks[name][0]), linestyle=LIMITS[0], linewidth=1.4)
    for name, (fine, values) in closed.items():
        fine, values = np.asarray(fine, np.float64), np.asarray(values, np.float64)
        shown = fine > 0 if log_steps else fine >= 0
        axes.plot(fine[shown], values[shown], color=_darker(looks[name][0]), linestyle=DASHES[1], linewidth=1.4, zorder=4)
    shown = steps > 0 if log_steps else steps >= 0
    banded = [_measured(axes, steps, mean, sd, shown, looks[name]) for name, (mean, sd) in measured.items()]
    if log_steps:
        axes.set_xscale("log")
    axes.axhline(0, color=PALE, linewidth=1, zorder=0)
    axes.set_xlabel("gradient descent steps")
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    text = "measured, mean ± 1 s.d. over seeds" if any(banded) else "measured"
    kinds = [Line2D([], [], color="0.6", linewidth=2.5, label=text)] * bool(measured)
    kinds += [Line2D([], [], color=DARK, linestyle=DASHES[1], label="closed form of the trajectory")] * bool(closed)
    kinds += [Line2D([], [], color=DARK, linestyle=LIMITS[0], label="closed form of the final value")] * bool(final)
    blocks = [Line2D([], [], color=colour, marker=marker, label=name) for name, (colour, marker) in looks.items()]
    figure.legend(handles=blocks, loc="outside lower left", fontsize=9, handlelength=3.2)
    figure.legend(handles=kinds, loc="outside lower right", fontsize=9, handlelength=3.2)
    return figure


def _measured(axes, steps, mean, sd, shown, look):
    """Line with markers, and a band unless ``sd`` is None or zero; returns whether there is a band."""
    colour, marker = look
    mean = np.asarray(mean, np.float64)
    axes.plot(steps[shown], mean[shown], color=colour, linewidth=2.5, alpha=0.6)
    axes.plot(steps[shown], mean[shown], color=colour, linestyle="none", marker=marker, markersize=6, markevery=_every(shown.sum()),
              markeredgecolor="white", markeredgewidth=0.5, zorder=3)
    if sd is None or not (_finite(sd) > 0).any():
        return False
    sd = np.asarray(sd, np.float64)
    axes.fill_between(steps[shown], (mean - sd)[shown], (mean + sd)[shown], color=colour, alpha=0.25, linewidth=0)
    return True


# ------------------------------------------------------------------------------------------------------------- ridge


def ridge_path(ridges, blocks, limits, window=None, *, title):
    """Block values of the least-squares value matrix against the ridge, a panel a block: the two limits do not commute.

    At fixed document length N, each line ends on the left (ridge to 0) near the limit "ridge to 0 first"; the longer the documents,
    the longer it stays at the limit "N to infinity first" before.

    Parameters
    ----------
    ridges : (R,) float
        The lambda of loss + lambda |W|_F^2, above 0.
    blocks : dict {block name: (R,) float}, or dict {N: {block name: (R,) float}}
    limits : dict {limit name: {block name: float}}
        Drawn as horizontal lines; the part of the name before " (" stands at the line, the whole in the legend.
    window : (low, high), or dict {N: (low, high)}, optional
        Ridges at which the paper's form can appear; where several, a bar each at the top.
    """
    by_length = blocks if isinstance(next(iter(blocks.values())), dict) else {None: blocks}
    names = list(dict.fromkeys(name for values in by_length.values() for name in values))
    windows = window if isinstance(window, dict) else {None: window} if window is not None else {}
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5.2 * columns + 0.4, 3.1 * rows + 1.2), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in panels.flat[len(names):]:
        axes.remove()
    for position, (axes, name) in enumerate(zip(panels.flat, names, strict=False)):
        _ridge_panel(axes, np.asarray(ridges, np.float64), _of(name, by_length), _of(name, limits), windows, list(by_length))
        axes.set_title(name, fontsize=11)
        if position + columns >= len(names):
            axes.set_xlabel(r"ridge $\lambda$ in loss + $\lambda\,\Vert W\Vert_F^2$")
            axes.tick_params(labelbottom=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean entry of the block")
    figure.suptitle(title)
    figure.legend(handles=_ridge_legend(by_length, limits, windows), loc="outside lower center", ncols=2, fontsize=9,
                  handlelength=3.2)
    return figure


def _of(name, tables):
    """{key: table[name]} of those tables, {key: table}, that have it."""
    return {key: table[name] for key, table in tables.items() if name in table}


def _length_look(index, count):
    """Colour, dashes, marker and width of the line of the ``index``-th of ``count`` document lengths, wider for longer ones."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)],
            "marker": MARKERS[index % len(MARKERS)], "linewidth": 1.2 + 1.2 * index / max(1, count - 1)}


def _ridge_panel(axes, ridges, lines, limits, windows, lengths):
    for dashes, value in zip(LIMITS, limits.values(), strict=False):
        axes.axhline(value, color="black", linestyle=dashes, linewidth=1.2)
    for length, values in lines.items():
        look = _length_look(lengths.index(length), len(lengths))
        axes.plot(ridges, values, markersize=4, markevery=_every(len(ridges), 9), **look)
    axes.set_xscale("log")
    for index, (length, (low, high)) in enumerate(windows.items()):
        if len(windows) == 1:
            axes.axvspan(low, high, color=PALE, zorder=0)
        else:
            colour = _length_look(lengths.index(length), len(lengths))["color"] if length in lengths else DARK
            axes.plot([low, high], [0.965 - 0.03 * index] * 2, color=colour, linewidth=3.5, solid_capstyle="butt",
                      transform=axes.get_xaxis_transform())
    axes.margins(y=0.12)
    axes.set_xlim(ridges.min() / 1.2, ridges.max() * 1.2)
    low, high = axes.get_ylim()
    if len(windows) > 1:
        high += 0.035 * len(windows) * (high - low)
        axes.set_ylim(low, high)
    shown = sorted(((value, limit) for limit, value in limits.items() if np.isfinite(value)), key=lambda pair: pair[0])
    for place, (value, limit) in zip(spread([value for value, _ in shown], 0.09 * (high - low), low, high), shown, strict=True):
        beside = axes.get_yaxis_transform()
        axes.annotate(f"{limit.split(' (')[0]} {_signed(value, '4f')}", (1, value), (1.02, place), xycoords=beside,
                      textcoords=beside, va="center", fontsize=8, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0})
    axes.grid(alpha=0.3)


def _ridge_legend(by_length, limits, windows):
    handles = [Line2D([], [], markersize=4, **_length_look(index, len(by_length)),
                      label="minimiser" if length is None else f"minimiser, documents of $N$ = {length:,} words")
               for index, length in enumerate(by_length)]
    handles += [Line2D([], [], color="black", linestyle=dashes, linewidth=1.2, label=limit)
                for limit, dashes in zip(limits, LIMITS, strict=False)]
    if len(windows) == 1:
        handles.append(Patch(color=PALE, label=r"$\lambda$ at which the paper's form can appear"))
    elif windows:
        handles.append(Line2D([], [], color=DARK, linewidth=3.5, label=r"bars: $\lambda$ at which the paper's form can appear"))
    return handles


# ----------------------------------------------------------------------------------------------------------- stage 2


def loss_surface(alpha, beta, loss, *, paths, optimum_line, title):
    """Loss of the second stage over the two attention values, and the way of training through it.

    Parameters
    ----------
    alpha : (A,) float
        Attention values of the same word, where words of other topics have 1; above 0, ascending, two or more.
    beta : (B,) float
        Those of other words of the same topic; above 0, ascending, two or more.
    loss : (A, B) float
        ``loss[i, j]`` at ``alpha[i]``, ``beta[j]``; drawn as its distance from its lowest, in logarithmic colours.
    paths : dict {label: (alpha (R,), beta (R,))}
        Trained trajectories; a ring at the start, a filled marker at the end.
    optimum_line : (alpha (L,), beta (L,)) or None
        Where alpha + (v - 1) beta has its best value.
    """
    alpha, beta, loss = (np.asarray(values, np.float64) for values in (alpha, beta, loss))
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    _surface(figure, axes, alpha, beta, loss)
    if optimum_line is not None:
        axes.plot(*optimum_line, color="black", linestyle=DASHES[1], linewidth=2,
                  label=r"best ratio $\rho^*$: $\alpha + (v-1)\,\beta = v\,\rho^*$")
    for index, (label, (along, across)) in enumerate(paths.items()):
        colour, marker = (COLOURS[1:] + COLOURS[:1])[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        along, across = np.asarray(along, np.float64), np.asarray(across, np.float64)
        axes.plot(along, across, color="white", linewidth=4)
        axes.plot(along, across, color=colour, linestyle=DASHES[index % len(DASHES)], linewidth=2)
        axes.plot(along[:1], across[:1], marker="o", markersize=9, color=colour, markerfacecolor="white", markeredgewidth=2)
        axes.plot(along[-1:], across[-1:], marker=marker, markersize=10, color=colour, markeredgecolor="white")
        axes.plot([], [], color=colour, linestyle=DASHES[index % len(DASHES)], linewidth=2, marker=marker, label=label)
    axes.plot(1, 1, marker="+", markersize=13, markeredgewidth=2, color="black", linestyle="none", label="uniform attention (1, 1)")
    axes.set_xlim(alpha.min(), alpha.max())
    axes.set_ylim(beta.min(), beta.max())
    axes.set_xlabel(r"attention to the same word, $\alpha$ (a word of another topic: 1)")
    axes.set_ylabel(r"attention to another word of the same topic, $\beta$")
    axes.set_title(title)
    handles, labels = axes.get_legend_handles_labels()
    if paths:
        handles.append(Line2D([], [], color=DARK, marker="o", markersize=8, markerfacecolor="white", linestyle="none"))
        labels.append("start of training")
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, handlelength=3.2)
    return figure


def _surface(figure, axes, alpha, beta, loss):
    """Filled contours of the loss above its lowest value, at logarithmic levels; says so where the loss is constant or unknown."""
    known = _finite(loss)
    span = np.ptp(known) if len(known) else 0.0
    if not span > 1e-14 * np.abs(known).max(initial=0.0):
        text = "the loss is the same everywhere" if len(known) else "the loss is undefined"
        axes.text(0.5, 0.94, text, ha="center", va="top", transform=axes.transAxes)
        return
    excess = np.ma.masked_invalid(loss.T - known.min())
    levels = span * np.logspace(-3, 0, 13)
    filled = axes.contourf(alpha, beta, np.ma.clip(excess, 0, levels[-1]), levels=np.concatenate(([0], levels)), cmap="cividis_r",
                           norm=matplotlib.colors.SymLogNorm(levels[0], vmin=0, vmax=levels[-1]))
    axes.contour(alpha, beta, excess, levels=levels[:-1], colors=DARK, linewidths=0.4)
    bar = figure.colorbar(filled, ax=axes, ticks=[0, *levels[::4]], shrink=0.9,
                          label=f"loss above its lowest value here, {known.min():.5g}")
    bar.ax.set_yticklabels(["0", *(f"{level:.2g}" for level in levels[::4])])


def loss_over_ratio(rho, curves, optima, trained, title):
    """Loss of the second stage against the attention of the same topic over that of a different topic.

    Parameters
    ----------
    rho : (R,) float
        Ratios, ascending, above 0 and with 1 (uniform attention) among or between them.
    curves : dict {label: (R,) float}
        Losses, drawn less the loss of uniform attention.
    optima : dict {label: (best ratio, its bound)}
        The best ratio as a ring on the curve, its upper bound (may be nan or None) as a thin vertical line.
    trained : dict {label: (ratio, loss)}
        Where training ended, scalars or (seeds,) float, as crosses.

    Raises
    ------
    ValueError
        If 1 is outside the ratios.
    """
    rho = np.asarray(rho, np.float64)
    if not rho[0] <= 1 <= rho[-1]:
        raise ValueError(f"ratios from {rho[0]:g} to {rho[-1]:g} do not have uniform attention, 1, between them; widen their range")
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=PALE, zorder=0)
    axes.axvline(1, color=PALE, zorder=0)
    for index, (label, loss) in enumerate(curves.items()):
        colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        uniform = np.interp(0, np.log(rho), loss)
        best, bound = optima.get(label, (None, None))
        text = f"{label}: loss {uniform:.4f} at $\\rho$ = 1" + (f", $\\rho^*$ = {best:.3g}" if best else "")
        axes.plot(rho, np.asarray(loss) - uniform, color=colour, linestyle=dashes, label=text)
        if best is not None:
            axes.plot(best, np.interp(np.log(best), np.log(rho), loss) - uniform, "o", color=colour, markerfacecolor="white",
                      markeredgewidth=2, markersize=9, zorder=3)
        if bound is not None and np.isfinite(bound):
            axes.axvline(bound, color=colour, linestyle=LIMITS[0], linewidth=1.2)
        if label in trained:
            ratio, reached = trained[label]
            axes.plot(ratio, np.asarray(reached) - uniform, "x", color=_darker(colour), markersize=9, markeredgewidth=2, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(rho[0], rho[-1])
    axes.set_xlabel(r"attention ratio $\rho$, same topic : different topic (1 = uniform)")
    axes.set_ylabel("loss minus the loss of uniform attention")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    curve_handles, _ = axes.get_legend_handles_labels()
    marks = [Line2D([], [], color=DARK, linestyle="none", marker="o", markersize=8, markerfacecolor="white", markeredgewidth=2,
                    label=r"best ratio $\rho^*$"),
             Line2D([], [], color=DARK, linestyle=LIMITS[0], label=r"its upper bound $\rho_{AB}$")] * bool(optima)
    marks += [Line2D([], [], color=DARK, linestyle="none", marker="x", markersize=9, markeredgewidth=2,
                     label="end of training")] * bool(trained)
    figure.legend(handles=curve_handles, loc="outside lower left", fontsize=9, handlelength=3.2)
    figure.legend(handles=marks, loc="outside lower right", fontsize=9, handlelength=3.2)
    return figure


# ------------------------------------------------------------------------------------------------- permutation tests


def permutation_histogram(tests, *, title, xlabel):
    """Histograms of statistics under shuffled topic labels, a panel a statistic, and what was observed.

    Parameters
    ----------
    tests : dict {name: (null (S,) float, observed float, p float)}
        Values under S shuffles (those that are not finite are left out), the observed value, and its p-value. Where the observed
        value is far from the null, the axis is linear over the null and logarithmic beyond.
    """
    columns = min(3, len(tests))
    rows = -(-len(tests) // columns)
    figure = Figure(figsize=(4 * columns + 0.5, 3.3 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(tests):]:
        axes.remove()
    for axes, (name, (null, observed, p)) in zip(panels.flat, tests.items(), strict=False):
        null = _finite(null)
        _histogram(axes, null, observed, xlabel)
        axes.set_title(f"{name}\nobserved {_signed(observed)}, p = {p:.2g} ({len(null):,} shuffles)", fontsize=10)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("number of shuffles")
    figure.suptitle(title)
    figure.legend(handles=[Patch(color=COLOURS[4], label="under shuffled topic labels"),
                           Line2D([], [], color=COLOURS[1], linewidth=2.5, label="observed")],
                  loc="outside lower center", ncols=2, fontsize=9, handlelength=3.2)
    return figure


def _histogram(axes, null, observed, xlabel):
    centre = null.mean() if len(null) else 0.0
    distance = abs(observed - centre) if np.isfinite(observed) else 0.0
    width = np.ptp(null) if len(null) else 0.0
    if not width > 1e-12 * max(distance, abs(centre)):  # constant: a bar that is seen
        width = distance / 10 or abs(centre) / 10 or 1.0
        null, bins = np.full(len(null), centre), [centre - width / 2, centre + width / 2]
    else:
        bins = np.linspace(null.min(), null.max(), min(40, max(5, round(len(null) ** 0.5))) + 1)
    axes.hist(null, bins=bins, color=COLOURS[4], histtype="stepfilled")
    if np.isfinite(observed):
        axes.axvline(observed, color=COLOURS[1], linewidth=2.5)
    else:
        axes.text(0.5, 0.9, "observed: undefined", ha="center", transform=axes.transAxes)
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    reach = max(abs(bins[0]), abs(bins[-1]))
    if distance > FAR * width and abs(observed) > FAR * reach / 2:
        _linear_then_logarithmic(axes, reach, observed, xlabel)


def _linear_then_logarithmic(axes, linear, observed, xlabel):
    """Axis linear over ``[-linear, linear]``, which takes two thirds of it, and logarithmic from there to ``observed``."""
    linear = _round_up(linear)
    decades = np.log10(max(abs(observed) / linear, 1.1))
    axes.set_xscale("symlog", linthresh=linear, linscale=max(0.2, decades))
    ends = sorted([-linear * 1.3 * np.sign(observed), observed * 10 ** (0.15 * decades)])
    axes.set_xlim(*ends)
    powers = np.sign(observed) * 10.0 ** np.arange(np.ceil(np.log10(linear) + 0.3), np.log10(abs(observed) * 1.4))
    ticks = [-linear, 0, linear, *islice(powers, 0, None, max(1, len(powers) // 3))]
    axes.set_xticks(ticks, [_signed(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel(f"{xlabel}\n(logarithmic beyond ±{linear:.3g})")


def _round_up(value):
    """The next number above ``value`` that has one digit."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(np.ceil(value / power) * power)
