"""Whose array is it, where does it live, how does it lie in memory.

Array libraries are recognised by the module of an array's type and never imported.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import recycling
from .errors import DeviceError, DTypeError, ShapeError
from .problem import DTYPES

__all__ = ["dtype_name", "dtype_of", "empty_output", "empty_twin", "memory_layout", "require_array"]

_NAMES: dict[np.dtype[Any], str] = {
    np.dtype(name): name for name in ("float32", "float64", "float16")
}
#: A cache line; outputs of several of them begin at one.
_LINE = 64
_ALIGNED_BYTES = 16 * _LINE

_GPU_LIBRARIES = {"cupy": "CuPy", "torch": "PyTorch", "jax": "JAX", "jaxlib": "JAX"}


def require_array(name: str, value: Any) -> NDArray[Any]:
    """Return `value` if it is a NumPy array of a supported dtype, else raise.

    Raises
    ------
    DeviceError
        For an array of a library whose devices this version has no kernels for.
    DTypeError
        For anything else that is not an array, and for unsupported element types.
    """
    if not isinstance(value, np.ndarray):
        library = type(value).__module__.partition(".")[0]
        if library in _GPU_LIBRARIES:
            raise DeviceError(
                f"{name}: got a {_GPU_LIBRARIES[library]} array, want a NumPy array "
                f"(this version computes on the CPU; convert it with numpy.asarray)"
            )
        raise DTypeError(f"{name}: got {type(value).__name__}, want a NumPy array")
    dtype_name(name, value.dtype)
    return value


def dtype_name(argument: str, dtype: np.dtype[Any]) -> str:
    """Return the name of a supported dtype, else raise `DTypeError`."""
    found = _NAMES.get(dtype)
    if found is None:
        # ml_dtypes.bfloat16 is known by its name, so that ml_dtypes need not be installed.
        if dtype.name != "bfloat16" or dtype.itemsize != 2:
            order = " in this machine's byte order" if dtype.name in DTYPES else ""
            raise DTypeError(f"{argument}: got {dtype}, want one of {', '.join(DTYPES)}{order}")
        found = _NAMES.setdefault(dtype, "bfloat16")
    return found


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a supported name; bfloat16 is ml_dtypes' where it is installed."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype(np.uint16)  # as wide: enough for sizes and strides
    return np.dtype(ml_dtypes.bfloat16)


def memory_layout(array: NDArray[Any]) -> str:
    """Return "channels_first", "channels_last" or "strided" for an ``(N, C, *spatial)`` array.

    What counts is which axis is contiguous: the innermost spatial one, the channels, or neither.

    Examples
    --------
    >>> memory_layout(np.zeros((2, 5, 5, 3)).transpose(0, 3, 1, 2))
    'channels_last'
    """
    inner = next((axis for axis in range(array.ndim - 1, 1, -1) if array.shape[axis] > 1), None)
    if inner is None or array.strides[inner] == array.itemsize:
        return "channels_first"
    if array.strides[1] == array.itemsize and array.shape[1] > 1:
        return "channels_last"
    return "strided"


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array that starts at a cache line, as NumPy's own do not.

    A full vector's store to it then touches one line, not two.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _ALIGNED_BYTES:
        return np.empty(shape, dtype)
    size += _LINE
    raw = recycling.take(size) if size >= recycling.LARGE else np.empty(size, np.uint8)
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % _LINE)


def empty_output(shape: tuple[int, ...], dtype: np.dtype[Any], layout: str) -> NDArray[Any]:
    """Return an uninitialised output in the memory order that `layout` asks for."""
    if layout != "channels_last":
        return _empty(shape, dtype)
    ndim = len(shape)
    stored: NDArray[Any] = _empty((shape[0], *shape[2:], shape[1]), dtype)
    return stored.transpose(0, ndim - 1, *range(1, ndim - 1))


def empty_twin(array: NDArray[Any]) -> NDArray[Any]:
    """Return uninitialised memory of an array's shape, dtype and strides."""
    reaches = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    if array.size == 0:
        return np.empty(array.shape, array.dtype)
    memory = np.empty(sum(map(abs, reaches)) + array.itemsize, np.uint8)
    first = -sum(reach for reach in reaches if reach < 0)
    return np.ndarray(array.shape, array.dtype, memory, first, array.strides)


def check_writable(name: str, array: NDArray[Any]) -> None:
    """Raise where an output cannot be written, or has elements that share memory."""
    if not array.flags.writeable:
        raise ShapeError(f"{name}: got a read-only array, want a writable one")
    steps = zip(array.shape, array.strides, strict=True)
    if array.size and any(stride == 0 and size > 1 for size, stride in steps):
        raise ShapeError(f"{name}: got a broadcast array, want one whose elements are its own")
