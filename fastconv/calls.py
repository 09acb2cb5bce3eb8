"""What functions and modules share: arguments are checked once, then remembered.

A call's arguments become a `ConvProblem` and a `Binding`, and those a plan. All of it is kept under
a key of shapes, strides and settings, so a second call with equal ones computes at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import (
    Array,
    assign,
    check_writable,
    dtype_name,
    empty_output,
    empty_twin,
    is_writable,
    memory_layout,
    require_array,
    shares_memory,
)
from .config import config
from .device_arrays import DeviceArray
from .dispatch import Operands, make_plan, measure_choice, settings
from .errors import DeviceError, DTypeError, ShapeError
from .padding import canonical_padding, normalise_padding
from .problem import ConvProblem
from .spec import ACTIVATIONS, Binding, ConvPlan

__all__ = [
    "Activation",
    "Array",
    "Padding",
    "PreparedCall",
    "Sizes",
    "make_problem",
    "parse_activation",
    "per_axis",
    "prepare",
    "run_prepared",
    "unbatch",
    "whole_number",
]

Sizes = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Activation = str | tuple[str, float] | None


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """Everything about a call but its data: a second call with equal shapes computes at once.

    Parameters
    ----------
    plan : ConvPlan or None
        The kernel; None where there is nothing to compute.
    kernel : str
        Its name.
    out_shape : tuple of int
        Shape of the output.
    layout : str
        Memory order of an output that the call makes.
    """

    plan: ConvPlan | None
    kernel: str
    out_shape: tuple[int, ...]
    layout: str

    def pack(self, weight: Array) -> Array | None:
        """Return the weight in the kernel's order."""
        return None if self.plan is None else self.plan.pack(weight)

    def run(
        self,
        x: Array,
        packed: Array | None,
        bias: Array | None,
        residual: Array | None,
        out: Array | None,
    ) -> Array:
        """Compute, into `out` if there is one."""
        if out is None:
            out = empty_output(x, self.out_shape, self.layout)
        if self.plan is not None:
            self.plan.run(x, packed, bias, residual, out)
        return out


_prepared: dict[tuple[Any, ...], PreparedCall] = {}
_MOST_PREPARED = 4096


def _signature(array: Array) -> tuple[Any, ...]:
    return array.shape, array.strides, array.dtype


def is_plain(geometry: tuple[Any, ...]) -> bool:
    """Tell whether a geometry holds nothing but integers and tuples of them, or of their pairs.

    Such geometries are equal only where they mean the same: 1.0 and True, equal to 1, are no
    integers here.
    """
    for value in geometry:
        if type(value) is int:
            continue
        if type(value) is not tuple:
            return False
        for entry in value:
            if type(entry) is int:
                continue
            if type(entry) is not tuple:
                return False
            for number in entry:
                if type(number) is not int:
                    return False
    return True


