"""What a Winograd kernel can run, how exact it is, and what it costs.

Costs are cycles counted on Zen 4, for the transform of the input, the products, and the outputs;
and the time that weights and transformed input take from beyond L2. No compiler is imported.
"""

from __future__ import annotations

import math

from fastconv.contract import first_use
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo, KernelSpec, Tolerance

from . import tiles as winograd_tiles

__all__ = ["SPECS", "TOLERANCE"]


#: Largest error of F(m, r) in float32 relative to the largest output, over two transformed axes.
_LIMIT = 2e-5
TOLERANCE = {
    "float32": Tolerance(_LIMIT),
    "float64": Tolerance(_LIMIT * 2.0**-29),  # 29 more bits than float32
    "float16": Tolerance(2.0**-11 + _LIMIT),
    "bfloat16": Tolerance(2.0**-8 + _LIMIT),
}
#: Largest tile, by the number of transformed axes, that stays within that error. Over fifty random
#: layers the largest errors were: one axis, tile 9 1.7e-6; two axes, tile 6 5.6e-6, tile 8 9.8e-6
#: for 64 to 1024 channels (sums of 64 channels, see plan.py); three axes, tile 6 3.7e-6.
#: With dilation 2 tile 8 made at most 1.2e-5; with stride 2, where the larger phase counts, F(6, 3)
#: made 8.7e-6 and F(6, 5) 8.0e-6. Folded kernels of 8 to 24 taps made at most 8.1e-6.
_MOST_ELEMENTS = {1: 10, 2: 8, 3: 6}


#: Elements of a tile beyond which sums and samples of a panel are megabytes, so that products run
#: at half their speed: F(4, 3) of stride 2 in three dimensions, 729, took 9.4 ms for 4.2.
_LARGE_TILE = 256
#: Most bytes of a panel's transformed input, of all channels.
_MOST_PANEL = 64 << 20
#: What phases of a stride cost beside the count: 96@35 took 1.1 to 1.35 times it.
_STRIDED = 1.1


