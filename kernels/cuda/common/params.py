"""A problem and a binding as the scalars that kernels are given.

Every rank becomes three spatial axes (depth, height, width) by adding axes of size one in front.
Strides are elements, not bytes, and everything is uint32: offsets are added modulo 2**32, so that
a negative stride needs no signed arithmetic as long as the array's whole span is below 2**32
elements. Scalars are parameters of the kernel, which lie in constant memory: the machine code reads
them as operands, without loads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastconv.contract.errors import ShapeError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ...axes import ACTIVATION_CODES, name_axes, name_problem_axes

__all__ = [
    "MOST_BLOCKS",
    "MOST_ELEMENTS",
    "SCALARS",
    "Scalar",
    "element_strides",
    "index_reasons",
    "make_scalars",
    "span",
    "start_offset",
]

Scalar = np.uint32 | np.float32 | np.float64

#: Elements that 32-bit offsets reach.
MOST_ELEMENTS = 2**32 - 1
#: What the hardware takes along grid y and z.
MOST_BLOCKS = 65535

#: pixels: output pixels of the batch; channels: output channels of a group. Then by axis: input and
#: output size, kernel, stride, padding at the low side, dilation. Then, of input (x), output (y)
#: and residual (r), the offset of the first element and the strides of image, group, channel and
#: the spatial axes.
SCALARS = tuple(
    (
        "pixels channels id ih iw od oh ow kd kh kw sd sh sw pd ph pw dd dh dw "
        "x_first xn xg xc xd xh xw y_first yn yg yc yd yh yw r_first rn rg rc rd rh rw "
        "has_bias has_residual activation alpha"
    ).split()
)


def start_offset(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many elements (or bytes) of an array lie before its first one."""
    return -sum(min(0, (size - 1) * step) for size, step in zip(shape, strides, strict=True))


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how far apart the first and last element in memory are, plus one."""
    return 1 + sum((size - 1) * abs(step) for size, step in zip(shape, strides, strict=True))


def element_strides(
    name: str, shape: Sequence[int], strides: Sequence[int], itemsize: int
) -> tuple[int, ...]:
    """Return an array's strides in elements.

    Raises
    ------
    ShapeError
        Where a step ends within an element, or 32-bit offsets do not reach from the array's first
        element in memory to its last. The strides of axes of length 1 mean nothing.
    """
    steps = zip(shape, strides, strict=True)
    if any(step % itemsize for size, step in steps if size > 1):
        raise ShapeError(
            f"{name}: got strides of {tuple(strides)} bytes, want multiples of the element's "
            f"{itemsize}; a copy has them"
        )
    elements = tuple(step // itemsize for step in strides)
    if span(shape, elements) > MOST_ELEMENTS:
        raise ShapeError(
            f"{name}: got strides of {tuple(strides)} bytes, which span 2**32 elements or more; "
            "CUDA kernels index in 32 bits, want a copy that lies together"
        )
    return elements


def index_reasons(problem: ConvProblem) -> list[str]:
    """Return what stands against counting a problem's samples in 32 bits, along each axis.

    Kernels find a sample's place modulo 2**32 and compare it with the input's size, which is right
    as long as no place outside of the input falls onto one inside.
    """
    reasons = []
    axes = zip(
        problem.in_size, problem.out_size, problem.kernel_size, problem.stride, problem.padding,
        problem.dilation, strict=True,
    )  # fmt: skip
    for size, count, taps, step, (low, _), hole in axes:
        last = (count - 1) * step + (taps - 1) * hole - low
        if low + size > 2**32 or last >= 2**32:
            reasons.append(
                f"indexes in 32 bits; taps reach from sample {-low} to {last} of an axis of {size}"
            )
    return reasons


def make_scalars(problem: ConvProblem, binding: Binding, has_bias: bool) -> tuple[Scalar, ...]:
    """Return the scalars in the order of `SCALARS`."""
    size, groups = problem.itemsize, problem.groups
    values: dict[str, int] = {
        "pixels": problem.batch * math.prod(problem.out_size),
        "channels": problem.out_channels // groups,
        "has_bias": int(has_bias),
        "has_residual": int(binding.residual_strides is not None),
        "activation": ACTIVATION_CODES[binding.activation],
    }
    values |= name_problem_axes(problem)
    absent = (0,) * (problem.ndim + 2)
    arrays = {
        "x": ("input", problem.x_shape, binding.x_strides),
        "y": ("out", problem.out_shape, binding.out_strides),
        "r": ("residual", problem.out_shape, binding.residual_strides or absent),
    }
    for letter, (name, shape, byte_strides) in arrays.items():
        strides = element_strides(name, shape, byte_strides, size)
        values[f"{letter}_first"] = start_offset(shape, strides)
        values[f"{letter}n"], values[f"{letter}c"] = strides[:2]
        values[f"{letter}g"] = strides[1] * (shape[1] // groups)
        values |= name_axes(letter, strides[2:], 0)
    real = np.float64 if problem.dtype == "float64" else np.float32
    scalars: list[Scalar] = [np.uint32(values[name] % 2**32) for name in SCALARS[:-1]]
    return (*scalars, real(binding.alpha))
