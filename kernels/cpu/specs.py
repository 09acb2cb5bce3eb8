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
from typing import Any

from fastconv import first_use
from fastconv.problem import ConvProblem
from fastconv.spec import DeviceInfo, KernelSpec, Tolerance, copy_cost

from ..sums import sum_reasons
from ..taps import dilated_reasons, regions
from .brgemm import costs as brgemm_blocks
from .fast_fir import costs as fast_fir_sizes
from .fft import costs as fft_sizes
from .gemm import costs as counts
from .gemm import split as blocking
from .window import pixel_costs, row_costs, rows_copied_layout
from .winograd import costs as winograd_costs
from .winograd_1d import costs as winograd_1d_blocks

__all__ = ["SPECS", "TOLERANCE", "ask_workspace"]


# Sums in compute precision lose a few units in the last place (of the largest output: 1e-6 for any
# number of products, since no single sum is long; see gemm/split.py, also for sums of equal products,
# which lose ten times as much); the halves are rounded once at the end, by at most half a unit:
# 2**-12 and 2**-9 of the largest output. Pairs of bfloat16 are summed in float32 too: over layers
# of up to 1161 products at most 0.82 of the bound below, as with widened operands.
TOLERANCE = {
    "float32": Tolerance(2e-6),
    "float64": Tolerance(4e-15),
    "float16": Tolerance(2.0**-11),
    "bfloat16": Tolerance(2.0**-8),
}


def ask_workspace(module: str) -> Callable[[Any, DeviceInfo], int]:
    """Return a function that asks a kernel's module for its workspace."""

    def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
        found = first_use.load(f"fastconv.kernels.cpu.{module}")
        return int(found.workspace(problem, device))

    return workspace


def _bytes(problem: ConvProblem) -> int:
    """Return the bytes of all operands."""
    elements = math.prod(problem.x_shape) + math.prod(problem.out_shape)
    return problem.itemsize * (elements + math.prod(problem.weight_shape))


def _seconds(
    problem: ConvProblem, device: DeviceInfo, efficiency: float, waste: float = 1.0
) -> float:
    """Return arithmetic time at a part of the peak, or memory time where that is longer."""
    compute_size = problem.compute_itemsize
    arithmetic = problem.flops * waste / device.flops(compute_size) / efficiency
    return max(arithmetic, _bytes(problem) / 20e9) + 2e-6


def _plain_pack_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count nothing for a weight that is read as it lies; the halves are widened."""
    return copy_cost(problem, device) if problem.dtype in ("float16", "bfloat16") else 0.0


def _no_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return []


def _count_seconds(
    problem: ConvProblem, device: DeviceInfo, count: Callable[..., blocking.Count], direct: bool
) -> float:
    """Return the time of a GEMM-like kernel: its cycles, or its bytes where they take longer."""
    pixels = (math.prod(problem.out_size), math.prod(problem.kernel_size))
    made = count(problem, device, direct, counts.in_place_likely(problem))
    split = blocking.choose_split(problem, device, made, (pixels,))
    # Tiles of a dozen channels write in as many places in turn: a tenth slower than one run.
    return max(split.cycles / blocking.HERTZ, _bytes(problem) / 18e9) + 2e-6


def _im2col_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _count_seconds(
        problem, device, counts.im2col_count, counts.direct_likely(problem, device)
    )


#: What turned sums cost beside their count: 1x1 layers took 1.0 to 1.24 times as long.
_TURNED = 1.08


def _swapped_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    direct = problem.layout == "channels_first"
    return _TURNED * _count_seconds(problem, device, counts.swapped_count, direct)


def _dilated_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return dilated_reasons(problem)


def _dilated_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    pixels = tuple(
        (math.prod(sizes), math.prod(end - first for first, end in zip(firsts, ends, strict=True)))
        for _, sizes, firsts, ends in regions(problem)
    )
    made = counts.im2col_count(problem, device, direct=False, in_place=False)
    split = blocking.choose_split(problem, device, made, pixels)
    return max(split.cycles / blocking.HERTZ, _bytes(problem) / 20e9) + 2e-6


#: Input channels of a group times kernel depth that `direct` copies at once.
_MOST_PLANES = 64


#: Most taps of a kernel row, whose places in a copy are listed, and positions of an output row.
_MOST_ROW_TAPS, _MOST_ROW = 1 << 20, 1 << 32


def _row_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return what stands against a window over rows of a size."""
    taps, row = problem.kernel_size[-1], problem.out_size[-1]
    if taps > _MOST_ROW_TAPS:
        return [f"lists the places of at most {_MOST_ROW_TAPS} taps of a row; this has {taps}"]
    if row > _MOST_ROW:
        return [f"cuts rows of at most {_MOST_ROW} outputs into strips; this has {row}"]
    return rows_copied_layout.copy_reasons(problem, device)