def _reasons(m: int, problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why F(m, r) cannot run a problem."""
    sentences = []
    sizes = winograd_tiles.tile_sizes(problem, m)
    axes = sum(axis.r > 1 for axis in sizes.axes)
    points = max(axis.points for axis in sizes.axes)
    if winograd_tiles.is_long(problem) and not winograd_tiles.reads_rows(problem):
        sentences.append("folds long kernels only where dense samples lie side by side")
    elif axes == 0:
        sentences.append("has nothing to transform in a kernel of size 1")
    elif any(axis.stride > axis.r > 1 for axis in sizes.axes):
        sentences.append(f"would transform samples that strides of {problem.stride} pass over")
    elif sizes.elements >= math.prod(sizes.m) * math.prod(problem.kernel_size):
        sentences.append(f"saves no product with strides of {problem.stride}")
    elif points > _MOST_ELEMENTS[axes]:
        sentences.append(
            f"would use tiles of {points} along {axes} axes, whose error passes "
            f"{_LIMIT:g}; at most {_MOST_ELEMENTS[axes]}"
        )
    if problem.in_channels == problem.groups:
        sentences.append("has no input channels to sum over in a depthwise problem")
    lanes, size = device.lanes(problem.compute_itemsize), problem.compute_itemsize
    panel = sizes.elements * (problem.in_channels // problem.groups) * lanes * size
    if panel > _MOST_PANEL and not sentences:
        sentences.append(
            f"transforms {panel >> 20} MiB of a panel of tiles at once, more than "
            f"{_MOST_PANEL >> 20}"
        )
    return sentences


def _input_cycles(sizes: winograd_tiles.Sizes, problem: ConvProblem, lanes: int) -> float:
    """Count cycles for reading and transforming the input, with tiles or channels in the lanes.

    Measured: 16 for an element of a vector of tiles, 11 for one of a vector of channels; and 10 for
    a vector of samples where they are copied first.
    """
    channels = problem.in_channels // problem.groups
    images, last = problem.batch * problem.groups, problem.layout != "channels_first"
    if sizes.axes[-1].dilation == 1 and not last:
        return 16.0 * sizes.elements * -(-sizes.tiles // lanes) * channels * images
    samples = 0 if last else math.prod(problem.in_size)
    # Samples a multiple of 16 vectors apart share a few sets of L1: 3.9 ms for 2.5 (wavenet d64).
    element = 31.0 if sizes.width.dilation % 16 == 0 else 11.0
    return (element * sizes.elements * sizes.tiles + 10 * samples) * -(-channels // lanes) * images


def _product_seconds(
    elements: int, outputs: int, tiles: int, problem: ConvProblem, device: DeviceInfo
) -> float:
    """Predict seconds for products, what they wait for, and outputs; `tiles` are those of an image.

    Counted on Zen 4: a call of the register tile loses 160 cycles of 24 a step, so 7 of a
    multiply-add; an output costs 12 cycles an element and 8 a pixel for each vector of channels.
    Of the time that operands take from L3 or memory some half is hidden by arithmetic.
    """
    size, lanes = problem.itemsize, device.lanes(problem.compute_itemsize)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    vectors = -(-k // lanes) * tiles * problem.batch * problem.groups
    cycles = vectors * (elements * (c + 7 * -(-c // 64)) + 12 * elements + 8 * outputs)
    per_cycle = 1.0 if device.vector_bytes == 64 else 2.0  # narrower vectors run two at a time
    # Panels of two vectors of tiles; where there are few, weights are read once for two of them.
    # All but what is the same for every tile scales with the threads, so that their number does not
    # decide which tile is chosen: results are then the same bits for any number.
    panels = max(1, -(-tiles // (2 * lanes)) * problem.batch)
    few = panels * problem.groups < 8
    compute_size = problem.compute_itemsize
    weights = elements * k * c * compute_size * problem.groups
    inputs = elements * c * tiles * problem.batch * compute_size * problem.groups
    streamed = weights * (-(-panels // 2) if few else panels) if weights > device.l2 // 2 else 0
    waits = streamed / (130e9 if weights <= device.l3 // 2 else 45e9)
    waits += inputs * -(-k // (2 * lanes)) / 130e9 if few else 0.0
    seconds = (cycles / 3.6e9 / per_cycle + waits) / device.threads
    moved = (math.prod(problem.x_shape) + 2 * math.prod(problem.out_shape)) * size
    return seconds + max(0.0, moved - device.l3 / 4) * 0.6 / 20e9


def _seconds(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count cycles for the transform of the input, and add all that follows it."""
    sizes = winograd_tiles.tile_sizes(problem, m)
    lanes = device.lanes(problem.compute_itemsize)
    cycles = _input_cycles(sizes, problem, lanes)
    total = cycles / min(16 / device.lanes(4), 2.0) / 3.6e9 / device.threads
    total += _product_seconds(sizes.elements, math.prod(sizes.m), sizes.tiles, problem, device)
    if sizes.elements > _LARGE_TILE:
        total *= 2.0
    elif max(problem.stride) > 1:
        total *= _STRIDED
    return total + 8e-6


def _pack_seconds(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the elements of the transformed weight, and the bytes that outgrow half of L3."""
    elements = winograd_tiles.tile_sizes(problem, m).elements
    elements *= math.prod(problem.weight_shape[:2])
    size = problem.compute_itemsize
    streamed = max(0, elements * size - device.l3 // 2)
    return elements * (size / 4) * 0.36e-9 / device.threads + streamed / 5e9 + 1e-6


def _workspace(m: int, problem: ConvProblem, device: DeviceInfo) -> int:
    plan = first_use.load("fastconv.kernels.cpu.winograd.plan")
    return int(plan.workspace(problem, device, m))


def _spec(m: int) -> KernelSpec:
    return KernelSpec(
        name=f"cpu.winograd_f{m}",
        op="conv",
        device="cpu",
        reasons=lambda problem, device: _reasons(m, problem, device),
        cost=lambda problem, device: _seconds(m, problem, device),
        target=f"fastconv.kernels.cpu.winograd.plan:plan_f{m}",
        workspace=lambda problem, device: _workspace(m, problem, device),
        tolerance=TOLERANCE,
        exact=False,
        pack_cost=lambda problem, device: _pack_seconds(m, problem, device),
    )


SPECS = tuple(_spec(m) for m in (2, 3, 4, 6))
