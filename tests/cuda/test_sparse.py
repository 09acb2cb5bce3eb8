"""Sparse convolution on CUDA, on NumPy arrays in the emulator, against the reference.

Threads and blocks run forwards, backwards and at random from case to case; some cases run under
every check of the emulator, and faults that are planted in the kernels must be found.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from cuda_helpers import DEVICE
from fastconv import dispatch
from fastconv.contract.settings import config
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import ACTIVATIONS, KernelSpec, SparseBinding
from fastconv.kernels.cuda.common import launch
from fastconv.kernels.cuda.emulator import (
    ALL,
    EmulatedKernel,
    OutOfBoundsError,
    RaceError,
    Report,
    UninitialisedSharedError,
)
from fastconv.kernels.cuda.gemm.tile import BlockTile
from fastconv.kernels.cuda.sparse import gemm as sparse_gemm
from fastconv.kernels.cuda.sparse import gemm_costs, gemm_source
from fastconv.sparse.rulebook import Rulebook
from helpers import assert_close, assert_exact, bits
from sparse_matrix import (
    EXACT_ACTIVATIONS,
    SCAN,
    SMALL,
    Case,
    activated,
    convolutions,
    geometry,
    operands,
    rulebook,
    split_activation,
    sums,
)

KERNELS = dispatch.kernels(op="sparse_conv", device="cuda")
CASES = list(dict.fromkeys(convolutions()))
#: Groups that the product, which computes a whole tile for each, is given here.
MOST_GROUPS = 17
ORDERS: tuple[Any, ...] = ("forward", "reverse", 5)

MakePlan = Callable[[SparseProblem, SparseBinding], Any]
compiled = functools.cache(EmulatedKernel)


def supported(cases: list[Case]) -> list[Any]:
    """Every pair of a kernel and a case that it runs, for parametrize."""
    pairs = [
        (spec, case)
        for spec in KERNELS
        for case in cases
        if not spec.reasons(case.problem, DEVICE)
        and (spec.name != "cuda.sparse_gemm" or case.groups <= MOST_GROUPS)
    ]
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].id}") for pair in pairs]


def planner(spec: KernelSpec) -> MakePlan:
    module, _, function = spec.target.partition(":")
    make = getattr(importlib.import_module(module), function)
    return lambda problem, binding: make(problem, binding, DEVICE)


def forced(tile: BlockTile) -> MakePlan:
    """Plans of the product with a given tile."""
    return lambda problem, binding: sparse_gemm.plan_tile(problem, binding, tile)


def convolve(
    make: MakePlan, case: Case, t: dict[str, Any], activation: Any = None,
    book: Rulebook | None = None,
) -> np.ndarray:  # fmt: skip
    """The kernel's answer, in an array that was full of NaN."""
    name, alpha = split_activation(activation)
    plan = make(case.problem, SparseBinding(t["weight"].strides, name, alpha))
    out = np.full_like(t["out"], np.nan)
    book = book or rulebook(case.geometry, case.rows)
    plan.run(book, t["x"], plan.pack(t["weight"]), t["bias"], out)
    return out


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workspaces start as NaN."""
    monkeypatch.setattr(config, "poison_workspace", True)


@pytest.fixture
def reordered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run threads and blocks in another order from case to case."""
    order, plain = ORDERS[len(request.node.name) % len(ORDERS)], launch.emulated

    @dataclasses.dataclass
    class Reordered:
        kernel: Any

        def launch(self, *arguments: Any) -> None:
            plain(self.kernel).launch(*arguments, order=order)

    monkeypatch.setattr(launch, "emulated", Reordered)


@pytest.mark.usefixtures("reordered")
@pytest.mark.parametrize(("spec", "case"), supported(CASES))
def test_whole_numbers_are_exact(spec: KernelSpec, case: Case, rng: np.random.Generator) -> None:
    t = operands(case, rng, whole=True)
    activation = EXACT_ACTIVATIONS[len(t["x"]) % len(EXACT_ACTIVATIONS)]
    truth = activated(sums(case, t), activation)
    assert_exact(convolve(planner(spec), case, t, activation), truth, str(activation))


