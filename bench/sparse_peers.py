"""Columns of sparse rows: fastconv's own and spconv."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastconv.demo.spconv_calls import convolve, find_pairs, invert, max_pool

from .peer import Call, Peer, Refusal
from .sparse import SparseLayer
from .sparse_own import SparseFastconv, SparseFastconvBest, SparseFastconvFunctional
from .sparse_scan import sites

__all__ = ["SPARSE_PEERS", "Spconv"]


class Spconv(Peer):
    """The functions that spconv's modules call, on tensors of the CPU, with one thread."""

    name = "spconv"
    modules: ClassVar[tuple[str, ...]] = ("spconv", "torch")
    distribution = "spconv"
    note = (
        "spconv: one thread whatever --threads says, since with more its results on a CPU are "
        "wrong and differ from run to run"
    )

    def __init__(self, threads: int) -> None:
        super().__init__(1)
        import torch

        torch.set_num_threads(1)
        torch.inference_mode().__enter__()  # for the rest of this process

    def prepare(
        self, layer: SparseLayer, indices: np.ndarray, x: np.ndarray, w: np.ndarray
    ) -> Call:
        """Return the call: the pairs alone, the pairs and the layer, or the layer alone."""
        import torch

        if layer.groups > 1:
            raise Refusal("spconv has no groups")
        self._indices = torch.from_numpy(indices)
        krsc = np.ascontiguousarray(np.moveaxis(w, 1, -1))
        run = self._layer(layer, torch.from_numpy(x), torch.from_numpy(krsc))
        pairs = self._pairs(layer)
        if layer.op == "rulebook":
            return lambda: self._pairs(layer)
        if layer.fresh:
            return lambda: run(self._pairs(layer))
        return lambda: run(pairs)

    def _pairs(self, layer: SparseLayer) -> tuple[Any, Any, Any]:
        window = (layer.kernel_size, layer.stride, layer.padding)
        return find_pairs(self._indices, sites().spatial_shape, *window, layer.is_submanifold)

    def _layer(self, layer: SparseLayer, x: Any, weight: Any) -> Callable[[Any], Any]:
        """Return the layer as a function of what `_pairs` returned."""
        if layer.op == "sparse_max_pool":
            return lambda pairs: max_pool(x, pairs)
        if layer.op == "sparse_inverse_conv":
            rows = len(self._indices)
            ranked = x[self._sorting(layer)[1]]  # its input's rows are in spconv's own order
            return lambda pairs: invert(ranked, weight, pairs, rows)
        return lambda pairs: convolve(x, weight, pairs, layer.is_submanifold)

    def _sorting(self, layer: SparseLayer) -> tuple[np.ndarray, np.ndarray]:
        """Return the order that sorts the sites after, and the rank of each in it."""
        out, _, _ = self._pairs(layer)
        order = np.lexsort(out.numpy()[:, ::-1].T)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return order, rank

    def to_numpy(self, layer: SparseLayer, result: Any) -> np.ndarray:
        """Return features sorted by site, or the pairs as a table of neighbours."""
        if layer.op == "rulebook":
            return _table(*(part.numpy() for part in result))
        features: np.ndarray = result.numpy()
        if layer.op in ("sparse_conv", "sparse_max_pool"):
            features = features[self._sorting(layer)[0]]
        return features


def _table(out: np.ndarray, pairs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the row before that each row after meets at each offset, or -1.

    Of a submanifold kernel spconv lists the offsets before the middle one: at the middle each site
    meets itself, and the offsets after it mirror those before.
    """
    table = np.full((len(counts), len(out)), -1, np.int32)
    middle = len(counts) // 2
    table[middle] = np.arange(len(out))
    for k in range(middle):
        before, after = pairs[:, k, : counts[k]]
        table[k, after] = before
        table[-1 - k, before] = after
    return table


SPARSE_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (SparseFastconv, SparseFastconvFunctional, SparseFastconvBest, Spconv)
}
