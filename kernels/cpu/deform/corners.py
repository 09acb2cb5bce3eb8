"""Places of a deformable convolution: four corners each, worked out once for all channels.

For each tap and pixel a *place* is made of the offset: addresses of the four samples around it,
what each of them counts, and the mask. A corner outside the input is at the address of a row of
zeros, so that whoever adds corners up asks nothing. Places of a tap are arrays over pixels::

    four addresses, four numbers, the mask      each `pitch` long, one array behind the other

An offset is cut into a whole number and a fraction before the pixel's own position is added: the
fraction is exact however large a map is.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.intrinsics import load_gather, load_masked, range_mask, splat, store
from ..simd.ir import (
    F64,
    I8,
    I64,
    ITEMSIZE,
    VectorType,
    broadcast,
    call,
    compute_code,
    constant,
    literal,
    mangle,
    pointer,
    store_vector,
)

__all__ = ["ADDRESS_BYTES", "PLACE_FIELDS", "make_place_block", "place_bytes"]

#: Arrays of addresses and of numbers in a tap's places, the mask among these, and bytes of an
#: address.
_ADDRESSES, _NUMBERS, _WORD = 4, 5, 8
#: Bytes of the addresses of one place: the arrays of numbers begin behind those of all.
ADDRESS_BYTES = _ADDRESSES * _WORD
#: An offset from here on leads out of any array.
_FAR = 2.0**50

#: Fields of a geometry that tell where offsets and masks lie, and what is sampled.
PLACE_FIELDS = (
    "offset_groups",
    "offset_channels",  # input channels of one offset group
    "fn",  # byte strides of offsets
    "fc",
    "fh",
    "fw",
    "has_mask",
    "mn",  # byte strides of masks
    "mc",
    "mh",
    "mw",
    "sampled_h",  # bytes between rows and columns of what is sampled
    "sampled_w",
    "place_pitch",  # places of a tap that there is room for
    "place_bytes",  # bytes of them
)


def place_bytes(pitch: int, size: int) -> int:
    """Return the bytes of a tap's places, `pitch` of them, with numbers of `size` bytes."""
    return pitch * (ADDRESS_BYTES + _NUMBERS * size)


class _Where(NamedTuple):
    """Of a vector of places, what is the same for all lanes.

    Parameters
    ----------
    y, x, x_step : intp
        Where the first lane's tap is without an offset, and from one lane to the next.
    height, width : intp
        Of the input.
    samples, row, column : intp
        Address of the input's first sample, and bytes between rows and columns.
    zeros : intp
        Address of what stands for a corner outside.
    addresses, numbers, pitch : intp
        Where the first lane's address and number are written, and places from one array to the
        next.
    """

    y: Any
    x: Any
    x_step: Any
    height: Any
    width: Any
    samples: Any
    row: Any
    column: Any
    zeros: Any
    addresses: Any
    numbers: Any
    pitch: Any


def _split(builder: Any, offset: Any, first: Any, step: Any) -> tuple[Any, Any, Any]:
    """Return whole positions not above ``first + lane * step + offset``, the rest, what is near."""
    kind, lanes = offset.type, offset.type.count
    words, zero = ir.VectorType(I64, lanes), constant(offset.type, 0.0)
    below = call(builder, f"llvm.floor.{mangle(kind)}", kind, offset)
    size = call(builder, f"llvm.fabs.{mangle(kind)}", kind, below)
    near = builder.fcmp_ordered("<", size, constant(kind, _FAR))  # no NaN is
    rest = builder.select(near, builder.fsub(offset, below), zero)
    whole = builder.fptosi(builder.select(near, below, zero), words)
    index = ir.Constant(words, [I64(lane) for lane in range(lanes)])
    start = builder.mul(index, broadcast(builder, step, lanes))
    start = builder.add(start, broadcast(builder, first, lanes))
    return builder.add(whole, start), rest, near


def _inside(builder: Any, low: Any, rest: Any, near: Any, size: Any, slopes: bool) -> list[Any]:
    """Return flags for which of two neighbouring positions are those of an axis.

    What is exactly one before an axis reads nothing of it, but has a slope.
    """
    high = builder.add(low, constant(low.type, 1))
    ends = broadcast(builder, size, low.type.count)
    flags = [builder.and_(near, builder.icmp_unsigned("<", each, ends)) for each in (low, high)]
    if not slopes:
        is_before = builder.icmp_signed("==", high, constant(high.type, 0))
        is_whole = builder.fcmp_ordered("==", rest, constant(rest.type, 0.0))
        flags[1] = builder.and_(flags[1], builder.not_(builder.and_(is_before, is_whole)))
    return flags


