"""What ``associations.py --layers L`` runs: Tables 1 and 3 and Figure 4 of Im, Oh, Fang, Li (ICLR 2026) for L layers.

The paper trains three layers on 65,536 stories for 3,200 steps at V = 3000, T = 200, to s eta = 16 and, at ten times
the rate, to 160. Here Table 1 is measured at V = 800, T = 64 on 512 windows, in 50 steps, and Figure 4 and Table 3 at V
= 400, T = 32 on 512 windows, at four rates, all with full batches in float32. What limits a rate is said by the
sharpness, the largest eigenvalue of the Hessian: descent is stable while it is below 2 / eta.
"""

from textwrap import fill

import numpy as np
from running import block, paragraphs, write_down

from minitx import LayeredWeights, associations, builtin_corpus, descend, load_corpus, loss_and_gradient
from minitx.associations import figures as plots
from minitx.associations.interventions import interventions
from minitx.associations.leading import beside
from minitx.base import style
from minitx.base.numbers import norm
from minitx.base.tables import number

SMALL, LARGE, TIMES = 16.0, 160.0, (16.0, 24.0, 48.0, 160.0)  # s eta
PAPER_TABLE_1 = {"W": 0.999496, "V": 0.999169, "W_O": 0.998486}
NAMES = {"W": "attention", "V": "value", "W_O": "output", "P": "position"}
TABLE_1 = ({"n_vocab": 800, "length": 64, "n_windows": 512}, 50)  # size, and steps to s eta = 16
FIGURE_4 = ({"n_vocab": 400, "length": 32, "n_windows": 512}, (50, 200, 400, 800))  # size; steps to 160, one run each
ITERATIONS = 12  # of Lanczos' method, which finds the sharpness
STEP = 1e-3  # between gradients whose difference is a product with the Hessian; weights have norms of 10 to 100
WINDOWS = 128  # on which losses after interventions are taken


def train(corpus, *, n_layers, time, steps):
    """Train to s eta = ``time`` from zero. Returns a dict of what is written down, and the Trajectory."""
    batch, n_vocab, length = corpus.batch(), len(corpus.vocabulary), corpus.length
    statistics, eta = associations.statistics(batch, n_vocab), time / steps
    at = {round(steps * k / 40) for k in range(1, 41)} | {round(moment / eta) for moment in TIMES if moment <= time}
    records = []

    def record(step, loss, weights, gradient):
        if step in at and step > 0:
            leading = associations.leading_weights(statistics, steps=step, learning_rate=eta)
            bounds = associations.bounds(steps=step, learning_rate=eta, length=length, n_vocab=n_vocab,
                                         n_layers=n_layers)
            records.append(beside(weights, leading, bounds, step=step, loss=loss))

    start = LayeredWeights.zeros(n_vocab, length, n_layers, dtype=np.float32)
    run = descend(start, batch, learning_rate=eta, steps=steps, callback=record, keep=sorted(at))
    rises = np.flatnonzero(np.diff(run.loss) > 0)
    return {"size": {"V": n_vocab, "T": length, "N": len(batch)}, "eta": eta, "steps": steps,
            "loss": [float(run.loss[0]), float(run.loss[-1])], "stopped": str(run.stopped) if run.stopped else None,
            "rises": int(rises[0]) if len(rises) else None,  # the last step before the first rise
            "records": [{"step": one.step, "loss": one.loss, "cosine": one.cosine} for one in records]}, run


def sharpness(weights, batch):
    """Largest eigenvalue of the Hessian of the loss at ``weights``, by Lanczos' method from the gradient.

    A product with the Hessian is the difference of the gradients at two points a small step ahead and behind.
    """
    weights = weights.astype(np.float64)
    parts = weights.parameters()
    ends = np.cumsum([array.size for array in parts.values()])[:-1]

    def gradient(moved):
        arrays = zip(parts, np.split(moved, ends), strict=True)
        found = loss_and_gradient(LayeredWeights(**{name: parts[name] + array.reshape(parts[name].shape)
                                                    for name, array in arrays}), batch)[1]
        return np.concatenate([array.ravel() for array in found.parameters().values()])

    direction = gradient(np.zeros(sum(array.size for array in parts.values())))
    basis, coefficients = [direction / norm(direction)], np.zeros((ITERATIONS, ITERATIONS))
    for k in range(ITERATIONS):
        along = (gradient(STEP * basis[k]) - gradient(-STEP * basis[k])) / (2 * STEP)
        for _ in range(2):  # twice, so that rounding leaves the basis orthogonal
            for m, vector in enumerate(basis):
                share = np.sum(along * vector)
                coefficients[m, k] += share
                along -= share * vector
        basis.append(along / norm(along))
    return float(np.linalg.eigvalsh((coefficients + coefficients.T) / 2)[-1])


