"""Block sizes of the fast FIR kernel, chosen by counting its cycles.

Kept apart from the code (plan.py) because the table of kernels asks for a cost and must not
import a compiler.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from fastconv.contract.problem import INTEGERS, ConvProblem
from fastconv.contract.spec import DeviceInfo, Tolerance

from ..common.specs import MOST_PLANES, cpu_spec
from ..gemm.split import LONGEST_SUM
from ..machine.profile import Profile
from ..machine.seconds import profile, transform_seconds

__all__ = [
    "MOST_BYTES",
    "MOST_STEPS",
    "SPECS",
    "Sizes",
    "choose",
    "phase_counts",
    "smallest_bytes",
]

#: Most phases along an axis, and most products of a sum where both levels have so many: what keeps
#: the error under 2e-5 (see plan.py).
_MOST_PHASES, _MOST_PRODUCTS = 4, 12_000
#: Most products of one phase that are summed in one go.
MOST_STEPS = 2 * LONGEST_SUM
#: Most elements that transposing whole blocks reads behind the last row of a folded signal.
_FOLD_SLACK = 32
#: Blocks along an axis that are tried: twice as many, and so on, where the last are still so long.
_CUTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_LONG_BLOCK = 256
#: Most bytes of a block's transformed input.
MOST_BYTES = 32 << 20


class Sizes(NamedTuple):
    """Phases, register tile and block; rows and columns count tiles of m2 x m1 outputs.

    A folded signal has its phases of both levels along the rows, and a segment in each column.
    """

    fold: bool
    m1: int  # phases along the width; of a folded signal, of the first level
    m2: int  # phases along the height; of a folded signal, of the second level
    taps_h: int  # taps of one phase
    taps_w: int
    rh: int  # register tile: rows, vectors
    nv: int
    rows: int  # block: output rows, a multiple of rh
    cols: int  # output columns, a multiple of nv vectors
    in_cols: int  # input columns under them, a multiple of a vector
    blocks_h: int
    blocks_w: int

    @property
    def n1(self) -> int:
        """Products along the first axis."""
        return 2 * self.m1 - 1

    @property
    def n2(self) -> int:
        """Products along the second axis."""
        return 2 * self.m2 - 1

    @property
    def in_rows(self) -> int:
        """Input rows under a block, in tiles."""
        return self.rows + self.taps_h - 1

    @property
    def segment(self) -> int:
        """Outputs in a column of a folded block."""
        return self.rows * self.m1 * self.m2

    @property
    def span(self) -> int:
        """Elements of a folded signal that a block reads, those beside its own among them."""
        phases = self.m1 * self.m2
        return (self.cols - 1) * self.segment + (self.in_rows + 2) * phases + _FOLD_SLACK

    def input_bytes(self, channels: int, size: int) -> int:
        """Return the size of a block's transformed input."""
        return self.n1 * self.n2 * channels * self.in_rows * self.in_cols * size


def phase_counts(problem: ConvProblem) -> Iterator[tuple[int, int]]:
    """Return the (m1, m2) that are worth a try: phases of at least two taps, sums not too long."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    channels = problem.in_channels // problem.groups
    long_sum = channels * kh * kw > _MOST_PRODUCTS
    for m1 in range(1, _MOST_PHASES + 1):
        for m2 in range(1, _MOST_PHASES + 1):
            if problem.ndim == 1:
                fits = m1 >= m2 and kw >= 2 * m1 * m2
            else:
                fits = m1 * m2 > 1 and (m1 == 1 or kw >= 2 * m1) and (m2 == 1 or kh >= 2 * m2)
            taps = _over(kw, m1 * m2) if problem.ndim == 1 else _over(kh, m2) * _over(kw, m1)
            fits = fits and channels * taps <= MOST_STEPS
            if fits and not (long_sum and m1 == m2 == _MOST_PHASES):
                yield m1, m2


def _over(count: int, size: int) -> int:
    """Return how many parts of a size cover a count."""
    return -(-count // size)


def _cuts(length: int) -> list[int]:
    """Return the numbers of blocks to try along an axis of a length in blocks' smallest units."""
    cuts = [cut for cut in _CUTS if cut <= length]
    while _over(length, cuts[-1]) > _LONG_BLOCK:
        cuts.append(2 * cuts[-1])
    return cuts


def _rows(tiles_h: int, rh: int) -> set[int]:
    """Return the rows of tiles of a block to try."""
    return {_block_rows(tiles_h, cut, rh) for cut in _cuts(tiles_h)}


def _block_rows(tiles_h: int, cut: int, rh: int) -> int:
    """Return the rows of `cut` blocks, a multiple of a register tile's."""
    return _over(_over(tiles_h, cut), rh) * rh


