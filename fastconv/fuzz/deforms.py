"""Deformable convolution: the functional form, the object, and gradients."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

import fastconv
from fastconv import grad
from fastconv.kernels import reference
from fastconv.ops.telling import told

from .activations import as_argument
from .case import Case
from .dense import axes_of, fixed
from .drawing import Draw, Options, draw_activation, draw_calls, draw_dtype, plain
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

_DEFAULTS = {
    "batch": 1, "channels": 1, "filters": 1, "groups": 1, "sets": 1, "size": 1, "kernel": 1,
    "stride": 1, "padding": 0, "dilation": 1, "activation": None,
}  # fmt: skip
_BAD = {
    "stride": "positive", "padding": "sizes", "dilation": "positive", "activation": "activation",
    "input": "array", "offset": "array", "weight": "array", "bias": "array", "mask": "array",
    "out": "output",
}  # fmt: skip
_CHANNELS = st.sampled_from((1, 2, 3, 4, 5, 8, 16, 17, 33, 70))


def _out_size(params: Params) -> tuple[int, ...]:
    told_axes = (axes_of(params[n], 2) for n in ("size", "kernel", "stride", "padding", "dilation"))
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(*told_axes, strict=True)
    )


def _shapes(params: Params) -> Shapes:
    batch = () if params["batch"] is None else (params["batch"],)
    # Both numbers of groups divide the channels.
    channels = params["channels"] * math.lcm(params["groups"], params["sets"])
    filters = params["filters"] * params["groups"]
    kernel, out = axes_of(params["kernel"], 2), _out_size(params)
    shapes = {
        "input": (*batch, channels, *axes_of(params["size"], 2)),
        "weight": (filters, channels // params["groups"], *kernel),
        "bias": (filters,),
    }
    if min(out) >= 1:
        taps = params["sets"] * math.prod(kernel)
        shapes["offset"], shapes["mask"] = (*batch, 2 * taps, *out), (*batch, taps, *out)
        shapes["out"] = (*batch, filters, *out)
    return shapes


def _keywords(params: Params, arrays: dict[str, Any]) -> dict[str, Any]:
    told_by_name = {name: fixed(params[name]) for name in ("stride", "padding", "dilation")}
    activation = as_argument(params["activation"], params["filters"], params["groups"], arrays)
    return told_by_name | {"activation": activation}


def _params(draw: Draw) -> Params:
    size = [draw(st.integers(1, 20)) for _ in range(2)]
    kernel = [draw(st.integers(1, 4)) for _ in size]
    dilation = [draw(st.sampled_from((1, 1, 2))) for _ in size]
    padding = [
        max(draw(st.integers(0, 3)), -((n - d * (k - 1) - 1) // 2))
        for n, k, d in zip(size, kernel, dilation, strict=True)
    ]
    return {
        "batch": draw(st.sampled_from((1, 2, None, 0))), "channels": draw(_CHANNELS),
        "filters": draw(_CHANNELS), "groups": draw(st.sampled_from((1, 1, 2, 3))),
        "sets": draw(st.sampled_from((1, 1, 2, 4))), "size": plain(size), "kernel": plain(kernel),
        "stride": plain([draw(st.integers(1, 3)) for _ in size]), "padding": plain(padding),
        "dilation": plain(dilation), "activation": draw_activation(draw),
    }  # fmt: skip


def _draw(draw: Draw, name: str, options: Options) -> Case:
    params = _params(draw)
    calls = draw_calls(
        draw, options, name, sizes=None, optional=("mask", "out"), optional_weights=("bias",)
    )
    return calls.case(name, params, draw_dtype(draw))


def _function(arrays: dict[str, Any], params: Params) -> Any:
    return fastconv.deform_conv2d(**arrays, **_keywords(params, arrays))


def _make(arrays: dict[str, Any], params: Params) -> Any:
    return fastconv.DeformConv2d(**arrays, **_keywords(params, arrays))


def _problem(arrays: dict[str, Any], params: Params) -> Any:
    given = {name: array for name, array in arrays.items() if name != "out"}
    return told(fastconv.deform_conv2d, **given, **_keywords(params, arrays))


def _truth(arrays: dict[str, Any], params: Params) -> Any:
    given = {name: array for name, array in arrays.items() if name != "out"}
    unbatched = given["input"].ndim == 3
    if unbatched:
        for name in ("input", "offset", "mask"):
            if name in given:
                given[name] = given[name][None]
    window: dict[str, Any] = {
        name: axes_of(params[name], 2) for name in ("stride", "padding", "dilation")
    }
    sums = reference.deform_conv(given.pop("input"), **given, **window)
    return sums[0] if unbatched else sums


def _work(shapes: Shapes, params: Params) -> float:
    return 10.0 * math.prod(shapes.get("out", (0,))) * math.prod(shapes["weight"][1:])


#: What each gradient reads beside the gradient for the output, in the order of a call.
_GRADIENTS = {
    "input": ("offset", "weight"), "offset": ("input", "offset", "weight"),
    "weight": ("input", "offset"),
}  # fmt: skip


def _draw_gradient(draw: Draw, name: str, options: Options) -> Case:
    params = _params(draw) | {"activation": None}
    params["batch"] = params["batch"] or 1
    calls = draw_calls(draw, options, name, sizes=None, optional=("mask",))
    return calls.case(name, params, draw_dtype(draw))


def _gradient_shapes(of: str, params: Params) -> Shapes:
    forward = _shapes(params)
    shapes = {name: forward[name] for name in (*_GRADIENTS[of], "mask") if name in forward}
    return shapes | {"grad_output": forward["out"], "out": forward[of]}


def _gradient_arguments(of: str, arrays: dict[str, Any], params: Params) -> dict[str, Any]:
    names = ("stride", "padding", "dilation")
    told_sizes = {} if of == "offset" else {f"{of}_size": _shapes(params)[of]}
    return arrays | {name: axes_of(params[name], 2) for name in names} | told_sizes


def _first(made: Any) -> Any:
    return made[0] if isinstance(made, tuple) else made


def _gradient(of: str) -> Operator:
    function = getattr(grad, f"deform_conv2d_{of}")
    truth = getattr(reference, f"deform_conv_grad_{of}")

    def arguments(arrays: dict[str, Any], params: Params) -> dict[str, Any]:
        return _gradient_arguments(of, arrays, params)

    return Operator(
        name=f"deform_conv2d_{of}", group="array", op=f"deform_conv_grad_{of}",
        defaults=_DEFAULTS, draw=_draw_gradient,
        shapes=lambda params: _gradient_shapes(of, params),
        function=lambda arrays, params: _first(function(**arguments(arrays, params))),
        truth=lambda arrays, params: _first(truth(**arguments(arrays, params))),
        problem=lambda arrays, params: told(function, **arguments(arrays, params)),
        work=lambda shapes, params: 40.0 * _work(_shapes(params), params),
        required=("grad_output", *_GRADIENTS[of]),
    )  # fmt: skip


OPERATORS = (
    Operator(
        name="deform_conv2d", group="array", op="deform_conv", defaults=_DEFAULTS, draw=_draw,
        shapes=_shapes, function=_function, truth=_truth, problem=_problem, work=_work, make=_make,
        required=("input", "offset"), weights=("weight", "bias"), bad=_BAD, channels=-3,
    ),
    *map(_gradient, _GRADIENTS),
)  # fmt: skip
