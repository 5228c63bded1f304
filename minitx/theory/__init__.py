"""Closed forms, one module a paper."""

from minitx.theory import associations, next_token, topics

__all__ = ["associations", "next_token", "topics"]
