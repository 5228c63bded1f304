"""Figures of :mod:`minitx.associations.command`: weights and gradients of training beside theory (Im et al., ICLR 2026)."""

from math import ceil

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from minitx.base.style import COLOURS, DASHES, MARKERS, literal, tick_label

FURTHEST = 1e-6  # 1 - cosine, of the scale of nines
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


def theories(steps, cosine, loss, predicted, *, title):
    """Cosine of each trained weight with what theories predict, a panel a weight, on a scale of nines; the loss below.

    Parameters
    ----------
    steps : (R,) int
    cosine : dict {theory: {parameter: (R,) float}}
        nan (undefined) is left out of the line; a theory may be silent about a parameter.
    loss : (steps + 1,) float
        Of training, at every step from 0.
    predicted : dict {theory: (steps + 1,) float}
        Losses that theories predict.
    """
    figure = Figure(figsize=(10, 9.5), layout="constrained")
    axes = figure.subplot_mosaic([["W_O", "V"], ["W", "P"], ["loss", "loss"]], height_ratios=(3, 3, 2), sharex=True)
    styles = {name: {"color": COLOURS[k], "linestyle": DASHES[k], "marker": MARKERS[k], "markersize": 5,
                     "markevery": (k % 2, 2) if len(steps) > 2 else 1} for k, name in enumerate(cosine)}
    lines = {}
    for parameter in PARAMETERS:
        for name, values in cosine.items():
            if parameter in values:
                apart = np.maximum(1 - np.asarray(values[parameter]), FURTHEST)
                lines[name], = axes[parameter].plot(steps, apart, **styles[name])
        _scale_of_nines(axes[parameter])
        axes[parameter].set_title(PARAMETERS[parameter])
    for parameter in ("W_O", "W"):
        axes[parameter].set_ylabel("cosine with the trained weight")
    axes["loss"].plot(range(len(loss)), loss, color="black", linewidth=3, alpha=0.35, label="trained")
    for name, values in predicted.items():
        axes["loss"].plot(range(len(values)), values, **styles[name] | {"marker": ""}, label=name)
    axes["loss"].set_ylabel("loss (nats a token)")
    axes["loss"].set_xlabel("gradient descent steps $s$")
    axes["loss"].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes["loss"].legend()
    for panel in axes.values():
        panel.grid(alpha=0.3)
        panel.tick_params(labelbottom=True)
    figure.suptitle(title)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3)
    return figure


def _scale_of_nines(axes):
    """Log scale of 1 - cosine, upside down, with the cosines themselves as labels; all that is nearer to 1 is at the top."""
    axes.set_yscale("log")
    decades = range(round(-np.log10(FURTHEST)) + 1)
    labels = [f"{1 - 10.0**-k:.{k}f}" for k in decades]
    axes.set_yticks([10.0**-k for k in decades], [*labels[:-1], f"≥ {labels[-1]}"])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(2.2, FURTHEST / 1.5)


def corrections(steps, norms, crossings, *, title):
    """Each correction of the gradient as a share of its leading term, a panel a parameter; rings where it first exceeds a share.

    Parameters
    ----------
    steps : (R,) int
    norms : dict {parameter: {term: (R,) float}}
    crossings : dict {parameter: {correction: {share: step or None}}}
        As from :func:`minitx.associations.terms.first_exceeds`.
    """
    figure = Figure(figsize=(10, 8.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    names = sorted({name for found in crossings.values() for name in found}, key=term_order)
    styles = {name: {"color": COLOURS[k], "linestyle": DASHES[k % len(DASHES)], "marker": MARKERS[k], "markersize": 4}
              for k, name in enumerate(names, start=1)}  # as in gradient_terms, where the leading term comes first
    shares = sorted({share for found in crossings.values() for at in found.values() for share in at})
    lines, largest = {}, max(shares, default=1)
    for axes, (parameter, found) in zip(panels.flat, crossings.items(), strict=True):
        leading = np.array(norms[parameter]["leading"], np.float64)
        for name, at in found.items():
            values = np.array(norms[parameter][name], np.float64)
            share = np.divide(values, leading, out=np.full(len(values), np.nan), where=(leading > 0) & (values > 0))
            largest = np.nanmax([largest, *share])
            lines[name], = axes.plot(steps, share, **styles[name], linewidth=1.2)
            axes.plot([step for step in at.values() if step], [share for share, step in at.items() if step], linestyle="none",
                      marker="o", markersize=9, markerfacecolor="none", markeredgecolor=styles[name]["color"])
        for share in shares:
            axes.axhline(share, color="black", linewidth=0.8, linestyle=":")
            if known := [at[share] for at in found.values() if at[share]]:
                axes.annotate(ceil(min(known)), (min(known), share), (-7, 4), textcoords="offset points", ha="right", fontsize=9)
        axes.set_title(f"gradient of {PARAMETERS[parameter]}")
    panels[0, 0].set(xscale="log", yscale="log", ylim=(1e-4, 3 * largest))
    panels[0, 0].xaxis.set_major_formatter("{x:g}")
    panels[0, 0].yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    for axes in panels[:, 0]:
        axes.set_ylabel("correction / leading term (norms)")
    for axes in panels[1]:
        axes.set_xlabel("gradient descent steps $s$")
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
        As from :func:`minitx.associations.words.associates`.
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
