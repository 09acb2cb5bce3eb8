"""Sparse operators: convolutions and pools as functions and as layers of `fastconv.sparse.nn`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv.sparse as sparse
from fastconv.kernels.reference import sparse as reference
from fastconv.sparse.functional import call_of

from .case import Case
from .dense import fixed
from .operators import Failed, Operator, Params, Shapes
from .sparse_sites import geometry_of, is_grid, is_valid, ndim_of, sites_of, table_of

__all__ = ["DEFAULTS", "KINDS", "OPERATORS", "draw", "tensor", "window_book"]

DEFAULTS = {
    "size": [4],
    "batch": 1,
    "sites": 1,
    "place": 0,
    "corner": "low",
    "channels": 1,
    "filters": 1,
    "groups": 1,
    "kernel": 1,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "activation": None,
    "order": "KCRS",
    "book": "",
}

#: The relation of sites that each operator has; pools over everything have none.
KINDS = {
    "subm_conv": "submanifold",
    "sparse_conv": "regular",
    "sparse_conv_transpose": "transposed",
    "sparse_inverse_conv": "regular",
    "sparse_max_pool": "regular",
    "sparse_avg_pool": "regular",
    "global_max_pool": "",
    "global_avg_pool": "",
}
#: Arguments of each function beside arrays.
_ARGUMENTS = {
    "subm_conv": ("dilation", "groups", "activation"),
    "sparse_conv": ("stride", "padding", "dilation", "groups", "activation"),
    "sparse_conv_transpose": (
        "stride", "padding", "output_padding", "groups", "dilation", "activation"
    ),
    "sparse_inverse_conv": ("groups", "activation"),
    "sparse_max_pool": ("stride", "padding", "dilation"),
    "sparse_avg_pool": ("stride", "padding", "dilation"),
    "global_max_pool": (),
    "global_avg_pool": (),
}  # fmt: skip
_LAYERS = {
    "subm_conv": "SubMConv",
    "sparse_conv": "SparseConv",
    "sparse_conv_transpose": "SparseConvTranspose",
    "sparse_inverse_conv": "SparseInverseConv",
    "sparse_max_pool": "SparseMaxPool",
    "sparse_avg_pool": "SparseAvgPool",
}


def draw(draw_: Any, name: str, options: Any) -> Case:
    """Draw a case of any operator here and in `sparse_grad`."""
    from . import sparse_draw

    return sparse_draw.draw_case(draw_, name, options)


def tensor(features: Any, params: Params) -> sparse.SparseTensor:
    """Return the tensor with these features at the case's sites."""
    return sparse.SparseTensor(features, sites_of(params), params["size"], params["batch"])


def _shapes(name: str, params: Params) -> Shapes:
    channels, filters = (params[key] * params["groups"] for key in ("channels", "filters"))
    kernel = fixed(params["kernel"])
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * ndim_of(params)
    rows, kind = len(sites_of(params)), KINDS[name]
    shapes: Shapes = {"input": (rows, channels)}
    if not kind:
        if is_grid(params["size"], params["batch"]):
            shapes["out"] = (params["batch"], channels)
        return shapes
    if "pool" not in name:
        shapes |= {"weight": (filters, params["channels"], *kernel), "bias": (filters,)}
        if params["order"] == "KRSC":
            shapes["weight"] = (filters, *kernel, params["channels"])
    if is_valid(params, kind):
        after = len(table_of(params, kind)[0])
        if name == "sparse_inverse_conv":
            shapes["input"], after = (after, channels), rows
        shapes["out"] = (after, channels if "pool" in name else filters)
    return shapes


def _keywords(name: str, params: Params) -> dict[str, Any]:
    return {argument: fixed(params[argument]) for argument in _ARGUMENTS[name]}


def window_book(params: Params, features: Any = None) -> Any:
    """Return the rulebook of a window over the sites."""
    if features is None:
        features = np.ones((len(sites_of(params)), 1), np.float32)
    return sparse.make_rulebook(
        tensor(features, params),
        fixed(params["kernel"]), fixed(params["stride"]), fixed(params["padding"]),
        fixed(params["dilation"]), kind="regular",
    )  # fmt: skip


def _input(name: str, features: Any, params: Params) -> tuple[sparse.SparseTensor, dict[str, Any]]:
    """Return the tensor that is given, and how the rulebook is named."""
    if name != "sparse_inverse_conv":
        return tensor(features, params), {"indice_key": "key"} if params["book"] else {}
    book = window_book(params)
    coarse = sparse.SparseTensor(features, book.out_indices, book.out_shape, params["batch"])
    if not params["book"]:
        return coarse, {"rulebook": book}
    coarse.keep("key", book)
    return coarse, {"indice_key": "key"}


def _arguments(name: str, arrays: dict[str, Any], params: Params) -> tuple[Any, ...]:
    """Return the positional and the keyword arguments of the function."""
    x, named = _input(name, arrays["input"], params)
    if not KINDS[name]:
        return (x,), {}
    keywords = {**_keywords(name, params), **named}
    if "pool" in name:
        return (x, fixed(params["kernel"])), keywords
    return (x, arrays["weight"], arrays.get("bias")), {**keywords, "weight_layout": params["order"]}


