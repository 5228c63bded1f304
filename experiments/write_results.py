"""Writes RESULTS.md: every measured table, from the JSON files of full runs in experiments/recorded/.

    python experiments/write_results.py [FOLDER ...]

Each FOLDER holds the JSON file of an experiment that has just been run in full. It is copied to recorded/ first,
without its long series, which only figures need. Without a FOLDER, RESULTS.md is written again from what is recorded.
"""

import importlib
import sys
from pathlib import Path

from running import paragraphs, read, refuse

from minitx.base.checks import atomic
from minitx.base.report import write_json

HERE = Path(__file__).resolve().parent
RECORDED, RESULTS = HERE / "recorded", HERE / "RESULTS.md"
# {name of the recorded run: the command that makes it}; RESULTS.md has the sections in this order
RUNS = {
    "associations": "experiments/associations.py TINYSTORIES.txt",
    "associations_stories": "experiments/associations.py --out results/associations_stories",
    "associations_layers": "experiments/associations.py TINYSTORIES.txt --layers 3 --out results/associations_layers",
    "byte_pairs": "experiments/byte_pairs.py TINYSTORIES.txt",
    "reduced": "experiments/reduced.py TINYSTORIES.txt",
    "composed": "experiments/composed.py TINYSTORIES.txt",
    "tolerance": "experiments/tolerance.py TINYSTORIES.txt",
    "closures": "experiments/closures.py TINYSTORIES.txt",
    "reduced_layers": "experiments/reduced_layers.py TINYSTORIES.txt",
    "expansion": "experiments/expansion.py TINYSTORIES.txt",
    "topics": "experiments/topics.py",
    "topics_optimisers": "experiments/topics.py --optimisers --out results/topics_optimisers",
    "topics_stages": "experiments/topics_stages.py",
    "topics_text": "experiments/topics_text.py TINYSTORIES.txt",
    "next_token": "experiments/next_token.py",
    "next_token_paths": "experiments/next_token_paths.py",
    "language_model": "experiments/language_model.py TINYSTORIES.txt",
    "large_model": "experiments/large_model.py",
    "benchmark": "experiments/benchmark.py",
    "benchmark_next_token": "experiments/benchmark_next_token.py",
    "benchmark_counts": "experiments/benchmark_counts.py TINYSTORIES.txt",
}
HEAD = """# Measured results

`experiments/write_results.py` has written this file from the JSON files in `experiments/recorded/`, and a test holds it
to them. Each section names the command that measured it. `TINYSTORIES.txt` stands for the first 1,000 stories of
TinyStories, one story a line, which are not part of this repository."""


def script_of(name):
    """The module of the experiment that makes the recorded run ``name``."""
    return importlib.import_module(Path(RUNS[name].split()[0]).stem)


def record(folder):
    """Copy the JSON file of a full run from ``folder`` to recorded/, under the name of the folder."""
    name = Path(folder).resolve().name
    if name not in RUNS:
        refuse(f"{folder} is called {name}; a recorded run is called one of {', '.join(RUNS)}")
    results = read(Path(folder) / f"{script_of(name).__name__}.json")
    if results["quick"] or results.get("stopped"):
        refuse(f"{folder} holds a run with --quick or one that was stopped; RESULTS.md shows full runs only")
    RECORDED.mkdir(exist_ok=True)
    write_json(RECORDED / f"{name}.json", {key: value for key, value in results.items() if key != "series"})


def section(name):
    """The section of RESULTS.md about the run ``name``; where it is not recorded, the command that will write it."""
    path, command = RECORDED / f"{name}.json", f"`python {RUNS[name]}`"
    if not path.exists():
        return paragraphs(f"## {name}", f"No run is recorded yet. {command} makes it.")
    results = read(path)
    machine = results["environment"]
    by = (f"Measured by {command} with {machine['threads']} threads, Python {machine['python']}, NumPy "
          f"{machine['packages']['numpy']} and numba {machine['packages']['numba']}.")
    return paragraphs(script_of(name).section(results), by)


def document():
    """The text of RESULTS.md."""
    return paragraphs(HEAD, *map(section, RUNS)) + "\n"


def main():
    """Record the folders that were named, and write RESULTS.md."""
    for folder in sys.argv[1:]:
        record(folder)
    with atomic(RESULTS) as file:
        file.write(document())


if __name__ == "__main__":
    main()
