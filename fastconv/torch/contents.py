"""What tensors held when something was made from them, and whether they hold it still.

Counters of changes and addresses do not tell: ``tensor.data`` is written without the one, and the
other is used again by whatever is allocated next. Bits are compared, which costs little beside a
convolution with a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..contract import first_use

__all__ = ["Contents"]

Tensor = torch.Tensor
#: Types of as many bytes, whose values are equal where their bits are.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: Bytes of a word, the least that fastconv's comparison takes.
_WORD = 8


class Contents:
    """Copies of tensors, and the values that went with them.

    Parameters
    ----------
    tensors : sequence of tensor or None
        On the CPU.
    values : object
        Whatever else counts, compared by ``==``.
    """

    def __init__(self, tensors: Sequence[Tensor | None], values: Any) -> None:
        self._copies = [None if each is None else _bits(each).clone() for each in tensors]
        self._kinds = [None if each is None else each.dtype for each in tensors]
        self._values = values

    def are(self, tensors: Sequence[Tensor | None], values: Any) -> bool:
        """Tell whether tensors hold the same bits, as many and in the same types."""
        if values != self._values or len(tensors) != len(self._copies):
            return False
        kinds = [None if each is None else each.dtype for each in tensors]
        return kinds == self._kinds and all(map(_same, tensors, self._copies))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_BITS[tensor.element_size()])


def _same(tensor: Tensor | None, copy: Tensor | None) -> bool:
    if tensor is None or copy is None:
        return tensor is copy
    now = _bits(tensor)
    if now.shape != copy.shape:
        return False
    # A copy has no gaps, so neither has what lies as it does.
    if now.stride() == copy.stride() and copy.nbytes >= _WORD:
        compare = first_use.load("fastconv.kernels.cpu.runtime.compare")
        return bool(compare.same_bits(now.numpy(), copy.numpy()))
    return torch.equal(now, copy)
