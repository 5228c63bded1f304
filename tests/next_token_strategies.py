"""What hypothesis draws for the theory of the next token: small samples with cycles, and embeddings of every kind."""

import numpy as np
from hypothesis import strategies as st

EMBEDDINGS = ("one-hot", "orthonormal", "equicorrelated", "random", "dependent")


def embedding(kind, n_vocab, rng):
    """(K, d); None for one-hot. "dependent": d < K, so that score differences depend on each other."""
    if kind == "one-hot":
        return None
    if kind == "dependent":
        return rng.standard_normal((n_vocab, max(1, n_vocab - 2)))
    E = rng.standard_normal((n_vocab, n_vocab + 1))
    if kind == "random":
        return E
    E = np.linalg.qr(E.T)[0].T
    return E if kind == "orthonormal" else E + 0.5 * E.sum(axis=0)


def basis_of(subspace):
    """(dim, d, d) orthonormal matrices that span a CyclicSubspace."""
    matrices = [block.matrix(x) for block in subspace.blocks for x in np.eye(len(block.rows))]
    return np.array(matrices).reshape(-1, subspace.width, subspace.width)


@st.composite
def data(draw, kinds=EMBEDDINGS):
    """(K, sequences, labels, E, rng): few last tokens, so that SCCs are large."""
    n_vocab = draw(st.integers(2, 6))
    token, last = st.integers(0, n_vocab - 1), st.integers(0, min(1, n_vocab - 1))
    sequences = [[*draw(st.lists(token, max_size=5)), draw(last)] for _ in range(draw(st.integers(1, 8)))]
    labels = [draw(st.sampled_from(sequence)) for sequence in sequences]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return n_vocab, sequences, labels, embedding(draw(st.sampled_from(kinds)), n_vocab, rng), rng
