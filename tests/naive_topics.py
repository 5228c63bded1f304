"""Slow oracles of the topics theory (Li, Li, Risteski 2023): plain loops and exact fractions, without minitx.

Legend
------
T topics, v words each, n = T v, V = n + 1 tokens; token 0 is [MASK], word k of topic t (both from 0) is token
1 + t v + k. A document has N slots and tau topics; S is a set of topics. p_m, p_c, p_r are the paper's. Where the
numbers given are Fractions, so are the results. Matrices (V, V): row = target or output token, column = attended token.
"""

from fractions import Fraction
from itertools import combinations, product

import numpy as np


def topic_of(token, v):
    """Topic of a word token."""
    return (token - 1) // v


# ---------------------------------------------------------------------------------------------------------------------
# Stage 1: exact enumeration of all documents
# ---------------------------------------------------------------------------------------------------------------------


def topics_probability(topics, T, tau, alpha):
    """Probability that the slots of a document have these topics, in order: all subsets S, or Polya's urn."""
    if tau is not None:
        subsets = list(combinations(range(T), tau))
        total = Fraction(0)
        for S in subsets:
            if set(topics) <= set(S):
                total += Fraction(1, len(subsets) * tau ** len(topics))
        return total
    probability, seen = Fraction(1), [0] * T
    for i, t in enumerate(topics):
        probability *= (alpha + seen[t]) / (T * alpha + i)
        seen[t] += 1
    return probability


def inverse_share(T, tau=None, alpha=None):
    """h = (T-1) / (T sigma - 1) from the probability sigma that two slots have one topic, enumerated."""
    sigma = Fraction(0)
    for t in range(T):
        sigma += topics_probability((t, t), T, tau, alpha)
    return (T - 1) / (T * sigma - 1)


def slot_outcomes(t, T, v, p_m, p_c, p_r, chosen):
    """List of (word, shown token, probability) of a slot of topic ``t`` that is chosen, or not."""
    outcomes = []
    for k in range(v):
        word = 1 + t * v + k
        if not chosen:
            outcomes.append((word, word, (1 - p_m) / v))
            continue
        outcomes.append((word, word, p_m * p_c / v))
        outcomes.append((word, 0, p_m * (1 - p_c - p_r) / v))
        for shown in range(1, T * v + 1):
            outcomes.append((word, shown, p_m * p_r / (v * T * v)))
    return outcomes


def other_shown(t, T, v, p_m, p_c, p_r, by_chosen):
    """{(chosen, shown token): probability} of a slot of topic ``t``; None for chosen where that does not matter."""
    table = {}
    for chosen in (False, True):
        for _, shown, probability in slot_outcomes(t, T, v, p_m, p_c, p_r, chosen):
            key = (chosen if by_chosen else None, shown)
            table[key] = table.get(key, 0) + probability
    return table


def chosen_slots(T, v, lengths, p_m, p_c, p_r, *, tau=None, alpha=None, per_document=False):
    """Yield (weight, target, shown tokens) for every document there can be and slot 0 of it, chosen.

    The length is uniform on ``lengths``. Every chosen slot counts 1 in the pooled loss, and 1 / (chosen slots of its
    document) in the other. By symmetry slot 0 of a document of N slots stands for all N. Weights are not normalised.
    """
    for N in lengths:
        for topics in product(range(T), repeat=N):
            law = topics_probability(topics, T, tau, alpha)
            if law == 0:
                continue
            others = [other_shown(t, T, v, p_m, p_c, p_r, per_document).items() for t in topics[1:]]
            first_slot = slot_outcomes(topics[0], T, v, p_m, p_c, p_r, True)
            for rest in product(*others):
                weight, tokens, n_chosen = N * law, [], 1
                for (chosen, shown), each in rest:
                    weight *= each
                    tokens.append(shown)
                    n_chosen += bool(chosen)
                weight /= n_chosen
                for target, shown, probability in first_slot:
                    if weight * probability > 0:
                        yield weight * probability, target, [shown, *tokens]


def gathered_slots(*arguments, **law):
    """{(target, sorted shown tokens): weight} of :func:`chosen_slots`: uniform attention knows no order."""
    weights = {}
    for weight, target, tokens in chosen_slots(*arguments, **law):
        key = target, tuple(sorted(tokens))
        weights[key] = weights.get(key, 0) + weight
    return weights


