"""Attention of the last token, by counts: samples, the losses of Li, Huang, Ildiz, Rawat, Oymak (2024) and their exact gradients.

Only the last token asks, and nothing but how often each token occurs reaches it (no positions), so a sample is a bag of counts:

    S[j, k] = e_j^T W e_k                                        score of token j when the last token is k
    P_ij    = N_ij exp(S[j, k_i]) / sum_l N_il exp(S[l, k_i])    attention of sample i to token j, its copies together

Legend: n samples, K tokens in the vocabulary, d width, M distinct tokens of all sequences together.
"""

import numpy as np

from minitx.base.parallel import matmul
from minitx.model.parameters import read_only
from minitx.model.weights import LastTokenWeights
from minitx.next_token import kernels

LOSSES = ("log", "square", "tied")


# ------------------------------------------------------------------------------------------------ losses and gradients


def loss_and_gradient(weights, samples, loss="log"):
    """Mean loss over the samples that were given, and its gradient with respect to W, by counts (paper, Section 2).

    ``log``: -log P_y (what :func:`minitx.loss_and_gradient` computes on ``samples.batch()``). ``square``: (1 - P_y)^2. ``tied``:
    (1 - softmax(E E^T P)_y)^2, the embeddings being the head too. Small values keep their digits at any margin: no difference
    of numbers that agree is taken.

    Parameters
    ----------
    weights : LastTokenWeights
        Without C: these losses have the identity head, or E.
    samples : Samples
    loss : {"log", "square", "tied"}

    Returns
    -------
    loss : float
    gradient : LastTokenWeights
        dL/dW (d, d), oriented as W; E and C absent.

    Raises
    ------
    ValueError
        An unknown loss; a head C; another vocabulary; weights that are not finite.
    TypeError
        Complex weights.
    FloatingPointError
        Scores that overflow although the weights are finite.
    """
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; it must be one of {', '.join(LOSSES)}")
    scores = _scores(weights, samples)
    P = _attention(scores, samples)
    dscore, losses = np.empty_like(P), np.empty(len(samples))
    if loss == "log":
        kernels.last_log(samples.last, samples.starts, samples.tokens, samples.counts, samples.label_at, scores, P, dscore, losses)
    elif loss == "square":
        kernels.last_square(samples.starts, samples.label_at, P, dscore, losses)
    else:
        E = np.eye(samples.n_vocab) if weights.E is None else weights.E
        gram = matmul(E, E.T).astype(np.float64, copy=False)
        kernels.last_tied(samples.starts, samples.tokens, samples.label_at, gram, P, dscore, losses)
    d_scores = np.zeros_like(scores)
    kernels.add_last_scores(samples.last, samples.starts, samples.tokens, samples.share, dscore, d_scores)
    dW = from_scores(d_scores, weights.E).astype(weights.W.dtype, copy=False)
    return float(np.sum(samples.share * losses)), LastTokenWeights(dW)


def attention(weights, samples):
    """Attention of each sample's last token to each of its distinct tokens, in the layout of ``samples.tokens``. (M,) float64"""
    return _attention(_scores(weights, samples), samples)


def context_attention(weights, contexts):
    """Attention of the last token of each context, copies of a token together. (n contexts, K)

    ``contexts``: sequences of token ids below K; they need no label. ``weights``: LastTokenWeights.
    """
    scores = weights.circuits().qk  # row = last token
    found = np.zeros((len(contexts), len(scores)))
    for row, context in zip(found, contexts, strict=True):
        tokens, counts = np.unique(context, return_counts=True)
        score = scores[context[-1], tokens]
        mass = counts * np.exp(score - score.max())
        row[tokens] = mass / mass.sum()
    return found


def to_scores(W, E):
    """S = E W E^T (K, K): row = attended token, column = last token. ``E`` None: one-hot, S = W."""
    return W if E is None else matmul(matmul(E, W), E.T)


def from_scores(d_scores, E):
    """dL/dW = E^T dL/dS E (d, d) from dL/dS, both oriented as in :func:`to_scores`."""
    return d_scores if E is None else matmul(matmul(E.T, d_scores), E)


def _scores(weights, samples):
    """S of checked weights."""
    if weights.C is not None:
        raise ValueError("the weights have a head C, but the losses by counts have the identity head, or E; "
                         "leave C out, or use minitx.loss_and_gradient(weights, samples.batch())")
    if weights.n_vocab != samples.n_vocab:
        raise ValueError(f"the weights are for {weights.n_vocab} tokens, the samples for {samples.n_vocab}; give both one n_vocab")
    if weights.W.dtype.kind == "c":
        raise TypeError("the weights are complex, but the losses by counts are of real ones; for a complex step use "
                        "minitx.model.testing.check_gradient(weights, samples.batch())")
    with np.errstate(over="ignore", invalid="ignore"):  # found in the next line
        scores = read_only(np.ascontiguousarray(to_scores(weights.W, weights.E), np.float64))
    if not np.isfinite(scores.sum()) and not np.isfinite(scores).all():
        if broken := weights.not_finite():
            raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
        raise FloatingPointError("the scores E W E^T overflow, though the weights are finite; use smaller weights or steps")
    return scores


def _attention(scores, samples):
    P = np.empty(len(samples.tokens))
    kernels.last_attention(samples.last, samples.starts, samples.tokens, samples.counts, scores, P)
    return P
