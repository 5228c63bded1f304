"""How every command runs: its folder, its printed lines, its files and its exit status."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context

from minitx.base import compiling, page, parallel, style, svg
from minitx.base.checkpoint import Checkpoint
from minitx.base.checks import atomic, output_folder
from minitx.base.console import Printer
from minitx.base.folder import CHECKPOINT, RESULTS, identity, is_finished, require_free
from minitx.base.options import HANDLING, Options, as_typed, quick_line, typed_name
from minitx.base.report import environment, plain, write_json

# {kind of what stopped a run: exit status}; it is no failure that nothing was left to do.
STATUS = {"interrupted": 130, "diverged": 1}


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a command found and will write."""

    title: str  # the heading of the HTML page
    results: dict[str, Any]  # what results.json holds besides the configuration and the environment
    figures: dict[str, tuple[Any, str]] = field(default_factory=dict)  # {file name: (matplotlib Figure, caption)}
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # .npz files, {file name: {name: array}}
    stopped: Any = None  # a minitx.model.descent.Stopped, which says why training ended early; None when it did not
    comparisons: dict[str, tuple[float, float]] = field(default_factory=dict)  # {what: (trained, predicted by theory)}
    inside: page.Builder | None = None  # the page of the results; None shows every figure
    found: str = ""  # the sentence that says what was found


