"""What ``minitx automaton`` prints: priority graphs, the limit, training, held-out contexts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitx.base.numbers import norm
from minitx.base.tables import UNDEFINED, Table, number, table
from minitx.model.recording import Run
from minitx.next_token.automaton import STATUSES, Automaton
from minitx.next_token.command_data import HeldOut
from minitx.next_token.graphs import PriorityGraph
from minitx.next_token.svm import InfeasibleError

MODES = {"descent": "plain descent", "normalised": "normalised descent",
         "accelerated": "accelerated (is given the true SCCs)"}
SHORT = {mode: name.split()[0] for mode, name in MODES.items()}
MEANING = {"determined": "one SCC has priority over all others in the context; attention retrieves it",
           "extrapolated": "no SCC has priority over all others, but one has the largest score of W_svm",
           "tied": "several SCCs have the largest score of W_svm; their shares of attention depend on the training",
           "unseen": "no sample ends in this last token"}
ROUNDING = 1e-10  # smaller numbers differ between machines, so they are printed as "< 1e-10"; results.json has them
SHOWN_GRAPHS, SHOWN_TOKENS, SHOWN_CONTEXTS, SHOWN_RECORDS, LONGEST_WORD = 12, 12, 8, 6, 24
RECORDS = Table(("step", "loss", "1 - corr(W)", "1 - corr(W - P W)", "|P W - W_fin|", "|W|",
                 "attention to label's SCC"), (9, 10, 0, 0, 0, 9, 0))


def printable(name: str, longest: int = LONGEST_WORD) -> str:
    """A word in at most ``longest`` letters; signs that would break a line are escaped."""
    name = name if name.isprintable() else repr(name)[1:-1]
    return name if len(name) <= longest else name[:longest - 1] + "…"


def word(vocabulary: Sequence[str] | None, token: int) -> str:
    """A token as it is printed: its word, between quotes if that is empty or holds spaces; or its number."""
    name = str(token) if vocabulary is None else printable(vocabulary[token])
    return repr(name) if not name or " " in name else name


def _joined(parts, separator, what=""):
    """Up to ``SHOWN_TOKENS`` parts, and how many are missing."""
    more = [f"{len(parts) - SHOWN_TOKENS:,} more{what}"] if len(parts) > SHOWN_TOKENS else []
    return separator.join([*parts[:SHOWN_TOKENS], *more])


def graphs_table(graphs: dict[int, PriorityGraph], vocabulary: Sequence[str] | None) -> str:
    """The SCCs of each graph by layer."""
    components = [part for graph in graphs.values() for part in graph.components]
    edges, several = sum(len(graph.edges) for graph in graphs.values()), sum(len(part) > 1 for part in components)
    lines = [f"{len(graphs):,} priority graphs, one for each last token: {edges:,} edges, {len(components):,} strongly "
             f"connected components (SCCs), {several:,} with several tokens (largest: {max(map(len, components)):,})",
             "Each line shows the SCCs of one graph, the highest priority first. Braces hold an SCC of several tokens.",
             "SCCs separated by | have no order."]
    chosen = list(graphs.values())[:SHOWN_GRAPHS]
    width = max(len(word(vocabulary, graph.last)) for graph in chosen)
    lines += [f"{word(vocabulary, graph.last):>{width}}:  {_layers(graph, vocabulary)}" for graph in chosen]
    if len(graphs) > len(chosen):
        lines.append(f"... and {len(graphs) - len(chosen):,} more last tokens (results.json has all)")
    return "\n".join(lines)


def _layers(graph, vocabulary):
    layers = []
    for layer in range(graph.layer.max() + 1):
        parts = [[word(vocabulary, token) for token in part]
                 for part, at in zip(graph.components, graph.layer, strict=True) if at == layer]
        several = ["{" + _joined(part, " ") + "}" for part in parts if len(part) > 1]
        single = _joined([part[0] for part in parts if len(part) == 1], " | ")
        layers.append(" | ".join([*several, *filter(None, [single])]))
    return _joined(layers, "  >  ", " layers")


def limit_words(automaton: Automaton, loss: str = "log") -> str:
    """What W_svm and W_fin are, and how exactly they are known."""
    svm, soft, kkt = automaton.svm, automaton.soft, automaton.svm.kkt
    lines = [f"hard retrieval    |W_svm| = {norm(svm.W):.6g}; {len(svm.multipliers):,} inequalities, "
             f"{len(svm.equality_multipliers):,} equalities",
             f"  largest violation of each optimality condition: equalities {kkt.primal_equality:.1e}, inequalities "
             f"{kkt.primal_inequality:.1e},\n  stationarity {kkt.stationarity:.1e}, complementarity "
             f"{kkt.complementarity:.1e}, duality gap {kkt.gap:.1e}"]
    if soft.dim:
        lines.append(f"soft composition  |W_fin| = {norm(soft.W):.6g} in S_fin, whose dimension is {soft.dim}; minimal "
                     f"log loss {soft.loss:.6g}, norm of its gradient {tiny(soft.gradient_norm)}")
    else:
        lines.append("soft composition  W_fin = 0, because S_fin has dimension 0: no SCC has several tokens")
    if soft.dim and loss != "log":
        lines.append(f"  W_fin minimises the log loss inside SCCs; descent on the {loss} loss ends elsewhere.")
    if not len(svm.multipliers):
        lines.append("  W_svm = 0, because no token has priority over another; correlations with it are undefined.")
    return "\n".join([*lines, *filter(None, [svm.note])])


def infeasible_words(error: InfeasibleError, vocabulary: Sequence[str] | None, dim: int, width: int) -> str:
    """Why there is no W_svm; ``dim`` is the dimension of S_fin, ``width`` that of the embeddings."""
    lines = ["No weights W satisfy all priorities of the samples with these embeddings:",
             "weighted as follows, the priorities sum to zero, so they cannot all hold."]
    lines += [f"  {weight:9.4g} x (after {word(vocabulary, k)}: {word(vocabulary, i)} above {word(vocabulary, j)})"
              for (k, i, j), weight in error.certificate[:SHOWN_TOKENS]]
    if len(error.certificate) > SHOWN_TOKENS:
        lines.append(f"  ... and {len(error.certificate) - SHOWN_TOKENS:,} more (results.json has all)")
    lines.append(f"  Outside S_fin the norm of the sum is {error.residual:.1e}. S_fin has dimension {dim}; W has "
                 f"{width ** 2} entries.")
    if dim == width ** 2:
        lines.append("  S_fin is the whole space: scores are equal inside SCCs for W = 0 only, so no priority holds.")
    return "\n".join([*lines, "Nothing is trained, because there is no limit to compare with.",
                      "There is one with --embedding one-hot, or with a --width of at least the number of tokens."])


def mode_rows(mode: str, settings: dict[str, Any], run: Run) -> str:
    """The rows of one mode: some of its records, the first and the last among them."""
    how = {"descent": "{0} on the {loss} loss, learning rate {learning_rate}",
           "normalised": "{0} on the {loss} loss, steps of length {learning_rate}",
           "accelerated": "{0}: starts at W_fin and minimises log(loss - minimal loss)"}[mode]
    records = run.records
    at = np.unique(np.rint(np.linspace(0, len(records) - 1, min(SHOWN_RECORDS, len(records)))).astype(int))
    rows = [RECORDS.row((f"{one.step:,}", number(one.loss, 6), _gap(one.correlation),
                         _gap(one.correlation_rest), tiny(one.cyclic_distance, 2),
                         f"{one.norm:.4g}", f"{one.label_mass:.9f}")) for one in (records[i] for i in at)]
    return "\n".join([how.format(MODES[mode], **settings), *rows])


def tiny(value: float, digits: int = 1) -> str:
    """A distance; below ``ROUNDING`` it is said to be so."""
    return f"{value:.{digits}e}" if value >= ROUNDING else f"< {ROUNDING:.0e}"


def _gap(correlation):
    return UNDEFINED if np.isnan(correlation) else f"{1 - correlation:.2e}"


def contexts_table(held_out: HeldOut) -> str:
    """Some held-out contexts, the first ones of each status: predicted and trained attention side by side."""
    data, status = held_out.data, held_out.status
    columns = {"limit": held_out.limit, **{SHORT[mode]: p for mode, p in held_out.trained.items()}}
    if data.law is not None:
        columns["true law"] = data.law.distribution(np.array(data.contexts))
    layout = Table(("token", *columns), (15, *[11] * len(columns)))
    lines = [f"held-out contexts: {data.origin}",
             "Columns: attention that is predicted (limit) and trained"
             + (", and the law that the samples were drawn from" if data.law else ""), layout.header()]
    queues = [list(np.flatnonzero(status == name)) for name in STATUSES]
    rounds = [queue[i] for i in range(SHOWN_CONTEXTS) for queue in queues if i < len(queue)]
    for i in sorted(rounds[:SHOWN_CONTEXTS], key=lambda i: (STATUSES.index(status[i]), i)):
        prediction, context = held_out.predictions[i], data.contexts[i]
        gap = "" if prediction.gap is None else f", gap {prediction.gap:.3g}"
        cut = "… " * (len(context) > SHOWN_TOKENS)
        named = " ".join(word(data.vocabulary, token) for token in context[-SHOWN_TOKENS:])
        lines.append(f"{cut}{named}  ({prediction.status}{gap})")
        largest = np.max([p[i] for p in columns.values()], axis=0)
        lines += [layout.row([word(data.vocabulary, token), *(number(p[i, token]) for p in columns.values())])
                  for token in np.argsort(-largest, kind="stable")[:4] if largest[token] >= 0.0005]
    return "\n".join(lines)


def distances_table(held_out: HeldOut) -> str:
    """Total variation between trained and predicted attention, by status and mode, and what the statuses mean."""
    heads = ["status ", "contexts", *(head for mode in held_out.trained for head in (f"{SHORT[mode]}: median", "max"))]
    rows = {}
    for name in STATUSES:
        chosen = held_out.status == name
        if chosen.any():
            distances = [distance[chosen] for distance in held_out.distances.values()]
            numbers = [tiny(f(distance)) for distance in distances for f in (np.median, np.max)]
            rows[name] = [name, f"{chosen.sum():,}", *numbers]
    return "\n".join(["total variation between trained attention and the predicted limit on held-out contexts",
                      table(heads, rows.values()), *(f"  {name}: {MEANING[name]}" for name in rows)])
