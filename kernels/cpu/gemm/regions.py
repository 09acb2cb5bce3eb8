"""Regions: boxes of output positions, each with the box of taps that reach real input from there.

A matrix product runs over one region after the other. `pack.py` numbers the pixels of a region, and
tasks find the region of their block in a table of words::

    output start (depth, height, width)     words 0 to 2
    output size                                   3 to 5
    first tap                                     6 to 8
    tap end                                       9 to 11
    number of its first block                     12
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from fastconv.contract.problem import ConvProblem

from ...taps import Region
from ..simd.intrinsics import get_word

__all__ = ["REGION_WORDS", "active_taps", "find_region", "region_table"]

REGION_WORDS = 13


@numba.njit
def find_region(g: Any, block: int) -> int:
    """Return the address of the region that a block lies in."""
    region = g.regions
    for i in range(1, g.region_count):
        following = g.regions + 8 * REGION_WORDS * i
        if get_word(following, 12) > block:
            break
        region = following
    return region


@numba.njit
def active_taps(region: int) -> int:
    """Return how many taps a region uses."""
    depth = get_word(region, 9) - get_word(region, 6)
    height = get_word(region, 10) - get_word(region, 7)
    return depth * height * (get_word(region, 11) - get_word(region, 8))


def region_table(problem: ConvProblem, regions: Sequence[Region], block: int) -> Any:
    """Return the regions as words, and the number of blocks of `block` pixels in all of them."""
    table, blocks = np.zeros((len(regions), REGION_WORDS), np.int64), 0
    for words, (start, sizes, first_tap, tap_end) in zip(table, regions, strict=True):
        lead = 3 - problem.ndim
        words[:12] = (
            *(0,) * lead, *start, *(1,) * lead, *sizes,
            *(0,) * lead, *first_tap, *(1,) * lead, *tap_end,
        )  # fmt: skip
        words[12] = blocks
        blocks += -(-math.prod(sizes) // block)
    return table, blocks
