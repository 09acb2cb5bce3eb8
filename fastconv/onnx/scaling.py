"""Batch norms that follow no layer, with the factors, sums and activation behind them.

With constant statistics they are one factor and one summand a channel: a depthwise convolution of
one tap, which applies the activation before its one store.
"""

from __future__ import annotations

from typing import Any

import fastconv

from .layers import Layer
from .node import Node, Refusal
from .steps import Context, Reference

__all__ = ["Scale"]


class Scale(Layer):
    """A factor and a summand of each channel, and an activation."""

    def __init__(self, context: Context, proto: Any, scale: Any, shift: Any) -> None:
        node = Node(proto.op_type, context.version, {})
        super().__init__(context, proto, node, [proto.input[0]], scale, shift)
        self.inputs = list(proto.input)
        self._spatial = 0

    @property
    def spatial(self) -> int:
        """Spatial axes of the input; 0 where no constant has told them yet."""
        return self._spatial

    def fold(self, proto: Any, scale: Any, shift: Any) -> bool:
        """Take one more factor and summand of each channel."""
        self._weight, self._bias = self._weight * scale, self._bias * scale + shift
        self._folded.append(proto.op_type)
        self.inputs.extend(name for name in proto.input if name not in self.outputs)
        self._end_with(proto)
        return True

    def tell_spatial(self, axes: int) -> bool:
        """Take it that inputs have so many spatial axes; return whether that can be."""
        if self._spatial in (0, axes):
            self._spatial = axes
        return self._spatial == axes

    def add(self, proto: Any, name: str) -> bool:
        """Take no sum with another value: what it would be broadcast to is not known."""
        return False

    def described(self) -> str:
        """Return what computes the step, and what was fused."""
        parts = ["fastconv.Conv, one tap a channel", *(f"{each} folded" for each in self._folded)]
        if self._activation is not None:
            activation = self._activation
            parts.append(activation if isinstance(activation, str) else activation[0])
        return ", ".join(parts)

    def _compute(
        self, key: Any, given: list[Any], residual: Any, activation: Any, out: Any = None
    ) -> Any:
        (x,) = given
        ndim = x.ndim - 2
        if not 1 <= ndim <= 3 or self._spatial not in (0, ndim):
            raise Refusal(f"the input has {x.ndim} axes")
        key = ndim, x.dtype, activation
        if key not in self._layers:
            scale = self._weight.reshape(-1, *(1,) * (ndim + 1)).astype(x.dtype)
            make = getattr(fastconv, f"Conv{ndim}d")
            self._layers[key] = make(
                scale, self._bias.astype(x.dtype), groups=len(scale), activation=activation
            )
            self.kernel = self._layers[key].prepare(x)
        return self._layers[key](x, out=out)

    def _one_by_one(self, values: dict[str, Any], key: Any, given: list[Any]) -> Any:
        """Compute all nodes by the reference."""
        known = dict(values)
        if not self._references:
            self._references = [Reference(self._context, each) for each in self.protos]
        for reference in self._references:
            (known[reference.outputs[0]],) = reference.run(known)
        return known[self.outputs[0]]