def stability(result, run, batch):
    """Sharpness at some recorded steps of a run, beside 2 / eta."""
    until = result["rises"] if result["rises"] is not None else result["steps"]
    steps = [step for step in run.kept if step and step <= until]
    chosen = sorted({steps[len(steps) // 2], steps[-1]}) if steps else []
    return [{"step": step, "sharpness": sharpness(run.kept[step], batch)} for step in chosen]


def table_3(corpus, result, run, time):
    """Losses after interventions at s eta = ``time`` of a run."""
    batch, step = corpus.batch(), round(time / result["eta"])
    leading = associations.leading_weights(associations.statistics(batch, len(corpus.vocabulary)), steps=step,
                                           learning_rate=result["eta"])
    few = type(batch)(batch.tokens[:WINDOWS], batch.targets[:WINDOWS])
    loss, changes = interventions(run.kept[step].astype(np.float64), few, leading)
    return {"time": time, "eta": result["eta"], "windows": len(few), "loss": loss, "changes": changes}


def lowest(result, name, time):
    """Lowest cosine of each layer's matrix ``name`` up to s eta = ``time``, layer 1 first; undefined ones are left out.
    """
    records = [one for one in result["records"] if one["step"] * result["eta"] <= time * (1 + 1e-9)]
    matrices = [key for key in records[0]["cosine"] if key.split()[0] == name]
    return [np.nanmin([float(one["cosine"][key]) for one in records]) for key in matrices]


def _size(result):
    return ", ".join(f"{name} = {value}" for name, value in result["size"].items())


def _course(result):
    """A row for each time: the lowest cosine of the layers at that step, and the loss."""
    rows = []
    for time in TIMES:
        found = [one for one in result["records"] if one["step"] == round(time / result["eta"])]
        if not found:
            rows.append((f"{result['eta']:g}", f"{time:g}", *["-"] * (len(NAMES) + 1)))
            continue
        cosine = {name: min(float(value) for key, value in found[0]["cosine"].items() if key.split()[0] == name)
                  for name in NAMES}
        rows.append((f"{result['eta']:g}", f"{time:g}", *(number(cosine[name]) for name in NAMES),
                     f"{found[0]['loss']:.4f}"))
    return rows


def _fate(result):
    """How a run at one rate went: whether and where its loss rose, and the sharpness there."""
    at = "; ".join(f"the sharpness is {one['sharpness']:.3g} at s eta = {one['step'] * result['eta']:.3g}"
                   for one in result["stability"])
    rises, eta = result["rises"], result["eta"]
    how = "falls at every step" if rises is None else f"first rises after s eta = {rises * eta:.3g} (step {rises})"
    ended = f" Training ends early with the message \"{result['stopped']}\"." if result["stopped"] else ""
    return f"eta = {eta:g}: the loss {how}.{ended} 2 / eta = {2 / eta:.3g}; {at or 'the sharpness was not measured'}."


def section(results):
    """Markdown of what associations.json holds after a run with --layers."""
    first, runs, n_layers = results["table_1"], results["figure_4"], results["layers"]
    table_1 = [(label, number(PAPER_TABLE_1.get(name), 6), *(number(value, 6) for value in found),
                *[""] * (n_layers - len(found)))
               for name, label in NAMES.items() for found in [lowest(first, name, SMALL)]]
    interventions_rows = [
        (f"{found['time']:g}", change["changed"], *(f"{change[name] - found['loss']:+.2e}"
                                                    for name in ("removed", "random")),
         f"{change['random_sd']:.0e}", f"{change['kept'] - found['loss']:+.2e}")
        for found in results["table_3"] for change in found["changes"]]
    losses = " and ".join(f"{one['loss']:.4f} at s eta = {one['time']:g}" for one in results["table_3"])
    return paragraphs(
        f"## Leading terms of {n_layers} layers, beside the paper: {results['corpus'].split()[-1]}",
        "As Table 1 of the paper does, this table gives the lowest cosine of each layer's trained weights with their "
        f"leading terms while s eta is at most 16. Here {_size(first)}; in the paper V = 3000, T = 200, N = 65,536. "
        f"The loss falls from {first['loss'][0]:.4f} to {first['loss'][-1]:.4f}.",
        block(("weight ", "paper", *(f"layer {l}" for l in range(1, n_layers + 1))), table_1),
        "Figure 4 of the paper shows the cosines at ten times the learning rate of Table 1. The next table has the "
        f"lowest one of the layers at that rate and at smaller ones, with {_size(runs[0])}. The paper has at least 0.9 "
        "at s eta = 48 and above 0.7 at 160, where its loss has fallen from 8.00 to 5.35. At a smaller V the loss "
        "falls sooner, because Phi is larger.",
        block(("eta", "s eta", *NAMES.values(), "loss"), [row for run in runs for row in _course(run)]),
        "Descent overshoots along the direction in which the loss curves most, and the loss rises, where that largest "
        "curvature (the sharpness) exceeds 2 / eta. The list says where each rate meets this limit. The last "
        "sharpness given for a rate is that of the last recorded step before the loss rises. At a large rate the next "
        "step passes from below the limit to far above it, as the sharpness at the same s eta of a smaller rate shows.",
        "\n".join(fill(f"- {_fate(run)}", 120, subsequent_indent="  ") for run in runs),
        "The last table is Table 3 of the paper with controls. It gives the change of the loss when the projection of "
        "trained weights on the leading term is removed from them, when a random direction of the same norm is removed "
        "(mean and standard deviation of 20 draws), and when the projection alone is kept. Before the change the loss "
        f"of the first {results['table_3'][0]['windows']} windows, at eta = {results['table_3'][0]['eta']:g}, is "
        f"{losses}. In the paper removing the projection matters most for the output, then for values, and least for "
        "attention.",
        block(("s eta", "changed ", "projection removed", "random removed", "its s.d.", "projection alone"),
              interventions_rows))


def main(arguments):
    """Train, draw Figure 4, and write and print the results."""
    small, steps, course, rates = *TABLE_1, *FIGURE_4
    if arguments.quick:
        small = course = {"n_vocab": 60, "length": 12, "n_windows": 24}
        steps, rates = 20, (50, 80)
    own, n_layers = arguments.text, arguments.layers

    def read(size):
        return load_corpus(own, **size) if own else builtin_corpus("stories", **size)

    corpus = read(course)
    table_1, _ = train(read(small), n_layers=n_layers, time=SMALL, steps=steps)
    found = [train(corpus, n_layers=n_layers, time=LARGE, steps=n) for n in rates]
    for result, run in found:
        result["stability"] = stability(result, run, corpus.batch())
    slowest, run = found[-1]
    last = max(step for step in run.kept) * slowest["eta"]
    losses = [table_3(corpus, slowest, run, time) for time in (SMALL, last)]
    for result, run in found:
        steps_recorded = [one["step"] for one in result["records"]]
        cosine = {name: [min(float(value) for key, value in one["cosine"].items() if key.split()[0] == name)
                         for one in result["records"]] for name in plots.PARAMETERS}
        title = f"{corpus.name}, {n_layers} layers (lowest cosine): $\\eta$ = {result['eta']:.3g}"
        style.save(plots.theories(steps_recorded, {"leading terms": cosine}, run.loss, {}, title=title),
                   arguments.out / f"figure4-eta{result['eta']:g}.png")
    write_down("associations", arguments, {
        "layers": n_layers, "corpus": corpus.summary().splitlines()[0], "table_1": table_1,
        "figure_4": [result for result, _ in found], "table_3": losses,
        "series": {"loss": [[float(loss) for loss in run.loss] for _, run in found]}}, section)
