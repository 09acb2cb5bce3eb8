"""Points out of NumPy's files, and out of raw floats as data sets have them."""

from __future__ import annotations

import ast
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from .checks import Table, check_expansion, check_room, shortened

__all__ = ["read_floats", "read_npy", "read_npz"]


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
        header = ast.literal_eval(text.strip())
        shape, order, descr = header["shape"], header["fortran_order"], header["descr"]
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


def read_npy(file: Path) -> Table:
    """Return the one array of a .npy file."""
    with file.open("rb") as stream:
        header = _array_header(stream)
        if not header.dtype.hasobject:
            room = file.stat().st_size - stream.tell()
            check_room("numbers", math.prod(header.shape), header.dtype.itemsize, room)
        return _columns(stream, header, "the array")


def read_npz(file: Path) -> Table:
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
                f"it holds {shortened(held) or 'no array'}; want one array of shape "
                "(points, 3 or more)"
            )
        member, header = headers[clouds[0]]
        check_expansion(max(header.nbytes, member.file_size), file.stat().st_size)
        with archive.open(member) as stream:
            _array_header(stream)
            return _columns(stream, header, clouds[0])


def read_floats(file: Path, columns: int) -> Table:
    """Return float32 numbers as rows of so many."""
    size = file.stat().st_size
    if size % (4 * columns):
        fitting = [str(count) for count in range(3, 9) if size % (4 * count) == 0]
        hint = f"; points of {' or '.join(fitting)} numbers would fit" if fitting else ""
        raise ValueError(
            f"it has {size} bytes; want a multiple of {4 * columns}, {columns} float32 a "
            f"point{hint}"
        )
    return np.fromfile(file, "<f4").reshape(-1, columns)
