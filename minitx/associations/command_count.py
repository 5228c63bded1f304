"""``minitx count``: count texts of any size, whole or in parts, and merge the counts of parts.

Jobs of a batch queue need nothing of each other but the vocabulary, which one of them chooses:

    minitx count news/ --vocabulary 3000 --vocabulary-to vocabulary.json
    minitx count news/ --vocabulary-from vocabulary.json --part 1/8 --out counts-1.npz      (and so on, to 8/8)
    minitx count --merge counts-*.npz --out counts.npz
    minitx count news/ --scores counts.npz --part 1/8 --out scores-1.npz                    (and so on, to 8/8)
    minitx count --merge scores-*.npz --out scores.npz
"""

import argparse
import json
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
from minitx.base.checks import atomic, existing_file, writable_file
from minitx.base.console import Printer, progress_bar
from minitx.base.folder import difference, stamp
from minitx.base.options import Settings, add_options, as_typed, option, read_options
from minitx.base.parallel import get_threads
from minitx.base.report import plain
from minitx.data.corpus import OMIT, UNKNOWN
from minitx.data.readers import LAYOUTS
from minitx.data.streams import PART, Texts, text_files
from minitx.data.tokenizers import FileTokenizer, WordTokenizer

EXAMPLES = (
    ("minitx count stories.txt --vocabulary 3000 --out counts.npz", "Count a text."),
    ("minitx count texts --part 2/8 --out part-2.npz", "Count the second of eight parts of a folder of texts."),
    ("minitx count --merge part-1.npz part-2.npz --out counts.npz", "Add the counts of parts."))
