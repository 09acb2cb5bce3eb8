"""Integers in memory, float32 in registers: every vector width, scalars, and edges under a mask."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from fastconv.kernels.cpu.simd.intrinsics import (
    load,
    load_masked,
    load_scalar,
    store,
    store_masked,
    store_scalar,
)
from fastconv.kernels.cpu.simd.ir import F32, ITEMSIZE, storage_code

HARD = np.array(
    [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 254.5, 255.5, 255.49998, 256, 32766.5, 32767.5, 1e9,
     65534.5, 65535.5, -32768.5, -32769, -1e30, np.inf, -np.inf, np.nan, -np.nan, 1e-40, -0.0,
     127, 4194304.5],
    np.float32,
)  # fmt: skip


def saturated(values: np.ndarray, dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    whole = np.rint(np.where(np.isnan(values), 0, values).astype(np.float64))
    return np.clip(whole, limits.min, limits.max).astype(dtype)


def converters(code: int, lanes: int) -> tuple[Any, Any]:
    """Functions that store float32 as integers and that load integers, by vectors of `lanes`."""
    item = ITEMSIZE[code]

    @numba.njit
    def to_integers(source: int, target: int, count: int) -> None:
        for i in range(0, count - lanes + 1, lanes):
            store(target + i * item, load(source + 4 * i, F32, lanes), code)
        rest = count % lanes
        first = count - rest
        mask = (1 << rest) - 1
        vector = load_masked(source + 4 * first, mask, F32, lanes)
        store_masked(target + first * item, vector, mask, code)

    @numba.njit
    def to_floats(source: int, target: int, count: int) -> None:
        for i in range(0, count - lanes + 1, lanes):
            store(target + 4 * i, load(source + i * item, code, lanes), F32)
        rest = count % lanes
        first = count - rest
        mask = (1 << rest) - 1
        vector = load_masked(source + first * item, mask, code, lanes)
        store_masked(target + 4 * first, vector, mask, F32)

    return to_integers, to_floats


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("lanes", [4, 16])
def test_vectors_saturate_round_to_even_and_come_back(
    dtype: str, lanes: int, rng: np.random.Generator
) -> None:
    to_integers, to_floats = converters(storage_code(dtype), lanes)
    values = np.concatenate([HARD, rng.normal(0, 300, 301).astype(np.float32)])
    made = np.full(len(values) + 1, 77, dtype)
    to_integers(values.ctypes.data, made.ctypes.data, len(values))
    np.testing.assert_array_equal(made[:-1], saturated(values, dtype))
    assert made[-1] == 77
    limits = np.iinfo(dtype)
    integers = np.arange(limits.min, limits.max + 1).astype(dtype)[: 2 * lanes * 50 + 3]
    back = np.full(len(integers) + 1, np.float32(0.25))
    to_floats(integers.ctypes.data, back.ctypes.data, len(integers))
    np.testing.assert_array_equal(back[:-1], integers.astype(np.float32))
    assert back[-1] == 0.25


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_scalars_do_the_same(dtype: str) -> None:
    code = storage_code(dtype)
    item = ITEMSIZE[code]

    @numba.njit
    def there_and_back(source: int, integers: int, target: int, count: int) -> None:
        for i in range(count):
            store_scalar(integers + i * item, load_scalar(source + 4 * i, F32), code)
            store_scalar(target + 4 * i, load_scalar(integers + i * item, code), F32)

    made, back = np.zeros(len(HARD), dtype), np.zeros_like(HARD)
    there_and_back(HARD.ctypes.data, made.ctypes.data, back.ctypes.data, len(HARD))
    np.testing.assert_array_equal(made, saturated(HARD, dtype))
    np.testing.assert_array_equal(back, made.astype(np.float32))
