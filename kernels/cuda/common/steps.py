"""The table of steps: how a kernel finds the samples of a convolution of any kind.

A step of the reduction is an input channel and a tap. Its row in the table holds the offset of its
sample from a pixel's first, and one bit for the tap's place along each axis: ``kd + kh + kw`` bits
in words of 32. A pixel has the bits of those places that lie outside the input, found once before
the loop. A sample is read where the two have no bit in common:

    row         offset | 0 0 1   0 1 0   1 0 0        tap (2, 1, 0) of 3 x 3 x 3
    pixel                0 0 0   0 0 0   1 0 0        at the left edge: outside, a zero

So a load costs a read of the table, one AND and one addition, for any rank, stride, padding and
dilation, and no division. Rows beyond the last step have a bit that every pixel has.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numba import cuda, uint32
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from .params import element_strides

__all__ = [
    "axis_bits",
    "channels_inner",
    "decode",
    "is_inside",
    "pixel_state",
    "read_step",
    "row_length",
    "step_table",
]


def row_length(words: int) -> int:
    """Return the length of a row of the table of steps: the offset and the words."""
    return words + 1


def channels_inner(problem: ConvProblem) -> bool:
    """Tell whether an output's channels lie side by side."""
    return problem.layout == "channels_last"


def step_table(
    problem: ConvProblem, binding: Binding, words: int, rows: int, inner: bool
) -> NDArray[np.uint32]:
    """Return the table of steps: a sample's offset from its pixel's, and its taps' bits.

    Parameters
    ----------
    words : int
        Words of bits in a row.
    rows : int
        Rows of the table; those beyond the steps have a bit that no pixel lets pass.
    inner : bool
        Whether steps run tap by tap, all channels of one after another, or channel by channel.
    """
    strides = element_strides("input", problem.x_shape, binding.x_strides, problem.itemsize)
    channels = problem.in_channels // problem.groups
    taps = np.indices(problem.kernel_size).reshape(problem.ndim, -1).astype(np.int64)
    # Offsets count modulo 2**32; an axis of one tap may have any dilation, one of one sample any
    # stride.
    hops = [hole * step % 2**32 for hole, step in zip(problem.dilation, strides[2:], strict=True)]
    offsets = (taps * np.array(hops)[:, None]).sum(axis=0)
    starts = 3 - problem.ndim + np.cumsum((0, *problem.kernel_size[:-1]))
    bits = np.zeros((offsets.size, words), np.uint32)
    for place in (*np.arange(3 - problem.ndim)[:, None], *(taps + starts[:, None])):
        bits[np.arange(offsets.size), place // 32] |= np.uint32(1) << (place % 32).astype(np.uint32)
    channel_offsets = np.arange(channels) * (strides[1] % 2**32)
    table = np.zeros((rows, words + 1), np.uint32)
    table[:, -1] = 1 << 31
    steps = channels * offsets.size
    if inner:
        table[:steps, 0] = (offsets[:, None] + channel_offsets).ravel() % 2**32
        table[:steps, 1:] = np.repeat(bits, channels, axis=0)
    else:
        table[:steps, 0] = (channel_offsets[:, None] + offsets).ravel() % 2**32
        table[:steps, 1:] = np.tile(bits, (channels, 1))
    return table.ravel()


@cuda.jit(device=True)
def axis_bits(start: Any, step: Any, size: Any, taps: Any, place: Any) -> Any:
    """Return the bits of an axis's taps that meet the input, of those whose place is in 0..31."""
    bits = uint32(0)
    for tap in range(taps):
        bit = uint32(place + uint32(tap))
        if bit < uint32(32) and uint32(start + uint32(tap) * step) < size:
            bits |= uint32(uint32(1) << bit)
    return bits


def decode(pixel: str) -> str:
    """Return code that turns a pixel's number into image, depth, height and width."""
    return (
        f"w, rest = u({pixel}) % ow, u({pixel}) // ow; h, rest = rest % oh, rest // oh; "
        "d, n = rest % od, rest // od"
    )


def pixel_state(j: int, words: int, pixel: str = "{at}") -> str:
    """Return code for a pixel's offset `from<j>` and the bits of what lies outside, per word.

    Parameters
    ----------
    j : int
        Which of the thread's pixels; its place is ``first_pixel + column<j>``.
    words : int
        Words of bits.
    pixel : str
        The number of the pixel at a place `{at}`.
    """
    text = f"""
    {decode(pixel.format(at=f"first_pixel + column{j}"))}
    d0, h0, w0 = u(d * sd - pd), u(h * sh - ph), u(w * sw - pw)
    from{j} = u(x_first + group * xg + n * xn + d0 * xd + h0 * xh + w0 * xw)
    """
    for start in range(0, 32 * words, 32):
        text += f"""
    inside = axis_bits(d0, dd, id, kd, u(-{start}))
    inside |= axis_bits(h0, dh, ih, kh, u(kd - u({start})))
    inside |= axis_bits(w0, dw, iw, kw, u(kd + kh - u({start})))
    outside{j}_{start // 32} = u(~inside) if first_pixel + column{j} < pixels else u(0xFFFFFFFF)
    """
    return textwrap.dedent(text)


def read_step(at: str, words: int) -> str:
    """Return code that reads a row of the table: `step0[0]` is the offset, bits follow."""
    length = row_length(words)
    count = min(length, 4)
    return "\n".join(
        f"step{part} = load_words(steps, {at} + u({part}), {count})"
        for part in range(0, length, count)
    )


def is_inside(column: int, words: int) -> str:
    """Return the test whether the step that was read finds a sample for a pixel."""
    count = min(row_length(words), 4)
    places = ((1 + word) // count * count for word in range(words))
    tests = [
        f"(step{place}[{1 + word - place}] & outside{column}_{word})"
        for word, place in enumerate(places)
    ]
    return f"({' | '.join(tests)}) == u(0)"
