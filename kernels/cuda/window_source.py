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

from .geometry import GEOMETRY
from .source import FINISH, compile_text, namespace_of
from .steps import decode, is_inside, pixel_state, read_step, row_length
from .tile import indent

__all__ = ["CHUNK", "THREADS", "depthwise_function", "direct_function"]

#: Threads of a block.
THREADS = 128
#: Elements of weights in shared memory at a time.
CHUNK = 1024

_STORE = f"""
residual_at = u(r_first + group * rg + n * rn + d * rd + h * rh + w * rw)
out_at = u(y_first + group * yg + n * yn + d * yd + h * yh + w * yw)
{FINISH.format(residual="residual_at", out="out_at")}
"""


def _direct_text(width: int, words: int) -> str:
    """Return the text for `width` output channels a thread."""
    if width == 1:
        weigh = "acc[u(0)] += sample * weights[u(step)]"
    else:
        weigh = "\n".join(
            f"q = load4s(weights, u(step) * u({width}) + u({first}))\n"
            + "\n".join(f"acc[u({first + i})] += sample * q[{i}]" for i in range(4))
            for first in range(0, width, 4)
        )
    pick = "\n".join(f"    value = acc[u({i})] if i == u({i}) else value" for i in range(1, width))
    return (
        f"def direct(x, weight, steps, bias, residual, out, {', '.join(GEOMETRY)}, step_count):\n"
        + indent(f"""
    weights = cuda.shared.array({CHUNK}, compute, 16)
    column0 = u(cuda.threadIdx.x)
    group = u(cuda.blockIdx.z)
    first_pixel = u(u(cuda.blockIdx.x) * u({THREADS}))
    first_channel = u(u(cuda.blockIdx.y) * u({width}))
    block = u(group * u(cuda.gridDim.y) + u(cuda.blockIdx.y))
    weight_at = u(block * step_count * u({width}))
    acc = cuda.local.array({width}, compute)
    for i in range(u({width})):
        acc[i] = ZERO
    """)
        + indent(pixel_state(0, words))
        + indent(f"""
    first = u(0)
    while first < step_count:
        count = u(min(step_count - first, u({CHUNK // width})))
        cuda.syncthreads()
        for e in range(column0, count * u({width}), u({THREADS})):
            weights[e] = weight[weight_at + first * u({width}) + e]
        cuda.syncthreads()
        steps_at = u(first * u({row_length(words)}))
        for step in range(count):
    """)
        + indent(read_step("steps_at", words), 3)
        + f"            steps_at = u(steps_at + u({row_length(words)}))\n"
        + f"            if {is_inside('0', words)}:\n"
        + "                sample = load1(x, u(from0 + step0[0]))\n"
        + indent(weigh, 4)
        + "        first = u(first + count)\n"
        + f"    {decode('first_pixel + column0')}\n"
        + "    if first_pixel + column0 < pixels:\n"
        + f"        for i in range(u({width})):\n"
        + "            value = acc[u(0)]\n"
        + (indent(pick, 3) if width > 1 else "")
        + "            row = u(first_channel + i)\n"
        + "            if row < channels:\n"
        + indent(_STORE, 4)
    )


def _depthwise_text(words: int) -> str:
    return (
        f"def depthwise(x, weight, steps, bias, residual, out, {', '.join(GEOMETRY)}, "
        "taps, lanes, all_channels, channels_inner):\n"
        + indent(f"""
    weights = cuda.shared.array({CHUNK}, compute, 16)
    tid = u(cuda.threadIdx.x)
    columns = u(u({THREADS}) // lanes)
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
    """)
        + indent(pixel_state(0, words))
        + indent(f"""
    first = u(0)
    while first < taps:
        count = u(min(taps - first, u({CHUNK}) // lanes - u(1)))
        apart = u(count | u(1))
        cuda.syncthreads()
        for e in range(tid, count * present, u({THREADS})):
            owner, tap = u(e) // count, u(e) % count
            weights[owner * apart + tap] = weight[(first_lane + owner) * taps + first + tap]
        cuda.syncthreads()
        if lane < present:
            weights_at = u(lane * apart)
            steps_at = u(first * u({row_length(words)}))
            for tap in range(count):
    """)
        + indent(read_step("steps_at", words), 4)
        + f"                steps_at = u(steps_at + u({row_length(words)}))\n"
        + f"                if {is_inside('0', words)}:\n"
        + "                    sample = load1(x, u(from0 + step0[0]))\n"
        + "                    value += sample * weights[weights_at + tap]\n"
        + "        first = u(first + count)\n"
        + f"    {decode('first_pixel + column0')}\n"
        + "    if lane < present and first_pixel + column0 < pixels:\n"
        + indent(_STORE, 2)
    )


@functools.cache
def direct_function(storage: str, width: int, words: int) -> Callable[..., None]:
    """Return the kernel of `width` output channels a thread (1 or a multiple of four)."""
    text = _direct_text(width, words)
    return compile_text(text, "direct", f"direct {storage} {width} w{words}", namespace_of(storage))


@functools.cache
def depthwise_function(storage: str, words: int) -> Callable[..., None]:
    """Return the kernel of one input channel a group."""
    text = _depthwise_text(words)
    return compile_text(text, "depthwise", f"depthwise {storage} w{words}", namespace_of(storage))
