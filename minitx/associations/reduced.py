"""Reduced dynamics: training closed on corpus statistics, never forming a quantity of size N x T x V.

The gradient of one attention layer needs the prediction p_t = softmax(out_t) at every position, which costs N T V. Here positions
are put into K cells, each of one current token, and a cell has one prediction: the softmax at its mean context. Attention stays
exact. What makes few cells enough is that contexts act on the output through very few numbers (M below is of rank 32 to six
digits, and the first of these numbers does nearly all), so that cells are intervals of one number.

Tables D = W_O, M = V W_O; w_t weights, c_t = sum_j A_tj onehot(x_j) the attended context. One gradient:

    0  U = leading directions of M, (V, r): those of M J M^T with J = diag(f) - f f^T, f the frequency of next tokens;  M = U R
    1  z_t = c_t . U[:, 0];  cells k: for each current token, intervals of z, of equal spread (:func:`_cells`)
    2  Psi[k, c] = sum_{t in k} w_t c_t[c],  Ctx[y, c] = sum_t w_t 1(y_t = y) c_t[c],  m_k = sum_{t in k} w_t,  cbar_k = Psi_k / m_k
    3  p_k = softmax(D[token of k, :] + cbar_k M)
    4  delta_tj = M[x_j, y_t] - (p M^T)[k_t, x_j]                                        first order
                  - (c_t - cbar_k) M' Jbar M[x_j, :]^T                                   second order
       Jbar = diag(sum_k m_k p_k) - sum_k m_k p_k^T p_k, the mean Jacobian of the softmax;  M' = the first r' directions of M
    5  sigma_tj = A_tj (delta_tj - sum_k A_tk delta_tk)  ->  G_qk[x_t, x_j], G_position[t - j]
    6  G_direct = P(a then b) - sum_{k of a} m_k p_k
       G_ov     = Ctx^T - Psi^T p                                                        first order
                  - C M' Jbar,  C = sum_t w_t c_t^T c_t - sum_k m_k cbar_k^T cbar_k       second order
    7  -dL/dW_O = G_direct + V^T G_ov,  -dL/dV = G_ov W_O^T,  -dL/dW = G_qk,  -dL/dP = G_position
    8  loss = - <P(a then b), D> - <Ctx^T, M> + sum_k m_k log sum_b exp(D + cbar_k M)    first order
              + <C, M' Jbar M'^T> / 2                                                     second order

The gradient (4 to 7) differs a little from the derivative of the loss (8). At first order it is this derivative, within the
cells and up to the directions of M that r leaves out. At second order equation 8 is differentiated as if Jbar were a constant,
although Jbar depends on the weights through p_k: predictions respond linearly, and what the derivative of Jbar would add,
<C, M' dJbar M'^T> / 2, is the curvature of the softmax. On 60 windows of 10 tokens of the built-in stories (V = 40, default
settings, after 60 steps of 2.0 the loss is 1.11 of 3.69) the relative difference is 0.22% in W_O, 0.29% in V, 0.23% in W and
0.70% in P. It grows with training, as the distance from the exact gradient does: on TinyStories (V = 300, 300 windows of 32,
after 300 steps of 1.0 the loss is 3.89 of 5.70) it is about 10, 7, 1 and 4%, while the exact gradient is 15, 19, 8 and 50% away.
Besides, cells are chosen anew at every step, and the loss jumps a little where a position changes its cell.

With one cell a token and all of M these are the equations of the notes. From zero weights, the first terms in eta are the leading
terms of Im et al. (2026), exactly, for any number of cells: there p = 1/V whatever the context.

Cost of a gradient: O(N T^2) lookups, O(N T^2 r') additions at second order, and (K + 2 V) V^2 multiplications, against 3 N T^2 V
for the exact one; memory O((K + V) V + N T r').

Legend: N sequences, T positions, V vocabulary, K cells, r rank of M, r' rank of the response; n loss positions.
"""

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from minitx.associations import basis as reference
from minitx.associations import kernels
from minitx.base import parallel
from minitx.base.checks import whole_number
from minitx.base.parallel import matmul
from minitx.data.batch import Batch
from minitx.model import descent
from minitx.model.circuits import Circuits
from minitx.model.parameters import read_only
from minitx.model.weights import OneHotWeights

