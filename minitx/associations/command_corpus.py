"""The text of ``minitx associate`` and ``minitx why``: its options, what cannot be asked of it, and how it is read."""

from dataclasses import dataclass
from typing import Any

from minitx.base import options as base_options
from minitx.base.console import read_with_bar
from minitx.base.options import option, require_memory
from minitx.data.corpus import BUILTIN, OMIT, UNKNOWN, Corpus, builtin_corpus, load_corpus
from minitx.data.readers import LAYOUTS, file_kind
from minitx.data.tokenizers import FileTokenizer


@dataclass(frozen=True, kw_only=True)
class TextOptions(base_options.Options):
    """Options of a command that reads a text, or takes an embedded corpus, and cuts it into windows."""

    text: str | None = option(None, "text to read: a .txt, .jsonl or .json file, or a .gz or .zst of one; an embedded "
                              "corpus is used when it is not given",
                              positional=True, metavar="TEXT")
    builtin: str = option(BUILTIN[0], "the embedded corpus to use when no TEXT is given", choices=BUILTIN)
    vocabulary: int = option(600, "number of tokens in the vocabulary, the most frequent ones", least=2, quick=300,
                             metavar="V")
    length: int = option(64, "tokens in a window", least=1, most=1_000_000, quick=24, metavar="T")
    windows: int | None = option(512, "use at most the first N windows", least=1, quick=64)
    unknown: str = option(UNKNOWN, "what is done with rarer words: they are mapped to <unk>, or their documents "
                          "are omitted",
                          choices=(UNKNOWN, OMIT))
    tokenizer: str | None = option(None, "a tokenizer.json, as minitx tokenizer writes it; the text is split into its "
                                   "tokens instead of words",
                                   metavar="FILE")
    layout: str | None = option(None, "how documents are separated in a .txt file; this is detected when it is not "
                                "given",
                                choices=tuple(LAYOUTS))


def require_one_text(typed: dict[str, Any]) -> None:
    """ValueError if the options that were ``typed`` name no text or two, or what the text leaves no use for."""
    if typed.get("text") == "":
        raise ValueError("TEXT is empty; it must name a file, or be left out")
    if {"text", "builtin"} <= typed.keys():
        raise ValueError(f"give a TEXT ({typed['text']}) or --builtin {typed['builtin']}, not both")
    if "layout" in typed and ("text" not in typed or file_kind(typed["text"]) in (".json", ".jsonl")):
        about = typed.get("text", "the embedded corpus")
        raise ValueError(f"--layout is {typed['layout']}, but {about} has its documents apart already; leave it out "
                         "(it is for a .txt file)")
    if "tokenizer" not in typed:
        return
    if "text" not in typed:
        raise ValueError(f"--tokenizer is {typed['tokenizer']}, but no TEXT was typed; the embedded corpora are words")
    for name in ("vocabulary", "unknown"):
        if name in typed:
            raise ValueError(f"--{name} is {typed[name]}, but --tokenizer {typed['tokenizer']} has a vocabulary of its "
                             f"own; leave --{name} out")


def read(options: TextOptions) -> Corpus:
    """The corpus that the options ask for. Raises as :func:`minitx.load_corpus`."""
    settings: dict[str, Any] = {"n_vocab": options.vocabulary, "length": options.length, "unknown": options.unknown,
                                "n_windows": options.windows}
    if options.text is None:
        require_memory(8.0 * (options.windows or 1) * options.length, ("length", options.length))
        return builtin_corpus(options.builtin, rng=options.seed, **settings)
    if options.tokenizer is not None:
        settings |= {"n_vocab": None, "unknown": UNKNOWN, "tokenizer": FileTokenizer.read(options.tokenizer)}
    return read_with_bar(load_corpus, options.text, layout=options.layout, **settings)


def counted(corpus: Corpus) -> dict[str, Any]:
    """The name and the counts of a corpus, as ``corpus`` of results.json."""
    return {"name": corpus.name, "documents": corpus.n_documents, "documents without a window": corpus.n_left_out,
            "tokens": corpus.n_words, "distinct": corpus.n_distinct, "covered": corpus.n_covered,
            "unknown": corpus.unknown, "vocabulary": len(corpus.vocabulary), "windows": len(corpus.tokens),
            "length": corpus.length}


def require_batch_size(batch_size: int | None, n_windows: int) -> None:
    """ValueError if a mini-batch would have more windows than there are."""
    if batch_size is not None and batch_size > n_windows:
        raise ValueError(f"--batch-size is {batch_size}, but there are {n_windows} windows; lower it, or leave it out "
                         "for full batches")
