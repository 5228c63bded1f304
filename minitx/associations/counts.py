"""Counts that merge: the sums over a corpus from which its statistics follow, exact for any split of the corpus.

Statistics are sums over positions. Here they are summed in whole numbers, without rounding, and the weights 1 / (N T)
come in at the end. So the counts of parts, added in any order, have the same bits as the counts of the whole corpus.
Shares of a prefix, 1 / (t + 1), are whole multiples of 2^-53, and scores are whole multiples of 2^-58 of their scale.

    counts = Counts.of(part_1, n_vocab) + Counts.of(part_2, n_vocab)
    g = counts.score_table()                          # Q and Delta need the finished Sigma_B Phi: a second pass
    scores = Scores.of(part_1, g) + Scores.of(part_2, g)
    statistics = counts.finish(scores)

Legend: N windows, T positions, V vocabulary; K <= V tokens with rows and columns of their own; M = K, or K + 1 where
K < V, because the other tokens then share the last row and column.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from minitx.associations import kernels
from minitx.associations.basis import Statistics, bigram, compositions, interchangeability
from minitx.base.checks import atomic, existing_file, instance, integers, square, table_size, whole_number
from minitx.base.shown import Shown
from minitx.model import kernels as model_kernels

SHARE_BITS = 53  # Larger is more exact; smaller needs fewer carries, one for every 2^(62 - bits) positions of a row.
SCORE_BITS = 58
CHUNK = 2**21  # Positions that are counted at a time; more than a stream yields at a time.
PAIRS = 2**22  # Positions whose pairs are held until they are added: an addition copies the sparse table.


class Sums:
    """A table of exact sums: an entry is (whole + part / 2^bits), of arrays (rows, columns) int64."""

    def __init__(self, bits: int, whole: NDArray[np.int64], part: NDArray[np.int64]) -> None:
        self.bits, self.whole, self.part = bits, whole, part
        self.grown = np.ones(len(whole))  # units of 2^bits that an entry of the row may have

    @classmethod
    def zeros(cls, bits: int, *shape: int) -> "Sums":
        """Sums of nothing."""
        return cls(bits, np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    @property
    def arrays(self) -> tuple[NDArray, NDArray, NDArray]:
        """What kernels add to: whole, part and grown."""
        return self.whole, self.part, self.grown

    def carried(self) -> "Sums":
        """These sums after all carries: equal sums have equal arrays."""
        kernels.carry(self.whole, self.part, self.bits)
        self.grown[:] = 1.0
        return self

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.bits, self.whole + other.whole, self.part + other.part).carried()

    def values(self) -> NDArray[np.float64]:
        """The sums in float64, (rows, columns)."""
        values = np.multiply(self.part, 2.0**-self.bits, dtype=np.float64)
        values += self.whole
        return values


@dataclass(frozen=True, eq=False)
class Counts(Shown):
    """Raw sums over windows, of whole numbers; ``a + b`` are those of the windows of both.

    Raises
    ------
    ValueError
        On addition: the two have other vocabularies, lengths or tokens.
    """

    MADE_BY: ClassVar[str] = "Counts.of(windows, n_vocab) or Counts.load('counts.npz')"

    n_vocab: int  # V
    n_tokens: int  # K
    length: int  # T
    n_windows: int  # N
    pairs: sparse.csr_array  # (M, M) int64: row = current token, column = next token
    contexts: Sums  # (M, M): row = next token, column = token of its prefix; sums of its shares in the prefixes
    vocabulary: tuple[str, ...] = ()  # the K tokens by id, if they have names
    totals: dict[str, int] = field(default_factory=dict)  # what was read, {"documents": ..., "tokens": ...}

    @classmethod
    def of(cls, windows: Any, n_vocab: int, *, n_tokens: int | None = None,
           vocabulary: tuple[str, ...] = ()) -> "Counts":
        """Count windows.

        Parameters
        ----------
        windows : (N, T + 1) integers, or an iterator over such arrays
            Row = window: T inputs and, shifted by one, their T targets. Ids are 0 to V - 1.
        n_vocab : int
            V, at least 2.
        n_tokens : int, optional
            K, at least 2: the tokens 0 to K - 1 have rows and columns of their own, the others are counted together.
            Default: all V.
        vocabulary : tuple of str
            The words of the K ids.

        Raises
        ------
        TypeError, ValueError
            Windows that are no such array, ids that are not below V, settings out of range.
        """
        n_vocab = whole_number("n_vocab", n_vocab, 2)
        n_tokens = n_vocab if n_tokens is None else whole_number("n_tokens", n_tokens, 2, most=n_vocab)
        size = n_tokens + (n_tokens < n_vocab)
        table_size(f"counts of {n_tokens:,} tokens", size, size)
        pairs, contexts = sparse.csr_array((size, size), dtype=np.int64), Sums.zeros(SHARE_BITS, size, size)
        n_windows = length = 0
        held: list[NDArray] = []
        for chunk in _chunks(windows, n_vocab, size):
            tokens, targets, slots, words = _distinct(chunk, size)
            length, n_windows = tokens.shape[1], n_windows + len(tokens)
            kernels.count_contexts(targets, slots, words, _shares(length), SHARE_BITS, *contexts.arrays)
            held.append((np.int64(size) * tokens + targets).ravel())
            if sum(map(len, held)) >= PAIRS:
                pairs, held = pairs + _pairs(held, size), []
        if held:
            pairs += _pairs(held, size)
        return cls(n_vocab, n_tokens, length, n_windows, pairs, contexts.carried(), vocabulary)

    def __add__(self, other: "Counts") -> "Counts":
        instance("counts that are added", other, Counts)
        if not other.n_windows or not self.n_windows:  # the length of no windows is not known
            return _joined(self, other, length=self.length or other.length)
        if self.length != other.length:
            raise ValueError(f"counts of windows of {self.length} and of {other.length} positions cannot be added")
        return _joined(self, other, length=self.length)

    def finish(self, scores: "Scores | None" = None) -> Statistics:
        """The statistics of all that was counted, every position with the weight 1 / (N T).

        With K < V, the tables are those of the K tokens: blocks of the full bigram and context functions, and sums over
        tokens within products are over the K tokens. Without ``scores``, ``attention`` and ``position`` are None.

        Raises
        ------
        ValueError
            Nothing was counted; or the scores are of other counts.
        """
        pairs, alpha, Phi, share = self._weighted()
        B_Phi, _ = compositions(pairs, alpha, Phi, self.n_vocab)
        Q = Delta = None
        if scores is not None:
            instance("scores", scores, Scores)
            scores.require_of(self)
            Q, Delta = scores.finish(self.n_tokens)
        return Statistics(bigram(pairs, alpha, self.n_vocab), interchangeability(pairs, alpha, self.n_vocab), Phi,
                          B_Phi.T, Q, Delta, alpha, share, self.n_vocab)  # type: ignore[arg-type]

    def score_table(self) -> NDArray[np.float64]:
        """What :class:`Scores` sums over a second time, (M, M): g[y, a] = rho0_y . ov[a, :] with ov = Phi^T Sigma_B.

        Row = next token, column = attended token. Entries of Phi^T Sigma_B outside the K tokens count as 0.
        """
        pairs, alpha, Phi, _ = self._weighted()
        _, Sigma_B_Phi = compositions(pairs, alpha, Phi, self.n_vocab)
        mean = Sigma_B_Phi.sum(axis=0) / self.n_vocab
        Sigma_B_Phi -= mean
        k = self.n_tokens
        if k == self.n_vocab:
            return Sigma_B_Phi
        g = np.zeros(self.pairs.shape)
        g[:k, :k], g[k, :k] = Sigma_B_Phi, -mean
        return g

    def _weighted(self):
        """Pairs and frequencies as :func:`bigram_counts`, context function and shares as :func:`context`; of K tokens.
        """
        self.require_tokens()
        weight, k = 1 / (self.n_windows * self.length), self.n_tokens
        Phi = self.contexts.values()
        Phi *= weight
        share = Phi.sum(axis=0)
        Phi -= share / self.n_vocab
        pairs = self.pairs * weight
        return pairs[:k, :k], pairs.sum(axis=1)[:k], np.ascontiguousarray(Phi[:k, :k]), share[:k]

    def require_tokens(self) -> None:
        """Raise ValueError if no window was counted, or none with a token of the vocabulary."""
        if self.n_windows == 0:
            raise ValueError("no window was counted, because all documents are too short; use a smaller length")
        if self.totals.get("tokens in the vocabulary") == 0:
            raise ValueError("none of the tokens that were read is in the vocabulary; use that of such a text")

    @property
    def coverage(self) -> float:
        """The share of pairs (current token, next token) that are both among the K tokens."""
        inside = self.pairs[:self.n_tokens, :self.n_tokens].sum()
        return float(inside / max(1, self.n_windows * self.length))

    def save(self, path: str | Path, **beside: Any) -> None:
        """Write the counts to an .npz file, whole or not at all; ``beside`` is kept with them as JSON."""
        with atomic(path, "wb") as file:
            about = _json(kind="counts", n_vocab=self.n_vocab, n_tokens=self.n_tokens, length=self.length,
                          n_windows=self.n_windows, vocabulary=self.vocabulary, totals=self.totals, **beside)
            np.savez(file, about=about, data=self.pairs.data, indices=self.pairs.indices, indptr=self.pairs.indptr,
                     whole=self.contexts.whole, part=self.contexts.part)

    @classmethod
    def load(cls, path: str | Path) -> "Counts":
        """Read what :meth:`save` wrote. Raises ValueError or FileNotFoundError if the file holds or is none."""
        about, arrays = read_npz(path, "counts")
        pairs = sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=arrays["whole"].shape)
        return cls(about["n_vocab"], about["n_tokens"], about["length"], about["n_windows"], pairs,
                   Sums(SHARE_BITS, arrays["whole"], arrays["part"]), tuple(about["vocabulary"]), about["totals"])


def _joined(one, other, length):
    if (one.n_vocab, one.n_tokens, one.vocabulary) != (other.n_vocab, other.n_tokens, other.vocabulary):
        raise ValueError(f"counts of {one.n_tokens:,} of {one.n_vocab:,} tokens cannot be added to those of "
                         f"{other.n_tokens:,} of {other.n_vocab:,}; both must have the same tokens in the same order")
    totals = {name: one.totals.get(name, 0) + other.totals.get(name, 0) for name in {**one.totals, **other.totals}}
    return Counts(one.n_vocab, one.n_tokens, length, one.n_windows + other.n_windows, one.pairs + other.pairs,
                  one.contexts + other.contexts, one.vocabulary, totals)


@dataclass(frozen=True, eq=False)
class Scores(Shown):
    """Raw sums of the scores' gradient over windows, for one table ``g``; ``a + b`` are those of the windows of both.

    Raises
    ------
    ValueError
        On addition: the two are sums for other tables, or of other lengths.
    """

    MADE_BY: ClassVar[str] = "Scores.of(windows, counts.score_table()) or Scores.load('scores.npz')"

    of_table: str  # SHA-256 of g, because sums for different tables mean nothing together
    n_vocab: int  # V
    length: int  # T
    n_windows: int  # N
    scale: float  # the unit of the sums, a power of two
    attention: Sums  # (M, M): row = query (current) token, column = key (attended) token
    position: Sums  # (1, T): by distance t - j

    @classmethod
    def of(cls, windows: Any, g: NDArray[np.float64], n_vocab: int | None = None) -> "Scores":
        """Sum over windows, which are as in :meth:`Counts.of`; ``g`` is a :meth:`Counts.score_table`.

        ``n_vocab`` is V, where it is larger than the table.
        """
        g = np.ascontiguousarray(square("g", g))
        n_vocab = len(g) if n_vocab is None else whole_number("n_vocab", n_vocab, len(g))
        spread = g.max(axis=1) - g.min(axis=1)
        scale = float(2.0 ** np.frexp(spread.max())[1])
        scaled, spread = g / scale, spread / scale
        attention, position, n_windows = Sums.zeros(SCORE_BITS, *g.shape), Sums.zeros(SCORE_BITS, 1, 0), 0
        for chunk in _chunks(windows, n_vocab, len(g)):
            if n_windows == 0:
                position = Sums.zeros(SCORE_BITS, 1, chunk.shape[1] - 1)
            kernels.count_scores(*_distinct(chunk, len(g)), scaled, spread, SCORE_BITS, attention.arrays,
                                 position.arrays)
            n_windows += len(chunk)
        return cls(digest(g), n_vocab, position.whole.shape[1], n_windows, scale, attention.carried(),
                   position.carried())

    def __add__(self, other: "Scores") -> "Scores":
        instance("scores that are added", other, Scores)
        if self.of_table != other.of_table:
            raise ValueError("the scores were summed for different counts, so they cannot be added; sum both for the "
                             "same merged counts")
        if not other.n_windows or not self.n_windows:
            return self if self.n_windows else other
        if self.length != other.length:
            raise ValueError(f"scores of windows of {self.length} and of {other.length} positions cannot be added")
        return Scores(self.of_table, self.n_vocab, self.length, self.n_windows + other.n_windows, self.scale,
                      self.attention + other.attention, self.position + other.position)

    def require_of(self, counts: Counts) -> None:
        """Raise ValueError unless these are the scores of ``counts``: of its table, and of as many windows."""
        if self.of_table != digest(counts.score_table()) or self.n_windows != counts.n_windows:
            raise ValueError(f"the scores, of {self.n_windows:,} windows, are not those of these counts, of "
                             f"{counts.n_windows:,} windows; sum all windows for counts.score_table()")

    def finish(self, n_tokens: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Q (K, K) and Delta (T,), as :func:`scores`, every position with the weight 1 / (N T)."""
        weight = self.scale / (self.n_windows * self.length)
        return self.attention.values()[:n_tokens, :n_tokens] * weight, self.position.values()[0] * weight

    def save(self, path: str | Path, **beside: Any) -> None:
        """Write the scores to an .npz file, whole or not at all; ``beside`` is kept with them as JSON."""
        with atomic(path, "wb") as file:
            about = _json(kind="scores", of_table=self.of_table, n_vocab=self.n_vocab, length=self.length,
                          n_windows=self.n_windows, scale=self.scale, **beside)
            np.savez(file, about=about, whole=self.attention.whole, part=self.attention.part,
                     position_whole=self.position.whole, position_part=self.position.part)

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read what :meth:`save` wrote. Raises ValueError or FileNotFoundError if the file holds or is none."""
        about, arrays = read_npz(path, "scores")
        return cls(about["of_table"], about["n_vocab"], about["length"], about["n_windows"], about["scale"],
                   Sums(SCORE_BITS, arrays["whole"], arrays["part"]),
                   Sums(SCORE_BITS, arrays["position_whole"], arrays["position_part"]))


def read_npz(path: str | Path, kind: str | None = None) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Return what a file of counts or scores says about itself, and its arrays.

    Raises ValueError unless the file is one of this kind.
    """
    path = existing_file(path, "a file of counts, as minitx count writes")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(arrays.pop("about").tobytes())
        found = about["kind"]
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        raise ValueError(f"{path} holds no counts; give a file that minitx count wrote") from error
    if kind is not None and found != kind:
        raise ValueError(f"{path} holds {found}, but {kind} are needed")
    return about, arrays


