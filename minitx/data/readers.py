"""Readers of text files: documents of plain text and JSON, and values of JSON lines, piece by piece."""

import codecs
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minitx.base.checks import existing_file, one_of

# {layout: the regular expression of what separates documents}
LAYOUTS = {"lines": r"\n", "paragraphs": r"\n[^\S\n]*\n", "endoftext": r"<\|endoftext\|>"}
TEXT_FILE = "one text file (.txt, .jsonl or .json, possibly .gz)"
Progress = Callable[[int, int], object]  # called with (bytes read, bytes in the file)

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
    blocks, kind = _blocks(path, progress), file_kind(path)
    if kind == ".jsonl":
        documents = (_text(item, place) for place, item in _json_lines(path, blocks))
    elif kind == ".json":
        documents = _json_array(path, blocks)
    else:
        head = next(blocks)
        documents = _split(itertools.chain([head], blocks), LAYOUTS[layout or _detect(head)])
    return _filled(path, documents)


def read_json_lines(path: str | Path, *, progress: Progress | None = None) -> Iterator[tuple[str, Any]]:
    """Iterate over the values of a file that holds one JSON value a line, as pairs (place, value).

    ``place`` names file and line, for messages. Blank lines are left out. Parameters, encoding and errors are those of
    :func:`read_documents`; a line that is not valid JSON is a ValueError too.
    """
    path = existing_file(path, TEXT_FILE)
    return _json_lines(path, _blocks(path, progress))


def file_kind(path: str | Path) -> str:
    """Ending of the file name in lower case, such as ".jsonl"; an ending ".gz" is left out."""
    path = Path(path)
    return (path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def _filled(path, documents):
    """The documents without spaces at their ends and without blank ones. ValueError if none is left."""
    found = False
    for document in map(str.strip, documents):
        if document:
            found = True
            yield document
    if not found:
        raise ValueError(f"{path} is empty or blank: it holds no document; give a file with text in it")


def _blocks(path, progress):
    """Decoded pieces of a file, with newlines as ``\\n`` and without a byte order mark; the last piece may be blank."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    done, block = 0, None  # done counts bytes after decompression
    with open(path, "rb") as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        while block != b"":
            try:
                block = stream.read(_BLOCK)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{path} is not a whole gzip file ({error}); compress or download it again") from error
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


def _json_lines(path, blocks):
    for number, line in enumerate(_split(blocks, r"\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _parse(line, place)


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
