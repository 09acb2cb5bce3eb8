"""How a problem is cut into Winograd tiles, and where tiles are read.

A dilated convolution is ``distance`` independent dense ones along each axis, of outputs that lie so
far apart on samples that lie ``dilation`` apart: two *sub-grids* for dilation 2. Along the width,
tiles of all sub-grids are numbered by turns, so that a *group*, one tile of each, has outputs side
by side and vectors of tiles are full where one sub-grid is small::

    dilation 2, F(2, 3)      output  0 1 2 3 4 5 6 7        tile  0: 0 2   1: 1 3   (a group)
                                                                  2: 4 6   3: 5 7

Where the dilation is a good part of the map, a sub-grid has no more samples than a few: with
dilation 18 on a 33x33 map two, for two outputs of three taps. Those of its tile that lie in the
padding are left out, and F(2, 3) takes 3 products an axis (cook_toom.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fastconv.problem import ConvProblem

__all__ = ["Axis", "Sizes", "tile_fields", "tile_sizes"]


@dataclass(frozen=True, slots=True)
class Axis:
    """F(m, r) along one axis, and the sub-grids on which it works.

    Outputs ``distance`` apart see input samples ``stride`` apart of a sub-grid that holds every
    ``dilation``-th sample of the input: for them the kernel is dense. A stride and a dilation share
    their common divisor, so 3 taps of dilation 2 and stride 2 are a dense kernel.
    """

    m: int
    r: int
    stride: int
    dilation: int
    distance: int
    outputs: int
    #: Samples of a tile where some lie in the padding of every tile; 0 where they do not.
    samples: int = 0

    @property
    def form(self) -> tuple[int, int, int, int]:
        """What decides the matrices."""
        return self.m, self.r, self.stride, self.samples

    @property
    def reach(self) -> int:
        """Samples that a tile reads."""
        return self.samples or self.stride * (self.m - 1) + self.r

    @property
    def n(self) -> int:
        """Elements of a tile."""
        return self.r if self.samples else self.reach

    @property
    def points(self) -> int:
        """Points of the largest phase, which decide the rounding error."""
        return self.m + -(-self.r // self.stride) - 1

    @property
    def step(self) -> int:
        """Samples from one tile to the next."""
        return self.stride * self.m

    @property
    def shifts(self) -> int:
        """Tiles whose first `step` samples a tile reaches, itself among them."""
        return -(-self.reach // self.step)

    def pieces(self, lanes: int) -> int:
        """Most pieces of which the samples of one row of `lanes` tiles are made."""
        return self.shifts * (self.step + lanes)

    @property
    def sub_tiles(self) -> int:
        """Tiles of one sub-grid."""
        return -(-self.outputs // (self.distance * self.m))

    @property
    def grids(self) -> int:
        """Sub-grids."""
        return max(1, min(self.distance, self.outputs))

    @property
    def tiles(self) -> int:
        """Tiles of all sub-grids."""
        return self.sub_tiles * self.grids


@dataclass(frozen=True, slots=True)
class Sizes:
    """The tile along depth, height and width; one element where there is nothing to transform."""

    axes: tuple[Axis, Axis, Axis]

    @property
    def m(self) -> tuple[int, ...]:
        """Outputs of a tile along each axis."""
        return tuple(axis.m for axis in self.axes)

    @property
    def n(self) -> tuple[int, ...]:
        """Elements of a tile along each axis."""
        return tuple(axis.n for axis in self.axes)

    @property
    def elements(self) -> int:
        """Elements of a tile."""
        return math.prod(self.n)

    @property
    def rows(self) -> int:
        """Rows of a tile's elements."""
        return math.prod(self.n[:2])

    @property
    def tiles(self) -> int:
        """Tiles of one image."""
        return math.prod(axis.tiles for axis in self.axes)


def _axis(m: int, r: int, stride: int, dilation: int, outputs: int) -> Axis:
    if r == 1:
        return Axis(1, 1, stride, 1, 1, outputs)
    common = math.gcd(stride, dilation)
    return Axis(m, r, stride // common, dilation, dilation // common, outputs)


def _without_padding(axis: Axis, size: int, padding: int) -> Axis:
    """Return the axis without the samples that lie in the padding of every tile."""
    samples = axis.r - axis.m + 1
    grid_samples, grid_outputs = -(-size // axis.dilation), -(-axis.outputs // axis.distance)
    fits = axis.stride == 1 and grid_outputs <= axis.m and grid_samples <= samples
    if fits and axis.r > 1 and padding == (axis.m - 1) * axis.dilation:
        return replace(axis, samples=samples)
    return axis


def tile_sizes(problem: ConvProblem, m: int) -> Sizes:
    """Return the tile of a problem with `m` outputs along each transformed axis."""
    axes = [
        _axis(m, r, stride, dilation, outputs)
        for r, stride, dilation, outputs in zip(
            problem.kernel_size, problem.stride, problem.dilation, problem.out_size, strict=True
        )
    ]
    if axes[-1].dilation > 1:  # channels are in the lanes
        axes = [
            _without_padding(axis, size, padding[0])
            for axis, size, padding in zip(axes, problem.in_size, problem.padding, strict=True)
        ]
    flat = [_axis(1, 1, 1, 1, 1)] * (3 - problem.ndim)
    return Sizes((*flat, *axes))  # type: ignore[arg-type]


def tile_fields(sizes: Sizes) -> dict[str, int]:
    """Return the fields of a geometry that each axis has."""
    fields: dict[str, int] = {}
    for letter, axis in zip("dhw", sizes.axes, strict=True):
        values = (axis.m, axis.n, axis.tiles, axis.grids, axis.distance, axis.step, axis.reach)
        fields |= {f"{n}{letter}": value for n, value in zip("mntuqae", values, strict=True)}
    return fields
