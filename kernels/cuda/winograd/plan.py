"""Winograd F(2x2, 3x3) and F(4x4, 3x3): fewer products, transformed back and forth.

It wins for 3x3 kernels of stride 1 with many channels on both sides: F(4, 3) has 36 products for 16
outputs where the definition has 144. Sums differ from the definition's by rounding in the
transforms (`fastconv.precision("exact")` leaves it out).

    weight   U = G w G^T        once for an object, straight into the panels of the product
    input    V = B^T d B        grid: tiles / 128, input channels
    product  M[e] = U[e] V[e]   `implicit_gemm` as a 1x1 convolution with n x n groups
    output   y = A^T M A        grid: tiles / 128, output channels; bias, residual, activation

The product is the implicit GEMM's own kernel and nothing else: an element of the transformed tile
is a group, a tile a pixel of a one-dimensional map, four of which it loads at once.

Budget: V and M are n x n times the tiles of all channels, in workspace memory: 2.25 times the
input for F(4, 3), 4 times for F(2, 3). A thread of a transform holds a tile twice, 72 registers for
F(4, 3).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.cuda import types

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, CudaInfo

from ..common.launch import Kernel, empty, flat, launch
from ..common.params import SCALARS, element_strides, make_scalars, start_offset
from ..common.plan import blocks_of
from ..common.vector import compute_type, storage_type
from ..gemm import blocking
from ..gemm import plan as gemm_plan
from .costs import Tiles, product_problem, tiles_of
from .source import input_function, output_function, weight_function

__all__ = ["WinogradPlan", "plan_f2", "plan_f4", "transform_kernels"]

_THREADS = 128


@functools.cache
def transform_kernels(storage: str, m: int) -> dict[str, Kernel]:
    """Return the kernels that transform weight, input and output."""
    stored, summed = storage_type(storage)[::1], compute_type(storage)[::1]
    word = types.uint32
    scalars = (*[word] * (len(SCALARS) - 1), compute_type(storage))
    signatures = {
        "weight": (weight_function, (stored, summed, *[word] * 13)),
        "input": (input_function, (stored, summed, *scalars, *[word] * 5)),
        "output": (output_function, (summed, stored, stored, stored, *scalars, *[word] * 5)),
    }
    return {
        name: Kernel(f"transform_{name} {storage} f{m}", make(storage, m), arguments, _THREADS, 4)
        for name, (make, arguments) in signatures.items()
    }


@dataclass(frozen=True, eq=False)
class WinogradPlan:
    """One problem and binding made ready.

    Parameters
    ----------
    problem, binding
        What is computed, and how its arrays lie.
    tiles : Tiles
        Size and number of the output's tiles.
    product : ImplicitGemmPlan
        The products of transformed tiles.
    """

    problem: ConvProblem
    binding: Binding
    tiles: Tiles
    product: gemm_plan.ImplicitGemmPlan

    @property
    def packing(self) -> tuple[Any, int]:
        """Name of the packed weight's order: panel sizes and tile."""
        return self.product.panels, self.tiles.m

    def pack(self, weight: Any) -> Any:
        """Return the transformed weight, in panels of the product."""
        problem, panels = self.problem, self.product.panels
        shape, steps = problem.weight_shape, self.binding.weight_strides
        strides = element_strides("weight", shape, steps, problem.itemsize)
        size = problem.groups * panels.blocks * panels.count * panels.bk * panels.bm
        packed = empty(weight, size * self.tiles.elements, self.product.compute_dtype)
        scalars = (
            size, panels.bm, panels.bk, panels.count, panels.blocks,
            problem.out_channels // problem.groups, problem.in_channels // problem.groups,
            start_offset(problem.weight_shape, strides), *strides, size,
        )  # fmt: skip
        words = tuple(np.uint32(value % 2**32) for value in scalars)
        kernel = transform_kernels(problem.dtype, self.tiles.m)["weight"]
        grid = (blocks_of(size, _THREADS), 1, 1)
        launch(kernel, grid, weight, (flat(weight), flat(packed), *words))
        return packed

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem, tiles = self.problem, self.tiles
        kernels = transform_kernels(problem.dtype, tiles.m)
        scalars = make_scalars(problem, self.binding, bias is not None)
        counts = (problem.batch, tiles.rows, tiles.columns, tiles.padded)
        shapes = (self.product.problem.x_shape, self.product.problem.out_shape)
        transformed, products = (
            empty(x, math.prod(shape), self.product.compute_dtype) for shape in shapes
        )
        across = blocks_of(tiles.padded, _THREADS)
        numbers = tuple(map(np.uint32, (*counts, problem.in_channels * tiles.padded)))
        arguments = (flat(x), flat(transformed), *scalars, *numbers)
        launch(kernels["input"], (across, problem.in_channels, 1), x, arguments)
        self.product.run(transformed, packed, None, None, products)
        numbers = tuple(map(np.uint32, (*counts, problem.out_channels * tiles.padded)))
        others = (flat(x) if array is None else flat(array) for array in (bias, residual))
        arguments = (flat(products), *others, flat(out), *scalars, *numbers)
        launch(kernels["output"], (across, problem.out_channels, 1), x, arguments)


def _plan(problem: ConvProblem, binding: Binding, device: CudaInfo, m: int) -> WinogradPlan:
    tiles = tiles_of(problem, m)
    inner = product_problem(problem, tiles)
    strides = (
        (math.prod(shape) * inner.itemsize, shape[2] * inner.itemsize, inner.itemsize)
        for shape in (inner.x_shape, inner.out_shape)
    )
    x_strides, out_strides = strides
    product = gemm_plan.plan_split(
        inner, Binding(x_strides, (), out_strides), blocking.choose_split(inner, device)
    )
    return WinogradPlan(problem, binding, tiles, product)


def plan_f2(problem: ConvProblem, binding: Binding, device: CudaInfo) -> WinogradPlan:
    """Return the plan with tiles of 2 x 2 outputs."""
    return _plan(problem, binding, device, 2)


def plan_f4(problem: ConvProblem, binding: Binding, device: CudaInfo) -> WinogradPlan:
    """Return the plan with tiles of 4 x 4 outputs."""
    return _plan(problem, binding, device, 4)
