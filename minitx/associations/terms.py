"""The exact gradient split into named terms that sum to it.

With rho0 = onehot(y) - 1/V (output uniform), A0 (attention uniform) and the leading weights as the reference point, write

    rho = rho0 + (rho - rho0),    A = A0 + (A - A0),    weight = its leading term + the rest

wherever they enter the gradient, and expand. A term is named after the second parts it holds: ``saturation`` (the output is no
longer uniform), ``attention drift``, ``weight drift``, joined by `` x ``; with none of them it is ``leading``.

Legend: V vocabulary; of a block of S sequences: M loss positions, U distinct tokens.
"""

import itertools
from math import exp, log

import numpy as np

from minitx.associations import basis as reference
from minitx.base.parallel import matmul, workers
from minitx.model.blocks import blocks, waves
from minitx.model.circuits import exp_shifted, output, through_softmax, valid_circuits
from minitx.model.pieces import Pieces, add_pieces
from minitx.model.weights import OneHotWeights

FACTORS = ("saturation", "attention drift", "weight drift")
# which factors a term of dL/d ov, and of dL/d qk and dL/d position, holds; the leading ones are lookups (reference.py)
OV_KEYS = [(True, False), (False, True), (True, True)]
SHARES = (0.01, 0.1, 0.5)  # of the leading term; a correction above them begins to show, to count, to rule
SCORE_KEYS = [key for key in itertools.product((False, True), repeat=3) if any(key)]


def term_name(saturation, attention_drift, weight_drift):
    """Name of the term that holds these factors (booleans)."""
    present = (saturation, attention_drift, weight_drift)
    return " x ".join(name for name, here in zip(FACTORS, present, strict=True) if here) or "leading"


def gradient_terms(weights, batch, *, leading=None):
    """Split dL/dweights into named terms (float64, at the values of ``weights``).

    Parameters
    ----------
    weights : OneHotWeights
    batch : Batch
        Causal, cross-entropy.
    leading : OneHotWeights, optional
        The leading terms of the weights, from which ``weight drift`` is measured: only W_O and V are read. Default: the multiples
        of B and of Phi^T B^T nearest to W_O and V, which need neither a step count nor a learning rate.

    Returns
    -------
    dict {parameter: {term: array}}
        Each array in its parameter's orientation. For every parameter the terms sum to ``loss_and_gradient``'s gradient. The chain
        rule brings W_O into dL/dV (one factor), V W_O into dL/dW and dL/dP, and V (whose reference value is 0) into dL/dW_O.

    Raises
    ------
    ValueError, TypeError
        As for :func:`minitx.loss_and_gradient`; weights of another parametrisation; batches that are not next-token training.

    Notes
    -----
    ``leading`` of W_O is minus the bigram function; with W_O = s eta B and V = C(s,2) eta^2 Phi^T B^T, those of V, W, P are
    multiples of minus Phi^T B^T, Q and Delta (Im et al. 2026, proof of Thm. D.7). Memory: about thirty V x V arrays.
    """
    if not isinstance(weights, OneHotWeights):
        raise TypeError(f"gradient_terms splits the gradient of OneHotWeights, got {type(weights).__name__}")
    batch.require_next_token()
    weights = weights.astype(np.float64)
    circuits = valid_circuits(weights, batch)
    n_vocab = circuits.n_vocab
    pairs, alpha = reference.bigram_counts(batch, n_vocab)
    B = reference.bigram(pairs, alpha)
    Phi, _ = reference.context(batch, n_vocab)
    if leading is None:
        W_O_leading, V_leading = _nearest_multiple(weights.W_O, B), _nearest_multiple(weights.V, (pairs @ Phi).T)
    else:
        _require_like(weights, leading)
        W_O_leading, V_leading = leading.W_O, leading.V
    ov_leading = matmul(V_leading, W_O_leading)
    direct, ov, qk, position = _circuit_terms(circuits, batch, Phi, (ov_leading, circuits.ov - ov_leading))

    terms = {"W_O": {"leading": -B, "saturation": direct}, "V": {}, "W": qk, "P": position}
    W_O_rest = weights.W_O - W_O_leading
    for (saturation, drift), table in ov.items():
        terms["W_O"][term_name(saturation, drift, True)] = matmul(weights.V.T, table)
        terms["V"][term_name(saturation, drift, False)] = matmul(table, W_O_leading.T)
        terms["V"][term_name(saturation, drift, True)] = matmul(table, W_O_rest.T)
    return terms


def _require_like(weights, leading):
    if not isinstance(leading, OneHotWeights) or leading.W_O.shape != weights.W_O.shape or leading.not_finite():
        raise ValueError("leading must be finite OneHotWeights of the same vocabulary as the weights, as from "
                         "minitx.associations.leading_weights")


def _nearest_multiple(matrix, direction):
    """The multiple of ``direction`` nearest to ``matrix``."""
    square = np.sum(direction * direction)
    return direction * (np.sum(matrix * direction) / square if square else 0.0)


