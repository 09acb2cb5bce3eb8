"""Where Winograd tiles are read: in the input itself, or in a copy with channels in the lanes.

Tiles in the lanes (input_tiles.py) want neighbouring samples side by side, channels in the lanes
(input_channels.py) want neighbouring channels so. An input that has neither for the kernel at
hand (a dilated kernel, a strided view) is first copied, once for all tiles and output channels::

    task = image x group x block of `lanes` channels x depth x some rows
      copy[image, group, block, depth, height, width, lane]          compute precision, in L2 or L3

Squares of `lanes` channels by `lanes` samples are transposed in registers: some 10 cycles for each
vector of samples, that is for ``lanes`` times ``K n**2 / m**2`` products of it.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ..simd.intrinsics import load_gather, range_mask, store
from ..simd.ir import ITEMSIZE
from ..simd.transposes import store_transposed
from .fields import view
from .tiles import Sizes

__all__ = ["copy_tasks", "make_copy", "source_fields"]

#: Rows that one task copies.
COPY_ROWS = 16


def source_fields(
    problem: ConvProblem, binding: Binding, sizes: Sizes, lanes: int, codes: tuple[int, int]
) -> dict[str, int]:
    """Return the fields that say where tiles are read, and the bytes of the copy.

    `codes` are those of what is stored and what is computed with.
    """
    item, size = (ITEMSIZE[code] for code in codes)
    channels = problem.in_channels // problem.groups
    strides = dict(zip(("n", "c", *"dhw"[-problem.ndim :]), binding.x_strides, strict=True))
    across = sizes.folded is None and (sizes.width.dilation > 1 or strides["w"] != item)
    if across and strides["c"] != item:
        return _copy_fields(problem, channels, lanes, size)
    fields = {f"source_{letter}": strides.get(letter, 0) for letter in "ncdhw"}
    fields["source_g"] = channels * strides["c"]
    fields["source_c"] *= lanes if across else 1
    return fields | {"across": int(across), "copied": 0, "copied_bytes": 0}


def _copy_fields(problem: ConvProblem, channels: int, lanes: int, size: int) -> dict[str, int]:
    """Return the same where the input is copied first."""
    depth, height, width = (1, 1, *problem.in_size)[-3:]
    counts = {"h": width, "d": height, "c": depth, "g": -(-channels // lanes), "n": problem.groups}
    fields = {"across": 1, "copied": 1, "source_w": lanes * size}
    at = lanes * size
    for letter, count in counts.items():
        at *= count
        fields[f"source_{letter}"] = at
    fields["copied_bytes"] = at * problem.batch
    return fields


def copy_tasks(problem: ConvProblem, lanes: int) -> int:
    """Return the number of the stage's tasks."""
    depth, height = (1, 1, *problem.in_size)[-3:-1]
    blocks = problem.groups * -(-problem.in_channels // problem.groups // lanes)
    return problem.batch * blocks * depth * -(-height // COPY_ROWS)


@functools.cache
def make_copy(lanes: int, storage: int, compute: int) -> Any:
    """Return the first stage's task: some rows of `lanes` channels."""
    item, line, full = ITEMSIZE[storage], lanes * ITEMSIZE[compute], (1 << lanes) - 1

    @numba.njit
    def copy_samples(g: Any, source: int, channels: int, width: int, target: int) -> None:
        """Copy neighbouring samples; lanes behind the last channel may be left as they are."""
        if g.xw == item and channels == lanes and width >= lanes:
            for begin in range(0, width, lanes):
                # The last square overlaps the one before: masks would cost more than samples.
                start = min(begin, width - lanes)
                store_transposed(
                    source + start * item, g.xc, target + start * line, line, full, lanes,
                    storage, compute, lanes,
                )  # fmt: skip
            return
        mask = range_mask(0, channels)
        for w in range(width):
            samples = load_gather(source + w * g.xw, g.xc, mask, storage, lanes)
            store(target + w * line, samples, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        blocks, bands = (g.c + lanes - 1) // lanes, (g.ih + COPY_ROWS - 1) // COPY_ROWS
        band, rest = number % bands, number // bands
        d, rest = rest % g.id, rest // g.id
        block, rest = rest % blocks, rest // blocks
        group, image = rest % g.groups, rest // g.groups
        source = x + image * g.xn + (group * g.c + block * lanes) * g.xc + d * g.xd
        target = workspace + image * g.source_n + group * g.source_g + block * g.source_c
        target += d * g.source_d
        channels, first = min(lanes, g.c - block * lanes), band * COPY_ROWS
        rows = min(COPY_ROWS, g.ih - first)
        # Rows that follow each other are copied as one.
        together = rows if g.xh == g.iw * g.xw else 1
        for h in range(first, first + rows, together):
            copy_samples(g, source + h * g.xh, channels, together * g.iw, target + h * g.source_h)

    return task
