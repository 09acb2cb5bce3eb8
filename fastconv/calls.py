"""What functions and layers share: arguments are checked once, then remembered.

A call's arguments become a `ConvProblem` and a `Binding`, and those a plan. All of it is kept under
a key of shapes, strides and settings, so a second call with equal ones computes at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import recall, tuning
from .arrays import (
    Array,
    assign,
    check_writable,
    dtype_name,
    empty_output,
    empty_twin,
    is_writable,
    memory_layout,
    normal_strides,
    plain,
    require_array,
    shares_memory,
)
from .companions import check_companion, check_groups, check_weight
from .contract.arguments import (
    Activation,
    canonical_activation,
    canonical_arguments,
    flag,
    is_plain,
    parse_activation,
    per_axis,
)
from .contract.errors import DeviceError, DTypeError, ShapeError
from .contract.padding import normalise_padding
from .contract.problem import ConvProblem
from .contract.settings import config
from .contract.spec import Binding, ConvPlan, KernelSpec
from .device_arrays import DeviceArray
from .dispatch import make_plan, plan_of, settings
from .race import Operands, measure_choice, trial
from .trim import Taps, trim

if TYPE_CHECKING:
    from .contract.boundary_problem import BoundaryProblem
    from .contract.transposed_problem import TransposedProblem

__all__ = [
    "CONV",
    "Family",
    "PreparedCall",
    "check_arrays",
    "check_companions",
    "check_input_channels",
    "make_problem",
    "prepare",
    "problem_of_shapes",
    "run_prepared",
    "unbatch",
]


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
    taps : tuple of (int, int) or None
        The part of the weight that the plan is for, by spatial axis; None for all of it.
    packing : hashable
        Name of the packed weight: calls with equal `packing` share it.
    plain : bool
        Whether no array is of a subclass of NumPy's, whose shape and indexing may be its own.
    remembers : bool
        Whether the functional form remembers the packed weight.
    """

    plan: ConvPlan | None
    kernel: str
    out_shape: tuple[int, ...]
    layout: str
    taps: Taps | None = None
    packing: Hashable = None
    plain: bool = True
    remembers: bool = False

    def pack(self, weight: Array) -> Array | None:
        """Return the weight in the kernel's order."""
        if self.plan is None:
            return None
        return self.plan.pack(_tapped(weight if self.plain else plain(weight), self.taps))

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


def _tapped(weight: Array, taps: Taps | None) -> Array:
    """Return the part of a weight that a trimmed problem has."""
    if taps is None:
        return weight
    return weight[(slice(None), slice(None), *(slice(first, end) for first, end in taps))]


#: Types of arrays whose shape and strides are what they say; others are looked at anew each time.
_PLAIN = (np.ndarray, DeviceArray, type(None))

_prepared: dict[tuple[Any, ...], Any] = {}
_MOST_PREPARED = 4096


def _signature(array: Array) -> tuple[Any, ...]:
    return array.shape, array.strides, array.dtype


class Family(NamedTuple):
    """Operators of one to three axes that are called alike.

    Parameters
    ----------
    name : str
        What tells their prepared calls from those of others.
    canonical : callable
        ``canonical(ndim, arguments)`` checks the arguments beside the arrays and returns them as
        integers, tuples and words.
    prepare : callable
        Makes a prepared call of what `prepare` is given.
    """

    name: str
    canonical: Callable[[int, tuple[Any, ...]], tuple[Any, ...]]
    prepare: Callable[..., Any]


