"""``minitx automaton``: what it prints and writes for each source of samples, and how it reports mistakes."""

import gzip
import json

import numpy as np
import pages
import pytest

from minitx import cli
from minitx.base import console, parallel, report
from minitx.base.command import run_command
from minitx.base.options import HANDLING
from minitx.model.descent import Stopped
from minitx.model.weights import LastTokenWeights
from minitx.next_token import command as automaton
from minitx.next_token import training as next_token_training
from minitx.next_token.automaton import Automaton
from minitx.next_token.command_data import load
from minitx.next_token.graphs import priority_graphs
from minitx.next_token.losses import context_attention
from minitx.next_token.samples import Samples, holds_samples, read_samples
from minitx.next_token.svm import graph_svm

SMALL = ["--steps", "40", "--contexts", "30"]
FILES = {*automaton.FIGURES, "index.html", "results.json", "weights.npz"}
LINES = [(["a", "b", "c"], "a"), (["b", "a", "c"], "b"), (["a", "d", "c"], "a"), (["a", "d", "b"], "d"),
         (["d", "d", "a", "b"], "d")]


def call(tmp_path, capsys, *arguments, out="out"):
    """(status, printed, stderr, results.json) of the command; the last None where there is none."""
    status = cli.main(["automaton", *map(str, arguments), "--out", str(tmp_path / out)])
    captured = capsys.readouterr()
    path = tmp_path / out / "results.json"
    return status, captured.out, captured.err, json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def run(tmp_path, capsys):
    return lambda *arguments, **settings: call(tmp_path, capsys, *arguments, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, printed lines, results.json) of a small run with everything written."""
    folder, lines = tmp_path_factory.mktemp("automaton"), []
    typed = {"steps": 40, "contexts": 200, "out": str(folder)}

    def run(options, say):
        return automaton.run(options, lambda line: (lines.append(line), say(line)))

    assert run_command(automaton.options_of(typed), typed, run, automaton.FIGURES) == 0
    return folder, "\n".join(lines), json.loads((folder / "results.json").read_text())


def in_memory(figures=False, **settings):
    """(outcome, its results as JSON holds them, printed) of a run that writes nothing; figures take time to draw."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr(automaton, "draw", lambda *found: {})
        outcome = automaton.run(automaton.options_of({"steps": 20, "contexts": 20, **settings}), lines.append)
    return outcome, report.plain(outcome.results), "\n".join(lines)


def sample_file(path, lines=LINES):
    path.write_text("".join(json.dumps({"tokens": tokens, "label": label}) + "\n" for tokens, label in lines))
    return path


# ----------------------------------------------------------------------------------------------- generated samples


def test_a_run_prints_and_writes_everything(finished):
    folder, printed, results = finished
    for heading in ("120 samples of 6 tokens", "8 priority graphs", "hard retrieval", "soft composition",
                    "training from W = 0", "plain descent", "normalised descent", "is given the true SCCs",
                    "held-out contexts", "true law", "total variation"):
        assert heading in printed, heading
    assert {path.name for path in folder.iterdir()} == FILES
    pages.check(folder)
    pages.check_keys(results, automaton.run, automaton._numbers)
    page = (folder / "index.html").read_text()
    assert page.count("<figcaption") == len(automaton.FIGURES) + 1  # the heat map that the slider moves
    assert results["asked"] == {"steps": 40, "contexts": 200, "out": str(folder)}
    assert results["environment"]["packages"]["numpy"] == np.__version__
    asked = report.plain(automaton.options_of(results["asked"]))
    assert results["configuration"] == {name: value for name, value in asked.items() if name not in HANDLING}
    assert results["configuration"]["vocabulary"] == 8
    assert results["configuration"]["source"] == "generated"
    assert set(results["records"]) == set(automaton.MODES)
    assert len(results["contexts"]) == 200


