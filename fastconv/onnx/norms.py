"""Norms, softmax and slopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv

from .node import Node, Refusal

__all__ = ["NORMS"]


def _batch_norm(node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> tuple[Any, ...]:
    if node.version < 9 and not node.get("spatial", 1):
        raise Refusal("spatial=0: fastconv has one statistic a channel")
    if node.version < 7:
        given = bool(node.get("is_test", 0))
    elif node.version < 14:
        given = node.outputs == 1
    else:
        given = not node.get("training_mode", 0)
    eps = node.get("epsilon", 1e-5)
    if given:
        return (fastconv.batch_norm(x, mean, var, scale, bias, eps=eps),)
    if node.outputs > 1:
        raise Refusal("fastconv's updated statistics have unbiased variances")
    return (fastconv.batch_norm(x, None, None, scale, bias, training=True, eps=eps),)


def _instance_norm(node: Node, x: Any, scale: Any, bias: Any) -> tuple[Any, ...]:
    made = fastconv.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))
    return (made,)


def _layer_norm(node: Node, x: Any, scale: Any, bias: Any = None) -> tuple[Any, ...]:
    if node.outputs > 1:
        raise Refusal("fastconv returns no statistics of a layer norm")
    if node.get("stash_type", 1) != 1:
        raise Refusal("fastconv takes statistics in float32 at least")
    axis = int(node.get("axis", -1))
    if not -x.ndim <= axis < x.ndim:
        raise Refusal(f"axis: got {axis}, the input has {x.ndim}")
    sizes = x.shape[axis:]
    weight = None if scale is None else _spread(scale, sizes)
    shift = None if bias is None else _spread(bias, sizes)
    return (fastconv.layer_norm(x, sizes, weight, shift, eps=node.get("epsilon", 1e-5)),)


def _spread(values: Any, sizes: tuple[int, ...]) -> Any:
    """Return scales or biases of these sizes, broadcast to them where they are smaller."""
    if values.shape == sizes:
        return values
    try:
        return np.ascontiguousarray(np.broadcast_to(values, sizes))
    except ValueError:
        raise Refusal(f"{values.shape} does not broadcast to {sizes}") from None


def _local_response_norm(node: Node, x: Any) -> tuple[Any, ...]:
    size = int(node.get("size", 0))
    arguments = (size, node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0))
    if size % 2:
        return (fastconv.local_response_norm(x, *arguments),)
    # The odd channel of an even window lies behind the middle; fastconv's lies before it.
    made = fastconv.local_response_norm(x[:, ::-1], *arguments)
    return (made[:, ::-1],)


def _softmax(name: str, node: Node, x: Any) -> tuple[Any, ...]:
    function = getattr(fastconv, name)
    if node.version >= 13:
        return (function(x, int(node.get("axis", -1))),)
    axis = int(node.get("axis", 1))
    if not -x.ndim <= axis <= x.ndim:
        raise Refusal(f"axis: got {axis}, the input has {x.ndim}")
    axis = axis + x.ndim if axis < 0 else axis
    rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return (function(rows, 1).reshape(x.shape),)


def _prelu(node: Node, x: Any, slope: Any) -> tuple[Any, ...]:
    if slope.size == 1:
        return (fastconv.prelu(x, slope.reshape(1)),)
    channels = x.shape[1] if x.ndim > 1 else 0
    one = (1,) * (x.ndim - 2)
    known = [(channels, *one), (1, channels, *one)]
    if node.version < 7:
        known.append((channels,))
    if slope.shape not in known:
        raise Refusal(f"slopes of shape {slope.shape} are neither one nor one a channel")
    return (fastconv.prelu(x, slope.reshape(channels)),)


NORMS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": lambda node, x: _softmax("log_softmax", node, x),
    "PRelu": _prelu,
    "Softmax": lambda node, x: _softmax("softmax", node, x),
}
