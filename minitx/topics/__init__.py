"""Topics: what embeddings, value matrix and attention learn of topics (Li, Li, Risteski, ICML 2023, arXiv 2303.04245)."""

from minitx.topics.attention import (
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
from minitx.topics.averages import attention_table, cosine_matrix, gram, pair_averages, permutation_test
from minitx.topics.cross_entropy import A_limit, B_asymptotic, CrossEntropyOptimum, cross_entropy_optimum
from minitx.topics.documents import Documents, mask_tokens
from minitx.topics.law import TopicModel
from minitx.topics.sectors import Blocks, Sectors, moments
from minitx.topics.values import (
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
    "A_limit", "AttentionProfile", "B_asymptotic", "Blocks", "CrossEntropyOptimum", "Documents",
    "InfiniteDocuments", "OptimalAttention", "OptimalRatio", "Sectors", "TopicModel", "attention_loss",
    "attention_profile", "attention_table", "cosine_matrix", "cross_entropy_optimum", "finite_length_correction",
    "gram", "gram_plateau", "infinite_documents", "mask_tokens", "minimal_loss", "moments", "optimal_attention",
    "optimal_gram", "optimal_ratio", "optimal_value", "other_limit_value", "pair_averages", "paper_value",
    "permutation_test", "ridge_value", "separated_value", "value_after",
]
