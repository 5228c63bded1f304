"""The text's side: its leading terms between the most frequent tokens of a language model's vocabulary.

Legend: V tokens in the vocabulary, n of them compared, K of them counted one by one, T positions of a window.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minitx.associations.streaming import text_statistics
from minitx.base.checks import whole_number
from minitx.base.parallel import matmul
from minitx.base.shown import Shown
from minitx.data.readers import Progress
from minitx.data.streams import Texts
from minitx.data.tokenizers import Tokenizer

COUNTED = 4_000  # K, if V is larger; tables have K^2 numbers, and rarer tokens are in no sum within a product
LEAST = 4  # tokens that can be compared

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeadingTerms(Shown):
    """The leading terms of a text between its n most frequent tokens, (n, n) each (Im et al. 2026, Section 4)."""

    tokens: NDArray[np.int64]  # (n,): ids, most frequent first
    words: tuple[str, ...]  # (n,): these tokens, as the tokenizer names them
    bigram: Array  # B: row = current token, column = next token
    interchangeability: Array  # Sigma_B = B^T B
    value: Array  # Phi^T B^T: row = attended token, column = current token
    value_output: Array  # Phi^T Sigma_B = Phi^T B^T B: row = attended token, column = output token
    attention: Array  # Q: row = query (current) token, column = key (attended) token
    coverage: float  # share of the current tokens of the text that are among the K


def leading_terms(files: str | Path | Iterable[str | Path], tokenizer: Tokenizer, *, n_tokens: int, length: int = 64,
                  n_counted: int = COUNTED, layout: str | None = None,
                  progress: Progress | None = None) -> LeadingTerms:
    """Leading terms of texts, in the tokens of ``tokenizer``, without invented tokens at the ends of documents.

    Parameters
    ----------
    files, layout
        As for :meth:`minitx.data.Texts.of`.
    tokenizer : Tokenizer
        That of the model.
    n_tokens : int
        n, at least 4; there are fewer if fewer occur in windows.
    length : int
        T, positions of a window.
    n_counted : int
        K, at least n: the most frequent tokens of the text. Sums within products, such as that of B^T B, run over them.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_of_all_files)``, in each of three passes.

    Raises
    ------
    FileNotFoundError, ValueError
        A text cannot be read, or gives no window; numbers out of range; fewer than 4 tokens occur.
    """
    V, n_tokens = len(tokenizer.vocabulary), whole_number("n_tokens", n_tokens, LEAST)
    K = min(V, max(n_tokens, whole_number("n_counted", n_counted, LEAST)))
    texts = Texts.of(files, tokenizer=tokenizer, length=length, n_tokens=K, layout=layout)
    texts = texts.with_vocabulary(progress=progress)
    found = text_statistics(texts, progress=progress)
    at = np.flatnonzero(found.frequency > 0)[:n_tokens]
    if len(at) < LEAST:
        raise ValueError(f"the windows of {texts.shown} hold {len(at)} different tokens; at least {LEAST} are needed "
                         "to compare them")
    block, vocabulary = np.ix_(at, at), texts.vocabulary
    return LeadingTerms(np.argsort(texts.ranks)[at],  # type: ignore[arg-type]  # there are ranks where K was given
                        tuple(vocabulary[i] for i in at), found.bigram[block], found.interchangeability[block],
                        found.value[block], matmul(found.value[at], found.bigram[:, at]), found.attention[block],
                        float(found.frequency.sum()))
