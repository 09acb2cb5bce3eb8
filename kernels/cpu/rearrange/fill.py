"""Zeros for a part of a call's workspace: what lies around a padded copy."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastconv.contract.spec import DeviceInfo

from ..machine.lines import whole_lines
from ..runtime.array_plan import ArrayStage, array_record
from ..runtime.plan import compile_kernel
from ..runtime.record import as_record
from ..simd.intrinsics import splat, store
from ..simd.ir import F32

__all__ = ["plan_fill"]

FIELDS = ("at", "bytes")  # in the workspace
view = as_record(FIELDS)

#: Bytes of one task.
_BLOCK = 128 << 10


@functools.cache
def _make_kernel(vector_bytes: int) -> Any:
    lanes, block = vector_bytes // 4, _BLOCK

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        zero = splat(np.float32(0.0), lanes)
        start, end = number * block, min(g.bytes, (number + 1) * block)
        for place in range(start, end, vector_bytes):
            store(workspace + g.at + place, zero, F32)

    return task


def plan_fill(at: int, size: int, device: DeviceInfo) -> ArrayStage:
    """Prepare zeros for `size` bytes of the workspace from `at` on, up to the end of their line."""
    size = whole_lines(size)
    kernel = compile_kernel(_make_kernel(device.vector_bytes), "zeros", device.vector_bytes, _BLOCK)
    return ArrayStage(kernel, -(-size // _BLOCK), array_record(FIELDS, {"at": at, "bytes": size}))
