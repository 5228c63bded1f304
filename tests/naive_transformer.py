"""Pre-trained transformers by plain loops over positions, heads and dimensions, for one sequence of tokens, in float64.

``tensors`` are those of the file, by name; ``config`` is its config.json. Nothing of minitx is imported.
"""

from math import cos, erf, exp, pi, sin, sqrt, tanh


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def linear(x, tensors, name, conv1d=False):
    """Every output of a weight that is stored (out, in), or (in, out) as Conv1D, plus its bias if there is one."""
    weight = tensors[f"{name}.weight"]
    weight = weight.T if conv1d else weight
    bias = tensors.get(f"{name}.bias", [0.0] * len(weight))
    return [dot(row, x) + float(b) for row, b in zip(weight, bias, strict=True)]


def norm(x, tensors, name, epsilon):
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    mean = sum(x) / len(x) if bias is not None else 0.0
    size = sqrt(sum((value - mean) ** 2 for value in x) / len(x) + epsilon)
    shift = [0.0] * len(x) if bias is None else bias
    return [(value - mean) / size * float(w) + float(b) for value, w, b in zip(x, weight, shift, strict=True)]


def rotate(x, position, size, base):
    """Dimension i turns with dimension i + size / 2 by the angle position * base^(-2 i / size)."""
    x, half = list(x), size // 2
    for i in range(half):
        angle = position * base ** (-2 * i / size)
        a, b = x[i], x[i + half]
        x[i], x[i + half] = a * cos(angle) - b * sin(angle), b * cos(angle) + a * sin(angle)
    return x


def attention(q, k, v):
    """Per head: q, k, v are lists over positions of vectors. Returns (pattern, mixed values)."""
    pattern, mixed = [], []
    for t, query in enumerate(q):
        scores = [exp(dot(query, k[j]) / sqrt(len(query))) for j in range(t + 1)]
        row = [score / sum(scores) for score in scores]
        pattern.append(row + [0.0] * (len(q) - t - 1))
        mixed.append([sum(row[j] * v[j][i] for j in range(t + 1)) for i in range(len(query))])
    return pattern, mixed


ACT = {"gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2, "silu": lambda x: x / (1 + exp(-x)),
       "gelu_new": lambda x: x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2}


def cut(vector, parts):
    size = len(vector) // parts
    return [vector[i * size:(i + 1) * size] for i in range(parts)]


def queries_keys_values(x, tensors, config, at):
    """For one position, three lists of heads; keys and values of a group stand there once for each of its heads."""
    if config["model_type"] == "gpt_neox":
        return zip(*(cut(head, 3) for head in cut(linear(x, tensors, f"{at}.attention.query_key_value"),
                                                  config["num_attention_heads"])), strict=True)
    if config["model_type"] == "gpt2":
        return (cut(part, config["n_head"]) for part in cut(linear(x, tensors, f"{at}.attn.c_attn", True), 3))
    H, G = config["num_attention_heads"], config["num_key_value_heads"]
    q, k, v = (cut(linear(x, tensors, f"{at}.self_attn.{part}_proj"), count)
               for part, count in (("q", H), ("k", G), ("v", G)))
    return q, [k[h * G // H] for h in range(H)], [v[h * G // H] for h in range(H)]


def mlp(x, tensors, config, at):
    if config["model_type"] == "llama":
        gate, up = linear(x, tensors, f"{at}.mlp.gate_proj"), linear(x, tensors, f"{at}.mlp.up_proj")
        return linear([ACT["silu"](g) * u for g, u in zip(gate, up, strict=True)], tensors, f"{at}.mlp.down_proj")
    gpt2 = config["model_type"] == "gpt2"
    first, second = ("c_fc", "c_proj") if gpt2 else ("dense_h_to_4h", "dense_4h_to_h")
    act = ACT["gelu_new" if gpt2 else config["hidden_act"]]
    return linear([act(value) for value in linear(x, tensors, f"{at}.mlp.{first}", gpt2)], tensors,
                  f"{at}.mlp.{second}", gpt2)


NAMES = {  # family: prefix, layer, first norm, second norm, output of attention, last norm, embedding, head
    "gpt_neox": ("gpt_neox.", "layers", "input_layernorm", "post_attention_layernorm", "attention.dense",
                 "final_layer_norm", "embed_in", "embed_out"),
    "gpt2": ("transformer.", "h", "ln_1", "ln_2", "attn.c_proj", "ln_f", "wte", "lm_head"),
    "llama": ("model.", "layers", "input_layernorm", "post_attention_layernorm", "self_attn.o_proj", "norm",
              "embed_tokens", "lm_head")}


def transformer(tokens, tensors, config, rotary=0, base=10_000.0, tied=False):
    """(per layer (before, pattern by head, attended, after), logits) as nested lists."""
    prefix, layers, first, second, out, last, embedding, head = NAMES[config["model_type"]]
    gpt2 = config["model_type"] == "gpt2"
    epsilon = config.get("layer_norm_eps", config.get("layer_norm_epsilon", config.get("rms_norm_eps")))
    state = [[float(value) for value in tensors[f"{prefix}{embedding}.weight"][token]] for token in tokens]
    if gpt2:
        state = [add(row, tensors[f"{prefix}wpe.weight"][t]) for t, row in enumerate(state)]
    made = []
    for number in range(config.get("num_hidden_layers", config.get("n_layer"))):
        at = f"{prefix}{layers}.{number}"
        before = state
        heads = [tuple(queries_keys_values(norm(row, tensors, f"{at}.{first}", epsilon), tensors, config, at))
                 for row in before]
        found = []
        for h in range(len(heads[0][0])):
            q, k = ([rotate(position[part][h], t, rotary, base) for t, position in enumerate(heads)] for part in (0, 1))
            found.append(attention(q, k, [position[2][h] for position in heads]))
        mixed = [[value for _, head_mixed in found for value in head_mixed[t]] for t in range(len(tokens))]
        attended = [add(row, linear(both, tensors, f"{at}.{out}", gpt2))
                    for row, both in zip(before, mixed, strict=True)]
        parallel = config.get("use_parallel_residual", False)
        state = [add(a, mlp(norm(b if parallel else a, tensors, f"{at}.{second}", epsilon), tensors, config, at))
                 for b, a in zip(before, attended, strict=True)]
        made.append((before, [pattern for pattern, _ in found], attended, state))
    table = tensors[f"{prefix}{embedding}.weight" if tied else f"{head}.weight"]
    final = [norm(row, tensors, f"{prefix}{last}", epsilon) for row in state]
    return made, [[dot(row, word) for word in table] for row in final]


def add(a, b):
    return [float(x) + float(y) for x, y in zip(a, b, strict=True)]
