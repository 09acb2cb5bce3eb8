"""Functions of spconv's with gradients: by tables of pairs, and of tensors with different sites."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from ...contract.errors import DTypeError, NoKernelError, ShapeError
from ...sparse.frozen import freeze
from ...sparse.matching import shared_rows, union_rows
from ...sparse.tensor import SparseTensor, trusted_tensor
from .arrays import eager
from .core import ConvAlgo, Sites, SparseConvTensor
from .ops import convolve_by_pairs, pool_by_pairs

__all__ = [
    "indice_conv",
    "indice_inverse_conv",
    "indice_maxpool",
    "indice_subm_conv",
    "sparse_add",
    "sparse_add_hash_based",
    "sparse_multiply",
]

Tensor = torch.Tensor


def __getattr__(name: str) -> Any:
    if name.endswith("implicit_gemm"):
        raise NoKernelError(
            f"{name}: spconv has it for a GPU alone, want indice_conv or indice_maxpool, or the "
            "modules, which choose kernels themselves"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def indice_conv(
    features: Tensor, filters: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor,
    num_activate_out: int, algo: ConvAlgo = ConvAlgo.Native, timer: Any = None,
    bias: Tensor | None = None, act_alpha: float = 0.0, act_beta: float = 0.0,
    act_type: Any = None,
) -> Tensor:  # fmt: skip
    """Return the features behind a convolution by a table of pairs; see `ops.indice_conv`."""
    pairs = indice_pairs, indice_pair_num
    return convolve_by_pairs(
        features, filters, pairs, num_activate_out, False, False, bias, act_type, act_alpha
    )


def indice_inverse_conv(
    features: Tensor, filters: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor,
    num_activate_out: int, algo: ConvAlgo = ConvAlgo.Native, timer: Any = None,
    bias: Tensor | None = None, act_alpha: float = 0.0, act_beta: float = 0.0,
    act_type: Any = None,
) -> Tensor:  # fmt: skip
    """Return the features before the operator that a table of pairs is of; see `indice_conv`."""
    pairs = indice_pairs, indice_pair_num
    return convolve_by_pairs(
        features, filters, pairs, num_activate_out, True, False, bias, act_type, act_alpha
    )


def indice_subm_conv(
    features: Tensor, filters: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor,
    num_activate_out: int, algo: ConvAlgo = ConvAlgo.Native, timer: Any = None,
    bias: Tensor | None = None, act_alpha: float = 0.0, act_beta: float = 0.0,
    act_type: Any = None,
) -> Tensor:  # fmt: skip
    """Return the features behind a submanifold convolution; see `indice_conv`."""
    pairs = indice_pairs, indice_pair_num
    return convolve_by_pairs(
        features, filters, pairs, num_activate_out, False, True, bias, act_type, act_alpha
    )


def indice_maxpool(
    features: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor, num_activate_out: int
) -> Tensor:
    """Return the largest features that meet; see `ops.indice_maxpool`."""
    return pool_by_pairs(features, indice_pairs, indice_pair_num, num_activate_out)


@eager
def sparse_add(*tensors: SparseConvTensor) -> SparseConvTensor:
    """Add tensors at the sites that any of them has.

    Parameters
    ----------
    *tensors : SparseConvTensor
        At least one; of one grid, batch size and number of channels.

    Returns
    -------
    SparseConvTensor
        The rulebooks of a tensor that has all sites are kept, and so is the order of its rows.

    Examples
    --------
    >>> sites = torch.tensor([[0, 1, 1], [0, 4, 7]], dtype=torch.int32)
    >>> x = SparseConvTensor(torch.ones(2, 3), sites, [8, 8], 1)
    >>> y = SparseConvTensor(torch.ones(1, 3), sites[:1], [8, 8], 1)
    >>> sparse_add(x, y).features[:, 0]
    tensor([2., 1.])
    """
    if not tensors:
        raise ShapeError("tensors: got none, want at least one")
    return functools.reduce(_add, tensors)


sparse_add_hash_based = sparse_add


@eager
def sparse_multiply(x: SparseConvTensor, y: SparseConvTensor) -> SparseConvTensor:
    """Multiply two tensors at the sites that both have.

    Parameters
    ----------
    x, y : SparseConvTensor
        Of one grid, batch size and number of channels.
    """
    first, second = _alike(x, y)
    mine, other = shared_rows(first, second)
    product = x.features[torch.from_numpy(mine)] * y.features[torch.from_numpy(other)]
    if len(mine) == len(first):
        return x.replace_feature(product)
    return _fresh(x, product, freeze(first._indices[mine]))


def _add(x: SparseConvTensor, y: SparseConvTensor) -> SparseConvTensor:
    first, second = _alike(x, y)
    both = union_rows(first, second)
    rows = x.features.new_zeros((both.rows, x.features.shape[1]))
    rows = rows.index_copy(0, torch.from_numpy(both.first), x.features)
    rows = rows.index_add(0, torch.from_numpy(both.second), y.features)
    if both.like is first:
        return x.replace_feature(rows)
    if both.like is second:
        return y.replace_feature(rows)
    return _fresh(x, rows, both.indices)


def _fresh(x: SparseConvTensor, features: torch.Tensor, indices: Any) -> SparseConvTensor:
    """Return features at frozen sites that no rulebook is for."""
    nothing = np.empty((len(indices), 0), np.float32)
    grid = trusted_tensor(nothing, indices, tuple(x.spatial_shape), x.batch_size)
    return x._over(features, Sites(known=grid), x.spatial_shape, {})


def _alike(x: Any, y: Any) -> tuple[SparseTensor, SparseTensor]:
    """Return the sites of two tensors that agree in all else."""
    for each in (x, y):
        if not isinstance(each, SparseConvTensor):
            raise DTypeError(f"tensors: got {type(each).__name__}, want SparseConvTensor")
    for name, mine, other in (
        ("spatial_shape", x.spatial_shape, y.spatial_shape),
        ("batch_size", x.batch_size, y.batch_size),
        ("channels", x.features.shape[1], y.features.shape[1]),
        ("dtype", x.features.dtype, y.features.dtype),
    ):
        if mine != other:
            raise ShapeError(f"tensors: got {name} {mine} and {other}, want the same")
    return x.checked_sites, y.checked_sites
