"""Kernels count denormals as zero, and leave the caller's floating-point state as it is."""

from __future__ import annotations

import platform
from typing import Any

import numba
import numpy as np
import pytest

import fastconv
from fastconv.kernels.cpu.runtime import atomics


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def float_mode() -> int:
    """This thread's floating-point control word, without x86's flags: NumPy clears those."""
    mode = read_float_mode()
    return mode if platform.machine() in ("aarch64", "arm64") else mode & ~0x3F


@numba.njit
def read_float_mode() -> int:
    return atomics.float_mode()


@numba.njit
def set_float_mode(mode: int) -> None:
    atomics.set_float_mode(mode, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_callers_floating_point_state_is_left_alone(threads: int) -> None:
    before, usual = fastconv.get_num_threads(), float_mode()
    toward_zero = 0b11 << (22 if platform.machine() in ("aarch64", "arm64") else 13)
    # A job of the caller's own, and one that helpers share.
    inputs = [array(1, 16, size, size) * np.float32(1e-40) for size in (8, 64)]
    fastconv.set_num_threads(threads)
    try:
        for mode in (usual, usual | toward_zero):
            for x in inputs:
                set_float_mode(mode)
                fastconv.conv2d(x, array(16, 16, 3, 3))
                assert float_mode() == mode
    finally:
        set_float_mode(usual)
        fastconv.set_num_threads(before)
    assert np.float64(1e-310) * 0.5 > 0


def test_helpers_flush_denormals_too() -> None:
    x = array(1, 32, 64, 64) * np.float32(1e-40)
    for name in ("cpu.im2col_gemm", "cpu.winograd_f4"):
        with fastconv.use_kernel(name):
            assert not fastconv.conv2d(x, array(32, 32, 3, 3), padding=1).any()
