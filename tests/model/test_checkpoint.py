"""A run whose checkpoint is read goes on to the same bits; a file that is damaged, or of another run, is refused."""

import itertools
import time
from dataclasses import dataclass

import numpy as np
import pytest

from minitx import Batch, OneHotWeights, descend, loss_and_gradient
from minitx.base.checkpoint import SECONDS, Checkpoint, digest
from minitx.model.layers import LayeredWeights
from minitx.model.optimisers import Adam, Momentum
from minitx.topics.backtracking import Backtracking


class Killed(Exception):
    """Ends a run as a kill does: nothing is written after it."""


@dataclass(frozen=True)
class Seen:
    step: int
    loss: float
    largest: np.ndarray


class Recorder:
    """A callback with a memory; it ends the run at the steps ``ends``, once each."""

    KINDS = (Seen,)

    def __init__(self, ends=(), error=Killed):
        self.seen, self.ends, self.error, self.called = [], set(ends), error, []

    def __call__(self, step, loss, weights, gradient):
        self.called.append(step)
        self.seen.append(Seen(step, loss, weights.W_O.max(axis=1)))
        if step in self.ends:
            self.ends.remove(step)
            raise self.error

    def state(self):
        return {"seen": list(self.seen)}

    def restore(self, state):
        self.seen = state["seen"]


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return Batch(rng.integers(0, 5, (12, 6)), rng.integers(0, 5, (12, 6)))


START = OneHotWeights.gaussian(5, 6, scale=0.5, rng=0)
SETTINGS = {
    "full batch": {"learning_rate": 0.7},
    "mini-batches": {"learning_rate": 0.7, "batch_size": 5, "rng": 3},
    "a schedule, normalised": {"learning_rate": lambda step: 1 / (1 + step), "normalised": True, "frozen": ["V"]},
    "Adam": {"learning_rate": 0.05, "optimiser": Adam(decay=0.01), "batch_size": 5, "rng": 3},
    "from step 4": {"learning_rate": np.linspace(1, 0.5, 30), "start_step": 4, "batch_size": 7, "rng": 1},
}


def same(one, other):
    """Whether two trajectories have the same bits."""
    return all(np.array_equal(a, b) for a, b in (
        (one.loss, other.loss), (one.learning_rate, other.learning_rate),
        *((one.weights.parameters()[name], array) for name, array in other.weights.parameters().items()),
        *((one.kept[step].W, other.kept[step].W) for step in other.kept))) and one.kept.keys() == other.kept.keys()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(settings, every, batch, tmp_path):
    """At most ``every`` steps are taken twice; what the callback remembers, and what is kept, is that of one run."""
    first = settings.get("start_step", 0)
    whole_recorder = Recorder()
    keep = (first, first + 5, first + 11)
    whole = descend(START, batch, steps=11, keep=keep, callback=whole_recorder, **settings)
    calls = []
    for ends in ([first], [first + 2], [first + 7], [first + 11], []):
        recorder = Recorder(ends)
        try:
            run = descend(START, batch, steps=11, keep=keep, callback=recorder, **settings,
                          checkpoint=Checkpoint(tmp_path / "run.npz", every=every))
        except Killed:
            pass
        calls.append(recorder.called)
    assert same(run, whole)
    for mine, other in zip(recorder.seen, whole_recorder.seen, strict=True):
        assert (mine.step, mine.loss) == (other.step, other.loss) and np.array_equal(mine.largest, other.largest)
    lost = [earlier[-1] + 1 - later[0] for earlier, later in itertools.pairwise(calls) if earlier and later]
    assert max(lost) <= every


def test_a_run_that_is_over_is_read_and_a_longer_one_goes_on_from_it(batch, tmp_path):
    path = str(tmp_path / "run.npz")
    whole = descend(START, batch, steps=9, learning_rate=0.7)
    assert same(descend(START, batch, steps=4, learning_rate=0.7, checkpoint=path, callback=Recorder()),
                descend(START, batch, steps=4, learning_rate=0.7))
    recorder = Recorder()
    assert same(descend(START, batch, steps=9, learning_rate=0.7, checkpoint=path, callback=recorder), whole)
    assert recorder.called == [5, 6, 7, 8, 9]
    again = Recorder()
    assert same(descend(START, batch, steps=9, learning_rate=0.7, checkpoint=path, callback=again), whole)
    assert again.called == []
    with pytest.raises(ValueError, match="holds the steps 0 to 9 of a run, and 0 to 5 are asked for"):
        descend(START, batch, steps=5, learning_rate=0.7, checkpoint=path, callback=Recorder())
    with pytest.raises(ValueError, match="its setting callback differs"):
        descend(START, batch, steps=9, learning_rate=0.7, checkpoint=path)


