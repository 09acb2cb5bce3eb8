"""Arrays of a gradient's row and its true result, made alike in every process.

A row's sizes are those of the convolution that the gradient belongs to.
"""

from __future__ import annotations

import zlib
from itertools import islice
from math import prod

import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.transposed_problem import input_gradient

from . import transposed_truth
from .truth import flops, lay_out, numpy_dtype, setting, windows, wrong

__all__ = ["arrays", "expected", "flops", "setting", "wrong"]

_TAPS = 16


def arrays(problem: ConvProblem) -> tuple[np.ndarray, np.ndarray]:
    """Return what a gradient is made of: the output's, behind the weight or the input."""
    if problem.op == "conv_input_grad":
        grad, weight = transposed_truth.arrays(input_gradient(problem))
        return weight, grad
    rng = np.random.default_rng(zlib.crc32(problem.line().encode()))
    single = np.float64 if problem.dtype == "float64" else np.float32
    made = [rng.standard_normal(shape, single) for shape in (problem.x_shape, problem.out_shape)]
    made[1] /= np.sqrt(problem.batch * prod(problem.out_size))
    first, second = (array.astype(numpy_dtype(problem.dtype), copy=False) for array in made)
    return lay_out(first, problem.layout), lay_out(second, problem.layout)


def expected(problem: ConvProblem, first: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return the gradient in float64."""
    if problem.op == "conv_input_grad":
        return transposed_truth.expected(input_gradient(problem), grad, first)
    n, groups, pixels = problem.batch, problem.groups, prod(problem.out_size)
    depth, outputs = problem.in_channels // groups, problem.out_channels // groups
    padded = np.pad(first.astype(np.float64), ((0, 0), (0, 0), *problem.padding))
    wide = grad.astype(np.float64).reshape(n, groups, outputs, pixels)
    made = np.zeros((groups, outputs, depth, prod(problem.kernel_size)))
    taps = np.ndindex(*problem.kernel_size)
    for start in range(0, made.shape[-1], _TAPS):
        columns = np.stack(list(windows(problem, padded, islice(taps, _TAPS))), axis=2)
        count = columns.shape[2]
        columns = columns.reshape(n, groups, depth * count, pixels)
        part = np.matmul(wide, columns.swapaxes(2, 3)).sum(0)
        made[..., start : start + count] = part.reshape(groups, outputs, depth, count)
    return made.reshape(problem.weight_shape)
