"""Points out of files: NumPy's, PLY, LAS, LAZ and the raw floats of data sets.

A file may say anything of itself. What its header says is therefore held against its size before
memory is taken or a loop begins, in Python's integers, and the tables that come out are at most
`EXPANSION` times as large as the file where it is compressed. Readers raise ValueError with what is
wrong; `scans` says in which file.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["EXPANSION", "READERS", "Table", "read_floats"]

Table = npt.NDArray[Any]
#: Most bytes that a byte of a compressed file may become. Scans come to 2 in .npz, to 15 in .laz.
EXPANSION = 32
_ALLOWANCE = 1 << 16  # bytes that a file may become whatever its size
_BATCH = 1 << 16  # points that are decompressed at once
#: Names that scanners and converters give to the strength of a return in a PLY file.
_INTENSITIES = ("intensity", "scalar_Intensity", "scalar_intensity", "reflectance", "reflectivity")


def _check_expansion(wanted: int, size: int) -> None:
    """Raise where `size` bytes of a file are said to hold far more than scans do."""
    if wanted > EXPANSION * size + _ALLOWANCE:
        raise ValueError(
            f"its {size} bytes are said to hold {wanted}, {wanted // max(size, 1)} times as many; "
            f"want at most {EXPANSION} times, far more than any scan takes"
        )


def _check_room(what: str, count: int, each: int, room: int) -> None:
    """Raise where a file has no room for what it says that it holds."""
    if count * each > room:
        raise ValueError(
            f"it says that it holds {count} {what} of {each} bytes and has room for "
            f"{room // max(each, 1)}: it is cut, or its header is wrong"
        )


# NumPy's files.


@dataclass(frozen=True, slots=True)
class _ArrayHeader:
    """What stands before an array in a .npy file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def is_cloud(self) -> bool:
        return len(self.shape) == 2 and self.shape[1] >= 3

    def __str__(self) -> str:
        kind = "Python objects" if self.dtype.hasobject else str(self.dtype)
        return f"{kind} of shape {self.shape}"


def _array_header(stream: IO[bytes]) -> _ArrayHeader:
    """Read a .npy header; what it says is checked, nothing of it is run."""
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError("it does not begin as a .npy file of version 1, 2 or 3")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > 10_000:
        raise ValueError(f"its .npy header is said to take {length} bytes, want at most 10000")
    text = stream.read(length).decode("latin-1")
    try:
        found = ast.literal_eval(text.strip())
        shape, order, descr = found["shape"], found["fortran_order"], found["descr"]
        if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
            raise ValueError
        # Fields of a structure are no numbers; what they are need not be known.
        plain = isinstance(descr, str) and re.fullmatch(r"[<>=|]?[?a-zA-Z]\d*(\[\w+\])?", descr)
        return _ArrayHeader(tuple(shape), np.dtype(descr if plain else "V"), bool(order))
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError):
        raise ValueError("its .npy header is damaged") from None


def _read_array(stream: IO[bytes], header: _ArrayHeader) -> Table:
    """Read the array behind a header whose size has been checked."""
    memory = bytearray(header.nbytes)
    view, at = memoryview(memory), 0
    while at < len(memory):
        part = stream.read(min(len(memory) - at, 1 << 20))
        if not part:
            raise ValueError(f"it ends after {at} of the array's {len(memory)} bytes")
        view[at : at + len(part)] = part
        at += len(part)
    rows, columns = header.shape
    flat = np.frombuffer(memory, header.dtype)
    return flat.reshape(columns, rows).T if header.fortran_order else flat.reshape(rows, columns)


def _columns(stream: IO[bytes], header: _ArrayHeader, name: str) -> Table:
    """Return the first four columns of an array of numbers."""
    if header.dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which could run code; want numbers")
    if not header.is_cloud() or header.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {header}; want numbers, (points, 3 or more)")
    return _read_array(stream, header)[:, :4]


def _read_npy(file: Path) -> Table:
    with file.open("rb") as stream:
        header = _array_header(stream)
        if not header.dtype.hasobject:
            room = file.stat().st_size - stream.tell()
            _check_room("numbers", math.prod(header.shape), header.dtype.itemsize, room)
        return _columns(stream, header, "the array")


def _read_npz(file: Path) -> Table:
    """Return the one array that looks like points; of the others only the headers are read."""
    with zipfile.ZipFile(file) as archive:
        headers = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is packed by another method than NumPy's")
            with archive.open(member) as stream:
                headers[name] = (member, _array_header(stream))
        clouds = [name for name, (_, header) in headers.items() if header.is_cloud()]
        if len(clouds) != 1:
            held = ", ".join(f"{name} {header.shape}" for name, (_, header) in headers.items())
            raise ValueError(
                f"it holds {_short(held) or 'no array'}; want one array of shape "
                "(points, 3 or more)"
            )
        member, header = headers[clouds[0]]
        _check_expansion(max(header.nbytes, member.file_size), file.stat().st_size)
        with archive.open(member) as stream:
            _array_header(stream)
            return _columns(stream, header, clouds[0])


