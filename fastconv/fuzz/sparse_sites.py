"""Sites, geometries and tables of neighbours from a case's parameters."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.errors import ShapeError
from fastconv.contract.geometry import LONGEST_AXIS, Geometry
from fastconv.kernels.reference import sparse as reference_sparse

from .dense import axes_of, pads_of
from .operators import Params

__all__ = ["geometry_of", "is_grid", "is_valid", "ndim_of", "sites_of", "table_of"]

#: Sites lie within so many positions of one corner of the grid, so that they meet.
_EXTENT = 12


def ndim_of(params: Params) -> int:
    """Return the number of spatial axes: a size has an entry for each."""
    return len(params["size"])


def sites_of(params: Params) -> NDArray[np.int64]:
    """Return the active sites, in no order."""
    batch, size = params["batch"], params["size"]
    extent = [min(length, _EXTENT) for length in size]
    cells = batch * math.prod(extent)
    rng = np.random.default_rng(params["place"])
    picked = rng.choice(cells, min(params["sites"], cells), replace=False)
    sites = np.stack(np.unravel_index(picked, (batch, *extent)), axis=1).astype(np.int64)
    if params["corner"] == "high":
        sites[:, 1:] += [length - near for length, near in zip(size, extent, strict=True)]
    return sites


def geometry_of(params: Params, kind: str) -> Geometry:
    """Return how sites before and after are related."""
    ndim = ndim_of(params)
    kernel, dilation = axes_of(params["kernel"], ndim), axes_of(params["dilation"], ndim)
    stride, pads = axes_of(params["stride"], ndim), pads_of(params, ndim)
    more = axes_of(params["output_padding"], ndim)
    if kind == "submanifold":
        stride, pads = (1,) * ndim, pads_of({**params, "padding": "same"}, ndim)
    shape = tuple(params["size"])
    return Geometry(kind, shape, params["batch"], kernel, stride, dilation, pads, more)


def is_grid(shape: Sequence[int], batch: int) -> bool:
    """Tell whether a grid's sites can be counted, and their places told."""
    return min(shape) >= 1 and max(shape) <= LONGEST_AXIS and batch * math.prod(shape) < 2**63


def is_valid(params: Params, kind: str) -> bool:
    """Tell whether the arguments describe an operator."""
    if not is_grid(params["size"], params["batch"]):
        return False
    try:
        geometry = geometry_of(params, kind)
    except ShapeError:  # a number below or above what a geometry takes
        return False
    limits = map(max, geometry.stride, geometry.dilation)
    if any(not 0 <= m < limit for m, limit in zip(geometry.output_padding, limits, strict=True)):
        return False
    return is_grid(geometry.out_shape, params["batch"])


def table_of(params: Params, kind: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the sites after an operator, and which rows meet at which offset."""
    names = (
        "size", "batch", "kernel", "stride", "padding", "dilation", "output_padding", "sites",
        "place", "corner",
    )  # fmt: skip
    return _table(json.dumps({name: params[name] for name in names}), kind)


@functools.lru_cache(maxsize=16)
def _table(told: str, kind: str) -> Any:
    params = json.loads(told)
    return reference_sparse.build(geometry_of(params, kind), sites_of(params))
