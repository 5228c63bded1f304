"""Files are written completely or not at all."""

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest

from minitx.base import report
from minitx.base.checks import atomic, output_folder


def test_an_error_while_writing_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    with atomic(path) as file:
        file.write("after é")
    assert path.read_text(encoding="utf-8") == "after é"
    assert os.listdir(tmp_path) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_output_folder(tmp_path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to the output folder .*file: .*; choose another"):
        output_folder(tmp_path / "file")


def test_json_keeps_inf_and_nan_apart(tmp_path):
    results = {"a": float("nan"), "b": [1.0, float("inf")], 3: None, "c": {"d": True, "e": np.float32(-np.inf)}}
    report.write_json(tmp_path / "x.json", results)
    text = (tmp_path / "x.json").read_text()
    expected = '{ "a": "NaN", "b": [ 1.0, "Infinity" ], "3": null, "c": { "d": true, "e": "-Infinity" } }'
    assert text.split() == expected.split()
    read = json.loads(text)
    assert np.isnan(float(read["a"])) and float(read["b"][1]) == np.inf and float(read["c"]["e"]) == -np.inf


@dataclass
class Found:
    """A result."""

    steps: object


def test_json_of_numpy_and_dataclasses():
    listed = (np.str_("word"), np.bool_(True), np.arange(2))
    value = Found({np.int64(2): np.array(3.5), "x": listed, "none": np.zeros((0, 2))})
    found = report.plain(value)
    assert found == {"steps": {"2": 3.5, "x": ["word", True, [0, 1]], "none": []}}
    assert type(found["steps"]["x"][0]) is str


@pytest.mark.parametrize(("value", "error", "says"), [
    ({1, 2}, TypeError, r"results\.steps\['a'\]\[1\] is a set, which JSON cannot hold"),
    (1j, TypeError, "is a complex"), (b"bytes", TypeError, "is a bytes"), (Found, TypeError, "is a type"),
    (range(3), TypeError, "is a range"), (np.array([1 + 2j]), TypeError, r"\[1\]\[0\] is a complex"),
    ({1: 2, "1": 3}, ValueError, r"two keys of results\.steps\['a'\]\[1\] would both be written as '1'"),
    ({0.5: 1}, TypeError, "has the key 0.5, a float; it must be a string or a whole number"),
    ({True: 1}, TypeError, "has the key True, a bool"), ({None: 1}, TypeError, "has the key None"),
])
def test_json_refuses_what_it_does_not_know(value, error, says, tmp_path):
    path = tmp_path / "x.json"
    path.write_text("before")
    with pytest.raises(error, match=says):
        report.write_json(path, Found({"a": [0, value]}))
    assert path.read_text() == "before"
