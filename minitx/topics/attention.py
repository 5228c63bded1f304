"""Topics, stage 2: the value matrix is frozen and attention is trained, on infinitely long documents of tau topics.

Legend: as in :mod:`minitx.topics.law`. A word attends with weight alpha to its own word, with weight beta to the other
words of its topic and with weight 1 to all other tokens; [MASK] attends uniformly. rho = (alpha + (v-1) beta) / v is
the average weight of the topic. s and w are the shares of the shown tokens that a topic inside and a topic outside the
document has. The closed forms are of infinitely long documents of tau topics and do not read ``length``, except
:func:`attention_profile`.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, root
from scipy.special import betaln, gammaln, xlog1py, xlogy

from minitx.base.checks import instance, reals, table_size, truth
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.topics.averages import Averages, pooled_averages
from minitx.topics.law import TopicModel
from minitx.topics.quadrature import beta_quadrature
from minitx.topics.sectors import Blocks
from minitx.topics.values import separated_value

TINY = 1e-100  # step of complex-step derivatives: so small that they are exact to rounding
MOST_POSITIONS = 10**7  # pairs of shown token and target in all infinite documents; more would need gigabytes


def attention_loss(setting: TopicModel, alpha: ArrayLike, beta: ArrayLike,
                   value: Blocks | None = None) -> float | NDArray[np.float64]:
    """Squared loss as a function of the attention values, which are broadcast together: a surface can be drawn.

    ``value`` is W_V (row = output token, column = attended token); the default is ``separated_value``, the paper's
    W_inf. Raises ValueError if the topic shares are Dirichlet, or attention values are negative, not finite or all 0.
    """
    same_word, same_topic, rho = attention_weights(setting, alpha, beta)
    loss = _loss(setting, _value(setting, value), rho, same_word - same_topic)
    return float(loss) if loss.ndim == 0 else loss


def attention_weights(setting, alpha, beta):
    """Return (alpha, beta, rho) as float64. Raises ValueError unless they can be weights of attention."""
    instance("setting", setting, TopicModel)
    alpha, beta = reals("alpha", alpha, finite=False), reals("beta", beta, finite=False)
    try:
        np.broadcast_shapes(alpha.shape, beta.shape)
    except ValueError:
        raise ValueError(f"alpha has shape {alpha.shape} and beta {beta.shape}; give numbers, or arrays whose shapes "
                         "fit each other") from None
    rho = (alpha + (setting.v - 1) * beta) / setting.v
    if not (np.isfinite(rho) & (rho > 0) & (alpha >= 0) & (beta >= 0)).all():
        raise ValueError(f"alpha goes down to {np.min(alpha):g}, beta to {np.min(beta):g}, the averages rho from "
                         f"{np.min(rho):g} to {np.max(rho):g}; give finite alpha and beta of at least 0, not all 0 "
                         "(1 and 1 is uniform attention)")
    return alpha, beta, rho


def _value(setting, value):
    setting.require_tau("the loss of attention")
    if value is not None:
        instance("value", value, Blocks)
    return separated_value(setting) if value is None else value


def _loss(setting, value, rho, excess, rho_0=1.0):
    """The loss with alpha - beta = ``excess`` and weight ``rho_0`` on keys [MASK]; complex steps in all three pass.

    L = 1 + E |f|^2 - 2 E f_y over the chosen slots, which show their own word (p_c), [MASK] (q0) or a random word
    (p_r); the latter is of a topic of the document with probability tau/T.
    """
    T, v, tau, s, w, m = setting.T, setting.v, setting.tau, setting.s, setting.w, setting.m
    lam_w = value.sectors(setting)[0]

    def word(share, inside, outside):
        """Outputs for a query word whose topic has ``share`` of the keys, ``inside`` and ``outside`` other topics."""
        Z = 1 + (rho - 1) * share + (rho_0 - 1) * m
        attention = (rho * share / Z, s / Z, w / Z)
        (own, other, _), square = _outputs(setting, value, (1, inside, outside), attention, rho_0 * m / Z)
        delta = excess * share / (v * Z)  # attention to its own word beyond that to another word of its topic
        contrast = lam_w * delta * (1 - 1 / v)  # output of its own word beyond the mean of its topic
        return own, other, contrast, square + lam_w * delta * contrast

    # 1. A query word of a topic in the document: y is that word (kept), or any word of the document (random).
    own, other, contrast, square = word(s, tau - 1, T - tau)
    kept = square - 2 * (own + contrast)
    random_inside = square - 2 / tau * (own + (tau - 1) * other)
    # 2. A query word of a topic outside the document, which is there at random: y is any word of the document.
    _, other, _, square = word(w, tau, T - tau - 1)
    random_outside = square - 2 * other
    # 3. A query [MASK], whose attention is uniform.
    (other, _), square = _outputs(setting, value, (tau, T - tau), (s, w), m)
    masked = square - 2 * other
    random = tau / T * random_inside + (1 - tau / T) * random_outside
    return 1 + setting.p_c * kept + setting.p_r * random + setting.q0 * masked


def _outputs(setting, value, n_topics, attention, mask):
    """Outputs for a query that gives ``mask`` of its attention to [MASK] and ``attention`` to topics of several kinds.

    There are ``n_topics`` of each kind. Returns for each kind the mean output of the words of a topic, which is lam_t/v
    (attention - (1 - mask)/T) + the mean over all words; and |f|^2, if all words of a topic have the same output.
    """
    _, lam_t, mean = value.sectors(setting)
    common = value.mask_column * mask + mean * (1 - mask) / setting.n
    outputs = [lam_t / setting.v * (each - (1 - mask) / setting.T) + common for each in attention]
    to_mask = value.mask_mask * mask + value.mask_row * (1 - mask)
    return outputs, setting.v * sum(n * o**2 for n, o in zip(n_topics, outputs, strict=True)) + to_mask**2


@dataclass(frozen=True)
class OptimalAttention(Shown):
    """The best attention: weights of the own word, of its topic, and their average; and the loss that they have.

    ``rho_0`` is the weight of a key [MASK], 1 unless it was freed; ``loss_uniform`` is the loss of uniform attention.
    With W_inf it is proved that 1 < rho <= rho_AB (of the loss with rho_0 = 1), and that theta = (rho-1) s /
    (1 + (rho-1) s) is at most theta_AB.
    """

    alpha: float
    beta: float
    rho: float
    rho_0: float
    loss_uniform: float
    loss: float
    rho_AB: float | None = None
    theta_AB: float | None = None


def optimal_ratio(setting: TopicModel, *, free_mask: bool = False) -> OptimalAttention:
    """The attention of least squared loss when W_V is W_inf (``separated_value``): alpha = beta = rho.

    ``free_mask`` says whether the weight of keys [MASK] is optimised as well; otherwise it is 1. Raises ValueError if
    the topic shares are Dirichlet, if no slot shows its own word, or if every chosen one does.

    Notes
    -----
    With e_t the uniform words of topic t, y_S those of the document, and g = W e_t - y_S,

        L = L(0) - 2 theta p_c (tau-1)/(a tau v) + theta^2 (p_c + p_r tau/T) |g|^2 [t in S]
            + theta'^2 p_r (1 - tau/T) |g|^2 [t not in S],    theta' = c theta / (1 - (1-c) theta),    c = w/s.

    L is convex in theta in [0, 1). Only the slots that show their word push rho above 1: it is 1 if p_c = 0 or tau = 1.
    """
    instance("setting", setting, TopicModel)
    truth("free_mask", free_mask)
    if not isinstance(free_mask, bool):
        raise ValueError(f"free_mask is {free_mask!r}; it must be True or False")
    if setting.p_c == 1 and setting.tau != 1:
        raise ValueError("p_c is 1: every chosen slot shows its word, and the loss falls without end as attention "
                         "copies; lower p_c")
    value = _value(setting, None)
    theta, theta_AB = _best_theta(setting, value)
    rho, rho_AB = (1 + each / (setting.s * (1 - each)) for each in (theta, theta_AB))
    rho, rho_0 = _with_mask(setting, value, rho) if free_mask else (rho, 1.0)
    uniform, best = float(_loss(setting, value, 1.0, 0.0)), float(_loss(setting, value, rho, 0.0, rho_0))
    return OptimalAttention(rho, rho, rho, rho_0, uniform, best, rho_AB, theta_AB)


def _best_theta(setting, value):
    """(theta, theta_AB): the zero of half the slope dL/dtheta of :func:`optimal_ratio`, and that with theta' = 0."""
    T, v, tau, a, p_c, p_r = setting.T, setting.v, setting.tau, setting.a, setting.p_c, setting.p_r
    if p_c == 0 or tau == 1:
        return 0.0, 0.0
    push = p_c * (tau - 1) / (a * tau * v)
    kap = value.different_topic
    outside = 1 / (a**2 * v) + 2 * kap / a + kap**2 * setting.n - 2 * kap + 1 / (tau * v)  # |g|^2, t not in S
    inside = (p_c + p_r * tau / T) * (outside - 2 / (a * tau * v))
    c = setting.w / setting.s

    def slope(theta):
        theta_out = c * theta / (1 - (1 - c) * theta)
        change = c / (1 - (1 - c) * theta)**2  # d theta' / d theta
        return theta * inside + theta_out * change * p_r * (1 - tau / T) * outside - push

    theta_AB = push / inside
    return (theta_AB if slope(theta_AB) <= 0 else brentq(slope, 0, theta_AB, xtol=1e-18, rtol=1e-15)), theta_AB


