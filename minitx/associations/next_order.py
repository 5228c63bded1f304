"""The exact orders that follow the leading terms of the weights, for any number of layers.

Legend: L layers, V vocabulary, s steps, eta learning rate; D = diag(alpha), kappa = 3 C(s,4) + 2 C(s,3). Psi[c, a] =
sum_t w_t sum_j A0_tj 1(x_j = c) 1(x_t = a); Phi_2 is the context attended twice.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from minitx.associations.basis import statistics
from minitx.associations.leading import leading_weights
from minitx.associations.reference_dynamics import attended, contexts
from minitx.base.checks import whole_number
from minitx.base.parallel import matmul
from minitx.data.batch import Batch
from minitx.model.layers import LayeredWeights


@dataclass(frozen=True, eq=False)
class NextOrder:
    """Weights with the order that follows their leading terms, and where layers part.

    ``weights`` is LayeredWeights: W_O to eta^3, its error O(eta^4); every V_l to eta^3, error O(eta^4); W_l and P_l are
    the leading terms, error O(eta^5), because their next order is the first that none of the notes has in closed form.
    ``parting`` (V, V), in the orientation of V, is kappa eta^4 (Phi_2^T Sigma_B Phi - B Phi Phi_2^T B^T): V_l - V_m =
    (m - l) ``parting`` + O(eta^5).
    """

    weights: LayeredWeights
    parting: NDArray[np.float64]


def next_order(batch: Batch, n_vocab: int, *, steps: int, learning_rate: float, n_layers: int = 1) -> NextOrder:
    """Weights after ``steps`` steps of full-batch gradient descent from zero, to the order after the leading one.

    W_O = s eta B - C(s,2) eta^2/V D B + eta^3 [ L C(s,3) B Phi Phi^T + C(s,3)/V^2 D^2 B
          - (2 C(s,3) + C(s,2))/(2V) D (B*B - rowmean(B*B)) ]
    V_l = C(s,2) eta^2 Phi^T B^T - eta^3/V [ C(s,3) Phi^T B^T D + (2 C(s,3) + C(s,2)) Psi B B^T ]

    (minitx; checked by slopes in eta.) Raises as :func:`minitx.associations.statistics` and
    :func:`minitx.associations.leading_weights`.
    """
    found = statistics(batch, n_vocab)
    leading = leading_weights(found, steps=steps, learning_rate=learning_rate)
    n_layers = whole_number("n_layers", n_layers, 1)
    s, eta, size = steps, learning_rate, found.n_vocab
    B, Phi, alpha = found.bigram, found.context, found.frequency
    two, three = comb(s, 2), comb(s, 3)
    square = B * B
    W_O = leading.W_O - two * eta**2 / size * alpha[:, None] * B + eta**3 * (
        n_layers * three * matmul(B, matmul(Phi, Phi.T)) + three / size**2 * (alpha**2)[:, None] * B
        - (2 * three + two) / (2 * size) * alpha[:, None] * (square - square.mean(axis=1, keepdims=True)))
    Psi = attended(batch, size, batch.tokens, 1).T
    V = leading.V - eta**3 / size * (three * found.value * alpha + (2 * three + two) * matmul(Psi, matmul(B, B.T)))
    Phi_2 = contexts(batch, size, 2)[2]
    kappa = 3 * comb(s, 4) + 2 * comb(s, 3)
    one = matmul(Phi_2.T, matmul(found.interchangeability, Phi))
    other = matmul(matmul(B, Phi), matmul(B, Phi_2).T)
    repeated = (np.repeat(array[None], n_layers, axis=0) for array in (V, leading.W, leading.P))
    return NextOrder(LayeredWeights(W_O, *repeated), kappa * eta**4 * (one - other))
