"""``minitx count``: count texts of any size, whole or in parts, and merge the counts of parts."""

import argparse
import re
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from minitx.associations.counts import Counts, Scores, read_npz
from minitx.associations.streaming import count_texts, score_texts
from minitx.base.checks import writable_file
from minitx.base.console import Printer, progress_bar
from minitx.base.options import Settings, add_options, as_typed, option, read_options
from minitx.base.parallel import get_threads
from minitx.data.corpus import OMIT, UNKNOWN
from minitx.data.readers import LAYOUTS
from minitx.data.streams import PART, Texts, text_files
from minitx.data.tokenizers import FileTokenizer, WordTokenizer

SMALL = 2**22  # bytes; to start a process takes as long as to count so many
KINDS = {"counts": Counts, "scores": Scores}


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """What ``minitx count`` can be told."""

    texts: tuple[str, ...] = option((), "files, folders or patterns; with --merge, files of counts", metavar="TEXT",
                                    positional=True)
    vocabulary: int = option(3000, "number of words in the vocabulary, the most frequent ones", least=2, metavar="V")
    tokenizer: str | None = option(None, "a tokenizer.json, as minitx tokenizer writes; its tokens instead of words",
                                   metavar="FILE")
    tokens: int | None = option(None, "tell only the K most frequent tokens of the vocabulary apart", least=2,
                                metavar="K")
    length: int = option(64, "tokens in a window", least=1, most=1_000_000, metavar="T")
    unknown: str = option(UNKNOWN, "what becomes of rarer words: mapped to <unk>, or their document omitted",
                          choices=(UNKNOWN, OMIT))
    layout: str | None = option(None, "how documents are separated in a .txt file; detected when not given",
                                choices=tuple(LAYOUTS))
    skip_bad: bool = option(False, "count lines of JSON that hold no text and leave them out, instead of refusing them")
    part: str | None = option(None, "count the i-th of n parts, such as 2/8; every part reads the whole text once for "
                              "the vocabulary", metavar="I/N")
    scores: str | None = option(None, "sum the scores for these merged counts, whose settings are used; Q and Delta "
                                "need them", metavar="COUNTS")
    merge: bool = option(False, "add counts, or scores, that were written before")
    workers: int | None = option(None, "processes; as many as cores when not given. Results do not depend on it",
                                 least=1)
    out: str = option("counts.npz", "the file to write; a run that was ended goes on", metavar="FILE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx count`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status 0."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    options = read_options(Options, typed)
    for one, others in (("merge", set(typed) - {"merge", "texts", "out"}), ("tokenizer", {"vocabulary", "unknown"}),
                        ("scores", {"vocabulary", "tokens", "length", "unknown"})):
        if one in typed and (both := sorted(others & set(typed))):
            raise ValueError(f"--{one} leaves no use for --{both[0].replace('_', '-')}; leave one of them out")
    if not options.texts:
        raise ValueError("--merge has nothing to add; name files of counts" if options.merge else
                         "no TEXT was typed; minitx count needs at least one to read")
    number, of = _part(options.part)
    try:
        if options.merge:
            _merge(options)
        else:
            _count(options, number, of)
    except ValueError as error:
        raise ValueError(as_typed(error, Options)) from error
    return 0


def _part(typed):
    """(i, n) of "i/n"; (1, 1) of None."""
    if typed is None:
        return 1, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", typed)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--part is {typed!r}; it must be I/N, such as 2/8, with I from 1 to N")
    return int(found[1]), int(found[2])


