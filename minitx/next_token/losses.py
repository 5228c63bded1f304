"""The losses of Li, Huang, Ildiz, Rawat, Oymak (2024) for attention of the last token, and their exact gradients.

Only the last token is a query, and without positions it sees nothing but how often each token occurs: a sample is a
bag.

    S[j, k] = e_j' W e_k                                         score of token j when the last token is k
    P_ij    = N_ij exp(S[j, k_i]) / sum_l N_il exp(S[l, k_i])    attention of sample i to all copies of token j together

Legend: n samples, K tokens in the vocabulary, d width, M distinct tokens of all sequences together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import described, instance
from minitx.base.parallel import matmul
from minitx.model.parameters import read_only
from minitx.model.weights import LastTokenWeights
from minitx.next_token import kernels
from minitx.next_token.samples import Bags, Samples, require_known, token_ids

LOSSES = ("log", "square", "tied", "cross_entropy", "squared_error")
HEADED = ("cross_entropy", "squared_error")  # these may have a head C


def loss_and_gradient(weights: LastTokenWeights, samples: Samples, loss: str = "log") -> tuple[float, LastTokenWeights]:
    """Mean loss over the samples that were given, and its gradient with respect to W (paper, Section 2).

    - ``log``: -log P_y, which :func:`minitx.loss_and_gradient` computes too, on ``samples.batch()``.
    - ``square``: (1 - P_y)^2.
    - ``tied``: (1 - softmax(E E' P)_y)^2, where the embeddings are the head too.
    - ``cross_entropy``: -log softmax(C E' P)_y, a general head.
    - ``squared_error``: |C E' P - onehot(y)|^2, summed over the K outputs.

    Small losses keep their digits at any margin, because no difference of nearly equal numbers is taken. Without a C
    the output of the last two is P itself; the others have the identity or E as head, and no C. The gradient holds
    dL/dW (d, d), oriented as W; the head is fixed.

    Raises ValueError if the loss is unknown, or the weights have a C that it has no use for, or another vocabulary, or
    are not finite; TypeError if they are complex; FloatingPointError if scores or outputs of the head overflow although
    the weights are finite.
    """
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"unknown loss {described(loss)}; it must be one of {', '.join(LOSSES)}")
    scores = _scores(weights, samples, headed=loss in HEADED)
    if loss == "log":
        losses, dscore, _ = log_losses(scores, samples)
    else:
        P, losses, dscore = _attention(scores, samples), np.empty(len(samples)), np.empty(len(samples.tokens))
        if loss == "square":
            kernels.last_square(samples.starts, samples.label_at, P, dscore, losses)
        else:
            head, table = ("tied", *HEADED).index(loss), _outputs(weights, loss)
            kernels.last_head(head, samples.starts, samples.tokens, samples.label_at, table, P, dscore, losses)
    value = float(np.sum(samples.share * losses))
    if not np.isfinite(value):
        raise FloatingPointError(f"the loss is {value}: it overflows, though the weights are finite; use a smaller "
                                 "head C, or smaller embeddings")
    dW = from_scores(mean_gradient(dscore, samples, scores.shape), weights.E).astype(weights.W.dtype, copy=False)
    return value, LastTokenWeights(dW)


def log_losses(scores: NDArray, bags: Bags) -> tuple[NDArray, NDArray, NDArray]:
    """-log P_y of each sample (n,), its derivative in the score of each distinct token (M,), and P itself (M,).

    ``scores`` (K, K) float64: row = attended token, column = last token.
    """
    P, losses, dscore = _attention(scores, bags), np.empty(len(bags)), np.empty(len(bags.tokens))
    kernels.last_log(bags.last, bags.starts, bags.tokens, bags.counts, bags.label_at, scores, P, dscore, losses)
    return losses, dscore, P


def mean_gradient(dscore: NDArray, bags: Bags, shape: tuple[int, ...]) -> NDArray:
    """Gradient of the mean loss in the scores, which have ``shape`` (K, K), from the derivatives ``dscore`` (M,)."""
    d_scores = np.zeros(shape)
    kernels.add_last_scores(bags.last, bags.starts, bags.tokens, bags.share, dscore, d_scores)
    return d_scores


def attention(weights: LastTokenWeights, samples: Samples) -> NDArray[np.float64]:
    """Attention of each sample's last token to its distinct tokens, in the layout of ``samples.tokens``. (M,)"""
    return _attention(_scores(weights, samples), samples)


def context_attention(weights: LastTokenWeights, contexts: Sequence) -> NDArray[np.float64]:
    """Attention of the last token of each context to each token of the vocabulary. (n contexts, K)

    ``contexts`` are sequences of token ids below K; they need no label.
    """
    instance("weights", weights, LastTokenWeights)
    if isinstance(contexts, str) or not isinstance(contexts, Iterable):
        raise TypeError(f"contexts are {described(contexts)}; they must be a list of sequences of token ids")
    contexts = [token_ids(f"context {i}", context) for i, context in enumerate(contexts)]
    for i, context in enumerate(contexts):
        require_known(f"context {i} holds", context, weights.n_vocab)
    scores = to_scores(weights.W, weights.E).T  # row = last token
    found = np.zeros((len(contexts), len(scores)))
    for row, context in zip(found, contexts, strict=True):
        tokens, counts = np.unique(context, return_counts=True)
        row[tokens] = attention_by_counts(counts, scores[context[-1], tokens])
    return found


def attention_by_counts(counts: NDArray, score: NDArray) -> NDArray[np.float64]:
    """``counts * exp(score)`` over its sum: attention to the tokens of one bag."""
    mass = counts * np.exp(score - score.max())
    return mass / mass.sum()


def to_scores(W: NDArray, E: NDArray | None) -> NDArray:
    """S = E W E' (K, K): row = attended token, column = last token. ``E`` None: one-hot, S = W."""
    return W if E is None else matmul(matmul(E, W), E.T)


def from_scores(d_scores: NDArray, E: NDArray | None) -> NDArray:
    """dL/dW = E' dL/dS E (d, d) from dL/dS, both oriented as in :func:`to_scores`."""
    return d_scores if E is None else matmul(matmul(E.T, d_scores), E)


def _outputs(weights, loss):
    """(K, K) float64: row = attended token, column = output token: E C', or E E' for ``tied``."""
    E = np.eye(weights.n_vocab) if weights.E is None else weights.E
    if loss != "tied" and weights.C is None:
        return np.eye(weights.n_vocab)
    with np.errstate(over="ignore", invalid="ignore"):  # the next line finds it
        table = matmul(E, E.T if loss == "tied" else weights.C.T).astype(np.float64, copy=False)
    _require_finite("the outputs E C^T", table, weights)
    return table


def _scores(weights, samples, headed=False):
    """S of checked weights; ``headed``: they may have a head C."""
    instance("weights", weights, LastTokenWeights)
    instance("samples", samples, Samples)
    if weights.C is not None and not headed:
        raise ValueError(f"the weights have a head C, but only the losses {' and '.join(HEADED)} have one; "
                         "leave C out, or use minitx.loss_and_gradient(weights, samples.batch())")
    if weights.n_vocab != samples.n_vocab:
        raise ValueError(f"the weights are for {weights.n_vocab} tokens, the samples for {samples.n_vocab}; "
                         "give both one n_vocab")
    if weights.W.dtype.kind == "c":
        raise TypeError("the weights are complex, but the losses by counts are of real ones; for a complex step use "
                        "minitx.model.testing.check_gradient(weights, samples.batch())")
    with np.errstate(over="ignore", invalid="ignore"):  # the next line finds it
        scores = read_only(np.ascontiguousarray(to_scores(weights.W, weights.E), np.float64))
    _require_finite("the scores E W E^T", scores, weights)
    return scores


def _require_finite(what, table, weights):
    """ValueError for weights that are not finite, and FloatingPointError for a ``table`` of them that overflows."""
    if not np.isfinite(table.sum()) and not np.isfinite(table).all():
        if broken := weights.not_finite():
            raise ValueError(f"{', '.join(broken)}: an entry is inf or nan; start from finite weights")
        raise FloatingPointError(f"{what} overflow, though the weights are finite; use smaller weights or steps")


def _attention(scores, bags):
    P = np.empty(len(bags.tokens))
    kernels.last_attention(bags.last, bags.starts, bags.tokens, bags.counts, scores, P)
    return P
