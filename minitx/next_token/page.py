"""The part of the page that tells of the next token: priority graphs, training and predictions, from results.json."""

from collections.abc import Callable, Iterator
from typing import Any

from minitx.base import page
from minitx.base.page import Found, Markup, element, source, text
from minitx.next_token.automaton import STATUSES
from minitx.next_token.command_tables import MEANING, MODES, SHORT, tiny

ID = "next-token"
TITLE = "Next token: attention becomes an automaton"
N_CONTEXTS = 12  # held-out contexts that the page shows
SOURCES = {
    "priority_graphs.png": source("G(k): an edge y → x where y was the label and x was present",
                                  "minitx.next_token.priority_graphs"),
    "training.png": source("W(t) / |W(t)| → W_svm / |W_svm|, and the part of W in S_fin → W_fin",
                           "minitx.next_token.graph_svm", "minitx.next_token.soft_component",
                           "minitx.next_token.training.train"),
    "predictions.png": source("P_j → N_j exp(e_jᵀ W_fin e_k) / sum, over the highest SCC present",
                              "minitx.next_token.Automaton.predict")}


def inside(found: Found, draw: Callable[..., Markup]) -> list[Any]:
    """The page of ``minitx automaton``."""
    return [part(found, draw)]


def part(found: Found, draw: Callable[..., Markup]) -> Markup:
    """The part of a run; where priorities contradict each other, the graphs alone."""
    return page.part(TITLE, *_about(found), *headlines(found),
                     draw("priority_graphs.png", SOURCES["priority_graphs.png"]), *_trained(found, draw), id_=ID)


def _about(found: Found) -> Iterator[Markup]:
    yield text(f"{found['data'].value.rstrip('.')}. Only the last token of a sample attends, and the label is one of "
               "its tokens.")
    yield text("Each last token ranks the other tokens in a priority graph. Tokens that have priority over each other "
               "are a strongly connected component (SCC). Theory says what attention becomes: it retrieves the highest "
               "SCC that is present (hard retrieval, W grows along W_svm), and mixes the tokens of this SCC in fixed "
               "odds (soft composition, W_fin).")
    if "infeasible" in found:
        yield text("With these embeddings no weights satisfy all priorities, so there is no limit to compare with, and "
                   "nothing was trained.")


def headlines(found: Found) -> Iterator[Markup]:
    """How far trained attention is from the automaton; nothing where no limit is determined."""
    medians = [(mode, at["determined"]) for mode, at in found["median total variation"].items()
               if "determined" in at] if "median total variation" in found else []
    if medians:
        mode, median = medians[0]
        others = [part for other, value in medians[1:] for part in (f"; {SHORT[other]}: ", value.shown(tiny))]
        yield page.headline(median.shown(tiny), "is the median distance (total variation) between attention after "
                            f"{MODES[mode]} and the automaton, on held-out contexts whose limit is determined", *others,
                            ". 0 is perfect agreement.")


def _trained(found: Found, draw: Callable[..., Markup]) -> Iterator[Any]:
    if "records" not in found:
        return
    yield element("h3", "Training beside the limit")
    yield draw("training.png", SOURCES["training.png"])
    for mode, records in list(found["records"].items())[:1]:
        if not records:
            continue
        steps = [record["step"].value for record in records]
        rows = [[record["step"].shown(","), record["loss"].shown(".6f"), record["correlation"].shown(".6f"),
                 record["cyclic_distance"].shown(".2e"), record["label_mass"].shown(".6f")] for record in records]
        yield page.moved(steps, _attention(found["snapshots"]), page.table(
            ["step", "loss", "corr(W, W_svm)", "|P W − W_fin|", "attention to the label's SCC"], rows, steps=steps,
            caption=f"What the weights are like during {MODES[mode]}: the direction of W approaches W_svm, and its "
            "part in S_fin approaches W_fin."))
    yield element("h3", "Contexts that training has not seen")
    yield draw("predictions.png", SOURCES["predictions.png"])
    yield from _contexts(found)


def _attention(snapshots: Found) -> Markup:
    """Attention between the tokens that are shown, at the steps of training, and its limit; the modes by buttons."""
    maps = {MODES[mode]: [(f"attention, {SHORT[mode]}", frames), ("its limit", snapshots["limit"])]
            for mode, frames in snapshots["trained"].items()}
    rows = f" Of the rows {', '.join(snapshots['open'].value)} samples do not determine the whole limit." \
        if snapshots["open"] else ""
    return page.heat_maps(
        maps, snapshots["words"], dict.fromkeys(maps, ("last token", "attended token")), element(
            "span", "Attention of each last token in a context that holds once every token that it ranks. Red is "
            "attention, on one scale for all steps. Look how each row leaves all tokens but those of its highest SCC, "
            f"as the limit has it.{rows} ", element("span", SOURCES["predictions.png"], class_="source")), steady=True)


def _contexts(found: Found) -> Iterator[Markup]:
    medians = found["median total variation"]
    kinds = [status for status in STATUSES if any(status in at for _, at in medians.items())]
    if kinds:
        yield page.table(["contexts", *(f"{SHORT[mode]}, median" for mode in medians.value), "meaning"],
                         [[status, *(at[status].shown(tiny) for _, at in medians.items()), MEANING[status]]
                          for status in kinds],
                         caption="Total variation between trained attention and the predicted limit.")
    words, rows = found["vocabulary"].value, []
    for one in list(found["contexts"])[:N_CONTEXTS]:
        shown = [str(token) if words is None else words[token] for token in one["context"].value]
        limit = [value.number for value in one["limit"]]
        places = [place for place in sorted(range(len(limit)), key=limit.__getitem__, reverse=True) if limit[place] > 0]
        for k, place in enumerate(places[:3]):
            token = one["tokens"][place].value
            rows.append([" ".join(shown) if not k else "", one["status"].value if not k else "",
                         str(token) if words is None else words[token], one["limit"][place].shown(),
                         *(attention[place].shown() for _, attention in one["trained"].items())])
    if rows:
        modes = [SHORT[mode] for mode in found["contexts"][0]["trained"].value]
        yield page.table(["context", "status", "token", "limit", *modes], rows, caption="Attention in some held-out "
                         "contexts, predicted (limit) and trained: look for rows whose numbers agree.")
