"""How rows_copied.py cuts its work: bands of rows, spans of columns, what a task copies of them.

No compiler is imported here, so that the table of kernels can ask what a problem would copy.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.workspace import Workspace
from .row_costs import RowBlocking, last_lanes, phase_overlap, row_blocking, row_phases, row_strips

__all__ = ["TASKS", "copy_reasons", "layout"]

#: Tasks a thread, enough for a late thread to be helped out.
TASKS = 8
#: Most bytes of a thread's copy and sums.
_MOST_BYTES = 128 << 20


def _copied_rows(problem: ConvProblem, rows: int) -> int:
    """Return the rows of a copy under so many output rows."""
    kh, sh = (1, *problem.kernel_size)[-2], (1, *problem.stride)[-2]
    last_tap = (kh - 1) * (1, *problem.dilation)[-2]
    return min((rows - 1) * sh + last_tap + 1, (1, *problem.in_size)[-2])


def _band_rows(
    problem: ConvProblem, device: DeviceInfo, blocking: RowBlocking, line_bytes: int
) -> int:
    """Return the output rows of a band, where a row of the copy takes `line_bytes`."""
    kh, sh, oh = ((1, *axis)[-2] for axis in (problem.kernel_size, problem.stride,
                                              problem.out_size))  # fmt: skip
    last_tap = (kh - 1) * (1, *problem.dilation)[-2]
    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    rows = oh
    while rows > 1 and (
        _copied_rows(problem, rows) * line_bytes > device.l2 // 4
        or tasks * -(-oh // rows) < 2 * device.threads
    ):
        smaller = -(-rows // 2)
        if smaller < min(2 * last_tap // sh, oh // (2 * device.threads)):
            break  # the rows that bands copy twice would cost more than is won
        rows = smaller
    whole = max(1, blocking.rows) * blocking.row_interleave  # rows of full tiles
    return min(oh, -(-rows // whole) * whole)


def _span_parts(
    problem: ConvProblem, device: DeviceInfo, blocking: RowBlocking, column_bytes: int
) -> int:
    """Return the strips of a span: all, or as many as fit L2 beside what successive spans share.

    `column_bytes` is what a column takes of a copy and of its sums. So a thread's memory does not
    grow with the length of a signal.
    """
    parts = row_strips(problem.out_size[-1], blocking.lanes, blocking.vectors)
    overlap = phase_overlap(problem)
    if (problem.out_size[-1] + overlap) * column_bytes <= 2 * device.l2:
        return parts.count
    columns = max(overlap, device.l2 // 2 // column_bytes)
    return min(parts.count, max(1, columns // (blocking.lanes * blocking.vectors)))


def layout(problem: ConvProblem, device: DeviceInfo) -> tuple[RowBlocking, dict[str, int]]:
    """Return the cut and the sizes of a band, a span and their copy."""
    size = problem.compute_itemsize
    blocking = row_blocking(problem, device, size)
    lanes, ow, phases = blocking.lanes, problem.out_size[-1], row_phases(problem)
    depths = math.prod(problem.kernel_size[:-2])
    planes = problem.in_channels // problem.groups * depths
    outputs = problem.out_channels // problem.groups

    def phase_of(columns: int) -> int:
        return -(-(columns + phase_overlap(problem)) // lanes) * lanes

    parts = row_strips(ow, lanes, blocking.vectors)
    across = (parts.total - 1) * lanes + last_lanes(ow, lanes, parts.total)
    band_rows = _band_rows(problem, device, blocking, planes * phases * phase_of(across) * size)
    copied = _copied_rows(problem, band_rows)
    column_bytes = (planes * phases * copied + outputs * band_rows) * size
    span = _span_parts(problem, device, blocking, column_bytes)
    if span < parts.count:
        across = -(-parts.total * span // parts.count) * lanes
    bands, spans = -(-(1, *problem.out_size)[-2] // band_rows), -(-parts.count // span)
    row_bytes, sum_row = phases * phase_of(across) * size, -(-across // lanes) * lanes
    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2]) * bands * spans
    fields = {
        "in_g": 0,
        "in_c": depths * copied * row_bytes,
        "in_d": copied * row_bytes,
        "in_h": row_bytes,
        "unit": (1, *problem.dilation)[-2] if (1, *problem.kernel_size)[-2] > 1 else 1,
        "row_interleave": blocking.row_interleave,
        "tap_bytes": size,
        "to_c": band_rows * sum_row * size,
        "to_h": sum_row * size,
        "band_rows": band_rows,
        "bands": bands,
        "spans": spans,
        "span_parts": span,
        # Taking a task costs about 0.1 microseconds: small maps share one.
        "items": max(1, tasks // (TASKS * device.threads)),
        "phases": phases,
        "phase_length": phase_of(across),
    }
    memory = Workspace()
    memory.add("copy", planes * copied * row_bytes)
    memory.add("sums", outputs * fields["to_c"])
    memory.add("scratch", lanes * size)
    return blocking, fields | memory.fields


def copy_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why a problem's copies would be too large, whatever the number of threads is."""
    size = problem.compute_itemsize
    row = row_phases(problem) * (problem.out_size[-1] + phase_overlap(problem))
    copied = problem.in_channels * math.prod(problem.in_size[:-1]) * row
    if (copied + math.prod(problem.out_shape[1:])) * size <= _MOST_BYTES:
        return []  # of a whole image
    held = layout(problem, replace(device, threads=1))[1]["worker_bytes"]
    if held > _MOST_BYTES:
        return [f"copies {held >> 20} MiB of padded rows at once, more than {_MOST_BYTES >> 20}"]
    return []