def test_several_layers_and_an_iterator_of_batches_go_on(batch, tmp_path):
    start = LayeredWeights.gaussian(5, 6, 2, scale=0.1, rng=0)

    def batches():
        return (batch.take(np.arange(step % 5, 12)) for step in itertools.count())

    whole = descend(start, batches(), steps=6, learning_rate=0.5)
    checkpoint = Checkpoint(tmp_path / "run.npz", every=2)
    with pytest.raises(Killed):
        descend(start, batches(), steps=6, learning_rate=0.5, callback=Recorder([5]), checkpoint=checkpoint)
    assert same(descend(start, batches(), steps=6, learning_rate=0.5, checkpoint=checkpoint.path,
                        callback=Recorder()), whole)


def test_an_objective_goes_on_with_its_memory(batch, tmp_path):
    """Backtracking halves its rate for good, and would try the long steps again."""
    def objective():
        return Backtracking(64.0)

    whole = descend(START, batch, steps=8, learning_rate=64.0, loss_and_gradient=objective())
    for ends in ([3], [6]):
        with pytest.raises(Killed):
            descend(START, batch, steps=8, learning_rate=64.0, loss_and_gradient=objective(),
                    callback=Recorder(ends), checkpoint=Checkpoint(tmp_path / "run.npz", every=2))
    ended = objective()
    assert same(descend(START, batch, steps=8, learning_rate=64.0, loss_and_gradient=ended, callback=Recorder(),
                        checkpoint=tmp_path / "run.npz"), whole)
    assert ended.rate < 64
    read = objective()
    descend(START, batch, steps=8, learning_rate=64.0, loss_and_gradient=read, callback=Recorder(),
            checkpoint=tmp_path / "run.npz")
    assert read.state() == ended.state()  # of a run that is over as well


@pytest.mark.parametrize("where", ["callback", "step"])
def test_ctrl_c_leaves_a_state_from_which_the_run_goes_on(where, batch, tmp_path):
    """What a callback had half done when Ctrl-C came is not kept: the state before it is."""
    path, calls = tmp_path / "run.npz", itertools.count()

    def objective(weights, data):
        if where == "step" and next(calls) == 5:
            raise KeyboardInterrupt
        return loss_and_gradient(weights, data)

    settings = {"steps": 8, "learning_rate": 0.7, "loss_and_gradient": objective}
    recorder = Recorder([4] if where == "callback" else [], KeyboardInterrupt)
    run = descend(START, batch, **settings, callback=recorder, checkpoint=Checkpoint(path, every=3))
    assert (run.stopped.kind, run.stopped.step) == ("interrupted", 4)
    later = Recorder()
    again = descend(START, batch, **settings, callback=later, checkpoint=path)
    assert again.stopped is None
    assert same(again, descend(START, batch, steps=8, learning_rate=0.7))
    assert later.called[0] == (4 if where == "callback" else 5)
    assert [seen.step for seen in later.seen] == list(range(9))


def test_a_divergence_is_kept_too(batch, tmp_path):
    settings = {"steps": 50, "learning_rate": 1e60, "checkpoint": tmp_path / "run.npz"}
    first, again = (descend(START, batch, **settings) for _ in range(2))
    assert first.stopped == again.stopped
    assert first.stopped.kind == "diverged"


def test_without_a_number_of_steps_a_minute_decides(batch, tmp_path, monkeypatch):
    clock, written = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    checkpoint = Checkpoint(tmp_path / "run.npz")

    def write(self):
        self.written = clock[0]
        written.append(clock[0])

    monkeypatch.setattr(Checkpoint, "write", write)

    def callback(step, loss, weights, gradient):
        clock[0] += SECONDS / 4

    descend(START, batch, steps=9, learning_rate=0.1, callback=callback, checkpoint=checkpoint)
    assert written == [SECONDS, 2 * SECONDS, 2.5 * SECONDS]


def other_objective(weights, data):
    """Twice the loss."""
    loss, gradient = loss_and_gradient(weights, data)
    return 2 * loss, gradient


