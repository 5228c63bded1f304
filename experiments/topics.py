"""The numbers of the theory of topics (Li, Li, Risteski, ICML 2023), by training, beside its closed forms and recorded values.

    python experiments/topics.py [--quick] [--out DIR]

Ten topics of ten words. Each of eight training runs is made for three seeds and two laws of documents (Dirichlet shares, as the
paper's code samples, and two topics a document, as its theory has it), on 10,000 documents with fixed masks, by plain gradient
descent, and set beside values recorded from an independent implementation. Then the attention ratio on infinite documents, by
training, beside its prediction. About 20 minutes on two cores; --quick: one seed, one law, short runs, in under a minute.
"""

import argparse
import math
import multiprocessing
import sys
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from minitx import Batch, EmbeddedWeights, descend, get_threads, set_threads, topics
from minitx.base import style
from minitx.base.checks import output_folder
from minitx.base.report import environment, write_json
from minitx.topics import command_documents_figures, uniform_attention
from minitx.topics.averages import attention_table, gram, pair_averages
from minitx.topics.documents import mask_tokens
from minitx.topics.law import TopicModel
from minitx.topics.training import BLOCK_FIELDS, attention_ratios

LAWS = {"Dirichlet 0.1, N 100..150": {"alpha": 0.1, "length": (100, 150)}, "2 topics, N 128": {"tau": 2, "length": 128}}
FIELDS = ("same_word", "same_topic", "different_topic")
QUICK = 20  # --quick divides the steps of long runs by this

# Recorded values, mean and s.d. over three seeds (None: not recorded), same word, same topic, different topic, for each law.
RECORDED = {
    "E, squared": (((.12413, .0002), (.11394, .0002), (-.00027, .00002)), (None, (.1138, None), (-.00025, None))),
    "E, cross-entropy": (((5.92, .02), (5.86, .02), (-.651, .002)), (None, (9.81, .05), (-1.09, None))),
    "W_V, squared, 100 steps": (((.1139, None), (.1060, None), (-.00576, None)), (None, (.1047, None), (-.0056, None))),
    "W_V, squared": (((.218, .007), (.1021, .0006), (-.00152, None)), (None, None, None)),
    "W_V, cross-entropy": (((7.70, .15), (5.66, .01), (-.633, .003)), (None, (9.59, .05), (-1.07, None))),
    "attention, squared, W_inf": (((1.53, .03), (1.457, .023), (.414, .008)), (None, (1.675, .003), (.316, .003))),
    "attention, squared, trained W_V": (((6.96, .44), (.81, .04), (.370, .004)), (None, (1.03, .10), (.24, .01))),
    "attention, cross-entropy, 1500 steps": (((1.07, None), (1.029, .004), (.957, .003)), (None, (1.256, None), (.732, None))),
    "attention, cross-entropy": (((6.67, .30), (.786, .029), (.434, .003)), (None, (.73, .06), (.587, None))),
    "joint attention, 3000 steps": (((1.41, .04), (1.328, .003), (.575, .015)), (None, (1.309, None), (.675, None))),
    "joint attention": (((4.83, .39), (.968, .033), (.493, .005)), (None, (1.03, .06), (.664, None))),
    "joint W_V, 3000 steps": (((4.55, .05), (4.10, .04), (-.447, .005)), (None, (5.20, .06), (-.571, None))),
}


# ------------------------------------------------------------------------------------------------- the table of all runs


