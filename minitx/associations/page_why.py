"""The page of ``minitx why``: where the association of two words comes from, from what results.json holds."""

from collections.abc import Callable, Iterator
from typing import Any

from minitx.base import page
from minitx.base.page import Found, Markup, source, text

ID = "why"
# {basis function: how it is written, and what its entry for the pair says}
FUNCTIONS = {"bigram": "B, bigram: {other} is next",
             "interchangeability": "Σ_B, interchangeability: the same words come before both",
             "context": "Φ, context: {other} is next, {word} anywhere before it"}
SOURCE = source("An entry is the sum of the parts of positions; W_O after s steps is about s η B",
                "minitx.associations.attribution", "minitx.associations.record_attribution",
                "minitx.associations.logit_parts")


def inside(found: Found, draw: Callable[..., Markup]) -> list[Any]:
    """The page."""
    word, other = (f"“{found[name].value}”" for name in ("word", "other"))
    return [page.part(f"Why {other} goes with {word}", *_about(found, word, other), *_headline(found, word, other),
                      _functions(found, word, other), *_logit(found, word, other), *_windows(found, word),
                      draw("why.png", SOURCE), id_=ID)]


def _about(found: Found, word: str, other: str) -> Iterator[Markup]:
    corpus = found["corpus"]
    yield text("In ", corpus["windows"].shown(","), " windows of ", corpus["length"].shown(","),
               f" + 1 tokens of {corpus['name'].value}: an association can come from three statistics of the text. "
               f"{other} follows {word} (bigram), the same words come before both (interchangeability), or {word} "
               f"keeps company with {other} (context). Each is a sum of parts, one for each position of the text.")
    for note in found["notes"]:
        yield text(f"{note.value[0].upper()}{note.value[1:]}.")


def _headline(found: Found, word: str, other: str) -> Iterator[Markup]:
    """The trained entry beside its leading term; without training, how often the one word follows the other."""
    if found["logit"]:
        logit = found["logit"]
        yield page.headline(logit["trained"]["W_O"].shown(".3e"), f"is the trained entry W_O[{word}, {other}]. Its "
                            "leading term, the bigram alone, is ", logit["leading"]["bigram"].shown(".3e"), ".")
    else:
        yield page.headline(found["functions"]["bigram"]["meets"].shown(","), f"is how often {other} follows {word} in "
                            "the windows.")


def _functions(found: Found, word: str, other: str) -> Markup:
    """The entry of the pair in each basis function, and what it is the sum of."""
    shown = {"entry": "+.3e", "rank": ",", "meets": ",", "positive": "+.3e", "positive windows": ",",
             "negative": "+.3e", "negative windows": ","}
    rows = [[says.format(word=word, other=other), *(found["functions"][name][key].shown(form)
                                                    for key, form in shown.items())]
            for name, says in FUNCTIONS.items()]
    return page.table(
        ["function", "entry", f"rank of {other}", "meet", "positive parts", "in windows", "negative parts",
         "in windows"], rows, caption="The entry of the pair in each statistic, and the parts that sum to it. Rank: "
        f"the place of {other} among the words that go with {word} (–: they never meet). Meet: positions where the two "
        "meet.")


def _logit(found: Found, word: str, other: str) -> Iterator[Markup]:
    """What the leading terms make of the logit, and what was trained."""
    if not found["logit"]:
        return
    leading, trained = found["logit"]["leading"], found["logit"]["trained"]
    rows = [["W_O: bigram", leading["bigram"].shown("+.3e"), trained["W_O"].shown("+.3e")],
            ["V W_O: context and interchangeability", leading["both"].shown("+.3e"), trained["V W_O"].shown("+.3e")],
            [f"of it by context: the next word is {other} itself", leading["context"].shown("+.3e"), "–"],
            ["of it by interchangeability: it is another word", leading["interchangeability"].shown("+.3e"), "–"]]
    yield page.table(["part of the logit", "leading terms", "trained"], rows, caption=f"The logit of {other} where "
                     f"{word} is the current word and has all attention, after the last step.")


def _windows(found: Found, word: str) -> Iterator[Markup]:
    """The windows that taught the pair, as text."""
    if not found["listed"]:
        yield text(f"No window adds anything to the entry of B: {word} is the current word of no position.")
        return
    against = found["side"].value < 0
    rows = [[one["window"].shown("d"), one["like it"].shown(","), one["function"].value, one["part"].shown("+.2e"),
             *([one["trained"].shown("+.2e")] if found["training"] else []), one["text"].value]
            for one in found["listed"]]
    yield page.table(["window", "others like it", "function", "its part",
                      *(["trained W_O"] if found["training"] else []), "text"], rows,
                     caption=f"The windows that taught {'the contrary' if against else 'it'}, by their part of the "
                     "function in which the pair is closest, then of the others.")
