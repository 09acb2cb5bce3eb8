"""Normalisations, softmax and PReLU."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from fastconv.kernels import reference

from .array_ops import array_operator
from .drawing import Draw
from .operators import Operator, Params, Shapes

__all__ = [
    "DEFAULTS",
    "OPERATORS",
    "draw_groups",
    "draw_image",
    "draw_layers",
    "draw_pixels",
    "draw_softmax",
]

DEFAULTS = {
    "shape": [1, 1, 2], "dim": 1, "groups": 1, "axes": 1, "shared": False, "window": 1,
    "response": [1e-4, 0.75, 1.0],
}  # fmt: skip
_CHANNELS = (1, 2, 3, 8, 17, 33)


def _shape(draw: Draw, least: int, most: int) -> list[int]:
    """Draw the sizes of an array, some axis of which may be long."""
    ndim = draw(st.integers(least, most))
    longest = {1: 3000, 2: 300, 3: 60}.get(ndim, 16)
    shape = [draw(st.integers(1, longest)) for _ in range(ndim)]
    while math.prod(shape) > 1 << 17:
        shape = [-(-size // 2) for size in shape]
    return shape


def draw_image(draw: Draw) -> list[int]:
    """Draw the sizes of images of some channels."""
    pixels = _shape(draw, 1, 4) if draw(st.booleans()) else []
    return [draw(st.sampled_from((1, 2, 5, 0))), draw(st.sampled_from(_CHANNELS)), *pixels]


def draw_softmax(draw: Draw) -> dict[str, Any]:
    """Draw the sizes of an array, and one of its axes."""
    shape = _shape(draw, 1, 5)
    return {"shape": shape, "dim": draw(st.integers(-len(shape), len(shape) - 1))}


def _same(params: Params) -> Shapes:
    shape = tuple(params["shape"])
    return {"input": shape, "out": shape}


def _with_channels(params: Params, *names: str) -> Shapes:
    shapes = _same(params)
    return shapes | dict.fromkeys(names, shapes["input"][1:2])


def _softmax(name: str) -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        return getattr(reference, name)(arrays["input"], dim=params["dim"])

    return array_operator(
        name, op=name, axes=None, defaults=DEFAULTS, sizes=draw_softmax, shapes=_same,
        keywords=lambda params: {"dim": params["dim"]}, truth=truth, rounds=True,
        bad={"dim": "axis", "input": "type", "out": "output"},
    )  # fmt: skip


def _batch_norm() -> Operator:
    names = ("running_mean", "running_var", "weight", "bias")

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        return reference.batch_norm(arrays["input"], *map(arrays.get, names))

    return array_operator(
        "batch_norm", op="batch_norm", axes=None, defaults=DEFAULTS,
        sizes=lambda draw: {"shape": draw_image(draw)},
        shapes=lambda params: _with_channels(params, *names), keywords=lambda params: {},
        required=("input", *names[:2]), optional=names[2:], truth=truth, rounds=True,
        bad={"input": "type", "running_var": "type", "out": "output"},
    )  # fmt: skip


def draw_groups(draw: Draw) -> dict[str, Any]:
    """Draw the sizes of images, and a number of groups of their channels."""
    shape = draw_image(draw)
    groups = draw(st.sampled_from([g for g in range(1, shape[1] + 1) if shape[1] % g == 0]))
    return {"shape": shape, "groups": groups}


def _group_norm() -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        given = (arrays["input"], arrays.get("weight"), arrays.get("bias"))
        return reference.group_norm(*given, num_groups=params["groups"])

    return array_operator(
        "group_norm", op="group_norm", axes=None, defaults=DEFAULTS, sizes=draw_groups,
        shapes=lambda params: _with_channels(params, "weight", "bias"),
        keywords=lambda params: {"num_groups": params.get("num_groups", params["groups"])},
        optional=("weight", "bias"), truth=truth, rounds=True,
        bad={"num_groups": "count", "input": "type", "out": "output"},
    )  # fmt: skip


def draw_pixels(draw: Draw) -> dict[str, Any]:
    """Draw the sizes of images that have a spatial axis, and two pixels at least."""
    shape = draw_image(draw)
    return {"shape": shape if math.prod(shape[2:]) > 1 else [*shape, 2]}


def _instance_norm() -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        given = (arrays["input"], arrays.get("weight"), arrays.get("bias"))
        return reference.instance_norm(*given)

    return array_operator(
        "instance_norm", op="instance_norm", axes=None, defaults=DEFAULTS, sizes=draw_pixels,
        shapes=lambda params: _with_channels(params, "weight", "bias"),
        keywords=lambda params: {}, optional=("weight", "bias"), truth=truth, rounds=True,
        bad={"input": "type", "out": "output"},
    )  # fmt: skip


def _response_sizes(draw: Draw) -> dict[str, Any]:
    response = [draw(st.floats(least, 2.0)) for least in (1e-4, 0.25, 0.5)]
    return draw_pixels(draw) | {"window": draw(st.integers(1, 9)), "response": response}


def _response_keywords(params: Params) -> dict[str, Any]:
    told = dict(zip(("alpha", "beta", "k"), params["response"], strict=True))
    # A bad value stands under the argument's own name, and a case names no window "size".
    return told | {"size": params.get("size", params["window"])}


def _local_response_norm() -> Operator:
    def truth(arrays: dict[str, Any], params: Params) -> Any:
        return reference.local_response_norm(arrays["input"], **_response_keywords(params))

    return array_operator(
        "local_response_norm", op="local_response_norm", axes=None, defaults=DEFAULTS,
        sizes=_response_sizes, shapes=_same, keywords=_response_keywords, truth=truth,
        rounds=True, bad={"size": "positive", "input": "type", "out": "output"},
        spared=("huge", "tiny", "minute"),
    )  # fmt: skip


def _layer_shapes(params: Params) -> Shapes:
    shapes = _same(params)
    own = shapes["input"][len(params["shape"]) - params["axes"] :]
    return shapes | {"weight": own, "bias": own}


def draw_layers(draw: Draw) -> dict[str, Any]:
    """Draw the sizes of an array, and how many of its last axes are normalised."""
    shape = _shape(draw, 1, 5)
    return {"shape": shape, "axes": draw(st.integers(1, len(shape)))}


def _layer_norm() -> Operator:
    def own(params: Params) -> tuple[int, ...]:
        return _layer_shapes(params)["weight"]

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        given = (arrays["input"], arrays.get("weight"), arrays.get("bias"))
        return reference.layer_norm(*given, normalized_shape=own(params))

    return array_operator(
        "layer_norm", op="layer_norm", axes=None, defaults=DEFAULTS, sizes=draw_layers,
        shapes=_layer_shapes, keywords=lambda params: {"normalized_shape": own(params)},
        optional=("weight", "bias"), truth=truth, rounds=True,
        bad={"input": "type", "out": "output"},
    )  # fmt: skip


def _slope_shapes(params: Params) -> Shapes:
    shapes = _with_channels(params, "weight")
    return shapes | {"weight": (1,)} if params["shared"] else shapes


def _prelu_sizes(draw: Draw) -> dict[str, Any]:
    return {"shape": draw_image(draw), "shared": draw(st.booleans())}


def _prelu() -> Operator:
    return array_operator(
        "prelu", op="prelu", axes=None, defaults=DEFAULTS, sizes=_prelu_sizes,
        shapes=_slope_shapes, keywords=lambda params: {}, required=("input", "weight"),
        truth=lambda arrays, params: reference.prelu(arrays["input"], arrays["weight"]),
        bad={"input": "type", "out": "output"},
    )  # fmt: skip


OPERATORS = (
    _softmax("softmax"),
    _softmax("log_softmax"),
    _batch_norm(),
    _group_norm(),
    _instance_norm(),
    _local_response_norm(),
    _layer_norm(),
    _prelu(),
)
