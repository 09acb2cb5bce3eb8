"""What a GPU's instructions do, against NumPy: every class of them once."""

from __future__ import annotations

import math

import numpy as np
import pytest

cuda = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from numba import float32, float64, int32  # noqa: E402
from numba.cuda.bf16 import bfloat16_to_float32, float32_to_bfloat16  # noqa: E402
from numba.cuda.types import float16  # noqa: E402

from emulator_helpers import ORDERS, launch  # noqa: E402
from fastconv import cuda_emulator  # noqa: E402

EVERYONE = 0xFFFFFFFF


def registers(out):
    x, y, z = cuda.grid(3)
    row = out[z, y, x]
    row[0], row[1], row[2] = cuda.threadIdx.x, cuda.threadIdx.y, cuda.threadIdx.z
    row[3], row[4], row[5] = cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockIdx.z
    row[6], row[7], row[8] = cuda.blockDim.x, cuda.blockDim.y, cuda.blockDim.z
    row[9], row[10], row[11] = cuda.gridDim.x, cuda.gridDim.y, cuda.gridDim.z
    row[12], row[13] = cuda.laneid, cuda.warpsize


@pytest.mark.parametrize("order", ORDERS)
def test_special_registers(order):
    grid, block = (3, 2, 2), (5, 4, 3)
    out = np.full((6, 8, 15, 14), -1, np.int32)
    launch(registers, out, grid=grid, block=block, order=order)
    z, y, x = np.indices(out.shape[:3])
    for i, (place, size, blocks) in enumerate(zip((x, y, z), block, grid, strict=True)):
        assert (out[..., i] == place % size).all()
        assert (out[..., 3 + i] == place // size).all()
        assert (out[..., 6 + i] == size).all()
        assert (out[..., 9 + i] == blocks).all()
    linear = x % 5 + 5 * (y % 4) + 20 * (z % 3)
    assert (out[..., 12] == linear % 32).all()
    assert (out[..., 13] == 32).all()


def votes_of_the_block(out, p):
    t = cuda.threadIdx.x
    out[0, t] = cuda.syncthreads_count(p[t])
    out[1, t] = cuda.syncthreads_and(p[t])
    out[2, t] = cuda.syncthreads_or(p[t])


@pytest.mark.parametrize("p", [np.zeros(70), np.ones(70), np.arange(70) % 3])
def test_barriers_that_count(p):
    out = np.full((3, 70), -1, np.int32)
    launch(votes_of_the_block, out, p.astype(np.int32), block=70)
    wanted = np.count_nonzero(p), (p != 0).all(), (p != 0).any()
    assert (out == np.array(wanted, np.int32)[:, None]).all()


TABLE = np.arange(40, dtype=np.float32).reshape(5, 8)


@cuda.jit(device=True)
def neighbour(tile, t, x):
    """A device function that holds barriers."""
    cuda.syncthreads()
    tile[t] = x
    cuda.syncthreads()
    return tile[t ^ 1]


def device_functions(out, x):
    tile = cuda.shared.array(64, float64)
    mine = cuda.local.array((2, 3), float64)
    table = cuda.const.array_like(TABLE)
    t = cuda.threadIdx.x
    for i in range(2):
        for j in range(3):
            mine[i, j] = x[t] * (i + 1) + j
    for k in range(3):
        mine[k % 2, k] += neighbour(tile, t, x[t] + k)
    out[t] = mine[t % 2, t % 3] + table[t % 5, t % 8]


@pytest.mark.parametrize("order", ORDERS)
def test_device_functions_local_arrays_and_constants(order):
    x = np.random.default_rng().standard_normal(64)
    out = np.full(64, np.nan)
    launch(device_functions, out, x, block=64, order=order)
    t = np.arange(64)
    mine = np.array([[x * (i + 1) + j for j in range(3)] for i in range(2)])
    for k in range(3):
        mine[k % 2, k] += x[t ^ 1] + k
    np.testing.assert_allclose(out, mine[t % 2, t % 3, t] + TABLE[t % 5, t % 8], rtol=1e-14)


def mathematics(out, x):
    t = cuda.threadIdx.x
    v = x[t]
    out[0, t], out[1, t], out[2, t] = math.sin(v), math.cos(v), math.tan(v)
    out[3, t], out[4, t], out[5, t] = math.exp(v), math.log(v), math.sqrt(v)
    out[6, t], out[7, t], out[8, t] = math.tanh(v), math.atan2(v, v + 1), math.pow(v, v)
    out[9, t], out[10, t], out[11, t] = math.floor(v), math.ceil(v), math.fabs(-v)
    out[12, t], out[13, t], out[14, t] = math.erf(v), math.hypot(v, v), math.log1p(v)
    out[15, t], out[16, t], out[17, t] = math.expm1(v), math.fmod(v, 0.3), math.copysign(v, -v)
    out[18, t], out[19, t], out[20, t] = math.asinh(v), cuda.cbrt(v), math.log2(v)
    out[21, t], out[22, t], out[23, t] = max(v, 1), min(v, 1), round(v)
    out[24, t], out[25, t] = math.isnan(v), math.isinf(v)
    out[26, t], out[27, t] = math.gamma(v), math.lgamma(v)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mathematics(dtype):
    from scipy import special

    x = np.random.default_rng().uniform(0.1, 3, 32).astype(dtype)
    out = np.full((28, 32), np.nan, dtype)
    launch(mathematics, out, x)
    v = x.astype(np.float64)
    zero = np.zeros(32)
    wanted = np.array(
        [np.sin(v), np.cos(v), np.tan(v), np.exp(v), np.log(v), np.sqrt(v), np.tanh(v),
         np.arctan2(v, v + 1), v**v, np.floor(v), np.ceil(v), v, special.erf(v), np.hypot(v, v),
         np.log1p(v), np.expm1(v), np.fmod(v, 0.3), -v, np.arcsinh(v), np.cbrt(v), np.log2(v),
         np.maximum(v, 1), np.minimum(v, 1), np.rint(v), zero, zero, special.gamma(v),
         special.gammaln(v)]
    )  # fmt: skip
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance)