def _with_mask(setting, value, rho):
    """The (rho, rho_0) of least loss: descent in their logarithms from (``rho``, 1), then a root of the slope."""
    if setting.p_c + setting.p_r == 0 or setting.m == 0:
        return rho, 1.0

    def loss(logs):
        return _loss(setting, value, np.exp(logs[0]), 0.0, np.exp(logs[1]))

    def slope(logs):
        return np.array([loss(logs + step).imag / TINY for step in 1j * TINY * np.eye(2)])

    near = minimize(loss, [math.log(rho), 0.0], jac=slope, method="BFGS", options={"gtol": 1e-9}).x
    return tuple(map(float, np.exp(root(slope, near, tol=1e-14).x)))


def optimal_attention(setting: TopicModel, value: Blocks) -> OptimalAttention:
    """The attention values of least squared loss when W_V is ``value``.

    With lam_w > 0 (``other_limit_value``, ``optimal_value`` of a fixed length) they copy: alpha is large and beta is 0.
    Where the loss depends on the average alone (lam_w = 0: W_inf), alpha = beta is returned. At a given rho the loss is
    a parabola in alpha - beta, which is minimised with alpha, beta >= 0; a function of rho is left. Raises ValueError
    if the topic shares are Dirichlet, or the loss has no minimum.
    """
    instance("setting", setting, TopicModel)
    instance("value", value, Blocks)
    setting.require_tau("the loss of attention")
    uniform, v = _loss(setting, value, 1.0, 0.0), setting.v

    def profile(log):
        rho = np.exp(log)
        return _loss(setting, value, rho, _best_excess(setting, value, rho))

    rho = math.exp(0.0 if setting.p_c + setting.p_r == 0 else _lowest(profile))
    excess = float(_best_excess(setting, value, rho))
    loss = _loss(setting, value, rho, excess)
    copying = v > 1 and excess >= v * rho
    return OptimalAttention(rho + excess * (1 - 1 / v), 0.0 if copying else rho - excess / v, rho, 1.0, float(uniform),
                            float(loss))


