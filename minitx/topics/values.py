"""Stage 1: the value matrix, or the Gram matrix of the embeddings, that uniform attention and squared error lead to.

Legend: as in :mod:`minitx.topics.sectors`. W_V: row = output token, column = attended token. K = E^T E, (V, V),
symmetric.

The paper lets N -> infinity first, then the ridge lambda -> 0 (``paper_value``). The two limits do not commute: lambda
-> 0 first gives ``other_limit_value``, and at any fixed N ``optimal_value``, where a word stands out of its own topic.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

from minitx.base.checks import instance, positive, whole_number
from minitx.base.parallel import one_blas_thread
from minitx.topics.law import TopicModel
from minitx.topics.sectors import Blocks, blocks_of_pair, moments


def optimal_value(setting: TopicModel) -> Blocks:
    """The value matrix of least squared loss, of minimum norm if there are many: C M^+.

    lam_w = C_w / M_w, lam_t = C_t / M_t; the mean is reproduced, so that the columns sum to 1 and the mask column is
    1/n exactly, unless the share of [MASK] is the same in all documents (N = inf: ``paper_value``).
    """
    return _minimiser(moments(setting), 0.0)


def paper_value(setting: TopicModel) -> Blocks:
    """W_inf: N = inf first, then ridge -> 0 (the paper's order). ``setting.length`` is ignored.

    With den = n m^2 + (1-m)^2: mask column m/den; different topic d = ((1-m)/den - 1/a)/n; same word = same topic =
    1/(a v) + d. The gap 1/(a v) is the same for all 1 <= tau < T; at tau = T it is 0: nothing tells topics apart.
    """
    instance("setting", setting, TopicModel)
    return optimal_value(replace(setting, length=math.inf))


def separated_value(setting: TopicModel) -> Blocks:
    """W_inf with the gap 1/(a v) at tau = T too, where it is a solution but not the one of minimum norm.

    At tau < T it is ``paper_value``; ``setting.length`` is ignored. Raises ValueError where no slot shows its own word.
    """
    instance("setting", setting, TopicModel)
    setting.require_visible("the value matrix with gap 1/(a v)")
    return _blocks(moments(replace(setting, length=math.inf)), 0.0, 1 / setting.a)


def other_limit_value(setting: TopicModel) -> Blocks:
    """W_lim: ridge -> 0 first, then N -> inf. ``setting.length`` is ignored.

    lam_w = p_c/(1-m), lam_t = 1/a, and the columns sum to 1.
    """
    instance("setting", setting, TopicModel)
    lam_w = _ratio(setting.p_c, 1 - setting.m)
    lam_t = lam_w if math.isinf(setting.h) else _ratio(setting.a, setting.a**2)
    return _blocks(moments(replace(setting, length=2, loss="pooled")), lam_w, lam_t)


def ridge_value(setting: TopicModel, ridge: float) -> Blocks:
    """Minimiser of loss + ridge |W|_F^2: C (M + ridge I)^-1.

    lam_s = C_s / (M_s + ridge) in each sector. The mask column is al/n and the mean is be:

        al = (s2 + ridge n mu) / (s2 + ridge R),    be = (s2 + ridge (1-mu)) / (s2 + ridge R),
        R = n E[u_0^2] + E[(1-u_0)^2] + n ridge.

    The result is near the paper's where (1-m)/(N n) << ridge << a^2 G for words and topics, and where
    m(1-m)/(N den) << ridge << den/n for [MASK] and the mean, den = n m^2 + (1-m)^2.
    """
    return _minimiser(moments(setting), positive("ridge", ridge))


@one_blas_thread()
def value_after(setting: TopicModel, steps: int, learning_rate: float) -> Blocks:
    """The value matrix after gradient descent from zero on the squared loss, whose gradient is 2 (W M - C): exact.

    lam_s = (C_s / M_s)(1 - (1 - 2 eta M_s)^steps) in each sector: topics are learned first, the same word later.
    eta is the learning rate. Raises ValueError where the descent diverges.
    """
    steps, learning_rate = whole_number("steps", steps, 0, most=10**12), positive("learning_rate", learning_rate)
    found = moments(setting)
    scales, directions = np.linalg.eigh(found.M_pair)
    if learning_rate * found.M_largest > 1:
        raise ValueError(f"learning_rate is {learning_rate:g}; gradient descent diverges above "
                         f"{1 / found.M_largest:.6g} for this law: lower it")

    def learned(M):
        """(1 - (1 - 2 eta M)^steps) / M."""
        return _geometric(2 * learning_rate * M, steps) * 2 * learning_rate

    pair = (found.C_pair @ directions * [learned(scale) for scale in scales]) @ directions.T
    return blocks_of_pair(setting, found.C_w * learned(found.M_w), found.C_t * learned(found.M_t), pair)


def optimal_gram(setting: TopicModel) -> Blocks:
    """K = E^T E of least squared loss with tied output and W_V = I; it is psd, and of minimum trace if there are many.

    On the words lam_w and lam_t are those of ``optimal_value``. On [MASK] and the mean K is of rank one. With gamma the
    eigenvalue on the mean, z = n <E_0, E_i> / gamma and q = 1 - u_0 + z u_0:

        z maximises (E q)^2 / ((1 + z^2/n) E q^2),    gamma = E q / ((1 + z^2/n) E q^2).

    In the result mask_mask = |E_0|^2 and mask_column = mask_row = <E_0, E_i>. At N = inf E_0 = 0 and same word = same
    topic; the minimisers are all psd matrices K with K q_S = y_S, which have the averages over whole blocks in common,
    but not those over the different words of a topic. Raises ValueError if no word is ever shown.
    """
    found = moments(setting)
    return _gram(found, _ratio(found.C_w, found.M_w))


def gram_plateau(setting: TopicModel) -> Blocks:
    """K where gradient descent on E from small entries rests first: topics are learned, but lam_w is still 0.

    Descent rests there if topics are learned much sooner than words, C_t >> C_w, which holds for few topics a document.
    Raises ValueError at tau = T, where both are learned at the same rate.
    """
    instance("setting", setting, TopicModel)
    if math.isinf(setting.h):
        raise ValueError(f"tau is {setting.tau}, all the topics: words of a topic are learned no later than topics, "
                         "and there is no plateau; lower tau")
    return _gram(moments(setting), 0.0)


def _gram(found, lam_w):
    """Blocks of K with ``lam_w`` within topics; :func:`optimal_gram` says what z and gamma are."""
    n, mu, s2 = found.setting.n, found.mask_share, found.mask_variance
    if mu == 1:
        raise ValueError("p_m = 1 and p_c = p_r = 0: only [MASK] is ever shown, and no Gram matrix is optimal; change "
                         "one of them")

    def slope(z):  # of the quotient that z maximises, times a positive factor
        q = 1 - mu + z * mu
        return s2 * (1 - z) * (n + z * z) - z * q * (q * q + s2 * (1 - z)**2)

    z = brentq(slope, 0, 1, xtol=1e-18, rtol=1e-15) if s2 > 0 else 0.0
    q = 1 - mu + z * mu
    gamma = q / ((1 + z * z / n) * (q * q + s2 * (1 - z)**2))
    across = z * gamma / n
    return Blocks.from_sectors(found.setting, lam_w, _ratio(found.C_t, found.M_t), gamma, mask_mask=z * across,
                               mask_column=across, mask_row=across)


def _minimiser(found, ridge):
    """C (M + ridge)^-1, or C M^+ without a ridge, from the moments ``found``."""
    return _blocks(found, _ratio(found.C_w, found.M_w + ridge), _ratio(found.C_t, found.M_t + ridge), ridge)


def _blocks(found, lam_w, lam_t, ridge=0.0):
    """Blocks with al and be as in :func:`ridge_value`; in the limit ridge -> 0 they are 1, or of least norm if s2 = 0.

    The 2 x 2 system of [MASK] and the mean is solved by hand: in long documents s2 is so much smaller than mu^2 that a
    solver of the matrix, which holds their sum, loses it.
    """
    n, mu, s2 = found.setting.n, found.mask_share, found.mask_variance
    R = n * (mu**2 + s2) + (1 - mu)**2 + s2 + n * ridge
    weight = ridge if s2 > 0 or ridge > 0 else 1.0  # with s2 = 0 the ridge cancels
    al, be = ((s2 + weight * part) / (s2 + weight * R) for part in (n * mu, 1 - mu))
    return Blocks.from_sectors(found.setting, lam_w, lam_t, be, mask_column=al / n)


def _ratio(C, M):
    """C / M; 0 where the sector is empty."""
    return C / M if M > 0 else 0.0


def _geometric(x, steps):
    """Sum of (1 - x)^k over k < steps, for x <= 2."""
    if x <= 0:
        return steps
    return -math.expm1(steps * math.log1p(-x)) / x if x < 0.5 else (1 - (1 - x)**steps) / x
