"""Resizing by interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from fastconv.contract.resize_problem import MODES, NEAREST_MODES, scaled_size

from .array_ops import array_gradient, array_operator
from .dense import axes_of, fixed
from .drawing import Draw, plain
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

_DEFAULTS = {
    "batch": 1, "channels": 1, "size": 1, "to": 1, "scale": None, "mode": "nearest",
    "aligned": None, "recompute": None,
}  # fmt: skip
_BAD = {"mode": "activation", "input": "lone", "out": "output"}


def _shapes(ndim: int, params: Params) -> Shapes:
    batch = () if params["batch"] is None else (params["batch"],)
    first, size = (*batch, params["channels"]), axes_of(params["size"], ndim)
    shapes = {"input": (*first, *size)}
    if params["scale"] is None:
        out = axes_of(params["to"], ndim)
    else:
        scale: tuple[Any, ...] = axes_of(params["scale"], ndim)
        out = tuple(scaled_size(n, factor) for n, factor in zip(size, scale, strict=True))
    if min(out) >= 1:
        shapes["out"] = (*first, *out)
    return shapes


def _keywords(ndim: int, params: Params) -> dict[str, Any]:
    # As many numbers as axes: they say how many there are where the batch is missing.
    given = "size" if params["scale"] is None else "scale_factor"
    told = params["to"] if params["scale"] is None else params["scale"]
    return {
        given: axes_of(told, ndim), "mode": fixed(params["mode"]),
        "align_corners": params["aligned"], "recompute_scale_factor": params["recompute"],
    }  # fmt: skip


def _sizes(ndim: int, draw: Draw) -> dict[str, Any]:
    most = {1: 400, 2: 40, 3: 10}[ndim]
    size = [draw(st.integers(1, most)) for _ in range(ndim)]
    mode = draw(st.sampled_from([mode for mode, axes in MODES.items() if axes in (None, ndim)]))
    channels = draw(st.sampled_from((1, 2, 3, 4, 5, 9, 17, 33)))
    drawn: dict[str, Any] = {"mode": mode}
    if draw(st.booleans()):
        to = [draw(st.one_of(st.integers(1, 2 * most), st.just(n))) for n in size]
        drawn["to"] = plain(to)
    else:
        factors = st.one_of(st.sampled_from((0.5, 2.0, 3.0)), st.floats(0.05, 4.0))
        drawn["scale"] = [draw(factors) for _ in size]
        drawn["recompute"] = draw(st.sampled_from((None, False, True)))
        to = [max(1, scaled_size(n, s)) for n, s in zip(size, drawn["scale"], strict=True)]
    if mode not in NEAREST_MODES:
        drawn["aligned"] = draw(st.sampled_from((None, False, True)))
    while channels > 1 and channels * max(math.prod(size), math.prod(to)) > 1 << 16:
        channels //= 2
    batch = draw(st.sampled_from((1, 2, None, 0)))
    return {"batch": batch, "channels": channels, "size": plain(size), **drawn}


def _operator(make: Callable[..., Operator], op: str, ndim: int) -> Operator:
    made = make(
        "interpolate", op=op, axes=ndim, defaults=_DEFAULTS, bad=_BAD, rounds=True,
        sizes=lambda draw: _sizes(ndim, draw), shapes=lambda params: _shapes(ndim, params),
        keywords=lambda params: _keywords(ndim, params),
    )  # fmt: skip
    return replace(made, name=made.name.replace("interpolate", f"interpolate{ndim}d"))


OPERATORS = tuple(
    _operator(make, op, ndim)
    for make, op in ((array_operator, "interpolate"), (array_gradient, "interpolate_grad"))
    for ndim in (1, 2, 3)
)
