"""What is done to one element by its channel's three numbers, a row of `parameters` each.

=========  ============================================
`AFFINE`   ``(x - first) * second + third``
`SLOPE`    ``x`` where it is positive, else ``x * second``
=========  ============================================
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.arithmetic import fma, mul, pick_positive, sub

__all__ = ["AFFINE", "SLOPE", "make_rule"]

AFFINE, SLOPE = range(2)


@functools.cache
def make_rule(rule: int) -> Any:
    """Return a function of vectors: an element and its channel's numbers."""

    @numba.njit
    def affine(x: Any, centre: Any, factor: Any, shift: Any) -> Any:
        return fma(sub(x, centre), factor, shift)

    @numba.njit
    def slope(x: Any, unused: Any, factor: Any, other: Any) -> Any:
        return pick_positive(x, x, mul(x, factor))

    return slope if rule == SLOPE else affine