def _write_addresses(
    builder: Any, where: _Where, low: Any, left: Any, rows: list[Any], columns: list[Any]
) -> None:
    """Emit the stores of four corners' addresses."""
    lanes = low.type.count
    first = builder.add(
        builder.mul(low, broadcast(builder, where.row, lanes)),
        builder.mul(left, broadcast(builder, where.column, lanes)),
    )
    first = builder.add(first, broadcast(builder, where.samples, lanes))
    zeros, base = broadcast(builder, where.zeros, lanes), pointer(builder, where.addresses, I8)
    both = builder.add(where.row, where.column)
    for number, step in enumerate((I64(0), where.column, where.row, both)):
        inside = builder.and_(rows[number // 2], columns[number % 2])
        address = builder.add(first, broadcast(builder, step, lanes))
        address = builder.select(inside, address, zeros)
        at = builder.gep(base, [builder.mul(where.pitch, I64(number * _WORD))])
        builder.store(address, builder.bitcast(at, address.type.as_pointer()), align=_WORD)


@intrinsic(prefer_literal=True)
def _write_places(typingctx: Any, dy: Any, dx: Any, where: Any, slopes: Any) -> Any:
    """Write a vector of places from its offsets.

    The four numbers are weights of the corners, or where `slopes` is 1 the distances to them: from
    above, from the left, from below, from the right.
    """
    with_slopes = literal(slopes)
    if with_slopes is None or not isinstance(dy, VectorType):
        return None
    code = F64 if dy.element is types.float64 else 0

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _Where(*cgutils.unpack_tuple(builder, args[2]))
        low, down, near_y = _split(builder, args[0], where.y, I64(0))
        left, right, near_x = _split(builder, args[1], where.x, where.x_step)
        near, slopes = builder.and_(near_y, near_x), bool(with_slopes)
        rows = _inside(builder, low, down, near, where.height, slopes)
        columns = _inside(builder, left, right, near, where.width, slopes)
        _write_addresses(builder, where, low, left, rows, columns)
        one = constant(down.type, 1.0)
        up, back = builder.fsub(one, down), builder.fsub(one, right)
        numbers = [down, right, up, back]
        if not slopes:
            pairs = ((up, back), (up, right), (down, back), (down, right))
            numbers = [builder.fmul(*pair) for pair in pairs]
        base = pointer(builder, where.numbers, I8)
        for number, value in enumerate(numbers):
            at = builder.gep(base, [builder.mul(where.pitch, I64(number * ITEMSIZE[code]))])
            store_vector(builder, at, value, code)
        return context.get_dummy_value()

    return types.void(dy, dx, where, slopes), codegen


@functools.cache
def _make_read(lanes: int, storage: int) -> Any:
    """Return a function that reads neighbours of a row, which lie at any step."""
    item = ITEMSIZE[storage]

    @numba.njit(forceinline=True)
    def read(address: int, step: int, count: int) -> Any:
        mask = range_mask(0, count)
        if step == item:
            return load_masked(address, mask, storage, lanes)
        return load_gather(address, step, mask, storage, lanes)

    return read


@functools.cache
def make_place_block(lanes: int, storage: int, slopes: int = 0) -> Any:
    """Return a function that writes the places of a block of pixels, for some offset groups.

    Whole vectors are stored, so arrays of places need one vector of room behind them.
    """
    compute = compute_code(storage)
    size, word, addresses = ITEMSIZE[compute], _WORD, ADDRESS_BYTES
    as_compute = np.float64 if compute == F64 else np.float32
    read = _make_read(lanes, storage)

    @numba.njit
    def place_row(
        g: Any, offset: int, mask: int, tap: int, row: int, column: int, length: int, samples: int,
        zeros: int, target: int, first: int,
    ) -> None:  # fmt: skip
        """Write the places of a tap for pixels of one output row; `tap` counts over groups."""
        within, pitch = tap % (g.kh * g.kw), g.place_pitch
        y = row * g.sh - g.ph + within // g.kw * g.dh
        x = column * g.sw - g.pw + within % g.kw * g.dw
        offset += 2 * tap * g.fc + row * g.fh + column * g.fw
        mask += tap * g.mc + row * g.mh + column * g.mw
        for start in range(0, length, lanes):
            count = min(lanes, length - start)
            numbers = target + addresses * pitch + (first + start) * size
            where = _Where(
                y, x + start * g.sw, g.sw, g.ih, g.iw, samples, g.sampled_h, g.sampled_w, zeros,
                target + word * (first + start), numbers, pitch,
            )  # fmt: skip
            at = offset + start * g.fw
            _write_places(read(at, g.fw, count), read(at + g.fc, g.fw, count), where, slopes)
            numbers += 4 * size * pitch
            if g.has_mask:
                store(numbers, read(mask + start * g.mw, g.mw, count), compute)
            else:
                store(numbers, splat(as_compute(1.0), lanes), compute)

    @numba.njit
    def place_block(
        g: Any, offset: int, mask: int, group: int, groups: int, first: int, pixels: int,
        samples: int, zeros: int, places: int,
    ) -> None:  # fmt: skip
        """Write the places of `groups` offset groups from `group` on, a tap's behind another's."""
        taps = g.kh * g.kw
        for tap in range(groups * taps):
            pixel = 0
            while pixel < pixels:
                row = (first + pixel) // g.ow
                column = first + pixel - row * g.ow
                length = min(g.ow - column, pixels - pixel)
                place_row(
                    g, offset, mask, group * taps + tap, row, column, length, samples, zeros,
                    places + tap * g.place_bytes, pixel,
                )  # fmt: skip
                pixel += length

    return place_block
