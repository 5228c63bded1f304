"""Parametrisations: how each theory's weights make the circuits' tables, and carry the tables' gradient back.

A parametrisation is a frozen dataclass of arrays (:class:`minitx.model.parameters.Parameters`) with ``circuits()`` and
``pullback(gradient)``; everything else is shared. Each refuses, by ValueError, shapes that do not agree and, by
TypeError, arrays that are not all float64 or all float32. A part that is None is absent and is not trained;
``descend(frozen=...)`` keeps one that is present as it is.

Legend: V (or K) vocabulary, T positions, d width of the embeddings, a width of attention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minitx.base.checks import generator, instance, not_negative, reals, table_size, whole_number
from minitx.base.parallel import matmul, products
from minitx.model.circuits import Circuits
from minitx.model.parameters import Array, Parameters, Seed, float_dtype

NEARLY_ALL = 0.75  # A product of a larger share of the rows is computed for all of them.


@dataclass(frozen=True, eq=False)
class OneHotWeights(Parameters):
    """One layer on one-hot embeddings: h = X + A X V, out = h W_O, A = softmax(X W X^T + position).

    Im et al. (2026), Definition 3.1.

    Parameters
    ----------
    W_O : (V, V) floats
        Output. Row = token in the residual stream, column = next token.
    V : (V, V) floats
        Value. Row = attended token, column = the residual-stream direction it writes to.
    W : (V, V) floats
        Attention. Row = query (current) token, column = key (attended) token.
    P : (T,) floats
        Relative position: P[r] is added to the score of the token r places back.
    """

    MADE_BY: ClassVar[str] = "OneHotWeights.zeros(n_vocab, length) or its gaussian(n_vocab, length, scale=...)"
    SHAPES: ClassVar[dict[str, str]] = {"W_O": "VV", "V": "VV", "W": "VV", "P": "T"}

    W_O: Array
    V: Array
    W: Array
    P: Array

    def __post_init__(self) -> None:
        self.require_floats(*self.SHAPES)
        self.require_shapes()

    @classmethod
    def zeros(cls, n_vocab: int, length: int, *, dtype: DTypeLike = np.float64) -> "OneHotWeights":
        """All weights 0, for a vocabulary of ``n_vocab`` and sequences of up to ``length`` positions."""
        return cls.gaussian(n_vocab, length, scale=0.0, dtype=dtype)

    @classmethod
    def gaussian(cls, n_vocab: int, length: int, *, scale: float, rng: Seed = None,
                 dtype: DTypeLike = np.float64) -> "OneHotWeights":
        """Independent N(0, scale^2) entries. ``rng``: seed or Generator. Raises ValueError for a negative scale."""
        sizes = {"V": whole_number("n_vocab", n_vocab, 2), "T": whole_number("length", length, 1)}
        rng, scale = generator(rng), not_negative("scale", scale)
        return cls(**{name: gaussian_array("scale", scale, [sizes[letter] for letter in letters], rng, dtype)
                      for name, letters in cls.SHAPES.items()})

    def circuits(self) -> Circuits:
        """direct = W_O, ov = V W_O, qk = W, position = P, no bias."""
        return self.circuits_for(np.arange(len(self.V)))

    def circuits_for(self, tokens: Array) -> Circuits:
        """As :meth:`circuits`, but the rows of ov that ``tokens`` do not read may be 0, which is less work."""
        attended = _rows(np.bincount(tokens.ravel(), minlength=len(self.V))[:len(self.V)] > 0)
        ov = _in_rows(attended, matmul(self.V[attended], self.W_O), len(self.V))
        return Circuits(direct=self.W_O, ov=ov, qk=self.W, position=self.P, bias=None)

    def pullback(self, gradient: Circuits) -> "OneHotWeights":
        """dL/dweights from dL/dcircuits: dW_O = d_direct + V^T d_ov, dV = d_ov W_O^T, dW = d_qk, dP = d_position."""
        instance("gradient", gradient, Circuits)
        attended = _rows(gradient.ov.any(axis=1))  # tokens that were never attended to have nothing to add
        d_ov, tables = gradient.ov[attended], gradient.parameters()
        W_O, V = products((self.V[attended].T, d_ov), (d_ov, self.W_O.T))
        W_O += gradient.direct
        return OneHotWeights(W_O=W_O, V=_in_rows(attended, V, len(self.V)), W=tables["qk"], P=tables["position"])


def _rows(chosen):
    """The rows that are chosen. If few are not, it is a slice of all: a product of more rows costs less than a copy."""
    return slice(None) if chosen.mean() > NEARLY_ALL else np.flatnonzero(chosen)


def _in_rows(rows, product, n_rows):
    """The ``product`` in the given rows, 0 in the others: a mini-batch attends to few of a large vocabulary."""
    if isinstance(rows, slice):
        return product
    whole = np.zeros((n_rows, product.shape[1]), product.dtype)
    whole[rows] = product
    return whole


@dataclass(frozen=True, eq=False)
class EmbeddedWeights(Parameters):
    """One layer on embeddings, without positions and residual: f = W_U W_V W_E A + b (Li, Li, Risteski 2023).

    A = softmax over the keys of (W_K W_E e_key) . (W_Q W_E e_query) / sqrt(a).

    Parameters
    ----------
    W_E : (d, V) floats, optional
        Embeddings. Row = dimension, column = token. Absent: one-hot, d = V.
    W_V : (d, d) floats, optional
        Value. Row = dimension that is written, column = dimension that is read. Absent: the identity.
    W_Q, W_K : (a, d) floats, optional
        Query and key. Row = dimension of attention, column = dimension that is read. Both absent: uniform attention.
    W_U : (V, d) floats, optional
        Output. Row = output token, column = dimension. Absent: tied, W_U = W_E^T.
    b : (V,) floats, optional
        Bias of the output. Absent: none.

    ValueError is raised when one of W_Q and W_K is given without the other, or neither W_E nor W_V.
    """

    MADE_BY: ClassVar[str] = "EmbeddedWeights(W_E=..., W_V=..., ...) or EmbeddedWeights.gaussian(n_vocab, W_E=...)"
    SHAPES: ClassVar[dict[str, str]] = {"W_E": "dV", "W_V": "dd", "W_Q": "ad", "W_K": "ad", "W_U": "Vd", "b": "V"}

    W_E: Array | None = None
    W_V: Array | None = None
    W_Q: Array | None = None
    W_K: Array | None = None
    W_U: Array | None = None
    b: Array | None = None

    def __post_init__(self) -> None:
        if self.W_E is None and self.W_V is None:
            raise ValueError("both W_E and W_V are absent, so nothing says what is attended to; give one of them")
        if (self.W_Q is None) != (self.W_K is None):
            raise ValueError("one of W_Q and W_K is absent; give both, or none for uniform attention")
        self.require_floats(*self.parameters())
        self.require_shapes({} if self.W_E is not None else {"d": "V"})

    @classmethod
    def gaussian(cls, n_vocab: int, *, W_E: float | None = None, W_V: float | None = None, W_QK: float | None = None,
                 W_U: float | None = None, b: float | None = None, width: int | None = None,
                 attention_width: int | None = None, rng: Seed = None,
                 dtype: DTypeLike = np.float64) -> "EmbeddedWeights":
        """Independent Gaussian entries, each part with its own standard deviation.

        Parameters
        ----------
        W_E, W_V, W_QK, W_U, b : float, optional
            Standard deviations (0: all zero); ``W_QK`` is that of W_Q and W_K. ``None``: the part is absent.
        width, attention_width : int, optional
            d (default: V) and a (default: d). One-hot embeddings have width V.
        rng
            Seed or Generator. A part's entries do not depend on which other parts there are.
        """
        n_vocab = whole_number("n_vocab", n_vocab, 2)
        width = n_vocab if width is None else whole_number("width", width, 1)
        if W_E is None and width != n_vocab:
            raise ValueError(f"width is {width}, but one-hot embeddings have width n_vocab = {n_vocab}; give W_E, "
                             "or no width")
        attention = width if attention_width is None else whole_number("attention_width", attention_width, 1)
        sizes = {"V": n_vocab, "d": width, "a": attention}
        scales = {"W_E": W_E, "W_V": W_V, "W_Q": W_QK, "W_K": W_QK, "W_U": W_U, "b": b}
        streams = dict(zip(scales, generator(rng).spawn(len(scales)), strict=True))
        shapes = {name: [sizes[letter] for letter in cls.SHAPES[name]] for name in scales}
        return cls(**{name: gaussian_array(name, scale, shapes[name], streams[name], dtype)
                      for name, scale in scales.items() if scale is not None})

    @property
    def n_vocab(self) -> int:
        """V."""
        return next(iter(self.parameters().values())).shape[1]  # W_E, or W_V if tokens are one-hot

    def circuits(self) -> Circuits:
        """ov = (W_U W_V W_E)^T, qk = (W_Q W_E)^T (W_K W_E) / sqrt(a), bias = b."""
        E = self.W_E
        ov = _times(_transposed(_times(self.W_V, E)), _transposed(self._output()))
        qk = None
        if self.W_Q is not None:
            qk = matmul(_times(self.W_Q, E).T, _times(self.W_K, E)) / math.sqrt(len(self.W_Q))
        return Circuits(direct=None, ov=ov, qk=qk, position=None, bias=self.b)

    def _output(self):
        return self.W_U if self.W_U is not None else _transposed(self.W_E)

    def pullback(self, gradient: Circuits) -> "EmbeddedWeights":
        """dL/dweights from dL/dcircuits; comments name the product that a line goes back through."""
        instance("gradient", gradient, Circuits)
        E, U = self.W_E, self._output()
        dvalue = _times(_transposed(U), gradient.ov.T)  # ov^T = U value, value = W_V E: (d, V)
        dU = _times(gradient.ov.T, _transposed(_times(self.W_V, E)))
        dE = _times(_transposed(self.W_V), dvalue)
        if self.W_U is None and E is not None:  # tied: U = E^T
            dE = dE + dU.T
        parts = {"W_V": _times(dvalue, _transposed(E)), "W_U": dU, "b": gradient.bias}
        if self.W_Q is not None and self.W_K is not None:  # qk = query^T key / sqrt(a); both (a, V)
            d_qk: Array = gradient.parameters()["qk"] / math.sqrt(len(self.W_Q))
            dquery = matmul(_times(self.W_K, E), d_qk.T)
            dkey = matmul(_times(self.W_Q, E), d_qk)
            dE = dE + matmul(self.W_Q.T, dquery) + matmul(self.W_K.T, dkey)
            parts |= {"W_Q": _times(dquery, _transposed(E)), "W_K": _times(dkey, _transposed(E))}
        parts["W_E"] = dE
        return EmbeddedWeights(**{name: parts[name] for name in self.parameters()})


@dataclass(frozen=True, eq=False)
class LastTokenWeights(Parameters):
    """One layer in which the last token asks: score of token j when the last token is k is S[j, k] = e_j^T W e_k.

    Li, Huang, Ildiz, Rawat, Oymak (2024), Section 2; the row vector e_j is row j of E.

    Parameters
    ----------
    W : (d, d) floats
        Key-query. Row = dimension of the attended token (key), column = dimension of the last token (query).
    E : (K, d) floats, optional
        Embeddings. Row = token, column = dimension. Absent: one-hot, d = K.
    C : (K, d) floats, optional
        Head. Row = output token, column = dimension: out = C E^T P. Absent: the identity head, out = P.
    """

    MADE_BY: ClassVar[str] = "LastTokenWeights.zeros(n_vocab), or LastTokenWeights.zeros(E=embeddings)"
    SHAPES: ClassVar[dict[str, str]] = {"W": "dd", "E": "Kd", "C": "Kd"}

    W: Array
    E: Array | None = None
    C: Array | None = None

    def __post_init__(self) -> None:
        self.require_floats("W", *self.parameters())
        self.require_shapes({} if self.E is not None else {"d": "K"})

    @classmethod
    def zeros(cls, n_vocab: int | None = None, *, E: Any = None, C: Any = None) -> "LastTokenWeights":
        """W = 0, attention in proportion to counts, for ``n_vocab`` one-hot tokens or for embeddings E (K, d)."""
        return cls.gaussian(n_vocab, scale=0.0, E=E, C=C)

    @classmethod
    def gaussian(cls, n_vocab: int | None = None, *, scale: float, E: Any = None, C: Any = None,
                 rng: Seed = None) -> "LastTokenWeights":
        """W of independent N(0, scale^2) entries, float32 if E is; tokens as for :meth:`zeros`."""
        if (n_vocab is None) == (E is None):
            raise ValueError("give n_vocab for one-hot tokens, or the embeddings E (K, d): one of the two")
        width, dtype = n_vocab, np.dtype(np.float64)
        if E is not None:
            reals("E", E, finite=False)
            E = np.asarray(E)
            if E.ndim != 2:
                raise ValueError(f"E has shape {E.shape}; it must be (K, d), one row a token")
            width, dtype = E.shape[1], np.promote_types(E.dtype, np.float32)
        width = whole_number("n_vocab", width, 1)
        return cls(gaussian_array("scale", scale, (width, width), generator(rng), dtype), E, C)

    @property
    def n_vocab(self) -> int:
        """K."""
        return len(self.W if self.E is None else self.E)

    def circuits(self) -> Circuits:
        """qk = (E W E^T)^T, so that row = last token; ov = E C^T, or the identity; no direct path, position or bias."""
        qk = _times(_times(self.E, self.W), _transposed(self.E)).T
        ov = np.eye(self.n_vocab, dtype=self.W.dtype) if self.C is None else _times(self.E, self.C.T)
        return Circuits(direct=None, ov=ov, qk=qk, position=None, bias=None)

    def pullback(self, gradient: Circuits) -> "LastTokenWeights":
        """dL/dweights from dL/dcircuits. S = qk^T = E W E^T: dW = E^T dS E, dE = dS E W^T + dS^T E W; ov = E C^T."""
        instance("gradient", gradient, Circuits)
        dS, E, W = gradient.parameters()["qk"].T, self.E, self.W
        dW = _times(_times(_transposed(E), dS), E)
        dC = None if self.C is None else _times(gradient.ov.T, E)
        if E is None:
            return LastTokenWeights(W=dW, C=dC)
        dE = matmul(dS, matmul(E, W.T)) + matmul(dS.T, matmul(E, W))
        if self.C is not None:
            dE += matmul(gradient.ov, self.C)
        return LastTokenWeights(W=dW, E=dE, C=dC)


def _times(a, b):
    """``a @ b``, where ``None`` is the identity."""
    if a is None or b is None:
        return b if a is None else a
    return matmul(a, b)


def _transposed(a):
    return None if a is None else a.T


def gaussian_array(name: str, scale: float, shape: Sequence[int], rng: np.random.Generator, dtype: DTypeLike) -> Array:
    """Independent N(0, scale^2) entries; an error calls ``scale`` by ``name``."""
    scale, dtype = not_negative(name, scale), float_dtype(dtype)
    table_size(f"weights of shape {tuple(shape)}", *shape)
    if scale == 0:
        return np.zeros(shape, dtype)
    return (scale * rng.standard_normal(shape)).astype(dtype)
