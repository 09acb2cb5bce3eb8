"""Pools over windows: the functional forms of one to three axes."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from fastconv.contract.pool_problem import pooled_size

from .array_ops import array_operator
from .dense import axes_of, fixed
from .drawing import Draw, plain
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

_DEFAULTS = {
    "batch": 1, "channels": 1, "size": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1,
    "ceil": False,
}  # fmt: skip
_BAD = {
    "kernel_size": "positive", "stride": "positive", "padding": "pads", "dilation": "positive",
    "input": "array", "out": "output",
}  # fmt: skip


def _shapes(ndim: int, params: Params) -> Shapes:
    batch = () if params["batch"] is None else (params["batch"],)
    size, told = axes_of(params["size"], ndim), ("kernel", "stride", "padding", "dilation")
    shapes = {"input": (*batch, params["channels"], *size)}
    kernel, stride, padding, dilation = (axes_of(params[name], ndim) for name in told)
    axes = list(zip(size, kernel, stride, padding, dilation, strict=True))
    if all(pad <= (d * (k - 1) + 1) // 2 for _, k, _, pad, d in axes):
        floor = [pooled_size(n, k, s, p, d, ceil_mode=False) for n, k, s, p, d in axes]
        if min(floor) >= 1:
            out = [pooled_size(n, k, s, p, d, params["ceil"]) for n, k, s, p, d in axes]
            shapes["out"] = (*batch, params["channels"], *out)
    return shapes


def _keywords(params: Params) -> dict[str, Any]:
    told = {"kernel_size": "kernel", "ceil_mode": "ceil"}
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    # A bad value stands under the argument's own name.
    given = {name: params.get(name, params[told.get(name, name)]) for name in names}
    return {name: fixed(value) for name, value in given.items()}


def _sizes(ndim: int, draw: Draw) -> dict[str, Any]:
    most = {1: 300, 2: 30, 3: 9}[ndim]
    size = [draw(st.integers(1, most)) for _ in range(ndim)]
    kernel = [draw(st.integers(1, min(7, n + 2))) for n in size]
    dilation = [draw(st.sampled_from((1, 1, 1, 2, 3))) for _ in size]
    padding = [
        draw(st.integers(0, (d * (k - 1) + 1) // 2)) for k, d in zip(kernel, dilation, strict=True)
    ]
    channels = draw(st.sampled_from((1, 2, 3, 8, 17, 33)))
    while channels > 1 and channels * math.prod(size) * math.prod(kernel) > 1 << 17:
        channels //= 2
    return {
        "batch": draw(st.sampled_from((1, 2, None, 0))), "channels": channels, "size": plain(size),
        "kernel": plain(kernel), "stride": plain([draw(st.integers(1, 4)) for _ in size]),
        "padding": plain(padding), "dilation": plain(dilation), "ceil": draw(st.booleans()),
    }  # fmt: skip


def _operator(ndim: int) -> Operator:
    return array_operator(
        f"max_pool{ndim}d", op="max_pool", axes=ndim, defaults=_DEFAULTS, bad=_BAD,
        sizes=lambda draw: _sizes(ndim, draw), shapes=lambda params: _shapes(ndim, params),
        keywords=_keywords,
    )  # fmt: skip


OPERATORS = tuple(map(_operator, (1, 2, 3)))
