"""Packed weights that the functional form remembers from call to call.

``conv2d(x, w)`` is given the weight anew in each call, and nothing tells whether it has changed
since the last one but its content. Reading it for a fingerprint takes a tenth of the time of
packing it and less: of a weight that is seen for the second time the packed form is kept, and one
that changes from call to call, as in training, costs a look at a few of its elements.

What is remembered is what packing would make: results are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from .fingerprint import Fingerprint, is_dense
from .packing import packed_bytes

__all__ = ["Recall", "calls", "recall"]

#: Bytes of a weight below which packing is as fast as looking it up.
_LEAST = 32 << 10
#: Most bytes of packed weights, and most weights and orders that are noted.
_MOST_BYTES, _MOST_SEEN = 256 << 20, 1024
#: Calls with one weight that a choice of a kernel reckons with.
_CALLS = 10
#: Elements that tell that a weight has changed, where it has been seen once.
_SAMPLES = 16


#: The order, and where the weight lies and how: address, shape, strides, type.
_Key = tuple[Hashable, int, tuple[int, ...], tuple[int, ...], np.dtype[Any]]


class _Kept(NamedTuple):
    """A weight that was seen twice."""

    seen: Fingerprint
    packed: Any

    @property
    def nbytes(self) -> int:
        return packed_bytes(self.packed)


class Recall:
    """Packed weights by where the weight lies, its shape, and the order that it is packed in.

    Many threads may ask at once, and a signal handler amid a call: every step on what is kept is
    one of the interpreter's, and no lock is held.

    Examples
    --------
    >>> weight, kept = np.ones((64, 64, 3, 3), np.float32), Recall()
    >>> packed = [kept.find("order", weight, np.copy) for _ in range(3)]
    >>> packed[2] is packed[1], packed[1] is packed[0]
    (True, False)
    """

    def __init__(self) -> None:
        self._in_place: dict[Hashable, None] = {}  # orders that are the weight's own
        self._seen: dict[_Key, bytes] = {}
        self._kept: dict[_Key, _Kept] = {}  # the one used last at the end

    @property
    def nbytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(kept.nbytes for kept in tuple(self._kept.values()))

    def find(self, order: Hashable, weight: Any, pack: Callable[[Any], Any]) -> Any:
        """Return a weight in an order, packed now if it is not remembered.

        Parameters
        ----------
        order : hashable
            Name of the order: calls with an equal one get the same packed weight.
        weight : ndarray or DeviceArray
            As the caller gave it; of other types than NumPy's own nothing is remembered.
        pack : callable
            ``pack(weight)`` returns it in that order.
        """
        if type(weight) is not np.ndarray or weight.nbytes < _LEAST or order in self._in_place:
            return pack(weight)
        if not is_dense(weight.shape, weight.strides, weight.itemsize):
            return pack(weight)
        key = (order, weight.ctypes.data, weight.shape, weight.strides, weight.dtype)
        kept = self._kept.get(key)
        if kept is not None:
            if kept.seen.holds([weight]):
                self._kept.pop(key, None)
                self._kept[key] = kept
                return kept.packed
            self._kept.pop(key, None)
        return self._pack(key, weight, pack)

    def _pack(self, key: _Key, weight: np.ndarray, pack: Callable[[Any], Any]) -> Any:
        """Pack a weight, and keep it where it was there before with the same samples."""
        elements = weight.ravel("K")
        samples = elements[:: max(1, elements.size // _SAMPLES)].tobytes()
        if self._seen.pop(key, None) != samples:
            packed = pack(weight)
            if isinstance(packed, np.ndarray) and np.may_share_memory(packed, weight):
                # The kernel reads it as it lies.
                _note(self._in_place, key[0], None)
            else:
                _note(self._seen, key, samples)
            return packed
        copy = weight.copy("K")  # of which both are, whatever another thread writes meanwhile
        kept = _Kept(Fingerprint([copy]), pack(copy))
        if kept.nbytes <= _MOST_BYTES:
            self._kept[key] = kept
            self._make_room()
        return kept.packed

    def _make_room(self) -> None:
        """Forget the weights used longest ago, until those that are left may be kept.

        The new one is among them: of calls that add some at once, the last one counts all.
        """
        total = self.nbytes
        for key, kept in tuple(self._kept.items()):
            if total <= _MOST_BYTES:
                return
            self._kept.pop(key, None)
            total -= kept.nbytes


def calls(nbytes: int) -> int:
    """Return in how many calls a weight of so many bytes is thought to be packed once.

    The choice of a kernel may not depend on what was called before, or results would: it reckons
    with a few calls of each weight that may be remembered.
    """
    return _CALLS if nbytes >= _LEAST else 1


def _note(what: dict[Any, Any], key: Hashable, value: Any) -> None:
    if len(what) >= _MOST_SEEN:
        what.clear()
    what[key] = value


#: What functional calls of this process remember.
recall = Recall()
