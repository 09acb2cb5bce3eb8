"""The CPU's kernels: what each can run, what it costs, where its code is.

This table imports no compiler, so that explaining and choosing are cheap; a kernel's module is
imported when it first runs.

Costs are predicted seconds: floating point operations over the nominal peak, divided by the part
of the peak that the kernel reaches, plus the bytes that it must move.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable

from fastconv.problem import ConvProblem
from fastconv.spec import DeviceInfo, KernelSpec, Tolerance, copy_cost

from . import brgemm_blocks, dilated, fast_fir_sizes, fft_sizes, winograd_tiles

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


def _plain_pack_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count nothing for a weight that is read as it lies; the halves are widened."""
    return copy_cost(problem, device) if problem.dtype in ("float16", "bfloat16") else 0.0


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
#: layers the largest errors were: one axis, tile 9 1.7e-6; two axes, tile 6 5.6e-6, tile 8 9.8e-6
#: for 64 to 1024 channels (sums of 64 channels, see winograd.py); three axes, tile 6 3.7e-6.
_WINOGRAD_ELEMENTS = {1: 10, 2: 8, 3: 6}


def _winograd_reasons(m: int, problem: ConvProblem) -> list[str]:
    reasons = []
    sizes = winograd_tiles.tile_sizes(problem, m)
    axes = sum(r > 1 for r in problem.kernel_size)
    points = max(axis.points for axis in sizes.axes)
    if axes == 0:
        reasons.append("has nothing to transform in a kernel of size 1")
    elif sizes.elements >= math.prod(sizes.m) * math.prod(problem.kernel_size):
        reasons.append(f"saves no product with strides of {problem.stride}")
    elif points > _WINOGRAD_ELEMENTS[axes]:
        reasons.append(
            f"would use tiles of {points} along {axes} axes, whose error passes "
            f"{_WINOGRAD_LIMIT:g}; at most {_WINOGRAD_ELEMENTS[axes]}"
        )
    if problem.in_channels == problem.groups:
        reasons.append("has no input channels to sum over in a depthwise problem")
    return reasons


def _winograd_input_cycles(sizes: winograd_tiles.Sizes, problem: ConvProblem) -> float:
    """Count cycles for reading and transforming a vector of tiles of one channel.

    Measured: 16 for an element; where rows are copied first, for a sample 38 if channels are to be
    transposed and 30 if sub-grids are to be told apart.
    """
    cycles = 16.0 * sizes.elements
    samples = math.prod(axis.step for axis in sizes.axes)
    cycles += 30 * samples if sizes.axes[-1].dilation > 1 else 0
    return cycles + (38 * samples if problem.layout != "channels_first" else 0)