PIECES = 16  # pieces of work: a constant, so that results are bit-identical for any number of threads
FIRST_ROUNDS, ROUNDS = 12, 3  # of subspace iteration: for the leading terms, and from these in each step


@dataclass(frozen=True, eq=False)
class Reduction:
    """What reduced dynamics keeps of a batch, as :func:`reduce` makes it: the data of :func:`loss_and_gradient`.

    Attributes
    ----------
    tokens : (N, T) int32
    sequence, at, current, following : (n,) int32
        Row, column, token and next token of every loss position, sorted by token, then by next token.
    weight : (n,) float64
    by_following : (n,) int32
        Loss positions sorted by next token.
    begin, end : (tokens that occur,) int64
        Where the positions of each current token are.
    pairs : sparse (V, V) float64
        Row = current token, column = next token.
    frequency : (V,) float64
        f, of next tokens.
    basis : (V, r) float64
        U at the leading terms; the start of the search for that of the moment.
    cuts, following_cuts : (at most PIECES + 1,) int64
        Pieces of the work, between two tokens, and in ``by_following`` between two next tokens.
    n_cells, order, response_rank : int
    """

    tokens: np.ndarray
    sequence: np.ndarray
    at: np.ndarray
    current: np.ndarray
    following: np.ndarray
    weight: np.ndarray
    by_following: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    pairs: sparse.csr_array
    frequency: np.ndarray
    basis: np.ndarray
    cuts: np.ndarray
    following_cuts: np.ndarray
    n_cells: int
    order: int
    response_rank: int


@parallel.one_blas_thread()
def reduce(batch, n_vocab, *, order=2, n_cells=None, rank=32, response_rank=4):
    """Prepare a batch for reduced dynamics.

    Parameters
    ----------
    batch : Batch
        Causal, cross-entropy: next-token training.
    n_vocab : int
        V.
    order : {1, 2}
        1: one prediction a cell. 2: and its linear response to how far a context is from the cell's mean.
    n_cells : int, optional
        K, at least V; V is one cell a token. Default: 3 V.
    rank : int
        r, how many directions of M = V W_O are kept, of V.
    response_rank : int
        r', how many of these make a prediction respond at second order.

    Returns
    -------
    Reduction
        For :func:`loss_and_gradient`; :func:`descend` makes its own.

    Raises
    ------
    TypeError, ValueError
        Settings that cannot be; batches that are not next-token training, or have negative weights.
    """
    n_vocab, rank = whole_number("n_vocab", n_vocab, 2), whole_number("rank", rank, 1)
    response_rank = whole_number("response_rank", response_rank, 1)
    n_cells = 3 * n_vocab if n_cells is None else whole_number("n_cells", n_cells, n_vocab)
    if order not in (1, 2):
        raise ValueError(f"order is {order!r}; it must be 1 (one prediction a cell) or 2 (and its linear response)")
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch (tokens, targets, weight), got {type(batch).__name__}")
    batch.require_next_token()
    batch.require_vocabulary(n_vocab)
    if batch.weight.min() < 0:
        raise ValueError(f"the mean context of a cell needs weights of one sign, but a position has {batch.weight.min():g}; "
                         "set it to 0")
    sequence, at = np.nonzero(batch.weight)
    current, following = batch.tokens[sequence, at], batch.targets[sequence, at]
    sort = np.lexsort((following, current))
    sequence, at, current, following = (np.ascontiguousarray(a[sort], np.int32) for a in (sequence, at, current, following))
    weight = batch.weight[sequence, at]
    by_following = np.argsort(following, kind="stable").astype(np.int32)
    begin = np.flatnonzero(np.diff(current, prepend=-1))
    pairs, _ = reference.bigram_counts(batch, n_vocab)
    frequency = np.bincount(following, weight, n_vocab)
    Phi, _ = reference.context(batch, n_vocab)
    start = np.random.default_rng(0).standard_normal((n_vocab, min(rank, n_vocab)))
    basis = _leading_directions(Phi.T, (pairs.T @ pairs), frequency, start, FIRST_ROUNDS)  # M of the leading terms: Phi^T B^T B
    return Reduction(batch.tokens, sequence, at, current, following, weight, by_following, begin, np.append(begin[1:], len(at)),
                     pairs, frequency, basis, _cuts(current, at), _cuts(following[by_following], at[by_following]), n_cells, order,
                     response_rank)


