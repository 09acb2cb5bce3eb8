"""How many products may be added to one running sum: for kernels of both devices."""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem

__all__ = ["sum_reasons"]


def sum_reasons(problem: ConvProblem, most: int) -> list[str]:
    """Return why a kernel that adds all products of an output to one sum is not for a problem."""
    products = math.prod(problem.weight_shape[1:])
    if products > most:
        return [f"adds {products} products to one sum, whose error is too large; at most {most}"]
    return []
