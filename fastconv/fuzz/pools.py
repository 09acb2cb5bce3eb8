"""Pools over windows: the functional forms of one to three axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import strategies as st

from fastconv.contract.pool_problem import pooled_size

from .array_ops import array_gradient, array_operator
from .dense import axes_of, can_pad, fixed, pad_input
from .drawing import Draw, plain
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

_DEFAULTS = {
    "batch": 1, "channels": 1, "size": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1,
    "ceil": False, "padding_mode": "zeros",
}  # fmt: skip
_MODES = ("reflect", "symmetric", "replicate", "circular", ["constant", 1.0])
_BAD = {
    "kernel_size": "positive", "stride": "stride", "padding": "pads", "dilation": "positive",
    "padding_mode": "mode", "input": "lone", "out": "output",
}  # fmt: skip


def _shapes(ndim: int, params: Params) -> Shapes:
    batch = () if params["batch"] is None else (params["batch"],)
    size, told = axes_of(params["size"], ndim), ("kernel", "stride", "padding", "dilation")
    shapes = {"input": (*batch, params["channels"], *size)}
    kernel, stride, padding, dilation = (axes_of(params[name], ndim) for name in told)
    if params["padding_mode"] != "zeros":
        if not params.get("counted", True) or not can_pad(
            params["padding_mode"], size, tuple((pad, pad) for pad in padding)
        ):
            return shapes
        size = tuple(n + 2 * pad for n, pad in zip(size, padding, strict=True))
        padding = (0,) * ndim
    axes = list(zip(size, kernel, stride, padding, dilation, strict=True))
    if all(pad <= (d * (k - 1) + 1) // 2 for _, k, _, pad, d in axes):
        floor = [pooled_size(n, k, s, p, d, ceil_mode=False) for n, k, s, p, d in axes]
        if min(floor) >= 1:
            out = [pooled_size(n, k, s, p, d, params["ceil"]) for n, k, s, p, d in axes]
            shapes["out"] = (*batch, params["channels"], *out)
    return shapes


def _keywords(params: Params) -> dict[str, Any]:
    told = {"kernel_size": "kernel", "ceil_mode": "ceil"}
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "padding_mode")
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
    mode = draw(st.sampled_from(("zeros", "zeros", *_MODES)))
    if mode != "zeros":
        padding = [draw(st.integers(0, max(1, n - draw(st.integers(0, 1))))) for n in size]
    channels = draw(st.sampled_from((1, 2, 3, 8, 17, 33)))
    while channels > 1 and channels * math.prod(size) * math.prod(kernel) > 1 << 17:
        channels //= 2
    return {
        "batch": draw(st.sampled_from((1, 2, None, 0))), "channels": channels, "size": plain(size),
        "kernel": plain(kernel), "stride": plain([draw(st.integers(1, 4)) for _ in size]),
        "padding": plain(padding), "dilation": plain(dilation), "ceil": draw(st.booleans()),
        "padding_mode": mode,
    }  # fmt: skip


def _with_modes(ndim: int, operator: Operator) -> Operator:
    """Let a pool's truth see a boundary: it is that of the padded input."""

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        if params["padding_mode"] == "zeros":
            return operator.truth(arrays, params)
        padded = pad_input(arrays["input"], params, ndim)
        unpadded = {"padding": 0, "padding_mode": "zeros"}
        return operator.truth({**arrays, "input": padded}, {**params, **unpadded})

    return replace(operator, truth=truth)


def _max_pool(ndim: int) -> Operator:
    made = array_operator(
        f"max_pool{ndim}d", op="max_pool", axes=ndim, defaults=_DEFAULTS, bad=_BAD,
        sizes=lambda draw: _sizes(ndim, draw), shapes=lambda params: _shapes(ndim, params),
        keywords=_keywords,
    )  # fmt: skip
    return _with_modes(ndim, made)


