"""The regularisation path of the log loss in the whole space of W: what weight decay of every strength leaves.

    W(lam) = argmin of L(W) + lam |W|^2 / 2 over all W                                                   ridge_path

As lam falls to 0, W(lam) / |W(lam)| tends to W_svm / |W_svm| and its part in S_fin to W_fin (Li, Huang, Ildiz, Rawat,
Oymak, AISTATS 2024, Section 3, with a ball |W| <= R in the place of lam). Nothing is told about SCCs here, unlike for
the path outside S_fin (:mod:`minitx.next_token.path`), which W(lam) approaches: at its stationary point lam V equals
-grad e = -e grad log e, so that tau = e / lam.

Legend: K tokens in the vocabulary, d width, r the dimension of the span of the samples' rows (e_j - e_y) e_k'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minitx.base.checks import instance, positives
from minitx.base.numbers import minimise
from minitx.base.parallel import one_blas_thread
from minitx.next_token.pairs import Pairs
from minitx.next_token.rank_one import embeddings
from minitx.next_token.samples import Samples


def ridge_path(samples: Samples, strengths: Iterable[float], E: ArrayLike | None = None
               ) -> Iterator[NDArray[np.float64]]:
    """W(lam) (d, d) for each lam of ``strengths``; the search for each begins where the last one ended.

    Row = dimension of the attended token, column = of the last token. The strengths lam > 0 descend; factors of 2 to 10
    are easy steps. ``E`` (K, d) are embeddings, row = token (default: one-hot). The loss L is flat where attention has
    settled, so that W(lam) is exact to about 1e-16 / lam. Raises ValueError for a strength that is not above 0.
    """
    instance("samples", samples, Samples)
    E = np.eye(samples.n_vocab) if E is None else embeddings(E, samples.n_vocab)
    pairs = Pairs.of_tokens(samples, E)
    x = np.zeros(pairs.dim)
    for strength in positives("strength", strengths):
        x = ridge_point(pairs, strength, x)
        yield pairs.matrix(x)


@one_blas_thread()
def ridge_point(pairs: Pairs, strength: float, x: NDArray) -> NDArray[np.float64]:
    """Coordinates (r,) of argmin of e + ``strength`` |W|^2 / 2; the search begins at ``x`` (r,)."""
    if x.size == 0:
        return x
    own = float(np.ldexp(strength, -4 * pairs.power))  # in the units of the pairs
    return minimise(lambda x: pairs.ridge(x, own), x)[0]
