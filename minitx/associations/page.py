"""The part of the page that tells of associations: pictures, tables and words, from what results.json holds.

Every number stands in results.json; :class:`minitx.base.page.Found` writes it with its place there.
"""

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

from minitx.associations.term_names import term_order
from minitx.base import page
from minitx.base.page import Found, Markup, element, source, text

ID = "associations"
TITLE = "Associations: what a text alone says about the weights"
LEADING = "minitx.associations.leading_weights"
NEAR = 0.9  # cosines from which on a leading term is near to the trained weight
# {kind of weight: (what a row is, what a column is, statistic, what it is a multiple of early in training)}
STATISTICS = {
    "W_O": ("current token", "next token", "bigram", "s η B"),
    "V": ("attended token", "current token", "value", "C(s,2) η² Φᵀ Bᵀ"),
    "W": ("query (current) token", "key (attended) token", "attention", "(3 C(s,4) + 2 C(s,3)) η⁴ Q")}
FUNCTIONS = {
    "bigram": "follow it, by the entries of B",
    "interchangeability": "can take its place, by cosines of columns of B (Σ_B = Bᵀ B)",
    "context": "keep its company, by cosines of profiles of Φ"}
SOURCES = {
    "cosines.png": source("Cosine of W_O with s η B, of V with C(s,2) η² Φᵀ Bᵀ, and of W and P with multiples of Q and "
                          "Δ (Theorem D.7)", LEADING, "minitx.associations.reduced.descend",
                          "minitx.associations.reference_dynamics.reference"),
    "gradient_terms.png": source("Gradient = leading term + saturation + attention drift + weight drift + products of "
                                 "these (proof of Theorem D.7)", "minitx.associations.gradient_terms"),
    "corrections.png": source("|correction| / |leading term|", "minitx.associations.first_exceeds"),
    "interventions.png": source("Loss of W − ⟨W, L⟩ L / |L|², where L is the leading term (Table 3)",
                                "minitx.associations.interventions"),
    "bigram.png": source("B[a, b] = P(a, then b) − α_a / V", "minitx.associations.statistics"),
    "interchangeability.png": source("Σ_B = Bᵀ B", "minitx.associations.statistics"),
    "context.png": source("Φ[b, a] = P(b is next, a before it) − μ_a", "minitx.associations.statistics"),
    "attention.png": source("Q, the gradient of the scores where V W_O = Φᵀ Σ_B (Theorem D.7)",
                            "minitx.associations.statistics")}


def part(found: Found, draw: Callable[..., Markup]) -> Markup:
    """The part of a run; of counts, which train nothing, the words and the statistics alone."""
    trained = list(_trained(found, draw)) if "records" in found and found["records"] else []
    return page.part(TITLE, *_about(found), *headlines(found), *trained,
                     *_words(found), *_statistics(draw), id_=ID)


def inside(found: Found, draw: Callable[..., Markup]) -> list[Any]:
    """The page of ``minitx associate``."""
    return [part(found, draw)]


def _about(found: Found) -> Iterator[Markup]:
    corpus = found["corpus"]
    yield text("A text of ", corpus["windows"].shown(","), " windows of ", corpus["length"].shown(","),
               " + 1 tokens, with a vocabulary of ", corpus["vocabulary"].shown(","), " tokens. Three of its "
               "statistics predict what one attention layer learns first: which token follows which (bigram B), which "
               "tokens can take each other's place (interchangeability Σ_B), and which keep company (context Φ).")
    if "records" in found:
        yield text("The layer is trained to predict the next token, from zero weights, by explicit gradient descent on "
                   "the mean cross-entropy. Its weights are the output matrix W_O, the value matrix V, the attention "
                   "matrix W and the attention to positions P.")


def headlines(found: Found) -> Iterator[Markup]:
    """How well each theory predicts the trained weights at the end; nothing where nothing was trained."""
    if "records" not in found or not found["records"]:
        return
    records = found["records"]
    key, walked = ("reduced", "reduced dynamics") if "reduced" in found else ("reference", "reference dynamics")
    if len(found[key]) and found[key][-1].value is not None:
        yield page.headline(_lowest(found[key][-1]["cosine"]).shown(), "is the lowest cosine of a trained weight "
                            "after ", records[-1]["step"].shown(","), f" steps with what {walked} predict, which never "
                            "compute the output of a position. 1 is perfect agreement.")
    near = list(takewhile(lambda record: _lowest(record["cosine"]).number >= NEAR, records))
    until = [f" It is at least {NEAR:g} up to step ", near[-1]["step"].shown(","), "."] if near else []
    yield page.headline(_lowest(records[-1]["cosine"]).shown(), "is the lowest cosine of a trained weight after ",
                        records[-1]["step"].shown(","), " steps with its leading term, a formula of the statistics "
                        "that holds early in training.", *until)