def _register_rows(device: DeviceInfo, taps_h: int) -> range:
    """Return rows of a register tile to try; a tile has at most one row more than taps."""
    most = min(6 if device.registers == 32 else 4, taps_h + 1)
    return range(most, max(1, most - 4), -1)


def _widths(problem: ConvProblem, device: DeviceInfo, m1: int) -> list[tuple[int, int]]:
    """Return vectors of a register tile and columns of a block to try."""
    lanes = device.lanes(problem.compute_itemsize)
    most = 4 if device.registers == 32 else 2
    if problem.ndim == 1:
        return [(nv, nv * lanes) for nv in (1, 2, 4) if nv <= most]
    vectors, beside = _over(_over(problem.out_size[-1], m1), lanes), profile(device).fast_fir.vector
    nv = min(range(1, most + 1), key=lambda n: (_over(vectors, n) * (n + beside), n))
    across = _over(vectors, nv)
    return [(nv, _over(across, cut) * nv * lanes) for cut in _cuts(across)]


def _shapes(problem: ConvProblem, device: DeviceInfo) -> Iterator[tuple[Sizes, int]]:
    """Return sizes to choose from, but for their rows, and the rows that blocks share."""
    oh, ow = (1, *problem.out_size)[-2:]
    for m1, m2 in phase_counts(problem):
        for nv, cols in _widths(problem, device, m1):
            shape = _shape(problem, device, m1, m2, nv, cols)
            tiles_h = _over(ow, cols * m1 * m2) if shape.fold else _over(oh, m2)
            for rh in _register_rows(device, shape.taps_h):
                yield shape._replace(rh=rh), tiles_h


def _shape(problem: ConvProblem, device: DeviceInfo, m1: int, m2: int, nv: int, cols: int) -> Sizes:
    """Return sizes without rows."""
    (kh, kw), width = (1, *problem.kernel_size)[-2:], problem.out_size[-1]
    fold, lanes = problem.ndim == 1, device.lanes(problem.compute_itemsize)
    taps_h, taps_w = (_over(kw, m1 * m2), 1) if fold else (_over(kh, m2), _over(kw, m1))
    in_cols = cols if fold else _over(cols + taps_w - 1, lanes) * lanes
    blocks_w = 1 if fold else _over(_over(width, m1), cols)
    return Sizes(fold, m1, m2, taps_h, taps_w, 0, nv, 0, cols, in_cols, 0, blocks_w)


