"""What commands share: printed lines, progress on a terminal, an estimate of long jobs, what --quick lowers, the exit status."""

import os
import sys
import time

from tqdm import tqdm

LONG = 120.0  # seconds: what is estimated to take longer is announced
MEASURED = 5.0  # seconds of steps that an estimate is taken from


class Printer:
    """Prints lines as they become known, beside a progress bar if there is one, and keeps them in ``lines``."""

    def __init__(self):
        self.lines = []

    def __call__(self, text=""):
        self.lines.append(text)
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough: what is written is written all the same
            sys.stdout = open(os.devnull, "w")


def progress_bar(**settings):
    """A tqdm bar on stderr, if that is a terminal."""
    return tqdm(disable=not sys.stderr.isatty(), leave=False, **settings)


class Forecast:
    """Called with the number of every step from 0 on; says once how long the rest will take, if that is long.

    The estimate is taken from the first steps. Step 0 starts the clock, so that compiling is not counted.
    """

    def __init__(self, name, steps, say):
        self.name, self.steps, self.say = name, steps, say
        self.began = self.told = None

    def __call__(self, step):
        if step == 0:
            self.began = time.perf_counter()
        elif not self.told and (seconds := time.perf_counter() - self.began) >= MEASURED:
            self.told = True
            announce(self.name, seconds / step * (self.steps - step),
                     f"its first {step:,} steps; Ctrl-C ends it and keeps what is done", self.say)


def announce(name, seconds, judged_by, say):
    """Say in one line that ``name`` will take about so many ``seconds`` more, if they are more than ``LONG``."""
    if seconds > LONG:
        duration = f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.0f} hours"
        say(f"{name} will take about {duration} more, judged by {judged_by}")


def lower(options, limits):
    """Lower ``options`` (frozen; ``asked`` is an empty dict) to ``limits`` {name: most}, as --quick does.

    ``options.asked`` keeps what was asked for: {name: value} of those that change. None asks for as much as there is.
    """
    for name, most in limits.items():
        value = getattr(options, name)
        if value is None or value > most:
            options.asked[name] = value
            object.__setattr__(options, name, most)


def status(stopped):
    """Exit status of a run, by its :class:`minitx.model.descent.Stopped` or None: 130 if it was interrupted, 1 if it diverged.

    0 if it took all its steps, or as many as there were to take: a gradient that is exactly 0, or data that ended, is no failure.
    """
    return {"interrupted": 130, "diverged": 1}.get(stopped.kind, 0) if stopped else 0
