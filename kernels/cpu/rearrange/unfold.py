"""Windows of an image as columns, im2col: a copy whose source is read once for each tap.

Without padding it is one copy (`copy.py`) along the axes channel, tap and window, which reads
samples as often as windows meet them. With padding the image is first copied into the workspace
with its zeros around it, in the memory order of the columns, so that no read asks where it is::

    zeros for the padded image                     fill.py
    the image into it                              copy.py, a transposition where orders differ
    for channel, tap, row of windows               copy.py
      the row's samples                            full vectors; every second one at a stride of 2

Bound by memory: the columns of 3 x 3 taps are nine times the image. The padded copy adds a ninth
that is read again from the caches.
"""

from __future__ import annotations

import math

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.spec import DeviceInfo, dense_strides
from fastconv.contract.unfold_problem import UnfoldProblem

from ..machine.lines import whole_lines
from ..runtime.array_plan import ArrayPlan
from .copy import Place, plan_copy
from .costs import counter_bytes, padded_bytes
from .fill import plan_fill
from .forms import array_axes, rows_innermost

__all__ = ["plan", "workspace"]


def workspace(problem: UnfoldProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: the padded image and the workers' odometers."""
    return whole_lines(padded_bytes(problem)) + counter_bytes(device)


def plan(problem: UnfoldProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    x_strides, out_strides = binding.strides
    item, counters_at = problem.itemsize, whole_lines(padded_bytes(problem))
    if not any(problem.padding):
        copies = [plan_copy(problem.axes(x_strides, out_strides), item, device, counters_at)]
        stages = [copies[0].stage]
    else:
        shape = (problem.batch, problem.channels, *problem.padded)
        strides = dense_strides(shape, item, rows_innermost(out_strides))
        inside = sum(p * s for p, s in zip(problem.padding, strides[2:], strict=True))
        copies = [
            plan_copy(
                array_axes(problem.image_shape, x_strides, strides), item, device, counters_at,
                target=Place(inside, workspace=True),
            ),
            plan_copy(
                problem.axes(strides, out_strides), item, device, counters_at,
                source=Place(workspace=True),
            ),
        ]  # fmt: skip
        zeros = plan_fill(0, math.prod(shape) * item, device)
        stages = [zeros, *(copy.stage for copy in copies)]
    record = stages[-1].record
    assert record is not None
    return ArrayPlan(
        record=record,
        stages=tuple(stages),
        workers=copies[-1].workers,
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
        tables=tuple(table for copy in copies for table in copy.tables),
    )
