"""``minitx why``: what it prints and writes, for pairs that meet, that never meet, and words that are none."""

import json

import numpy as np
import pages
import pytest

from minitx import cli, load_corpus
from minitx.associations import command_why, statistics

LINES = [
    "the red truck saw a cat near the house", "the blue truck saw a dog near the house",
    "the red truck saw a cat near the house", "a red ball saw the truck near a cat", "the happy dog saw a red ball",
    "the sad cat saw a blue ball"] * 2


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


@pytest.fixture
def why(text, tmp_path, capsys):
    """Run the command; returns what it printed and what it wrote."""

    def run(*typed, status=0):
        arguments = ["why", "--length", "5", *typed, "--force", "--out", str(tmp_path / "out"), str(text)]
        assert cli.main(arguments) == status
        printed = capsys.readouterr()
        if status:
            return printed.err
        return printed.out, json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))

    return run


def test_it_prints_the_windows_with_both_words_marked(why, text, tmp_path):
    printed, results = why("red", "truck", "--steps", "3")
    assert "\nred -> truck: its entry in each basis function" in printed
    assert "the [red] [truck] saw a" in printed
    assert printed.splitlines()[-1] == ("'truck' goes with 'red' by bigram above all: it is number 1 there. Open "
                                        f"{tmp_path / 'out' / 'index.html'} in a browser.")
    page = pages.check(tmp_path / "out")
    pages.check_keys(results, command_why.run)
    assert "the [red] [truck] saw a" in " ".join(page.prose)
    assert (tmp_path / "out" / "why.png").exists()
    assert (tmp_path / "out" / "weights.npz").exists()
    corpus = load_corpus(text, n_vocab=600, length=5)
    basis = statistics(corpus.batch(), len(corpus.vocabulary))
    red, truck = results["ids"]
    assert (corpus.vocabulary[red], corpus.vocabulary[truck]) == ("red", "truck")
    functions = results["functions"]
    assert functions["bigram"]["entry"] == basis.bigram[red, truck]
    assert functions["interchangeability"]["entry"] == basis.interchangeability[red, truck]
    assert functions["context"]["entry"] == basis.context[truck, red]
    for found in functions.values():
        assert found["positive"] + found["negative"] == pytest.approx(found["entry"], abs=1e-15)
    assert functions["bigram"]["rank"] == 1
    assert functions["bigram"]["meets"] == 4
    assert functions["context"]["meets"] == 6
    windows = [one["window"] for one in results["listed"]]
    assert windows[0] == 0
    assert len(set(windows)) == len(windows) <= 10


def test_each_pair_has_a_folder_of_its_own(text, tmp_path, capsys, monkeypatch):
    """A second question needs no --force; signs that a name of a folder may not have become underscores."""
    monkeypatch.chdir(tmp_path)
    for words in (["red", "truck"], ["Blue", "ball"], ["red", "<unk>", "--vocabulary", "9"]):
        assert cli.main(["why", *words, str(text), "--length", "5", "--steps", "0"]) == 0
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "minitx-why-red-truck", "minitx-why-blue-ball", "minitx-why-red-_unk_"}
    again = ["why", "--config", "minitx-why-red-truck/results.json"]
    assert cli.main(again) == 0
    assert cli.main([*again, "--length", "4"]) == 2
    assert "its length is 5, and now it is 4" in capsys.readouterr().err


def test_windows_with_the_same_words_are_told_once(why):
    _, results = why("red", "truck", "--steps", "0")
    first, = results["functions"]["bigram"]["windows"]
    assert len(first["windows"]) == 4
    assert first["text"] == "the [red] [truck] saw a cat"
    assert first["value"] == pytest.approx(4 / (12 * 5) * (1 - 1 / 14))  # of 12 windows of 5 positions, V = 14


@pytest.mark.parametrize("options", [[], ["--batch-size", "5"]])
def test_the_course_of_training_is_the_sum_of_its_parts(why, options):
    _, results = why("red", "truck", "--steps", "4", *options)
    training = results["training"]
    assert len(training["course"]) == len(training["loss"]) == 5
    summed = np.cumsum(np.add(training["positive"], training["negative"]))
    np.testing.assert_allclose(training["course"][1:], summed, rtol=1e-12)
    assert results["logit"]["trained"]["W_O"] == pytest.approx(summed[-1], rel=1e-12)
    if not options:
        assert results["logit"]["leading"]["bigram"] == pytest.approx(summed[-1], rel=0.1)


def test_without_steps_nothing_is_trained(why, tmp_path):
    printed, results = why("red", "truck", "--steps", "0")
    assert "training" not in printed
    assert results["training"] is results["logit"] is None
    pages.check(tmp_path / "out")
    assert not (tmp_path / "out" / "weights.npz").exists()


def test_a_pair_that_never_meets_is_told_which_parts_its_entry_has(why, tmp_path):
    printed, results = why("blue", "happy", "--steps", "0")
    assert "'happy' never follows 'blue': the entry of B is the sum of 2 negative parts, 1/V of the weight" in printed
    assert "'blue' never stands before 'happy' in a window: the entry of Phi is the sum of" in printed
    assert all(note in printed for note in results["notes"])
    assert len(results["notes"]) == 2
    pages.check(tmp_path / "out")
    assert results["functions"]["bigram"]["positive"] == 0
    assert results["functions"]["bigram"]["rank"] is None
    assert {one["function"] for one in results["listed"]} == {"interchangeability"}  # "the" stands before both
    printed, _ = why("truck", "cat", "--steps", "0")
    assert "'cat' never follows 'truck'" in printed


def test_a_pair_that_meets_nowhere_shows_the_windows_against_it(why):
    printed, results = why("saw", "sad", "--steps", "2")
    assert "no word stands before both 'saw' and 'sad': to Sigma_B, the positions of words" in printed
    assert {one["function"] for one in results["listed"]} == {"bigram"}
    assert "the windows that taught the contrary, by their part of the function" in printed
    assert all(one["value"] < 0 for one in results["functions"]["bigram"]["windows"])


def test_the_token_of_unknown_words_is_explained(why):
    printed, _ = why("<unk>", "truck", "--vocabulary", "6", "--steps", "0")
    assert "note: <unk> stands for every word outside the vocabulary" in printed


def test_a_word_that_is_the_last_of_its_windows_only(why):
    """A word that is the current word of no position adds nothing to its rows of B, and nothing fails."""
    printed, results = why("cat", "red", "--steps", "1", "--windows", "1")
    assert results["functions"]["bigram"]["entry"] == 0
    assert "no window adds anything to the entry of B" in printed


def test_words_are_read_in_lower_case_and_between_options(why):
    _, results = why("--steps", "0", "RED", "--seed", "1", "Truck")
    assert (results["word"], results["other"]) == ("red", "truck")


def test_a_word_that_is_not_there_is_told_with_words_like_it(why):
    said = why("red", "trukc", status=2)
    assert "'trukc' is not among the 14 words of text.txt; close to it: truck; a larger --vocabulary" in said
    said = why("red", "sad", "--windows", "3", status=2)
    assert "'sad' is among the 14 words of text.txt, but in none of the 3 windows that are used" in said
