"""Topics, stage 2 in documents of any length and law: the exact loss of attention, and the best attention.

Legend: as in :mod:`minitx.topics.attention`; a query word attends with weight alpha to its own word, beta to the other
words of its topic and 1 to all other tokens, and [MASK] attends uniformly. In a document of N shown tokens, c of them
are the query's word, b are other words of its topic, and N_0, N_t, n_x count [MASK], topics and words of the rest.

Given the topic shares theta of the document, the slots beside the chosen one are independent, and each shows

    topic t with probability s_t = a theta_t + r/T,    [MASK] with probability m = 1 - sum_t s_t.

Hence k = c + b is 1 + binomial(N-1, s_t), c is 1 + binomial(k-1, 1/v), and the rest, N - k slots, is multinomial. Given
c and b the output is linear in N_0, N_t and n_x, so that their first and second moments give the expected loss. What
remains is a sum over the pairs (c, b), each term of which has the denominator Z = alpha c + beta b + N - k.

The expectation over theta is a sum over two cases for tau topics a document (theta_t is 1/tau or 0). For Dirichlet
shares theta_t has a Beta law; times the probability of k all moments are polynomials in theta_t of degree N at most,
which Gauss-Jacobi quadrature with N/2 + 3 nodes integrates exactly. In infinitely long documents the shares stand in
the place of counts, and for Dirichlet shares the integral over theta_t is then taken by 200 nodes.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, root
from scipy.special import gammaln, xlog1py, xlogy

from minitx.base.checks import instance, table_size, truth
from minitx.topics.attention import TINY, OptimalAttention, attention_weights
from minitx.topics.law import TopicModel
from minitx.topics.quadrature import beta_quadrature
from minitx.topics.sectors import Blocks
from minitx.topics.values import separated_value

NODES = 200  # of the quadrature over the share of a topic, for infinitely long documents of Dirichlet shares
GRID = np.geomspace(0.05, 2000, 10)  # values of alpha and beta (beside 0) of which the best pair starts the search
SMALLEST, LARGEST = 1e-8, 1e7  # ends of the search
COPYING = 1e6  # attention that still improves here has no best value


class Slots(NamedTuple):
    """All kinds of chosen slots, (K,) each: of a query word the pairs (c, b), and [MASK], which has c = b = 0.

    Entries after ``spread`` are expectations of what stands there, times the probability of the kind.
    """

    own: NDArray[np.float64]  # c
    topic: NDArray[np.float64]  # b
    rest: NDArray[np.float64]  # N - c - b, the sum of N_0 and of all N_t other than the query's topic
    spread: NDArray[np.float64]  # E[sum of the squares of the v - 1 counts that b consists of]
    probability: NDArray[np.float64]
    mask: NDArray[np.float64]  # N_0
    mask_square: NDArray[np.float64]  # N_0^2
    topics_square: NDArray[np.float64]  # sum_t N_t^2, over the other topics
    words_square: NDArray[np.float64]  # sum_x n_x^2, over the words of other topics
    kept: NDArray[np.float64]  # 1 if the slot shows its word, which is the target; else the target is random
    own_share: NDArray[np.float64]  # theta_t of the query's topic, if the target is random
    other_shares: NDArray[np.float64]  # sum_t theta_t N_t over the other topics, if the target is random


def expected_attention_loss(setting: TopicModel, alpha: ArrayLike, beta: ArrayLike,
                            value: Blocks | None = None) -> float | NDArray[np.float64]:
    """Squared loss as a function of the attention values, exact for documents of the length and law of ``setting``.

    Parameters
    ----------
    setting : TopicModel
        Of tau topics a document or of Dirichlet shares; a length, a range of lengths, or infinitely long. The loss is
        pooled: given that a slot is chosen, every other slot is chosen with probability p_m, independently.
    alpha, beta : float or arrays that are broadcast together
        Attention to the same word, and to another word of the same topic; a word of another topic has 1.
    value : Blocks, optional
        W_V, row = output token, column = attended token. Default: ``separated_value``, the paper's W_inf.

    Returns
    -------
    float, or an array of the shape of ``alpha`` and ``beta`` together

    Raises
    ------
    TypeError, ValueError
        Attention values that are negative, not finite or all 0; the loss per document; topics that overlap; lengths
        whose pairs (c, b) would not fit into memory.
    """
    same_word, same_topic, _ = attention_weights(setting, alpha, beta)
    loss = _loss_function(setting, _value(setting, value))
    if setting.length != math.inf and not same_word.all():
        raise ValueError("alpha is 0, and a document of finite length may hold no word but the query's; give an alpha "
                         "above 0")
    found = [loss(*each) for each in np.broadcast(same_word, same_topic)]
    return float(found[0]) if same_word.ndim == same_topic.ndim == 0 else np.reshape(
        found, np.broadcast_shapes(same_word.shape, same_topic.shape))


def best_attention(setting: TopicModel, value: Blocks | None = None, *, tied: bool = False) -> OptimalAttention:
    """The attention values of least squared loss, exact for documents of the length and law of ``setting``.

    In finite documents the best alpha and beta differ even with W_inf: a query's word stands for itself among the
    words that happened to be drawn. Infinitely long documents of tau topics have :func:`optimal_ratio` and
    :func:`optimal_attention` as their closed forms.

    Parameters
    ----------
    setting, value
        As for :func:`expected_attention_loss`.
    tied : bool
        Whether alpha = beta is asked for, as in the paper; the best common value is ``rho`` then.

    Returns
    -------
    OptimalAttention
        ``loss_uniform`` is the loss at alpha = beta = 1; the bounds of W_inf are left out. An alpha of 1e-8, the least
        that is tried, says that the loss falls down to alpha = 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`expected_attention_loss`; the loss has no minimum, because it falls without end as attention copies.
    """
    value, v = _value(setting, value), setting.v
    loss = _loss_function(setting, value)
    flat = setting.length == math.inf and value.sectors(setting)[0] == 0  # the loss depends on the average rho alone
    tied = truth("tied", tied) or v == 1 or flat
    alpha, beta = _lowest(lambda x: loss(x[0], x[0]), [(x,) for x in GRID]) * 2 if tied else _lowest(
        lambda x: loss(*x), [(alpha, beta) for alpha in GRID for beta in (0.0, *GRID)])
    if max(alpha, beta) > COPYING:
        raise ValueError(f"the loss has no minimum: it still falls at alpha = {alpha:.3g}, beta = {beta:.3g}, and "
                         "nothing stands against copying; raise p_r (random words), or give a value in which topics "
                         "differ more")
    return OptimalAttention(alpha, beta, (alpha + (v - 1) * beta) / v, 1.0, float(loss(1.0, 1.0)),
                            float(loss(alpha, beta)))


def _lowest(loss, starts):
    """The arguments, a tuple, at which ``loss`` is least; the search begins at the best of ``starts``.

    The first argument stays above 0, and the second may be 0: descent in log(alpha) and log(1 + beta), then Newton's
    method on the slopes, which complex steps give exactly.
    """
    def arguments(logs):
        return tuple(np.exp(logs[:1])) + tuple(np.expm1(logs[1:]))

    def slope(logs):
        return np.array([loss(arguments(logs + step)).imag / TINY for step in 1j * TINY * np.eye(len(logs))])

    losses = [loss(start) for start in starts]
    if np.ptp(losses) < 1e-14:  # attention does not matter, and uniform attention is as good as any
        return (1.0,) * len(starts[0])
    start = starts[int(np.argmin(losses))]
    ends = [(math.log(SMALLEST), math.log(LARGEST)), (0.0, math.log(LARGEST))]
    near = minimize(lambda logs: loss(arguments(logs)), [math.log(start[0]), *np.log1p(start[1:])], jac=slope,
                    method="L-BFGS-B", bounds=ends[:len(start)], options={"ftol": 0.0, "gtol": 1e-13}).x
    free = np.append(True, near[1:] > 1e-8)

    def filled(part):
        found = np.zeros(len(near))
        found[free] = part
        return found

    with np.errstate(over="ignore", invalid="ignore"):  # of steps that are too long, whose end is not taken
        found = filled(root(lambda part: slope(filled(part))[free], near[free], tol=1e-14).x)
    close = np.abs(found - near).max() < 1e-3 and (found[1:] >= 0).all()
    return tuple(map(float, arguments(found if close else near)))


# ------------------------------------------------------------------------------------------------ the loss, and counts


def _value(setting, value):
    instance("setting", setting, TopicModel)
    if value is not None:
        instance("value", value, Blocks)
    return separated_value(setting) if value is None else value


def _loss_function(setting, value):
    """``loss(alpha, beta)``, through which complex steps pass: L = 1 + E |f|^2 - 2 E f_y over the chosen slots.

    f = lam_w (contrasts within topics) + lam_t (contrasts between topics) + a part on the mean and [MASK], so that only
    sums of squares over words and over topics, and the output of the target, are needed.
    """
    slots, T, v, n = _slots(setting), setting.T, setting.v, setting.n
    lam_w, lam_t, mean = value.sectors(setting)
    common = mean / n, value.mask_column - mean / n  # the mean output of the words is common[0] + common[1] u_0
    to_mask = value.mask_row, value.mask_mask - value.mask_row  # and that of [MASK]
    p = slots.probability

    def loss(alpha, beta):
        Z = alpha * slots.own + beta * slots.topic + slots.rest
        own, topic = alpha * slots.own / Z, (alpha * slots.own + beta * slots.topic) / Z
        mask, mask_square = slots.mask / Z, slots.mask_square / Z**2
        words = p * own**2 + slots.spread * (beta / Z)**2 + slots.words_square / Z**2  # sum of all squares
        topics = p * topic**2 + slots.topics_square / Z**2
        square = lam_w**2 * (words - topics / v) + lam_t**2 / v * (topics - (p - 2 * mask + mask_square) / T)
        for (constant, linear), size in ((common, n), (to_mask, 1)):
            square = square + size * (constant**2 * p + 2 * constant * linear * mask + linear**2 * mask_square)
        hit = slots.kept * (lam_w * (own - topic / v) + lam_t / v * topic)
        hit = hit + lam_t / v * (slots.own_share * topic + slots.other_shares / Z - (p - mask) / T)
        hit = hit + common[0] * p + common[1] * mask
        return 1 + (square - 2 * hit).sum()

    return loss


def _slots(setting):
    """The chosen slots of all lengths, each length as often as slots of the loss are in documents of it."""
    if setting.loss != "pooled":
        raise ValueError("the loss is per document, where slots are not chosen independently of a chosen one; give "
                         "loss='pooled'")
    if setting.length == math.inf:
        share = _share_law(setting, NODES)
        return _joined([_infinite_words(setting, *share), _masked(setting, math.inf, *share)])
    low, high = setting.lengths
    table_size("the pairs of counts of a word and of its topic", high - low + 1, high * (high + 1) // 2)
    parts, total = [], sum(range(low, high + 1))
    for N in range(low, high + 1):
        share = _share_law(setting, N // 2 + 3)
        for slots in (_words(setting, N, *share), _masked(setting, N, *share)):
            parts.append(Slots(*slots[:3], *(N / total * array for array in slots[3:])))
    return _joined(parts)


def _joined(parts):
    return Slots(*map(np.concatenate, zip(*parts, strict=True)))


def _share_law(setting, nodes):
    """theta_t of any one topic, its probability, and E[sum of the squares of the other topics' shares], each (Q,)."""
    T, tau, alpha = setting.T, setting.tau, setting.alpha
    if tau is not None:
        return np.array([1 / tau, 0.0]), np.array([tau / T, 1 - tau / T]), np.array([tau - 1, tau]) / tau**2
    setting.h  # noqa: B018  refuses Dirichlet laws with several parameters
    if T == 1:
        return np.ones(1), np.ones(1), np.zeros(1)
    others = (T - 1) * alpha
    theta, weight = beta_quadrature(alpha, others, nodes)
    return theta, weight, (1 - theta)**2 * (alpha + 1) / (others + 1)


def _of_other_topics(setting, theta, squares):
    """Of a slot and the other topics, given theta: E[sum s_t], E[sum s_t^2] and E[sum theta_t s_t], each (Q,)."""
    T, a, w = setting.T, setting.a, setting.w
    return (a * (1 - theta) + w * (T - 1), a**2 * squares + 2 * a * w * (1 - theta) + w**2 * (T - 1),
            a * squares + w * (1 - theta))


def _words(setting, N, theta, weight, squares):
    """Slots that show a word, in documents of ``N`` slots: all pairs c, b >= 0 with 1 <= c <= k = c + b <= N."""
    v, m, s = setting.v, setting.m, setting.a * theta + setting.w
    other, square, shares = _of_other_topics(setting, theta, squares)
    kept, random = setting.p_c * setting.T * theta * weight, setting.p_r * weight
    k = np.arange(1.0, N + 1)
    R, total = N - k, kept + random
    chance = _binomial(N - 1, k - 1, s[:, None])  # row = theta, column = k

    def expected(quantity, power=0):
        """Sum over theta of quantity / (1 - s)^power: given that a slot is not of the query's topic."""
        left = np.divide(1, (1 - s)**power, out=np.zeros_like(s), where=(s < 1) | (power == 0))
        return ((quantity * left)[:, None] * chance).sum(axis=0)

    pairs = R * (R - 1)
    topics = R * expected(total * other, 1)
    several = pairs * expected(total * square, 2)
    of_k = (expected(total), R * expected(total * m, 1),
            R * expected(total * m, 1) + pairs * expected(total * m**2, 2), topics + several, topics + several / v,
            expected(kept), expected(random * theta), R * expected(random * shares, 1))
    k_index, c_index = np.tril_indices(N)
    c, b = c_index + 1.0, np.float64(k_index - c_index)
    if v == 1:  # there are no other words of the topic
        k_index, c, b = np.arange(N), k, np.zeros(N)
    given_k = _binomial(k[k_index] - 1, c - 1, 1 / v)
    probability, *others = (quantity[k_index] * given_k for quantity in of_k)
    spread = probability * (b + b * (b - 1) / max(v - 1, 1))
    return Slots(c, b, R[k_index], spread, probability, *others)


def _infinite_words(setting, theta, weight, squares):
    """Slots that show a word, in infinitely long documents: shares stand in the place of counts."""
    v, m, s = setting.v, setting.m, setting.a * theta + setting.w
    _, square, shares = _of_other_topics(setting, theta, squares)
    kept, random = setting.p_c * setting.T * theta * weight, setting.p_r * weight
    total, topic = kept + random, s * (1 - 1 / v)
    return Slots(s / v, topic, 1 - s, total * topic**2 / max(v - 1, 1), total, total * m, total * m**2, total * square,
                 total * square / v, kept, random * theta, random * shares)


def _masked(setting, N, theta, weight, squares):
    """The slot that shows [MASK], whose attention is uniform over N slots: one entry without c and b."""
    T, v, m, a, w, q0 = setting.T, setting.v, setting.m, setting.a, setting.w, setting.q0
    sigma = T * (weight * theta**2).sum()  # probability that two slots share their topic
    topics, square, shares = 1 - m, a**2 * sigma + 2 * a * w + T * w**2, a * sigma + w
    if N == math.inf:
        found = (1.0, m, m**2, square, square / v, shares)
    else:
        R, pairs = N - 1, (N - 1) * (N - 2)
        found = (N, 1 + R * m, 1 + 3 * R * m + pairs * m**2, R * topics + pairs * square,
                 R * topics + pairs * square / v, R * shares)
    length, mask, mask_square, topics_square, words_square, others = found
    entry = (0, 0, length, 0, q0, q0 * mask, q0 * mask_square, q0 * topics_square, q0 * words_square, 0, 0, q0 * others)
    return Slots(*(np.array([float(number)]) for number in entry))


def _binomial(n, k, p):
    """Probability of k out of n."""
    return np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p))