def all_runs(law, seed, divide):
    """{name: Averages} of every run of a law and seed; steps of long runs are divided by ``divide``."""
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
        law_of_paper = topics.TopicModel(10, 10, math.inf, tau=2)
        paper = topics.paper_value(law_of_paper).matrix(law_of_paper)  # the same for every law

        def run(W_V, data, eta, steps, size, **settings):
            start = replace(self.start(W_V=0.0, W_QK=.05), W_V=W_V)
            return self.descend(start, data, eta, steps, size, frozen=("W_V",), **settings)

        early = 1500 // self.divide
        entropy = run(entropic, self.entropy, 20.0, 10_000, 200, keep=(early,))
        return {"attention, squared, W_inf": self.attention(run(paper, self.squared, 2000.0, 1000, 500).weights),
                "attention, squared, trained W_V": self.attention(run(trained, self.squared, 2000.0, 4000, 500).weights),
                "attention, cross-entropy, 1500 steps": self.attention(entropy.kept[early]),
                "attention, cross-entropy": self.attention(entropy.weights)}

    def joint(self):
        """W_V, W_Q and W_K together, cross-entropy."""
        early = 3000 // self.divide
        run = self.descend(self.start(W_V=0.0, W_QK=.05), self.entropy, 20.0, 20_000, 200, keep=(early,))
        return {"joint attention, 3000 steps": self.attention(run.kept[early]), "joint attention": self.attention(run.weights),
                "joint W_V, 3000 steps": self.value(run.kept[early])}


def _task(task):
    set_threads(1)  # the processes share the cores; results do not depend on it
    return task, all_runs(*task)


def table(laws, seeds, divide):
    """Run everything in parallel processes: {law: {run: [Averages of each seed]}}."""
    tasks = [(law, seed, divide) for seed in seeds for law in laws]
    found = {}
    with multiprocessing.get_context("spawn").Pool(min(get_threads(), len(tasks))) as pool:
        for task, runs in tqdm(pool.imap_unordered(_task, tasks), total=len(tasks), unit="law and seed", leave=False,
                               disable=not sys.stderr.isatty()):
            found[task[:2]] = runs
    return {law: {name: [found[law, seed][name] for seed in seeds] for name in RECORDED} for law in laws}


def beside(results, full):
    """Print the table beside the recorded values; how many of these are met within three of their standard deviations."""
    rows, inside, compared = [], 0, 0
    for law, runs in results.items():
        n_seeds = len(next(iter(runs.values())))
        print(f"\n{law}: {'mean (s.d.) over 3 seeds' if n_seeds > 1 else 'one seed'} | recorded, of whose s.d. it is so many away")
        print(f"{'':38}" + "".join(f"{name:38}" for name in ("same word", "same topic", "different topic")))
        for name, averages in runs.items():
            cells = []
            for field, recorded in zip(FIELDS, RECORDED[name][list(LAWS).index(law)], strict=True):
                values = np.array([getattr(one, field) for one in averages])
                mean, sd = values.mean(), values.std(ddof=1) if len(values) > 1 else math.nan
                text = f"{mean:8.5f}" + (f" ({sd:.5f})" if len(values) > 1 else "")
                comparable = full or name in ("E, squared", "W_V, squared", "W_V, squared, 100 steps")
                if recorded is not None and comparable:
                    away = abs(mean - recorded[0]) / recorded[1] if recorded[1] else math.nan
                    text += f" | {recorded[0]:g}" + (f", {away:.1f}" if recorded[1] else "")
                    inside, compared = inside + (away <= 3), compared + (recorded[1] is not None)
                    rows.append({"law": law, "run": name, "class": field, "values": values, "mean": mean, "sd": sd,
                                 "recorded": recorded[0], "recorded_sd": recorded[1], "away": away})
                cells.append(f"{text:38}")
            print(f"{name:38}" + "".join(cells).rstrip())
    print(f"\n{inside} of {compared} means are within three recorded standard deviations")
    exceed = [one.same_topic_including > one.different_topic
              for runs in results.values() for found in runs.values() for one in found]
    print(f"same topic, the same word included, exceeds different topic in {sum(exceed)} of {len(exceed)} averages")
    return rows


# ---------------------------------------------------------------------------------------------------- infinite documents


