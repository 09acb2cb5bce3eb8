"""Pools, and what brings samples back to where they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv

from .node import Node, Refusal
from .windows import Windows, pad_spatial, read_pads, read_windows, spatial_axes

__all__ = ["POOLS"]

#: Most axes that a pool goes over.
_MOST_AXES = 3


def _windows(node: Node, x: Any) -> Windows:
    """Return the windows of a pool over an input of floating point."""
    if x.dtype.kind != "f" and x.dtype.name != "bfloat16":
        raise Refusal(f"fastconv pools floating point, the input is {x.dtype}")
    ndim = spatial_axes(x)
    if not node.get("kernel_shape", None):
        raise Refusal("kernel_shape is missing")
    return read_windows(node, x.shape[2:], node.sizes("kernel_shape", ndim))


def _symmetric(windows: Windows) -> tuple[int, ...] | None:
    """Return the padding of both sides, None where fastconv's pools do not take it."""
    along = zip(windows.in_size, windows.pads, windows.reach, strict=True)
    if all(
        low == high and low <= reach // 2 and size + 2 * low >= reach
        for size, (low, high), reach in along
    ):
        return tuple(low for low, _ in windows.pads)
    return None


def _max_pool(node: Node, x: Any) -> tuple[Any, ...]:
    windows, places = _windows(node, x), node.outputs > 1
    function = getattr(fastconv, f"max_pool{x.ndim - 2}d")
    padding, rounded = _symmetric(windows), windows.rounded_up
    samples: Any = x
    if padding is None:
        samples = pad_spatial(x, windows.covering, -math.inf)
        padding, rounded = (0,) * len(windows.kernel), False
    made = function(
        samples, windows.kernel, windows.stride, padding, windows.dilation, rounded, places
    )
    if not places:
        return (made,)
    maxima, indices = made
    if samples is not x:
        indices = _within(windows, indices)
    return maxima, _flat(indices, x.shape, bool(node.get("storage_order", 0)))


def _within(windows: Windows, indices: Any) -> Any:
    """Return places in a padded channel as places in the channel itself."""
    own = np.arange(math.prod(windows.in_size)).reshape(windows.in_size)
    indices = np.pad(own, windows.covering, constant_values=-1).reshape(-1)[indices]
    if indices.size and indices.min() < 0:
        raise Refusal("a window has no sample above minus infinity")
    return indices


def _flat(indices: Any, shape: tuple[int, ...], columns: bool) -> Any:
    """Return places in a channel as places in the whole input, counted by columns or by rows."""
    pixels = math.prod(shape[2:])
    if columns:
        along = np.unravel_index(indices, shape[2:])
        indices = np.ravel_multi_index(along, shape[2:], order="F")
    before = np.arange(shape[0] * shape[1]) * pixels
    return indices + before.reshape(*shape[:2], *(1,) * (len(shape) - 2))


def _average_pool(node: Node, x: Any) -> tuple[Any, ...]:
    windows, ndim = _windows(node, x), x.ndim - 2
    counted, padding = bool(node.get("count_include_pad", 0)), _symmetric(windows)
    function = getattr(fastconv, f"avg_pool{ndim}d")
    if max(windows.dilation) > 1:
        means = _dilated_means(windows, x)
    elif padding is not None:
        rounded = windows.rounded_up
        return (function(x, windows.kernel, windows.stride, padding, rounded, counted),)
    else:
        means = function(pad_spatial(x, windows.covering, 0), windows.kernel, windows.stride)
    share = _counted_share(windows, counted)
    return (means if share is None else (means / share).astype(x.dtype),)


def _dilated_means(windows: Windows, x: Any) -> Any:
    """Return means over whole windows, zeros around the input counted, by a depthwise kernel."""
    channels = x.shape[1]
    weight = np.full((channels, 1, *windows.kernel), 1 / math.prod(windows.kernel)).astype(x.dtype)
    convolve = getattr(fastconv, f"conv{x.ndim - 2}d")
    return convolve(x, weight, None, windows.stride, windows.covering, windows.dilation, channels)


def _counted_share(windows: Windows, padding: bool) -> Any:
    """Return what part of each window's samples counts, by window; None where all do."""
    shares = np.ones((), np.float32)
    for axis, (outputs, (low, high)) in enumerate(zip(windows.outputs, windows.pads, strict=True)):
        inside = (low, low + windows.in_size[axis])
        first, end = (0, inside[1] + high) if padding else inside
        taps = np.arange(windows.kernel[axis]) * windows.dilation[axis]
        places = np.arange(outputs)[:, None] * windows.stride[axis] + taps
        # A window of padding alone is zero, whatever it is divided by.
        counts = np.maximum(1, np.count_nonzero((places >= first) & (places < end), axis=1))
        shares = shares[..., None] * (counts / windows.kernel[axis]).astype(np.float32)
    return None if np.all(shares == 1) else shares