@pytest.mark.parametrize(("spec", "case"), supported(CASES[::5]))
def test_random_values_are_within_tolerance(
    spec: KernelSpec, case: Case, rng: np.random.Generator
) -> None:
    t, choices = operands(case, rng, whole=False), list(ACTIVATIONS.items())
    name, kind = choices[(case.out_channels + (case.rows or 0)) % len(choices)]
    activation = name, kind.default
    before = sums(case, t)
    truth = activated(before, activation)
    actual = convolve(planner(spec), case, t, activation)
    assert_close(actual, truth, spec.tolerance[case.dtype], activation[0], before)


def edges(width: int, dtype: str) -> list[Case]:
    """Partial tiles on every side, several panels an offset; groups."""
    channels = (20, 10) if width == 4 else (19, 6)
    wide = Case(SCAN, 150, channels[0], 70, dtype=dtype)
    return [wide, Case(SCAN, 150, 2 * channels[1], 140, 2, dtype=dtype)]


TILES = [(tile, "float32") for tile in gemm_costs.tiles_for("float32")] + [
    (tile, "float64") for tile in gemm_costs.tiles_for("float64")
]


@pytest.mark.parametrize("width", [4, 1])
@pytest.mark.parametrize(
    ("tile", "dtype"), TILES, ids=[f"{gemm_source.tile_name(t)}-{d}" for t, d in TILES]
)
def test_every_tile(tile: BlockTile, dtype: str, width: int, rng: np.random.Generator) -> None:
    for case in edges(width, dtype):
        t = operands(case, rng, whole=True)
        assert_exact(convolve(forced(tile), case, t), sums(case, t), case.id)


def test_a_row_sums_by_rising_offset_then_channel(rng: np.random.Generator) -> None:
    """Whatever the tile, the run and the rows that share it: the same bits.

    Factors of eleven bits have exact products, so that a fused multiply-add is the plain one.
    """
    case, book = Case(SCAN, 400, 20, 33, bias=False), rulebook(SCAN, 400)
    t = operands(case, rng, whole=False)
    for name in ("x", "weight"):
        t[name] = t[name].astype(np.float16).astype(np.float32)
    truth, taps = np.zeros(t["out"].shape, np.float32), t["weight"].reshape(33, 20, -1)
    for offset, inputs in enumerate(book.neighbours):
        rows = np.flatnonzero(inputs >= 0)
        for channel in range(20):
            samples = t["x"][inputs[rows], channel]
            truth[rows] += samples[:, None] * taps[:, channel, offset]
    for tile in gemm_costs.TILES[1:]:
        assert bits(convolve(forced(tile), case, t)) == bits(truth)
    moved = rng.permutation(400)
    table = np.ascontiguousarray(book.neighbours[:, moved])
    other = Rulebook(book.geometry, book.in_indices, book.out_indices, table, book.pairs)
    again = convolve(forced(gemm_costs.TILES[2]), case, t, book=other)
    assert bits(again) == bits(truth[moved])


def test_features_that_begin_anywhere(rng: np.random.Generator) -> None:
    """Channels come in fours, but not from a multiple of 16 bytes: each is loaded by itself."""
    for spec, case in (
        (KERNELS[0], Case(SMALL, 30, 16, 20)),
        (KERNELS[1], Case(SMALL, 30, 8, 8, 8)),
    ):
        t = operands(case, rng, whole=True)
        memory = np.zeros(t["x"].nbytes + 32, np.uint8)
        first = -memory.ctypes.data % 16 + t["x"].itemsize
        t["x"] = np.ndarray(t["x"].shape, t["x"].dtype, memory, first)
        t["x"][...] = rng.integers(-4, 5, t["x"].shape)
        assert_exact(convolve(planner(spec), case, t), sums(case, t), spec.name)


