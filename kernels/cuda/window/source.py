"""The text of the kernels that keep one pixel a thread: direct and depthwise.

    direct:     block = threads pixels x `width` output channels of a group
      for each chunk of steps:   weights to shared memory;  barrier
        for step in chunk:       one sample serves `width` sums
          acc[0..width] += sample * weights[step, 0..width]

    depthwise:  block = lanes output channels x threads / lanes pixels
      for each chunk of taps:    weights to shared memory;  barrier
        for tap in chunk:
          acc += sample * weights[channel, tap]

Samples are found through the table of `steps`. Every thread of a warp reads the same weight
(direct), or one at an odd distance from its neighbour's (depthwise), so shared memory is read
without conflicts; samples come from L1, where a window's rows stay while it slides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.params import SCALARS
from ..common.source import EPILOGUE, compile_text, namespace_of
from ..common.steps import decode, is_inside, pixel_state, read_step, row_length
from ..gemm.blocking import WINDOW_THREADS
from ..gemm.tile import fill, indent

__all__ = ["CHUNK", "depthwise_function", "direct_function"]

#: Elements of weights in shared memory at a time.
CHUNK = 1024

_STORE = f"""
residual_at = u(r_first + group * rg + n * rn + d * rd + h * rh + w * rw)
out_at = u(y_first + group * yg + n * yn + d * yd + h * yh + w * yw)
{EPILOGUE.format(residual="residual_at", out="out_at")}
"""


#: A sample of one step, where it lies inside; `{use}` is what it is for.
_SAMPLE = """
{read}
steps_at = u(steps_at + u(ROW))
if {inside}:
    sample = load1(x, u(from0 + step0[0]))
    {use}
"""

_DIRECT = """
weights = cuda.shared.array(CHUNK_ELEMENTS, compute, 16)
column0 = u(cuda.threadIdx.x)
group = u(cuda.blockIdx.z)
first_pixel = u(u(cuda.blockIdx.x) * THREADS)
first_channel = u(u(cuda.blockIdx.y) * WIDTH)
weight_at = u((group * u(cuda.gridDim.y) + u(cuda.blockIdx.y)) * step_count * WIDTH)
acc = cuda.local.array(SUMS, compute)
for i in range(WIDTH):
    acc[i] = ZERO
{pixel}
first = u(0)
while first < step_count:
    count = u(min(step_count - first, CHUNK // WIDTH))
    cuda.syncthreads()
    for e in range(column0, count * WIDTH, THREADS):
        weights[e] = weight[weight_at + first * WIDTH + e]
    cuda.syncthreads()
    steps_at = u(first * ROW)
    for step in range(count):
        {sample}
    first = u(first + count)
{decode}
if first_pixel + column0 < pixels:
    for i in range(WIDTH):
        value = acc[u(0)]
        {pick}
        row = u(first_channel + i)
        if row < channels:
            {store}
"""

_DEPTHWISE = """
weights = cuda.shared.array(CHUNK_ELEMENTS, compute, 16)
tid = u(cuda.threadIdx.x)
columns = u(THREADS // lanes)
if channels_inner != u(0):
    lane, column0 = u(tid % lanes), u(tid // lanes)
else:
    lane, column0 = u(tid // columns), u(tid % columns)
first_lane = u(u(cuda.blockIdx.y) * lanes)
first_pixel = u(u(cuda.blockIdx.x) * columns)
channel = u(first_lane + lane)
group, row = channel // channels, channel % channels
present = u(min(lanes, all_channels - first_lane))
value = ZERO
{pixel}
first = u(0)
while first < taps:
    count = u(min(taps - first, CHUNK // lanes - u(1)))
    apart = u(count | u(1))
    cuda.syncthreads()
    for e in range(tid, count * present, THREADS):
        owner, tap = u(e) // count, u(e) % count
        weights[owner * apart + tap] = weight[(first_lane + owner) * taps + first + tap]
    cuda.syncthreads()
    if lane < present:
        weights_at = u(lane * apart)
        steps_at = u(first * ROW)
        for tap in range(count):
            {sample}
    first = u(first + count)
{decode}
if lane < present and first_pixel + column0 < pixels:
    {store}
"""


def _parts(words: int, use: str) -> dict[str, str]:
    """Return what both kernels are filled with."""
    sample = fill(_SAMPLE, read=read_step("steps_at", words), use=use)
    return {
        "pixel": pixel_state(0, words),
        "sample": sample.replace("{inside}", is_inside(0, words)),
        "decode": decode("first_pixel + column0"),
        "store": _STORE,
    }


def _direct_text(width: int, words: int) -> str:
    """Return the text for `width` output channels a thread."""
    if width == 1:
        use = "acc[u(0)] += sample * weights[u(step)]"
    else:
        use = "\n".join(
            f"q = load4s(weights, u(step) * WIDTH + u({first}))\n"
            + "\n".join(f"acc[u({first + i})] += sample * q[{i}]" for i in range(4))
            for first in range(0, width, 4)
        )
    # A number that is known at run time must not index registers: they would go to local memory.
    pick = "\n".join(f"value = acc[u({i})] if i == u({i}) else value" for i in range(1, width))
    return (
        f"def direct(x, weight, steps, bias, residual, out, {', '.join(SCALARS)}, step_count):\n"
    ) + indent(fill(_DIRECT, pick=pick, **_parts(words, use)))


def _depthwise_text(words: int) -> str:
    return (
        f"def depthwise(x, weight, steps, bias, residual, out, {', '.join(SCALARS)}, "
        "taps, lanes, all_channels, channels_inner):\n"
    ) + indent(fill(_DEPTHWISE, **_parts(words, "value += sample * weights[weights_at + tap]")))


def _function(text: str, name: str, label: str, storage: str, words: int, width: int) -> Any:
    namespace = namespace_of(storage)
    numbers = {"THREADS": WINDOW_THREADS, "CHUNK": CHUNK, "WIDTH": width, "ROW": row_length(words)}
    namespace |= {key: np.uint32(value) for key, value in numbers.items()}
    namespace |= {"CHUNK_ELEMENTS": CHUNK, "SUMS": width}
    return compile_text(text, name, label, namespace)


@functools.cache
def direct_function(storage: str, width: int, words: int) -> Callable[..., None]:
    """Return the kernel of `width` output channels a thread (1 or a multiple of four)."""
    label = f"direct {storage} {width} w{words}"
    return _function(_direct_text(width, words), "direct", label, storage, words, width)


@functools.cache
def depthwise_function(storage: str, words: int) -> Callable[..., None]:
    """Return the kernel of one input channel a group."""
    label = f"depthwise {storage} w{words}"
    return _function(_depthwise_text(words), "depthwise", label, storage, words, 1)
