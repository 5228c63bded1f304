"""The kernels' flags: one place, and no kernel that goes round it."""

import ast
from pathlib import Path

import minitx

SOURCES = sorted(Path(minitx.__file__).parent.rglob("*.py"))


def test_every_kernel_takes_its_flags_from_one_place():
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        if source.name != "kernels.py":
            assert "import numba" not in text, source
            continue
        decorators = [ast.unparse(decorator) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)
                      for decorator in node.decorator_list]
        assert set(decorators) == {"kernel", "ordered_kernel"}
        assert text.count("numba.njit(") == 2
        flags = text[text.index("_FLAGS"):text.index("ordered_kernel =")]
        assert "nnan" not in flags
        assert "ninf" not in flags
        assert '"fast"' not in flags


def test_kernels_import_nothing_from_the_package():
    text = next(source for source in SOURCES if source.name == "kernels.py").read_text(encoding="utf-8")
    assert "minitx" not in text
