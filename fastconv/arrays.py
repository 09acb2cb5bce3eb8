"""Library, device and layout of an array.

Array libraries are recognised by the module of an array's type and never imported.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .array_libraries import EmulatedArray
from .contract import first_use, recycling
from .contract.errors import DeviceError, DTypeError, ShapeError
from .contract.problem import DTYPES, INTEGERS
from .contract.settings import config
from .device_arrays import DeviceArray

__all__ = [
    "Array",
    "assign",
    "beside",
    "check_writable",
    "dtype_name",
    "dtype_of",
    "empty_array",
    "empty_output",
    "empty_twin",
    "is_masked",
    "is_writable",
    "memory_layout",
    "normal_strides",
    "on_host",
    "permute",
    "plain",
    "private_copy",
    "require_array",
    "reshape",
    "row_major",
    "shares_memory",
    "shown",
    "unwrap",
]

_NAMES: dict[np.dtype[Any], str] = {
    np.dtype(name): name for name in ("float32", "float64", "float16")
}
_INTEGERS = {np.dtype(name): name for name in INTEGERS}
#: An array as checks and kernels see it: NumPy's, or a `DeviceArray`, which has the attributes
#: of one that they use. No type of NumPy's describes both.
Array = Any

#: A cache line; outputs of several of them begin at one.
_LINE = 64
_ALIGNED_BYTES = 16 * _LINE
#: Differences between elements that are made to tell whether an output's axes share memory.
_MOST_DIFFERENCES = 1 << 20
#: And what NumPy may try to tell whether two arrays share memory: some microseconds.
_MOST_WORK = 1000

_GPU_LIBRARIES = {"cupy": "CuPy", "torch": "PyTorch", "jax": "JAX", "jaxlib": "JAX"}


def require_array(name: str, value: Any, integers: bool = False) -> Array:
    """Return an array to compute on, of a supported dtype, else raise.

    That is a NumPy array, or a `DeviceArray`, which has all the attributes that are used of one. A
    subclass of NumPy's type may say anything of its shape and strides: what comes back is the
    memory as NumPy knows it. `integers` are supported where the operator has code for them.

    Raises
    ------
    DeviceError
        For an array of another library, or of a device where a NumPy array is wanted.
    DTypeError
        For anything else that is not an array, and for unsupported element types.
    """
    if is_masked(value):
        raise DTypeError(
            f"{name}: got a masked array, want a plain one: {name}.filled(0) counts what is masked "
            "as zero"
        )
    if not issubclass(type(value), (np.ndarray, DeviceArray)):
        library = type(value).__module__.partition(".")[0]
        if library == "torch" and str(getattr(value, "device", "")) == "cpu":
            raise DeviceError(
                f"{name}: got a PyTorch tensor on the CPU, want a NumPy array: "
                f"{name}.detach().numpy() is one over the same memory"
            )
        if library in _GPU_LIBRARIES:
            raise DeviceError(
                f"{name}: got a {_GPU_LIBRARIES[library]} array, want a NumPy array as its "
                f"companions are (numpy.asarray makes one of an array on the CPU)"
            )
        if isinstance(value, EmulatedArray) or hasattr(value, "__cuda_array_interface__"):
            raise DeviceError(
                f"{name}: got {type(value).__name__} on a GPU, want a NumPy array as its "
                "companions are"
            )
        nested = isinstance(value, (list, tuple))
        hint = f": numpy.asarray({name}, numpy.float32)" if nested else ""
        raise DTypeError(f"{name}: got {type(value).__name__}, want a NumPy array{hint}")
    array = plain(value)
    dtype_name(name, array.dtype, integers and not isinstance(array, DeviceArray))
    return array


def plain(array: Array) -> Array:
    """Return the same memory as an array of NumPy's own type, whatever a subclass says of it."""
    if type(array) is np.ndarray or isinstance(array, DeviceArray):
        return array
    return np.ndarray.view(array, np.ndarray)


def is_masked(value: Any) -> bool:
    """Tell whether a value is a masked array of NumPy's.

    To ask NumPy for the type would import it, amid a call that a fork does not wait for; where it
    is not loaded nobody has made one.
    """
    return isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ()))


def dtype_name(argument: str, dtype: np.dtype[Any], integers: bool = False) -> str:
    """Return the name of a supported dtype, else raise `DTypeError`."""
    known = _NAMES.get(dtype)
    if known is None and integers:
        known = _INTEGERS.get(dtype)
    if known is None:
        # ml_dtypes.bfloat16 is known by its name, so that ml_dtypes need not be installed.
        if dtype.name != "bfloat16" or dtype.itemsize != 2 or not dtype.isnative:
            wanted = (*DTYPES, *INTEGERS) if integers else tuple(DTYPES)
            order = " in this machine's byte order" if dtype.name in wanted else ""
            raise DTypeError(f"{argument}: got {dtype}, want one of {', '.join(wanted)}{order}")
        known = _NAMES.setdefault(dtype, "bfloat16")
    return known


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a supported name; bfloat16 is ml_dtypes' where it is installed."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        return np.dtype(first_use.load("ml_dtypes").bfloat16)
    except ImportError:
        return np.dtype(np.uint16)  # as wide: enough for sizes and strides


