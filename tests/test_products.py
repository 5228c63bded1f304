"""A search of the source for products that are not guarded: their bits would depend on the number of threads of BLAS.

The rule is simple because it is local. Within each file, no public function, method or line outside of functions may
reach a product of dense matrices, a ``np.linalg`` or a ``scipy.linalg``, itself or through private functions of the
file, unless a guard surrounds it: the decorator ``@one_blas_thread()``, or a ``with`` of it or of ``workers``.
Functions within functions belong to these.
"""

import ast
from pathlib import Path

import pytest

import minitx

ROOT = Path(minitx.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
GUARDS = ("one_blas_thread", "workers")
NUMPY = {f"np.{name}" for name in ("dot", "vdot", "inner", "matmul", "tensordot", "einsum")}

SPARSE = "the product is of a sparse matrix, by SciPy's own loops in one thread"
ALLOWED = {  # file: {function: why its products need no guard}
    "topics/uniform_attention.py": {"moments": SPARSE},
    "model/vector_kernels.py": dict.fromkeys(
        ("_mixed", "_dots"), "the product is of a few rows, and stands for compiled code where numba is switched off"),
    "base/parallel.py": {"matmul": "the product is so small that OpenBLAS runs it on one thread"},
    "associations/terms.py": {"reference_point": SPARSE},
    "associations/layer_terms.py": {"_leading_weights": SPARSE},
}


def unguarded(text):
    """[(function, product)] of the unguarded products in the source ``text`` of a file."""
    tree = ast.parse(text)
    from_scipy = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                  and node.module == "scipy.linalg" for alias in node.names}
    functions, doors = {}, ["the file itself"]
    definitions = (ast.FunctionDef, ast.ClassDef)
    functions["the file itself"] = [[node for node in tree.body if not isinstance(node, definitions)]]
    classes = [(node, node.name[0] == "_") for node in tree.body if isinstance(node, ast.ClassDef)]
    for holder, private in [(tree, False), *classes]:
        for node in holder.body:
            if isinstance(node, ast.FunctionDef) and not any(map(_is_guard, node.decorator_list)):
                functions.setdefault(node.name, []).append(node.body)
                if not private and (node.name[0] != "_" or node.name.endswith("__")):
                    doors.append(node.name)
    found, reached = [], set()
    while doors:
        name = doors.pop()
        if name in reached:
            continue
        reached.add(name)
        for body in functions[name]:
            for node in _outside_guards(body):
                if _is_product(node, from_scipy):
                    found.append((name, ast.unparse(node)))
                called = getattr(node, "id", None) or getattr(node, "attr", None)  # of a Name or an Attribute
                if called in functions:
                    doors.append(called)
    return found


def _outside_guards(nodes):
    """All nodes of the syntax trees ``nodes`` that no guard surrounds."""
    for node in nodes:
        yield node
        if isinstance(node, ast.With) and any(_is_guard(item.context_expr) for item in node.items):
            continue
        yield from _outside_guards(ast.iter_child_nodes(node))


def _is_guard(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in GUARDS


def _is_product(node, from_scipy):
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        return isinstance(node.op, ast.MatMult)
    if isinstance(node, ast.Attribute):
        whole = ast.unparse(node)
        return whole in NUMPY or node.attr == "dot" or ("linalg." in whole and node.attr != "LinAlgError")
    return isinstance(node, ast.Name) and node.id in from_scipy


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_product_is_guarded(path):
    file = str(path.relative_to(ROOT))
    found = unguarded(path.read_text(encoding="utf-8"))
    allowed = ALLOWED.get(file, {})
    assert [product for product in found if product[0] not in allowed] == []
    assert set(allowed) <= {function for function, _ in found}, "what is allowed but not there must go"


def test_no_private_function_is_used_by_another_file():
    """The search follows private functions within their file only."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minitx"):
                assert not [alias.name for alias in node.names if alias.name.startswith("_")], path


@pytest.mark.parametrize("product", ["a @ b", "np.matmul(a, b)", "np.linalg.norm(a)", "a.dot(b)", "qr(a)",
                                     "np.einsum('ii', a)"])
def test_the_search_finds_what_it_should(product):
    door = ("from scipy.linalg import qr\ndef door(a, b):\n    return _inner(a, b)\n"
            f"def _inner(a, b):\n    return {product}\n")
    assert [function for function, _ in unguarded(door)] == ["_inner"]
    assert unguarded(door.replace("def door", "@one_blas_thread()\ndef door")) == []
    assert unguarded(door.replace("    return _inner", "    with workers(2) as run:\n        return _inner")) == []
