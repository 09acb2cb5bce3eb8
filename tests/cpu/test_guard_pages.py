"""No kernel touches a byte outside its arrays: each array lies against a forbidden page."""

from __future__ import annotations

import sys

import pytest

from fastconv import dispatch
from helpers import run_child

KERNELS = [spec.name for spec in dispatch.kernels(op="conv", device="cpu")]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no mprotect")
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_outside_the_arrays_is_touched(
    kernel: str, side: str, request: pytest.FixtureRequest
) -> None:
    # Ten times as much of the matrix as the tests that compare results. All of it took a tenth of
    # a whole run: most of that compiles variants that no other test asks for.
    option = request.config.getoption
    part = str(min(100, 10 * option("--matrix"))), str(option("--matrix-seed"))
    # The time limit is for a child that hangs: most of its time goes into compiling.
    child = run_child("guard_child.py", kernel, side, *part, timeout=900)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert last[0].startswith("passed ")
    assert int(last[0].split()[1]) > 3
