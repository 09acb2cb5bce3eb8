"""An array in a GPU's memory as checks and kernels see it, whichever library it belongs to.

A `DeviceArray` is an address, a shape, strides in bytes and an element type. Outputs and workspaces
come from the library that the input came from (see `array_libraries`), CuPy's memory pool for CuPy,
and everything runs on the stream that this library has in force.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .contract.settings import config
from .contract.spec import CudaInfo
from .cuda_device import EMULATED, check_stream, describe_device, use_device

__all__ = ["DeviceArray", "Library"]


class Library(Protocol):
    """What is needed of an array library, beside its arrays."""

    @property
    def name(self) -> str:
        """The library's name for people."""

    def view(self, argument: str, value: Any) -> DeviceArray:
        """Return what kernels see of an array."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        """Return an uninitialised array of this library in row-major order."""

    def from_host(self, values: NDArray[Any], device: int) -> Any:
        """Return an array of this library with the values of one in the host's memory."""

    def to_host(self, owner: Any) -> NDArray[Any]:
        """Return the values in the host's memory, once all work on them is done."""

    def copy(self, owner: Any) -> Any:
        """Return a row-major copy of an array."""

    def permute(self, owner: Any, axes: tuple[int, ...]) -> Any:
        """Return an array with its axes in another order."""

    def restride(self, memory: Any, offset: int, like: DeviceArray) -> Any:
        """Return bytes seen as an array like another, its first element at `offset`."""

    def fill(self, owner: Any, value: float) -> None:
        """Set every element."""

    def assign(self, target: Any, source: Any) -> None:
        """Write one array's elements into another of its shape."""

    def stream(self, device: int) -> int:
        """Return the handle of the stream in force on a device, 0 for the default one."""

    def synchronize(self, device: int) -> None:
        """Wait until all that was started on the device's stream is done."""

    def on_device(self, device: int) -> contextlib.AbstractContextManager[Any]:
        """Make a device the current one."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array in a GPU's memory.

    Parameters
    ----------
    owner : object
        The array of its own library; keeps the memory alive.
    pointer : int
        Address of the first element.
    shape, strides : tuple of int
        Sizes, and steps in bytes.
    dtype : dtype
        NumPy's name of the element type.
    device : int
        Number of the device.
    library : Library
        Where it came from and where others like it come from.
    writeable : bool
        Whether it may be written to.
    """

    owner: Any
    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    library: Library
    writeable: bool = True

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_emulated(self) -> bool:
        """Whether the memory is the host's, and stands for a GPU's."""
        return self.device == EMULATED

    @property
    def extent(self) -> tuple[int, int]:
        """First address of the memory that the elements lie in, and the first one behind it."""
        if self.size == 0:
            return self.pointer, self.pointer
        reaches = [(size - 1) * step for size, step in zip(self.shape, self.strides, strict=True)]
        low = self.pointer + sum(reach for reach in reaches if reach < 0)
        high = self.pointer + sum(reach for reach in reaches if reach > 0)
        return low, high + self.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": "<u2" if self.dtype.name == "bfloat16" else self.dtype.str,
            "data": (self.pointer, not self.writeable),
            "strides": self.strides,
            "version": 3,
        }

    def __getitem__(self, key: Any) -> DeviceArray:
        """Return a part of the array, or (None) the array with one more axis of size one."""
        return self.library.view("array", self.owner[key])

    def new(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Return an uninitialised row-major array beside this one."""
        made = self.library.empty(shape, dtype, self.device)
        if config.poison_workspace and dtype.kind not in "iub":
            self.library.fill(made, math.nan)
        return self.library.view("workspace", made)

    def from_host(self, values: NDArray[Any]) -> DeviceArray:
        """Return an array beside this one with values from the host's memory.

        It waits until they are there, so that calls on any stream may read them.
        """
        made = self.library.view("table", self.library.from_host(values, self.device))
        self.synchronize()
        return made

    def to_host(self) -> NDArray[Any]:
        """Return the values in the host's memory."""
        return self.library.to_host(self.owner)

    def permute(self, axes: tuple[int, ...]) -> DeviceArray:
        """Return the same memory with the axes in another order."""
        return self.library.view("array", self.library.permute(self.owner, axes))

    def new_output(self, shape: tuple[int, ...], layout: str) -> DeviceArray:
        """Return an uninitialised ``(N, C, *spatial)`` array in the memory order of `layout`."""
        if layout != "channels_last":
            return self.new(shape, self.dtype)
        ndim = len(shape)
        stored = self.new((shape[0], *shape[2:], shape[1]), self.dtype)
        return stored.permute((0, ndim - 1, *range(1, ndim - 1)))

    def twin(self) -> DeviceArray:
        """Return uninitialised memory of this array's shape, type and strides."""
        low, high = self.extent
        memory = self.library.empty((high - low,), np.dtype(np.uint8), self.device)
        made = self.library.restride(memory, self.pointer - low, self)
        return self.library.view("workspace", made)

    def assign(self, source: DeviceArray) -> None:
        """Write the elements of another array of this shape and library."""
        self.library.assign(self.owner, source.owner)

    def copy(self) -> DeviceArray:
        """Return a row-major copy."""
        return self.library.view("array", self.library.copy(self.owner))

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """Compute on this array's device, in its library and in the dispatcher's eyes."""
        with self.library.on_device(self.device), use_device(self.device):
            yield

    @property
    def info(self) -> CudaInfo:
        """What the array's device is."""
        return describe_device(self.device)

    def stream(self) -> int:
        """Return the handle of the stream that work on this array goes to, checked."""
        handle = self.library.stream(self.device)
        check_stream(handle, self.device)
        return handle

    def synchronize(self) -> None:
        """Wait for the work that was started on that stream."""
        self.library.synchronize(self.device)
