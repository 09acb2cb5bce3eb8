"""Transposed convolutions: the functional forms and the objects of one to three axes."""

from __future__ import annotations

import functools
import math
from typing import Any

from hypothesis import strategies as st

import fastconv
from fastconv.kernels import reference

from .case import Case
from .dense import BAD, axes_of, fixed, keywords, window_arguments
from .dense import DEFAULTS as DENSE
from .drawing import Draw, Options, draw_activation, draw_calls, draw_dtype, plain
from .operators import Operator, Params, Shapes, chosen_inside

__all__ = ["DEFAULTS", "OPERATORS", "draw_params", "transposed_shapes"]

DEFAULTS = DENSE | {"extra": 0}
_CHANNELS = st.sampled_from((1, 2, 3, 4, 5, 8, 9, 16, 17, 33))
_TAPS = st.one_of(st.sampled_from((1, 2, 3, 4)), st.integers(1, 9))
#: Products of a case.
_MOST_WORK = 1 << 19


def _told(params: Params, ndim: int) -> dict[str, Any]:
    """Return the arguments beside the arrays, one entry an axis, as the reference takes them."""
    extra = {"output_padding": axes_of(params["extra"], ndim)}
    return window_arguments(params, ndim) | extra


def _out_size(params: Params, ndim: int) -> tuple[int, ...]:
    told = _told(params, ndim)
    return tuple(
        (n - 1) * s - low - high + d * (k - 1) + extra + 1
        for n, k, s, (low, high), d, extra in zip(
            axes_of(params["size"], ndim), axes_of(params["kernel"], ndim), told["stride"],
            told["padding"], told["dilation"], told["output_padding"], strict=True,
        )
    )  # fmt: skip


def _is_valid(ndim: int, params: Params) -> bool:
    told = _told(params, ndim)
    steps = zip(told["output_padding"], told["stride"], told["dilation"], strict=True)
    pads = [cropped for pair in told["padding"] for cropped in pair]
    if min(pads) < 0 or any(not 0 <= extra < max(s, d) for extra, s, d in steps):
        return False
    return min(_out_size(params, ndim)) >= 1


def transposed_shapes(ndim: int, params: Params) -> Shapes:
    """Return the shapes of a transposed convolution's arrays."""
    batch = () if params["batch"] is None else (params["batch"],)
    channels, filters = params["channels"] * params["groups"], params["filters"] * params["groups"]
    shapes = {
        "input": (*batch, channels, *axes_of(params["size"], ndim)),
        "weight": (channels, params["filters"], *axes_of(params["kernel"], ndim)),
        "bias": (filters,),
    }
    if _is_valid(ndim, params):
        shapes["residual"] = shapes["out"] = (*batch, filters, *_out_size(params, ndim))
    return shapes


def _axis(draw: Draw, size: int, taps: int) -> tuple[int, tuple[int, int], int, int]:
    """Draw stride, crops, dilation and output padding of an axis that keeps an output."""
    stride = draw(st.sampled_from((1, 1, 2, 2, 3, 4, 7)))
    dilation = draw(st.sampled_from((1, 1, 1, 2, 3, 6)))
    extra = draw(st.sampled_from((0, 0, 1, stride - 1, max(stride, dilation) - 1)))
    extra = min(extra, max(stride, dilation) - 1)
    full = (size - 1) * stride + dilation * (taps - 1) + 1 + extra
    low = min(draw(st.sampled_from((0, 1, taps // 2, dilation * (taps - 1)))), full - 1)
    high = min(draw(st.sampled_from((low, low, 0, 2))), full - 1 - low)
    return stride, (low, max(0, high)), dilation, extra


def draw_params(ndim: int, draw: Draw) -> Params:
    """Draw sizes and arguments."""
    depthwise = draw(st.booleans())
    params: dict[str, Any] = {"groups": draw(_CHANNELS)} if depthwise else {
        "groups": draw(st.sampled_from((1, 1, 2, 3))), "channels": draw(_CHANNELS),
        "filters": draw(_CHANNELS),
    }  # fmt: skip
    kernel = [draw(_TAPS) for _ in range(ndim)]
    most = {1: 200, 2: 24, 3: 8}[ndim]
    sizes = [draw(st.integers(1, most)) for _ in range(ndim)]
    while math.prod(params.values()) * math.prod(sizes) * math.prod(kernel) > _MOST_WORK:
        largest = max(range(ndim), key=lambda n: sizes[n])
        if sizes[largest] > 4:
            sizes[largest] //= 2
        else:
            params = {key: max(1, value // 2) for key, value in params.items()}
    axes = [_axis(draw, size, taps) for size, taps in zip(sizes, kernel, strict=True)]
    pairs = [list(pads) for _, pads, _, _ in axes]
    alike = all(low == high for low, high in pairs)
    return params | {
        "size": plain(sizes),
        "kernel": plain(kernel),
        "stride": plain([stride for stride, *_ in axes]),
        "padding": plain([low for low, _ in pairs]) if alike else pairs,
        "dilation": plain([dilation for _, _, dilation, _ in axes]),
        "extra": plain([extra for *_, extra in axes]),
        "activation": draw_activation(draw),
        "batch": draw(st.sampled_from((1, 2, None, 0))),
    }


def _draw(ndim: int, draw: Draw, name: str, options: Options) -> Case:
    params = draw_params(ndim, draw)
    calls = draw_calls(
        draw, options, name, sizes=None, optional=("residual", "out"), optional_weights=("bias",),
        ndim=ndim + 2, weight_ndim=ndim + 2,
    )  # fmt: skip
    return calls.case(name, params, draw_dtype(draw))


def _keywords(params: Params, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments beside the arrays, as a caller gives them."""
    return keywords(params, arrays) | {"output_padding": fixed(params["extra"])}


def _function(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    return getattr(fastconv, f"conv_transpose{ndim}d")(**arrays, **_keywords(params, arrays))


def _make(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    return getattr(fastconv, f"ConvTranspose{ndim}d")(**arrays, **_keywords(params, arrays))


def _truth(ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    x = arrays["input"]
    unbatched = x.ndim == ndim + 1
    sums = reference.conv_transpose(
        x[None] if unbatched else x, arrays["weight"], arrays.get("bias"), **_told(params, ndim)
    )
    if "residual" in arrays:
        sums = sums + (arrays["residual"][None] if unbatched else arrays["residual"])
    return sums[0] if unbatched else sums


def _work(shapes: Shapes, params: Params) -> float:
    return 2.0 * math.prod(shapes["input"]) * math.prod(shapes["weight"][1:])


def _operator(ndim: int) -> Operator:
    def bind(function: Any) -> Any:
        return functools.partial(function, ndim)

    return Operator(
        name=f"conv_transpose{ndim}d",
        group="dense",
        op="conv",
        inside=True,
        channels=-1 - ndim,
        defaults=DEFAULTS,
        draw=bind(_draw),
        shapes=bind(transposed_shapes),
        function=bind(_function),
        truth=bind(_truth),
        problem=chosen_inside,
        work=_work,
        make=bind(_make),
        weights=("weight", "bias"),
        bad={name: kind for name, kind in BAD.items() if not name.startswith("padding")},
    )


OPERATORS = tuple(map(_operator, (1, 2, 3)))