@cuda.jit(fastmath=True)
def fast_mathematics(out, x):
    t = cuda.threadIdx.x
    v = x[t]
    out[t] = math.sin(v) + math.exp(v) * math.log(v) + math.sqrt(v) / v + math.tanh(v) + v**v


def test_fast_mathematics():
    x = np.random.default_rng().uniform(0.1, 3, 32).astype(np.float32)
    out = np.full(32, np.nan, np.float32)
    launch(fast_mathematics, out, x)
    v = x.astype(np.float64)
    wanted = np.sin(v) + np.exp(v) * np.log(v) + np.sqrt(v) / v + np.tanh(v) + v**v
    np.testing.assert_allclose(out, wanted, rtol=1e-5)


def bits(out, x):
    t = cuda.threadIdx.x
    v = x[t]
    out[0, t], out[1, t], out[2, t] = cuda.popc(v), cuda.clz(v), cuda.ffs(v)
    out[3, t] = cuda.brev(v)


def test_bits():
    x = np.random.default_rng().integers(1, 2**32, 32, dtype=np.uint32)
    out = np.zeros((4, 32), np.uint32)
    launch(bits, out, x)
    text = [f"{value:032b}" for value in x.tolist()]
    assert out[0].tolist() == [word.count("1") for word in text]
    assert out[1].tolist() == [word.index("1") for word in text]
    assert out[2].tolist() == [word[::-1].index("1") + 1 for word in text]
    assert out[3].tolist() == [int(word[::-1], 2) for word in text]


