"""What a command shows while it runs: printed lines, progress on a terminal, and how long a job will take."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from minitx.base import compiling

LONG = 120.0  # seconds; a job that is estimated to take longer is announced
VERY_LONG = 600.0  # seconds; such a job is announced after its first step already
EVERY = 60.0  # seconds between two lines of progress where stderr is no terminal
MEASURED = 5.0  # seconds of work before an estimate is made


class Printer:
    """Prints every line when it is called, above a progress bar if there is one, and keeps the lines in ``lines``.

    They go to stdout, or to stderr where stdout is for a program that reads results.
    """

    def __init__(self, *, to_stderr: bool = False) -> None:
        self.lines: list[str] = []
        self.to_stderr = to_stderr

    def __call__(self, text: str = "") -> None:
        self.lines.append(text)
        try:
            stream = sys.stderr if self.to_stderr else sys.stdout
            tqdm.write(text, file=stream)
            stream.flush()
        except BrokenPipeError:  # nobody reads on (`| head`), but the run goes on and writes its files
            sys.stdout = open(os.devnull, "w")


def progress_bar(**settings: Any) -> Any:
    """A bar of tqdm if stderr is a terminal; else what takes its place, a :class:`Log`."""
    if sys.stderr.isatty():
        return tqdm(leave=False, **settings)
    return Log(settings.get("desc"), settings.get("total"), settings.get("iterable", ()))


class Log:
    """What is done of a job, and the time left, in a line on stderr every ``EVERY`` seconds; it is used as a bar is.

    The time in which kernels are compiled does not count.
    """

    def __init__(self, name: str | None, total: float | None, iterable: Iterable[Any] = ()):
        self.name, self.n, self.iterable = name or "training", 0.0, iterable
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.first: float | None = None  # what was done when the clock started: a run may go on
        self.began = self.shown = 0.0

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable:
            yield item
            self.update()

    def update(self, more: float = 1) -> None:
        """Add ``more`` to what is done, and print a line if the last one is ``EVERY`` seconds old."""
        self.n += more
        now = compiling.clock()
        if self.first is None:
            self.first, self.began, self.shown = self.n, now, now
        elif now - self.shown >= EVERY and self.total and self.n > self.first:
            self.shown = now
            left = (now - self.began) * (self.total - self.n) / (self.n - self.first)
            print(f"minitx: {self.name}: {self.n / self.total:.0%} done, about {duration(left)} left", file=sys.stderr,
                  flush=True)


def duration(seconds: float) -> str:
    """A time in words, such as "5 minutes": in seconds, minutes or hours, without decimals."""
    if seconds < LONG:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.0f} hours"


def read_with_bar(read: Callable[..., Any], path: str, **settings: Any) -> Any:
    """``read(path, progress=..., **settings)``, while a bar shows how much of the file is read."""
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        return read(path, progress=progress, **settings)


@contextmanager
def progress(name: str, steps: int, say: Callable[[str], object], remedy: str = "", *,
             title: str | None = None) -> Iterator[Callable[[int], None]]:
    """Gives the function to call with the number of every step: it moves a bar of ``steps`` steps, and a forecast.

    The bar has a ``title``; ``name`` and ``remedy`` are those of :class:`Forecast`.
    """
    forecast = Forecast(name, steps, say, remedy)
    with progress_bar(total=steps, unit="step", desc=title) as bar:

        def show(step: int) -> None:
            bar.update(step - bar.n)
            forecast(step)

        yield show


class Forecast:
    """Is called with the number of every step from 0 on, and says once how long the rest will take, if that is long.

    The clock starts after step 0, without the time in which kernels are compiled, and the shortest step counts,
    because the first steps of a new installation load or compile kernels. The first step is enough for a job of more
    than ``VERY_LONG``; others are judged by the steps of ``MEASURED`` seconds. ``remedy`` says which option makes the
    job shorter.
    """

    def __init__(self, name: str, steps: int, say: Callable[[str], object], remedy: str = ""):
        self.name, self.steps, self.say = name, steps, say
        self.remedy = f"; {remedy}" if remedy else ""
        self.first: int | None = None  # not 0 where a run goes on
        self.began = self.before = 0.0
        self.shortest, self.told = float("inf"), False

    def __call__(self, step: int) -> None:
        if self.first is None:
            self.first, self.began = step, compiling.clock()
            self.before = self.began
        elif not self.told:
            now = compiling.clock()
            self.shortest, self.before = min(self.shortest, now - self.before), now
            rest = self.shortest * (self.steps - step)
            if now - self.began >= MEASURED or rest > VERY_LONG:
                self.told = True
                taken = step - self.first
                judged = "its first step" if taken == 1 else f"its first {taken:,} steps"
                announce(self.name, rest, f"{judged}; Ctrl-C ends it and keeps what is done{self.remedy}", self.say)


def announce(name: str, seconds: float, judged_by: str, say: Callable[[str], object]) -> None:
    """Say that the job ``name`` will take about so many ``seconds`` more, if they are more than ``LONG``."""
    if seconds > LONG:
        say(f"{name} will take about {duration(seconds)} more, judged by {judged_by}")


def rise(losses: Any, *, mini_batches: bool = False) -> str | None:
    """The sentence that a training ended above its start, or that a loss is not finite; None if neither is so.

    ``losses`` (steps + 1,) are those of every step. Losses of ``mini_batches`` are noisy: the means of the first and of
    the last tenth are compared, and must differ by more than three standard errors.
    """
    losses = np.asarray(losses, np.float64)
    if not np.isfinite(losses).all():
        broken = np.flatnonzero(~np.isfinite(losses))[0]
        return f"the loss is not finite at step {broken:,}: the learning rate is too large"
    count = max(1, len(losses) // 10) if mini_batches else 1
    first, last = losses[:count], losses[-count:]
    error = np.hypot(first.std(), last.std()) / np.sqrt(count)
    if last.mean() - first.mean() <= 3 * error + 1e-14 * abs(first.mean()):
        return None
    return f"the loss rose from {first.mean():.4g} to {last.mean():.4g}: the learning rate is too large"
