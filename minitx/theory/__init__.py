"""Closed forms, one module a paper."""

from minitx.theory import associations

__all__ = ["associations"]
