"""The exact gradient split into named terms that sum to it, and when each correction exceeds the leading term.

The gradient of one layer, with the residual r_t = dL/dout_t = w_t (softmax(out_t) - onehot(y_t)), is

    1  A_tj   = softmax over j <= t of qk[x_t, x_j] + position[t - j]
    2  r_t    = w_t (softmax(out_t) - onehot(y_t)),  out_t = direct[x_t, :] + sum_j A_tj ov[x_j, :]
    3  d_direct[x_t, :] += r_t,    d_ov[x_j, :] += A_tj r_t
    4  dA_tj  = r_t . ov[x_j, :]
    5  dscore_tj = A_tj (dA_tj - sum_k A_tk dA_tk),    d_qk[x_t, x_j] += dscore_tj,    d_position[t - j] += dscore_tj
    6  dL/dW_O = d_direct + V^T d_ov,    dL/dV = d_ov W_O^T,    dL/dW = d_qk,    dL/dP = d_position

The reference point has a uniform output, r0_t = w_t (1/V - onehot(y_t)), uniform attention A0 over the prefix, and the
leading terms of the weights. Every factor is written as its value there and the rest,

    r = r0 + (r - r0),    A = A0 + (A - A0),    weight = its leading term + the rest,

and the products are expanded. A term is named after the rests that it holds: ``saturation`` (the output is no longer
uniform), ``attention drift`` and ``weight drift``, joined by `` x ``. The term that holds none of them is ``leading``.

Legend: V vocabulary; of a block of S sequences: M loss positions, U distinct tokens.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import ceil, exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.associations import term_kernels
from minitx.associations.basis import bigram, bigram_counts, context
from minitx.associations.layer_terms import layered_gradient_terms
from minitx.associations.term_names import term_name, term_order
from minitx.base.checks import described, instance, whole_number
from minitx.base.numbers import norm, projection
from minitx.base.parallel import matmul, panels, products, together, workers
from minitx.base.tables import number, table
from minitx.data.batch import Batch
from minitx.model.circuits import Circuits, blocks_and_workspace, tables_of, valid_circuits
from minitx.model.layers import LayeredWeights
from minitx.model.parameters import read_only
from minitx.model.pieces import Pieces, add_pieces
from minitx.model.weights import OneHotWeights

# The terms of each table that are summed over the blocks are told apart by which of the factors they hold: d_ov has no
# weight in it, d_direct no attention either. The leading terms of these two, which hold none, are lookups (basis.py).
HELD = {"direct": [(True, False, False)], "ov": [(True, False, False), (False, True, False), (True, True, False)],
        **dict.fromkeys(("qk", "position"), [*itertools.product((False, True), repeat=3)])}
SHARES = (0.01, 0.1, 0.5)  # Thresholds at which a correction is visible (1%), matters (10%), dominates (50%).

Array = NDArray[np.float64]
Norms = dict[str, dict[str, float]]  # {parameter: {term: Frobenius norm}}
Crossings = dict[str, dict[str, dict[float, float | None]]]  # {parameter: {correction: {share: step, or None}}}


class Terms(dict[str, dict[str, NDArray[np.float64]]]):
    """{parameter: {term: array}}; it shows itself as the table of their Frobenius norms."""

    def __repr__(self) -> str:
        return norms_table(term_norms(self))


def gradient_terms(weights: OneHotWeights | LayeredWeights | Circuits, batch: Batch, *,
                   leading: OneHotWeights | Circuits | None = None) -> Terms:
    """Split dL/dweights into named terms (float64, at the values of ``weights``).

    Parameters
    ----------
    weights : OneHotWeights, LayeredWeights or Circuits
        Of Circuits, the terms of the tables that are present. Several layers are split by
        :mod:`minitx.associations.layer_terms`.
    batch : Batch
        Next-token training: causal attention, cross-entropy.
    leading : OneHotWeights or Circuits, as the weights, optional
        The leading terms of the weights, from which ``weight drift`` is measured; only W_O and V, or ov, are read. By
        default they are the multiples of B and of Phi^T B^T nearest to W_O and V, or the multiple of Phi^T nearest to
        ov, which need neither a step count nor a learning rate.

    Returns
    -------
    Terms : dict {parameter: {term: array}}
        Each array in the orientation of its parameter; of several layers, the parameters are ``W_O``, ``V 1``, ``W 1``,
        ``P 1``, ``V 2``, ... For every parameter the terms sum to the gradient of
        ``loss_and_gradient``. ``weight drift`` is the drift of W_O in dL/dV, that of V W_O (or ov) in dL/dW and dL/dP
        (dL/dqk and dL/dposition), and that of V, whose reference value is 0, in dL/dW_O.

    Raises
    ------
    ValueError, TypeError
        As :func:`minitx.loss_and_gradient`, and for weights or batches that the theory is not about.

    Notes
    -----
    ``leading`` of W_O is minus the bigram function; with the leading weights of Im et al. (2026), proof of Thm. D.7,
    those of V, W, P are multiples of minus Phi^T B^T, Q and Delta. Memory: about 35 V x V arrays.
    """
    instance("weights", weights, OneHotWeights, LayeredWeights, Circuits)
    instance("batch", batch, Batch)
    if isinstance(weights, LayeredWeights):
        return Terms(layered_gradient_terms(weights, batch, leading=leading))
    batch.require_next_token()
    weights = weights.astype(np.float64)
    circuits = valid_circuits(weights, batch)
    B, Phi, at = reference_point(weights, batch, leading)
    if isinstance(weights, Circuits):
        return _terms_of_tables(circuits, batch, B, Phi, at.ov)
    ov_leading = matmul(at.V, at.W_O)
    # 1 to 5
    tables = _circuit_terms(circuits, batch, B, Phi, (ov_leading, circuits.ov - ov_leading))
    # 6
    terms = {weight: {term_name(*held): term for held, term in tables[table].items()}
             for weight, table in (("W_O", "direct"), ("W", "qk"), ("P", "position"))} | {"V": {}}
    W_O_rest = weights.W_O - at.W_O
    for (saturation, drift, _), d_ov in tables["ov"].items():
        of_W_O, of_V, of_V_rest = products((weights.V.T, d_ov), (d_ov, at.W_O.T), (d_ov, W_O_rest.T))
        terms["W_O"][term_name(saturation, drift, True)] = of_W_O
        terms["V"] |= {term_name(saturation, drift, False): of_V, term_name(saturation, drift, True): of_V_rest}
    return Terms({name: terms[name] for name in weights.parameters()})


def reference_point(weights: OneHotWeights | Circuits, batch: Batch, leading: Any) -> tuple[Array, Array, Any]:
    """B and Phi of ``batch``, and the leading terms of ``weights``: ``leading`` if given, else the nearest multiples.

    Raises TypeError or ValueError unless ``leading`` are finite leading terms of the ``weights``, or None.
    """
    if leading is not None:
        instance("leading", leading, type(weights))
        read = ("ov",) if isinstance(weights, Circuits) else ("W_O", "V")
        if any(np.shape(getattr(leading, name)) != np.shape(getattr(weights, name)) for name in read) \
                or leading.not_finite():
            raise ValueError("leading must be finite and of the same vocabulary as the weights, as the leading terms "
                             "from minitx.associations.leading_weights are")
    n_vocab = len(weights.ov if isinstance(weights, Circuits) else weights.W_O)
    pairs, B, Phi = _statistics(batch, n_vocab)
    if leading is not None:
        return B, Phi, leading
    if isinstance(weights, Circuits):
        return B, Phi, replace(weights, ov=projection(weights.ov, Phi.T))
    return B, Phi, replace(weights, W_O=projection(weights.W_O, B), V=projection(weights.V, (pairs @ Phi).T))


@lru_cache(maxsize=1)
def _statistics(batch, n_vocab):
    """The pairs of ``batch``, B and Phi.

    Those of the last batch are kept, because the gradient is split at several steps of a descent.
    """
    pairs, alpha = bigram_counts(batch, n_vocab)
    return pairs, read_only(bigram(pairs, alpha, n_vocab)), read_only(context(batch, n_vocab)[0])


def _terms_of_tables(circuits, batch, B, Phi, ov_leading):
    """The terms of the tables themselves, and of the bias; an absent table has none, and counts as 0."""
    zeros = np.zeros_like(circuits.ov)
    absent = {"direct": zeros, "qk": zeros, "position": np.zeros(batch.tokens.shape[1])}
    whole = replace(circuits, **{name: zero for name, zero in absent.items() if getattr(circuits, name) is None})
    tables = _circuit_terms(whole, batch, B, Phi, (ov_leading, circuits.ov - ov_leading))
    tables["bias"] = {held: term.sum(axis=0) for held, term in tables["direct"].items()}  # d_bias = sum_t r_t
    return Terms({name: {term_name(*held): term for held, term in tables[name].items()}
                  for name in circuits.parameters()})


def _circuit_terms(circuits, batch, B, Phi, ov_parts):
    """{table: {factors held: term of its gradient}}. ``ov_parts``: the leading term of ov, and the rest."""
    terms = {name: {held: np.zeros_like(circuits.ov) for held in HELD[name]} for name in ("direct", "ov")}
    scored = {name: np.zeros((*getattr(circuits, name).shape, term_kernels.N_SCORED)) for name in ("qk", "position")}
    level = np.zeros(circuits.n_vocab)  # what the part 1/V of r0 adds to every entry of a row of ov's attention drift
    cut, workspace = blocks_and_workspace(batch, circuits.n_vocab, circuits.ov.dtype)
    parts = np.array(ov_parts)
    ov_parts = parts, parts.mean(axis=2)

    def add(computed):
        block, (C_rest, G, D, D_rest, dscore) = computed
        direct, ov = terms["direct"], terms["ov"]
        add_pieces(block, Pieces(G=G, D=D), {"direct": direct[True, False, False], "ov": ov[True, False, False]})
        add_pieces(block, Pieces(D=D_rest), {"ov": ov[True, True, False]})
        term_kernels.add_uniform_residual(C_rest, block.n_queries, block.words, block.seen_and_since[0], block.targets,
                                          block.weight, level, ov[False, True, False])
        term_kernels.add_slopes_of_scores(dscore, block.current, block.n_queries, block.keys, block.queries, **scored)

    with workers(len(cut)) as run:
        run.in_turn(lambda block: (block, _block_terms(circuits, block, ov_parts, workspace)), add, cut)
    terms["ov"][False, True, False] += level[:, None]
    for name, direction in {"direct": B, "ov": Phi.T}.items():
        terms[name] = {(False, False, False): -direction} | terms[name]
    for name, entries in scored.items():
        found = _taken_apart(entries)
        terms[name] = {(saturation, drift, rest): found[4 * drift + 2 * saturation + rest]
                       for saturation, drift, rest in HELD[name]}
    return terms


def _taken_apart(table):
    """The tables, each in memory of its own, whose entries lie next to each other along the last axis of ``table``."""
    found = [np.empty(table.shape[:-1]) for _ in range(term_kernels.N_SCORED)]

    def of_rows(rows):
        term_kernels.take_apart(table[rows], tuple(one[rows] for one in found))

    together(*(partial(of_rows, rows) for rows in panels(len(table))))
    return found


def _block_terms(circuits, block, ov_parts, workspace):
    """The sums of a block's terms, as :func:`minitx.associations.term_kernels.terms_of_block` finds them.

    Products with r0_t = w_t (1/V - onehot(y_t)) are means and lookups; only those with r - r0 are products of matrices.
    """
    (n, n_words), (_, n_queries), V = block.words.shape, block.queries.shape, circuits.n_vocab
    shapes = {"C_rest": (n, n_queries, n_words), "G": (n, n_words, V), "D": (n, n_words, V), "D_rest": (n, n_words, V),
              "dscore": (n, n_queries, block.keys.shape[1], term_kernels.N_SCORED)}
    found = tuple(workspace.array(name, shape, np.float64) for name, shape in shapes.items())
    term_kernels.terms_of_block(block.sequences, block.distinct, tables_of(circuits), (block.targets, block.weight),
                                ov_parts, found)
    return found


# ------------------------------------------------------------------------------------- sizes of the terms over training


def term_norms(terms: dict[str, dict[str, NDArray[np.float64]]]) -> Norms:
    """Frobenius norm of every term of :func:`gradient_terms`."""
    norms = iter(together(*(partial(norm, term) for split in terms.values() for term in split.values())))
    return {parameter: {name: next(norms) for name in split} for parameter, split in terms.items()}


def norms_table(norms: Norms) -> str:
    """The table of :func:`term_norms`: a row a term, a column a parameter."""
    names = sorted({name for parts in norms.values() for name in parts}, key=term_order)
    return table(["term ", *norms], [[name, *(f"{parts[name]:.3e}" if name in parts else number(None)
                                              for parts in norms.values())] for name in names])


def by_term(records: Sequence[Norms]) -> dict[str, dict[str, list[float]]]:
    """The norms at several steps by term: a list of :func:`term_norms` becomes {parameter: {term: [norm, ...]}}."""
    return {parameter: {term: [norms[parameter][term] for norms in records] for term in terms}
            for parameter, terms in (records[0] if records else {}).items()}


def first_exceeds(steps: Iterable[int], norms: Mapping[str, Mapping[str, Sequence[float]]]) -> Crossings:
    """When each correction first exceeds each of SHARES of the leading term: {parameter: {correction: {share: step}}}.

    ``norms`` is {parameter: {term: (R,) float}}, the norms of the terms of :func:`gradient_terms` at R ``steps``, as
    from :func:`by_term`. A step that is found is a float between the last of ``steps`` below the share and the first
    above it, by interpolating the ratio to the leading term as a power of the step. It is None if the correction never
    exceeds the share.

    Raises
    ------
    ValueError
        Steps that do not ascend from 1, or norms that are not one a step.
    """
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise TypeError(f"steps is {described(steps)}; it must be a list of steps")
    if not isinstance(norms, Mapping):
        raise TypeError(f"norms is {described(norms)}; it must be a dict {{parameter: {{term: norms}}}}, from by_term")
    steps = [whole_number("a step", step, 1) for step in steps]
    if any(a >= b for a, b in itertools.pairwise([0, *steps])):
        raise ValueError(f"steps must ascend, from 1 on; got {steps}")
    found = {}
    for parameter, terms in norms.items():
        if "leading" not in terms or any(len(values) != len(steps) for values in terms.values()):
            raise ValueError(f"{parameter}: give one norm of every term for each of the {len(steps)} steps")
        found[parameter] = {name: {share: _crossing(steps, values, share, terms["leading"]) for share in SHARES}
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


def exceeds_table(crossings: Crossings) -> str:
    """The table of :func:`first_exceeds`: a row a correction, and for each parameter a column a share."""
    names = sorted({name for found in crossings.values() for name in found}, key=term_order)
    heads = [f"{parameter} {share:.0%}" if share == SHARES[0] else f"{share:.0%}"
             for parameter in crossings for share in SHARES]

    def cell(found, name, share):
        if name not in found:
            return ""
        if (step := found[name][share]) is None:
            return f"{number(None)} "
        return f"{ceil(step)}{'*' if step == min(at[share] for at in found.values() if at[share]) else ' '}"

    return table(["correction ", *heads],
                 [[name, *(cell(found, name, share) for found in crossings.values() for share in SHARES)]
                  for name in names])