def test_what_is_written_is_what_the_library_says(finished):
    folder, printed, results = finished
    data = load(automaton.options_of({"contexts": 200}))
    samples, fitted = data.samples, Automaton.fit(data.samples)
    graphs = priority_graphs(samples)
    W_svm = graph_svm(graphs, np.eye(8)).W
    run = next_token_training.train(LastTokenWeights.zeros(8), fitted, mode="accelerated", steps=40)
    with np.load(folder / "weights.npz") as weights:
        assert set(weights) == {"W_svm", "W_fin", *(f"W_{mode}" for mode in automaton.MODES)}
        np.testing.assert_array_equal(weights["W_svm"], W_svm)
        np.testing.assert_array_equal(weights["W_accelerated"], run.weights.W)
    assert f"|W_svm| = {np.linalg.norm(W_svm):.6g}" in printed
    for k, graph in graphs.items():
        assert results["graphs"][str(k)]["components"] == [part.tolist() for part in graph.components]
    for context, told in zip(data.contexts, results["contexts"], strict=True):
        np.testing.assert_array_equal(told["context"], context)
        assert told["status"] == fitted.predict(context).status
        assert sum(told["limit"]) == pytest.approx(1)
        assert sum(told["trained"]["normalised"]) == pytest.approx(1)
    keys = {(row[-1], *sorted(row)) for row in (sequence.tolist() for sequence in samples.sequences)}
    assert not any((row[-1], *sorted(row)) in keys for row in (context.tolist() for context in data.contexts))


def test_the_slider_moves_attention_to_its_limit(finished):
    """The last map is that of the trained weights, and the limit is what the automaton predicts in the same context."""
    folder, _, results = finished
    found, data = results["snapshots"], load(automaton.options_of({"contexts": 200}))
    fitted, n = Automaton.fit(data.samples), len(found["words"])
    assert found["steps"] == [record["step"] for record in results["records"]["descent"]]
    assert set(found["trained"]) == set(automaton.MODES)
    with np.load(folder / "weights.npz") as weights:
        W = weights["W_normalised"]
    frames = np.array(found["trained"]["normalised"])
    assert frames.shape == (len(found["steps"]), n, n)
    for i, k in enumerate(map(int, found["words"])):
        ranked = sorted({*fitted.split.graphs[k].tokens.tolist(), k} & set(map(int, found["words"])))
        columns = [found["words"].index(str(token)) for token in ranked]
        mass = np.exp(W[ranked, k])
        assert frames[-1, i, columns] == pytest.approx(mass / mass.sum(), rel=1e-3)
        assert frames[0, i, columns] == pytest.approx(1 / len(ranked), rel=1e-3)  # W = 0
        prediction = fitted.predict([*(token for token in ranked if token != k), k])
        assert np.array(found["limit"])[i, columns] == pytest.approx(prediction.p[ranked], rel=1e-3)
        assert (str(k) in found["open"]) == (prediction.status != "determined")


def test_attention_is_that_of_the_weights():
    weights = LastTokenWeights.gaussian(5, scale=2.0, rng=0)
    contexts = [np.array([1, 4, 1, 2]), np.array([3]), np.array([0, 0, 0, 3, 3])]
    samples = Samples.of(contexts, [context[-1] for context in contexts], 5)
    S = weights.W
    for context, p in zip(contexts, context_attention(weights, contexts), strict=True):
        mass = np.zeros(5)
        for token in context:
            mass[token] += np.exp(S[token, context[-1]])
        np.testing.assert_allclose(p, mass / mass.sum(), rtol=1e-14)
    assert len(samples) == 3


@pytest.mark.slow
def test_the_trained_attention_approaches_the_limit():
    _, numbers, _ = in_memory(steps=1000, contexts=300)
    distances = numbers["total variation"]
    assert max(distances["accelerated"]["determined"]) < 1e-6
    assert np.median(distances["descent"]["determined"]) < 0.05 < max(distances["descent"]["determined"])
    assert len(distances["accelerated"]["determined"]) > 100


