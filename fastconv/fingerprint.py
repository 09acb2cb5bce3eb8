"""Whether memory still holds what something was made from: a packed weight, a folded norm.

Who packs a weight keeps what it packed, and must know at the next call whether that is the user's
weight still. Nothing but the bits tells. An address is used again by whatever is allocated next.
PyTorch's counter of changes, ``tensor._version``, is raised by its operators, ``load_state_dict``
and most optimizers; it stands still where memory is written through ``tensor.data``, a NumPy or
DLPack view, a storage, an optimizer with ``fused=True`` or anybody's C, and tensors made in
inference mode have none. A result from a weight that is no more would be wrong without a word, so
all bits are read in every call, of norms and biases too.

They are read once: a fingerprint of 16 bytes for each 128 KiB is kept of them, and no copy. That
two contents have the same one has a chance of 2^-64, with keys that each process draws for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .contract import first_use

__all__ = ["Fingerprint", "is_dense"]


class Fingerprint:
    """What arrays and tensors held at one time, with the values that went with them.

    Parameters
    ----------
    sources : sequence of ndarray, tensor or None
        In the CPU's memory.
    values : object
        Whatever else counts, compared by ``==``.

    Examples
    --------
    >>> weight = np.ones((64, 3, 3, 3), np.float32)
    >>> seen = Fingerprint([weight, None])
    >>> seen.holds([weight.copy(), None])
    True
    >>> weight[5, 0, 0, 0] = 2
    >>> seen.holds([weight, None])
    False
    """

    def __init__(self, sources: Sequence[Any], values: Any = None) -> None:
        self._values = values
        self._places, self._kinds, copies = _describe(sources)
        self._parts = _parts(self._places)
        self._words = self._parts.fingerprints()
        del copies  # whose memory was read

    def holds(self, sources: Sequence[Any], values: Any = None) -> bool:
        """Tell whether arrays hold the same bits, as many, in the same shapes, orders and types."""
        if values != self._values:
            return False
        places, kinds, copies = _describe(sources)
        if kinds != self._kinds:
            return False
        parts = self._parts if places == self._places else _parts(places)
        words = parts.fingerprints()
        del copies  # whose memory was read
        return bool(words == self._words)


def _parts(places: list[tuple[int, int]]) -> Any:
    return first_use.load("fastconv.kernels.cpu.runtime.fingerprint").Parts(places)


def _describe(sources: Sequence[Any]) -> tuple[list[tuple[int, int]], list[Any], list[Any]]:
    """Return where sources lie, by address and bytes, and how, and copies of what has gaps."""
    places: list[tuple[int, int]] = []
    kinds: list[Any] = []
    copies: list[Any] = []
    for each in sources:
        if each is None:
            kinds.append(None)
            continue
        of_numpy = isinstance(each, np.ndarray)
        shape = each.shape
        order: tuple[int, ...] = ()
        if not (each.flags.c_contiguous if of_numpy else each.is_contiguous()):
            order = _order(shape, each.strides if of_numpy else each.stride())
            if not is_dense(shape, order, each.itemsize if of_numpy else 1):
                each = each.copy() if of_numpy else each.detach().contiguous()
                copies.append(each)
        places.append((each.ctypes.data if of_numpy else each.data_ptr(), each.nbytes))
        kinds.append((each.dtype, shape, order))
    return places, kinds, copies


def _order(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Return strides, but 0 for axes of length 1, where they may be anything."""
    return tuple(step if size > 1 else 0 for step, size in zip(strides, shape, strict=True))


def is_dense(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Tell whether no gaps are between an array's elements, in whatever order its axes lie."""
    expected = itemsize
    for step, size in sorted(axis for axis in zip(strides, shape, strict=True) if axis[1] > 1):
        if step != expected:
            return False
        expected *= size
    return True
