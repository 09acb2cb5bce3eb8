"""Shuffles of pixels and channels, windows as columns, and columns summed up."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from fastconv.contract.padding import output_size

from .array_ops import array_gradient, array_operator
from .dense import axes_of, fixed
from .drawing import Draw, plain
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

_SHUFFLES = {"batch": 1, "channels": 1, "size": 1, "number": 1}


def _batch(params: Params) -> tuple[int, ...]:
    return () if params["batch"] is None else (params["batch"],)


def _pixels(name: str, params: Params) -> Shapes:
    """Return the shapes of pixels that are shuffled, or put back."""
    lead, r, size = _batch(params), params["number"], axes_of(params["size"], 2)
    few = (*lead, params["channels"] * r * r, *size)
    many = (*lead, params["channels"], *(n * r for n in size))
    shapes = (few, many) if name == "pixel_shuffle" else (many, few)
    return dict(zip(("input", "out"), shapes, strict=True))


def _channels(params: Params) -> Shapes:
    size = tuple(params["size"]) if isinstance(params["size"], list) else (params["size"],)
    shape = (params["batch"], params["channels"] * params["number"], *size)
    return {"input": shape, "out": shape}


def _pixel_sizes(draw: Draw) -> dict[str, Any]:
    size = [draw(st.integers(1, 40)) for _ in range(2)]
    return {
        "batch": draw(st.sampled_from((1, 2, None, 0))), "size": plain(size),
        "channels": draw(st.sampled_from((1, 2, 3, 8, 17, 33))), "number": draw(st.integers(1, 11)),
    }  # fmt: skip


def _channel_sizes(draw: Draw) -> dict[str, Any]:
    most = (300, 30, 9)
    ndim = draw(st.integers(1, 3))
    return {
        "batch": draw(st.sampled_from((1, 2, 0))),
        "size": [draw(st.integers(1, most[ndim - 1])) for _ in range(ndim)],
        "channels": draw(st.sampled_from((1, 2, 3, 8, 17, 33, 58))),
        "number": draw(st.integers(1, 11)),
    }


def _shuffle(
    name: str, argument: str, axes: int | None, shapes: Callable[[Params], Shapes],
    sizes: Callable[[Draw], dict[str, Any]], back: str = "",
) -> Operator:  # fmt: skip
    """Return a shuffle's operator, or its gradient's where `back` is what the registry calls it."""

    def keywords(params: Params) -> dict[str, Any]:
        return {argument: fixed(params.get(argument, params["number"]))}

    make: Any = functools.partial(array_gradient, sized=False) if back else array_operator
    return make(
        name, op=back or name, axes=axes, defaults=_SHUFFLES, sizes=sizes, shapes=shapes,
        keywords=keywords, bad={argument: "count", "out": "output"},
    )  # fmt: skip


_WINDOWS = {
    "batch": 1, "channels": 1, "size": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1,
    "axes": 2,
}  # fmt: skip
_WINDOW_BAD = {
    "kernel_size": "positive", "stride": "positive", "padding": "pads", "dilation": "positive",
    "out": "output",
}  # fmt: skip


def _window_sizes(draw: Draw) -> dict[str, Any]:
    ndim = draw(st.integers(1, 3))
    size = [draw(st.integers(1, (300, 30, 9)[ndim - 1])) for _ in range(ndim)]
    padding = [draw(st.sampled_from((0, 0, 1, 2, 5))) for _ in size]
    kernel = [draw(st.integers(1, min(7, n + 2 * p))) for n, p in zip(size, padding, strict=True)]
    dilation = [
        draw(st.integers(1, 3)) if d == 1 or (d - 1) * 3 < n + 2 * p else 1
        for d, n, p in zip(kernel, size, padding, strict=True)
    ]
    channels = draw(st.sampled_from((1, 2, 3, 8, 17, 33)))
    while channels > 1 and channels * math.prod(size) * math.prod(kernel) > 1 << 17:
        channels //= 2
    return {
        "batch": draw(st.sampled_from((1, 2, None, 0))), "channels": channels, "axes": ndim,
        "size": plain(size), "kernel": plain(kernel), "padding": plain(padding),
        "dilation": plain(dilation), "stride": plain([draw(st.integers(1, 5)) for _ in size]),
    }  # fmt: skip


def _window_shapes(name: str, params: Params) -> Shapes:
    ndim, lead = params["axes"], _batch(params)
    told = ("size", "kernel", "stride", "padding", "dilation")
    axes = list(zip(*(axes_of(params[key], ndim) for key in told), strict=True))
    image = (*lead, params["channels"], *axes_of(params["size"], ndim))
    windows = [output_size(n, k, s, (p, p), d) for n, k, s, p, d in axes]
    taps = math.prod(axes_of(params["kernel"], ndim))
    columns = (*lead, params["channels"] * taps, math.prod(max(0, n) for n in windows))
    shapes = (image, columns) if name == "unfold" else (columns, image)
    names = ("input", "out") if min(windows) >= 1 else ("input",)
    return dict(zip(names, shapes, strict=False))


def _window_keywords(name: str, params: Params) -> dict[str, Any]:
    told = {"kernel_size": "kernel", "stride": "stride", "padding": "padding"}
    told |= {"dilation": "dilation"} | ({} if name == "unfold" else {"output_size": "size"})
    ndim = params["axes"]
    return {
        key: fixed(params[key]) if key in params and key != short else axes_of(params[short], ndim)
        for key, short in told.items()
    }


def _window(name: str, back: str = "") -> Operator:
    """Return the operator, or its gradient's where `back` is what the registry calls it."""
    make: Any = array_operator
    if back:
        make = functools.partial(array_gradient, sized=name == "unfold")
    return make(
        name, op=back or name, axes=None, defaults=_WINDOWS, sizes=_window_sizes,
        shapes=functools.partial(_window_shapes, name),
        # Gradients have their images' sizes from elsewhere.
        keywords=functools.partial(_window_keywords, "unfold" if back else name), bad=_WINDOW_BAD,
    )  # fmt: skip


#: Shuffles, their argument, and the operator that is their gradient.
_FACTORS = (
    ("pixel_shuffle", "upscale_factor", "pixel_unshuffle"),
    ("pixel_unshuffle", "downscale_factor", "pixel_shuffle"),
)

OPERATORS = (
    *(
        _shuffle(name, factor, 2, functools.partial(_pixels, name), _pixel_sizes, op)
        for name, factor, back in _FACTORS
        for op in ("", back)
    ),
    _shuffle("channel_shuffle", "groups", None, _channels, _channel_sizes),
    _shuffle("channel_shuffle", "groups", None, _channels, _channel_sizes, "channel_shuffle"),
    _window("unfold"),
    _window("unfold", "fold"),
    _window("fold"),
    _window("fold", "unfold"),
)
