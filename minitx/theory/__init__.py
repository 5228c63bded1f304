"""Closed forms, one module a paper, and what goes beyond them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; Python itself finds the modules by __getattr__
    from minitx.theory import associations, expansion, next_token, reduced, topics

__all__ = ["associations", "expansion", "next_token", "reduced", "topics"]


def __getattr__(name):
    """Import a theory when it is first asked for: each brings solvers that the others do not need (PEP 562)."""
    if name in __all__:
        return import_module(f"minitx.theory.{name}")
    raise AttributeError(f"module 'minitx.theory' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