def _lowest(profile):
    """Return the log rho at which ``profile`` is least; 0 (rho = 1) if it is constant.

    Raises ValueError if the profile falls without end.
    """
    logs = np.linspace(-12, 30, 841)
    losses = profile(logs)
    if np.ptp(losses) < 1e-14:
        return 0.0

    def slope(log):
        return profile(log + 1j * TINY).imag / TINY

    best = int(np.argmin(losses))
    if best in (0, len(logs) - 1) or not slope(logs[best - 1]) < 0 < slope(logs[best + 1]):
        raise ValueError("the loss has no minimum: it still falls at an average attention rho of "
                         f"{math.exp(logs[best]):.3g}, and nothing stands against copying; raise p_r (random words), "
                         "or give a value in which topics differ more")
    return brentq(slope, logs[best - 1], logs[best + 1], xtol=1e-14)


def _best_excess(setting, value, rho):
    """The best alpha - beta at each average ``rho`` (complex steps pass)."""
    v, tau, T, s, w, p_c, p_r = setting.v, setting.tau, setting.T, setting.s, setting.w, setting.p_c, setting.p_r
    lam_w = value.sectors(setting)[0]
    if v == 1:
        return rho
    if lam_w == 0 or p_c == 0:
        return 0 * rho
    inside, outside = s / (v * (1 + (rho - 1) * s)), w / (v * (1 + (rho - 1) * w))  # delta, for alpha - beta = 1
    best = p_c * inside / (lam_w * ((p_c + p_r * tau / T) * inside**2 + p_r * (1 - tau / T) * outside**2))
    best = np.where(np.real(best) > np.real(v * rho), v * rho, best)  # beta >= 0
    return np.where(np.real(best) < np.real(-v * rho / (v - 1)), -v * rho / (v - 1), best)  # alpha >= 0


