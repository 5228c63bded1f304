"""The page of ``minitx language-model``: models beside the leading terms of a text, from what results.json holds."""

from collections.abc import Callable, Iterator
from typing import Any

from minitx.base import page
from minitx.base.page import Found, Markup, element, source, text

SOURCES = {
    "states.png": source("Cosine of token covariances with that of Φᵀ Bᵀ, as published and centred over tokens (CKA)",
                         "minitx.language_model.comparison.published", "minitx.language_model.comparison.centred"),
    "maps.png": source("The same of mean query-key maps beside Q, and of their entries",
                       "minitx.language_model.comparison.map_cosine"),
    "heads.png": source("z: standard deviations above permuted tokens", "minitx.language_model.compare_layers")}


def inside(found: Found, draw: Callable[..., Markup]) -> Iterator[Any]:
    """What the models' states and maps have of the text, and the neighbours of some words in both."""
    yield text("A trained model is set beside a text: do its layers hold the associations of the text between its ",
               found["text"]["tokens"].shown(","), " most frequent tokens? The published cosine is high "
               "whichever token is which; the one that is centred over tokens tells them apart.")
    records = found["models"][-1]["records"]
    best = max((one for one in records if one["part"].value == "after"), key=lambda one: one["centred"]["z"].number)
    yield page.headline(best["centred"]["value"].shown(), f"is the centred cosine of the states of "
                        f"{found['models'][-1]['name'].value} with the text after layer ", best["layer"].shown("d"),
                        ", the one with the largest z: ", best["centred"]["z"].shown(".1f"),
                        " standard deviations above permuted tokens. The published cosine there is ",
                        best["published"]["value"].shown(), ".")
    for name, equation in SOURCES.items():
        yield draw(name, equation)
    yield element("h3", "Neighbours of words")
    yield page.table(["token", "in the", "nearest tokens"], [
        [word if side == "text" else "", side, " ".join(near.value)]
        for word, sides in found["neighbours"].items() for side, near in sides.items()])
