"""How long a model of 1.4 B parameters takes here, and how much memory: random weights of Pythia-1.4B's shape.

    python experiments/large_model.py [--quick] [--out DIR]

All layers have the same shape and one is in memory at a time, so 2 of the 24 are written, in float16 (0.6 GB, deleted
at the end). Every token that the tokenizer has is given to the model alone; 2,000 of them are compared with random
leading terms, at the cost of a text's.
"""

import json
import resource
import shutil
import time
from multiprocessing import get_context

import numpy as np
from running import block, command_line, paragraphs, refuse, write_down

from minitx.base.parallel import get_threads
from minitx.base.tables import number
from minitx.language_model import LeadingTerms, compare_layers, read_model

FULL = {"d": 2048, "m": 8192, "heads": 16, "layers": 2, "rows": 50_304, "tokens": 50_277, "compared": 2000}
QUICK = {"d": 64, "m": 256, "heads": 4, "layers": 2, "rows": 512, "tokens": 500, "compared": 100}


def section(results):
    """Markdown of what large_model.json holds."""
    size = results["size"]
    rows = [("states of all tokens", f"{size['tokens']:,}", *results["states"]),
            ("comparison with leading terms", f"{size['compared']:,}", *results["comparison"])]
    return paragraphs(
        "## A model of the shape of Pythia-1.4B",
        f"The model has random weights in float16, the width {size['d']:,}, MLPs of width {size['m']:,}, "
        f"{size['heads']} heads, {size['rows']:,} embeddings, and {size['layers']} of the 24 layers of Pythia-1.4B, "
        "all of which have the same shape. The column `seconds a layer` is the median time that a layer takes on "
        f"{results['threads']} threads, including the reading of its weights, and `of processors` is the processor "
        "time of all threads together. The column `peak memory` is that of the process. Other programs ran at a higher "
        "priority, so the first time is far above what the job needs; the processor time, divided by the number of "
        "threads, is near it.",
        block(("job ", "tokens", "seconds a layer", "of processors", "peak memory"),
              [(job, tokens, number(seconds, 1), number(processors, 1), f"{memory / 1e9:.1f} GB")
               for job, tokens, seconds, processors, memory in rows]))


def write(folder, size):
    """Write the checkpoint of a GPT-NeoX with random weights."""
    from safetensors.numpy import save_file

    d, m, draw = size["d"], size["m"], np.random.default_rng(0)
    shapes = {"gpt_neox.embed_in.weight": (size["rows"], d), "embed_out.weight": (size["rows"], d)}
    for layer in range(size["layers"]):
        for name, shape in {"attention.query_key_value": (3 * d, d), "attention.dense": (d, d),
                            "mlp.dense_h_to_4h": (m, d), "mlp.dense_4h_to_h": (d, m)}.items():
            shapes[f"gpt_neox.layers.{layer}.{name}.weight"] = shape
            shapes[f"gpt_neox.layers.{layer}.{name}.bias"] = shape[:1]
    tensors = {name: (draw.standard_normal(shape, np.float32) / d**0.5).astype(np.float16)
               for name, shape in shapes.items()}
    norms = [f"gpt_neox.layers.{layer}.{name}" for layer in range(size["layers"])
             for name in ("input_layernorm", "post_attention_layernorm")]
    for name in (*norms, "gpt_neox.final_layer_norm"):
        tensors |= {f"{name}.weight": np.ones(d, np.float16), f"{name}.bias": np.zeros(d, np.float16)}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "gpt_neox", "num_hidden_layers": size["layers"], "num_attention_heads": size["heads"],
        "hidden_size": d, "intermediate_size": m, "vocab_size": size["rows"], "hidden_act": "gelu", "rotary_pct": 0.25,
        "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "use_parallel_residual": True}))


def states(folder, size):
    """Iterate over the layers with all tokens."""
    return read_model(folder).states(np.arange(size["tokens"])[:, None])


def comparison(folder, size):
    """Iterate over the layers with some tokens, beside random leading terms."""
    n = size["compared"]
    draw = np.random.default_rng(0)
    terms = LeadingTerms(np.arange(n), ("",) * n, *(draw.normal(size=(n, n)) for _ in range(5)), coverage=1.0)
    return compare_layers(read_model(folder), terms)


def measured(job, folder, size):
    """(median seconds of a layer, median seconds of its processors, peak bytes of the process)."""
    clocks = [(time.perf_counter(), time.process_time())]
    for _ in job(folder, size):
        clocks.append((time.perf_counter(), time.process_time()))
    seconds, processors = np.median(np.diff(clocks, axis=0), axis=0)
    return float(seconds), float(processors), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    """Write the checkpoint, time both jobs in a process each, and write and print the results."""
    arguments = command_line("large_model", __doc__, quick="a model of width 64")
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        refuse(f"{error}; type: pip install 'minitx[llm]'")
    size, folder = QUICK if arguments.quick else FULL, arguments.out / "checkpoint"
    results = {"size": size, "threads": get_threads()}
    try:
        write(folder, size)
        for job in (states, comparison):
            with get_context("spawn").Pool(1) as pool:
                results[job.__name__] = pool.apply(measured, (job, folder, size))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_down("large_model", arguments, results, section)


if __name__ == "__main__":
    main()
