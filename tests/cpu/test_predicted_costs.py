"""Predicted costs: what they must not undercut on one known machine.

A cost that is wrong by a constant factor changes no result, so only choices (test_choices.py) and
counts tell.
"""

from __future__ import annotations

import math

import pytest

from fastconv import dispatch
from fastconv.contract.problem import ConvProblem
from fastconv.kernels.cpu.machine.zen4 import ZEN4
from problem_matrix import problem

KERNELS = dispatch.kernels(op="conv", device="cpu")
DEVICE, CLOCK = ZEN4.device, ZEN4.core.peak
LARGE = (
    problem((512, 512), (28, 28), 3, padding=1),
    problem((256, 512), (56, 56), 3, padding=1),
    problem((512, 256), (60, 60), 3, padding=1, batch=2),
    problem((256, 256), (12, 24, 24), 3, padding=1),
    problem((512, 512), (720,), 3, padding=1),
)


def products(m: int, of: ConvProblem) -> int:
    """Multiplications of F(m, r) along every axis: m + r - 1 for m outputs."""
    along = zip(of.out_size, of.kernel_size, strict=True)
    elements = math.prod((m + r - 1) * math.ceil(size / m) for size, r in along)
    return elements * of.batch * of.in_channels * of.out_channels


@pytest.mark.parametrize("of", LARGE, ids=lambda of: of.line())
def test_winograd_is_predicted_by_its_multiplications(of: ConvProblem) -> None:
    """Large layers: products take most of the time, a vector of them a cycle."""
    checked = 0
    for m in (2, 3, 4, 6):
        spec = next(spec for spec in KERNELS if spec.name == f"cpu.winograd_f{m}")
        if spec.reasons(of, DEVICE):
            continue
        counted = products(m, of) / DEVICE.lanes(4) / CLOCK / DEVICE.threads
        assert 1.0 <= spec.cost(of, DEVICE) / counted <= 2.5, m
        checked += 1
    assert checked


@pytest.mark.parametrize("name", ["im2col_gemm", "swapped_gemm", "brgemm"])
@pytest.mark.parametrize("of", LARGE, ids=lambda of: of.line())
def test_matrix_products_are_predicted_by_their_multiplications(name: str, of: ConvProblem) -> None:
    spec = next(spec for spec in KERNELS if spec.name == f"cpu.{name}")
    counted = of.macs / DEVICE.lanes(4) / CLOCK / DEVICE.threads
    assert 1.0 <= spec.cost(of, DEVICE) / counted <= 1.6


def pack_seconds(name: str, of: ConvProblem) -> float:
    """The predicted time of packing the weight."""
    spec = next(spec for spec in KERNELS if spec.name == f"cpu.{name}")
    assert not spec.reasons(of, DEVICE)
    return spec.pack_cost(of, DEVICE)


def test_transformed_weights_are_priced_by_the_filter_beyond_any_cache() -> None:
    """They go past caches that do not hold them, so four times the filters cost four times."""
    usual = problem((512, 512), (28, 28), 3, padding=1)
    wide = usual.with_(in_channels=1024, out_channels=1024)
    for m in (2, 4, 6):
        times = pack_seconds(f"winograd_f{m}", wide) / pack_seconds(f"winograd_f{m}", usual)
        assert times == pytest.approx(4, rel=0.01), m
    small = usual.with_(in_channels=64, out_channels=64)
    few, many = (pack_seconds(f"winograd_f{m}", small) for m in (2, 6))
    assert 1.5 < many / few < 3, "taps are read, whether they become 16 elements or 64"
    assert 3 < pack_seconds("winograd_f6", wide) / pack_seconds("winograd_f2", wide) <= 4


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("fast_fir", problem((1, 1), (5000,), 500)),
        ("fft", problem((1, 1), (200, 200), 63)),
        ("depthwise", problem((64, 64), (28, 28), 3, groups=64).with_(layout="channels_last")),
        ("depthwise", problem((512, 512), (7, 7), 5, groups=512, padding=2)),
    ],
)
def test_more_filters_cost_more_to_pack(name: str, of: ConvProblem) -> None:
    many = of.with_(in_channels=100 * of.groups, out_channels=100 * of.groups)
    many = many.with_(groups=100 * of.groups)
    assert pack_seconds(name, many) > 1.5 * pack_seconds(name, of) > 0


def test_rows_of_a_depthwise_weight_are_read_where_they_lie() -> None:
    assert pack_seconds("depthwise", problem((64, 64), (56, 56), 3, groups=64, padding=1)) == 0
