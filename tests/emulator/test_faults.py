"""Each kind of fault, planted in a kernel and in no place of its clean twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from numba import float32, float64, int32  # noqa: E402 - after the look for the package

from emulator_helpers import line_of  # noqa: E402
from fastconv import cuda_emulator  # noqa: E402

THREADS = 64


def launch(kernel: Callable[..., Any], *args: Any, **options: Any) -> cuda_emulator.Report:
    options = {"grid": 2, "block": THREADS, "checks": cuda_emulator.ALL, **options}
    return cuda_emulator.EmulatedKernel(kernel).launch(
        options.pop("grid"), options.pop("block"), args, **options
    )


def reverse(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    tile[t] = x[i]
    cuda.syncthreads()
    out[i] = tile[63 - t]


def reverse_without_barrier(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    tile[t] = x[i]
    out[i] = tile[63 - t]


def reverse_twice(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    for k in range(2):
        tile[t] = x[i] + k
        cuda.syncthreads()
        out[i] = tile[63 - t]
        cuda.syncthreads()


def reverse_twice_with_one_barrier(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    for k in range(2):
        tile[t] = x[i] + k  # store
        cuda.syncthreads()
        out[i] = tile[63 - t]  # load


def one_cell(out, x):
    tile = cuda.shared.array(1, float32)
    tile[0] = x[cuda.grid(1)]
    cuda.syncthreads()
    out[cuda.grid(1)] = tile[0]


def warps_own_cells(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    tile[t] = x[cuda.grid(1)]
    cuda.syncwarp()
    out[cuda.grid(1)] = tile[t ^ 1]


def warps_own_cells_unsynced(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    tile[t] = x[cuda.grid(1)]
    out[cuda.grid(1)] = tile[t ^ 1]


def warps_foreign_cells(out, x):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    tile[t] = x[cuda.grid(1)]
    cuda.syncwarp()
    out[cuda.grid(1)] = tile[t ^ 32]


def atomics_on_one_cell(out, x):
    cell = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        cell[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(cell, 0, 1)
    cuda.syncthreads()
    out[cuda.grid(1)] = cell[0] + x[cuda.grid(1)]


def atomic_and_plain(out, x):
    cell = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        cell[0] = 0
    cuda.atomic.add(cell, 0, 1)
    cuda.syncthreads()
    out[cuda.grid(1)] = cell[0] + x[cuda.grid(1)]


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng().standard_normal(2 * THREADS).astype(np.float32)


@pytest.fixture
def out() -> np.ndarray:
    return np.full(2 * THREADS, np.nan, np.float32)


@pytest.mark.parametrize("order", ["forward", "reverse", 7])
@pytest.mark.parametrize("kernel", [reverse, reverse_twice, warps_own_cells, atomics_on_one_cell])
def test_clean_kernels_are_clean(kernel, order, x, out):
    report = launch(kernel, out, x, order=order)
    assert [str(fault) for fault in report.faults] == []
    assert not np.isnan(out).any()


@pytest.mark.parametrize(
    ("kernel", "lines"),
    [
        (reverse_without_barrier, ("tile[t] = x[i]", "tile[63 - t]")),
        (reverse_twice_with_one_barrier, ("# store", "# load")),
        (one_cell, ("tile[0] = x", "tile[0] = x")),
        (warps_own_cells_unsynced, ("tile[t] = x", "tile[t ^ 1]")),
        (warps_foreign_cells, ("tile[t] = x", "tile[t ^ 32]")),
        (atomic_and_plain, ("cell[0] = 0", "cuda.atomic.add(")),
    ],
)
def test_races_name_both_lines(kernel, lines, x, out):
    report = launch(kernel, out, x)
    wanted = {line_of(kernel, text) for text in lines}
    found = [fault for fault in report.races if set(fault.lines) == wanted]
    assert found, report.faults
    assert kernel.__name__ in found[0].message
    for line in wanted:
        assert f"test_faults.py:{line}" in found[0].message
    with pytest.raises(cuda_emulator.RaceError):
        report.raise_faults()


def neighbour_in_global(x):
    i = cuda.grid(1)
    if i + 1 < x.size:
        x[i] = x[i + 1]


def test_results_that_depend_on_the_order(x):
    report = launch(neighbour_in_global, x)
    assert report.order_dependent == ["x"]
    assert "x depends on the order" in report.races[0].message
    everything = cuda_emulator.ALL & ~cuda_emulator.Checks.ORDERS
    assert launch(neighbour_in_global, x, checks=everything).faults == []


def sum_of_floats(total, x):
    cuda.atomic.add(total, 0, x[cuda.grid(1)])


def test_rounding_of_atomics_is_no_order_dependence(x):
    total = np.zeros(1, np.float32)
    assert launch(sum_of_floats, total, x).faults == []
    np.testing.assert_allclose(total[0], x.sum(), rtol=1e-4, atol=1e-4)


def barrier_in_a_branch(out):
    t = cuda.threadIdx.x
    if t < 32:
        cuda.syncthreads()  # first
    else:
        out[t] = 1
        cuda.syncthreads()  # second
    out[t] = 2


def barriers_that_never_meet(out):
    t = cuda.threadIdx.x
    if t == 0:
        cuda.syncwarp()  # alone
    else:
        cuda.syncthreads()
    out[t] = 1


def lane_outside_of_its_mask(out):
    t = cuda.threadIdx.x
    cuda.syncwarp(0xFFFF)
    out[t] = 1


def test_divergent_barriers(out):
    report = launch(barrier_in_a_branch, out, grid=1)
    (fault,) = report.divergent_barriers
    assert set(fault.lines) == {line_of(barrier_in_a_branch, f"# {n}") for n in ("first", "second")}
    assert launch(lane_outside_of_its_mask, out, grid=1).divergent_barriers


@pytest.mark.parametrize("checks", [cuda_emulator.FAST, cuda_emulator.ALL])
def test_threads_that_never_meet_raise_in_any_case(out, checks):
    with pytest.raises(cuda_emulator.DivergentBarrierError, match="none of them can go on"):
        launch(barriers_that_never_meet, out, checks=checks)


def one_too_far(out, x):
    i = cuda.grid(1)
    if i <= x.size:
        out[i] = x[i]


def shared_one_too_far(out):
    first = cuda.shared.array(32, float32)
    second = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    if t < 33:
        first[t] = t
    if t < 32:
        second[t] = t
    cuda.syncthreads()
    if t < 32:
        out[t] = first[t] + second[t]


def local_one_too_far(out, n):
    mine = cuda.local.array(4, float32)
    for i in range(n):
        mine[i] = i
    out[cuda.grid(1)] = mine[n % 4]


def test_out_of_bounds_names_array_index_and_thread(x):
    out = np.full(x.size, np.nan, np.float32)
    report = launch(one_too_far, out, x, grid=3)
    messages = [fault.message for fault in report.out_of_bounds]
    assert len(messages) == 2
    line = line_of(one_too_far, "out[i] = x[i]")
    for message, name in zip(sorted(messages), ("load", "store"), strict=True):
        assert name in message
        assert "[128]" in message and "(128,)" in message
        assert "thread (0, 0, 0) of block (2, 0, 0)" in message
        assert f":{line}" in message
    np.testing.assert_array_equal(out, x)
    assert launch(one_too_far, out, x, grid=2).faults == []


def test_out_of_bounds_of_shared_and_local_arrays(out):
    report = launch(shared_one_too_far, out)
    assert [fault.lines[0] for fault in report.out_of_bounds] == [
        line_of(shared_one_too_far, "first[t] = t")
    ]
    assert launch(local_one_too_far, out, 4).faults == []
    assert launch(local_one_too_far, out, 5).out_of_bounds


def dynamic(out):
    tile = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    tile[t] = t
    cuda.syncthreads()
    out[cuda.grid(1)] = tile[63 - t]


def test_dynamic_shared_memory_ends_where_the_launch_says(out):
    assert launch(dynamic, out, shared=256).faults == []
    assert launch(dynamic, out, shared=252).out_of_bounds


def shifted(out, x):
    out[cuda.grid(1)] = x[cuda.grid(1)]


def test_misaligned(out):
    memory = np.zeros(8 * 2 * THREADS + 8, np.uint8)
    for start, faults in ((0, 0), (4, 1), (8, 0)):
        view = memory[start : start + 8 * 2 * THREADS].view(np.float64)
        report = launch(shifted, out.astype(np.float64), view)
        assert len(report.misaligned) == faults, report.faults
    view = memory[4 : 4 + 8 * 2 * THREADS].view(np.float64)
    (fault,) = launch(shifted, out.astype(np.float64), view).misaligned
    assert "x[0]" in fault.message


def never_written(out):
    tile = cuda.shared.array(64, float64)
    t = cuda.threadIdx.x
    if t != 5:
        tile[t] = t
    cuda.syncthreads()
    out[cuda.grid(1)] = tile[t]


def test_uninitialised_shared_memory(out):
    report = launch(never_written, out)
    (fault,) = report.uninitialised
    assert "thread (5, 0, 0)" in fault.message
    assert fault.lines == (line_of(never_written, "= tile[t]"),)


def strided(out, x, stride):
    t = cuda.threadIdx.x
    out[t] = x[t * stride]


def columns(out, pitch):
    tile = cuda.shared.array(32 * 33, float32)
    t = cuda.threadIdx.x
    tile[t * pitch] = t
    cuda.syncthreads()
    out[t] = tile[t * pitch]


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (0, 1)])
def test_sectors_a_request(stride, sectors):
    x, out = np.zeros(32 * 8, np.float32), np.zeros(32, np.float32)
    report = launch(strided, out, x, stride, grid=1, block=32)
    (load,) = [access for access in report.accesses if access.array == "x"]
    assert (load.kind, load.space, load.requests, load.cost) == ("load", "global", 1, sectors)


@pytest.mark.parametrize(("pitch", "wavefronts"), [(1, 1), (2, 2), (32, 32), (33, 1)])
def test_bank_conflicts(pitch, wavefronts):
    report = launch(columns, np.zeros(32, np.float32), pitch, grid=1, block=32)
    shared = [access for access in report.accesses if access.space == "shared"]
    assert [access.kind for access in shared] == ["store", "load"]
    assert [access.cost for access in shared] == [wavefronts, wavefronts]
    assert report.bank_conflicts == 2 * (wavefronts - 1)


def test_launching_as_numba_does_raises(x, out):
    kernel = cuda_emulator.EmulatedKernel(cuda.jit(reverse))
    kernel[2, THREADS](out, x)
    np.testing.assert_array_equal(out.reshape(2, -1), x.reshape(2, -1)[:, ::-1])
    with pytest.raises(cuda_emulator.RaceError, match="reverse_without_barrier: race"):
        cuda_emulator.EmulatedKernel(cuda.jit(reverse_without_barrier))[2, THREADS](out, x)


def test_launches_that_no_gpu_takes(x, out):
    kernel = cuda_emulator.EmulatedKernel(reverse)
    with pytest.raises(ValueError, match="at most 1024"):
        kernel.launch(1, (64, 32), (out, x))
    with pytest.raises(ValueError, match="every axis"):
        kernel.launch((1, 70000), 32, (out, x))
    with pytest.raises(ValueError, match="'forward', 'reverse' or a number"):
        kernel.launch(1, 32, (out, x), order="backward")
    with pytest.raises(ValueError, match="no GPU gives a block more"):
        kernel.launch(1, 32, (out, x), shared=240_000)
    with pytest.raises(TypeError, match="takes 2 arguments"):
        kernel.launch(1, 32, (out,))