def _json(**about):
    return np.frombuffer(json.dumps(about).encode(), np.uint8)


def digest(g: NDArray[np.float64]) -> str:
    """SHA-256 of a table."""
    return hashlib.sha256(np.ascontiguousarray(g).data).hexdigest()


def _pairs(held, size):
    """(M, M) int64, sparse: how often each target follows each token, in arrays of numbers (token M + target).

    NumPy sorts them in a third of the time in which SciPy adds up pairs.
    """
    pairs = np.sort(np.concatenate(held))
    first = np.flatnonzero(np.diff(pairs, prepend=-1))  # of each run of equal pairs
    tokens, targets = np.divmod(pairs[first], size)
    begin = np.searchsorted(tokens, np.arange(size + 1)).astype(np.int32)
    return sparse.csr_array((np.diff(first, append=pairs.size), targets.astype(np.int32), begin), shape=(size, size))


def _shares(length):
    """(T,) int64: 2^SHARE_BITS / (t + 1), rounded."""
    return np.array([(2 ** (SHARE_BITS + 1) // (t + 1) + 1) // 2 for t in range(length)], np.int64)


def _chunks(windows: Any, n_vocab: int, size: int) -> Iterator[NDArray[np.int32]]:
    """Checked windows, some at a time; ids from ``size - 1`` on become ``size - 1``."""
    given: Iterable = windows if isinstance(windows, Iterator) else [windows]
    length = None
    for array in given:
        ready = getattr(array, "dtype", None) == np.int32 and array.ndim == 2
        found = array if ready else integers("windows", array, 2)
        if found.shape[1] < 2 or length not in (None, found.shape[1]):
            raise ValueError(f"windows have shape {found.shape}; rows of one length, at least two tokens, are needed")
        length = found.shape[1]
        for first in range(0, len(found), rows := max(1, CHUNK // length)):
            chunk = found[first:first + rows]
            if chunk.min() < 0 or chunk.max() >= n_vocab:
                raise ValueError(f"windows hold ids from {chunk.min()} to {chunk.max()}, but the vocabulary has ids 0 "
                                 f"to {n_vocab - 1}")
            yield np.minimum(chunk, size - 1).astype(np.int32, copy=False)


def _distinct(chunk, size):
    """(N, T) each: tokens, targets, and slots; and (N, U): words, the distinct tokens of each window, both unsigned."""
    tokens, targets = np.ascontiguousarray(chunk[:, :-1]), np.ascontiguousarray(chunk[:, 1:])
    slots, words, n_words = model_kernels.distinct(tokens, np.full(len(tokens), tokens.shape[1], np.int32), size)
    return tokens, targets, slots.view(np.uint32), np.ascontiguousarray(words[:, :n_words.max()]).view(np.uint32)
