"""experiments/one_layer.py, the teaching file, agrees with the library to 1e-12 relative and stays short."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitx import Batch, OneHotWeights, associations, gradient_terms, loss_and_gradient

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "one_layer.py"
LINES, COLUMNS = 120, 120
TOLERANCE = 1e-12  # of the largest entry of what the library gives
LENGTH, ETA, STEPS = 8, 1.0, 25  # so many steps that every term of the gradient counts


@pytest.fixture(scope="module")
def one_layer():
    """The script, loaded as a module."""
    spec = importlib.util.spec_from_file_location("one_layer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(one_layer):
    """X and Y of the script's own sentences, and the same as a Batch of the library."""
    X, Y = one_layer.windows(one_layer.SENTENCES, LENGTH)
    return X, Y, Batch(*(one_hot.argmax(axis=1).reshape(-1, LENGTH) for one_hot in (X, Y)))


def _random(one_layer, X, seed):
    rng = np.random.default_rng(seed)
    return one_layer.Weights(*(0.5 * rng.standard_normal(zero.shape) for zero in one_layer.zeros(X, LENGTH)))


def _assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def _assert_weights_close(found, expected):
    for name, array in found._asdict().items():
        _assert_close(array, getattr(expected, name))


def test_imports_and_size():
    """The file imports NumPy and the standard library only, and has at most 120 lines of at most 120 columns."""
    source = SCRIPT.read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - {"numpy"} <= set(sys.stdlib_module_names)
    assert len(source.splitlines()) <= LINES
    assert max(map(len, source.splitlines())) <= COLUMNS


def test_windows_are_the_text_one_token_apart(one_layer):
    """The words are letters here; the last of the nine tokens is predicted and starts no sequence of its own."""
    X, Y = one_layer.windows("A b c d e b. a c", 4)  # sorted: . a b c d e
    assert X.argmax(axis=1).tolist() == [1, 2, 3, 4, 5, 2, 0, 1]
    assert Y.argmax(axis=1).tolist() == [2, 3, 4, 5, 2, 0, 1, 3]
    assert set(X.sum(axis=1)) | set(Y.sum(axis=1)) == {1.0}
    for too_little in ("", "a b c d", "a a a a a a"):
        with pytest.raises(SystemExit, match="not all the same"):
            one_layer.windows(too_little, 4)


def test_the_file_holds_twenty_sentences(one_layer):
    assert one_layer.SENTENCES.count(".") == 20


def test_loss_and_gradient(one_layer, data):
    X, Y, batch = data
    weights = _random(one_layer, X, seed=0)
    loss, A, p = one_layer.forward(weights, X, Y)
    expected_loss, expected = loss_and_gradient(OneHotWeights(*weights), batch)
    _assert_close(loss, expected_loss)
    _assert_weights_close(one_layer.backward(weights, X, Y, A, p), expected)


def test_leading_weights(one_layer, data):
    X, Y, batch = data
    statistics = associations.statistics(batch, X.shape[1])
    expected = associations.leading_weights(statistics, steps=STEPS, learning_rate=0.3)
    _assert_weights_close(one_layer.leading_weights(X, Y, LENGTH, STEPS, 0.3), expected)


def test_training(one_layer, data):
    """The weights of every step are those that descent by the library's gradient gives."""
    X, Y, batch = data
    expected = OneHotWeights(*one_layer.zeros(X, LENGTH))
    steps = []
    for step, loss, weights in one_layer.train(X, Y, LENGTH, ETA, STEPS):
        steps.append(step)
        expected_loss, expected_gradient = loss_and_gradient(expected, batch)
        _assert_close(loss, expected_loss)
        _assert_weights_close(weights, expected)
        expected = OneHotWeights(*(getattr(expected, name) - ETA * getattr(expected_gradient, name)
                                   for name in weights._fields))
    assert steps == list(range(STEPS + 1))


@pytest.mark.parametrize("trained", [True, False])
def test_terms(one_layer, data, trained):
    """Every named term is the library's, and they sum to the gradient: for trained weights, and for random ones."""
    X, Y, batch = data
    if trained:
        *_, (_, _, weights) = one_layer.train(X, Y, LENGTH, ETA, STEPS)
        leading = one_layer.leading_weights(X, Y, LENGTH, STEPS, ETA)
    else:
        weights, leading = (_random(one_layer, X, seed) for seed in (1, 2))
    found = one_layer.terms(weights, leading, X, Y)._asdict()
    expected = gradient_terms(OneHotWeights(*weights), batch, leading=OneHotWeights(*leading))
    _, exact = loss_and_gradient(OneHotWeights(*weights), batch)
    for parameter, split in expected.items():
        assert set(found[parameter]) == set(split)
        for name, array in split.items():
            _assert_close(found[parameter][name], array)
        largest = max(np.abs(array).max() for array in split.values())
        summed = sum(found[parameter].values())
        np.testing.assert_allclose(summed, getattr(exact, parameter), rtol=0, atol=1e-13 * largest)


def test_the_script_runs(tmp_path):
    """The script runs on its own sentences, and on a file that is named; it prints its tables and writes nothing."""
    text = tmp_path / "text.txt"
    text.write_text("One fish, two fish, red fish, blue fish. " * 10, encoding="utf-8")
    for arguments in ([], [str(text)]):
        command = [sys.executable, "-W", "error", str(SCRIPT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert "step  30, loss" in done.stdout
        assert "saturation x attention drift x weight drift" in done.stdout
        errors = done.stdout.splitlines()[-1].rsplit(maxsplit=4)[1:]
        assert max(map(float, errors)) < 1e-14
    assert list(tmp_path.iterdir()) == [text]
