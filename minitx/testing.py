"""For those who write a parametrisation of their own: checks of its gradient, and examples to check it on."""

from minitx.model.testing import batches, check_gradient, circuits, plain_loss, weights

__all__ = ["batches", "check_gradient", "circuits", "plain_loss", "weights"]


def __dir__() -> list[str]:
    return __all__
