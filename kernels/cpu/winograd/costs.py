"""What a Winograd kernel can run, how exact it is, and what it costs.

Costs are cycles for the transform of the input, the products, and the outputs; and the time that
weights and transformed input take from beyond L2. No compiler is imported.
"""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo, KernelSpec, Tolerance

from ..common.specs import cpu_spec
from ..gemm.split import product
from ..machine.seconds import profile, transform_seconds
from ..simd.register_tiles import sized_tile
from .blocks import channel_block, panel_of
from .tiles import Sizes, is_long, reads_rows, tile_sizes

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
#: Elements of a tile beyond which sums and samples of a panel are megabytes.
_LARGE_TILE = 256
#: Vectors apart at which samples share a few sets of L1.
_L1_STRIDE = 16
#: Panels from which on threads read the weights again for each of them.
_FEW_PANELS = 8
#: Part of L2 that a panel's transformed input may fill, beside weights and products.
_RESIDENT_SHARE = 0.75
#: Most bytes of a panel's transformed input, of all channels.
_MOST_PANEL = 64 << 20
#: Most pieces of samples under a vector of tiles, which are listed; strides decide their number.
_MOST_PIECES = 1 << 16


def _reasons(m: int, problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why F(m, r) cannot run a problem."""
    sentences = []
    sizes = tile_sizes(problem, m)
    axes = sum(axis.r > 1 for axis in sizes.axes)
    points = max(axis.points for axis in sizes.axes)
    if is_long(problem) and not reads_rows(problem):
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
    pieces = sizes.rows * sizes.width.pieces(lanes)
    if pieces > _MOST_PIECES and not sentences:
        sentences.append(
            f"lists the pieces of samples under a vector of tiles, at most {_MOST_PIECES}; here "
            f"{pieces}"
        )
    return sentences


def _input_cycles(sizes: Sizes, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count cycles for reading and transforming the input, with tiles or channels in the lanes."""
    lanes, costs = device.lanes(problem.compute_itemsize), profile(device).winograd
    channels = problem.in_channels // problem.groups
    images, last = problem.batch * problem.groups, problem.layout != "channels_first"
    if sizes.axes[-1].dilation == 1 and not last:
        vectors = -(-sizes.tiles // lanes)
        return costs.tiles_element * sizes.elements * vectors * channels * images
    samples = 0 if last else math.prod(problem.in_size)
    shares_sets = sizes.width.dilation % _L1_STRIDE == 0
    element = costs.conflict_element if shares_sets else costs.channels_element
    cycles = element * sizes.elements * sizes.tiles + costs.sample * samples
    return cycles * -(-channels // lanes) * images


def _product_cycles(sizes: Sizes, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the vectors' multiply-adds of one group, and what calls of the register tile lose.

    A call is for the tiles of one panel that a register tile holds, one panel of K and one block of
    channels.
    """
    core, costs = profile(device).core, profile(device).winograd
    k, c = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    tile = sized_tile(device, problem.compute_itemsize)
    panel = panel_of(sizes, problem, device)
    blocks, vectors = -(-c // channel_block(sizes)), -(-k // tile.lanes)
    full, rest = divmod(sizes.tiles, panel.nr)
    cycles = 0.0
    for rows, panels in ((panel.nr, full), (rest, 1)):
        step, calls = product(rows, k, tile, core.multiply_adds, core.latency)
        lost = costs.tile * calls + costs.tile_vector * rows * vectors
        cycles += panels * (c * step * core.multiply_adds + blocks * lost)
    return cycles * sizes.elements * problem.batch


def _product_seconds(sizes: Sizes, problem: ConvProblem, device: DeviceInfo) -> float:
    """Predict seconds for products, what they wait for, and outputs.

    Of the time that operands take from L3 or memory a part is hidden by arithmetic.
    """
    machine = profile(device)
    costs, memory = machine.winograd, machine.memory
    elements, tiles = sizes.elements, sizes.tiles
    size, lanes = problem.itemsize, device.lanes(problem.compute_itemsize)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    vectors = -(-k // lanes) * tiles * problem.batch * problem.groups
    way_back = costs.output_element * elements + costs.output_pixel * math.prod(sizes.m)
    products = _product_cycles(sizes, problem, device) * problem.groups
    cycles = products + vectors * way_back
    # Where there are few panels, weights are read once for two of them. All but what is the same
    # for every tile scales with the threads, so that their number does not decide which tile is
    # chosen: results are then the same bits for any number.
    panel_tiles = panel_of(sizes, problem, device).nr
    panels = max(1, -(-tiles // panel_tiles) * problem.batch)
    few = panels * problem.groups < _FEW_PANELS
    compute_size = problem.compute_itemsize
    weights = elements * k * c * compute_size * problem.groups
    inputs = elements * c * tiles * problem.batch * compute_size * problem.groups
    streamed = weights * (-(-panels // 2) if few else panels) if weights > device.l2 // 2 else 0
    in_l3 = weights <= device.l3 // 2
    waits = streamed / (memory.weights_l3 if in_l3 else memory.weights_memory)
    # The transformed input too is read for each panel of K, from L3 where threads share it, or
    # where that of a panel does not stay in L2.
    panel_bytes = elements * c * panel_tiles * compute_size
    if few or panel_bytes > device.l2 * _RESIDENT_SHARE:
        waits += inputs * -(-k // (2 * lanes)) / memory.weights_l3
    busy = cycles / machine.core.peak / machine.core.multiply_adds
    seconds = (busy + waits) / device.threads
    moved = (math.prod(problem.x_shape) + 2 * math.prod(problem.out_shape)) * size
    return seconds + max(0.0, moved - device.l3 / 4) * costs.exposed / memory.operands


def _seconds(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count cycles for the transform of the input, and add all that follows it."""
    sizes, machine = tile_sizes(problem, m), profile(device)
    cycles = _input_cycles(sizes, problem, device) / machine.core.multiply_adds
    total = cycles / machine.core.peak / device.threads
    total += _product_seconds(sizes, problem, device)
    if sizes.elements > _LARGE_TILE:
        total *= machine.winograd.large
    elif max(problem.stride) > 1:
        total *= machine.winograd.strided
    return total + machine.winograd.start


def _pack_seconds(m: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the elements of the transformed weight."""
    elements = tile_sizes(problem, m).elements * math.prod(problem.weight_shape[:2])
    return transform_seconds(elements, problem, device)


def _spec(m: int) -> KernelSpec:
    return cpu_spec(
        f"winograd_f{m}",
        "winograd.plan",
        lambda problem, device: _reasons(m, problem, device),
        lambda problem, device: _seconds(m, problem, device),
        plan=f"plan_f{m}",
        variant=(m,),
        tolerance=TOLERANCE,
        pack_cost=lambda problem, device: _pack_seconds(m, problem, device),
        exact=False,
    )


SPECS = tuple(_spec(m) for m in (2, 3, 4, 6))
