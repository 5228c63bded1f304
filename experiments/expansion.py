"""How far the power series of training in the learning rate goes: partial sums beside exact training from zero.

    python experiments/expansion.py [TINYSTORIES.txt] [--quick] [--out DIR]

Gradient descent from zero is a power series in eta whose coefficients :func:`minitx.associations.expansion.expand`
computes exactly. On 300 windows of 32 tokens (V = 300), ten orders are set beside training with eta = 1, full batch, in
float64. Without a text the script reads the `stories` corpus. It takes a minute or two.
"""

import numpy as np
from running import block, command_line, paragraphs, write_down

from minitx import OneHotWeights, agreement, builtin_corpus, descend, load_corpus
from minitx.associations import expansion

SIZE, ORDER, STEPS = {"n_vocab": 300, "length": 32, "n_windows": 300}, 10, (10, 20, 30, 40)
SMALL_SIZE, SMALL_ORDER = {"n_vocab": 60, "length": 12, "n_windows": 40}, 5
ORDERS = (4, 6, 8, 10)  # of the partial sums; 4 is the least that holds the leading term of every weight


def section(results):
    """Markdown of what expansion.json holds."""
    radius = ", ".join(f"{float(value):.0f} ({name})" for name, value in results["radius"].items())
    rows = results["rows"]
    return paragraphs(
        f"## The expansion in the learning rate: {results['corpus'][0].split()[-1]}",
        "```text\n" + "\n".join(results["corpus"]) + "\n```",
        "The table gives the relative error of partial sums, |trained - sum| / |sum|. The learning rate is eta = 1, so "
        f"that s steps have s eta = s. The expansion was computed to order {results['order']}. The column `order` is "
        "the order of the last term of a sum; 4 is the lowest order at which a sum holds all leading terms.",
        block(("s eta", "order", *rows[0]["error"]),
              [(row["steps"], row["order"], *(f"{float(value):.1e}" for value in row["error"].values()))
               for row in rows]),
        "The term of the last order reaches 1% of the term of the first at the following values of s eta, which is "
        f"about where the sum of all orders stops being accurate: {radius}.")


def main():
    """Expand, train, and write and print the results."""
    arguments = command_line("expansion", __doc__, quick="small sizes and fewer orders, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    size, order = (SMALL_SIZE, SMALL_ORDER) if arguments.quick else (SIZE, ORDER)
    own = arguments.text
    corpus = load_corpus(own, **size) if own else builtin_corpus("stories", n_documents=2048, **size)
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    series = expansion.expand(batch, n_vocab, order=order)
    start = OneHotWeights.zeros(n_vocab, corpus.length, dtype=np.float64)
    trained = descend(start, batch, learning_rate=1.0, steps=STEPS[-1], keep=STEPS).kept
    rows = [{"steps": steps, "order": m, "error": agreement(
                trained[steps], series.weights(steps=steps, learning_rate=1.0, order=m)).relative_error}
            for steps in STEPS for m in ORDERS if m <= order]
    write_down("expansion", arguments, {"corpus": corpus.summary().splitlines(), "order": order, "rows": rows,
                                        "radius": series.radius()}, section)


if __name__ == "__main__":
    main()
