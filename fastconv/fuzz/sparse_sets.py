"""Sparse tensors joined and taken apart, and the gradients of that: two tensors, by their sites.

Results of several arrays, and gradients for both tensors, are compared end to end as one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastconv.sparse as sparse
from fastconv.kernels.reference import sparse_sets as reference

from .case import Case
from .drawing import Draw, Options, draw_calls, draw_dtype
from .operators import Failed, Operator, Params, Shapes, chosen_inside
from .sparse import tensor
from .sparse_draw import draw_channels, draw_size
from .sparse_sites import is_grid, sites_of

__all__ = ["OPERATORS"]

_DEFAULTS = {
    "size": [4], "batch": 1, "sites": 1, "place": 0, "corner": "low", "channels": 1,
    "others": 1, "elsewhere": 0, "more": 1, "cut": [0, 0],
}  # fmt: skip
_PAIRS = ("union", "add", "subtract", "multiply", "concat")
_ALONE = ("prune", "crop", "split_batch")
Array = NDArray[Any]
Sites = list[tuple[int, ...]]


def _second(params: Params) -> Params:
    """Return what tells of the other tensor."""
    return {**params, "sites": params["others"], "place": params["elsewhere"]}


def _sites(params: Params) -> Sites:
    return [tuple(site) for site in sites_of(params).tolist()]


def _union(x: Sites, y: Sites) -> Sites:
    """Return the sites that either has, in the order that `fastconv.sparse.union` tells."""
    if set(x) <= set(y) and set(x) != set(y):
        return y
    return x + [site for site in y if site not in set(x)]


def _box(params: Params) -> tuple[list[int], list[int]]:
    """Return a box that leaves so many positions out at each end, and is not empty."""
    low = [min(params["cut"][0], length - 1) for length in params["size"]]
    pairs = zip(low, params["size"], strict=True)
    return low, [max(first + 1, length - params["cut"][1]) for first, length in pairs]


def _mask(params: Params) -> NDArray[np.bool_]:
    rows = len(sites_of(params))
    return np.random.default_rng(params["place"]).random(rows) < 0.5


def _after(name: str, params: Params) -> list[Sites]:
    """Return the sites of each result."""
    x, y = _sites(params), _sites(_second(params))
    if name == "multiply":
        return [[site for site in x if site in set(y)]]
    if name in _PAIRS:
        return [_union(x, y)] * (2 if name == "union" else 1)
    if name == "prune":
        return [[site for site, kept in zip(x, _mask(params), strict=True) if kept]]
    if name == "crop":
        low, high = _box(params)
        return [
            [
                (first, *(at - begin for at, begin in zip(place, low, strict=True)))
                for first, *place in x
                if all(a <= at < b for a, at, b in zip(low, place, high, strict=True))
            ]
        ]
    if name == "split_batch":
        return [
            [(0, *site[1:]) for site in x if site[0] == number] for number in range(params["batch"])
        ]
    return [x + [(first + params["batch"], *place) for first, *place in y]]


def _channels(name: str, params: Params) -> tuple[int, int]:
    """Return the channels of both tensors."""
    return params["channels"], params["more" if name in ("union", "concat") else "channels"]


def _is_valid(name: str, params: Params) -> bool:
    return is_grid(params["size"], params["batch"] * (2 if name == "join_batch" else 1))


def _columns(name: str, params: Params) -> list[int]:
    """Return the channels of each result."""
    mine, other = _channels(name, params)
    if name == "union":
        return [mine, other]
    columns = mine + other if name == "concat" else mine
    return [columns] * (params["batch"] if name == "split_batch" else 1)


def _shapes(name: str, params: Params) -> Shapes:
    mine, other = _channels(name, params)
    shapes: Shapes = {"input": (len(sites_of(params)), mine)}
    if name not in _ALONE:
        shapes["other"] = (len(sites_of(_second(params))), other)
    if _is_valid(name, params):
        sizes = zip(_after(name, params), _columns(name, params), strict=True)
        shapes["out"] = (sum(len(sites) * columns for sites, columns in sizes),)
    return shapes


def _call(name: str, arrays: dict[str, Any], params: Params) -> list[Any]:
    """Return the tensors that a function makes."""
    x = tensor(arrays["input"], params)
    function = getattr(sparse, name)
    if name == "prune":
        return [function(x, _mask(params))]
    if name == "crop":
        return [function(x, *_box(params))]
    if name == "split_batch":
        return list(function(x))
    y = tensor(arrays["other"], _second(params))
    made = function([x, y]) if name == "join_batch" else function(x, y)
    return list(made) if name == "union" else [made]


def _function(name: str, arrays: dict[str, Any], params: Params) -> Any:
    made = _call(name, arrays, params)
    wanted = _after(name, params)
    for result, sites in zip(made, wanted, strict=True):
        if [tuple(site) for site in result.indices.tolist()] != sites:
            raise Failed("wrong sites", f"got {result.indices.tolist()[:9]}, want {sites[:9]}")
    return np.concatenate([result.features.ravel() for result in made])


def _truth(name: str, arrays: dict[str, Any], params: Params) -> Any:
    """Return the results in float64, whose sites are known to be right."""
    x, rows = arrays["input"], _sites(params)
    if name == "prune":
        return x[_mask(params)].ravel()
    if name == "crop":
        low, high = _box(params)
        places = sites_of(params)[:, 1:]
        return x[((places >= low) & (places < high)).all(axis=1)].ravel()
    if name == "split_batch":
        return x[np.argsort([site[0] for site in rows], kind="stable")].ravel()
    y = arrays["other"]
    if name == "join_batch":
        return np.concatenate([x.ravel(), y.ravel()])
    first, second = reference.values(rows, x), reference.values(_sites(_second(params)), y)
    sites = _after(name, params)[0]
    if name == "union":
        nothing = np.zeros(x.shape[1]), np.zeros(y.shape[1])
        found = [first.get(site, nothing[0]) for site in sites]
        found += [second.get(site, nothing[1]) for site in sites]
        return np.concatenate([*found, np.empty(0)])
    if not first or not second:  # the reference asks some row for the channels
        first = first or {(-1,): np.zeros(x.shape[1])}
        second = second or {(-1,): np.zeros(y.shape[1])}
    with np.errstate(all="ignore"):
        made = getattr(reference, name)(first, second)
    return np.concatenate([*(made[site] for site in sites), np.empty(0)])


def _gradient_shapes(name: str, params: Params) -> Shapes:
    forward = _shapes(name, params)
    out = forward.pop("out", None)
    if out is None:
        return {**forward, "grad": (1,)}
    sizes = [int(np.prod(shape)) for shape in forward.values()]
    return {**forward, "grad": out, "out": (sum(sizes),)}


def _gradient(name: str, arrays: dict[str, Any], params: Params) -> Any:
    x = tensor(arrays["input"], params)
    grads = _parted(name, arrays["grad"], params)
    function = getattr(sparse.grad, f"{name}_input{'' if name in _ALONE else 's'}")
    if name in _ALONE:
        told: Sequence[Any] = {"prune": (_mask(params),), "crop": _box(params)}.get(name, ())
        given = grads if name == "split_batch" else grads[0]
        return np.ravel(function(x, *told, given))
    y = tensor(arrays["other"], _second(params))
    tensors = ([x, y],) if name == "join_batch" else (x, y)
    return np.concatenate([np.ravel(each) for each in function(*tensors, *grads)])


def _parted(name: str, grad: Array, params: Params) -> list[Array]:
    """Return the gradient for each result."""
    if not _is_valid(name, params) or grad.ndim != 1:
        return [grad]
    parts, start = [], 0
    for sites, columns in zip(_after(name, params), _columns(name, params), strict=True):
        parts.append(grad[start : start + len(sites) * columns].reshape(len(sites), columns))
        start += len(sites) * columns
    return parts


def _gradient_truth(name: str, arrays: dict[str, Any], params: Params) -> Any:
    """Return the sum over all results of gradient times derivative, an element at a time."""
    grads = arrays["grad"]
    given = [key for key in ("input", "other") if key in arrays]
    numbers: dict[str, Any] = {key: _numbered(arrays, key) for key in given}
    if name != "multiply":
        if name in ("add", "subtract"):
            return _sum_gradient(name, arrays, params)
        places = _truth(name, {**arrays, **numbers}, params)  # each element's number, or 0
        total = np.zeros(1 + sum(array.size for array in numbers.values()))
        total[places.astype(np.int64)] = grads
        return total[1:]
    mine, other = _sites(params), _sites(_second(params))
    rows = dict(zip(_after(name, params)[0], _parted(name, grads, params)[0], strict=True))
    first, second = np.zeros_like(arrays["input"]), np.zeros_like(arrays["other"])
    for site, row in rows.items():
        a, b = mine.index(site), other.index(site)
        first[a], second[b] = row * arrays["other"][b], row * arrays["input"][a]
    return np.concatenate([first.ravel(), second.ravel()])


def _numbered(arrays: dict[str, Any], key: str) -> Array:
    """Return the numbers of a tensor's elements, from 1 on, those of the other one behind."""
    start = 1 + (arrays["input"].size if key == "other" else 0)
    return np.arange(start, start + arrays[key].size, dtype=np.float64).reshape(arrays[key].shape)


