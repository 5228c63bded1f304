"""One attention layer, exactly: tables, loss, gradient by hand, weights and descent. It knows no theory.

A one-layer attention-only transformer is a lookup in four tables, the circuits (Elhage et al. 2021). A step passes
through the room in this order; position t, key j, distinct token u, output token y:

==============================================================  ===================================================
what                                                            where
==============================================================  ===================================================
weights -> tables direct, ov, qk, position, bias                ``circuits()`` of a parametrisation (weights)
batch -> blocks that fit a core's cache                         blocks.blocks
1  A_tj = softmax_j(qk[x_t, x_j] + position[t - j])             Block.attend, kernels.attention_forward
2  C_tu = sum of A_tj over the keys j of token u                Block.attend, kernels.fold
3  out_t = sum_u C_tu ov[u, :] + direct[x_t, :] + bias          circuits.output
4  loss = sum_t weight_t head(out_t, y_t)                       kernels.cross_entropy, ..., log_head
4' dout_t = weight_t dhead(out_t, y_t) = scale_t R_t            the same kernels, in the same pass
3' dC_tu = dout_t . ov[u, :],  D_u = sum_t C_tu dout_t          circuits.backward
2' 1' dscore_tj = A_tj (dC_tj - sum_k A_tk dC_tk)               kernels.attention_backward
d_ov[u] += D_u,  d_direct[x_t] += dout_t,  d_bias += dout_t     pieces.add_pieces
d_qk[x_t, x_j] += dscore_tj,  d_position[t - j] += dscore_tj    pieces.add_pieces
gradient of the tables -> gradient of the weights               ``pullback()`` of a parametrisation (weights)
weights - learning_rate gradient                                descent.descend
==============================================================  ===================================================

circuits.forward takes steps 1 to 4, circuits.backward 3' to 1', and circuits.loss_and_gradient everything but the
descent. Modules import in one direction: parameters, kernels, blocks, pieces, circuits, weights, descent; testing holds
any parametrisation to the complex-step derivative.
"""

from minitx.model import circuits, descent, parameters, testing, weights
from minitx.model.circuits import Circuits, attention_and_output, loss_and_gradient
from minitx.model.descent import DescentEnded, Stopped, Trajectory, descend
from minitx.model.parameters import Parameters
from minitx.model.weights import EmbeddedWeights, LastTokenWeights, OneHotWeights, load

__all__ = [
    "Circuits", "DescentEnded", "EmbeddedWeights", "LastTokenWeights", "OneHotWeights", "Parameters", "Stopped",
    "Trajectory", "attention_and_output", "circuits", "descend", "descent", "load", "loss_and_gradient", "parameters",
    "testing", "weights",
]


def __dir__() -> list[str]:
    return __all__
