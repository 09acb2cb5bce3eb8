"""Positions are 64 bits wide everywhere: taps may lie any distance apart."""

from __future__ import annotations

import sys

import pytest

from fastconv import dispatch
from fastconv.contract.cpu import cpu_info
from fastconv.contract.spec import KernelSpec
from fastconv.cuda_device import named_model
from fastconv.kernels.cuda.specs import SPECS as CUDA_SPECS
from helpers import run_child
from problem_matrix import problem

#: The kernels that take such problems, in place at least.
KERNELS = ("im2col_gemm", "swapped_gemm", "dilated", "depthwise", "direct")


@pytest.mark.skipif(sys.platform == "win32", reason="memory is mapped as other systems map it")
@pytest.mark.parametrize("kernel", KERNELS)
def test_taps_further_apart_than_32_bits_tell(kernel: str) -> None:
    child = run_child("far_taps_child.py", f"cpu.{kernel}", timeout=600)
    lines = child.stdout.strip().splitlines()
    assert child.returncode == 0, f"{child.returncode} after {lines[-1:]}\n{child.stderr[-3000:]}"
    assert lines[-1].startswith("passed ")
    assert int(lines[-1].split()[1]) > 20


@pytest.mark.parametrize("kernel", ["depthwise", "direct", "brgemm"])
def test_kernels_that_copy_their_input_refuse_taps_far_apart(kernel: str) -> None:
    spec = next(spec for spec in dispatch.kernels(device="cpu") if spec.name == f"cpu.{kernel}")
    channels = (1, 1) if kernel == "depthwise" else (4, 32)
    for distance, refuses in ((2**10, False), (2**26, True), (2**32, True)):
        padding = ((distance, distance),)
        of = problem(channels, (9,), 3, padding=padding, dilation=distance, dtype="float16")
        assert any("reach" in text for text in spec.reasons(of, cpu_info())) == refuses, distance


@pytest.mark.parametrize(
    "spec", [spec for spec in CUDA_SPECS if spec.exact], ids=lambda spec: spec.name
)
def test_cuda_kernels_refuse_positions_beyond_32_bits(spec: KernelSpec) -> None:
    """They compare positions modulo 2**32, where a tap in the padding may seem to lie inside."""
    device = named_model("A100")
    for distance in (2**32, 2**33 + 1, 2**40):
        padding = ((distance, distance),)
        of = problem((4, 4), (9,), 3, padding=padding, dilation=distance).with_(device="cuda")
        assert any("taps reach" in text for text in spec.reasons(of, device)), distance
