"""Stages of the topics theory: does joint training have two, and what is the best attention in documents of any length?

    python experiments/topics_stages.py [--quick] [--out DIR]

There are ten topics of ten words. First W_V, W_Q and W_K are trained together, as ``minitx topics`` trains them, for
two laws of documents: when does each part begin to move, and is attention made of three values? Then W_V is frozen, and
the best attention values, known exactly, are set beside two numbers that are trained on documents drawn anew at every
step. This takes two minutes of a processor; --quick takes fewer steps.
"""

import math
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from running import block, command_line, paragraphs, write_down

from minitx import Adam, Circuits, EmbeddedWeights, descend, loss_and_gradient
from minitx.base import style
from minitx.base.console import progress_bar
from minitx.model.parameters import Parameters
from minitx.topics import (
    TopicModel,
    best_attention,
    expected_attention_loss,
    figures,
    optimal_value,
    other_limit_value,
    separated_value,
    training,
)
from minitx.topics.training import CLASSES

LAWS = {"2 topics, N 128": {"tau": 2, "length": 128},
        "Dirichlet 0.1, N 100..150": {"alpha": 0.1, "length": (100, 150)}}
VALUES = {"W_inf": separated_value, "least squares": optimal_value}
LENGTHS = (16, 32, 64, 128, 256, math.inf)


# ------------------------------------------------------------------------------------------------------- two stages


def joint(law, steps, n_documents):
    """Train W_V, W_Q and W_K together by cross-entropy. Returns the TopicRun."""
    model = TopicModel(10, 10, **law)
    batch = model.mask(model.documents(n_documents, rng=0), rng=0)
    start = EmbeddedWeights.gaussian(model.V, W_V=0.0, W_QK=0.05, rng=0)
    at = sorted({int(step) for step in np.rint(np.geomspace(1, steps, 24))})
    return training.train(start, batch, topics=model.topic_of_token, documents=model.documents(200, rng=1_000_000),
                          learning_rate=20.0, steps=steps, batch_size=200, at=at, rng=0)


def stages(law, run):
    """What is written down of a run."""
    movement, last = run.movement, run.records[-1]
    return {"law": law, "steps": last.step, "begins": movement.begins(), "lead": movement.lead,
            "norm": {name: way[-1] for name, way in movement.norm.items()},
            "attention": last.attention, "spread": last.attention_spread,
            "between": {record.step: record.attention_spread.between for record in run.records}}


def draw(law, run):
    """The figure of a run."""
    movement = run.movement
    ways = {f"${name[0]}_{name[2]}$": way[1:] / way[-1] for name, way in movement.distance.items()}
    attention = {label: ([getattr(record.attention, name) for record in run.records],
                         [getattr(record.attention_spread, name) for record in run.records])
                 for label, name in CLASSES.items()}
    title = f"Joint training: two stages, three attention values?\n10 topics of 10 words; {law}"
    return figures.two_stages(movement.steps[1:], ways, [record.step for record in run.records], attention, title=title)


# ---------------------------------------------------------------------------------------------------- best attention


@dataclass(frozen=True, eq=False)
class Values(Parameters):
    """The logarithms of the attention to the same word and to another word of its topic; one number: both are equal."""

    logs: NDArray[np.float64]


def objective(model, value):
    """``(Values, batch) -> (loss, gradient)`` of attention with these values, W_V being ``value``."""
    ov, topic = value.matrix(model).T.copy(), model.topic_of_token
    own = np.diag(topic >= 0)
    others = (topic[:, None] == topic) & (topic >= 0) & ~own

    def loss_and_slopes(weights, batch):
        scores = own * weights.logs[0] + others * weights.logs[-1]
        loss, gradient = loss_and_gradient(Circuits(None, ov, scores, None, None), batch)
        slopes = np.array([gradient.qk[where].sum() for where in (own, others)])
        return loss, Values(slopes if len(weights.logs) == 2 else slopes.sum(keepdims=True))

    return loss_and_slopes


