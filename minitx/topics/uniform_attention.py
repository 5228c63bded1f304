"""Uniform attention and squared loss: the loss is a quadratic function of ``ov``, known from two moments of the data.

u = uniform-attention average of a document's tokens, (V,); y the target. With M = E[u u^T] and C = E[onehot(y) u^T],

    L(ov) = E |ov^T u - onehot(y)|^2 = tr(ov^T M ov) - 2 tr(C ov) + E[1],    dL/d ov = 2 (M ov - C^T)

A full-batch step over any number of documents therefore costs two products of V x V matrices, and with the exact
moments of a law (:func:`minitx.topics.moments`) descent runs on its whole population. Legend: N documents, V
vocabulary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from minitx.base.checks import instance, real_number, reals, require_shapes, table_size, whole_number
from minitx.base.parallel import matmul
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import Circuits
from minitx.model.parameters import Parameters


@dataclass(frozen=True, eq=False)
class Moments(Shown):
    """M = E[u u^T] and C = E[onehot(y) u^T] (row = target, column = attended token), each (V, V), and E[1].

    E[1] is ``weight``, the sum of the weights of the loss. TypeError or ValueError says which of them cannot be.
    """

    MADE_BY: ClassVar[str] = "minitx.topics.uniform_attention.moments(batch, n_vocab)"

    M: NDArray[np.float64]
    C: NDArray[np.float64]
    weight: float = 1.0

    def __post_init__(self):
        for name in ("M", "C"):
            object.__setattr__(self, name, reals(name, getattr(self, name), finite=False))
        require_shapes({"M": self.M, "C": self.C}, {"M": "VV", "C": "VV"})
        object.__setattr__(self, "weight", real_number("weight", self.weight))


def moments(batch: Batch, n_vocab: int) -> Moments:
    """Exact moments of a batch, weighted as its loss; the time is that of the pairs of distinct tokens of documents.

    Raises ValueError if attention is causal, or if tokens are outside the vocabulary.
    """
    instance("batch", batch, Batch)
    n_vocab = whole_number("n_vocab", n_vocab, 1)
    table_size(f"a vocabulary of {n_vocab:,}", n_vocab, n_vocab)
    if batch.causal:
        raise ValueError("moments are those of attention to the whole document; this batch is causal: give "
                         "causal=False")
    batch.require_vocabulary(n_vocab)
    rows, length = batch.tokens.shape
    mass = np.arange(length) < batch.lengths[:, None] if batch.mass is None else batch.mass
    share = mass / np.where(mass.any(axis=1), mass.sum(axis=1), 1.0)[:, None]
    document = np.repeat(np.arange(rows), length)
    u, y = (sparse.coo_array((values.ravel(), (document, tokens.ravel())), shape=(rows, n_vocab)).tocsr()
            for values, tokens in ((share, batch.tokens), (batch.weight, batch.targets)))
    of_document = batch.weight.sum(axis=1)
    M, C = (u * of_document[:, None]).T @ u, y.T @ u
    return Moments(M=M.toarray(), C=C.toarray(), weight=float(of_document.sum()))


def loss_and_gradient(weights: Any, moments: Moments) -> tuple[float, Any]:
    """(loss, exact gradient) of the squared loss, as ``minitx.loss_and_gradient`` gives them on all the data.

    ``weights`` may be any parametrisation whose circuits are ``ov`` alone; the gradient is of the same type. Raises
    ValueError if the circuits have more, or a vocabulary of another size, and FloatingPointError if the loss is not
    finite.
    """
    instance("weights", weights, Parameters)
    instance("moments", moments, Moments)
    circuits = weights.circuits()
    if extra := set(circuits.parameters()) - {"ov"}:
        raise ValueError(f"the circuits have {', '.join(sorted(extra))}; moments are for uniform attention, through ov "
                         "alone; leave out W_Q, W_K and b, or train on the batch")
    if circuits.ov.shape != moments.M.shape:
        raise ValueError(f"ov has shape {circuits.ov.shape} but the moments {moments.M.shape}; build both with the "
                         "same vocabulary")
    with np.errstate(over="ignore", invalid="ignore"):
        M_ov = matmul(moments.M, circuits.ov)
        loss = float(np.sum(circuits.ov * (M_ov - 2 * moments.C.T)) + moments.weight)
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}: the outputs overflow; use smaller weights or steps")
        d_ov = (2 * (M_ov - moments.C.T)).astype(circuits.ov.dtype)
        return loss, weights.pullback(Circuits(direct=None, ov=d_ov, qk=None, position=None, bias=None))