SMALL = 2**22  # bytes; to start a process takes as long as to count so many
KINDS = {"counts": Counts, "scores": Scores}


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """What ``minitx count`` can be told."""

    texts: tuple[str, ...] = option((), "files, folders or patterns; with --merge, files of counts", metavar="TEXT",
                                    positional=True)
    vocabulary: int = option(3000, "number of words in the vocabulary, the most frequent ones", least=2, metavar="V")
    tokenizer: str | None = option(None, "a tokenizer.json, as minitx tokenizer writes it; the text is split into its "
                                   "tokens instead of words",
                                   metavar="FILE")
    tokens: int | None = option(None, "tell only the K most frequent tokens of the vocabulary apart", least=2,
                                metavar="K")
    length: int = option(64, "tokens in a window", least=1, most=1_000_000, metavar="T")
    unknown: str = option(UNKNOWN, "what is done with rarer words: they are mapped to <unk>, or their documents "
                          "are omitted",
                          choices=(UNKNOWN, OMIT))
    layout: str | None = option(None, "how documents are separated in a .txt file; this is detected when it is not "
                                "given",
                                choices=tuple(LAYOUTS))
    skip_bad: bool = option(False, "count lines of JSON that hold no text and leave them out, instead of refusing them")
    part: str | None = option(None, "count the i-th of n parts, such as 2/8; without --vocabulary-from, every part "
                              "reads the whole text once for the vocabulary", metavar="I/N")
    vocabulary_to: str | None = option(None, "only choose the vocabulary, and write it to this file", metavar="FILE")
    vocabulary_from: str | None = option(None, "the vocabulary that --vocabulary-to wrote, so that the texts are not "
                                         "read for it", metavar="FILE")
    scores: str | None = option(None, "sum the scores for these merged counts, whose settings are used; Q and Delta "
                                "need them", metavar="COUNTS")
    merge: bool = option(False, "add counts, or scores, that were written before")
    workers: int | None = option(None, "number of processes; one for each core when it is not given. Results do not "
                                 "depend on it",
                                 least=1)
    out: str = option("counts.npz", "the file to write; an interrupted run continues from it", metavar="FILE")
    force: bool = option(False, "overwrite a file that another run has written")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx count`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status 0."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    options = read_options(Options, typed)
    chosen = {"vocabulary", "tokens", "unknown"}
    for one, others in (("merge", set(typed) - {"merge", "texts", "out", "force"}),
                        ("tokenizer", {"vocabulary", "unknown"}),
                        ("scores", {*chosen, "length", "vocabulary_to", "vocabulary_from"}),
                        ("vocabulary_from", {*chosen, "vocabulary_to"}), ("vocabulary_to", {"part", "length", "out"})):
        if one in typed and (both := sorted(others & set(typed))):
            one, other = (name.replace("_", "-") for name in (one, both[0]))
            raise ValueError(f"--{one} leaves no use for --{other}; leave one of them out")
    if not options.texts:
        raise ValueError("--merge has nothing to add; name files of counts" if options.merge else
                         "no TEXT was typed; minitx count needs at least one to read")
    if options.vocabulary_to and options.tokenizer and not options.tokens:
        raise ValueError("--vocabulary-to has nothing to choose, because all tokens of the tokenizer are counted; add "
                         "--tokens K, or leave --vocabulary-to out")
    number, of = _part(options.part)
    try:
        if options.merge:
            _merge(options)
        else:
            _count(options, number, of)
    except ValueError as error:
        raise ValueError(as_typed(error, Options)) from error
    return 0


def _identity(options):
    """What decides the results of a run, as of minitx.base.folder, but by the sizes and times of the files it reads."""
    configuration = {name: value for name, value in plain(options).items() if name not in ("out", "workers", "force")}
    files = {name: [Path(value)] for name in ("tokenizer", "vocabulary_from", "scores")
             if (value := configuration[name])}
    files["texts"] = [*map(Path, options.texts)] if options.merge else text_files(options.texts)
    return {"command": "count", "configuration": configuration,
            "inputs": {name: stamp(paths) for name, paths in files.items()}}


def _is_written(options, run):
    """Whether this very run has written its file before, which is said.

    ValueError if the file cannot be written, or holds what another run has written and nothing forces this one.
    """
    path = options.vocabulary_to or options.out
    writable_file(path)
    if options.force or not Path(path).exists():
        return False
    try:
        theirs = (json.loads(Path(path).read_bytes()) if options.vocabulary_to else read_npz(path)[0]).get("run") or {}
    except (ValueError, AttributeError):
        theirs = {}
    if other := difference(theirs, run) if theirs else "the file does not say of which":
        raise ValueError(f"--{'vocabulary-to' if options.vocabulary_to else 'out'} is {path}, which holds the results "
                         f"of another run ({other}); choose another file, or overwrite this one with --force")
    Printer()(f"{path} holds the results of this run already; --force counts again")
    return True


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
    about = read_npz(options.scores, "counts")[0] if options.scores else _vocabulary(options.vocabulary_from)
    size = sum(path.stat().st_size for path in text_files(options.texts))
    n_workers = min(options.workers or get_threads(), 1 + size // of // SMALL)
    # The parts of a text depend on nothing else, so that machines of a cluster agree on them.
    texts = _texts(options, about, max(1, min(PART, size // of, max(SMALL, size // of // 4))))
    if number > len(texts.parts):
        raise ValueError(f"--part is {number}/{of}, but the texts can be cut into fewer parts only; use a smaller N")
    run = _identity(options)
    if _is_written(options, run):
        return
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
        if options.vocabulary_to:
            _write_vocabulary(texts, options.vocabulary_to, run)
            return
        texts = replace(texts, parts=texts.parts[number - 1::of])
        if options.scores:
            found = _with_bar("scores", score_texts, settings, texts, Counts.load(options.scores), keep=keep)
        else:
            found = _with_bar("counts", count_texts, settings, texts, keep=keep)
    _write(found, options.out, parts=[f"{number}/{of}"], cuts=cuts, run=run, **_chosen(texts))


def _chosen(texts):
    """What was chosen for texts: words, or None for a tokenizer's; ids by frequency, if K are told apart; unknown."""
    return {"words": texts.tokenizer.vocabulary if isinstance(texts.tokenizer, WordTokenizer) else None,
            "order": None if texts.ranks is None else texts.ranks.argsort().tolist(), "unknown": texts.unknown}


def _write_vocabulary(texts, path, run):
    """Write the vocabulary of texts, as JSON, for jobs that count parts of them."""
    with atomic(path) as file:
        json.dump({"kind": "vocabulary", "n_vocab": texts.n_vocab, "n_tokens": texts.n_tokens, "run": run,
                   **_chosen(texts)}, file, ensure_ascii=False)
    Printer()(f"written {path}: {texts.n_vocab:,} tokens, for minitx count TEXT --vocabulary-from {path} --part I/N")


def _vocabulary(path):
    """What :func:`_write_vocabulary` wrote; None without a path. ValueError if the file holds no vocabulary."""
    if path is None:
        return None
    path = existing_file(path, "a vocabulary, as minitx count --vocabulary-to writes")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        n_vocab, words, order = about["n_vocab"], about["words"], about["order"]
        named = words is None or 2 <= n_vocab == len(words) == len(set(map(str, words)))
        ordered = order is None or (sorted(order) == [*range(n_vocab)] and 2 <= about["n_tokens"] <= n_vocab)
        whole = named and ordered and about["kind"] == "vocabulary" and about["unknown"] in (UNKNOWN, OMIT)
    except (ValueError, TypeError, LookupError):
        whole = False
    if not whole:
        raise ValueError(f"{path} holds no vocabulary; give a file that minitx count --vocabulary-to wrote")
    return about


def _texts(options, about, part_size):
    """The texts to count; with vocabulary and settings of the counts, or of the vocabulary, that ``about`` tells of."""
    settings = {"part_size": part_size, "layout": options.layout, "skip_bad": options.skip_bad,
                "length": options.length, "n_tokens": options.tokens, "unknown": options.unknown}
    tokenizer = FileTokenizer.read(options.tokenizer) if options.tokenizer else None
    if about is None:
        return Texts.of(options.texts, n_vocab=None if tokenizer else options.vocabulary, tokenizer=tokenizer,
                        **settings)
    name = options.scores or options.vocabulary_from
    if tokenizer is None and about["words"] is None:
        raise ValueError(f"{name} was made with the tokenizer of a file; name it with --tokenizer")
    texts = Texts.of(options.texts, tokenizer=tokenizer or WordTokenizer(tuple(about["words"])),
                     **(settings | {"length": about.get("length", options.length), "unknown": about["unknown"]}))
    if texts.n_vocab != about["n_vocab"]:
        raise ValueError(f"--tokenizer {options.tokenizer} has {texts.n_vocab:,} tokens, but {name} was made with "
                         f"{about['n_vocab']:,}; give the file that was used for it")
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
    kind, run = first["kind"], _identity(options)
    if _is_written(options, run):
        return
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
    _write(total, options.out, parts=parts, run=run,
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