def trained_values(model, value, n_values, steps):
    """Train attention values by Adam, on 400 documents a step, drawn anew; the mean of the last quarter of the steps.

    The learning rate falls from 0.1 to a tenth of that.
    """
    fresh = (model.mask(model.documents(400, rng=seed), head="squared", rng=seed) for seed in count())
    found = []
    descend(Values(np.zeros(n_values)), fresh, learning_rate=lambda step: 0.1 / (1 + 9 * step / steps), steps=steps,
            optimiser=Adam(), loss_and_gradient=objective(model, value),
            callback=lambda step, loss, weights, gradient: found.append(weights.logs))
    return np.exp(np.mean(found[-steps // 4:], axis=0)).tolist()


def finite(law, steps):
    """The exact optimum for both value matrices, beside what training finds."""
    model, rows = TopicModel(10, 10, **law), []
    for name, value in VALUES.items():
        for n_values in (1, 2):
            best = best_attention(model, value(model), tied=n_values == 1)
            found = trained_values(model, value(model), n_values, steps)
            rows.append({"W_V": name, "tied": n_values == 1, "best": best, "trained": [found[0], found[-1]],
                         "loss of trained": expected_attention_loss(model, found[0], found[-1], value(model))})
    return rows


def lengths(quick):
    """The best attention for two topics a document, by length."""
    rows = []
    for N in LENGTHS[:2] if quick else LENGTHS:
        model = TopicModel(10, 10, N, tau=2)
        least = other_limit_value(model) if N == math.inf else optimal_value(model)
        rows.append({"N": f"{N}", "tied": best_attention(model, tied=True), "W_inf": best_attention(model),
                     "least squares": best_attention(model, least)})
    return rows


# --------------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what topics_stages.json holds."""
    return paragraphs(
        "## Topics: two stages, three attention values, and the best attention at finite length",
        "W_V, W_Q and W_K are trained together by cross-entropy (10 topics of 10 words, 10,000 documents, 200 a step, "
        "eta = 20). The next two tables give the step at which the distance of each part from its start first reaches "
        "1%, 10% and 50% of the distance between its start and its end, and the norm of the part at the end.",
        *_movements(results["stages"]),
        "The next table is about attention times N on held-out documents. It gives the mean of each class of word "
        "pairs, and in parentheses the standard deviation of its pairs. The last column is the share of the variance "
        "of all pairs that lies between the classes; it would be 100% if attention had three values.",
        block(("law ", "same word", "same topic", "different topic", "between classes"), [
            (one["law"], *(f"{one['attention'][name]:.3f} ({one['spread'][name]:.3f})" for name in CLASSES.values()),
             f"{one['spread']['between']:.1%}") for one in results["stages"]]),
        *map(_most, results["stages"]),
        "In stage 2 attention has the values alpha (same word) : beta (same topic) : 1 (another topic). The next table "
        "gives the values that minimise the squared loss, computed exactly, beside those that are trained by "
        f"{results['steps']:,} steps of Adam, each on 400 documents that are drawn for it. The losses are exact. The "
        "loss with W_inf is almost flat along alpha, so that training ends far from the best alpha but near the least "
        "loss.",
        block(("law ", "W_V ", "best alpha", "best beta", "trained alpha", "trained beta", "uniform loss",
               "trained loss", "best loss"), [row for one in results["finite"] for row in _finite(one)]),
        "The last table gives the best attention for documents of two topics and N words. W_V is the paper's W_inf, "
        "first with alpha = beta = rho and then with alpha and beta apart, of which at N = inf only the average "
        "matters; or W_V is that of least squares, whose best attention has beta = 0 and copies words, and which is "
        "W_lim at N = inf. An alpha of 0.0000 says that the loss falls down to alpha = 0.",
        block(("N", "W_inf, rho", "W_inf, alpha", "W_inf, beta", "least squares, alpha", "least squares, rho"), [
            (row["N"], f"{row['tied']['rho']:.4f}",
             *("any" if row["N"] == "inf" else f"{row['W_inf'][name]:.4f}" for name in ("alpha", "beta")),
             *(f"{row['least squares'][name]:.4f}" for name in ("alpha", "rho"))) for row in results["lengths"]]))


def _movements(rows):
    for row in rows:
        yield (f"For the law {row['law']} and {row['steps']:,} steps, W_V has gone {row['lead']:.0%} of its way when "
               "W_Q and W_K have gone a tenth of theirs.")
        yield block(("part ", "1%", "10%", "50%", "norm"), [
            (name, *(f"{step:,}" for step in steps.values()), f"{row['norm'][name]:.2f}")
            for name, steps in row["begins"].items()])


def _most(row):
    step, share = max(row["between"].items(), key=lambda pair: pair[1])
    return (f"For the law {row['law']} the share between classes is largest at step {int(step):,} of training, where "
            f"it is {share:.1%}.")


def _finite(one):
    for row in one["rows"]:
        best, (alpha, beta) = row["best"], row["trained"]
        yield (one["law"], row["W_V"] + ", alpha = beta" * row["tied"], f"{best['alpha']:.3f}", f"{best['beta']:.3f}",
               f"{alpha:.3f}", f"{beta:.3f}", f"{best['loss_uniform']:.6f}",
               f"{row['loss of trained']:.6f}", f"{best['loss']:.6f}")


def main():
    """Train, draw, and write and print the results."""
    arguments = command_line("topics_stages", __doc__, quick="a fraction of the steps and documents, in seconds")
    quick, rows, two = arguments.quick, [], []
    steps, n_documents, of_values = (40, 400, 8) if quick else (3000, 10_000, 240)
    for law, parts in progress_bar(iterable=LAWS.items(), unit="law"):
        run = joint(parts, steps, n_documents)
        two.append(stages(law, run))
        style.save(draw(law, run), arguments.out / f"two_stages_{'tau' if 'tau' in parts else 'dirichlet'}.png")
        rows.append({"law": law, "rows": finite(parts, of_values)})
    write_down("topics_stages", arguments, {"stages": two, "finite": rows, "steps": of_values,
                                            "lengths": lengths(quick)}, section)


if __name__ == "__main__":
    main()
