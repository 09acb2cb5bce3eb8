"""What the lanes of a warp exchange, and atomics, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from numba import float32  # noqa: E402

from emulator_helpers import ORDERS, launch  # noqa: E402

EVERYONE = 0xFFFFFFFF


def shuffles(out, x):
    t = cuda.laneid
    out[0, t] = cuda.shfl_sync(EVERYONE, x[t], 5)
    out[1, t] = cuda.shfl_up_sync(EVERYONE, x[t], 3)
    out[2, t] = cuda.shfl_down_sync(EVERYONE, x[t], 4)
    out[3, t] = cuda.shfl_xor_sync(EVERYONE, x[t], 9)
    out[4, t] = cuda.shfl_sync(EVERYONE, x[t], x.size - t - 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_shuffles(dtype, order):
    x = np.random.default_rng().integers(-(2**30), 2**30, 32).astype(dtype)
    out = np.zeros((5, 32), dtype)
    launch(shuffles, out, x, order=order)
    t = np.arange(32)
    sources = (
        np.full(32, 5),
        np.where(t < 3, t, t - 3),
        np.where(t > 27, t, t + 4),
        t ^ 9,
        31 - t,
    )
    for row, source in zip(out, sources, strict=True):
        np.testing.assert_array_equal(row, x[source])


def shuffle_in_a_half(out, x):
    t = cuda.laneid
    if t < 16:
        out[t] = cuda.shfl_xor_sync(0x0000FFFF, x[t], 1)
    else:
        out[t] = cuda.shfl_xor_sync(0xFFFF0000, x[t], 2)


def test_shuffles_of_part_of_a_warp():
    x = np.random.default_rng().standard_normal(32).astype(np.float32)
    out = np.full(32, np.nan, np.float32)
    launch(shuffle_in_a_half, out, x)
    t = np.arange(32)
    np.testing.assert_array_equal(out, x[np.where(t < 16, t ^ 1, t ^ 2)])


def votes(out, p):
    t = cuda.laneid
    out[0, t] = cuda.ballot_sync(EVERYONE, p[t] != 0)
    out[1, t] = cuda.any_sync(EVERYONE, p[t] != 0)
    out[2, t] = cuda.all_sync(EVERYONE, p[t] != 0)
    out[3, t] = cuda.eq_sync(EVERYONE, p[t] != 0)
    out[4, t] = cuda.match_any_sync(EVERYONE, p[t])
    mask, same = cuda.match_all_sync(EVERYONE, p[t])
    out[5, t], out[6, t] = mask, same
    out[7, t] = cuda.activemask()
    out[8, t] = cuda.lanemask_lt()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("p", [np.zeros(32), np.ones(32), np.arange(32) % 3])
def test_votes_and_matches(p, dtype):
    out = np.zeros((9, 32), np.uint32)
    launch(votes, out, p.astype(dtype))
    bits = 1 << np.arange(32, dtype=np.uint64)
    same = (p == p[0]).all()
    assert (out[0] == bits[p != 0].sum()).all()
    assert (out[1] == (p != 0).any()).all()
    assert (out[2] == (p != 0).all()).all()
    assert (out[3] == ((p != 0).all() or (p == 0).all())).all()
    assert (out[4] == [bits[p == value].sum() for value in p]).all()
    assert (out[5] == (EVERYONE if same else 0)).all()
    assert (out[6] == same).all()
    assert (out[7] == EVERYONE).all()
    assert (out[8] == bits - 1).all()


def divergent_mask(out):
    t = cuda.laneid
    if t % 3 == 0:
        out[t] = cuda.activemask()
    else:
        out[t] = 0


def test_activemask_of_a_branch():
    out = np.zeros(32, np.uint32)
    launch(divergent_mask, out)
    wanted = sum(1 << t for t in range(0, 32, 3))
    assert (out == np.where(np.arange(32) % 3 == 0, wanted, 0)).all()


def integer_atomics(out, x):
    i = cuda.grid(1)
    cuda.atomic.add(out, 0, x[i])
    cuda.atomic.sub(out, 1, x[i])
    cuda.atomic.max(out, 2, x[i])
    cuda.atomic.min(out, 3, x[i])
    cuda.atomic.and_(out, 4, x[i])
    cuda.atomic.or_(out, 5, x[i])
    cuda.atomic.xor(out, 6, x[i])
    cuda.atomic.exch(out, 7, 77)
    if i == 0:
        cuda.atomic.cas(out, 8, 0, 5)
        cuda.atomic.cas(out, 9, 1, 5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_integer_atomics(dtype):
    x = np.random.default_rng().integers(0, 2**20, 4096).astype(dtype)
    out = np.zeros(10, dtype)
    out[3:5] = 2**30
    out[4] = 2**21 - 1
    launch(integer_atomics, out, x, grid=64, block=64)
    total = np.add.reduce(x, dtype=dtype)
    negative = np.subtract.reduce(x, initial=0, dtype=dtype)
    everywhere = np.bitwise_and.reduce(x, initial=2**21 - 1)
    some, odd = np.bitwise_or.reduce(x), np.bitwise_xor.reduce(x)
    wanted = [total, negative, x.max(), x.min(), everywhere, some, odd, 77, 5, 0]
    np.testing.assert_array_equal(out, np.array(wanted, dtype))


def wrapping_atomics(out):
    cuda.atomic.inc(out, 0, 9)
    cuda.atomic.dec(out, 1, 9)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_wrapping_atomics(dtype):
    out = np.zeros(2, dtype)
    launch(wrapping_atomics, out, grid=2, block=64)
    assert out.tolist() == [128 % 10, -128 % 10]


def float_atomics(out, x):
    i = cuda.grid(1)
    cuda.atomic.add(out, 0, x[i])
    cuda.atomic.sub(out, 1, x[i])
    cuda.atomic.max(out, 2, x[i])
    cuda.atomic.min(out, 3, x[i])
    cuda.atomic.nanmax(out, 4, x[i])
    cuda.atomic.nanmin(out, 5, x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_atomics(dtype):
    x = np.random.default_rng().integers(-1000, 1000, 2048).astype(dtype)
    out = np.zeros(6, dtype)
    launch(float_atomics, out, x, grid=32, block=64)
    total = x.sum()
    np.testing.assert_array_equal(out, [total, -total, x.max(), x.min(), x.max(), x.min()])


def shared_atomics(out, x):
    bins = cuda.shared.array(16, float32)
    t = cuda.threadIdx.x
    if t < 16:
        bins[t] = 0
    cuda.syncthreads()
    cuda.atomic.add(bins, t % 16, x[cuda.grid(1)])
    cuda.syncthreads()
    if t < 16:
        cuda.atomic.add(out, t, bins[t])


@pytest.mark.parametrize("order", ORDERS)
def test_shared_atomics_over_two_host_threads(order):
    x = np.random.default_rng().integers(-100, 100, 64 * 64).astype(np.float32)
    out = np.zeros(16, np.float32)
    launch(shared_atomics, out, x, grid=64, block=64, order=order)
    np.testing.assert_array_equal(out, x.reshape(-1, 16).sum(0))
