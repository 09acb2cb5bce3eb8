"""What the plans of all kernels share: the packed weight, the table of steps, the operands."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba.cuda import types
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from .launch import Kernel, empty, flat, launch, upload
from .pack import pack_function
from .params import SCALARS, element_strides, make_scalars, start_offset
from .steps import channels_inner, step_table
from .vector import compute_type, storage_type

__all__ = ["ELEMENT_THREADS", "Panels", "StepPlan", "blocks_of", "pack_kernel", "signature"]

#: Threads of the kernels that move one element each.
ELEMENT_THREADS = 256


def blocks_of(count: int, size: int) -> int:
    """Return how many blocks of a size hold a count."""
    return -(-count // size)


def signature(storage: str, arrays: str, whole: int) -> tuple[Any, ...]:
    """Return argument types: arrays by letter, then the scalars, then more whole numbers.

    "s" is an array of the storage type, "c" of the compute type, "t" a table.
    """
    kinds = {"s": storage_type(storage), "c": compute_type(storage), "t": types.uint32}
    scalars = [types.uint32] * (len(SCALARS) - 1) + [compute_type(storage)]
    return (*(kinds[letter][::1] for letter in arrays), *scalars, *[types.uint32] * whole)


@functools.cache
def pack_kernel(storage: str) -> Kernel:
    """Return the kernel that packs weights into panels."""
    whole = [types.uint32] * 17
    arrays = storage_type(storage)[::1], compute_type(storage)[::1]
    name, function = f"pack_weight {storage}", pack_function(storage)
    return Kernel(name, function, (*arrays, *whole), ELEMENT_THREADS, 4)


@dataclass(frozen=True, slots=True)
class Panels:
    """The order of a packed weight (see `pack`).

    Parameters
    ----------
    bm, bk : int
        Output channels and steps of a panel.
    blocks : int
        Panels along a group's output channels.
    count : int
        Panels along the steps.
    """

    bm: int
    bk: int
    blocks: int
    count: int


@dataclass(frozen=True, eq=False)
class StepPlan:
    """A plan whose kernel reads packed weights and finds samples through the table of steps.

    Plans are immutable, so threads share them; tables are kept where they were first needed.

    Parameters
    ----------
    problem, binding
        What is computed, and how its arrays lie.
    panels : Panels
        Order of the packed weight.
    words : int
        Words of bits in a row of the table.
    """

    problem: ConvProblem
    binding: Binding
    panels: Panels
    words: int
    tables: dict[Any, Any] = field(init=False, default_factory=dict)

    @property
    def inner(self) -> bool:
        """Whether steps run tap by tap, all channels of one after another: as the input lies."""
        return channels_inner(self.problem)

    @property
    def packing(self) -> tuple[Panels, bool]:
        """Name of the packed weight's order: panel sizes, and which of channel and tap is inner."""
        return self.panels, self.inner

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        """Element type of sums and packed weights."""
        return np.dtype(np.float64 if self.problem.dtype == "float64" else np.float32)

    def pack(self, weight: Any) -> Any:
        """Return the weight as panels of the compute type."""
        problem, panels = self.problem, self.panels
        shape, steps = problem.weight_shape, self.binding.weight_strides
        strides = element_strides("weight", shape, steps, problem.itemsize)
        size = problem.groups * panels.blocks * panels.count * panels.bk * panels.bm
        packed = empty(weight, size, self.compute_dtype)
        missing = 3 - problem.ndim
        scalars = (
            size, panels.bm, panels.bk, panels.count, panels.blocks,
            problem.out_channels // problem.groups, problem.in_channels // problem.groups,
            math.prod(problem.kernel_size), self.inner,
            start_offset(problem.weight_shape, strides), *strides[:2],
            *([0] * missing + list(strides[2:])), *([1] * missing + list(problem.kernel_size))[1:],
        )  # fmt: skip
        words = tuple(np.uint32(int(value) % 2**32) for value in scalars)
        grid = (blocks_of(size, ELEMENT_THREADS), 1, 1)
        arguments = (flat(weight), flat(packed), *words)
        launch(pack_kernel(problem.dtype), grid, weight, arguments)
        return packed

    def operands(
        self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any
    ) -> tuple[Any, ...]:
        """Return a kernel's first arguments: x, weight, steps, bias, residual, out."""
        samples = flat(x)  # stands for arrays that are absent, which are never read
        others = (samples if array is None else flat(array) for array in (bias, residual))
        steps = self.table_at(x, "steps", self._make_steps)
        return samples, flat(packed), steps, *others, flat(out)

    def scalars(self, bias: Any | None) -> tuple[Any, ...]:
        """Return the scalars that describe the problem."""
        return make_scalars(self.problem, self.binding, bias is not None)

    def table_at(self, like: Any, name: str, make: Callable[[], NDArray[np.uint32]]) -> Any:
        """Return a table where an array lives; it is made once a device."""
        place = name, getattr(like, "device", None)
        if place not in self.tables:
            self.tables[place] = upload(like, make())
        return self.tables[place]

    def _make_steps(self) -> NDArray[np.uint32]:
        rows = self.panels.count * self.panels.bk
        return step_table(self.problem, self.binding, self.words, rows, self.inner)
