"""Dense layers: the function and the object, of a few rows and of many."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

import fastconv
import fastconv.grad as grad
from fastconv.kernels import reference

from .activations import as_argument
from .case import Case
from .drawing import Draw, Options, draw_activation, draw_calls, draw_dtype
from .operators import Operator, Params, Shapes, chosen_inside

__all__ = ["OPERATORS"]

_DEFAULTS = {"rows": [1], "features": 1, "outputs": 1, "activation": None}


def _shapes(params: Params) -> Shapes:
    rows, features, outputs = params["rows"], params["features"], params["outputs"]
    return {
        "input": (*rows, features),
        "weight": (outputs, features),
        "bias": (outputs,),
        "out": (*rows, outputs),
    }


def _params(draw: Draw) -> Params:
    rows = draw(st.sampled_from(([], [1], [2], [7], [9], [40], [3, 5], [2, 1, 2], [0], [2, 0])))
    return {
        "rows": rows, "activation": draw_activation(draw),
        "features": draw(st.one_of(st.integers(1, 70), st.sampled_from((512, 1025, 3000)))),
        "outputs": draw(st.integers(1, 130)),
    }  # fmt: skip


def _draw(draw: Draw, name: str, options: Options) -> Case:
    params = _params(draw)
    calls = draw_calls(
        draw, options, name, optional=("out",), optional_weights=("bias",),
        ndim=len(params["rows"]) + 1, weight_ndim=2,
    )  # fmt: skip
    return calls.case(name, params, draw_dtype(draw))


def _activation(arrays: dict[str, Any], params: Params) -> Any:
    return as_argument(params["activation"], params["outputs"], 1, arrays)


def _function(arrays: dict[str, Any], params: Params) -> Any:
    return fastconv.linear(**arrays, activation=_activation(arrays, params))


def _make(arrays: dict[str, Any], params: Params) -> Any:
    return fastconv.Linear(**arrays, activation=_activation(arrays, params))


def _truth(arrays: dict[str, Any], params: Params) -> Any:
    return reference.linear(arrays["input"], arrays["weight"], arrays.get("bias"))


def _work(shapes: Shapes, params: Params) -> float:
    return 2.0 * math.prod(shapes["out"]) * params["features"]


#: What each gradient reads, in the order of a call.
_GRADIENTS = {
    "input": ("weight", "grad_output"), "weight": ("input", "grad_output"), "bias": ("grad_output",)
}  # fmt: skip


def _gradient_shapes(of: str, params: Params) -> Shapes:
    forward = _shapes(params)
    shapes = {name: forward[name] for name in _GRADIENTS[of] if name in forward}
    return shapes | {"grad_output": forward["out"], "out": forward[of]}


def _draw_gradient(draw: Draw, name: str, options: Options) -> Case:
    params = _params(draw) | {"activation": None}
    calls = draw_calls(draw, options, name, ndim=len(params["rows"]) + 1)
    return calls.case(name, params, draw_dtype(draw))


def _gradient_truth(of: str, arrays: dict[str, Any]) -> Any:
    grads = arrays["grad_output"]
    if of == "input":
        return grads @ arrays["weight"]
    number = math.prod(grads.shape[:-1])
    rows = grads.reshape(number, grads.shape[-1])
    if of == "bias":
        return rows.sum(0)
    return rows.T @ arrays["input"].reshape(number, arrays["input"].shape[-1])


def _gradient(of: str) -> Operator:
    function = getattr(grad, f"linear_{of}")
    return Operator(
        name=f"linear_{of}", group="array", op="conv" if of == "input" else "conv_weight_grad",
        defaults=_DEFAULTS, draw=_draw_gradient,
        shapes=lambda params: _gradient_shapes(of, params),
        function=lambda arrays, params: function(*(arrays[name] for name in _GRADIENTS[of])),
        truth=lambda arrays, params: _gradient_truth(of, arrays), problem=chosen_inside,
        work=lambda shapes, params: _work(_shapes(params), params), required=_GRADIENTS[of],
        inside=True, bad=dict.fromkeys(_GRADIENTS[of], "type"),
    )  # fmt: skip


OPERATORS = (
    *map(_gradient, _GRADIENTS),
    Operator(
        name="linear", group="array", op="conv", defaults=_DEFAULTS, draw=_draw, shapes=_shapes,
        function=_function, truth=_truth, problem=chosen_inside, work=_work, make=_make,
        weights=("weight", "bias"), inside=True,
        bad={"weight": "array", "activation": "activation", "out": "output"},
    ),
)  # fmt: skip
