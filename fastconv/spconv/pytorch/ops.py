"""Tables of pairs and what is computed by them, by spconv's names: what its modules stand on.

Nothing here is recorded for gradients: `functional` has the same with them. Rows after an operator
are sorted by key, where spconv's stand as its hash table has them. What is made for a GPU alone, as
the tables of implicit matrix products and the timers, is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...contract.errors import ArgumentError, NoKernelError, ShapeError
from ...sparse import grad
from ...sparse.geometry import make_geometry
from ...sparse.rulebook import build_trusted
from .activations import activate
from .arrays import array_of, eager, tensor_of
from .autograd import convolve, pool
from .core import ConvAlgo, Sites, expand_nd
from .pair_tables import book_of, pairs_of

__all__ = [
    "ConvAlgo",
    "get_conv_output_size",
    "get_deconv_output_size",
    "get_indice_pairs",
    "indice_conv",
    "indice_conv_backward",
    "indice_maxpool",
    "indice_maxpool_backward",
]

Tensor = torch.Tensor
#: What spconv has for a GPU alone.
_OF_A_GPU = (
    "fused_indice_conv", "get_indice_pairs_implicit_gemm", "implicit_gemm",
    "implicit_gemm_backward", "indice_avgpool_implicit_gemm",
    "indice_avgpool_implicit_gemm_backward", "indice_maxpool_implicit_gemm",
    "indice_maxpool_implicit_gemm_backward", "maximum_value_int_", "global_pool_rearrange",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _OF_A_GPU:
        raise NoKernelError(
            f"{name}: spconv has it for a GPU alone, want get_indice_pairs with ConvAlgo.Native "
            "and indice_conv or indice_maxpool, or the modules, which choose kernels themselves"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_conv_output_size(
    input_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int],
) -> list[int]:  # fmt: skip
    """Return the grid behind a convolution.

    Examples
    --------
    >>> get_conv_output_size([9, 8], [3, 3], [2, 2], [1, 1], [1, 1])
    [5, 4]
    """
    return [
        (size + 2 * pad - hole * (taps - 1) - 1) // step + 1
        for size, taps, step, pad, hole in zip(
            input_size, kernel_size, stride, padding, dilation, strict=True
        )
    ]


def get_deconv_output_size(
    input_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], output_padding: Sequence[int],
) -> list[int]:  # fmt: skip
    """Return the grid behind a transposed convolution; the dilation counts, as spconv's does not.

    Examples
    --------
    >>> get_deconv_output_size([5, 4], [3, 3], [2, 2], [1, 1], [1, 1], [0, 1])
    [9, 8]
    """
    return [
        (size - 1) * step - 2 * pad + hole * (taps - 1) + 1 + more
        for size, taps, step, pad, hole, more in zip(
            input_size, kernel_size, stride, padding, dilation, output_padding, strict=True
        )
    ]


@eager
def get_indice_pairs(
    indices: Tensor, batch_size: int, spatial_shape: Sequence[int], algo: ConvAlgo,
    ksize: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], out_padding: Sequence[int], subm: bool = False,
    transpose: bool = False, num_out_act_bound: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the sites after an operator, and which rows meet at each offset of its kernel.

    Parameters
    ----------
    indices : torch.Tensor, shape (rows, 1 + ndim)
        int32; sites before, batch first.
    batch_size, spatial_shape
        Number of grids, and the shape of one.
    algo : ConvAlgo
        ``ConvAlgo.Native``.
    ksize, stride, padding, dilation, out_padding : sequence of int
        One number an axis; a submanifold kernel's stride and padding have no effect.
    subm, transpose : bool
        The kind; neither is a convolution wherever the kernel reaches.
    num_out_act_bound : int
        -1: spconv drops sites behind a bound, which is refused.

    Returns
    -------
    out_indices : torch.Tensor, shape (rows after, 1 + ndim)
        int32; sorted by key, or `indices` itself where `subm`.
    indice_pairs : torch.Tensor, shape (2, volume, rows)
        int32; rows before and after, -1 behind the last.
    indice_pair_num : torch.Tensor, shape (volume,)
        int32. Where `subm` it counts the offsets before the middle: at the middle each row meets
        itself, and those behind it mirror those before.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        For arguments that do not fit.

    Examples
    --------
    >>> sites = torch.tensor([[0, 1], [0, 2]], dtype=torch.int32)
    >>> sizes = [3], [2], [1], [1], [0]
    >>> after, pairs, counts = get_indice_pairs(sites, 1, [6], ConvAlgo.Native, *sizes)
    >>> after[:, 1].tolist(), counts.tolist()
    ([0, 1], [1, 1, 1])
    """
    if getattr(algo, "name", None) != "Native":
        raise ArgumentError(f"algo: got {algo!r}, want ConvAlgo.Native: the others are a GPU's")
    if num_out_act_bound > 0:
        raise ArgumentError(f"num_out_act_bound: got {num_out_act_bound}, want -1, no bound")
    axes = len(spatial_shape)
    taps = expand_nd("ksize", axes, ksize)
    sites = Sites(indices).checked(tuple(map(int, spatial_shape)), batch_size)
    kind = "submanifold" if subm else "transposed" if transpose else "regular"
    if subm and any(size % 2 == 0 for size in taps):
        raise ShapeError(f"ksize: got {taps}, want odd sizes for pairs that mirror each other")
    geometry = make_geometry(
        kind, sites, tuple(taps),
        1 if subm else tuple(expand_nd("stride", axes, stride)),
        "same" if subm else tuple(expand_nd("padding", axes, padding, least=0)),
        tuple(expand_nd("dilation", axes, dilation)),
        tuple(expand_nd("out_padding", axes, out_padding, least=0)) if transpose else 0,
    )  # fmt: skip
    book = build_trusted(geometry, sites._indices)
    counts = np.array(book.counts, np.int32)
    if subm:
        counts[len(counts) // 2 :] = 0
        return indices, pairs_of(book), torch.from_numpy(counts)
    after = torch.from_numpy(np.array(book.out_indices))
    return after, pairs_of(book), torch.from_numpy(counts)


def indice_conv(
    features: Tensor, filters: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor,
    num_activate_out: int, inverse: bool = False, subm: bool = False,
    algo: ConvAlgo = ConvAlgo.Native, timer: Any = None, bias: Tensor | None = None,
    act_alpha: float = 0.0, act_beta: float = 0.0, act_type: Any = None,
) -> Tensor:  # fmt: skip
    """Return the features behind a convolution by a table of pairs.

    Parameters
    ----------
    features : torch.Tensor, shape (rows, C)
        Before.
    filters : torch.Tensor, shape (K, *kernel_size, C)
        As spconv 2 stores them.
    indice_pairs, indice_pair_num : torch.Tensor
        Of `get_indice_pairs`.
    num_activate_out : int
        Rows after.
    inverse, subm : bool
        Whether the pairs are read backwards, and whether they are a submanifold kernel's.
    algo, timer, act_beta
        Without an effect.
    bias : torch.Tensor, shape (K,), optional
        Added to every row.
    act_type, act_alpha
        An `Activation`, and the slope of LeakyReLU.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit.

    Examples
    --------
    >>> sites = torch.tensor([[0, 1], [0, 2]], dtype=torch.int32)
    >>> sizes = [3], [1], [1], [1], [0]
    >>> after, *pairs = get_indice_pairs(sites, 1, [6], ConvAlgo.Native, *sizes, True)
    >>> indice_conv(torch.tensor([[1.0], [2.0]]), torch.ones(1, 3, 1), *pairs, 2, subm=True)
    tensor([[3.],
            [3.]])
    """
    with torch.no_grad():
        return convolve_by_pairs(
            features, filters, (indice_pairs, indice_pair_num), num_activate_out, inverse, subm,
            bias, act_type, act_alpha,
        )  # fmt: skip


@eager
def convolve_by_pairs(
    features: Tensor, filters: Tensor, pairs: tuple[Tensor, Tensor], rows_after: int,
    inverse: bool, subm: bool, bias: Tensor | None, act_type: Any, act_alpha: float,
) -> Tensor:  # fmt: skip
    """Return what `indice_conv` does, for autograd to record."""
    rows = features.shape[0], rows_after
    book = book_of(*pairs, rows, _kernel_size(filters), inverse, subm)
    return activate(convolve(features, filters, bias, book, 1), act_type, act_alpha)


def _kernel_size(filters: Tensor) -> list[int]:
    if filters.dim() < 3:
        raise ShapeError(f"filters: got shape {tuple(filters.shape)}, want (K, *kernel_size, C)")
    return list(filters.shape[1:-1])


@eager
def indice_conv_backward(
    features: Tensor, filters: Tensor, out_bp: Tensor, indice_pairs: Tensor,
    indice_pair_num: Tensor, inverse: bool = False, subm: bool = False,
    algo: ConvAlgo = ConvAlgo.Native, timer: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients for features and filters; `out_bp` is that for the features behind."""
    rows = features.shape[0], out_bp.shape[0]
    book = book_of(indice_pairs, indice_pair_num, rows, _kernel_size(filters), inverse, subm)
    x, taps, grads = (array_of("features", each) for each in (features, filters, out_bp))
    for_features = grad.conv_input(book, taps, grads, 1, weight_layout="KRSC")
    for_filters = grad.conv_weight(book, x, grads, 1, weight_layout="KRSC")
    return tensor_of(for_features), tensor_of(for_filters)


def indice_maxpool(
    features: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor, num_activate_out: int
) -> Tensor:
    """Return the largest features that meet, of a table of pairs.

    They may be negative: spconv's are never below 0.
    """
    with torch.no_grad():
        return pool_by_pairs(features, indice_pairs, indice_pair_num, num_activate_out)


@eager
def pool_by_pairs(features: Tensor, pairs: Tensor, counts: Tensor, rows_after: int) -> Tensor:
    """Return what `indice_maxpool` does, for autograd to record."""
    book = book_of(pairs, counts, (features.shape[0], rows_after), [pairs.shape[1]])
    return pool(features, book, True)


@eager
def indice_maxpool_backward(
    features: Tensor, out_features: Tensor, out_bp: Tensor, indice_pairs: Tensor,
    indice_pair_num: Tensor,
) -> Tensor:  # fmt: skip
    """Return the gradient for the features before `indice_maxpool`."""
    rows = features.shape[0], out_bp.shape[0]
    book = book_of(indice_pairs, indice_pair_num, rows, [indice_pairs.shape[1]])
    given = (array_of("features", each) for each in (features, out_features, out_bp))
    return tensor_of(grad.max_pool_input(book, *given))
