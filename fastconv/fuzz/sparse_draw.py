"""How problems of sparse operators are drawn: sites that meet, in grids of every size."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from .case import Case
from .drawing import Draw, Options, draw_activation, draw_calls, draw_dtype, plain

__all__ = ["draw_case", "draw_channels", "draw_size"]

_CHANNELS = st.one_of(st.integers(1, 4), st.sampled_from((1, 8, 16, 5, 17, 32, 33)))
_SIZES = st.one_of(st.integers(1, 14), st.integers(1, 14), st.integers(15, 2**20))
_TAPS = st.sampled_from((3, 1, 2, 3, 5, 4))
_HUGE = st.sampled_from((2**20, 2**31 - 1, 2**15, 3037000499))
#: Pairs of a site and an offset that the reference looks at, one at a time.
_MOST_PAIRS = 1500


def draw_channels(draw: Draw) -> int:
    """Draw a number of channels."""
    return int(draw(_CHANNELS))


def draw_size(draw: Draw, ndim: int) -> list[int]:
    """Draw a grid, now and then one as long as a grid may be."""
    size = [draw(_SIZES) for _ in range(ndim)]
    if draw(st.integers(0, 15)) == 15:
        size[draw(st.integers(0, ndim - 1))] = draw(_HUGE)
    return size


def _window(draw: Draw, name: str, size: list[int]) -> dict[str, Any]:
    """Draw a kernel and how it is laid; pads such that it fits, mostly."""
    ndim = len(size)
    taps = draw(_TAPS)
    same = draw(st.booleans())
    kernel = [taps if same else draw(_TAPS) for _ in range(ndim)]
    while math.prod(kernel) > 125:
        kernel[kernel.index(max(kernel))] = 1
    dilation = draw(st.sampled_from((1, 1, 1, 2, 3)))
    window: dict[str, Any] = {
        "kernel": plain(kernel),
        "stride": plain([draw(st.sampled_from((1, 2, 1, 2, 3))) for _ in range(ndim)]),
        "dilation": dilation,
    }
    reaches = [dilation * (taps - 1) for taps in kernel]
    lows = [draw(st.sampled_from((reach // 2, 0, reach))) for reach in reaches]
    shorts = [max(0, r + 1 - n - 2 * low) for r, n, low in zip(reaches, size, lows, strict=True)]
    pads = [low + (short + 1) // 2 for low, short in zip(lows, shorts, strict=True)]
    if "transpose" in name:
        pads = [min(pad, 1) for pad in pads]
        window["output_padding"] = draw(st.sampled_from((0, 0, 1)))
    window["padding"] = plain(pads)
    if draw(st.integers(0, 15)) == 15:
        far = draw(st.sampled_from((2**31, 2**40, 2**20)))
        window[draw(st.sampled_from(("stride", "dilation", "padding")))] = far
    return window


def draw_case(draw: Draw, name: str, options: Options) -> Case:
    """Draw a case of a sparse operator or of a gradient."""
    size = draw_size(draw, draw(st.sampled_from((3, 2, 1, 4))))
    params: dict[str, Any] = {
        "size": size,
        "batch": draw(st.sampled_from((1, 2, 3))),
        "place": draw(st.integers(0, 99)),
        "corner": draw(st.sampled_from(("low", "high"))),
        "channels": draw_channels(draw),
    }
    taps = 1
    if not name.removeprefix("grad.").startswith("global"):
        window = _window(draw, name, size)
        kernel = window["kernel"]
        taps = math.prod(kernel) if isinstance(kernel, list) else kernel ** len(size)
        params |= window | {"book": draw(st.sampled_from(("", "key")))}
    params["sites"] = draw(st.integers(0, max(2, min(150, _MOST_PAIRS // taps))))
    if "conv" in name:
        params["groups"] = draw(st.sampled_from((1, 1, 1, 2, 4)))
        params["filters"] = draw_channels(draw)
        if draw(st.integers(0, 3)) == 3:  # depthwise
            params |= {"groups": params["channels"], "channels": 1, "filters": 1}
        if not name.startswith("grad"):
            params["order"] = draw(st.sampled_from(("KCRS", "KRSC")))
            params["activation"] = draw_activation(draw, slopes=False)
    dtype = draw_dtype(draw)

    def other(draw: Draw) -> dict[str, Any]:
        return {"sites": draw(st.integers(0, 40)), "place": draw(st.integers(0, 99))}

    weights = ("bias",) if "conv" in name and not name.startswith("grad") else ()
    calls = draw_calls(
        draw, options, name, sizes=other, optional_weights=weights, ndim=2,
        weight_ndim=len(size) + 2,
    )  # fmt: skip
    if params.get("output_padding"):  # layers have none
        calls.steps = [replace(step, form="function", spoil=False) for step in calls.steps]
    return calls.case(name, params, dtype)
