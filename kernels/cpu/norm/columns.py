"""Norms by statistics of the input, channels in the lanes: contiguous, or gathered.

Wins for images whose channels are contiguous, a statistic's elements far from each other. Pixels
are split into chunks, whose number depends on sizes alone, so that sums are the same bits for any
number of threads::

    task = chunk of pixels                    stage 1: sums of each channel (moments.py)
      for vector of channels, for pixel: sum d, sum d * d
    task = some channels, or an image         stage 2: adds up the chunks in their order
      for channel: mean, variance
      for group: those of its channels together
      for channel: factor and bias
    task = chunk of pixels                    stage 3: out = (x - mean) * factor + bias

A batch norm counts the pixels of all images as those of one. Sums of a chunk are 16 bytes a channel
in the scratch memory, for the 8 KiB or more that it was read from.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.norm_problem import NormProblem
from fastconv.contract.spec import DeviceInfo

from ..common.collapse import Axis, collapse, name_loops
from ..common.runs import make_run_access
from ..machine.lines import whole_lines
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import fma, sub, to_double
from ..simd.intrinsics import add, load, load_scalar, splat, store, store_scalar
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from .costs import chunk_rows
from .moments import finish_moments
from .parameters import FoldedPlan, fold_taken
from .rules import AFFINE
from .scale_channels import make_scale_pixels

__all__ = ["plan", "workspace"]

#: Channels of a task that adds up chunks: whole vectors.
_CHANNELS = 64

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of an image's pixels
    "block",  # pixels of a chunk
    "blocks",  # chunks along the last axis,
    "chunks",  # and of an image
    "xo",  # bytes between images
    "yo",
    "pitch",  # channels between rows of sums: whole vectors
    "part",  # channels of a task of the second stage
    "parts",
    "own",  # channels of one statistic
    "statistics",
    "told",  # whether they are an output
    "folded_at",  # means, factors and biases behind the sums
)
_REALS = ("eps", "share")  # and one over the pixels of an image
view = as_record(FIELDS, _REALS)


@numba.njit
def _chunk_places(g: Any, number: int) -> tuple[int, int, int, int]:
    """Return the image of a chunk, where its first pixel is in input and output, and its pixels."""
    image, chunk = number // g.chunks, number % g.chunks
    first, rest = chunk % g.blocks * g.block, chunk // g.blocks
    r, rest = rest % g.r, rest // g.r
    q, p = rest % g.q, rest // g.q
    x = image * g.xo + p * g.xp + q * g.xq + r * g.xr + first * g.xs
    y = image * g.yo + p * g.yp + q * g.yq + r * g.yr + first * g.ys
    return image, x, y, min(g.block, g.s - first)


@functools.cache
def _make_sums(unit: int, lanes: int, storage: int) -> Any:
    """Return the task of the first stage."""
    read, _, read_end, _ = make_run_access(unit, lanes, storage)
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32

    @numba.njit
    def sum_vector(g: Any, x: int, first: int, pixels: int, count: int, to: int) -> None:
        zero = as_compute(0.0)
        k = to_double(read_end(first, g.xc, count, zero))
        sum1, sum2 = splat(0.0, lanes), splat(0.0, lanes)
        for i in range(pixels):
            at = x + i * g.xs
            value = read(at, g.xc) if count >= lanes else read_end(at, g.xc, count, zero)
            d = sub(to_double(value), k)
            sum1, sum2 = add(sum1, d), fma(d, d, sum2)
        store(to, sum1, F64)
        store(to + g.pitch * 8, sum2, F64)

    def task(
        geometry: int, x: int, folded: int, statistics: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, place, _, pixels = _chunk_places(g, number)
        to = workspace + number * g.pitch * 16
        for c in range(0, g.c, lanes):
            first = x + image * g.xo + c * g.xc
            count = min(lanes, g.c - c)
            sum_vector(g, x + place + c * g.xc, first, pixels, count, to + c * 8)

    return task


@functools.cache
def _make_moments(lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions that add up chunks and find means and variances.

    They replace the sums of the first chunk.
    """

    @numba.njit
    def add_chunks(g: Any, sums: int, first: int, last: int) -> None:
        for c in range(first, last, lanes):
            for at in range(sums + c * 8, sums + (c + 2 * g.pitch) * 8, g.pitch * 8):
                total = load(at, F64, lanes)
                for chunk in range(1, g.chunks):
                    total = add(total, load(at + chunk * g.pitch * 16, F64, lanes))
                store(at, total, F64)

    @numba.njit
    def find_moments(g: Any, x: int, sums: int, first: int, last: int) -> None:
        for c in range(first, last):
            at = sums + c * 8
            k = np.float64(load_scalar(x + c * g.xc, storage))
            sum1, sum2 = load_scalar(at, F64), load_scalar(at + g.pitch * 8, F64)
            mean, variance = finish_moments(k, sum1, sum2, g.share)
            store_scalar(at, mean, F64)
            store_scalar(at + g.pitch * 8, variance, F64)

    return add_chunks, find_moments


@numba.njit
def _join(g: Any, sums: int, c: int) -> tuple[float, float]:
    """Return the statistics of some channels together, which hold as many elements each."""
    mean = 0.0
    for at in range(sums + c * 8, sums + (c + g.own) * 8, 8):
        mean += load_scalar(at, F64)
    mean /= g.own
    variance = 0.0
    for at in range(sums + c * 8, sums + (c + g.own) * 8, 8):
        away = load_scalar(at, F64) - mean
        variance += load_scalar(at + g.pitch * 8, F64) + away * away
    return mean, variance / g.own


