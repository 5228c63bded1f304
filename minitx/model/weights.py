"""Parametrisations: how each theory's weights make the circuits' tables, and carry the tables' gradient back.

A parametrisation is a frozen dataclass of arrays (:class:`minitx.model.parameters.Parameters`) with ``circuits()`` and
``pullback(gradient)``; everything else is shared.

Legend: V vocabulary, T positions.
"""

import math
from dataclasses import dataclass

import numpy as np

from minitx.base.checks import positive, whole_number
from minitx.base.parallel import matmul
from minitx.model.circuits import Circuits
from minitx.model.parameters import Parameters, read_only


@dataclass(frozen=True, eq=False)
class OneHotWeights(Parameters):
    """One layer on one-hot embeddings: h = X + A X V, out = h W_O, A = softmax(X W X^T + position) (Im et al. 2026, Def. 3.1).

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

    Raises
    ------
    ValueError, TypeError
        Shapes that do not agree, or arrays that are not floats.
    """

    W_O: np.ndarray
    V: np.ndarray
    W: np.ndarray
    P: np.ndarray

    def __post_init__(self):
        _require_floats(self, ("W_O", "V", "W", "P"))
        shape = self.W_O.shape
        if self.P.ndim != 1 or self.P.size == 0:
            raise ValueError(f"P has shape {self.P.shape}; it must be one number per distance, (T,)")
        for name in ("W_O", "V", "W"):
            array = getattr(self, name)
            if array.shape != shape or array.ndim != 2 or shape[0] != shape[1]:
                raise ValueError(f"{name} has shape {array.shape} and W_O {shape}; all must be the same square (V, V)")

    @classmethod
    def zeros(cls, n_vocab, length, *, dtype=np.float64):
        """All weights 0, for a vocabulary of ``n_vocab`` and sequences of up to ``length`` positions."""
        return cls(*(np.zeros(shape, dtype) for shape in cls._shapes(n_vocab, length)))

    @classmethod
    def gaussian(cls, n_vocab, length, *, scale, rng=None, dtype=np.float64):
        """Independent N(0, scale^2) entries. ``rng``: seed or Generator. Raises ValueError for a scale that cannot be."""
        scale = 0.0 if scale == 0 else positive("scale", scale)
        rng = np.random.default_rng(rng)
        return cls(*((scale * rng.standard_normal(shape)).astype(dtype) for shape in cls._shapes(n_vocab, length)))

    @staticmethod
    def _shapes(n_vocab, length):
        n_vocab, length = whole_number("n_vocab", n_vocab, 2), whole_number("length", length, 1)
        return (n_vocab, n_vocab), (n_vocab, n_vocab), (n_vocab, n_vocab), (length,)

    def circuits(self):
        """direct = W_O, ov = V W_O, qk = W, position = P, no bias."""
        return self._circuits(np.arange(len(self.V)))

    def circuits_for(self, tokens):
        """As :meth:`circuits`, but only the rows of ov that ``tokens`` read are computed; the others are 0."""
        n_vocab = len(self.V)
        return self._circuits(np.flatnonzero(np.bincount(tokens.ravel(), minlength=n_vocab)[:n_vocab]))

    def _circuits(self, attended):
        ov = _product_of_rows(attended, self.V, self.W_O)
        return Circuits(direct=self.W_O, ov=ov, qk=self.W, position=self.P, bias=None)

    def pullback(self, gradient):
        """dL/dweights from dL/dcircuits: dW_O = d_direct + V^T d_ov, dV = d_ov W_O^T, dW = d_qk, dP = d_position."""
        attended = np.flatnonzero(gradient.ov.any(axis=1))  # tokens that were never attended to have nothing to add
        W_O = matmul(self.V[attended].T, gradient.ov[attended])
        W_O += gradient.direct
        return OneHotWeights(W_O=W_O, V=_product_of_rows(attended, gradient.ov, self.W_O.T), W=gradient.qk, P=gradient.position)


