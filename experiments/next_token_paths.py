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
STATUSES = ("determined", "extrapolated")  # of contexts in which one SCC has the largest score of W_svm
ACYCLIC = (("plain, rate 1", "descent", 1.0), ("normalised, rate .01", "normalised", 0.01),
           ("normalised, rate .1", "normalised", 0.1), ("normalised, rate 1", "normalised", 1.0))


def factors(instances, steps, n_contexts):
    """Where training of W and of two factors ends on each instance, beside W_svm and W_nuc."""
    rows = []
    for one in progress(instances, "instance"):
        automaton = Automaton.fit(one.samples, one.E)
        nuclear, held = nuclear_svm(automaton.split.graphs, one.E), held_out(one, automaton, n_contexts)
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
                         "retrieved": retrieved(one, automaton, held, W, automaton.svm.W, nuclear.W)})
    return rows


def held_out(one, automaton, n_contexts):
    """Unseen contexts of four tokens with their status; those of tied or unseen status are left out."""
    contexts = unseen_contexts(one.samples.sequences, n_contexts, 4, one.samples.n_vocab, rng=0)
    statuses = [automaton.predict(context).status for context in contexts]
    return [pair for pair in zip(contexts, statuses, strict=True) if pair[1] in STATUSES]


def retrieved(one, automaton, held, W, *directions):
    """{status: [contexts, in how many each of ``directions`` predicts the token that W attends to most]}.

    A token and the others of its SCC count as the same prediction.
    """
    attention = context_attention(LastTokenWeights(W, one.E), [context for context, _ in held])
    scores = [to_scores(V, one.E) for V in directions]
    found = {status: [0] * (1 + len(scores)) for status in STATUSES}
    for (context, status), p in zip(held, attention, strict=True):
        graph = automaton.split.graphs[int(context[-1])]
        tokens = [int(p.argmax()), *(int(context[np.argmax(S[context, context[-1]])]) for S in scores)]
        scc = [graph.component_of(token) if graph.component_of(token) >= 0 else -1 - token for token in tokens]
        found[status] = [n + m for n, m in zip(found[status], (1, *(scc[0] == other for other in scc[1:])),
                                               strict=True)]
    return found


def paths(instances, decays, factor_decays, n_contexts):
    """1 - correlations, and distances from W_fin and from the path that is given the SCCs, by instance and decay."""
    rows = []
    for one in progress(instances, "instance"):
        automaton = Automaton.fit(one.samples, one.E)
        split, W_fin, W_svm = automaton.split, automaton.soft.W, automaton.svm.W
        W_nuc, held = nuclear_svm(split.graphs, one.E).W, held_out(one, automaton, n_contexts)
        for decay, W in zip(decays, ridge_path(one.samples, decays, one.E), strict=True):
            told = next(iter(split_path(split, W_fin, [split.excess(W).value / decay])))
            rows.append({"decay": decay, "of": "W", "W_svm": 1 - numbers.cosine(W, W_svm),
                         "W_nuc": 1 - numbers.cosine(W, W_nuc), "norm": np.linalg.norm(W),
                         "cyclic distance": np.linalg.norm(split.subspace.project(W) - W_fin),
                         "path": np.linalg.norm(W - told),
                         "retrieved": retrieved(one, automaton, held, W, W_svm, W_nuc)})
        for decay, W in zip(factor_decays, factor_path(one.samples, factor_decays, one.E), strict=True):
            rows.append({"decay": decay, "of": "factors", "W_svm": 1 - numbers.cosine(W, W_svm),
                         "W_nuc": 1 - numbers.cosine(W, W_nuc), "norm": np.linalg.norm(W),
                         "cyclic distance": np.linalg.norm(split.subspace.project(W) - W_fin),
                         "retrieved": retrieved(one, automaton, held, W, W_svm, W_nuc)})
    return rows


