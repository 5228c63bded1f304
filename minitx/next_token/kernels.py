"""The numba kernels of the next-token theory: the last token's attention by counts, and the losses on the cyclic subspace."""

import math

import numpy as np

from minitx.base.parallel import ordered_kernel

# ------------------------------------------------------------------------- the last token's attention, by counts of tokens
#
# n samples; the distinct tokens of sample i are tokens[starts[i]:starts[i + 1]], M in all. 1 - P_y is never a difference: it is the
# sum of the others, so that no digit is lost however small it is.


@ordered_kernel
def last_attention(last, starts, tokens, counts, scores, P):
    """P[m] = attention to the m-th token = counts[m] exp(scores[tokens[m], k]), normalised within its sample of last token k. (M,)

    scores (K, K): row = attended token, column = last token.
    """
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
    """losses[i] = -log P_y; dscore[m] = d losses[i] / d score of the m-th token: P_j, and -(1 - P_y) at the label. (M,)"""
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
def last_tied(starts, tokens, label_at, gram, P, dscore, losses):
    """losses[i] = (1 - h_y)^2, h = softmax(sum_m P[m] gram[tokens[m]]); dscore[m] = its derivative. gram (K, K), dscore (M,)"""
    n_vocab = len(gram)
    out, dP = np.empty(n_vocab), np.empty(n_vocab)
    for i in range(len(losses)):
        first, end, y = starts[i], starts[i + 1], tokens[label_at[i]]
        out[:] = 0.0
        lead = first
        for m in range(first, end):
            lead = m if P[m] > P[lead] else lead
            for l in range(n_vocab):
                out[l] += P[m] * gram[tokens[m], l]
        top, total, others = out.max(), 0.0, 0.0
        for l in range(n_vocab):
            out[l] = math.exp(out[l] - top)
            total += out[l]
            others += out[l] if l != y else 0.0
        others, label = others / total, out[y] / total
        losses[i] = others * others
        for l in range(n_vocab):  # d out
            out[l] = 2.0 * others * label * (out[l] / total if l != y else -others)
        mean = 0.0
        for m in range(first, end):  # relative to the leading token, whose own dP would drown the others'
            dP[m - first] = 0.0
            for l in range(n_vocab):
                dP[m - first] += (gram[tokens[m], l] - gram[tokens[lead], l]) * out[l]
            mean += P[m] * dP[m - first]
        for m in range(first, end):
            dscore[m] = P[m] * (dP[m - first] - mean)


@ordered_kernel
def add_last_scores(last, starts, tokens, share, dscore, d_scores):
    """d_scores[tokens[m], last[i]] += share[i] dscore[m]. (K, K): row = attended token, column = last token."""
    for i in range(len(last)):
        for m in range(starts[i], starts[i + 1]):
            d_scores[tokens[m], last[i]] += share[i] * dscore[m]


# ---------------------------------------------------------------------- attention of the last token, split at the SCCs


@ordered_kernel
def excess(starts, tokens, counts, inside, last, share, scores, d_scores):
    """Log of e = sum_i share_i log(1 + exp(z_i)), z_i = log(mass outside) - log(mass inside); mass_j = counts_j exp(score_j).

    scores[j, k]: of token j when the last token is k. d_scores, of zeros before, becomes d log(e) / d scores, never over- or
    underflowing as e does. -inf where no sample has tokens outside; nan where a score is not finite.
    """
    n = last.size
    mass = np.empty(tokens.size)
    sum_in, sum_out, z, log_term = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    top = -np.inf
    for i in range(n):
        k = last[i]
        top_in = top_out = -np.inf
        for at in range(starts[i], starts[i + 1]):
            if not math.isfinite(scores[tokens[at], k]):
                return np.nan
            if inside[at]:
                top_in = max(top_in, scores[tokens[at], k])
            else:
                top_out = max(top_out, scores[tokens[at], k])
        log_term[i] = -np.inf
        if top_out == -np.inf:
            continue
        sum_in[i] = sum_out[i] = 0.0
        for at in range(starts[i], starts[i + 1]):
            mass[at] = counts[at] * math.exp(scores[tokens[at], k] - (top_in if inside[at] else top_out))
            if inside[at]:
                sum_in[i] += mass[at]
            else:
                sum_out[i] += mass[at]
        z[i] = top_out - top_in + math.log(sum_out[i] / sum_in[i])
        log_term[i] = math.log(share[i]) + log_softplus(z[i])
        top = max(top, log_term[i])
    if top == -np.inf:
        return top
    total = 0.0
    for i in range(n):
        total += math.exp(log_term[i] - top)
    log_excess = top + math.log(total)
    for i in range(n):
        if log_term[i] == -np.inf:
            continue
        log_sigmoid = z[i] - math.log1p(math.exp(z[i])) if z[i] < 0.0 else -math.log1p(math.exp(-z[i]))
        weight = math.exp(math.log(share[i]) + log_sigmoid - log_excess)
        for at in range(starts[i], starts[i + 1]):
            d_scores[tokens[at], last[i]] += -weight * mass[at] / sum_in[i] if inside[at] else weight * mass[at] / sum_out[i]
    return log_excess


@ordered_kernel
def log_softplus(z):
    """log(log(1 + exp(z))), of full relative accuracy of the inner logarithm at any z."""
    if z > 0.0:
        return math.log(z + math.log1p(math.exp(-z)))
    x = math.exp(z)
    return z if x < 1e-300 else z + math.log(math.log1p(x) / x)


@ordered_kernel
def cyclic_losses(starts, tokens, counts, inside, last, label_at, scores, losses):
    """losses[i] = -log(mass of the label / mass inside), both of sample i; exact where the label has nearly all of it."""
    for i in range(last.size):
        k, label = last[i], label_at[i]
        own = scores[tokens[label], k]
        top = 0.0
        for at in range(starts[i], starts[i + 1]):
            if inside[at]:
                top = max(top, scores[tokens[at], k] - own)
        others = 0.0
        for at in range(starts[i], starts[i + 1]):
            if inside[at] and at != label:
                others += counts[at] * math.exp(scores[tokens[at], k] - own - top)
        if top == 0.0:
            losses[i] = math.log1p(others / counts[label])
        else:
            losses[i] = top + math.log(others / counts[label] + math.exp(-top))


@ordered_kernel
def cyclic_terms(starts, slots, counts, label_at, share, scores, gradient, hessian):
    """Sum of share_i (-log P_label), P over the slots of sample i; adds its gradient and Hessian in ``scores``, one a slot."""
    value = 0.0
    for i in range(share.size):
        begin, end, label = starts[i], starts[i + 1], label_at[i]
        own = scores[slots[label]]
        top = 0.0
        for at in range(begin, end):
            top = max(top, scores[slots[at]] - own)
        P = np.empty(end - begin)
        others = 0.0
        for at in range(begin, end):
            P[at - begin] = counts[at] / counts[label] * math.exp(scores[slots[at]] - own - top)
            if at != label:
                others += P[at - begin]
        total = others + P[label - begin]
        value += share[i] * (math.log1p(others) if top == 0.0 else top + math.log(total))
        P /= total
        for at in range(begin, end):
            p = P[at - begin]
            gradient[slots[at]] += share[i] * (p if at != label else -others / total)
            for other in range(begin, end):
                hessian[slots[at], slots[other]] -= share[i] * p * P[other - begin]
            hessian[slots[at], slots[at]] += share[i] * p
    return value
