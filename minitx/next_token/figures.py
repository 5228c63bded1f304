"""Figures of next-token prediction (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024): priority graphs, training, predictions.

Lengths within a priority graph are inches, and its axes are as large as its content, so that labels fit whatever there is to draw.
"""

from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from minitx.base.numbers import total_variation
from minitx.base.style import COLOURS, DASHES, MARKERS, literal, tick_label

STATUSES = ("determined", "extrapolated", "tied", "unseen")
INK, PALE = "0.25", "0.85"
# Inches: a token's height, a letter's width, gaps between tokens, SCCs, layers, room for arcs, page width.
HEIGHT, LETTER, GAP, APART, LAYER, ARCS, PAGE = 0.27, 0.088, 0.2, 0.28, 0.5, 0.2, 10.0
A_ROW = 6  # most tokens in a row of an SCC; with more than a row, the edges inside it are not drawn
GROUP = 4  # so many tokens at the bottom, under the same SCCs and without an order among them, are drawn together
TOKENS, PANELS = 24, 9  # most of a figure


# --------------------------------------------------------------------------------------------------------- priority graphs


@dataclass(eq=False)
class _Block:
    """What takes room in a layer: an SCC, a group of single tokens, or a place for an edge to pass by (no tokens)."""

    layer: int
    tokens: tuple = ()
    labels: tuple = ()
    edges: tuple = ()  # (y, x) inside it, token ids
    colour: str | None = None  # of an SCC of several tokens
    dashes: object = ":"
    above: list = field(default_factory=list)  # blocks with an edge to this one
    x: float = 0.0  # of its centre
    y: float = 0.0
    height: float = 0.0

    def __post_init__(self):
        rows = len(self.rows)
        if rows:
            margin = 0.16 if not self.has_arcs else 2 * ARCS + 0.08
            self.height = rows * (HEIGHT + 0.08) - 0.08 + margin * (len(self.tokens) > 1)

    @property
    def rows(self):
        """Its tokens, as (token, label) a row, no row much longer than others."""
        pairs = list(zip(self.tokens, self.labels, strict=True))
        size = -(-len(pairs) // max(1, -(-len(pairs) // A_ROW)))
        return [pairs[start:start + size] for start in range(0, len(pairs), size)] if pairs else []

    @property
    def has_arcs(self):
        """Whether the edges inside are drawn."""
        return len(self.rows) == 1 and len(self.edges) > 0

    @property
    def width(self):
        """Inches."""
        inside = max((sum(_width(label) + GAP for _, label in row) - GAP for row in self.rows), default=0.1)
        return inside + 2 * GAP * (len(self.tokens) > 1)


def _width(label):
    return max(HEIGHT, LETTER * len(label.replace(r"\$", "$")) + 0.12)


def priority_graphs(graphs, names=None, *, title, most_panels=PANELS, most_tokens=TOKENS):
    """The priority graph of each last token, a panel each: SCCs layered by priority, the highest on top.

    SCCs of several tokens are boxes, coloured and outlined each in its own way, with the edges inside them as arcs (above a row of
    tokens to the right, below to the left). Arrows between SCCs are the transitive reduction. Single tokens under the same SCCs
    with nothing below are framed together when they are many. A thick outline marks the last token.

    Parameters
    ----------
    graphs : dict {last token: minitx.next_token.PriorityGraph}
        Drawn in this order.
    names : sequence or dict {token: str}, optional
        Words of the tokens in place of their numbers.
    title : str
    most_panels, most_tokens : int
        Graphs beyond so many are left out; so are SCCs with which a panel would hold more tokens, the lowest first. Both are noted.
    """
    chosen = list(graphs.values())[:most_panels]
    panels = [_Panel.of(graph, names, most_tokens) for graph in chosen]
    left_out = f"{len(graphs) - len(chosen)} of {len(graphs)} last tokens are not shown" if len(graphs) > len(chosen) else ""
    figure, places = _page([panel.size for panel in panels], title, left_out)
    for panel, axes in zip(panels, places, strict=True):
        panel.draw(axes)
    return figure


def _name(names, token, quoted=False):
    name = str(token if names is None else names[token])
    return literal(f"‹{name}›") if quoted else tick_label(name) if names is not None else name


@dataclass(eq=False)
class _Panel:
    """The blocks of one graph, placed; (0, 0) is the middle of the lower edge of what they take."""

    heading: str
    note: str
    last: int
    blocks: list  # of SCCs and of places for edges
    routes: list  # of [block above, places to pass by, block below]
    size: tuple  # inches, with heading and note

    @classmethod
    def of(cls, graph, names, most_tokens):
        shown = _shown(graph, most_tokens)
        blocks = _blocks(graph, shown, names)
        several = list(dict.fromkeys(block for block in blocks.values() if block.edges))
        for number, block in enumerate(several):
            block.colour, block.dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        ends = dict.fromkeys((blocks[a], blocks[b]) for a, b in graph.reduction.tolist() if a in blocks and b in blocks)
        routes = [_route(upper, lower) for upper, lower in ends]
        everything = list(dict.fromkeys([*blocks.values(), *(block for route in routes for block in route)]))
        width, height = _place(everything)
        note = _note(graph, shown, several)
        heading = f"last token {graph.last if names is None else _name(names, graph.last, quoted=True)}"
        width = max(width, 0.1 * len(heading), max(0.068 * len(line) for line in note.split("\n")))
        return cls(heading, note, graph.last, everything, routes, (width + 0.3, height + 0.55 + 0.15 * note.count("\n")))

    def draw(self, axes):
        """Draw on ``axes`` that are as large as ``size`` says."""
        width, height = self.size
        axes.set_axis_off()
        lines = 1 + self.note.count("\n")
        axes.set_xlim(-width / 2, width / 2)
        axes.set_ylim(-0.1 - 0.15 * lines, height - 0.1 - 0.15 * lines)
        axes.text(0, height - 0.12 - 0.15 * lines, self.heading, ha="center", va="top", fontsize=11, weight="bold")
        axes.text(0, -0.12, self.note, ha="center", va="top", fontsize=8, color=INK)
        for block in self.blocks:
            _draw_block(axes, block, self.last)
        for route in self.routes:
            _draw_route(axes, route)


def _shown(graph, most_tokens):
    """Numbers of the SCCs that are drawn: by layer, the larger first, as many as there is room for; at least one."""
    sizes = [len(tokens) for tokens in graph.components]
    order = sorted(range(len(sizes)), key=lambda a: (graph.layer[a], -sizes[a], a))
    room, shown = most_tokens, []
    for a in order:
        room -= sizes[a]
        if room < 0 and shown:
            break
        shown.append(a)
    return sorted(shown)


def _blocks(graph, shown, names):
    """{SCC: its block} of the SCCs ``shown``; single tokens that stand together share one."""
    together = {}
    for a in shown:
        if len(graph.components[a]) == 1 and not graph.reach[a].any():
            together.setdefault((int(graph.layer[a]), *graph.reduction[graph.reduction[:, 1] == a, 0].tolist()), []).append(a)
    groups = {a: tuple(group) for group in together.values() if len(group) >= GROUP for a in group}
    made = {}
    for a in shown:
        group = groups.get(a, (a,))
        if group not in made:
            tokens = tuple(int(token) for b in group for token in graph.components[b])
            inside = np.isin(graph.edges, tokens).all(axis=1)
            made[group] = _Block(int(graph.layer[a]), tokens, tuple(_name(names, token) for token in tokens),
                                 tuple(map(tuple, graph.edges[inside].tolist())))
    return {a: made[groups.get(a, (a,))] for a in shown}


def _route(upper, lower):
    """The blocks that an edge leads along; new ones in the layers between its ends."""
    route = [upper, *(_Block(layer) for layer in range(upper.layer + 1, lower.layer)), lower]
    for above, below in zip(route, route[1:], strict=False):
        below.above.append(above)
    return route


def _place(blocks):
    """Place the blocks: layers from the top, in each by where the blocks above are. Returns the width and height taken."""
    layers = {}
    for block in blocks:
        layers.setdefault(block.layer, []).append(block)
    width, y = 0.0, 0.0
    for layer in sorted(layers):
        row = layers[layer]
        row.sort(key=lambda block: np.mean([above.x for above in block.above]) if block.above else 0.0)  # stable
        total = sum(block.width for block in row) + APART * (len(row) - 1)
        width = max(width, total)
        right, tallest = -total / 2, max(block.height for block in row)
        for block in row:
            block.height = block.height or tallest  # an edge passes by the whole layer
            block.x, block.y = right + block.width / 2, y - block.height / 2
            right += block.width + APART
        y -= tallest + LAYER
    for block in blocks:
        block.y -= y + LAYER
    return width, -y - LAYER


def _note(graph, shown, several):
    """What a panel leaves out."""
    hidden = len(graph.components) - len(shown)
    lines = []
    if hidden:
        tokens = sum(len(part) for part in graph.components) - sum(len(graph.components[a]) for a in shown)
        lines.append(f"not shown: {tokens} more token{'s' * (tokens > 1)}, {hidden} SCC{'s' * (hidden > 1)}")
    lines += [f"{len(block.edges)} edges inside the SCC of {len(block.tokens)}" for block in several if not block.has_arcs]
    return "\n".join(lines)


def _page(sizes, title, left_out):
    """Figure with axes of these sizes (inches), row by row, and a line that explains them."""
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
    figure.text(0.5, 0.08 / height, says + (f"\n{left_out}" if left_out else ""), ha="center", va="bottom", fontsize=9, color=INK)
    places, top = [], height - head
    for row, tallest in zip(rows, heights, strict=True):
        spare = (width - sum(w for w, _ in row)) / (len(row) + 1)
        left = spare
        for w, h in row:
            places.append(figure.add_axes((left / width, (top - h) / height, w / width, h / height)))
            left += w + spare
        top -= tallest + gap
    return figure, places


def _draw_block(axes, block, last):
    if len(block.tokens) > 1:
        w, h = block.width, block.height
        axes.add_patch(FancyBboxPatch((block.x - w / 2, block.y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=0.14",
                                      facecolor=(block.colour, 0.16) if block.edges else "none", edgecolor=block.colour or "0.45",
                                      linestyle=block.dashes, linewidth=1.8 if block.edges else 1.2))
    at, y = {}, block.y + (len(block.rows) - 1) / 2 * (HEIGHT + 0.08)
    for row in block.rows:
        x = block.x - (sum(_width(label) + GAP for _, label in row) - GAP) / 2
        for token, label in row:
            w = _width(label)
            at[token] = (x + w / 2, y, w)
            axes.add_patch(FancyBboxPatch((x, y - HEIGHT / 2), w, HEIGHT, boxstyle="round,pad=0,rounding_size=0.1",
                                          facecolor="white", edgecolor=block.colour or "0.45", zorder=3,
                                          linewidth=2.6 if token == last else 0.9))
            axes.text(x + w / 2, y - 0.005, label, ha="center", va="center", fontsize=9, zorder=4)
            x += w + GAP
        y -= HEIGHT + 0.08
    if block.has_arcs:
        for start, end in block.edges:
            _draw_arc(axes, at[start], at[end], block.colour)


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
    """An arrow from the lower edge of the first block to the upper edge of the last, through the places between."""
    first, *between, last = route
    vertices, codes = [(first.x, first.y - first.height / 2)], [Path.MOVETO]
    for block in (*between, last):
        (x0, y0), (x1, y1) = vertices[-1], (block.x, block.y + block.height / 2)
        if not between:
            vertices, codes = [*vertices, (x1, y1 + 0.02)], [*codes, Path.LINETO]
            break
        vertices += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1 + 0.02 * (block is last))]
        codes += [Path.CURVE4] * 3
        if block is not last:
            vertices, codes = [*vertices, (x1, y1 - block.height)], [*codes, Path.LINETO]
    axes.add_patch(FancyArrowPatch(path=Path(vertices, codes), arrowstyle="-|>", mutation_scale=10, linewidth=1.1, color=INK,
                                   zorder=1))


