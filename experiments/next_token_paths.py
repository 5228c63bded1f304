"""Next token: two factors in the place of W, regularisation paths, other losses, and the acyclic case.

    python experiments/next_token_paths.py [--quick] [--out DIR]

On the instances of the paper's notebooks: where W_K W_Q' goes when both factors are trained, beside the directions of
least Frobenius norm (W_svm) and of least nuclear norm (W_nuc), and which of the two predicts what they retrieve on
unseen contexts; the paths of weight decay of W and of both factors; and normalised descent on each loss. Laws without
cycles follow. All this takes two to three minutes on one core; --quick does one of each with a tenth of the steps.
"""

from functools import partial

import numpy as np
from next_token import notebook_instances, progress
from running import block, command_line, paragraphs, write_down

from minitx.base import numbers, style
from minitx.model.weights import LastTokenWeights
from minitx.next_token import figures as plots
from minitx.next_token.automaton import Automaton
from minitx.next_token.factors import FactoredWeights, factor_path, nuclear_svm
from minitx.next_token.law import PriorityLaw, unseen_contexts
from minitx.next_token.losses import LOSSES, context_attention, to_scores
from minitx.next_token.path import split_path
from minitx.next_token.ridge import ridge_path
from minitx.next_token.samples import Samples
from minitx.next_token.training import train

SCALES = (0.01, 0.1, 1.0)  # standard deviations of the factors that training starts from
DECAYS = [10.0**-power for power in range(1, 9)]
FACTOR_DECAYS = DECAYS[:6]  # below, L-BFGS takes long
ACYCLIC = (("plain, rate 1", "descent", 1.0), ("normalised, rate .01", "normalised", 0.01),
           ("normalised, rate .1", "normalised", 0.1), ("normalised, rate 1", "normalised", 1.0))


def factors(instances, steps, n_contexts):
    """Where training of W and of two factors ends on each instance, beside W_svm and W_nuc."""
    rows = []
    for one in progress(instances, "instance"):
        automaton = Automaton.fit(one.samples, one.E)
        nuclear = nuclear_svm(automaton.split.graphs, one.E)
        starts = {"W": LastTokenWeights.zeros(E=one.E)}
        starts |= {f"factors, scale {scale}": FactoredWeights.gaussian(scale=scale, E=one.E, rng=0)
                   for scale in SCALES}
        for label, start in starts.items():
            run = train(start, automaton, mode="normalised", steps=steps, at=(steps,))
            W = run.weights.product().W if isinstance(start, FactoredWeights) else run.weights.W
            rows.append({"name": one.name, "start": label,
                         "of W_svm and W_nuc": numbers.cosine(automaton.svm.W, nuclear.W),
                         "W_svm": numbers.cosine(W, automaton.svm.W), "W_nuc": numbers.cosine(W, nuclear.W),
                         "cyclic distance": run.records[-1].cyclic_distance, "gap": nuclear.gap,
                         "rank": int(np.sum(np.linalg.svd(W)[1] > 0.05 * np.linalg.norm(W, 2))),
                         "retrieved": _retrieved(one, automaton, nuclear.W, W, n_contexts)})
    return rows


def _retrieved(one, automaton, W_nuc, W, n_contexts):
    """{status: [contexts, in how many W_svm, W_nuc predicts the token with most attention]} of unseen contexts.

    A token and the others of its SCC count as the same prediction. Contexts of tied or unseen status are left out.
    """
    contexts = unseen_contexts(one.samples.sequences, n_contexts, 4, one.samples.n_vocab, rng=0)
    attention = context_attention(LastTokenWeights(W, one.E), contexts)
    scores = [to_scores(V, one.E) for V in (automaton.svm.W, W_nuc)]
    found = {"determined": [0, 0, 0], "extrapolated": [0, 0, 0]}
    for context, p in zip(contexts, attention, strict=True):
        prediction, k = automaton.predict(context), int(context[-1])
        if prediction.status in found:
            graph = automaton.split.graphs[k]
            best = [int(context[np.argmax(S[context, k])]) for S in scores]
            scc = [graph.component_of(token) if graph.component_of(token) >= 0 else -1 - token
                   for token in (int(p.argmax()), *best)]
            found[prediction.status] = [n + m for n, m in zip(found[prediction.status],
                                                              (1, scc[0] == scc[1], scc[0] == scc[2]), strict=True)]
    return found


