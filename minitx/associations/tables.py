"""The tables of ``minitx associate``: what is printed of weights, gradients, losses and words.

Of several layers, a table has a row for each layer, or there is a table for each layer. The names of weights are those
of :meth:`minitx.model.layers.LayeredWeights.matrices`: ``W_O``, and ``V``, ``W``, ``P`` with the number of the layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minitx.associations import terms
from minitx.associations.interventions import Intervention
from minitx.associations.leading import Beside
from minitx.base.numbers import Agreement
from minitx.base.tables import Table, number, table

PARAMETERS = ("W_O", "V", "W", "P")
Theories = Mapping[str, Sequence[Agreement | None]]  # {theory: the weights beside it at each recorded step, or None}


def names_of_layers(n_layers: int) -> list[dict[str, str]]:
    """For each layer, {parameter: its name}. Of several layers, ``W_O`` is named with the first."""
    if n_layers == 1:
        return [{name: name for name in PARAMETERS}]
    return [({"W_O": "W_O"} if l == 1 else {}) | {name: f"{name} {l}" for name in PARAMETERS[1:]}
            for l in range(1, n_layers + 1)]


def _cells(layer: Mapping[str, str], found: Mapping[str, float] | None, show: Callable[[Any], str] = number) -> list:
    """A cell for each parameter: dashes where nothing was ``found``, nothing where the layer has no such weight."""
    return [show(None if found is None else found[layer[name]]) if name in layer else "" for name in PARAMETERS]


def measure(found: Agreement | None, name: str) -> dict[str, float] | None:
    """The ``cosine`` or ``relative_error`` of what was found; None where a theory has ended."""
    return None if found is None else getattr(found, name)


def theories_table(columns: Sequence[str], blocks: Sequence[str]) -> tuple[Table, str]:
    """A table with blocks of the four weights, each under its own head, after other ``columns``; and both heads."""
    rows = Table([*columns, *PARAMETERS * len(blocks)],
                 [5, *[8] * (len(columns) - 1), *[9] * len(PARAMETERS) * len(blocks)])
    weights = rows.widths[-len(PARAMETERS):]
    before = [" " * width for width in rows.widths[:len(columns)]]
    heads = [f"{head:-^{sum(weights) + 2 * (len(weights) - 1)}}" for head in blocks]
    return rows, "  ".join([*before, *heads]) + "\n" + rows.header()


def rows_of_step(rows: Table, n_layers: int, first: Sequence[str], blocks: Sequence[Mapping[str, float] | None]
                 ) -> str:
    """The row of a step, or one for each layer: ``first`` in the columns before, the layer, then the blocks."""
    lines = []
    for l, layer in enumerate(names_of_layers(n_layers), start=1):
        before = [first[0], *([str(l)] if n_layers > 1 else []), *first[1:]] if l == 1 else ["", str(l),
                                                                                            *[""] * (len(first) - 1)]
        lines.append(rows.row([*before, *(cell for block in blocks for cell in _cells(layer, block))]))
    return "\n".join(lines)


def columns_of(n_layers: int, *columns: str) -> list[str]:
    """Heads of the columns before the weights; several layers have a column for their number."""
    return ["step", *(["layer"] if n_layers > 1 else []), *columns]


def errors_table(n_layers: int, leading: Sequence[Beside], name: str, predicted: Sequence[Agreement | None]) -> str:
    """Relative error of the leading terms and of the theory ``name`` at each recorded step."""
    rows, header = theories_table(columns_of(n_layers), ("leading terms", name))
    return "\n".join([header, *(
        rows_of_step(rows, n_layers, [str(record.step)], [record.relative_error, measure(found, "relative_error")])
        for record, found in zip(leading, predicted, strict=True))])


def agreement_table(steps: Sequence[int], found: Sequence[Agreement | None]) -> str:
    """Cosine and relative error of the weights of one layer and those that a theory predicts; dashes where it ended."""
    rows, header = theories_table(columns_of(1), ("cosine", "relative error"))
    lines = (rows_of_step(rows, 1, [str(step)], [measure(one, "cosine"), measure(one, "relative_error")])
             for step, one in zip(steps, found, strict=True))
    return "\n".join([header, *lines])


def bounds_table(n_layers: int, records: Sequence[Beside]) -> str:
    """Measured error over proved bound at each recorded step, and whether the theorem covers that step."""
    rows = []
    for record in records:
        covered = f"{record.source}, outside: {'; '.join(record.outside)}" if record.outside else \
            f"{record.source}, inside its conditions"
        for l, layer in enumerate(names_of_layers(n_layers), start=1):
            rows.append([str(record.step) if l == 1 else "", *([str(l)] if n_layers > 1 else []),
                         *_cells(layer, record.over_bound, "{:.2e}".format), covered if l == 1 else ""])
    return table([f" {head}" for head in columns_of(n_layers)] + [*PARAMETERS, "theorem "], rows)


def by_layer(n_layers: int, found: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str]) -> str:
    """``render`` of what was ``found`` of each weight; of several layers, a table for each layer."""
    if n_layers == 1:
        return render(found)
    return "\n".join(f"layer {l}\n" + render({name: found[name] for name in layer.values()})
                     for l, layer in enumerate(names_of_layers(n_layers), start=1))


def split_table(split: Mapping[str, dict[str, Any]]) -> str:
    """Norm of each term of each parameter's gradient, and to how many digits they sum to it."""
    names = sorted({name for parts in split.values() for name in parts["terms"]}, key=terms.term_order)
    rows = [[name, *(f"{parts['terms'][name]:.3e}" if name in parts["terms"] else number(None)
                     for parts in split.values())] for name in names]
    digits = [f"{parts['digits']:.1f}" if np.isfinite(parts["digits"]) else "all" for parts in split.values()]
    rows.append(["exact gradient", *(f"{parts['gradient']:.3e}" for parts in split.values())])
    return table(["term ", *split], [*rows, ["terms sum to it, digits", *digits]])


def first_words(word: str, functions: Mapping[str, list[tuple[str, float]]], k: int = 3) -> str:
    """The line that says, before anything is trained, which words go together with ``word``."""
    parts = [f"{' '.join(other for other, _ in strongest[:k]) or 'none'} ({function})"
             for function, strongest in functions.items()]
    return f"the text alone says of {word!r}: {', '.join(parts)}"


def words_table(associates: dict[str, dict[str, list[tuple[str, float]]]]) -> str:
    """The strongest associates of each word under each basis function, strongest first."""
    return table(["word ", "function ", "associates "],
                 [[word if function == "bigram" else "", function, " ".join(other for other, _ in strongest)]
                  for word, functions in associates.items() for function, strongest in functions.items()])


def interventions_table(loss: float, found: Sequence[Intervention]) -> str:
    """By how much each change of the trained weights changes their ``loss``."""
    return table(["changed ", "projection removed", "random removed", "its s.d.", "projection alone"],
                 [[one.changed, *(f"{value - loss:+.3e}" for value in (one.removed, one.random)),
                   f"{one.random_sd:.1e}", f"{one.kept - loss:+.3e}"] for one in found])


def heads_table(cosines: Mapping[str, float], heads: Mapping[str, Mapping[str, list[tuple[str, float]]]]) -> str:
    """The strongest associates of each word in each virtual head, and the head's cosine with its leading term."""
    return table(["word ", "head ", "cosine", "associates "],
                 [[word if k == 0 else "", head, number(cosines[head]), " ".join(other for other, _ in strongest)]
                  for word, found in heads.items() for k, (head, strongest) in enumerate(found.items())])
