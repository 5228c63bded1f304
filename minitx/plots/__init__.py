"""Figures, each from plain arrays or a result. Nothing is shown or written but by :func:`save`: a matplotlib Figure is returned."""

from minitx.plots.associations import (
    PARAMETERS,
    associates,
    corrections,
    cosines,
    gradient_terms,
    heat_map,
    term_order,
    theories,
)
from minitx.plots.next_token import (
    PANELS,
    STATUSES,
    next_token_predictions,
    next_token_training,
    priority_graphs,
    total_variation,
)
from minitx.plots.style import COLOURS, DASHES, MARKERS, literal, save, tick_label
from minitx.plots.topics import block_values, loss_over_ratio, loss_surface, permutation_histogram, ridge_path, topic_heat_maps

__all__ = ["COLOURS", "DASHES", "MARKERS", "PANELS", "PARAMETERS", "STATUSES", "associates", "block_values", "corrections",
           "cosines", "gradient_terms", "heat_map", "literal", "loss_over_ratio", "loss_surface", "next_token_predictions",
           "next_token_training", "permutation_histogram", "priority_graphs", "ridge_path", "save", "term_order", "theories",
           "tick_label", "topic_heat_maps", "total_variation"]
