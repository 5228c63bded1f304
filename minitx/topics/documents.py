"""Documents as token ids, and their words masked: the data of Li, Li and Risteski (2023).

Token 0 is [MASK], which no document holds: :func:`mask_tokens` puts it in the place of words that are to be predicted.
Legend: D documents, N slots of the longest, V tokens.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import instance, integers, one_of, probability, whole_number
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.topics.randomness import Seed, generators, parts

LOSSES = ("pooled", "per_document")
MASK = 0


@dataclass(frozen=True, eq=False)
class Documents(Shown):
    """Documents as token ids. ValueError or TypeError says what cannot be a document.

    Parameters
    ----------
    tokens : (D, N) integers
        Row = document, column = slot. Ids are from 1 to ``n_vocab - 1`` (0 is [MASK]); what lies beyond a document's
        length is not read and becomes 0. Kept as int32.
    lengths : (D,) integers
        Number of slots of each document, at least 2 and at most N. Kept as int32.
    n_vocab : int
        V, the number of tokens with [MASK], at least 2.
    """

    MADE_BY: ClassVar[str] = "Documents(tokens, lengths, n_vocab), or the documents(n_documents) of a TopicModel"

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    n_vocab: int

    def __post_init__(self):
        n_vocab = whole_number("n_vocab", self.n_vocab, 2, most=2**31 - 1)
        tokens, lengths = integers("tokens", self.tokens, 2), integers("lengths", self.lengths, 1)
        if not len(tokens):
            raise ValueError("there are no documents; give at least one row of tokens")
        if len(lengths) != len(tokens):
            raise ValueError(f"tokens hold {len(tokens)} documents but lengths {len(lengths)} numbers; give one length "
                             "a document")
        if lengths.min() < 2:
            raise ValueError("documents shorter than 2 slots hold nothing to predict a word from, found "
                             f"{np.sum(lengths < 2)} of {len(lengths)}; leave them out, or join them with others")
        if lengths.max() > tokens.shape[1]:
            raise ValueError(f"a document has length {lengths.max()} but tokens have {tokens.shape[1]} columns; "
                             "lengths count the slots of each document, padding left out")
        inside = np.arange(tokens.shape[1]) < lengths[:, None]
        within = np.where(inside, tokens, 1)  # 1 is an id of every vocabulary
        lowest, highest = within.min(), within.max()
        if lowest < 1 or highest >= n_vocab:
            raise ValueError(f"tokens within the documents must be ids from 1 to n_vocab - 1 = {n_vocab - 1} (0 is "
                             f"[MASK]), found {lowest if lowest < 1 else highest}; shift the ids by one, or raise "
                             "n_vocab")
        object.__setattr__(self, "tokens", np.where(inside, tokens, 0).astype(np.int32, copy=False))
        object.__setattr__(self, "lengths", lengths.astype(np.int32))
        object.__setattr__(self, "n_vocab", n_vocab)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.tokens)


def mask_tokens(documents: Documents, *, p_m: float = 0.15, p_c: float = 0.1, p_r: float = 0.1, loss: str = "pooled",
                head: str = "cross_entropy", rng: Seed = 0) -> Batch:
    """Choose slots at random, corrupt what they show, and ask for their words: masked language modelling.

    Each slot is chosen with probability ``p_m``, independently. A chosen slot shows its own word with probability
    ``p_c``, a word drawn from all n = V - 1, equally probable, with probability ``p_r``, and else [MASK], token 0.
    Every slot is attended to.

    Parameters
    ----------
    p_m, p_c, p_r : float
        From 0 to 1; ``p_m`` above 0 and ``p_c + p_r`` at most 1. The defaults are the paper's.
    loss : {"pooled", "per_document"}
        Weight of a chosen slot: 1 / (chosen slots of all documents), or 1 / (documents that have a chosen slot) /
        (chosen slots of this document). Both are 0 elsewhere and sum to 1; what is learned differs by O(1 / N).
    head : {"cross_entropy", "squared", "log"}
        See :class:`~minitx.data.batch.Batch`.
    rng : int, numpy.random.Generator or None
        Seed. The choice is independent of the documents, even of those drawn with the same seed.

    Returns
    -------
    Batch
        ``tokens`` (D, N): what the slots show; ``targets`` (D, N): the words of chosen slots; bidirectional attention.

    Raises
    ------
    ValueError, TypeError
        Probabilities out of range, an unknown loss or head, no slot chosen; ``documents`` are not :class:`Documents`.
    """
    instance("documents", documents, Documents)
    valid_masking(p_m, p_c, p_r, loss)
    shown, chosen = _corrupt(documents, p_m, p_c, p_r, generators(rng))
    n_chosen = chosen.sum(axis=1)
    if not n_chosen.any():
        raise ValueError(f"of the {documents.lengths.sum()} slots of {len(documents)} documents none was chosen with "
                         f"p_m={p_m}; raise p_m, give more documents, or take another seed")
    if loss == "pooled":
        weight = chosen / n_chosen.sum()
    else:
        weight = chosen / (np.count_nonzero(n_chosen) * np.maximum(n_chosen, 1))[:, None]
    return Batch(shown, documents.tokens, weight, lengths=documents.lengths, causal=False, head=head)


def valid_masking(p_m: float, p_c: float, p_r: float, loss: str) -> dict[str, Any]:
    """The four settings of masking, checked, by name. ValueError says which cannot be, and what to change."""
    checked: dict[str, Any] = {"p_m": probability("p_m", p_m), "p_c": probability("p_c", p_c),
                               "p_r": probability("p_r", p_r), "loss": loss}
    if p_m == 0:
        raise ValueError("p_m is 0: no slot is ever chosen and there is nothing to predict; take a p_m above 0, "
                         "however small")
    if p_c + p_r > 1 + 1e-12:
        raise ValueError(f"p_c + p_r is {p_c + p_r:g}, above 1; what a chosen slot shows is its word, a random word or "
                         "[MASK]: lower one of them")
    one_of("loss", loss, LOSSES)
    return checked


def _corrupt(documents, p_m, p_c, p_r, draw):
    """What each slot shows, (D, N) int32, and whether it is chosen, (D, N) bool."""
    shown = documents.tokens.copy()
    chosen = np.empty(shown.shape, bool)
    columns = np.arange(shown.shape[1])
    for part in parts(*shown.shape):
        u = draw["choice"].random(shown[part].shape)  # it decides both whether a slot is chosen and what it shows
        chosen[part] = (u < p_m) & (columns < documents.lengths[part, None])
        replaced = chosen[part] & (u >= p_m * p_c)
        random_word = replaced & (u < p_m * (p_c + p_r))
        shown[part][replaced] = MASK
        n_random = np.count_nonzero(random_word)
        shown[part][random_word] = draw["replacement"].integers(1, documents.n_vocab, size=n_random)
    return shown, chosen
