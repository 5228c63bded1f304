"""Samples of the next-token theory: sequences and labels as counts, which is all that attention of the last token sees.

Legend: n samples, K tokens in the vocabulary, M distinct tokens of all sequences together."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minitx.base.checks import whole_number
from minitx.data.batch import Batch


@dataclass(frozen=True, eq=False)
class Samples:
    """Sequences and their labels as attention of the last token sees them (paper, Section 2). Build with ``of`` or ``prefixes``.

    Samples of the same last token, counts and label are merged, and stand in a canonical order: to give all of them twice, or in
    another order, changes no bit.

    Attributes
    ----------
    n_vocab : int
        K.
    last : (n,) int64
        k, the last token of each sequence. Ascending.
    labels : (n,) int64
        y, which occurs in its sequence.
    starts : (n + 1,) int64
        The distinct tokens of sample i are ``tokens[starts[i]:starts[i + 1]]``.
    tokens : (M,) int64
        Distinct tokens, ascending within each sample.
    counts : (M,) float64
        N_ij, how often each occurs.
    label_at : (n,) int64
        Where the labels are: ``tokens[label_at[i]] == labels[i]``.
    share : (n,) float64
        Weight of each sample in the mean over all that were given; sums to 1.
    sequences : tuple of (length,) int64 arrays
        One sequence each, in its own order (the smallest of those that were merged).
    n_given : int
        Samples before merging.
    n_left_out : int
        Prefixes that were left out, because their label does not occur in them, or is unknown.
    """

    n_vocab: int
    last: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    label_at: np.ndarray
    share: np.ndarray
    sequences: tuple
    n_given: int
    n_left_out: int = 0

    @classmethod
    def of(cls, sequences, labels, n_vocab=None):
        """Samples from sequences and their labels.

        Parameters
        ----------
        sequences : list of sequences of integers, or (n, T) integers
            Token ids; the last one of each asks.
        labels : (n,) integers
            Each must occur in its sequence.
        n_vocab : int, optional
            K. Default: 1 + the largest id.

        Raises
        ------
        ValueError
            No samples; sequences that are empty or not one-dimensional; ids that are not integers in [0, K); labels that are not n
            integers, or do not occur.
        """
        sequences = _sequences(sequences, "sample", "a sequence")
        n_vocab = _vocabulary(sequences, n_vocab, "sample")
        try:
            labels = np.asarray(labels)
        except ValueError:  # ragged
            raise ValueError("labels must be integers, one for each sequence, but some are sequences") from None
        if labels.shape != (len(sequences),):
            raise ValueError(f"{len(sequences)} sequences but labels of shape {labels.shape}; give one label for each sequence")
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers, got dtype {labels.dtype}; give ids of tokens")
        labels = labels.astype(np.int64)
        for i, (sequence, label) in enumerate(zip(sequences, labels, strict=True)):
            if label not in sequence:
                raise ValueError(f"sample {i}: label {label} does not occur in its sequence {shown(sequence)}; attention can only "
                                 "retrieve what is there: leave the sample out, or correct its label")
        return _merged(sequences, labels, n_vocab)

    @classmethod
    def prefixes(cls, texts, n_vocab=None, *, absent="omit", shortest=1, unknown=None):
        """Samples from texts: every prefix is a sequence, and its label is the token that follows.

        Parameters
        ----------
        texts : list of sequences of integers, or (N, T + 1) integers
            Token ids, such as ``Corpus.tokens``.
        n_vocab : int, optional
            K. Default: 1 + the largest id.
        absent : {"omit", "refuse"}
            What happens to a prefix in which the next token does not occur: it is left out (and counted in ``n_left_out``), or
            refused by ValueError.
        shortest : int
            Length of the shortest prefix that is used.
        unknown : int, optional
            Token that stands for many, such as a Corpus's <unk> (id 0). It is never a label, for what follows a prefix need not be
            the one of them that occurs in it: such prefixes are left out, and counted.

        Raises
        ------
        ValueError
            As for :meth:`of`; also when no prefix is left.
        """
        if absent not in ("omit", "refuse"):
            raise ValueError(f"absent is {absent!r}; it must be 'omit' or 'refuse'")
        shortest = whole_number("shortest", shortest, 1)
        texts = _sequences(texts, "text", "a text")
        n_vocab = _vocabulary(texts, n_vocab, "text")
        sequences, labels, n_left_out = [], [], 0
        for i, text in enumerate(texts):
            _, first, which = np.unique(text, return_index=True, return_inverse=True)
            known = np.full(len(text), True) if unknown is None else text != unknown
            occurs = first[which] < np.arange(len(text))
            if absent == "refuse" and not (occurs | ~known)[shortest:].all():
                t = shortest + int(np.argmin((occurs | ~known)[shortest:]))
                raise ValueError(f"text {i}: label {text[t]} does not occur in its sequence, the {t} tokens before it; "
                                 "absent='omit' leaves such samples out")
            used = shortest + np.flatnonzero((occurs & known)[shortest:])
            n_left_out += max(0, len(text) - shortest) - len(used)
            sequences += [text[:t] for t in used]
            labels.append(text[used])
        if not sequences:
            raise ValueError(f"no samples: of the {n_left_out} prefixes of {shortest} tokens or more none holds the token that "
                             "follows it; give longer texts")
        return _merged(sequences, np.concatenate(labels), n_vocab, n_left_out)

    def __len__(self):
        """n, after merging."""
        return len(self.last)

    def owner(self):
        """Number of the sample that each entry of ``tokens`` belongs to. (M,) int64"""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def batch(self):
        """The same samples for the circuits: causal, the loss -log(out[y]) of the last position only, weighted by ``share``."""
        lengths = np.array([len(sequence) for sequence in self.sequences])
        tokens = np.zeros((len(self), lengths.max()), np.int64)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(self.sequences)
        targets, weight = np.zeros_like(tokens), np.zeros(tokens.shape)
        at_last = np.arange(len(self)), lengths - 1
        targets[at_last], weight[at_last] = self.labels, self.share
        return Batch(tokens, targets, weight, lengths=lengths, causal=True, head="log")


def _sequences(given, what, a_sequence):
    """List of non-empty (length,) int64 arrays."""
    given = given if isinstance(given, np.ndarray) else list(given)
    if len(given) == 0:
        raise ValueError("no samples: give at least one sequence")
    found = []
    for i, sequence in enumerate(given):
        try:
            array = np.asarray(sequence)
        except ValueError:  # ragged within one sequence
            array = np.empty(0)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"{what} {i}: {a_sequence} must be a non-empty 1-D array of token ids, got {shown(sequence)}")
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{what} {i}: token ids must be integers, got dtype {array.dtype}")
        found.append(array.astype(np.int64))
    return found


def shown(sequence):
    """A sequence as errors show it: its beginning, if it is long."""
    text = str(sequence.tolist() if isinstance(sequence, np.ndarray) else sequence)
    return text if len(text) <= 60 else text[:57] + "..."


def _vocabulary(sequences, n_vocab, what):
    """K, which is checked against all ids."""
    largest = max(int(sequence.max()) for sequence in sequences)
    n_vocab = max(largest, 0) + 1 if n_vocab is None else whole_number("n_vocab", n_vocab, 1)
    if largest >= n_vocab or min(int(sequence.min()) for sequence in sequences) < 0:
        i, bad = next((i, int(token)) for i, sequence in enumerate(sequences) for token in sequence if not 0 <= token < n_vocab)
        raise ValueError(f"token ids must lie in [0, {n_vocab}), but {what} {i} holds {bad}; correct it, or give a larger n_vocab")
    return n_vocab


def _merged(sequences, labels, n_vocab, n_left_out=0):
    """Samples of checked sequences: equal ones merged, in the order of (last token, label, how many tokens, tokens, counts)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    ids, rank = np.unique(np.concatenate(sequences), return_inverse=True)  # ranks: products with ids themselves may overflow
    entries, counts = np.unique(np.repeat(np.arange(len(sequences)), lengths) * len(ids) + rank, return_counts=True)
    starts = np.searchsorted(entries, np.arange(len(sequences) + 1) * len(ids))
    tokens = ids[entries % len(ids)]
    multiplicity, kept = {}, {}
    for i, (a, b) in enumerate(pairwise(starts.tolist())):
        parts = ([sequences[i][-1], labels[i], b - a], tokens[a:b], counts[a:b])
        key = np.concatenate(parts).astype(">i8").tobytes()  # bytes compare as the numbers do
        multiplicity[key] = multiplicity.get(key, 0) + 1
        if key not in kept or tuple(sequences[i]) < tuple(sequences[kept[key]]):
            kept[key] = i
    order = sorted(kept)
    rows = np.array([kept[key] for key in order])
    entry = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in rows])
    at = np.append(0, np.cumsum(starts[rows + 1] - starts[rows]))
    labels = labels[rows]
    label_at = np.flatnonzero(tokens[entry] == np.repeat(labels, np.diff(at)))
    return Samples(n_vocab=n_vocab, last=np.array([sequences[i][-1] for i in rows]), labels=labels, starts=at, tokens=tokens[entry],
                   counts=counts[entry].astype(np.float64), label_at=label_at,
                   share=np.array([multiplicity[key] for key in order]) / len(sequences),
                   sequences=tuple(sequences[i] for i in rows), n_given=len(sequences), n_left_out=n_left_out)
