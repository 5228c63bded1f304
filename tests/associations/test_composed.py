"""The model of leading terms is compared with the trained one: against loops over positions, and in known limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx import Batch, OneHotWeights, associations, attention_and_output, builtin_corpus, descend, loss_and_gradient
from minitx.associations.composed import explained
from minitx.testing import batches


@given(problem=batches(causal=True, head="cross_entropy", masses=False), seeds=st.tuples(*[st.integers(0, 99)] * 2))
def test_it_is_the_loop_over_positions(problem, seeds):
    batch, n_vocab = problem
    one, two = (OneHotWeights.gaussian(n_vocab, batch.tokens.shape[1], scale=1.0, rng=seed) for seed in seeds)
    found = explained(one, two, batch)
    outs = [attention_and_output(weights, batch)[1] for weights in (one, two)]
    total = same = distance = 0.0
    for s, t in np.argwhere(batch.weight):
        p, q = (np.exp(out[s, t] - out[s, t].max()) for out in outs)
        p, q, w = p / p.sum(), q / q.sum(), batch.weight[s, t]
        total, same = total + w, same + w * (p.argmax() == q.argmax())
        distance += w * np.abs(p - q).sum() / 2
    assert found.same_token == pytest.approx(same / total, abs=1e-12)
    assert found.total_variation == pytest.approx(distance / total, abs=1e-12)
    assert (found.loss, found.predicted_loss) == (loss_and_gradient(one, batch)[0], loss_and_gradient(two, batch)[0])
    won = np.log(n_vocab) - found.loss
    assert found.share == pytest.approx((np.log(n_vocab) - found.predicted_loss) / won, rel=1e-12)


def test_a_model_explains_itself_and_zero_weights_explain_nothing():
    corpus = builtin_corpus("stories", n_vocab=40, length=6, n_windows=20)
    batch, zeros = corpus.batch(), OneHotWeights.zeros(40, 6)
    trained = descend(zeros, batch, learning_rate=1.0, steps=20).weights
    itself, nothing = explained(trained, trained, batch), explained(trained, zeros, batch)
    assert (itself.share, itself.same_token, itself.total_variation) == (1.0, 1.0, 0.0)
    assert nothing.share == pytest.approx(0, abs=1e-14)
    assert np.isnan(explained(zeros, zeros, batch).share)


def test_the_closed_form_explains_early_training():
    corpus = builtin_corpus("stories", n_vocab=40, length=6, n_windows=20)
    batch = corpus.batch()
    statistics, shares = associations.statistics(batch, 40), []
    for steps in (2, 4, 8, 16):
        run = descend(OneHotWeights.zeros(40, 6), batch, learning_rate=0.05, steps=steps)
        leading = associations.leading_weights(statistics, steps=steps, learning_rate=0.05)
        shares.append(abs(1 - explained(run.weights, leading, batch).share))
    assert shares == sorted(shares)
    assert shares[0] < 1e-3


def test_models_of_different_vocabularies_are_refused():
    batch = Batch([[0, 1]], [[1, 0]])
    with pytest.raises(ValueError, match="the weights have 3 tokens and the predicted ones 4"):
        explained(OneHotWeights.zeros(3, 2), OneHotWeights.zeros(4, 2), batch)
