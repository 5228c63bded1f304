"""Table 2 of Im, Oh, Fang, Li (ICLR 2026), for one layer: leading terms of a text in byte pairs, beside the paper.

    python experiments/byte_pairs.py [TINYSTORIES.txt] [--quick] [--out DIR]

The paper trains three layers at V = 10,000 for ten epochs: 320 steps and s eta = 1.6, if its rate is that of Table 1.
This script trains byte pairs on the text, and one layer at the same vocabulary, to this s eta and to that of Table 1,
in five steps on few windows, in float32. Without a text it runs on the `stories` corpus, which has too few words for
10,000 tokens. It needs `pip install 'minitx[bpe]'`.
"""

import numpy as np
from associations import NAMES, train
from running import block, command_line, paragraphs, refuse, write_down

from minitx import associations, builtin_corpus, load_corpus
from minitx.base.tables import number
from minitx.data import FileTokenizer
from minitx.data.readers import read_documents

PAPER_TABLE_2 = {"W": 0.999914, "V": 0.998800, "W_O": 0.997891}
TIMES, STEPS = (1.6, 16.0), 5  # s eta at the end of each run, and its steps


def section(results):
    """Markdown of what byte_pairs.json holds."""
    runs = results["runs"]
    rows = [(label, number(PAPER_TABLE_2.get(name), 6),
             *(number(np.nanmin([float(record["cosine"][name]) for record in run["records"]]), 6) for run in runs))
            for name, label in NAMES.items()]
    found, asked = results["vocabulary"], results["asked"]
    fewer = f", fewer than the paper's {asked:,}: with these every word of the text is one token, and no pair is left"
    losses = [f"to {run['records'][-1]['loss']:.3f} at s eta = {run['time']:g}" for run in runs]
    return paragraphs(
        f"## Leading terms of byte pairs, beside the paper: {results['corpus'][0].split()[-1]}",
        "```text\n" + "\n".join(results["corpus"]) + "\n```",
        f"The vocabulary holds {found:,} tokens{fewer if found < asked else ''}.",
        "As Table 2 of the paper does, the table gives the lowest cosine of a trained weight with its leading term, "
        f"from the first step to s eta. One layer is trained for {STEPS} steps with full batches, in which "
        f"{results['distinct']:,} different tokens occur; the loss falls from {results['first_loss']:.3f} "
        f"{' and '.join(losses)}. The paper takes 320 small steps, on other windows each; its three layers leave the "
        "leading terms sooner.",
        block(("weight ", "paper, 3 layers", *(f"here, 1 layer, s eta = {run['time']:g}" for run in runs)), rows))


def main():
    """Train the tokenizer and the layer, and write and print the results."""
    arguments = command_line("byte_pairs", __doc__, quick="300 tokens, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    n_vocab, length, n_windows = (300, 32, 32) if arguments.quick else (10_000, 64, 64)
    path = arguments.text
    if path is None:
        stories, path = builtin_corpus("stories", n_documents=2048), arguments.out / "stories.txt"
        path.write_text("\n".join(" ".join(stories.vocabulary[i] for i in row) for row in stories.tokens),
                        encoding="utf-8")
    try:
        tokenizer = FileTokenizer.train(read_documents(path), n_vocab=n_vocab)
    except ValueError as error:
        refuse(error)
    corpus = load_corpus(path, tokenizer=tokenizer, length=length, n_windows=n_windows)
    batch = corpus.batch()
    statistics = associations.statistics(batch, len(corpus.vocabulary))
    runs = {time: train(batch, statistics, time=time, steps=STEPS, batch_size=None) for time in TIMES}
    write_down("byte_pairs", arguments, {
        "corpus": corpus.summary().splitlines(), "asked": n_vocab, "vocabulary": len(corpus.vocabulary),
        "distinct": len(np.unique(batch.tokens)),
        "first_loss": runs[TIMES[0]][1].loss[0],
        "runs": [{"time": time, "records": records} for time, (records, _) in runs.items()]}, section)


if __name__ == "__main__":
    main()