def _product_of_rows(rows, a, b):
    """``a @ b`` in the given rows, 0 in the others: a mini-batch attends to few of a large vocabulary."""
    if len(rows) == len(a):
        return matmul(a, b)
    product = np.zeros((a.shape[0], b.shape[1]), np.result_type(a, b))
    product[rows] = matmul(a[rows], b)
    return product


@dataclass(frozen=True, eq=False)
class EmbeddedWeights(Parameters):
    """One layer on embeddings, without positions and residual: f = W_U W_V W_E A + b (Li, Li, Risteski 2023).

    A = softmax over the keys of (W_K W_E e_key) . (W_Q W_E e_query) / sqrt(d_a). d: width of the embeddings, d_a: of attention.

    Parameters
    ----------
    W_E : (d, V) floats, optional
        Embeddings. Row = dimension, column = token. Absent: one-hot, d = V.
    W_V : (d, d) floats, optional
        Value. Row = dimension that is written, column = dimension that is read. Absent: the identity.
    W_Q, W_K : (d_a, d) floats, optional
        Query and key. Row = dimension of attention, column = dimension that is read. Both absent: uniform attention.
    W_U : (V, d) floats, optional
        Output. Row = output token, column = dimension. Absent: tied, W_U = W_E^T. An identity output is ``W_U=np.eye(V)``, frozen.
    b : (V,) floats, optional
        Bias of the output. Absent: none.

    A part that is absent is not trained; ``descend(frozen=...)`` keeps one that is present as it is.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not agree, arrays that are not floats, one of W_Q and W_K without the other, neither W_E nor W_V.
    """

    W_E: np.ndarray | None = None
    W_V: np.ndarray | None = None
    W_Q: np.ndarray | None = None
    W_K: np.ndarray | None = None
    W_U: np.ndarray | None = None
    b: np.ndarray | None = None

    def __post_init__(self):
        if self.W_E is None and self.W_V is None:
            raise ValueError("both W_E and W_V are absent, so there is nothing that says what is attended to; give one of them")
        if (self.W_Q is None) != (self.W_K is None):
            raise ValueError("one of W_Q and W_K is absent; give both, or none for uniform attention")
        _require_floats(self, self.parameters())
        for name, array in self.parameters().items():
            if array.ndim != (1 if name == "b" else 2):
                raise ValueError(f"{name} has shape {array.shape}; it must have {1 if name == 'b' else 2} dimension(s)")
        width, n_vocab = (len(self.W_V),) * 2 if self.W_E is None else self.W_E.shape
        attention = len(self.W_Q) if self.W_Q is not None else 0
        shapes = {"W_E": (width, n_vocab), "W_V": (width, width), "W_Q": (attention, width), "W_K": (attention, width),
                  "W_U": (n_vocab, width), "b": (n_vocab,)}
        for name, array in self.parameters().items():
            if array.shape != shapes[name] or array.size == 0:
                raise ValueError(f"{name} has shape {array.shape}; with {n_vocab} tokens, embeddings of width {width}"
                                 + (f" and attention of width {attention}" if attention else "") + f" it must be {shapes[name]}")

    @classmethod
    def gaussian(cls, n_vocab, *, W_E=None, W_V=None, W_QK=None, W_U=None, b=None, width=None, attention_width=None, rng=None,
                 dtype=np.float64):
        """Independent Gaussian entries, each part with its own standard deviation.

        Parameters
        ----------
        n_vocab : int
        W_E, W_V, W_QK, W_U, b : float, optional
            Standard deviation of the entries (0: all zero); ``W_QK`` is that of W_Q and W_K. ``None``: the part is absent.
        width, attention_width : int, optional
            d (default: V) and d_a (default: d). One-hot embeddings have width V.
        rng : int, Generator or None

        Raises
        ------
        ValueError
            Sizes or standard deviations that cannot be.
        """
        n_vocab = whole_number("n_vocab", n_vocab, 2)
        width = n_vocab if width is None else whole_number("width", width, 1)
        if W_E is None and width != n_vocab:
            raise ValueError(f"width is {width}, but one-hot embeddings have width n_vocab = {n_vocab}; give W_E, or no width")
        attention = width if attention_width is None else whole_number("attention_width", attention_width, 1)
        scales = {"W_E": W_E, "W_V": W_V, "W_Q": W_QK, "W_K": W_QK, "W_U": W_U, "b": b}
        shapes = {"W_E": (width, n_vocab), "W_V": (width, width), "W_Q": (attention, width), "W_K": (attention, width),
                  "W_U": (n_vocab, width), "b": (n_vocab,)}
        streams = np.random.default_rng(rng).spawn(len(scales))  # so that a part does not depend on which others there are
        parts = {name: ((0.0 if scale == 0 else positive(name, scale)) * stream.standard_normal(shapes[name])).astype(dtype)
                 for (name, scale), stream in zip(scales.items(), streams, strict=True) if scale is not None}
        return cls(**parts)

    @property
    def n_vocab(self):
        """V."""
        return len(self.W_V) if self.W_E is None else self.W_E.shape[1]

    def circuits(self):
        """ov = (W_U W_V W_E)^T, qk = (W_Q W_E)^T (W_K W_E) / sqrt(d_a), bias = b."""
        E = self.W_E
        ov = _times(_transposed(_times(self.W_V, E)), _transposed(self._output()))
        qk = None
        if self.W_Q is not None:
            qk = matmul(_times(self.W_Q, E).T, _times(self.W_K, E)) / math.sqrt(len(self.W_Q))
        return Circuits(direct=None, ov=ov, qk=qk, position=None, bias=self.b)

    def _output(self):
        return self.W_U if self.W_U is not None else _transposed(self.W_E)

    def pullback(self, gradient):
        """dL/dweights from dL/dcircuits; each line names the product of :meth:`circuits` that it goes back through."""
        E, U = self.W_E, self._output()
        dvalue = _times(_transposed(U), gradient.ov.T)  # ov^T = U value, value = W_V E: (d, V)
        dU = _times(gradient.ov.T, _transposed(_times(self.W_V, E)))
        dE = _times(_transposed(self.W_V), dvalue)
        if self.W_U is None and E is not None:  # tied: U = E^T
            dE = dE + dU.T
        parts = {"W_V": _times(dvalue, _transposed(E)), "W_U": dU, "b": gradient.bias}
        if self.W_Q is not None:  # qk = query^T key / sqrt(d_a): (d_a, V) each
            d_qk = gradient.qk / math.sqrt(len(self.W_Q))
            dquery = matmul(_times(self.W_K, E), d_qk.T)
            dkey = matmul(_times(self.W_Q, E), d_qk)
            dE = dE + matmul(self.W_Q.T, dquery) + matmul(self.W_K.T, dkey)
            parts |= {"W_Q": _times(dquery, _transposed(E)), "W_K": _times(dkey, _transposed(E))}
        parts["W_E"] = dE
        return EmbeddedWeights(**{name: parts[name] for name in self.parameters()})


