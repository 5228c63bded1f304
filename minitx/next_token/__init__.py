"""Next token: attention becomes an automaton (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, arXiv 2403.08081)."""

from minitx.next_token.automaton import Automaton, Prediction
from minitx.next_token.graphs import Constraints, PriorityGraph, constraints, priority_graphs
from minitx.next_token.law import LabelledSequences, PriorityLaw, random_samples, unseen_contexts
from minitx.next_token.path import Residual, residual
from minitx.next_token.samples import Samples
from minitx.next_token.split import CyclicSubspace, Excess, SoftComponent, Split, cyclic_subspace, soft_component
from minitx.next_token.svm import KKT, GraphSVM, InfeasibleError, graph_svm

__all__ = [
    "Automaton", "Constraints", "CyclicSubspace", "Excess", "GraphSVM", "InfeasibleError", "KKT",
    "LabelledSequences", "Prediction", "PriorityGraph", "PriorityLaw", "Residual", "Samples", "SoftComponent",
    "Split", "constraints", "cyclic_subspace", "graph_svm", "priority_graphs", "random_samples", "residual",
    "soft_component", "unseen_contexts",
]
