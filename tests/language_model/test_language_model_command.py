"""``minitx language-model``: what it prints, draws and writes for one model and for checkpoints of one training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pages
import pytest

from minitx import cli
from minitx.language_model import command, figures
from minitx.language_model.comparison import Similarity
from minitx.language_model.layers import Record

pytest.importorskip("safetensors", reason="language models need the extra: pip install 'minitx[llm]'")
tokenizers = pytest.importorskip("tokenizers", reason="language models need the extra: pip install 'minitx[llm]'")
CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
WORDS = [chr(97 + i % 26) * (4 + i // 26) for i in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and the small GPT-NeoX with a tokenizer of its words, as three checkpoints of one training."""
    folder = tmp_path_factory.mktemp("models")
    ids = np.minimum(np.random.default_rng(0).geometric(0.08, (60, 21)), 60) - 1
    (folder / "text.txt").write_text("\n".join(" ".join(WORDS[i] for i in row) for row in ids))
    ids_of = {word: i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids_of, unk_token="aaaa"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    for name in ("step1000", "step0", "step512"):
        shutil.copytree(CHECKPOINTS / "gpt-neox", folder / name)
        made.save(str(folder / name / "tokenizer.json"))
    return folder


@pytest.fixture
def run(folder, tmp_path, capsys):
    def run(*arguments):
        status = cli.main(["language-model", *map(str, arguments), "--text", str(folder / "text.txt"), "--length", "20",
                           "--out", str(tmp_path / "out")])
        captured = capsys.readouterr()
        path = tmp_path / "out" / "results.json"
        return status, captured.out, captured.err, json.loads(path.read_text()) if path.exists() else None

    return run


def test_one_model_prints_and_writes_everything(run, folder, tmp_path):
    status, out, _, results = run(folder / "step0", "--tokens", "30", "--words", "aaaa,bbbb")
    assert status == 0
    for heading in ("tokens      30 compared", "step0: gpt_neox, 2 layers of width 32 with 4 heads", "published",
                    "query-key without norm", "output-value", "heads with z > 5", "permuting the tokens changes",
                    "nearest tokens"):
        assert heading in out, heading
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*command.FIGURES, "results.json", "index.html"}
    [model] = results["models"]
    assert model["step"] == 0 and len(model["records"]) == 2 * (3 + 2 * (2 + 4) + 3 * 4)
    first = model["records"][0]
    assert first["part"] == "before" and set(first["centred"]) == {"value", "mean", "deviation", "z"}
    assert f"{first['centred']['value']:.3f}" in out
    assert set(results["neighbours"]) == {"aaaa", "bbbb"} and len(results["tokens"]) == 30
    pages.check_keys(results, command.run)


class Killed(BaseException):
    """Ends a run as a kill does: no handler of minitx knows it."""


@pytest.mark.slow  # base/test_resume.py has the same of minitx associate
def test_a_run_that_is_killed_goes_on_with_the_models_that_are_left(run, folder, tmp_path, monkeypatch, capsys):
    """The results are those of a run without a stop, and --config repeats them."""
    def results_of(name):
        found = json.loads((tmp_path / name / "results.json").read_text())
        del found["asked"]["out"], found["configuration"]["out"]
        return found

    models = [str(folder / name) for name in ("step0", "step1000")]
    words = [*models, "--text", str(folder / "text.txt"), "--length", "20", "--tokens", "30"]
    assert cli.main(["language-model", *words, "--out", str(tmp_path / "whole")]) == 0
    compare, compared = command._compare, []

    def killed(options, model, *arguments):
        compared.append(model.name)
        if compared == ["step0", "step1000"]:
            raise Killed
        return compare(options, model, *arguments)

    monkeypatch.setattr(command, "_compare", killed)
    with pytest.raises(Killed):
        cli.main(["language-model", *words, "--out", str(tmp_path / "killed")])
    assert cli.main(["language-model", "--resume", "--out", str(tmp_path / "killed")]) == 0
    assert compared == ["step0", "step1000", "step1000"]
    assert results_of("killed") == results_of("whole")
    assert cli.main(["language-model", "--config", str(tmp_path / "whole" / "results.json"), "--out",
                     str(tmp_path / "again")]) == 0
    assert results_of("again") == results_of("whole")


@pytest.mark.drawn
def test_checkpoints_are_drawn_over_their_steps(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "OVER_STEPS", {"heads-entries.png": "entries"})  # one of three that are alike
    status, _, _, results = run(*(folder / name for name in ("step1000", "step0", "step512")), "--quick")
    assert status == 0
    assert [model["step"] for model in results["models"]] == [0, 512, 1000]
    same = [model["records"] for model in results["models"]]
    assert same[0] == same[1] == same[2]  # these checkpoints are copies of one
    for name in (*command.FIGURES, *command.OVER_STEPS):
        assert (tmp_path / "out" / name).stat().st_size > 20_000


@pytest.mark.parametrize("steps", [(0, 512, 1000), (1, 2, 3)])
def test_every_head_has_a_curve_and_a_band_over_the_steps(steps):
    """The curves hold each head's values at every step; bands reach two deviations from the mean of permutations."""
    rng, layers, numbers = np.random.default_rng(0), range(2), range(3)
    kinds = (("query-key", "Q"), ("output-value", "B"))
    drawn = {(step, layer, kind, head): Similarity(*rng.random(3)) for step in steps for layer in layers
             for kind in kinds for head in numbers}
    records = {str(step): [Record(layer, head, *kind, found, 0.0, 0.0, found, found, entries=found)
                           for (at, layer, kind, head), found in drawn.items() if at == step] for step in steps}
    figure = figures.heads_over_steps(records, steps, "entries", title="t", xlabel="step")
    grid = np.array(figure.axes).reshape(len(layers), len(kinds))
    for (layer, column), axis in np.ndenumerate(grid):
        observed = {line.get_label(): line for line in axis.lines if line.get_label().startswith("head")}
        assert list(observed) == [f"head {head}" for head in numbers]
        for head, band in zip(numbers, axis.collections, strict=True):
            found = [drawn[step, layer, kinds[column], head] for step in steps]
            np.testing.assert_array_equal(observed[f"head {head}"].get_ydata(), [one.value for one in found])
            edges = band.get_paths()[0].vertices
            for step, one in zip(steps, found, strict=True):
                y = edges[edges[:, 0] == step, 1]
                np.testing.assert_allclose([y.min(), y.max()], one.mean + 2 * one.deviation * np.array([-1, 1]))


def test_models_of_different_sizes_are_no_checkpoints_of_one_training(run, folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder / "step0", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    status, _, err, _ = run(folder / "step0", other)
    assert status == 2 and "step0 has 2 layers with 4 heads, but other has 1 with 4" in err


@pytest.mark.parametrize(("arguments", "says"), [
    (["no-such"], "there is no folder no-such"),
    (["{folder}/step0", "--words", "zz"], "--words names zz, not among the "),
])
def test_a_mistake_is_told_in_one_line(arguments, says, run, folder, tmp_path):
    status, _, err, _ = run(*(argument.format(folder=folder) for argument in arguments))
    assert status == 2 and err.count("\n") == 1 and says in err
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(run, folder, tmp_path):
    many = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w0"))
    many.save(str(tmp_path / "tok.json"))
    status, _, err, _ = run(folder / "step0", "--tokenizer", tmp_path / "tok.json")
    assert status == 2 and "step0 has embeddings of 60 tokens, but the tokenizer has 61" in err
