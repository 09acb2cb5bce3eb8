"""Strips and tiles of pixels: depthwise windows with channels in the lanes of all vectors.

The arithmetic of pixels_in_place.py, which reads such arrays in place, and of
pixels_transposed.py, which brings others into that order. Weights are vectors of their own; no tap
is misaligned against another, no lane is lost at the end of a row, and the columns outside the
input are known when the code is made, so nothing is computed for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.epilogue import EPILOGUE_FIELDS
from ..runtime import jit
from ..runtime.record import as_record
from ..simd.ir import F64, I64, ITEMSIZE, compute_code, first_lanes, load_vector
from .pixel_costs import PixelBlocking, met_columns, side_places, strips
from .row_calls import PART_SIGNATURE, PARTS_FIELDS, parts_table
from .row_costs import singleton_flags
from .row_strip import Strip
from .row_tile import Rows, TapColumns, Window, WindowTile, make_window

__all__ = [
    "FIELDS",
    "pixel_table",
    "view",
]

#: Fields of a geometry that the compiled loops and the tasks that call them read.
FIELDS = (
    *EPILOGUE_FIELDS,
    "in_d",  # bytes between what is read of successive kernel depths, rows, pixels
    "in_h",
    "in_w",
    "to_d",  # bytes between output depths, rows and pixels
    "to_h",
    "to_w",
    "unit",  # input rows between the kernel's
    "row_interleave",  # distance of the output rows of one strip
    *PARTS_FIELDS,
    "band_rows",  # in place: output rows of one task
    "bands",  # tasks along the output height
    "chunk",  # channels of one task
    "chunks",
    "stretches",  # of a block: stretches of contiguous pixels in a channel, and their length
    "stretch_length",
    "in_stretch",  # bytes between stretches in the input
    "block_stretch",  # and in the block
    "first_at",  # where a block's first pixel lies; then places in the workspace
    "plane_bytes",  # one depth of a block
    "block_bytes",
    "sums_at",
    "scratch_at",
    "worker_bytes",
)
view = as_record(FIELDS)


class PixelSteps(NamedTuple):
    """What strips and tiles of pixels are given beside `Rows`, whose width counts channels.

    Parameters
    ----------
    xw, yw : int
        Bytes between pixels of input and output.
    wt : int
        Bytes between the weights of taps.
    """

    xw: int
    yw: int
    wt: int


class PixelStripShape(NamedTuple):
    """What a strip of pixels is compiled for, every entry a whole number.

    Parameters
    ----------
    kh, kw : int
        Taps.
    row_step : int
        Input rows, in units of the dilation, between successive output rows.
    pixels, lanes : int
        Vectors, and the channels in each.
    sw, dw : int
        Stride and dilation along the row.
    low, high : int
        The range of columns that meet the input, from the first tap's on.
    singleton_flags : int
        Of `row_costs.singleton_flags`.
    in_registers : int
        Whether all weights stay there.
    masked : int
        Whether some lanes have no channel.
    storage, stored : int
        Element types of the input and of the output.
    """

    kh: int
    kw: int
    row_step: int
    pixels: int
    lanes: int
    sw: int
    dw: int
    low: int
    high: int
    singleton_flags: int
    in_registers: int
    masked: int
    storage: int
    stored: int


class _Pixels(Window):
    """What strips and tiles of pixels share: channels lie in the lanes of all vectors."""

    lanes: int
    channels: Any  # flags for the channels that exist, None for all

    def weight(self, base: Any, block: int, tap: Any) -> list[Any]:
        """Return the channels' weights, once for each pixel."""
        at = self.at(base, (tap, self.arg["wt"]))
        return [load_vector(self.builder, at, self.lanes, self.code)] * len(self.widths)

    def initial(self, block: int) -> list[Any]:
        """Return the channels' biases, once for each pixel."""
        bias = load_vector(self.builder, self.arg["bias"], self.lanes, self.code, self.channels)
        return [bias] * len(self.widths)

    def target(self, row: Any, block: int, j: int) -> Any:
        """Return where pixel `j` of an output row goes."""
        return self.at(self.arg["out"], (row, self.arg["yh"]), (I64(j), self.arg["yw"]))

    def store_mask(self, j: int) -> Any:
        """Return flags for the channels that exist, None for all."""
        return self.channels


