"""Folders of pre-trained models: ``config.json`` and ``model.safetensors``, whole or in shards, become a Transformer.

The file is mapped into memory, and a tensor is copied once, to float32, when it is used. A pickle is never opened.

Legend: as in :mod:`minitx.language_model.forward`.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import existing_file, extra_package
from minitx.data.tokenizers import FileTokenizer
from minitx.language_model.forward import ACTIVATIONS, Architecture, Layer, Norm, Transformer

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # bfloat16 is the upper half of a float32
SAME_ACTIVATION = {"gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "swish": "silu"}
CONVERT = ("python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{0}')"
           ".save_pretrained('{0}', safe_serialization=True)\"")


class Tensors:
    """The tensors of a folder by name. Raises as :func:`read_model`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._views: dict[str, tuple[str, NDArray]] = {}  # {name: (dtype in the file, array in the mapped file)}
        package = extra_package("safetensors", "files of language models", "the package safetensors", "llm")
        for path in _files(folder):
            try:
                with package.safe_open(path, "np"):  # checks the header
                    pass
            except Exception as error:  # the package's own class is not the only one
                raise ValueError(f"{path} is no whole safetensors file ({error}); copy it again") from error
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            data = np.memmap(path, np.uint8, "r", offset=8 + size)
            for name, entry in header.items():
                if entry.get("dtype") in DTYPES:
                    first, last = entry["data_offsets"]
                    array = data[first:last].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
                    self._views[name] = entry["dtype"], array

    def __contains__(self, name: str) -> bool:
        return name in self._views

    def prefix(self, text: str) -> str:
        """``text`` if names begin with it, as those of a model with a head do, else ""."""
        return text if any(name.startswith(text) for name in self._views) else ""

    def __call__(self, name: str, *shape: int, rows: Any = slice(None)) -> NDArray[np.float32]:
        """The tensor ``name`` of this ``shape``, or some of its rows, as float32."""
        if name not in self._views:
            raise ValueError(f"{self.folder} holds no tensor {name}; it has {len(self._views)} tensors, such as "
                             f"{', '.join(list(self._views)[:3])}")
        dtype, array = self._views[name]
        if array.shape != shape:
            raise ValueError(f"in {self.folder} the tensor {name} has the sizes {array.shape}, but config.json says "
                             f"{shape}")
        if dtype == "BF16":
            return (array[rows].astype(np.uint32) << 16).view(np.float32)
        return array[rows].astype(np.float32)


def _files(folder):
    """The safetensors files of a folder."""
    if (folder / INDEX).is_file():
        shards = sorted(set(_json(folder / INDEX)["weight_map"].values()))
        return [existing_file(folder / shard, "a shard of the model") for shard in shards]
    if not (folder / FILE).is_file() and (folder / "pytorch_model.bin").is_file():
        raise ValueError(f"{folder} holds pytorch_model.bin, a pickle, which may run any program and is not opened; "
                         f"convert it: {CONVERT.format(folder)}")
    return [existing_file(folder / FILE, f"{FILE}, the weights of the model")]