@dataclass(frozen=True, eq=False)
class LastTokenWeights(Parameters):
    """One layer in which the last token asks: score of token j when the last token is k is S[j, k] = e_j^T W e_k.

    Li, Huang, Ildiz, Rawat, Oymak (2024), Section 2; the row vector e_j is row j of E. K: tokens in the vocabulary, d: width.

    Parameters
    ----------
    W : (d, d) floats
        Key-query. Row = dimension of the attended token (key), column = dimension of the last token (query).
    E : (K, d) floats, optional
        Embeddings. Row = token, column = dimension. Absent: one-hot, d = K.
    C : (K, d) floats, optional
        Head. Row = output token, column = dimension: out = C E^T P. Absent: the identity head, out = P.

    A part that is absent is not trained; ``descend(frozen=...)`` keeps one that is present as it is.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not agree, arrays that are not floats.
    """

    W: np.ndarray
    E: np.ndarray | None = None
    C: np.ndarray | None = None

    def __post_init__(self):
        _require_floats(self, self.parameters())
        if self.W.ndim != 2 or self.W.shape[0] != self.W.shape[1] or self.W.size == 0:
            raise ValueError(f"W has shape {self.W.shape}; it must be square, (d, d)")
        for name in ("E", "C"):
            array = getattr(self, name)
            if array is not None and (array.ndim != 2 or array.shape[1] != len(self.W) or len(array) != self.n_vocab):
                raise ValueError(f"{name} has shape {array.shape}; with {self.n_vocab} tokens and W of shape {self.W.shape} "
                                 f"it must be {(self.n_vocab, len(self.W))}, one row a token")

    @classmethod
    def zeros(cls, n_vocab=None, *, E=None, C=None):
        """W = 0: attention in proportion to counts. For ``n_vocab`` one-hot tokens, or for those that ``E`` (K, d) embeds."""
        return cls(cls._blank(n_vocab, E), E, C)

    @classmethod
    def gaussian(cls, n_vocab=None, *, scale, E=None, C=None, rng=None):
        """W of independent N(0, scale^2) entries; tokens as for :meth:`zeros`. ``rng``: seed or Generator."""
        scale, blank = 0.0 if scale == 0 else positive("scale", scale), cls._blank(n_vocab, E)
        W = scale * np.random.default_rng(rng).standard_normal(blank.shape)
        return cls(W.astype(blank.dtype), E, C)

    @staticmethod
    def _blank(n_vocab, E):
        """(d, d) zeros, float32 if E is. ValueError unless exactly one of ``n_vocab`` and ``E`` says it."""
        if (n_vocab is None) == (E is None):
            raise ValueError("give n_vocab for one-hot tokens, or the embeddings E (K, d): one of the two")
        if E is None:
            return np.zeros((whole_number("n_vocab", n_vocab, 1),) * 2)
        E = np.asarray(E)
        if E.ndim != 2:
            raise ValueError(f"E has shape {E.shape}; it must be (K, d), one row a token")
        return np.zeros((E.shape[1],) * 2, np.float32 if E.dtype == np.float32 else np.float64)

    @property
    def n_vocab(self):
        """K."""
        return len(self.W if self.E is None else self.E)

    def circuits(self):
        """qk = (E W E^T)^T, so that row = last token; ov = E C^T, or the identity; no direct path, position or bias."""
        qk = _times(_times(self.E, self.W), _transposed(self.E)).T
        ov = np.eye(self.n_vocab, dtype=self.W.dtype) if self.C is None else _times(self.E, self.C.T)
        return Circuits(direct=None, ov=ov, qk=qk, position=None, bias=None)

    def pullback(self, gradient):
        """dL/dweights from dL/dcircuits. S = qk^T = E W E^T: dW = E^T dS E, dE = dS E W^T + dS^T E W; ov = E C^T."""
        dS, E, W = gradient.qk.T, self.E, self.W
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


def _require_floats(weights, names):
    """Make these parts read-only arrays; TypeError unless all are float64, or all float32 (or complex128, for the complex step)."""
    for name in names:
        array = np.asarray(getattr(weights, name))
        if array.dtype.char not in "dfD":
            raise TypeError(f"{name} must be an array of float64 or float32, got dtype {array.dtype}")
        object.__setattr__(weights, name, read_only(array))
    dtypes = {name: array.dtype for name, array in weights.parameters().items() if array.dtype.char in "df"}
    if len(set(dtypes.values())) > 1:
        raise TypeError("all weights must be float64, or all float32; got " + ", ".join(f"{n} {d}" for n, d in dtypes.items()))
