"""How operators without a weight of their own are called.

An operator is an `ArrayOp`: its name, its operands and a function that checks a call's arguments
and returns the problem. Everything else is done here once: plans are kept under a key of shapes,
strides and settings, outputs are made in the input's memory order, `out` may share memory with an
operand, and `fastconv.ops.telling` catches the problem of a call that is not to be made.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import tuning
from ..arrays import (
    Array,
    assign,
    check_writable,
    dtype_name,
    empty_array,
    empty_twin,
    is_writable,
    normal_strides,
    plain,
    require_array,
    shares_memory,
)
from ..companions import check_memory
from ..contract.array_problem import ArrayBinding, ArrayProblem, Operand
from ..contract.errors import DTypeError, ShapeError, renamed
from ..contract.settings import config
from ..contract.spec import ArrayPlan, KernelSpec
from ..dispatch import make_plan, plan_of, settings, steady_choice
from ..packing import PackedWeights
from ..race import measure_choice
from ..recall import recall
from .telling import asked, tell

__all__ = [
    "MODULES",
    "ArrayOp",
    "check_axes",
    "compute",
    "compute_batch",
]


#: Modules whose public functions end in `compute`.
MODULES = (
    "fastconv.grad.deform",
    "fastconv.grad.max_pool",
    "fastconv.grad.norm",
    "fastconv.grad.pool",
    "fastconv.grad.resize",
    "fastconv.ops.adaptive_pool",
    "fastconv.ops.deform",
    "fastconv.ops.linear",
    "fastconv.ops.norm",
    "fastconv.ops.padding",
    "fastconv.ops.pointwise",
    "fastconv.ops.pool",
    "fastconv.ops.rearrange",
    "fastconv.ops.resize",
    "fastconv.ops.separable",
    "fastconv.ops.separable_layers",
    "fastconv.ops.softmax",
    "fastconv.ops.unfold",
    "fastconv.ops.unpool",
)


class ArrayOp(NamedTuple):
    """An operator without a weight of its own.

    Parameters
    ----------
    name : str
        What tells its calls from those of others, and what messages call it.
    operands : tuple of str
        Arguments that are arrays, in the order in which they are given.
    problem : callable
        ``problem(arrays, arguments)`` checks both and returns what is to be computed. An array is
        None where it is not given; its problem then does not name it among its `inputs`.
    integers : tuple of str
        Those operands that hold int64.
    check : callable, optional
        ``check(problem, arrays)`` looks at what the operands of each call hold, before anything is
        written.
    optional : tuple of str
        Those that may be None.
    weight : str
        The operand that is packed, once for many calls; "" where there is none.
    names : tuple of (str, str)
        Sizes of the problem, and the arguments that tell them, which messages name.
    whole : bool
        Whether the others may hold integers of 8 and 16 bits.
    """

    name: str
    operands: tuple[str, ...]
    problem: Callable[[tuple[Any, ...], tuple[Any, ...]], ArrayProblem]
    integers: tuple[str, ...] = ()
    check: Callable[[Any, tuple[Any, ...]], None] | None = None
    optional: tuple[str, ...] = ()
    weight: str = ""
    names: tuple[tuple[str, str], ...] = (("in_size", "input"),)
    whole: bool = False


class _Output(NamedTuple):
    """How memory for an output is made: its shape, element type and memory order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything about a call but its data."""

    problem: ArrayProblem
    plan: ArrayPlan | None
    outputs: tuple[_Output, ...]
    #: Which of the operands that are given is packed; none where it is -1.
    packs: int = -1


_prepared: dict[tuple[Any, ...], _Prepared] = {}
_MOST_PREPARED = 4096
#: Types of arguments that mean the same where they are equal and of one type.
_WORDS = frozenset((int, bool, float, str, type(None)))


def check_axes(name: str, array: Array, ndim: int) -> None:
    """Raise where an array has not a batch axis, channels and so many spatial axes."""
    if array.ndim != ndim + 2:
        axes = ", ".join(("depth", "height", "width")[3 - ndim :])
        raise ShapeError(
            f"{name}: got {array.ndim} axes {array.shape}, want {ndim + 2} (batch, channels, "
            f"{axes}) or {ndim + 1} without the batch"
        )


def compute_batch(
    op: ArrayOp, ndim: int, arrays: tuple[Any, ...], arguments: tuple[Any, ...],
    out: Array | None = None, batched: tuple[str, ...] = ("input",),
    kept: PackedWeights | None = None,
) -> Any:  # fmt: skip
    """Compute a call of `ndim` spatial axes, whose batch axis may be missing.

    `batched` names the operands that have one where the first operand has.
    """
    if getattr(arrays[0], "ndim", 0) != ndim + 1:
        return compute(op, arrays, arguments, out, kept)
    given = dict(zip(op.operands, arrays, strict=True)) | {"out": out}
    made: dict[str, Any] = {}
    for name, array in given.items():
        if array is None or (name not in batched and name != "out"):
            made[name] = array
            continue
        if name == "out":
            array = require_array(name, array, op.whole)
        else:
            array = _require_operand(op, name, array)
        if array.ndim != ndim + 1:
            raise ShapeError(
                f"{name}: got {array.ndim} axes {array.shape}, want {ndim + 1} as the "
                f"{op.operands[0]} has"
            )
        made[name] = plain(array)[None]
    target = made.pop("out")
    result = compute(op, tuple(made.values()), arguments, target, kept)
    if isinstance(result, tuple):
        return tuple(out if each is target and out is not None else each[0] for each in result)
    return result[0] if out is None else out


def compute(
    op: ArrayOp, arrays: tuple[Any, ...], arguments: tuple[Any, ...], out: Array | None = None,
    kept: PackedWeights | None = None,
) -> Any:  # fmt: skip
    """Compute a call.

    Parameters
    ----------
    op : ArrayOp
        The operator.
    arrays : tuple of (array or None)
        Its operands.
    arguments : tuple
        What stands beside them, as the caller gave it.
    out : ndarray, optional
        Where the first output is written.
    kept : PackedWeights, optional
        Where the packed weight is kept; by default it is remembered as functional calls do.

    Returns
    -------
    ndarray or tuple of ndarray
        The output, or all where the problem has several.
    """
    prepared = _find(op, arrays, arguments, out)
    given = arrays
    for array in arrays:
        if type(array) is not np.ndarray:
            given = tuple(plain(each) for each in arrays if each is not None)
            break
    if op.check is not None:
        op.check(prepared.problem, given)
    if out is not None:
        return _compute_into(prepared, given, out, kept)
    made = [empty_array(*output) for output in prepared.outputs]
    if prepared.plan is not None:
        prepared.plan.run(*_packed(prepared, given, kept), *made)
    return made[0] if len(made) == 1 else tuple(made)


def _compute_into(
    prepared: _Prepared, given: tuple[Array, ...], out: Array, kept: PackedWeights | None
) -> Any:
    """Compute a call whose first output is written into `out`."""
    target = plain(out)
    aliased = shares_memory(target, given)
    made = [empty_twin(target) if aliased else target]
    made += [empty_array(*output) for output in prepared.outputs[1:]]
    if prepared.plan is not None:
        prepared.plan.run(*_packed(prepared, given, kept), *made)
    if aliased:
        assign(target, made[0])
    made[0] = out
    return out if len(made) == 1 else tuple(made)


def _packed(
    prepared: _Prepared, given: tuple[Array, ...], kept: PackedWeights | None
) -> tuple[Array, ...]:
    """Return the inputs with the weight, if there is one, in the kernel's order."""
    at, plan = prepared.packs, prepared.plan
    if at < 0 or plan is None:
        return given
    weight = given[at]
    if kept is None:
        packed = recall.find(plan.packing, weight, plan.pack)
    else:
        packed = kept.find(plan.packing, lambda: plan.pack(weight))
    return (*given[:at], packed, *given[at + 1 :])


