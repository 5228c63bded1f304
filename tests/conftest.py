"""What all tests share: profiles of hypothesis, threads put back, figures that are not drawn, and where data are."""

import gc
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minitx.base import page, parallel, style, svg

# Everybody has one profile, which draws the same examples on every machine. Hypothesis has a profile of its own where
# CI is set; the parent keeps ours from inheriting it. `pytest --hypothesis-profile=explore` draws other examples on
# every run, and with --hypothesis-seed=K the same ones again.
COMMON = {"parent": settings.get_profile("default"), "deadline": None, "suppress_health_check": [HealthCheck.too_slow],
          "max_examples": 60, "database": None}
settings.register_profile("everybody", derandomize=True, **COMMON)
settings.register_profile("explore", derandomize=False, **COMMON)
settings.load_profile("everybody")

# Python looks for garbage whenever there are 700 new objects, now and then among all objects of a session. A quarter of
# the time in which tests are collected went into that, and a twentieth of the time in which they run.
gc.set_threshold(50_000)

# Processes that tests start import the minitx beside the tests, as the tests do, and use the kernels it has compiled.
ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

DATA = Path(os.environ.get("MINITX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def pytest_addoption(parser):
    parser.addoption("--draw", action="store_true", help="draw the figures of every test, not only of those `drawn`")


def pytest_collection_modifyitems(items):
    """Tests of the model, which compile most kernels, come first, and many short ones last.

    Of two processes the second begins in the middle, which is where topics begin: it does not compile the kernels of
    the model at the same time as the first.
    """
    places = {"model": -1, "next_token": 1, "topics": 2, "test_bad_inputs.py": 3}
    items.sort(key=lambda item: places.get(item.path.parent.name, places.get(item.path.name, 0)))


@pytest.fixture(autouse=True)
def _threads_put_back():
    yield
    parallel.set_threads(None)


@pytest.fixture(autouse=True)
def _figures_not_drawn(request, monkeypatch):
    """Commands make all figures, but write only the first bytes of a PNG, and no SVG: drawing takes most of a run."""

    def first_bytes(figure, path):
        assert figure.axes, path
        path.write_bytes(b"\x89PNG\r\n\x1a\n")

    draw = request.config.getoption("--draw") and "undrawn" not in request.keywords
    if not draw and "drawn" not in request.keywords:
        monkeypatch.setattr(style, "save", first_bytes)
        monkeypatch.setattr(svg, "drawn", lambda figure, name: page.element("svg", id=f"{name}-not-drawn"))
        monkeypatch.setattr(svg, "in_processes", lambda one, names: list(map(one, names)))  # a fork takes longer


@pytest.fixture
def without_figures(request, monkeypatch):
    """``minitx associate`` and ``minitx topics`` make next to no figures, which takes most of a small run.

    It is for tests of what else a run prints and writes; with ``--draw`` they make and draw all figures.
    """
    if not request.config.getoption("--draw"):
        from minitx.associations import command  # which other tests need not import
        from minitx.topics import command_documents

        for made_by in ((command, "training_figures"), (command, "basis_figures"), (command_documents, "figures")):
            monkeypatch.setattr(*made_by, lambda *found: {})


@pytest.fixture(scope="session")
def tinystories():
    """Path of the 1,000 real stories; tests that need them are skipped where they are absent."""
    path = DATA / "tinystories-1000.txt"
    if not path.exists():
        pytest.skip(f"real text absent: {path} (set MINITX_DATA to the folder that holds it)")
    return path


@pytest.fixture(scope="session")
def next_token_reference():
    """Instances of the next-token theory, with the answers of an independent solver."""
    return recorded("next_token_reference.json")


@pytest.fixture(scope="session")
def topics_reference():
    """Numbers of the theory of topics, computed for the notes and not by minitx."""
    return recorded("topics_reference.json")


def recorded(name):
    """What the JSON file ``name`` of tests/data holds."""
    return json.loads((Path(__file__).parent / "data" / name).read_text(encoding="utf-8"))
