"""Closed forms, one module a paper, and what goes beyond them."""

from minitx.theory import associations, expansion, next_token, reduced, topics

__all__ = ["associations", "expansion", "next_token", "reduced", "topics"]