def _winograd_product_seconds(
    elements: int, outputs: int, tiles: int, problem: ConvProblem, device: DeviceInfo
) -> float:
    """Predict seconds for products, what they wait for, and outputs; `tiles` are those of an image.

    Counted on Zen 4: a call of the register tile loses 160 cycles of 24 a step, so 7 of a
    multiply-add; an output costs 12 cycles an element and 8 a pixel for each vector of channels.
    Of the time that operands take from L3 or memory some half is hidden by arithmetic.
    """
    size, lanes = ITEMSIZE[problem.dtype], device.lanes(8 if problem.dtype == "float64" else 4)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    vectors = -(-k // lanes) * tiles * problem.batch * problem.groups
    cycles = vectors * (elements * (c + 7 * -(-c // 64)) + 12 * elements + 8 * outputs)
    per_cycle = 1.0 if device.vector_bytes == 64 else 2.0  # narrower vectors run two at a time
    # Panels of two vectors of tiles; where there are few, a task has two panels and a part of K.
    panels = max(1, -(-tiles // (2 * lanes)) * problem.batch)
    few = panels * problem.groups < 4 * device.threads
    k_panels = -(-k // (2 * lanes))
    tasks = -(-panels // 2) * k_panels if few else panels
    rounds = -(-tasks * problem.groups // device.threads) * device.threads
    arithmetic = cycles / 3.6e9 / per_cycle / device.threads * rounds / (tasks * problem.groups)
    compute_size = 8 if problem.dtype == "float64" else 4
    weights = elements * k * c * compute_size * problem.groups
    inputs = elements * c * tiles * problem.batch * compute_size * problem.groups
    streamed = weights * (-(-panels // 2) if few else panels) if weights > device.l2 // 2 else 0
    waits = streamed / (260e9 if weights <= device.l3 // 2 else 90e9)
    waits += inputs * k_panels / 260e9 if few else 0.0
    moved = (math.prod(problem.x_shape) + 2 * math.prod(problem.out_shape)) * size
    return arithmetic + waits + max(0.0, moved - device.l3 / 4) * 0.6 / 20e9


def _winograd_cost(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count cycles for the transform of the input, and add all that follows it."""
    sizes = winograd_tiles.tile_sizes(problem, m)
    lanes = device.lanes(8 if problem.dtype == "float64" else 4)
    vectors = -(-sizes.tiles // lanes) * problem.batch * problem.in_channels
    cycles = vectors * _winograd_input_cycles(sizes, problem)
    seconds = cycles / min(16 / device.lanes(4), 2.0) / 3.6e9 / device.threads
    seconds += _winograd_product_seconds(
        sizes.elements, math.prod(sizes.m), sizes.tiles, problem, device
    )
    return seconds + 8e-6


def _winograd_pack_cost(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the elements of the transformed weight, and the bytes that outgrow half of L3."""
    elements = winograd_tiles.tile_sizes(problem, m).elements
    elements *= math.prod(problem.weight_shape[:2])
    size = 8 if problem.dtype == "float64" else 4
    streamed = max(0, elements * size - device.l3 // 2)
    return elements * (size / 4) * 0.7e-9 / device.threads + streamed / 5e9 + 1e-6


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
        pack_cost=lambda problem, device: _winograd_pack_cost(m, problem, device),
    )


#: Over fifty random filters of 13x13 to 63x63 taps: 1.3e-5 of the largest output, see fast_fir.py.
_FAST_FIR_TOLERANCE = {
    "float32": Tolerance(2e-5),
    "float64": Tolerance(2e-5 * 2.0**-29),
    "float16": Tolerance(2.0**-11 + 2e-5),
    "bfloat16": Tolerance(2.0**-8 + 2e-5),
}


def _fast_fir_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = []
    if problem.ndim == 3:
        reasons.append("transforms one or two axes; this problem has three")
    if any(step != 1 for step in problem.stride):
        reasons.append(f"wants a stride of 1; this has {problem.stride}")
    if any(hole != 1 for hole in problem.dilation):
        reasons.append(f"wants a dense kernel; this has dilation {problem.dilation}")
    channels = problem.in_channels // problem.groups
    if channels > _MOST_PLANES:
        reasons.append(f"holds {channels} input channels of a group, more than {_MOST_PLANES}")
    if not any(True for _ in fast_fir_sizes.phase_counts(problem)):
        reasons.append(f"wants two taps of a phase at least; the kernel is {problem.kernel_size}")
    return reasons


#: Fewer taps than this are far from where a transform of blocks pays.
_FFT_TAPS = 64
#: Most transformed kernels of one group: each takes as much memory as a block.
_FFT_KERNELS = 64


def _fft_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = []
    if not _has_scipy():
        reasons.append("needs SciPy's FFT: pip install 'fastconv[scipy]'")
    if any(step != 1 for step in problem.stride):
        reasons.append(f"wants a stride of 1; this has {problem.stride}")
    taps = math.prod(problem.kernel_size)
    if taps < _FFT_TAPS:
        reasons.append(f"is for kernels of at least {_FFT_TAPS} taps; this has {taps}")
    kernels = problem.out_channels // problem.groups * (problem.in_channels // problem.groups)
    if kernels > _FFT_KERNELS:
        reasons.append(f"would transform {kernels} kernels of a group, more than {_FFT_KERNELS}")
    return reasons


@functools.cache
def _has_scipy() -> bool:
    return importlib.util.find_spec("scipy") is not None


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
        pack_cost=_plain_pack_cost,
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
        pack_cost=_plain_pack_cost,
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
    *(_winograd_spec(m) for m in (2, 3, 4, 6)),
    KernelSpec(
        name="cpu.fast_fir",
        op="conv",
        device="cpu",
        reasons=_fast_fir_reasons,
        cost=fast_fir_sizes.seconds,
        target="fastconv.kernels.cpu.fast_fir:plan",
        workspace=_workspace("fast_fir"),
        tolerance=_FAST_FIR_TOLERANCE,
        exact=False,
    ),
    KernelSpec(
        name="cpu.fft",
        op="conv",
        device="cpu",
        reasons=_fft_reasons,
        cost=lambda problem, device: fft_sizes.choose(problem, device)[0],
        target="fastconv.kernels.cpu.fft:plan",
        workspace=_workspace("fft"),
        tolerance=_TOLERANCE,
        exact=False,
    ),
)
