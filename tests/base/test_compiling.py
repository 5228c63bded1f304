"""Kernels are compiled anew when they change, and a reader is told, the first time and then not too often."""

import importlib
import shutil
import sys

import numba
import pytest

from minitx.base import compiling


def test_the_first_kernel_that_is_compiled_is_told_and_no_kernel_that_is_there(monkeypatch, capsys):
    one, two, three = (numba.njit(lambda x, k=k: x + k) for k in range(3))
    clock = [100.0]
    monkeypatch.setattr(compiling.time, "monotonic", lambda: clock[0])
    with compiling.told():
        one(1.0)
        one(2.0)
        two(1.0)
        clock[0] += compiling.EVERY
        three(1.0)
    one(1)  # compiled again, for whole numbers, but nobody is waiting for a command
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "minitx: compiling kernel 1, <lambda> (a new installation does so once, which takes about a minute in all)",
        "minitx: compiling kernel 3, <lambda>"]


CALLED = "from house.base.compiling import kernel\n@kernel\ndef f(x):\n    return x + {number}\n"
CALLER = ("from house.base.compiling import kernel\nfrom house.called_kernels import f\n"
          "@kernel\ndef g(x):\n    return 10 * f(x)\n")


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="numba is switched off")
def test_a_kernel_is_compiled_anew_when_one_that_it_calls_changes_in_another_file(tmp_path, monkeypatch):
    """A package that is imported anew finds on disk what it compiled before, as a new process does."""
    package = tmp_path / "house"
    (package / "base").mkdir(parents=True)
    for empty in (package, package / "base"):
        (empty / "__init__.py").touch()
    shutil.copy(compiling.__file__, package / "base")
    (package / "caller_kernels.py").write_text(CALLER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that changes within a second is read again
    found = []
    for number in (1, 1, 2):
        (package / "called_kernels.py").write_text(CALLED.format(number=number), encoding="utf-8")
        for name in [name for name in sys.modules if name.split(".")[0] == "house"]:
            monkeypatch.delitem(sys.modules, name)
        kernel = importlib.import_module("house.caller_kernels").g
        found.append((kernel(1), sum(kernel.stats.cache_hits.values())))
    assert found == [(20, 0), (20, 1), (30, 0)]
