"""The forward pass of pre-trained transformers, one layer in memory at a time, in NumPy.

GPT-NeoX, GPT-2 and Llama differ in their norms, positions, attention heads and MLPs. An :class:`Architecture` says how;
the pass itself is written once.

Legend: N sequences, T positions, V vocabulary, d width of the residual stream, H heads of width e that attend with the
keys and values of G groups, m width of the MLP. All arrays are float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, expit

from minitx.base.checks import integers
from minitx.base.parallel import matmul, workers
from minitx.base.shown import Shown

BLOCK = 1024  # Positions that a thread computes at once; their MLP takes m numbers each, most of the memory needed.
Array = NDArray[np.float32]

# {name in config.json: the function}; GPT-2's is the approximation by tanh.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: x * (1 + erf(x * np.float32(0.5**0.5))) / 2,
    "gelu_new": lambda x: x * expit(np.float32((8 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)),
    "silu": lambda x: x * expit(x),
}


@dataclass(frozen=True)
class Architecture(Shown):
    """What distinguishes the three families, and the sizes."""

    family: str  # "gpt_neox", "gpt2" or "llama"
    n_layers: int
    n_heads: int  # H
    n_groups: int  # G, a divisor of H: H / G heads share their keys and values
    width: int  # d
    head_width: int  # e
    n_vocab: int  # V, of the embeddings; there may be more than tokens
    activation: str  # one of ACTIVATIONS
    parallel: bool  # the MLP reads the input of the layer, not the state after attention
    rotary: int  # dimensions of each head that are rotated by position, in two halves; 0: positions are embedded
    rotary_base: float
    n_positions: int  # most positions of a sequence


@dataclass(frozen=True, eq=False)
class Norm(Shown):
    """LayerNorm, or RMSNorm where ``bias`` is None: x / sqrt(mean(x^2) + epsilon) * weight, of centred x in LayerNorm.
    """

    weight: Array  # (d,)
    bias: Array | None
    epsilon: float

    def __call__(self, x: Array) -> Array:
        """The normalised rows of ``x``, (..., d)."""
        if self.bias is not None:
            x = x - x.mean(axis=-1, keepdims=True)
        size = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        return x / size * self.weight + (0 if self.bias is None else self.bias)


@dataclass(frozen=True, eq=False)
class Layer(Shown):
    """The weights of one layer. Row = dimension that is read, column = dimension that is written; biases may be 0."""

    norm_attention: Norm
    norm_mlp: Norm
    W_Q: Array  # (d, H, e)
    b_Q: Array  # (H, e)
    W_K: Array  # (d, G, e)
    b_K: Array  # (G, e)
    W_V: Array  # (d, G, e)
    b_V: Array  # (G, e)
    W_O: Array  # (H, e, d)
    b_O: Array  # (d,)
    W_in: Array  # (d, m)
    b_in: Array  # (m,)
    W_gate: Array | None  # (d, m), of Llama: the activation is taken of x W_gate, and multiplies x W_in
    W_out: Array  # (m, d)
    b_out: Array  # (d,)


@dataclass(frozen=True, eq=False)
class States(Shown):
    """What a layer made of N sequences. ``attended`` is ``before`` plus attention's output, without the MLP."""

    number: int  # of the layer, from 0
    layer: Layer
    before: Array  # (N, T, d): residual stream before the layer
    pattern: Array  # (N, H, T, T): attention; row = query position, column = key position
    attended: Array  # (N, T, d): residual stream after attention
    after: Array  # (N, T, d): residual stream after the layer


@dataclass(frozen=True, eq=False)
class Transformer(Shown):
    """A pre-trained transformer, whose weights are read when they are used."""

    MADE_BY: ClassVar[str] = "minitx.language_model.read_model(folder)"

    name: str
    architecture: Architecture
    embedding: Callable[[Any], Array]  # ids (n,) or a slice -> W_E of these tokens, (n, d): row = token
    unembedding: Callable[[Any], Array]  # the same of W_U, transposed: (n, d), row = output token
    positions: Array | None  # (n_positions, d): embeddings of positions; None where heads are rotated
    layer: Callable[[int], Layer]  # number of a layer, from 0 -> its weights
    last_norm: Norm

    def embed(self, tokens: ArrayLike) -> Array:
        """Return the residual stream before layer 0, (N, T, d), of ids (N, T). Raises ValueError if they do not fit."""
        ids = integers("tokens", tokens, 2)
        n_vocab, most = self.architecture.n_vocab, self.architecture.n_positions
        if ids.size == 0 or ids.min() < 0 or ids.max() >= n_vocab or ids.shape[1] > most:
            held = f"ids from {ids.min()} to {ids.max()}" if ids.size else "no ids"
            raise ValueError(f"tokens have shape {ids.shape} and hold {held}; {self.name} takes ids from 0 to "
                             f"{n_vocab - 1} and at most {most:,} positions")
        state = self.embedding(ids.ravel()).reshape(*ids.shape, -1)
        return state if self.positions is None else state + self.positions[:ids.shape[1]]

    def states(self, tokens: ArrayLike) -> Iterator[States]:
        """Iterate over the layers for token ids (N, T); raises as :meth:`embed`.

        Only the weights of the current layer are in memory. Every position attends to itself and to earlier ones.
        """
        after = self.embed(tokens)
        for number in range(self.architecture.n_layers):
            layer, before = self.layer(number), after
            pattern, attended, after = _layer_forward(self.architecture, layer, before)
            yield States(number, layer, before, pattern, attended, after)

    def logits(self, state: Array) -> Array:
        """The output (N, T, V) of the residual stream ``state`` (N, T, d) after the last layer."""
        final = self.last_norm(state)
        return matmul(final.reshape(-1, final.shape[-1]), self.unembedding(slice(None)).T).reshape(*state.shape[:2], -1)

    def loss(self, tokens: ArrayLike) -> float:
        """Mean cross-entropy of the next token, in nats, of windows of token ids (N, T + 1)."""
        ids = integers("tokens", tokens, 2)
        *_, last = self.states(ids[:, :-1])
        logits = self.logits(last.after)
        logits -= logits.max(axis=-1, keepdims=True)
        rows = np.take_along_axis(logits, ids[:, 1:, None], axis=2)[..., 0]
        return float(np.mean(np.log(np.exp(logits).sum(axis=-1, dtype=np.float64)) - rows))


