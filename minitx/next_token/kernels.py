"""The numba kernels of the next-token theory: attention of the last token by counts, its losses, and the excess.

Legend: n samples; sample i has the distinct tokens tokens[starts[i]:starts[i + 1]], M in all, and k = last[i] as its
last token. scores and d_scores (K, K): row = attended token, column = last token. 1 - P_y is always computed as the sum
of the other probabilities, never as a difference: it keeps its digits however small it is.
"""

import math

import numpy as np

from minitx.base.compiling import ordered_kernel


@ordered_kernel
def last_attention(last, starts, tokens, counts, scores, P):
    """P[m] = counts[m] exp(scores[tokens[m], k]) over its sum within the sample: attention to the m-th token. (M,)"""
    for i in range(len(last)):
        top = -np.inf
        for m in range(starts[i], starts[i + 1]):
            top = max(top, scores[tokens[m], last[i]])
        total = 0.0
        for m in range(starts[i], starts[i + 1]):
            P[m] = counts[m] * math.exp(scores[tokens[m], last[i]] - top)
            total += P[m]
        for m in range(starts[i], starts[i + 1]):
            P[m] /= total


@ordered_kernel
def last_log(last, starts, tokens, counts, label_at, scores, P, dscore, losses):
    """losses[i] = -log P_y; dscore[m] = its derivative in the score of m: P_j, and -(1 - P_y) at the label. (M,)"""
    for i in range(len(last)):
        y, lead, others = label_at[i], starts[i], 0.0
        for m in range(starts[i], starts[i + 1]):
            dscore[m] = P[m]
            others += P[m] if m != y else 0.0
            lead = m if P[m] > P[lead] else lead
        dscore[y] = -others
        if lead == y:
            losses[i] = math.log1p(others / P[y])
        else:  # P_y may be 0 in floating point, its logarithm is not
            gap = scores[tokens[lead], last[i]] - scores[tokens[y], last[i]]
            losses[i] = gap + math.log(counts[lead] / counts[y]) - math.log(P[lead])


@ordered_kernel
def last_square(starts, label_at, P, dscore, losses):
    """losses[i] = (1 - P_y)^2; dscore[m] = 2 (1 - P_y) P_y P_j, and -2 (1 - P_y)^2 P_y at the label. (M,)"""
    for i in range(len(losses)):
        y, others = label_at[i], 0.0
        for m in range(starts[i], starts[i + 1]):
            others += P[m] if m != y else 0.0
        losses[i] = others * others
        for m in range(starts[i], starts[i + 1]):
            dscore[m] = 2.0 * others * P[y] * (P[m] if m != y else -others)


@ordered_kernel
def last_head(head, starts, tokens, label_at, table, P, dscore, losses):
    """Losses of out = sum_m P[m] table[tokens[m]], and dscore[m] = their derivatives. table (K, K): row = token, ov.

    head 0: (1 - h_y)^2, h = softmax(out); 1: -log h_y; 2: |out - onehot(y)|^2.
    """
    n_vocab = len(table)
    out, dP = np.empty(n_vocab), np.empty(n_vocab)
    for i in range(len(losses)):
        first, end, y = starts[i], starts[i + 1], tokens[label_at[i]]
        out[:] = 0.0
        lead = first
        for m in range(first, end):
            lead = m if P[m] > P[lead] else lead
            for l in range(n_vocab):  # the probabilities sum to 1, so that onehot(y) may be taken off before
                out[l] += P[m] * (table[tokens[m], l] - (1.0 if head == 2 and l == y else 0.0))
        losses[i] = _squares(out) if head == 2 else _softmax(head == 0, out, y)  # out becomes d out
        mean = 0.0
        for m in range(first, end):  # relative to the leading token, whose own dP would drown the others'
            dP[m - first] = 0.0
            for l in range(n_vocab):
                dP[m - first] += (table[tokens[m], l] - table[tokens[lead], l]) * out[l]
            mean += P[m] * dP[m - first]
        for m in range(first, end):
            dscore[m] = P[m] * (dP[m - first] - mean)


@ordered_kernel
def _squares(out):
    """The sum of squares of ``out``, which becomes its derivative."""
    loss = 0.0
    for l in range(len(out)):
        loss += out[l] * out[l]
        out[l] *= 2.0
    return loss


