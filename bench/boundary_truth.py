"""Arrays of a convolution with a boundary mode and its true output, alike in every process."""

from __future__ import annotations

import numpy as np

from fastconv.contract.boundary_problem import BoundaryProblem

from . import truth
from .truth import arrays, flops, setting, wrong

__all__ = ["arrays", "expected", "flops", "setting", "wrong"]


def expected(problem: BoundaryProblem, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the output in float64: that of an input padded by NumPy."""
    from fastconv.kernels import reference

    of = problem.copy(problem.whole())
    padded = reference.pad(
        x, padding=of.padding, out_size=of.out_size, mode=of.mode, value=of.value
    )
    return truth.expected(problem.dense(problem.whole()), padded, w)
