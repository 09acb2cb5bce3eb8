"""Gradients of norms for the input that statistics are taken from, channels in the lanes.

What is computed is what grad_runs.py computes. Wins where channels are contiguous::

    task = a vector of channels over all images (batch norm), or an image (group norm)
      for vector of channels, for pixel: sums of d, d * d, g and d * g in float64
      for group: mean, 1 / sqrt(variance + eps), and the two means of the gradient
      for vector of channels, for pixel: grad = g * slope + (x - mean) * back + shift

Sums and the four numbers of each channel are in the worker's scratch memory. A task reads whole
lines, one of each pixel, and no two tasks share one where channels fill lines.
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
from .moments import finish_moments
from .parameters import GradientPlan

__all__ = ["plan", "workspace"]

FIELDS = (
    *"p q r s xp xq xr xs gp gq gr gs yp yq yr ys".split(),  # axes of an image's pixels
    "xo",  # bytes between images
    "go",
    "yo",
    "gc",  # bytes between channels of the output's gradient
    "part",  # channels of a task
    "parts",
    "pitch",  # channels between rows of the scratch memory
    "own",  # channels of one statistic
    "folded_at",  # the numbers of each channel behind its sums
    "worker_bytes",
)
_REALS = ("eps", "share")  # and one over the pixels of an image
view = as_record(FIELDS, _REALS)


@functools.cache
def _make_access(unit: int, lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions that read and write a vector of channels, `count` being left."""
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)

    @numba.njit
    def take(at: int, step: int, count: int) -> Any:
        if count >= lanes:
            return read(at, step)
        return read_end(at, step, count, as_compute(0.0))

    @numba.njit
    def put(at: int, step: int, count: int, value: Any) -> None:
        if count >= lanes:
            write(at, step, value)
        else:
            write_end(at, step, count, value)

    return take, put


