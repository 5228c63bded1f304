"""Results written down: one JSON file, and one HTML page that shows the figures beside the printed tables."""

import dataclasses
import html
import importlib.metadata
import json
import math
import platform

import numpy as np

from minitx import parallel
from minitx.files import atomic

PACKAGES = ("minitx", "numpy", "scipy", "numba", "matplotlib")


def environment():
    """Versions and machine, for the reader who wants to repeat a result."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            versions[package] = "not installed"
    return {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
            "threads": parallel.get_threads(), "packages": versions}


def plain(value):
    """``value`` as JSON can hold it: dataclasses and arrays become dicts and lists, what is not a finite number becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)


def write_json(path, results):
    """Write ``results`` to ``path``, completely or not at all."""
    with atomic(path) as file:
        json.dump(plain(results), file, indent=1)
        file.write("\n")


def write_page(path, title, text, figures):
    """One HTML page: ``text`` as printed, then the figures, ``{file name beside the page: caption}``."""
    images = "\n".join(f'<figure><img src="{html.escape(name)}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}'
                       "</figcaption></figure>" for name, caption in figures.items())
    with atomic(path) as file:
        file.write(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body {{ font: 16px sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; font-size: 13px }} img {{ max-width: 100% }} figure {{ margin: 2rem 0 }}</style></head>
<body><h1>{html.escape(title)}</h1>
<pre>{html.escape(text)}</pre>
{images}
</body></html>
""")
