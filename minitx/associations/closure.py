"""Reduced dynamics: gradient descent closed on corpus statistics, which never forms a quantity of size N x T x V.

The gradient of one attention layer needs the prediction softmax(out_t) at every position, which costs N T V. Here
positions are put into K cells, each of one current token, and a cell has one prediction: the softmax at its mean
context. Attention stays exact. Few cells are enough, because contexts act on the output through very few numbers (M
below is of rank 32 to six digits, and the first of these numbers does nearly all), so that cells can be boxes of four
numbers.

The tables are D = W_O and M = V W_O; w_t are the weights of the positions, and P(a then b) = sum_t w_t 1(x_t = a)
1(y_t = b). A gradient is computed in this order:

    1  c_t = sum_j A_tj onehot(x_j), the attended context, by lookups; A is the exact attention
    2  M = U R, where U (V, r) holds the leading directions of M: the eigenvectors of M J M^T with J = diag(f) - f f^T
       and f the frequency of next tokens. M' is M in the first r' directions alone.
    3  z_t = c_t U[:, :4] diag(sqrt(lambda)), with lambda the eigenvalues of M J M^T. The cells k of a token are boxes
       of these four numbers: the cell with the largest spread is cut next, in two, across the number that it varies
       most by. Numbers are scaled by what they do: |z_s - z_t| is how far the outputs c_s M and c_t M are apart in
       the norm of J, whose square is, near f, twice the divergence of their predictions.
    4  m_k = sum_{t in k} w_t,  Psi[k, :] = sum_{t in k} w_t c_t,  cbar_k = Psi[k, :] / m_k,
       Ctx[y, :] = sum_{t: y_t = y} w_t c_t
    5  p_k = softmax(D[token of k, :] + cbar_k M),  with Z_k the sum of the exponentials
    6  First order:  loss = sum_k m_k log Z_k - <P(a then b), D> - <Ctx, M^T>
                     G_direct = P(a then b) - sum_{k of a} m_k p_k,    G_ov = Ctx^T - Psi^T p
    7  Second order, the linear response to c_t - cbar_k, with the mean Jacobian of the softmax
       Jbar = diag(sum_k m_k p_k) - sum_k m_k p_k^T p_k  and  C = sum_t w_t c_t^T c_t - sum_k m_k cbar_k^T cbar_k:
                     loss += <C, M' Jbar M'^T> / 2,    G_ov -= C M' Jbar
    8  delta_tj = M[x_j, y_t] - (p M^T)[k_t, x_j] - (c_t - cbar_k) M' Jbar M[x_j, :]^T      (the last at second order)
       sigma_tj = A_tj (delta_tj - sum_k A_tk delta_tk),
       G_qk[x_t, x_j] += w_t sigma_tj,  G_position[t - j] += w_t sigma_tj
    9  -dL/dW_O = G_direct + V^T G_ov,  -dL/dV = G_ov W_O^T,  -dL/dW = G_qk,  -dL/dP = G_position

The gradient is not exactly the derivative of the loss. At first order it is, within the cells and up to the directions
of M that r leaves out. At second order the loss of equation 7 is differentiated as if Jbar were a constant; what its
dependence on the weights would add, <C, M' dJbar M'^T> / 2, is the curvature of the softmax. On 60 windows of 10 tokens
of the built-in stories (V = 40, 2 V cells, after 60 steps of 2.0 the loss is 1.11 of 3.69) the relative difference is
0.32% in W_O, 0.54% in V, 0.16% in W and 0.52% in P. It grows with training, as the distance from the exact gradient
does: on TinyStories (V = 300, 300 windows of 32, 3 V cells, after 300 steps of 1.0 the loss is 3.90 of 5.70) it is
about 2, 2, 1 and 2%, while the exact gradient is 3, 4, 2 and 10% away. Besides, cells are chosen anew at every step,
and the loss jumps a little where a position changes its cell.

From zero weights, the first terms in eta are the leading terms of Im et al. (2026), exactly, for any number of cells,
because there p = 1/V whatever the context. A gradient costs O(N T^2) lookups, O(N T^2 r') additions at second order and
(K + 2 V) V^2 multiplications, against 3 N T^2 V for the exact one; memory is O((K + V) V + N T r').

Legend: N sequences, T positions, V vocabulary, K cells, r rank of M, r' rank of the response; n loss positions.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from minitx.associations import kernels
from minitx.associations.basis import bigram_counts, context, next_token_vocabulary
from minitx.associations.rest import Closure
from minitx.base import parallel
from minitx.base.checks import described, instance, require_shapes, whole_number
from minitx.base.parallel import matmul
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.circuits import Circuits
from minitx.model.parameters import Array, read_only
from minitx.model.weights import OneHotWeights

PIECES = 16  # Pieces of the work. A constant, so that results are bit-identical for any number of threads.
RANK, RESPONSE_RANK = 32, 4  # r and r' at second order, where V is not smaller.
NUMBERS = 4  # Columns of z, where V is not smaller.
FIRST_ROUNDS, ROUNDS = 12, 3  # Rounds of subspace iteration: at the leading terms, and from there at each step.


@dataclass(frozen=True, eq=False)
class Reduction(Shown):
    """What reduced dynamics keeps of a batch, as :func:`reduce` makes it: the data of :func:`loss_and_gradient`.

    The n loss positions are sorted by token, then by next token.
    """

    MADE_BY: ClassVar[str] = "minitx.associations.reduced.reduce(batch, n_vocab)"

    tokens: NDArray[np.int32]  # (N, T)
    sequence: NDArray[np.int32]  # (n,) row of every loss position in ``tokens``
    at: NDArray[np.int32]  # (n,) its column
    current: NDArray[np.int32]  # (n,) its token
    following: NDArray[np.int32]  # (n,) its next token
    weight: NDArray[np.float64]  # (n,)
    by_following: NDArray[np.int32]  # (n,) the loss positions sorted by next token
    begin: NDArray[np.int64]  # (tokens that occur,) the first loss position of each current token
    pairs: sparse.csr_array  # (V, V) P(a then b); row = current token, column = next token
    frequency: NDArray[np.float64]  # (V,) f, of next tokens
    basis: NDArray[np.float64]  # (V, r) U at the leading terms, from which the search for U at other weights starts
    cuts: NDArray[np.int64]  # (at most PIECES + 1,) pieces of the work, cut between two tokens
    following_cuts: NDArray[np.int64]  # the same for ``by_following``, cut between two next tokens
    n_cells: int  # K
    response_rank: int  # r'; 0 at first order

    def __post_init__(self):
        letters = {"tokens": "NT", "frequency": "V", "pairs": "VV", "basis": "Vr",
                   **dict.fromkeys(("sequence", "at", "current", "following", "weight", "by_following"), "n")}
        for name in letters:
            instance(name, getattr(self, name), sparse.csr_array if name == "pairs" else np.ndarray)
        require_shapes({name: getattr(self, name) for name in letters}, letters, empty=True)


@parallel.one_blas_thread()
def reduce(batch: Batch, n_vocab: int, *, order: int = 2, n_cells: int | None = None) -> Reduction:
    """Prepare a batch of next-token training (causal attention, cross-entropy) for reduced dynamics; ``n_vocab`` is V.

    With ``order`` 1 there is one prediction a cell; with 2 there is also its linear response to how far a context is
    from the cell's mean. ``n_cells`` is K, at least V and by default 3 V; with V there is one cell a token.

    Raises
    ------
    TypeError, ValueError
        Settings that cannot be; batches that are not next-token training, or have negative weights.
    """
    n_vocab = next_token_vocabulary(batch, n_vocab)
    n_cells = 3 * n_vocab if n_cells is None else whole_number("n_cells", n_cells, n_vocab)
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"order is {described(order)}; it must be 1 (one prediction a cell) or 2 (and its linear "
                         "response)")
    if batch.weight.min() < 0:
        raise ValueError("the mean context of a cell needs weights of one sign, but a position has "
                         f"{batch.weight.min():g}; set it to 0")
    where = np.nonzero(batch.weight)
    sort = np.lexsort((batch.targets[where], batch.tokens[where]))
    sequence, at, current, following = (np.ascontiguousarray(a[sort], np.int32)
                                        for a in (*where, batch.tokens[where], batch.targets[where]))
    weight = batch.weight[sequence, at]
    by_following = np.argsort(following, kind="stable").astype(np.int32)
    pairs, _ = bigram_counts(batch, n_vocab)
    frequency: NDArray[Any] = np.bincount(following, weight, n_vocab)
    Phi, _ = context(batch, n_vocab)
    start = np.random.default_rng(0).standard_normal((n_vocab, min(RANK, n_vocab)))
    # at the leading terms, V W_O is a multiple of Phi^T B^T B
    basis = _leading_directions(Phi.T, pairs.T @ pairs, frequency, start, FIRST_ROUNDS)
    return Reduction(batch.tokens, sequence, at, current, following, weight, by_following,
                     np.flatnonzero(np.diff(current, prepend=-1)), pairs, frequency, basis, _cuts(current, at),
                     _cuts(following[by_following], at[by_following]), n_cells,
                     min(RESPONSE_RANK, n_vocab) if order == 2 else 0)


def _cuts(tokens, at):
    """Cut positions, sorted by ``tokens``, between two tokens: at most PIECES pieces, with about as many keys each."""
    cost = np.cumsum(at + 1.0)
    nearest = np.searchsorted(cost, cost[-1] * np.arange(1, PIECES) / PIECES)
    return np.unique(np.concatenate([[0], np.searchsorted(tokens, tokens[nearest]), [len(tokens)]]))


def _leading_directions(V, W_O, frequency, basis, rounds):
    """Leading eigenvectors of M J M^T, M = V W_O, as orthonormal columns: ``rounds`` of subspace iteration."""
    for _ in range(rounds):
        image = W_O.T @ (V.T @ basis)
        image = V @ (W_O @ (frequency[:, None] * (image - frequency @ image)))
        size = np.abs(image).max()
        if not 0 < size < np.inf:
            return basis
        basis = np.linalg.qr(image / size)[0]
    return basis


@parallel.one_blas_thread()
def loss_and_gradient(weights: OneHotWeights, reduction: Reduction) -> tuple[float, OneHotWeights]:
    """Loss and gradient of the reduced dynamics, to be used in the place of :func:`minitx.loss_and_gradient`.

    The dtype of ``weights``, float64 or float32, is the precision of the work. The gradient has each array in the
    orientation of its weight. At second order it is not exactly the derivative of the loss, because the mean Jacobian
    of the softmax is held constant; the docstring of the module says how large the difference is.

    Raises
    ------
    TypeError, ValueError
        Weights of another parametrisation, of another vocabulary, for shorter sequences, or not finite.
    FloatingPointError
        The loss is not finite.
    """
    require_fit(weights, reduction)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        loss, circuits, _ = close(weights, reduction)
        gradient = weights.pullback(circuits)  # 9  the chain rule
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: the outputs overflow; use smaller weights or steps")
    return loss, gradient


def require_fit(weights: OneHotWeights, reduction: Reduction) -> None:
    """TypeError or ValueError unless ``weights`` are finite, and fit ``reduction``."""
    instance("reduction", reduction, Reduction)
    instance("weights", weights, OneHotWeights)
    n_vocab, length = len(reduction.frequency), reduction.tokens.shape[1]
    if len(weights.W_O) != n_vocab or len(weights.P) < length:
        raise ValueError(f"the weights have {len(weights.W_O)} tokens and {len(weights.P)} positions, the reduction "
                         f"{n_vocab} and {length}; build them with OneHotWeights.zeros({n_vocab}, {length})")
    if broken := weights.not_finite():
        raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")


@parallel.one_blas_thread()
def close(weights: OneHotWeights, reduction: Reduction, M: Array | None = None) -> tuple[float, Circuits, Closure]:
    """Equations 1 to 8 by their numbers: loss, dL/dcircuits, which is minus G, and the :class:`Closure`.

    Scores are computed with all of ``M`` where it is given, and else with its leading directions.
    """
    W_O, dtype, n_vocab = weights.W_O, weights.W_O.dtype, len(weights.W_O)
    few = reduction.response_rank
    # 1  every visit to the loss positions looks their attention up anew
    positions = _LossPositions(weights, reduction)
    # 2; meanwhile the other threads compute Ctx of 4, which needs no cells
    Ctx = np.zeros((n_vocab, n_vocab), dtype)
    frequency, basis = reduction.frequency.astype(dtype), reduction.basis.astype(dtype)
    U, *_ = parallel.together(partial(_leading_directions, weights.V, W_O, frequency, basis, ROUNDS),
                              *positions.contexts_of_next_tokens(Ctx))
    U = np.ascontiguousarray(U)
    R = (U.T @ weights.V) @ W_O
    # 3
    cut = reduction.n_cells > n_vocab
    c_U = positions.times(fours(U[:, :max(few, NUMBERS * cut)]))
    centred = R[:NUMBERS] - (R[:NUMBERS] @ reduction.frequency)[:, None]
    root_lambda = np.sqrt(np.square(centred) @ reduction.frequency)
    (cell, token, order), M_T = parallel.together(  # M_T: row = output token, column = attended token
        partial(_assign_cells, reduction, fours(c_U[:, :len(root_lambda)] * root_lambda) if cut else None),
        lambda: np.ascontiguousarray(matmul(R.T, U.T) if M is None else M.T))
    c_U = fours(c_U[:, :few])  # c_t U in the directions of the response
    # 4
    mass = np.bincount(cell, reduction.weight).astype(dtype)[:, None]
    Psi = np.zeros((len(token), n_vocab), dtype)
    c_c_U = positions.contexts_of_cells(cell, order, c_U, Psi)[:, :few]
    cbar_U = matmul(Psi, U) / mass
    # 5
    p, log_Z, p_R_T, expected = _predictions(W_O, token, mass[:, 0], cbar_U, R)
    # 6
    pairs = reduction.pairs.tocoo()
    loss = float(np.sum(mass * log_Z, dtype=np.float64) - np.sum(pairs.data * W_O[pairs.row, pairs.col])
                 - np.einsum("ij,ij", Ctx, M_T, dtype=np.float64))
    mean_p = expected.sum(axis=0)  # sum_k m_k p_k
    d_direct = expected
    d_direct[pairs.row, pairs.col] -= pairs.data
    # 7  with M' = U[:, :r'] R[:r']; at first order all products here are 0, because r' is
    R_Jbar = R[:few] * mean_p - (mass * p_R_T[:, :few]).T @ p
    d_ov, C_U = _slopes_of_ov(Psi, p, Ctx, c_c_U, cbar_U[:, :few], R_Jbar)
    loss += 0.5 * float(np.sum((U[:, :few].T @ C_U) * (R_Jbar @ R[:few].T), dtype=np.float64))
    # 8
    if M is None:
        p_M_T, response = np.ascontiguousarray(matmul(p_R_T, U.T)), U @ (R @ R_Jbar.T)  # M Jbar R[:r']^T
    else:
        p_M_T, response = matmul(p, M_T), M @ R_Jbar.T
        loss += float(np.sum(Psi * p_M_T, dtype=np.float64) - np.sum(mass * cbar_U * p_R_T, dtype=np.float64))
    tables = M_T, p_M_T, fours(cbar_U[:, :few]), fours(response)
    d_qk, d_position = positions.score_slopes(cell, order, c_U, tables, len(weights.P))
    gradient = Circuits(direct=d_direct, ov=d_ov, qk=d_qk, position=d_position, bias=None)
    return loss, gradient, Closure(cell, p, c_U, cbar_U[:, :few], R_Jbar, R[:few])


def _predictions(W_O, token, mass, cbar_U, R):
    """Equation 5: p (K, V) and log Z as a column; with them p R^T (K, r), and sum_{k of a} m_k p_k in row a (V, V).

    Threads compute panels of cells, which are cut between two tokens, so that no two threads add to one row.
    """
    (n_cells, rank), n_vocab, dtype = cbar_U.shape, len(W_O), W_O.dtype
    p, log_Z, p_R_T, expected = np.empty((n_cells, n_vocab), dtype), np.empty((n_cells, 1), dtype), \
        np.empty((n_cells, rank), dtype), np.zeros((n_vocab, n_vocab), dtype)
    direct = read_only(np.ascontiguousarray(W_O))

    def of_cells(first, last):
        cells = slice(first, last)
        np.matmul(cbar_U[cells], R, out=p[cells])
        kernels.cell_predictions(direct, token[cells], mass[cells], p[cells], log_Z[cells, 0], expected)
        np.matmul(p[cells], R.T, out=p_R_T[cells])

    starts = np.searchsorted(token, token[[panel.start for panel in parallel.panels(n_cells)]])
    parallel.together(*(partial(of_cells, *cells) for cells in pairwise([*np.unique(starts), n_cells])))
    return p, log_Z, p_R_T, expected


def _slopes_of_ov(Psi, p, Ctx, c_c_U, cbar_U, R_Jbar):
    """Minus G_ov, of equations 6 and 7, and C U in the directions of the response; threads compute panels of rows."""
    d_ov, C_U = np.empty_like(Ctx), np.empty_like(Ctx, shape=c_c_U.shape)

    def of_rows(rows):
        C_U[rows] = c_c_U[rows] - Psi.T[rows] @ cbar_U
        np.matmul(Psi.T[rows], p, out=d_ov[rows])
        d_ov[rows] += C_U[rows] @ R_Jbar
        d_ov[rows] -= Ctx.T[rows]

    parallel.together(*(partial(of_rows, rows) for rows in parallel.panels(len(d_ov))))
    return d_ov, C_U


def fours(columns: Array) -> Array:
    """The columns, and columns of zeros up to a multiple of four: the kernels take four at once."""
    padded = np.zeros((len(columns), -(-columns.shape[1] // 4) * 4), columns.dtype)
    padded[:, :columns.shape[1]] = columns
    return padded


class _LossPositions:
    """Sums over all loss positions, with the attention of some weights; threads visit them in pieces."""

    def __init__(self, weights, reduction):
        W, P = (read_only(np.ascontiguousarray(table)) for table in (weights.W, weights.P))
        self.reduction, self.dtype = reduction, W.dtype
        scale = np.zeros(len(reduction.at), self.dtype)  # of the attention; the first visit finds it
        self.where = (reduction.tokens.view(np.uint32), reduction.sequence, reduction.at, scale)
        self.weight = reduction.weight.astype(self.dtype)
        seen = P[:reduction.tokens.shape[1]]
        self.attention = (W, P, np.exp(W - W.max(axis=1, keepdims=True)), np.exp(seen - seen.max())[::-1].copy())

    def times(self, table):
        """c_t table at every position, (n, columns of the table)."""
        found = np.empty((len(self.weight), table.shape[1]), self.dtype)
        if found.size:
            parallel.together(*(partial(kernels.context_images, self.where, self.attention, table, piece, found)
                                for piece in pairwise(self.reduction.cuts)))
        return found

    def contexts_of_next_tokens(self, table):
        """Functions, to be called together, that add w_t c_t to the row y_t of a ``table`` of zeros, for all t."""
        data, no_images, no_sums = self.reduction, np.empty((len(self.weight), 0), self.dtype), np.empty((0, 0))
        return [partial(kernels.context_sums, self.where, self.weight, data.following, data.by_following,
                        self.attention, no_images, piece, table, no_sums) for piece in pairwise(data.following_cuts)]

    def contexts_of_cells(self, cell, order, images, table):
        """Add w_t c_t to the row of t's cell in a ``table`` of zeros, for all t, which ``order`` sorts by their cells.

        Returns sum_t w_t c_t^T images_t, (V, columns of images).
        """
        cuts = self.reduction.cuts
        parts = np.zeros((len(cuts) - 1, table.shape[1], images.shape[1]))
        parallel.together(*(
            partial(kernels.context_sums, self.where, self.weight, cell, order, self.attention, images, piece, table,
                    part) for piece, part in zip(pairwise(cuts), parts, strict=True)))
        return parts.sum(axis=0)

    def score_slopes(self, cell, order, images, tables, length):
        """The slopes of qk (V, V) and of position (length,), equation 8."""
        n_vocab, n_seen = len(self.reduction.frequency), self.reduction.tokens.shape[1]
        d_qk, d_position = np.zeros((n_vocab, n_vocab), self.dtype), np.zeros(length, self.dtype)
        parts = np.zeros((len(self.reduction.cuts) - 1, n_seen))
        parallel.together(*(
            partial(kernels.reduced_scores, self.where, self.weight, self.reduction.following, cell, order,
                    self.attention, images, tables, piece, d_qk, part)
            for piece, part in zip(pairwise(self.reduction.cuts), parts, strict=True)))
        d_position[:n_seen] = parts.sum(axis=0)[::-1]  # the kernel has the last offset first
        return d_qk, d_position


# --------------------------------------------------------------------------------------------------------------- cells


def _assign_cells(reduction, z):
    """Equation 3: the cell of every loss position, the token of every cell, the loss positions in order of their cells.

    Within a cell they are in the order of next tokens, so that the rows of next tokens are looked up in turn. ``z``
    (n, a multiple of four) is None where there is one cell a token.
    """
    order, starts = np.arange(len(reduction.at), dtype=np.int32), reduction.begin
    if z is not None:
        absent = len(reduction.frequency) - len(starts)  # tokens that do not occur count as cells
        starts = np.sort(kernels.cut_cells(z, reduction.weight, starts, reduction.n_cells - absent, order))
    is_next = np.zeros(len(order), np.int32)
    is_next[starts[1:]] = 1
    cell = np.empty_like(is_next)
    cell[order] = np.cumsum(is_next, dtype=np.int32)
    return cell, reduction.current[starts], order