@one_blas_thread()
def attention_profile(setting: TopicModel, alpha: float, beta: float) -> Averages:
    """What attention with values alpha : beta : 1 looks like on documents without corruption, times N: 1 is uniform.

    It is the average over ordered pairs (query slot, key slot), each document counting with all its pairs, as
    :func:`minitx.topics.attention_table` measures it; the numbers of pairs are proportions. Raises ValueError if
    ``alpha`` or ``beta`` is negative or not finite, or both are 0.

    Notes
    -----
    Exact. A query slot has k slots of its topic, c of them of its word: k - 1 is (beta-)binomial in N - 1, and c - 1 is
    binomial in k - 1. The attention of a key is its weight over alpha c + beta (k - c) + N - k.
    """
    alpha, beta, rho = attention_weights(setting, alpha, beta)
    if rho.ndim:
        raise ValueError(f"alpha and beta are arrays of shape {rho.shape}; give one number each")
    alpha, beta = float(alpha), float(beta)
    weights = np.array([alpha, beta, 1.0])
    attention, pairs = np.zeros(3), np.zeros(3)
    for N, counts, probability in _query_slots(setting):  # sums over queries of N attention, and of pairs
        attention += (N * weights[:, None] * counts / (weights @ counts)) @ probability
        pairs += counts @ probability
    return pooled_averages(attention.tolist(), pairs.tolist())


def _query_slots(setting):
    """For each length, (N, keys, weight) of the kinds of query slots; weight (n_kinds,) says how frequent each is.

    Keys (3, n_kinds) are of the same word, of the rest of its topic, of other topics; shares, with N = 1, if N = inf.
    """
    if setting.length == math.inf:
        theta, weight = _own_share(setting)
        yield 1.0, np.array([theta / setting.v, theta * (1 - 1 / setting.v), 1 - theta]), weight
        return
    low, high = setting.lengths
    table_size("the profile of attention", high, high)
    for N in range(low, high + 1):
        k, c, weight = _own_counts(setting, N)
        yield N, np.array([c, k - c, N - k], np.float64), N * weight


