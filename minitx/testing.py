"""Checks of gradients, for those who write a parametrisation of their own."""

from minitx.model.testing import check_gradient

__all__ = ["check_gradient"]