def run_command(options: Options, typed: dict[str, Any], run: Callable[..., Outcome], file_names: tuple[str, ...], *,
                resumable: bool = False) -> int:
    """Run a command in its folder and write what it found.

    Parameters
    ----------
    options : Options
        The configuration of the run.
    typed : dict {name: value}
        The options that were typed; results.json keeps them besides the configuration.
    run : callable
        ``run(options, say) -> Outcome``; ``say(line)`` prints. If it is ``resumable``, it is called as ``run(options,
        say, checkpoint)`` and keeps its parts in the :class:`Checkpoint`, so that ``--resume`` goes on with it.
    file_names : tuple of str
        All figures that the command may write, and all weights but weights.npz. What an earlier run left of them in the
        folder is deleted before anything is written, so that old files never stand beside new ones.

    Returns
    -------
    int
        The exit status: 0, or 1 after training that diverged or a comparison outside ``--check``, or 130 after Ctrl-C.
        Files are written in every case.
    """
    folder, known, say = Path(options.out), identity(options), Printer(to_stderr=options.json)
    if getattr(options, "resume", False):
        if is_finished(options, known):
            say(f"{folder}/ is finished; {folder / RESULTS} has its results, and nothing is left to do")
            _print_results(options)
            return 0
    else:
        require_free(options, known)
    absent = [one for one in (folder, *folder.parents) if not one.exists()]
    output_folder(options.out)
    checkpoint = _checkpoint(folder / CHECKPOINT, options, known | {"asked": _without_handling(typed)}, say)
    try:
        if resumable:
            checkpoint.write()
        _set_threads(options.threads, say)
        if line := quick_line(options, typed):
            say(line)
        with rc_context({"font.family": list(style.fonts())}), compiling.told():
            outcome = run(options, say, checkpoint) if resumable else run(options, say)
    except BaseException as error:
        if not getattr(options, "resume", False) and (isinstance(error, ValueError) or not checkpoint.parts):
            checkpoint.path.unlink(missing_ok=True)  # nobody will go on with a run that is refused
        for created in absent:  # a run that is refused leaves no folder
            with suppress(OSError):
                created.rmdir()
        if isinstance(error, MemoryError):
            raise ValueError(_not_enough_memory(options)) from error
        if isinstance(error, (ValueError, OSError, FloatingPointError)):
            raise ValueError(as_typed(error, type(options))) from error
        raise
    _delete_earlier(folder, [*file_names, *outcome.arrays, page.FILE, "weights.npz", RESULTS])
    for name, arrays in outcome.arrays.items():
        with atomic(folder / name, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    about = {"command": options.command, "asked": _without_handling(typed),
             "configuration": _without_handling(plain(options)), "inputs": known["inputs"]}
    results = plain(about | {"environment": environment()} | outcome.results
                    | {"comparisons": _compared(outcome), "curves": svg.values(outcome.figures),
                       "stopped": outcome.stopped})
    write_json(folder / RESULTS, results)
    _write_figures_and_page(folder, outcome, results)
    say(f"\nwritten to {folder}/: {', '.join([*outcome.figures, page.FILE, *outcome.arrays, RESULTS])}")
    if outcome.stopped and outcome.stopped.kind == "interrupted" and resumable:
        say(f"minitx {options.command} --resume --out {folder} goes on with this run")
    else:
        _delete_earlier(folder, [CHECKPOINT])
    within = _within(getattr(options, "check", None), _compared(outcome), say)
    say(" ".join(filter(None, [outcome.found, f"Open {folder / page.FILE} in a browser."])))
    _print_results(options)
    return (STATUS.get(outcome.stopped.kind, 0) if outcome.stopped else 0) or (0 if within else 1)


def _compared(outcome):
    """{what: its numbers and their relative error} of what training and theory are compared in."""
    return {what: {"trained": trained, "predicted": predicted,
                   "relative error": abs(trained - predicted) / abs(predicted) if predicted else math.inf}
            for what, (trained, predicted) in outcome.comparisons.items()}


def _within(limit, compared, say):
    """Whether all comparisons are within ``limit``, which is said; what is not finite is outside."""
    if limit is None:
        return True
    outside = {what: one for what, one in compared.items() if not one["relative error"] <= limit}
    say(f"\n--check {limit:g}: " + (f"{len(compared) - len(outside)} of {len(compared)} comparisons are within it"
                                    if compared else "there is nothing to compare"))
    for what, one in outside.items():
        say(f"outside: {what}: trained {one['trained']:.6g}, predicted {one['predicted']:.6g}, relative error "
            f"{one['relative error']:.2g}")
    return bool(compared) and not outside


def _print_results(options):
    """With ``--json``, print what results.json holds."""
    if options.json:
        print((Path(options.out) / RESULTS).read_text(encoding="utf-8"), end="")


def _checkpoint(path, options, about, say):
    """The checkpoint of this run; of an earlier one, only what ``--resume`` goes on with is left."""
    if not getattr(options, "resume", False):
        _delete_earlier(path.parent, [path.name])
    return Checkpoint(path, every=getattr(options, "checkpoint_every", None), about=about, say=say)


def _write_figures_and_page(folder, outcome, results):
    """Write the figures and the page of an outcome; the page's numbers are those of ``results``, as in results.json.

    An outcome that does not say what is inside has a page of all its figures.
    """
    with rc_context({"font.family": list(style.fonts())}):
        draw = svg.figures(outcome.figures, folder=folder)
        page.write(folder / page.FILE, outcome.title, outcome.inside(page.Found(results), draw) if outcome.inside else
                   map(draw, outcome.figures))


def _set_threads(asked, say):
    """Use as many threads as were asked for, but no more than there are cores; None is as many as there are."""
    parallel.set_threads(None)
    cores = parallel.get_threads()
    if asked is not None and asked > cores:
        say(f"--threads {asked:,}: {cores} threads are used, because there are no more cores")
    parallel.set_threads(None if asked is None else min(asked, cores))


def _without_handling(settings):
    return {name: value for name, value in settings.items() if name not in HANDLING}


def _delete_earlier(folder, names):
    """Delete the files of an earlier run, and what a killed run left of its temporary ones."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
        for left in folder.glob(f".{name}.*"):
            left.unlink(missing_ok=True)


def _not_enough_memory(options):
    """The sentence that names the largest sizes that were asked for."""
    sizes = {name: value for name, value in vars(options).items()
             if type(value) is int and value >= 100 and name not in ("seed", "threads")}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return f"there is not enough memory for {', '.join(f'{typed_name(name)} {sizes[name]:,}' for name in largest)}; " \
           "use smaller values"
