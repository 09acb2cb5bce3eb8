"""What an object keeps of its weight: the orders that kernels asked for last.

An order depends on the kernel, and some kernels' on the input's size: an object that is called with
inputs of many sizes would keep more and more copies of its weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["PackedWeights", "packed_bytes"]

#: Most orders that are kept, and most bytes of those beside the one used last.
_MOST_ORDERS, _MOST_BYTES = 8, 256 << 20


def packed_bytes(packed: Any) -> int:
    """Return the bytes of a packed weight: an array, or those of an operator's parts."""
    if isinstance(packed, dict):
        return packed_bytes(tuple(packed.values()))
    if isinstance(packed, tuple):
        return sum(map(packed_bytes, packed))
    return 0 if packed is None else math.prod(packed.shape) * int(packed.dtype.itemsize)


class PackedWeights:
    """A weight in some orders; those used longest ago make room for others.

    Many threads may ask at once, and a signal handler amid a call: every step on what is kept is
    one of the interpreter's, and no lock is held. A copy or a pickle begins empty.

    Examples
    --------
    >>> import numpy as np
    >>> kept = PackedWeights()
    >>> first = kept.find("order", lambda: np.ones(3))
    >>> kept.find("order", lambda: np.zeros(3)) is first
    True
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}  # the one used last at the end
        #: The order that was used last and the weight in it; (None, None) at first.
        self.last: tuple[Hashable, Any] = (None, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedWeights, ()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all orders."""
        return sum(map(packed_bytes, tuple(self._kept.values())))

    def find(self, order: Hashable, pack: Callable[[], Any]) -> Any:
        """Return the weight in an order, packed now if it is not kept."""
        last, packed = self.last
        if last == order and packed is not None:
            return packed
        packed = self._kept.get(order)
        if packed is None:
            packed = pack()
        self._kept.pop(order, None)
        self._make_room()
        self._kept[order] = packed
        self.last = order, packed
        return packed

    def _make_room(self) -> None:
        """Forget the orders used longest ago, until one more may be kept."""
        sizes = {order: packed_bytes(packed) for order, packed in tuple(self._kept.items())}
        total = sum(sizes.values())
        for order, size in sizes.items():
            if len(self._kept) < _MOST_ORDERS and total <= _MOST_BYTES:
                return
            self._kept.pop(order, None)
            total -= size
