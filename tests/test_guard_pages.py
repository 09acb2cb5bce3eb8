"""No kernel touches a byte outside its arrays: each array lies against a forbidden page."""

from __future__ import annotations

import sys

import pytest

from helpers import run_child


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no mprotect")
@pytest.mark.parametrize("side", ["before", "after"])
def test_nothing_outside_the_arrays_is_touched(side: str) -> None:
    child = run_child("guard_child.py", side, timeout=300)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert last[0].startswith("passed ")
    assert int(last[0].split()[1]) > 500
