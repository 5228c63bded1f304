"""The kernels' flags: one place, and no kernel that goes round it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minitx
from minitx.base.compiling import kernel
from minitx.model import kernels

SOURCES = sorted(Path(minitx.__file__).parent.rglob("*.py"))
FLAGS = Path("base", "compiling.py")  # the one place of the flags

MAKERS = {"kernel", "ordered_kernel", "compiled", "intrinsic"}  # decorators of kernels and of parts of them


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


def _called_kernels_with_sums(*texts):
    """Names of the kernels in the files ``texts`` that another kernel calls and that add up floats in a loop.

    Only those whose sums may be reassociated count, which an ``ordered_kernel`` does not allow.
    """
    made = {maker: [node for text in texts for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
                    if any(ast.unparse(decorator) == maker for decorator in node.decorator_list)]
            for maker in ("kernel", "ordered_kernel")}
    called = {node.func.id for functions in made.values() for function in functions
              for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return sorted({function.name for function in made["kernel"] if function.name in called
                   for loop in ast.walk(function) if isinstance(loop, ast.For)
                   for node in ast.walk(loop) if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)})


def test_kernels_that_others_call_add_nothing_up():
    """Their sums may be reassociated in one way when they are compiled and in another when they come from the cache."""
    files = [source.read_text(encoding="utf-8") for source in SOURCES if source.match("model/*kernels.py")]
    assert len(files) == 4
    assert _called_kernels_with_sums(*files) == []
    called = "@kernel\ndef f(x):\n    s = 0.0\n    for a in x:\n        s += a\n    return s\n"
    assert _called_kernels_with_sums(called, "@ordered_kernel\ndef g(x):\n    f(x)\n") == ["f"]
    assert _called_kernels_with_sums(f"@ordered_{called[1:]}", "@kernel\ndef g(x):\n    f(x)\n") == []


CACHED = """
import hashlib
import numpy as np
import minitx

rng = np.random.default_rng(0)
digest = hashlib.sha256()
for head in ("cross_entropy", "squared"):
    batch = minitx.Batch(*rng.integers(0, 7, (2, 40, 24)), rng.random((40, 24)), causal=False, head=head)
    circuits = minitx.Circuits(*rng.standard_normal((3, 7, 7)), None, None)
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


@pytest.mark.parametrize("size", [*range(1, 20), 100])
def test_the_largest_of_a_row(size):
    for seed in range(5):
        row = np.random.default_rng(seed).standard_normal(size)
        assert kernels._largest(row) == row.max()
