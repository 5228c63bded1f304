"""What is compared in each layer is what its definition says, formed densely."""

from pathlib import Path

import numpy as np
import pytest

from minitx.data.tokenizers import WordTokenizer
from minitx.language_model import read_model
from minitx.language_model.comparison import Features, centred, scaled
from minitx.language_model.layers import STATES, compare_layers
from minitx.language_model.text import leading_terms

pytest.importorskip("safetensors", reason="language models need the extra: pip install 'minitx[llm]'")
CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"


def over_both(matrix):
    matrix = matrix - matrix.mean(axis=0)
    return matrix - matrix.mean(axis=1, keepdims=True)


def cosine(a, b):
    return np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))


@pytest.fixture(scope="module")
def terms(tmp_path_factory):
    ids = np.minimum(np.random.default_rng(0).geometric(0.1, (40, 17)), 60) - 1
    words = [chr(97 + i % 26) * (1 + i // 26) for i in range(60)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(" ".join(words[i] for i in row) for row in ids))
    return leading_terms(path, WordTokenizer(tuple(words)), n_tokens=20, length=16)


@pytest.mark.parametrize("family", ["gpt-neox", "gpt2", "llama"])
def test_records_are_those_of_dense_maps(family, terms):
    """Maps of all heads are formed (n, n) here, from the weights of the layer."""
    model = read_model(CHECKPOINTS / family)
    H, G = model.architecture.n_heads, model.architecture.n_groups
    Q = scaled(terms.attention)
    for state, records in compare_layers(model, terms):
        layer, x = state.layer, state.before[:, 0].astype(float)
        kept = {(one.part, one.theory, one.head): one for one in records}
        assert len(kept) == len(records) == 3 + 2 * (2 + H) + 3 * H
        assert {one.layer for one in records} == {state.number}
        for name in STATES:
            X = Features.of(getattr(state, name)[:, 0])
            assert kept[name, "Φᵀ Bᵀ", None].centred == centred(X, Features.of(scaled(terms.value)))
        maps = [x @ layer.W_Q[:, h] @ layer.W_K[:, h * G // H].T @ x.T for h in range(H)]
        normed = layer.norm_attention(state.before[:, 0]).astype(float)
        with_norm = [(normed @ layer.W_Q[:, h] + layer.b_Q[h])
                     @ (normed @ layer.W_K[:, h * G // H] + layer.b_K[h * G // H]).T for h in range(H)]
        for part, dense in (("query-key without norm", maps), ("query-key", with_norm)):
            for head, A in [*enumerate(dense), (None, np.mean(dense, axis=0))]:
                one = kept[part, "Q", head]
                assert one.entries.value == pytest.approx(cosine(over_both(A), over_both(Q)), abs=1e-5)
                expected = centred(Features.of(A), Features.of(Q))
                assert one.centred.value == pytest.approx(expected.value, abs=1e-5)
        W_E, W_U = model.embedding(terms.tokens).astype(float), model.unembedding(terms.tokens).astype(float)
        for h in range(H):
            A = W_E @ layer.W_V[:, h * G // H] @ layer.W_O[h] @ W_U.T  # row = attended token, column = output token
            for theory, matrix in (("B", terms.bigram), ("Σ_B", terms.interchangeability),
                                   ("Φᵀ Σ_B", terms.value_output)):
                found = kept["output-value", theory, h].entries
                assert found.value == pytest.approx(cosine(over_both(A), over_both(scaled(matrix))), abs=1e-5)
                assert abs(found.z) < 5  # the weights are random


def test_a_model_whose_embeddings_are_the_leading_term_is_recognised(terms):
    """Before layer 0 the state is the embedding: tokens that resemble in the text then resemble in the model."""
    model = read_model(CHECKPOINTS / "llama")
    basis = np.random.default_rng(1).normal(size=(20, 32))
    planted = np.zeros((60, 32), np.float32)
    planted[terms.tokens] = scaled(terms.value) @ basis + 3
    object.__setattr__(model, "embedding", lambda ids: planted[ids])
    first = next(compare_layers(model, terms))[1][0]
    assert first.part == "before" and first.centred.z > 5 and first.rows.z > 5
    assert first.published.value - first.published.mean < 0.2
