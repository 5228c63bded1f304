"""Options that need not be typed: those of a file (``--config``), or of the run that ``--resume`` goes on with."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from minitx.base.checkpoint import Checkpoint
from minitx.base.checks import existing_file
from minitx.base.folder import CHECKPOINT, inputs, results_in
from minitx.base.options import shown, typed_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def with_earlier(parsed: argparse.Namespace, parser: argparse.ArgumentParser,
                 parse: Callable[[list[str]], argparse.Namespace]) -> argparse.Namespace:
    """What was typed, and options of a file or of an ended run besides; those that were typed count.

    ``parse(words)`` gives the options of ``words``, as if they had been typed for the command of ``parser``.
    ValueError, which names the file, says what is wrong with it.
    """
    typed, earlier = vars(parsed), {}
    if config := typed.get("config"):
        earlier = _options_of(Path(config), parsed, parser, parse)
    elif typed.get("resume"):
        folder = Path(typed.get("out", f"minitx-{parsed.command}"))
        path = folder / CHECKPOINT
        about = Checkpoint(path).about if path.exists() else results_in(folder) or {}
        command, asked = about.get("command", parsed.command), about.get("asked", {})
        if command != parsed.command:
            raise ValueError(f"--resume finds a run of minitx {command} in {folder}; type minitx {command} --resume "
                             f"--out {folder}")
        earlier = _parsed(asked, path, parser, parse)
        earlier.pop("out", None)  # the folder may have been moved
    return argparse.Namespace(**(earlier | typed))


def _options_of(path, parsed, parser, parse):
    """The options in a TOML file, or those that were typed for the run of a results.json."""
    existing_file(path, "a .toml file, or the results.json of a run")
    try:
        if path.suffix == ".toml":
            found = recorded = tomllib.loads(path.read_text(encoding="utf-8"))
        else:
            recorded = json.loads(path.read_text(encoding="utf-8"))
            found = recorded["asked"]
    except (ValueError, KeyError, TypeError) as error:
        kind = "a TOML file" if path.suffix == ".toml" else "the results.json of a run"
        raise ValueError(f"--config is {path}, which is not {kind} ({error})") from error
    command = recorded.get("command", parsed.command)
    if command != parsed.command:
        raise ValueError(f"--config is {path}, which is of minitx {command}, not of minitx {parsed.command}")
    found = {name.replace("-", "_"): value for name, value in found.items() if name != "command"}
    earlier = _parsed(found, path, parser, parse)
    digests = recorded.get("inputs") if path.suffix != ".toml" else None
    now = inputs(SimpleNamespace(**earlier))
    for name, digest in (digests or {}).items():
        if name not in vars(parsed) and now.get(name) != digest:
            raise ValueError(f"--config is {path}, but the content of {shown(earlier.get(name))} is not what that run "
                             f"has read; type the {'TEXT' if name == 'text' else typed_name(name)} that is to be read")
    return earlier


def _parsed(settings, path, parser, parse):
    """``settings`` {option: value} as they are when they are typed."""
    positional = [action.dest for action in parser._actions if not action.option_strings]
    words, names = [], []
    for name, value in sorted(settings.items(), key=lambda pair: (*positional, pair[0]).index(pair[0])):
        if isinstance(value, dict) or isinstance(value, list) and name not in positional:
            raise ValueError(f"{path}: {name} is {shown(value)}; it must be one value")
        if value is None or value is False and typed_name(name, False) not in parser._option_string_actions:
            continue
        if name in positional:
            names += value if isinstance(value, list) else [value]
        else:
            words.append(typed_name(name, value) if isinstance(value, bool) else f"{typed_name(name)}={value}")
    try:
        return vars(parse([*words, "--", *map(str, names)] if names else words))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
