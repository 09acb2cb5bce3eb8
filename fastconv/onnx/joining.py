"""Arrays joined along an axis: each is copied to its place, unless it was made there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .node import Node
from .rearranging import copy_part
from .steps import Context, Reference, Step

__all__ = ["Join"]


class Join(Step):
    """A node Concat."""

    writes = True

    def __init__(self, context: Context, proto: Any, node: Node) -> None:
        super().__init__([proto], [each for each in proto.input if each], list(proto.output))
        self._context, self.axis = context, int(node.get("axis", 1))
        self._reference: Reference | None = None

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the output from values by name."""
        arrays = [values[name] for name in self.inputs]
        if not _are_joined(arrays, self.axis):
            if self._reference is None:
                self._reference = Reference(self._context, self.protos[0])
            return self._reference.run(values)
        made = np.empty(self._shape(arrays), arrays[0].dtype) if out is None else out
        for array, place in zip(arrays, self.places(made, arrays), strict=True):
            if place.ctypes.data != array.ctypes.data or place.strides != array.strides:
                copy_part(array, place, self.axis % made.ndim)
        return (made,)

    def _shape(self, arrays: Sequence[Any]) -> tuple[int, ...]:
        first, axis = arrays[0].shape, self.axis % arrays[0].ndim
        return (*first[:axis], sum(each.shape[axis] for each in arrays), *first[axis + 1 :])

    def places(self, joined: Any, arrays: Sequence[Any]) -> Iterator[Any]:
        """Return the parts of the output that the inputs become, which are told by their shapes."""
        axis, start = self.axis % joined.ndim, 0
        for array in arrays:
            stop = start + array.shape[axis]
            yield joined[(slice(None),) * axis + (slice(start, stop),)]
            start = stop

    def described(self) -> str:
        """Return what computes the step."""
        return "fastconv, joined"


def _are_joined(arrays: Sequence[Any], axis: int) -> bool:
    """Tell whether arrays differ in nothing but their size along an axis."""
    if not arrays or not all(isinstance(each, np.ndarray) and each.ndim for each in arrays):
        return False
    ndim = arrays[0].ndim
    if not -ndim <= axis < ndim:
        return False

    def key(array: Any) -> Any:
        rest = list(array.shape)
        if array.ndim == ndim:
            del rest[axis]
        return array.ndim, array.dtype, tuple(rest)

    return len(set(map(key, arrays))) == 1