def _cuts(tokens, at):
    """At most PIECES pieces of about equal cost (keys to visit) of positions sorted by ``tokens``, cut between two tokens."""
    cost = np.cumsum(at + 1.0)
    nearest = np.searchsorted(cost, cost[-1] * np.arange(1, PIECES) / PIECES)
    return np.unique(np.concatenate([[0], np.searchsorted(tokens, tokens[nearest]), [len(tokens)]]))


def _leading_directions(V, W_O, frequency, basis, rounds):
    """Leading eigenvectors of M J M^T, M = V W_O, as orthonormal columns, by ``rounds`` of subspace iteration from ``basis``."""
    for _ in range(rounds):
        image = W_O.T @ (V.T @ basis)
        image = V @ (W_O @ (frequency[:, None] * (image - frequency @ image)))
        size = np.abs(image).max()
        if not 0 < size < np.inf:
            return basis
        basis = np.linalg.qr(image / size)[0]
    return basis


def descend(weights, batch, *, order=2, n_cells=None, **settings):
    """Reduced dynamics as training is done: :func:`minitx.descend` on ``reduce(batch)``.

    Parameters
    ----------
    weights : OneHotWeights
        The start; float64 or float32: the precision of the work.
    batch : Batch
        Causal, cross-entropy: next-token training.
    order, n_cells
        As for :func:`reduce`.
    settings
        As for :func:`minitx.descend`: learning_rate, steps, keep, frozen, normalised, callback.

    Returns
    -------
    Trajectory
        Of predicted weights; its loss is the predicted one.

    Raises
    ------
    TypeError, ValueError
        As :func:`reduce`, :func:`loss_and_gradient` and :func:`minitx.descend`.
    """
    data = reduce(batch, len(weights.W_O), order=order, n_cells=n_cells)
    return descent.descend(weights, data, loss_and_gradient=loss_and_gradient, **settings)


@parallel.one_blas_thread()
def loss_and_gradient(weights, reduction):
    """Loss and gradient of the reduced dynamics, in the place of :func:`minitx.loss_and_gradient`.

    Parameters
    ----------
    weights : OneHotWeights
        float64 or float32: the precision of the work.
    reduction : Reduction

    Returns
    -------
    loss : float
        The predicted loss.
    gradient : OneHotWeights
        Each array in the orientation of its weight. At second order it is not exactly the derivative of the loss, because the
        mean Jacobian of the softmax is held constant; the docstring of the module says how large the difference is.

    Raises
    ------
    TypeError, ValueError
        Weights of another parametrisation, of another vocabulary, for shorter sequences, or not finite.
    FloatingPointError
        The loss is not finite.
    """
    _require_fit(weights, reduction)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        loss, gradient = _loss_and_gradient(weights, reduction)
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: the outputs overflow; use smaller weights or steps")
    return loss, gradient


def _require_fit(weights, reduction):
    if not isinstance(reduction, Reduction):
        raise TypeError(f"reduced dynamics needs a Reduction, from minitx.associations.reduced.reduce(batch, n_vocab), "
                        f"got {type(reduction).__name__}")
    if not isinstance(weights, OneHotWeights):
        raise TypeError(f"reduced dynamics is that of OneHotWeights, got {type(weights).__name__}")
    n_vocab, length = len(reduction.frequency), reduction.tokens.shape[1]
    if len(weights.W_O) != n_vocab or len(weights.P) < length:
        raise ValueError(f"the weights have {len(weights.W_O)} tokens and {len(weights.P)} positions, the reduction {n_vocab} and "
                         f"{length}; build them with OneHotWeights.zeros({n_vocab}, {length})")
    if broken := weights.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")


