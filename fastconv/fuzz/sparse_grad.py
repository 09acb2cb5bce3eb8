"""Gradients of sparse operators, as `fastconv.sparse.grad` has them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv.sparse as sparse
from fastconv.kernels.reference import sparse as reference

from .dense import axes_of
from .operators import Operator, Params, Shapes, chosen_inside
from .sparse import DEFAULTS, draw, tensor, window_book
from .sparse_sites import is_grid, is_valid, ndim_of, sites_of, table_of

__all__ = ["OPERATORS"]


def _conv_input(arrays: dict[str, Any], params: Params) -> Any:
    given = arrays["weight"], arrays["grad"], params["groups"]
    return sparse.grad.conv_input(window_book(params), *given)


def _conv_input_truth(arrays: dict[str, Any], params: Params) -> Any:
    weight, groups = arrays["weight"], params["groups"]
    filters, channels, *kernel = weight.shape
    transposed = weight.reshape(groups, filters // groups, channels, *kernel).swapaxes(1, 2)
    transposed = transposed.reshape(groups * channels, filters // groups, *kernel)
    back = reference.reverse(table_of(params, "regular")[1], len(sites_of(params)))
    return reference.conv(arrays["grad"], transposed, back, None, groups)


def _conv_weight(arrays: dict[str, Any], params: Params) -> Any:
    given = arrays["input"], arrays["grad"], params["groups"]
    return sparse.grad.conv_weight(window_book(params), *given)


def _conv_weight_truth(arrays: dict[str, Any], params: Params) -> Any:
    table = table_of(params, "regular")[1]
    gradient = reference.weight_grad(arrays["input"], arrays["grad"], table, params["groups"])
    return gradient.reshape(*gradient.shape[:2], *axes_of(params["kernel"], ndim_of(params)))


def _conv_bias(arrays: dict[str, Any], params: Params) -> Any:
    return sparse.grad.conv_bias(arrays["grad"])


def _conv_bias_truth(arrays: dict[str, Any], params: Params) -> Any:
    return arrays["grad"].sum(axis=0)


def _max_pool(arrays: dict[str, Any], params: Params) -> Any:
    x, book = arrays["input"], window_book(params)  # the book first: it refuses what fits nothing
    with np.errstate(invalid="ignore"):
        largest = reference.max_pool(x, table_of(params, "regular")[1]).astype(x.dtype)
    return sparse.grad.max_pool_input(book, x, largest, arrays["grad"])


def _max_pool_truth(arrays: dict[str, Any], params: Params) -> Any:
    table = table_of(params, "regular")[1]
    x = arrays["input"]
    return reference.max_pool_grad(x, reference.max_pool(x, table), arrays["grad"], table)


def _avg_pool(arrays: dict[str, Any], params: Params) -> Any:
    return sparse.grad.avg_pool_input(window_book(params), arrays["grad"])


def _avg_pool_truth(arrays: dict[str, Any], params: Params) -> Any:
    table = table_of(params, "regular")[1]
    return reference.avg_pool_grad(arrays["grad"], table, len(sites_of(params)))


def _global_avg(arrays: dict[str, Any], params: Params) -> Any:
    x = tensor(arrays["input"], params)
    return sparse.grad.global_avg_pool_input(x, arrays["grad"])


def _global_avg_truth(arrays: dict[str, Any], params: Params) -> Any:
    batches = sites_of(params)[:, 0]
    counts = np.bincount(batches, minlength=params["batch"])
    return (arrays["grad"] / np.maximum(counts, 1)[:, None])[batches]


def _global_max(arrays: dict[str, Any], params: Params) -> Any:
    x = tensor(arrays["input"], params)
    return sparse.grad.global_max_pool_input(x, sparse.global_max_pool(x), arrays["grad"])


def _global_max_truth(arrays: dict[str, Any], params: Params) -> Any:
    x, batches = arrays["input"], sites_of(params)[:, 0]
    total = np.zeros_like(x)
    for batch in np.unique(batches):
        rows = np.flatnonzero(batches == batch)
        for channel in range(x.shape[1]):
            values = x[rows, channel]
            first = rows[np.flatnonzero(np.isnan(values))[:1]]  # a NaN is the largest
            first = first if first.size else rows[[int(np.argmax(values))]]
            total[first, channel] = arrays["grad"][batch, channel]
    return total


#: Function, truth, the registry's operator, the arrays of a call, and the shape of the result.
_TABLE: dict[str, tuple[Callable[..., Any], Callable[..., Any], str, tuple[str, ...], str]] = {
    "conv_input": (_conv_input, _conv_input_truth, "sparse_conv", ("weight", "grad"), "input"),
    "conv_weight": (
        _conv_weight, _conv_weight_truth, "sparse_weight_grad", ("input", "grad"), "weight"
    ),
    "conv_bias": (_conv_bias, _conv_bias_truth, "sparse_conv", ("grad",), "bias"),
    "max_pool_input": (
        _max_pool, _max_pool_truth, "sparse_max_pool_grad", ("input", "grad"), "input"
    ),
    "avg_pool_input": (_avg_pool, _avg_pool_truth, "sparse_avg_pool_grad", ("grad",), "input"),
    "global_max_pool_input": (
        _global_max, _global_max_truth, "sparse_global_max_pool", ("input", "grad"), "input"
    ),
    "global_avg_pool_input": (
        _global_avg, _global_avg_truth, "sparse_global_avg_pool", ("input", "grad"), "input"
    ),
}  # fmt: skip


def _shapes(name: str, params: Params) -> Shapes:
    _, _, _, given, result = _TABLE[name]
    channels, filters = (params[key] * params["groups"] for key in ("channels", "filters"))
    every: Shapes = {"input": (len(sites_of(params)), channels)}
    if name.startswith("global") and is_grid(params["size"], params["batch"]):
        every["grad"] = (params["batch"], channels)
    elif not name.startswith("global") and is_valid(params, "regular"):
        after = len(table_of(params, "regular")[0])
        every["grad"] = (after, filters if name.startswith("conv") else channels)
        kernel = axes_of(params["kernel"], ndim_of(params))
        every["weight"] = (filters, params["channels"], *kernel)
        every["bias"] = (filters,)
    elif name == "conv_bias":  # which asks no window
        every |= {"grad": (1, filters), "bias": (filters,)}
    else:
        return dict.fromkeys(given, (1, 1))
    return {**{key: every[key] for key in given}, "out": every[result]}


def _draw(draw_: Any, name: str, options: Any) -> Any:
    return draw(draw_, name, options)


def _work(shapes: Shapes, params: Params) -> float:
    return 2.0 * np.prod(shapes.get("grad", (0,))) * params["channels"] * 81.0


def _operator(name: str) -> Operator:
    function, truth, op, given, _ = _TABLE[name]
    return Operator(
        name=f"grad.{name}",
        group="sparse",
        op=op,
        defaults=DEFAULTS,
        draw=_draw,
        shapes=functools.partial(_shapes, name),
        function=function,
        truth=truth,
        problem=chosen_inside,
        work=_work,
        required=tuple(operand for operand in given if operand != "weight"),
        weights=("weight",) if "weight" in given else (),
        rounds="avg" in name,
        bad={"grad": "lone"},
    )


OPERATORS = tuple(map(_operator, _TABLE))