def _output(operand: Operand, problem: ArrayProblem, dtype: np.dtype[Any]) -> _Output:
    """Return how an output is made: in the input's memory order, and by default of its type."""
    layout = problem.layout if len(operand.shape) > 2 else "channels_first"
    return _Output(operand.shape, np.dtype(operand.dtype) if operand.dtype else dtype, layout)


def _signature(array: Any) -> tuple[Any, ...] | None:
    if array is None:
        return None
    return type(array), array.shape, array.strides, array.dtype


def _find(op: ArrayOp, arrays: tuple[Any, ...], arguments: tuple[Any, ...], out: Any) -> _Prepared:
    """Return the prepared call, from memory where it was made before."""
    words, kinds = arguments, _kinds(arguments)
    if kinds is None:
        words = _frozen(arguments)
        kinds = _kinds(words)
    key: tuple[Any, ...] | None = None
    if kinds is not None and not asked():
        try:
            writable = out is None or is_writable(out)
            signatures = tuple([
                array if array is None else (type(array), array.shape, array.strides, array.dtype)
                for array in arrays
            ])  # fmt: skip
            key = (
                op.name, signatures, _signature(out), writable, words, kinds, settings(),
            )  # fmt: skip
            prepared = _prepared.get(key)
        except (AttributeError, TypeError):  # not arrays: the checks say so
            key = prepared = None
        if prepared is not None:
            return prepared
    prepared = _check(op, arrays, arguments, out)
    if key is not None and not tuning.must_not_race():
        if len(_prepared) >= _MOST_PREPARED:
            _prepared.clear()
        _prepared[key] = prepared
    return prepared


