"""``minitx report``: the three theories at laptop scale, each trained beside what it predicts, on one page.

With a TEXT each theory is trained on it. Without one, associations are those of an embedded corpus, and topics and
samples of the next token are drawn from known laws, whose limits theory knows.
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
from minitx.base.options import add_options, as_typed, option, read_options
from minitx.base.page import Found, element, text
from minitx.next_token import command as next_token
from minitx.next_token import page as next_token_page
from minitx.topics import command_documents, command_text
from minitx.topics import page as topics_page

EXAMPLES = (
    ("minitx report", "Train for all three theories, and write minitx-report/index.html and results.json."),
    ("minitx report my.txt --out mine", "Train on a text of your own; the page names a theory that cannot use it."),
    ("minitx report --quick --seed 3", "The same page in a minute, with small sizes and other draws."))
LACKS = ("weights*.npz",)
# {option: value} of the runs, which together take less than three minutes on two cores
ASSOCIATIONS = {"vocabulary": 500, "length": 32, "windows": 400}
TOPICS = {"documents": 2000, "seeds": 1}
TOPICS_OF_TEXT = {"vocabulary": 400, "length": 64, "windows": 1500, "steps": 300, "attention_steps": 100}
SAMPLES_OF_TEXT = {"vocabulary": 60, "windows": 150, "contexts": 200, "steps": 2000}


@dataclass(frozen=True, kw_only=True)
class Options(base_options.Options):
    """The configuration of a run; ``results.json`` keeps it, and that of each theory."""

    command = "report"
    quick_note = "every theory at the sizes of its own --quick"
    text: str | None = option(None, "text to train on: a .txt, .jsonl or .json file, or a .gz or .zst of one; when "
                              "it is not given, an embedded corpus is used, and documents and samples of known laws",
                              positional=True, metavar="TEXT")
    out: str = option("minitx-report", "folder for index.html and results.json", metavar="DIR")


@dataclass(frozen=True)
class Job:
    """What a theory is trained on, and by which command."""

    says: str  # what is trained, as the terminal says it
    run: Callable[[Any, Callable[[str], None]], Outcome]
    options: type[base_options.Options]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Theory:
    """What the report runs of a theory, with a TEXT and without one, and where its part of the page is made."""

    key: str  # in results.json
    page: ModuleType
    known: Job
    of_text: Job


# In the order in which they are run: the quickest first. The page has its own order.
THEORIES = (
    Theory("next_token", next_token_page,
           Job("next token: attention on samples of known priorities", next_token.run, next_token.GeneratedOptions, {}),
           Job("next token: attention on prefixes of the text", next_token.run, next_token.TextOptions,
               SAMPLES_OF_TEXT)),
    Theory("associations", associations_page,
           Job("associations: one attention layer on an embedded corpus", associations.run, associations.Options,
               ASSOCIATIONS),
           Job("associations: one attention layer on the text", associations.run, associations.Options, ASSOCIATIONS)),
    Theory("topics", topics_page,
           Job("topics: values, embeddings and attention on documents of known topics", command_documents.run,
               command_documents.Options, TOPICS),
           Job("topics: embeddings and attention on windows of the text", command_text.run, command_text.Options,
               TOPICS_OF_TEXT)))
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
    ``curves``, ``stopped``, and ``text refused``, why it could not use the TEXT (null if it did, or there is none). A
    theory is absent if Ctrl-C ended the run before it.
    """
    if options.text is not None:
        read(configured(THEORIES[1].of_text, options, text=options.text))  # what cannot be read is refused at once
    outcomes: dict[str, Outcome] = {}
    results: dict[str, Any] = {}
    for number, theory in enumerate(THEORIES, start=1):
        configuration, outcome, refused = _train(theory, options, f"{number} of {len(THEORIES)}  ", say)
        outcomes[theory.key] = outcome
        results[theory.key] = {"configuration": configuration, **outcome.results, "text refused": refused,
                               "curves": svg.values(outcome.figures), "stopped": outcome.stopped}
        say(f"        {outcome.found}")
        if outcome.stopped and outcome.stopped.kind in STATUS:
            say(f"        stopped early: {outcome.stopped}")
            break
    stopped = next((one.stopped for one in outcomes.values() if one.stopped and one.stopped.kind in STATUS), None)
    return Outcome("minitx report: one attention layer beside three theories", results,
                   inside=lambda found, draw: inside(found, outcomes), found=_found(outcomes), stopped=stopped)


def _train(theory, options, number, say):
    """(configuration, outcome, why the theory could not use the text or None) of its run."""
    refused, kind = None, theory.of_text.options
    if options.text is not None:
        say(number + theory.of_text.says)
        try:
            configuration = configured(theory.of_text, options, text=options.text)
            return configuration, theory.of_text.run(configuration, lambda line: None), None
        except ValueError as error:
            if theory.key == "associations":  # it has refused what cannot be read before
                raise
            refused = f"minitx {kind.command} cannot use {options.text}: {as_typed(error, kind)}"
            say(f"        {refused}")
            number = " " * len(number)
    say(number + theory.known.says)
    configuration = configured(theory.known, options)
    return configuration, theory.known.run(configuration, lambda line: None), refused


def configured(job: Job, options: Options, **typed: Any) -> Any:
    """The configuration of a job, with what is ``typed`` besides; with ``--quick``, that of its own command with it."""
    settings: dict[str, Any] = {"quick": True} if options.quick else job.settings
    return read_options(job.options, settings | typed | {"seed": options.seed, "threads": options.threads,
                                                         "out": options.out})


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
        if refused := found[key]["text refused"].value:
            yield text(f"This theory was trained on what is drawn from known laws, and not on the text: {refused}.")
    for key in shown:
        yield pages[key].part(found[key], svg.figures(outcomes[key].figures, key))
