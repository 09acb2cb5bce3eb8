"""Convolution as a matrix product whose right side is never built: implicit GEMM.

It computes any convolution: every rank, stride, padding, dilation, group count and memory order.
It wins wherever there is enough arithmetic for a product (tens of channels on both sides); it is
what other kernels must beat. For the output of one group

    out[k, pixel] = sum over step of weight[k, step] * sample[step, pixel]

where a step is an input channel and a tap, and a pixel an image and a position.

    grid x: pixels / bn    grid y: output channels / bm    grid z: groups * splits
      panel of bk steps in this split:         double-buffered, see `tile`
        A: weights, packed to panels           128-bit loads, stored as they come
        B: samples through a table of steps    see `implicit_gemm_source`
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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba.cuda import types

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, CudaInfo

from . import blocking
from .geometry import GEOMETRY, element_strides, make_geometry, start_offset
from .implicit_gemm_source import Config, kernel_function, reduce_function
from .launch import Kernel, empty, flat, launch, upload
from .pack import pack_function
from .steps import channels_inner, step_table
from .vector import compute_type, storage_type

__all__ = ["ImplicitGemmPlan", "gemm_kernel", "plan", "reduce_kernel"]

#: Threads of the kernels that move one element each.
_THREADS = 256


def _signature(storage: str, arrays: str, whole: int) -> tuple[Any, ...]:
    """Return argument types: arrays by letter, then the geometry, then more whole numbers.

    "s" is an array of the storage type, "c" of the compute type, "t" a table.
    """
    kinds = {"s": storage_type(storage), "c": compute_type(storage), "t": types.uint32}
    geometry = [types.uint32] * (len(GEOMETRY) - 1) + [compute_type(storage)]
    return (*(kinds[letter][::1] for letter in arrays), *geometry, *[types.uint32] * whole)


@functools.cache
def gemm_kernel(config: Config) -> Kernel:
    """Return the product's kernel."""
    return Kernel(
        f"implicit_gemm {config.name}",
        kernel_function(config),
        _signature(config.storage, "sctsssc", 5),
        config.tile.threads,
        config.tile.blocks,
    )


@functools.cache
def reduce_kernel(storage: str) -> Kernel:
    """Return the kernel that adds up the parts of a split reduction."""
    return Kernel(
        f"reduce_splits {storage}", reduce_function(storage), _signature(storage, "csss", 4),
        _THREADS, 4,
    )  # fmt: skip


@functools.cache
def pack_kernel(storage: str) -> Kernel:
    """Return the kernel that packs weights into panels."""
    whole = [types.uint32] * 17
    arrays = storage_type(storage)[::1], compute_type(storage)[::1]
    return Kernel(f"pack_weight {storage}", pack_function(storage), (*arrays, *whole), _THREADS, 4)


@dataclass(frozen=True, eq=False)
class ImplicitGemmPlan:
    """One problem and binding made ready: kernels, grid, table. Immutable; threads share it.

    Parameters
    ----------
    problem, binding
        What is computed, and how its arrays lie.
    split : blocking.Split
        The tile and the number of parts of the reduction.
    """

    problem: ConvProblem
    binding: Binding
    split: blocking.Split
    config: Config = field(init=False)
    tables: dict[Any, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", choose_config(self.problem, self.binding, self.split))

    @property
    def packing(self) -> tuple[int, int, bool]:
        """Name of the packed weight's order: panel sizes, and which of channel and tap is inner."""
        return self.split.tile.bm, self.split.tile.bk, channels_inner(self.problem)

    def pack(self, weight: Any) -> Any:
        """Return the weight as panels of the compute type."""
        problem, tile, counts = self.problem, self.split.tile, self.split
        strides = element_strides(self.binding.weight_strides, problem.itemsize)
        size = problem.groups * counts.channel_blocks * counts.panels * tile.bk * tile.bm
        packed = empty(weight, size, _compute_dtype(problem))
        kernel, taps = problem.kernel_size, math.prod(problem.kernel_size)
        axes = 3 - problem.ndim
        scalars = (
            size, tile.bm, tile.bk, counts.panels, counts.channel_blocks,
            problem.out_channels // problem.groups, problem.in_channels // problem.groups, taps,
            channels_inner(problem), start_offset(problem.weight_shape, strides), *strides[:2],
            *([0] * axes + list(strides[2:])), *([1] * axes + list(kernel))[1:],
        )  # fmt: skip
        words = tuple(np.uint32(int(value) % 2**32) for value in scalars)
        grid = (-(-size // _THREADS), 1, 1)
        launch(pack_kernel(problem.dtype), grid, weight, (flat(weight), flat(packed), *words))
        return packed

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem, split = self.problem, self.split
        geometry = make_geometry(problem, self.binding, bias is not None)
        absent = flat(x)  # never read
        others = (
            absent if bias is None else flat(bias),
            absent if residual is None else flat(residual),
            flat(out),
        )
        scratch = split.splits * math.prod(problem.out_shape) if split.splits > 1 else 1
        partial = empty(x, scratch, _compute_dtype(problem))
        pixels = math.prod(problem.out_shape) // problem.out_channels
        channels = problem.out_channels // problem.groups
        apart = (1, channels) if channels_inner(problem) else (pixels, 1)
        parts = tuple(map(np.uint32, (split.splits, *apart)))
        numbers = (np.uint32(split.panels), np.uint32(split.split_panels))
        grid = (split.pixel_blocks, split.channel_blocks, problem.groups * split.splits)
        arrays = (absent, flat(packed), self._steps(x), *others, flat(partial))
        launch(gemm_kernel(self.config), grid, x, (*arrays, *geometry, *numbers, *parts))
        if split.splits > 1:
            elements = math.prod(problem.out_shape)
            launch(
                reduce_kernel(problem.dtype),
                (-(-elements // _THREADS), 1, 1),
                x,
                (flat(partial), *others, *geometry, np.uint32(elements), *parts),
            )

    def _steps(self, like: Any) -> Any:
        """Return the table of steps where the input lives; it is made once a device."""
        place = getattr(like, "device", None)
        if place not in self.tables:
            rows = self.split.panels * self.split.tile.bk
            table = step_table(self.problem, self.binding, self.config.words, rows)
            self.tables[place] = upload(like, table)
        return self.tables[place]


def _compute_dtype(problem: ConvProblem) -> np.dtype[Any]:
    return np.dtype(np.float64 if problem.dtype == "float64" else np.float32)


def choose_config(problem: ConvProblem, binding: Binding, split: blocking.Split) -> Config:
    """Return the configuration for a problem, its arrays and a tile."""
    store = "channels" if channels_inner(problem) else "pixels"
    words = blocking.mask_words(problem)
    return Config(split.tile, problem.dtype, choose_loader(problem, binding), words, store)


def choose_loader(problem: ConvProblem, binding: Binding) -> str:
    """Return how samples are fetched; four at once only where they lie side by side, aligned."""
    strides = element_strides(binding.x_strides, problem.itemsize)
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


def plan(problem: ConvProblem, binding: Binding, device: CudaInfo) -> ImplicitGemmPlan:
    """Return the plan of a problem; a kernel is compiled when it is first launched."""
    return ImplicitGemmPlan(problem, binding, blocking.choose_split(problem, device))