@ordered_kernel
def _softmax(square, out, y):
    """(1 - h_y)^2 if ``square``, else -log h_y, h = softmax(out); ``out`` becomes the derivative."""
    top = out.max()
    gap, total, others = top - out[y], 0.0, 0.0
    for l in range(len(out)):
        out[l] = math.exp(out[l] - top)
        total += out[l]
        others += out[l] if l != y else 0.0
    others, label = others / total, out[y] / total
    size = 2.0 * others * label if square else 1.0
    for l in range(len(out)):
        out[l] = size * (out[l] / total if l != y else -others)
    if square:
        return others * others
    return math.log1p(others / label) if gap == 0.0 else gap + math.log(total)


@ordered_kernel
def add_last_scores(last, starts, tokens, share, dscore, d_scores):
    """d_scores[tokens[m], last[i]] += share[i] dscore[m]: from the derivatives of losses to that of their mean."""
    for i in range(len(last)):
        for m in range(starts[i], starts[i + 1]):
            d_scores[tokens[m], last[i]] += share[i] * dscore[m]


@ordered_kernel
def add_curvature(starts, tokens, share, P, hessian):
    """hessian += sum_i share[i] (diag(P) - P P') of sample i: that of -log P_y in the scores of one last token."""
    for i in range(len(share)):
        for m in range(starts[i], starts[i + 1]):
            for l in range(starts[i], starts[i + 1]):
                hessian[tokens[m], tokens[l]] -= share[i] * P[m] * P[l]
            hessian[tokens[m], tokens[m]] += share[i] * P[m]


@ordered_kernel
def excess(starts, tokens, counts, inside, last, share, scores, d_scores):
    """log e, where e = sum_i share[i] log(1 + exp(z_i)); d log(e) / d scores is added to ``d_scores``.

    z_i = log(mass outside / mass inside), mass_m = counts[m] exp(score of m). e itself may over- or underflow; log e
    does not. It is -inf where no sample has tokens outside. All scores must be finite; ``inside`` is (M,) bool.
    """
    n = len(last)
    mass, mass_in, mass_out = np.empty(len(tokens)), np.empty(n), np.empty(n)
    z, log_term = np.empty(n), np.full(n, -np.inf)
    # 1. z_i, and log_term_i = log(share_i log(1 + exp(z_i)))
    for i in range(n):
        begin, end = starts[i], starts[i + 1]
        top_in, mass_in[i] = _masses(True, begin, end, last[i], tokens, counts, inside, scores, mass)
        top_out, mass_out[i] = _masses(False, begin, end, last[i], tokens, counts, inside, scores, mass)
        if mass_out[i] > 0.0:
            z[i] = top_out - top_in + math.log(mass_out[i] / mass_in[i])
            log_term[i] = math.log(share[i]) + _log_softplus(z[i])
    # 2. log e = log(sum_i exp(log_term_i))
    top = log_term.max()
    if top == -np.inf:
        return top
    total = 0.0
    for i in range(n):
        total += math.exp(log_term[i] - top)
    log_excess = top + math.log(total)
    # 3. d log(e) / d z_i = share_i sigmoid(z_i) / e;  dz_i / d score_m = mass_m / mass_out, or -mass_m / mass_in
    for i in range(n):
        if mass_out[i] > 0.0:
            dz = math.exp(math.log(share[i]) + _log_sigmoid(z[i]) - log_excess)
            for m in range(starts[i], starts[i + 1]):
                d_scores[tokens[m], last[i]] += -dz * mass[m] / mass_in[i] if inside[m] else dz * mass[m] / mass_out[i]
    return log_excess


@ordered_kernel
def _masses(side, begin, end, k, tokens, counts, inside, scores, mass):
    """Writes the masses of one ``side``, divided by exp(top): (top, which is its largest score; their sum)."""
    top, total = -np.inf, 0.0
    for m in range(begin, end):
        if inside[m] == side:
            top = max(top, scores[tokens[m], k])
    for m in range(begin, end):
        if inside[m] == side:
            mass[m] = counts[m] * math.exp(scores[tokens[m], k] - top)
            total += mass[m]
    return top, total


@ordered_kernel
def _log_softplus(z):
    """log(log(1 + exp(z))); the inner logarithm has full relative accuracy at any z."""
    if z > 0.0:
        return math.log(z + math.log1p(math.exp(-z)))
    x = math.exp(z)
    return z if x < 1e-300 else z + math.log(math.log1p(x) / x)


@ordered_kernel
def _log_sigmoid(z):
    """log(1 / (1 + exp(-z)))."""
    return z - math.log1p(math.exp(z)) if z < 0.0 else -math.log1p(math.exp(-z))
