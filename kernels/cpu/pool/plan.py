"""Pools over windows: a task takes one channel of one image."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.pool_problem import PoolProblem
from fastconv.contract.spec import DeviceInfo

from ...axes import name_axes
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import load_scalar, store_scalar
from ..simd.ir import F64, compute_code, storage_code
from .costs import tasks

__all__ = ["plan", "workspace"]

FIELDS = ()
view = as_record(FIELDS)


@functools.cache
def _make_kernel(storage: int) -> Any:
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, channel = number // g.c, number % g.c
        source, target = x + image * g.xn + channel * g.xc, out + image * g.yn + channel * g.yc
        for od in range(g.od):
            for oh in range(g.oh):
                for ow in range(g.ow):
                    largest = as_compute(-np.inf)
                    for kd in range(g.kd):
                        d = od * g.sd + kd * g.dd - g.pd
                        if d < 0 or d >= g.id:
                            continue
                        for kh in range(g.kh):
                            h = oh * g.sh + kh * g.dh - g.ph
                            if h < 0 or h >= g.ih:
                                continue
                            for kw in range(g.kw):
                                w = ow * g.sw + kw * g.dw - g.pw
                                if w < 0 or w >= g.iw:
                                    continue
                                place = source + d * g.xd + h * g.xh + w * g.xw
                                value = load_scalar(place, storage)
                                if value > largest or value != value:
                                    largest = value
                    place = target + od * g.yd + oh * g.yh + ow * g.yw
                    store_scalar(place, largest, storage)

    return task


def workspace(problem: PoolProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def _axes(problem: PoolProblem) -> dict[str, int]:
    """Return sizes and steps by field, three spatial axes of any rank."""
    return (
        {"n": problem.batch, "c": problem.channels}
        | name_axes("i", problem.in_size, 1)
        | name_axes("o", problem.out_size, 1)
        | name_axes("k", problem.kernel_size, 1)
        | name_axes("s", problem.stride, 1)
        | name_axes("p", problem.padding, 0)
        | name_axes("d", problem.dilation, 1)
    )


def plan(problem: PoolProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    x_strides, out_strides = binding.strides
    storage = storage_code(problem.dtype)
    values = _axes(problem) | name_strides("x", x_strides) | name_strides("y", out_strides)
    kernel = compile_kernel(_make_kernel(storage), "max_pool", storage)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, tasks(problem)),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
