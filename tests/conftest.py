"""Shared by all tests: hypothesis profiles, the thread setting put back, and where the data are."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minitx import parallel

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, max_examples=60, **COMMON)
settings.register_profile("home", max_examples=60, **COMMON)
settings.load_profile("ci" if os.environ.get("CI") else "home")

DATA = Path(os.environ.get("MINITX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _threads_put_back():
    yield
    parallel.set_threads(None)


@pytest.fixture(scope="session")
def tinystories():
    """Path of the 1,000 real stories; tests that need them are skipped where they are absent."""
    path = DATA / "tinystories-1000.txt"
    if not path.exists():
        pytest.skip(f"real text absent: {path} (set MINITX_DATA to the folder that holds it)")
    return path


@pytest.fixture(scope="session")
def next_token_reference():
    """Instances of the next-token theory with an independent solver's answers; tests that need them are skipped without."""
    return recorded("next_token_reference.json")


@pytest.fixture(scope="session")
def topics_reference():
    """Numbers of the theory of topics; tests that need them are skipped where they are absent."""
    return recorded("topics_reference.json")


def recorded(name):
    """What the JSON file ``name`` of the data folder holds."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"reference numbers absent: {path} (set MINITX_DATA to the folder that holds them)")
    return json.loads(path.read_text())