def _function(name: str, arrays: dict[str, Any], params: Params) -> Any:
    positional, keywords = _arguments(name, arrays, params)
    call = getattr(sparse, name)
    y = call(*positional, **keywords)
    if params["book"] and KINDS[name]:  # a second layer over the same sites finds the rulebook
        again = call(*positional, **keywords)
        if again.features.tobytes() != y.features.tobytes():
            raise Failed("rulebook differs", "other bits by the rulebook that was kept")
    return _features(name, y, params)


def _features(name: str, y: Any, params: Params) -> Any:
    """Return the features of a result whose sites are right."""
    if not KINDS[name]:
        return y
    expected: Any = sites_of(params)
    if name not in ("subm_conv", "sparse_inverse_conv"):
        expected = table_of(params, KINDS[name])[0]
    if y.indices.tolist() != expected.tolist():
        raise Failed("wrong sites", f"got {y.indices.tolist()[:9]}, want {expected.tolist()[:9]}")
    shape = geometry_of(params, KINDS[name]).out_shape
    if name in ("subm_conv", "sparse_inverse_conv"):
        shape = tuple(params["size"])
    if y.spatial_shape != shape or y.batch_size != params["batch"]:
        raise Failed("wrong grid", f"got {y.batch_size} x {y.spatial_shape}, want {shape}")
    return y.features


def _make(name: str, arrays: dict[str, Any], params: Params) -> Any:
    layer = getattr(sparse.nn, f"{_LAYERS[name]}{ndim_of(params)}d")
    if "pool" in name:
        key = "key" if params["book"] else None
        return layer(fixed(params["kernel"]), **_keywords(name, params), indice_key=key)
    channels, filters = (params[key] * params["groups"] for key in ("channels", "filters"))
    told = {"kernel_size": fixed(params["kernel"]), "bias": "bias" in arrays}
    if name == "sparse_inverse_conv" or params["book"]:
        told["indice_key"] = "key"
    keywords = {key: value for key, value in _keywords(name, params).items() if value}
    made = layer(channels, filters, **told, **keywords)
    return made.load(arrays["weight"], arrays.get("bias"), weight_layout=params["order"])


def _apply(name: str, layer: Any, arrays: dict[str, Any], params: Params) -> Any:
    named = {**params, "book": "key"} if name == "sparse_inverse_conv" else params
    x, _ = _input(name, arrays["input"], named)
    return _features(name, layer(x), params)


def _truth(name: str, arrays: dict[str, Any], params: Params) -> Any:
    x = arrays["input"]
    if not KINDS[name]:
        batches = sites_of(params)[:, 0]
        return getattr(reference, name)(x, batches, params["batch"])
    table = table_of(params, KINDS[name])[1]
    if "pool" in name:
        return getattr(reference, name.removeprefix("sparse_"))(x, table)
    weight = arrays["weight"]
    if params["order"] == "KRSC":
        weight = weight.transpose(0, weight.ndim - 1, *range(1, weight.ndim - 1))
    if name == "sparse_inverse_conv":
        table = reference.reverse(table, len(sites_of(params)))
    return reference.conv(x, weight, table, arrays.get("bias"), params["groups"])


def _problem(name: str, arrays: dict[str, Any], params: Params) -> Any:
    positional, keywords = _arguments(name, arrays, params)
    return call_of(getattr(sparse, name), *positional, **keywords).problem


def _work(shapes: Shapes, params: Params) -> float:
    return 2.0 * math.prod(shapes.get("out", (0,))) * math.prod(shapes.get("weight", (1,))[1:])


_BAD = {
    "subm_conv": ("dilation", "groups", "activation"),
    "sparse_conv": ("stride", "padding", "dilation", "groups", "activation"),
    "sparse_conv_transpose": ("stride", "padding", "output_padding", "dilation", "groups"),
    "sparse_inverse_conv": ("groups", "activation"),
    "sparse_max_pool": ("stride", "padding", "dilation"),
    "sparse_avg_pool": ("stride", "padding", "dilation"),
    "global_max_pool": (),
    "global_avg_pool": (),
}
_BAD_KINDS = {
    "stride": "positive",
    "dilation": "positive",
    "padding": "pads",
    "output_padding": "sizes",
    "groups": "count",
    "activation": "activation",
}


_WEIGHTS = {"weight": "array", "bias": "array"}


def _operator(name: str) -> Operator:
    def bind(function: Callable[..., Any]) -> Any:
        return lambda *arguments: function(name, *arguments)

    has_weight = "pool" not in name
    bad = {argument: _BAD_KINDS[argument] for argument in _BAD[name]}
    return Operator(
        name=name,
        group="sparse",
        op=name.replace("global", "sparse_global") if has_weight is False else "sparse_conv",
        defaults=DEFAULTS,
        draw=draw,
        shapes=bind(_shapes),
        function=bind(_function),
        truth=bind(_truth),
        problem=bind(_problem),
        work=_work,
        make=bind(_make) if KINDS[name] else None,
        apply=bind(_apply),
        weights=("weight", "bias") if has_weight else (),
        rounds="avg" in name,
        bad={**bad, "input": "lone", **(_WEIGHTS if has_weight else {})},
    )


OPERATORS = tuple(map(_operator, KINDS))
