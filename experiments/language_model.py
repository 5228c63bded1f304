"""Do trained language models hold the associations of a text? ``minitx language-model`` on the models of glassllm.

    python experiments/language_model.py [TINYSTORIES.txt] [MODEL ...] [--quick] [--out DIR]

The package `glassllm` (MIT licence) ships two small trained models of Llama's architecture, of English and Portuguese
books; they are written as checkpoints first. Each stands beside a text that it draws itself, and the English one also
beside TEXT. Each MODEL, the folder of a checkpoint, stands beside TEXT too. It needs `pip install 'minitx[llm]'
glassllm`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from running import block, command_line, paragraphs, read, refuse, write_down

from minitx.base.tables import number

STATISTICS = ("published", "centred", "rows", "entries")
DOCUMENTS, LENGTH = 600, 120  # of the text that a model draws; its own limit is 128 tokens


def section(results):
    """Markdown of what language_model.json holds."""
    parts = []
    for run in results["runs"]:
        rows = [(one["layer"], one["part"], number(one["published"]["value"], 3), number(one["published"]["mean"], 3),
                 *(number(one["centred"][key], digits) for key, digits in (("value", 3), ("mean", 3), ("z", 0))),
                 *(number(one["rows"][key], digits) for key, digits in (("value", 3), ("z", 0))))
                for one in run["mean"] if one["part"] != "before" or one["layer"] == 0]
        heads = [(part, theory, f"{found['above']} of {found['heads']}", number(found["value"], 3),
                  number(found["z"], 0)) for part, theory, found in run["heads"]]
        parts += [f"### {run['model']} beside {run['text']}, {run['tokens']} tokens",
                  block(("layer", "part ", "published", "permuted", "centred", "permuted", "z", "rows", "z"), rows),
                  block(("map of each head ", "beside ", "heads with z > 5", "largest cosine of entries", "z"), heads)]
    return paragraphs(
        "## Language models beside the associations of a text",
        "The first table of each run compares the residual states of tokens with the leading term Φᵀ Bᵀ, and the mean "
        "query-key map of the heads of a layer with Q. Every token is given to the model alone. The column `published` "
        "is the cosine of the paper, which centres the rows of the covariances only; `centred` is the cosine centred "
        "over tokens (linear CKA); `rows` is the mean rank correlation of corresponding rows. The column `permuted` is "
        "the mean of the statistic over all permutations of the tokens: where it equals the observed value, the "
        "statistic does not tell tokens apart. The column `z` is the distance from this mean in standard deviations "
        "over permutations. The second table compares the maps of single heads with the leading terms.", *parts)


def checkpoint(language, folder):
    """Write the model of glassllm as the checkpoint of a Llama; return what glassllm itself loads, (model, tokenizer).

    glassllm turns neighbouring dimensions of a head together and Llama those half a head apart, so the columns of W_Q
    and W_K change their order. Its tokenizer is byte pairs of characters, with a sign for the space.
    """
    from glassllm import load_pretrained
    from safetensors.numpy import save_file
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    model, words = load_pretrained(language)
    size, e = model.cfg, model.cfg.d_model // model.cfg.n_heads
    names = {"attn.W_Q": "self_attn.q_proj", "attn.W_K": "self_attn.k_proj", "attn.W_V": "self_attn.v_proj",
             "attn.W_O": "self_attn.o_proj", "ffn.W1": "mlp.gate_proj", "ffn.W3": "mlp.up_proj",
             "ffn.W2": "mlp.down_proj", "norm1.gamma": "input_layernorm", "norm2.gamma": "post_attention_layernorm"}
    tensors = {"model.embed_tokens.weight": model.E.data, "model.norm.weight": model.norm_f.gamma.data}
    for layer, part in enumerate(model.blocks):
        for name, weight in part.named_parameters().items():
            W = weight.data
            if name in ("attn.W_Q", "attn.W_K"):
                W = W.reshape(len(W), -1, e)[:, :, [*range(0, e, 2), *range(1, e, 2)]].reshape(W.shape)
            tensors[f"model.layers.{layer}.{names[name]}.weight"] = np.ascontiguousarray(W.T)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "num_hidden_layers": size.n_layers, "num_attention_heads": size.n_heads,
        "num_key_value_heads": size.n_kv_heads, "hidden_size": size.d_model, "vocab_size": size.vocab_size,
        "intermediate_size": len(tensors["model.layers.0.mlp.up_proj.weight"]), "hidden_act": "silu",
        "max_position_embeddings": size.max_len, "rms_norm_eps": size.eps, "rope_theta": size.rope_base,
        "tie_word_embeddings": True}))
    file = Tokenizer(models.BPE(words.token_to_id, words.merges, unk_token="<unk>"))
    file.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "▁")])
    file.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|▁*[^▁\n]+|▁+"), "isolated")
    file.decoder = decoders.Replace("▁", " ")
    file.save(str(folder / "tokenizer.json"))
    return model, words


def draw(model, words, n_documents, rng):
    """Texts that a model of glassllm draws, all at the same time: each begins with a line end, and has 120 tokens."""
    from glassllm import no_grad

    noise, cache = np.random.default_rng(rng), model.new_cache()
    ids = np.full((n_documents, 1), words.token_to_id["\n"])
    with no_grad():
        for start in range(LENGTH):
            logits = model.forward(ids[:, -1:], cache=cache, start=start).data[:, -1]
            ids = np.hstack([ids, np.argmax(logits + noise.gumbel(size=logits.shape), axis=1)[:, None]])
    return [" ".join(words.decode(row.tolist()).split()) for row in ids]


def compare(model, text, folder, quick):
    """Run the command; return what the tables show of what results.json holds."""
    command = [sys.executable, "-m", "minitx", "language-model", str(model), "--text", str(text), "--length", "50",
               "--out", str(folder)]
    subprocess.run(command + (["--tokens", "100"] if quick else []), check=True, stdout=subprocess.DEVNULL)
    results = read(folder / "results.json")
    [found] = results["models"]
    records = found["records"]
    mean = [one for one in records if one["head"] is None and one["rows"]]  # without Q transposed
    heads = {}
    for one in records:
        if one["head"] is not None:
            heads.setdefault((one["part"], one["theory"]), []).append(one["entries"])
    return {"model": found["name"], "text": Path(text).name, "tokens": results["text"]["tokens"],
            "mean": [{key: one[key] for key in ("layer", "part", "theory", *STATISTICS)} for one in mean],
            "heads": [[*kind, {"heads": len(all_of), "above": sum(one["z"] > 5 for one in all_of),
                               **max(all_of, key=lambda one: one["z"])}] for kind, all_of in heads.items()]}


def main():
    """Write the checkpoints and texts, run the command on each, and write and print the results."""
    arguments = command_line("language_model", __doc__, quick="100 tokens, and short texts",
                             text="a text for the English model and each MODEL", models="folder of a checkpoint")
    try:
        import glassllm  # noqa: F401
        import safetensors  # noqa: F401
    except ImportError as error:
        refuse(f"{error}; type: pip install 'minitx[llm]' glassllm")
    out, runs = arguments.out, []
    for language in ("en", "pt"):
        model, words = checkpoint(language, out / f"glassllm-{language}")
        text = out / f"drawn-{language}.txt"
        text.write_text("\n".join(draw(model, words, 40 if arguments.quick else DOCUMENTS, 0)), encoding="utf-8")
        runs.append((out / f"glassllm-{language}", text))
    if arguments.text:
        runs += [(folder, arguments.text) for folder in (out / "glassllm-en", *arguments.models)]
    write_down("language_model", arguments, {"runs": [compare(*pair, out / f"run{i}", arguments.quick)
                                                      for i, pair in enumerate(runs)]}, section)


if __name__ == "__main__":
    main()
