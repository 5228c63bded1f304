"""The page: text is escaped, numbers name their place, figures are inside, nothing is outside."""

import json

import numpy as np
import pages
import pytest
from matplotlib.figure import Figure

from minitx.base import page, parallel, svg
from minitx.base.page import Found, Markup, element

NASTY = ["</script>", "<b>bold</b>", "&amp;", '"quoted"', "fish", "<!--", "]]>"]


def results():
    n = len(NASTY)
    frames = [[[round(float(np.sin(k + 3 * i - j)), 4) for j in range(n)] for i in range(n)] for k in range(3)]
    nearest = {"tokens": [[(i + 1) % n, (i + 2) % n] for i in range(n)], "scores": [[0.5, 0.25]] * n}
    return {"words": NASTY, "steps": [1, 5, 10], "loss": [3.25, 2.125, "NaN"], "frames": frames, "still": frames[0],
            "nearest": {"bigram": nearest, "context": nearest}, "none": None, "a/b~c": {"x": -0.00123}}


def curve():
    """Two panels, a curve in each, on a logarithmic axis below; labels of letters that SVG would read as markup."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    above, below = figure.subplots(1, 2)
    above.plot([1, 2, 3], [1, np.nan, 2], label="a <b> & c")
    below.plot([0, 1, 10], [4, 5, 6], label="$W_O$")
    below.plot([1, 2], [1, 2])
    below.set_xscale("log")
    figure.suptitle("<title> -- of two")
    return figure


def written(folder):
    """A page with everything on it, and its results.json."""
    made = {"one.png": (curve(), "A caption <i>.")}
    found = Found(results() | {"curves": svg.values(made)})
    (folder / "results.json").write_text(json.dumps(found.value))
    rows = [[step.shown("d"), loss.shown(".2f")] for step, loss in zip(found["steps"], found["loss"], strict=True)]
    maps = page.heat_maps({"W": [("trained", found["frames"]), ("known", found["still"])], "V": [
        ("again", found["frames"])]}, found["words"], {"W": ("from", "to"), "V": ("a", "b")}, "A caption.")
    inside = [page.part("One & two", page.headline(found["loss"][0].shown(), "is the loss."),
                        page.moved([1, 5, 10], maps, page.table(["step", "loss"], rows, steps=[1, 5, 10])),
                        page.search(found["words"], found["nearest"],
                                    {"bigram": "follow", "context": "company"}, "fish"),
                        svg.figures(made)("one.png", page.source("L", "minitx.loss_and_gradient")),
                        svg.figures(made)("absent.png"), id_="all"), page.folded("more", "a line <b>")]
    page.write(folder / page.FILE, "A <title>", inside)


def several():
    """{name: (figure, caption)} of four figures."""
    made = {}
    for k in range(4):
        figure = Figure(figsize=(3, 2), layout="constrained")
        figure.subplots().plot([1, 10], [1, 10.0**k], label=f"$W_{k}$")
        made[f"{k}.png"] = (figure, f"Caption {k}.")
    made["2.png"][0].axes[0].set_yscale("log")
    return made


@pytest.mark.drawn
def test_figures_have_the_same_bytes_for_any_number_of_processes(tmp_path):
    drawings = []
    for threads in (1, 2, 3):
        parallel.set_threads(threads)
        made = several()
        draw = svg.figures(made, folder=tmp_path)
        drawings.append([(draw(name), (tmp_path / name).read_bytes()) for name in made])
    assert drawings[0] == drawings[1] == drawings[2]
    assert len(set(drawings[0])) == 4


@pytest.mark.drawn
@pytest.mark.parametrize("threads", [1, 2])
def test_a_figure_that_cannot_be_drawn_is_an_error(tmp_path, threads):
    parallel.set_threads(threads)
    made = several()
    made["3.png"][0].suptitle(r"$\unknown$")
    with pytest.raises(ValueError, match="unknown"):
        svg.figures(made, folder=tmp_path)
    found, others = {path.name for path in tmp_path.iterdir()}, {"0.png", "1.png", "2.png"}
    assert found == others if threads == 1 else found <= others  # an error ends the other process at once


@pytest.mark.drawn
def test_a_page_with_everything_is_whole(tmp_path):
    written(tmp_path)
    found = pages.check(tmp_path)
    assert ("data-key", "/loss/0") in found.numbers[0][0].items()
    drawing = next(data for kind, data in found.data if kind == "drawing")
    assert [(one["label"], [point[2:] for point in one["points"]]) for one in drawing] == [
        ("a <b> & c", [["1", "1"], ["3", "2"]]), ("$W_O$", [["1", "5"], ["10", "6"]])]


@pytest.mark.drawn
def test_points_of_curves_are_where_they_are_drawn():
    """The first curve ascends, so its points go to the right and up; they are inside its panel."""
    inside = svg.drawn(curve(), "f")
    one, _ = next(data for kind, data in pages.Page(f'<div class="x">{inside}</div>').data if kind == "drawing")
    left, top, right, bottom = one["panel"]
    (x0, y0, *_), (x1, y1, *_) = one["points"]
    assert left <= x0 < x1 <= right and top <= y1 < y0 <= bottom
    assert "http" not in inside and "<!--" not in inside and "of two" not in inside


@pytest.mark.drawn
def test_ids_of_two_figures_differ_and_all_that_are_used_are_there():
    both = svg.drawn(curve(), "f0") + svg.drawn(curve(), "f1")
    found = pages.Page(f"<div>{both}</div>")
    assert len(found.ids) == len(set(found.ids))
    assert {reference.lstrip("#") for reference in found.references if reference.startswith("#")} <= set(found.ids)


def test_text_is_escaped_and_markup_is_not():
    assert element("p", "<b>", Markup("<i></i>"), class_="a\"b", data_x=1, hidden=True, title=None) == \
        '<p class="a&quot;b" data-x="1" hidden>&lt;b&gt;<i></i></p>'
    for word in NASTY:
        text = page.embedded({"word": word})
        assert "<" not in text[len('<script type="application/json">'):-len("</script>")]
        assert pages.Page(f'<div class="x">{text}</div>').data == [("x", {"word": word})]


def test_numbers_have_their_value_and_their_place():
    found = Found(results())
    assert found["loss"][-1].shown() == ('<data value="NaN" data-key="/loss/2" title="results.json: /loss/2">undefined'
                                         "</data>")
    assert found["a/b~c"]["x"].pointer == "/a~1b~0c/x"
    assert found["a/b~c"]["x"].shown(".2e").startswith('<data value="-0.00123"')
    assert "−1.23e−03" in found["a/b~c"]["x"].shown(".2e")
    assert found["none"].shown().endswith(">–</data>")
    assert np.isnan(found["none"].number) and np.isnan(found["loss"][2].number)
    assert len(found["steps"]) == 3 and "steps" in found and not found["none"]


@pytest.mark.parametrize(("value", "given", "shown"), [
    (0.99994, "0.99994", "0.9998"), (1234.0, "1234.0", "1,235"), (0.5, "0.25", "0.25"), (1e-3, "0.001", "< 1e-10")])
def test_the_check_finds_numbers_that_are_wrong(value, given, shown):
    with pytest.raises(AssertionError):
        pages._check_number(value, given, shown)


@pytest.mark.parametrize("text", ["<p><b></p></b>", "<p>", "</p>"])
def test_the_check_finds_tags_that_do_not_fit(text):
    with pytest.raises((AssertionError, IndexError)):
        pages.Page(text)
