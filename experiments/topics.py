"""The theory of topics (Li, Li, Risteski, ICML 2023): training beside its closed forms and recorded values.

    python experiments/topics.py [--optimisers] [--quick] [--out DIR]

There are ten topics of ten words. Each of eight training runs is made for three seeds and two laws of documents
(Dirichlet shares, as the code of the paper samples, and two topics a document, as its theory has it), on 10,000
documents with fixed masks, by plain gradient descent, and set beside values recorded from an independent
implementation. Then the attention ratio on infinite documents is set beside its prediction. This takes 20 to 30 minutes
on two cores. --quick takes one seed, one law and short runs, in under a minute. With --optimisers it runs optimisers.py
instead: joint training by gradient descent, momentum and Adam.
"""

import math
import multiprocessing
from dataclasses import replace

import numpy as np
import optimisers
from running import block, command_line, paragraphs, write_down

from minitx import EmbeddedWeights, descend, get_threads, set_threads, topics
from minitx.base.console import progress_bar
from minitx.base.tables import number
from minitx.topics import uniform_attention
from minitx.topics.averages import attention_table, gram, pair_averages
from minitx.topics.documents import mask_tokens
from minitx.topics.law import TopicModel
from minitx.topics.training import attention_ratios

LAWS = {"Dirichlet 0.1, N 100..150": {"alpha": 0.1, "length": (100, 150)}, "2 topics, N 128": {"tau": 2, "length": 128}}
FIELDS = {"same_word": "same word", "same_topic": "same topic", "different_topic": "different topic"}
BLOCKS = {"same_word": "same word", "same_topic": "same topic", "different_topic": "different topic",
          "mask_column": "mask column"}
LENGTHS = (128, 10_000, 1_000_000)  # of the documents whose value matrix is compared with its limits
QUICK = 20  # --quick divides the steps of long runs by this

# Mean and s.d. over three seeds, recorded from another implementation (None: not recorded): for each of the two laws
# the same word, the same topic, a different topic.
RECORDED = {
    "E, squared": (((.12413, .0002), (.11394, .0002), (-.00027, .00002)), (None, (.1138, None), (-.00025, None))),
    "E, cross-entropy": (((5.92, .02), (5.86, .02), (-.651, .002)), (None, (9.81, .05), (-1.09, None))),
    "W_V, squared, 100 steps": (((.1139, None), (.1060, None), (-.00576, None)), (None, (.1047, None), (-.0056, None))),
    "W_V, squared": (((.218, .007), (.1021, .0006), (-.00152, None)), (None, None, None)),
    "W_V, cross-entropy": (((7.70, .15), (5.66, .01), (-.633, .003)), (None, (9.59, .05), (-1.07, None))),
    "attention, squared, W_inf": (((1.53, .03), (1.457, .023), (.414, .008)), (None, (1.675, .003), (.316, .003))),
    "attention, squared, trained W_V": (((6.96, .44), (.81, .04), (.370, .004)), (None, (1.03, .10), (.24, .01))),
    "attention, cross-entropy, 1500 steps": (((1.07, None), (1.029, .004), (.957, .003)),
                                             (None, (1.256, None), (.732, None))),
    "attention, cross-entropy": (((6.67, .30), (.786, .029), (.434, .003)), (None, (.73, .06), (.587, None))),
    "joint attention, 3000 steps": (((1.41, .04), (1.328, .003), (.575, .015)), (None, (1.309, None), (.675, None))),
    "joint attention": (((4.83, .39), (.968, .033), (.493, .005)), (None, (1.03, .06), (.664, None))),
    "joint W_V, 3000 steps": (((4.55, .05), (4.10, .04), (-.447, .005)), (None, (5.20, .06), (-.571, None))),
}
SHORT = ("E, squared", "W_V, squared", "W_V, squared, 100 steps")  # --quick does not shorten these runs


# ----------------------------------------------------------------------------------------- the table of all runs


def all_runs(law, seed, divide):
    """{name: Averages} of every run of a law and seed; the steps of long runs are divided by ``divide``."""
    model = TopicModel(10, 10, **LAWS[law])
    documents = model.documents(10_000, rng=seed)
    data = Data(model, model.documents(500, rng=1000 + seed), mask_tokens(documents, rng=seed),
                mask_tokens(documents, head="squared", rng=seed), seed, divide)
    found = data.embeddings()
    values, trained, entropic = data.values()
    return found | values | data.attentions(trained, entropic) | data.joint()


