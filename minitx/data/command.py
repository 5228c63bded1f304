"""``minitx tokenizer``: train byte-level byte pairs on texts."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minitx.base.checks import writable_file
from minitx.base.console import Printer, progress_bar
from minitx.base.options import Settings, add_options, option, read_options
from minitx.data.readers import LAYOUTS, read_documents
from minitx.data.streams import text_files
from minitx.data.tokenizers import BYTES, FileTokenizer

EXAMPLES = (
    ("minitx tokenizer stories.txt --vocabulary 5000", "Train a byte-pair tokenizer on a text."),
    ("minitx associate stories.txt --tokenizer tokenizer.json", "Train on the text in these tokens."))


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """What ``minitx tokenizer`` can be told."""

    texts: tuple[str, ...] = option((), "files, folders or patterns", positional=True,
                                    metavar="TEXT")
    vocabulary: int = option(10_000, "number of tokens; 256 of them are the bytes", least=BYTES + 1, metavar="V")
    layout: str | None = option(None, "how documents are separated in a .txt file; this is detected when it is not "
                                "given",
                                choices=tuple(LAYOUTS))
    out: str = option("tokenizer.json", "the file to write", metavar="FILE")
    force: bool = option(False, "overwrite the file if it is there")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx tokenizer`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status 0."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    options = read_options(Options, typed)
    if not options.texts:
        raise ValueError("no TEXT was typed; minitx tokenizer needs at least one to read")
    files = text_files(options.texts)
    writable_file(options.out)
    if Path(options.out).exists() and not options.force:
        raise ValueError(f"--out is {options.out}, a file that is there already; choose another one, or overwrite it "
                         "with --force")
    made = FileTokenizer.train(_documents(files, options.layout), n_vocab=options.vocabulary)
    made.save(options.out)
    found = len(made.vocabulary)
    fewer = f" (fewer than {options.vocabulary:,}, because no pair is left)" if found < options.vocabulary else ""
    Printer()(f"written {options.out}: {found:,} tokens{fewer}; minitx associate TEXT --tokenizer {options.out} "
              "counts them")
    return 0


def _documents(files: list[Path], layout: str | None) -> Iterator[str]:
    for file in files:
        with progress_bar(unit="B", unit_scale=True, desc=file.name) as bar:

            def progress(done, total, bar=bar):
                bar.total = total
                bar.update(done - bar.n)

            yield from read_documents(file, layout=layout, progress=progress)