def halves(out, x, y):
    t = cuda.threadIdx.x
    a, b = x[t], y[t]
    out[0, t], out[1, t], out[2, t], out[3, t] = a + b, a - b, a * b, a / b
    out[4, t] = float32(a) * float32(b)
    out[5, t] = b if a < b else -a


def test_float16(rng):
    x, y = rng.uniform(0.5, 2, (2, 32)).astype(np.float16)
    out = np.zeros((6, 32), np.float16)
    launch(halves, out, x, y)
    product = (x.astype(np.float32) * y.astype(np.float32)).astype(np.float16)
    wanted = [x + y, x - y, x * y, x / y, product, np.where(x < y, y, -x)]
    np.testing.assert_array_equal(out, np.array(wanted))


def conversions(out, x, whole):
    t = cuda.threadIdx.x
    h = float16(x[t])
    out[0, t], out[1, t], out[2, t] = float64(h), int32(h), float16(whole[t])
    out[3, t] = float16(float64(x[t]) + 1)


def test_conversions_of_float16(rng):
    x = rng.uniform(-100, 100, 32).astype(np.float32)
    whole = rng.integers(-1000, 1000, 32).astype(np.int32)
    out = np.zeros((4, 32))
    launch(conversions, out, x, whole)
    h = x.astype(np.float16)
    np.testing.assert_array_equal(
        out, [h, np.rint(h), whole, (x.astype(np.float64) + 1).astype(np.float16)]
    )


def brain_floats(out, x, y):
    t = cuda.threadIdx.x
    a, b = float32_to_bfloat16(x[t]), float32_to_bfloat16(y[t])
    out[0, t], out[1, t] = bfloat16_to_float32(a + b), bfloat16_to_float32(a * b)
    out[2, t] = bfloat16_to_float32(b if a < b else -a)


def rounded(x):
    """To bfloat16, to the nearest even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def test_bfloat16(rng):
    x, y = rng.uniform(0.5, 2, (2, 32)).astype(np.float32)
    out = np.zeros((3, 32), np.float32)
    launch(brain_floats, out, x, y)
    a, b = rounded(x), rounded(y)
    np.testing.assert_array_equal(out, [rounded(a + b), rounded(a * b), np.where(a < b, b, -a)])


def scalars(out, flag, small, whole, real, single, pair):
    if flag:
        out[0] = small + whole
        out[1] = real + single
        out[2] = pair[0] * pair[1]


def test_scalar_arguments():
    out = np.zeros(3)
    args = (True, np.int8(-3), 2**40, 0.1, np.float32(0.5), (3, 2.5))
    launch(scalars, out, *args, block=1)
    np.testing.assert_array_equal(out, [2**40 - 3, 0.1 + 0.5, 7.5])


def kinds(out, z, c, empty, frozen, fortran, point, flags):
    out[0] = (z * c[0]).real
    out[1] = empty.size
    out[2] = frozen[1]
    out[3] = fortran[1, 2]
    out[4] = point[()]
    out[5] = flags[1]


@pytest.mark.parametrize("checks", [cuda_emulator.FAST, cuda_emulator.ALL])
def test_arrays_of_every_kind(checks):
    frozen = np.arange(4, dtype=np.uint8)
    frozen.flags.writeable = False
    fortran = np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4))
    args = (
        2 - 1j, np.array([3 + 4j], np.complex64), np.zeros((0, 3)), frozen, fortran,
        np.array(2.5), np.array([False, True]),
    )  # fmt: skip
    out = np.full(6, np.nan)
    report = cuda_emulator.EmulatedKernel(kinds).launch(1, 1, (out, *args), checks=checks)
    assert report.faults == []
    assert out.tolist() == [10, 0, 1, 6, 2.5, 1]


def reverse(out, x):
    i = cuda.grid(1)
    out[i] = x[i]


def test_views_of_one_array():
    memory = np.arange(64.0)
    launch(reverse, memory[:32], memory[:31:-1])
    np.testing.assert_array_equal(memory[:32], np.arange(63.0, 31, -1))
