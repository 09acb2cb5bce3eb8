"""A transposed convolution's arrays and its true output, made alike in every process."""

from __future__ import annotations

from math import prod

import numpy as np

from fastconv.contract.transposed_problem import TransposedProblem

from .truth import draw, flops, setting, wrong

__all__ = ["arrays", "expected", "flops", "setting", "wrong"]


def arrays(problem: TransposedProblem) -> tuple[np.ndarray, np.ndarray]:
    """Return input and weight: normal numbers from a seed that the line decides."""
    terms = problem.in_channels // problem.groups * prod(problem.kernel_size)
    return draw(problem, max(1.0, terms / prod(problem.stride)))


def expected(problem: TransposedProblem, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the output in float64, shape ``problem.out_shape``."""
    from fastconv.kernels import reference

    return reference.conv_transpose(
        x, w, stride=problem.stride, padding=problem.padding,
        output_padding=problem.output_padding, dilation=problem.dilation, groups=problem.groups,
    )  # fmt: skip
