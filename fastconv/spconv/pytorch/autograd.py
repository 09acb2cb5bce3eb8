"""Operators of fastconv.sparse as functions that autograd differentiates.

Each takes tensors and what tells the rows that meet, and computes on the tensors' own memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ...arrays import row_major
from ...grad import linear_bias, linear_input, linear_weight
from ...ops.linear import linear
from ...sparse import grad
from ...sparse.calls import Filters, conv_call, global_pool_call, pool_call
from ...sparse.rulebook import Rulebook
from ...sparse.tensor import SparseTensor, require_features, trusted_tensor
from .arrays import array_of, tensor_of

__all__ = ["convolve", "multiply_matrix", "pool", "pool_globally", "rows_at", "rows_before"]


def rows_at(features: torch.Tensor, sites: Any, shape: tuple[int, ...], batch: int) -> SparseTensor:
    """Return features at sites that are known, over the tensor's memory where it is row-major."""
    rows = row_major(require_features("features", array_of("features", features)))
    return trusted_tensor(rows, sites, shape, batch)


def rows_before(features: torch.Tensor, rulebook: Rulebook) -> SparseTensor:
    """Return features at the sites before a rulebook's operator."""
    return rows_at(features, rulebook._in_indices, rulebook.in_shape, rulebook.geometry.batch_size)


class _Convolution(torch.autograd.Function):
    """A convolution by a rulebook; the weight is (K, *kernel_size, C / groups)."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
        rulebook: Rulebook, groups: int,
    ) -> torch.Tensor:  # fmt: skip
        ctx.save_for_backward(features, weight)
        ctx.rulebook, ctx.groups = rulebook, groups
        x = rows_before(features, rulebook)
        shift = None if bias is None else array_of("bias", bias)
        filters = Filters.of(
            array_of("weight", weight), shift, x.ndim, groups, "KRSC", beside=x.feature_array
        )
        return tensor_of(conv_call(x, rulebook, filters).features())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Any, ...]:
        features, weight = ctx.saved_tensors
        book, groups, grads = ctx.rulebook, ctx.groups, array_of("grad_output", grad_output)
        made: list[Any] = [None] * 5
        layout = {"weight_layout": "KRSC"}
        if ctx.needs_input_grad[0]:
            taps = array_of("weight", weight)
            made[0] = tensor_of(grad.conv_input(book, taps, grads, groups, **layout))
        if ctx.needs_input_grad[1]:
            rows = array_of("features", features)
            made[1] = tensor_of(grad.conv_weight(book, rows, grads, groups, **layout))
        if ctx.needs_input_grad[2]:
            made[2] = tensor_of(grad.conv_bias(grads))
        return tuple(made)


class _Matrix(torch.autograd.Function):
    """A kernel of one tap: every row times a (K, C) matrix."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(features, matrix)
        rows, taps = array_of("features", features), array_of("weight", matrix)
        return tensor_of(linear(rows, taps, None if bias is None else array_of("bias", bias)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Any, ...]:
        features, matrix = (array_of("features", each) for each in ctx.saved_tensors)
        grads = array_of("grad_output", grad_output)
        made: list[Any] = [None] * 3
        if ctx.needs_input_grad[0]:
            made[0] = tensor_of(linear_input(matrix, grads))
        if ctx.needs_input_grad[1]:
            made[1] = tensor_of(linear_weight(features, grads))
        if ctx.needs_input_grad[2]:
            made[2] = tensor_of(linear_bias(grads))
        return tuple(made)


class _Pool(torch.autograd.Function):
    """The largest or the mean of the rows that each window holds."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, rulebook: Rulebook, is_max: bool) -> torch.Tensor:
        x = rows_before(features, rulebook)
        op = "sparse_max_pool" if is_max else "sparse_avg_pool"
        made = tensor_of(pool_call(op, x, rulebook).features())
        ctx.rulebook = rulebook
        ctx.save_for_backward(*([features, made] if is_max else []))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Any, ...]:
        grads = array_of("grad_output", grad_output)
        if not ctx.saved_tensors:
            return tensor_of(grad.avg_pool_input(ctx.rulebook, grads)), None, None
        rows, largest = (array_of("features", each) for each in ctx.saved_tensors)
        return tensor_of(grad.max_pool_input(ctx.rulebook, rows, largest, grads)), None, None


class _GlobalPool(torch.autograd.Function):
    """The largest or the mean of the rows of each grid."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, sites: SparseTensor, is_max: bool
    ) -> torch.Tensor:
        x = rows_at(features, sites._indices, sites.spatial_shape, sites.batch_size)
        op = "sparse_global_max_pool" if is_max else "sparse_global_avg_pool"
        made = tensor_of(global_pool_call(op, x).features())
        ctx.sites = sites
        ctx.is_max = is_max
        ctx.save_for_backward(features, made)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Any, ...]:
        features, made = ctx.saved_tensors
        sites, grads = ctx.sites, array_of("grad_output", grad_output)
        x = rows_at(features, sites._indices, sites.spatial_shape, sites.batch_size)
        if ctx.is_max:
            gradient = grad.global_max_pool_input(x, array_of("output", made), grads)
        else:
            gradient = grad.global_avg_pool_input(x, grads)
        return tensor_of(gradient), None, None


def convolve(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rulebook: Rulebook,
    groups: int,
) -> torch.Tensor:  # fmt: skip
    """Return a convolution's features by a rulebook."""
    return _apply(_Convolution, features, weight, bias, rulebook, groups)


def multiply_matrix(
    features: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return every row times a (K, C) matrix, and the bias."""
    return _apply(_Matrix, features, matrix, bias)


def pool(features: torch.Tensor, rulebook: Rulebook, is_max: bool) -> torch.Tensor:
    """Return the largest feature, or the mean, of the rows that each window holds."""
    return _apply(_Pool, features, rulebook, is_max)


def pool_globally(features: torch.Tensor, sites: SparseTensor, is_max: bool) -> torch.Tensor:
    """Return the largest feature, or the mean, of the rows of each grid, (batch_size, C)."""
    return _apply(_GlobalPool, features, sites, is_max)


def _apply(function: Any, *arguments: Any) -> torch.Tensor:
    made: torch.Tensor = function.apply(*arguments)
    return made
