"""The model composed of leading terms alone: its loss and predictions beside the trained model's, over training.

    python experiments/composed.py [TINYSTORIES.txt] [--quick] [--out DIR]

One layer is trained on the full batch as ``minitx associate`` trains it. At some steps the trained weights and the
leading terms of that step, which are known without training, predict the next tokens of the windows that were trained
on, and of windows that were held out. This takes about two minutes on two cores.
"""

from running import block, command_line, paragraphs, write_down

from minitx import OneHotWeights, associations, builtin_corpus, descend, load_corpus

HEADS = ("s eta", "loss, trained", "leading terms", "share explained", "same token", "total variation")


def train(batch, held_out, n_vocab, *, eta, steps):
    """Rows of the trained weights beside their leading terms, on the ``batch`` and on windows that are ``held_out``."""
    statistics, rows = associations.statistics(batch, n_vocab), []
    at = {max(1, round(steps * part)) for part in (.01, .03, .1, .2, .3, .4, .5, .75, 1)}

    def record(step, loss, weights, gradient):
        if step in at:
            leading = associations.leading_weights(statistics, steps=step, learning_rate=eta)
            rows.append({"s eta": step * eta, "trained on": associations.explained(weights, leading, batch),
                         "held out": associations.explained(weights, leading, held_out)})

    start = OneHotWeights.zeros(n_vocab, batch.tokens.shape[1])
    run = descend(start, batch, learning_rate=eta, steps=steps, callback=record)
    if run.stopped:
        raise SystemExit(f"training ended early: {run.stopped}")
    return rows


def section(results):
    """Markdown of what composed.json holds."""
    tables = []
    for windows in ("trained on", "held out"):
        tables += [f"These are the values on the windows that were {windows}.", block(HEADS, [
            (f"{row['s eta']:g}", f"{row[windows]['loss']:.4f}", f"{row[windows]['predicted_loss']:.4f}",
             f"{row[windows]['share']:.4f}", f"{row[windows]['same_token']:.4f}",
             f"{row[windows]['total_variation']:.4f}") for row in results["rows"]])]
    best = min(results["rows"], key=lambda row: row["held out"]["predicted_loss"])
    return paragraphs(
        f"## The model composed of leading terms: {results['corpus'][0].split()[-1]}",
        "```text\n" + "\n".join(results["corpus"]) + "\n```",
        f"One layer is trained on the full batch with eta = {results['eta']:g}. The leading terms are the weights of a "
        "second model, which is not trained. The column `share explained` is the decrease of the loss from zero "
        "weights to the leading terms, divided by its decrease from zero weights to the trained weights. The last two "
        "columns are the share of positions at which both models have the same most probable token, and the mean total "
        "variation between their probabilities.",
        *tables,
        f"The held-out loss of the leading terms is lowest at s eta = {best['s eta']:g}, where it is "
        f"{best['held out']['predicted_loss']:.4f}. The held-out loss of the trained model is "
        f"{best['held out']['loss']:.4f} at the same s eta, and {results['rows'][-1]['held out']['loss']:.4f} at the "
        "end of training.")


def main():
    """Train, and write and print the results."""
    arguments = command_line("composed", __doc__, quick="small sizes, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    n_vocab, length, n_windows, steps = (60, 8, 48, 20) if arguments.quick else (600, 64, 768, 200)
    size = {"n_vocab": n_vocab, "length": length, "n_windows": n_windows}
    corpus = load_corpus(arguments.text, **size) if arguments.text else builtin_corpus("stories", **size)
    batch, n_trained = corpus.batch(), 2 * n_windows // 3
    rows = train(batch.take(slice(0, n_trained)), batch.take(slice(n_trained, None)), len(corpus.vocabulary), eta=1.0,
                 steps=steps)
    write_down("composed", arguments, {"corpus": corpus.summary().splitlines(), "eta": 1.0, "rows": rows}, section)


if __name__ == "__main__":
    main()
