"""Figures of the associations theory: weights and gradients of training beside theory (Im et al., ICLR 2026)."""

import textwrap
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, SymmetricalLogLocator
from numpy.typing import NDArray

from minitx.associations.interventions import Intervention
from minitx.associations.terms import Crossings, term_order
from minitx.base.style import COLOURS, DASHES, MARKERS, literal, log_ticks

ROUNDING = 1e-8  # A term below this part of the largest is not there yet, or is rounding, and is not drawn.
FURTHEST = 1e-6  # 1 - cosine at the top of the scale of nines; a smaller value shows more nines
TITLE = 1.0  # where titles of panels stand; matplotlib would measure all ticks each time to keep them out of the way
PARAMETERS = {"W_O": "output $W_O$", "V": "value $V$", "W": "attention $W$", "P": "position $P$"}
Series = Sequence[float] | NDArray[np.float64]  # a number for each recorded step
NamedSeries = Mapping[str, Series]


def theories(steps: Series, cosine: Mapping[str, NamedSeries], loss: Series, predicted: NamedSeries, *,
             title: str) -> Figure:
    """Cosine of each trained weight with what theories predict, a panel a weight, on a scale of nines; the loss below.

    Parameters
    ----------
    steps : (R,) int
    cosine : dict {theory: {parameter: (R,) float}}
        nan (undefined) is left out of the line; a theory may say nothing about a parameter.
    loss, predicted : (steps + 1,) float, dict {theory: (steps + 1,) float}
        The loss of training at every step from 0, and those that theories predict; a theory may predict none.
    """
    figure = Figure(figsize=(10, 9.5), layout="constrained")
    axes = figure.subplot_mosaic([["W_O", "V"], ["W", "P"], ["loss", "loss"]], height_ratios=(3, 3, 2), sharex=True)
    styles: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[k], "linestyle": DASHES[k], "marker": MARKERS[k], "markersize": 5,
               "markevery": (k % 2, 2) if len(steps) > 2 else 1} for k, name in enumerate(cosine)}
    lines = {}
    for parameter, words in PARAMETERS.items():
        for name, values in cosine.items():
            if parameter in values:
                apart = np.maximum(1 - np.asarray(values[parameter]), FURTHEST)
                lines[name], = axes[parameter].plot(steps, apart, **styles[name], label=name)
        _scale_of_nines(axes[parameter])
        axes[parameter].set_title(words, y=TITLE)
    for parameter in ("W_O", "W"):
        axes[parameter].set_ylabel("cosine with the trained weight")
    axes["loss"].plot(range(len(loss)), loss, color="black", linewidth=3, alpha=0.35, label="trained")
    for name, series in predicted.items():
        axes["loss"].plot(range(len(series)), series, **styles[name] | {"marker": ""}, label=name)
    axes["loss"].set(xlabel="gradient descent steps $s$", ylabel="loss (nats a token)")
    axes["loss"].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes["loss"].legend()
    for panel in axes.values():
        panel.grid(alpha=0.3)
        panel.tick_params(labelbottom=True)
    figure.suptitle(title)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3)
    return figure


def _scale_of_nines(axes):
    """Log scale of 1 - cosine, upside down, labelled with the cosines; those above the last label are at the top."""
    axes.set_yscale("log")
    axes.fmt_ydata = lambda apart: f"{1 - apart:.6f}"
    decades = range(round(-np.log10(FURTHEST)) + 1)
    labels = [f"{1 - 10.0**-k:.{k}f}" for k in decades]
    axes.set_yticks([10.0**-k for k in decades], [*labels[:-1], f"≥ {labels[-1]}"])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(2.2, FURTHEST / 1.5)


