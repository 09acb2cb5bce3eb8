"""fastconv's own columns of sparse rows: layers, functions, and the fastest kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .own import Fastconv, FastconvBest
from .peer import Call
from .sparse import SparseLayer
from .sparse_scan import sites

__all__ = ["SparseFastconv", "SparseFastconvBest", "SparseFastconvFunctional"]

#: The class of `fastconv.sparse.nn` for each function of `fastconv.sparse`.
_LAYERS = {
    "subm_conv": "SubMConv3d",
    "sparse_conv": "SparseConv3d",
    "sparse_inverse_conv": "SparseInverseConv3d",
    "sparse_max_pool": "SparseMaxPool3d",
}
_KEY = "row"  # of the rulebook that calls share
#: A callable with its positional and its named arguments.
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class SparseFastconv(Fastconv):
    """The layers of `fastconv.sparse.nn`: weights packed once."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._kernel = ""

    def prepare(self, layer: SparseLayer, *arrays: Any) -> Call:
        """Return the layer's call, or that which builds its rulebook."""
        from fastconv import explain
        from fastconv.sparse import make_rulebook

        self._kernel = ""
        indices, x, w = arrays
        tensor = _tensor(layer, indices, x)
        if layer.op == "rulebook":
            return lambda: make_rulebook(tensor, layer.kernel_size)
        run, given, named = self._call(layer, tensor, w)
        self._kernel = explain(run, *given, **named).chosen
        return lambda: run(*given, **named)

    def _call(self, layer: SparseLayer, tensor: Any, w: np.ndarray) -> _Call:
        """Return what is called, and with what."""
        from fastconv.sparse import nn

        make = getattr(nn, _LAYERS[layer.op])
        if layer.op == "sparse_max_pool":
            return make(layer.kernel_size, **_arguments(layer)), (tensor,), {}
        channels = (layer.in_channels, layer.out_channels)
        made = make(*channels, layer.kernel_size, bias=False, **_arguments(layer))
        return made.load(w, weight_layout="KCRS"), (tensor,), {}

    def able(self, layer: SparseLayer, *arrays: Any) -> list[str]:
        """Return the names of all kernels that can run a row; a rulebook needs none."""
        from fastconv import explain

        if layer.op == "rulebook":
            return []
        indices, x, w = arrays
        run, given, named = self._call(layer, _tensor(layer, indices, x), w)
        rows = explain(run, *given, **named).rows
        return [row.kernel for row in rows if row.milliseconds is not None]

    def to_numpy(self, layer: SparseLayer, result: Any) -> np.ndarray:
        """Return the features, or a rulebook's table."""
        array: np.ndarray = result.neighbours if layer.op == "rulebook" else result.features
        return array

    def kernel(self, layer: SparseLayer) -> str | None:
        """Return the dispatcher's choice."""
        return self._kernel or None


def _arguments(layer: SparseLayer) -> dict[str, Any]:
    """Return the arguments that functions and layers share."""
    arguments: dict[str, Any] = {"indice_key": None if layer.fresh else _KEY}
    if layer.op in ("sparse_conv", "sparse_max_pool"):
        arguments |= {"stride": layer.stride, "padding": layer.padding}
    if layer.op != "sparse_max_pool":
        arguments["groups"] = layer.groups
    return arguments


def _tensor(layer: SparseLayer, indices: np.ndarray, x: np.ndarray) -> Any:
    """Return the input: at the scan's sites, or for an inverse at those after a downsampling."""
    from fastconv.sparse import SparseTensor, make_rulebook

    if layer.op != "sparse_inverse_conv":
        return SparseTensor(x, indices, sites().spatial_shape, 1)
    scan = SparseTensor(np.zeros((len(indices), 1), x.dtype), indices, sites().spatial_shape, 1)
    window = (layer.kernel_size, layer.stride, layer.padding)
    rulebook = scan.keep(_KEY, make_rulebook(scan, *window, kind="regular"))
    after = SparseTensor(x, rulebook.out_indices, rulebook.out_shape, 1)
    after.keep(_KEY, rulebook)
    return after


class SparseFastconvFunctional(SparseFastconv):
    """The functions of `fastconv.sparse`: weights packed in every call."""

    name = "fastconv_functional"

    def _call(self, layer: SparseLayer, tensor: Any, w: np.ndarray) -> _Call:
        """Return what is called, and with what."""
        from fastconv import sparse

        what = layer.kernel_size if layer.op == "sparse_max_pool" else w
        return getattr(sparse, layer.op), (tensor, what), _arguments(layer)


class SparseFastconvBest(FastconvBest, SparseFastconv):
    """The layers with the fastest of all kernels that can run a row."""