def _kinds(arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the types of arguments, which are equal to others of other types: 1 is 1.0 and True.

    None where they are more than words, numbers and tuples of them.
    """
    kinds: tuple[Any, ...] = tuple(map(type, arguments))
    if _WORDS.issuperset(kinds):
        return kinds
    for value in arguments:
        if type(value) is tuple:
            inner = _kinds(value)
            if inner is None:
                return None
            kinds = (*kinds, inner)
        elif type(value) not in _WORDS:
            return None
    return kinds


def _frozen(value: Any) -> Any:
    """Return lists, and those in tuples, as tuples; all else as it is."""
    return tuple(map(_frozen, value)) if type(value) in (list, tuple) else value


def _check(op: ArrayOp, arrays: tuple[Any, ...], arguments: tuple[Any, ...], out: Any) -> _Prepared:
    checked = tuple(
        None if array is None and name in op.optional else _require_operand(op, name, array)
        for name, array in zip(op.operands, arrays, strict=True)
    )
    with renamed(dict(op.names)):
        problem = op.problem(checked, arguments)
    tell(problem)
    given = tuple(array for array in checked if array is not None)
    for operand, array in zip(problem.inputs, given, strict=True):
        _check_operand(operand, array, problem, op.whole)
    target = None
    if out is not None:
        target = require_array("out", out, op.whole)
        check_memory("out", target, op.name)
        _check_operand(problem.outputs[0]._replace(name="out"), target, problem, op.whole)
        check_writable("out", target)
    makes = tuple(_output(each, problem, given[0].dtype) for each in problem.outputs)
    if math.prod(problem.out_shape) == 0:
        return _Prepared(problem, None, makes)
    packs = [each.name for each in problem.inputs].index(op.weight) if op.weight else -1
    outputs = [empty_array(*each) for each in makes]
    if target is not None:
        outputs[0] = target
    strides = tuple(map(_strides, (*given, *outputs)))
    binding = ArrayBinding(strides)
    if config.tune:
        made = (empty_twin(outputs[0]), *outputs[1:])

        def trial(spec: KernelSpec, once: bool) -> Callable[[], None]:
            plan = plan_of(spec, problem, binding)
            packed = _packed(_Prepared(problem, plan, makes, packs), given, PackedWeights())
            return lambda: plan.run(*packed, *made)

        if measure_choice(problem, True, trial):
            _prepared.clear()
    # As for one thread, so that the bits are the same for any number.
    with contextlib.nullcontext() if config.tune else steady_choice():
        return _Prepared(problem, make_plan(problem, binding)[1], makes, packs)


def _require_operand(op: ArrayOp, name: str, array: Any) -> Array:
    """Return an operand as memory of the CPU's that NumPy knows, else raise."""
    if name not in op.integers:
        checked = require_array(name, array, op.whole)
        check_memory(name, checked, op.name)
        return checked
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"{name}: got {type(array).__name__}, want a NumPy array of int64")
    if array.dtype != np.int64:
        raise DTypeError(f"{name}: got {array.dtype}, want int64")
    return plain(array)


def _strides(array: Array) -> tuple[int, ...]:
    """Return an array's strides, those of axes of length 1 made meaningful."""
    return normal_strides(array) if array.ndim > 2 else tuple(array.strides)


def _check_operand(operand: Operand, array: Array, problem: ArrayProblem, whole: bool) -> None:
    """Raise where an array has another shape or type than its problem says."""
    wanted = operand.dtype or problem.dtype
    name = array.dtype.name if operand.dtype else dtype_name(operand.name, array.dtype, whole)
    if name != wanted:
        like = "" if operand.dtype else f" as the {problem.inputs[0].name} has"
        raise DTypeError(f"{operand.name}: got {array.dtype}, want {wanted}{like}")
    if tuple(array.shape) != operand.shape:
        raise ShapeError(f"{operand.name}: got shape {array.shape}, want {operand.shape}")
