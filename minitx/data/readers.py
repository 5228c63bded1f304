"""Readers of text files: documents of plain text and JSON, and values of JSON lines, piece by piece.

A file may be compressed (``.gz``; ``.zst`` with the extra ``zst``). A large file that is not compressed can be read in
parts, which :func:`cut` finds: they begin and end where a document does.
"""

import codecs
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.base.checks import existing_file, extra_package, one_of

# {layout: the regular expression of what separates documents}
LAYOUTS = {"lines": r"\n", "paragraphs": r"\n[^\S\n]*\n", "endoftext": r"<\|endoftext\|>"}
TEXT_FILE = "one text file (.txt, .jsonl or .json, possibly .gz or .zst)"
PACKED = (".gz", ".zst")
TOGETHER = 1 << 22  # characters; fewer cost more calls, and reading drives the tables of counts out of the cache
Progress = Callable[[int, int], object]  # called with (bytes read, bytes in the file)

# {layout: what separates documents for certain, in bytes}; a part of a file may end there
_CUTS = {"lines": rb"\n", "paragraphs": rb"\n[ \t\r]*\n", "endoftext": rb"<\|endoftext\|>"}
_LONGEST = 4096  # bytes of a separator that is found for certain
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLOCK = 1 << 20  # bytes that are read at a time; the layout is judged by the first of these blocks


def read_documents(path: str | Path, *, layout: str | None = None, progress: Progress | None = None) -> Iterator[str]:
    """Iterate over the documents of a file, in order; blank ones are left out.

    A ``.jsonl`` file holds one document a line, as a string or as the field ``text`` of an object; a ``.json`` file
    holds an array of such strings or objects. Any other file is plain text. All are UTF-8 and may be compressed
    (``.gz``); all but ``.json`` are read piece by piece.

    Parameters
    ----------
    layout : {"lines", "paragraphs", "endoftext"}, optional
        Where documents of a plain text end: at each line end, at blank lines, or at the mark ``<|endoftext|>``.
        Default: "endoftext" if the first megabyte holds the mark, else "paragraphs" if at least one of its lines in
        twenty is followed by a blank one, else "lines".
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_file)`` while reading.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, a folder, an unknown layout. While iterating: a file that is blank, binary, not UTF-8 or damaged,
        or an object without ``text``.
    """
    if layout is not None:
        one_of("layout", layout, (*LAYOUTS, None))
    path = existing_file(path, TEXT_FILE)
    return _filled(path, _documents(path, layout, _blocks(path, progress)))


def read_part(path: Path, begin: int, end: int | None, *, layout: str | None = None,
              bad: Callable[[str], object] | None = None) -> Iterator[str]:
    """Iterate over the documents between two bytes of a file that :func:`cut` has found; there may be none.

    ``end`` is None for a whole file. A line of JSON that holds no text is an error that names it, unless there is a
    function ``bad``: this is called with the message instead, and the line is left out.
    """
    documents = _documents(path, layout, _blocks(path, None, begin, end), begin, bad)
    return filter(None, map(str.strip, documents))


