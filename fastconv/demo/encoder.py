"""A sparse encoder in the style of SECOND (Yan et al. 2018), run and timed layer by layer.

The layers are those of the backbone that detectors on LiDAR scans share::

    stage 1   4 > 16 > 16         submanifold, 3x3x3
    stage 2  16 > 32 > 32 > 32    stride 2, then two submanifold
    stage 3  32 > 64 > 64 > 64    the same
    stage 4  64 > 64 > 64 > 64    the same
    stage 5  64 > 128             3x1x1, stride 2 in height

Weights are random. The normalisation behind each layer takes its statistics from the scan itself
and is folded into weight and bias, so features neither vanish nor grow.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .cases import Array
from .engines import in_own_process

if TYPE_CHECKING:
    from ..sparse import SparseTensor

__all__ = [
    "LAYERS",
    "LayerRun",
    "Run",
    "SparseLayer",
    "SpconvRun",
    "Weights",
    "calibrate",
    "run_encoder",
    "run_spconv",
]

_REPEATS = 7
_REPEAT_SECONDS = 1.0

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class SparseLayer:
    """One convolution with folded normalisation and ReLU.

    Parameters
    ----------
    stage : int
        Counted from 1; layers of a stage share their sites once its first has run.
    in_channels, out_channels : int
        Channels before and after.
    kernel_size, stride, padding : tuple of int
        One entry an axis: z, y, x.
    is_submanifold : bool
        Whether outputs are at the inputs' sites.
    key : str
        Name of the rulebook.
    """

    stage: int
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    is_submanifold: bool
    key: str

    @property
    def name(self) -> str:
        """What the table calls it."""
        kernel, stride = ("x".join(map(str, sizes)) for sizes in (self.kernel_size, self.stride))
        return f"subm {kernel}" if self.is_submanifold else f"sparse {kernel}, stride {stride}"

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the grid after a layer that is not submanifold."""
        sizes = zip(shape, self.kernel_size, self.stride, self.padding, strict=True)
        return tuple((size + 2 * pad - taps) // step + 1 for size, taps, step, pad in sizes)


def _subm(stage: int, before: int, after: int) -> SparseLayer:
    return SparseLayer(stage, before, after, (3, 3, 3), (1, 1, 1), (1, 1, 1), True, f"subm{stage}")


def _down(stage: int, before: int, after: int, padding: tuple[int, ...]) -> SparseLayer:
    sizes = ((3, 3, 3), (2, 2, 2), padding)
    return SparseLayer(stage, before, after, *sizes, False, f"down{stage}")


LAYERS = (
    _subm(1, 4, 16),
    _subm(1, 16, 16),
    _down(2, 16, 32, (1, 1, 1)),
    _subm(2, 32, 32),
    _subm(2, 32, 32),
    _down(3, 32, 64, (1, 1, 1)),
    _subm(3, 64, 64),
    _subm(3, 64, 64),
    _down(4, 64, 64, (0, 1, 1)),
    _subm(4, 64, 64),
    _subm(4, 64, 64),
    SparseLayer(5, 64, 128, (3, 1, 1), (2, 1, 1), (0, 0, 0), False, "down5"),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a layer adds up with: ``(K, C, *kernel_size)`` and ``(K,)``, normalisation folded."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class LayerRun:
    """What came of one layer.

    Parameters
    ----------
    layer : SparseLayer
        What was computed.
    in_rows, out_rows, pairs : int
        Sites before and after, and how many pairs of them meet.
    kernel : str
        The dispatcher's choice.
    milliseconds : float
        Median of several runs, the rulebook known.
    rulebook_ms : float or None
        Median milliseconds to build the rulebook; None where an earlier layer has built it.
    """

    layer: SparseLayer
    in_rows: int
    out_rows: int
    pairs: int
    kernel: str
    milliseconds: float
    rulebook_ms: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """An encoder's pass over a scan: one entry a layer, and the features after each stage."""

    layers: list[LayerRun]
    stages: list[SparseTensor]


def calibrate(x: SparseTensor, seed: int = 0) -> list[Weights]:
    """Draw each layer's weight and fold the normalisation of what it gives on `x`.

    Parameters
    ----------
    x : SparseTensor
        The voxels, 4 channels. Rulebooks are kept with it.
    seed : int
        Of the weights.
    """
    from .. import FastconvError, fold_batch_norm

    random = np.random.default_rng(seed)
    made = []
    for layer in LAYERS:
        shape = (layer.out_channels, layer.in_channels, *layer.kernel_size)
        weight = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        sums = _module(layer, weight, None, None)(x).features.astype(np.float64)
        if not len(sums):
            raise FastconvError(f"SCAN: got too few voxels, none is left at stage {layer.stage}")
        folded = fold_batch_norm(weight, None, sums.mean(0), sums.var(0))
        made.append(Weights(*folded))
        x = _module(layer, *folded)(x)
    return made


def _module(
    layer: SparseLayer, weight: Array, bias: Array | None, activation: str | None = "relu"
) -> Any:
    """Return the layer as an object of `fastconv.sparse.nn`."""
    from ..sparse import nn

    make = nn.SubMConv3d if layer.is_submanifold else nn.SparseConv3d
    made = make(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        bias=bias is not None,
        indice_key=layer.key,
        activation=activation,
    )
    return made.load(weight, bias, weight_layout="KCRS")


def run_encoder(x: SparseTensor, weights: list[Weights]) -> Run:
    """Run and time every layer with `fastconv.sparse.nn`."""
    from .. import explain

    layers: list[LayerRun] = []
    stages: list[SparseTensor] = []
    for layer, given in zip(LAYERS, weights, strict=True):
        module = _module(layer, given.weight, given.bias)
        known = any(run.layer.key == layer.key for run in layers)
        rulebook_ms = None if known else _rulebook_ms(x, layer)
        kernel = explain(module, x).chosen
        y, milliseconds = _median_ms(module, x)
        pairs = y.rulebooks[layer.key].pairs
        layers.append(LayerRun(layer, len(x), len(y), pairs, kernel, milliseconds, rulebook_ms))
        stages = [*stages[: layer.stage - 1], y]
        x = y
    return Run(layers, stages)


def _rulebook_ms(x: SparseTensor, layer: SparseLayer) -> float:
    from ..sparse import make_rulebook

    kind = "submanifold" if layer.is_submanifold else "regular"
    build = functools.partial(make_rulebook, kind=kind)
    return _median_ms(build, x, layer.kernel_size, layer.stride, layer.padding)[1]


def _median_ms(call: Callable[..., Made], *given: Any) -> tuple[Made, float]:
    """Return what a call returns, and the median milliseconds of several after a first one."""
    made = call(*given)
    times: list[float] = []
    while not times or (len(times) < _REPEATS and sum(times) < _REPEAT_SECONDS):
        start = time.perf_counter()
        made = call(*given)
        times.append(time.perf_counter() - start)
    return made, statistics.median(times) * 1e3


@dataclass(frozen=True, slots=True)
class SpconvRun:
    """The same encoder by spconv.

    Parameters
    ----------
    milliseconds : list of float
        One a layer, with bias and ReLU, the pairs known.
    rulebook_ms : list of float or None
        To find the pairs; None where an earlier layer has.
    features : ndarray of float32, shape (rows, C)
        After the last layer, sorted by site.
    """

    milliseconds: list[float]
    rulebook_ms: list[float | None]
    features: Array


def run_spconv(x: SparseTensor, weights: list[Weights]) -> SpconvRun | str:
    """Run and time the encoder with spconv on one thread, or return why not."""
    missing = [name for name in ("spconv", "torch") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    return in_own_process(_run_spconv_here, x.features, x.indices, x.spatial_shape, weights)


def _run_spconv_here(
    features: Array, indices: Any, spatial_shape: tuple[int, ...], weights: list[Weights]
) -> SpconvRun:
    import torch

    from .spconv_calls import find_pairs

    torch.set_num_threads(1)
    x, sites = torch.from_numpy(features), torch.from_numpy(indices.copy())
    known: dict[str, Any] = {}
    milliseconds: list[float] = []
    rulebook_ms: list[float | None] = []
    with torch.inference_mode():
        for layer, given in zip(LAYERS, weights, strict=True):
            taken = None
            if layer.key not in known:
                geometry = (layer.kernel_size, layer.stride, layer.padding)
                known[layer.key], taken = _median_ms(
                    find_pairs, sites, spatial_shape, *geometry, layer.is_submanifold
                )
            pairs = known[layer.key]
            weight = torch.from_numpy(np.ascontiguousarray(np.moveaxis(given.weight, 1, -1)))
            bias = torch.from_numpy(given.bias)
            x, layer_ms = _median_ms(_spconv_layer, x, weight, bias, pairs, layer.is_submanifold)
            milliseconds.append(layer_ms)
            rulebook_ms.append(taken)
            if not layer.is_submanifold:
                sites, spatial_shape = pairs[0].contiguous(), layer.shape_after(spatial_shape)
    order = np.lexsort(sites.numpy()[:, ::-1].T)
    return SpconvRun(milliseconds, rulebook_ms, x.numpy()[order])


def _spconv_layer(x: Any, weight: Any, bias: Any, pairs: Any, submanifold: bool) -> Any:
    """Return the layer's output; on a CPU spconv itself adds no bias."""
    from .spconv_calls import convolve

    return convolve(x, weight, pairs, submanifold).add_(bias).relu_()
