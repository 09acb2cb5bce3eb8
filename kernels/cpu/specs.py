"""The CPU's kernels: what each can run, what it costs, where its code is.

This table imports no compiler, so that explaining and choosing are cheap; a kernel's module is
imported when it first runs.

Costs are predicted seconds: floating point operations over the nominal peak, divided by the part
of the peak that the kernel reaches, plus the bytes that it must move.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

from fastconv.problem import ConvProblem
from fastconv.spec import DeviceInfo, KernelSpec, Tolerance

from . import brgemm_blocks, dilated

__all__ = ["SPECS"]

ITEMSIZE = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}

# Sums in compute precision lose a few units in the last place (of the largest output: 1e-6 for a
# thousand products, growing with the square root of their number); the halves are rounded once at
# the end, by at most half a unit: 2**-12 and 2**-9 of the largest output.
_TOLERANCE = {
    "float32": Tolerance(2e-6),
    "float64": Tolerance(4e-15),
    "float16": Tolerance(2.0**-11),
    "bfloat16": Tolerance(2.0**-8),
}


def _workspace(module: str) -> Callable[[ConvProblem, DeviceInfo], int]:
    """Return a function that asks a kernel's module for its workspace."""

    def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
        found = importlib.import_module(f"fastconv.kernels.cpu.{module}")
        return int(found.workspace(problem, device))

    return workspace


def _seconds(
    problem: ConvProblem, device: DeviceInfo, efficiency: float, waste: float = 1.0
) -> float:
    """Return arithmetic time at a part of the peak, or memory time where that is longer."""
    size = ITEMSIZE[problem.dtype]
    compute_size = 8 if problem.dtype == "float64" else 4
    elements = math.prod(problem.x_shape) + math.prod(problem.out_shape)
    elements += math.prod(problem.weight_shape)
    arithmetic = problem.flops * waste / device.flops(compute_size) / efficiency
    return max(arithmetic, elements * size / 20e9) + 2e-6


def _no_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return []


