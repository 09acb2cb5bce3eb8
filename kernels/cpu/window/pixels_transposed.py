"""Depthwise convolution of small maps and long signals: channels transposed into lanes and back.

Wins where vectors along a row would be part empty, or load more than they multiply: maps of 7 or 14
pixels, kernels nearly as large as the map, and signals (one row, so no input vector serves several
rows). The channels of a block are transposed in registers, so that pixel_strip.py can do the
arithmetic with all lanes full and without a product for any tap in the padding::

    task = image x vector of channels
      block = transposed input                     64 shuffles for 16 channels of 16 pixels
        with margins of zeros for tiles            (kernels too large to roll)
      for output depth, for strip or tile of pixels
        sums of the block
      output = transposed sums                     64 shuffles
      residual, other activations                  in place

The two transpositions cost some 25 cycles an output vector, as much as 25 taps. Both blocks lie
in L2.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import epilogue_fields, make_epilogue_vector
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.intrinsics import range_mask, splat, store
from ..simd.ir import (
    F64,
    I8,
    I64,
    ITEMSIZE,
    Codes,
    lane_mask,
    literals,
    load_vector,
    operand_codes,
    pointer,
    store_vector,
    transposed,
)
from ..simd.transposes import transpose_block
from .pixel_costs import block_shape, pixel_blocking
from .pixel_strip import FIELDS, pixel_table, view
from .pixel_weights import make_pixel_weights
from .row_calls import Band, call_parts

__all__ = ["plan", "workspace"]


@intrinsic(prefer_literal=True)
def _transpose_back(
    typingctx: Any, source: Any, target: Any, pitch: Any, rows: Any, bits: Any, shape: Any
) -> Any:
    """Write the columns of a square of vectors as rows: column i at ``target + i * pitch``.

    The first `rows` columns are written, of each the elements whose bit is set. `shape` is
    (lanes, compute code, storage code).
    """
    sizes = literals(shape.types) if isinstance(shape, types.BaseTuple) else None
    if sizes is None:
        return None
    lanes, compute, storage = sizes

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, step = pointer(builder, args[0], I8), lanes * ITEMSIZE[compute]
        places = [builder.gep(base, [I64(i * step)]) for i in range(lanes)]
        vectors = [load_vector(builder, place, lanes, compute) for place in places]
        mask = lane_mask(builder, args[4], lanes)
        none = ir.Constant(mask.type, None)
        for i, column in enumerate(transposed(builder, vectors)):
            exists = builder.icmp_signed("<", I64(i), args[3])
            flags = builder.select(exists, mask, none)
            address = builder.add(args[1], builder.mul(args[2], I64(i)))
            store_vector(builder, pointer(builder, address, I8), column, storage, flags)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 5), shape), codegen


@functools.cache
def _make_transposes(lanes: int, codes: Codes) -> tuple[Any, Any]:
    """Return the functions that fill a block from some channels and bring one back."""
    storage, stored, compute = codes.x, codes.out, codes.compute
    item, out_item, vector = ITEMSIZE[storage], ITEMSIZE[stored], lanes * ITEMSIZE[compute]
    zero = np.float64(0.0) if compute == F64 else np.float32(0.0)

    @numba.njit
    def fill(g: Any, x: int, channels: int, block: int) -> None:
        if g.block_stretch > g.stretch_length * vector:  # there are margins
            for at in range(0, g.block_bytes, vector):
                store(block + at, splat(zero, lanes), compute)
        for stretch in range(g.stretches):
            source = x + stretch * g.in_stretch
            target = block + g.first_at + stretch * g.block_stretch
            for p in range(0, g.stretch_length, lanes):
                mask = range_mask(0, min(lanes, g.stretch_length - p))
                transpose_block(
                    source + p * item, g.xc, channels, mask, target + p * vector, storage, compute,
                    lanes,
                )  # fmt: skip

    @numba.njit
    def bring_back(g: Any, sums: int, channels: int, out: int) -> None:
        pixels = g.od * g.oh * g.ow
        for p in range(0, pixels, lanes):
            _transpose_back(
                sums + p * vector, out + p * out_item, g.yc, channels,
                range_mask(0, min(lanes, pixels - p)), (lanes, compute, stored),
            )  # fmt: skip

    return fill, bring_back


@functools.cache
def _make_kernel(lanes: int, codes: Codes) -> Any:
    """Return the task: see the loop nest above."""
    out_item, size = ITEMSIZE[codes.out], ITEMSIZE[codes.compute]
    fill, bring_back = _make_transposes(lanes, codes)
    end_vector = make_epilogue_vector(lanes, codes.out, codes.compute)

    @numba.njit
    def apply_epilogue(
        g: Any, slopes: int, out: int, residual: int, channels: int, scratch: int
    ) -> None:
        """Apply residual and activation to some channels where they lie."""
        pixels = g.od * g.oh * g.ow
        for c in range(channels):
            for p in range(0, pixels, lanes):
                at = out + c * g.yc + p * out_item
                extra, count = residual + c * g.rc + p * out_item, min(lanes, pixels - p)
                end_vector(g, at, 0.0, at, extra, slopes + c * size, count, scratch)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        block = workspace + worker * g.worker_bytes
        sums, scratch = block + g.sums_at, block + g.scratch_at
        chunk, image = number % g.chunks, number // g.chunks
        c = chunk * lanes
        channels = min(lanes, g.groups - c)
        fill(g, x + image * g.xn + c * g.xc, channels, block)
        for od in range(g.od):
            d0 = od * g.sd - g.pd
            skipped = max(0, (g.dd - 1 - d0) // g.dd)
            depths = max(0, min(g.kd, (g.id - d0 + g.dd - 1) // g.dd) - skipped)
            source = block + g.first_at + (d0 + skipped * g.dd) * g.plane_bytes
            band = Band(
                x=source, weight=weight + (c * g.kd + skipped * lanes) * g.kh * g.kw * size,
                bias=bias + c * size, out=sums + od * g.to_d, h0=-g.ph, h_end=g.ih, rows=g.oh,
                depths=depths, groups=channels,
            )  # fmt: skip
            call_parts(g, geometry, 0, g.parts, band)
        y = out + image * g.yn + c * g.yc
        bring_back(g, sums, channels, y)
        if g.needs_epilogue:
            slopes, extra = bias + c * size + g.slopes_at, residual + image * g.rn + c * g.rc
            apply_epilogue(g, slopes, y, extra, channels, scratch)

    return task


def _layout(problem: ConvProblem, device: DeviceInfo) -> dict[str, int]:
    """Return how a block lies in memory."""
    blocking, shape = pixel_blocking(problem, device, True), block_shape(problem, device)
    assert blocking is not None and shape is not None  # else variants.py chose another
    vector, lanes = device.vector_bytes, device.lanes(problem.compute_itemsize)
    depth, height, width = (1, 1, *problem.in_size)[-3:]
    return {
        "in_d": (1, 1, *problem.dilation)[-3] * height * shape.pitch,
        "in_h": shape.pitch,
        "in_w": vector,
        "to_d": math.prod(problem.out_size[-2:]) * vector,
        "to_h": problem.out_size[-1] * vector,
        "to_w": vector,
        "unit": (1, *problem.dilation)[-2] if (1, *problem.kernel_size)[-2] > 1 else 1,
        "row_interleave": blocking.row_interleave,
        "stretches": depth * height if blocking.rows else 1,
        "stretch_length": width if blocking.rows else depth * height * width,
        "block_stretch": shape.pitch,
        "plane_bytes": height * shape.pitch,
        "first_at": shape.left,
        "block_bytes": shape.block,
        "chunks": -(-problem.groups // lanes),
        "sums_at": shape.block,
        "scratch_at": shape.block + shape.sums,
        "worker_bytes": shape.block + shape.sums + vector,
    }


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    return _layout(problem, device)["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for a problem and a binding for which variants.py chose this."""
    codes = operand_codes(problem)
    lanes = device.lanes(problem.compute_itemsize)
    blocking, fields = pixel_blocking(problem, device, True), _layout(problem, device)
    assert blocking is not None
    table, parts = pixel_table(problem, device, blocking, codes.compute, codes.compute)
    padded = fields["chunks"] * lanes
    workers = worth_helpers(problem.macs, device.threads)
    fields |= epilogue_fields(binding, direct=True) | parts
    fields |= {
        "in_stretch": problem.in_size[-1] * problem.itemsize,
    }
    kernel = compile_kernel(_make_kernel(lanes, codes), "blocks", lanes, *codes)
    order = (lanes, codes.weight)
    pack = compile_kernel(make_pixel_weights(*order), "pack_pixels", *order)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields.get(name, 0) for name in FIELDS}),
        stages=(Stage(kernel, problem.batch * fields["chunks"]),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, padded // lanes),
        pack_bytes=0,
        packed_size=math.prod(problem.kernel_size) * padded,
        packing=("pixels", *order),
        tables=(table,),
    )
