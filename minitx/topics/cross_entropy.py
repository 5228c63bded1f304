"""Topics under cross-entropy and uniform attention: the best same-word and topic logits of the value matrix.

Legend: as in :mod:`minitx.topics.law`. By symmetry logit_i = A u_i + B U_topic(i), where U_t is the share of the shown
words that topic t has, A = same_word - same_topic and B = same_topic - different_topic of W_V. The logit of [MASK],
which is never a target, goes to -infinity.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import generator, instance, positive, truth, whole_number
from minitx.base.numbers import minimise
from minitx.base.parallel import one_blas_thread
from minitx.base.shown import Shown
from minitx.topics.law import TopicModel
from minitx.topics.sectors import Blocks

CHUNK = 1 << 18  # documents x words that are worked on at a time; larger chunks take more memory
MOST_COUNTS = 1 << 28  # documents x words of the whole sample; more would need gigabytes
SHORT = 1e-9  # longest Newton step, over 1 + the largest logit, at a minimum


@dataclass(frozen=True)
class CrossEntropyOptimum(Shown):
    """The best logits, on a sample of documents or exact ones with a ridge; ``loss`` (in nats) is without the ridge.

    Per unit of share, A is the logit of the same word above its topic, and B that of its topic above the others.
    ``se_...`` are standard errors over ``n_documents`` sampled documents; all are 0 for the exact optimum, which alone
    has ``value``, W_V.
    """

    A: float
    B: float
    loss: float
    se_A: float = 0.0
    se_B: float = 0.0
    se_loss: float = 0.0
    n_documents: int = 0
    value: Blocks | None = None


@one_blas_thread()
def cross_entropy_optimum(setting: TopicModel, *, ridge: float | None = None, n_documents: int = 20_000,
                          same_word: bool = True, rng: int | np.random.Generator | None = 0) -> CrossEntropyOptimum:
    """The value matrix of least cross-entropy. Raises ValueError if the ridge is missing, or the loss has no minimum.

    Parameters
    ----------
    setting : TopicModel
        At length inf with tau, the exact minimiser of loss + ridge |W|_F^2 is found. With a finite length, or Dirichlet
        shares, it is the minimiser on sampled documents, without ridge.
    ridge : float, optional
        Needed at length inf with tau, where the loss falls to its infimum log(tau v) only as B -> inf.
    n_documents, rng
        Number of sampled documents, and the seed of the sampling.
    same_word : bool
        If False, A is kept 0, as on the plateau of trained embeddings. At length inf it is 0 anyway.

    Notes
    -----
    Exact (N = inf): with Delta = B a / tau, the logit of a word of the document above one outside, and Dm, the mean
    logit of the words above that of [MASK], the minimum over (Delta, Dm) is that of

        log(tau v + (T-tau) v e^-Delta + e^(-Dm - Delta (1 - tau/T)))
        + ridge [(T-1)(tau v Delta/a)^2 + n Dm^2 / ((n+1)(m^2 + (1-m)^2/n))].
    """
    instance("setting", setting, TopicModel)
    truth("same_word", same_word)
    if setting.length == math.inf and setting.tau is not None:
        if ridge is None:
            raise ValueError("at length inf the cross-entropy has no minimum (its infimum log(tau v) needs infinite "
                             "weights); give ridge, such as 1e-6, or a finite length")
        return _ridge_path(setting, positive("ridge", ridge))
    if ridge is not None:
        raise ValueError(f"ridge is {ridge!r}, but with a finite length or Dirichlet shares none is used; leave it "
                         "None, or take length=math.inf and tau")
    if setting.tau == 1 and setting.p_r == 0:
        raise ValueError("with tau = 1 and p_r = 0 every word shown tells the topic without error, and the loss has no "
                         "minimum; raise tau or p_r")
    n_documents = whole_number("n_documents", n_documents, 2)
    if n_documents * setting.n > MOST_COUNTS:
        raise ValueError(f"{n_documents} documents of {setting.n} words are more than {MOST_COUNTS} counts; lower "
                         "n_documents")
    rng, size = generator(rng), max(1, CHUNK // setting.n)
    chunks = [_draw(setting, min(size, n_documents - start), rng) for start in range(0, n_documents, size)]
    return replace(_optimum_on(chunks, same_word and setting.length != math.inf), n_documents=n_documents)


def _ridge_path(setting, ridge):
    setting.require_visible("the ridge path")
    T, v, tau, n, m, a = setting.T, setting.v, setting.tau, setting.n, setting.m, setting.a
    shares = m**2 + (1 - m)**2 / n
    ridges = 2 * ridge * np.array([(T - 1) * (tau * v / a)**2, n / ((n + 1) * shares)])
    powers = np.array([[0, 0], [-1, 0], [-(1 - tau / T), -1]])  # of (Delta, Dm) in the three exponentials
    counts = np.array([tau * v, (T - tau) * v, 1])

    def evaluate(x):
        terms = counts * np.exp(powers @ x)
        p = terms / terms.sum()
        mean = p @ powers
        spread = (powers - mean).T * p @ (powers - mean)
        return math.log(terms.sum()) + ridges @ x**2 / 2, mean + ridges * x, spread + np.diag(ridges)

    x = _minimum(evaluate, np.array([tau < T, True]))
    Delta, Dm = map(float, x)
    lam_t, column = tau * v * Delta / a, Dm / ((n + 1) * shares)
    value = Blocks.from_sectors(setting, 0.0, lam_t, column * (1 - m), mask_mask=-n * column * m,
                                mask_column=column * m, mask_row=-column * (1 - m))
    return CrossEntropyOptimum(A=0.0, B=lam_t / v, loss=float(evaluate(x)[0] - ridges @ x**2 / 2), value=value)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What the loss of D documents needs: sums over the chosen slots of -logit and of the log of the normaliser."""

    shown: NDArray  # (D, T, v) counts of the shown words; (D, T, 1) shares of topics where N is infinite
    length: NDArray  # (D,) N
    words: int  # how many words a column of ``shown`` stands for
    targets: NDArray[np.float64]  # (D, 2) sum over the chosen slots of (u_y, U_topic(y))
    weight: NDArray[np.float64]  # (D,) of the sum of the loss over chosen slots


