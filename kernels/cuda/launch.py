"""The one door to a launch: NumPy arrays run in the emulator, arrays of a device on that device.

A kernel sees every array as a flat run of elements from the lowest address that it spans; where its
first element lies and how far apart others are is told by scalars (see `geometry`). Halves are seen
as uint16.

An array of a device is anything with ``__cuda_array_interface__`` (CuPy, PyTorch, Numba).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.config import config

from .geometry import span, start_offset

__all__ = ["Kernel", "empty", "flat", "launch", "upload"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's function and what it is compiled for.

    Parameters
    ----------
    name : str
        For logs, errors and the audit.
    function : callable
        The kernel as a plain Python function; its decoration waits for a launch, since it needs a
        driver.
    arguments : tuple of Numba types
        Its signature.
    threads, blocks : int
        Threads of a block, and blocks that must fit a multiprocessor at once: a bound on registers.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    threads: int
    blocks: int

    @property
    def launch_bounds(self) -> tuple[int, int]:
        """What Numba and ptxas are told of the threads and blocks."""
        return self.threads, self.blocks


@dataclass(frozen=True, slots=True)
class _DeviceRun:
    """Some elements of a device array, as the interface that Numba reads."""

    __cuda_array_interface__: dict[str, Any]


def flat(array: Any) -> Any:
    """Return the elements that an array spans as one contiguous run.

    Examples
    --------
    >>> flat(np.arange(6, dtype=np.float32).reshape(2, 3)[::-1, ::2]).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    if isinstance(array, np.ndarray):
        turned = array[tuple(slice(None, None, -1 if s < 0 else 1) for s in array.strides)]
        count = span(array.shape, array.strides) // array.itemsize + (array.itemsize > 1)
        run = np.lib.stride_tricks.as_strided(turned, (count,), (array.itemsize,))
        return run.view(np.uint16) if array.itemsize == 2 else run
    described = dict(array.__cuda_array_interface__)
    shape, kind = described["shape"], np.dtype(described["typestr"])
    strides = described.get("strides") or _contiguous(shape, kind.itemsize)
    address, read_only = described["data"]
    described["data"] = address - start_offset(shape, strides), read_only
    described["shape"] = (span(shape, strides) // kind.itemsize + 1,)
    described["strides"] = None
    described["typestr"] = "<u2" if kind.itemsize == 2 else kind.str
    return _DeviceRun(described)


def _contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def empty(like: Any, count: int, dtype: Any) -> Any:
    """Return `count` uninitialised elements where `like` lives (NaN where workspaces are poisoned).

    Parameters
    ----------
    like : array
        A NumPy array, or one of a device.
    count : int
        Number of elements.
    dtype : dtype
        Of the elements.
    """
    if isinstance(like, np.ndarray):
        memory = np.empty(count, dtype)
        if config.poison_workspace:
            memory.fill(np.nan)
        return memory
    from numba import cuda

    return cuda.device_array(count, dtype)


def upload(like: Any, table: NDArray[np.uint32]) -> Any:
    """Return a table where `like` lives."""
    if isinstance(like, np.ndarray):
        return table
    from numba import cuda

    return cuda.to_device(table)


@functools.cache
def _dispatcher(kernel: Kernel) -> Any:
    from numba import cuda

    return cuda.jit(kernel.function, launch_bounds=kernel.launch_bounds)


@functools.cache
def _emulated(kernel: Kernel) -> Any:
    from .emulator import EmulatedKernel

    return EmulatedKernel(kernel.function)


def launch(kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
    """Run a kernel over a grid of blocks, on Numba's default stream.

    Parameters
    ----------
    kernel : Kernel
        What runs.
    grid : tuple of int
        Blocks along x, y and z.
    arguments : tuple
        Flat arrays, all of NumPy or all of one device, and scalars.
    """
    block = (kernel.threads, 1, 1)
    if isinstance(arguments[0], np.ndarray):
        _emulated(kernel).launch(grid, block, arguments)
    else:
        _dispatcher(kernel)[grid, block](*arguments)