def ratio(tau, steps, seed):
    """Train W_Q and W_K on all infinite documents of ``tau`` topics, W_V = W_inf: (trained, predicted) ratios."""
    setting = topics.TopicModel(10, 10, math.inf, tau=tau)
    documents = topics.infinite_documents(setting)
    batch = Batch(documents.tokens, documents.targets, documents.weight, mass=documents.mass, causal=False, head="squared")
    start = EmbeddedWeights.gaussian(setting.V, W_V=0.0, W_QK=.05, rng=seed)
    start = replace(start, W_V=topics.paper_value(setting).matrix(setting))
    path = []

    def callback(step, loss, weights, gradient):
        if step % max(1, steps // 40) == 0:
            path.append(attention_ratios(weights, setting) | {"step": step, "loss": loss})

    descend(start, batch, learning_rate=3000.0, steps=steps, frozen=("W_V",), callback=callback)
    return path, topics.optimal_ratio(setting, free_mask=True)


def infinite(quick):
    """Print trained and predicted attention ratios on infinite documents."""
    print("\nattention ratios on infinite documents (W_V = W_inf), trained by gradient descent beside the predicted optimum")
    found, other = {}, topics.other_limit_value(topics.TopicModel(10, 10, math.inf, tau=2))
    copying = topics.optimal_attention(topics.TopicModel(10, 10, math.inf, tau=2), other)
    print(f"  with W_lim in the place of W_inf the optimum is copying: alpha {copying.alpha:.1f}, beta {copying.beta:.2f}, "
          f"rho {copying.rho:.2f}")
    for tau, steps, seeds in ((2, 100 if quick else 2500, (0,) if quick else (0, 1, 2)), *(() if quick else ((4, 1500, (0,)),))):
        for seed in seeds:
            path, predicted = ratio(tau, steps, seed)
            end = path[-1]
            found[f"{tau} topics, seed {seed}"] = {"path": path, "predicted": predicted}
            print(f"  {tau} topics, seed {seed}, {end['step']} steps: rho {end['rho']:.4f} (predicted {predicted.rho:.4f})  "
                  f"[MASK] {end['rho_0']:.4f} ({predicted.rho_0:.4f})  same word {end['alpha']:.4f}  same topic {end['beta']:.4f}  "
                  f"loss {end['loss']:.6f} ({predicted.loss:.6f})", flush=True)
    return found


# -------------------------------------------------------------------------------------------- closed forms, step by step



def two_limits(folder):
    """Print and draw how the minimiser goes from one limit to the other as the ridge falls."""
    infinite_length = topics.TopicModel(10, 10, math.inf, tau=2)
    style.save(command_documents_figures.two_limits(topics.TopicModel(10, 10, 128, tau=2)), folder / "two-limits.png")
    header("the value matrix that minimises the squared loss: the limits N -> inf and ridge -> 0 do not commute")
    for N in command_documents_figures.N_LENGTHS:
        setting = topics.TopicModel(10, 10, N, tau=2)
        sectors = topics.moments(setting)
        between = math.sqrt(sectors.M_w * sectors.M_t)
        row(f"N = {N:,}, no ridge", topics.optimal_value(setting))
        row(f"N = {N:,}, ridge {between:.2g}", topics.ridge_value(setting, between))
    row("W_inf: N -> inf first (the paper)", topics.paper_value(infinite_length))
    row("W_lim: ridge -> 0 first", topics.other_limit_value(infinite_length))


def trajectory(quick):
    """Stage 1a: trained value matrices beside the closed trajectory, on sampled documents and on the exact population."""
    eta, at = 5.0, (1, 10, 100, 1000) if quick else (1, 10, 100, 1000, 20_000)
    for law in LAWS:
        setting = topics.TopicModel(10, 10, **LAWS[law])
        C, M = topics.moments(setting).matrices()
        exact = uniform_attention.Moments(M=M, C=C)
        model = TopicModel(10, 10, **LAWS[law])
        sampled = [uniform_attention.moments(mask_tokens(model.documents(10_000, rng=seed), head="squared", rng=seed), setting.V)
                   for seed in range(6)]
        kept = [descend(EmbeddedWeights.gaussian(setting.V, W_V=0.0), data, learning_rate=eta, steps=at[-1], keep=at,
                        loss_and_gradient=uniform_attention.loss_and_gradient).kept for data in (*sampled, exact)]
        header(f"stage 1a, {law}: closed trajectory, and how many s.d. of 6 seeds the mean of 10,000 documents is away")
        worst = 0.0
        for step in at:
            closed = topics.value_after(setting, step, eta)
            found = [topics.Blocks.of(run[step].W_V, setting) for run in kept]
            worst = max(worst, *(abs(getattr(found[-1], name) - getattr(closed, name)) for name in BLOCK_FIELDS.values()))
            values = {name: np.array([getattr(one, name) for one in found[:-1]]) for name in BLOCK_FIELDS.values()}
            row(f"after {step:,} steps", closed)
            print(f"{'':44}" + "".join(f"{abs(values[name].mean() - getattr(closed, name)) / values[name].std(ddof=1):13.1f} s.d."
                                      for name in BLOCK_FIELDS.values()))
        print(f"descent on the exact population differs from the closed trajectory by at most {worst:.1e}")


def embeddings(quick):
    """Stage 1b on the exact population: the plateau, and the end."""
    setting = topics.TopicModel(10, 10, 128, tau=2)
    C, M = topics.moments(setting).matrices()
    steps = 2000 if quick else 48_000
    run = descend(EmbeddedWeights.gaussian(setting.V, W_E=1e-3, rng=0), uniform_attention.Moments(M=M, C=C), learning_rate=8.0, steps=steps,
                  loss_and_gradient=uniform_attention.loss_and_gradient, keep=(400,))
    header("stage 1b, 2 topics, N = 128: E^T E, trained on the exact population, eta = 8")
    for label, weights, closed in (("after 400 steps", run.kept[400], topics.gram_plateau(setting)),
                                   (f"after {steps:,} steps", run.weights, topics.optimal_gram(setting))):
        row(f"closed, {'plateau' if '400' in label else 'end'}", closed)
        row(f"trained, {label}", topics.Blocks.of(gram(weights.W_E), setting))


def header(title):
    """Print a title and the names of the blocks."""
    print(f"\n{title}\n{'':44}" + "".join(f"{name:>18}" for name in BLOCK_FIELDS))


def row(label, blocks):
    """Print one row of block values."""
    print(f"{label:44}" + "".join(f"{getattr(blocks, name):18.6f}" for name in BLOCK_FIELDS.values()), flush=True)


def cross_entropy(results):
    """Print the two differences that the cross-entropy determines, trained beside their optimum."""
    print("\ncross-entropy: logits of the same word above its topic (A), of its topic above the others (B)")
    for law, runs in results.items():
        setting = topics.TopicModel(10, 10, **LAWS[law])
        for name, same_word in (("W_V, cross-entropy", True), ("E, cross-entropy", False)):
            best = topics.cross_entropy_optimum(setting, same_word=same_word)
            A, B = (np.mean([getattr(one, high) - getattr(one, low) for one in runs[name]])
                    for high, low in (("same_word", "same_topic"), ("same_topic", "different_topic")))
            print(f"  {law:26} {name:20} trained A {A:6.3f}  B {B:7.3f}   optimum{'' if same_word else ' with A = 0:'} "
                  f"A {best.A:6.3f} (s.e. {best.se_A:.3f})  B {best.B:7.3f} (s.e. {best.se_B:.3f})")


def main():
    """Run, print, draw, and write ``topics.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, one law, long runs cut short: in under a minute")
    parser.add_argument("--out", default="results/topics", metavar="DIR")
    arguments = parser.parse_args()
    folder, quick = output_folder(arguments.out), arguments.quick
    two_limits(folder)
    trajectory(quick)
    embeddings(quick)
    ratios = infinite(quick)
    results = table(list(LAWS)[:1] if quick else list(LAWS), (0,) if quick else (0, 1, 2), QUICK if quick else 1)
    rows = beside(results, full=not quick)
    cross_entropy(results)
    write_json(folder / "topics.json", {"environment": environment(), "quick": quick, "ratios": ratios, "table": rows,
                                        "averages": {law: dict(runs) for law, runs in results.items()}})
    print(f"\nwritten to {folder}/")


if __name__ == "__main__":
    main()
