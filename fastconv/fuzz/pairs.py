"""Two convolutions in a row, depthwise separable and others: functional forms and objects."""

from __future__ import annotations

import functools
import math
from typing import Any

from hypothesis import strategies as st

import fastconv
from fastconv.kernels import reference

from .case import Case
from .dense import axes_of, fixed
from .drawing import Draw, Options, draw_activation, draw_calls, plain
from .operators import Operator, Params, Shapes, chosen_inside

__all__ = ["OPERATORS"]

_WINDOW = ("stride", "padding", "dilation")
#: Channels of the input, the middle and the output are these times their groups.
_DEFAULTS = {
    "batch": 1, "channels": 1, "middle": 1, "filters": 1, "groups": 1, "second_groups": 1,
    "size": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1, "between": None,
    "second_kernel": 1, "second_stride": 1, "second_padding": 0, "second_dilation": 1,
    "activation": None,
}  # fmt: skip
_CHANNELS = st.sampled_from((1, 2, 3, 4, 5, 8, 9, 16, 17, 33))
#: What lies between is rounded, and these make no error larger than what they are given.
_BETWEEN = st.sampled_from((None, None, "relu", ["leaky_relu", 0.25]))
_SEPARABLE_WEIGHTS = ("depthwise_weight", "pointwise_weight", "depthwise_bias", "bias")
_PAIR_WEIGHTS = ("first_weight", "second_weight", "first_bias", "second_bias")
#: Products of a case, and of one whose middle is larger than is made at once.
_MOST_WORK, _MOST_LARGE_WORK = 1 << 20, 1 << 25


def _window(params: Params, prefix: str = "") -> dict[str, Any]:
    """Return stride, padding and dilation of one of the convolutions, one entry an axis."""
    told: dict[str, Any] = {name: axes_of(params[prefix + name], 2) for name in _WINDOW}
    told["padding"] = tuple(
        (pads, pads) if isinstance(pads, int) else tuple(pads) for pads in told["padding"]
    )
    return told


def _out_size(size: tuple[int, ...], params: Params, prefix: str = "") -> tuple[int, ...]:
    told, kernel = _window(params, prefix), axes_of(params[f"{prefix}kernel"], 2)
    if min(*told["stride"], *told["dilation"]) < 1 or min(sum(told["padding"], ())) < 0:
        return (0, 0)
    return tuple(
        (n + low + high - d * (k - 1) - 1) // s + 1
        for n, (low, high), d, k, s in zip(
            size, told["padding"], told["dilation"], kernel, told["stride"], strict=True
        )
    )


