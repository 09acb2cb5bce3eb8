"""The arrays of two convolutions in a row and their true output, made alike in every process."""

from __future__ import annotations

import zlib
from math import prod

import numpy as np

from fastconv.contract.pair_problem import PairProblem

from . import truth
from .truth import flops, lay_out, numpy_dtype, setting, wrong

__all__ = ["arrays", "expected", "flops", "setting", "wrong"]


def arrays(problem: PairProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input and both weights: normal numbers from a seed that the line decides."""
    rng = np.random.default_rng(zlib.crc32(problem.line().encode()))
    single = np.float64 if problem.dtype == "float64" else np.float32
    dtype = numpy_dtype(problem.dtype)
    x = rng.standard_normal(problem.x_shape, dtype=single).astype(dtype, copy=False)
    weights = []
    for of in (problem.first, problem.second):
        weight = rng.standard_normal(of.weight_shape, dtype=single)
        weight /= np.sqrt(prod(of.weight_shape[1:]))
        weights.append(weight.astype(dtype, copy=False))
    return lay_out(x, problem.layout), weights[0], weights[1]


def expected(
    problem: PairProblem, x: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Return the output in float64, shape ``problem.out_shape``."""
    return truth.expected(problem.second, truth.expected(problem.first, x, first), second)
