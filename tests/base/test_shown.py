"""What a public function returns shows itself on a line, or as a small table, whatever its arrays hold."""

from dataclasses import dataclass

import numpy as np
import pages
import pytest

import minitx
from minitx.base.shown import Shown, brief


@dataclass(frozen=True, eq=False)
class Found(Shown):
    """Arrays, and other things."""

    W: np.ndarray
    parts: dict
    words: tuple
    other: object = None


def test_arrays_are_shown_by_shape_dtype_and_norm_and_long_things_by_their_length():
    found = Found(np.full((300, 200), 0.5), {1: np.arange(3)}, tuple("abcdefg"), Found(np.ones(3), {}, ()))
    assert repr(found) == ("Found(W=<300 x 200 float64, norm 122.5>, parts={1: <3 int64>}, words=<tuple of 7>, "
                           "other=Found(W=<3 float64, norm 1.732>, parts={}, words=tuple(), other=None))")


@pytest.mark.parametrize(("value", "shown"), [
    (0.1 + 0.2, "0.3"), ("word", "'word'"), (None, "None"), ("x" * 1000, "<str>"), ([1, 2.0], "list(1, 2)"),
    (np.array([]), "<0 float64>"), (np.array([1e200, np.inf]), "<2 float64, norm inf>"), (np.array(["a"]), "<1 <U1>"),
    ({k: np.ones((9, 9)) for k in range(5)}, "{" + ", ".join(f"{k}: <9 x 9 float64, norm 9>" for k in range(5)) + "}"),
    ({k: "x" * 50 for k in range(5)}, "<dict of 5>"),
])
def test_one_value(value, shown):
    assert brief(value) == shown


def test_a_repr_of_its_own_is_kept():
    class Other(Shown):
        def __repr__(self):
            return "mine"

    assert repr(Other()) == "mine"


def results():
    """{name: a result} of public functions at sizes at which arrays would fill the screen."""
    corpus = minitx.builtin_corpus("stories", n_vocab=300, length=16, n_windows=16)
    batch, start = corpus.batch(), minitx.OneHotWeights.zeros(300, 16)
    run = minitx.descend(start, batch, learning_rate=1.0, steps=1, keep=(0, 1))
    statistics = minitx.associations.statistics(batch, 300)
    leading = minitx.associations.leading_weights(statistics, steps=1, learning_rate=1.0)
    law = minitx.next_token.PriorityLaw.random(6, rng=0)
    drawn = law.samples(100, 4, rng=0)
    samples = minitx.Samples.of(drawn.sequences, drawn.labels, 6)
    automaton = minitx.next_token.Automaton.fit(samples)
    setting = minitx.topics.TopicModel(10, 10, 64, tau=2)
    documents = setting.documents(100)
    return {
        "corpus": corpus, "batch": batch, "weights": start, "circuits": start.circuits(), "run": run,
        "statistics": statistics, "agreement": minitx.agreement(run.weights, leading),
        "bounds": minitx.associations.bounds(steps=1, learning_rate=1.0, length=16, n_vocab=300),
        "expansion": minitx.associations.expand(batch, 300, order=2),
        "reduction": minitx.associations.reduced.reduce(batch, 300),
        "terms": minitx.gradient_terms(run.weights, batch), "law": law, "drawn": drawn, "samples": samples,
        "automaton": automaton, "split": automaton.split, "svm": automaton.svm, "soft": automaton.soft,
        "residual": automaton.residual, "prediction": automaton.predict([0, 1, 2]),
        "graph": automaton.split.graphs[0], "subspace": automaton.split.subspace, "setting": setting,
        "documents": documents, "masked": setting.mask(documents), "blocks": minitx.topics.optimal_value(setting),
        "moments": minitx.topics.moments(setting), "attention": minitx.topics.optimal_ratio(setting),
        "pairs": minitx.topics.attention_table(minitx.EmbeddedWeights(W_E=np.eye(101)), documents),
    }


def test_results_are_shown_on_few_lines():
    for name, result in results().items():
        lines = repr(result).splitlines()
        assert len(lines) <= 12, name
        assert max(map(len, lines)) <= 1000, name
        assert "array(" not in repr(result), name


def test_a_notebook_shows_a_table_of_the_fields():
    """Text of a field is text; what is long is short, as on the line."""
    html = Found(np.full((300, 200), 0.5), {"<b>": 1}, ("</td>",))._repr_html_()
    page = pages.Page(html)
    assert page.tags == ["table", "caption", *["tr", "th", "td"] * 4]
    assert page.prose == ["Found", "W", "<300 x 200 float64, norm 122.5>", "parts", "{'<b>': 1}", "words",
                          "tuple('</td>')", "other", "None"]
    assert "norm" in minitx.OneHotWeights.zeros(n_vocab=3, length=2)._repr_html_()