#: Bytes a second from L3 and from memory, both cores; the output is also read before it is written.
_L3_BANDWIDTH, _MEMORY_BANDWIDTH = 110e9, 45e9
#: Output channels of a group beyond which their blocks read the rows again and again, and write to
#: many places in turn: first layers of 24 to 64 took 1.15 to 1.8 times the cycles counted. With a
#: kernel's depth there is more arithmetic for each place, and the count is right.
_FEW_OUTPUTS, _REREAD = 16, 1.3
#: Seconds that a call of a window kernel takes beside its arithmetic: on an 8x8 image 3
#: microseconds in all, and up to 5 more where the arithmetic is as long.
_WINDOW_CALL, _WINDOW_START = 3e-6, 5e-6


def _vector_seconds(cycles: float, device: DeviceInfo) -> float:
    """Return the time of multiply-adds of full vectors, one a cycle of a 512-bit machine."""
    rate = device.flops(4) / (2 * device.lanes(4)) / device.threads
    return cycles / (3.5 / 3.0 * rate) / device.threads


def _window_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the cycles of the cut, and bytes where operands do not fit the cores' L2."""
    size = problem.itemsize
    gathered = size < 4 or problem.layout != "channels_first"
    cycles = row_costs.cut_cycles(problem, device)
    if gathered or problem.stride[-1] > 2 or row_costs.cut(problem, device, max(size, 4)).rows:
        cycles += row_costs.copied_padding(problem)  # of rows, which then are copied
    if problem.out_channels == problem.groups == problem.in_channels:
        in_place = problem.layout == "channels_last" and min(
            pixel_costs.map_cycles(problem, device) or math.inf,
            row_costs.interleaved_cycles(problem, device),
        )
        in_place = in_place if in_place < math.inf else 0.0
        cycles = in_place or min(cycles, pixel_costs.block_cycles(problem, device))
    else:
        in_place = 0.0
    channels = problem.in_channels // problem.groups
    if channels > 16:  # so many planes at once share few sets of the L1 cache
        cycles *= 1 + min(1.0, channels * math.prod(problem.in_size) * size / device.l2)
    inputs, outputs = math.prod(problem.x_shape), math.prod(problem.out_shape)
    if gathered and (size < 4 or not in_place):
        # Elements are gathered into a copy and scattered from one, one by one or converted.
        cycles += (3 * inputs + 4 * outputs) / max(problem.batch, 1) / (1 if size > 2 else 4)
    traffic = size * (inputs + 2 * outputs)
    if traffic > device.l3 // 2:
        memory = traffic / _MEMORY_BANDWIDTH
    else:
        memory = traffic / _L3_BANDWIDTH if traffic > device.l2 * device.threads else 0.0
    seconds = max(_vector_seconds(cycles * problem.batch, device), memory)
    many = problem.out_channels // problem.groups > _FEW_OUTPUTS and problem.ndim < 3
    seconds *= _REREAD if many else 1.0
    return seconds + _WINDOW_CALL + min(_WINDOW_START, seconds)


#: Bytes over which the taps of a kernel that copies its padded input may reach.
_MOST_REACH = 256 << 20


def _reach_reasons(problem: ConvProblem) -> list[str]:
    """Return why a kernel that may copy what lies under its taps is not for taps so far apart."""
    along = zip(problem.kernel_size, problem.dilation, strict=True)
    longest = max((taps - 1) * step + 1 for taps, step in along)
    copied = problem.in_channels // problem.groups * longest * problem.compute_itemsize
    if copied > _MOST_REACH:
        return [f"copies what its taps reach over, at most {_MOST_REACH} bytes; here {copied}"]
    return []


def _depthwise_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = _reach_reasons(problem) + sum_reasons(problem, blocking.LONGEST_SUM)
    if not problem.is_depthwise:
        channels = problem.in_channels // problem.groups
        reasons.append(f"wants one input channel a group; this has {channels}")
    return reasons or _row_reasons(problem, device)


def _direct_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = _reach_reasons(problem) + sum_reasons(problem, blocking.LONGEST_SUM)
    planes = problem.in_channels // problem.groups * math.prod(problem.kernel_size[:-2])
    if planes > _MOST_PLANES:
        reasons.append(
            f"copies {planes} planes (input channels x kernel depth) a group, more than "
            f"{_MOST_PLANES}"
        )
    if problem.is_depthwise and problem.groups > 1:
        reasons.append("leaves depthwise problems to cpu.depthwise")
    return reasons or _row_reasons(problem, device)


def _brgemm_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return _reach_reasons(problem) + brgemm_blocks.reasons(problem, device)


def _brgemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    problem = brgemm_blocks.as_row(problem) or problem
    cycles = brgemm_blocks.choose_blocks(problem, device).cycles
    return max(cycles / 3.6e9, _seconds(problem, device, math.inf)) + 2e-6


