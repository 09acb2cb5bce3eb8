"""Sparse pools and gradients for the weight on CUDA, over the matrix, in the emulator.

The tests are generated from the registry, as in `sparse/test_kernels.py`; rulebooks are the
reference's.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from fastconv import cuda_emulator
from fastconv.contract.sparse_problem import OPERANDS
from fastconv.contract.spec import KernelSpec, SparseBinding
from fastconv.cuda_device import MODELS
from fastconv.kernels.cuda.audit import check
from fastconv.kernels.cuda.common import launch, roofline
from fastconv.kernels.cuda.emulator.errors import RaceError
from fastconv.kernels.cuda.sparse import depthwise_grad, row_costs, weight_grad
from fastconv.kernels.cuda.sparse.specs import SPECS as ALL_SPECS
from helpers import assert_close, assert_exact, bits
from sparse_matrix import (
    DOWN,
    SCAN,
    SMALL,
    Case,
    make_plan,
    matrix,
    operands,
    run_plan,
    sums,
    supported_pairs,
)

DEVICE = MODELS["T4"]
OPS = tuple(op for op in OPERANDS if op != "sparse_conv")
SPECS = tuple(spec for spec in ALL_SPECS if spec.op in OPS)
MATRIX = [case for case in matrix() if case.op in OPS]


def problem_of(case: Case) -> Any:
    return dataclasses.replace(case.problem, device="cuda")


def supported(cases: list[Case]) -> list[Any]:
    return supported_pairs(SPECS, cases, lambda spec, case: spec.reasons(problem_of(case), DEVICE))


def plan_of(spec: KernelSpec, case: Case) -> Any:
    return make_plan(spec, problem_of(case), SparseBinding(), DEVICE)


def test_every_operator_has_a_kernel_for_every_case() -> None:
    assert {spec.op for spec in SPECS} == set(OPS)
    for case in MATRIX:
        problem = problem_of(case)
        fits = [each for each in SPECS if each.op == case.op and not each.reasons(problem, DEVICE)]
        assert fits, case.id
        for spec in fits:
            assert case.dtype in spec.tolerance and spec.workspace(problem, DEVICE) >= 0
            assert 0 < spec.cost(problem, DEVICE) < 1


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "case"), supported(MATRIX))
def test_small_integers_are_exact_and_random_numbers_within_tolerance(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    plan = plan_of(spec, case)
    t = operands(case, rng, whole=True)
    assert_exact(run_plan(plan, case, t), sums(case, t))
    t = operands(case, rng, whole=False)
    truth, found = sums(case, t), run_plan(plan, case, t)
    assert_close(found, truth, spec.tolerance[case.dtype], case.id, truth)
    assert bits(run_plan(plan, case, t)) == bits(found)


SMALL_CASES = [
    Case(of, rows, 17, 17, op=op) for op in OPS for of, rows in ((SMALL, 30), (DOWN, 60))
]
SMALL_CASES.append(Case(SMALL, 30, 17, 17, 17, op="sparse_weight_grad"))


@pytest.mark.parametrize(("spec", "case"), supported(SMALL_CASES))
def test_no_order_of_threads_matters_and_no_check_fails(
    spec: KernelSpec, case: Case, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    plan, t = plan_of(spec, case), operands(case, rng, whole=False)
    found = run_plan(plan, case, t)
    monkeypatch.setattr(launch, "emulated", Checked)
    assert bits(run_plan(plan, case, t)) == bits(found)


class Checked:
    """A kernel that is launched with all checks, in three orders of threads and blocks."""

    plain = staticmethod(launch.emulated)

    def __init__(self, kernel: launch.Kernel) -> None:
        self._kernel = self.plain(kernel)

    def launch(self, grid: Any, block: Any, arguments: Any) -> None:
        self._kernel.launch(grid, block, arguments, checks=cuda_emulator.ALL).raise_faults()


@pytest.mark.parametrize(
    ("spec", "case"), supported([case for case in SMALL_CASES if "max_pool" in case.op])
)
def test_maxima_keep_nan_and_infinity(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    t = operands(case, rng, whole=True)
    for value in (np.nan, np.inf, -np.inf):
        t["x"][rng.random(t["x"].shape) < 0.1] = value
    if case.op == "sparse_max_pool_grad":
        pool = dataclasses.replace(case, op="sparse_max_pool")
        t["out"] = sums(pool, t).astype(t["out"].dtype)
    truth = sums(case, t)
    assert case.op.endswith("grad") or np.isnan(truth).any()
    assert_exact(run_plan(plan_of(spec, case), case, t), truth)


@pytest.mark.parametrize("rows", [0, 40, 5000])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pools_over_everything_in_any_order_of_the_batch(
    kind: str, rows: int, rng: np.random.Generator
) -> None:
    """Entries without sites are 0, and chunks of rows hold several entries."""
    x = -1 - rng.integers(0, 9, (rows, 35)).astype(np.float32)
    batches = rng.choice(np.array([0, 2, 3], np.int32), rows)
    out = np.full((5, 35), np.nan, np.float32)
    problem = dataclasses.replace(
        problem_of(Case(SMALL, 30, 35, 35, op=f"sparse_global_{kind}_pool")),
        in_rows=rows,
        out_rows=5,
    )
    module = importlib.import_module("fastconv.kernels.cuda.sparse.global_pool")
    getattr(module, f"plan_{kind}")(problem, SparseBinding(), DEVICE).run(None, x, batches, out)
    for entry in range(5):
        mine = x[batches == entry].astype(np.float64)
        truth = (mine.max(0) if kind == "max" else mine.mean(0)) if len(mine) else np.zeros(35)
        assert np.allclose(out[entry], truth, rtol=2e-6, atol=0), entry


@pytest.mark.parametrize("channels", [140, 136], ids=["one at a time", "four at a time"])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("tile", row_costs.TILES, ids=lambda tile: tile.name)
def test_every_tile_and_number_of_parts(
    tile: row_costs.GradTile, parts: int, channels: int, rng: np.random.Generator
) -> None:
    case = Case(SCAN, 700, channels, 72, 2, op="sparse_weight_grad")
    tiles = -(-36 // tile.bm), -(-(channels // 2) // tile.bn)
    split = row_costs.GradSplit(tile, *tiles, -(-700 // parts), parts)
    t = operands(case, rng, whole=True)
    plan = weight_grad.WeightGradPlan(problem_of(case), split)
    assert_exact(run_plan(plan, case, t), sums(case, t))


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_of_a_depthwise_gradient(parts: int, rng: np.random.Generator) -> None:
    case = Case(SCAN, 700, 40, 40, 40, op="sparse_weight_grad")
    t = operands(case, rng, whole=True)
    plan = depthwise_grad.DepthwiseGradPlan(problem_of(case), -(-700 // parts), parts)
    assert_exact(run_plan(plan, case, t), sums(case, t))


def test_gradients_of_large_scans_are_cut_into_parts_that_cover_all_rows() -> None:
    problem = dataclasses.replace(
        problem_of(Case(SCAN, 700, 64, 64, op="sparse_weight_grad")), out_rows=2_000_000
    )
    split = row_costs.grad_split(problem, DEVICE)
    assert split.parts > 1 and split.parts * split.part_rows >= 2_000_000
    assert (split.parts - 1) * split.part_rows < 2_000_000


@pytest.mark.parametrize(("tile", "storage"), [("64x64x16", "float32"), ("32x32x16", "float64")])
def test_shares_are_those_of_the_audit(tile: str, storage: str) -> None:
    name = f"sparse_weight_grad {tile} {storage} x4"
    kernel, bars = next(each for each in check.kernels_to_audit() if each[0].name == name)
    found = check.audit_kernel(kernel, bars, "sm_80")
    assert found.faults == () and found.cubin.shared == kernel.shared
    size = 8 if storage == "float64" else 4
    assert roofline.FMA_FRACTIONS[f"weight grad {tile}", size] == pytest.approx(
        found.share, abs=5e-3
    )


def test_a_product_that_does_not_wait_for_its_panel_is_found(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    case = Case(SMALL, 30, 17, 17, op="sparse_weight_grad")
    right = weight_grad.grad_text

    def wrong(tile: row_costs.GradTile, width: int) -> str:
        text, read = right(tile, width), "cuda.syncthreads()\n            a_read"
        assert read in text
        return text.replace(read, "a_read")

    monkeypatch.setattr(weight_grad, "grad_text", wrong)
    monkeypatch.setattr(weight_grad, "grad_kernel", weight_grad.grad_kernel.__wrapped__)
    monkeypatch.setattr(launch, "emulated", Checked)
    (spec,) = (each for each in SPECS if each.name == "cuda.sparse_weight_grad")
    with pytest.raises(RaceError):
        run_plan(plan_of(spec, case), case, operands(case, rng, whole=True))