@pytest.mark.parametrize("settings", [
    {"vocabulary": 2, "classes": 1}, {"classes": 8}, {"vocabulary": 2, "classes": 2, "length": 9}, {"length": 1},
    {"samples": 1}, {"loss": "square"}, {"loss": "tied"}, {"embedding": "random"},
    {"embedding": "random", "width": 13, "loss": "tied"}, {"embedding": "equicorrelated", "loss": "cross_entropy"},
    {"embedding": "equicorrelated", "correlation": 0.9}, {"acyclic": True, "loss": "squared_error"},
    {"contexts": 0}, {"steps": 1}, {"quick": True}], ids=str)
def test_settings(settings):
    outcome, numbers, printed = in_memory(**settings)
    assert outcome.stopped is None
    assert set(numbers["records"]) == set(automaton.MODES)
    assert ("There are no held-out contexts" in printed) == (not numbers["contexts"])
    if settings == {"vocabulary": 2, "classes": 1}:
        assert "W_svm = 0" in printed
        assert "undefined" in printed


def test_quick_lowers_what_was_not_typed(tmp_path):
    options = automaton.options_of({"quick": True, "contexts": 0, "samples": 500})
    assert (options.contexts, options.steps, options.samples, options.vocabulary) == (0, 400, 500, 8)
    assert automaton.options_of({"quick": True, "text": str(sample_file(tmp_path / "mine.jsonl"))}).samples == 400
    (tmp_path / "a.txt").write_text("a b")
    options = automaton.options_of({"quick": True, "text": str(tmp_path / "a.txt"), "windows": 70})
    assert (options.vocabulary, options.length, options.windows) == (40, 24, 70)
    assert "--contexts is 0" in in_memory(quick=True, contexts=0)[2]


@pytest.mark.parametrize("loss", ["log", "square", "tied"])
def test_whose_w_fin_it_is(loss):
    assert ("W_fin minimises the log loss inside SCCs" in in_memory(loss=loss)[2]) == (loss != "log")


def test_the_acyclic_case_has_nothing_to_compose_and_trains_along_W_svm_alone():
    outcome, numbers, printed = in_memory(acyclic=True, steps=400)
    assert "W_fin = 0, because S_fin has dimension 0" in printed
    assert all(len(part) == 1 for graph in numbers["graphs"].values() for part in graph["components"])
    for records in numbers["records"].values():
        assert all(one["correlation"] == one["correlation_rest"] for one in records[1:])
    assert numbers["records"]["accelerated"][-1]["correlation"] > 1 - 1e-4
    assert numbers["records"]["descent"][-1]["correlation"] > 0.9


def test_equicorrelated_embeddings_have_one_cosine(run, tmp_path):
    status, _, _, _ = run(*SMALL, "--embedding", "equicorrelated", "--correlation", "0.25")
    with np.load(tmp_path / "out" / "weights.npz") as file:
        gram = file["E"] @ file["E"].T
    assert status == 0
    np.testing.assert_allclose(gram, 0.75 * np.eye(8) + 0.25, rtol=0, atol=1e-15)


def test_losses_of_any_size_stand_in_their_column():
    header, _, *lines = in_memory(learning_rate=1e29)[2].split("onto S_fin)\n")[1].splitlines()[:14]
    assert {len(line) for line in lines if not line.startswith("normalised")} == {len(header)}
    assert any("e+29" in line for line in lines)


def test_figures_of_the_least_there_can_be():
    for settings in ({"vocabulary": 2, "classes": 1}, {"length": 1, "steps": 1}):
        for figure, caption in in_memory(figures=True, **settings)[0].figures.values():
            figure.set_dpi(30)
            figure.canvas.draw()
            assert caption.endswith(".")


def test_the_same_seed_gives_the_same_results_on_any_number_of_threads():
    found = []
    for n_threads in (1, 2):
        parallel.set_threads(n_threads)
        found.append(in_memory(embedding="random", seed=3)[1])
    assert found[0] == found[1]
    other = in_memory(embedding="random", seed=4)[1]
    assert other["W_svm"] != found[0]["W_svm"]


