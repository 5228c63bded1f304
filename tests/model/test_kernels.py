"""The kernels' flags: one place, and no kernel that goes round it."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minitx
from minitx.base.compiling import kernel, ordered_kernel
from minitx.model import kernels, vector_kernels

SOURCES = sorted(Path(minitx.__file__).parent.rglob("*.py"))
FLAGS = Path("base", "compiling.py")  # the one place of the flags

MAKERS = {"kernel", "ordered_kernel", "part_of_kernel", "compiled", "intrinsic"}  # decorators of kernels and parts


def test_every_kernel_takes_its_flags_from_one_place():
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        if source.parts[-2:] == FLAGS.parts:
            assert text.count("numba.njit(") == 1
            flags = text[text.index("kernel = "):text.index("class _Listener")]
            assert "nnan" not in flags
            assert "ninf" not in flags
            assert '"fast"' not in flags
            continue
        assert "import numba" not in text, source
        decorators = [ast.unparse(decorator) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)
                      for decorator in node.decorator_list]
        if source.name.endswith("kernels.py"):
            assert {name.split("(")[0] for name in decorators} <= MAKERS, source
            assert decorators, source
        else:
            assert not {name.split("(")[0] for name in decorators} & MAKERS, source


def _called_kernels_with_sums(texts):
    """Kernels of {module: source} that a kernel calls, and that may reassociate a sum in a loop.

    A part of a kernel may, if its caller may.
    """
    made, called, copied = {}, set(), set()
    for module, text in texts.items():
        tree = ast.parse(text)
        imported = {alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                    for alias in node.names}
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            made[module, function.name] = function
            makers = {ast.unparse(decorator) for decorator in function.decorator_list}
            if makers & {"kernel", "ordered_kernel", "part_of_kernel"}:
                names = {(imported.get(node.func.id, module), node.func.id) for node in ast.walk(function)
                         if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
                called |= names
                copied |= names if "kernel" in makers else set()
    return [name for name in sorted(called & made.keys())
            if any(ast.unparse(decorator) == "kernel" or (ast.unparse(decorator) == "part_of_kernel" and name in copied)
                   for decorator in made[name].decorator_list)
            and any(isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
                    for loop in ast.walk(made[name]) if isinstance(loop, ast.For) for node in ast.walk(loop))]


def test_kernels_that_others_call_add_in_one_order():
    """Else their sums may be reassociated in one way when they are compiled and in another when the cache has them."""
    package = Path(minitx.__file__).parents[1]
    assert _called_kernels_with_sums({
        ".".join(source.relative_to(package).with_suffix("").parts): source.read_text(encoding="utf-8")
        for source in SOURCES if source.name.endswith("kernels.py")}) == []
    one = "@kernel\ndef f(x):\n    s = 0.0\n    for a in x:\n        s += a\n    return s\n"
    other = "from one import f\n@ordered_kernel\ndef g(x):\n    f(x)\n"
    assert _called_kernels_with_sums({"one": one, "other": other}) == [("one", "f")]
    assert _called_kernels_with_sums({"one": one.replace("kernel", "ordered_kernel"), "other": other}) == []
    assert _called_kernels_with_sums({"another": one, "other": other}) == []
    part = one.replace("kernel", "part_of_kernel")
    assert _called_kernels_with_sums({"one": part, "other": other}) == []
    free = other.replace("ordered_kernel", "kernel")
    assert _called_kernels_with_sums({"one": part, "other": free}) == [("one", "f")]


CACHED = """
import hashlib
import numpy as np
import minitx

rng = np.random.default_rng(0)
digest = hashlib.sha256()
for head in ("cross_entropy", "squared"):
    for causal in (False, True):
        batch = minitx.Batch(*rng.integers(0, 37, (2, 40, 24)), rng.random((40, 24)), causal=causal, head=head)
        for dtype in (np.float32, np.float64):
            circuits = minitx.Circuits(*rng.standard_normal((3, 37, 37)).astype(dtype), None, None)
            loss, gradient = minitx.loss_and_gradient(circuits, batch)
            digest.update(repr(loss).encode() + b"".join(array.tobytes() for array in gradient.parameters().values()))
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_same_bits_when_kernels_are_compiled_and_when_they_come_from_the_cache(tmp_path):
    """The targets hold answers that differ, for which the two could give different bits."""
    digests = {subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True, timeout=300, check=True,
                              env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}).stdout for _ in range(2)}
    assert len(digests) == 1


def test_kernels_import_nothing_from_the_package_but_kernels_and_their_flags():
    for source in SOURCES:
        if source.name.endswith("kernels.py"):
            lines = source.read_text(encoding="utf-8").splitlines()
            ours = [line.split()[1] for line in lines if "import" in line and "minitx" in line]
            assert "minitx.base.compiling" in ours, source
            assert all(name == "minitx.base.compiling" or name.endswith("kernels") for name in ours), source


@kernel
def _exp_of_all(x, out):
    for i in range(x.size):
        out[i] = kernels.exp(x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_has_all_digits_down_to_the_smallest_number(dtype):
    """Its error is below one unit in the last place, also within a kernel that may reassociate, and nan stays nan."""
    info = np.finfo(dtype)
    x = np.concatenate([np.linspace(np.log(float(info.smallest_subnormal)) - 2, 0, 20_001), -np.logspace(-20, 30, 200),
                        [0.0, -np.inf]]).astype(dtype)
    out = np.empty_like(x)
    _exp_of_all(x, out)
    expected = np.exp(x.astype(np.longdouble))
    unit = np.maximum(expected * info.eps, info.smallest_subnormal)
    assert np.max(np.abs(out - expected) / unit) < 1
    assert out[-2] == 1.0
    assert out[-1] == 0.0
    _exp_of_all(np.full(20, np.nan, dtype), nans := np.empty(20, dtype))
    assert np.isnan(nans).all()


@ordered_kernel
def _of_row(row):
    return vector_kernels.largest(row), vector_kernels.sum_of(row), vector_kernels.sum_of_squares(row)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [*range(1, 80), 600])
def test_the_largest_number_and_the_sums_of_a_row(size, dtype):
    for seed in range(5):
        row = np.random.default_rng(seed).standard_normal(size).astype(dtype)
        largest, total, squares = _of_row(row)
        assert largest == row.max()
        assert total == pytest.approx(math.fsum(row), abs=float(np.finfo(dtype).eps * np.abs(row).sum()))
        assert squares == pytest.approx(math.fsum(float(a) ** 2 for a in row), rel=size * float(np.finfo(dtype).eps))
        row[seed * (size - 1) // 4] = np.inf
        assert _of_row(row)[0] == np.inf
        row[:] = -np.inf
        assert _of_row(row)[0] == -np.inf
