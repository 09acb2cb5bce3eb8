"""Parts of an array by their numbers along an axis: a view where there is one, else copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .node import Node
from .rearranging import copy_part
from .steps import Context, Reference, Step

__all__ = ["Gather"]

#: Most parts that are copied one by one.
_MOST = 64


class Gather(Step):
    """A node Gather; one whose parts are no few of an array of numbers runs on the reference."""

    def __init__(self, context: Context, proto: Any, node: Node) -> None:
        super().__init__([proto], [each for each in proto.input if each], list(proto.output))
        self._context, self._axis = context, int(node.get("axis", 0))
        self._reference: Reference | None = None

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the output from values by name."""
        x, picked = (values[name] for name in self.inputs)
        numbers = self._numbers(x, picked)
        if numbers is None:
            if self._reference is None:
                self._reference = Reference(self._context, self.protos[0])
            return self._reference.run(values)
        axis = self._axis % x.ndim
        before = (slice(None),) * axis
        if np.ndim(picked) == 0:
            return (x[(*before, numbers[0])],)
        steps = {b - a for a, b in itertools.pairwise(numbers)}
        if steps <= {1}:
            return (x[(*before, slice(numbers[0], numbers[-1] + 1))],)
        made = np.empty((*x.shape[:axis], len(numbers), *x.shape[axis + 1 :]), x.dtype)
        for place, number in enumerate(numbers):
            source, target = (slice(each, each + 1) for each in (number, place))
            copy_part(x[(*before, source)], made[(*before, target)], axis)
        return (made,)

    def _numbers(self, x: Any, picked: Any) -> list[int] | None:
        """Return the numbers of the parts, None where the reference shall pick them."""
        if not isinstance(x, np.ndarray) or not -x.ndim <= self._axis < x.ndim or x.ndim < 2:
            return None
        if np.ndim(picked) > 1 or not 1 <= np.size(picked) <= _MOST:
            return None
        size = x.shape[self._axis]
        numbers = [int(each) for each in np.ravel(picked)]
        if not all(-size <= each < size for each in numbers):
            return None
        return [each % size for each in numbers]

    def described(self) -> str:
        """Return what computes the step."""
        return "fastconv, picked"
