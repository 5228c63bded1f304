"""Names of the terms of the gradient, which are those of the corrections that a term holds."""

import itertools

FACTORS = ("saturation", "attention drift", "weight drift")


def term_name(*held: bool) -> str:
    """Name of the term that holds these of FACTORS."""
    return " x ".join(itertools.compress(FACTORS, held)) or "leading"


def term_order(name: str) -> tuple[int, bool, str]:
    """Sort key of the names of terms: the leading one, single corrections, products of corrections."""
    return name.count(" x "), name != "leading", name
