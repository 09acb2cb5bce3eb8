"""Gradients of transposed convolutions, and of every convolution's bias."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

import fastconv.grad as grad
from fastconv.kernels import reference

from .case import Case
from .dense import axes_of, fixed, window_arguments
from .drawing import Draw, Options, draw_calls, draw_dtype
from .operators import Operator, Params, Shapes, chosen_inside
from .transposed import DEFAULTS, draw_params, transposed_shapes

__all__ = ["OPERATORS"]

#: Parameters that the shapes of input and weight follow from.
_SIZES = ("batch", "channels", "filters", "groups", "size", "kernel")


def _shapes(of: str, ndim: int, params: Params) -> Shapes:
    """Return the shapes of a gradient's operands; the output is shaped as what it is for."""
    forward = transposed_shapes(ndim, params)
    if "out" not in forward:
        lone = (forward["input"][0], forward["bias"][0], *(1,) * ndim)  # of no convolution
        return {"grad_output": lone} | {name: forward[name] for name in _read(of)}
    made = {name: forward[name] for name in _read(of)}
    return made | {"grad_output": forward["out"], "out": forward[of]}


def _read(of: str) -> tuple[str, ...]:
    """Return what a gradient reads beside that of the output."""
    return {"input": ("weight",), "weight": ("input",), "bias": ()}[of]


def _draw(ndim: int, draw: Draw, name: str, options: Options) -> Case:
    params = draw_params(ndim, draw) | {"activation": None}
    params["batch"] = params["batch"] or 1
    calls = draw_calls(draw, options, name, ndim=ndim + 2)
    if calls.values == "nonfinite" and name.endswith("weight"):
        calls.values = "gaussian"  # the truth multiplies samples by zeros for what was cropped
    return calls.case(name, params, draw_dtype(draw))


def _function(of: str, ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    function, given = getattr(grad, f"conv_transpose{ndim}d_{of}"), arrays["grad_output"]
    if of == "bias":
        return function(given)
    told = {name: fixed(params[name]) for name in ("stride", "padding", "dilation", "groups")}
    told["output_padding"] = fixed(params["extra"])
    # Other arguments may be none that a convolution has.
    size = transposed_shapes(ndim, DEFAULTS | {key: params[key] for key in _SIZES})[of]
    if of == "input":
        return function(size, arrays["weight"], given, **told)
    return function(arrays["input"], size, given, **told)


def _uncropped(given: Any, ndim: int, params: Params) -> Any:
    """Return the gradient for every place that a sample reaches, those that are cropped zero."""
    told, size = window_arguments(params, ndim), axes_of(params["size"], ndim)
    kernel = axes_of(params["kernel"], ndim)
    along = zip(size, kernel, told["stride"], told["dilation"], strict=True)
    reached = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in along]
    pads = [(low, max(0, n - low - m)) for n, m, (low, _) in zip(
        reached, given.shape[2:], told["padding"], strict=True
    )]  # fmt: skip
    whole = np.pad(given, ((0, 0), (0, 0), *pads))
    return whole[(slice(None), slice(None), *(slice(0, n) for n in reached))]


def _truth(of: str, ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    given = arrays["grad_output"]
    if of == "bias":
        return given.sum((0, *range(2, given.ndim)))
    told = window_arguments(params, ndim) | {"padding": ((0, 0),) * ndim}
    whole = _uncropped(given, ndim, params)
    if of == "input":
        return reference.conv(whole, arrays["weight"], **told)
    kernel = axes_of(params["kernel"], ndim)
    return reference.conv_weight_grad(whole, arrays["input"], kernel_size=kernel, **told)


def _work(shapes: Shapes, params: Params) -> float:
    weight = shapes.get("weight", shapes.get("out", (0,)))
    samples = math.prod(shapes["grad_output"]) + math.prod(shapes.get("input", shapes["out"]))
    return 2.0 * samples * math.prod(weight[1:])


def _operator(of: str, ndim: int) -> Operator:
    def bind(function: Any) -> Any:
        return functools.partial(function, of, ndim)

    operands = (*_read(of), "grad_output")
    sizes = {"stride": "positive", "dilation": "positive"} if of != "bias" else {}
    return Operator(
        name=f"conv_transpose{ndim}d_{of}",
        group="dense",
        op="conv" if of == "input" else "conv_weight_grad",
        inside=True,
        defaults=DEFAULTS,
        draw=functools.partial(_draw, ndim),
        shapes=bind(_shapes),
        function=bind(_function),
        truth=bind(_truth),
        problem=chosen_inside,
        work=_work,
        required=operands,
        bad=sizes | dict.fromkeys(operands, "lone"),
    )


OPERATORS = tuple(_operator(of, ndim) for of in ("input", "weight", "bias") for ndim in (1, 2, 3))
