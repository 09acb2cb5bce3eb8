"""The examples of Numba's CUDA documentation, run with all checks and in every order.

Those that synchronise a whole grid (laplace, sessionize) are refused by name, see the test of
instructions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

import numba  # noqa: E402 - after the look for the package
from numba import float32, int32  # noqa: E402
from numba.cuda.random import (  # noqa: E402
    init_xoroshiro128p_states_cpu,
    xoroshiro128p_dtype,
    xoroshiro128p_uniform_float32,
)

from fastconv import cuda_emulator  # noqa: E402

ORDERS = ["forward", "reverse", 11]
TPB = 16


def run(kernel, grid, block, *args, order="forward", shared=0):
    emulated = cuda_emulator.EmulatedKernel(kernel)
    report = emulated.launch(
        grid, block, args, shared=shared, order=order, checks=cuda_emulator.ALL
    )
    assert [str(fault) for fault in report.faults] == []
    return report


@cuda.jit
def vector_add(a, b, c):
    tid = cuda.grid(1)
    size = len(c)
    if tid < size:
        c[tid] = a[tid] + b[tid]


def test_vector_add(rng):
    a, b = rng.random((2, 1000))
    c = np.full(1000, np.nan)
    run(vector_add, 4, 256, a, b, c)
    np.testing.assert_array_equal(c, a + b)


@cuda.jit
def matmul(A, B, C):
    i, j = cuda.grid(2)
    if i < C.shape[0] and j < C.shape[1]:
        tmp = 0.0
        for k in range(A.shape[1]):
            tmp += A[i, k] * B[k, j]
        C[i, j] = tmp


@cuda.jit
def fast_matmul(A, B, C):
    sA = cuda.shared.array(shape=(TPB, TPB), dtype=float32)
    sB = cuda.shared.array(shape=(TPB, TPB), dtype=float32)
    x, y = cuda.grid(2)
    tx = cuda.threadIdx.x
    ty = cuda.threadIdx.y
    bpg = cuda.gridDim.x
    tmp = float32(0.0)
    for i in range(bpg):
        sA[ty, tx] = 0
        sB[ty, tx] = 0
        if y < A.shape[0] and (tx + i * TPB) < A.shape[1]:
            sA[ty, tx] = A[y, tx + i * TPB]
        if x < B.shape[1] and (ty + i * TPB) < B.shape[0]:
            sB[ty, tx] = B[ty + i * TPB, x]
        cuda.syncthreads()
        for j in range(TPB):
            tmp += sA[ty, j] * sB[j, tx]
        cuda.syncthreads()
    if y < C.shape[0] and x < C.shape[1]:
        C[y, x] = tmp


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [matmul, fast_matmul])
@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 23, 7), (33, 40, 50)])
def test_matmul(kernel, shape, order, rng):
    m, k, n = shape
    a, b = rng.integers(-9, 9, (m, k)).astype(float), rng.integers(-9, 9, (k, n)).astype(float)
    c = np.full((m, n), np.nan)
    blocks = math.ceil(max(shape) / TPB)
    run(kernel, (blocks, blocks), (TPB, TPB), a, b, c, order=order)
    np.testing.assert_array_equal(c, a @ b)


@cuda.jit
def array_sum(data):
    tid = cuda.threadIdx.x
    size = len(data)
    if tid < size:
        i = cuda.grid(1)
        shr = cuda.shared.array(1024, int32)
        shr[tid] = data[i]
        cuda.syncthreads()
        s = 1
        while s < cuda.blockDim.x:
            if tid % (2 * s) == 0:
                shr[tid] += shr[tid + s]
            s *= 2
            cuda.syncthreads()
        if tid == 0:
            data[tid] = shr[tid]


@pytest.mark.parametrize("order", ORDERS)
def test_reduction(order):
    data = np.arange(1024, dtype=np.int32)
    run(array_sum, 1, 1024, data, order=order)
    assert data[0] == 1024 * 1023 // 2


@cuda.jit
def histogram(x, xmin, xmax, histogram_out):
    nbins = histogram_out.shape[0]
    bin_width = (xmax - xmin) / nbins
    start = cuda.grid(1)
    stride = cuda.gridsize(1)
    for i in range(start, x.shape[0], stride):
        bin_number = int32((x[i] - xmin) / bin_width)
        if bin_number >= 0 and bin_number < nbins:
            cuda.atomic.add(histogram_out, bin_number, 1)


@pytest.mark.parametrize("order", ORDERS)
def test_histogram(order, rng):
    x = rng.standard_normal(10_000).astype(np.float32)
    out = np.zeros(10, np.int32)
    run(histogram, 16, 64, x, np.float32(-4), np.float32(4), out, order=order)
    bins = np.trunc((x - np.float32(-4)) / 0.8)  # as the kernel does: what lies just below is 0
    wanted = np.bincount(bins[(bins >= 0) & (bins < 10)].astype(int), minlength=10)
    np.testing.assert_array_equal(out, wanted)


@cuda.jit
def integrate(out, rng_states, lower_lim, upper_lim):
    gid = cuda.grid(1)
    if gid < len(out):
        samp = xoroshiro128p_uniform_float32(rng_states, gid)
        samp = samp * (upper_lim - lower_lim) + lower_lim
        out[gid] = 1.0 / samp


def random_states(number):
    states = np.zeros(number, xoroshiro128p_dtype)
    init_xoroshiro128p_states_cpu(states, 42, 0)
    return states


def test_monte_carlo():
    number = 4000
    out = np.full(number, np.nan, np.float32)
    run(integrate, math.ceil(number / 128), 128, out, random_states(number), 1, 2.0)
    assert abs(out.mean() - math.log(2)) < 0.02


@cuda.jit
def random_3d(arr, rng_states):
    startx, starty, startz = cuda.grid(3)
    stridex, stridey, stridez = cuda.gridsize(3)
    tid = (startz * stridey * stridex) + (starty * stridex) + startx
    for i in range(startz, arr.shape[0], stridez):
        for j in range(starty, arr.shape[1], stridey):
            for k in range(startx, arr.shape[2], stridex):
                arr[i, j, k] = xoroshiro128p_uniform_float32(rng_states, tid)


def test_random_array():
    array = np.full((21, 18, 23), np.nan, np.float32)
    run(random_3d, (2, 2, 2), (4, 4, 4), array, random_states(512))
    assert array.min() >= 0 and array.max() < 1
    assert abs(array.mean() - 0.5) < 0.02


@numba.jit
def business_logic(x, y, z):
    return 4 * z * (2 * x - (4 * y) / 2 * math.pi)


@cuda.jit
def uses_business_logic(res, xarr, yarr, zarr):
    tid = cuda.grid(1)
    if tid < len(xarr):
        res[tid] = business_logic(xarr[tid], yarr[tid], zarr[tid])


def test_one_function_for_both(rng):
    x, y, z = rng.standard_normal((3, 40))
    out = np.full(40, np.nan)
    run(uses_business_logic, 2, 32, out, x, y, z)
    np.testing.assert_allclose(out, 4 * z * (2 * x - 2 * y * math.pi), rtol=1e-12)


TAX_RATE = 0.08
PRICES = np.array([10.0, 25.0, 5.0, 15.0, 30.0], np.float64)


@cuda.jit
def compute_totals(quantities, totals):
    i = cuda.grid(1)
    if i < totals.size:
        totals[i] = quantities[i] * PRICES[i] * (1 + TAX_RATE)


def test_globals():
    quantities = np.arange(1.0, 6)
    totals = np.full(5, np.nan)
    run(compute_totals, 1, 32, quantities, totals)
    np.testing.assert_allclose(totals, quantities * PRICES * 1.08)


@cuda.jit
def warp_sum(data):
    value = data[cuda.laneid]
    offset = 16
    while offset > 0:
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, offset)
        offset //= 2
    if cuda.laneid == 0:
        data[0] = value


@pytest.mark.parametrize("order", ORDERS)
def test_warp_shuffle(order):
    data = np.arange(32, dtype=np.int32)
    run(warp_sum, 1, 32, data, order=order)
    assert data[0] == 31 * 32 // 2


@cuda.jit
def ufunc_in_a_kernel(r, x):
    np.sin(x, r)


def test_ufunc():
    x = np.arange(10, dtype=np.float32) - 5
    r = np.zeros_like(x)
    run(ufunc_in_a_kernel, 1, 1, r, x)
    np.testing.assert_allclose(r, np.sin(x), rtol=1e-6)
