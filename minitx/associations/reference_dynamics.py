"""Reference dynamics: training whose gradient is taken at uniform output and attention, but at the actual weights.

The gradient there is that of J = sum over sets S of layers of tr(Phi_|S| M_S W_O), M_S the product of the V_l of S in
order: the output would be uniform and attention would be uniform over the prefix, but the weights are the actual ones.
Attention is held fixed there: the scores have slopes, which W_l and P_l follow, but bring none to the values of the
layers below. Reference dynamics goes on where the leading terms end, which also replace the weights by their leading
terms, and it ends when the loss visibly falls. Phi_k[b, a] = sum_t w_t rho0_t[b] (A0^k X)[t, a]; Phi_0 = B^T and Phi_1
= Phi.

With b_k^l the sum of M_S over the sets S of k of the layers 1 to l, and a_k^l that of M_S W_O over the layers above l,

    1  b_k^l = b_k^(l-1) + b_(k-1)^(l-1) V_l,    a_k^(l-1) = a_k^l + V_l a_(k-1)^l
    2  -dL/dW_O = sum_k (b_k^L)^T Phi_k^T,       -dL/dV_l = sum_(k,m) (b_k^(l-1))^T Phi_(k+1+m)^T (a_m^l)^T
    3  E_km = b_k^(l-1) V_l a_m^l minus its row means;  D_km[t, j] = w_t E_km[x_j, y_t]
    4  dA = sum_(k,m) (A0^m)^T D_km (A0^k)^T,    dS = A0 * (dA - rowsum(A0 * dA))
    5  -dL/dP_l[r] = sum of dS over t - j = r,   -dL/dW_l = sum_(k,m) (b_k^(l-1))^T H_km b_m^(l-1),
       H_km = X^T (A0^k)^T dS A0^m X

No step costs 2^L, and nothing is of size T x V.

Legend: L layers, N sequences, T positions, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.associations import depth_kernels
from minitx.associations.basis import Statistics, next_token_vocabulary, scores
from minitx.base import parallel
from minitx.base.checks import instance, positive, table_size, whole_number
from minitx.base.parallel import matmul, one_blas_thread, products, workers
from minitx.data.batch import Batch
from minitx.model import kernels as model_kernels
from minitx.model.layers import LayeredWeights
from minitx.model.weights import OneHotWeights

MOST_STEPS = 1_000_000  # of closed_form, which takes each of them
WAVE_BYTES = 32 << 20  # Memory of the scores of a wave of sequences; more give work to more threads.


@dataclass(frozen=True, eq=False)
class Reference:
    """What reference dynamics needs of a batch: its sequences, and Phi_0 to Phi_L, (L + 1, V, V) float64.

    Row of a Phi = next token, column = token of its context; columns sum to 0.
    """

    MADE_BY: ClassVar[str] = "minitx.associations.reference_dynamics.reference(batch, n_vocab, n_layers)"

    batch: Batch
    contexts: NDArray[np.float64]


def contexts(batch: Batch, n_vocab: int, n: int) -> NDArray[np.float64]:
    """Phi_0 to Phi_n, (n + 1, V, V) float64: the contexts attended 0 to n times, by O(N T U n) additions.

    Phi_k[b, a] = sum_t w_t (1(y_t = b) - 1/V) (A0^k X)[t, a]. Raises as :func:`minitx.associations.statistics`.
    """
    n_vocab, n = next_token_vocabulary(batch, n_vocab), whole_number("n", n, 0)
    table_size(f"contexts attended up to {n} times", n + 1, n_vocab, n_vocab)
    tables = np.array([attended(batch, n_vocab, batch.targets, power) for power in range(n + 1)])
    tables -= tables.sum(axis=1, keepdims=True) / n_vocab
    return tables


def attended(batch: Batch, n_vocab: int, rows: NDArray[np.int32], power: int) -> NDArray[np.float64]:
    """sum_t w_t onehot(rows_t) (A0^power X)_t, (V, V): what positions of the token ``rows`` (N, T) attend to."""
    table = np.zeros((n_vocab, n_vocab))
    slots, words, n_words = model_kernels.distinct(batch.tokens.copy(), batch.lengths.copy(), n_vocab)
    words, n_owners = np.ascontiguousarray(words[:, :n_words.max()]), parallel.get_threads()
    with workers(n_owners) as run:
        run(lambda owner: depth_kernels.add_shares(batch.lengths, rows, batch.weight, words, slots, power, owner,
                                                   n_owners, table), range(n_owners))
    return table


def reference(batch: Batch, n_vocab: int, n_layers: int) -> Reference:
    """What reference dynamics of ``n_layers`` layers needs of ``batch``. Raises as :func:`contexts`."""
    return Reference(batch, contexts(batch, n_vocab, whole_number("n_layers", n_layers, 1)))


def loss_and_gradient(weights: LayeredWeights, reference: Reference) -> tuple[float, LayeredWeights]:
    """The loss to first order in the outputs, sum_t w_t ln V - J, and its gradient at uniform attention (float64).

    It is an objective for ``descend(weights, reference, loss_and_gradient=...)``. ValueError is raised for weights that
    do not fit the reference.
    """
    instance("weights", weights, LayeredWeights)
    instance("reference", reference, Reference)
    if len(reference.contexts) != weights.n_layers + 1 or reference.contexts.shape[1] != weights.n_vocab:
        raise ValueError(f"the reference has {len(reference.contexts) - 1} layers and V = {reference.contexts.shape[1]}"
                         f", the weights have {weights.n_layers} layers and V = {weights.n_vocab}")
    if weights.P.shape[1] < reference.batch.tokens.shape[1]:
        raise ValueError(f"P has shape {weights.P.shape}, but the sequences have {reference.batch.tokens.shape[1]} "
                         "positions")
    weights, Phi = weights.astype(np.float64), reference.contexts
    n_layers, zeros = weights.n_layers, np.zeros_like(weights.W_O)
    # 1  b_k^l (below) for l = 0 to L, a_k^l (above) for l = L down to 0; index k
    below, above = _sums_of_paths(weights)
    # 2  -dL/dW_O, -dL/dV_l
    W_O = sum((_times(below[n_layers][k], Phi[k], transposed=True) for k in range(n_layers + 1)), zeros)
    V, W, P = (np.zeros_like(array) for array in (weights.V, weights.W, weights.P))
    for l in range(1, n_layers + 1):
        b, a = below[l - 1], above[l]
        for k in range(l):
            inner = sum((matmul(Phi[k + 1 + m].T, a[m].T) for m in range(n_layers - l + 1)), zeros)
            V[l - 1] += _times(b[k], inner)
        # 3  E_km = b_k^(l-1) V_l a_m^l minus its row means, transposed: row = next token
        E = np.empty((l, n_layers - l + 1, *W_O.shape))
        for k in range(l):
            for m in range(n_layers - l + 1):
                table = matmul(weights.V[l - 1] if k == 0 else matmul(b[k], weights.V[l - 1]), a[m])
                E[k, m] = (table - table.mean(axis=1, keepdims=True)).T
        # 4, 5  dS, and -dL/dP_l and -dL/dW_l from it
        H, P[l - 1] = _scores(reference.batch, E, len(P[0]))
        for k in range(l):
            W[l - 1] += _times(b[k], sum((H[k, m] if m == 0 else matmul(H[k, m], b[m]) for m in range(l)), zeros))
    J = sum(np.sum(Phi[k] * above[0][k].T) for k in range(n_layers + 1))
    loss = float(reference.batch.weight.sum() * np.log(weights.n_vocab) - J)
    gradient = LayeredWeights(-W_O, -V, -W, -P)
    if not np.isfinite(loss) or gradient.not_finite():
        raise FloatingPointError("reference dynamics overflows: products of the values V grow without bound")
    return loss, gradient


def _sums_of_paths(weights):
    """([b^0, ..., b^L], [a^0, ..., a^L]), each a list over k; b_0 is the identity, given as None."""
    n_layers = weights.n_layers
    below = [[None]]
    for V in weights.V:
        b = below[-1]
        terms = [V if part is None else matmul(part, V) for part in b]  # b_(k-1) V_l, for k = 1, 2, ...
        below.append([None, *(old + new for old, new in zip(b[1:], terms, strict=False)), terms[-1]])
    above = [[weights.W_O]]
    for l in range(n_layers, 0, -1):
        a = above[0]
        terms = [matmul(weights.V[l - 1], part) for part in a]
        above.insert(0, [a[0], *(old + new for old, new in zip(a[1:], terms, strict=False)), terms[-1]])
    return below, above


def _times(b, matrix, transposed=False):
    """b^T matrix, or b^T matrix^T; b = None is the identity."""
    matrix = matrix.T if transposed else matrix
    return matrix if b is None else matmul(b.T, matrix)


def _scores(batch, E, length):
    """H (K, K, V, V) and -dL/dP (length,) of a layer, from E (K, M, V, V): row = next token, column = attended."""
    n_below, n_vocab = len(E), E.shape[2]
    H, dP = np.zeros((n_below, n_below, n_vocab, n_vocab)), np.zeros(length)
    rows = np.flatnonzero(batch.weight.any(axis=1))
    size = max(1, WAVE_BYTES // (8 * n_below**2 * batch.tokens.shape[1]**2))
    n_owners = parallel.get_threads()

    def slopes(row):
        n = batch.lengths[row]
        dS, inner, offsets = np.empty((n, n)), np.empty((n, n)), np.zeros(length)
        depth_kernels.reference_scores(batch.tokens[row, :n], batch.targets[row, :n], batch.weight[row, :n], E, dS,
                                       inner)
        depth_kernels.uniform_softmax_backward(dS, offsets)
        both = np.empty((n_below, n_below, n, n))
        depth_kernels.attend_both_sides(dS, both)
        return batch.tokens[row, :n], both, offsets

    with workers(max(n_owners, min(size, len(rows)))) as run:
        for start in range(0, len(rows), size):
            found = run(slopes, rows[start:start + size])

            def add(owner, found=found):
                for tokens, both, _ in found:
                    depth_kernels.add_pairs(tokens, both, owner, n_owners, H)

            run(add, range(n_owners))
            for _, _, offsets in found:
                dP += offsets
    return H, dP


class OneLayer:
    """Reference dynamics of one layer from zero, at any step, by the closed form; no step needs those before it.

    Attention is a sum over the steps r before s, W + P = eta sum_r scores(V_r W_O_r), and the scores are linear, so
    that with M = U^T Sigma_B U and the factors odd_r, even_r of :func:`closed_form` they are taken once, of

        eta sum_r V_r W_O_r = eta^4 Phi^T U (M * sum_r even_r odd_r^T) U^T

    The singular vectors are found when it is made: ``OneLayer(batch, statistics, learning_rate=...)``.
    """

    def __init__(self, batch: Batch, statistics: Statistics, *, learning_rate: float):
        instance("batch", batch, Batch)
        instance("statistics", statistics, Statistics)
        self.batch, self.statistics, self.eta = batch, statistics, positive("learning_rate", learning_rate)
        self._U, self._sigma, _ = _singular(statistics.context)
        self._B_U, self._Phi_U = matmul(statistics.bigram, self._U), matmul(statistics.context.T, self._U)
        self._M = matmul(matmul(self._U.T, statistics.interchangeability), self._U)

    def weights(self, steps: int) -> OneHotWeights:
        """The weights after ``steps`` steps, float64; some are inf or nan where a growing product overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            sums = list(_binomial_sums(self.eta * self._sigma, whole_number("steps", steps, 0, MOST_STEPS)))
            W_O, V = _from_sums(self._U, self._B_U, self._Phi_U, self.eta, *sums[-1])
            odd, even = (np.array(parts) for parts in zip(*sums, strict=True))
            passed = matmul(even[:-1].T, odd[:-1])
            ov = self.eta**4 * matmul(matmul(self._Phi_U, self._M * passed), self._U.T)
        W, P = scores(self.batch, ov) if np.isfinite(ov).all() else (ov, np.full(self.batch.tokens.shape[1], np.nan))
        return OneHotWeights(W_O, V, W, P)


