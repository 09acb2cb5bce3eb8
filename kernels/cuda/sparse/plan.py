"""What the plans of sparse convolution share: the packed weight and the end of a sum.

    packed[group, block of bm output channels, offset, panel of bk channels, step, output channel]

Every offset begins a panel, so that a tile can leave it out. Output channels and steps beyond the
last are zeros, and the product's loop needs no test for them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, uint32
from numba.cuda import types

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import SparseBinding

from ...axes import ACTIVATION_CODES
from ..common.launch import Kernel, empty, flat, launch, upload
from ..common.params import element_strides, start_offset
from ..common.plan import ELEMENT_THREADS, blocks_of
from ..common.vector import access, compute_type, storage_type

__all__ = ["OffsetPanels", "SparseConvPlan", "argument_types", "pack_offsets_kernel"]


def argument_types(storage: str, arrays: str, whole: int, alpha: bool = True) -> tuple[Any, ...]:
    """Return argument types: arrays by letter, whole numbers, then the activation's parameter.

    "s" is an array of the storage type, "c" of the compute type, "t" a table, "i" of int32.
    """
    kinds = {"s": storage_type(storage), "c": compute_type(storage), "t": types.uint32}
    kinds["i"] = types.int32
    last = [compute_type(storage)] if alpha else []
    return (*(kinds[letter][::1] for letter in arrays), *[types.uint32] * whole, *last)


@functools.cache
def _pack_function(storage: str) -> Callable[..., None]:
    """Return the packing kernel as a plain Python function; a thread has one element."""
    load1 = access(storage).load1
    zero = (np.float64 if storage == "float64" else np.float32)(0)

    def pack_offsets(
        weight: Any, taps: Any, packed: Any, size: Any, bm: Any, bk: Any, panels: Any,
        volume: Any, blocks: Any, channels: Any, depth: Any, first: Any, wk: Any, wc: Any,
    ) -> None:  # fmt: skip
        at = uint32(cuda.grid(1))
        if at < size:
            row, rest = at % bm, at // bm
            step, rest = rest % bk, rest // bk
            panel, rest = rest % panels, rest // panels
            offset, rest = rest % volume, rest // volume
            block, group = rest % blocks, rest // blocks
            source, channel = uint32(panel * bk + step), uint32(block * bm + row)
            value = zero
            if channel < channels and source < depth:
                place = first + (group * channels + channel) * wk + source * wc + taps[offset]
                value = load1(weight, uint32(place))
            packed[at] = value

    return pack_offsets


@functools.cache
def pack_offsets_kernel(storage: str) -> Kernel:
    """Return the kernel that packs weights into panels of offsets."""
    signature = argument_types(storage, "stc", 11, alpha=False)
    name = f"pack_offsets {storage}"
    return Kernel(name, _pack_function(storage), signature, ELEMENT_THREADS, 4)


@dataclass(frozen=True, slots=True)
class OffsetPanels:
    """The order of a packed weight.

    Parameters
    ----------
    bm, bk : int
        Output channels and steps of a panel.
    groups, blocks : int
        Channel groups, and panels along a group's output channels.
    count : int
        Panels along the input channels of an offset.
    """

    bm: int
    bk: int
    groups: int
    blocks: int
    count: int


@dataclass(frozen=True, eq=False)
class SparseConvPlan:
    """A sparse convolution made ready for one problem and one binding.

    Parameters
    ----------
    problem, binding
        What is computed, and how its weight lies.
    packing : OffsetPanels
        Order of the packed weight.
    """

    problem: SparseProblem
    binding: SparseBinding
    packing: OffsetPanels

    def pack(self, weight: Any) -> Any:
        """Return the weight as panels of the compute type."""
        problem, panels = self.problem, self.packing
        shape, steps = problem.weight_shape, self.binding.weight_strides
        strides = element_strides("weight", shape, steps, problem.itemsize)
        places = np.indices(problem.kernel_size).reshape(len(problem.kernel_size), -1)
        hops = np.array([step % 2**32 for step in strides[2:]])
        taps = (places * hops[:, None]).sum(0) % 2**32
        size = panels.groups * panels.blocks * problem.volume * panels.count * panels.bk * panels.bm
        packed = empty(weight, size, np.float64 if problem.dtype == "float64" else np.float32)
        scalars = (
            size, panels.bm, panels.bk, panels.count, problem.volume, panels.blocks,
            problem.out_channels // panels.groups, problem.in_channels // problem.groups,
            start_offset(problem.weight_shape, strides), *strides[:2],
        )  # fmt: skip
        words = tuple(np.uint32(int(value) % 2**32) for value in scalars)
        table = upload(weight, taps.astype(np.uint32))
        grid = (blocks_of(size, ELEMENT_THREADS), 1, 1)
        arguments = (flat(weight), table, flat(packed), *words)
        launch(pack_offsets_kernel(problem.dtype), grid, weight, arguments)
        return packed

    def scalars(self, whole: tuple[int, ...], bias: Any | None) -> tuple[Any, ...]:
        """Return a kernel's last arguments: its own sizes, then what follows the sum."""
        real = np.float64 if self.problem.dtype == "float64" else np.float32
        code = ACTIVATION_CODES[self.binding.activation]
        numbers = (*whole, int(bias is not None), code)
        return (*map(np.uint32, numbers), real(self.binding.alpha))