def _draw(setting, D, rng):
    """Sample ``D`` documents: shares of topics, then counts of words, of chosen slots and of what these show."""
    T, v, n, p_c, p_r = setting.T, setting.v, setting.n, setting.p_c, setting.p_r
    if setting.tau is None:
        share = rng.dirichlet(np.full(T, setting.alpha), D)
    else:
        inside = np.argsort(rng.random((D, T)), axis=1)[:, :setting.tau]
        share = np.zeros((D, T))
        np.put_along_axis(share, inside, 1 / setting.tau, axis=1)
    if setting.length == math.inf:
        U = setting.a * share + setting.r / T
        targets = np.stack([(share * U).sum(axis=1) / v, (share * U).sum(axis=1)], axis=1)
        return _Chunk(U[:, :, None], np.ones(D), v, targets, np.ones(D))
    low, high = setting.lengths
    length = rng.integers(low, high, D, endpoint=True)
    words = rng.multinomial(length, np.repeat(share / v, v, axis=1)).reshape(D, T, v)
    chosen = rng.binomial(words, setting.p_m)
    kept = rng.binomial(chosen, p_c)
    random = rng.binomial((chosen - kept).sum(axis=(1, 2)), min(1.0, p_r / (1 - p_c)) if p_c < 1 else 0.0)
    shown = words - chosen + kept + rng.multinomial(random, np.full(n, 1 / n)).reshape(D, T, v)
    K = chosen.sum(axis=(1, 2))
    targets = np.stack([(chosen * shown).sum(axis=(1, 2)), (chosen.sum(axis=2) * shown.sum(axis=2)).sum(axis=1)], 1)
    each = np.ones(D) if setting.loss == "pooled" else 1 / np.maximum(K, 1)
    return _Chunk(shown.astype(np.int32), length, 1, targets * (each / length)[:, None], K * each)


