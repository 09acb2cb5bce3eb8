"""The gradient of a sparse convolution for its weight: a matrix product an offset.

    grad[offset, k, c] = sum over pairs (input i, output o) of the offset:  grad_out[o, k] * x[i, c]

    grid x: groups * K tiles * C tiles    grid y: offsets    grid z: parts of the output rows
      for 256 output rows of the part:
        ballots number those that have a neighbour     -> a queue of pairs in shared memory
        while the queue holds a panel of 16 pairs:
          their rows of grad_out and x                 -> two panels, channels side by side
          for pair in panel:  acc += a x b             t x t FFMA a thread, t = 8 or 4
      the last panel: what is left, filled up with zeros
    second pass (`parts`): the parts, one after another, rounded to the element type

It wins wherever a group has channels to multiply: pairs are found in the table of neighbours by the
block that needs them, so no gathered copies and nothing but the sums is ever written. A block owns
its part of the gradient and takes pairs by rising output row, parts are added in order: the same
bits in every run.

Both panels lie as the product reads them, so that neither is transposed. Budget of 64x64x16 in
float32: 64 sums and 16 operands, at most 128 registers; 8 KiB of panels and 2.1 KiB of queue, 8
blocks a multiprocessor; 64 FFMA for 4 loads of shared memory (128 bits) a pair and thread. Of the
main loop's instructions 86% multiply and add (71% in 32x32x16) where groups are multiples of four
channels; 73% (52%) where channels must be fetched one at a time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import int32, uint32
from numba.cuda import types

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, SparseBinding

from ..common.launch import Kernel, flat, is_aligned, launch
from ..common.source import compile_text, namespace_of
from ..common.vector import compute_type, storage_type
from ..gemm.tile import fill, indent
from .parts import PartsPlan
from .row_costs import GradSplit, GradTile, grad_split

__all__ = ["WeightGradPlan", "grad_kernel", "plan"]

_ARGUMENTS = (
    "x grad_out table partial rows in_channels out_channels in_per_group out_per_group "
    "k_tiles c_tiles part_rows"
).split()

_HEAD = """
panels = cuda.shared.array(PANEL_ELEMENTS, compute, 16)
waiting_in = cuda.shared.array(QUEUE_ELEMENTS, int32)
waiting_out = cuda.shared.array(QUEUE_ELEMENTS, int32)
warp_counts = cuda.shared.array(8, int32)
tid = u(cuda.threadIdx.x)
lane, warp = u(tid & u(31)), u(tid >> u(5))
earlier_lanes = u((u(1) << lane) - u(1))
tx, ty = u(tid % COLUMNS), u(tid // COLUMNS)
c_tile, rest = u(u(cuda.blockIdx.x) % c_tiles), u(u(cuda.blockIdx.x) // c_tiles)
k_tile, group = u(rest % k_tiles), u(rest // k_tiles)
first_k, first_c = u(k_tile * BM), u(c_tile * BN)
a_first, b_first = u(group * out_per_group + first_k), u(group * in_per_group + first_c)
table_at = u(u(cuda.blockIdx.y) * rows)
begin = u(u(cuda.blockIdx.z) * part_rows)
end = min(u(begin + part_rows), rows)
a, b = cuda.local.array(T, compute), cuda.local.array(T, compute)
acc = cuda.local.array((T, T), compute)
for i in range(T):
    for j in range(T):
        acc[i, j] = ZERO
waiting = u(0)
while begin < end:
    {look}
    cuda.syncthreads()
    {enqueue}
    begin = u(begin + u(4) * THREADS)
    taken = u(0)
    least = PANEL if begin < end else u(1)
    while waiting >= u(taken + least):
        {panel}
        taken = u(taken + PANEL)
    left = u(waiting - min(taken, waiting))
    cuda.syncthreads()
    kept_in, kept_out = int32(0), int32(0)
    if tid < left:
        kept_in, kept_out = waiting_in[u(taken + tid)], waiting_out[u(taken + tid)]
    cuda.syncthreads()
    if tid < left:
        waiting_in[tid], waiting_out[tid] = kept_in, kept_out
    waiting = left
{store}
"""

#: Four rows a thread: which have a neighbour is told by ballots, whose bits number them.
_LOOK = """
row{r} = u(begin + u({r}) * THREADS + tid)
found{r} = int32(-1)
if row{r} < end:
    found{r} = table[u(table_at + row{r})]
ballot{r} = u(cuda.ballot_sync(EVERY_LANE, found{r} >= int32(0)))
if lane == u(0):
    warp_counts[u(u({r}) * WARPS + warp)] = int32(cuda.popc(ballot{r}))
"""

_ENQUEUE = """
place = u(waiting + u(cuda.popc(u(ballot{r} & earlier_lanes))))
for other in range(WARPS):
    count = u(warp_counts[u(u({r}) * WARPS + u(other))])
    if u(other) < warp:
        place = u(place + count)
    waiting = u(waiting + count)
if found{r} >= int32(0):
    waiting_in[place], waiting_out[place] = found{r}, int32(row{r})
"""

#: The rows of a panel's pairs, by how many channels a load fetches; pairs beyond the last, and
#: channels, are zeros.
_LOADS = {
    1: """
for round_index in range({rounds}):
    e = u(u(round_index) * THREADS + tid)
    pair, channel = u(u(e // {size}) + taken), u(e % {size})
    value = ZERO
    if pair < waiting and u(first_{letter} + channel) < {group_channels}:
        value = load1({array}, u(u({queue}[pair]) * {channels} + {side}_first + channel))
    panels[u({base} + e)] = value
""",
    4: """
for round_index in range({rounds}):
    e = u(u(u(round_index) * THREADS + tid) * u(4))
    pair, channel = u(u(e // {size}) + taken), u(e % {size})
    values = (ZERO, ZERO, ZERO, ZERO)
    if pair < waiting and u(first_{letter} + channel) < {group_channels}:
        values = load4({array}, u(u({queue}[pair]) * {channels} + {side}_first + channel))
    store4s(panels, u({base} + e), *values)
""",
}

_STORE = """
at = u(((u(cuda.blockIdx.z) * u(cuda.gridDim.y) + u(cuda.blockIdx.y)) * out_channels + a_first)
       * in_per_group + first_c)
for i in range(T):
    k = u(ty * u(4) + u(i) % u(4) + u(i) // u(4) * QUAD_STEP_M)
    for j in range(T):
        c = u(tx * u(4) + u(j) % u(4) + u(j) // u(4) * QUAD_STEP_N)
        if u(first_k + k) < out_per_group and u(first_c + c) < in_per_group:
            partial[u(at + k * in_per_group + c)] = acc[i, j]
"""


def _products(tile: GradTile) -> str:
    """Return the arithmetic of a panel, written out so that every address is a constant apart."""
    quads = tile.t // 4
    steps = ["a_read, b_read = u(ty * u(4)), u(B_PANEL + tx * u(4))"]
    for pair in range(tile.panel):
        for name, width in (("a", tile.bm), ("b", tile.bn)):
            for quad in range(quads):
                place = ", ".join(f"{name}[{4 * quad + i}]" for i in range(4))
                offset = pair * width + quad * (width // quads)
                steps.append(f"{place} = load4s(panels, {name}_read + u({offset}))")
        steps += ["for i in range(T):", "    for j in range(T):"]
        steps.append("        acc[i, j] += a[i] * b[j]")
    return "\n".join(steps)


def grad_text(tile: GradTile, width: int) -> str:
    """Return the text of a tile's kernel whose loads fetch `width` channels, 1 or 4."""
    load, rounds = _LOADS[width], tile.panel * tile.bm // tile.threads // width
    load_a = load.format(
        side="a", size="BM", letter="k", group_channels="out_per_group", queue="waiting_out",
        array="grad_out", channels="out_channels", base="u(0)", rounds=rounds,
    )  # fmt: skip
    load_b = load.format(
        side="b", size="BN", letter="c", group_channels="in_per_group", queue="waiting_in",
        array="x", channels="in_channels", base="B_PANEL", rounds=rounds,
    )  # fmt: skip
    body = fill(
        _HEAD,
        look="".join(_LOOK.format(r=r) for r in range(4)),
        enqueue="".join(_ENQUEUE.format(r=r) for r in range(4)),
        panel="cuda.syncthreads()" + load_a + load_b + "cuda.syncthreads()\n" + _products(tile),
        store=_STORE,
    )
    return f"def weight_grad({', '.join(_ARGUMENTS)}):\n" + indent(body)


@functools.cache
def grad_kernel(storage: str, tile: GradTile, width: int) -> Kernel:
    """Return the kernel of a tile's products whose loads fetch `width` channels, 1 or 4."""
    numbers = {
        "BM": tile.bm, "BN": tile.bn, "PANEL": tile.panel, "THREADS": tile.threads,
        "WARPS": tile.threads // 32, "COLUMNS": tile.bn // tile.t,
        "B_PANEL": tile.panel * tile.bm, "QUAD_STEP_M": tile.bm // (tile.t // 4),
        "QUAD_STEP_N": tile.bn // (tile.t // 4),
    }  # fmt: skip
    namespace = namespace_of(storage) | {key: np.uint32(value) for key, value in numbers.items()}
    namespace |= {
        "T": tile.t, "PANEL_ELEMENTS": tile.panel * (tile.bm + tile.bn),
        "QUEUE_ELEMENTS": tile.queue, "int32": int32, "EVERY_LANE": 0xFFFFFFFF,
    }  # fmt: skip
    label = f"sparse_weight_grad {tile.name} {storage} x{width}"
    function = compile_text(grad_text(tile, width), "weight_grad", label, namespace)
    stored, summed = storage_type(storage)[::1], compute_type(storage)[::1]
    arguments = (stored, stored, types.int32[::1], summed, *[types.uint32] * 8)
    shared = tile.shared_bytes(8 if storage == "float64" else 4)
    return Kernel(label, function, arguments, tile.threads, tile.blocks, shared)


@dataclass(frozen=True, eq=False)
class WeightGradPlan(PartsPlan):
    """One problem made ready.

    Parameters
    ----------
    split : GradSplit
        How it is cut.
    """

    split: GradSplit

    def run(self, rulebook: Rulebook, x: Any, grad_out: Any, weight_grad: Any) -> None:
        """Compute into `weight_grad`."""
        problem, split = self.problem, self.split
        in_per_group = problem.in_channels // problem.groups
        out_per_group = problem.out_channels // problem.groups
        partial = self.new_parts(x, split.parts)
        numbers = (
            rulebook.out_rows, problem.in_channels, problem.out_channels, in_per_group,
            out_per_group, split.k_tiles, split.c_tiles, split.part_rows,
        )  # fmt: skip
        grid = (split.k_tiles * split.c_tiles * problem.groups, problem.volume, split.parts)
        arrays = (flat(x), flat(grad_out), flat(rulebook.neighbours), partial)
        # Four channels at once where no load begins between two of them.
        size = 4 * problem.itemsize
        fours = in_per_group % 4 == 0 and out_per_group % 4 == 0
        wide = fours and all(is_aligned(a, size) for a in arrays[:2])
        kernel = grad_kernel(problem.dtype, split.tile, 4 if wide else 1)
        launch(kernel, grid, x, (*arrays, *map(uint32, numbers)))
        self.add_parts(partial, split.parts, weight_grad)


def plan(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> WeightGradPlan:
    """Return the plan of a problem; kernels are compiled when they are first launched."""
    return WeightGradPlan(problem, grad_split(problem, device))