def _sum_gradient(name: str, arrays: dict[str, Any], params: Params) -> Any:
    rows = dict(zip(_after(name, params)[0], _parted(name, arrays["grad"], params)[0], strict=True))
    sign = -1 if name == "subtract" else 1
    found = [rows[site] for site in _sites(params)]
    found += [sign * rows[site] for site in _sites(_second(params))]
    return np.concatenate([*found, np.empty(0)])


def _draw(draw: Draw, name: str, options: Options) -> Case:
    def other(draw: Draw) -> dict[str, Any]:
        return {
            "sites": draw(st.integers(0, 40)),
            "others": draw(st.integers(0, 40)),
            "elsewhere": draw(st.integers(0, 99)),
        }

    params: dict[str, Any] = {
        "size": draw_size(draw, draw(st.sampled_from((3, 2, 1, 4)))),
        "batch": draw(st.sampled_from((1, 2, 3))),
        "place": draw(st.integers(0, 99)),
        "corner": draw(st.sampled_from(("low", "high"))),
        "channels": draw_channels(draw),
        "more": draw_channels(draw),
        "cut": [draw(st.sampled_from((0, 1, 2, 5))) for _ in range(2)],
        **other(draw),
    }
    if draw(st.integers(0, 4)) == 4:  # the same sites
        params |= {"others": params["sites"], "elsewhere": params["place"]}
    calls = draw_calls(draw, options, name, sizes=other, ndim=2)
    return calls.case(name, params, draw_dtype(draw))


def _operator(name: str, is_gradient: bool) -> Operator:
    def bind(function: Callable[..., Any]) -> Any:
        return partial(function, name)

    given = ("input",) if name in _ALONE else ("input", "other")
    gradient = f"grad.{name}_input{'' if name in _ALONE else 's'}"
    return Operator(
        name=gradient if is_gradient else f"sparse_{name}",
        group="sparse",
        op="",
        defaults=_DEFAULTS,
        draw=_draw,
        shapes=bind(_gradient_shapes if is_gradient else _shapes),
        function=bind(_gradient if is_gradient else _function),
        truth=bind(_gradient_truth if is_gradient else _truth),
        problem=chosen_inside,
        work=lambda shapes, params: 1e3 * sum(int(np.prod(shape)) for shape in shapes.values()),
        required=(*given, "grad") if is_gradient else given,
        bad=dict.fromkeys(given, "lone"),
    )


OPERATORS = tuple(
    _operator(name, is_gradient)
    for is_gradient in (False, True)
    for name in (*_PAIRS, *_ALONE, "join_batch")
)
