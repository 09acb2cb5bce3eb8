"""What functions and layers of transposed convolution share: a call is those of its phases.

Each phase is prepared by `fastconv.calls`, so it gets the kernel that is fastest for its sizes. Its
outputs lie between those of the others: a kernel writes them there, with a stride, or, where rows
of pixels are contiguous, all phases are written side by side and interleaved by whole vectors; or
they are one convolution (`transposed_stack`).
Kernels are chosen as for one thread, so that the bits are the same for any
number, gradients' too; ``tune=True`` measures with the threads at hand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, dtype_name, empty_output, memory_layout, plain
from ..calls import (
    CONV,
    Family,
    PreparedCall,
    prepare,
)
from ..companions import check_groups, check_memory
from ..contract.arguments import Activation, flag, per_axis, whole_number
from ..contract.errors import ShapeError
from ..contract.padding import canonical_padding
from ..contract.settings import config
from ..contract.transposed_problem import Phase, TransposedProblem
from ..dense_problem import check_arrays, check_companions, check_input_channels
from ..dispatch import steady_choice
from .rearrange import interleave
from .transposed_stack import PreparedStack, find_stack, prepare_stack

__all__ = ["CONV_TRANSPOSE", "make_transposed_problem"]

_EVERY = (slice(None), slice(None))


class _Part(NamedTuple):
    """The dense call of one phase."""

    phase: Phase
    call: PreparedCall


@dataclass(frozen=True, slots=True)
class PreparedPhases:
    """A transposed convolution, prepared: see `fastconv.calls.PreparedCall`."""

    parts: tuple[_Part, ...]
    groups: int
    kernel: str
    out_shape: tuple[int, ...]
    layout: str
    packing: Hashable
    stride: tuple[int, ...] = ()
    plain: bool = True
    remembers: bool = False

    @property
    def plan(self) -> Any:
        """The dense calls; None where there is nothing to compute."""
        return self.parts or None

    def pack(self, weight: Array) -> Any:
        """Return the phases' weights, each in its kernel's order."""
        weight = weight if self.plain else plain(weight)
        return tuple(
            part.call.pack(_phase_weight(weight, part.phase, self.groups)) for part in self.parts
        )

    def run(
        self, x: Array, packed: Any, bias: Array | None, residual: Array | None, out: Array | None
    ) -> Array:
        """Compute, into `out` if there is one."""
        if out is None:
            out = empty_output(x, self.out_shape, self.layout)
        if self.stride:
            self._run_side_by_side(x, packed, bias, out)
            return out
        for (phase, call), weight in zip(self.parts, packed or (), strict=True):
            outputs = (*_EVERY, *phase.outputs)
            added = None if residual is None else residual[outputs]
            call.run(x[(*_EVERY, *phase.samples)], weight, bias, added, out[outputs])
        return out

    def _run_side_by_side(self, x: Array, packed: Any, bias: Array | None, out: Array) -> None:
        """Compute the phases into maps of their own, a channel's together, and interleave them."""
        made = _phase_maps(x, self.out_shape, self.stride)
        for (phase, call), weight in zip(self.parts, packed, strict=True):
            call.run(
                x[(*_EVERY, *phase.samples)], weight, bias, None,
                made[:, :, _turn(phase, self.stride)],
            )  # fmt: skip
        interleave(made.reshape(len(made), -1, *made.shape[3:]), self.stride, out=out)


