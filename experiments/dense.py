"""The baselines of the benchmarks: the same mathematics in dense one-hot form, by NumPy and batched matrix products.

Graph-SVM has as baseline the textbook method for least-distance problems, on every edge and with all d x d unknowns;
the regularisation path has Newton's method with one Hessian of all unknowns at every point that is tried.
"""

import numpy as np
from scipy.linalg import orth
from scipy.optimize import nnls

from minitx import EmbeddedWeights, LayeredWeights, OneHotWeights


def one_hot(tokens, n_vocab, dtype):
    """(N, T) tokens -> (N, T, V)."""
    X = np.zeros((*tokens.shape, n_vocab), dtype)
    np.put_along_axis(X, tokens[:, :, None], 1, axis=2)
    return X


def flat(array):
    """(N, T, V) -> (N T, V)."""
    return array.reshape(-1, array.shape[-1])


def cross_entropy(F, batch):
    """Loss, and dL/dF in the place of F, (N T, V), at every position."""
    F -= F.max(axis=1, keepdims=True)
    rows, targets, weight = np.arange(len(F)), batch.targets.ravel(), batch.weight.ravel()
    target_logit = F[rows, targets]
    dF = np.exp(F, out=F)
    total = dF.sum(axis=1, keepdims=True)
    loss = float(weight @ (np.log(total[:, 0]) - target_logit))
    dF /= total
    dF[rows, targets] -= 1
    dF *= weight.astype(F.dtype)[:, None]
    return loss, dF


def dense_statistics(batch, n_vocab):
    """B, Sigma_B, Phi, Q and Delta from one-hot matrices (float64)."""
    n, length = batch.tokens.shape
    X, Y = (one_hot(tokens, n_vocab, np.float64) for tokens in (batch.tokens, batch.targets))
    A0 = np.tril(np.ones((length, length))) / np.arange(1, length + 1)[:, None]
    residual = Y - 1 / n_vocab
    B = flat(X).T @ flat(residual) / (n * length)
    Phi = flat(residual).T @ flat(A0 @ X) / (n * length)
    Sigma_B = B.T @ B
    g = (flat(residual) @ (Sigma_B @ Phi)).reshape(X.shape) @ X.transpose(0, 2, 1)
    q = A0 * (g - (A0 * g).sum(axis=2, keepdims=True)) / (n * length)
    Q = flat(X).T @ flat(q @ X)
    q_sum = q.sum(axis=0)
    Delta = np.array([np.trace(q_sum, offset=-r) for r in range(length)])
    return B, Sigma_B, Phi, Q, Delta


def dense_step(weights, batch):
    """Loss and gradient of the paper's Definition 3.1 from one-hot matrices, in the dtype of the weights."""
    W_O, V, W, P = weights.parameters().values()
    n, length = batch.tokens.shape
    X = one_hot(batch.tokens, len(W), W.dtype)
    distance = np.arange(length)[:, None] - np.arange(length)
    position = np.where(distance >= 0, P[np.maximum(distance, 0)], -np.inf).astype(W.dtype)
    scores = (flat(X) @ W).reshape(X.shape) @ X.transpose(0, 2, 1) + position
    A = np.exp(scores - scores.max(axis=2, keepdims=True))
    A /= A.sum(axis=2, keepdims=True)
    XV = (flat(X) @ V).reshape(X.shape)
    h = X + A @ XV
    loss, dF = cross_entropy(flat(h) @ W_O, batch)
    dW_O = flat(h).T @ dF
    dh = (dF @ W_O.T).reshape(X.shape)
    dA = dh @ XV.transpose(0, 2, 1)
    dV = flat(X).T @ flat(A.transpose(0, 2, 1) @ dh)
    dscore = A * (dA - (A * dA).sum(axis=2, keepdims=True))
    dW = flat(X).T @ flat(dscore @ X)
    dscore_sum = dscore.sum(axis=0)
    dP = np.array([np.trace(dscore_sum, offset=-r) for r in range(length)], W.dtype)
    return loss, OneHotWeights(dW_O, dV, dW, dP)


def dense_layers(weights, batch):
    """Loss and gradient of L layers from one-hot matrices, in the dtype of the weights."""
    n, length = batch.tokens.shape
    h, n_vocab, stages = one_hot(batch.tokens, weights.n_vocab, weights.W_O.dtype), weights.n_vocab, []
    distance = np.arange(length)[:, None] - np.arange(length)

    def times(stream, matrix):
        return (flat(stream) @ matrix).reshape(stream.shape)

    for V, W, P in zip(weights.V, weights.W, weights.P, strict=True):
        position = np.where(distance >= 0, P[np.maximum(distance, 0)], -np.inf).astype(W.dtype)
        Q, hV = times(h, W), times(h, V)
        A = Q @ h.transpose(0, 2, 1) + position
        A = np.exp(A - A.max(axis=2, keepdims=True))
        A /= A.sum(axis=2, keepdims=True)
        stages.append((h, A, Q, hV))
        h = h + A @ hV
    loss, R = cross_entropy(flat(h) @ weights.W_O, batch)
    found = {"W_O": flat(h).T @ R, "V": [], "W": [], "P": []}
    g = (R @ weights.W_O.T).reshape(n, length, n_vocab)
    for (h, A, Q, hV), V, W in zip(stages[::-1], weights.V[::-1], weights.W[::-1], strict=True):
        dA, dhV = g @ hV.transpose(0, 2, 1), A.transpose(0, 2, 1) @ g
        dS = A * (dA - (A * dA).sum(axis=2, keepdims=True))
        dQ, dS_sum = dS @ h, dS.sum(axis=0)
        for name, slope in (("V", flat(h).T @ flat(dhV)), ("W", flat(h).T @ flat(dQ)),
                            ("P", np.array([np.trace(dS_sum, offset=-r) for r in range(length)], W.dtype))):
            found[name].insert(0, slope)
        g = g + times(dhV, V.T) + times(dQ, W.T) + dS.transpose(0, 2, 1) @ Q
    return loss, LayeredWeights(found["W_O"], *(np.stack(found[name]) for name in "VWP"))


