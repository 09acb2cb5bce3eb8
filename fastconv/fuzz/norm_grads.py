"""Gradients of normalisations, of softmax and of PReLU, for their input."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv.grad as grad
from fastconv.kernels import reference

from .array_ops import array_operator
from .norms import DEFAULTS, draw_groups, draw_image, draw_layers, draw_pixels, draw_softmax
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

#: Values whose squares or powers are beyond an element type.
_SPARED = ("huge", "tiny", "minute")


def _shapes(params: Params, *factors: str) -> Shapes:
    """Return shapes of an input, the gradient of what is made of it, and factors a channel."""
    shape = tuple(params["shape"])
    return {"input": shape, "grad_output": shape, "out": shape} | dict.fromkeys(factors, shape[1:2])


def _group_norm() -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        given = arrays["input"], arrays["weight"], arrays["grad_output"]
        return reference.group_norm_grad(*given, num_groups=params["groups"])

    return array_operator(
        "group_norm_input", op="group_norm_grad", axes=None, defaults=DEFAULTS, sizes=draw_groups,
        shapes=lambda params: _shapes(params, "weight"), module=grad, truth=truth, rounds=True,
        keywords=lambda params: {"num_groups": params.get("num_groups", params["groups"])},
        required=("input", "grad_output", "weight"), spared=_SPARED, outputs=False,
        bad={"num_groups": "count", "input": "type", "grad_output": "type"},
    )  # fmt: skip


def _instance_norm() -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        given = arrays["input"], arrays["weight"], arrays["grad_output"]
        return reference.group_norm_grad(*given, num_groups=params["shape"][1])

    return array_operator(
        "instance_norm_input", op="group_norm_grad", axes=None, defaults=DEFAULTS,
        sizes=draw_pixels, shapes=lambda params: _shapes(params, "weight"), module=grad,
        truth=truth, rounds=True, keywords=lambda params: {}, spared=_SPARED, outputs=False,
        required=("input", "grad_output", "weight"),
        bad={"input": "type", "grad_output": "type"},
    )  # fmt: skip


def _layer_norm() -> Operator:
    def own(params: Params) -> tuple[int, ...]:
        return tuple(params["shape"][len(params["shape"]) - params["axes"] :])

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        given = arrays["input"], arrays["weight"], arrays["grad_output"]
        return reference.layer_norm_grad(*given, normalized_shape=own(params))

    return array_operator(
        "layer_norm_input", op="layer_norm_grad", axes=None, defaults=DEFAULTS, sizes=draw_layers,
        shapes=lambda params: _shapes(params) | {"weight": own(params)}, module=grad, truth=truth,
        rounds=True, keywords=lambda params: {"normalized_shape": own(params)}, spared=_SPARED,
        outputs=False, required=("input", "grad_output", "weight"),
        bad={"input": "type", "grad_output": "type"},
    )  # fmt: skip


def _softmax(name: str) -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        made, grads = arrays["output"], arrays["grad_output"]
        axis = {"axis": params["dim"], "keepdims": True}
        with np.errstate(all="ignore"):
            if name == "softmax":
                return made * (grads - (grads * made).sum(**axis))
            return grads - np.exp(made) * grads.sum(**axis)

    def shapes(params: Params) -> Shapes:
        return dict.fromkeys(("output", "grad_output", "out"), tuple(params["shape"]))

    return array_operator(
        f"{name}_input", op=name, axes=None, defaults=DEFAULTS, sizes=draw_softmax, shapes=shapes,
        keywords=lambda params: {"dim": params["dim"]}, truth=truth, rounds=True, module=grad,
        required=("output", "grad_output"), spared=_SPARED, outputs=False,
        bad={"dim": "axis", "output": "type", "grad_output": "type"},
    )  # fmt: skip


def _prelu() -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        x, grads = arrays["input"], arrays["grad_output"]
        slopes = arrays["weight"].reshape(1, -1, *(1,) * (x.ndim - 2))
        with np.errstate(all="ignore"):
            return np.where(x > 0, grads, grads * slopes)

    return array_operator(
        "prelu_input", op="prelu", axes=None, defaults=DEFAULTS,
        sizes=lambda draw: {"shape": draw_image(draw)},
        shapes=lambda params: _shapes(params, "weight"), keywords=lambda params: {}, truth=truth,
        module=grad, required=("input", "grad_output", "weight"), outputs=False,
        bad={"input": "type", "grad_output": "type"},
    )  # fmt: skip


OPERATORS = (
    _group_norm(), _instance_norm(), _layer_norm(), _softmax("softmax"), _softmax("log_softmax"),
    _prelu(),
)  # fmt: skip
