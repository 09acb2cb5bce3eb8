"""Nothing that a caller does to sparse values leads machine code out of their arrays."""

from __future__ import annotations

import pytest

from helpers import run_child


@pytest.mark.parametrize("device", ["host", "device"])
def test_attacks_end_in_an_error_or_in_the_right_answer(device: str) -> None:
    if device == "device":
        pytest.importorskip("numba_cuda")
    # The time limit is for a child that hangs: most of its time goes into compiling.
    child = run_child("sparse_attack_child.py", device, timeout=900)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert last[0].startswith("passed ")
    assert int(last[0].split()[1]) > (20 if device == "host" else 3)


def test_every_argument_at_its_extremes() -> None:
    child = run_child("sparse_extremes_child.py", timeout=900)
    last = child.stdout.strip().splitlines()[-1:]
    assert child.returncode == 0, f"{child.returncode} in {last}\n{child.stderr[-3000:]}"
    assert last[0].startswith("passed ")
    assert int(last[0].split()[1]) > 4000