def _winograd_workspace(m: int, problem: ConvProblem, device: DeviceInfo) -> int:
    winograd = first_use.load("fastconv.kernels.cpu.winograd.plan")
    return int(winograd.workspace(problem, device, m))


def _winograd_spec(m: int) -> KernelSpec:
    return KernelSpec(
        name=f"cpu.winograd_f{m}",
        op="conv",
        device="cpu",
        reasons=lambda problem, device: winograd_costs.reasons(m, problem, device),
        cost=lambda problem, device: winograd_costs.seconds(m, problem, device),
        target=f"fastconv.kernels.cpu.winograd.plan:plan_f{m}",
        workspace=lambda problem, device: _winograd_workspace(m, problem, device),
        tolerance=winograd_costs.TOLERANCE,
        exact=False,
        pack_cost=lambda problem, device: winograd_costs.pack_seconds(m, problem, device),
    )


#: Over fifty random filters of 13x13 to 63x63 taps: 1.3e-5 of the largest output, see fast_fir/plan.py.
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
        reasons.append(
            "wants phases of two taps at least and sums of at most "
            f"{fast_fir_sizes.MOST_STEPS} products; the kernel is {problem.kernel_size}"
        )
    if not reasons:
        size, most = fast_fir_sizes.smallest_bytes(problem, device), fast_fir_sizes.MOST_BYTES
        if size > most:
            reasons.append(f"transforms blocks of {size >> 20} MiB, more than {most >> 20}")
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
        target="fastconv.kernels.cpu.gemm.tile.channel_rows:plan",
        workspace=ask_workspace("im2col_gemm"),
        tolerance=TOLERANCE,
    ),
    KernelSpec(
        name="cpu.swapped_gemm",
        op="conv",
        device="cpu",
        reasons=_no_reasons,
        cost=_swapped_gemm_cost,
        target="fastconv.kernels.cpu.gemm.tile.pixel_rows:plan",
        workspace=ask_workspace("swapped_gemm"),
        tolerance=TOLERANCE,
    ),
    KernelSpec(
        name="cpu.dilated",
        op="conv",
        device="cpu",
        reasons=_dilated_reasons,
        cost=_dilated_cost,
        target="fastconv.kernels.cpu.gemm.tile.dilated:plan",
        workspace=ask_workspace("dilated"),
        tolerance=TOLERANCE,
    ),
    KernelSpec(
        name="cpu.depthwise",
        op="conv",
        device="cpu",
        reasons=_depthwise_reasons,
        cost=_window_cost,
        target="fastconv.kernels.cpu.window.row_tile.depthwise:plan",
        workspace=ask_workspace("depthwise"),
        tolerance=TOLERANCE,
        pack_cost=_plain_pack_cost,
    ),
    KernelSpec(
        name="cpu.direct",
        op="conv",
        device="cpu",
        reasons=_direct_reasons,
        cost=_window_cost,
        target="fastconv.kernels.cpu.window.row_tile.direct:plan",
        workspace=ask_workspace("direct"),
        tolerance=TOLERANCE,
        pack_cost=_plain_pack_cost,
    ),
    KernelSpec(
        name="cpu.brgemm",
        op="conv",
        device="cpu",
        reasons=_brgemm_reasons,
        cost=_brgemm_cost,
        target="fastconv.kernels.cpu.brgemm.plan:plan",
        workspace=ask_workspace("brgemm"),
        tolerance=TOLERANCE,
    ),
    *(_winograd_spec(m) for m in (2, 3, 4, 6)),
    KernelSpec(
        name="cpu.winograd_1d",
        op="conv",
        device="cpu",
        reasons=winograd_1d_blocks.reasons,
        cost=winograd_1d_blocks.seconds,
        target="fastconv.kernels.cpu.winograd_1d.plan:plan",
        workspace=ask_workspace("winograd_1d"),
        tolerance=winograd_costs.TOLERANCE,
        exact=False,
        pack_cost=winograd_1d_blocks.pack_seconds,
    ),
    KernelSpec(
        name="cpu.fast_fir",
        op="conv",
        device="cpu",
        reasons=_fast_fir_reasons,
        cost=fast_fir_sizes.seconds,
        target="fastconv.kernels.cpu.fast_fir.plan:plan",
        workspace=ask_workspace("fast_fir"),
        tolerance=_FAST_FIR_TOLERANCE,
        exact=False,
    ),
    KernelSpec(
        name="cpu.fft",
        op="conv",
        device="cpu",
        reasons=_fft_reasons,
        cost=lambda problem, device: fft_sizes.choose(problem, device)[0],
        target="fastconv.kernels.cpu.fft.plan:plan",
        workspace=ask_workspace("fft"),
        tolerance=TOLERANCE,
        exact=False,
    ),
)
