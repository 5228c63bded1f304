"""The part of the page that tells of topics: the stages beside their closed forms, from what results.json holds."""

from collections.abc import Callable, Iterator
from typing import Any

from minitx.base import page
from minitx.base.page import Found, Markup, element, source, text
from minitx.topics.training import BLOCK_FIELDS, CLASSES

ID = "topics"
TITLE = "Topics: words of one topic have more in common than words of two"
PART = {"value": "value", "embedding": "embedding"}  # of the records of a stage; others are about attention
# {part: (what the map of a stage shows, what a row is, what a column is)}
MAPS = {"value": ("W_V", "word that is predicted", "word that is shown"), "embedding": ("Eᵀ E", "word", "word"),
        "cosine": ("cosines of embeddings", "word", "word"),
        "attention": ("log2 of attention over uniform attention", "word that attends", "attended word")}
BY_CLASS = source("Averages by class of word pair", "minitx.topics.pair_averages")
SOURCES = {
    "value": source("W_V = C M⁺; after k steps λ = (C/M) (1 − (1 − 2 η M)ᵏ)", "minitx.topics.optimal_value",
                    "minitx.topics.value_after"),
    "embedding": source("Eᵀ E where descent first rests, and where it ends", "minitx.topics.gram_plateau",
                        "minitx.topics.optimal_gram"),
    "attention": source("Attention α : β : 1 to the same word, topic, another topic", "minitx.topics.attention_profile",
                        "minitx.topics.optimal_ratio"),
    "copying": source("The best α and β with a trained W_V", "minitx.topics.optimal_attention"),
    "joint": source("Averages of attention by class of word pair", "minitx.topics.attention_table"),
    "attention_loss": source("Loss as a function of α and β", "minitx.topics.attention_loss"),
    "attention_ratio": source("The loss depends on one ratio ρ where W_V = W_∞", "minitx.topics.optimal_ratio"),
    "two_limits": source("C (M + λ)⁻¹, and its limits in either order", "minitx.topics.ridge_value",
                         "minitx.topics.paper_value", "minitx.topics.other_limit_value"),
    "two_stages": source("Movement of each part; spread of attention within each class", "minitx.topics.training.train",
                         "minitx.topics.pair_spread"),
    "permutations": source("Same topic minus different topic under shuffled topics", "minitx.topics.permutation_test"),
    "cosines": source("Cosines of the columns of W_E", "minitx.topics.cosine_matrix"),
    "averages": BY_CLASS}


def inside(found: Found, draw: Callable[..., Markup]) -> list[Any]:
    """The page of ``minitx topics``: of a TEXT, of the embeddings of a model, or of documents of known topics."""
    return [part(found, draw)]


def part(found: Found, draw: Callable[..., Markup]) -> Markup:
    """The part of a text, if topics of one were tested, or else of documents of known topics."""
    if "tests" in found:
        return page.part(TITLE, text(
            "Topics are fitted to the text; the question is whether words of one topic have more in common than words "
            "of different topics. Shuffled topics show what chance gives."), *headlines(found), *_of_text(found, draw),
            id_=ID)
    return page.part(TITLE, *_about(found), *headlines(found), *_stages(found, draw), *_assumptions(found, draw),
                     *_limits(draw), id_=ID)


def _about(found: Found) -> Iterator[Markup]:
    asked = found["configuration"]
    yield text("Documents mix a few of ", asked["topics"].shown(","), " topics of ", asked["words"].shown(","),
               " words each; some of their words are hidden, and one attention layer fills them in. It is trained in "
               "stages: the value matrix W_V alone, the embeddings E alone, then attention. What is learned has "
               "blocks: one value for the same word, one for two words of a topic, one for words of different topics.")


def headlines(found: Found) -> Iterator[Markup]:
    """Attention on infinite documents and the trained value matrix, each beside its closed form; of a text, its tests.
    """
    if "tests" in found:
        for name, test in found["tests"].items():
            yield page.headline(test["p_value"].shown(".2g"), f"is the p-value of {name}: the share of shuffles of the "
                                "words' topics with a larger difference. The difference is ",
                                test["difference"].shown(), ", ", test["z"].shown(".1f"),
                                " standard deviations above chance.")
        return
    infinite = found["infinite"]
    if infinite and infinite["path"] and infinite["predicted"]:
        yield page.headline(infinite["path"][-1]["rho"].shown(), "is the ratio of attention to the same topic over "
                            "attention to another, trained on infinitely long documents. Theory predicts ",
                            infinite["predicted"]["rho"].shown(), ".")
    stages = found["stages"]
    if "value" in stages and "closed form, end of descent" in stages["value"]["closed"] and \
            stages["value"]["at end"]:
        end, closed = stages["value"]["at end"]["same topic"], stages["value"]["closed"]["closed form, end of descent"]
        yield page.headline(end[0].shown(), "is the mean entry of the trained W_V between two words of a topic (first "
                            "seed). Its closed form is ", closed["same topic"].shown(), "; between words of different "
                            "topics training has ", stages["value"]["at end"]["different topic"][0].shown(),
                            ", and the closed form ", closed["different topic"].shown(), ".")