@functools.cache
def _make_passes(unit: int, lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions for a vector of channels: its sums, and its results."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    take, put = _make_access(unit, lanes, storage)

    @numba.njit
    def sums(g: Any, x: int, grads: int, count: int, to: int) -> None:
        k = to_double(take(x, g.xc, count))
        sum1, sum2 = splat(0.0, lanes), splat(0.0, lanes)
        sum3, sum4 = splat(0.0, lanes), splat(0.0, lanes)
        for p in range(g.p):
            for q in range(g.q):
                for r in range(g.r):
                    source = x + p * g.xp + q * g.xq + r * g.xr
                    other = grads + p * g.gp + q * g.gq + r * g.gr
                    for s in range(g.s):
                        d = sub(to_double(take(source + s * g.xs, g.xc, count)), k)
                        value = to_double(take(other + s * g.gs, g.gc, count))
                        sum1, sum2 = add(sum1, d), fma(d, d, sum2)
                        sum3, sum4 = add(sum3, value), fma(d, value, sum4)
        store(to, sum1, F64)
        store(to + g.pitch * 8, sum2, F64)
        store(to + 2 * g.pitch * 8, sum3, F64)
        store(to + 3 * g.pitch * 8, sum4, F64)

    @numba.njit
    def apply(g: Any, x: int, grads: int, out: int, count: int, folded: int) -> None:
        row = g.pitch * size
        centre, slope = load(folded, compute, lanes), load(folded + row, compute, lanes)
        back, shift = load(folded + 2 * row, compute, lanes), load(folded + 3 * row, compute, lanes)
        for p in range(g.p):
            for q in range(g.q):
                for r in range(g.r):
                    source = x + p * g.xp + q * g.xq + r * g.xr
                    other = grads + p * g.gp + q * g.gq + r * g.gr
                    target = out + p * g.yp + q * g.yq + r * g.yr
                    for s in range(g.s):
                        d = sub(take(source + s * g.xs, g.xc, count), centre)
                        value = take(other + s * g.gs, g.gc, count)
                        value = fma(value, slope, fma(d, back, shift))
                        put(target + s * g.ys, g.yc, count, value)

    return sums, apply


@functools.cache
def _make_fold(storage: int) -> Any:
    """Return a function for the four numbers of each channel of a group."""
    compute = compute_code(storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]

    @numba.njit
    def fold(g: Any, x: int, weight: int, sums: int, folded: int) -> None:
        row, mean, variance, whole, along = g.pitch * 8, 0.0, 0.0, 0.0, 0.0
        for c in range(g.own):  # means and variances replace the first two sums
            at = sums + c * 8
            k = np.float64(load_scalar(x + c * g.xc, storage))
            first, second = load_scalar(at, F64), load_scalar(at + row, F64)
            own_mean, own_variance = finish_moments(k, first, second, g.share)
            store_scalar(at, own_mean, F64)
            store_scalar(at + row, own_variance, F64)
            mean += own_mean / g.own
        for c in range(g.own):
            at = sums + c * 8
            k = np.float64(load_scalar(x + c * g.xc, storage))
            away = load_scalar(at, F64) - mean
            variance += (load_scalar(at + row, F64) + away * away) / g.own
            given = np.float64(load_scalar(weight + c * size, compute))
            three, four = load_scalar(at + 2 * row, F64), load_scalar(at + 3 * row, F64)
            whole += given * three
            along += given * (four - (mean - k) * three)
        share, factor = g.share / g.own, 1.0 / math.sqrt(variance + g.eps)
        centre, back = as_compute(mean), -factor * factor * factor * along * share
        shift = -factor * whole * share - back * (mean - np.float64(centre))
        for c in range(g.own):
            at = folded + c * size
            slope = factor * np.float64(load_scalar(weight + c * size, compute))
            store_scalar(at, centre, compute)
            store_scalar(at + g.pitch * size, as_compute(slope), compute)
            store_scalar(at + 2 * g.pitch * size, as_compute(back), compute)
            store_scalar(at + 3 * g.pitch * size, as_compute(shift), compute)

    return fold


@functools.cache
def _make_kernel(unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    sums, apply = _make_passes(unit, lanes, storage)
    fold, size = _make_fold(storage), ITEMSIZE[compute_code(storage)]

    def task(
        geometry: int, x: int, weights: int, grads: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, first = number // g.parts, number % g.parts * g.part
        channels = min(g.part, g.c - first)
        source, other = x + image * g.xo + first * g.xc, grads + image * g.go + first * g.gc
        target = out + image * g.yo + first * g.yc
        memory = workspace + worker * g.worker_bytes
        folded = memory + g.folded_at
        for c in range(0, channels, lanes):
            sums(g, source + c * g.xc, other + c * g.gc, min(lanes, channels - c), memory + c * 8)
        for c in range(0, channels, g.own):
            weight = weights + (first + c) * size
            fold(g, source + c * g.xc, weight, memory + c * 8, folded + c * size)
        for c in range(0, channels, lanes):
            apply(
                g, source + c * g.xc, other + c * g.gc, target + c * g.yc,
                min(lanes, channels - c), folded + c * size,
            )  # fmt: skip

    return task


def _part(problem: NormProblem, device: DeviceInfo) -> tuple[int, int]:
    """Return the channels of a task, and those between rows of its scratch memory."""
    lanes = device.lanes(problem.compute_itemsize)
    whole = -(-problem.channels // lanes) * lanes
    alone = problem.kind == "batch_norm" or problem.groups == problem.channels
    return (lanes, lanes) if alone else (problem.channels, whole)


def _bytes(problem: NormProblem, device: DeviceInfo) -> tuple[int, int]:
    """Return where a worker's folded rows are, and the bytes of all it has."""
    pitch = _part(problem, device)[1]
    at = whole_lines(4 * pitch * 8)
    return at, at + whole_lines(4 * pitch * problem.compute_itemsize)


def workspace(problem: NormProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: sums and numbers of a task for each thread."""
    return _bytes(problem, device)[1] * worth_helpers(problem.flops, device.threads)


def _axes(problem: NormProblem, *strides: tuple[int, ...]) -> list[Axis]:
    """Return the axes of an image's pixels; of a batch norm those of all images."""
    shape = problem.x_shape
    if problem.kind == "batch_norm":
        every = [(steps[0], *steps[2:]) for steps in strides]
        axes = collapse((shape[0], *shape[2:]), *every)
    else:
        axes = collapse(shape[2:], *(steps[2:] for steps in strides))
    return axes or [(1, (0, 0, 0))]


def plan(problem: NormProblem, binding: ArrayBinding, device: DeviceInfo) -> GradientPlan:
    """Prepare the kernel for one problem."""
    last, item = len(problem.inputs), problem.itemsize
    x, grads, y = (binding.strides[place] for place in (0, last - 1, last))
    axes = _axes(problem, x, grads, y)
    part, pitch = _part(problem, device)
    parts = -(-problem.channels // part)
    folded_at, worker_bytes = _bytes(problem, device)
    own = problem.channels // problem.groups if problem.kind == "group_norm" else 1
    values = name_loops("pqrs", axes, "xgy") | {
        "c": problem.channels, "xc": x[1], "gc": grads[1], "yc": y[1], "xo": x[0], "go": grads[0],
        "yo": y[0], "part": part, "parts": parts, "pitch": pitch, "own": own,
        "folded_at": folded_at, "worker_bytes": worker_bytes,
    }  # fmt: skip
    reals = {"eps": problem.eps, "share": 1.0 / math.prod(size for size, _ in axes)}
    unit = int(problem.channels == 1 or {x[1], grads[1], y[1]} == {item})
    key = (unit, device.lanes(problem.compute_itemsize), storage_code(problem.dtype))
    kernel = compile_kernel(_make_kernel(*key), "norm_grad_columns", *key)
    images = 1 if problem.kind == "batch_norm" else problem.batch
    made = ArrayPlan(
        record=array_record(FIELDS, values | reals, _REALS),
        stages=(ArrayStage(kernel, images * parts),),
        workers=worth_helpers(problem.flops, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )
    return GradientPlan(made, problem)
