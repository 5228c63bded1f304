"""What a command shows while it runs: printed lines, progress on a terminal, and how long a job will take."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

LONG = 120.0  # seconds; a job that is estimated to take longer is announced
MEASURED = 5.0  # seconds of work before an estimate is made


class Printer:
    """Prints every line when it is called, above a progress bar if there is one, and keeps the lines in ``lines``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str = "") -> None:
        self.lines.append(text)
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads on (`| head`), but the run goes on and writes its files
            sys.stdout = open(os.devnull, "w")


def progress_bar(**settings: Any) -> tqdm:
    """A bar of tqdm, which shows itself only if stderr is a terminal."""
    return tqdm(disable=not sys.stderr.isatty(), leave=False, **settings)


def read_with_bar(read: Callable[..., Any], path: str, **settings: Any) -> Any:
    """``read(path, progress=..., **settings)``, while a bar shows how much of the file is read."""
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        return read(path, progress=progress, **settings)


class Forecast:
    """Is called with the number of every step from 0 on, and says once how long the rest will take, if that is long.

    The clock starts after step 0, which compiles kernels.
    """

    def __init__(self, name: str, steps: int, say: Callable[[str], object]):
        self.name, self.steps, self.say = name, steps, say
        self.began, self.told = 0.0, False

    def __call__(self, step: int) -> None:
        if step == 0:
            self.began = time.perf_counter()
        elif not self.told and (seconds := time.perf_counter() - self.began) >= MEASURED:
            self.told = True
            announce(self.name, seconds / step * (self.steps - step),
                     f"its first {step:,} steps; Ctrl-C ends it and keeps what is done", self.say)


def announce(name: str, seconds: float, judged_by: str, say: Callable[[str], object]) -> None:
    """Say that the job ``name`` will take about so many ``seconds`` more, if they are more than ``LONG``."""
    if seconds > LONG:
        duration = f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.0f} hours"
        say(f"{name} will take about {duration} more, judged by {judged_by}")
