"""The CUDA guide of kernels/README.md: its example kernel runs in the emulator and is audited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("numba_cuda")

import guide
from cuda_helpers import DEVICE
from fastconv import dispatch
from fastconv.contract.errors import NoKernelError
from fastconv.contract.problem_line import parse_line
from fastconv.contract.spec import Binding, KernelSpec
from fastconv.cuda_device import EMULATED, use_device
from fastconv.kernels.cuda import specs
from fastconv.kernels.cuda.audit import check
from fastconv.kernels.cuda.common import roofline
from fastconv.kernels.cuda.forecast.forecast import forecast
from problem_matrix import float_matrix

MATRIX = [each.with_(device="cuda") for each in float_matrix()[::12] if each.batch > 0]


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


def test_it_passes_the_tests_that_the_guide_names(request: pytest.FixtureRequest) -> None:
    modules = ("tests/cuda/test_kernels.py", "tests/cuda/test_checks.py")
    told = guide.run_tests(request.config, "cuda", *modules)
    for name in ("every_memory_order", "test_checks.py::test_"):
        assert re.search(rf"{name}\w*\[cuda\.naive.*PASSED", told), name
    assert "test_every_kernel_has_a_case_in_every_group[cuda/test_kernels.py] PASSED" in told


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