# ---------------------------------------------------------------------------------------------------------------- training


def next_token_training(runs, *, title, has_cycles=True):
    """How far training has come, by mode: direction, cyclic part, norm, attention.

    Parameters
    ----------
    runs : dict {mode: dict}
        Of arrays (R,): "step", "correlation_gap" (1 - correlation with W_svm), "cyclic_distance", "norm", "label_mass" (attention
        on the SCC of the label). nan, and what a logarithmic axis cannot hold (step 0, exact zeros), is left out.
    title : str
    has_cycles : bool
        Whether there is a cyclic part at all.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    (direction, cyclic), (norm, mass) = figure.subplots(2, 2, sharex=True)
    shows = ((direction, "correlation_gap", r"1 $-$ correlation with $W_\mathrm{svm}$"),
             (cyclic, "cyclic_distance", r"$|\Pi_\mathrm{fin} W - W_\mathrm{fin}|$ (Frobenius)"),
             (norm, "norm", r"$|W|$ (Frobenius)"), (mass, "outside", "1 $-$ attention on the label's SCC, mean"))
    lines = {}
    for axes, name, label in shows:
        for (mode, run), colour, marker, dashes in zip(runs.items(), COLOURS, MARKERS, DASHES * 2, strict=False):
            values = 1 - np.asarray(run["label_mass"], np.float64) if name == "outside" else np.asarray(run[name], np.float64)
            steps = np.asarray(run["step"], np.float64)
            drawn = (steps > 0) & (values > 0)  # nan is not
            lines[mode], = axes.plot(steps[drawn], values[drawn], color=colour, marker=marker, markersize=4, linestyle=dashes,
                                     linewidth=1.3, markevery=max(1, drawn.sum() // 12))
        if any(len(line.get_xdata()) for line in axes.lines):
            axes.set_xscale("log")
            axes.set_yscale("log")
        else:
            acyclic = axes is cyclic and not has_cycles
            says = "no SCC of several tokens:\nnothing to compose" if acyclic else "undefined or 0 throughout"
            axes.text(0.5, 0.5, says, ha="center", va="center", transform=axes.transAxes)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    for axes in (norm, mass):
        axes.set_xlabel("steps of gradient descent")
    figure.suptitle(title)
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(3, len(lines)))
    return figure


# ------------------------------------------------------------------------------------------------------------- predictions


def next_token_predictions(predicted, trained, status, *, title):
    """Trained against predicted probabilities of held-out contexts, a column a status; below, their total variation.

    Parameters
    ----------
    predicted : (n, K) float
        The limit: row = context, column = token.
    trained : dict {mode: (n, K) float}
    status : (n,) str
        One of ``STATUSES`` for each context; those that do not occur have no column.
    title : str
    """
    status = np.asarray(status)
    present = [name for name in STATUSES if (status == name).any()]
    figure = Figure(figsize=(max(5.0, 3.3 * len(present) + 0.6), 7.2), layout="constrained")
    panels = figure.subplots(2, len(present), squeeze=False, sharey="row", height_ratios=(1.1, 1))
    handles = {}
    for (above, below), name in zip(panels.T, present, strict=True):
        rows = status == name
        above.plot([0, 1], [0, 1], color=PALE, linewidth=1.2, zorder=0)
        for (mode, p), colour, marker, dashes in zip(trained.items(), COLOURS, MARKERS, DASHES * 2, strict=False):
            some = (predicted[rows] > 0) | (p[rows] > 1e-3)  # tokens that are not in the context say nothing
            above.plot(predicted[rows][some], p[rows][some], linestyle="none", marker=marker, markersize=5, color=colour,
                       alpha=0.45, markeredgewidth=0)
            distance = np.sort(np.maximum(total_variation(predicted[rows], p[rows]), 1e-17))
            share = np.arange(1, len(distance) + 1) / len(distance)
            below.step([distance[0], *distance], [0, *share], where="post", color=colour, linestyle=dashes, linewidth=1.5)
            handles[mode] = Line2D([], [], color=colour, marker=marker, linestyle=dashes, markersize=5)
        number = int(rows.sum())
        above.set_title(f"{name}\n({number:,} context{'s' * (number > 1)})", fontsize=11)
        above.set_xlim(-0.04, 1.04)
        above.set_ylim(-0.04, 1.04)
        above.set_xlabel("predicted probability")
        below.set_xscale("log")
        below.set_xlim(5e-18, 2)
        below.set_xlabel("total variation (0: at the left)")
        for axes in (above, below):
            axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("trained probability")
    panels[1, 0].set_ylabel("share of contexts up to that")
    figure.suptitle(title)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(3, len(handles)))
    return figure