@functools.cache
def _make_fold(lanes: int, storage: int) -> Any:
    """Return the task of the second stage."""
    compute = compute_code(storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]
    add_chunks, find_moments = _make_moments(lanes, storage)

    @numba.njit
    def fold(g: Any, parameters: int, to: int, c: int, mean: float, deviation: float) -> None:
        centre = as_compute(mean)
        left = (mean - np.float64(centre)) / deviation
        for i in range(c, c + g.own):
            weight = np.float64(load_scalar(parameters + i * size, compute))
            bias = np.float64(load_scalar(parameters + (g.c + i) * size, compute))
            store_scalar(to + i * size, centre, compute)
            store_scalar(to + (g.c + i) * size, as_compute(weight / deviation), compute)
            store_scalar(to + (2 * g.c + i) * size, as_compute(bias - left * weight), compute)

    def task(
        geometry: int, x: int, parameters: int, statistics: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, first = number // g.parts, number % g.parts * g.part
        last = min(g.c, first + g.part)
        sums = workspace + image * g.chunks * g.pitch * 16
        folded = workspace + g.folded_at + image * 3 * g.c * size
        add_chunks(g, sums, first, last)
        find_moments(g, x + image * g.xo, sums, first, last)
        for c in range(first, last, g.own):
            mean, variance = _join(g, sums, c)
            if g.told:
                index = (image * g.c + c) // g.own
                store_scalar(statistics + index * 8, mean, F64)
                store_scalar(statistics + (g.statistics + index) * 8, variance, F64)
            fold(g, parameters, folded, c, mean, math.sqrt(variance + g.eps))

    return task


@functools.cache
def _make_scale(unit: int, lanes: int, storage: int) -> Any:
    """Return the task of the third stage."""
    scale_pixels = make_scale_pixels(AFFINE, unit, lanes, storage)
    size = ITEMSIZE[compute_code(storage)]

    def task(
        geometry: int, x: int, parameters: int, statistics: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, source, target, pixels = _chunk_places(g, number)
        folded = workspace + g.folded_at + image * 3 * g.c * size
        scale_pixels(g, x + source, out + target, pixels, folded)

    return task


def _images(problem: NormProblem) -> int:
    """Return how many images have statistics of their own."""
    return 1 if problem.op == "batch_norm" else problem.batch


def _pitch(problem: NormProblem, device: DeviceInfo) -> int:
    lanes = device.lanes(problem.compute_itemsize)
    return -(-problem.channels // lanes) * lanes


def _axes(problem: NormProblem, x: tuple[int, ...], y: tuple[int, ...]) -> list[Axis]:
    """Return the axes of an image's pixels: at least one."""
    sizes, x, y = (problem.x_shape[0], *problem.x_shape[2:]), (x[0], *x[2:]), (y[0], *y[2:])
    if problem.op != "batch_norm":
        sizes, x, y = sizes[1:], x[1:], y[1:]
    return collapse(sizes, x, y) or [(1, (0, 0))]


def _bytes(problem: NormProblem, device: DeviceInfo, chunks: int) -> tuple[int, int]:
    """Return where the folded rows are, and the bytes of all."""
    images = _images(problem)
    at = whole_lines(images * chunks * _pitch(problem, device) * 16)
    return at, at + images * 3 * problem.channels * problem.compute_itemsize


def workspace(problem: NormProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call on arrays without gaps."""
    pixels = math.prod(problem.in_size) * problem.batch // max(1, _images(problem))
    return _bytes(problem, device, -(-pixels // chunk_rows(problem)))[1]


def plan(problem: NormProblem, binding: ArrayBinding, device: DeviceInfo) -> FoldedPlan:
    """Prepare the kernel for one problem."""
    x, y = binding.strides[0], binding.strides[len(problem.inputs)]
    axes, item, images = _axes(problem, x, y), problem.itemsize, _images(problem)
    block = chunk_rows(problem)
    blocks = -(-axes[-1][0] // block)
    chunks = blocks * math.prod(size for size, _ in axes[:-1])
    folded_at, total = _bytes(problem, device, chunks)
    own = problem.channels // problem.groups if problem.op == "group_norm" else 1
    part = problem.channels if own > 1 else _CHANNELS
    parts = -(-problem.channels // part)
    values = name_loops("pqrs", axes, "xy") | {
        "c": problem.channels, "xc": x[1], "yc": y[1], "xo": x[0], "yo": y[0], "block": block,
        "blocks": blocks, "chunks": chunks, "pitch": _pitch(problem, device),
        "part": part, "parts": parts, "own": own,
        "statistics": problem.statistics, "told": len(problem.outputs) - 1,
        "folded_at": folded_at,
    }  # fmt: skip
    reals = {"eps": problem.eps, "share": 1.0 / math.prod(size for size, _ in axes)}
    unit = int(problem.channels == 1 or (x[1] == item and y[1] == item))
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    key = (unit, lanes, storage)
    stages = (
        ArrayStage(compile_kernel(_make_sums(*key), "norm_sums", *key), images * chunks),
        ArrayStage(
            compile_kernel(_make_fold(lanes, storage), "norm_fold", lanes, storage), images * parts
        ),
        ArrayStage(compile_kernel(_make_scale(*key), "norm_scale", *key), images * chunks),
    )
    made = ArrayPlan(
        record=array_record(FIELDS, values | reals, _REALS),
        stages=stages,
        workers=worth_helpers(problem.flops, device.threads),
        workspace_bytes=total,
        flush=binding.flush,
    )
    names = tuple(operand.name for operand in problem.inputs[1:])
    return FoldedPlan(made, names, fold_taken(problem))
