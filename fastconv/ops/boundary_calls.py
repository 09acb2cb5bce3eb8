"""Convolutions with a boundary mode: a call is those of dense parts, some on a copy.

Each part is prepared by `fastconv.calls`, so it gets the kernel that is fastest for its sizes; what
lies around the input is copied for the parts that read it, and for nothing else. Parts and kernels
are chosen as for one thread, so that the bits are the same for any number; ``tune=True`` measures
with the threads at hand. A kernel that is forced computes the whole in one part.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, dtype_of, empty_output, normal_strides, plain
from ..calls import CONV, Family, PreparedCall, prepare
from ..companions import check_memory
from ..contract import first_use
from ..contract.arguments import Activation, canonical_arguments, flag
from ..contract.array_problem import ArrayBinding
from ..contract.boundary_problem import BoundaryProblem, Part
from ..contract.settings import config
from ..contract.spec import ArrayPlan
from ..dense_problem import check_companions, make_problem
from ..dispatch import (
    Problem,
    make_plan,
    predicted_seconds,
    settings,
    steady_choice,
    unforced,
)

__all__ = ["PreparedBoundary", "choose_parts", "make_boundary_problem", "make_family"]

_EVERY = (slice(None), slice(None))
#: Seconds that a call of a part takes beside its kernel, as those of one thread are counted.
_CALL = 5e-6


class _Copy(NamedTuple):
    """What a part reads, copied into memory that calls borrow."""

    plan: ArrayPlan
    size: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def run(self, call: PreparedCall, x: Array, *others: Any) -> None:
        """Copy, and compute the part."""
        scratch = first_use.load("fastconv.kernels.cpu.runtime.scratch")
        memory = scratch.borrow(self.size)
        try:
            read: Array = np.ndarray(self.shape, x.dtype, memory, 0, self.strides)
            self.plan.run(x, read)
            call.run(read, *others)
        finally:
            scratch.give_back(memory)


class _Ready(NamedTuple):
    """A part made ready: what it reads, writes and runs."""

    samples: tuple[slice, ...]
    outputs: tuple[slice, ...]
    call: PreparedCall
    copy: _Copy | None
    turned: bool

    @property
    def packing(self) -> Hashable:
        """What tells the order of its weight."""
        return self.call.packing, self.turned


@dataclass(frozen=True, slots=True)
class PreparedBoundary:
    """A convolution with a boundary mode, prepared: see `fastconv.calls.PreparedCall`."""

    parts: tuple[_Ready, ...]
    kernel: str
    out_shape: tuple[int, ...]
    layout: str
    packing: Hashable
    plain: bool = True
    remembers: bool = False
    dtype: np.dtype[Any] | None = None

    @property
    def plan(self) -> Any:
        """The parts; None where there is nothing to compute."""
        return self.parts or None

    def pack(self, weight: Array) -> Any:
        """Return the weight in the order of each kind of part's kernel."""
        weight = weight if self.plain else plain(weight)
        packed: dict[Hashable, Any] = {}
        for part in self.parts:
            if part.packing not in packed:
                packed[part.packing] = part.call.pack(_turned(weight) if part.turned else weight)
        return packed

    def run(
        self, x: Array, packed: Any, bias: Array | None, residual: Array | None, out: Array | None
    ) -> Array:
        """Compute, into `out` if there is one."""
        if out is None:
            out = empty_output(x, self.out_shape, self.layout, self.dtype)
        for part in self.parts:
            added = None if residual is None else residual[part.outputs]
            target, read = out[part.outputs], x
            if part.turned:
                added = None if added is None else _turned(added)
                target, read = _turned(target), _turned(x)
            others = packed[part.packing], bias, added, target
            if part.copy is None:
                part.call.run(read[part.samples], *others)
            else:
                part.copy.run(part.call, read, *others)
        return out


def _turned(array: Array) -> Array:
    """Return a view with rows for columns and columns for rows."""
    return array.swapaxes(-1, -2)


def make_boundary_problem(
    ndim: int, x: Any, weight: Any, arguments: tuple[Any, ...], mode: str, value: float,
    out: Any = None,
) -> BoundaryProblem:  # fmt: skip
    """Check input, weight and arguments and return the problem that they describe."""
    problem = BoundaryProblem(make_problem(ndim, x, weight, arguments, out), mode, value)
    check_memory("input", x, f"padding_mode={problem.word!r}")
    return problem