def paths(instances, decays, factor_decays):
    """1 - correlations, and distances from W_fin and from the path that is given the SCCs, by instance and decay."""
    rows = []
    for one in progress(instances, "instance"):
        automaton = Automaton.fit(one.samples, one.E)
        split, W_fin, W_svm = automaton.split, automaton.soft.W, automaton.svm.W
        W_nuc = nuclear_svm(split.graphs, one.E).W
        for decay, W in zip(decays, ridge_path(one.samples, decays, one.E), strict=True):
            told = next(iter(split_path(split, W_fin, [split.excess(W).value / decay])))
            rows.append({"decay": decay, "of": "W", "W_svm": 1 - numbers.cosine(W, W_svm),
                         "W_nuc": 1 - numbers.cosine(W, W_nuc), "norm": np.linalg.norm(W),
                         "cyclic distance": np.linalg.norm(split.subspace.project(W) - W_fin),
                         "path": np.linalg.norm(W - told)})
        for decay, W in zip(factor_decays, factor_path(one.samples, factor_decays, one.E), strict=True):
            rows.append({"decay": decay, "of": "factors", "W_svm": 1 - numbers.cosine(W, W_svm),
                         "W_nuc": 1 - numbers.cosine(W, W_nuc), "norm": np.linalg.norm(W),
                         "cyclic distance": np.linalg.norm(split.subspace.project(W) - W_fin)})
    return rows


def losses(instances, steps):
    """Correlations with W_svm after normalised descent on each loss from W = 0, of all of W and of its part off S_fin.

    The head of ``cross_entropy`` is 3 times the pseudoinverse of E, so that its output is 3 P.
    """
    found = {}
    for loss in progress(LOSSES, "loss"):
        for one in instances:
            C = 3 * np.linalg.pinv(one.E).T if loss == "cross_entropy" else None
            start = LastTokenWeights.zeros(E=one.E, C=C)
            end = train(start, Automaton.fit(one.samples, one.E), mode="normalised", steps=steps, loss=loss,
                        at=(steps,)).records[-1]
            found.setdefault(loss, []).append([end.correlation, end.correlation_rest, end.label_mass])
    return found


def acyclic_law(seed):
    """(Samples, law) of a law in which each last token ranks all tokens one below the other, one-hot."""
    K = 5 + seed % 4
    law = PriorityLaw.random(K, K, rng=seed)
    drawn = law.samples(15 * K, 5, rng=seed + 1)
    return Samples.of(drawn.sequences, drawn.labels, K), law


def acyclic(n_laws, steps, n_contexts):
    """1 - correlation and total variation from the limit on determined unseen contexts, by training mode.

    Training ends early where the gradient has become so small that it is exactly 0.
    """
    found = {label: {"1 - correlation": [], "total variation": [], "ended early": 0} for label, *_ in ACYCLIC}
    for seed in progress(range(n_laws), "law"):
        samples, _ = acyclic_law(seed)
        automaton = Automaton.fit(samples)
        contexts = unseen_contexts(samples.sequences, n_contexts, 5, samples.n_vocab, rng=seed + 2)
        limit = [automaton.predict(context) for context in contexts]
        chosen = [i for i, one in enumerate(limit) if one.status == "determined"]
        p = np.array([limit[i].p for i in chosen])
        for label, mode, rate in ACYCLIC:
            run = train(LastTokenWeights.zeros(samples.n_vocab), automaton, mode=mode, steps=steps, learning_rate=rate,
                        at=())
            q = context_attention(run.weights, [contexts[i] for i in chosen])
            found[label]["1 - correlation"].append(1 - numbers.cosine(run.weights.W, automaton.svm.W))
            found[label]["ended early"] += run.trajectory.stopped is not None
            found[label]["total variation"] += numbers.total_variation(p, q).tolist()
    return found


def figure(folder, steps):
    """Training of one law without cycles."""
    samples, _ = acyclic_law(3)
    automaton = Automaton.fit(samples)
    start = LastTokenWeights.zeros(samples.n_vocab)
    runs = {label: train(start, automaton, mode=mode, steps=steps, learning_rate=rate).records
            for label, mode, rate in ACYCLIC}
    style.save(plots.next_token_training(runs, title="A law without cycles, K = 8", has_cycles=False),
               folder / "acyclic.png")


