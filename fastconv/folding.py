"""Batch normalisation, folded into the convolution before it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, is_masked, plain, require_array
from .contract.errors import ArgumentError, DTypeError, ShapeError
from .tensors import array_of

__all__ = ["fold_batch_norm", "host_values"]


def host_values(name: str, value: Any) -> NDArray[Any]:
    """Return an array, or a PyTorch tensor on the CPU, as an array of NumPy's.

    A tensor's memory is shared; whether it requires gradients does not matter, as nothing is
    computed that they could pass.

    Raises
    ------
    DTypeError
        For anything else, named by the argument.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise DTypeError(f"{name}: got a tensor on {value.device}, want one on the CPU")
        value = array_of(name, value, recorded=False)
    if is_masked(value) or not issubclass(type(value), np.ndarray):
        kind = "a masked array" if is_masked(value) else type(value).__name__
        raise DTypeError(f"{name}: got {kind}, want a NumPy array or a PyTorch tensor on the CPU")
    return plain(value)


def _vector(name: str, value: Any, filters: int) -> NDArray[np.float64]:
    """Return one number a filter, in float64."""
    values = host_values(name, value)
    if values.shape != (filters,):
        raise ShapeError(f"{name}: got shape {values.shape}, want ({filters},)")
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        raise DTypeError(f"{name}: got {values.dtype}, want real numbers")
    return values.astype(np.float64)


def fold_batch_norm(
    weight: Array,
    bias: Array | None,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    eps: float = 1e-5,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fold a batch normalisation that follows a convolution into its weight and bias.

    ``gamma * (conv(x) + bias - mean) / sqrt(var + eps) + beta``, computed in float64.

    Parameters
    ----------
    weight : ndarray, shape (K, ...)
        The convolution's filters. Here and below PyTorch tensors on the CPU are taken too. Of a
        transposed convolution without groups, whose weight is (C, K, ...), give
        ``weight.swapaxes(0, 1)`` and swap the axes of what comes.
    bias : ndarray, shape (K,), or None
        Its bias.
    mean, var : ndarray, shape (K,)
        Running statistics of the normalisation.
    gamma, beta : ndarray, shape (K,), optional
        Its scale (1) and shift (0).
    eps : float
        Added to the variance.

    Returns
    -------
    (ndarray, ndarray)
        Weight and bias of the one convolution, in the weight's dtype.

    Raises
    ------
    ShapeError
        Where a vector does not have one entry for each filter.
    DTypeError
        For what is no array, and for a weight of whole numbers.
    ArgumentError
        Where a variance and `eps` are not above zero together.

    Examples
    --------
    >>> import numpy as np
    >>> w, b = fold_batch_norm(np.ones((2, 1, 1, 1)), None, np.zeros(2), np.full(2, 4.0), eps=0.0)
    >>> w[:, 0, 0, 0], b
    (array([0.5, 0.5]), array([0., 0.]))
    """
    filters = require_array("weight", host_values("weight", weight))
    if filters.ndim < 1:
        raise ShapeError("weight: got no axes, want (output channels, ...)")
    count = filters.shape[0]
    shift = -_vector("mean", mean, count)
    if bias is not None:
        shift += _vector("bias", bias, count)
    spread = _vector("var", var, count) + eps
    if not np.all(spread > 0):
        place = int(np.argmin(np.nan_to_num(spread, nan=-np.inf)))
        raise ArgumentError(
            f"var: got {float(spread[place] - eps)} at channel {place} with eps={eps}, want a sum "
            "above 0"
        )
    scale = (1.0 if gamma is None else _vector("gamma", gamma, count)) / np.sqrt(spread)
    folded_bias = shift * scale + (0.0 if beta is None else _vector("beta", beta, count))
    folded = filters.astype(np.float64) * scale.reshape(-1, *(1,) * (filters.ndim - 1))
    return folded.astype(filters.dtype), folded_bias.astype(filters.dtype)
