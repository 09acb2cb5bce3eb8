"""Threads that have returned: nobody waits for them, as on every GPU since Volta.

PTX says of the warp's operations that they wait for "all non-exited threads" of their mask, CUDA's
guide that a block's barrier waits for "all non-exited threads in the block".
"""

from __future__ import annotations

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from numba import float32, int32  # noqa: E402 - after the look for the package

from emulator_helpers import ORDERS, launch  # noqa: E402
from fastconv import cuda_emulator  # noqa: E402
from tensor_core import multiply_tf32  # noqa: E402

EVERYONE = 0xFFFFFFFF


def reversed_in_blocks(out, x, n):
    """The guard that almost every tutorial begins with."""
    tile = cuda.shared.array(64, float32)
    i, t = cuda.grid(1), cuda.threadIdx.x
    if i >= n:
        return
    tile[t] = x[i]
    cuda.syncthreads()
    last = min(cuda.blockDim.x, n - cuda.blockIdx.x * cuda.blockDim.x) - 1
    out[i] = tile[last - t]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [1, 33, 64, 65, 96, 127, 128])
def test_barrier_after_an_early_return(n, order):
    x = np.random.default_rng().standard_normal(128).astype(np.float32)
    out = np.zeros(128, np.float32)
    launch(reversed_in_blocks, out, x, n, grid=2, block=64, order=order)
    wanted = np.concatenate([part[::-1] for part in (x[: min(n, 64)], x[64:n])])
    np.testing.assert_array_equal(out[:n], wanted)
    assert not out[n:].any()


def halves(out, x):
    """A tree of sums from which half of the threads return at every level."""
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    tile[t] = x[t]
    width = 32
    while width > 0:
        cuda.syncthreads()
        if t >= width:
            return
        tile[t] += tile[t + width]
        width //= 2
    out[0] = tile[0]


@pytest.mark.parametrize("order", ORDERS)
def test_threads_that_return_between_barriers(order):
    x = np.random.default_rng().integers(-99, 99, 64).astype(np.float32)
    out = np.zeros(1, np.float32)
    launch(halves, out, x, block=64, order=order)
    assert out[0] == x.sum()


def votes_of_the_rest(out, n):
    t = cuda.threadIdx.x
    if t >= n:
        return
    out[0, t] = cuda.syncthreads_count(t % 2)
    out[1, t] = cuda.syncthreads_and(1 if t < n else 0)
    out[2, t] = cuda.syncthreads_or(1 if t >= n else 0)