def losses(instances, steps, n_contexts):
    """What normalised descent on each loss from W = 0 ends with: correlations with W_svm, and what is retrieved.

    The head of ``cross_entropy`` is 3 times the pseudoinverse of E, so that its output is 3 P.
    """
    found = {}
    for loss in progress(LOSSES, "loss"):
        for one in instances:
            C = 3 * np.linalg.pinv(one.E).T if loss == "cross_entropy" else None
            start, automaton = LastTokenWeights.zeros(E=one.E, C=C), Automaton.fit(one.samples, one.E)
            run = train(start, automaton, mode="normalised", steps=steps, loss=loss, at=(steps,))
            end, held = run.records[-1], held_out(one, automaton, n_contexts)
            found.setdefault(loss, []).append({
                "correlation": end.correlation, "projected": end.correlation_rest, "label mass": end.label_mass,
                "retrieved": retrieved(one, automaton, held, run.weights.W, automaton.svm.W)})
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
    for one in found.values():
        distances = one.pop("total variation")
        one |= {"contexts": len(distances), "median": np.median(distances), "max": max(distances)}
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
        f"W is trained from 0, and two factors W_K W_Q' from random starts, by {results['steps']:,} steps of "
        "normalised descent of length 0.01, on the instances of the notebooks. W_nuc has the least nuclear norm of "
        "all weights that meet the constraints of W_svm, to a relative gap of "
        f"{max(one['gap'] for one in results['factors']):.0e}. The rank counts singular values above 5% of the "
        "largest.",
        _factors_block(results["factors"]),
        "The next table says which direction predicts what is retrieved on unseen contexts of four tokens of all "
        "instances: it gives how often the token with the largest score of W_svm, or of W_nuc, is in the SCC of the "
        "token with most attention.",
        _retrieved_block(results["factors"]),
        "The next table gives medians over the instances for the paths of weight decay, L(W) + lam |W|^2 / 2 and "
        "L(W_K W_Q') + lam (|W_K|^2 + |W_Q|^2) / 2. The distance from the path that is given the SCCs is that at tau "
        "= excess / lam. The last two columns are held out: on what share of the unseen contexts, determined and "
        "extrapolated together, W_svm and W_nuc predict what the weights retrieve.",
        _paths_block(results["paths"]),
        "The next table gives the range over the instances for normalised descent on each loss from W = 0, with "
        f"{results['steps']:,} steps of length 0.01. The projected correlation is that of the part of W off S_fin. "
        "Losses that are not convex may settle on another token than the label. The last column is held out, as "
        "above.",
        spread(),
        f"The last table has no cycles: there are {len(next(iter(results['acyclic'].values()))['1 - correlation'])} "
        f"laws in which each last token ranks all tokens one below the other, each trained for {results['steps']:,} "
        "steps. The total variation is from the limit, on unseen contexts with a determined limit. Training ends "
        "early where the gradient has fallen so far that it is exactly 0 in float64.",
        _acyclic_block(results["acyclic"]))


def _factors_block(rows):
    heads = ("instance ", "start ", "cos(W_svm, W_nuc)", "cos with W_svm", "with W_nuc", "rank",
             "|cyclic part - W_fin|")
    return block(heads, [(one["name"], one["start"], f"{one['of W_svm and W_nuc']:.4f}", f"{one['W_svm']:.4f}",
                          f"{one['W_nuc']:.4f}", one["rank"], f"{one['cyclic distance']:.4f}") for one in rows])


def _retrieved_block(rows):
    table = []
    for start in dict.fromkeys(one["start"] for one in rows):
        for status in STATUSES:
            n, *shares = _shares([one for one in rows if one["start"] == start], status)
            table.append((start, status, f"{n:,}", *shares))
    return block(("start ", "status ", "contexts", "W_svm predicts", "W_nuc predicts"), table)


def _shares(rows, *statuses):
    """The contexts of these statuses in all rows, and the share of them that each direction predicts."""
    n, *hits = np.sum([one["retrieved"][status] for one in rows for status in statuses], axis=0)
    return n, *(f"{found / n:.1%}" for found in hits)


def _paths_block(rows):
    table = []
    for of in ("W", "factors"):
        for decay in dict.fromkeys(one["decay"] for one in rows if one["of"] == of):
            chosen = [one for one in rows if one["of"] == of and one["decay"] == decay]
            median = {key: np.median([one[key] for one in chosen]) for key in chosen[0]
                      if key not in ("decay", "of", "retrieved")}
            table.append((of, f"{decay:.0e}", f"{median['norm']:.3g}", f"{median['W_svm']:.1e}",
                          f"{median['W_nuc']:.1e}", f"{median['cyclic distance']:.1e}",
                          f"{median['path']:.1e}" if "path" in median else "", *_shares(chosen, *STATUSES)[1:]))
    return block(("decay of ", "lam", "|W|", "1 - cos with W_svm", "with W_nuc", "|cyclic part - W_fin|",
                  "|W - path given SCCs|", "W_svm predicts", "W_nuc"), table)


def _spread(results):
    table = []
    for loss, rows in results["losses"].items():
        ranges = [[one[key] for one in rows] for key in ("correlation", "projected", "label mass")]
        table.append((loss, *(f"{min(of_all):.4f}..{max(of_all):.4f}" for of_all in ranges),
                      _shares(rows, *STATUSES)[1]))
    return block(("loss ", "correlation", "projected", "attention to label's SCC", "W_svm predicts"), table)


def _acyclic_block(found):
    return block(("mode ", "1 - correlation", "ended early", "contexts", "total variation: median", "max"),
                 [(label, f"{min(one['1 - correlation']):.1e}..{max(one['1 - correlation']):.1e}",
                   one["ended early"], f"{one['contexts']:,}", f"{one['median']:.1e}", f"{one['max']:.1e}")
                  for label, one in found.items()])


def main():
    """Train, draw the figure, and write and print the results."""
    arguments = command_line("next_token_paths", __doc__, quick="one of each, a tenth of the steps: in seconds")
    quick = arguments.quick
    instances = notebook_instances("instances")[:1 if quick else None]
    steps, n_contexts, n_laws, n_determined = (400, 100, 1, 50) if quick else (4000, 1000, 12, 200)
    found = {"steps": steps, "factors": factors(instances, steps, n_contexts),
             "paths": paths(instances, DECAYS[:3] if quick else DECAYS, FACTOR_DECAYS[:2 if quick else None],
                            n_contexts),
             "losses": losses(instances, steps, n_contexts), "acyclic": acyclic(n_laws, steps, n_determined)}
    figure(arguments.out, steps)
    write_down("next_token_paths", arguments, found, section)


if __name__ == "__main__":
    main()
