"""``import minitx``, ``minitx --version`` and ``--help`` import what they need; public names stay visible."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import minitx
from minitx import cli

ROOT = Path(minitx.__file__).parents[1]
COMMANDS = {name: f"minitx.{module}" for name, (module, _) in cli.COMMANDS.items()}
HEAVY = ("matplotlib", "numba", "numpy", "scipy", "sklearn", "tqdm", *COMMANDS.values())


def imported_by(code):
    """Names of the modules that a fresh interpreter has imported after ``code``, on top of those of a bare one."""
    script = f"import sys\nbare = set(sys.modules)\n{code}\nprint(*set(sys.modules) - bare)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def command_line(*arguments):
    """Code that runs ``minitx`` with ``arguments`` and goes on after it has exited."""
    run = f"minitx.cli.main({list(arguments)})"
    return f"import minitx.cli\ntry:\n    {run}\nexcept SystemExit as ended:\n    assert ended.code == 0"


@pytest.mark.parametrize("code", [
    "import minitx", command_line("--version"), command_line("--help"),
], ids=["import minitx", "minitx --version", "minitx --help"])
def test_neither_import_nor_version_nor_help_imports_the_numerical_packages(code):
    found = imported_by(code)
    assert "minitx" in found
    assert found.isdisjoint(HEAVY)


def test_training_imports_neither_figures_nor_commands_nor_solvers_nor_other_theories():
    found = imported_by("from minitx import OneHotWeights, builtin_corpus, descend, gradient_terms")
    assert {"minitx.model.circuits", "minitx.model.descent", "numba"} <= found
    unneeded = {"matplotlib", "minitx.topics", "minitx.next_token", "scipy.optimize", "sklearn", *COMMANDS.values()}
    assert found.isdisjoint(unneeded)


@pytest.mark.parametrize("name", ["associate", *(pytest.param(name, marks=pytest.mark.slow)
                                                 for name in cli.COMMANDS if name not in ("associate", "report"))])
def test_a_command_does_not_import_the_others(name):
    found = imported_by(command_line(name, "--help"))
    assert found.intersection(COMMANDS.values()) == {COMMANDS[name]}  # that of the report runs three others


def test_public_names_are_those_that_dir_shows_and_that_type_checkers_see():
    """The imports under TYPE_CHECKING, which editors and type checkers read, give the same objects as attributes."""
    tree = ast.parse(inspect.getsource(minitx))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {}
    exec(compile(ast.Module(block.body, []), minitx.__name__, "exec"), seen)
    del seen["__builtins__"]
    assert sorted(seen) == sorted(minitx.__all__)
    assert set(minitx.__all__) <= set(dir(minitx))
    for name, value in seen.items():
        assert getattr(minitx, name) is value, name


def each_and_all(names):
    """Parameters: all names, for one interpreter; and each name, for one of its own, in slow tests."""
    return [pytest.param(names, id="all"), *(pytest.param([name], id=name, marks=pytest.mark.slow) for name in names)]


@pytest.mark.parametrize("rooms", each_and_all(["associations", "base", "data", "language_model", "model",
                                                "next_token", "testing", "topics"]))
def test_tab_completion_of_a_room_shows_what_is_public_and_no_more(rooms):
    """Every name that a room shows exists and is documented, in a fresh interpreter after ``import minitx`` alone."""
    script = (f"import minitx\nfrom inspect import getdoc\nfor name in {rooms}:\n"
              "    room = getattr(minitx, name)\n    import minitx.cli\n"
              "    assert sorted(room.__all__) == dir(room), dir(room)\n"
              "    assert all(getdoc(getattr(room, shown)) for shown in dir(room))\n"
              "    assert name in dir(minitx) and 'import_module' not in dir(minitx)\n"
              "    hidden = {'np', 'Any'} if name == 'base' else {'np', 'Any', 'command'}\n"
              "    assert not hidden & set(dir(room))\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("names", each_and_all([
    "next_token.training.train", "next_token.losses.attention", "base.numbers.norm", "next_token.path.split_path",
    "next_token.local_training.train_local", "topics.training.train", "topics.uniform_attention.moments",
    "associations.words.similarity", "model.testing.check_gradient", "data.stories.stories", "model.descent.descent"]))
def test_what_the_accounts_of_the_rooms_name_is_an_attribute(names):
    script = "\n".join(["import minitx", *(f"assert callable(minitx.{name})" for name in names)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'minitx' has no attribute 'nosuchname'"):
        minitx.nosuchname  # noqa: B018
    assert not hasattr(minitx, "__nosuchname__")
