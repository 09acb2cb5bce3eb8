"""Sparse convolutions of one to four axes, by spconv's names and with its arguments."""

from __future__ import annotations

from typing import Any

from .convolution import SparseConvolution
from .core import ConvAlgo

__all__ = [
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseConvolution",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
]


class _SubM(SparseConvolution):
    """Sites stay as they are; `stride` and `padding` have no effect."""

    _ndim: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        indice_key: str | None = None, algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None, large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            self._ndim, in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
            bias, subm=True, indice_key=indice_key, algo=algo, fp32_accum=fp32_accum,
            large_kernel_fast_algo=large_kernel_fast_algo, name=name,
        )  # fmt: skip


class _Regular(SparseConvolution):
    """Sites wherever the kernel reaches an active one."""

    _ndim: int
    _transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        indice_key: str | None = None, algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None, record_voxel_count: bool = False,
        large_kernel_fast_algo: bool = False, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            self._ndim, in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
            bias, transposed=self._transposed, indice_key=indice_key, algo=algo,
            fp32_accum=fp32_accum, record_voxel_count=record_voxel_count,
            large_kernel_fast_algo=large_kernel_fast_algo, name=name,
        )  # fmt: skip


class _Transposed(_Regular):
    """Sites wherever an active one's spread by the kernel reaches."""

    _transposed = True


class _Inverse(SparseConvolution):
    """Back to the sites before the layer that named `indice_key`."""

    _ndim: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, indice_key: str,
        bias: bool = True, algo: ConvAlgo | None = None, fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            self._ndim, in_channels, out_channels, kernel_size, bias=bias, inverse=True,
            indice_key=indice_key, algo=algo, fp32_accum=fp32_accum,
            large_kernel_fast_algo=large_kernel_fast_algo, name=name,
        )  # fmt: skip


class SubMConv1d(_SubM):
    """A submanifold convolution over one axis: sites stay as they are."""

    _ndim = 1


class SubMConv2d(_SubM):
    """A submanifold convolution over two axes: sites stay as they are."""

    _ndim = 2


class SubMConv3d(_SubM):
    """A submanifold convolution over three axes: sites stay as they are."""

    _ndim = 3


class SubMConv4d(_SubM):
    """A submanifold convolution over four axes: sites stay as they are."""

    _ndim = 4


class SparseConv1d(_Regular):
    """A convolution over one axis, wherever the kernel reaches a site."""

    _ndim = 1


class SparseConv2d(_Regular):
    """A convolution over two axes, wherever the kernel reaches a site."""

    _ndim = 2


class SparseConv3d(_Regular):
    """A convolution over three axes, wherever the kernel reaches a site."""

    _ndim = 3


class SparseConv4d(_Regular):
    """A convolution over four axes, wherever the kernel reaches a site."""

    _ndim = 4


class SparseConvTranspose1d(_Transposed):
    """A transposed convolution over one axis, onto all sites it reaches."""

    _ndim = 1


class SparseConvTranspose2d(_Transposed):
    """A transposed convolution over two axes, onto all sites it reaches."""

    _ndim = 2


class SparseConvTranspose3d(_Transposed):
    """A transposed convolution over three axes, onto all sites it reaches."""

    _ndim = 3


class SparseConvTranspose4d(_Transposed):
    """A transposed convolution over four axes, onto all sites it reaches."""

    _ndim = 4


class SparseInverseConv1d(_Inverse):
    """The way back of a convolution or pool over one axis."""

    _ndim = 1


class SparseInverseConv2d(_Inverse):
    """The way back of a convolution or pool over two axes."""

    _ndim = 2


class SparseInverseConv3d(_Inverse):
    """The way back of a convolution or pool over three axes."""

    _ndim = 3


class SparseInverseConv4d(_Inverse):
    """The way back of a convolution or pool over four axes."""

    _ndim = 4