def test_infeasible_samples_are_said_with_their_certificate(run, tmp_path):
    status, out, _, results = run(*SMALL, "--embedding", "random", "--width", "1")
    assert status == 0
    assert "No weights W satisfy" in out
    assert "Nothing is trained" in out
    assert sum(weight for _, weight in results["infeasible"]["certificate"]) == pytest.approx(1)
    assert "S_fin has dimension 1; W has 1 entries.\n  S_fin is the whole space" in out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"priority_graphs.png", "index.html", "results.json"}


@pytest.mark.parametrize("stopped_mode", ["descent", "accelerated"])
def test_ctrl_c_keeps_and_writes_what_was_done(stopped_mode, run, monkeypatch):
    def train(*arguments, mode, progress, **settings):
        def interrupted(step):
            if mode == stopped_mode and step == 3:
                raise KeyboardInterrupt
            progress(step)

        return whole(*arguments, mode=mode, progress=interrupted, **settings)

    whole = next_token_training.train
    monkeypatch.setattr(next_token_training, "train", train)
    monkeypatch.setattr(automaton, "draw", lambda *found: {})
    status, out, _, results = run(*SMALL)
    assert status == 130
    assert "stopped early: interrupted after step 3" in out
    assert list(results["records"])[-1] == stopped_mode
    assert len(results["contexts"][0]["trained"]) == len(results["records"])


def test_training_that_ends_early_ends_the_run_with_status_1(run, monkeypatch):
    def train(*arguments, **settings):
        found = whole(*arguments, **settings)
        object.__setattr__(found.trajectory, "stopped", Stopped("diverged", 3, "step 3: the loss is nan"))
        return found

    whole = next_token_training.train
    monkeypatch.setattr(next_token_training, "train", train)
    monkeypatch.setattr(automaton, "draw", lambda *found: {})
    status, out, _, results = run(*SMALL)
    assert status == 1
    assert "stopped early: step 3: the loss is nan" in out
    assert results["stopped"] == {"kind": "diverged", "step": 3, "message": "step 3: the loss is nan"}
    assert list(results["records"]) == ["descent"]


@pytest.mark.parametrize(("arguments", "says"), [
    (["--classes", "9"], "--classes is 9 but --vocabulary 8"), (["--vocabulary", "1"], "--vocabulary is 1"),
    (["--samples", "0"], "--samples is 0"), (["--steps", "0"], "--steps is 0"),
    (["--contexts", "-1"], "--contexts is -1"),
    (["--width", "3"], "--width is 3, but one-hot"), (["--windows", "4"], "--windows is not for generated samples"),
    (["--learning-rate", "0"], "--learning-rate is 0"), (["--seed", "-1"], "--seed is -1"),
    (["nowhere.txt"], "there is no file"), (["nowhere.jsonl"], "there is no file"),
    ([""], "FILE is empty"),
])
def test_mistakes_are_said_in_one_line(run, arguments, says):
    status, _, err, results = run(*arguments)
    assert status == 2
    assert err.startswith("minitx: error: ")
    assert err.count("\n") == 1
    assert says in err
    assert results is None


def test_a_graph_svm_too_large_for_the_memory_is_refused_before_it_is_begun(run, monkeypatch):
    monkeypatch.setattr(automaton, "MOST_BYTES", 1e3)
    monkeypatch.setattr(automaton, "Automaton", None)
    status, out, err, _ = run("--embedding", "random")
    assert status == 2
    assert err.startswith("minitx: error: the Graph-SVM would need about")
    assert "use --embedding one-hot, or fewer" in err