def _shapes(names: tuple[str, ...], params: Params) -> Shapes:
    batch = () if params["batch"] is None else (params["batch"],)
    groups, second_groups = params["groups"], params["second_groups"]
    middle = params["middle"] * math.lcm(groups, second_groups)
    filters = params["filters"] * second_groups
    size = axes_of(params["size"], 2)
    arrays = (
        (middle, params["channels"], *axes_of(params["kernel"], 2)),
        (filters, middle // second_groups, *axes_of(params["second_kernel"], 2)),
        (middle,),
        (filters,),
    )
    shapes: Shapes = {"input": (*batch, params["channels"] * groups, *size)}
    shapes |= dict(zip(names, arrays, strict=True))
    between = _out_size(size, params)
    out = _out_size(between, params, "second_")
    if min(between) >= 1 and min(out) >= 1:
        shapes["residual"] = shapes["out"] = (*batch, filters, *out)
    return shapes


def _axis(draw: Draw, size: int, taps: int) -> tuple[int, list[int], int, int]:
    """Draw stride, pads and dilation of an axis; and the output's size."""
    stride, hole = draw(st.sampled_from((1, 1, 1, 2, 3))), draw(st.sampled_from((1, 1, 1, 2, 5)))
    reach = hole * (taps - 1)
    low = draw(st.sampled_from((0, reach // 2, reach, 1, 3)))
    high = draw(st.sampled_from((low, low, 0, reach)))
    low += max(0, reach + 1 - size - low - high)
    return stride, [low, high], hole, (size + low + high - reach - 1) // stride + 1


def _draw_window(
    draw: Draw, prefix: str, sizes: list[int], taps: st.SearchStrategy[int]
) -> tuple[Params, list[int]]:
    """Draw one convolution's kernel, stride, pads and dilation; and its output's size."""
    kernel = [draw(taps) for _ in sizes]
    axes = [_axis(draw, size, k) for size, k in zip(sizes, kernel, strict=True)]
    pairs = [pads for _, pads, _, _ in axes]
    alike = all(low == high for low, high in pairs)
    params = {
        f"{prefix}kernel": plain(kernel),
        f"{prefix}stride": plain([stride for stride, *_ in axes]),
        f"{prefix}padding": plain([low for low, _ in pairs]) if alike else pairs,
        f"{prefix}dilation": plain([hole for _, _, hole, _ in axes]),
    }
    return params, [out for *_, out in axes]


def _draw(separable: bool, draw: Draw, name: str, options: Options) -> Case:
    large = draw(st.integers(0, 5)) == 5
    near = st.integers(700, 1400) if large else st.integers(1, 40)
    sizes = [draw(near) for _ in range(2)]
    taps = st.sampled_from((1, 2, 3)) if large else st.sampled_from((1, 3, 3, 2, 5, 7))
    params, between = _draw_window(draw, "", sizes, taps)
    params |= {"size": plain(sizes), "filters": draw(_CHANNELS), "middle": draw(_CHANNELS)}
    if separable:
        params |= {"groups": draw(_CHANNELS), "middle": draw(st.sampled_from((1, 1, 2, 3)))}
    else:
        second, between = _draw_window(draw, "second_", between, taps)
        groups = st.sampled_from((1, 1, 2, 3))
        params |= second | {
            "channels": draw(_CHANNELS), "groups": draw(groups), "second_groups": draw(groups)
        }  # fmt: skip
    _keep_small(params, _MOST_LARGE_WORK if large else _MOST_WORK)
    params |= {"between": draw(_BETWEEN), "activation": draw_activation(draw)}
    params["batch"] = draw(st.sampled_from((1, 1, 2, None, 0)))
    weights = _SEPARABLE_WEIGHTS if separable else _PAIR_WEIGHTS
    calls = draw_calls(
        draw, options, name, sizes=None, optional=("residual", "out"), optional_weights=weights
    )
    if words := calls.layouts.pop("weight", ""):
        calls.layouts[weights[draw(st.integers(0, 1))]] = words
    # Halves are rounded between the two, whole numbers among them.
    return calls.case(name, params, draw(st.sampled_from(("float32", "float32", "float64"))))


def _keep_small(params: Params, most: int) -> None:
    """Cut channels until a case takes little work."""
    while True:
        told = {**_DEFAULTS, **params}
        if _work(_shapes(_PAIR_WEIGHTS, told | {"batch": 1}), told) <= most:
            return
        names = ("channels", "middle", "filters", "groups", "second_groups")
        largest = max(names, key=lambda name: params.get(name, 1))
        if params.get(largest, 1) == 1:
            return
        params[largest] //= 2


def _keywords(separable: bool, params: Params) -> dict[str, Any]:
    """Return the arguments beside the arrays, as a caller gives them."""
    window = {name: fixed(params[name]) for name in _WINDOW}
    between, activation = fixed(params["between"]), fixed(params["activation"])
    if separable:
        return window | {"depthwise_activation": between, "activation": activation}
    told = {f"first_{name}": value for name, value in window.items()}
    told |= {f"second_{name}": fixed(params[f"second_{name}"]) for name in _WINDOW}
    return told | {
        "first_groups": params["groups"], "second_groups": params["second_groups"],
        "first_activation": between, "second_activation": activation,
    }  # fmt: skip


def _call(separable: bool, function: str, pair: str, arrays: dict[str, Any], params: Params) -> Any:
    made = getattr(fastconv, function if separable else pair)
    return made(**arrays, **_keywords(separable, params))


def _truth(names: tuple[str, ...], arrays: dict[str, Any], params: Params) -> Any:
    x, unbatched = arrays["input"], arrays["input"].ndim == 3
    between = fixed(params["between"])
    name, alpha = between if isinstance(between, tuple) else (between, None)
    first = _window(params) | {"groups": params["groups"], "activation": name, "alpha": alpha}
    second = _window(params, "second_") | {"groups": params["second_groups"]}
    given: list[Any] = [arrays.get(each) for each in names]
    sums = reference.conv_pair(x[None] if unbatched else x, *given, first=first, second=second)
    if "residual" in arrays:
        sums = sums + (arrays["residual"][None] if unbatched else arrays["residual"])
    return sums[0] if unbatched else sums


def _work(shapes: Shapes, params: Params) -> float:
    out = shapes.get("out", (0,))
    first, second = (
        next(shape for name, shape in shapes.items() if name in (a, b))
        for a, b in zip(_SEPARABLE_WEIGHTS[:2], _PAIR_WEIGHTS[:2], strict=True)
    )
    size = axes_of(params["size"], 2)
    middle = math.prod(_out_size(size, params)) * (params["batch"] or 1)
    return 2.0 * (middle * math.prod(first) + math.prod(out) * math.prod(second[1:]))


def _operator(separable: bool) -> Operator:
    weights = _SEPARABLE_WEIGHTS if separable else _PAIR_WEIGHTS
    window = {"stride": "positive", "padding": "pads", "dilation": "positive"}
    bad = {"activation": "activation"} | window | {"between": "activation"}
    if not separable:
        bad |= {f"second_{name}": kind for name, kind in window.items()}
        bad |= {"groups": "count", "second_groups": "count"}
    # Another number of channels may be that of another multiplier.
    arrays = {"input": "lone" if separable else "array", "residual": "array", "out": "output"}
    return Operator(
        name="separable_conv2d" if separable else "conv2d_pair",
        group="dense",
        op="conv",
        inside=True,
        defaults=_DEFAULTS,
        draw=functools.partial(_draw, separable),
        shapes=functools.partial(_shapes, weights),
        function=functools.partial(_call, separable, "separable_conv2d", "conv2d_pair"),
        truth=functools.partial(_truth, weights),
        problem=chosen_inside,
        work=_work,
        make=functools.partial(_call, separable, "SeparableConv2d", "Conv2dPair"),
        weights=weights,
        bad=bad | arrays | dict.fromkeys(weights, "array"),
    )


OPERATORS = tuple(map(_operator, (True, False)))