def gradient_terms(steps: Series, norms: Mapping[str, NamedSeries], *, title: str) -> Figure:
    """Frobenius norm of every term of the exact gradient over training, a panel a parameter, on a logarithmic scale.

    ``norms`` is {parameter: {term: (R,) float}}, at the R ``steps``. Values below 1e-8 of the largest of the panel (the
    term is not there yet, or is rounding) are left out of the line.
    """
    figure, panels = _panels(norms, title, "Frobenius norm of the term")
    names = sorted({term for terms in norms.values() for term in terms}, key=term_order)
    lines = {}
    for parameter, terms in norms.items():
        axes, largest = panels[parameter], max(map(max, terms.values()))
        for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
            if name in terms:
                values = np.array(terms[name], np.float64)
                values[values <= largest * ROUNDING] = np.nan
                lines[name], = axes.plot(steps, values, color=colour, marker=marker, markersize=4,
                                         linewidth=2.5 if name == "leading" else 1.2, label=name)
        if largest > 0:
            axes.set_yscale("log")
            log_ticks(axes.yaxis)
        else:
            axes.text(0.5, 0.5, "zero at every recorded step", ha="center", va="center", transform=axes.transAxes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def corrections(steps: Series, norms: Mapping[str, NamedSeries], crossings: Crossings, *, title: str) -> Figure:
    """Each correction of the gradient as a share of its leading term, a panel a parameter.

    A ring marks where a correction first exceeds a share; the number is the step at which the first correction does.
    ``norms`` is as for :func:`gradient_terms`, and ``crossings`` as from
    :func:`minitx.associations.terms.first_exceeds`.
    """
    figure, panels = _panels(crossings, title, "correction / leading term (norms)", sharey=True)
    names = sorted({name for found in crossings.values() for name in found}, key=term_order)
    shares = sorted({share for found in crossings.values() for at in found.values() for share in at})
    styles = {name: {"color": COLOURS[k], "linestyle": DASHES[k % len(DASHES)], "marker": MARKERS[k], "markersize": 4}
              for k, name in enumerate(names, start=1)}  # as in gradient_terms, where the leading term comes first
    lines, largest = {}, max(shares, default=1)
    for parameter, found in crossings.items():
        axes, leading = panels[parameter], np.array(norms[parameter]["leading"], np.float64)
        for name, at in found.items():
            values = np.array(norms[parameter][name], np.float64)
            share = np.divide(values, leading, out=np.full(len(values), np.nan), where=leading > 0)
            share[share <= ROUNDING] = np.nan
            largest = np.nanmax([largest, *share])
            lines[name], = axes.plot(steps, share, **styles[name], linewidth=1.2, label=name)
            recorded = dict(zip(steps, share, strict=True))  # the first record may exceed a share already
            axes.plot([step for step in at.values() if step],
                      [max(limit, recorded.get(step, limit)) for limit, step in at.items() if step],
                      linestyle="none", marker="o", markersize=9, markerfacecolor="none",
                      markeredgecolor=styles[name]["color"])
        for share in shares:
            axes.axhline(share, color="black", linewidth=0.8, linestyle=":")
            if known := [step for at in found.values() if (step := at[share])]:
                axes.annotate(str(ceil(min(known))), (min(known), share), (-7, 4), textcoords="offset points",
                              ha="right", fontsize=9)
        axes.set(xscale="log", yscale="log", ylim=(1e-4, 3 * largest))
        log_ticks(axes.xaxis)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())  # of a figure's time, ticks without a label took a third
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axes.fmt_ydata = "{:.3%}".format
    figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _panels(parameters, title, label, **sharing):
    """A figure of two by two panels, or of a row for each of several layers, and {parameter: axes}."""
    n_layers = (len(parameters) - 1) // 3
    shape = (2, 2) if n_layers == 1 else (n_layers, 4)
    figure = Figure(figsize=(5 * shape[1] if n_layers == 1 else 15, 4.25 * shape[0]), layout="constrained")
    panels = figure.subplots(*shape, sharex=True, squeeze=False, **sharing)
    if n_layers > 1:  # W_O stands in the row of the first layer
        for axes in panels[1:, 0]:
            axes.set_axis_off()
    used = [axes for axes in panels.flat if axes.axison]
    left = [*panels[:, 0], *(panels[1:, 1] if n_layers > 1 else [])]  # the first panel of every row
    for axes, parameter in zip(used, parameters, strict=True):
        kind, _, layer = parameter.partition(" ")
        axes.set_title(f"gradient of {PARAMETERS[kind].rstrip('$')}{f'_{layer}' if layer else ''}$", y=TITLE)
        axes.tick_params(labelbottom=axes in panels[-1] or (n_layers > 1 and kind == "W_O"),
                         labelleft=not sharing or axes in left)
    for axes in [*panels[-1], *(panels[0, :1] if n_layers > 1 else [])]:
        axes.set_xlabel("gradient descent steps $s$")
    for axes in left:
        axes.set_ylabel(label)
    figure.suptitle(title)
    return figure, dict(zip(parameters, used, strict=True))


