"""What functions and layers share: arguments are checked once, then remembered.

A call's arguments become a `ConvProblem` and a `Binding`, and those a plan. All of it is kept under
a key of shapes, strides and settings, so a second call with equal ones computes at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from . import recall, tuning
from .arrays import (
    Array,
    assign,
    dtype_of,
    empty_output,
    empty_twin,
    is_writable,
    normal_strides,
    plain,
    require_array,
    shares_memory,
)
from .contract.arguments import (
    Activation,
    canonical_activation,
    canonical_arguments,
    flag,
    is_plain,
)
from .contract.settings import config
from .contract.spec import Binding, ConvPlan, KernelSpec
from .dense_problem import check_companions, make_problem
from .device_arrays import DeviceArray
from .dispatch import make_plan, plan_of, settings
from .race import Operands, measure_choice, trial
from .trim import Taps, trim

__all__ = [
    "CONV",
    "Family",
    "PreparedCall",
    "prepare",
    "run_prepared",
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
    dtype : dtype or None
        Element type of an output that the call makes; None where it is the input's.
    """

    plan: ConvPlan | None
    kernel: str
    out_shape: tuple[int, ...]
    layout: str
    taps: Taps | None = None
    packing: Hashable = None
    plain: bool = True
    remembers: bool = False
    dtype: np.dtype[Any] | None = None

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
            out = empty_output(x, self.out_shape, self.layout, self.dtype)
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
        As for `conv2d`, with a batch axis; bias and activation are those of `join_slopes`.
    arguments : tuple
        Of a convolution ``(stride, padding, dilation, groups)``, as the caller gave them, and the
        result's element type where it was told.
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
    return tuple(None if a is None else require_array(name, a, True) for name, a in named.items())


def _prepare(
    ndim: int, x: Any, weight: Any, bias: Any, arguments: tuple[Any, ...],
    activation: Activation, residual: Any, out: Any, packed: bool, tune: bool,
) -> PreparedCall:  # fmt: skip
    problem = make_problem(ndim, x, weight, arguments, out)
    name, alpha = check_companions(problem, x, weight, bias, residual, out, activation)
    shape, layout = problem.out_shape, problem.layout
    dtype = dtype_of(problem.result_dtype) if problem.result_dtype != problem.dtype else None
    if math.prod(shape) == 0:
        return PreparedCall(None, "", shape, layout, dtype=dtype)
    remembers = type(weight) is np.ndarray and recall.calls(weight.nbytes) > 1
    problem, taps = trim(problem)
    weight = _tapped(weight, taps)
    target = empty_output(x, shape, layout, dtype) if out is None else out
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
    return PreparedCall(
        plan, spec.name, shape, layout, taps, packing, remembers=remembers, dtype=dtype
    )


CONV = Family("conv", canonical_arguments, _prepare)


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
