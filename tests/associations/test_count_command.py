"""``minitx count``: whole, in parts, merged; and what associate shows of counts."""

import json

import numpy as np
import pytest

from minitx import associations, cli
from minitx.associations import command_count
from minitx.associations.counts import Counts, Scores
from minitx.data.corpus import load_corpus
from minitx.data.tokenizers import FileTokenizer

WORDS = "fish bird cat dog tree house garden river sun moon".split()
SMALL = ["--vocabulary", "9", "--length", "6"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "news").mkdir()
    for name in ("a", "b"):
        (tmp_path / "news" / f"{name}.txt").write_text("\n".join(" ".join(rng.choice(WORDS, 30)) for _ in range(40)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    assert cli.main(["count", *arguments]) == 0


def same(one, two):
    return all(np.array_equal(getattr(one, name).whole, getattr(two, name).whole)
               and np.array_equal(getattr(one, name).part, getattr(two, name).part)
               for name in (("contexts",) if isinstance(one, Counts) else ("attention", "position")))


def test_parts_merge_to_the_whole(folder, capsys):
    run("news", *SMALL, "--out", "whole.npz")
    printed = capsys.readouterr().out
    assert "documents                                 80\n" in printed
    assert "written whole.npz: counts of 320 windows" in printed
    for i in (1, 2, 3):
        run("news", *SMALL, "--part", f"{i}/3", "--out", f"c{i}.npz")
    assert "parts that are not in it: 1/3, 2/3" in capsys.readouterr().out
    run("--merge", "c3.npz", "c1.npz", "c2.npz", "--out", "merged.npz")
    assert "parts that" not in capsys.readouterr().out
    whole, merged = Counts.load("whole.npz"), Counts.load("merged.npz")
    assert same(whole, merged) and (whole.pairs != merged.pairs).nnz == 0 and whole.totals == merged.totals
    for i in (1, 2):
        run("news", "--scores", "merged.npz", "--part", f"{i}/2", "--out", f"s{i}.npz")
    run("--merge", "s1.npz", "s2.npz", "--out", "scores.npz")
    run("news", "--scores", "whole.npz", "--out", "whole_scores.npz")
    scores = Scores.load("scores.npz")
    assert same(scores, Scores.load("whole_scores.npz"))
    found = merged.finish(scores)
    (folder / "both.txt").write_text("".join((folder / "news" / f"{n}.txt").read_text() + "\n" for n in "ab"))
    expected = associations.statistics(load_corpus("both.txt", n_vocab=9, length=6).batch(), 9)
    np.testing.assert_allclose(found.attention, expected.attention, rtol=1e-11, atol=1e-16)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("settings", [(), ("--tokens", "4"), ("--unknown", "omit", "--vocabulary", "10")])
def test_parts_take_the_vocabulary_from_a_file(folder, capsys, monkeypatch, settings):
    """Parts that are given a vocabulary have the bits of parts that choose it, and do not read the text for it."""
    length = ["--length", "6"]
    choose = ["--vocabulary", "9", *settings]
    run("news", *choose, *length, "--out", "whole.npz")
    run("news", *choose, "--vocabulary-to", "vocabulary.json")
    assert f"written vocabulary.json: {10 if 'omit' in settings else 9} tokens" in capsys.readouterr().out

    def refuse(texts, part):
        raise AssertionError("the texts were read for the vocabulary")

    monkeypatch.setattr("minitx.data.streams._count_tokens", refuse)
    for i in (1, 2):
        run("news", "--vocabulary-from", "vocabulary.json", *length, "--part", f"{i}/2", "--out", f"c{i}.npz")
    run("--merge", "c1.npz", "c2.npz", "--out", "merged.npz")
    whole, merged = Counts.load("whole.npz"), Counts.load("merged.npz")
    assert same(whole, merged) and (whole.pairs != merged.pairs).nnz == 0 and whole.totals == merged.totals
    assert whole.vocabulary == merged.vocabulary and whole.n_tokens == merged.n_tokens
    run("news", "--scores", "merged.npz", "--out", "s.npz")
    merged.finish(Scores.load("s.npz"))


@pytest.mark.slow
def test_processes_count_the_same(folder, monkeypatch):
    monkeypatch.setattr(command_count, "SMALL", 100)
    run("news", *SMALL, "--out", "one.npz", "--workers", "1")
    run("news", *SMALL, "--out", "two.npz", "--workers", "2")
    assert same(Counts.load("one.npz"), Counts.load("two.npz"))


def test_frequent_tokens_and_their_scores(folder, capsys):
    run("news", *SMALL, "--tokens", "4", "--out", "k.npz")
    assert "tables hold 4 of 9 tokens;" in capsys.readouterr().out
    run("news", "--scores", "k.npz", "--out", "s.npz")
    found = Counts.load("k.npz").finish(Scores.load("s.npz"))
    assert found.attention.shape == (4, 4) and found.n_vocab == 9


def test_byte_pairs(folder):
    pytest.importorskip("tokenizers", reason="tokenizers of files need the extra: pip install 'minitx[bpe]'")
    tokenizer = FileTokenizer.train(["fish bird cat dog"] * 9, n_vocab=270)
    tokenizer.save("tok.json")
    settings = ["news", "--tokenizer", "tok.json"]
    run(*settings, "--length", "6", "--tokens", "5", "--out", "c.npz")
    counts = Counts.load("c.npz")
    assert set(counts.vocabulary) < set(tokenizer.vocabulary) and counts.n_vocab == len(tokenizer.vocabulary)
    run(*settings, "--scores", "c.npz", "--out", "s.npz")
    counts.finish(Scores.load("s.npz"))
    run(*settings, "--tokens", "5", "--vocabulary-to", "v.json")
    run(*settings, "--length", "6", "--vocabulary-from", "v.json", "--out", "again.npz")
    again = Counts.load("again.npz")
    assert same(again, counts) and again.vocabulary == counts.vocabulary


def test_associate_shows_what_needs_no_training(folder, capsys):
    run("news", "--vocabulary", "12", "--length", "6", "--out", "c.npz")
    capsys.readouterr()
    assert cli.main(["associate", "--counts", "c.npz", "--words", "fish,zebra", "--out", "a"]) == 0
    printed = capsys.readouterr().out
    assert "counts of 320 windows of 6 + 1 tokens, 11 of 11 tokens; 100.00% of the pairs" in printed
    assert "not in the vocabulary, so their associates are not listed: zebra" in printed
    results = json.loads((folder / "a" / "results.json").read_text())
    statistics, counts = Counts.load("c.npz").finish(), Counts.load("c.npz")
    scores = associations.words.similarity(statistics)
    for function, strongest in results["associates"]["fish"].items():
        row = scores[function][counts.vocabulary.index("fish")]
        expected = associations.words.strongest(row, counts.vocabulary, "fish", 8)
        assert [word for word, _ in strongest] == [word for word, _ in expected]
    assert {path.name for path in (folder / "a").iterdir()} == {
        "bigram.png", "interchangeability.png", "context.png", "index.html", "results.json"}
    assert cli.main(["associate", "--counts", "c.npz", "--out", "a", "--force"]) == 0
    assert "strongest associates" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "says"), [
    (["--merge", "c.npz", "c.npz"], "c.npz holds the part 1/1, which another file holds too; merge each part once"),
    (["--merge", "c.npz", "news/a.txt"], "news/a.txt holds no counts; give a file that minitx count wrote"),
    (["--merge", "e.npz", "d.npz"], "d.npz: counts of windows of 6 and of 5 positions cannot be added"),
    (["--merge", "c.npz", "d.npz"], "d.npz and c.npz hold parts of different texts, or for another N of --part"),
    (["news", "--part", "9/9"], "--part is 9/9, but the texts can be cut into fewer parts only"),
    (["news", "--scores", "c.npz", "--length", "3"], "--scores leaves no use for --length; leave one of them out"),
    (["news", "--vocabulary-from", "v.json", "--tokens", "3"], "--vocabulary-from leaves no use for --tokens"),
    (["news", "--vocabulary-from", "news/a.txt"], "news/a.txt holds no vocabulary; give a file that minitx count"),
    (["news", "--vocabulary-from", "twice.json"], "twice.json holds no vocabulary"),
    (["news", "--vocabulary-from", "gone.json"], "there is no file gone.json"),
    (["news", "gone.txt"], "there is no file gone.txt"),
    (["news", "news/a.txt"], "is named twice; its text would count twice"),
    (["bad.jsonl"], "bad.jsonl, line 2: not valid JSON"),
    (["bad.jsonl", "--skip-bad", "--unknown", "omit"], "no window was counted"),
    (["blank"], "blank/x.txt: found 0 different words"),
])
def test_mistakes(folder, capsys, arguments, says):
    run("news/a.txt", *SMALL, "--out", "c.npz")
    run("news/b.txt", "--vocabulary", "9", "--length", "5", "--part", "1/2", "--out", "d.npz")
    run("news/b.txt", "--vocabulary", "9", "--length", "6", "--part", "2/2", "--out", "e.npz")
    (folder / "bad.jsonl").write_text('{"text": "a few words and no more"}\n{"text": \n')
    (folder / "twice.json").write_text(json.dumps({
        "kind": "vocabulary", "n_vocab": 2, "n_tokens": None, "words": ["a", "a"], "order": None, "unknown": "omit"}))
    (folder / "blank").mkdir()
    (folder / "blank" / "x.txt").write_text(" \n")
    if arguments[:2] == ["news", "--part"]:  # files that cannot be cut
        for name in "ab":
            (folder / "news" / f"{name}.txt").rename(folder / "news" / f"{name}.json")
    capsys.readouterr()
    status = cli.main(["count", *arguments, "--out", "x.npz"])
    error = capsys.readouterr().err
    assert status == 2 and says in error and not (folder / "x.npz").exists(), error