def _short(text: str) -> str:
    return text if len(text) < 300 else f"{text[:300]} ..."


# Raw floats.


def read_floats(file: Path, columns: int) -> Table:
    """Return float32 numbers as rows of so many."""
    size = file.stat().st_size
    if size % (4 * columns):
        fitting = [str(each) for each in range(3, 9) if size % (4 * each) == 0]
        hint = f"; points of {' or '.join(fitting)} numbers would fit" if fitting else ""
        raise ValueError(
            f"it has {size} bytes; want a multiple of {4 * columns}, {columns} float32 a "
            f"point{hint}"
        )
    return np.fromfile(file, "<f4").reshape(-1, columns)


# PLY.

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"), **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"), **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"), **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"), **dict.fromkeys(("double", "float64"), "f8"),
}  # fmt: skip
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_PLY_HEADER = 1 << 20  # most bytes of a header


@dataclass(slots=True)
class _Element:
    """Rows of one kind in a PLY file; a property of no type is a list."""

    name: str
    count: int
    properties: dict[str, str] = field(default_factory=dict)

    def dtype(self, order: str) -> np.dtype[Any]:
        return np.dtype([(name, order + type_) for name, type_ in self.properties.items()])


def _read_ply(file: Path) -> Table:
    with file.open("rb") as stream:
        order, elements = _ply_header(stream)
        before = list(itertools.takewhile(lambda element: element.name != "vertex", elements))
        rest = elements[len(before) :]
        if not rest or not {"x", "y", "z"} <= rest[0].properties.keys():
            raise ValueError("it has no element vertex with x, y and z")
        for element in (*before, rest[0]):
            if "" in element.properties.values():
                raise ValueError(
                    f"element {element.name} has lists; want the vertices first, without lists"
                )
        vertex = rest[0]
        held = [name for name in _INTENSITIES if name in vertex.properties][:1]
        names = ["x", "y", "z", *held]
        room = file.stat().st_size - stream.tell()
        if order:
            return _ply_rows(stream, before, vertex, names, order, room)
        return _ply_lines(stream, before, vertex, names, room)


def _ply_header(stream: IO[bytes]) -> tuple[str, list[_Element]]:
    """Return the byte order (empty for text) and the elements."""
    order, elements = None, list[_Element]()
    for words in _ply_header_lines(stream):
        match words:
            case ["format", form, "1.0"] if form in _PLY_ORDERS:
                order = _PLY_ORDERS[form]
            case ["element", name, count] if re.fullmatch(r"\d{1,18}", count):
                elements.append(_Element(name, int(count)))
            case ["property", "list", *_, name] if elements:
                elements[-1].properties[name] = ""
            case ["property", type_, name] if (
                elements and type_ in _PLY_TYPES and name not in elements[-1].properties
            ):
                elements[-1].properties[name] = _PLY_TYPES[type_]
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise ValueError(f"its header has the line {_short(' '.join(words))!r}")
    if order is None:
        raise ValueError("its header has no format that is known")
    return order, elements


def _ply_header_lines(stream: IO[bytes]) -> Iterator[list[str]]:
    """Yield the words of every line between the first and the last of a header."""
    if stream.readline(16).strip() != b"ply":
        raise ValueError("it does not begin with the line ply")
    while stream.tell() < _PLY_HEADER:
        line = stream.readline(4096)
        if not line.endswith(b"\n"):
            break
        words = line.decode("latin-1").split()
        if words == ["end_header"]:
            return
        yield words
    raise ValueError("its header has no end")


def _ply_rows(
    stream: IO[bytes], before: list[_Element], vertex: _Element, names: list[str], order: str,
    room: int,
) -> Table:  # fmt: skip
    for element in before:
        size = element.dtype(order).itemsize
        _check_room(element.name, element.count, size, room)
        stream.seek(element.count * size, 1)
        room -= element.count * size
    dtype = vertex.dtype(order)
    _check_room("vertices", vertex.count, dtype.itemsize, room)
    rows = np.fromfile(stream, dtype, vertex.count)
    return np.column_stack([rows[name] for name in names])


def _ply_lines(
    stream: IO[bytes], before: list[_Element], vertex: _Element, names: list[str], room: int
) -> Table:
    """Rows as text: a line each, and each property at least a digit and a blank."""
    for element in (*before, vertex):
        _check_room(element.name, element.count, max(2 * len(element.properties), 1), room + 1)
    for _ in range(sum(element.count for element in before)):
        stream.readline()
    if vertex.count == 0:
        return np.zeros((0, len(names)))
    order = list(vertex.properties)
    lines = (line.decode("latin-1") for line in itertools.islice(stream, vertex.count))
    usecols = [order.index(name) for name in names]
    table = np.loadtxt(lines, np.float64, comments=None, usecols=usecols, ndmin=2)
    if len(table) != vertex.count:
        raise ValueError(f"it says that it holds {vertex.count} vertices and holds {len(table)}")
    return table


