"""Which closure of reduced dynamics holds longest: cells of more numbers, or a Jacobian for each frequent token?

    python experiments/closures.py [TINYSTORIES.txt] [--quick] [--out DIR]

Reduced dynamics puts the positions of each token into cells, and predicts the softmax of a position from that of the
mean output of its cell and from a Jacobian of the softmax, common to all cells (``minitx.associations.closure``). Here
other closures of as many cells run beside exact training:

- ``one number, common J``: cells are intervals of the number that outputs vary most by, and J is one for all
- ``two numbers, common J`` and ``four numbers, common J``: cells are boxes of the numbers that outputs vary most by
- ``one number, J a token``: the 32 most frequent tokens have a Jacobian each, and the others one in common

The outputs of all positions are computed at every step, and are exact functions of the present weights. So this
measures whether a closure can hold at all; its cost is counted, in multiplications of a step that would compute it from
mean contexts. Ctrl-C ends it, and nothing is written.

A second table says what to spend operations on when the estimate of ``reduced.descend(tolerance=...)`` grows: on more
cells, more directions of deviations, or more sampled windows.
"""

import numpy as np
from running import block, command_line, holds, paragraphs, write_down

from minitx import Circuits, OneHotWeights, agreement, builtin_corpus, descend, load_corpus
from minitx.associations import closure, kernels, reduced
from minitx.base.console import progress_bar
from minitx.base.parallel import matmul, one_blas_thread
from minitx.base.tables import number
from minitx.model.blocks import Positions
from minitx.model.circuits import backward, output
from minitx.model.pieces import Workspace, add_pieces

NAMES, ALLOWED, EVERY = ("W_O", "V", "W", "P"), 0.05, 15
CELLS, DIRECTIONS, FREQUENT = 3, 4, 32  # cells a token on average, directions of deviations, tokens with a Jacobian
VERSIONS = {  # {name: (numbers that cells are cut by, which Jacobian)}
    "one number, common J": (1, "common"),
    "two numbers, common J": (2, "common"),
    "four numbers, common J": (4, "common"),
    "one number, J a token": (1, "token"),
}
# (size, learning rate, steps)
RUNS = (({"n_vocab": 400, "length": 32, "n_windows": 1000}, 2.0, 390),
        ({"n_vocab": 800, "length": 32, "n_windows": 300}, 2.0, 105))
SMALL = ({"n_vocab": 60, "length": 12, "n_windows": 60}, 2.0, 30)
# (cells a token, directions of deviations, parts of 32 that are sampled): what `tolerance` could grow to
GROWN = ((1, 4, 2), (3, 4, 2), (6, 4, 2), (3, 8, 2), (3, 4, 4), (3, 4, 8))
GROWTH = {"n_vocab": 200, "length": 32, "n_windows": 1000}, 1.0, 300
TOLERANCE = 0.003  # how long the estimate stays below it is shown
SMALL_GROWTH = {"n_vocab": 40, "length": 12, "n_windows": 100}, 1.0, 40