# ------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what next_token_paths.json holds."""
    spread = partial(_spread, results)
    return paragraphs(
        "## Next token: two factors, regularisation paths, other losses, no cycles",
        f"W from 0, and two factors W_K W_Q' from random ones, by normalised descent, {results['steps']:,} steps of "
        "length 0.01, on the instances of the notebooks. W_nuc has the least nuclear norm of all weights that meet the "
        f"constraints of W_svm, to a relative gap of {max(one['gap'] for one in results['factors']):.0e}. The rank "
        "counts singular values above 5% of the largest.",
        _factors_block(results["factors"]),
        "Which direction predicts what is retrieved on unseen contexts of four tokens, all instances together: how "
        "often the token with the largest score of W_svm, or of W_nuc, is in the SCC of the token with most attention.",
        _retrieved_block(results["factors"]),
        "Paths of weight decay, L(W) + lam |W|^2 / 2 and L(W_K W_Q') + lam (|W_K|^2 + |W_Q|^2) / 2: medians over the "
        "instances. The last column is the distance from the path that is given the SCCs, at tau = excess / lam.",
        _paths_block(results["paths"]),
        f"Normalised descent on each loss from W = 0, {results['steps']:,} steps of length 0.01: range over the "
        "instances. The projected correlation is that of the part of W off S_fin. Losses that are not convex may "
        "settle on another token than the label.",
        spread(),
        f"No cycles: {len(next(iter(results['acyclic'].values()))['1 - correlation'])} laws in which each last token "
        f"ranks all tokens one below the other, {results['steps']:,} steps. The total variation is from the limit, on "
        "unseen contexts with a determined limit. Training ends early where the gradient has fallen so far that it is "
        "exactly 0 in float64.",
        _acyclic_block(results["acyclic"]))


def _factors_block(rows):
    heads = ("instance ", "start ", "cos(W_svm, W_nuc)", "cos with W_svm", "with W_nuc", "rank",
             "|cyclic part - W_fin|")
    return block(heads, [(one["name"], one["start"], f"{one['of W_svm and W_nuc']:.4f}", f"{one['W_svm']:.4f}",
                          f"{one['W_nuc']:.4f}", one["rank"], f"{one['cyclic distance']:.4f}") for one in rows])


def _retrieved_block(rows):
    table = []
    for start in dict.fromkeys(one["start"] for one in rows):
        for status in ("determined", "extrapolated"):
            n, svm, nuclear = np.sum([one["retrieved"][status] for one in rows if one["start"] == start], axis=0)
            table.append((start, status, f"{n:,}", f"{svm / n:.1%}", f"{nuclear / n:.1%}"))
    return block(("start ", "status ", "contexts", "W_svm predicts", "W_nuc predicts"), table)


def _paths_block(rows):
    table = []
    for of in ("W", "factors"):
        for decay in dict.fromkeys(one["decay"] for one in rows if one["of"] == of):
            chosen = [one for one in rows if one["of"] == of and one["decay"] == decay]
            median = {key: np.median([one[key] for one in chosen]) for key in chosen[0] if key not in ("decay", "of")}
            table.append((of, f"{decay:.0e}", f"{median['norm']:.3g}", f"{median['W_svm']:.1e}",
                          f"{median['W_nuc']:.1e}", f"{median['cyclic distance']:.1e}",
                          f"{median['path']:.1e}" if "path" in median else ""))
    return block(("decay of ", "lam", "|W|", "1 - cos with W_svm", "with W_nuc", "|cyclic part - W_fin|",
                  "|W - path given SCCs|"), table)


def _spread(results):
    table = []
    for loss, rows in results["losses"].items():
        table.append((loss, *(f"{min(column):.4f}..{max(column):.4f}" for column in zip(*rows, strict=True))))
    return block(("loss ", "correlation", "projected", "attention to label's SCC"), table)


def _acyclic_block(found):
    return block(("mode ", "1 - correlation", "ended early", "contexts", "total variation: median", "max"),
                 [(label, f"{min(one['1 - correlation']):.1e}..{max(one['1 - correlation']):.1e}",
                   one["ended early"], f"{len(one['total variation']):,}", f"{np.median(one['total variation']):.1e}",
                   f"{max(one['total variation']):.1e}") for label, one in found.items()])


def main():
    """Train, draw the figure, and write and print the results."""
    arguments = command_line("next_token_paths", __doc__, quick="one of each, a tenth of the steps: in seconds")
    quick = arguments.quick
    instances, steps = notebook_instances("instances"), 400 if quick else 4000
    if quick:
        instances = instances[:1]
    found = {"steps": steps, "factors": factors(instances, steps, 100 if quick else 1000),
             "paths": paths(instances, DECAYS[:3] if quick else DECAYS, FACTOR_DECAYS[:2 if quick else None]),
             "losses": losses(instances, steps), "acyclic": acyclic(1 if quick else 12, steps, 50 if quick else 200)}
    figure(arguments.out, steps)
    write_down("next_token_paths", arguments, found, section)


if __name__ == "__main__":
    main()