def _own_share(setting):
    """Share of a slot's topic in its infinite document: values and probabilities."""
    if setting.tau is not None or setting.T == 1:
        return np.array([1 / (setting.tau or 1)]), np.ones(1)
    ours, others = setting.alpha + 1, (setting.T - 1) * setting.alpha
    return beta_quadrature(ours, others, 200)


def _own_counts(setting, N):
    """(k, c, probability), each (number of pairs 1 <= c <= k <= N,)."""
    k, c = (index + 1 for index in np.tril_indices(N))
    if setting.tau is not None or setting.T == 1:
        topic = _log_binomial(N - 1, k - 1, 1 / (setting.tau or 1))
    else:
        ours, others = setting.alpha + 1, (setting.T - 1) * setting.alpha
        topic = _log_choose(N - 1, k - 1) + betaln(k - 1 + ours, N - k + others) - betaln(ours, others)
    return k, c, np.exp(topic + _log_binomial(k - 1, c - 1, 1 / setting.v))


def _log_choose(N, k):
    return gammaln(N + 1) - gammaln(k + 1) - gammaln(N - k + 1)


def _log_binomial(N, k, p):
    return _log_choose(N, k) + xlogy(k, p) + xlog1py(N - k, -p)


def infinite_documents(setting: TopicModel, head: str = "squared") -> Batch:
    """All C(T, tau) infinitely long documents of tau topics, with the loss ``head``.

    Row = set S of topics, column = kind of chosen slot: a pair of shown token ([MASK] first) and target. There are
    tau v (n + 1) pairs with random words and 2 tau v without, less tau v where nothing shows [MASK]. ``weight`` is the
    probability of such a slot among all chosen ones; where it is 0 the column is there for its ``mass``, the share of
    its kind among the keys: A_tj is proportional to mass_j exp(score_tj). The masses of a token sum to its share q_S in
    the document. Raises ValueError if the topic shares are Dirichlet, or there are more than 10^7 pairs.
    """
    instance("setting", setting, TopicModel)
    tau, T, v, n = setting.require_tau("the infinite population"), setting.T, setting.v, setting.n
    n_targets = tau * v
    n_pairs = n_targets * ((setting.q0 > 0) + (n if setting.p_r > 0 else setting.a > 0))
    if math.comb(T, tau) * n_pairs > MOST_POSITIONS:
        raise ValueError(f"{math.comb(T, tau)} sets of topics with {n_pairs} pairs of shown token and target each are "
                         f"more than {MOST_POSITIONS}; take fewer topics, or fewer words a topic")
    rows = [_infinite_document(setting, np.array(S)) for S in combinations(range(T), tau)]
    tokens, targets, weight, mass = (np.array(arrays) for arrays in zip(*rows, strict=True))
    return Batch(tokens, targets, weight / len(rows), mass=mass, causal=False, head=head)


def _infinite_document(setting, S):
    """tokens, targets, weight (sum 1), mass of the document with topics ``S``, each (P,)."""
    v, n, p_c, p_r, q0 = setting.v, setting.n, setting.p_c, setting.p_r, setting.q0
    words = (1 + S[:, None] * v + np.arange(v)).ravel()
    n_targets = len(words)
    share = np.full(n + 1, setting.r / n)  # q_S
    share[words] += setting.a / n_targets
    share[0] = setting.m
    shown = [0] * (q0 > 0) + list(range(1, n + 1) if p_r > 0 else [])
    tokens, targets = np.repeat(shown, n_targets).astype(int), np.tile(words, len(shown))
    weight = np.where(tokens == 0, q0, p_c * (tokens == targets) + p_r / n) / n_targets
    mass = share[tokens] / n_targets
    if p_r == 0 and setting.a > 0:  # then a word is shown by slots of that word only
        tokens, targets = np.append(tokens, words), np.append(targets, words)
        weight, mass = np.append(weight, np.full(n_targets, p_c / n_targets)), np.append(mass, share[words])
    return tokens, targets, weight, mass
