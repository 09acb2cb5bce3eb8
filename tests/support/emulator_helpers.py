"""What the tests of the emulator share."""

from __future__ import annotations

import inspect
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


def line_of(kernel: Callable[..., Any], text: str) -> int:
    """Line of the first of a function's source lines that holds `text`."""
    lines, first = inspect.getsourcelines(kernel)
    return first + next(i for i, line in enumerate(lines) if text in line)
