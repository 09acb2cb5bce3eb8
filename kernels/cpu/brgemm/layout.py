"""Where `cpu.brgemm` reads its input: in place or in a padded copy, and the table of its tap runs.

The reduction goes over channels and taps in the order in which most of them are equally far apart:

=================  =============================  ==================================
input              tap runs                       steps of a run
=================  =============================  ==================================
channels inside    kernel depth and rows          taps of a row and channels
with a skew        kernel depth, rows, columns    channels
pixels inside      channels, depth, rows          taps of a row
split by phases    channels, depth, rows, taps    one
=================  =============================  ==================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..gemm.split import REDUCTION
from ..machine.lines import LINE, whole_lines
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from .costs import PIXEL_LANES, PIXEL_ROWS, Blocks, band_extent, choose_blocks

__all__ = ["layout"]

#: Pixels that lie a multiple of this apart share so few sets of L1 that they evict each other.
_L1_STRIDE = 1024


def _is_inside(problem: ConvProblem) -> bool:
    """Return whether no output reads padding."""
    return all(
        low == 0 and (o - 1) * s + (k - 1) * d < i
        for (low, _), o, s, k, d, i in zip(
            problem.padding, problem.out_size, problem.stride, problem.kernel_size,
            problem.dilation, problem.in_size, strict=True,
        )
    )  # fmt: skip


def _band(
    problem: ConvProblem, x_strides: tuple[int, ...], blocks: Blocks, storage: int, size: int
) -> tuple[dict[str, int], int]:
    """Return the band's fields, and its bytes."""
    channels, item = problem.in_channels // problem.groups, ITEMSIZE[storage]
    width = problem.out_size[-1]
    planes, rows, cols = band_extent(
        problem, blocks.band_rows, min(blocks.band_tiles * blocks.pixels, width)
    )
    xc, xw = x_strides[1], x_strides[-1]
    pitch = channels * size
    inner = blocks.side == PIXEL_ROWS and channels > 1 and abs(xc) < abs(xw)
    if inner:
        if pitch * problem.stride[-1] % _L1_STRIDE == 0:
            pitch += LINE
        dense = xc == item and xw == channels * item and pitch == channels * size
        fields = {"band_c": size, "band_w": pitch, "band_h": cols * pitch, "phases": 1, "lines": 1}
        fields |= {"unit": channels, "by_column": int(not dense), "copy_step": xc}
        fields |= {"band_d": rows * fields["band_h"], "band_p": 0}
        return fields, planes * fields["band_d"]
    phases = problem.stride[-1] if blocks.side == PIXEL_LANES else 1
    # A tile reads whole vectors, also where it stores fewer.
    room = blocks.nv * blocks.lanes if blocks.side == PIXEL_LANES else 0
    phase = whole_lines((-(-cols // phases) + room) * size)
    fields = {"band_w": size, "band_p": phase, "band_h": phases * phase, "phases": phases}
    fields |= {"lines": channels, "unit": 1, "by_column": 0, "copy_step": phases * xw}
    fields["band_d"] = rows * fields["band_h"]
    fields["band_c"] = planes * fields["band_d"]
    return fields, channels * fields["band_c"]


def _split_tap_runs(
    table: NDArray[np.int64], steps: int, step: int
) -> tuple[NDArray[np.int64], int, int]:
    """Cut long tap runs into equal parts; return the table, steps of a run, and parts of each."""
    most = next(n for n in range(min(steps, REDUCTION), 0, -1) if steps % n == 0)
    parts = steps // most
    inner = np.arange(parts, dtype=np.int64) * (steps // parts) * step
    return (table.ravel()[:, None] + inner).ravel(), steps // parts, parts


def _tap_runs(
    problem: ConvProblem, steps_of: tuple[int, int, int, int], phases: int, phase: int
) -> tuple[NDArray[np.int64], dict[str, int], int]:
    """Return the table of tap runs, its fields, and whether taps come before channels in it.

    `steps_of` are the byte distances of channels and of taps along the three axes; with phases,
    which lie `phase` bytes apart, the last is that of a column.
    """
    channels = problem.in_channels // problem.groups
    kd, kh, kw = (1,) * (3 - problem.ndim) + problem.kernel_size
    at_c, at_d, at_h, at_w = (
        np.arange(n, dtype=np.int64) * step
        for n, step in zip((channels, kd, kh, kw), steps_of, strict=True)
    )
    depth = at_d[:, None, None] + at_h[:, None]
    tap_major = kd * kh * kw == 1 or (abs(steps_of[0]) < abs(steps_of[3]) and channels > 1)
    if tap_major:
        step, row_tap_runs = steps_of[0], 1
        if steps_of[3] == channels * step:  # the taps of a row continue one another
            table, steps = depth, channels * kw
        else:
            table, steps, row_tap_runs = depth + at_w, channels, kw
    else:
        table, steps, step, row_tap_runs = at_c[:, None, None, None] + depth, kw, steps_of[3], 0
        if phases > 1:
            column = np.arange(kw) * problem.dilation[-1]
            table = table + column % phases * phase + column // phases * step
            steps = 1
    table, steps, parts = _split_tap_runs(table, steps, step)
    fields = {
        "x_step": step, "steps": steps, "tap_runs": table.size, "chunk": max(1, REDUCTION // steps),
        "row_tap_runs": row_tap_runs * parts if kd == 1 else 0,
    }  # fmt: skip
    return table, fields, int(tap_major)


def layout(
    problem: ConvProblem, x_strides: tuple[int, ...], device: DeviceInfo
) -> tuple[Blocks, dict[str, int], NDArray[np.int64], int]:
    """Return the blocks, the fields by which the input is read, its tap runs, and their order."""
    storage = storage_code(problem.dtype)
    compute = compute_code(storage)
    size, blocks = ITEMSIZE[compute], choose_blocks(problem, device)
    band, band_bytes = _band(problem, x_strides, blocks, storage, size)
    sh, sw = (1, *problem.stride)[-2:]
    conflict = sw * x_strides[-1] % _L1_STRIDE == 0 and problem.out_size[-1] > 1
    copied = blocks.side == PIXEL_LANES or storage != compute or conflict or not _is_inside(problem)
    if copied:
        c, d, h, w = (band[f"band_{axis}"] for axis in "cdhw")
    else:
        band_bytes = 0
        c, (d, h, w) = x_strides[1], ((0, 0, *x_strides[2:])[-3:])
        d *= (1, 1, *problem.dilation)[-3]
    row_step, column_step = h, w * (sw if blocks.side == PIXEL_ROWS else 1)
    phases = band["phases"]
    dh, dw = (1, *problem.dilation)[-2:]
    table, tap_runs, tap_major = _tap_runs(
        problem, (c, d, h * dh, w * dw if phases == 1 else w), phases, band["band_p"]
    )
    fields = band | tap_runs | {"copied": int(copied), "x_h": sh * row_step, "x_w": column_step}
    vector = blocks.lanes * size
    fields["partial_at"] = whole_lines(band_bytes + vector)
    fields["sums_at"] = fields["partial_at"] + whole_lines(blocks.rows * blocks.nv * vector)
    whole_rows = -(-blocks.rows // blocks.lanes) * blocks.lanes  # transposed in square blocks
    fields["scratch_at"] = fields["sums_at"] + whole_lines(whole_rows * blocks.nv * vector)
    fields["worker_bytes"] = fields["scratch_at"] + whole_lines((1 + blocks.lanes) * vector)
    return blocks, fields, table, tap_major