def dense_topic_step(weights, batch):
    """Loss and gradient of W_V, W_Q, W_K from one-hot matrices, at every slot, as in the published code."""
    W_V, W_Q, W_K = weights.W_V, weights.W_Q, weights.W_K
    X = one_hot(batch.tokens, len(W_V), W_V.dtype)
    shape, root = (*batch.tokens.shape, len(W_Q)), np.sqrt(len(W_Q))
    query, key = (flat(X) @ W_Q.T).reshape(shape), (flat(X) @ W_K.T).reshape(shape)
    A = query @ key.transpose(0, 2, 1)  # row = query slot
    A /= root
    A -= A.max(axis=2, keepdims=True)
    np.exp(A, out=A)
    A /= A.sum(axis=2, keepdims=True)
    AX = flat(A @ X)
    loss, dF = cross_entropy(AX @ W_V.T, batch)
    dscore = (dF @ W_V).reshape(X.shape) @ X.transpose(0, 2, 1)
    dscore -= (A * dscore).sum(axis=2, keepdims=True)
    dscore *= A
    dscore /= root
    dquery, dkey = dscore @ key, dscore.transpose(0, 2, 1) @ query
    return loss, EmbeddedWeights(W_V=dF.T @ AX, W_Q=flat(dquery).T @ flat(X), W_K=flat(dkey).T @ flat(X))


def plain_graph_svm(graphs, E):
    """W of Graph-SVM: a row of d x d numbers for each edge, equalities projected out, non-negative least squares."""

    def rows(edges):
        k, i, j = np.array(edges).reshape(-1, 3).T
        return ((E[i] - E[j])[:, :, None] * E[k][:, None, :]).reshape(len(k), -1)

    equal, above = [], []
    for k, graph in graphs.items():
        for i, j in graph.edges.tolist():
            (equal if graph.component_of(i) == graph.component_of(j) else above).append((k, i, j))
    C = rows(above)
    if equal:
        span = orth(rows(equal).T)
        C -= C @ span @ span.T
    share = nnls(np.vstack([C.T, np.ones(len(C))]), np.append(np.zeros(C.shape[1]), 1.0))[0]
    direction = share @ C
    return (direction * share.sum() / (direction @ direction)).reshape(E.shape[1], E.shape[1])


def plain_path(split, W_fin, strengths):
    """W(tau) for each tau: Newton's method on |V|^2 / 2 + tau log(excess) in all directions of the samples' rows."""
    samples, E, owner, outside = split.samples, split.embeddings, split.samples.owner(), ~split.inside
    rows = ((E[samples.tokens] - E[samples.labels[owner]])[:, :, None] * E[samples.last[owner]][:, None, :]).reshape(
        len(owner), -1)
    inside, rows = rows[split.inside], rows[outside]
    if inside.any():
        span = orth(inside.T)
        rows = rows - rows @ span @ span.T
    basis = orth(rows.T)
    C = rows @ basis
    mass = samples.counts * np.exp(split.scores(W_fin)[samples.tokens, samples.last[owner]])
    log_mass = np.log(mass[outside] / np.bincount(owner, mass * split.inside)[owner[outside]])
    of = owner[outside] == np.unique(owner[outside])[:, None]  # (n, m): which sample a token is in
    share, x = samples.share[np.unique(owner[outside])], np.zeros(basis.shape[1])
    for tau in strengths:
        value, gradient, hessian = _path_objective(x, tau, C, log_mass, of, share)
        while np.linalg.norm(gradient) > 1e-9 * (1 + tau):
            step, length = -np.linalg.solve(hessian, gradient), 1.0
            ahead = _path_objective(x + step, tau, C, log_mass, of, share)
            while ahead[0] > value + 0.1 * length * (gradient @ step) + 1e-12 * abs(value):
                length /= 2
                ahead = _path_objective(x + length * step, tau, C, log_mass, of, share)
            x, (value, gradient, hessian) = x + length * step, ahead
        yield W_fin + (basis @ x).reshape(W_fin.shape)


def _path_objective(x, tau, C, log_mass, of, share):
    """Value, gradient and Hessian; where that is not positive definite, its negative part is left out."""
    z_of = np.where(of, log_mass + C @ x, -np.inf)
    top = z_of.max(axis=1)
    P = np.exp(z_of - top[:, None])
    z, P = top + np.log(P.sum(axis=1)), P / P.sum(axis=1, keepdims=True)
    log_s = np.where(z < -30, z, np.log(np.logaddexp(0, np.maximum(z, -30))))
    weight = share * np.exp(log_s - log_s.max())
    log_excess, weight = log_s.max() + np.log(weight.sum()), weight / weight.sum()
    first = np.exp(-np.logaddexp(0, -z) - log_s)
    slope = P.T @ (weight * first)
    for second in (first * np.exp(-np.logaddexp(0, z)), first**2):
        between = np.diag(slope) + (P.T * (weight * (second - first))) @ P - np.outer(slope, slope)
        hessian = np.eye(C.shape[1]) + tau * C.T @ between @ C
        if _is_positive(hessian):
            break
    return x @ x / 2 + tau * log_excess, x + tau * slope @ C, hessian


def _is_positive(matrix):
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
