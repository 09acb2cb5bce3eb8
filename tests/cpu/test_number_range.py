"""Numbers near the ends of their range: what is lost there, by default and in exact precision.

By default denormal numbers count as zero, as operands, as products and as sums: so a product below
the smallest normal number is lost. Exact precision loses nothing but by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import fastconv
import fastconv.sparse
from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import KernelSpec
from fastconv.kernels.cpu.runtime import plan as cpu_plan
from helpers import DTYPES, Tensors, expected, functional, gaussians
from problem_matrix import problem
from sparse_helpers import random_tensor

KERNELS = dispatch.kernels(op="conv", device="cpu")
PROBLEMS = (
    problem((16, 32), (20, 33), 3, padding=1),
    problem((3, 32), (20, 60), 7, padding=3),
    problem((2, 2), (40, 60), 15, padding=7),
    problem((5, 20), (90,), 4),
    problem((5, 5), (20, 35), 3, padding=1, groups=5),
    problem((5, 5), (20, 35), 3, padding=1, groups=5, layout="channels_last"),
    problem((8, 16), (5, 6, 17), 3, padding=1),
    problem((6, 9), (20, 35), 3, padding=2, dilation=2),
    problem((16, 32), (14, 15), 3, padding=1, layout="channels_last"),
)


@pytest.fixture(autouse=True)
def helpers_for_small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small problems run on as many threads as they are given."""
    monkeypatch.setattr(cpu_plan, "_SERIAL_MACS", 0)


def supported(problems: Iterable[ConvProblem], *, exact: bool = False) -> list[Any]:
    """Every pair of a kernel (or one that does not transform) and a problem that it runs."""
    return [
        pytest.param(spec, of, id=f"{spec.name}-{of.line()}")
        for of in problems
        for spec in KERNELS
        if not spec.reasons(of, cpu_info()) and (spec.exact or not exact)
    ]


def scaled(of: ConvProblem, x: float, weight: float) -> Tensors:
    """Gaussian arrays of those sizes."""
    tensors = gaussians(of, np.random.default_rng(8))
    tensors.weight *= math.sqrt(math.prod(of.weight_shape[1:]))
    tensors.x *= DTYPES[of.dtype].type(x)
    tensors.weight *= DTYPES[of.dtype].type(weight)
    return tensors


def relative_error(of: ConvProblem, tensors: Tensors) -> float:
    truth = expected(of, tensors)
    result = functional(of, tensors, out=None).astype(np.float64)
    return float(np.abs(result - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize(("spec", "of"), supported(PROBLEMS))
def test_tiny_products_lose_no_more_than_those_of_the_definition(
    spec: KernelSpec, of: ConvProblem
) -> None:
    """Products of 1e-35 are three orders above where they would be lost, those of 1e-36 two."""
    for sizes in ((1e-30, 1e-5), (1e-5, 1e-30), (1e-17, 1e-18), (1e-31, 1e-5)):
        tensors = scaled(of, *sizes)
        with dispatch.use_kernel("cpu.im2col_gemm"):
            plain = relative_error(of, tensors)
        with dispatch.use_kernel(spec.name):
            assert relative_error(of, tensors) <= 5 * plain + spec.tolerance["float32"].relative


@pytest.mark.parametrize(("spec", "of"), supported(PROBLEMS))
def test_huge_products_stay_finite(spec: KernelSpec, of: ConvProblem) -> None:
    for sizes in ((1e30, 1e5), (1e5, 1e30), (1e37, 1e-8), (1e-8, 1e36)):
        with dispatch.use_kernel(spec.name):
            error = relative_error(of, scaled(of, *sizes))
        assert error <= 2 * spec.tolerance["float32"].relative, sizes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("spec", "of"), supported(PROBLEMS, exact=True))
def test_exact_precision_loses_nothing_below_the_normal_numbers(
    spec: KernelSpec, of: ConvProblem, dtype: str
) -> None:
    of = of.with_(dtype=dtype)
    if spec.reasons(of, cpu_info()):
        return
    least = float(np.finfo(dtype).smallest_subnormal)
    small = least * 1e4  # a denormal number
    products = math.prod(of.weight_shape[1:])
    for x, weight in ((small, 1.0), (1.0, small), (math.sqrt(small), math.sqrt(small))):
        tensors = scaled(of, x, weight)
        truth = expected(of, tensors)
        with fastconv.precision("exact"), dispatch.use_kernel(spec.name):
            result = functional(of, tensors, out=None).astype(np.float64)
        assert np.abs(result - truth).max() <= products * least, (x, weight)
        assert np.any(result != 0)
        with dispatch.use_kernel(spec.name):
            flushed = functional(of, tensors, out=None)
        # The caller's floating-point mode is back, whichever was in force.
        assert np.float32(1e-40) * np.float32(1) != 0
        assert np.abs(flushed - truth).max() > products * least, "this input tells both apart"


def test_modes_of_threads_do_not_mix() -> None:
    """Helpers take jobs of both modes in turn."""
    of = problem((16, 32), (40, 33), 3, padding=1)
    tensors = scaled(of, 1e-41, 1.0)
    with dispatch.use_kernel("cpu.im2col_gemm"):
        for _ in range(200):
            with fastconv.precision("exact"):
                kept = functional(of, tensors, out=None)
            lost = functional(of, tensors, out=None)
            assert np.all(lost == 0)
            assert np.count_nonzero(kept) > kept.size // 2


def test_exact_precision_reaches_sparse_operators() -> None:
    x = random_tensor(np.random.default_rng(4), (9, 9), 20)
    x = x.replace(x.features * np.float32(1e-41))
    weight = np.ones((30, 20, 3, 3), np.float32)
    lost = fastconv.sparse.subm_conv(x, weight)
    with fastconv.precision("exact"):
        kept = fastconv.sparse.subm_conv(x, weight)
        mean = fastconv.sparse.global_avg_pool(x)
    assert np.all(lost.features == 0)
    assert np.count_nonzero(kept.features) > kept.features.size // 2
    assert np.count_nonzero(mean) > 0
