"""A problem and a binding as one record that machine code reads.

Every rank becomes three spatial axes (depth, height, width) by adding axes of size one in front,
so that one kernel serves conv1d, conv2d and conv3d. Strides are bytes. Kernels add fields of
their own (block sizes, task counts) behind the common ones.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ...axes import ACTIVATION_CODES, name_axes, name_problem_axes

__all__ = ["as_record", "make_record", "record_type"]

_CLAMPS = {None: (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}

# n: images; groups; c, k: input and output channels of one group. Then by axis: input size,
# output size, kernel, stride, padding at the low side, dilation. Then byte strides of input,
# output, residual and weight. `slopes_at`: bytes from a channel's bias to its slope, 0 where the
# activation has none. `flush`: whether denormal numbers count as zero; pool.py sees to it.
_COMMON = (
    "n groups c k "
    "id ih iw od oh ow kd kh kw sd sh sw pd ph pw dd dh dw "
    "xn xc xd xh xw yn yc yd yh yw rn rc rd rh rw wk wc wd wh ww "
    "has_residual activation slopes_at flush"
).split()
_REALS = ("alpha", "low", "high")


@functools.cache
def record_type(extra: tuple[str, ...] = (), reals: tuple[str, ...] = ()) -> np.dtype[Any]:
    """Return the record's dtype: common fields, then numbers named by `extra` and `reals`."""
    fields = [(name, np.int64) for name in (*_COMMON, *extra)]
    return np.dtype(fields + [(name, np.float64) for name in (*_REALS, *reals)])


def make_record(
    problem: ConvProblem, binding: Binding, extra: dict[str, int] | None = None
) -> NDArray[Any]:
    """Return the record for one call, an array of length 1."""
    extra = extra or {}
    record = np.zeros(1, record_type(tuple(extra)))
    values: dict[str, float] = dict(extra)
    values["n"], values["groups"] = problem.batch, problem.groups
    values["c"] = problem.in_channels // problem.groups
    values["k"] = problem.out_channels // problem.groups
    values |= name_problem_axes(problem)
    strides = {
        "x": binding.x_strides,
        "y": binding.out_strides,
        "r": binding.residual_strides or (),
        "w": binding.weight_strides,
    }
    for letter, steps in strides.items():
        values |= name_axes(letter, steps[2:], 0)
    values["xn"], values["xc"] = binding.x_strides[:2]
    values["yn"], values["yc"] = binding.out_strides[:2]
    values["wk"], values["wc"] = binding.weight_strides[:2]
    if binding.residual_strides is not None:
        values["rn"], values["rc"] = binding.residual_strides[:2]
        values["has_residual"] = 1
    values["flush"] = int(binding.flush)
    values["activation"] = ACTIVATION_CODES[binding.activation]
    values["alpha"] = binding.alpha
    if binding.activation == "prelu":
        values["slopes_at"] = problem.out_channels * problem.compute_itemsize
    values["low"], values["high"] = _CLAMPS.get(binding.activation, _CLAMPS[None])
    for name, value in values.items():
        record[name] = value
    return record


def as_record(extra: tuple[str, ...] = (), reals: tuple[str, ...] = ()) -> Any:
    """Return an intrinsic that turns an address into a record with those extra fields."""
    kind = numba.from_dtype(record_type(extra, reals))

    @intrinsic
    def view(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.intp), codegen

    return view
