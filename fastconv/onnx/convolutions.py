"""Operators that have a weight: convolutions and matrix products.

Each is told in three steps, so that a weight that is a constant can be packed once: which layer it
is, with which arguments, and on which arrays it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastconv

from .node import Node, Refusal
from .windows import pad_spatial, read_pads, read_windows, spatial_axes

__all__ = ["WEIGHTED", "Call", "compute_weighted"]


class Call(NamedTuple):
    """A call of an operator with a weight.

    Parameters
    ----------
    function, layer : str
        fastconv's names of the function and of the object that packs its weight.
    weight, bias : array
        As both take them; a bias may be None.
    arguments : tuple of (str, object)
        Their arguments beside the arrays, by name.
    inputs : tuple of (str, array)
        Arrays of the call, by name.
    """

    function: str
    layer: str
    weight: Any
    bias: Any
    arguments: tuple[tuple[str, Any], ...]
    inputs: tuple[tuple[str, Any], ...]


def _check_kernel(node: Node, weight: Any, ndim: int) -> tuple[int, ...]:
    """Return the sizes of a kernel, which the weight and an attribute may tell."""
    if weight.ndim != ndim + 2:
        raise Refusal(f"the weight has {weight.ndim} axes, the input {ndim + 2}")
    kernel: tuple[int, ...] = weight.shape[2:]
    if node.get("kernel_shape", None) and node.sizes("kernel_shape", ndim) != kernel:
        raise Refusal(f"kernel_shape is not that of the weight, {kernel}")
    return kernel


def _conv(node: Node, x: Any, weight: Any, bias: Any = None) -> Call:
    ndim = spatial_axes(x)
    windows = read_windows(node, x.shape[2:], _check_kernel(node, weight, ndim))
    arguments = {
        "stride": windows.stride,
        "padding": windows.pads,
        "dilation": windows.dilation,
        "groups": int(node.get("group", 1)),
    }
    names = f"conv{ndim}d", f"Conv{ndim}d"
    return Call(*names, weight, bias, tuple(arguments.items()), (("input", x),))


def _conv_transpose(node: Node, x: Any, weight: Any, bias: Any = None) -> Call:
    ndim = spatial_axes(x)
    kernel = _check_kernel(node, weight, ndim)
    stride, dilation = node.sizes("strides", ndim), node.sizes("dilations", ndim)
    more = node.sizes("output_padding", ndim, 0)
    along = zip(x.shape[2:], kernel, stride, dilation, strict=True)
    whole = tuple((n - 1) * step + hole * (k - 1) + 1 for n, k, step, hole in along)
    pads, more = _cropped(node, x.shape[2:], whole, stride, more)
    if any(n >= max(step, hole) for n, step, hole in zip(more, stride, dilation, strict=True)):
        raise Refusal(f"fastconv adds fewer samples than a stride or a dilation, not {more}")
    arguments = {
        "stride": stride,
        "padding": pads,
        "output_padding": more,
        "groups": int(node.get("group", 1)),
        "dilation": dilation,
    }
    names = f"conv_transpose{ndim}d", f"ConvTranspose{ndim}d"
    return Call(*names, weight, bias, tuple(arguments.items()), (("input", x),))


def _cropped(
    node: Node, in_size: tuple[int, ...], whole: tuple[int, ...], stride: tuple[int, ...],
    more: tuple[int, ...],
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:  # fmt: skip
    """Return what is cropped of whole outputs, and how many samples are added behind them."""
    ndim, auto = len(in_size), node.get("auto_pad", "NOTSET")
    wanted = tuple(node.get("output_shape", None) or ())[-ndim:]
    if not wanted and auto in ("NOTSET", "VALID"):
        return read_pads(node, ndim) if auto == "NOTSET" else ((0, 0),) * ndim, more
    if not wanted:
        wanted = tuple(size * step for size, step in zip(in_size, stride, strict=True))
    pads, added = [], []
    for size, made, extra in zip(wanted, whole, more, strict=True):
        missing = made + extra - size
        if missing < 0:
            pads.append((0, 0))
            added.append(extra - missing)
            continue
        low = missing // 2 if auto == "SAME_UPPER" else missing - missing // 2
        pads.append((low, missing - low))
        added.append(extra)
    return tuple(pads), tuple(added)


def _deform_conv(
    node: Node, x: Any, weight: Any, offset: Any, bias: Any = None, mask: Any = None
) -> Call:
    if x.ndim != 4:
        raise Refusal(f"fastconv deforms convolutions of images, the input has {x.ndim} axes")
    windows = read_windows(node, x.shape[2:], _check_kernel(node, weight, 2))
    groups, offset_groups = int(node.get("group", 1)), int(node.get("offset_group", 1))
    if x.shape[1] != weight.shape[1] * groups:
        raise Refusal(f"group is not that of the weight, {weight.shape}")
    if offset.shape[1] != 2 * offset_groups * windows.kernel[0] * windows.kernel[1]:
        raise Refusal(f"offset_group is not that of the offset, {offset.shape}")
    padding = tuple(min(pads) for pads in windows.pads)
    rest = tuple(
        (low - least, high - least)
        for (low, high), least in zip(windows.pads, padding, strict=True)
    )
    inputs = {"input": pad_spatial(x, rest, 0), "offset": offset, "mask": mask}
    arguments = {"stride": windows.stride, "padding": padding, "dilation": windows.dilation}
    return Call(
        "deform_conv2d", "DeformConv2d", weight, bias, tuple(arguments.items()),
        tuple(inputs.items()),
    )  # fmt: skip


def _gemm(node: Node, a: Any, b: Any, c: Any = None) -> Call:
    if a.ndim != 2 or b.ndim != 2:
        raise Refusal("an operand is no matrix")
    if node.get("alpha", 1.0) != 1.0 or (c is not None and node.get("beta", 1.0) != 1.0):
        raise Refusal("fastconv has no factors of a product: alpha or beta is not 1")
    rows = a.T if node.get("transA", 0) else a
    weight = b if node.get("transB", 0) else b.T
    bias = None if c is None else _row(c, weight.shape[0])
    return Call("linear", "Linear", weight, bias, (), (("input", rows),))


def _row(bias: Any, columns: int) -> Any:
    """Return what is added to each row of a product as a vector."""
    if bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1) or bias.size not in (1, columns):
        raise Refusal(f"what is added, {bias.shape}, is not the same for all rows")
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (columns,)))


def _matmul(node: Node, a: Any, b: Any) -> Call:
    if b.ndim != 2 or a.ndim < 2:
        raise Refusal("fastconv multiplies by one matrix")
    return Call("linear", "Linear", b.T, None, (), (("input", a),))


#: By ONNX's name, what tells the call of a node on arrays; it raises `Refusal` where there is none.
WEIGHTED: dict[str, Callable[..., Call]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def compute_weighted(node: Node, *arrays: Any) -> tuple[Any, ...]:
    """Compute a node with a weight by the functional form."""
    call = WEIGHTED[node.kind](node, *arrays)
    function = getattr(fastconv, call.function)
    given = dict(call.inputs) | dict(call.arguments)
    return (function(weight=call.weight, bias=call.bias, **given),)