def prepare(
    family: Family,
    ndim: int,
    x: Array,
    weight: Array,
    bias: Array | None,
    arguments: tuple[Any, ...],
    activation: Activation,
    residual: Array | None,
    out: Array | None,
    packed: bool,
    tune: bool,
) -> Any:
    """Return the prepared call for these arguments, from memory where it was made before.

    Parameters
    ----------
    family : Family
        Of which operator.
    ndim : int
        Spatial axes.
    x, weight, bias, residual, out : ndarray or None
        As for `conv2d`, with a batch axis.
    arguments : tuple
        Of a convolution ``(stride, padding, dilation, groups)``, as the caller gave them.
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
        if not is_plain(arguments):
            arguments = family.canonical(ndim, arguments)
        if activation is not None and type(activation) is not str:
            activation = canonical_activation(activation)
        key = (
            family.name, ndim, type(x), x.shape, x.strides, x.dtype,
            type(weight), weight.shape, weight.strides, weight.dtype, arguments, activation,
            None if bias is None else (type(bias), bias.shape, bias.dtype),
            None if residual is None else (type(residual), *_signature(residual)),
            None if out is None else (type(out), *_signature(out), is_writable(out)),
            packed, tune, settings(),
        )  # fmt: skip
        prepared = _prepared.get(key)
    except (AttributeError, TypeError):  # not arrays: the checks say so
        key, prepared = None, None
    if prepared is None:
        if arrays := _made_plain(x, weight, bias, residual, out):
            x, weight, bias, residual, out = arrays
            prepared = prepare(
                family, ndim, x, weight, bias, arguments, activation, residual, out, packed, tune
            )
            return replace(prepared, plain=False)
        prepared = family.prepare(
            ndim, x, weight, bias, arguments, activation, residual, out, packed, tune
        )
        # A call that may have wanted to measure and could not is free to do so the next time.
        if key is not None and not tuning.must_not_race():
            if len(_prepared) >= _MOST_PREPARED:
                _prepared.clear()
            _prepared[key] = prepared
    return prepared


def _made_plain(
    x: Any, weight: Any, bias: Any, residual: Any, out: Any
) -> tuple[Array | None, ...] | None:
    """Return the arrays as NumPy knows them, None where they are of its own type all of them."""
    named = {"input": x, "weight": weight, "bias": bias, "residual": residual, "out": out}
    if all(type(array) in _PLAIN for array in named.values()):
        return None
    return tuple(None if a is None else require_array(name, a) for name, a in named.items())


def _prepare(
    ndim: int, x: Any, weight: Any, bias: Any, arguments: tuple[Any, Any, Any, Any],
    activation: Activation, residual: Any, out: Any, packed: bool, tune: bool,
) -> PreparedCall:  # fmt: skip
    problem = make_problem(ndim, x, weight, arguments)
    name, alpha = parse_activation(activation)
    check_companions(problem, x, weight, bias, residual, out)
    shape, layout = problem.out_shape, problem.layout
    if math.prod(shape) == 0:
        return PreparedCall(None, "", shape, layout)
    remembers = type(weight) is np.ndarray and recall.calls(weight.nbytes) > 1
    problem, taps = trim(problem)
    weight = _tapped(weight, taps)
    target = empty_output(x, shape, layout) if out is None else out
    binding = Binding(
        normal_strides(x),
        normal_strides(weight),
        normal_strides(target),
        None if residual is None else normal_strides(residual),
        name,
        alpha,
    )
    if flag("tune", tune) or config.tune:
        scratch = target if out is None else empty_twin(out)
        operands = Operands(x, weight, bias, residual, scratch)

        def prepare_trial(spec: KernelSpec, once: bool) -> Callable[[], None]:
            return trial(plan_of(spec, problem, binding), operands, once)

        if measure_choice(problem, packed, prepare_trial):
            _prepared.clear()  # which may hold another choice for this problem
    spec, plan = make_plan(problem, binding, packed)
    packing = taps, plan.packing
    return PreparedCall(plan, spec.name, shape, layout, taps, packing, remembers=remembers)


CONV = Family("conv", canonical_arguments, _prepare)


def check_arrays(ndim: int, x: Any, weight: Any, leading: str) -> tuple[Array, Array]:
    """Check what input and weight are; `leading` names the weight's first two axes."""
    x, weight = require_array("input", x), require_array("weight", weight)
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
    if weight.dtype != x.dtype:
        raise DTypeError(f"input: got {x.dtype} with a weight of {weight.dtype}, want one type")
    return x, weight


def make_problem(
    ndim: int, x: Any, weight: Any, arguments: tuple[Any, Any, Any, Any]
) -> ConvProblem:
    """Check input, weight and arguments and return the problem that they describe."""
    x, weight = check_arrays(ndim, x, weight, "output channels, input channels / groups")
    stride, padding, dilation, groups = arguments
    stride, dilation = per_axis("stride", stride, ndim), per_axis("dilation", dilation, ndim)
    groups = check_groups(groups, weight)
    check_input_channels(
        x, weight.shape[1] * groups, f"{weight.shape[1]} input channels a group and groups={groups}"
    )
    return problem_of_shapes(
        x.shape, weight.shape, (stride, padding, dilation, groups), dtype_name("input", x.dtype),
        memory_layout(x), "cuda" if isinstance(x, DeviceArray) else "cpu",
    )  # fmt: skip


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
) -> None:
    """Check bias, residual and out against the problem."""
    shapes = {
        "bias": (bias, (problem.out_channels,)),
        "residual": (residual, problem.out_shape),
        "out": (out, problem.out_shape),
    }
    for name, (array, shape) in shapes.items():
        if array is not None:
            check_companion(name, array, shape, x, "input")
    if out is not None:
        check_writable("out", out)


def run_prepared(
    call: Any, x: Array, weight: Array, packed: Array | None, bias: Array | None,
    residual: Array | None, out: Array | None,
) -> Array:  # fmt: skip
    """Run a prepared call; through a copy where `out` shares memory with an operand."""
    if not call.plain:
        x, weight, bias, residual, target = (
            None if array is None else plain(array) for array in (x, weight, bias, residual, out)
        )
        made = run_prepared(replace(call, plain=True), x, weight, packed, bias, residual, target)
        return made if out is None else out
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
        _one_image(require_array("input", x)),
        None if residual is None else _one_image(residual),
        None if out is None else _one_image(out),
    )


def _one_image(array: Array) -> Array:
    """Return an array with a batch axis; no subclass of NumPy's array has a say in its form."""
    return plain(array)[None]
