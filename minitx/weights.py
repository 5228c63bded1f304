"""Parametrisations: how each theory's weights make the circuits' tables, and carry the tables' gradient back.

A parametrisation is a frozen dataclass of arrays (:class:`minitx.parameters.Parameters`) with ``circuits()`` and
``pullback(gradient)``; everything else is shared.

Legend: V vocabulary, T positions.
"""

from dataclasses import dataclass

import numpy as np

from minitx.checks import positive, whole_number
from minitx.circuits import Circuits
from minitx.parallel import matmul
from minitx.parameters import Parameters


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
        shape = np.shape(self.W_O)
        for name in ("W_O", "V", "W", "P"):
            array = np.asarray(getattr(self, name))
            if array.dtype not in (np.float64, np.float32, np.complex128):  # complex: for the complex step
                raise TypeError(f"{name} must be an array of float64 or float32, got dtype {array.dtype}")
            if name == "P" and (array.ndim != 1 or array.size == 0):
                raise ValueError(f"P has shape {array.shape}; it must be one number per distance, (T,)")
            if name != "P" and (array.shape != shape or array.ndim != 2 or shape[0] != shape[1]):
                raise ValueError(f"{name} has shape {array.shape} and W_O {shape}; all must be the same square (V, V)")
            object.__setattr__(self, name, array)
        dtypes = {name: array.dtype for name, array in self.parameters().items() if array.dtype.kind == "f"}
        if len(set(dtypes.values())) > 1:
            raise TypeError("all weights must be float64, or all float32; got " + ", ".join(f"{n} {d}" for n, d in dtypes.items()))

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
