"""``minitx report``: three theories, one page and one file of results."""

import json
from dataclasses import replace

import pages
import pytest

from minitx import cli
from minitx.base.command import Outcome
from minitx.report import command

SMALL = {"next_token": {"steps": 30, "contexts": 20}, "associations": {
    "vocabulary": 9, "length": 4, "windows": 6, "steps": 3}, "topics": {
    "quick": True, "topics": 3, "words": 2, "documents": 40, "length": "8"}}
OF_TEXT = SMALL | {"next_token": SMALL["next_token"] | {"vocabulary": 12, "length": 6}, "topics": {
    "vocabulary": 40, "length": 16, "steps": 6, "attention_steps": 4, "topics": 2, "permutations": 9}}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(command, "THEORIES", tuple(
        replace(theory, known=replace(theory.known, settings=SMALL[theory.key]),
                of_text=replace(theory.of_text, settings=OF_TEXT[theory.key])) for theory in command.THEORIES))


def read(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_three_theories_are_on_one_page(small, tmp_path, capsys):
    assert cli.main(["report", "--out", str(tmp_path), "--seed", "3"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "results.json"}
    page, results = pages.check(tmp_path), read(tmp_path)
    assert {"associations", "topics", "next-token"} <= set(page.ids)
    assert len(page.functions) > 15
    assert set(SMALL) <= set(results)
    for key, small_options in SMALL.items():
        assert results[key]["configuration"]["seed"] == 3
        assert small_options.items() <= results[key]["configuration"].items()
    pages.check_keys(results, command.run)
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("1 of 3  next token")
    assert "theory predicts" in out and "lowest cosine" in out
    assert out.splitlines()[-1].endswith(f"Open {tmp_path / 'index.html'} in a browser.")


FARM = "the hungry farmer fed a cow and a horse on the green farm . the cow and the horse ate grass of the farm ."
SEA = "the brave sailor took a ship and a boat on the blue sea . the ship and the boat crossed waves of the sea ."
TEXT = f"{FARM}\n{SEA}\n{FARM} {SEA}\n"


def test_every_theory_is_given_the_text(tmp_path, monkeypatch):
    """Nothing is trained here: the run of each theory keeps which text it was told to train on."""
    text, given = tmp_path / "text.txt", {}
    text.write_text(TEXT)

    def keeping(key):
        return lambda options, say: given.update({key: options.text}) or Outcome("", {})

    monkeypatch.setattr(command, "THEORIES", tuple(
        replace(theory, of_text=replace(theory.of_text, run=keeping(theory.key))) for theory in command.THEORIES))
    outcome = command.run(command.Options(text=str(text)), lambda line: None)
    assert given == dict.fromkeys(("associations", "topics", "next_token"), str(text))
    assert [outcome.results[key]["text refused"] for key in given] == [None] * 3


@pytest.mark.slow  # the test before it has the same promise, without training
def test_a_text_is_what_every_theory_is_trained_on(small, tmp_path, capsys):
    """Topics are fitted to it if there is scikit-learn; without it the page and the terminal say why they are not."""
    text, folder = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(TEXT * 40)
    assert cli.main(["report", str(text), "--out", str(folder)]) == 0
    pages.check(folder)
    results = read(folder)
    assert results["associations"]["corpus"]["name"] == "text.txt"
    assert "farm" in results["next_token"]["vocabulary"]
    for theory in ("associations", "next_token"):
        assert results[theory]["text refused"] is None
    if results["topics"]["text refused"] is None:
        assert {"cow", "ship"} <= set(results["topics"]["vocabulary"])
        assert results["topics"]["snapshots"]["attention"]["words"]
    else:
        assert "scikit-learn" in results["topics"]["text refused"]


def refuses(options, say):
    raise ValueError("n_topics is 2, but 0 topics have words")


def test_a_theory_that_refuses_the_text_is_trained_without_it():
    lines, done = [], Outcome("", {})
    topics = next(one for one in command.THEORIES if one.key == "topics")
    theory = replace(topics, of_text=replace(topics.of_text, run=refuses),
                     known=replace(topics.known, run=lambda options, say: done))
    configuration, outcome, refused = command._train(theory, command.Options(text="my.txt"), "3 of 3  ", lines.append)
    assert outcome is done
    assert refused == "minitx topics cannot use my.txt: --topics is 2, but 0 topics have words"
    assert lines == [f"3 of 3  {topics.of_text.says}", f"        {refused}", f"        {topics.known.says}"]
    assert not hasattr(configuration, "text")


@pytest.mark.slow  # the test before it has the same promise, without a page
def test_the_page_says_why_a_theory_could_not_use_the_text(small, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "THEORIES", tuple(
        replace(theory, of_text=replace(theory.of_text, run=refuses)) if theory.key == "topics" else theory
        for theory in command.THEORIES))
    text, folder = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(TEXT * 9)
    assert cli.main(["report", str(text), "--out", str(folder)]) == 0
    pages.check(folder)
    results = read(folder)
    assert f"and not on the text: {results['topics']['text refused']}." in (folder / "index.html").read_text()
    assert results["topics"]["stages"]


@pytest.mark.slow  # base/test_page.py has such words on a page that nothing was trained for
def test_words_of_a_text_that_look_like_html_stay_words(small, tmp_path):
    """The reader keeps words and signs apart; what looks like an element must stay text on the page all the same."""
    text = tmp_path / "text.txt"
    text.write_text("</script> <b> bold </b> &amp; <script>alert(1)</script> the cat sat . the dog ran .\n" * 40)
    assert cli.main(["report", str(text), "--out", str(tmp_path / "out")]) == 0
    page, results = pages.check(tmp_path / "out"), read(tmp_path / "out")
    assert "<" in results["associations"]["vocabulary"]
    assert results["associations"]["corpus"]["name"] == "text.txt"
    assert not [tag for tag in page.tags if tag == "b"]


@pytest.mark.slow
def test_a_quick_run_is_whole(tmp_path):
    assert cli.main(["report", "--quick", "--out", str(tmp_path)]) == 0
    pages.check(tmp_path)
    assert read(tmp_path)["topics"]["configuration"]["quick"]
