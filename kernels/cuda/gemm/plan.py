"""Convolution as a matrix product whose right side is never built: implicit GEMM.

It computes any convolution: every rank, stride, padding, dilation, group count and memory order.
It wins wherever there is enough arithmetic for a product (tens of channels on both sides); it is
what other kernels must beat. For the output of one group

    out[k, pixel] = sum over step of weight[k, step] * sample[step, pixel]

where a step is an input channel and a tap, and a pixel an image and a position.

    grid x: pixels / bn    grid y: output channels / bm    grid z: groups * splits
      panel of bk steps in this split:         double-buffered, see `tile`
        A: weights, packed to panels           128-bit loads, stored as they come
        B: samples through a table of steps    see `source`
        acc += A x B                           8 x 8 FFMA a step and thread
      through shared memory: bias, residual, activation, one coalesced store

The weight is packed (once for an object, else in each call) into panels of ``bk x bm``, zeros
where channels or steps run out, so the loop loads it 128 bits at a time from one place after
another, whatever its strides were. Steps run channel by channel where pixels are contiguous, and
tap by tap where channels are.

A problem with few tiles leaves multiprocessors idle; then the reduction is split (grid z) and a
second kernel adds up the parts in a fixed order, so results are the same bits each time.

Budget of 128x128x8 in float32: 64 sums + 16 operands + 8 samples on the way, at most 128 registers;
16.6 KiB of shared memory and 1 KiB of offsets; 512 FFMA for 32 loads of shared memory a panel.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, CudaInfo

from ..common.launch import Kernel, empty, flat, is_aligned, launch
from ..common.params import element_strides, start_offset
from ..common.plan import ELEMENT_THREADS, Panels, StepPlan, blocks_of, signature
from ..common.steps import channels_inner
from . import blocking
from .source import Config, kernel_function, reduce_function

__all__ = [
    "ImplicitGemmPlan",
    "choose_config",
    "choose_loader",
    "fit_alignment",
    "gemm_kernel",
    "plan",
    "plan_split",
    "reduce_kernel",
]


@functools.cache
def gemm_kernel(config: Config) -> Kernel:
    """Return the product's kernel."""
    return Kernel(
        f"implicit_gemm {config.name}",
        kernel_function(config),
        signature(config.storage, "sctsssc", 5),
        config.tile.threads,
        config.blocks,
        config.tile.shared_bytes(8 if config.storage == "float64" else 4),
    )


@functools.cache
def reduce_kernel(storage: str) -> Kernel:
    """Return the kernel that adds up the parts of a split reduction."""
    return Kernel(
        f"reduce_splits {storage}", reduce_function(storage), signature(storage, "csss", 4),
        ELEMENT_THREADS, 2,  # with 4, and so 64 registers, 96 to 140 bytes spill on sm_100
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ImplicitGemmPlan(StepPlan):
    """One problem and binding made ready.

    Parameters
    ----------
    config : Config
        What the kernel is compiled for.
    split : blocking.Split
        The tile and the parts of the reduction.
    """

    config: Config
    split: blocking.Split

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem, split = self.problem, self.split
        operands, scalars = self.operands(x, packed, bias, residual, out), self.scalars(bias)
        elements = math.prod(problem.out_shape)
        size = split.splits * elements if split.splits > 1 else 1
        partial = flat(empty(x, size, self.compute_dtype))
        channels = problem.out_channels // problem.groups
        # The parts lie as the output does, so that neighbouring threads store side by side.
        pixels = elements // problem.out_channels
        part_strides = (1, channels) if channels_inner(problem) else (pixels, 1)
        parts = tuple(map(np.uint32, (split.splits, *part_strides)))
        numbers = (np.uint32(split.panels), np.uint32(split.split_panels))
        grid = (split.pixel_blocks, split.channel_blocks, problem.groups * split.splits)
        kernel = gemm_kernel(fit_alignment(self.config, operands[0], problem.itemsize))
        launch(kernel, grid, x, (*operands, partial, *scalars, *numbers, *parts))
        if split.splits > 1:
            grid = (blocks_of(elements, ELEMENT_THREADS), 1, 1)
            arguments = (partial, *operands[3:], *scalars, np.uint32(elements), *parts)
            launch(reduce_kernel(problem.dtype), grid, x, arguments)


def choose_config(problem: ConvProblem, binding: Binding, split: blocking.Split) -> Config:
    """Return the configuration for a problem, its arrays and a tile."""
    store = "channels" if channels_inner(problem) else "pixels"
    words = blocking.mask_words(problem) or 0
    return Config(split.tile, problem.dtype, choose_loader(problem, binding), words, store)


def fit_alignment(config: Config, samples: Any, itemsize: int) -> Config:
    """Return the configuration for a flat input, by single samples where it begins amid four."""
    if is_aligned(samples, config.width * itemsize):
        return config
    return replace(config, loader="single")


def choose_loader(problem: ConvProblem, binding: Binding) -> str:
    """Return how samples are fetched; four at once only where they lie side by side, aligned."""
    strides = element_strides("input", problem.x_shape, binding.x_strides, problem.itemsize)
    if start_offset(problem.x_shape, strides) or any(step % 4 for step in strides[:1]):
        return "single"
    channels = problem.in_channels // problem.groups
    wide = all(step % 4 == 0 for step in strides[2:])
    if channels_inner(problem) and strides[1] == 1 and channels % 4 == 0 and wide:
        return "channels"
    pixels = math.prod(problem.in_size)
    reads_all = max(problem.kernel_size) == 1 and problem.in_size == problem.out_size
    dense = strides[2:] == tuple(
        math.prod(problem.in_size[axis + 1 :]) for axis in range(problem.ndim)
    )
    unpadded = not any(map(any, problem.padding))
    if reads_all and unpadded and dense and pixels % 4 == 0 and strides[1] % 4 == 0:
        return "pixels"
    return "single"


def plan_split(problem: ConvProblem, binding: Binding, split: blocking.Split) -> ImplicitGemmPlan:
    """Return the plan of a problem for a given tile and number of parts."""
    config = choose_config(problem, binding, split)
    tile = split.tile
    panels = Panels(tile.bm, tile.bk, split.channel_blocks, split.panels)
    return ImplicitGemmPlan(problem, binding, panels, config.words, config, split)


def plan(problem: ConvProblem, binding: Binding, device: CudaInfo) -> ImplicitGemmPlan:
    """Return the plan of a problem; a kernel is compiled when it is first launched."""
    return plan_split(problem, binding, blocking.choose_split(problem, device))