def _stages(found: Found, draw: Callable[..., Markup]) -> Iterator[Any]:
    for name, stage in found["stages"].items():
        title, _, how = stage["title"].value.partition(";")
        yield element("h3", title[:1].upper() + title[1:])
        yield draw(f"{name}_matrix.png", SOURCES[name])
        yield draw(f"{name}_training.png", SOURCES[name])
        words = ", of which 2.1 is the first of topic 2 (first seed)"
        moving = _moving(stage["records"][0], stage["snapshots"], PART.get(name, "attention"), words
                         ) if stage["records"] else Markup("")
        yield moving if name == next(iter(found["stages"].value)) else page.folded("Move through this training", moving)
        yield from _closed_forms(stage)


def _moving(records: Found, snapshots: Found, part: str, words: str) -> Markup:
    """A slider through training: the map between some words of each topic, and the averages at each recorded step."""
    if not records:
        return Markup("")
    steps = [record["step"].value for record in records]
    rows = [[record["step"].shown(","), record["loss"].shown(".5f"),
             *(record[part][field].shown(".5f") for field in CLASSES.values())] for record in records]
    averages = page.table(["step", "loss", *CLASSES], rows, steps=steps,
                          caption="Averages over pairs of words at each recorded step.")
    title, row, column = MAPS[part]
    maps = [(f"{title}, as trained", snapshots["trained"])]
    if snapshots["predicted"]:
        maps.append((f"{title}, as predicted for the end", snapshots["predicted"]))
    caption = element("span", f"Between the first words of each topic{words}. Red is above 0 and blue below, on "
                      "one scale for all steps. Look for red squares on the diagonal: they show how words of one topic "
                      "come to have more in common while training goes on. ",
                      element("span", BY_CLASS, class_="source"))
    return page.moved(steps, page.heat_maps({title: maps}, snapshots["words"], {title: (row, column)}, caption,
                                            steady=True), averages)


def _closed_forms(stage: Found) -> Iterator[Markup]:
    """The table of the closed forms of a stage, if it has any."""
    forms = [(label, form) for label, form in stage["closed"].items() if all(block in form for block in CLASSES)]
    if forms:
        blocks = [block for block in BLOCK_FIELDS if all(block in form for _, form in forms)]
        yield page.table(["closed form", *blocks], [[label, *(form[block].shown(".5f") for block in blocks)]
                                                    for label, form in forms])


def _assumptions(found: Found, draw: Callable[..., Markup]) -> Iterator[Any]:
    """Joint training beside what the analysis assumes: two stages, and three values of attention."""
    if "joint" in found["stages"]:
        yield element("h3", "Two stages, three values of attention?")
        yield draw("two_stages.png", SOURCES["two_stages"])


def _limits(draw: Callable[..., Markup]) -> Iterator[Any]:
    yield element("h3", "The loss of attention, and two limits that do not commute")
    for name in ("attention_loss", "attention_ratio", "two_limits"):
        yield draw(f"{name}.png", SOURCES[name])


def _of_text(found: Found, draw: Callable[..., Markup]) -> Iterator[Any]:
    """The topics of a text, what the model learned of them, and how surely that is more than chance."""
    if "topics" in found:
        yield page.table(["topic", "share", "words"], [
            [str(place), topic["share"].shown(".0%"), " ".join(topic["words"].value[:8]) or "(none)"]
            for place, topic in enumerate(found["topics"])],
            caption="The topics of the text, most probable words first.")
    if "held_out_loss" in found:
        yield page.table(["loss of held-out documents", "nats a masked word"],
                         [[when, loss.shown()] for when, loss in found["held_out_loss"].items()])
    yield page.table(["mean of", *CLASSES, "same topic minus different"], [
        [name, *(one[field].shown() for field in CLASSES.values()), found["tests"][name]["difference"].shown()]
        for name, one in found["averages"].items()], caption="Averages over pairs of words.")
    for name, kind in (("permutations", "permutations"), ("cosines", "cosines"), ("attention", "averages"),
                       ("cosines_training", "averages"), ("attention_training", "averages")):
        yield draw(f"{name}.png", SOURCES[kind])
    for stage, part in (("embeddings", "cosine"), ("attention", "attention")):
        if "snapshots" in found and stage in found["snapshots"]:
            yield element("h3", f"Move through the training of {stage}")
            yield _moving(found["records"][stage], found["snapshots"][stage], part, "")
