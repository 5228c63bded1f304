"""The kernels' flags: one place, and no kernel that goes round it."""

import ast
from pathlib import Path

import minitx

SOURCES = sorted(Path(minitx.__file__).parent.rglob("*.py"))
FLAGS = Path("base", "parallel.py")  # the one place of the flags


def test_every_kernel_takes_its_flags_from_one_place():
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        if source.parts[-2:] == FLAGS.parts:
            assert text.count("numba.njit(") == 2
            flags = text[text.index("_FLAGS"):text.index("ordered_kernel =")]
            assert "nnan" not in flags
            assert "ninf" not in flags
            assert '"fast"' not in flags
            continue
        assert "import numba" not in text, source
        decorators = [ast.unparse(decorator) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)
                      for decorator in node.decorator_list]
        if source.name == "kernels.py":
            assert set(decorators) <= {"kernel", "ordered_kernel"} and decorators, source
        else:
            assert not {"kernel", "ordered_kernel"} & set(decorators), source


def test_kernels_import_nothing_from_the_package_but_their_flags():
    """A kernel that calls one of another file is not compiled anew when that file changes: numba's cache misses it."""
    for source in SOURCES:
        if source.name == "kernels.py":
            lines = source.read_text(encoding="utf-8").splitlines()
            ours = [line for line in lines if "import" in line and "minitx" in line]
            assert len(ours) == 1 and ours[0].startswith("from minitx.base.parallel import "), source
