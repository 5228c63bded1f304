"""This room computes one attention layer exactly: tables, loss, gradient, weights and descent. It knows no theory.

A one-layer attention-only transformer is a lookup in four tables, the circuits (Elhage et al. 2021). A step passes
through the room in this order; position t, key j, distinct token u, output token y:

==============================================================  ===================================================
what                                                            where
==============================================================  ===================================================
weights -> tables direct, ov, qk, position, bias                ``circuits()`` of a parametrisation (weights)
batch -> blocks of sequences                                    blocks.blocks
1  A_tj = softmax_j(qk[x_t, x_j] + position[t - j])             kernels.attention_forward
2  C_tu = sum of A_tj over the keys j of token u                kernels.fold
3  out_t = sum_u C_tu ov[u, :] + direct[x_t, :] + bias          product_kernels.outputs
4  loss = sum_t weight_t head(out_t, y_t)                       kernels.cross_entropy, squared, log_head
4' dout_t = weight_t dhead(out_t, y_t) = scale_t R_t            the same kernels, in the same pass
3' dC_tu = dout_t . ov[u, :],  D_u = sum_t C_tu dout_t          product_kernels.row_slopes, word_slopes
2' 1' dscore_tj = A_tj (dC_tj - sum_k A_tk dC_tk)               kernels.slopes_of_scores
d_ov[u] += D_u,  d_direct[x_t] += dout_t,  d_bias += dout_t     pieces.add_pieces
d_qk[x_t, x_j] += dscore_tj,  d_position[t - j] += dscore_tj    pieces.add_pieces
gradient of the tables -> gradient of the weights               ``pullback()`` of a parametrisation (weights)
weights - learning_rate gradient, or another rule               descent.descend, optimisers
the same, kept in a file from which a run that ended goes on    ``descend(checkpoint="run.npz")``
==============================================================  ===================================================

block_kernels.forward_and_backward takes steps 1 to 4 and 3' to 1' of one sequence after the other, and
circuits.loss_and_gradient everything but the descent.

**Several layers** (layers.LayeredWeights), h_l = h_(l-1) + A_l h_(l-1) V_l, h_0 = X, out = h_L W_O, are lookups too,
one for each path S = {s1 < ... < sk} of layers: a path brings C_S = A_sk ... A_s1 X of each word and makes it M_S =
V_s1 ... V_sk. Position t, distinct token (word) u, g = 2^(l-1) paths below layer l:

==============================================================  ===================================================
what                                                            where
==============================================================  ===================================================
0  tables M_S W_O, M_S W_l, M_S V_l, by M_(b+S) = V_b M_S       paths.build_tables
1  C_{}[t, u] = 1(word u stands at t)                           path_kernels.first_layer
2  B_l = h_(l-1) W_l M^T,  M = M_S of all words and paths       path_kernels.next_layer
3  A_l = softmax_j(sum over S of B_l C_S^T + P_l[t - j])        path_kernels.next_layer
4  C_(S+l) = A_l C_S                                            path_kernels.next_layer
5  out_t = W_O[x_t, :] + sum over S != {} of C_S (M_S W_O)      path_kernels.output
6  loss = sum_t weight_t (-log softmax(out_t)[y_t]),  R         paths.forward, kernels.residuals
5' dC_S = R (M_S W_O)^T,  d(M_S W_O) = C_S^T R                  path_kernels.output_slopes
4' dA_l = sum over S of dC_(S+l) C_S^T,  dC_S += A_l^T dC_(S+l) path_kernels.next_layer_slopes
3' dS_tj = A_tj (dA_tj - sum_k A_tk dA_tk),  dB = dS C          path_kernels.next_layer_slopes
2' d(M_S W_l), dM_S, dC_S from dB                               path_kernels.next_layer_slopes
sums of d(M_S W_O), d(M_S W_l) and dM_S over the sequences      path_kernels.add_first_layer, add_next_layer
0' dV_b += d(b+S) (M_S top)^T,  d(S) += V_b^T d(b+S)            paths.pull_back
==============================================================  ===================================================

Queries and keys of layer 1 are one-hot, so it has no step 2: path_kernels.first_layer takes its steps 3 and 4, and
first_layer_slopes 4' and 3'. paths.follow calls the kernels of steps 1 to 4, and paths.backward those of 5' to 2'.

Where layers are many, sequences few or the vocabulary small, the dense stream (streams.py) needs fewer multiplications;
layers.operations counts both forms and layers.loss_and_gradient takes the cheaper one.

Modules import in one direction: parameters, kernels, blocks, pieces, circuits, weights, then paths and streams, layers,
files, optimisers, descent and recording; testing holds any parametrisation to the complex-step derivative.
"""

from minitx.model import circuits, descent, layers, optimisers, parameters, testing, weights
from minitx.model.circuits import Circuits, attention_and_output, loss_and_gradient
from minitx.model.descent import DescentEnded, Stopped, Trajectory, descend
from minitx.model.files import load
from minitx.model.layers import LayeredWeights
from minitx.model.optimisers import Adam, AdamW, GradientDescent, Momentum, Optimiser
from minitx.model.parameters import Parameters
from minitx.model.weights import EmbeddedWeights, LastTokenWeights, OneHotWeights

__all__ = [
    "Adam", "AdamW", "Circuits", "DescentEnded", "EmbeddedWeights", "GradientDescent", "LastTokenWeights",
    "LayeredWeights", "Momentum", "OneHotWeights", "Optimiser", "Parameters", "Stopped", "Trajectory",
    "attention_and_output", "circuits", "descend", "descent", "layers", "load", "loss_and_gradient", "optimisers",
    "parameters", "testing", "weights",
]


def __dir__() -> list[str]:
    return __all__
