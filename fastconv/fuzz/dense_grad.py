"""Gradients of dense convolutions, as `fastconv.grad` has them."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

import fastconv.grad as grad
from fastconv.kernels import reference

from .case import Case
from .dense import BAD, DEFAULTS, axes_of, conv_shapes, fixed, pad_input, pads_of, window_arguments
from .operators import Operator, Params, Shapes, chosen_inside

__all__ = ["OPERATORS"]

#: Parameters that the shapes of input and weight follow from.
_SIZES = ("batch", "channels", "filters", "groups", "size", "kernel")


def _shapes(of: str, ndim: int, params: Params) -> Shapes:
    """Return the shapes of a gradient's operands; the output is shaped as what it is for."""
    forward = conv_shapes(ndim, params)
    shapes = {name: forward[name] for name in ("input", "weight") if name != of}
    if "out" in forward:
        return shapes | {"grad_output": forward["out"], "out": forward[of]}
    lone = (forward["input"][0], forward["weight"][0], *(1,) * ndim)  # of no convolution
    return shapes | {"grad_output": lone}


def _draw(ndim: int, draw: Any, name: str, options: Any) -> Case:
    from . import dense_draw

    return dense_draw.draw_case(ndim, draw, name, options, (), ())


def _keywords(params: Params) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    return {name: fixed(params[name]) for name in names}


def _function(of: str, ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    given, told = arrays["grad_output"], _keywords(params)
    # Other arguments may be none that a convolution has.
    size = conv_shapes(ndim, DEFAULTS | {key: params[key] for key in _SIZES})[of]
    if of == "input":
        return getattr(grad, f"conv{ndim}d_input")(size, arrays["weight"], given, **told)
    return getattr(grad, f"conv{ndim}d_weight")(arrays["input"], size, given, **told)


def _around(of: str, ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    """Return the truth of a gradient with a boundary mode, by the one of a padded input."""
    pads, size = pads_of(params, ndim), axes_of(params["size"], ndim)
    padded = [n + sum(sides) for n, sides in zip(size, pads, strict=True)]
    unpadded = {**params, "size": padded, "padding": 0, "padding_mode": "zeros"}
    if of == "weight":
        around = pad_input(arrays["input"], params, ndim)
        return _truth(of, ndim, {**arrays, "input": around}, unpadded)
    grad = _truth(of, ndim, arrays, unpadded)
    # Which pixel each position holds, -1 for a constant.
    mode = params["padding_mode"] if isinstance(params["padding_mode"], str) else ["constant", -1]
    pixels = np.arange(math.prod(size)).reshape(1, 1, *size)
    held = pad_input(pixels, {**params, "padding_mode": mode}, ndim).ravel().astype(np.intp)
    made = np.zeros((*grad.shape[:2], 1 + pixels.size))
    where: Any = (..., held)
    np.add.at(made, where, grad.reshape(*grad.shape[:2], held.size))
    made = made[..., :-1]
    return made.reshape(*grad.shape[:2], *size)


def _truth(of: str, ndim: int, arrays: dict[str, Any], params: Params) -> Any:
    if params["padding_mode"] != "zeros":
        return _around(of, ndim, arrays, params)
    told, given = window_arguments(params, ndim), arrays["grad_output"]
    forward = conv_shapes(ndim, params)
    kernel = forward["weight"][2:]
    if of == "weight":
        return reference.conv_weight_grad(arrays["input"], given, kernel_size=kernel, **told)
    left = tuple(
        n + low + high - d * (k - 1) - 1 - (o - 1) * s
        for n, (low, high), d, k, o, s in zip(
            forward["input"][2:], told["padding"], told["dilation"], kernel, given.shape[2:],
            told["stride"], strict=True,
        )
    )  # fmt: skip
    return reference.conv_transpose(given, arrays["weight"], output_padding=left, **told)


def _work(shapes: Shapes, params: Params) -> float:
    weight = shapes.get("weight", shapes.get("out", (0,)))
    return 2.0 * math.prod(shapes.get("grad_output", (0,))) * math.prod(weight[1:])


def _operator(of: str, ndim: int) -> Operator:
    def bind(function: Any) -> Any:
        return functools.partial(function, of, ndim)

    operands = ("weight" if of == "input" else "input", "grad_output")
    return Operator(
        name=f"conv{ndim}d_{of}",
        group="dense",
        op="conv_weight_grad" if of == "weight" else "conv",
        inside=of == "input",
        defaults=DEFAULTS,
        draw=functools.partial(_draw, ndim),
        shapes=bind(_shapes),
        function=bind(_function),
        truth=bind(_truth),
        problem=chosen_inside,
        work=_work,
        required=operands,
        bad={name: BAD[name] for name in ("stride", "padding", "padding_mode", "dilation")}
        | dict.fromkeys(operands, "array"),
    )


OPERATORS = tuple(_operator(of, ndim) for of in ("input", "weight") for ndim in (1, 2, 3))
