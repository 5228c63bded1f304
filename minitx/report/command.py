"""``minitx report``: the three theories at laptop scale, each trained beside what it predicts, on one page.

Without a TEXT the associations are those of an embedded corpus. Topics and samples of the next token are drawn from
known laws, whose limits theory knows.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from minitx.associations import command as associations
from minitx.associations import page as associations_page
from minitx.associations.command_corpus import read
from minitx.base import options as base_options
from minitx.base import svg
from minitx.base.command import STATUS, Outcome, run_command
from minitx.base.options import add_options, option, read_options
from minitx.base.page import Found, element, text
from minitx.next_token import command as next_token
from minitx.next_token import page as next_token_page
from minitx.topics import command_documents as topics
from minitx.topics import page as topics_page

EXAMPLES = (
    ("minitx report", "Train for all three theories, and write minitx-report/index.html and results.json."),
    ("minitx report my.txt --out mine", "The associations are those of your own text."),
    ("minitx report --quick --seed 3", "The same page in a minute, with small sizes and other draws."))
# {option: value} of the runs, which together take less than three minutes on two cores
ASSOCIATIONS = {"vocabulary": 500, "length": 32, "windows": 400}
TOPICS = {"documents": 2000, "seeds": 1}


@dataclass(frozen=True, kw_only=True)
class Options(base_options.Options):
    """The configuration of a run; ``results.json`` keeps it, and that of each theory."""

    command = "report"
    quick_note = "every theory at the sizes of its own --quick"
    text: str | None = option(None, "text whose associations are learned: .txt, .jsonl, .json, or .gz, .zst of each; "
                              "else an embedded corpus", positional=True, metavar="TEXT")
    out: str = option("minitx-report", "folder for index.html and results.json", metavar="DIR")


@dataclass(frozen=True)
class Theory:
    """What the report runs of a theory, and where its part of the page is made."""

    key: str  # in results.json
    says: str  # what is trained, as the terminal says it
    run: Callable[[Any, Callable[[str], None]], Outcome]
    options: type[base_options.Options]
    settings: dict[str, Any]
    page: ModuleType


# In the order in which they are run: the quickest first. The page has its own order.
THEORIES = (
    Theory("next_token", "next token: attention on samples of known priorities", next_token.run,
           next_token.GeneratedOptions, {}, next_token_page),
    Theory("associations", "associations: one attention layer on a text", associations.run, associations.Options,
           ASSOCIATIONS, associations_page),
    Theory("topics", "topics: values, embeddings and attention on documents of known topics", topics.run,
           topics.Options, TOPICS, topics_page))
ORDER = ("associations", "topics", "next_token")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``minitx report`` on an argparse parser."""
    add_options(parser, {"options": Options})


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; returns the exit status of :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    if typed.get("text") == "":
        raise ValueError("TEXT is empty; it must name a file, or be left out")
    return run_command(read_options(Options, typed), typed, run, ())


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Run one theory after the other; ``say(line)`` receives what is found of each, as it becomes known.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`), are the theories:
    ``next_token``, ``associations`` and ``topics``. Each holds its own ``configuration``, the keys of its command,
    ``curves`` and ``stopped``. A theory is absent if Ctrl-C ended the run before it.
    """
    if options.text is not None:
        read(configured(THEORIES[1], options))  # a text that cannot be read is refused before any work
    outcomes: dict[str, Outcome] = {}
    results: dict[str, Any] = {}
    for number, theory in enumerate(THEORIES, start=1):
        say(f"{number} of {len(THEORIES)}  {theory.says}")
        configuration = configured(theory, options)
        outcome = outcomes[theory.key] = theory.run(configuration, lambda line: None)
        results[theory.key] = {"configuration": configuration, **outcome.results,
                               "curves": svg.values(outcome.figures), "stopped": outcome.stopped}
        say(f"        {outcome.found}")
        if outcome.stopped and outcome.stopped.kind in STATUS:
            say(f"        stopped early: {outcome.stopped}")
            break
    stopped = next((one.stopped for one in outcomes.values() if one.stopped and one.stopped.kind in STATUS), None)
    return Outcome("minitx report: one attention layer beside three theories", results,
                   inside=lambda found, draw: inside(found, outcomes), found=_found(outcomes), stopped=stopped)


def configured(theory: Theory, options: Options) -> Any:
    """The configuration of a theory's run; with ``--quick``, that of its own command with it."""
    typed: dict[str, Any] = {"quick": True} if options.quick else dict(theory.settings)
    if options.text is not None and theory.key == "associations":
        typed["text"] = options.text
    return read_options(theory.options, typed | {"seed": options.seed, "threads": options.threads, "out": options.out})


def _found(outcomes):
    """The sentence that names the theories that were run."""
    return f"{len(outcomes)} of {len(THEORIES)} theories were trained, each beside what it predicts."


def inside(found: Found, outcomes: dict[str, Outcome]) -> Iterator[Any]:
    """The page: what is trained, the number that matters of each theory, and the part of each."""
    pages = {theory.key: theory.page for theory in THEORIES if theory.key in outcomes}
    shown = [key for key in ORDER if key in pages]
    yield text("minitx trains one attention layer by explicit gradient descent. Forward and backward pass are written "
               "by hand, so that the exact gradient can be split into named terms, and the weights can be set beside "
               "the formulas that theory has for them. This page shows three such theories: what each trains, the one "
               "number that says whether theory and training agree, and where the theory ends.")
    yield text("Move the sliders through training, point at a curve to read its values, type a word to see what goes "
               "with it. Every number here stands in results.json; pointing at a number shows where.")
    for key in shown:
        yield element("p", element("a", pages[key].TITLE, href=f"#{pages[key].ID}"), class_="label")
        yield from list(pages[key].headlines(found[key]))[:1]
    for key in shown:
        yield pages[key].part(found[key], svg.figures(outcomes[key].figures, key))
