"""Kernels are compiled anew when they change, and a reader is told, the first time and then not too often."""

import os
import shutil
import subprocess
import sys

import numba

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


CALLED = "from minitx.base.compiling import kernel\n@kernel\ndef f(x):\n    return x + {number}\n"
CALLER = ("from minitx.base.compiling import kernel\nfrom minitx.called_kernels import f\n"
          "@kernel\ndef g(x):\n    return 10 * f(x)\n")
HITS = "from minitx.caller_kernels import g; print(g(1), sum(g.stats.cache_hits.values()))"


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_changes_in_another_file(tmp_path):
    package = tmp_path / "minitx"
    (package / "base").mkdir(parents=True)
    for empty in (package, package / "base"):
        (empty / "__init__.py").touch()
    shutil.copy(compiling.__file__, package / "base")
    (package / "caller_kernels.py").write_text(CALLER, encoding="utf-8")
    found, environment = [], os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    for number in (1, 1, 2):
        (package / "called_kernels.py").write_text(CALLED.format(number=number), encoding="utf-8")
        found.append(subprocess.run([sys.executable, "-c", HITS], cwd=tmp_path, capture_output=True, text=True,
                                    check=True, timeout=120, env=environment).stdout)
    assert found == ["20 0\n", "20 1\n", "30 0\n"]
