"""The CUDA guide of kernels/README.md: its example kernel runs in the emulator and is audited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

import guide
from cuda_helpers import DEVICE, convolve, planner, thread_orders
from fastconv import dispatch
from fastconv.contract.errors import NoKernelError
from fastconv.contract.problem import parse_line
from fastconv.contract.spec import Binding, KernelSpec
from fastconv.cuda_device import EMULATED, use_device
from fastconv.kernels.cuda import specs
from fastconv.kernels.cuda.audit import check
from fastconv.kernels.cuda.common import roofline
from fastconv.kernels.cuda.common.launch import emulation
from fastconv.kernels.cuda.emulator import ALL
from fastconv.kernels.cuda.forecast.forecast import forecast
from helpers import assert_close, assert_exact, bits, expected, gaussians, small_integers
from problem_matrix import matrix

MATRIX = [each.with_(device="cuda") for each in matrix()[::12] if each.batch > 0]
EPILOGUES = (None, "relu", ("leaky_relu", 0.25), "relu6")  # exact on small integers


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The modules of the guide's kernel, registered, by file below kernels/."""
    before = specs.SPECS
    with guide.installed("cuda", tmp_path_factory.mktemp("guide")) as modules:
        assert specs.SPECS[:-1] == before
        yield modules
    assert before == specs.SPECS and "cuda.naive" not in specs.LAUNCHES
    assert ("naive", 4) not in roofline.FMA_FRACTIONS


@pytest.fixture
def naive(installed: dict[str, Any]) -> KernelSpec:
    (spec,) = (each for each in dispatch.kernels("conv", "cuda") if each.name == "cuda.naive")
    return spec


def test_it_is_a_kernel_as_others_are(naive: KernelSpec) -> None:
    able = [each for each in MATRIX if not naive.reasons(each, DEVICE)]
    assert len(able) >= 15
    assert {each.ndim for each in able} == {1, 2, 3}
    problem = parse_line("ic64ih56oc64kh3ph1")[0].with_(device="cuda")
    with use_device(EMULATED, DEVICE):
        costs = {each.spec.name: each.seconds for each in dispatch.list_candidates(problem, True)}
    assert max(costs, key=lambda name: costs[name] if costs[name] < 1 else 0) == "cuda.naive"
    assert forecast("cuda.naive", problem, DEVICE).forecast_ms == pytest.approx(
        1e3 * costs["cuda.naive"]
    )


def test_small_integers_are_exact_in_every_order_of_threads(
    naive: KernelSpec, rng: np.random.Generator
) -> None:
    able = [each for each in MATRIX if not naive.reasons(each, DEVICE) and each.macs < 10**6]
    for number, each in enumerate(able):
        tensors, activation = small_integers(each, rng), EPILOGUES[number % len(EPILOGUES)]
        truth = expected(each, tensors, epilogue=True, activation=activation)
        for order in thread_orders(rng):
            with emulation(order=order):
                result = convolve(
                    planner(naive), each, tensors, epilogue=True, activation=activation
                )
            assert_exact(result, truth, f"{each.line()} {activation} {order}")


def test_no_check_fails_and_random_values_are_within_tolerance(
    naive: KernelSpec, rng: np.random.Generator
) -> None:
    able = [each for each in MATRIX if not naive.reasons(each, DEVICE) and each.macs < 10**5]
    assert len(able) >= 5
    for each in able:
        tensors = gaussians(each, rng)
        with emulation(checks=ALL):
            result = convolve(planner(naive), each, tensors, epilogue=False)
        truth = expected(each, tensors)
        assert_close(result, truth, naive.tolerance[each.dtype], each.line())
        assert bits(convolve(planner(naive), each, tensors, epilogue=False)) == bits(result)


def test_refusals_are_sentences(naive: KernelSpec) -> None:
    refused = [each for each in MATRIX if naive.reasons(each, DEVICE)]
    assert {each.dtype for each in refused} >= {"float16", "bfloat16"}
    with use_device(EMULATED, DEVICE), dispatch.use_kernel("cuda.naive"):
        for each in refused:
            sentences = naive.reasons(each, DEVICE)
            assert all(len(sentence.split()) > 2 for sentence in sentences), sentences
            with pytest.raises(NoKernelError) as caught:
                dispatch.make_plan(each, Binding((), (), ()))
            for sentence in ("cuda.naive", *sentences):
                assert sentence in str(caught.value), each.line()


@pytest.mark.parametrize("arch", ["sm_80", "sm_120"])
def test_the_audit_finds_no_fault_and_the_share_that_costs_count_with(
    installed: dict[str, Any], naive: KernelSpec, arch: str
) -> None:
    audited = list(installed["cuda/audit/check.py"]._naive_kernels())
    assert {kernel.name for kernel, _ in audited} == {"naive float32", "naive float64"}
    for kernel, bars in audited:
        found = check.audit_kernel(kernel, bars, arch)
        assert found.faults == ()
        if arch == "sm_80":
            share = roofline.FMA_FRACTIONS["naive", 8 if "float64" in kernel.name else 4]
            assert share == pytest.approx(found.share, abs=5e-3)
