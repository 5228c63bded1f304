"""What ``topics.py --optimisers`` runs: joint training of the topics theory by three optimisers, with decay or without.

Li, Li, Risteski (ICML 2023) claim their picture "for a wide variety of optimisers and hyperparameters". Here W_V, W_Q
and W_K are trained together by cross-entropy on documents of two of five topics, by gradient descent, momentum and
Adam, at three rates each, with and without weight decay (of Adam: decoupled, AdamW). Of each run are shown the block
averages of W_V and of attention on held-out documents, how often same topic exceeded different topic, and whether W_V
moved first. The closed forms of the theory along training are those of gradient descent, and none is shown here.
"""

from running import block, paragraphs, write_down

from minitx import Adam, AdamW, EmbeddedWeights, GradientDescent, Momentum
from minitx.base.console import progress_bar
from minitx.topics import TopicModel, training
from minitx.topics.training import CLASSES

LAW = TopicModel(5, 4, 32, tau=2)
DECAY, DECOUPLED = 1e-4, 0.05  # of gradient descent and momentum; of AdamW, whose gradient part has another scale
# {name: (optimiser, optimiser with weight decay, rates)}
RULES = {"gradient descent": (GradientDescent(), GradientDescent(decay=DECAY), (4.0, 12.0, 36.0)),
         "momentum": (Momentum(), Momentum(decay=DECAY), (0.4, 1.2, 3.6)),
         "Adam": (Adam(), AdamW(decay=DECOUPLED), (0.003, 0.01, 0.03))}


def train(rule, rate, steps, n_documents):
    """A recorded run of joint training."""
    start = EmbeddedWeights.gaussian(LAW.V, W_V=0.0, W_QK=0.05, rng=0)
    batch = LAW.mask(LAW.documents(n_documents, rng=0), rng=0)
    run = training.train(start, batch, topics=LAW.topic_of_token, documents=LAW.documents(200, rng=1_000_000),
                         learning_rate=rate, steps=steps, batch_size=min(200, n_documents // 2), rng=0, optimiser=rule)
    if run.trajectory.stopped:
        raise SystemExit(f"{rule} at the rate {rate:g} ended early: {run.trajectory.stopped}")
    return run


def measured(name, rule, rate, run):
    """What is written down of a run."""
    last, parts = run.records[-1], ("value", "attention")
    in_order = {part: sum(getattr(record, part).same_topic_including > getattr(record, part).different_topic
                          for record in run.records) for part in parts}
    return {"rule": name, "decay": rule.decay, "rate": rate, "in order": in_order, "records": len(run.records),
            "loss": last.loss, "lead": run.movement.lead, "begins": run.movement.begins(),
            "between": last.attention_spread.between,
            **{part: {field: getattr(getattr(last, part), field) for field in CLASSES.values()} for part in parts}}


def section(results):
    """Markdown of what topics.json of a run with --optimisers holds."""
    rows = results["optimisers"]
    n_records = sum(row["records"] for row in rows)
    orders = {part: sum(row["in order"][part] for row in rows) for part in ("value", "attention")}
    return paragraphs(
        "## Topics: other optimisers",
        f"W_V, W_Q and W_K are trained together by cross-entropy for {results['steps']:,} steps of 200 documents; the "
        "law has 5 topics of 4 words, 2 topics a document, N = 32. The columns `W_V` and `attention` give averages "
        "over the same word / the same topic / different topics. Attention is measured on held-out documents, times N. "
        "The column `lead` is the share of its way that W_V has gone when W_Q and W_K have gone a tenth of theirs. It "
        "would be 100% if training had two separate stages, and 10% if all parts moved alike. The decay of Adam is "
        "apart from the gradient (AdamW). Weight decay also shrinks the random start of W_Q and W_K, which counts as "
        "movement. The closed forms along training are those of gradient descent, and are left out.",
        block(("optimiser ", "rate", "decay", "W_V", "attention", "lead"), [
            (row["rule"], f"{row['rate']:g}", f"{row['decay']:g}" if row["decay"] else "-",
             *(" / ".join(f"{row[part][name]:.{digits}f}" for name in CLASSES.values())
               for part, digits in (("value", 2), ("attention", 3))), f"{row['lead']:.0%}") for row in rows]),
        "The average over the same topic, the same word included, exceeds that over different topics in W_V at "
        f"{orders['value']} of {n_records} recorded steps of these {len(rows)} runs, and in attention at "
        f"{orders['attention']}.",
        *_leads(rows))


def _leads(rows):
    found = {name: [row["lead"] for row in rows if row["rule"] == name] for name in RULES}
    yield "The lead of W_V is " + ", ".join(f"{min(leads):.0%} to {max(leads):.0%} with {name}"
                                            for name, leads in found.items()) + "."


def main(arguments):
    """Train every optimiser at every rate, and write and print the results."""
    steps, n_documents = (12, 200) if arguments.quick else (1500, 4000)
    tasks = [(name, rule, rate) for name, (*rules, rates) in RULES.items() for rule in rules for rate in rates]
    rows = [measured(*task, train(*task[1:], steps, n_documents)) for task in progress_bar(iterable=tasks, unit="run")]
    write_down("topics", arguments, {"optimisers": rows, "steps": steps}, section)