@pytest.mark.parametrize("n", [1, 31, 50, 64])
def test_counts_and_votes_of_barriers_leave_out_who_has_returned(n):
    out = np.full((3, 64), -1, np.int32)
    launch(votes_of_the_rest, out, n, block=64)
    assert (out[0, :n] == n // 2).all()
    assert (out[1, :n] == 1).all()
    assert (out[2, :n] == 0).all()
    assert (out[:, n:] == -1).all()


def warp_of_the_rest(out, x, n):
    t = cuda.threadIdx.x
    if t >= n:
        return
    cuda.syncwarp()
    out[0, t] = cuda.ballot_sync(EVERYONE, True)
    out[1, t] = cuda.all_sync(EVERYONE, x[t] >= 0)
    out[2, t] = cuda.match_any_sync(EVERYONE, x[t])
    out[3, t] = cuda.activemask()
    out[4, t] = cuda.shfl_sync(EVERYONE, x[t], 0)


@pytest.mark.parametrize("n", [1, 7, 31])
def test_operations_of_a_warp_go_on_without_who_has_returned(n):
    x = np.arange(32, dtype=np.int32)
    out = np.zeros((5, 32), np.uint32)
    launch(warp_of_the_rest, out, x, n)
    everyone_left = (1 << n) - 1
    assert (out[0, :n] == everyone_left).all()
    assert (out[1, :n] == 1).all()
    assert (out[2, :n] == 1 << np.arange(n)).all()
    assert (out[3, :n] == everyone_left).all()
    assert (out[4, :n] == x[0]).all()


def shuffle_from_who_has_returned(out, x):
    t = cuda.threadIdx.x
    if t == 5:
        return
    out[t] = cuda.shfl_sync(EVERYONE, x[t], 5)


def test_what_is_shuffled_from_a_returned_lane_is_no_number():
    x, out = np.ones(32, np.float32), np.zeros(32, np.float32)
    launch(shuffle_from_who_has_returned, out, x)
    assert np.isnan(np.delete(out, 5)).all()
    assert out[5] == 0


def product_after_a_return(out, n):
    if cuda.threadIdx.x >= n:
        return
    one = float32(1)
    d = multiply_tf32(one, one, one, one, one, one)
    out[cuda.threadIdx.x] = d[0]


@pytest.mark.parametrize("block", [16, 32, 48])
def test_a_matrix_product_wants_all_lanes(block):
    """PTX: undefined "if any thread in the warp has exited"; it read and wrote foreign records."""
    out = np.zeros(64, np.float32)
    kernel = cuda_emulator.EmulatedKernel(product_after_a_return)
    for checks in (cuda_emulator.FAST, cuda_emulator.ALL):
        report = kernel.launch(1, block, (out, 31), checks=checks)
        assert "all 32 lanes of its warp" in report.divergent_barriers[0].message
    assert launch(product_after_a_return, out, 32).faults == []
    assert (out[:32] == 8).all()


def exchange_in_two_branches(out, x):
    """Valid since Volta: both halves name everyone and meet, each at its own line."""
    t = cuda.laneid
    if t < 16:
        out[t] = cuda.shfl_xor_sync(EVERYONE, x[t], 16)
    else:
        out[t] = cuda.shfl_xor_sync(EVERYONE, x[t], 16) + 1


def test_lanes_may_meet_from_two_branches():
    x = np.arange(32, dtype=np.int32)
    out = np.zeros(32, np.int32)
    launch(exchange_in_two_branches, out, x)
    t = np.arange(32)
    np.testing.assert_array_equal(out, (t ^ 16) + (t >= 16))


def barrier_of_some(out):
    t = cuda.threadIdx.x
    if t % 2:
        cuda.syncthreads()  # odd
    out[t] = 1
    cuda.syncthreads()  # all


def masks_that_differ(out):
    t = cuda.laneid
    cuda.syncwarp(0xFFFF if t < 16 and t % 2 else EVERYONE)
    out[t] = 1


def warp_waits_for_barrier(out):
    t = cuda.threadIdx.x
    if t == 40:
        return
    if t == 0:
        cuda.syncwarp()
    else:
        cuda.syncthreads()
    out[t] = 1


def test_barriers_that_only_some_of_the_living_take_are_still_faults():
    out = np.zeros(64, np.float32)
    kernel = cuda_emulator.EmulatedKernel(barrier_of_some)
    (fault,) = kernel.launch(1, 64, (out,), checks=cuda_emulator.ALL).divergent_barriers
    assert len(fault.lines) == 2
    assert "returned" not in fault.message


@pytest.mark.parametrize("checks", [cuda_emulator.FAST, cuda_emulator.ALL])
def test_who_is_waited_for_is_named_and_has_not_returned(checks):
    out = np.zeros(64, np.float32)
    kernel = cuda_emulator.EmulatedKernel(warp_waits_for_barrier)
    with pytest.raises(cuda_emulator.DivergentBarrierError, match=r"none of them can go on") as e:
        kernel.launch(1, 64, (out,), checks=checks)
    assert "(40, 0, 0)" not in str(e.value)
    kernel = cuda_emulator.EmulatedKernel(masks_that_differ)
    with pytest.raises(cuda_emulator.DivergentBarrierError, match="mask") as e:
        kernel.launch(1, 32, (out,), checks=checks)
    assert "returned" not in str(e.value)


def shared_counter(out):
    cell = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        cell[0] = 7
        return
    cuda.syncthreads()
    out[t] = cell[0]


@pytest.mark.parametrize("order", ORDERS)
def test_what_a_returned_thread_wrote_is_ordered_by_the_barrier(order):
    out = np.zeros(64, np.int32)
    launch(shared_counter, out, block=64, order=order)
    assert (out[1:] == 7).all()
