"""Slow oracle of a model of L layers (Im et al. 2026, Definition 3.1), importing nothing from minitx.

Legend: L layers, N sequences, T positions, V vocabulary (`n_vocab`). x = tokens[i]; rows of h are positions, its
columns directions of the residual stream. V_l: row = direction read, column = direction written; W_l: row = query side,
column = key side; W_O: row = direction, column = next token. Everything is complex-safe.
"""

import numpy as np

import naive

COMPLEX_STEP = 1e-30


def attention_row(h, W, P, t):
    """Row (t + 1,): attention of position t to the positions up to its own."""
    scores = [sum(h[t, a] * W[a, b] * h[j, b] for a in range(len(W)) for b in range(len(W))) + P[t - j]
              for j in range(t + 1)]
    return naive.softmax(np.array(scores))


def stream(W_O, V, W, P, x, attention=None):
    """h_0 to h_L and A_1 to A_L of one sequence; ``attention`` (T, T) replaces that of every layer."""
    n_vocab, n = len(W_O), len(x)
    h = [np.array([naive.onehot(a, n_vocab) for a in x])]
    A = []
    for layer in range(len(V)):
        rows = np.zeros((n, n), naive.number_type(h[-1], W, P))
        for t in range(n):
            rows[t, :t + 1] = attention_row(h[-1], W[layer], P[layer], t) if attention is None else attention[t, :t + 1]
        A.append(rows)
        h.append(h[-1] + naive.product(naive.product(rows, h[-1]), V[layer]))
    return h, A


def loss(W_O, V, W, P, tokens, targets, weight):
    """sum of weight -log softmax(h_L W_O)[y] over all positions."""
    total = 0.0
    for i, x in enumerate(tokens):
        F = naive.product(stream(W_O, V, W, P, x)[0][-1], W_O)
        for t in range(len(x)):
            if weight[i, t]:
                total = total + weight[i, t] * naive.head_value(F[t], targets[i, t], "cross_entropy")
    return total


def gradient(W_O, V, W, P, tokens, targets, weight):
    """{name: dL/dname} by the complex step, an entry at a time."""
    weights = {"W_O": W_O, "V": V, "W": W, "P": P}
    found = {}
    for name, array in weights.items():
        slope = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[place] += 1j * COMPLEX_STEP
            slope[place] = loss(**{**weights, name: moved}, tokens=tokens, targets=targets,
                                weight=weight).imag / COMPLEX_STEP
        found[name] = slope
    return found


def backward(W_O, V, W, P, x, R, attention=None):
    """dL/dweights of one sequence for R = dL/dF (T, V), by the lines of Lemma D.8.

    With ``attention``, which replaces that of every layer, no slope flows through the scores to the stream below.
    """
    h, A = stream(W_O, V, W, P, x, attention)
    found = {"W_O": h[-1].T @ R, "V": np.zeros(V.shape), "W": np.zeros(W.shape), "P": np.zeros(P.shape)}
    g = R @ W_O.T
    for l in reversed(range(len(V))):
        found["V"][l] = (A[l] @ h[l]).T @ g
        dA = g @ (h[l] @ V[l]).T
        dS = np.zeros(A[l].shape)
        for t in range(len(x)):
            dS[t, :t + 1] = A[l][t, :t + 1] * (dA[t, :t + 1] - A[l][t, :t + 1] @ dA[t, :t + 1])
            for j in range(t + 1):
                found["P"][l, t - j] += dS[t, j]
        found["W"][l] = h[l].T @ dS @ h[l]
        g = g + A[l].T @ g @ V[l].T + (0 if attention is not None else dS @ h[l] @ W[l].T + dS.T @ h[l] @ W[l])
    return found


def uniform(n):
    """(n, n): uniform attention over the prefix."""
    return np.array([[1 / (t + 1) if j <= t else 0.0 for j in range(n)] for t in range(n)])


def uniform_residual(targets, weight, n_vocab):
    """(T, V): dL/dF where the output is uniform."""
    return np.array([w * (np.full(n_vocab, 1 / n_vocab) - naive.onehot(y, n_vocab))
                     for y, w in zip(targets, weight, strict=True)])


def reference_gradient(W_O, V, W, P, tokens, targets, weight):
    """dL/dweights where the output and the attention of every layer are uniform, and the weights as they are."""
    parts = [backward(W_O, V, W, P, x, uniform_residual(targets[i], weight[i], len(W_O)), uniform(len(x)))
             for i, x in enumerate(tokens)]
    return {name: sum(part[name] for part in parts) for name in parts[0]}
