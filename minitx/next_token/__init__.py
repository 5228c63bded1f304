"""Next token: attention becomes an automaton (Li, Huang, Ildiz, Rawat, Oymak, AISTATS 2024, arXiv 2403.08081).

**What is trained.** One attention layer is trained in which only the last token k of a sequence is a query; its weights
are W (d, d). The embeddings E (K, d) are fixed, row = token. The label y of a sample occurs in its sequence; N_ij
counts token j in it.

**What is predicted.** An edge y -> x of the graph G(k) says that y was the label of a sample with last token k in which
x was present. Tokens that reach each other are a strongly connected component (SCC). Attention learns to retrieve the
highest SCC that is present (hard retrieval: W grows for ever along W_svm) and to mix its tokens in fixed odds (soft
composition: the part of W in S_fin tends to W_fin).

==================================================================  =========  =========================================
equation                                                            paper      function
==================================================================  =========  =========================================
S[j, k] = e_j' W e_k;  P_ij = N_ij exp(S[j, k_i]) / sum over l      Section 2  ``losses.attention``
L(W) = mean of -log P_y, (1 - P_y)^2, or through a head; dL/dW      Section 2  ``losses.loss_and_gradient``
G(k), its SCCs and their order                                      Section 2  ``priority_graphs``
W_svm = argmin |W|: equal scores in SCCs, margins >= 1 between      Section 3  ``graph_svm``
S_fin = span{(e_i - e_j) e_k' : i and j in one SCC of G(k)}         Section 3  ``cyclic_subspace``
L(W) = L_cyc(Proj_fin W) + mean of log(1 + exp(z_i))                beyond     ``Split.cyclic_loss``, ``Split.excess``
W_fin = argmin of L_cyc over S_fin                                  Section 3  ``soft_component``
W(t) / |W(t)| -> W_svm / |W_svm|, Proj_fin W(t) -> W_fin            Section 3  ``training.train`` measures both
P_j -> N_j exp(e_j' W_fin e_k) / sum, over the highest SCC present  Section 3  ``Automaton.predict``
W(tau) = W_fin + argmin |V|^2 / 2 + tau log(excess)                 beyond     ``path.split_path``
excess = mean of log(1 + exp(z_i)), from margins of pairs of SCCs   beyond     ``pairs.Pairs``
W(tau) = g W_svm + W_fin + rho + o(1)                               beyond     ``residual``
W(lam) = argmin of L(W) + lam |W|^2 / 2                             Section 3  ``ridge.ridge_path``
W = W_K W_Q';  dL/dW_K = dL/dW W_Q,  dL/dW_Q = (dL/dW)' W_K         beyond     ``factors.FactoredWeights``
W_nuc = argmin of the nuclear norm |W|_*, constraints of W_svm      beyond     ``factors.nuclear_svm``
argmin of L(W_K W_Q') + lam (|W_K|^2 + |W_Q|^2) / 2                 beyond     ``factors.factor_path``
W -> W_svm of the tokens that attention has settled on              its code   ``local_training.train_local``
==================================================================  =========  =========================================

Here z_i = log(attention outside the label's SCC / attention inside); "beyond" means that the paper does not have it.
``Samples`` holds samples as counts, and ``PriorityLaw`` draws samples whose SCCs and odds are known. ``snapshots`` are
the maps of attention that the page moves through training to ``Automaton.predict``.
"""

from minitx.next_token import factors, local_training, losses, path, ridge, training
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
    "Split", "constraints", "cyclic_subspace", "factors", "graph_svm", "local_training", "losses", "path",
    "priority_graphs", "random_samples", "residual", "ridge", "soft_component", "training", "unseen_contexts",
]


def __dir__() -> list[str]:
    return __all__
