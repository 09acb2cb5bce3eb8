"""A launch's arguments as the kernel's parameters, and its arrays in a guarded arena.

With checks on the arrays are copied into one block of memory, each at a multiple of 512 bytes as a
GPU's allocator would put it (a view: at the same distance from where its owner begins) and with a
gap to the next that belongs to nobody. Arrays that share memory go on doing so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Arguments", "ArrayArgument"]

ALIGNMENT = 512
GAP = 4096
_SLOT = 16


@dataclass
class ArrayArgument:
    """An array of the launch and where the kernel finds it."""

    name: str
    array: np.ndarray
    address: int
    begin: int  # of the bytes it may touch
    end: int

    def describe(self, address: int) -> str:
        """Name and index of the element at `address`, which may lie outside."""
        item = self.array.itemsize
        offset = address - self.address
        if not self.begin <= address < self.end:
            place = f"{self.name}[{offset // item}] (counted from the first element"
            return f"{place}; shape {self.array.shape})"
        order = sorted(range(self.array.ndim), key=lambda axis: -self.array.strides[axis])
        index = dict.fromkeys(range(self.array.ndim), 0)
        for axis in order:
            stride = self.array.strides[axis]
            if stride > 0:
                index[axis] = min(offset // stride, self.array.shape[axis] - 1)
                offset -= index[axis] * stride
        places = [str(index[axis]) for axis in range(self.array.ndim)]
        return f"{self.name}[{', '.join(places)}]"


class Arguments:
    """What a kernel is given.

    Parameters
    ----------
    names : list of str
        The parameters' names.
    values : tuple
        Their values.
    types : tuple of Numba types
        Their types.
    guarded : bool
        Whether arrays are copied into an arena of their own.
    """

    def __init__(
        self, names: list[str], values: tuple[Any, ...], types: tuple[Any, ...], *, guarded: bool
    ) -> None:
        self.arrays: list[ArrayArgument] = []
        self._slots: list[bytes] = []
        self._keep: list[Any] = []
        self._arena: np.ndarray | None = None
        self._moves: list[tuple[int, int, int]] = []
        self._views: list[np.ndarray] = []
        if guarded:
            self._place(values)
        for name, value, type_ in zip(names, values, types, strict=True):
            self._append(name, value, type_)
        data = b"".join(slot.ljust(_SLOT, b"\0") for slot in self._slots)
        self.buffer = np.frombuffer(data or bytes(_SLOT), np.uint8).copy()

    def _place(self, values: tuple[Any, ...]) -> None:
        """Copy every array's bytes into the arena."""
        arrays = [value for value in _flat(values) if isinstance(value, np.ndarray) and value.size]
        groups: list[list[int]] = []
        for low, high in sorted(_bounds(array) for array in arrays):
            if groups and low < groups[-1][1]:
                groups[-1][1] = max(groups[-1][1], high)
            else:
                groups.append([low, high])
        starts = {}
        at = GAP
        for low, high in groups:
            at += (_phase(low, arrays) - at) % ALIGNMENT
            starts[low] = at
            at += high - low + GAP
        memory = np.full(at + ALIGNMENT, 0xCB, np.uint8)
        shift = -memory.ctypes.data % ALIGNMENT
        self._arena = memory[shift : shift + at]
        self._moves = [(low, high, starts[low]) for low, high in groups]
        for array in arrays:
            self._view(array)[...] = array

    def _view(self, array: np.ndarray) -> np.ndarray:
        """The copy of `array` in the arena."""
        assert self._arena is not None
        low = _bounds(array)[0] if array.size else 0
        for begin, end, start in self._moves if array.size else ():
            if begin <= low < end:
                offset = start + array.ctypes.data - begin
                return np.ndarray(array.shape, array.dtype, self._arena, offset, array.strides)
        return np.ndarray(array.shape, array.dtype, self._arena, 0)

    def _append(self, name: str, value: Any, type_: Any) -> None:
        from numba.cuda import types

        if isinstance(type_, types.Array):
            self._append_array(name, value)
        elif isinstance(type_, types.BaseTuple):
            for i, (item, inner) in enumerate(zip(value, type_, strict=True)):
                self._append(f"{name}[{i}]", item, inner)
        elif isinstance(type_, types.Record):
            record = np.array(value)
            self._keep.append(record)
            self._slots.append(_bytes(record.ctypes.data))
        elif isinstance(type_, types.Complex):
            part = np.dtype(f"f{type_.bitwidth // 16}").type
            self._slots += [part(value.real).tobytes(), part(value.imag).tobytes()]
        elif isinstance(type_, types.Boolean):
            self._slots.append(bytes([bool(value)]))
        elif isinstance(type_, (types.Integer, types.Float)):
            self._slots.append(np.dtype(str(type_)).type(value).tobytes())
        else:
            raise TypeError(f"argument {name!r}: the emulator takes no {type_}")

    def _append_array(self, name: str, array: np.ndarray) -> None:
        used = array if self._arena is None else self._view(array)
        self._views.append(used)
        address = used.ctypes.data
        begin, end = _bounds(used) if used.size else (address, address)
        self.arrays.append(ArrayArgument(name, array, address, begin, end))
        words = (0, 0, used.size, used.itemsize, address, *used.shape, *array.strides)
        self._slots += [_bytes(word) for word in words]

    def save(self) -> np.ndarray:
        """Return all bytes of the arena."""
        assert self._arena is not None
        return self._arena.copy()

    def restore(self, bytes_: np.ndarray) -> None:
        """Set all bytes of the arena."""
        assert self._arena is not None
        self._arena[...] = bytes_

    def view(self, argument: ArrayArgument, bytes_: np.ndarray) -> np.ndarray:
        """The array as it is in saved bytes."""
        assert self._arena is not None
        offset = argument.address - self._arena.ctypes.data
        array = argument.array
        return np.ndarray(array.shape, array.dtype, bytes_, offset, array.strides)

    def copy_back(self) -> None:
        """Write the arena's arrays to those of the caller."""
        for argument, used in zip(self.arrays, self._views, strict=True):
            if self._arena is not None and argument.array.size and argument.array.flags.writeable:
                argument.array[...] = used


def _bounds(array: np.ndarray) -> tuple[int, int]:
    """First byte that an array may touch, and the end."""
    low = high = array.ctypes.data
    for size, stride in zip(array.shape, array.strides, strict=True):
        low += min(0, (size - 1) * stride)
        high += max(0, (size - 1) * stride)
    return low, high + array.itemsize


def _flat(values: Any) -> list[Any]:
    """Values with tuples opened."""
    out: list[Any] = []
    for value in values:
        out += _flat(value) if isinstance(value, tuple) else [value]
    return out


def _phase(low: int, arrays: list[np.ndarray]) -> int:
    """Where in a 512-byte line a group begins: at the distance from the beginning of its owner."""
    for array in arrays:
        if _bounds(array)[0] == low:
            owner = array
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            return low - _bounds(owner)[0]
    return 0


def _bytes(word: int) -> bytes:
    return int(word).to_bytes(8, "little", signed=True)
