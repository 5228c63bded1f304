"""Reduced dynamics for two layers: what was tried, and how long each version holds.

    python experiments/reduced_layers.py [TINYSTORIES.txt] [--quick] [--out DIR]

For one layer, reduced dynamics replaces the softmax of single contexts by that of cells of contexts
(``experiments/reduced.py``). Here the same is tried for two layers. Attention, of both layers, is exact and a function
of the present weights; only the softmax of the outputs F is closed. The positions of each token are cut into cells of
equal size along the direction in which F - W_O[x_t] varies most, and the probabilities of a position are those of the
mean output of its cell, to first order, or with a Jacobian of the softmax times its deviation from that mean:

- ``mean``: p = softmax(Fbar)
- ``common Jacobian``: p + J (F - Fbar) with one J for all cells, and deviations in r directions, as for one layer
- ``own Jacobian``: p + J_cell (F - Fbar), with the Jacobian at the mean of the cell

The outputs F are computed anew at every step, which costs as much as the exact step. So this measures whether such a
closure can hold at all, and with how many cells, before any work goes into making it cheap. Ctrl-C ends it, and nothing
is written.
"""

import numpy as np
from running import block, command_line, holds, paragraphs, write_down

from minitx import LayeredWeights, builtin_corpus, descend, load_corpus
from minitx.base.console import progress_bar
from minitx.base.numbers import relative_error
from minitx.base.parallel import matmul
from minitx.base.tables import number
from minitx.model import paths
from minitx.model.layers import operations

SIZE = {"n_vocab": 400, "length": 32, "n_windows": 1024}
SMALL_SIZE = {"n_vocab": 60, "length": 12, "n_windows": 40}
LAYERS, LEARNING_RATE, STEPS = 2, 0.8, 60
EVERY, ALLOWED = 5, 0.05  # recorded steps, and the relative error up to which a version holds
NAMES = ("W_O", "V", "W", "P")
VERSIONS = {  # {name: (cells a token, which Jacobian, directions r of deviations)}
    "1 cell a token, mean": (1, "mean", 0),
    "3 cells, mean": (3, "mean", 0),
    "12 cells, mean": (12, "mean", 0),
    "3 cells, common Jacobian, r = 4": (3, "common", 4),
    "12 cells, common Jacobian, r = 16": (12, "common", 16),
    "3 cells, own Jacobian": (3, "own", 0),
    "12 cells, own Jacobian": (12, "own", 0),
}


class Closure:
    """``loss_and_gradient`` of two layers whose softmax is closed; ``version`` is a value of VERSIONS."""

    def __init__(self, batch, n_vocab, version):
        self.cells_a_token, self.jacobian, self.n_directions = version
        self.tokens, self.targets, self.shape = batch.tokens.ravel(), batch.targets.ravel(), batch.tokens.shape
        self.n_vocab, self.n_cells = n_vocab, 0

    def __call__(self, weights, batch):
        """The loss of the closure, and the gradient under its probabilities; exact attention."""
        F = self.outputs(weights, batch)
        p, cell, mean = self.softmax_of_cells(F, weights.W_O)
        R = p[cell]
        if self.jacobian == "own":  # (diag p - p p^T) d
            d = F - mean[cell]
            R = R * (1 + d - np.sum(R * d, axis=1, keepdims=True))
        elif self.jacobian == "common":
            R = R + self.common(F - mean[cell], p, np.bincount(cell) / len(cell))
        at = np.arange(len(R)), self.targets
        loss = -float(np.mean(np.log(np.maximum(R[at], 1e-30))))
        R[at] -= 1
        R = (R / len(R)).astype(F.dtype).reshape(*self.shape, self.n_vocab)

        def slopes(weights, tables, sequence, space):
            return 0.0, paths.follow(weights, tables, sequence, space), np.ascontiguousarray(R[sequence.row])

        _, found = paths.path_gradient(weights.map(np.ascontiguousarray), batch, slopes)
        return loss, LayeredWeights(**found)

    def outputs(self, weights, batch):
        """F of every position. (N T, V)"""
        sequences, tables = paths.sequences(batch), paths.build_tables(weights, np.unique(batch.tokens))
        space, found = paths.Space(weights.W_O.dtype), []
        for one in sequences:
            cache = paths.follow(weights, tables, one, space)
            found.append(paths.output(weights, tables, one, cache, space).copy())
        return np.concatenate(found)

    def softmax_of_cells(self, F, W_O):
        """softmax of the mean output of each cell (K, V), the cell of each position (N T,), and these means (K, V)."""
        varying = F - W_O[self.tokens]
        varying -= varying.mean(axis=0)
        along = matmul(varying, np.linalg.eigh(matmul(varying.T, varying))[1][:, -1:])[:, 0]
        order = np.lexsort((along, self.tokens))
        of_token = np.split(order, np.flatnonzero(np.diff(self.tokens[order])) + 1)
        cells = [part for positions in of_token
                 for part in np.array_split(positions, min(self.cells_a_token, len(positions)))]
        sizes = np.array([len(part) for part in cells])
        cell = np.empty(len(F), np.intp)
        cell[order] = np.repeat(np.arange(len(cells)), sizes)
        mean = np.add.reduceat(F[order], np.cumsum(sizes) - sizes) / sizes[:, None].astype(F.dtype)
        self.n_cells = len(cells)
        p = np.exp(mean - mean.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True), cell, mean

    def common(self, deviation, p, share):
        """J times each deviation, in the directions that deviations have most of. J = sum over cells of its Jacobian.
        """
        directions = np.linalg.eigh(matmul(deviation.T, deviation))[1][:, -self.n_directions:]
        J = np.diag(share @ p) - matmul((p * share[:, None]).T, p)
        return matmul(matmul(matmul(deviation, directions), directions.T), J)


