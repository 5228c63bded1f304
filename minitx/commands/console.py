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
    """Exit status of a run that ended early (``Trajectory.stopped``): 0 if it did not, 130 if interrupted, 1 if it diverged."""
    return 0 if stopped is None else 130 if stopped.startswith("interrupted") else 1
