"""Arrays in another shape: a view where there is one, else a copy by a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv

from ..contract.errors import FastconvError
from .node import Node
from .steps import Context, Reference, Step

__all__ = ["Reshape"]


class Reshape(Step):
    """A node Reshape, of which networks that shuffle channels have many."""

    def __init__(self, context: Context, proto: Any, node: Node) -> None:
        super().__init__([proto], [each for each in proto.input if each], list(proto.output))
        self._reference = Reference(context, proto)
        self._keeps = not node.get("allowzero", 0)

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the output from values by name."""
        x = values[self.inputs[0]]
        shape = None if len(self.inputs) != 2 else self._shape(x, values[self.inputs[1]])
        if shape is None:
            return self._reference.run(values)
        if x.flags.c_contiguous or not 3 <= x.ndim <= 5:
            return (x.reshape(shape),)
        made = np.empty(shape, x.dtype)
        try:
            fastconv.channel_shuffle(x, 1, out=made.reshape(x.shape))
        except FastconvError:  # of an element type that no kernel has
            made[...] = x.reshape(shape)
        return (made,)

    def _shape(self, x: Any, wanted: Any) -> tuple[int, ...] | None:
        """Return the shape that is asked for; None where the reference shall say why it is none."""
        sizes = [int(size) for size in np.ravel(wanted)]
        if self._keeps and len(sizes) <= x.ndim:
            sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
        if sizes.count(-1) == 1:
            known = -math.prod(sizes)
            if known < 1 or x.size % known:
                return None
            sizes[sizes.index(-1)] = x.size // known
        fits = all(size >= 0 for size in sizes) and math.prod(sizes) == x.size
        return tuple(sizes) if fits else None

    def described(self) -> str:
        """Return what computes the step."""
        return "fastconv, another shape"