def test_what_takes_hours_is_begun(run, monkeypatch):
    def train(*arguments, progress, **settings):
        def interrupted(step):
            progress(step)
            if step == 3:
                raise KeyboardInterrupt

        return whole(*arguments, progress=interrupted, **settings)

    whole = next_token_training.train
    monkeypatch.setattr(next_token_training, "train", train)
    monkeypatch.setattr(automaton, "draw", lambda *found: {})
    status, out, err, results = run("--steps", "100000000", "--contexts", "5")
    assert (status, err) == (130, "")
    assert results["stopped"]["step"] == 3


@pytest.mark.parametrize("embedding", ["one-hot", "random"])
def test_an_estimate_is_said_once_for_each_long_job(embedding, monkeypatch):
    """The estimates change no number."""
    _, plain, without = in_memory(embedding=embedding)
    monkeypatch.setattr(console, "MEASURED", 0.0)
    monkeypatch.setattr(console, "LONG", 0.0)
    monkeypatch.setattr(automaton, "SVM_TRIAL", 1)
    _, numbers, printed = in_memory(embedding=embedding)
    said = [line for line in printed.splitlines() if "will take about" in line]
    assert [line.split(" will take about ")[0] for line in said] == ["the Graph-SVM", *automaton.MODES.values()]
    assert "judged by the first 1 of its" in said[0]
    assert all("judged by its first step;" in line for line in said[1:])
    assert [line for line in printed.splitlines() if line not in said] == without.splitlines()
    assert numbers == plain


def test_an_estimate_is_taken_from_the_first_steps(monkeypatch):
    """Of 100 steps of 2 seconds, the first 3 take more than 5 seconds; then 194 seconds are left."""
    clock, lines = iter([10.0, 12.0, 14.0, 16.0]), []
    monkeypatch.setattr(console.compiling, "clock", lambda: next(clock))
    forecast = console.Forecast("training", 100, lines.append)
    for step in range(7):
        forecast(step)
    assert lines == ["training will take about 3 minutes more, judged by its first 3 steps; "
                     "Ctrl-C ends it and keeps what is done"]
    console.announce("it", 3e5, "nothing", lines.append)
    console.announce("it", 100.0, "nothing", lines.append)
    assert lines[1:] == ["it will take about 83 hours more, judged by nothing"]


# ------------------------------------------------------------------------------------------------ files of samples


def test_a_file_of_samples(run, tmp_path, monkeypatch):
    monkeypatch.setattr(automaton, "draw", lambda *found: {})
    path = sample_file(tmp_path / "mine.jsonl")
    status, out, _, results = run(path, *SMALL)
    assert status == 0
    assert "mine.jsonl: 5 samples of 3 to 4 tokens, 4 distinct" in out
    assert "c:  {a b}  >  c | d" in out
    assert results["vocabulary"] == ["a", "b", "c", "d"]
    assert results["graphs"]["2"]["components"] == [[0, 1], [2], [3]]
    assert results["contexts"]


def test_numbers_strings_and_compression_say_the_same(tmp_path):
    strings = sample_file(tmp_path / "strings.jsonl",
                          [(["s" + token for token in tokens], "s" + label) for tokens, label in LINES])
    numbers = [([7 * ord(token) for token in tokens], 7 * ord(label)) for tokens, label in LINES]
    numbered = sample_file(tmp_path / "numbers.jsonl", numbers)
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(numbered.read_bytes()))
    first, second, third = (read_samples(path) for path in (strings, numbered, packed))
    assert first.vocabulary == ("sa", "sb", "sc", "sd")
    assert second.vocabulary == third.vocabulary == tuple(str(7 * ord(token)) for token in "abcd")
    assert first.sequences == second.sequences == third.sequences
    assert first.labels == second.labels == third.labels
    assert read_samples(strings, n_samples=2).labels == [0, 1]


def test_labels_that_do_not_occur(tmp_path):
    path = sample_file(tmp_path / "mine.jsonl", [*LINES, (["a", "b"], "x")])
    assert read_samples(path).n_left_out == 1
    assert "x" not in read_samples(path).vocabulary


