"""The one door to a launch: NumPy arrays run in the emulator, arrays of a device on that device.

A kernel sees every array as a flat run of elements from the lowest address that it spans; where its
first element lies and how far apart others are is told by scalars (see `params`). Halves are seen
as uint16.

An array of a device has a pointer, shape, strides in bytes and dtype, says the stream to launch on
and what its device is, and makes workspaces where it lives (`fastconv.device_arrays`). What the
device cannot take is an error before anything is launched.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract import first_use
from fastconv.contract.errors import DeviceError
from fastconv.contract.settings import config

from .params import MOST_BLOCKS, span, start_offset

__all__ = [
    "Kernel",
    "empty",
    "emulated",
    "emulation",
    "flat",
    "is_aligned",
    "launch",
    "read_back",
    "recorded_launches",
    "upload",
]

if TYPE_CHECKING:
    from ..emulator import Report

#: How launches in the emulator are run, and where their reports go.
_emulation: ContextVar[tuple[dict[str, Any], list[Report]] | None] = ContextVar(
    "fastconv_emulation", default=None
)
#: What the hardware takes along the axes of a grid.
_MOST_BLOCKS = (2**31 - 1, MOST_BLOCKS, MOST_BLOCKS)


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
    shared : int
        Bytes of shared memory that a block takes.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    threads: int
    blocks: int
    shared: int = 0

    @property
    def launch_bounds(self) -> tuple[int, int]:
        """What Numba and ptxas are told of the threads and blocks."""
        return self.threads, self.blocks


@dataclass(frozen=True, slots=True)
class _DeviceSpan:
    """Some elements of a device's memory, as the interface that Numba reads."""

    __cuda_array_interface__: dict[str, Any]
    owner: Any  # an address keeps nothing alive


def _is_host(array: Any) -> bool:
    """Tell whether an array lies in memory that the emulator reads."""
    return isinstance(array, np.ndarray) or array.is_emulated


def flat(array: Any) -> Any:
    """Return the elements that an array spans as one contiguous piece.

    Examples
    --------
    >>> flat(np.arange(6, dtype=np.float32).reshape(2, 3)[::-1, ::2]).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    pointer = array.ctypes.data if isinstance(array, np.ndarray) else array.pointer
    kind = np.dtype(np.uint16) if array.dtype.itemsize == 2 else np.dtype(array.dtype)
    if 0 in array.shape:
        return np.empty(0, kind) if _is_host(array) else _device_span(array, 0, pointer, kind)
    start = pointer - start_offset(array.shape, array.strides)
    count = (span(array.shape, array.strides) - 1) // kind.itemsize + 1
    if _is_host(array):
        # By its address, so that a read-only array has the type of others: nothing is written.
        memory: Any = (ctypes.c_uint8 * (count * kind.itemsize)).from_address(start)
        memory.owner = array  # an address keeps nothing alive
        return np.frombuffer(memory, kind)
    return _device_span(array, count, start, kind)


def _device_span(owner: Any, count: int, start: int, kind: np.dtype[Any]) -> _DeviceSpan:
    """Return elements of a device's memory by their address."""
    interface = {"shape": (count,), "typestr": kind.str, "data": (start, False), "version": 3}
    return _DeviceSpan(interface, owner)


def is_aligned(elements: Any, size: int) -> bool:
    """Tell whether flat elements begin at a multiple of `size` bytes, as wide loads want it."""
    host = isinstance(elements, np.ndarray)
    address = elements.ctypes.data if host else elements.__cuda_array_interface__["data"][0]
    return bool(address % size == 0)


def empty(like: Any, shape: int | tuple[int, ...], dtype: Any) -> Any:
    """Return uninitialised elements where `like` lives (NaN where workspaces are poisoned).

    Parameters
    ----------
    like : array
        A NumPy array, or one of a device.
    shape : int or tuple of int
        Number of elements, or sizes of the axes.
    dtype : dtype
        Of the elements.
    """
    kind = np.dtype(dtype)
    if not isinstance(like, np.ndarray):
        return like.new((shape,) if isinstance(shape, int) else shape, kind)
    memory = np.empty(shape, kind)
    if config.poison_workspace and kind.kind not in "iub":
        memory.fill(np.nan)
    return memory