def _loss_and_gradient(weights, reduction):
    """The numbered equations of the module."""
    W_O, dtype = weights.W_O, weights.W_O.dtype
    n_vocab = len(W_O)
    visit = _Visits(weights, reduction)
    # 0  M = U R
    frequency = reduction.frequency.astype(dtype)
    U = np.ascontiguousarray(_leading_directions(weights.V, W_O, frequency, reduction.basis.astype(dtype), ROUNDS))
    R = (U.T @ weights.V) @ W_O
    M_T = np.ascontiguousarray(matmul(R.T, U.T))  # row = output token, column = attended token
    # 1  cells
    few = min(reduction.response_rank, U.shape[1]) if reduction.order == 2 else 0
    basis = _fours(U[:, :few])  # of M'
    images = visit.images(basis)
    cell, owner, order = _cells_of(visit, reduction, U, images)
    mass = np.bincount(cell, reduction.weight).astype(dtype)[:, None]
    # 2  contexts
    Psi, Ctx = np.zeros((len(owner), n_vocab), dtype), np.zeros((n_vocab, n_vocab), dtype)
    products = visit.contexts(cell, order, reduction.cuts, images, Psi)[:, :few]
    visit.contexts(reduction.following, reduction.by_following, reduction.following_cuts, images[:, :0], Ctx)
    centre = (Psi @ U) / mass  # cbar U
    # 3  predictions
    p = matmul(centre, R)
    p += W_O[owner]
    top = p.max(axis=1, keepdims=True)
    p -= top
    np.exp(p, out=p)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    # 8  loss
    loss = float(np.sum(mass * (np.log(total) + top), dtype=np.float64) - np.sum(reduction.pairs.multiply(W_O))
                 - np.einsum("ij,ij", Ctx, M_T, dtype=np.float64))
    # 6  tables
    of_owner = sparse.csr_array((mass[:, 0], (owner, np.arange(len(owner)))), shape=(n_vocab, len(owner)))
    G_direct = reduction.pairs.astype(dtype).toarray() - of_owner @ p
    G_ov = Ctx.T - matmul(Psi.T, p)
    response = U[:, :0]
    if few:
        R_Jbar = R[:few] * (mass.T @ p) - ((R[:few] @ p.T) * mass.T) @ p
        C_basis = products - Psi.T @ centre[:, :few]
        G_ov -= matmul(C_basis, R_Jbar)
        response = U @ (R @ R_Jbar.T)
        loss += 0.5 * float(np.sum((U[:, :few].T @ C_basis) * (R_Jbar @ R[:few].T), dtype=np.float64))
    # 4, 5  scores
    G_qk = np.zeros((n_vocab, n_vocab), dtype)
    expected = matmul(p @ R.T, U.T)  # p M^T
    tables = M_T, np.ascontiguousarray(expected), _fours(centre[:, :few]), _fours(response)
    G_position = visit.scores(cell, order, images, tables, G_qk, len(weights.P))
    # 7  back to the weights, by the chain rule
    gradient = Circuits(direct=-G_direct, ov=-G_ov, qk=-G_qk, position=-G_position, bias=None)
    return loss, weights.pullback(gradient)