def test_a_file_of_another_run_stays_and_that_of_the_same_run_is_not_counted_again(folder, capsys):
    """Nothing is overwritten without --force, also not by the default of --out; a job that is done twice costs nothing.
    """
    def refused(*arguments):
        before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
        assert cli.main(["count", *arguments]) == 2
        assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before
        return capsys.readouterr().err

    run("news", *SMALL)
    first = (folder / "counts.npz").stat().st_mtime_ns
    capsys.readouterr()
    run("news", *SMALL, "--workers", "1")
    assert capsys.readouterr().out == "counts.npz holds the results of this run already; --force counts again\n"
    assert (folder / "counts.npz").stat().st_mtime_ns == first
    assert refused("news", *SMALL, "--part", "1/2") == (
        "minitx: error: --out is counts.npz, which holds the results of another run (its part is not given, and now it "
        "is '1/2'); choose another file, or overwrite this one with --force\n")
    assert "--out is counts.npz, which holds the results of another run" in refused("news", "--scores", "counts.npz")
    run("news", "--vocabulary", "9", "--vocabulary-to", "v.json")
    assert "--vocabulary-to is v.json, which holds the results of another run (its vocabulary is 9, and now it is 8)" \
        in refused("news", "--vocabulary", "8", "--vocabulary-to", "v.json")
    Counts.load("counts.npz").save("own.npz")
    for own in ("own.npz", "news/a.txt"):
        assert "another run (the file does not say of which)" in refused("news", *SMALL, "--out", own)
    (folder / "news" / "a.txt").write_text("fish and birds in the sea")
    assert "(the content of news has changed since)" in refused("news", *SMALL)
    run("news", *SMALL, "--force")
    assert Counts.load("counts.npz").totals["documents"] == 41