class _PixelStrip(_Pixels, Strip):
    """A strip whose vectors are pixels, with channels in their lanes."""

    def __init__(self, builder: Any, args: Any, shape: Sequence[int]) -> None:
        strip = PixelStripShape(*shape)
        self.kh, self.kw, self.row_step, self.lanes = (
            strip.kh,
            strip.kw,
            strip.row_step,
            strip.lanes,
        )
        self.sw, self.dilation, self.low, self.high = strip.sw, strip.dw, strip.low, strip.high
        self.singleton_flags, self.in_registers = strip.singleton_flags, strip.in_registers
        self.height, self.block, self.shifted, self.period = -(-self.kh // self.row_step), 1, 0, 0
        self.weights: dict[tuple[int, int], list[Any]] = {}
        code = compute_code(strip.storage)
        super(Strip, self).__init__(builder, args, code, [self.lanes] * strip.pixels)
        self.storage, self.stored = strip.storage, strip.stored
        channels = first_lanes(builder, self.arg["width"], self.lanes)
        self.channels = channels if strip.masked else None

    def vector(self, row: Any, s: int, j: int) -> Any:
        """Return the pixel under tap column `s` for output pixel `j`, None outside the input."""
        p = j * self.sw + s * self.dilation
        if not self.low <= p < self.high:
            return None
        if p not in self.loaded:
            column = self.builder.add(self.arg["col0"], I64(p))
            at = self.at(row, (column, self.arg["xw"]))
            self.loaded[p] = load_vector(self.builder, at, self.lanes, self.storage, self.channels)
        return self.loaded[p]

    def prefetched(self) -> list[Any]:
        """Return the byte offsets in a row of the pixels that a strip reads."""
        pixels = {j * self.sw + s * self.dilation
                  for j in range(len(self.widths)) for s in range(self.kw)}  # fmt: skip
        met = (p for p in sorted(pixels) if self.low <= p < self.high)
        columns = [self.builder.add(self.arg["col0"], I64(p)) for p in met]
        return [self.builder.mul(column, self.arg["xw"]) for column in columns]

    def prepare(self) -> None:
        """Load the weights where there is room for them."""
        if self.in_registers:
            for tap in range(self.kh * self.kw):
                self.weights[0, tap] = self.weight(self.arg["w"], 0, I64(tap))


class _PixelTile(_Pixels, WindowTile):
    """A tile whose vectors are pixels; it reads a padded block of one vector of channels."""

    singleton_flags = 1

    def __init__(self, builder: Any, args: Any, shape: Sequence[int]) -> None:
        self.rh, nv, self.lanes, self.sw, code = shape
        super(WindowTile, self).__init__(builder, args, code, [self.lanes] * nv)
        self.channels = first_lanes(builder, self.arg["width"], self.lanes)

    def vectors(self, row: Any, s: Any) -> list[Any]:
        """Load the pixels under tap column `s`."""
        builder, arg = self.builder, self.arg
        first = builder.add(arg["col0"], builder.mul(s, arg["dw"]))
        base = self.at(row, (first, arg["xw"]))
        places = [self.at(base, (I64(j * self.sw), arg["xw"])) for j in range(len(self.widths))]
        return [load_vector(builder, at, self.lanes, self.code) for at in places]


def _strip_loop(shape: PixelStripShape, rest: int) -> int:
    """Return the address of the loop over channels of one shape of strip.

    `rest` is the number of lanes for the last channels, 0 where there are only full vectors.
    """
    item, out_item = ITEMSIZE[shape.storage], ITEMSIZE[shape.stored]
    size, lanes = ITEMSIZE[compute_code(shape.storage)], shape.lanes
    full = make_window(_PixelStrip, shape)
    last = make_window(_PixelStrip, shape._replace(lanes=max(rest, 1), masked=1))

    def strip_loop(geometry: int, start: int, x: int, weight: int, bias: int, out: int, h0: int,
                   h_end: int, rows: int, depths: int, channels: int) -> None:  # fmt: skip
        g = view(geometry)
        low, high = g.low, g.high
        if g.has_residual:
            low, high = -np.inf, np.inf
        col0, wd = start * g.sw - g.pw, g.kh * g.kw * lanes * size
        taps = g.kd * g.kh * g.kw * size
        for residue in range(min(g.row_interleave, rows)):
            pitch = g.row_interleave * g.to_h
            count = (rows - residue + g.row_interleave - 1) // g.row_interleave
            h, y = h0 + residue * g.sh, out + residue * g.to_h + start * g.to_w
            c = 0
            while c + lanes <= channels:
                strip = Rows(
                    x=x + c * item, channels=1, xc=0, depths=depths, xd=g.in_d,
                    h0=h, dh=g.unit, h_end=h_end, xh=g.in_h, col0=col0, dw=0, iw=0, columns=0,
                    w=weight + c * taps, wk=0, wc=0, wd=wd, out=y + c * out_item, yh=pitch, yc=0,
                    bias=bias + c * size, width=lanes, rows=count,
                )  # fmt: skip
                steps = PixelSteps(xw=g.in_w, yw=g.to_w, wt=lanes * size)
                full((strip, steps), low, high)
                c += lanes
            if rest and c < channels:
                strip = Rows(
                    x=x + c * item, channels=1, xc=0, depths=depths, xd=g.in_d,
                    h0=h, dh=g.unit, h_end=h_end, xh=g.in_h, col0=col0, dw=0, iw=0, columns=0,
                    w=weight + c * taps, wk=0, wc=0, wd=wd, out=y + c * out_item, yh=pitch, yc=0,
                    bias=bias + c * size, width=channels - c, rows=count,
                )  # fmt: skip
                steps = PixelSteps(xw=g.in_w, yw=g.to_w, wt=lanes * size)
                last((strip, steps), low, high)

    key = ("pixel_strip", *(size for name, size in shape._asdict().items() if name != "masked"))
    return int(jit.compile_callback(strip_loop, PART_SIGNATURE, (*key, rest)).address)


def _tile_loop(shape: tuple[int, ...]) -> int:
    """Return the address of the loop over tiles of one shape, for one vector of channels."""
    rh, nv, lanes, _, code = shape
    size = ITEMSIZE[code]
    tile = make_window(_PixelTile, shape)

    def tile_loop(geometry: int, start: int, x: int, weight: int, bias: int, out: int, h0: int,
                  h_end: int, rows: int, depths: int, channels: int) -> None:  # fmt: skip
        g = view(geometry)
        low, high = g.low, g.high
        if g.has_residual:
            low, high = -np.inf, np.inf
        col0, wd = start * g.sw - g.pw, g.kh * g.kw * lanes * size
        # The tap columns that meet the input from some pixel of the tile.
        tap0 = min(max(-((col0 + (nv - 1) * g.sw) // g.dw), 0), g.kw)
        tap_end = max(min((g.iw - 1 - col0) // g.dw + 1, g.kw), tap0)
        for residue in range(min(g.row_interleave, rows)):
            pitch = g.row_interleave * g.to_h
            for row in range(residue, rows, g.row_interleave * rh):
                rows_of_tile = Rows(
                    x=x, channels=1, xc=0, depths=depths, xd=g.in_d,
                    h0=h0 + row * g.sh, dh=g.unit, h_end=h_end, xh=g.in_h,
                    col0=col0, dw=g.dw, iw=0, columns=0, w=weight, wk=0, wc=0, wd=wd,
                    out=out + row * g.to_h + start * g.to_w, yh=pitch, yc=0,
                    bias=bias, width=channels,
                    rows=(rows - row + g.row_interleave - 1) // g.row_interleave,
                )  # fmt: skip
                taps = TapColumns(kh=g.kh, kw=g.kw, tap0=tap0, tap_end=tap_end)
                steps = PixelSteps(xw=g.in_w, yw=g.to_w, wt=lanes * size)
                tile((rows_of_tile, taps, steps), low, high)

    return int(jit.compile_callback(tile_loop, PART_SIGNATURE, ("pixel_tile", *shape)).address)


def pixel_table(
    problem: ConvProblem, device: DeviceInfo, blocking: PixelBlocking, storage: int, stored: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Compile the strips or tiles of a row; return the table of `call_parts`, and its fields.

    The codes are of what is read and stored, which tiles know as one.
    """
    lanes = device.lanes(8 if storage == F64 else 4)
    rest = problem.groups % lanes
    rest = max(4, 1 << (rest - 1).bit_length()) if rest else 0
    kh, kw = (1, *problem.kernel_size)[-2:]
    sw, dw, parts = problem.stride[-1], problem.dilation[-1], strips(problem, blocking.pixels)
    if blocking.rows:
        return parts_table(
            parts, parts.stretches(()),
            lambda _, pixels: _tile_loop((blocking.rows, pixels, lanes, sw, storage)), 1,
        )  # fmt: skip

    def function(begin: int, pixels: int) -> int:
        low, high = met_columns(problem, begin, pixels)
        shape = PixelStripShape(
            kh=kh, kw=kw, row_step=blocking.row_step, pixels=pixels, lanes=lanes, sw=sw, dw=dw,
            low=low, high=high, singleton_flags=singleton_flags(problem),
            in_registers=int(blocking.in_registers), masked=0, storage=storage, stored=stored,
        )  # fmt: skip
        return _strip_loop(shape, rest)

    return parts_table(parts, parts.stretches(side_places(problem, blocking.pixels)), function, 1)
