"""What a dense call's arrays and arguments describe: checked, and brought to a problem.

A message names the argument, what came and what is wanted; nothing is written before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import Array, check_writable, dtype_name, memory_layout, plain, require_array
from .companions import check_companion, check_groups, check_result, check_weight
from .contract.arguments import PRELU, Activation, canonical_dtype, parse_activation, per_axis
from .contract.errors import DeviceError, DTypeError, ShapeError
from .contract.padding import normalise_padding
from .contract.problem import INTEGERS, ConvProblem, result_dtypes
from .device_arrays import DeviceArray

if TYPE_CHECKING:
    from .contract.boundary_problem import BoundaryProblem
    from .contract.transposed_problem import TransposedProblem

__all__ = [
    "check_arrays",
    "check_companions",
    "check_input_channels",
    "make_problem",
    "problem_of_shapes",
    "unbatch",
]


def check_arrays(
    ndim: int, x: Any, weight: Any, leading: str, integers: bool = False
) -> tuple[Array, Array]:
    """Check what input and weight are; `leading` names the weight's first two axes.

    `integers` tells whether the operator has code for an input of integers.
    """
    x, weight = require_array("input", x, integers), require_array("weight", weight)
    if isinstance(weight, DeviceArray) and not isinstance(x, DeviceArray):
        raise DeviceError("input: got a NumPy array, want one on a GPU as the weight is")
    axes = ", ".join(("depth", "height", "width")[3 - ndim :])
    if x.ndim != ndim + 2:
        lacks = "; x[None, None] makes one of one channel" if x.ndim == ndim else ""
        raise ShapeError(
            f"input: got {x.ndim} axes {x.shape}, want {ndim + 2} (batch, channels, {axes}) "
            f"or {ndim + 1} without the batch{lacks}"
        )
    check_weight(weight, ndim, f"{leading}, {axes}")
    if x.dtype.name in INTEGERS:
        if weight.dtype != np.float32:
            raise DTypeError(f"weight: got {weight.dtype} with an input of {x.dtype}, want float32")
    elif weight.dtype != x.dtype:
        raise DTypeError(
            f"input: got {x.dtype} with a weight of {weight.dtype}, want one type: "
            f"weight.astype('{x.dtype}')"
        )
    return x, weight


def make_problem(
    ndim: int, x: Any, weight: Any, arguments: tuple[Any, ...], out: Any = None
) -> ConvProblem:
    """Check input, weight and arguments and return the problem that they describe.

    Behind stride, padding, dilation and groups may stand the result's element type; where it does
    not, that of `out` decides what becomes of integers.
    """
    leading = "output channels, input channels / groups"
    x, weight = check_arrays(ndim, x, weight, leading, integers=True)
    stride, padding, dilation, groups, *told = arguments
    stride, dilation = per_axis("stride", stride, ndim), per_axis("dilation", dilation, ndim)
    groups = check_groups(groups, weight)
    check_input_channels(
        x, weight.shape[1] * groups, f"{weight.shape[1]} input channels a group and groups={groups}"
    )
    dtype = dtype_name("input", x.dtype, integers=True)
    problem = problem_of_shapes(
        x.shape, weight.shape, (stride, padding, dilation, groups), dtype, memory_layout(x),
        "cuda" if isinstance(x, DeviceArray) else "cpu",
    )  # fmt: skip
    if told:
        return problem.with_(out_dtype=canonical_dtype(told[0]))
    if out is None or dtype not in INTEGERS:
        return problem
    result, wanted = require_array("out", out, integers=True).dtype, result_dtypes(dtype)
    if result.name not in wanted:
        raise DTypeError(f"out: got {result}, want {' or '.join(wanted)} for an input of {dtype}")
    return problem.with_(out_dtype=result.name)


def problem_of_shapes(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], arguments: tuple[Any, Any, Any, Any],
    *where: str,
) -> ConvProblem:  # fmt: skip
    """Return the convolution of two shapes; `where` are its element type, layout and device.

    Stride and dilation have one entry an axis; padding is as a caller gives it.
    """
    stride, padding, dilation, groups = arguments
    for name, values in (("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise ShapeError(f"{name}: got {values}, want every value to be at least 1")
    pads = normalise_padding(padding, x_shape[2:], weight_shape[2:], stride, dilation)
    return ConvProblem(
        x_shape[0], x_shape[1], weight_shape[0], x_shape[2:], weight_shape[2:], stride, pads,
        dilation, groups, *where,
    )  # fmt: skip


def check_input_channels(x: Array, channels: int, having: str) -> None:
    """Raise where an input has other channels than its weight, `having` so many, wants."""
    if x.shape[1] != channels:
        raise ShapeError(
            f"input: got {x.shape[1]} channels (axis 1 of {x.shape}) with a weight of {having}, "
            f"want {channels}" + _channels_last_hint(x.shape, channels)
        )


def _channels_last_hint(shape: tuple[int, ...], channels: int) -> str:
    """Return how to call with an input whose channels stand last, where they seem to."""
    if shape[-1] != channels:
        return ""
    return (
        f"; the last axis has {channels}: if it is the channels, give "
        f"numpy.moveaxis(input, -1, {1 - len(shape)}), which copies nothing"
    )


def check_companions(
    problem: ConvProblem | TransposedProblem | BoundaryProblem,
    x: Array,
    weight: Array,
    bias: Any,
    residual: Any,
    out: Any,
    activation: Activation,
) -> tuple[str | None, float]:
    """Check bias, residual and out against the problem; of prelu also the bias's row of slopes.

    Returns the activation's name and parameter: it is checked where nothing is computed too.
    """
    parsed = parse_activation(activation)
    channels = (problem.out_channels,)
    one_type = problem.result_dtype == problem.dtype and problem.dtype not in INTEGERS
    model, of_model = (x, "input") if one_type else (weight, "weight")
    if activation is PRELU:
        check_companion("activation", bias[1], channels, model, of_model)
        bias = bias[0]
    shapes = {
        "bias": (bias, channels),
        "residual": (residual, problem.out_shape),
        "out": (out, problem.out_shape),
    }
    for name, (array, shape) in shapes.items():
        if array is None:
            continue
        if one_type or name == "bias":
            check_companion(name, array, shape, model, of_model)
        else:
            check_result(name, array, shape, problem.result_dtype)
    if out is not None:
        check_writable("out", out)
    return parsed


def unbatch(
    ndim: int, x: Array, residual: Array | None, out: Array | None
) -> tuple[Array, Array | None, Array | None]:
    """Give an unbatched input, residual and output a batch axis of size one."""
    for name, array in (("residual", residual), ("out", out)):
        if array is not None and require_array(name, array, True).ndim != ndim + 1:
            raise ShapeError(
                f"{name}: got {array.ndim} axes {array.shape}, want {ndim + 1} as the input has"
            )
    return (
        _one_image(require_array("input", x, True)),
        None if residual is None else _one_image(residual),
        None if out is None else _one_image(out),
    )


def _one_image(array: Array) -> Array:
    """Return an array with a batch axis; no subclass of NumPy's array has a say in its form."""
    return plain(array)[None]
