"""What commands share: lines that are printed and kept, progress on a terminal, the exit status of a run."""

import os
import sys

from tqdm import tqdm


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


def status(stopped):
    """Exit status of a run, by its :class:`minitx.descent.Stopped` or None: 130 if it was interrupted, 1 if it diverged.

    0 if it took all its steps, or as many as there were to take: a gradient that is exactly 0, or data that ended, is no failure.
    """
    return {"interrupted": 130, "diverged": 1}.get(stopped.kind, 0) if stopped else 0