def canonical_geometry(ndim: int, geometry: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Check stride, padding, dilation and groups and return them as integers, tuples and words."""
    stride, padding, dilation, groups = geometry
    return (
        per_axis("stride", stride, ndim),
        canonical_padding(padding, ndim),
        per_axis("dilation", dilation, ndim),
        whole_number("groups", groups),
    )


def prepare(
    ndim: int,
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: tuple[Any, Any, Any, Any],
    activation: Activation,
    residual: Array | None,
    out: Array | None,
    packed: bool,
    tune: bool,
) -> PreparedCall:
    """Return the prepared call for these arguments, from memory where it was made before.

    Parameters
    ----------
    ndim : int
        Spatial axes.
    x, weight, bias, residual, out : ndarray or None
        As for `conv2d`, with a batch axis.
    geometry : tuple
        ``(stride, padding, dilation, groups)`` as the caller gave them.
    activation : str, (str, float) or None
        As for `conv2d`.
    packed : bool
        Whether the weight is packed once for many calls, or in each.
    tune : bool
        Whether to measure which kernel is fastest, where that is not known yet.
    """
    # Every part of the key is checked when its entry is made, so a hit needs no check. Types are in
    # it because 1.0 equals 1, and because what looks like an array may be none.
    try:
        if not is_plain(geometry):
            geometry = canonical_geometry(ndim, geometry)
        key = (
            ndim, type(x), x.shape, x.strides, x.dtype,
            type(weight), weight.shape, weight.strides, weight.dtype, geometry, activation,
            None if bias is None else (type(bias), bias.shape, bias.dtype),
            None if residual is None else (type(residual), *_signature(residual)),
            None if out is None else (type(out), *_signature(out), is_writable(out)),
            packed, tune, settings(),
        )  # fmt: skip
        found = _prepared.get(key)
    except (AttributeError, TypeError):  # not arrays: the checks say so
        key, found = None, None
    if found is None:
        found = _prepare(ndim, x, weight, bias, geometry, activation, residual, out, packed, tune)
        if key is not None:
            if len(_prepared) >= _MOST_PREPARED:
                _prepared.clear()
            _prepared[key] = found
    return found


def _prepare(
    ndim: int, x: Any, weight: Any, bias: Any, geometry: tuple[Any, Any, Any, Any],
    activation: Activation, residual: Any, out: Any, packed: bool, tune: bool,
) -> PreparedCall:  # fmt: skip
    problem = make_problem(ndim, x, weight, geometry)
    name, alpha = parse_activation(activation)
    _check_companions(problem, x, weight, bias, residual, out)
    shape, layout = problem.out_shape, problem.layout
    if math.prod(shape) == 0:
        return PreparedCall(None, "", shape, layout)
    target = empty_output(x, shape, layout) if out is None else out
    binding = Binding(
        x.strides,
        weight.strides,
        target.strides,
        None if residual is None else residual.strides,
        name,
        alpha,
    )
    if tune or config.tune:
        scratch = target if out is None else empty_twin(out)
        operands = Operands(x, weight, bias, residual, scratch)
        if measure_choice(problem, binding, operands, packed):
            _prepared.clear()  # which may hold another choice for this problem
    spec, plan = make_plan(problem, binding, packed)
    return PreparedCall(plan, spec.name, shape, layout)


def make_problem(
    ndim: int, x: Any, weight: Any, geometry: tuple[Any, Any, Any, Any]
) -> ConvProblem:
    """Check input, weight and geometry and return the problem that they describe."""
    x, weight = require_array("input", x), require_array("weight", weight)
    if isinstance(weight, DeviceArray) and not isinstance(x, DeviceArray):
        raise DeviceError("input: got a NumPy array, want one on a GPU as the weight is")
    axes = ", ".join(("depth", "height", "width")[3 - ndim :])
    if x.ndim != ndim + 2:
        raise ShapeError(
            f"input: got {x.ndim} axes {x.shape}, want {ndim + 2} (batch, channels, {axes}) "
            f"or {ndim + 1} without the batch"
        )
    if weight.ndim != ndim + 2:
        raise ShapeError(
            f"weight: got {weight.ndim} axes {weight.shape}, want {ndim + 2} "
            f"(output channels, input channels / groups, {axes})"
        )
    if weight.dtype != x.dtype:
        raise DTypeError(f"weight: got {weight.dtype}, want {x.dtype} as the input has")
    stride, padding, dilation, groups = geometry
    stride, dilation = per_axis("stride", stride, ndim), per_axis("dilation", dilation, ndim)
    groups = whole_number("groups", groups)
    if groups < 1:
        raise ShapeError(f"groups: got {groups}, want at least 1")
    kernel = weight.shape[2:]
    if min(kernel) < 1 or weight.shape[0] < 1:
        raise ShapeError(f"weight: got shape {weight.shape}, want no axis of size 0")
    if weight.shape[1] * groups != x.shape[1]:
        raise ShapeError(
            f"weight: got {weight.shape[1]} input channels a group with groups={groups}, want "
            f"{x.shape[1]} / {groups} as the input has {x.shape[1]} channels"
        )
    for name, values in (("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise ShapeError(f"{name}: got {values}, want every value to be at least 1")
    pads = normalise_padding(padding, x.shape[2:], kernel, stride, dilation)
    return ConvProblem(
        x.shape[0],
        x.shape[1],
        weight.shape[0],
        x.shape[2:],
        kernel,
        stride,
        pads,
        dilation,
        groups,
        dtype_name("input", x.dtype),
        memory_layout(x),
        "cuda" if isinstance(x, DeviceArray) else "cpu",
    )


def whole_number(name: str, value: Any) -> int:
    """Return an integer of any type as Python's."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ShapeError(f"{name}: got {value!r}, want a whole number")
    return int(value.__index__())


def per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return one whole number an axis."""
    if isinstance(value, (tuple, list)):
        if len(value) != ndim:
            raise ShapeError(f"{name}: got {len(value)} values {value!r}, want 1 or {ndim}")
        return tuple(whole_number(name, entry) for entry in value)
    return (whole_number(name, value),) * ndim


def parse_activation(activation: Activation) -> tuple[str | None, float]:
    """Return an activation's name and parameter."""
    if activation is None:
        return None, 0.0
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: got {name!r}, want None or one of {', '.join(ACTIVATIONS)}")
    if alpha is None:
        return name, ACTIVATIONS[name]
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.number)):
        raise ValueError(f"activation: got the parameter {alpha!r} for {name}, want a number")
    return name, float(alpha)


def _check_companions(
    problem: ConvProblem, x: Array, weight: Array, bias: Any, residual: Any, out: Any
) -> None:
    """Check bias, residual and out against the problem."""
    shapes = {
        "bias": (bias, (problem.out_channels,)),
        "residual": (residual, problem.out_shape),
        "out": (out, problem.out_shape),
    }
    for name, (array, shape) in shapes.items():
        if array is None:
            continue
        require_array(name, array)
        if array.dtype != x.dtype:
            raise DTypeError(f"{name}: got {array.dtype}, want {x.dtype} as the input has")
        if array.shape != shape:
            raise ShapeError(f"{name}: got shape {array.shape}, want {shape}")
    if out is not None:
        check_writable("out", out)


def run_prepared(
    call: PreparedCall, x: Array, weight: Array, packed: Array | None, bias: Array | None,
    residual: Array | None, out: Array | None,
) -> Array:  # fmt: skip
    """Run a prepared call; through a copy where `out` shares memory with an operand."""
    if out is not None and shares_memory(out, (x, weight, bias, residual)):
        assign(out, call.run(x, packed, bias, residual, empty_twin(out)))
        return out
    return call.run(x, packed, bias, residual, out)


def unbatch(
    ndim: int, x: Array, residual: Array | None, out: Array | None
) -> tuple[Array, Array | None, Array | None]:
    """Give an unbatched input, residual and output a batch axis of size one."""
    for name, array in (("residual", residual), ("out", out)):
        if array is not None and require_array(name, array).ndim != ndim + 1:
            raise ShapeError(
                f"{name}: got {array.ndim} axes {array.shape}, want {ndim + 1} as the input has"
            )
    return (
        require_array("input", x)[None],
        None if residual is None else residual[None],
        None if out is None else out[None],
    )