def _phase_maps(x: Array, out_shape: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """Return memory for the phases' outputs: (N, K, phases, *size)."""
    size = tuple(n // step for n, step in zip(out_shape[2:], stride, strict=True))
    return empty_output(x, (*out_shape[:2], math.prod(stride), *size), "channels_first")


def _turn(phase: Phase, stride: tuple[int, ...]) -> int:
    """Return a phase's number among all, by the first output that it writes."""
    number = 0
    for outputs, step in zip(phase.outputs, stride, strict=True):
        number = number * step + outputs.start
    return number


def _phase_weight(weight: Array, phase: Phase, groups: int) -> Array:
    """Return a phase's filters as a dense convolution has them: (K, C / groups, *taps)."""
    c, k = weight.shape[:2]
    if phase.taps is None:
        return np.zeros((k * groups, c // groups, *(1,) * (weight.ndim - 2)), weight.dtype)
    taps = weight[(*_EVERY, *phase.taps)]
    size = taps.shape[2:]
    by_group = taps.reshape(groups, c // groups, k, *size).swapaxes(1, 2)
    return np.ascontiguousarray(by_group).reshape(k * groups, c // groups, *size)


def _key(phase: Phase) -> Hashable:
    """Return what tells a phase's part of the weight."""
    if phase.taps is None:
        return None
    return tuple((taps.start, taps.stop, taps.step) for taps in phase.taps)


def canonical_transposed(ndim: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check what stands beside the arrays and return it as integers and tuples."""
    stride, padding, output_padding, groups, dilation = arguments
    if isinstance(padding, str):
        raise ShapeError(
            f"padding: got {padding!r}, want a whole number, {ndim} of them, or pairs: so many "
            "outputs a transposed convolution crops at its borders"
        )
    return (
        per_axis("stride", stride, ndim),
        canonical_padding(padding, ndim),
        per_axis("output_padding", output_padding, ndim),
        whole_number("groups", groups),
        per_axis("dilation", dilation, ndim),
    )


def make_transposed_problem(
    ndim: int, x: Any, weight: Any, arguments: tuple[Any, ...]
) -> TransposedProblem:
    """Check input, weight and arguments and return the problem that they describe."""
    x, weight = check_arrays(ndim, x, weight, "input channels, output channels / groups")
    check_memory("input", x, "transposed convolution")
    stride, padding, output_padding, groups, dilation = canonical_transposed(ndim, arguments)
    groups = check_groups(groups, weight, "input")
    check_input_channels(
        x, weight.shape[0],
        f"{weight.shape[0]} input channels (axis 0 of {weight.shape}; the output's are axis 1)",
    )  # fmt: skip
    return TransposedProblem(
        x.shape[0], x.shape[1], weight.shape[1] * groups, x.shape[2:], weight.shape[2:], stride,
        padding, output_padding, dilation, groups, dtype_name("input", x.dtype), memory_layout(x),
    )  # fmt: skip


def _prepare(
    ndim: int, x: Any, weight: Any, bias: Any, arguments: tuple[Any, ...], activation: Activation,
    residual: Any, out: Any, packed: bool, tune: bool,
) -> PreparedPhases | PreparedStack:  # fmt: skip
    problem = make_transposed_problem(ndim, x, weight, arguments)
    check_companions(problem, x, weight, bias, residual, out, activation)
    shape, layout, groups = problem.out_shape, problem.layout, problem.groups
    if math.prod(shape) == 0:
        return PreparedPhases((), groups, "", shape, layout, None)
    target = empty_output(x, shape, layout) if out is None else out
    measured = flag("tune", tune) or config.tune
    with contextlib.nullcontext() if measured else steady_choice():
        stack = find_stack(problem) if residual is None else None
        if stack is not None:
            return prepare_stack(problem, stack, x, weight, bias, activation, packed, tune)
        woven = residual is None and problem.is_woven
        maps = _phase_maps(x, shape, problem.stride) if woven else None
        parts = []
        for phase in problem.phases():
            outputs = (*_EVERY, *phase.outputs)
            dense = ((1,) * ndim, phase.padding, phase.dilation, groups)
            added = None if residual is None else residual[outputs]
            call = prepare(
                CONV, ndim, x[(*_EVERY, *phase.samples)], _phase_weight(weight, phase, groups),
                bias, dense, activation, added,
                target[outputs] if maps is None else maps[:, :, _turn(phase, problem.stride)],
                packed, tune,
            )  # fmt: skip
            parts.append(_Part(phase, call))
    names = ", ".join(sorted({part.call.kernel for part in parts}))
    packing = groups, tuple((_key(part.phase), part.call.packing) for part in parts)
    remembers = any(part.call.remembers for part in parts)
    stride = problem.stride if woven else ()
    return PreparedPhases(
        tuple(parts), groups, names, shape, layout, packing, stride, remembers=remembers
    )


CONV_TRANSPOSE = Family("conv_transpose", canonical_transposed, _prepare)
