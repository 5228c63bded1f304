"""The folder of a run: whose results, or whose checkpoint, it holds, and whether another run may write there."""

import hashlib
import json
from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import Any

from minitx.base.checkpoint import Checkpoint
from minitx.base.options import HANDLING, INPUTS, PLACES, Options, shown
from minitx.base.report import plain

RESULTS, CHECKPOINT = "results.json", "checkpoint.npz"


def identity(options: Options) -> dict[str, Any]:
    """What decides the results of a run, as JSON holds it.

    ``command`` is its name, ``configuration`` {option: value} without options on which no result depends, and
    ``inputs`` {option: SHA-256 of the content of the files that it names}.
    """
    configuration = {name: value for name, value in plain(options).items() if name not in PLACES | HANDLING}
    return {"command": options.command, "configuration": configuration, "inputs": inputs(options)}


def inputs(options: Options) -> dict[str, str]:
    """{option: SHA-256 of the content of all files that it names}: a file, all files of a folder, or a pattern."""
    found = {}
    for name in INPUTS:
        named = getattr(options, name, None) or ()
        files = [file for one in ([named] if isinstance(named, str) else named) for file in _files(one)]
        if files:
            found[name] = _digest(files)
    return found


def _files(name):
    """The files that ``name`` stands for, in one order."""
    path = Path(name)
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else map(Path, glob(name, recursive=True))
    return sorted(file for file in found if file.is_file())


def _digest(files):
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def stamp(paths: Iterable[Path]) -> str:
    """SHA-256 of the names, sizes and times of files: it tells a change without reading them."""
    known = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str | None:
    """The first difference between two identities, as a clause about "theirs"; None where they are the same."""
    if theirs.get("command") != mine["command"]:
        return f"it is of minitx {theirs.get('command') or '(unknown)'}"
    ours, others = mine["configuration"], theirs.get("configuration") or {}
    for name in ours:
        if name not in others or others[name] != ours[name]:
            return f"its {name.replace('_', ' ')} {_said(others.get(name))}, and now it {_said(ours[name])}"
    for name, digest in mine["inputs"].items():
        if (theirs.get("inputs") or {}).get(name) != digest:
            named = [ours[name]] if isinstance(ours[name], str) else ours[name]
            return f"the content of {', '.join(named[:3])}{', ...' * (len(named) > 3)} has changed since"
    return None


def _said(value):
    return "is not given" if value in (None, "", []) else f"is {shown(value)}"


def results_in(folder: Path) -> dict[str, Any] | None:
    """What results.json of ``folder`` holds; None where there is none, {} where it is not one of minitx."""
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("configuration"), dict) else {}


def require_free(options: Options, mine: dict[str, Any]) -> None:
    """ValueError if the folder holds a checkpoint, or the results of another run than ``mine`` (:func:`identity`).

    With ``--force`` there is none.
    """
    folder = Path(options.out)
    if options.force:
        return
    if (folder / CHECKPOINT).exists():
        about = Checkpoint(folder / CHECKPOINT).about
        other = difference(about, mine)
        raise ValueError(f"--out is {options.out}, which holds the checkpoint of another run ({other}); choose another "
                         "folder, or begin anew with --force" if other else
                         f"--out is {options.out}, which holds the checkpoint of this run, which was ended; go on with "
                         "it by --resume, or begin anew with --force")
    other = None if (theirs := results_in(folder)) is None else _not_mine(theirs, mine)
    if other:
        raise ValueError(f"--out is {options.out}, which holds the results of another run ({other}); choose another "
                         "folder, or overwrite these results with --force")


def is_finished(options: Options, mine: dict[str, Any]) -> bool:
    """Whether the run that ``--resume`` asks for is finished; False if its checkpoint is there.

    ValueError where there is nothing to go on with, or the folder holds another run than ``mine`` (:func:`identity`).
    """
    folder = Path(options.out)
    if (folder / CHECKPOINT).exists():
        if other := difference(Checkpoint(folder / CHECKPOINT).about, mine):
            raise ValueError(f"{folder / CHECKPOINT} is of another run ({other}); --resume needs no options but --out")
        return False
    if (theirs := results_in(folder)) is None:
        raise ValueError(f"--resume finds no checkpoint and no results in {folder} (--out); leave it out to begin")
    if other := _not_mine(theirs, mine):
        raise ValueError(f"--resume finds the results of another run in {folder} ({other}); --resume needs no options "
                         "but --out")
    if (theirs.get("stopped") or {}).get("kind") == "interrupted":
        raise ValueError(f"--resume finds no checkpoint in {folder}, whose run was interrupted; begin anew with "
                         "--force")
    return True


def _not_mine(theirs, mine):
    """What tells the results ``theirs`` from this run's; None where nothing does."""
    return difference(theirs, mine) if theirs else "its results.json is not one that this minitx can read"
