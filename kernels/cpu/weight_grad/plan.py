"""Gradient of a dense convolution for its weight: a matrix product over pixels.

``grad_weight[k, c, tap]`` is the sum of ``grad_out[k, pixel] * x[c, pixel * stride + tap * dilation
- padding]`` over images and pixels: rows of the register tile are channels of one tap, lanes are
output channels, and steps are pixels::

    task = group x block of input channels x part of K      taken by any thread
      for image, for 256 pixels
        copy: for tap, channel: the samples that pixels meet   rows, as im2col_gemm packs its panels
        transpose: the gradients, to [pixel, part of K]        columns, squares in registers
        for nr output channels, for mr rows
          register tile (gemm/tile.py)                         sums[tap, channel, K] += products
        after 64 of these, add the sums to the totals          totals[channel, tap, K]
      transpose the totals to (K, C, taps)

Every sum is of one task and in one order, whatever the number of threads, so results are the same
bits. Sums of 256 products are added up 64 at a time, and those again: an error hardly grows with
the number of pixels. Workspace is that of a task for each thread, some hundred kilobytes.

Wins wherever a group has more than one input channel; a depthwise weight's is `depthwise.py`'s.

Budget (AVX-512, float32): 256 rows of 1 KiB, 256 pixels x 128 channels of gradients and the sums of
both are half of 1 MiB L2. A row of samples is copied in 6 cycles a vector for ``K`` of arithmetic;
gradients are transposed once for 256 rows.
"""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ...taps import whole
from ..common.segments import SEGMENT_WORDS
from ..common.workspace import Workspace
from ..gemm.pack import CHUNK_WORDS
from ..gemm.regions import region_table
from ..gemm.tile import tile_address
from ..machine.lines import LINE, whole_lines
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.ir import compute_code, storage_code
from ..simd.register_tiles import RegisterTile, sized_tile
from .costs import blocks
from .tasks import CHUNK, FIELDS, make_kernel

__all__ = ["plan", "workspace"]


def _layout(problem: ConvProblem, device: DeviceInfo) -> tuple[RegisterTile, dict[str, int]]:
    """Return the tile, block sizes and where a worker's workspace holds what."""
    size = problem.compute_itemsize
    tile = sized_tile(device, size)
    channels, columns = blocks(problem, device)
    rows = channels * math.prod(problem.kernel_size)
    # A line more than a power of two, or the rows of a tile would fall into one set of L1.
    pitch = whole_lines(-(-columns // tile.nr) * tile.nr * size) + LINE
    memory = Workspace()
    memory.add("rows", (rows * CHUNK + tile.lanes) * size)
    memory.add("columns", CHUNK * pitch)
    memory.add("sums", rows * pitch)
    memory.add("totals", rows * pitch)
    memory.add("zeros", tile.mr * size)
    memory.add("segments", CHUNK * SEGMENT_WORDS * 8)
    memory.add("chunks", CHUNK * CHUNK_WORDS * 8)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    fields = {
        "channel_block": channels, "channel_blocks": -(-c // channels), "part_columns": columns,
        "parts": -(-k // columns), "sums_pitch": pitch,
    }  # fmt: skip
    return tile, memory.fields | fields


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    fields = _layout(problem, device)[1]
    return fields["worker_bytes"] * _workers(problem, device, fields)


def _workers(problem: ConvProblem, device: DeviceInfo, fields: dict[str, int]) -> int:
    """Return the threads of a call: no more than there are tasks, as each has a workspace."""
    return min(_tasks(problem, fields), worth_helpers(problem.macs, device.threads))


def _tasks(problem: ConvProblem, fields: dict[str, int]) -> int:
    return problem.groups * fields["channel_blocks"] * fields["parts"]


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel; the binding's `out_strides` are the gradient's, its weight is dense."""
    code = storage_code(problem.dtype)
    tile, fields = _layout(problem, device)
    table, _ = region_table(problem, whole(problem), math.prod(problem.out_size))
    workers = _workers(problem, device, fields)
    fields |= {
        "tile": tile_address(tile, compute_code(code), adjacent=CHUNK),
        "region": table.ctypes.data,
    }
    key = (tile.mr, tile.nv, tile.lanes, code)
    kernel = compile_kernel(make_kernel(tile, code), "weight_grad", *key)
    tasks = _tasks(problem, fields)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in FIELDS}),
        stages=(Stage(kernel, tasks),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=1,
        pack_stage=None,
        pack_bytes=0,
        packed_size=0,
        packing="grad_output",
        tables=(table,),
    )
