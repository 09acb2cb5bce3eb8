"""Gradients of means for their input: the kernel that suits how both gradients lie."""

from __future__ import annotations

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.spec import DeviceInfo

from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..simd.ir import storage_code
from .fields import FIELDS, REALS
from .geometry import AnyPool, spreads_along, windows_of
from .layout import row_pad, split_spread, spread_memory
from .plan import cut_fields, window_fields
from .spread_channels import make_spread_channels
from .spread_rows import make_spread_rows

__all__ = ["plan", "workspace"]


def workspace(problem: AnyPool, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    each = spread_memory(problem, device).fields["worker_bytes"]
    return each * worth_helpers(problem.flops, device.threads)


def plan(problem: AnyPool, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    windows, along = windows_of(problem), spreads_along(problem, binding)
    cut = split_spread(problem, along, device)
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    values = window_fields(problem, windows) | cut_fields(cut)
    for letter, strides in zip("xy", binding.strides, strict=True):
        values |= name_strides(letter, strides)
    workers, scratch, unequal = worth_helpers(problem.flops, device.threads), 0, windows.unequal
    if along == "channels":
        key = (int(unequal), lanes, storage)
        kernel = compile_kernel(make_spread_channels(*key), "pool_spread_channels", *key)
    else:
        parts = spread_memory(problem, device).fields
        values |= {name: parts[name] for name in ("shares_at", "joined_at", "worker_bytes")}
        values["row_pad"] = row_pad(problem, device)
        scratch = parts["worker_bytes"] * workers
        step = windows.stride[-1] if windows.stride[-1] <= 2 and not unequal else 0
        row = (int(unequal), step, lanes, storage)
        kernel = compile_kernel(make_spread_rows(*row), "pool_spread_rows", *row)
    return ArrayPlan(
        record=array_record(FIELDS, values, REALS),
        stages=(ArrayStage(kernel, cut.tasks),),
        workers=workers,
        workspace_bytes=scratch,
        flush=binding.flush,
    )
