"""What the tests of the emulator share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv import cuda_emulator

ORDERS = ["forward", "reverse", 3]


def launch(
    kernel: Callable[..., Any], *args: Any, grid: Any = 1, block: Any = 32, **options: Any
) -> cuda_emulator.Report:
    """Launch with all checks, which must find nothing."""
    emulated = cuda_emulator.EmulatedKernel(kernel)
    report = emulated.launch(grid, block, args, checks=cuda_emulator.ALL, **options)
    assert [str(fault) for fault in report.faults] == []
    return report