class Closure:
    """``loss_and_gradient`` of one layer whose softmax is closed; ``version`` is a value of VERSIONS."""

    def __init__(self, batch, n_vocab, version):
        self.numbers, self.jacobian = version
        self.tokens, self.n_vocab, self.n_cells = batch.tokens.ravel(), n_vocab, CELLS * n_vocab
        self.blocks = Positions.of(batch, np.float32).cut(n_vocab)
        self.targets, self.workspace = batch.targets.ravel(), Workspace()
        self.number = np.arange(batch.tokens.size).reshape(batch.tokens.shape)  # of each position
        self.frequent = np.argsort(-np.bincount(self.tokens, minlength=n_vocab), kind="stable")[:FREQUENT]
        self.by_token = np.argsort(self.tokens, kind="stable").astype(np.int32)
        self.begin = np.flatnonzero(np.diff(self.tokens[self.by_token], prepend=-1))
        self.directions = np.random.default_rng(0).standard_normal((n_vocab, DIRECTIONS)).astype(np.float32)

    @one_blas_thread()
    def __call__(self, weights, batch):
        """The loss of the closure, and the gradient under its probabilities; exact attention."""
        circuits = weights.circuits()
        F = np.empty((len(self.tokens), self.n_vocab), np.float32)
        for part in self.blocks:
            attention = part.attend(circuits.qk, circuits.position)
            F[self.positions(part)] = output(circuits, part, attention, self.workspace).reshape(-1, self.n_vocab)
        R = self.probabilities(F, weights.W_O)
        at = np.arange(len(R)), self.targets
        loss = -float(np.mean(np.log(np.maximum(R[at], 1e-30))))
        R[at] -= 1
        tables = {name: np.zeros_like(table) for name, table in circuits.parameters().items()}
        for part in self.blocks:
            attention = part.attend(circuits.qk, circuits.position)
            residual = R[self.positions(part)].reshape(*part.queries.shape, self.n_vocab)
            pieces = backward(circuits, part, attention, residual, part.weight.astype(np.float32), self.workspace)
            add_pieces(part, pieces, tables)
        return loss, weights.pullback(Circuits(**tables, bias=None))

    def positions(self, part):
        """The numbers of the queries of a block."""
        return self.number[part.rows[:, None], part.queries].ravel()

    def probabilities(self, F, W_O):
        """The closure in the place of softmax(F). (n, V)"""
        varying = F - W_O[self.tokens]
        varying -= varying.mean(axis=0)
        for _ in range(3):  # the directions that outputs vary most by, from those of the last step
            self.directions = np.linalg.qr(matmul(varying.T, matmul(varying, self.directions)))[0]
        along = matmul(varying, self.directions)
        z, order = along[:, :self.numbers].astype(np.float64), self.by_token.copy()
        starts = np.sort(kernels.cut_cells(closure.fours(z), np.ones(len(z)), self.begin, self.n_cells, order))
        sizes = np.diff(starts, append=len(order))
        cell = np.empty(len(order), np.intp)
        cell[order] = np.repeat(np.arange(len(starts)), sizes)
        mean = np.add.reduceat(F[order], starts) / sizes[:, None].astype(F.dtype)
        p = np.exp(mean - mean.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        R = p[cell]
        away = along - (np.add.reduceat(along[order], starts) / sizes[:, None])[cell]
        common = np.ones(len(starts), bool)
        if self.jacobian == "token":
            for token in self.frequent:
                here = self.tokens[order[starts]] == token
                of_token, common = self.tokens == token, common & ~here
                R[of_token] += matmul(away[of_token], self.response(p[here], sizes[here]))
        rest = common[cell]
        R[rest] += matmul(away[rest], self.response(p[common], sizes[common]))
        return R

    def response(self, p, sizes):
        """The directions times J, the mean Jacobian of the softmax of these cells. (r, V)"""
        share = (sizes / sizes.sum()).astype(p.dtype)[:, None]
        D = self.directions.T
        return D * (share.T @ p) - matmul((matmul(p, D.T) * share).T, p)

    def multiplications(self, batch):
        """Of a step that computes this closure from mean contexts, over those of an exact one.

        The response to single contexts takes r multiplications for each pair of positions, as for one Jacobian; a
        Jacobian for each of m tokens takes m r V^2 for the second-order part of the gradient of V W_O.
        """
        pairs = sum(int(t) * (int(t) + 1) // 2 for t in batch.lengths)
        matrices = 2 * (self.n_cells + 2 * self.n_vocab) * self.n_vocab**2
        more = FREQUENT * DIRECTIONS * self.n_vocab**2 if self.jacobian == "token" else 0
        return (matrices + more + 4 * DIRECTIONS * pairs) / (3 * pairs * self.n_vocab)


def errors(weights, exact):
    """{weight: its relative error}"""
    return {name: float(error) for name, error in agreement(weights, exact).relative_error.items()}


def compared(corpus, learning_rate, steps):
    """What is written down of one text: for every closure the errors at the recorded steps, until one is too large."""
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    start, at = OneHotWeights.zeros(n_vocab, corpus.length, dtype=np.float32), range(EVERY, steps + 1, EVERY)
    exact = descend(start, batch, learning_rate=learning_rate, steps=steps, keep=at)
    found = {}
    for name, version in VERSIONS.items():
        closure, records, weights = Closure(batch, n_vocab, version), [], start
        for step in at:
            weights = descend(weights, batch, learning_rate=learning_rate, steps=EVERY, start_step=step - EVERY,
                              loss_and_gradient=closure).weights
            records.append({"step": step, "errors": errors(weights, exact.kept[step])})
            if not max(records[-1]["errors"].values()) <= ALLOWED:
                break
        found[name] = {"records": records, "cost": closure.multiplications(batch)}
    return {"corpus": corpus.name, "size": {"V": n_vocab, "T": corpus.length, "N": len(batch)},
            "learning_rate": learning_rate, "steps": steps, "loss": [float(exact.loss[0]), float(exact.loss[-1])],
            "versions": found}


def growth(corpus, learning_rate, steps):
    """Estimate and error of ``reduced.descend`` with more cells, directions and sampled windows, without a limit."""
    batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
    start = OneHotWeights.zeros(n_vocab, corpus.length, dtype=np.float32)
    settings = {"learning_rate": learning_rate, "steps": steps}
    exact, rows = descend(start, batch, **settings).weights, []
    for cells, directions, parts in GROWN:
        closure.RESPONSE_RANK, reduced.FIRST_PARTS = directions, parts
        run = reduced.descend(start, batch, tolerance=1e3, n_cells=cells * n_vocab, **settings)
        estimate = np.max([run.error[name] for name in NAMES], axis=0)  # nan while a weight is 0
        rows.append({"cells": cells, "directions": directions, "parts": parts, "error": errors(run.weights, exact),
                     "estimate": {name: float(run.error[name][-1]) for name in NAMES},
                     "cost": reduced.cost(batch, n_vocab, cells * n_vocab, parts / reduced.PARTS),
                     "to": int(np.argmax(np.append(estimate, np.inf) > TOLERANCE)) - 1})
    return {"corpus": corpus.name, "size": {"V": n_vocab, "T": corpus.length, "N": len(batch)},
            "learning_rate": learning_rate, "steps": steps, "rows": rows}


# ------------------------------------------------------------------------------------------------- Markdown


def _text(found):
    """The table of one text."""
    size, rows = found["size"], []
    for name, version in found["versions"].items():
        last = version["records"][-1]
        rows.append((name, holds(version["records"], ALLOWED), number(version["cost"], 2), last["step"],
                     *(number(last["errors"][weight]) for weight in NAMES)))
    return paragraphs(
        f"{found['corpus']}, V = {size['V']}, T = {size['T']}, {size['N']} windows, eta = {found['learning_rate']:g}; "
        f"the exact loss falls from {found['loss'][0]:.3f} to {found['loss'][1]:.3f} in {found['steps']} steps:",
        block(("closure ", "holds to", "cost", "at step", *NAMES), rows))


def section(results):
    """Markdown of what closures.json holds."""
    grown = results["growth"]
    rows = [(f"{one['cells']} V", one["directions"], f"{one['parts']} of 32", number(one["cost"], 2), one["to"],
             *(number(one[kind][name]) for kind in ("error", "estimate") for name in NAMES))
            for one in grown["rows"]]
    size = grown["size"]
    return paragraphs(
        "## Closures that were tried, and what more operations buy",
        f"One layer is trained in float32; every closure has {CELLS} V cells and {DIRECTIONS} directions of "
        f"deviations. The column `holds to` is the last recorded step (every {EVERY}) up to which every weight is "
        f"within {ALLOWED:g}, and `cost` is the number of multiplications of a step divided by that of an exact one. "
        "The other columns are the last step that was measured and the relative errors there; measuring ends where a "
        "weight is further off. The package has cells of four numbers with a common Jacobian. Its numbers, equation 3 "
        "of `minitx.associations.closure`, need no outputs: they are those of contexts that move outputs most.",
        *map(_text, results["texts"]),
        "When the estimate of `reduced.descend(tolerance=...)` comes near the tolerance, a step may have more cells or "
        "directions of deviations, or sample more windows. The next table shows what each buys on "
        f"{grown['corpus']} (V = {size['V']}, T = {size['T']}, {size['N']} windows, eta = "
        f"{grown['learning_rate']:g}) where nothing limits them. The column `cost` is the number of operations of a "
        f"step, counted for {DIRECTIONS} directions and divided by that of an exact one. The column `to step` is the "
        f"step up to which no estimate exceeds {TOLERANCE:.1%}, and the errors and estimates are those after "
        f"{grown['steps']} steps.",
        block(("cells", "directions", "windows", "cost", "to step", *(f"error {name}" for name in NAMES),
               *(f"estimate {name}" for name in NAMES)), rows))


def main():
    """Train exactly, descend with every closure, and write and print how far each is from training."""
    arguments = command_line("closures", __doc__, quick="small sizes, in seconds",
                             text="TinyStories, one story a line; without it the `stories` corpus")
    texts = []
    for size, learning_rate, steps in progress_bar(iterable=(SMALL,) if arguments.quick else RUNS, unit="text"):
        corpus = load_corpus(arguments.text, **size) if arguments.text else builtin_corpus("stories", **size)
        texts.append(compared(corpus, learning_rate, steps))
    size, learning_rate, steps = SMALL_GROWTH if arguments.quick else GROWTH
    found = growth(builtin_corpus("python-docs", **size), learning_rate, steps)
    write_down("closures", arguments, {"texts": texts, "growth": found}, section)


if __name__ == "__main__":
    main()