@pytest.mark.parametrize("order", ["last axis outermost", "reversed"])
def test_weight_in_any_memory_order(order: str, rng: np.random.Generator) -> None:
    for spec, case in zip(KERNELS, (Case(SCAN, 50, 16, 20), Case(SCAN, 50, 8, 8, 8)), strict=True):
        t = operands(case, rng, whole=True)
        if order == "reversed":
            backwards = (slice(None, None, -1),) * t["weight"].ndim
            t["weight"] = np.ascontiguousarray(t["weight"][backwards])[backwards]
        else:
            t["weight"] = np.asfortranarray(t["weight"])
        assert_exact(convolve(planner(spec), case, t), sums(case, t), spec.name)


def test_rows_that_meet_nothing_are_the_bias(rng: np.random.Generator) -> None:
    """Sites that a stride skipped, on the way back; whole tiles of them."""
    down = rulebook(geometry("regular", (12, 12), 1, stride=3), 200)
    book = down.reverse()
    assert (book.masks == 0).sum() > 2 * 32
    for spec, groups in ((KERNELS[0], 1), (KERNELS[1], 8)):
        problem = SparseProblem(
            "sparse_conv", book.in_rows, book.out_rows, book.pairs, (1, 1), 8, 8, groups
        )
        x = rng.integers(-4, 5, (book.in_rows, 8)).astype(np.float32)
        weight = rng.integers(-4, 5, problem.weight_shape).astype(np.float32)
        bias = rng.integers(-4, 5, 8).astype(np.float32)
        out = np.full((book.out_rows, 8), np.nan, np.float32)
        plan = planner(spec)(problem, SparseBinding(weight.strides))
        plan.run(book, x, plan.pack(weight), bias, out)
        none = book.masks[0] == 0
        assert np.array_equal(out[none], np.broadcast_to(bias, (none.sum(), 8)))
        assert not np.isnan(out).any()


@pytest.mark.parametrize("rows", [32, 64, 128])
def test_lists_hold_the_offsets_of_any_row_of_a_tile(rows: int) -> None:
    book = rulebook(geometry("submanifold", (9, 9, 9), 5), 180)
    counts, offsets = sparse_gemm.list_offsets(book, rows)
    lists = offsets.reshape(len(counts), -1)
    assert np.array_equal(np.sort(book.order), np.arange(180))
    for tile, count in enumerate(counts):
        met = (book.neighbours[:, book.order[tile * rows : (tile + 1) * rows]] >= 0).any(axis=1)
        assert lists[tile, :count].tolist() == np.flatnonzero(met).tolist()
    assert min(counts) < 125


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What each launch of a test showed, all checks on and threads in three orders."""
    made: list[Report] = []

    @dataclasses.dataclass
    class Checked:
        kernel: Any

        def launch(self, *arguments: Any) -> None:
            report = compiled(self.kernel.function).launch(*arguments, checks=ALL)
            made.append(report)
            report.raise_faults()

    monkeypatch.setattr(launch, "emulated", Checked)
    return made


CHECKED: dict[str, tuple[MakePlan, Case]] = {
    "128x64x8 x4": (forced(gemm_costs.TILES[0]), Case(SCAN, 150, 12, 68)),
    "32x32x16 x4": (forced(gemm_costs.TILES[2]), Case(SCAN, 70, 40, 66, 2)),
    "32x32x16 x1": (forced(gemm_costs.TILES[2]), Case(SCAN, 70, 9, 9, 3)),
    "depthwise x4": (planner(KERNELS[1]), Case(SCAN, 50, 12, 12, 12)),
    "depthwise x1": (planner(KERNELS[1]), Case(SCAN, 50, 5, 5, 5)),
}  # fmt: skip


def fresh(case: Case) -> Rulebook:
    """The case's rulebook, nothing derived of it: its lists are made under checks too."""
    return pickle.loads(pickle.dumps(rulebook(case.geometry, case.rows)))


@pytest.mark.parametrize("name", CHECKED)
def test_kernels_show_no_fault(name: str, reports: list[Report], rng: np.random.Generator) -> None:
    make, case = CHECKED[name]
    t = operands(case, rng, whole=True)
    assert_exact(convolve(make, case, t, book=fresh(case)), sums(case, t))
    assert len(reports) == (2 if name.startswith("depthwise") else 3)


