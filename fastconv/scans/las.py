"""Points out of LAS files of every version, and compressed ones (LAZ) through lazrs."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from .checks import Table, check_expansion, check_room, shortened

__all__ = ["read_las"]

_BATCH = 1 << 16  # points that are decompressed at once
#: Bytes of a header by minor version, and of a record by its format.
_HEADERS = (227, 227, 227, 235, 375)
_RECORDS = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
_LASZIP = 22204
_ANY_CHUNK = 2**32 - 1  # in place of a size where every chunk has its own


@dataclass(frozen=True, slots=True)
class _Header:
    minor: int
    size: int
    data: int  # where the points begin
    variable: int  # variable length records between header and points
    compressed: bool
    record: int  # bytes of a point
    count: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]


def _header(stream: IO[bytes], size: int) -> _Header:
    head = stream.read(375)
    if len(head) < 227 or head[:4] != b"LASF":
        raise ValueError("it does not begin as a LAS file does")
    major, minor = head[24:26]
    if major != 1 or minor >= len(_HEADERS):
        raise ValueError(f"it is LAS of version {major}.{minor}; want 1.0 to 1.4")
    length, data, variable = struct.unpack_from("<HII", head, 94)
    form, record, count = struct.unpack_from("<BHI", head, 104)
    if minor == 4 and len(head) >= 255:
        count = struct.unpack_from("<Q", head, 247)[0]
    if not _HEADERS[minor] <= length <= data <= size:
        raise ValueError(f"its header of {length} bytes, points at byte {data}, does not fit")
    if form & 63 >= len(_RECORDS) or record < _RECORDS[form & 63]:
        raise ValueError(f"its points are of format {form & 63} in {record} bytes")
    numbers = struct.unpack_from("<6d", head, 131)
    scale, offset = numbers[:3], numbers[3:]
    if not all(map(math.isfinite, numbers)) or min(scale) <= 0:
        raise ValueError(f"its scale is {scale}, its offset {offset}; want finite ones, scale > 0")
    compressed = bool(form & 0xC0)
    return _Header(minor, length, data, variable, compressed, record, count, scale, offset)


def read_las(file: Path) -> Table:
    """Return the points of a LAS or LAZ file with their intensity."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = _header(stream, size)
        if header.compressed:
            parts = list(_unzip(stream, header, size))
        else:
            check_room("points", header.count, header.record, size - header.data)
            stream.seek(header.data)
            raw = np.fromfile(stream, np.uint8, header.count * header.record)
            parts = [_fields(raw, header.record)]
    names = ("x", "y", "z")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is left out afterwards
        axes = [
            np.concatenate([part[name] for part in parts]) * header.scale[axis]
            + header.offset[axis]
            for axis, name in enumerate(names)
        ]
    return np.column_stack([*axes, np.concatenate([part["intensity"] for part in parts])])


def _fields(raw: npt.NDArray[np.uint8], record: int) -> Table:
    """Return coordinates and intensity, which stand first in records of every format."""
    names, formats = ["x", "y", "z", "intensity"], ["<i4", "<i4", "<i4", "<u2"]
    places = {"names": names, "formats": formats, "offsets": [0, 4, 8, 12], "itemsize": record}
    fields: Table = raw.view(np.dtype(places))  # type: ignore[call-overload]
    out = np.empty(len(fields), list(zip(names, formats, strict=True)))
    for name in names:
        out[name] = fields[name]
    return out


def _unzip(stream: IO[bytes], header: _Header, size: int) -> Iterator[Table]:
    """Yield the points of a LAZ file, some at a time."""
    if find_spec("lazrs") is None:
        raise ImportError("lazrs")
    import lazrs

    check_expansion(header.count * header.record, size - header.data)
    settings = _laszip_settings(stream, header)
    _check_chunks(stream, header, size, int.from_bytes(settings[12:16], "little"))
    stream.seek(header.data)
    yield _fields(np.zeros(0, np.uint8), header.record)
    try:
        decompressor = lazrs.LasZipDecompressor(stream, settings)
        for begin in range(0, header.count, _BATCH):
            raw = np.zeros(min(_BATCH, header.count - begin) * header.record, np.uint8)
            decompressor.decompress_many(raw)
            yield _fields(raw, header.record)
    except BaseException as error:
        # A panic of its Rust code is no Exception; what a user or the system asks for passes.
        if type(error).__name__ not in ("LazrsError", "PanicException", "OSError", "ValueError"):
            raise
        raise ValueError(f"its points cannot be decompressed ({shortened(str(error))})") from None


def _laszip_settings(stream: IO[bytes], header: _Header) -> bytes:
    """Return LASzip's own record, if it speaks of the header's points."""
    stream.seek(header.size)
    for _ in range(header.variable):
        head = stream.read(54)
        if len(head) < 54 or stream.tell() > header.data:
            break
        number, length = struct.unpack_from("<HH", head, 18)
        payload = stream.read(length)
        if number != _LASZIP or not head[2:18].startswith(b"laszip encoded"):
            continue
        if len(payload) < 34 or len(payload) != 34 + 6 * int.from_bytes(payload[32:34], "little"):
            break
        sizes = [struct.unpack_from("<H", payload, at + 2)[0] for at in range(34, length, 6)]
        chunk = int.from_bytes(payload[12:16], "little")
        if sum(sizes) == header.record and chunk:
            return payload
    raise ValueError("it is compressed and has no record of LASzip that fits its points")


def _check_chunks(stream: IO[bytes], header: _Header, size: int, chunk: int) -> None:
    """Raise where the list of chunks lies outside, or does not fit chunks of so many points."""
    stream.seek(header.data)
    place = int.from_bytes(stream.read(8), "little", signed=True)
    if place == -1 and size >= 8:  # written by who could not go back: it stands at the end
        stream.seek(size - 8)
        place = int.from_bytes(stream.read(8), "little", signed=True)
    if not header.data + 8 <= place <= size - 8:
        raise ValueError(f"its list of chunks lies at byte {place} of {size}: it is cut")
    stream.seek(place + 4)
    chunks = int.from_bytes(stream.read(4), "little")
    check_room("chunks", chunks, 1, place - header.data)
    wanted = -(-header.count // chunk)
    if header.count and chunk != _ANY_CHUNK and chunks != wanted:
        raise ValueError(f"it has {chunks} chunks, and its {header.count} points make {wanted}")
