"""Slow oracle of attribution: what every position adds to every entry, as plain loops that import nothing from minitx.

Every function returns {name: array}; the last two axes of an array are windows and positions (N, T), the ones before
them are those of the table. x = tokens[i], y = targets[i]; ``weight`` (N, T) are the weights of the positions.
"""

import numpy as np

import naive


def statistics(tokens, targets, weight, lengths, n_vocab):
    """Parts of all entries of B, Phi, Sigma_B, Phi^T B^T, Q (V, V, N, T each) and Delta (T, N, T)."""
    n, T = tokens.shape
    B_parts, Phi_parts = np.zeros((2, n_vocab, n_vocab, n, T))
    for i in range(n):
        for t in range(lengths[i]):
            share = naive.prefix_share(tokens[i], t, n_vocab)
            for b in range(n_vocab):
                rho = weight[i, t] * ((targets[i, t] == b) - 1.0 / n_vocab)
                B_parts[tokens[i, t], b, i, t] += rho
                for a in range(n_vocab):
                    Phi_parts[b, a, i, t] += rho * share[a]
    B, Phi = B_parts.sum(axis=(2, 3)), Phi_parts.sum(axis=(2, 3))
    return {"bigram": B_parts, "context": Phi_parts, "interchangeability": _pairs(B_parts, B_parts, n_vocab),
            "value": _pairs(Phi_parts, B_parts.transpose(1, 0, 2, 3), n_vocab),
            **_scores(tokens, targets, weight, lengths, n_vocab, B, Phi)}


def _pairs(left, right, n_vocab):
    """Parts of sum_a left[a, b] right[a, c]: of every pair of positions, half to one and half to the other."""
    shape = left.shape[2:]
    found = np.zeros((n_vocab, n_vocab, *shape))
    for b in range(n_vocab):
        for c in range(n_vocab):
            for a in range(n_vocab):
                pairs = np.multiply.outer(left[a, b].ravel(), right[a, c].ravel())  # row = position p, column = q
                found[b, c] += (pairs.sum(axis=1) + pairs.sum(axis=0)).reshape(shape) / 2
    return found


def _scores(tokens, targets, weight, lengths, n_vocab, B, Phi):
    """Parts of Q and Delta, for the table G = Sigma_B Phi as it is."""
    n, T = tokens.shape
    G = naive.product(naive.product(B.T, B), Phi)
    Q_parts, Delta_parts = np.zeros((n_vocab, n_vocab, n, T)), np.zeros((T, n, T))
    for i in range(n):
        for t in range(lengths[i]):
            g = [G[targets[i, t], tokens[i, j]] - np.mean(G[:, tokens[i, j]]) for j in range(t + 1)]
            for j in range(t + 1):
                q = weight[i, t] * (g[j] - np.mean(g)) / (t + 1)
                Q_parts[tokens[i, t], tokens[i, j], i, t] += q
                Delta_parts[t - j, i, t] += q
    return {"attention": Q_parts, "position": Delta_parts}


def gradient(W_O, V, W, P, tokens, targets, weight, lengths):
    """{parameter: parts of every entry of dL/dparameter} of the one-hot model, one position at a time."""
    found = {name: np.zeros((*array.shape, *tokens.shape))
             for name, array in {"W_O": W_O, "V": V, "W": W, "P": P}.items()}
    for i, t in np.ndindex(*tokens.shape):
        if weight[i, t] == 0:
            continue
        alone = np.zeros(weight.shape)
        alone[i, t] = weight[i, t]
        tables = naive.gradient(W_O, naive.product(V, W_O), W, P, None, tokens, targets, alone, lengths=lengths)
        found["W_O"][:, :, i, t] = tables["direct"] + naive.product(V.T, tables["ov"])
        found["V"][:, :, i, t] = naive.product(tables["ov"], W_O.T)
        found["W"][:, :, i, t] = tables["qk"]
        found["P"][:, i, t] = tables["position"]
    return found