def _fours(columns):
    """The columns, and columns of zeros up to a multiple of four: the kernels take four at once."""
    padded = np.zeros((len(columns), -(-columns.shape[1] // 4) * 4), columns.dtype)
    padded[:, :columns.shape[1]] = columns
    return padded


class _Visits:
    """The kernels that visit all loss positions, in pieces, at the attention of some weights."""

    def __init__(self, weights, reduction):
        W, P = (read_only(np.ascontiguousarray(table)) for table in (weights.W, weights.P))
        self.reduction, self.dtype = reduction, W.dtype
        self.scale = np.zeros(len(reduction.at), self.dtype)  # of the attention, which the first visit finds
        self.where = (reduction.tokens.view(np.uint32), reduction.sequence, reduction.at, self.scale)
        self.weight = reduction.weight.astype(self.dtype)
        seen = P[:reduction.tokens.shape[1]]
        self.attention = (W, P, np.exp(W - W.max(axis=1, keepdims=True)), np.exp(seen - seen.max())[::-1].copy())

    def images(self, basis):
        """c_t basis at every position, (n, columns of basis)."""
        order = np.arange(len(self.scale), dtype=np.int32)
        found = np.empty((len(order), basis.shape[1]), self.dtype)
        if found.size:
            self._run(lambda piece, _: kernels.context_images(self.where, order, self.attention, basis, piece, found))
        return found

    def contexts(self, rows, order, cuts, images, table):
        """Step 2: table[rows of t, :] += w_t c_t; returns sum_t w_t c_t^T images_t, (V, columns of images).

        No two pieces, which ``cuts`` make of ``order``, have a row in common.
        """
        images = np.ascontiguousarray(images)
        parts = np.zeros((len(cuts) - 1, table.shape[1], images.shape[1]), self.dtype)
        self._run(lambda piece, part: kernels.context_sums(self.where, self.weight, rows, order, self.attention, images, piece,
                                                           table, part), cuts, parts)
        return parts.sum(axis=0)

    def scores(self, cell, order, images, tables, G_qk, length):
        """Steps 4 and 5: adds to ``G_qk``, returns G_position."""
        n_seen = self.reduction.tokens.shape[1]
        parts = np.zeros((len(self.reduction.cuts) - 1, n_seen), self.dtype)
        self._run(lambda piece, part: kernels.reduced_scores(self.where, self.weight, self.reduction.following, cell, order,
                                                             self.attention, images, tables, piece, G_qk, part), parts=parts)
        G_position = np.zeros(length, self.dtype)
        G_position[:n_seen] = parts.sum(axis=0)[::-1]  # the kernel has the last offset first
        return G_position

    def _run(self, visit, cuts=None, parts=None):
        """``visit(piece, part)`` for every piece, in threads."""
        pieces = list(pairwise(self.reduction.cuts if cuts is None else cuts))
        with parallel.workers(len(pieces)) as run:
            run(lambda i: visit(pieces[i], None if parts is None else parts[i]), range(len(pieces)))


def _cells_of(visit, reduction, U, images):
    """Step 1: cell of every position (n,), current token of every cell (K,), positions in the order of their cells (n,)."""
    order = np.arange(len(reduction.at), dtype=np.int32)
    edges = reduction.begin
    extra = reduction.n_cells - len(reduction.frequency)  # tokens that do not occur count as cells
    if extra > 0:
        z = np.ascontiguousarray((images if images.size else visit.images(_fours(U[:, :1])))[:, 0])
        token_pieces = np.array_split(np.arange(len(reduction.begin)), PIECES)
        with parallel.workers(PIECES) as run:
            run(lambda part: kernels.sort_within(z, reduction.begin[part], reduction.end[part], order), token_pieces)
        edges = _cells(z[order], reduction.weight[order], reduction.begin, reduction.end, len(edges) + extra)
    in_order = np.zeros(len(order), np.int32)
    in_order[edges[1:]] = 1
    cell = np.empty_like(in_order)
    cell[order] = np.cumsum(in_order, dtype=np.int32)
    if extra > 0:  # within a cell by next token, so that rows of next tokens are looked up in turn
        order = np.argsort(cell, kind="stable").astype(np.int32)
    return cell, reduction.current[edges], order


def _cells(z, weight, begin, end, n_cells):
    """First index of each cell, increasing: the tokens' runs ``begin``..``end`` of sorted ``z``, cut until there are ``n_cells``.

    The run that is cut next is the one with the largest spread, sum of weight (z - mean)^2; it is cut in two as 2-means would.
    """
    sizes = end - begin
    mean = np.add.reduceat(weight * z, begin) / np.add.reduceat(weight, begin)
    z = z - np.repeat(mean, sizes)  # so that nothing cancels
    w, wz, wzz = (np.concatenate([[0.0], np.cumsum(a)]) for a in (weight, weight * z, weight * z * z))

    def run(a, b):
        return wzz[b] - wzz[a] - (wz[b] - wz[a]) ** 2 / (w[b] - w[a]), a, b

    negligible = 1e-10 * wzz[-1] / len(begin)  # rounding of equal contexts
    heap = [(-spread, a, b) for spread, a, b in map(run, begin.tolist(), end.tolist()) if b - a > 1 and spread > negligible]
    heapq.heapify(heap)
    edges = begin.tolist()
    while heap and len(edges) < n_cells:
        _, a, b = heapq.heappop(heap)
        cut = _two_means(z, w, wz, a, b)
        edges.append(cut)
        for spread, c, d in (run(a, cut), run(cut, b)):
            if d - c > 1 and spread > negligible:
                heapq.heappush(heap, (-spread, c, d))
    return np.sort(np.array(edges))


def _two_means(z, w, wz, a, b, rounds=4):
    """Where to cut a..b: ``rounds`` of 2-means in one dimension, from the mean."""
    middle = (wz[b] - wz[a]) / (w[b] - w[a])
    for _ in range(rounds):
        cut = min(max(a + int(np.searchsorted(z[a:b], middle)), a + 1), b - 1)
        middle = 0.5 * ((wz[cut] - wz[a]) / (w[cut] - w[a]) + (wz[b] - wz[cut]) / (w[b] - w[cut]))
    return cut
