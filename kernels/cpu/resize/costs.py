"""What resizing costs, how it is cut into tasks, and what a plan keeps. No compiler is imported."""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.resize_problem import ResizeProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec
from ..common.workspace import Workspace
from ..machine.lines import LINE, whole_lines

__all__ = [
    "CHUNK",
    "CUBIC",
    "EXACT",
    "FOUR",
    "LINEAR",
    "MOST_COPIED",
    "NEAREST",
    "PLANES",
    "SEGMENT_HEADER",
    "SPECS",
    "TAPS",
    "Axis",
    "Cut",
    "axes",
    "column_span",
    "copies_pixels",
    "is_far",
    "is_interleaved",
    "pixel_cut",
    "reach_of",
    "row_cut",
    "rule_of",
    "tap_bytes",
]

NEAREST, EXACT, LINEAR, CUBIC = range(4)
_RULES = {"nearest": NEAREST, "nearest-exact": EXACT, "bicubic": CUBIC}
#: Samples of an output, by rule.
TAPS = (1, 1, 2, 4)
#: An axis of at most so many samples whose size does not change is not interpolated, by rule.
MOST_COPIED = (0, 0, 1 << 62, 1)

#: Planes that are resized side by side: rows are listed once for all, and stores to the buffers of
#: some end while others are blended. A table of columns is loaded once for four.
PLANES, FOUR = 8, 4
#: Rows that are summed up apart, so that an error hardly grows with their number.
CHUNK = 64
#: Bytes before a segment's records: its first sample, the one behind its last, the furthest place.
SEGMENT_HEADER = LINE
#: Tables up to this size are made once, with the plan.
_MOST_TABLE = 1 << 20
#: Elements of a segment of a row, and those that are read for it: they and the segment's table lie
#: in L1 together.
_SPAN, _READ = 512, 512
#: Samples from one output to the next from which on rows are not blended whole.
_FAR = 16
#: Elements that a task reads or writes: some 10 microseconds.
_TASK = 1 << 15
#: Bytes of a segment's pixels: half of a small L2.
_PIXELS = 1 << 16
#: Channels that lie side by side and are resized as one row.
_MOST_INTERLEAVED = 8
#: Taps of a column of a gradient, and samples that a vector of columns may lie apart.
_MOST_TAPS, _MOST_APART = 1 << 15, 1 << 30


