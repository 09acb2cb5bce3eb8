"""What a pool is to its kernels: windows, a rule, and which axis the lanes lie along.

No compiler is imported here, so that the table of costs asks the same questions as the plans.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.adaptive_pool_problem import AdaptivePoolProblem
from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.pool_problem import PoolProblem

from ..common.memory_order import is_contiguous

__all__ = [
    "LARGEST",
    "MEAN",
    "NORM",
    "AnyPool",
    "Windows",
    "is_short",
    "lanes_along",
    "spreads_along",
    "windows_of",
]

#: The largest sample; their mean; the root of the mean of their powers, times the window's size.
LARGEST, MEAN, NORM = range(3)

AnyPool = PoolProblem | AdaptivePoolProblem

#: The widest window and the largest stride whose taps are joined in registers.
_MOST_TAPS, _MOST_STEPS = 8, 4


class Windows(NamedTuple):
    """Windows along each spatial axis and what is made of their samples.

    Parameters
    ----------
    kernel, stride, padding, dilation : tuple of int
        One entry an axis; where windows are unequal the kernel is the largest one.
    unequal : bool
        Whether windows follow from the sizes alone, as those of an adaptive pool do.
    rule, degree : int
        `LARGEST`, `MEAN` or `NORM`, and a norm's power where it is 1, 2 or 3.
    with_pads, divisor
        Whether a mean counts the padding, and what it divides by instead, if not 0.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    unequal: bool = False
    rule: int = LARGEST
    degree: int = 0
    with_pads: bool = False
    divisor: int = 0


def windows_of(problem: AnyPool) -> Windows:
    """Return the windows of a pool: an adaptive one's are those of a plain one if all are equal.

    Examples
    --------
    >>> windows_of(AdaptivePoolProblem("adaptive_avg_pool", 1, 8, (14, 14), (7, 2))).stride
    (2, 7)
    """
    if isinstance(problem, AdaptivePoolProblem):
        along = list(zip(problem.in_size, problem.out_size, strict=True))
        unequal = any(size % outputs for size, outputs in along)
        kernel = tuple(-(-size // outputs) + unequal for size, outputs in along)
        ones = (1,) * len(kernel)
        rule = LARGEST if problem.op == "adaptive_max_pool" else MEAN
        return Windows(kernel, kernel, (0,) * len(kernel), ones, unequal, rule)
    sizes = problem.kernel_size, problem.stride, problem.padding, problem.dilation
    if problem.op == "max_pool":
        return Windows(*sizes)
    if problem.op == "lp_pool":
        degree = int(problem.norm_type) if problem.norm_type in (1.0, 2.0, 3.0) else 0
        return Windows(*sizes, rule=NORM, degree=degree, with_pads=True)
    return Windows(
        *sizes, rule=MEAN, with_pads=problem.count_include_pad, divisor=problem.divisor_override
    )  # fmt: skip


def is_global(problem: AnyPool, windows: Windows) -> bool:
    """Return whether there is one window, and it sees its whole channel."""
    reach = all(
        pad == 0 and dilation == 1 and kernel == size
        for pad, dilation, kernel, size in zip(
            windows.padding, windows.dilation, windows.kernel, problem.in_size, strict=True
        )
    )
    return math.prod(problem.out_size) == 1 and not windows.unequal and reach


def is_short(problem: AnyPool, windows: Windows, binding: ArrayBinding, lanes: int) -> bool:
    """Return whether a row of outputs is joined in registers, its input rows being contiguous.

    A vector of outputs then reads one of samples and the next, so windows reach no further.
    """
    contiguous = binding.strides[0][-1] == problem.itemsize
    narrow = windows.kernel[-1] <= _MOST_TAPS and windows.stride[-1] <= _MOST_STEPS
    products = windows.rule != NORM or windows.degree > 0
    near = (windows.kernel[-1] - 1) // windows.stride[-1] <= lanes
    usual = windows.dilation[-1] == 1 and not windows.unequal and near
    return contiguous and narrow and products and usual


def lanes_along(problem: AnyPool, binding: ArrayBinding) -> str:
    """Return what the lanes are: "channels", or samples of a "row" or of a whole "plane"."""
    x, out, *_ = binding.strides
    step = problem.itemsize
    windows = windows_of(problem)
    whole = windows.rule != NORM and not problem.return_indices and is_global(problem, windows)
    if whole and is_contiguous(problem.in_size, x[2:], step):
        return "plane"
    if x[1] == step and out[1] == step and problem.channels > 1:
        return "channels"
    return "row"


def spreads_along(problem: AnyPool, binding: ArrayBinding) -> str:
    """Return what the lanes of a mean's gradient are: "channels", or samples of a "row"."""
    grad, out = binding.strides
    step = problem.itemsize
    return "channels" if grad[1] == out[1] == step and problem.channels > 1 else "row"