def together(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists, which are worth a call each: lists of at least ``TOGETHER`` characters, but for the last one.
    """
    found, n_characters = [], 0
    for document in documents:
        found.append(document)
        n_characters += len(document)
        if n_characters >= TOGETHER:
            yield found
            found, n_characters = [], 0
    if found:
        yield found


def cut(path: Path, size: int, layout: str | None) -> list[tuple[int, int | None, str | None]]:
    """Parts (begin, end, layout) of a file, of about ``size`` bytes; the file itself if it cannot be cut.

    A file that is compressed, or one JSON array, has one part. The layout is judged where it is not given.
    """
    length, kind = path.stat().st_size, file_kind(path)
    if path.suffix.lower() in PACKED or kind == ".json" or length <= size:
        return [(0, None, layout)]
    layout = "lines" if kind == ".jsonl" else layout or _detect(next(_blocks(path, None)))
    separator = re.compile(_CUTS[layout])
    edges = {0, length}
    with open(path, "rb") as file:
        for edge in range(size, length, size):
            file.seek(edge)
            ahead = b""  # a separator may lie in two blocks
            while block := file.read(_BLOCK):
                ahead = ahead[-_LONGEST:] + block
                if found := separator.search(ahead):
                    edges.add(file.tell() - len(ahead) + found.end())
                    break
            else:  # no document ends behind this edge
                break
    return [(begin, end, layout) for begin, end in itertools.pairwise(sorted(edges))]


def _documents(path, layout, blocks, begin=0, bad=None):
    """The documents of decoded pieces of a file, blank ones among them."""
    kind = file_kind(path)
    if kind == ".jsonl":
        yield from _json_texts(path, blocks, begin, bad)
    elif kind == ".json":
        yield from _json_array(path, blocks)
    else:
        head = next(blocks)
        yield from _split(itertools.chain([head], blocks), LAYOUTS[layout or _detect(head)])


def read_json_lines(path: str | Path, *, progress: Progress | None = None) -> Iterator[tuple[str, Any]]:
    """Iterate over the values of a file that holds one JSON value a line, as pairs (place, value).

    ``place`` names file and line, for messages. Blank lines are left out. Parameters, encoding and errors are those of
    :func:`read_documents`; a line that is not valid JSON is a ValueError too.
    """
    path = existing_file(path, TEXT_FILE)
    return ((str(place), _parse(line, place)) for place, line in _json_lines(path, _blocks(path, progress)))


def file_kind(path: str | Path) -> str:
    """Ending of the file name in lower case, such as ".jsonl"; an ending ".gz" or ".zst" is left out."""
    path = Path(path)
    return (path.with_suffix("").suffix if path.suffix.lower() in PACKED else path.suffix).lower()


def _filled(path, documents):
    """The documents without spaces at their ends and without blank ones. Raises ValueError if none is left."""
    found = False
    for document in map(str.strip, documents):
        if document:
            found = True
            yield document
    if not found:
        raise ValueError(f"{path} is empty or blank: it holds no document; give a file with text in it")


def _blocks(path, progress, first=0, end=None):
    """Decoded pieces of a file, with newlines as ``\\n`` and without a byte order mark; the last piece may be blank.

    They are those between the bytes ``first`` and ``end`` (None: the end of the file).
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    done, block = first, None  # done counts bytes after decompression
    with open(path, "rb") as file:
        if first:
            file.seek(first)
        read = _unpacked(path, file)
        while block != b"":
            block = read(_BLOCK if end is None else min(_BLOCK, end - done))
            if b"\0" in block:
                raise ValueError(f"{path} is a binary file: NUL byte at offset {done + block.index(0)}; "
                                 "text in UTF-8 is needed")
            begin = done - len(decoder.getstate()[0])  # a character may lie in two blocks
            try:
                text = newlines.decode(block, final=not block)
            except UnicodeDecodeError as error:
                bad = f"bad byte 0x{error.object[error.start]:02x} at offset {begin + error.start}"
                raise ValueError(f"{path} is not UTF-8: {bad}; convert it, as iconv -f latin1 -t utf-8 does") from error
            yield text if done else text.removeprefix("\ufeff")
            done += len(block)
            if progress and block and file.seekable():  # a pipe has no size
                progress(file.tell(), path.stat().st_size)


def _unpacked(path, file):
    """The function ``read(bytes)`` of what the file holds before compression."""
    kind = path.suffix.lower()
    if kind not in PACKED:
        return file.read
    if kind == ".gz":
        stream, name, errors = gzip.GzipFile(fileobj=file), "gzip", (gzip.BadGzipFile, EOFError, zlib.error)
    else:
        package = extra_package("zstandard", "texts that end in .zst", "the package zstandard", "zst")
        stream, name, errors = _Zst(package, file), "zst", (EOFError, package.ZstdError)

    def read(size):
        try:
            return stream.read(size)
        except errors as error:
            raise ValueError(f"{path} is not a whole {name} file ({error}); compress or download it again") from error

    return read


class _Zst:
    """Reads what a .zst file holds; EOFError if it ends too early, of which the package's own reader says nothing."""

    def __init__(self, package, file):
        self.frame, self.file, self.rest = package.ZstdDecompressor().decompressobj, file, b""
        self.current = None

    def read(self, size):
        while True:
            packed = self.rest or self.file.read(max(size >> 3, 1))
            self.rest = b""
            if not packed:
                if self.current is not None:
                    raise EOFError("it ends too early")
                return b""
            self.current = self.current or self.frame()
            found = self.current.decompress(packed)
            if self.current.eof:
                self.rest, self.current = self.current.unused_data, None
            if found:
                return found


def _split(blocks, separator):
    """Pieces of the blocks' text between matches of a separator. Memory holds only the current piece and block."""
    separator = re.compile(separator)
    rest = ""
    for block in blocks:
        *whole, rest = separator.split(rest + block)
        yield from whole
    yield rest


def _detect(head):
    if re.search(LAYOUTS["endoftext"], head):
        return "endoftext"
    lines = [bool(line.strip()) for line in head.strip().split("\n")]
    gaps = sum(before and not after for before, after in itertools.pairwise(lines))
    return "paragraphs" if gaps and gaps * 20 >= len(lines) - gaps else "lines"


@dataclass(frozen=True)
class _Place:
    """Names a line of the part of a file that begins at the byte ``begin``; counts the lines before it when asked."""

    path: Path
    begin: int
    number: int

    def __str__(self):
        with open(self.path, "rb") as file:
            before = sum(file.read(min(_BLOCK, self.begin - at)).count(b"\n") for at in range(0, self.begin, _BLOCK))
        return f"{self.path}, line {self.number + before}"


def _json_lines(path, blocks, begin=0):
    """Pairs (place, line) of the lines that are not blank."""
    for number, line in enumerate(_split(blocks, r"\n"), start=1):
        if line.strip():
            yield _Place(path, begin, number), line


def _json_texts(path, blocks, begin, bad):
    """The texts of JSON lines; ``bad`` is called with what is wrong with the others."""
    for place, line in _json_lines(path, blocks, begin):
        try:
            text = _text(_parse(line, place), place)
        except ValueError as error:
            if bad is None:
                raise
            bad(str(error))
        else:
            yield text


def _json_array(path, blocks):
    items = _parse("".join(blocks).strip() or "[]", path)
    if not isinstance(items, list):
        raise ValueError(f"{path} holds one JSON {type(items).__name__}; an array is needed (or, for a file of one "
                         "object a line, a name that ends in .jsonl)")
    for number, item in enumerate(items, start=1):
        yield _text(item, f"{path}, item {number}")


def _parse(text, place):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not valid JSON ({error})") from error


def _text(item, place):
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        found = f"the fields {', '.join(item) or '(none)'}" if isinstance(item, dict) else f"a {type(item).__name__}"
        raise ValueError(f'{place}: found {found}; an object with a string in its field "text" is needed')
    if _SURROGATE.search(text):
        raise ValueError(f"{place}: the text holds half a character (a lone \\ud800 to \\udfff), not valid in UTF-8")
    return text