class Axis(NamedTuple):
    """One axis: sizes in the array that is read and the one that is written, and how they match.

    Parameters
    ----------
    read, written : int
        Sizes.
    step : float
        Samples of the resized array from one output to the next.
    taps : int
        At most so many elements are summed up.
    ratio : float
        Elements that are read from one that is written to the next.
    """

    read: int
    written: int
    step: float
    taps: int
    ratio: float

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry, see taps.py."""
        return 8 + 16 * self.taps


def rule_of(problem: ResizeProblem) -> int:
    """Return the rule by which samples are found."""
    return _RULES.get(problem.mode, LINEAR)


def _is_copied(rule: int, inputs: int, outputs: int) -> bool:
    """Tell whether an axis stays as it is: it is not interpolated then."""
    return inputs == outputs <= MOST_COPIED[rule]


def _most_taps(rule: int, step: float, inputs: int, outputs: int) -> int:
    """Return the most outputs that one sample goes into."""
    if _is_copied(rule, inputs, outputs):
        return 1
    if step == 0:
        return outputs
    # Linear places before the first sample become the first: half a sample more goes into the next.
    found = (TAPS[rule] + 0.5) / step + 3
    if rule in (NEAREST, EXACT):  # positions are rounded to float32
        found += outputs / 2**21
    return outputs if found >= outputs else math.ceil(found)


def _axis(problem: ResizeProblem, inputs: int, outputs: int, step: float) -> Axis:
    rule = rule_of(problem)
    if problem.op == "interpolate_grad":
        taps = _most_taps(rule, step, inputs, outputs)
        return Axis(outputs, inputs, step, taps, min(1 / step if step else outputs, outputs))
    taps = 1 if _is_copied(rule, inputs, outputs) else TAPS[rule]
    return Axis(inputs, outputs, step, taps, step)


def axes(problem: ResizeProblem) -> tuple[Axis, Axis, Axis]:
    """Return depth, height and width."""
    made = list(map(_axis, [problem] * 3, problem.in_size, problem.out_size, problem.steps()))
    one = Axis(1, 1, 1.0, 1, 1.0)
    first, second, third = [one] * (3 - len(made)) + made
    return first, second, third


def is_far(problem: ResizeProblem) -> bool:
    """Tell whether columns lie so far apart that rows are not blended whole."""
    return problem.op == "interpolate" and axes(problem)[2].ratio > _FAR


def tap_bytes(lanes: int, size: int) -> int:
    """Return the bytes of one tap of a vector of columns: a line, places and weights."""
    return LINE + whole_lines(lanes * (4 + size))


def column_span(axis: Axis, lanes: int, interleaved: int, far: bool) -> int:
    """Return the elements of a segment of a row."""
    reads = 1.0 if far else max(1.0, axis.ratio)
    most = max(1, int(min(_SPAN, _READ / reads)) // lanes)
    vectors = -(-axis.written * interleaved // lanes)
    return -(-vectors // -(-vectors // most)) * lanes


def reach_of(axis: Axis, lanes: int, interleaved: int) -> int:
    """Return the elements over which the places of a vector's tap reach, at most."""
    pixels = -(-(lanes - 1) // interleaved)
    return (math.ceil(pixels * axis.ratio) + 1) * interleaved + interleaved


def _reads(axis: Axis, span: int, interleaved: int) -> int:
    """Return the most elements that are read for a segment; positions may be rounded to float32."""
    rounded = axis.read >> 21
    return math.ceil(span * axis.ratio) + (axis.taps + 3 + rounded) * interleaved


class Cut(NamedTuple):
    """A call cut into tasks, and what its kernel keeps.

    Parameters
    ----------
    tasks : int
        Of a call.
    fields : dict
        Fields of the geometry.
    worker_bytes : int
        Scratch memory of one worker.
    column_bytes, row_bytes, depth_bytes : int
        Of the tables that a plan makes; 0 where positions are found in each call.
    """

    tasks: int
    fields: dict[str, int]
    worker_bytes: int
    column_bytes: int
    row_bytes: int
    depth_bytes: int


def _blocks(planes: int, rows: int, segments: int, span: int, row_work: int) -> dict[str, int]:
    """Return how many planes, rows and segments a task takes, and the numbers of such blocks."""
    batch = min(PLANES, planes)
    whole = max(1, batch * row_work)
    plane_block, row_block, segment_block = batch, rows, segments
    if whole * rows <= _TASK:
        plane_block = min(planes, batch * (_TASK // (whole * rows)))
    elif whole <= _TASK:
        row_block = _TASK // whole
    else:
        row_block, segment_block = 1, max(1, _TASK // (batch * span))
    return {
        "plane_block": plane_block, "plane_blocks": -(-planes // plane_block),
        "row_block": row_block, "row_blocks": -(-rows // row_block),
        "segment_block": segment_block, "segment_blocks": -(-segments // segment_block),
    }  # fmt: skip


def _kept(size: int, entries: int) -> int:
    """Return the bytes of a table where a plan keeps it, else 0."""
    return size * entries if size * entries <= _MOST_TABLE else 0


def row_cut(problem: ResizeProblem, lanes: int, images: int, planes: int, interleaved: int) -> Cut:
    """Cut a call of the kernel of rows: so many images of so many planes.

    Channels that are `interleaved` are one plane.
    """
    depth, height, width = axes(problem)
    size, far = problem.compute_itemsize, is_far(problem)
    span = column_span(width, lanes, interleaved, far)
    elements = width.written * interleaved
    segments = -(-elements // span)
    record = width.taps * tap_bytes(lanes, size)
    segment_bytes = SEGMENT_HEADER + span // lanes * record
    read = 0 if far else _reads(width, span, interleaved) + 2 * lanes
    columns = _kept(segment_bytes, segments)
    row_bytes = _kept(height.entry_bytes, height.written)
    depth_bytes = _kept(depth.entry_bytes, depth.written)
    parts = Workspace()
    parts.add("buffers", PLANES * whole_lines(read * size))
    parts.add("list", 16 * CHUNK)
    parts.add("row", 0 if row_bytes else height.entry_bytes)
    parts.add("depth", 0 if depth_bytes else depth.entry_bytes)
    parts.add("columns", 0 if columns else segment_bytes)
    parts.add("entries", lanes * width.entry_bytes)
    parts.add("result", span * size)
    rows = depth.written * height.written
    row_work = max(elements, 0 if far else width.read * interleaved)
    blocks = _blocks(planes, rows, segments, span, row_work)
    fields = blocks | parts.fields | {
        "planes": planes, "interleaved": interleaved, "span": span, "segments": segments,
        "segment_bytes": segment_bytes, "record_bytes": record,
        "buffer_bytes": whole_lines(read * size),
        "row_entry": height.entry_bytes, "depth_entry": depth.entry_bytes,
        "column_entry": width.entry_bytes,
    }  # fmt: skip
    tasks = images * blocks["plane_blocks"] * blocks["row_blocks"] * blocks["segment_blocks"]
    return Cut(tasks, fields, fields["worker_bytes"], columns, row_bytes, depth_bytes)


def copies_pixels(problem: ResizeProblem) -> bool:
    """Tell whether pixels are summed up from where they lie, without a row of blended ones."""
    if problem.op != "interpolate":
        return False
    width = axes(problem)[2]
    return rule_of(problem) in (NEAREST, EXACT) or width.ratio >= 2


def pixel_cut(problem: ResizeProblem) -> Cut:
    """Cut a call of the kernel of pixels."""
    depth, height, width = axes(problem)
    size, direct = problem.compute_itemsize, copies_pixels(problem)
    pixel = max(1, problem.channels * size)
    reads = max(width.ratio, 1 / 64)
    most = max(8, int(_PIXELS / (pixel * reads)))
    if direct:
        most = max(8, _PIXELS // pixel)
    span = max(1, min(width.written, most))
    segments = -(-width.written // span)
    read = 0 if direct else _reads(width, span, 1)
    columns = _kept(width.entry_bytes, width.written)
    row_bytes = _kept(height.entry_bytes, height.written)
    depth_bytes = _kept(depth.entry_bytes, depth.written)
    parts = Workspace()
    parts.add("buffers", read * pixel + 2 * LINE)
    parts.add("list", 16 * CHUNK)
    parts.add("row", 0 if row_bytes else height.entry_bytes)
    parts.add("depth", 0 if depth_bytes else depth.entry_bytes)
    parts.add("columns", 0 if columns else width.entry_bytes * span)
    parts.add("result", pixel)
    rows = depth.written * height.written
    row_work = max(width.written, width.read) * max(1, problem.channels)
    blocks = _blocks(1, rows, segments, span * max(1, problem.channels), row_work)
    fields = blocks | parts.fields | {
        "planes": 1, "interleaved": problem.channels, "span": span, "segments": segments,
        "row_entry": height.entry_bytes, "depth_entry": depth.entry_bytes,
        "column_entry": width.entry_bytes,
    }  # fmt: skip
    tasks = problem.batch * blocks["row_blocks"] * blocks["segment_blocks"]
    return Cut(tasks, fields, fields["worker_bytes"], columns, row_bytes, depth_bytes)


def is_interleaved(problem: ResizeProblem) -> bool:
    """Tell whether channels are so few that pixels, one behind the other, are taken for a row."""
    return problem.layout == "channels_last" and problem.channels <= _MOST_INTERLEAVED


def _row_reasons(problem: ResizeProblem, device: DeviceInfo) -> list[str]:
    if problem.layout == "channels_last" and not is_interleaved(problem):
        return [f"reads rows of samples; here a pixel has {problem.channels} neighbouring channels"]
    width = axes(problem)[2]
    lanes = device.lanes(problem.compute_itemsize)
    if problem.op == "interpolate_grad" and width.taps > _MOST_TAPS:
        return [f"sums up at most {_MOST_TAPS} columns of a row; here {width.taps}"]
    apart = lanes * width.ratio
    if apart > _MOST_APART:
        return [f"reads {lanes} columns within {_MOST_APART} samples; here {apart:.3g}"]
    return []


def _pixel_reasons(problem: ResizeProblem, device: DeviceInfo) -> list[str]:
    if problem.layout != "channels_last":
        return ["reads channels that are neighbours in memory; here they are not"]
    if is_interleaved(problem):
        return [f"has a vector for a pixel; here it would hold {problem.channels} channels"]
    return []


def _row_seconds(problem: ResizeProblem, device: DeviceInfo) -> float:
    """Rows are blended, a vector a tap in some 1.2 cycles, and their columns picked in some 2."""
    depth, height, width = axes(problem)
    lanes, channels = device.lanes(problem.compute_itemsize), problem.channels
    interleaved = channels if is_interleaved(problem) else 1
    planes = problem.batch * channels // max(1, interleaved)
    dense = problem.layout == "channels_first" or is_interleaved(problem)
    rows = planes * depth.written * height.written
    blended = depth.taps * height.taps * -(-width.read * interleaved // lanes)
    picked = width.taps * -(-width.written * interleaved // lanes)
    near = reach_of(width, lanes, interleaved) <= 2 * lanes
    cycles = rows * (
        30 + blended * (1.2 if dense else 3.0 * lanes) + picked * (2 if near else 3 * lanes)
    )
    if not dense:
        cycles += rows * width.written * 2
    return array_seconds(problem, device, cycles, _row_tasks(problem, device))


def _row_tasks(problem: ResizeProblem, device: DeviceInfo) -> int:
    lanes = device.lanes(problem.compute_itemsize)
    if is_interleaved(problem):
        return row_cut(problem, lanes, 1, problem.batch, max(1, problem.channels)).tasks
    return row_cut(problem, lanes, 1, problem.batch * problem.channels, 1).tasks


def _pixel_seconds(problem: ResizeProblem, device: DeviceInfo) -> float:
    """Pixels are blended along columns of the image and then along its rows."""
    depth, height, width = axes(problem)
    vectors = -(-problem.channels // device.lanes(problem.compute_itemsize))
    rows = problem.batch * depth.written * height.written
    along = depth.taps * height.taps
    cycles = width.written * (20 + 1.5 * vectors * width.taps)
    if copies_pixels(problem):
        cycles = width.written * (20 + 1.5 * vectors * width.taps * along)
    else:
        cycles += 1.2 * width.read * vectors * along
    return array_seconds(problem, device, rows * (30 + cycles), pixel_cut(problem).tasks)


SPECS = tuple(
    spec
    for op in ("interpolate", "interpolate_grad")
    for spec in (
        array_spec(
            f"resize_rows{'_grad' * (op != 'interpolate')}", "resize.plan", op, _row_reasons,
            _row_seconds, "plan_rows",
        ),
        array_spec(
            f"resize_pixels{'_grad' * (op != 'interpolate')}", "resize.plan", op, _pixel_reasons,
            _pixel_seconds, "plan_pixels",
        ),
    )
)  # fmt: skip
