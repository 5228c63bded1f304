"""This room makes the data of a model: texts and drawn stories become windows of tokens, and windows become batches.

- ``stories``: short stories drawn from a known law of word classes and word companions.
- ``readers``: text files become documents. ``tokenizers``: a document becomes token ids, of words or of byte pairs;
  ``word_table``: the kernel that splits texts into words and looks each of them up.
- ``corpus``: vocabularies and windows. ``load_corpus`` takes a text through these in this order: documents, words,
  vocabulary, windows. ``Corpus.batch()`` predicts the next token in all windows.
- ``streams``: texts of any size are read part by part, by any executor.
- ``batch``: a :class:`Batch` holds tokens, targets, weights in the loss, mask and head, all checked. Every model
  reads it, and the theories make batches of their own laws of data.
"""

from minitx.data import batch, corpus, readers, stories, streams, tokenizers, word_table
from minitx.data.batch import Batch
from minitx.data.corpus import Corpus, builtin_corpus, load_corpus
from minitx.data.readers import read_documents
from minitx.data.streams import Texts
from minitx.data.tokenizers import FileTokenizer, Tokenizer, WordTokenizer

__all__ = [
    "Batch", "Corpus", "FileTokenizer", "Texts", "Tokenizer", "WordTokenizer", "batch", "builtin_corpus", "corpus",
    "load_corpus", "read_documents", "readers", "stories", "streams", "tokenizers", "word_table",
]


def __dir__() -> list[str]:
    return __all__
