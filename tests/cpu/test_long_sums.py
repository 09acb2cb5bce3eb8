"""Sums of many products: an error must not grow with the length of the sum.

Constant arrays are the worst case: all products are alike, so each rounding falls the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import KernelSpec
from fastconv.kernels import reference
from helpers import FUNCTIONS, geometry
from problem_matrix import problem

KERNELS = dispatch.kernels(op="conv", device="cpu")
LONG = (
    problem((1, 1), (257, 258), 256),
    problem((2, 8), (33, 32, 32), 32),
    problem((1, 1), (100_003,), 100_000),
    problem((1, 2), (3000,), 1024),
    problem((1, 16), (3000,), 2048),
    problem((2, 2), (40, 41), 31, groups=2),
    problem((1, 1), (40, 41), 32),
    problem((2, 2), (70, 71), 33, groups=2, layout="channels_last"),
    problem((64, 1), (9, 10), 4),
    problem((64, 8), (9, 40), 5, padding=2),
    problem((48, 48), (300,), 128),
    problem((3000, 20), (3, 5), 1),
    problem((1500, 16), (5, 7), 3, padding=1),
    problem((700, 9), (9, 12), 3, padding=2, dilation=2),
)
#: What blocks of 512 products leave, and single sums of 1024; sums of transformed products hold
#: twice as many, and a transform adds what it cancels.
MOST_EXACT, MOST_TRANSFORMED = 1.5e-5, 4e-5


def supported(problems: Iterable[ConvProblem]) -> list[Any]:
    """Every pair of a kernel and a problem that it runs."""
    return [
        pytest.param(spec, of, id=f"{spec.name}-{of.line()}")
        for of in problems
        for spec in KERNELS
        if not spec.reasons(of, cpu_info())
    ]


def whole_windows(of: ConvProblem) -> np.ndarray:
    """Mask of the output pixels whose window holds no padding."""
    if not any(map(any, of.padding)):
        return np.ones(of.out_size, bool)
    image, taps = np.ones((1, 1, *of.in_size)), np.ones((1, 1, *of.kernel_size))
    settings = {**geometry(of), "groups": 1}
    return reference.conv(image, taps, **settings)[0, 0] == taps.size


def constant_error(of: ConvProblem, value: float, share: float) -> float:
    """The largest relative error of outputs that see no padding, over constant arrays."""
    x = np.full(of.x_shape, value, np.float32)
    if of.layout == "channels_last":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    weight = np.full(of.weight_shape, share, np.float32)
    result = FUNCTIONS[of.ndim](x, weight, **geometry(of)).astype(np.float64)
    truth = float(x.flat[0]) * float(weight.flat[0]) * math.prod(of.weight_shape[1:])
    error = np.abs(result / truth - 1)
    return float(error[..., whole_windows(of)].max())


@pytest.mark.parametrize(("spec", "of"), supported(LONG))
def test_constant_arrays_of_any_length(spec: KernelSpec, of: ConvProblem) -> None:
    most = MOST_EXACT if spec.exact else MOST_TRANSFORMED
    for value, share in ((0.3, 0.1), (0.77, 0.26)):
        with dispatch.use_kernel(spec.name):
            assert constant_error(of, value, share) <= most


@pytest.mark.parametrize("of", LONG, ids=lambda of: of.line())
def test_exact_precision_is_no_worse_than_its_kernels(of: ConvProblem) -> None:
    with fastconv.precision("exact"):
        assert constant_error(of, 0.77, 0.26) <= MOST_EXACT


@pytest.mark.parametrize("of", LONG[:4], ids=lambda of: of.line())
def test_random_arrays_of_one_sign_stay_within_the_tolerance(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    x = rng.random(of.x_shape, np.float32)
    weight = rng.random(of.weight_shape, np.float32)
    with fastconv.precision("exact"):
        result = FUNCTIONS[of.ndim](x, weight, **geometry(of))
        truth = FUNCTIONS[of.ndim](x.astype("f8"), weight.astype("f8"), **geometry(of))
        name = dispatch.choose(of).name
    tolerance = next(spec for spec in KERNELS if spec.name == name).tolerance["float32"]
    assert np.abs(result / truth - 1).max() <= tolerance.relative


def test_one_long_sum_is_refused() -> None:
    device = cpu_info()
    for name, short, long in (
        ("cpu.direct", problem((64, 1), (9, 9), 4), problem((64, 1), (9, 9), 5)),
        ("cpu.depthwise", problem((2, 2), (40, 40), 32, groups=2),
         problem((2, 2), (40, 40), 33, groups=2)),
    ):  # fmt: skip
        spec = next(spec for spec in KERNELS if spec.name == name)
        assert not spec.reasons(short, device)
        assert any("one sum" in text for text in spec.reasons(long, device))