def share_of_outputs(weights, batch):
    """The part of the multiplications of an exact step that the outputs take: (2^L - 1) T U V a sequence, three times.
    """
    words = sum(len(np.unique(tokens)) for tokens in batch.tokens)
    outputs = 3 * (2**LAYERS - 1) * batch.tokens.shape[1] * words * weights.n_vocab
    return outputs / operations(weights, batch).paths


def errors(exact, found):
    """{kind of weight: the largest relative error of its layers}"""
    trained, predicted = exact.matrices(), found.matrices()
    return {kind: max(float(relative_error(predicted[name], trained[name])) for name in trained
                      if name.split()[0] == kind) for kind in NAMES}


# ------------------------------------------------------------------------------------------------- Markdown


def section(results):
    """Markdown of what reduced_layers.json holds."""
    size, eta, loss, share = (results[key] for key in ("size", "learning_rate", "loss", "share_of_outputs"))
    rows = []
    for name, version in results["versions"].items():
        records = version["records"]
        last = holds(records, ALLOWED)
        after = next((one["errors"] for one in records if one["step"] > last), {})
        rows.append((name, version["cells"], last, number(loss[last]), *(number(after.get(kind)) for kind in NAMES),
                     *(number(records[-1]["errors"][kind]) for kind in NAMES)))
    held = [name for name, version in results["versions"].items()
            if holds(version["records"], ALLOWED) == results["steps"]]
    return paragraphs(
        "## Reduced dynamics for two layers: what was tried",
        f"Two layers are trained with V = {size['V']}, T = {size['T']} and N = {size['N']}, which makes "
        f"{size['N'] * size['T']:,} positions, for {results['steps']} steps from zero weights with eta = {eta:g}, in "
        f"float32. The exact loss falls from {loss[0]:.3f} to {loss[-1]:.3f}. In every version attention is exact in "
        "both layers. At every step the positions of a token are grouped into cells by their outputs, and the softmax "
        "of a position is that of the mean output of its cell, alone (`mean`) or with a Jacobian times the deviation "
        f"from that mean. Every {EVERY} steps the weights are compared with those of exact training. The column "
        "`cells` is the number of cells at the last step. The column `holds to` is the step up to which the relative "
        f"error of every weight stays within {ALLOWED:g}, and `loss` is the exact loss there. The other columns are "
        "the largest relative errors over the layers, first at the next comparison and then at the end.",
        block(("version ", "cells", "holds to", "loss", *NAMES, *(f"{kind} at end" for kind in NAMES)), rows),
        f"The versions that stay within {ALLOWED:g} to the end are: {'; '.join(held)}." if held else
        f"No version stays within {ALLOWED:g} to the end.",
        "None of the versions is part of minitx. They compute the outputs of every position, so they cost as much as "
        "the exact step. A version that follows the mean contexts of cells instead would still need the exact "
        f"attention of layer 2. Only the outputs would become cheaper, which take {share:.0%} of the multiplications "
        f"of an exact step, so it could be at most {1 / (1 - share):.1f} times as fast.")


def main():
    """Train exactly, descend with every version, and write and print how far each is from training."""
    arguments = command_line("reduced_layers", __doc__, quick="small sizes, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    size, text = SMALL_SIZE if arguments.quick else SIZE, arguments.text
    corpus = load_corpus(text, **size) if text else builtin_corpus("stories", n_documents=2048, **size)
    batch, n_vocab, steps = corpus.batch(), len(corpus.vocabulary), 10 if arguments.quick else STEPS
    start = LayeredWeights.zeros(n_vocab, corpus.length, LAYERS, dtype=np.float32)
    at = list(range(EVERY, steps + 1, EVERY))
    exact = descend(start, batch, learning_rate=LEARNING_RATE, steps=steps, keep=at)
    versions = {}
    for name, version in progress_bar(iterable=VERSIONS.items(), unit="version"):
        closure = Closure(batch, n_vocab, version)
        run = descend(start, batch, learning_rate=LEARNING_RATE, steps=steps, keep=at, loss_and_gradient=closure)
        records = [{"step": step, "errors": errors(exact.kept[step], run.kept[step])} for step in at
                   if step in run.kept]
        versions[name] = {"cells": closure.n_cells, "records": records}
    write_down("reduced_layers", arguments, {
        "size": {"V": n_vocab, "T": corpus.length, "N": len(batch)}, "learning_rate": LEARNING_RATE, "steps": steps,
        "share_of_outputs": share_of_outputs(start, batch),
        "loss": [float(loss) for loss in exact.loss], "versions": versions}, section)


if __name__ == "__main__":
    main()
