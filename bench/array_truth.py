"""Arrays of an operator without a weight, and its true output, made alike in every process."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.contract.array_problem import ArrayProblem, Operand

from . import truth
from .truth import lay_out, numpy_dtype, setting, verdict

__all__ = ["SPECIAL", "arrays", "expected", "flops", "setting", "wrong"]


def _variances(problem: Any, operand: Operand, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 2.0, operand.shape).astype(numpy_dtype(problem.dtype))


def _places(problem: Any, operand: Operand, rng: np.random.Generator) -> np.ndarray:
    """Return a place in a channel for each sample, as of a pool: neighbours, in rising order."""
    large = problem.x_shape if problem.op == "max_unpool_grad" else problem.out_shape
    plane, count = math.prod(large[2:]), math.prod(operand.shape[2:])
    places = np.arange(count, dtype=np.int64) * plane // count
    return lay_out(np.broadcast_to(
        places.reshape(operand.shape[2:]), operand.shape
    ).copy(), problem.layout)  # fmt: skip


#: Errors that count as right, by operator: other libraries compute the places of an image's samples
#: in float32.
ROUGH = {"interpolate": 2e-4}
#: Operands that are no normal numbers, by operator and name: ``draw(problem, operand, rng)``.
SPECIAL: dict[tuple[str, str], Callable[[Any, Operand, np.random.Generator], np.ndarray]] = {
    ("batch_norm", "running_var"): _variances,
    ("max_pool_grad", "indices"): _places,
    ("max_unpool", "indices"): _places,
    ("max_unpool_grad", "indices"): _places,
}


def arrays(problem: ArrayProblem) -> tuple[np.ndarray, ...]:
    """Return the inputs of a problem: normal numbers from a seed that its line decides."""
    rng = np.random.default_rng(zlib.crc32(problem.line().encode()))
    return tuple(_draw(problem, operand, rng) for operand in problem.inputs)


def _draw(problem: ArrayProblem, operand: Operand, rng: np.random.Generator) -> np.ndarray:
    draw = SPECIAL.get((problem.op, operand.name))
    if draw is not None:
        return draw(problem, operand, rng)
    single = np.float64 if problem.dtype == "float64" else np.float32
    values = rng.standard_normal(operand.shape, dtype=single)
    values = values.astype(numpy_dtype(operand.dtype or problem.dtype), copy=False)
    return lay_out(values, problem.layout) if values.ndim > 2 else values


def expected(problem: ArrayProblem, *given: np.ndarray) -> np.ndarray:
    """Return the first output in float64."""
    from fastconv.kernels import reference

    args, keywords = problem.arguments(given)
    made = getattr(reference, problem.op)(*args, **keywords)
    first: np.ndarray = made[0] if isinstance(made, tuple) else made
    return first


def wrong(problem: ArrayProblem, result: np.ndarray, expected: np.ndarray) -> str | None:
    """Return the sentence that says why a result gets no figure, or None for a right one."""
    allowed = max(truth.TOLERANCE[problem.dtype], ROUGH.get(problem.op, 0.0))
    return verdict(result, expected, allowed)


def flops(problem: ArrayProblem) -> int:
    """Return the operations on elements."""
    return problem.flops
