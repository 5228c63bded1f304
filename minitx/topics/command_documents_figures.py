"""The figures of ``minitx topics`` without a TEXT: heat maps, training, the loss of attention."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minitx.base import style
from minitx.topics import attention
from minitx.topics import figures as plots
from minitx.topics import values as closed_forms
from minitx.topics.averages import attention_table, gram
from minitx.topics.law import TopicModel
from minitx.topics.sectors import moments
from minitx.topics.training import BLOCK_FIELDS, CLASSES, over_seeds

N_LENGTHS = (128, 10_000, 1_000_000)  # Lengths of documents in the figure of the two limits.
ATTENTION = {"attention": "$W_V$ at the paper's limit", "copying": "$W_V$ as trained in stage 1a",
             "joint": "$W_V$ trained too"}
LABELS = {"value": "mean entry of $W_V$", "embedding": "mean inner product of embeddings",
          "attention": "mean attention × length"}

Figures = dict[str, tuple[Figure, str]]  # {file name: (figure, caption)}


def figures(result: Any) -> Figures:
    """All the figures of a run (:class:`minitx.topics.command_stages.Result`)."""
    law = result.options.law
    shares = rf"$\tau$ = {law.tau}" if law.tau else rf"Dirichlet({law.alpha:g})"
    about = f"T = {law.T}, v = {law.v}, {shares}, N = {result.options.length}"
    found: Figures = {}
    for name, stage in result.stages.items():
        if stage.recorded:
            found |= _matrix(stage, result, about) | {f"{name}_training.png": _training(stage, about)}
    if result.infinite and len(result.infinite.path) > 1:
        found |= _attention_loss(result.infinite.path, law)
    if "joint" in result.stages and result.stages["joint"].recorded:
        found["two_stages.png"] = _two_stages(result.stages["joint"], about)
    if law.h < math.inf:
        found["two_limits.png"] = (two_limits(law), "Value matrix of least squared loss against the ridge. Infinite "
                                   "documents first, as in the paper, and no ridge first lead to different matrices. "
                                   "Look how curves of longer documents stay longer at the first limit.")
    return found


def _matrix(stage, result, about):
    """Heat map of what the stage trained, first seed, tokens grouped by topic, beside its closed form."""
    law, weights = result.options.law, stage.recorded[0].weights
    squared = result.options.head == "squared"  # the cross-entropy has no closed form of all entries
    title, topics = f"{_stage_name(stage)}\n{about}", law.topic_of_token
    settings: dict[str, Any] = {}
    caption = (f"{_how(stage)}, first seed, tokens grouped by topic. Look for the squares on the diagonal: words of "
               "one topic have more in common than words of two.")
    if stage.part == "value":
        matrices = {"trained $W_V$": weights.circuits().ov.T}
        if squared:
            matrices["closed form, end of descent"] = closed_forms.optimal_value(law).matrix(law)
    elif stage.part == "embedding":
        matrices, settings = {r"trained $E^\top E$": gram(weights.W_E)}, {"row_label": "word", "column_label": "word"}
        if squared and law.h < math.inf:
            matrices["closed form, plateau"] = closed_forms.gram_plateau(law).matrix(law)
    else:
        title, topics = about, topics[1:]
        found = attention_table(weights, result.options.held_out(result.options.seed))
        mean = found.mean(np.nan)[1:, 1:]
        matrices = {f"trained attention, {ATTENTION[stage.name]}": np.log2(np.where(mean > 0, mean, np.nan))}
        settings = {"row_label": "query", "column_label": "key",
                    "value_label": "log2 of attention × length, 0: uniform"}
        caption = (f"{_how(stage)}, average on held-out documents, words grouped by topic; +1 is twice and −1 half of "
                   "uniform attention. Look for red squares on the diagonal: words attend to their own topic.")
    return {f"{stage.name}_matrix.png": (plots.topic_heat_maps(matrices, topics, title=title, **settings), caption)}


def _stage_name(stage):
    return style.literal(stage.title.partition(";")[0])


def _how(stage):
    """How the stage was trained: its title behind its name."""
    how = stage.title.partition(";")[2].strip() or stage.title
    return how[:1].upper() + how[1:]


def _training(stage, about):
    """Averages of each class over training, mean and s.d. over seeds, beside closed trajectory and final values."""
    steps, measured = over_seeds(stage.recorded, stage.part)
    final = {label: stage.final[label] for label in CLASSES if np.isfinite(stage.final.get(label, np.nan))}
    figure = plots.block_values(steps, measured, closed=stage.trajectory, final=final, ylabel=LABELS[stage.part],
                                title=f"{_stage_name(stage)}\n{about}")
    ends = ", and whether lines end at the dotted closed forms" if final else ""
    return figure, (f"Averages by class of word pair over training. {_how(stage)}. Look how far same topic stays above "
                    f"different topic{ends}.")


def _two_stages(stage, about):
    """When W_V, W_Q and W_K move in joint training, and how far attention is from three values; first seed."""
    run = stage.recorded[0]
    movement, records = run.movement, run.records
    ways = {f"${name[0]}_{name[2]}$": way[1:] / (way[-1] or 1.0) for name, way in movement.distance.items()}
    attention = {label: ([getattr(record.attention, name) for record in records],
                         [getattr(record.attention_spread, name) for record in records])
                 for label, name in CLASSES.items()}
    figure = plots.two_stages(movement.steps[1:], ways, [record.step for record in records], attention,
                              title=f"Joint training: two stages, three attention values?\n{about}")
    return figure, (f"{stage.title}. First seed. Above: how far each part of the weights has moved from its start, as "
                    "a share of its whole way. Below: attention on held-out documents, mean of each class of word "
                    "pairs and standard deviation of its pairs.")


def _attention_loss(path, law):
    """The loss surface with the trained way through it, and the loss against the ratio."""
    law = replace(law, length=math.inf, loss="pooled")
    best, v, label = attention.optimal_ratio(law), law.v, rf"$\tau$ = {law.tau}"
    way = [at["alpha"] for at in path], [at["beta"] for at in path]
    values = _around((0.05, 8 * v * best.rho), [*way[0], *way[1]], 120)
    loss = attention.attention_loss(law, values[:, None], values[None, :])
    line = np.geomspace(values[0], v * best.rho * (1 - 1e-6), 300)
    optimum = line, (v * best.rho - line) / max(v - 1, 1)
    surface = plots.loss_surface(values, values, loss, path=way, optimum_line=optimum,
                                 title=rf"Loss of attention, $W_V = W_\infty$, {label}, T = {law.T}, v = {v}")
    end = path[-1]["rho"]
    ratios = _around((0.3, 4 * best.rho), [end], 200)
    ratio = plots.loss_over_ratio(
        ratios, attention.attention_loss(law, ratios, ratios), best=(best.rho, best.rho_AB), label=label,
        trained=(end, attention.attention_loss(law, end, end)),
        title=rf"Loss against the attention ratio $\rho$, $W_V = W_\infty$, T = {law.T}, v = {v}")
    return {"attention_loss.png": (surface, "Loss of attention on infinite documents over its two values, and the way "
                                            "of training. Look whether the way ends in the valley, the dashed line."),
            "attention_ratio.png": (ratio, "The same loss against the ratio rho: the best ratio, its bound, and the "
                                           "trained ratio. Look whether the cross is in the ring.")}


def _around(ends, shown, count):
    """``count`` numbers, evenly spaced in the logarithm, from the first to the second of ``ends`` or beyond.

    What is ``shown`` lies between them; weights of attention are above 0.
    """
    return np.geomspace(min(ends[0], min(shown) / 1.2), max(ends[1], max(shown) * 1.2), count)


def two_limits(law: TopicModel) -> Figure:
    """The least-squares value matrix against the ridge, for the lengths of documents ``N_LENGTHS``."""
    infinite = replace(law, length=math.inf, loss="pooled")
    limits = {r"$W_\infty$ ($N\to\infty$ first, then $\lambda\to 0$: the paper)": closed_forms.paper_value(infinite),
              r"$W_\mathrm{lim}$ ($\lambda\to 0$ first, then $N\to\infty$)": closed_forms.other_limit_value(infinite)}
    ridges, blocks, windows = np.logspace(-9, -1, 81), {}, {}
    for N in N_LENGTHS:
        finite = replace(law, length=N)
        values = [closed_forms.ridge_value(finite, ridge) for ridge in ridges]
        blocks[N] = {block: [getattr(value, name) for value in values] for block, name in BLOCK_FIELDS.items()}
        windows[N] = moments(finite).M_w, moments(finite).M_t
    ends = {limit: {block: getattr(value, name) for block, name in BLOCK_FIELDS.items()}
            for limit, value in limits.items()}
    title = "Value matrix that minimises the squared loss with a ridge: the limits do not commute"
    return plots.ridge_path(ridges, blocks, ends, windows, title=title)
