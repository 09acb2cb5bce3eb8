"""Problems of which one size or two are far beyond what anyone computes, and none is absurd.

Every argument is at its extreme in turn, and along every axis, while no operand reaches 2**47
bytes. Nothing is ever computed on them: they are for what plans.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, cycle, product
from typing import Any

from fastconv.contract.errors import ShapeError
from fastconv.contract.problem import DTYPES, LAYOUTS, ConvProblem

MOST_BYTES = 2**47
LENGTHS = (10**4, 10**7, 2**31, 2**40)
#: In and out channels, groups.
CHANNELS = ((1, 1, 1), (3, 3, 3), (4, 4, 1), (64, 64, 1))
_SMALL = {1: 50, 2: 20, 3: 9}


def _spatial(length: int) -> Iterator[dict[str, Any]]:
    """Changes of one axis, from what is usual for (in size, kernel, stride, dilation, padding)."""
    yield {"in_size": length}
    yield {"in_size": length, "kernel_size": 64}
    yield {"in_size": length, "kernel_size": 31, "stride": 3}
    yield {"in_size": length, "kernel_size": 400, "stride": 160}
    yield {"in_size": length, "kernel_size": 1009, "dilation": 7}
    yield {"in_size": length, "kernel_size": length // 2}
    yield {"in_size": length, "kernel_size": length // 2 + 1, "stride": 97}
    yield {"in_size": length, "stride": length // 8}
    yield {"in_size": length, "dilation": length // 4}
    yield {"padding": (length, length)}
    yield {"padding": (length, length), "dilation": length}
    yield {"padding": (length, 0), "dilation": length // 2}
    yield {"padding": (length, length + 3), "stride": length // 9}
    yield {"padding": (length, length), "kernel_size": length}
    yield {"padding": (length, length), "kernel_size": 40, "dilation": length // 100}


def _changed(ndim: int, axis: int, changes: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Arguments of a problem whose one axis is changed."""
    usual = {"in_size": _SMALL[ndim], "kernel_size": 3, "stride": 1, "dilation": 1,
             "padding": (1, 1)}  # fmt: skip
    return {
        name: tuple(changes.get(name, value) if i == axis else value for i in range(ndim))
        for name, value in usual.items()
    }


def _counts(length: int) -> Iterator[dict[str, int]]:
    """Changes of the batch, the channels and the groups."""
    yield {"batch": length}
    yield {"in_channels": 4 * length}
    yield {"out_channels": 4 * length}
    yield {"in_channels": 4 * length, "out_channels": 4 * length, "groups": 4 * length}
    yield {"in_channels": 8 * length, "out_channels": 4 * length, "groups": 4 * length}
    yield {"in_channels": 4 * length, "out_channels": 8 * length, "groups": 4}


def _arguments() -> Iterator[dict[str, Any]]:
    for ndim, length in product((1, 2, 3), LENGTHS):
        for axis, changes in product(range(ndim), _spatial(length)):
            for channels in CHANNELS:
                names = ("in_channels", "out_channels", "groups")
                sizes = dict(zip(names, channels, strict=True))
                yield {"batch": 1, **sizes, **_changed(ndim, axis, changes)}
        for changes in _counts(length):
            usual = {"batch": 1, "in_channels": 4, "out_channels": 4}
            yield {**usual, **_changed(ndim, 0, {}), **changes}


def _large_planes() -> Iterator[dict[str, Any]]:
    """Two long axes, and kernels that are long along one of them."""
    sizes, kernels = (30, 600, 34_000, 10**7), ((40, 5), (3, 163), (4, 260), (31, 31))
    for in_size, kernel, channels in product(product(sizes, sizes), kernels, (1, 64)):
        pads = tuple((taps - 1, 0) for taps in kernel)
        yield {"batch": 1, "in_channels": channels, "out_channels": 1, "in_size": in_size,
               "kernel_size": kernel, "padding": pads}  # fmt: skip


def operand_bytes(problem: ConvProblem) -> int:
    """Bytes of input, weight and output."""
    shapes = (problem.x_shape, problem.weight_shape, problem.out_shape)
    return sum(math.prod(shape) for shape in shapes) * problem.itemsize


def extreme_problems(device: str, step: int = 1) -> Iterator[ConvProblem]:
    """The problems, element types and memory orders by turns; every `step`-th of them."""
    kinds = cycle(product(DTYPES, LAYOUTS))
    for number, arguments in enumerate(chain(_arguments(), _large_planes())):
        dtype, layout = next(kinds)
        if number % step:
            continue
        try:
            problem = ConvProblem(**arguments, dtype=dtype, layout=layout)
        except ShapeError:  # no convolution, or one that is refused for its size
            continue
        if operand_bytes(problem) < MOST_BYTES:
            yield replace(problem, device=device)
