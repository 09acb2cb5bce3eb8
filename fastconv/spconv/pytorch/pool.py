"""Sparse pools as modules of PyTorch: over windows, and over all sites of each grid."""

from __future__ import annotations

from typing import Any

import torch

from ...contract.errors import DTypeError, ShapeError
from .arrays import eager
from .autograd import pool, pool_globally
from .convolution import MAX_VOXELS, record_voxels
from .core import ConvAlgo, SparseConvTensor, expand_nd
from .modules import SparseModule
from .rulebooks import Window, step_to

__all__ = [
    "ALL_POOL_LAYERS",
    "SparseAvgPool",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseAvgPool4d",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseMaxPool",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
]


class _Pool(SparseModule):
    """A pool over windows, of the active sites alone.

    Parameters
    ----------
    ndim : int
        Number of spatial axes, 1 to 4.
    kernel_size, stride, padding, dilation : int or sequence of int
        Of the window; without a stride windows lie side by side.
    indice_key : str, optional
        Name of the rulebook.
    subm : bool
        Whether sites stay as they are.
    algo
        As spconv has it for a GPU: without an effect.
    record_voxel_count : bool
        Whether a buffer keeps the most sites that were made.
    name : str, optional
        Of the module.
    """

    _is_max: bool

    def __init__(
        self, ndim: int, kernel_size: Any = 3, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, indice_key: str | None = None, subm: bool = False,
        algo: ConvAlgo | None = None, record_voxel_count: bool = False, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name=name)
        self.ndim = ndim
        self.kernel_size = expand_nd("kernel_size", ndim, kernel_size)
        self.stride = list(self.kernel_size)
        if stride is not None:
            self.stride = expand_nd("stride", ndim, stride)
        self.padding = expand_nd("padding", ndim, padding, least=0)
        self.dilation = expand_nd("dilation", ndim, dilation)
        self.subm, self.indice_key, self.algo = subm, indice_key, algo
        self.record_voxel_count = record_voxel_count
        if record_voxel_count and not subm:
            self.register_buffer(MAX_VOXELS, torch.zeros(1, dtype=torch.int32))

    def extra_repr(self) -> str:
        """Return the window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def get_max_num_voxels(self) -> torch.Tensor | None:
        """Return the most sites that were made, where that is recorded."""
        return getattr(self, MAX_VOXELS, None)

    @eager
    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        """Pool the features of each window that holds a site."""
        if not isinstance(input, SparseConvTensor):
            raise DTypeError(f"input: got {type(input).__name__}, want a SparseConvTensor")
        if len(input.spatial_shape) != self.ndim:
            raise ShapeError(
                f"input: got {len(input.spatial_shape)} spatial axes, want {self.ndim} as the "
                "layer has"
            )
        kind = "submanifold" if self.subm else "regular"
        window = Window(self.kernel_size, self.stride, self.padding, self.dilation, ())
        step = step_to(input, kind, window, self.indice_key, self.algo)
        record_voxels(self, step.rulebook.out_rows)
        return step.lead(pool(input.features, step.rulebook, self._is_max))


class SparseMaxPool(_Pool):
    """The largest feature of the active sites in each window."""

    _is_max = True


class SparseAvgPool(_Pool):
    """The mean of the active sites in each window; inactive ones are not counted."""

    _is_max = False


class _Sized:
    """A pool over a number of axes that its class says."""

    _ndim: int

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        indice_key: str | None = None, algo: ConvAlgo | None = None,
        record_voxel_count: bool = False, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            self._ndim, kernel_size, stride, padding, dilation, indice_key, algo=algo,
            record_voxel_count=record_voxel_count, name=name,
        )  # type: ignore[call-arg]  # fmt: skip


class SparseMaxPool1d(_Sized, SparseMaxPool):
    """The largest feature of each window over one axis."""

    _ndim = 1


class SparseMaxPool2d(_Sized, SparseMaxPool):
    """The largest feature of each window over two axes."""

    _ndim = 2


class SparseMaxPool3d(_Sized, SparseMaxPool):
    """The largest feature of each window over three axes."""

    _ndim = 3


class SparseMaxPool4d(_Sized, SparseMaxPool):
    """The largest feature of each window over four axes."""

    _ndim = 4


class SparseAvgPool1d(_Sized, SparseAvgPool):
    """The mean of the active sites of each window over one axis."""

    _ndim = 1


class SparseAvgPool2d(_Sized, SparseAvgPool):
    """The mean of the active sites of each window over two axes."""

    _ndim = 2


class SparseAvgPool3d(_Sized, SparseAvgPool):
    """The mean of the active sites of each window over three axes."""

    _ndim = 3


class SparseAvgPool4d(_Sized, SparseAvgPool):
    """The mean of the active sites of each window over four axes."""

    _ndim = 4


class _GlobalPool(SparseModule):
    """A pool over all sites of each grid; (batch_size, C), 0 for a grid without a site."""

    _is_max: bool

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)

    @eager
    def forward(self, input: SparseConvTensor) -> torch.Tensor:
        """Pool the features of each grid."""
        return pool_globally(input.features, input.checked_sites, self._is_max)


class SparseGlobalMaxPool(_GlobalPool):
    """The largest feature of all sites of each grid, (batch_size, C)."""

    _is_max = True


class SparseGlobalAvgPool(_GlobalPool):
    """The mean over all sites of each grid, (batch_size, C)."""

    _is_max = False


ALL_POOL_LAYERS = {
    SparseMaxPool, SparseMaxPool1d, SparseMaxPool2d, SparseMaxPool3d, SparseMaxPool4d,
    SparseAvgPool, SparseAvgPool1d, SparseAvgPool2d, SparseAvgPool3d, SparseAvgPool4d,
}  # fmt: skip
