"""Maps of any order to rows of pixels with their channels side by side, and back."""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..runtime.record import as_record
from ..simd.intrinsics import (
    load,
    load_gather,
    load_masked,
    load_scalar,
    range_mask,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import ITEMSIZE, compute_code
from ..simd.transposes import transpose_masked

__all__ = ["COPY_FIELDS", "COPY_PIXELS", "make_copy_run", "make_copy_task", "make_store_run"]

#: Pixels that a task of the copy brings into order.
COPY_PIXELS = 256

#: Fields of a geometry that tell how an input is copied.
COPY_FIELDS = (
    "channels",  # of the input, over all groups
    "copied",  # 1 where a copy of the input is sampled
    "copy_blocks",  # tasks of an image's copy
    "in_run",  # pixels of the input that lie one behind the other
    "sampled_n",  # bytes between images of what is sampled
)


@functools.cache
def make_copy_run(lanes: int, storage: int) -> Any:
    """Return a function that brings the channels of some pixels side by side.

    Channels lie `across` bytes apart and pixels `along` bytes; rows of the copy `pitch` bytes.
    """
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def copy_run(
        source: int, across: int, along: int, channels: int, pixels: int, target: int, pitch: int
    ) -> None:
        for c in range(0, channels, lanes):
            width = min(lanes, channels - c)
            mask = range_mask(0, width)
            if along == item:
                for p in range(0, pixels, lanes):
                    transpose_masked(
                        source + c * across + p * item, across, width, min(lanes, pixels - p),
                        target + p * pitch + c * size, pitch, storage, compute, lanes,
                    )  # fmt: skip
                continue
            for p in range(pixels):
                at, to = source + c * across + p * along, target + p * pitch + c * size
                if across == item:
                    store_masked(to, load_masked(at, mask, storage, lanes), mask, compute)
                else:
                    store_masked(to, load_gather(at, across, mask, storage, lanes), mask, compute)

    return copy_run


@functools.cache
def make_store_run(lanes: int, storage: int) -> Any:
    """Return a function that brings rows of pixels to maps: the other way round.

    A row's last vector is read whole.
    """
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def store_rows(
        source: int, pitch: int, pixels: int, channels: int, out: int, along: int
    ) -> None:
        for pixel in range(pixels):
            for c in range(0, channels, lanes):
                value = load(source + pixel * pitch + c * size, compute, lanes)
                to = out + pixel * along + c * item
                if channels - c >= lanes:
                    store(to, value, storage)
                else:
                    store_masked(to, value, range_mask(0, channels - c), storage)

    @numba.njit
    def store_run(
        source: int, pitch: int, pixels: int, channels: int, out: int, across: int, along: int
    ) -> None:
        if across == item:
            store_rows(source, pitch, pixels, channels, out, along)
        elif along == item:
            for c in range(0, channels, lanes):
                for pixel in range(0, pixels, lanes):
                    transpose_masked(
                        source + pixel * pitch + c * size, pitch, min(lanes, pixels - pixel),
                        min(lanes, channels - c), out + c * across + pixel * item, across, compute,
                        storage, lanes,
                    )  # fmt: skip
        else:
            for pixel in range(pixels):
                for c in range(channels):
                    value = load_scalar(source + pixel * pitch + c * size, compute)
                    store_scalar(out + pixel * along + c * across, value, storage)

    return store_run


@functools.cache
def make_copy_task(fields: tuple[str, ...], lanes: int, storage: int, number: int = 0) -> Any:
    """Return the task that copies some pixels of an image with their channels side by side.

    Its record has `COPY_FIELDS`. The image is a call's array with that number, the first or the
    second.
    """
    view = as_record(fields)
    size, most = ITEMSIZE[compute_code(storage)], COPY_PIXELS
    copy_run = make_copy_run(lanes, storage)

    def task(
        geometry: int, first: int, second: int, third: int, fourth: int, out: int,
        workspace: int, which: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        x = second if number else first
        image, pixel = which // g.copy_blocks, which % g.copy_blocks * most
        total, pitch = g.ih * g.iw, g.channels * size
        stop = min(pixel + most, total)
        target = workspace + image * total * pitch
        while pixel < stop:
            row = pixel // g.in_run
            column = pixel - row * g.in_run
            length = min(stop - pixel, g.in_run - column)
            source = x + image * g.xn + row * g.xh + column * g.xw
            copy_run(source, g.xc, g.xw, g.channels, length, target + pixel * pitch, pitch)
            pixel += length

    return task