def first_exceeds(steps, norms, *, shares=SHARES):
    """When each correction first exceeds a share of the leading term.

    Parameters
    ----------
    steps : (R,) int
        At which the gradient was split, ascending, from 1 on.
    norms : dict {parameter: {term: (R,) float}}
        Of the terms of :func:`gradient_terms`, ``leading`` among them.
    shares : iterable of float
        Of the norm of the leading term.

    Returns
    -------
    dict {parameter: {correction: {share: step}}}
        A float, between the last of ``steps`` below the share and the first above it, read off the power of the step that joins
        them; None if the correction never exceeds the share.

    Raises
    ------
    ValueError
        Steps that do not ascend from 1, or norms that are not one a step.
    """
    steps, shares = list(map(int, steps)), tuple(shares)
    if any(a >= b for a, b in itertools.pairwise([0, *steps])):
        raise ValueError(f"steps must ascend, from 1 on; got {steps}")
    found = {}
    for parameter, terms in norms.items():
        if any(len(values) != len(steps) for values in terms.values()):
            raise ValueError(f"{parameter}: give one norm of every term for each of the {len(steps)} steps")
        found[parameter] = {name: {share: _crossing(steps, values, share, terms["leading"]) for share in shares}
                            for name, values in terms.items() if name != "leading"}
    return found


def _crossing(steps, values, share, leading):
    """Where ``values`` first exceed ``share`` times ``leading``; None: nowhere."""
    for index, (step, value, limit) in enumerate(zip(steps, values, leading, strict=True)):
        limit *= share
        if value > limit:
            before, below = (values[index - 1], share * leading[index - 1]) if index else (0, 0)
            if before > 0 and limit > 0:  # then below > 0
                left, right = log(before / below), log(value / limit)  # left <= 0 < right
                return steps[index - 1] * exp(log(step / steps[index - 1]) * left / (left - right))
            return float(step)
    return None


def _circuit_terms(circuits, batch, Phi, ov_parts):
    """Terms of dL/d table.

    Returns the saturation term of ``direct``; {(saturation, attention drift): table} of ``ov``; and {term: table} of ``qk`` and of
    ``position``. The leading ones come from the reference point's lookups, the others from one pass over the blocks.
    """
    zeros = {name: np.zeros_like(table) for name, table in circuits.parameters().items()}
    ov_tables = [{name: zeros[name].copy() for name in (("ov", "direct") if key == (True, False) else ("ov",))} for key in OV_KEYS]
    score_tables = [{name: zeros[name].copy() for name in ("qk", "position")} for _ in SCORE_KEYS]
    cut = blocks(batch, circuits.n_vocab, circuits.ov.dtype)
    with workers(len(cut)) as run:
        for wave in waves(cut):
            terms = run(lambda block: _block_terms(circuits, block, ov_parts), wave)
            add_pieces(run, [(block, pieces, tables) for block, found in zip(wave, terms, strict=True)
                             for pieces, tables in zip(found, ov_tables + score_tables, strict=True)])

    leading_qk, leading_position = reference.scores(batch, ov_parts[0])
    leading_position = np.pad(leading_position, (0, circuits.position.size - leading_position.size))
    ov = {(False, False): -Phi.T} | {key: table["ov"] for key, table in zip(OV_KEYS, ov_tables, strict=True)}
    qk, position = {"leading": -leading_qk}, {"leading": -leading_position}
    for key, table in zip(SCORE_KEYS, score_tables, strict=True):
        qk[term_name(*key)], position[term_name(*key)] = table["qk"], table["position"]
    return ov_tables[0]["direct"], ov, qk, position


def _block_terms(circuits, block, ov_parts):
    """Pieces of a block: one for each of OV_KEYS, then one for each of SCORE_KEYS."""
    attention, uniform = block.attend(circuits.qk, circuits.position), block.attend(None)  # A, A0
    residual = _residuals(block, output(circuits, block, attention, circuits.ov[attention.words]))
    C = {False: uniform.C, True: attention.C - uniform.C}
    pieces = {}
    for saturation, drift in OV_KEYS:
        D = np.matmul(C[drift].transpose(0, 2, 1), residual[saturation])
        pieces[saturation, drift] = Pieces(R=residual[True], scale=np.ones(block.weight.shape), D=D, words=attention.words,
                                           n_words=attention.n_words)
    for saturation, rest in ((False, False), (False, True), (True, False), (True, True)):
        dC = np.matmul(residual[saturation], ov_parts[rest][attention.words].transpose(0, 2, 1))
        at_uniform = through_softmax(uniform, dC)
        pieces[saturation, False, rest] = Pieces(dscore=at_uniform)
        pieces[saturation, True, rest] = Pieces(dscore=through_softmax(attention, dC) - at_uniform)
    return [pieces[key] for key in OV_KEYS + SCORE_KEYS]


def _residuals(block, out):
    """{False: dL/dout at uniform output, True: dL/dout minus that}, each (S, M, V). Overwrites ``out``."""
    n_vocab = out.shape[2]
    exp_shifted(block, out)
    weight = block.weight[:, :, None]
    saturation = weight * (out / out.sum(axis=2, keepdims=True) - 1 / n_vocab)
    uniform = np.broadcast_to(weight / n_vocab, out.shape).copy()
    uniform.reshape(-1, n_vocab)[np.arange(block.targets.size), block.targets.ravel()] -= block.weight.ravel()
    return {False: uniform, True: saturation}