def _without_dilation(ndim: int, draw: Draw) -> dict[str, Any]:
    """Draw sizes of a pool that has no dilation: pads are then half of the window at most."""
    drawn = _sizes(ndim, draw)
    if drawn["padding_mode"] != "zeros":
        return drawn | {"dilation": 1}
    pads, kernels = (axes_of(drawn[name], ndim) for name in ("padding", "kernel"))
    padding = [min(pad, kernel // 2) for pad, kernel in zip(pads, kernels, strict=True)]
    return drawn | {"padding": plain(padding), "dilation": 1}


def _mean_sizes(ndim: int, draw: Draw) -> dict[str, Any]:
    divisor = draw(st.sampled_from((None, None, 1, 3, -2))) if ndim > 1 else None
    drawn = _without_dilation(ndim, draw)
    counted = draw(st.booleans())
    if drawn["padding_mode"] != "zeros":  # which has nothing that is not counted
        counted = counted or draw(st.booleans())
    return drawn | {"counted": counted, "divisor": divisor}


def _mean_keywords(ndim: int, params: Params) -> dict[str, Any]:
    made = _keywords(params)
    del made["dilation"]
    made["count_include_pad"] = params["counted"]
    return made if ndim == 1 else made | {"divisor_override": params["divisor"]}


def _avg_pool(ndim: int) -> Operator:
    made = array_operator(
        f"avg_pool{ndim}d", op="avg_pool", axes=ndim, rounds=True,
        defaults={**_DEFAULTS, "counted": True, "divisor": None},
        bad={name: kind for name, kind in _BAD.items() if name != "dilation"},
        sizes=lambda draw: _mean_sizes(ndim, draw), shapes=lambda params: _shapes(ndim, params),
        keywords=lambda params: _mean_keywords(ndim, params),
    )  # fmt: skip
    return _with_modes(ndim, made)


def _avg_pool_grad(ndim: int) -> Operator:
    def keywords(params: Params) -> dict[str, Any]:
        made = _mean_keywords(ndim, params)
        del made["padding_mode"]
        return made

    return array_gradient(
        f"avg_pool{ndim}d", op="avg_pool_grad", axes=ndim, rounds=True,
        defaults={**_DEFAULTS, "counted": True, "divisor": None},
        bad={name: kind for name, kind in _BAD.items() if name not in ("dilation", "padding_mode")},
        sizes=lambda draw: _zeros(ndim, draw), shapes=lambda params: _shapes(ndim, params),
        keywords=keywords,
    )  # fmt: skip


def _zeros(ndim: int, draw: Draw) -> dict[str, Any]:
    """Draw sizes of a pool that is padded with zeros."""
    drawn = _mean_sizes(ndim, draw)
    kernel = axes_of(drawn["kernel"], ndim)
    pads = zip(axes_of(drawn["padding"], ndim), kernel, strict=True)
    padding = [min(pad, taps // 2) for pad, taps in pads]
    return drawn | {"padding": plain(padding), "padding_mode": "zeros"}


def _norm_keywords(params: Params) -> dict[str, Any]:
    made = _keywords(params)
    del made["dilation"], made["padding"], made["padding_mode"]
    return made | {"norm_type": params["norm"]}


def _lp_pool(ndim: int) -> Operator:
    return array_operator(
        f"lp_pool{ndim}d", op="lp_pool", axes=ndim, rounds=True,
        defaults={**_DEFAULTS, "norm": 2.0},
        bad={name: _BAD[name] for name in ("kernel_size", "stride", "input", "out")},
        sizes=lambda draw: _without_dilation(ndim, draw) | {"padding": 0, "padding_mode": "zeros"},
        shapes=lambda params: _shapes(ndim, params), keywords=_norm_keywords,
        spared=("huge", "tiny", "minute"),
    )  # fmt: skip


def _adaptive_sizes(ndim: int, draw: Draw) -> dict[str, Any]:
    drawn = _sizes(ndim, draw)
    most = {1: 60, 2: 12, 3: 6}[ndim]
    outputs = [draw(st.integers(1, most)) for _ in range(ndim)]
    kept = {name: drawn[name] for name in ("batch", "channels", "size")}
    return kept | {"outputs": plain(outputs)}


def _adaptive_shapes(ndim: int, params: Params) -> Shapes:
    first = () if params["batch"] is None else (params["batch"],)
    first = (*first, params["channels"])
    size, outputs = (axes_of(params[name], ndim) for name in ("size", "outputs"))
    return {"input": (*first, *size), "out": (*first, *outputs)}


def _adaptive_pool(make: Callable[..., Operator], name: str, op: str, ndim: int) -> Operator:
    return make(
        f"{name}{ndim}d", op=op, axes=ndim, rounds=name == "adaptive_avg_pool",
        defaults={"batch": 1, "channels": 1, "size": 1, "outputs": 1},
        sizes=lambda draw: _adaptive_sizes(ndim, draw),
        shapes=lambda params: _adaptive_shapes(ndim, params),
        keywords=lambda params: {"output_size": fixed(params["outputs"])} if make is array_operator
        else {},
    )  # fmt: skip


OPERATORS = tuple(
    made(ndim)
    for made in (
        _max_pool, _avg_pool, _avg_pool_grad, _lp_pool,
        partial(_adaptive_pool, array_operator, "adaptive_max_pool", "adaptive_max_pool"),
        partial(_adaptive_pool, array_operator, "adaptive_avg_pool", "adaptive_avg_pool"),
        partial(_adaptive_pool, array_gradient, "adaptive_avg_pool", "adaptive_avg_pool_grad"),
    )
    for ndim in (1, 2, 3)
)  # fmt: skip