def _json(path):
    """The object in a JSON file of the folder."""
    try:
        found = json.loads(existing_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; a JSON object is needed")
    return found


def read_model(folder: str | Path) -> Transformer:
    """Read a GPT-NeoX (such as Pythia), GPT-2 or Llama model.

    Parameters
    ----------
    folder : str or Path
        It holds ``config.json`` and ``model.safetensors``, or its shards and ``model.safetensors.index.json``, in
        float32, float16 or bfloat16.

    Returns
    -------
    Transformer
        It reads the weights of a layer when they are used.

    Raises
    ------
    FileNotFoundError, ValueError
        A file, a tensor or an entry of config.json is missing or does not fit; the architecture is another; the package
        safetensors is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give one that holds config.json and {FILE}")
    config = _json(folder / "config.json")
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"{folder / 'config.json'} names the model_type {family!r}; it must be one of "
                         f"{', '.join(FAMILIES)}")
    try:
        model = FAMILIES[family](folder.resolve().name, Tensors(folder), config)
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} has no entry {error.args[0]}, which a {family} needs") from error
    model.layer(0)  # what is missing is said before any work
    return model


def read_tokenizer(folder: str | Path) -> FileTokenizer:
    """The tokenizer of a model's folder, ``tokenizer.json``; raises as ``FileTokenizer.read``."""
    return FileTokenizer.read(Path(folder) / "tokenizer.json")


def training_step(name: str) -> int | None:
    """The step of training in the name of a checkpoint, such as step3000 or checkpoint-3000; None if there is none."""
    found = re.findall(r"(?:step|checkpoint)[-_]?(\d+)", name.lower())
    return int(found[-1]) if found else None


def _architecture(config, sizes, *, n_groups, head_width, activation, rotary=0, rotary_base=1.0, parallel=False):
    """What config.json states; ``sizes`` are its names of layers, heads, width and positions, which families differ in.
    """
    activation = SAME_ACTIVATION.get(activation, activation)
    if activation not in ACTIVATIONS:
        raise ValueError(f"config.json has the activation {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")
    n_layers, n_heads, width, n_positions = (config[size] for size in sizes)
    return Architecture(config["model_type"], n_layers, n_heads, n_groups, width, head_width, config["vocab_size"],
                        activation, parallel, rotary, rotary_base, n_positions)


def _rotation(config, head_width, share_name, base_name):
    """Dimensions that are rotated and the base, from both styles of config.json."""
    newer = config.get("rope_parameters") or {}
    scaled = config.get("rope_scaling") or newer.get("rope_type", "default") != "default"
    if scaled:
        raise ValueError(f"config.json scales rotary positions ({config.get('rope_scaling') or newer}); only unscaled "
                         "ones are implemented")
    share = newer.get("partial_rotary_factor", config.get(share_name, 1.0))
    return {"rotary": int(share * head_width),
            "rotary_base": newer.get("rope_theta", config.get(base_name, 10_000.0))}


def _transformer(name, tensors, architecture, embedding, unembedding, **parts):
    """The Transformer whose tables of tokens are the tensors of these names."""
    sizes = architecture.n_vocab, architecture.width
    for table in (embedding, unembedding):
        tensors(table, *sizes, rows=slice(0))  # what is missing is said at once
    return Transformer(name, architecture, lambda ids: tensors(embedding, *sizes, rows=ids),
                       lambda ids: tensors(unembedding, *sizes, rows=ids), **parts)


def _linear(tensors, name, read, written, *, biased=True, transposed=True):
    """A weight (read, written), which files hold ``transposed`` except for GPT-2's, and its bias (written,), or 0."""
    weight = tensors(f"{name}.weight", written, read).T if transposed else tensors(f"{name}.weight", read, written)
    return weight, tensors(f"{name}.bias", written) if biased else np.zeros(written, np.float32)


def _norm(tensors, name, width, epsilon, *, biased=True):
    return Norm(tensors(f"{name}.weight", width), tensors(f"{name}.bias", width) if biased else None, epsilon)


SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings")


def _neox(name, tensors, config):
    H, d, m = config["num_attention_heads"], config["hidden_size"], config["intermediate_size"]
    e, epsilon, prefix = d // H, config["layer_norm_eps"], tensors.prefix("gpt_neox.")
    biased = config.get("attention_bias", True)
    architecture = _architecture(config, SIZES, n_groups=H, head_width=e, activation=config["hidden_act"],
                                 parallel=config.get("use_parallel_residual", True),
                                 **_rotation(config, e, "rotary_pct", "rotary_emb_base"))

    def layer(number):
        at = f"{prefix}layers.{number}"
        W, b = _linear(tensors, f"{at}.attention.query_key_value", d, 3 * d, biased=biased)
        W, b = np.moveaxis(W.reshape(d, H, 3, e), 2, 0).copy(), b.reshape(H, 3, e)  # each head has its q, k and v
        W_O, b_O = _linear(tensors, f"{at}.attention.dense", d, d, biased=biased)
        return Layer(_norm(tensors, f"{at}.input_layernorm", d, epsilon),
                     _norm(tensors, f"{at}.post_attention_layernorm", d, epsilon),
                     W[0], b[:, 0], W[1], b[:, 1], W[2], b[:, 2], W_O.reshape(H, e, d), b_O,
                     *_linear(tensors, f"{at}.mlp.dense_h_to_4h", d, m), None,
                     *_linear(tensors, f"{at}.mlp.dense_4h_to_h", m, d))

    embedding = f"{prefix}embed_in.weight"
    return _transformer(name, tensors, architecture, embedding,
                        embedding if config.get("tie_word_embeddings", False) else "embed_out.weight", positions=None,
                        layer=layer, last_norm=_norm(tensors, f"{prefix}final_layer_norm", d, epsilon))


def _gpt2(name, tensors, config):
    H, d, epsilon = config["n_head"], config["n_embd"], config["layer_norm_epsilon"]
    e, m, prefix = d // H, config.get("n_inner") or 4 * d, tensors.prefix("transformer.")
    if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
        raise ValueError("config.json scales attention by layer, or not; only 1 / sqrt(head width) is implemented")
    architecture = _architecture(config, ("n_layer", "n_head", "n_embd", "n_positions"), n_groups=H, head_width=e,
                                 activation=config["activation_function"])

    def layer(number):
        at = f"{prefix}h.{number}"

        def linear(part, read, written):
            return _linear(tensors, f"{at}.{part}", read, written, transposed=False)

        W, b = linear("attn.c_attn", d, 3 * d)
        W, b = np.moveaxis(W.reshape(d, 3, H, e), 1, 0), b.reshape(3, H, e)  # all q, all k, all v
        W_O, b_O = linear("attn.c_proj", d, d)
        return Layer(_norm(tensors, f"{at}.ln_1", d, epsilon), _norm(tensors, f"{at}.ln_2", d, epsilon),
                     W[0], b[0], W[1], b[1], W[2], b[2], W_O.reshape(H, e, d), b_O,
                     *linear("mlp.c_fc", d, m), None, *linear("mlp.c_proj", m, d))

    embedding = f"{prefix}wte.weight"
    return _transformer(name, tensors, architecture, embedding,
                        embedding if config.get("tie_word_embeddings", True) else "lm_head.weight",
                        positions=tensors(f"{prefix}wpe.weight", architecture.n_positions, d), layer=layer,
                        last_norm=_norm(tensors, f"{prefix}ln_f", d, epsilon))


def _llama(name, tensors, config):
    H, d, m = config["num_attention_heads"], config["hidden_size"], config["intermediate_size"]
    G, e = config.get("num_key_value_heads") or H, config.get("head_dim") or d // H
    epsilon, prefix = config["rms_norm_eps"], tensors.prefix("model.")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise ValueError("config.json has attention_bias or mlp_bias; a llama with biases is not implemented")
    architecture = _architecture(config, SIZES, n_groups=G, head_width=e, activation=config["hidden_act"],
                                 **_rotation(config, e, "partial_rotary_factor", "rope_theta"))

    def layer(number):
        at = f"{prefix}layers.{number}"

        def linear(part, read, written):
            return _linear(tensors, f"{at}.{part}", read, written, biased=False)

        def by_head(part, count):
            W, b = linear(f"self_attn.{part}_proj", d, count * e)
            return W.reshape(d, count, e), b.reshape(count, e)

        W_O, b_O = linear("self_attn.o_proj", H * e, d)
        return Layer(_norm(tensors, f"{at}.input_layernorm", d, epsilon, biased=False),
                     _norm(tensors, f"{at}.post_attention_layernorm", d, epsilon, biased=False),
                     *by_head("q", H), *by_head("k", G), *by_head("v", G), W_O.reshape(H, e, d), b_O,
                     *linear("mlp.up_proj", d, m), linear("mlp.gate_proj", d, m)[0], *linear("mlp.down_proj", m, d))

    embedding = f"{prefix}embed_tokens.weight"
    return _transformer(name, tensors, architecture, embedding,
                        embedding if config.get("tie_word_embeddings", False) else "lm_head.weight", positions=None,
                        layer=layer, last_norm=_norm(tensors, f"{prefix}norm", d, epsilon, biased=False))


FAMILIES = {"gpt_neox": _neox, "gpt2": _gpt2, "llama": _llama}
