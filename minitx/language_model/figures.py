"""Figures of ``minitx language-model``: statistics by layer of one model, or over the steps of several checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitx.base.style import COLOURS, MARKERS
from minitx.language_model.comparison import Similarity
from minitx.language_model.layers import QUERY_KEY, STATES, Record

Records = Mapping[str, Sequence[Record]]  # {model: what was found}
LABELS = {"published": "published: rows centred", "centred": "centred over tokens (CKA)",
          "entries": "entries, centred both ways"}
WIDE = 20  # ratio of the last step to the first from which steps are shown on a logarithmic axis
SHOWN = {"before": "before the layer", "attended": "after attention", "after": "after the layer",
         "query-key": "mean query-key map", "query-key without norm": "the same without norm"}


def states(records: Records, steps: Sequence[int] | None, *, title: str, xlabel: str) -> Figure:
    """Covariances of states beside those of Phi^T B^T.

    ``steps`` are those of the checkpoints, with a curve for each layer; None for one model, with its layers along x.
    """
    return _panels(records, steps, STATES, "Φᵀ Bᵀ", ("published", "centred"), title, xlabel)


def maps(records: Records, steps: Sequence[int] | None, *, title: str, xlabel: str) -> Figure:
    """Mean query-key maps beside Q, as :func:`states`."""
    return _panels(records, steps, QUERY_KEY, "Q", ("published", "centred", "entries"), title, xlabel)


def _panels(records, steps, parts, theory, statistics, title, xlabel):
    figure = Figure(figsize=(4.2 * len(parts), 3.2 * len(statistics) + 1), layout="constrained")
    grid = figure.subplots(len(statistics), len(parts), squeeze=False, sharex=True, sharey="row")
    for row, statistic in zip(grid, statistics, strict=True):
        row[0].set_ylabel(LABELS[statistic])
        for axis, part in zip(row, parts, strict=True):
            def wanted(one, part=part):
                return one.part == part and one.theory == theory and one.head is None

            _curves(axis, records, steps, wanted, statistic)
            if steps is None or max(steps) <= WIDE * max(1, min(steps)):
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.3)
            if axis in grid[0]:
                axis.set_title(SHOWN[part])
    for axis in grid[-1]:
        axis.set_xlabel(xlabel)
    if steps is not None:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)))
    figure.suptitle(f"{title}\nsolid: observed; dashed and band: tokens permuted, mean ± 2 s.d.")
    return figure


def _curves(axis: Any, records: Records, steps: Sequence[int] | None, wanted: Callable[[Record], bool],
            statistic: str) -> None:
    """One curve over the layers of one model, or one of each layer over the steps."""
    found = [[getattr(one, statistic) for one in one_model if wanted(one)] for one_model in records.values()]
    if steps is None:
        _curve(axis, range(len(found[0])), found[0], *_look(0), "all layers")
        return
    if max(steps) > WIDE * max(1, min(steps)):
        axis.set_xscale("symlog", linthresh=1)
    for layer, over_steps in enumerate(zip(*found, strict=True)):
        _curve(axis, steps, over_steps, *_look(layer), f"layer {layer}")


def _look(number: int) -> tuple[str, str]:
    """Colour and marker of the curve of so many."""
    return COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]


def _curve(axis: Any, x: Sequence[int], found: Sequence[Similarity], colour: str, marker: str, label: str) -> None:
    value, mean, deviation = (np.array([getattr(one, name) for one in found])
                              for name in ("value", "mean", "deviation"))
    axis.plot(x, value, color=colour, marker=marker, markersize=4, label=label)
    axis.plot(x, mean, color=colour, linestyle="--", linewidth=1)
    axis.fill_between(x, mean - 2 * deviation, mean + 2 * deviation, color=colour, alpha=0.2)


def heads_over_steps(records: Records, steps: Sequence[int], statistic: str, *, title: str, xlabel: str) -> Figure:
    """A ``statistic`` of every head's maps over the steps of checkpoints. Row = layer, column = map and leading term.
    """
    by_head = [{(one.layer, (one.part, one.theory), one.head): getattr(one, statistic) for one in one_model
                if one.head is not None} for one_model in records.values()]
    layers, kinds, numbers = (list(dict.fromkeys(names)) for names in zip(*by_head[0], strict=True))
    figure = Figure(figsize=(3 * len(kinds) + 0.5, 2.2 * len(layers) + 1.5), layout="constrained")
    grid = figure.subplots(len(layers), len(kinds), squeeze=False, sharex=True, sharey="col")
    for layer, row in zip(layers, grid, strict=True):
        row[0].set_ylabel(f"layer {layer}")
        for kind, axis in zip(kinds, row, strict=True):
            if max(steps) > WIDE * max(1, min(steps)):
                axis.set_xscale("symlog", linthresh=1)
            else:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            for head in numbers:
                found = [one_model[layer, kind, head] for one_model in by_head]
                _curve(axis, steps, found, *_look(head), f"head {head}")
            axis.grid(alpha=0.3)
            if axis in grid[0]:
                axis.set_title(f"{kind[0]}\nand {kind[1]}", fontsize=10)
    for axis in grid[-1]:
        axis.set_xlabel(xlabel)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)))
    figure.suptitle(f"{title}\n{LABELS[statistic]}\nsolid: observed; dashed and band: tokens permuted, mean ± 2 s.d.")
    return figure


def heads(records: Sequence[Record], *, title: str) -> Figure:
    """z of every head's maps beside each leading term: centred over tokens above, entries below. Row = layer."""
    pairs = list(dict.fromkeys((one.part, one.theory) for one in records if one.head is not None))
    figure = Figure(figsize=(3 * len(pairs) + 1, 7), layout="constrained")
    grid = figure.subplots(2, len(pairs), squeeze=False, sharex=True, sharey=True)
    kept = [one for one in records if one.head is not None]
    shape = max(one.layer for one in kept) + 1, max(one.head or 0 for one in kept) + 1
    tables = np.full((2, len(pairs), *shape), np.nan)
    for one in kept:
        at = pairs.index((one.part, one.theory))
        tables[:, at, one.layer, one.head] = one.centred.z, one.entries.z if one.entries else np.nan
    most = max(10.0, np.nanmax(np.abs(tables), initial=0))
    for statistic, row, drawn in zip(("centred", "entries"), grid, tables, strict=True):
        row[0].set_ylabel(f"{LABELS[statistic]}\nlayer")
        for (part, theory), axis, table in zip(pairs, row, drawn, strict=True):
            image = axis.imshow(table, cmap="RdBu_r", norm=SymLogNorm(2, vmin=-most, vmax=most), aspect="auto")
            if axis in grid[0]:
                axis.set_title(f"{part}\nand {theory}", fontsize=10)
    for axis in grid[-1]:
        axis.set_xlabel("head")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=grid, label="standard deviations above permuted tokens (z)")
    figure.suptitle(title)
    return figure
