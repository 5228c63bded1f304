"""Pre-trained models: what is read and computed is what `transformers` and what plain loops compute."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitx import set_threads
from minitx.language_model import forward, read_model, training_step

safetensors = pytest.importorskip("safetensors", reason="language models need the extra: pip install 'minitx[llm]'")
import naive_transformer  # noqa: E402  it stands beside conftest.py

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
FAMILIES = ("gpt-neox", "gpt2", "llama")


def contents(family):
    """(config, {name: float32 array}) of a checkpoint."""
    folder = CHECKPOINTS / family
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    return json.loads((folder / "config.json").read_text()), tensors


def write(folder, config, tensors, dtype=np.float32, file="model.safetensors"):
    """Write a checkpoint; the ``dtype`` "bfloat16" keeps the upper half of each number."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    header, data = {}, b""
    for name, array in tensors.items():
        kept = (array.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else array.astype(dtype)
        header[name] = {"dtype": "BF16" if dtype == "bfloat16" else "F32", "shape": array.shape,
                        "data_offsets": [len(data), len(data) + kept.nbytes]}
        data += kept.tobytes()
    head = json.dumps(header).encode()
    (folder / file).write_bytes(len(head).to_bytes(8, "little") + head + data)
    return folder


def require_equal(folder, config, tensors, **settings):
    """The model in ``folder`` computes, for a short sequence, what plain loops do."""
    model, tokens = read_model(folder), [5, 11, 5, 59]
    states = list(model.states([tokens]))
    made, logits = naive_transformer.transformer(tokens, tensors, config, **settings)
    for state, (before, pattern, attended, after) in zip(states, made, strict=True):
        for found, expected in ((state.before, before), (state.pattern, pattern), (state.attended, attended),
                                (state.after, after)):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(model.logits(states[-1].after)[0], logits, rtol=0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_states_patterns_and_logits_are_those_of_transformers(family, monkeypatch):
    """The recorded Llama had frequencies rounded to float16 (tests/data/README.md); with them, 1e-4 becomes 1e-6."""
    if family == "llama":
        exact = forward.frequencies
        monkeypatch.setattr(forward, "frequencies", lambda *given: exact(*given).astype(np.float16).astype(float))
    expected = json.loads((CHECKPOINTS / family / "expected.json").read_text())
    model = read_model(CHECKPOINTS / family)
    states = list(model.states(expected["tokens"]))
    logits = model.logits(states[-1].after)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=2e-6 * np.abs(logits).max())
    hidden = [*(state.before[0] for state in states), model.last_norm(states[-1].after)[0]]
    np.testing.assert_allclose(hidden, expected["hidden_states"], rtol=0, atol=5e-6)
    np.testing.assert_allclose([state.pattern[0] for state in states], expected["attentions"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("family", "rotary"), [("gpt-neox", 2), ("gpt2", 0), ("llama", 8)])
def test_plain_loops_compute_the_same(family, rotary):
    config, tensors = contents(family)
    require_equal(CHECKPOINTS / family, config, tensors, rotary=rotary, tied=family == "gpt2")


def test_a_sequential_tied_neox_with_a_configuration_in_the_style_of_pythia(tmp_path):
    config, tensors = contents("gpt-neox")
    del config["rope_parameters"], tensors["embed_out.weight"]
    config |= {"rotary_pct": 0.5, "rotary_emb_base": 100, "use_parallel_residual": False, "tie_word_embeddings": True}
    require_equal(write(tmp_path / "m", config, tensors), config, tensors, rotary=4, base=100, tied=True)


def test_bfloat16_in_shards(tmp_path):
    config, tensors = contents("llama")
    tensors = {name: (array.view(np.uint32) >> 16 << 16).view(np.float32) for name, array in tensors.items()}
    names, folder = list(tensors), tmp_path / "m"
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        write(folder, config, {name: tensors[name] for name in held}, "bfloat16", file)
    where = {name: file for file, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    require_equal(folder, config, tensors, rotary=8)


def test_a_file_without_the_prefix_of_the_head_and_with_what_are_no_weights(tmp_path):
    """As the hub has GPT-2: ``h.0...`` instead of ``transformer.h.0...``, and masks among the tensors."""
    config, tensors = contents("gpt2")
    bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    write(tmp_path / "m", config, bare | {"h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32)})
    require_equal(tmp_path / "m", config, tensors, tied=True)


def test_bits_do_not_depend_on_threads(monkeypatch):
    tokens, found = np.arange(60).reshape(60, 1), []
    monkeypatch.setattr(forward, "BLOCK", 7)
    for threads in (1, 2):
        set_threads(threads)
        found.append([state.after for state in read_model(CHECKPOINTS / "llama").states(tokens)])
    np.testing.assert_array_equal(*found)


def _damaged(family, change, tmp_path):
    config, tensors = contents(family)
    change(config, tensors)
    return write(tmp_path / "m", config, tensors)


@pytest.mark.parametrize(("family", "change", "says"), [
    ("gpt2", lambda config, tensors: tensors.pop("transformer.h.0.ln_1.bias"), "no tensor transformer.h.0.ln_1.bias"),
    ("llama", lambda config, tensors: config.update(hidden_size=16), r"sizes \(32,\), but config.json says \(16,\)"),
    ("llama", lambda config, tensors: config.update(model_type="mamba"), "model_type 'mamba'; it must be one of gpt"),
    ("llama", lambda config, tensors: config.pop("rms_norm_eps"), "no entry rms_norm_eps, which a llama needs"),
    ("llama", lambda config, tensors: config.update(rope_scaling={"factor": 2}), "scales rotary positions"),
    ("llama", lambda config, tensors: config.update(attention_bias=True), "a llama with biases is not implemented"),
    ("gpt2", lambda config, tensors: config.update(scale_attn_weights=False), "scales attention"),
    ("gpt-neox", lambda config, tensors: config.update(hidden_act="relu6"), "'relu6'; it must be one of gelu, "),
    ("gpt-neox", lambda config, tensors: tensors.pop("embed_out.weight"), "no tensor embed_out.weight"),
])
def test_what_does_not_fit_is_named(family, change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_model(_damaged(family, change, tmp_path))


def test_missing_files_are_named_and_a_pickle_is_not_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="config.json"):
        read_model(tmp_path)
    shutil.copy(CHECKPOINTS / "llama" / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        read_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match="a pickle.*convert it: python -c .*safe_serialization=True"):
        read_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="no whole safetensors file"):
        read_model(tmp_path)
    whole = (CHECKPOINTS / "llama" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        read_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON file"):
        read_model(tmp_path)


def test_ids_and_lengths_out_of_range_are_refused():
    model = read_model(CHECKPOINTS / "gpt2")
    for tokens in ([[60]], [[-1]], [[0] * 65], np.zeros((0, 3), int)):
        with pytest.raises(ValueError, match="gpt2 takes ids from 0 to 59 and at most 64 positions"):
            model.embed(tokens)


def test_without_the_package_the_line_that_installs_it_is_said(tmp_path):
    script = ("import sys\nsys.modules['safetensors'] = None\nfrom minitx.language_model import read_model\n"
              f"try:\n    read_model({str(CHECKPOINTS / 'llama')!r})\nexcept ValueError as error:\n    print(error)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'minitx[llm]'" in done.stdout


@pytest.mark.parametrize(("name", "step"), [("pythia-1.4b-step3000", 3000), ("checkpoint-12", 12), ("step_8", 8),
                                            ("gpt2", None)])
def test_the_step_of_a_checkpoint_is_in_its_name(name, step):
    assert training_step(name) == step


def test_the_loss_is_the_cross_entropy_of_the_logits():
    model = read_model(CHECKPOINTS / "gpt-neox")
    tokens = np.arange(24).reshape(2, 12)
    *_, last = model.states(tokens[:, :-1])
    logits = model.logits(last.after).astype(float)
    picked = [np.log(np.exp(row).sum()) - row[target]
              for rows, targets in zip(logits, tokens[:, 1:], strict=True)
              for row, target in zip(rows, targets, strict=True)]
    assert model.loss(tokens) == pytest.approx(np.mean(picked), rel=1e-6)
