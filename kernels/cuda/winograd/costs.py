"""Sizes of Winograd's tiles, what the kernel can run and what it moves; imports no compiler."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import CudaInfo, Tolerance

from ..common.params import MOST_BLOCKS, MOST_ELEMENTS, index_reasons
from ..common.roofline import LaunchCost
from ..gemm import blocking

__all__ = ["TOLERANCE", "Tiles", "launches", "product_problem", "reasons", "tiles_of", "workspace"]

_LIMIT = 2e-5
#: As the CPU's kernels, which multiply by the same matrices.
TOLERANCE = {
    "float32": Tolerance(_LIMIT),
    "float64": Tolerance(_LIMIT * 2.0**-29),
    "float16": Tolerance(2.0**-11 + _LIMIT),
    "bfloat16": Tolerance(2.0**-8 + _LIMIT),
}


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles that the output is cut into.

    Parameters
    ----------
    m : int
        Outputs of a tile along each axis.
    rows, columns : int
        Tiles of an image.
    padded : int
        Tiles of the batch, up to a multiple of four.
    """

    m: int
    rows: int
    columns: int
    padded: int

    @property
    def elements(self) -> int:
        """Elements of a transformed tile."""
        return (self.m + 2) ** 2


def tiles_of(problem: ConvProblem, m: int) -> Tiles:
    """Return the tiles of a problem with two spatial axes."""
    rows, columns = (-(-size // m) for size in problem.out_size)
    return Tiles(m, rows, columns, -(-problem.batch * rows * columns // 4) * 4)


def product_problem(problem: ConvProblem, tiles: Tiles) -> ConvProblem:
    """Return the products as a 1x1 convolution: an element a group, a tile a pixel."""
    return ConvProblem(
        1,
        problem.in_channels * tiles.elements,
        problem.out_channels * tiles.elements,
        (tiles.padded,),
        (1,),
        groups=problem.groups * tiles.elements,
        dtype="float64" if problem.dtype == "float64" else "float32",
        device=problem.device,
    )


def reasons(m: int, problem: ConvProblem) -> list[str]:
    """Return why F(m x m, 3 x 3) cannot run a problem."""
    if problem.ndim != 2 or problem.kernel_size != (3, 3):
        return [f"is for kernels of 3x3; this is {problem.kernel_size}"]
    sentences = index_reasons(problem)
    if max(problem.stride) > 1 or max(problem.dilation) > 1:
        sentences.append(
            f"wants stride and dilation of 1; this has {problem.stride} and {problem.dilation}"
        )
    if problem.in_channels == problem.groups:
        sentences.append("has no input channels to sum over in a depthwise problem")
    most = max(problem.in_channels, problem.out_channels)
    tiles = tiles_of(problem, m)
    if most * tiles.elements * tiles.padded > MOST_ELEMENTS:
        sentences.append("indexes in 32 bits, too few for the transformed tiles")
    arrays = {"input": problem.x_shape, "output": problem.out_shape}
    for name, shape in arrays.items():
        if (count := math.prod(shape)) > MOST_ELEMENTS:
            sentences.append(f"indexes in 32 bits; the {name} has {count} elements")
    if max(most, problem.groups * tiles.elements) > MOST_BLOCKS:
        sentences.append(f"runs channels and elements in rows of the grid, at most {MOST_BLOCKS}")
    return sentences


def workspace(m: int, problem: ConvProblem, device: CudaInfo) -> int:
    """Return the bytes of the transformed input and the products, and of their parts."""
    inner = product_problem(problem, tiles_of(problem, m))
    splits = blocking.choose_split(inner, device).splits
    outputs = math.prod(inner.out_shape) * (1 if splits == 1 else 1 + splits)
    return inner.itemsize * (math.prod(inner.x_shape) + outputs)


def launches(m: int, problem: ConvProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launches of a call: transforms move bytes, products are the implicit GEMM's."""
    inner = product_problem(problem, tiles_of(problem, m))
    x, out = (math.prod(shape) * problem.itemsize for shape in (problem.x_shape, problem.out_shape))
    tiles, products = (
        math.prod(shape) * inner.itemsize for shape in (inner.x_shape, inner.out_shape)
    )
    # A tile of the input overlaps its neighbours: it is read by elements of the storage type.
    overlapping = tiles // inner.itemsize * problem.itemsize
    return (
        LaunchCost("input transform", x, tiles, overlapping),
        *blocking.gemm_launches(inner, device),
        LaunchCost("output transform", products, out, products),
    )
