"""Local response norm, pixels in the lanes: contiguous, or gathered.

::

    task = block of pixels of an image
      for channel
        for vector of the block
          for channel of the window: sum += x * x              from L2, but for the last one
          out = x * (k + alpha / size * sum) ** -beta

The power is a logarithm and an exponential, 45 instructions of a vector's 50 and some (a window of
five channels). The sum is taken anew for each channel: taking off what leaves the window would keep
its rounding.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.pointwise_problem import LocalResponseProblem
from fastconv.contract.spec import DeviceInfo

from ..common.collapse import collapse, name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import fma, mul
from ..simd.exponentials import power
from ..simd.intrinsics import splat
from ..simd.ir import F64, compute_code, storage_code

__all__ = ["plan", "workspace"]

#: Pixels of a task.
_PIXELS = 512

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of the pixels, the last one in the lanes
    "block",  # pixels of a task
    "blocks",  # along the last axis
    "before",  # channels of a window before an element's own,
    "behind",  # and behind it
)
_REALS = ("mean_factor", "exponent", "offset")
view = as_record(FIELDS, _REALS)


@functools.cache
def _make_kernel(unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)

    @numba.njit
    def take(at: int, step: int, count: int) -> Any:
        if count >= lanes:
            return read(at, step)
        return read_end(at, step, count, as_compute(0.0))

    @numba.njit
    def respond(g: Any, x: int, count: int, first: int, last: int, own: int) -> Any:
        sums = splat(as_compute(0.0), lanes)
        for c in range(first, last):
            value = take(x + c * g.xc, g.xs, count)
            sums = fma(value, value, sums)
        base = fma(
            sums, splat(as_compute(g.mean_factor), lanes), splat(as_compute(g.offset), lanes)
        )
        factor = power(base, splat(as_compute(g.exponent), lanes))
        return mul(take(x + own * g.xc, g.xs, count), factor)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        begin, rest = number % g.blocks * g.block, number // g.blocks
        r, rest = rest % g.r, rest // g.r
        q, p = rest % g.q, rest // g.q
        source = x + p * g.xp + q * g.xq + r * g.xr
        target = out + p * g.yp + q * g.yq + r * g.yr
        end = min(g.s, begin + g.block)
        for c in range(g.c):
            first, last = max(0, c - g.before), min(g.c, c + g.behind + 1)
            for i in range(begin, end, lanes):
                count = end - i
                value = respond(g, source + i * g.xs, count, first, last, c)
                place = target + c * g.yc + i * g.ys
                if count >= lanes:
                    write(place, g.ys, value)
                else:
                    write_end(place, g.ys, count, value)

    return task


def workspace(problem: LocalResponseProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def plan(problem: LocalResponseProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    x, y = binding.strides
    shape, item = problem.x_shape, problem.itemsize
    axes = collapse((shape[0], *shape[2:]), (x[0], *x[2:]), (y[0], *y[2:])) or [(1, (item, item))]
    pixels, steps = axes[-1]
    block = min(_PIXELS, pixels)
    values = name_loops("pqrs", axes, "xy") | {
        "c": problem.channels, "xc": x[1], "yc": y[1], "block": block,
        "blocks": -(-pixels // block), "before": problem.size // 2,
        "behind": (problem.size - 1) // 2,
    }  # fmt: skip
    reals = {
        "mean_factor": problem.alpha / problem.size, "exponent": -problem.beta,
        "offset": problem.k,
    }  # fmt: skip
    key = (
        int(steps == (item, item)), device.lanes(problem.compute_itemsize),
        storage_code(problem.dtype),
    )  # fmt: skip
    kernel = compile_kernel(_make_kernel(*key), "local_response_norm", *key)
    tasks = values["blocks"] * math.prod(size for size, _ in axes[:-1])
    return ArrayPlan(
        record=array_record(FIELDS, {**values, **reals}, _REALS),
        stages=(ArrayStage(kernel, tasks),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
