"""CUDA kernels under every check of the emulator, and faults planted in them that it must find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from cuda_helpers import SMALL_PROBLEMS, convolve, forced, planner, supported
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import KernelSpec
from fastconv.kernels.cuda.common import launch
from fastconv.kernels.cuda.common.launch import emulation
from fastconv.kernels.cuda.emulator import (
    ALL,
    OutOfBoundsError,
    RaceError,
    Report,
    UninitialisedSharedError,
)
from fastconv.kernels.cuda.gemm import plan as gemm_plan
from fastconv.kernels.cuda.gemm import source as implicit_gemm_source
from helpers import assert_exact, expected, small_integers

#: Most wavefronts of the banks that a store may take beyond the fewest possible.
MOST_CONFLICTS = 2


@pytest.fixture
def reports() -> Iterator[list[Report]]:
    """What each launch of a test showed, all checks on and threads in three orders."""
    with emulation(checks=ALL) as made:
        yield made


@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_kernels_show_no_fault(
    spec: KernelSpec, each: ConvProblem, reports: list[Report], rng: np.random.Generator
) -> None:
    tensors = small_integers(each, rng)
    result = convolve(planner(spec), each, tensors, epilogue=True)
    if spec.exact:
        assert_exact(result, expected(each, tensors, epilogue=True))
    assert len(reports) >= 2  # one packs the weight


@pytest.mark.parametrize("tile", range(4))
@pytest.mark.parametrize("each", [SMALL_PROBLEMS[0], SMALL_PROBLEMS[-1]], ids=lambda p: p.line())
def test_stores_to_shared_memory_meet_few_conflicts(
    each: ConvProblem, tile: int, reports: list[Report], rng: np.random.Generator
) -> None:
    tensors = small_integers(each, rng)
    result = convolve(forced(tile, 1), each, tensors, epilogue=True)
    assert_exact(result, expected(each, tensors, epilogue=True))
    stores = [
        count for count in reports[-1].accesses if (count.kind, count.space) == ("store", "shared")
    ]
    assert stores
    for count in stores:
        assert count.conflicts <= MOST_CONFLICTS * count.requests, count


PLANTED = {
    "no barrier behind a panel": (
        "\n        cuda.syncthreads()\n",
        "\n",
        RaceError,
    ),
    "samples beyond the edge": (
        "if ((step0[1] & outside0_0)) == u(0):",
        "if True:",
        OutOfBoundsError,
    ),
    "a panel that is not stored": (
        "store4s(panels, a_store + u(0), *a_next0)",
        "pass",
        UninitialisedSharedError,
    ),
    "a step that reads its neighbour's row": (
        "b_read + u(36)",
        "b_read + u(72)",
        AssertionError,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found(
    name: str, reports: list[Report], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    right, wrong, error = PLANTED[name]
    text_of: Callable[..., str] = implicit_gemm_source.source

    def planted(*what: Any) -> str:
        text = text_of(*what)
        assert right in text
        return text.replace(right, wrong, 1 if right.startswith("\n") else -1)

    make = gemm_plan.gemm_kernel

    def planted_kernel(config: implicit_gemm_source.Config) -> launch.Kernel:
        kernel = make(config)
        with monkeypatch.context() as patch:
            patch.setattr(implicit_gemm_source, "source", planted)
            function = implicit_gemm_source.kernel_function.__wrapped__(config)
        return dataclasses.replace(kernel, function=function)

    monkeypatch.setattr(gemm_plan, "gemm_kernel", planted_kernel)
    each = SMALL_PROBLEMS[0]
    tensors = small_integers(each, rng)
    with pytest.raises(error):
        assert_exact(
            convolve(forced(3, 1), each, tensors, epilogue=True),
            expected(each, tensors, epilogue=True),
        )
