"""The multiply-add peak of this machine, measured with the GEMM micro-kernel on data in L1."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastconv.contract.spec import DeviceInfo

from ..runtime import pool
from ..runtime.plan import compile_kernel
from ..simd.intrinsics import get_word
from ..simd.ir import ITEMSIZE, storage_code
from ..simd.register_tiles import gemm_tile
from .tile import TileArguments, call_tile, tile_address

__all__ = ["measure"]

_STEPS, _CALLS, _REPEATS = 128, 4000, 7


def _task(
    geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
    workspace: int, number: int, worker: int,
) -> None:  # fmt: skip
    """Multiply one tile again and again; the geometry is a short table of words."""
    pitch = get_word(geometry, 2)
    for _ in range(get_word(geometry, 4)):
        arguments = TileArguments(
            a=weight, a_step=get_word(geometry, 1), b=x, b_step=pitch, kc=get_word(geometry, 3),
            c=out + number * get_word(geometry, 5), c_pitch=pitch, bias=bias, accumulate=0,
            low=-np.inf, high=np.inf, width=get_word(geometry, 6),
        )  # fmt: skip
        call_tile(get_word(geometry, 0), arguments, get_word(geometry, 7))


def measure(dtype: str, device: DeviceInfo) -> float:
    """Return the best FLOP/s of several short repeats on all of the device's threads together."""
    code = storage_code(dtype)
    tile, size = gemm_tile(device, code), ITEMSIZE[code]
    table = np.array(
        [tile_address(tile, code), tile.mr * size, tile.nr * size, _STEPS, _CALLS,
         tile.mr * tile.nr * size, tile.nr, tile.mr],
    )  # fmt: skip
    x: Any = np.ones((_STEPS, tile.nr), dtype)
    weight: Any = np.ones((_STEPS, tile.mr), dtype)
    bias, out = np.zeros(tile.mr, dtype), np.empty((device.threads, tile.mr, tile.nr), dtype)
    kernel = compile_kernel(_task, "peak")
    job = pool.make_job(kernel, table.ctypes.data, device.threads, device.threads)
    best = np.inf
    for _ in range(_REPEATS):
        start = time.perf_counter()
        pool.run(job.ctypes.data, device.threads, (x, weight, bias, None, out, None))
        best = min(best, time.perf_counter() - start)
    return 2.0 * tile.mr * tile.nr * _STEPS * _CALLS * device.threads / best
