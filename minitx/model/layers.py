"""A model of L layers on one-hot embeddings: its weights, its loss and its exact gradient.

Legend: L layers, N sequences, T positions, V vocabulary; U distinct tokens of a sequence.

The same model is computed in one of two forms, as a sum over paths (paths.py) or densely (streams.py), whichever needs
fewer multiplications for the batch: :func:`operations` counts both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minitx.base.checks import generator, instance, not_negative, one_of, whole_number
from minitx.data.batch import Batch
from minitx.model.circuits import Circuits
from minitx.model.parameters import Array, Parameters, Seed
from minitx.model.paths import path_gradient, path_loss
from minitx.model.streams import chunks, forward, stream_gradient
from minitx.model.weights import OneHotWeights, gaussian_array

FORMS = {"paths": path_gradient, "stream": stream_gradient}


@dataclass(frozen=True, eq=False)
class LayeredWeights(Parameters):
    """L layers on one-hot embeddings: h_l = h_(l-1) + A_l h_(l-1) V_l, h_0 = X, out = h_L W_O.

    A_l = softmax(h_(l-1) W_l h_(l-1)^T + position), over the prefix (Im et al. 2026, Definition 3.1). For causal
    attention and the head ``cross_entropy`` only. A gradient is a LayeredWeights too.

    Parameters
    ----------
    W_O : (V, V) floats
        Output. Row = direction of the residual stream, column = next token.
    V : (L, V, V) floats
        Values, layer 1 first. Row = direction that is read, column = direction that is written.
    W : (L, V, V) floats
        Attention. Row = direction of the query, column = direction of the key.
    P : (L, T) floats
        Relative position: P[l - 1, r] is added to the scores of layer l of the token r places back.
    """

    MADE_BY: ClassVar[str] = ("LayeredWeights.zeros(n_vocab, length, n_layers) or its gaussian(n_vocab, length, "
                              "n_layers, scale=...)")
    SHAPES: ClassVar[dict[str, str]] = {"W_O": "VV", "V": "LVV", "W": "LVV", "P": "LT"}

    W_O: Array
    V: Array
    W: Array
    P: Array

    def __post_init__(self) -> None:
        self.require_floats(*self.SHAPES)
        self.require_shapes()

    @classmethod
    def zeros(cls, n_vocab: int, length: int, n_layers: int, *, dtype: DTypeLike = np.float64) -> "LayeredWeights":
        """All weights 0, for V = ``n_vocab``, sequences of up to ``length`` positions, and ``n_layers`` layers."""
        return cls.gaussian(n_vocab, length, n_layers, scale=0.0, dtype=dtype)

    @classmethod
    def gaussian(cls, n_vocab: int, length: int, n_layers: int, *, scale: float, rng: Seed = None,
                 dtype: DTypeLike = np.float64) -> "LayeredWeights":
        """Independent N(0, scale^2) entries. ``rng``: seed or Generator. Raises ValueError for a negative scale."""
        sizes = {"V": whole_number("n_vocab", n_vocab, 2), "T": whole_number("length", length, 1),
                 "L": whole_number("n_layers", n_layers, 1)}
        rng, scale = generator(rng), not_negative("scale", scale)
        return cls(**{name: gaussian_array("scale", scale, [sizes[letter] for letter in letters], rng, dtype)
                      for name, letters in cls.SHAPES.items()})

    @classmethod
    def of_layers(cls, layers: list[OneHotWeights]) -> "LayeredWeights":
        """The weights of ``layers``, layer 1 first, each with its V, W and P; W_O is that of the last one."""
        return cls(layers[-1].W_O, *(np.stack([getattr(layer, name) for layer in layers]) for name in "VWP"))

    @property
    def n_vocab(self) -> int:
        """V."""
        return len(self.W_O)

    @property
    def n_layers(self) -> int:
        """L."""
        return len(self.V)

    def matrices(self) -> dict[str, Array]:
        """{name: array}: ``W_O`` (V, V), and of each layer l ``V l`` and ``W l`` (V, V) and ``P l`` (T,)."""
        return {"W_O": self.W_O} | {f"{name} {l + 1}": getattr(self, name)[l]
                                    for l in range(self.n_layers) for name in "VWP"}

    def with_matrices(self, changed: Mapping[str, Array]) -> "LayeredWeights":
        """The same weights, in which some of the :meth:`matrices` are others."""
        whole = {**self.matrices(), **changed}
        stacks = (np.stack([whole[f"{name} {l + 1}"] for l in range(self.n_layers)]) for name in "VWP")
        return LayeredWeights(whole["W_O"], *stacks)

    @classmethod
    def repeated(cls, layer: OneHotWeights, n_layers: int) -> "LayeredWeights":
        """``n_layers`` layers with the same V, W and P, as the leading terms are."""
        return cls.of_layers([layer] * n_layers)

    def layer(self, l: int) -> OneHotWeights:
        """W_O, V, W and P of layer ``l`` (1 to L), in the form of a model of one layer."""
        return OneHotWeights(self.W_O, self.V[l - 1], self.W[l - 1], self.P[l - 1])

    def circuits(self) -> Circuits:
        """The tables of one layer. Raises ValueError unless L = 1: several layers are more than four tables."""
        if self.n_layers != 1:
            raise ValueError(f"these weights have {self.n_layers} layers, and circuits are tables of one; "
                             "use minitx.loss_and_gradient, or a family of tables of minitx.model.paths")
        return self.layer(1).circuits()

    def pullback(self, gradient: Circuits) -> "LayeredWeights":
        """dL/dweights from dL/dcircuits, for L = 1."""
        return self.of_layers([self.layer(1).pullback(gradient)])

    def own_loss_and_gradient(self, batch: Batch) -> tuple[float, "LayeredWeights"]:
        """Loss and gradient, as :func:`minitx.model.layers.loss_and_gradient`."""
        return loss_and_gradient(self, batch)

    def own_loss(self, batch: Batch) -> float:
        """Loss of ``batch``, by the sum over paths. Raises as :func:`minitx.model.layers.loss_and_gradient`."""
        require_fit(self, batch)
        with np.errstate(over="ignore", invalid="ignore"):
            return path_loss(self.map(np.ascontiguousarray), batch)


@dataclass(frozen=True)
class Operations:
    """Multiplications of one gradient, in each of the two forms; ``fewer`` names the form that needs fewer."""

    paths: float
    stream: float

    @property
    def fewer(self) -> str:
        """``paths`` or ``stream``."""
        return "paths" if self.paths <= self.stream else "stream"


def operations(weights: LayeredWeights, batch: Batch) -> Operations:
    """Count the multiplications of the products of both forms; a gradient costs three times its forward pass.

    Paths, by sequence: (2^L - 1) M U V of the output, (2^(l-1) - 1) T U V of the queries and 2^(l-2) T U V of the keys
    of layer l > 1, T^2 V of its scores, 2^(l-1) T^2 U of the attention to paths; by step: V^3 for each table, of which
    those whose lowest layer is 1 have only the rows of the tokens that occur. Dense: 2 (L - 1) + 1 products of T V^2
    and 2 L - 1 of T^2 V for each sequence. Raises as :func:`loss_and_gradient`.
    """
    require_fit(weights, batch)
    n_layers, V = weights.n_layers, weights.n_vocab
    used = batch.weight != 0
    rows = used.any(axis=1)
    M = used[rows].sum(axis=1)
    T = used.shape[1] - np.argmax(used[rows, ::-1], axis=1)
    U = np.array([len(np.unique(tokens[:t])) for tokens, t in zip(batch.tokens[rows], T, strict=True)])
    occur = len(np.unique(batch.tokens[rows]))
    tables = sum((2**(n - 1) - 1) * V**3 + 2**(n - 1) * occur * V**2
                 for n in [n_layers, *range(1, n_layers), *range(1, n_layers - 1)])
    above = range(2, n_layers + 1)
    by_words = (2**n_layers - 1) * M * U + sum(2**(l - 1) - 1 + 2**(l - 2) for l in above) * T * U
    paths = tables + np.sum(by_words * V + (n_layers - 1) * T**2 * V + (2**n_layers - 1) * T**2 * U)
    padded = used.shape[1]
    stream = len(M) * ((2 * n_layers - 1) * padded * V**2 + (2 * n_layers - 1) * padded**2 * V)
    return Operations(3.0 * float(paths), 3.0 * float(stream))


def require_fit(weights: LayeredWeights, batch: Batch) -> None:
    """Raise as :func:`loss_and_gradient` unless ``weights`` and ``batch`` fit each other."""
    instance("weights", weights, LayeredWeights)
    instance("batch", batch, Batch)
    if broken := weights.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
    if not batch.causal or batch.head != "cross_entropy" or batch.mass is not None:
        raise ValueError("a model of several layers needs causal attention and the head 'cross_entropy', without mass; "
                         f"this batch has causal={batch.causal}, head={batch.head!r} and "
                         f"{'no ' if batch.mass is None else ''}mass")
    if weights.P.shape[1] < batch.tokens.shape[1]:
        raise ValueError(f"P has shape {weights.P.shape}, but the sequences have {batch.tokens.shape[1]} positions; "
                         f"build the weights with length={batch.tokens.shape[1]} or more")
    batch.require_vocabulary(weights.n_vocab)


def loss_and_gradient(weights: LayeredWeights, batch: Batch, *, form: str | None = None
                      ) -> tuple[float, LayeredWeights]:
    """Loss of ``batch`` and its exact gradient, written by hand (Im et al. 2026, Definition 3.1 and Lemma D.8).

    Parameters
    ----------
    weights : LayeredWeights
    batch : Batch
        Causal attention, cross-entropy, without mass.
    form : {"paths", "stream"}, optional
        How to compute it. Default: the form that needs fewer multiplications (:func:`operations`).

    Returns
    -------
    loss : float
    gradient : LayeredWeights
        dL/dweights, each array in the orientation of its weight.

    Raises
    ------
    ValueError, TypeError
        Weights that are not finite, or weights and a batch that do not fit each other.
    FloatingPointError
        The loss or the gradient is not finite although the weights are: training diverges. Products of the V_l
        overflow before a weight does.
    """
    require_fit(weights, batch)
    if form is not None:
        one_of("form", form, list(FORMS))
    weights = weights.map(np.ascontiguousarray)
    with np.errstate(over="ignore", invalid="ignore"):
        loss, found = FORMS[form or operations(weights, batch).fewer](weights, batch)
    gradient = LayeredWeights(**found)
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: products of the {weights.n_layers} values V overflow, or the "
                                 "outputs do; use smaller weights or steps")
    if broken := gradient.not_finite():
        raise FloatingPointError(f"the derivative in {', '.join(broken)} overflows, though the loss is finite; "
                                 "use smaller weights or steps")
    return loss, gradient


def attention_and_output(weights: LayeredWeights, batch: Batch) -> tuple[Array, Array]:
    """Attention of every layer and the outputs, in the dense form; memory N T (L T + V), so meant for small batches.

    Returns
    -------
    A : (L, N, T, T) floats
        Row = query position t, column = key position j; rows sum to 1.
    out : (N, T, V) floats
        Logits at every position. Positions beyond a sequence's length hold what padding gives.

    Raises as :func:`loss_and_gradient`.
    """
    require_fit(weights, batch)
    weights = weights.map(np.ascontiguousarray)
    n, length = batch.tokens.shape
    A = np.zeros((weights.n_layers, n, length, length), weights.W_O.dtype)
    out = np.zeros((n, length, weights.n_vocab), weights.W_O.dtype)
    for rows in chunks(batch, weights.n_vocab, weights.W_O.itemsize):
        streams, out[rows] = forward(weights, batch.tokens[rows])
        A[:, rows] = streams.A
    return A, out
