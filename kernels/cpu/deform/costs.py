"""What deformable convolutions cost: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.deform_problem import DeformProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec
from ..gemm.split import product
from ..machine.seconds import profile
from ..simd.register_tiles import sized_tile

__all__ = ["GRAD_PIXELS", "SPECS", "Split", "sample_cycles", "split", "weight_blocks"]

#: Pixels of a task: their samples of 512 steps, their sums and their places are half of L2.
_PIXELS = 56
#: The same where gradients go to places.
GRAD_PIXELS = 56
#: Tasks of a call, if there are so many, and output channels of one of them: samples that several
#: tasks make are 5% of their products at 128.
_TASKS, _COLUMNS = 16, 128
#: Rows of a task of the gradient for the weight, a tap of a channel each.
_ROWS = 288
#: Cycles of a place: one lane of a vector of them; and of a tap and pixel to read it.
_PLACED, _READ = 8.0, 12.0


class Split(NamedTuple):
    """Pixels and output channels of a task, the number of tasks along both, and all of them."""

    pixels: int
    columns: int
    blocks: int
    parts: int
    tasks: int


def split(problem: DeformProblem, device: DeviceInfo) -> Split:
    """Return how a call is cut into tasks, whatever the number of threads."""
    tile = sized_tile(device, problem.compute_itemsize, rows_are_pixels=True)
    total, k = math.prod(problem.out_size), problem.out_channels // problem.groups
    blocks = -(-total // (-(-_PIXELS // tile.mr) * tile.mr))
    pixels = -(-total // (blocks * tile.mr)) * tile.mr
    blocks = -(-total // pixels)
    others = blocks * problem.batch * problem.groups
    parts = min(-(-_TASKS // max(1, others)), -(-k // _COLUMNS))
    columns = -(-k // (parts * tile.nr)) * tile.nr
    parts = -(-k // columns)
    return Split(pixels, columns, blocks, parts, others * parts)


def sample_cycles(problem: DeformProblem, device: DeviceInfo) -> float:
    """Return the cycles of making and reading the samples of one pixel of one group."""
    lanes, taps = device.lanes(problem.compute_itemsize), math.prod(problem.kernel_size)
    channels = problem.in_channels // problem.groups
    run = min(channels, problem.in_channels // problem.offset_groups)
    vectors = taps * -(-channels // run) * -(-run // lanes)
    machine = profile(device).core
    places = taps * -(-channels // run)
    return places * (_PLACED + _READ) + vectors * (5.0 + problem.mask) / machine.multiply_adds


def _seconds(problem: DeformProblem, device: DeviceInfo) -> float:
    """Count products, samples and the output's way; the input's copy is in the bytes of a call."""
    machine = profile(device)
    tile = sized_tile(device, problem.compute_itemsize, rows_are_pixels=True)
    cut = split(problem, device)
    steps = math.prod(problem.weight_shape[1:])
    step, _ = product(
        cut.pixels, cut.columns, tile, machine.core.multiply_adds, machine.core.latency
    )
    stored = cut.pixels * cut.columns / tile.lanes * machine.gemm.transposed_vector
    sampled = cut.pixels * sample_cycles(problem, device)
    copied = 2.0 * math.prod(problem.x_shape) / tile.lanes * machine.gemm.transposed_vector
    cycles = cut.tasks * (steps * step + sampled + stored) + copied
    return array_seconds(problem, device, cycles, cut.tasks)


def weight_blocks(problem: DeformProblem, device: DeviceInfo) -> tuple[int, int]:
    """Return input and output channels of a task of the gradient for the weight."""
    tile = sized_tile(device, problem.compute_itemsize)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    channels = max(1, _ROWS // math.prod(problem.kernel_size))
    channels = max(min(channels, tile.lanes), channels // tile.lanes * tile.lanes)
    parts = -(-k // _COLUMNS)
    return min(c, channels), -(-k // (parts * tile.nr)) * tile.nr


def _grad_seconds(problem: DeformProblem, device: DeviceInfo) -> float:
    """Count what a convolution's gradient would take, and the samples or places beside it."""
    machine = profile(device)
    tile = sized_tile(device, problem.compute_itemsize)
    pixels = problem.batch * problem.groups * math.prod(problem.out_size)
    products = problem.macs / tile.lanes / machine.core.multiply_adds
    cycles = products + 2.0 * pixels * sample_cycles(problem, device)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    if problem.op == "deform_conv_grad_input":
        tasks = problem.batch * problem.groups * -(-c // tile.nr)
    elif problem.op == "deform_conv_grad_offset":
        tasks = problem.batch * -(-math.prod(problem.out_size) // GRAD_PIXELS)
    else:
        channels, columns = weight_blocks(problem, device)
        tasks = problem.groups * -(-c // channels) * -(-k // columns)
    return array_seconds(problem, device, cycles, tasks)


def _reasons(problem: DeformProblem, device: DeviceInfo) -> list[str]:
    return []


SPECS = (
    array_spec("deform_conv", "deform.plan", "deform_conv", _reasons, _seconds),
    *(
        array_spec(f"deform_grad_{of}", f"deform.{of}_grad", f"deform_conv_grad_{of}", _reasons,
                   _grad_seconds)
        for of in ("input", "offset", "weight")
    ),
)  # fmt: skip
