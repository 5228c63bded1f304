"""Topics of a real text beside what one attention layer learns from it, for three seeds: ``minitx topics TEXT``.

    python experiments/topics_text.py [TINYSTORIES.txt] [--quick] [--out DIR]

The command is run with the seeds 0, 1 and 2, of training and of the fit of the topics; a minute each. It needs
scikit-learn. Without a text it is run on the `stories`, written to a file first.
"""

import subprocess
import sys

from running import block, command_line, paragraphs, read, write_down

from minitx import builtin_corpus
from minitx.base.tables import number

QUANTITIES = {"embedding products": "inner products of embeddings", "embedding cosines": "cosines of embeddings",
              "attention": "attention times length, all occurrences",
              "attention by pair": "attention times length, each pair of words once"}


def section(results):
    """Markdown of what topics_text.json holds."""
    runs = results["runs"].values()
    rows = [(label, *(number(run[name]["difference"], 2) for run in runs),
             *(number(run[name]["p_value"], 3) for run in runs)) for name, label in QUANTITIES.items()]
    seeds = list(results["runs"])
    heads = *(f"seed {seed}" for seed in seeds), *(f"p, seed {seed}" for seed in seeds)
    return paragraphs(
        f"## Topics of a text: {results['text']}",
        "The table gives the average over pairs of words of one topic minus the average over pairs of words of two "
        f"topics, for the seeds {', '.join(seeds)}, and its p-value: the share of {results['permutations']} random "
        "permutations of the topics among the words whose difference is at least as large. A few frequent pairs decide "
        "attention over all occurrences, so its difference varies more by chance.",
        block(("same topic minus different topic ", *heads), rows))


def run(text, seed, folder, quick):
    """What results.json holds after ``minitx topics``."""
    command = [sys.executable, "-m", "minitx", "topics", str(text), "--seed", str(seed), "--out", str(folder)]
    subprocess.run(command + ["--quick"] * quick, check=True, stdout=subprocess.DEVNULL)
    return read(folder / "results.json")


def main():
    """Run the command three times, and write and print the results."""
    arguments = command_line("topics_text", __doc__, quick="one seed, and the command's own --quick",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    text = arguments.text or arguments.out / "stories.txt"
    if not arguments.text:
        corpus = builtin_corpus("stories", n_vocab=3000, length=127, n_windows=2048)
        told = (" ".join(corpus.vocabulary[token] for token in window) for window in corpus.tokens)
        text.write_text("\n".join(told), encoding="utf-8")
    found = {seed: run(text, seed, arguments.out / f"seed{seed}", arguments.quick)
             for seed in range(1 if arguments.quick else 3)}
    write_down("topics_text", arguments, {
        "text": found[0]["corpus"]["name"], "permutations": found[0]["configuration"]["permutations"],
        "runs": {seed: {name: {key: results["tests"][name][key] for key in ("difference", "p_value")}
                        for name in QUANTITIES} for seed, results in found.items()}}, section)


if __name__ == "__main__":
    main()
