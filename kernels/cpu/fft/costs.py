"""Transform lengths of the FFT kernel, chosen by counting its operations.

Kept apart from the code (plan.py) because the table of kernels asks for a cost and must not import
a compiler, nor SciPy.
"""

from __future__ import annotations

import bisect
import functools
import importlib.util
import itertools
import math
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ...tolerance import INTEGER_TOLERANCE
from ..common.specs import cpu_spec
from ..machine.mechanisms import Fft
from ..machine.seconds import profile

__all__ = ["SPECS", "Blocks", "choose", "dilated_extent"]

#: Bytes of transforms that one round works on, so that they stay in the last cache.
_ROUND_BYTES = 4 << 20
#: Bytes of a block's channels, or of the kernels' transforms, beyond which the fewest are taken.
_MOST_BYTES = 64 << 20
#: An axis is one block up to such a length, or as many times the kernel's reach. What is longer is
#: cut into blocks that only the kernel decides, so that inputs of many lengths share its transform.
_LONGEST, _MOST_TIMES = 1 << 19, 16


@functools.cache
def _smooth(bits: int) -> tuple[int, ...]:
    """Return the even lengths of so many bits without a prime factor above 5."""
    lengths = [2]
    for factor in (2, 3, 5):
        for length in lengths:  # grows as it is read
            if length * factor < 1 << bits:
                lengths.append(length * factor)
    return tuple(sorted(lengths))


def _smooth_between(low: int, high: int) -> tuple[int, ...]:
    """Return those lengths from `low` up to `high`."""
    lengths = _smooth(max(high.bit_length(), 2))
    return lengths[bisect.bisect_left(lengths, low) : bisect.bisect_right(lengths, high)]


class Blocks(NamedTuple):
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


def dilated_extent(problem: ConvProblem) -> tuple[int, ...]:
    """Return the size of the dilated kernel."""
    return tuple(
        d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True)
    )


def _lengths(out: int, taps: int) -> list[int]:
    """Return the transform lengths to try along one axis: some blocks, or all in one."""
    if taps == 1 and out <= 16:
        return [out]
    end = out + taps - 1
    whole = _smooth_between(end, 2 * end)[0]  # a power of two lies between
    few = _smooth_between(max(taps + 15, 2 * taps), min(whole, _MOST_TIMES * taps))
    lengths = list(few[:: max(1, len(few) // 24)])
    if not few or not _is_long(out, taps):
        lengths.append(whole)
    return lengths


def _is_long(out: int, taps: int) -> bool:
    """Return whether an axis is cut into blocks that only the kernel decides."""
    return out + taps - 1 > max(_LONGEST, _MOST_TIMES * taps)


class _Count(NamedTuple):
    """What the transforms of a problem cost, by what is the same for all lengths."""

    channels: int
    products: float  # of an input and an output channel
    size: int
    speed: float  # FLOP/s of all threads
    costs: Fft

    @classmethod
    def of(cls, problem: ConvProblem, device: DeviceInfo) -> _Count:
        """Return the count for a problem."""
        size, costs = problem.compute_itemsize, profile(device).fft
        flops = costs.single if size == 4 else costs.double
        return cls(
            problem.in_channels + problem.out_channels,
            problem.in_channels * problem.out_channels / problem.groups,
            size,
            flops * (1 + costs.thread * (device.threads - 1)),
            costs,
        )

    def per_round(self, points: int, blocks: float) -> int:
        """Return how many blocks go through Python's calls together."""
        most = max(1, _ROUND_BYTES // (self.channels * points * self.size))
        return max(1, int(min(most, blocks)))

    def seconds(self, points: int, blocks: float, whole: bool) -> float:
        """Return the time of blocks; in whole rounds, or of so many on average."""
        flops = 2.5 * points * math.log2(max(points, 2)) * self.channels * blocks / self.speed
        per_block = points * (self.channels + self.products) * self.costs.point * (self.size / 4)
        rounds = blocks / self.per_round(points, blocks)
        rounds = math.ceil(rounds) if whole else rounds
        return flops + per_block * blocks + rounds * self.costs.round


@functools.lru_cache(maxsize=4096)
def choose(problem: ConvProblem, device: DeviceInfo) -> tuple[float, Blocks]:
    """Return the predicted seconds and the blocks that promise the fewest."""
    count = _Count.of(problem, device)
    held = max(count.channels, math.prod(problem.weight_shape[:2])) * count.size
    sizes = list(zip(problem.out_size, dilated_extent(problem), strict=True))
    # Along a long axis the last block, which is not full, would decide between like lengths.
    whole = not any(itertools.starmap(_is_long, sizes))
    axes = [
        [
            (n, -(-out // (n - taps + 1)) if whole else out / (n - taps + 1))
            for n in _lengths(out, taps)
        ]
        for out, taps in sizes
    ]
    best: tuple[float, float, tuple[int, ...]] | None = None
    for place in itertools.product(*axes):
        points, blocks = 1, float(problem.batch)
        for length, along in place:
            points, blocks = points * length, blocks * along
        candidate = (
            max(points * held, _MOST_BYTES),
            count.seconds(points, blocks, whole),
            tuple(length for length, _ in place),
        )
        if best is None or candidate < best:
            best = candidate
    assert best is not None
    lengths = best[2]
    steps = tuple(n - taps + 1 for n, (_, taps) in zip(lengths, sizes, strict=True))
    counts = tuple(-(-out // step) for step, (out, _) in zip(steps, sizes, strict=True))
    points, blocks = math.prod(lengths), math.prod(counts) * problem.batch
    cut = Blocks(lengths, steps, counts, count.per_round(points, blocks))
    return count.seconds(points, blocks, True), cut


#: Fewer taps than this are far from where a transform of blocks pays.
_FFT_TAPS = 64
#: Most transformed kernels of one group: each takes as much memory as a block.
_FFT_KERNELS = 64


def _reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = []
    if not _has_scipy():
        reasons.append("needs SciPy's FFT: pip install 'fastconv[scipy]'")
    if any(step != 1 for step in problem.stride):
        reasons.append(f"wants a stride of 1; this has {problem.stride}")
    taps = math.prod(problem.kernel_size)
    if taps < _FFT_TAPS:
        reasons.append(f"is for kernels of at least {_FFT_TAPS} taps; this has {taps}")
    kernels = problem.out_channels // problem.groups * (problem.in_channels // problem.groups)
    if kernels > _FFT_KERNELS:
        reasons.append(f"would transform {kernels} kernels of a group, more than {_FFT_KERNELS}")
    return reasons


@functools.cache
def _has_scipy() -> bool:
    return importlib.util.find_spec("scipy") is not None


def _cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return choose(problem, device)[0]


def _pack_seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the transforms of the kernels, whose axes are padded each when its turn comes."""
    extents, lengths = dilated_extent(problem), choose(problem, device)[1].lengths
    points, flops = math.prod(extents), 0.0
    for extent, length in reversed(list(zip(extents, lengths, strict=True))):
        points = points // extent * length
        flops += 2.5 * points * math.log2(max(length, 2))
    kernels = math.prod(problem.weight_shape[:2])
    start = profile(device).packing.transform_start
    return kernels * flops / _Count.of(problem, device).speed + start


SPECS = (
    cpu_spec(
        "fft", "fft.plan", _reasons, _cost,
        tolerance=INTEGER_TOLERANCE, pack_cost=_pack_seconds, exact=False,
    ),
)  # fmt: skip
