"""Transform lengths of the FFT kernel, chosen by counting its operations.

Kept apart from the code (fft.py) because the table of kernels asks for a cost and must not import a
compiler, nor SciPy.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

from fastconv.problem import ConvProblem
from fastconv.spec import DeviceInfo

__all__ = ["Blocks", "choose", "reach"]

#: FLOP/s of pocketfft on one core, by element size: measured on blocks of 256^2 to 576^2 and on
#: 8192 points, out of L2 (Zen 4, SciPy 1.17).
_FFT_FLOPS = {4: 16e9, 8: 8e9}
#: Seconds a point of a transform: reading, multiplying and finishing, on the calling thread.
_POINT_SECONDS = 0.35e-9
#: Seconds for each round of calls from Python.
_ROUND_SECONDS = 60e-6
#: Bytes of transforms that one round works on, so that they stay in the last cache.
_ROUND_BYTES = 4 << 20


def _smooth(limit: int) -> tuple[int, ...]:
    """Return the even lengths up to `limit` without a prime factor above 5."""
    found = [2]
    for factor in (2, 3, 5):
        for length in found:  # grows as it is read
            if length * factor <= limit:
                found.append(length * factor)
    return tuple(sorted(set(found)))


_LENGTHS = _smooth(1 << 22)


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the output is cut along each axis."""

    lengths: tuple[int, ...]  # of a transform
    steps: tuple[int, ...]  # outputs of a block
    counts: tuple[int, ...]  # blocks of an image
    per_round: int  # blocks that go through Python's calls together

    @property
    def points(self) -> int:
        """Elements of a block."""
        return math.prod(self.lengths)

    @property
    def per_image(self) -> int:
        """Blocks of an image."""
        return math.prod(self.counts)


def reach(problem: ConvProblem) -> tuple[int, ...]:
    """Return the size of the dilated kernel."""
    return tuple(
        d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True)
    )


def _lengths(out: int, taps: int) -> list[int]:
    """Return the transform lengths to try along one axis: some blocks, or all in one."""
    if taps == 1 and out <= 16:
        return [out]
    whole = next(n for n in _LENGTHS if n >= out + taps - 1)
    few = [n for n in _LENGTHS if max(taps + 15, 2 * taps) <= n <= min(whole, 16 * taps)]
    return [*few[:: max(1, len(few) // 24)], whole]


@functools.lru_cache(maxsize=4096)
def choose(problem: ConvProblem, device: DeviceInfo) -> tuple[float, Blocks]:
    """Return the predicted seconds and the blocks that promise the fewest."""
    size = problem.compute_itemsize
    channels = problem.in_channels + problem.out_channels
    products = problem.in_channels * problem.out_channels / problem.groups
    speed = _FFT_FLOPS[size] * (1 + 0.6 * (device.threads - 1))
    taps = reach(problem)
    axes = [_lengths(o, t) for o, t in zip(problem.out_size, taps, strict=True)]
    best: tuple[float, Blocks] | None = None
    for lengths in itertools.product(*axes):
        steps = tuple(n - t + 1 for n, t in zip(lengths, taps, strict=True))
        counts = tuple(-(-o // s) for o, s in zip(problem.out_size, steps, strict=True))
        blocks, points = math.prod(counts) * problem.batch, math.prod(lengths)
        per_round = min(max(1, _ROUND_BYTES // (channels * points * size)), max(blocks, 1))
        flops = 2.5 * points * math.log2(max(points, 2)) * channels * blocks / speed
        moved = points * (channels + products) * blocks * _POINT_SECONDS * (size / 4)
        seconds = flops + moved + -(-blocks // per_round) * _ROUND_SECONDS
        if best is None or seconds < best[0]:
            best = seconds, Blocks(lengths, steps, counts, per_round)
    assert best is not None
    return best
