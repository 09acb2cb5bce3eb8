"""Arrays of whole numbers that machine code trusts: checked once, and never changed afterwards.

A kernel goes wherever a table of rows sends it. NumPy's flag `writeable` protects no table: who
holds an array, or a view of it, can set the flag again on the array that owns the memory. So the
memory is owned by an object that is no array and has no buffer, which NumPy cannot make writeable,
and whoever asks for a table is given an array of his own over that memory: its shape may be
changed, as that of any array may, and the library's has its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..device_arrays import DeviceArray

__all__ = ["freeze", "private", "restored", "same_memory", "shown", "stored"]


class _Frozen:
    """Read-only memory of an array, row-major; pickles keep which arrays share it."""

    __slots__ = ("__weakref__", "_owner")

    def __init__(self, owner: NDArray[Any]) -> None:
        self._owner = owner

    @property
    def __array_interface__(self) -> dict[str, Any]:
        interface = dict(self._owner.__array_interface__)
        interface["data"] = interface["data"][0], True
        return interface

    def __reduce__(self) -> tuple[Any, ...]:
        return _thaw, (np.array(self._owner),)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Frozen:
        return self


def _thaw(values: NDArray[Any]) -> _Frozen:
    """Return the memory of an array that came out of a pickle, whose memory others may hold."""
    return _Frozen(np.array(values, order="C"))


def freeze(array: Array) -> Array:
    """Return an array as one that nobody can write to; the caller gives up its own.

    Parameters
    ----------
    array : ndarray or DeviceArray
        Row-major, of memory that nobody else holds. No library protects memory on a GPU: such an
        array comes back as it is, and is kept from callers.
    """
    if isinstance(array, DeviceArray) or _memory(array) is not None:
        return array
    return np.asarray(_Frozen(np.ascontiguousarray(array)))


def private(array: Array) -> Array:
    """Return a frozen copy of an array; of one that is frozen, an array over the same memory."""
    if isinstance(array, DeviceArray):
        return array.copy()
    frozen = _memory(array)
    if frozen is not None:
        mine = np.asarray(frozen)
        if (mine.shape, mine.strides, mine.dtype) == (array.shape, array.strides, array.dtype):
            return mine
    return np.asarray(_Frozen(np.array(array, order="C")))


def shown(array: Array) -> Array:
    """Return what a caller may hold of a frozen array."""
    if isinstance(array, DeviceArray):
        return array
    frozen = _memory(array)
    assert frozen is not None
    return np.asarray(frozen)


def same_memory(one: Array, other: Array) -> bool:
    """Tell whether two frozen arrays are the same one."""
    if one is other:
        return True
    return not isinstance(one, DeviceArray) and _memory(one) is _memory(other)


def stored(array: Array) -> Any:
    """Return what a pickle keeps of a frozen array: arrays that were one are one again."""
    return array.owner if isinstance(array, DeviceArray) else _memory(array)


def restored(value: Any) -> Any:
    """Return an array out of what `stored` gave, to be checked as any caller's is."""
    return np.asarray(value) if isinstance(value, _Frozen) else value


def _memory(array: Any) -> _Frozen | None:
    base = getattr(array, "base", None)
    return base if isinstance(base, _Frozen) else None
