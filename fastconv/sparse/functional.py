"""Sparse operators on a `SparseTensor`: convolutions, their way back, and pools.

Every operator sums the pairs of an output site by rising offset of the kernel, then by rising input
channel: results are the same bits for any number of threads and any order of the sites.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arrays import Array
from ..contract.arguments import Activation, Padding, Sizes, bind_call
from ..contract.errors import ArgumentError, ShapeError
from ..contract.geometry import KINDS, is_word
from .calls import Call, Filters, conv_call
from .geometry import find_rulebook, make_geometry, named_rulebook, require_tensor
from .pooling import (
    global_avg_pool,
    global_avg_pool_call,
    global_max_pool,
    global_max_pool_call,
    sparse_avg_pool,
    sparse_avg_pool_call,
    sparse_max_pool,
    sparse_max_pool_call,
)
from .rulebook import Rulebook
from .tensor import SparseTensor

__all__ = [
    "call_of",
    "global_avg_pool",
    "global_max_pool",
    "make_rulebook",
    "sparse_avg_pool",
    "sparse_conv",
    "sparse_conv_transpose",
    "sparse_inverse_conv",
    "sparse_max_pool",
    "subm_conv",
]


def make_rulebook(
    x: SparseTensor,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    *,
    output_padding: Sizes = 0,
    kind: str = "submanifold",
) -> Rulebook:
    """Return which sites meet at which offset of a kernel.

    Parameters
    ----------
    x : SparseTensor
        The sites; features do not matter.
    kernel_size, stride, padding, dilation, output_padding
        As for the operators.
    kind : {"submanifold", "regular", "transposed"}
        What `subm_conv`, `sparse_conv` (and the pools) or `sparse_conv_transpose` take. A
        submanifold kernel has a stride of 1 and keeps the grid; its padding is not asked for.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((2, 1), np.float32), [[0, 3], [0, 4]], (8,))
    >>> sparse.make_rulebook(x, 3).neighbours
    array([[-1,  0],
           [ 0,  1],
           [ 1, -1]], dtype=int32)
    """
    require_tensor(x)
    if not is_word(kind, KINDS):
        raise ShapeError(f"kind: got {kind!r}, want one of {', '.join(KINDS)}")
    if kind == "submanifold":
        stride, padding = 1, "same"
    geometry = make_geometry(kind, x, kernel_size, stride, padding, dilation, output_padding)
    return find_rulebook(x, geometry, None, None)


def subm_conv(
    x: SparseTensor,
    weight: Array,
    bias: Array | None = None,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    activation: Activation = None,
    indice_key: str | None = None,
    rulebook: Rulebook | None = None,
    weight_layout: str = "KCRS",
) -> SparseTensor:
    """Convolve at the active sites alone (a valid sparse, or submanifold, convolution).

    Parameters
    ----------
    x : SparseTensor
        With 1 to 4 spatial axes and C channels.
    weight : array, shape (K, C / groups, *kernel_size)
        Filters, of the features' dtype and library. An even kernel has its middle before the
        centre, as dense convolution's ``padding="same"`` has.
    bias : array, shape (K,), optional
        Added to each site.
    dilation : int or tuple of int
        Step between the taps of the kernel, in sites of the grid.
    groups : int
        Independent groups of channels; ``groups=C`` is depthwise.
    activation : str or (str, float), optional
        As for `fastconv.conv2d`.
    indice_key : str, optional
        Name of the rulebook: built by the first layer that says it, and used by all later ones over
        the same sites with the same kernel.
    rulebook : Rulebook, optional
        The same passed explicitly, of `make_rulebook`.
    weight_layout : {"KCRS", "KRSC"}
        Order of the weight's axes; KRSC, ``(K, *kernel_size, C / groups)``, is that of spconv 2.

    Returns
    -------
    SparseTensor
        K channels at the sites of `x`, in their order.

    Raises
    ------
    ShapeError
        For sizes that do not fit, and a rulebook of another geometry or other sites.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on different devices or of different libraries.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((2, 1), np.float32), [[0, 3, 3], [0, 3, 4]], (8, 8))
    >>> sparse.subm_conv(x, np.ones((1, 1, 3, 3), np.float32)).features
    array([[2.],
           [2.]], dtype=float32)
    """
    return _subm_conv(
        x, weight, bias, dilation, groups, activation, indice_key, rulebook, weight_layout
    ).compute()


def _subm_conv(
    x: Any, weight: Any, bias: Any, dilation: Any, groups: Any, activation: Any, indice_key: Any,
    rulebook: Any, weight_layout: Any,
) -> Call:  # fmt: skip
    filters = _filters(x, weight, bias, groups, weight_layout, activation)
    geometry = make_geometry("submanifold", x, filters.kernel_size, 1, "same", dilation)
    return conv_call(x, find_rulebook(x, geometry, indice_key, rulebook), filters)


def sparse_conv(
    x: SparseTensor,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    activation: Activation = None,
    indice_key: str | None = None,
    rulebook: Rulebook | None = None,
    weight_layout: str = "KCRS",
) -> SparseTensor:
    """Convolve wherever the kernel reaches an active site.

    Parameters
    ----------
    x, weight, bias, dilation, groups, activation, indice_key, rulebook, weight_layout
        As for `subm_conv`.
    stride : int or tuple of int
        Step between output positions, in sites of the grid.
    padding : int, tuple, 'same' or 'valid'
        Inactive sites around the grid, as for `fastconv.conv2d`.

    Returns
    -------
    SparseTensor
        K channels at the sites that are reached, sorted (batch first, last axis fastest). There may
        be none.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((1, 1), np.float32), [[0, 2, 5]], (8, 8))
    >>> y = sparse.sparse_conv(x, np.ones((4, 1, 3, 3), np.float32), stride=2, padding=1)
    >>> y.indices, y.spatial_shape
    (array([[0, 1, 2],
           [0, 1, 3]], dtype=int32), (4, 4))
    """
    return _sparse_conv(
        x, weight, bias, stride, padding, dilation, groups, activation, indice_key, rulebook,
        weight_layout,
    ).compute()  # fmt: skip


def _sparse_conv(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    activation: Any, indice_key: Any, rulebook: Any, weight_layout: Any,
) -> Call:  # fmt: skip
    filters = _filters(x, weight, bias, groups, weight_layout, activation)
    geometry = make_geometry("regular", x, filters.kernel_size, stride, padding, dilation)
    return conv_call(x, find_rulebook(x, geometry, indice_key, rulebook), filters)


def sparse_conv_transpose(
    x: SparseTensor,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    activation: Activation = None,
    indice_key: str | None = None,
    rulebook: Rulebook | None = None,
    weight_layout: str = "KCRS",
) -> SparseTensor:
    """Spread every active site by the kernel: a transposed convolution onto new sites.

    Parameters
    ----------
    x, weight, bias, groups, dilation, activation, indice_key, rulebook, weight_layout
        As for `subm_conv`. The weight is ``(K, C / groups, *kernel_size)`` here too: K output
        channels, where ``torch.nn.functional.conv_transpose2d`` has the input's first.
    stride : int or tuple of int
        Step between the positions at which inputs are laid, in sites of the output's grid.
    padding : int or tuple
        Positions that are cut off the output's grid at its sides.
    output_padding : int or tuple of int
        Positions that the grid has more at its high side; less than the stride or the dilation.

    Returns
    -------
    SparseTensor
        K channels at the sites that are reached, sorted.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((1, 1), np.float32), [[0, 1]], (4,))
    >>> sparse.sparse_conv_transpose(x, np.ones((1, 1, 2), np.float32), stride=2).indices
    array([[0, 2],
           [0, 3]], dtype=int32)
    """
    return _sparse_conv_transpose(
        x, weight, bias, stride, padding, output_padding, groups, dilation, activation,
        indice_key, rulebook, weight_layout,
    ).compute()  # fmt: skip


def _sparse_conv_transpose(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any,
    dilation: Any, activation: Any, indice_key: Any, rulebook: Any, weight_layout: Any,
) -> Call:  # fmt: skip
    filters = _filters(x, weight, bias, groups, weight_layout, activation)
    geometry = make_geometry(
        "transposed", x, filters.kernel_size, stride, padding, dilation, output_padding
    )
    return conv_call(x, find_rulebook(x, geometry, indice_key, rulebook), filters)


def sparse_inverse_conv(
    x: SparseTensor,
    weight: Array,
    bias: Array | None = None,
    groups: int = 1,
    *,
    activation: Activation = None,
    indice_key: str | None = None,
    rulebook: Rulebook | None = None,
    weight_layout: str = "KCRS",
) -> SparseTensor:
    """Convolve back onto the sites before an earlier operator, by its rulebook reversed.

    Parameters
    ----------
    x, weight, bias, groups, activation, weight_layout
        As for `subm_conv`; the sites are those after the earlier operator, and the kernel size is
        its.
    indice_key : str
        Name that the earlier operator's rulebook was given.
    rulebook : Rulebook
        That rulebook, where it has no name.

    Returns
    -------
    SparseTensor
        K channels at the sites before the earlier operator, in their order.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((2, 1), np.float32), [[0, 5], [0, 2]], (8,))
    >>> w = np.ones((1, 1, 2), np.float32)
    >>> down = sparse.sparse_conv(x, w, stride=2, indice_key="down")
    >>> sparse.sparse_inverse_conv(down, w, indice_key="down").indices
    array([[0, 5],
           [0, 2]], dtype=int32)
    """
    return _sparse_inverse_conv(
        x, weight, bias, groups, activation, indice_key, rulebook, weight_layout
    ).compute()


def _sparse_inverse_conv(
    x: Any, weight: Any, bias: Any, groups: Any, activation: Any, indice_key: Any, rulebook: Any,
    weight_layout: Any,
) -> Call:  # fmt: skip
    filters = _filters(x, weight, bias, groups, weight_layout, activation)
    led_here = named_rulebook(x, filters.kernel_size, indice_key, rulebook)
    return conv_call(x, led_here.reverse(), filters)


def _filters(
    x: Any, weight: Any, bias: Any, groups: Any, weight_layout: Any, activation: Any
) -> Filters:
    like = require_tensor(x).feature_array
    return Filters.of(weight, bias, x.ndim, groups, weight_layout, activation, beside=like)


#: How each operator's arguments become a call.
_CALLS: dict[Callable[..., Any], Callable[..., Call]] = {
    subm_conv: _subm_conv,
    sparse_conv: _sparse_conv,
    sparse_conv_transpose: _sparse_conv_transpose,
    sparse_inverse_conv: _sparse_inverse_conv,
    sparse_max_pool: sparse_max_pool_call,
    sparse_avg_pool: sparse_avg_pool_call,
    global_max_pool: global_max_pool_call,
    global_avg_pool: global_avg_pool_call,
}


def call_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    """Return what a call of one of this module's operators would compute, without computing it."""
    if function not in _CALLS:
        names = ", ".join(operator.__name__ for operator in _CALLS)
        raise ArgumentError(f"what: got {function!r}, want one of fastconv.sparse's {names}")
    bound = bind_call(function, args, kwargs)
    bound.apply_defaults()
    return _CALLS[function](**bound.arguments)