def _trained(found: Found, draw: Callable[..., Markup]) -> Iterator[Any]:
    records, steps = found["records"], [record["step"].value for record in found["records"]]
    yield draw("cosines.png", SOURCES["cosines.png"])
    if "snapshots" in found and found["snapshots"]:
        yield element("h3", "Watch the weights become statistics")
        defined = [place for place, record in enumerate(records) if "NaN" not in record["cosine"].value.values()]
        yield page.moved(steps, _maps(found["snapshots"]), _cosines(records, steps), start=defined[0] if defined else 0)
    yield element("h3", "Where the theory ends, and why")
    yield draw("gradient_terms.png", SOURCES["gradient_terms.png"])
    yield draw("corrections.png", SOURCES["corrections.png"])
    yield _split(found["split"])
    yield _crossings(found["first_exceeds"])
    if found["interventions"]:
        yield element("h3", "What the leading terms are worth")
        yield draw("interventions.png", SOURCES["interventions.png"])


def _lowest(cosines: Found) -> Found:
    """The lowest of the cosines that are defined."""
    defined = (one for _, one in cosines.items() if one.value != "NaN")
    return min(defined, key=lambda one: one.number, default=cosines["W_O"])


def _maps(snapshots: Found) -> Markup:
    groups, axes = {}, {}
    for name, frames in snapshots["trained"].items():
        row, column, statistic, multiple = STATISTICS[name.split()[0]]
        groups[name] = [(f"{name} as trained", frames), (f"what the text says: {multiple}",
                                                         snapshots["statistics"][statistic])]
        axes[name] = row, column
    return page.heat_maps(groups, snapshots["words"], axes, element(
        "span", "Red is above 0 and blue below; colours are logarithmic, and each map has a scale of its own. Look how "
        "the pattern that the text gives before any training appears in the trained weight; move the slider to see "
        "what later differs. ",
        element("span", source("Leading terms (Theorem D.7)", LEADING), class_="source")))


def _cosines(records: Found, steps: list[int]) -> Markup:
    names = list(records[-1]["cosine"].value)
    rows = [[record["step"].shown(","), record["loss"].shown(), *(record["cosine"][name].shown() for name in names)]
            for record in records]
    return page.table(["step", "loss", *names], rows, steps=steps,
                      caption="Cosine of each trained weight with its leading term, and the loss in nats a token.")


def _split(split: Found) -> Markup:
    names = sorted({name for _, parts in split.items() for name in parts["terms"].value}, key=term_order)
    rows = [[name, *(parts["terms"][name].shown(".3e") if name in parts["terms"] else "–"
                     for _, parts in split.items())] for name in names]
    rows.append(["exact gradient", *(parts["gradient"].shown(".3e") for _, parts in split.items())])
    rows.append(["digits to which terms sum to it", *(parts["digits"].shown(".1f") for _, parts in split.items())])
    return page.table(["term", *split.value], rows, caption="The exact gradient after the last step, term by term "
                      "(Frobenius norms). The largest correction says why the leading terms end.")


def _crossings(crossings: Found) -> Markup:
    if not crossings:
        return Markup("")
    shares = list(next(iter(next(iter(crossings.value.values())).values())))
    rows = [[f"{parameter}: {correction}", *(at[share].shown(".1f") for share in shares)]
            for parameter, found in crossings.items() for correction, at in found.items()
            if " x " not in correction and any(step is not None for step in at.value.values())]
    return page.table(["correction", *(f"{float(share):.0%}" for share in shares)], rows,
                      caption="Step at which a correction (products left out) first exceeds these shares of the "
                      "leading term (between recorded steps: interpolated).")


def _words(found: Found) -> Iterator[Markup]:
    if "nearest" not in found:
        return
    nearest = found["nearest"]
    yield element("h3", "Words that go together")
    yield text("These statistics need no training. Type a word, and click one of its associates to go on.")
    asked = [word for word in found["associates"].value if word in nearest["words"].value]
    yield page.search(nearest["words"], nearest["functions"], FUNCTIONS, (asked or nearest["words"].value)[0])


def _statistics(draw: Callable[..., Markup]) -> Iterator[Any]:
    names = ("bigram.png", "interchangeability.png", "context.png", "attention.png")
    yield element("h3", "The statistics themselves")
    for name in names:
        yield draw(name, SOURCES[name])
