"""What ``minitx automaton`` prints: priority graphs, the limit, training, held-out contexts. Long lists are cut, and say so."""

import numpy as np

from minitx.base import numbers
from minitx.base.numbers import norm
from minitx.next_token import figures as plots

SHORT = {"descent": "plain", "normalised": "normalised", "accelerated": "accelerated"}
MEANING = {"determined": "one SCC is above all others present: it is retrieved",
           "extrapolated": "none is above all others; W_svm, as the least matrix that fits the samples, has a winner",
           "tied": "W_svm ties; how those SCCs share the attention is decided by the way of training, not by the limit",
           "unseen": "no sample ends in this token"}
ROUNDING = 1e-10  # what is smaller differs from machine to machine; it is in results.json
SHOWN_GRAPHS, SHOWN_TOKENS, SHOWN_CONTEXTS, SHOWN_RECORDS, LONGEST_WORD = 12, 12, 8, 6, 24



def word(vocabulary, token):
    """A token as it is printed: its word, shortened, signs that would break a line escaped; or its number."""
    if vocabulary is None:
        return str(token)
    name = vocabulary[token]
    name = name if name.isprintable() and name and " " not in name else repr(name)
    return name if len(name) <= LONGEST_WORD else name[:LONGEST_WORD - 1] + "…"


def _several(tokens, vocabulary, most=SHOWN_TOKENS):
    shown = " ".join(word(vocabulary, token) for token in tokens[:most])
    return shown + (f" … {len(tokens) - most:,} more" if len(tokens) > most else "")


def graphs_table(graphs, vocabulary):
    """The SCCs of each graph by layer, as many as are worth a line."""
    components = [part for graph in graphs.values() for part in graph.components]
    several = [part for part in components if len(part) > 1]
    edges = sum(len(graph.edges) for graph in graphs.values())
    heads = [f"{len(graphs):,} priority graphs: {edges:,} edges, {len(components):,} SCCs, {len(several):,} of them of several "
             f"tokens (largest: {max(map(len, components)):,})",
             "SCCs in layers, the highest first: {several tokens}, or one token; | between SCCs of a layer, which have no order"]
    chosen = list(graphs.values())[:SHOWN_GRAPHS]
    width = max(len(word(vocabulary, graph.last)) for graph in chosen)
    rows = [f"{word(vocabulary, graph.last):>{width}}:  {_layers(graph, vocabulary)}" for graph in chosen]
    if len(graphs) > len(chosen):
        rows.append(f"... and {len(graphs) - len(chosen):,} more last tokens (all in results.json)")
    return "\n".join([*heads, *rows])


def _layers(graph, vocabulary):
    layers = []
    for layer in range(graph.layer.max() + 1):
        parts = [part for part, at in zip(graph.components, graph.layer, strict=True) if at == layer]
        single = [word(vocabulary, part[0]) for part in parts if len(part) == 1]
        several = ["{" + _several(part, vocabulary) + "}" for part in parts if len(part) > 1]
        if len(single) > SHOWN_TOKENS:
            single = [*single[:SHOWN_TOKENS], f"{len(single) - SHOWN_TOKENS:,} more"]
        layers.append(" | ".join([*several, *single]))
    if len(layers) > SHOWN_TOKENS:
        layers = [*layers[:SHOWN_TOKENS], f"{len(layers) - SHOWN_TOKENS:,} more layers"]
    return "  >  ".join(layers)


def limit_words(automaton, loss="log"):
    """What W_svm and W_fin are, and how well they are known."""
    svm, soft = automaton.svm, automaton.soft
    lines = [f"hard retrieval  |W_svm| = {svm.norm:.6g}; {svm.n_inequalities:,} inequalities, {svm.n_equalities:,} equalities",
             f"  its conditions, missed by: equalities {svm.kkt.primal_equality:.1e}, margins {svm.kkt.primal_inequality:.1e}, "
             f"stationarity {svm.kkt.stationarity:.1e}, complementarity {svm.kkt.complementarity:.1e}, gap {svm.kkt.gap:.1e}",
             f"soft composition  S_fin has dimension {soft.dim}; |W_fin| = {norm(soft.W):.6g}, least log loss "
             f"{soft.loss:.6g}, gradient there {_tiny(soft.gradient_norm)}"]
    if not soft.dim:
        lines[-1] = "soft composition  S_fin has dimension 0: no SCC of several tokens, W_fin = 0"
    elif loss != "log":
        lines.append(f"  W_fin, and with it the mix inside SCCs, is of the log loss: descent on the {loss} loss ends at another")
    if not svm.n_inequalities:
        lines.append("no token is above another: W_svm = 0, and correlation with it is undefined")
    if svm.note:
        lines.append(svm.note)
    return "\n".join(lines)