@one_blas_thread()
def _singular(matrix):
    return np.linalg.svd(matrix)


@one_blas_thread()
def closed_form(statistics: Statistics, *, steps: int, learning_rate: float, n_layers: int = 1
                ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(W_O, V) after ``steps`` steps from zero, where only paths through at most one layer are kept; both (V, V).

    From Phi = U diag(sigma) Z^T and x = eta sqrt(L) sigma:

        W_O = B U diag( ((1+x)^s - (1-x)^s) / (2 sqrt(L) sigma) ) U^T
        V = Phi^T U diag( (((1+x)^s + (1-x)^s)/2 - 1) / (L sigma^2) ) U^T B^T,   the same for all layers

    It is reference dynamics itself for L = 1; depth acts as Phi -> sqrt(L) Phi. ValueError is raised for a number of
    steps or layers, or a learning rate, that is not valid.
    """
    instance("statistics", statistics, Statistics)
    s, eta = whole_number("steps", steps, 0, MOST_STEPS), positive("learning_rate", learning_rate)
    n_layers = whole_number("n_layers", n_layers, 1)
    U, sigma, _ = _singular(statistics.context)
    *_, (odd, even) = _binomial_sums(eta * np.sqrt(n_layers) * sigma, s)
    return _from_sums(U, matmul(statistics.bigram, U), matmul(statistics.context.T, U), eta, odd, even)


def _from_sums(U, B_U, Phi_U, eta, odd, even):
    """(W_O, V) from :func:`_binomial_sums`, U, B U and Phi^T U."""
    W_O, V = products((B_U * (eta * odd), U.T), (Phi_U * (eta**2 * even), B_U.T))
    return W_O, V


def _binomial_sums(x, s):
    """((1+x)^r - (1-x)^r) / (2x) and (((1+x)^r + (1-x)^r)/2 - 1) / x^2 for r = 0 to s, without cancellation.

    Both follow from the recursion of the descent itself: W_O gains 1 + x^2 V and V gains W_O at every step.
    """
    odd, even = np.zeros_like(x), np.zeros_like(x)
    yield odd, even
    for _ in range(s):
        odd, even = odd + 1 + x**2 * even, even + odd
        yield odd, even
