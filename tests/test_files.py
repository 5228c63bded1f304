"""Files are written completely or not at all."""

import os

import pytest

from minitx import report
from minitx.files import atomic, output_folder


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


def test_json_holds_no_nan(tmp_path):
    report.write_json(tmp_path / "x.json", {"a": float("nan"), "b": [1.0, float("inf")], 3: None, "c": {"d": True}})
    assert (tmp_path / "x.json").read_text().split() == '{ "a": null, "b": [ 1.0, null ], "3": null, "c": { "d": true } }'.split()
