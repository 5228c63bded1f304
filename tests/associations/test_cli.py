"""``minitx associate``: what it prints and writes, every option, and every mistake said in one line."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pages
import pytest

import minitx
from minitx import LayeredWeights, OneHotWeights, cli, descend, loss_and_gradient
from minitx.associations import TermRecorder, leading_weights, reduced, reference_dynamics, statistics
from minitx.associations import command as associate
from minitx.associations.command_training import Recorder
from minitx.base import numbers, report
from minitx.base.command import Outcome, run_command
from minitx.base.options import Options
from minitx.data.corpus import builtin_corpus
from minitx.model.descent import Stopped

SMALL = ["--vocabulary", "12", "--length", "8", "--windows", "12", "--steps", "5"]
FILES = {"cosines.png", "gradient_terms.png", "corrections.png", "interventions.png", "bigram.png",
         "interchangeability.png", "context.png", "attention.png", "index.html", "weights.npz", "results.json"}


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments, out="out"):
        status = cli.main(["associate", *map(str, arguments), "--out", str(tmp_path / out)])
        captured = capsys.readouterr()
        path = tmp_path / out / "results.json"
        return status, captured.out, captured.err, json.loads(path.read_text()) if path.exists() else None

    return run


def test_quick_run_prints_and_writes_everything(run, tmp_path):
    status, out, _, results = run("--quick", "--words", "mom,nosuchword,the")
    assert status == 0
    for heading in ("documents", "vocabulary", "windows", "cosine", "relative error", "undefined", "proved bound",
                    "outside:", "exact split of the gradient", "saturation x weight drift", "terms sum to it, digits",
                    "strongest associates", "reduced dynamics", "first exceeds 1%, 10%, 50% of the leading term"):
        assert heading in out, heading
    assert "not in the vocabulary, so their associates are not listed: nosuchword" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert results["configuration"]["steps"] == 12
    assert results["asked"] == {"quick": True, "words": "mom,nosuchword,the", "out": str(tmp_path / "out")}
    assert results["configuration"]["vocabulary"] == 300 and results["configuration"]["learning_rate"] == 1
    assert results["corpus"]["windows"] == 64
    assert results["configuration"]["seed"] == 0
    assert set(results["associates"]) == {"mom", "the"}
    assert results["records"][0]["cosine"]["W"] == "NaN"  # undefined before step 3
    assert all(float(parts["digits"]) > 13 for parts in results["split"].values())
    assert results["environment"]["packages"]["numpy"] == np.__version__
    for record in results["records"]:
        assert f"{record['loss']:8.4f}" in out
    lines = out.splitlines()  # the first result needs no training, and the last lines say what was found
    first = next(line for line in lines if line.startswith("the text alone says of 'mom': "))
    assert lines.index(first) < next(k for k, line in enumerate(lines) if line.startswith("cosine of the trained"))
    assert lines[-1].startswith("After 12 steps the lowest cosine of a trained weight with its leading term is 0.")
    assert lines[-1].endswith(f"Open {tmp_path / 'out' / 'index.html'} in a browser.")
    pages.check(tmp_path / "out")
    pages.check_keys(results, associate.run)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<figcaption") == sum(name.endswith(".png") for name in FILES) + 1  # and the heat maps that move


@pytest.mark.usefixtures("without_figures")
def test_results_are_those_of_the_library(run, tmp_path):
    _, _, _, results = run(*SMALL, "--learning-rate", "0.5")
    corpus = builtin_corpus("stories", n_vocab=12, length=8, n_windows=12)
    weights = OneHotWeights.load(tmp_path / "out" / "weights.npz")
    loss, gradient = loss_and_gradient(weights, corpus.batch())
    assert results["loss"][-1] == pytest.approx(loss, rel=1e-14)
    for name, parts in results["split"].items():
        assert parts["gradient"] == pytest.approx(np.linalg.norm(getattr(gradient, name)), rel=1e-12)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """(printed, results.json) of a run whose corrections are large, because its learning rate is."""
    lines, typed = [], {"vocabulary": 12, "length": 8, "windows": 12, "steps": 5, "learning_rate": 4.0}
    outcome = associate.run(associate.Options(**typed), lines.append)
    return "\n".join(lines), report.plain(outcome.results)


def test_reduced_dynamics_is_that_of_the_library(fast):
    """It has the same start and recorded steps as training, and stays nearer to it than the leading terms do."""
    out, results = fast
    batch = builtin_corpus("stories", n_vocab=12, length=8, n_windows=12).batch()
    settings = {"learning_rate": 4.0, "steps": 5, "keep": range(6)}
    trained = descend(OneHotWeights.zeros(12, 8), batch, **settings)
    predicted = descend(OneHotWeights.zeros(12, 8, dtype=np.float32), reduced.reduce(batch, 12),
                        loss_and_gradient=reduced.loss_and_gradient, **settings)
    np.testing.assert_array_equal(results["predicted_loss"], predicted.loss)
    for record, found in zip(results["records"], results["reduced"], strict=True):
        step = record["step"]
        agreement = numbers.agreement(trained.kept[step], predicted.kept[step])
        for name, error in agreement.relative_error.items():
            assert float(found["relative_error"][name]) == pytest.approx(error, rel=1e-6, nan_ok=True)
        assert f"{record['loss']:9.4f}{predicted.loss[step]:10.4f}" in out
    # at the last step
    assert all(error < 0.2 * record["relative_error"][name] for name, error in found["relative_error"].items())


@pytest.mark.parametrize("n_layers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))])
def test_several_layers_are_those_of_the_library(run, tmp_path, n_layers):
    """Cosines, reference dynamics, terms, interventions and virtual heads of every layer are printed and written."""
    status, out, _, results = run(*SMALL, "--learning-rate", "0.5", "--layers", n_layers)
    assert status == 0
    batch = builtin_corpus("stories", n_vocab=12, length=8, n_windows=12).batch()
    weights = minitx.load(tmp_path / "out" / "weights.npz")
    assert isinstance(weights, LayeredWeights) and weights.n_layers == n_layers
    loss, gradient = loss_and_gradient(weights, batch)
    assert results["loss"][-1] == pytest.approx(loss, rel=1e-14) == results["interventions"]["loss"]
    names = set(weights.matrices())
    assert set(results["split"]) == set(results["first_exceeds"]) == names == set(results["norms_of_terms"][-1])
    for name, array in gradient.matrices().items():
        assert results["split"][name]["gradient"] == pytest.approx(np.linalg.norm(array), rel=1e-12)
        assert float(results["split"][name]["digits"]) > 13
    found = leading_weights(statistics(batch, 12), steps=5, learning_rate=0.5)
    predicted = descend(LayeredWeights.zeros(12, 8, n_layers), reference_dynamics.reference(batch, 12, n_layers),
                        loss_and_gradient=reference_dynamics.loss_and_gradient, steps=5, learning_rate=0.5)
    np.testing.assert_allclose(results["predicted_loss"], predicted.loss, rtol=1e-14)
    record, reference = results["records"][-1], results["reference"][-1]
    for l in range(n_layers):
        assert record["cosine"][f"V {l + 1}"] == pytest.approx(minitx.cosine(weights.V[l], found.V), rel=1e-13)
        assert reference["cosine"][f"W {l + 1}"] == pytest.approx(
            minitx.cosine(weights.W[l], predicted.weights.W[l]), rel=1e-13)
        assert f"layer {l + 1}\n" in out
    assert [change["changed"] for change in results["interventions"]["changes"]] == [
        *weights.matrices(), "every V", "every W", "every P"]
    assert set(results["heads"]["cosines"]) == {"Phi^T B^T B", "V 1 V 2 W_O",
                                                *(f"V {l + 1} W_O" for l in range(n_layers))}
    head = np.vdot(weights.V[0] @ weights.V[1] @ weights.W_O, found.V @ found.V @ found.W_O)
    head /= np.linalg.norm(weights.V[0] @ weights.V[1] @ weights.W_O) * np.linalg.norm(found.V @ found.V @ found.W_O)
    assert results["heads"]["cosines"]["V 1 V 2 W_O"] == pytest.approx(head, rel=1e-10)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_one_layer_shows_reference_dynamics_too(fast):
    out, results = fast
    batch = builtin_corpus("stories", n_vocab=12, length=8, n_windows=12).batch()
    settings = {"learning_rate": 4.0, "steps": 5}
    predicted = descend(LayeredWeights.zeros(12, 8, 1), reference_dynamics.reference(batch, 12, 1),
                        loss_and_gradient=reference_dynamics.loss_and_gradient, **settings).weights.layer(1)
    trained = descend(OneHotWeights.zeros(12, 8), batch, **settings).weights
    for name, error in numbers.agreement(trained, predicted).relative_error.items():
        assert results["reference"][-1]["relative_error"][name] == pytest.approx(error, rel=1e-9)
    assert "reference dynamics (uniform output and attention, the actual weights)" in out


def test_first_exceeds_is_printed_and_written(fast):
    out, results = fast
    table = out.split("first exceeds")[1].splitlines()
    crossings = results["first_exceeds"]["W_O"]
    for correction, found in crossings.items():
        row = next(line for line in table if line.startswith(f"{correction}  "))
        least = {share: min(at[share] for at in crossings.values() if at[share]) for share in found if found[share]}
        assert row.removeprefix(correction).split()[:3] == [
            f"{math.ceil(step)}{'*' if step == least[share] else ''}" if step else "-" for share, step in found.items()]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("options", [
    pytest.param([], marks=pytest.mark.slow), pytest.param(["--dtype", "float32"], marks=pytest.mark.slow),
    ["--init", "gaussian", "--init-scale", "0.1", "--batch-size", "5"]])
def test_same_seed_same_bits_for_any_number_of_threads(run, tmp_path, options):
    results = [run(*SMALL, *options, "--threads", threads, out=f"threads{threads}")[3] for threads in (1, 2)]
    for result in results:
        for volatile in ("threads", "out"):
            result["configuration"].pop(volatile)
            result["asked"].pop(volatile)
        result["environment"].pop("threads")
    assert results[0] == results[1]
    one, two = (OneHotWeights.load(tmp_path / f"threads{threads}" / "weights.npz") for threads in (1, 2))
    for name, array in one.parameters().items():
        np.testing.assert_array_equal(array, getattr(two, name))


@pytest.mark.usefixtures("without_figures")
def test_own_text_and_python_docs(run, tmp_path):
    text = tmp_path / "b$e_t$a.txt"  # no mathematics for matplotlib
    text.write_text("\n".join(["the red fish paid 3 $ in the $ blue pond and the red bird sings"] * 9))
    status, out, _, results = run(text, *SMALL, "--words", "fish")
    assert status == 0
    assert results["configuration"]["text"] == str(text)
    assert "fish" in results["associates"]
    assert run("--builtin", "python-docs", *SMALL, "--force")[0] == 0


@pytest.mark.usefixtures("without_figures")
def test_a_learning_rate_that_diverges_is_said_and_what_was_is_written(run):
    status, out, _, results = run(*SMALL, "--learning-rate", "1e50", "--steps", "20", "--init", "gaussian",
                                  "--init-scale", "1")
    assert status == 1
    assert "stopped early: step" in out
    assert results["stopped"]["kind"] == "diverged"
    assert results["stopped"]["step"] == len(results["loss"])
    assert len(results["loss"]) < 21


@pytest.mark.parametrize("size", [
    ["--steps", "1"], ["--vocabulary", "2", "--length", "1", "--windows", "1", "--steps", "4"]])
def test_the_smallest_runs(run, size):
    """Nothing but W_O moves in one step: panels and rows of zeros are drawn and printed."""
    status, out, _, _ = run(*SMALL, *size)
    assert status == 0


@pytest.mark.parametrize(("arguments", "says"), [
    (["/no/such/file.txt"], "/no/such/file.txt"),
    (["--length", "0"], "--length is 0"),
    (["--vocabulary", "1"], "--vocabulary is 1"),
    (["--windows", "0"], "--windows is 0"),
    (["--steps", "0"], "--steps is 0; it must be a whole number, at least 1"),
    (["--learning-rate", "-1"], "--learning-rate is -1; it must be a number above 0"),
    (["--learning-rate", "nan"], "--learning-rate is nan"),
    (["--batch-size", "99999", *SMALL], "--batch-size is 99999, but there are 12 windows"),
    (["--init", "gaussian", "--init-scale", "-1", *SMALL], "--init-scale is -1;"),
    (["--threads", "0"], "threads is 0"),
    (["--seed", "-1"], "--seed is -1; it must be a whole number, at least 0"),
    (["a.txt", "--builtin", "stories"], "not both"),
    (["--length", "100000", "--builtin", "python-docs"], "window"),
])
def test_mistakes_are_said_in_one_line(run, tmp_path, arguments, says):
    status, _, err, results = run(*arguments)
    assert status == 2
    assert err.startswith("minitx: error: ")
    assert re.search(says, err), err
    assert results is None


def test_files_that_are_not_text(run, tmp_path):
    for name, content, says in (("empty.txt", b"", "empty"), ("latin.txt", b"caf\xe9 au lait", "byte"),
                                ("binary.txt", b"a\0b", "binary")):
        (tmp_path / name).write_bytes(content)
        status, _, err, _ = run(tmp_path / name)
        assert status == 2
        assert says in err


def test_an_output_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["associate", *SMALL, "--out", str(tmp_path / "file")]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_unknown_options_are_refused(capsys):
    assert cli.main(["associate", "--layered", "2"]) == 2
    assert capsys.readouterr().err == ("minitx: error: minitx associate has no option --layered; similar to it: "
                                       "--layers\n")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_writes_what_was_recorded(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minitx", "associate", *SMALL, "--steps", "1000000", "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               # a background job ignores SIGINT
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    for line in process.stdout:  # recorded steps are printed as they become known
        if line.split()[:1] == ["3"]:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted after step" in printed
    results = json.loads((out / "results.json").read_text())
    assert [record["step"] for record in results["records"]][:3] == [1, 2, 3]
    assert {path.name for path in out.iterdir()} == FILES | {"checkpoint.npz"}


@pytest.mark.slow
def test_a_reader_that_stops_reading_stops_nothing_else(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minitx", "associate", *SMALL, "--out", str(out)]
    done = subprocess.run(f"{shlex.join(command)} | head -n 1", shell=True, capture_output=True, text=True, timeout=120)
    assert "Error" not in done.stderr
    assert {path.name for path in out.iterdir()} == FILES


def test_an_earlier_run_leaves_no_figure_behind(run, tmp_path):
    stale = tmp_path / "out" / "cosines.png"
    stale.parent.mkdir()
    stale.write_text("stale")
    run(*SMALL)
    assert stale.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.usefixtures("without_figures")
def test_a_loss_that_rises_is_said(run):
    assert "the loss rose from" in run(*SMALL, "--learning-rate", "1000")[1]


@pytest.mark.usefixtures("without_figures")
def test_mini_batches_are_outside_the_theorem(run):
    _, out, _, results = run(*SMALL, "--batch-size", "4", "--learning-rate", "0.01")
    assert "reduced dynamics predicts full-batch training; it is left out, because training is by mini-batches" in out
    assert results["predicted_loss"] == [] and results["reduced"] == [None] * len(results["records"])
    assert all("mini-batches, not the full batch" in record["outside"] for record in results["records"])


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("minitx 0.")


@pytest.mark.parametrize(("stopped", "expected"), [
    (None, 0), (Stopped("no more batches", 4, "interrupted data"), 0), (Stopped("no direction", 1, ""), 0),
    (Stopped("rounding", 9, ""), 0), (Stopped("diverged", 2, "interrupted"), 1),
    (Stopped("interrupted", 3, "diverged"), 130),
])
def test_exit_status_is_decided_by_the_kind_and_not_by_the_words(tmp_path, stopped, expected):
    def nothing(options, say):
        return Outcome("nothing", {}, stopped=stopped)

    assert run_command(Options(out=str(tmp_path)), {}, nothing, ()) == expected


@pytest.mark.usefixtures("without_figures")
def test_words_that_cannot_be_listed_are_said(run, tmp_path):
    """A word of the vocabulary may not be in the windows that are used."""
    text = tmp_path / "text.txt"
    text.write_text("the dog saw the cat and the dog ran\n" * 20 + "the wolf saw the bear and the wolf ran\n" * 9)
    arguments = ["--length", "8", "--windows", "12", "--steps", "2", "--vocabulary", "20"]
    out = run(str(text), *arguments, "--words", "dog,wolf,zebra")[1]
    assert "not in the vocabulary, so their associates are not listed: zebra" in out
    assert "in the vocabulary but not in the windows used, so their associates are not listed: wolf" in out


def test_the_terms_of_the_last_step_are_kept_once():
    """A checkpoint that an earlier version wrote at the end of training holds them already."""
    terms = TermRecorder(builtin_corpus("stories", n_vocab=20, length=4, n_windows=4).batch())
    own = SimpleNamespace(leading=[SimpleNamespace(step=5)], last=5, options=SimpleNamespace(steps=5), terms=terms)
    for _ in range(2):
        Recorder.complete(own, {"W_O": {"terms": {"leading": 1.0}, "gradient": 2.0}})
    assert terms.steps == [5] and terms.norms == {"W_O": {"leading": [1.0]}}
