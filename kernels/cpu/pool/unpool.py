"""Samples brought to places of a larger channel, added up there, or gathered from them.

Places are anywhere, so that they are met one at a time; a task owns whole channels, and within a
channel samples come in their order, so that neither sums nor the last of several samples at a place
depend on threads::

    task = a channel of an image, or a cache line of channels where they are channels last
      clear the channel
      for sample: store it at its place, or add it to what is there

An element is a load of the place, one of the sample, and a store. Sums of halves are made in
float32, in a channel of the worker's own, and rounded once. A place outside the channel is
refused before a call; what somebody writes into the indices meanwhile is passed over.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.spec import DeviceInfo
from fastconv.contract.unpool_problem import UnpoolProblem

from ...axes import name_axes
from ..common.memory_order import is_contiguous
from ..machine.lines import LINE
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import (
    get_word,
    load_scalar,
    range_mask,
    splat,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from .rules import real_type

__all__ = ["plan", "workspace"]

FIELDS = (
    "piece",  # channels of a task
    "pieces",
    "plane",  # samples of a larger channel
    "step",  # bytes between them, 0 where they are not in line
    "worker_bytes",
)
view = as_record(FIELDS)


@numba.njit
def _find(base: int, place: int, step: int, height: int, width: int, strides: Any) -> int:
    """Return the address of a channel's place."""
    if step:
        return base + place * step
    row, w = place // width, place % width
    return base + row // height * strides[0] + row % height * strides[1] + w * strides[2]