def moments(T, v, lengths, p_m, p_c, p_r, **law):
    """(C, M), lists of lists: E[e_y u^T] and E[u u^T] of a chosen slot."""
    V = T * v + 1
    C, M, total = [[0] * V for _ in range(V)], [[0] * V for _ in range(V)], 0
    for (target, tokens), weight in gathered_slots(T, v, lengths, p_m, p_c, p_r, **law).items():
        total += weight
        N = len(tokens)
        for i in tokens:
            C[target][i] += weight / N
            for j in tokens:
                M[i][j] += weight / N**2
    return [[x / total for x in row] for row in C], [[x / total for x in row] for row in M]


def matrix_of_sectors(T, v, lam_w, lam_t, al, be):
    """(V, V) list of lists with the block values of the notes, section 0."""
    n = T * v
    different = (be - lam_t) / n
    same = different + (lam_t - lam_w) / v
    W = [[0] * (n + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        W[i][0] = al / n
        for j in range(1, n + 1):
            W[i][j] = different if topic_of(i, v) != topic_of(j, v) else same + (lam_w if i == j else 0)
    return W


def optimal_sectors(h, N, p_m, p_c, p_r):
    """(lam_w, lam_t) of one length N, pooled loss (notes, A2); exact in Fractions."""
    a, m = 1 - p_m * (1 - p_c), p_m * (1 - p_c - p_r)
    D = (p_c + p_r) + (N - 1) * (1 - m)
    lam_w = N * p_c / D
    lam_t = N * (p_c * h + (N - 1) * a) / (h * D + 2 * (N - 1) * p_c * a + (N - 1) * (N - 2) * a**2)
    return lam_w, lam_t


def violations(W, M, C):
    """Number of entries where W M differs from C; lists of lists of Fractions."""
    V, count = len(W), 0
    for i in range(V):
        for j in range(V):
            total = 0
            for k in range(V):
                total += W[i][k] * M[k][j]
            count += total != C[i][j]
    return count


def block_averages(matrix, T, v):
    """Dict of the averages of a (V, V) array over the six kinds of pairs."""
    values = {}
    for i in range(T * v + 1):
        for j in range(T * v + 1):
            if i == 0 or j == 0:
                kind = "mask_mask" if i == j else "mask_row" if i == 0 else "mask_column"
            elif i == j:
                kind = "same_word"
            else:
                kind = "same_topic" if topic_of(i, v) == topic_of(j, v) else "different_topic"
            values.setdefault(kind, []).append(matrix[i, j])
    return {kind: np.mean(entries) for kind, entries in values.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Infinitely long documents of tau topics
# ---------------------------------------------------------------------------------------------------------------------


def shares(T, v, tau, p_m, p_c, p_r):
    """List of (S, q_S, y_S): shares (V,) of the shown tokens, and of words, in the infinite document with topics S."""
    n, documents = T * v, []
    for S in combinations(range(T), tau):
        q, y = np.zeros(n + 1), np.zeros(n + 1)
        q[0] = p_m * (1 - p_c - p_r)
        for word in range(1, n + 1):
            q[word] = p_m * p_r / n
            if topic_of(word, v) in S:
                y[word] = 1 / (tau * v)
                q[word] += (1 - p_m * (1 - p_c)) / (tau * v)
        documents.append((S, q, y))
    return documents


def attention_output(W, q, query, T, v, alpha, beta, rho_0=1.0):
    """f (V,) of a query token in the document with shares ``q``: loop over its keys."""
    weights = np.zeros(len(q))
    for key in range(len(q)):
        weight = 1.0
        if query > 0 and key == 0:
            weight = rho_0
        elif query > 0 and key == query:
            weight = alpha
        elif query > 0 and topic_of(key, v) == topic_of(query, v):
            weight = beta
        weights[key] = q[key] * weight
    f = np.zeros(len(q))
    for key in range(len(q)):
        f += weights[key] / weights.sum() * W[:, key]
    return f


def attention_loss(W, T, v, tau, p_m, p_c, p_r, alpha, beta, rho_0=1.0):
    """Squared loss of stage 2, over every S, every target and every token that its slot may show."""
    total, documents = 0.0, shares(T, v, tau, p_m, p_c, p_r)
    for S, q, _ in documents:
        outputs = [attention_output(W, q, query, T, v, alpha, beta, rho_0) for query in range(T * v + 1)]
        for t in S:
            for target in range(1 + t * v, 1 + (t + 1) * v):
                e = np.zeros(T * v + 1)
                e[target] = 1
                for query in range(T * v + 1):
                    p = 1 - p_c - p_r if query == 0 else p_r / (T * v) + p_c * (query == target)
                    total += p / (tau * v) * np.sum((outputs[query] - e) ** 2)
    return total / len(documents)


def finite_attention_loss(W, slots, v, alpha, beta):
    """Squared loss of stage 2 over (weight, target, shown tokens), the chosen slot first: a loop over its keys."""
    loss = total = 0.0
    for weight, target, tokens in slots:
        query, Z, f = tokens[0], 0.0, np.zeros(len(W))
        for key in tokens:
            attention = 1.0
            if query > 0 and key == query:
                attention = alpha
            elif query > 0 and key > 0 and topic_of(key, v) == topic_of(query, v):
                attention = beta
            Z += attention
            f += attention * W[:, key]
        f /= Z
        f[target] -= 1
        loss += float(weight) * float(f @ f)
        total += float(weight)
    return loss / total


def population_loss(W, scores, tokens, targets, weight, mass):
    """Squared loss of rows of (token, target) positions; A_tj is proportional to mass_j exp(scores[x_t, x_j])."""
    total = 0.0
    for row in range(len(tokens)):
        for t in range(len(tokens[row])):
            if weight[row, t] == 0:
                continue
            A = mass[row] * np.exp(scores[tokens[row, t], tokens[row]])
            f = W[:, tokens[row]] @ (A / A.sum())
            f[targets[row, t]] -= 1
            total += weight[row, t] * f @ f
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Sampled documents, one slot at a time
# ---------------------------------------------------------------------------------------------------------------------


def pair_averages(topics_and_words, alpha, beta):
    """Sums of N attention over pairs of one clean document, and their number: same word, same topic, other topic."""
    N, sums, counts = len(topics_and_words), [0.0, 0.0, 0.0], [0, 0, 0]
    for topic, word in topics_and_words:
        kinds = [0 if (topic, word) == key else 1 if topic == key[0] else 2 for key in topics_and_words]
        weights = [(alpha, beta, 1.0)[kind] for kind in kinds]
        for kind, weight in zip(kinds, weights, strict=True):
            sums[kind] += N * weight / sum(weights)
            counts[kind] += 1
    return sums, counts


def profile(T, v, N, tau, alpha, beta):
    """Averages of N attention over all documents of tau topics and N slots, enumerated (floats)."""
    sums, counts = np.zeros(3), np.zeros(3)
    for topics in product(range(T), repeat=N):
        law = float(topics_probability(topics, T, tau, None)) / v**N
        for words in product(range(v), repeat=N):
            found = pair_averages(list(zip(topics, words, strict=True)), alpha, beta)
            sums += law * np.array(found[0])
            counts += law * np.array(found[1])
    return sums, counts


# ---------------------------------------------------------------------------------------------------------------------
# The paper's model on explicit lists of tokens
# ---------------------------------------------------------------------------------------------------------------------


def model_outputs(shown, W_E, W_V, W_Q, W_K, W_U, b):
    """f = W_U W_V Z A + b, (V, N): column j answers slot j. Z (d, N) = embeddings of the shown tokens; complex-safe.

    A (N, N) = softmax of every column of (W_K Z)^T (W_Q Z) / sqrt(d_a): row = key slot, column = query slot. None
    is absent: W_E is then one-hot, W_V the identity, attention uniform, W_U the transpose of W_E, b zero.
    """
    n_vocab = len(W_V) if W_E is None else W_E.shape[1]
    E = np.eye(n_vocab) if W_E is None else W_E
    U = E.T if W_U is None else W_U
    outputs = []
    for j in range(len(shown)):
        weights = []
        for i in range(len(shown)):
            score = 0.0
            if W_Q is not None:
                score = np.sum((W_K @ E[:, shown[i]]) * (W_Q @ E[:, shown[j]])) / len(W_Q) ** 0.5
            weights.append(np.exp(score))
        z = 0
        for i in range(len(shown)):
            z = z + weights[i] / sum(weights) * E[:, shown[i]]
        f = U @ (z if W_V is None else W_V @ z)
        outputs.append(f if b is None else f + b)
    return np.array(outputs).T


def model_loss(documents, head, per_document, W_E=None, W_V=None, W_Q=None, W_K=None, W_U=None, b=None):
    """Loss over ``documents``, a list of (shown tokens, words, chosen slots): pooled, or the mean of their means."""
    means, losses = [], []
    for shown, words, chosen in documents:
        f = model_outputs(shown, W_E, W_V, W_Q, W_K, W_U, b)
        own = []
        for j in chosen:
            if head == "squared":
                e = np.zeros(len(f))
                e[words[j]] = 1
                own.append(np.sum((f[:, j] - e) ** 2))
            else:
                own.append(np.log(np.sum(np.exp(f[:, j]))) - f[words[j], j])
        losses += own
        if own:
            means.append(sum(own) / len(own))
    return sum(means) / len(means) if per_document else sum(losses) / len(losses)