def _seconds(problem: Problem, packed: bool) -> float:
    """Return the predicted time of a part of a call."""
    return _CALL + predicted_seconds(problem, packed)


def choose_parts(problem: BoundaryProblem, packed: bool) -> list[Part]:
    """Return the parts whose predicted time is the lowest: the whole, or a frame and its inside."""
    whole = problem.whole()
    frame = [] if whole.inside or settings()[0] else problem.frame()
    if not frame:
        return [whole]

    def seconds(parts: list[Part]) -> float:
        copied = sum(_seconds(problem.copy(part), True) for part in parts if not part.inside)
        return copied + sum(_seconds(problem.dense(part), packed) for part in parts)

    def turned(part: Part) -> Part:
        """Return a slab as it is computed in less time."""
        if not problem.can_turn(part):
            return part
        ways = part, part._replace(turned=True)
        return min(ways, key=lambda way: _seconds(problem.dense(way), packed))

    return min([whole], list(map(turned, frame)), key=seconds)


def _prepare_copy(problem: BoundaryProblem, part: Part, x: Array, read: Array) -> _Copy:
    binding = ArrayBinding((normal_strides(x), normal_strides(read)))
    with unforced():
        _, plan = make_plan(problem.copy(part), binding)
    return _Copy(plan, read.nbytes, read.shape, read.strides)


def _prepare_part(
    problem: BoundaryProblem, part: Part, operands: tuple[Any, ...], activation: Activation,
    packed: bool, tune: bool,
) -> _Ready:  # fmt: skip
    """Prepare a part for operands; those that are there are turned with it."""
    x, weight, bias, residual, out = operands
    outputs, samples = (*_EVERY, *part.outputs), (*_EVERY, *part.samples) if part.inside else ()
    added, written = None if residual is None else residual[outputs], out[outputs]
    if part.turned:
        x, weight, written = _turned(x), _turned(weight), _turned(written)
        added = None if added is None else _turned(added)
    dense, copy = problem.dense(part), None
    if part.inside:
        read = x[samples]
    else:
        read = empty_output(x, dense.x_shape, dense.layout)
        copy = _prepare_copy(problem, part, x, read)
        if tune:  # which measures on what the part will read
            copy.plan.run(x, read)
    told = (dense.out_dtype,) if dense.out_dtype else ()
    arguments = (dense.stride, dense.padding, dense.dilation, dense.groups, *told)
    call = prepare(
        CONV, problem.ndim, read, weight, bias, arguments, activation, added, written, packed, tune
    )
    return _Ready(samples, outputs, call, copy, part.turned)


def _prepare(
    mode: str, value: float, ndim: int, x: Any, weight: Any, bias: Any,
    arguments: tuple[Any, ...], activation: Activation, residual: Any, out: Any, packed: bool,
    tune: bool,
) -> PreparedBoundary:  # fmt: skip
    problem = make_boundary_problem(ndim, x, weight, arguments, mode, value, out)
    check_companions(problem, x, weight, bias, residual, out, activation)
    shape, layout = problem.out_shape, problem.layout
    dtype = dtype_of(problem.result_dtype) if problem.result_dtype != problem.dtype else None
    if math.prod(shape) == 0:
        return PreparedBoundary((), "", shape, layout, None, dtype=dtype)
    target = empty_output(x, shape, layout, dtype) if out is None else out
    measured = flag("tune", tune) or config.tune
    parts = []
    with contextlib.nullcontext() if measured else steady_choice():
        for part in choose_parts(problem, packed):
            operands = x, weight, bias, residual, target
            parts.append(_prepare_part(problem, part, operands, activation, packed, measured))
    kernels = ", ".join(sorted({part.call.kernel for part in parts}))
    packing = "boundary", tuple(dict.fromkeys(part.packing for part in parts))
    remembers = any(part.call.remembers for part in parts)
    return PreparedBoundary(
        tuple(parts), kernels, shape, layout, packing, remembers=remembers, dtype=dtype
    )


def make_family(mode: str, value: float) -> Family:
    """Return the family of convolutions with a boundary mode and its constant."""
    name = f"conv {mode} {value!r}"
    return Family(name, canonical_arguments, functools.partial(_prepare, mode, value))