def interventions(loss: float, changes: Sequence[Intervention], *, title: str) -> Figure:
    """Change of the ``loss`` after each intervention: a row a weight, a mark each for removing, control and keeping."""
    figure = Figure(figsize=(9, 1.8 + 0.42 * len(changes)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(changes))
    for k, (label, values, spread) in enumerate((
            ("projection on the leading term removed", [one.removed for one in changes], None),
            ("random direction of the same norm removed", [one.random for one in changes],
             [one.random_sd for one in changes]),
            ("nothing but the projection kept", [one.kept for one in changes], None))):
        axes.errorbar(np.array(values) - loss, rows + 0.2 * (k - 1), xerr=spread, linestyle="none", marker=MARKERS[k],
                      color=COLOURS[k], capsize=3, label=label)
    worth = [abs(one.removed - loss) for one in changes if one.removed != loss]
    linear = 10 ** np.floor(np.log10(max(1e-12, min([1e-5, *worth]))))  # logarithmic for all that a projection is worth
    axes.set_xscale("symlog", linthresh=linear)
    locator = SymmetricalLogLocator(base=10, linthresh=linear)
    locator.set_params(numticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows, [f"${one.changed.replace(' ', '_')}$" if not one.changed.startswith("every")
                           else one.changed for one in changes])
    axes.invert_yaxis()
    axes.set(xlabel=f"change of the loss, from {loss:.4f} (nats a token; linear within ±{linear:.0e})", title=title)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=1, fontsize=9)
    return figure


def heat_map(matrix: NDArray[np.float64], words: Sequence[str], row: str, column: str, *, title: str) -> Figure:
    """Heat map of ``matrix`` with a word on every row and column; blue below 0, red above, logarithmic away from 0.

    ``row`` and ``column`` say what a row and a column of the matrix are.
    """
    largest = np.abs(matrix).max() or 1.0
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.subplots()
    norm = SymLogNorm(largest * 1e-3, vmin=-largest, vmax=largest)
    image = axes.imshow(matrix, cmap="RdBu_r", norm=norm, interpolation="nearest")
    axes.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    axes.set_yticks(range(len(words)), words, fontsize=8)
    axes.set(xlabel=column, ylabel=row)
    axes.set_title(title, y=TITLE)
    decades = [largest * 10.0**-k for k in range(3)]
    figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-tick for tick in decades] + [0.0] + decades[::-1],
                    format="%.1e", label=f"entry (logarithmic colours, linear within ±{largest * 1e-3:.1e})")
    return figure


def why(labels: Sequence[str], shares: NamedSeries, course: NamedSeries, heading: str, sign: str, *,
        title: str) -> Figure:
    """Which windows taught an association, and the entry of W_O over training.

    Parameters
    ----------
    labels : K texts of windows, the strongest first
    shares : dict {what is attributed: (K,) float}
        The part of each window among all parts of the ``sign``.
    course : dict {name: (S + 1,) float}
        The trained entry and what it is compared with, after 0 .. S steps; empty if nothing was trained.
    """
    figure = Figure(figsize=(14 if course else 9.5, 1.6 + 0.62 * max(len(labels), 5)), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(3, 2)) if course else [figure.subplots()]
    rows, height = np.arange(len(labels)), 0.8 / len(shares)
    for k, (name, values) in enumerate(shares.items()):
        panels[0].barh(rows + height * (k - (len(shares) - 1) / 2), 100 * np.asarray(values), height,
                       color=COLOURS[k], label=name)
    panels[0].set_yticks(rows, [literal(textwrap.fill(label, 60)) for label in labels], fontsize=8)
    panels[0].invert_yaxis()
    panels[0].axvline(0, color="black", linewidth=0.8)
    panels[0].set(xlabel=f"what the window adds, in % of all {sign} parts", title=heading)
    figure.legend(loc="outside lower left", ncols=len(shares), fontsize=9)
    styles: list[dict[str, Any]] = [{"color": "black", "linewidth": 3, "alpha": 0.35}, *(
        {"color": colour, "linestyle": dash}
        for colour, dash in zip(COLOURS[4:7], ("--", "-.", ":"), strict=True))]
    for (name, series), line in zip(course.items(), styles, strict=False):
        panels[1].plot(range(len(series)), series, label=name, **line)
    if course:
        panels[1].set(xlabel="gradient descent steps $s$", title="entry of the output matrix $W_O$")
        panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].legend(fontsize=9)
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    return figure
