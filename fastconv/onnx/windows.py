"""Where windows lie: ONNX's pads, ``auto_pad`` and rounding, in numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .node import Misfit, Node, Refusal

__all__ = ["Windows", "pad_spatial", "read_pads", "read_windows", "spatial_axes"]

#: Zeros before and behind each spatial axis.
Pads = tuple[tuple[int, int], ...]


def spatial_axes(x: Any) -> int:
    """Return the spatial axes of an input, of which kernels know one to three."""
    ndim = int(x.ndim) - 2
    if not 1 <= ndim <= 3:
        raise Refusal(f"fastconv has one to three spatial axes, the input has {ndim}")
    return ndim


def read_pads(node: Node, ndim: int) -> Pads:
    """Return the attribute ``pads``: before and behind each axis."""
    given = node.sizes("pads", 2 * ndim, 0)
    if min(given) < 0:
        raise Refusal(f"pads: got {list(given)}, want none below 0")
    return tuple(zip(given[:ndim], given[ndim:], strict=True))


class Windows(NamedTuple):
    """Windows over an input, by spatial axis.

    Parameters
    ----------
    in_size, kernel, stride, dilation : tuple of int
        Samples of the input, taps, and from one window and tap to the next.
    pads : tuple of (int, int)
        Samples that are missing before and behind.
    outputs : tuple of int
        How many windows there are.
    """

    in_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pads
    outputs: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Samples from the first tap of a window to its last."""
        along = zip(self.kernel, self.dilation, strict=True)
        return tuple(dilation * (kernel - 1) + 1 for kernel, dilation in along)

    @property
    def rounded_up(self) -> bool:
        """Whether the last window of an axis begins within the padding, or reaches beyond it."""
        return self.outputs != tuple(
            map(_outputs, self.in_size, self.reach, self.stride, self.pads)
        )

    @property
    def covering(self) -> Pads:
        """Pads with which all windows, and no more, lie within the padded input."""
        along = zip(self.in_size, self.reach, self.stride, self.pads, self.outputs, strict=True)
        return tuple(
            (low, max(0, (outputs - 1) * stride + reach - size - low))
            for size, reach, stride, (low, _), outputs in along
        )


def read_windows(node: Node, in_size: tuple[int, ...], kernel: tuple[int, ...]) -> Windows:
    """Return the windows of a node over an input of these sizes."""
    ndim = len(in_size)
    stride, dilation = node.sizes("strides", ndim), node.sizes("dilations", ndim)
    if min(*kernel, *stride, *dilation) < 1:
        raise Refusal("a kernel, a stride or a dilation is below 1")
    empty: Pads = ((0, 0),) * ndim
    windows = Windows(in_size, kernel, stride, dilation, empty, in_size)
    pads, up = _pads(node, windows), bool(node.get("ceil_mode", 0))
    if up and node.get("auto_pad", "NOTSET") != "NOTSET":
        raise Refusal("ceil_mode beside auto_pad has no one meaning")
    outputs = tuple(
        _outputs(*axis, up) for axis in zip(in_size, windows.reach, stride, pads, strict=True)
    )
    if min(outputs) < 1:
        raise Misfit(
            f"kernel_shape: got {kernel}, reaching over {windows.reach} samples, want one within "
            f"the input's {in_size}, padded by {pads}"
        )
    return windows._replace(pads=pads, outputs=outputs)


def _pads(node: Node, windows: Windows) -> Pads:
    auto = node.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return read_pads(node, len(windows.in_size))
    if auto == "VALID":
        return windows.pads
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refusal(f"auto_pad: got {auto!r}, want NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    made = []
    for size, reach, stride in zip(windows.in_size, windows.reach, windows.stride, strict=True):
        missing = max(0, (-(-size // stride) - 1) * stride + reach - size)
        low = missing // 2 if auto == "SAME_UPPER" else missing - missing // 2
        made.append((low, missing - low))
    return tuple(made)


def _outputs(size: int, reach: int, stride: int, pads: tuple[int, int], up: bool = False) -> int:
    """Return the windows along an axis; where they are rounded up the last begins in the input."""
    room = size + sum(pads) - reach
    if not up:
        return room // stride + 1
    outputs = -(-room // stride) + 1
    return outputs - ((outputs - 1) * stride >= size + pads[0])


def pad_spatial(x: Any, pads: Pads, value: float) -> Any:
    """Return an input with samples around its spatial axes; itself where there are none."""
    if not any(map(any, pads)):
        return x
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)
