"""Figures of next-token prediction (Li et al., AISTATS 2024): priority graphs, training, predictions.

Lengths in a priority graph are inches, and its axes are as large as its content, so that all labels fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from minitx.base.style import COLOURS, DASHES, MARKERS, literal, log_ticks, tick_label
from minitx.next_token.automaton import STATUSES
from minitx.next_token.graphs import PriorityGraph
from minitx.next_token.training import Record

INK, PALE = "0.25", "0.85"
# Inches: height of a token and of a row of tokens, width of a letter, gaps between tokens, SCCs and layers, room for
# arcs, width of a page, height of a line of a note.
HEIGHT, ROW, LETTER, GAP, APART, LAYER, ARCS, PAGE, LINE = 0.27, 0.35, 0.088, 0.2, 0.28, 0.5, 0.2, 10.0, 0.15
A_ROW = 6  # most tokens in a row of an SCC; the edges inside an SCC of several rows are not drawn
GROUP = 4  # from so many on, single tokens with the same SCCs above them and none below share a frame
TOKENS, PANELS = 24, 9  # most tokens of a panel, most panels of a figure


# ----------------------------------------------------------------------------------------------- priority graphs


@dataclass(eq=False)
class _Block:
    """What takes room in a layer: an SCC, a group of single tokens, or a place where an edge passes by (no tokens)."""

    layer: int
    tokens: tuple = ()
    places: dict = field(default_factory=dict)  # {token: (x, y, width, label)}; (0, 0) is the middle of the block
    edges: tuple = ()  # (y, x) inside it, token ids
    has_arcs: bool = False  # whether these are drawn
    width: float = 0.1
    height: float = 0.0  # 0 where an edge passes by, until the height of the layer is known
    colour: str | None = None  # of an SCC of several tokens
    dashes: object = ":"
    above: list = field(default_factory=list)  # blocks with an edge to this one
    x: float = 0.0  # of its middle
    y: float = 0.0
    floor: float = 0.0  # lower edge of the tallest block of its layer

    @classmethod
    def of(cls, layer, labels, edges):
        """The tokens of ``labels`` {token: label}, in rows of about the same number."""
        pairs = [(token, label, max(HEIGHT, LETTER * len(label.replace(r"\$", "$")) + 0.12))
                 for token, label in labels.items()]
        size = -(-len(pairs) // -(-len(pairs) // A_ROW))
        rows = [pairs[start:start + size] for start in range(0, len(pairs), size)]
        widths = [sum(width + GAP for *_, width in row) - GAP for row in rows]
        places = {}
        for number, (row, whole) in enumerate(zip(rows, widths, strict=True)):
            left = -whole / 2
            for token, label, width in row:
                places[token] = (left + width / 2, ((len(rows) - 1) / 2 - number) * ROW, width, label)
                left += width + GAP
        several, has_arcs = len(pairs) > 1, len(rows) == 1 and len(edges) > 0
        margin = several * (2 * ARCS + 0.08 if has_arcs else 0.16)
        return cls(layer, tuple(labels), places, edges, has_arcs, max(widths) + 2 * GAP * several,
                   len(rows) * ROW - (ROW - HEIGHT) + margin)


def priority_graphs(graphs: Mapping[int, PriorityGraph], names: Sequence[str] | None = None, *, title: str) -> Figure:
    """The priority graph of each last token, one panel each: SCCs in layers, the highest priority on top.

    SCCs of several tokens are boxes of different colours and outlines; arcs are the edges inside them (above a row of
    tokens to the right, below it to the left). Arrows between SCCs are the transitive reduction. Many single tokens
    with the same SCCs above them and none below are framed together. A thick outline marks the last token.

    ``graphs`` {last token: graph} are drawn in their order. ``names`` are the words of the tokens; without them, tokens
    are shown by number. More than ``PANELS`` graphs are left out, as are the lowest SCCs of a graph with more than
    ``TOKENS`` tokens; the figure says how many.
    """
    panels = [_Panel.of(graph, names) for graph in list(graphs.values())[:PANELS]]
    hidden = len(graphs) - len(panels)
    figure, places = _page([panel.size for panel in panels], title,
                           f"{hidden} of {len(graphs)} last tokens are not shown" if hidden else "")
    for panel, axes in zip(panels, places, strict=True):
        panel.draw(axes)
    return figure


@dataclass(eq=False)
class _Panel:
    """The placed blocks of one graph; (0, 0) is the middle of their lower edge."""

    heading: str
    notes: list  # lines that say what is not drawn
    last: int
    blocks: list  # SCCs, and places where edges pass by
    routes: list  # of [block above, places to pass by, block below]
    size: tuple  # inches, with heading and notes

    @classmethod
    def of(cls, graph, names):
        blocks = _blocks(graph, _shown(graph), names)
        several = list(dict.fromkeys(block for block in blocks.values() if block.edges))
        for number, block in enumerate(several):
            block.colour, block.dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        ends = dict.fromkeys((blocks[a], blocks[b]) for a, b in graph.reduction.tolist() if a in blocks and b in blocks)
        routes = [_route(upper, lower) for upper, lower in ends]
        everything = list(dict.fromkeys([*blocks.values(), *(block for route in routes for block in route)]))
        width, height = _place(everything)
        notes = []
        if hidden := [part for a, part in enumerate(graph.components) if a not in blocks]:
            tokens, sccs = sum(map(len, hidden)), len(hidden)
            notes.append(f"not shown: {tokens} more token{'s' * (tokens > 1)}, {sccs} SCC{'s' * (sccs > 1)}")
        notes += [f"{len(block.edges)} edges inside the SCC of {len(block.tokens)}"
                  for block in several if not block.has_arcs]
        heading = f"last token {graph.last}" if names is None else f"last token {literal(f'‹{names[graph.last]}›')}"
        width = max(width, 0.1 * len(heading), *(0.068 * len(line) for line in notes))
        size = width + 0.3, height + 0.4 + LINE * max(1, len(notes))
        return cls(heading, notes, graph.last, everything, routes, size)

    def draw(self, axes):
        """Draw on ``axes`` that are as large as ``size`` says."""
        (width, height), bottom = self.size, -0.1 - LINE * max(1, len(self.notes))
        axes.set_axis_off()
        axes.set_xlim(-width / 2, width / 2)
        axes.set_ylim(bottom, bottom + height)
        axes.text(0, bottom + height - 0.02, self.heading, ha="center", va="top", fontsize=11, weight="bold")
        axes.text(0, -0.12, "\n".join(self.notes), ha="center", va="top", fontsize=8, color=INK)
        for block in self.blocks:
            _draw_block(axes, block, self.last)
        for route in self.routes:
            _draw_route(axes, route)


def _shown(graph):
    """Numbers of the SCCs that are drawn: by layer, the larger first, as many as there is room for; at least one."""
    sizes = [len(tokens) for tokens in graph.components]
    order = sorted(range(len(sizes)), key=lambda a: (graph.layer[a], -sizes[a], a))
    fit = np.cumsum([sizes[a] for a in order]) <= TOKENS
    return sorted(order[:max(1, fit.sum())])


def _blocks(graph, shown, names):
    """{SCC: its block} of the SCCs ``shown``; single tokens that stand together share a block."""
    together = {}
    for a in shown:
        if len(graph.components[a]) == 1 and not graph.reach[a].any():
            upper = graph.reduction[graph.reduction[:, 1] == a, 0].tolist()
            together.setdefault((int(graph.layer[a]), *upper), []).append(a)
    groups = {a: tuple(group) for group in together.values() if len(group) >= GROUP for a in group}
    made = {}
    for group in dict.fromkeys(groups.get(a, (a,)) for a in shown):
        tokens = [int(token) for a in group for token in graph.components[a]]
        labels = {token: str(token) if names is None else tick_label(str(names[token])) for token in tokens}
        edges = tuple(map(tuple, graph.edges[np.isin(graph.edges, tokens).all(axis=1)].tolist()))
        made |= dict.fromkeys(group, _Block.of(int(graph.layer[group[0]]), labels, edges))
    return {a: made[a] for a in shown}


def _route(upper, lower):
    """The blocks that an edge leads along; new ones in the layers between its ends."""
    route = [upper, *(_Block(layer) for layer in range(upper.layer + 1, lower.layer)), lower]
    for above, below in zip(route, route[1:], strict=False):
        below.above.append(above)
    return route


def _place(blocks):
    """Place the blocks: layers from the top, in each by where the blocks above are. Returns (width, height)."""
    layers = {}
    for block in blocks:
        layers.setdefault(block.layer, []).append(block)
    width, y = 0.0, 0.0
    for layer in sorted(layers):
        row = sorted(layers[layer], key=lambda block: np.mean([above.x for above in block.above] or [0.0]))  # stable
        total, tallest = sum(block.width + APART for block in row) - APART, max(block.height for block in row)
        width, left = max(width, total), -total / 2
        for block in row:
            block.height = block.height or tallest  # an edge passes by the whole layer
            block.x, block.y = left + block.width / 2, y - block.height / 2
            block.floor = y - tallest
            left += block.width + APART
        y -= tallest + LAYER
    for block in blocks:
        block.y -= y + LAYER
        block.floor -= y + LAYER
    return width, -y - LAYER


def _page(sizes, title, left_out):
    """A figure with axes of these sizes (inches), row by row, and lines that explain them."""
    widths = [w for w, _ in sizes]
    room = max([PAGE, *widths])
    room = max([1.15 * sum(widths) / np.ceil(sum(widths) / room), *widths])  # rows of about the same length
    rows = [[]]
    for size in sizes:
        if rows[-1] and sum(w for w, _ in rows[-1]) + size[0] > room:
            rows.append([])
        rows[-1].append(size)
    width = max([6.5, *(sum(w for w, _ in row) for row in rows)]) + 0.3
    heights = [max(h for _, h in row) for row in rows]
    head, foot, gap = 0.45 + 0.2 * title.count("\n"), 0.7 if left_out else 0.5, 0.2
    height = sum(heights) + gap * (len(rows) - 1) + head + foot
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.1 / height, title, ha="center", va="top", fontsize=12)
    says = ("coloured box: SCC, tokens that reach each other; thick outline: the last token\n"
            "arrow: priority over the lower one (not drawn if others imply it); dotted frame: tokens without order")
    figure.text(0.5, 0.08 / height, f"{says}\n{left_out}".strip(), ha="center", va="bottom", fontsize=9, color=INK)
    places, top = [], height - head
    for row, tallest in zip(rows, heights, strict=True):
        left = spare = (width - sum(w for w, _ in row)) / (len(row) + 1)
        for w, h in row:
            places.append(figure.add_axes((left / width, (top - h) / height, w / width, h / height)))
            left += w + spare
        top -= tallest + gap
    return figure, places


def _draw_block(axes, block, last):
    edge = block.colour or "0.45"
    if len(block.tokens) > 1:
        _box(axes, block.x, block.y, block.width, block.height, 0.14, edgecolor=edge, linestyle=block.dashes,
             facecolor=(block.colour, 0.16) if block.edges else "none", linewidth=1.8 if block.edges else 1.2)
    at = {token: (block.x + x, block.y + y, width) for token, (x, y, width, _) in block.places.items()}
    for token, (x, y, width) in at.items():
        _box(axes, x, y, width, HEIGHT, 0.1, edgecolor=edge, facecolor="white", zorder=3,
             linewidth=2.6 if token == last else 0.9)
        axes.text(x, y - 0.005, block.places[token][-1], ha="center", va="center", fontsize=9, zorder=4)
    for start, end in block.edges if block.has_arcs else ():
        _draw_arc(axes, at[start], at[end], block.colour)


def _box(axes, x, y, width, height, rounding, **style):
    """A rounded box with the middle (x, y)."""
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height,
                                  boxstyle=f"round,pad=0,rounding_size={rounding}", **style))


def _draw_arc(axes, start, end, colour):
    """An edge inside an SCC: over the tokens to the right, under them to the left."""
    side = 1 if end[0] > start[0] else -1
    distance = abs(end[0] - start[0])
    shift = 0.2 * side  # leaves and arrives off the middles, so that arcs that meet at a token are told apart
    begin = (start[0] + shift * start[2], start[1] + side * HEIGHT / 2)
    stop = (end[0] - shift * end[2], end[1] + side * HEIGHT / 2)
    rad = -min(0.5, 2 * (ARCS - 0.02) / max(distance - 0.2 * (start[2] + end[2]), 0.1))
    axes.add_patch(FancyArrowPatch(begin, stop, connectionstyle=f"arc3,rad={rad}", arrowstyle="-|>", mutation_scale=7,
                                   linewidth=0.9, color=colour, shrinkA=0, shrinkB=0, zorder=2))


def _draw_route(axes, route):
    """An arrow from the lower edge of the first block to the upper edge of the last, through the places between.

    It goes straight down to the floor of the first block's layer, so that it crosses no taller block beside it.
    """
    x, y = route[0].x, route[0].floor
    vertices, codes = [(x, route[0].y - route[0].height / 2), (x, y)], [Path.MOVETO, Path.LINETO]
    for block in route[1:-1]:
        top, bottom = block.y + block.height / 2, block.y - block.height / 2
        middle = (y + top) / 2
        vertices += [(x, middle), (block.x, middle), (block.x, top), (block.x, bottom)]
        codes += [Path.CURVE4] * 3 + [Path.LINETO]
        x, y = block.x, bottom
    end = (route[-1].x, route[-1].y + route[-1].height / 2 + 0.02)
    if len(route) == 2:
        vertices, codes = [*vertices, end], [*codes, Path.LINETO]
    else:
        middle = (y + end[1]) / 2
        vertices, codes = [*vertices, (x, middle), (end[0], middle), end], [*codes, *[Path.CURVE4] * 3]
    axes.add_patch(FancyArrowPatch(path=Path(vertices, codes), arrowstyle="-|>", mutation_scale=10, linewidth=1.1,
                                   color=INK, joinstyle="round", zorder=1))


# -------------------------------------------------------------------------------------- training and predictions


def next_token_training(runs: Mapping[str, Sequence[Record]], *, title: str, has_cycles: bool = True) -> Figure:
    """How far training has come, by mode: direction, part in S_fin, norm, attention.

    ``runs`` holds {name of a mode: its records}; ``has_cycles`` says whether S_fin has a dimension above 0. If it has
    not, the loss, down to 1e-16, is drawn in the place of the part in S_fin. Logarithmic axes leave out nan and 0 (of
    step 0, and of numbers that are exactly 0).
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    within = ((r"$|\Pi_\mathrm{fin} W - W_\mathrm{fin}|$ (Frobenius)", lambda record: record.cyclic_distance)
              if has_cycles else
              (r"loss ($W_\mathrm{fin} = 0$: no SCC has several tokens)",
               lambda record: record.loss * (record.loss > 1e-16)))
    shows = ((r"1 $-$ correlation with $W_\mathrm{svm}$", lambda record: 1 - record.correlation),
             within,
             (r"$|W|$ (Frobenius)", lambda record: record.norm),
             ("1 $-$ attention on the label's SCC, mean", lambda record: 1 - record.label_mass))
    lines = {}
    for axes, (label, quantity) in zip(panels.flat, shows, strict=True):
        for (mode, records), colour, marker, dashes in zip(runs.items(), COLOURS, MARKERS, DASHES * 2, strict=False):
            points = [(record.step, quantity(record)) for record in records if record.step > 0 and quantity(record) > 0]
            steps, values = zip(*points, strict=True) if points else ((), ())
            lines[mode], = axes.plot(steps, values, color=colour, marker=marker, markersize=4, linestyle=dashes,
                                     linewidth=1.3, markevery=max(1, len(points) // 12), label=mode)
        if any(len(line.get_xdata()) for line in axes.lines):
            axes.set_xscale("log")
            axes.set_yscale("log")
            log_ticks(axes.xaxis)
        else:
            axes.text(0.5, 0.5, "undefined or 0 throughout", ha="center", va="center", transform=axes.transAxes)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    for axes in panels[1]:
        axes.set_xlabel("steps of gradient descent")
    return _finished(figure, title, lines)


def next_token_predictions(predicted: NDArray[np.float64], trained: Mapping[str, NDArray[np.float64]],
                           distances: Mapping[str, NDArray[np.float64]], status: NDArray[np.str_], *,
                           title: str) -> Figure:
    """Trained against predicted attention on held-out contexts, one column a status; below, their total variation.

    ``predicted`` and, for each mode, ``trained`` are (n, K), row = context, column = token; ``distances`` holds their
    total variations (n,). ``status`` (n,) is one of ``STATUSES`` for each context; those that do not occur have no
    column.
    """
    present = [name for name in STATUSES if (status == name).any()]
    figure = Figure(figsize=(max(5.0, 3.3 * len(present) + 0.6), 7.2), layout="constrained")
    panels = figure.subplots(2, len(present), squeeze=False, sharey="row", height_ratios=(1.1, 1))
    handles = {}
    for (above, below), name in zip(panels.T, present, strict=True):
        rows = status == name
        above.plot([0, 1], [0, 1], color=PALE, linewidth=1.2, zorder=0)
        for (mode, p), colour, marker, dashes in zip(trained.items(), COLOURS, MARKERS, DASHES * 2, strict=False):
            some = (predicted[rows] > 0) | (p[rows] > 1e-3)  # tokens that are not in the context say nothing
            above.plot(predicted[rows][some], p[rows][some], linestyle="none", marker=marker, markersize=5,
                       color=colour, alpha=0.45, markeredgewidth=0)
            distance = np.sort(np.maximum(distances[mode][rows], 1e-17))
            share = np.arange(1, len(distance) + 1) / len(distance)
            line: dict[str, Any] = {"color": colour, "linestyle": dashes}
            below.step([distance[0], *distance], [0, *share], where="post", linewidth=1.5, **line)
            handles[mode] = Line2D([], [], marker=marker, markersize=5, **line)
        number = int(rows.sum())
        above.set_title(f"{name}\n({number:,} context{'s' * (number > 1)})", fontsize=11)
        above.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel="predicted probability")
        below.set(xscale="log", xlim=(5e-18, 2), xlabel="total variation (0 is drawn at the left)")
        for axes in (above, below):
            axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("trained probability")
    panels[1, 0].set_ylabel("share of contexts at or below it")
    return _finished(figure, title, handles)


def _finished(figure, title, handles):
    """``figure`` with its title and a legend of ``handles`` {label: artist}."""
    figure.suptitle(title)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(3, len(handles)))
    return figure
