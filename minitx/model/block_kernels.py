"""The kernel of a training step: a block's sequences pass through all steps one at a time.

What the steps of a sequence hand to each other then stays in a core's second cache, which a whole block does not fit,
and a block is a single call: threads do not wait for each other's Python. Every step is a kernel of blocks, which is
given a block of one sequence. The numbers of the steps are those of the room's account (``help(minitx.model)``).

Legend: S sequences of a block, T keys, V vocabulary; of each sequence: M queries, U words (distinct tokens).
"""

import numpy as np

from minitx.base.compiling import ordered_kernel, part_of_kernel
from minitx.model.kernels import attention_forward, cross_entropy, fold, slopes_of_scores, squared, sum_by_word
from minitx.model.product_kernels import outputs, row_slopes, word_slopes


@ordered_kernel
def forward_and_backward(is_squared, sequences, distinct, tables, answers, found):
    """Losses of a block's queries (S, M), which must be 0 before, and what the block adds to the slopes of the tables.

    ``sequences``, ``distinct`` and ``answers`` are those of a Block, ``tables`` the circuits (direct, ov, qk, position,
    bias), of which any but ov may be absent (empty). found = (losses, G, D, dscore), where G and D, (S, U, V), and
    dscore, (S, M, T), are those of Pieces. An empty G or dscore is not asked for; D is found together with G.
    """
    keys, n_keys, mass, queries, n_queries, causal, current = sequences
    slots, words, seen, since = distinct
    direct, ov, qk, position, bias = tables
    targets, weight, begin, total, kind = answers
    losses, G, D, dscore = found
    R = np.empty((1, queries.shape[1], ov.shape[1]), ov.dtype)
    for s in range(len(keys)):
        one, scale = slice(s, s + 1), np.zeros((1, queries.shape[1]), ov.dtype)
        # 1  A_tj = softmax_j(qk[x_t, x_j] + position[t - j])
        A = attention_forward(keys[one], n_keys[one], mass[one], queries[one], n_queries[one], causal, qk, position)
        # 2  C_tu = sum of A_tj over the keys j of token u
        C = fold(A, slots[one], words.shape[1])
        # 3  out_t = sum_u C_tu ov[u, :] + direct[x_t, :] + bias
        outputs(C, words[one], seen[one], ov, direct, current[one], bias, R)
        # 4  loss = sum_t weight_t head(out_t, y_t); in place, out becomes R, with dL/dout_t = scale_t R_t
        losses_of_one = losses[one]
        if is_squared:
            squared(R, targets[one], weight[one], begin[one], total[one], kind[one], scale, losses_of_one)
        else:
            cross_entropy(R, targets[one], weight[one], begin[one], total[one], kind[one], scale, losses_of_one)
        if G.size > 0:
            backward(A, C, slots[one], words[one], seen[one], since[one], queries[one], n_queries[one], causal, ov, R,
                     scale, G[one], D[one], dscore[one])


@part_of_kernel
def backward(A, C, slots, words, seen, since, queries, n_queries, causal, ov, R, scale, G, D, dscore):
    """G, D and dscore of dL/dout_t = scale_t R_t: steps 4 to 1 in reverse. Overwrites C. An empty dscore stays so."""
    # 4  direct and bias take dout_t as it is
    sum_by_word(R, scale, n_queries, slots, queries, G)
    # 2, 1  C_tu = sum of A_tj,  A_tj = softmax_j(score_tj):  dscore_tj = A_tj (dC_tj - sum_k A_tk dC_tk)
    if dscore.size > 0:
        dC = row_slopes(R, words, seen, ov)  # 3  dC_tu = dout_t . ov[u, :], without the scale
        slopes_of_scores(A, dC, scale, slots, queries, causal, dscore)
    # 3  out_t = sum_u C_tu ov[u, :]:  D_u = sum_t C_tu dout_t
    for s in range(C.shape[0]):
        for m in range(C.shape[1]):
            for u in range(C.shape[2]):
                C[s, m, u] *= scale[s, m]
    word_slopes(C, since, R, D)