# LAS and LAZ.

#: Bytes of a header by minor version, and of a record by its format.
_LAS_HEADERS = (227, 227, 227, 235, 375)
_LAS_RECORDS = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
_LASZIP = 22204
_ANY_CHUNK = 2**32 - 1  # in place of a size where every chunk has its own


@dataclass(frozen=True, slots=True)
class _LasHeader:
    minor: int
    size: int
    data: int  # where the points begin
    variable: int  # variable length records between header and points
    compressed: bool
    record: int  # bytes of a point
    count: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]


def _las_header(stream: IO[bytes], size: int) -> _LasHeader:
    head = stream.read(375)
    if len(head) < 227 or head[:4] != b"LASF":
        raise ValueError("it does not begin as a LAS file does")
    major, minor = head[24:26]
    if major != 1 or minor >= len(_LAS_HEADERS):
        raise ValueError(f"it is LAS of version {major}.{minor}; want 1.0 to 1.4")
    length, data, variable = struct.unpack_from("<HII", head, 94)
    form, record, count = struct.unpack_from("<BHI", head, 104)
    if minor == 4 and len(head) >= 255:
        count = struct.unpack_from("<Q", head, 247)[0]
    if not _LAS_HEADERS[minor] <= length <= data <= size:
        raise ValueError(f"its header of {length} bytes, points at byte {data}, does not fit")
    if form & 63 >= len(_LAS_RECORDS) or record < _LAS_RECORDS[form & 63]:
        raise ValueError(f"its points are of format {form & 63} in {record} bytes")
    numbers = struct.unpack_from("<6d", head, 131)
    scale, offset = numbers[:3], numbers[3:]
    if not all(map(math.isfinite, numbers)) or min(scale) <= 0:
        raise ValueError(f"its scale is {scale}, its offset {offset}; want finite ones, scale > 0")
    compressed = bool(form & 0xC0)
    return _LasHeader(minor, length, data, variable, compressed, record, count, scale, offset)


def _read_las(file: Path) -> Table:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = _las_header(stream, size)
        if header.compressed:
            parts = list(_unzip(stream, header, size))
        else:
            _check_room("points", header.count, header.record, size - header.data)
            stream.seek(header.data)
            raw = np.fromfile(stream, np.uint8, header.count * header.record)
            parts = [_las_fields(raw, header.record)]
    names = ("x", "y", "z")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is left out afterwards
        axes = [
            np.concatenate([part[name] for part in parts]) * header.scale[axis]
            + header.offset[axis]
            for axis, name in enumerate(names)
        ]
    return np.column_stack([*axes, np.concatenate([part["intensity"] for part in parts])])


def _las_fields(raw: npt.NDArray[np.uint8], record: int) -> Table:
    """Return coordinates and intensity, which stand first in records of every format."""
    names, formats = ["x", "y", "z", "intensity"], ["<i4", "<i4", "<i4", "<u2"]
    places = {"names": names, "formats": formats, "offsets": [0, 4, 8, 12], "itemsize": record}
    fields: Table = raw.view(np.dtype(places))  # type: ignore[call-overload]
    out = np.empty(len(fields), list(zip(names, formats, strict=True)))
    for name in names:
        out[name] = fields[name]
    return out


def _unzip(stream: IO[bytes], header: _LasHeader, size: int) -> Iterator[Table]:
    """Yield the points of a LAZ file, some at a time."""
    if find_spec("lazrs") is None:
        raise ImportError("lazrs")
    import lazrs

    _check_expansion(header.count * header.record, size - header.data)
    settings = _laszip_settings(stream, header)
    _check_chunks(stream, header, size, int.from_bytes(settings[12:16], "little"))
    stream.seek(header.data)
    yield _las_fields(np.zeros(0, np.uint8), header.record)
    try:
        decompressor = lazrs.LasZipDecompressor(stream, settings)
        for begin in range(0, header.count, _BATCH):
            raw = np.zeros(min(_BATCH, header.count - begin) * header.record, np.uint8)
            decompressor.decompress_many(raw)
            yield _las_fields(raw, header.record)
    except BaseException as error:
        # A panic of its Rust code is no Exception; what a user or the system asks for passes.
        if type(error).__name__ not in ("LazrsError", "PanicException", "OSError", "ValueError"):
            raise
        raise ValueError(f"its points cannot be decompressed ({_short(str(error))})") from None


def _laszip_settings(stream: IO[bytes], header: _LasHeader) -> bytes:
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


def _check_chunks(stream: IO[bytes], header: _LasHeader, size: int, chunk: int) -> None:
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
    _check_room("chunks", chunks, 1, place - header.data)
    wanted = -(-header.count // chunk)
    if header.count and chunk != _ANY_CHUNK and chunks != wanted:
        raise ValueError(f"it has {chunks} chunks, and its {header.count} points make {wanted}")


#: Readers by suffix; those of ``.bin`` need to know the columns and are not here.
READERS: dict[str, Callable[[Path], Table]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
}
