"""Slow oracles of the next-token theory: plain loops, importing nothing from minitx."""

import itertools
import math

import numpy as np


def reaches(n, edges):
    """[a][b]: a path of at least one edge leads from a to b, among nodes 0..n-1 (Warshall)."""
    path = [[(a, b) in edges for b in range(n)] for a in range(n)]
    for through, a, b in itertools.product(range(n), repeat=3):
        path[a][b] = path[a][b] or (path[a][through] and path[through][b])
    return path


def strong_components(n, edges):
    """Sets of nodes that reach each other, by smallest member."""
    path = reaches(n, edges)
    found = {frozenset([a, *(b for b in range(n) if path[a][b] and path[b][a])]) for a in range(n)}
    return sorted((set(nodes) for nodes in found), key=min)


def transitive_reduction(n, edges):
    """Edges of an acyclic graph without which something is no longer reached."""
    return {edge for edge in edges if reaches(n, edges - {edge}) != reaches(n, edges)}


def longest_path(n, edges, end):
    """Edges of the longest path of an acyclic graph that ends in ``end``."""
    return max((1 + longest_path(n, edges, a) for a, b in edges if b == end), default=0)


def priorities(sequences, labels):
    """Sets of (k, i, j): i and j in one SCC of G(k), i != j; and i strictly above j in G(k)."""
    equal, above = set(), set()
    for k in {sequence[-1] for sequence in sequences}:
        edges = edges_of(sequences, labels, k)
        tokens = sorted({token for edge in edges for token in edge})
        path = reaches(len(tokens), {(tokens.index(y), tokens.index(x)) for y, x in edges})
        for a, b in itertools.permutations(range(len(tokens)), 2):
            if path[a][b]:
                (equal if path[b][a] else above).add((k, tokens[a], tokens[b]))
    return equal, above


def score_difference(E, W, row):
    """(e_i - e_j)' W e_k of a row (k, i, j)."""
    k, i, j = row
    return sum((E[i][a] - E[j][a]) * W[a][b] * E[k][b] for a in range(len(W)) for b in range(len(W)))


# ---------------------------------------------------------------------------------------------------------------------
# The split, W_fin, the automaton. scores[j][k]: score of token j when the last token is k
# ---------------------------------------------------------------------------------------------------------------------


def edges_of(sequences, labels, k):
    """Edges y -> x of the samples that end in k."""
    pairs = zip(sequences, labels, strict=True)
    return {(y, x) for sequence, y in pairs if sequence[-1] == k for x in sequence if x != y}


def component_of(n_vocab, sequences, labels, k, token):
    """The SCC of ``token`` in the graph of k."""
    return next(nodes for nodes in strong_components(n_vocab, edges_of(sequences, labels, k)) if token in nodes)


def split_losses(n_vocab, sequences, labels, scores, exp, log):
    """(mean cyclic loss, mean excess) by definition, on sequences with repetitions; for floats, complex or mpmath."""
    cyclic = excess = 0
    for sequence, y in zip(sequences, labels, strict=True):
        k, inside = sequence[-1], component_of(n_vocab, sequences, labels, sequence[-1], y)
        mass_in = sum(exp(scores[j][k] - scores[y][k]) for j in sequence if j in inside)
        mass_out = sum(exp(scores[j][k] - scores[y][k]) for j in sequence if j not in inside)
        cyclic = cyclic + log(mass_in / sequence.count(y))
        excess = excess + log(1 + mass_out / mass_in)
    return cyclic / len(labels), excess / len(labels)


def reduced_descent(n_vocab, sequences, labels, E, small, steps=40000):
    """(W, |gradient|) of gradient descent from 0, in all of W, on the log loss of samples without other SCCs."""
    N = np.zeros((len(labels), n_vocab))
    for row, (sequence, y) in enumerate(zip(sequences, labels, strict=True)):
        inside = component_of(n_vocab, sequences, labels, sequence[-1], y)
        for j in sequence:
            N[row, j] += j in inside
    last, W = np.array([sequence[-1] for sequence in sequences]), np.zeros((E.shape[1], E.shape[1]))
    rate = 1 / np.linalg.norm(E, 2) ** 2 / (E[last] ** 2).sum(axis=1).max()
    for _ in range(steps):
        P = N * np.exp((E @ W @ E.T)[:, last].T)
        dZ = P / P.sum(axis=1, keepdims=True)
        dZ[np.arange(len(labels)), labels] -= 1
        gradient = E.T @ (dZ.T @ E[last]) / len(labels)
        if np.linalg.norm(gradient) < small:
            break
        W = W - rate * gradient
    return W, np.linalg.norm(gradient)


def retrieval(n_vocab, sequences, labels, context, svm_scores, tie):
    """(status, retrieved tokens): a token is above another if a path leads to it and none back; else W_svm decides."""
    k, present = context[-1], set(context)
    top = max(svm_scores[j][k] for j in present)
    best = {j for j in present if svm_scores[j][k] >= top - tie}
    if all(sequence[-1] != k for sequence in sequences):
        return "unseen", best
    path = reaches(n_vocab, edges_of(sequences, labels, k))
    same = {(a, b) for a in present for b in present if a == b or (path[a][b] and path[b][a])}
    for a in present:
        if all((a, b) in same or path[a][b] for b in present):
            return "determined", {b for b in present if (a, b) in same}
    best = {b for a in best for b in present if (a, b) in same}
    return ("extrapolated" if all((a, b) in same for a in best for b in best) else "tied"), best


def mix(context, retrieved, scores):
    """p of each retrieved token, in proportion to its copies and exp(score)."""
    mass = {j: context.count(j) * math.exp(scores[j][context[-1]]) for j in retrieved}
    return {j: mass[j] / sum(mass.values()) for j in retrieved}


# ---------------------------------------------------------------------------------------------------------------------
# Losses of the last token, prefixes, selections
# ---------------------------------------------------------------------------------------------------------------------


def last_token_attention(scores, sequence, exp):
    """{token: attention of the last token to all its copies}."""
    mass = {j: sequence.count(j) * exp(scores[j][sequence[-1]]) for j in sequence}
    total = sum(mass.values())
    return {j: mass[j] / total for j in mass}


def last_token_loss(scores, sequences, labels, loss, table, exp, log):
    """Mean loss by definition, for floats, complex or decimal numbers; table[j][l] = output l for token j, if any."""
    total = 0
    for sequence, y in zip(sequences, labels, strict=True):
        P = last_token_attention(scores, sequence, exp)
        if loss in ("log", "square"):
            missed = sum(P[j] for j in P if j != y)
            total = total + (-log(P[y]) if loss == "log" else missed * missed)
            continue
        out = [sum(P[j] * table[j][l] for j in P) for l in range(len(table))]
        if loss == "squared_error":
            total = total + sum((out[l] - (l == y)) ** 2 for l in range(len(out)))
            continue
        mass = [exp(x - out[y]) for x in out]
        missed = sum(mass[l] for l in range(len(table)) if l != y) / sum(mass)
        total = total + (missed * missed if loss == "tied" else log(sum(mass)))
    return total / len(labels)


def prefixes(texts):
    """(sequences, labels, number left out) of all prefixes whose next token occurs in them."""
    pairs = [(list(text[:t]), text[t]) for text in texts for t in range(1, len(text))]
    kept = [(sequence, label) for sequence, label in pairs if label in sequence]
    return [sequence for sequence, _ in kept], [label for _, label in kept], len(pairs) - len(kept)
