"""What hypothesis draws: batches and tables, small, with every edge that training can meet."""

import numpy as np
from hypothesis import strategies as st

from minitx import Batch, Circuits
from minitx.data.batch import HEADS

SCALES = (0.0, 1e-3, 1.0, 30.0, 1e3)


@st.composite
def batches(draw, *, causal=None, head=None, padded=True, uniform=False, masses=True):
    """(Batch, V): N 1..4, T 1..7, V 2..6; repeated tokens and tokens never seen are likely; weights, masses with zeros."""
    n, length, n_vocab = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    seen = draw(st.integers(1, n_vocab))
    tokens, targets = rng.integers(0, seen, (n, length)), rng.integers(0, n_vocab, (n, length))
    causal = draw(st.booleans()) if causal is None else causal
    head = draw(st.sampled_from(HEADS)) if head is None else head
    if uniform:
        return Batch(tokens, targets, causal=causal, head=head), n_vocab
    lengths = rng.integers(1, length + 1, n) if padded and draw(st.booleans()) else np.full(n, length)
    weight = rng.random((n, length)) * (rng.random((n, length)) < draw(st.sampled_from((0.2, 0.7, 1.0))))
    weight *= np.arange(length) < lengths[:, None]
    if not weight.any():
        weight[0, 0] = 1.0
    mass = None
    if masses and draw(st.booleans()):  # some 0, but not at the first key, which every position may attend to
        mass = rng.exponential(size=(n, length)) * (rng.random((n, length)) < draw(st.sampled_from((0.5, 1.0))))
        mass[:, 0] += 0.1
    return Batch(tokens, targets, weight, lengths=lengths, causal=causal, head=head, mass=mass), n_vocab


@st.composite
def problems(draw, **kind):
    """(Circuits, Batch): tables of every scale up to +-1e3, some absent. For the log head, outputs are positive."""
    batch, n_vocab = draw(batches(**kind))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def table(shape, *, output, optional=True):
        if optional and draw(st.integers(0, 3)) == 0:
            return None
        if output and batch.head == "log":
            return rng.random(shape) + 0.05
        return draw(st.sampled_from(SCALES)) * rng.standard_normal(shape)

    square = (n_vocab, n_vocab)
    position = table(batch.tokens.shape[1] + draw(st.integers(0, 2)), output=False) if batch.causal else None
    circuits = Circuits(direct=table(square, output=True), ov=table(square, output=True, optional=False),
                        qk=table(square, output=False), position=position, bias=table(n_vocab, output=True))
    return circuits, batch


def arguments(circuits, batch):
    """Positional and keyword arguments of the oracles in naive.py."""
    return ((circuits.direct, circuits.ov, circuits.qk, circuits.position, circuits.bias,
             batch.tokens, batch.targets, batch.weight),
            {"lengths": batch.lengths, "causal": batch.causal, "head": batch.head, "mass": batch.mass})
