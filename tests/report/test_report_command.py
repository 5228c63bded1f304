"""``minitx report``: three theories, one page and one file of results."""

import inspect
import json
import re
from dataclasses import replace

import pages
import pytest

from minitx import cli
from minitx.base import report as base_report
from minitx.report import command

SMALL = {"next_token": {"steps": 30, "contexts": 20}, "associations": {
    "vocabulary": 9, "length": 4, "windows": 6, "steps": 3}, "topics": {
    "quick": True, "topics": 3, "words": 2, "documents": 40, "length": "8"}}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(command, "THEORIES", tuple(replace(theory, settings=SMALL[theory.key])
                                                   for theory in command.THEORIES))


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
    named = set(re.findall(r"``([^`]+)``", re.sub(r"\s+", " ", inspect.getdoc(command.run)
                                                  + inspect.getdoc(base_report.write_json))))
    assert not results.keys() - named
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("1 of 3  next token")
    assert "theory predicts" in out and "lowest cosine" in out
    assert out.splitlines()[-1].endswith(f"Open {tmp_path / 'index.html'} in a browser.")


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
