"""What goes by the places of maxima: unpools, and the gradients of both ways.

Places follow from a case's sizes: those of an unpool are different ones, so that it has one right
result, and those of a pool's gradient come more than once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastconv.grad as grad
from fastconv.kernels import reference

from .array_ops import array_operator
from .dense import axes_of, fixed
from .drawing import Draw, plain
from .operators import Operator, Params, Shapes

__all__ = ["OPERATORS"]

_DEFAULTS = {
    "batch": 1, "channels": 1, "size": 1, "kernel": 1, "stride": 1, "excess": 0, "place": 0,
}  # fmt: skip


def _sizes(ndim: int, draw: Draw) -> dict[str, Any]:
    most = {1: 200, 2: 14, 3: 5}[ndim]
    size = [draw(st.integers(1, most)) for _ in range(ndim)]
    stride = [draw(st.integers(1, 3)) for _ in size]
    return {
        "batch": draw(st.sampled_from((1, 2, None, 0))),
        "channels": draw(st.sampled_from((1, 2, 3, 8, 17))),
        "size": plain(size),
        "kernel": plain([draw(st.integers(1, 3)) for _ in size]),
        "stride": plain(stride),
        "excess": plain([draw(st.integers(0, step - 1)) for step in stride]),
        "place": draw(st.integers(0, 99)),
    }


def _pooled(ndim: int, params: Params) -> tuple[int, ...]:
    batch = () if params["batch"] is None else (params["batch"],)
    return (*batch, params["channels"], *axes_of(params["size"], ndim))


def _grid(ndim: int, params: Params) -> tuple[int, ...]:
    """Return the shape of what is pooled."""
    told = (axes_of(params[name], ndim) for name in ("size", "kernel", "stride", "excess"))
    sizes = [(n - 1) * step + taps + more for n, taps, step, more in zip(*told, strict=True)]
    return (*_pooled(ndim, params)[:-ndim], *sizes)


def _places(ndim: int, params: Params, differ: bool) -> NDArray[np.int64]:
    shape = _pooled(ndim, params)
    cells, count = math.prod(_grid(ndim, params)[-ndim:]), math.prod(shape[-ndim:])
    rng = np.random.default_rng(params["place"])
    rows = [
        rng.permutation(cells)[:count] if differ else rng.integers(0, cells, count)
        for _ in range(math.prod(shape[:-ndim]))
    ]
    return np.array(rows, np.int64).reshape(shape)


def _batched(array: Any, ndim: int) -> Any:
    return array if array.ndim == ndim + 2 else array[None]


def _truth(
    ndim: int, params: Params, array: Any, differ: bool, shape: tuple[int, ...], reference_of: Any
) -> Any:
    """Return what a reference makes of an array and the places, of a shape."""
    if 0 in shape:
        return np.zeros(shape)
    given = _batched(array, ndim), _batched(_places(ndim, params, differ), ndim)
    return reference_of(*given).reshape(shape)


def _unpool(ndim: int) -> Operator:
    def keywords(params: Params) -> dict[str, Any]:
        told = {name: fixed(params[name]) for name in ("stride",)}
        given = params.get("kernel_size", params["kernel"])
        return told | {
            "indices": _places(ndim, params, True),
            "kernel_size": fixed(given),
            "output_size": _grid(ndim, params)[-ndim:],
        }

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        grid = _grid(ndim, params)
        return _truth(
            ndim, params, arrays["input"], True, grid,
            lambda x, places: reference.max_unpool(
                x, places, output_size=grid[-ndim:], kernel_size=(), stride=(), padding=()
            ),
        )  # fmt: skip

    def shapes(params: Params) -> Shapes:
        return {"input": _pooled(ndim, params), "out": _grid(ndim, params)}

    return array_operator(
        f"max_unpool{ndim}d", op="max_unpool", axes=ndim, defaults=_DEFAULTS,
        bad={"kernel_size": "positive", "input": "lone", "out": "output"},
        sizes=lambda draw: _sizes(ndim, draw), shapes=shapes, keywords=keywords, truth=truth,
    )  # fmt: skip


def _unpool_gradient(ndim: int) -> Operator:
    def shapes(params: Params) -> Shapes:
        return {"grad_output": _grid(ndim, params), "out": _pooled(ndim, params)}

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        shape = _pooled(ndim, params)
        return _truth(ndim, params, arrays["grad_output"], True, shape, reference.max_unpool_grad)

    return array_operator(
        f"max_unpool{ndim}d_input", op="max_unpool_grad", axes=ndim, defaults=_DEFAULTS,
        bad={"grad_output": "lone"}, required=("grad_output",), module=grad, outputs=False,
        sizes=lambda draw: _sizes(ndim, draw), shapes=shapes, truth=truth,
        keywords=lambda params: {"indices": _places(ndim, params, True)},
    )  # fmt: skip


def _pool_gradient(name: str, ndim: int) -> Operator:
    def shapes(params: Params) -> Shapes:
        return {"grad_output": _pooled(ndim, params), "out": _grid(ndim, params)}

    def keywords(params: Params) -> dict[str, Any]:
        return {"indices": _places(ndim, params, False), "input_size": _grid(ndim, params)}

    def truth(arrays: dict[str, Any], params: Params) -> Any:
        grid = _grid(ndim, params)
        size = (1, *grid) if params["batch"] is None else grid
        return _truth(
            ndim, params, arrays["grad_output"], False, grid,
            lambda grads, places: reference.max_pool_grad(grads, places, input_size=size),
        )  # fmt: skip

    return array_operator(
        f"{name}{ndim}d_input", op="max_pool_grad", axes=ndim, defaults=_DEFAULTS,
        bad={"grad_output": "lone"}, required=("grad_output",), module=grad, outputs=False,
        sizes=lambda draw: _sizes(ndim, draw), shapes=shapes, keywords=keywords, truth=truth,
    )  # fmt: skip


OPERATORS = (
    *map(_unpool, (1, 2, 3)),
    *map(_unpool_gradient, (1, 2, 3)),
    *(
        _pool_gradient(name, ndim)
        for name in ("max_pool", "adaptive_max_pool")
        for ndim in (1, 2, 3)
    ),
)
