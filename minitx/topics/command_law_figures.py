"""The figures of ``minitx topics`` without a text: heat maps by topic, training beside closed forms, the loss of attention."""

import math
from dataclasses import replace

import numpy as np

from minitx.base import style
from minitx.topics import attention
from minitx.topics import figures as plots
from minitx.topics import sectors as topic_law
from minitx.topics import values as block_values
from minitx.topics.averages import attention_table, gram
from minitx.topics.training import BLOCK_FIELDS, CLASSES, over_seeds

STAGES = ("value", "embedding", "attention", "copying", "joint")
NAMES = (*(f"{stage}_{kind}.png" for stage in STAGES for kind in ("matrix", "training")), "attention_loss.png",
         "attention_ratio.png", "two_limits.png")
N_LENGTHS = (128, 10_000, 1_000_000)  # of the figure of the two limits
ATTENTION = {"attention": "$W_V$ at the paper's limit", "copying": "$W_V$ as trained in stage 1a", "joint": "$W_V$ trained too"}
LABELS = {"value": "mean entry of $W_V$", "embedding": "mean inner product of embeddings", "attention": "mean attention × length"}


def figures(result):
    """{file name: (figure, caption)} of a :class:`minitx.topics.command_law.Result`."""
    setting = result.options.setting
    law = rf"$\tau$ = {setting.tau}" if setting.tau else rf"Dirichlet({setting.alpha:g})"
    about = f"T = {setting.T}, v = {setting.v}, {law}, N = {result.options.length}"
    stages = {name: stage for name, stage in result.stages.items() if stage.recorded}
    found = _matrices(stages, result, about)
    for name, stage in stages.items():
        found |= _training(name, stage, about)
    if result.infinite is not None and len(result.infinite["path"]) > 1:
        found |= _attention_loss(result, setting)
    if setting.h < math.inf:
        found["two_limits.png"] = (two_limits(setting), "Value matrix of least squared loss against the ridge. Infinite documents "
                                   "first, as in the paper, and no ridge first lead to different matrices.")
    return found


