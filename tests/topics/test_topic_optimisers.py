"""Where training of W_V ends does not depend on the optimiser, and weight decay is the ridge of the closed form."""

import pytest

from minitx import Adam, EmbeddedWeights, GradientDescent, Momentum, descend, topics
from minitx.topics import TopicModel, uniform_attention

LAW = TopicModel(3, 2, 8, tau=2)
RULES = {GradientDescent: 0.5, Momentum: 0.05, Adam: 0.01}  # with the learning rate, of 1 / (largest eigenvalue of M)


@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("kind", RULES)
def test_every_optimiser_ends_at_the_closed_form(kind, decay):
    """The decay lambda adds lambda |W|^2 / 2 to the loss, so that the ridge is half of it."""
    found = topics.moments(LAW)
    C, M = found.matrices()
    eta, steps = RULES[kind] / (found.M_largest if kind is not Adam else 1.0), 1500
    run = descend(EmbeddedWeights.gaussian(LAW.V, W_V=0.0), uniform_attention.Moments(M=M, C=C), steps=steps,
                  learning_rate=lambda step: eta * (1 - step / steps) if kind is Adam else eta,
                  optimiser=kind(decay=decay), loss_and_gradient=uniform_attention.loss_and_gradient)
    closed = topics.ridge_value(LAW, decay / 2) if decay else topics.optimal_value(LAW)
    trained = topics.Blocks.of(run.weights.W_V, LAW)
    for name in ("mask_column", "same_word", "same_topic", "different_topic"):
        assert getattr(trained, name) == pytest.approx(getattr(closed, name), abs=1e-5)
