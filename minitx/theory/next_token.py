"""Next token: the automaton that one attention layer learns (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, arXiv 2403.08081).

The front door of the closed forms:

- ``priority_graph``: the token-priority graph of each last token, its strongly connected components (SCCs), the SVM's rows;
- ``cyclic_subspace``: S_fin, the weights that set scores apart inside SCCs;
- ``graph_svm``: W_svm, the direction of hard retrieval, with a KKT report or an infeasibility certificate;
- ``exact_split``: the log-loss as cyclic loss plus excess, the latter in the log domain;
- ``soft_component``: W_fin, the soft composition inside SCCs;
- ``residual``: rho, what the regularisation path keeps beside them;
- ``automaton``: predictions of the limit and how far the data determine them, continuations.
"""

from minitx.theory.automaton import Automaton, Prediction
from minitx.theory.cyclic_subspace import CyclicSubspace, cyclic_subspace
from minitx.theory.exact_split import Excess, Split
from minitx.theory.graph_svm import KKT, GraphSVM, InfeasibleError, graph_svm
from minitx.theory.priority_graph import Constraints, PriorityGraph, constraints, priority_graphs
from minitx.theory.residual import Residual, residual
from minitx.theory.soft_component import SoftComponent, soft_component

__all__ = [
    "Automaton", "Constraints", "CyclicSubspace", "Excess", "GraphSVM", "InfeasibleError", "KKT", "Prediction", "PriorityGraph",
    "Residual", "SoftComponent", "Split", "constraints", "cyclic_subspace", "graph_svm", "priority_graphs", "residual",
    "soft_component",
]
