"""A reader is told when kernels are compiled: the first time, and then not too often."""

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
