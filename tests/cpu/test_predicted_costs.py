"""Predicted costs: which kernel they choose on one known machine, and what they must not undercut.

A cost that is wrong by a constant factor changes no result, so only choices and counts tell.
"""

from __future__ import annotations

import math

import pytest

from fastconv import dispatch
from fastconv.bench.cases import load
from fastconv.contract.cpu import DeviceInfo
from fastconv.contract.problem import ConvProblem
from problem_matrix import problem

KERNELS = dispatch.kernels(op="conv", device="cpu")
#: Two cores of a Zen 4, on which the kernels were measured.
ZEN4 = DeviceInfo("cpu", "Zen 4", "avx512", 64, 32, True, 32 << 10, 1 << 20, 32 << 20, 2, True)
#: Kernels of the rows of the suite `core` for packed weights; measured ones are within a tenth.
CHOICES = {
    "conv1 7x7s2": "winograd_1d",
    "3x3 64@56": "winograd_f6",
    "3x3 256@14": "winograd_f4",
    "3x3 512@7": "winograd_f2",
    "3x3s2 128@56": "winograd_f4",
    "1x1 64>256@56": "brgemm",
    "1x1 256>64@56": "im2col_gemm",
    "1x1s2 256>512@56": "brgemm",
    "1x1 2048>512@7": "brgemm",
    "vgg 3>64@224": "winograd_1d",
    "vgg 64@224": "winograd_f6",
    "vgg 512@28": "winograd_f6",
    "alex1 11s4": "winograd_1d",
    "alex2 5x5 g2": "winograd_f4",
    "mbv1 conv1 s2": "brgemm",
    "dw 32@112": "depthwise",
    "dw 64s2@112": "depthwise",
    "dw 512@14": "depthwise",
    "dw5x5 240@28": "depthwise",
    "dw7x7 96@56": "depthwise",
    "dw31 replknet 128@56": "fast_fir",
    "group32 256@28": "direct",
    "shuffle 1x1 g3 240@28": "im2col_gemm",
    "inc 1x7 128@17": "winograd_f4",
    "inc 7x1 128@17": "winograd_f4",
    "aspp d6 512@33": "winograd_f6",
    "aspp d12": "winograd_f3",
    "dilated d2 64@128": "winograd_f6",
    "dw dil2 384@28": "depthwise",
    "conv1d 64@4096 k9": "winograd_f6",
    "conv1d tcn d8 k3 256@1024": "winograd_f6",
    "conv1d dw k31 256@1000": "depthwise",
    "conv3d c3d 3>64": "winograd_1d",
    "conv3d 64>128": "winograd_f4",
    "conv3d unet 32@64^3": "winograd_f4",
    "conv3d dw 96@8x28x28": "depthwise",
    "conv3d dil2 32@32^3": "winograd_f4",
    "N32 3x3 64@56": "winograd_f6",
    "lenet N256": "depthwise",
}
LARGE = (
    problem((512, 512), (28, 28), 3, padding=1),
    problem((256, 512), (56, 56), 3, padding=1),
    problem((512, 256), (60, 60), 3, padding=1, batch=2),
    problem((256, 256), (12, 24, 24), 3, padding=1),
    problem((512, 512), (720,), 3, padding=1),
)


def cheapest(of: ConvProblem) -> str:
    """The kernel of the lowest predicted cost on that machine."""
    costs = {spec.name: spec.cost(of, ZEN4) for spec in KERNELS if not spec.reasons(of, ZEN4)}
    return min(costs, key=lambda name: costs[name]).removeprefix("cpu.")


def test_rows_of_a_suite_get_their_kernels() -> None:
    chosen = {case.name: cheapest(case.problem) for case in load("core")}
    assert {name: chosen.get(name) for name in CHOICES} == CHOICES


def products(m: int, of: ConvProblem) -> int:
    """Multiplications of F(m, r) along every axis: m + r - 1 for m outputs."""
    along = zip(of.out_size, of.kernel_size, strict=True)
    elements = math.prod((m + r - 1) * math.ceil(size / m) for size, r in along)
    return elements * of.batch * of.in_channels * of.out_channels


@pytest.mark.parametrize("of", LARGE, ids=lambda of: of.line())
def test_winograd_is_predicted_by_its_multiplications(of: ConvProblem) -> None:
    """Large layers: products take most of the time, a vector of them a cycle at 3.6 GHz."""
    checked = 0
    for m in (2, 3, 4, 6):
        spec = next(spec for spec in KERNELS if spec.name == f"cpu.winograd_f{m}")
        if spec.reasons(of, ZEN4):
            continue
        counted = products(m, of) / ZEN4.lanes(4) / 3.6e9 / ZEN4.threads
        assert 1.0 <= spec.cost(of, ZEN4) / counted <= 2.5, m
        checked += 1
    assert checked


@pytest.mark.parametrize("name", ["im2col_gemm", "swapped_gemm", "brgemm"])
@pytest.mark.parametrize("of", LARGE, ids=lambda of: of.line())
def test_matrix_products_are_predicted_by_their_multiplications(name: str, of: ConvProblem) -> None:
    spec = next(spec for spec in KERNELS if spec.name == f"cpu.{name}")
    counted = of.macs / ZEN4.lanes(4) / 3.6e9 / ZEN4.threads
    assert 1.0 <= spec.cost(of, ZEN4) / counted <= 1.6