def memory_layout(array: Array) -> str:
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


def normal_strides(array: Array) -> tuple[int, ...]:
    """Return an ``(N, C, *spatial)`` array's strides, those of axes of length 1 made meaningful.

    Nothing is ever reached by the stride of such an axis, so NumPy lets it be anything: 0 after
    ``x[..., None]``, whatever the axis had before a slice cut it to one element. A kernel that
    takes rows for one run, or the last stride for the distance of pixels, must be able to believe
    it. So it becomes what it is where the axes lie without gaps: behind the axes within it, or the
    distance of the next axis around it.

    Examples
    --------
    >>> x = np.zeros((2, 3, 5), np.float32)[..., None]
    >>> x.strides, normal_strides(x)
    ((60, 20, 4, 0), (60, 20, 4, 4))
    """
    sizes, strides = array.shape, list(array.strides)
    if 1 not in sizes:
        return array.strides
    spatial = [axis for axis in range(2, len(sizes)) if sizes[axis] != 1]
    for axis in range(len(sizes) - 1, 1, -1):
        if sizes[axis] == 1:
            within = next((other for other in spatial if other > axis), None)
            around = next((other for other in reversed(spatial) if other < axis), None)
            if within is not None:
                strides[axis] = strides[within] * sizes[within]
            else:
                strides[axis] = array.itemsize if around is None else strides[around]
    for axis in (1, 0):  # channels lie behind the pixels, images behind everything
        if sizes[axis] == 1:
            extents = (abs(strides[other]) * sizes[other] for other in range(axis + 1, len(sizes)))
            strides[axis] = max(extents, default=array.itemsize)
    return tuple(strides)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an uninitialised array that starts at a cache line, as NumPy's own do not.

    A full vector's store to it then touches one line, not two. NaN, or a whole number at an end of
    the range, fills it where workspaces are poisoned.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _ALIGNED_BYTES:
        made = np.empty(shape, dtype)
    else:
        size += _LINE
        raw = recycling.take(size) if size >= recycling.LARGE else np.empty(size, np.uint8)
        made = np.ndarray(shape, dtype, raw, -raw.ctypes.data % _LINE)
    if config.poison_workspace:
        made.fill(_poison(dtype))
    return made


def _poison(dtype: np.dtype[Any]) -> float:
    """Return what a result is least likely to be: NaN, or a whole number at an end of its range."""
    if dtype.kind not in "iu":
        return np.nan
    limits = np.iinfo(dtype)
    return limits.min or limits.max


def empty_output(
    like: Array, shape: tuple[int, ...], layout: str, dtype: np.dtype[Any] | None = None
) -> Array:
    """Return an uninitialised output for the input `like`, in the memory order of `layout`.

    Its element type is the input's, or a `dtype` of NumPy's.
    """
    if isinstance(like, DeviceArray):
        return like.new_output(shape, layout)
    return empty_array(shape, like.dtype if dtype is None else dtype, layout)


def empty_array(shape: tuple[int, ...], dtype: np.dtype[Any], layout: str) -> Array:
    """Return an uninitialised array of the CPU's in the memory order of `layout`."""
    if layout != "channels_last":
        return _empty(shape, dtype)
    ndim = len(shape)
    stored: Array = _empty((shape[0], *shape[2:], shape[1]), dtype)
    return stored.transpose(0, ndim - 1, *range(1, ndim - 1))


def empty_twin(array: Array) -> Array:
    """Return uninitialised memory of an array's shape, dtype and strides."""
    if isinstance(array, DeviceArray):
        return array.twin()
    reaches = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    if array.size == 0:
        return np.empty(array.shape, array.dtype)
    memory = np.empty(sum(map(abs, reaches)) + array.itemsize, np.uint8)
    first = -sum(reach for reach in reaches if reach < 0)
    return np.ndarray(array.shape, array.dtype, memory, first, array.strides)


def check_writable(name: str, array: Array) -> None:
    """Raise where an output cannot be written, or has elements that share memory."""
    if not is_writable(array):
        raise ShapeError(f"{name}: got a read-only array, want a writable one")
    steps = zip(array.shape, array.strides, strict=True)
    if array.size and any(stride == 0 and size > 1 for size, stride in steps):
        raise ShapeError(f"{name}: got a broadcast array, want one whose elements are its own")
    if array.size and _overlaps_itself(name, array):
        raise ShapeError(
            f"{name}: got strides {array.strides} with shape {array.shape}, by which elements "
            "share memory, want one whose elements are its own"
        )