@pytest.mark.parametrize(("change", "says"), [
    ({"learning_rate": 0.6}, "its setting learning_rate differs"),
    ({"batch_size": 4}, "its setting batch_size differs"),
    ({"optimiser": Momentum()}, "its setting optimiser differs"),
    ({"rng": 4}, "its setting rng differs"), ({"frozen": ["P"]}, "its setting frozen differs"),
    ({"normalised": True}, "its setting normalised differs"), ({"start_step": 1}, "holds the steps 0 to 3"),
    ({"weights": OneHotWeights.zeros(5, 6)}, "its setting weights differs"),
    ({"batch": Batch(np.ones((8, 4), int), np.ones((8, 4), int))}, "its setting batch differs"),
    ({"loss_and_gradient": other_objective}, "its setting loss_and_gradient differs"),
])
def test_the_checkpoint_of_another_run_is_refused(change, says, batch, tmp_path):
    path = tmp_path / "run.npz"
    settings = {"weights": START, "batch": batch, "learning_rate": 0.7, "batch_size": 5, "rng": 3, "steps": 3}
    descend(**settings, checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=says) as refused:
        descend(**settings | change, checkpoint=path)
    assert str(refused.value).startswith(str(path))
    assert path.read_bytes() == content


def test_a_loss_that_comes_out_otherwise_is_refused(batch, tmp_path):
    """An objective is known by its name alone; its loss tells that it has changed."""
    def objective(factor):
        def scaled(weights, data):
            loss, gradient = loss_and_gradient(weights, data)
            return factor * loss, gradient
        return scaled

    path, settings = tmp_path / "run.npz", {"learning_rate": 0.7, "steps": 3}
    descend(START, batch, **settings, loss_and_gradient=objective(1.0), checkpoint=path)
    with pytest.raises(ValueError, match="its loss after 3 steps is .* and computed again"):
        descend(START, batch, learning_rate=0.7, steps=5, loss_and_gradient=objective(2.0), checkpoint=path)


def test_a_damaged_file_is_refused_or_has_lost_nothing(batch, tmp_path):
    """Cut off anywhere, or with one byte changed: the error names the file; zip sees a change of what it holds."""
    path = tmp_path / "run.npz"
    whole = descend(START, batch, steps=3, learning_rate=0.7, checkpoint=path)
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    damaged = [content[:cut] for cut in rng.integers(0, len(content), 20)]
    for place in rng.integers(0, len(content), 60):
        damaged.append(content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1:])
    for change in [b"", b"a text", *damaged]:
        path.write_bytes(change)
        try:
            assert same(descend(START, batch, steps=3, learning_rate=0.7, checkpoint=path), whole)
        except ValueError as error:
            assert str(error).startswith(str(path)), error
            refused += 1
    assert refused >= 60


@pytest.mark.parametrize("content", [{"W": np.ones(3)}, {"about": np.frombuffer(b'{"a": 1}', np.uint8)},
                                     {"about": np.array([{}], object)}])
def test_another_npz_file_is_no_checkpoint(content, batch, tmp_path):
    path = tmp_path / "run.npz"
    np.savez(path, **content)
    with pytest.raises(ValueError, match=r"run[.]npz is (no checkpoint|damaged)"):
        descend(START, batch, steps=3, learning_rate=0.7, checkpoint=path)


def test_what_a_checkpoint_cannot_keep_or_be_is_said(batch, tmp_path):
    with pytest.raises(TypeError, match="checkpoint is 3; it must be the name of a file"):
        descend(START, batch, steps=3, learning_rate=0.7, checkpoint=3)
    with pytest.raises(ValueError, match="every is 0; it must be a whole number, at least 1"):
        Checkpoint(tmp_path / "run.npz", every=0)
    with pytest.raises(TypeError, match="a checkpoint cannot keep a set"):
        Checkpoint(tmp_path / "run.npz").part("one").write({1, 2, 3, 4, 5, 6, 7})
    assert not list(tmp_path.iterdir())


def test_work_is_done_once_and_lines_are_said_again(tmp_path):
    """A part is values of every kind that a checkpoint can keep, and comes back as it was."""
    from minitx.base.console import Printer

    value = {"a": [1, 2.5, None, True, "é", float("inf")], 3: (np.arange(3), {}), 0.5: Seen(1, 2.0, np.zeros((0, 2)))}
    calls = []

    def work():
        calls.append(1)
        say("a line")
        return value

    for _ in range(2):
        say = Printer()
        found = Checkpoint(tmp_path / "run.npz", say=say).once("work", work, Seen)
        assert say.lines == ["a line"]
        assert digest(found) == digest(value)
        assert list(found) == ["a", 3, 0.5] and type(found[3]) is tuple
    assert calls == [1]
