"""What of a problem decides nothing is left out, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastconv.contract.errors import ShapeError
from fastconv.contract.problem import ConvProblem
from fastconv.kernels import reference
from fastconv.trim import trim
from helpers import geometry
from problem_matrix import matrix

pytestmark = pytest.mark.program

small = st.integers(1, 9)
pads = st.integers(0, 15)


@settings(max_examples=500, deadline=None)
@given(small, st.integers(1, 6), st.sampled_from((1, 1, 2, 3, 7, 20)), st.tuples(pads, pads),
       st.sampled_from((1, 1, 2, 5, 9, 13)), st.integers(0, 2**32 - 1))  # fmt: skip
def test_what_is_left_gives_the_same(
    size: int, taps: int, step: int, low_high: tuple[int, int], hole: int, seed: int
) -> None:
    try:
        of = ConvProblem(1, 1, 1, (size,), (taps,), (step,), (low_high,), (hole,))
    except ShapeError:
        assume(False)
    left, kept = trim(of)
    rng = np.random.default_rng(seed)
    x, weight = (rng.integers(1, 9, shape) for shape in (of.x_shape, of.weight_shape))
    part = weight if kept is None else weight[:, :, slice(*kept[0])]
    truth = reference.conv(x, weight, **geometry(of))
    np.testing.assert_array_equal(reference.conv(x, part, **geometry(left)), truth, strict=True)
    assert trim(left) == (left, None)


def test_ordinary_problems_stay_as_they_are() -> None:
    for of in matrix():
        if all(k == 1 or max(p) <= d * (k - 1) < i for i, k, p, d in
               zip(of.in_size, of.kernel_size, of.padding, of.dilation, strict=True)):  # fmt: skip
            left, kept = trim(of)
            assert kept is None, of.line()
            assert (
                left.padding == of.padding
                and left.line() == of.with_(dilation=left.dilation, stride=left.stride).line()
            )