class Data:
    """The documents of one law and seed, and the runs on them."""

    def __init__(self, model, held_out, entropy, squared, seed, divide):
        self.model, self.held_out, self.entropy, self.squared = model, held_out, entropy, squared
        self.seed, self.divide = seed, divide
        self.quadratic = uniform_attention.moments(squared, model.V)

    def start(self, **parts):
        """Gaussian start of the given standard deviations."""
        return EmbeddedWeights.gaussian(self.model.V, rng=self.seed, **parts)

    def descend(self, start, data, eta, steps, size=None, *, long=True, **settings):
        """The Trajectory of a run."""
        steps = max(1, steps // self.divide) if long else steps
        if data is self.quadratic:
            settings["loss_and_gradient"] = uniform_attention.loss_and_gradient
        run = descend(start, data, learning_rate=eta, steps=steps, batch_size=size, rng=self.seed, **settings)
        if run.stopped:
            raise RuntimeError(f"a run ended early: {run.stopped}")
        return run

    def value(self, weights):
        """Averages of W_V."""
        return pair_averages(weights.circuits().ov.T, self.model.topic_of_token)

    def attention(self, weights):
        """Averages of attention on held-out clean documents."""
        return pair_averages(attention_table(weights, self.held_out), self.model.topic_of_token)

    def embeddings(self):
        """Stage 1b."""
        runs = {"E, squared": self.descend(self.start(W_E=.01), self.quadratic, .5, 3000, long=False),
                "E, cross-entropy": self.descend(self.start(W_E=.01), self.entropy, 1.0, 3000, 500)}
        return {name: pair_averages(gram(run.weights.W_E), self.model.topic_of_token) for name, run in runs.items()}

    def values(self):
        """Stage 1a; also its two value matrices that stage 2 begins with."""
        squared = self.descend(self.start(W_V=0.0), self.quadratic, 5.0, 20_000, long=False, keep=(100, 1000))
        entropic = self.descend(self.start(W_V=0.0), self.entropy, 200.0, 4000, 500).weights
        found = {"W_V, squared, 100 steps": self.value(squared.kept[100]), "W_V, squared": self.value(squared.weights),
                 "W_V, cross-entropy": self.value(entropic)}
        return found, squared.kept[1000].W_V, entropic.W_V

    def attentions(self, trained, entropic):
        """Stage 2: W_V frozen."""
        infinite = topics.TopicModel(10, 10, math.inf, tau=2)
        paper = topics.paper_value(infinite).matrix(infinite)  # the same for every law

        def run(W_V, data, eta, steps, size, **settings):
            start = replace(self.start(W_V=0.0, W_QK=.05), W_V=W_V)
            return self.descend(start, data, eta, steps, size, frozen=("W_V",), **settings)

        early = 1500 // self.divide
        entropy = run(entropic, self.entropy, 20.0, 10_000, 200, keep=(early,))
        squared = run(paper, self.squared, 2000.0, 1000, 500), run(trained, self.squared, 2000.0, 4000, 500)
        return {"attention, squared, W_inf": self.attention(squared[0].weights),
                "attention, squared, trained W_V": self.attention(squared[1].weights),
                "attention, cross-entropy, 1500 steps": self.attention(entropy.kept[early]),
                "attention, cross-entropy": self.attention(entropy.weights)}

    def joint(self):
        """W_V, W_Q and W_K together, cross-entropy."""
        early = 3000 // self.divide
        run = self.descend(self.start(W_V=0.0, W_QK=.05), self.entropy, 20.0, 20_000, 200, keep=(early,))
        return {"joint attention, 3000 steps": self.attention(run.kept[early]),
                "joint attention": self.attention(run.weights),
                "joint W_V, 3000 steps": self.value(run.kept[early])}


def _task(task):
    set_threads(1)  # the processes share the cores; results do not depend on it
    return task, all_runs(*task)


def all_averages(laws, seeds, divide):
    """Run everything in parallel processes: {law: {run: [Averages of each seed]}}."""
    tasks = [(law, seed, divide) for seed in seeds for law in laws]
    found = {}
    with multiprocessing.get_context("spawn").Pool(min(get_threads(), len(tasks))) as pool:
        done = pool.imap_unordered(_task, tasks)
        for task, runs in progress_bar(iterable=done, total=len(tasks), unit="law and seed"):
            found[task[:2]] = runs
    return {law: {name: [found[law, seed][name] for seed in seeds] for name in RECORDED} for law in laws}


def beside(averages, full):
    """Each average over the seeds beside the recorded value, where the runs are those that were recorded."""
    rows = []
    for law, runs in averages.items():
        for name, found in runs.items():
            for field, recorded in zip(FIELDS, RECORDED[name][list(LAWS).index(law)], strict=True):
                values = np.array([getattr(one, field) for one in found])
                mean, sd = values.mean(), values.std(ddof=1) if len(values) > 1 else None
                row = {"law": law, "run": name, "class": field, "mean": mean, "sd": sd}
                if recorded is not None and (full or name in SHORT):
                    row["recorded"], row["recorded sd"] = recorded
                    row["away"] = abs(mean - recorded[0]) / recorded[1] if recorded[1] else None
                rows.append(row)
    return rows


def ordered(averages):
    """In how many of the averages the same topic, the same word included, exceeds a different topic."""
    found = [one.same_topic_including > one.different_topic
             for runs in averages.values() for seeds in runs.values() for one in seeds]
    return {"in order": sum(found), "of": len(found)}


def cross_entropy(averages):
    """The two differences of logits that the cross-entropy determines, trained, beside their optimum."""
    rows = []
    for law, runs in averages.items():
        setting = topics.TopicModel(10, 10, **LAWS[law])
        for name, same_word in (("W_V, cross-entropy", True), ("E, cross-entropy", False)):
            best = topics.cross_entropy_optimum(setting, same_word=same_word)
            A, B = (np.mean([getattr(one, high) - getattr(one, low) for one in runs[name]])
                    for high, low in (("same_word", "same_topic"), ("same_topic", "different_topic")))
            rows.append({"law": law, "run": name, "A": A, "B": B, "best A": best.A, "se A": best.se_A, "best B": best.B,
                         "se B": best.se_B})
    return rows


# ------------------------------------------------------------------------------------------------- infinite documents


def ratio_path(setting, steps, seed):
    """Train W_Q and W_K on all infinite documents of a law, W_V = W_inf: the ratios of attention along the way."""
    batch = topics.infinite_documents(setting)
    start = EmbeddedWeights.gaussian(setting.V, W_V=0.0, W_QK=.05, rng=seed)
    start = replace(start, W_V=topics.paper_value(setting).matrix(setting))
    path = []

    def callback(step, loss, weights, gradient):
        if step % max(1, steps // 40) == 0:
            path.append(attention_ratios(weights, setting) | {"step": step, "loss": loss})

    descend(start, batch, learning_rate=3000.0, steps=steps, frozen=("W_V",), callback=callback)
    return path


def ratios(quick):
    """Trained attention ratios beside the predicted ones. Returns a row for each run, and the way of each."""
    tasks = [(2, 100, 0)] if quick else [(2, 2500, 0), (2, 2500, 1), (2, 2500, 2), (4, 1500, 0)]
    rows, paths = [], {}
    for tau, steps, seed in progress_bar(iterable=tasks, unit="ratio"):
        setting = topics.TopicModel(10, 10, math.inf, tau=tau)
        path = paths[f"{tau} topics, seed {seed}"] = ratio_path(setting, steps, seed)
        best = topics.optimal_ratio(setting, free_mask=True)
        rows.append({"tau": tau, "seed": seed, "predicted": {"rho": best.rho, "rho_0": best.rho_0, "loss": best.loss},
                     **path[-1]})
    return rows, paths


def copying():
    """The optimum of attention with W_lim in the place of W_inf."""
    setting = topics.TopicModel(10, 10, math.inf, tau=2)
    best = topics.optimal_attention(setting, topics.other_limit_value(setting))
    return {"alpha": best.alpha, "beta": best.beta, "rho": best.rho}


# ----------------------------------------------------------------------------------------- closed forms, step by step


def entries(blocks):
    """{kind of pair: entry} of a matrix that is constant on blocks."""
    return {name: getattr(blocks, name) for name in BLOCKS}


def two_limits():
    """The minimiser of the squared loss for each length and ridge, and its two limits; ``minitx topics`` draws this."""
    rows = []
    for N in LENGTHS:
        setting = topics.TopicModel(10, 10, N, tau=2)
        sectors = topics.moments(setting)
        between = math.sqrt(sectors.M_w * sectors.M_t)
        rows.append({"label": f"N = {N:,}, no ridge", **entries(topics.optimal_value(setting))})
        rows.append({"label": f"N = {N:,}, ridge {between:.2g}", **entries(topics.ridge_value(setting, between))})
    infinite = topics.TopicModel(10, 10, math.inf, tau=2)
    rows.append({"label": "W_inf: N -> inf first (the paper)", **entries(topics.paper_value(infinite))})
    rows.append({"label": "W_lim: ridge -> 0 first", **entries(topics.other_limit_value(infinite))})
    return rows


def trajectory(quick):
    """Stage 1a: value matrices trained on sampled documents and on the population, beside the closed trajectory."""
    eta, at = 5.0, (1, 10, 100, 1000) if quick else (1, 10, 100, 1000, 20_000)
    rows, worst = [], {}
    for law, parts in progress_bar(iterable=LAWS.items(), unit="law"):
        setting, model = topics.TopicModel(10, 10, **parts), TopicModel(10, 10, **parts)
        C, M = topics.moments(setting).matrices()
        sampled = [uniform_attention.moments(mask_tokens(model.documents(10_000, rng=seed), head="squared", rng=seed),
                                             setting.V) for seed in range(6)]
        kept = [descend(EmbeddedWeights.gaussian(setting.V, W_V=0.0), data, learning_rate=eta, steps=at[-1], keep=at,
                        loss_and_gradient=uniform_attention.loss_and_gradient).kept
                for data in (*sampled, uniform_attention.Moments(M=M, C=C))]
        worst[law] = 0.0
        for step in at:
            closed = entries(topics.value_after(setting, step, eta))
            *found, exact = [entries(topics.Blocks.of(run[step].W_V, setting)) for run in kept]
            worst[law] = max(worst[law], *(abs(exact[name] - closed[name]) for name in BLOCKS))
            values = {name: np.array([one[name] for one in found]) for name in BLOCKS}
            away = {name: abs(values[name].mean() - closed[name]) / values[name].std(ddof=1) for name in BLOCKS}
            rows.append({"law": law, "step": step, "closed": closed, "away": away})
    return {"rows": rows, "largest difference on the population": worst}


def embeddings(quick):
    """Stage 1b on the exact population: the plateau, and the end."""
    setting = topics.TopicModel(10, 10, 128, tau=2)
    C, M = topics.moments(setting).matrices()
    steps = 2000 if quick else 48_000
    start = EmbeddedWeights.gaussian(setting.V, W_E=1e-3, rng=0)
    run = descend(start, uniform_attention.Moments(M=M, C=C), learning_rate=8.0, steps=steps,
                  loss_and_gradient=uniform_attention.loss_and_gradient, keep=(400,))
    rows = []
    for name, step, weights, closed in (("plateau", 400, run.kept[400], topics.gram_plateau(setting)),
                                        ("end", steps, run.weights, topics.optimal_gram(setting))):
        rows.append({"label": f"closed form, {name}", **entries(closed)})
        trained = topics.Blocks.of(gram(weights.W_E), setting)
        rows.append({"label": f"trained, after {step:,} steps", **entries(trained)})
    return rows


# ------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what topics.json holds."""
    if "optimisers" in results:
        return optimisers.section(results)
    return paragraphs(
        "## Topics: training beside closed forms and recorded values",
        "There are 10 topics of 10 words. The first table gives the value matrix that minimises the squared loss, for "
        "documents of N words and 2 topics. It shows that the limits N -> inf and ridge -> 0 do not commute.",
        _entries_block("value matrix ", results["two limits"]),
        *_trajectory(results["trajectory"]),
        "In stage 1b E^T E is trained on the exact population of documents of 2 topics and N = 128 words, with "
        "eta = 8.",
        _entries_block("E^T E ", results["embeddings"]),
        *_ratios(results),
        *_beside(results["table"]),
        "The average over the same topic, the same word included, exceeds that over different topics in "
        f"{results['ordered']['in order']} of {results['ordered']['of']} cases.",
        "The cross-entropy determines two differences of logits: A is the logit of the same word minus that of its "
        "topic, and B the logit of its topic minus that of other topics. The optimum of embeddings has A = 0. The "
        "number in parentheses is the standard error of the optimum.",
        block(("law ", "run ", "trained A", "optimum A", "trained B", "optimum B"),
              [(one["law"], one["run"], f"{one['A']:.3f}", f"{one['best A']:.3f} ({one['se A']:.3f})",
                f"{one['B']:.3f}", f"{one['best B']:.3f} ({one['se B']:.3f})") for one in results["cross-entropy"]]))


def _entries_block(head, rows):
    return block((head, *BLOCKS.values()), [(row["label"], *_numbers(row)) for row in rows])


def _numbers(row):
    return [number(float(row[name]), 6) for name in BLOCKS]


def _trajectory(found):
    for law, worst in found["largest difference on the population"].items():
        yield (f"This is stage 1a for the law {law}. The table gives the closed trajectory of W_V with eta = 5, and "
               "in parentheses its distance from the mean of training on 10,000 documents, in standard deviations over "
               f"6 seeds. Descent on the exact population differs from the closed trajectory by at most {worst:.1e}.")
        yield block(("steps", *BLOCKS.values()), [
            (f"{row['step']:,}", *(f"{shown} ({float(row['away'][name]):.1f})"
                                   for name, shown in zip(BLOCKS, _numbers(row["closed"]), strict=True)))
            for row in found["rows"] if row["law"] == law])


def _ratios(results):
    yield ("Attention is trained on infinite documents, with W_V = W_inf and eta = 3000. The table gives ratios of "
           "attention as `trained | predicted`. All are relative to attention to a word of another topic: rho is "
           "attention to the same topic, [MASK] attention to the token [MASK], alpha attention to the same word, and "
           "beta attention to another word of the same topic.")
    yield block(("topics", "seed", "steps", "rho", "[MASK]", "loss", "alpha", "beta"), [
        (one["tau"], one["seed"], f"{one['step']:,}",
         *(f"{one[name]:.{digits}f} | {one['predicted'][name]:.{digits}f}"
           for name, digits in (("rho", 4), ("rho_0", 4), ("loss", 6))), f"{one['alpha']:.4f}", f"{one['beta']:.4f}")
        for one in results["ratios"]])
    best = results["copying"]
    yield ("With W_lim in the place of W_inf the best attention copies words: it has alpha "
           f"{best['alpha']:.1f}, beta {best['beta']:.2f} and rho {best['rho']:.2f}.")


def _beside(rows):
    for law in dict.fromkeys(row["law"] for row in rows):
        yield (f"The next table is about training on 10,000 documents of the law {law}. A cell gives the mean over 3 "
               "seeds with its standard deviation, and after the bar the mean that was recorded from another "
               "implementation, and the difference of the two means in recorded standard deviations.")
        found = {}
        for row in rows:
            if row["law"] == law:
                found.setdefault(row["run"], []).append(_cell(row))
        yield block(("run ", *(f"{name} " for name in FIELDS.values())),
                    [(run, *cells) for run, cells in found.items()])
    away = [row["away"] for row in rows if row.get("away") is not None]
    yield f"{sum(value <= 3 for value in away)} of {len(away)} means are within three recorded standard deviations."


def _cell(row):
    text = f"{row['mean']:8.5f}" + (f" ({row['sd']:.5f})" if row["sd"] is not None else "")
    if "recorded" in row:
        text += f" | {row['recorded']:g}" + (f", {row['away']:.1f}" if row["away"] is not None else "")
    return text


def main():
    """Train, and write and print the results."""
    arguments = command_line("topics", __doc__, quick="one seed, one law, long runs cut short: in under a minute",
                             optimisers="train by gradient descent, momentum and Adam, at three rates each")
    if arguments.optimisers:
        return optimisers.main(arguments)
    quick = arguments.quick
    found = {"two limits": two_limits(), "trajectory": trajectory(quick), "embeddings": embeddings(quick)}
    rows, paths = ratios(quick)
    laws, seeds, divide = (list(LAWS)[:1], (0,), QUICK) if quick else (list(LAWS), (0, 1, 2), 1)
    averages = all_averages(laws, seeds, divide)
    write_down("topics", arguments, {
        **found, "ratios": rows, "copying": copying(), "table": beside(averages, full=not quick),
        "ordered": ordered(averages), "cross-entropy": cross_entropy(averages),
        "series": {"ratio paths": paths, "averages": averages}}, section)


if __name__ == "__main__":
    main()