def _lp_pool(node: Node, x: Any) -> tuple[Any, ...]:
    windows, power = _windows(node, x), node.get("p", 2)
    if max(windows.dilation) > 1:
        raise Refusal("fastconv's norms have no dilation")
    function = getattr(fastconv, f"lp_pool{x.ndim - 2}d")
    # Zeros do not change a norm; those of whole windows are no longer rounded.
    samples = pad_spatial(x, windows.covering, 0)
    if power % 2:
        samples = np.abs(samples)
    steps = [windows.kernel, windows.stride]
    return (function(samples, float(power), *(each if x.ndim > 3 else each[0] for each in steps)),)


def _global_pool(name: str, x: Any) -> tuple[Any, ...]:
    if x.ndim < 3:
        raise Refusal(f"the input has {x.ndim} axes and no spatial one")
    if x.ndim > 5:
        x = x.reshape(*x.shape[:3], -1)
    made = getattr(fastconv, f"{name}{min(x.ndim, 5) - 2}d")(x, 1)
    return (made,)


def _max_unpool(node: Node, x: Any, indices: Any, output_shape: Any = None) -> tuple[Any, ...]:
    ndim = spatial_axes(x)
    kernel, stride = node.sizes("kernel_shape", ndim), node.sizes("strides", ndim)
    along = zip(x.shape[2:], kernel, stride, read_pads(node, ndim), strict=True)
    sizes = tuple((size - 1) * step + k - sum(pads) for size, k, step, pads in along)
    if indices.shape != x.shape or indices.dtype != np.int64 or min(sizes) < 1:
        raise Refusal("indices are not those of such a pool")
    before = np.arange(x.shape[0] * x.shape[1]) * math.prod(sizes)
    places = indices - before.reshape(*x.shape[:2], *(1,) * ndim)
    function = getattr(fastconv, f"max_unpool{ndim}d")
    made = function(x, places, kernel, stride, output_size=sizes)
    if output_shape is None:
        return (made,)
    wanted = tuple(int(size) for size in output_shape)
    if len(wanted) != x.ndim or wanted[:2] != x.shape[:2]:
        raise Refusal(f"output_shape {wanted} is not that of such an input, {x.shape}")
    behind = tuple((0, size - least) for size, least in zip(wanted[2:], sizes, strict=True))
    if min(high for _, high in behind) < 0:
        raise Refusal(f"output_shape {wanted} is smaller than {sizes}")
    return (pad_spatial(made, behind, 0),)


def _col2im(node: Node, x: Any, image_shape: Any, block_shape: Any) -> tuple[Any, ...]:
    sizes, kernel = (tuple(int(size) for size in each) for each in (image_shape, block_shape))
    ndim = len(sizes)
    if not 1 <= ndim <= 3 or len(kernel) != ndim or x.ndim != 3:
        raise Refusal("fastconv folds columns of one to three spatial axes, with a batch")
    pads, stride = read_pads(node, ndim), node.sizes("strides", ndim)
    dilation = node.sizes("dilations", ndim)
    if all(low == high for low, high in pads):
        return (fastconv.fold(x, sizes, kernel, dilation, tuple(low for low, _ in pads), stride),)
    whole = tuple(size + sum(each) for size, each in zip(sizes, pads, strict=True))
    made = fastconv.fold(x, whole, kernel, dilation, 0, stride)
    within = (slice(low, low + size) for size, (low, _) in zip(sizes, pads, strict=True))
    return (made[(..., *within)],)


def _reduce_mean(node: Node, x: Any, axes: Any = None) -> tuple[Any, ...]:
    """Compute a mean over the last axes: a pool over everything that is there."""
    if x.dtype.kind != "f" and x.dtype.name != "bfloat16":
        raise Refusal(f"fastconv has means of floating point, the input is {x.dtype}")
    given = node.get("axes", None) if axes is None else np.ravel(axes).tolist()
    if not given:
        if node.get("noop_with_empty_axes", 0):
            raise Refusal("without axes nothing is to be done")
        given = list(range(x.ndim))
    last = sorted(axis % x.ndim if -x.ndim <= axis < x.ndim else axis for axis in given)
    count = len(last)
    if last != list(range(x.ndim - count, x.ndim)) or x.size == 0:
        raise Refusal(f"fastconv has means over the last axes, not over {given} of {x.ndim}")
    front = x.shape[: x.ndim - count]
    taken = x
    if count > _MOST_AXES:
        taken = x.reshape(*front, -1)
    elif x.ndim == count:
        taken = x[None]
    pooled = count if count <= _MOST_AXES else 1
    if taken.ndim not in (pooled + 1, pooled + 2):
        taken = taken.reshape(-1, *taken.shape[taken.ndim - pooled :])
    made = getattr(fastconv, f"adaptive_avg_pool{pooled}d")(taken, 1)
    behind = (1,) * count if node.get("keepdims", 1) else ()
    return (made.reshape(front + behind),)


POOLS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "AveragePool": _average_pool,
    "Col2Im": _col2im,
    "GlobalAveragePool": lambda node, x: _global_pool("adaptive_avg_pool", x),
    "GlobalMaxPool": lambda node, x: _global_pool("adaptive_max_pool", x),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "ReduceMean": _reduce_mean,
}