def _matrices(stages, result, about):
    """Heat maps of the trained matrices of the first seed, tokens grouped by topic, beside their closed forms."""
    setting, found = result.options.setting, {}
    topic = np.append(-1, np.arange(setting.n) // setting.v)
    squared = result.options.head == "squared"  # the cross-entropy has no closed form of all entries
    if stage := stages.get("value"):
        matrices = {"trained $W_V$": stage.recorded[0].weights.circuits().ov.T}
        if squared:
            matrices["closed form, end of descent"] = block_values.optimal_value(setting).matrix(setting)
        figure = plots.topic_heat_maps(matrices, topic, title=f"{_stage_name(stage)}\n{about}")
        found["value_matrix.png"] = (figure, f"{stage.title}. First seed, tokens grouped by topic.")
    if stage := stages.get("embedding"):
        matrices = {r"trained $E^\top E$": gram(stage.recorded[0].weights.W_E)}
        if squared and setting.h < math.inf:
            matrices["closed form, plateau"] = block_values.gram_plateau(setting).matrix(setting)
        figure = plots.topic_heat_maps(matrices, topic, title=f"{_stage_name(stage)}\n{about}", row_label="word",
                                       column_label="word")
        found["embedding_matrix.png"] = (figure, f"{stage.title}. First seed, tokens grouped by topic.")
    for name, label in ATTENTION.items():
        if name not in stages:
            continue
        matrix = _mean_attention(stages[name].recorded[0].weights, result.held_out)
        figure = plots.topic_heat_maps({f"trained attention × length, {label}": matrix}, topic[1:], title=about, positive=True,
                                       row_label="query", column_label="key", value_label="attention × length")
        found[f"{name}_matrix.png"] = (figure, f"{stages[name].title}. Average on held-out documents, words grouped by topic.")
    return found


def _mean_attention(weights, documents):
    """(n, n), row = query word, column = key word; nan for words that never meet."""
    table = attention_table(weights, documents)
    nowhere = np.full(table.total.shape, np.nan)
    return np.divide(table.total, table.count, where=table.count > 0, out=nowhere)[1:, 1:]


def _stage_name(stage):
    return style.literal(stage.title.partition(";")[0])


def _training(name, stage, about):
    """Averages of each class over training, mean and s.d. over seeds, beside the closed trajectory or the final values."""
    steps, measured = over_seeds(stage.recorded, stage.part)
    closed = {label: stage.trajectory[label] for label in CLASSES if label in stage.trajectory}
    last = list(stage.closed.values())
    final = {}
    if stage.part != "value" and last:  # plateau, or best attention
        final = {label: last[0][label] for label in CLASSES if np.isfinite(last[0].get(label, np.nan))}
    elif stage.trajectory:
        final = {label: last[1][label] for label in CLASSES}
    figure = plots.block_values(steps, measured, closed, final=final, title=f"{_stage_name(stage)}\n{about}",
                                ylabel=LABELS[stage.part], log_steps=bool(stage.trajectory))
    return {f"{name}_training.png": (figure, f"{stage.title}. Over training, {len(stage.recorded)} run(s).")}


def _attention_loss(result, setting):
    """Loss surface with the trained way through it, and the loss against the ratio."""
    setting, path = replace(setting, length=math.inf, loss="pooled"), result.infinite["path"]
    best, v = attention.optimal_ratio(setting), setting.v
    values = np.geomspace(0.05, 8 * v * best.rho, 120)
    loss = attention.attention_loss(setting, values[:, None], values[None, :])
    line = np.geomspace(values[0], v * best.rho * (1 - 1e-6), 300)
    way = {"trained on infinite documents": ([at["alpha"] for at in path], [at["beta"] for at in path])}
    surface = plots.loss_surface(values, values, loss, paths=way, optimum_line=(line, (v * best.rho - line) / max(v - 1, 1)),
                                 title=rf"Loss of attention, $W_V = W_\infty$, $\tau$ = {setting.tau}, T = {setting.T}, v = {v}")
    ratios = np.geomspace(0.3, 4 * best.rho, 200)
    label = rf"$\tau$ = {setting.tau}"
    ratio = plots.loss_over_ratio(ratios, {label: attention.attention_loss(setting, ratios, ratios)}, {label: (best.rho, best.rho_AB)},
                                  {label: (path[-1]["rho"], attention.attention_loss(setting, path[-1]["rho"], path[-1]["rho"]))},
                                  title=rf"Loss against the attention ratio $\rho$, $W_V = W_\infty$, T = {setting.T}, v = {v}")
    return {"attention_loss.png": (surface, "Loss of attention on infinite documents over its two values, and training's way."),
            "attention_ratio.png": (ratio, "The same loss against the ratio rho: closed optimum, its bound, trained ratio.")}


def two_limits(setting):
    """Figure of the least-squares value matrix against the ridge, for several lengths of documents."""
    infinite = replace(setting, length=math.inf, loss="pooled")
    limits = {r"$W_\infty$ ($N\to\infty$ first, then $\lambda\to 0$: the paper)": block_values.paper_value(infinite),
              r"$W_\mathrm{lim}$ ($\lambda\to 0$ first, then $N\to\infty$)": block_values.other_limit_value(infinite)}
    ridges, blocks, windows = np.logspace(-9, -1, 81), {}, {}
    for N in N_LENGTHS:
        finite = replace(setting, length=N)
        path = [block_values.ridge_value(finite, ridge) for ridge in ridges]
        blocks[N] = {label: np.array([getattr(value, name) for value in path]) for label, name in BLOCK_FIELDS.items()}
        sectors = topic_law.moments(finite)
        windows[N] = (sectors.M_w, sectors.M_t)
    return plots.ridge_path(ridges, blocks, {label: {name: getattr(value, field) for name, field in BLOCK_FIELDS.items()}
                                             for label, value in limits.items()}, windows,
                            title="Value matrix that minimises the squared loss with a ridge: the limits do not commute")
