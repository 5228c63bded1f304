"""Associations: the leading terms of the gradient (Im, Oh, Fang, Li, ICLR 2026, arXiv 2601.19208)."""

from minitx.associations import basis, expansion, leading, reduced, terms, words
from minitx.associations.basis import Statistics, statistics
from minitx.associations.expansion import Expansion, expand
from minitx.associations.leading import Beside, Bounds, beside, bounds, leading_weights, second_order_output
from minitx.associations.terms import first_exceeds, gradient_terms

__all__ = [
    "Beside", "Bounds", "Expansion", "Statistics", "basis", "beside", "bounds", "expand", "expansion",
    "first_exceeds", "gradient_terms", "leading", "leading_weights", "reduced", "second_order_output", "statistics",
    "terms", "words",
]
