"""What is particular to `cpu.sparse_gemm`: its tiles, blocks, panels and schedule."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fastconv.contract.cpu import cpu_info
from fastconv.contract.geometry import Geometry
from fastconv.contract.settings import config
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import SparseBinding
from fastconv.kernels.cpu.sparse import gemm as sparse_gemm
from fastconv.kernels.cpu.sparse import gemm_costs
from fastconv.kernels.cpu.sparse.gemm_schedule import find_schedule
from fastconv.kernels.reference import sparse as reference_sparse
from fastconv.sparse.rulebook import Rulebook

DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def pointwise(rows: int) -> Rulebook:
    """Rows that meet themselves: one run of pairs."""
    indices = np.stack([np.zeros(rows), np.arange(rows)], 1).astype(np.int32)
    geometry = Geometry("submanifold", (max(rows, 1),), 1, (1,), (1,), (1,), ((0, 0),), (0,))
    return Rulebook(geometry, indices, indices, np.arange(rows, dtype=np.int32)[None], rows)


def submanifold(indices: np.ndarray, shape: tuple[int, ...]) -> Rulebook:
    """A rulebook of kernel size 3."""
    ones = (1,) * len(shape)
    kernel = (3,) * len(shape)
    pads = ((1, 1),) * len(shape)
    geometry = Geometry("submanifold", shape, 2, kernel, ones, ones, pads, (0,) * len(shape))
    return Rulebook.build(geometry, indices)


def sites(rng: np.random.Generator, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """Different sites of two grids, in any order."""
    found = rng.choice(2 * int(np.prod(shape)), rows, replace=False)
    return np.stack(np.unravel_index(found, (2, *shape)), 1).astype(np.int32)


def convolve(
    rulebook: Rulebook, x: Any, weight: Any, bias: Any = None, *, groups: int = 1,
    activation: str | None = None,
) -> np.ndarray:  # fmt: skip
    """One call of the kernel, into an output of NaN."""
    dtype = next(name for name, kind in DTYPES.items() if x.dtype == kind)
    problem = SparseProblem(
        "sparse_conv", rulebook.in_rows, rulebook.out_rows, rulebook.pairs,
        rulebook.geometry.kernel_size, x.shape[1], len(weight), groups, dtype,
    )  # fmt: skip
    plan = sparse_gemm.plan(problem, SparseBinding(weight.strides, activation), cpu_info())
    out = np.full((rulebook.out_rows, len(weight)), np.nan, x.dtype)
    plan.run(rulebook, x, plan.pack(weight), bias, out)
    return out


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.integers(-3, 4, shape).astype(DTYPES[dtype])


def check_exact(
    rng: np.random.Generator, rulebook: Rulebook, channels: int, out_channels: int,
    dtype: str = "float32", groups: int = 1,
) -> None:  # fmt: skip
    """Small whole numbers come out as the reference has them."""
    kernel = rulebook.geometry.kernel_size
    x = integers(rng, (rulebook.in_rows, channels), dtype)
    weight = integers(rng, (out_channels, channels // groups, *kernel), dtype)
    bias = integers(rng, (out_channels,), dtype)
    truth = reference_sparse.conv(x, weight, rulebook.neighbours, bias, groups)
    out = convolve(rulebook, x, weight, bias, groups=groups)
    np.testing.assert_array_equal(out.astype(float), truth.astype(x.dtype).astype(float))


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_every_number_of_rows_of_a_tile(vectors: int, rng: np.random.Generator) -> None:
    lanes = cpu_info().lanes(4)
    for rows in [*range(1, 27), 48, 49, 71]:
        check_exact(rng, pointwise(rows), 4, vectors * lanes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_channels", [1, 17, 63, 65, 130, 200])
def test_blocks_of_output_channels(out_channels: int, dtype: str, rng: np.random.Generator) -> None:
    check_exact(rng, pointwise(75), 6, out_channels, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 63, 64, 65, 66, 130, 257])
def test_blocks_of_input_channels(channels: int, dtype: str, rng: np.random.Generator) -> None:
    check_exact(rng, pointwise(75), channels, 18, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_are_blocks_of_their_own(dtype: str, rng: np.random.Generator) -> None:
    rulebook = submanifold(sites(rng, 90, (6, 9)), (6, 9))
    for groups, channels, out_channels in [(3, 36, 6), (2, 6, 140), (5, 5, 5)]:
        check_exact(rng, rulebook, channels, out_channels, dtype, groups)


def test_weight_in_any_order(rng: np.random.Generator) -> None:
    rulebook = submanifold(sites(rng, 200, (5, 6, 7)), (5, 6, 7))
    x, weight = integers(rng, (200, 5), "float32"), integers(rng, (7, 5, 3, 3, 3), "float32")
    truth = convolve(rulebook, x, weight)
    assert truth.any()
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(weight, 1, -1)), -1, 1)
    for other in (np.asfortranarray(weight), channels_last):
        np.testing.assert_array_equal(convolve(rulebook, x, other), truth)


def test_bits_depend_neither_on_threads_nor_on_the_order_of_rows(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (12, 14, 16)
    indices = sites(rng, 2000, shape)
    x = rng.standard_normal((2000, 20), np.float32)
    weight, bias = rng.standard_normal((72, 20, 3, 3, 3), np.float32), rng.random(72, np.float32)
    truth = convolve(submanifold(indices, shape), x, weight, bias, activation="silu")
    for threads in (1, 2, 5):
        monkeypatch.setattr(config, "num_threads", threads)
        shuffle = rng.permutation(2000)
        rulebook = submanifold(indices[shuffle], shape)
        out = convolve(rulebook, x[shuffle], weight, bias, activation="silu")
        assert out.tobytes() == truth[shuffle].tobytes()


def test_without_pairs_the_output_is_the_bias(rng: np.random.Generator) -> None:
    rulebook = pointwise(3)
    alone = Rulebook(
        rulebook.geometry, rulebook.in_indices[:0], rulebook.out_indices,
        np.full((1, 3), -1, np.int32), 0,
    )  # fmt: skip
    bias = rng.standard_normal(5, np.float32)
    out = convolve(alone, np.empty((0, 4), np.float32), np.ones((5, 4, 1), np.float32), bias)
    np.testing.assert_array_equal(out, np.broadcast_to(bias, (3, 5)))
    empty = convolve(pointwise(0), np.empty((0, 4), np.float32), np.ones((5, 4, 1), np.float32))
    assert empty.shape == (0, 5)


def test_schedule_is_made_once_and_holds_each_pair_once(rng: np.random.Generator) -> None:
    shape = (10, 10, 10)
    rulebook = submanifold(sites(rng, 900, shape), shape)
    schedule = find_schedule(rulebook, 64)
    assert find_schedule(rulebook, 64) is schedule
    assert schedule.order is not None
    pairs, volume = schedule.pairs[: rulebook.pairs], len(rulebook.neighbours)
    run = np.repeat(np.arange(len(schedule.starts) - 1), np.diff(schedule.starts))
    offset, row = run % volume, schedule.order[run // volume * 64 + pairs[:, 1]]
    np.testing.assert_array_equal(rulebook.neighbours[offset, row], pairs[:, 0])
    assert len(np.unique(offset * 900 + row)) == rulebook.pairs == len(pairs)
    np.testing.assert_array_equal(np.sort(schedule.order), np.arange(900))


def test_small_problems_still_have_panels_for_all_threads() -> None:
    problem = SparseProblem("sparse_conv", 300, 300, 1500, (3, 3, 3), 32, 32)
    blocks = gemm_costs.choose_blocks(problem, cpu_info())
    assert blocks.panel_rows < 300 / cpu_info().threads
