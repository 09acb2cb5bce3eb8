"""Layers with spconv's names and arguments, whose weights are packed once.

A layer is made from sizes, takes its weight from `load` or `load_state_dict` (in spconv's order of
axes, KRSC, unless told otherwise), and is called with a `SparseTensor`. Beside spconv's arguments
there is `activation`, which is computed as the sums are stored; a batch normalisation behind a
layer is folded into it.

Examples
--------
>>> import numpy as np
>>> from fastconv.sparse import SparseTensor, nn
>>> layer = nn.SubMConv3d(4, 16, 3, bias=False, indice_key="subm1", activation="relu")
>>> layer = layer.load(np.ones((16, 3, 3, 3, 4), np.float32))
>>> layer(SparseTensor(np.ones((1, 4), np.float32), [[0, 1, 2, 3]], (8, 8, 8)))
SparseTensor(1 sites of 1 x 8x8x8 (0.195%), 16 channels, float32, NumPy)
"""

from __future__ import annotations

from .layers import Inverse, MaxOrAvgPool, Regular, Sequential, Submanifold, Transposed

__all__ = [
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseAvgPool4d",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseSequential",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
]


class SparseSequential(Sequential):
    """Layers one after another; other callables are given the features."""


class _MaxPool(MaxOrAvgPool):
    _op = "sparse_max_pool"


class _AvgPool(MaxOrAvgPool):
    _op = "sparse_avg_pool"


class SubMConv1d(Submanifold):
    """A submanifold convolution over one axis; see `fastconv.sparse.subm_conv`."""

    _ndim = 1


class SubMConv2d(Submanifold):
    """A submanifold convolution over two axes; see `fastconv.sparse.subm_conv`."""

    _ndim = 2


class SubMConv3d(Submanifold):
    """A submanifold convolution over three axes; see `fastconv.sparse.subm_conv`."""

    _ndim = 3


class SubMConv4d(Submanifold):
    """A submanifold convolution over four axes; see `fastconv.sparse.subm_conv`."""

    _ndim = 4


class SparseConv1d(Regular):
    """A convolution over one axis; see `fastconv.sparse.sparse_conv`."""

    _ndim = 1


class SparseConv2d(Regular):
    """A convolution over two axes; see `fastconv.sparse.sparse_conv`."""

    _ndim = 2


class SparseConv3d(Regular):
    """A convolution over three axes; see `fastconv.sparse.sparse_conv`."""

    _ndim = 3


class SparseConv4d(Regular):
    """A convolution over four axes; see `fastconv.sparse.sparse_conv`."""

    _ndim = 4


class SparseConvTranspose1d(Transposed):
    """A transposed convolution over one axis; see `fastconv.sparse.sparse_conv_transpose`."""

    _ndim = 1


class SparseConvTranspose2d(Transposed):
    """A transposed convolution over two axes; see `fastconv.sparse.sparse_conv_transpose`."""

    _ndim = 2


class SparseConvTranspose3d(Transposed):
    """A transposed convolution over three axes; see `fastconv.sparse.sparse_conv_transpose`."""

    _ndim = 3


class SparseConvTranspose4d(Transposed):
    """A transposed convolution over four axes; see `fastconv.sparse.sparse_conv_transpose`."""

    _ndim = 4


class SparseInverseConv1d(Inverse):
    """The way back of a convolution over one axis; see `fastconv.sparse.sparse_inverse_conv`."""

    _ndim = 1


class SparseInverseConv2d(Inverse):
    """The way back of a convolution over two axes; see `fastconv.sparse.sparse_inverse_conv`."""

    _ndim = 2


class SparseInverseConv3d(Inverse):
    """The way back of a convolution over three axes; see `fastconv.sparse.sparse_inverse_conv`."""

    _ndim = 3


class SparseInverseConv4d(Inverse):
    """The way back of a convolution over four axes; see `fastconv.sparse.sparse_inverse_conv`."""

    _ndim = 4


class SparseMaxPool1d(_MaxPool):
    """A max pool over one axis; see `fastconv.sparse.sparse_max_pool`."""

    _ndim = 1


class SparseMaxPool2d(_MaxPool):
    """A max pool over two axes; see `fastconv.sparse.sparse_max_pool`."""

    _ndim = 2


class SparseMaxPool3d(_MaxPool):
    """A max pool over three axes; see `fastconv.sparse.sparse_max_pool`."""

    _ndim = 3


class SparseMaxPool4d(_MaxPool):
    """A max pool over four axes; see `fastconv.sparse.sparse_max_pool`."""

    _ndim = 4


class SparseAvgPool1d(_AvgPool):
    """A mean over one axis; see `fastconv.sparse.sparse_avg_pool`."""

    _ndim = 1


class SparseAvgPool2d(_AvgPool):
    """A mean over two axes; see `fastconv.sparse.sparse_avg_pool`."""

    _ndim = 2


class SparseAvgPool3d(_AvgPool):
    """A mean over three axes; see `fastconv.sparse.sparse_avg_pool`."""

    _ndim = 3


class SparseAvgPool4d(_AvgPool):
    """A mean over four axes; see `fastconv.sparse.sparse_avg_pool`."""

    _ndim = 4