def read_back(array: Any) -> NDArray[Any]:
    """Return an array's elements in the host's memory; a device is waited for."""
    host: NDArray[Any] = array if isinstance(array, np.ndarray) else array.to_host()
    return host


def upload(like: Any, table: NDArray[np.uint32]) -> Any:
    """Return a table where `like` lives, as kernels read it."""
    return flat(table if isinstance(like, np.ndarray) else like.from_host(table))


@functools.cache
def _dispatcher(kernel: Kernel) -> Any:
    from numba import cuda

    return cuda.jit(kernel.function, launch_bounds=kernel.launch_bounds)


def _stream(handle: int) -> Any:
    """Return a stream's handle as a launch takes it: Numba refuses numbers other than zero."""
    if handle == 0:
        return 0
    from numba import cuda

    return cuda.external_stream(handle)


@functools.cache
def emulated(kernel: Kernel) -> Any:
    """Return the kernel for the emulator; one that was compiled once is kept."""
    emulator = first_use.load("fastconv.kernels.cuda.emulator")
    return emulator.EmulatedKernel(kernel.function)


@contextlib.contextmanager
def emulation(**how: Any) -> Iterator[list[Report]]:
    """Say how the emulator runs what is launched inside; the list gets a report of each launch.

    Parameters
    ----------
    **how
        Arguments of `EmulatedKernel.launch`: `order`, `checks`, `threads`. A fault is raised.
    """
    reports: list[Report] = []
    token = _emulation.set((how, reports))
    try:
        yield reports
    finally:
        _emulation.reset(token)


#: The kernels of launches that are listed in place of being run.
_recorded: ContextVar[list[Kernel] | None] = ContextVar("fastconv_launches", default=None)


@contextlib.contextmanager
def recorded_launches() -> Iterator[list[Kernel]]:
    """List the kernels of what is launched inside the block, which does not run.

    Arrays are asked for their place alone, so they need no memory.
    """
    kernels: list[Kernel] = []
    token = _recorded.set(kernels)
    try:
        yield kernels
    finally:
        _recorded.reset(token)


def _emulate(kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
    emulator, block, chosen = emulated(kernel), (kernel.threads, 1, 1), _emulation.get()
    if chosen is None:
        emulator.launch(grid, block, arguments)
        return
    how, reports = chosen
    report = emulator.launch(grid, block, arguments, **how)
    reports.append(report)
    report.raise_faults()


def _check_launch(
    kernel: Kernel, grid: tuple[int, int, int], like: Any, arguments: tuple[Any, ...]
) -> None:
    """Raise where a device cannot run a kernel over a grid, or not on these arrays."""
    for axis, count, most in zip("xyz", grid, _MOST_BLOCKS, strict=True):
        if count > most:
            raise DeviceError(
                f"{kernel.name}: got {count} blocks along the grid's {axis}, want at most {most}; "
                "split the batch or the channels over several calls"
            )
    if kernel.shared > like.info.shared_block:
        raise DeviceError(
            f"{kernel.name}: needs {kernel.shared} bytes of shared memory a block, and "
            f"{like.info.name} has {like.info.shared_block}; want another kernel: explain() lists "
            "them, use_kernel() takes one"
        )
    for argument in arguments:
        if isinstance(argument, _DeviceSpan) and argument.owner.device != like.device:
            raise DeviceError(
                f"{kernel.name}: got an array on cuda:{argument.owner.device}, want all on "
                f"cuda:{like.device}; copy it there first"
            )


def launch(
    kernel: Kernel, grid: tuple[int, int, int], like: Any, arguments: tuple[Any, ...]
) -> None:
    """Run a kernel over a grid of blocks, on the current stream of an array's library.

    Parameters
    ----------
    kernel : Kernel
        What runs.
    grid : tuple of int
        Blocks along x, y and z.
    like : array
        Where it runs: in the emulator for a NumPy array.
    arguments : tuple
        Flat arrays and scalars.

    Raises
    ------
    DeviceError
        Where the device cannot take the launch; nothing has been written then.
    """
    recorded = _recorded.get()
    if recorded is not None:
        recorded.append(kernel)
        return
    if not isinstance(like, np.ndarray):
        _check_launch(kernel, grid, like, arguments)
    if _is_host(like):
        _emulate(kernel, grid, arguments)
    else:
        block = (kernel.threads, 1, 1)
        _dispatcher(kernel)[grid, block, _stream(like.stream())](*arguments)
