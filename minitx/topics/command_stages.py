"""What ``minitx topics`` has trained in each stage, beside its closed forms, and how it is printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minitx.base.tables import number, table
from minitx.model.descent import Stopped
from minitx.topics import attention, training
from minitx.topics.training import BLOCK_FIELDS, CLASSES, TopicRun
from minitx.topics.two_stages import SHARES

DIFFERENCES = {"A": "word - topic", "B": "topic - other"}  # all that the cross-entropy determines

Columns = dict[str, Any]  # {class of word pairs: value}


@dataclass(frozen=True, eq=False)
class Stage:
    """What was trained in a stage: one run for each seed, beside its closed forms.

    ``part`` ("value", "embedding" or "attention") says which averages of its records the stage is about; ``closed`` is
    {label: {class of word pairs: value}}. Figures draw ``final``, the values where training should end, and where there
    is one the closed ``trajectory``, {class: (steps, values)}.
    """

    name: str
    title: str
    part: str
    runs: list[TopicRun]
    closed: dict[str, Columns] = field(default_factory=dict)
    final: Columns = field(default_factory=dict)
    trajectory: dict[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)
    first_seed: int = 0

    @property
    def losses(self) -> list[np.ndarray]:
        """The loss of every step, of each run."""
        return [run.trajectory.loss for run in self.runs]

    @property
    def recorded(self) -> list[TopicRun]:
        """The runs that were recorded at least once; a run that stops at once is not."""
        return [run for run in self.runs if run.records]

    @property
    def stopped(self) -> Stopped | None:
        """Why a run of the stage ended early; None when none did."""
        return next((run.trajectory.stopped for run in self.runs if run.trajectory.stopped), None)

    def at_end(self) -> Columns:
        """{class of word pairs: (R seeds,)} of the last records, with the differences A and B."""
        last = [run.records[-1] for run in self.recorded]
        if not last:
            return {}
        found = {name: np.array([getattr(getattr(record, self.part), attribute) for record in last])
                 for name, attribute in CLASSES.items()}
        if self.part == "value":
            found["mask column"] = np.array([record.mask_column for record in last])
        word, topic, other = found["same word"], found["same topic"], found["different topic"]
        return found | {"A": word - topic, "B": topic - other}

    def printed(self) -> str:
        """The title, and the trained averages beside the closed forms."""
        trained, n_seeds = self.at_end(), len(self.recorded)
        if not n_seeds:
            return f"{self.title}\nnothing was recorded"
        rows = {"trained" if n_seeds == 1 else f"trained, mean of {n_seeds} seeds":
                {name: values.mean() for name, values in trained.items()}}
        if n_seeds > 1:
            rows["standard deviation"] = {name: values.std(ddof=1) for name, values in trained.items()}
        rows |= self.closed
        wanted = {*BLOCK_FIELDS}.union(*self.closed.values())
        columns = [name for name in trained if name in wanted]
        lines = table([" ", *(DIFFERENCES.get(name, name) for name in columns)],
                      [[label, *(number(row.get(name), 5) for name in columns)] for label, row in rows.items()])
        return f"{self.title}\n{lines}"

    def compared(self) -> str:
        """How often same topic exceeds different topic, or why the two cannot be compared; empty without records."""
        return training.comparison(self.runs, self.part) if self.recorded else ""

    def assumptions(self) -> str:
        """Of the first seed of joint training: when each part moves, and whether attention has three values."""
        if self.name != "joint" or not self.recorded:
            return ""
        run = self.recorded[0]
        rows = [[name, *("-" if step is None else f"{step:,}" for step in steps.values())]
                for name, steps in run.movement.begins().items()]
        return "\n".join((
            table([f"seed {self.first_seed} ", *(f"{share} of its way at step" for share in SHARES)], rows),
            f"two stages: W_V has gone {run.movement.lead:.0%} of its way when W_Q and W_K have gone a tenth of theirs",
            f"three attention values: the class explains {run.records[-1].attention_spread.between:.0%} of the "
            "variance of attention between pairs of words"))


@dataclass(frozen=True, eq=False)
class InfiniteStage:
    """Attention trained on all infinitely long documents: the trained ratio beside the predicted one.

    ``path`` holds attention ratios, step, loss and learning rate at the recorded steps, and ``loss`` that of every
    step; both are empty when the stage was left out.
    """

    title: str
    path: list[dict[str, float]] = field(default_factory=list)
    loss: np.ndarray = field(default_factory=lambda: np.zeros(0))
    predicted: attention.OptimalAttention | None = None
    stopped: Stopped | None = None
    name = "infinite"

    @property
    def losses(self) -> list[np.ndarray]:
        """The loss of every step; none when the stage was left out."""
        return [self.loss] if len(self.loss) else []

    def printed(self) -> str:
        """The title, and the trained ratio beside the closed form."""
        if self.predicted is None:
            return self.title
        best, end = self.predicted, self.path[-1]
        rows = [["closed form", number(best.rho), "flat", "flat", number(best.rho_0), number(best.loss, 6)],
                ["trained", *(number(end[name]) for name in ("rho", "alpha", "beta", "rho_0")), number(end["loss"], 6)]]
        return f"{self.title}\n{table([' ', 'rho', 'alpha', 'beta', '[MASK]', 'loss'], rows)}"


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found: its stages by name, the one on infinite documents if it was trained, and why it ended early."""

    options: Any  # minitx.topics.command_documents.Options
    stages: dict[str, Stage]
    infinite: InfiniteStage | None
    stopped: Stopped | None
