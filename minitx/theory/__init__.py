"""Closed forms, one module a paper."""

from minitx.theory import associations, topics

__all__ = ["associations", "topics"]