def _im2col_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    rows = problem.out_channels // problem.groups
    # Packing costs as much as some rows of arithmetic; few rows leave the multiply-adds waiting
    # for each other.
    waste = (max(rows, 4) + (8 if problem.layout == "channels_first" else 32)) / rows
    pixels, lanes = (
        math.prod(problem.out_size),
        device.lanes(8 if problem.dtype == "float64" else 4),
    )
    waste *= -(-pixels // lanes) * lanes / max(pixels, 1)
    tasks = problem.batch * problem.groups
    return _seconds(problem, device, 0.9, waste) + tasks * 0.4e-6 / device.threads


#: Regions of the output with taps of their own; more would be too thin to fill vectors.
_MOST_REGIONS = 125


def _dilated_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    if max(problem.dilation) == 1:
        return ["is for dilated kernels; this one has no holes"]
    if not any(max(pair) for pair in problem.padding):
        return ["skips taps in the padding; there is none"]
    intervals = [len(dilated.axis_intervals(problem, axis)) for axis in range(problem.ndim)]
    if math.prod(intervals) > _MOST_REGIONS:
        return [
            f"would cut the output into {math.prod(intervals)} regions, more than {_MOST_REGIONS}"
        ]
    return []


def _dilated_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    lanes = device.lanes(8 if problem.dtype == "float64" else 4)
    rows = problem.out_channels // problem.groups
    share = dilated.active_share(problem, lanes) * (rows + 6) / rows
    regions = math.prod(len(dilated.axis_intervals(problem, axis)) for axis in range(problem.ndim))
    return _seconds(problem, device, 0.88, share) + regions * 2e-6


#: Input channels of a group times kernel depth that `direct` copies at once.
_MOST_PLANES = 64


def _window_waste(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return cycles a useful multiply-add of the window tile, one vector a cycle being 1."""
    lanes = device.lanes(8 if problem.dtype == "float64" else 4)
    kernel, stride = (1, *problem.kernel_size)[-2:], (1, *problem.stride)[-2:]
    width = problem.out_size[-1]
    waste = -(-width // lanes) * lanes / width
    # Without shared rows every multiply-add loads a vector, most of them across a cache line.
    shared = stride[0] == 1 and kernel[0] > 1
    copies = 3 * stride[0] * stride[1] / (kernel[0] * kernel[1])
    if problem.layout != "channels_first":
        copies *= 8
    rows = problem.out_channels // problem.groups
    return waste * ((1.3 if shared else 2.2) + copies / rows)


def _window_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _seconds(problem, device, 0.8, _window_waste(problem, device))


def _depthwise_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    if not problem.is_depthwise:
        channels = problem.in_channels // problem.groups
        return [f"wants one input channel a group; this has {channels}"]
    return []


def _direct_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    planes = problem.in_channels // problem.groups * math.prod(problem.kernel_size[:-2])
    if planes > _MOST_PLANES:
        return [
            f"copies {planes} planes (input channels x kernel depth) a group, more than "
            f"{_MOST_PLANES}"
        ]
    if problem.is_depthwise and problem.groups > 1:
        return ["leaves depthwise problems to cpu.depthwise"]
    return []


def _brgemm_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    lanes = device.lanes(8 if problem.dtype == "float64" else 4)
    channels = problem.out_channels // problem.groups
    if channels < lanes // 2:
        return [
            f"spreads output channels over {lanes} lanes; a group of {channels} fills less than "
            "half of them"
        ]
    return []


def _brgemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    problem = brgemm_blocks.as_row(problem) or problem
    cycles = brgemm_blocks.choose_blocks(problem, device).cycles
    return max(cycles / 3.6e9, _seconds(problem, device, math.inf)) + 2e-6


#: Largest error of F(m, r) in float32 relative to the largest output, over two transformed axes.
_WINOGRAD_LIMIT = 2e-5
_WINOGRAD_TOLERANCE = {
    "float32": Tolerance(_WINOGRAD_LIMIT),
    "float64": Tolerance(_WINOGRAD_LIMIT * 2.0**-29),  # 29 more bits than float32
    "float16": Tolerance(2.0**-11 + _WINOGRAD_LIMIT),
    "bfloat16": Tolerance(2.0**-8 + _WINOGRAD_LIMIT),
}
#: Largest tile, by the number of transformed axes, that stays within that error. Over fifty random
#: layers the largest errors were: one axis, tile 9 1.7e-6; two axes, tile 6 3.5e-6, tile 8 2.2e-5
#: at 512 channels and 1.1e-5 at 128 (the error grows with their square root); three axes, tile 6
#: 3.7e-6.
_WINOGRAD_ELEMENTS = {1: 10, 2: 8, 3: 6}
#: Most channels to sum over in two axes' tiles of more than six.
_WINOGRAD_CHANNELS = 128


def _winograd_reasons(m: int, problem: ConvProblem) -> list[str]:
    reasons = []
    if any(step != 1 for step in problem.stride):
        reasons.append(f"wants a stride of 1; this has {problem.stride}")
    if any(hole != 1 for hole in problem.dilation):
        reasons.append(f"wants a dense kernel; this has dilation {problem.dilation}")
    axes = sum(r > 1 for r in problem.kernel_size)
    channels = problem.in_channels // problem.groups
    largest = max(problem.kernel_size)
    if axes == 0:
        reasons.append("has nothing to transform in a kernel of size 1")
    elif m + largest - 1 > _WINOGRAD_ELEMENTS[axes]:
        reasons.append(
            f"would use tiles of {m + largest - 1} along {axes} axes, whose error passes "
            f"{_WINOGRAD_LIMIT:g}; at most {_WINOGRAD_ELEMENTS[axes]}"
        )
    elif axes == 2 and m + largest - 1 > 6 and channels > _WINOGRAD_CHANNELS:
        reasons.append(
            f"would sum {channels} channels in tiles of {m + largest - 1}, whose error passes "
            f"{_WINOGRAD_LIMIT:g}; at most {_WINOGRAD_CHANNELS}"
        )
    if problem.in_channels == problem.groups:
        reasons.append("has no input channels to sum over in a depthwise problem")
    return reasons


def _winograd_cost(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count cycles for a vector of tiles: products, transforms, and weights from beyond L2."""
    sizes = [(m if r > 1 else 1, r) for r in problem.kernel_size]
    elements = math.prod(tile + r - 1 for tile, r in sizes)
    outputs = math.prod(tile for tile, _ in sizes)
    size = 8 if problem.dtype == "float64" else 4
    lanes = device.lanes(size)
    tiles = [-(-o // tile) for o, (tile, _) in zip(problem.out_size, sizes, strict=True)]
    vectors = -(-math.prod(tiles) // lanes) * problem.batch * problem.groups
    k, c = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    runs = max(1.0, lanes / tiles[-1])  # a vector of tiles is read in so many pieces
    if problem.layout != "channels_first":
        runs = 4 * lanes / 8
    products = elements * max(k, 4) * (c + 5)
    transforms = c * elements * (10 + 14 * runs) + k * (18 * elements + 40 * outputs)
    scale = 16 / device.lanes(4)  # narrower vectors run two at a time
    cycles = vectors * (products + transforms) / min(scale, 2.0)
    weights = elements * k * c * size * problem.groups
    streamed = weights * max(1, vectors // 4) if weights > device.l2 else 0
    return max(cycles / 3.4e9 / device.threads, streamed / 30e9) + 8e-6


def _winograd_workspace(m: int, problem: ConvProblem, device: DeviceInfo) -> int:
    winograd = importlib.import_module("fastconv.kernels.cpu.winograd")
    return int(winograd.workspace(problem, device, m))


def _winograd_spec(m: int) -> KernelSpec:
    return KernelSpec(
        name=f"cpu.winograd_f{m}",
        op="conv",
        device="cpu",
        reasons=lambda problem, device: _winograd_reasons(m, problem),
        cost=lambda problem, device: _winograd_cost(m, problem, device),
        target=f"fastconv.kernels.cpu.winograd:plan_f{m}",
        workspace=lambda problem, device: _winograd_workspace(m, problem, device),
        tolerance=_WINOGRAD_TOLERANCE,
        exact=False,
    )


SPECS = (
    KernelSpec(
        name="cpu.im2col_gemm",
        op="conv",
        device="cpu",
        reasons=_no_reasons,
        cost=_im2col_gemm_cost,
        target="fastconv.kernels.cpu.im2col_gemm:plan",
        workspace=_workspace("im2col_gemm"),
        tolerance=_TOLERANCE,
    ),
    KernelSpec(
        name="cpu.dilated",
        op="conv",
        device="cpu",
        reasons=_dilated_reasons,
        cost=_dilated_cost,
        target="fastconv.kernels.cpu.dilated:plan",
        workspace=_workspace("dilated"),
        tolerance=_TOLERANCE,
    ),
    KernelSpec(
        name="cpu.depthwise",
        op="conv",
        device="cpu",
        reasons=_depthwise_reasons,
        cost=_window_cost,
        target="fastconv.kernels.cpu.depthwise:plan",
        workspace=_workspace("depthwise"),
        tolerance=_TOLERANCE,
    ),
    KernelSpec(
        name="cpu.direct",
        op="conv",
        device="cpu",
        reasons=_direct_reasons,
        cost=_window_cost,
        target="fastconv.kernels.cpu.direct:plan",
        workspace=_workspace("direct"),
        tolerance=_TOLERANCE,
    ),
    KernelSpec(
        name="cpu.brgemm",
        op="conv",
        device="cpu",
        reasons=_brgemm_reasons,
        cost=_brgemm_cost,
        target="fastconv.kernels.cpu.brgemm:plan",
        workspace=_workspace("brgemm"),
        tolerance=_TOLERANCE,
    ),
    *(_winograd_spec(m) for m in (2, 4, 6)),
)