def infeasible_words(error, vocabulary, dim, width):
    """Why there is no W_svm; ``dim`` that of S_fin, ``width`` that of the embeddings."""
    lines = ["no weights W retrieve what the samples ask for: with these embeddings the priorities below, each times its weight, "
             "add up to nothing,", "so not all of them can hold"]
    for (k, i, j), weight in error.certificate[:SHOWN_TOKENS]:
        lines.append(f"  {weight:9.4g}  after {word(vocabulary, k)}: {word(vocabulary, i)} above {word(vocabulary, j)}")
    if len(error.certificate) > SHOWN_TOKENS:
        lines.append(f"  ... and {len(error.certificate) - SHOWN_TOKENS:,} more (all in results.json)")
    lines.append(f"  the sum, but for its part within SCCs, has norm {error.residual:.1e}; S_fin has dimension {dim}, "
                 f"W {width ** 2}")
    if dim == width ** 2:
        lines.append("  only W = 0 scores equal inside SCCs, for S_fin is the whole space: no priority can hold")
    lines.append("nothing is trained, for there is no limit to set it beside; with --width of at least the number of tokens, or "
                 "--embedding one-hot, there always is one")
    return "\n".join(lines)


def record_header():
    """Above the rows of :func:`mode_rows`."""
    label = "label's SCC"
    return (f"{'':21}{'1 - correlation':>17}{'|cyclic part':>14}{'':>11}{'attention to':>18}\n"
            f"{'step':>9}{'loss':>12}{'with W_svm':>17}{'- W_fin|':>14}{'|W|':>11}{label:>18}")


def mode_rows(mode, rate, loss, run):
    """The rows of one mode: some of its records, the first and the last among them."""
    how = {"descent": f"plain descent on the {loss} loss, eta = {rate}",
           "normalised": f"normalised descent on the {loss} loss, steps of length {rate}",
           "accelerated": "accelerated: told the SCCs, it begins at W_fin and descends the logarithm of what the log loss has "
                          "above its least value"}[mode]
    records = run.records
    at = np.unique(np.rint(np.linspace(0, len(records) - 1, min(SHOWN_RECORDS, len(records)))).astype(int))
    rows = [f"{how}"]
    for record in (records[i] for i in at):
        rows.append(f"{record.step:9,}{_loss(record.loss):>12}{_gap(record):>17}{_tiny(record.cyclic_distance, 2):>14}"
                    f"{record.norm:11.4g}{record.label_mass:18.9f}")
    return "\n".join(rows)


def _tiny(value, digits=1):
    return f"{value:.{digits}e}" if value >= ROUNDING else f"< {ROUNDING:.0e}"


def _loss(value):
    return f"{value:.6f}" if value < 1e4 else f"{value:.4g}"


def _gap(record):
    return "undefined" if np.isnan(record.correlation) else f"{1 - record.correlation:.2e}"


def _chosen(result):
    """Numbers of the contexts that are printed: the first ones of each status in turn."""
    status = result.status
    queues = [list(np.flatnonzero(status == name)) for name in plots.STATUSES]
    chosen = []
    while len(chosen) < SHOWN_CONTEXTS and any(queues):
        chosen += [queue.pop(0) for queue in queues if queue]
    return sorted(chosen[:SHOWN_CONTEXTS], key=lambda i: (plots.STATUSES.index(status[i]), i))


def contexts_table(result):
    """Some held-out contexts: probabilities of the limit, and trained ones, side by side."""
    data, trained = result.data, result.trained
    columns = {"limit": result.limit, **{SHORT[mode]: p for mode, p in trained.items()}}
    if data.law is not None:
        columns["true law"] = data.law.distribution(np.array(data.contexts))
    beside = ", the law of the samples" if data.law is not None else ""
    lines = [f"held-out contexts, {data.origin}", f"the limit, trained attention{beside}",
             f"{'':15}" + "".join(f"{name:>13}" for name in columns)]
    for i in _chosen(result):
        prediction, context = result.predictions[i], data.contexts[i]
        gap = "" if prediction.gap is None else f", gap {prediction.gap:.3g}"
        cut = "… " * (len(context) > SHOWN_TOKENS)
        shown = " ".join(word(data.vocabulary, token) for token in context[-SHOWN_TOKENS:])
        lines.append(f"{cut}{shown}  ({prediction.status}{gap})")
        order = np.argsort(-np.max([p[i] for p in columns.values()], axis=0), kind="stable")
        for token in order[:4]:
            if max(p[i, token] for p in columns.values()) >= 0.0005:
                lines.append(f"{word(data.vocabulary, token):>15}" + "".join(f"{p[i, token]:13.4f}" for p in columns.values()))
    return "\n".join(lines)


def distances_table(result):
    """Total variation between limit and trained attention, by status and mode."""
    lines = [f"total variation between trained attention and the limit, {len(result.predictions):,} held-out contexts",
             f"{'status':14}{'contexts':>9}" + "".join(f"{SHORT[mode] + ': median':>21}{'max':>10}" for mode in result.trained)]
    for name in plots.STATUSES:
        rows = result.status == name
        if rows.any():
            distances = (numbers.total_variation(result.limit[rows], p[rows]) for p in result.trained.values())
            lines.append(f"{name:14}{rows.sum():9,}" + "".join(f"{_tiny(np.median(one)):>21}{_tiny(one.max()):>10}"
                                                                    for one in distances))
            lines.append(f"  {MEANING[name]}")
    return "\n".join(lines)