def _count(options, number, of):
    """Count one of so many parts of the texts, or sum its scores."""
    about = read_npz(options.scores, "counts")[0] if options.scores else None
    size = sum(path.stat().st_size for path in text_files(options.texts))
    n_workers = min(options.workers or get_threads(), 1 + size // of // SMALL)
    # The parts of a text depend on nothing else, so that machines of a cluster agree on them.
    texts = _texts(options, about, max(1, min(PART, size // of, max(SMALL, size // of // 4))))
    if number > len(texts.parts):
        raise ValueError(f"--part is {number}/{of}, but the texts can be cut into fewer parts only; use a smaller N")
    writable_file(options.out)
    keep = Path(options.out).with_name(f".{Path(options.out).name}.kept")
    cuts = [of, *((part.path.name, part.begin, part.end) for part in texts.parts)]
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        if n_workers > 1:
            pool = ProcessPoolExecutor(n_workers, mp_context=get_context("spawn"), initializer=signal.signal,
                                       initargs=(signal.SIGINT, signal.SIG_IGN))  # Ctrl-C is for this process
            settings = {"executor": stack.enter_context(pool), "ahead": 2 * n_workers}
        if texts.needs_vocabulary:
            texts = _with_bar("vocabulary", texts.with_vocabulary, settings)
        texts = replace(texts, parts=texts.parts[number - 1::of])
        if about:
            found = _with_bar("scores", score_texts, settings, texts, Counts.load(options.scores), keep=keep)
        else:
            found = _with_bar("counts", count_texts, settings, texts, keep=keep)
    words = texts.tokenizer.vocabulary if isinstance(texts.tokenizer, WordTokenizer) else None
    order = None if texts.ranks is None else texts.ranks.argsort().tolist()
    _write(found, options.out, parts=[f"{number}/{of}"], cuts=cuts, words=words, order=order, unknown=texts.unknown)


def _texts(options, about, part_size):
    """The texts to count; with the vocabulary and settings of the counts that ``about`` tells of, if there are some."""
    settings = {"part_size": part_size, "layout": options.layout, "skip_bad": options.skip_bad,
                "length": options.length, "n_tokens": options.tokens, "unknown": options.unknown}
    tokenizer = FileTokenizer.read(options.tokenizer) if options.tokenizer else None
    if about is None:
        return Texts.of(options.texts, n_vocab=None if tokenizer else options.vocabulary, tokenizer=tokenizer,
                        **settings)
    if tokenizer is None and about["words"] is None:
        raise ValueError(f"{options.scores} counts tokens of a file; name it with --tokenizer")
    texts = Texts.of(options.texts, tokenizer=tokenizer or WordTokenizer(tuple(about["words"])),
                     **(settings | {"length": about["length"], "unknown": about["unknown"]}))
    if texts.n_vocab != about["n_vocab"]:
        raise ValueError(f"--tokenizer {options.tokenizer} has {texts.n_vocab:,} tokens, but {options.scores} counts "
                         f"{about['n_vocab']:,}; give the file that was used for the counts")
    return replace(texts, n_tokens=about["n_tokens"]).ranked(about["order"]) if about["order"] else texts


def _with_bar(name, function, settings, *arguments, **more):
    """``function(...)``, while a bar shows the bytes that are read."""
    with progress_bar(unit="B", unit_scale=True, desc=name) as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        return function(*arguments, progress=progress, **settings, **more)


def _merge(options):
    """Add files of counts, or of scores."""
    total, parts = None, []
    first, _ = read_npz(options.texts[0])
    kind = first["kind"]
    writable_file(options.out)
    for path in options.texts:
        found, (about, _) = KINDS[kind].load(path), read_npz(path, kind)
        if twice := set(parts) & set(about["parts"]):
            raise ValueError(f"{path} holds the part {min(twice)}, which another file holds too; merge each part once")
        if about["cuts"] != first["cuts"]:
            raise ValueError(f"{path} and {options.texts[0]} hold parts of different texts, or for another N of --part")
        parts += about["parts"]
        try:
            total = found if total is None else total + found
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    _write(total, options.out, parts=parts,
           **{name: first[name] for name in ("cuts", "words", "order", "unknown")})


def _write(found, out, parts, **beside):
    """Write counts or scores, and print what they hold. ValueError if all parts together hold nothing."""
    missing = missing_parts(parts)
    if isinstance(found, Counts) and not missing:
        found.require_tokens()
    found.save(out, parts=parts, **beside)
    say = Printer()
    if isinstance(found, Counts):
        for name, number in found.totals.items():
            say(f"{name:<28}{number:>16,}")
        say(f"{'windows':<28}{found.n_windows:>16,} of {found.length} + 1 tokens")
        if found.n_tokens < found.n_vocab:
            say(f"tables hold {found.n_tokens:,} of {found.n_vocab:,} tokens; {found.coverage:.2%} of the pairs of "
                "neighbours are of these, the others are counted together and left out of all products")
    if missing:
        say(f"parts that are not in it: {', '.join(missing)}")
    say(f"written {out}: {'counts' if isinstance(found, Counts) else 'scores'} of {found.n_windows:,} windows")


def missing_parts(parts: list[str]) -> list[str]:
    """The parts "i/n" that are not among ``parts``, which have one n."""
    of = int(parts[0].split("/")[1])
    return [one for i in range(1, of + 1) if (one := f"{i}/{of}") not in parts]