PLANTED = {
    "no barrier behind a panel": ("\n            cuda.syncthreads()\n", "\n", RaceError),
    "no barrier behind the first input rows": (
        "rows_at = u(column ^ BN)\n        cuda.syncthreads()",
        "rows_at = u(column ^ BN)",
        RaceError,
    ),
    "input rows handed on in one half": ("(rows_at & BN) ^ (tid ^ BN)", "tid", RaceError),
    "rows without a neighbour are read": ("input0 != NONE and ", "", OutOfBoundsError),
    "channels beyond the last are read": (
        "and u(channel + u(3)) < end",
        "",
        OutOfBoundsError,
    ),
    "a panel that is not stored": (
        "store4s(panels, a_store + u(0), *a_next0)",
        "pass",
        UninitialisedSharedError,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found(
    name: str, reports: list[Report], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    right, wrong, error = PLANTED[name]
    text_of, make = gemm_source.source, sparse_gemm.gemm_kernel

    def planted(config: gemm_source.Config) -> str:
        text = text_of(config)
        assert right in text
        return text.replace(right, wrong)

    def planted_kernel(config: gemm_source.Config) -> launch.Kernel:
        with monkeypatch.context() as patch:
            patch.setattr(gemm_source, "source", planted)
            function = gemm_source.kernel_function.__wrapped__(config)
        return dataclasses.replace(make(config), function=function)

    monkeypatch.setattr(sparse_gemm, "gemm_kernel", planted_kernel)
    case = Case(SCAN, 70, 19, 9)
    t = operands(case, rng, whole=True)

    def convolve_wrongly() -> None:
        result = convolve(forced(gemm_costs.TILES[2]), case, t, book=fresh(case))
        assert_exact(result, sums(case, t))

    with pytest.raises(error):
        convolve_wrongly()


def problem(rows: int, channels: int, outputs: int, groups: int = 1) -> SparseProblem:
    """A 3x3x3 kernel whose rows meet a quarter of its offsets."""
    pairs = rows * 27 // 4
    return SparseProblem("sparse_conv", rows, rows, pairs, (3, 3, 3), channels, outputs, groups)


def test_problems_beyond_32_bit_indices_and_the_grid_are_refused() -> None:
    gemm, depthwise = KERNELS
    assert gemm.reasons(problem(2**26, 64, 128), DEVICE) == [
        "indexes in 32 bits; the input has 4294967296 elements",
        "indexes in 32 bits; the output has 8589934592 elements",
    ]
    assert gemm.reasons(problem(2**28, 1, 1), DEVICE) == [
        "indexes in 32 bits; the table of neighbours has 7247757312 elements"
    ]
    (reason,) = gemm.reasons(problem(9, 2**18, 2**12), DEVICE)
    assert "packed weight" in reason
    assert any(
        "at most 65535" in each for each in gemm.reasons(problem(9, 70000, 70000, 70000), DEVICE)
    )
    assert not depthwise.reasons(problem(9, 70000, 70000, 70000), DEVICE)
    assert depthwise.reasons(problem(9, 8, 16, 8), DEVICE) == [
        "wants one input and one output channel a group; this has 8 and 16 in 8 groups"
    ]


def test_tiles_follow_the_sizes_and_depthwise_wins_its_problems() -> None:
    names = {
        channels: gemm_source.tile_name(
            gemm_costs.choose_tile(problem(120_000, channels, channels), DEVICE)
        )
        for channels in (16, 32, 64, 128)
    }
    assert names[16] == names[32] == "32x32x16"
    assert {names[64], names[128]} <= {"64x64x8", "128x64x8"}
    many = problem(120_000, 64, 64, 64)
    gemm, depthwise = KERNELS
    assert depthwise.cost(many, DEVICE) < gemm.cost(many, DEVICE) / 4
    assert gemm_costs.depthwise_lanes(64, 4) == 16
    assert gemm.workspace(problem(120_000, 64, 64), DEVICE) < 2**20
