"""Figures of :mod:`minitx.commands.associate`: trained weights beside their leading terms (Im et al., ICLR 2026)."""

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitx.plots.style import COLOURS, MARKERS, literal, tick_label

PARAMETERS = {"W_O": "output $W_O$", "V": "value $V$", "W": "attention $W$", "P": "position $P$"}


def term_order(name):
    """Sort key of the terms of a gradient: the leading one, single corrections, crossings."""
    return name.count(" x "), name != "leading", name


def cosines(steps, cosine, loss, *, title):
    """Cosine of each weight with its leading term over training, and the loss.

    Parameters
    ----------
    steps : (R,) int
    cosine : dict {parameter: (R,) float}
        nan (undefined) is left out of the line.
    loss : (steps + 1,) float
        At every step from 0.
    """
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for (name, values), colour, marker in zip(cosine.items(), COLOURS, MARKERS, strict=False):
        above.plot(steps, values, color=colour, marker=marker, markersize=5, label=PARAMETERS.get(name, name))
    lowest = np.nanmin([np.nanmin(values) if np.isfinite(values).any() else 1.0 for values in map(np.asarray, cosine.values())])
    above.set_ylim(min(-0.05, lowest - 0.05) if lowest < 0.5 else lowest - 0.05 * (1.001 - lowest), 1 + 0.05 * (1.001 - lowest))
    above.ticklabel_format(useOffset=False)
    above.set_ylabel("cosine with the leading term")
    above.set_title(title)
    above.legend()
    below.plot(range(len(loss)), loss, color="black")
    below.set_ylabel("loss (nats a token)")
    below.set_xlabel("gradient descent steps $s$")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def gradient_terms(steps, norms, *, title):
    """Frobenius norm of every term of the exact gradient over training, a panel a parameter, on a logarithmic scale.

    Parameters
    ----------
    steps : (R,) int
    norms : dict {parameter: {term: (R,) float}}
        What is below 1e-8 of the panel's largest (a term that is not there yet) is left out of the line.
    """
    names = sorted({term for terms in norms.values() for term in terms}, key=term_order)
    figure = Figure(figsize=(10, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    lines = {}
    for axes, (parameter, terms) in zip(panels.flat, norms.items(), strict=True):
        largest = max(map(max, terms.values()))  # 1e-8 of it and less is rounding, or what no reader misses
        for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
            if name in terms:
                values = np.array(terms[name], np.float64)
                values[values <= largest * 1e-8] = np.nan
                lines[name], = axes.plot(steps, values, color=colour, marker=marker, markersize=4,
                                         linewidth=2.5 if name == "leading" else 1.2)
        if largest > 0:
            axes.set_yscale("log")
        else:
            axes.text(0.5, 0.5, "zero at every recorded step", ha="center", va="center", transform=axes.transAxes)
        axes.set_title(f"gradient of {PARAMETERS.get(parameter, parameter)}")
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("Frobenius norm of the term")
    for axes in panels[1]:
        axes.set_xlabel("gradient descent steps $s$")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def heat_map(matrix, rows, columns, *, title, row_label, column_label):
    """Heat map of ``matrix`` with a word on every row and column; blue below 0, red above, logarithmic away from 0."""
    largest = np.abs(matrix).max() or 1.0
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.subplots()
    norm = SymLogNorm(largest * 1e-3, vmin=-largest, vmax=largest)
    image = axes.imshow(matrix, cmap="RdBu_r", norm=norm, interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel(column_label)
    axes.set_ylabel(row_label)
    axes.set_title(title)
    decades = [largest * 10.0**-k for k in range(3)]
    figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-tick for tick in decades] + [0.0] + decades[::-1], format="%.1e",
                    label=f"entry (logarithmic colours, linear within ±{largest * 1e-3:.1e})")
    return figure


def associates(listed, *, title):
    """Bars of the strongest associates: a row of panels a word, a column a basis function.

    Parameters
    ----------
    listed : dict {word: {function: [(associate, score)]}}
        As from :func:`minitx.words.associates`.
    """
    functions = list(next(iter(listed.values())))
    figure = Figure(figsize=(3.4 * len(functions), 2.6 * len(listed) + 0.6), layout="constrained")
    panels = figure.subplots(len(listed), len(functions), squeeze=False)
    for row, (word, by_function) in zip(panels, listed.items(), strict=True):
        for axes, (function, strongest), colour in zip(row, by_function.items(), COLOURS, strict=False):
            names, scores = [name for name, _ in strongest], [score for _, score in strongest]
            axes.barh(range(len(names)), scores, color=colour)
            axes.set_yticks(range(len(names)), map(tick_label, names), fontsize=9)
            axes.invert_yaxis()
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 2))
            axes.set_title(literal(f"{word}: {function}"), fontsize=10)
    for axes, function in zip(panels[-1], functions, strict=True):
        axes.set_xlabel("entry of B" if function == "bigram" else "cosine")
    figure.suptitle(title)
    return figure
