"""Weight, bias and given statistics of a call, folded into rows of compute precision.

They are as long as there are channels, so NumPy does it, once a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.norm_problem import NormProblem
from fastconv.contract.pointwise_problem import PReluProblem

from ..runtime.array_plan import ArrayPlan
from ..runtime.plan import compute_dtype
from .rules import AFFINE, SLOPE

__all__ = ["FoldedPlan", "GradientPlan", "fold_channels", "fold_taken"]

Fold = Callable[[dict[str, Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class FoldedPlan:
    """A plan that gives its kernel one array for all the vectors of a call.

    Parameters
    ----------
    plan : ArrayPlan
        Its arrays are the input, what `fold` returns, further outputs, and the first output.
    names : tuple of str
        Of the inputs behind the first.
    fold : callable
        Makes one array of those inputs by name.
    """

    plan: ArrayPlan
    names: tuple[str, ...]
    fold: Fold

    def run(self, *arrays: NDArray[Any]) -> None:
        """Compute: the arrays are the problem's inputs and then its outputs."""
        vectors = dict(zip(self.names, arrays[1:], strict=False))
        out, *others = arrays[1 + len(vectors) :]
        self.plan.run(arrays[0], self.fold(vectors), *others, out)


def _fold_given(problem: NormProblem) -> Fold:
    """Return what makes rows of means, factors and biases: ``(x - mean) * factor + bias``."""
    dtype = compute_dtype(problem.dtype)

    def fold(vectors: dict[str, Any]) -> NDArray[Any]:
        made = np.empty((3, problem.channels), dtype)
        made[0] = vectors["running_mean"]
        with np.errstate(all="ignore"):  # what PyTorch makes NaN or infinite is so here
            deviations = np.sqrt(np.add(vectors["running_var"], problem.eps, dtype=np.float64))
            made[1] = vectors.get("weight", 1) / deviations
        made[2] = vectors.get("bias", 0)
        return made

    return fold


def _fold_slopes(problem: PReluProblem) -> Fold:
    """Return what makes rows of which the second is the slopes."""
    dtype = compute_dtype(problem.dtype)

    def fold(vectors: dict[str, Any]) -> NDArray[Any]:
        made = np.zeros((3, problem.channels), dtype)
        made[1] = vectors["weight"]
        return made

    return fold


def fold_channels(problem: NormProblem | PReluProblem) -> tuple[int, Fold]:
    """Return the rule of an operator that knows each channel's numbers, and what makes them."""
    if isinstance(problem, PReluProblem):
        return SLOPE, _fold_slopes(problem)
    return AFFINE, _fold_given(problem)


def fold_taken(problem: NormProblem) -> Fold:
    """Return what makes a row of weights and one of biases."""
    dtype, length = compute_dtype(problem.dtype), problem.parameters

    def fold(vectors: dict[str, Any]) -> NDArray[Any]:
        made = np.empty((2, length), dtype)
        made[0] = vectors.get("weight", 1)
        made[1] = vectors.get("bias", 0)
        return made

    return fold


@dataclass(frozen=True, slots=True, eq=False)
class GradientPlan:
    """A plan of a gradient, whose kernel has weights in compute precision, ones where none are.

    Parameters
    ----------
    plan : ArrayPlan
        Its arrays are the input, the weights, the gradient of the output, and the output.
    problem : NormProblem
        What it is for.
    """

    plan: ArrayPlan
    problem: NormProblem

    def run(self, *arrays: NDArray[Any]) -> None:
        """Compute: the arrays are the problem's inputs and then its outputs."""
        x, *weight, grads, out = arrays
        made = np.empty(self.problem.parameters, compute_dtype(self.problem.dtype))
        made[...] = weight[0] if weight else 1
        self.plan.run(x, made, grads, out)