def smallest_bytes(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the size of the smallest transformed input of the blocks that are looked at."""
    channels, size = problem.in_channels // problem.groups, problem.compute_itemsize
    return min(
        shape._replace(rows=_block_rows(tiles_h, _cuts(tiles_h)[-1], shape.rh)).input_bytes(
            channels, size
        )
        for shape, tiles_h in _shapes(problem, device)
    )


@functools.lru_cache(256)
def _product_cycles(
    rh: int, nv: int, taps_h: int, taps_w: int, planes: int, machine: Profile
) -> float:
    """Return the cycles of one register tile."""
    latency, costs = machine.core.latency, machine.fast_fir
    load = nv * (2 if taps_w > 1 else 1)  # most vectors cross a cache line
    whole = (taps_h - rh + 1) * max(rh * nv, load + rh / 2)
    part = 2 * sum(max(reached * nv, load + reached / 2, latency) for reached in range(1, rh))
    steps = planes * taps_w * (whole + part) * costs.products
    return steps + planes * 2 * rh * costs.tap_row + costs.tile


def _cycles(s: Sizes, problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one block."""
    lanes, machine = device.lanes(problem.compute_itemsize), profile(device)
    costs = machine.fast_fir
    line, line_with_split = costs.line[s.m1 - 1], costs.line_with_split[s.m1 - 1]
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    n1, n2 = s.n1, s.n2
    in_vectors, out_vectors = s.in_cols // lanes, s.cols // lanes
    lines = s.m2 * s.in_rows * costs.reread + s.m2
    if s.fold:
        first = lines * (line + s.m1 * costs.folded)
        last = s.rows * s.m2 * (line + s.m1 * (costs.folded + costs.stored))
    else:
        strided = 1 if problem.layout == "channels_first" else costs.gathered_element * lanes
        first = lines * (line_with_split + s.m1 * (strided - 1))
        last = s.rows * s.m2 * (line_with_split + s.m1 * costs.stored)
    second = n1 * costs.line[s.m2 - 1]
    read = c * (in_vectors * (first + s.in_rows * second) + costs.channel)
    tiles = n1 * n2 * (s.rows // s.rh) * (out_vectors // s.nv)
    write = k * out_vectors * (s.rows * second + last)
    product = _product_cycles(s.rh, s.nv, s.taps_h, s.taps_w, c, machine)
    return read + k * tiles * product + write


class _Block(NamedTuple):
    """A cut of one shape into blocks, and what it costs."""

    total: float  # cycles of all blocks
    busiest: float  # cycles of the thread that has most of them
    shape: Sizes
    rows: int
    blocks_h: int

    @property
    def phases(self) -> tuple[bool, int, int]:
        """What decides the bits of a result; the cut into blocks does not."""
        return self.shape.fold, self.shape.m1, self.shape.m2


def _blocks(problem: ConvProblem, device: DeviceInfo) -> Iterator[_Block]:
    """Return every cut whose blocks fit. A block's cycles are linear in its rows."""
    size, c = problem.compute_itemsize, problem.in_channels // problem.groups
    outgrown, held_most = profile(device).fast_fir.outgrown, device.l2 * 3 // 4
    for shape, tiles_h in _shapes(problem, device):
        rh, beside = shape.rh, shape.taps_h - 1
        first = _cycles(shape._replace(rows=rh), problem, device)
        step = _cycles(shape._replace(rows=2 * rh), problem, device) - first
        plane = shape.n1 * shape.n2 * c * shape.in_cols * size
        across = problem.batch * problem.groups * shape.blocks_w
        for rows in _rows(tiles_h, rh):
            held = plane * (rows + beside)
            if held > MOST_BYTES:
                continue
            cycles = first + (rows // rh - 1) * step
            if held > held_most:
                cycles *= outgrown
            blocks_h = _over(tiles_h, rows)
            tasks = across * blocks_h
            yield _Block(
                tasks * cycles, _over(tasks, device.threads) * cycles, shape, rows, blocks_h
            )


@functools.lru_cache(maxsize=4096)
def choose(problem: ConvProblem, device: DeviceInfo) -> tuple[float, Sizes]:
    """Return the predicted seconds and the sizes that promise the fewest, of blocks that fit.

    Phases are chosen by the cycles of all blocks, and only then a cut by what the threads make of
    it: so results are the same bits for any number of threads.
    """
    machine, blocks = profile(device), list(_blocks(problem, device))
    phases = min(blocks, key=lambda block: block.total).phases
    best = min(
        (block for block in blocks if block.phases == phases), key=lambda block: block.busiest
    )
    # Counted as one vector a cycle.
    seconds = best.busiest / machine.core.multiply_adds / machine.core.peak
    sizes = best.shape._replace(rows=best.rows, blocks_h=best.blocks_h)
    return seconds + machine.fast_fir.start, sizes


def _seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the predicted time: the cycles and the bytes."""
    size, memory = problem.compute_itemsize, profile(device).memory
    weights = math.prod(problem.weight_shape) * size * 2
    moved = (math.prod(problem.x_shape) + math.prod(problem.out_shape)) * size + weights
    if problem.ndim == 1:
        return max(choose(problem, device)[0], moved / memory.operands)
    # Rows of a block lie far apart, so reading them is not hidden behind the arithmetic.
    bandwidth = memory.far_rows if moved > device.l3 // 2 else memory.operands
    return choose(problem, device)[0] + moved / bandwidth


def _pack_seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the elements of the transformed weight."""
    s = choose(problem, device)[1]
    elements = math.prod(problem.weight_shape[:2]) * s.n1 * s.n2 * s.taps_h * s.taps_w
    return transform_seconds(elements, problem, device)


#: Over fifty random filters of 13x13 to 63x63 taps: 1.3e-5 of the largest output, see plan.py.
_TOLERANCE = {
    "float32": Tolerance(2e-5),
    "float64": Tolerance(2e-5 * 2.0**-29),
    "float16": Tolerance(2.0**-11 + 2e-5),
    "bfloat16": Tolerance(2.0**-8 + 2e-5),
} | dict.fromkeys(INTEGERS, Tolerance(2e-5))


def _reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = []
    if problem.ndim == 3:
        reasons.append("transforms one or two axes; this problem has three")
    if any(step != 1 for step in problem.stride):
        reasons.append(f"wants a stride of 1; this has {problem.stride}")
    if any(hole != 1 for hole in problem.dilation):
        reasons.append(f"wants a dense kernel; this has dilation {problem.dilation}")
    channels = problem.in_channels // problem.groups
    if channels > MOST_PLANES:
        reasons.append(f"holds {channels} input channels of a group, more than {MOST_PLANES}")
    if not any(True for _ in phase_counts(problem)):
        reasons.append(
            "wants phases of two taps at least and sums of at most "
            f"{MOST_STEPS} products; the kernel is {problem.kernel_size}"
        )
    if not reasons:
        size, most = smallest_bytes(problem, device), MOST_BYTES
        if size > most:
            reasons.append(
                f"transforms blocks of {-(-size // (1 << 20))} MiB, more than {most >> 20}"
            )
    return reasons


SPECS = (
    cpu_spec(
        "fast_fir", "fast_fir.plan", _reasons, _seconds,
        tolerance=_TOLERANCE, pack_cost=_pack_seconds, exact=False,
    ),
)  # fmt: skip