def _overlaps_itself(name: str, array: Array) -> bool:
    """Return whether two elements of an array share memory."""
    axes = sorted(
        (abs(stride), size)
        for size, stride in zip(array.shape, array.strides, strict=True)
        if size > 1
    )
    extent = array.itemsize
    within = 0  # axes that the last one which is reached over lies within
    for number, (stride, size) in enumerate(axes, 1):
        if stride < extent:
            within = number
        extent = stride * (size - 1) + extent
    if within == 0:
        return False
    axes = axes[:within]
    reach = sum(stride * (size - 1) for stride, size in axes) + array.itemsize
    if math.prod(size for _, size in axes) * array.itemsize > reach:
        return True  # more elements than have room
    return _meet(name, axes, array.itemsize)


def _meet(name: str, axes: list[tuple[int, int]], itemsize: int) -> bool:
    """Return whether two places of axes of (stride, size) are closer than an element.

    Axes that reach over each other may still share nothing, as steps of 2 and 3 elements do. Two
    places differ by a number of steps along each axis: all differences along the shorter axes are
    made, and for each the steps of the longest axis that come nearest to taking it back.
    """
    (stride, size), *others = sorted(axes, key=lambda axis: -axis[1])
    if min(step for step, _ in axes) < itemsize:
        return True
    if math.prod(2 * count - 1 for _, count in others) > _MOST_DIFFERENCES:
        raise ShapeError(
            f"{name}: got {len(axes)} axes whose strides reach over each other in too many ways "
            "to tell whether elements share memory, want axes behind one another"
        )
    differences = np.zeros(1, np.int64)
    for step, count in others:
        steps = np.arange(1 - count, count, dtype=np.int64) * step
        differences = np.add.outer(differences, steps).reshape(-1)
    nearest = np.clip((differences + stride // 2) // stride, 1 - size, size - 1)
    near = np.abs(differences - nearest * stride) < itemsize
    return int(np.count_nonzero(near)) > 1  # an element and itself


def is_writable(array: Array) -> bool:
    """Return whether an array may be written to."""
    return array.writeable if isinstance(array, DeviceArray) else array.flags.writeable


def assign(target: Array, source: Array) -> None:
    """Write an array's elements into another one of its shape."""
    if isinstance(target, DeviceArray):
        target.assign(source)
    else:
        np.copyto(target, source)


def private_copy(array: Array) -> Array:
    """Return a row-major copy that nobody changes.

    The memory of a NumPy copy is that of a `bytes` object, so its flag cannot be set back.
    """
    if isinstance(array, DeviceArray):
        return array.copy()
    made: Array = np.ndarray(array.shape, array.dtype, array.tobytes() or b"\0")
    return made


def shown(array: Array) -> Any:
    """Return what a caller may hold of a private copy: an array of its own over the same memory.

    The shape and the type of an array can be set by whoever holds it; a kernel trusts the copy's.
    """
    if isinstance(array, DeviceArray):
        return array.owner
    return np.ndarray(array.shape, array.dtype, array.base)


def unwrap(array: Array) -> Any:
    """Return an array as its library knows it."""
    return array.owner if isinstance(array, DeviceArray) else array


def on_host(array: Array) -> NDArray[Any]:
    """Return an array's values in the host's memory."""
    return array.to_host() if isinstance(array, DeviceArray) else array


def beside(like: Array, values: NDArray[Any]) -> Array:
    """Return values in the host's memory where the array `like` is, and of its library."""
    return like.from_host(values) if isinstance(like, DeviceArray) else values


def permute(array: Array, axes: tuple[int, ...]) -> Array:
    """Return the same memory with the axes in another order."""
    return array.permute(axes) if isinstance(array, DeviceArray) else array.transpose(axes)


def reshape(array: Array, shape: tuple[int, ...]) -> Array:
    """Return a row-major array's memory as kernels see it under another shape."""
    if not isinstance(array, DeviceArray):
        return array.reshape(shape)
    return replace(array, shape=shape, strides=_steps(shape, array.itemsize))


def _steps(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of row-major order."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def row_major(array: Array) -> Array:
    """Return an array whose elements lie in row-major order, itself where they do."""
    if not isinstance(array, DeviceArray):
        return np.ascontiguousarray(array)
    steps = _steps(array.shape, array.itemsize)
    return array if array.size == 0 or array.strides == steps else array.copy()


def shares_memory(out: Array, others: Sequence[Array | None]) -> bool:
    """Return whether writing `out` could change one of the operands."""
    if isinstance(out, DeviceArray):
        low, high = out.extent
        extents = (other.extent for other in others if other is not None)
        return any(start < high and low < end for start, end in extents)
    owner = out.flags.owndata
    for other in others:
        if other is None or type(other.base) is bytes:
            continue  # nothing that is written lies in a bytes object, as an object's weight does
        if owner and other is not out and other.flags.owndata:
            continue  # two owners share nothing, and to ask NumPy takes four times as long
        # Parts of one array may lie between each other; what takes long to tell counts as shared.
        if np.may_share_memory(out, other):
            bounded: Any = _MOST_WORK  # NumPy's stubs know the special values alone
            if np.may_share_memory(out, other, max_work=bounded):
                return True
    return False
