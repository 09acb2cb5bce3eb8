"""Pools over windows of dense arrays: the kernel that suits how their arrays lie.

=========  =====================  ==================================================
lanes      where                  kernel
=========  =====================  ==================================================
plane      one window a channel   planes.py: one stretch of samples
channels   channels last          channels.py, places_of_channels.py: a vector a tap
row        narrow windows         short_rows.py: outputs of a row, in registers
row        everything else        rows.py, places_of_rows.py: outputs of a row
=========  =====================  ==================================================
"""

from __future__ import annotations

import math

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.spec import DeviceInfo

from ...axes import name_axes
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..simd.ir import storage_code
from .channels import make_channels
from .fields import FIELDS, REALS
from .geometry import LARGEST, MEAN, NORM, AnyPool, Windows, is_short, lanes_along, windows_of
from .layout import LONGEST_STEP, Split, split, worker_memory
from .places_of_channels import make_places_of_channels
from .places_of_rows import make_places_of_rows
from .planes import make_planes
from .rows import make_rows
from .short_rows import make_short_rows

__all__ = ["cut_fields", "plan", "window_fields", "workspace"]

#: Rows of a window that are loaded one after the other, no loop.
_MOST_ROWS = 5
#: Widths of windows whose loop over taps is written out.
_WRITTEN_OUT = (2, 3)


def workspace(problem: AnyPool, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    if problem.return_indices:
        return 0
    each = worker_memory(problem, device).fields["worker_bytes"]
    return each * worth_helpers(problem.flops, device.threads)


def window_fields(problem: AnyPool, windows: Windows) -> dict[str, float]:
    """Return sizes and steps by field, three spatial axes of any rank, and how means divide."""
    return {
        "with_pads": windows.with_pads,
        "divisor": windows.divisor,
        "n": problem.batch,
        "c": problem.channels,
        **name_axes("i", problem.in_size, 1),
        **name_axes("o", problem.out_size, 1),
        **name_axes("k", windows.kernel, 1),
        **name_axes("s", windows.stride, 1),
        **name_axes("p", windows.padding, 0),
        **name_axes("d", windows.dilation, 1),
    }


def _clipped(problem: AnyPool, windows: Windows) -> bool:
    """Return whether the last window reaches beyond the padded input."""
    along = zip(problem.in_size, problem.out_size, *windows[:3], strict=True)
    return any((o - 1) * s + k > i + 2 * p for i, o, k, s, p in along)


def _exact(problem: AnyPool, windows: Windows) -> dict[str, float]:
    """Return the reciprocal by which all means are multiplied, where that is exact."""
    counted = windows.with_pads or max(windows.padding) == 0
    usual = counted and not windows.unequal and not _clipped(problem, windows)
    divisor = windows.divisor or (math.prod(windows.kernel) if usual else 0)
    if windows.rule != MEAN or divisor <= 0 or divisor & (divisor - 1):
        return {}
    return {"exact": 1, "factor": 1 / divisor}


def _full_rows(problem: AnyPool, windows: Windows) -> dict[str, int]:
    """Return the rows of outputs whose windows have all their rows, where a kernel knows them."""
    if len(problem.in_size) < 2 or not _known_rows(windows):
        return {}
    size, kernel, step, pad, dilation = (each[-2] for each in (problem.in_size, *windows[:4]))
    last = (size - 1 - (kernel - 1) * dilation + pad) // step
    return {"full_from": -(-pad // step), "full_to": min(last + 1, problem.out_size[-2])}


def _known_rows(windows: Windows) -> int:
    """Return the rows of a window that a kernel is compiled for, 0 where it counts them."""
    known = math.prod(windows.kernel[:-2]) == 1 and math.prod(windows.kernel[:-1]) <= _MOST_ROWS
    return math.prod(windows.kernel[:-1]) if known else 0


def _kernel(
    problem: AnyPool, windows: Windows, binding: ArrayBinding, along: str, lanes: int
) -> int:
    """Return the address of the kernel for lanes along an axis."""
    storage, unequal = storage_code(problem.dtype), int(windows.unequal)
    rule, degree = windows.rule, windows.degree
    if problem.return_indices:
        if along == "channels":
            function = make_places_of_channels(unequal, lanes, storage)
            return compile_kernel(function, "pool_channel_places", unequal, lanes, storage)
        function = make_places_of_rows(unequal, lanes, storage)
        return compile_kernel(function, "pool_row_places", unequal, lanes, storage)
    if along == "plane":
        function = make_planes(rule, lanes, storage)
        return compile_kernel(function, "pool_planes", rule, lanes, storage)
    if along == "channels":
        key = (rule, degree, unequal, lanes, storage)
        return compile_kernel(make_channels(*key), "pool_channels", *key)
    if is_short(problem, windows, binding, lanes):
        rows = _known_rows(windows)
        short = (rows, rule, degree, windows.kernel[-1], windows.stride[-1], lanes, storage)
        return compile_kernel(make_short_rows(*short), "pool_short_rows", *short)
    taps = windows.kernel[-1] if windows.kernel[-1] in _WRITTEN_OUT else 0
    step = windows.stride[-1] if windows.stride[-1] <= LONGEST_STEP else 0
    if unequal:
        taps = step = 0
    row = (rule, degree, taps, step, unequal, lanes, storage)
    return compile_kernel(make_rows(*row), "pool_rows", *row)


def cut_fields(cut: Split) -> dict[str, float]:
    """Return the fields that say what a task is."""
    return {"units": cut.units, "block": cut.block, "pieces": cut.pieces, "piece": cut.piece}


def plan(problem: AnyPool, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    windows, along = windows_of(problem), lanes_along(problem, binding)
    cut = split(problem, along, device)
    values: dict[str, float] = {**window_fields(problem, windows), **cut_fields(cut)}
    for letter, strides in zip("xyr", binding.strides, strict=False):
        values |= name_strides(letter, strides)
    values |= {
        "window": math.prod(windows.kernel), "power": getattr(problem, "norm_type", 0.0),
        "clipped": windows.rule == NORM and _clipped(problem, windows),
    }  # fmt: skip
    values |= _full_rows(problem, windows) | _exact(problem, windows)
    workers, scratch = worth_helpers(problem.flops, device.threads), 0
    if along == "plane":
        values["plane"] = math.prod(problem.in_size)
        if windows.rule != LARGEST and not windows.divisor:
            values["divisor"] = values["plane"]
    elif along == "row" and not problem.return_indices:
        parts = worker_memory(problem, device).fields
        values |= {name: parts[name] for name in ("shares_at", "joined_at", "worker_bytes")}
        scratch = parts["worker_bytes"] * workers
    lanes = device.lanes(problem.compute_itemsize)
    return ArrayPlan(
        record=array_record(FIELDS, values, REALS),
        stages=(ArrayStage(_kernel(problem, windows, binding, along, lanes), cut.tasks),),
        workers=workers,
        workspace_bytes=scratch,
        flush=binding.flush,
    )