@pytest.mark.parametrize(("line", "says"), [
    ('{"tokens": ["a"]}', "found the fields tokens"), ('{"tokens": [], "label": "a"}', "non-empty list"),
    ('{"tokens": "ab", "label": "a"}', "non-empty list"), ('{"tokens": ["a", 1], "label": "a"}', "1 is of type int"),
    ('{"tokens": [1, true], "label": 1}', "True is of type bool"),
    ('{"tokens": [1.0], "label": 1.0}', "1.0 is of type float"),
    ('{"tokens": ["a"], "label": "b"}', "none whose label occurs"), ('{"tokens": ["a"', "not valid JSON"),
    ('{"tokens": ["\\ud800"], "label": "\\ud800"}', "half a character"),
])
def test_lines_that_are_no_samples(line, says, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=says):
        read_samples(path)


def test_which_files_hold_samples(tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a b"}\n')
    empty, plain = tmp_path / "empty.jsonl", tmp_path / "tokens.txt"
    empty.write_text("")
    plain.write_text('{"tokens": ["a"], "label": "a"}')
    assert holds_samples(sample_file(tmp_path / "mine.JSONL"))
    misspelt = tmp_path / "misspelt.jsonl"
    misspelt.write_text('{"token": ["a"], "label": "a"}')
    assert holds_samples(misspelt)
    says = 'found the fields token, label; an object with the fields "tokens" and "label"'
    with pytest.raises(ValueError, match=says):
        read_samples(misspelt)
    assert not any(map(holds_samples, (texts, empty, plain)))


def test_words_are_printed_whatever_they_are(tmp_path):
    words = ["two words", "line\nbreak", "$x$", "é" * 40]
    lines = [(words[:3], words[0]), ([words[3], words[1]], words[3])]
    path = sample_file(tmp_path / "mine.jsonl", lines)
    outcome, _, printed = in_memory(figures=True, text=str(path))
    assert "'two words'" in printed
    assert "line\\nbreak" in printed
    assert "é" * 23 + "…" in printed
    for figure, _ in outcome.figures.values():
        figure.set_dpi(30)
        figure.canvas.draw()
    drawn = {text.get_text() for axes in outcome.figures["priority_graphs.png"][0].axes for text in axes.texts}
    assert r"line\nbreak" in drawn
    assert "line\nbreak" not in drawn


# ----------------------------------------------------------------------------------------------------------- texts


def test_a_text(run, tmp_path, monkeypatch):
    monkeypatch.setattr(automaton, "draw", lambda *found: {})
    path = tmp_path / "story.txt"
    story = "the cat saw the dog . the dog saw the cat . a cat and a dog ran , and the cat ran to the dog .\n"
    path.write_text(story * 30)
    status, out, _, results = run(path, *SMALL, "--vocabulary", "8", "--windows", "20", "--length", "12")
    assert status == 0
    assert "limited to  8 words, the first 20 windows, prefixes of up to 12 tokens" in out
    assert "prefixes of the first 18 windows" in out
    assert results["left out"] > 0
    assert results["vocabulary"][0] == "<unk>"
    assert results["n_vocab"] == 8


def test_a_text_that_is_repeated_leaves_no_context_unseen(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("the cat saw the dog and the dog saw the cat .\n" * 30)
    _, numbers, printed = in_memory(text=str(path), vocabulary=20, length=10)
    assert "There are no held-out contexts: every prefix of the last " in printed
    assert numbers["contexts"] == []


def test_a_text_of_few_windows_holds_none_out(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("the cat saw the dog and the dog saw the cat .\n")
    assert "one of 10 windows is held out, but there are only 1 windows" in in_memory(text=str(path), length=10)[2]


def test_options_of_other_sources_are_refused(run, tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("the cat saw the dog .\n" * 30)
    assert "--samples is not for a text; leave it out" in run(path, "--samples", "3")[2]
    assert "--classes is not for a file of samples" in run(sample_file(tmp_path / "mine.jsonl"), "--classes", "3")[2]
