"""How a problem is cut into Winograd tiles, and where tiles are read.

A dilated convolution is ``distance`` independent dense ones along each axis, of outputs that lie so
far apart on samples that lie ``dilation`` apart: two *sub-grids* for dilation 2. Along the width,
tiles of all sub-grids are numbered in turn, so that a *group*, one tile of each, has outputs side
by side and vectors of tiles are full where one sub-grid is small::

    dilation 2, F(2, 3)      output  0 1 2 3 4 5 6 7        tile  0: 0 2   1: 1 3   (a group)
                                                                  2: 4 6   3: 5 7

A long kernel of one dimension is *folded*: with n = 3 j + p its 9 taps are 3 x 3 over rows of 3
outputs each, whose samples overlap, and the tile has two axes. F(4, 3) of the rows times F(3, 3)
within them takes 30 products for 12 outputs, where 108 are defined and F(2, 9) takes 60::

    samples  0 1 2 3 4                 row 0, of which p = 0, 1, 2 are outputs
                   3 4 5 6 7           row 1

Where the dilation is a good part of the map, a sub-grid has no more samples than a few: with
dilation 18 on a 33x33 map two, for two outputs of three taps. Those of its tile that lie in the
padding are left out, and F(2, 3) takes 3 products an axis (kernels/cook_toom.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem

__all__ = ["Axis", "Sizes", "is_long", "reads_rows", "tile_fields", "tile_sizes"]


class Axis(NamedTuple):
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
    def samples_read(self) -> int:
        """Samples that a tile reads."""
        return self.samples or self.stride * (self.m - 1) + self.r

    @property
    def n(self) -> int:
        """Elements of a tile."""
        return self.r if self.samples else self.samples_read

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
        return -(-self.samples_read // self.step)

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


class Sizes(NamedTuple):
    """The tile along depth, height and width; one element where there is nothing to transform."""

    axes: tuple[Axis, Axis, Axis]
    folded: Axis | None = None  # the width before it was folded into height and width

    @property
    def width(self) -> Axis:
        """The width as it lies in memory: how tiles are numbered and where they are read."""
        return self.folded or self.axes[-1]

    @property
    def rows_in(self) -> int:
        """Rows of samples along the height of a tile."""
        return 1 if self.folded else self.n[1]

    @property
    def rows_out(self) -> int:
        """Rows of outputs along the height of a tile."""
        return 1 if self.folded else self.m[1]

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
        """Rows of a tile's samples."""
        return self.n[0] * self.rows_in

    @property
    def tiles(self) -> int:
        """Tiles of one image."""
        return math.prod(self.counts)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tiles of one image along each axis."""
        depth, height, _ = self.axes
        return depth.tiles, 1 if self.folded else height.tiles, self.width.tiles


def _axis(m: int, r: int, stride: int, dilation: int, outputs: int) -> Axis:
    if r == 1:
        return Axis(1, 1, stride, 1, 1, outputs)
    common = math.gcd(stride, dilation)
    return Axis(m, r, stride // common, dilation, dilation // common, outputs)


#: Taps of a dense kernel of one dimension beyond which it is folded.
_MOST_TAPS = 7
#: Outputs of a row that are tried, and most points of an axis: its error is that of two dimensions.
_ROWS, _MOST_POINTS = (2, 3, 4), 8


def is_long(problem: ConvProblem) -> bool:
    """Return whether a kernel has more taps than a tile of one axis serves."""
    return problem.ndim == 1 and problem.stride == (1,) and problem.kernel_size[0] > _MOST_TAPS


def reads_rows(problem: ConvProblem) -> bool:
    """Return whether neighbouring samples of a sub-grid lie side by side, as folded rows want."""
    first = problem.layout == "channels_first"
    alone = problem.layout == "channels_last" and problem.in_channels == 1
    return (first or alone) and problem.dilation[-1] == 1


def _fold(problem: ConvProblem, m: int) -> Sizes:
    """Return the tile of a long kernel, `m` rows of it, that takes the fewest products."""
    r, dilation = problem.kernel_size[0], problem.dilation[0]
    ranked = []
    for p in _ROWS:
        taps = -(-r // p)
        axes = (_axis(1, 1, 1, 1, 1), _axis(m, taps, 1, 1, m), _axis(p, p, 1, 1, p))
        folded = _axis(m * p, taps * p, 1, dilation, problem.out_size[0])
        sizes = Sizes(axes, folded)
        points = max(axis.points for axis in axes)
        ranked.append((points > _MOST_POINTS, sizes.elements / (m * p), p, sizes))
    return min(ranked, key=lambda candidate: candidate[:3])[-1]


def _without_padding(axis: Axis, size: int, padding: int) -> Axis:
    """Return the axis without the samples that lie in the padding of every tile."""
    samples = axis.r - axis.m + 1
    grid_samples, grid_outputs = -(-size // axis.dilation), -(-axis.outputs // axis.distance)
    fits = axis.stride == 1 and grid_outputs <= axis.m and grid_samples <= samples
    if fits and axis.r > 1 and padding == (axis.m - 1) * axis.dilation:
        return axis._replace(samples=samples)
    return axis


def tile_sizes(problem: ConvProblem, m: int) -> Sizes:
    """Return the tile of a problem with `m` outputs along each transformed axis."""
    if is_long(problem) and reads_rows(problem):
        return _fold(problem, m)
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
    fields = {"folded": int(sizes.folded is not None), "width_outputs": sizes.width.m}
    fields |= {"rows_in": sizes.rows_in, "rows_out": sizes.rows_out}
    placed = (*sizes.axes[:2], sizes.width)
    for letter, axis, along, tiles in zip("dhw", sizes.axes, placed, sizes.counts, strict=True):
        place = (along.grids, along.distance, along.step, along.samples_read)
        values = (axis.m, axis.n, tiles, *place)
        fields |= {f"{n}{letter}": value for n, value in zip("mntuqae", values, strict=True)}
    return fields