def _optimum_on(chunks, same_word):
    """Optimum on the sampled documents, and its standard errors: H^-1 (sum of g g^T over documents) H^-1."""
    total = sum(chunk.weight.sum() for chunk in chunks)
    if total == 0:
        raise ValueError("no slot of the sampled documents is chosen; raise n_documents or p_m")
    free = np.array([same_word, True])

    def evaluate(x):
        sums = [_evaluate(chunk, x) for chunk in chunks]
        return (sum(each.sum() for each, _, _ in sums) / total, sum(g.sum(axis=0) for _, g, _ in sums) / total,
                sum(H for _, _, H in sums) / total)

    x = _minimum(evaluate, free)
    loss, _, H = evaluate(x)
    spread, loss_spread = np.zeros((2, 2)), 0.0
    for chunk in chunks:
        each, g, _ = _evaluate(chunk, x)
        spread += g.T @ g / total**2
        loss_spread += ((each - loss * chunk.weight)**2).sum() / total**2
    inverse, both = np.zeros((2, 2)), np.ix_(free, free)
    inverse[both] = np.linalg.inv(H[both])
    se_A, se_B = np.sqrt(np.diag(inverse @ spread @ inverse))
    return CrossEntropyOptimum(A=float(x[0]), B=float(x[1]), loss=float(loss), se_A=float(se_A), se_B=float(se_B),
                               se_loss=math.sqrt(loss_spread))


def _evaluate(chunk, x):
    """Of each document the loss (D,) and its gradient (D, 2), of all together the Hessian (2, 2), in (A, B).

    With p the softmax of the logits x . (u_i, U_topic(i)), means under p give the gradient, and their covariance the
    Hessian.
    """
    u = chunk.shown / chunk.length[:, None, None]
    U = u.sum(axis=2)
    logits = x[0] * u + (x[1] * U)[:, :, None]
    top = logits.max(axis=(1, 2))
    e = np.exp(logits - top[:, None, None])
    by_topic = [each.sum(axis=2) for each in (e, e * u, e * u * u)]
    Z = by_topic[0].sum(axis=1)
    sums = (by_topic[1], by_topic[0] * U, by_topic[2], by_topic[1] * U, by_topic[0] * U * U)
    mean_u, mean_U, mean_uu, mean_uU, mean_UU = (each.sum(axis=1) / Z for each in sums)
    loss = chunk.weight * (top + np.log(chunk.words * Z)) - chunk.targets @ x
    gradient = chunk.weight[:, None] * np.stack([mean_u, mean_U], axis=1) - chunk.targets
    covariances = (mean_uu - mean_u**2, mean_uU - mean_u * mean_U, mean_UU - mean_U**2)
    AA, AB, BB = (chunk.weight @ covariance for covariance in covariances)
    return loss, gradient, np.array([[AA, AB], [AB, BB]])


def _minimum(evaluate, free):
    """Where ``evaluate(x)`` (convex: value, gradient, Hessian) is least in those of the (2,) numbers that are ``free``.

    The others are 0. Raises ValueError if there is no minimum.
    """
    both = np.ix_(free, free)

    def of_free(numbers):
        x = np.zeros(2)
        x[free] = numbers
        value, gradient, hessian = evaluate(x)
        return value, gradient[free], hessian[both]

    x = np.zeros(2)
    try:
        x[free], gradient, _ = minimise(of_free, x[free])
        step = np.linalg.solve(of_free(x[free])[2], gradient)
    except np.linalg.LinAlgError:  # the Hessian vanishes where documents are separable
        step = np.full(2, np.inf)
    if not np.abs(step).max() <= SHORT * (1 + np.abs(x).max()):
        raise ValueError("the cross-entropy has no minimum: it falls without end, because topics are told almost "
                         "without error; raise n_documents, or take shorter documents, larger tau or larger p_r")
    return x