def _layer_forward(architecture, layer, before):
    """(pattern, attended, after), computed for some sequences at a time. Each block has its thread."""
    n, length, _ = before.shape
    pattern = np.empty((n, architecture.n_heads, length, length), np.float32)
    attended, after = np.empty_like(before), np.empty_like(before)
    size = max(1, BLOCK // length)
    blocks = [slice(first, first + size) for first in range(0, n, size)]

    def compute(rows):
        x = before[rows]
        pattern[rows], mixed = _attention_forward(architecture, layer, layer.norm_attention(x))
        attended[rows] = y = x + mixed
        after[rows] = y + _mlp_forward(architecture, layer, layer.norm_mlp(x if architecture.parallel else y))

    with workers(len(blocks)) as run:
        run(compute, blocks)
    return pattern, attended, after


def heads(x: Array, W: Array, b: Array) -> Array:
    """x W + b of every head: (..., d), (d, H, e), (H, e) -> (..., H, e)."""
    return matmul(x.reshape(-1, x.shape[-1]), W.reshape(len(W), -1)).reshape(*x.shape[:-1], *b.shape) + b


def _attention_forward(architecture, layer, x):
    """Patterns (n, H, T, T) and output (n, T, d) of attention on normalised states (n, T, d)."""
    shared = architecture.n_heads // architecture.n_groups
    q, k = (_rotated(architecture, heads(x, W, b)) for W, b in ((layer.W_Q, layer.b_Q), (layer.W_K, layer.b_K)))
    v = heads(x, layer.W_V, layer.b_V)
    q = q.swapaxes(1, 2)  # (n, H, T, e)
    k, v = (np.repeat(part.swapaxes(1, 2), shared, axis=1) for part in (k, v))
    with workers(1):
        scores = q @ k.swapaxes(2, 3) / np.float32(architecture.head_width**0.5)
        scores[..., ~np.tri(x.shape[1], dtype=bool)] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        pattern = np.exp(scores)
        pattern /= pattern.sum(axis=-1, keepdims=True)
        mixed = (pattern @ v).swapaxes(1, 2)  # (n, T, H, e)
    flat = mixed.reshape(-1, architecture.n_heads * architecture.head_width)
    return pattern, matmul(flat, layer.W_O.reshape(flat.shape[1], -1)).reshape(x.shape) + layer.b_O


def frequencies(architecture: Architecture) -> NDArray[np.float64]:
    """The angle by which each pair of rotated dimensions turns from one position to the next, (rotary / 2,)."""
    return architecture.rotary_base ** (-np.arange(0, architecture.rotary, 2) / max(1, architecture.rotary))


def _rotated(architecture, x):
    """Heads (n, T, H, e) rotated by position: dimension i of the first half with dimension i of the second."""
    size, half = architecture.rotary, architecture.rotary // 2
    angle = np.outer(np.arange(x.shape[1]), frequencies(architecture))
    cos, sin = (part.astype(np.float32)[:, None] for part in (np.cos(angle), np.sin(angle)))  # (T, 1, half)
    first, second, rest = x[..., :half], x[..., half:size], x[..., size:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def _mlp_forward(architecture, layer, x):
    """Output (n, T, d) of the MLP on normalised states (n, T, d)."""
    flat, act = x.reshape(-1, x.shape[-1]), ACTIVATIONS[architecture.activation]
    inner = matmul(flat, layer.W_in) + layer.b_in
    inner = act(inner) if layer.W_gate is None else act(matmul(flat, layer.W_gate)) * inner
    return (matmul(inner, layer.W_out) + layer.b_out).reshape(x.shape)