@functools.cache
def _make_clear(lanes: int, storage: int) -> Any:
    """Return a function that clears the larger channels of a task."""
    item, zero = ITEMSIZE[storage], real_type(compute_code(storage))(0.0)

    @numba.njit
    def clear(g: Any, out: int, channels: int) -> None:
        if channels == 1 and g.step == item:
            for place in range(0, g.plane // lanes * lanes, lanes):
                store(out + place * item, splat(zero, lanes), storage)
            left = range_mask(0, g.plane % lanes)
            at = out + g.plane // lanes * lanes * item
            store_masked(at, splat(zero, lanes), left, storage)
            return
        for place in range(g.plane):
            at = _find(out, place, g.step, g.oh, g.ow, (g.yd, g.yh, g.yw))
            for c in range(channels):
                store_scalar(at + c * g.yc, zero, storage)

    return clear


@functools.cache
def _make_bring(add: int, lanes: int, storage: int) -> Any:
    """Return the task that brings samples to their places where they belong."""
    clear = _make_clear(lanes, storage)

    @numba.njit
    def bring(g: Any, x: int, places: int, out: int) -> None:
        place = get_word(places, 0)
        if 0 <= place < g.plane:
            at = _find(out, place, g.step, g.oh, g.ow, (g.yd, g.yh, g.yw))
            value = load_scalar(x, storage)
            if add:
                value += load_scalar(at, storage)
            store_scalar(at, value, storage)

    def task(
        geometry: int, x: int, places: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, first = number // g.pieces, number % g.pieces * g.piece
        channels = min(g.piece, g.c - first)
        source = x + image * g.xn + first * g.xc
        numbers = places + image * g.rn + first * g.rc
        target = out + image * g.yn + first * g.yc
        clear(g, target, channels)
        for d in range(g.id):
            for h in range(g.ih):
                for w in range(g.iw):
                    at = source + d * g.xd + h * g.xh + w * g.xw
                    where = numbers + d * g.rd + h * g.rh + w * g.rw
                    for c in range(channels):
                        bring(g, at + c * g.xc, where + c * g.rc, target + c * g.yc)

    return task


@functools.cache
def _make_add_up(lanes: int, storage: int) -> Any:
    """Return the task that adds halves up in float32, a channel at a time."""
    zero = np.float32(0.0)
    code = compute_code(storage)

    @numba.njit
    def round_plane(g: Any, sums: int, out: int) -> None:
        for place in range(g.plane):
            at = _find(out, place, g.step, g.oh, g.ow, (g.yd, g.yh, g.yw))
            store_scalar(at, load_scalar(sums + place * 4, code), storage)

    def task(
        geometry: int, x: int, places: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, channel = number // g.c, number % g.c
        source, numbers = (
            x + image * g.xn + channel * g.xc,
            places + image * g.rn + channel * g.rc,
        )
        sums = workspace + worker * g.worker_bytes
        for place in range(0, g.plane, lanes):
            store(sums + place * 4, splat(zero, lanes), code)
        for d in range(g.id):
            for h in range(g.ih):
                for w in range(g.iw):
                    place = get_word(numbers + d * g.rd + h * g.rh + w * g.rw, 0)
                    if 0 <= place < g.plane:
                        at = sums + place * 4
                        value = load_scalar(source + d * g.xd + h * g.xh + w * g.xw, storage)
                        store_scalar(at, load_scalar(at, code) + value, code)
        round_plane(g, sums, out + image * g.yn + channel * g.yc)

    return task


@functools.cache
def _make_fetch(storage: int) -> Any:
    """Return the task that gathers what lies at places."""
    zero = real_type(compute_code(storage))(0.0)

    @numba.njit
    def fetch(g: Any, x: int, places: int, out: int) -> None:
        place, value = get_word(places, 0), zero
        if 0 <= place < g.plane:
            at = _find(x, place, g.step, g.ih, g.iw, (g.xd, g.xh, g.xw))
            value = load_scalar(at, storage)
        store_scalar(out, value, storage)

    def task(
        geometry: int, x: int, places: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        image, first = number // g.pieces, number % g.pieces * g.piece
        channels = min(g.piece, g.c - first)
        source = x + image * g.xn + first * g.xc
        numbers = places + image * g.rn + first * g.rc
        target = out + image * g.yn + first * g.yc
        for d in range(g.od):
            for h in range(g.oh):
                for w in range(g.ow):
                    where = numbers + d * g.rd + h * g.rh + w * g.rw
                    at = target + d * g.yd + h * g.yh + w * g.yw
                    for c in range(channels):
                        fetch(g, source + c * g.xc, where + c * g.rc, at + c * g.yc)

    return task


def _adds_halves(problem: UnpoolProblem) -> bool:
    return problem.op == "max_pool_grad" and problem.itemsize < problem.compute_itemsize


def _worker_bytes(problem: UnpoolProblem, lanes: int) -> int:
    """Return the bytes of a channel of sums, and room for a vector; none where none is needed."""
    if not _adds_halves(problem):
        return 0
    return (math.prod(problem.out_size) + lanes) * 4 // LINE * LINE + LINE


def workspace(problem: UnpoolProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    lanes = device.lanes(problem.compute_itemsize)
    return _worker_bytes(problem, lanes) * worth_helpers(problem.flops, device.threads)


def plan(problem: UnpoolProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    x, places, out = binding.strides
    large = x if problem.op == "max_unpool_grad" else out
    size = problem.x_shape[2:] if problem.op == "max_unpool_grad" else problem.out_size
    # Channels that share a cache line are one thread's.
    together = large[1] == problem.itemsize and not _adds_halves(problem)
    piece = LINE // problem.itemsize if together else 1
    pieces = -(-problem.channels // piece)
    values: dict[str, float] = {
        "n": problem.batch, "c": problem.channels, "piece": piece, "pieces": pieces,
        "plane": math.prod(size), "worker_bytes": _worker_bytes(problem, lanes),
        "step": large[-1] if is_contiguous(size, large[2:], large[-1]) else 0,
    }  # fmt: skip
    for letter, strides in zip("xry", (x, places, out), strict=True):
        values |= name_strides(letter, strides)
    values |= name_axes("i", problem.x_shape[2:], 1) | name_axes("o", problem.out_shape[2:], 1)
    if problem.op == "max_unpool_grad":
        kernel = compile_kernel(_make_fetch(storage), "pool_fetch", storage)
    elif _adds_halves(problem):
        kernel = compile_kernel(_make_add_up(lanes, storage), "pool_add_up", lanes, storage)
    else:
        add = int(problem.op == "max_pool_grad")
        function = _make_bring(add, lanes, storage)
        kernel = compile_kernel(function, "pool_bring", add, lanes, storage)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, problem.batch * pieces),),
        workers=worth_helpers(problem.flops, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )
