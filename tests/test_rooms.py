"""No arrow goes up or across: a room of minitx imports only rooms below it, and no kernel file imports another."""

import ast
from pathlib import Path

import pytest

import minitx

ROOT = Path(minitx.__file__).parent
FILES = {path.relative_to(ROOT).with_suffix("").parts: path for path in sorted(ROOT.rglob("*.py"))}
BELOW = {"base": set(), "data": {"base"}, "model": {"base", "data"}}
BELOW |= {theory: {"base", "data", "model"} for theory in ("associations", "topics", "next_token")}
BELOW["language_model"] = {"base", "data", "associations", "topics"}  # above the theories that it compares with
BELOW["report"] = {"base", "associations", "topics", "next_token"}  # runs them one after the other
BELOW |= {"testing": {"model"}, "__main__": {"cli"}}
BELOW |= {"cli": {"minitx", "base"}, "minitx": set()}  # both import theories, but only when somebody asks for one


def modules_imported(source, *, at_once=False):
    """Names within minitx, as tuples of their parts, that ``source`` imports; ``("minitx",)`` is the package itself.

    With ``at_once`` only what is imported with the file: nothing within functions or under TYPE_CHECKING.
    """
    found, nodes = set(), [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import says the whole name of a module"
            found |= {(*node.module.split("."), alias.name) for alias in node.names}
        if not (at_once and (isinstance(node, ast.FunctionDef) or ast.unparse(node).startswith("if TYPE_CHECKING"))):
            nodes += ast.iter_child_nodes(node)
    return {name[1:] or ("minitx",) for name in found if name[0] == "minitx"}


@pytest.mark.parametrize("parts", FILES, ids="/".join)
def test_a_file_imports_only_from_floors_below(parts):
    room = "minitx" if parts[0] == "__init__" else parts[0]
    assert room in BELOW, f"{room} is a new room or file; BELOW must say what it may import"
    source = FILES[parts].read_text(encoding="utf-8")
    rooms = {name[0] for name in modules_imported(source, at_once=room in ("cli", "minitx"))}
    assert rooms <= {room, *BELOW[room]}


def test_kernels_are_in_files_of_kernels():
    """Kernels are compiled anew when one of these files changes, and only then."""
    makers = {("base", "compiling", name) for name in ("kernel", "ordered_kernel", "compiled")}
    files = {parts for parts, path in FILES.items() if modules_imported(path.read_text(encoding="utf-8")) & makers}
    assert {("model", "kernels"), ("associations", "kernels"), ("next_token", "kernels")} <= files
    assert all(parts[-1].endswith("kernels") for parts in files)


@pytest.mark.parametrize(("source", "found"), [
    ("from minitx.topics.law import Setting", {("topics", "law", "Setting")}), ("import numpy", set()),
    ("import minitx", {("minitx",)}), ("from minitx import topics", {("topics",)}),
    ("def f():\n    import minitx.topics.law as law", {("topics", "law")}),
])
def test_the_search_finds_every_import(source, found):
    assert modules_imported(source) == found
    assert modules_imported(source, at_once=True) == (set() if source.startswith("def") else found)
