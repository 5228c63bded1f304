"""Topics: what one attention layer learns from words that occur together (Li, Li, Risteski, ICML 2023, arXiv 2303.04245).

The front door of the closed forms:

- ``topic_setting``: Setting (law of the documents, masking, loss), Blocks, exact moments;
- ``topic_values``: stage 1, uniform attention, squared error: value matrix W_V, its trajectory, embeddings' Gram matrix;
- ``topic_cross_entropy``: stage 1 under cross-entropy;
- ``topic_attention``: stage 2, W_V frozen: the loss of attention, its optimum, and the infinite population.
"""

from minitx.theory.topic_attention import (
    AttentionProfile,
    InfiniteDocuments,
    OptimalAttention,
    OptimalRatio,
    attention_loss,
    attention_profile,
    infinite_documents,
    optimal_attention,
    optimal_ratio,
)
from minitx.theory.topic_cross_entropy import A_limit, B_asymptotic, CrossEntropyOptimum, cross_entropy_optimum
from minitx.theory.topic_setting import Blocks, Sectors, Setting, moments
from minitx.theory.topic_values import (
    finite_length_correction,
    gram_plateau,
    minimal_loss,
    optimal_gram,
    optimal_value,
    other_limit_value,
    paper_value,
    ridge_value,
    separated_value,
    value_after,
)

__all__ = [
    "A_limit", "AttentionProfile", "B_asymptotic", "Blocks", "CrossEntropyOptimum", "InfiniteDocuments", "OptimalAttention",
    "OptimalRatio", "Sectors", "Setting", "attention_loss", "attention_profile", "cross_entropy_optimum",
    "finite_length_correction", "gram_plateau", "infinite_documents", "minimal_loss", "moments", "optimal_attention",
    "optimal_gram", "optimal_ratio", "optimal_value", "other_limit_value", "paper_value", "ridge_value", "separated_value",
    "value_after",
]
